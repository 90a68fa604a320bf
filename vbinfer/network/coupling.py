"""How nodes drive each other: c_i = post(sum_j w_ij pre(x_j), x_i)."""

import abc

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, param

Rows = tuple[Array, ...]
"""Coupling variables, one array `[N, ...batch]` each, so that parameters broadcast as in a model's `dfun`."""


class AbstractCoupling(Parametrised):
    """Coupling functions in TVB's two halves: `pre` before the sum over sources, `post` after it."""

    @abc.abstractmethod
    def pre(self, x_j: Rows) -> Rows:
        """What a source sends."""

    @abc.abstractmethod
    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        """The input c of a receiver.

        Args:
            gx: sum_j w_ij pre(x_j), a row for each that `pre` sends.
            x_i: the receiver's own coupling variables.
            strength: sum_j w_ij, `[N]`; in a batch `[N, 1]`, or `[N, B]` where weights are drawn.
        """


class Linear(AbstractCoupling):
    """c_i = G sum_j w_ij x_j + offset: the input grows with the activity of the sources."""

    G: Param = param(1.0, doc="global coupling strength")
    offset: Param = param(0.0, doc="constant input")

    def pre(self, x_j: Rows) -> Rows:
        return x_j

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        return tuple(self.G * sum_j + self.offset for sum_j in gx)


class Difference(AbstractCoupling):
    """c_i = G sum_j w_ij (x_j - x_i): the input pulls a node towards its sources."""

    G: Param = param(1.0, doc="global coupling strength")

    def pre(self, x_j: Rows) -> Rows:
        return x_j

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        return tuple(self.G * (sum_j - strength * own) for sum_j, own in zip(gx, x_i, strict=True))


def weighted_sum(weights: Array, sent: Array) -> Array:
    """sum_j w_ij sent_j for weights `[N, N]` or, one matrix per draw, `[N, N, B]`; sent is `[N]` or `[N, B]`."""
    return jnp.einsum("ijb,jb->ib", weights, sent) if weights.ndim == 3 else weights @ sent
