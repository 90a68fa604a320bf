"""Conduction delays: what a node sent is kept for the longest lag, and read when it arrives."""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer._param import Parametrised
from vbinfer.network.connectome import Connectome

Rows = tuple[Array, ...]


def _milliseconds(value: float | np.number | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"Delays(max={value!r}) was given; expected a number of ms, 0 or more, or None")
    return float(value)


class Delays(Parametrised):
    """Delays of `tract_lengths / speed`: node i receives at time t what node j sent at t - lag_ij.

    What was sent is kept in a ring buffer of max/dt slots, so memory does not grow with the simulated time. Lengths and
    speed stay parameters (`connectome.tract_lengths`, `connectome.speed`).

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
        >>> vb.network.delays.longest_lag(network)      # 60 mm at 3 mm/ms
        20.0
    """

    max: float | None = eqx.field(static=True, default=None, converter=_milliseconds)
    interpolate: bool = eqx.field(static=True, default=False)

    def measured(self, connectome: Connectome) -> "Delays":
        """The same with `max` as a number."""
        if self.max is not None:
            return self
        if _is_traced(connectome):
            raise ValueError("Delays() cannot measure lengths that are being traced; write Delays(max=...) in ms")
        return Delays(longest_lag(connectome), self.interpolate)

    def check(self, connectome: Connectome) -> None:
        """Raise ValueError when a connection is longer than the ring; nothing for traced values."""
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
    """What the nodes did before time zero: pass it as `init=`.

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
    """Prepare a connectome for steps of `dt` ms; `batched` when states are `[N, B]`."""
    w, received = connectome.weights, connectome.received
    strength = connectome.strength
    if batched and strength.ndim == 1:
        strength = strength[:, None]
    if delays is None:
        return ConnectivityOps(lambda sent: received(w, sent), None, strength)
    lag = _lag(connectome, delays, dt)
    if lag.steps.ndim > connectome.pair_rank:
        instant = _instant_by_draw(connectome, lag)
    else:
        now = _times(w, jnp.where(lag.steps == 0, 1.0 - lag.part, 0.0))
        instant = lambda sent: received(now, sent)  # noqa: E731
    reads = [(_times(w, jnp.where(lag.steps == 0, 0.0, 1.0 - lag.part)), jnp.maximum(lag.steps, 1))]
    if delays.interpolate:
        reads.append((_times(w, lag.part), lag.steps + 1))
    elif lag.steps.ndim > w.ndim:
        reads = [(w, lag.steps)]  # a weight for each draw would be read from memory at every step
    readers = [_reader(connectome, weight, age) for weight, age in reads]

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
    w, lengths, speed = connectome.weights, connectome.tract_lengths, connectome.speed
    assert delays.max is not None
    if speed.ndim and lengths.ndim == connectome.pair_rank:
        lengths = lengths[..., None]
    if speed.ndim:  # one for each draw, [1, B]
        speed = speed.reshape((1,) * connectome.pair_rank + (-1,))
    time = lengths / speed
    present = w != 0.0
    fits = (time >= 0.0) & (time <= delays.max * (1.0 + 1e-6))  # false for NaN
    if fits.ndim > present.ndim:
        present = present[..., None]
    elif present.ndim > fits.ndim:
        fits = fits[..., None]
    bad = (present & ~fits) | ~(speed > 0.0)
    bad = bad.any(axis=tuple(range(connectome.pair_rank)))
    fault = jnp.where(bad, jnp.nan, 0.0).astype(w.dtype)
    fixed = jax.lax.stop_gradient(time) / dt
    whole = jnp.floor(fixed) if delays.interpolate else jnp.round(fixed)
    steps = jnp.clip(jnp.nan_to_num(whole), 0.0, delays.slots(dt) - 2).astype(jnp.int32)
    part = time / dt - whole if delays.interpolate else jnp.zeros((), w.dtype)
    return _Lag(steps, part, fault[None] if fault.ndim else fault)


def _times(w: Array, factor: Array) -> Array:
    """w * factor, either of which may have a batch axis that the other lacks."""
    if factor.ndim and factor.ndim < w.ndim:
        factor = factor[..., None]
    elif factor.ndim > w.ndim:
        w = w[..., None]
    return w * factor


def _instant_by_draw(connectome: Connectome, lag: _Lag) -> Callable[[Array], Array]:
    """The connections without delay where lags differ between draws.

    Those of length zero are without delay in every draw, a matrix product; the few others that may be are looked for
    once, and a sum over `[N, N, B]` is done at each step only if there are any.
    """
    w, lengths, received = connectome.weights, connectome.tract_lengths, connectome.received
    zero = lengths == 0.0 if lengths.ndim == connectome.pair_rank else jnp.zeros((), bool)
    others = (lag.steps == 0) & ~(zero[..., None] if zero.ndim else zero)
    always = _times(w, jnp.where(zero, 1.0, 0.0).astype(w.dtype)) if zero.ndim else None
    some = _times(w, jnp.where(others, 1.0 - lag.part, 0.0))
    any_others = others.any()

    def instant(sent: Array) -> Array:
        rest = jax.lax.cond(any_others, lambda s: received(some, s), jnp.zeros_like, sent)
        return rest if always is None else received(always, sent) + rest

    return instant


def _reader(connectome: Connectome, weight: Array, age: Array) -> Callable[[Array, Array], Array]:
    """(ring, step) to sum_j weight_ij sent_j(step - age_ij) over the pairs with age_ij > 0, of weight 0 otherwise."""
    if connectome.edges is not None:
        return _read_edges(connectome, weight, age)
    weight_of, age_of = jnp.moveaxis(weight, 1, 0), jnp.moveaxis(age, 1, 0)  # source first

    @jax.checkpoint  # the backward pass makes the indices anew instead of keeping [N, N] of them for every step
    def look(ring: Array, position: Array) -> Array:
        return _sent(ring, position, age_of, jnp.arange(ring.shape[1])[:, None])

    def read(ring: Array, step: Array) -> Array:
        slots, n = ring.shape[:2]
        position = step % slots
        if ring.ndim == 2:
            return (weight_of * look(ring, position)).sum(axis=0)

        def from_source(j: Array, total: Array) -> Array:
            age = jax.lax.dynamic_index_in_dim(age_of, j, 0, keepdims=False)
            sent = _sent(ring, position, age, j)
            w = jax.lax.dynamic_index_in_dim(weight_of, j, 0, keepdims=False)
            return total + (w if w.ndim == 2 else w[:, None]) * sent

        return jax.lax.fori_loop(0, n, from_source, jnp.zeros(ring.shape[1:], ring.dtype))

    return read


def _read_edges(connectome: Connectome, weight: Array, age: Array) -> Callable[[Array, Array], Array]:
    assert connectome.edges is not None
    source = connectome.edges[1]

    def read(ring: Array, step: Array) -> Array:
        node = source[:, None] if age.ndim == 2 else source
        return connectome.gathered(_times(weight, _sent(ring, step % ring.shape[0], age, node)))

    return read


def _sent(ring: Array, position: Array, age: Array, node: Array) -> Array:
    """What `node` sent `age` steps before the step of slot `position`.

    From a ring `[slot, N]` entries in the shape of `age`. From `[slot, N, B]`, ages `[pair]` that the draws share give
    rows `[pair, B]`, and ages `[pair, B]` their own entries, zero where the age is: nothing was under way.
    """
    slots, n = ring.shape[:2]
    slot = position - age
    row = jnp.where(slot < 0, slot + slots, slot) * n + node
    if ring.ndim == 2:
        return _at(ring.reshape(-1), row)
    width = ring.shape[2]
    if age.ndim == 1:
        return _at(ring.reshape(-1, width), row)
    return jnp.where(age > 0, _at(ring.reshape(-1), row * width + jnp.arange(width)[None]), 0.0)


def _at(a: Array, index: Array) -> Array:
    return a.at[index].get(mode="promise_in_bounds")


def fill(sent: Array, slots: int) -> Array:
    """The ring at step 0 from what was sent at the steps up to it, `[H, N, ...]`, oldest first."""
    steps = jnp.arange(-slots + 1, 1)
    rows = sent[jnp.maximum(steps + sent.shape[0] - 1, 0)]
    return jnp.zeros_like(rows).at[steps % slots].set(rows)


def write(ring: Array, step: Array, sent: Array) -> Array:
    """The ring with what is sent at `step` in its slot."""
    return jax.lax.dynamic_update_index_in_dim(ring, sent.astype(ring.dtype), step % ring.shape[0], 0)
