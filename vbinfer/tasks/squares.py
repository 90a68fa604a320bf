"""Simple likelihood, complex posterior (SLCP)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior
from vbinfer.tasks.base import Task

_POINTS, _JITTER = 4, 1e-6


def slcp() -> Task:
    """sbibm's SLCP: five parameters, eight features, four symmetric modes.

    The modes are the signs of theta_3 and theta_4:

    theta ~ U(-3, 3)^5; four points y ~ N((theta_1, theta_2), S) with standard deviations s_1 = theta_3^2,
    s_2 = theta_4^2, correlation tanh theta_5, and 10^-6 added to both variances; x = (y_11, y_12, y_21, ..., y_42).

    Papamakarios, Sterratt & Murray 2019, AISTATS, doi:10.48550/arXiv.1805.07226, with the prior of Lueckmann et al.
    2021, doi:10.48550/arXiv.2101.04653.
    """
    prior = Prior({"theta": dist.Uniform(-3.0, 3.0).expand([5])})
    return Task("slcp", prior, _simulator, _log_likelihood, 2 * _POINTS)


def _factor(theta: Array) -> tuple[Array, Array, Array]:
    """The Cholesky factor of S, (l_11, l_21, l_22)."""
    s1, s2, rho = theta[2] ** 2, theta[3] ** 2, jnp.tanh(theta[4])
    l11 = jnp.sqrt(s1**2 + _JITTER)
    # l_22^2 = s_2^2 + j - l_21^2, without its cancellation when rho is near 1
    l22 = jnp.sqrt(s2**2 * (s1**2 * (1.0 - rho**2) + _JITTER) / l11**2 + _JITTER)
    return l11, rho * s1 * s2 / l11, l22


def _simulator(theta: Theta, key: PRNGKey) -> Array:
    l11, l21, l22 = _factor(theta["theta"])
    e = jax.random.normal(key, (_POINTS, 2))
    points = theta["theta"][:2] + jnp.stack([l11 * e[:, 0], l21 * e[:, 0] + l22 * e[:, 1]], axis=1)
    return points.reshape(-1)


def _log_likelihood(theta: Theta, x: Any) -> Array:
    l11, l21, l22 = _factor(theta["theta"])
    offset = jnp.asarray(x).reshape(_POINTS, 2) - theta["theta"][:2]
    first = offset[:, 0] / l11
    second = (offset[:, 1] - l21 * first) / l22
    return -0.5 * jnp.sum(first**2 + second**2) - _POINTS * jnp.log(2.0 * jnp.pi * l11 * l22)
