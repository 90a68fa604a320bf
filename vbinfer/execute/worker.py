"""What a worker process does: items come in on its stdin, results go out on its stdout, until stdin ends.

Nothing here imports JAX before the process is pinned to its core, since XLA counts threads when it starts.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO


def serve() -> None:
    """Take a setup and a function, then `(position, item)` pairs; answer each with `("done", position, result)`.

    A function that cannot be loaded is answered by `("unloadable", message)`, an error by `("failed", position, error,
    traceback)`. What the simulator prints goes to stderr, as stdout is taken. The process ends when its stdin does,
    also in the middle of an item: it never outlives the one that started it.
    """
    incoming, outgoing, setup = begin()
    payload = pickle.load(incoming)

    import jax

    for name, value in setup["config"].items():
        jax.config.update(name, value)
    if setup["compiled"] is not None:
        from vbinfer.execute.compile_cache import enable_compile_cache

        enable_compile_cache(setup["compiled"])
    try:
        fn, device = pickle.loads(payload), jax.local_devices()[0]
    except Exception:
        _answer(outgoing, ("unloadable", traceback.format_exc()))
        return
    _answer(outgoing, ("ready",))
    items = _listen(incoming)
    while True:
        position, item = items.get()
        _answer(outgoing, outcome(fn, position, item, device))


def begin() -> tuple[BinaryIO, BinaryIO, dict[str, Any]]:
    """Take the first steps of any worker: `(stdin, stdout, setup)`, on its core, with prints going to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    setup = pickle.load(incoming)
    if setup["core"] is not None:
        os.sched_setaffinity(0, {setup["core"]})
    return incoming, outgoing, setup


def _listen(incoming: BinaryIO) -> "queue.SimpleQueue[tuple[int, Any]]":
    """Read items while others are worked on, so that the end of the parent is noticed at once."""
    items: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def read() -> None:
        while True:
            try:
                items.put(pickle.load(incoming))
            except (EOFError, OSError, pickle.UnpicklingError):
                os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return items


def outcome(fn: Any, position: int, item: Any, device: Any) -> tuple[Any, ...]:
    """`("done", position, result)` or `("failed", position, error, traceback)`, result and error as bytes."""
    from vbinfer.execute.processes import pickled

    try:
        return "done", position, pickled(fn(item, device))
    except Exception as error:
        return "failed", position, _portable(error), traceback.format_exc()


def _portable(error: Exception) -> bytes:
    """The error as bytes that can be loaded again, or else a RuntimeError with its type and message."""
    import cloudpickle

    try:
        shipped = cloudpickle.dumps(error)
        pickle.loads(shipped)
        return shipped
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _answer(outgoing: BinaryIO, message: tuple[Any, ...]) -> None:
    try:
        pickle.dump(message, outgoing, protocol=pickle.HIGHEST_PROTOCOL)
        outgoing.flush()
    except OSError:  # nobody listens any more
        os._exit(0)
