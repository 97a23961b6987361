"""What the processes of a run tell each other: what they agree on, and that one of them fails."""

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdna.errors import (
    EXIT_PEER,
    Disagreement,
    PeerError,
    Preempted,
    last_words,
    one_line,
    report,
)
from jaxdna.parallel.cluster import client, own_id

_FAILURE = "jaxdna/failure"
_LOOK_SECONDS = 0.5
_PATIENCE_MS = 24 * 3600 * 1000  # shorter waits are the watchdog's business
# What the transports of XLA's collective operations say where the other end has gone.
_PEER_LOST = r"[Gg]loo|Connection (closed|reset|refused)|Socket closed|[Hh]eartbeat"
_rounds = itertools.count()  # all processes ask the same questions in the same order


def all_accept(offer: str, objection: Callable[[str], str | None]) -> str:
    """Lets every process look at what process 0 offers; all of them go on, or none does.

    Args:
      offer: what process 0 offers; what the others give is ignored.
      objection: returns what speaks against an offer, or None; asked in every process.

    Returns:
      The offer, on every process. A process that has joined no others takes its own.

    Raises:
      Disagreement: somebody objects; the first objection, the same in every process.
    """
    others = client()
    if others is None:
        return offer
    key = f"jaxdna/round/{next(_rounds)}"
    if own_id() == 0:
        others.key_value_set(f"{key}/offer", offer)
    offered = others.blocking_key_value_get(f"{key}/offer", _PATIENCE_MS)
    against = objection(offered)
    if against:
        with suppress(jax.errors.JaxRuntimeError):  # somebody else was first
            others.key_value_set(f"{key}/objection", against)
    others.wait_at_barrier(f"{key}/looked", _PATIENCE_MS)
    try:
        raise Disagreement(others.key_value_try_get(f"{key}/objection"))
    except jax.errors.JaxRuntimeError:  # no such key
        return offered


@contextmanager
def one_fate() -> Iterator[None]:
    """Ends all processes where one of them fails, and tells each why; does nothing in a single one.

    By itself a process that fails leaves the others waiting for it in a collective operation, and
    the cause in a log that nobody looks at. So the cause goes into the key-value store of the
    coordinator, where a thread of each process looks for it. Nobody is through before all are: one
    that has nothing left to do may still hear that another cannot write what it should.

    Entered before the processes have joined; a failure of joining is not for the others to hear.
    """
    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended,), name="peers", daemon=True).start()
    try:
        try:
            yield
        except Preempted:  # all of them stop
            _wait_for_all()
            raise
        _wait_for_all()
    except BaseException as error:
        if client() is None or isinstance(error, Preempted | Disagreement | SystemExit):
            raise
        if re.search(_PEER_LOST, str(error)):
            time.sleep(2 * _LOOK_SECONDS)  # meanwhile the thread may hear why, and end this process
            error = PeerError(f"the connection to another process was lost ({one_line(error)})")
        ended.set()
        _fail(error)
    finally:
        ended.set()


def meet() -> None:
    """Waits for all other processes, and connects what sums on their devices.

    On CPUs that is Gloo, which waits for its other ends half a minute and no longer; loading data
    and compiling may take one process longer than another by more than that.
    """
    _wait_for_all()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("jaxdna")


def largest(value: float) -> float:
    """Returns the largest of what the processes give; NaN where one of them gives that.

    In a single process that is `value`; of several all must ask, and get it in float32.
    """
    if jax.process_count() == 1:
        return value
    return float(np.max(multihost_utils.process_allgather(np.float32(value))))


def _wait_for_all() -> None:
    others = client()
    if others is not None:
        others.wait_at_barrier(f"jaxdna/round/{next(_rounds)}/done", _PATIENCE_MS)


def _watch(ended: threading.Event) -> None:
    while not ended.wait(_LOOK_SECONDS):
        others = client()
        if others is None:
            continue
        try:
            cause = others.key_value_try_get(_FAILURE)
        except jax.errors.JaxRuntimeError:  # no such key; and without its coordinator jax aborts
            continue
        if not ended.is_set():
            last_words(f"\njaxdna: another process failed first: {cause}")
            os._exit(EXIT_PEER)


def _fail(error: BaseException) -> NoReturn:
    """Tells the others and ends this process, without waiting for them as jax would."""
    code = report(error)
    with suppress(jax.errors.JaxRuntimeError):  # somebody else was first, or there is nobody
        client().key_value_set(_FAILURE, f"process {own_id()}: {one_line(error)}")
    if own_id() == 0:
        time.sleep(3 * _LOOK_SECONDS)  # with this process the coordinator goes, and all abort
    os._exit(code)
