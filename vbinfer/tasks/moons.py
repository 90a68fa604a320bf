"""Two moons: a crescent seen through an absolute value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior
from vbinfer.tasks.base import Task, rejection

_CENTRE, _RADIUS, _THICKNESS = 0.25, 0.1, 0.01


def two_moons() -> Task:
    """sbibm's two moons: sharp, curved and bimodal.

    Two parameters, two features:

    theta ~ U(-1, 1)^2; a ~ U(-pi/2, pi/2), r ~ N(0.1, 0.01^2);
    x = (r cos a + 0.25 - |theta_1 + theta_2| / sqrt 2, r sin a + (theta_2 - theta_1) / sqrt 2).

    In the rotated (s, d) = (theta_1 + theta_2, theta_2 - theta_1) / sqrt 2 the posterior is s = +-(p_1 - x_1),
    d = x_2 - p_2, with p the crescent, each sign with probability a half, within the box. The log-likelihood is
    log N(r; 0.1, 0.01^2) - log(pi r) on the half plane of the crescent.

    Greenberg, Nonnenmacher & Macke 2019, ICML, doi:10.48550/arXiv.1905.07488, as in Lueckmann et al. 2021,
    doi:10.48550/arXiv.2101.04653.
    """
    prior = Prior({"theta": dist.Uniform(-1.0, 1.0).expand([2])})
    return Task("two_moons", prior, _simulator, _log_likelihood, 2, _exact)


def _crescent(key: PRNGKey, shape: tuple[int, ...]) -> tuple[Array, Array]:
    k_angle, k_radius = jax.random.split(key)
    angle = jax.random.uniform(k_angle, shape, minval=-0.5 * jnp.pi, maxval=0.5 * jnp.pi)
    radius = _RADIUS + _THICKNESS * jax.random.normal(k_radius, shape)
    return radius * jnp.cos(angle) + _CENTRE, radius * jnp.sin(angle)


def _shift(theta: Theta) -> Array:
    first, second = theta["theta"][0], theta["theta"][1]
    return jnp.stack([-jnp.abs(first + second), second - first]) / jnp.sqrt(2.0)


def _simulator(theta: Theta, key: PRNGKey) -> Array:
    return _shift(theta) + jnp.stack(_crescent(key, ()))


def _log_likelihood(theta: Theta, x: Any) -> Array:
    across, along = jnp.asarray(x) - _shift(theta) - jnp.array([_CENTRE, 0.0])
    inside = across > 0.0
    radius = jnp.hypot(jnp.where(inside, across, 1.0), along)
    density = -0.5 * ((radius - _RADIUS) / _THICKNESS) ** 2 - jnp.log(_THICKNESS * jnp.sqrt(2.0 * jnp.pi))
    return jnp.where(inside, density - jnp.log(jnp.pi * radius), -jnp.inf)


def _exact(x: Array, n: int, key: PRNGKey) -> np.ndarray:
    def propose(key: PRNGKey) -> tuple[Array, Array]:
        k_crescent, k_sign = jax.random.split(key)
        across, along = _crescent(k_crescent, (2 * n + 100,))
        # solved for theta: in the rotated (s, d) each crescent point has two preimages, s = +-size
        size, d = across - x[0], x[1] - along
        s = jnp.where(jax.random.bernoulli(k_sign, 0.5, size.shape), size, -size)
        theta = jnp.stack([s - d, s + d], axis=1) / jnp.sqrt(2.0)
        return theta, (size >= 0.0) & jnp.all(jnp.abs(theta) <= 1.0, axis=1)

    return rejection(propose, n, key)
