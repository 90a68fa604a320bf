"""The interface of a feature: one recording in, a few named numbers out."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import did_you_mean


class Feature(eqx.Module):
    """A few numbers that describe a recording: `(y[T, N], period) -> [F]`, with a name for each.

    A feature never raises on values (it runs inside `jit`, `vmap` and `grad`), gives NaN only where the data are NaN,
    and has a finite value and gradient at a constant node. A *shape* it cannot work with is an error.
    """

    @abc.abstractmethod
    def __call__(self, y: Array, period: float) -> Array:
        """The numbers, `[F]`, of a recording `y`, `[T, N]`, sampled every `period` ms."""

    @abc.abstractmethod
    def names(self, n: int | None = None) -> tuple[str, ...]:
        """One name per number. A feature whose width follows the number of nodes `n` raises ValueError without it."""


class Preprocess(eqx.Module):
    """A recording made from a recording before any feature sees it: `(y[T, N], period) -> [T, N]`."""

    @abc.abstractmethod
    def __call__(self, y: Array, period: float) -> Array:
        """The new recording."""


def samples(duration: float, period: float, what: str) -> int:
    """A duration in ms as a whole number of samples, at least one."""
    count = round(duration / period)
    if count < 1:
        raise ValueError(f"{what} is {duration:g} ms, less than one sample of {period:g} ms; give at least {period:g}")
    return count


def lag_ms(lag: float | None) -> float | None:
    """A lag in ms, or None for one sample; anything not positive and finite is an error."""
    if lag is not None and not 0.0 < lag < float("inf"):
        raise ValueError(f"lag is {lag:g}; give a duration in ms, such as lag=720.0")
    return lag


def rough_zero(y: Array) -> Array:
    """The sum of squares, per node, below which the spread of `y[T, N]` is rounding of its level: `[1, N]`."""
    level = 8.0 * jnp.finfo(y.dtype).eps * jnp.abs(y[:1])
    return y.shape[0] * level**2


def centred(y: Array) -> tuple[Array, Array, Array]:
    """Deviations from the mean over time, their sums of squares, and which nodes are constant.

    Args:
        y: `[T, N]`.

    Returns:
        `d[T, N]`; `ss[1, N]`, replaced by one where the node is constant, so that a division or a root and their
        gradients stay finite; `constant[1, N]`. A node is constant when its spread is within the rounding of its level.
    """
    d = y - y[:1]  # exactly zero for a constant node, whatever its level
    d = d - d.mean(axis=0, keepdims=True)
    ss = jnp.sum(d * d, axis=0, keepdims=True)
    constant = ss <= rough_zero(y)
    return d, jnp.where(constant, 1.0, ss), constant


def shape_moments(v: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, standard deviation (ddof 0), skewness, excess kurtosis of a vector; the last three 0 if it is constant."""
    d, ss, constant = centred(v[:, None])
    size = v.shape[0]
    u = d / jnp.sqrt(ss / size)
    std = jnp.where(constant, 0.0, jnp.sqrt(ss / size))[0, 0]
    skew = jnp.where(constant[0, 0], 0.0, jnp.mean(u**3))
    kurtosis = jnp.where(constant[0, 0], 0.0, jnp.mean(u**4) - 3.0)
    return v.mean(), std, skew, kurtosis


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILE_NAMES = ("q05", "q25", "q50", "q75", "q95")


def quantiles(v: Array) -> Array:
    """The five `QUANTILES` of a vector, linear between order statistics (NumPy's default); NaN if any entry is NaN."""
    return jnp.quantile(v, jnp.asarray(QUANTILES, v.dtype))


def positions(names: tuple[str, ...], only: Sequence[str] | None, feature: str) -> tuple[int, ...]:
    """Where the numbers that `only` names stand among `names`, in the order of `only`; all of them for None."""
    if only is None:
        return tuple(range(len(names)))
    if isinstance(only, str):
        raise TypeError(f"{feature}(only={only!r}) was given a word; write a tuple, only=({only!r},)")
    for name in only:
        if name not in names:
            raise ValueError(f"{feature} has no number {name!r}. {did_you_mean(name, names)}")
    if not only:
        raise ValueError(f"{feature}(only=()) keeps nothing; name some of {', '.join(names)}")
    return tuple(names.index(name) for name in only)
