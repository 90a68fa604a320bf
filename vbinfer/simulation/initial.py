"""Initial states and histories."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean
from vbinfer.network.delays import History
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.solution import Solution


def by_variable(sim: Simulator, given: Any, what: str) -> dict[str, Array]:
    """Arrays by state variable.

    They come from a State, or from a mapping by name.

    Raises:
        TypeError: neither of the two.
        ValueError: a name that is no state variable.
    """
    named = given._asdict() if hasattr(given, "_asdict") else given
    if not isinstance(named, Mapping):
        raise TypeError(f"{what} was given as {type(given).__name__}; expected a State or a mapping by variable")
    known = sim.model.variables()
    for name in named:
        if name not in known:
            raise ValueError(f"{what} names {name!r}; the model has no such variable. {did_you_mean(name, known)}")
    return {name: jnp.asarray(a, jnp.result_type(float)) for name, a in named.items() if a is not None}


def initial_state(sim: Simulator, init: Any) -> Any:
    """The state that `init` stands for, leaves as `state_shapes`."""
    State = sim.model.State
    if init is None:
        return sim.model.init(sim.n_nodes)
    if isinstance(init, dict):
        init = sim.model.init(sim.n_nodes)._replace(**by_variable(sim, init, "init"))
    if isinstance(init, Solution):
        raise TypeError("init was given a Solution; write init=solution.final")
    if not isinstance(init, State):
        raise TypeError(
            f"init was given as {type(init).__name__}; expected None, a {State.__name__}, or the final of a Solution"
        )
    leaves = []
    for (name, like), value in zip(sim.state_shapes().items(), init, strict=True):
        value = jnp.asarray(value, like.dtype)
        if value.shape not in ((), (1,), like.shape):
            per = ", one per node" if len(like.shape) == 1 else ""
            raise ValueError(f"init.{name} has shape {list(value.shape)}; expected a number or {list(like.shape)}{per}")
        leaves.append(jnp.broadcast_to(value, like.shape))
    return State(*leaves)


def initial_history(sim: Simulator, init: Any) -> Any:
    """The past that `init` stands for.

    Leaves are `[H, N]`, or `[H, *shape]`, oldest first. One row is a constant history.
    """
    if not isinstance(init, History):  # a constant past
        return jax.tree.map(lambda a: a[None], initial_state(sim, init))
    State, rows = sim.model.State, []
    if not isinstance(init.state, State):
        raise TypeError(
            f"History holds {type(init.state).__name__}; expected a {State.__name__} with leaves [H, {sim.n_nodes}]"
        )
    for (name, like), value in zip(sim.state_shapes().items(), init.state, strict=True):
        value = jnp.asarray(value, like.dtype)
        if value.ndim < 1 or value.shape[1:] != like.shape or value.shape[0] < 1:
            expected = ", ".join(["H", *map(str, like.shape)])
            raise ValueError(
                f"the history of {name!r} has shape {list(value.shape)}; expected [{expected}], oldest first"
            )
        rows.append(value)
    if len({len(value) for value in rows}) > 1:
        raise ValueError(
            f"the histories have {[len(v) for v in rows]} rows; every state variable needs the same number"
        )
    return State(*rows)
