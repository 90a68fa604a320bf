"""The Epileptor reduced to its slow scale.

TVB's two variables, and those of the virtual epileptic patient.
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples
from vbinfer.models.epileptor import permittivity


class Epileptor2DState(NamedTuple):
    """x1: fast discharges; z: permittivity; each dimensionless, `[N]`."""

    x1: Array
    z: Array


class Epileptor2D(AbstractVectorField):
    """The two-dimensional Epileptor, in one of two forms.

    They differ wherever x1 > 0, hence in seizures.

    form="tvb" (Proix et al. 2014, as in TVB):
    dx1/dt = tt (c - z + Iext + Kvf c_x1 + u - f(x1, z) x1)
    dz/dt  = tt r (h(x1, z) - z + Ks c_x1)
    f = a x1^2 + (d - b) x1 if x1 < 0, else d x1 - slope - 0.6 (z - 4)^2
    h = 4 (x1 - x0) - 0.1 min(z, 0)^7, or with `modification` x0 + 3 / (1 + exp(-(x1 + 0.5) / 0.1))

    form="vep" (the virtual epileptic patient, Jirsa et al. 2017; Hashemi et al. 2020):
    dx1/dt = tt (c - a x1^3 - (d - b) x1^2 - z + Iext + u)      that is 1 - x1^3 - 2 x1^2 - z + Iext
    dz/dt  = tt (4 (x1 - x0) - z - c_x1) / tau

    c_x1 is the coupling of x1. In "vep" it enters with a minus: `coupling.Difference(G)` with G > 0 makes
    -G sum_j w_ij (x_j - x_i), so that a seizing neighbour lowers z and recruits. In "tvb" the gain Ks has the sign,
    and the same behaviour needs Ks < 0. r = 0.00035 by default, but tau = 10: seizures in "vep" are hundreds of times
    shorter. vbi's default is Iext = 0, its examples and these defaults use 3.1. With slow z, rest ends at x1 = -4/3,
    which is x0 = -2.06 for that Iext: healthy tissue is below it, epileptogenic tissue above.

    doi:10.1523/JNEUROSCI.1570-14.2014, doi:10.1016/j.neuroimage.2016.04.049, doi:10.1016/j.neuroimage.2020.116839
    """

    State: ClassVar = Epileptor2DState
    start: ClassVar = {"x1": -2.0, "z": 4.0}
    rows: ClassVar[int | None] = 1
    a: Param = param(1.0, doc="cubic coefficient of x1")
    b: Param = param(3.0, doc="quadratic coefficient of x1")
    c: Param = param(1.0, doc="constant drive of x1")
    d: Param = param(5.0, doc="quadratic coefficient of the variable that was eliminated")
    r: Param = param(None, low=0.0, doc='form "tvb": rate of the permittivity, relative to that of x1; 0.00035')
    tau: Param = param(None, low=1e-6, doc='form "vep": time scale of the permittivity, relative to that of x1; 10')
    x0: Param = param(-1.6, doc="excitability; larger is more epileptogenic")
    Iext: Param = param(3.1, doc="input to the fast discharges")
    slope: Param = param(0.0, doc='form "tvb": linear coefficient of x1 above zero')
    Kvf: Param = param(0.0, doc='form "tvb": gain of the coupling on x1')
    Ks: Param = param(0.0, doc='form "tvb": gain of the coupling on z')
    tt: Param = param(1.0, unit="1/ms", low=0.0, doc="time scale of the whole model")
    cvar: tuple[str, ...] = couples("x1")
    form: str = eqx.field(static=True, default="tvb")
    modification: bool = eqx.field(static=True, default=False)

    def __post_init__(self) -> None:
        # only the time scale of the chosen form is a parameter: a field left at None is no leaf and cannot be bound
        if self.form == "vep" and self.tau is None:
            self.tau = jnp.asarray(10.0)
        if self.form == "tvb" and self.r is None:
            self.r = jnp.asarray(0.00035)

    def validate(self) -> None:
        if self.form not in ("tvb", "vep"):
            raise ValueError(f'form={self.form!r} was given; Epileptor2D has form="tvb" and form="vep"')
        if self.form == "vep" and self.modification:
            raise ValueError('modification=True belongs to form="tvb"; leave it out, or build Epileptor2D(form="tvb")')

    def unused(self) -> dict[str, str]:
        if self.form == "tvb":
            return {"tau": 'tau belongs to form="vep"; in form="tvb" the rate of z is r'}
        remedies = {
            "r": 'r belongs to form="tvb"; in form="vep" the time scale of z is tau',
            "Ks": 'Ks belongs to form="tvb"; in form="vep" the strength is the G of coupling.Difference',
        }
        only = {name: f'{name} has no effect in form="vep"; leave it out' for name in ("Kvf", "slope")}
        return remedies | only

    def dfun(self, t: Array, x: Epileptor2DState, c: Array, u: Array) -> Epileptor2DState:
        x1, z = x
        cubic = (self.a * x1 + self.d - self.b) * x1
        if self.form == "vep":
            dx1 = self.c - z + self.Iext + u - cubic * x1
            dz = (4.0 * (x1 - self.x0) - z - c[0]) / self.tau
        else:
            f = jnp.where(x1 < 0.0, cubic, self.d * x1 - self.slope - 0.6 * (z - 4.0) ** 2)
            dx1 = self.c - z + self.Iext + self.Kvf * c[0] + u - f * x1
            dz = self.r * (permittivity(x1, z, self.x0, self.modification) - z + self.Ks * c[0])
        return Epileptor2DState(self.tt * dx1, self.tt * dz)
