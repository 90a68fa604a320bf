"""Importance ratios of a posterior to a fitted density."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from vbinfer._arviz import PARETO_K
from vbinfer.posterior import Posterior
from vbinfer.sampling.problem import Problem, constrained
from vbinfer.sampling.store import numbers


class Smoothed(NamedTuple):
    """Smoothed importance weights.

    Attributes:
        log_weights: `[n]`; the weights sum to one.
        pareto_k: shape of the tail of the raw weights.
        log_mean: log of the mean raw weight.
    """

    log_weights: np.ndarray
    pareto_k: float
    log_mean: float


def pareto_smoothed(log_ratios: np.ndarray) -> Smoothed:
    """Pareto-smoothed importance weights.

    Of ratios log p - log q at draws of q `[n]`; -inf where p has no density. The largest M = min(n / 5, 3 sqrt(n))
    ratios are replaced by the quantiles (j - 1/2) / M of a generalised Pareto distribution fitted to their excess
    over the next one, none above the largest ratio. Its shape k says how good q is: below 0.5 weights have a
    variance, above 0.7 averages over them are not to be trusted.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry 2024, J. Mach. Learn. Res. 25(72), arXiv:1507.02646.
    """
    log_ratios = np.where(np.isfinite(log_ratios), np.asarray(log_ratios, float), -np.inf)
    n = len(log_ratios)
    top = log_ratios.max()
    if not np.isfinite(top):
        raise ValueError("the posterior is finite at no draw of q; narrow the prior, or use vb.sampling.TemperedSMC()")
    weights = np.exp(log_ratios - top)
    log_mean = float(top + np.log(weights.mean()))
    tail = int(np.ceil(min(n / 5, 3 * np.sqrt(n))))
    k = np.inf
    if tail >= 5:
        largest = np.argsort(weights, kind="stable")[-tail:]
        threshold = np.partition(weights, -tail - 1)[-tail - 1]
        excess = weights[largest] - threshold
        if excess[-1] <= 1e-6 * max(threshold, 1e-300):  # all ratios equal: q is the posterior
            k = -np.inf
        elif np.count_nonzero(excess > 0) >= 5:
            k, sigma = _fit_pareto(excess[excess > 0])
            p = (np.arange(tail) + 0.5) / tail
            quantiles = threshold + sigma * (np.expm1(-k * np.log1p(-p)) / k if k else -np.log1p(-p))
            weights[largest] = np.minimum(quantiles, 1.0)
    with np.errstate(divide="ignore"):
        return Smoothed(np.log(weights) - np.log(weights.sum()), float(k), log_mean)


# ArviZ has the same fit, but not the same function: 1.x takes ratios of the other sign and refuses -inf, which stands
# here for draws outside the support, and importing it would double the time of a quick look by `pathfinder`.
def _fit_pareto(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a Pareto tail.

    From ascending excesses.
    Zhang & Stephens 2009, Technometrics 51, doi:10.1198/tech.2009.08017: the mean of b = -k / sigma under its profile
    likelihood and their prior, on a grid; k then shrunk towards 0.5 with the weight of ten draws.
    """
    n = len(excess)
    size = 30 + int(np.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    b = 1.0 / excess[-1] + (1.0 - np.sqrt(size / (np.arange(1, size + 1) - 0.5))) / (3.0 * quartile)
    shapes = np.log1p(-b[:, None] * excess).mean(axis=1)
    profile = n * (np.log(-b / shapes) - shapes - 1.0)
    weight = np.exp(profile - profile.max())
    best = float((b * weight).sum() / weight.sum())
    k = float(np.log1p(-best * excess).mean())
    sigma = -k / best
    return (n * k + 5.0) / (n + 10.0), sigma


def _log_target(problem: Problem, z: Array) -> Array:
    return jax.vmap(problem.log_density)(z)


def weighed(problem: Problem, z: Array, log_q: Array, method: str) -> tuple[np.ndarray, Smoothed]:
    """Raw and smoothed log ratios at draws of q.

    Warns of a large k.
    """
    target = np.asarray(problem.run(_log_target, z), float)
    ratios = np.where(np.isfinite(target), target, -np.inf) - np.asarray(log_q, float)
    smoothed = pareto_smoothed(ratios)
    warn_of_k(smoothed.pareto_k, method, stacklevel=4)
    return ratios, smoothed


def warn_of_k(k: float, method: str, stacklevel: int = 3) -> None:
    """Warn that Pareto k is too large."""
    if k > PARETO_K:
        warnings.warn(
            f"Pareto k is {k:.2f}, above {PARETO_K}: the density that {method} fitted is far from the posterior, and "
            "its draws and evidence are not to be trusted; sample with vb.sample_mcmc (init=this posterior starts it)",
            stacklevel=stacklevel,
        )


def posterior_over_theta(
    problem: Problem, z: Array, log_q: Array | None, log_evidence: float | None, info: dict[str, Any]
) -> Posterior:
    """A posterior of one chain from draws `[n, Dz]`.

    log q(theta) = log q(z) - log|d theta / d z|
    """
    theta, logdet = constrained(problem.prior, z[None])
    log_prob = None if log_q is None else np.asarray(log_q) - logdet
    return Posterior(theta, log_prob, None, numbers(problem.x_o), problem.prior, log_evidence, info)
