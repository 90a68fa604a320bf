"""Likelihood of a power spectrum."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import Named
from vbinfer._param import is_traced
from vbinfer.likelihoods.base import AbstractLikelihood, Predict, callable_or_raise, known, predicted

MS_PER_S = 1e3
Spectrum = Callable[[Named, Array], Any]
"""(theta, frequencies in Hz `[freq]`) to one-sided power density, `[freq]` or `[freq, node]`."""


def periodogram(y: Any, period: float, segments: int = 1) -> tuple[Array, Array]:
    """Periodogram of a recording, or mean over `segments` pieces (Bartlett).

    I(f_k) = 2 dt / M |sum_t (y_t - mean) exp(-2 pi i k t / M)|^2,   f_k = k / (M dt),   0 < k < M/2

    M samples in a piece, dt = period in seconds. One-sided: the mean of I times the bandwidth is the variance. No
    taper, so that ordinates are independent; remove trends first.

    Args:
        y: `[T]` or `[T, N]`, without gaps.
        period: time between samples, ms.
        segments: number of pieces; samples left over at the end are dropped.

    Returns:
        Frequencies, Hz, `[freq]`; power density, squared units of y per Hz, `[freq]` or `[freq, N]`.

    >>> y = jnp.sin(2.0 * jnp.pi * 10.0 * jnp.arange(1000) / 1000.0)      # 10 Hz, 1 s
    >>> f, power = periodogram(y, period=1.0)
    >>> float(f[power.argmax()]), round(float(power.max()), 3)            # variance 1/2, all within 1 Hz
    (10.0, 0.5)
    """
    f, pieces = fourier(y, period, segments)
    return f, (jnp.abs(pieces) ** 2).mean(axis=0)


def fourier(y: Any, period: float, segments: int) -> tuple[Array, Array]:
    """Frequencies, and coefficients of each piece, `[piece, freq, ...]`.

    Scaled so that the mean of their squares is a one-sided power density.
    """
    y, period = jnp.asarray(y, jnp.result_type(float)), _check.positive(period, "period", 4.0, "ms")
    m = _length(len(y), segments)
    pieces = (y - y.mean(axis=0, keepdims=True))[: m * segments].reshape(segments, m, *y.shape[1:])
    f = _grid(m, period)
    return jnp.asarray(f, y.dtype), jnp.fft.rfft(pieces, axis=1)[:, 1 : 1 + len(f)] * (
        2.0 * period / MS_PER_S / m
    ) ** 0.5


def _length(n: int, segments: int) -> int:
    """Samples in a piece of n, at least 3."""
    return n // _check.count(segments, "segments", most=n // 3)


def _grid(m: int, period: float) -> np.ndarray:
    """Frequencies of a piece of m samples, Hz."""
    # neither 0 nor Nyquist: there the ordinate is real, a chi-square of one degree of freedom, not an exponential
    return np.arange(1, (m + 1) // 2) * MS_PER_S / (m * period)


@dataclasses.dataclass(frozen=True, eq=False)
class AbstractSpectral(AbstractLikelihood):
    """Likelihood of the periodogram of a recording, in a band."""

    spectrum: Spectrum
    period: float
    num_samples: int
    low: float | None = None
    high: float | None = None
    segments: int = 1

    def __post_init__(self) -> None:
        callable_or_raise(self.spectrum, "spectrum", "lambda theta, frequencies: ...")
        _check.positive(self.period, "period", 4.0, "ms")
        _check.count(self.num_samples, "num_samples", "len(y)", least=3)
        for name in ("low", "high"):
            if (edge := getattr(self, name)) is not None:
                _check.number(edge, name, 8.0, "a number of Hz of at least 0", least=0.0)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(
                f"low={self.low:g} Hz lies above high={self.high:g} Hz; write the lower end of the band first"
            )
        if not self._band.any():
            highest = 0.5 * MS_PER_S / self.period
            raise ValueError(
                f"no frequency of {self.num_samples} samples of {self.period:g} ms in {self.segments} segment(s) lies "
                f"in [{self.low}, {self.high}] Hz; they are {self._all[0]:.4g} Hz apart, "
                f"below {highest:g} Hz"
            )

    @property
    def _all(self) -> np.ndarray:
        return _grid(_length(self.num_samples, self.segments), self.period)

    @property
    def _band(self) -> np.ndarray:
        """Which of all frequencies lie in the band."""
        return _inside(self._all, -np.inf if self.low is None else self.low, np.inf if self.high is None else self.high)

    @property
    def frequencies(self) -> Array:
        """The frequencies that are compared, Hz, `[freq]`."""
        return jnp.asarray(self._all[self._band], jnp.result_type(float))

    def _recording(self, y: Any, S: Array) -> Array:
        """The recording, with a channel for each of the spectrum."""
        y = jnp.asarray(y, jnp.result_type(float))
        if y.shape != (self.num_samples, *S.shape[1:2]):
            wanted = [self.num_samples, *S.shape[1:2]]
            raise ValueError(f"y is {list(y.shape)}; expected {wanted}: num_samples, and a channel per spectrum")
        if np.isnan(known(y)).any():
            raise ValueError("y has gaps (NaN), and a periodogram does not; cut it, fill them, or use Autoregressive")
        return y

    def _drawn(self, key: Array, root: Callable[[Array], Callable[[Array], Array]], shape: tuple[int, ...]) -> Array:
        """A Gaussian recording, nothing outside the band.

        `root(frequencies)` gives what makes coefficients of power density S of those of density 1.
        """
        T, dt = self.num_samples, self.period / MS_PER_S
        f = np.fft.rfftfreq(T, dt)
        inside = np.flatnonzero(_inside(f, *self._all[self._band][[0, -1]]))
        a, b = jax.random.normal(key, (2, len(inside), *shape))
        coloured = root(jnp.asarray(f[inside], a.dtype))(a + 1j * b)
        # E |Y|^2 = S T / (2 dt), half of it in either part; irfft makes the series real
        Y = jnp.zeros((len(f), *shape), coloured.dtype).at[inside].set((T / (4.0 * dt)) ** 0.5 * coloured)
        return jnp.fft.irfft(Y, n=T, axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Whittle(AbstractSpectral):
    """Spectral likelihood of a stationary recording (Whittle 1953).

    Ordinates of the periodogram are taken as independent exponential variables of mean S; the mean of K of them
    (`segments=K`) as a gamma variable of shape K:

    log p(I | theta) = sum_f,node [K log K - log G(K) + (K - 1) log I - K log S - K I / S]

    Exact in the limit of long recordings. What it reads is spectra, not cross-spectra: nodes count as independent, so
    that the posterior is too narrow where they share their noise. Leakage from steep spectra biases short recordings.

    doi:10.1007/BF02590998

    Args:
        spectrum: `(theta, frequencies) -> S`, one-sided power density in squared units of the recording per Hz,
            `[freq]` for one channel or `[freq, node]`, at frequencies in Hz `[freq]`: a formula, or a
            `SimulatedSpectrum`.
        period: time between samples, ms.
        num_samples: length T of the recording.
        low, high: band in Hz, both ends included; None is everything above 0 and below Nyquist.
        segments: number K of pieces whose periodograms are averaged.

    >>> import vbinfer as vb
    >>> white = lambda theta, f: theta["level"] * jnp.ones_like(f)
    >>> whittle = vb.likelihoods.Whittle(white, period=2.0, num_samples=500, low=8.0, high=12.0)
    >>> whittle.frequencies.tolist()
    [8.0, 9.0, 10.0, 11.0, 12.0]
    """

    def _expected(self, theta: Named) -> Array:
        f = self.frequencies
        S = jnp.asarray(self.spectrum(theta, f), f.dtype)
        if S.ndim not in (1, 2) or len(S) != len(f):
            raise ValueError(
                f"spectrum returned the shape {list(S.shape)} for {len(f)} frequencies; expected [{len(f)}] or "
                f"[{len(f)}, node]"
            )
        return S

    def pointwise(self, theta: Named, y: Any) -> Array:
        """Log-density of each ordinate, in the shape of the spectrum."""
        S = self._expected(theta)
        power = periodogram(self._recording(y, S), self.period, self.segments)[1][self._band]
        K = float(self.segments)
        shape = K * np.log(K) - jax.scipy.special.gammaln(K)
        of_data = (K - 1.0) * jnp.log(power) if self.segments > 1 else jnp.zeros_like(power)
        return shape + of_data - K * jnp.log(S) - K * power / S

    def sample(self, theta: Named, key: Array) -> Array:
        """A Gaussian recording `[T]` or `[T, N]` with this spectrum.

        No power lies outside the band.
        """
        S = self._expected(theta)
        size = lambda f: lambda z: jnp.sqrt(_interpolated(f, self.frequencies, S)) * z  # noqa: E731
        return self._drawn(key, size, S.shape[1:])


def _inside(f: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which frequencies lie in [low, high]."""
    # an end that is a frequency of the grid belongs to the band, whatever the rounding
    return (f >= low * (1.0 - 1e-9)) & (f <= high * (1.0 + 1e-9))


def _interpolated(f: Array, at: Array, S: Array) -> Array:
    """Spectra `[freq, ...]` at the frequencies f, log-linear between `at`."""
    # between logarithms: S stays positive, and steep slopes are not overestimated as between values
    line = lambda values: jnp.exp(jnp.interp(f, at, jnp.log(values)))  # noqa: E731
    return line(S) if S.ndim == 1 else jax.vmap(line, in_axes=1, out_axes=1)(S)


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatedSpectrum:
    """Spectrum of a simulated series, for `Whittle`.

    Periodograms of pieces are averaged, log-linear in between. Its own error is a gamma variable of shape `segments`:
    simulate for much longer than was recorded. With a fixed key in `predict` the posterior is conditional on that
    noise.

    Args:
        predict: theta to a series `[T]` or `[T, N]`.
        period: time between its samples, ms.
        segments: number of pieces; pieces as long as the recording resolve the same frequencies.
    """

    predict: Predict
    period: float
    segments: int = 16

    def __post_init__(self) -> None:
        _check.positive(self.period, "period", 4.0, "ms")
        _check.count(self.segments, "segments", 16)

    def __call__(self, theta: Named, frequencies: Array) -> Array:
        at, S = periodogram(predicted(self.predict, theta), self.period, self.segments)
        if not is_traced(frequencies, at):
            lowest, highest = float(frequencies[0]), float(frequencies[-1])
            if lowest < float(at[0]) * (1.0 - 1e-6) or highest > float(at[-1]) * (1.0 + 1e-6):
                raise ValueError(
                    f"{lowest:g} to {highest:g} Hz were asked for; the simulated pieces have {float(at[0]):.4g} to "
                    f"{float(at[-1]):.4g} Hz: simulate longer, sample more often, or narrow the band"
                )
        return _interpolated(frequencies, at, S)
