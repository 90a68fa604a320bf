"""Resting states."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.cable.tree import tree_of

if TYPE_CHECKING:
    from vbinfer.cable.cell import Cell
ROUNDS = 60
FIRST, GROWTH = 0.5, 1.6
"""Steps of implicit Euler, ms: the last ones are so long that they are Newton's."""
LONGEST = 20.0
"""mV that the voltage may move in one of them."""


def resting(cell: "Cell") -> Array:
    """Voltage at which no current flows.

    Gates in their steady state, `[n]`.
    """
    start = jnp.broadcast_to(cell.v_init, (cell.comp.n,)).astype(jnp.result_type(float))
    fixed = jax.lax.stop_gradient(cell)

    def one(k: Array, V: Array) -> Array:
        return V + jnp.clip(_newton(fixed, fixed, V, FIRST * GROWTH**k), -LONGEST, LONGEST)

    V = jax.lax.stop_gradient(jax.lax.fori_loop(0, ROUNDS, one, jax.lax.stop_gradient(start)))
    # once more with the derivative of the residual alone: that of the solution, by the implicit function theorem
    return V + _newton(cell, fixed, V, jnp.inf)


def _newton(cell: "Cell", fixed: "Cell", V: Array, ms: Any) -> Array:
    """A step of implicit Euler.

    The residual of one cell, the slope of another.
    """
    residual, _ = _current(cell, V)
    into = lambda V: _current(fixed, V)[0] - tree_of(cell.comp).axial(V, parts.resistance)  # noqa: E731
    _, parts = _current(fixed, V)
    # the membrane is elementwise: one derivative along ones has the slope of every compartment
    slope = -jax.jvp(into, (V,), (jnp.ones_like(V),))[1]
    e = jnp.maximum(parts.capacitance / ms + slope, 0.1 * jnp.abs(slope))
    return tree_of(cell.comp).solve(e, residual, parts.resistance)


def _current(cell: "Cell", V: Array) -> tuple[Array, Any]:
    """Current into every compartment, nA, and what was assembled."""
    parts = cell.parts_now()
    _, i = cell.membrane(V, cell.settled(V), parts.area)
    return i + tree_of(cell.comp).axial(V, parts.resistance), parts
