"""Interface of a likelihood, and the checks that all share."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import Named
from vbinfer._param import did_you_mean, is_traced

Predict = Callable[[Named], Any]
"""theta to what is expected of the recording, an array."""
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
POSITIVE = (0.0, math.inf)


class AbstractLikelihood(abc.ABC):
    """log p(y | theta), as `vb.sample_mcmc(prior, log_likelihood, x_o)` takes it.

    A parameter of the noise is a number, an array, or the name of an entry of theta: then it is inferred, too.
    """

    def __call__(self, theta: Named, y: Any) -> Array:
        """log p(y | theta), one number: the sum of `pointwise`."""
        return self.pointwise(theta, y).sum()

    @abc.abstractmethod
    def pointwise(self, theta: Named, y: Any) -> Array:
        """Log-density of each observation, 0 where one is missing.

        For leave-one-out comparisons.
        """

    @abc.abstractmethod
    def sample(self, theta: Named, key: Array) -> Any:
        """One y ~ p(y | theta), for posterior-predictive checks."""


def known(value: Any) -> np.ndarray:
    """The numbers of an array; none where it is traced."""
    return np.zeros(0) if is_traced(value) else np.asarray(value)


def keep_levels(likelihood: AbstractLikelihood, **ranges: tuple[float, float]) -> None:
    """Check noise parameters at construction.

    Each is a name, or a number in (low, high).
    """
    for name, (low, high) in ranges.items():
        value = getattr(likelihood, name)
        if isinstance(value, str):
            continue
        array = jnp.asarray(value, jnp.result_type(float))
        numbers = known(array)
        if (off := ~((numbers > low) & (numbers < high))).any():
            bad = numbers[off].flat[0]
            raise ValueError(f"{name} is {bad:g}; expected numbers in ({low:g}, {high:g}), or the name of a parameter")
        object.__setattr__(likelihood, name, array)


def level(theta: Named, value: Any, name: str, shape: tuple[int, ...]) -> Array:
    """A noise parameter, from theta if named, spread over `shape`."""
    if isinstance(value, str):
        if value not in theta:
            raise ValueError(f"{name}={value!r} names no parameter of theta. {did_you_mean(value, theta)}")
        value = theta[value]
    value = jnp.asarray(value, jnp.result_type(float))
    fits = value.ndim <= len(shape) and all(n in (1, m) for n, m in zip(value.shape[::-1], shape[::-1], strict=False))
    if not fits:
        last = f", [{shape[-1]}]" if shape else ""
        raise ValueError(f"{name} has shape {list(value.shape)}; expected a number{last} or {list(shape)}")
    return jnp.broadcast_to(value, shape)


def predicted(predict: Predict, theta: Named, name: str = "predict") -> Array:
    """What is expected of the recording: one array."""
    mean = predict(theta)
    if isinstance(mean, Mapping):
        names = ", ".join(map(str, mean))
        first = next(iter(mean), "x")
        raise ValueError(f"{name} returned a dictionary of {names}; return one array of it, such as [...][{first!r}]")
    return jnp.asarray(mean, jnp.result_type(float))


def compared(y: Any, shape: tuple[int, ...], name: str = "predict") -> tuple[Array, Array]:
    """The observation with 0 for NaN, and what is there."""
    y = jnp.asarray(y, jnp.result_type(float))
    if y.shape != shape:
        raise ValueError(
            f"y is {list(y.shape)} but {name} gives {list(shape)}; simulate for as long as was recorded, with the "
            "period of the recording, and cut what comes before it"
        )
    there = ~jnp.isnan(y)
    return jnp.where(there, y, 0.0), there


def callable_or_raise(value: Any, name: str, example: str) -> None:
    """Refuse what is no function."""
    if not callable(value):
        raise TypeError(f"{name} was given as {type(value).__name__}; expected a function, such as {example}")
