"""Low-threshold calcium of cortical neurons."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel


class CaT(AbstractChannel):
    """Low-threshold calcium current, T type.

    i = g s_inf(V)^2 u (V - e).

    Pospischil et al. 2008, doi:10.1007/s00422-008-0263-8, with the time constant as it is in simulators, the constant
    30.8 inside:

        tau_u = (30.8 + 211.4 + exp((V + vx + 113.2) / 5)) / (3.7 (1 + exp((V + vx + 84) / 3.2)))
    """

    gates: ClassVar[tuple[str, ...]] = ("u",)
    carries: ClassVar[str] = "ca"
    g: Param = param(4e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(120.0, unit="mV", doc="reversal potential, where no `Nernst` sets it")
    vx: Param = param(2.0, unit="mV", doc="shift of all rates")

    def rates(self, V: Array, ca: Array) -> dict[str, tuple[Array, Array]]:
        v = V + self.vx
        off = (v + 84.0) / 3.2
        # exp(a) / (1 + exp(b)) as one exponential: neither overflows
        tau = 242.2 * jax.nn.sigmoid(-off) + jnp.exp((v + 113.2) / 5.0 - jax.nn.softplus(off))
        return {"u": (jax.nn.sigmoid(-(v + 81.0) / 4.0), tau / 3.7)}

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        s = jax.nn.sigmoid((V + self.vx + 57.0) / 6.2)
        return [(self.g * s**2 * x["u"], self.e)]
