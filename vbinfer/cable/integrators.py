"""Integrators of cells beside `Native`."""

from collections.abc import Callable
from typing import Any, ClassVar

from vbinfer.cable import schemes
from vbinfer.cable.cell import Cell
from vbinfer.integrators import AbstractOwnStep


class _OfCells(AbstractOwnStep):
    """Base of schemes that only cells have."""

    scheme: ClassVar[Callable[[schemes.Moment], schemes.Moved]]
    bound: ClassVar[float | None]
    """The largest G dt/C that the scheme bears; None is any."""
    order: ClassVar[int] = 1

    def prepared(self, model: Any) -> Any:
        return model.assembled(type(self).scheme)

    def check(self, model: Any) -> None:
        name, kind = type(self).__name__, type(model).__name__
        if not isinstance(model, Cell):
            raise ValueError(f"{name} is a scheme of vb.cable.Cell; use integrator=Native(dt={self.dt:g}) with {kind}")
        model.warn_of_step(self.dt, name, self.bound)


class BackwardEuler(_OfCells):
    """Backward Euler, NEURON's default.

    (C/dt + g + L) dV = I(V) + u(t + dt/2) with the gates of t; then the gates relax at the new voltage. First order,
    some 20 times less accurate than `Native` at the same cost, stable for any dt.
    """

    scheme = staticmethod(schemes.backward_euler)
    bound: ClassVar[None] = None


class ForwardEuler(_OfCells):
    """Forward Euler, for comparison.

    C dV = dt I(V), gates relaxed at the old voltage. First order, unstable for G dt/C of 1 and more.
    """

    scheme = staticmethod(schemes.forward_euler)
    bound: ClassVar[float] = 1.0


class ExponentialEuler(_OfCells):
    """Exponential Euler, each compartment with its neighbours held.

    dV = I/G (1 - exp(-G dt/C)), G the conductance to outside and to neighbours. First order; exact for a passive
    compartment alone, and slow to spread current for G dt/C of 1 and more.
    """

    scheme = staticmethod(schemes.exponential_euler)
    bound: ClassVar[float] = 1.0
