"""Features that give one number or several per node, and the ways to gather them over nodes."""

import abc
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import did_you_mean

from .base import QUANTILE_NAMES, Feature, centred, quantiles, shape_moments

POOLS = ("mean", "spread", "quantiles", "nodes")


class NodeFeature(Feature):
    """Numbers `[K, N]`, K for each node, gathered over nodes as `pool` says.

    `"mean"` (the default of every leaf): the mean over nodes, K numbers under their own names. `"spread"`: mean and
    standard deviation (ddof 0) over nodes, `rms` and `rms_spread`. `"quantiles"`: `rms_q05` to `rms_q95`. `"nodes"`:
    each node's own, `rms[0]`, `rms[1]`, ...; the only one whose width follows the number of nodes, and the only one
    in which a node with a NaN leaves the numbers of the others alone.
    """

    pool: eqx.AbstractVar[str]

    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """The K names."""

    @abc.abstractmethod
    def per_node(self, y: Array, period: float) -> Array:
        """The numbers, `[K, N]`, of a recording `y`, `[T, N]`."""

    def __call__(self, y: Array, period: float) -> Array:
        values = self.per_node(y, period)
        if self.pool == "nodes":
            return values.ravel()
        if self.pool == "quantiles":
            return jax.vmap(quantiles)(values).ravel()
        mean = values.mean(axis=1)
        if self.pool == "mean":
            return mean
        return jnp.stack([mean, jax.vmap(lambda v: shape_moments(v)[1])(values)], axis=1).ravel()

    def names(self, n: int | None = None) -> tuple[str, ...]:
        if self.pool == "nodes":
            if n is None:
                raise ValueError(
                    f"the names of {type(self).__name__}(pool='nodes') depend on the number of nodes; "
                    "give it, as in names(80)"
                )
            return tuple(f"{label}[{i}]" for label in self.labels() for i in range(n))
        ends = {"mean": ("",), "spread": ("", "_spread"), "quantiles": tuple(f"_{q}" for q in QUANTILE_NAMES)}
        return tuple(label + end for label in self.labels() for end in ends[self.pool])


def pool_of(pool: str) -> str:
    """`pool`, if it is one of `POOLS`."""
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}; write one of {', '.join(map(repr, POOLS))}. {did_you_mean(pool, POOLS)}")
    return pool


def positive(value: float, name: str, unit: str, example: str) -> float:
    """`value` as a float, if it is finite and above zero."""
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} is {value:g}; give a number of {unit} above 0, such as {name}={example}")
    return float(value)


def intervals_of(
    given: Sequence[Sequence[float]] | np.ndarray, name: str, unit: str
) -> tuple[tuple[float, float], ...]:
    """Pairs (low, high) with 0 <= low < high, at least one."""
    found = tuple(tuple(float(edge) for edge in pair) for pair in given)
    if not found or any(len(pair) != 2 or not 0.0 <= pair[0] < pair[1] < math.inf for pair in found):
        raise ValueError(f"{name} is {given!r}; give pairs of {unit} with 0 <= low < high, such as {name}=((0, 4),)")
    return tuple((pair[0], pair[1]) for pair in found)


def keep_nan(numbers: Array, y: Array) -> Array:
    """`numbers[K, N]` with NaN where the node's samples `y[T, N]` hold one: comparisons would hide it."""
    return jnp.where(jnp.isnan(y).any(axis=0, keepdims=True), jnp.nan, numbers)


def root(value: Array, k: int = 2) -> Array:
    """The k-th root of a number >= 0, with gradient 0 at 0 (a recording of constant nodes)."""
    zero = value <= 0.0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, value) ** (1.0 / k))


def ratio(above: Array, below: Array) -> Array:
    """above / below, with value and gradient 0 where below is 0."""
    zero = below == 0.0
    return jnp.where(zero, 0.0, above / jnp.where(zero, 1.0, below))


def time_quantile(y: Array, q: float) -> Array:
    """Quantile over time of each node, linear between order statistics, `[N]`; NaN for a node with a NaN."""
    ordered = jnp.sort(y, axis=0)
    place = q * (y.shape[0] - 1)
    below = math.floor(place)
    above = min(below + 1, y.shape[0] - 1)
    value = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return keep_nan(value[None], y)[0]


def time_centre(y: Array) -> tuple[Array, Array, Array]:
    """`centred` as rows: deviations `[T, N]`, standard deviation `[N]` (1 if constant), constant `[N]`."""
    d, ss, constant = centred(y)
    return d, jnp.sqrt(ss / y.shape[0])[0], constant[0]
