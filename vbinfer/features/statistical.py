"""Distribution of each node's values, its energy, and its crossings."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from .base import NodeFeature, chosen, intervals, option
from .numeric import QUANTILE_NAMES, QUANTILES, keep_nan, ratio, root, time_centre, time_quantile


class Signal(NamedTuple):
    """A recording and what most statistics need of it."""

    y: Array  # [T, N]
    d: Array  # [T, N], y - mean_t y
    sd: Array  # [N], 1 where constant
    constant: Array  # [N]
    period: float  # ms


def central_moment(s: Signal, k: int) -> Array:
    """mean_t d^k, `[N]`; 0 for a constant node."""
    return jnp.where(s.constant, 0.0, jnp.mean(s.d**k, axis=0))


def _shape(s: Signal, k: int) -> Array:
    return jnp.where(s.constant, 0.0, jnp.mean((s.d / s.sd[None]) ** k, axis=0))


def _burstiness(s: Signal) -> Array:
    sd, level = jnp.where(s.constant, 0.0, s.sd), jnp.abs(s.y.mean(axis=0))
    return ratio(sd - level, sd + level)


def _median_deviation(s: Signal) -> Array:
    return time_quantile(jnp.abs(s.y - time_quantile(s.y, 0.5)[None]), 0.5)


def _centroid(s: Signal) -> Array:
    time = jnp.arange(s.y.shape[0], dtype=s.y.dtype)[:, None] * s.period
    return ratio(jnp.sum(time * s.y**2, axis=0), jnp.sum(s.y**2, axis=0))


def sign_changes(v: Array) -> Array:
    """Number of sign changes over time of `[T, N]`, `[N]`.

    A zero in between hides the change.
    """
    up, down = v > 0.0, v < 0.0
    changes = (up[:-1] & down[1:]) | (down[:-1] & up[1:])
    return changes.sum(axis=0).astype(v.dtype)


def trapezoid(y: Array, dx: float) -> Array:
    """Integral along the first axis by the trapezoidal rule."""
    return dx * (y.sum(axis=0) - 0.5 * (y[0] + y[-1]))


STATISTICS: dict[str, Callable[[Signal], Array]] = {
    "mean": lambda s: s.y.mean(axis=0),
    "std": lambda s: jnp.where(s.constant, 0.0, s.sd),
    "var": lambda s: central_moment(s, 2),
    "var_unbiased": lambda s: central_moment(s, 2) * (s.y.shape[0] / (s.y.shape[0] - 1)),
    "rms": lambda s: root(jnp.mean(s.y**2, axis=0)),
    "skew": lambda s: _shape(s, 3),
    "kurtosis": lambda s: jnp.where(s.constant, 0.0, _shape(s, 4) - 3.0),
    **{f"m{k}": functools.partial(central_moment, k=k) for k in range(2, 7)},
    "max": lambda s: s.y.max(axis=0),
    "min": lambda s: s.y.min(axis=0),
    "median": lambda s: time_quantile(s.y, 0.5),
    "iqr": lambda s: time_quantile(s.y, 0.75) - time_quantile(s.y, 0.25),
    **{name: (lambda s, q=q: time_quantile(s.y, q)) for name, q in zip(QUANTILE_NAMES, QUANTILES, strict=True)},
    "mean_abs_dev": lambda s: jnp.abs(s.d).mean(axis=0),
    "median_abs_dev": _median_deviation,
    "burstiness": _burstiness,
    "area": lambda s: trapezoid(s.y, s.period),
    "abs_energy": lambda s: jnp.sum(s.y**2, axis=0),
    "average_power": lambda s: jnp.sum(s.y**2, axis=0) / ((s.y.shape[0] - 1) * s.period / 1000.0),
    "centroid": _centroid,
    "zero_crossings": lambda s: sign_changes(s.y),
    "zero_crossings_centred": lambda s: jnp.where(s.constant, 0.0, sign_changes(s.d)),
}


class statistics(NodeFeature):
    """Distribution of each node's values over time, in named numbers.

    With d = y - mean_t y and s its standard deviation (ddof 0); unit u of the recording:

    - `mean`, `std` s, `var` s^2 (ddof 0), `var_unbiased` (ddof 1), `rms` = sqrt(mean_t y^2), `max`, `min`;
    - `skew` = mean_t(d/s)^3, `kurtosis` = mean_t(d/s)^4 - 3, `m2` to `m6` = mean_t d^k (u^k);
    - `median`, `iqr` = q75 - q25, `q05 q25 q50 q75 q95` (linear between order statistics),
      `mean_abs_dev` = mean_t |d|, `median_abs_dev` = median_t |y - median_t y| (no factor 1.4826);
    - `burstiness` = (s - |mean|) / (s + |mean|), -1 for a constant, 0 if all is 0 (Goh & Barabasi 2008,
      doi:10.1209/0295-5075/81/48002, there of intervals between events and so without the absolute value);
    - `area`, the integral over time by the trapezoidal rule (u ms); `abs_energy` = sum_t y^2;
      `average_power` = abs_energy / duration in s, so that it grows with the sampling rate;
      `centroid` = sum_t t y^2 / sum_t y^2 (ms after the first sample; 0 if all is 0);
    - `zero_crossings` and `zero_crossings_centred`: how often y, or d, changes sign from one sample to the next.
      Counts: their gradient is 0.

    A constant node has 0 in everything that measures fluctuation. Level and amplitude of measured BOLD are in
    arbitrary units: keep to `skew`, `kurtosis` and the counts there. Blind to the order of the samples, up to
    `centroid`, `area` and the crossings, and to how nodes go together.

    Args:
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> statistics(only=("rms", "iqr"), pool="spread").names()
    ('rms', 'rms_spread', 'iqr', 'iqr_spread')
    """

    only: tuple[str, ...] = option(default=None, converter=chosen("statistics", *STATISTICS))

    def per_node(self, y: Array, period: float) -> Array:
        if y.shape[0] < 2:
            raise ValueError(f"the recording has {y.shape[0]} samples; statistics over time need at least 2")
        signal = Signal(y, *time_centre(y), period)
        return keep_nan(jnp.stack([STATISTICS[name](signal) for name in self.only]), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


class area(NodeFeature):
    """Integral of each node's signal within given times (u ms).

    By the trapezoidal rule over the samples inside. The first sample is at time 0 and the last at (T - 1) period; both
    limits belong to the interval and are rounded to samples. `statistics(only=("area",))` integrates over the whole
    recording.

    Args:
        intervals: pairs (begin, end) in ms after the first sample.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> area(intervals=((0, 500), (500, 2000))).names()
    ('0-500ms', '500-2000ms')
    """

    intervals: tuple[tuple[float, ...], ...] = option(default=((0.0, 1000.0),), converter=intervals("intervals", "ms"))

    def per_node(self, y: Array, period: float) -> Array:
        last = (y.shape[0] - 1) * period
        numbers = []
        for begin, end in self.intervals:
            if end > last + 0.5 * period:
                raise ValueError(f"an interval ends at {end:g} ms but the recording at {last:g} ms; shorten intervals=")
            first, after = round(begin / period), round(end / period) + 1
            if after - first < 2:
                raise ValueError(f"{begin:g}-{end:g} ms holds one sample of {period:g} ms; give a longer interval")
            numbers.append(trapezoid(y[first:after], period))
        return jnp.stack(numbers)

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{begin:g}-{end:g}ms" for begin, end in self.intervals)
