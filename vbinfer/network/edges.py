"""Sparse networks: weights `[edge]` of a list of connections."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import is_traced
from vbinfer.network.ring import sent_at, times

TOGETHER = 8
"""Connections that are added in one pass over the sums of a block."""


class EdgeList(eqx.Module):
    """Layout of a sparse network: a row for each connection.

    In a batch, drawn arrays have the draws as last axis.
    """

    edges: Array
    """`[2, edge]`, receiver and sender."""
    n_nodes: int = eqx.field(static=True)
    rank: ClassVar[int] = 1
    """Number of axes that a connection has."""

    def check(self, weights: Array) -> None:
        """Raise ValueError unless edges and weights fit."""
        if weights.ndim != 1 or self.edges.shape != (2, len(weights)):
            raise ValueError(
                f"weights is {list(weights.shape)} with edges {list(self.edges.shape)}; expected one weight, "
                "source and target for each connection"
            )
        if is_traced(self.edges) or self.edges.size == 0:
            return
        edges = np.asarray(self.edges)  # before any arithmetic: inside a trace its results would be traced
        low, high = edges.min(), edges.max()
        if low < 0 or high >= self.n_nodes:
            off = low if low < 0 else high
            raise ValueError(f"a connection names node {off}; there are {self.n_nodes}, 0 to {self.n_nodes - 1}")

    def strength(self, weights: Array) -> Array:
        """Sums of the weights into each node, `[N, ...batch]`."""
        return self.gathered(weights)

    def received(self, weights: Array, sent: Array) -> Array:
        """Weighted sums of what is sent to each node."""
        return self.gathered(times(weights, sent[self.edges[1]]))

    def gathered(self, by_edge: Array) -> Array:
        """Sums over the connections into each node."""
        return jax.ops.segment_sum(by_edge, self.edges[0], num_segments=self.n_nodes)

    def chosen(self, at: tuple[Array, ...]) -> "EdgeList":
        """The connections at these indices."""
        return EdgeList(self.edges[:, at[0]], self.n_nodes)

    def reader(self, weight: Array, age: Array, mirror: int = 0) -> "EdgeReader":
        """(ring, step) to sums of weight * sent(step - age)."""
        return EdgeReader(self, weight, age, mirror)

    def block_reader(self, weight: Array, age: Array, mirror: int) -> "EdgeBlocks":
        """(ring, step, n) to these sums, `[n, N, B]`.

        Those at the steps step + 1 to step + n, in a batch whose draws share the ages, all above n. The connections
        into a node are laid out in lines of `TOGETHER`, the last one filled up with weight 0:

            receiver   0 0 0 0 0 1 1 2 2 2 2        line   0: 0 0 0 0   1: 0 - - -   2: 1 1 - -   3: 2 2 2 2   (of 4)
        """
        (target, source), n_edges = self.edges, self.edges.shape[1]
        n_lines = (n_edges + (TOGETHER - 1) * min(self.n_nodes, n_edges)) // TOGETHER  # never more
        order, degree = jnp.argsort(target, stable=True), self.gathered(jnp.ones_like(target))
        lines_of = -(-degree // TOGETHER)
        last_line, last = jnp.cumsum(lines_of), jnp.cumsum(degree)
        line = jnp.arange(n_lines)
        receiver = jnp.minimum(jnp.searchsorted(last_line, line, side="right"), self.n_nodes - 1)
        first = (last - degree)[receiver] + TOGETHER * (line - (last_line - lines_of)[receiver])
        place = first[:, None] + jnp.arange(TOGETHER)[None]
        edge = order[jnp.minimum(place, n_edges - 1)]
        return EdgeBlocks(
            times(weight[edge], place < last[receiver][:, None]),
            age[edge],
            source[edge],
            receiver,
            self.n_nodes,
            mirror,
        )


class EdgeReader(eqx.Module):
    """What arrives at a step, over a list of connections."""

    layout: EdgeList
    weight: Array
    age: Array
    mirror: int = eqx.field(static=True)

    def __call__(self, ring: Array, step: Array) -> Array:
        source = self.layout.edges[1]
        sent = sent_at(ring, step, self.age, source if self.age.ndim == 1 else source[:, None], self.mirror)
        return self.layout.gathered(times(self.weight, sent))


class EdgeBlocks(eqx.Module):
    """What arrives at several steps, over a list of connections."""

    weight: Array
    """`[line, TOGETHER, ...batch]`, as age and source `[line, TOGETHER]`."""
    age: Array
    source: Array
    receiver: Array
    """`[line]`"""
    n_nodes: int = eqx.field(static=True)
    mirror: int = eqx.field(static=True)

    def __call__(self, ring: Array, step: Array, n: int) -> Array:
        begin = (step + 1 - self.age) % (ring.shape[1] - self.mirror)

        def from_line(k: Array, total: Array) -> Array:
            i = self.receiver[k]
            arriving = jax.lax.dynamic_index_in_dim(total, i, keepdims=False)
            for j in range(TOGETHER):
                sent = jax.lax.dynamic_slice(
                    ring, (self.source[k, j], begin[k, j], jnp.int32(0)), (1, n, ring.shape[2])
                )
                arriving = arriving + jnp.atleast_2d(self.weight[k, j]) * sent[0]
            return jax.lax.dynamic_update_index_in_dim(total, arriving, i, 0)

        zero = jnp.zeros((self.n_nodes, n, ring.shape[2]), ring.dtype)
        return jnp.moveaxis(jax.lax.fori_loop(0, len(self.receiver), from_line, zero), 1, 0)


def listed(weights: Any, lengths: Any) -> tuple[np.ndarray, int, Any, np.ndarray]:
    """Edges, size, weights and lengths of a sparse matrix.

    BCOO of JAX or any of SciPy's; lengths may be dense.
    """
    shape, size = tuple(weights.shape), weights.shape[0]
    lengths = np.asarray(lengths.todense() if hasattr(lengths, "todense") else lengths)
    if shape != (size, size) or lengths.shape != shape:
        raise ValueError(
            f"weights is {list(shape)} and tract_lengths is {list(lengths.shape)}; both must be [node, node]"
        )
    if getattr(getattr(weights, "indices", None), "ndim", 1) == 2:
        indices = np.asarray(weights.indices).T
        inside = (indices < size).all(axis=0)  # BCOO fills up with entries outside
        edges, values = indices[:, inside], weights.data[inside]
    else:
        matrix = weights.tocoo()
        edges, values = np.stack([matrix.row, matrix.col]), matrix.data
    return edges, size, values, lengths[edges[0], edges[1]]
