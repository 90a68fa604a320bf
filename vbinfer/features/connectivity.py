"""Functional connectivity: who goes with whom, as every pair and as a few numbers."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vbinfer._param import did_you_mean

from .base import QUANTILE_NAMES, Feature, positions, quantiles, shape_moments
from .masks import Mask, homotopic, ordering_of, take_pairs
from .matrices import (
    covariance_matrix,
    eigenvalues,
    fc_matrix,
    partial_matrix,
    spearman_matrix,
    upper_triangle,
)
from .nodes import ratio, root
from .phase import plv_matrix

KINDS: dict[str, Callable[[ArrayLike], Array]] = {
    "pearson": fc_matrix,
    "spearman": spearman_matrix,
    "partial": partial_matrix,
    "covariance": covariance_matrix,
    "plv": plv_matrix,
}


def kind_of(kind: str) -> str:
    """`kind`, if it is one of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; write one of {', '.join(map(repr, KINDS))}. {did_you_mean(kind, KINDS)}")
    return kind


EIGEN_NAMES = ("eig_sum", "eig_max", "eig_min", "eig_mean", "eig_std", "eig_skew", "eig_kurtosis")
SHARE_NAMES = ("pca1", "pca2", "pca3", "pca_std")
EXTREME_NAMES = ("min", "max", "sum", "abs_sum")
EXTRA_NAMES = (*EXTREME_NAMES, *EIGEN_NAMES, *SHARE_NAMES)


def extreme_numbers(v: Array) -> Array:
    """Of the entries above the diagonal: `EXTREME_NAMES`; `abs_sum` counts both triangles."""
    numbers = jnp.stack([v.min(), v.max(), v.sum(), 2.0 * jnp.abs(v).sum()])
    return jnp.where(jnp.isnan(v).any(), jnp.nan, numbers)  # compiled, a maximum may lose a NaN


def eigen_numbers(matrix: Array) -> Array:
    """Of all the eigenvalues of a symmetric matrix: `EIGEN_NAMES`, the last four as `shape_moments` has them."""
    found = eigenvalues(matrix)
    return jnp.concatenate([jnp.stack([found.sum(), found[0], found[-1]]), jnp.stack(shape_moments(found))])


def share_numbers(matrix: Array) -> Array:
    """Of the principal components of the rows of a matrix: `SHARE_NAMES`.

    The share of the variance of the first three (0 where there are fewer), and the standard deviation of all entries of
    their scores. Scores have mean 0, and their sign is arbitrary: no more of them is a number of the matrix.
    """
    n = matrix.shape[0]
    rows = matrix - matrix.mean(axis=0, keepdims=True)
    found = eigenvalues(jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST))
    three = jnp.pad(found[:3], (0, max(0, 3 - n)))
    return jnp.concatenate([ratio(three, found.sum() + 0.0 * three), root(three.sum() / (3 * n))[None]])


class fc(Feature):
    """Every correlation above the diagonal of the functional connectivity, row by row: N (N - 1) / 2 numbers.

    For embeddings and small networks; `fc_stat` has a width that does not follow the number of nodes.

    Args:
        mask: `[node, node]`, true for the pairs to keep; all of them without.
        kind: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"` (ddof 1) or `"plv"` (phase locking): the entries of
            `fc_matrix`, `spearman_matrix`, `partial_matrix`, `covariance_matrix` or `plv_matrix`.
        fisher: give atanh(r), whose error does not depend on r; |r| is held below 1 by the machine epsilon.
    """

    mask: Mask | None
    kind: str = eqx.field(static=True)
    fisher: bool = eqx.field(static=True)

    def __init__(self, mask: ArrayLike | None = None, kind: str = "pearson", fisher: bool = False):
        self.mask = None if mask is None else Mask(mask)
        self.kind, self.fisher = kind_of(kind), fisher
        if fisher and kind == "covariance":
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
        rows, cols = upper_triangle(n or 0) if self.mask is None else (self.mask.rows, self.mask.cols)
        return tuple(f"[{i},{j}]" for i, j in zip(rows, cols, strict=True))


class fc_stat(Feature):
    """Functional connectivity in twelve numbers that do not depend on the number of nodes, and more by name.

    Of the correlations above the diagonal: `mean`, `std` (ddof 0), `skew`, `kurtosis` (excess), `q05 q25 q50 q75 q95`;
    of the matrix: `norm3` and `norm4`, with norm_k = (sum_i lambda_i^k)^(1/k) / N over its eigenvalues lambda (when one
    pattern prevails, both are close to lambda_1 / N, the share of the variance of the standardised signals that it
    carries; 0 where the sum is negative); `strength_std`, the standard deviation over nodes of the mean correlation
    with the other nodes. With `pairs`, also `homotopic`, the mean correlation of mirrored regions.

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
        kind: what stands for the correlation: `"pearson"`, `"spearman"`, `"partial"`, `"covariance"` or `"plv"`.

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
        self.mask = None if mask is None else Mask(mask)
        self.pairs = None if pairs is None else ordering_of(pairs)
        self.kind = kind_of(kind)
        usual = (*_SHAPE, *_WHOLE, *(() if pairs is None else ("homotopic",)))
        every = (*usual, *EXTRA_NAMES, *(() if pairs is None else ("homotopic_positive",)))
        self.only = usual if only is None else tuple(every[i] for i in positions(every, only, "fc_stat"))

    def __call__(self, y: Array, period: float) -> Array:
        matrix = KINDS[self.kind](y)
        v = take_pairs(matrix, self.mask)
        groups: dict[tuple[str, ...], Callable[[], Array]] = {
            _SHAPE: lambda: jnp.concatenate([jnp.stack(shape_moments(v)), quantiles(v)]),
            _WHOLE: lambda: _whole_numbers(matrix),
            ("homotopic", "homotopic_positive"): lambda: _homotopic_numbers(matrix, self.pairs or ""),
            EXTREME_NAMES: lambda: extreme_numbers(v),
            EIGEN_NAMES: lambda: eigen_numbers(matrix),
            SHARE_NAMES: lambda: share_numbers(matrix),
        }
        return gather(groups, self.only)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only


def gather(groups: dict[tuple[str, ...], Callable[[], Array]], only: tuple[str, ...]) -> Array:
    """The numbers that `only` names, in its order, computing no group of which none is asked for."""
    found: dict[str, Array] = {}
    for names, numbers in groups.items():
        if set(names) & set(only):
            found.update(zip(names, numbers(), strict=True))
    return jnp.stack([found[name] for name in only])


_SHAPE = ("mean", "std", "skew", "kurtosis", *QUANTILE_NAMES)
_WHOLE = ("norm3", "norm4", "strength_std")


def strengths(matrix: Array) -> Array:
    """The mean of each row without the diagonal, `[N]`."""
    return (matrix.sum(axis=0) - jnp.diagonal(matrix)) / (matrix.shape[0] - 1)


def _whole_numbers(matrix: Array) -> Array:
    # Traces of powers, no eigenvalue solver: on a busy machine LAPACK's threads stall (2 ms became 99, measured).
    square = jnp.matmul(matrix, matrix, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.stack([root(jnp.sum(matrix * square), 3), root(jnp.sum(square * square), 4)]) / matrix.shape[0]
    return jnp.concatenate([norms, shape_moments(strengths(matrix))[1][None]])


def _homotopic_numbers(matrix: Array, pairs: str) -> Array:
    mirrored = homotopic(matrix, pairs)
    return jnp.stack([mirrored.mean(), jnp.where(mirrored < 0.0, 0.0, mirrored).mean()])


class fc_match(Feature):
    """Pearson correlation, above the diagonal, of the functional connectivity with a given matrix (`r`).

    With the structural connectome as reference it says how much of the anatomy shows in the activity; with an empirical
    functional connectivity it is the usual goodness of fit. 0 when either side is constant.

    Args:
        reference: `[node, node]`; only what is above the diagonal is read.
    """

    above: tuple[float, ...] = eqx.field(static=True)
    n: int = eqx.field(static=True)

    def __init__(self, reference: ArrayLike):
        given = np.asarray(reference, dtype=float)
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError(f"reference is {list(given.shape)}; it must be [node, node]")
        above = given[upper_triangle(given.shape[0])]
        if not np.isfinite(above).all():
            raise ValueError("reference holds NaN or infinite numbers above the diagonal; give finite ones")
        self.above, self.n = tuple(above.tolist()), given.shape[0]

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] != self.n:
            raise ValueError(
                f"the recording has {y.shape[1]} nodes but the reference of fc_match is {[self.n, self.n]}; "
                "both must have the same nodes"
            )
        both = jnp.stack([take_pairs(fc_matrix(y), None), jnp.asarray(self.above, y.dtype)], axis=1)
        return fc_matrix(both)[0, 1][None]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("r",)
