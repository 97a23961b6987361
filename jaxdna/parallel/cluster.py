"""Several processes as one program: how they find each other. The one caller of jax.distributed."""

import atexit
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax._src import distributed, xla_bridge
from jax._src.lib import _jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.errors import PeerError, UserError, one_line, report
from jaxdna.parallel.start import Start

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PROXY = "grpc_proxy"  # gRPC reads it before https_proxy and http_proxy

_joined = threading.Event()  # a client that is asked before it is connected aborts the process
_to_leave = threading.Event()


def join(cluster: ConfigDict, start: Start, console: Console) -> None:
    """Joins the other processes; returns when all are there.

    Args:
      cluster: `config.cluster`.
      start: what `decide` returned.
      console: says whom it waits for, and where.

    Raises:
      UserError: the coordinator's port cannot be used, or nobody says who the others are.
      PeerError: the others did not come in time.
    """
    if start.note:
        console.print(f"note     {start.note}")
    if jax.distributed.is_initialized():  # by us before, or by the user's own script
        _joined.set()
    if start.how == "single" or _joined.is_set():
        return
    who = "" if start.processes is None else f"process {start.process_id} of {start.processes}, "
    where = f" at {start.coordinator}" if start.coordinator else ""
    console.print(
        f"cluster  {start.how} ({start.reason}): {who}waiting up to {cluster.start_seconds} s "
        f"for the others{where}"
    )
    bind = None
    if start.coordinator:
        host, _, port = start.coordinator.rpartition(":")
        # By default the coordinator listens on every interface, and asks nobody for a password.
        bind = start.coordinator if host in _LOOPBACK else None
        if start.process_id == 0:
            _check_port(host if bind else "", int(port))
    # Where its own time is over jax aborts the process; so ours is over first.
    patience = threading.Timer(cluster.start_seconds, _nobody_came, (who, where, cluster))
    patience.daemon = True
    patience.start()
    try:
        with _no_proxy():
            jax.distributed.initialize(
                start.coordinator,
                num_processes=start.processes if start.coordinator else None,
                process_id=start.process_id if start.coordinator else None,
                initialization_timeout=cluster.start_seconds + 60,
                heartbeat_timeout_seconds=cluster.heartbeat_seconds,
                # By itself jax lets all go at the same time, and some find the coordinator gone.
                shutdown_timeout_seconds=0,
                coordinator_bind_address=bind,
                cluster_detection_method="deactivate" if start.coordinator else None,
                local_device_ids=start.gpus,
            )
    except OSError as error:
        if start.coordinator:
            raise
        raise UserError(
            f"{start.how} ({start.reason}): the metadata server, which knows the TPU's hosts, does "
            f"not answer ({one_line(error)}); give TPU_WORKER_HOSTNAMES=localhost for one "
            "host, or --config.cluster.coordinator, processes and process_id for several"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"{who}could not join the other processes{where} ({error})") from error
    finally:
        patience.cancel()
    coordinator = distributed.global_state.coordinator_address
    if coordinator and jax.config.values["jax_cpu_collectives_implementation"] == "gloo":
        _let_gloo_use(own_address(coordinator))
    _joined.set()
    _to_leave.set()
    atexit.register(leave)  # before jax's own, for which nothing is left to do


@contextmanager
def _no_proxy() -> Iterator[None]:
    """Keeps gRPC from asking the web's proxy for the other processes while it connects to them."""
    before = os.environ.get(_PROXY)
    os.environ[_PROXY] = ""
    jax.config.update("jax_check_proxy_envs", False)
    try:
        yield
    finally:
        del os.environ[_PROXY]
        if before is not None:
            os.environ[_PROXY] = before


def leave() -> None:
    """Ends the connection to the other processes: process 0 once all others have ended theirs.

    The coordinator is a part of process 0, and where it goes jax aborts whoever is connected still.
    Does nothing in a process that has joined no others.
    """
    if not _to_leave.is_set():
        return
    _to_leave.clear()
    connected, state = client(), distributed.global_state
    _joined.clear()
    if state.process_id == 0:
        with suppress(jax.errors.JaxRuntimeError):
            # Answered when every other process that is alive asks too: so when none is left.
            connected.get_live_nodes(range(state.num_processes))
    with suppress(jax.errors.JaxRuntimeError):
        state.shutdown()


def client() -> Any:
    """The connection to the coordinator, or None; jax has no public way to its key-value store."""
    return distributed.global_state.client if _joined.is_set() else None


def own_id() -> int:
    """Which of the processes this is, from 0, also before there is a backend."""
    return distributed.global_state.process_id


def own_address(coordinator: str) -> str:
    """Returns this host's address on the interface by which it reaches `host:port`; sends nothing.

    Raises:
      OSError: there is no way to it.
    """
    host, _, port = coordinator.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # of a datagram socket: only the route is looked up
        return probe.getsockname()[0]


def _let_gloo_use(address: str) -> None:
    """Makes the sums of CPUs listen at `address`.

    By itself Gloo takes the address that this host's name has on it: a public one where only
    loopback was asked for, or 127.0.1.1, which no other host reaches. Jax has no public way to say.
    """

    def make_client() -> Any:
        client = distributed.global_state.client
        return xla_bridge.make_cpu_client(
            _jax.make_gloo_tcp_collectives(distributed_client=client, hostname=address)
        )

    xla_bridge.register_backend_factory("cpu", make_client, priority=0, fail_quietly=False)


def _nobody_came(who: str, where: str, cluster: ConfigDict) -> None:
    error = PeerError(
        f"{who}waited {cluster.start_seconds} s for the other processes{where}, but not all of "
        "them joined; are they all running, with the same coordinator, and does the firewall "
        "leave its port open?"
    )
    os._exit(report(error))


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise UserError(
                f"--config.cluster.coordinator: port {port} cannot be used ({error.strerror}); "
                "give another one"
            ) from error


def free_port() -> int:
    """Returns a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_primary() -> bool:
    """Whether this process writes the files that all share."""
    return jax.process_index() == 0


def reached_stop(call: int) -> bool:
    """Whether every process stops at this call, since one of them heard SIGTERM.

    Args:
      call: 1, 2, 3 … on every process. Jax asks all of them how far they are, and lets them stop at
        the first number that none has passed; it is true at that very number only.
    """
    return multihost_utils.reached_preemption_sync_point(call)
