"""Numbers read from the shape of a power spectrum."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import positions
from .nodes import NodeFeature, keep_nan, pool_of, positive, ratio, root, time_centre
from .spectra import welch, welch_frequencies


class Spectrum(NamedTuple):
    """A Welch spectrum and what its numbers need."""

    f: Array  # [F, 1], Hz
    p: Array  # [F, N], 0 for a constant node
    total: Array  # [1, N], sum over f of p, 1 for a constant node
    d: Array  # [T, N], y - mean_t y
    period: float  # ms


def _spectral_moment(s: Spectrum, k: int) -> Array:
    """sum_f (f - centroid)^k p / sum_f p."""
    centroid = jnp.sum(s.f * s.p, axis=0, keepdims=True) / s.total
    return (jnp.sum((s.f - centroid) ** k * s.p, axis=0, keepdims=True) / s.total)[0]


def _edge(s: Spectrum, share: float) -> Array:
    """The first frequency below and at which lies more than `share` of the power."""
    passed = jnp.cumsum(s.p, axis=0) > share * s.total
    return jnp.where(passed.any(axis=0), s.f[jnp.argmax(passed, axis=0), 0], 0.0)


def _entropy(s: Spectrum) -> Array:
    q = s.p / s.total
    positive_q = jnp.where(q > 0.0, q, 1.0)
    return -jnp.sum(q * jnp.log(positive_q), axis=0) / np.log(s.f.shape[0])


def _fundamental(s: Spectrum) -> Array:
    """The lowest local maximum of the modulus of the Fourier transform above 30 % of its greatest value."""
    spectrum = jnp.fft.rfft(s.d, axis=0)
    a = spectrum.real**2 + spectrum.imag**2
    peak = (a[1:-1] > a[:-2]) & (a[1:-1] > a[2:]) & (a[1:-1] > 0.09 * a.max(axis=0, keepdims=True))
    first = jnp.argmax(peak, axis=0) + 1
    f = jnp.asarray(welch_frequencies(s.d.shape[0], s.period), s.p.dtype)
    return jnp.where(peak.any(axis=0), f[first], 0.0)


def _variation(s: Spectrum) -> Array:
    a, b = s.p[1:], s.p[:-1]
    norm = root(jnp.sum(a**2, axis=0)) * root(jnp.sum(b**2, axis=0))
    return jnp.where(norm == 0.0, 0.0, 1.0 - ratio(jnp.sum(a * b, axis=0), norm))


def _distance(s: Spectrum) -> Array:
    bins = s.f.shape[0]
    straight = jnp.linspace(0.0, 1.0, bins, dtype=s.p.dtype)[:, None]
    return jnp.where(s.p.sum(axis=0) == 0.0, 0.0, (straight - jnp.cumsum(s.p, axis=0) / s.total).mean(axis=0))


def _value_moment(s: Spectrum, k: int) -> Array:
    return jnp.mean((s.p - s.p.mean(axis=0, keepdims=True)) ** k, axis=0)


SPECTRUM: dict[str, Callable[[Spectrum], Array]] = {
    "total_power": lambda s: s.p.sum(axis=0) * s.f[1, 0],
    "centroid": lambda s: (jnp.sum(s.f * s.p, axis=0, keepdims=True) / s.total)[0],
    "spread": lambda s: root(_spectral_moment(s, 2)),
    "kurtosis": lambda s: ratio(_spectral_moment(s, 4), _spectral_moment(s, 2) ** 2),
    "peak_frequency": lambda s: s.f[jnp.argmax(s.p, axis=0), 0],
    "peak_power": lambda s: s.p.max(axis=0),
    "median_frequency": lambda s: _edge(s, 0.5),
    "edge95": lambda s: _edge(s, 0.95),
    "entropy": _entropy,
    "fundamental_frequency": _fundamental,
    "variation": _variation,
    "distance": _distance,
    "m2": lambda s: _value_moment(s, 2),
    "m3": lambda s: _value_moment(s, 3),
    "m4": lambda s: _value_moment(s, 4),
    "m5": lambda s: _value_moment(s, 5),
    "m6": lambda s: _value_moment(s, 6),
}


class spectrum(NodeFeature):
    """The shape of each node's power spectrum, in as many numbers as are named.

    P is the `welch` density, all sums run over its frequencies f (Hz, 0 to half the sampling rate), q = P / sum P:

    - `total_power` = sum P df; `centroid` = sum f q; `spread` = sqrt(sum (f - centroid)^2 q) (Hz);
      `kurtosis` = sum (f - centroid)^4 q / spread^4 (3 for a Gaussian shape);
    - `peak_frequency` (Hz) and `peak_power` (u^2 / Hz): where P is greatest; `median_frequency` and `edge95`: the first
      f with more than 50 % or 95 % of the power at or below it; `fundamental_frequency`: the lowest local maximum above
      30 % of the greatest value in |Fourier transform| of the whole recording without its mean, no window, 0 if there
      is none. Frequencies of a grid: their gradient is 0;
    - `entropy` = -sum q log q / log F, in [0, 1]; `variation` = 1 - the cosine between P(f) and P(f + df);
      `distance` = mean over f of (straight line from 0 to 1 - cumulated q), negative where low frequencies prevail;
    - `m2` to `m6` = mean_f (P - mean_f P)^k, of the values of P (u^2k / Hz^k), not of the frequencies.

    0 for a constant node. Blind to phase: every surrogate with the same spectrum gives the same numbers.

    Args:
        segment: length of a segment of `welch`, ms; df = 1000 / segment Hz. 256 samples without.
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    segment: float | None = eqx.field(static=True)
    only: tuple[str, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(self, segment: float | None = None, only: Sequence[str] | None = None, pool: str = "mean"):
        every = tuple(SPECTRUM)
        self.segment = None if segment is None else positive(segment, "segment", "ms", "2000.0")
        self.only = tuple(every[i] for i in positions(every, only, "spectrum"))
        self.pool = pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        f, p = welch(y, period=period, segment=self.segment)
        d, _, constant = time_centre(y)
        p = jnp.where(constant[None], 0.0, p)
        total = p.sum(axis=0, keepdims=True)
        s = Spectrum(f[:, None], p, jnp.where(total == 0.0, 1.0, total), d, period)
        numbers = jnp.stack([SPECTRUM[name](s) for name in self.only])
        return keep_nan(jnp.where(constant[None], 0.0, numbers), y)

    def labels(self) -> tuple[str, ...]:
        return self.only
