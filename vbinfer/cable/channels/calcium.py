"""Calcium inside: shell, pump, reversal potential."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractPool, AbstractReversal

FARADAY = 96485.33212
"""C/mol."""
GAS = 8.31446261815324
"""J/(mol K)."""
MM_PER_CURRENT = 1e4
"""mM/ms of 1 mA/cm2 into a shell of 1 um, in units of 1/FARADAY per charge."""


class CaPump(AbstractPool):
    """Pumped calcium below the membrane (Destexhe et al. 1994).

        ca' = -1e4 gamma i_ca / (2 F depth) - (ca - ca_min) / tau

    i_ca is the sum of all calcium currents of the compartment, mA/cm2. doi:10.1152/jn.1994.72.2.803
    """

    gates: ClassVar[tuple[str, ...]] = ("ca",)
    gamma: Param = param(0.05, low=0.0, high=1.0, doc="share of ions that stays free")
    tau: Param = param(80.0, unit="ms", low=1e-6, doc="time constant of the pump")
    depth: Param = param(0.1, unit="um", low=1e-6, doc="thickness of the shell")
    ca_min: Param = param(1e-4, unit="mM", low=0.0, doc="concentration at rest")

    def initial(self, like: Array) -> Array:
        return jnp.broadcast_to(self.ca_min, like.shape)

    def rates(self, i: Array) -> tuple[Array, Array]:
        influx = -MM_PER_CURRENT * self.gamma * i / (2.0 * FARADAY * self.depth)
        return self.ca_min + self.tau * influx, self.tau


class Nernst(AbstractReversal):
    """Reversal potential of calcium.

    e = 1000 R T / (2 F) log(out / ca), mV.
    """

    out: Param = param(2.0, unit="mM", low=1e-9, doc="calcium outside")
    temperature: Param = param(279.45, unit="K", low=1.0, doc="absolute temperature")

    def potential(self, ca: Array) -> Array:
        # a current may not draw more than there is: below a millionth of mM the logarithm stays
        return 1e3 * GAS * self.temperature / (2.0 * FARADAY) * jnp.log(self.out / jnp.maximum(ca, 1e-6))
