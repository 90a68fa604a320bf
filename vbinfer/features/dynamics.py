"""Functional connectivity dynamics, over sliding windows."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vbinfer import _check

from .base import Feature, chosen, gather, option, positive, samples
from .connectivity import (
    EIGEN_NAMES,
    EXTREME_NAMES,
    SHARE_NAMES,
    eigen_numbers,
    extreme_numbers,
    share_numbers,
)
from .matrices import Mask, fc_matrix, mask_of, take_pairs
from .numeric import QUANTILE_NAMES, quantiles, shape_moments

_windows = functools.partial(_check.one_of, what="windows", choices=("all", "skiplast"))


def fcd_matrix(
    y: ArrayLike,
    *,
    window: float,
    step: float,
    period: float,
    windows: str = "all",
    mask: Mask | ArrayLike | None = None,
) -> Array:
    """Functional connectivity dynamics: correlations between windows' connectivities.

    fcd[a, b] = corr over i < j of fc^a[i, j] and fc^b[i, j], where fc^a is `fc_matrix` of samples
    [a s, a s + w). Window and step are rounded to samples, w and s.
    A window whose correlations are all equal has zeros in its row and column.

    Args:
        y: recording, `[T, N]`, with at least 3 nodes.
        window: length of a window, ms.
        step: from the start of one window to the start of the next, ms.
        period: between two samples, ms.
        windows: `"all"` for every full window, a s <= T - w; `"skiplast"` for a s < T - w, which leaves out the one
            that ends with the recording, as The Virtual Brain's analyser does.
        mask: `[node, node]`, true for the pairs of nodes whose correlations are compared; all of them without.

    Returns:
        `[W, W]` with W = floor((T - w) / s) + 1, or ceil((T - w) / s) for `"skiplast"`.

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
    n, count = y.shape[1], _count(y.shape[0], w, s, windows)
    if count < 2:
        needed = w + s + (windows == "skiplast")
        raise ValueError(
            f"the recording has {y.shape[0]} samples of {period:g} ms; two windows of {window:g} ms, "
            f"{step:g} ms apart, take {needed}; record at least {needed * period:g} ms or give a shorter window="
        )
    if n < 3:
        raise ValueError(f"functional connectivity dynamics needs at least 3 nodes; the recording has {n}")
    kept = mask_of(mask)

    def window_fc(start: Array) -> Array:  # one window at a time: memory stays that of the result
        return take_pairs(fc_matrix(jax.lax.dynamic_slice_in_dim(y, start, w)), kept)

    # [W, pairs] turned over: windows are the "nodes" of a second correlation, pairs of nodes its "times"
    return fc_matrix(jax.lax.map(window_fc, jnp.arange(count) * s).T)


def _count(length: int, w: int, s: int, windows: str) -> int:
    """Number of windows of w samples, s apart."""
    # a s <= T - w has floor((T - w) / s) + 1 windows, a s < T - w has ceil((T - w) / s)
    return max(0, (length - w) // s + 1 if windows == "all" else -((w - length) // s))


def _window(window: float, step: float, period: float) -> tuple[int, int]:
    w, s = samples(window, period, "window"), samples(step, period, "step")
    if w < 3:
        raise ValueError(f"window is {window:g} ms, {w} samples of {period:g} ms; correlations need at least 3")
    return w, s


_USUAL = ("mean", "std", "var", *QUANTILE_NAMES)
_SHAPE = ("skew", "kurtosis")
_OVERLAPPING = ("var_overlapping",)
_WITH_ZEROS = ("var_with_zeros",)
_EVERY = (*_USUAL, *_SHAPE, *EXTREME_NAMES, *_OVERLAPPING, *_WITH_ZEROS, *EIGEN_NAMES, *SHARE_NAMES)


class fcd_stat(Feature):
    """Functional connectivity dynamics in eight numbers, and more by name.

    Of the entries `fcd[a, b]` with b - a >= ceil(w / s), pairs of windows that share no sample: `mean`, `std`, `var`
    (ddof 0; the variance is the usual measure of switching) and `q05 q25 q50 q75 q95`. Overlapping windows are alike
    because they overlap and are left out.

    Only when named in `only`: of the same entries `skew`, `kurtosis` (excess), `min`, `max`, `sum`, and `abs_sum` of
    their absolute values on both sides of the diagonal; `var_overlapping`, the variance of all entries above the
    diagonal; `var_with_zeros`, that of the whole matrix with every other entry than the eight numbers' set to 0 (as
    codes have it that take the variance of the upper triangle without cutting it out; it measures the length of the
    recording too); `eig_sum eig_max eig_min eig_mean eig_std eig_skew eig_kurtosis` and `pca1 pca2 pca3 pca_std` of the
    whole matrix, as in `fc_stat`.

    Noisy in short recordings: T / w is about the number of independent windows.

    Args:
        window: length of a window, ms.
        step: from the start of one window to the start of the next, ms.
        only: names of the numbers to keep, in this order; the eight without.
        windows: `"all"` for every full window; `"skiplast"` leaves out the one that ends with the recording.
        mask: `[node, node]`, true for the pairs of nodes whose correlations are compared; all of them without.
    """

    window: float = option(default=60e3, converter=positive("window", 60e3))
    step: float = option(default=5e3, converter=positive("step", 5e3))
    only: tuple[str, ...] = option(default=None, converter=chosen("fcd_stat", *_EVERY, usual=_USUAL))
    windows: str = option(default="all", converter=_windows)
    mask: Mask | None = eqx.field(default=None, converter=mask_of)

    def __call__(self, y: Array, period: float) -> Array:
        w, s = _window(self.window, self.step, period)
        apart = -(-w // s)  # the first offset without overlap
        if _count(y.shape[0], w, s, self.windows) < apart + 1:
            needed = w + apart * s + (self.windows == "skiplast")
            raise ValueError(
                f"the recording has {y.shape[0]} samples of {period:g} ms; fcd_stat(window={self.window:g}, "
                f"step={self.step:g}) compares windows that do not overlap and needs {needed}; "
                f"record at least {needed * period:g} ms or give a shorter window="
            )
        fcd = fcd_matrix(y, window=self.window, step=self.step, period=period, windows=self.windows, mask=self.mask)
        v = fcd[np.triu_indices(fcd.shape[0], k=apart)]
        mean, std, skew, kurtosis = shape_moments(v)
        groups: dict[tuple[str, ...], Callable[[], Array]] = {
            _USUAL: lambda: jnp.concatenate([jnp.stack([mean, std, std**2]), quantiles(v)]),
            _SHAPE: lambda: jnp.stack([skew, kurtosis]),
            EXTREME_NAMES: lambda: extreme_numbers(v),
            _OVERLAPPING: lambda: shape_moments(fcd[np.triu_indices(fcd.shape[0], k=1)])[1][None] ** 2,
            _WITH_ZEROS: lambda: jnp.var(jnp.triu(fcd, k=apart))[None],
            EIGEN_NAMES: lambda: eigen_numbers(fcd),
            SHARE_NAMES: lambda: share_numbers(fcd),
        }
        return gather(groups, self.only)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only


class fcd_histogram(Feature):
    """Distribution of functional connectivity dynamics over bins of [-1, 1].

    The share of pairs of windows in bins of equal width, named by their edges, `[-1,-0.9)` and so on; the last one
    holds 1. For comparing recordings by the distance between such distributions. Counts: the gradient is 0.

    Args:
        window: length of a window, ms.
        step: from the start of one window to the start of the next, ms.
        bins: how many.
        overlapping: also count pairs of windows that share samples, as is usual; their entries are high because of it.
        windows: `"all"` for every full window; `"skiplast"` leaves out the one that ends with the recording.
        mask: `[node, node]`, true for the pairs of nodes whose correlations are compared; all of them without.
    """

    window: float = option(default=60e3, converter=positive("window", 60e3))
    step: float = option(default=5e3, converter=positive("step", 5e3))
    bins: int = option(default=20, converter=functools.partial(_check.count, what="bins", example=20, least=2))
    overlapping: bool = option(default=True, converter=bool)
    windows: str = option(default="all", converter=_windows)
    mask: Mask | None = eqx.field(default=None, converter=mask_of)

    def __call__(self, y: Array, period: float) -> Array:
        w, s = _window(self.window, self.step, period)
        fcd = fcd_matrix(y, window=self.window, step=self.step, period=period, windows=self.windows, mask=self.mask)
        apart = 1 if self.overlapping else -(-w // s)
        if fcd.shape[0] <= apart:
            raise ValueError(
                f"the recording has {fcd.shape[0]} windows, of which no two are apart; record at least "
                f"{(w + apart * s) * period:g} ms, give a shorter window= or overlapping=True"
            )
        v = jax.lax.stop_gradient(fcd[np.triu_indices(fcd.shape[0], k=apart)])
        inner = jnp.asarray(np.linspace(-1.0, 1.0, self.bins + 1)[1:-1], v.dtype)
        bin_of = jnp.searchsorted(inner, v, side="right")
        shares = (bin_of[:, None] == jnp.arange(self.bins)[None]).mean(axis=0, dtype=v.dtype)
        return jnp.where(jnp.isnan(v).any(), jnp.nan, shares)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        edges = [f"{edge:g}" for edge in np.linspace(-1.0, 1.0, self.bins + 1).round(6) + 0.0]
        ends = [")"] * (self.bins - 1) + ["]"]
        return tuple(f"[{low},{high}{end}" for low, high, end in zip(edges[:-1], edges[1:], ends, strict=True))
