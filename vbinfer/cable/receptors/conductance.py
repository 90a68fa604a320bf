"""Given conductances."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.cable.receptors.base import AbstractReceptor, Lead
from vbinfer.stimuli import AbstractStimulus


class Conductance(AbstractReceptor):
    """A conductance that a signal gives.

    i = g(t) (V - e).

    As a dynamic clamp does. The signal is one of `vb.stimuli`, in uS, with a gain per site; it is read at the middle of
    the step. No row of the coupling input belongs to it.
    """

    states: ClassVar[tuple[str, ...]] = ()
    driven: ClassVar[bool] = False
    signal: AbstractStimulus
    e: Param = param(0.0, unit="mV", doc="reversal potential")

    def advance(self, s: Any, c: Array, V: Array, lead: Lead) -> Any:
        g = jnp.broadcast_to(self.signal(lead.t, V), V.shape)
        return g, g * (self.e - V), ()
