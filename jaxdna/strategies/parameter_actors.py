"""The Ray actors of strategy=parameter_server: servers hold variables, workers compute gradients.

Ray starts them again when they die: a worker then pulls the newest values, a server goes back to
its checkpoint. Where it cannot, it answers all the same: with an error that says so.
"""

import os
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.config import validate
from jaxdna.errors import JaxdnaError, PeerError
from jaxdna.parallel.runtime import start_backend
from jaxdna.strategies.parameter_store import Store, choose, merge
from jaxdna.strategies.part_gradient import PartGradient, Ticket, worker_config
from jaxdna.strategies.ray_cluster import ray
from jaxdna.training.optimizer import make_optimizer
from jaxdna.training.state import Params

RESUMES = "the same command resumes from the run's last checkpoint"


class Server:
    """A Ray actor around a `Store`."""

    def __init__(
        self,
        settings: dict[str, Any],
        steps_per_epoch: int,
        head: str,
        word_tables: frozenset[tuple[str, ...]],
        checkpoint: Path,
        umask: int,
    ):
        """Opens the store; after a restart, at its checkpoint."""
        os.umask(umask)
        config = validate(settings)
        config.runtime.platform, config.runtime.cpu_devices = "cpu", 0
        start_backend(config, Console(quiet=True))
        optimizer = make_optimizer(config, steps_per_epoch, head, word_tables)
        self._store = Store(optimizer, checkpoint, config.parameter_server.checkpoint_every)
        self.restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._lost: PeerError | None = None
        if self.restarted:
            try:
                self._store.restore()
            except Exception as error:  # of a damaged file, pickle raises whatever it likes
                # An error here would end this actor for good, and its reason with it.
                self._lost = PeerError(
                    f"a parameter server died, and its checkpoint {checkpoint} cannot be read "
                    f"({getattr(error, 'strerror', None) or error}); {RESUMES}"
                )

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the store.

        Raises:
          PeerError: this server has died and lost its variables, and `load` brings no new ones.
        """
        if self._lost and method != "load":
            raise self._lost
        answer = getattr(self._store, method)(*arguments)
        self._lost = None
        return answer

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
        self,
        settings: dict[str, Any],
        rank: int,
        parts: int,
        servers: list[tuple[str, list[str]]],
        umask: int,
    ):
        """Starts jax, loads the data and compiles the gradient.

        Args:
          settings: the flat configuration of the run.
          rank: number of the worker.
          parts: pieces of each batch.
          servers: their names and the paths of their variables.
          umask: the user's, since caches are shared: Ray's keeps all to the owner.
        """
        os.umask(umask)
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
        answers = [patiently(self._config, server, "pull") for server, _ in self._servers]
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
            applied.append(patiently(self._config, server, "push", *ticket, version, own))
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


def patiently(config: ConfigDict, server: Any, method: str, *arguments: Any) -> Any:
    """Calls a server; while it is away, tries again after 0.05, 0.1, ... 2 seconds.

    Raises:
      PeerError: it will not come back, it did not within `parameter_server.patience` seconds, or it
        has lost its variables.
    """
    patience, start, pause = config.parameter_server.patience, time.monotonic(), 0.05
    while True:
        try:
            return answer_of(server.call.remote(method, *arguments))
        except ray.exceptions.RayActorError as error:  # never for the caller: it means a worker
            if isinstance(error, ray.exceptions.ActorDiedError):
                raise PeerError(f"a parameter server died for good; {RESUMES}") from None
            if time.monotonic() - start > patience:
                raise PeerError(
                    f"a parameter server died and did not come back within {patience:g} s "
                    f"(--config.parameter_server.patience); {RESUMES}"
                ) from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def answer_of(future: Any) -> Any:
    """Returns what an actor answers; an error of ours is raised as itself, not as Ray's."""
    try:
        return ray.get(future)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, JaxdnaError):
            raise error.cause from None
        raise
