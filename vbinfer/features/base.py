"""Interface of a feature, and its options."""

import abc
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import did_you_mean

from .numeric import QUANTILE_NAMES, check_length, quantiles, shape_moments

Given = TypeVar("Given")
Kept = TypeVar("Kept")


def option(*, default: Any, converter: Callable[[Given], Kept], kw_only: bool = False) -> Kept:
    """A static field of a feature, checked and converted once."""
    return eqx.field(default=default, static=True, converter=converter, kw_only=kw_only)


@dataclass_transform(field_specifiers=(option, eqx.field))  # type checkers read `option` as they read `eqx.field`
class Feature(eqx.Module):
    """Named numbers of a recording: `(y[T, N], period) -> [F]`.

    A feature never raises on values (it runs inside `jit`, `vmap` and `grad`), gives NaN only where the data are NaN,
    and has a finite value and gradient at a constant node. A *shape* it cannot work with is an error.
    """

    @abc.abstractmethod
    def __call__(self, y: Array, period: float) -> Array:
        """The numbers `[F]` of a recording.

        Args:
            y: `[T, N]`.
            period: between two samples, ms.
        """

    @abc.abstractmethod
    def names(self, n: int | None = None) -> tuple[str, ...]:
        """One name per number.

        A feature whose width follows the number of nodes `n` raises ValueError without it.
        """


class Preprocess(eqx.Module):
    """Recording to recording, before any feature.

    `(y[T, N], period) -> [T, N]`.
    """

    @abc.abstractmethod
    def __call__(self, y: Array, period: float) -> Array:
        """The new recording."""

    def nodes(self, n: int) -> int:
        """How many nodes a recording of `n` has afterwards."""
        return n


_ENDS = {"mean": ("",), "spread": ("", "_spread"), "quantiles": tuple(f"_{q}" for q in QUANTILE_NAMES), "nodes": ("",)}


pool_of = functools.partial(_check.one_of, what="pool", choices=_ENDS)


class NodeFeature(Feature):
    """Numbers `[K, N]`, K for each node, pooled over nodes.

    `pool="mean"` (the default of nearly all): the mean over nodes, K numbers under their own names. `"spread"`: mean
    and standard deviation (ddof 0) over nodes, `rms` and `rms_spread`. `"quantiles"`: `rms_q05` to `rms_q95`.
    `"nodes"`: each node's own, `rms[0]`, `rms[1]`, ...; the only one whose width follows the number of nodes, and the
    only one in which a node with a NaN leaves the numbers of the others alone.
    """

    pool: str = option(default="mean", converter=pool_of, kw_only=True)

    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """The K names."""

    @abc.abstractmethod
    def per_node(self, y: Array, period: float) -> Array:
        """The numbers `[K, N]` of a recording `[T, N]`."""

    def __call__(self, y: Array, period: float) -> Array:
        values = self.per_node(check_length(y), period)
        if self.pool == "nodes":
            return values.ravel()
        if self.pool == "quantiles":
            return jax.vmap(quantiles)(values).ravel()
        mean = values.mean(axis=1)
        if self.pool == "mean":
            return mean
        return jnp.stack([mean, jax.vmap(lambda v: shape_moments(v)[1])(values)], axis=1).ravel()

    def names(self, n: int | None = None) -> tuple[str, ...]:
        ends = _ENDS[self.pool]
        if self.pool == "nodes":
            if n is None:
                raise ValueError(
                    f"the names of {type(self).__name__}(pool='nodes') depend on the number of nodes; "
                    "give it, as in names(80)"
                )
            ends = tuple(f"[{i}]" for i in range(n))
        return tuple(label + end for label in self.labels() for end in ends)


def chosen(feature: str, *every: str, usual: Iterable[str] = ()) -> Callable[[Sequence[str] | None], tuple[str, ...]]:
    """Converter of `only=`: the names that are kept, in order.

    None keeps the usual ones, or every one where no usual ones are given.
    """
    default = tuple(usual) or every

    def names(only: Sequence[str] | None) -> tuple[str, ...]:
        if only is None:
            return default
        if isinstance(only, str):
            raise TypeError(f"{feature}(only={only!r}) was given a word; write a tuple, only=({only!r},)")
        for name in only:
            if name not in every:
                raise ValueError(f"{feature} has no number {name!r}. {did_you_mean(name, every)}")
        if not only:
            raise ValueError(f"{feature}(only=()) keeps nothing; name some of {', '.join(every)}")
        return tuple(only)

    return names


def positive(what: str, example: object, unit: str = "ms") -> Callable[[float], float]:
    """Converter: a finite number above 0."""
    return lambda value: _check.positive(value, what, example, unit)


def positive_or_none(what: str, example: object, unit: str = "ms") -> Callable[[float | None], float | None]:
    """Converter: a finite number above 0, or None."""
    return lambda value: None if value is None else _check.positive(value, what, example, unit)


def intervals(
    what: str, unit: str
) -> Callable[[Sequence[Sequence[float]] | np.ndarray], tuple[tuple[float, ...], ...]]:
    """Converter: pairs (low, high) with 0 <= low < high."""

    def pairs(given: Sequence[Sequence[float]] | np.ndarray) -> tuple[tuple[float, ...], ...]:
        found = tuple(tuple(float(edge) for edge in pair) for pair in given)
        if not found or any(len(pair) != 2 or not 0.0 <= pair[0] < pair[1] < math.inf for pair in found):
            raise ValueError(
                f"{what} is {given!r}; give pairs of {unit} with 0 <= low < high, such as {what}=((0, 4),)"
            )
        return found

    return pairs


def samples(duration: float, period: float, what: str) -> int:
    """A duration in ms as samples, at least one."""
    duration, period = _check.positive(duration, what, 1000.0, "ms"), _check.positive(period, "period", 720.0, "ms")
    count = round(duration / period)
    if count < 1:
        raise ValueError(f"{what} is {duration:g} ms, less than one sample of {period:g} ms; give at least {period:g}")
    return count


def pick(numbers: Mapping[str, Array], only: tuple[str, ...]) -> Array:
    """The numbers that `only` names, in its order, stacked."""
    # what is left out costs nothing once compiled: XLA drops what is not used
    return jnp.stack([numbers[name] for name in only])


def gather(groups: dict[tuple[str, ...], Callable[[], Array]], only: tuple[str, ...]) -> Array:
    """`pick` from groups, computing no group that is left out."""
    found: dict[str, Array] = {}
    for names, numbers in groups.items():
        if set(names) & set(only):
            found.update(zip(names, numbers(), strict=True))
    return pick(found, only)
