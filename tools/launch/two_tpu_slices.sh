#!/usr/bin/env bash
# One jaxdna command on all hosts of two (or more) TPU slices, joined by the data-centre network.
#
#   QUEUED=my-slices ZONE=us-west4-a tools/launch/two_tpu_slices.sh \
#     train --config=tal1 --config.mesh.dcn.data=2 --workdir=gs://BUCKET/tal1
#
# Made before: gcloud compute tpus queued-resources create "$QUEUED" --zone="$ZONE" \
#                --node-count=2 --node-prefix=my-slice --accelerator-type=v5litepod-16 \
#                --runtime-version=v2-alpha-tpuv5-lite
# mesh.dcn.data=2 says that the data axis crosses the slices, everything else stays within one;
# `jaxdna plan --topology=v5e:4x4 --slices=2 --config.mesh.dcn.data=2` compiles it beforehand.
#
# A queued resource writes MEGASCALE_COORDINATOR_ADDRESS, _NUM_SLICES and _SLICE_ID into each
# host's metadata, where JAX reads them. The first host of slice 0 coordinates on TCP port 8482;
# libtpu uses 8471 within a slice and 8080 between slices. Let all three pass between the machines
# of the network, and from nowhere else: the coordinator asks nobody for a password.
set -euo pipefail

: "${QUEUED:?the name of the queued resource}" "${ZONE:?its zone}"
[[ $# -gt 0 ]] || { echo "usage: QUEUED=NAME ZONE=ZONE $0 VERB --config=..." >&2; exit 2; }
wheels=(dist/jaxdna-*.whl) # `make wheel` leaves it there
WHEEL=${WHEEL:-${wheels[-1]}}
[[ -f $WHEEL ]] || { echo "WHEEL=$WHEEL is not a file; run make wheel first" >&2; exit 2; }

on_every_host() {
  gcloud compute tpus queued-resources ssh "$QUEUED" --zone="$ZONE" --node=all --worker=all \
    --command="$1"
}

gcloud compute tpus queued-resources scp "$WHEEL" "$QUEUED": --zone="$ZONE" --node=all --worker=all
# The images of TPU VMs may come with an older Python; uv fetches the one that is asked for.
on_every_host "python3 -m pip install --quiet --user uv && cd &&
  .local/bin/uv venv --quiet --allow-existing --python=3.12 jaxdna-venv &&
  .local/bin/uv pip install --quiet --python=jaxdna-venv $(printf %q "./${WHEEL##*/}[tpu,gcs]")"
on_every_host "exec ~/jaxdna-venv/bin/jaxdna$(printf ' %q' "$@") \
  --config.runtime.require_accelerator=true"
