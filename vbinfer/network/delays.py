"""Conduction delays: what was sent is read when it arrives."""

import functools
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
from vbinfer.network.dense import Dense
from vbinfer.network.edges import EdgeList
from vbinfer.network.ring import padded, times

Rows = tuple[Array, ...]
SHORTEST_BLOCK, LONGEST_BLOCK = 4, 24
"""Steps of lag worth reading at once, and those beyond which nothing is gained."""


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
      of these two derivatives first order: the slope of a chord, which jumps where a lag passes a whole step.
    - `interpolate="cubic"`: what was sent (after `pre` of the coupling) is interpolated by a cubic that passes through
      the samples with the slopes of central differences. What arrives and its derivative with respect to the lag are
      continuous everywhere, and both are second order in dt. Four reads of the ring instead of two.

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
    interpolate: bool | str = eqx.field(static=True, default=False)
    ahead: int = eqx.field(static=True, default=0)
    """Steps that a batch reads at once; 0 for one at a time. `Simulator` sets it, and `near`."""
    near: int = eqx.field(static=True, default=0)
    """Connections whose lags are too short for that."""

    def measured(self, connectome: Connectome, dt: float) -> "Delays":
        """The same with `max` as a number, and blocks.

        For steps of `dt` ms.
        """
        if self.max is None and _is_traced(connectome):
            raise ValueError("Delays() cannot measure lengths that are being traced; write Delays(max=...) in ms")
        longest = longest_lag(connectome) if self.max is None else self.max
        return Delays(longest, self.interpolate, *_block(connectome, self.interpolate, dt))

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
        # ages 0 to ceil(max / dt), and one more: the older neighbour of the longest lag, for interpolation; cubic: two
        return math.ceil(self.max / dt - 1e-6) + (3 if self.interpolate == "cubic" else 2)

    def __check_init__(self) -> None:
        if not isinstance(self.interpolate, bool) and self.interpolate != "cubic":
            raise TypeError(
                f"Delays(interpolate={self.interpolate!r}) was given; expected False (rounded to steps), True (linear) "
                'or "cubic"'
            )


def _block(connectome: Connectome, interpolate: bool | str, dt: float) -> tuple[int, int]:
    """Steps to read at once, and number of shorter lags.

    The longer the block, the fewer passes over the ring, and the more connections are read step by step: a block is as
    long as all but one connection in 32 allow.
    """
    if connectome.edges is not None or _is_traced(connectome):
        return 0, 0
    lags = np.asarray(connectome.tract_lengths, np.float64) / float(connectome.speed) / dt
    lags = lags[lags > 0.0] * (1.0 - 1e-5)  # the program may round the other way
    youngest = (np.floor(lags) if interpolate else np.rint(lags)) - (interpolate == "cubic")
    if not len(youngest):
        return 0, 0
    steps = min(int(np.quantile(youngest, 1 / 32, method="lower")) - 1, LONGEST_BLOCK)
    return (steps, int((youngest <= steps).sum())) if steps >= SHORTEST_BLOCK else (0, 0)


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
    """For each row that the coupling sends, `[slot, N]` or, in a batch, `[N, slot + mirror, B]`: what was sent at a
    step stands in slot step modulo slots, from the step that is about to be taken."""
    arriving: Rows
    """What arrives now of what was sent at earlier steps, sum_j w_ij sent_j(t - lag_ij): rows `[N, ...batch]`."""


class Ahead(NamedTuple):
    """Reads of several steps at once, in a batch.

    Of connections whose lags exceed `steps`, that much of what will arrive is already in the ring.
    """

    steps: int
    read: Callable[[Array, Array, int], Array]
    """(ring, step, n) to what arrives over them at the steps step + 1 to step + n, n at most `steps`: `[n, N, B]`."""
    near: Callable[[Array, Array], Array]
    """(ring, step) to what arrives over the others at that step."""


class ConnectivityOps(NamedTuple):
    """From what nodes send to what they receive."""

    instant: Callable[[Array], Array]
    """What is sent now, `[N, ...]`, to sum_j w_ij sent_j over the connections without delay."""
    delayed: Callable[[Array, Array], Array] | None
    """(ring, step) to the sum over the connections with delay at that step; None where nothing is delayed."""
    strength: Array
    """sum_j w_ij, `[N]` or, in a batch, `[N, 1]` or `[N, B]`."""
    ahead: Ahead | None = None
    """The same as `delayed`, many steps at once; None where one step is read at a time."""

    @property
    def mirror(self) -> int:
        """Slots that stand twice in a ring."""
        return self.ahead.steps if self.ahead else 0

    def arriving(self, ring: Rows, step: Array, far: Rows | None = None) -> Rows:
        """What arrives at `step`.

        `far` is what of it was read ahead.
        """
        if far is None or self.ahead is None:
            assert self.delayed is not None
            return tuple(self.delayed(r, step) for r in ring)
        return tuple(a + self.ahead.near(r, step) for a, r in zip(far, ring, strict=True))


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
    # drawn lags differ from draw to draw, and so do the slices that a block would read
    drawn = lag.steps.ndim > layout.rank
    ahead = _ahead(connectome, delays, lag) if batched and delays.ahead and not drawn else None
    mirror = ahead.steps if ahead else 0
    if drawn:
        instant = _instant_by_draw(connectome, lag)
    else:
        shares = [jnp.where(lag.steps + k == 0, share, 0.0) for k, share in lag.taps]
        now = times(w, functools.reduce(jnp.add, shares))
        instant = lambda sent: layout.received(now, sent)  # noqa: E731
    reads = _reads(connectome, lag)
    if len(reads) == 1 and lag.steps.ndim > w.ndim:
        reads = [(w, lag.steps)]  # a weight for each draw would be read from memory at every step
    delayed = _sum(*(layout.reader(weight, age, mirror) for weight, age in reads))
    return ConnectivityOps(instant, lambda ring, step: delayed(ring, step) + lag.fault, strength, ahead)


def _sum(*fns: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *args: functools.reduce(jnp.add, (fn(*args) for fn in fns))


def _reads(connectome: Connectome, lag: "_Lag") -> list[tuple[Array, Array]]:
    """Weights and ages of what is read from the ring.

    The ages are at least 1: what is sent now is not in it.
    """
    w = connectome.weights
    return [
        (times(w, jnp.where(lag.steps + k > 0, share, 0.0)), jnp.maximum(lag.steps + k, 1)) for k, share in lag.taps
    ]


def _ahead(connectome: Connectome, delays: Delays, lag: "_Lag") -> Ahead:
    """Reads in blocks, and those of shorter lags.

    Which these are is looked up in the program. How many, `delays.near`, is what the connectome had at construction:
    of another one, bound since, all pairs are read at every step if there are more.
    """
    layout, n, k = connectome.layout, delays.ahead, lag.taps[0][0]
    under_way = (lag.time > 0.0) if delays.interpolate else lag.steps > 0
    far, near = lag.steps + k > n, under_way & (lag.steps + k <= n)
    assert isinstance(layout, Dense)
    blocks, every, few = [], [], []
    i, j = jnp.nonzero(near, size=delays.near, fill_value=0)
    listed, short = jnp.arange(delays.near) < near.sum(), EdgeList(jnp.stack([i, j]), connectome.n_nodes)
    for weight, age in _reads(connectome, lag):
        blocks.append(layout.block_reader(times(weight, far), age, n))
        every.append(layout.reader(times(weight, near), age, n))
        few.append(short.reader(times(weight[i, j], listed), age[i, j], n))
    fits, fault = near.sum() <= delays.near, lag.fault[None] if lag.fault.ndim else lag.fault

    def read(ring: Array, step: Array, n: int) -> Array:
        return _sum(*blocks)(ring, step, n) + fault

    return Ahead(n, read, lambda ring, step: jax.lax.cond(fits, _sum(*few), _sum(*every), ring, step))


class _Lag(NamedTuple):
    steps: Array
    """Whole steps of lag of every pair, int32: `[N, N]` or `[edge]`, with the batch appended where it is drawn."""
    time: Array
    """Lag in ms."""
    taps: list[tuple[int, Array]]
    """Steps beyond the whole ones, increasing, and the share of what was sent then in what arrives."""
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
    steps = jnp.clip(jnp.nan_to_num(whole), 0.0, math.ceil(delays.max / dt - 1e-6)).astype(jnp.int32)
    part = time / dt - whole if delays.interpolate else jnp.zeros((), w.dtype)
    taps = _cubic(steps, part) if delays.interpolate == "cubic" else [(0, 1.0 - part), (1, part)]
    return _Lag(steps, time, taps if delays.interpolate else taps[:1], fault[None] if fault.ndim else fault)


def _cubic(steps: Array, part: Array) -> list[tuple[int, Array]]:
    """Shares of four neighbours in a cubic.

    It has the slopes of central differences (Catmull & Rom 1974, doi:10.1016/B978-0-12-079050-0.50020-5), so that value
    and slope at a whole step are the same from both sides. The newest neighbour of a lag below one step is not known
    yet: there it is the parabola through the three that are, whose slope at one step is the central difference.

        lag      0         1         2         3        steps
                 x---------x---------x---------x
                 parabola  | cubic of 0, 1, 2, 3 |
    """
    p, first = part, steps == 0
    cubic = (p * (p * (2.0 - p) - 1.0), 2.0 + p**2 * (3.0 * p - 5.0), p * (1.0 + p * (4.0 - 3.0 * p)), p**2 * (p - 1.0))
    parabola = (0.0 * p, (p - 1.0) * (p - 2.0), 2.0 * p * (2.0 - p), p * (p - 1.0))
    return [(k - 1, 0.5 * jnp.where(first, b, a)) for k, (a, b) in enumerate(zip(cubic, parabola, strict=True))]


def _instant_by_draw(connectome: Connectome, lag: _Lag) -> Callable[[Array], Array]:
    """Connections without delay, where lags differ between draws.

    Those of length zero are without delay in every draw, a matrix product; the few others that may be are looked for
    once, and a sum over `[N, N, B]` is done at each step only if there are any.
    """
    w, lengths, layout = connectome.weights, connectome.tract_lengths, connectome.layout
    shared = lengths.ndim == layout.rank
    zero = lengths == 0.0 if shared else jnp.zeros((), bool)
    steps, zero_of_draw = padded(lag.steps, zero)
    shares = [jnp.where((steps + k == 0) & ~zero_of_draw, share, 0.0) for k, share in lag.taps]
    some = times(w, functools.reduce(jnp.add, shares))
    always = times(w, jnp.where(zero, 1.0, 0.0).astype(w.dtype)) if shared else None
    any_others = ((steps + lag.taps[0][0] <= 0) & ~zero_of_draw).any()

    def instant(sent: Array) -> Array:
        rest = jax.lax.cond(any_others, lambda s: layout.received(some, s), jnp.zeros_like, sent)
        return rest if always is None else layout.received(always, sent) + rest

    return instant
