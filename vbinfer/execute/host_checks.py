"""Checks of host simulators and their output."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

_LONGEST = 1_000
"""Numbers of one array that a message spells out."""


def checked_x(x: Any) -> np.ndarray:
    """One draw's output as a float vector."""
    if x is None:
        raise TypeError("the simulator returned None; expected numbers [feature]: end it with `return x`")
    if isinstance(x, (dict, str, bytes, set)):
        raise TypeError(
            f"the simulator returned a {type(x).__name__}; expected numbers [feature]: write np.array([...])"
        )
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"the simulator returned a list that is no array ({error}); expected numbers [feature]"
        ) from error
    if array.dtype.kind not in "fiub":
        hint = "np.abs(x) or np.concatenate([x.real, x.imag])" if array.dtype.kind == "c" else "np.array([...], float)"
        raise TypeError(f"the simulator returned an array of {array.dtype}; expected real numbers: write {hint}")
    if array.ndim > 1 or not array.size:
        raise ValueError(
            f"the simulator returned an array of shape {list(array.shape)} for one draw; expected [feature]: "
            f"write x.ravel() for a matrix"
        )
    return np.atleast_1d(array).astype(np.float64)


def warn_unless_same(x: np.ndarray, again: np.ndarray) -> None:
    """Warn of draws that cannot be repeated."""
    if np.array_equal(x, again, equal_nan=True):
        return
    apart = f"by up to {np.nanmax(np.abs(x - again)):.3g}" if x.shape == again.shape else "in length"
    warnings.warn(
        f"the simulator gave two answers for the same theta and generator, which differ {apart}: its draws cannot be "
        f"repeated, and a resumed store is not the one of an undisturbed run. Take all randomness from the generator "
        f"that it is given, fn(theta, rng), and keep no state between calls",
        stacklevel=4,
    )


@contextlib.contextmanager
def noted(theta: dict[str, Any], words: np.ndarray, row: int) -> Iterator[None]:
    """Note on an error how to repeat its draw."""
    try:
        yield
    except Exception as error:
        with np.printoptions(threshold=_LONGEST, floatmode="unique"):
            values = ", ".join(f"{name!r}: {_written(value)}" for name, value in theta.items())
        key = f"jax.random.wrap_key_data(np.array({words.tolist()}, np.uint32){_impl(words)})"
        error.add_note(f"raised by the simulator in row {row} of a batch; to repeat it: simulator({{{values}}}, {key})")
        raise


def _written(value: Any) -> str:
    return f"np.array({np.array2string(value, separator=', ')})" if np.ndim(value) else repr(value.item())


def _impl(words: np.ndarray) -> str:
    return "" if len(words) == 2 else ', impl="rbg"'


def checked_fn(fn: Any) -> Any:
    """A function of two arguments, or an error."""
    if hasattr(fn, "batch"):
        raise TypeError(f"{type(fn).__name__} is a simulator already: give it as it is, without vb.HostSimulator")
    if not callable(fn):
        raise TypeError(f"a {type(fn).__name__} was given; expected a function fn(theta, rng) -> x [feature]")
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):  # written in C; the first draw will tell
        return fn
    try:
        signature.bind({}, None)
    except TypeError as error:
        name = getattr(fn, "__name__", type(fn).__name__)
        raise TypeError(
            f"{name}{signature} was given; expected fn(theta, rng), a function of the parameters by name and of the "
            f"random generator to use: write lambda theta, rng: {name}(...)"
        ) from error
    return fn


def checked_names(names: Any) -> tuple[str, ...] | None:
    """Names of features, all different."""
    if names is None:
        return None
    found = () if isinstance(names, str) else tuple(names)
    if not found or not all(isinstance(name, str) for name in found) or len(set(found)) < len(found):
        raise ValueError(f"names={names!r} was given; expected one different name per feature, as ('mean', 'sd')")
    return found
