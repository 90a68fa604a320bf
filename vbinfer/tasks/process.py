"""Ornstein-Uhlenbeck process: drift with a Gaussian posterior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior
from vbinfer.tasks.base import Task

_DT, _STEPS, _START, _SIGMA = 0.1, 200, 3.0, 0.8
_MEAN, _SD = np.array([1.0, 1.5]), np.array([0.6, 0.5])


def ou() -> Task:
    """Drift of an Ornstein-Uhlenbeck process.

    dy = (a - g y) dt + 0.8 dW from y_0 = 3, 200 Euler-Maruyama steps of 0.1.

    theta = (a, g), a ~ N(1, 0.6^2), g ~ N(1.5, 0.5^2). With d_k = y_(k+1) - y_k the features are the sufficient
    statistics x = (sum y_k, sum y_k^2, sum d_k, sum y_k d_k) / 200, and the posterior is Gaussian: with R = [1, -y_k],
    precision P^-1 + R' R dt / sigma^2, mean by P^-1 m + R' d / sigma^2. The log-likelihood is that of the path up to
    a constant of theta.
    """
    prior = Prior({"theta": dist.Normal(jnp.asarray(_MEAN), jnp.asarray(_SD))})
    return Task("ou", prior, _simulator, _log_likelihood, 4, _exact)


def _simulator(theta: Theta, key: PRNGKey) -> Array:
    a, g = theta["theta"][0], theta["theta"][1]
    noise = _SIGMA * jnp.sqrt(_DT) * jax.random.normal(key, (_STEPS,), dtype=a.dtype)

    def step(y: Array, e: Array) -> tuple[Array, Array]:
        # the path is not kept: only the four sums that are sufficient for (a, g)
        d = (a - g * y) * _DT + e
        return y + d, jnp.stack([y, y**2, d, y * d])

    return jnp.mean(jax.lax.scan(step, jnp.full((), _START, dtype=a.dtype), noise)[1], axis=0)


def _log_likelihood(theta: Theta, x: Any) -> Array:
    a, g = theta["theta"][0], theta["theta"][1]
    y, yy, d, yd = jnp.asarray(x)
    drift_d, drift_drift = a * d - g * yd, a**2 - 2.0 * a * g * y + g**2 * yy
    return _STEPS * (drift_d - 0.5 * drift_drift * _DT) / _SIGMA**2


def _exact(x: Array, n: int, key: PRNGKey) -> Array:
    y, yy, d, yd = np.asarray(x, float) * _STEPS / _SIGMA**2
    precision = np.diag(_SD**-2.0) + _DT * np.array([[_STEPS / _SIGMA**2, -y], [-y, yy]])
    mean = np.linalg.solve(precision, _SD**-2.0 * _MEAN + np.array([d, -yd]))
    spread = np.linalg.cholesky(np.linalg.inv(precision))
    return jax.random.normal(key, (n, 2)) @ spread.T + mean
