"""Simultaneous band of an ECDF, and its p-value.

Both are exact, by a recursion over counts.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats as st

from vbinfer import _check
from vbinfer.diagnostics.figure import MOST_PANELS, Axis, Band, Figure, Line, Mark, Panel, Points, Rule, share_axis
from vbinfer.diagnostics.result import percent
from vbinfer.diagnostics.thresholds import BAND

_MOST_POINTS = 200
_ROUNDS = 60
RANKS = (
    f"their ECDF minus the diagonal. Grey: where {percent(BAND)} of right posteriors stay everywhere. A slope up in "
    "the middle is too wide, down too narrow; an arch is a bias."
)
"""How to read a panel of ranks."""


class EcdfBand(NamedTuple):
    """Limits of a whole ECDF, each `[point]`."""

    points: np.ndarray
    """Where the ECDF is evaluated, in (0, 1)."""
    lower: np.ndarray
    upper: np.ndarray


def ecdf_band(n: int, prob: float = BAND, *, points: int | None = None) -> EcdfBand:
    """Simultaneous band of the ECDF of n uniform numbers.

    Independent ones, such as the ranks of a right posterior.
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
        >>> band = vb.diagnostics.ecdf_band(300, points=3)
        >>> [round(float(v), 3) for v in band.points], [round(float(v), 3) for v in band.upper]
        ([0.25, 0.5, 0.75], [0.307, 0.567, 0.807])
    """
    n, prob = _check.count(n, "n", "300"), _check.fraction(prob, "prob", "0.95")
    points = None if points is None else _check.count(points, "points", "100")
    z = _grid(n, points)
    low, high = 0.0, 1.0  # bisection: coverage falls as gamma grows
    # the coverage is a step function of gamma (counts are whole): bisection ends below a step
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _inside(n, *_limits(n, len(z), middle)) >= prob else (low, middle)
    lower, upper = _limits(n, len(z), low)
    return EcdfBand(z, lower / n, upper / n)


def shape_test(u: np.ndarray) -> tuple[float, float]:
    """Largest distance of an ECDF from the diagonal, and p.

    Of `u [n]` in (0, 1); exact for independent uniform numbers.

    p = P(the ECDF of n uniform numbers leaves the narrowest band that this one touches).
    """
    n = len(u)
    z = _grid(n, None)
    counts = np.searchsorted(np.sort(u), z, side="right")
    # the narrowest band that this ECDF touches is the one whose gamma is its own smallest pointwise p
    gamma = float(_pointwise(n, counts).min())
    p = 1.0 - _inside(n, *_limits(n, len(z), gamma))
    # Below 1e-12 the difference is rounding; the smallest pointwise p is a lower bound, its union over points an upper
    exact = p if p > 1e-12 else min(1e-12, gamma * len(z))
    return float(np.abs(counts / n - z).max()), float(min(max(exact, 0.0), 1.0))


def ecdf(u: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Share of `u [n]` up to each of `points [k]`."""
    return np.searchsorted(np.sort(u), points, side="right") / len(u)


def rank_panel(u: np.ndarray, name: str) -> Panel:
    """Panel of an ECDF of ranks minus the diagonal.

    With its band.
    """
    band = ecdf_band(len(u))
    low, high = band.lower - band.points, band.upper - band.points
    difference = ecdf(u, band.points) - band.points
    outside = (difference < low - 1e-12) | (difference > high + 1e-12)
    marks: list[Mark] = [Band(band.points, low, high), Rule(0.0, "y"), Line(band.points, difference)]
    if outside.any():
        marks.append(Points(band.points[outside], difference[outside], "observed", marker="dot"))
    words = f"{'leaves' if outside.any() else 'stays inside'} the {percent(BAND)} band"
    alt = f"Ranks of {name}: the ECDF minus the diagonal {words}; largest difference {np.abs(difference).max():.2f}"
    return Panel(marks, share_axis(f"rank of the true {name}"), Axis("ECDF difference"), alt)


def rank_figure(u: np.ndarray, names: Sequence[str], what: str) -> Figure:
    """Panels of ranks of the first parameters.

    `u` is `[n, D]`.
    """
    panels = [rank_panel(column, name) for column, name in zip(u.T, names[:MOST_PANELS], strict=False)]
    return Figure(panels, f"{what}, n = {len(u)}: {RANKS}")


def _grid(n: int, points: int | None) -> np.ndarray:
    # k equally spaced points inside (0, 1): the ends are 0 and 1 for every ECDF
    k = min(n, _MOST_POINTS) if points is None else points
    return np.arange(1, k + 1) / (k + 1)


@functools.lru_cache(maxsize=8)
def _pointwise_table(n: int, k: int) -> np.ndarray:
    """Two-sided pointwise p of each count `[K, n + 1]`."""
    z, c = _grid(n, k)[:, None], np.arange(n + 1)
    return 2.0 * np.minimum(st.binom.cdf(c, n, z), st.binom.sf(c - 1, n, z))


def _pointwise(n: int, counts: np.ndarray) -> np.ndarray:
    return _pointwise_table(n, len(counts))[np.arange(len(counts)), counts]


def _limits(n: int, k: int, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest count inside the band, `[K]` each.

    Those with pointwise p > gamma.

    Empty (lower > upper) where there is none.
    """
    inside = _pointwise_table(n, k) > gamma
    some = inside.any(axis=1)
    return np.where(some, inside.argmax(axis=1), 1), np.where(some, n - inside[:, ::-1].argmax(axis=1), 0)


def _inside(n: int, lower: np.ndarray, upper: np.ndarray) -> float:
    """Probability that n uniform numbers stay inside at K points.

    The points are equally spaced, so the counts between them are those of a Poisson process, conditioned on n in all:
    its distribution is carried from point to point, and cut at the limits.
    """
    if (lower > upper).any():
        return 0.0
    # counts of n uniform numbers in K + 1 equal cells are K + 1 Poisson counts given that they sum to n:
    #   carry P(count so far, inside so far) from point to point, cut it at the limits, and condition at the end
    rate = n / (len(lower) + 1)
    kernel = _poisson(n, rate)
    mass, start = np.ones(1), 0  # mass[j] = P(count = start + j, inside so far), of the Poisson process
    for low, high in zip(lower.tolist(), upper.tolist(), strict=True):
        moved = np.convolve(mass, kernel[: high - start + 1])
        mass, start = moved[low - start : high - start + 1], low
    # the last cell has no limit: it takes what is missing to n
    last = st.poisson.pmf(n - start - np.arange(len(mass)), rate)
    return float(min(1.0, mass @ last / st.poisson.pmf(n, n)))


@functools.lru_cache(maxsize=8)
def _poisson(n: int, rate: float) -> np.ndarray:
    pmf = st.poisson.pmf(np.arange(n + 1), rate)
    return pmf[: max(1, int(np.flatnonzero(pmf > 1e-300).max()) + 1)]
