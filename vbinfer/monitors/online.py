"""Covariance and functional connectivity accumulated inside the loop.

Memory does not grow with the simulated time.
"""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.monitors.base import AbstractBlocks, AbstractPlaced, Block, nodes_of, period_ms, steps_in


class Moments(NamedTuple):
    """Moments of what was seen so far.

    Count (int32), mean `[N, ...]` and sum of products of deviations `[N, N, ...]`.
    """

    count: Array
    mean: Array
    comoment: Array


def see(m: Moments, x: Array, new: Array) -> Moments:
    """Moments with one more observation, where `new` is true."""
    count = m.count + new.astype(jnp.int32)  # a float32 would stop counting at 2^24
    n = jnp.maximum(count, 1).astype(m.mean.dtype)
    d = new.astype(m.mean.dtype) * (x - m.mean)
    share = m.count.astype(m.mean.dtype) / n
    # one product, the same for [i, j] and [j, i]: the matrix stays symmetric to the last bit
    return Moments(count, m.mean + d / n, m.comoment + share * (d[:, None] * d[None, :]))


class AbstractRunning(AbstractBlocks, AbstractPlaced):
    """Moments of a state variable by Welford's update.

    n <- n + 1;   d = x_n - m;   m <- m + d / n;   C <- C + (n - 1) / n d d'

    The mean is followed along, so that signals far from zero lose nothing. x_n is the mean of the states after the
    steps of block n of `every` ms; blocks that begin before `start` are left out. doi:10.1080/00401706.1962.10490022
    """

    by_node: ClassVar[bool] = False
    var: str = eqx.field(static=True)
    period: float | None = eqx.field(static=True, converter=period_ms)
    every: float | None = eqx.field(static=True, default=None, converter=period_ms, kw_only=True)
    start: float = eqx.field(static=True, default=0.0, converter=float, kw_only=True)
    at: tuple[int | str, ...] | None = eqx.field(static=True, default=None, converter=nodes_of, kw_only=True)

    def validate(self) -> None:
        if not 0.0 <= self.start < float("inf"):
            raise ValueError(f"{type(self).__name__}(start={self.start}) was given; expected ms, not negative")
        if self.every is not None and self.period is not None and self.every > self.period:
            raise ValueError(
                f"{type(self).__name__}: every is {self.every:g} ms but the period is {self.period:g} ms; "
                "one period must hold at least one observation"
            )

    def stride(self, dt: float) -> int:
        return 1 if self.every is None else steps_in(self.every, dt, f"every of {type(self).__name__}")

    def sample_shape(self, n: int) -> tuple[int, ...]:
        return (self.recorded(n), self.recorded(n))

    def rest(self, like: Array) -> tuple[Array, Moments]:
        """Number of blocks, and moments of those that count."""
        none = jnp.zeros((), jnp.int32)
        return none, Moments(none, jnp.zeros_like(like), jnp.zeros_like(like[:, None] * like[None, :]))

    def advance(self, inner: tuple[Array, Moments], mean: Array, ms: float) -> tuple[Array, Moments]:
        blocks, moments = inner
        skipped = math.ceil(self.start / ms - 1e-6)  # the rounding of decimal fractions skips no block
        return blocks + 1, see(moments, mean, blocks >= skipped)


class RunningCovariance(AbstractRunning):
    """Covariance of every pair so far: `[T, N, N]`.

    y_ij = sum_n (x_ni - m_i) (x_nj - m_j) / (count - 1), 0 while fewer than two blocks were seen

    Args:
        var: the state variable.
        period: ms between samples; give t1 to have one matrix at the end.
        every: ms of signal that are averaged to one observation, a multiple of dt; None is every step, which costs
            as much as the coupling does.
        start: ms at the beginning that are left out.
        at: numbers or names of nodes, `[T, len(at), len(at)]`.
    """

    def sample(self, carry: Block, x: dict[str, Array]) -> tuple[Block, Array]:
        moments = carry.inner[1]
        return carry, moments.comoment / jnp.maximum(moments.count - 1, 1).astype(moments.mean.dtype)


class RunningFC(AbstractRunning):
    """Functional connectivity of every pair so far: `[T, N, N]`.

    y_ij = C_ij / sqrt(C_ii C_jj),   C_ij = sum_n (x_ni - m_i) (x_nj - m_j)

    Equal to `vb.features.fc_matrix` of the recorded series, but nothing is recorded. Correlations with a constant node,
    its diagonal entry included, are 0; a node is constant when its spread is within the rounding of its level.

    Args:
        var: the state variable.
        period: ms between samples; give t1 to have one matrix at the end.
        every: ms of signal that are averaged to one observation, a multiple of dt; None is every step, which costs
            as much as the coupling does.
        start: ms at the beginning that are left out.
        at: numbers or names of nodes, `[T, len(at), len(at)]`.
    """

    def sample(self, carry: Block, x: dict[str, Array]) -> tuple[Block, Array]:
        count, mean, comoment = carry.inner[1]
        nodes = jnp.arange(len(mean))
        ss = comoment[nodes, nodes]
        constant = ss <= count.astype(mean.dtype) * (8.0 * jnp.finfo(mean.dtype).eps * mean) ** 2
        # guarded before the root, so that gradients stay finite
        scale = jnp.where(constant, 0.0, 1.0 / jnp.sqrt(jnp.where(constant, 1.0, ss)))
        return carry, comoment * scale[:, None] * scale[None, :]
