"""A problem whose posterior is known: three correlated parameters, six features, one of them pure noise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vbinfer.draws.draws import Draws
from vbinfer.priors import Prior

MEAN = np.array([1.0, -3.0, 0.5])
PRIOR_COV = np.array([[4.0, 0.0, 0.0], [0.0, 0.25, 0.2], [0.0, 0.2, 2.25]])
GAINS = np.array([[1.0, 0.5, 0.0, 0.8, 0.0, 0.0], [0.9, -1.0, 0.7, 0.0, 0.0, 0.0], [0.6, 0.2, 0.9, 0.4, 0.0, 0.0]])
OFFSET = np.array([0.0, 0.0, 3.0, -2.0, 100.0, 5.0])
NOISE = np.array([0.6, 0.8, 0.7, 0.9, 2.0, 0.0])  # the fifth feature is noise, the sixth a constant
NAMES = ("fc.mean", "fc.sd", "fcd.var", "psd.peak", "noise", "constant")
_TOLD = NOISE > 0
PRECISION = np.linalg.inv(PRIOR_COV) + (GAINS[:, _TOLD] / NOISE[_TOLD] ** 2) @ GAINS[:, _TOLD].T
COV = np.linalg.inv(PRECISION)
EXPECTED_LOG_POSTERIOR = -0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * COV)[1]


def make_prior():
    joint = dist.MultivariateNormal(jnp.array(MEAN[1:]), jnp.array(PRIOR_COV[1:, 1:]))
    return Prior({"coupling.G": dist.Normal(MEAN[0], 2.0), "model.eta": joint})


def simulate(prior, key, n):
    k_theta, k_noise = jax.random.split(key)
    theta = prior.sample(key=k_theta, n=n)
    noise = NOISE * np.asarray(jax.random.normal(k_noise, (n, len(NOISE))))
    return theta, (np.asarray(prior.ravel(theta)) @ GAINS + OFFSET + noise).astype(np.float32)


def make_draws(prior, n, seed=0):
    theta, x = simulate(prior, jax.random.key(seed), n)
    return Draws.from_arrays({name: np.asarray(value) for name, value in theta.items()}, x, names=NAMES)


def posterior_mean(x_o):
    told = GAINS[:, _TOLD] / NOISE[_TOLD] ** 2
    return COV @ (np.linalg.solve(PRIOR_COV, MEAN) + told @ (np.asarray(x_o) - OFFSET)[_TOLD])
