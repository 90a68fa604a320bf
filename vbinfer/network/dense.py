"""Networks of all pairs: weights `[node, node]`."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.network.edges import EdgeList
from vbinfer.network.ring import sent_at

TOGETHER = 4
"""Sources that are added in one pass over the sums of a block."""


class Dense(eqx.Module):
    """Layout of a dense network.

    Entry [i, j] is from j to i. In a batch, drawn arrays have the draws as last axis.
    """

    n_nodes: int = eqx.field(static=True)
    rank: ClassVar[int] = 2
    """Number of axes that a connection has."""

    def check(self, weights: Array) -> None:
        """Raise ValueError unless weights are square."""
        if weights.shape != (self.n_nodes, self.n_nodes):
            raise ValueError(
                f"weights is {list(weights.shape)}; it must be square, [node, node], with [i, j] from j to i"
            )

    def strength(self, weights: Array) -> Array:
        """sum_j w_ij, `[N, ...batch]`."""
        return weights.sum(axis=1)

    def received(self, weights: Array, sent: Array) -> Array:
        """sum_j w_ij sent_j, of sent `[N, ...batch]`."""
        # drawn weights differ from draw to draw, and no one matrix product serves a batch
        return jnp.einsum("ijb,jb->ib", weights, sent) if weights.ndim == 3 else weights @ sent

    def chosen(self, at: tuple[Array, ...]) -> EdgeList:
        """The connections at these indices, as a list."""
        return EdgeList(jnp.stack(at), self.n_nodes)

    def reader(self, weight: Array, age: Array, mirror: int = 0) -> "DenseReader":
        """(ring, step) to sum_j weight_ij sent_j(step - age_ij).

        Over the pairs with age_ij > 0; others must have weight 0.
        """
        return DenseReader(jnp.moveaxis(weight, 1, 0), jnp.moveaxis(age, 1, 0), mirror)

    def block_reader(self, weight: Array, age: Array, mirror: int) -> "DenseBlocks":
        """(ring, step, n) to these sums, `[n, N, B]`.

        Those at the steps step + 1 to step + n, in a batch whose draws share the ages, all above n.
        """
        # beyond the last source the index stays at the last, with weight 0
        more = [(0, -self.n_nodes % TOGETHER)] + [(0, 0)] * (weight.ndim - 1)
        return DenseBlocks(jnp.pad(jnp.moveaxis(weight, 1, 0), more), jnp.moveaxis(age, 1, 0), mirror)


class DenseReader(eqx.Module):
    """What arrives at a step, over all pairs."""

    weight: Array
    """`[source, receiver, ...batch]`, as `age`."""
    age: Array
    mirror: int = eqx.field(static=True)

    def __call__(self, ring: Array, step: Array) -> Array:
        return self._alone(ring, step) if ring.ndim == 2 else self._batch(ring, step)

    def _alone(self, ring: Array, step: Array) -> Array:
        """Of one simulation: a gather of `[N, N]`, summed."""

        @jax.checkpoint  # the backward pass makes the indices anew instead of keeping [N, N] of them for every step
        def look(ring: Array, step: Array) -> Array:
            return sent_at(ring, step, self.age, jnp.arange(ring.shape[1])[:, None])

        return (self.weight * look(ring, step)).sum(axis=0)

    def _batch(self, ring: Array, step: Array) -> Array:
        """Of many draws: source by source, in rows `[N, B]`.

        Nothing of size `[N, N, B]` is made.
        """

        def from_source(total: Array, source: tuple[Array, Array, Array]) -> tuple[Array, None]:
            line, age, w = source
            return total + (w if w.ndim == 2 else w[:, None]) * sent_at(line[None], step, age, 0, self.mirror), None

        zero = jnp.zeros((ring.shape[0], ring.shape[2]), ring.dtype)
        return jax.lax.scan(from_source, zero, (ring, self.age, self.weight))[0]


class DenseBlocks(eqx.Module):
    """What arrives at several steps, over all pairs.

    Of a source, what arrives at one node in these steps is one slice of its line:

        step          s-9 s-8 s-7 s-6 s-5 s-4 s-3 s-2 s-1 | s+1 s+2 s+3
        lag of 8              [ a   b   c ]               |  a   b   c
        lag of 5                          [ d   e   f ]   |  d   e   f
    """

    weight: Array
    """`[source, receiver, ...batch]`, as `age`, and zeros up to whole rounds."""
    age: Array
    mirror: int = eqx.field(static=True)

    def __call__(self, ring: Array, step: Array, n: int) -> Array:
        begin = (step + 1 - self.age) % (ring.shape[1] - self.mirror)

        def from_sources(k: Array, total: Array) -> Array:
            for j in range(TOGETHER):
                line, first, w = (_at(a, k * TOGETHER + j) for a in (ring, begin, self.weight))
                slices = jax.vmap(lambda slot, line=line: jax.lax.dynamic_slice_in_dim(line, slot, n))(first)
                total = total + w.reshape(len(w), 1, -1) * slices
            return total

        zero = jnp.zeros((ring.shape[0], n, ring.shape[2]), ring.dtype)
        return jnp.moveaxis(jax.lax.fori_loop(0, len(self.weight) // TOGETHER, from_sources, zero), 1, 0)


def _at(a: Array, index: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(a, index, 0, keepdims=False)
