"""Threshold crossings: onsets, bursts and avalanches."""

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check

from .base import Feature, NodeFeature, chosen, option, pick, positive
from .numeric import keep_nan, ratio, standardised


def _threshold(value: float) -> float:
    return _check.number(value, "threshold", 1.0)


class onset(NodeFeature):
    """When each node first rises above a threshold.

    The onset of a seizure, the recruitment of a region. Times in ms after the first sample, T samples:

    - `time`: where the straight line between two samples first crosses the threshold upwards; 0 if the first sample is
      above it; T period if it never is. Its gradient is that of the crossing, and 0 where there is none;
    - `recruited`: 1 if any sample is above the threshold, else 0; its mean over nodes is the recruited share;
    - `above`: for how long samples are above it;
    - `jump_time`: of the sample before the largest rise from one sample to the next, T period if that rise is not above
      the threshold. `recruited`, `above` and `jump_time` are counts: their gradient is 0.

    With `pool="nodes"` the order of recruitment is kept; means over nodes mix onsets with nodes never recruited.

    Args:
        threshold: in the unit of the recording; 0 lies between rest and seizure of the Epileptor's x1.
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> import jax.numpy as jnp
    >>> y = jnp.asarray([[-1.0], [-1.0], [3.0], [1.0]])
    >>> onset(only=("time", "recruited"))(y, 10.0).tolist()
    [12.5, 1.0]
    """

    threshold: float = option(default=0.0, converter=_threshold)
    only: tuple[str, ...] = option(default=None, converter=chosen("onset", "time", "recruited", "above", "jump_time"))

    def per_node(self, y: Array, period: float) -> Array:
        length = y.shape[0]
        if length < 2:
            raise ValueError(f"the recording has {length} samples; an onset needs at least 2")
        never = jnp.asarray(length, y.dtype)
        high = y > self.threshold
        reached = high.any(axis=0)
        first = jnp.argmax(high, axis=0)
        after = jnp.take_along_axis(y, first[None], axis=0)[0]
        before = jnp.take_along_axis(y, jnp.maximum(first - 1, 0)[None], axis=0)[0]
        # argmax picks sample and neighbours without a gradient; the crossing between them has that of the straight line
        crossed = first - 1 + ratio(self.threshold - before, after - before)
        time = jnp.where(reached, jnp.where(first == 0, 0.0, crossed), never)
        rises = y[1:] - y[:-1]
        jump = jnp.where(rises.max(axis=0) > self.threshold, jnp.argmax(rises, axis=0).astype(y.dtype), never)
        above = high.sum(axis=0).astype(y.dtype)
        numbers = {
            "time": period * time,
            "recruited": reached.astype(y.dtype),
            "above": period * above,
            "jump_time": period * jump,
        }
        return keep_nan(pick(numbers, self.only), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


class bursts(NodeFeature):
    """How often and how long each node is high.

    With z = (y - mean_t y) / s above a threshold, `rate`: how many runs of samples above the threshold, per s; `share`
    of the samples above it; `duration` and `gap`: the mean length in ms of a run above and of one not above, runs cut
    by the ends of the recording included; 0 if there is none. All 0 for a constant node but `gap`, which is then the
    whole recording. Counts: the gradient is 0.

    Free of the unit of the recording.

    Args:
        threshold: in standard deviations above the mean.
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    threshold: float = option(default=1.0, converter=_threshold)
    only: tuple[str, ...] = option(default=None, converter=chosen("bursts", "rate", "share", "duration", "gap"))

    def per_node(self, y: Array, period: float) -> Array:
        high = standardised(y) > self.threshold
        length = y.shape[0]
        on, off = _runs(high).astype(y.dtype), _runs(~high).astype(y.dtype)
        total = high.sum(axis=0).astype(y.dtype)
        numbers = {
            "rate": on * (1000.0 / (length * period)),
            "share": total / length,
            "duration": period * ratio(total, on),
            "gap": period * ratio(length - total, off),
        }
        return keep_nan(pick(numbers, self.only), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


def _runs(inside: Array) -> Array:
    """Number of runs of true samples, along the first axis."""
    # a run begins at the first sample, or where the one before was outside
    return inside[0].astype(int) + (inside[1:] & ~inside[:-1]).sum(axis=0)


class avalanches(Feature):
    """Neuronal avalanches: runs with some node beyond a threshold.

    With z = (y - mean_t y) / s and a node active where |z| exceeds the threshold: `rate`, avalanches per s; `size`, the
    mean number of active (node, sample) pairs in one; `duration`, its mean length in ms; `share` of the samples that
    belong to one. 0 without any. Counts: the gradient is 0. Only means: their tails, which say whether the network is
    critical, need longer recordings than are usually simulated.

    Args:
        threshold: in standard deviations from the mean.
        only: names of the numbers to keep, in this order; all of them without.

    Beggs & Plenz 2003, doi:10.1523/JNEUROSCI.23-35-11167.2003.
    """

    threshold: float = option(default=3.0, converter=positive("threshold", 3.0, "standard deviations"))
    only: tuple[str, ...] = option(default=None, converter=chosen("avalanches", "rate", "size", "duration", "share"))

    def __call__(self, y: Array, period: float) -> Array:
        active = jnp.abs(standardised(y)) > self.threshold
        going = active.any(axis=1)
        length = y.shape[0]
        count = _runs(going).astype(y.dtype)
        frames, events = going.sum().astype(y.dtype), active.sum().astype(y.dtype)
        numbers = {
            "rate": count * (1000.0 / (length * period)),
            "size": ratio(events, count),
            "duration": period * ratio(frames, count),
            "share": frames / length,
        }
        return jnp.where(jnp.isnan(y).any(), jnp.nan, pick(numbers, self.only))

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only
