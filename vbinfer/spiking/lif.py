"""Leaky integrate-and-fire neurons: exact between spikes."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.spiking.base import NEVER, AbstractNeuron, fires

UNREACHED = 1e9
"""Threshold of a membrane without one, mV."""


class LIFState(NamedTuple):
    """Membrane, spikes, and time since the last, `[N]` each.

    v is in mV, z is 1 in the step of a spike, since is in ms.
    """

    v: Any
    z: Any = 0.0
    since: Any = NEVER


class CubaLIFState(NamedTuple):
    """As `LIFState`; i: synaptic current, mV."""

    v: Any
    i: Any = 0.0
    z: Any = 0.0
    since: Any = NEVER


class ALIFState(NamedTuple):
    """As `LIFState`; a: trace of the neuron's own spikes."""

    v: Any
    a: Any = 0.0
    z: Any = 0.0
    since: Any = NEVER


class AbstractLeaky(AbstractNeuron):
    """Base of neurons with a linear membrane."""

    def kick(self, dt: float) -> Array:
        # exact for an Ornstein-Uhlenbeck process: sqrt of int_0^dt exp(-2 s/tau) ds / dt
        h = 2.0 * dt / self.tau  # type: ignore[attr-defined]
        return jnp.sqrt(-jnp.expm1(-h) / h)


def _relaxed(v: Array, end: Any, tau: Array, span: Any) -> Array:
    """v after `span` ms towards `end`."""
    return end + (v - end) * jnp.exp(-span / tau)


class LIF(AbstractLeaky):
    """Leaky integrate-and-fire neuron (Lapicque 1907).

    tau dv/dt = v_rest - v + u;   an arriving spike adds c to v;   v >= v_th: z = 1, v = v_reset for t_ref

    In a layer: v = v_rest + a (v - v_rest) + c, a = exp(-dt/tau); z = v > v_th; v = v + z (v_reset - v).

    u is a current times resistance, mV. White noise `Additive({"v": s})`: s in mV per sqrt(ms), so that a free membrane
    has standard deviation s sqrt(tau/2).

    doi:10.1007/s00422-006-0068-6 (Burkitt 2006)
    """

    State: ClassVar = LIFState
    tau: Param = param(20.0, unit="ms", low=1e-6, doc="membrane time constant")
    v_rest: Param = param(0.0, unit="mV", doc="resting potential")
    v_th: Param = param(1.0, unit="mV", doc="threshold")
    v_reset: Param = param(0.0, unit="mV", doc="potential after a spike")
    t_ref: Param = param(0.0, unit="ms", low=0.0, doc="refractory period")

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        return x._replace(v=_relaxed(x.v, self.v_rest + u, self.tau, span))

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        z, v = fires(self, x, _relaxed(x.v, self.v_rest, self.tau, dt) + c)
        return x._replace(v=v, z=z)


class ALIF(AbstractLeaky):
    """LIF neuron with a threshold that grows with its spikes.

    As `LIF`, with threshold v_th + beta a; a = exp(-dt/tau_a) a + z after every step

    A step, also of a layer, is tested against the threshold of the step before.

    arXiv:1803.09574 (Bellec et al. 2018)
    """

    State: ClassVar = ALIFState
    tau: Param = param(20.0, unit="ms", low=1e-6, doc="membrane time constant")
    v_rest: Param = param(0.0, unit="mV", doc="resting potential")
    v_th: Param = param(1.0, unit="mV", doc="threshold of a neuron that has not spiked")
    v_reset: Param = param(0.0, unit="mV", doc="potential after a spike")
    t_ref: Param = param(0.0, unit="ms", low=0.0, doc="refractory period")
    tau_a: Param = param(200.0, unit="ms", low=1e-6, doc="time constant of adaptation")
    beta: Param = param(0.2, unit="mV", doc="rise of the threshold with a spike")

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        return x._replace(v=_relaxed(x.v, self.v_rest + u, self.tau, span))

    def threshold(self, x: Any) -> Array:
        return self.v_th + self.beta * x.a

    def adapt(self, x: Any, before: Any, dt: float) -> Any:
        return x._replace(a=_relaxed(before.a, 0.0, self.tau_a, dt) + x.z)

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        z, v = fires(self, x, _relaxed(x.v, self.v_rest, self.tau, dt) + c)
        return self.adapt(x._replace(v=v, z=z), x, dt)


def _driven(v: Array, i: Array, tau: Array, tau_s: Array, span: Array) -> Array:
    """What a decaying current adds to v in `span` ms.

    i / tau int_0^span exp(-(span - s)/tau - s/tau_s) ds
    """
    x = span * (1.0 / tau - 1.0 / tau_s)
    small = jnp.abs(x) < 1e-3  # tau near tau_s: expm1(x)/x by its series
    share = jnp.where(small, 1.0 + x * (0.5 + x / 6.0), jnp.expm1(x) / jnp.where(small, 1.0, x))
    return v + i * jnp.exp(-span / tau) * share * span / tau


class CubaLIF(AbstractLeaky):
    """LIF neuron with a synaptic current.

    tau dv/dt = v_rest - v + i + u;   tau_s di/dt = -i;   an arriving spike adds c to i, also while refractory

    In a layer: i = i + c; v = v_rest + a (v - v_rest) + (1 - a) i; i = b i; a = exp(-dt/tau), b = exp(-dt/tau_s);
    then threshold and reset as in `LIF`.
    """

    State: ClassVar = CubaLIFState
    tau: Param = param(20.0, unit="ms", low=1e-6, doc="membrane time constant")
    tau_s: Param = param(5.0, unit="ms", low=1e-6, doc="synaptic time constant")
    v_rest: Param = param(0.0, unit="mV", doc="resting potential")
    v_th: Param = param(1.0, unit="mV", doc="threshold")
    v_reset: Param = param(0.0, unit="mV", doc="potential after a spike")
    t_ref: Param = param(0.0, unit="ms", low=0.0, doc="refractory period")

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        i = _relaxed(x.i, 0.0, self.tau_s, held)
        v = _driven(_relaxed(x.v, self.v_rest + u, self.tau, span), i, self.tau, self.tau_s, span)
        return x._replace(v=v, i=_relaxed(i, 0.0, self.tau_s, span))

    def receive(self, x: Any, c: Array, is_open: Array) -> Any:
        return x._replace(i=x.i + c)

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        i = x.i + c
        a = jnp.exp(-dt / self.tau)
        z, v = fires(self, x, self.v_rest + a * (x.v - self.v_rest) + (1.0 - a) * i)
        return x._replace(v=v, z=z, i=jnp.exp(-dt / self.tau_s) * i)


class LI(AbstractLeaky):
    """Leaky integrator: a membrane without threshold, for readouts.

    tau dv/dt = v_rest - v + i + u;   tau_s di/dt = -i, as in `CubaLIF`; z stays 0

    Without `tau_s` an arriving spike adds c to v, as in `LIF`, and i stays 0; in a layer i is then c of the step:
    v = v_rest + a (v - v_rest) + (1 - a) c.
    """

    State: ClassVar = CubaLIFState
    bounds: ClassVar[tuple[str, str]] = ("v_rest", "")
    tau: Param = param(20.0, unit="ms", low=1e-6, doc="membrane time constant")
    tau_s: Param | None = param(None, unit="ms", low=1e-6, doc="synaptic time constant")
    v_rest: Param = param(0.0, unit="mV", doc="resting potential")

    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        v = _relaxed(x.v, self.v_rest + u, self.tau, span)
        if self.tau_s is None:
            return x._replace(v=v)
        return x._replace(v=_driven(v, x.i, self.tau, self.tau_s, span), i=_relaxed(x.i, 0.0, self.tau_s, span))

    def threshold(self, x: Any) -> Any:
        return UNREACHED

    def receive(self, x: Any, c: Array, is_open: Array) -> Any:
        return x._replace(v=x.v + c) if self.tau_s is None else x._replace(i=x.i + c)

    def cell(self, x: Any, c: Array, dt: float) -> Any:
        i = x.i + c
        a = jnp.exp(-dt / self.tau)
        left = jnp.zeros_like(i) if self.tau_s is None else jnp.exp(-dt / self.tau_s) * i
        return x._replace(v=self.v_rest + a * (x.v - self.v_rest) + (1.0 - a) * i, i=left)
