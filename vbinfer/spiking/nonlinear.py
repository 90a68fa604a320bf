"""Neurons with an upswing of their own, in closed form."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.spiking.base import NEVER, AbstractNeuron, fires
from vbinfer.spiking.lif import LIFState

BEYOND = 1e9
"""v of a flow that has run to infinity within a step."""


class IzhikevichState(NamedTuple):
    """As `LIFState`; u: recovery."""

    v: Any
    u: Any = 0.0
    z: Any = 0.0
    since: Any = NEVER


class AdExState(NamedTuple):
    """As `LIFState`; w: adaptation current, pA."""

    v: Any
    w: Any = 0.0
    z: Any = 0.0
    since: Any = NEVER


def _tangent(q: Array, s: Array) -> Array:
    """tan(w s)/w, w = sqrt(q), at any sign of q."""
    small, w = jnp.abs(q) * s**2 < 1e-4, jnp.sqrt(jnp.where(q == 0.0, 1.0, jnp.abs(q)))
    # a quarter turn brings any start to infinity: beyond it there is nothing to follow
    curved = jnp.where(q > 0.0, jnp.tan(jnp.minimum(w * s, 1.57)), jnp.tanh(w * s)) / w
    return jnp.where(small, s * (1.0 + q * s**2 / 3.0), curved)


def _arc(q: Array, T: Array) -> Array:
    """The s at which `_tangent` is T."""
    small, w = jnp.abs(q) * T**2 < 1e-4, jnp.sqrt(jnp.where(q == 0.0, 1.0, jnp.abs(q)))
    curved = jnp.where(q > 0.0, jnp.arctan(w * T), jnp.arctanh(jnp.clip(w * T, -0.999999, 0.999999))) / w
    return jnp.where(small, T * (1.0 - q * T**2 / 3.0), curved)


def _quadratic(x: Array, k: Any, force: Array, s: Array) -> Array:
    """Solution of x' = k x^2 + force.

    After s ms: (x + force T) / (1 - k x T) with T = tan(w s)/w, w^2 = k force; `BEYOND` where it has run away.
    """
    T = _tangent(k * force, s)
    left = 1.0 - k * x * T
    return jnp.where(left > 1e-9, (x + force * T) / jnp.where(left > 1e-9, left, 1.0), BEYOND)


def _time_to(x: Array, top: Array, k: Any, force: Array) -> Array:
    """ms in which `_quadratic` brings x to `top`."""
    rate = force + k * x * top
    return _arc(k * force, (top - x) / jnp.where(rate > 0.0, rate, 1.0))


class QIF(AbstractNeuron):
    """Quadratic integrate-and-fire neuron (Ermentrout & Kopell 1986).

    tau dv/dt = v^2 + eta + u;   an arriving spike adds c to v;   v >= v_peak: z = 1, v = v_reset

    Flow and crossing time are exact for an input that is constant over the step. Many of them, of heterogeneous eta,
    have `vb.models.MontbrioPazoRoxin` as their mean field where v_peak = -v_reset is large. In a layer: a forward Euler
    step with input eta + c.

    doi:10.1137/0146017
    """

    State: ClassVar = LIFState
    bounds: ClassVar[tuple[str, str]] = ("v_reset", "v_peak")
    tau: Param = param(10.0, unit="ms", low=1e-6, doc="membrane time constant")
    eta: Param = param(0.0, doc="excitability")
    v_reset: Param = param(-100.0, doc="potential after a spike")
    v_peak: Param = param(100.0, doc="potential at which a spike is counted")

    def rest(self) -> dict[str, Any]:
        return {"v": jnp.minimum(0.0, self.v_peak - 1.0)}

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        return x._replace(v=_quadratic(x.v, 1.0 / self.tau, (self.eta + u) / self.tau, span))

    def crossing(self, x: Any, u: Array, span: Array, end: Any) -> Array:
        return _time_to(x.v, self.v_peak, 1.0 / self.tau, (self.eta + u) / self.tau)

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        z, v = fires(self, x, x.v + dt / self.tau * (x.v**2 + self.eta + c))
        return x._replace(v=v, z=z)


class Izhikevich(AbstractNeuron):
    """Quadratic neuron with recovery (Izhikevich 2003).

    dv/dt = 0.04 v^2 + 5 v + 140 - u + I;   du/dt = a (b v - u);   v >= v_peak: z = 1, v = c, u = u + d

    I is the stimulus, an arriving spike adds to v. Per step half of the recovery, v exactly with u held, the other
    half (Strang): second order, spike times included. In a layer: a forward Euler step of both, I the input.

    doi:10.1109/TNN.2003.820440
    """

    State: ClassVar = IzhikevichState
    bounds: ClassVar[tuple[str, str]] = ("c", "v_peak")
    a: Param = param(0.02, unit="1/ms", low=0.0, doc="rate of recovery")
    b: Param = param(0.2, doc="pull of v on recovery")
    c: Param = param(-65.0, unit="mV", doc="potential after a spike")
    d: Param = param(8.0, doc="step of recovery with a spike")
    v_peak: Param = param(30.0, unit="mV", doc="potential at which a spike is counted")

    def rest(self) -> dict[str, Any]:
        return {"v": self.c, "u": self.b * self.c}

    def reset(self, x: Any) -> Any:
        return x._replace(v=jnp.broadcast_to(self.c, x.v.shape), u=x.u + self.d)

    def _recovered(self, v: Array, u: Array, s: Array) -> Array:
        return self.b * v + (u - self.b * v) * jnp.exp(-self.a * s)

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        # 0.04 v^2 + 5 v + 140 = 0.04 (v + 62.5)^2 - 16.25
        half = self._recovered(x.v, x.u, 0.5 * span)
        v = _quadratic(x.v + 62.5, 0.04, u - half - 16.25, span) - 62.5
        return x._replace(v=v, u=self._recovered(jnp.minimum(v, self.v_peak), half, 0.5 * span))

    def crossing(self, x: Any, u: Array, span: Array, end: Any) -> Array:
        half = self._recovered(x.v, x.u, 0.5 * span)
        return _time_to(x.v + 62.5, self.v_peak + 62.5, 0.04, u - half - 16.25)

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        v = x.v + dt * (0.04 * x.v**2 + 5.0 * x.v + 140.0 - x.u + c)
        u = x.u + dt * self.a * (self.b * x.v - x.u)
        z, v = fires(self, x, v)
        return x._replace(v=v, z=z, u=u + z * self.d)


class AdEx(AbstractNeuron):
    """Adaptive exponential integrate-and-fire neuron (Brette & Gerstner 2005).

    C dv/dt = -g_L (v - E_L) + g_L Delta_T exp((v - V_T)/Delta_T) - w + u;   tau_w dw/dt = a (v - E_L) - w
    v >= V_peak: z = 1, v = V_r, w = w + b;   an arriving spike adds c to v, mV

    pF, nS, mV, ms; u, w and b in pA. Per step half of w and of the leak, the exponential exactly, the other halves
    (Strang): second order. In a layer: a forward Euler step, c in pA.

    doi:10.1152/jn.00686.2005
    """

    State: ClassVar = AdExState
    bounds: ClassVar[tuple[str, str]] = ("V_r", "V_peak")
    C: Param = param(281.0, unit="pF", low=1e-6, doc="capacitance")
    g_L: Param = param(30.0, unit="nS", low=1e-6, doc="leak conductance")
    E_L: Param = param(-70.6, unit="mV", doc="leak reversal potential")
    V_T: Param = param(-50.4, unit="mV", doc="threshold of the exponential")
    Delta_T: Param = param(2.0, unit="mV", low=1e-3, doc="sharpness of the exponential")
    a: Param = param(4.0, unit="nS", doc="adaptation with the membrane")
    tau_w: Param = param(144.0, unit="ms", low=1e-6, doc="time constant of adaptation")
    b: Param = param(80.5, unit="pA", doc="step of adaptation with a spike")
    V_r: Param = param(-70.6, unit="mV", doc="potential after a spike")
    V_peak: Param = param(20.0, unit="mV", doc="potential at which a spike is counted")

    def rest(self) -> dict[str, Any]:
        return {"v": self.E_L}

    def reset(self, x: Any) -> Any:
        return x._replace(v=jnp.broadcast_to(self.V_r, x.v.shape), w=x.w + self.b)

    def _slow(self, v: Array, w: Array, s: Array) -> Array:
        target = self.a * (v - self.E_L)
        return target + (w - target) * jnp.exp(-s / self.tau_w)

    def _leaked(self, v: Array, w: Array, u: Array, s: Array) -> Array:
        end = self.E_L + (u - w) / self.g_L
        return end + (v - end) * jnp.exp(-s * self.g_L / self.C)

    def _upswing(self, v: Array) -> tuple[Array, Array]:
        """Rate of the exponential at v, and its share.

        1/ms; the share is of the way to the peak.

        y = exp(-(v - V_T)/Delta_T) falls at the constant rate g_L/C:  v(s) = v - Delta_T log(1 - rate s)
        """
        rate = self.g_L / self.C * jnp.exp(jnp.minimum((v - self.V_T) / self.Delta_T, 60.0))
        return rate, -jnp.expm1(-jnp.maximum(self.V_peak - v, 0.0) / self.Delta_T)

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        w = self._slow(x.v, x.w, 0.5 * span)
        v = self._leaked(x.v, w, u, 0.5 * span)
        rate, top = self._upswing(v)
        over = rate * span >= top
        v = v - self.Delta_T * jnp.log1p(-jnp.where(over, 0.0, rate * span))
        v = jnp.where(over, self.V_peak, self._leaked(v, w, u, 0.5 * span))
        return x._replace(v=v, w=self._slow(v, w, 0.5 * span))

    def crossing(self, x: Any, u: Array, span: Array, end: Any) -> Array:
        w = self._slow(x.v, x.w, 0.5 * span)
        rate, top = self._upswing(self._leaked(x.v, w, u, 0.5 * span))
        return top / rate

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        swing = self.Delta_T * jnp.exp(jnp.minimum((x.v - self.V_T) / self.Delta_T, 60.0))
        v = x.v + dt / self.C * (self.g_L * (self.E_L - x.v + swing) - x.w + c)
        w = x.w + dt / self.tau_w * (self.a * (x.v - self.E_L) - x.w)
        z, v = fires(self, x, v)
        return x._replace(v=v, z=z, w=w + z * self.b)
