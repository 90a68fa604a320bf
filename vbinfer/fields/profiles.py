"""Profiles of kernels: how connections fall off with distance."""

import abc
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, param

TAIL = 1e-8
"""Share of the peak below which connections on a mesh are left out."""
_BELL_REACH = math.sqrt(-2.0 * math.log(TAIL))


def _bell(d: Array, width: Array) -> Array:
    """The Gaussian of integral 1 over the plane."""
    return jnp.exp(-0.5 * (d / width) ** 2) / (2.0 * math.pi * width**2)


class AbstractProfile(Parametrised):
    """Base of profiles, strength by distance in mm."""

    @abc.abstractmethod
    def __call__(self, d: Array, radius: float | None) -> Array:
        """Strength at a distance; `radius` as for `integral`."""

    @abc.abstractmethod
    def integral(self, radius: float | None) -> Array:
        """The integral that `normalise="integral"` divides by, mm^2.

        `radius` is that of the sphere, None on a mesh.
        """

    @abc.abstractmethod
    def reach(self) -> Any:
        """Distance at which it falls below `TAIL`, mm."""

    def validate(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(getattr(self, name), "ndim", 0):
                shape = list(getattr(self, name).shape)
                raise ValueError(f"{type(self).__name__} was given {name} of shape {shape}; expected one number")


class Gaussian(AbstractProfile):
    """Gaussian profile exp(-d^2 / 2 width^2).

    Its integral over the plane is 2 pi width^2.
    """

    width: Param = param(unit="mm", low=1e-9, axes=(), doc="standard deviation")

    def __call__(self, d: Array, radius: float | None) -> Array:
        return jnp.exp(-0.5 * (d / self.width) ** 2)

    def integral(self, radius: float | None) -> Array:
        return 2.0 * math.pi * self.width**2

    def reach(self) -> Any:
        return self.width * _BELL_REACH


class Exponential(AbstractProfile):
    """Exponential profile exp(-d / width).

    Its integral over the plane is 2 pi width^2.
    """

    width: Param = param(unit="mm", low=1e-9, axes=(), doc="distance at which it has fallen to 1/e")

    def __call__(self, d: Array, radius: float | None) -> Array:
        return jnp.exp(-d / self.width)

    def integral(self, radius: float | None) -> Array:
        return 2.0 * math.pi * self.width**2

    def reach(self) -> Any:
        return -self.width * math.log(TAIL)


class MexicanHat(AbstractProfile):
    """Excitation nearby, inhibition around it.

    Of two Gaussians of integral 1 over the plane the difference,

    k(d) = exp(-d^2/2 width^2) / 2 pi width^2 - ratio exp(-d^2/2 surround^2) / 2 pi surround^2

    which `normalise="integral"` leaves as it is: its integral, 1 - ratio, may be 0.
    """

    width: Param = param(unit="mm", low=1e-9, axes=(), doc="standard deviation of the excitation")
    surround: Param = param(unit="mm", low=1e-9, axes=(), doc="standard deviation of the inhibition")
    ratio: Param = param(1.0, low=0.0, axes=(), doc="inhibition per excitation")

    def __call__(self, d: Array, radius: float | None) -> Array:
        return _bell(d, self.width) - self.ratio * _bell(d, self.surround)

    def integral(self, radius: float | None) -> Array:
        return jnp.ones_like(self.width)

    def reach(self) -> Any:
        return jnp.maximum(self.width, self.surround) * _BELL_REACH


class VonMises(AbstractProfile):
    """Von Mises-Fisher profile on a sphere of radius R.

    k(d) = exp(kappa (cos(d / R) - 1))

    Its integral over the sphere is 2 pi R^2 (1 - exp(-2 kappa)) / kappa.
    """

    kappa: Param = param(low=1e-9, axes=(), doc="concentration; for large values a Gaussian of width R / sqrt(kappa)")

    def __call__(self, d: Array, radius: float | None) -> Array:
        assert radius is not None
        return jnp.exp(self.kappa * (jnp.cos(d / radius) - 1.0))

    def integral(self, radius: float | None) -> Array:
        assert radius is not None
        return -2.0 * math.pi * radius**2 * jnp.expm1(-2.0 * self.kappa) / self.kappa

    def reach(self) -> Any:
        return math.inf
