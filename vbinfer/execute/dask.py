"""Batches on a cluster of dask.distributed."""

import contextlib
import dataclasses
import itertools
import logging
import operator
import os
import pickle
import queue
import reprlib
import signal
import sys
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar, final

from vbinfer import _check
from vbinfer.execute.executor import in_order
from vbinfer.execute.processes import cores, environment, pickled, settings, ship, unloadable

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOK = 1.0
"""Seconds between two looks at how many threads the workers have."""

PATIENCE = 10.0
"""Seconds without a worker after which that is said, and after which an error that waits for one is raised."""

_KEPT = "The draws that were finished are kept where there is a store: call again with the same store= to go on"

_CONFIG = {
    # loky starts workers without running the script again, guarded by `if __name__ == "__main__":` or not
    "distributed.worker.multiprocessing-method": "loky",
    # what Dask measures of its workers all the time takes 4 % of their cores (measured)
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
}


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Dask:
    """Run batches on the workers of a Dask cluster.

    The numbers do not depend on which, or on how many. Every worker is sent the simulator once, also one that joins
    later, and runs it with the JAX settings of the thread that asked. At most `ahead` items per thread are handed out,
    and results are fetched as they finish and not kept, so that a million items take no more memory than a hundred.
    Items of a worker that dies or leaves are done by others. After an error no further item is begun, those that were
    are finished.

    Without a client every call starts worker processes on this computer, one on each core that this process may use,
    and ends them when it is done, as `vb.Local(workers=n)` does; what Dask adds there is that a worker which dies is
    replaced. In a `with` block they are started once:

        with vb.Dask() as executor:
            draws = vb.sample_prior_predictive(..., executor=executor)

    Workers of a cluster need the same versions of Python, vbinfer, JAX and NumPy as this process. That is checked, by
    the numbers of the versions: a file changed by hand on one side is not noticed. Bits are the same on processors of
    the same kind, to rounding otherwise. Anyone who can reach the scheduler of a cluster without TLS (`security=`) can
    run anything on it; that of `vb.Dask()` has TLS where `cryptography` is installed, as vbinfer[cluster] does.

    An adaptive cluster grows by what waits, by default to where each thread has 5 s of work: give `ahead=20` where an
    item takes a second, or set its minimum.

    Args:
        client: `distributed.Client`, or the address of a scheduler, as "tcp://host:8786"; by default processes of this
            computer.
        workers: how many of those; one per core by default.
        ahead: items in flight for each thread of the workers: one that runs, and what waits behind it.

    Raises:
        ImportError: dask.distributed is not installed.
        TypeError: the client is something else, or an asynchronous one.
        ValueError: a number that makes no sense; an address without a protocol; a client that is closed, or one
            together with `workers`.

    Example:
        >>> from distributed import Client
        >>> with Client(n_workers=1, processes=False, dashboard_address=":0", set_as_default=False) as client:
        ...     list(Dask(client).map(lambda item, device: item**2, [1, 2, 3]))
        [1, 4, 9]
    """

    client: Any = None
    workers: int | None = None
    ahead: int = 2
    _open: list[tuple[Any, contextlib.ExitStack]] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_client(self.client)
        if self.workers is not None:
            if self.client is not None:
                raise ValueError(
                    f"workers={self.workers!r} was given together with a client; its cluster has the workers it has: "
                    f"leave workers out, or write cluster.scale({self.workers!r})"
                )
            object.__setattr__(self, "workers", _check.count(self.workers, "workers", "4"))
        object.__setattr__(self, "ahead", _check.count(self.ahead, "ahead", "2"))

    def __enter__(self) -> "Dask":
        stack = contextlib.ExitStack()
        self._open.append((stack.enter_context(_connected(self.client, self._count())), stack))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.pop()[1].close()

    def map(self, fn: Callable[[Item, Any], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `fn(item, device)` in the order of `items`.

        An error in one item ends the run after those before it.
        """
        yield from in_order(self, fn, items)

    def as_completed(
        self, fn: Callable[[Item, Any], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """Yield `(item, fn(item, device))` as they finish.

        `device` is one of the worker. After an error in one item no other is handed out; those that were are finished
        and yielded, then it is raised. When the generator is closed or interrupted, what is in flight is given up.

        Raises:
            TypeError: `fn` cannot be sent to another process, or not be loaded there.
            RuntimeError: an item ended every worker that ran it, a worker has other versions or no vbinfer, the
                scheduler is gone.
            Exception: what `fn` raised, with the traceback of the worker as a note.

        Warns:
            UserWarning: there has been no worker for some seconds; the run goes on when one comes.
        """
        left, source = operator.length_hint(items, sys.maxsize), iter(items)
        first = list(itertools.islice(source, self._count()))  # no more processes than items
        if not first:
            return
        payload = ship(fn)
        with contextlib.ExitStack() as stack:
            client = self._open[-1][0] if self._open else stack.enter_context(_connected(self.client, len(first)))
            run = _Pass(client, itertools.chain(first, source), left, self.ahead)
            if self._open or self.client is not None:  # the cluster goes on
                stack.callback(run.give_up)
            run.announce(payload)
            yield from run.results()

    def _count(self) -> int:
        """Processes to start, if any."""
        return 1 if self.client is not None else self.workers or len(cores()) or os.cpu_count() or 1


def _check_client(client: Any) -> None:
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "vb.Dask needs dask.distributed: pip install vbinfer[cluster], or write executor=vb.Local(workers=4)"
        ) from error
    if client is None:
        return
    if isinstance(client, str):
        if "://" not in client:
            raise ValueError(
                f"Dask({client!r}) was written; expected an address with its protocol, as Dask('tcp://host:8786')"
            )
    elif not isinstance(client, Client):
        remedy = "vb.Dask(cluster.get_client())" if hasattr(client, "get_client") else "vb.Dask(Client('tcp://...'))"
        raise TypeError(
            f"Dask was given a {type(client).__name__}; expected a distributed.Client or the address of a scheduler: "
            f"write {remedy}"
        )
    elif client.asynchronous:
        raise TypeError("Dask was given an asynchronous client; make it with Client(..., asynchronous=False)")
    elif client.status == "closed":
        raise ValueError("Dask was given a client that is closed; make another one, Client(...)")


@contextlib.contextmanager
def _connected(client: Any, count: int) -> Iterator[Any]:
    """The given client, or that of an own cluster."""
    from distributed import Client

    if client is None:
        with _own_cluster(count) as own:
            yield own
    elif isinstance(client, str):
        # One that is refused is closed here. Left to the garbage collector it is closed in whatever thread that runs,
        # also one that closing waits for: everything stood still.
        made = Client.__new__(Client)
        try:
            made.__init__(client, set_as_default=False)
        except OSError as error:
            made.close()
            raise ConnectionError(
                f"no Dask scheduler answers at {client!r}; start one with `dask scheduler`, which prints its address"
            ) from error
        with made:
            yield made
    else:
        yield client


@contextlib.contextmanager
def _own_cluster(count: int) -> Iterator[Any]:
    """A client of `count` workers on this computer.

    One that dies is replaced. Each stays on one core, with one thread for everything. The scheduler listens on
    127.0.0.1, on a free port, without a dashboard, and with keys that nobody else has: other users of this computer
    could run anything here without them.
    """
    import dask
    import loky  # noqa: F401  its way to start a process has a name once it is imported
    from distributed import Client, LocalCluster, Security

    from vbinfer.execute.dask_worker import Pin

    if os.name == "posix":
        _let_be_killed()
    security = None
    with contextlib.suppress(ImportError):  # without the `cryptography` package
        security = Security.temporary()
    with (
        dask.config.set(_CONFIG),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            env=environment(),
            security=security,
            memory_limit=0,  # none: a worker that pauses for want of memory would be a run that stands still
            dashboard_address="127.0.0.1:0",  # of its HTTP server, which it always has; 8787 may be taken
            silence_logs=logging.CRITICAL,  # what it logs is an error that is raised, or a worker that is replaced
            scheduler_kwargs={
                "dashboard": False,
                "worker_ttl": "365 days",  # a program that holds the GIL still lives
                "allowed_failures": 1,  # what ended two workers is then run alone
            },
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(Pin(cores()))
        yield client


def _let_be_killed() -> None:
    """Give loky's processes `kill`, as the standard library's have it.

    Dask kills a worker that does not end in time, as on a busy computer. Without it the cluster neither closes nor
    replaces that worker.
    """
    from loky.backend.popen_loky_posix import Popen

    def kill(self: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                os.kill(self.pid, signal.SIGKILL)

    if not hasattr(Popen, "kill"):
        Popen.kill = kill  # pyright: ignore[reportAttributeAccessIssue]  # it has none yet


@final
class _Pass:
    """One pass over the items.

    Args:
        client: of the cluster.
        source: the items.
        left: about how many those are.
        ahead: items in flight for each thread of the workers.
    """

    def __init__(self, client: Any, source: Iterator[Any], left: int, ahead: int) -> None:
        self._client, self._source, self._left, self._ahead = client, source, left, ahead
        self._name = f"vbinfer-{uuid.uuid4().hex}"  # Dask shows the part before the number
        self._keys = itertools.count()
        self._running: dict[Any, Any] = {}
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._suspects: deque[Any] = deque()
        self._alone: Any = None
        self._threads = 0
        self._looked = self._seen = time.monotonic()
        self._said = False

    def announce(self, payload: bytes) -> None:
        """Send the function to all workers, present and future."""
        from vbinfer.execute.dask_worker import Shipment, versions

        try:
            self._client.register_plugin(Shipment(payload, settings(), versions()), name=self._name)
        except Exception as error:  # of a worker, which Dask may have turned into a plain one
            raise _not_installed(error) if "ModuleNotFoundError" in repr(error) else _lost(repr(error)) from error
        self._threads = sum(self._client.nthreads().values())

    def give_up(self) -> None:
        """Cancel what is in flight and forget the function."""
        if self._client.status != "running":
            return

        def tell() -> None:
            with contextlib.suppress(Exception):  # nobody is left to be told
                self._client.cancel(list(self._running))
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
            with contextlib.suppress(queue.Empty):
                yield from self._collect(self._inbox.get(timeout=LOOK))
            if time.monotonic() - self._looked > LOOK:
                self._look()
        if self._error is not None:
            raise self._error

    def _hand_out(self) -> None:
        """Submit up to `ahead` items per thread.

        The last ones go to threads that have nothing else. Workers died under a suspect, or under the item that it
        waited behind: it is run once more, by itself.
        """
        if self._suspects:
            if not self._running:
                item = self._suspects.popleft()
                self._alone = self._submit(item)
            return
        if self._error is not None:
            return
        threads = max(self._threads, 1)  # without anything that waits an adaptive cluster does not begin
        depth = self._ahead if self._left > threads else 1
        for item in itertools.islice(self._source, max(0, depth * threads - len(self._running))):
            self._left -= 1
            self._submit(item)

    def _submit(self, item: Any) -> Any:
        from vbinfer.execute.dask_worker import run_item

        key = f"{self._name}-{next(self._keys)}"
        try:
            future = self._client.submit(run_item, self._name, pickled(item), key=key, pure=False)
        except Exception as error:  # of a client whose connection has just been lost
            self._error = self._error or _lost(repr(error))
            return None
        self._running[future] = item
        future.add_done_callback(self._inbox.put)
        return future

    def _collect(self, future: Any) -> Iterator[tuple[Any, Any]]:
        """The result of an item, or what became of it."""
        from distributed import CancelledError, KilledWorker

        item = self._running.pop(future)
        try:
            where, message = future.result(timeout=60.0 * LOOK)
        except TimeoutError:  # its worker died after it was done: it is run again
            self._running[future] = item
            self._inbox.put(future)
            return
        except KilledWorker as killed:
            future.release()
            if future is not self._alone:
                self._suspects.append(item)
                return
            error = _died(item, getattr(killed.last_worker, "address", killed.last_worker))
        except CancelledError as cancelled:
            error = _lost(" ".join(str(cancelled).split()))
        except ImportError as missing:
            error = _not_installed(missing)
        else:
            future.release()  # here: it may be long until the frames that hold it, or an error's, are gone
            if message[0] == "done":
                yield item, pickle.loads(message[1])
                return
            error = _failed(where, *message)
        self._error = self._error or error

    def _look(self) -> None:
        """Count threads of workers; warn if there are none."""
        with contextlib.suppress(OSError):  # a connection that is lost ends what is in flight, and is noticed there
            if self._client.status == "running":
                self._threads = sum(self._client.nthreads().values())
        now = self._looked = time.monotonic()
        if self._threads:
            self._seen, self._said = now, False
        elif now - self._seen > PATIENCE:
            if self._error is not None:  # what was begun will not be finished
                raise self._error
            if not self._said:
                self._said = True
                warnings.warn(
                    f"waiting for workers: {self._client.scheduler.address} has had none for {now - self._seen:.0f} s. "
                    f"The run goes on when one comes; Ctrl-C ends it",
                    stacklevel=2,
                )


def _failed(where: str, kind: str, *found: Any) -> BaseException:
    """What a worker said instead of a result."""
    if kind == "failed":
        error = pickle.loads(found[0])
        error.add_note(f"raised in {where}:\n{found[1]}")
        return error
    if kind == "unloadable":
        return unloadable(found[0])
    if kind == "mismatch":
        return RuntimeError(
            f"{where} has {found[0]}; the numbers would not be the same. Install the same versions there, or "
            f"start the workers in the environment of this process, {sys.prefix}"
        )
    return RuntimeError(f"{where} has lost what it should run. {_KEPT}")


def _not_installed(error: Exception) -> RuntimeError:
    return RuntimeError(
        f"a worker or the scheduler cannot import what it needs ({error}); start both in an environment that has what "
        f"this one has, as `{sys.executable} -m distributed.cli.dask_worker ADDRESS`"
    )


def _lost(how: str) -> RuntimeError:
    return RuntimeError(
        f"the cluster gave up what this run is waiting for ({how}): somebody cancelled it, or the scheduler was "
        f"restarted or is gone. {_KEPT}"
    )


def _died(item: Any, where: Any) -> RuntimeError:
    return RuntimeError(
        f"item {reprlib.repr(item)} ended every worker that it was given to, the last of them {where}. Systems do this "
        f"when memory runs out (fewer workers per computer, or more memory for each), and so does a simulator that "
        f"crashes: run it here, with executor=vb.Local(). {_KEPT}"
    )
