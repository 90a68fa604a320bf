"""How typical a row of features is among simulated rows, by rank: exact whatever the distribution of the features."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree
from scipy.special import ndtri

_TAIL = 0.05
_HEAVIEST = 1.0
_NEIGHBOURS = 5
_SMALLEST_EIGENVALUE = 1e-4
_SMALLEST_P = 1e-14


class Tails(NamedTuple):
    """The upper tail of each feature beyond a threshold: a generalised Pareto distribution, in arrays `[F]`."""

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
        ordered = np.sort(x, axis=0)
        n = len(x)
        m = min(max(int(_TAIL * n), 5), n - 1)
        threshold = ordered[n - m - 1]
        excess = ordered[n - m :] - threshold
        larger = 1.0 - (np.arange(1, m + 1) - 0.35) / m
        b0, b1 = excess.mean(axis=0), (larger[:, None] * excess).mean(axis=0)
        gap = np.where(b0 - 2.0 * b1 > 0.0, b0 - 2.0 * b1, np.inf)
        shape = np.clip(np.where(np.isfinite(gap), 2.0 - b0 / gap, 0.0), 0.0, _HEAVIEST)
        scale = b0 * (1.0 - shape)  # the mean of a generalised Pareto is scale / (1 - shape)
        heavy = shape > 0.5  # whose mean excess says little: the median excess does
        median = np.median(excess, axis=0)
        scale = np.where(heavy, median * shape / np.expm1(shape * np.log(2.0)).clip(1e-12), scale)
        return cls(m / n, threshold, np.maximum(scale, 1e-3 * unit), shape)

    def log_survival(self, x: np.ndarray) -> np.ndarray:
        """log P(X > x | X > threshold) `[n, F]`; 0 below the threshold."""
        distance = np.maximum(x - self.threshold, 0.0) / self.scale
        small = self.shape < 1e-6
        shape = np.where(small, 1.0, self.shape)
        return -np.where(small, distance, np.log1p(shape * distance) / shape)


class Typical(NamedTuple):
    """What rows of a reference sample look like, one feature at a time and together.

    A feature is turned into a normal score by its empirical distribution, continued beyond 5 % and 95 % by a
    generalised Pareto tail: heavy tails do not set the scale, and a value beyond every row still has a distance.
    """

    ordered: np.ndarray
    """Reference rows, each column sorted `[n, F]`."""
    upper: Tails
    lower: Tails
    constant: np.ndarray
    """`[F]`: features that never vary in the reference."""
    precision: np.ndarray
    """Inverse of the regularised covariance of the normal scores `[F, F]`."""
    whiten: np.ndarray
    """`[F, F]`: scores to coordinates of unit covariance."""
    tree: KDTree

    @classmethod
    def fit(cls, x: np.ndarray) -> "Typical":
        """From reference rows `[n, F]`, finite."""
        sd = x.std(axis=0)
        constant = sd <= 1e-6 * np.maximum(np.abs(x).max(axis=0), 1e-30)
        unit = np.where(constant, 1e-6 * np.maximum(np.abs(x).max(axis=0), 1e-6), sd)
        iqr = np.subtract(*np.percentile(x, [75.0, 25.0], axis=0))
        unit = np.where(iqr > 0.0, np.minimum(unit, iqr), unit)
        marginals = cls(
            np.sort(x, axis=0),
            Tails.fit(x, unit),
            Tails.fit(-x, unit),
            constant,
            np.eye(0),
            np.eye(0),
            KDTree([[0.0]]),
        )
        scores = marginals.scores(x)
        values, vectors = np.linalg.eigh(_shrunk(scores))
        values = np.maximum(values, _SMALLEST_EIGENVALUE)
        whiten = vectors / np.sqrt(values)
        return marginals._replace(precision=(vectors / values) @ vectors.T, whiten=whiten, tree=KDTree(scores @ whiten))

    def log_p(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log of the lower and of the upper tail probability of each number `[n, F]`."""
        n = len(self.ordered)
        below, upto = _below(self.ordered, x), _upto(self.ordered, x)
        share = self.upper.share
        middle = np.clip((0.5 * (below + upto) + 0.5) / (n + 1), share, 1.0 - share)
        low, high = np.log(middle), np.log1p(-middle)
        above, under = x > self.upper.threshold, -x > self.lower.threshold
        high = np.where(above, np.log(share) + self.upper.log_survival(x), high)
        low = np.where(under, np.log(share) + self.lower.log_survival(-x), low)
        return low, high

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Normal scores `[n, F]`: Phi^-1 of the distribution function; 0 for a feature that never varies."""
        low, high = self.log_p(x)
        tail = np.maximum(np.exp(np.minimum(low, high)), _SMALLEST_P)
        return np.where(self.constant, 0.0, np.where(low < high, ndtri(tail), -ndtri(tail)))

    def surprise(self, x: np.ndarray) -> np.ndarray:
        """-log of the two-sided tail probability of each number `[n, F]`."""
        return -np.minimum(np.minimum(*self.log_p(x)) + np.log(2.0), 0.0)

    def atypical(self, x: np.ndarray) -> np.ndarray:
        """Three scores of each row `[n, 3]`, larger for odder rows.

        The largest surprise of a single feature; the Mahalanobis distance of the normal scores; the mean distance to
        the five nearest reference rows in whitened scores.
        """
        scores = self.scores(x)
        mahalanobis = np.sqrt(np.einsum("ni,ij,nj->n", scores, self.precision, scores))
        near = self.tree.query(scores @ self.whiten, k=_NEIGHBOURS)[0].mean(axis=1)
        return np.stack([self.surprise(x).max(axis=1), mahalanobis, near], axis=1)

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """How far each normal score is from what the other features make one expect, in conditional sd `[n, F]`."""
        return (self.scores(x) @ self.precision) / np.sqrt(np.diagonal(self.precision))


def rank_p(scores: np.ndarray) -> np.ndarray:
    """For each row of scores `[n, K]`, the share of rows that score at least as high `[n, K]`.

    Where the rows are exchangeable, P(p <= a) <= a for each of them, whatever their distribution.

    >>> rank_p(np.array([[3.0], [1.0], [2.0], [2.0]])).ravel().tolist()
    [0.25, 1.0, 0.75, 0.75]
    """
    return 1.0 - _below(np.sort(scores, axis=0), scores) / len(scores)


def min_p(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Several scores of exchangeable rows as one p-value per row: `(p [n], p of each score [n, K])`.

    The smallest of a row's p-values is ranked among those of the other rows, so that looking at K scores instead of one
    costs nothing in false alarms: P(p <= a) <= a again.
    """
    each = rank_p(scores)
    return rank_p(-each.min(axis=1, keepdims=True))[:, 0], each


def two_sided(rows: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile, ties counted half, and two-sided p of each number of rows `[m, F]` among the draws."""
    n, ordered = len(valid), np.sort(valid, axis=0)
    below, upto = _below(ordered, rows), _upto(ordered, rows)
    p = 2.0 * np.minimum(upto + 1, n - below + 1) / (n + 1)
    return 100.0 * 0.5 * (below + upto) / n, np.minimum(p, 1.0)


def _below(ordered: np.ndarray, x: np.ndarray) -> np.ndarray:
    """How many of each sorted column `[n, F]` are below each number of x `[m, F]`."""
    return np.stack([np.searchsorted(c, v, "left") for c, v in zip(ordered.T, x.T, strict=True)], axis=1)


def _upto(ordered: np.ndarray, x: np.ndarray) -> np.ndarray:
    """How many of each sorted column `[n, F]` are at or below each number of x `[m, F]`."""
    return np.stack([np.searchsorted(c, v, "right") for c, v in zip(ordered.T, x.T, strict=True)], axis=1)


def _shrunk(scores: np.ndarray) -> np.ndarray:
    """Covariance of scores about 0, shrunk towards a multiple of the identity (Ledoit & Wolf 2004).

    doi:10.1016/S0047-259X(03)00096-4
    """
    n, f = scores.shape
    cov = scores.T @ scores / n
    mu = np.trace(cov) / f
    distance = np.sum((cov - mu * np.eye(f)) ** 2)
    spread = (np.sum(np.sum(scores**2, axis=1) ** 2) / n - np.sum(cov**2)) / n
    share = 0.0 if distance <= 0.0 else float(np.clip(spread / distance, 0.0, 1.0))
    return (1.0 - share) * cov + share * mu * np.eye(f)
