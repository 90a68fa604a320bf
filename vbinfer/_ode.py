"""Steps of explicit schemes over trees.

The integrators and the BOLD monitor share them. A field is called with the fraction of the step at which it stands (0
at the start, 1 at the end) and the state there.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jaxtyping import Array

State = TypeVar("State")
Field = Callable[[float, State], State]
Project = Callable[[State], State]


def _identity(x: State) -> State:
    return x


def _add(x: Any, scale: float | Array, *increments: Any) -> Any:
    """x + scale * (increment + ...), leaf by leaf."""
    return jax.tree.map(lambda a, *b: a + scale * sum(b[1:], b[0]), x, *increments)


def _kick(x: Any, dW: Any | None) -> Any:
    return x if dW is None else _add(x, 1.0, dW)


def euler(f: Field, x: State, dt: float, dW: State | None = None, project: Project = _identity) -> State:
    """The Euler-Maruyama step x + dt f(x) + dW, Itô."""
    return project(_kick(_add(x, dt, f(0.0, x)), dW))


def heun(f: Field, x: State, dt: float, dW: State | None = None, project: Project = _identity) -> State:
    """Heun's predictor-corrector, the same dW in both stages.

    p = project(x + dt f(0, x) + dW);   x' = project(x + dt/2 (f(0, x) + f(1, p)) + dW)
    """
    # the predictor feels the noise of this very step, so the drift at its end is that of where the path goes
    k1 = f(0.0, x)
    k2 = f(1.0, project(_kick(_add(x, dt, k1), dW)))
    return project(_kick(_add(x, 0.5 * dt, k1, k2), dW))


def rk4(f: Field, x: State, dt: float, dW: State | None = None, project: Project = _identity) -> State:
    """The classical Runge-Kutta scheme; dW is added last.

    k1 = f(0, x);  k2 = f(1/2, x + dt/2 k1);  k3 = f(1/2, x + dt/2 k2);  k4 = f(1, x + dt k3)
    x' = project(x + dt/6 (k1 + 2 k2 + 2 k3 + k4) + dW), every stage projected too
    """
    k1 = f(0.0, x)
    k2 = f(0.5, project(_add(x, 0.5 * dt, k1)))
    k3 = f(0.5, project(_add(x, 0.5 * dt, k2)))
    k4 = f(1.0, project(_add(x, dt, k3)))
    # every stage is of the drift alone; the noise comes after all of them
    slope = jax.tree.map(lambda a, b, c, d: (a + 2.0 * b + 2.0 * c + d) / 6.0, k1, k2, k3, k4)
    return project(_kick(_add(x, dt, slope), dW))
