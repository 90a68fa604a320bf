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
from vbinfer.network.arrival import ConnectivityOps, DelayBuffer, Rows, connectivity_ops
from vbinfer.network.coupling import AbstractCoupling
from vbinfer.network.ring import fill, write
from vbinfer.noise import START, Generator, KeyWords
from vbinfer.simulation.simulator import Projection, Simulator, sent_rows
from vbinfer.simulation.solution import Carry

Named = dict[str, Array]
Buffers = tuple[DelayBuffer | None, ...]
"""One for each projection; None for those without delays."""
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
    ring: int
    """The projection that keeps what this one sends: the first delayed one that sends the same."""
    slots: int
    """Slots of that ring, for the longest lag of all that read it."""
    mirror: int
    """Of these, how many stand twice."""


def connectivity(sim: Simulator, batched: bool, words: KeyWords | None = None) -> tuple[Line, ...]:
    """What every step of each projection shares.

    `words` are those of the key, from which graphs are drawn.
    """
    projections, spikes = sim.projections(), sim.sends_spikes
    # couplings that send the variables themselves send the same
    plain = [p.delays is not None and type(p.coupling).pre is AbstractCoupling.pre for p in projections]
    rings = [plain.index(True) if same else k for k, same in enumerate(plain)]

    def line(k: int, p: Projection) -> Line:
        readers = [d for d, ring in zip((p.delays for p in projections), rings, strict=True) if d and ring == rings[k]]
        slots = max((d.slots(sim.dt) for d in readers), default=0)
        mirror = max((d.ahead for d in readers), default=0) if batched and not spikes else 0
        ops = connectivity_ops(p.connectome, p.delays, sim.dt, batched, spikes, (words, k), mirror)
        return Line(p, ops, rings[k], slots, mirror)

    return tuple(line(k, p) for k, p in enumerate(projections))


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
    return Carry(jnp.zeros((), jnp.int32), x, monitors, noise, _buffers(sim, history, lines))


def _buffers(sim: Simulator, history: Any, lines: tuple[Line, ...]) -> Buffers:
    """The delay buffers at time zero."""
    shape = sent_shape(sim, jax.tree.map(lambda a: a[-1], history))

    def filled(line: Line) -> Rows:
        sent = jax.vmap(lambda x: outgoing(sim, line.projection, x))(history)
        return tuple(fill(jnp.broadcast_to(row, (len(row), *shape)), line.slots, line.mirror) for row in sent)

    rings = {k: filled(line) for k, line in enumerate(lines) if line.ring == k and line.ops.delayed is not None}
    return _read(lines, rings, jnp.zeros((), jnp.int32), (None,) * len(lines))


def _pushed(sim: Simulator, lines: tuple[Line, ...], carry: Carry, far: tuple[Any, ...]) -> Buffers:
    """The delay buffers one step on.

    `far` is what of the arriving rows was read ahead.
    """
    shape = sent_shape(sim, carry.x)

    def pushed(line: Line, ring: Rows) -> Rows:
        # written before it is read: the other way round XLA copies the ring at every step
        sent = (jnp.broadcast_to(row, shape) for row in outgoing(sim, line.projection, carry.x))
        return tuple(write(r, carry.step, row, line.mirror) for r, row in zip(ring, sent, strict=True))

    kept = {k: buffer.ring for k, buffer in enumerate(carry.buffers) if buffer is not None and buffer.ring is not None}
    return _read(lines, {k: pushed(lines[k], ring) for k, ring in kept.items()}, carry.step + 1, far)


def _read(lines: tuple[Line, ...], rings: dict[int, Rows], step: Array, far: tuple[Any, ...]) -> Buffers:
    """Buffers with what arrives at `step` out of these rings."""
    return tuple(
        None
        if line.ops.delayed is None
        else DelayBuffer(rings.get(k), line.ops.arriving(rings[line.ring], step, ahead))
        for k, (line, ahead) in enumerate(zip(lines, far, strict=True))
    )


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
        buffers = _pushed(sim, lines, carry, far or (None,) * len(lines))
        arriving = tuple(
            None if old is None or new is None else (old.arriving, new.arriving)
            for old, new in zip(carry.buffers, buffers, strict=True)
        )
        x, noise, monitors = move(carry.step, carry.x, carry.noise, carry.monitors, arriving, z)
        return Carry(carry.step + 1, x, monitors, noise, buffers)

    return step


def _within(stage: float, first: tuple[Array, ...], last: tuple[Array, ...]) -> tuple[Array, ...]:
    """What arrives at a stage of the step."""
    # half-way through the step: their mean, so Runge-Kutta is of order 2 with delays
    if stage in (0.0, 1.0):
        return last if stage else first
    return tuple((1.0 - stage) * a + stage * b for a, b in zip(first, last, strict=True))


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

    def couple(stage: float, x: Any) -> Array:
        if not lines and pulses is None:
            return jnp.zeros((len(model.cvar), *like.shape), like.dtype)
        received: list[Array] = []
        for (projection, ops, *_), ends in zip(lines, arriving, strict=True):
            gx = tuple(ops.instant(row) for row in outgoing(sim, projection, x))
            if ends is not None:
                gx = tuple(a + b for a, b in zip(gx, _within(stage, *ends), strict=True))
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
