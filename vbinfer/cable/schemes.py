"""Steps of a cell: implicit and explicit schemes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.cable.receptors.base import Lead


class Moment(NamedTuple):
    """What a scheme sees of a cell."""

    t: Array
    dt: float
    V: Array
    gates: tuple[Any, ...]
    """Of every mechanism, by name."""
    capacitance: Array
    """nF, `[n, ...batch]`."""
    relaxed: Callable[[tuple[Any, ...], Array, Any], tuple[Any, ...]]
    """(gates, V, h) to the gates h ms later at this voltage, clamped ones held."""
    pooled: Callable[[tuple[Any, ...], tuple[Any, ...], Array, float], tuple[Any, ...]]
    """(gates, gates that set the currents, V, h) to the concentrations h ms later."""
    membrane: Callable[[Array, tuple[Any, ...]], tuple[Array, Array]]
    """(V, gates) to the conductance of all channels (uS) and the current they let in (nA)."""
    synapses: Callable[[Lead], tuple[Array, Array, Any]]
    """Conductance, current and new states of the receptors."""
    axial: Callable[[Array], Array]
    """V to the current from neighbours, nA."""
    leaving: Callable[[], Array]
    """Conductance to neighbours, uS."""
    solve: Callable[[Array, Array], Array]
    """(e, b) to the increment that the tree allows, clamped voltages included."""
    given: Array
    """Current of electrodes and noise, nA, `[n, ...batch]`."""


class Moved(NamedTuple):
    """What a step gives."""

    V: Array
    gates: tuple[Any, ...]
    synapses: Any
    missing: Array
    """Current that would have been needed from outside, nA: that of the electrode where the voltage is clamped."""


Scheme = Callable[[Moment], Moved]


def staggered(m: Moment) -> Moved:
    """Crank-Nicolson with gates half a step off.

    Gates live at t - dt/2 and go to t + dt/2 at V(t), in their first step half as far; then

        (2 C/dt + g + L) dV = 2 (I(V) + u(t + dt/2)),   with the conductances of t + dt/2

    L is the axial operator. Concentrations live at t: they are carried to t + dt/2 for the currents, and from t to
    t + dt by the currents at the mean voltage. Second order, whatever the gates start from.
    """
    first = jnp.where(m.t == 0.0, 0.5 * m.dt, m.dt)
    gates = m.relaxed(m.gates, m.V, first)
    middle = m.pooled(gates, gates, m.V, 0.5 * m.dt)
    V, synapses, missing = _implicit(m, middle, Lead(m.t + 0.5 * m.dt, m.dt, 0.5 * m.dt, first), 0.5)
    return Moved(V, m.pooled(gates, middle, 0.5 * (m.V + V), m.dt), synapses, missing)


def backward_euler(m: Moment) -> Moved:
    """Voltage with the gates of t.

    Then gates at the new voltage.
    """
    V, synapses, missing = _implicit(m, m.gates, Lead(m.t + 0.5 * m.dt, m.dt, 0.0, None), 1.0)
    return Moved(V, _after(m, V), synapses, missing)


def _after(m: Moment, V: Array) -> tuple[Any, ...]:
    """Gates, then concentrations, a step on at this voltage."""
    gates = m.relaxed(m.gates, V, m.dt)
    return m.pooled(gates, gates, V, m.dt)


def _implicit(m: Moment, gates: tuple[Any, ...], lead: Lead, theta: float) -> tuple[Array, Any, Array]:
    """Solve for the increment, currents at V + theta dV."""
    (g, i), (g_s, i_s, synapses) = m.membrane(m.V, gates), m.synapses(lead)
    g, i = g + g_s, i + i_s + m.given
    C = m.capacitance / m.dt
    dV = m.solve(C / theta + g, (i + m.axial(m.V)) / theta)
    # read where the voltage is clamped, and nowhere else computed: XLA drops it
    missing = C * dV + theta * g * dV - i - m.axial(m.V + theta * dV)
    return m.V + dV, synapses, missing


def forward_euler(m: Moment) -> Moved:
    """Everything from the start of the step.

    C dV = dt I.
    """
    return _explicit(m, lambda rate: jnp.ones_like(rate))


def exponential_euler(m: Moment) -> Moved:
    """Every compartment relaxes with its neighbours held.

    dV = I / G (1 - exp(-G dt/C)),   G the conductance to outside and to neighbours
    """
    return _explicit(m, lambda x: jnp.where(x < 1e-6, 1.0, -jnp.expm1(-x) / jnp.where(x < 1e-6, 1.0, x)))


def _explicit(m: Moment, damping: Callable[[Array], Array]) -> Moved:
    (g, i), (g_s, i_s, synapses) = m.membrane(m.V, m.gates), m.synapses(Lead(m.t + 0.5 * m.dt, m.dt, 0.0, None))
    total, C = i + i_s + m.given + m.axial(m.V), m.capacitance / m.dt
    dV = total / C * damping((g + g_s + m.leaving()) / C)
    return Moved(m.V + dV, _after(m, m.V), synapses, C * dV - total)
