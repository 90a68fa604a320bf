"""Analytic signal: envelopes, synchrony, phase locking."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .base import Feature, NodeFeature, chosen, option, pick
from .numeric import keep_nan, ratio, root, shape_moments, standardised, time_centre, time_quantile


def analytic_signal(y: ArrayLike) -> Array:
    """Analytic signal of each node, complex `[T, N]`.

    Its modulus is the envelope, its angle the phase.

    a = d + i H(d),   d = y - mean_t y,   H the Hilbert transform: the Fourier transform of d with the coefficients of
    negative frequencies set to 0 and those of positive ones doubled. The mean goes first, since the phase of a signal
    that rides on a level hardly moves. Phase means something in a narrow band (`Summary(preprocess=bandpass(...))`);
    the ends see each other.

    Args:
        y: recording, `[T, N]`. A constant node gives 0.

    >>> import numpy as np
    >>> t = np.arange(200.0)
    >>> a = analytic_signal(5.0 + 3.0 * np.cos(2 * np.pi * t / 20)[:, None])
    >>> np.abs(np.asarray(a[[0, 50, 123], 0])).round(4).tolist()
    [3.0, 3.0, 3.0]
    """
    y = jnp.asarray(y, jnp.result_type(float))
    d, _, constant = time_centre(y)
    length = y.shape[0]
    # weights of the frequencies  0 | + + + | (Nyquist) | - - -:  1 | 2 2 2 | 1 | 0 0 0
    weight = np.zeros((length, 1))
    weight[0] = 1.0
    weight[1 : (length + 1) // 2] = 2.0
    if length % 2 == 0:
        weight[length // 2] = 1.0
    analytic = jnp.fft.ifft(jnp.fft.fft(d, axis=0) * jnp.asarray(weight, d.dtype), axis=0)
    return jnp.where(constant[None], 0.0, analytic)


def phasors(y: ArrayLike) -> Array:
    """exp(i phase), `[T, N]`; 0 where the analytic signal is."""
    a = analytic_signal(y)
    modulus = root(a.real**2 + a.imag**2)
    return jax.lax.complex(ratio(a.real, modulus), ratio(a.imag, modulus))


def order_parameter(y: ArrayLike) -> Array:
    """Kuramoto's order parameter R(t) = |mean_i exp(i phase_i(t))|, `[T]`.

    Constant nodes are left out.
    """
    p = phasors(y)
    moving = (time_centre(jnp.asarray(y, p.real.dtype))[2] == 0).sum()
    mean = p.sum(axis=1) / jnp.maximum(moving, 1)
    return root(mean.real**2 + mean.imag**2)


def plv_matrix(y: ArrayLike) -> Array:
    """Phase-locking values |mean_t exp(i (phase_i - phase_j))|, `[N, N]`.

    0 with a constant node.

    Lachaux, Rodriguez, Martinerie & Varela 1999, doi:10.1002/(SICI)1097-0193(1999)8:4<194::AID-HBM4>3.0.CO;2-C.
    """
    p = phasors(y)
    c, s = p.real, p.imag
    highest = jax.lax.Precision.HIGHEST
    # sum_t exp(i (a - b)) = sum (cos a cos b + sin a sin b) + i sum (sin a cos b - cos a sin b): real products
    even = jnp.matmul(c.T, c, precision=highest) + jnp.matmul(s.T, s, precision=highest)
    odd = jnp.matmul(s.T, c, precision=highest) - jnp.matmul(c.T, s, precision=highest)
    return root(even**2 + odd**2) / p.shape[0]


class kuramoto_order(Feature):
    """Synchrony and metastability of the network.

    Of Kuramoto's order parameter R(t) = |mean_i exp(i phase_i(t))|: `mean` over time (synchrony) and `std` over time
    (ddof 0; metastability). The phase is that of the analytic signal of the demeaned recording. Constant nodes are left
    out; 0 if all are constant.

    Near 1 / sqrt(N) for independent nodes, so compare networks of one size. Blind to clusters in antiphase.

    Args:
        only: names of the numbers to keep, in this order; both without.

    Shanahan 2010, doi:10.1063/1.3305451 (metastability).
    """

    only: tuple[str, ...] = option(default=None, converter=chosen("kuramoto_order", "mean", "std"))

    def __call__(self, y: Array, period: float) -> Array:
        mean, std, _, _ = shape_moments(order_parameter(y))
        return pick({"mean": mean, "std": std}, self.only)

    def names(self, n: int | None = None) -> tuple[str, ...]:
        return self.only


ENVELOPE: dict[str, Callable[[Array], Array]] = {
    "mean": lambda a: a.mean(axis=0),
    "std": lambda a: root(jnp.mean((a - a.mean(axis=0, keepdims=True)) ** 2, axis=0)),
    "median": lambda a: time_quantile(a, 0.5),
    "max": lambda a: a.max(axis=0),
    "min": lambda a: a.min(axis=0),
}


class envelope(NodeFeature):
    """Amplitude of each node over time: |analytic signal|.

    `mean`, `std` (ddof 0), `median`, `max`, `min`, of the demeaned recording and in its unit. 0 for a constant node.

    Args:
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    only: tuple[str, ...] = option(default=None, converter=chosen("envelope", *ENVELOPE))

    def per_node(self, y: Array, period: float) -> Array:
        a = analytic_signal(y)
        amplitude = root(a.real**2 + a.imag**2)
        return keep_nan(jnp.stack([ENVELOPE[name](amplitude) for name in self.only]), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


class coactivation(NodeFeature):
    """How each node follows the rest, moment by moment.

    With z = (y - mean_t y) / s, 0 for a constant node, and g_i the mean of z over the other nodes:
    `degree` = mean_t (z_i g_i) and `degree_std`, the standard deviation of z_i g_i over time (ddof 0);
    `phase` = angle of sum_t exp(i (phase of mean_j z_j - phase of z_i)), rad in (-pi, pi], positive where the node
    lags behind the whole.

    `degree` is mean_j r_ij over the other nodes: `global_connectivity`; its time course is in `degree_std` only.

    Args:
        only: names of the numbers to keep, in this order; all of them without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.
    """

    only: tuple[str, ...] = option(default=None, converter=chosen("coactivation", "degree", "degree_std", "phase"))

    def per_node(self, y: Array, period: float) -> Array:
        n = y.shape[1]
        if n < 2:
            raise ValueError(f"coactivation needs at least 2 nodes; the recording has {n}")
        z, constant = standardised(y), time_centre(y)[2]
        product = z * (z.sum(axis=1, keepdims=True) - z) / (n - 1)
        degree = product.mean(axis=0)
        spread = root(jnp.mean((product - degree[None]) ** 2, axis=0))
        turn = (phasors(z.mean(axis=1, keepdims=True)) * jnp.conj(phasors(z))).sum(axis=0)
        silent = constant | (turn == 0.0)
        phase = jnp.where(silent, 0.0, jnp.arctan2(turn.imag, jnp.where(silent, 1.0, turn.real)))
        return keep_nan(pick({"degree": degree, "degree_std": spread, "phase": phase}, self.only), y)

    def labels(self) -> tuple[str, ...]:
        return self.only
