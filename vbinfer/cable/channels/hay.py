"""Channels of layer 5 pyramidal cells (Hay et al. 2011).

Rate equations at 34 degrees, doi:10.1371/journal.pcbi.1002107. The paper's calcium dynamics are `CaPump`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel
from vbinfer.cable.channels.rates import opening, ratio

WARM = 2.3 ** ((34.0 - 21.0) / 10.0)
"""How much faster gates measured at 21 degrees are at 34."""
JUNCTION = 10.0
"""Liquid junction potential of recordings, mV."""
Rates = dict[str, tuple[Array, Array]]
Currents = list[tuple[Array, Array]]


def _faster(gate: tuple[Array, Array]) -> tuple[Array, Array]:
    return gate[0], gate[1] / WARM


def _sodium_m(v: Array) -> tuple[Array, Array]:
    return opening(1.092 * ratio(-v / 6.0), 0.744 * ratio(v / 6.0))


def _sodium_h(v: Array) -> tuple[Array, Array]:
    return opening(0.09 * ratio(v / 6.0), 0.09 * ratio(-v / 6.0))


class NaTa(AbstractChannel):
    """Transient sodium current of the axon.

    i = g m^3 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(50.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        return {"m": _faster(_sodium_m(V + 38.0)), "h": _faster(_sodium_h(V + 66.0))}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 3 * x["h"], self.e)]


class NaTs2(AbstractChannel):
    """Transient sodium current of soma and dendrites.

    i = g m^3 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(50.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        return {"m": _faster(_sodium_m(V + 32.0)), "h": _faster(_sodium_h(V + 60.0))}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 3 * x["h"], self.e)]


class NaP(AbstractChannel):
    """Persistent sodium current.

    i = g m^3 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(50.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        m = jax.nn.sigmoid((V + 52.6) / 4.6), 6.0 * _sodium_m(V + 38.0)[1] / WARM
        slow = opening(1.33344e-5 * ratio((V + 17.0) / 4.63), 1.82522e-5 * ratio(-(V + 64.4) / 2.63))
        return {"m": m, "h": (jax.nn.sigmoid(-(V + 48.8) / 10.0), slow[1] / WARM)}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 3 * x["h"], self.e)]


class KP(AbstractChannel):
    """Slowly inactivating potassium current.

    i = g m^2 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-85.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        v = V + JUNCTION
        low = v < -50.0
        exponent = jnp.where(low, 0.026 * v, -0.026 * v)
        m = jax.nn.sigmoid((v + 1.0) / 12.0), (1.25 + jnp.where(low, 175.03, 13.0) * jnp.exp(exponent)) / WARM
        slow = 360.0 + (1010.0 + 24.0 * (v + 55.0)) * jnp.exp(-(((v + 75.0) / 48.0) ** 2))
        return {"m": m, "h": (jax.nn.sigmoid(-(v + 54.0) / 11.0), slow / WARM)}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 2 * x["h"], self.e)]


class KT(AbstractChannel):
    """Fast inactivating potassium current.

    i = g m^4 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-85.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        v = V + JUNCTION
        m = jax.nn.sigmoid(v / 19.0), (0.34 + 0.92 * jnp.exp(-(((v + 71.0) / 59.0) ** 2))) / WARM
        h = jax.nn.sigmoid(-(v + 66.0) / 10.0), (8.0 + 49.0 * jnp.exp(-(((v + 73.0) / 23.0) ** 2))) / WARM
        return {"m": m, "h": h}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 4 * x["h"], self.e)]


class SKv3(AbstractChannel):
    """Fast potassium current Kv3.1.

    i = g m (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m",)
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-85.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        return {"m": (jax.nn.sigmoid((V - 18.7) / 9.7), 4.0 * jax.nn.sigmoid((V + 46.56) / 44.14))}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"], self.e)]


class SK(AbstractChannel):
    """Potassium current that calcium opens.

    i = g z (V - e), z_inf = 1 / (1 + (0.00043 / ca)^4.8).
    """

    gates: ClassVar[tuple[str, ...]] = ("z",)
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-85.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        steady = jax.nn.sigmoid(4.8 * jnp.log(jnp.maximum(ca, 1e-6) / 4.3e-4))
        return {"z": (steady, jnp.ones_like(V))}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["z"], self.e)]


class Im(AbstractChannel):
    """Muscarinic potassium current: i = g m (V - e)."""

    gates: ClassVar[tuple[str, ...]] = ("m",)
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-85.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        s = 0.1 * (V + 35.0)
        return {"m": _faster(opening(3.3e-3 * jnp.exp(s), 3.3e-3 * jnp.exp(-s)))}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"], self.e)]


class Ih(AbstractChannel):
    """Cation current that hyperpolarisation opens.

    i = g m (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m",)
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-45.0, unit="mV", doc="reversal potential")

    def rates(self, V: Array, ca: Array) -> Rates:
        return {"m": opening(0.076517 * ratio((V + 154.9) / 11.9), 0.193 * jnp.exp(V / 33.1))}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"], self.e)]


class CaHVA(AbstractChannel):
    """High-threshold calcium current.

    i = g m^2 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    carries: ClassVar[str] = "ca"
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(120.0, unit="mV", doc="reversal potential, where no `Nernst` sets it")

    def rates(self, V: Array, ca: Array) -> Rates:
        m = opening(0.209 * ratio(-(V + 27.0) / 3.8), 0.94 * jnp.exp(-(V + 75.0) / 17.0))
        h = opening(0.000457 * jnp.exp(-(V + 13.0) / 50.0), 0.0065 * jax.nn.sigmoid((V + 15.0) / 28.0))
        return {"m": m, "h": h}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 2 * x["h"], self.e)]


class CaLVA(AbstractChannel):
    """Low-threshold calcium current.

    i = g m^2 h (V - e).
    """

    gates: ClassVar[tuple[str, ...]] = ("m", "h")
    carries: ClassVar[str] = "ca"
    g: Param = param(1e-5, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(120.0, unit="mV", doc="reversal potential, where no `Nernst` sets it")

    def rates(self, V: Array, ca: Array) -> Rates:
        v = V + JUNCTION
        m = jax.nn.sigmoid((v + 30.0) / 6.0), (5.0 + 20.0 * jax.nn.sigmoid(-(v + 25.0) / 5.0)) / WARM
        h = jax.nn.sigmoid(-(v + 80.0) / 6.4), (20.0 + 50.0 * jax.nn.sigmoid(-(v + 40.0) / 7.0)) / WARM
        return {"m": m, "h": h}

    def currents(self, V: Array, x: Any) -> Currents:
        return [(self.g * x["m"] ** 2 * x["h"], self.e)]
