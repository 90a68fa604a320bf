"""Diffusion along a surface."""

from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.fields.base import AbstractDomain, AbstractOperator


class LaplaceBeltrami(AbstractOperator):
    """Diffusion, D times the Laplacian of the surface.

    On a sphere eigenvalues are -D l(l+1)/R^2; on a mesh it is the cotangent operator with lumped areas, second order in
    the length of edges. `flow` is exact and stable for every step, while an explicit integrator needs
    D dt stiffest < 2.

    >>> import vbinfer as vb
    >>> op = vb.fields.LaplaceBeltrami(vb.fields.Sphere(lmax=3, radius=1.0), D=0.5)
    >>> op.eigenvalues()[1:5].tolist()  # degree 1, thrice, and 2
    [-1.0, -1.0, -1.0, -3.0]
    """

    decays: ClassVar[bool] = True
    domain: AbstractDomain
    stiffest: float = eqx.field(static=True)
    """Largest eigenvalue of -Laplacian, 1/mm^2."""
    laplace: Any
    """Weights of the Laplacian, which no parameter changes."""
    D: Param = param(unit="mm2/ms", low=0.0, axes=(), doc="diffusion coefficient")

    def __init__(self, domain: AbstractDomain, D: Any):
        self.domain, self.D, self.stiffest = domain, D, domain.stiffest()
        self.laplace = domain.laplace_weights()

    def validate(self) -> None:
        if self.D.ndim:
            raise ValueError(f"LaplaceBeltrami was given D of shape {list(self.D.shape)}; expected one number, mm2/ms")

    def weights(self) -> Any:
        return self.laplace

    def applied(self, weights: Any, x: Array) -> Array:
        return self.D * self.domain.laplacian(weights, x)

    def flow_weights(self, t: Any) -> Any:
        return self.domain.heat_weights(self.D * t)

    def flowed(self, weights: Any, x: Array, steps: int | None) -> Array:
        return self.domain.heat(weights, x, self.stiffest, steps)

    def eigenvalues(self, k: int | None = None) -> Array:
        """-D times the eigenvalues of -Laplacian, as `domain.modes` has them.

        All of a sphere; of a mesh the first k, 100 unless said.
        """
        return -self.D * self.domain.modes(k or self.domain.n_modes)[1]

    def norm(self) -> Any:
        return self.D * self.stiffest
