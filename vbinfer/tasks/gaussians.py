"""Gaussian tasks: an asymmetric linear one, and three of sbibm.

Lueckmann, Boelts, Greenberg, Goncalves & Macke 2021, AISTATS, doi:10.48550/arXiv.2101.04653, appendix T.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior
from vbinfer.tasks.base import Task, rejection

_MEAN = np.array([1.0, -3.0, 0.5, 20.0, 0.0])
_PRIOR_COV = np.diag([4.0, 0.25, 2.25, 100.0, 0.01]) + sum(
    np.diag(neighbours, k) for k in (1, -1) for neighbours in [[-0.3, 0.2, 5.0, -0.3]]
)
_GAIN = np.array(
    [
        [1.0, 0.9, 0.6, 0.0, 0.0],
        [0.5, -1.0, 0.2, 0.0, 3.0],
        [0.0, 0.7, 0.9, 0.1, 0.0],
        [0.8, 0.0, 0.4, -0.05, 0.0],
        [0.0, 2.0, 0.0, 0.0, -8.0],
        [0.0, 0.0, -0.5, 0.2, 6.0],
        [-0.4, 1.5, 0.0, 0.0, 9.0],
        [0.3, 0.0, 0.0, 0.1, -5.0],
        [0.0, -0.6, 0.8, 0.02, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
_OFFSET = np.array([0.0, 2.0, 3.0, -2.0, 5.0, -1.0, 0.5, 8.0, -4.0, 6.0])
_NOISE_COV = np.diag([0.36, 0.64, 0.49, 0.81, 0.3, 1.0, 0.5, 0.7, 0.4, 4.0])
_NOISE_COV += 0.2 * (np.eye(10, k=1) + np.eye(10, k=-1))


def linear_gaussian() -> Task:
    """Five correlated parameters, ten correlated features, nothing symmetric.

    Scales are unequal, and the last feature is noise alone.

    theta ~ N(m, P), x = A theta + b + e, e ~ N(0, S). Posterior: N(m + K (x - A m - b), P - K A P) with the gain
    K = P A' (A P A' + S)^-1.
    """
    prior = Prior({"theta": dist.MultivariateNormal(jnp.asarray(_MEAN), jnp.asarray(_PRIOR_COV))})
    noise = np.linalg.cholesky(_NOISE_COV)
    gain = _PRIOR_COV @ _GAIN.T @ np.linalg.inv(_GAIN @ _PRIOR_COV @ _GAIN.T + _NOISE_COV)
    spread = np.linalg.cholesky(_PRIOR_COV - gain @ _GAIN @ _PRIOR_COV)

    def predict(theta: Theta) -> Any:
        return _GAIN @ theta["theta"] + _OFFSET

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        return predict(theta) + noise @ jax.random.normal(key, (len(_OFFSET),))

    def log_likelihood(theta: Theta, x: Any) -> Array:
        z = jnp.linalg.solve(noise, jnp.asarray(x) - predict(theta))
        return _normal(z, 1.0) - np.log(np.diagonal(noise)).sum()

    def exact(x: Array, n: int, key: PRNGKey) -> Array:
        mean = _MEAN + gain @ (np.asarray(x, float) - _GAIN @ _MEAN - _OFFSET)
        return jax.random.normal(key, (n, len(_MEAN))) @ spread.T + mean

    return Task("linear_gaussian", prior, simulator, log_likelihood, len(_OFFSET), exact)


_VARIANCE = 0.1
"""Of prior and noise: the benchmark calls it a scale and uses it as a variance."""


def gaussian_linear(dim: int = 10) -> Task:
    """sbibm's Gaussian linear.

    theta ~ N(0, 0.1 I), x ~ N(theta, 0.1 I). Posterior: N(x / 2, 0.05 I).
    """
    dim = _check.count(dim, "dim", 10)
    sd = float(np.sqrt(_VARIANCE))

    def exact(x: Array, n: int, key: PRNGKey) -> Array:
        return x / 2.0 + jnp.sqrt(_VARIANCE / 2.0) * jax.random.normal(key, (n, dim))

    prior = Prior({"theta": dist.Normal(0.0, sd).expand([dim])})
    return Task("gaussian_linear", prior, _add_noise, _noise_density, dim, exact)


def gaussian_linear_uniform(dim: int = 10) -> Task:
    """sbibm's Gaussian linear uniform.

    theta ~ U(-1, 1), x ~ N(theta, 0.1 I). Posterior: N(x, 0.1 I) within the box.
    """
    dim = _check.count(dim, "dim", 10)
    sd = float(np.sqrt(_VARIANCE))

    def exact(x: Array, n: int, key: PRNGKey) -> Array:
        return x + sd * jax.random.truncated_normal(key, (-1.0 - x) / sd, (1.0 - x) / sd, (n, dim))

    prior = Prior({"theta": dist.Uniform(-1.0, 1.0).expand([dim])})
    return Task("gaussian_linear_uniform", prior, _add_noise, _noise_density, dim, exact)


_WIDE, _NARROW, _BOX = 1.0, 0.1, 10.0


def gaussian_mixture(dim: int = 2) -> Task:
    """sbibm's Gaussian mixture.

    theta ~ U(-10, 10), x ~ N(theta, I) / 2 + N(theta, 0.01 I) / 2. The posterior is the same mixture around x, within
    the box.
    """
    dim = _check.count(dim, "dim", 10)
    scales = np.array([_WIDE, _NARROW])

    def mix(key: PRNGKey, shape: tuple[int, ...]) -> Array:
        k_which, k_noise = jax.random.split(key)
        scale = jnp.where(jax.random.bernoulli(k_which, 0.5, (*shape, 1)), _WIDE, _NARROW)
        return scale * jax.random.normal(k_noise, (*shape, dim))

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        return theta["theta"] + mix(key, ())

    def log_likelihood(theta: Theta, x: Any) -> Array:
        offset = jnp.asarray(x) - theta["theta"]
        return jnp.logaddexp(*(_normal(offset, scale) for scale in scales)) - jnp.log(2.0)

    def exact(x: Array, n: int, key: PRNGKey) -> np.ndarray:
        def propose(key: PRNGKey) -> tuple[Array, Array]:
            rows = x + mix(key, (2 * n + 100,))
            return rows, jnp.all(jnp.abs(rows) <= _BOX, axis=1)

        return rejection(propose, n, key)

    prior = Prior({"theta": dist.Uniform(-_BOX, _BOX).expand([dim])})
    return Task("gaussian_mixture", prior, simulator, log_likelihood, dim, exact)


def _add_noise(theta: Theta, key: PRNGKey) -> Array:
    return theta["theta"] + jnp.sqrt(_VARIANCE) * jax.random.normal(key, theta["theta"].shape)


def _noise_density(theta: Theta, x: Any) -> Array:
    return _normal(jnp.asarray(x) - theta["theta"], jnp.sqrt(_VARIANCE))


def _normal(offset: Array, sd: Array | float) -> Array:
    """log N(offset; 0, sd^2 I), one number."""
    return jnp.sum(-0.5 * (offset / sd) ** 2 - jnp.log(sd) - 0.5 * jnp.log(2.0 * jnp.pi))
