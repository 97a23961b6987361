"""Several processes as one program: how they find each other. The one caller of jax.distributed."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed, xla_bridge
from jax._src.lib import _jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from rich.console import Console

from jaxdna.errors import EXIT_PEER, PeerError, Preempted, UserError, last_words, report
from jaxdna.parallel.start import Start

_LAST_WORDS_SECONDS = 1800
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


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
        console.print(f"note     {start.note}", markup=False)
    if start.how == "single" or jax.distributed.is_initialized():
        return
    who = "" if start.processes is None else f"process {start.process_id} of {start.processes}, "
    if start.gpus:
        who += f"with GPUs {', '.join(map(str, start.gpus))} of those it sees, "
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
    # A proxy is for the web, and not for the other processes; gRPC would ask it for their hosts.
    os.environ.setdefault("grpc_proxy", "")
    jax.config.update("jax_check_proxy_envs", False)
    # Where its own time is over jax aborts the process; so ours is over first.
    patience = threading.Timer(cluster.start_seconds, _nobody_came, (who, where, cluster))
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            start.coordinator,
            num_processes=start.processes if start.coordinator else None,
            process_id=start.process_id if start.coordinator else None,
            initialization_timeout=cluster.start_seconds + 60,
            heartbeat_timeout_seconds=cluster.heartbeat_seconds,
            # Those that are done wait for the one that still writes; a dead one ends the wait.
            shutdown_timeout_seconds=_LAST_WORDS_SECONDS,
            coordinator_bind_address=bind,
            cluster_detection_method="deactivate" if start.coordinator else None,
            local_device_ids=start.gpus,
        )
    except OSError as error:  # of the request to the metadata server; jax's own are RuntimeErrors
        raise UserError(
            f"{start.how} ({start.reason}): the metadata server, which knows the TPU's hosts, does "
            f"not answer ({_one_line(error)}); give TPU_WORKER_HOSTNAMES=localhost for one "
            "host, or --config.cluster.coordinator and its fellows for several"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"{who}could not join the other processes{where} ({error})") from error
    finally:
        patience.cancel()
    coordinator = distributed.global_state.coordinator_address
    if coordinator and jax.config.values["jax_cpu_collectives_implementation"] == "gloo":
        _let_gloo_use(own_address(coordinator))
    _joined.set()


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
        f"{who}waited {cluster.start_seconds} s for the other processes{where} and not all came; "
        "is every one of them running, with the same coordinator, and does no firewall close its "
        "port?"
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


def agreed(pair: tuple[int, int] | None) -> tuple[int, int] | None:
    """Returns process 0's value on every process; what the others give is ignored.

    Args:
      pair: two integers that are not negative, or None.
    """
    if jax.process_count() == 1:
        return pair
    mine = np.array(pair or (-1, -1), np.int32)
    first, second = multihost_utils.broadcast_one_to_all(mine).tolist()
    return None if first < 0 else (first, second)


def reached_stop(call: int) -> bool:
    """Whether every process stops at this call, since one of them heard SIGTERM.

    Args:
      call: 1, 2, 3 … on every process. Jax asks all of them how far they are, and lets them stop at
        the first number that none has passed; it is true at that very number only.
    """
    return multihost_utils.reached_preemption_sync_point(call)


_joined = threading.Event()  # a client that is asked before it is connected aborts the process
_FAILURE = "jaxdna/failure"
_LOOK_SECONDS = 0.5
# What the transports of XLA's collective operations say where the other end has gone.
_PEER_LOST = r"[Gg]loo|Connection (closed|reset|refused)|Socket closed|[Hh]eartbeat"


@contextmanager
def one_fate() -> Iterator[None]:
    """Ends all processes where one of them fails, and tells each why; does nothing in a single one.

    By itself a process that fails leaves the others waiting for it in a collective operation, and
    the cause in a log that nobody looks at. So the cause goes into the key-value store of the
    coordinator, where a thread of each process looks for it.

    Entered before the processes have joined; a failure of joining is not for the others to hear.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended,), name="peers", daemon=True).start()
    try:
        yield
    except BaseException as error:
        if _client() is None or isinstance(error, Preempted | SystemExit):  # all of them stop
            raise
        if re.search(_PEER_LOST, str(error)):
            time.sleep(2 * _LOOK_SECONDS)  # meanwhile the thread may hear why, and end this process
            error = PeerError(f"a connection to another process is lost ({_one_line(error)})")
        ended.set()
        _fail(error)
    finally:
        ended.set()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _client() -> Any:
    """The connection to the coordinator; jax has no public way to its key-value store."""
    return distributed.global_state.client if _joined.is_set() else None


def _watch(ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        if _client() is None:
            continue
        try:
            cause = _client().key_value_try_get(_FAILURE)
        except jax.errors.JaxRuntimeError:  # no such key; and without its coordinator jax aborts
            continue
        if not ended.is_set():
            last_words(f"\njaxdna: another process failed first: {cause}")
            os._exit(EXIT_PEER)


def _fail(error: BaseException) -> NoReturn:
    """Tells the others and ends this process, without waiting for them as jax would."""
    code = report(error)
    with suppress(jax.errors.JaxRuntimeError):  # somebody else was first, or there is nobody
        _client().key_value_set(_FAILURE, f"process {jax.process_index()}: {_one_line(error)}")
    if jax.process_index() == 0:
        time.sleep(3 * _LOOK_SECONDS)  # with this process the coordinator goes, and all abort
    os._exit(code)
