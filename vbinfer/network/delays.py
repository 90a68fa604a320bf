"""Conduction delays: what was sent is read when it arrives."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import number
from vbinfer._param import Parametrised, is_traced
from vbinfer.network.connectome import Connectome
from vbinfer.network.ring import padded

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
        if self.max is None and is_traced(connectome):
            raise ValueError("Delays() cannot measure lengths that are being traced; write Delays(max=...) in ms")
        longest = longest_lag(connectome) if self.max is None else self.max
        return Delays(longest, self.interpolate, *_block(connectome, self.interpolate, dt))

    def check(self, connectome: Connectome) -> None:
        """Raise ValueError where a connection exceeds the ring.

        Values that are being traced are not looked at.
        """
        if is_traced(connectome):
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
    if is_traced(connectome):
        return 0, 0
    lags = np.asarray(connectome.tract_lengths, np.float64) / float(connectome.speed) / dt
    lags = lags[lags > 0.0] * (1.0 - 1e-5)  # the program may round the other way
    youngest = (np.floor(lags) if interpolate else np.rint(lags)) - (interpolate == "cubic")
    if not len(youngest):
        return 0, 0
    steps = min(int(np.quantile(youngest, 1 / 32, method="lower")) - 1, LONGEST_BLOCK)
    return (steps, int((youngest <= steps).sum())) if steps >= SHORTEST_BLOCK else (0, 0)


def longest_lag(connectome: Connectome) -> float:
    """The longest tract_length / speed of a connection, ms."""
    lengths = np.where(np.asarray(connectome.weights) != 0.0, np.asarray(connectome.tract_lengths), 0.0)
    return float(lengths.max(initial=0.0)) / float(connectome.speed)


def shortest_lag(connectome: Connectome) -> float | None:
    """Shortest lag of a connection, ms.

    None while traced, or without connections.
    """
    if is_traced(connectome):
        return None
    present = np.asarray(connectome.weights) != 0.0
    lengths = np.asarray(connectome.tract_lengths)[present]
    return float(lengths.min()) / float(connectome.speed) if lengths.size else None


class History(eqx.Module):
    """What the nodes did before time zero, for `init=`.

    Args:
        state: the model's State with leaves `[H, N]`, rows dt apart, oldest first; the last row is the state at time
            zero. Before its first row the state is that of the first row; only the last max/dt rows matter.
    """

    state: Any


class Lag(NamedTuple):
    """Lags of all connections."""

    steps: Array
    """Whole steps of lag of every pair, int32: `[N, N]` or `[edge]`, with the batch appended where it is drawn."""
    time: Array
    """Lag in ms."""
    taps: list[tuple[int, Array]]
    """Steps beyond the whole ones, increasing, and the share of what was sent then in what arrives."""
    fault: Array
    """0, or NaN where a lag does not fit the ring or a speed is not positive: the draw fails visibly."""


def lag_of(connectome: Connectome, delays: Delays, dt: float, least: float = 0.0) -> Lag:
    """The lags of a connectome for steps of `dt` ms.

    Below `least` ms they are a fault.
    """
    w, lengths, speed, rank = connectome.weights, connectome.tract_lengths, connectome.speed, connectome.layout.rank
    assert delays.max is not None
    if speed.ndim:  # one for each draw, [1, B]
        speed = speed.reshape((1,) * (rank - 1) + speed.shape)
    lengths, speed = padded(lengths, speed)
    time = lengths / speed
    fits = (time >= least * (1.0 - 1e-5)) & (time <= delays.max * (1.0 + 1e-6))  # false for NaN
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
    return Lag(steps, time, taps if delays.interpolate else taps[:1], fault[None] if fault.ndim else fault)


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
