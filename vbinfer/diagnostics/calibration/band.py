"""The simultaneous band of an ECDF, and the p-value that goes with it: both exact, by a recursion over counts."""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.stats as st

_MOST_POINTS = 200
_ROUNDS = 60


class EcdfBand(NamedTuple):
    """Limits between which the whole ECDF of n uniform numbers stays with a given probability, each `[point]`."""

    points: np.ndarray
    """Where the ECDF is evaluated, in (0, 1)."""
    lower: np.ndarray
    upper: np.ndarray


def ecdf_band(n: int, prob: float = 0.95, *, points: int | None = None) -> EcdfBand:
    """Simultaneous band of the ECDF of n independent uniform numbers, such as the ranks of a right posterior.

    At the points z_k = k / K the count n F(z_k) is Binomial(n, z_k). The band holds the counts c with

        2 min(P(Bin <= c), P(Bin >= c)) > gamma

    and gamma is the largest for which the whole curve stays inside with probability >= `prob`. That probability is
    computed, not simulated: counts are a Poisson process conditioned on its total, so it is a K-fold convolution that
    is cut at the limits. Counts are whole numbers, so the coverage is a little above `prob` (by < 0.01 for n >= 100).

    Blind to what happens between the points, and to dependence between the numbers (autocorrelated draws).

    Args:
        n: how many numbers.
        prob: probability that a uniform sample stays inside everywhere.
        points: K + 1 intervals for K points; by default as many as there are numbers, at most 200.

    Returns:
        `EcdfBand(points, lower, upper)`: the ECDF at `points` is inside if `lower <= F <= upper` everywhere.

    Raises:
        ValueError: n < 1, or a probability that is not between 0 and 1.

    Säilynoja, Bürkner & Vehtari 2022, doi:10.1007/s11222-022-10090-6 (the band); Moscovich & Nadler 2017,
    doi:10.1016/j.spl.2016.11.027 (the convolution).

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> band = vb.ecdf_band(300, points=3)
        >>> [round(float(v), 3) for v in band.points], [round(float(v), 3) for v in band.upper]
        ([0.25, 0.5, 0.75], [0.307, 0.567, 0.807])
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n={n!r} was given; expected how many numbers the ECDF is of, such as n=300")
    if not 0.0 < prob < 1.0:
        raise ValueError(f"prob={prob!r} was given; expected a probability between 0 and 1, such as prob=0.95")
    if points is not None and points < 1:
        raise ValueError(f"points={points!r} was given; expected at least 1 point at which to look at the ECDF")
    z = _grid(int(n), points)
    low, high = 0.0, 1.0  # coverage falls as gamma grows
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _inside(int(n), *_limits(int(n), z, middle)) >= prob else (low, middle)
    lower, upper = _limits(int(n), z, low)
    return EcdfBand(z, lower / n, upper / n)


def shape_test(u: np.ndarray) -> tuple[float, float]:
    """`(largest |F - z|, p)` for the ECDF of `u [n]` in (0, 1): p is exact for independent uniform numbers.

    p = P(the ECDF of n uniform numbers leaves the narrowest band that this one touches).
    """
    n = len(u)
    z = _grid(n, None)
    counts = np.searchsorted(np.sort(u), z, side="right")
    gamma = float(_pointwise(n, z, counts).min())
    p = 1.0 - _inside(n, *_limits(n, z, gamma))
    # Below 1e-12 the difference is rounding; the smallest pointwise p is a lower bound, its union over points an upper
    exact = p if p > 1e-12 else min(1e-12, gamma * len(z))
    return float(np.abs(counts / n - z).max()), float(min(max(exact, 0.0), 1.0))


def ecdf(u: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Share of `u [n]` at or below each of `points [k]`."""
    return np.searchsorted(np.sort(u), points, side="right") / len(u)


def _grid(n: int, points: int | None) -> np.ndarray:
    k = min(n, _MOST_POINTS) if points is None else int(points)
    return np.arange(1, k + 1) / (k + 1)


@functools.lru_cache(maxsize=8)
def _pointwise_table(n: int, k: int) -> np.ndarray:
    """Two-sided pointwise p of each count `[K, n + 1]`."""
    z, c = _grid(n, k)[:, None], np.arange(n + 1)
    return 2.0 * np.minimum(st.binom.cdf(c, n, z), st.binom.sf(c - 1, n, z))


def _pointwise(n: int, z: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _pointwise_table(n, len(z))[np.arange(len(z)), counts]


def _limits(n: int, z: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest count with pointwise p > gamma, `[K]` each; empty (lower > upper) where there is none."""
    inside = _pointwise_table(n, len(z)) > gamma
    some = inside.any(axis=1)
    lower = np.where(some, inside.argmax(axis=1), 1)
    upper = np.where(some, n - inside[:, ::-1].argmax(axis=1), 0)
    return lower, upper


def _inside(n: int, lower: np.ndarray, upper: np.ndarray) -> float:
    """P(lower <= counts <= upper at all K equally spaced points) for n uniform numbers."""
    if (lower > upper).any():
        return 0.0
    rate = n / (len(lower) + 1)
    kernel = _poisson(n, rate)
    mass, start = np.ones(1), 0  # mass[j] = P(count = start + j, inside so far), of the Poisson process
    for low, high in zip(lower, upper, strict=True):
        moved = np.convolve(mass, kernel[: high - start + 1])
        mass, start = moved[low - start : high - start + 1], int(low)
    counts = start + np.arange(len(mass))
    last = st.poisson.pmf(n - counts, rate)
    return float(min(1.0, mass @ last / math.exp(st.poisson.logpmf(n, n))))


@functools.lru_cache(maxsize=8)
def _poisson(n: int, rate: float) -> np.ndarray:
    pmf = st.poisson.pmf(np.arange(n + 1), rate)
    return pmf[: max(1, int(np.flatnonzero(pmf > 1e-300).max()) + 1)]
