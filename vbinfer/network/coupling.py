"""How nodes drive each other: c_i = post(sum_j w_ij pre(x_j), x_i)."""

import abc

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, param


class AbstractCoupling(Parametrised):
    """Coupling functions in TVB's two halves: `pre` before the sum over sources, `post` after it.

    Rows are coupling variables: `x: [C, N, ...batch]`.
    """

    @abc.abstractmethod
    def pre(self, x_j: Array) -> Array:
        """What a source sends."""

    @abc.abstractmethod
    def post(self, gx: Array, x_i: Array, strength: Array) -> Array:
        """The input c of a receiver.

        Args:
            gx: sum_j w_ij pre(x_j), `[C, N, ...batch]`.
            x_i: what the receiver's own coupling variables are, `[C, N, ...batch]`.
            strength: sum_j w_ij, `[1, N]`; in a batch `[1, N, 1]`, or `[1, N, B]` where weights are drawn.
        """


class Linear(AbstractCoupling):
    """c_i = G sum_j w_ij x_j + offset: the input grows with the activity of the sources."""

    G: Param = param(1.0, doc="global coupling strength")
    offset: Param = param(0.0, doc="constant input")

    def pre(self, x_j: Array) -> Array:
        return x_j

    def post(self, gx: Array, x_i: Array, strength: Array) -> Array:
        return self.G * gx + self.offset


class Difference(AbstractCoupling):
    """c_i = G sum_j w_ij (x_j - x_i): the input pulls a node towards its sources."""

    G: Param = param(1.0, doc="global coupling strength")

    def pre(self, x_j: Array) -> Array:
        return x_j

    def post(self, gx: Array, x_i: Array, strength: Array) -> Array:
        return self.G * (gx - strength * x_i)


def weighted_sum(weights: Array, sent: Array) -> Array:
    """sum_j w_ij sent_j for weights `[N, N]` or, one matrix per draw, `[N, N, B]`; sent is `[C, N]` or `[C, N, B]`."""
    if weights.ndim == 3:
        return jnp.einsum("ijb,cjb->cib", weights, sent)
    if sent.shape[0] == 1:
        return (weights @ sent[0])[None]
    return jnp.einsum("ij,cj...->ci...", weights, sent)
