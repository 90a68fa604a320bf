"""Results of a simulation, and what continues it."""

from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array


class Carry(NamedTuple):
    """What one step of the loop hands to the next."""

    step: Array
    """Absolute number of steps taken, int32."""
    x: Any
    """State of the model, leaves `[N]` or `[N, B]`."""
    monitors: dict[str, Any]
    noise: Any = None
    """What the noise carries (coloured noise: its own state)."""
    buffers: tuple[Any, ...] = ()
    """A `network.arrival.DelayBuffer` for each projection; None for those without delays."""


class Grid(NamedTuple):
    """What a simulator must share to continue a run."""

    dt: float
    periods: tuple[tuple[str, int], ...]
    """Steps per sample of every monitor, by name."""
    slots: tuple[int, ...]
    """Slots of the delay buffer of each projection; 0 without delays."""
    parts: tuple[str, ...]
    """Model and number of nodes, noise, and every monitor with how often it updates."""


class Final(eqx.Module):
    """The end of a simulation, which `init=` continues.

    As if there had been no break: it holds the number of steps taken, the state, the delay buffer and the monitors
    with their open windows, but no key. Noise is indexed by the absolute step: the same key continues the same noise.
    """

    carry: Carry
    phase: int = eqx.field(static=True)
    """Steps since the last moment at which every monitor sampled."""
    grid: Grid = eqx.field(static=True)

    @property
    def state(self) -> Any:
        """State variables at the end, leaves `[N]`."""
        return self.carry.x


class Solution(eqx.Module):
    """Samples of every monitor.

    Attributes:
        ts: monitor name to times of its samples, ms, `[T]`: ends of periods, absolute.
        ys: monitor name to samples `[T, N]`, or a dictionary of them by state variable.
        final: the end, from which `simulate(..., init=final)` continues.
    """

    ts: dict[str, Array]
    ys: dict[str, Any]
    final: Final
