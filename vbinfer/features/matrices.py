"""Matrices over pairs of nodes, and masks of pairs."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import rankdata
from jaxtyping import Array, ArrayLike

from vbinfer import _check

from .base import samples
from .numeric import centred, check_length

STRETCH = 1024
"""Rows that are multiplied at once. XLA splits a longer sum over as many threads as there are cores, and the last bits
of a draw would depend on them (measured: from about 4,000 rows)."""


def matmul(a: Array, b: Array) -> Array:
    """Matrix product in full precision, on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def products(a: Array, b: Array) -> Array:
    """a' b for `[T, N]` and `[T, M]`: `[N, M]`."""
    if len(a) <= STRETCH:
        return matmul(a.T, b)
    # the remainder first, then one stretch after the other: the order of the sum is that of the data, on any machine
    whole = len(a) // STRETCH * STRETCH
    pieces = (a[:whole].reshape(-1, STRETCH, a.shape[1]), b[:whole].reshape(-1, STRETCH, b.shape[1]))
    rest = matmul(a[whole:].T, b[whole:])
    return jax.lax.scan(lambda total, xy: (total + matmul(xy[0].T, xy[1]), None), rest, pieces)[0]


def fc_matrix(y: ArrayLike) -> Array:
    """Functional connectivity: Pearson correlation of every pair of nodes.

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
    d, ss, constant = centred(check_length(jnp.asarray(y, jnp.result_type(float))))
    z = jnp.where(constant, 0.0, d / jnp.sqrt(ss))
    return products(z, z)


def upper_triangle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of all pairs, row by row."""
    if n < 2:
        raise ValueError(f"functional connectivity needs at least 2 nodes; the recording has {n}")
    return np.triu_indices(n, k=1)


def covariance_matrix(y: ArrayLike) -> Array:
    """Covariance of every pair of nodes (ddof 1), `[N, N]`.

    In squared units of the recording.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    d, _, constant = centred(check_length(y))
    d = jnp.where(constant, 0.0, d)
    return products(d, d) / (y.shape[0] - 1)


def spearman_matrix(y: ArrayLike) -> Array:
    """Spearman's rank correlation, `[N, N]`: `fc_matrix` of the ranks.

    Equal values share the mean of their ranks. Unmoved by outliers and by any increasing distortion of a node's signal.
    Ranks are counts: the gradient is 0.
    """
    y = jax.lax.stop_gradient(jnp.asarray(y, jnp.result_type(float)))
    ranks = rankdata(y, axis=0).astype(y.dtype)
    ranks = jnp.where(centred(check_length(y))[2], 0.0, ranks)
    return fc_matrix(jnp.where(jnp.isnan(y).any(axis=0, keepdims=True), jnp.nan, ranks))


def partial_matrix(y: ArrayLike) -> Array:
    """Partial correlation of pairs, given all other nodes, `[N, N]`.

    p_ij = -P_ij / sqrt(P_ii P_jj) with P the inverse of `fc_matrix`; 1 on the diagonal. A constant node has 0 with all
    and on the diagonal. One NaN makes the whole matrix NaN, since every entry depends on all nodes. The matrix that is
    inverted has N times the machine epsilon added to its diagonal: signals that are exact sums of others would have no
    inverse, and have no meaning here.

    Raises:
        ValueError: the recording has no more samples than nodes + 1, so that no inverse exists.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    length, n = y.shape
    if length <= n + 1:
        raise ValueError(
            f"the recording has {length} samples of {n} nodes; partial correlations need more samples than nodes + 1: "
            f"record at least {n + 2}, or use fc_matrix"
        )
    moving = ~centred(y)[2][0]
    jitter = n * jnp.finfo(y.dtype).eps
    identity = jnp.eye(n, dtype=y.dtype)
    # a constant node has a row of zeros: 1 on its diagonal keeps the matrix invertible and the other nodes as they are
    precision = jnp.linalg.inv(fc_matrix(y) + identity * jnp.where(moving, jitter, 1.0)[None])
    scale = 1.0 / jnp.sqrt(jnp.diagonal(precision))
    partial = jnp.where(identity > 0.0, 1.0, -precision * scale[:, None] * scale[None])
    return jnp.where(moving[:, None] & moving[None], partial, 0.0)


def lagged_matrix(y: ArrayLike, *, lag: float, period: float) -> Array:
    """Correlation of nodes some time apart, `[N, N]`.

    [i, j] = corr_t(y_i(t), y_j(t + lag)): each side centred and scaled over its own part of the recording; not
    symmetric. 0 where either part is constant.

    Args:
        y: recording, `[T, N]`.
        lag: ms, rounded to samples, at least one.
        period: between two samples, ms.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    k = samples(lag, period, "lag")
    if y.shape[0] < k + 3:
        raise ValueError(f"the recording has {y.shape[0]} samples; a lag of {k} samples needs at least {k + 3}")
    (early, early_ss, early_still), (late, late_ss, late_still) = centred(y[:-k]), centred(y[k:])
    early = jnp.where(early_still, 0.0, early / jnp.sqrt(early_ss))
    late = jnp.where(late_still, 0.0, late / jnp.sqrt(late_ss))
    return products(early, late)


def eigenvalues(matrix: Array) -> Array:
    """Eigenvalues of a symmetric matrix, descending, `[N]`.

    With the gradient v v' of each, finite also where some coincide. First derivatives only.
    """
    # eigh's own derivative divides by differences of eigenvalues. Here v is held fixed and lambda = v' M v, whose
    # derivative in M is v v': right to first order, since v' dM v is all that first-order perturbation theory has
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    vectors = jax.lax.stop_gradient(vectors)
    return jnp.sum(vectors * matmul(matrix, vectors), axis=0)[::-1]


class ArrayLeaf(eqx.Module):
    """Array of a feature: traced leaf, hashed by content.

    NumPy's, so that it keeps its precision whatever JAX's is when the feature is made.
    """

    value: np.ndarray

    def __hash__(self) -> int:
        # for jax.jit(summary), which asks for a hash once per program; equality compares the numbers
        return hash((self.value.shape, self.value.tobytes()))


class Mask(eqx.Module):
    """Pairs of nodes that a mask selects, each once."""

    pairs: ArrayLeaf  # [2, P]
    n: int = eqx.field(static=True)

    def __init__(self, mask: ArrayLike):
        keep = np.asarray(mask).astype(bool)
        if keep.ndim != 2 or keep.shape[0] != keep.shape[1]:
            raise ValueError(f"mask is {list(keep.shape)}; it must be [node, node], true for the pairs to keep")
        # either triangle may mark a pair; each is kept once, above the diagonal
        pairs = np.stack(np.nonzero(np.triu(keep | keep.T, k=1)))
        if pairs.shape[1] < 2:
            raise ValueError(f"mask keeps {pairs.shape[1]} pairs of nodes; at least 2 are needed")
        self.pairs, self.n = ArrayLeaf(pairs.astype(np.int32)), keep.shape[0]


def mask_of(mask: "Mask | ArrayLike | None") -> Mask | None:
    """Converter of `mask=`."""
    return mask if mask is None or isinstance(mask, Mask) else Mask(mask)


def take_pairs(matrix: Array, mask: Mask | None) -> Array:
    """Entries above the diagonal, or those of the mask."""
    if mask is None:
        return matrix[upper_triangle(matrix.shape[0])]
    if mask.n != matrix.shape[0]:
        raise ValueError(f"the recording has {matrix.shape[0]} nodes but mask is {[mask.n, mask.n]}; both must agree")
    return matrix[mask.pairs.value[0], mask.pairs.value[1]]


def mirrored(n: int, pairs: str) -> tuple[np.ndarray, np.ndarray]:
    """Left and right nodes of mirrored pairs.

    Both are `[N // 2]`.

    Args:
        n: number of nodes, even.
        pairs: `"interleaved"` for left, right, left, right, ... (AAL, AAL2); `"blocks"` for all left, then all right.
    """
    ordering(pairs)
    if n % 2:
        raise ValueError(f"homotopic pairs need an even number of nodes; the recording has {n}; leave out pairs=")
    left = np.arange(0, n, 2) if pairs == "interleaved" else np.arange(n // 2)
    return left, left + (1 if pairs == "interleaved" else n // 2)


def ordering(pairs: str) -> str:
    """`pairs`, if it is an ordering of the hemispheres."""
    return _check.one_of(pairs, "pairs", ("interleaved", "blocks"))


def homotopic(matrix: Array, pairs: str) -> Array:
    """Entries between mirrored nodes, `[N // 2]`."""
    return matrix[mirrored(matrix.shape[0], pairs)]


def hemispheres(n: int, pairs: str) -> tuple[str, ...]:
    """Hemisphere of each of `n` nodes, `"left"` or `"right"`.

    Labels for `within_mask` and `between_mask`.

    Args:
        n: number of nodes, even.
        pairs: `"interleaved"` for left, right, left, right, ... (AAL, AAL2); `"blocks"` for all left, then all right.

    >>> hemispheres(4, "blocks")
    ('left', 'left', 'right', 'right')
    """
    left, _ = mirrored(_check.count(n, "n", 80), pairs)
    return tuple("left" if node in left else "right" for node in range(n))


def homotopic_mask(n: int, pairs: str) -> np.ndarray:
    """Mask `[N, N]` of the pairs of mirrored nodes."""
    n = _check.count(n, "n", 80)
    mask = np.zeros((n, n), dtype=bool)
    mask[mirrored(n, pairs)] = True
    return mask | mask.T


def within_mask(labels: Sequence[object] | np.ndarray) -> np.ndarray:
    """Mask `[N, N]` of pairs with the same label.

    Labels of hemispheres or networks; the diagonal is left out.

    >>> int(within_mask(hemispheres(4, "blocks")).sum())
    4
    """
    return ~between_mask(labels) & ~np.eye(len(labels), dtype=bool)


def between_mask(labels: Sequence[object] | np.ndarray) -> np.ndarray:
    """Mask `[N, N]` of pairs with different labels."""
    return np.array([[a != b for b in labels] for a in labels])
