"""A mean field of theta neurons with conductance-based synapses."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class CoombesByrneState(NamedTuple):
    """Rate and potential, each `[N]`.

    r: firing rate, 1/ms; V: mean membrane potential, dimensionless.
    """

    r: Array
    V: Array


class CoombesByrne2D(AbstractVectorField):
    """Theta neurons coupled by conductances.

    Synapses at their steady state (Coombes & Byrne 2019).

    dr/dt = Delta / pi + 2 V r - k pi r^2
    dV/dt = V^2 - (pi r)^2 + eta + (v_syn - V) k pi r + c + u
    r >= 0 after every stage

    Its relative with current-based synapses is `MontbrioPazoRoxin`. c is the coupling of r. Names and defaults are
    TVB's; the unit of time of the paper is taken as 1 ms.

    doi:10.1007/978-3-319-71048-8_1
    """

    State: ClassVar = CoombesByrneState
    start: ClassVar = {"r": 0.1}
    rows: ClassVar[int | None] = 1
    Delta: Param = param(1.0, low=0.0, doc="half-width of the distribution of excitabilities")
    v_syn: Param = param(-4.0, doc="reversal potential of the synapses")
    k: Param = param(1.0, doc="conductance of the synapses")
    eta: Param = param(2.0, doc="mean excitability")
    cvar: tuple[str, ...] = couples("r")

    def dfun(self, t: Array, x: CoombesByrneState, c: Array, u: Array) -> CoombesByrneState:
        r, V = x
        conductance = self.k * jnp.pi * r
        dr = self.Delta / jnp.pi + 2.0 * V * r - conductance * r
        dV = V**2 - (jnp.pi * r) ** 2 + self.eta + (self.v_syn - V) * conductance + c[0] + u
        return CoombesByrneState(dr, dV)

    def project(self, x: CoombesByrneState) -> CoombesByrneState:
        return CoombesByrneState(jnp.maximum(x.r, 0.0), x.V)
