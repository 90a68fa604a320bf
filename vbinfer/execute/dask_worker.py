"""What runs on the workers of a Dask cluster."""

import functools
import itertools
import os
import pickle
import platform
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, final

from distributed import Worker, WorkerPlugin, get_worker

from vbinfer.execute.processes import begin, outcome, under

Message = tuple[Any, ...]
"""As those of `processes.outcome`, or `("unloadable", traceback)`, `("mismatch", what differs)`, `("missing",)`."""

_LOCAL, _THREADS = threading.local(), itertools.count()


@final
class Pin(WorkerPlugin):
    """Pins each worker of an own cluster to a core."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores

    def setup(self, worker: Worker) -> None:
        """Called where it arrives, before the first item."""
        begin(self._cores[int(worker.name) % len(self._cores)] if self._cores else None)


@final
class Shipment(WorkerPlugin):
    """A pickled function, JAX settings and required versions.

    As a plugin it is sent to every worker once, by the scheduler, also to those that join later, and is gone from all
    of them when the run is over.
    """

    def __init__(self, payload: bytes, config: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        self._payload, self._config, self._versions = payload, dict(config), dict(versions)
        self._fn: Any = None

    def setup(self, worker: Worker) -> None:
        """Called where it arrives; a lock cannot be sent."""
        self._lock = threading.Lock()

    def run(self, item: bytes) -> Message:
        """Run one item, or say why not."""
        here = versions()
        differ = [f"{k} {here.get(k)} instead of {v}" for k, v in self._versions.items() if here.get(k) != v]
        if differ:
            return "mismatch", ", ".join(differ)
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


def run_item(name: str, item: bytes) -> tuple[str, Message]:
    """Run one item; where, and what came of it."""
    worker = get_worker()
    shipment = worker.plugins.get(name)
    message = shipment.run(item) if isinstance(shipment, Shipment) else ("missing",)
    return f"worker {worker.address} (process {os.getpid()})", message


@functools.cache
def versions() -> dict[str, str]:
    """Versions that client and workers must share.

    For the same numbers, and for functions to be understood.
    """
    from vbinfer.io import npz

    return {"Python": ".".join(platform.python_version_tuple()[:2]), **npz.versions()}


def _device() -> Any:
    """A device of this process; threads take them in turn."""
    import jax

    if not hasattr(_LOCAL, "number"):
        _LOCAL.number = next(_THREADS)
    devices = jax.local_devices()
    return devices[_LOCAL.number % len(devices)]
