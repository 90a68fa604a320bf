"""Many draws as one program, batch last: every leaf becomes `[]`, `[1, B]`, `[N, 1]` or `[N, B]`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import paths, replace
from vbinfer.simulation import loop
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.step import start


def arrange(sim: Simulator, theta: Mapping[str, Array]) -> Simulator:
    """The simulator for B draws: `theta` has leaves `[B, ...]`, the result has the batch as last axis everywhere.

    An elementwise leaf of one draw, `[]` or `[N]`, becomes `[1, B]` or `[N, B]` when it is drawn and `[]` or `[N, 1]`
    when it is shared; a leaf with axes of its own (weights) gets the batch appended when drawn and stays when shared.
    """
    values = {}
    for path, leaf in paths(sim).items():
        if path in theta:
            drawn = jnp.moveaxis(theta[path], 0, -1)
            values[path] = drawn[None] if drawn.ndim == 1 else drawn
        elif leaf.axes is None and leaf.value.ndim == 1:
            values[path] = leaf.value[:, None]
    return replace(sim, values)


def arrange_history(history: Any, drawn: Mapping[str, Array], n: int, width: int) -> Any:
    """Histories `[H, N, B]` from a shared one of leaves `[H, N]` and drawn variables `[B]` or `[B, N]`."""
    leaves = {}
    for name, value in history._asdict().items():
        rows = len(value)
        if name in drawn:
            value = jnp.moveaxis(drawn[name], 0, -1)
            value = (value[None] if value.ndim == 1 else value)[None]
        else:
            value = value[..., None]
        leaves[name] = jnp.broadcast_to(value, (rows, n, width))
    return type(history)(**leaves)


def run_batch(
    sim: Simulator, theta: Mapping[str, Array], history: Any, drawn_init: Mapping[str, Array], n_steps: int, words: Any
) -> dict[str, Any]:
    """Samples of every monitor for B draws, `[B, T, N]` each, from time zero.

    Args:
        sim: the simulator whose leaves `theta` replaces.
        theta: paths to leaves `[B, ...]`.
        history: the time up to zero, shared by the draws, leaves `[H, N]`, oldest first.
        drawn_init: state variables to drawn initial values, `[B]` or `[B, N]`.
        n_steps: number of steps.
        words: key words `[B]` each, or None.
    """
    width = next((len(v) for v in (*theta.values(), *drawn_init.values())), 1)
    if words is not None:
        width = len(words[0])
        words = tuple(w[None, :] for w in words)
    # without a connectome, a drawn map says how many nodes there are
    n = max([sim.n_nodes, *(v.shape[1] for name, v in theta.items() if v.ndim == 2 and paths(sim)[name].axes is None)])
    batched = arrange(sim, theta)
    carry = start(batched, arrange_history(history, drawn_init, n, width), words)
    _, ys = loop.run(batched, carry, 0, n_steps, words)
    return jax.tree.map(lambda y: jnp.moveaxis(y, -1, 0), ys)
