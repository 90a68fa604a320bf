"""Leak."""

from typing import Any

from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.channels.base import AbstractChannel


class Leak(AbstractChannel):
    """A constant conductance: i = g (V - e)."""

    g: Param = param(1e-4, unit="S/cm2", low=0.0, doc="conductance")
    e: Param = param(-70.0, unit="mV", doc="reversal potential")

    def currents(self, V: Array, x: Any) -> list[tuple[Array, Array]]:
        return [(self.g, self.e)]
