"""Covariance and functional connectivity accumulated while the simulation runs: memory does not grow with time."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.monitors.base import AbstractMonitor, positive_ms, steps_in
from vbinfer.monitors.raw import chosen


class Moments(NamedTuple):
    """Count (int32), mean `[N, ...]` and sum of products of deviations `[N, N, ...]` of what was seen so far."""

    count: Array
    mean: Array
    comoment: Array


class _Carry(NamedTuple):
    total: Array
    steps: Array
    blocks: Array
    moments: Moments


def see(m: Moments, x: Array, new: Array) -> Moments:
    """Moments with one more observation, or as they were where `new` is false."""
    count = m.count + new.astype(jnp.int32)  # a float32 would stop counting at 2^24
    n = jnp.maximum(count, 1).astype(m.mean.dtype)
    d = new.astype(m.mean.dtype) * (x - m.mean)
    share = m.count.astype(m.mean.dtype) / n
    # one product, the same for [i, j] and [j, i]: the matrix stays symmetric to the last bit
    return Moments(count, m.mean + d / n, m.comoment + share * (d[:, None] * d[None, :]))


class AbstractRunning(AbstractMonitor):
    """Moments of a state variable since `start`, by Welford's update (doi:10.1080/00401706.1962.10490022).

    n <- n + 1;   d = x_n - m;   m <- m + d / n;   C <- C + (n - 1) / n d d'

    The mean is followed along, so that signals far from zero lose nothing. x_n is the mean of the states after the
    steps of block n of `every` ms; blocks that begin before `start` are left out.
    """

    by_node: ClassVar[bool] = False
    var: eqx.AbstractVar[str]
    every: eqx.AbstractVar[float | None]
    start: eqx.AbstractVar[float]

    def validate(self) -> None:
        if not 0.0 <= self.start < float("inf"):
            raise ValueError(f"{type(self).__name__}(start={self.start}) was given; expected ms, not negative")
        if self.every is not None and self.period is not None and self.every > self.period:
            raise ValueError(
                f"{type(self).__name__}: every is {self.every:g} ms but the period is {self.period:g} ms; "
                "one period must hold at least one observation"
            )

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(self.var, variables)

    def stride(self, dt: float) -> int:
        return 1 if self.every is None else steps_in(self.every, dt, f"every of {type(self).__name__}")

    def sample_shape(self, n: int) -> tuple[int, ...]:
        return (n, n)

    def init(self, x: dict[str, Array]) -> _Carry:
        zero, none = jnp.zeros_like(x[self.var]), jnp.zeros((), jnp.int32)
        moments = Moments(none, zero, jnp.zeros_like(zero[:, None] * zero[None, :]))
        return _Carry(zero, jnp.zeros(()), none, moments)

    def observe(self, carry: _Carry, x: dict[str, Array]) -> _Carry:
        return carry._replace(total=carry.total + x[self.var], steps=carry.steps + 1.0)

    def update(self, carry: _Carry, dt: float) -> _Carry:
        block = self.stride(dt) * dt
        skipped = math.ceil(self.start / block - 1e-6)  # the rounding of decimal fractions skips no block
        moments = see(carry.moments, carry.total / carry.steps, carry.blocks >= skipped)
        return _Carry(jnp.zeros_like(carry.total), jnp.zeros_like(carry.steps), carry.blocks + 1, moments)


class RunningCovariance(AbstractRunning):
    """Covariance of every pair of nodes since the beginning, at the end of every period: `[T, N, N]`.

    y_ij = sum_n (x_ni - m_i) (x_nj - m_j) / (count - 1), 0 while fewer than two blocks were seen

    Args:
        var: the state variable.
        period: ms between samples; give t1 to have one matrix at the end.
        every: ms of signal that are averaged to one observation, a multiple of dt; None is every step, which costs
            as much as the coupling does.
        start: ms at the beginning that are left out.
    """

    var: str = eqx.field(static=True)
    period: float | None = eqx.field(static=True, converter=positive_ms)
    every: float | None = eqx.field(static=True, default=None, converter=positive_ms, kw_only=True)
    start: float = eqx.field(static=True, default=0.0, converter=float, kw_only=True)

    def sample(self, carry: _Carry, x: dict[str, Array]) -> tuple[_Carry, Array]:
        moments = carry.moments
        return carry, moments.comoment / jnp.maximum(moments.count - 1, 1).astype(moments.mean.dtype)


class RunningFC(AbstractRunning):
    """Functional connectivity since the beginning, at the end of every period: `[T, N, N]`.

    y_ij = C_ij / sqrt(C_ii C_jj),   C_ij = sum_n (x_ni - m_i) (x_nj - m_j)

    Equal to `vb.features.fc_matrix` of the recorded series, but nothing is recorded. Correlations with a constant node,
    its diagonal entry included, are 0; a node is constant when its spread is within the rounding of its level.

    Args:
        var: the state variable.
        period: ms between samples; give t1 to have one matrix at the end.
        every: ms of signal that are averaged to one observation, a multiple of dt; None is every step, which costs
            as much as the coupling does.
        start: ms at the beginning that are left out.
    """

    var: str = eqx.field(static=True)
    period: float | None = eqx.field(static=True, converter=positive_ms)
    every: float | None = eqx.field(static=True, default=None, converter=positive_ms, kw_only=True)
    start: float = eqx.field(static=True, default=0.0, converter=float, kw_only=True)

    def sample(self, carry: _Carry, x: dict[str, Array]) -> tuple[_Carry, Array]:
        count, mean, comoment = carry.moments
        nodes = jnp.arange(len(mean))
        ss = comoment[nodes, nodes]
        constant = ss <= count.astype(mean.dtype) * (8.0 * jnp.finfo(mean.dtype).eps * mean) ** 2
        scale = jnp.where(constant, 0.0, 1.0 / jnp.sqrt(jnp.where(constant, 1.0, ss)))
        return carry, comoment * scale[:, None] * scale[None, :]
