"""The interface of a monitor: it samples inside the loop, so memory does not grow with the number of steps."""

import abc
import math
from typing import Any

import equinox as eqx
from jaxtyping import Array

from vbinfer._param import Parametrised

Variables = str | tuple[str, ...] | None


def steps_in(duration: float, dt: float, what: str) -> int:
    """How many steps of `dt` make `duration`; an error naming the neighbours unless it is a whole number.

    The tolerance is 1e-6 of a step, far above the rounding of decimal fractions and far below any step.
    """
    if not math.isfinite(duration):
        raise ValueError(f"{what} is {duration} ms; it must be a finite number")
    n = round(duration / dt)
    if n < 1 or abs(duration / dt - n) > 1e-6 * max(1, n):
        low, high = max(1, math.floor(duration / dt)) * dt, max(1, math.ceil(duration / dt)) * dt
        near = f"{low:g}" if low == high else f"{low:g} or {high:g}"
        raise ValueError(f"{what} is {duration:g} ms, not a multiple of dt = {dt:g} ms; use {near} ms or another dt")
    return n


def positive_ms(value: float | None) -> float | None:
    """A duration as a Python float, or None; anything not positive is an error."""
    if value is None:
        return None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"a period of {value} ms was given; it must be positive")
    return float(value)


class AbstractMonitor(Parametrised):
    """What is recorded of a simulation, and how often.

    The loop calls `observe` after every step, `update` every `stride(dt)` steps (if that is not None) and `sample`
    at every multiple of the period, in this order.
    """

    period: eqx.AbstractVar[float | None]
    """ms between samples; None is every step."""

    @abc.abstractmethod
    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """The state variables it needs, given those of the model."""

    def check_nodes(self, n: int) -> None:
        """Raise ValueError unless what this monitor holds beyond elementwise parameters fits `n` nodes."""

    def stride(self, dt: float) -> int | None:
        """How many steps lie between two calls of `update`; None if it is never called."""
        return None

    @abc.abstractmethod
    def init(self, x: dict[str, Array]) -> Any:
        """The carried value before the first step, given the initial state by variable."""

    @abc.abstractmethod
    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        """Take note of the state after a step."""

    def update(self, carry: Any, dt: float) -> Any:
        """Advance what changes slower than the state."""
        return carry

    @abc.abstractmethod
    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        """(carry, y): the sample at the end of a period."""
