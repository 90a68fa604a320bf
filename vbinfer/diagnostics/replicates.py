"""Replicates of an observation, and the posteriors given both.

Draws of p(theta | x_o) are made, each simulates one replicate x_i, and the posterior given (x_o, x_i) is drawn from in
one of two ways: by chains where there is a likelihood, by importance weights where there is a density of theta.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from vbinfer._names import PRNGKey, SimulatorLike, flat_names, unravel
from vbinfer.draws.predictive import posterior_predictive
from vbinfer.execute.batches import key_ints
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.importance import pareto_smoothed
from vbinfer.sampling.sampler import ChainSampler

from .calibration.held_out import HeldOut
from .calibration.posterior_draws import check_names, log_density, sample_posteriors
from .recovery import as_rows
from .thresholds import PARETO_K

CANDIDATES = 4
"""Draws of the posterior at x_o that are weighed for each draw that is kept."""


class Question(NamedTuple):
    """One observation, n replicates of it, `per` draws for each."""

    prior: Prior
    simulator: SimulatorLike
    x_o: np.ndarray
    n: int
    per: int


class Replicates(NamedTuple):
    """Replicates, their parameters, and draws given both data sets."""

    held: HeldOut
    method: str
    """`chains` or `importance`."""
    pareto_k: np.ndarray
    """Of the weights of each replicate, those left out included; empty for chains."""
    left_out: int
    """Replicates whose weights are too uneven (k above 0.7)."""
    at_x_o: np.ndarray
    """Draws of the posterior at x_o `[m, D]`."""


def likelihood_of(source: Any) -> Callable[..., Any] | None:
    """Log likelihood of a source that has one.

    `(theta, x) -> log p(x | theta)`.

    Up to a constant in theta.
    """
    return getattr(source, "log_likelihood", None) or getattr(source, "log_ratio", None)


def by_chains(source: Any, question: Question, key: PRNGKey) -> Replicates:
    """Sample posteriors given both data sets by chains.

    log p(x_o | theta) + log p(x_i | theta) + log p(theta), side by side for all i.
    """
    k_draw, k_sim, k_both, k_test = jax.random.split(key, 4)
    sampler = source
    if not isinstance(source, ChainSampler):
        sampler = ChainSampler(question.prior, likelihood_of(source), num_chains=8, max_thinning=4)
    shapes = question.prior.shapes
    first = sampler.run_batch(question.x_o[None], n=question.n, key=k_draw)
    check_names(first.theta, shapes)
    at_x_o = as_rows(first.theta, shapes)[0]
    truth, x, names, failed = _simulated(question, at_x_o, k_sim)
    both = dataclasses.replace(sampler, log_likelihood=_Both(sampler.log_likelihood))
    pairs = np.stack([np.broadcast_to(question.x_o, x.shape), x], axis=1)
    run = both.run_batch(jnp.asarray(pairs), n=question.per, key=k_both)
    # ranks are worth no more than the chains at x_o, which all replicates share, and those of each replicate
    worth = float(min(np.min(run.ess), question.per, question.per * np.min(first.ess) / question.n))
    held = HeldOut(
        flat_names(shapes), truth, as_rows(run.theta, shapes), x, names, None, None, None, failed, worth, k_test
    )
    return Replicates(held, "chains", np.zeros(0), 0, at_x_o)


def by_importance(source: Any, question: Question, key: PRNGKey) -> Replicates:
    """Sample posteriors given both data sets by weights.

    q(theta | x_o) q(theta | x_i) / p(theta), by weighing draws of q(. | x_o).

    The draw that made x_i is one of M + 1 equals until x_i is seen, and then it is number j with probability w_j,
    proportional to q(theta_j | x_i) / p(theta_j): so is every draw taken from all M + 1 with these weights, itself
    among them. Ranks are therefore exactly uniform if q is exact, for any M; uneven weights cost power only. Replicates
    with k above 0.7 are left out, which depends on no more than the weights and so keeps the ranks uniform.
    """
    k_draw, k_sim, k_pick, k_test = jax.random.split(key, 4)
    shapes, size = question.prior.shapes, CANDIDATES * question.per
    rows = sample_posteriors(
        source, question.x_o[None], shapes, n=question.n * (size + 1), key=k_draw, start=0, width=1
    )[0][0]
    rng = np.random.default_rng(key_ints(k_pick))
    rows = rng.permutation(rows)  # neighbours in a chain are alike; equals they must be
    truth, x, names, failed = _simulated(question, rows[: question.n], k_sim)
    # each replicate has a pool of its own, in which the draw that made it comes first: [n, M + 1, D]
    pool = rows[question.n :].reshape(question.n, size, -1)[: len(truth)]
    sets = np.concatenate([truth[:, None], pool], axis=1)
    at_x_o = log_density(source, sets.reshape(1, -1, sets.shape[2]), question.x_o[None], shapes).reshape(sets.shape[:2])
    prior = np.asarray(question.prior.log_prob(unravel(jnp.asarray(sets), shapes)), np.float64)
    with np.errstate(invalid="ignore"):
        ratio = log_density(source, sets, x, shapes) - prior
    # -inf minus -inf, outside both supports, has no weight
    ratio = np.where(np.isnan(ratio), -np.inf, ratio)
    possible = np.asarray(np.isfinite(ratio).any(axis=1))
    k = np.array([pareto_smoothed(row).pareto_k if some else np.inf for row, some in zip(ratio, possible, strict=True)])
    kept = np.flatnonzero(k <= PARETO_K)
    chosen = _weighted(ratio[kept], question.per, rng)
    draws = np.take_along_axis(sets[kept], chosen[:, :, None], axis=1)
    # log q(theta | x_o) + log q(theta | x_i) - log p(theta), up to a constant of the replicate
    log_q = (at_x_o + ratio)[kept]
    log_q = np.concatenate([log_q[:, :1], np.take_along_axis(log_q, chosen, axis=1)], axis=1)
    held = HeldOut(
        flat_names(shapes), truth[kept], draws, x[kept], names, log_q, None, None, failed, float(question.per), k_test
    )
    return Replicates(held, "importance", k, len(k) - len(kept), rows)


@dataclasses.dataclass(frozen=True)
class _Both:
    """Likelihood of two data sets that share theta.

    x is `[2, F]`.

    Equal for equal likelihoods, so compiled once.
    """

    log_likelihood: Callable[..., Any]

    def __call__(self, theta: Any, x: Any) -> Any:
        return self.log_likelihood(theta, x[0]) + self.log_likelihood(theta, x[1])


def _simulated(
    question: Question, rows: np.ndarray, key: PRNGKey
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], int]:
    """One replicate of each row of theta.

    Truths `[n, D]` and x `[n, F]` of those that worked, names of the features, and how many failed.
    """
    theta = {name: np.asarray(value)[None] for name, value in unravel(jnp.asarray(rows), question.prior.shapes).items()}
    found = posterior_predictive(Posterior(theta), question.simulator, n=len(rows), key=key)
    if found.x.shape[1] != len(question.x_o):
        raise ValueError(
            f"the simulator returned {found.x.shape[1]} features and x_o has {len(question.x_o)}; give the simulator "
            "and the recording the same Summary"
        )
    truth = as_rows(found.theta, question.prior.shapes)
    return truth[found.valid], found.x[found.valid], found.names, int((~found.valid).sum())


def _weighted(log_weights: np.ndarray, per: int, rng: np.random.Generator) -> np.ndarray:
    """Rows `[n, per]` drawn in proportion to their weights.

    Weights are `[n, M + 1]`.
    """
    # inverse of the cumulated weights at uniform numbers
    edges = np.cumsum(softmax(log_weights, axis=1), axis=1)
    at = rng.random((len(edges), per))
    found = [np.searchsorted(edge, one, side="right") for edge, one in zip(edges, at, strict=True)]
    return np.minimum(np.reshape(found, at.shape).astype(int), log_weights.shape[1] - 1)
