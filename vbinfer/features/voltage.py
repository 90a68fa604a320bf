"""Spikes, their shape, and what lies below threshold.

Definitions are those of eFEL 5.7 where it has the number, with interp_step the sampling period.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check

from .base import NodeFeature, chosen, option, pick, positive, positive_or_none
from .numeric import keep_nan, shape_moments

UPSTROKE, DOWNSTROKE = 10.0, -12.0
"""mV/ms: a spike begins where five slopes in a row reach the first, and ends where the slope last was below the
second."""
IN_A_ROW = 5
SLOW = 5.0
"""ms after a peak from which on the slow afterhyperpolarisation is looked for."""
MARGIN = 0.1
"""Share of the onset and of the stimulus in which its base and its end are averaged."""


class Spikes(NamedTuple):
    """Spikes of one recording.

    `[S]` with room for all, those from `n` on are none.
    """

    n: Array
    peak: Array
    """Sample of the highest value between two upward crossings."""
    above: Array
    """Samples at or above threshold."""
    after: Array
    """Number of peaks at or before each sample, `[T]`."""

    @property
    def valid(self) -> Array:
        return jnp.arange(len(self.peak)) < self.n


def _found(x: Array, threshold: float) -> Spikes:
    """Upward crossings, and the peak up to the next one."""
    length, room = len(x), len(x) // 2 + 2
    up = jnp.concatenate([jnp.zeros(1, bool), (x[:-1] < threshold) & (x[1:] >= threshold)])
    crossing = jnp.cumsum(up)
    highest = jax.ops.segment_max(x, crossing, room)[crossing]
    peak = _first((x == highest) & (crossing > 0), crossing, room)[1:]
    above = jax.ops.segment_sum((x >= threshold).astype(x.dtype), crossing, room)[1:]
    after = jnp.cumsum(jnp.zeros(length + 1, int).at[peak].set(1)[:length])
    return Spikes(crossing[-1], peak, above, after)


def _first(where: Array, part: Array, parts: int) -> Array:
    """First sample of each part where it holds.

    Where there is none, T.
    """
    n = len(where)
    return jnp.minimum(jax.ops.segment_min(jnp.where(where, jnp.arange(n), n), part, parts), n)


def _last(where: Array, part: Array, parts: int) -> Array:
    """Last sample of each part where it holds.

    Where there is none, -1.
    """
    return jnp.maximum(jax.ops.segment_max(jnp.where(where, jnp.arange(len(where)), -1), part, parts), -1)


def _mean(values: Array, which: Array) -> Array:
    """Mean of some, 0 of none."""
    return jnp.sum(jnp.where(which, values, 0.0)) / jnp.maximum(jnp.sum(which), 1)


class _Stimulus(NamedTuple):
    """Samples of a stimulus.

    The first one after its onset, and the first one after its end.
    """

    begin: int
    end: int


def _stimulus(onset: float, duration: float | None, period: float, length: int) -> _Stimulus:
    """Sample k is at (k + 1) period."""
    end = length if duration is None else min(length, round((onset + duration) / period))
    begin = min(round(onset / period), length)
    return _Stimulus(begin, max(end, begin))


def _onset(value: float) -> float:
    return _check.number(value, "onset", 50.0, least=0.0)


def _threshold(value: float) -> float:
    return _check.number(value, "threshold", -20.0)


_FLAGS = ("has_1", "has_2", "has_3", "has_4")
_SPIKES = (
    *("spike_count", "mean_frequency", "time_to_first_spike", "time_to_last_spike", "ISI_mean", "ISI_CV", "ISI_min"),
    *("ISI_max", "doublet_ISI", "adaptation_index2", "burst_fraction"),
)


class spikes(NodeFeature):
    """When a neuron spikes.

    A spike is an upward crossing of `threshold`, its time that of the highest sample until the next one. Times are ms
    from the stimulus' onset; sample k is at (k + 1) period. A number that needs k spikes is 0 with fewer, and the flag
    `has_k` says so. All are counts and times of samples: their gradient is 0.

    - `spike_count`; `mean_frequency`, spikes during the stimulus over the time from its onset to the last of them, Hz;
    - `time_to_first_spike`, `time_to_last_spike`;
    - of the intervals without the first (3 spikes): `ISI_mean`, `ISI_min`, `ISI_max`, `burst_fraction`, the share
      shorter than `burst`; `ISI_CV`, with ddof 1, and `adaptation_index2`, the mean of (b - a) / (b + a) over two that
      follow each other (4 spikes); `doublet_ISI`, the first one (2 spikes).

    Args:
        threshold: mV.
        onset, duration: of the stimulus, ms; None is to the end.
        burst: intervals below this are within bursts, ms.
        only: the numbers that are kept, in this order.
    """

    threshold: float = option(default=-20.0, converter=_threshold)
    onset: float = option(default=0.0, converter=_onset)
    duration: float | None = option(default=None, converter=positive_or_none("duration", 200.0))
    burst: float = option(default=10.0, converter=positive("burst", 10.0))
    only: Sequence[str] | None = option(default=None, converter=chosen("spikes", *_SPIKES, *_FLAGS))

    def labels(self) -> tuple[str, ...]:
        return tuple(self.only or ())

    def per_node(self, y: Array, period: float) -> Array:
        when = _stimulus(self.onset, self.duration, period, len(y))
        return keep_nan(jax.vmap(lambda x: self._numbers(x, period, when), in_axes=1, out_axes=1)(y), y)

    def _numbers(self, x: Array, period: float, when: _Stimulus) -> Array:
        found = _found(x, self.threshold)
        n, valid = found.n, found.valid
        time = jnp.where(valid, (found.peak + 1) * period - self.onset, 0.0).astype(x.dtype)
        during = valid & (found.peak >= when.begin) & (found.peak < when.end)
        last = jnp.max(jnp.where(during, time, 0.0))
        isi = time[1:] - time[:-1]
        later = valid[1:] & (jnp.arange(len(isi)) > 0)  # without the first
        count, mean = jnp.sum(later), _mean(isi, later)
        spread = jnp.sqrt(jnp.sum(jnp.where(later, (isi - mean) ** 2, 0.0)) / jnp.maximum(count - 1, 1))
        pair = later[:-1] & later[1:]
        total = jnp.where(pair, isi[1:] + isi[:-1], 1.0)
        if_any = lambda k, value: jnp.where(n >= k, value, 0.0)  # noqa: E731
        numbers = {
            "spike_count": n,
            "mean_frequency": jnp.where(last > 0.0, 1e3 * jnp.sum(during) / jnp.where(last > 0.0, last, 1.0), 0.0),
            "time_to_first_spike": if_any(1, time[0]),
            "time_to_last_spike": if_any(1, time[jnp.maximum(n - 1, 0)]),
            "ISI_mean": mean,
            "ISI_CV": if_any(4, spread / jnp.where(mean > 0.0, mean, 1.0)),
            "ISI_min": if_any(3, jnp.min(jnp.where(later, isi, jnp.inf), initial=jnp.inf)),
            "ISI_max": jnp.max(jnp.where(later, isi, 0.0), initial=0.0),
            "doublet_ISI": if_any(2, isi[0]),
            "adaptation_index2": if_any(4, _mean((isi[1:] - isi[:-1]) / total, pair)),
            "burst_fraction": _mean((isi < self.burst).astype(x.dtype), later),
        }
        numbers |= {flag: n >= k for k, flag in enumerate(_FLAGS, 1)}
        return pick({name: jnp.asarray(a, x.dtype) for name, a in numbers.items()}, self.labels())


_SHAPE = (
    *("AP_height", "AP_height_drift", "AP_amplitude", "AP_width", "spike_half_width", "AP_rise_rate", "AP_fall_rate"),
    *("AP_peak_upstroke", "AHP_depth_abs", "AHP_depth_abs_slow", "AHP_slow_time"),
)


class action_potential(NodeFeature):
    """What spikes look like, averaged over those of a recording.

    Spikes are those of `spikes`; all numbers are 0 without one, and the flags `has_1` and `has_3` say so. Voltages and
    slopes have gradients, times of samples have none.

    - `AP_height`, the peak; `AP_height_drift`, that of the last minus that of the first;
    - `AP_amplitude`, the peak above the voltage where the spike begins: the first of five slopes in a row of 10 mV/ms
      since the minimum before; `AP_rise_rate` from there to the peak, `AP_fall_rate` from the peak to where the slope
      last was below -12 mV/ms, mV/ms; `AP_peak_upstroke`, the largest slope;
    - `AP_width`, the time above threshold; `spike_half_width`, at half the way from the minimum after to the peak, ms;
    - `AHP_depth_abs`, the minimum until the next spike or the stimulus' end; `AHP_depth_abs_slow`, that from 5 ms after
      the peak on, and `AHP_slow_time`, its place in the interval, from the second interval on (3 spikes).

    Args:
        threshold: mV.
        onset, duration: of the stimulus, ms; None is to the end.
        only: the numbers that are kept, in this order.
    """

    threshold: float = option(default=-20.0, converter=_threshold)
    onset: float = option(default=0.0, converter=_onset)
    duration: float | None = option(default=None, converter=positive_or_none("duration", 200.0))
    only: Sequence[str] | None = option(default=None, converter=chosen("action_potential", *_SHAPE, "has_1", "has_3"))

    def labels(self) -> tuple[str, ...]:
        return tuple(self.only or ())

    def per_node(self, y: Array, period: float) -> Array:
        when = _stimulus(self.onset, self.duration, period, len(y))
        return keep_nan(jax.vmap(lambda x: self._numbers(x, period, when), in_axes=1, out_axes=1)(y), y)

    def _numbers(self, x: Array, period: float, when: _Stimulus) -> Array:
        found = _found(x, self.threshold)
        n, valid, length = found.n, found.valid, len(x)
        at = lambda k: x[jnp.clip(k, 0, length - 1)]  # noqa: E731
        peak, height, slope = found.peak, at(found.peak), jnp.asarray(jnp.gradient(x, period))
        low, slow = self._minima(x, found, period, when)
        begin, end = _flanks(slope, found, low, when)
        rise, fall = (peak - begin) * period, (end - peak) * period
        rate = lambda dv, dt: jnp.where(dt > 0.0, dv / jnp.where(dt > 0.0, dt, 1.0), 0.0)  # noqa: E731
        numbers = {
            "AP_height": height,
            "AP_amplitude": height - at(begin),
            "AP_width": found.above * period,
            "spike_half_width": _width(x, found, 0.5 * (height + at(low))) * period,
            "AP_rise_rate": rate(height - at(begin), rise),
            "AP_fall_rate": rate(at(end) - height, fall),
            "AP_peak_upstroke": _steepest(slope, found, begin),
            "AHP_depth_abs": at(low),
        }
        whole = {name: _mean(a, valid) for name, a in numbers.items()}
        middle = jnp.concatenate([jnp.zeros(1, bool), valid[2:], jnp.zeros(1, bool)])  # neither the first nor the last
        interval = jnp.where(middle, jnp.concatenate([jnp.diff(peak), jnp.ones(1, int)]), 1)
        whole |= {
            "AP_height_drift": jnp.where(n > 0, at(peak[jnp.maximum(n - 1, 0)]) - height[0], 0.0),
            "AHP_depth_abs_slow": _mean(at(slow), middle),
            "AHP_slow_time": _mean((slow - peak) / interval, middle),
            "has_1": n >= 1,
            "has_3": n >= 3,
        }
        return pick({name: jnp.asarray(a, x.dtype) for name, a in whole.items()}, self.labels())

    def _minima(self, x: Array, found: Spikes, period: float, when: _Stimulus) -> tuple[Array, Array]:
        """Minima after peaks, and those from 5 ms on."""
        rooms, sample = len(found.peak) + 1, jnp.arange(len(x))
        last = found.peak[jnp.maximum(found.n - 1, 0)]
        allowed = (found.after < found.n) | (sample < when.end) | (last >= when.end)
        since = sample - jnp.concatenate([jnp.zeros(1, int), found.peak])[found.after]

        def lowest(where: Array) -> Array:
            values = jnp.where(where, x, jnp.inf)
            least = jax.ops.segment_min(values, found.after, rooms)[found.after]
            return _first(where & (values == least), found.after, rooms)[1:]

        return lowest(allowed), lowest(since * period >= SLOW - 1e-6 * period)


def _flanks(slope: Array, found: Spikes, low: Array, when: _Stimulus) -> tuple[Array, Array]:
    """Samples where every spike begins and ends."""
    length, rooms = len(slope), len(found.peak) + 1
    steep = jnp.concatenate([slope >= UPSTROKE, jnp.zeros(IN_A_ROW - 1, bool)])
    row = jnp.all(jnp.stack([steep[k : k + length] for k in range(IN_A_ROW)]), axis=0)
    # up to a peak: since the minimum before, of the first one since the stimulus' onset
    start = jnp.minimum(jnp.concatenate([jnp.asarray([when.begin - 1]), low[:-1]]), found.peak)
    since = jnp.concatenate([start, jnp.full(1, length)])[found.after]
    begin = _first(row & (jnp.arange(length) >= since), found.after, rooms)[:-1]
    end = _last(slope <= DOWNSTROKE, found.after, rooms)[1:] + 1
    return jnp.where(begin < found.peak, begin, jnp.maximum(start, 0)), jnp.maximum(end, found.peak)


def _steepest(slope: Array, found: Spikes, begin: Array) -> Array:
    """Largest slope of the upstroke of every spike."""
    since = jnp.concatenate([begin, jnp.full(1, len(slope))])[found.after]
    inside = jnp.where(jnp.arange(len(slope)) >= since, slope, -jnp.inf)
    most = jax.ops.segment_max(inside, found.after, len(found.peak) + 1)[:-1]
    return jnp.where(jnp.isfinite(most), most, 0.0)


def _width(x: Array, found: Spikes, level: Array) -> Array:
    """Width of every spike at a level, in samples.

    It is taken on the lines between samples; 0 where the level is not crossed.
    """
    length, rooms = len(x), len(found.peak) + 1
    rising = jnp.concatenate([level, jnp.full(1, -jnp.inf)])[found.after]
    falling = jnp.concatenate([jnp.full(1, -jnp.inf), level])[found.after]
    a = _last(x <= rising, found.after, rooms)[:-1]
    b = _first(x <= falling, found.after, rooms)[1:]
    crossed = (a >= 0) & (b < length) & found.valid
    at = lambda k: x[jnp.clip(k, 0, length - 1)]  # noqa: E731

    def share(k: Array) -> Array:  # of the step after sample k, until the level is met
        rise = at(k + 1) - at(k)
        return jnp.where(crossed & (rise != 0.0), (level - at(k)) / jnp.where(rise == 0.0, 1.0, rise), 0.0)

    return jnp.where(crossed, (b - 1 + share(b - 1)) - (a + share(a)), 0.0)


_BELOW = (
    *("voltage_base", "steady_state_voltage_stimend", "sag_ratio", "input_resistance", "time_constant"),
    *("minimum_voltage", "maximum_voltage", "mean", "std", "skew", "kurtosis", "max_slope"),
)


class subthreshold(NodeFeature):
    """What a voltage does below threshold.

    - `voltage_base`, the mean over the last tenth before the onset; `steady_state_voltage_stimend`, that over the last
      tenth of the stimulus; `minimum_voltage`, `maximum_voltage` during it;
    - `sag_ratio`, (end - minimum) / (base - minimum), of a voltage that ends below its base, else 0;
    - `input_resistance`, (end - base) / current, MOhm;
    - `time_constant`, ms: of the least-squares line through log((V - end) / (base - end)), from the onset until that
      first is below log 0.1; 0 where the voltage leaves its base by less than 1e-6 mV;
    - `mean`, `std`, `skew`, `kurtosis` of the whole recording; `max_slope`, mV/ms.

    Args:
        onset, duration: of the stimulus, ms, the onset above 0; None is to the end.
        current: of the stimulus, nA.
        only: the numbers that are kept, in this order.
    """

    onset: float = option(default=50.0, converter=positive("onset", 50.0))
    duration: float | None = option(default=None, converter=positive_or_none("duration", 200.0))
    current: float = option(default=1.0, converter=lambda value: _check.number(value, "current", -0.1))
    only: Sequence[str] | None = option(default=None, converter=chosen("subthreshold", *_BELOW))

    def labels(self) -> tuple[str, ...]:
        return tuple(self.only or ())

    def per_node(self, y: Array, period: float) -> Array:
        when = _stimulus(self.onset, self.duration, period, len(y))
        if not 0 < when.begin < when.end:
            raise ValueError(
                f"subthreshold has onset={self.onset:g} ms, the recording has {len(y)} samples of {period:g} ms; the "
                "stimulus begins after the first and before the last"
            )
        return keep_nan(jax.vmap(lambda x: self._numbers(x, period, when), in_axes=1, out_axes=1)(y), y)

    def _numbers(self, x: Array, period: float, when: _Stimulus) -> Array:
        b, e = when
        before = max(1, round(MARGIN * b))
        # the sample at the onset itself belongs to the base, that at the end of the stimulus to neither
        base = x[max(b - before, 0) : b].mean()
        tail = max(1, round(MARGIN * (e - b)))
        end, stimulated = x[e - 1 - tail : e - 1].mean(), x[b:e]
        low = stimulated.min()
        sags = (end < base) & (base > low)
        mean, std, skew, kurtosis = shape_moments(x)
        numbers = {
            "voltage_base": base,
            "steady_state_voltage_stimend": end,
            "sag_ratio": jnp.where(sags, (end - low) / jnp.where(sags, base - low, 1.0), 0.0),
            "input_resistance": (end - base) / self.current if self.current else jnp.zeros_like(base),
            "time_constant": _relaxation(stimulated, base, end) * period,
            "minimum_voltage": low,
            "maximum_voltage": stimulated.max(),
            "mean": mean,
            "std": std,
            "skew": skew,
            "kurtosis": kurtosis,
            "max_slope": jnp.max(jnp.diff(x)) / period,
        }
        return pick(numbers, self.labels())


def _relaxation(x: Array, base: Array, end: Array) -> Array:
    """Time constant of an exponential relaxation, in samples."""
    moves = jnp.abs(base - end) > 1e-6
    left = (x - end) / jnp.where(moves, base - end, 1.0)
    inside = jnp.cumsum(left < MARGIN) == 0
    w = inside.astype(x.dtype)
    log, k = jnp.log(jnp.where(inside, left, 1.0)), jnp.arange(len(x), dtype=x.dtype)
    total = jnp.maximum(w.sum(), 1.0)
    dk = w * (k - (w * k).sum() / total)
    slope = jnp.sum(dk * log) / jnp.maximum(jnp.sum(dk * k), 1e-30)
    fits = moves & (w.sum() > 1.0) & (slope < 0.0)
    return jnp.where(fits, -1.0 / jnp.where(fits, slope, -1.0), 0.0)
