"""Measurement noise: independent, heavy-tailed, or correlated in time."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import Named
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


def _normal(e: Array, sd: Array) -> Array:
    """Elementwise log N(e; 0, sd^2)."""
    return -0.5 * (e / sd) ** 2 - jnp.log(sd) - HALF_LOG_2PI


@dataclasses.dataclass(frozen=True, eq=False)
class AbstractNoise(AbstractLikelihood):
    """Noise around what is predicted.

    y = m(theta) + e. A kind of noise says the ranges of its levels, whether they hold for all samples of a channel
    alike, the log-density of e, and how it is drawn.
    """

    predict: Predict
    sigma: Any
    ranges: ClassVar[dict[str, tuple[float, float]]]
    stationary: ClassVar[bool] = False

    def __post_init__(self) -> None:
        callable_or_raise(self.predict, "predict", _EXAMPLE)
        keep_levels(self, **self.ranges)

    @abc.abstractmethod
    def log_density(self, e: Array, there: Array, levels: list[Array]) -> Array:
        """Log-density of every entry of e.

        e is 0 where none is `there`.
        """

    @abc.abstractmethod
    def draw(self, key: Array, mean: Array, levels: list[Array]) -> Array:
        """Noise in the shape and type of the mean."""

    def _expected(self, theta: Named) -> tuple[Array, list[Array]]:
        """The mean, and the levels of the noise."""
        mean = predicted(self.predict, theta)
        if self.stationary and mean.ndim not in (1, 2):
            raise ValueError(f"predict gives {list(mean.shape)}; {type(self).__name__} needs time first, [T] or [T, N]")
        shape = mean.shape[1:] if self.stationary else mean.shape
        return mean, [level(theta, getattr(self, name), name, shape) for name in self.ranges]

    def pointwise(self, theta: Named, y: Any) -> Array:
        mean, levels = self._expected(theta)
        y, there = compared(y, mean.shape)
        return jnp.where(there, self.log_density(jnp.where(there, y - mean, 0.0), there, levels), 0.0)

    def sample(self, theta: Named, key: Array) -> Array:
        mean, levels = self._expected(theta)
        return mean + self.draw(key, mean, levels)


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(AbstractNoise):
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

    ranges: ClassVar = {"sigma": POSITIVE}

    def log_density(self, e: Array, there: Array, levels: list[Array]) -> Array:
        return _normal(e, levels[0])

    def draw(self, key: Array, mean: Array, levels: list[Array]) -> Array:
        return levels[0] * jax.random.normal(key, mean.shape, mean.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class StudentT(AbstractNoise):
    """Independent measurement noise with heavy tails.

    For recordings with artefacts: y = m(theta) + sigma t_nu,

    log p(y | theta) = sum [log G((nu+1)/2) - log G(nu/2) - log(nu pi sigma^2)/2
                            - (nu+1)/2 log(1 + (y - m)^2 / (nu sigma^2))]

    over the entries of y that are not NaN, G the gamma function. The variance is sigma^2 nu / (nu - 2) for nu > 2.

    Args:
        predict, sigma: as for `Gaussian`, sigma being the scale.
        nu: degrees of freedom, a number, `[N]` or a name; small ones forgive more, large ones make it `Gaussian`.
    """

    nu: Any
    ranges: ClassVar = {"sigma": POSITIVE, "nu": POSITIVE}

    def log_density(self, e: Array, there: Array, levels: list[Array]) -> Array:
        sigma, nu = levels
        gamma = jax.scipy.special.gammaln
        scale = gamma(0.5 * (nu + 1.0)) - gamma(0.5 * nu) - 0.5 * jnp.log(nu * jnp.pi) - jnp.log(sigma)
        return scale - 0.5 * (nu + 1.0) * jnp.log1p((e / sigma) ** 2 / nu)

    def draw(self, key: Array, mean: Array, levels: list[Array]) -> Array:
        sigma, nu = levels
        return sigma * jax.random.t(key, nu, mean.shape, mean.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Autoregressive(AbstractNoise):
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

    rho: Any
    ranges: ClassVar = {"sigma": POSITIVE, "rho": (-1.0, 1.0)}
    stationary: ClassVar = True

    def log_density(self, e: Array, there: Array, levels: list[Array]) -> Array:
        sigma, rho = (level[None] for level in levels)
        # k = now - last samples since the last one that was seen; a channel's first sample has last = -1, decay 0 and
        # with it the stationary density. cummax carries the number of that sample across gaps without a loop
        now = jnp.broadcast_to(jnp.arange(len(e)).reshape((-1,) + (1,) * (e.ndim - 1)), e.shape)
        seen = jax.lax.cummax(jnp.where(there, now, -1), axis=0)
        last = jnp.concatenate([jnp.full_like(seen[:1], -1), seen[:-1]])  # of the last sample before, -1 for none
        decay = jnp.where(last >= 0, rho ** jnp.maximum(now - last, 1), 0.0)
        expected = decay * jnp.take_along_axis(e, jnp.maximum(last, 0), axis=0)
        spread = sigma * jnp.sqrt((1.0 - decay**2) / (1.0 - rho**2))
        return _normal(e - expected, spread)

    def draw(self, key: Array, mean: Array, levels: list[Array]) -> Array:
        sigma, rho = levels
        # the first sample from the stationary distribution, the others by the recursion
        w = sigma[None] * jax.random.normal(key, mean.shape, mean.dtype)
        start = w[0] / jnp.sqrt(1.0 - rho**2)

        def step(e: Array, w: Array) -> tuple[Array, Array]:
            e = rho * e + w
            return e, e

        return jnp.concatenate([start[None], jax.lax.scan(step, start, w[1:])[1]])
