"""strategy=parameter_server: workers pull parameters, push gradients; Ray carries them.

The driver (this process) hands out steps and keeps the bound on staleness; servers and workers are
in `parameter_actors`.
"""

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdna.config import flat
from jaxdna.console import table
from jaxdna.data.dataset import Split
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import nearest_multiples
from jaxdna.storage.permissions import umask
from jaxdna.strategies.hand_out import HandOut
from jaxdna.strategies.parameter_actors import Server, Worker, patiently
from jaxdna.strategies.parameter_store import assign, merge, paths_of, take
from jaxdna.strategies.part_gradient import Ticket
from jaxdna.strategies.ray_cluster import check_answers, ray, start_ray, this_node
from jaxdna.training.program import Program
from jaxdna.training.state import TrainState
from jaxdna.training.strategy import TrainCall


class Steps(NamedTuple):
    """The steps of one call."""

    first: int
    number: int


def _about(actor: Any) -> Any:
    """Asks an actor about itself; if it is being started again, it answers when it is back."""
    return actor.about.options(max_task_retries=-1).remote()


class Cluster:
    """The actors of a run, and the driver's side of training with them.

    Attributes:
      servers: handles.
      workers: handles.
      shares: paths of each server's variables.
    """

    def __init__(self, program: Program):
        """Starts or joins Ray, starts the actors and waits until all are ready.

        Raises:
          UserError: the cluster does not answer or has no room.
        """
        self._program, settings = program, program.config.parameter_server
        self._own = not settings.address
        params = program.abstract_state.params
        sizes = {path: leaf.size for path, leaf in paths_of(params).items()}
        self.shares = assign(sizes, settings.servers)
        self.parts = settings.workers if settings.max_staleness == 0 else 1
        self.servers: list[Any] = []
        self.workers: list[Any] = []
        start_ray(program.config)
        self._folder = Path(tempfile.mkdtemp(prefix="jaxdna-parameters-"))
        try:
            self._start_actors()
            self.about()
        except BaseException:  # nobody else knows of this cluster yet
            self.close()
            raise
        self._forget()

    def _start_actors(self) -> None:
        program, config = self._program, self._program.config
        settings = config.parameter_server
        mask = umask()
        forever = {"max_restarts": -1, "num_cpus": 1}
        # Servers stay on this machine, where their checkpoints are; workers go where there is room.
        here = this_node()
        for i in range(settings.servers):
            server: Any = ray.remote(Server).options(
                name=f"server-{i}", scheduling_strategy=here, **forever
            )
            checkpoint = self._folder / f"server-{i}"
            self.servers.append(
                server.remote(
                    *(flat(config), program.steps_per_epoch, program.head, program.word_tables),
                    *(checkpoint, mask),
                )
            )
        gpus = settings.devices_per_worker if ray.cluster_resources().get("GPU") else 0
        worker: Any = ray.remote(Worker).options(
            num_gpus=gpus, scheduling_strategy="SPREAD", **forever
        )
        known = [(f"server-{i}", share) for i, share in enumerate(self.shares)]
        for rank in range(settings.workers):
            self.workers.append(worker.remote(flat(config), rank, self.parts, known, mask))

    def about(self) -> dict[str, list[dict[str, Any]]]:
        """What every actor says about itself.

        Raises:
          UserError: one of them is not ready in time.
        """
        settings = self._program.config.parameter_server
        asked = [_about(actor) for actor in [*self.servers, *self.workers]]
        try:
            answers = ray.get(asked, timeout=settings.patience)
        except ray.exceptions.GetTimeoutError:
            raise UserError(
                f"--config.parameter_server.workers={settings.workers} and servers="
                f"{settings.servers} were not started within {settings.patience:g} s "
                "(--config.parameter_server.patience); is there room for them in the cluster?"
            ) from None
        return {"servers": answers[: len(self.servers)], "workers": answers[len(self.servers) :]}

    def _forget(self) -> None:
        """Begins the measurements of an epoch."""
        self._staleness: Counter[int] = Counter()
        self._seconds = self._waited = 0.0
        self._updates = self._lost = 0

    def report(self) -> dict[str, Any]:
        """Measurements since the last report."""
        most = max(self._staleness, default=0)
        pushes = sum(self._staleness.values())
        mean = sum(age * n for age, n in self._staleness.items()) / max(1, pushes)
        row = {
            "staleness": [self._staleness[age] for age in range(most + 1)],
            "staleness_mean": round(mean, 4),
            "updates_per_second": round(self._updates / max(self._seconds, 1e-9), 2),
            "waiting_seconds": round(self._waited, 4),
            "tickets_lost": self._lost,
        }
        self._forget()
        return row

    def load(self, state: TrainState, first_step: int) -> None:
        """Gives every server its variables and their optimizer state."""
        params, opt_state = jax.tree.map(np.asarray, (state.params, state.opt_state))
        for server, paths in zip(self.servers, self.shares, strict=True):
            own = take(params, params, paths), take(opt_state, params, paths)
            patiently(self._program.config, server, "load", *own, first_step, self.parts)

    def collect(self, state: TrainState, steps: int) -> TrainState:
        """Returns the state after `steps` more steps, from the servers."""
        config = self._program.config
        got = [patiently(config, server, "state") for server in self.servers]
        variables = [own for own, _ in got]
        for server in self.servers:
            self._staleness += Counter(ray.get(_about(server))["staleness"])
        abstract = self._program.abstract_state
        merged = TrainState(
            state.step + steps,
            state.rng,
            merge(variables, abstract.params, abstract.params),
            merge([opt for _, opt in got], abstract.opt_state, abstract.params),
        )
        return jax.device_put(merged, self._program.state_shardings)

    def train(self, state: TrainState, steps: Steps) -> tuple[TrainState, dict[str, Any]]:
        """Takes the steps of one call; returns the state and the metrics, float32 [steps]."""
        start = time.perf_counter()
        self.load(state, steps.first)
        sums = self._hand_out(steps)
        self._updates += steps.number
        state = self.collect(state, steps.number)
        self._seconds += time.perf_counter() - start
        names = self._program.task.sums
        by_step = np.array([[s[name] for name in names] for s in sums], np.float32)
        return state, dict(zip(names, by_step.T, strict=True))

    def _hand_out(self, steps: Steps) -> list[dict[str, float]]:
        """Returns the sums of every step, once all have been applied."""
        bound = self._program.config.parameter_server.max_staleness
        hand_out = HandOut(self.workers, len(self.servers), self.parts, bound, _about)
        every = range(steps.first, steps.first + steps.number)
        try:
            hand_out.run(every)
        finally:
            self._waited += hand_out.waited
            self._lost += hand_out.lost
        sums, names = hand_out.sums, self._program.task.sums
        parts = [[sums[Ticket(step, part)] for part in range(self.parts)] for step in every]
        return [{name: sum(own[name] for own in step) for name in names} for step in parts]

    def close(self) -> None:
        """Ends the actors, and Ray where it was started here."""
        for actor in [*self.workers, *self.servers]:
            ray.kill(actor)
        if self._own:
            ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class ParameterServerProgram(Program):
    """A `Program` that trains with servers and workers; this process evaluates."""

    clusters: list[Cluster] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises UserError where variables or batch cannot be shared, or the address is none."""
        super().__post_init__()
        settings, batch = self.config.parameter_server, self.config.train.batch_size
        if settings.address and not re.fullmatch(r".+:\d+", settings.address):
            raise UserError(
                f"--config.parameter_server.address={settings.address} is not a HOST:PORT; give "
                "that of a head started with `ray start --head --port=PORT`, or leave it empty to "
                "start Ray here"
            )
        variables = len(jax.tree.leaves(self.abstract_state.params))
        if settings.servers > variables:
            raise UserError(
                f"--config.parameter_server.servers={settings.servers} is more than the "
                f"{variables} variables of the network; legal: 1 to {variables}"
            )
        parts = settings.workers if settings.max_staleness == 0 else 1
        shards = parts * settings.devices_per_worker
        if batch % shards:
            raise UserError(
                f"--config.train.batch_size={batch} is not divisible by {parts} workers at a time "
                f"with {settings.devices_per_worker} devices each; nearest legal: "
                f"{nearest_multiples(batch, shards)}"
            )

    def check(self) -> None:
        """Raises UserError where the cluster of the config does not answer, or Ray is in use."""
        settings = self.config.parameter_server
        if settings.address:
            check_answers(settings.address, settings.patience)
        if ray.is_initialized() and not self.clusters:
            raise UserError(
                "Ray is in use in this Python process already, and --config.strategy="
                "parameter_server starts or joins a cluster by itself; call ray.shutdown() first"
            )

    def feed(self, split: Split) -> Callable[[int, int], Steps]:
        """Starts the cluster, whose workers load the data themselves; only step numbers travel."""
        if not self.clusters:
            self.clusters.append(Cluster(self))
        return Steps

    def compiled(self, steps: int) -> TrainCall:
        """Returns the call; the workers have compiled the gradient when they started."""
        return self.clusters[-1].train

    def report(self) -> dict[str, Any]:
        """Staleness, updates per second and waiting time of the epoch."""
        return self.clusters[-1].report()

    def close(self) -> None:
        """Ends the actors."""
        while self.clusters:
            self.clusters.pop().close()

    def tables(self) -> Iterable[Any]:
        """Who holds what."""
        settings = self.config.parameter_server
        sizes = {path: leaf.size for path, leaf in paths_of(self.abstract_state.params).items()}
        yield table(
            "Parameter servers",
            ("server: variables", "parameters"),
            [
                [f"{i}: {', '.join(share)}", sum(sizes[path] for path in share)]
                for i, share in enumerate(assign(sizes, settings.servers))
            ],
        )
        bound = settings.max_staleness
        how = "synchronous" if bound == 0 else f"asynchronous, staleness at most {bound}"
        yield f"{settings.workers} workers with {settings.devices_per_worker} devices each, {how}"
