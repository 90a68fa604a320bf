"""Stimuli: input u(t) from outside.

The same for every node, or scaled by a gain for each.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vbinfer import _check
from vbinfer._param import Param, Parametrised, is_traced, param

SECONDS_PER_MS = 1e-3
_DOSE = 0.01
"""Share by which the time that a pulse acts may differ from its duration."""


class AbstractStimulus(Parametrised):
    """Base of stimuli, functions of time.

    All parameters can have priors: `"stimulus.amplitude"`.

    A moment of time within 1.5 eps |t| of an edge is taken to lie on it, which is the rounding of `step * dt`: 0.05 ms
    at t = 300 s in float32, so that an edge on a step begins at that very step while dt > 3 eps t (0.1 ms there).
    """

    @abc.abstractmethod
    def __call__(self, t: Array, like: Array) -> Array:
        """The input u at time t.

        Args:
            t: ms, a scalar.
            like: a state variable `[N]` or `[N, B]`; only its shape is read.

        Returns:
            A scalar, or an array of the rank of `like` that broadcasts to it: `[N]`; `[1, B]`, `[N, 1]`, `[N, B]`.
        """

    def check_nodes(self, n: int) -> None:
        """Raise ValueError unless its tables fit `n` nodes."""

    def doubts(self, dt: float) -> list[str]:
        """What steps of `dt` ms miss, in sentences."""
        return []


def _edge(t: Array, at: Array, rise: Array) -> Array:
    """An edge, smooth where it takes time.

    0 before `at`, 1 from `at + rise` on, in between 3 x^2 - 2 x^3 with x = (t - at) / rise.
    """
    soft = rise > 0.0
    # guarded before the division, so that the gradient of a hard edge is 0 and not NaN
    x = jnp.clip((t - at) / jnp.where(soft, rise, 1.0), 0.0, 1.0)
    late = t - at >= -1.5 * jnp.finfo(jnp.result_type(t, float)).eps * jnp.abs(t)
    return jnp.where(soft, x * x * (3.0 - 2.0 * x), jnp.where(late, 1.0, 0.0))


def _unseen(begin: ArrayLike, end: ArrayLike, rise: ArrayLike, dt: float, last: ArrayLike | None = None) -> list[str]:
    """What steps of `dt` miss of a pulse."""
    if is_traced(begin, end, rise):
        return []
    # of several nodes or trials one example will do
    start, stop, soft = (float(np.ravel(np.asarray(value, float))[0]) for value in (begin, end, rise))
    if soft > 0.0 or not stop > start:
        return []
    found = []
    seen = dt * (np.ceil(stop / dt - 1e-3) - np.ceil(start / dt - 1e-3))
    if abs(seen - (stop - start)) > _DOSE * (stop - start):
        found.append(
            f"a pulse of {stop - start:g} ms from {start:g} ms on acts for {seen:g} ms in steps of {dt:g} ms; let "
            "onset and duration be multiples of dt, or give it a rise"
        )
    late = float(np.max(np.asarray(stop if last is None else last, float)))
    if late * 3.0 * jnp.finfo(jnp.result_type(float)).eps > dt:
        found.append(
            f"an edge at {late:,.0f} ms may come a step of {dt:g} ms early: times are not known better there; take a "
            "larger dt, float64, or let the pulse come earlier"
        )
    return found


class Pulse(AbstractStimulus):
    """One rectangular pulse.

    u_i(t) = gain_i amplitude [h(t - onset) - h(t - onset - duration)]

    With `rise = 0`, h(s) is 1 for s >= 0: the pulse holds on [onset, onset + duration), and its derivatives with
    respect to onset and duration are 0 almost everywhere. With `rise > 0`, h(s) = 3 x^2 - 2 x^3, x = s / rise limited
    to [0, 1]: both edges take `rise` ms, starting at onset and at onset + duration, the area stays amplitude *
    duration, and u is continuously differentiable in every parameter. To infer the onset by gradients, take a rise of
    some dt. An integrator that reads u at both ends of a step (Heun) sees a hard edge dt / 2 early.

    >>> import jax.numpy as jnp
    >>> pulse = Pulse(onset=10.0, duration=5.0, amplitude=2.0, gain=[0.0, 1.0])
    >>> [pulse(jnp.asarray(t), jnp.zeros(2)).tolist() for t in (9.9, 10.0, 15.0)]
    [[0.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    """

    onset: Param = param(unit="ms", doc="when the pulse begins")
    duration: Param = param(unit="ms", low=0.0, doc="from the beginning of the rise to the beginning of the fall")
    amplitude: Param = param(doc="height, in the unit of the coupling input")
    gain: Param = param(1.0, doc="share of each node")
    rise: Param = param(0.0, unit="ms", low=0.0, doc="duration of either edge")

    def doubts(self, dt: float) -> list[str]:
        return _unseen(self.onset, self.onset + self.duration, self.rise, dt)

    def __call__(self, t: Array, like: Array) -> Array:
        level = _edge(t, self.onset, self.rise) - _edge(t, self.onset + self.duration, self.rise)
        return self.gain * self.amplitude * level


class PulseTrain(AbstractStimulus):
    """Equal pulses, one every `interval`.

    u_i(t) = gain_i amplitude sum_{k=0}^{count-1} [h(t - t_k) - h(t - t_k - duration)],   t_k = onset + k interval

    h is that of `Pulse`, and so is what `rise` does. A pulse must be over when the next one begins:
    duration + rise <= interval; inside a trace the input is NaN where it is not, a failed draw. `count` is fixed when
    the stimulus is built; None is without end.
    """

    onset: Param = param(unit="ms", doc="when the first pulse begins")
    duration: Param = param(unit="ms", low=0.0, doc="of one pulse, without its fall")
    interval: Param = param(unit="ms", low=1e-6, doc="from the beginning of a pulse to that of the next")
    amplitude: Param = param(doc="height, in the unit of the coupling input")
    gain: Param = param(1.0, doc="share of each node")
    rise: Param = param(0.0, unit="ms", low=0.0, doc="duration of either edge")
    count: int | None = eqx.field(static=True, default=None)

    def validate(self) -> None:
        if self.count is not None:
            _check.count(self.count, "count", 10)
        if is_traced(self.duration, self.rise, self.interval):
            return
        # in NumPy: inside a trace JAX would make traced arrays of constants
        busy, interval = np.asarray(self.duration) + np.asarray(self.rise), np.asarray(self.interval)
        if np.any(busy > interval * (1.0 + 1e-6)):
            raise ValueError(
                f"PulseTrain: duration + rise is {busy.max():g} ms but interval is {interval.min():g} ms; "
                "a pulse must be over when the next one begins"
            )

    def doubts(self, dt: float) -> list[str]:
        last = None if self.count is None else self.onset + self.duration + (self.count - 1) * self.interval
        return _unseen(self.onset, self.onset + self.duration, self.rise, dt, last)

    def __call__(self, t: Array, like: Array) -> Array:
        nearest = jnp.floor((t - self.onset) / self.interval)
        level = jnp.zeros_like(nearest)
        for k in (nearest - 1.0, nearest, nearest + 1.0):  # rounding may put an edge into the interval next to it
            begin = self.onset + k * self.interval
            one = _edge(t, begin, self.rise) - _edge(t, begin + self.duration, self.rise)
            exists = k >= 0.0 if self.count is None else (k >= 0.0) & (k < self.count)
            level = level + jnp.where(exists, one, 0.0)
        level = jnp.where(self.duration + self.rise <= self.interval * (1.0 + 1e-6), level, jnp.nan)
        return self.gain * self.amplitude * level


class Sinusoid(AbstractStimulus):
    """A sine wave that begins at `onset`.

    In float32 times are known to t 2^-24: after 20 minutes to 0.06 ms, 0.03 of the amplitude at 40 Hz.

    u_i(t) = gain_i amplitude sin(2 pi frequency (t - onset) / 1000 + phase) for t >= onset, else 0
    """

    frequency: Param = param(unit="Hz", low=0.0, doc="cycles per second")
    amplitude: Param = param(doc="half the distance from trough to peak, in the unit of the coupling input")
    phase: Param = param(0.0, unit="rad", doc="phase at onset")
    onset: Param = param(0.0, unit="ms", doc="when the wave begins")
    gain: Param = param(1.0, doc="share of each node")

    def __call__(self, t: Array, like: Array) -> Array:
        cycles = self.frequency * SECONDS_PER_MS * (t - self.onset)
        turn = cycles - jnp.floor(cycles)  # the sine of a large angle would lose what float32 still knows of it
        wave = jnp.sin(2.0 * jnp.pi * turn + self.phase)
        return self.gain * self.amplitude * wave * _edge(t, self.onset, jnp.zeros_like(self.onset))


class Ramp(AbstractStimulus):
    """A level that changes linearly to another.

    And stays there.

    u_i(t) = gain_i [low + (high - low) x],   x = (t - onset) / duration limited to [0, 1]
    """

    onset: Param = param(unit="ms", doc="when the change begins")
    duration: Param = param(unit="ms", low=1e-6, doc="of the change")
    low: Param = param(doc="level before, in the unit of the coupling input")
    high: Param = param(doc="level after")
    gain: Param = param(1.0, doc="share of each node")

    def __call__(self, t: Array, like: Array) -> Array:
        x = jnp.clip((t - self.onset) / self.duration, 0.0, 1.0)
        return self.gain * (self.low + (self.high - self.low) * x)


class Table(AbstractStimulus):
    """Values given at moments of time.

    Linear in between and constant outside.

    u_i(t) = gain_i [v_ki + (v_{k+1,i} - v_ki) (t - t_k) / (t_{k+1} - t_k)],   t_k <= t < t_{k+1}

    A time that occurs twice is a jump, to the second of its values.

    Args:
        times: `[time]`, ms, not decreasing; inside a trace the input is NaN where they do, a failed draw.
        values: `[time, node]` in the unit of the coupling input; `[time, 1]` is the same for every node.
        gain: share of each node.
    """

    times: Param = param(unit="ms", axes=("time",), doc="moments at which values are given")
    values: Param = param(axes=("time", "node"), doc="input at these moments")
    gain: Param = param(1.0, doc="share of each node")

    def validate(self) -> None:
        times, values = self.times, self.values
        if times.ndim != 1 or values.ndim != 2 or len(values) != len(times) or not len(times):
            raise ValueError(
                f"Table was given times {list(times.shape)} and values {list(values.shape)}; "
                "expected [time] and [time, node]; values[:, None] is the same for every node"
            )
        if is_traced(times):
            return
        back = np.asarray(times)[1:] < np.asarray(times)[:-1]
        if back.any():
            k = int(np.argmax(back))
            raise ValueError(f"Table: times must not decrease; {times[k]:g} ms is followed by {times[k + 1]:g} ms")

    def check_nodes(self, n: int) -> None:
        if self.values.shape[1] not in (1, n):
            raise ValueError(
                f"the table of the stimulus has values for {self.values.shape[1]} nodes but there are {n}; "
                f"give values [time, {n}], or [time, 1] for the same at every node"
            )

    def __call__(self, t: Array, like: Array) -> Array:
        values = self.values[..., None] if self.values.ndim == like.ndim else self.values  # a table all draws share
        if self.times.ndim == 1:
            return self.gain * jnp.where(_is_sorted(self.times), _interpolate(t, self.times, values), jnp.nan)
        values = jnp.broadcast_to(values, (*values.shape[:-1], self.times.shape[1]))
        u = jax.vmap(_interpolate, in_axes=(None, -1, -1), out_axes=-1)(t, self.times, values)
        return self.gain * jnp.where(_is_sorted(self.times)[None], u, jnp.nan)


def _is_sorted(times: Array) -> Array:
    return jnp.all(times[1:] >= times[:-1], axis=0)


def _interpolate(t: Array, times: Array, values: Array) -> Array:
    """The row of `values`, `[T, ...]`, at time t."""
    n = len(times)
    k = jnp.searchsorted(times, t, side="right")  # of a time that occurs twice, the second value
    before, after = jnp.maximum(k - 1, 0), jnp.minimum(k, n - 1)
    gap = times[after] - times[before]
    x = jnp.where(gap > 0.0, (t - times[before]) / jnp.where(gap > 0.0, gap, 1.0), 0.0)
    return values[before] + (values[after] - values[before]) * x
