"""Slow potassium of cortical neurons."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel


class Km(AbstractChannel):
    """Slow potassium current of adaptation.

    i = g p (V - e).

    Pospischil et al. 2008, doi:10.1007/s00422-008-0263-8
    """

    gates: ClassVar[tuple[str, ...]] = ("p",)
    g: Param = param(4e-6, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-90.0, unit="mV", doc="reversal potential")
    taumax: Param = param(4000.0, unit="ms", low=1e-6, doc="scale of the time constant")

    def rates(self, V: Array, ca: Array) -> dict[str, tuple[Array, Array]]:
        s = (V + 35.0) / 20.0
        return {"p": (jax.nn.sigmoid(2.0 * s), self.taumax / (3.3 * jnp.exp(s) + jnp.exp(-s)))}

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        return [(self.g * x["p"], self.e)]
