"""The reduced Wong-Wang model of recurrent NMDA synaptic gating."""

from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class RWWState(NamedTuple):
    """S: fraction of open NMDA channels, 0 to 1, `[N]`."""

    S: Array


def rate(excess: Array, d: Array) -> Array:
    """Firing rate of an input u above threshold.

    H = u / (1 - exp(-d u)), smooth through u = 0 where H = 1/d.

    Near u = 0 the quotient is 0/0. There it is replaced by the first terms of its series,
    1/d (1 + y/2 + y^2/12 - y^4/720) with y = d u, relative error below 1e-12 for |y| < 0.05; both branches are
    finite wherever the other is taken, so the gradient is too.
    """
    y = d * excess
    small = jnp.abs(y) < 0.05
    safe = jnp.where(small, 1.0, y)
    quotient = safe / -jnp.expm1(-safe)
    series = 1.0 + y * (0.5 + y * (1.0 / 12.0 - y * y / 720.0))
    return jnp.where(small, series, quotient) / d


class ReducedWongWang(AbstractVectorField):
    """Mean NMDA gating of an excitatory population.

    Wong & Wang 2006; Deco et al. 2013.

    dS/dt = -S / tau_s + (1 - S) gamma H(X)
    X = w J_N S + I_o + J_N c + u
    H(X) = (a X - b) / (1 - exp(-d (a X - b)))
    S in [0, 1] after every stage

    H has a removable singularity at a X = b, where its value is 1/d; both it and its gradient are finite here (TVB
    and TVB-O return NaN, vbi returns 0). Defaults are TVB's; Deco et al. use w = 0.9, I_o = 0.3. Kong
    et al. 2021 make w, I_o and the noise functions of regional maps: `RegionalMaps`.

    doi:10.1523/JNEUROSCI.3733-05.2006, doi:10.1523/JNEUROSCI.1091-13.2013, doi:10.1038/s41467-021-26704-y
    """

    State: ClassVar = RWWState
    start: ClassVar = {"S": 0.1}
    rows: ClassVar[int | None] = 1
    a: Param = param(0.270, unit="1/(ms nA)", doc="gain of the rate function")
    b: Param = param(0.108, unit="1/ms", doc="threshold of the rate function")
    d: Param = param(154.0, unit="ms", low=1e-6, doc="curvature of the rate function")
    gamma: Param = param(0.641, low=0.0, doc="kinetic constant; with rates in 1/ms it has no unit")
    tau_s: Param = param(100.0, unit="ms", low=1e-6, doc="decay time of NMDA gating")
    w: Param = param(0.6, low=0.0, doc="strength of local recurrent excitation")
    J_N: Param = param(0.2609, unit="nA", low=0.0, doc="synaptic coupling")
    I_o: Param = param(0.33, unit="nA", doc="external input")
    cvar: tuple[str, ...] = couples("S")

    def dfun(self, t: Array, x: RWWState, c: Array, u: Array) -> RWWState:
        X = self.w * self.J_N * x.S + self.I_o + self.J_N * c[0] + u
        H = rate(self.a * X - self.b, self.d)
        return RWWState(-x.S / self.tau_s + (1.0 - x.S) * self.gamma * H)

    def project(self, x: RWWState) -> RWWState:
        return RWWState(jnp.clip(x.S, 0.0, 1.0))
