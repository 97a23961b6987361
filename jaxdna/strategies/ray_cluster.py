"""Ray: how it is imported, started here, or joined. The only module that imports it."""

import os
import signal
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdna.errors import UserError
from jaxdna.storage.home import home
from jaxdna.storage.permissions import keep_to_owner


def _token() -> Path | None:
    """Returns where Ray looks for the token of a cluster; None where the user has no home."""
    own = home()
    return own / ".ray" / "auth_token" if own else None


def _has_token() -> bool:
    """Whether Ray would find the token of a cluster where it looks for one."""
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    token = _token()
    return bool(named) or (token is not None and token.is_file())


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps what SIGTERM and SIGINT do: Ray's import and its start replace what saves the run."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray leaves it alone elsewhere
            for number, handler in before.items():
                signal.signal(number, handler)


try:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A cluster whose head had a token asks for it, and Ray's clients do not show theirs by
    # themselves. Ray looks at this when it is imported.
    if "ray" not in sys.modules and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    with _own_handlers():
        import ray
        from ray._private import ray_constants
        from ray.exceptions import AuthenticationError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    raise UserError(
        f"--config.strategy=parameter_server needs {error.name}, which is not installed; "
        "install jaxdna[ray], or take strategy spmd or pipeline"
    ) from error


def start_ray(config: ConfigDict) -> None:
    """Starts a local Ray without dashboard, or joins the cluster that the config names."""
    settings = config.parameter_server
    # Who has the token can run commands as this user, and Ray leaves it open under most umasks.
    if token := _token():
        keep_to_owner(token.parent)
        keep_to_owner(token)
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "namespace": f"jaxdna-{uuid.uuid4().hex}",  # names of actors are this run's own
    }
    if settings.address:
        try:
            with _own_handlers():
                ray.init(address=settings.address, **options)
        except (ConnectionError, AuthenticationError):
            raise _not_let_in(settings.address) from None
        return
    actors = settings.workers + settings.servers
    with _own_handlers(), _one_machine(), _private_files(), warnings.catch_warnings():
        # jax warns of every fork; Ray's are followed by exec at once.
        warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
        ray.init(
            "local",  # without it Ray would join whatever cluster it finds on this machine
            num_cpus=actors,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **options,
        )


@contextmanager
def _one_machine() -> Iterator[None]:
    """Lets Ray take 127.0.0.1 for its address, and so listen there only.

    It does so by itself on Windows and macOS; elsewhere it puts the address of an interface in its
    place, and listens on all of them, as it does where it is given 127.0.0.2.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _private_files() -> Iterator[None]:
    """Keeps what Ray makes, its token and its sockets, to this user.

    Its actors inherit that, and take back the umask that they are given.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def this_node() -> NodeAffinitySchedulingStrategy:
    """What keeps an actor on this machine, also when it is started again."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _not_let_in(address: str) -> UserError:
    return UserError(
        f"--config.parameter_server.address={address} answers, but does not let this process join; "
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
    waited = ""
    try:
        health = subprocess.run(ask, timeout=patience, capture_output=True, text=True, check=False)
        healthy, cause = health.returncode == 0, health.stderr
    except subprocess.TimeoutExpired:
        healthy, cause, waited = False, "", f" within {patience:g} s"
    if AuthenticationError.__name__ in cause:
        raise _not_let_in(address)
    if not healthy:
        raise UserError(
            f"--config.parameter_server.address={address} does not answer{waited}; "
            "give HOST:PORT of a head started with `ray start --head --port=PORT`, or leave it "
            "empty to start Ray here"
        )
