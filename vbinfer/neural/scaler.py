"""Standardisation of summaries, and checks of observations against training."""

import dataclasses
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import is_traced

_LINEAR = 4.0
_MARGIN = 0.25
_NORMAL_IQR = 1.349


class Standardise(eqx.Module):
    """Robust standardisation of features, fitted to training rows.

    h = (squash((x - median) / spread) - mean) / sd; constant features become 0. `squash` is the identity within 4
    spreads and logarithmic beyond, so one runaway simulation neither sets the scale of a feature nor saturates the
    network. It is increasing: nothing is lost.
    """

    # NumPy, so that rows of the host are standardised there: JAX would compile every operation
    median: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    varies: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, columns: np.ndarray | None = None) -> "Standardise":
        """Fit to training rows `[n, F]`.

        Features with one number in `columns` `[F]` share their centre and scale.
        """
        x = np.asarray(x, dtype=np.float64)
        if columns is not None and len(np.unique(columns)) < x.shape[1]:
            return cls._pooled(x, np.unique(columns, return_inverse=True)[1])
        median = np.median(x, axis=0)
        iqr, sd = np.subtract(*np.percentile(x, [75.0, 25.0], axis=0)) / _NORMAL_IQR, x.std(axis=0)
        rounding = 1e-6 * np.maximum(np.abs(median), 1e-30)
        varies = sd > rounding
        # a feature that is mostly one value has an interquartile range of 0, and its sd instead
        spread = np.where(varies, np.where(iqr > rounding, iqr, sd), 1.0)
        # moments after squashing: h has mean 0 and sd 1 over the training rows, whatever the tails
        squashed = _squash(((x - median) / spread).astype(jnp.result_type(float))).astype(np.float64) * varies
        mean, scale = squashed.mean(axis=0), np.where(varies, squashed.std(axis=0), 1.0)
        h = (squashed - mean) / scale
        values = (median, spread, mean, scale, varies, h.min(axis=0), h.max(axis=0))
        return cls(*(np.asarray(value, dtype=jnp.result_type(float)) for value in values))

    def lost(self, x: np.ndarray) -> np.ndarray:
        """Features `[F]` that vary only within rounding.

        They are taken as constant.
        """
        return (self.varies == 0.0) & (np.ptp(x, axis=0) > 0.0)

    @classmethod
    def _pooled(cls, x: np.ndarray, group: np.ndarray) -> "Standardise":
        parts = [cls.fit(x[:, group == i].reshape(-1, 1)) for i in range(group.max() + 1)]
        return jax.tree_util.tree_map(lambda *values: np.concatenate(values)[group], *parts)

    def log_slope(self, x: Array) -> Array:
        """Log slope of h in x, 0 for constant features.

        log |d h_i / d x_i| `[..., F]`. Summed over the features of a density of h it turns it into one of x: log p(x) =
        log p(h) + sum_i log_slope_i.
        """
        size = jnp.abs((x - self.median) / self.spread)
        slope = jnp.where(size <= _LINEAR, 0.0, -jnp.log1p(jnp.maximum(size - _LINEAR, 0.0)))
        return (slope - jnp.log(self.spread * self.sd)) * self.varies

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Numbers by name, `x/median`, ..., as files hold them."""
        return {f"x/{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Standardise":
        """Invert `to_arrays`; other entries are left alone."""
        return cls(*(arrays[f"x/{field.name}"] for field in dataclasses.fields(cls)))

    def __call__(self, x: Any) -> Any:
        """h `[..., F]` of x `[..., F]`.

        By NumPy of its arrays, by JAX of its own.
        """
        return (_squash((x - self.median) / self.spread) * self.varies - self.mean) / self.sd

    def outside(self, x: np.ndarray) -> np.ndarray:
        """Mask `[..., F]` of values far beyond the training range.

        Far is a quarter of the range in h; of a constant feature, any change above rounding.
        """
        h, margin = self(x), _MARGIN * (self.high - self.low)
        moved = np.abs(x - self.median) > 1e-4 * np.maximum(np.abs(self.median), 1e-30)
        return (h < self.low - margin) | (h > self.high + margin) | ((self.varies == 0.0) & moved)


@dataclasses.dataclass(frozen=True)
class FeatureScaler:
    """Names of the F features of x, with their standardisation.

    With `gaps` an observation may lack features, NaN in their place.
    """

    names: tuple[str, ...]
    standardise: Standardise
    gaps: bool = False

    @classmethod
    def from_saved(cls, names: Sequence[str], arrays: Mapping[str, np.ndarray], gaps: bool = False) -> "FeatureScaler":
        """Rebuild from saved names and `standardise.to_arrays`."""
        return cls(tuple(names), Standardise.from_arrays(arrays), gaps)

    def check(self, x: Any, ndim: int) -> np.ndarray:
        """Check x: finite or with gaps, F features.

        Raises:
            ValueError: naming what is wrong.
        """
        return check_observation(x, self.names, ndim=ndim, gaps=self.gaps)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Name the features of x_o outside the training draws."""
        far = self.standardise.outside(self.check(x_o, ndim=1))
        return tuple(name for name, flag in zip(self.names, far, strict=True) if flag)

    def rows(self, x: Any) -> Array:
        """One observation `[F]` or rows, checked unless traced."""
        return jnp.asarray(x if is_traced(x) else self.check(x, ndim=max(1, np.ndim(x))))

    def observe(self, x_o: Any) -> tuple[np.ndarray, tuple[str, ...]]:
        """Check x_o `[F]`; name, with a warning, features outside training."""
        x, outside = self.check(x_o, ndim=1), self.outside(x_o)
        if outside:
            warnings.warn(
                f"x_o lies outside the training draws in {', '.join(outside)}: this posterior is an extrapolation. "
                "Compare these features with the prior predictive, and widen the prior or change the model",
                stacklevel=user_stacklevel(),
            )
        return x, outside


def warn_of_lost(names: Sequence[str], lost: np.ndarray) -> None:
    """Name the features whose level hides their fluctuations."""
    if lost.any():
        culprits = [name for name, flag in zip(names, lost.tolist(), strict=True) if flag]
        warnings.warn(
            f"{listed(culprits)} vary by less than 1e-6 of their level, which float32 cannot tell from rounding; they "
            "are taken as constant. Subtract the level in the summary, or take a difference or a logarithm",
            stacklevel=user_stacklevel(),
        )


def check_observation(x: object, names: Sequence[str], ndim: int, gaps: bool = False) -> np.ndarray:
    """Check an observation; with gaps it may hold NaN.

    Raises:
        ValueError: another shape, or NaN and infinite values; the features are named.
    """
    array = np.asarray(x, dtype=np.result_type(np.asarray(x).dtype, np.float32))
    want = "[F]" if ndim == 1 else "[B, F]"
    if array.ndim != ndim:
        raise ValueError(f"the observation has shape {list(array.shape)}; expected {want} with F = {len(names)}")
    if array.shape[-1] != len(names):
        raise ValueError(
            f"the observation has {array.shape[-1]} features; this posterior was trained on {len(names)}: "
            f"{listed(names)}. Make x_o with the same Summary"
        )
    bad = np.asarray((np.isinf(array) if gaps else ~np.isfinite(array)).reshape(-1, len(names)).any(axis=0))
    if bad.any():
        culprits = [name for name, flag in zip(names, bad.tolist(), strict=True) if flag]
        what, remedy = "NaN or infinite", "leave these features out of the Summary and train again"
        if gaps:
            what, remedy = "infinite", "write NaN for what is missing"
        elif np.isnan(array).any():
            remedy += ", or train vb.NPE(missing=0.3), which takes NaN for what is missing"
        raise ValueError(f"the observation has {what} values in {listed(culprits)}; clean the recording, or {remedy}")
    return array


def user_stacklevel() -> int:
    """Stack level of the first caller outside vbinfer."""
    level, frame = 1, sys._getframe(1)
    # a warning points at the user's line, however deep the call
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("vbinfer."):
        level, frame = level + 1, frame.f_back
    return level


def _squash(u: Any) -> Any:
    xp = np if isinstance(u, np.ndarray) else jnp
    # linear near the median, logarithmic beyond; value and slope agree where the two meet
    size = xp.abs(u)
    return xp.sign(u) * xp.where(size <= _LINEAR, size, _LINEAR + xp.log1p(xp.maximum(size - _LINEAR, 0.0)))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in quotes, the first few of many."""
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
