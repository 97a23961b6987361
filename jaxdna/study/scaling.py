"""The scaling study: the same training on growing numbers of devices, and what it costs.

Each measurement runs in a fresh process of its own. What has been measured is kept, so that a study
that is interrupted continues, and one that is extended measures only what is new.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ml_collections import ConfigDict

from jaxdna.config import flat, validate
from jaxdna.errors import EXIT_USER, JaxdnaError, UserError
from jaxdna.member_settings import member_settings
from jaxdna.parallel.mesh import batch_shards, check_across, check_batch, resolve_axes
from jaxdna.progress import counted
from jaxdna.storage.files import Folder, writing
from jaxdna.strategies.pipeline import check_microbatches
from jaxdna.versions import versions

MODES = ("strong", "weak")
_MOST_SIMULATED = 4096
_MEASURED = "measured.json"

Answer = dict[str, Any]


class MeasurementError(JaxdnaError):
    """A process that measures has failed, and not by a user's mistake."""


@dataclass(frozen=True)
class Part:
    """One measurement to make.

    Attributes:
      name: of the config.
      config: with the global batch of this part.
      mode: `strong`, the global batch is the config's, or `weak`, the batch of each device is.
      devices: how many.
    """

    name: str
    config: ConfigDict
    mode: str
    devices: int

    def request(self, repeats: int) -> dict[str, Any]:
        """What the measuring process is asked."""
        return {"config": flat(self.config), "devices": self.devices, "repeats": repeats}


@dataclass(frozen=True)
class Row:
    """One measurement, and how it compares with the fewest devices of its config and mode.

    Attributes:
      config: name of the config.
      mode: `strong` or `weak`.
      devices: how many.
      device_kind: what they are.
      simulated: whether they share one CPU.
      mesh: size of each axis.
      batch_size: the global batch.
      epochs: of a run.
      seconds: of a run: the steps of all its epochs at the median time of a step.
      spread: half the range of that over the repeats, as a share of it.
      samples_per_second: throughput.
      speedup: how much shorter a run is than on the fewest devices.
      efficiency: speed-up for each device added: 1 is ideal.
      cost: of a run, in the unit of the price; None without a price.
      communication: share of a step that goes on the exchange of gradients; None where that cannot
        be told apart.
    """

    config: str
    mode: str
    devices: int
    device_kind: str
    simulated: bool
    mesh: dict[str, int]
    batch_size: int
    epochs: int
    seconds: float
    spread: float
    samples_per_second: float
    speedup: float
    efficiency: float
    cost: float | None
    communication: float | None


def parts_of(
    configs: dict[str, ConfigDict], devices: Sequence[int], modes: Sequence[str]
) -> list[Part]:
    """Returns every measurement of a study, checked as far as it can be without devices.

    Args:
      configs: by name.
      devices: numbers of devices, ascending.
      modes: of `MODES`.

    Raises:
      UserError: a mesh, a batch or its micro-batches do not fit a number of devices, or the
        strategy does not train on these devices.
    """
    parts = []
    for name, config in configs.items():
        if config.strategy == "parameter_server":
            raise UserError(
                "--config.strategy=parameter_server cannot be measured on --devices, since its "
                "workers have devices of their own; legal: spmd, pipeline"
            )
        if members := member_settings(config):
            raise UserError(
                f"--config.members asks for {len(members)} networks, but the study trains one; "
                "leave it out"
            )
        for mode in modes:
            for count in devices:
                batch = config.train.batch_size * (count if mode == "weak" else 1)
                changed = validate(flat(config) | {"train.batch_size": batch})
                sizes = resolve_axes(changed.mesh, count)
                check_batch(batch, sizes, changed.train.accumulate)
                check_across(changed.mesh.dcn, sizes)
                if changed.strategy == "pipeline":
                    check_microbatches(changed, sizes["stage"], batch_shards(sizes))
                parts.append(Part(name, changed, mode, count))
    return parts


def check_devices(configs: dict[str, ConfigDict], most: int) -> dict[str, str]:
    """Looks, in other processes, at the devices of each config.

    Returns:
      The platform for each config.

    Raises:
      UserError: there are fewer than `most`, or the backend does not start.
    """
    platforms, seen = {}, {}
    for name, config in configs.items():
        runtime = json.dumps(config.runtime.to_dict())
        if runtime not in seen:
            seen[runtime] = ask({"config": flat(config)})
        platforms[name] = seen[runtime]["platform"]
        simulates = platforms[name] == "cpu" and not config.runtime.cpu_devices
        there = _MOST_SIMULATED if simulates else seen[runtime]["devices"]
        if most > there:
            raise UserError(f"--devices={most} is more than there are: 1 to {there}")
    return platforms


def measure_all(
    parts: Sequence[Part],
    platforms: dict[str, str],
    repeats: int,
    folder: Folder,
    note: Callable[[str], None],
) -> Iterator[tuple[Part, Answer]]:
    """Yields every part with its measurements, those kept from before first taken from `folder`.

    Args:
      parts: what to measure.
      platforms: of each config.
      repeats: how often each time is taken.
      folder: of the study; measurements are added to its measured.json as they are made.
      note: is told what happens.

    Raises:
      UserError: the file is damaged, or something that the user gave does not fit.
      MeasurementError: a process has failed.
    """
    kept = _read(folder)
    for part in counted("measuring", parts, len(parts)):
        request = part.request(repeats)
        if platforms[part.name] == "cpu":
            request["config"]["runtime.cpu_devices"] = part.devices
        made_by = [request, versions(), platform.node()]
        key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
        label = place(part.name, part.mode, part.devices)
        if key in kept:
            note(f"{label}: kept from before")
        else:
            note(f"{label}: measuring")
            kept[key] = ask(request)
            with writing(folder, "--workdir"):
                folder.write(_MEASURED, json.dumps(kept, indent=1) + "\n")
        yield part, kept[key]


def place(config: str, mode: str, devices: int) -> str:
    """Returns words for a row of the study."""
    return f"{config}, {mode} scaling, {devices} device{'s' * (devices > 1)}"


def ask(request: dict[str, Any]) -> Answer:
    """Sends a request to a process of its own; see `scaling_row.main`.

    Raises:
      UserError: what the user gave is wrong.
      MeasurementError: the process failed otherwise.
    """
    command = [sys.executable, "-m", "jaxdna.study.scaling_row"]
    # The pipe stays open until the answer is there. It closes when this process ends, however that
    # happens, and then the other one ends too.
    reader, writer = os.pipe()
    try:
        os.write(writer, json.dumps(request).encode() + b"\n")
        done = subprocess.run(command, stdin=reader, capture_output=True, text=True)
    finally:
        os.close(writer)
        os.close(reader)
    said = done.stderr.strip().splitlines() or ["nothing was said"]
    if done.returncode == EXIT_USER:
        raise UserError(said[-1])
    if done.returncode != 0:
        # Where XLA aborts, its reason stands above a list of stack frames.
        cause = next((line for line in said if re.match(r"F\d{4} ", line)), said[-1])
        raise MeasurementError(
            f"the measuring process ended with {done.returncode} ({cause}); what was "
            "measured before is kept, and the same command continues"
        )
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(measured: Sequence[tuple[Part, Answer]], price_per_hour: float | None) -> list[Row]:
    """Compares measurements with the fewest devices of the same config and mode.

    Args:
      measured: in the order of `parts_of`.
      price_per_hour: of one device.
    """
    rows: list[Row] = []
    for part, answer in measured:
        seconds = [step * answer["steps"] for step in answer["step_seconds"]]
        run = median(seconds)
        first = next((r for r in rows if (r.config, r.mode) == (part.name, part.mode)), None)
        speedup = first.seconds / run if first else 1.0
        added = part.devices / first.devices if first else 1.0
        rows.append(
            Row(
                config=part.name,
                mode=part.mode,
                devices=part.devices,
                device_kind=answer["kind"],
                simulated=answer["simulated"],
                mesh=answer["mesh"],
                batch_size=part.config.train.batch_size,
                epochs=part.config.train.epochs,
                seconds=run,
                spread=(max(seconds) - min(seconds)) / 2 / run,
                samples_per_second=answer["examples"] / run,
                speedup=speedup,
                efficiency=speedup / added,
                cost=price_per_hour and price_per_hour * part.devices * run / 3600,
                communication=_communication(part, answer),
            )
        )
    return rows


def _communication(part: Part, answer: Answer) -> float | None:
    """Share of a step that the exchange of gradients adds to the same step without it."""
    if part.devices == 1:
        return 0.0
    if answer["alone_seconds"] is None:
        return None
    # Pairs, since both of a pair were taken in the same moment.
    pairs = zip(answer["step_seconds"], answer["alone_seconds"], strict=True)
    return max(0.0, median(1 - alone / step for step, alone in pairs))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns the rows as JSON values."""
    return [asdict(row) for row in rows]


def _read(folder: Folder) -> dict[str, Answer]:
    store = folder.path / _MEASURED
    try:
        kept = json.loads(folder.read(_MEASURED))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{store} is damaged ({error}); remove it to measure again") from None
    if not isinstance(kept, dict):
        raise UserError(f"{store} is damaged (no object); remove it to measure again")
    return kept
