"""Interface of channels: conductances and their gates."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Array

from vbinfer._param import Parametrised

REST = 5e-5
"""Calcium inside where no pool is, mM."""
Gates = Mapping[str, Array]
"""Values of the gates by name."""


class AbstractMechanism(Parametrised):
    """Base of what a membrane has in a region."""

    gates: ClassVar[tuple[str, ...]] = ()
    """Its state variables, `<region>_<name>_<gate>` in a cell."""

    @classmethod
    def label(cls) -> str:
        """Name in paths: that of the class in lower case."""
        return cls.__name__.lower()


class AbstractChannel(AbstractMechanism):
    """A current through the membrane.

        i = sum_k g_k(x) (V - E_k);   dx/dt = (x_inf(V) - x) / tau_x(V)   for every gate x

    mA/cm2 with g in S/cm2 and V in mV; outward is positive. Everything is elementwise: V, the gates and the parameters
    have one value per compartment of the region, and in a batch of draws one more axis, the last.

    A subclass declares its parameters with `param`, names its `gates`, and writes `rates` and `currents`. In a cell
    its parameters are `model.<region>.<name>.<parameter>`, its gates the state variables `<region>_<name>_<gate>`,
    where `name` is that of the class in lower case.
    """

    carries: ClassVar[str | None] = None
    """"ca" for a current of calcium ions: pools take it up, and `Nernst` sets its reversal potential."""

    def rates(self, V: Array, ca: Array) -> Mapping[str, tuple[Array, Array]]:
        """Steady state and time constant (ms) of every gate.

        None unless overridden.

        Args:
            V: mV.
            ca: concentration of calcium inside, mM: `REST` without a pool.
        """
        return {}

    @abc.abstractmethod
    def currents(self, V: Array, x: Any) -> Sequence[tuple[Array, Array]]:
        """Conductance (S/cm2) and reversal potential (mV) of each current.

        Args:
            V: mV.
            x: the gates by name, `x["m"]`.
        """


class AbstractPool(AbstractMechanism):
    """Base of concentrations of calcium that its current fills.

    In mM; its one state variable lives at t, as V does.
    """

    @abc.abstractmethod
    def initial(self, like: Array) -> Array:
        """The concentration without current."""

    @abc.abstractmethod
    def rates(self, i: Array) -> tuple[Array, Array]:
        """Steady state and time constant under the ion's current.

        The current is in mA/cm2, outward.
        """


class AbstractReversal(AbstractMechanism):
    """Base of reversal potentials that follow a concentration."""

    @abc.abstractmethod
    def potential(self, ca: Array) -> Array:
        """mV, of a concentration inside in mM."""
