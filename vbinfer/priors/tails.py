"""Distribution functions of continuous families, one per tail.

`1 - cdf` loses every digit where the CDF is near one, so a family is written with four functions: the CDF and its
complement, and their inverses. Families without a closed inverse are inverted by bisection.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy import special
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

_BISECTIONS = 64
_ROOT2 = 2.0**0.5


class Tails(NamedTuple):
    """CDF, survival function and the inverse of each; elementwise.

    And log-density, where that of numpyro does not do.
    """

    cdf: Callable[[Array], Array]
    sf: Callable[[Array], Array]
    icdf: Callable[[Array], Array]
    isf: Callable[[Array], Array]
    log_prob: Callable[[Array], Array] | None = None


def tails(d: Any) -> Tails | None:
    """Tails of a scalar distribution; None without a CDF."""
    for family, make in _FAMILIES.items():
        if isinstance(d, family):
            made = make(d)
            if made is not None:
                return made
    return _generic(d)


def _uniform(d: Any) -> Tails:
    width = d.high - d.low
    return Tails(
        lambda x: (x - d.low) / width,
        lambda x: (d.high - x) / width,
        lambda q: d.low + width * q,
        lambda q: d.high - width * q,
    )


def _exponential(d: Any) -> Tails:
    return Tails(
        lambda x: -jnp.expm1(-d.rate * x),
        lambda x: jnp.exp(-d.rate * x),
        lambda q: -jnp.log1p(-q) / d.rate,
        lambda q: -jnp.log(q) / d.rate,
    )


def _weibull(d: Any) -> Tails:
    c = d.concentration
    return Tails(
        lambda x: -jnp.expm1(-((x / d.scale) ** c)),
        lambda x: jnp.exp(-((x / d.scale) ** c)),
        lambda q: d.scale * (-jnp.log1p(-q)) ** (1.0 / c),
        lambda q: d.scale * (-jnp.log(q)) ** (1.0 / c),
    )


def _half_normal(d: Any) -> Tails:
    return Tails(
        lambda x: special.erf(x / d.scale / _ROOT2),
        lambda x: special.erfc(x / d.scale / _ROOT2),
        lambda q: d.scale * _ROOT2 * special.erfinv(q),
        lambda q: -d.scale * special.ndtri(q / 2.0),
    )


def _half_cauchy(d: Any) -> Tails:
    return Tails(
        lambda x: 2.0 / jnp.pi * jnp.arctan(x / d.scale),
        lambda x: 2.0 / jnp.pi * jnp.arctan2(d.scale, x),
        lambda q: d.scale * jnp.tan(jnp.pi / 2.0 * q),
        lambda q: d.scale / jnp.tan(jnp.pi / 2.0 * q),
    )


def _truncated_normal(d: Any) -> Tails | None:
    """A normal cut at either side."""
    # left of the mean the CDF keeps its digits, right of it the complement does: an interval wholly above the mean
    # (`upper`) is computed from complements, one wholly below (`lower`) from CDFs
    base = d.base_dist
    if type(base) is not dist.Normal:
        return None
    low, high = getattr(d, "low", -jnp.inf), getattr(d, "high", jnp.inf)
    loc, scale = jnp.asarray(base.loc), jnp.asarray(base.scale)
    a, b = (low - loc) / scale, (high - loc) / scale
    left_cdf, left_sf = special.ndtr(a), special.ndtr(-a)
    right_cdf, right_sf = special.ndtr(b), special.ndtr(-b)
    upper, lower = a > 0.0, b < 0.0
    two_sided = isinstance(d, dist.TwoSidedTruncatedDistribution)
    mass = jnp.where(upper, left_sf - right_sf, right_cdf - left_cdf)

    def cdf(x: Array) -> Array:
        t = (x - loc) / scale
        return jnp.where(upper, left_sf - special.ndtr(-t), special.ndtr(t) - left_cdf) / mass

    def sf(x: Array) -> Array:
        t = (x - loc) / scale
        return jnp.where(lower, right_cdf - special.ndtr(t), special.ndtr(-t) - right_sf) / mass

    def icdf(q: Array) -> Array:
        z = jnp.where(upper, -special.ndtri(left_sf - q * mass), special.ndtri(left_cdf + q * mass))
        return jnp.clip(loc + scale * z, low, high)

    def isf(q: Array) -> Array:
        z = jnp.where(lower, special.ndtri(right_cdf - q * mass), -special.ndtri(right_sf + q * mass))
        return jnp.clip(loc + scale * z, low, high)

    def log_prob(x: Array) -> Array:
        # numpyro takes the mass from CDFs, which are 1 on either side of an interval far above the mean
        return jnp.where(upper, base.log_prob(x) - jnp.log(mass), d.log_prob(x))

    return Tails(cdf, sf, icdf, isf, log_prob if two_sided and np.any(upper) else None)


def _gamma(d: Any) -> Tails:
    cdf = lambda x: special.gammainc(d.concentration, d.rate * x)  # noqa: E731
    sf = lambda x: special.gammaincc(d.concentration, d.rate * x)  # noqa: E731
    return _bisected(cdf, sf, d.support)


def _beta(d: Any) -> Tails:
    a, b = d.concentration1, d.concentration0
    cdf = lambda x: special.betainc(a, b, x)  # noqa: E731
    sf = lambda x: special.betainc(b, a, 1.0 - x)  # noqa: E731
    return _bisected(cdf, sf, d.support)


def _student(d: Any) -> Tails:
    def cdf(x: Array) -> Array:
        t = (x - d.loc) / d.scale
        half, near, far = 0.5 * jnp.ones_like(t), t * t / (d.df + t * t), d.df / (d.df + t * t)
        middle = 0.5 - 0.5 * special.betainc(half, 0.5 * d.df, near)  # keeps the digits of a small t
        tail = jnp.where(near < 0.5, middle, 0.5 * special.betainc(0.5 * d.df, half, far))
        return jnp.where(t < 0.0, tail, 1.0 - tail)

    return _bisected(cdf, lambda x: cdf(2.0 * d.loc - x), d.support)


def _mirrored(d: Any, cdf: Callable[[Array], Array], icdf: Callable[[Array], Array]) -> Tails:
    """Tails of a distribution that is symmetric about `loc`."""
    return Tails(cdf, lambda x: cdf(2.0 * d.loc - x), icdf, lambda q: 2.0 * d.loc - icdf(q))


def _symmetric(d: Any) -> Tails:
    return _mirrored(d, d.cdf, d.icdf)


def _cauchy(d: Any) -> Tails:
    return _mirrored(
        d,
        lambda x: jnp.arctan2(jnp.ones_like(x), -(x - d.loc) / d.scale) / jnp.pi,
        lambda q: d.loc - d.scale / jnp.tan(jnp.pi * q),
    )


def _generic(d: Any) -> Tails | None:
    """numpyro's own CDF, inverted by numpyro or by bisection."""
    median = jnp.broadcast_to(jnp.asarray(0.5), d.batch_shape)
    try:
        inside = d.support.feasible_like(median)
        d.cdf(inside)
    except NotImplementedError:
        return None
    sf = lambda x: 1.0 - d.cdf(x)  # noqa: E731
    try:
        d.icdf(median)
    except (NotImplementedError, ImportError):  # numpyro takes some inverses from a package that may not be there
        return _bisected(d.cdf, sf, d.support)
    return Tails(d.cdf, sf, d.icdf, lambda q: d.icdf(1.0 - q))


def _bisected(cdf: Callable[[Array], Array], sf: Callable[[Array], Array], support: Any) -> Tails:
    """Inverses by bisection."""
    # in a coordinate u that gives the support an even relative resolution: x = sinh(u) on the line, exp(u) above 0,
    # sigmoid(u) in between. [-80, 80] in u holds every float, and 64 halvings resolve it below rounding
    at = jnp.sinh if support is constraints.real else biject_to(support)

    def solve(is_left: Callable[[Array], Array], like: Array) -> Array:
        def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            left = is_left(at(middle))
            return jnp.where(left, middle, low), jnp.where(left, high, middle)

        ends = jnp.full_like(like, -80.0), jnp.full_like(like, 80.0)
        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, ends)
        return at(0.5 * (low + high))

    return Tails(cdf, sf, lambda q: solve(lambda x: cdf(x) < q, q), lambda q: solve(lambda x: sf(x) > q, q))


_FAMILIES: dict[Any, Callable[[Any], Tails | None]] = {
    dist.Uniform: _uniform,
    dist.Exponential: _exponential,
    dist.Weibull: _weibull,
    dist.HalfNormal: _half_normal,
    dist.HalfCauchy: _half_cauchy,
    dist.LeftTruncatedDistribution: _truncated_normal,
    dist.RightTruncatedDistribution: _truncated_normal,
    dist.TwoSidedTruncatedDistribution: _truncated_normal,
    dist.Gamma: _gamma,
    dist.Beta: _beta,
    dist.BetaProportion: _beta,
    dist.StudentT: _student,
    dist.Cauchy: _cauchy,
    dist.Laplace: _symmetric,
    dist.Logistic: _symmetric,
}
