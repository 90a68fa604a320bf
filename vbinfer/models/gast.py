"""QIF neurons with short-term adaptation."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


def _known(adaptation: str) -> str:
    return _check.one_of(adaptation, "adaptation", ("spike-frequency", "synaptic-depression"))


class GastState(NamedTuple):
    """Rate, potential and adaptation, each `[N]`.

    r: firing rate, 1/ms; V: mean membrane potential, dimensionless; A: adaptation; B: tau_A dA/dt.
    """

    r: Array
    V: Array
    A: Array
    B: Array


class GastSchmidtKnosche(AbstractVectorField):
    """Exact mean field of QIF neurons that adapt.

    Firing rate and mean voltage, all-to-all, with an alpha-shaped adaptation (Gast, Schmidt & Knoesche 2020).

    tau dr/dt = Delta / (pi tau) + 2 r V
    tau dV/dt = V^2 - (pi tau r)^2 + eta + I + J tau r - A + cr c_r + u          adaptation="spike-frequency"
    tau dV/dt = V^2 - (pi tau r)^2 + eta + I + J tau r (1 - A) + cr c_r + u      adaptation="synaptic-depression"
    tau_A dA/dt = B;   tau_A dB/dt = alpha r - A - 2 B
    r >= 0 after every stage

    In a steady state A = alpha r. Bursts come from the slow loop through A; without it (alpha = 0) this is
    `MontbrioPazoRoxin`. The paper writes A'' + 2 A' / tau_A + A / tau_A^2 = alpha r / tau_A^2, the same. Defaults are
    those of TVB's GastSchmidtKnosche_SF; its GastSchmidtKnosche_SD has alpha = 0.5 and eta = -6. TVB can couple V too
    (cv, 0 by default), which is left out; vbi clips r only after the corrector.

    doi:10.1162/neco_a_01300
    """

    State: ClassVar = GastState
    start: ClassVar = {"V": -2.0}
    rows: ClassVar[int | None] = 1
    tau: Param = param(1.0, unit="ms", low=1e-6, doc="membrane time constant")
    tau_A: Param = param(10.0, unit="ms", low=1e-6, doc="time constant of the adaptation")
    alpha: Param = param(10.0, low=0.0, doc="adaptation per rate")
    I: Param = param(0.0, doc="external current")
    Delta: Param = param(2.0, low=0.0, doc="half-width of the distribution of excitabilities")
    J: Param = param(21.2132, doc="mean synaptic weight")
    eta: Param = param(1.0, doc="mean excitability")
    cr: Param = param(1.0, doc="share of the coupling")
    adaptation: str = eqx.field(static=True, converter=_known, default="spike-frequency")
    cvar: tuple[str, ...] = couples("r")

    def dfun(self, t: Array, x: GastState, c: Array, u: Array) -> GastState:
        r, V, A, B = x
        recurrent = self.J * self.tau * r
        recurrent = recurrent * (1.0 - A) if self.adaptation == "synaptic-depression" else recurrent - A
        dr = self.Delta / (jnp.pi * self.tau) + 2.0 * r * V
        dV = V**2 - (jnp.pi * self.tau * r) ** 2 + self.eta + self.I + recurrent + self.cr * c[0] + u
        dB = self.alpha * r - A - 2.0 * B
        return GastState(dr / self.tau, dV / self.tau, B / self.tau_A, dB / self.tau_A)

    def project(self, x: GastState) -> GastState:
        return x._replace(r=jnp.maximum(x.r, 0.0))
