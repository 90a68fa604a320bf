"""Excitatory and inhibitory gating, and balanced inhibition."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples
from vbinfer.models.wong_wang import rate


class RWWExcInhState(NamedTuple):
    """S_e, S_i: mean gating, 0 to 1, each `[N]`.

    Of excitatory (NMDA) and inhibitory (GABA) synapses.
    """

    S_e: Array
    S_i: Array


class ReducedWongWangExcInh(AbstractVectorField):
    """Mean gating of two populations (Deco et al. 2014).

    An excitatory and an inhibitory one.

    dS_e/dt = -S_e / tau_e + (1 - S_e) gamma_e H(a_e x_e - b_e, d_e)
    dS_i/dt = -S_i / tau_i + gamma_i H(a_i x_i - b_i, d_i)
    x_e = w_p J_N S_e - J_i S_i + W_e I_o + G J_N c + I_ext + u
    x_i = J_N S_e - S_i + W_i I_o + lamda G J_N c
    H(y, d) = y / (1 - exp(-d y)), the firing rate in Hz
    S_e, S_i in [0, 1] after every stage

    c is the coupling of S_e. The model has a strength G of its own, 2 as in TVB: with `coupling.Linear(G)` the two are
    multiplied, so set one of them to 1 and infer the other. lamda = 1 adds long-range feedforward inhibition.
    Rates are in Hz (hence a, b, d) but time is in ms (hence gamma). H is smooth where its quotient is 0/0, where TVB
    returns NaN. vbi 0.4.4 mixes Hz and kHz in the inhibitory population, which silences it, and leaves out J_N S_e.
    J_i is 1 everywhere or, for rates that do not depend on G, what `balanced_inhibition` returns.

    doi:10.1523/JNEUROSCI.5068-13.2014
    """

    State: ClassVar = RWWExcInhState
    start: ClassVar = {"S_e": 0.1, "S_i": 0.05}
    rows: ClassVar[int | None] = 1
    a_e: Param = param(310.0, unit="Hz/nA", doc="gain of the excitatory rate function")
    b_e: Param = param(125.0, unit="Hz", doc="threshold of the excitatory rate function")
    d_e: Param = param(0.16, unit="s", low=1e-6, doc="curvature of the excitatory rate function")
    gamma_e: Param = param(0.641e-3, low=0.0, doc="kinetic constant of S_e, for rates in Hz and time in ms")
    tau_e: Param = param(100.0, unit="ms", low=1e-6, doc="decay time of NMDA gating")
    w_p: Param = param(1.4, low=0.0, doc="strength of local recurrent excitation")
    J_N: Param = param(0.15, unit="nA", low=0.0, doc="excitatory synaptic coupling")
    W_e: Param = param(1.0, doc="share of the external input that the excitatory population receives")
    a_i: Param = param(615.0, unit="Hz/nA", doc="gain of the inhibitory rate function")
    b_i: Param = param(177.0, unit="Hz", doc="threshold of the inhibitory rate function")
    d_i: Param = param(0.087, unit="s", low=1e-6, doc="curvature of the inhibitory rate function")
    gamma_i: Param = param(1e-3, low=0.0, doc="kinetic constant of S_i, for rates in Hz and time in ms")
    tau_i: Param = param(10.0, unit="ms", low=1e-6, doc="decay time of GABA gating")
    J_i: Param = param(1.0, unit="nA", doc="local inhibitory coupling; see `balanced_inhibition`")
    W_i: Param = param(0.7, doc="share of the external input that the inhibitory population receives")
    I_o: Param = param(0.382, unit="nA", doc="external input")
    I_ext: Param = param(0.0, unit="nA", doc="external input to the excitatory population only")
    G: Param = param(2.0, low=0.0, doc="global coupling strength, times that of the coupling function")
    lamda: Param = param(0.0, low=0.0, doc="share of the coupling that the inhibitory population receives")
    cvar: tuple[str, ...] = couples("S_e")

    def inputs(self, x: RWWExcInhState, c: Array, u: Array) -> tuple[Array, Array]:
        """Input currents (x_e, x_i) of the populations, nA.

        `[N]` each, for coupling input `c` `[N]`.
        """
        network = self.G * self.J_N * c
        x_e = self.w_p * self.J_N * x.S_e - self.J_i * x.S_i + self.W_e * self.I_o + network + self.I_ext + u
        x_i = self.J_N * x.S_e - x.S_i + self.W_i * self.I_o + self.lamda * network
        return x_e, x_i

    def rates(self, x_e: Array, x_i: Array) -> tuple[Array, Array]:
        """Firing rates (H_e, H_i) at these currents, Hz."""
        return rate(self.a_e * x_e - self.b_e, self.d_e), rate(self.a_i * x_i - self.b_i, self.d_i)

    def dfun(self, t: Array, x: RWWExcInhState, c: Array, u: Array) -> RWWExcInhState:
        H_e, H_i = self.rates(*self.inputs(x, c[0], u))
        dS_e = -x.S_e / self.tau_e + (1.0 - x.S_e) * self.gamma_e * H_e
        return RWWExcInhState(dS_e, -x.S_i / self.tau_i + self.gamma_i * H_i)

    def project(self, x: RWWExcInhState) -> RWWExcInhState:
        return RWWExcInhState(jnp.clip(x.S_e, 0.0, 1.0), jnp.clip(x.S_i, 0.0, 1.0))


def balanced_inhibition(
    model: ReducedWongWangExcInh, weights: ArrayLike, G: ArrayLike, *, rate_e: ArrayLike = 3.06
) -> Array:
    """The J_i at which every node rests at one rate.

    That of its excitatory population (Deco et al. 2014).

    With the rate prescribed, S_e = tau_e gamma_e rate_e / (1 + tau_e gamma_e rate_e), x_e solves H(a_e x_e - b_e) =
    rate_e and x_i follows from S_i, which solves S_i = tau_i gamma_i H(a_i x_i - b_i) by Newton's method, monotone
    because H is convex and increasing. Then
    J_i = (w_p J_N S_e + W_e I_o + model.G G J_N sum_j w_ij S_e,j + I_ext - x_e) / S_i.
    3.06 Hz is the rate at a_e x_e - b_e = -8.07 Hz, the paper's x_e - b_e/a_e = -0.026 nA; the paper finds J_i by
    simulating and correcting, which ends here up to its tolerance. Differentiable in G, the weights and the model.

    The balanced state is a fixed point, not always a stable one. With default parameters and lamda = 0 excitation
    through the network outgrows the inhibition that balances it at model.G G rho(weights) of about 1.26, rho being the
    spectral radius, and beyond it the network leaves for lower rates; with lamda = 1 the state is stable for any G.

    Args:
        model: the model; its own J_i is not read.
        weights: `[node, node]`, from column to row.
        G: strength of the `coupling.Linear` that will be used.
        rate_e: target rate, Hz, a number or `[N]`; below 1/d_e the input is below threshold.

    Returns:
        J_i `[N]`, nA, to be given as `ReducedWongWangExcInh(J_i=...)` or bound to `"model.J_i"`.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> model = vb.models.ReducedWongWangExcInh(G=1.0)
        >>> weights = np.array([[0.0, 0.2], [0.6, 0.0]])
        >>> [round(float(J), 3) for J in vb.models.balanced_inhibition(model, weights, 1.0)]
        [1.128, 1.379]
    """
    W = jnp.asarray(weights, jnp.result_type(float))
    if W.ndim != 2 or W.shape[0] != W.shape[1]:
        raise ValueError(f"weights was given shape {list(W.shape)}; expected [node, node]")
    target = jnp.broadcast_to(jnp.asarray(rate_e, W.dtype), W.shape[:1])
    # dS_e/dt = 0 at the rate that is asked for
    opening = model.tau_e * model.gamma_e * target
    S_e = opening / (1.0 + opening)
    x_e = (_excess_of(target, model.d_e) + model.b_e) / model.a_e
    network = model.G * model.J_N * jnp.asarray(G, W.dtype) * (W @ S_e)
    x_0 = model.J_N * S_e + model.W_i * model.I_o + model.lamda * network
    S_i = jnp.zeros_like(x_0)
    for _ in range(12):  # from below, quadratic: float64 precision after 6
        H, slope = _rate_and_slope(model.a_i * (x_0 - S_i) - model.b_i, model.d_i)
        gain = model.tau_i * model.gamma_i
        S_i = S_i - (S_i - gain * H) / (1.0 + gain * model.a_i * slope)
    return (model.w_p * model.J_N * S_e + model.W_e * model.I_o + network + model.I_ext - x_e) / S_i


def _rate_and_slope(excess: Array, d: Array) -> tuple[Array, Array]:
    """H and dH/d(excess) of the rate function, elementwise."""
    return jax.jvp(lambda y: rate(y, d), (excess,), (jnp.ones_like(excess),))


def _excess_of(target: Array, d: Array) -> Array:
    """Inverse of the rate function, by Newton's method.

    The input above threshold at which the rate is `target`.
    """
    # H(y) > y, so the target lies right of the root, and on a convex function Newton's steps from there never overshoot
    excess = target
    for _ in range(30):
        H, slope = _rate_and_slope(excess, d)
        excess = excess - (H - target) / slope
    return excess
