"""How fast the devices here are, beside what their data sheets and the roofline of a step allow."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from jaxdna.parallel.machines import MACHINES
from jaxdna.parallel.mesh import granule
from jaxdna.parallel.peers import largest
from jaxdna.study.check_training import on_all
from jaxdna.study.plan import plan
from jaxdna.study.rates import Rates
from jaxdna.study.step_timer import step_timer

# A device that reaches less of its data sheet is throttled, shared or badly connected.
_LEAST_SHARE = 0.2
# Clocks, and the data sheets' own, are not more exact than this.
_TOLERANCE = 1.1
# Rates that are measured on a busy machine are lower than those while it trains.
_TOLERANCE_OF_MEASURED = 3.0
_IMAGES = {"data.train_examples": 2048, "data.validation_examples": 8, "data.test_examples": 8}
_REPEATS = 3


@dataclass(frozen=True)
class Speed:
    """How fast something is.

    Attributes:
      name: what.
      value: how fast.
      most: what it can be at best; None where nobody knows.
      unit: of both.
      note: what else there is to say.
      least_share: the share of `most` below which something is wrong.
      tolerance: how many times `most` is still possible.
    """

    name: str
    value: float
    most: float | None
    unit: str
    note: str = ""
    least_share: float = 0.0
    tolerance: float = _TOLERANCE

    @property
    def plausible(self) -> bool:
        """Whether it is neither faster than it can be nor far too slow."""
        if self.most is None:
            return self.value > 0
        return self.least_share * self.most <= self.value <= self.tolerance * self.most


def rate_rows(rates: Rates, devices: Sequence[jax.Device]) -> list[Speed]:
    """Returns what the devices reach beside the data sheet of one, where it is known."""
    sheet = MACHINES.get(devices[0].device_kind)
    one_host = len({granule(device) for device in devices}) == 1
    measured = [
        ("product of float32 matrices", rates.float32, "float32", 1e9, "GFLOP/s"),
        ("product of bfloat16 matrices", rates.bfloat16, "bfloat16", 1e9, "GFLOP/s"),
        ("main memory", rates.memory, "memory", 1e9, "GB/s"),
    ]
    if rates.links is not None:
        link = "link" if one_host else "network"
        measured.append(("sum over all devices", rates.links, link, 1e9, "GB/s sent"))
    note = f"of one device; limit: {sheet.source}" if sheet else "of one device"
    return [
        Speed(
            name,
            value / scale,
            getattr(sheet, key) / scale if sheet else None,
            unit,
            note,
            _LEAST_SHARE if key != "network" else 0.0,
        )
        for name, value, key, scale, unit in measured
    ]


def training_speed(name: str, devices: Sequence[jax.Device], rates: Rates) -> Speed:
    """Trains a shipped config for some seconds on all devices, beside its roofline.

    Args:
      name: `tal1` or `cifar10:timing`.
      devices: all devices of all processes, each of which must call.
      rates: what they reach: the roofline's rates where there is no data sheet.
    """
    program, dataset = on_all(name, _IMAGES if name.startswith("cifar10") else {}, devices)
    sheet = MACHINES.get(devices[0].device_kind)
    bound = plan(program, machine=sheet or rates.machine())["roofline"]
    timer = step_timer(program, program.compiled, dataset.splits["train"])
    seconds = largest(min(timer() for _ in range(_REPEATS)))
    program.close()
    batch = program.config.train.batch_size
    note = f"{batch / seconds:,.0f} examples/s; limit: roofline, bound by {bound['bound']}"
    return Speed(
        f"training {name}", 1 / seconds, 1 / bound["step_seconds_at_least"], "steps/s", note,
        tolerance=_TOLERANCE if sheet else _TOLERANCE_OF_MEASURED,
    )  # fmt: skip
