"""Bases of eigenfunctions: coefficients of a field, and back."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array


class AbstractBasis(eqx.Module):
    """Eigenfunctions of -Laplacian, orthonormal under the areas.

    Coefficients have the draws of a batch as last axis.
    """

    eigenvalue: eqx.AbstractVar[Array]
    """1/mm^2, shaped to meet coefficients."""

    @abc.abstractmethod
    def analysed(self, x: Array) -> Array:
        """Coefficients of fields `[N, B]`."""

    @abc.abstractmethod
    def synthesised(self, c: Array) -> Array:
        """Fields `[N, B]` of coefficients."""

    @abc.abstractmethod
    def functions(self) -> tuple[Array, Array]:
        """Eigenfunctions `[N, K]` and eigenvalues, as `domain.modes` orders them."""


class Harmonics(AbstractBasis):
    """All harmonics of a sphere: `[order, degree, B]`."""

    eigenvalue: Array
    sphere: Any

    def analysed(self, x: Array) -> Array:
        return self.sphere.analysed(x)

    def synthesised(self, c: Array) -> Array:
        return self.sphere.synthesised(c)

    def functions(self) -> tuple[Array, Array]:
        return self.sphere.modes(self.sphere.n_modes)


class Modes(AbstractBasis):
    """The first k modes of a mesh: `[k, B]`."""

    eigenvalue: Array
    phi: Array
    """`[N, k]`."""
    areas: Array

    def analysed(self, x: Array) -> Array:
        return self.phi.T @ (self.areas[:, None] * x)

    def synthesised(self, c: Array) -> Array:
        return self.phi @ c

    def functions(self) -> tuple[Array, Array]:
        return self.phi, self.eigenvalue.ravel()
