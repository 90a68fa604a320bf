"""Alpha synapses."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.receptors.base import AbstractEvents


class Alpha(AbstractEvents):
    """Conductance of equal rise and decay.

    g = w (t / tau) exp(1 - t / tau).

    An event of weight w (uS) peaks at w, after tau.
    """

    states: ClassVar[tuple[str, ...]] = ("g", "rise")
    tau: Param = param(2.0, unit="ms", low=1e-6, doc="time to the peak")
    e: Param = param(0.0, unit="mV", doc="reversal potential")

    def arrived(self, s: Any, c: Array) -> tuple[Array, ...]:
        return s[0], s[1] + jnp.e * c

    def later(self, s: Any, h: float) -> tuple[Array, ...]:
        decay = jnp.exp(-h / self.tau)
        return (s[0] + s[1] * (h / self.tau)) * decay, s[1] * decay

    def conductance(self, s: Any) -> Array:
        return s[0]
