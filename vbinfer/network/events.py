"""Delivery of spikes from the few nodes that send."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.network.dense import Dense
from vbinfer.network.edges import EdgeList
from vbinfer.network.ring import sent_at

WORD = 32
"""Nodes that are counted together when spikes are looked for."""
LEAST, MOST = 64, 1024
"""Connections of a sender that are delivered at once: about as many as a node sends."""


class Delivery(eqx.Module):
    """`layout.received(weights, sent)` in time proportional to the spikes in `sent`.

    `sent` is `[N]` or `[N, B]`. Differentiable in both modes, at the cost of `received`.
    """

    layout: Any
    """`Dense` or `EdgeList`; of a sparse network the connections sorted by sender."""
    weights: Array
    begins: Array | None
    """Where the connections of each sender begin, `[N + 1]`; None in a dense network."""
    targets: Array | None
    """Receiver of each connection: an array of its own, not to be cut out of the edges in every step."""

    def __call__(self, sent: Array) -> Array:
        return _deliver(sent, self.weights, self)


def delivery(layout: Dense | EdgeList, weights: Array) -> Delivery:
    """Prepare a network for spikes."""
    return Delivery(layout, weights, None, None) if isinstance(layout, Dense) else _by_sender(layout, weights)


class SpikeReader(eqx.Module):
    """(ring, step) to what arrives of spikes.

    Where all lags are the same, as in most networks of point neurons, one row of the ring arrives, and only what is not
    0 in it is delivered.
    """

    deliver: Delivery
    age: Array
    """The lag in steps, one or one for each draw."""
    same: Array
    """Whether it is that of all connections."""
    every: Callable[..., Array]
    """Reader of all connections, for when it is not."""

    def __call__(self, ring: Array, step: Array) -> Array:
        row, every = (lambda r, s: self.deliver(row_at(r, s, self.age))), (lambda r, s: self.every(r, s))
        return jax.lax.cond(self.same, row, every, ring, step)


def row_at(ring: Array, step: Array, age: Array) -> Array:
    """What all nodes sent `age` steps before `step`.

    One age, or one for each draw.
    """
    nodes = jnp.arange(ring.shape[1] if ring.ndim == 2 else ring.shape[0])
    if ring.ndim == 2:
        return sent_at(ring, step, age, nodes)
    age = jnp.broadcast_to(age, (len(nodes), *age.shape))
    return sent_at(ring, step, age, nodes if age.ndim == 1 else nodes[:, None])


@jax.custom_jvp
def _deliver(sent: Array, weights: Array, network: Delivery) -> Array:
    if network.begins is None or network.targets is None:
        return each_spike(sent, functools.partial(_add_column, weights))
    return each_spike(sent, functools.partial(_add_list, weights, network.targets, network.begins))


@_deliver.defjvp
def _deliver_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # the loop over spikes cannot be transposed, the sum that it stands for can
    sent, weights, network = primals
    d_sent, d_weights, _ = tangents
    received = network.layout.received
    return _deliver(sent, weights, network), received(weights, d_sent) + received(d_weights, sent)


def _by_sender(layout: EdgeList, weights: Array) -> Delivery:
    """Connections sorted by sender.

    begins     0           3       5 ...
    senders    0   0   0   1   1   2 ...
    targets    4   7   9   2   8   1 ...
    """
    senders = layout.edges[1]
    sort = lambda: jnp.argsort(senders, stable=True).astype(jnp.int32)  # noqa: E731
    order = jax.lax.cond((jnp.diff(senders) >= 0).all(), lambda: jnp.arange(len(senders), dtype=jnp.int32), sort)
    by_sender = layout.chosen((order,))
    begins = jnp.searchsorted(senders[order], jnp.arange(layout.n_nodes + 1))
    return Delivery(by_sender, weights[order], begins, by_sender.edges[0])


def each_spike(sent: Array, add: Callable[..., Array], together: int | None = None) -> Array:
    """Add up what every spike brings.

    `add(total, sender, draw, value)` to totals `[B, N]`; with `together` it is given so many at once, those beyond the
    last spike of value 0.
    """
    n, width = len(sent), sent.size // len(sent)
    flat = jnp.pad(sent.reshape(-1), (0, -sent.size % WORD))
    words = (flat != 0.0).reshape(-1, WORD).astype(jnp.int32)
    count = words.sum(axis=1)
    upto = jnp.cumsum(count)
    many = min(max(32, sent.size // 64), 1024)
    many -= many % (together or 1)

    def found(k: Array) -> Array:
        """Where spike number k is.

        First by words, then within one.
        """
        word = jnp.minimum(jnp.searchsorted(upto, k, side="right"), len(count) - 1)
        rank = k - (upto[word] - count[word])
        return word * WORD + jnp.argmax(jnp.cumsum(words[word], axis=1) > rank[:, None], axis=1)

    def some(state: tuple[Array, Array]) -> tuple[Array, Array]:
        first, total = state
        where = found(first + jnp.arange(many))
        left = jnp.minimum(upto[-1] - first, many)
        size = together or 1
        at = where if together is None else where.reshape(-1, size)
        values = (
            flat[where] if together is None else jnp.where(jnp.arange(many) < left, flat[where], 0.0).reshape(at.shape)
        )
        one = lambda k, total: add(total, at[k] // width, at[k] % width, values[k])  # noqa: E731
        return first + many, jax.lax.fori_loop(0, (left + size - 1) // size, one, total)

    zero = (jnp.zeros((), upto.dtype), jnp.zeros((width, n), sent.dtype))
    total = jax.lax.while_loop(lambda state: state[0] < upto[-1], some, zero)[1]
    return total[0] if sent.ndim == 1 else total.T


def _add_column(weights: Array, total: Array, j: Array, b: Array, value: Array) -> Array:
    column = weights[:, j] if weights.ndim == 2 else weights[:, j, b]
    return total.at[b].add(value * column)


def _add_list(weights: Array, targets: Array, begins: Array, total: Array, j: Array, b: Array, value: Array) -> Array:
    piece_size = min(MOST, max(LEAST, LEAST * -(-len(targets) // (LEAST * total.shape[1]))))
    first, last, offset = begins[j], begins[j + 1], jnp.arange(piece_size)

    def piece(k: Array, total: Array) -> Array:
        edge = first + k * piece_size + offset
        inside = edge < last
        edge = jnp.minimum(edge, len(targets) - 1)
        w = weights[edge] if weights.ndim == 1 else weights[edge, b]
        return total.at[b, jnp.where(inside, targets[edge], total.shape[1])].add(value * w, mode="drop")

    return jax.lax.fori_loop(0, (last - first + piece_size - 1) // piece_size, piece, total)
