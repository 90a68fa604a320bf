"""Onsets, bursts and avalanches: what happens when a signal crosses a threshold."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import Feature, positions
from .nodes import NodeFeature, keep_nan, pool_of, ratio, time_centre

_ONSET = ("time", "recruited", "above", "jump_time")


def _threshold(threshold: float) -> float:
    if not math.isfinite(threshold):
        raise ValueError(f"threshold is {threshold:g}; give a finite number in the unit that the docstring names")
    return float(threshold)


class onset(NodeFeature):
    """When each node first rises above a threshold: the onset of a seizure, the recruitment of a region.

    Times in ms after the first sample, T samples:

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

    threshold: float = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, threshold: float = 0.0, only: Sequence[str] | None = None, pool: str = "mean"):
        self.threshold = _threshold(threshold)
        self.only = positions(_ONSET, only, "onset")
        self.pool = pool_of(pool)

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
        crossed = first - 1 + ratio(self.threshold - before, after - before)
        time = jnp.where(reached, jnp.where(first == 0, 0.0, crossed), never)
        rises = y[1:] - y[:-1]
        jump = jnp.where(rises.max(axis=0) > self.threshold, jnp.argmax(rises, axis=0).astype(y.dtype), never)
        above = high.sum(axis=0).astype(y.dtype)
        numbers = jnp.stack([period * time, reached.astype(y.dtype), period * above, period * jump])
        return keep_nan(numbers, y)[np.array(self.only)]

    def labels(self) -> tuple[str, ...]:
        return tuple(_ONSET[i] for i in self.only)


def _above(y: Array, threshold: float, absolute: bool = False) -> Array:
    """Where the standardised signal exceeds the threshold, `[T, N]`; nowhere for a constant node."""
    d, sd, constant = time_centre(y)
    z = jnp.where(constant[None], 0.0, d / sd[None])
    return (jnp.abs(z) if absolute else z) > threshold


_BURSTS = ("rate", "share", "duration", "gap")


class bursts(NodeFeature):
    """How often and for how long each node is in its high state: z = (y - mean_t y) / s above a threshold.

    `rate`: how many runs of samples above the threshold, per s; `share` of the samples above it; `duration` and `gap`:
    the mean length in ms of a run above and of one not above, runs cut by the ends of the recording included; 0 if
    there is none. All 0 for a constant node but `gap`, which is then the whole recording. Counts: the gradient is 0.

    Free of the unit of the recording.

    Args:
        threshold: in standard deviations above the mean.
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    threshold: float = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, threshold: float = 1.0, only: Sequence[str] | None = None, pool: str = "mean"):
        self.threshold = _threshold(threshold)
        self.only = positions(_BURSTS, only, "bursts")
        self.pool = pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        high = _above(y, self.threshold)
        length = y.shape[0]
        on, off = _runs(high).astype(y.dtype), _runs(~high).astype(y.dtype)
        total = high.sum(axis=0).astype(y.dtype)
        numbers = [
            on * (1000.0 / (length * period)),
            total / length,
            period * ratio(total, on),
            period * ratio(length - total, off),
        ]
        return keep_nan(jnp.stack(numbers), y)[np.array(self.only)]

    def labels(self) -> tuple[str, ...]:
        return tuple(_BURSTS[i] for i in self.only)


def _runs(inside: Array) -> Array:
    """How many runs of true samples there are, along the first axis."""
    return inside[0].astype(int) + (inside[1:] & ~inside[:-1]).sum(axis=0)


_AVALANCHES = ("rate", "size", "duration", "share")


class avalanches(Feature):
    """Neuronal avalanches: runs of samples in which at least one node is beyond a threshold.

    With z = (y - mean_t y) / s and a node active where |z| exceeds the threshold: `rate`, avalanches per s; `size`, the
    mean number of active (node, sample) pairs in one; `duration`, its mean length in ms; `share` of the samples that
    belong to one. 0 without any. Counts: the gradient is 0. Only means: their tails, which say whether the network is
    critical, need longer recordings than are usually simulated.

    Args:
        threshold: in standard deviations from the mean.
        only: names of the numbers to keep, in this order; all of them without.

    Beggs & Plenz 2003, doi:10.1523/JNEUROSCI.23-35-11167.2003.
    """

    threshold: float = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, threshold: float = 3.0, only: Sequence[str] | None = None):
        self.threshold = _threshold(threshold)
        self.only = positions(_AVALANCHES, only, "avalanches")

    def __call__(self, y: Array, period: float) -> Array:
        active = _above(y, self.threshold, absolute=True)
        going = active.any(axis=1)
        length = y.shape[0]
        count = _runs(going).astype(y.dtype)
        frames, events = going.sum().astype(y.dtype), active.sum().astype(y.dtype)
        numbers = [
            count * (1000.0 / (length * period)),
            ratio(events, count),
            period * ratio(frames, count),
            frames / length,
        ]
        return jnp.where(jnp.isnan(y).any(), jnp.nan, jnp.stack(numbers))[np.array(self.only)]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(_AVALANCHES[i] for i in self.only)
