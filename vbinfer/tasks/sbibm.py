"""Two moons, SLCP and the Bernoulli GLM of sbibm.

Lueckmann, Boelts, Greenberg, Goncalves & Macke 2021, AISTATS, doi:10.48550/arXiv.2101.04653, appendix T.
"""

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
    return Task("two_moons", prior, _moons_simulator, _moons_density, 2, _moons_posterior)


def _crescent(key: PRNGKey, shape: tuple[int, ...]) -> tuple[Array, Array]:
    k_angle, k_radius = jax.random.split(key)
    angle = jax.random.uniform(k_angle, shape, minval=-0.5 * jnp.pi, maxval=0.5 * jnp.pi)
    radius = _RADIUS + _THICKNESS * jax.random.normal(k_radius, shape)
    return radius * jnp.cos(angle) + _CENTRE, radius * jnp.sin(angle)


def _shift(theta: Theta) -> Array:
    first, second = theta["theta"][0], theta["theta"][1]
    return jnp.stack([-jnp.abs(first + second), second - first]) / jnp.sqrt(2.0)


def _moons_simulator(theta: Theta, key: PRNGKey) -> Array:
    return _shift(theta) + jnp.stack(_crescent(key, ()))


def _moons_density(theta: Theta, x: Any) -> Array:
    across, along = jnp.asarray(x) - _shift(theta) - jnp.array([_CENTRE, 0.0])
    inside = across > 0.0
    radius = jnp.hypot(jnp.where(inside, across, 1.0), along)
    density = -0.5 * ((radius - _RADIUS) / _THICKNESS) ** 2 - jnp.log(_THICKNESS * jnp.sqrt(2.0 * jnp.pi))
    return jnp.where(inside, density - jnp.log(jnp.pi * radius), -jnp.inf)


def _moons_posterior(x: Array, n: int, key: PRNGKey) -> np.ndarray:
    def propose(key: PRNGKey) -> tuple[Array, Array]:
        k_crescent, k_sign = jax.random.split(key)
        across, along = _crescent(k_crescent, (2 * n + 100,))
        # solved for theta: in the rotated (s, d) each crescent point has two preimages, s = +-size
        size, d = across - x[0], x[1] - along
        s = jnp.where(jax.random.bernoulli(k_sign, 0.5, size.shape), size, -size)
        theta = jnp.stack([s - d, s + d], axis=1) / jnp.sqrt(2.0)
        return theta, (size >= 0.0) & jnp.all(jnp.abs(theta) <= 1.0, axis=1)

    return rejection(propose, n, key)


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
    return Task("slcp", prior, _slcp_simulator, _slcp_density, 2 * _POINTS)


def _factor(theta: Array) -> tuple[Array, Array, Array]:
    """The Cholesky factor of S, (l_11, l_21, l_22)."""
    s1, s2, rho = theta[2] ** 2, theta[3] ** 2, jnp.tanh(theta[4])
    l11 = jnp.sqrt(s1**2 + _JITTER)
    # l_22^2 = s_2^2 + j - l_21^2, without its cancellation when rho is near 1
    l22 = jnp.sqrt(s2**2 * (s1**2 * (1.0 - rho**2) + _JITTER) / l11**2 + _JITTER)
    return l11, rho * s1 * s2 / l11, l22


def _slcp_simulator(theta: Theta, key: PRNGKey) -> Array:
    l11, l21, l22 = _factor(theta["theta"])
    e = jax.random.normal(key, (_POINTS, 2))
    points = theta["theta"][:2] + jnp.stack([l11 * e[:, 0], l21 * e[:, 0] + l22 * e[:, 1]], axis=1)
    return points.reshape(-1)


def _slcp_density(theta: Theta, x: Any) -> Array:
    l11, l21, l22 = _factor(theta["theta"])
    offset = jnp.asarray(x).reshape(_POINTS, 2) - theta["theta"][:2]
    first = offset[:, 0] / l11
    second = (offset[:, 1] - l21 * first) / l22
    return -0.5 * jnp.sum(first**2 + second**2) - _POINTS * jnp.log(2.0 * jnp.pi * l11 * l22)


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

    def simulator(theta: Theta, key: PRNGKey) -> Any:
        spikes = jax.random.bernoulli(key, jax.nn.sigmoid(design @ theta["theta"]))
        return design.T @ spikes.astype(theta["theta"].dtype)

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return jnp.asarray(x) @ theta["theta"] - jnp.sum(jax.nn.softplus(design @ theta["theta"]))

    covariance = jnp.asarray(np.linalg.inv(precision))
    prior = Prior({"theta": dist.MultivariateNormal(jnp.zeros(_FILTER + 1), covariance)})
    return Task("bernoulli_glm", prior, simulator, log_likelihood, _FILTER + 1)


def bernoulli_glm_raw() -> Task:
    """The Bernoulli GLM of sbibm, 100 bins as features.

    x = y, the spikes themselves; the posterior is that of `bernoulli_glm` for x = V' y.

    Lueckmann et al. 2021, doi:10.48550/arXiv.2101.04653.
    """
    task, design = bernoulli_glm(), design_matrix()

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        spikes = jax.random.bernoulli(key, jax.nn.sigmoid(design @ theta["theta"]))
        return spikes.astype(theta["theta"].dtype)

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return task.log_likelihood(theta, design.T @ jnp.asarray(x))

    return Task("bernoulli_glm_raw", task.prior, simulator, log_likelihood, _BINS)


def design_matrix() -> np.ndarray:
    """V `[100, 10]`: ones, and the delayed stimulus."""
    # NumPy's old generator is frozen, and with it the stimulus
    stimulus = np.random.RandomState(_SEED).randn(_BINS).astype(np.float32)
    delayed = [np.concatenate([np.zeros(lag, np.float32), stimulus[: _BINS - lag]]) for lag in range(_FILTER)]
    return np.stack([np.ones(_BINS, np.float32), *delayed], axis=1)
