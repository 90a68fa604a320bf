"""Arithmetic that stays finite, gradients too, at constant nodes."""

import math

import jax.numpy as jnp
from jaxtyping import Array

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILE_NAMES = ("q05", "q25", "q50", "q75", "q95")


def check_length(y: Array) -> Array:
    """A recording `[T, N]` that has fluctuations.

    Raises:
        ValueError: fewer than two samples.
    """
    if y.shape[0] < 2:
        raise ValueError(
            f"the recording has {y.shape[0]} sample{'s' * (y.shape[0] != 1)}; a feature needs at least 2: simulate or "
            "record for longer than two periods after the transient"
        )
    return y


def centred(y: Array) -> tuple[Array, Array, Array]:
    """Deviations from the mean over time, and constant nodes.

    Args:
        y: `[T, N]`.

    Returns:
        `d[T, N]`; `ss[1, N]`, replaced by one where the node is constant, so that a division or a root and their
        gradients stay finite; `constant[1, N]`. A node is constant when its spread is within the rounding of its level.
    """
    d = y - y[:1]  # exactly zero for a constant node, whatever its level
    d = d - d.mean(axis=0, keepdims=True)
    ss = jnp.sum(d * d, axis=0, keepdims=True)
    rounding = 8.0 * jnp.finfo(y.dtype).eps * jnp.abs(y[:1])
    constant = ss <= y.shape[0] * rounding**2
    # guarded before the division, not after: the gradient of a branch that `where` drops still runs, and 0 * inf is NaN
    return d, jnp.where(constant, 1.0, ss), constant


def time_centre(y: Array) -> tuple[Array, Array, Array]:
    """`centred` as rows.

    Returns:
        Deviations `[T, N]`, standard deviation `[N]` (1 if constant), constant `[N]`.
    """
    d, ss, constant = centred(check_length(y))
    return d, jnp.sqrt(ss / y.shape[0])[0], constant[0]


def standardised(y: Array) -> Array:
    """Standardised signals `[T, N]`; 0 for a constant node."""
    d, sd, constant = time_centre(y)
    return jnp.where(constant[None], 0.0, d / sd[None])


def shape_moments(v: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, sd (ddof 0), skewness, excess kurtosis of a vector.

    The last three are 0 if it is constant.
    """
    d, ss, constant = centred(v[:, None])
    size = v.shape[0]
    u = d / jnp.sqrt(ss / size)
    std = jnp.where(constant, 0.0, jnp.sqrt(ss / size))[0, 0]
    skew = jnp.where(constant[0, 0], 0.0, jnp.mean(u**3))
    kurtosis = jnp.where(constant[0, 0], 0.0, jnp.mean(u**4) - 3.0)
    return v.mean(), std, skew, kurtosis


def quantiles(v: Array) -> Array:
    """The five `QUANTILES` of a vector.

    NaN if any entry is. Linear between order statistics, NumPy's default.
    """
    return jnp.quantile(v, jnp.asarray(QUANTILES, v.dtype))


def time_quantile(y: Array, q: float) -> Array:
    """Quantile over time of each node, `[N]`.

    NaN for a node with a NaN.
    """
    ordered = jnp.sort(y, axis=0)
    place = q * (y.shape[0] - 1)
    below = math.floor(place)
    above = min(below + 1, y.shape[0] - 1)
    value = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return keep_nan(value[None], y)[0]


def keep_nan(numbers: Array, y: Array) -> Array:
    """Numbers `[K, N]`, NaN where a node's samples hold one."""
    # comparisons and counts would hide it
    return jnp.where(jnp.isnan(y).any(axis=0, keepdims=True), jnp.nan, numbers)


def root(value: Array, k: int = 2) -> Array:
    """The k-th root, with value and gradient 0 at 0."""
    zero = value <= 0.0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, value) ** (1.0 / k))


def ratio(above: Array, below: Array) -> Array:
    """Quotient, with value and gradient 0 over 0."""
    below = jnp.broadcast_to(below, above.shape)
    zero = below == 0.0
    return jnp.where(zero, 0.0, above / jnp.where(zero, 1.0, below))
