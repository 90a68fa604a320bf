"""The Jansen-Rit model of a cortical column."""

from typing import Any, ClassVar, NamedTuple

import jax
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class JansenRitState(NamedTuple):
    """Postsynaptic potentials, mV, and their derivatives, mV/ms, each `[N]`.

    y0, y3: caused by the pyramidal cells; y1, y4: excitatory, on the pyramidal cells; y2, y5: inhibitory, on them.
    """

    y0: Array
    y1: Array
    y2: Array
    y3: Array
    y4: Array
    y5: Array


class JansenRit(AbstractVectorField):
    """Pyramidal cells with excitatory and inhibitory feedback.

    Jansen & Rit 1995.

    dy0/dt = y3;   dy3/dt = A a S(y1 - y2) - 2 a y3 - a^2 y0
    dy1/dt = y4;   dy4/dt = A a (mu + a_2 J S(a_1 J y0) + c + u) - 2 a y4 - a^2 y1
    dy2/dt = y5;   dy5/dt = B b a_4 J S(a_3 J y0) - 2 b y5 - b^2 y2
    S(v) = 2 nu_max / (1 + exp(r (v0 - v)))

    The potential of the pyramidal cells, what an electrode sees, is y1 - y2. Input, stimulus and mu are rates, 1/ms;
    one row of coupling is read: `coupling.SigmoidalJansenRit` sends rates of the sources, `coupling.Linear` sends y1.

    Names and defaults are TVB's (its p_min and p_max enter no equation and are left out). vbi has v0 = 6, mu = 0.24,
    writes vmax for 2 nu_max and C0 ... C3 for a_1 J ... a_4 J, and couples y1 - y2. Noise belongs on y4; vbi adds it
    there without the factor A a, cuBNM on y3.

    doi:10.1007/BF00199471
    """

    State: ClassVar = JansenRitState
    plastic: ClassVar[str] = "a_4"
    rows: ClassVar[int | None] = 1
    A: Param = param(3.25, unit="mV", doc="largest excitatory postsynaptic potential")
    B: Param = param(22.0, unit="mV", doc="largest inhibitory postsynaptic potential")
    a: Param = param(0.1, unit="1/ms", low=0.0, doc="rate of the excitatory synapse")
    b: Param = param(0.05, unit="1/ms", low=0.0, doc="rate of the inhibitory synapse")
    v0: Param = param(5.52, unit="mV", doc="potential at half of the highest firing rate")
    nu_max: Param = param(0.0025, unit="1/ms", low=0.0, doc="half of the highest firing rate")
    r: Param = param(0.56, unit="1/mV", doc="slope of the sigmoid")
    J: Param = param(135.0, doc="mean number of synapses")
    a_1: Param = param(1.0, doc="share of J, pyramidal to excitatory")
    a_2: Param = param(0.8, doc="share of J, excitatory to pyramidal")
    a_3: Param = param(0.25, doc="share of J, pyramidal to inhibitory")
    a_4: Param = param(0.25, doc="share of J, inhibitory to pyramidal")
    mu: Param = param(0.22, unit="1/ms", doc="mean input rate")
    cvar: tuple[str, ...] = couples("y1", "y2")

    def dfun(self, t: Array, x: JansenRitState, c: Array, u: Array) -> JansenRitState:
        return synapses(x, arriving(self, x[:3], c[0] + u), self.A, self.B, self.a, self.b)

    def inhibition(self, x: JansenRitState) -> tuple[Array, Array]:
        """Firing rates of the inhibitory and of the pyramidal cells."""
        return rates(self, x[:3])


def _rate(column: Any, v: Array) -> Array:
    return 2.0 * column.nu_max * jax.nn.sigmoid(column.r * (v - column.v0))


def rates(column: Any, felt: tuple[Array, ...]) -> tuple[Array, Array]:
    """Firing rates of the inhibitory and of the pyramidal cells.

    From the potentials y0, y1, y2 that they feel.
    """
    y0, y1, y2 = felt
    return _rate(column, column.a_3 * column.J * y0), _rate(column, y1 - y2)


def arriving(column: Any, felt: tuple[Array, ...], outside: Array) -> tuple[Array, Array, Array]:
    """Spikes that reach the synapses of y0, y1, y2.

    1/ms; `outside` is input from elsewhere.
    """
    inhibitory, pyramidal = rates(column, felt)
    excitatory = column.a_2 * column.J * _rate(column, column.a_1 * column.J * felt[0])
    return pyramidal, column.mu + excitatory + outside, column.a_4 * column.J * inhibitory


def synapses(x: JansenRitState, spikes: tuple[Array, ...], A: Array, B: Array, a: Array, b: Array) -> JansenRitState:
    """Alpha-shaped responses, a second-order equation each."""
    dy3 = A * a * spikes[0] - 2.0 * a * x.y3 - a**2 * x.y0
    dy4 = A * a * spikes[1] - 2.0 * a * x.y4 - a**2 * x.y1
    dy5 = B * b * spikes[2] - 2.0 * b * x.y5 - b**2 * x.y2
    return JansenRitState(x.y3, x.y4, x.y5, dy3, dy4, dy5)
