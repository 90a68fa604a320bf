"""Squid axon."""

import math
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel
from vbinfer.cable.channels.rates import opening, ratio

E_10, E_25, E_30 = math.exp(1.0), math.exp(2.5), math.exp(3.0)


class HH(AbstractChannel):
    """Currents of the squid axon (Hodgkin & Huxley 1952).

        i = g_na m^3 h (V - e_na) + g_k n^4 (V - e_k) + g_l (V - e_l)

    Rates at 6.3 degrees, with the axon at rest at -65 mV, as in NEURON's `hh`. doi:10.1113/jphysiol.1952.sp004764
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h", "n")
    g_na: Param = param(0.12, unit="S/cm2", low=0.0, doc="sodium conductance")
    g_k: Param = param(0.036, unit="S/cm2", low=0.0, doc="potassium conductance")
    g_l: Param = param(3e-4, unit="S/cm2", low=0.0, doc="leak conductance")
    e_na: Param = param(50.0, unit="mV", doc="reversal potential of sodium")
    e_k: Param = param(-77.0, unit="mV", doc="reversal potential of potassium")
    e_l: Param = param(-54.3, unit="mV", doc="reversal potential of the leak")

    def rates(self, V: Array, ca: Array) -> dict[str, tuple[Array, Array]]:
        # most of a step's time is exponentials: five of the six are powers of one, exp(-(V + 65)/10) = q^8
        q = jnp.exp(-(V + 65.0) / 80.0)
        q4 = (q * q) * (q * q)
        q8 = q4 * q4
        return {
            "m": opening(ratio(-(V + 40.0) / 10.0, E_25 * q8), 4.0 * jnp.exp(-(V + 65.0) / 18.0)),
            "h": opening(0.07 * q4, 1.0 / (1.0 + E_30 * q8)),
            "n": opening(0.1 * ratio(-(V + 55.0) / 10.0, E_10 * q8), 0.125 * q),
        }

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        na, k = self.g_na * x["m"] ** 3 * x["h"], self.g_k * x["n"] ** 4
        return [(na, self.e_na), (k, self.e_k), (self.g_l, self.e_l)]
