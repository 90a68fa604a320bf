"""Power spectra: Welch's estimate, numbers read from it, bands, coherence."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import Feature, positions, samples, shape_moments
from .nodes import NodeFeature, intervals_of, keep_nan, pool_of, positive, ratio, root, time_centre

BANDS = ((0.0, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 30.0), (30.0, 70.0))
"""Delta, theta, alpha, beta and gamma, Hz."""


def _segment(segment: float | None, period: float, length: int) -> int:
    """Samples in one segment of Welch's method."""
    w = min(256, length) if segment is None else samples(segment, period, "segment")
    if not 2 <= w <= length:
        raise ValueError(
            f"segment is {w} samples of {period:g} ms but the recording has {length}; "
            f"give a segment= of {2 * period:g} to {length * period:g} ms"
        )
    return w


def _transforms(y: Array, w: int) -> Array:
    """The Fourier transforms of the windowed segments, complex `[S, w // 2 + 1, N]`."""
    step = w - w // 2
    starts = np.arange((y.shape[0] - w) // step + 1) * step
    pieces = y[starts[:, None] + np.arange(w)[None]]
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(w) / w)
    return jnp.fft.rfft(pieces * jnp.asarray(window, y.dtype)[None, :, None], axis=1)


def welch(y: ArrayLike, *, period: float, segment: float | None = None) -> tuple[Array, Array]:
    """The power spectral density of each node by Welch's method.

    The recording is cut into segments that overlap by half; each loses its mean and is multiplied by a (periodic) Hann
    window w; then, with |Y|^2 averaged over segments and dt the period in s,

        P(f) = k dt |Y(f)|^2 / sum w^2,   k = 2, but 1 at 0 and at half the sampling rate

    so that sum P df is near the variance: SciPy's default convention (`signal.welch`, density, one-sided).

    Args:
        y: recording, `[T, N]`.
        period: between two samples, ms.
        segment: length of a segment, ms; without, 256 samples, or the whole recording if it is shorter.

    Returns:
        Frequencies, `[F]`, Hz, and densities, `[F, N]`, squared units of the recording per Hz.

    Welch 1967, doi:10.1109/TAU.1967.1161901.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    w = _segment(segment, period, y.shape[0])
    spectra = _transforms(y, w)
    window = np.sin(np.pi * np.arange(w) / w) ** 2
    scale = np.full((w // 2 + 1, 1), 2.0 * period / 1000.0 / np.sum(window**2))
    scale[0] *= 0.5
    if w % 2 == 0:
        scale[-1] *= 0.5
    density = jnp.mean(spectra.real**2 + spectra.imag**2, axis=0) * jnp.asarray(scale, y.dtype)
    return jnp.asarray(_frequencies(w, period), y.dtype), density


def _frequencies(w: int, period: float) -> np.ndarray:
    return np.fft.rfftfreq(w, period / 1000.0)


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
    f = jnp.asarray(_frequencies(s.d.shape[0], s.period), s.p.dtype)
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


def _inside(band: tuple[float, float], f: np.ndarray) -> np.ndarray:
    """Which frequencies lie in [low, high), at least two of them."""
    tolerance = 1e-9 * f[-1]  # an edge on the grid belongs to the band above it, whatever the rounding
    found = np.flatnonzero((f >= band[0] - tolerance) & (f < band[1] - tolerance))
    if found.size < 2:
        raise ValueError(
            f"the band {band[0]:g}-{band[1]:g} Hz holds {found.size} of the frequencies 0, {f[1]:g} ... {f[-1]:g} Hz "
            "of the estimate; at least 2 are needed: give other bands= or a longer segment="
        )
    return found


def _band_labels(bands: tuple[tuple[float, float], ...]) -> tuple[str, ...]:
    return tuple(f"{low:g}-{high:g}Hz" for low, high in bands)


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
        bands: Sequence[Sequence[float]] = BANDS,
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
        f = _frequencies(_segment(self.segment, period, y.shape[0]), period)
        _, p = welch(y, period=period, segment=self.segment)
        p = jnp.where(time_centre(y)[2][None], 0.0, p)
        power = []
        for band in self.bands:
            inside = p[_inside(band, f)]
            ends = 0.5 * (inside[0] + inside[-1]) if self.rule == "trapezoid" else 0.0
            power.append((inside.sum(axis=0) - ends) * f[1])
        found = jnp.stack(power)
        return ratio(found, p.sum(axis=0, keepdims=True) * f[1] + 0.0 * found) if self.relative else found

    def labels(self) -> tuple[str, ...]:
        return _band_labels(self.bands)


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
        frequencies: Sequence[float] = (2.0, 6.0, 10.0, 20.0, 40.0),
        segment: float | None = None,
        relative: bool = False,
        pool: str = "mean",
    ):
        self.frequencies = frequencies_of(frequencies)
        self.segment = None if segment is None else positive(segment, "segment", "ms", "2000.0")
        self.relative, self.pool = relative, pool_of(pool)

    def per_node(self, y: Array, period: float) -> Array:
        f = _frequencies(_segment(self.segment, period, y.shape[0]), period)
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


def frequencies_of(given: Sequence[float]) -> tuple[float, ...]:
    """Frequencies as floats, at least one, all >= 0."""
    found = tuple(float(f) for f in given)
    if not found or not all(0.0 <= f < np.inf for f in found):
        raise ValueError(f"frequencies is {given!r}; give frequencies in Hz, such as frequencies=(0.02, 0.05)")
    return found


def below_nyquist(frequencies: tuple[float, ...], period: float) -> None:
    """An error if samples `period` ms apart do not show the highest of the frequencies."""
    nyquist = 500.0 / period
    if max(frequencies) > nyquist * (1.0 + 1e-9):
        raise ValueError(
            f"frequencies hold {max(frequencies):g} Hz, but samples {period:g} ms apart show nothing above {nyquist:g} "
            f"Hz; give frequencies= up to {nyquist:g}"
        )


def coherence_matrix(y: ArrayLike, *, period: float, segment: float | None = None) -> tuple[Array, Array]:
    """Magnitude-squared coherence of every pair of nodes at every frequency.

    C_ij(f) = |mean_s Y_i conj(Y_j)|^2 / (mean_s |Y_i|^2 mean_s |Y_j|^2), over the segments s of `welch`; 0 with a
    constant node. Biased upwards: near 1 / S for independent nodes and S segments without overlap.

    Args:
        y: recording, `[T, N]`.
        period: between two samples, ms.
        segment: length of a segment, ms; without, 256 samples. At least two segments must fit.

    Returns:
        Frequencies, `[F]`, Hz, and coherences, `[F, N, N]`.
    """
    y = jnp.asarray(y, jnp.result_type(float))
    w = _segment(segment, period, y.shape[0])
    if y.shape[0] < w + (w - w // 2):
        raise ValueError(
            f"one segment of {w} samples fits into {y.shape[0]}, and the coherence of one segment is always 1; "
            f"give a segment= of at most {y.shape[0] * 2 // 3 * period:g} ms"
        )
    _, sd, constant = time_centre(y)
    t = _transforms(y / sd[None], w)
    highest = jax.lax.Precision.HIGHEST
    cross = jnp.einsum("sfi,sfj->fij", t, jnp.conj(t), precision=highest)
    own = jnp.sum(t.real**2 + t.imag**2, axis=0)
    norm = own[:, :, None] * own[:, None, :]
    moving = ~(constant[None, :, None] | constant[None, None, :])
    silent = ~moving | (norm == 0.0)
    c = jnp.where(silent, 0.0, (cross.real**2 + cross.imag**2) / jnp.where(silent, 1.0, norm))
    return jnp.asarray(_frequencies(w, period), y.dtype), c


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

    def __init__(self, bands: Sequence[Sequence[float]] = BANDS, segment: float | None = None):
        self.bands = intervals_of(bands, "bands", "Hz")
        self.segment = None if segment is None else positive(segment, "segment", "ms", "2000.0")

    def __call__(self, y: Array, period: float) -> Array:
        if y.shape[1] < 2:
            raise ValueError(f"coherence needs at least 2 nodes; the recording has {y.shape[1]}")
        f = _frequencies(_segment(self.segment, period, y.shape[0]), period)
        _, c = coherence_matrix(y, period=period, segment=self.segment)
        rows, cols = np.triu_indices(y.shape[1], k=1)
        numbers = []
        for band in self.bands:
            inside = _inside(band, f)
            numbers += shape_moments(c[inside].mean(axis=0)[rows, cols])[:2]
        return jnp.stack(numbers)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return tuple(label + end for label in _band_labels(self.bands) for end in ("", "_std"))


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
        frequencies: Sequence[float] = (2.0, 6.0, 10.0, 20.0, 40.0),
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
