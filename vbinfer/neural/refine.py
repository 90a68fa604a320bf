"""Importance correction of neural posteriors, where a likelihood exists."""

import time
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._arviz import PARETO_K
from vbinfer._names import PRNGKey, Theta
from vbinfer.neural.scaler import user_stacklevel
from vbinfer.neural.surrogate import AbstractSurrogate
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.importance import Smoothed, pareto_smoothed
from vbinfer.sampling.problem import Problem, problem_of

PROPOSALS = 4
"""Proposals per draw that is asked for: a heavy one is then seldom drawn twice."""


def refined(amortized: Any, x_o: Any, likelihood: Any, *, n: int, key: PRNGKey) -> Posterior:
    """Draws of a neural posterior, corrected by importance weights.

    Proposals theta_i of q(theta | x_o), i = 1 ... m with m = 4 n, and

        w_i = p(theta_i) p(x_o | theta_i) / q(theta_i | x_o),    log p(x_o) = log mean w

    The largest weights are smoothed by a Pareto tail, and n proposals are taken in proportion to them, by systematic
    resampling: each comes as often as n times its weight says, up to one.

    Args:
        amortized: a fitted posterior with `.sample`, `.prior` and `.names`.
        x_o: observed summary `[F]`.
        likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, or a fitted likelihood of the same parameters
            and features.
        n: number of draws.
        key: randomness.
    """
    n, key, began = _check.count(n, "n"), _check.key(key), time.perf_counter()
    log_likelihood = _log_likelihood(amortized, likelihood)
    k_propose, k_take = jax.random.split(key)
    proposed = amortized.sample(x_o, n=PROPOSALS * n, key=k_propose)
    theta = {name: jnp.asarray(value[0]) for name, value in proposed.theta.items()}
    problem = _problem(amortized.prior, log_likelihood, proposed.x_o)
    log_target = np.asarray(problem.run(_log_target, theta), float)
    found = _weights(log_target, np.asarray(proposed.log_prob[0], float))
    chosen = _systematic(np.exp(found.smoothed.log_weights), n, float(jax.random.uniform(k_take)))
    info = provenance(f"{proposed.info['method']}, refined", key, began) | {
        "khat": found.smoothed.pareto_k,
        "ess": min(max(found.effective * n / len(log_target), 1.0), float(n)),
        "log_weights": found.smoothed.log_weights,
        "log_evidence_error": found.error,
        "num_proposals": len(log_target),
        "not_finite": found.not_finite,
        "distinct": len(np.unique(chosen)),
        "outside_training": proposed.info["outside_training"],
    }
    _warn(found, len(log_target))
    leaves = {name: np.asarray(value)[None, chosen] for name, value in theta.items()}
    return Posterior(
        leaves,
        log_prob=log_target[None, chosen],
        x_o=proposed.x_o,
        prior=amortized.prior,
        log_evidence=found.smoothed.log_mean,
        info=info,
    )


class _Weights(NamedTuple):
    """Weights of m proposals, and what they are worth."""

    smoothed: Smoothed
    effective: float
    """(sum w)^2 / sum w^2, between 1 and m."""
    error: float
    """Standard error of the log evidence, sd(w) / (mean(w) sqrt(m))."""
    not_finite: int


def _log_likelihood(amortized: Any, likelihood: Any) -> Any:
    """A likelihood's function, its parameters and features checked."""
    if not (isinstance(likelihood, AbstractSurrogate) or hasattr(likelihood, "inputs")):
        return likelihood
    kind, prior = type(likelihood).__name__, likelihood.prior
    function = getattr(likelihood, "log_likelihood", None)
    if function is None:
        raise TypeError(
            f"refine was given a {kind}; expected (theta, x_o) -> log p(x_o | theta), or what vb.NLE() fits"
        )
    if prior.shapes != amortized.prior.shapes:
        raise ValueError(
            f"the likelihood was fitted over {prior.shapes}, the posterior over {amortized.prior.shapes}; refine with "
            "a likelihood of the same parameters"
        )
    if len(likelihood.names) != len(amortized.names):
        raise ValueError(
            f"the likelihood was trained on {len(likelihood.names)} features, the posterior on "
            f"{len(amortized.names)}; fit both to the same draws"
        )
    return function


def _problem(prior: Prior, log_likelihood: Any, x_o: np.ndarray) -> Problem:
    """The checked density, mistakes put into a sentence."""
    try:
        return problem_of(prior, log_likelihood, x_o)
    except KeyError as error:
        raise ValueError(
            f"log_likelihood asks for theta[{error}]; the posterior has {', '.join(map(repr, prior.shapes))}"
        ) from error
    except TypeError as error:
        if not callable(log_likelihood):
            raise
        raise ValueError(
            f"log_likelihood cannot be evaluated for x_o {list(x_o.shape)} and theta {prior.shapes}: {error}. Expected "
            "(theta, x_o) -> log p(x_o | theta), one number, of the same summary; data of another kind go into the "
            "function: lambda theta, _: log_likelihood(theta, y)"
        ) from error


def _log_target(problem: Problem, theta: Theta) -> Array:
    return jax.vmap(lambda one: problem.prior.log_prob(one) + problem.likelihood(one, problem.x))(theta)


def _weights(log_target: np.ndarray, log_q: np.ndarray) -> _Weights:
    """Smoothed weights.

    Raises:
        ValueError: no proposal has a weight.
    """
    m, wrong = len(log_target), np.isnan(log_target) | np.isposinf(log_target)
    log_ratio = np.where(wrong | ~np.isfinite(log_q), -np.inf, log_target - log_q)
    if not np.isfinite(log_ratio).any():
        what = "NaN or infinite" if wrong.any() else "-inf"
        raise ValueError(
            f"log_likelihood is {what} at all of {m:,} proposals, which leaves nothing to weigh. Ask whether it is "
            "that of this x_o and of the simulator that the posterior was trained on, and evaluate it at one of "
            "amortized.sample(x_o, n=10, key=key).theta"
        )
    smoothed = pareto_smoothed(log_ratio)
    weights = np.exp(smoothed.log_weights)
    effective = float(1.0 / np.sum(weights**2))
    raw = np.exp(log_ratio - log_ratio.max())
    return _Weights(smoothed, effective, float(raw.std() / raw.mean() / np.sqrt(m)), int(wrong.sum()))


def _systematic(weights: np.ndarray, n: int, u: float) -> np.ndarray:
    """Rows `[n]` in proportion to weights that sum to one."""
    # a comb of n teeth, laid once over the weights end to end: tooth j stands at (j + u) / n
    ends = np.cumsum(weights)
    return np.minimum(np.searchsorted(ends, (np.arange(n) + u) / n * ends[-1], side="right"), len(weights) - 1)


def _warn(found: _Weights, m: int) -> None:
    if found.not_finite:
        warnings.warn(
            f"log_likelihood is NaN or infinite at {found.not_finite:,} of {m:,} proposals, which get no weight: the "
            "posterior is conditional on a likelihood that can be evaluated",
            stacklevel=user_stacklevel(),
        )
    if (k := found.smoothed.pareto_k) > PARETO_K:
        warnings.warn(
            f"Pareto khat {k:.2f} is above {PARETO_K}: these draws are not reliable; start chains from them, "
            "vb.sample_mcmc(prior, log_likelihood, x_o, init=posterior, key=key), or train on more draws",
            stacklevel=user_stacklevel(),
        )
