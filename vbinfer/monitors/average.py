"""Groups of regions in place of regions."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.monitors.base import AbstractMonitor, period_ms
from vbinfer.monitors.projection import check_columns, contract


class SpatialAverage(AbstractMonitor):
    """A state variable averaged over groups of regions: `[T, group]`.

    y_g(t) = sum_i weights_gi x_i(t),   weights_gi = 1 / (size of g) for i in g, else 0

    A snapshot of the state, as in TVB: it aliases what is faster than the period.

    Args:
        var: the state variable.
        groups: a label or a whole number for each region; or a matrix `[group, node]` that is used as it is, weighted
            means or any other linear map. Whole numbers are sorted, labels stay in the order of their first region.
        period: ms between samples.

    >>> monitor = SpatialAverage("V", ["left", "left", "right"], period=1.0)
    >>> monitor.labels
    ('left', 'right')
    """

    by_node: ClassVar[bool] = False
    var: str = eqx.field(static=True)
    period: float | None = eqx.field(static=True, converter=period_ms)
    labels: tuple[str, ...] = eqx.field(static=True)
    weights: Param = param(axes=("group", "node"), doc="share of each node in the mean of a group")

    def __init__(self, var: str, groups: Sequence[Any] | np.ndarray | Array, period: float):
        self.var, self.period = var, period
        given = np.asarray(groups)
        if given.ndim == 2:
            self.weights, self.labels = given, tuple(str(g) for g in range(len(given)))  # type: ignore  (converted)
            return
        if given.dtype.kind == "f" and np.isfinite(given).all() and np.all(given == np.round(given)):
            given = given.astype(int)  # as a table of numbers is read from a file
        if given.ndim != 1 or not len(given) or given.dtype.kind not in "iuU":
            raise ValueError(
                f"groups has shape {list(given.shape)} and type {given.dtype}; expected a label or a whole number for "
                "each region, or a matrix [group, node]"
            )
        names = list(dict.fromkeys(given.tolist()))  # in the order of their first region
        names = names if given.dtype.kind == "U" else sorted(names)
        member = np.array([given == name for name in names], float)
        self.weights = member / member.sum(axis=1, keepdims=True)  # type: ignore  (converted to an array)
        self.labels = tuple(str(name) for name in names)

    def sample_shape(self, n: int) -> tuple[int, ...]:
        return (self.weights.shape[0],)

    def check_nodes(self, n: int) -> None:
        check_columns(self.weights, n, "groups of SpatialAverage")

    def sample(self, carry: None, x: dict[str, Array]) -> tuple[None, Array]:
        return None, contract(self.weights, x[self.var])
