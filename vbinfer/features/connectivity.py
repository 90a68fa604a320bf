"""Functional connectivity: who goes with whom, as a matrix and as a few numbers."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import QUANTILE_NAMES, Feature, centred, quantiles, shape_moments

Pairs = Literal["interleaved", "blocks"]


def fc_matrix(y: ArrayLike) -> Array:
    """Functional connectivity: the Pearson correlation of every pair of nodes over time.

    fc[i, j] = sum_t d_i d_j / sqrt(sum_t d_i^2 sum_t d_j^2),   d = y - mean_t y

    Correlations with a constant node, its diagonal entry included, are 0; a node with a NaN has NaN in its row and column
    and nowhere else.

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


def _pairs_of(mask: object) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows and columns of the pairs that a `[N, N]` mask selects above the diagonal."""
    if mask is None:
        return None
    given = np.asarray(mask)
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        raise ValueError(f"mask is {list(given.shape)}; it must be [node, node], true for the pairs to keep")
    rows, cols = np.nonzero(np.triu(given | given.T if given.dtype == bool else (given != 0) | (given != 0).T, k=1))
    if rows.size < 2:
        raise ValueError(f"mask keeps {rows.size} pairs of nodes; at least 2 are needed")
    return rows, cols


def _take(matrix: Array, pairs: tuple[np.ndarray, np.ndarray] | None) -> Array:
    rows, cols = upper_triangle(matrix.shape[0]) if pairs is None else pairs
    return matrix[rows, cols]


def homotopic(matrix: Array, pairs: Pairs) -> Array:
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


class fc(Feature):
    """Every correlation above the diagonal of the functional connectivity, row by row: N (N - 1) / 2 numbers.

    For embeddings and small networks; `fc_stat` has a width that does not follow the number of nodes.

    Args:
        mask: `[node, node]`, true for the pairs to keep; all of them without.
    """

    pairs: tuple[np.ndarray, np.ndarray] | None

    def __init__(self, mask: ArrayLike | None = None):
        self.pairs = _pairs_of(mask)

    def __call__(self, y: Array, period: float) -> Array:
        return _take(fc_matrix(y), self.pairs)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        if self.pairs is None and n is None:
            raise ValueError("the names of fc depend on the number of nodes; give it, as in names(80)")
        rows, cols = upper_triangle(n or 0) if self.pairs is None else self.pairs
        return tuple(f"[{i},{j}]" for i, j in zip(rows, cols, strict=True))


class fc_stat(Feature):
    """Functional connectivity in twelve numbers that do not depend on the number of nodes.

    Of the correlations above the diagonal: `mean`, `std` (ddof 0), `skew`, `kurtosis` (excess), `q05 q25 q50 q75 q95`;
    of the matrix: `eig1`, `eig2`, its two largest eigenvalues over N (the share of the variance of the standardised signals
    that one and two patterns carry); `strength_std`, the standard deviation over nodes of the mean correlation with the
    other nodes. With `pairs`, also `homotopic`, the mean correlation of mirrored regions.

    Blind to which nodes correlate (see `fc`, `fc_match`), to lags, and to amplitude.

    Args:
        mask: `[node, node]`, true for the pairs that enter `mean` to `q95`; the other numbers use the whole matrix.
        pairs: how mirrored regions follow each other: `"interleaved"` (left, right, left, ...; AAL, AAL2) or `"blocks"`.

    >>> fc_stat().names()[:2]
    ('mean', 'std')
    """

    selected: tuple[np.ndarray, np.ndarray] | None
    pairs: Pairs | None = eqx.field(static=True)

    def __init__(self, mask: ArrayLike | None = None, pairs: Pairs | None = None):
        if pairs not in (None, "interleaved", "blocks"):
            raise ValueError(
                f"pairs is {pairs!r}; write 'interleaved' (left, right, left, ...), 'blocks' or leave it out"
            )
        self.selected = _pairs_of(mask)
        self.pairs = pairs

    def __call__(self, y: Array, period: float) -> Array:
        matrix = fc_matrix(y)
        n = matrix.shape[0]
        v = _take(matrix, self.selected)
        eigenvalues = jnp.linalg.eigvalsh(matrix)  # ascending
        strength = (matrix.sum(axis=0) - jnp.diagonal(matrix)) / (n - 1)
        numbers = [
            jnp.stack(shape_moments(v)),
            quantiles(v),
            eigenvalues[-1:] / n,
            eigenvalues[-2:-1] / n,
            shape_moments(strength)[1][None],
        ]
        if self.pairs is not None:
            numbers.append(homotopic(matrix, self.pairs).mean()[None])
        return jnp.concatenate(numbers)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        names = ("mean", "std", "skew", "kurtosis", *QUANTILE_NAMES, "eig1", "eig2", "strength_std")
        return names if self.pairs is None else (*names, "homotopic")


class fc_match(Feature):
    """Pearson correlation, above the diagonal, of the functional connectivity with a given matrix (`r`).

    With the structural connectome as reference it says how much of the anatomy shows in the activity; with an empirical
    functional connectivity it is the usual goodness of fit. 0 when either side is constant.

    Args:
        reference: `[node, node]`; only what is above the diagonal is read.
    """

    reference: Array

    def __init__(self, reference: ArrayLike):
        given = np.asarray(reference, dtype=float)
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError(f"reference is {list(given.shape)}; it must be [node, node]")
        if not np.isfinite(given[upper_triangle(given.shape[0])]).all():
            raise ValueError("reference holds NaN or infinite numbers above the diagonal; give finite ones")
        self.reference = jnp.asarray(given, jnp.result_type(float))

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] != self.reference.shape[0]:
            raise ValueError(
                f"the recording has {y.shape[1]} nodes but the reference of fc_match is {list(self.reference.shape)}; "
                "both must have the same nodes"
            )
        both = jnp.stack([_take(fc_matrix(y), None), _take(self.reference, None)], axis=1)
        return fc_matrix(both)[0, 1][None]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("r",)
