"""Interface of channels: conductances and their gates."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Array

from vbinfer._param import Parametrised

Gates = Mapping[str, Array]
"""Values of the gates by name."""


class AbstractChannel(Parametrised):
    """A current through the membrane.

        i = sum_k g_k(x) (V - E_k);   dx/dt = (x_inf(V) - x) / tau_x(V)   for every gate x

    mA/cm2 with g in S/cm2 and V in mV; outward is positive. Everything is elementwise: V, the gates and the parameters
    have one value per compartment of the region, and in a batch of draws one more axis, the last.

    A subclass declares its parameters with `param`, names its `gates`, and writes `rates` and `currents`. In a cell
    its parameters are `model.<region>.<name>.<parameter>`, its gates the state variables `<region>_<name>_<gate>`,
    where `name` is that of the class in lower case.
    """

    gates: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def label(cls) -> str:
        """Name in paths."""
        return cls.__name__.lower()

    def rates(self, V: Array) -> Mapping[str, tuple[Array, Array]]:
        """Steady state and time constant (ms) of every gate; none unless overridden."""
        return {}

    @abc.abstractmethod
    def currents(self, V: Array, x: Any) -> Sequence[tuple[Array, Array]]:
        """Conductance (S/cm2) and reversal potential (mV) of each current.

        Args:
            V: mV.
            x: the gates by name, `x["m"]`.
        """
