"""Batches of one fixed width.

The rounding of a matrix product depends on its width (measured), and that of a sum on the number of threads that share
it (`options.deterministic_xla`). With one width and one thread on every executor and device count, draw i is the same
number whether it was simulated fresh, resumed, alone or among a million.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from vbinfer._names import PRNGKey, SimulatorLike, Theta, flat_names
from vbinfer.execute.options import deterministic_xla
from vbinfer.io.live import renew, settling

WIDTH = 64
"""Simulations that run together."""


def key_ints(key: PRNGKey) -> list[int]:
    """The words of a key as plain integers, for provenance."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def batched(simulator: SimulatorLike) -> Callable[[Theta, Any], Any]:
    """The simulator over a batch.

    `(theta leaves [B, ...], keys [B]) -> x [B, F]`: its own `.batch`, else `jit(vmap(simulator))`.
    """
    renew(simulator)
    own = getattr(simulator, "batch", None)
    return own if own is not None else jax.jit(jax.vmap(settling(simulator)), compiler_options=deterministic_xla())


def recorded(simulator: SimulatorLike, series: bool) -> Callable[[Theta, Any], tuple[Any, Any]]:
    """The simulator over a batch, `(theta, keys) -> (x, ys)`.

    ys is None, or with `series` what was recorded: the simulator's own `.batch_series`.

    Raises:
        ValueError: recordings are asked for, and it makes none.
    """
    if not series:
        batch = batched(simulator)
        return lambda theta, keys: (batch(theta, keys), None)
    own = getattr(simulator, "batch_series", None)
    if own is None:
        raise ValueError(
            f"series=True asks for recordings, but {type(simulator).__name__} only makes summaries; "
            f"give a vb.ForwardModel (or an object with .batch_series(theta, keys) -> (x, ys)), or write series=False"
        )
    return own


def checked(x: Any, width: int = WIDTH) -> np.ndarray:
    """The summaries of one batch as `[width, F]`.

    Raises:
        ValueError: another shape, with what the simulator should return.
    """
    x = np.asarray(x)
    if x.ndim != 2 or len(x) != width:
        one = list(x.shape[1:]) if x.ndim and len(x) == width else list(x.shape)
        raise ValueError(
            f"the simulator returned an array of shape {one} for one draw; expected [feature]: "
            f"write jnp.atleast_1d(x) for a number, x.ravel() for a matrix"
        )
    return x


def batch_rows(n: int, width: int = WIDTH) -> list[np.ndarray]:
    """Row numbers of each batch, `[width]`, of n in all.

    A short tail repeats the last row.
    """
    return [np.minimum(np.arange(start, start + width), n - 1) for start in range(0, n, width)]


def joined(batches: Iterable[Any], n: int) -> Any:
    """Batches joined into one tree of n rows."""
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *batches)


def map_batches(run: Callable[[np.ndarray], Any], n: int, width: int = WIDTH) -> Any:
    """A tree with leaves `[n, ...]`, computed in batches.

    `run(rows [width])` returns leaves `[width, ...]`; the width is always the same.

    >>> map_batches(lambda rows: rows**2, 5, width=2).tolist()
    [0, 1, 4, 9, 16]
    """
    return joined([run(rows) for rows in batch_rows(n, width)], n)


def feature_names(simulator: SimulatorLike, width: int) -> tuple[str, ...]:
    """The simulator's `.names`, else `x[0], x[1], ...`.

    Raises:
        ValueError: they are not as many as the features that it returned.
    """
    names = getattr(simulator, "names", None)
    if names is None:
        return flat_names({"x": (width,)})
    if len(names) != width:
        raise ValueError(
            f"the simulator names {len(names)} features but returned {width}; its .names needs one per feature"
        )
    return tuple(names)
