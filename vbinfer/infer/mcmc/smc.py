"""Adaptive tempered sequential Monte Carlo: particles that travel from the prior to the posterior, and the evidence."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._typing import PRNGKey
from vbinfer.infer.mcmc.base import AbstractKernel, Plan, Problem, Run
from vbinfer.infer.mcmc.starts import not_finite
from vbinfer.infer.progress import Progress

MAX_TEMPERATURES = 1_000
_BISECTIONS = 60
_LENGTH = 1.5
"""Mean length of a trajectory in whitened coordinates; pi / 2 takes a Gaussian particle to an independent place."""
_FORGOTTEN = 0.1
"""Correlation between where a particle was and where it is below which it has forgotten."""
_STAGNANT = 0.97
"""A move that leaves more than this of the correlation forgets no more: the rest is the place of the modes."""


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
    """What the moves at one temperature say of themselves: acceptance by particle, then numbers."""

    accept_prob: Array
    num_moves: Array
    num_steps: Array
    correlation: Array


@dataclasses.dataclass(frozen=True)
class TemperedSMC(AbstractKernel):
    """Adaptive tempered sequential Monte Carlo with Hamiltonian moves; it also estimates the evidence.

    Particles begin as draws of the prior and pass through p(z) p(x_o | z)^beta, beta from 0 to 1. At each temperature,
    with `L_i = log p(x_o | z_i)` of particle i of n:

        beta'    solves ESS(w) = target_ess n,  w_i = exp((beta' - beta) L_i),  ESS = (sum w)^2 / sum w^2
        log Z   += log(sum_i w_i / n)
        z        resampled in proportion to w (systematic), then moved by Hamiltonian Monte Carlo at beta'

    Moves are whitened by the covariance of the particles, their step size follows the acceptance, the number of
    leapfrog steps follows the step size, and they go on until places are uncorrelated with those before the moves
    (largest correlation below 0.1), or fall no further, as between separate modes.

    Use it where chains disagree: several modes, a likelihood that is not a number in parts of the prior (such particles
    get weight zero), or when the evidence is asked for. `num_samples` is the number of particles, `num_chains` the
    number of independent repeats; `num_warmup` and `init` play no part. Draws of one repeat are exchangeable, so ESS
    within a repeat says little about the share of each mode, decided while the modes were joined: its Monte-Carlo
    error is what differs between repeats (R-hat). A mode so narrow that no particle falls near it while the likelihood
    is still flat is missed by all: take more particles.

    `posterior.log_evidence` is log((1/R) sum_r Z_r) over R repeats, unbiased on the scale of Z;
    `posterior.info["log_evidence_repeats"]` has each repeat, `["log_evidence_error"]` the standard error of the mean.
    With the likelihood's own constants left out it is the evidence without them.

    Args:
        target_ess: share of particles that are effective after each change of temperature; higher takes more
            temperatures and gives a better evidence.
        target_accept: mean acceptance to which the step size is adapted.
        max_moves: moves at one temperature at most.
        max_steps: leapfrog steps of one move at most.

    Raises:
        ValueError: options out of range; a likelihood that is nowhere a number in the prior.

    References:
        Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, doi:10.1111/j.1467-9868.2006.00553.x;
        Buchholz, Chopin & Jacob 2021, Bayesian Analysis 16, doi:10.1214/20-BA1222 (adaptation of the moves).

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"a": dist.Normal(0.5, 1.0)})
        >>> def log_likelihood(theta, y):                       # sees a^2 only: two modes
        ...     return dist.Normal(theta["a"] ** 2, 0.1).log_prob(y)
        >>> posterior = vb.sample_mcmc(prior, log_likelihood, 1.0, kernel=vb.TemperedSMC(), num_samples=500,
        ...                            num_chains=2, key=jax.random.key(0))
        >>> bool(0.6 < (posterior.theta["a"] > 0).mean() < 0.85)   # 1 / (1 + exp(-1)) = 0.73
        True
    """

    target_ess: float = 0.7
    target_accept: float = 0.8
    max_moves: int = 20
    max_steps: int = 16

    def __post_init__(self) -> None:
        for name in ("target_ess", "target_accept"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name}={value} was given; expected a number in (0, 1), such as 0.5 or 0.8")
        for name in ("max_moves", "max_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} was given; expected a whole number of at least 1, such as 16")

    def run(self, problem: Problem, plan: Plan) -> Run:
        """`num_chains` independent populations of `num_samples` particles."""
        _check_plan(problem, plan)
        programs = _programs(self, problem, plan.num_samples)
        repeats = []
        with Progress(plan.num_chains * plan.num_samples, shown=plan.progress, label="tempering") as bar:
            for chain in range(plan.num_chains):
                key = jax.random.fold_in(plan.key, chain)
                repeats.append(_repeat(programs, problem, key))
                bar.add(plan.num_samples, 0)
        return _run(repeats)


@functools.lru_cache(maxsize=8)
def _programs(kernel: TemperedSMC, problem: Problem, n: int) -> tuple[Callable, Callable, Callable]:
    """Compiled: draws of the prior, one temperature further, the draws at the end."""
    return (
        jax.jit(lambda key: _prior_particles(problem, n, key)),
        jax.jit(lambda particles, key: _advance(kernel, problem, particles, key)),
        jax.jit(lambda particles, key: _shuffled(problem, particles, key)),
    )


def _check_plan(problem: Problem, plan: Plan) -> None:
    if plan.init is not None:
        raise ValueError("init was given, but particles of TemperedSMC start from the prior: leave init out")
    if plan.store is not None or plan.state is not None:
        raise ValueError("TemperedSMC makes its draws in one go and continues none: leave store out, or use vb.NUTS()")
    least = max(20, 2 * problem.prior.z_dim)
    if plan.num_samples < least:
        raise ValueError(
            f"num_samples={plan.num_samples} particles were given for {problem.prior.z_dim} parameters; "
            f"TemperedSMC needs at least {least}: write num_samples=1000"
        )


def _repeat(programs: tuple[Callable, Callable, Callable], problem: Problem, key: PRNGKey) -> dict[str, Any]:
    """One population from the prior to the posterior, a compiled program per temperature."""
    start, advance, finish = programs
    particles, invalid = start(jax.random.fold_in(key, 0))
    _check_invalid({name: np.asarray(value) for name, value in invalid.items()}, problem)
    temperatures, acceptances, num_moves = [0.0], [], []
    moves = None
    while temperatures[-1] < 1.0:
        particles, moves = advance(particles, jax.random.fold_in(key, len(temperatures)))
        temperature = float(particles.temperature)
        if not temperature > temperatures[-1] or len(temperatures) >= MAX_TEMPERATURES:
            raise ValueError(
                f"tempering stopped at beta = {temperatures[-1]:.3g} after {len(temperatures)} temperatures: the "
                "log-likelihood is too steep for its precision there; take more particles, or run in float64"
            )
        temperatures.append(temperature)
        acceptances.append(float(moves.accept_prob.mean()))
        num_moves.append(int(moves.num_moves))
    assert moves is not None
    if acceptances[-1] < 0.1:
        warnings.warn(
            f"moves at the last temperature were accepted with probability {acceptances[-1]:.2g}: the particles are "
            "copies of few; check that the gradient of the log-likelihood is finite",
            stacklevel=4,
        )
    z, energy, order = finish(particles, jax.random.fold_in(key, MAX_TEMPERATURES + 1))
    return {
        "z": np.asarray(z),
        "energy": np.asarray(energy),
        "accept_prob": np.asarray(moves.accept_prob)[np.asarray(order)],
        "num_steps": int(moves.num_steps),
        "step_size": float(particles.step_size),
        "log_evidence": float(particles.log_evidence),
        "temperatures": temperatures,
        "acceptances": acceptances,
        "num_moves": num_moves,
        "invalid": float(np.mean(~np.isfinite(np.asarray(invalid["value"])))),
    }


def _run(repeats: list[dict[str, Any]]) -> Run:
    shape = (len(repeats), len(repeats[0]["z"]))
    evidences = np.array([one["log_evidence"] for one in repeats])
    log_evidence, error = mean_evidence(evidences)
    stats = {
        "accept_prob": np.stack([one["accept_prob"] for one in repeats]),
        "num_steps": np.broadcast_to(np.array([[one["num_steps"]] for one in repeats]), shape).copy(),
        "step_size": np.broadcast_to(np.array([[one["step_size"]] for one in repeats]), shape).copy(),
    }
    info = {
        "log_evidence_repeats": evidences.tolist(),
        "log_evidence_error": error,
        "temperatures": [one["temperatures"] for one in repeats],
        "acceptance": [one["acceptances"] for one in repeats],
        "num_moves": [one["num_moves"] for one in repeats],
        "invalid_prior_share": float(np.mean([one["invalid"] for one in repeats])),
    }
    energy = np.stack([one["energy"] for one in repeats])
    return Run(np.stack([one["z"] for one in repeats]), energy, stats, log_evidence, None, info)


def mean_evidence(log_evidences: np.ndarray) -> tuple[float, float | None]:
    """log of the mean of Z over repeats, and its standard error (None for one repeat).

    log Z = log((1/R) sum_r exp(l_r));  error = sd(Z_r) / (sqrt(R) mean Z_r), the delta method

    >>> [round(x, 3) for x in mean_evidence(np.log(np.array([1.0, 2.0, 3.0])))]
    [0.693, 0.289]
    """
    top = log_evidences.max()
    ratio = np.exp(log_evidences - top)
    error = None
    if len(ratio) > 1:
        error = float(ratio.std(ddof=1) / ratio.mean() / np.sqrt(len(ratio)))
    return float(top + np.log(ratio.mean())), error


def _prior_particles(problem: Problem, n: int, key: PRNGKey) -> tuple[Particles, dict[str, Array]]:
    """Draws of the prior over z, their log-likelihoods, and value and gradient for the check of what is invalid."""
    prior = problem.prior
    z = jax.vmap(lambda theta: prior.ravel_z(prior.unconstrain(theta)))(prior.sample(key=key, n=n))
    value, gradient = jax.vmap(jax.value_and_grad(problem.log_likelihood))(z)
    inside = jnp.isfinite(z).all(axis=1) & jnp.isfinite(value)
    particles = Particles(
        z=jnp.where(inside[:, None], z, 0.0),
        log_likelihood=jnp.where(inside, value, -jnp.inf),
        temperature=jnp.zeros((), value.dtype),
        step_size=jnp.full((), prior.z_dim**-0.25, value.dtype),
        log_evidence=jnp.zeros((), value.dtype),
    )
    return particles, {"z": z, "value": value, "gradient": gradient}


def _check_invalid(found: Mapping[str, np.ndarray], problem: Problem) -> None:
    """Refuse what tempering cannot survive: an infinite likelihood, or no particle with a value and a gradient."""
    value, gradient, n = found["value"], found["gradient"], len(found["value"])
    if np.isposinf(value).any():
        raise ValueError(
            f"log_likelihood is +inf at {int(np.isposinf(value).sum())} of {n} draws of the prior; a density of the "
            "data must be finite: keep scales away from zero"
        )
    if not (np.isfinite(value) & np.isfinite(gradient).all(axis=1)).any():
        raise ValueError(
            f"no particle can move: {not_finite(problem.prior, found['z'], value, gradient)}, all from the prior. "
            "Narrow the prior, or mend the likelihood where it is not finite"
        )


def _advance(kernel: TemperedSMC, problem: Problem, particles: Particles, key: PRNGKey) -> tuple[Particles, Moves]:
    """One temperature further: reweight, resample, move."""
    k_resample, k_move = jax.random.split(key)
    loglik, n = particles.log_likelihood, len(particles.log_likelihood)
    increment = next_increment(loglik, 1.0 - particles.temperature, kernel.target_ess)
    last = increment >= 1.0 - particles.temperature
    temperature = jnp.where(last, jnp.ones_like(particles.temperature), particles.temperature + increment)
    log_weight = _tempered(increment, loglik)
    chosen = systematic(k_resample, jax.nn.softmax(log_weight))
    evidence = particles.log_evidence + jax.nn.logsumexp(log_weight) - jnp.log(n)
    resampled = particles._replace(
        z=particles.z[chosen], log_likelihood=loglik[chosen], temperature=temperature, log_evidence=evidence
    )
    return _move(kernel, problem, resampled, k_move)


def _tempered(increment: Array, log_likelihood: Array) -> Array:
    """increment * log_likelihood, -inf where the likelihood is zero, also at increment 0."""
    zero = jnp.isneginf(log_likelihood)
    return jnp.where(zero, -jnp.inf, increment * jnp.where(zero, 0.0, log_likelihood))


def next_increment(log_likelihood: Array, left: Array, target: float) -> Array:
    """The largest change of beta, at most `left`, that keeps ESS(w) >= target n_valid, by bisection.

    Particles without a likelihood have weight zero at any beta; they do not count in n_valid.
    """

    def log_ess(increment: Array) -> Array:
        log_weight = _tempered(increment, log_likelihood)
        return 2.0 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2.0 * log_weight)

    goal = jnp.log(target * jnp.isfinite(log_likelihood).sum())

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = log_ess(middle) >= goal
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    left = jnp.asarray(left)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(left), left))
    return jnp.where(log_ess(left) >= goal, left, low)


def systematic(key: PRNGKey, weights: Array) -> Array:
    """Indices `[n]` of n particles in proportion to their weights: one uniform number, n evenly spaced positions."""
    n = len(weights)
    positions = (jnp.arange(n) + jax.random.uniform(key)) / n
    total = jnp.cumsum(weights)
    return jnp.searchsorted(total / total[-1], positions.astype(total.dtype), side="right").clip(0, n - 1)


def _move(kernel: TemperedSMC, problem: Problem, particles: Particles, key: PRNGKey) -> tuple[Particles, Moves]:
    """Hamiltonian moves at one temperature until the particles have forgotten where they were."""
    origin = particles.z
    beta = particles.temperature

    def density(z: Array) -> tuple[Array, Array]:
        loglik = problem.log_likelihood(z)
        return problem.log_prior(z) + beta * loglik, loglik

    scale = _covariance_root(origin)
    evaluate = jax.vmap(jax.value_and_grad(density, has_aux=True))

    def step(carry: tuple[Particles, PRNGKey, Moves]) -> tuple[Particles, PRNGKey, Moves]:
        now, key, moves = carry
        key, k_now = jax.random.split(key)
        moved, accept, num_steps = _trajectories(kernel, evaluate, now, scale, k_now)
        correlation = _correlation(origin, moved.z)
        mean = accept.mean()
        # what stands still because its steps were too long has not forgotten all that it can
        stagnant = (correlation > _STAGNANT * moves.correlation) & (mean > 0.5 * kernel.target_accept)
        rate = moved.step_size * jnp.exp(mean - kernel.target_accept)
        moves = Moves(accept, moves.num_moves + 1, num_steps, jnp.where(stagnant, 0.0, correlation))
        return moved._replace(step_size=rate), key, moves

    def unfinished(carry: tuple[Particles, PRNGKey, Moves]) -> Array:
        moves = carry[2]
        few = moves.num_moves < 2
        return few | ((moves.correlation > _FORGOTTEN) & (moves.num_moves < kernel.max_moves))

    blank = Moves(
        jnp.zeros(len(origin), origin.dtype), jnp.zeros((), int), jnp.zeros((), int), jnp.ones((), beta.dtype)
    )
    moved, _, moves = jax.lax.while_loop(unfinished, step, (particles, key, blank))
    return moved, moves


def _trajectories(
    kernel: TemperedSMC, evaluate: Callable, particles: Particles, scale: Array, key: PRNGKey
) -> tuple[Particles, Array, Array]:
    """One Hamiltonian trajectory for every particle, and the acceptance; in w, z = scale w, the mass is the identity.

    p <- p + (h/2) g;  w <- w + h p;  p <- p + (h/2) g;  g = scale^T grad log density
    """
    k_momentum, k_length, k_jitter, k_accept = jax.random.split(key, 4)
    z, n = particles.z, len(particles.z)
    momentum = jax.random.normal(k_momentum, z.shape, z.dtype)
    h = particles.step_size * jax.random.uniform(k_jitter, (n, 1), z.dtype, 0.8, 1.2)
    length = _LENGTH * jax.random.uniform(k_length, (), z.dtype, 0.5, 1.5)
    num_steps = jnp.clip(jnp.ceil(length / particles.step_size), 1, kernel.max_steps).astype(int)
    (before, _), gradient = evaluate(z)

    def leap(_: Array, carry: tuple) -> tuple:
        z, p, gradient, _, _ = carry
        p = p + 0.5 * h * (gradient @ scale)
        z = z + (h * p) @ scale.T
        (value, loglik), gradient = evaluate(z)
        return z, p + 0.5 * h * (gradient @ scale), gradient, value, loglik

    first = (z, momentum, gradient, before, particles.log_likelihood)
    proposal, p, _, value, loglik = jax.lax.fori_loop(0, num_steps, leap, first)
    gain = value - before - 0.5 * (p**2).sum(axis=1) + 0.5 * (momentum**2).sum(axis=1)
    valid = jnp.isfinite(gain) & jnp.isfinite(loglik) & jnp.isfinite(proposal).all(axis=1)
    accept = jnp.where(valid, jnp.exp(jnp.minimum(gain, 0.0)), 0.0)
    taken = jax.random.uniform(k_accept, (n,), z.dtype) < accept
    moved = particles._replace(
        z=jnp.where(taken[:, None], proposal, z), log_likelihood=jnp.where(taken, loglik, particles.log_likelihood)
    )
    return moved, accept, num_steps


def _covariance_root(z: Array) -> Array:
    """Cholesky factor `[Dz, Dz]` of the covariance, shrunk towards its diagonal by Dz / (n + Dz): never singular."""
    n, width = z.shape
    centred = z - z.mean(axis=0)
    covariance = centred.T @ centred / n
    variance = jnp.maximum(jnp.diagonal(covariance), 1e-10)
    share = width / (n + width)
    return jnp.linalg.cholesky((1.0 - share) * covariance + jnp.diag(share * variance + 1e-6 * variance))


def _correlation(before: Array, after: Array) -> Array:
    """The largest correlation over coordinates between places before and after the moves."""
    a, b = before - before.mean(axis=0), after - after.mean(axis=0)
    norm = jnp.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return jnp.max(jnp.where(norm > 0, (a * b).sum(axis=0) / jnp.where(norm > 0, norm, 1.0), 1.0))


def _shuffled(problem: Problem, particles: Particles, key: PRNGKey) -> tuple[Array, Array, Array]:
    """z, U(z) and the order: resampling leaves relatives side by side, which draws should not be."""
    order = jax.random.permutation(key, len(particles.z))
    z = particles.z[order]
    return z, -(jax.vmap(problem.log_prior)(z) + particles.log_likelihood[order]), order
