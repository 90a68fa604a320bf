"""Many draws as one program, the batch last.

Every elementwise leaf becomes `[]`, `[1, B]`, `[N, 1]` or `[N, B]`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import paths, replace
from vbinfer.noise import KeyWords
from vbinfer.simulation import loop
from vbinfer.simulation.simulator import Simulator


def arrange(sim: Simulator, theta: Mapping[str, Array]) -> Simulator:
    """The simulator with the batch as last axis everywhere.

    `theta` has leaves `[B, ...]`. An elementwise leaf of one draw, `[]` or `[N]`, becomes `[1, B]` or `[N, B]` when it
    is drawn and `[]` or `[N, 1]` when it is shared; a leaf with axes of its own (weights) gets the batch appended when
    drawn and stays when shared.
    """
    values = {}
    for path, leaf in paths(sim).items():
        if path in theta:
            drawn = jnp.moveaxis(theta[path], 0, -1)
            values[path] = drawn[None] if drawn.ndim == 1 else drawn
        elif leaf.axes is None and leaf.value.ndim == 1:
            values[path] = leaf.value[:, None]
    return replace(sim, values)


def run_batch(
    sim: Simulator, theta: Mapping[str, Array], history: Any, n_steps: int, words: KeyWords | None
) -> dict[str, Any]:
    """Samples of every monitor for B draws.

    They are `[B, T, N]` each.

    Args:
        sim: the simulator whose leaves `theta` replaces.
        theta: paths to leaves `[B, ...]`.
        history: the time up to zero of every draw, leaves `[B, H, N]`, oldest first.
        n_steps: number of steps.
        words: key words `[B]` each, or None.
    """
    words = None if words is None else (words[0][None, :], words[1][None, :])
    batched = arrange(sim, theta)  # from here on every [N] is [N, 1] or [N, B], and broadcasting does the rest
    history = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), history)

    def run() -> dict[str, Any]:
        return loop.run(batched, history, 0, n_steps, words)[1]

    try:
        # with as many nodes as draws, an array [N] that is no parameter would be spread over the draws
        with jax.numpy_rank_promotion("raise"):
            ys = run()
    except ValueError as error:
        with jax.numpy_rank_promotion("allow"):
            jax.eval_shape(run)  # whatever else is wrong is raised here, in its own words
        raise ValueError(
            f"in a batch of draws an array with one value per node meets states [node, draw]: {error}. Declare it with "
            "vb.param (a field of the model, or of an equinox.Module used as gfun), which arranges it"
        ) from error
    return jax.tree.map(lambda y: jnp.moveaxis(y, -1, 0), ys)
