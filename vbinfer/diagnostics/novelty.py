"""How novel a row of features is among simulated ones.

By ranks, which are exact whatever the distribution of the features.
"""

from typing import Literal, NamedTuple

import numpy as np
from scipy.spatial import KDTree
from scipy.special import ndtri

_TAIL = 0.05
_HEAVIEST = 1.0
_NEIGHBOURS = 5
_SMALLEST_EIGENVALUE = 1e-4
_SMALLEST_P = 1e-14


class Tails(NamedTuple):
    """Upper tail of each feature, generalised Pareto, in arrays `[F]`."""

    share: float
    """Part of the reference rows beyond the threshold."""
    threshold: np.ndarray
    scale: np.ndarray
    shape: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, unit: np.ndarray) -> "Tails":
        """Fit by probability-weighted moments (Hosking & Wallis 1987, doi:10.1080/00401706.1987.10488243).

        With b0 the mean excess and b1 that weighted by the share of larger excesses: shape = 2 - b0 / (b0 - 2 b1) and
        scale = 2 b0 b1 / (b0 - 2 b1). The shape is held within 0 (exponential) and 1 (Cauchy): a bounded tail taken as
        exponential keeps distances beyond it finite.
        """
        ordered, n = np.sort(x, axis=0), len(x)
        # at least five rows make a tail
        m = min(max(int(_TAIL * n), 5), n - 1)
        threshold = ordered[n - m - 1]
        excess = ordered[n - m :] - threshold
        larger = 1.0 - (np.arange(1, m + 1) - 0.35) / m
        b0, b1 = excess.mean(axis=0), larger @ excess / m
        gap = b0 - 2.0 * b1
        shape = np.clip(np.where(gap > 0.0, 2.0 - b0 / np.where(gap > 0.0, gap, 1.0), 0.0), 0.0, _HEAVIEST)
        # matching the mean excess keeps the body of the tail right when the shape was clipped
        scale = b0 * (1.0 - shape)  # the mean of a generalised Pareto is scale / (1 - shape)
        heavy = shape > 0.5  # whose mean excess says little: the median excess does
        median = np.median(excess, axis=0)
        scale = np.where(heavy, median * shape / np.expm1(shape * np.log(2.0)).clip(1e-12), scale)
        return cls(m / n, threshold, np.maximum(scale, 1e-3 * unit), shape)

    def log_survival(self, x: np.ndarray) -> np.ndarray:
        """Log survival beyond the threshold `[n, F]`.

        log P(X > x | X > threshold), 0 below it.
        """
        distance = np.maximum(x - self.threshold, 0.0) / self.scale
        # exponential where the shape is 0
        shape = np.maximum(self.shape, 1e-6)
        return -np.where(self.shape < 1e-6, distance, np.log1p(shape * distance) / shape)


class Marginals(NamedTuple):
    """Distribution of each feature among reference rows.

    The empirical one, continued beyond 5 % and 95 % by a generalised Pareto tail: heavy tails do not set the scale, and
    a value beyond every row still has a distance.
    """

    ordered: np.ndarray
    """Reference rows, each column sorted `[n, F]`."""
    upper: Tails
    lower: Tails
    constant: np.ndarray
    """`[F]`: features that never vary in the reference."""

    @classmethod
    def fit(cls, x: np.ndarray) -> "Marginals":
        """From reference rows `[n, F]`, finite."""
        sd, size = x.std(axis=0), np.abs(x).max(axis=0)
        constant = sd <= 1e-6 * np.maximum(size, 1e-30)
        unit = np.where(constant, 1e-6 * np.maximum(size, 1e-6), sd)
        # the unit of a feature is its sd, or its interquartile range where heavy tails make the sd larger
        iqr = np.subtract(*np.percentile(x, [75.0, 25.0], axis=0))
        unit = np.where(iqr > 0.0, np.minimum(unit, iqr), unit)
        return cls(np.sort(x, axis=0), Tails.fit(x, unit), Tails.fit(-x, unit), constant)

    def log_p(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log tail probabilities, lower and upper, `[n, F]` each."""
        n, share = len(self.ordered), self.upper.share
        middle = (0.5 * (_count(self.ordered, x, "left") + _count(self.ordered, x, "right")) + 0.5) / (n + 1)
        middle = np.clip(middle, share, 1.0 - share)
        # beyond the thresholds P(X > x) = share * P(X > x | X > threshold)
        above, under = x > self.upper.threshold, -x > self.lower.threshold
        high = np.where(above, np.log(share) + self.upper.log_survival(x), np.log1p(-middle))
        low = np.where(under, np.log(share) + self.lower.log_survival(-x), np.log(middle))
        return low, high

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Normal scores `[n, F]`.

        0 for a feature that never varies.
        """
        low, high = self.log_p(x)
        tail = np.maximum(np.exp(np.minimum(low, high)), _SMALLEST_P)
        return np.where(self.constant, 0.0, np.where(low < high, ndtri(tail), -ndtri(tail)))

    def surprise(self, x: np.ndarray) -> np.ndarray:
        """-log of the two-sided tail probability `[n, F]`."""
        return -np.minimum(np.minimum(*self.log_p(x)) + np.log(2.0), 0.0)


class ReferenceSet(NamedTuple):
    """Rows that others are compared with.

    One feature at a time, and all together.
    """

    marginals: Marginals
    precision: np.ndarray
    """Inverse of the regularised covariance of the normal scores `[F, F]`."""
    whiten: np.ndarray
    """`[F, F]`: scores to coordinates of unit covariance."""
    tree: KDTree

    @classmethod
    def fit(cls, x: np.ndarray) -> "ReferenceSet":
        """From reference rows `[n, F]`, finite."""
        marginals = Marginals.fit(x)
        scores = marginals.scores(x)
        values, vectors = np.linalg.eigh(_shrunk(scores))
        # features that are functions of others have no variance of their own: bound what they may claim
        values = np.maximum(values, _SMALLEST_EIGENVALUE)
        whiten = vectors / np.sqrt(values)
        return cls(marginals, (vectors / values) @ vectors.T, whiten, KDTree(scores @ whiten))

    def novelty(self, x: np.ndarray) -> np.ndarray:
        """Three scores of oddness of each row `[n, 3]`.

        The largest surprise of a single feature; the Mahalanobis distance of the normal scores; the mean distance to
        the five nearest reference rows in whitened scores.
        """
        scores = self.marginals.scores(x)
        mahalanobis = np.sqrt(np.einsum("ni,ij,nj->n", scores, self.precision, scores))
        near = self.tree.query(scores @ self.whiten, k=_NEIGHBOURS)[0].mean(axis=1)
        return np.stack([self.marginals.surprise(x).max(axis=1), mahalanobis, near], axis=1)

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Distance from what other features predict `[n, F]`.

        In conditional sds.
        """
        return (self.marginals.scores(x) @ self.precision) / np.sqrt(np.diagonal(self.precision))


def rank_p(scores: np.ndarray) -> np.ndarray:
    """Share of rows that score as high `[n, K]`.

    Where the rows are exchangeable, P(p <= a) <= a for each of them, whatever their distribution.

    >>> rank_p(np.array([[3.0], [1.0], [2.0], [2.0]])).ravel().tolist()
    [0.25, 1.0, 0.75, 0.75]
    """
    return 1.0 - _count(np.sort(scores, axis=0), scores, "left") / len(scores)


def min_p(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One p-value per row from several scores.

    Returns `(p [n], p of each score [n, K])`, for exchangeable rows.
    The smallest of a row's p-values is ranked among those of the other rows, so that looking at K scores instead of one
    costs nothing in false alarms: P(p <= a) <= a again.
    """
    each = rank_p(scores)
    # looking at the smallest of K p-values is paid for by ranking it among those of the other rows
    return rank_p(-each.min(axis=1, keepdims=True))[:, 0], each


def two_sided(rows: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile and two-sided p of each number `[m, F]`.

    Ties count half.
    """
    n, ordered = len(valid), np.sort(valid, axis=0)
    below, upto = (_count(ordered, rows, side) for side in ("left", "right"))
    p = 2.0 * np.minimum(upto + 1, n - below + 1) / (n + 1)
    return 100.0 * 0.5 * (below + upto) / n, np.minimum(p, 1.0)


def _count(ordered: np.ndarray, x: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """Rows of sorted columns below each number `[m, F]`.

    Up to each number with `side="right"`.
    """
    return np.stack([np.searchsorted(c, v, side) for c, v in zip(ordered.T, x.T, strict=True)], axis=1)


def _shrunk(scores: np.ndarray) -> np.ndarray:
    """Covariance about 0, shrunk towards a multiple of the identity.

    Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4
    """
    n, f = scores.shape
    cov = scores.T @ scores / n
    target = np.trace(cov) / f * np.eye(f)
    distance = np.sum((cov - target) ** 2)
    spread = (np.sum(np.sum(scores**2, axis=1) ** 2) / n - np.sum(cov**2)) / n
    # how far the sample covariance must be trusted: its own error against its distance from the target
    share = np.clip(spread / distance, 0.0, 1.0) if distance > 0.0 else 0.0
    return (1.0 - share) * cov + share * target
