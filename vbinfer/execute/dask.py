"""`Dask`: batches on a cluster of dask.distributed, on this computer, under Slurm or PBS, or anywhere else."""

import contextlib
import dataclasses
import itertools
import operator
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar, final

from vbinfer import _check
from vbinfer.execute.dask_run import Connection, Run
from vbinfer.execute.executor import in_order
from vbinfer.execute.processes import cores, ship

Item = TypeVar("Item")
Result = TypeVar("Result")


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Dask:
    """Runs batches on the workers of a Dask cluster; the numbers do not depend on which, or on how many.

    Every worker is sent the simulator once, also one that joins later, and runs it with the JAX settings of the thread
    that asked. At most `ahead` items per thread are handed out, and results are fetched as they finish and not kept,
    so that a million items take no more memory than a hundred. Items of a worker that dies or leaves are done by
    others. After an error no further item is begun, those that were are finished.

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
    _open: list[Connection] = dataclasses.field(default_factory=list, init=False, repr=False)

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
        self._open.append(_connect(self.client, self._count()))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.pop().close()

    def map(self, fn: Callable[[Item, Any], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `fn(item, device)` in the order of `items`; an error in one item ends the run after those before it."""
        yield from in_order(self, fn, items)

    def as_completed(
        self, fn: Callable[[Item, Any], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """Yield `(item, fn(item, device))` as they finish, `device` being one of the worker.

        After an error in one item no other is handed out; those that were are finished and yielded, then it is raised.
        When the generator is closed or interrupted, what is in flight is given up.

        Raises:
            TypeError: `fn` cannot be sent to another process, or not be loaded there.
            RuntimeError: an item ended every worker that ran it, a worker has other versions or no vbinfer, the
                scheduler is gone.
            Exception: what `fn` raised, with the traceback of the worker as a note.

        Warns:
            UserWarning: there has been no worker for some seconds; the run goes on when one comes.
        """
        left, numbered = operator.length_hint(items, sys.maxsize), enumerate(items)
        first = list(itertools.islice(numbered, self._count()))  # no more processes than items
        if not first:
            return
        payload = ship(fn)
        with contextlib.ExitStack() as stack:
            if self._open:
                connection = self._open[-1]
            else:
                connection = _connect(self.client, len(first))
                stack.callback(connection.close)
            run = Run(connection, itertools.chain(first, numbered), left, self.ahead)
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


def _connect(client: Any, count: int) -> Connection:
    if client is None:
        from vbinfer.execute.dask_cluster import OwnCluster

        own = OwnCluster(count)
        return Connection(own.client, own.close, lambda: own.trouble)
    if not isinstance(client, str):
        return Connection(client)
    from distributed import Client

    try:
        made = Client(client, set_as_default=False)
    except OSError as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {client!r}; start one with `dask scheduler`, which prints its address"
        ) from error
    return Connection(made, made.close)
