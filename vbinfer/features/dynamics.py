"""Functional connectivity dynamics: how the connectivity of one window resembles that of another."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import QUANTILE_NAMES, Feature, positions, quantiles, samples, shape_moments
from .connectivity import fc_matrix, upper_triangle


def fcd_matrix(y: ArrayLike, *, window: float, step: float, period: float) -> Array:
    """Functional connectivity dynamics: the correlation between the connectivities of every two windows.

    fcd[a, b] = corr over i < j of fc^a[i, j] and fc^b[i, j], where fc^a is `fc_matrix` of samples
    [a s, a s + w), for every full window. Window and step are rounded to samples, w and s.
    A window whose correlations are all equal has zeros in its row and column.

    Args:
        y: recording, `[T, N]`, with at least 3 nodes.
        window: length of a window, ms.
        step: from the start of one window to the start of the next, ms.
        period: between two samples, ms.

    Returns:
        `[W, W]` with W = floor((T - w) / s) + 1.

    Raises:
        ValueError: fewer than two windows fit.

    Hansen, Battaglia, Spiegler, Deco & Jirsa 2015, NeuroImage 105:525-535, doi:10.1016/j.neuroimage.2014.11.001.

    >>> import jax
    >>> y = jax.random.normal(jax.random.key(0), (100, 5))
    >>> fcd_matrix(y, window=60e3, step=4e3, period=2e3).shape
    (36, 36)
    """
    y = jnp.asarray(y, jnp.result_type(float))
    w, s = _window(window, step, period)
    if y.shape[0] < w + s:
        raise ValueError(
            f"the recording has {y.shape[0]} samples of {period:g} ms; two windows of {window:g} ms, "
            f"{step:g} ms apart, take {w + s}; record at least {(w + s) * period:g} ms or give a shorter window="
        )
    n = y.shape[1]
    if n < 3:
        raise ValueError(f"functional connectivity dynamics needs at least 3 nodes; the recording has {n}")
    starts = jnp.arange((y.shape[0] - w) // s + 1) * s
    rows, cols = upper_triangle(n)

    def window_fc(start: Array) -> Array:  # one window at a time: memory stays that of the result
        return fc_matrix(jax.lax.dynamic_slice_in_dim(y, start, w))[rows, cols]

    return fc_matrix(jax.lax.map(window_fc, starts).T)


def _window(window: float, step: float, period: float) -> tuple[int, int]:
    w, s = samples(window, period, "window"), samples(step, period, "step")
    if w < 3:
        raise ValueError(f"window is {window:g} ms, {w} samples of {period:g} ms; correlations need at least 3")
    return w, s


_FCD_NAMES = ("mean", "std", "var", *QUANTILE_NAMES)


class fcd_stat(Feature):
    """Functional connectivity dynamics in eight numbers, from pairs of windows that share no sample.

    Of the entries `fcd[a, b]` with b - a >= ceil(w / s): `mean`, `std`, `var` (ddof 0; the variance is the usual
    measure of switching) and `q05 q25 q50 q75 q95`. Overlapping windows are alike because they overlap and are left
    out.

    Noisy in short recordings: T / w is about the number of independent windows.

    Args:
        window: length of a window, ms.
        step: from the start of one window to the start of the next, ms.
        only: names of the numbers to keep, in this order; all of them without.
    """

    window: float = eqx.field(static=True)
    step: float = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, window: float = 60e3, step: float = 5e3, only: Sequence[str] | None = None):
        for name, value in {"window": window, "step": step}.items():
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value:g}; give a duration in ms, such as {name}=5000.0")
        self.window = float(window)
        self.step = float(step)
        self.only = positions(_FCD_NAMES, only, "fcd_stat")

    def __call__(self, y: Array, period: float) -> Array:
        w, s = _window(self.window, self.step, period)
        apart = -(-w // s)  # the first offset without overlap
        if y.shape[0] < w + apart * s:
            raise ValueError(
                f"the recording has {y.shape[0]} samples of {period:g} ms; fcd_stat(window={self.window:g}, "
                f"step={self.step:g}) compares windows that do not overlap and needs {w + apart * s}; "
                f"record at least {(w + apart * s) * period:g} ms or give a shorter window="
            )
        fcd = fcd_matrix(y, window=self.window, step=self.step, period=period)
        v = fcd[np.triu_indices(fcd.shape[0], k=apart)]
        mean, std, _, _ = shape_moments(v)
        return jnp.concatenate([jnp.stack([mean, std, std**2]), quantiles(v)])[np.array(self.only)]

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(_FCD_NAMES[i] for i in self.only)
