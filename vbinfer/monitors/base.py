"""Interface of monitors: samples are taken inside the loop.

Memory does not grow with the number of steps.
"""

import abc
import dataclasses
import math
import warnings
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._check import milliseconds
from vbinfer._param import Parametrised, did_you_mean

Variables = str | tuple[str, ...] | None
SECONDS_PER_MS = 1e-3


_SECONDS_BELOW = 20.0
"""ms; no scanner repeats as fast."""
MOST_STEPS = 2**31 - 1
"""Steps of a run: they are counted in 32 bits."""


def steps_in(duration: float, dt: float, what: str) -> int:
    """Number of steps of `dt` in `duration`.

    The tolerance is 1e-6 of a step, far above the rounding of decimal fractions and far below any step.

    Raises:
        ValueError: no whole number, with the two nearest durations; more than 2^31 - 1.
    """
    duration = _check.number(duration, what, 1000.0, "a finite number of ms")
    n = round(duration / dt)  # never a floor: 0.3 / 0.1 is below 3
    if n < 1 or abs(duration / dt - n) > 1e-6:
        low, high = max(1, math.floor(duration / dt)) * dt, max(1, math.ceil(duration / dt)) * dt
        near = f"{low:g}" if low == high else f"{low:g} or {high:g}"
        raise ValueError(f"{what} is {duration:g} ms, not a multiple of dt = {dt:g} ms; use {near} ms or another dt")
    if n > MOST_STEPS:
        raise ValueError(
            f"{what}={duration:g} ms is {n:,} steps of dt = {dt:g} ms, and at most {MOST_STEPS:,} can be counted; "
            "take a larger dt, or several runs"
        )
    return n


def period_ms(value: Any) -> float | None:
    """A sampling period as a Python float, or None."""
    hint = (
        'period=10.0 (Subsample and TimeAverage take the period before the variable, Subsample(10.0, var="x"), other '
        "monitors after it)"
    )
    return None if value is None else milliseconds(value, "period", hint)


def repetition_ms(value: Any) -> float | None:
    """The repetition time of a haemodynamic monitor.

    Warns where it looks like seconds.
    """
    period = period_ms(value)
    if period is not None and period < _SECONDS_BELOW:
        warnings.warn(
            f"period={period:g} ms of a BOLD signal: periods are in ms; write period={1e3 * period:g} if it is "
            f"{period:g} s",
            stacklevel=5,
        )
    return period


def step_ms(value: Any) -> float:
    """The longest block of a monitor that averages."""
    return milliseconds(value, "step", "step=10.0")


def block_steps(period: float | None, longest: float, dt: float, kind: str) -> int:
    """Steps in a block of at most `longest` ms.

    At least one step, and a divisor of the period.
    """
    if period is None:
        raise ValueError(f"{kind} was given period=None; give the repetition time, period=720.0")
    n = steps_in(period, dt, f"the period of {kind}")
    most = max(1, int(longest / dt + 1e-6))  # 10.0 / 0.1 may be just below 100
    return next(k for k in range(min(most, n), 0, -1) if n % k == 0)


def variables_of(var: Variables | list[str]) -> Variables:
    """One name, several, or None for all."""
    if var is None or isinstance(var, str):
        return var
    if isinstance(var, tuple | list) and var and all(isinstance(name, str) for name in var):
        return tuple(var)
    raise TypeError(f'var was given as {var!r}; expected a state variable, var="x", several, var=("x", "y"), or None')


def chosen(var: Variables, variables: tuple[str, ...]) -> tuple[str, ...]:
    """The names that `var` stands for.

    Raises:
        ValueError: a name that is unknown, with the closest one.
    """
    var = variables_of(var)
    names = variables if var is None else (var,) if isinstance(var, str) else var
    for name in names:
        if name not in variables:
            raise ValueError(
                f"the monitor reads {name!r}; the model has no such variable. {did_you_mean(name, variables)}"
            )
    return names


def nodes_of(at: Any) -> tuple[int | str, ...] | None:
    """Nodes by number or name, as a tuple."""
    if at is None or (isinstance(at, tuple) and all(isinstance(node, int | str) for node in at)):
        return at
    given = np.atleast_1d(np.asarray(at))
    if given.dtype.kind == "f" and np.all(given == np.round(given)):
        given = given.astype(int)  # as a table of numbers is read from a file
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iuU":
        raise TypeError(f"at was given as {at!r}; expected nodes by number or name, at=(0, 3) or at=('V1', 'M1')")
    return tuple(given.tolist())


class AbstractMonitor(Parametrised):
    """What is recorded of a simulation, and how often.

    The loop calls `observe` after every step, `update` every `stride(dt)` steps (if that is not None) and `sample`
    at every multiple of the period, in this order.
    """

    var: eqx.AbstractVar[Any]
    """What it reads of the model's `at_nodes`: one name, several, or None for all."""
    period: eqx.AbstractVar[float | None]
    """ms between samples; None is every step."""
    by_node: ClassVar[bool] = True
    """Whether column k of a sample is node k; sensors, groups and matrices are not."""
    at_end: ClassVar[bool] = False
    """Whether it gives one sample, of the whole run, instead of one after every period."""

    def placed(self, labels: tuple[str, ...] | None) -> "AbstractMonitor":
        """The monitor with nodes by number, given their names."""
        return self

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """The names it needs, given those that the model shows."""
        return chosen(self.var, variables)

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        """Shape of one sample of `n` nodes.

        None where it is a dictionary by state variable.
        """
        return (n,)

    def check_nodes(self, n: int) -> None:
        """Raise ValueError unless its matrices fit `n` nodes."""

    def stride(self, dt: float) -> int | None:
        """Steps between two calls of `update`, or None.

        Raises:
            ValueError: the monitor does not work with steps of `dt` ms.
        """
        return None

    def init(self, x: dict[str, Array]) -> Any:
        """The carry before the first step, from the initial state."""
        return None

    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        """Take note of the state after a step."""
        return carry

    def update(self, carry: Any, dt: float) -> Any:
        """Advance what changes slower than the state."""
        return carry

    @abc.abstractmethod
    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        """The carry and the sample y, after a period."""

    def after(self, y: Any, transient: float) -> Any:
        """Sample of a run without its first `transient` ms."""
        return y

    def failed(self, y: Any) -> Array | None:
        """Whether the samples miss what happened, or None."""
        return None


class AbstractPlaced(AbstractMonitor):
    """Base of monitors that may record some nodes alone."""

    at: eqx.AbstractVar[tuple[int | str, ...] | None]
    """The nodes that it is shown, in this order; None is all."""

    @property
    def by_node(self) -> bool:
        return self.at is None

    def recorded(self, n: int) -> int:
        """Number of nodes that are recorded, of n."""
        return n if self.at is None else len(self.at)

    def placed(self, labels: tuple[str, ...] | None) -> AbstractMonitor:
        names = [node for node in self.at or () if isinstance(node, str)]
        if not names:
            return self
        for name in names:
            if name not in (labels or ()):
                raise ValueError(
                    f"the monitor records at {name!r}; there is no such node. {did_you_mean(name, labels or ())}"
                )
        number = {name: k for k, name in enumerate(labels or ())}
        return dataclasses.replace(
            self, at=tuple(number[node] if isinstance(node, str) else node for node in self.at or ())
        )

    def check_nodes(self, n: int) -> None:
        off = [node for node in self.at or () if not isinstance(node, int) or not 0 <= node < n]
        if off:
            raise ValueError(f"the monitor records at node {off[0]}; there are {n}, 0 to {n - 1}")


class AbstractMean(AbstractMonitor):
    """Base of monitors that average over the period."""

    def source(self, x: dict[str, Array]) -> Any:
        """What is averaged."""
        return x

    def init(self, x: dict[str, Array]) -> Any:
        return jnp.zeros(()), jax.tree.map(jnp.zeros_like, self.source(x))

    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        count, mean = carry
        share = 1.0 / (count + 1.0)  # a running mean: the sum of a long period would lose digits in float32
        return count + 1.0, jax.tree.map(lambda m, a: m + share * (a - m), mean, self.source(x))


class Block(NamedTuple):
    """An open block.

    Sum and number of its states, and `inner`, which its mean will advance.
    """

    total: Array
    count: Array
    inner: Any


class AbstractBlocks(AbstractMonitor):
    """Base of monitors driven by block means."""

    @abc.abstractmethod
    def rest(self, like: Array) -> Any:
        """What is advanced, before the first block."""

    @abc.abstractmethod
    def advance(self, inner: Any, mean: Array, ms: float) -> Any:
        """Advance it by a block of that mean and length."""

    def init(self, x: dict[str, Array]) -> Block:
        zero = jnp.zeros_like(x[self.var])
        return Block(zero, jnp.zeros(()), self.rest(zero))

    def observe(self, carry: Block, x: dict[str, Array]) -> Block:
        return carry._replace(total=carry.total + x[self.var], count=carry.count + 1.0)

    def update(self, carry: Block, dt: float) -> Block:
        steps = self.stride(dt)
        assert steps is not None
        inner = self.advance(carry.inner, carry.total / carry.count, steps * dt)
        return Block(jnp.zeros_like(carry.total), jnp.zeros_like(carry.count), inner)
