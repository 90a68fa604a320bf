"""What nodes receive, at once and delayed.

Everything here is an `equinox.Module`, made once for a network and handed to all its steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.network.connectome import Connectome
from vbinfer.network.delays import Delays, Lag, lag_of
from vbinfer.network.dense import Dense
from vbinfer.network.edges import EdgeList
from vbinfer.network.events import SpikeReader, delivery
from vbinfer.network.procedural import GraphReader, RandomGraph
from vbinfer.network.ring import padded, times

Rows = tuple[Array, ...]


class DelayBuffer(NamedTuple):
    """Delay buffer: what was sent and has yet to arrive."""

    ring: Rows | None
    """For each row that the coupling sends, `[slot, N]` or, in a batch, `[N, slot + mirror, B]`: what was sent at a
    step stands in slot step modulo slots, from the step that is about to be taken. None where another projection, which
    sends the same, keeps it."""
    arriving: Rows
    """What arrives now of what was sent at earlier steps, sum_j w_ij sent_j(t - lag_ij): rows `[N, ...batch]`."""


class Instant(eqx.Module):
    """Connections without delay.

    From what is sent now, `[N, ...batch]`, to sum_j w_ij sent_j.
    """

    layout: Dense | EdgeList
    weight: Array | None
    some: Array | None = None
    """Weights of connections that may be without delay: looked at where there are any."""
    any_of_them: Array | None = None

    def __call__(self, sent: Array) -> Array:
        always = None if self.weight is None else self.layout.received(self.weight, sent)
        if self.some is None:
            assert always is not None
            return always
        rest = jax.lax.cond(
            self.any_of_them, lambda w, s: self.layout.received(w, s), lambda w, s: jnp.zeros_like(s), self.some, sent
        )
        return rest if always is None else always + rest


class Delayed(eqx.Module):
    """Connections with delay.

    From (ring, step, ...) to the sums that arrive.
    """

    readers: tuple[Callable[..., Array], ...]
    """One for each neighbour in time that is interpolated."""
    fault: Array
    """Added: 0, or NaN where a lag does not fit the ring."""

    def __call__(self, *args: Any) -> Array:
        return _total(self.readers, *args) + self.fault


def _total(readers: tuple[Callable[..., Array], ...], *args: Any) -> Array:
    return functools.reduce(jnp.add, (read(*args) for read in readers))


class Ahead(eqx.Module):
    """Reads of several steps at once, in a batch.

    Of connections whose lags exceed `steps`, that much of what will arrive is already in the ring.
    """

    steps: int = eqx.field(static=True)
    read: Delayed
    """(ring, step, n) to what arrives over them at the steps step + 1 to step + n, n at most `steps`: `[n, N, B]`."""
    few: tuple[Callable[..., Array], ...]
    """Readers of the other connections, which were looked up."""
    every: tuple[Callable[..., Array], ...]
    """The same by way of all connections, for when they are more than was thought."""
    fits: Array

    def near(self, ring: Array, step: Array) -> Array:
        """What arrives over the others at that step."""
        few, every = functools.partial(_total, self.few), functools.partial(_total, self.every)
        return jax.lax.cond(self.fits, few, every, ring, step)


class ConnectivityOps(eqx.Module):
    """From what nodes send to what they receive."""

    instant: Callable[[Array], Array]
    """What is sent now, `[N, ...]`, to sum_j w_ij sent_j over the connections without delay."""
    delayed: Delayed | None
    """(ring, step) to the sum over the connections with delay at that step; None where nothing is delayed."""
    strength: Array
    """sum_j w_ij, `[N]` or, in a batch, `[N, 1]` or `[N, B]`."""
    ahead: Ahead | None = None
    """The same as `delayed`, many steps at once; None where one step is read at a time."""

    def arriving(self, ring: Rows, step: Array, far: Rows | None = None) -> Rows:
        """What arrives at `step`.

        `far` is what of it was read ahead.
        """
        if far is None or self.ahead is None:
            assert self.delayed is not None
            return tuple(self.delayed(r, step) for r in ring)
        return tuple(a + self.ahead.near(r, step) for a, r in zip(far, ring, strict=True))


def connectivity_ops(
    connectome: Connectome,
    delays: Delays | None,
    dt: float,
    batched: bool,
    spikes: bool = False,
    origin: tuple[Any, int] = (None, 0),
    mirror: int = 0,
) -> ConnectivityOps:
    """Prepare a network for steps of `dt` ms.

    `batched` when states are `[N, B]`; `mirror` slots of the ring that it reads stand twice. With `spikes` most of what
    is sent is 0, and a lag below one step is a fault; `origin` is what a graph of each draw is drawn from, words of the
    key and the number of the projection.
    """
    w, layout = connectome.weights, connectome.layout
    strength = layout.strength(w)
    if batched and strength.ndim == 1:
        strength = strength[:, None]
    if delays is None:
        return ConnectivityOps(Instant(layout, w), None, strength)
    lag = lag_of(connectome, delays, dt, dt if spikes else 0.0)
    if spikes:
        return ConnectivityOps(jnp.zeros_like, Delayed(_spikes(connectome, delays, lag, origin), lag.fault), strength)
    # drawn lags differ from draw to draw, and so do the slices that a block would read
    drawn = lag.steps.ndim > layout.rank
    ahead = _ahead(connectome, delays, lag, mirror) if batched and delays.ahead and not drawn else None
    reads = _reads(connectome, lag)
    if len(reads) == 1 and lag.steps.ndim > w.ndim:
        reads = [(w, lag.steps)]  # a weight for each draw would be read from memory at every step
    delayed = Delayed(tuple(layout.reader(weight, age, mirror) for weight, age in reads), lag.fault)
    return ConnectivityOps(_instant(connectome, lag, drawn), delayed, strength, ahead)


def _spikes(
    connectome: Connectome, delays: Delays, lag: Lag, origin: tuple[Any, int]
) -> tuple[Callable[..., Array], ...]:
    """Readers of a network of spikes.

    Its lags are at least one step.
    """
    layout = connectome.layout
    if isinstance(layout, RandomGraph):
        words, projection = origin
        if words is None:
            raise ValueError(
                "the graph of a simulation is drawn from its key: use vb.simulate(..., key=jax.random.key(0)); for "
                "vb.stepper give Connectome.random a key, which draws one graph"
            )
        return (GraphReader(layout, connectome.weights, jnp.maximum(lag.steps[0], 1), words, projection),)
    every = tuple(layout.reader(weight, age) for weight, age in _reads(connectome, lag))
    if not lag.steps.size or delays.interpolate:
        return every
    present, steps = padded(connectome.weights != 0.0, lag.steps)
    # absent connections may have any lag
    one = jnp.where(present, steps, 0).max(axis=tuple(range(layout.rank)), keepdims=True)
    age = jnp.maximum(one, 1).reshape(lag.steps.shape[layout.rank :])
    return (SpikeReader(delivery(layout, connectome.weights), age, (~present | (steps == one)).all(), *every),)


def _reads(connectome: Connectome, lag: Lag) -> list[tuple[Array, Array]]:
    """Weights and ages of what is read from the ring.

    The ages are at least 1: what is sent now is not in it.
    """
    w = connectome.weights
    return [
        (times(w, jnp.where(lag.steps + k > 0, share, 0.0)), jnp.maximum(lag.steps + k, 1)) for k, share in lag.taps
    ]


def _ahead(connectome: Connectome, delays: Delays, lag: Lag, mirror: int) -> Ahead:
    """Reads in blocks, and those of shorter lags.

    Which these are is looked up in the program. How many, `delays.near`, is what the connectome had at construction:
    of another one, bound since, all connections are read at every step if there are more.
    """
    layout, n, k = connectome.layout, delays.ahead, lag.taps[0][0]
    under_way = (lag.time > 0.0) if delays.interpolate else lag.steps > 0
    far, near = lag.steps + k > n, under_way & (lag.steps + k <= n)
    blocks, every, few = [], [], []
    at = jnp.nonzero(near, size=delays.near, fill_value=0)
    looked_up, listed = jnp.arange(delays.near) < near.sum(), layout.chosen(at)
    for weight, age in _reads(connectome, lag):
        blocks.append(layout.block_reader(times(weight, far), age, mirror))
        every.append(layout.reader(times(weight, near), age, mirror))
        few.append(listed.reader(times(weight[at], looked_up), age[at], mirror))
    fault = lag.fault[None] if lag.fault.ndim else lag.fault
    return Ahead(n, Delayed(tuple(blocks), fault), tuple(few), tuple(every), near.sum() <= delays.near)


def _instant(connectome: Connectome, lag: Lag, drawn: bool) -> Instant:
    """Connections without delay.

    Where lags differ between draws, those of length zero are without delay in every draw, a matrix product; the few
    others that may be are looked for once, and a sum over `[N, N, B]` is done at each step only if there are any.
    """
    w, lengths, layout = connectome.weights, connectome.tract_lengths, connectome.layout
    if not drawn:
        shares = [jnp.where(lag.steps + k == 0, share, 0.0) for k, share in lag.taps]
        now = times(w, functools.reduce(jnp.add, shares))
        if isinstance(layout, Dense):
            return Instant(layout, now)
        # a sum over a list of connections is dear, and most networks with delays have none to add up
        return Instant(layout, None, now, (lag.steps + lag.taps[0][0] <= 0).any())
    shared = lengths.ndim == layout.rank
    zero = lengths == 0.0 if shared else jnp.zeros((), bool)
    steps, zero_of_draw = padded(lag.steps, zero)
    shares = [jnp.where((steps + k == 0) & ~zero_of_draw, share, 0.0) for k, share in lag.taps]
    always = times(w, jnp.where(zero, 1.0, 0.0).astype(w.dtype)) if shared else None
    some = times(w, functools.reduce(jnp.add, shares))
    return Instant(layout, always, some, ((steps + lag.taps[0][0] <= 0) & ~zero_of_draw).any())
