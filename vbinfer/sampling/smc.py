"""Adaptive tempered sequential Monte Carlo: particles that travel from the prior to the posterior, and the evidence."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.draws.progress import Progress
from vbinfer.sampling.problem import AbstractKernel, Plan, Problem, Run
from vbinfer.sampling.starts import not_finite
from vbinfer.sampling.tempering import Scheme, advance, prior_particles, shuffled

MAX_TEMPERATURES = 1_000


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
    number of independent repeats, run in turn; `num_warmup` and `chain_method` play no part. Draws of one repeat are
    exchangeable, so ESS within a repeat says little about the share of each mode, decided while the modes were joined:
    its Monte-Carlo error is what differs between repeats (R-hat). A mode so narrow that no particle falls near it while
    the likelihood is still flat is missed by all: take more particles.

    `posterior.log_evidence` is log((1/R) sum_r Z_r) over R repeats, unbiased on the scale of Z;
    `posterior.info["log_evidence_repeats"]` has each repeat, `["log_evidence_error"]` the standard error of the mean.
    Constants that the likelihood leaves out are missing from it. `sample_stats` are those of the last move:
    `accept_prob` of each particle, `num_steps` leapfrog steps, `step_size`.

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
                bar.show((chain + 1) * plan.num_samples, 0)
        return _run(repeats)


@functools.lru_cache(maxsize=8)
def _programs(kernel: TemperedSMC, problem: Problem, n: int) -> tuple[Callable, Callable, Callable]:
    """Compiled: draws of the prior, one temperature further, the draws at the end."""
    scheme = Scheme(kernel.target_ess, kernel.target_accept, kernel.max_moves, kernel.max_steps)
    return (
        jax.jit(lambda key: prior_particles(problem, n, key)),
        jax.jit(lambda particles, key: advance(scheme, problem, particles, key)),
        jax.jit(lambda particles, key: shuffled(problem, particles, key)),
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
