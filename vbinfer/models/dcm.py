"""Bilinear dynamic causal modelling.

A linear network whose connections an input changes.
"""

from typing import ClassVar, NamedTuple

from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples
from vbinfer.models.matrix import check_square, product


class DCMState(NamedTuple):
    """x: neuronal activity, dimensionless, `[N]`."""

    x: Array


class BilinearDCM(AbstractVectorField):
    """The neuronal state equation of bilinear DCM.

    dx/dt = (A + u B) x + C u (Friston, Harrison & Penny 2003)

    dx_i/dt = a_i x_i + c_i + u_i sum_j B_ij x_j + C_i u_i

    A is split: its diagonal is the leaf `a`, and the rest are the weights of the connectome, which
    `coupling.Linear(G=1)` brings in as c (with `weights` drawn, or G). u is the stimulus, one signal; where its region
    gains differ, u_i is what node i receives, both as drive (through C_i, zero where it drives nothing) and as
    modulator of the connections into i (row i of B). Without B the model is linear.

    Rates are per ms, as everywhere here: the self-connection -0.5 Hz of the paper is a = -0.0005. SPM estimates
    a = -exp(.)/2 instead of a; vbjax takes A whole, has several inputs and no default values.

    doi:10.1016/S1053-8119(03)00202-7
    """

    State: ClassVar = DCMState
    rows: ClassVar[int | None] = 1
    a: Param = param(-0.0005, unit="1/ms", doc="self-connection; negative is stable")
    B: Param | None = param(None, unit="1/ms", axes=("node", "node"), doc="change of connections per unit input")
    C: Param = param(0.0, unit="1/ms", doc="drive per unit input")
    cvar: tuple[str, ...] = couples("x")

    def validate(self) -> None:
        check_square("BilinearDCM.B", self.B)

    def dfun(self, t: Array, x: DCMState, c: Array, u: Array) -> DCMState:
        drift = self.a * x.x + c[0] + self.C * u
        if self.B is None:
            return DCMState(drift)
        return DCMState(drift + u * product("BilinearDCM.B", self.B, x.x))
