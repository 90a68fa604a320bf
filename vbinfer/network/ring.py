"""Ring buffers of what nodes sent.

One simulation has `[slot, N]`. A batch has `[N, slot + mirror, B]`: of one node the past lies in one piece, and its
first slots stand once more behind the last, so that up to `mirror + 1` steps in a row are one slice:

    slot      0  1  2  3  4  5 | 0  1      slots = 6, mirror = 2
    step     12 13  8  9 10 11 |12 13      steps 11, 12 and 13 are the slice from slot 5 on
"""

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


def fill(sent: Array, slots: int, mirror: int = 0) -> Array:
    """The ring at step 0, from rows sent before.

    Rows are `[H, N, ...]`, oldest first. Slot k holds what is sent at the steps that are k modulo `slots`.
    """
    steps = jnp.arange(-slots + 1, 1)
    # the steps -slots + 1 to 0; before the first row that is known it is repeated
    rows = sent[jnp.maximum(steps + sent.shape[0] - 1, 0)]
    ring = jnp.zeros_like(rows).at[steps % slots].set(rows)
    return ring if ring.ndim == 2 else jnp.moveaxis(jnp.concatenate([ring, ring[:mirror]]), 0, 1)


def write(ring: Array, step: Array, sent: Array, mirror: int = 0) -> Array:
    """The ring with what is sent at `step`."""
    axis = ring.ndim - 2
    slots = ring.shape[axis] - mirror
    slot, sent = step % slots, sent.astype(ring.dtype)
    ring = jax.lax.dynamic_update_index_in_dim(ring, sent, slot, axis)
    if mirror:  # a slot without a mirror image is written twice
        slot = jnp.where(slot < mirror, slot + slots, slot)
        ring = jax.lax.dynamic_update_index_in_dim(ring, sent, slot, axis)
    return ring


def sent_at(ring: Array, step: Array, age: Array, node: Array | int, mirror: int = 0) -> Array:
    """What `node` sent `age` steps before `step`.

    From a ring `[slot, N]` entries in the shape of `age`. From `[N, slot + mirror, B]`, ages `[pair]` that the draws
    share give rows `[pair, B]`, and ages `[pair, B]` their own entries, zero where the age is: nothing was under way.
    """
    axis = ring.ndim - 2
    slots = ring.shape[axis] - mirror
    slot = step % slots - age
    slot = jnp.where(slot < 0, slot + slots, slot)  # an age is below the number of slots: one turn back is enough
    if axis == 0:
        return _at(ring.reshape(-1), slot * ring.shape[1] + node)
    row, width = node * ring.shape[1] + slot, ring.shape[2]
    if age.ndim == 1:
        return _at(ring.reshape(-1, width), row)
    return jnp.where(age > 0, _at(ring.reshape(-1), row * width + jnp.arange(width)[None]), 0.0)


def _at(a: Array, index: Array) -> Array:
    # indices are made from ages that were clipped to the ring: nothing is looked up twice to make sure
    return a.at[index].get(mode="promise_in_bounds")
