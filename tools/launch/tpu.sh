#!/usr/bin/env bash
# The same jaxdna command on every host of a Cloud TPU: one TPU VM, or all hosts of a slice.
#
#   TPU=my-tpu ZONE=us-west4-a tools/launch/tpu.sh train --config=tal1 --workdir=gs://BUCKET/tal1
#
# Made before: gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" \
#                --accelerator-type=v5litepod-8 --version=v2-alpha-tpuv5-lite
# The hosts of a slice have no common disk: the run folder is in a bucket, to which the TPU's service
# account has roles/storage.objectUser.
#
# JAX finds the hosts through the TPU's metadata server; no address is given. The first host
# coordinates on TCP port 8482; libtpu itself uses 8471. The `default` network of a project lets both
# pass between its own machines; on another network:
#   gcloud compute firewall-rules create jaxdna --network=NET --source-ranges=SUBNET_RANGE \
#     --allow=tcp:8471,tcp:8482
# Open them to the inside only: the coordinator asks nobody for a password.
set -euo pipefail

: "${TPU:?the name of the TPU}" "${ZONE:?its zone}"
[[ $# -gt 0 ]] || { echo "usage: TPU=NAME ZONE=ZONE $0 VERB --config=..." >&2; exit 2; }
wheels=(dist/jaxdna-*.whl) # `make wheel` leaves it there
WHEEL=${WHEEL:-${wheels[-1]}}
[[ -f $WHEEL ]] || { echo "WHEEL=$WHEEL is not a file; run make wheel first" >&2; exit 2; }

on_every_host() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

gcloud compute tpus tpu-vm scp "$WHEEL" "$TPU": --zone="$ZONE" --worker=all
# The images of TPU VMs may come with an older Python; uv fetches the one that is asked for.
on_every_host "python3 -m pip install --quiet --user uv && cd &&
  .local/bin/uv venv --quiet --allow-existing --python=3.12 jaxdna-venv &&
  .local/bin/uv pip install --quiet --python=jaxdna-venv $(printf %q "./${WHEEL##*/}[tpu,gcs]")"
# exec: a signal to the remote shell is a signal to jaxdna, which saves and ends with code 78.
on_every_host "exec ~/jaxdna-venv/bin/jaxdna$(printf ' %q' "$@") \
  --config.runtime.require_accelerator=true"
