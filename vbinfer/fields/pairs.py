"""Layouts of kernels: by degree, or by pairs."""

import abc
import math
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import count
from vbinfer.fields.base import as_array, exponential
from vbinfer.fields.profiles import AbstractProfile
from vbinfer.fields.rows import Rows, leading, padded

Normalise = Literal["integral", "rows", "tvb"]


class AbstractPairs(eqx.Module):
    """Layout of a kernel over pairs of points."""

    @abc.abstractmethod
    def weights(self, profile: AbstractProfile, normalise: Normalise) -> Array:
        """Values of the kernel."""

    @abc.abstractmethod
    def applied(self, weights: Array, x: Array) -> Array:
        """The integral of the kernel times x."""

    @abc.abstractmethod
    def flow_weights(self, weights: Array, t: Any) -> Any:
        """What all flows over t ms share."""

    @abc.abstractmethod
    def flowed(self, weights: Any, x: Array, norm: float, steps: int | None) -> Array:
        """exp(t kernel) x."""

    @abc.abstractmethod
    def eigenvalues(self, weights: Array, k: int) -> Array:
        """The first k eigenvalues."""

    @abc.abstractmethod
    def norm(self, weights: Array) -> float:
        """A bound of their size."""


class OnSphere(AbstractPairs):
    """A gain for each degree of a sphere's harmonics.

    g_l = 2 pi R^2 int_0^cutoff k(R a) P_l(cos a) sin a da   (Funk 1915, Hecke 1918), by Gauss-Legendre nodes in the
    angle a, so that profiles with a tip at 0 are smooth too.
    """

    sphere: Any
    angle: Array
    """`[node]`."""
    funk_hecke: Array
    """`[lmax + 1, node]`: 2 pi R^2 P_l(cos a) sin a times weights."""

    def __init__(self, sphere: Any, cutoff: float | None):
        end = math.pi if cutoff is None else min(math.pi, cutoff / sphere.radius)
        node, w = np.polynomial.legendre.leggauss(max(256, 8 * (sphere.lmax + 1)))
        a = 0.5 * end * (node + 1.0)
        legendre = np.polynomial.legendre.legvander(np.cos(a), sphere.lmax).T
        self.sphere, self.angle = sphere, as_array(a)
        self.funk_hecke = as_array(legendre * (np.pi * sphere.radius**2 * end * w * np.sin(a)))

    def _gains(self, profile: AbstractProfile, normalise: Normalise) -> Array:
        if normalise == "tvb":
            raise ValueError('normalise="tvb" is for meshes; on a sphere write normalise="integral" or "rows"')
        radius = self.sphere.radius
        angle = self.angle[:, None] if is_drawn(profile) else self.angle
        g = self.funk_hecke @ profile(angle * radius, radius)
        return g / (g[:1] if normalise == "rows" else profile.integral(radius))

    def weights(self, profile: AbstractProfile, normalise: Normalise) -> tuple[Array, Array]:
        g = self._gains(profile, normalise)
        return g, self.sphere.folded(g)

    def applied(self, weights: tuple[Array, Array], x: Array) -> Array:
        return self.sphere.filtered(weights[1], x)

    def flow_weights(self, weights: tuple[Array, Array], t: Any) -> Array:
        return self.sphere.grown(weights[0], t)

    def flowed(self, weights: Array, x: Array, norm: float, steps: int | None) -> Array:
        return x + self.sphere.filtered(weights, x)

    def eigenvalues(self, weights: tuple[Array, Array], k: int) -> Array:
        return weights[0][self.sphere.degrees()[: count(k, "k", 64, most=self.sphere.n_modes)]]

    def norm(self, weights: tuple[Array, Array]) -> float:
        return float(jnp.abs(weights[0]).max())


def is_drawn(profile: AbstractProfile) -> bool:
    """Whether its parameters differ from draw to draw, `[1, B]`."""
    return any(getattr(getattr(profile, name), "ndim", 0) for name in profile.__dataclass_fields__)


class OnMesh(AbstractPairs):
    """Pairs of a mesh that are connected, padded rows."""

    rows: Rows
    distance: Array
    """mm, `[N, K]`."""
    area: Array
    """mm^2 of the sender, `[N, K]`, 0 where there is none."""
    areas: Array

    def __init__(self, areas: np.ndarray, distances: Any):
        # stored as distance + 1, so that a point's own distance, 0, is stored too
        self.rows, shifted, there = padded(distances)
        self.distance = as_array(np.where(there, shifted - 1.0, 0.0))
        sender = (
            np.broadcast_to(areas, shifted.shape) if self.rows.index is None else areas[np.asarray(self.rows.index)]
        )
        self.area, self.areas = as_array(np.where(there, sender, 0.0)), as_array(areas)

    def weights(self, profile: AbstractProfile, normalise: Normalise) -> Array:
        drawn = is_drawn(profile)
        # widths of each draw are [1, B]: they meet pairs [N K, 1], and rows [N, K, B] come of it
        k = profile(self.distance.reshape(-1, 1) if drawn else self.distance, None)
        if normalise == "integral":
            k = k / profile.integral(None)
        area, distance = self.area, self.distance
        if drawn:
            k, area, distance = k.reshape(*distance.shape, -1), area[..., None], distance[..., None]
        if normalise == "tvb":
            k = jnp.where((area > 0.0) & (distance > 0.0), k, 0.0)
            return _by_rows(k) * k.sum(axis=1, keepdims=True).mean(axis=0, keepdims=True)
        return _by_rows(k * area) if normalise == "rows" else k * area

    def applied(self, weights: Array, x: Array) -> Array:
        return self.rows.product(weights, x)

    def flow_weights(self, weights: Array, t: Any) -> tuple[Array, Any]:
        return weights, t

    def flowed(self, weights: tuple[Array, Any], x: Array, norm: float, steps: int | None) -> Array:
        return exponential(lambda y: self.applied(weights[0], y), x, weights[1], norm, steps)

    def eigenvalues(self, weights: Array, k: int) -> Array:
        return as_array(leading(self.rows, weights, k))

    def norm(self, weights: Array) -> float:
        return float(jnp.abs(weights).sum(axis=1).max())


def _by_rows(k: Array) -> Array:
    """Rows divided by their sums, empty ones 0."""
    total = k.sum(axis=1, keepdims=True)
    return k / jnp.where(total == 0.0, 1.0, total)
