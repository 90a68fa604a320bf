"""How well is each observation predicted from the others?"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.execute.batches import map_batches
from vbinfer.posterior import Posterior
from vbinfer.sampling.importance import pareto_smoothed

from .figure import Axis, Figure, Panel, Points, Rule
from .result import AbstractResult, Status, percent
from .thresholds import MANY_HIGH_K, PARETO_K, PARETO_K_FAIL

_WIDTH = 256
_FEWEST = 100


@dataclasses.dataclass(frozen=True)
class Loo(AbstractResult):
    """Result of `vb.diagnostics.loo`.

    Attributes:
        verdict: `warn` when some Pareto k is above `threshold`, `fail` when more than a tenth are, or one above 1.
        findings: sentences.
        elpd: expected log pointwise predictive density, sum of `pointwise`; higher predicts better.
        se: its standard error over observations.
        p_loo: effective number of parameters, log pointwise density in the sample minus `elpd`.
        pointwise: log p(y_i | y_-i) `[n_obs]`.
        pareto_k: how heavy the tail of the importance weights of each observation is `[n_obs]`.
        threshold: min(1 - 1 / log10(S), 0.7) for S draws.
        pit: P(y_rep,i <= y_i | y_-i) `[n_obs]`, uniform for a calibrated model; None without `replicate`.
    """

    question = "Can leave-one-out prediction be believed?"
    rule = (
        f"Warn: a Pareto k is above its threshold, at most {PARETO_K:g}. Fail: more than {percent(MANY_HIGH_K)} are, "
        f"or one above {PARETO_K_FAIL:g}."
    )
    beside = ("pit",)
    verdict: Status
    findings: tuple[str, ...]
    elpd: float
    se: float
    p_loo: float
    pointwise: np.ndarray
    pareto_k: np.ndarray
    threshold: float
    pit: np.ndarray | None = None

    def figure(self) -> Figure:
        """Pareto k of each observation, and the threshold."""
        n = len(self.pareto_k)
        panel = Panel(
            (Rule(self.threshold, "y", "observed", dashed=True), Points(np.arange(n), self.pareto_k, marker="dot")),
            Axis("observation"),
            Axis("Pareto k"),
            f"Pareto k of {n} observations, largest {self.pareto_k.max():.2g}, threshold {self.threshold:.2g}",
        )
        return Figure(
            [panel], f"How much each of {n} observations decides the posterior; above the line too much.", "large"
        )


def loo(
    posterior: Posterior,
    pointwise_log_likelihood: Callable[..., Any],
    *,
    replicate: Callable[..., Any] | None = None,
    key: PRNGKey | None = None,
) -> Loo:
    """Leave-one-out predictive density by Pareto-smoothed importance sampling.

        elpd = sum_i log p(y_i | y_-i),   p(y_i | y_-i) = sum_s w_is p(y_i | theta_s),   w_is ~ 1 / p(y_i | theta_s)

    with the largest weights of each i smoothed. Observations must be independent given theta: for a time series this
    is interpolation between neighbours, not forecasting, and it flatters models that only follow the noise. Blind to
    observations that all models miss alike.

    Args:
        posterior: draws of a Monte-Carlo posterior, with `x_o`.
        pointwise_log_likelihood: `(theta, x_o) -> [n_obs]`, log p(y_i | theta), a JAX function. Numbers that are NaN
            in x_o, and 0 here, are missing and left out.
        replicate: `(theta, key) -> y [n_obs]` draws new observations; adds LOO-PIT.
        key: for `replicate`.

    Raises:
        ValueError: no `x_o`, fewer than 100 draws, a likelihood that is no vector or not finite at every draw.

    Vehtari, Gelman & Gabry 2017, doi:10.1007/s11222-016-9696-4; Vehtari, Simpson, Gelman, Yao & Gabry 2024,
    J. Mach. Learn. Res. 25(72).

    Example:
        found = vb.diagnostics.loo(posterior, lambda theta, y: dist.Normal(theta["mu"], 1.0).log_prob(y))
        found.elpd, found.se, found.pareto_k.max()
    """
    total = posterior.num_chains * posterior.num_samples
    if posterior.x_o is None:
        raise ValueError("this posterior has no x_o; write vb.Posterior(theta, x_o=y)")
    if total < _FEWEST:
        raise ValueError(f"this posterior has {total} draws; loo needs {_FEWEST} or more, better 1,000")
    if replicate is not None and key is None:
        raise ValueError(
            "replicate was given without a key; write vb.diagnostics.loo(..., replicate=f, key=jax.random.key(0))"
        )
    theta = {name: value.reshape(total, *value.shape[2:]) for name, value in posterior.theta.items()}
    x_o = jnp.asarray(posterior.x_o)
    log_lik = _at_draws(lambda one, _: pointwise_log_likelihood(one, x_o), theta, None).T
    bad = int(np.sum(~np.isfinite(log_lik).all(axis=0)))
    if bad:
        raise ValueError(
            f"the pointwise log likelihood is not finite at {bad} of {total} draws; these draws are not of this "
            "likelihood's posterior, or it needs a guard against underflow"
        )
    y_o, there = np.asarray(posterior.x_o), _observed(np.asarray(posterior.x_o), log_lik)
    log_lik = log_lik[there]
    # p(theta | y_-i) is the posterior divided by p(y_i | theta): weights 1 / likelihood
    smoothed = [pareto_smoothed(-row) for row in log_lik]
    log_weights, pareto_k = (np.stack([getattr(one, part) for one in smoothed]) for part in ("log_weights", "pareto_k"))
    pit = None
    if replicate is not None:
        y = _at_draws(replicate, theta, jax.random.split(_check.key(key), total))
        if y.shape[1] != len(there):
            raise ValueError(f"replicate returned {list(y.shape[1:])}; the likelihood has [{len(there)}] observations")
        pit = _pit(y_o.reshape(len(there))[there], y[:, there], log_weights)
    pointwise = np.asarray(logsumexp(log_weights + log_lik, axis=1))
    # mean over draws of the likelihood of each observation, in logs
    in_sample = np.asarray(logsumexp(log_lik, axis=1)) - np.log(total)
    # with few draws even a moderate k cannot be smoothed (Vehtari et al. 2024)
    threshold = min(1.0 - 1.0 / np.log10(total), PARETO_K)
    return _judged(pointwise, in_sample, pareto_k, threshold, pit)


def _judged(
    pointwise: np.ndarray, in_sample: np.ndarray, pareto_k: np.ndarray, threshold: float, pit: np.ndarray | None
) -> Loo:
    n, high, largest = len(pointwise), int(np.sum(pareto_k > threshold)), float(pareto_k.max())
    elpd, se = float(pointwise.sum()), float(np.sqrt(n * np.var(pointwise, ddof=1))) if n > 1 else float("inf")
    p_loo = float(in_sample.sum() - elpd)
    said = [
        f"Left out one at a time, {n} observations have a log predictive density of {elpd:.4g} (se {se:.2g}); the "
        f"model uses {p_loo:.2g} effective parameters."
    ]
    if high:
        said.append(
            f"{high} of {n} observations decide the posterior so much that it cannot stand in for the one without "
            f"them (Pareto k above {threshold:.2g}, largest {largest:.2g} at observation {pareto_k.argmax()}): the "
            "density is unreliable there; fit again without them, and look at these observations."
        )
    failed = high > MANY_HIGH_K * n or largest > PARETO_K_FAIL
    status: Status = "fail" if failed else "warn" if high else "pass"
    return Loo(status, tuple(said), elpd, se, p_loo, pointwise, pareto_k, threshold, pit)


def _pit(y_o: np.ndarray, y: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """Leave-one-out P(y_rep <= y_o) of each observation.

    Of replicates `[S, n_obs]` and log weights `[n_obs, S]`.
    """
    return np.sum(np.exp(log_weights) * (y_o[:, None] >= y.T), axis=1)


def _observed(y_o: np.ndarray, log_lik: np.ndarray) -> np.ndarray:
    """Mask of the observations that were made `[n_obs]`.

    A NaN in x_o to which the likelihood gives 0 at every draw is a missing one: no observation of log density 0.
    """
    there = np.ones(len(log_lik), bool)
    if y_o.size == len(log_lik):
        there = ~(np.isnan(y_o.ravel().astype(float)) & (log_lik == 0.0).all(axis=1))
    if not there.any():
        raise ValueError("every number of x_o is missing (NaN); leave-one-out needs observations")
    return there


def _at_draws(f: Callable[..., Any], theta: dict[str, np.ndarray], keys: Any) -> np.ndarray:
    """`f(theta, key)` at every draw `[S, n_obs]`, in batches."""
    run = jax.jit(jax.vmap(f, in_axes=(0, None if keys is None else 0)))

    def batch(rows: np.ndarray) -> np.ndarray:
        some = {name: jnp.asarray(value[rows]) for name, value in theta.items()}
        return np.asarray(run(some, None if keys is None else keys[rows]), float)

    values = map_batches(batch, len(next(iter(theta.values()))), _WIDTH)
    if values.ndim != 2:
        raise ValueError(
            f"the function returned {list(values.shape[1:])} for one draw; expected [n_obs]: one number per "
            "observation, so no .sum(), and .ravel() for a matrix"
        )
    return values
