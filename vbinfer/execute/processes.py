"""What worker processes need: environment, settings, functions as bytes."""

import contextlib
import io
import os
import pickle
import signal
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CONFIG = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
)
"""Settings of JAX that change numbers or errors; a worker has those of its parent, of its thread too."""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "NPROC": "1",  # the threads XLA starts, where a process cannot be pinned
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONSAFEPATH": "1",  # a file `jax.py` in the working directory is not imported
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18",  # loky does not replace workers that grow: compiled programs are no leak
}


def environment() -> dict[str, str]:
    """Variables of a worker: one device, one thread."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if not flag.startswith("--xla_force_host_platform_device_count")]
    return {**ENVIRONMENT, "XLA_FLAGS": " ".join(kept)}


def begin(core: int | None) -> None:
    """Prepare a new worker process.

    Pins it, leaves Ctrl-C to the parent, and sends prints to stderr. To be called before the first operation of JAX,
    which counts the cores (importing it does not).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    if core is not None:
        os.sched_setaffinity(0, {core})


def settings() -> dict[str, Any]:
    """This thread's settings of JAX, for another process."""
    return {name: getattr(jax.config, name) for name in CONFIG if hasattr(jax.config, name)}


@contextlib.contextmanager
def under(config: Mapping[str, Any]) -> Iterator[None]:
    """A context with settings of JAX.

    In this thread alone: other runs may share a worker.
    """
    with contextlib.ExitStack() as stack:
        for name, value in config.items():
            if getattr(jax.config, name, value) == value:
                continue
            short = name.removeprefix("jax_")
            if short == "enable_x64":
                stack.enter_context(enable_x64(value))
            elif hasattr(jax, short):
                stack.enter_context(getattr(jax, short)(value))
            else:  # jax_random_seed_offset has no context
                jax.config.update(name, value)
        yield


def enable_x64(value: bool) -> Any:
    """A context in which floats have 64 bits, or 32."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(value)
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]  # its place before 0.8

    return enable_x64(value)


def cores() -> list[int]:
    """The cores that this process may use.

    None where the system cannot say or cannot pin.
    """
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def ship(fn: Any) -> bytes:
    """A function as bytes.

    Raises:
        TypeError: it holds what cannot be sent.
    """
    try:
        return pickled(fn)
    except Exception as error:
        raise TypeError(
            f"what should run cannot be sent to a worker process ({type(error).__name__}: {error}). A simulator for "
            f"other processes is a function or an object that holds arrays, numbers, functions and other such "
            f"objects; make open files, locks and connections inside it, or write executor=vb.Local()"
        ) from error


def pickled(value: Any) -> bytes:
    """Pickle by value what a new process cannot import.

    The functions of a script, of a notebook, of a function; also JAX keys.
    """
    import cloudpickle

    buffer = io.BytesIO()
    pickler = cloudpickle.Pickler(buffer)
    pickler.dispatch_table = {**pickler.dispatch_table, type(jax.random.key(0)): _reduce_key}
    pickler.dump(value)
    return buffer.getvalue()


def outcome(fn: Any, item: bytes, device: Any) -> tuple[Any, ...]:
    """The result of an item, or its error, as bytes.

    `("done", result)` or `("failed", error, traceback)`.
    """
    try:
        return "done", pickled(fn(pickle.loads(item), device))
    except Exception as error:
        return "failed", _portable(error), traceback.format_exc()


def _portable(error: Exception) -> bytes:
    """The error as bytes.

    One that cannot be loaded again becomes a RuntimeError with its type and message.
    """
    try:
        shipped = pickled(error)
        pickle.loads(shipped)
        return shipped
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _reduce_key(key: Any) -> tuple[Any, ...]:
    return _key, (np.asarray(jax.random.key_data(key)), str(jax.random.key_impl(key)))


def _key(words: np.ndarray, impl: str) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(words), impl=impl)


def unloadable(trace: str) -> TypeError:
    """The error of a function that no worker can load."""
    last = trace.strip().splitlines()[-1]
    error = TypeError(
        f"what should run was sent to a worker process but could not be loaded there ({last}). Define it in the "
        f"script, or in a module that another Python can import, or write executor=vb.Local()"
    )
    error.add_note(trace)
    return error
