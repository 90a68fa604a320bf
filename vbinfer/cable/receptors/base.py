"""Interface of receptors: what presynaptic signals do at a site."""

import abc
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array

from vbinfer._param import Parametrised


class Lead(NamedTuple):
    """How far a scheme advances what it takes currents of."""

    t: Array
    """The middle of the step, where signals are read, ms."""
    dt: float
    """The step, ms."""
    event: float
    """From the start of the step to where currents are taken, ms: dt/2, or 0."""
    gate: Any
    """From where gates live to there, ms: a step, half of it from time zero on; None if they live at its start."""


class AbstractReceptor(Parametrised):
    """Base of receptors, one at every site.

    Row k of the coupling input drives the k-th receptor that is driven. Its parameters are
    `model.receptors.<name>.<parameter>`, a number or one per site, its state variables `<name>_<state>`.
    """

    states: ClassVar[tuple[str, ...]]
    driven: ClassVar[bool] = True
    """Whether a row of the coupling input is its own; one that is not gets zeros."""

    @abc.abstractmethod
    def advance(self, s: tuple[Array, ...], c: Array, V: Array, lead: Lead) -> tuple[Array, Array, tuple[Array, ...]]:
        """Advance by a step.

        Returns conductance (uS), current into the cell (nA), and the states a step on.

        Args:
            s: its states, `[N, ...batch]` each.
            c: what arrives at the start of the step, `[N, ...batch]`.
            V: potential of the sites there, mV.
            lead: where in the step the current is taken.
        """


class AbstractEvents(AbstractReceptor):
    """Base of receptors whose conductance follows events.

    i = g (V - e).
    """

    e: Any

    @abc.abstractmethod
    def arrived(self, s: tuple[Array, ...], c: Array) -> tuple[Array, ...]:
        """The states after events of total weight `c`, uS."""

    @abc.abstractmethod
    def later(self, s: tuple[Array, ...], h: float) -> tuple[Array, ...]:
        """The states h ms later, without events."""

    @abc.abstractmethod
    def conductance(self, s: tuple[Array, ...]) -> Array:
        """uS."""

    def advance(self, s: Any, c: Array, V: Array, lead: Lead) -> Any:
        s = self.arrived(s, c)
        g = self.conductance(self.later(s, lead.event) if lead.event else s)
        return g, g * (self.e - V), self.later(s, lead.dt)
