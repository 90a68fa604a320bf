"""Two variables that spiral into a fixed point.

The smallest model with something to infer.
"""

from typing import ClassVar, NamedTuple

from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class DampedState(NamedTuple):
    """x: prey, y: predator, dimensionless, each `[N]`."""

    x: Array
    y: Array


class DampedOscillator(AbstractVectorField):
    """Predator and prey that both limit themselves.

    Lotka 1925 and Volterra 1926, with self-limitation.

    dx/dt = x - x y - a x^2 + c + u
    dy/dt = x y - y - b y^2

    Without input it spirals into x* = (1 + b) / (1 + a b), y* = (1 - a) / (1 + a b), for a < 1. The unit of time is
    taken as 1 ms. The equations are those of vbi's toy problem.

    Murray 2002, chapter 3, doi:10.1007/b98868
    """

    State: ClassVar = DampedState
    start: ClassVar = {"x": 0.5, "y": 1.0}
    rows: ClassVar[int | None] = 1
    a: Param = param(0.1, unit="1/ms", doc="self-limitation of x")
    b: Param = param(0.05, unit="1/ms", doc="self-limitation of y")
    cvar: tuple[str, ...] = couples("x")

    def dfun(self, t: Array, x: DampedState, c: Array, u: Array) -> DampedState:
        return DampedState(
            x.x - x.x * x.y - self.a * x.x**2 + c[0] + u,
            x.x * x.y - x.y - self.b * x.y**2,
        )
