"""Entropy, mutual information and transfer entropy, in nats."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vbinfer import _check

from .base import Feature, NodeFeature, chosen, gather, option, pick, positive_or_none, samples
from .matrices import fc_matrix, lagged_matrix, matmul, upper_triangle
from .numeric import centred, keep_nan, shape_moments, time_centre

_bins = functools.partial(_check.count, what="bins", example=8, least=2)


def _occupied(y: Array, bins: int) -> Array:
    """Samples in equal bins, `[T, bins, N]`, 0 or 1.

    From the node's least to its greatest value. A constant node stays in the first bin.
    """
    y = jax.lax.stop_gradient(y)
    low, high = y.min(axis=0, keepdims=True), y.max(axis=0, keepdims=True)
    # an infinite width puts all samples of a constant node into bin 0
    width = jnp.where(time_centre(y)[2][None], jnp.inf, high - low)
    place = jnp.clip(jnp.floor((y - low) / width * bins), 0, bins - 1)
    return (place[:, None] == jnp.arange(bins, dtype=y.dtype)[None, :, None]).astype(y.dtype)


def _plogp(p: Array) -> Array:
    # p log p is 0 at p = 0
    return p * jnp.log(jnp.where(p > 0.0, p, 1.0))


class entropy(NodeFeature):
    """Entropy of each node's values, in nats.

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

    bins: int = option(default=10, converter=_bins)
    only: tuple[str, ...] = option(default=None, converter=chosen("entropy", "gaussian", "histogram"))

    def per_node(self, y: Array, period: float) -> Array:
        _, sd, constant = time_centre(y)
        gaussian = jnp.where(constant, 0.0, jnp.log(sd) + 0.5 * math.log(2.0 * math.pi * math.e))
        shares = _occupied(y, self.bins).mean(axis=0)
        return keep_nan(pick({"gaussian": gaussian, "histogram": -_plogp(shares).sum(axis=0)}, self.only), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


def gaussian_information(r: Array) -> Array:
    """Nats shared by normal variables: -log(1 - r^2) / 2.

    r^2 is held below 1 by the machine epsilon.
    """
    limit = 1.0 - float(jnp.finfo(r.dtype).eps)
    return -0.5 * jnp.log1p(-jnp.where(r**2 > limit, limit, r**2))  # a NaN stays one, as it does not in a minimum


def binned_information(y: ArrayLike, bins: int = 8) -> Array:
    """Mutual information of pairs by joint histograms, `[N, N]`, nats.

    Entropies on the diagonal.

    I_ij = sum_ab p_ab log(p_ab / (p_a p_b)) over `bins` equal bins of each node from its least to its greatest value.
    Biased upwards by about (bins - 1)^2 / (2 T). Counts: the gradient is 0. NaN in the row and column of a node with a
    NaN.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    length, n = y.shape
    # one column per (bin, node): a single product counts every pair of bins of every pair of nodes, [bins N, bins N]
    inside = _occupied(y, _bins(bins)).reshape(length, bins * n)
    joint = matmul(inside.T, inside) / length
    together = _plogp(joint).reshape(bins, n, bins, n).sum(axis=(0, 2))
    alone = _plogp(inside.mean(axis=0)).reshape(bins, n).sum(axis=0)
    hidden = jnp.isnan(y).any(axis=0)
    return jnp.where(hidden[:, None] | hidden[None], jnp.nan, together - alone[:, None] - alone[None])


class mutual_information(Feature):
    """Mutual information of pairs of nodes, in nats.

    Mean and standard deviation (ddof 0) over pairs: `gaussian`, `gaussian_std`: -log(1 - r^2) / 2 with r their
    correlation, exact for normal signals; `binned`, `binned_std`: of `binned_information`, which also sees what
    correlation does not, and is biased upwards by about (bins - 1)^2 / (2 T). Samples count as if independent. 0 with a
    constant node.

    Args:
        bins: of the histograms.
        only: names of the numbers to keep, in this order; all of them without.
    """

    bins: int = option(default=8, converter=_bins)
    only: tuple[str, ...] = option(
        default=None, converter=chosen("mutual_information", "gaussian", "gaussian_std", "binned", "binned_std")
    )

    def __call__(self, y: Array, period: float) -> Array:
        pairs = upper_triangle(y.shape[1])
        over_pairs = lambda matrix: jnp.stack(shape_moments(matrix[pairs])[:2])  # noqa: E731
        groups: dict[tuple[str, ...], Callable[[], Array]] = {
            ("gaussian", "gaussian_std"): lambda: over_pairs(gaussian_information(fc_matrix(y))),
            ("binned", "binned_std"): lambda: over_pairs(binned_information(y, self.bins)),
        }
        return gather(groups, self.only)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only


def transfer_entropy_matrix(y: ArrayLike, *, lag: float, period: float) -> Array:
    """Transfer entropy between every two nodes, `[N, N]`, nats.

    Under a linear Gaussian model of order one,

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
    # partial correlation from three correlations: a = later_ij, b = own_i (of y_i with its past), r = now_ij:
    # q = (a - b r) / sqrt((1 - b^2) (1 - r^2))
    own = jnp.diagonal(later)[:, None]
    eps = jnp.finfo(y.dtype).eps
    left, new = 1.0 - own**2, 1.0 - r**2
    kept = kept & ~((left < 64.0 * eps) | (new < 64.0 * eps))  # y_i is a straight line, or y_j repeats y_i
    free = left * new
    above = jnp.where(kept, later - own * r, 0.0)
    return gaussian_information(jnp.where(kept, above / jnp.sqrt(jnp.where(kept, free, 1.0)), 0.0))


class transfer_entropy(Feature):
    """Transfer entropy between nodes (`transfer_entropy_matrix`), in nats.

    `mean`, `std` (ddof 0) and `max` over ordered pairs; `asymmetry`, the mean over pairs of the absolute difference
    between the two directions. Biased upwards by about 1 / (2 T). Exact for first-order vector autoregressions of two
    nodes; blind to transfer that is not linear, and fooled by a slow observation such as BOLD.

    Args:
        lag: ms, rounded to samples; one sample without.
        only: names of the numbers to keep, in this order; all of them without.
    """

    lag: float | None = option(default=None, converter=positive_or_none("lag", 720.0))
    only: tuple[str, ...] = option(
        default=None, converter=chosen("transfer_entropy", "mean", "std", "max", "asymmetry")
    )

    def __call__(self, y: Array, period: float) -> Array:
        matrix = transfer_entropy_matrix(y, lag=self.lag or period, period=period)
        rows, cols = upper_triangle(matrix.shape[0])
        up, down = matrix[rows, cols], matrix[cols, rows]
        both = jnp.concatenate([up, down])
        mean, std, _, _ = shape_moments(both)
        numbers = {"mean": mean, "std": std, "max": both.max(), "asymmetry": jnp.abs(up - down).mean()}
        return jnp.where(jnp.isnan(both).any(), jnp.nan, pick(numbers, self.only))

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only
