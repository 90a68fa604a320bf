"""The only loop over time: steps inside, samples outside, noise drawn for many steps at once."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.noise import Generator, KeyWords
from vbinfer.simulation.simulator import Simulator, sampling_steps
from vbinfer.simulation.solution import Carry
from vbinfer.simulation.step import Named, named, one_step, read

Body = Callable[[Carry, Any], tuple[Carry, Any]]
"""A few steps: (carry, their standard normals `[step, N, ...]` or None) to (carry, samples)."""

NOISE_VALUES = 2**15
"""About so many variates are drawn at once: they stay in the cache of a core."""


class Plan(NamedTuple):
    """How the loop is cut."""

    generator: Generator | None
    """Of standard normals; None where there is no noise, or where they were given."""
    grain: int
    """Steps for which noise is drawn at once."""
    segments: tuple[int, ...]
    """Steps of the nested segments of which only the start is kept for the backward pass, shortest first."""


def run(
    sim: Simulator,
    carry: Carry,
    phase: int,
    n_steps: int,
    words: KeyWords | None,
    path: Named | None = None,
    checkpoint: bool | tuple[int, ...] | None = None,
) -> tuple[Carry, dict[str, Any]]:
    """Take `n_steps` steps from a carry that is `phase` steps past a common multiple of all periods.

    Args:
        path: standard normals `[n_steps, N, ...]` by state variable, in place of those that `words` give.
        checkpoint: see `simulate`.

    Returns:
        The carry at the end, and the samples of each monitor, `[T, N]` or `[T, N, B]` by monitor name.
    """
    block, tick, _ = sampling_steps(sim)
    plan = _plan(sim, carry, n_steps, words if path is None else None, checkpoint)
    advance = _advance(sim, plan, one_step(sim, carry.x), tick)
    lead = min(n_steps, -phase % block)
    carry = advance(carry, _part(path, 0, lead), phase % block, lead)
    first: dict[str, Any] | None = None
    if lead and (phase + lead) % block == 0:
        carry, first = _sample(sim, carry, block)

    def one_block(carry: Carry, z: Any) -> tuple[Carry, dict[str, Any]]:
        return _sample(sim, advance(carry, z, 0, block), block)

    n_blocks, tail = divmod(n_steps - lead, block)
    carry, ys = repeat(plan, one_block, carry, _part(path, lead, n_steps - tail), n_blocks, block)
    carry = advance(carry, _part(path, n_steps - tail, n_steps), 0, tail)
    if first is not None:
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, ys)
    start_block = phase // block
    return carry, {
        name: _due(ys[name], start_block, steps // block, n_blocks + (first is not None))
        for name, steps in sim.period_steps().items()
    }


def _plan(sim: Simulator, carry: Carry, n_steps: int, words: KeyWords | None, checkpoint: Any) -> Plan:
    segments: tuple[int, ...] = ()
    if checkpoint is True:
        segments = (max(2, math.isqrt(n_steps)),)
    elif checkpoint:
        lengths = [math.prod(checkpoint[i:]) for i in range(min(1, len(checkpoint) - 1), len(checkpoint))]
        segments = tuple(sorted({n for n in lengths if n > 1}))
    if sim.noise is None or words is None:
        return Plan(None, 1, segments)
    x = named(sim, carry.x)
    names = sim.noise.noisy(x)
    grain = min(512, max(2, NOISE_VALUES // max(1, len(names) * carry.x[0].size)))
    if segments:
        grain = min(grain, segments[0])
    return Plan(Generator(words, names, x), grain, segments)


def _part(z: Any, start: int, stop: int) -> Any:
    """Some steps of the normals, pairs or a given path; None where there are none yet."""
    return jax.tree.map(lambda a: a[start:stop], z)


def repeat(plan: Plan, body: Body, carry: Carry, z: Any, n: int, size: int) -> tuple[Carry, Any]:
    """`n` times a body of `size` steps, samples stacked; noise is drawn and segments are cut at the right depth."""
    cuts = [(steps, True) for steps in plan.segments if size <= steps < n * size]
    if z is None and plan.generator is not None and size < plan.grain:
        cuts.append((min(plan.grain, n * size), False))
    return _nested(plan, body, carry, z, n, size, sorted(cuts))


def _nested(
    plan: Plan, body: Body, carry: Carry, z: Any, n: int, size: int, cuts: list[tuple[int, bool]]
) -> tuple[Carry, Any]:
    if not cuts:
        return _scan(body, carry, z, n, size)
    *inner, (steps, is_segment) = cuts
    many = _divisor(n, steps // size)

    def group(carry: Carry, z: Any, many: int = many) -> tuple[Carry, Any]:
        if z is None and plan.generator is not None and not is_segment:
            z = plan.generator.draw(carry.step, many * size)
        return _nested(plan, body, carry, z, many, size, inner)

    groups, rest = divmod(n, many)
    of_groups = jax.checkpoint(group, prevent_cse=False) if is_segment else group
    carry, ys = _scan(of_groups, carry, _part(z, 0, groups * many * size), groups, many * size)
    ys = jax.tree.map(lambda y: y.reshape((groups * many, *y.shape[2:])), ys)
    if rest:
        carry, last = group(carry, _part(z, groups * many * size, n * size), rest)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)
    return carry, ys


def _scan(body: Body, carry: Carry, z: Any, n: int, size: int) -> tuple[Carry, Any]:
    if n == 1:  # no loop around a single round
        carry, y = body(carry, z)
        return carry, jax.tree.map(lambda a: a[None], y)
    by_round = jax.tree.map(lambda a: a.reshape((n, size, *a.shape[1:])), z)
    return jax.lax.scan(body, carry, by_round, length=n)


def _divisor(n: int, most: int) -> int:
    """A number of rounds per group, at most `most`: one that divides n if there is one above half of it."""
    most = max(1, min(n, most))
    return next((k for k in range(most, most // 2, -1) if n % k == 0), most)


def _due(y: Any, start_block: int, every: int, n: int) -> Any:
    """Of samples taken at blocks start_block + 1 ... start_block + n, those at multiples of `every`."""
    offset = -(start_block + 1) % every
    return jax.tree.map(lambda a: a[offset:n:every], y)


Advance = Callable[[Carry, Any, int, int], Carry]


def _advance(sim: Simulator, plan: Plan, step: Callable[[Carry, Named | None], Carry], tick: int) -> Advance:
    """`advance(carry, z, phase, n)`: n steps from `phase` steps past a tick multiple, with updates that fall due."""
    strides = {name: k for name, m in sim.monitors.items() if (k := m.stride(sim.dt)) is not None}

    def one(carry: Carry, z: Any) -> tuple[Carry, None]:
        now = jax.tree.map(lambda a: a[0], z)
        return step(carry, now if plan.generator is None or now is None else plan.generator.unpack(now)), None

    def steps(carry: Carry, z: Any, n: int) -> Carry:
        return repeat(plan, one, carry, z, n, 1)[0] if n else carry

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

    def one_tick(carry: Carry, z: Any) -> tuple[Carry, None]:
        return update(steps(carry, z, tick)), None

    def advance(carry: Carry, z: Any, phase: int, n: int) -> Carry:
        lead = min(n, -phase % tick)
        carry = steps(carry, _part(z, 0, lead), lead)
        if lead and (phase + lead) % tick == 0:
            carry = update(carry)
        ticks, tail = divmod(n - lead, tick)
        if ticks:
            carry = repeat(plan, one_tick, carry, _part(z, lead, n - tail), ticks, tick)[0]
        return steps(carry, _part(z, n - tail, n), tail)

    return advance


def _when(always: bool, due: Array, f: Callable[[Any], Any], value: Any) -> Any:
    """f(value) if due, else value; without a branch where that is known beforehand."""
    return f(value) if always else jax.lax.cond(due, f, lambda v: v, value)


def _sample(sim: Simulator, carry: Carry, block: int) -> tuple[Carry, dict[str, Any]]:
    """The samples of every monitor at the end of a block; zeros from those that are not due, dropped later."""
    by_name = named(sim, carry.x)
    monitors, ys = dict(carry.monitors), {}
    for name, steps in sim.period_steps().items():
        monitor, x = sim.monitors[name], read(sim, sim.monitors[name], by_name)

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
