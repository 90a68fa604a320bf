"""Graded synapses."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.receptors.base import AbstractReceptor, Lead


class Graded(AbstractReceptor):
    """Conductance that follows the presynaptic voltage (Abbott & Marder 1998).

        i = g s (V - e);   s' = (s_inf - s) / tau,   s_inf = 1 / (1 + exp((v_half - V_pre) / slope)),
        tau = (1 - s_inf) / k_minus

    For `cvar=("V",)`: its row of the coupling input is the presynaptic voltage, so that a site has one presynaptic
    partner of weight 1 in a projection, and several projections for several. A site that receives nothing, a row of
    exactly 0, has s_inf = 0. s starts at 0 and, under `Native`, lives at t - dt/2, as gates do.
    """

    states: ClassVar[tuple[str, ...]] = ("s",)
    g: Param = param(1e-4, unit="uS", low=0.0, doc="conductance of all channels open")
    e: Param = param(0.0, unit="mV", doc="reversal potential")
    v_half: Param = param(-35.0, unit="mV", doc="presynaptic voltage of half activation")
    slope: Param = param(10.0, unit="mV", low=1e-6, doc="of the activation")
    k_minus: Param = param(0.025, unit="1/ms", low=1e-9, doc="rate of unbinding")

    def _relaxed(self, s: Array, c: Array, h: Any) -> Array:
        x = (c - self.v_half) / self.slope
        steady = jnp.where(c == 0.0, 0.0, jax.nn.sigmoid(x))
        # 1 - s_inf as a logistic function of its own: far above threshold it would round to zero
        tau = jnp.where(c == 0.0, 1.0, jax.nn.sigmoid(-x)) / self.k_minus
        return s + (steady - s) * -jnp.expm1(-h / tau)

    def advance(self, s: Any, c: Array, V: Array, lead: Lead) -> Any:
        now = s[0] if lead.gate is None else self._relaxed(s[0], c, lead.gate)
        after = self._relaxed(s[0], c, lead.dt) if lead.gate is None else now
        g = self.g * now
        return g, g * (self.e - V), (after,)
