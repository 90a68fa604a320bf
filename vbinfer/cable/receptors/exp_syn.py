"""Synapses with one time constant."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.receptors.base import AbstractEvents


class ExpSyn(AbstractEvents):
    """Conductance that jumps and decays: g' = -g / tau.

    An event of weight w (uS) adds w to g.
    """

    states: ClassVar[tuple[str, ...]] = ("g",)
    tau: Param = param(2.0, unit="ms", low=1e-6, doc="time constant of the decay")
    e: Param = param(0.0, unit="mV", doc="reversal potential")

    def arrived(self, s: Any, c: Array) -> tuple[Array, ...]:
        return (s[0] + c,)

    def later(self, s: Any, h: float) -> tuple[Array, ...]:
        return (s[0] * jnp.exp(-h / self.tau),)

    def conductance(self, s: Any) -> Array:
        return s[0]
