"""One pass over items on a Dask cluster: hand out, take results, say what went wrong."""

import collections
import contextlib
import dataclasses
import itertools
import pickle
import queue
import reprlib
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any, final

from vbinfer.execute.processes import pickled, settings, unloadable

LOOK = 1.0
"""Seconds between two looks at how many threads the workers have."""

PATIENCE = 10.0
"""Seconds without a worker after which that is said, and for which a cluster that goes on is told of the end."""

_KEPT = "The draws that were finished are kept where there is a store: call again with the same store= to go on"


@dataclasses.dataclass(frozen=True, eq=False)
class Connection:
    """A client of a cluster, how to end it, and why the cluster will have no more workers, if that is known."""

    client: Any
    close: Callable[[], object] = lambda: None
    trouble: Callable[[], str | None] = lambda: None


@final
class Run:
    """One pass over the items: what is in flight, what went wrong first.

    Args:
        connection: the cluster.
        source: `(position, item)`.
        left: about how many those are.
        ahead: items in flight for each thread of the workers.
    """

    def __init__(self, connection: Connection, source: Iterator[tuple[int, Any]], left: int, ahead: int) -> None:
        self._connection, self._client, self._source = connection, connection.client, source
        self._left, self._ahead = left, ahead
        self._name = f"vbinfer-{uuid.uuid4().hex}"  # Dask shows the part before the number
        self._keys = itertools.count()
        self._running: dict[int, tuple[Any, Any]] = {}
        self._inbox: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._suspects: collections.deque[tuple[int, Any]] = collections.deque()
        self._alone: int | None = None
        self._threads = 0
        self._looked = self._seen = time.monotonic()
        self._said = False

    def announce(self, payload: bytes) -> None:
        """Send the function to all workers, present and future."""
        from vbinfer.execute.dask_worker import Shipment, versions

        shipment = Shipment(payload, settings(), versions())
        try:
            self._client.register_plugin(shipment, name=self._name)
        except Exception as error:  # of a worker, which Dask may have turned into a plain one
            raise (_not_installed(error) if "ModuleNotFoundError" in repr(error) else _refused(error)) from error
        self._threads = sum(self._client.nthreads().values())

    def give_up(self) -> None:
        """Cancel what is in flight and forget the function, as far as there is still somebody to be told."""
        if self._client.status != "running":
            return

        def tell() -> None:
            with contextlib.suppress(Exception):
                if self._running:
                    self._client.cancel([future for future, _ in self._running.values()])
                self._client.unregister_worker_plugin(self._name)

        teller = threading.Thread(target=tell, daemon=True)  # a worker that is busy with a C program does not answer
        teller.start()
        teller.join(PATIENCE)

    def results(self) -> Iterator[tuple[Any, Any]]:
        """What `Dask.as_completed` yields and raises."""
        while True:
            self._hand_out()
            if not self._running:
                break
            try:
                position = self._inbox.get(timeout=LOOK)
            except queue.Empty:
                self._look()
                continue
            item = self._running[position][1]
            where, message = self._fetch(position)
            if message[0] == "done":
                yield item, pickle.loads(message[1])
            elif message[0] == "deadly" and position != self._alone:
                self._suspects.append((position, message[1]))
            else:
                self._note(where, message)
            if time.monotonic() - self._looked > LOOK:
                self._look()
        if self._error is not None:
            raise self._error

    def _hand_out(self) -> None:
        """Submit items up to `ahead` for each thread; the last ones go to threads that have nothing else.

        Workers died under an item, or under the one that it waited behind: it is run once more, with nothing beside it.
        """
        if self._suspects:
            if not self._running:
                self._alone, item = self._suspects.popleft()
                self._submit(self._alone, item)
            return
        threads = max(self._threads, 1)  # without anything that waits an adaptive cluster does not begin
        while self._error is None:
            depth = self._ahead if self._left > threads else 1
            found = next(self._source, None) if len(self._running) < depth * threads else None
            if found is None:
                return
            self._left -= 1
            self._submit(*found)

    def _submit(self, position: int, item: Any) -> None:
        from vbinfer.execute.dask_worker import run_item

        key = f"{self._name}-{next(self._keys)}"
        shipped = pickled(item)
        try:
            future = self._client.submit(run_item, self._name, position, shipped, key=key, pure=False)
        except Exception as error:  # of a client whose connection has just been lost
            self._note("", ("cancelled", repr(error)))
            return
        self._running[position] = future, item
        future.add_done_callback(lambda _: self._inbox.put(position))

    def _look(self) -> None:
        """Count the threads of the workers; say so if there are none, stop if there never will be."""
        with contextlib.suppress(OSError):  # a connection that is lost ends what is in flight, and is noticed there
            if self._client.status == "running":
                self._threads = sum(self._client.nthreads().values())
        now = self._looked = time.monotonic()
        if self._threads:
            self._seen, self._said = now, False
            return
        trouble = self._connection.trouble()
        if trouble is not None:
            raise RuntimeError(trouble)
        if now - self._seen < PATIENCE:
            return
        if self._error is not None:  # what was begun will not be finished
            raise self._error
        if not self._said:
            self._said = True
            warnings.warn(
                f"waiting for workers: {self._client.scheduler.address} has had none for {now - self._seen:.0f} s. "
                f"The run goes on when one comes; Ctrl-C ends it",
                stacklevel=2,
            )

    def _fetch(self, position: int) -> tuple[str, tuple[Any, ...]]:
        """Where an item ran and what came of it; if its worker has died since, it is run again before this returns."""
        from distributed import CancelledError, KilledWorker

        future, item = self._running.pop(position)
        while True:
            try:
                return future.result(timeout=60.0 * LOOK)
            except TimeoutError:
                self._look()
            except KilledWorker as error:
                return str(getattr(error.last_worker, "address", error.last_worker)), ("deadly", item)
            except CancelledError as error:
                return "", ("cancelled", " ".join(str(error).split()))
            except Exception as error:
                return "", ("broken", error)

    def _note(self, where: str, message: tuple[Any, ...]) -> None:
        """Anything but a result: keep the first error."""
        kind = message[0]
        error: BaseException
        if kind == "deadly":
            error = _died(message[1], where)
        elif kind == "failed":
            error = pickle.loads(message[1])
            error.add_note(f"raised in {where}:\n{message[2]}")
        elif kind == "unloadable":
            error = unloadable(message[1])
        elif kind == "mismatch":
            error = RuntimeError(
                f"{where} has {message[1]}; the numbers would not be the same. Install the same versions there, or "
                f"start the workers in the environment of this process, {sys.prefix}"
            )
        elif kind == "cancelled":
            error = RuntimeError(
                f"the cluster gave up what this run is waiting for ({message[1]}): somebody cancelled it, or the "
                f"scheduler was restarted or is gone. {_KEPT}"
            )
        elif kind == "broken" and isinstance(message[1], ImportError):
            error = _not_installed(message[1])
        else:
            what = "has lost what it should run" if kind == "missing" else f"failed: {message[1]!r}"
            error = RuntimeError(f"{where or 'a worker'} {what}. {_KEPT}")
        self._error = self._error or error


def _not_installed(error: Exception) -> RuntimeError:
    return RuntimeError(
        f"a worker or the scheduler cannot import what it needs ({error}); start both in an environment that has what "
        f"this one has, as `{sys.executable} -m distributed.cli.dask_worker ADDRESS`"
    )


def _refused(error: Exception) -> RuntimeError:
    return RuntimeError(f"the cluster did not take the simulator ({error!r}); its scheduler and workers log why")


def _died(item: Any, where: str) -> RuntimeError:
    return RuntimeError(
        f"item {reprlib.repr(item)} ended every worker that it was given to, the last of them {where}. Systems do this "
        f"when memory runs out (fewer workers per computer, or more memory for each), and so does a simulator that "
        f"crashes: run it here, with executor=vb.Local(). {_KEPT}"
    )
