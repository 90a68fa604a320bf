"""Potassium of cortical neurons."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel
from vbinfer.cable.channels.rates import opening, ratio


class K(AbstractChannel):
    """Delayed-rectifier potassium current: i = g n^4 (V - e).

    Pospischil et al. 2008, doi:10.1007/s00422-008-0263-8; vt shifts all rates.
    """

    gates: ClassVar[tuple[str, ...]] = ("n",)
    g: Param = param(0.005, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-90.0, unit="mV", doc="reversal potential")
    vt: Param = param(-60.0, unit="mV", doc="sets the threshold of spikes")

    def rates(self, V: Array, ca: Array) -> dict[str, tuple[Array, Array]]:
        v = V - self.vt
        return {"n": opening(0.16 * ratio(-0.2 * (v - 15.0)), 0.5 * jnp.exp(-(v - 10.0) / 40.0))}

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        return [(self.g * x["n"] ** 4, self.e)]
