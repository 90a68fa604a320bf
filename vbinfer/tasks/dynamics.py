"""The epidemic and the predator-prey system of sbibm.

Lueckmann, Boelts, Greenberg, Goncalves & Macke 2021, AISTATS, doi:10.48550/arXiv.2101.04653, appendix T.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer._ode import rk4
from vbinfer.priors.prior import Prior
from vbinfer.tasks.base import Task

_SEEN = 10
"""Observed times, the initial one included."""


def _solve(field: Callable[[Array], Array], start: Array, dt: float, steps: int) -> Array:
    """States `[10, D]`, so many steps apart."""

    def between(state: Array, _: None) -> tuple[Array, Array]:
        step = lambda _, x: rk4(lambda _, y: field(y), x, dt)  # noqa: E731
        # not a while loop: reverse-mode derivatives want a known number of steps
        return jax.lax.fori_loop(0, steps, step, state), state

    return jax.lax.scan(between, start, None, length=_SEEN)[1]


_TESTED, _PEOPLE = 1_000, 1e6


def sir() -> Task:
    """sbibm's SIR epidemic: two rates, ten counts.

    ds/dt = -beta s i;  di/dt = beta s i - gamma i, in shares of a million people of whom one is infected at first;
    x_k ~ Binomial(1000, i(17 k days)), k = 0..9;  beta ~ LogNormal(log 0.4, 0.5), gamma ~ LogNormal(log 0.125, 0.2).

    Kermack & McKendrick 1927, Proc R Soc A 115, doi:10.1098/rspa.1927.0118.
    """
    prior = Prior({"theta": dist.LogNormal(jnp.log(jnp.array([0.4, 0.125])), jnp.array([0.5, 0.2]))})

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        return jax.random.binomial(key, float(_TESTED), _infected(theta["theta"]))

    def log_likelihood(theta: Theta, x: Any) -> Array:
        share = jnp.clip(_infected(theta["theta"]), 1e-12, 1.0 - 1e-7)
        return jnp.sum(dist.Binomial(_TESTED, probs=share).log_prob(jnp.asarray(x)))

    return Task("sir", prior, simulator, log_likelihood, _SEEN)


def _infected(theta: Array) -> Array:
    """Share of infected people `[10]`, 17 days apart."""
    beta, gamma = theta[0], theta[1]

    def field(state: Array) -> Array:
        # logarithms: the number of infected falls over many orders of magnitude
        s, i = jnp.exp(state)
        return jnp.stack([-beta * i, beta * s - gamma])

    start = jnp.log(jnp.array([1.0 - 1.0 / _PEOPLE, 1.0 / _PEOPLE]))
    return jnp.clip(jnp.exp(_solve(field, start, 0.25, 68)[:, 1]), 0.0, 1.0)


_ERROR = 0.1


def lotka_volterra() -> Task:
    """sbibm's Lotka-Volterra system: four rates, twenty counts.

    dx/dt = alpha x - beta x y;  dy/dt = -gamma y + delta x y, from (30, 1); x and then y at t = 0, 2.1, ..., 18.9, each
    LogNormal(log of it within [1e-10, 1e4], 0.1);  alpha, gamma ~ LogNormal(-0.125, 0.5),
    beta, delta ~ LogNormal(-3, 0.5).

    Lotka 1920, PNAS 6, doi:10.1073/pnas.6.7.410.
    """
    prior = Prior({"theta": dist.LogNormal(jnp.array([-0.125, -3.0, -0.125, -3.0]), 0.5 * jnp.ones(4))})

    def simulator(theta: Theta, key: PRNGKey) -> Array:
        mean = _log_populations(theta["theta"])
        return jnp.exp(mean + _ERROR * jax.random.normal(key, mean.shape))

    def log_likelihood(theta: Theta, x: Any) -> Array:
        return jnp.sum(dist.LogNormal(_log_populations(theta["theta"]), _ERROR).log_prob(jnp.asarray(x)))

    return Task("lotka_volterra", prior, simulator, log_likelihood, 2 * _SEEN)


def _log_populations(theta: Array) -> Array:
    """Logarithms of prey and predators `[20]`."""
    alpha, beta, gamma, delta = theta

    def field(state: Array) -> Array:
        x, y = jnp.exp(state)
        return jnp.stack([alpha - beta * y, delta * x - gamma])

    found = _solve(field, jnp.log(jnp.array([30.0, 1.0])), 0.01, 210).T.reshape(-1)
    return jnp.clip(found, jnp.log(1e-10), jnp.log(1e4))
