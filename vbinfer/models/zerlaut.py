"""Mean field of conductance-based neurons with adaptation.

Through a fitted transfer function.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples

SPONTANEOUS = 1e-6
"""Rate of spontaneous release, 1/ms: keeps the variance of the potential above zero without any input."""

# fits to regular-spiking and fast-spiking cells (Zerlaut et al. 2018, as in TVB), in V
_REGULAR = (
    *(-0.04983106, 0.005063550882777035, -0.023470121807314552, 0.0022951513725067503, -0.0004105302652029825),
    *(0.010547051343547399, -0.03659252821136933, 0.007437487505797858, 0.001265064721846073, -0.04072161294490446),
)
_FAST = (
    *(-0.05149122024209484, 0.004003689190271077, -0.008352013668528155, 0.0002414237992765705),
    *(-0.0005070645080016026, 0.0014345394104282397, -0.014686689498949967, 0.004502706285435741),
    *(0.0028472190352532454, -0.015357804594594548),
)


class ZerlautState(NamedTuple):
    """Rates, adaptation and drive, each `[N]`.

    E, I: firing rates, kHz; W_e, W_i: adaptation currents, pA; ou_drift: fluctuating drive.
    """

    E: Array
    I: Array
    W_e: Array
    W_i: Array
    ou_drift: Array


class ZerlautAdaptationFirstOrder(AbstractVectorField):
    """Mean rates of AdEx networks with adaptation.

    Without covariances (Zerlaut et al. 2018; di Volo et al. 2019).

    T dE/dt = F(P_e, mu_e, sigma_e, T_e) - E;   T dI/dt = F(P_i, mu_i, sigma_i, T_i) - I
    dW_e/dt = -W_e / tau_w_e + b_e E + a_e (mu_e - E_L_e) / tau_w_e;   dW_i/dt likewise with i, b_i I
    d ou_drift/dt = -ou_drift / tau_OU
    E, I >= 0 after every stage

    The potential of population k with input rates f_e, f_i per neuron (`_fluctuations`), s in {e, i}:
    f_e = (1 - g) p_connect_e N_tot (E + 1e-6) + K_ext_e (drive + external_input_k_ex)
    f_i = g p_connect_i N_tot (I + 1e-6) + K_ext_i external_input_k_in;   drive = max(c + weight_noise ou_drift + u, 0)
    mu_G = g_L + Q_e tau_e f_e + Q_i tau_i f_i;   T_m = C_m / mu_G;   U_s = Q_s (E_s - mu) / mu_G
    mu = (Q_e tau_e f_e E_e + Q_i tau_i f_i E_i + g_L E_L_k - W_k) / mu_G
    sigma^2 = sum_s f_s (U_s tau_s)^2 / (2 (tau_s + T_m))
    T_k = sum_s f_s (U_s tau_s)^2 / (2 sigma^2)
    and its rate is F = erfc((V_thr - mu) / (sqrt 2 sigma)) / (2 T_k), with V_thr in mV 1000 times a quadratic P_k in
    (mu + 60)/10, (sigma - 4)/6 and T_k g_L / C_m - 0.5: constant, three linear, three squares, products 12, 13, 23.

    c is the coupling of E, a rate in kHz that both populations receive, through K_ext_e synapses, as does u. The clip
    of the drive at zero and all names and defaults are TVB's; its S_i has no effect there at first order and is left
    out. Noise belongs on ou_drift: `noise.Additive({"ou_drift": sigma})`.

    doi:10.1007/s10827-017-0668-2, doi:10.1162/neco_a_01173
    """

    State: ClassVar = ZerlautState
    start: ClassVar = {"E": 0.01, "I": 0.01, "W_e": 100.0}
    rows: ClassVar[int | None] = 1
    g_L: Param = param(10.0, unit="nS", low=1e-6, doc="leak conductance")
    E_L_e: Param = param(-65.0, unit="mV", doc="leak reversal potential of excitatory cells")
    E_L_i: Param = param(-65.0, unit="mV", doc="leak reversal potential of inhibitory cells")
    C_m: Param = param(200.0, unit="pF", low=1e-6, doc="membrane capacitance")
    b_e: Param = param(60.0, unit="pA", doc="adaptation current per spike of excitatory cells")
    a_e: Param = param(4.0, unit="nS", doc="adaptation conductance of excitatory cells")
    b_i: Param = param(0.0, unit="pA", doc="adaptation current per spike of inhibitory cells")
    a_i: Param = param(0.0, unit="nS", doc="adaptation conductance of inhibitory cells")
    tau_w_e: Param = param(500.0, unit="ms", low=1e-6, doc="adaptation time of excitatory cells")
    tau_w_i: Param = param(1.0, unit="ms", low=1e-6, doc="adaptation time of inhibitory cells")
    E_e: Param = param(0.0, unit="mV", doc="reversal potential of excitatory synapses")
    E_i: Param = param(-80.0, unit="mV", doc="reversal potential of inhibitory synapses")
    Q_e: Param = param(1.5, unit="nS", low=0.0, doc="conductance per excitatory spike")
    Q_i: Param = param(5.0, unit="nS", low=0.0, doc="conductance per inhibitory spike")
    tau_e: Param = param(5.0, unit="ms", low=1e-6, doc="decay of excitatory conductances")
    tau_i: Param = param(5.0, unit="ms", low=1e-6, doc="decay of inhibitory conductances")
    N_tot: Param = param(10000.0, low=1.0, doc="number of neurons")
    p_connect_e: Param = param(0.05, low=0.0, high=1.0, doc="probability of a connection from an excitatory cell")
    p_connect_i: Param = param(0.05, low=0.0, high=1.0, doc="probability of a connection from an inhibitory cell")
    g: Param = param(0.2, low=0.0, high=1.0, doc="fraction of inhibitory cells")
    K_ext_e: Param = param(400.0, low=0.0, doc="number of excitatory synapses from outside")
    K_ext_i: Param = param(0.0, low=0.0, doc="number of inhibitory synapses from outside")
    T: Param = param(20.0, unit="ms", low=1e-6, doc="time scale of the network activity")
    P_e: Param = param(_REGULAR, unit="V", axes=("coefficient",), doc="threshold polynomial of excitatory cells")
    P_i: Param = param(_FAST, unit="V", axes=("coefficient",), doc="threshold polynomial of inhibitory cells")
    external_input_ex_ex: Param = param(0.0, unit="kHz", doc="excitatory drive of excitatory cells")
    external_input_ex_in: Param = param(0.0, unit="kHz", doc="inhibitory drive of excitatory cells")
    external_input_in_ex: Param = param(0.0, unit="kHz", doc="excitatory drive of inhibitory cells")
    external_input_in_in: Param = param(0.0, unit="kHz", doc="inhibitory drive of inhibitory cells")
    tau_OU: Param = param(5.0, unit="ms", low=1e-6, doc="correlation time of the fluctuating drive")
    weight_noise: Param = param(10.5, unit="kHz", doc="strength of the fluctuating drive")
    cvar: tuple[str, ...] = couples("E")

    def validate(self) -> None:
        for name in ("P_e", "P_i"):
            shape = getattr(self, name).shape
            if shape[:1] != (10,):
                raise ValueError(f"ZerlautAdaptationFirstOrder.{name} was given shape {list(shape)}; it has 10 numbers")

    def dfun(self, t: Array, x: ZerlautState, c: Array, u: Array) -> ZerlautState:
        E, I, W_e, W_i, ou_drift = x
        drive = c[0] + self.weight_noise * ou_drift + u
        # not maximum, whose gradient at zero, where an unconnected node sits, would be one half
        drive = jnp.where(drive < 0.0, 0.0, drive)
        local_e = (1.0 - self.g) * self.p_connect_e * self.N_tot * (E + SPONTANEOUS)
        local_i = self.g * self.p_connect_i * self.N_tot * (I + SPONTANEOUS)
        mu_e, F_e = self._transfer(
            local_e + self.K_ext_e * (drive + self.external_input_ex_ex),
            local_i + self.K_ext_i * self.external_input_ex_in,
            self.g_L * self.E_L_e - W_e,
            self.P_e,
        )
        mu_i, F_i = self._transfer(
            local_e + self.K_ext_e * (drive + self.external_input_in_ex),
            local_i + self.K_ext_i * self.external_input_in_in,
            self.g_L * self.E_L_i - W_i,
            self.P_i,
        )
        dW_e = (self.a_e * (mu_e - self.E_L_e) - W_e) / self.tau_w_e + self.b_e * E
        dW_i = (self.a_i * (mu_i - self.E_L_i) - W_i) / self.tau_w_i + self.b_i * I
        return ZerlautState((F_e - E) / self.T, (F_i - I) / self.T, dW_e, dW_i, -ou_drift / self.tau_OU)

    def project(self, x: ZerlautState) -> ZerlautState:
        return x._replace(E=jnp.maximum(x.E, 0.0), I=jnp.maximum(x.I, 0.0))

    def _fluctuations(self, f_e: Array, f_i: Array, current: Array) -> tuple[Array, Array, Array]:
        """Mean, standard deviation and correlation time of the potential.

        (mu, sigma, T) in mV, mV and ms.

        `f_e`, `f_i`: spikes arriving per ms; `current`: leak and adaptation current at 0 mV, pA.
        """
        G_e, G_i = self.Q_e * self.tau_e * f_e, self.Q_i * self.tau_i * f_i
        mu_G = self.g_L + G_e + G_i
        T_m = self.C_m / mu_G
        mu = (G_e * self.E_e + G_i * self.E_i + current) / mu_G
        p_e = f_e * (self.Q_e * self.tau_e * (self.E_e - mu) / mu_G) ** 2
        p_i = f_i * (self.Q_i * self.tau_i * (self.E_i - mu) / mu_G) ** 2
        twice_variance = p_e / (self.tau_e + T_m) + p_i / (self.tau_i + T_m)
        return mu, jnp.sqrt(0.5 * twice_variance), (p_e + p_i) / twice_variance

    def _transfer(self, f_e: Array, f_i: Array, current: Array, P: Array) -> tuple[Array, Array]:
        """Mean potential, mV, and output rate, kHz.

        For these inputs and this threshold polynomial.
        """
        mu, sigma, T_V = self._fluctuations(f_e, f_i, current)
        V, S, T = (mu + 60.0) / 10.0, (sigma - 4.0) / 6.0, T_V * self.g_L / self.C_m - 0.5
        p = P[:, None] if P.ndim == 2 else P  # [10] shared, or [10, 1, B]: one polynomial per draw
        linear = p[0] + p[1] * V + p[2] * S + p[3] * T
        squares = p[4] * V**2 + p[5] * S**2 + p[6] * T**2
        threshold = 1e3 * (linear + squares + p[7] * V * S + p[8] * V * T + p[9] * S * T)
        return mu, jax.lax.erfc((threshold - mu) / (jnp.sqrt(2.0) * sigma)) / (2.0 * T_V)
