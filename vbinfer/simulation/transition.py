"""Invert a step: noise from states.

All steps of a path at once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.integrators import Euler, Heun, RungeKutta4, System
from vbinfer.models.base import AbstractModel, AbstractStepper
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.step import Line, Named, connectivity, equations, named, outgoing

CHUNK_VALUES = 2**23
"""So many numbers per state variable are worked on at once, so that memory does not grow with the path."""
PAIR_VALUES = 2**19
"""The same for arrays over pairs of nodes, which are read out of order and should stay in the cache of a core."""
NEWTON = 5
"""Newton steps for the increment of a Heun step; the first guess, that of Euler, is off by dt^2."""


class Innovations(NamedTuple):
    """Noise behind a path of T steps."""

    z: Named
    """Standard normals `[T, N]` by variable that gets noise."""
    slack: Named
    """Increments `[T, N]` of the variables that get none, state units."""
    log_det: Array
    """`[T]`, log |d(z, slack) / d(next state)|."""


def check_invertible(sim: Simulator) -> None:
    """Raise ValueError unless a step can be inverted."""
    name, dt = type(sim.integrator).__name__, sim.dt
    if sim.noise is None:
        raise ValueError(
            "the simulator has no noise, so a path has no density; build it with noise=vb.noise.Additive(...), or give "
            "its output to a likelihood such as vb.likelihoods.Gaussian"
        )
    sim.noise.inverse(sim.dt)
    sim.check_by_node("the density of a path")
    if isinstance(sim.model, AbstractStepper) or not isinstance(sim.integrator, Euler | Heun | RungeKutta4):
        raise ValueError(
            f"the density of a step of {name} is not known in closed form; use "
            f"integrator=vb.integrators.Euler(dt={dt:g}) or vb.Heun(dt={dt:g}), "
            "or sample the noise itself with vb.likelihoods.NoisePath"
        )
    if isinstance(sim.integrator, RungeKutta4) and is_bounded(sim.model):
        raise ValueError(
            f"RungeKutta4 bounds {type(sim.model).__name__} within its step, which is not undone here; use "
            f"integrator=vb.integrators.Euler(dt={dt:g}) or vb.Heun(dt={dt:g})"
        )
    if getattr(sim.model, "wrap", False):
        raise ValueError(
            f"{type(sim.model).__name__}(wrap=True) takes turns off its phases, so that a path has jumps; build it "
            "with wrap=False and give the phases with their turns"
        )


def is_bounded(model: AbstractModel) -> bool:
    """Whether the model has bounds on its states."""
    return type(model).project is not AbstractModel.project


def innovations(sim: Simulator, history: Any, path: Any, first: Array) -> Innovations:
    """Noise that takes a simulator along a path.

    Args:
        sim: one that `check_invertible` accepts.
        history: leaves `[H, N]`, rows dt apart, oldest first, up to the state from which the path departs.
        path: that state and the states after each step, leaves `[T + 1, N]`.
        first: steps taken before the path departs (for stimuli).
    """
    before, after = (jax.tree.map(lambda a, s=s: a[s], path) for s in (slice(None, -1), slice(1, None)))
    n_steps, n = after[0].shape
    lines = tuple(_transposed(line) for line in connectivity(sim, batched=False))
    ways = [_way(sim, line, history, path) for line in lines]
    assert sim.noise is not None
    normals_of = sim.noise.inverse(sim.dt)
    driven = sim.noise.noisy(sim.state_shapes())

    def one(k: Array, x: Any, new: Any) -> tuple[Named, Named, Array]:
        arriving = tuple(None if way is None else (way(k), way(k + 1)) for way in ways)
        system = equations(sim, first + k, x, lines, arriving)
        dW, log_det = _increment(sim, system, x, new)
        by_name = named(sim, dW)
        z, log_scale = normals_of({name: by_name[name] for name in driven}, named(sim, x))
        return z, {name: w for name, w in by_name.items() if name not in driven}, log_det + log_scale

    steps = (jnp.arange(n_steps, dtype=jnp.int32), before, after)
    size = _chunk(sim, n, any(p.connectome.edges is None and p.delays is not None for p in sim.projections()))
    if n_steps <= size:
        return Innovations(*jax.vmap(one)(*steps))
    size = -(-n_steps // -(-n_steps // size))  # equal pieces, but for the last
    return Innovations(*_in_chunks(one, steps, n_steps, size))


def _in_chunks(one: Callable[..., Any], steps: Any, n_steps: int, size: int) -> Any:
    """`vmap` over a chunk of steps at a time.

    The backward pass makes the inside of a chunk anew.
    """
    # lax.map is a scan: memory is that of one chunk, forwards and backwards
    many = jax.checkpoint(lambda chunk: jax.vmap(one)(*chunk), prevent_cse=False)
    whole = n_steps // size * size
    cut = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), steps)
    out = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), jax.lax.map(many, cut))
    if whole == n_steps:
        return out
    last = many(jax.tree.map(lambda a: a[whole:], steps))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, last)


def _chunk(sim: Simulator, n: int, by_pair: bool) -> int:
    """Steps to take at once.

    `by_pair` where delays are looked up for all pairs of nodes.
    """
    states = n * len(sim.model.variables())
    if isinstance(sim.integrator, Heun) and not _is_local(sim):
        return max(1, PAIR_VALUES // states**2)
    pairs = PAIR_VALUES // n**2 if by_pair else CHUNK_VALUES
    return max(1, min(CHUNK_VALUES // states, pairs))


def _transposed(line: Line) -> Line:
    """A dense projection without delays, for all steps together."""
    connectome, ops = line.projection.connectome, line.ops
    if line.projection.delays is not None or connectome.edges is not None:
        return line
    across = connectome.weights.T
    # for all steps together a product [T, N] [N, N]; the other order would give it transposed, to be copied
    return line._replace(ops=dataclasses.replace(ops, instant=lambda sent: sent @ across))


def _way(sim: Simulator, line: Line, history: Any, path: Any) -> Callable[[Array], tuple[Array, ...]] | None:
    """Function from step to rows that arrive delayed.

    They are read from a delay buffer that is never written over, rows `[step, N]`.
    """
    projection, delayed = line.projection, line.ops.delayed
    if projection.delays is None or delayed is None:
        return None
    past = projection.delays.slots(sim.dt)
    rows = len(history[0])
    at = jnp.maximum(jnp.arange(-past, 0) + rows - 1, 0)  # the oldest row stands for all before it
    states = jax.tree.map(lambda h, p: jnp.concatenate([h[at], p]), history, path)
    shape = (sim.n_sources,)
    sent = jax.vmap(lambda x: tuple(jnp.broadcast_to(row, shape) for row in outgoing(sim, projection, x)))(states)
    return lambda k: tuple(delayed(row, past + k) for row in sent)


def _is_local(sim: Simulator) -> bool:
    """Whether noise stays with its node in a step."""
    if sim.field is not None and sim.field.local is not None:
        return False
    return sim.connectome is None or getattr(sim.integrator, "frozen_coupling", False)


def _increment(sim: Simulator, system: System, x: Any, new: Any) -> tuple[Any, Array]:
    """The increment dW from x to `new`.

    With it comes log |d dW / d new|.
    """
    if isinstance(sim.integrator, Heun):
        return _increment_of_heun(sim, system, x, new)
    mean = sim.integrator.step(system._replace(project=lambda y: y), x, None)  # dW is added to this, last
    return jax.tree.map(jnp.subtract, new, mean), jnp.zeros((), new[0].dtype)


def _increment_of_heun(sim: Simulator, system: System, x: Any, new: Any) -> tuple[Any, Array]:
    """The increment of a Heun step, by Newton's method.

    dW enters the predictor, so that new = F(dW) has to be solved, and |d dW / d new| = 1 / |det F'|.

    p = project(x + dt f(t, x) + dW);   F(dW) = x + dt/2 (f(t, x) + f(t + dt, p)) + dW
    """
    dt, tree = sim.dt, jax.tree.structure(x)
    c = system.couple(0.0, x)
    k1 = system.drift(0.0, x, c)
    frozen = getattr(sim.integrator, "frozen_coupling", False)
    stack = lambda s: jnp.stack([jnp.broadcast_to(a, x[0].shape) for a in s], axis=-1)  # noqa: E731
    slope, start, end = stack(k1), stack(x), stack(new)

    def reached(dW: Array) -> Array:
        raw = start + dt * slope + dW
        p = system.project(jax.tree.unflatten(tree, list(jnp.moveaxis(raw, -1, 0))))
        k2 = system.drift(1.0, p, c if frozen else system.couple(1.0, p))
        return start + 0.5 * dt * (slope + stack(k2)) + dW

    jacobian = _local_jacobian(reached) if _is_local(sim) else _full_jacobian(reached)

    def newton(dW: Array, matrix: Array) -> Array:
        gap = (reached(dW) - end).reshape(matrix.shape[:-1])
        return dW - jnp.linalg.solve(matrix, gap[..., None])[..., 0].reshape(dW.shape)

    held = jax.lax.stop_gradient
    dW = held(end - start - dt * slope)
    for _ in range(NEWTON):
        dW = held(newton(dW, jacobian(dW)))
    dW = newton(dW, held(jacobian(dW)))  # one more, so that the derivative is that of the implicit function
    log_det = jnp.linalg.slogdet(jacobian(dW))[1].sum()
    size = 1.0 + jnp.abs(held(end)).max()
    missed = jnp.abs(held(reached(dW)) - held(end)).max() > jnp.finfo(end.dtype).eps ** 0.5 * size
    log_det = jnp.where(missed, jnp.nan, log_det)  # no increment leads there, or more than one: a failure that is seen
    return jax.tree.unflatten(tree, list(jnp.moveaxis(dW, -1, 0))), -log_det


def _local_jacobian(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Jacobian `[N, V, V]` of f, each node for itself."""

    def jacobian(w: Array) -> Array:
        along = jnp.eye(w.shape[-1], dtype=w.dtype)
        # elementwise over nodes: one derivative along each variable gives that column at every node
        columns = [jax.jvp(f, (w,), (jnp.broadcast_to(e, w.shape),))[1] for e in along]
        return jnp.stack(columns, axis=-1)

    return jacobian


def _full_jacobian(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Jacobian of f over all nodes.

    f maps `[N, V]` to `[N, V]`; the Jacobian is `[N V, N V]`.
    """
    return lambda w: jax.jacfwd(f)(w).reshape(w.size, w.size)
