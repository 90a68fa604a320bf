"""Interfaces of fields: domains of points, operators along them."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import count, one_of, positive
from vbinfer._param import Param, Parametrised, is_traced, param, spread


def as_array(a: Any) -> Array:
    """Numbers in the precision of the simulation."""
    return jnp.asarray(a, jnp.result_type(float))


def columns(fn: Callable[[Array], Array], x: Array) -> Array:
    """fn of `[N, B]` applied to `[N, ...batch]`."""
    y = fn(x.reshape(x.shape[0], -1))
    return y.reshape(y.shape[0], *x.shape[1:])


class AbstractDomain(eqx.Module):
    """Base of domains: points of a surface with areas.

    Fields are `[N, ...batch]`, N = `n_nodes`.
    """

    areas: eqx.AbstractVar[Array]
    """mm^2, `[N]`; their sum is that of the surface."""
    positions: eqx.AbstractVar[Array]
    """x, y, z in mm, `[N, 3]`."""

    @property
    def n_nodes(self) -> int:
        """Number of points N."""
        return len(self.areas)

    def integrate(self, x: Any) -> Array:
        """sum_i area_i x_i, the integral over the surface, `[...batch]`."""
        return jnp.tensordot(self.areas, self.checked(x), axes=1)

    def inner(self, x: Any, y: Any) -> Array:
        """sum_i area_i x_i y_i, `[...batch]`."""
        x, y = self.checked(x), self.checked(y)
        return self.integrate(spread(x, y) * spread(y, x) if x.ndim != y.ndim else x * y)

    def checked(self, x: Any) -> Array:
        """x as an array `[N, ...batch]`.

        Raises:
            ValueError: another number of points.
        """
        x = jnp.asarray(x)
        if x.ndim == 0 or x.shape[0] != self.n_nodes:
            raise ValueError(
                f"a field of shape {list(x.shape)} was given; expected [{self.n_nodes}, ...], of "
                f"the {self.n_nodes} points of this {type(self).__name__}"
            )
        return x

    @abc.abstractmethod
    def modes(self, k: int) -> tuple[Array, Array]:
        """Eigenfunctions of -Laplacian `[N, k]` and eigenvalues `[k]`.

        Ascending, 1/mm^2; orthonormal under the areas, the first is constant.
        """

    @abc.abstractmethod
    def distances_from(self, node: int) -> np.ndarray:
        """Distance along the surface from a point, mm, `[N]`."""

    def patch(self, centre: Any, radius: float) -> Array:
        """Indicator `[N]` of a disc, the gain of a stimulus.

        1 within `radius` mm, measured along the surface. `centre` is a point's number, or x, y, z in mm, whose nearest
        point is taken.
        """
        radius = positive(radius, "radius", 10.0, "mm")
        if np.ndim(centre):
            centre = np.argmin(((np.asarray(self.positions) - np.asarray(centre)) ** 2).sum(axis=1))
        node = count(centre, "centre", 0, least=0, most=self.n_nodes - 1)
        return as_array(self.distances_from(node) <= radius)

    # ---- what operators ask of a domain; weights are what all applications share

    @property
    @abc.abstractmethod
    def n_modes(self) -> int:
        """Number of eigenvalues that operators show by default."""

    @property
    @abc.abstractmethod
    def most_modes(self) -> int:
        """Number of modes that there are."""

    @abc.abstractmethod
    def laplace_weights(self) -> Any:
        """Weights of the Laplacian."""

    @abc.abstractmethod
    def laplacian(self, weights: Any, x: Array) -> Array:
        """Laplacian of x, 1/mm^2."""

    @abc.abstractmethod
    def heat_weights(self, s: Array) -> Any:
        """Weights of exp(s Laplacian); s in mm^2, also `[1, B]`."""

    @abc.abstractmethod
    def heat(self, weights: Any, x: Array, stiffest: float, steps: int | None) -> Array:
        """exp(s Laplacian) x; for `steps` see `exponential`."""

    @abc.abstractmethod
    def stiffest(self) -> float:
        """The largest eigenvalue of -Laplacian, 1/mm^2."""

    @abc.abstractmethod
    def basis(self, modes: int | None) -> Any:
        """Eigenfunctions to expand fields in: a `bases.AbstractBasis`."""

    @abc.abstractmethod
    def pairs(self, profile: Any, cutoff: float | None) -> Any:
        """How a kernel is laid out: a `kernels.AbstractPairs`."""


class AbstractOperator(Parametrised):
    """A linear map of fields, per ms.

    `op(x)` maps `[N, ...batch]` to the same shape. What depends on its parameters alone is computed once per run
    (`weights`) and handed to every application (`applied`).
    """

    domain: eqx.AbstractVar[Any]
    decays: ClassVar[bool] = False
    """Whether no eigenvalue is above 0, so that an explicit step is unstable where it is long."""

    @abc.abstractmethod
    def weights(self) -> Any:
        """What all applications share."""

    @abc.abstractmethod
    def applied(self, weights: Any, x: Array) -> Array:
        """The operator on x, given its `weights`."""

    @abc.abstractmethod
    def flow_weights(self, t: Any) -> Any:
        """What all flows over t ms share."""

    @abc.abstractmethod
    def flowed(self, weights: Any, x: Array, steps: int | None) -> Array:
        """exp(t operator) x, given `flow_weights(t)`."""

    @abc.abstractmethod
    def eigenvalues(self, k: int | None = None) -> Array:
        """The first eigenvalues, in the order of the modes."""

    @abc.abstractmethod
    def norm(self) -> Any:
        """A bound of the size of its eigenvalues, 1/ms."""

    def __call__(self, x: Any) -> Array:
        return self.applied(self.weights(), self.domain.checked(x))

    def flow(self, x: Any, t: Any, steps: int | None = None) -> Array:
        """Exact flow exp(t operator) x over t ms.

        t may be negative. `steps`: see `exponential`; spheres need none.
        """
        return self.flowed(self.flow_weights(t), self.domain.checked(x), steps)


class Field(Parametrised):
    """A field: points of a surface as coupled nodes.

    With regions r(i), their means m_s and the weights of a connectome between regions, the coupling input is

    c_i = post(sum_s w_r(i),s pre(m_s(t - lag)), m_r(i)) + strength [K S(x)]_i

    the last term in row 0 alone. Regions send means, so that delay buffers are per region; points of no region get no
    long-range input. `Heun(dt, frozen_coupling=True)` holds the first term over a step, the local term is that of
    every stage, as in TVB.

    Args:
        domain: the points.
        local: the operator K; None for none.
        strength: of the local term, one number or one per point.
        rate: the function S, elementwise; None is the identity. A `vb.models.base.Parametrised` module brings
            parameters, `field.rate.<name>`.
        sends: what the local term reads of the model's `at_nodes`; None is its first coupling variable.
        regions: the regions that the connectome couples; without, it couples points.
        average: regions send `"states"`, pre of the mean, as TVB, or what was `"sent"`, the mean of pre.
        at: `post` sees the means of `"regions"`, or the states of `"nodes"` (for `Difference`).
    """

    domain: AbstractDomain
    local: AbstractOperator | None = None
    strength: Param = param(1.0, doc="strength of the local coupling")
    rate: Any = None
    sends: str | None = eqx.field(static=True, default=None)
    regions: Any = None
    average: str = eqx.field(static=True, default="states")
    at: str = eqx.field(static=True, default="regions")
    shared: Any = eqx.field(default=None)
    """What all steps of a run share."""
    steps: int | None = eqx.field(static=True, default=None)
    """Polynomials of half a step's flow on a mesh; `Simulator` counts them."""

    def validate(self) -> None:
        for what, given, kind in (
            ("domain", self.domain, AbstractDomain),
            ("local", self.local, AbstractOperator | None),
        ):
            if not isinstance(given, kind):
                example = {"domain": "vb.fields.Sphere(lmax=31)", "local": "vb.fields.LaplaceBeltrami(domain, D=1.0)"}
                raise TypeError(f"{what} of Field was given as {given!r}; expected {what}={example[what]}")
        one_of(self.average, "average", ("states", "sent"))
        one_of(self.at, "at", ("regions", "nodes"))
        if self.rate is not None and not callable(self.rate):
            raise TypeError(f"rate of Field was given as {self.rate!r}; expected a function of activity, jnp.tanh")
        n = self.domain.n_nodes
        for what, part in (("local", self.local and self.local.domain), ("regions", self.regions)):
            if part is not None and part.n_nodes != n:
                raise ValueError(
                    f"{what} of Field has {part.n_nodes} points and the domain {n}; build both on the same"
                )

    @property
    def n_nodes(self) -> int:
        """Number of points N."""
        return self.domain.n_nodes

    def prepared(self, half: float | None) -> "Field":
        """The field with what all steps of a run share.

        `half` is half a step, ms, where the local term flows (`Split`).
        """
        if self.local is None:
            return self
        shared = self.local.weights() if half is None else self.local.flow_weights(self.strength * half)
        return eqx.tree_at(lambda f: f.shared, self, shared, is_leaf=lambda leaf: leaf is None)

    def near(self, x: Array) -> Array:
        """The local term `[N, ...batch]` of what points send."""
        assert self.local is not None
        x = x if self.rate is None else self.rate(x)
        weights = self.local.weights() if self.shared is None else self.shared
        return spread(self.strength, x) * self.local.applied(weights, x)

    def flow(self, x: Array) -> Array:
        """exp(strength K half) x, of a prepared field."""
        assert self.local is not None
        return self.local.flowed(self.shared, x, self.steps)

    def sent(self, pre: Callable[[Any], Any], x: tuple[Array, ...]) -> tuple[Array, ...]:
        """Rows `[R, ...batch]` that regions send."""
        if self.regions is None:
            return pre(x)
        if self.average == "sent":
            return tuple(self.regions.to_regions(row) for row in pre(x))
        return pre(tuple(self.regions.to_regions(row) for row in x))

    def received(self, post: Callable[..., Any], gx: Any, x: tuple[Array, ...], strength: Array) -> tuple[Array, ...]:
        """Coupling input of points `[N, ...batch]` from sums over regions."""
        if self.regions is None:
            return tuple(post(gx, x, strength))
        nodes, shape = self.regions.to_nodes, x[0].shape
        if self.at == "nodes":
            rows = post(tuple(nodes(row) for row in gx), x, nodes(strength))
            inside = nodes(jnp.ones((self.regions.n_regions, *(1,) * (len(shape) - 1)), x[0].dtype))
            return tuple(row * inside for row in rows)
        means = tuple(self.regions.to_regions(row) for row in x)
        rows = post(gx, means, strength)
        return tuple(nodes(jnp.broadcast_to(row, (self.regions.n_regions, *shape[1:]))) for row in rows)


def exponential(apply: Callable[[Array], Array], x: Array, t: Any, norm: Any, steps: int | None) -> Array:
    """Action of a matrix exponential, exp(t K) x.

    Taylor polynomials of steps t / m with |t K / m| <= 1: one of degree 18 (11 in float32) is the exponential to
    rounding on the unit disc, so that the result is exact whatever t (Al-Mohy & Higham 2011, doi:10.1137/100788860).
    m = ceil(|t| norm) where numbers are known. Where they are traced it is `steps`, if given, and NaN comes out where
    that is too few; without it the loop is of unknown length and has no reverse-mode derivative.
    """
    reach = jnp.max(jnp.abs(as_array(t)) * norm)
    if steps is None:
        m: Any = jnp.maximum(1, jnp.ceil(reach)).astype(jnp.int32)
        m = m if is_traced(m) else int(m)
    else:
        m = max(1, steps)
    degree = 18 if x.dtype == jnp.float64 else 11
    h = as_array(t) / m

    def step(_: Any, y: Array) -> Array:
        term = y
        for k in range(1, degree + 1):
            term = (h / k) * apply(term)
            y = y + term
        return y

    y = jax.lax.fori_loop(0, m, step, x)
    return y if steps is None else jnp.where(reach <= 1.25 * m, y, jnp.nan)
