"""Checks of arguments: what was given, expected, and to write."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer._names import PRNGKey


def key(value: Any) -> PRNGKey:
    """A typed JAX key, from a typed or legacy one.

    Raises:
        TypeError: anything else, with what to write.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.shape == ():
        return value
    if isinstance(value, (jax.Array, np.ndarray)) and value.dtype == np.uint32 and value.ndim == 1:
        return jax.random.wrap_key_data(jnp.asarray(value))
    what = f"an array of shape {list(value.shape)}" if hasattr(value, "shape") else repr(value)
    raise TypeError(f"key is {what}; expected one JAX key: write key=jax.random.key(0)")


def is_count(value: Any) -> bool:
    """Whether a value is a whole number.

    NumPy's are; a bool is not.
    """
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def count(value: Any, what: str, example: object = None, *, least: int = 1, most: int | None = None) -> int:
    """A whole number of at least `least`, as an int.

    >>> count(np.int64(3), "n")
    3

    Raises:
        ValueError: anything else, naming `what`.
    """
    if is_count(value) and least <= value and (most is None or value <= most):
        return int(value)
    example = ("1_000" if most is None else most) if example is None else example
    kind = "a positive whole number" if least == 1 else f"a whole number of at least {least:,}"
    kind += "" if most is None else f", at most {most:,}"
    raise ValueError(f"{what}={value!r} was given; expected {kind}, such as {what}={example}")


def number(value: Any, what: str, example: object, expected: str = "a number", *, least: float = -math.inf) -> float:
    """A finite number of at least `least`, as a float.

    Raises:
        ValueError: anything else, naming `what`.
    """
    real = isinstance(value, numbers.Real) or (isinstance(value, (np.ndarray, jax.Array)) and value.shape == ())
    if real and not isinstance(value, (bool, np.bool_)) and math.isfinite(found := float(value)) and found >= least:
        return found
    raise ValueError(f"{what}={value!r} was given; expected {expected}, such as {what}={example}")


def positive(value: Any, what: str, example: object, unit: str = "") -> float:
    """A finite number above 0, as a float.

    Raises:
        ValueError: anything else, naming `what`.
    """
    expected = "a positive number" + (f" of {unit}" if unit else "")
    if (found := number(value, what, example, expected)) > 0:
        return found
    raise ValueError(f"{what}={value!r} was given; expected {expected}, such as {what}={example}")


def milliseconds(value: Any, what: str, example: str) -> float:
    """A positive duration in ms, as a Python float.

    An array would not be static.

    Raises:
        TypeError: no Python or NumPy number, with the example to write.
        ValueError: not finite, or not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} was given as {value!r}; write a Python number of milliseconds, for example {example}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"a {what} of {value} ms was given; it must be positive")
    return float(value)


def fraction(value: Any, what: str, example: object = 0.5) -> float:
    """A number above 0 and below 1, as a float.

    Raises:
        ValueError: anything else, naming `what`.
    """
    if 0 < (found := number(value, what, example, "a number between 0 and 1")) < 1:
        return found
    raise ValueError(f"{what}={value!r} was given; expected a number between 0 and 1, such as {what}={example}")


def one_of(value: Any, what: str, choices: Iterable[Any]) -> Any:
    """The value, when it is one of the choices.

    Raises:
        ValueError: it is none of them, which are listed.
    """
    known = tuple(choices)
    if isinstance(value, str | int | None) and value in known:
        return value
    raise ValueError(f"{what}={value!r} was given; expected one of {', '.join(map(repr, known))}")


def of_kind(value: Any, what: str, kind: type, write: str) -> Any:
    """The value, when it is of a kind.

    Raises:
        TypeError: it is not: what was given in which place, and what to write.
    """
    if isinstance(value, kind):
        return value
    given = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    raise TypeError(f"{what} was given {given}; expected a {kind.__name__}: write {write}")
