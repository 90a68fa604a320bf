"""Convolutions that learn without an error."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer.spiking.synapses import Conv, correlate


class HebbianConv(eqx.Module):
    """A convolution with Hebbian updates, patch by patch.

    y_o(p) = sum W_o . patch(p);   "hebb": dW_o = sum_p y_o(p) patch(p)
    "oja": dW_o = sum_p y_o(p) (patch(p) - y_o(p) W_o), which keeps |W_o| near 1 (Oja 1982)

    Args:
        in_channels, out_channels, kernel_size: as for `Conv`; x is `[in, row, column]`.
        rate: of learning; `update` adds rate dW.
        rule: `"oja"` or `"hebb"`.
        winner_take_all: at every position only the largest y stays, of equal ones the first.

    doi:10.1007/BF00275687
    """

    weight: Array
    rate: float = eqx.field(static=True)
    rule: str = eqx.field(static=True)
    winner_take_all: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        rate: float = 0.01,
        rule: str = "oja",
        winner_take_all: bool = False,
        *,
        key: Any,
    ):
        self.weight = Conv(in_channels, out_channels, kernel_size, key=key).weight
        self.rate, self.rule = _check.positive(rate, "rate", 0.01), _check.one_of(rule, "rule", ("oja", "hebb"))
        self.winner_take_all = winner_take_all

    @property
    def weights(self) -> Array:
        """`[out, in, row, column]`."""
        return self.weight

    def __call__(self, x: Any) -> Array:
        """y `[out, row, column]`."""
        y = correlate(jnp.asarray(x, self.weight.dtype), self.weight)
        if not self.winner_take_all:
            return y
        winner = jax.nn.one_hot(jnp.argmax(y, axis=-3), y.shape[-3], axis=-3, dtype=y.dtype)
        return y * winner

    def update(self, x: Any) -> "HebbianConv":
        """The layer after one image."""
        x, y = jnp.asarray(x, self.weight.dtype), self(x)
        # the sum over positions of y times patch is the correlation of x with y
        dW = jnp.swapaxes(correlate(x[:, None], y[:, None]), 0, 1)
        if self.rule == "oja":
            dW = dW - (y**2).sum(axis=(1, 2))[:, None, None, None] * self.weight
        return eqx.tree_at(lambda layer: layer.weight, self, self.weight + self.rate * dW)
