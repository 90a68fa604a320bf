"""Maps from standard normals z to the distributions of theta.

    z ~ N(0, I)  --Phi-->  q in (0, 1)  --F^-1-->  theta          scalars, by the nearer tail
    z ~ N(0, I)  --loc + L z-->  theta                            multivariate normals, L L' the covariance
    z ~ N(0, I)  --trained flow-->  theta                         `vb.fit_prior`
    z            --m + C z-->  free  --g-->  theta                the rest: g numpyro's bijection, z only whitened

Scalar families go through their CDF, theta = F^-1(Phi(z)); multivariate normals through their Cholesky factor. Other
families go through numpyro's bijection onto their support, then a whitening with moments estimated from draws: there z
has mean 0 and covariance I without being exactly normal, and its dimension may be smaller than that of theta.
"""

import abc
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy import special
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ComposeTransform, biject_to

from vbinfer.priors.flow import NoiseTransform, each
from vbinfer.priors.spec import identity
from vbinfer.priors.tails import Tails, tails

CLIP = 2.0**-24
"""Probabilities stay inside [2^-24, 1 - 2^-24] on their way to theta, so that no draw sits on the edge of a support."""
_SMALLEST = 1e-37
_WHITENING_DRAWS = 20_000
_SIMPLEX_TOLERANCE = 1e-5


def normal_log_prob(z: Array) -> Array:
    """Elementwise log-density of the standard normal."""
    return -0.5 * (z * z + math.log(2.0 * math.pi))


class ScalarMap(abc.ABC):
    """An increasing map from z to theta, elementwise."""

    @abc.abstractmethod
    def constrain(self, z: Array) -> tuple[Array, Array]:
        """theta and log |d theta / d z|."""

    @abc.abstractmethod
    def unconstrain(self, theta: Array) -> Array:
        """z of a theta inside the support."""

    @abc.abstractmethod
    def inside(self, theta: Array) -> Array:
        """Whether theta is in the support."""

    @abc.abstractmethod
    def log_prob_inside(self, theta: Array) -> Array:
        """Log-density of a theta inside the support."""

    def log_prob(self, theta: Array) -> Array:
        """Log-density, -inf outside the support, with finite gradients everywhere."""
        median = self.constrain(jnp.zeros_like(theta))[0]
        return _supported(self.log_prob_inside, self.inside(theta), theta, median)


def _supported(log_prob: Callable[[Array], Array], inside: Array, theta: Array, centre: Array) -> Array:
    """A log-density where theta is inside its support, else -inf."""
    # outside the support the density is taken at the centre, and its value dropped: theta itself would give NaN in the
    # gradient, which `where` does not stop
    event = _expand(inside, theta.ndim - inside.ndim)
    value = log_prob(jnp.where(event, theta, centre))
    return jnp.where(inside & ~jnp.isnan(value), value, -jnp.inf)


class FamilyMap(ScalarMap):
    """A map onto the support of a numpyro distribution."""

    def __init__(self, d: Any) -> None:
        self.d = d

    def inside(self, theta: Array) -> Array:
        return jnp.asarray(self.d.support(theta)) & jnp.isfinite(theta)

    def log_prob_inside(self, theta: Array) -> Array:
        return self.d.log_prob(theta)


class NormalMap(FamilyMap):
    """theta = loc + scale z."""

    def constrain(self, z: Array) -> tuple[Array, Array]:
        return self.d.loc + self.d.scale * z, jnp.broadcast_to(jnp.log(self.d.scale), z.shape)

    def unconstrain(self, theta: Array) -> Array:
        return (theta - self.d.loc) / self.d.scale


class TailMap(FamilyMap):
    """theta = F^-1(Phi(z)), from the nearer tail."""

    def __init__(self, d: Any, tail: Tails) -> None:
        self.d, self.tail = d, tail

    def log_prob_inside(self, theta: Array) -> Array:
        return self.d.log_prob(theta) if self.tail.log_prob is None else self.tail.log_prob(theta)

    def constrain(self, z: Array) -> tuple[Array, Array]:
        # F^-1 is often a bisection, whose derivative is none; that of its solution F(theta) = Phi(z) is
        # d theta / d z = phi(z) / p(theta). Phi(-|z|) and the tail that it belongs to keep their digits on both sides
        def forward(z: Array) -> Array:
            q = jnp.clip(special.ndtr(-jnp.abs(z)), CLIP, 0.5)
            return jnp.where(z < 0.0, self.tail.icdf(q), self.tail.isf(q))

        log_slope = lambda z, theta: normal_log_prob(z) - self.log_prob_inside(theta)  # noqa: E731
        theta = _sloped(forward, log_slope)(z)
        return theta, log_slope(z, theta)

    def unconstrain(self, theta: Array) -> Array:
        # the same the other way round: d z / d theta = p(theta) / phi(z)
        def backward(theta: Array) -> Array:
            left, right = self.tail.cdf(theta), self.tail.sf(theta)
            z = special.ndtri(jnp.clip(jnp.minimum(left, right), _SMALLEST, 0.5))
            return jnp.where(left <= right, z, -z)

        return _sloped(backward, lambda theta, z: self.log_prob_inside(theta) - normal_log_prob(z))(theta)


def _sloped(function: Callable[[Array], Array], log_slope: Callable[[Array, Array], Array]) -> Callable[[Array], Array]:
    """The function, its derivative exp(log_slope(x, y))."""
    sloped = jax.custom_jvp(function)

    @sloped.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        y = sloped(primals[0])
        return y, jnp.exp(log_slope(primals[0], y)) * tangents[0]

    return sloped


class TransformedMap(ScalarMap):
    """theta = f(base(z)), z's sign turned where f decreases."""

    def __init__(self, base: ScalarMap, transform: Any, batch_shape: tuple[int, ...]) -> None:
        self.base, self.transform = base, transform
        # z -> theta must increase: f is tried at z = -0.5 and 0.5, and where it decreases, base gets -z instead
        probe = jnp.ones(batch_shape)
        low, high = (transform(base.constrain(sign * 0.5 * probe)[0]) for sign in (-1.0, 1.0))
        self.sign = jnp.where(high >= low, 1.0, -1.0)

    def constrain(self, z: Array) -> tuple[Array, Array]:
        inner, log_det = self.base.constrain(self.sign * z)
        theta = self.transform(inner)
        return theta, log_det + self.transform.log_abs_det_jacobian(inner, theta)

    def unconstrain(self, theta: Array) -> Array:
        return self.sign * self.base.unconstrain(self.transform.inv(theta))

    def inside(self, theta: Array) -> Array:
        codomain = jnp.asarray(self.transform.codomain(theta)) & jnp.isfinite(theta)
        median = self.constrain(jnp.zeros_like(theta))[0]
        return codomain & self.base.inside(self.transform.inv(jnp.where(codomain, theta, median)))

    def log_prob_inside(self, theta: Array) -> Array:
        inner = self.transform.inv(theta)
        return self.base.log_prob(inner) - self.transform.log_abs_det_jacobian(inner, theta)


def scalar_map(d: Any) -> ScalarMap | None:
    """Map of a distribution over scalars; None if joint.

    Expanded and independent ones are over scalars.
    """
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    if isinstance(d, dist.TransformedDistribution):
        transform = ComposeTransform(d.transforms)
        if transform.domain.event_dim or transform.codomain.event_dim:
            return None
        base = scalar_map(d.base_dist)
        return None if base is None else TransformedMap(base, transform, d.batch_shape + d.event_shape)
    if d.event_shape:
        return None
    if type(d) is dist.Normal:
        return NormalMap(d)
    tail = tails(d)
    return None if tail is None else TailMap(d, tail)


class LeafMap(abc.ABC):
    """Shapes, both directions and density of one leaf.

    Equal for equal distributions: a leaf is a static argument of compiled functions.
    """

    d: Any
    shape: tuple[int, ...]
    z_shape: tuple[int, ...]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, LeafMap) and self._identity == other._identity)

    def __hash__(self) -> int:
        return self._hash

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of each element's support, infinite without one."""
        support = self.d.support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        ends = getattr(support, "lower_bound", -np.inf), getattr(support, "upper_bound", np.inf)
        low, high = (0.0, 1.0) if support is constraints.simplex else ends
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    @functools.cached_property
    def _identity(self) -> tuple[Any, ...]:
        return identity(self.d)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._identity)  # kept: it is asked for at every call of a compiled function

    @abc.abstractmethod
    def constrain(self, z: Array) -> tuple[Array, Array]:
        """theta `[..., *shape]` and log-determinant `[...]`, from z `[..., *z_shape]`."""

    @abc.abstractmethod
    def unconstrain(self, theta: Array) -> Array:
        """z `[..., *z_shape]` from theta `[..., *shape]`."""

    @abc.abstractmethod
    def log_prob(self, theta: Array) -> Array:
        """Log-density `[...]` of the leaf, -inf outside the support."""


class ElementwiseLeaf(LeafMap):
    """Independent scalars."""

    def __init__(self, d: Any, scalar: ScalarMap) -> None:
        self.d, self.scalar = d, scalar
        self.shape = self.z_shape = tuple(d.batch_shape + d.event_shape)

    def constrain(self, z: Array) -> tuple[Array, Array]:
        theta, log_det = self.scalar.constrain(z)
        return theta, log_det.sum(_last(len(self.shape)))

    def unconstrain(self, theta: Array) -> Array:
        return self.scalar.unconstrain(theta)

    def log_prob(self, theta: Array) -> Array:
        return self.scalar.log_prob(theta).sum(_last(len(self.shape)))

    def mass_outside(self, low: float, high: float) -> float:
        """Probability that any element is below `low` or above `high`."""
        # in z every element is standard normal: P(theta < low) = Phi(z(low)); 1 - prod_i (1 - p_i), by logs for tiny p
        outside = jnp.zeros(self.shape)
        for bound, side in ((low, 1.0), (high, -1.0)):
            if math.isfinite(bound):
                outside = outside + special.ndtr(side * self._z_of(bound))
        return float(-jnp.expm1(jnp.sum(jnp.log1p(-jnp.clip(outside, 0.0, 1.0)))))

    def _z_of(self, bound: float) -> Array:
        value, median = jnp.full(self.shape, bound), self.scalar.constrain(jnp.zeros(self.shape))[0]
        inside = self.scalar.inside(value)
        z = self.scalar.unconstrain(jnp.where(inside, value, median))
        return jnp.where(inside, z, jnp.where(value < median, -jnp.inf, jnp.inf))


class JointLeaf(LeafMap):
    """A distribution over vectors."""

    def log_prob(self, theta: Array) -> Array:
        support, last = self.d.support, _last(len(self.d.event_shape))
        if support is constraints.simplex:
            total = jnp.abs(jnp.sum(theta, axis=-1) - 1.0)
            inside = jnp.all(theta >= 0.0, axis=-1) & (total < _SIMPLEX_TOLERANCE)
        else:
            inside = jnp.asarray(support(theta)) & jnp.isfinite(theta).all(last)
        centre = self.constrain(jnp.zeros(self.z_shape))[0]
        return _supported(self.d.log_prob, inside, theta, centre).sum(_last(len(self.d.batch_shape)))


class JointNormalLeaf(JointLeaf):
    """theta = loc + L z, L L' the covariance."""

    def __init__(self, d: Any, loc: Array, factor: Array) -> None:
        self.d = d
        self.shape = self.z_shape = tuple(d.batch_shape + d.event_shape)
        self.loc, self.factor = loc, jnp.broadcast_to(factor, (*self.shape, self.shape[-1]))

    def constrain(self, z: Array) -> tuple[Array, Array]:
        theta = self.loc + jnp.einsum("...ij,...j->...i", self.factor, z)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.factor, axis1=-2, axis2=-1)))
        return theta, jnp.broadcast_to(log_det, z.shape[: z.ndim - len(self.shape)])

    def unconstrain(self, theta: Array) -> Array:
        centred = theta - self.loc
        factor = jnp.broadcast_to(self.factor, (*centred.shape, self.shape[-1]))
        return jax.scipy.linalg.solve_triangular(factor, centred[..., None], lower=True)[..., 0]


class WhitenedLeaf(JointLeaf):
    """theta = g(m + C z), g numpyro's bijection.

    g maps onto the support; m and C C' are the moments of g^-1(theta), from draws.
    """

    def __init__(self, d: Any) -> None:
        self.d = d
        self.shape = tuple(d.batch_shape + d.event_shape)
        self.bijection = biject_to(d.support)
        free = _free_draws(d)
        self.free_shape = tuple(free.shape[1:])
        # moments in float64; draws on the edge of the support, infinite when free, are left out
        flat = np.asarray(free, dtype=np.float64).reshape(_WHITENING_DRAWS, -1)
        flat = flat[np.isfinite(flat).all(axis=1)]
        self.z_shape = (flat.shape[1],)
        self.mean = jnp.asarray(flat.mean(axis=0), jnp.result_type(float))
        self.factor = jnp.asarray(np.linalg.cholesky(np.atleast_2d(np.cov(flat.T))), jnp.result_type(float))

    def constrain(self, z: Array) -> tuple[Array, Array]:
        free = (self.mean + z @ self.factor.T).reshape((*z.shape[:-1], *self.free_shape))
        theta = self.bijection(free)
        log_det = self.bijection.log_abs_det_jacobian(free, theta)
        # log |d theta / d z| = log |d theta / d free| + log |C|; g's part may come per element of a batch of simplices
        whole = jnp.sum(jnp.log(jnp.diagonal(self.factor)))
        return theta, log_det.sum(_last(log_det.ndim - (z.ndim - 1))) + whole

    def unconstrain(self, theta: Array) -> Array:
        free = self.bijection.inv(theta)
        flat = free.reshape((*free.shape[: free.ndim - len(self.free_shape)], -1))
        solve = jax.scipy.linalg.solve_triangular
        return solve(self.factor, (flat - self.mean).reshape(-1, flat.shape[-1]).T, lower=True).T.reshape(flat.shape)


class NoiseLeaf(JointLeaf):
    """theta = f(z), f a trained map of normal noise."""

    def __init__(self, d: Any, network: Any) -> None:
        self.d, self.network = d, network
        self.shape = self.z_shape = tuple(d.event_shape)

    def constrain(self, z: Array) -> tuple[Array, Array]:
        return each(self.network, "from_noise", z)

    def unconstrain(self, theta: Array) -> Array:
        return each(self.network, "to_noise", theta)[0]


def _free_draws(d: Any) -> np.ndarray:
    """Seeded draws on the free side of numpyro's bijection.

    The same under all settings of JAX (precision, kinds of keys): the map is made anew where a prior is loaded, and
    networks that were trained with it must find it there.
    """
    with jax.enable_x64(False), jax.threefry_partitionable(True):
        single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), d)
        draws = single.sample(jax.random.key(0, impl="threefry2x32"), (_WHITENING_DRAWS,))
        return np.asarray(biject_to(single.support).inv(draws))


def leaf_map(d: Any) -> LeafMap:
    """The map of one leaf of a prior."""
    scalar = scalar_map(d)
    if scalar is not None:
        return ElementwiseLeaf(d, scalar)
    inner = d
    while isinstance(inner, dist.ExpandedDistribution):
        inner = inner.base_dist
    if isinstance(inner, dist.MultivariateNormal):
        return JointNormalLeaf(d, jnp.asarray(inner.loc), jnp.asarray(inner.scale_tril))
    if isinstance(inner, dist.LowRankMultivariateNormal):
        return JointNormalLeaf(d, jnp.asarray(inner.loc), jnp.linalg.cholesky(inner.covariance_matrix))
    if isinstance(d, dist.TransformedDistribution) and isinstance(d.transforms[-1], NoiseTransform):
        return NoiseLeaf(d, d.transforms[-1].network)
    return WhitenedLeaf(d)


def _last(count: int) -> tuple[int, ...]:
    """The last axes, `count` of them."""
    return tuple(range(-count, 0))


def _expand(value: Array, count: int) -> Array:
    return value.reshape(value.shape + (1,) * count)
