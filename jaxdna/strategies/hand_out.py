"""Hands the steps of one call out to workers, as tickets, and takes back what they have done."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxdna.errors import PeerError
from jaxdna.strategies.parameter_actors import RESUMES, answer_of
from jaxdna.strategies.parameter_store import Gate
from jaxdna.strategies.part_gradient import Ticket
from jaxdna.strategies.ray_cluster import ray

Sums = dict[str, float]


class HandOut:
    """The tickets of one call, on their way.

    Asynchronous training has one part a step, and as many steps under way as the gate lets through.
    Synchronous training has one step at a time, of which each worker takes a part.

    Attributes:
      sums: of the metrics of each ticket that is done.
      waited: seconds for which workers were idle.
      lost: tickets whose worker died.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        servers: int,
        parts: int,
        max_staleness: int,
        about: Callable[[Any], Any],
    ):
        """Takes whom to hand to.

        Args:
          workers: handles.
          servers: how many share the variables.
          parts: of each step.
          max_staleness: updates between a worker's pull and its push at most; with several parts
            those of a step are let through.
          about: asks an actor about itself, and so waits for one that is being started again.
        """
        self.sums: dict[Ticket, Sums] = {}
        self.waited, self.lost = 0.0, 0
        self._workers, self._parts, self._about = workers, parts, about
        self._gate = Gate(max_staleness if parts == 1 else parts - 1)
        self._tickets: deque[Ticket] = deque()
        self._idle = dict.fromkeys(range(len(workers)), time.perf_counter())
        self._running: dict[Any, tuple[int, Ticket]] = {}
        self._returning: dict[Any, int] = {}  # workers that died, and are being started again
        self._applied = [False] * servers  # the step under way, by each of them
        self._again = False  # whether a step is handed out a second time

    def run(self, steps: range) -> None:
        """Hands out until every step has been applied.

        Raises:
          PeerError: a server or a worker has died, and does not come back as it was.
        """
        upcoming = iter(steps)
        while True:
            if not self._tickets and (self._parts == 1 or not self._running):
                self._queue(upcoming)
            if not self._tickets and not self._running:
                return
            while self._tickets and self._idle and self._gate.open():
                self._begin(self._tickets.popleft())
                if not self._tickets and self._parts == 1:
                    self._queue(upcoming)
            done, _ = ray.wait([*self._running, *self._returning], num_returns=1)
            for future in done:
                (self._welcome if future in self._returning else self._end)(future)
            if self._parts > 1 and not (self._running or self._tickets or all(self._applied)):
                # A server died with some parts of this step in its memory: send them again.
                self._again = True
                self._parts_of(max(ticket.step for ticket in self.sums))

    def _queue(self, upcoming: Iterator[int]) -> None:
        step = next(upcoming, None)
        if step is not None:
            self._applied, self._again = [False] * len(self._applied), False
            self._parts_of(step)

    def _parts_of(self, step: int) -> None:
        self._tickets.extend(Ticket(step, part) for part in range(self._parts))

    def _begin(self, ticket: Ticket) -> None:
        """Gives a ticket to an idle worker."""
        # In synchronous training the same worker gets the same part, also when it is asked for it
        # again: it still has the gradient.
        same = self._parts > 1 and ticket.part in self._idle
        rank = ticket.part if same else next(iter(self._idle))
        self.waited += time.perf_counter() - self._idle.pop(rank)
        self._gate.begin(ticket)
        self._running[self._workers[rank].work.remote(ticket, self._again)] = rank, ticket

    def _end(self, future: Any) -> None:
        """Takes back a ticket: done, or lost with its worker."""
        rank, ticket = self._running.pop(future)
        try:
            answer = answer_of(future)
        except ray.exceptions.RayActorError:
            # Another worker takes its ticket, and Ray brings this one back.
            self._gate.end(ticket, pushed=False)
            self._tickets.appendleft(ticket)
            self.lost += 1
            self._returning[self._about(self._workers[rank])] = rank
            return
        self._gate.end(ticket)
        self._idle[rank] = time.perf_counter()
        self.sums[ticket] = answer["sums"]
        self._applied = [a or b for a, b in zip(self._applied, answer["applied"], strict=True)]

    def _welcome(self, future: Any) -> None:
        """Takes back a worker that was started again."""
        rank = self._returning.pop(future)
        try:
            ray.get(future)
        except ray.exceptions.RayActorError:
            raise PeerError(f"worker {rank} died for good; {RESUMES}") from None
        self._idle[rank] = time.perf_counter()
