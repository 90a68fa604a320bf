"""High-threshold calcium of cortical neurons."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel
from vbinfer.cable.channels.rates import opening, ratio


class CaL(AbstractChannel):
    """High-threshold calcium current, L type.

    i = g q^2 r (V - e).

    Pospischil et al. 2008, doi:10.1007/s00422-008-0263-8
    """

    gates: ClassVar[tuple[str, ...]] = ("q", "r")
    carries: ClassVar[str] = "ca"
    g: Param = param(1e-4, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(120.0, unit="mV", doc="reversal potential, where no `Nernst` sets it")

    def rates(self, V: Array, ca: Array) -> dict[str, tuple[Array, Array]]:
        q = opening(0.209 * ratio(-(V + 27.0) / 3.8), 0.94 * jnp.exp(-(V + 75.0) / 17.0))
        r = opening(0.000457 * jnp.exp(-(V + 13.0) / 50.0), 0.0065 * jax.nn.sigmoid((V + 15.0) / 28.0))
        return {"q": q, "r": r}

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        return [(self.g * x["q"] ** 2 * x["r"], self.e)]
