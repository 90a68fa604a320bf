"""Inhibitory synapses that keep the excitatory cells at a target."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param, replace
from vbinfer.models.base import AbstractVectorField, state_class


class InhibitoryPlasticity(AbstractVectorField):
    """Inhibitory synaptic plasticity (Vogels et al. 2011).

    Of `WilsonCowan`, `JansenRit` or `JansenRitPopulations`:

    dw/dt = eta I (E - target),   w >= 0 after every stage

    w is the weight of inhibition on the excitatory cells, a state variable that takes the place of the parameter of
    its name and starts from it: c_ei with I and E themselves in `WilsonCowan` (Abeysuriya et al. 2018), a_4 with the
    firing rates S(a_3 J y0) and S(y1 - y2) in `JansenRit` (Coronel-Oliveros et al. 2025; Stasinski et al. 2024 have
    the same idea). At a fixed point E = target, whatever the connectome. Plasticity is slow: leave out more of the
    beginning than without it.

    Parameters of the model are `model.local.<name>`.

    eta is one over the time constant of the papers. For Wilson-Cowan published code has 2 s, eta = 5e-4 per ms, with
    target 0.14. For Jansen-Rit it has tau = 2 with rates in Hz, time in s and C_4 = J a_4: eta = 1000 / (2 J) = 3.7
    with target 2.5 Hz = 0.0025 per ms, and multiplies by (C_4 / J)^beta with beta = 1 in place of the bound w >= 0.

    doi:10.1126/science.1211095, doi:10.1371/journal.pcbi.1006007, doi:10.1371/journal.pcbi.1013463,
    doi:10.1371/journal.pcbi.1012595
    """

    local: Any
    """The model whose inhibition is plastic.

    It names the weight, `plastic`, and says how active the inhibitory and the excitatory cells are, `inhibition(x)`.
    """
    target: Param = param(low=0.0, doc="activity at which the excitatory cells are kept")
    eta: Param = param(low=0.0, doc="learning rate")

    def validate(self) -> None:
        if not hasattr(self.local, "inhibition"):
            raise TypeError(
                f"InhibitoryPlasticity was given {type(self.local).__name__}; it knows the inhibition of "
                "WilsonCowan(), JansenRit() and JansenRitPopulations()"
            )

    @property
    def cvar(self) -> tuple[str, ...]:
        return self.local.cvar

    @property
    def rows(self) -> int | None:
        return self.local.rows

    @property
    def State(self) -> Any:
        return state_class((*self.local.variables(), self.local.plastic))

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        return {**self.local.shapes(n), self.local.plastic: (n,)}

    def init(self, n: int) -> Any:
        return self.State(*self.local.init(n), jnp.broadcast_to(getattr(self.local, self.local.plastic), (n,)))

    def at_nodes(self, x: Any) -> dict[str, Array]:
        return {**self.local.at_nodes(self._split(x)), self.local.plastic: x[-1]}

    def _split(self, x: Any) -> Any:
        return self.local.State(*x[:-1])

    def dfun(self, t: Array, x: Any, c: Array, u: Array) -> Any:
        inner = self._split(x)
        local = replace(self.local, {self.local.plastic: x[-1]})
        inhibitory, excitatory = local.inhibition(inner)
        return self.State(*local.dfun(t, inner, c, u), self.eta * inhibitory * (excitatory - self.target))

    def project(self, x: Any) -> Any:
        return self.State(*self.local.project(self._split(x)), jnp.maximum(x[-1], 0.0))
