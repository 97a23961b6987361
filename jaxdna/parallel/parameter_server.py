"""strategy=parameter_server: workers pull parameters, push gradients; Ray carries them.

The driver (this process) hands out steps and keeps the bound on staleness; servers hold the
variables; workers compute gradients on their own devices. Workers and servers are Ray actors, which
Ray starts again when they die: a worker then pulls the newest values, a server goes back to its
checkpoint. This is the only module that imports Ray.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.config import flat, validate
from jaxdna.data.dataset import Split
from jaxdna.errors import UserError
from jaxdna.parallel.mesh import nearest_multiples
from jaxdna.parallel.parameter_store import Gate, Store, assign, choose, merge, paths_of, take
from jaxdna.parallel.part_gradient import PartGradient, Ticket, worker_config
from jaxdna.parallel.runtime import start_backend
from jaxdna.training.display import table
from jaxdna.training.optimizer import make_optimizer
from jaxdna.training.program import Program, TrainCall
from jaxdna.training.state import Params, TrainState


def _has_token() -> bool:
    """Whether Ray would find the token of a cluster where it looks for one."""
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


_HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
try:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A cluster whose head had a token asks for it, and Ray's clients do not show theirs by
    # themselves. Ray looks at this when it is imported.
    if "ray" not in sys.modules and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    from ray.exceptions import AuthenticationError, GetTimeoutError, RayActorError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    raise UserError(
        f"--config.strategy=parameter_server needs {error.name}, which is not installed; "
        "install jaxdna[ray], or take strategy spmd or pipeline"
    ) from error
if threading.current_thread() is threading.main_thread():
    for _number, _handler in _HANDLERS.items():  # Ray's import replaces ours, which save the run
        signal.signal(_number, _handler)

METRICS = ("loss", "correct", "weight")


class Steps(NamedTuple):
    """The steps of one call."""

    first: int
    number: int


class Server:
    """A Ray actor around a `Store`."""

    def __init__(self, settings: dict[str, Any], steps_per_epoch: int, head: str, checkpoint: Path):
        """Opens the store; after a restart, at its checkpoint."""
        config = validate(settings)
        config.runtime.platform, config.runtime.cpu_devices = "cpu", 0
        start_backend(config, Console(quiet=True))
        optimizer = make_optimizer(config, steps_per_epoch, head)
        self._store = Store(optimizer, checkpoint, config.parameter_server.checkpoint_every)
        self.restarted = ray.get_runtime_context().was_current_actor_reconstructed
        if self.restarted:
            self._store.restore()

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the store."""
        return getattr(self._store, method)(*arguments)

    def about(self) -> dict[str, Any]:
        """The process, the version, and the staleness of the pushes."""
        return {
            "pid": os.getpid(),
            "restarted": self.restarted,
            "version": self._store.version,
            "staleness": dict(self._store.staleness),
        }


class Worker:
    """A Ray actor that computes gradients on its own devices."""

    def __init__(
        self, settings: dict[str, Any], rank: int, parts: int, servers: list[tuple[str, list[str]]]
    ):
        """Starts jax, loads the data and compiles the gradient.

        Args:
          settings: the flat configuration of the run.
          rank: number of the worker.
          parts: pieces of each batch.
          servers: their names and the paths of their variables.
        """
        self._config = worker_config(settings, gpus=bool(ray.get_gpu_ids()))
        self._gradient = PartGradient(self._config, parts)
        self._servers = [(ray.get_actor(name), paths) for name, paths in servers]
        delays = [float(text) for text in self._config.parameter_server.delays.split(",") if text]
        self._delay = delays[rank] if rank < len(delays) else 0.0
        self._pulled: dict[Ticket, tuple[list[int], Params]] = {}
        self._last: tuple[Ticket, list[int], Params, Any] | None = None

    def about(self) -> dict[str, Any]:
        """The process and its devices."""
        devices = self._gradient.program.mesh.devices.flat
        return {"pid": os.getpid(), "devices": [str(device) for device in devices]}

    def pull(self, ticket: Ticket) -> None:
        """Fetches the newest values for a ticket."""
        answers = [_patiently(self._config, server, "pull") for server, _ in self._servers]
        params = self._gradient.program.abstract_state.params
        whole = merge([own for _, own in answers], params, params)
        self._pulled[ticket] = [version for version, _ in answers], whole

    def push(self, ticket: Ticket) -> dict[str, Any]:
        """Computes the gradient with the values pulled and sends it to every server.

        Returns:
          `sums` of the metrics, and `applied`: whether each server has made the step's update.
        """
        versions, params = self._pulled.pop(ticket)
        gradients, sums = self._gradient(ticket, params)
        time.sleep(self._delay)
        self._last = ticket, versions, gradients, sums
        return self._send(*self._last)

    def _send(
        self, ticket: Ticket, versions: list[int], gradients: Params, sums: Any
    ) -> dict[str, Any]:
        applied = []
        for (server, paths), version in zip(self._servers, versions, strict=True):
            own = choose(gradients, paths)
            applied.append(_patiently(self._config, server, "push", *ticket, version, own))
        return {"sums": sums, "applied": applied}

    def work(self, ticket: Ticket, again: bool) -> dict[str, Any]:
        """Pulls and pushes.

        Args:
          ticket: the gradient that is wanted.
          again: whether a server that died may have lost it, while the others have gone on with it;
            then the very same gradient is sent, if it is still there.
        """
        if again and self._last is not None and self._last[0] == ticket:
            return self._send(*self._last)
        self.pull(ticket)
        return self.push(ticket)


def _patiently(config: ConfigDict, server: Any, method: str, *arguments: Any) -> Any:
    """Calls a server; while it is away, tries again after 0.05, 0.1, ... 2 seconds."""
    end = time.monotonic() + config.parameter_server.patience
    pause = 0.05
    while True:
        try:
            return ray.get(server.call.remote(method, *arguments))
        except RayActorError:
            if time.monotonic() > end:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


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
        self._program, config = program, program.config
        settings = config.parameter_server
        self._own = not settings.address
        _start_ray(config)
        self._folder = Path(tempfile.mkdtemp(prefix="jaxdna-parameters-"))
        params = program.abstract_state.params
        sizes = {path: leaf.size for path, leaf in paths_of(params).items()}
        self.shares = assign(sizes, settings.servers)
        self.parts = settings.workers if settings.max_staleness == 0 else 1
        forever = {"max_restarts": -1, "num_cpus": 1}
        # Servers stay on this machine, where their checkpoints are; workers go where there is room.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.servers: list[Any] = []
        for i in range(settings.servers):
            server: Any = ray.remote(Server).options(
                name=f"server-{i}", scheduling_strategy=here, **forever
            )
            checkpoint = self._folder / f"server-{i}"
            self.servers.append(
                server.remote(flat(config), program.steps_per_epoch, program.head, checkpoint)
            )
        gpus = settings.devices_per_worker if ray.cluster_resources().get("GPU") else 0
        worker: Any = ray.remote(Worker).options(
            num_gpus=gpus, scheduling_strategy="SPREAD", **forever
        )
        known = [(f"server-{i}", share) for i, share in enumerate(self.shares)]
        self.workers: list[Any] = [
            worker.remote(flat(config), rank, self.parts, known) for rank in range(settings.workers)
        ]
        self.about()
        self._forget()

    def about(self) -> dict[str, list[dict[str, Any]]]:
        """What every actor says about itself.

        Raises:
          UserError: one of them is not ready in time.
        """
        settings = self._program.config.parameter_server
        asked = [_about(actor) for actor in [*self.servers, *self.workers]]
        try:
            answers = ray.get(asked, timeout=settings.patience)
        except GetTimeoutError:
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
            _patiently(self._program.config, server, "load", *own, first_step, self.parts)

    def collect(self, state: TrainState, steps: int) -> TrainState:
        """Returns the state after `steps` more steps, from the servers."""
        config = self._program.config
        got = [_patiently(config, server, "state") for server in self.servers]
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
        by_step = np.array([[s[name] for name in METRICS] for s in sums], np.float32)
        return state, dict(zip(METRICS, by_step.T, strict=True))

    def _hand_out(self, steps: Steps) -> list[dict[str, float]]:
        """Gives each idle worker the next ticket, until every step has been applied."""
        bound = self._program.config.parameter_server.max_staleness
        # Synchronous: one step at a time, each worker one part of it. Else: one part a step.
        gate = Gate(bound if self.parts == 1 else self.parts - 1)
        upcoming = iter(range(steps.first, steps.first + steps.number))
        tickets: deque[Ticket] = deque()
        idle = dict.fromkeys(range(len(self.workers)), time.perf_counter())
        running: dict[Any, tuple[int, Ticket]] = {}
        returning: dict[Any, int] = {}
        sums: dict[Ticket, dict[str, float]] = {}
        applied, again = [False] * len(self.servers), False
        while True:
            if not tickets and (self.parts == 1 or not running):
                step = next(upcoming, None)
                if step is not None:
                    tickets.extend(Ticket(step, part) for part in range(self.parts))
                    applied, again = [False] * len(self.servers), False
            if not tickets and not running:
                break
            while tickets and idle and gate.open():
                ticket = tickets.popleft()
                # In synchronous training the same worker gets the same part, also when it is asked
                # for it again: it still has the gradient.
                rank = ticket.part if self.parts > 1 and ticket.part in idle else next(iter(idle))
                self._waited += time.perf_counter() - idle.pop(rank)
                gate.begin(ticket)
                running[self.workers[rank].work.remote(ticket, again)] = rank, ticket
                if not tickets and self.parts == 1:
                    step = next(upcoming, None)
                    if step is not None:
                        tickets.append(Ticket(step, 0))
            done, _ = ray.wait([*running, *returning], num_returns=1)
            for future in done:
                if future in returning:
                    ray.get(future)
                    idle[returning.pop(future)] = time.perf_counter()
                    continue
                rank, ticket = running.pop(future)
                try:
                    answer = ray.get(future)
                except RayActorError:
                    # The worker died: another takes its ticket, and Ray brings it back.
                    gate.end(ticket, pushed=False)
                    tickets.appendleft(ticket)
                    self._lost += 1
                    returning[_about(self.workers[rank])] = rank
                    continue
                gate.end(ticket)
                idle[rank] = time.perf_counter()
                sums[ticket] = answer["sums"]
                applied = [a or b for a, b in zip(applied, answer["applied"], strict=True)]
            if self.parts > 1 and not running and not tickets and not all(applied):
                # A server died with some parts of this step in its memory: send them again.
                step, again = max(ticket.step for ticket in sums), True
                tickets.extend(Ticket(step, part) for part in range(self.parts))
        every = range(steps.first, steps.first + steps.number)
        parts = [[sums[Ticket(step, part)] for part in range(self.parts)] for step in every]
        return [{name: sum(own[name] for own in step) for name in METRICS} for step in parts]

    def close(self) -> None:
        """Ends the actors, and Ray where it was started here."""
        for actor in [*self.workers, *self.servers]:
            ray.kill(actor)
        if self._own:
            ray.shutdown()
        for path in self._folder.glob("*"):
            path.unlink()
        self._folder.rmdir()


def _start_ray(config: ConfigDict) -> None:
    """Starts a local Ray without dashboard, or joins the cluster that the config names."""
    settings = config.parameter_server
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "namespace": f"jaxdna-{uuid.uuid4().hex}",  # names of actors are this run's own
    }
    if settings.address:
        try:
            ray.init(address=settings.address, **options)
        except (ConnectionError, AuthenticationError):
            raise _not_let_in(settings.address) from None
        return
    actors = settings.workers + settings.servers
    # Ray listens on every interface, also when it is given a loopback address. What keeps others
    # out is the token that Ray 2.60 asks of every client of a new cluster; we leave it so.
    with warnings.catch_warnings():
        # jax warns of every fork; Ray's are followed by exec at once.
        warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
        ray.init(
            "local",  # without it Ray would join whatever cluster it finds on this machine
            num_cpus=actors,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **options,
        )


def _not_let_in(address: str) -> UserError:
    return UserError(
        f"--config.parameter_server.address={address} answers and does not let this process join; "
        "put the head's token (`ray get-auth-token` there) into ~/.ray/auth_token here"
    )


def check_answers(address: str, patience: float) -> None:
    """Asks a cluster for its health, in a process that can be given up.

    Args:
      address: HOST:PORT of its head.
      patience: most seconds to wait.

    Raises:
      UserError: no healthy head answers, or it wants a token.
    """
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        health = subprocess.run(ask, timeout=patience, capture_output=True, text=True, check=False)
        healthy, cause = health.returncode == 0, health.stderr
    except subprocess.TimeoutExpired:
        healthy, cause = False, ""
    if AuthenticationError.__name__ in cause:
        raise _not_let_in(address)
    if not healthy:
        raise UserError(
            f"--config.parameter_server.address={address} does not answer within {patience:g} s; "
            "give HOST:PORT of a head started with `ray start --head --port=PORT`, or leave it "
            "empty to start Ray here"
        )


@dataclass(frozen=True)
class ParameterServerProgram(Program):
    """A `Program` that trains with servers and workers; this process evaluates."""

    clusters: list[Cluster] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises UserError where the variables or the batch cannot be shared."""
        super().__post_init__()
        settings, batch = self.config.parameter_server, self.config.train.batch_size
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
                f"--config.train.batch_size={batch} does not divide by {parts} workers at a time "
                f"with {settings.devices_per_worker} devices each; nearest legal: "
                f"{nearest_multiples(batch, shards)}"
            )

    def check(self) -> None:
        """Raises UserError where the cluster that the config names does not answer."""
        settings = self.config.parameter_server
        if settings.address:
            check_answers(settings.address, settings.patience)

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
