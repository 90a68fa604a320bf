"""Features of frequencies: spectra, bands, coherence, wavelets, and a filter."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check

from .base import Feature, NodeFeature, Preprocess, chosen, intervals, option, pick, positive, positive_or_none
from .numeric import keep_nan, ratio, root, shape_moments, time_centre
from .spectra import coherence_matrix, inside_band, segment_samples, welch, welch_frequencies

_BANDS = ((0.0, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 30.0), (30.0, 70.0))  # delta, theta, alpha, beta, gamma, Hz
_FREQUENCIES = (2.0, 6.0, 10.0, 20.0, 40.0)  # Hz
_bands = intervals("bands", "Hz")
_segment = positive_or_none("segment", 2000.0)


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
    """First frequency with more than `share` of the power below."""
    passed = jnp.cumsum(s.p, axis=0) > share * s.total
    return jnp.where(passed.any(axis=0), s.f[jnp.argmax(passed, axis=0), 0], 0.0)


def _entropy(s: Spectrum) -> Array:
    q = s.p / s.total
    # q log q is 0 at q = 0, and its gradient must not be 0 * inf
    positive_q = jnp.where(q > 0.0, q, 1.0)
    return -jnp.sum(q * jnp.log(positive_q), axis=0) / np.log(s.f.shape[0])


def _fundamental(s: Spectrum) -> Array:
    """Lowest local maximum of |Fourier transform| above 30 %."""
    spectrum = jnp.fft.rfft(s.d, axis=0)
    a = spectrum.real**2 + spectrum.imag**2
    # higher than both neighbours; 30 % of the greatest modulus is 9 % of the greatest power
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
    **{f"m{k}": functools.partial(_value_moment, k=k) for k in range(2, 7)},
}


class spectrum(NodeFeature):
    """Shape of each node's power spectrum, in named numbers.

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

    segment: float | None = option(default=None, converter=_segment)
    only: tuple[str, ...] = option(default=None, converter=chosen("spectrum", *SPECTRUM))

    def per_node(self, y: Array, period: float) -> Array:
        f, p = _densities(y, period, self.segment)
        d, _, constant = time_centre(y)
        total = p.sum(axis=0, keepdims=True)
        s = Spectrum(jnp.asarray(f, p.dtype)[:, None], p, jnp.where(total == 0.0, 1.0, total), d, period)
        numbers = jnp.stack([SPECTRUM[name](s) for name in self.only])
        return keep_nan(jnp.where(constant[None], 0.0, numbers), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


def _densities(y: Array, period: float, segment: float | None) -> tuple[np.ndarray, Array]:
    """Frequencies `[F]` and `welch` densities `[F, N]`.

    Densities of a constant node are 0; frequencies are NumPy's, so that bands are chosen before tracing.
    """
    f = welch_frequencies(segment_samples(segment, period, y.shape[0]), period)
    _, p = welch(y, period=period, segment=segment)
    return f, jnp.where(time_centre(y)[2][None], 0.0, p)


def _band_labels(bands: tuple[tuple[float, ...], ...]) -> tuple[str, ...]:
    return tuple(f"{low:g}-{high:g}Hz" for low, high in bands)


class band_power(NodeFeature):
    """Power of each node in bands of frequency.

    The integral of the `welch` density over low <= f < high, in squared units of the recording; `relative=True` divides
    by the sum over all frequencies times df. 0 for a constant node. With the trapezoidal rule neighbouring bands leave
    out the bin between them, so that bands do not add up to the total; with `rule="sum"` they do.

    Args:
        bands: pairs (low, high) in Hz; delta to gamma without. A band with fewer than two frequencies is an error.
        segment: length of a segment of `welch`, ms; 256 samples without.
        relative: as a share of the total power.
        rule: `"trapezoid"`, or `"sum"` for sum P df.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    >>> band_power(bands=((0.01, 0.1),)).names()
    ('0.01-0.1Hz',)
    """

    bands: tuple[tuple[float, ...], ...] = option(default=_BANDS, converter=_bands)
    segment: float | None = option(default=None, converter=_segment)
    relative: bool = option(default=False, converter=bool)
    rule: str = option(
        default="trapezoid", converter=functools.partial(_check.one_of, what="rule", choices=("trapezoid", "sum"))
    )

    def per_node(self, y: Array, period: float) -> Array:
        f, p = _densities(y, period, self.segment)
        power = []
        for band in self.bands:
            inside = p[inside_band(band, f)]
            # the trapezoidal rule: the sum, less half of both ends
            ends = 0.5 * (inside[0] + inside[-1]) if self.rule == "trapezoid" else 0.0
            power.append((inside.sum(axis=0) - ends) * f[1])
        found = jnp.stack(power)
        return ratio(found, p.sum(axis=0, keepdims=True) * f[1]) if self.relative else found

    def labels(self) -> tuple[str, ...]:
        return _band_labels(self.bands)


def _frequencies(given: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    found = tuple(float(f) for f in given)
    if not found or not all(0.0 <= f < np.inf for f in found):
        raise ValueError(f"frequencies is {given!r}; give frequencies in Hz, such as frequencies=(0.02, 0.05)")
    return found


def _below_nyquist(frequencies: tuple[float, ...], period: float) -> None:
    """Refuse frequencies above half the sampling rate."""
    nyquist = 500.0 / period
    if max(frequencies) > nyquist * (1.0 + 1e-9):
        raise ValueError(
            f"frequencies hold {max(frequencies):g} Hz, but samples {period:g} ms apart show nothing above {nyquist:g} "
            f"Hz; give frequencies= up to {nyquist:g}"
        )


class psd(NodeFeature):
    """The `welch` density of each node at given frequencies.

    On straight lines between the frequencies of the estimate. Squared units of the recording per Hz; with
    `relative=True` divided by the total power (per Hz). 0 for a constant node. The width does not follow the length of
    the recording, so that recordings of unequal length compare.

    Args:
        frequencies: Hz, up to half the sampling rate.
        segment: length of a segment of `welch`, ms; 256 samples without.
        relative: as a share of the total power.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    frequencies: tuple[float, ...] = option(default=_FREQUENCIES, converter=_frequencies)
    segment: float | None = option(default=None, converter=_segment)
    relative: bool = option(default=False, converter=bool)

    def per_node(self, y: Array, period: float) -> Array:
        _below_nyquist(self.frequencies, period)
        f, p = _densities(y, period, self.segment)
        if self.relative:
            p = ratio(p, p.sum(axis=0, keepdims=True) * f[1])
        # fractional place on the grid of frequencies; the last interval also holds its right end
        place = np.minimum(np.array(self.frequencies) / f[1], len(f) - 1)
        left = np.minimum(np.floor(place).astype(int), len(f) - 2)
        weight = jnp.asarray(place - left, p.dtype)[:, None]
        return (1.0 - weight) * p[left] + weight * p[left + 1]

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{f:g}Hz" for f in self.frequencies)


class coherence(Feature):
    """Magnitude-squared coherence in bands of frequency.

    Of `coherence_matrix`, averaged over low <= f < high, the mean and, as `..._std`, the standard deviation (ddof 0)
    over pairs of nodes. Blind to the sign and lag of the relation. Pairs with a constant node count as 0.

    Args:
        bands: pairs (low, high) in Hz; delta to gamma without. A band with fewer than two frequencies is an error.
        segment: length of a segment of `welch`, ms; 256 samples without.
    """

    bands: tuple[tuple[float, ...], ...] = option(default=_BANDS, converter=_bands)
    segment: float | None = option(default=None, converter=_segment)

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
        return tuple(label + end for label in _band_labels(self.bands) for end in ("", "_std"))


def _oscillating(frequencies: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    if 0.0 in (found := _frequencies(frequencies)):
        raise ValueError("frequencies hold 0 Hz, at which nothing oscillates; give frequencies above 0")
    return found


class wavelet(NodeFeature):
    """Amplitude of each node at given frequencies, by Morlet wavelets.

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

    frequencies: tuple[float, ...] = option(default=_FREQUENCIES, converter=_oscillating)
    cycles: float = option(default=6.0, converter=positive("cycles", 6.0, "cycles"))
    only: tuple[str, ...] = option(default=None, converter=chosen("wavelet", "mean", "std", "energy"))

    def per_node(self, y: Array, period: float) -> Array:
        _below_nyquist(self.frequencies, period)
        d, _, constant = time_centre(y)
        grid = np.fft.fftfreq(y.shape[0], period / 1000.0)
        transform = jnp.fft.fft(d, axis=0)
        numbers = []
        for f in self.frequencies:  # one frequency at a time: memory stays that of the recording
            # negative frequencies go, positive ones count twice: the inverse transform is the analytic signal
            gain = np.where(grid > 0.0, 2.0 * np.exp(-0.5 * (self.cycles * (grid - f) / f) ** 2), 0.0)
            w = jnp.fft.ifft(transform * jnp.asarray(gain, y.dtype)[:, None], axis=0)
            squared = w.real**2 + w.imag**2
            a = root(squared)
            mean = a.mean(axis=0)
            std = root(jnp.mean((a - mean[None]) ** 2, axis=0))
            numbers.append(pick({"mean": mean, "std": std, "energy": squared.sum(axis=0)}, self.only))
        return jnp.where(constant[None], 0.0, jnp.concatenate(numbers))

    def labels(self) -> tuple[str, ...]:
        return tuple(f"{f:g}Hz_{name}" for f in self.frequencies for name in self.only)


class bandpass(Preprocess):
    """Zero-phase band-pass filter for `Summary(preprocess=...)`.

    Damps what lies outside the band and delays nothing. Each node's mean is removed and its spectrum multiplied by

        H(f) = 1 / (1 + (low / f)^(2 order)) * 1 / (1 + (f / high)^(2 order))

    which is the squared gain of a Butterworth filter, as running one forwards and backwards gives: about one half at
    `low` and at `high`. The recording is continued at both ends by its point reflection, for 1.5 periods of `low`
    (3 of `high` where `low` is None) or as far as it reaches, so that the ends do not see each other.

    Args:
        low: Hz; None lets slow fluctuations through (the mean still goes).
        high: Hz, below half the sampling rate; None lets fast fluctuations through.
        order: of the Butterworth filter.

    Butterworth 1930, Experimental Wireless 7:536-541.
    """

    low: float | None = eqx.field(static=True, converter=positive_or_none("low", 0.01, "Hz"))
    high: float | None = eqx.field(static=True, converter=positive_or_none("high", 0.1, "Hz"))
    order: int = eqx.field(static=True, default=2, converter=functools.partial(_check.count, what="order", example=2))

    def __check_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("bandpass was given neither low nor high; give at least one of them, in Hz")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(
                f"the band is {self.low:g} to {self.high:g} Hz; low must be below high, as in bandpass(0.01, 0.1)"
            )

    def __call__(self, y: Array, period: float) -> Array:
        nyquist = 500.0 / period
        for name, value in {"low": self.low, "high": self.high}.items():
            if value is not None and value >= nyquist:
                raise ValueError(
                    f"{name} is {value:g} Hz, but samples {period:g} ms apart show nothing from {nyquist:g} Hz on; "
                    f"give a frequency below {nyquist:g} or None"
                )
        length = y.shape[0]
        reach = 1.5 / self.low if self.low is not None else 3.0 / (self.high or nyquist)
        pad = min(length - 1, math.ceil(reach * 1000.0 / period))
        y = y - y.mean(axis=0, keepdims=True)
        # continued at each end by its point reflection,  2 y(end) - y(mirrored): value and slope go on without a step
        before = 2.0 * y[:1] - y[1 : pad + 1][::-1]
        after = 2.0 * y[-1:] - y[length - 1 - pad : length - 1][::-1]
        padded = jnp.concatenate([before, y, after])
        gain = self.gain(jnp.fft.rfftfreq(padded.shape[0], period / 1000.0, dtype=y.dtype))
        filtered = jnp.fft.irfft(jnp.fft.rfft(padded, axis=0) * gain[:, None], n=padded.shape[0], axis=0)
        return filtered[pad : pad + length].astype(y.dtype)

    def gain(self, frequency: Array) -> Array:
        """Gain H(f) at frequencies >= 0 in Hz."""
        f = jnp.asarray(frequency)
        above_zero = jnp.where(f > 0.0, f, 1.0)
        gain = jnp.where(f > 0.0, 1.0, 0.0)
        if self.low is not None:
            gain = gain / (1.0 + (self.low / above_zero) ** (2 * self.order))
        if self.high is not None:
            gain = gain / (1.0 + (f / self.high) ** (2 * self.order))
        return gain
