"""The only loop over time: steps inside, samples outside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.integrators import System
from vbinfer.network.coupling import weighted_sum
from vbinfer.simulation.simulator import Simulator, sampling_steps
from vbinfer.simulation.solution import Carry

Words = tuple[Array, Array]


def start(sim: Simulator, x: Any) -> Carry:
    """The carry at time zero from a state with leaves `[N]` or `[N, B]`."""
    x = sim.model.project(x)
    named = _named(sim, x)
    monitors = {name: m.init(_read(sim, m, named)) for name, m in sim.monitors.items()}
    return Carry(jnp.zeros((), jnp.int32), x, monitors)


def run(sim: Simulator, carry: Carry, phase: int, n_steps: int, words: Words | None) -> tuple[Carry, dict[str, Any]]:
    """Take `n_steps` steps from a carry that is `phase` steps past a common multiple of all periods.

    Returns:
        The carry at the end, and the samples of each monitor, `[T, N]` or `[T, N, B]` by monitor name.
    """
    block, tick, _ = sampling_steps(sim)
    advance = _advance(sim, _step(sim, carry.x, words), tick)
    lead = min(n_steps, -phase % block)
    carry = advance(carry, phase % block, lead)
    first: dict[str, Any] | None = None
    if lead and (phase + lead) % block == 0:
        carry, first = _sample(sim, carry, block)

    def one_block(carry: Carry, _: None) -> tuple[Carry, dict[str, Any]]:
        return _sample(sim, advance(carry, 0, block), block)

    n_blocks, tail = divmod(n_steps - lead, block)
    carry, ys = jax.lax.scan(one_block, carry, None, length=n_blocks)
    carry = advance(carry, 0, tail)
    if first is not None:
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, ys)
    start_block = phase // block
    return carry, {
        name: _due(ys[name], start_block, steps // block, n_blocks + (first is not None))
        for name, steps in sim.period_steps().items()
    }


def _due(y: Any, start_block: int, every: int, n: int) -> Any:
    """Of samples taken at blocks start_block + 1 ... start_block + n, those at multiples of `every`."""
    offset = -(start_block + 1) % every
    return jax.tree.map(lambda a: a[offset:n:every], y)


def _named(sim: Simulator, x: Any) -> dict[str, Array]:
    return dict(zip(sim.model.variables(), x, strict=True))


def _read(sim: Simulator, monitor: Any, named: dict[str, Array]) -> dict[str, Array]:
    return {name: named[name] for name in monitor.reads(sim.model.variables())}


def _system(sim: Simulator, x: Any) -> System:
    """Coupling, drift and bounds of this simulator, for a state shaped like `x`."""
    model: Any = sim.model
    cvar = [model.variable(name) for name in model.cvar]
    none = jnp.zeros_like(x[0])
    coupling, connectome = sim.coupling, sim.connectome
    if coupling is None or connectome is None:
        silence = jnp.zeros((len(cvar), *none.shape), none.dtype)
        return System(lambda x: silence, lambda t, x, c: model.dfun(t, x, c, none), model.project)
    weights = connectome.weights
    strength = weights.sum(axis=1)
    if none.ndim == 2 and weights.ndim == 2:
        strength = strength[:, None]

    def couple(x: Any) -> Array:
        x_i = tuple(x[i] for i in cvar)
        gx = tuple(weighted_sum(weights, sent) for sent in coupling.pre(x_i))
        return jnp.stack(coupling.post(gx, x_i, strength))

    return System(couple, lambda t, x, c: model.dfun(t, x, c, none), model.project)


def _step(sim: Simulator, x: Any, words: Words | None) -> Callable[[Carry], Carry]:
    """One step of dt: the state, then every monitor takes note."""
    system = _system(sim, x)

    def step(carry: Carry) -> Carry:
        x = carry.x
        dW = None
        if sim.noise is not None and words is not None:
            named = _named(sim, x)
            noisy = sim.noise.increments(words, carry.step, sim.dt, named)
            dW = type(x)(*(noisy.get(name, jnp.zeros((), a.dtype)) for name, a in named.items()))
        new = sim.integrator.step(system, carry.step * sim.dt, x, dW)
        named = _named(sim, new)
        monitors = {name: m.observe(carry.monitors[name], _read(sim, m, named)) for name, m in sim.monitors.items()}
        return Carry(carry.step + 1, new, monitors)

    return step


def _advance(sim: Simulator, step: Callable[[Carry], Carry], tick: int) -> Callable[[Carry, int, int], Carry]:
    """`advance(carry, phase, n)`: n steps from `phase` steps past a tick multiple, with every update that falls due."""
    strides = {name: k for name, m in sim.monitors.items() if (k := m.stride(sim.dt)) is not None}

    def steps(carry: Carry, n: int) -> Carry:
        return jax.lax.scan(lambda c, _: (step(c), None), carry, None, length=n)[0] if n else carry

    def update(carry: Carry) -> Carry:
        monitors = dict(carry.monitors)
        for name, stride in strides.items():
            monitors[name] = _when(
                stride == tick,
                carry.step % stride == 0,
                lambda m, k=name: sim.monitors[k].update(m, sim.dt),
                monitors[name],
            )
        return carry._replace(monitors=monitors)

    def one_tick(carry: Carry, _: None) -> tuple[Carry, None]:
        return update(steps(carry, tick)), None

    def advance(carry: Carry, phase: int, n: int) -> Carry:
        lead = min(n, -phase % tick)
        carry = steps(carry, lead)
        if lead and (phase + lead) % tick == 0:
            carry = update(carry)
        ticks, tail = divmod(n - lead, tick)
        if ticks == 1:
            carry = one_tick(carry, None)[0]
        elif ticks:
            carry = jax.lax.scan(one_tick, carry, None, length=ticks)[0]
        return steps(carry, tail)

    return advance


def _when(always: bool, due: Array, f: Callable[[Any], Any], value: Any) -> Any:
    """f(value) if due, else value; without a branch where that is known beforehand."""
    return f(value) if always else jax.lax.cond(due, f, lambda v: v, value)


def _sample(sim: Simulator, carry: Carry, block: int) -> tuple[Carry, dict[str, Any]]:
    """The samples of every monitor at the end of a block; zeros from those that are not due, dropped later."""
    named = _named(sim, carry.x)
    monitors, ys = dict(carry.monitors), {}
    for name, steps in sim.period_steps().items():
        monitor, x = sim.monitors[name], _read(sim, sim.monitors[name], named)

        def sample(carry_: Any, monitor: Any = monitor, x: Any = x) -> tuple[Any, Any]:
            return monitor.sample(carry_, x)

        def skip(carry_: Any, sample: Any = sample) -> tuple[Any, Any]:
            shape = jax.eval_shape(sample, carry_)[1]
            return carry_, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)

        if steps == block:
            monitors[name], ys[name] = sample(monitors[name])
        else:
            monitors[name], ys[name] = jax.lax.cond(carry.step % steps == 0, sample, skip, monitors[name])
    return carry._replace(monitors=monitors), ys
