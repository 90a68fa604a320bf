"""The parent's side of worker processes: start them, hand out items, take results, survive their deaths."""

import collections
import contextlib
import dataclasses
import itertools
import operator
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from vbinfer.execute.compile_cache import chosen
from vbinfer.execute.processes import cores, folders, launch, pickled, settings, ship, unloadable

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, and the items it holds by position, oldest first."""

    name: str
    process: "subprocess.Popen[bytes]"
    held: dict[int, Any] = dataclasses.field(default_factory=dict)
    ready: bool = False

    def send(self, message: Any) -> None:
        """Write to the process; one that has died says so by itself, on its other pipe."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(pickled(message))
            self.process.stdin.flush()
        except (OSError, ValueError):  # broken, or closed by `end`
            pass

    def end(self) -> None:
        """Kill the process, if it is still there: it has nothing that is not here."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # what it no longer read
            self.process.stdin.close()


def run_in_workers(
    fn: Callable[[Item, Any], Result], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Result]]:
    """Yield `(item, fn(item, device))` as they finish, from up to `count` new processes, one core each.

    `fn` is sent to each process once. After an error, in an item or of a process, no further item is begun; those that
    were are finished and yielded, those of a dead process by another one, and then the error is raised. The processes
    end with the generator.

    Raises:
        TypeError: `fn` cannot be sent to another process, or not be loaded there.
        RuntimeError: a process died.
        Exception: what `fn` raised, with the traceback of the worker as a note.
    """
    hint = operator.length_hint(items, sys.maxsize)
    numbered = enumerate(items)
    first = list(itertools.islice(numbered, count))  # no more processes than items
    if not first:
        return
    payload, inbox = ship(fn), queue.SimpleQueue()
    workers: list[_Worker] = []
    try:
        for core in itertools.islice(itertools.cycle(cores() or (None,)), len(first)):
            workers.append(_start(len(workers) + 1, core, payload, inbox))
        yield from _Run(workers, inbox, itertools.chain(first, numbered), hint).results()
    finally:
        for worker in workers:
            worker.end()


class _Run:
    """One pass over the items: who holds what, what has to be done again, what went wrong first."""

    def __init__(self, workers: list[_Worker], inbox: Any, source: Iterator[tuple[int, Any]], left: int) -> None:
        self._alive, self._inbox, self._source, self._left = list(workers), inbox, source, left
        self._again: collections.deque[tuple[int, Any]] = collections.deque()
        self._repeated: set[int] = set()
        self._error: BaseException | None = None

    def results(self) -> Iterator[tuple[Any, Any]]:
        """What `run_in_workers` yields and raises."""
        while self._alive:
            more = self._hand_out()
            if not more and not any(worker.held for worker in self._alive):
                break
            worker, message = self._inbox.get()
            if message[0] == "done":
                yield worker.held.pop(message[1]), pickle.loads(message[2])
            else:
                self._note(worker, message)
        if self._error is not None:
            raise self._error

    def _hand_out(self) -> bool:
        """Give every ready worker an item, and another to find when it is done while there are plenty."""
        for depth in (1, 2):
            for worker in self._alive:
                if worker.ready and len(worker.held) < depth and (depth == 1 or self._left > len(self._alive)):
                    found = self._next()
                    if found is None:
                        return False
                    worker.held[found[0]] = found[1]
                    worker.send(found)
        return True

    def _next(self) -> tuple[int, Any] | None:
        if self._again:
            return self._again.popleft()
        found = next(self._source, None) if self._error is None else None
        self._left -= found is not None
        return found

    def _note(self, worker: _Worker, message: tuple[Any, ...]) -> None:
        """Anything but a result: keep the first error, and let others take over from a worker that is gone."""
        if message[0] == "ready":
            worker.ready = True
            return
        if message[0] == "failed":
            del worker.held[message[1]]
            error = pickle.loads(message[2])
            error.add_note(f"raised in {worker.name}:\n{message[3]}")
        else:
            self._alive.remove(worker)
            orphans = [pair for pair in worker.held.items() if pair[0] not in self._repeated]
            self._repeated.update(position for position, _ in orphans)  # what ends two workers is not given to a third
            self._again.extend(orphans)
            error = unloadable(message[1]) if message[0] == "unloadable" else _died(worker, message[1])
        self._error = self._error or error


def _start(number: int, core: int | None, payload: bytes, inbox: Any) -> _Worker:
    process = launch("vbinfer.execute.worker", stdout=subprocess.PIPE)
    where = "" if core is None else f", core {core}"
    worker = _Worker(f"worker {number} (process {process.pid}{where})", process)
    setup = {"core": core, "config": settings(), "compiled": chosen()}

    def attend() -> None:
        for part in (folders(), setup, payload):
            worker.send(part)
        assert process.stdout is not None
        with process.stdout:
            while True:
                try:
                    inbox.put((worker, pickle.load(process.stdout)))
                except (EOFError, OSError, pickle.UnpicklingError):
                    inbox.put((worker, ("gone", process.wait())))
                    return

    threading.Thread(target=attend, name=f"vbinfer-worker-{number}", daemon=True).start()
    return worker


def _died(worker: _Worker, code: int) -> RuntimeError:
    how = f"exit status {code}"
    if code < 0:
        how = f"signal {-code} ({signal.Signals(-code).name})"
    hint = "; systems do this when memory runs out" if code == -getattr(signal, "SIGKILL", 9) else ""
    return RuntimeError(
        f"{worker.name} died: {how}{hint}. No draws were begun after that and those that were finished are kept where "
        f"there is a store: call again with the same store= to go on, with fewer workers if memory is short"
    )
