"""Jax's own settings, as a run has them whatever the environment or a notebook says."""

import threading
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

# What changes a seed's numbers or makes sound code fail: the name in jax.config, which in capitals
# is the variable in the environment, and jax's own default. A jax without a name is left alone.
SETTINGS: dict[str, Any] = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_enable_x64": False,
    "jax_explicit_x64_dtypes": "warn",
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": None,
    "jax_default_device": None,
    "jax_allow_f16_reductions": True,
    "jax_accurate_erf_inv": False,
    "jax_use_hlo_logistic_lowering": None,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_use_shardy_partitioner": True,
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_memory_fitting_level": "O2",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "jax_array_garbage_collection_guard": "allow",
    "jax_thread_guard": False,
    "jax_disable_jit": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_enable_checks": False,
    "jax_check_tracer_leaks": False,
    "jax_check_static_indices": False,
    "jax_debug_key_reuse": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_enable_preemption_service": True,
    "jax_enable_recoverability": False,
}

_users: dict[str, Any] = {}  # what was set before the first of the calls that are under way
_calls = 0
_lock = threading.Lock()


def set_aside(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Takes our settings out of an environment, before jax and child processes read it.

    Args:
      environment: usually `os.environ`.

    Returns:
      What was taken out.
    """
    # The umbrella over the three guards of transfers is a variable too.
    names = [name.upper() for name in (*SETTINGS, "jax_transfer_guard")]
    return {name: environment.pop(name) for name in names if name in environment}


def apply_settings() -> None:
    """Sets them for all threads of this process, for good."""
    import jax

    for name, value in _known().items():
        jax.config.update(name, value)


@contextmanager
def own_settings() -> Iterator[None]:
    """Has them, and no mesh of `jax.set_mesh`, while it lasts; then those of the caller are back.

    They are set for this thread, where they come before any `with jax.enable_x64(True):` round the
    call, and for all, since checkpoints are written in others.
    """
    import jax

    global _calls
    with _lock:
        if not _calls:
            _users.update(_globals())
        _calls += 1
    try:
        apply_settings()
        with ExitStack() as stack:
            stack.enter_context(jax.set_mesh(None))
            for name, value in _known().items():
                # What can have a value of its own in a thread is a context manager of jax.
                if hasattr(jax, own := name.removeprefix("jax_")):
                    stack.enter_context(getattr(jax, own)(value))
            yield
    finally:
        with _lock:
            _calls -= 1
            if not _calls:
                _restore()


def _known() -> dict[str, Any]:
    import jax

    return {name: value for name, value in SETTINGS.items() if name in jax.config.values}


def _globals() -> dict[str, Any]:
    """The values for all threads, as one sees them that has none of its own."""
    import jax

    with ThreadPoolExecutor(1) as another:
        values = another.submit(lambda: jax.config.values).result()
    return {name: values[name] for name in _known()}


def _restore() -> None:
    import jax

    for name, value in _users.items():
        jax.config.update(name, value)
