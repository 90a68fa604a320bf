"""Local connectivity that depends on distance alone."""

import math
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from vbinfer._check import one_of, positive
from vbinfer._param import is_traced
from vbinfer.fields.base import AbstractDomain, AbstractOperator
from vbinfer.fields.pairs import AbstractPairs, Normalise
from vbinfer.fields.profiles import AbstractProfile, MexicanHat


class Kernel(AbstractOperator):
    """Convolution of a field with a profile of distance.

    (K x)_i = sum_j k(d_ij) area_j x_j / norm

    On a sphere by degree (Funk and Hecke): g_l = 2 pi R^2 int k(R a) P_l(cos a) sin a da. On a mesh d runs along edges,
    which is longer than the surface's shortest path by some percent, and every point reads those within the cutoff.
    Areas make it self-adjoint under `domain.inner` and the same at every resolution. Widths are parameters
    (`field.local.shape.width`), and may have priors.

    Args:
        domain: a `Sphere` or a mesh.
        shape: `Gaussian(width)`, `Exponential(width)`, `MexicanHat(width, surround, ratio)` or `VonMises(kappa)`.
        normalise: `"integral"` divides by the integral over the plane (of `VonMises` over the sphere); `"rows"` by that
            of each point, so that constants are kept, on a mesh at the price of self-adjointness; `"tvb"`, for meshes:
            no self-connection, no areas, rows scaled to their mean sum, so that a finer mesh is another model.
        cutoff: mm beyond which nothing is connected. None: a sphere connects all; a mesh within the distance at which
            the profile, as constructed, is below 1e-8 of its peak.

    >>> import vbinfer as vb
    >>> sphere = vb.fields.Sphere(lmax=15, radius=100.0)
    >>> kernel = vb.fields.Kernel(sphere, vb.fields.Gaussian(width=15.0), normalise="rows")
    >>> bool(abs(kernel.eigenvalues()[0] - 1.0) < 1e-5)
    True
    """

    domain: AbstractDomain
    shape: AbstractProfile
    normalise: Normalise = eqx.field(static=True)
    layout: AbstractPairs
    size: float = eqx.field(static=True)

    def __init__(
        self,
        domain: AbstractDomain,
        shape: AbstractProfile,
        normalise: Normalise = "integral",
        cutoff: float | None = None,
    ):
        if not isinstance(shape, AbstractProfile):
            raise TypeError(f"Kernel was given the shape {shape!r}; expected a profile, vb.fields.Gaussian(width=10.0)")
        self.normalise = one_of(normalise, "normalise", ("integral", "rows", "tvb"))
        cutoff = None if cutoff is None else positive(cutoff, "cutoff", 40.0, "mm")
        self.domain, self.shape, self.layout = domain, shape, domain.pairs(shape, cutoff)
        if normalise == "rows" and isinstance(shape, MexicanHat) and _is_balanced(shape.ratio):
            raise ValueError('a MexicanHat with ratio=1 has no integral to divide by; write normalise="integral"')
        values = self.weights()
        traced = is_traced(values)
        self.size = math.inf if traced else self.layout.norm(values)

    def weights(self) -> Any:
        return self.layout.weights(self.shape, self.normalise)

    def applied(self, weights: Any, x: Array) -> Array:
        return self.layout.applied(weights, x)

    def flow_weights(self, t: Any) -> Any:
        return self.layout.flow_weights(self.weights(), t)

    def flowed(self, weights: Any, x: Array, steps: int | None) -> Array:
        return self.layout.flowed(weights, x, self.size, steps)

    def eigenvalues(self, k: int | None = None) -> Array:
        """Eigenvalues, on a sphere degree by degree.

        On a mesh the k largest, 100 unless said.
        """
        return self.layout.eigenvalues(self.weights(), k or self.domain.n_modes)

    def norm(self) -> float:
        return self.size


def _is_balanced(ratio: Any) -> bool:
    return not is_traced(ratio) and bool(np.isclose(float(ratio), 1.0, atol=1e-6))
