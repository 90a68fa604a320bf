"""Where lanes run: `Local` uses the devices of this process."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """What runs work: `map` calls `fn(item, device)` for every item and yields the results in order."""

    def map(self, fn: Callable[[Item, Any], Result], items: Iterable[Item]) -> Iterator[Result]: ...


@dataclasses.dataclass(frozen=True)
class Local:
    """Runs lanes on the devices of this process, one thread per device.

    The numbers do not depend on how many devices there are. A CPU is one device unless `vb.use_cores(n)` splits it.

    Args:
        devices: the JAX devices to use; all local ones by default.

    Example:
        >>> list(Local().map(lambda item, device: item**2, [1, 2, 3]))
        [1, 4, 9]
    """

    devices: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if self.devices is None:
            return
        devices = tuple(self.devices)
        if not devices or not all(isinstance(device, jax.Device) for device in devices):
            raise ValueError(f"devices={self.devices!r} was given; expected JAX devices, as Local(jax.devices()[:2])")
        object.__setattr__(self, "devices", devices)

    def map(self, fn: Callable[[Item, Any], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `fn(item, device)` in the order of `items`; an error in one item ends the run after those before it."""
        devices = self.devices or tuple(jax.local_devices())
        if len(devices) == 1:
            for item in items:
                yield fn(item, devices[0])
            return
        yield from _threaded(fn, items, devices)


def _threaded(fn: Callable[[Item, Any], Result], items: Iterable[Item], devices: Sequence[Any]) -> Iterator[Result]:
    free: SimpleQueue[Any] = SimpleQueue()
    for device in devices:
        free.put(device)

    def run(item: Item) -> Result:
        device = free.get()
        try:
            return fn(item, device)
        finally:
            free.put(device)

    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(len(devices), thread_name_prefix="vbinfer-lane")
    try:
        for item in items:
            waiting.append(pool.submit(run, item))
            if len(waiting) > 2 * len(devices):  # bounded, so that results do not pile up behind a slow consumer
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def use_cores(n: int) -> None:
    """Split the CPU into `n` JAX devices, so that `Local` runs lanes on `n` cores side by side.

    Call it before anything of JAX runs: the number of devices is fixed by the first operation of a process.

    Raises:
        ValueError: n is no positive number.
        RuntimeError: JAX is already running with another number of devices.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"use_cores({n!r}) was called; expected a number of cores, such as 2")
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError as error:
        have = len(jax.devices("cpu"))
        if have != n:
            raise RuntimeError(
                f"use_cores({n}) was called after JAX had started with {have} CPU device(s); "
                f"call it first, before any array or key is made"
            ) from error
