"""One step: coupling with delays, drift with stimulus, noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer.integrators import AbstractOwnStep, Split, System
from vbinfer.models.base import AbstractStepper
from vbinfer.monitors.base import AbstractPlaced
from vbinfer.network.arrival import ConnectivityOps, DelayBuffer, connectivity_ops
from vbinfer.network.ring import fill, write
from vbinfer.noise import START, Generator, KeyWords
from vbinfer.simulation.simulator import Projection, Simulator, sent_rows
from vbinfer.simulation.solution import Carry

Named = dict[str, Array]
Step = Callable[[Carry, Named | None, Any], Carry]
"""(carry, standard normals of this step by state variable, what arrives at its end of what was read ahead, or None) to
the next carry."""


def named(sim: Simulator, x: Any) -> Named:
    """A state by variable."""
    return dict(zip(sim.model.variables(), x, strict=True))


def read(monitor: Any, shown: Named) -> Named:
    """What a monitor reads of `at_nodes`, at its nodes."""
    entries = {name: shown[name] for name in monitor.reads(tuple(shown))}
    at = monitor.at if isinstance(monitor, AbstractPlaced) else None
    return entries if at is None else {name: a[np.asarray(at)] for name, a in entries.items()}


def zero_input(sim: Simulator, x: Any) -> Array:
    """Zeros shaped as an input of the nodes, `[N, ...batch]`."""
    return jnp.zeros((sim.n_nodes, *batch_of(sim, x)), x[0].dtype)


def sent_shape(sim: Simulator, x: Any) -> tuple[int, ...]:
    """Shape of what is sent, `[N, ...batch]` or `[R, ...batch]`."""
    return (sim.n_sources, *batch_of(sim, x))


def batch_of(sim: Simulator, x: Any) -> tuple[int, ...]:
    """The axis of draws of a state, if any."""
    own = len(next(iter(sim.state_shapes().values())).shape)
    return x[0].shape[own:]


def prepared(sim: Simulator) -> Simulator:
    """The simulator, model and field ready for steps."""
    if sim.field is not None:
        half = 0.5 * sim.dt if isinstance(sim.integrator, Split) else None
        sim = eqx.tree_at(lambda s: s.field, sim, sim.field.prepared(half))
    if not isinstance(sim.integrator, AbstractOwnStep):
        return sim
    return eqx.tree_at(lambda s: s.model, sim, sim.integrator.prepared(sim.model))


class Line(NamedTuple):
    """A projection and what all its steps share."""

    projection: Projection
    ops: ConnectivityOps


def connectivity(sim: Simulator, batched: bool, words: KeyWords | None = None) -> tuple[Line, ...]:
    """What every step of each projection shares.

    `words` are those of the key, from which graphs are drawn.
    """

    def ops(k: int, p: Projection) -> ConnectivityOps:
        return connectivity_ops(p.connectome, p.delays, sim.dt, batched, sim.sends_spikes, (words, k))

    return tuple(Line(p, ops(k, p)) for k, p in enumerate(sim.projections()))


def start(sim: Simulator, history: Any, words: KeyWords | None, lines: tuple[Line, ...]) -> Carry:
    """The carry at time zero.

    From a history with leaves `[H, *shape]` or `[H, *shape, B]`, oldest first.
    """
    history = jax.vmap(sim.model.project)(history)  # nothing inadmissible is sent before time zero either
    x = jax.tree.map(lambda a: a[-1], history)
    by_name, shown = named(sim, x), sim.model.at_nodes(x)
    monitors = {name: m.init(read(m, shown)) for name, m in sim.monitors.items()}
    noise = None
    if sim.noise is not None:
        names = sim.noise.noisy(by_name)
        z = {name: jnp.zeros_like(by_name[name]) for name in names}
        if words is not None:  # a step number that no simulation reaches
            generator = Generator(words, names, by_name)
            z = generator.unpack(generator.draw(jnp.asarray(START, jnp.uint32), 1)[0])
        noise = sim.noise.init(z)
    return Carry(jnp.zeros((), jnp.int32), x, monitors, noise, tuple(_buffer(sim, history, line) for line in lines))


def _buffer(sim: Simulator, history: Any, line: Line) -> DelayBuffer | None:
    """The delay buffer of a projection at time zero."""
    delays, ops = line.projection.delays, line.ops
    if delays is None or ops.delayed is None:
        return None
    shape = sent_shape(sim, jax.tree.map(lambda a: a[-1], history))
    sent = jax.vmap(lambda x: outgoing(sim, line.projection, x))(history)
    slots = delays.slots(sim.dt)
    ring = tuple(fill(jnp.broadcast_to(row, (len(row), *shape)), slots, ops.mirror) for row in sent)
    return DelayBuffer(ring, ops.arriving(ring, jnp.zeros((), jnp.int32)))


def _pushed(sim: Simulator, line: Line, buffer: DelayBuffer | None, carry: Carry, far: Any) -> DelayBuffer | None:
    """The delay buffer one step on.

    `far` is what of the arriving rows was read ahead.
    """
    if buffer is None:
        return None
    shape, ops = sent_shape(sim, carry.x), line.ops
    # written before it is read: the other way round XLA copies the ring at every step
    sent = (jnp.broadcast_to(row, shape) for row in outgoing(sim, line.projection, carry.x))
    ring = tuple(write(r, carry.step, row, ops.mirror) for r, row in zip(buffer.ring, sent, strict=True))
    return DelayBuffer(ring, ops.arriving(ring, carry.step + 1, far))


def _coupled(sim: Simulator, x: Any) -> tuple[Array, ...]:
    shown = sim.model.at_nodes(x)
    return tuple(shown[name] for name in sim.model.cvar)


def outgoing(sim: Simulator, projection: Projection, x: Any) -> tuple[Array, ...]:
    """The rows that a projection sends and the model reads."""
    x_j = _coupled(sim, x)
    if sim.field is None:
        return sent_rows(sim.model, projection.coupling, x_j)
    return sim.field.sent(lambda rows: sent_rows(sim.model, projection.coupling, rows), x_j)


def one_step(sim: Simulator, lines: tuple[Line, ...]) -> Step:
    """The step of a simulator."""
    process = None if sim.noise is None else sim.noise.process(sim.dt)

    # A backward pass computes the inside of a step anew from the state before it: less memory, and faster than reading
    # every intermediate result back. The ring stays outside, or each step would keep a copy of it.
    @jax.checkpoint
    def move(step: Array, x: Any, noise: Any, monitors: Any, arriving: Any, z: Named | None) -> tuple[Any, Any, Any]:
        dW, pulses = None, None
        if process is not None and z is not None:
            noise, kicks = process(noise, z, named(sim, x))
            if sim.noise is not None and sim.noise.pulses:  # arrive as spikes do, a row of the coupling input
                (pulses,), kicks = kicks.values(), {}
            # variables without noise get a scalar zero, which XLA removes
            dW = type(x)(*(kicks.get(name, jnp.zeros((), a.dtype)) for name, a in named(sim, x).items()))
        new = sim.integrator.step(equations(sim, step, x, lines, arriving, pulses), x, dW)
        shown = sim.model.at_nodes(new)
        return new, noise, {k: m.observe(monitors[k], read(m, shown)) for k, m in sim.monitors.items()}

    def step(carry: Carry, z: Named | None, far: tuple[Any, ...] | None = None) -> Carry:
        shares = zip(lines, carry.buffers, far or (None,) * len(lines), strict=True)
        buffers = tuple(_pushed(sim, line, buffer, carry, ahead) for line, buffer, ahead in shares)
        arriving = tuple(
            None if old is None or new is None else (old.arriving, new.arriving)
            for old, new in zip(carry.buffers, buffers, strict=True)
        )
        x, noise, monitors = move(carry.step, carry.x, carry.noise, carry.monitors, arriving, z)
        return Carry(carry.step + 1, x, monitors, noise, buffers)

    return step


def equations(
    sim: Simulator, step: Array, x: Any, lines: tuple[Line, ...], arriving: Any, pulses: Array | None = None
) -> System:
    """Coupling, drift and bounds during one step.

    States are shaped as x. `arriving` is, for each projection, what arrives through delays at the start and at the end
    of the step; None for those without delays. `pulses` are those of the noise, the last row of c.
    """
    model: Any = sim.model
    like = zero_input(sim, x)
    time = lambda stage: (step + stage) * sim.dt  # noqa: E731

    def stimulus(stage: float) -> Array:
        return jnp.zeros_like(like) if sim.stimulus is None else sim.stimulus(time(stage), like)

    def delayed(stage: float, ends: Any) -> tuple[Array, ...]:
        first, last = ends  # half-way through the step: their mean, so Runge-Kutta is of order 2 with delays
        if stage in (0.0, 1.0):
            return last if stage else first
        return tuple((1.0 - stage) * a + stage * b for a, b in zip(first, last, strict=True))

    def couple(stage: float, x: Any) -> Array:
        if not lines and pulses is None:
            return jnp.zeros((len(model.cvar), *like.shape), like.dtype)
        received: list[Array] = []
        for (projection, ops), ends in zip(lines, arriving, strict=True):
            gx = tuple(ops.instant(row) for row in outgoing(sim, projection, x))
            if ends is not None:
                gx = tuple(a + b for a, b in zip(gx, delayed(stage, ends), strict=True))
            post = projection.coupling.post
            if sim.field is None:
                received += post(gx, _coupled(sim, x), ops.strength)
            else:
                received += sim.field.received(post, gx, _coupled(sim, x), ops.strength)
        received += [] if pulses is None else [pulses]
        return jnp.stack([jnp.broadcast_to(row, like.shape) for row in received])

    splits = isinstance(sim.integrator, Split)

    def near(x: Any, c: Array) -> Array:
        # outside of couple, which some integrators hold over a step
        if sim.field is None or sim.field.local is None or splits:
            return c
        return c.at[0].add(sim.field.near(model.at_nodes(x)[sim.sends]))

    def drift(stage: float, x: Any, c: Array) -> Any:
        return model.dfun(time(stage), x, near(x, c), stimulus(stage))

    def flow(x: Any) -> Any:
        assert sim.field is not None  # `Split` was refused without
        return model.project(x._replace(**{sim.sends: sim.field.flow(getattr(x, sim.sends))}))

    def update(x: Any, dW: Any) -> Any:
        c, u = near(x, couple(model.coupling_stage, x)), stimulus(model.input_stage)
        return model.step(time(0.0), x, c, u, dW, sim.dt)

    brings = isinstance(model, AbstractStepper)
    return System(couple, drift, model.project, update if brings else None, flow if splits else None)
