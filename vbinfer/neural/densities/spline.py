"""Monotone rational-quadratic spline of one coordinate."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jaxtyping import Array

_MIN_WIDTH = 1e-3
_MIN_SLOPE = 1e-3


class Spline(AbstractBijection):
    """Rational-quadratic spline, the identity outside `[-interval, interval]`.

    In bin k, with u = (x - x_k) / (x_k+1 - x_k), s = (y_k+1 - y_k) / (x_k+1 - x_k) and slopes d at the edges,

        y = y_k + (y_k+1 - y_k) (s u^2 + d_k u (1 - u)) / (s + (d_k+1 + d_k - 2 s) u (1 - u))

    The numbers of flowjax's spline of the same options. A bin is chosen by a mask over all of them, not by an index:
    the gradients of indices are scatters, which take the compiler longer than all else in a flow.

    Durkan, Bekasov, Murray & Papamakarios 2019, doi:10.48550/arXiv.1906.04032, equations 4 to 8.
    """

    shape: ClassVar[tuple[int, ...]] = ()  # type: ignore[misc]  # flowjax declares fields that a class may fix
    cond_shape: ClassVar[None] = None  # type: ignore[misc]
    interval: float = eqx.field(static=True)
    widths: Array
    heights: Array
    slopes: Array

    def __init__(self, knots: int, interval: float) -> None:
        self.interval = float(interval)
        self.widths = self.heights = jnp.zeros(knots + 1)
        self.slopes = jnp.full(knots + 2, np.log(np.expm1(1.0 - _MIN_SLOPE)))  # softplus gives 1 - _MIN_SLOPE

    def transform_and_log_det(self, x: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """y and log dy/dx."""
        inside, at = self._inside(x)
        x0, y0, y1, d0, d1, width, slope = self._bin(at, "x")
        u = (at - x0) / width
        y = y0 + (y1 - y0) * (slope * u**2 + d0 * u * (1.0 - u)) / (slope + (d1 + d0 - 2.0 * slope) * u * (1.0 - u))
        y = jnp.clip(y, -self.interval, self.interval)
        return jnp.where(inside, y, x), _log_slope(u, slope, d0, d1, inside)

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """x and log dx/dy."""
        inside, at = self._inside(y)
        x0, y0, y1, d0, d1, width, slope = self._bin(at, "y")
        # u solves a u^2 + b u + c = 0; of its two forms the one that keeps its digits
        excess = (at - y0) * (d1 + d0 - 2.0 * slope)
        a, b, c = (y1 - y0) * (slope - d0) + excess, (y1 - y0) * d0 - excess, -slope * (at - y0)
        u = 2.0 * c / (-b - jnp.sqrt(b**2 - 4.0 * a * c))
        x = jnp.clip(u * width + x0, -self.interval, self.interval)
        return jnp.where(inside, x, y), -_log_slope(u, slope, d0, d1, inside)

    def _inside(self, value: Array) -> tuple[Array, Array]:
        return jnp.abs(value) <= self.interval, jnp.clip(value, -self.interval, self.interval)

    def _bin(self, value: Array, axis: str) -> tuple[Array, ...]:
        """Knots and slopes of the bin of a value.

        x, both y, both slopes, the width and the mean slope.
        """
        x, y = self._edges(self.widths), self._edges(self.heights)
        d = jax.nn.softplus(self.slopes) + _MIN_SLOPE
        above = value > (x if axis == "x" else y)[1:-1]
        # above          [1  1  0  0]        of four inner edges
        # its bin     [0  0  1  0  0]        above the one before, not above the next
        always = jnp.ones(1, bool)
        own = jnp.concatenate([always, above]) & ~jnp.concatenate([above, ~always])
        table = jnp.stack([x[:-1], x[1:], y[:-1], y[1:], d[:-1], d[1:]])
        x0, x1, y0, y1, d0, d1 = jnp.sum(jnp.where(own, table, 0.0), axis=1)
        return x0, y0, y1, d0, d1, x1 - x0, (y1 - y0) / (x1 - x0)

    def _edges(self, raw: Array) -> Array:
        """Edges of the bins, from -interval to interval."""
        bins = len(raw)
        width = _MIN_WIDTH + (2.0 * self.interval - _MIN_WIDTH * bins) * jax.nn.softmax(raw)
        # a cumulative sum, by a mask for the same reason
        inner = jnp.sum(jnp.where(np.tri(bins - 1, bins, dtype=bool), width, 0.0), axis=1) - self.interval
        end = jnp.full(1, self.interval)
        return jnp.concatenate([-end, inner, end])


def _log_slope(u: Array, slope: Array, d0: Array, d1: Array, inside: Any) -> Array:
    """log dy/dx within a bin, 0 outside the interval."""
    top = slope**2 * (d1 * u**2 + 2.0 * slope * u * (1.0 - u) + d0 * (1.0 - u) ** 2)
    bottom = (slope + (d1 + d0 - 2.0 * slope) * u * (1.0 - u)) ** 2
    return jnp.log(jnp.where(inside, top / bottom, 1.0))
