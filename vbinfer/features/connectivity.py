"""Functional connectivity: every pair, networks, nodes, and a few numbers."""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vbinfer import _check

from .base import Feature, NodeFeature, chosen, gather, option, pick, pool_of, positive_or_none
from .matrices import (
    ArrayLeaf,
    Mask,
    covariance_matrix,
    eigenvalues,
    fc_matrix,
    homotopic,
    lagged_matrix,
    mask_of,
    matmul,
    ordering,
    partial_matrix,
    spearman_matrix,
    take_pairs,
    upper_triangle,
)
from .numeric import QUANTILE_NAMES, quantiles, ratio, root, shape_moments
from .phase import plv_matrix
from .preprocess import remove_global

KINDS: dict[str, Callable[[ArrayLike], Array]] = {
    "pearson": fc_matrix,
    "spearman": spearman_matrix,
    "partial": partial_matrix,
    "covariance": covariance_matrix,
    "plv": plv_matrix,
    "regressed": lambda y: fc_matrix(remove_global(jnp.asarray(y))),
}
_kind = functools.partial(_check.one_of, what="kind", choices=KINDS)

EIGEN_NAMES = ("eig_sum", "eig_max", "eig_min", "eig_mean", "eig_std", "eig_skew", "eig_kurtosis")
SHARE_NAMES = ("pca1", "pca2", "pca3", "pca_std")
EXTREME_NAMES = ("min", "max", "sum", "abs_sum")
_SHAPE = ("mean", "std", "skew", "kurtosis", *QUANTILE_NAMES)
_WHOLE = ("norm3", "norm4", "strength_std")
_HOMOTOPIC = ("homotopic", "homotopic_positive")


def extreme_numbers(v: Array) -> Array:
    """`EXTREME_NAMES` of the entries above the diagonal.

    `abs_sum` counts both triangles.
    """
    numbers = jnp.stack([v.min(), v.max(), v.sum(), 2.0 * jnp.abs(v).sum()])
    return jnp.where(jnp.isnan(v).any(), jnp.nan, numbers)  # compiled, a maximum may lose a NaN


def eigen_numbers(matrix: Array) -> Array:
    """`EIGEN_NAMES` of a symmetric matrix."""
    found = eigenvalues(matrix)
    return jnp.concatenate([jnp.stack([found.sum(), found[0], found[-1]]), jnp.stack(shape_moments(found))])


def share_numbers(matrix: Array) -> Array:
    """`SHARE_NAMES` of the principal components of a matrix's rows.

    The share of the variance of the first three (0 where there are fewer), and the standard deviation of all entries of
    their scores. Scores have mean 0, and their sign is arbitrary: no more of them is a number of the matrix.
    """
    n = matrix.shape[0]
    rows = matrix - matrix.mean(axis=0, keepdims=True)
    found = eigenvalues(matmul(rows.T, rows))
    three = jnp.pad(found[:3], (0, max(0, 3 - n)))
    return jnp.concatenate([ratio(three, found.sum()), root(three.sum() / (3 * n))[None]])


def strengths(matrix: Array) -> Array:
    """The mean of each row without the diagonal, `[N]`."""
    return (matrix.sum(axis=0) - jnp.diagonal(matrix)) / (matrix.shape[0] - 1)


class fc(Feature):
    """Every correlation above the diagonal, row by row.

    For embeddings and small networks; `fc_stat` has a width that does not follow the number of nodes.

    Args:
        mask: `[node, node]`, true for the pairs to keep; all of them without.
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"` (ddof 1) or `"plv"` (phase locking): the entries of
            `fc_matrix`, `spearman_matrix`, `partial_matrix`, `covariance_matrix` or `plv_matrix`.
        fisher: give atanh(r), whose error does not depend on r; |r| is held below 1 by the machine epsilon.
    """

    mask: Mask | None = eqx.field(default=None, converter=mask_of)
    kind: str = option(default="pearson", converter=_kind)
    fisher: bool = option(default=False, converter=bool)

    def __check_init__(self) -> None:
        if self.fisher and self.kind == "covariance":
            raise ValueError("fisher=True is for correlations; covariances are not bounded by 1: leave it out")

    def __call__(self, y: Array, period: float) -> Array:
        v = take_pairs(KINDS[self.kind](y), self.mask)
        if not self.fisher:
            return v
        edge = 1.0 - float(jnp.finfo(v.dtype).eps)
        return jnp.arctanh(jnp.where(jnp.abs(v) > edge, edge * jnp.sign(v), v))

    def names(self, n: int | None = None) -> tuple[str, ...]:
        if self.mask is None and n is None:
            raise ValueError("the names of fc depend on the number of nodes; give it, as in names(80)")
        rows, cols = upper_triangle(n or 0) if self.mask is None else self.mask.pairs.value
        return tuple(f"[{i},{j}]" for i, j in zip(rows, cols, strict=True))


class fc_stat(Feature):
    """Functional connectivity in twelve numbers, and more by name.

    None depends on the number of nodes. Of the correlations above the diagonal: `mean`, `std` (ddof 0), `skew`,
    `kurtosis` (excess), `q05 q25 q50 q75 q95`; of the matrix: `norm3` and `norm4`, with
    norm_k = (sum_i lambda_i^k)^(1/k) / N over its eigenvalues lambda (when one pattern prevails, both are close to
    lambda_1 / N, the share of the variance of the standardised signals that it carries; 0 where the sum is negative);
    `strength_std`, the standard deviation over nodes of the mean correlation with the other nodes. With `pairs`, also
    `homotopic`, the mean correlation of mirrored regions.

    Only when named in `only`: `min`, `max`, `sum` of the correlations above the diagonal, and `abs_sum` of their
    absolute values on both sides of it; `eig_sum eig_max eig_min eig_mean eig_std eig_skew eig_kurtosis` over the
    eigenvalues of the matrix; `pca1 pca2 pca3`, the shares of variance of the principal components of its rows, and
    `pca_std`, the standard deviation of the first three's scores; with `pairs`, `homotopic_positive`, the mean of
    the mirrored correlations with negative ones counted as 0.

    Blind to which nodes correlate (see `fc`, `fc_match`, `fc_networks`), to lags, and to amplitude.

    Args:
        mask: `[node, node]`, true for the pairs that enter `mean` to `q95` and `min` to `abs_sum`, such as
            `within_mask(hemispheres(80, "blocks"))`; the other numbers use the whole matrix.
        pairs: how mirrored regions are ordered: `"interleaved"` (left, right, left, ...; AAL, AAL2) or `"blocks"`.
        only: names of the numbers to keep, in this order; the twelve or thirteen without.
        kind: what stands for the correlation: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"`, `"plv"` or
            `"regressed"`.

    >>> fc_stat().names()[:2]
    ('mean', 'std')
    """

    mask: Mask | None
    pairs: str | None = eqx.field(static=True)
    only: tuple[str, ...] = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def __init__(
        self,
        mask: ArrayLike | None = None,
        pairs: str | None = None,
        only: Sequence[str] | None = None,
        kind: str = "pearson",
    ):
        self.mask, self.kind = mask_of(mask), _kind(kind)
        self.pairs = None if pairs is None else ordering(pairs)
        of_pairs = () if pairs is None else _HOMOTOPIC
        usual, extra = (*_SHAPE, *_WHOLE, *of_pairs[:1]), (*EXTREME_NAMES, *EIGEN_NAMES, *SHARE_NAMES, *of_pairs[1:])
        self.only = chosen("fc_stat", *usual, *extra, usual=usual)(only)

    def __call__(self, y: Array, period: float) -> Array:
        matrix = KINDS[self.kind](y)
        v = take_pairs(matrix, self.mask)
        groups: dict[tuple[str, ...], Callable[[], Array]] = {
            _SHAPE: lambda: jnp.concatenate([jnp.stack(shape_moments(v)), quantiles(v)]),
            _WHOLE: lambda: _whole_numbers(matrix),
            _HOMOTOPIC: lambda: _homotopic_numbers(matrix, self.pairs or ""),
            EXTREME_NAMES: lambda: extreme_numbers(v),
            EIGEN_NAMES: lambda: eigen_numbers(matrix),
            SHARE_NAMES: lambda: share_numbers(matrix),
        }
        return gather(groups, self.only)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only


def _whole_numbers(matrix: Array) -> Array:
    # Traces of powers, no eigenvalue solver: on a busy machine LAPACK's threads stall (2 ms became 99, measured).
    square = matmul(matrix, matrix)
    norms = jnp.stack([root(jnp.sum(matrix * square), 3), root(jnp.sum(square * square), 4)]) / matrix.shape[0]
    return jnp.concatenate([norms, shape_moments(strengths(matrix))[1][None]])


def _homotopic_numbers(matrix: Array, pairs: str) -> Array:
    v = homotopic(matrix, pairs)
    return jnp.stack([v.mean(), jnp.where(v < 0.0, 0.0, v).mean()])


class fc_match(Feature):
    """Correlation of the functional connectivity with a given matrix (`r`).

    Pearson's, over the entries above the diagonal. With the structural connectome as reference it says how much of the
    anatomy shows in the activity; with an empirical functional connectivity it is the usual goodness of fit. 0 when
    either side is constant.

    Args:
        reference: `[node, node]`; only what is above the diagonal is read.
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"`, `"plv"` or `"regressed"`.
    """

    above: ArrayLeaf  # [N (N - 1) / 2]
    n: int = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def __init__(self, reference: ArrayLike, kind: str = "pearson"):
        given = np.asarray(reference, dtype=float)
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError(f"reference is {list(given.shape)}; it must be [node, node]")
        above = given[upper_triangle(given.shape[0])]
        if not np.isfinite(above).all():
            raise ValueError("reference holds NaN or infinite numbers above the diagonal; give finite ones")
        self.above, self.n, self.kind = ArrayLeaf(above), given.shape[0], _kind(kind)

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] != self.n:
            raise ValueError(
                f"the recording has {y.shape[1]} nodes but the reference of fc_match is {[self.n, self.n]}; "
                "both must have the same nodes"
            )
        both = jnp.stack([take_pairs(KINDS[self.kind](y), None), jnp.asarray(self.above.value, y.dtype)], axis=1)
        return fc_matrix(both)[0, 1][None]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("r",)


def _labels(labels: Sequence[object] | np.ndarray) -> tuple[str, ...]:
    found = tuple(map(str, labels))
    if len(found) < 2:
        raise ValueError(f"labels hold {len(found)} nodes; give one label for each of at least 2 nodes")
    return found


class fc_networks(Feature):
    """Mean functional connectivity within and between networks.

    A network of one node has no number within. Names are `visual-visual`, `visual-motor`, networks in the order in
    which they first appear.

    Args:
        labels: the network of each node (or hemisphere, as `hemispheres(80, "blocks")` has it), `[N]`.
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"`, `"plv"` or `"regressed"`.

    >>> fc_networks(labels=["a", "b", "a", "b", "c"]).names()
    ('a-a', 'a-b', 'a-c', 'b-b', 'b-c')
    """

    labels: tuple[str, ...] = eqx.field(static=True, converter=_labels)
    kind: str = option(default="pearson", converter=_kind)

    def __call__(self, y: Array, period: float) -> Array:
        n = len(self.labels)
        if y.shape[1] != n:
            raise ValueError(f"the recording has {y.shape[1]} nodes but labels has {n}; give one label per node")
        v = take_pairs(KINDS[self.kind](y), None)
        return jnp.stack([v[places].mean() for places in self._blocks().values()])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(self._blocks())

    def _blocks(self) -> dict[str, np.ndarray]:
        """Places, among the pairs above the diagonal, of each name."""
        networks = list(dict.fromkeys(self.labels))
        code = np.array([networks.index(label) for label in self.labels])
        pairs = np.sort(code[np.stack(upper_triangle(len(code)))], axis=0)  # [2, P], the lower network first
        found = {
            f"{networks[a]}-{networks[b]}": np.flatnonzero((pairs[0] == a) & (pairs[1] == b))
            for a in range(len(networks))
            for b in range(a, len(networks))
        }
        return {name: places for name, places in found.items() if places.size}


class global_connectivity(NodeFeature):
    """Global connectivity (`gbc`): each node's mean correlation with the others.

    0 if it is constant.

    Args:
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"`, `"plv"` or `"regressed"`.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    Cole, Yarkoni, Repovs, Anticevic & Braver 2012, doi:10.1523/JNEUROSCI.0536-12.2012.
    """

    kind: str = option(default="pearson", converter=_kind)
    pool: str = option(default="spread", converter=pool_of, kw_only=True)

    def per_node(self, y: Array, period: float) -> Array:
        upper_triangle(y.shape[1])
        return strengths(KINDS[self.kind](y))[None]

    def labels(self) -> tuple[str, ...]:
        return ("gbc",)


class fc_eigenvalues(Feature):
    """Largest eigenvalues of the functional connectivity, descending, `[0]`, `[1]`, ...

    Divided by N they are shares of the variance of the standardised signals.

    Args:
        count: how many; no more than there are nodes.
    """

    count: int = option(default=3, converter=functools.partial(_check.count, what="count"))

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] < self.count:
            raise ValueError(
                f"the recording has {y.shape[1]} nodes and so no {self.count} eigenvalues; give count= less"
            )
        return eigenvalues(fc_matrix(y))[: self.count]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(f"[{i}]" for i in range(self.count))


class fc_lagged(Feature):
    """Correlation of the nodes with one another some time later.

    L_ij = corr(y_i(t), y_j(t + lag)) in four numbers: `mean` and `std` (ddof 0) over ordered pairs i != j; `own`, the
    mean of L_ii; `asymmetry`, the root mean square of L_ij - L_ji over pairs, which is 0 on average in equilibrium and
    not where nodes drive one another one way.

    Args:
        lag: ms, rounded to samples; one sample without.
        only: names of the numbers to keep, in this order; all of them without.
    """

    lag: float | None = option(default=None, converter=positive_or_none("lag", 720.0))
    only: tuple[str, ...] = option(default=None, converter=chosen("fc_lagged", "mean", "std", "own", "asymmetry"))

    def __call__(self, y: Array, period: float) -> Array:
        matrix = lagged_matrix(y, lag=self.lag or period, period=period)
        rows, cols = upper_triangle(matrix.shape[0])
        up, down = matrix[rows, cols], matrix[cols, rows]
        mean, std, _, _ = shape_moments(jnp.concatenate([up, down]))
        asymmetry = root(jnp.mean((up - down) ** 2))
        return pick({"mean": mean, "std": std, "own": jnp.diagonal(matrix).mean(), "asymmetry": asymmetry}, self.only)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only
