"""State variables as they are: every step, subsampled, or averaged."""

from typing import Any

import equinox as eqx
from jaxtyping import Array

from vbinfer.monitors.base import AbstractMean, AbstractPlaced, Variables, nodes_of, period_ms, variables_of


def shaped(var: Variables, x: dict[str, Array]) -> Any:
    """One named variable as its array, otherwise a dictionary."""
    return x[var] if isinstance(var, str) else {name: x[name] for name in (var or x)}


def shape_of(var: Variables, n: int) -> tuple[int, ...] | None:
    """Shape of one sample, or None for a dictionary."""
    return (n,) if isinstance(var, str) else None


class AbstractSnapshot(AbstractPlaced):
    """The state at the end of a period."""

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return shape_of(self.var, self.recorded(n))

    def sample(self, carry: None, x: dict[str, Array]) -> tuple[None, Any]:
        return None, shaped(self.var, x)


class Raw(AbstractSnapshot):
    """The state after every step.

    Gives `{state variable: [T, N]}`; with `var="r"` the array itself, with a tuple just those. What is named and
    recorded is what the model shows at its nodes. `at`, numbers or names of nodes, records these alone, `[T, len(at)]`.
    """

    var: Variables = eqx.field(static=True, default=None, converter=variables_of)
    at: tuple[int | str, ...] | None = eqx.field(static=True, default=None, converter=nodes_of)
    period: float | None = eqx.field(static=True, default=None, init=False)


class Subsample(AbstractSnapshot):
    """The state at the end of every period.

    Aliases what is faster than the period. Shapes as for `Raw`.
    """

    period: float | None = eqx.field(static=True, converter=period_ms)
    var: Variables = eqx.field(static=True, default=None, converter=variables_of)
    at: tuple[int | str, ...] | None = eqx.field(static=True, default=None, converter=nodes_of)


class TimeAverage(AbstractMean, AbstractPlaced):
    """The mean state over each period.

    y_k = 1/n sum_{i=1..n} x(t_{k-1} + i dt), the states after the n steps of the period. Shapes as for `Raw`.
    """

    period: float | None = eqx.field(static=True, converter=period_ms)
    var: Variables = eqx.field(static=True, default=None, converter=variables_of)
    at: tuple[int | str, ...] | None = eqx.field(static=True, default=None, converter=nodes_of)

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return shape_of(self.var, self.recorded(n))

    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        return self.init(x), shaped(self.var, carry[1])
