"""Optimisation over z: the most probable parameters, from many starts, and the basins that the starts fell into."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.priors.prior import Prior
from vbinfer.sampling.potential import LogLikelihood, check_likelihood
from vbinfer.sampling.problem import Problem, problem_of
from vbinfer.sampling.starts import not_finite

WITHIN_REACH = 4.6
"""Basins whose density is within log 100 of the best are told of: their mass may not be small."""
_TRIES = 25
_PATH = 11
"""Points looked at between two optima."""
_LEVEL = 0.05
"""A rise of less than this, in log density, between two optima is no barrier: they are one basin."""


class Basin(NamedTuple):
    """One optimum: where it is, its log density, and how many starts ended there."""

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
        """What there is to know before the optimum is believed, in sentences; empty if nothing."""
        told = []
        near = [one for one in self.basins if self.log_prob - one.log_prob < WITHIN_REACH]
        if len(near) > 1:
            others = ", ".join(f"{one.log_prob - self.log_prob:.2f} ({one.count} starts)" for one in near[1:])
            told.append(
                f"{len(near)} optima are within {WITHIN_REACH} of the best in log density: {others}. One point does "
                "not describe this posterior; sample it with vb.TemperedSMC()"
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
    """The maximum a posteriori by L-BFGS from many draws of the prior, all starts in one program.

    space="theta":  argmax  log p(theta) + log p(x_o | theta)
    space="z":      argmax  log p(theta(z)) + log|d theta / d z| + log p(x_o | theta(z))

    Both search over z, where no step leaves the prior. The first is what is called the MAP, and a maximum of the
    likelihood under uniform priors; it changes when a parameter is rewritten (log g for g), may lie on the edge of the
    support, and does not exist under priors whose density is infinite there. The second is the mode where the prior is
    standard normal: it always exists for a bounded likelihood, is what `vb.fit_laplace` needs and a good start of
    chains. Neither is a summary of a skewed or high-dimensional posterior, whose mass is elsewhere.

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
        >>> fit = vb.fit_map(prior, lambda theta, y: dist.Normal(theta["mu"], 1.0).log_prob(y), 2.0,
        ...                  num_starts=4, key=jax.random.key(0))
        >>> round(float(fit.theta["mu"]), 3), len(fit.basins)
        (1.0, 1)
    """
    key, began = _check.key(key), time.perf_counter()
    num_starts, max_steps = _check.count(num_starts, "num_starts", "16"), _check.count(max_steps, "max_steps", "500")
    if space not in ("theta", "z"):
        raise ValueError(f"space={space!r} was given; expected 'theta' (the usual MAP) or 'z' (the mode for Laplace)")
    check_likelihood(prior, log_likelihood, x_o)
    problem = problem_of(prior, log_likelihood, x_o)
    found = optima(problem, num_starts=num_starts, space=space, max_steps=max_steps, key=key)
    theta_of = jax.jit(lambda z: problem.theta(z)[0])
    basins = tuple(Basin(_numpy(theta_of(one.z)), -one.energy, one.count) for one in found.basins)
    info = {
        "method": "MAP",
        "space": space,
        "num_starts": num_starts,
        "failed_starts": found.failed,
        "unfinished": found.unfinished,
        "seconds": time.perf_counter() - began,
        "key": key_ints(key),
        "versions": npz.versions("optax"),
    }
    return MapFit(basins[0].theta, basins[0].log_prob, basins, info)


class Optimum(NamedTuple):
    """One basin over z: place `[Dz]`, minus the log density there, starts that ended in it."""

    z: Array
    energy: float
    count: int


class Optima(NamedTuple):
    """Basins, best first; prior draws refused as starts; starts that ran out of steps."""

    basins: tuple[Optimum, ...]
    failed: int
    unfinished: int


def optima(problem: Problem, *, num_starts: int, space: str, max_steps: int, key: PRNGKey) -> Optima:
    """Distinct minima of minus the log density over z (with the log-determinant for `space="z"`)."""

    def energy(z: Array) -> Array:
        return problem.potential(z) if space == "z" else problem.potential(z) + problem.theta(z)[1]

    starts, failed = finite_draws(problem, num_starts, key)
    z, value, finished = jax.jit(lambda z: minimise(energy, z, max_steps))(starts)
    z, value = np.asarray(z), np.asarray(value)
    order = np.argsort(value, kind="stable")
    return Optima(_basins(energy, z[order], value[order]), failed, int((~np.asarray(finished)).sum()))


def finite_draws(problem: Problem, n: int, key: PRNGKey) -> tuple[Array, int]:
    """`n` draws of the prior over z `[n, Dz]` at which the posterior and its gradient are finite; how many were not.

    Raises:
        ValueError: fewer than `n` among 25 n draws; says what was not finite.
    """
    prior = problem.prior

    @jax.jit
    def candidates(key: PRNGKey) -> tuple[Array, Array, Array]:
        z = jax.vmap(lambda theta: prior.ravel_z(prior.unconstrain(theta)))(prior.sample(key=key, n=n))
        return z, *jax.vmap(jax.value_and_grad(problem.potential))(z)

    kept: list[np.ndarray] = []
    seen: list[tuple[np.ndarray, ...]] = []
    for i in range(_TRIES):
        z, value, gradient = (np.asarray(part) for part in candidates(jax.random.fold_in(key, i)))
        good = np.isfinite(z).all(axis=1) & np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        kept.extend(z[good])
        seen.append((z, value, gradient))
        if len(kept) >= n:
            return jnp.asarray(np.stack(kept[:n])), (i + 1) * n - len(kept)
    what = not_finite(prior, *(np.concatenate(part) for part in zip(*seen, strict=True)))
    raise ValueError(
        f"{len(kept)} of {_TRIES * n} draws of the prior can be a start, {n} are needed: {what}. "
        "Narrow the prior, or mend the likelihood where it is not finite"
    )


def minimise(energy: Callable[[Array], Array], starts: Array, max_steps: int) -> tuple[Array, Array, Array]:
    """Minima by L-BFGS with a line search, every start by itself: places, values, whether it settled.

    A start settles when its gradient is small or its place no longer changes; a step to where the energy is not finite
    is shortened by the line search.
    """
    solver = optax.lbfgs(memory_size=10)
    slope = jax.value_and_grad(energy)
    small = float(jnp.finfo(starts.dtype).eps) ** 0.5  # 3e-4 in float32; z is of order one

    def one(start: Array) -> tuple[Array, Array, Array]:
        def go_on(carry: tuple) -> Array:
            return (carry[-2] < max_steps) & ~carry[-1]

        def step(carry: tuple) -> tuple:
            z, value, gradient, state, count, _ = carry
            updates, state = solver.update(gradient, state, z, value=value, grad=gradient, value_fn=energy)
            proposal = z + updates
            after, gradient_after = slope(proposal)
            better = jnp.isfinite(after) & jnp.isfinite(gradient_after).all() & (after <= value)
            moved = jnp.abs(proposal - z).max()
            still = ~better | (moved <= 1e-2 * small) | (jnp.abs(gradient_after).max() <= small)
            z = jnp.where(better, proposal, z)
            return (
                z,
                jnp.where(better, after, value),
                jnp.where(better, gradient_after, gradient),
                state,
                count + 1,
                still,
            )

        first = (start, *slope(start), solver.init(start), jnp.zeros((), int), jnp.zeros((), bool))
        z, value, _, _, _, settled = jax.lax.while_loop(go_on, step, first)
        return z, value, settled

    return jax.vmap(one)(starts)


def _basins(energy: Callable[[Array], Array], z: np.ndarray, value: np.ndarray) -> tuple[Optimum, ...]:
    """Optima, best first, joined where no barrier lies between them."""

    @jax.jit
    def barrier(a: Array, b: Array) -> Array:
        share = jnp.linspace(0.0, 1.0, _PATH)[:, None]
        path = jax.vmap(energy)((1.0 - share) * a + share * b)
        return jnp.max(jnp.where(jnp.isnan(path), jnp.inf, path)) - jnp.maximum(path[0], path[-1])

    found: list[Optimum] = []
    for place, height in zip(z, value, strict=True):
        level = _LEVEL + 4 * float(np.finfo(value.dtype).eps) * abs(float(height))
        for i, one in enumerate(found):
            near = np.abs(place - one.z).max() < 1e-3
            if near or float(barrier(one.z, jnp.asarray(place))) < level:
                found[i] = one._replace(count=one.count + 1)
                break
        else:
            found.append(Optimum(jnp.asarray(place), float(height), 1))
    return tuple(found)


def _numpy(theta: Theta) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in theta.items()}
