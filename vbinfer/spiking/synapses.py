"""Synapses of layers, linear maps of whole sequences."""

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check


class AbstractSynapse(eqx.Module):
    """Base of synapses, from x to the neurons' input c."""

    weight: eqx.AbstractVar[Array]

    @property
    def weights(self) -> Array:
        """The weights, receivers first."""
        return self.weight

    @abc.abstractmethod
    def past(self, xs: Array) -> Any:
        """What is remembered before the first of the steps `xs`."""

    @abc.abstractmethod
    def __call__(self, xs: Array, past: Any = None) -> tuple[Array, Any]:
        """Inputs c of all steps, and what is remembered.

        `xs` is `[T, ...]`.
        """


def _drawn(key: Any, shape: tuple[int, ...], fan_in: int) -> Array:
    return jax.random.normal(_check.key(key), shape) / math.sqrt(fan_in)


class Linear(AbstractSynapse):
    """Dense synapse, c = W x with W `[out, in]`.

    And a bias, if asked for.

    Weights are drawn with variance 1/in. x is `[..., in]`.
    """

    weight: Array
    bias: Array | None

    def __init__(self, in_features: int, out_features: int, *, key: Any, use_bias: bool = False):
        n, m = (_check.count(k, name) for k, name in ((in_features, "in_features"), (out_features, "out_features")))
        self.weight, self.bias = _drawn(key, (m, n), n), jnp.zeros(m) if use_bias else None

    def past(self, xs: Array) -> None:
        return None

    def __call__(self, xs: Array, past: Any = None) -> tuple[Array, None]:
        if xs.shape[-1] != self.weight.shape[1]:
            raise ValueError(
                f"Linear of {self.weight.shape[1]} features was given {list(xs.shape)}; the last axis differs"
            )
        c = xs @ self.weight.T
        return (c if self.bias is None else c + self.bias), None


class Conv(AbstractSynapse):
    """Convolutional synapse, c = W * x.

    A cross-correlation of images, stride 1, no padding.

    c[t] = sum_d W_d * x[t - delays_d], x before the first step 0

    Args:
        in_channels, out_channels: x is `[..., in, row, column]`.
        kernel_size: rows and columns, or one number for both.
        delays: steps, such as `(0, 1, 3)`; W is then `[delay, out, in, row, column]`, else `[out, in, row, column]`.
    """

    weight: Array
    bias: Array | None
    delays: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        delays: Any = None,
        use_bias: bool = False,
        *,
        key: Any,
    ):
        size = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        rows, columns = (_check.count(k, "kernel_size", 3) for k in size)
        n, m = (_check.count(k, name) for k, name in ((in_channels, "in_channels"), (out_channels, "out_channels")))
        self.delays = None if delays is None else tuple(_check.count(d, "delays", 1, least=0) for d in delays)
        each = (m, n, rows, columns) if self.delays is None else (len(self.delays), m, n, rows, columns)
        self.weight = _drawn(key, each, n * rows * columns * len(self.delays or (0,)))
        self.bias = jnp.zeros(m) if use_bias else None

    def past(self, xs: Array) -> Array | None:
        return jnp.zeros((max(self.delays), *xs.shape[1:]), xs.dtype) if self.delays else None

    def __call__(self, xs: Array, past: Any = None) -> tuple[Array, Any]:
        channels = self.weight.shape[-3]
        if xs.ndim < 4 or xs.shape[-3] != channels:
            raise ValueError(
                f"Conv of {channels} channels was given {list(xs.shape)}; expected [T, ..., {channels}, row, column]"
            )
        if self.delays is None:
            c = correlate(xs, self.weight)
        else:
            reach, n = max(self.delays), len(xs)
            known = jnp.concatenate([jnp.zeros((reach, *xs.shape[1:]), xs.dtype) if past is None else past, xs])
            shifted = [known[reach - d : reach - d + n] for d in self.delays]
            c = functools.reduce(jnp.add, (correlate(x, w) for x, w in zip(shifted, self.weight, strict=True)))
            past = known[len(known) - reach :]
        return (c if self.bias is None else c + self.bias[:, None, None]), past


def correlate(x: Array, weight: Array) -> Array:
    """Cross-correlation of images `[..., in, row, column]`."""
    flat = x.reshape(-1, *x.shape[-3:])
    y = jax.lax.conv_general_dilated(flat, weight, (1, 1), "VALID")
    return y.reshape(*x.shape[:-3], *y.shape[1:])
