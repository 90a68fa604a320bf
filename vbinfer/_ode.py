"""Steps of explicit schemes over trees: what the integrators and the BOLD monitor share."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jaxtyping import Array

State = TypeVar("State")
Field = Callable[[Array, State], State]


def _identity(x: State) -> State:
    return x


def _add(x: Any, scale: float | Array, *increments: Any) -> Any:
    """x + scale * increment + ..., leaf by leaf."""
    return jax.tree.map(lambda a, *b: a + scale * sum(b[1:], b[0]), x, *increments)


def euler(
    f: Field, t: Array, x: State, dt: float, dW: State | None = None, project: Callable[[State], State] = _identity
) -> State:
    """x + dt f(t, x) + dW: order 1 (strong order 1 for additive noise); Itô."""
    new = _add(x, dt, f(t, x))
    return project(new if dW is None else _add(new, 1.0, dW))


def heun(
    f: Field, t: Array, x: State, dt: float, dW: State | None = None, project: Callable[[State], State] = _identity
) -> State:
    """The trapezoidal predictor-corrector with the same dW in both stages; order 2 without noise.

    p = project(x + dt f(t, x) + dW);   x' = project(x + dt/2 (f(t, x) + f(t + dt, p)) + dW)
    """
    k1 = f(t, x)
    predictor = _add(x, dt, k1)
    if dW is not None:
        predictor = _add(predictor, 1.0, dW)
    k2 = f(t + dt, project(predictor))
    new = _add(x, 0.5 * dt, k1, k2)
    return project(new if dW is None else _add(new, 1.0, dW))
