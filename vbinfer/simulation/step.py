"""One step: coupling with delays, drift with stimulus, noise."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.integrators import System
from vbinfer.models.base import AbstractStepper
from vbinfer.network.delays import ConnectivityOps, DelayBuffer, connectivity_ops
from vbinfer.network.ring import fill, write
from vbinfer.noise import START, Generator, KeyWords
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.solution import Carry

Named = dict[str, Array]
Step = Callable[[Carry, Named | None, Any], Carry]
"""(carry, standard normals of this step by state variable, what arrives at its end of what was read ahead, or None) to
the next carry."""


def named(sim: Simulator, x: Any) -> Named:
    """A state by variable."""
    return dict(zip(sim.model.variables(), x, strict=True))


def read(monitor: Any, shown: Named) -> Named:
    """What a monitor reads of what the model shows at its nodes."""
    return {name: shown[name] for name in monitor.reads(tuple(shown))}


def zero_input(sim: Simulator, x: Any) -> Array:
    """Zeros shaped as an input of the nodes, `[N, ...batch]`."""
    return jnp.zeros((sim.n_nodes, *batch_of(sim, x)), x[0].dtype)


def batch_of(sim: Simulator, x: Any) -> tuple[int, ...]:
    """The axis of draws that states have beyond their own, if any."""
    own = len(next(iter(sim.state_shapes().values())).shape)
    return x[0].shape[own:]


def prepared(sim: Simulator) -> Simulator:
    """The simulator whose model has prepared itself for its steps."""
    if not isinstance(sim.model, AbstractStepper):
        return sim
    return eqx.tree_at(lambda s: s.model, sim, sim.model.prepared(sim.dt))


def connectivity(sim: Simulator, batched: bool) -> ConnectivityOps | None:
    """What every step of a network shares."""
    return None if sim.connectome is None else connectivity_ops(sim.connectome, sim.delays, sim.dt, batched)


def start(sim: Simulator, history: Any, words: KeyWords | None, network: ConnectivityOps | None) -> Carry:
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
    buffer, zero = None, jnp.zeros((), jnp.int32)
    if sim.delays is not None and network is not None and network.delayed is not None:
        slots, like = sim.delays.slots(sim.dt), zero_input(sim, x)
        sent = jax.vmap(lambda row: outgoing(sim, row))(history)
        ring = tuple(fill(jnp.broadcast_to(row, (row.shape[0], *like.shape)), slots, network.mirror) for row in sent)
        buffer = DelayBuffer(ring, network.arriving(ring, zero))
    return Carry(zero, x, monitors, noise, buffer)


def _coupled(sim: Simulator, x: Any) -> tuple[Array, ...]:
    shown = sim.model.at_nodes(x)
    return tuple(shown[name] for name in sim.model.cvar)


def outgoing(sim: Simulator, x: Any) -> tuple[Array, ...]:
    """The rows that the coupling sends and the model reads."""
    assert sim.coupling is not None
    return tuple(sim.coupling.pre(_coupled(sim, x)))[: sim.model.rows]


def one_step(sim: Simulator, x: Any, network: ConnectivityOps | None) -> Step:
    """The step of a simulator.

    Its states are shaped like `x`.
    """
    process, like = None if sim.noise is None else sim.noise.process(sim.dt), zero_input(sim, x)

    # A backward pass computes the inside of a step anew from the state before it: less memory, and faster than reading
    # every intermediate result back. The ring stays outside, or each step would keep a copy of it.
    @jax.checkpoint
    def move(step: Array, x: Any, noise: Any, monitors: Any, arriving: Any, z: Named | None) -> tuple[Any, Any, Any]:
        dW = None
        if process is not None and z is not None:
            noise, kicks = process(noise, z, named(sim, x))
            # variables without noise get a scalar zero, which XLA removes
            dW = type(x)(*(kicks.get(name, jnp.zeros((), a.dtype)) for name, a in named(sim, x).items()))
        new = sim.integrator.step(equations(sim, step, x, network, arriving), x, dW)
        shown = sim.model.at_nodes(new)
        return new, noise, {k: m.observe(monitors[k], read(m, shown)) for k, m in sim.monitors.items()}

    def step(carry: Carry, z: Named | None, far: Any = None) -> Carry:
        buffer, arriving = carry.buffer, None
        if buffer is not None and network is not None and network.delayed is not None:
            # written before it is read: the other way round XLA copies the ring at every step
            sent = (jnp.broadcast_to(row, like.shape) for row in outgoing(sim, carry.x))
            ring = tuple(write(r, carry.step, row, network.mirror) for r, row in zip(buffer.ring, sent, strict=True))
            at_end = network.arriving(ring, carry.step + 1, far)
            arriving = (buffer.arriving, at_end)
            buffer = DelayBuffer(ring, at_end)
        new, noise, monitors = move(carry.step, carry.x, carry.noise, carry.monitors, arriving, z)
        return Carry(carry.step + 1, new, monitors, noise, buffer)

    return step


def equations(sim: Simulator, step: Array, like: Any, network: ConnectivityOps | None, arriving: Any) -> System:
    """Coupling, drift and bounds during one step.

    States are shaped as those of `like`. `arriving` is what arrives through delays at its start and at its end, None
    without delays.
    """
    model: Any = sim.model
    like = zero_input(sim, like)
    time = lambda stage: (step + stage) * sim.dt  # noqa: E731

    def stimulus(stage: float) -> Array:
        return jnp.zeros_like(like) if sim.stimulus is None else sim.stimulus(time(stage), like)

    def delayed(stage: float) -> tuple[Array, ...]:
        first, last = arriving  # half-way through the step: their mean, so Runge-Kutta is of order 2 with delays
        if stage in (0.0, 1.0):
            return last if stage else first
        return tuple((1.0 - stage) * a + stage * b for a, b in zip(first, last, strict=True))

    def couple(stage: float, x: Any) -> Array:
        if network is None or sim.coupling is None:
            return jnp.zeros((len(model.cvar), *like.shape), like.dtype)
        gx = tuple(network.instant(row) for row in outgoing(sim, x))
        if arriving is not None:
            gx = tuple(a + b for a, b in zip(gx, delayed(stage), strict=True))
        received = sim.coupling.post(gx, _coupled(sim, x), network.strength)
        return jnp.stack([jnp.broadcast_to(row, like.shape) for row in received])

    def drift(stage: float, x: Any, c: Array) -> Any:
        return model.dfun(time(stage), x, c, stimulus(stage))

    def update(x: Any, dW: Any) -> Any:
        c, u = couple(model.coupling_stage, x), stimulus(model.input_stage)
        return model.step(time(0.0), x, c, u, dW, sim.dt)

    return System(couple, drift, model.project, update if isinstance(model, AbstractStepper) else None)
