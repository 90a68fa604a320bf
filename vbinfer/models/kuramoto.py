"""Phase oscillators."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField


class KuramotoState(NamedTuple):
    """theta: phase, rad, `[N]`."""

    theta: Array


class Kuramoto(AbstractVectorField):
    """Phases that advance at their own frequency and are pulled by their sources (Kuramoto 1984).

    dtheta/dt = omega + c + u

    With `coupling.Kuramoto(G)` the input is c_i = G sum_j w_ij sin(theta_j - theta_i). The phase is not wrapped to
    [0, 2 pi): it grows with time, so that its derivative is smooth and its slope the frequency; take the sine or cosine
    of it (cuBNM wraps at every step). TVB has the same equation and default; neurolib divides the sum by N.

    doi:10.1007/978-3-642-69689-3
    """

    State: ClassVar = KuramotoState
    omega: Param = param(1.0, unit="rad/ms", doc="natural angular frequency")
    cvar: tuple[str, ...] = eqx.field(static=True, default=("theta",))

    def init(self, n: int) -> KuramotoState:
        return KuramotoState(jnp.zeros(n))

    def dfun(self, t: Array, x: KuramotoState, c: Array, u: Array) -> KuramotoState:
        return KuramotoState(self.omega + c[0] + u)
