"""Ion channels of a cortical column: conductance-based oscillations and chaos."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class LarterBreakspearState(NamedTuple):
    """Potentials and potassium channels, each `[N]`.

    V: excitatory membrane potential; W: open potassium channels; Z: inhibitory membrane potential.
    """

    V: Array
    W: Array
    Z: Array


def _sigmoid(V: Array, threshold: Array, width: Array) -> Array:
    return 0.5 * (1.0 + jnp.tanh((V - threshold) / width))


class LarterBreakspear(AbstractVectorField):
    """Conductance-based population of excitatory and inhibitory cells.

    Calcium, potassium, sodium and leak channels (Breakspear et al. 2003).

    dV/dt = t_scale (-(gCa + rNMDA aee E) m_Ca (V - VCa) - gK W (V - VK) - gL (V - VL)
                     - (gNa m_Na + aee E) (V - VNa) - aie Z Q_Z + ane Iext + u)
    dW/dt = t_scale phi (m_K - W) / tau_K
    dZ/dt = t_scale b (ani Iext + aei V Q_V)
    E = (1 - C) Q_V + C c, local and long-range excitation
    m_ion = (1 + tanh((V - T_ion) / d_ion)) / 2
    Q_V = QV_max (1 + tanh((V - VT) / d_V)) / 2;   Q_Z = QZ_max (1 + tanh((Z - ZT) / d_Z)) / 2

    c is the coupling of V, as in TVB: use `coupling.HyperbolicTangent(b=1, midpoint=VT, sigma=d_V)`, which sends 2 Q_V
    per source (a = 0.5 makes it Q_V), and weights with rows of sum 1 for the mean of the paper. u is a current into
    the excitatory cells only. Names and defaults are TVB's; with them a column without input rests below d_V = 0.515,
    a Hopf bifurcation, and oscillates above it, at about 0.1 cycles per ms at first.

    doi:10.1088/0954-898X/14/4/305, doi:10.1073/pnas.0701519104
    """

    State: ClassVar = LarterBreakspearState
    start: ClassVar = {"V": -0.2, "W": 0.2, "Z": 0.1}
    rows: ClassVar[int | None] = 1
    gCa: Param = param(1.1, low=0.0, doc="conductance of calcium channels")
    gK: Param = param(2.0, low=0.0, doc="conductance of potassium channels")
    gL: Param = param(0.5, low=0.0, doc="conductance of leak channels")
    gNa: Param = param(6.7, low=0.0, doc="conductance of sodium channels")
    TCa: Param = param(-0.01, doc="threshold of calcium channels")
    TK: Param = param(0.0, doc="threshold of potassium channels")
    TNa: Param = param(0.3, doc="threshold of sodium channels")
    d_Ca: Param = param(0.15, low=1e-6, doc="width of the calcium threshold")
    d_K: Param = param(0.3, low=1e-6, doc="width of the potassium threshold")
    d_Na: Param = param(0.15, low=1e-6, doc="width of the sodium threshold")
    VCa: Param = param(1.0, doc="Nernst potential of calcium")
    VK: Param = param(-0.7, doc="Nernst potential of potassium")
    VL: Param = param(-0.5, doc="Nernst potential of the leak")
    VNa: Param = param(0.53, doc="Nernst potential of sodium")
    phi: Param = param(0.7, low=0.0, doc="temperature scaling of the potassium channels")
    tau_K: Param = param(1.0, unit="ms", low=1e-6, doc="relaxation time of the potassium channels")
    aee: Param = param(0.4, doc="excitatory to excitatory synaptic strength")
    aei: Param = param(2.0, doc="excitatory to inhibitory synaptic strength")
    aie: Param = param(2.0, doc="inhibitory to excitatory synaptic strength")
    ane: Param = param(1.0, doc="non-specific to excitatory synaptic strength")
    ani: Param = param(0.4, doc="non-specific to inhibitory synaptic strength")
    b: Param = param(0.1, doc="rate of the inhibitory cells, relative to that of the excitatory ones")
    C: Param = param(0.1, low=0.0, high=1.0, doc="share of long-range in all excitation")
    Iext: Param = param(0.3, doc="subcortical input")
    rNMDA: Param = param(0.25, low=0.0, doc="ratio of NMDA to AMPA receptors")
    VT: Param = param(0.0, doc="threshold of the excitatory cells")
    d_V: Param = param(0.65, low=1e-6, doc="width of the excitatory threshold")
    ZT: Param = param(0.0, doc="threshold of the inhibitory cells")
    d_Z: Param = param(0.7, low=1e-6, doc="width of the inhibitory threshold")
    QV_max: Param = param(1.0, unit="kHz", low=0.0, doc="largest firing rate of the excitatory cells")
    QZ_max: Param = param(1.0, unit="kHz", low=0.0, doc="largest firing rate of the inhibitory cells")
    t_scale: Param = param(1.0, low=0.0, doc="time scale of the whole model")
    cvar: tuple[str, ...] = couples("V")

    def dfun(self, t: Array, x: LarterBreakspearState, c: Array, u: Array) -> LarterBreakspearState:
        V, W, Z = x
        Q_V = self.QV_max * _sigmoid(V, self.VT, self.d_V)
        Q_Z = self.QZ_max * _sigmoid(Z, self.ZT, self.d_Z)
        excitation = self.aee * ((1.0 - self.C) * Q_V + self.C * c[0])
        calcium = (self.gCa + self.rNMDA * excitation) * _sigmoid(V, self.TCa, self.d_Ca) * (V - self.VCa)
        sodium = (self.gNa * _sigmoid(V, self.TNa, self.d_Na) + excitation) * (V - self.VNa)
        passive = self.gK * W * (V - self.VK) + self.gL * (V - self.VL)
        dV = self.ane * self.Iext + u - calcium - sodium - passive - self.aie * Z * Q_Z
        dW = self.phi * (_sigmoid(V, self.TK, self.d_K) - W) / self.tau_K
        dZ = self.b * (self.ani * self.Iext + self.aei * V * Q_V)
        return LarterBreakspearState(self.t_scale * dV, self.t_scale * dW, self.t_scale * dZ)
