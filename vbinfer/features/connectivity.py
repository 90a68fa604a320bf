"""Functional connectivity: who goes with whom, as a matrix and as a few numbers."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import QUANTILE_NAMES, Feature, centred, positions, quantiles, shape_moments


def fc_matrix(y: ArrayLike) -> Array:
    """Functional connectivity: the Pearson correlation of every pair of nodes over time.

    fc[i, j] = sum_t d_i d_j / sqrt(sum_t d_i^2 sum_t d_j^2),   d = y - mean_t y

    Correlations with a constant node, its diagonal entry included, are 0; a node with a NaN has NaN in its row and
    column and nowhere else.

    Args:
        y: recording, `[T, N]`.

    Returns:
        `[N, N]`, symmetric.

    >>> import numpy as np
    >>> t = np.arange(8.0)
    >>> np.asarray(fc_matrix(np.stack([t, 5.0 - 2.0 * t, np.ones(8)], axis=1))).round(4) + 0.0
    array([[ 1., -1.,  0.],
           [-1.,  1.,  0.],
           [ 0.,  0.,  0.]], dtype=float32)
    """
    d, ss, constant = centred(jnp.asarray(y, jnp.result_type(float)))
    z = jnp.where(constant, 0.0, d / jnp.sqrt(ss))
    return jnp.matmul(z.T, z, precision=jax.lax.Precision.HIGHEST)


def upper_triangle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs of `n` nodes, row by row."""
    if n < 2:
        raise ValueError(f"functional connectivity needs at least 2 nodes; the recording has {n}")
    return np.triu_indices(n, k=1)


class Mask(eqx.Module):
    """The pairs of nodes that a `[node, node]` mask selects, each once, as numbers: features stay hashable."""

    rows: tuple[int, ...] = eqx.field(static=True)
    cols: tuple[int, ...] = eqx.field(static=True)
    n: int = eqx.field(static=True)

    def __init__(self, mask: ArrayLike):
        keep = np.asarray(mask).astype(bool)
        if keep.ndim != 2 or keep.shape[0] != keep.shape[1]:
            raise ValueError(f"mask is {list(keep.shape)}; it must be [node, node], true for the pairs to keep")
        rows, cols = np.nonzero(np.triu(keep | keep.T, k=1))
        if rows.size < 2:
            raise ValueError(f"mask keeps {rows.size} pairs of nodes; at least 2 are needed")
        self.rows, self.cols, self.n = tuple(rows.tolist()), tuple(cols.tolist()), keep.shape[0]


def _take(matrix: Array, mask: Mask | None) -> Array:
    if mask is None:
        return matrix[upper_triangle(matrix.shape[0])]
    if mask.n != matrix.shape[0]:
        raise ValueError(f"the recording has {matrix.shape[0]} nodes but mask is {[mask.n, mask.n]}; both must agree")
    return matrix[np.array(mask.rows), np.array(mask.cols)]


def homotopic(matrix: Array, pairs: str) -> Array:
    """The entries between a node and its mirror image in the other hemisphere, `[N // 2]`.

    Args:
        matrix: `[N, N]`.
        pairs: `"interleaved"` for left, right, left, right, ... (AAL, AAL2); `"blocks"` for all left, then all right.
    """
    n = matrix.shape[0]
    if n % 2:
        raise ValueError(f"homotopic pairs need an even number of nodes; the recording has {n}; leave out pairs=")
    left = np.arange(0, n, 2) if pairs == "interleaved" else np.arange(n // 2)
    return matrix[left, left + (1 if pairs == "interleaved" else n // 2)]


def _root(value: Array, k: int) -> Array:
    """The k-th root of a number >= 0, with gradient 0 at 0 (a recording of constant nodes)."""
    zero = value <= 0.0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, value) ** (1.0 / k))


class fc(Feature):
    """Every correlation above the diagonal of the functional connectivity, row by row: N (N - 1) / 2 numbers.

    For embeddings and small networks; `fc_stat` has a width that does not follow the number of nodes.

    Args:
        mask: `[node, node]`, true for the pairs to keep; all of them without.
    """

    mask: Mask | None

    def __init__(self, mask: ArrayLike | None = None):
        self.mask = None if mask is None else Mask(mask)

    def __call__(self, y: Array, period: float) -> Array:
        return _take(fc_matrix(y), self.mask)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        if self.mask is None and n is None:
            raise ValueError("the names of fc depend on the number of nodes; give it, as in names(80)")
        rows, cols = upper_triangle(n or 0) if self.mask is None else (self.mask.rows, self.mask.cols)
        return tuple(f"[{i},{j}]" for i, j in zip(rows, cols, strict=True))


class fc_stat(Feature):
    """Functional connectivity in twelve numbers that do not depend on the number of nodes.

    Of the correlations above the diagonal: `mean`, `std` (ddof 0), `skew`, `kurtosis` (excess), `q05 q25 q50 q75 q95`;
    of the matrix: `norm3` and `norm4`, with norm_k = (sum_i lambda_i^k)^(1/k) / N over its eigenvalues lambda (when one
    pattern prevails, both are close to lambda_1 / N, the share of the variance of the standardised signals that it
    carries); `strength_std`, the standard deviation over nodes of the mean correlation with the other nodes.
    With `pairs`, also `homotopic`, the mean correlation of mirrored regions.

    Blind to which nodes correlate (see `fc`, `fc_match`), to lags, and to amplitude.

    Args:
        mask: `[node, node]`, true for the pairs that enter `mean` to `q95`; the other numbers use the whole matrix.
        pairs: how mirrored regions are ordered: `"interleaved"` (left, right, left, ...; AAL, AAL2) or `"blocks"`.
        only: names of the numbers to keep, in this order; all of them without.

    >>> fc_stat().names()[:2]
    ('mean', 'std')
    """

    mask: Mask | None
    pairs: str | None = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, mask: ArrayLike | None = None, pairs: str | None = None, only: Sequence[str] | None = None):
        if pairs not in (None, "interleaved", "blocks"):
            raise ValueError(
                f"pairs is {pairs!r}; write 'interleaved' (left, right, left, ...), 'blocks' or leave it out"
            )
        self.mask = None if mask is None else Mask(mask)
        self.pairs = pairs
        self.only = positions(self._all(), only, "fc_stat")

    def __call__(self, y: Array, period: float) -> Array:
        matrix = fc_matrix(y)
        n = matrix.shape[0]
        v = _take(matrix, self.mask)
        # Traces of powers, no eigenvalue solver: on a busy machine LAPACK's threads stall (2 ms became 99, measured).
        square = jnp.matmul(matrix, matrix, precision=jax.lax.Precision.HIGHEST)
        strength = (matrix.sum(axis=0) - jnp.diagonal(matrix)) / (n - 1)
        numbers = [
            jnp.stack(shape_moments(v)),
            quantiles(v),
            jnp.stack([_root(jnp.sum(matrix * square), 3), _root(jnp.sum(square * square), 4)]) / n,
            shape_moments(strength)[1][None],
        ]
        if self.pairs is not None:
            numbers.append(homotopic(matrix, self.pairs).mean()[None])
        return jnp.concatenate(numbers)[np.array(self.only)]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(self._all()[i] for i in self.only)

    def _all(self) -> tuple[str, ...]:
        names = ("mean", "std", "skew", "kurtosis", *QUANTILE_NAMES, "norm3", "norm4", "strength_std")
        return names if self.pairs is None else (*names, "homotopic")


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
        both = jnp.stack([_take(fc_matrix(y), None), jnp.asarray(self.above, y.dtype)], axis=1)
        return fc_matrix(both)[0, 1][None]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("r",)
