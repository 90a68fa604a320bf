"""Several surfaces and single points in one axis of nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import count, is_count
from vbinfer.fields.base import AbstractDomain, as_array
from vbinfer.fields.bases import Modes
from vbinfer.fields.pairs import AbstractPairs, Normalise
from vbinfer.fields.profiles import AbstractProfile

MODES = 400
"""Modes of waves unless asked for more or fewer."""


class Cortex(AbstractDomain):
    """Two hemispheres and subcortical points, in one axis of nodes.

    Nodes of the surfaces follow each other, then come the points. Operators act within each surface; points have no
    area, and are coupled by the connectome alone. Give them regions of their own in a `RegionMap`.

    Args:
        domains: surfaces, usually two: `Mesh` or `Sphere`.
        points: number of points, or their places, mm, `[P, 3]`.

    >>> import vbinfer as vb
    >>> ball = vb.fields.Sphere(3, radius=60.0)
    >>> cortex = vb.fields.Cortex([ball, ball], points=18)
    >>> cortex.n_nodes, cortex.parts()
    (82, (slice(0, 32, None), slice(32, 64, None), slice(64, 82, None)))
    """

    domains: tuple[AbstractDomain, ...]
    areas: Array
    positions: Array

    def __init__(self, domains: Sequence[AbstractDomain], points: Any = 0):
        self.domains = tuple(domains)
        if not self.domains or not all(isinstance(domain, AbstractDomain) for domain in self.domains):
            raise TypeError("Cortex was given no surfaces; write vb.fields.Cortex([left, right], points=18)")
        if is_count(points):
            place = np.zeros((count(points, "points", 18, least=0), 3))
        else:
            place = np.asarray(points, float)
            if place.ndim != 2 or place.shape[1] != 3 or not np.isfinite(place).all():
                raise ValueError(f"points is {list(place.shape)}; expected a number, or finite places [P, 3] in mm")
        self.areas = as_array(np.concatenate([*(np.asarray(d.areas) for d in self.domains), np.zeros(len(place))]))
        self.positions = as_array(np.concatenate([*(np.asarray(d.positions) for d in self.domains), place]))

    def parts(self) -> tuple[slice, ...]:
        """Nodes of every surface, then of the points."""
        ends = np.cumsum([0, *(d.n_nodes for d in self.domains)]).tolist()
        return (*map(slice, ends[:-1], ends[1:]), slice(ends[-1], self.n_nodes))

    @property
    def n_modes(self) -> int:
        return min(100, self.most_modes)

    @property
    def most_modes(self) -> int:
        return sum(d.most_modes for d in self.domains)

    def modes(self, k: int) -> tuple[Array, Array]:
        """Modes of the surfaces, merged; 0 at points.

        The first is constant over all surfaces; the others of eigenvalue 0 differ between them.
        """
        each = [d.modes(min(count(k, "k", 64, most=self.most_modes), d.most_modes)) for d in self.domains]
        total, surfaces = sum(len(eigenvalue) for _, eigenvalue in each), len(each)
        vectors, values = np.zeros((self.n_nodes, total)), np.concatenate([np.asarray(e) for _, e in each])
        column = 0
        for at, (phi, eigenvalue) in zip(self.parts(), each, strict=False):
            vectors[at, column : column + len(eigenvalue)] = phi
            column += len(eigenvalue)
        order = np.argsort(values, kind="stable")
        values, vectors = values[order], vectors[:, order]
        # constants of the surfaces, each of norm 1: turned so that the first is constant over all
        flat = np.sqrt([float(d.areas.sum()) for d in self.domains])
        turn, r = np.linalg.qr(np.column_stack([flat, np.eye(surfaces)[:, : surfaces - 1]]))
        vectors[:, :surfaces] = vectors[:, :surfaces] @ (turn * np.sign(np.diag(r)))
        return as_array(vectors[:, :k]), as_array(values[:k])

    def distances_from(self, node: int) -> np.ndarray:
        away = np.full(self.n_nodes, np.inf)
        away[node] = 0.0
        for at, domain in zip(self.parts(), self.domains, strict=False):
            if at.start <= node < at.stop:
                away[at] = domain.distances_from(node - at.start)
        return away

    def _each(self, fns: Sequence[Callable[[Array], Array]], x: Array, at_points: Callable[[Array], Array]) -> Array:
        """A function for each surface's part, one for points."""
        return jnp.concatenate([fn(x[at]) for fn, at in zip([*fns, at_points], self.parts(), strict=True)])

    def laplace_weights(self) -> Any:
        return tuple(d.laplace_weights() for d in self.domains)

    def laplacian(self, weights: Any, x: Array) -> Array:
        fns = [lambda y, d=d, w=w: d.laplacian(w, y) for d, w in zip(self.domains, weights, strict=True)]
        return self._each(fns, x, jnp.zeros_like)

    def heat_weights(self, s: Array) -> Any:
        return tuple(d.heat_weights(s) for d in self.domains)

    def heat(self, weights: Any, x: Array, stiffest: float, steps: int | None) -> Array:
        pairs = zip(self.domains, weights, strict=True)
        return self._each([lambda y, d=d, w=w: d.heat(w, y, stiffest, steps) for d, w in pairs], x, lambda y: y)

    def stiffest(self) -> float:
        return max(d.stiffest() for d in self.domains)

    def basis(self, modes: int | None) -> Modes:
        phi, eigenvalue = self.modes(min(MODES, self.most_modes) if modes is None else modes)
        return Modes(eigenvalue[:, None], phi, self.areas)

    def pairs(self, profile: AbstractProfile, cutoff: float | None) -> "OnSurfaces":
        return OnSurfaces(self, tuple(d.pairs(profile, cutoff) for d in self.domains))


class OnSurfaces(AbstractPairs):
    """A kernel within each surface of a cortex."""

    cortex: Cortex
    layouts: tuple[AbstractPairs, ...]

    def weights(self, profile: AbstractProfile, normalise: Normalise) -> Any:
        return tuple(layout.weights(profile, normalise) for layout in self.layouts)

    def applied(self, weights: Any, x: Array) -> Array:
        pairs = zip(self.layouts, weights, strict=True)
        return self.cortex._each([lambda y, o=o, w=w: o.applied(w, y) for o, w in pairs], x, jnp.zeros_like)

    def flow_weights(self, weights: Any, t: Any) -> Any:
        return tuple(layout.flow_weights(w, t) for layout, w in zip(self.layouts, weights, strict=True))

    def flowed(self, weights: Any, x: Array, norm: float, steps: int | None) -> Array:
        pairs = zip(self.layouts, weights, strict=True)
        return self.cortex._each([lambda y, o=o, w=w: o.flowed(w, y, norm, steps) for o, w in pairs], x, lambda y: y)

    def eigenvalues(self, weights: Any, k: int) -> Array:
        pairs = zip(self.layouts, weights, self.cortex.domains, strict=True)
        found = jnp.concatenate([o.eigenvalues(w, min(k, d.most_modes)) for o, w, d in pairs])
        return found[jnp.argsort(-jnp.abs(found))][:k]

    def norm(self, weights: Any) -> float:
        return max(layout.norm(w) for layout, w in zip(self.layouts, weights, strict=True))
