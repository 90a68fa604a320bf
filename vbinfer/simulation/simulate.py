"""One run of a simulator, resumable."""

import math
import warnings
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._random import key_words
from vbinfer.execute.resources import Need, check_memory, format_bytes
from vbinfer.monitors.base import steps_in
from vbinfer.noise import KeyWords
from vbinfer.simulation import loop
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import by_variable, initial_history
from vbinfer.simulation.simulator import Simulator, sampling_steps
from vbinfer.simulation.solution import Final, Grid, Solution


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
    n_steps = steps_in(t1, sim.dt, "t1")
    _check_samples(sim, n_steps)
    words = checked_words(sim, key, init, noise_path is not None)
    path = None if noise_path is None else _path(sim, noise_path, n_steps)
    _warn_of_none(sim, n_steps, init)
    begin, phase = beginning(sim, init)
    out = _run(sim, begin, phase, n_steps, words, path, _segments(checkpoint))
    return Solution({name: out.ts[name] for name in sim.monitors}, in_order(sim, out.ys), out.final)


def _warn_of_none(sim: Simulator, n_steps: int, init: Any) -> None:
    """Warn of monitors without a sample in the run."""
    for name, period in sim.period_steps().items():
        if n_steps < period and not sim.monitors[name].at_end and not isinstance(init, Final):
            warnings.warn(
                f"monitor {name!r} has a sample every {period * sim.dt:g} ms and the run lasts {n_steps * sim.dt:g} "
                f"ms: it holds none; give t1={period * sim.dt:g} or more, or go on from `final`",
                stacklevel=3,
            )


def checked_words(sim: Simulator, key: Array | None, init: Any, has_path: bool = False) -> KeyWords | None:
    """The words of the key that a run needs.

    Raises:
        ValueError: no key where there is noise, or several.
    """
    if sim.noise is not None and key is None:
        if not has_path:
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
    return words


MANY_VALUES = 2**26
"""Samples of so many numbers are compared with the memory at hand."""


def _check_samples(sim: Simulator, n_steps: int) -> None:
    """Raise ValueError where memory does not hold the samples."""
    if n_steps * sim.n_nodes < MANY_VALUES:
        return
    shown, itemsize = sim.node_shapes(), jnp.result_type(float).itemsize
    for name, period in sim.period_steps().items():
        monitor, rows = sim.monitors[name], n_steps // period
        sample = monitor.sample_shape(sim.n_nodes)
        width = math.prod(sample) if sample else sum(math.prod(shown[v].shape) for v in monitor.reads(tuple(shown)))
        size = rows * width * itemsize
        arithmetic = f"monitor {name!r} holds {rows:,} samples x {width:,} values = {format_bytes(size)}"
        try:
            check_memory(Need(size, arithmetic), "Give it a period, some nodes (at=), or record means of regions")
        except RuntimeError as error:
            raise ValueError(str(error)) from None


def beginning(sim: Simulator, init: Any) -> tuple[Any, int]:
    """Carry or history to start from, and its phase."""
    if not isinstance(init, Final):
        return initial_history(sim, init), 0
    if init.grid != _grid(sim):
        raise ValueError(
            f"init is the end of a run with {init.grid}, this simulator has {_grid(sim)}; "
            "continue with the same, or start anew from init=final.state"
        )
    return init.carry, init.phase  # windows that are open go on


def in_order(sim: Simulator, ys: dict[str, Any]) -> dict[str, Any]:
    """Samples in the order that was declared.

    It is that of the monitors, and of what the model shows at its nodes; jit returns dictionaries sorted by name.
    """
    known = sim.node_shapes()

    def by_variable(y: Any) -> Any:
        return {name: y[name] for name in known if name in y} if isinstance(y, dict) else y

    return {name: by_variable(ys[name]) for name in sim.monitors if name in ys}


@Compiled
def _run(
    sim: Simulator, begin: Any, phase: int, n_steps: int, words: KeyWords | None, path: Any, checkpoint: Any
) -> Solution:
    # phase and n_steps are static: the compiler knows which windows are open
    end, ys = loop.run(sim, begin, phase, n_steps, words, path, checkpoint)
    origin = end.step - n_steps - phase
    ts = {name: sample_times(origin, phase, n_steps, k, sim.dt) for name, k in sim.period_steps().items()}
    ts |= {name: end.step[None] * sim.dt for name, monitor in sim.monitors.items() if monitor.at_end}
    return Solution(ts, ys, Final(end, (phase + n_steps) % sampling_steps(sim)[2], _grid(sim)))


def _grid(sim: Simulator) -> Grid:
    slots = tuple(p.delays.slots(sim.dt) if p.delays else 0 for p in sim.projections())
    # what decides the shapes and the meaning of a carry
    parts = [f"{type(sim.model).__name__} of {sim.n_nodes} nodes", f"noise {type(sim.noise).__name__}"]
    parts += [f"{sim.n_sources} regions"] if sim.n_sources != sim.n_nodes else []
    parts += [f"{v} {list(s.shape)}" for v, s in sim.state_shapes().items() if s.shape != (sim.n_nodes,)]
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
    """Given normals of the driven variables, `[n_steps, *shape]` each."""
    if sim.noise is None:
        raise ValueError(
            "noise_path was given to a simulator without noise; build it with noise=vb.noise.Additive(...)"
        )
    given, names = by_variable(sim, noise_path, "noise_path"), sim.noise.noisy(sim.state_shapes())
    for name in names:
        if name not in given:
            raise ValueError(f"noise_path lacks {name!r}; it needs [T, N] normals for {', '.join(names)}")
        expected = (n_steps, *sim.state_shapes()[name].shape)
        if given[name].shape != expected:
            raise ValueError(
                f"noise_path[{name!r}] has shape {list(given[name].shape)}; expected {list(expected)}, a row per step"
            )
    return {name: given[name] for name in names}


def sample_times(origin: Array, phase: int, n_steps: int, period: int, dt: float) -> Array:
    """Times of the samples of a run, ms.

    The multiples of `period` steps in (origin + phase, origin + phase + n_steps].
    """
    first, last = phase // period + 1, (phase + n_steps) // period
    count = jnp.arange(first, last + 1)  # whole periods, so that times of a long run are rounded once, not summed
    return (origin // period + count) * jnp.asarray(period * dt, jnp.result_type(float))
