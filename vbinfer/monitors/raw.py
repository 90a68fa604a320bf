"""State variables as they are: every step, subsampled, or averaged."""

import dataclasses
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer.monitors.base import AbstractMean, AbstractMonitor, Variables, period_ms, variables_of


def shaped(var: Variables, x: dict[str, Array]) -> Any:
    """One named variable as its array, otherwise a dictionary."""
    return x[var] if isinstance(var, str) else {name: x[name] for name in (var or x)}


def shape_of(var: Variables, n: int) -> tuple[int, ...] | None:
    """Shape of one sample, or None for a dictionary."""
    return (n,) if isinstance(var, str) else None


def nodes_of(at: Any) -> tuple[int | str, ...] | None:
    """Nodes by number or name, as a tuple."""
    if at is None or (isinstance(at, tuple) and all(isinstance(node, int | str) for node in at)):
        return at
    given = np.atleast_1d(np.asarray(at))
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iuU":
        raise TypeError(f"at was given as {at!r}; expected nodes by number or name, at=(0, 3) or at=('V1', 'M1')")
    return tuple(given.tolist())


class AbstractSnapshot(AbstractMonitor):
    """The state at the end of a period."""

    at: eqx.AbstractVar[tuple[int | str, ...] | None]
    """The nodes that are recorded, in this order; None is all."""

    @property
    def by_node(self) -> bool:
        return self.at is None

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

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return shape_of(self.var, n if self.at is None else len(self.at))

    def sample(self, carry: None, x: dict[str, Array]) -> tuple[None, Any]:
        if self.at is not None:
            x = {name: a[np.asarray(self.at)] for name, a in x.items()}
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


class TimeAverage(AbstractMean):
    """The mean state over each period.

    y_k = 1/n sum_{i=1..n} x(t_{k-1} + i dt), the states after the n steps of the period. Shapes as for `Raw`.
    """

    period: float | None = eqx.field(static=True, converter=period_ms)
    var: Variables = eqx.field(static=True, default=None, converter=variables_of)

    def sample_shape(self, n: int) -> tuple[int, ...] | None:
        return shape_of(self.var, n)

    def sample(self, carry: Any, x: dict[str, Array]) -> tuple[Any, Any]:
        return self.init(x), shaped(self.var, carry[1])
