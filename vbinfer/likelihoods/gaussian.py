"""Measurement noise: independent, heavy-tailed, or correlated in time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.likelihoods.base import (
    HALF_LOG_2PI,
    POSITIVE,
    AbstractLikelihood,
    Predict,
    callable_or_raise,
    compared,
    keep_levels,
    level,
    predicted,
)

_EXAMPLE = 'lambda theta: vb.simulate(vb.bind(sim, theta), t1=500.0, key=None).ys["eeg"]'


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(AbstractLikelihood):
    """Independent normal measurement noise.

    y = m(theta) + sigma e, e ~ N(0, 1)
    log p(y | theta) = sum [-(y - m)^2 / (2 sigma^2) - log sigma - log(2 pi)/2] over the entries of y that are not NaN

    `predict` has to be a function of theta alone. If it simulates noise from a fixed key, the posterior is conditional
    on that one noise path; `vb.likelihoods.NoisePath` infers the path, too.

    Args:
        predict: theta to the mean m, an array in the shape of the recording, `[T, N]` say.
        sigma: standard deviation in the unit of the recording: a number, `[N]`, an array like m, or the name of a
            parameter.

    >>> import vbinfer as vb
    >>> likelihood = vb.likelihoods.Gaussian(lambda theta: theta["mu"] * jnp.ones((2, 1)), sigma="sigma")
    >>> round(float(likelihood({"mu": 1.0, "sigma": 2.0}, [[1.0], [float("nan")]])), 4)    # -log(2 sqrt(2 pi))
    -1.6121
    """

    predict: Predict
    sigma: Any

    def __post_init__(self) -> None:
        callable_or_raise(self.predict, "predict", _EXAMPLE)
        keep_levels(self, sigma=POSITIVE)

    def pointwise(self, theta: Mapping[str, Any], y: Any) -> Array:
        mean = predicted(self.predict, theta)
        y, there = compared(y, mean.shape)
        sigma = level(theta, self.sigma, "sigma", mean.shape)
        return jnp.where(there, -0.5 * ((y - mean) / sigma) ** 2 - jnp.log(sigma) - HALF_LOG_2PI, 0.0)

    def sample(self, theta: Mapping[str, Any], key: Array) -> Array:
        mean = predicted(self.predict, theta)
        return mean + level(theta, self.sigma, "sigma", mean.shape) * jax.random.normal(key, mean.shape, mean.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class StudentT(AbstractLikelihood):
    """Independent measurement noise with heavy tails.

    For recordings with artefacts: y = m(theta) + sigma t_nu,

    log p(y | theta) = sum [log G((nu+1)/2) - log G(nu/2) - log(nu pi sigma^2)/2
                            - (nu+1)/2 log(1 + (y - m)^2 / (nu sigma^2))]

    over the entries of y that are not NaN, G the gamma function. The variance is sigma^2 nu / (nu - 2) for nu > 2.

    Args:
        predict, sigma: as for `Gaussian`, sigma being the scale.
        nu: degrees of freedom, a number, `[N]` or a name; small ones forgive more, large ones make it `Gaussian`.
    """

    predict: Predict
    sigma: Any
    nu: Any

    def __post_init__(self) -> None:
        callable_or_raise(self.predict, "predict", _EXAMPLE)
        keep_levels(self, sigma=POSITIVE, nu=POSITIVE)

    def _levels(self, theta: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Array, Array]:
        return level(theta, self.sigma, "sigma", shape), level(theta, self.nu, "nu", shape)

    def pointwise(self, theta: Mapping[str, Any], y: Any) -> Array:
        mean = predicted(self.predict, theta)
        y, there = compared(y, mean.shape)
        sigma, nu = self._levels(theta, mean.shape)
        gamma = jax.scipy.special.gammaln
        scale = gamma(0.5 * (nu + 1.0)) - gamma(0.5 * nu) - 0.5 * jnp.log(nu * jnp.pi) - jnp.log(sigma)
        return jnp.where(there, scale - 0.5 * (nu + 1.0) * jnp.log1p(((y - mean) / sigma) ** 2 / nu), 0.0)

    def sample(self, theta: Mapping[str, Any], key: Array) -> Array:
        mean = predicted(self.predict, theta)
        sigma, nu = self._levels(theta, mean.shape)
        return mean + sigma * jax.random.t(key, nu, mean.shape, mean.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Autoregressive(AbstractLikelihood):
    """Measurement noise correlated in time: AR(1) in each channel.

    y = m(theta) + e, stationary,

    e_1 ~ N(0, sigma^2 / (1 - rho^2));   e_t ~ N(rho e_{t-1}, sigma^2)

    The exact likelihood, its start included. NaN are missing samples, and the noise runs on below them: k samples after
    the last one that was seen, e_t ~ N(rho^k e_{t-k}, sigma^2 (1 - rho^2k) / (1 - rho^2)). `pointwise` are these
    conditional densities, log p(y_t | earlier y).

    Independent noise in place of this makes a posterior too narrow where slow drifts or breathing are in the data.

    Args:
        predict: theta to the mean m, `[T]` or `[T, N]`.
        sigma: standard deviation of the innovations in the unit of the recording (of e itself it is
            sigma / sqrt(1 - rho^2)): a number, `[N]`, or the name of a parameter.
        rho: correlation from one sample to the next, within (-1, 1): a number, `[N]`, or the name of a parameter.
    """

    predict: Predict
    sigma: Any
    rho: Any

    def __post_init__(self) -> None:
        callable_or_raise(self.predict, "predict", _EXAMPLE)
        keep_levels(self, sigma=POSITIVE, rho=(-1.0, 1.0))

    def _levels(self, theta: Mapping[str, Any], mean: Array) -> tuple[Array, Array]:
        if mean.ndim not in (1, 2):
            raise ValueError(f"predict gives {list(mean.shape)}; Autoregressive needs time first, [T] or [T, N]")
        shape = mean.shape[1:]
        return level(theta, self.sigma, "sigma", shape), level(theta, self.rho, "rho", shape)

    def pointwise(self, theta: Mapping[str, Any], y: Any) -> Array:
        mean = predicted(self.predict, theta)
        sigma, rho = (a[None] for a in self._levels(theta, mean))
        y, there = compared(y, mean.shape)
        e = jnp.where(there, y - mean, 0.0)
        # k = now - last samples since the last one that was seen; a channel's first sample has last = -1, decay 0 and
        # with it the stationary density. cummax carries the number of that sample across gaps without a loop
        now = jnp.broadcast_to(jnp.arange(len(e)).reshape((-1,) + (1,) * (e.ndim - 1)), e.shape)
        seen = jax.lax.cummax(jnp.where(there, now, -1), axis=0)
        last = jnp.concatenate([jnp.full_like(seen[:1], -1), seen[:-1]])  # of the last sample before, -1 for none
        decay = jnp.where(last >= 0, rho ** jnp.maximum(now - last, 1), 0.0)
        expected = decay * jnp.take_along_axis(e, jnp.maximum(last, 0), axis=0)
        spread = sigma * jnp.sqrt((1.0 - decay**2) / (1.0 - rho**2))
        return jnp.where(there, -0.5 * ((e - expected) / spread) ** 2 - jnp.log(spread) - HALF_LOG_2PI, 0.0)

    def sample(self, theta: Mapping[str, Any], key: Array) -> Array:
        mean = predicted(self.predict, theta)
        sigma, rho = self._levels(theta, mean)
        # the first sample from the stationary distribution, the others by the recursion
        w = sigma[None] * jax.random.normal(key, mean.shape, mean.dtype)
        start = w[0] / jnp.sqrt(1.0 - rho**2)

        def step(e: Array, w: Array) -> tuple[Array, Array]:
            e = rho * e + w
            return e, e

        return mean + jnp.concatenate([start[None], jax.lax.scan(step, start, w[1:])[1]])
