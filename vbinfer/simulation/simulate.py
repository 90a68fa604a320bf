"""`simulate`: one run of a simulator, resumable."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer._random import key_words
from vbinfer.monitors.base import steps_in
from vbinfer.network.delays import History
from vbinfer.noise import KeyWords
from vbinfer.simulation import loop
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.simulator import Simulator, sampling_steps
from vbinfer.simulation.solution import Carry, Final, Grid, Solution
from vbinfer.simulation.step import start


def simulate(
    sim: Simulator,
    *,
    t1: float,
    key: Array | None,
    init: Any = None,
    checkpoint: bool | tuple[int, ...] | None = None,
    noise_path: Any = None,
) -> Solution:
    """Run a simulator for `t1` ms.

    Args:
        sim: what to run.
        t1: duration, ms, a multiple of dt; from `init`'s end when `init` is a `Solution.final`.
        key: a typed JAX key; may be None when nothing is random.
        init: None (the model's own), a `State` with leaves `[N]` or numbers, a dictionary of some of its variables, a
            `History` for what was sent before time zero, or the `final` of an earlier run.
            `simulate(2 T)` equals `simulate(T)` followed by `simulate(T, init=final)` with the same key, bit for bit.
        checkpoint: how the backward pass of a gradient saves memory; the result is the same. None keeps what every
            step needs. True keeps the state once per segment of sqrt(number of steps) steps and computes the segments
            anew: memory grows like the square root of the duration, for one more forward run. A tuple of nested
            lengths, outermost first, such as `(60, 100, 10)`, cuts segments of 10 steps in segments of 1000: a forward
            run more for each level; the product need not be the number of steps.
        noise_path: standard normals in place of those that `key` would give, so that they can be sampled with the
            parameters: a State or a mapping from state variable to `[T, N]`, T the number of steps, for every variable
            that gets noise.

    Returns:
        `Solution(ts, ys, final)`; the initial state is not among the samples.

    >>> import jax, vbinfer as vb
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.5), noise=vb.noise.Additive(0.1))
    >>> vb.simulate(sim, t1=2.0, key=jax.random.key(0)).ys["raw"]["x"].shape
    (4, 1)
    """
    n_steps = steps_in(float(t1), sim.dt, "t1")
    if sim.noise is not None and key is None:
        if noise_path is None:
            raise ValueError(
                "the simulator has noise and key is None; pass key=jax.random.key(0), or build it without noise"
            )
        if sim.noise.needs_start_key and not isinstance(init, Final):
            raise ValueError(
                f"noise_path has no row for the stationary start of {type(sim.noise).__name__} noise; pass "
                "key=jax.random.key(0) too, which then draws the start alone, or init=final of an earlier run"
            )
    words = None if key is None or sim.noise is None else key_words(key)
    if words is not None and words[0].ndim:
        raise ValueError(
            f"key has shape {list(words[0].shape)}; simulate takes one key. Map over several with jax.vmap, or use "
            "ForwardModel.batch"
        )
    path = None if noise_path is None else _path(sim, noise_path, n_steps)
    if isinstance(init, Final):
        if init.grid != _grid(sim):
            raise ValueError(
                f"init is the end of a run with {init.grid}, this simulator has {_grid(sim)}; "
                "continue with the same, or start anew from init=final.state"
            )
        carry, phase = init.carry, init.phase
    else:
        carry, phase = start(sim, initial_history(sim, init), words), 0
    return _in_order(sim, _run(sim, carry, phase, n_steps, words, path, _segments(checkpoint)))


def _in_order(sim: Simulator, solution: Solution) -> Solution:
    """Monitors and state variables in the order of the simulator: jit returns them sorted by name."""
    return Solution({name: solution.ts[name] for name in sim.monitors}, in_order(sim, solution.ys), solution.final)


def in_order(sim: Simulator, ys: dict[str, Any]) -> dict[str, Any]:
    """Samples with monitors in the order of the simulator and state variables in that of the model."""

    def by_variable(y: Any) -> Any:
        return {name: y[name] for name in sim.model.variables() if name in y} if isinstance(y, dict) else y

    return {name: by_variable(ys[name]) for name in sim.monitors if name in ys}


@Compiled
def _run(
    sim: Simulator, carry: Carry, phase: int, n_steps: int, words: KeyWords | None, path: Any, checkpoint: Any
) -> Solution:
    end, ys = loop.run(sim, carry, phase, n_steps, words, path, checkpoint)
    ts = {
        name: sample_times(carry.step - phase, phase, n_steps, steps, sim.dt)
        for name, steps in sim.period_steps().items()
    }
    return Solution(ts, ys, Final(end, (phase + n_steps) % sampling_steps(sim)[2], _grid(sim)))


def _grid(sim: Simulator) -> Grid:
    slots = 0 if sim.delays is None else sim.delays.slots(sim.dt)
    parts = [f"{type(sim.model).__name__} of {sim.n_nodes} nodes", f"noise {type(sim.noise).__name__}"]
    parts += [f"{k}: {type(m).__name__}, stride {m.stride(sim.dt)}" for k, m in sorted(sim.monitors.items())]
    return Grid(sim.dt, tuple(sorted(sim.period_steps().items())), slots, tuple(parts))


def _segments(checkpoint: Any) -> bool | tuple[int, ...] | None:
    if checkpoint is None or isinstance(checkpoint, bool):
        return checkpoint or None
    whole = isinstance(checkpoint, tuple | list) and all(isinstance(n, int) and n > 0 for n in checkpoint)
    if not whole or not checkpoint:
        raise ValueError(
            f"checkpoint={checkpoint!r} was given; expected None, True, or nested lengths in steps such as (60, 100)"
        )
    return tuple(checkpoint)


def _path(sim: Simulator, noise_path: Any, n_steps: int) -> dict[str, Array]:
    """The given normals of the state variables that get noise, `[n_steps, N]` each."""
    if sim.noise is None:
        raise ValueError(
            "noise_path was given to a simulator without noise; build it with noise=vb.noise.Additive(...)"
        )
    given = noise_path._asdict() if hasattr(noise_path, "_asdict") else noise_path
    if not isinstance(given, Mapping):
        raise TypeError(
            f"noise_path was given as {type(noise_path).__name__}; expected a State or a mapping by variable"
        )
    n = sim.n_nodes
    names = sim.noise.noisy(sim.state_shapes())
    for name in given:
        if name not in sim.model.variables():
            raise ValueError(f"noise_path names {name!r}. {did_you_mean(name, sim.model.variables())}")
    path = {}
    for name in names:
        if given.get(name) is None:
            raise ValueError(f"noise_path lacks {name!r}; it needs [T, N] normals for {', '.join(names)}")
        path[name] = jnp.asarray(given[name], jnp.result_type(float))
        if path[name].shape != (n_steps, n):
            raise ValueError(
                f"noise_path[{name!r}] has shape {list(path[name].shape)}; expected [{n_steps}, {n}], a row per step"
            )
    return path


def sample_times(origin: Array, phase: int, n_steps: int, period: int, dt: float) -> Array:
    """Times of the multiples of `period` steps in (origin + phase, origin + phase + n_steps], ms."""
    first, last = phase // period + 1, (phase + n_steps) // period
    count = jnp.arange(first, last + 1)
    return (origin // period + count) * jnp.asarray(period * dt, jnp.result_type(float))


def initial_state(sim: Simulator, init: Any) -> Any:
    """The state that `init` stands for, with leaves `[N]`."""
    n, State = sim.n_nodes, sim.model.State
    if init is None:
        return sim.model.init(n)
    if isinstance(init, dict):
        init = named_state(sim, init)
    if isinstance(init, Solution):
        raise TypeError("init was given a Solution; write init=solution.final")
    if not isinstance(init, State):
        raise TypeError(
            f"init was given as {type(init).__name__}; expected None, a {State.__name__}, or the final of a Solution"
        )
    leaves = []
    for name, value in zip(sim.model.variables(), init, strict=True):
        value = jnp.asarray(value, jnp.result_type(float))
        if value.ndim > 1 or (value.ndim == 1 and value.shape[0] not in (1, n)):
            raise ValueError(f"init.{name} has shape {list(value.shape)}; expected a number or [{n}], one per node")
        leaves.append(jnp.broadcast_to(value, (n,)))
    return State(*leaves)


def initial_history(sim: Simulator, init: Any) -> Any:
    """What `init` says of the time up to zero: leaves `[H, N]`, oldest first; one row is a constant history."""
    if not isinstance(init, History):
        return jax.tree.map(lambda a: a[None], initial_state(sim, init))
    n, State, rows = sim.n_nodes, sim.model.State, []
    if not isinstance(init.state, State):
        raise TypeError(f"History holds {type(init.state).__name__}; expected a {State.__name__} with leaves [H, {n}]")
    for name, value in zip(sim.model.variables(), init.state, strict=True):
        value = jnp.asarray(value, jnp.result_type(float))
        if value.ndim != 2 or value.shape[1] != n or value.shape[0] < 1:
            raise ValueError(f"the history of {name!r} has shape {list(value.shape)}; expected [H, {n}], oldest first")
        rows.append(value)
    if len({len(value) for value in rows}) > 1:
        raise ValueError(
            f"the histories have {[len(v) for v in rows]} rows; every state variable needs the same number"
        )
    return State(*rows)


def named_state(sim: Simulator, values: dict[str, Any]) -> Any:
    """The model's initial state with some variables exchanged by name."""
    variables = sim.model.variables()
    for name in values:
        if name not in variables:
            raise ValueError(f"init names {name!r}; the model has no such variable. {did_you_mean(name, variables)}")
    return sim.model.init(sim.n_nodes)._replace(**values)
