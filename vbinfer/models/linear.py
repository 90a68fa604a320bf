"""Linear dynamics; with noise, an Ornstein-Uhlenbeck process."""

from typing import ClassVar, NamedTuple

from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class LinearState(NamedTuple):
    """x: activity, dimensionless, `[N]`."""

    x: Array


class Linear(AbstractVectorField):
    """Linear relaxation.

    With additive noise sigma and coupling W the Ornstein-Uhlenbeck process on a network.

    dx/dt = gamma x + c + u

    With J = diag(gamma) + G W stable, the stationary covariance solves J C + C J^T + sigma^2 I = 0 (Gardiner 2009,
    section 4.5.6), which makes this model the oracle of the package. TVB's `Linear` has the same equation and default.
    """

    State: ClassVar = LinearState
    rows: ClassVar[int | None] = 1
    gamma: Param = param(-10.0, unit="1/ms", doc="relaxation rate; negative is stable")
    cvar: tuple[str, ...] = couples("x")

    def dfun(self, t: Array, x: LinearState, c: Array, u: Array) -> LinearState:
        return LinearState(self.gamma * x.x + c[0] + u)
