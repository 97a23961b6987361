#!/usr/bin/env bash
# jaxdna on one machine with several GPUs.
#
#   tools/launch/gpu_host.sh train --config=tal1                one process with all GPUs
#   EACH=1 tools/launch/gpu_host.sh train --config=tal1         one process per GPU
#
# One process is simpler, and what we recommend: nothing has to be found, and nothing is sent twice.
# One per GPU is how several machines run (and SLURM's --gpus-per-task=1), so it is the rehearsal
# for them: `jaxdna launch` starts the processes, ends them together and starts them again after a
# loss. They meet on the loopback interface, on a free port: no firewall has to be opened.
set -euo pipefail

[[ $# -gt 0 ]] || { echo "usage: [EACH=1] $0 VERB --config=..." >&2; exit 2; }
command -v nvidia-smi >/dev/null || { echo "$0: no nvidia-smi, so no NVIDIA driver here" >&2; exit 2; }

if [[ ${EACH:-0} = 1 ]]; then
  gpus=$(nvidia-smi --list-gpus | wc -l)
  exec jaxdna launch --processes="$gpus" --one-gpu-each --max-restarts=3 -- "$@"
fi
exec jaxdna "$@" --config.runtime.require_accelerator=true
