"""Are the numbers of the devices here right, and how fast are they: what `doctor --check` runs."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax

from jaxdna.errors import one_line
from jaxdna.parallel.peers import largest
from jaxdna.progress import counted
from jaxdna.study.check_operations import operation_error, operations, rounding_limit, sum_errors
from jaxdna.study.check_speed import Speed, rate_rows, training_speed
from jaxdna.study.check_training import differing_bits, layouts, lost_in_checkpoint
from jaxdna.study.layouts import Difference
from jaxdna.study.rates import Rates, measure_rates


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
      name: of the check.
      ok: whether it is as it must be.
      value: what was found; None where the check itself failed.
      limit: the most that is right; None where nothing is known of that.
      unit: of value and limit.
      note: what else there is to say.
      seconds: that the check took.
    """

    name: str
    ok: bool
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    note: str = ""
    seconds: float = 0.0


class Here:
    """The devices that are checked, and what they reach, measured once.

    Attributes:
      devices: all of them, of all processes.
    """

    def __init__(self, devices: Sequence[jax.Device]):
        """Takes the devices; nothing is measured yet."""
        self.devices = devices

    @cached_property
    def rates(self) -> Rates:
        """What each device reaches while all of them work."""
        return measure_rates(self.devices)


def _within(name: str, value: float, limit: float, unit: str, note: str = "") -> Row:
    value = largest(value)
    shown = value if math.isfinite(value) else None
    return Row(name, value <= limit, shown, limit, unit, note)


def _operations(here: Here) -> Iterator[Row]:
    limit = rounding_limit(here.devices)
    for name, operation in operations().items():
        error = operation_error(operation, here.devices)
        yield _within(name, error, limit, "relative", "against float64")


def _sums(here: Here) -> Iterator[Row]:
    for name, error in sum_errors(here.devices):
        yield _within(f"sum, {name}", error, 0.0, "apart", "against psum")


def _layouts(here: Here) -> Iterator[Row]:
    found = list(counted("trying every layout", layouts(here.devices)))
    worst = max(found, key=_apart)
    note = f"the furthest of {len(found)} from one device: {worst.name}"
    yield _within("one SGD step on every layout", _apart(worst), worst.bound, "relative", note)


def _apart(difference: Difference) -> float:
    return math.inf if difference.max_rel_diff is None else difference.max_rel_diff


def _repeat(here: Here) -> Iterator[Row]:
    for name, bits in differing_bits(here.devices):
        yield _within(f"same seed twice, {name}", bits, 0.0, "arrays differ")


def _checkpoint(here: Here) -> Iterator[Row]:
    lost, size = lost_in_checkpoint(here.devices)
    yield _within("checkpoint", lost, 0.0, "arrays differ", f"{size:,} bytes, read as written")


def _rates(here: Here) -> Iterator[Row]:
    for speed in rate_rows(here.rates, here.devices):
        yield _as_fast(speed)


def _speed(here: Here) -> Iterator[Row]:
    for name in ("tal1", "cifar10:timing"):
        yield _as_fast(training_speed(name, here.devices, here.rates))


def _as_fast(speed: Speed) -> Row:
    return Row(speed.name, speed.plausible, speed.value, speed.most, speed.unit, speed.note)


CHECKS: dict[str, Callable[[Here], Iterator[Row]]] = {
    "operations": _operations,
    "sums": _sums,
    "repeat": _repeat,
    "checkpoint": _checkpoint,
    "layouts": _layouts,
    "rates": _rates,
    "speed": _speed,
}


def check(names: Sequence[str], devices: Sequence[jax.Device]) -> Iterator[Row]:
    """Runs checks and yields what each finds; one that fails does not keep the others from running.

    Args:
      names: of `CHECKS`.
      devices: all devices of all processes, each of which must call.
    """
    here = Here(devices)
    for name in names:
        start = time.perf_counter()
        try:
            for row in CHECKS[name](here):
                now = time.perf_counter()
                yield Row(**vars(row) | {"seconds": round(now - start, 2)})
                start = time.perf_counter()
        except Exception as error:  # whatever is wrong with the devices is what is looked for
            seconds = round(time.perf_counter() - start, 2)
            yield Row(name, ok=False, note=one_line(error), seconds=seconds)
