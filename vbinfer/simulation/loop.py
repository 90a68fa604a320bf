"""The only loop over time: steps inside, samples outside.

Three levels, each going on from any phase: single steps; ticks, after which monitors may update; blocks, after which
they may sample. Noise is drawn, and what arrives over long lags is read, for many steps at once.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vbinfer.noise import Generator, KeyWords
from vbinfer.simulation.simulator import Simulator, sampling_steps
from vbinfer.simulation.solution import Carry
from vbinfer.simulation.step import (
    Line,
    Named,
    Step,
    batch_of,
    connectivity,
    named,
    one_step,
    prepared,
    read,
    sent_shape,
    start,
)


class Supply(NamedTuple):
    """What some steps are handed, leaves `[step, N, ...]`.

    None is what no group of steps around them has provided yet.
    """

    z: Any = None
    """Standard normals."""
    far: Any = None
    """What arrives at their ends over lags that are read ahead."""


Body = Callable[[Carry, Supply], tuple[Carry, Any]]
"""A few steps: (carry, what they are handed) to (carry, samples)."""
Advance = Callable[[Carry, Supply, int, int], tuple[Carry, Any]]
"""(carry, what they are handed, phase, n) to (carry, samples) after n steps from `phase` steps past a boundary."""
Provide = Callable[[Carry, Supply, int], Supply]
"""(carry, supply, n) to the supply of the next n steps."""

NOISE_VALUES = 2**15
"""About so many variates are drawn at once: they stay in the cache of a core."""
READ_VALUES = 2**18
"""About so many arriving values are read at once: the sums that sources are added to stay in the cache."""


class Cuts(NamedTuple):
    """How the loop is cut into nested scans."""

    generator: Generator | None
    """Of standard normals; None where there is no noise, or where they were given."""
    grain: int
    """Steps for which noise is drawn at once."""
    segments: tuple[int, ...]
    """Steps of the nested segments of which only the start is kept for the backward pass, shortest first."""
    block: int
    """Steps whose arriving signals are read at once; 0 where each step reads its own."""
    lines: tuple[Line, ...]
    """The projections, which say how they are read."""

    def draw(self, carry: Carry, supply: Supply, n: int) -> Supply:
        """The supply with normals: complex pairs, one row per step."""
        assert self.generator is not None
        return supply._replace(z=self.generator.draw(carry.step, n))

    def read(self, carry: Carry, supply: Supply, n: int) -> Supply:
        """The supply with what arrives over long lags."""
        far = tuple(
            ahead and tuple(ahead.read(ring, carry.step, n) for ring in carry.buffers[line.ring].ring)
            for line in self.lines
            for ahead in [line.ops.ahead]
        )
        return supply._replace(far=far)


def run(
    sim: Simulator,
    begin: Any,
    phase: int,
    n_steps: int,
    words: KeyWords | None,
    path: Named | None = None,
    checkpoint: bool | tuple[int, ...] | None = None,
) -> tuple[Carry, dict[str, Any]]:
    """Take `n_steps` steps.

    Args:
        begin: a carry that is `phase` steps past a common multiple of all periods; or a history with leaves
            `[H, *shape]` or `[H, *shape, B]`, oldest first, to start at time zero.
        path: standard normals `[n_steps, *shape]` by state variable, in place of those that `words` give.
        checkpoint: see `simulate`.

    Returns:
        The carry at the end, and the samples of each monitor, `[T, N]` or `[T, N, B]` by monitor name.
    """
    sim = prepared(sim)
    block, tick, _ = sampling_steps(sim)
    goes_on = isinstance(begin, Carry)
    now = begin.x if goes_on else jax.tree.map(lambda a: a[-1], begin)
    lines = connectivity(sim, bool(batch_of(sim, now)), words)
    carry = begin if goes_on else start(sim, begin, words, lines)
    cuts = _cuts(sim, carry, lines, n_steps, words if path is None else None, checkpoint)
    steps = _single(cuts, one_step(sim, lines))
    ticks = _rounds(cuts, steps, lambda carry: (_update(sim, carry, tick), None), tick)
    blocks = _rounds(cuts, ticks, lambda carry: _sample(sim, carry, block), block)
    carry, ys = blocks(carry, Supply(path), phase, n_steps)
    ys = {name: _due(ys[name], phase // block, period // block) for name, period in sim.period_steps().items()}
    shown = sim.model.at_nodes(carry.x)
    of_run = {k: m.sample(carry.monitors[k], read(m, shown))[1] for k, m in sim.monitors.items() if m.at_end}
    return carry, ys | of_run


def _cuts(
    sim: Simulator, carry: Carry, lines: tuple[Line, ...], n_steps: int, words: KeyWords | None, checkpoint: Any
) -> Cuts:
    segments: tuple[int, ...] = ()
    if checkpoint is True:  # as many starts as steps in a segment: the least memory with one level
        segments = (max(2, math.isqrt(n_steps)),)
    elif checkpoint:
        # (60, 100, 10) cuts segments of 10 in segments of 1000: the outermost length is a count, not a segment
        lengths = [math.prod(checkpoint[i:]) for i in range(min(1, len(checkpoint) - 1), len(checkpoint))]
        segments = tuple(sorted({n for n in lengths if n > 1}))
    steps = [line.ops.ahead.steps for line in lines if line.ops.ahead is not None]
    # of several projections as many as the shortest lags of each allow
    read_at_once = min(*steps, READ_VALUES // math.prod(sent_shape(sim, carry.x))) if steps else 0
    if sim.noise is None or words is None:
        return Cuts(None, 1, segments, read_at_once, lines)
    x = named(sim, carry.x)
    names = sim.noise.noisy(x)
    grain = min(512, max(2, NOISE_VALUES // max(1, sum(x[name].size for name in names))))
    if segments:  # drawn within a segment, so that its backward pass draws again instead of keeping the normals
        grain = min(grain, segments[0])
    return Cuts(Generator(words, names, x), grain, segments, read_at_once, lines)


def _part(supply: Supply, start: int, stop: int) -> Supply:
    """What some of the steps are handed."""
    return jax.tree.map(lambda a: a[start:stop], supply)


def aligned(phase: int, n: int, every: int) -> tuple[int, int, int]:
    """Cut n steps at the multiples of `every`.

         0          every                              multiples of every
        |....x--------|--------------|--------------|------x.....|
           phase lead      whole = 2 rounds           tail

    `lead` steps reach the first multiple, or are all there are; `whole` rounds of `every` steps and `tail` steps
    follow.

    >>> aligned(phase=4, n=22, every=8)
    (4, 2, 2)
    """
    lead = min(n, -phase % every)
    return (lead, *divmod(n - lead, every))


def _rounds(cuts: Cuts, inner: Advance, at_end: Callable[[Carry], tuple[Carry, Any]], every: int) -> Advance:
    """Advance by rounds of `every` steps.

    A round is `every` steps of `inner`, followed by `at_end`. The samples are those of `at_end`, stacked.
    """

    def one_round(carry: Carry, supply: Supply) -> tuple[Carry, Any]:
        return at_end(inner(carry, supply, 0, every)[0])

    def advance(carry: Carry, supply: Supply, phase: int, n: int) -> tuple[Carry, Any]:
        lead, whole, tail = aligned(phase, n, every)
        parts = []
        if lead:
            carry, _ = inner(carry, _part(supply, 0, lead), phase % every, lead)
            if (phase + lead) % every == 0:
                carry, y = at_end(carry)
                parts.append(jax.tree.map(lambda a: a[None], y))
        if whole or not parts:  # a loop of no rounds says of which shape samples would be
            carry, ys = repeat(cuts, one_round, carry, _part(supply, lead, n - tail), whole, every)
            parts.append(ys)
        if tail:
            carry, _ = inner(carry, _part(supply, n - tail, n), 0, tail)
        return carry, _joined(parts)

    return advance


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def repeat(cuts: Cuts, body: Body, carry: Carry, supply: Supply, n: int, size: int) -> tuple[Carry, Any]:
    """`n` times a body of `size` steps, samples stacked.

    The scan is nested in longer ones, each of which cuts the rounds once more:

        segment, only its start is kept   |-----------------------|-----------------------|---
        noise is drawn for                |-----------|-----------|-----------|-----------|---
        long lags are read for            |-------|---|-------|---|-------|---|-------|---|---
        rounds of `size` steps            |---|---|---|---|---|---|---|---|---|---|---|---|---

    Any number of rounds will do: what does not fill a group is run once more by itself.
    """
    levels: list[tuple[int, Provide | None]] = [(steps, None) for steps in cuts.segments if size <= steps < n * size]
    if supply.z is None and cuts.generator is not None and size < cuts.grain:
        levels.append((min(cuts.grain, n * size), cuts.draw))
    if supply.far is None and size < cuts.block:
        levels.append((min(cuts.block, n * size), cuts.read))
    # of equal lengths the segment is outside: what is provided within it is made again, not kept
    return _nested(body, carry, supply, n, size, sorted(levels, key=lambda level: (level[0], level[1] is None)))


def _nested(
    body: Body, carry: Carry, supply: Supply, n: int, size: int, levels: list[tuple[int, Provide | None]]
) -> tuple[Carry, Any]:
    """A scan for each level, the longest outside.

    A level is (steps, what provides for them, or None for a segment).
    """
    if not levels:
        return _scan(body, carry, supply, n, size)
    *inner, (steps, provide) = levels
    many = _divisor(n, steps // size)

    def group(carry: Carry, supply: Supply, many: int = many) -> tuple[Carry, Any]:
        if provide is not None:  # one row per step: the scan inside hands each step its own
            supply = provide(carry, supply, many * size)
        return _nested(body, carry, supply, many, size, inner)

    groups, rest = divmod(n, many)
    # the rest stays outside of jax.checkpoint: it is shorter than a segment, and kept whole
    of_groups = jax.checkpoint(group, prevent_cse=False) if provide is None else group
    carry, ys = _scan(of_groups, carry, _part(supply, 0, groups * many * size), groups, many * size)
    ys = jax.tree.map(lambda y: y.reshape((groups * many, *y.shape[2:])), ys)  # [group, round, ...] to [round, ...]
    if rest:
        carry, last = group(carry, _part(supply, groups * many * size, n * size), rest)
        ys = _joined([ys, last])
    return carry, ys


def _scan(body: Body, carry: Carry, supply: Supply, n: int, size: int) -> tuple[Carry, Any]:
    if n == 1:  # no loop around a single round
        carry, y = body(carry, supply)
        return carry, jax.tree.map(lambda a: a[None], y)
    by_round = jax.tree.map(lambda a: a.reshape((n, size, *a.shape[1:])), supply)
    return jax.lax.scan(body, carry, by_round, length=n)


def _divisor(n: int, most: int) -> int:
    """Rounds per group, at most `most`.

    One that divides n if there is one above half of `most`.
    """
    most = max(1, min(n, most))
    return next((k for k in range(most, most // 2, -1) if n % k == 0), most)


def _due(y: Any, start_block: int, every: int) -> Any:
    """Samples at multiples of `every` blocks.

    The first row was taken at block start_block + 1.
    """
    offset = -(start_block + 1) % every
    return jax.tree.map(lambda a: a[offset::every], y)


def _single(cuts: Cuts, step: Step) -> Advance:
    """Advance by single steps."""

    def one(carry: Carry, supply: Supply) -> tuple[Carry, None]:
        z, far = jax.tree.map(lambda a: a[0], supply)  # one row: a body of one step
        return step(carry, z if cuts.generator is None or z is None else cuts.generator.unpack(z), far), None

    return lambda carry, supply, phase, n: repeat(cuts, one, carry, supply, n, 1)


def _update(sim: Simulator, carry: Carry, tick: int) -> Carry:
    """Update the monitors whose stride is over."""
    monitors = dict(carry.monitors)
    for name, stride in sim.strides().items():
        update = lambda m, name=name: sim.monitors[name].update(m, sim.dt)  # noqa: E731
        if stride == tick:
            monitors[name] = update(monitors[name])
        else:
            monitors[name] = jax.lax.cond(carry.step % stride == 0, update, lambda m: m, monitors[name])
    return carry._replace(monitors=monitors)


def _sample(sim: Simulator, carry: Carry, block: int) -> tuple[Carry, dict[str, Any]]:
    """Samples of every monitor at the end of a block.

    Zeros from those that are not due; `_due` drops them.
    """
    shown = sim.model.at_nodes(carry.x)
    monitors, ys = dict(carry.monitors), {}
    for name, steps in sim.period_steps().items():
        monitor, x = sim.monitors[name], read(sim.monitors[name], shown)

        def sample(carry_: Any, monitor: Any = monitor, x: Any = x) -> tuple[Any, Any]:
            return monitor.sample(carry_, x)

        # a branch of cond: the same shapes as sample, without its work
        def skip(carry_: Any, sample: Any = sample) -> tuple[Any, Any]:
            shape = jax.eval_shape(sample, carry_)[1]
            return carry_, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)

        if steps == block:
            monitors[name], ys[name] = sample(monitors[name])
        else:
            monitors[name], ys[name] = jax.lax.cond(carry.step % steps == 0, sample, skip, monitors[name])
    return carry._replace(monitors=monitors), ys
