"""Level, spread and memory of each node's time course."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import Feature, NodeFeature, chosen, option, pick, positive_or_none, samples
from .numeric import QUANTILE_NAMES, centred, check_length, keep_nan, quantiles, ratio, shape_moments, time_centre


class moments(Feature):
    """Level, amplitude and shape of the signals, in six numbers.

    Each node's mean, standard deviation (ddof 0), skewness and excess kurtosis over time, averaged over nodes: `mean`,
    `std`, `skew`, `kurtosis`; and the standard deviation over nodes of the first two: `mean_spread`, `std_spread`.
    A constant node counts as 0 in `std`, `skew` and `kurtosis`.

    Level and amplitude of measured BOLD are in arbitrary units: use this where simulation and recording share units.
    """

    def __call__(self, y: Array, period: float) -> Array:
        mean, std, skew, kurtosis = jax.vmap(shape_moments, in_axes=1)(check_length(y))
        spread = [shape_moments(values)[1] for values in (mean, std)]
        return jnp.stack([mean.mean(), spread[0], std.mean(), spread[1], skew.mean(), kurtosis.mean()])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("mean", "mean_spread", "std", "std_spread", "skew", "kurtosis")


class amplitude(Feature):
    """How unequally the nodes fluctuate, free of unit.

    With s_i the standard deviation of node i over time (ddof 0; 0 for a constant node) and a_i = s_i / mean_i(s_i):
    `cv`, the standard deviation of a over nodes, and its quantiles `q05 q25 q50 q75 q95`. All 0 if every node is
    constant.
    """

    def __call__(self, y: Array, period: float) -> Array:
        _, ss, constant = centred(check_length(y))
        sd = jnp.where(constant, 0.0, jnp.sqrt(ss / y.shape[0]))[0]
        silent = jnp.all(constant)
        relative = jnp.where(silent, 0.0, sd / jnp.where(silent, 1.0, sd.mean()))
        return jnp.concatenate([shape_moments(relative)[1][None], quantiles(relative)])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("cv", *QUANTILE_NAMES)


class skewness(Feature):
    """Asymmetry of each node's fluctuations, free of unit.

    The quantiles `q05 q25 q50 q75 q95` over nodes of the skewness over time, mean_t(d^3) / s^3 with d = y - mean_t y
    (0 for a constant node).

    Positive where a node rests low with bursts upwards, as a population below its transition to high activity does.
    """

    def __call__(self, y: Array, period: float) -> Array:
        return quantiles(jax.vmap(shape_moments, in_axes=1)(y)[2])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return QUANTILE_NAMES


class autocorrelation(Feature):
    """Autocorrelation at one lag: `mean` and `std` over nodes.

    r_i = sum_t d_i(t) d_i(t + k) / sum_t d_i(t)^2,   d = y - mean_t y,   k = lag in samples;   0 for a constant node.

    Args:
        lag: ms, rounded to samples; one sample without.
    """

    lag: float | None = option(default=None, converter=positive_or_none("lag", 720.0))

    def __call__(self, y: Array, period: float) -> Array:
        k = 1 if self.lag is None else samples(self.lag, period, "lag")
        if y.shape[0] <= k:
            raise ValueError(f"the recording has {y.shape[0]} samples; a lag of {k} samples needs more than {k}")
        d, ss, constant = centred(y)
        r = jnp.where(constant, 0.0, jnp.sum(d[k:] * d[:-k], axis=0, keepdims=True) / ss)[0]
        return jnp.stack(shape_moments(r)[:2])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("mean", "std")


def autocorrelations(y: Array, lags: int) -> Array:
    """Autocorrelation function of each node, `[lags + 1, N]`.

    r(l) = sum_t d(t) d(t + l) / sum_t d(t)^2 for l = 0 ... lags samples,   d = y - mean_t y

    The sum has T - l terms but the divisor is that of l = 0 (the biased estimate, which is a positive
    definite function). 0 for a constant node. By the Fourier transform of the signal and as many zeros.
    """
    d, sd, constant = time_centre(y)
    length = y.shape[0]
    # the transform's convolution is circular: as many zeros as samples keep the end from meeting the beginning
    spectrum = jnp.fft.rfft(d / sd[None], n=2 * length, axis=0)
    power = (spectrum.real**2 + spectrum.imag**2) / length
    r = jnp.fft.irfft(power, n=2 * length, axis=0)[: lags + 1].astype(y.dtype)
    return jnp.where(constant[None], 0.0, r)


class timescales(NodeFeature):
    """Times read from each node's autocorrelation function, ms.

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

    max_lag: float | None = option(default=None, converter=positive_or_none("max_lag", 20000.0))
    only: tuple[str, ...] = option(
        default=None, converter=chosen("timescales", "e_folding", "e_folding_interpolated", "integrated", "first_zero")
    )

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
        # r up to, and without, its first negative value; r(0) = 1 counts once, the others on both sides
        kept = jnp.where(jnp.cumsum(negative, axis=0) == 0, r, 0.0)
        numbers = {
            "e_folding": fold.astype(y.dtype),
            "e_folding_interpolated": interpolated,
            "integrated": 2.0 * kept.sum(axis=0) - r[0],
            "first_zero": zero.astype(y.dtype),
        }
        # r(0) is 0 for a constant node only
        return keep_nan(jnp.where(r[:1] == 0.0, 0.0, period * pick(numbers, self.only)), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


def _lags(lags: int | Sequence[float] | np.ndarray) -> int | tuple[float, ...]:
    if isinstance(lags, int) and not isinstance(lags, bool) and lags > 0:
        return lags
    given = () if isinstance(lags, int) or np.ndim(lags) == 0 else tuple(float(lag) for lag in lags)
    if not given or not all(0.0 < lag < math.inf for lag in given):
        raise ValueError(f"lags is {lags!r}; give how many samples, or durations in ms such as lags=(720.0, 3600.0)")
    return given


class acf(NodeFeature):
    """Autocorrelation function of each node at several lags.

    Args:
        lags: how many lags from one sample on (`lag1`, `lag2`, ...), or durations in ms, rounded to samples (`720ms`).
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> acf(lags=(1000, 5000)).names()
    ('1000ms', '5000ms')
    """

    lags: int | tuple[float, ...] = option(default=5, converter=_lags)

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
