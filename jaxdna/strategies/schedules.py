"""Pipeline schedules as data: which stage does what at which time, with which weights.

A schedule of S stages is a list of events. Time is counted in slots: a forward or a backward pass
of one micro-batch through one stage takes one slot; an update takes none and follows the backward
pass of the batch's last micro-batch. Every stage works through its own fixed order, and starts the
next pass once its input has arrived.

All schedules are one family. A stage runs `warm_up` forward passes, then one backward and one
forward pass in turn. What differs is the warm-up, whether the pipeline is emptied after each batch
(synchronous), and which version of the weights a pass uses. Version v of a stage is its weights
after v updates.

Sources: gpipe arXiv 1811.06965; 1f1b and pipedream arXiv 1806.03377; 2bw arXiv 2006.09503;
spectrain arXiv 1809.02839.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"


@dataclass(frozen=True)
class Event:
    """One thing that a stage does.

    Attributes:
      time: slot, from 0.
      stage: from 0.
      kind: forward, backward or update.
      microbatch: counted over all batches; for an update the last one of its batch.
      version: of the weights that the pass uses; for an update the version that it makes.
      ahead: updates into the future for which the weights are predicted (spectrain).
    """

    time: int
    stage: int
    kind: str
    microbatch: int
    version: int
    ahead: int = 0


@dataclass(frozen=True)
class Schedule:
    """What tells one schedule from another.

    Attributes:
      meaning: one line for people.
      warm_up: (stages, stage, micro-batches) -> forward passes before the first backward pass.
      flush: whether the pipeline is emptied after each batch, which makes it synchronous.
      weights: `newest`; `stash`: the backward pass uses the version of its forward pass; `double`:
        every pass of a batch uses the weights of one update before; `predict`: the weights
        expected at the time when the micro-batch has left the pipeline.
    """

    meaning: str
    warm_up: Callable[[int, int, int], int]
    flush: bool
    weights: str = "newest"


def _one_in_turn(stages: int, stage: int, microbatches: int) -> int:
    return stages - 1 - stage


SCHEDULES: dict[str, Schedule] = {
    "sequential": Schedule("one stage works at a time", lambda stages, stage, m: 0, True),
    "gpipe": Schedule("all forward passes, then all backward", lambda stages, stage, m: m, True),
    "1f1b": Schedule("forward and backward in turn: fewer activations", _one_in_turn, True),
    "pipedream": Schedule("never emptied, weights stashed", _one_in_turn, False, "stash"),
    "2bw": Schedule("never emptied, two versions of the weights", _one_in_turn, False, "double"),
    "spectrain": Schedule("never emptied, weights predicted", _one_in_turn, False, "predict"),
}

Pass = tuple[str, int]


def _order(microbatches: Iterable[int], warm_up: int) -> list[Pass]:
    """The passes of one stage: `warm_up` forward, then backward and forward in turn."""
    waiting = list(microbatches)
    warm_up = min(warm_up, len(waiting))
    order: list[Pass] = [(FORWARD, m) for m in waiting[:warm_up]]
    for done, m in zip(waiting, waiting[warm_up:], strict=False):
        order += [(FORWARD, m), (BACKWARD, done)]
    return order + [(BACKWARD, m) for m in waiting[len(waiting) - warm_up :]]


def _clock(orders: list[list[Pass]]) -> list[tuple[int, int, str, int]]:
    """Plays the orders against each other: (slot, stage, kind, micro-batch), sorted."""
    finished: dict[tuple[int, str, int], int] = {}
    position = [0] * len(orders)
    played = []
    time, last = 0, len(orders) - 1
    while any(at < len(order) for at, order in zip(position, orders, strict=True)):
        for stage, order in enumerate(orders):
            if position[stage] == len(order):
                continue
            kind, m = order[position[stage]]
            if kind == FORWARD:
                source = (stage - 1, FORWARD, m) if stage else None
            else:
                source = (stage, FORWARD, m) if stage == last else (stage + 1, BACKWARD, m)
            if source is None or finished.get(source, time) < time:
                finished[stage, kind, m] = time
                position[stage] += 1
                played.append((time, stage, kind, m))
        time += 1
    return played


def least_microbatches(name: str, stages: int) -> int:
    """Micro-batches that a schedule needs at least.

    2bw uses weights that are one update old on every stage. Stage 0 runs S-1 micro-batches ahead of
    its backward passes, so the update before the last has been made in time only if a batch has
    S-1 of them or more.
    """
    return max(1, stages - 1) if SCHEDULES[name].weights == "double" else 1


def timetable(name: str, stages: int, microbatches: int, batches: int) -> list[Event]:
    """Returns the events of `batches` batches, from an empty pipeline to an empty one.

    Args:
      name: a key of `SCHEDULES`.
      stages: S.
      microbatches: M, pieces of each batch.
      batches: how many.

    Returns:
      Events in an order in which they can be executed one by one.
    """
    schedule = SCHEDULES[name]
    everything = range(batches * microbatches)
    runs = (
        [everything[b * microbatches : (b + 1) * microbatches] for b in range(batches)]
        if schedule.flush
        else [everything]
    )
    orders = [
        [p for run in runs for p in _order(run, schedule.warm_up(stages, stage, microbatches))]
        for stage in range(stages)
    ]
    played = _clock(orders)
    # Slot in which each stage makes each update: that of its batch's last backward pass.
    made = [[0] * batches for _ in range(stages)]
    left = [0] * len(everything)  # slot in which a micro-batch leaves the pipeline at stage 0
    for time, stage, kind, m in played:
        if kind == BACKWARD:
            made[stage][m // microbatches] = time
            if stage == 0:
                left[m] = time

    version = [0] * stages
    used: dict[tuple[int, int], int] = {}  # (stage, micro-batch) -> version of its forward pass
    events = []
    for time, stage, kind, m in played:
        batch, ahead = m // microbatches, 0
        if kind == FORWARD:
            delayed = batch - 1 if stages > 1 else batch
            weights = max(0, delayed) if schedule.weights == "double" else version[stage]
            if weights > version[stage]:
                raise ValueError(f"{name} needs {least_microbatches(name, stages)} micro-batches")
            used[stage, m] = weights
        else:
            weights = version[stage] if schedule.weights == "predict" else used[stage, m]
        if schedule.weights == "predict":
            # Updates by other batches until this one is through: in the steady state of one
            # micro-batch a batch floor(k/2) + S-k-1 forward and floor(k/2) backward at stage k.
            coming = range(version[stage], batches)
            ahead = sum(made[stage][b] <= left[m] for b in coming if b != batch)
        events.append(Event(time, stage, kind, m, weights, ahead))
        if kind == BACKWARD and (m + 1) % microbatches == 0:
            version[stage] += 1
            events.append(Event(time, stage, UPDATE, m, version[stage]))
    return events


def ideal_bubble(stages: int, microbatches: int) -> float:
    """(S-1)/(M+S-1): share of the slots that gpipe and 1f1b leave idle in each batch."""
    return (stages - 1) / (microbatches + stages - 1)


def bubble(events: list[Event], stages: int) -> float:
    """Counts the share of (stage, slot) pairs in which nothing happens."""
    busy = sum(event.kind != UPDATE for event in events)
    return 1 - busy / (stages * (1 + max(event.time for event in events)))


def staleness(events: list[Event], stages: int, microbatches: int) -> list[Counter[int]]:
    """Counts, for each stage, how many updates lie between a forward pass' weights and its update.

    Returns:
      For each stage: staleness -> forward passes. Synchronous schedules have 0 only.
    """
    seen: list[Counter[int]] = [Counter() for _ in range(stages)]
    for event in events:
        if event.kind == FORWARD:
            seen[event.stage][event.microbatch // microbatches - event.version] += 1
    return seen


def most_in_flight(events: list[Event], stages: int) -> list[int]:
    """Most micro-batches whose input a stage keeps at a time, waiting for the backward pass."""
    now, most = [0] * stages, [0] * stages
    for event in events:
        if event.kind == FORWARD:
            now[event.stage] += 1
            most[event.stage] = max(most[event.stage], now[event.stage])
        elif event.kind == BACKWARD:
            now[event.stage] -= 1
    return most


def last_uses(events: list[Event]) -> dict[tuple[int, int], int]:
    """Returns (stage, version) -> index of the last event that reads this version or makes it."""
    return {(event.stage, event.version): index for index, event in enumerate(events)}


def most_versions(events: list[Event], stages: int) -> list[int]:
    """Most versions of its weights that a stage holds at a time, the newest included."""
    last = last_uses(events)
    alive = [{0} for _ in range(stages)]
    most, newest = [1] * stages, [0] * stages
    for index, event in enumerate(events):
        if event.kind == UPDATE:
            newest[event.stage] = event.version
            alive[event.stage].add(event.version)
            alive[event.stage] = {
                v
                for v in alive[event.stage]
                if v == event.version or last.get((event.stage, v), -1) > index
            }
            most[event.stage] = max(most[event.stage], len(alive[event.stage]))
    return most
