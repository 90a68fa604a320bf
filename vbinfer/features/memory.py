"""How fast nodes forget: the autocorrelation function and the times read from it."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import positions
from .nodes import NodeFeature, keep_nan, pool_of, ratio, time_centre

_TIMESCALES = ("e_folding", "e_folding_interpolated", "integrated", "first_zero")


def autocorrelations(y: Array, lags: int) -> Array:
    """r(l) = sum_t d(t) d(t + l) / sum_t d(t)^2 of each node for l = 0 ... lags samples, `[lags + 1, N]`.

    d = y - mean_t y; the sum has T - l terms but the divisor is that of l = 0 (the biased estimate, which is a positive
    definite function). 0 for a constant node. By the Fourier transform of the signal and as many zeros.
    """
    d, sd, constant = time_centre(y)
    length = y.shape[0]
    spectrum = jnp.fft.rfft(d / sd[None], n=2 * length, axis=0)
    power = (spectrum.real**2 + spectrum.imag**2) / length
    r = jnp.fft.irfft(power, n=2 * length, axis=0)[: lags + 1].astype(y.dtype)
    return jnp.where(constant[None], 0.0, r)


class timescales(NodeFeature):
    """How fast each node forgets: times read from its autocorrelation function r(l), in ms.

    - `e_folding`: the first lag with r < 1/e, a multiple of the period (gradient 0), and `e_folding_interpolated`, the
      crossing of 1/e on the line between that lag and the one before;
    - `integrated` = period (1 + 2 sum_l r(l)) over l >= 1 up to, and without, the first negative r;
    - `first_zero`: the first lag with r < 0, a multiple of the period (gradient 0).

    A level that is not crossed up to `max_lag` counts as crossed there. 0 for a constant node. Estimates from one
    recording are short when it spans few of these times: r is biased towards 0 and its mean is removed.

    Args:
        max_lag: the longest lag, ms; all lags without.
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    max_lag: float | None = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, max_lag: float | None = None, only: Sequence[str] | None = None, pool: str = "mean"):
        if max_lag is not None and not (math.isfinite(max_lag) and max_lag > 0.0):
            raise ValueError(f"max_lag is {max_lag:g}; give a duration in ms, such as max_lag=20000.0, or None")
        self.max_lag = max_lag
        self.only = positions(_TIMESCALES, only, "timescales")
        self.pool = pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        longest = y.shape[0] - 1
        lags = longest if self.max_lag is None else min(longest, max(1, round(self.max_lag / period)))
        if longest < 1:
            raise ValueError(f"the recording has {y.shape[0]} samples; an autocorrelation needs at least 2")
        r = autocorrelations(y, lags)
        level = 1.0 / math.e
        low, negative = r < level, r < 0.0
        fold = jnp.where(low.any(axis=0), jnp.argmax(low, axis=0), lags)
        zero = jnp.where(negative.any(axis=0), jnp.argmax(negative, axis=0), lags)
        after = jnp.take_along_axis(r, fold[None], axis=0)[0]
        before = jnp.take_along_axis(r, jnp.maximum(fold - 1, 0)[None], axis=0)[0]
        crossed = jnp.minimum(ratio(before - level, before - after), 1.0)
        interpolated = jnp.where(r[0] == 0.0, 0.0, fold - 1 + jnp.where(low.any(axis=0), crossed, 1.0))
        kept = jnp.where(jnp.cumsum(negative, axis=0) == 0, r, 0.0)
        numbers = jnp.stack([fold.astype(y.dtype), interpolated, 2.0 * kept.sum(axis=0) - r[0], zero.astype(y.dtype)])
        numbers = jnp.where((r[:1] == 0.0), 0.0, period * numbers)  # r(0) is 0 for a constant node only
        return keep_nan(numbers, y)[np.array(self.only)]

    def labels(self) -> tuple[str, ...]:
        return tuple(_TIMESCALES[i] for i in self.only)


class acf(NodeFeature):
    """The autocorrelation function of each node at several lags: r(l) as `autocorrelation` has it.

    Args:
        lags: how many lags from one sample on (`lag1`, `lag2`, ...), or durations in ms, rounded to samples (`720ms`).
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> acf(lags=(1000, 5000)).names()
    ('1000ms', '5000ms')
    """

    lags: int | tuple[float, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, lags: int | Sequence[float] | np.ndarray = 5, pool: str = "mean"):
        given = (lags,) if isinstance(lags, int) else tuple(float(lag) for lag in lags)
        if not given or not all(0.0 < lag < math.inf for lag in given):
            raise ValueError(
                f"lags is {lags!r}; give how many samples, or durations in ms such as lags=(720.0, 3600.0)"
            )
        self.lags = lags if isinstance(lags, int) else given
        self.pool = pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        if isinstance(self.lags, int):
            steps = np.arange(1, self.lags + 1)
        else:
            steps = np.array([round(lag / period) for lag in self.lags])
        if steps.max() >= y.shape[0]:
            raise ValueError(
                f"the recording has {y.shape[0]} samples; a lag of {steps.max()} samples needs more than that"
            )
        return autocorrelations(y, int(steps.max()))[steps]

    def labels(self) -> tuple[str, ...]:
        if isinstance(self.lags, int):
            return tuple(f"lag{k}" for k in range(1, self.lags + 1))
        return tuple(f"{lag:g}ms" for lag in self.lags)
