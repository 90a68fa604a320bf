"""`simulate`: one run of a simulator, resumable."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer._random import key_words
from vbinfer.monitors.base import steps_in
from vbinfer.simulation import loop
from vbinfer.simulation.simulator import Simulator, sampling_steps
from vbinfer.simulation.solution import Carry, Final, Solution


def simulate(sim: Simulator, *, t1: float, key: Array | None, init: Any = None) -> Solution:
    """Run a simulator for `t1` ms.

    Args:
        sim: what to run.
        t1: duration, ms, a multiple of dt; from `init`'s end when `init` is a `Solution.final`.
        key: a typed JAX key; may be None when nothing is random.
        init: None (the model's own), a `State` with leaves `[N]` or numbers, a dictionary of some of its variables, or
            the `final` of an earlier run.
            `simulate(2 T)` equals `simulate(T)` followed by `simulate(T, init=final)` with the same key, bit for bit.

    Returns:
        `Solution(ts, ys, final)`; the initial state is not among the samples.

    >>> import jax, vbinfer as vb
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.5), noise=vb.noise.Additive(0.1))
    >>> vb.simulate(sim, t1=2.0, key=jax.random.key(0)).ys["raw"]["x"].shape
    (4, 1)
    """
    n_steps = steps_in(float(t1), sim.dt, "t1")
    if sim.noise is not None and key is None:
        raise ValueError(
            "the simulator has noise and key is None; pass key=jax.random.key(0), or build it without noise"
        )
    words = None if key is None or sim.noise is None else key_words(key)
    if isinstance(init, Final):
        if init.grid != _grid(sim):
            raise ValueError(
                f"init is the end of a run with dt and monitors {init.grid}, this simulator has {_grid(sim)}; "
                "continue with the same, or start anew from init=final.state"
            )
        carry, phase = init.carry, init.phase
    else:
        carry, phase = loop.start(sim, initial_state(sim, init)), 0
    return _run(sim, carry, phase, n_steps, words)


@eqx.filter_jit
def _run(sim: Simulator, carry: Carry, phase: int, n_steps: int, words: loop.Words | None) -> Solution:
    end, ys = loop.run(sim, carry, phase, n_steps, words)
    ts = {
        name: sample_times(carry.step - phase, phase, n_steps, steps, sim.dt)
        for name, steps in sim.period_steps().items()
    }
    return Solution(ts, ys, Final(end, (phase + n_steps) % sampling_steps(sim)[2], _grid(sim)))


def _grid(sim: Simulator) -> tuple[float, tuple[tuple[str, int], ...]]:
    """dt and the steps per sample of every monitor, by name."""
    return sim.dt, tuple(sorted(sim.period_steps().items()))


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


def named_state(sim: Simulator, values: dict[str, Any]) -> Any:
    """The model's initial state with some variables exchanged by name."""
    variables = sim.model.variables()
    for name in values:
        if name not in variables:
            raise ValueError(f"init names {name!r}; the model has no such variable. {did_you_mean(name, variables)}")
    return sim.model.init(sim.n_nodes)._replace(**values)
