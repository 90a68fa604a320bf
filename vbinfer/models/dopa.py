"""Adaptive quadratic integrate-and-fire neurons under dopamine."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class DopaState(NamedTuple):
    """Rate, potential, adaptation, gating and dopamine, each `[N]`.

    r: firing rate, kHz; V: potential, mV; u: adaptation; Sa, Sg: AMPA and GABA gating; Dp: dopamine.
    """

    r: Array
    V: Array
    u: Array
    Sa: Array
    Sg: Array
    Dp: Array


class DopaAdaptiveQIF(AbstractVectorField):
    """Mean field of adaptive QIF neurons with dopamine.

    Dopamine strengthens excitatory synapses (Depannemaecker et al. 2024).

    dr/dt = 2 a r V + b r - (ga Sa + gg Sg) r + a Delta / pi
    dV/dt = a V^2 + b V + c - pi^2 r^2 / a + Eta + Iext + I_u - u
            + (Ad Dp + Bd) ga Sa (Ea - V) + gg Sg (Eg - V)
    du/dt = alpha (beta V - u) + ud r
    dSa/dt = -Sa / tauSa + Sja we c_e;   dSg/dt = -Sg / tauSg + Sjg wi c_i
    dDp/dt = (k wd c_d - Vmax Dp / (Km + Dp)) / tau_Dp
    r, Dp >= 0 after every stage

    I_u is the stimulus. c_e, c_i and c_d are the rows of the coupling input: excitatory, inhibitory and dopaminergic
    projections of r, each with its own delays: `Simulator(model, {"exc": ..., "inh": ..., "dop": ...}, coupling=...)`.
    One connectome alone serves all three, and `we`, `wi`, `wd`, one value per receiving node, say who receives it;
    0 switches a projection off. Names and defaults are vbjax's, whose Dp has no bound.

    doi:10.1101/2024.06.23.600260
    """

    State: ClassVar = DopaState
    start: ClassVar = {"r": 0.03, "V": -67.0, "Dp": 0.5}
    moved: ClassVar = dict.fromkeys(
        ("Ci", "Cd"),
        'inhibition and dopamine are projections: write Simulator(model, {"exc": connectome, "inh": vb.Connectome(Ci), '
        '"dop": vb.Connectome(Cd)}, coupling={"exc": vb.coupling.Linear(G=0.5), "inh": vb.coupling.Linear(), ...})',
    )
    rows: ClassVar[int | None] = 3
    a: Param = param(0.04, low=1e-6, doc="quadratic coefficient of the potential")
    b: Param = param(5.0, doc="linear coefficient of the potential")
    c: Param = param(140.0, doc="constant drive")
    ga: Param = param(12.0, low=0.0, doc="AMPA conductance")
    gg: Param = param(12.0, low=0.0, doc="GABA conductance")
    Delta: Param = param(1.0, low=0.0, doc="half-width of the distribution of excitabilities")
    Eta: Param = param(18.0, doc="mean excitability")
    Iext: Param = param(0.0, doc="external current")
    Ea: Param = param(0.0, unit="mV", doc="reversal potential of AMPA synapses")
    Eg: Param = param(-80.0, unit="mV", doc="reversal potential of GABA synapses")
    tauSa: Param = param(5.0, unit="ms", low=1e-6, doc="decay time of AMPA gating")
    tauSg: Param = param(5.0, unit="ms", low=1e-6, doc="decay time of GABA gating")
    Sja: Param = param(0.8, doc="AMPA gating opened per input")
    Sjg: Param = param(1.2, doc="GABA gating opened per input")
    ud: Param = param(12.0, doc="adaptation per spike")
    alpha: Param = param(0.013, unit="1/ms", low=0.0, doc="rate of adaptation")
    beta: Param = param(0.4, doc="adaptation to the potential")
    k: Param = param(1e5, doc="dopamine released per input")
    Vmax: Param = param(1300.0, low=0.0, doc="largest rate of dopamine reuptake")
    Km: Param = param(150.0, low=1e-6, doc="dopamine at half of the largest reuptake")
    Bd: Param = param(0.2, doc="gain of AMPA synapses without dopamine")
    Ad: Param = param(1.0, doc="gain of AMPA synapses per dopamine")
    tau_Dp: Param = param(500.0, unit="ms", low=1e-6, doc="time scale of dopamine")
    wi: Param = param(1e-4, doc="gain of inhibitory projections, per receiver")
    we: Param = param(1e-4, doc="gain of excitatory projections, per receiver")
    wd: Param = param(1e-4, doc="gain of dopaminergic projections, per receiver")
    cvar: tuple[str, ...] = couples("r")

    def dfun(self, t: Array, x: DopaState, c: Array, u: Array) -> DopaState:
        r, V, adaptation, Sa, Sg, Dp = x
        c_e, c_i, c_d = c if len(c) == 3 else (c[0], c[0], c[0])
        g_a, g_g = self.ga * Sa, self.gg * Sg
        dr = (2.0 * self.a * V + self.b - g_a - g_g) * r + self.a * self.Delta / jnp.pi
        synaptic = (self.Ad * Dp + self.Bd) * g_a * (self.Ea - V) + g_g * (self.Eg - V)
        intrinsic = self.a * V**2 + self.b * V + self.c - (jnp.pi * r) ** 2 / self.a
        return DopaState(
            r=dr,
            V=intrinsic + self.Eta + self.Iext + u + synaptic - adaptation,
            u=self.alpha * (self.beta * V - adaptation) + self.ud * r,
            Sa=-Sa / self.tauSa + self.Sja * self.we * c_e,
            Sg=-Sg / self.tauSg + self.Sjg * self.wi * c_i,
            Dp=(self.k * self.wd * c_d - self.Vmax * Dp / (self.Km + Dp)) / self.tau_Dp,
        )

    def project(self, x: DopaState) -> DopaState:
        return x._replace(r=jnp.maximum(x.r, 0.0), Dp=jnp.maximum(x.Dp, 0.0))
