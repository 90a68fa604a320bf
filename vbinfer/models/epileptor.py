"""The Epileptor: seizures in six variables on three time scales."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class EpileptorState(NamedTuple):
    """Fast, slow and spike-and-wave variables, each `[N]`.

    x1, y1: fast discharges; z: permittivity; x2, y2: spike-and-wave events; g: filter of x1.
    """

    x1: Array
    y1: Array
    z: Array
    x2: Array
    y2: Array
    g: Array


def permittivity(x1: Array, z: Array, x0: Array, modification: bool) -> Array:
    """Where the permittivity z is drawn to.

    4 (x1 - x0) - 0.1 min(z, 0)^7, or with `modification` x0 + 3 / (1 + exp(-(x1 + 0.5) / 0.1)).

    The linear form is that of Jirsa et al. 2014, the sigmoid that of Proix et al. 2014, which separates the durations
    of seizures and of the time between them.
    """
    if modification:
        return x0 + 3.0 * jax.nn.sigmoid(10.0 * (x1 + 0.5))
    return 4.0 * (x1 - x0) - 0.1 * jnp.minimum(z, 0.0) ** 7


class Epileptor(AbstractVectorField):
    """Onset, course and offset of seizure-like events.

    Jirsa et al. 2014; a local field potential is x2 - x1.

    dx1/dt = tt (y1 - z + Iext + Kvf c_x1 + u + f1(x1, x2, z) x1)
    dy1/dt = tt (c - d x1^2 - y1)
    dz/dt  = tt r (h(x1, z) - z + Ks c_x1)
    dx2/dt = tt (-y2 + x2 - x2^3 + Iext2 + bb g - 0.3 (z - 3.5) + Kf c_x2)
    dy2/dt = tt (-y2 + aa max(x2 + 0.25, 0)) / tau
    dg/dt  = -0.01 tt (g - 0.1 x1)
    f1 = b x1 - a x1^2 if x1 < 0, else slope - x2 + 0.6 (z - 4)^2;   h is `permittivity`

    c_x1 and c_x2 are the coupling of x1 (row 0) and x2 (row 1). All three gains of the coupling are zero by default,
    as in TVB, whose equations and defaults these are (its parameter s has no effect there and is left out). Seizures
    propagate with `coupling.Difference` and Ks < 0, which lowers z where neighbours are in seizure. With slow z, rest
    ends at x1 = -4/3, which is x0 = -2.06 for the default Iext: healthy tissue is below, epileptogenic tissue above.
    TVB-O blends the two forms of h continuously; here, as in TVB, `modification` selects one. The unit of time of the
    paper is not the millisecond; tt scales it.

    doi:10.1093/brain/awu133
    """

    State: ClassVar = EpileptorState
    start: ClassVar = {"x1": -1.6, "y1": -11.8, "z": 3.5, "x2": -1.0, "g": -0.16}
    rows: ClassVar[int | None] = 2
    a: Param = param(1.0, doc="cubic coefficient of x1 below zero")
    b: Param = param(3.0, doc="quadratic coefficient of x1 below zero")
    c: Param = param(1.0, doc="drive of y1")
    d: Param = param(5.0, doc="quadratic coefficient of y1")
    r: Param = param(0.00035, low=0.0, doc="rate of the permittivity, relative to that of x1")
    x0: Param = param(-1.6, doc="excitability; larger is more epileptogenic")
    Iext: Param = param(3.1, doc="input to the fast discharges")
    slope: Param = param(0.0, doc="linear coefficient of x1 above zero")
    Iext2: Param = param(0.45, doc="input to the spike-and-wave events")
    tau: Param = param(10.0, low=1e-6, doc="time scale of y2, relative to that of x1")
    aa: Param = param(6.0, doc="linear coefficient of y2")
    bb: Param = param(2.0, doc="weight of the filter g in x2")
    Kvf: Param = param(0.0, doc="gain of the coupling of x1 on x1")
    Kf: Param = param(0.0, doc="gain of the coupling of x2 on x2")
    Ks: Param = param(0.0, doc="gain of the coupling of x1 on z, relative to r")
    tt: Param = param(1.0, unit="1/ms", low=0.0, doc="time scale of the whole model")
    cvar: tuple[str, ...] = couples("x1", "x2")
    modification: bool = eqx.field(static=True, default=False)

    def validate(self) -> None:
        if self.cvar != ("x1", "x2"):
            raise ValueError(f'Epileptor couples cvar=("x1", "x2"); {self.cvar!r} was given; leave it out')

    def dfun(self, t: Array, x: EpileptorState, c: Array, u: Array) -> EpileptorState:
        x1, y1, z, x2, y2, g = x
        f1 = jnp.where(x1 < 0.0, (self.b - self.a * x1) * x1, self.slope - x2 + 0.6 * (z - 4.0) ** 2)
        dx1 = y1 - z + self.Iext + self.Kvf * c[0] + u + f1 * x1
        dy1 = self.c - self.d * x1**2 - y1
        dz = self.r * (permittivity(x1, z, self.x0, self.modification) - z + self.Ks * c[0])
        dx2 = -y2 + x2 - x2**3 + self.Iext2 + self.bb * g - 0.3 * (z - 3.5) + self.Kf * c[1]
        dy2 = (self.aa * jnp.maximum(x2 + 0.25, 0.0) - y2) / self.tau
        dg = -0.01 * (g - 0.1 * x1)
        return EpileptorState(*(self.tt * rate for rate in (dx1, dy1, dz, dx2, dy2, dg)))
