"""Welch's estimate of power spectra and coherences."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vbinfer import _check

from .base import samples
from .numeric import time_centre


def segment_samples(segment: float | None, period: float, length: int) -> int:
    """Samples in one segment of Welch's method."""
    period = _check.positive(period, "period", 720.0, "ms")
    w = min(256, length) if segment is None else samples(segment, period, "segment")
    if not 2 <= w <= length:
        raise ValueError(
            f"segment is {w} samples of {period:g} ms but the recording has {length}; "
            f"give a segment= of {2 * period:g} to {length * period:g} ms"
        )
    return w


def segment_transforms(y: Array, w: int) -> Array:
    """Fourier transforms of windowed segments, `[S, F, N]`."""
    # segments overlap by half:  |-- w --|
    #                                |-- w --|      samples after the last whole segment are left out
    step = w - w // 2
    starts = np.arange((y.shape[0] - w) // step + 1) * step
    pieces = y[starts[:, None] + np.arange(w)[None]]  # [S, w, N]
    pieces = pieces - pieces.mean(axis=1, keepdims=True)
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(w) / w)
    return jnp.fft.rfft(pieces * jnp.asarray(window, y.dtype)[None, :, None], axis=1)


def welch(y: ArrayLike, *, period: float, segment: float | None = None) -> tuple[Array, Array]:
    """Power spectral density of each node by Welch's method.

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
    w = segment_samples(segment, period, y.shape[0])
    spectra = segment_transforms(y, w)
    window = np.sin(np.pi * np.arange(w) / w) ** 2
    scale = np.full((w // 2 + 1, 1), 2.0 * period / 1000.0 / np.sum(window**2))
    scale[0] *= 0.5
    if w % 2 == 0:
        scale[-1] *= 0.5
    density = jnp.mean(spectra.real**2 + spectra.imag**2, axis=0) * jnp.asarray(scale, y.dtype)
    return jnp.asarray(welch_frequencies(w, period), y.dtype), density


def welch_frequencies(w: int, period: float) -> np.ndarray:
    """Frequencies of segments of `w` samples, Hz."""
    return np.fft.rfftfreq(w, period / 1000.0)


def coherence_matrix(y: ArrayLike, *, period: float, segment: float | None = None) -> tuple[Array, Array]:
    """Magnitude-squared coherence of every pair at every frequency.

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
    w = segment_samples(segment, period, y.shape[0])
    if y.shape[0] < w + (w - w // 2):
        raise ValueError(
            f"one segment of {w} samples fits into {y.shape[0]}, and the coherence of one segment is always 1; "
            f"give a segment= of at most {y.shape[0] * 2 // 3 * period:g} ms"
        )
    _, sd, constant = time_centre(y)
    t = segment_transforms(y / sd[None], w)
    cross = jnp.einsum("sfi,sfj->fij", t, jnp.conj(t), precision=jax.lax.Precision.HIGHEST)
    own = jnp.sum(t.real**2 + t.imag**2, axis=0)
    norm = own[:, :, None] * own[:, None, :]
    moving = ~(constant[None, :, None] | constant[None, None, :])
    silent = ~moving | (norm == 0.0)
    c = jnp.where(silent, 0.0, (cross.real**2 + cross.imag**2) / jnp.where(silent, 1.0, norm))
    return jnp.asarray(welch_frequencies(w, period), y.dtype), c


def inside_band(band: tuple[float, ...], f: np.ndarray) -> np.ndarray:
    """Places of the frequencies in [low, high), at least two."""
    tolerance = 1e-9 * f[-1]  # an edge on the grid belongs to the band above it, whatever the rounding
    found = np.flatnonzero((f >= band[0] - tolerance) & (f < band[1] - tolerance))
    if found.size < 2:
        raise ValueError(
            f"the band {band[0]:g}-{band[1]:g} Hz holds {found.size} of the frequencies 0, {f[1]:g} ... {f[-1]:g} Hz "
            "of the estimate; at least 2 are needed: give other bands= or a longer segment="
        )
    return found
