"""The interface of a monitor: it samples inside the loop, so memory does not grow with the number of steps."""

import abc
import math
import numbers
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
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
    if n < 1 or abs(duration / dt - n) > 1e-6:
        low, high = max(1, math.floor(duration / dt)) * dt, max(1, math.ceil(duration / dt)) * dt
        near = f"{low:g}" if low == high else f"{low:g} or {high:g}"
        raise ValueError(f"{what} is {duration:g} ms, not a multiple of dt = {dt:g} ms; use {near} ms or another dt")
    return n


def positive_ms(value: float | np.number | None) -> float | None:
    """A duration as a Python float, or None; anything not a positive number is an error."""
    return None if value is None else _positive(value, "period")


def longest_ms(value: float | np.number) -> float:
    """The longest block of a monitor that averages, as a Python float; anything not a positive number is an error."""
    return _positive(value, "step")


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{what} was given as {value!r}; expected a number of ms, {what}=10.0 (Subsample and TimeAverage take the "
            'period before the variable, Subsample(10.0, var="x"), other monitors after it)'
        )
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"a {what} of {value} ms was given; it must be positive")
    return float(value)


def block_steps(period: float | None, longest: float, dt: float, kind: str) -> int:
    """Steps of dt in a block of at most `longest` ms (but at least one step), a whole number of which make a period."""
    if period is None:
        raise ValueError(f"{kind} was given period=None; give the repetition time, period=720.0")
    n = steps_in(period, dt, f"the period of {kind}")
    most = max(1, int(longest / dt + 1e-6))
    return next(k for k in range(min(most, n), 0, -1) if n % k == 0)


class AbstractMonitor(Parametrised):
    """What is recorded of a simulation, and how often.

    The loop calls `observe` after every step, `update` every `stride(dt)` steps (if that is not None) and `sample`
    at every multiple of the period, in this order.
    """

    period: eqx.AbstractVar[float | None]
    """ms between samples; None is every step."""
    by_node: ClassVar[bool] = True
    """Whether column k of a sample is node k; sensors, groups and matrices are not."""

    @abc.abstractmethod
    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """The state variables it needs, given those of the model."""

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        """Shape of one sample of a simulation of `n` nodes; None where it is a dictionary by state variable."""
        return (n,)

    def check_nodes(self, n: int) -> None:
        """Raise ValueError unless what this monitor holds beyond elementwise parameters fits `n` nodes."""

    def stride(self, dt: float) -> int | None:
        """How many steps lie between two calls of `update`; None if it is never called.

        Raises ValueError where this monitor does not work with steps of `dt` ms.
        """
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
