"""Networks of all pairs: weights `[node, node]`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.network.ring import sent_at


@dataclass(frozen=True)
class Dense:
    """Layout of a dense network.

    Entry [i, j] is from j to i. In a batch, drawn arrays have the draws as last axis.
    """

    n_nodes: int
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

    def reader(self, weight: Array, age: Array) -> Callable[[Array, Array], Array]:
        """(ring, step) to sum_j weight_ij sent_j(step - age_ij).

        Over the pairs with age_ij > 0; others must have weight 0.
        """
        weight_of, age_of = jnp.moveaxis(weight, 1, 0), jnp.moveaxis(age, 1, 0)  # source first
        alone, many = _reader(weight_of, age_of), _batch_reader(weight_of, age_of)
        return lambda ring, step: (alone if ring.ndim == 2 else many)(ring, step % ring.shape[0])


def _reader(weight_of: Array, age_of: Array) -> Callable[[Array, Array], Array]:
    """Of one simulation: a gather of `[N, N]`, summed."""

    @jax.checkpoint  # the backward pass makes the indices anew instead of keeping [N, N] of them for every step
    def look(ring: Array, position: Array) -> Array:
        return sent_at(ring, position, age_of, jnp.arange(ring.shape[1])[:, None])

    return lambda ring, position: (weight_of * look(ring, position)).sum(axis=0)


def _batch_reader(weight_of: Array, age_of: Array) -> Callable[[Array, Array], Array]:
    """Of many draws: source by source, in rows `[N, B]`.

    Nothing of size `[N, N, B]` is made.
    """

    def read(ring: Array, position: Array) -> Array:
        def from_source(j: Array, total: Array) -> Array:
            age = jax.lax.dynamic_index_in_dim(age_of, j, 0, keepdims=False)
            w = jax.lax.dynamic_index_in_dim(weight_of, j, 0, keepdims=False)
            return total + (w if w.ndim == 2 else w[:, None]) * sent_at(ring, position, age, j)

        return jax.lax.fori_loop(0, ring.shape[1], from_source, jnp.zeros(ring.shape[1:], ring.dtype))

    return read
