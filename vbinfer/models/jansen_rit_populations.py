"""Jansen-Rit columns of subpopulations."""

from typing import ClassVar

from jaxtyping import Array

from vbinfer._param import Param, param, spread
from vbinfer.models.base import AbstractVectorField, couples
from vbinfer.models.jansen_rit import JansenRitState, arriving, rates, synapses


class JansenRitPopulations(AbstractVectorField):
    """Jansen-Rit column of subpopulations in parallel (David & Friston 2003).

    For every subpopulation k, with A_k, B_k, a_k, b_k and its share w_k of the cells:

    dy0_k/dt = y3_k;   dy3_k/dt = A_k a_k S(y1 - y2) - 2 a_k y3_k - a_k^2 y0_k
    dy1_k/dt = y4_k;   dy4_k/dt = A_k a_k (mu + a_2 J S(a_1 J y0) + c + u) - 2 a_k y4_k - a_k^2 y1_k
    dy2_k/dt = y5_k;   dy5_k/dt = B_k b_k a_4 J S(a_3 J y0) - 2 b_k y5_k - b_k^2 y2_k
    y0 = sum_k w_k y0_k, and so for all;   S as in `JansenRit`

    All cells feel, coupling sends and monitors show the weighted sums y0 ... y5, `[N]`; the state has `[N, K]`. With
    one subpopulation, or several alike whose shares sum to one, this is `JansenRit`. Noise on y4 comes to each
    subpopulation by itself.

    Defaults are half alpha cells and half gamma cells, as Coronel-Oliveros et al. 2025 mix them: A/a = 32.5 mV ms and
    B/b = 440 mV ms are those of Jansen and Rit, and a is 0.12 or 0.66 per ms, b half of it; sigmoid, J and mu are
    those of `JansenRit`. That work makes a_4 plastic too: `InhibitoryPlasticity(JansenRitPopulations(), ...)`.

    doi:10.1016/j.neuroimage.2003.07.015, doi:10.1371/journal.pcbi.1013463
    """

    State: ClassVar = JansenRitState
    plastic: ClassVar[str] = "a_4"
    rows: ClassVar[int | None] = 1
    A: Param = param((3.9, 21.45), unit="mV", axes=("population",), doc="largest excitatory postsynaptic potentials")
    B: Param = param((26.4, 145.2), unit="mV", axes=("population",), doc="largest inhibitory postsynaptic potentials")
    a: Param = param((0.12, 0.66), unit="1/ms", low=0.0, axes=("population",), doc="rates of excitatory synapses")
    b: Param = param((0.06, 0.33), unit="1/ms", low=0.0, axes=("population",), doc="rates of inhibitory synapses")
    w: Param = param((0.5, 0.5), low=0.0, axes=("population",), doc="shares of the subpopulations")
    v0: Param = param(5.52, unit="mV", doc="potential at half of the highest firing rate")
    nu_max: Param = param(0.0025, unit="1/ms", low=0.0, doc="half of the highest firing rate")
    r: Param = param(0.56, unit="1/mV", doc="slope of the sigmoid")
    J: Param = param(135.0, doc="mean number of synapses")
    a_1: Param = param(1.0, doc="share of J, pyramidal to excitatory")
    a_2: Param = param(0.8, doc="share of J, excitatory to pyramidal")
    a_3: Param = param(0.25, doc="share of J, pyramidal to inhibitory")
    a_4: Param = param(0.25, doc="share of J, inhibitory to pyramidal")
    mu: Param = param(0.22, unit="1/ms", doc="mean input rate")
    cvar: tuple[str, ...] = couples("y1", "y2")

    def validate(self) -> None:
        given = {name: getattr(self, name).shape for name in ("A", "B", "a", "b", "w")}
        if len({shape[:1] for shape in given.values()}) > 1 or () in given.values():
            shapes = ", ".join(f"{name} {list(shape)}" for name, shape in given.items())
            raise ValueError(f"JansenRitPopulations was given {shapes}; give one value per subpopulation, a=(0.1, 0.6)")

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.variables(), (n, self.w.shape[0]))

    def at_nodes(self, x: JansenRitState) -> dict[str, Array]:
        return {name: (self._each(self.w, x) * y).sum(axis=1) for name, y in x._asdict().items()}

    def dfun(self, t: Array, x: JansenRitState, c: Array, u: Array) -> JansenRitState:
        spikes = arriving(self, self._felt(x), c[0] + u)
        A, B, a, b = (self._each(leaf, x) for leaf in (self.A, self.B, self.a, self.b))
        return synapses(x, tuple(rate[:, None] for rate in spikes), A, B, a, b)

    def inhibition(self, x: JansenRitState) -> tuple[Array, Array]:
        """Firing rates of the inhibitory and of the pyramidal cells."""
        return rates(self, self._felt(x))

    def _felt(self, x: JansenRitState) -> tuple[Array, ...]:
        return tuple(self.at_nodes(x).values())[:3]

    def _each(self, leaf: Array, x: JansenRitState) -> Array:
        """A leaf `[K]` as it meets states `[N, K, ...batch]`."""
        return spread(leaf, x.y0[0])[None]
