"""Batches of one fixed width.

The rounding of a matrix product depends on its width (measured), and that of a sum on the number of threads that share
it (`options.deterministic_xla`). With one width and one thread on every executor and device count, draw i is the same
number whether it was simulated fresh, resumed, alone or among a million.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer._names import PRNGKey, SimulatorLike, Theta, flat_names
from vbinfer.execute.options import deterministic_xla

WIDTH = 64
"""Simulations that run together."""


def key_ints(key: PRNGKey) -> list[int]:
    """The words of a key as plain integers, for provenance."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def batched(simulator: SimulatorLike) -> Callable[[Theta, Any], Any]:
    """`(theta leaves [B, ...], keys [B]) -> x [B, F]`: the simulator's own `.batch`, else `jit(vmap(simulator))`."""
    own = getattr(simulator, "batch", None)
    return own if own is not None else jax.jit(jax.vmap(simulator), compiler_options=deterministic_xla())


def batched_series(simulator: SimulatorLike) -> Callable[[Theta, Any], tuple[Any, Any]]:
    """The simulator's `.batch_series(theta, keys) -> (x, ys)`.

    Raises:
        ValueError: it has none.
    """
    own = getattr(simulator, "batch_series", None)
    if own is None:
        raise ValueError(
            f"series=True asks for recordings, but {type(simulator).__name__} only makes summaries; "
            f"give a vb.ForwardModel (or an object with .batch_series(theta, keys) -> (x, ys)), or write series=False"
        )
    return own


def checked(x: Any, width: int = WIDTH) -> np.ndarray:
    """The summaries of one batch as `[width, F]`, or an error that says what the simulator should return."""
    x = np.asarray(x)
    if x.ndim != 2 or len(x) != width:
        one = list(x.shape[1:]) if x.ndim and len(x) == width else list(x.shape)
        raise ValueError(
            f"the simulator returned an array of shape {one} for one draw; expected [feature]: "
            f"write jnp.atleast_1d(x) for a number, x.ravel() for a matrix"
        )
    return x


def batch_rows(n: int, width: int = WIDTH) -> list[np.ndarray]:
    """Numbers of the rows of each batch, `[width]` each, of n in all; a short tail repeats the last row."""
    return [np.minimum(np.arange(start, start + width), n - 1) for start in range(0, n, width)]


def joined(batches: Iterable[Any], n: int) -> Any:
    """The leaves `[width, ...]` of what every batch gave as one tree with leaves `[n, ...]`."""
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *batches)


def map_batches(run: Callable[[np.ndarray], Any], n: int, width: int = WIDTH) -> Any:
    """`run(rows [width]) -> tree with leaves [width, ...]` over n rows, always in one width: leaves `[n, ...]`.

    >>> map_batches(lambda rows: rows**2, 5, width=2).tolist()
    [0, 1, 4, 9, 16]
    """
    return joined([run(rows) for rows in batch_rows(n, width)], n)


def feature_names(simulator: SimulatorLike, width: int) -> tuple[str, ...]:
    """The simulator's `.names`, else `x[0], x[1], ...`; checked against what it returned."""
    names = getattr(simulator, "names", None)
    if names is None:
        return flat_names({"x": (width,)})
    if len(names) != width:
        raise ValueError(
            f"the simulator names {len(names)} features but returned {width}; its .names needs one per feature"
        )
    return tuple(names)


def trace(simulator: SimulatorLike, theta: Theta, key: PRNGKey) -> tuple[str, int | None]:
    """Fingerprint of a plain JAX callable, and the number of its features (None if it does not return a vector).

    The fingerprint is the SHA-256 of the traced program with its constants: any change of code or of a captured
    array changes it, moving or renaming the function does not.

    Raises:
        TypeError: the simulator cannot be traced.
    """
    try:
        program = jax.make_jaxpr(simulator)(theta, key)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError) as error:
        raise TypeError(
            "store= needs to know which simulator made its draws, and this one cannot be traced by JAX; "
            "give it a method fingerprint() that returns a string"
        ) from error
    outside = [name for name in _primitives(program) if name in ("pure_callback", "io_callback")]
    if outside:
        raise TypeError(
            f"store= needs to know which simulator made its draws, and this one calls Python by jax.{outside[0]}, "
            "whose code JAX does not see; give it a method fingerprint() that returns a string"
        )
    text = program.jaxpr.pretty_print(use_color=False)  # str() puts colours into it in a notebook, not in a script
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode())
    for constant in _constants(program):
        digest.update(repr((getattr(constant, "shape", ()), getattr(constant, "dtype", type(constant)))).encode())
        digest.update(_bytes(constant))
    shapes = [aval.shape for aval in program.out_avals]
    width = shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == 1 else None
    return digest.hexdigest(), width


def _programs(program: Any) -> Iterator[Any]:
    """A traced program and those inside it (a jitted function's)."""
    yield program
    for equation in program.eqns:
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(part, "eqns"):
                yield from _programs(part)


def _constants(program: Any) -> Iterator[Any]:
    for inside in _programs(program):
        yield from getattr(inside, "consts", ())


def _primitives(program: Any) -> set[str]:
    return {equation.primitive.name for inside in _programs(program) for equation in inside.eqns}


def _bytes(constant: Any) -> bytes:
    if isinstance(constant, jax.Array) and jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    return np.asarray(constant).tobytes()
