"""One temperature of a population: reweight, resample, move."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.sampling.problem import Problem
from vbinfer.sampling.starts import prior_draws

_BISECTIONS = 60
_LENGTH = 1.5
"""Mean length of a trajectory in whitened coordinates; pi / 2 takes a Gaussian particle to an independent place."""
_FORGOTTEN = 0.1
"""Correlation between where a particle was and where it is below which it has forgotten."""
_STAGNANT = 0.97
"""A move that leaves more than this of the correlation forgets no more: the rest is the place of the modes."""


@dataclasses.dataclass(frozen=True)
class Scheme:
    """The options of the kernel; `TemperedSMC` says what they mean."""

    target_ess: float = 0.7
    target_accept: float = 0.8
    max_moves: int = 20
    max_steps: int = 16

    def __post_init__(self) -> None:
        for name in ("target_ess", "target_accept"):
            _check.fraction(getattr(self, name), name, 0.7)
        for name in ("max_moves", "max_steps"):
            _check.count(getattr(self, name), name, 16)


class Particles(NamedTuple):
    """Particles at one temperature.

    Attributes:
        z: places `[particle, Dz]`.
        log_likelihood: log p(x_o | z) at each `[particle]`; -inf where it is not a number.
        temperature: beta in [0, 1], the power of the likelihood.
        step_size: of the leapfrog, in whitened coordinates.
        log_evidence: log of the product of the mean weights so far.
    """

    z: Array
    log_likelihood: Array
    temperature: Array
    step_size: Array
    log_evidence: Array


class Moves(NamedTuple):
    """Statistics of the moves at one temperature.

    Attributes:
        accept_prob: of each particle `[particle]`, in the last move.
        num_moves: moves so far.
        num_steps: leapfrog steps of the last move.
        correlation: between places before and after, the largest over coordinates; 0 where it falls no further.
    """

    accept_prob: Array
    num_moves: Array
    num_steps: Array
    correlation: Array


def prior_particles(problem: Problem, n: int, key: PRNGKey) -> tuple[Particles, tuple[Array, Array, Array]]:
    """Particles drawn from the prior.

    And their z, log-likelihoods and gradients, for checks.
    """
    prior = problem.prior
    z = prior_draws(prior, n, key)
    value, gradient = jax.vmap(jax.value_and_grad(problem.log_likelihood))(z)
    # weight zero where there is no likelihood; the place becomes a number, so that nothing made of it is NaN
    inside = jnp.isfinite(z).all(axis=1) & jnp.isfinite(value)
    particles = Particles(
        z=jnp.where(inside[:, None], z, 0.0),
        log_likelihood=jnp.where(inside, value, -jnp.inf),
        temperature=jnp.zeros((), value.dtype),
        # of a Gaussian in D dimensions the acceptance depends on D^(1/4) h
        step_size=jnp.full((), prior.z_dim**-0.25, value.dtype),
        log_evidence=jnp.zeros((), value.dtype),
    )
    return particles, (z, value, gradient)


def advance(problem: Problem, scheme: Scheme, particles: Particles, key: PRNGKey) -> tuple[Particles, Moves]:
    """One temperature further: reweight, resample, move."""
    k_resample, k_move = jax.random.split(key)
    loglik, n = particles.log_likelihood, len(particles.log_likelihood)
    increment = next_increment(loglik, 1.0 - particles.temperature, scheme.target_ess)
    # beta ends at 1 exactly, not at a sum of increments that rounds
    last = increment >= 1.0 - particles.temperature
    temperature = jnp.where(last, jnp.ones_like(particles.temperature), particles.temperature + increment)
    log_weight = _tempered(increment, loglik)
    chosen = systematic(k_resample, jax.nn.softmax(log_weight))
    # particles count alike before they are weighed: their mean weight estimates Z(beta') / Z(beta)
    evidence = particles.log_evidence + jax.nn.logsumexp(log_weight) - jnp.log(n)
    resampled = particles._replace(
        z=particles.z[chosen], log_likelihood=loglik[chosen], temperature=temperature, log_evidence=evidence
    )
    return _move(scheme, problem, resampled, k_move)


def _tempered(increment: Array, log_likelihood: Array) -> Array:
    """increment * log_likelihood, with 0 * -inf = -inf."""
    zero = jnp.isneginf(log_likelihood)
    return jnp.where(zero, -jnp.inf, increment * jnp.where(zero, 0.0, log_likelihood))


def next_increment(log_likelihood: Array, left: Array, target: float) -> Array:
    """The largest change of beta within target ESS.

    It keeps ESS(w) >= target n_valid. By bisection, at most `left`. Particles without a likelihood have weight zero at
    any beta; they do not count in n_valid.
    """

    def log_ess(increment: Array) -> Array:
        log_weight = _tempered(increment, log_likelihood)
        return 2.0 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2.0 * log_weight)

    goal = jnp.log(target * jnp.isfinite(log_likelihood).sum())

    # ESS falls as beta grows: low always has enough, high never; 60 halvings outlast any float
    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = log_ess(middle) >= goal
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    left = jnp.asarray(left)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(left), left))
    return jnp.where(log_ess(left) >= goal, left, low)


def systematic(key: PRNGKey, weights: Array) -> Array:
    """Systematic resampling: indices `[n]` in proportion to n weights.

    One uniform number u sets n evenly spaced positions on the cumulated weights, so particle i comes n w_i times, up to
    rounding:

        w    |   w_0   |w_1|      w_2      |
             ^u/n  ^     ^     ^     ^     ^
    """
    n = len(weights)
    positions = (jnp.arange(n) + jax.random.uniform(key)) / n
    total = jnp.cumsum(weights)
    return jnp.searchsorted(total / total[-1], positions.astype(total.dtype), side="right").clip(0, n - 1)


def _move(scheme: Scheme, problem: Problem, particles: Particles, key: PRNGKey) -> tuple[Particles, Moves]:
    """Hamiltonian moves until the particles have forgotten their places."""
    origin = particles.z
    beta = particles.temperature

    def density(z: Array) -> tuple[Array, Array]:
        loglik = problem.log_likelihood(z)
        return problem.log_prior(z) + beta * loglik, loglik

    # from the particles before they move, and kept: within one temperature only the step size adapts
    scale = _covariance_root(origin)
    evaluate = jax.vmap(jax.value_and_grad(density, has_aux=True))

    def step(carry: tuple[Particles, PRNGKey, Moves]) -> tuple[Particles, PRNGKey, Moves]:
        now, key, moves = carry
        key, k_now = jax.random.split(key)
        moved, accept, num_steps = _trajectories(scheme, evaluate, now, scale, k_now)
        correlation = _correlation(origin, moved.z)
        mean = accept.mean()
        # what stands still because its steps were too long has not forgotten all that it can
        stagnant = (correlation > _STAGNANT * moves.correlation) & (mean > 0.5 * scheme.target_accept)
        rate = moved.step_size * jnp.exp(mean - scheme.target_accept)
        moves = Moves(accept, moves.num_moves + 1, num_steps, jnp.where(stagnant, 0.0, correlation))
        return moved._replace(step_size=rate), key, moves

    def unfinished(carry: tuple[Particles, PRNGKey, Moves]) -> Array:
        moves = carry[2]
        few = moves.num_moves < 2
        return few | ((moves.correlation > _FORGOTTEN) & (moves.num_moves < scheme.max_moves))

    blank = Moves(
        jnp.zeros(len(origin), origin.dtype), jnp.zeros((), int), jnp.zeros((), int), jnp.ones((), beta.dtype)
    )
    moved, _, moves = jax.lax.while_loop(unfinished, step, (particles, key, blank))
    return moved, moves


def _trajectories(
    scheme: Scheme, evaluate: Callable, particles: Particles, scale: Array, key: PRNGKey
) -> tuple[Particles, Array, Array]:
    """One Hamiltonian trajectory for every particle, and its acceptance.

    In w, z = scale w, the mass is the identity:

    p <- p + (h/2) g;  w <- w + h p;  p <- p + (h/2) g;  g = scale^T grad log density
    """
    k_momentum, k_length, k_jitter, k_accept = jax.random.split(key, 4)
    z, n = particles.z, len(particles.z)
    momentum = jax.random.normal(k_momentum, z.shape, z.dtype)
    h = particles.step_size * jax.random.uniform(k_jitter, (n, 1), z.dtype, 0.8, 1.2)
    length = _LENGTH * jax.random.uniform(k_length, (), z.dtype, 0.5, 1.5)
    num_steps = jnp.clip(jnp.ceil(length / particles.step_size), 1, scheme.max_steps).astype(int)
    (before, _), gradient = evaluate(z)

    # one gradient per step: that at the end of a step begins the next. Rows hold particles, so scale^T g is g @ scale
    def leap(_: Array, carry: tuple) -> tuple:
        z, p, gradient, _, _ = carry
        p = p + 0.5 * h * (gradient @ scale)
        z = z + (h * p) @ scale.T
        (value, loglik), gradient = evaluate(z)
        return z, p + 0.5 * h * (gradient @ scale), gradient, value, loglik

    first = (z, momentum, gradient, before, particles.log_likelihood)
    proposal, p, _, value, loglik = jax.lax.fori_loop(0, num_steps, leap, first)
    gain = value - before - 0.5 * (p**2).sum(axis=1) + 0.5 * (momentum**2).sum(axis=1)
    # a trajectory that leaves the support or overflows is refused, not propagated
    valid = jnp.isfinite(gain) & jnp.isfinite(loglik) & jnp.isfinite(proposal).all(axis=1)
    accept = jnp.where(valid, jnp.exp(jnp.minimum(gain, 0.0)), 0.0)
    taken = jax.random.uniform(k_accept, (n,), z.dtype) < accept
    moved = particles._replace(
        z=jnp.where(taken[:, None], proposal, z), log_likelihood=jnp.where(taken, loglik, particles.log_likelihood)
    )
    return moved, accept, num_steps


def _covariance_root(z: Array) -> Array:
    """Cholesky factor `[Dz, Dz]` of the shrunk covariance, never singular.

    The covariance is moved towards its diagonal by the share Dz / (n + Dz).
    """
    n, width = z.shape
    centred = z - z.mean(axis=0)
    covariance = centred.T @ centred / n
    variance = jnp.maximum(jnp.diagonal(covariance), 1e-10)
    share = width / (n + width)
    return jnp.linalg.cholesky((1.0 - share) * covariance + jnp.diag(share * variance + 1e-6 * variance))


def _correlation(before: Array, after: Array) -> Array:
    """Largest correlation over coordinates between places before and after."""
    a, b = before - before.mean(axis=0), after - after.mean(axis=0)
    norm = jnp.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    # a coordinate that stands still remembers everything: 1
    return jnp.max(jnp.where(norm > 0, (a * b).sum(axis=0) / jnp.where(norm > 0, norm, 1.0), 1.0))


def shuffled(problem: Problem, particles: Particles, key: PRNGKey) -> tuple[Array, Array, Array]:
    """z, U(z) and their random order.

    Resampling leaves relatives side by side.
    """
    order = jax.random.permutation(key, len(particles.z))
    z = particles.z[order]
    return z, -(jax.vmap(problem.log_prior)(z) + particles.log_likelihood[order]), order
