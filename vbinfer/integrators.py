"""Fixed-step integrators: how one step of the loop is made from drift, coupling and noise."""

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array

from vbinfer import _ode


class System(NamedTuple):
    """The right-hand side as an integrator sees it."""

    couple: Callable[[Any], Array]
    """State to the coupling input c, `[C, N, ...]`."""
    drift: Callable[[Array, Any, Array], Any]
    """(t, x, c) to dx/dt."""
    project: Callable[[Any], Any]
    """The nearest admissible state."""


def _step_size(dt: float) -> float:
    if isinstance(dt, bool) or not isinstance(dt, int | float):
        raise TypeError(f"dt was given as {dt!r}; write a Python number of milliseconds, for example Heun(dt=0.1)")
    if not math.isfinite(dt) or dt <= 0:
        raise ValueError(f"dt is {dt:g} ms; it must be positive")
    return float(dt)


class AbstractIntegrator(eqx.Module):
    """One step of size `dt` (ms, static: a new dt is a new compilation)."""

    dt: eqx.AbstractVar[float]

    @abc.abstractmethod
    def step(self, system: System, t: Array, x: Any, dW: Any | None) -> Any:
        """The state at t + dt. `dW` is the noise increment of this step, `None` where nothing is random."""


class Euler(AbstractIntegrator):
    """Euler-Maruyama: x' = project(x + dt f(t, x) + dW).

    Order 1; with additive noise strong order 1. The stationary variance of dx = -x/T dt + dW is off by a factor
    1/(1 - dt/2T).
    """

    dt: float = eqx.field(static=True, converter=_step_size)

    def step(self, system: System, t: Array, x: Any, dW: Any | None) -> Any:
        return _ode.euler(lambda t, x: system.drift(t, x, system.couple(x)), t, x, self.dt, dW, system.project)


class Heun(AbstractIntegrator):
    """Heun's method with the same noise in predictor and corrector; `project` after each.

    p = project(x + dt f(t, x) + dW);   x' = project(x + dt/2 (f(t, x) + f(t + dt, p)) + dW)

    Order 2 without noise; strong order 1 with additive noise, second order in the drift's contribution.

    Args:
        dt: step, ms.
        frozen_coupling: evaluate the coupling once per step and use it in both stages, as TVB does. That gives exact
            parity with TVB and half the matrix products, but the scheme is then first order in dt as soon as nodes
            are coupled.
    """

    dt: float = eqx.field(static=True, converter=_step_size)
    frozen_coupling: bool = eqx.field(static=True, default=False)

    def step(self, system: System, t: Array, x: Any, dW: Any | None) -> Any:
        if self.frozen_coupling:
            c = system.couple(x)
            return _ode.heun(lambda t, x: system.drift(t, x, c), t, x, self.dt, dW, system.project)
        return _ode.heun(lambda t, x: system.drift(t, x, system.couple(x)), t, x, self.dt, dW, system.project)
