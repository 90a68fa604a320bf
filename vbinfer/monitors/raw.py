"""Recording state variables as they are: every step, every so often, or averaged."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer.monitors.base import AbstractMonitor, Variables, positive_ms


def variables_of(var: Variables | list[str]) -> Variables:
    """One name, several, or None for all."""
    if var is None or isinstance(var, str):
        return var
    if isinstance(var, tuple | list) and var and all(isinstance(name, str) for name in var):
        return tuple(var)
    raise TypeError(f'var was given as {var!r}; expected a state variable, var="x", several, var=("x", "y"), or None')


def chosen(var: Variables, variables: tuple[str, ...]) -> tuple[str, ...]:
    """The names that `var` stands for (None is all); an unknown one is an error naming the closest."""
    var = variables_of(var)
    names = variables if var is None else (var,) if isinstance(var, str) else var
    for name in names:
        if name not in variables:
            raise ValueError(
                f"the monitor reads {name!r}; the model has no such variable. {did_you_mean(name, variables)}"
            )
    return names


def shaped(var: Variables, x: dict[str, Array]) -> Any:
    """One named variable as its array, otherwise a dictionary by name."""
    return x[var] if isinstance(var, str) else {name: x[name] for name in (var or x)}


def shape_of(var: Variables, n: int) -> tuple[int, ...] | None:
    """Shape of one sample: one named variable is an array, several are a dictionary."""
    return (n,) if isinstance(var, str) else None


class AbstractSnapshot(AbstractMonitor):
    """The state at the end of a period, nothing in between."""

    var: eqx.AbstractVar[Variables]

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(self.var, variables)

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return shape_of(self.var, n)

    def init(self, x: dict[str, Array]) -> None:
        return None

    def observe(self, carry: None, x: dict[str, Array]) -> None:
        return None

    def sample(self, carry: None, x: dict[str, Array]) -> tuple[None, Any]:
        return None, shaped(self.var, x)


class Raw(AbstractSnapshot):
    """The state after every step.

    Gives `{state variable: [T, N]}`; with `var="r"` the array itself, with a tuple just those.
    """

    var: Variables = eqx.field(static=True, default=None, converter=variables_of)
    period: float | None = eqx.field(static=True, default=None, init=False)


class Subsample(AbstractSnapshot):
    """The state at the end of every period: aliases what is faster than the period. Shapes as for `Raw`."""

    period: float | None = eqx.field(static=True, converter=positive_ms)
    var: Variables = eqx.field(static=True, default=None, converter=variables_of)


class TimeAverage(AbstractMonitor):
    """The mean of the states after the steps of a period: y_k = 1/n sum_{i=1..n} x(t_{k-1} + i dt)."""

    period: float | None = eqx.field(static=True, converter=positive_ms)
    var: Variables = eqx.field(static=True, default=None, converter=variables_of)

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(self.var, variables)

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return shape_of(self.var, n)

    def init(self, x: dict[str, Array]) -> Any:
        return jnp.zeros(()), jax.tree.map(jnp.zeros_like, x)

    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        count, mean = carry
        share = 1.0 / (count + 1.0)  # a running mean: the sum of a long period would lose digits in float32
        return count + 1.0, jax.tree.map(lambda m, a: m + share * (a - m), mean, x)

    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        return self.init(x), shaped(self.var, carry[1])
