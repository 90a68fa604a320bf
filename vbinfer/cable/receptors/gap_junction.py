"""Electrical synapses."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.cable.receptors.base import AbstractReceptor, Lead


class GapJunction(AbstractReceptor):
    """Current through gap junctions.

    i = sum_j w_ij (V_j - V_i), nA with weights in uS.

    For `cvar=("V",)` and `coupling=vb.coupling.Difference(G=1.0)`, whose row it adds as a current. Under `Native` the
    current of t + dt/2 is extrapolated from the last two steps, 3/2 i(t) - 1/2 i(t - dt): second order. It is explicit,
    stable while sum_j w_ij dt / C stays below 1.
    """

    states: ClassVar[tuple[str, ...]] = ("last", "begun")

    def advance(self, s: Any, c: Array, V: Array, lead: Lead) -> Any:
        last, begun = s
        i = c + (0.5 * begun * (c - last) if lead.event else 0.0)
        return jnp.zeros_like(c), i, (c, jnp.ones_like(begun))
