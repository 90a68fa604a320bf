"""Likelihoods of events: counts in bins, and event times."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import Named
from vbinfer.likelihoods.base import AbstractLikelihood, Predict, callable_or_raise, compared, known, predicted


@dataclasses.dataclass(frozen=True, eq=False)
class Poisson(AbstractLikelihood):
    """Counts of events in bins: y ~ Poisson(rate bin).

    log p(y | theta) = sum [y log(rate bin) - rate bin - log y!] over the entries of y that are not NaN

    Args:
        rate: theta to events per ms, in the shape of the counts, `[T, N]` say (the r of `MontbrioPazoRoxin` times the
            number of neurons that were recorded).
        bin: width of a bin, ms.
    """

    rate: Predict
    bin: float

    def __post_init__(self) -> None:
        callable_or_raise(self.rate, "rate", 'lambda theta: 1e-3 * theta["hertz"] * jnp.ones(len(counts))')
        _check.positive(self.bin, "bin", 10.0, "ms")

    def _expected(self, theta: Named) -> Array:
        return predicted(self.rate, theta, "rate") * self.bin

    def pointwise(self, theta: Named, y: Any) -> Array:
        expected = self._expected(theta)
        y, there = compared(y, expected.shape, "rate")
        counts = known(y)
        if (off := (counts < 0) | (counts != np.round(counts))).any():
            raise ValueError(f"y holds {counts[off].flat[0]:g}; counts are whole numbers, 0 or more")
        # 0 log 0 = 0, and no NaN in its derivative
        logs = jnp.where(y > 0.0, y * jnp.log(jnp.where(y > 0.0, expected, 1.0)), 0.0)
        return jnp.where(there, logs - expected - jax.scipy.special.gammaln(y + 1.0), 0.0)

    def sample(self, theta: Named, key: Array) -> Array:
        expected = self._expected(theta)
        return jax.random.poisson(key, expected).astype(expected.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class PointProcess(AbstractLikelihood):
    """Event times as an inhomogeneous Poisson process.

    The intensity lambda(t) is given on a grid and linear between.

    log p(y | theta) = sum_events log lambda(t_e) - integral of lambda over the grid

    The trapezoidal rule is the exact integral of the linear interpolant. `pointwise` are the terms of the intervals of
    the grid, `[T - 1, N]`: their events and their part of the integral, which are independent of each other.

    Args:
        intensity: theta to events per ms at `times`: `[T, N]`, or `[T]` for one node.
        times: grid, ms, `[T]`, increasing; observation began at its first and ended at its last entry.

    An observation y is the moments of events in ms: `[node, event]` with NaN to fill up rows, or `[event]` for one
    node.

    >>> import vbinfer as vb
    >>> process = vb.likelihoods.PointProcess(lambda theta: theta["rate"] * jnp.ones(11), jnp.linspace(0.0, 100.0, 11))
    >>> round(float(process({"rate": 0.02}, [12.0, 50.0, 91.0])), 4)      # 3 log 0.02 - 2
    -13.7361
    """

    intensity: Predict
    times: Any

    def __post_init__(self) -> None:
        callable_or_raise(self.intensity, "intensity", "lambda theta: ...")
        times = np.asarray(self.times, float)
        if times.ndim != 1 or len(times) < 2 or not np.all(np.diff(times) > 0.0):
            raise ValueError(f"times has shape {list(times.shape)}; expected an increasing grid [T] of two or more ms")
        object.__setattr__(self, "times", times)

    def _intensity(self, theta: Named) -> tuple[Array, bool]:
        """`[T, N]`, and whether one node came without an axis."""
        lam = predicted(self.intensity, theta, "intensity")
        if lam.ndim not in (1, 2) or len(lam) != len(self.times):
            raise ValueError(
                f"intensity gives {list(lam.shape)}; expected [{len(self.times)}] or [{len(self.times)}, N], a row for "
                "each of the times"
            )
        return (lam[:, None], True) if lam.ndim == 1 else (lam, False)

    def pointwise(self, theta: Named, y: Any) -> Array:
        lam, single = self._intensity(theta)
        events = jnp.asarray(y, jnp.result_type(float))
        events = events[None] if single and events.ndim == 1 else events
        n = lam.shape[1]
        if events.ndim != 2 or len(events) != n:
            raise ValueError(f"y is {list(events.shape)}; expected moments of events [{n}, event], filled up with NaN")
        first, last = float(self.times[0]), float(self.times[-1])
        moments = known(events)
        if (off := (moments < first) | (moments > last)).any():
            raise ValueError(
                f"y has an event at {moments[off][0]:g} ms; the intensity is given from {first:g} to {last:g} ms"
            )
        # an event in interval k of the grid, at the share s of its width:  log lambda = log[(1 - s) lam_k + s lam_k+1];
        # missing events (NaN) stand at the first grid point with log 1, so that neither value nor gradient sees them
        times = jnp.asarray(self.times, lam.dtype)
        width = jnp.diff(times)
        integral = 0.5 * width[:, None] * (lam[1:] + lam[:-1])
        there = ~jnp.isnan(events)
        at = jnp.clip(jnp.searchsorted(times, jnp.where(there, events, first), side="right") - 1, 0, len(width) - 1)
        node = jnp.broadcast_to(jnp.arange(n)[:, None], at.shape)
        share = (jnp.where(there, events, first) - times[at]) / width[at]
        density = lam[at, node] * (1.0 - share) + lam[at + 1, node] * share
        logs = jnp.where(there, jnp.log(jnp.where(there, density, 1.0)), 0.0)
        terms = (-integral).at[at, node].add(logs)
        return terms[:, 0] if single else terms

    def sample(self, theta: Named, key: Array) -> np.ndarray:
        """Sorted event times, ms; not inside `jit`.

        `[event]`, or `[node, event]` with NaN at the end.
        """
        lam, single = self._intensity(theta)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        grid, nodes = np.asarray(lam, float), []
        width = np.diff(self.times)
        for a, b in zip(grid[:-1].T, grid[1:].T, strict=True):
            count = rng.poisson(0.5 * width * (a + b))
            k = np.repeat(np.arange(len(width)), count)
            u, a_k, b_k = rng.random(len(k)), a[k], b[k]
            # the share s of the interval at which a s + (b - a) s^2 / 2 = u (a + b) / 2, in a form safe for a = b
            s = u * (a_k + b_k) / (a_k + np.sqrt(a_k**2 + u * (b_k**2 - a_k**2)))
            nodes.append(np.sort(self.times[k] + s * width[k]))
        longest = max(map(len, nodes))
        out = np.stack([np.pad(t, (0, longest - len(t)), constant_values=np.nan) for t in nodes])
        return out[0] if single else out
