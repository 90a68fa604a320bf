"""Synapses with a rise and a decay."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.receptors.base import AbstractEvents


class DualExp(AbstractEvents):
    """Conductance that rises and decays.

    g = w f (exp(-t / tau_decay) - exp(-t / tau_rise)).

    f makes the peak of an event its weight w (uS). `tau_rise` is below `tau_decay`; inside a trace the conductance is
    NaN where it is not, a failed draw.
    """

    states: ClassVar[tuple[str, ...]] = ("decay", "rise")
    tau_rise: Param = param(0.5, unit="ms", low=1e-6, doc="time constant of the rise")
    tau_decay: Param = param(5.0, unit="ms", low=1e-6, doc="time constant of the decay")
    e: Param = param(0.0, unit="mV", doc="reversal potential")

    def validate(self) -> None:
        if not any(isinstance(leaf, Tracer) for leaf in (self.tau_rise, self.tau_decay)):
            rise, decay = np.asarray(self.tau_rise), np.asarray(self.tau_decay)
            if np.any(rise >= decay):
                raise ValueError(
                    f"DualExp: tau_rise is {rise.max():g} and tau_decay {decay.min():g} ms; the rise is the faster one "
                    "(vb.cable.Alpha(tau) where they are equal)"
                )

    def arrived(self, s: Any, c: Array) -> tuple[Array, ...]:
        return s[0] + c, s[1] + c

    def later(self, s: Any, h: float) -> tuple[Array, ...]:
        return s[0] * jnp.exp(-h / self.tau_decay), s[1] * jnp.exp(-h / self.tau_rise)

    def conductance(self, s: Any) -> Array:
        ratio = self.tau_rise / jnp.where(self.tau_rise < self.tau_decay, self.tau_decay, jnp.nan)
        # at the peak the two exponentials are ratio^(ratio / (1 - ratio)) and ratio^(1 / (1 - ratio))
        low = ratio ** (1.0 / (1.0 - ratio))
        return (s[0] - s[1]) / (low / ratio - low)
