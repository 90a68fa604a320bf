"""Connectivity of networks, of single nodes, of patterns, and of one moment with a later one."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import Feature, lag_ms, positions, shape_moments
from .connectivity import KINDS, kind_of, strengths
from .masks import take_pairs
from .matrices import eigenvalues, fc_matrix, lagged_matrix, upper_triangle
from .nodes import NodeFeature, pool_of, root


class fc_networks(Feature):
    """The mean functional connectivity within each network and between every two of them.

    A network of one node has no number within. Names are `visual-visual`, `visual-motor`, networks in the order in
    which they first appear.

    Args:
        labels: the network of each node (or hemisphere, as `hemispheres(80, "blocks")` has it), `[N]`.
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"` or `"plv"`.

    >>> fc_networks(labels=["a", "b", "a", "b", "c"]).names()
    ('a-a', 'a-b', 'a-c', 'b-b', 'b-c')
    """

    labels: tuple[str, ...] = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def __init__(self, labels: Sequence[object] | np.ndarray, kind: str = "pearson"):
        self.labels = tuple(str(label) for label in labels)
        self.kind = kind_of(kind)
        if len(self.labels) < 2:
            raise ValueError(f"labels hold {len(self.labels)} nodes; give one label for each of at least 2 nodes")

    def __call__(self, y: Array, period: float) -> Array:
        n = len(self.labels)
        if y.shape[1] != n:
            raise ValueError(f"the recording has {y.shape[1]} nodes but labels has {n}; give one label per node")
        v = take_pairs(KINDS[self.kind](y), None)
        return jnp.stack([v[chosen].mean() for chosen in self._blocks().values()])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(self._blocks())

    def _blocks(self) -> dict[str, np.ndarray]:
        """Which of the pairs above the diagonal belong to each name."""
        networks = {label: k for k, label in enumerate(dict.fromkeys(self.labels))}
        code = np.array([networks[label] for label in self.labels])
        rows, cols = upper_triangle(len(code))
        low, high = np.minimum(code[rows], code[cols]), np.maximum(code[rows], code[cols])
        names = list(networks)
        found = {
            f"{names[a]}-{names[b]}": np.flatnonzero((low == a) & (high == b))
            for a in range(len(names))
            for b in range(a, len(names))
        }
        return {name: chosen for name, chosen in found.items() if chosen.size}


class global_connectivity(NodeFeature):
    """Global brain connectivity of each node (`gbc`): its mean correlation with all other nodes. 0 if it is constant.

    Args:
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"` or `"plv"`.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    Cole, Yarkoni, Repovs, Anticevic & Braver 2012, doi:10.1523/JNEUROSCI.0536-12.2012.
    """

    kind: str = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, kind: str = "pearson", pool: str = "spread"):
        self.kind, self.pool = kind_of(kind), pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        upper_triangle(y.shape[1])
        return strengths(KINDS[self.kind](y))[None]

    def labels(self) -> tuple[str, ...]:
        return ("gbc",)


class fc_eigenvalues(Feature):
    """The largest eigenvalues of the functional connectivity, descending, `[0]`, `[1]`, ...

    Divided by N they are shares of the variance of the standardised signals.

    Args:
        count: how many; no more than there are nodes.
    """

    count: int = eqx.field(static=True)

    def __init__(self, count: int = 3):
        if count < 1:
            raise ValueError(f"count is {count}; give 1 or more")
        self.count = count

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] < self.count:
            raise ValueError(
                f"the recording has {y.shape[1]} nodes and so no {self.count} eigenvalues; give count= less"
            )
        return eigenvalues(fc_matrix(y))[: self.count]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(f"[{i}]" for i in range(self.count))


_LAGGED = ("mean", "std", "own", "asymmetry")


class fc_lagged(Feature):
    """Correlation of the nodes with one another some time later, L_ij = corr(y_i(t), y_j(t + lag)), in four numbers.

    `mean` and `std` (ddof 0) over ordered pairs i != j; `own`, the mean of L_ii; `asymmetry`, the root mean square of
    L_ij - L_ji over pairs, which is 0 on average in equilibrium and not where nodes drive one another one way.

    Args:
        lag: ms, rounded to samples; one sample without.
        only: names of the numbers to keep, in this order; all of them without.
    """

    lag: float | None = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, lag: float | None = None, only: Sequence[str] | None = None):
        self.lag = lag_ms(lag)
        self.only = positions(_LAGGED, only, "fc_lagged")

    def __call__(self, y: Array, period: float) -> Array:
        matrix = lagged_matrix(y, lag=self.lag or period, period=period)
        rows, cols = upper_triangle(matrix.shape[0])
        up, down = matrix[rows, cols], matrix[cols, rows]
        mean, std, _, _ = shape_moments(jnp.concatenate([up, down]))
        numbers = [mean, std, jnp.diagonal(matrix).mean(), root(jnp.mean((up - down) ** 2))]
        return jnp.stack(numbers)[np.array(self.only)]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(_LAGGED[i] for i in self.only)
