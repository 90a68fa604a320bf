"""Masked autoregressive layers with a one-pass inverse."""

from typing import Any

import flowjax.bijections as fb
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jaxtyping import Array

_UNROLLED = 16
"""Coordinates up to which the stages of an inverse are written out; beyond, compiling them takes too long."""


class Autoregressive(AbstractBijection):
    """flowjax's masked autoregressive layer with a fast inverse.

    Coordinate i is bent by parameters that depend on those before it, so an inverse goes through them in turn. A hidden
    unit sees the coordinates up to its own rank only: it is evaluated when that one is known, and kept. All D stages
    together cost one evaluation of the network, where D evaluations are usual; the log-determinant comes along.

    Germain, Gregor, Murray & Larochelle 2015, ICML, doi:10.48550/arXiv.1502.03509 (the masks).
    """

    inner: fb.MaskedAutoregressive
    shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None

    def __init__(self, inner: fb.MaskedAutoregressive) -> None:
        self.inner, self.shape, self.cond_shape = inner, inner.shape, inner.cond_shape

    def transform_and_log_det(self, x: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """Noise and log |d noise / dx|."""
        y, log_det = self.inner.transform_and_log_det(x, condition)
        return jnp.asarray(y), jnp.asarray(log_det)

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """x and log |dx / d noise|."""
        if self.shape[0] > _UNROLLED:
            x, log_det = self.inner.inverse_and_log_det(y, condition)
            return jnp.asarray(x), jnp.asarray(log_det)
        return self._staged(y, condition)

    def _staged(self, y: Array, condition: Any) -> tuple[Array, Array]:
        # hidden units by rank: a unit of rank r sees x[0..r] only, so it can be evaluated when x[r] is known
        #   stage i   units of rank i - 1 in every layer  ->  parameters of coordinate i  ->  x[i]
        # ranks go round: unit j of a layer has rank j % D - 1 (flowjax's masks)
        dim, network = self.shape[0], self.inner.masked_autoregressive_mlp
        layers: Any = network.layers  # biases are there
        first, *middle, last = layers
        per = last.weight.shape[0] // dim
        # what the context adds to the first layer is the same in every stage
        seen = first.weight[:, dim:] @ condition + first.bias
        x, log_det = [], jnp.zeros(())
        order: list[int] = []  # hidden units evaluated so far; unit j has rank j % D - 1, the same in every layer
        known: list[list[Array]] = [[] for _ in (first, *middle)]
        for i in range(dim):
            now = list(range(i, first.weight.shape[0], dim))
            order += now
            rows, columns = jnp.array(now, int), jnp.array(order, int)
            # only the rows of this rank and the columns known so far: each weight is used once over all stages
            before = jnp.stack(x) if x else jnp.zeros((0,), y.dtype)
            known[0].append(network.activation(seen[rows] + first.weight[rows, :i] @ before))
            for depth, layer in enumerate(middle):
                below = jnp.concatenate(known[depth])
                value = layer.weight[rows[:, None], columns[None]] @ below + layer.bias[rows]
                known[depth + 1].append(network.activation(value))
            # the last layer is laid out coordinate by coordinate, `per` parameters each
            own = slice(i * per, (i + 1) * per)
            parameters = last.weight[own][:, columns] @ jnp.concatenate(known[-1]) + last.bias[own]
            value, change = self.inner.transformer_constructor(parameters).inverse_and_log_det(y[i])
            x.append(value)
            log_det = log_det + change
        return jnp.stack(x), log_det
