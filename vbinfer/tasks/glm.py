"""Bernoulli GLM: a neuron driven by filtered white noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior
from vbinfer.tasks.base import Task

_BINS, _FILTER, _SEED = 100, 9, 42


def bernoulli_glm() -> Task:
    """sbibm's Bernoulli GLM with sufficient statistics.

    An offset, a filter of 9 taps and 10 features:

    y_t ~ Bernoulli(sigmoid(V theta)_t) in 100 bins, V = [1, I_t, I_(t-1), ..., I_(t-8)] with a frozen standard normal
    stimulus I that is 0 before its start; x = V' y: the number of spikes and the spike-triggered sums of the stimulus.
    theta ~ N(0, B): the offset with variance 2, the filter with precision F' F, F = D D + diag(sqrt(i / 9)), i = 0..8,
    D the first difference.

    Since x is sufficient, log p(x | theta) = x' theta - sum_t log(1 + exp(V theta)_t) up to a constant of theta.

    Lueckmann, Goncalves et al. 2017, NeurIPS, doi:10.48550/arXiv.1711.01861, as in Lueckmann et al. 2021,
    doi:10.48550/arXiv.2101.04653.
    """
    design = design_matrix()
    difference = np.eye(_FILTER) - np.eye(_FILTER, k=-1)
    smooth = difference @ difference + np.diag(np.sqrt(np.arange(_FILTER) / _FILTER))
    precision = np.zeros((_FILTER + 1, _FILTER + 1))
    precision[0, 0], precision[1:, 1:] = 0.5, smooth.T @ smooth

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        spikes = jax.random.bernoulli(key, jax.nn.sigmoid(jnp.asarray(design) @ theta["theta"]))
        return jnp.asarray(design).T @ spikes.astype(theta["theta"].dtype)

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return jnp.asarray(x) @ theta["theta"] - jnp.sum(jax.nn.softplus(jnp.asarray(design) @ theta["theta"]))

    covariance = jnp.asarray(np.linalg.inv(precision))
    prior = Prior({"theta": dist.MultivariateNormal(jnp.zeros(_FILTER + 1), covariance)})
    return Task("bernoulli_glm", prior, simulator, log_likelihood, _FILTER + 1)


def design_matrix() -> np.ndarray:
    """V `[100, 10]`: ones, and the delayed stimulus."""
    # NumPy's old generator is frozen, and with it the stimulus
    stimulus = np.random.RandomState(_SEED).randn(_BINS).astype(np.float32)
    delayed = [np.concatenate([np.zeros(lag, np.float32), stimulus[: _BINS - lag]]) for lag in range(_FILTER)]
    return np.stack([np.ones(_BINS, np.float32), *delayed], axis=1)
