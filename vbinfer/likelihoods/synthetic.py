"""Normal likelihoods of summaries, with given or simulated moments."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import Named
from vbinfer.likelihoods.base import HALF_LOG_2PI, AbstractLikelihood, callable_or_raise, known

Moments = Callable[[Named], tuple[Any, Any]]
"""theta to (mean `[F]`, covariance `[F, F]`)."""


@dataclasses.dataclass(frozen=True, eq=False)
class MultivariateNormal(AbstractLikelihood):
    """Summary statistics as a normal vector: x ~ N(mean(theta), cov(theta)).

    Args:
        moments: theta to mean `[F]` and covariance `[F, F]`, positive definite.

    An observation is `[F]`, or `[n, F]` for independent repeats; `pointwise` has one number for each of them.
    """

    moments: Moments

    def __post_init__(self) -> None:
        callable_or_raise(self.moments, "moments", "lambda theta: (mean, covariance)")

    def pointwise(self, theta: Named, y: Any) -> Array:
        mean, cov = self._checked(theta)
        x = _summaries(y, len(mean))
        return _normal(x, mean, jnp.linalg.cholesky(cov))

    def sample(self, theta: Named, key: Array) -> Array:
        return _drawn(*self._checked(theta), key)

    def _checked(self, theta: Named) -> tuple[Array, Array]:
        mean, cov = (jnp.asarray(a, jnp.result_type(float)) for a in self.moments(theta))
        if mean.ndim != 1 or cov.shape != (*mean.shape, *mean.shape):
            raise ValueError(
                f"moments gave a mean {list(mean.shape)} and a covariance {list(cov.shape)}; expected [F] and [F, F]"
            )
        return mean, cov


def _summaries(y: Any, width: int) -> Array:
    x = jnp.asarray(y, jnp.result_type(float))
    if x.ndim not in (1, 2) or x.shape[-1] != width:
        raise ValueError(f"y is {list(x.shape)}; expected [{width}] or [n, {width}], the summaries of the simulator")
    if np.isnan(known(x)).any():
        raise ValueError("y holds NaN; leave these summaries out of the observation and of the simulator")
    return x


def _drawn(mean: Array, cov: Array, key: Array) -> Array:
    return mean + jnp.linalg.cholesky(cov) @ jax.random.normal(key, mean.shape, mean.dtype)


def _distance2(x: Array, mean: Array, root: Array) -> Array:
    """Squared Mahalanobis distance of x `[..., F]`; covariance root root^T."""
    # |root^-1 (x - m)|^2, features first: one triangular solve for all rows, no inverse
    z = jax.scipy.linalg.solve_triangular(root, jnp.moveaxis(x - jnp.broadcast_to(mean, x.shape), -1, 0), lower=True)
    return (z**2).sum(axis=0)


def _normal(x: Array, mean: Array, root: Array) -> Array:
    """Log-density of x `[..., F]` under N(mean, root root^T)."""
    return -0.5 * _distance2(x, mean, root) - jnp.log(jnp.diagonal(root)).sum() - len(mean) * HALF_LOG_2PI


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticLikelihood(AbstractLikelihood):
    """Summaries as a normal vector with moments from n simulations.

    Wood 2010, doi:10.1038/nature09319.

    x_i = simulator(theta, fold_in(key, i));   m = mean of x_i,   C = sum (x_i - m)(x_i - m)^T / (n - 1)
    log p(x | theta) = log N(x; m, C)                                    (unbiased=False)

    The estimate of the density is biased, at given theta by terms of order F/n in its logarithm: take n of ten times F
    or more, and compare with twice that. `unbiased=True` takes the estimator of Ghurye & Olkin instead, whose mean over
    keys is the normal density at any n > F + 3 (Price et al. 2018, doi:10.1080/10618600.2017.1302882), -inf where the
    observation lies outside of what n simulations can reach: for samplers that draw a new key at every step.

    Common random numbers: the key is fixed, so the likelihood is a smooth function of theta, and has a gradient through
    the simulator, as NUTS needs. The posterior is conditional on this noise: repeat with other keys; the spread of
    posterior means over keys says whether n is large enough.

    Args:
        simulator: `(theta, key) -> x [F]`, such as `vb.ForwardModel`; if it has `.batch`, that is used.
        n: number of simulations for one value, F + 4 or more.
        key: a JAX key.
        unbiased: which estimator, see above.

    An observation is `[F]`, or `[m, F]` for independent repeats.
    """

    simulator: Any
    n: int
    key: Array
    unbiased: bool = False

    def __post_init__(self) -> None:
        callable_or_raise(self.simulator, "simulator", "vb.ForwardModel(sim, t1=..., summary=...)")
        _check.count(self.n, "n", "100, ten for each summary", least=2)

    def simulations(self, theta: Named) -> Array:
        """The n summaries, `[n, F]`."""
        # the same n keys at every theta: common random numbers, so that the likelihood is smooth in theta
        keys = jax.vmap(lambda i: jax.random.fold_in(self.key, i))(jnp.arange(self.n, dtype=jnp.uint32))
        theta = {name: jnp.asarray(value, jnp.result_type(float)) for name, value in theta.items()}
        if hasattr(self.simulator, "batch"):
            many = {name: jnp.broadcast_to(value, (self.n, *value.shape)) for name, value in theta.items()}
            return self.simulator.batch(many, keys)
        return jax.vmap(lambda key: self.simulator(theta, key))(keys)

    def moments(self, theta: Named) -> tuple[Array, Array]:
        """Mean `[F]` and covariance `[F, F]` of the simulations."""
        x = self.simulations(theta)
        if x.ndim != 2:
            raise ValueError(f"the simulator gives {list(x.shape[1:])} a draw; expected a row of summaries, [F]")
        width = x.shape[1]
        if self.n < width + 4:
            raise ValueError(
                f"n={self.n} simulations of {width} summaries were asked for; a covariance needs at least "
                f"{width + 4}, and {10 * width} for a small bias"
            )
        mean = x.mean(axis=0)
        off = x - mean[None]
        return mean, off.T @ off / (self.n - 1)

    def pointwise(self, theta: Named, y: Any) -> Array:
        mean, cov = self.moments(theta)
        x = _summaries(y, len(mean))
        root = jnp.linalg.cholesky(cov)
        return _ghurye_olkin(x, mean, root, self.n) if self.unbiased else _normal(x, mean, root)

    def sample(self, theta: Named, key: Array) -> Array:
        return _drawn(*self.moments(theta), key)


def _ghurye_olkin(x: Array, mean: Array, root: Array, n: int) -> Array:
    """Log of the unbiased estimate of a normal density.

    From n draws (Price et al. 2018, equation 5). With M = (n - 1) C and v = x - m:
    log p = -F/2 log(2 pi) + log c(F, n-2) - log c(F, n-1) - F/2 log(1 - 1/n) - (n-F-2)/2 log |M|
            + (n-F-3)/2 log |M - v v^T / (1 - 1/n)|,     c(F, k) = 2^(-F k/2) pi^(-F(F-1)/4) / prod_i G((k - i + 1)/2)
    """
    F = len(mean)
    i = np.arange(1, F + 1)
    gamma = jax.scipy.special.gammaln
    log_c = [-0.5 * F * k * np.log(2.0) - gamma(0.5 * (k - i + 1.0)).sum() for k in (n - 2, n - 1)]
    # |M - v v^T/(1-1/n)| = |M| left; where left <= 0, x is farther out than the mean of n simulations can be
    left = 1.0 - _distance2(x, mean, root) / ((n - 1) * (1.0 - 1.0 / n))
    log_M = F * np.log(n - 1.0) + 2.0 * jnp.log(jnp.diagonal(root)).sum()
    constant = -F * HALF_LOG_2PI + log_c[0] - log_c[1] - 0.5 * F * np.log1p(-1.0 / n) - 0.5 * log_M
    reached = left > 0.0
    power = 0.5 * (n - F - 3.0)
    return jnp.where(reached, constant + power * jnp.log(jnp.where(reached, left, 1.0)), -jnp.inf)
