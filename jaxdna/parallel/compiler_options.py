"""Compiler options that let gradients travel while the rest is still being differentiated.

Left alone, XLA collects all gradients of a small network in one all-reduce after the whole backward
pass. Each option here was kept because the *schedule* of a compiled step overlaps with it and does
not without it (``tests/parallel/test_compiler_options.py`` compiles and counts); none of them has
been timed on a TPU or GPU. They are XLA's own switches, not a stable interface, and differ from
generation to generation, so they go to ``jax.jit(..., compiler_options=...)`` and not into the
environment.

The step has to help: see `jaxdna.parallel.gradient_sync.hold_update`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Option:
    """One compiler option.

    Attributes:
      name: XLA's name for it.
      value: its value: text for TPUs, a Python value for GPUs.
      reason: what it is for.
    """

    name: str
    value: str | bool | int
    reason: str


_FUSED = (
    Option(
        "xla_enable_async_all_reduce",
        "true",
        "lets an all-reduce be split into a start and a done",
    ),
    Option(
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce",
        "true",
        "carries an all-reduce out in steps, inside the fusions that compute meanwhile",
    ),
)
_SPARSECORE = (
    Option(
        "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
        "true",
        "hands the all-reduce to the SparseCore, which runs beside the TensorCore",
    ),
)

# tpu7x offloads to its SparseCores by default. A v4 has none, and the fused all-reduce asks for all
# of its 16 MiB of vector memory: it compiles for one network and is refused for the next, so v4 has
# no option but the size of a bucket.
OVERLAP: dict[str, tuple[Option, ...]] = {
    "v4": (),
    "v5e": _FUSED,
    "v5p": _SPARSECORE,
    "v6e": _SPARSECORE,
    "tpu7x": (),
    "nvidia": (
        Option(
            "xla_gpu_enable_latency_hiding_scheduler",
            True,
            "puts other kernels between the start and the done of a collective",
        ),
        Option(
            "xla_gpu_experimental_parallel_collective_overlap_limit",
            2,
            "lets the next gradient start before the one on its way is done; with one at a time "
            "an A6000 or A100 hides none behind a convolution, with more than two others hide less",
        ),
        Option(
            "xla_gpu_enable_analytical_sol_latency_estimator",
            False,
            "its model of H100 and later expects so small a network to end before it could hide "
            "anything",
        ),
    ),
}

# What `jax.Device.device_kind` says.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "TPU7x": "tpu7x",
}


def overlap_options(device_kind: str, bucket_mb: float) -> dict[str, str | bool | int]:
    """The options for a step that synchronises its gradients on such devices.

    Args:
      device_kind: ``jax.Device.device_kind``, e.g. ``"TPU v5 lite"``.
      bucket_mb: XLA joins gradients into one all-reduce until it has this many MiB (2**20 bytes);
        with 0 each travels alone, as soon as it is ready.

    Returns:
      Names and values for ``compiler_options``; empty for devices without an entry in `OVERLAP`.
    """
    bucket = round(bucket_mb * 2**20)
    if device_kind.startswith("NVIDIA"):
        generation = "nvidia"
        threshold: dict[str, str | bool | int] = {
            "xla_gpu_all_reduce_combine_threshold_bytes": bucket
        }
    elif device_kind in _KINDS:
        generation = _KINDS[device_kind]
        threshold = {"xla_jf_crs_combiner_threshold_in_bytes": str(bucket)}
    else:
        return {}
    return threshold | {option.name: option.value for option in OVERLAP[generation]}
