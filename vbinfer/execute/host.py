"""Simulators that are not JAX."""

import inspect
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer import _check
from vbinfer._param import is_traced
from vbinfer.io import fingerprint as fingerprints

HostFunction = Callable[[dict[str, Any], np.random.Generator], Any]
"""`fn(theta, rng) -> x`: NumPy numbers and arrays by path, and the generator to take all randomness from."""

_LONGEST = 1_000
"""Numbers of one array that a message spells out."""


class HostSimulator:
    """A simulator from a NumPy function, `fn(theta, rng) -> x`.

    One draw at a time; the function may as well call another program.

    Draws, stores and everything built on them work as with a JAX simulator. Gradients do not: for NUTS or a MAP of a
    likelihood the model has to be JAX.

    Row b of a batch is `x_b = fn(theta_b, Generator(Philox(key=words of key_b)))`: a draw is made of its own theta and
    key, and does not depend on its neighbours, the executor or the process (Philox-4x64-10: Salmon, Moraes, Dror & Shaw
    2011, SC '11, doi:10.1145/2063384.2063405). The 32-bit words of the JAX key, lowest first and padded with zeros, are
    the 128-bit key of the generator. As the generators of NumPy may change what they make of it (NEP 19), a store
    names the version of NumPy.

    One draw runs at a time in a process, also where JAX has several devices: Python code gains nothing from threads.
    All cores are used by `executor=vb.Local(workers=n)`, which runs it in n processes, and by `vb.Dask`.

    Blind to: what `fn` does besides answering. A function that keeps a state between calls, or takes randomness from
    elsewhere (`np.random.normal()`, `default_rng()`), makes draws that cannot be repeated: the first draw in each
    process is run twice, and a warning says so if the two differ. Noise that is the same in every draw is not noticed.

    Args:
        fn: `(theta, rng) -> x`. theta is a dict of NumPy numbers and arrays by path, float64, converted from the
            draw's own precision (float32 unless JAX is in float64); it is a copy. rng is a `numpy.random.Generator`.
            x is a number or `[F]`; it is kept in JAX's precision. NaN and infinite numbers, also those that float32
            cannot hold, make a failed draw.
        names: one per feature; `x[0], x[1], ...` by default.
        batch_width: draws that run together, in one process, between two looks at what is finished. A batch is run
            whole, so that n draws cost up to batch_width - 1 more.
        fingerprint: what identifies the simulator in a store; by default a hash of its code and of all it uses
            (`fingerprint()`). Give one where that cannot be made, and change it when the simulator changes.
        lane: the former name of batch_width.

    Attributes:
        fn: the function.
        names: names of the features, or None.
        batch_width: draws that run together.

    Raises:
        TypeError: fn is no function of two arguments, or captures what has no stable hash and no fingerprint is given.
        ValueError: names or batch_width make no sense.

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> def walk(theta, rng):
        ...     steps = theta["drift"] + rng.normal(size=100)
        ...     return [steps.mean(), steps.std()]
        >>> simulator = vb.HostSimulator(walk, names=("mean", "sd"))
        >>> prior = vb.Prior({"drift": dist.Normal(0.0, 1.0)})
        >>> draws = vb.sample_prior_predictive(prior, simulator, n=32, key=jax.random.key(0), progress=False)
        >>> draws.names, draws.x.shape
        (('mean', 'sd'), (32, 2))
    """

    def __init__(
        self,
        fn: HostFunction | Any,
        *,
        names: Sequence[str] | None = None,
        batch_width: int = 16,
        fingerprint: str | None = None,
        lane: int | None = None,
    ) -> None:
        self.fn, self.names = _checked_fn(fn), _checked_names(names)
        self.batch_width = _check.count(batch_width if lane is None else lane, "batch_width", "16")
        if fingerprint is not None and (not isinstance(fingerprint, str) or not fingerprint):
            raise ValueError(
                f"fingerprint={fingerprint!r} was given; expected a string such as fingerprint='my-model-v3'"
            )
        self._mark = fingerprint
        self._begin()
        self.fingerprint()  # what has none is refused now, not after a night of simulations

    def _begin(self) -> None:
        self._turn = threading.RLock()
        self._widths: dict[Any, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"fn": self.fn, "names": self.names, "batch_width": self.batch_width, "_mark": self._mark}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        name = getattr(self.fn, "__qualname__", self.fn)
        return f"HostSimulator({name}, names={self.names}, batch_width={self.batch_width})"

    def fingerprint(self) -> str:
        """The given fingerprint, else a hash of the function.

        The SHA-256 of the function: see `vbinfer.io.fingerprint`.

        A changed helper function, default, constant or captured array changes it; comments, line numbers and file names
        do not. Installed packages count by name and version. A captured object that changes as it is used changes it
        too: make it inside the function, or give a fingerprint.

        Raises:
            TypeError: fn reaches something whose content cannot be hashed.
        """
        if self._mark is not None:
            return self._mark
        try:
            return fingerprints.fingerprint(self.fn)
        except fingerprints.UnhashableError as error:
            raise TypeError(
                f"the simulator has no stable fingerprint: {error}. Make it inside the function, or say what "
                f"identifies it: HostSimulator(fn, fingerprint='my-model-v3')"
            ) from error

    def __call__(self, theta: Mapping[str, Any], key: Any, /) -> Any:
        """`x [F]` of one draw, as NumPy."""
        _refuse_tracers(key, *theta.values())
        key = _check.key(key)
        return self.batch({name: np.asarray(value)[None] for name, value in theta.items()}, key[None])[0]

    def batch(self, theta: Mapping[str, Any], keys: Any) -> np.ndarray:
        """`x [B, F]`, one row after the other.

        Of theta leaves `[B, ...]` and keys `[B]`.

        Raises:
            ValueError: outputs that are not `[F]`, or of another length than before.
            TypeError: outputs that are not real numbers; a call from inside `jax.jit`, `jax.vmap` or `jax.grad`.
            Exception: what fn raised, with a note that says for which theta and key.
        """
        _refuse_tracers(keys, *theta.values())
        words = _words(keys)
        leaves = {name: _as_float64(value) for name, value in theta.items()}
        for name, value in leaves.items():
            if value.ndim == 0 or len(value) != len(words):
                raise ValueError(
                    f"theta[{name!r}] is {list(value.shape)} but there are {len(words)} keys; one of each per row"
                )
        shape = tuple((name, value.shape[1:]) for name, value in leaves.items())
        with self._turn:
            rows: list[np.ndarray] = []
            for row, key in enumerate(words):
                one = {name: value[row] for name, value in leaves.items()}
                x = self._draw(one, key, row)
                if not self._widths:
                    _warn_unless_same(x, self._draw(one, key, row))
                self._check_width(shape, len(x), row)
                rows.append(x)
        with np.errstate(over="ignore"):
            return np.stack(rows).astype(jax.dtypes.canonicalize_dtype(float))

    def _draw(self, theta: dict[str, Any], words: np.ndarray, row: int) -> np.ndarray:
        mine = {name: value.copy() for name, value in theta.items()}  # fn may change what it is given
        try:
            return _as_vector(self.fn(mine, generator(words)))
        except Exception as error:
            again = f"simulator({_written(theta)}, {_written_key(words)})"
            error.add_note(f"raised by the simulator in row {row} of a batch; to repeat it: {again}")
            raise

    def _check_width(self, shape: Any, width: int, row: int) -> None:
        if self.names is not None and width != len(self.names):
            raise ValueError(
                f"the simulator names {len(self.names)} features but returned {width}; give one name per feature"
            )
        known = self._widths.setdefault(shape, width)
        if width != known:
            raise ValueError(
                f"the simulator returned {width} numbers in row {row} of a batch and {known} before; every draw "
                f"needs the same features: fill up with NaN, which marks the draw as failed"
            )


def generator(words: Any) -> np.random.Generator:
    """The random generator of one draw.

    Philox keyed by the 32-bit words of its JAX key, lowest first, up to four.
    """
    words = [int(word) for word in np.asarray(words).ravel()]
    if len(words) > 4:
        raise ValueError(f"a key of {len(words)} words was given; expected up to four, as jax.random.key(0) has two")
    number = sum(word << (32 * i) for i, word in enumerate(words))
    return np.random.Generator(np.random.Philox(key=number))


def _words(keys: Any) -> np.ndarray:
    """The 32-bit words `[B, W]` of typed or legacy keys."""
    if isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) and keys.ndim == 1:
        return np.asarray(jax.random.key_data(keys))
    if getattr(keys, "dtype", None) == np.uint32 and keys.ndim == 2:
        return np.asarray(keys)
    what = f"an array of shape {list(keys.shape)}" if hasattr(keys, "shape") else repr(keys)
    raise TypeError(f"keys is {what}; expected one JAX key per row: write jax.random.split(jax.random.key(0), n)")


def _as_float64(value: Any) -> np.ndarray:
    """In float64; whole numbers stay whole."""
    array = np.asarray(value)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


def _refuse_tracers(*leaves: Any) -> None:
    if is_traced(leaves):
        raise TypeError(
            "a HostSimulator is not a JAX program: it cannot be jitted, vmapped or differentiated. "
            "Call simulator.batch(theta, keys) outside of it"
        )


# ---- checks of the function and of what it returns


def _as_vector(x: Any) -> np.ndarray:
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


def _warn_unless_same(x: np.ndarray, again: np.ndarray) -> None:
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


def _written(theta: dict[str, Any]) -> str:
    """Parameters as Python text."""
    with np.printoptions(threshold=_LONGEST, floatmode="unique"):
        values = (
            f"np.array({np.array2string(value, separator=', ')})" if np.ndim(value) else repr(value.item())
            for value in theta.values()
        )
        return "{" + ", ".join(f"{name!r}: {text}" for name, text in zip(theta, values, strict=True)) + "}"


def _written_key(words: np.ndarray) -> str:
    impl = "" if len(words) == 2 else ', impl="rbg"'
    return f"jax.random.wrap_key_data(np.array({words.tolist()}, np.uint32){impl})"


def _checked_fn(fn: Any) -> Any:
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


def _checked_names(names: Any) -> tuple[str, ...] | None:
    """Names of features, all different."""
    if names is None:
        return None
    found = () if isinstance(names, str) else tuple(names)
    if not found or not all(isinstance(name, str) for name in found) or len(set(found)) < len(found):
        raise ValueError(f"names={names!r} was given; expected one different name per feature, as ('mean', 'sd')")
    return found
