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


def run_batch(sim: Simulator, theta: Mapping[str, Array], history: Any, n_steps: int, words: Any) -> dict[str, Any]:
    """Samples of every monitor for B draws, `[B, T, N]` each, from time zero.

    Args:
        sim: the simulator whose leaves `theta` replaces.
        theta: paths to leaves `[B, ...]`.
        history: the time up to zero of every draw, leaves `[B, H, N]`, oldest first.
        n_steps: number of steps.
        words: key words `[B]` each, or None.
    """
    if words is not None:
        words = tuple(w[None, :] for w in words)
    batched = arrange(sim, theta)
    history = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), history)
    try:
        # with as many nodes as draws, an array [N] that is no parameter would be spread over the draws
        with jax.numpy_rank_promotion("raise"):
            carry = start(batched, history, words)
            _, ys = loop.run(batched, carry, 0, n_steps, words)
    except ValueError as error:
        if "rank_promotion" not in str(error):
            raise
        raise ValueError(
            f"in a batch of draws an array with one value per node meets states [node, draw]: {error}. Declare it with "
            "vb.param (a field of the model, or of an equinox.Module used as gfun), which arranges it"
        ) from error
    return jax.tree.map(lambda y: jnp.moveaxis(y, -1, 0), ys)
