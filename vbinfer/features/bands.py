"""Power, coherence and wavelet amplitude at named frequencies and in bands of them."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import Feature, positions, shape_moments
from .nodes import NodeFeature, intervals_of, pool_of, positive, ratio, root, time_centre
from .spectra import (
    BANDS,
    band_labels,
    below_nyquist,
    coherence_matrix,
    frequencies_of,
    inside_band,
    segment_samples,
    welch,
    welch_frequencies,
)


class band_power(NodeFeature):
    """The power of each node in bands of frequency: the integral of the `welch` density over low <= f < high.

    In squared units of the recording; `relative=True` divides by the sum over all frequencies times df. 0 for a
    constant node. With the trapezoidal rule neighbouring bands leave out the bin between them, so that bands do not add
    up to the total; with `rule="sum"` they do.

    Args:
        bands: pairs (low, high) in Hz; delta to gamma without. A band with fewer than two frequencies is an error.
        segment: length of a segment of `welch`, ms; 256 samples without.
        relative: as a share of the total power.
        rule: `"trapezoid"`, or `"sum"` for sum P df.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> band_power(bands=((0.01, 0.1),)).names()
    ('0.01-0.1Hz',)
    """

    bands: tuple[tuple[float, float], ...] = eqx.field(static=True)
    segment: float | None = eqx.field(static=True)
    relative: bool = eqx.field(static=True)
    rule: str = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(
        self,
        bands: Sequence[Sequence[float]] | np.ndarray = BANDS,
        segment: float | None = None,
        relative: bool = False,
        rule: str = "trapezoid",
        pool: str = "mean",
    ):
        if rule not in ("trapezoid", "sum"):
            raise ValueError(f"rule is {rule!r}; write 'trapezoid' or 'sum'")
        self.bands = intervals_of(bands, "bands", "Hz")
        self.segment = None if segment is None else positive(segment, "segment", "ms", "2000.0")
        self.relative, self.rule, self.pool = relative, rule, pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        f = welch_frequencies(segment_samples(self.segment, period, y.shape[0]), period)
        _, p = welch(y, period=period, segment=self.segment)
        p = jnp.where(time_centre(y)[2][None], 0.0, p)
        power = []
        for band in self.bands:
            inside = p[inside_band(band, f)]
            ends = 0.5 * (inside[0] + inside[-1]) if self.rule == "trapezoid" else 0.0
            power.append((inside.sum(axis=0) - ends) * f[1])
        found = jnp.stack(power)
        return ratio(found, p.sum(axis=0, keepdims=True) * f[1] + 0.0 * found) if self.relative else found

    def labels(self) -> tuple[str, ...]:
        return band_labels(self.bands)


class psd(NodeFeature):
    """The `welch` density of each node at given frequencies, on straight lines between those of the estimate.

    Squared units of the recording per Hz; with `relative=True` divided by the total power (per Hz). 0 for a constant
    node. The width does not follow the length of the recording, so that recordings of unequal length compare.

    Args:
        frequencies: Hz, up to half the sampling rate.
        segment: length of a segment of `welch`, ms; 256 samples without.
        relative: as a share of the total power.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    frequencies: tuple[float, ...] = eqx.field(static=True)
    segment: float | None = eqx.field(static=True)
    relative: bool = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(
        self,
        frequencies: Sequence[float] | np.ndarray = (2.0, 6.0, 10.0, 20.0, 40.0),
        segment: float | None = None,
        relative: bool = False,
        pool: str = "mean",
    ):
        self.frequencies = frequencies_of(frequencies)
        self.segment = None if segment is None else positive(segment, "segment", "ms", "2000.0")
        self.relative, self.pool = relative, pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        f = welch_frequencies(segment_samples(self.segment, period, y.shape[0]), period)
        below_nyquist(self.frequencies, period)
        _, p = welch(y, period=period, segment=self.segment)
        p = jnp.where(time_centre(y)[2][None], 0.0, p)
        if self.relative:
            p = ratio(p, p.sum(axis=0, keepdims=True) * f[1] + 0.0 * p)
        place = np.minimum(np.array(self.frequencies) / f[1], len(f) - 1)
        left = np.minimum(np.floor(place).astype(int), len(f) - 2)
        weight = jnp.asarray(place - left, p.dtype)[:, None]
        return (1.0 - weight) * p[left] + weight * p[left + 1]

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{f:g}Hz" for f in self.frequencies)


class coherence(Feature):
    """Magnitude-squared coherence in bands of frequency: of `coherence_matrix`, averaged over low <= f < high, the
    mean and, as `..._std`, the standard deviation (ddof 0) over pairs of nodes.

    Blind to the sign and lag of the relation. Pairs with a constant node count as 0.

    Args:
        bands: pairs (low, high) in Hz; delta to gamma without. A band with fewer than two frequencies is an error.
        segment: length of a segment of `welch`, ms; 256 samples without.
    """

    bands: tuple[tuple[float, float], ...] = eqx.field(static=True)
    segment: float | None = eqx.field(static=True)

    def __init__(self, bands: Sequence[Sequence[float]] | np.ndarray = BANDS, segment: float | None = None):
        self.bands = intervals_of(bands, "bands", "Hz")
        self.segment = None if segment is None else positive(segment, "segment", "ms", "2000.0")

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] < 2:
            raise ValueError(f"coherence needs at least 2 nodes; the recording has {y.shape[1]}")
        f = welch_frequencies(segment_samples(self.segment, period, y.shape[0]), period)
        _, c = coherence_matrix(y, period=period, segment=self.segment)
        rows, cols = np.triu_indices(y.shape[1], k=1)
        numbers = []
        for band in self.bands:
            inside = inside_band(band, f)
            numbers += shape_moments(c[inside].mean(axis=0)[rows, cols])[:2]
        return jnp.stack(numbers)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(label + end for label in band_labels(self.bands) for end in ("", "_std"))


_WAVELET = ("mean", "std", "energy")


class wavelet(NodeFeature):
    """The amplitude of each node's oscillation at given frequencies, by Morlet wavelets.

    W(t) = sum_g D(g) H(g) exp(2 pi i g t) with D the Fourier transform of y - mean_t y and

        H(g) = 2 exp(-(cycles (g - f) / f)^2 / 2) for g > 0, else 0

    which is the analytic Morlet wavelet of frequency f whose Gaussian envelope has the standard deviation
    cycles / (2 pi f), scaled so that |W| is the amplitude of a sinusoid of that frequency. Per frequency: `mean` and
    `std` (ddof 0) of |W| over time, and `energy` = sum_t |W|^2. The ends see each other. 0 for a constant node.

    Args:
        frequencies: Hz, above 0 and up to half the sampling rate.
        cycles: width of the wavelet; more resolve frequency better and time worse.
        only: which of `mean`, `std`, `energy` to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    Torrence & Compo 1998, doi:10.1175/1520-0477(1998)079<0061:APGTWA>2.0.CO;2.

    >>> wavelet(frequencies=(10,), only=("mean",)).names()
    ('10Hz_mean',)
    """

    frequencies: tuple[float, ...] = eqx.field(static=True)
    cycles: float = eqx.field(static=True)
    only: tuple[int, ...] = eqx.field(static=True)
    pool: str = eqx.field(static=True)

    def __init__(
        self,
        frequencies: Sequence[float] | np.ndarray = (2.0, 6.0, 10.0, 20.0, 40.0),
        cycles: float = 6.0,
        only: Sequence[str] | None = None,
        pool: str = "mean",
    ):
        self.frequencies = frequencies_of(frequencies)
        if min(self.frequencies) == 0.0:
            raise ValueError("frequencies hold 0 Hz, at which nothing oscillates; give frequencies above 0")
        self.cycles = positive(cycles, "cycles", "cycles", "6.0")
        self.only = positions(_WAVELET, only, "wavelet")
        self.pool = pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        below_nyquist(self.frequencies, period)
        d, _, constant = time_centre(y)
        grid = np.fft.fftfreq(y.shape[0], period / 1000.0)
        transform = jnp.fft.fft(d, axis=0)
        numbers = []
        for f in self.frequencies:  # one frequency at a time: memory stays that of the recording
            gain = np.where(grid > 0.0, 2.0 * np.exp(-0.5 * (self.cycles * (grid - f) / f) ** 2), 0.0)
            w = jnp.fft.ifft(transform * jnp.asarray(gain, y.dtype)[:, None], axis=0)
            squared = w.real**2 + w.imag**2
            a = root(squared)
            mean = a.mean(axis=0)
            std = root(jnp.mean((a - mean[None]) ** 2, axis=0))
            every = (mean, std, squared.sum(axis=0))
            numbers += [jnp.where(constant, 0.0, every[i]) for i in self.only]
        return jnp.stack(numbers)

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{f:g}Hz_{_WAVELET[i]}" for f in self.frequencies for i in self.only)
