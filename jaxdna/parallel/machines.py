"""What devices can do at best, by the data sheets of their makers: the rates of a roofline."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Machine:
    """The peak rates of one device, as jax counts devices.

    Attributes:
      float32: floating-point operations a second of matrix products of float32 numbers, as XLA
        computes them unless told otherwise: in TF32 on GPUs, in bfloat16 on TPUs.
      bfloat16: the same for bfloat16 numbers.
      memory: bytes a second from and to main memory.
      cache: bytes that stay on the chip from one kernel to the next.
      link: bytes a second that a device sends to those of its host or slice.
      link_latency: seconds that the smallest message takes on such a link.
      network: bytes a second that a device sends to other hosts or slices.
      network_latency: seconds that the smallest message takes there.
      source: where the figures are published.
    """

    float32: float
    bfloat16: float
    memory: float
    cache: float
    link: float
    network: float
    source: str
    link_latency: float = 1e-6
    network_latency: float = 5e-6


_TERA, _GIGA = 1e12, 1e9

# By `jax.Device.device_kind`. GPUs: products without sparsity; NVLink, or for the A6000 its PCIe
# 4.0 x16, in one direction; a network card of 400 Gbit/s a GPU (A100: 200, A6000: 100 a host of
# four). A TPU's links: all its ports in one direction; its network: the pod's, shared by its chips,
# or, where that is not published, the card of its host. A tpu7x chip is two devices.
MACHINES = {
    "NVIDIA RTX A6000": Machine(
        77.4 * _TERA, 154.8 * _TERA, 768 * _GIGA, 6 * 2**20, 32 * _GIGA, 3.1 * _GIGA,
        "NVIDIA RTX A6000 data sheet; GA102 whitepaper",
    ),
    "NVIDIA A100-SXM4-80GB": Machine(
        156 * _TERA, 312 * _TERA, 2039 * _GIGA, 40 * 2**20, 300 * _GIGA, 25 * _GIGA,
        "NVIDIA A100 data sheet",
    ),
    "NVIDIA H100 80GB HBM3": Machine(
        495 * _TERA, 989 * _TERA, 3352 * _GIGA, 50 * 2**20, 450 * _GIGA, 50 * _GIGA,
        "NVIDIA H100 data sheet",
    ),
    "NVIDIA H200 141GB HBM3e": Machine(
        495 * _TERA, 989 * _TERA, 4800 * _GIGA, 50 * 2**20, 450 * _GIGA, 50 * _GIGA,
        "NVIDIA H200 data sheet",
    ),
    "NVIDIA B200": Machine(
        1100 * _TERA, 2250 * _TERA, 7672 * _GIGA, 126 * 2**20, 900 * _GIGA, 50 * _GIGA,
        "NVIDIA DGX B200 data sheet",
    ),
    "TPU v4": Machine(
        275 * _TERA, 275 * _TERA, 1228 * _GIGA, 128 * 2**20, 300 * _GIGA, 6.25 * _GIGA,
        "cloud.google.com/tpu/docs/v4",
    ),
    "TPU v5 lite": Machine(
        197 * _TERA, 197 * _TERA, 819 * _GIGA, 128 * 2**20, 200 * _GIGA, 3.1 * _GIGA,
        "cloud.google.com/tpu/docs/v5e",
    ),
    "TPU v5": Machine(
        459 * _TERA, 459 * _TERA, 2765 * _GIGA, 128 * 2**20, 600 * _GIGA, 6.25 * _GIGA,
        "cloud.google.com/tpu/docs/v5p",
    ),
    "TPU v6 lite": Machine(
        918 * _TERA, 918 * _TERA, 1640 * _GIGA, 128 * 2**20, 448 * _GIGA, 12.5 * _GIGA,
        "cloud.google.com/tpu/docs/v6e",
    ),
    "TPU7x": Machine(
        1153.5 * _TERA, 1153.5 * _TERA, 3690 * _GIGA, 64 * 2**20, 600 * _GIGA, 12.5 * _GIGA,
        "cloud.google.com/tpu/docs/tpu7x",
    ),
}  # fmt: skip
