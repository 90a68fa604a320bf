"""Worker processes on this computer, one per core."""

import contextlib
import itertools
import multiprocessing
import operator
import os
import pickle
import re
import reprlib
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

import jax

from vbinfer.execute.compile_cache import chosen, use_cache
from vbinfer.execute.processes import begin, cores, environment, outcome, pickled, settings, ship, unloadable

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOAD = object()
"""What a worker holds while it loads the function."""

_LOADED: list[Any] = []
"""In a worker: the function and its device."""


class _Worker:
    """A process on a core, alone in its pool.

    A pool of loky is broken as a whole when one of its processes dies, so each has its own: what the others do goes on,
    and the item that was running is the oldest one held.
    """

    def __init__(self, number: int, core: int | None, task: tuple[Any, ...]) -> None:
        from loky import ProcessPoolExecutor

        self._arguments = number, core, task
        self._core, self.name, self.ready = core, f"worker {number}", False
        reader, self._lifeline = multiprocessing.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, initializer=_begin, initargs=(core, reader), env=environment())
        self.held: dict[Future[Any], tuple[Any, int]] = {self._pool.submit(_load, *task): (_LOAD, 0)}

    def take(self, item: Any, deaths: int) -> None:
        """Run an item that has ended `deaths` workers before."""
        try:
            future = self._pool.submit(_run, pickled(item))
        except RuntimeError as error:  # it has died since
            future = Future()
            future.set_exception(error)
        self.held[future] = item, deaths

    def begun(self, process: int) -> None:
        """The function is loaded."""
        self.name += f" (process {process}" + (")" if self._core is None else f", core {self._core})")
        self.ready = True

    def end(self) -> None:
        """Kill the process, and what it has started."""
        self._pool.shutdown(kill_workers=True)
        self._lifeline.close()

    def successor(self) -> "_Worker":
        """Another process on the same core."""
        return _Worker(*self._arguments)


def run_in_workers(
    fn: Callable[[Item, Any], Result], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Result]]:
    """Yield `(item, fn(item, device))` from new processes.

    As they finish, from up to `count` processes. `fn` is sent to each process once. After an error, in an item or of a
    process, no further item is begun; those that were are finished and yielded, those of a dead process by another one,
    and then the error is raised. An item that ends two processes is not given to a third. The processes end with the
    generator.

    Raises:
        TypeError: `fn` cannot be sent to another process, or not be loaded there.
        RuntimeError: a process died.
        Exception: what `fn` raised, with the traceback of the worker as a note.
    """
    left, source = operator.length_hint(items, sys.maxsize), iter(items)
    first = list(itertools.islice(source, count))  # no more processes than items
    if not first:
        return
    task = ship(fn), settings(), chosen()
    workers: list[_Worker] = []
    try:
        for core in itertools.islice(itertools.cycle(cores() or (None,)), len(first)):
            workers.append(_Worker(len(workers) + 1, core, task))
        yield from _Pass(workers, itertools.chain(first, source), left).results()
    finally:
        for worker in workers:
            worker.end()


class _Pass:
    """One pass over the items."""

    def __init__(self, workers: list[_Worker], source: Iterator[Any], left: int) -> None:
        self._workers, self._source, self._left = workers, source, left
        self._again: deque[tuple[Any, int]] = deque()
        self._error: BaseException | None = None

    def results(self) -> Iterator[tuple[Any, Any]]:
        """What `run_in_workers` yields and raises."""
        while True:
            self._hand_out()
            running = [future for worker in self._workers for future in worker.held]
            if not running:
                break
            try:
                wait(running, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:  # what has finished meanwhile is not lost
                for worker in list(self._workers):
                    yield from self._collect(worker)
                raise
            for worker in list(self._workers):
                yield from self._collect(worker)
        if self._error is not None:
            raise self._error

    def _hand_out(self) -> None:
        """Give every ready worker an item.

        And another, to find when it is done, while there are plenty.
        """
        for depth in (1, 2):
            for worker in self._workers:
                if worker.ready and len(worker.held) < depth and (depth == 1 or self._left > len(self._workers)):
                    if self._again:
                        worker.take(*self._again.popleft())
                        continue
                    for item in itertools.islice(self._source, self._error is None):
                        self._left -= 1
                        worker.take(item, 0)

    def _collect(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        """Take what a worker has finished."""
        for future in [future for future in worker.held if future.done()]:
            item, deaths = worker.held.pop(future)
            if future.exception() is not None:
                self._bury(worker, item, deaths + 1, future.exception())
                return
            kind, *found = future.result()
            if kind == "done":
                yield item, pickle.loads(found[0])
            elif kind == "failed":
                error = pickle.loads(found[0])
                error.add_note(f"raised in {worker.name}:\n{found[1]}")
                self._error = self._error or error
            elif kind == "unloadable":
                self._error = self._error or unloadable(found[0])
            else:
                worker.begun(*found)

    def _bury(self, worker: _Worker, item: Any, deaths: int, error: Any) -> None:
        """Replace a dead worker; others take over its items."""
        worker.end()
        codes = re.search(r"\{.*\}", str(error))
        how = f"{worker.name} died: {codes[0] if codes else repr(error)}"
        self._again.extend(worker.held.values())
        place = self._workers.index(worker)
        if item is _LOAD:
            del self._workers[place]
        else:
            self._workers[place] = worker.successor()
            if deaths == 1:
                self._again.append((item, deaths))
        if deaths == 2:
            self._error = _died(f"item {reprlib.repr(item)} ended two workers; {how}")
        self._error = self._error or _died(how)


def _died(how: str) -> RuntimeError:
    return RuntimeError(
        f"{how}; systems do this (SIGKILL) when memory runs out. No draws were begun after that and those that were "
        f"finished are kept where there is a store: call again with the same store= to go on, with fewer workers if "
        f"memory is short"
    )


# ---- in a worker


def _begin(core: int | None, parent: Any) -> None:
    begin(core)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """Exit with the parent.

    The system closes the other end of the pipe when it ends, in whatever way.
    """
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)


def _load(payload: bytes, config: dict[str, Any], cache: str | None) -> tuple[Any, ...]:
    for name, value in config.items():
        jax.config.update(name, value)
    if cache is not None:
        use_cache(cache)
    try:
        _LOADED[:] = pickle.loads(payload), jax.local_devices()[0]
    except Exception:
        return "unloadable", traceback.format_exc()
    return "ready", os.getpid()


def _run(item: bytes) -> tuple[Any, ...]:
    fn, device = _LOADED
    return outcome(fn, item, device)
