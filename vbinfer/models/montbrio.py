"""The exact mean field of quadratic integrate-and-fire neurons."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class MPRState(NamedTuple):
    """Rate and potential, each `[N]`.

    r: firing rate, 1/ms; V: mean membrane potential, dimensionless.
    """

    r: Array
    V: Array


class MontbrioPazoRoxin(AbstractVectorField):
    """Exact mean field of coupled QIF neurons.

    Firing rate and mean voltage, all-to-all (Montbrio, Pazo & Roxin 2015).

    tau dr/dt = Delta / (pi tau) + 2 r V
    tau dV/dt = V^2 - (pi tau r)^2 + J tau r + eta + I + cr c_r + cv c_V + u
    r >= 0 after every stage

    c_r is the coupling of r (row 0). c_V is the coupling of V (row 1), asked for with `cvar=("r", "V")` when `cv` is
    not zero. Defaults are TVB's; the unit of time of the paper is tau, taken here as 1 ms. The defaults have one
    stable state, (r, V) = (0.0811, -1.9616). vbi uses J = 14.5, eta = -4.6, Delta = 0.7 and counts tau as 10 ms; it
    clips r only after the corrector.

    doi:10.1103/PhysRevX.5.021028
    """

    State: ClassVar = MPRState
    start: ClassVar = {"V": -2.0}
    tau: Param = param(1.0, unit="ms", low=1e-6, doc="membrane time constant")
    I: Param = param(0.0, doc="external current")
    Delta: Param = param(1.0, low=0.0, doc="half-width of the distribution of excitabilities")
    J: Param = param(15.0, doc="mean synaptic weight")
    eta: Param = param(-5.0, doc="mean excitability")
    cr: Param = param(1.0, doc="share of the coupling that reads r")
    cv: Param = param(0.0, doc="share of the coupling that reads V")
    cvar: tuple[str, ...] = couples("r")

    @property
    def rows(self) -> int:
        return len(self.cvar)

    def validate(self) -> None:
        if self.cvar not in (("r",), ("r", "V")):
            raise ValueError(f'MontbrioPazoRoxin couples cvar=("r",) or ("r", "V"); {self.cvar!r} was given')

    def unused(self) -> dict[str, str]:
        if "V" in self.cvar:
            return {}
        return {"cv": 'cv has no effect unless V is coupled; build MontbrioPazoRoxin(cvar=("r", "V"), cv=...)'}

    def dfun(self, t: Array, x: MPRState, c: Array, u: Array) -> MPRState:
        r, V = x
        c_all = self.cr * c[0] + (self.cv * c[1] if len(self.cvar) == 2 else 0.0)
        dr = (self.Delta / (jnp.pi * self.tau) + 2.0 * r * V) / self.tau
        dV = V**2 - (jnp.pi * self.tau * r) ** 2 + self.J * self.tau * r + self.eta + self.I + c_all + u
        return MPRState(dr, dV / self.tau)

    def project(self, x: MPRState) -> MPRState:
        return MPRState(jnp.maximum(x.r, 0.0), x.V)
