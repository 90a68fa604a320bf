"""The prior: named numpyro distributions, and their standard-normal space."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.transforms import AffineTransform

from vbinfer import _check
from vbinfer._names import Named, PRNGKey, Theta, flat_names, ravel, unravel
from vbinfer._param import did_you_mean
from vbinfer.priors.spec import from_spec, to_spec
from vbinfer.priors.transforms import ElementwiseLeaf, LeafMap, WhitenedLeaf, leaf_map

_MOMENT_DRAWS = 100_000
_CUT = (dist.LeftTruncatedDistribution, dist.RightTruncatedDistribution, dist.TwoSidedTruncatedDistribution)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prior:
    """Independent distributions over named parameters; frozen.

    Three views of one prior: theta, the named values; z, the named coordinates in which the prior is standard normal
    (theta = F^-1(Phi(z)) for scalars, Cholesky for multivariate normals, the bijection onto the support followed by
    whitening for the rest); and flat vectors of either.

    Priors are equal, hash alike and share compiled programs when they have the same names in the same order, with the
    same families and equal parameters (those of `to_spec`). A distribution that numpyro does not name, such as a class
    of your own, has no description: it equals itself only, so keep one object of it.

    Args:
        dists: parameter path to numpyro distribution. Batch shapes count as the shape of the parameter:
            `Normal(-4.6, 0.3).expand([84])` is one value per node.

    Raises:
        TypeError: a value that is no numpyro distribution, or a discrete one.
        ValueError: an empty dictionary, or a distribution without a finite density at its centre.

    >>> import jax, vbinfer as vb, numpyro.distributions as dist
    >>> prior = vb.Prior({"coupling.G": dist.Uniform(0.0, 0.5), "model.eta": dist.Normal(-4.6, 0.3).expand([2])})
    >>> prior.names
    ('coupling.G', 'model.eta[0]', 'model.eta[1]')
    >>> {name: value.shape for name, value in prior.sample(key=jax.random.key(0), n=10).items()}
    {'coupling.G': (10,), 'model.eta': (10, 2)}
    """

    dists: Named
    _leaves: dict[str, LeafMap] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.dists, Mapping):
            raise TypeError(f"Prior takes a dictionary of path to distribution; {type(self.dists).__name__} was given")
        if not self.dists:
            raise ValueError('Prior was given no parameter; write vb.Prior({"coupling.G": dist.Uniform(0.0, 1.0)})')
        object.__setattr__(self, "dists", MappingProxyType(dict(self.dists)))
        object.__setattr__(self, "_leaves", {name: _checked_leaf(name, d) for name, d in self.dists.items()})

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter."""
        return {name: leaf.shape for name, leaf in self._leaves.items()}

    @functools.cached_property
    def z_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter's z."""
        return {name: leaf.z_shape for name, leaf in self._leaves.items()}

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Flattened paths: `("coupling.G", "model.eta[0]", ...)`."""
        return flat_names(self.shapes)

    @property
    def dim(self) -> int:
        """Number of elements of theta, D."""
        return len(self.names)

    @functools.cached_property
    def z_dim(self) -> int:
        """Number of elements of z; fewer for a simplex."""
        return sum(int(np.prod(shape)) for shape in self.z_shapes.values())

    @property
    def z_is_normal(self) -> bool:
        """Whether z is exactly standard normal.

        It is, but for leaves that are whitened: their z has mean 0 and covariance I, and another shape.
        """
        return not any(isinstance(leaf, WhitenedLeaf) for leaf in self._leaves.values())

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Prior) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return tuple(self._leaves.items())

    def __reduce__(self) -> tuple[Any, ...]:
        return Prior, (dict(self.dists),)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name!r}: {_describe(d)}" for name, d in self.dists.items())
        return f"Prior({{{inside}}})"

    def sample(self, *, key: PRNGKey, n: int | None = None) -> Theta:
        """Draws, leaves `[n, ...]`; no leading axis for n=None."""
        keys = jax.random.split(key, len(self.dists))
        shape = () if n is None else (_check.count(n, "n"),)
        return {name: _draw(leaf, k, shape) for (name, leaf), k in zip(self._leaves.items(), keys, strict=True)}

    def log_prob(self, theta: Named) -> Array:
        """Log-density `[...]` of theta, leaves `[..., *shape]`.

        -inf outside the support, never NaN.
        """
        values = self._take(theta, self.shapes)
        return _log_prob(self, values)

    def constrain(self, z: Named) -> tuple[Theta, Array]:
        """theta and `log |d theta / d z|` from z.

        z has leaves `[..., *z_shape]`, the log-determinant is `[...]`.

        `log_prob(theta) + logdet` is the density of z: standard normal, except for whitened leaves.
        """
        values = self._take(z, self.z_shapes)
        return _constrain(self, values)

    def unconstrain(self, theta: Named) -> Theta:
        """z of a theta inside the support; inverts `constrain`."""
        values = self._take(theta, self.shapes)
        return _unconstrain(self, values)

    def to_z(self, theta: Named) -> Array:
        """Flat z `[..., z_dim]` of a theta inside the support."""
        return _to_z(self, self._take(theta, self.shapes))

    def from_z(self, flat: Any) -> tuple[Theta, Array]:
        """theta and its log-determinant from flat z.

        `log |d theta / d z|` of z `[..., z_dim]`.
        """
        return _from_z(self, jnp.asarray(flat, jnp.result_type(float)))

    def ravel(self, theta: Named) -> Array:
        """Named leaves `[..., *shape]` to `[..., D]`, ordered as `names`."""
        return ravel(self._take(theta, self.shapes), self.shapes)

    def unravel(self, flat: Any) -> Theta:
        """`[..., D]` to named leaves."""
        return unravel(jnp.asarray(flat), self.shapes)

    def ravel_z(self, z: Named) -> Array:
        """Named z to `[..., z_dim]`."""
        return ravel(self._take(z, self.z_shapes), self.z_shapes)

    def unravel_z(self, flat: Any) -> Theta:
        """`[..., z_dim]` to named z."""
        return unravel(jnp.asarray(flat), self.z_shapes)

    def numpyro(self) -> Theta:
        """Sample every parameter inside a numpyro model; returns theta.

        Sites are named by path.
        """
        return {
            name: jnp.asarray(numpyro.sample(name, d.to_event(len(d.batch_shape)))) for name, d in self.dists.items()
        }

    def to_torch(self) -> Any:
        """A `torch.distributions.Distribution` over flat float32 theta `[..., D]`."""
        from vbinfer.priors._torch import torch_prior

        return torch_prior(self)

    def mean(self) -> dict[str, np.ndarray]:
        """Prior means.

        Analytic, or from 100,000 seeded draws where numpyro has no finite formula.
        """
        return {name: _moment(leaf, "mean") for name, leaf in self._leaves.items()}

    def variance(self) -> dict[str, np.ndarray]:
        """Prior variances; NaN where none is finite.

        Analytic, or from 100,000 seeded draws where numpyro has no formula. Those of a Cauchy, a StudentT with df <= 2,
        a Pareto or InverseGamma with a shape up to 2, also shifted, scaled or cut on one side, are not finite: draws
        would give some number, another for each seed.
        """
        return {name: _moment(leaf, "variance") for name, leaf in self._leaves.items()}

    def mass_outside(self, low: Mapping[str, float], high: Mapping[str, float]) -> dict[str, float]:
        """Probability, per parameter, of any element outside `[low, high]`.

        A missing bound is infinite. By the CDF for scalar families, from 100,000 seeded draws for joint ones.
        """
        for name in {*low, *high}:
            if name not in self.dists:
                raise ValueError(f"a range was given for {name!r}; the prior has no such parameter. "
                                 f"{did_you_mean(name, self.dists)}")  # fmt: skip
        return {
            name: _mass_outside(leaf, float(low.get(name, -np.inf)), float(high.get(name, np.inf)))
            for name, leaf in self._leaves.items()
        }

    def to_spec(self) -> dict[str, Any]:
        """A JSON-able description.

        Raises:
            TypeError: a distribution that is not one of numpyro's named families.
        """
        spec = {}
        for name, d in self.dists.items():
            try:
                spec[name] = to_spec(d)
            except TypeError as error:
                raise TypeError(f"prior of {name!r}: {error}") from error
        return spec

    @classmethod
    def from_spec(cls, spec: Named) -> "Prior":
        """The prior that `to_spec` described."""
        return cls({name: from_spec(item) for name, item in spec.items()})

    def _take(self, values: Named, shapes: Mapping[str, tuple[int, ...]]) -> Theta:
        if set(values) != set(shapes):
            raise ValueError(f"theta has {sorted(values)}; the prior has {sorted(shapes)}")
        taken = {name: jnp.asarray(values[name], dtype=jnp.result_type(float)) for name in shapes}
        for name, shape in shapes.items():
            given = taken[name].shape
            if given[len(given) - len(shape) :] != shape:
                expected = ", ".join(map(str, ("...", *shape)))
                raise ValueError(f"{name!r} was given shape {list(given)}; expected [{expected}]")
        return taken


# Compiled once per prior and shape: a bisection outside jit would be compiled again at every call.
@functools.partial(jax.jit, static_argnums=0)
def _log_prob(prior: Prior, theta: Theta) -> Array:
    return jnp.asarray(sum(leaf.log_prob(theta[name]) for name, leaf in prior._leaves.items()))


@functools.partial(jax.jit, static_argnums=0)
def _constrain(prior: Prior, z: Theta) -> tuple[Theta, Array]:
    pairs = {name: leaf.constrain(z[name]) for name, leaf in prior._leaves.items()}
    return {name: pair[0] for name, pair in pairs.items()}, jnp.asarray(sum(pair[1] for pair in pairs.values()))


@functools.partial(jax.jit, static_argnums=0)
def _unconstrain(prior: Prior, theta: Theta) -> Theta:
    return {name: leaf.unconstrain(theta[name]) for name, leaf in prior._leaves.items()}


@functools.partial(jax.jit, static_argnums=0)
def _to_z(prior: Prior, theta: Theta) -> Array:
    return ravel(_unconstrain(prior, theta), prior.z_shapes)


@functools.partial(jax.jit, static_argnums=0)
def _from_z(prior: Prior, flat: Array) -> tuple[Theta, Array]:
    return _constrain(prior, unravel(flat, prior.z_shapes))


def _checked_leaf(name: str, d: Any) -> LeafMap:
    if not isinstance(name, str):
        raise TypeError(f"a parameter is named by a string, its path; {name!r} was given")
    if not isinstance(d, dist.Distribution):
        raise TypeError(
            f"the prior of {name!r} is {d!r} ({type(d).__name__}); expected a numpyro distribution, "
            "such as numpyro.distributions.Uniform(0.0, 1.0)"
        )
    if d.support is None or d.support.is_discrete:
        raise TypeError(
            f"the prior of {name!r} is {_describe(d)}, which is discrete; a prior takes continuous parameters only"
        )
    leaf = leaf_map(d)
    if isinstance(_innermost(d), _CUT) and not _has_width(leaf):
        raise ValueError(
            f"the prior of {name!r}, {_describe(d)}, has next to no mass between its ends: {jnp.result_type(float)} "
            "cannot tell its draws apart. Move loc towards the interval, raise scale, or write "
            "dist.Uniform(low, high)"
        )
    if not np.isfinite(_at_centre(leaf)).all():
        raise ValueError(
            f"the prior of {name!r}, {_describe(d)}, has no finite density at its centre; check that its parameters "
            "are finite, its scales positive and low < high"
        )
    return leaf


@functools.partial(jax.jit, static_argnums=0)
def _at_centre(leaf: LeafMap) -> Array:
    theta, log_det = leaf.constrain(jnp.zeros(leaf.z_shape))
    return jnp.concatenate([theta.reshape(-1), log_det.reshape(-1), leaf.log_prob(theta).reshape(-1)])


def _has_width(leaf: LeafMap) -> bool:
    """Whether quantiles of a leaf differ."""
    theta = np.asarray(leaf.constrain(jnp.stack([jnp.full(leaf.z_shape, z) for z in (-1.0, 1.0)]))[0])
    return bool(np.all(theta[0] < theta[1]))


def _innermost(d: Any) -> Any:
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    return d


def _describe(d: dist.Distribution) -> str:
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        shape = tuple(d.batch_shape + d.event_shape)
        return f"{_describe(d.base_dist)} of shape {shape}"
    return type(d).__name__


def _draw(leaf: LeafMap, key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Draws of a leaf by numpyro, or through z."""
    try:
        return jnp.asarray(leaf.d.sample(key, shape))
    except (ImportError, NotImplementedError):
        if not isinstance(leaf, ElementwiseLeaf):
            raise
        return leaf.constrain(jax.random.normal(key, shape + leaf.z_shape))[0]


def _moment(leaf: LeafMap, which: str) -> np.ndarray:
    own = _formula(leaf.d, which)
    value = np.full(leaf.shape, np.nan) if own is None else np.broadcast_to(own, leaf.shape)
    infinite = np.zeros(leaf.shape, bool)
    if which == "variance" and not np.isfinite(leaf.bounds()).all():  # an interval has a variance, whatever is said
        known = _formula(_unscaled(leaf.d), which) if own is None else own
        infinite = np.broadcast_to(False if known is None else ~np.isfinite(known), leaf.shape)
    if np.isnan(value[~infinite]).any():
        draws = np.asarray(_draw(leaf, jax.random.key(0), (_MOMENT_DRAWS,)), dtype=np.float64)
        estimate = draws.mean(axis=0) if which == "mean" else draws.var(axis=0, ddof=1)
        value = np.where(np.isnan(value), estimate, value).astype(value.dtype)
    return np.where(infinite, np.nan, value)


def _formula(d: Any, which: str) -> np.ndarray | None:
    """numpyro's mean or variance, None where it has none."""
    try:
        return np.asarray(getattr(d, which))
    except (ImportError, NotImplementedError):
        return None


def _unscaled(d: Any) -> Any:
    """The distribution under shifts, scales and cuts on one side."""
    # these have a finite variance exactly where it has: a tail stays as heavy as it was
    cut = (dist.LeftTruncatedDistribution, dist.RightTruncatedDistribution)
    while isinstance(d, (*cut, dist.Independent, dist.ExpandedDistribution)) or (
        type(d) is dist.TransformedDistribution and all(isinstance(t, AffineTransform) for t in d.transforms)
    ):
        d = d.base_dist
    return d


def _mass_outside(leaf: LeafMap, low: float, high: float) -> float:
    if np.isneginf(low) and np.isposinf(high):
        return 0.0
    if isinstance(leaf, ElementwiseLeaf):
        return leaf.mass_outside(low, high)
    draws = np.asarray(leaf.d.sample(jax.random.key(0), (_MOMENT_DRAWS,))).reshape(_MOMENT_DRAWS, -1)
    return float(((draws < low) | (draws > high)).any(axis=1).mean())
