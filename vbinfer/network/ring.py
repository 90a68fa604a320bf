"""Ring buffers of what nodes sent."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def padded(*arrays: Array) -> list[Array]:
    """Trailing axes of length 1 up to a common rank.

    An array that all draws share then meets one with the batch as last axis. Scalars stay as they are.
    """
    rank = max(a.ndim for a in arrays)
    return [a.reshape(*a.shape, *(1,) * (rank - a.ndim)) if a.ndim else a for a in arrays]


def times(a: Array, b: Array) -> Array:
    """a * b, where either may lack the batch axis."""
    a, b = padded(a, b)
    return a * b


def fill(sent: Array, slots: int) -> Array:
    """The ring at step 0, from rows sent before.

    Rows are `[H, N, ...]`, oldest first. Slot k holds what is sent at the steps that are k modulo `slots`.
    """
    steps = jnp.arange(-slots + 1, 1)
    # the steps -slots + 1 to 0; before the first row that is known it is repeated
    rows = sent[jnp.maximum(steps + sent.shape[0] - 1, 0)]
    return jnp.zeros_like(rows).at[steps % slots].set(rows)


def write(ring: Array, step: Array, sent: Array) -> Array:
    """The ring with what is sent at `step`."""
    return jax.lax.dynamic_update_index_in_dim(ring, sent.astype(ring.dtype), step % ring.shape[0], 0)


def sent_at(ring: Array, position: Array, age: Array, node: Array) -> Array:
    """What `node` sent `age` steps ago.

    That is before the step of slot `position`. From a ring `[slot, N]` entries in the shape of `age`. From `[slot, N,
    B]`, ages `[pair]` that the draws share give rows `[pair, B]`, and ages `[pair, B]` their own entries, zero where
    the age is: nothing was under way.
    """
    slots, n = ring.shape[:2]
    slot = position - age
    # an age is below the number of slots, so that one turn back is enough
    row = jnp.where(slot < 0, slot + slots, slot) * n + node  # of the ring seen as rows [slot * N, ...]
    if ring.ndim == 2:
        return _at(ring.reshape(-1), row)
    width = ring.shape[2]
    if age.ndim == 1:
        return _at(ring.reshape(-1, width), row)
    return jnp.where(age > 0, _at(ring.reshape(-1), row * width + jnp.arange(width)[None]), 0.0)


def _at(a: Array, index: Array) -> Array:
    # indices are made from ages that were clipped to the ring: nothing is looked up twice to make sure
    return a.at[index].get(mode="promise_in_bounds")
