"""Likelihood of cross-spectra."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import Named
from vbinfer.likelihoods.base import known
from vbinfer.likelihoods.whittle import AbstractSpectral, fourier


@dataclasses.dataclass(frozen=True, eq=False)
class CrossSpectral(AbstractSpectral):
    """Likelihood of the cross-spectra of a stationary recording.

    The mean I of the periodogram matrices y y^H of K pieces (`segments=K`) has, in the limit of long pieces, K I ~
    complex Wishart(K, S), independently at each frequency (Brillinger 1981, doi:10.1137/1.9780898719246):

    log p(I | theta) = sum_f [c + (K - M) log |I| - K log |S| - K tr(S^-1 I)]
    c = K M log K - log(pi^(M(M-1)/2) prod_j G(K - j)),   j = 0 ... M - 1

    M channels. With fewer pieces than channels I is singular, and of the sum only the last two terms are there, which
    is all that depends on theta. One channel is `Whittle`. This is the likelihood of spectral DCM with the degrees of
    freedom that the recording has, in place of a prior on precisions. Leakage from steep spectra biases short pieces.

    Args:
        spectrum: `(theta, frequencies) -> S`, one-sided cross-spectral density per Hz, Hermitian `[freq, M, M]`, S_ij
            of y_i conj(y_j), at frequencies in Hz `[freq]`: a formula, or that of `vb.linearise`.
        period: time between samples, ms.
        num_samples: length T of the recording.
        low, high: band in Hz, both ends included; None is everything above 0 and below Nyquist.
        segments: number K of pieces whose periodograms are averaged.

    Raises:
        ValueError: a band without frequencies, a spectrum of another shape or that is not Hermitian, a recording of
            another shape or with gaps.

    Example:
        >>> import jax, jax.numpy as jnp, vbinfer as vb
        >>> shared = lambda theta, f: jnp.tile(jnp.eye(2) + theta["shared"], (len(f), 1, 1))
        >>> likelihood = vb.likelihoods.CrossSpectral(shared, period=2.0, num_samples=4_000, segments=10, high=100.0)
        >>> y = likelihood.sample({"shared": 0.5}, jax.random.key(0))
        >>> y.shape, max((0.1, 0.5, 0.9), key=lambda s: float(likelihood({"shared": s}, y)))
        ((4000, 2), 0.5)
    """

    def _expected(self, theta: Named) -> Array:
        f = self.frequencies
        S = jnp.asarray(self.spectrum(theta, f), jnp.result_type(f, jnp.complex64))
        if S.ndim != 3 or len(S) != len(f) or S.shape[1] != S.shape[2]:
            raise ValueError(
                f"spectrum returned the shape {list(S.shape)} for {len(f)} frequencies; expected [{len(f)}, M, M], "
                "S[:, None, None] for one channel"
            )
        if (off := known(S)).size and np.abs(off - off.conj().swapaxes(1, 2)).max() > 1e-4 * np.abs(off).max():
            raise ValueError(
                "the spectrum is not Hermitian; S[f, i, j] is that of y_i conj(y_j), the conjugate of S[f, j, i]"
            )
        return S

    def pointwise(self, theta: Named, y: Any) -> Array:
        """Log-density at each frequency, `[freq]`."""
        S = self._expected(theta)
        pieces = fourier(self._recording(y, S), self.period, self.segments)[1][:, self._band]
        K, M = self.segments, S.shape[-1]
        root = jnp.linalg.cholesky(S)
        white = jax.scipy.linalg.solve_triangular(root, jnp.moveaxis(pieces, 0, -1), lower=True)  # [freq, M, K]
        log_det = 2.0 * jnp.log(jnp.diagonal(root, axis1=1, axis2=2).real).sum(axis=1)
        out = -K * log_det - (jnp.abs(white) ** 2).sum(axis=(1, 2))
        if K < M:
            return out
        # log |I| from the whitened pieces, which are near 1 in size: |I| = |S| |white white^H| / K^M
        inner = jnp.linalg.slogdet(white @ white.conj().swapaxes(1, 2) / K)[1]
        constant = K * M * math.log(K) - 0.5 * M * (M - 1) * math.log(math.pi)
        constant -= sum(math.lgamma(K - j) for j in range(M))
        return out + (K - M) * (inner + log_det) + constant

    def sample(self, theta: Named, key: Array) -> Array:
        """A Gaussian recording `[T, M]` with these cross-spectra.

        No power lies outside the band.
        """
        S = self._expected(theta)

        def root(f: Array) -> Any:
            # between values, not logarithms: a mean of positive definite matrices is one
            line = jax.vmap(lambda values: jnp.interp(f, self.frequencies, values), in_axes=1, out_axes=1)
            flat = S.reshape(len(S), -1)
            between = (line(flat.real) + 1j * line(flat.imag)).reshape(-1, *S.shape[1:])
            return lambda z: (jnp.linalg.cholesky(between) @ z[..., None])[..., 0]

        return self._drawn(key, root, S.shape[1:2])
