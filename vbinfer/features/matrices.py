"""Matrices `[N, N]` of how every pair of nodes goes together."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import rankdata
from jaxtyping import Array, ArrayLike

from .base import centred, samples

STRETCH = 1024
"""Rows that are multiplied at once. XLA splits a longer sum over as many threads as there are cores, and the last bits
of a draw would depend on them (measured: from about 4,000 rows)."""


def products(a: Array, b: Array) -> Array:
    """sum_t a_ti b_tj: `[T, N]` and `[T, M]` to `[N, M]`."""
    multiply = lambda x, y: jnp.matmul(x.T, y, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
    if len(a) <= STRETCH:
        return multiply(a, b)
    whole = len(a) // STRETCH * STRETCH
    pieces = (a[:whole].reshape(-1, STRETCH, a.shape[1]), b[:whole].reshape(-1, STRETCH, b.shape[1]))
    rest = multiply(a[whole:], b[whole:])
    return jax.lax.scan(lambda total, xy: (total + multiply(*xy), None), rest, pieces)[0]


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
    return products(z, z)


def upper_triangle(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs of `n` nodes, row by row."""
    if n < 2:
        raise ValueError(f"functional connectivity needs at least 2 nodes; the recording has {n}")
    return np.triu_indices(n, k=1)


def covariance_matrix(y: ArrayLike) -> Array:
    """The covariance of every pair of nodes over time (ddof 1), `[N, N]`, in squared units of the recording."""
    y = jnp.asarray(y, jnp.result_type(float))
    d, _, constant = centred(y)
    d = jnp.where(constant, 0.0, d)
    return products(d, d) / (y.shape[0] - 1)


def spearman_matrix(y: ArrayLike) -> Array:
    """Spearman's rank correlation of every pair of nodes over time, `[N, N]`: `fc_matrix` of the ranks.

    Equal values share the mean of their ranks. Unmoved by outliers and by any increasing distortion of a node's signal.
    Ranks are counts: the gradient is 0.
    """
    y = jax.lax.stop_gradient(jnp.asarray(y, jnp.result_type(float)))
    ranks = rankdata(y, axis=0).astype(y.dtype)
    ranks = jnp.where(centred(y)[2], 0.0, ranks)
    return fc_matrix(jnp.where(jnp.isnan(y).any(axis=0, keepdims=True), jnp.nan, ranks))


def partial_matrix(y: ArrayLike) -> Array:
    """Partial correlation of every pair of nodes, all the others given, `[N, N]`.

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
    precision = jnp.linalg.inv(fc_matrix(y) + identity * jnp.where(moving, jitter, 1.0)[None])
    scale = 1.0 / jnp.sqrt(jnp.diagonal(precision))
    partial = jnp.where(identity > 0.0, 1.0, -precision * scale[:, None] * scale[None])
    return jnp.where(moving[:, None] & moving[None], partial, 0.0)


def lagged_matrix(y: ArrayLike, *, lag: float, period: float) -> Array:
    """Correlation of each node with every other some time later, `[N, N]`, not symmetric.

    [i, j] = corr_t(y_i(t), y_j(t + lag)): each side centred and scaled over its own part of the recording. 0 where
    either part is constant.

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
    """Eigenvalues of a symmetric matrix, descending, `[N]`, with the gradient v v' of each, finite also where some
    coincide. First derivatives only."""
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    vectors = jax.lax.stop_gradient(vectors)
    return jnp.sum(vectors * jnp.matmul(matrix, vectors, precision=jax.lax.Precision.HIGHEST), axis=0)[::-1]
