"""Linear regression with known noise and independent normal priors: posterior and evidence in closed form, float64."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy.stats import multivariate_normal

from vbinfer.priors import Prior


class Regression(NamedTuple):
    prior: Prior
    log_likelihood: object
    y: object
    mean: np.ndarray
    covariance: np.ndarray
    precision: np.ndarray
    log_evidence: float


def regression(width: int, seed: int = 0, rows: int = 15) -> Regression:
    """`y = A b + noise`, b of `width` correlated coefficients with unequal prior means and widths."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(rows, width))
    centre, spread = rng.normal(size=width), rng.uniform(0.5, 2.0, width)
    noise = rng.uniform(0.3, 1.0, rows)
    y = (design @ (centre + spread * rng.normal(size=width)) + noise * rng.normal(size=rows)).astype(np.float32)
    precision = np.diag(spread**-2) + (design.T / noise**2) @ design
    covariance = np.linalg.inv(precision)
    mean = covariance @ (centre / spread**2 + design.T @ (y / noise**2))
    marginal = (design * spread**2) @ design.T + np.diag(noise**2)
    evidence = float(multivariate_normal.logpdf(y, design @ centre, marginal))
    prior = Prior({"b": dist.Normal(jnp.asarray(centre), jnp.asarray(spread))})
    gains, scale = jnp.asarray(design), jnp.asarray(noise)

    def log_likelihood(theta, data):
        return dist.Normal(gains @ theta["b"], scale).log_prob(data).sum()

    return Regression(prior, log_likelihood, jnp.asarray(y), mean, covariance, precision, evidence)
