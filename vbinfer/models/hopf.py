"""Normal form of a supercritical Hopf bifurcation.

Below it (SupHopf) and above it (StuartLandau).
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class HopfState(NamedTuple):
    """Real and imaginary part of the oscillation.

    x, y of z = x + i y, dimensionless, each `[N]`.
    """

    x: Array
    y: Array


class _NormalForm(AbstractVectorField):
    State: ClassVar = HopfState
    start: ClassVar = {"x": 0.1}
    a: eqx.AbstractVar[Array]
    omega: eqx.AbstractVar[Array]

    @property
    def rows(self) -> int:
        return len(self.cvar)

    def validate(self) -> None:
        if self.cvar not in (("x", "y"), ("x",)):
            raise ValueError(f'{type(self).__name__} couples cvar=("x", "y") or ("x",); {self.cvar!r} was given')

    def dfun(self, t: Array, x: HopfState, c: Array, u: Array) -> HopfState:
        growth = self.a - x.x**2 - x.y**2
        into_x = growth * x.x - self.omega * x.y + c[0] + u
        into_y = growth * x.y + self.omega * x.x
        return HopfState(into_x, into_y + c[1] if c.shape[0] > 1 else into_y)


class SupHopf(_NormalForm):
    """Normal form of a supercritical Hopf bifurcation.

    Angular frequency in rad/ms (Kuznetsov 1998; Deco et al. 2017).

    dx/dt = (a - x^2 - y^2) x - omega y + c_x + u
    dy/dt = (a - x^2 - y^2) y + omega x + c_y

    For a < 0 a damped rotation into the origin, for a > 0 a cycle of radius sqrt(a). Both variables are coupled, or x
    alone with `cvar=("x",)`, as in neurolib and, for undelayed input, tvboptim; "Hopf with strength G" is
    `coupling.Difference(G)` in most papers. For BOLD x is taken as the signal itself, with omega that of the recorded
    peak, 2 pi 0.05 / 1000 rad/ms, and a just below zero; or, as in vbi's generalised Hopf model, as the input of the
    balloon, `monitors.BalloonWindkessel("x", period)`, with a and omega one value per region. Names and defaults are
    TVB's. `StuartLandau` is the same field with the defaults of a self-sustained oscillator.

    doi:10.1007/b98848, doi:10.1038/s41598-017-03073-5
    """

    a: Param = param(-0.5, unit="1/ms", doc="distance from the bifurcation, the growth rate at the origin")
    omega: Param = param(1.0, unit="rad/ms", doc="angular frequency")
    cvar: tuple[str, ...] = couples("x", "y")


class StuartLandau(_NormalForm):
    """Self-sustained oscillator near a Hopf bifurcation.

    Landau 1944; Stuart 1960; Cabral et al. 2022.

    dz/dt = z (a + i omega - |z|^2) + c_x + i c_y + u,   z = x + i y

    The field of `SupHopf` under the name that whole-brain models of oscillations give it. Defaults are vbi's, gamma
    oscillations of radius sqrt(0.1) at 40 Hz (omega = 2 pi 40 / 1000 rad/ms); it couples the z_j - z_i, that is
    `coupling.Difference`.

    doi:10.1017/S002211206000116X, doi:10.1038/s42005-022-00950-y
    """

    a: Param = param(0.1, unit="1/ms", doc="distance from the bifurcation, the growth rate at the origin")
    omega: Param = param(0.08 * jnp.pi, unit="rad/ms", doc="angular frequency, 2 pi / 1000 times that in Hz")
    cvar: tuple[str, ...] = couples("x", "y")
