"""Random graphs drawn by every simulation, in no memory.

Who receives from node j is a pure function of (draw key, projection, j): gaps between receivers are geometric variates
of the counter-based generator, made anew whenever j spikes.

    node       0  1  2  3  4  5  6  7 ...
    receives   .  .  x  .  x  .  .  x          gaps 2, 1, 2: geometric, of chance p
"""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._random import threefry_2x32_13
from vbinfer.network.events import each_spike, row_at

FIRST = 0xFFFFFFFE
"""Counter of the graph of the first projection, the one below that of the next; noise counts steps from 0."""


TOGETHER = 32
"""Spikes whose receivers are drawn at once."""


class RandomGraph(eqx.Module):
    """Layout of a network whose connections are not listed.

    Every node of `senders` connects to every other with probability p. Arrays have one entry, for all connections.
    """

    n_nodes: int = eqx.field(static=True)
    p: float = eqx.field(static=True)
    senders: tuple[int, int] = eqx.field(static=True)
    """The first, and the one after the last."""
    rank: ClassVar[int] = 1

    def check(self, weights: Array) -> None:
        """Raise ValueError unless there is one weight."""
        if weights.shape != (1,):
            raise ValueError(f"weights is {list(weights.shape)}; a graph that is drawn has one weight, [1]")

    def strength(self, weights: Array) -> Array:
        """Expected weight into each node, `[N, ...batch]`."""
        of_node = jnp.arange(self.n_nodes)
        first, last = self.senders
        others = last - first - ((of_node >= first) & (of_node < last))
        return self.p * others.reshape(-1, *(1,) * (weights.ndim - 1)) * weights

    def receivers(self, words: tuple[Array, Array], projection: int, j: Array) -> Array:
        """Nodes that receive from j, padded with N.

        `[..., most]`, for nodes j and keys `[...]`.
        """
        others = self.n_nodes - 1
        most = min(others, math.ceil(others * self.p + 8.0 * math.sqrt(others * self.p * (1.0 - self.p)) + 8.0))
        number = jnp.arange(most, dtype=jnp.uint32).reshape(*(1,) * j.ndim, most)
        counter = j.astype(jnp.uint32)[..., None] * jnp.uint32(most) + number
        k0, k1 = (jnp.broadcast_to(word, j.shape)[..., None] for word in words)
        bits = threefry_2x32_13(k0, k1, jnp.uint32(FIRST - projection), counter)[0]
        uniform = ((bits >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
        gap = jnp.floor(jnp.log(uniform) / math.log1p(-self.p)) if self.p < 1.0 else jnp.zeros_like(uniform)
        # clipped, so that sums of gaps stay whole numbers of int32
        at = _running_sum(jnp.minimum(gap, float(self.n_nodes)).astype(jnp.int32) + 1) - 1
        return jnp.where(at < others, at + (at >= j[..., None]), self.n_nodes)


def _running_sum(x: Array) -> Array:
    """Cumulative sum over the last axis.

    A loop over it that adds all rows at once: on a CPU several times as fast as `jnp.cumsum`, whose sums over windows
    do not vectorise.
    """
    rows = jnp.moveaxis(x, -1, 0)
    add = lambda total, row: (total + row,) * 2  # noqa: E731
    return jnp.moveaxis(jax.lax.scan(add, jnp.zeros_like(rows[0]), rows)[1], 0, -1)


class GraphReader(eqx.Module):
    """Reader of spikes over a graph of each draw.

    Differentiable in the weight; spikes are constants.
    """

    layout: RandomGraph
    weight: Array
    age: Array
    words: tuple[Array, Array]
    projection: int = eqx.field(static=True)

    def __call__(self, ring: Array, step: Array) -> Array:
        row, (first, last) = jax.lax.stop_gradient(row_at(ring, step, self.age)), self.layout.senders
        node = jnp.arange(self.layout.n_nodes).reshape(-1, *(1,) * (row.ndim - 1))
        counts = each_spike(jnp.where((node >= first) & (node < last), row, 0.0), self._add, together=TOGETHER)
        return self.weight * counts if self.weight.ndim == counts.ndim else self.weight[0] * counts

    def _add(self, total: Array, j: Array, b: Array, value: Array) -> Array:
        # spikes [K]; one key, or one for each draw, [1, B]
        words: Any = self.words if not self.words[0].ndim else tuple(word[0, b] for word in self.words)
        receivers = self.layout.receivers(words, self.projection, j)
        return total.at[b[:, None], receivers].add(value[:, None], mode="drop")
