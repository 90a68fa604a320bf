"""The loop's own step, for closed loops and control."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import is_traced
from vbinfer.noise import Generator, KeyWords
from vbinfer.simulation.compiled import Compiled, is_inside
from vbinfer.simulation.simulate import beginning, checked_words
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.solution import Carry
from vbinfer.simulation.step import Line, connectivity, named, one_step, prepared, start
from vbinfer.stimuli import AbstractStimulus

Quiet = tuple[Simulator, tuple[Line, ...]]
"""A simulator without monitors, whose model has prepared itself, and what all its steps share."""


class StepperCarry(eqx.Module):
    """What one step hands to the next."""

    carry: Carry
    words: KeyWords | None
    """Those of the key; normals are a function of them and of the number of the step."""
    dt: float = eqx.field(static=True)

    @property
    def x(self) -> Any:
        """The state, leaves as the model's `shapes`."""
        return self.carry.x

    @property
    def t(self) -> Array:
        """Time, ms."""
        return self.carry.step * self.dt


class _Held(AbstractStimulus):
    """A stimulus and an input held over the step."""

    stimulus: AbstractStimulus | None
    u: Array

    def __call__(self, t: Array, like: Array) -> Array:
        return self.u if self.stimulus is None else self.stimulus(t, like) + self.u


def stepper(sim: Simulator) -> tuple[Callable[..., StepperCarry], Callable[..., StepperCarry]]:
    """Init and step functions of a simulator.

    `init(key=None, init=None)` gives the carry at time zero, `step(carry, u=None)` the one a step of dt later;
    `carry.x` is the state and `carry.t` the time in ms. k calls of `step` equal `simulate` bit for bit, noise and
    delays included; inside a `jit` or `scan` of the caller's they equal it to rounding. Nothing is recorded. What all
    steps share (lags, weights, `prepared` of the model) is computed here, once.

    Args of `init`: `key` and `init` as for `simulate`; with noise a key is needed.
    Args of `step`: `u`, a number or `[N]`, is added to the stimulus and held over the step, in all stages.

    >>> import jax, vbinfer as vb
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.5), nodes=2)
    >>> init, step = vb.stepper(sim)
    >>> carry = init()
    >>> for _ in range(100):                    # dx/dt = -x + u, u = 1 - x: towards 1/2
    ...     carry = step(carry, u=1.0 - carry.x.x)
    >>> carry.x.x.round(3).tolist(), float(carry.t)
    ([0.5, 0.5], 50.0)
    """
    quiet = _prepared(eqx.tree_at(lambda s: s.monitors, sim, {}))
    program = None if is_traced(quiet) else _step.given(quiet)

    def init(key: Array | None = None, init: Any = None) -> StepperCarry:
        words = checked_words(sim, key, init)
        begin, _ = beginning(sim, init)
        if isinstance(begin, Carry):  # the end of a run: its monitors have nothing to do here
            return StepperCarry(begin._replace(monitors={}), words, sim.dt)
        return StepperCarry(_start(quiet, begin, words), words, sim.dt)

    def step(carry: StepperCarry, u: Any = None) -> StepperCarry:
        if u is not None:
            u = jnp.asarray(u, jnp.result_type(float))
            if u.shape not in ((), (sim.n_nodes,)):
                raise ValueError(f"u has shape {list(u.shape)}; expected a number or [{sim.n_nodes}], one per node")
        if program is None or is_inside(carry, u):
            return _step(quiet, carry, u, 1)[0]
        # of how many rounds the compiler must not know, or it does away with the loop around a single one
        return program(carry, u, _one_round(jnp.result_type(int)))[0]

    return init, step


@functools.cache
def _one_round(kind: Any) -> Array:
    return jnp.asarray(1, kind)


@Compiled
def _prepared(sim: Simulator) -> Quiet:
    """What all steps share.

    Weights, lags, and what a model makes of its parameters.
    """
    sim = prepared(sim)
    return sim, connectivity(sim, batched=False)


@Compiled
def _start(quiet: Quiet, history: Any, words: KeyWords | None) -> Carry:
    sim, lines = quiet
    return start(sim, history, words, lines)


@Compiled
def _step(quiet: Quiet, at: StepperCarry, u: Array | None, rounds: int | Array) -> tuple[StepperCarry, Any]:
    sim, lines = quiet
    if u is not None:
        sim = eqx.tree_at(lambda s: s.stimulus, sim, _Held(sim.stimulus, u), is_leaf=lambda leaf: leaf is None)
    step, x, generator, pairs = one_step(sim, lines), named(sim, at.x), None, None
    if sim.noise is not None and at.words is not None:
        generator = Generator(at.words, sim.noise.noisy(x), x)
        pairs = generator.draw(at.carry.step, 1 if isinstance(rounds, int) else 2)

    # A loop that keeps what it passes, as `simulate` does: sums and products are joined (FMA) where the compiler sees
    # them together, so that another program around the same step would be rounded in other places.
    def one(k: Array, loop: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, kept = loop
        carry = step(carry, None if generator is None or pairs is None else generator.unpack(pairs[k]), None)
        return carry, jax.tree.map(lambda a, new: jax.lax.dynamic_update_index_in_dim(a, new, k, 0), kept, carry.x)

    room = jax.tree.map(lambda a: jnp.zeros((2, *a.shape), a.dtype), at.x)
    carry, kept = jax.lax.fori_loop(0, rounds, one, (at.carry, room))
    return StepperCarry(carry, at.words, at.dt), kept
