"""Maximum a posteriori by optimisation over z, from many starts."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.io import npz
from vbinfer.posterior import provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import LogLikelihood, Problem, constrained, problem_of
from vbinfer.sampling.starts import NARROW, prior_draws, screened

WITHIN_REACH = 4.6
"""Basins whose density is within log 100 of the best are told of: their mass may not be small."""
_PATH = 11
"""Points looked at between two optima."""
_LEVEL = 0.05
"""A rise of less than this, in log density, between two optima is no barrier: they are one basin."""


class Basin(NamedTuple):
    """One optimum: theta, log density, number of starts."""

    theta: dict[str, np.ndarray]
    log_prob: float
    count: int


@dataclasses.dataclass(frozen=True)
class MapFit:
    """What `fit_map` found.

    Attributes:
        theta: the most probable parameters, leaves by path.
        log_prob: their log density, in the space that was asked for: log p(theta) + log p(x_o | theta), and
            log|d theta / d z| more for `space="z"`.
        basins: distinct optima, best first: `Basin(theta, log_prob, count of starts)`.
        info: provenance: space, starts, how many had to be replaced, how many ran out of steps, seconds, key.
    """

    theta: dict[str, np.ndarray]
    log_prob: float
    basins: tuple[Basin, ...]
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def findings(self) -> tuple[str, ...]:
        """Reasons to doubt the optimum, in sentences."""
        told = []
        near = [one for one in self.basins if self.log_prob - one.log_prob < WITHIN_REACH]
        if len(near) > 1:
            others = ", ".join(f"{one.log_prob - self.log_prob:.2f} ({one.count} starts)" for one in near[1:])
            told.append(
                f"{len(near)} optima are within {WITHIN_REACH} of the best in log density: {others}. One point does "
                "not describe this posterior; sample it with vb.sampling.TemperedSMC()"
            )
        starts, unfinished = self.info.get("num_starts", 0), self.info.get("unfinished", 0)
        if unfinished:
            told.append(f"{unfinished} of {starts} starts had not settled after the last step; raise max_steps")
        if starts > 1 and self.basins[0].count == 1:
            told.append(f"the best optimum was reached from 1 of {starts} starts; raise num_starts")
        return tuple(told)

    def __str__(self) -> str:
        lines = [f"{len(self.basins)} basins, best first (space {self.info.get('space', 'theta')!r})"]
        for one in self.basins:
            values = ", ".join(f"{name}={np.array2string(value, precision=4)}" for name, value in one.theta.items())
            lines.append(f"log_prob {one.log_prob:.6g}, {one.count} starts: {values}")
        return "\n".join([*lines, *self.findings])

    def save(self, path: str | Path) -> None:
        """Write to one `.npz`; `vb.load(path)` reads it back."""
        names = list(self.theta)
        arrays = {f"theta/{name}": np.stack([one.theta[name] for one in self.basins]) for name in names}
        arrays["log_prob"] = np.array([one.log_prob for one in self.basins])
        arrays["count"] = np.array([one.count for one in self.basins])
        npz.write(path, "map", {"theta": names, "info": self.info}, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "MapFit":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        basins = tuple(
            Basin({name: np.asarray(arrays[f"theta/{name}"][i]) for name in header["theta"]}, float(value), int(count))
            for i, (value, count) in enumerate(zip(arrays["log_prob"], arrays["count"], strict=True))
        )
        return cls(basins[0].theta, basins[0].log_prob, basins, dict(header["info"]))


def fit_map(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    *,
    num_starts: int = 16,
    space: str = "theta",
    max_steps: int = 500,
    key: Array,
) -> MapFit:
    """Maximum a posteriori by L-BFGS from many prior draws.

    All starts run in one program.

    space="theta":  argmax  log p(theta) + log p(x_o | theta)
    space="z":      argmax  log p(theta(z)) + log|d theta / d z| + log p(x_o | theta(z))

    Both search over z, where no step leaves the prior. The first is what is called the MAP, and a maximum of the
    likelihood under uniform priors; it changes when a parameter is rewritten (log g for g), may lie on the edge of the
    support, and does not exist under priors whose density is infinite there. The second is the mode where the prior is
    standard normal: it always exists for a bounded likelihood, is what `vb.approximate.fit_laplace` needs and a good
    start of chains. Neither is a summary of a skewed or high-dimensional posterior, whose mass is elsewhere.

    Optima are one basin when the density between them, on the straight line in z, falls by less than 0.05.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, differentiable by JAX.
        x_o: the observation; passed on as it is.
        num_starts: draws of the prior, at which value and gradient are finite, to start from.
        space: `"theta"` or `"z"`.
        max_steps: L-BFGS steps from each start at most.
        key: a JAX key.

    Returns:
        `MapFit(theta, log_prob, basins)`; `print(fit)` shows the basins and says when several are within reach.

    Raises:
        ValueError: no draw of the prior can be a start; a likelihood whose value is not one number.

    References:
        Liu & Nocedal 1989, Mathematical Programming 45, doi:10.1007/BF01589116.

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(0.0, 1.0)})
        >>> fit = vb.approximate.fit_map(prior, lambda theta, y: dist.Normal(theta["mu"], 1.0).log_prob(y), 2.0,
        ...                  num_starts=4, key=jax.random.key(0))
        >>> round(float(fit.theta["mu"]), 3), len(fit.basins)
        (1.0, 1)
    """
    key, began = _check.key(key), time.perf_counter()
    num_starts, max_steps = _check.count(num_starts, "num_starts", 16), _check.count(max_steps, "max_steps", 500)
    _check.one_of(space, "space", ("theta", "z"))
    problem = problem_of(prior, log_likelihood, x_o)
    found = optima(problem, num_starts=num_starts, space=space, max_steps=max_steps, key=key)
    basins = []
    for one in found.basins:
        basins.append(Basin(constrained(prior, one.z)[0], -one.energy, one.count))
    info = provenance("MAP", key, began, "optax") | {
        "space": space,
        "num_starts": num_starts,
        "failed_starts": found.failed,
        "unfinished": found.unfinished,
    }
    return MapFit(basins[0].theta, basins[0].log_prob, tuple(basins), info)


class Optimum(NamedTuple):
    """One basin over z: place `[Dz]`, energy, number of starts.

    The energy is minus the log density.
    """

    z: np.ndarray
    energy: float
    count: int


class Optima(NamedTuple):
    """Basins, best first; refused starts; starts out of steps."""

    basins: tuple[Optimum, ...]
    failed: int
    unfinished: int


def optima(problem: Problem, *, num_starts: int, space: str, max_steps: int, key: PRNGKey) -> Optima:
    """Distinct minima of minus the log density over z."""
    starts, failed = finite_draws(problem, num_starts, key)
    z, value, finished = map(np.asarray, problem.run(_minima, starts, static=(space, max_steps)))
    order = np.argsort(value, kind="stable")
    return Optima(_basins(problem, space, z[order], value[order]), failed, int((~finished).sum()))


def _energy(problem: Problem, space: str, z: Array) -> Array:
    """Minus the log density, with the log-determinant for `space="z"`."""
    return problem.potential(z) if space == "z" else problem.potential(z) + problem.theta(z)[1]


def finite_draws(problem: Problem, n: int, key: PRNGKey) -> tuple[Array, int]:
    """n screened prior draws `[n, Dz]`; number refused.

    Raises:
        ValueError: no finite posterior and gradient near; says what was not finite.
    """
    draw = lambda i: prior_draws(problem.prior, n, jax.random.fold_in(key, i))  # noqa: E731
    return screened(problem, draw, "prior draws", NARROW)


def _minima(problem: Problem, space: str, max_steps: int, starts: Array) -> tuple[Array, Array, Array]:
    """Minima by L-BFGS with a line search, from every start.

    A start settles when its gradient is small or its place no longer changes; a step to where the energy is not finite
    is shortened by the line search.

    Returns:
        Places, values, and whether each settled.
    """
    energy = functools.partial(_energy, problem, space)
    solver, slope = optax.lbfgs(memory_size=10), jax.value_and_grad(energy)
    small = float(jnp.finfo(starts.dtype).eps) ** 0.5  # 3e-4 in float32; z is of order one

    def one(start: Array) -> tuple[Array, Array, Array]:
        def go_on(carry: tuple) -> Array:
            return (carry[-2] < max_steps) & ~carry[-1]

        def step(carry: tuple) -> tuple:
            z, value, gradient, state, count, _ = carry
            updates, state = solver.update(gradient, state, z, value=value, grad=gradient, value_fn=energy)
            ahead = z + updates
            value_ahead, gradient_ahead = slope(ahead)
            # a step that climbs, as rounding makes it near an optimum, is not taken, and ends the search
            better = jnp.isfinite(value_ahead) & jnp.isfinite(gradient_ahead).all() & (value_ahead <= value)
            moved = jnp.abs(ahead - z).max()
            still = ~better | (moved <= 1e-2 * small) | (jnp.abs(gradient_ahead).max() <= small)
            kept = jax.tree.map(
                lambda new, old: jnp.where(better, new, old),
                (ahead, value_ahead, gradient_ahead),
                (z, value, gradient),
            )
            return *kept, state, count + 1, still

        first = (start, *slope(start), solver.init(start), jnp.zeros((), int), jnp.zeros((), bool))
        z, value, _, _, _, settled = jax.lax.while_loop(go_on, step, first)
        return z, value, settled

    return jax.vmap(one)(starts)


def _barrier(problem: Problem, space: str, a: Array, b: Array) -> Array:
    """How far the energy rises between two optima."""
    share = jnp.linspace(0.0, 1.0, _PATH)[:, None]
    path = jax.vmap(lambda z: _energy(problem, space, z))((1.0 - share) * a + share * b)
    return jnp.max(jnp.where(jnp.isnan(path), jnp.inf, path)) - jnp.maximum(path[0], path[-1])


def _basins(problem: Problem, space: str, z: np.ndarray, value: np.ndarray) -> tuple[Optimum, ...]:
    """Optima, best first, joined where no barrier lies between them."""
    # Two optima are one basin when the energy on the straight line between them never rises above the higher end:
    #     energy   \      /\      /         a barrier: two basins
    #               \_a__/  \_b__/
    found: list[Optimum] = []
    for place, height in zip(z, value, strict=True):
        level = _LEVEL + 4 * float(np.finfo(value.dtype).eps) * abs(float(height))
        for i, one in enumerate(found):
            near = np.abs(place - one.z).max() < 1e-3
            if near or float(problem.run(_barrier, one.z, place, static=(space,))) < level:
                found[i] = one._replace(count=one.count + 1)
                break
        else:
            found.append(Optimum(place, float(height), 1))
    return tuple(found)
