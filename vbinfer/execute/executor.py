"""Where batches run: on devices or in processes."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax

from vbinfer import _check

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """Where work runs: `fn(item, device)` for every item.

    `as_completed` yields `(item, result)` as they finish, in any order, so that nothing finished waits for what is slow
    or is lost with what fails. Items are taken as they are needed; what the caller wants to know of them, such as their
    number, they carry themselves. `length_hint(items)`, where it is known, spreads the last ones evenly.
    """

    def as_completed(
        self, fn: Callable[[Item, Any], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]: ...


@dataclasses.dataclass(frozen=True)
class Local:
    """Run batches on the devices or cores of this computer.

    Either on the devices of this process, one thread per device, or in processes of their own. The numbers
    do not depend on which, or on how many. A CPU is one device unless `vb.use_cores(n)` splits it. With
    `workers=n`, every call starts n processes, each on one of the cores that this one may use (`taskset` or a batch
    system may have narrowed them), with JAX on the CPU and its settings as they are here, and ends them when it is
    done. That takes some seconds, and is then the fastest: nothing is shared.

    A simulator for workers must be something that can be sent to another process: functions, also those of a script or
    a notebook, and objects of arrays and numbers can. What it prints goes to stderr.

    Args:
        devices: the JAX devices to use; all local ones by default.
        workers: the number of processes to use instead; beyond the number of cores they share them.

    Example:
        >>> list(Local().map(lambda item, device: item**2, [1, 2, 3]))
        [1, 4, 9]
    """

    devices: Sequence[Any] | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            if self.devices is not None:
                raise ValueError("devices and workers were given; a worker has a device of its own, so leave one out")
            object.__setattr__(self, "workers", _check.count(self.workers, "workers", "4"))
        if self.devices is None:
            return
        devices = tuple(self.devices)
        if not devices or not all(isinstance(device, jax.Device) for device in devices):
            raise ValueError(f"devices={self.devices!r} was given; expected JAX devices, as Local(jax.devices()[:2])")
        object.__setattr__(self, "devices", devices)

    def map(self, fn: Callable[[Item, Any], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `fn(item, device)` in the order of `items`.

        An error in one item ends the run after those before it.
        """
        yield from in_order(self, fn, items)

    def as_completed(
        self, fn: Callable[[Item, Any], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """Yield `(item, fn(item, device))` as they finish.

        After an error in one item no other is begun; those that were are finished and yielded, then it is raised.
        """
        devices = self.devices or jax.local_devices()
        if self.workers is not None:
            from vbinfer.execute.workers import run_in_workers  # here, since few runs have them

            yield from run_in_workers(fn, items, self.workers)
        elif len(devices) > 1:
            yield from _threaded(fn, items, devices)
        else:
            for item in items:
                yield item, fn(item, devices[0])


def executor_or_local(executor: Any) -> Executor:
    """The executor that was given, else `Local()`."""
    if executor is None or isinstance(executor, Executor):
        return executor or Local()
    raise TypeError(
        f"executor is a {type(executor).__name__}; expected vb.Local(workers=4), vb.Dask(client), or an object with a "
        "method as_completed(fn, items) that yields (item, fn(item, device))"
    )


def in_order(executor: Executor, fn: Callable[[Item, Any], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of their items; early ones wait."""
    early: dict[int, Result] = {}
    wanted = 0
    with closing(executor.as_completed(lambda pair, device: fn(pair[1], device), enumerate(items))) as finished:
        for (number, _), result in finished:
            early[number] = result
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1


def _threaded(
    fn: Callable[[Item, Any], Result], items: Iterable[Item], devices: Sequence[Any]
) -> Iterator[tuple[Item, Result]]:
    from vbinfer.execute.processes import settings, under

    free: SimpleQueue[Any] = SimpleQueue()
    for device in devices:
        free.put(device)
    chosen = settings()  # of this thread alone, where made by `with jax.enable_x64(...)` and the like

    def run(item: Item) -> Result:
        device = free.get()
        try:
            with under(chosen):
                return fn(item, device)
        finally:
            free.put(device)

    source, running = iter(items), dict[Future[Result], Item]()
    failed: BaseException | None = None
    pool = ThreadPoolExecutor(len(devices), thread_name_prefix="vbinfer-device")
    try:
        while True:
            if failed is None:  # at most two for each device: results do not pile up behind a slow consumer
                for item in islice(source, 2 * len(devices) - len(running)):
                    running[pool.submit(run, item)] = item
            if not running:
                break
            try:
                wait(running, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as error:  # once: what is under way is finished and yielded
                if failed is not None:
                    raise
                failed = error
            for future in [future for future in running if future.done()]:
                item, error = running.pop(future), future.exception()
                if error is None:
                    yield item, future.result()
                failed = failed or error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if failed is not None:
        raise failed


def use_cores(n: int) -> None:
    """Split the CPU into n JAX devices.

    `Local` then runs batches on n cores side by side. Call it before anything of JAX runs: the number of
    devices is fixed by the first operation of a process.

    Raises:
        ValueError: n is no positive number.
        RuntimeError: JAX is already running with another number of devices.
    """
    n = _check.count(n, "n", "2")
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError as error:
        have = len(jax.devices("cpu"))
        if have != n:
            raise RuntimeError(
                f"use_cores({n}) was called after JAX had started with {have} CPU device(s); "
                f"call it first, before any array or key is made"
            ) from error
