"""Entropy, mutual information and transfer entropy, in nats."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import Feature, centred, lag_ms, positions, samples, shape_moments
from .matrices import fc_matrix, lagged_matrix, upper_triangle
from .nodes import NodeFeature, keep_nan, pool_of, time_centre


def _bins(bins: int) -> int:
    if bins < 2:
        raise ValueError(f"bins is {bins}; give 2 or more")
    return bins


def _occupied(y: Array, bins: int) -> Array:
    """Which of `bins` equal bins from its least to its greatest value each sample lies in, `[T, bins, N]`, as 0 or 1.

    A constant node stays in the first bin.
    """
    y = jax.lax.stop_gradient(y)
    low, high = y.min(axis=0, keepdims=True), y.max(axis=0, keepdims=True)
    width = jnp.where(time_centre(y)[2][None], jnp.inf, high - low)
    place = jnp.clip(jnp.floor((y - low) / width * bins), 0, bins - 1)
    return (place[:, None] == jnp.arange(bins, dtype=y.dtype)[None, :, None]).astype(y.dtype)


def _plogp(p: Array) -> Array:
    return p * jnp.log(jnp.where(p > 0.0, p, 1.0))


_ENTROPY = ("gaussian", "histogram")


class entropy(NodeFeature):
    """The entropy of each node's values, in nats.

    - `gaussian` = log(2 pi e s^2) / 2, the differential entropy of a normal distribution with the node's variance s^2
      (ddof 0); the greatest that any signal of this variance can have. It moves with the unit of the recording, and is
      0 by convention for a constant node, where it would be minus infinity.
    - `histogram` = -sum_b p_b log p_b over equal bins from the least to the greatest value, in [0, log bins]; free of
      unit, 0 for a constant node. Counts: the gradient is 0.

    Blind to the order of the samples.

    Args:
        bins: of the histogram.
        only: names of the numbers to keep, in this order; both without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    bins: int = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, bins: int = 10, only: Sequence[str] | None = None, pool: str = "mean"):
        self.bins = _bins(bins)
        self.only = positions(_ENTROPY, only, "entropy")
        self.pool = pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        _, sd, constant = time_centre(y)
        gaussian = jnp.where(constant, 0.0, jnp.log(sd) + 0.5 * math.log(2.0 * math.pi * math.e))
        shares = _occupied(y, self.bins).mean(axis=0)
        return keep_nan(jnp.stack([gaussian, -_plogp(shares).sum(axis=0)]), y)[np.array(self.only)]

    def labels(self) -> tuple[str, ...]:
        return tuple(_ENTROPY[i] for i in self.only)


def gaussian_information(r: Array) -> Array:
    """-log(1 - r^2) / 2, the information in nats that two normal variables of correlation r share; r^2 is held below 1
    by the machine epsilon."""
    limit = 1.0 - float(jnp.finfo(r.dtype).eps)
    return -0.5 * jnp.log1p(-jnp.where(r**2 > limit, limit, r**2))  # a NaN stays one, as it does not in a minimum


def binned_information(y: ArrayLike, bins: int = 8) -> Array:
    """Mutual information of every pair of nodes from their joint histogram, `[N, N]`, nats; entropies on the diagonal.

    I_ij = sum_ab p_ab log(p_ab / (p_a p_b)) over `bins` equal bins of each node from its least to its greatest value.
    Biased upwards by about (bins - 1)^2 / (2 T). Counts: the gradient is 0. NaN in the row and column of a node with a
    NaN.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    length, n = y.shape
    inside = _occupied(y, _bins(bins)).reshape(length, bins * n)
    joint = jnp.matmul(inside.T, inside, precision=jax.lax.Precision.HIGHEST) / length
    together = _plogp(joint).reshape(bins, n, bins, n).sum(axis=(0, 2))
    alone = _plogp(inside.mean(axis=0)).reshape(bins, n).sum(axis=0)
    hidden = jnp.isnan(y).any(axis=0)
    return jnp.where(hidden[:, None] | hidden[None], jnp.nan, together - alone[:, None] - alone[None])


_MUTUAL = ("gaussian", "gaussian_std", "binned", "binned_std")


class mutual_information(Feature):
    """Mutual information of pairs of nodes, in nats: mean and standard deviation (ddof 0) over pairs.

    `gaussian`, `gaussian_std`: -log(1 - r^2) / 2 with r their correlation, exact for normal signals; `binned`,
    `binned_std`: of `binned_information`, which also sees what correlation does not, and is biased upwards by about
    (bins - 1)^2 / (2 T). Samples count as if independent. 0 with a constant node.

    Args:
        bins: of the histograms.
        only: names of the numbers to keep, in this order; all of them without.
    """

    bins: int = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, bins: int = 8, only: Sequence[str] | None = None):
        self.bins = _bins(bins)
        self.only = positions(_MUTUAL, only, "mutual_information")

    def __call__(self, y: Array, period: float) -> Array:
        pairs = upper_triangle(y.shape[1])
        measures: tuple[Callable[[], Array], ...] = (
            lambda: gaussian_information(fc_matrix(y)),
            lambda: binned_information(y, self.bins),
        )
        found: dict[int, Array] = {}
        for k, measure in enumerate(measures):
            if {2 * k, 2 * k + 1} & set(self.only):
                found[2 * k], found[2 * k + 1] = shape_moments(measure()[pairs])[:2]
        return jnp.stack([found[i] for i in self.only])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(_MUTUAL[i] for i in self.only)


def transfer_entropy_matrix(y: ArrayLike, *, lag: float, period: float) -> Array:
    """Transfer entropy between every two nodes under a linear Gaussian model of order one, `[N, N]`, nats.

    [i, j] = from j to i = log(var(y_i(t + lag) | y_i(t)) / var(y_i(t + lag) | y_i(t), y_j(t))) / 2
           = -log(1 - q^2) / 2,   q the partial correlation of y_i(t + lag) and y_j(t) given y_i(t)

    with the residual variances of least squares over the samples t at which both exist; 0 on the diagonal, with a
    constant node, and where y_j repeats y_i or y_i predicts itself to within rounding. Pairwise: a third node that
    drives both shows as transfer. For Gaussian signals it is half of Granger causality.

    Args:
        y: recording, `[T, N]`.
        lag: ms, rounded to samples, at least one.
        period: between two samples, ms.

    Schreiber 2000, doi:10.1103/PhysRevLett.85.461; Barnett, Barrett & Seth 2009, doi:10.1103/PhysRevLett.103.238701.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    later = lagged_matrix(y, lag=lag, period=period).T  # [i, j] = corr(y_i(t + lag), y_j(t))
    now = y[: -samples(lag, period, "lag")]
    r = fc_matrix(now)
    n = r.shape[0]
    still = centred(now)[2][0]
    kept = ~(jnp.eye(n, dtype=bool) | still[:, None] | still[None])
    own = jnp.diagonal(later)[:, None]
    eps = jnp.finfo(y.dtype).eps
    left, new = 1.0 - own**2, 1.0 - r**2
    kept = kept & ~((left < 64.0 * eps) | (new < 64.0 * eps))  # y_i is a straight line, or y_j repeats y_i
    free = left * new
    above = jnp.where(kept, later - own * r, 0.0)
    return gaussian_information(jnp.where(kept, above / jnp.sqrt(jnp.where(kept, free, 1.0)), 0.0))


_TRANSFER = ("mean", "std", "max", "asymmetry")


class transfer_entropy(Feature):
    """Transfer entropy between nodes, linear Gaussian of order one (`transfer_entropy_matrix`), in nats.

    `mean`, `std` (ddof 0) and `max` over ordered pairs; `asymmetry`, the mean over pairs of the absolute difference
    between the two directions. Biased upwards by about 1 / (2 T). Exact for first-order vector autoregressions of two
    nodes; blind to transfer that is not linear, and fooled by a slow observation such as BOLD.

    Args:
        lag: ms, rounded to samples; one sample without.
        only: names of the numbers to keep, in this order; all of them without.
    """

    lag: float | None = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, lag: float | None = None, only: Sequence[str] | None = None):
        self.lag = lag_ms(lag)
        self.only = positions(_TRANSFER, only, "transfer_entropy")

    def __call__(self, y: Array, period: float) -> Array:
        matrix = transfer_entropy_matrix(y, lag=self.lag or period, period=period)
        rows, cols = upper_triangle(matrix.shape[0])
        up, down = matrix[rows, cols], matrix[cols, rows]
        both = jnp.concatenate([up, down])
        mean, std, _, _ = shape_moments(both)
        numbers = jnp.stack([mean, std, both.max(), jnp.abs(up - down).mean()])
        return jnp.where(jnp.isnan(both).any(), jnp.nan, numbers)[np.array(self.only)]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(_TRANSFER[i] for i in self.only)
