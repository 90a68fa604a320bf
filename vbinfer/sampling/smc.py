"""Adaptive tempered sequential Monte Carlo, and the evidence."""

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.draws.schedule import Progress
from vbinfer.sampling.problem import AbstractKernel, KernelOutput, Problem, RunOptions
from vbinfer.sampling.starts import finite, not_finite, refuse_gaps
from vbinfer.sampling.tempering import Scheme, advance, prior_particles, shuffled

MAX_TEMPERATURES = 1_000


@dataclasses.dataclass(frozen=True)
class TemperedSMC(Scheme, AbstractKernel):
    """Adaptive tempered sequential Monte Carlo with Hamiltonian moves.

    It also estimates the evidence. Particles begin as draws of the prior and pass through p(z) p(x_o | z)^beta,
    beta from 0 to 1. At each temperature, with `L_i = log p(x_o | z_i)` of particle i of n:

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

    `posterior.log_evidence` is log((1/R) sum_r Z_r) over R repeats. Temperatures and moves are tuned on the particles
    themselves, a bias of O(1/N) that repeats do not show: -0.09 for ten parameters and 1,000 particles, none seen
    at 4,000.
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
        >>> posterior = vb.sample_mcmc(prior, log_likelihood, 1.0, kernel=vb.sampling.TemperedSMC(), num_samples=500,
        ...                            num_chains=2, key=jax.random.key(0))
        >>> bool(0.6 < (posterior.theta["a"] > 0).mean() < 0.85)   # 1 / (1 + exp(-1)) = 0.73
        True
    """

    def run(self, problem: Problem, options: RunOptions) -> KernelOutput:
        """`num_chains` independent populations of `num_samples` particles."""
        _check_options(problem, options)
        n, repeats = options.num_samples, []
        with Progress(options.num_chains * n, shown=options.progress, label="tempering") as bar:
            for chain in range(options.num_chains):
                repeats.append(_repeat(self, problem, n, jax.random.fold_in(options.key, chain)))
                bar.show((chain + 1) * n, 0)
        return _output(repeats)


def _check_options(problem: Problem, options: RunOptions) -> None:
    if options.init is not None:
        raise ValueError("init was given, but particles of TemperedSMC start from the prior: leave init out")
    if options.store is not None or options.state is not None:
        raise ValueError(
            "TemperedSMC makes its draws in one go and continues none: leave store out, or use vb.sampling.NUTS()"
        )
    least = max(20, 2 * problem.prior.z_dim)
    if options.num_samples < least:
        raise ValueError(
            f"num_samples={options.num_samples} particles were given for {problem.prior.z_dim} parameters; "
            f"TemperedSMC needs at least {least}: write num_samples=1000"
        )


def _repeat(scheme: Scheme, problem: Problem, n: int, key: PRNGKey) -> KernelOutput:
    """One population from prior to posterior, and the way there.

    One compiled program serves every temperature.
    """
    particles, first = problem.run(prior_particles, jax.random.fold_in(key, 0), static=(n,))
    _check_first(problem, *(np.asarray(part) for part in first))
    temperatures, acceptances, num_moves = [0.0], [], []
    while temperatures[-1] < 1.0:
        # the program picks its next temperature: Python reads one number per temperature and decides when to stop
        k_move = jax.random.fold_in(key, len(temperatures))
        particles, moves = problem.run(advance, particles, k_move, static=(scheme,))
        temperature = float(particles.temperature)
        if not temperature > temperatures[-1] or len(temperatures) >= MAX_TEMPERATURES:
            raise ValueError(
                f"tempering stopped at beta = {temperatures[-1]:.3g} after {len(temperatures)} temperatures: the "
                "log-likelihood is too steep for its precision there; take more particles, or run in float64"
            )
        temperatures.append(temperature)
        acceptances.append(float(moves.accept_prob.mean()))
        num_moves.append(int(moves.num_moves))
    if acceptances[-1] < 0.1:
        warnings.warn(
            f"moves at the last temperature were accepted with probability {acceptances[-1]:.2g}: the particles are "
            "copies of few; check that the gradient of the log-likelihood is finite",
            stacklevel=4,
        )
    # a key that no temperature has had
    drawn = problem.run(shuffled, particles, jax.random.fold_in(key, MAX_TEMPERATURES + 1))
    z, energy, order = (np.asarray(part) for part in drawn)
    stats = {
        "accept_prob": np.asarray(moves.accept_prob)[order],
        "num_steps": np.full(len(z), int(moves.num_steps)),
        "step_size": np.full(len(z), float(particles.step_size)),
    }
    invalid = float(np.mean(~np.isfinite(np.asarray(first[1]))))
    info = {"temperatures": temperatures, "acceptance": acceptances, "num_moves": num_moves, "invalid": invalid}
    return KernelOutput(z, energy, stats, float(particles.log_evidence), None, info)


def _output(repeats: list[KernelOutput]) -> KernelOutput:
    evidences = np.array([one.log_evidence for one in repeats])
    log_evidence, error = mean_evidence(evidences)
    info: dict[str, Any] = {name: [one.info[name] for one in repeats] for name in repeats[0].info}
    info |= {"log_evidence_repeats": evidences.tolist(), "log_evidence_error": error}
    info["invalid_prior_share"] = float(np.mean(info.pop("invalid")))
    z, energy, stats = jax.tree.map(lambda *rows: np.stack(rows), *(one[:3] for one in repeats))
    return KernelOutput(z, energy, stats, log_evidence, None, info)


def mean_evidence(log_evidences: np.ndarray) -> tuple[float, float | None]:
    """Log mean evidence over repeats, and its error.

    The error is None for one repeat.

    log Z = log((1/R) sum_r exp(l_r));  error = sd(Z_r) / (sqrt(R) mean Z_r), the delta method

    >>> [round(x, 3) for x in mean_evidence(np.log(np.array([1.0, 2.0, 3.0])))]
    [0.693, 0.289]
    """
    # relative to the largest: the evidence itself is often below the smallest float
    top = log_evidences.max()
    ratio = np.exp(log_evidences - top)
    error = None
    if len(ratio) > 1:
        error = float(ratio.std(ddof=1) / ratio.mean() / np.sqrt(len(ratio)))
    return float(top + np.log(ratio.mean())), error


def _check_first(problem: Problem, z: np.ndarray, value: np.ndarray, gradient: np.ndarray) -> None:
    """Refuse prior draws that tempering cannot survive.

    An infinite likelihood, or no particle with a finite value and gradient.
    """
    if np.isposinf(value).any():
        raise ValueError(
            f"log_likelihood is +inf at {int(np.isposinf(value).sum())} of {len(z)} draws of the prior; a density of "
            "the data must be finite: keep scales away from zero"
        )
    if not finite(z, value, gradient).any():
        refuse_gaps(problem.x_o)
        raise ValueError(
            f"no particle can move: {not_finite(problem.prior, z, value, gradient)}, all from the prior. "
            "Narrow the prior, or mend the likelihood where it is not finite"
        )
