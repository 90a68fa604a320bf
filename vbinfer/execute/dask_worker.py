"""The workers' side of `Dask`: the function of a run, loaded once, under the JAX settings of whoever asked.

Nothing here imports JAX before an item comes: schedulers import this module too, and XLA counts threads when it starts.
"""

import asyncio
import functools
import itertools
import logging
import os
import pickle
import platform
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, BinaryIO, final

import dask
from distributed import Worker, WorkerPlugin, get_worker

from vbinfer.execute.processes import begin, outcome

Message = tuple[Any, ...]
"""As those of `worker.serve`, and `("mismatch", what differs)`."""

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""For processes of our own: what Dask measures of them all the time takes 4 % of the core of a worker (measured)."""

_LOCAL, _THREADS = threading.local(), itertools.count()


@final
class Shipment(WorkerPlugin):
    """A function, pickled, with the settings of JAX and the versions it needs.

    As a plugin it is sent to every worker once, by the scheduler, also to those that join later, and is gone from all
    of them when the run is over.
    """

    def __init__(self, payload: bytes, config: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        self._payload, self._config, self._versions = payload, dict(config), dict(versions)
        self._fn: Any = None

    def setup(self, worker: Worker) -> None:
        """Called where it arrives; a lock cannot be sent."""
        self._lock = threading.Lock()

    def run(self, position: int, item: bytes) -> Message:
        """What the function makes of an item, or why it could not be asked."""
        differ = [f"{name} {has} instead of {wants}" for name, wants, has in _unequal(self._versions, versions())]
        if differ:
            return "mismatch", ", ".join(differ)
        from vbinfer.execute.processes import under

        with under(self._config):
            try:
                fn = self._loaded()
            except Exception:
                return "unloadable", traceback.format_exc()
            return outcome(fn, item, _device())

    def _loaded(self) -> Any:
        with self._lock:
            if self._fn is None:
                self._fn = pickle.loads(self._payload)
            return self._fn


def run_item(name: str, position: int, item: bytes) -> tuple[str, Message]:
    """The task that Dask runs: where it ran, and what came of it."""
    worker = get_worker()
    shipment = worker.plugins.get(name)
    message = ("missing",) if shipment is None else shipment.run(position, item)  # pyright: ignore[reportAttributeAccessIssue]
    return f"worker {worker.address} (process {os.getpid()})", message


@functools.cache
def versions() -> dict[str, str]:
    """What has to be the same on both sides for the same numbers, and for functions to be understood."""
    from vbinfer.io import npz

    return {"Python": ".".join(platform.python_version_tuple()[:2]), **npz.versions()}


def _unequal(wanted: Mapping[str, str], here: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(name, value, here.get(name, "none")) for name, value in wanted.items() if here.get(name) != value]


def _device() -> Any:
    """A device of this process; threads take them in turn."""
    import jax

    if not hasattr(_LOCAL, "number"):
        _LOCAL.number = next(_THREADS)
    devices = jax.local_devices()
    return devices[_LOCAL.number % len(devices)]


def serve() -> None:
    """Be a worker with one thread, on one core, until stdin ends.

    Says on stdout when it is ready; what the simulator prints goes to stderr. It never outlives the process that holds
    the other end of stdin, also in the middle of an item.
    """
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    setup = pickle.load(incoming)
    begin(setup["core"])
    threading.Thread(target=_end_with, args=(incoming,), daemon=True).start()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    dask.config.set(QUIET)
    asyncio.run(_work(setup, outgoing))


def _end_with(incoming: BinaryIO) -> None:
    incoming.read()
    os._exit(0)


async def _work(setup: Mapping[str, Any], outgoing: BinaryIO) -> None:
    worker = Worker(
        setup["scheduler"],
        security=setup["security"],
        nthreads=1,
        host="127.0.0.1",
        memory_limit=0,  # none: a worker that pauses for want of memory would be a run that stands still
        local_directory=setup["folder"],
        dashboard=False,
    )
    async with worker:
        outgoing.write(b"ready\n")
        outgoing.close()
        await worker.finished()
