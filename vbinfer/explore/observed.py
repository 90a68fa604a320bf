"""Monitors of small deviations, as linear filters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer.explore.drift import Drift
from vbinfer.monitors import HRF, BalloonWindkessel, OfRegions, SpatialAverage
from vbinfer.monitors.base import AbstractMean, AbstractMonitor, Block
from vbinfer.monitors.raw import AbstractSnapshot
from vbinfer.simulation.step import read

BLOOD = BalloonWindkessel | HRF
SETTLING = 30
"""Newton steps to the steady state of a haemodynamic response."""


class Blood(eqx.Module):
    """Haemodynamics of each channel, linear around their steady state.

    z' = advance z + enter u after a block with mean u;   y = leave z
    """

    advance: Any
    """`[M, z, z]`"""
    enter: Any
    """`[M, z]`"""
    leave: Any
    """`[M, z]`"""
    block: float = eqx.field(static=True)
    """ms."""

    def gain(self, s: Array) -> Array:
        """Response at s = i omega, `[M]`."""
        turn = jnp.exp(s * self.block) * jnp.eye(self.advance.shape[-1])
        inside = jnp.linalg.solve(turn - self.advance, self.enter[..., None].astype(s.dtype))[..., 0]
        return _mean(s, self.block) * (self.leave * inside).sum(axis=-1)


class Seen(eqx.Module):
    """What is recorded: y = gain(s) matrix x."""

    matrix: Any
    """`[M, n]`"""
    blood: Blood | None
    window: float | None = eqx.field(static=True)
    """ms over which a sample is averaged."""
    period: float | None = eqx.field(static=True)
    """ms between samples, where they are fewer than steps."""

    @property
    def is_instant(self) -> bool:
        """Whether y follows from the state at the same time."""
        return self.blood is None and self.window is None

    def gain(self, s: Array) -> Array:
        """Response at s: one number, or one per channel.

        s = i omega, 1/ms.
        """
        gain = jnp.ones((1,), s.dtype) if self.window is None else _mean(s, self.window)[None]
        return gain if self.blood is None else gain * self.blood.gain(s)


def _mean(s: Array, ms: float) -> Array:
    """Response of a mean, without its half-window lag."""
    return jnp.sinc(s.imag * ms / (2.0 * jnp.pi)).astype(s.dtype)


def named(monitors: dict[str, AbstractMonitor], name: str) -> AbstractMonitor:
    """The monitor of this name.

    Raises:
        ValueError: there is none, or what it records is no linear filter of the states.
    """
    if name not in monitors:
        raise ValueError(f"monitor names {name!r}, of which there is none. {did_you_mean(str(name), monitors)}")
    if not isinstance(_inside(monitors[name]), AbstractMean | AbstractSnapshot | SpatialAverage | BLOOD):
        raise ValueError(
            f"{type(monitors[name]).__name__} records no linear filter of the states; give linearise a monitor of "
            "signals, such as vb.monitors.TimeAverage(1.0), and take covariances of its result"
        )
    return monitors[name]


def _inside(monitor: AbstractMonitor) -> AbstractMonitor:
    return monitor.monitor if isinstance(monitor, OfRegions) else monitor


def seen(drift: Drift, flat: Array, monitor: AbstractMonitor) -> Seen:
    """What a monitor records near a state."""
    inner = _inside(monitor)

    def shown(flat: Array) -> dict[str, Array]:
        x = read(monitor, drift.sim.model.at_nodes(drift.state(flat)))
        if isinstance(monitor, OfRegions) and isinstance(inner, BLOOD):
            return {name: monitor.regions.to_regions(a) for name, a in x.items()}
        return x

    def sampled(flat: Array) -> Array:
        x = shown(flat)
        if isinstance(inner, BLOOD):
            return x[inner.var]  # its input; what follows has a memory
        _, y = monitor.sample(monitor.observe(monitor.init(x), x), x)
        return jnp.concatenate([a.ravel() for a in (y.values() if isinstance(y, dict) else [y])])

    matrix = jax.jacfwd(sampled)(flat)
    blood = _blood(inner, sampled(flat), drift.sim.dt) if isinstance(inner, BLOOD) else None
    return Seen(matrix, blood, inner.period if isinstance(inner, AbstractMean) else None, inner.period)


def _blood(monitor: BalloonWindkessel | HRF, level: Array, dt: float) -> Blood:
    """A haemodynamic response around a settled level `[M]`."""
    steps = monitor.stride(dt)
    assert steps is not None
    leaves, tree = jax.tree.flatten(monitor.rest(jnp.zeros_like(level)))
    tree_of = lambda z: jax.tree.unflatten(tree, list(z))  # noqa: E731

    def advance(z: Array, u: Array) -> Array:
        return jnp.stack(jax.tree.leaves(monitor.advance(tree_of(z), u, steps * dt)))

    def output(z: Array) -> Array:
        zero = jnp.zeros_like(level)
        return monitor.sample(Block(zero, jnp.zeros(()), tree_of(z)), {})[1]

    def slopes(z: Array) -> Array:
        """Slopes `[M, z, z]`, from one direction for all nodes."""
        along = lambda e: jax.jvp(lambda z: advance(z, level), (z,), (e[:, None] * jnp.ones_like(z),))[1]  # noqa: E731
        return jnp.transpose(jax.vmap(along)(jnp.eye(len(z), dtype=z.dtype)), (2, 1, 0))

    def settle(_: int, z: Array) -> Array:
        left = (advance(z, level) - z).T
        return z - jnp.linalg.solve(slopes(z) - jnp.eye(len(z)), left[..., None])[..., 0].T

    z = jax.lax.fori_loop(0, SETTLING, settle, jnp.stack(leaves))
    enter = jax.jvp(lambda u: advance(z, u), (level,), (jnp.ones_like(level),))[1].T
    leave = jax.vmap(lambda e: jax.jvp(output, (z,), (e[:, None] * jnp.ones_like(z),))[1])(
        jnp.eye(len(z), dtype=z.dtype)
    )
    return Blood(slopes(z), enter, leave.T, steps * dt)
