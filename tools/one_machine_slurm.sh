#!/usr/bin/env bash
# A SLURM of this one machine, for as long as one command runs.
#
#   tools/one_machine_slurm.sh srun --ntasks=2 jaxdna train --config=tal1
#
# To try a job script before it goes to a cluster, and to test that jaxdna finds its processes there.
# Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. Daemons, keys and logs
# live in a folder of their own under $TMPDIR and end with the command; nothing of an installed
# SLURM is touched. Exit code 69: SLURM cannot be started here; the reason is the last line.
set -euo pipefail

cannot() {
  echo "one_machine_slurm: $*" >&2
  exit 69
}

[[ $# -gt 0 ]] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $(id -u) = 0 ]] || cannot "needs root"
for program in munged slurmctld slurmd srun sinfo python3; do
  command -v "$program" >/dev/null || cannot "$program is not installed"
done

folder=$(mktemp -d)
children=()
finish() {
  for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
  wait "${children[@]}" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

chmod 0755 "$folder"
mkdir -m 0700 "$folder/munge" "$folder/state" "$folder/spool"
mkdir -m 0755 "$folder/socket"
head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 0400 "$folder/munge/key"
munged --foreground --force --num-threads=2 --key-file="$folder/munge/key" \
  --socket="$folder/socket/munge" --pid-file="$folder/munge/pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" >"$folder/munged.out" 2>&1 &
children+=($!)

cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$folder/socket/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=1,bf_interval=1
MinJobAge=300
NodeName=localhost NodeHostname=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

for _ in {1..50}; do
  [[ -S $folder/socket/munge ]] && break
  sleep 0.1
done
[[ -S $folder/socket/munge ]] || cannot "munged: $(tail -n 1 "$folder/munged.out")"
slurmctld -D >"$folder/slurmctld.out" 2>&1 &
children+=($!)
slurmd -D -N localhost >"$folder/slurmd.out" 2>&1 &
children+=($!)
for _ in {1..100}; do
  [[ $(sinfo --noheader --format=%t 2>/dev/null) = idle ]] && break
  sleep 0.2
done
if [[ $(sinfo --noheader --format=%t 2>/dev/null) != idle ]]; then
  tail -n 3 "$folder"/slurm*.log >&2
  cannot "the node does not become idle"
fi
"$@"
