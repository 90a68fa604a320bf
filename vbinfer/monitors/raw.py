"""Recording state variables as they are: every step, every so often, or averaged."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer.monitors.base import AbstractMonitor, Variables, positive_ms


def chosen(var: Variables, variables: tuple[str, ...]) -> tuple[str, ...]:
    """The names that `var` stands for (None is all); an unknown one is an error naming the closest."""
    names = variables if var is None else (var,) if isinstance(var, str) else tuple(var)
    for name in names:
        if name not in variables:
            raise ValueError(
                f"the monitor reads {name!r}; the model has no such variable. {did_you_mean(name, variables)}"
            )
    return names


def shaped(var: Variables, x: dict[str, Array]) -> Any:
    """One named variable as its array, otherwise a dictionary by name."""
    return x[var] if isinstance(var, str) else {name: x[name] for name in (var or x)}


class AbstractSnapshot(AbstractMonitor):
    """The state at the end of a period, nothing in between."""

    var: eqx.AbstractVar[Variables]

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(self.var, variables)

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

    var: Variables = eqx.field(static=True, default=None)
    period: float | None = eqx.field(static=True, default=None, init=False)


class Subsample(AbstractSnapshot):
    """The state at the end of every period: aliases what is faster than the period. Shapes as for `Raw`."""

    period: float | None = eqx.field(static=True, converter=positive_ms)
    var: Variables = eqx.field(static=True, default=None)


class TimeAverage(AbstractMonitor):
    """The mean of the states after the steps of a period: y_k = 1/n sum_{i=1..n} x(t_{k-1} + i dt)."""

    period: float | None = eqx.field(static=True, converter=positive_ms)
    var: Variables = eqx.field(static=True, default=None)

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(self.var, variables)

    def init(self, x: dict[str, Array]) -> Any:
        return jnp.zeros(()), jax.tree.map(jnp.zeros_like, x)

    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        count, total = carry
        return count + 1.0, jax.tree.map(jnp.add, total, x)

    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        count, total = carry
        mean = jax.tree.map(lambda a: a / count, total)
        return self.init(x), shaped(self.var, mean)
