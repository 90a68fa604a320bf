"""A planar oscillator that covers FitzHugh-Nagumo and its relatives."""

from typing import ClassVar, NamedTuple

from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class OscillatorState(NamedTuple):
    """V: fast variable; W: slow, recovery variable; dimensionless, each `[N]`."""

    V: Array
    W: Array


class Generic2dOscillator(AbstractVectorField):
    """A cubic and a parabolic nullcline.

    Excitable, bistable or oscillating (Sanz-Leon et al. 2015).

    dV/dt = d tau (alpha W - f V^3 + e V^2 + g V + gamma I + gamma (c + u))
    dW/dt = d / tau (a + b V + c_2 V^2 - beta W),   c_2 the parameter `c`

    Excitable, bistable and FitzHugh-Nagumo-like regimes differ in (a, b, c, d) alone. d sets the speed of both
    variables, tau^2 the ratio of the two. Names and defaults are TVB's; tvboptim adds the stimulus outside d tau.

    doi:10.1016/j.neuroimage.2015.01.002
    """

    State: ClassVar = OscillatorState
    rows: ClassVar[int | None] = 1
    tau: Param = param(1.0, low=1e-6, doc="separation of time scales")
    I: Param = param(0.0, doc="constant input")
    a: Param = param(-2.0, doc="height of the nullcline of W")
    b: Param = param(-10.0, doc="slope of the nullcline of W")
    c: Param = param(0.0, doc="curvature of the nullcline of W")
    d: Param = param(0.02, unit="1/ms", doc="speed of both variables")
    e: Param = param(3.0, doc="quadratic coefficient of the nullcline of V")
    f: Param = param(1.0, doc="cubic coefficient of the nullcline of V")
    g: Param = param(0.0, doc="linear coefficient of the nullcline of V")
    alpha: Param = param(1.0, doc="effect of W on V")
    beta: Param = param(1.0, doc="decay of W")
    gamma: Param = param(1.0, doc="scale of the inputs")
    cvar: tuple[str, ...] = couples("V")

    def dfun(self, t: Array, x: OscillatorState, c: Array, u: Array) -> OscillatorState:
        V, W = x
        cubic = self.alpha * W - self.f * V**3 + self.e * V**2 + self.g * V
        dV = self.d * self.tau * (cubic + self.gamma * (self.I + c[0] + u))
        dW = self.d / self.tau * (self.a + self.b * V + self.c * V**2 - self.beta * W)
        return OscillatorState(dV, dW)
