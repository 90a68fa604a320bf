"""Numbers from each node's own time course, averaged over nodes, and filters."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .base import QUANTILE_NAMES, Feature, Preprocess, centred, quantiles, samples, shape_moments


class moments(Feature):
    """Level, amplitude and shape of the signals, in six numbers.

    Each node's mean, standard deviation (ddof 0), skewness and excess kurtosis over time, averaged over nodes: `mean`,
    `std`, `skew`, `kurtosis`; and the standard deviation over nodes of the first two: `mean_spread`, `std_spread`.
    A constant node counts as 0 in `std`, `skew` and `kurtosis`.

    Level and amplitude of measured BOLD are in arbitrary units: use this where simulation and recording share units.
    """

    def __call__(self, y: Array, period: float) -> Array:
        d, ss, constant = centred(y)
        sd = jnp.sqrt(ss / y.shape[0])
        u = d / sd
        mean, std = y.mean(axis=0), jnp.where(constant, 0.0, sd)[0]
        skew = jnp.where(constant[0], 0.0, jnp.mean(u**3, axis=0))
        kurtosis = jnp.where(constant[0], 0.0, jnp.mean(u**4, axis=0) - 3.0)
        spread = [shape_moments(values)[1] for values in (mean, std)]
        return jnp.stack([mean.mean(), spread[0], std.mean(), spread[1], skew.mean(), kurtosis.mean()])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("mean", "mean_spread", "std", "std_spread", "skew", "kurtosis")


class amplitude(Feature):
    """How unequally the nodes fluctuate, free of the unit of the recording.

    With s_i the standard deviation of node i over time (ddof 0; 0 for a constant node) and a_i = s_i / mean_i(s_i):
    `cv`, the standard deviation of a over nodes, and its quantiles `q05 q25 q50 q75 q95`. All 0 if every node is
    constant.
    """

    def __call__(self, y: Array, period: float) -> Array:
        _, ss, constant = centred(y)
        sd = jnp.where(constant, 0.0, jnp.sqrt(ss / y.shape[0]))[0]
        silent = jnp.all(constant)
        relative = jnp.where(silent, 0.0, sd / jnp.where(silent, 1.0, sd.mean()))
        return jnp.concatenate([shape_moments(relative)[1][None], quantiles(relative)])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("cv", *QUANTILE_NAMES)


class skewness(Feature):
    """Asymmetry of each node's fluctuations, free of unit: the quantiles `q05 q25 q50 q75 q95` over nodes of the
    skewness over time, mean_t(d^3) / s^3 with d = y - mean_t y (0 for a constant node).

    Positive where a node rests low with bursts upwards, as a population below its transition to high activity does.
    """

    def __call__(self, y: Array, period: float) -> Array:
        d, ss, constant = centred(y)
        skew = jnp.mean((d / jnp.sqrt(ss / y.shape[0])) ** 3, axis=0)
        return quantiles(jnp.where(constant[0], 0.0, skew))

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return QUANTILE_NAMES


class autocorrelation(Feature):
    """Autocorrelation of the signals at one lag: `mean` and `std` (ddof 0) over nodes.

    r_i = sum_t d_i(t) d_i(t + k) / sum_t d_i(t)^2,   d = y - mean_t y,   k = lag in samples;   0 for a constant node.

    Args:
        lag: ms, rounded to samples; one sample without.
    """

    lag: float | None = eqx.field(static=True)

    def __init__(self, lag: float | None = None):
        if lag is not None and not (math.isfinite(lag) and lag > 0.0):
            raise ValueError(f"lag is {lag:g}; give a duration in ms, such as lag=720.0")
        self.lag = None if lag is None else float(lag)

    def __call__(self, y: Array, period: float) -> Array:
        k = 1 if self.lag is None else samples(self.lag, period, "lag")
        if y.shape[0] <= k:
            raise ValueError(f"the recording has {y.shape[0]} samples; a lag of {k} samples needs more than {k}")
        d, ss, constant = centred(y)
        r = jnp.where(constant, 0.0, jnp.sum(d[k:] * d[:-k], axis=0, keepdims=True) / ss)[0]
        return jnp.stack(shape_moments(r)[:2])

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return ("mean", "std")


class bandpass(Preprocess):
    """Zero-phase band-pass filter for `Summary(preprocess=...)`: damps what lies outside the band, delays nothing.

    Each node's mean is removed and its spectrum multiplied by

        H(f) = 1 / (1 + (low / f)^(2 order)) * 1 / (1 + (f / high)^(2 order))

    which is the squared gain of a Butterworth filter, as running one forwards and backwards gives: about one half at
    `low` and at `high`. The recording is continued at both ends by its point reflection, for 1.5 periods of `low`
    (3 of `high` where `low` is None) or as far as it reaches, so that the ends do not see each other.

    Args:
        low: Hz; None lets slow fluctuations through (the mean still goes).
        high: Hz, below half the sampling rate; None lets fast fluctuations through.
        order: of the Butterworth filter.

    Butterworth 1930, Experimental Wireless 7:536-541.
    """

    low: float | None = eqx.field(static=True)
    high: float | None = eqx.field(static=True)
    order: int = eqx.field(static=True)

    def __init__(self, low: float | None, high: float | None, order: int = 2):
        for name, value in {"low": low, "high": high}.items():
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value:g}; give a frequency in Hz, such as 0.01, or None")
        if low is None and high is None:
            raise ValueError("bandpass was given neither low nor high; give at least one of them, in Hz")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"the band is {low:g} to {high:g} Hz; low must be below high, as in bandpass(0.01, 0.1)")
        if order < 1:
            raise ValueError(f"order is {order}; give 1 or more")
        self.low, self.high, self.order = low, high, order

    def __call__(self, y: Array, period: float) -> Array:
        nyquist = 500.0 / period
        for name, value in {"low": self.low, "high": self.high}.items():
            if value is not None and value >= nyquist:
                raise ValueError(
                    f"{name} is {value:g} Hz, but samples {period:g} ms apart show nothing from {nyquist:g} Hz on; "
                    f"give a frequency below {nyquist:g} or None"
                )
        length = y.shape[0]
        reach = 1.5 / self.low if self.low is not None else 3.0 / (self.high or nyquist)
        pad = min(length - 1, math.ceil(reach * 1000.0 / period))
        y = y - y.mean(axis=0, keepdims=True)
        before = 2.0 * y[:1] - y[1 : pad + 1][::-1]
        after = 2.0 * y[-1:] - y[length - 1 - pad : length - 1][::-1]
        padded = jnp.concatenate([before, y, after])
        gain = self.gain(jnp.fft.rfftfreq(padded.shape[0], period / 1000.0, dtype=y.dtype))
        filtered = jnp.fft.irfft(jnp.fft.rfft(padded, axis=0) * gain[:, None], n=padded.shape[0], axis=0)
        return filtered[pad : pad + length].astype(y.dtype)

    def gain(self, frequency: Array) -> Array:
        """H(f) for frequencies in Hz, all >= 0; 0 at 0."""
        f = jnp.asarray(frequency)
        positive = jnp.where(f > 0.0, f, 1.0)
        gain = jnp.where(f > 0.0, 1.0, 0.0)
        if self.low is not None:
            gain = gain / (1.0 + (self.low / positive) ** (2 * self.order))
        if self.high is not None:
            gain = gain / (1.0 + (f / self.high) ** (2 * self.order))
        return gain
