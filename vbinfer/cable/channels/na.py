"""Sodium of cortical neurons."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel
from vbinfer.cable.channels.rates import opening, ratio


class Na(AbstractChannel):
    """Fast sodium current.

    i = g m^3 h (V - e).

    Pospischil et al. 2008, doi:10.1007/s00422-008-0263-8; vt shifts all rates.
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    g: Param = param(0.05, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(50.0, unit="mV", doc="reversal potential")
    vt: Param = param(-60.0, unit="mV", doc="sets the threshold of spikes")

    def rates(self, V: Array, ca: Array) -> dict[str, tuple[Array, Array]]:
        v = V - self.vt
        m = opening(1.28 * ratio(-0.25 * (v - 13.0)), 1.4 * ratio(0.2 * (v - 40.0)))
        return {"m": m, "h": opening(0.128 * jnp.exp(-(v - 17.0) / 18.0), 4.0 * jax.nn.sigmoid((v - 40.0) / 5.0))}

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        return [(self.g * x["m"] ** 3 * x["h"], self.e)]
