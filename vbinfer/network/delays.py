"""Conduction delays: what was sent is read when it arrives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer._check import number
from vbinfer._param import Parametrised
from vbinfer.network.connectome import Connectome
from vbinfer.network.ring import padded, times

Rows = tuple[Array, ...]


def _longest(value: Any) -> float | None:
    return None if value is None else number(value, "max", 80.0, "a number of ms, 0 or more, or None", least=0.0)


class Delays(Parametrised):
    """Delays of `tract_lengths / speed`.

    Node i receives at time t what node j sent at t - lag_ij. What was sent is kept in a ring buffer of max/dt slots, so
    memory does not grow with the simulated time. Lengths and speed stay parameters (`connectome.tract_lengths`,
    `connectome.speed`).

    - `interpolate=False`: lags are rounded to steps, round(lag / dt) with halves to the even number, as TVB does. A
      lag of 0 steps reads the state of the current stage of the integrator. The derivative with respect to speed and
      lengths is exactly 0.
    - `interpolate=True`: what was sent is interpolated linearly between steps, with the current stage as the newest
      point. d/d(speed) and d/d(tract_lengths) exist. Where the history is smooth the error is second order in dt, that
      of these two derivatives first order.

    Lags are computed in the precision of the simulation: a length / speed / dt within rounding of a half step may be
    rounded either way.

    Before time zero a node sent its initial state, or what `init=History(...)` says.

    Args:
        max: the longest lag that the ring can hold, ms; None measures it from the connectome (its connections of
            non-zero weight). A longer lag is an error when the simulator is built, and gives NaN, hence an invalid
            draw, where speed or lengths are drawn: set `max` to the longest lag under the prior.
        interpolate: see above.

    Example:
        >>> import vbinfer as vb
        >>> network = vb.Connectome([[0.0, 1.0], [0.5, 0.0]], [[0.0, 30.0], [60.0, 0.0]], speed=3.0)
        >>> longest_lag(network)      # 60 mm at 3 mm/ms
        20.0
    """

    max: float | None = eqx.field(static=True, default=None, converter=_longest)
    interpolate: bool = eqx.field(static=True, default=False)

    def measured(self, connectome: Connectome) -> "Delays":
        """The same with `max` as a number."""
        if self.max is not None:
            return self
        if _is_traced(connectome):
            raise ValueError("Delays() cannot measure lengths that are being traced; write Delays(max=...) in ms")
        return Delays(longest_lag(connectome), self.interpolate)

    def check(self, connectome: Connectome) -> None:
        """Raise ValueError where a connection exceeds the ring.

        Values that are being traced are not looked at.
        """
        if _is_traced(connectome):
            return
        longest = longest_lag(connectome)
        if self.max is not None and longest > self.max * (1.0 + 1e-6):
            least = math.ceil(longest * 10.0) / 10.0
            raise ValueError(
                f"longest delay is {longest:.4g} ms but Delays(max={self.max:g}); set max to at least {least:g}"
            )

    def slots(self, dt: float) -> int:
        """Number of slots of the ring."""
        assert self.max is not None
        # ages 0 to ceil(max / dt), and one more: the older neighbour of the longest lag, for interpolation
        return math.ceil(self.max / dt - 1e-6) + 2

    def __check_init__(self) -> None:
        if not isinstance(self.interpolate, bool):
            raise TypeError(f"Delays(interpolate={self.interpolate!r}) was given; expected True or False")


def _is_traced(connectome: Connectome) -> bool:
    return any(isinstance(a, Tracer) for a in (connectome.weights, connectome.tract_lengths, connectome.speed))


def longest_lag(connectome: Connectome) -> float:
    """The longest tract_length / speed of a connection, ms."""
    lengths = np.where(np.asarray(connectome.weights) != 0.0, np.asarray(connectome.tract_lengths), 0.0)
    return float(lengths.max(initial=0.0)) / float(connectome.speed)


class History(eqx.Module):
    """What the nodes did before time zero, for `init=`.

    Args:
        state: the model's State with leaves `[H, N]`, rows dt apart, oldest first; the last row is the state at time
            zero. Before its first row the state is that of the first row; only the last max/dt rows matter.
    """

    state: Any


class DelayBuffer(NamedTuple):
    """Delay buffer: what was sent and has yet to arrive."""

    ring: Rows
    """For each row that the coupling sends, `[slot, N, ...batch]`: what was sent at a step stands in slot step modulo
    slots, from the step that is about to be taken."""
    arriving: Rows
    """What arrives now of what was sent at earlier steps, sum_j w_ij sent_j(t - lag_ij): rows `[N, ...batch]`."""


class ConnectivityOps(NamedTuple):
    """From what nodes send to what they receive."""

    instant: Callable[[Array], Array]
    """What is sent now, `[N, ...]`, to sum_j w_ij sent_j over the connections without delay."""
    delayed: Callable[[Array, Array], Array] | None
    """(ring, step) to the sum over the connections with delay at that step; None where nothing is delayed."""
    strength: Array
    """sum_j w_ij, `[N]` or, in a batch, `[N, 1]` or `[N, B]`."""


def connectivity_ops(connectome: Connectome, delays: Delays | None, dt: float, batched: bool) -> ConnectivityOps:
    """Prepare a network for steps of `dt` ms.

    `batched` when states are `[N, B]`.
    """
    w, layout = connectome.weights, connectome.layout
    strength = layout.strength(w)
    if batched and strength.ndim == 1:
        strength = strength[:, None]
    if delays is None:
        return ConnectivityOps(lambda sent: layout.received(w, sent), None, strength)
    lag = _lag(connectome, delays, dt)
    if lag.steps.ndim > layout.rank:
        instant = _instant_by_draw(connectome, lag)
    else:
        now = times(w, jnp.where(lag.steps == 0, 1.0 - lag.part, 0.0))
        instant = lambda sent: layout.received(now, sent)  # noqa: E731
    # what arrives from between steps: share 1 - part of the newer one, part of the older one. A lag of 0 whole steps
    # reads the current stage for the newer one, which is `instant`, and not the ring
    reads = [(times(w, jnp.where(lag.steps == 0, 0.0, 1.0 - lag.part)), jnp.maximum(lag.steps, 1))]
    if delays.interpolate:
        reads.append((times(w, lag.part), lag.steps + 1))
    elif lag.steps.ndim > w.ndim:
        reads = [(w, lag.steps)]  # a weight for each draw would be read from memory at every step
    readers = [layout.reader(weight, age) for weight, age in reads]

    def delayed(ring: Array, step: Array) -> Array:
        total = readers[0](ring, step)
        for read in readers[1:]:
            total = total + read(ring, step)
        return total + lag.fault

    return ConnectivityOps(instant, delayed, strength)


class _Lag(NamedTuple):
    steps: Array
    """Whole steps of lag of every pair, int32: `[N, N]` or `[edge]`, with the batch appended where it is drawn."""
    part: Array
    """The fraction of a step beyond them; 0 without interpolation."""
    fault: Array
    """0, or NaN where a lag does not fit the ring or a speed is not positive: the draw fails visibly."""


def _lag(connectome: Connectome, delays: Delays, dt: float) -> _Lag:
    w, lengths, speed, rank = connectome.weights, connectome.tract_lengths, connectome.speed, connectome.layout.rank
    assert delays.max is not None
    if speed.ndim:  # one for each draw, [1, B]
        speed = speed.reshape((1,) * (rank - 1) + speed.shape)
    lengths, speed = padded(lengths, speed)
    time = lengths / speed
    fits = (time >= 0.0) & (time <= delays.max * (1.0 + 1e-6))  # false for NaN
    present, fits = padded(w != 0.0, fits)
    # only connections that exist: the length of a missing one may be anything
    bad = (present & ~fits) | ~(speed > 0.0)
    bad = bad.any(axis=tuple(range(rank)))
    fault = jnp.where(bad, jnp.nan, 0.0).astype(w.dtype)
    # whole steps are constants to the derivative; with interpolation that of `part` is left
    fixed = jax.lax.stop_gradient(time) / dt
    whole = jnp.floor(fixed) if delays.interpolate else jnp.round(fixed)
    steps = jnp.clip(jnp.nan_to_num(whole), 0.0, delays.slots(dt) - 2).astype(jnp.int32)
    part = time / dt - whole if delays.interpolate else jnp.zeros((), w.dtype)
    return _Lag(steps, part, fault[None] if fault.ndim else fault)


def _instant_by_draw(connectome: Connectome, lag: _Lag) -> Callable[[Array], Array]:
    """Connections without delay, where lags differ between draws.

    Those of length zero are without delay in every draw, a matrix product; the few others that may be are looked for
    once, and a sum over `[N, N, B]` is done at each step only if there are any.
    """
    w, lengths, layout = connectome.weights, connectome.tract_lengths, connectome.layout
    shared = lengths.ndim == layout.rank
    zero = lengths == 0.0 if shared else jnp.zeros((), bool)
    steps, zero_of_draw = padded(lag.steps, zero)
    some = times(w, jnp.where((steps == 0) & ~zero_of_draw, 1.0 - lag.part, 0.0))
    always = times(w, jnp.where(zero, 1.0, 0.0).astype(w.dtype)) if shared else None
    any_others = ((steps == 0) & ~zero_of_draw).any()

    def instant(sent: Array) -> Array:
        rest = jax.lax.cond(any_others, lambda s: layout.received(some, s), jnp.zeros_like, sent)
        return rest if always is None else layout.received(always, sent) + rest

    return instant
