"""Multivariate autoregressive models of recordings."""

import dataclasses
import math
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer.explore.recordings import checked_recording

MAX_ORDER = 10
"""Orders that are compared by BIC, at most."""
MS_PER_S = 1e3


@dataclasses.dataclass(frozen=True, eq=False)
class Mvar:
    """A fitted autoregressive model.

    y_t = intercept + sum_k A_k y_{t-k} + e_t,   e_t ~ N(0, Sigma)

    Attributes:
        A: `[p, i, j]`, from j to i, lag k + 1 at index k.
        Sigma: covariance of the residuals, divided by their degrees of freedom T - p - (N p + 1).
        intercept: `[N]`.
        granger: `[i, j]`, log ratio of the residual variance of i without and with the past of j, given all others
            (Geweke 1984, doi:10.1080/01621459.1984.10477110); 0 on the diagonal. Without a connection (T - p) times it
            is chi-square with p degrees of freedom.
        bic: Bayesian information criterion by order, log |Sigma_ml| + k log(n) / n for k coefficients; of several all
            on the n samples that the largest leaves.
        period: ms between samples.
    """

    A: np.ndarray
    Sigma: np.ndarray
    intercept: np.ndarray
    granger: np.ndarray
    bic: dict[int, float]
    period: float | None

    @property
    def order(self) -> int:
        """The number of lags."""
        return len(self.A)

    def cross_spectrum(self, f: Any) -> np.ndarray:
        """Cross-spectrum `[F, N, N]`, one-sided per Hz.

        At f in Hz.

        S = 2 dt H Sigma H^H,   H = (I - sum_k A_k exp(-2 pi i f k dt))^-1,   S_ij = y_i conj(y_j)
        """
        if self.period is None:
            raise ValueError("a spectrum per Hz needs the time between samples; write fit_mvar(..., period=2.0), ms")
        f, dt = np.atleast_1d(np.asarray(f, float)), self.period / MS_PER_S
        phase = np.exp(-2j * np.pi * dt * np.outer(f, np.arange(1, self.order + 1)))
        H = np.linalg.inv(np.eye(len(self.Sigma)) - np.einsum("fk,kij->fij", phase, self.A))
        return 2.0 * dt * H @ self.Sigma @ H.conj().swapaxes(1, 2)


def fit_mvar(y: Any, order: int | str = 1, period: float | None = None) -> Mvar:
    """Fit an autoregressive model by least squares.

    The maximum of the likelihood given the first `order` samples, in one step; equal to statsmodels' VAR with a
    constant.

    Args:
        y: recording `[T, N]`, without gaps.
        order: number of lags, or "bic": that with the smallest BIC of 1 to 10, or as many as the samples allow.
        period: ms between samples; spectra need it.

    Raises:
        ValueError: gaps, a singular covariance, or too few samples for the order.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> rng, y = np.random.default_rng(0), np.zeros((20_000, 2))
        >>> for t in range(1, len(y)):
        ...     y[t] = [[0.5, 0.3], [0.0, 0.7]] @ y[t - 1] + rng.normal(size=2)
        >>> fit = vb.explore.fit_mvar(y, order="bic")
        >>> fit.order, fit.A[0].round(1).tolist(), (20_000 * fit.granger > 3.84).tolist()
        (1, [[0.5, 0.3], [0.0, 0.7]], [[False, True], [False, False]])
    """
    by_bic = isinstance(order, str)
    if by_bic:
        _check.one_of(order, "order", ("bic",))
    p = 1 if isinstance(order, str) else _check.count(order, "order", 1)
    period = None if period is None else _check.positive(period, "period", 2.0, "ms")
    N = np.shape(y)[1] if np.ndim(y) == 2 else 1
    y = checked_recording(y, _samples(p, N))
    bic: dict[int, float] = {}
    if by_bic:
        most = max(k for k in range(1, MAX_ORDER + 1) if _samples(k, N) <= len(y))
        bic = {k: _bic(y, k, most) for k in range(1, most + 1)}
        p = min(bic, key=lambda k: bic[k])
    design, target = _regression(y, p, p)
    coefficients, error, n = *_least_squares(design, target), len(target)
    rss = error.T @ error
    A = coefficients[1:].reshape(p, N, N).swapaxes(1, 2)  # rows of the design: lag, then from which channel
    granger = _granger(np.linalg.inv(design.T @ design), A, np.diag(rss))
    bic = bic or {p: _bic(y, p, p)}
    return Mvar(A, rss / (n - design.shape[1]), coefficients[0], granger, bic, period)


def _samples(p: int, n: int) -> int:
    """Samples that leave a residual for each channel."""
    return p + (n * p + 1) + n


def _regression(y: np.ndarray, p: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Past and present of a recording, one row per sample.

    `[T - first, 1 + p N]` and `[T - first, N]`.
    """
    T = len(y)
    lags = [y[first - k : T - k] for k in range(1, p + 1)]
    return np.concatenate([np.ones((T - first, 1)), *lags], axis=1), y[first:]


def _least_squares(design: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
    return coefficients, target - design @ coefficients


def _bic(y: np.ndarray, p: int, first: int) -> float:
    design, target = _regression(y, p, first)
    error = _least_squares(design, target)[1]
    n = len(target)
    return float(np.linalg.slogdet(error.T @ error / n)[1] + math.log(n) / n * design.shape[1] * target.shape[1])


def _granger(inverse: np.ndarray, A: np.ndarray, rss: np.ndarray) -> np.ndarray:
    """Log ratios of residual variances without and with a past.

    Leaving out the p columns j of a regression adds b^T C^-1 b to the residual sum of squares, C their block of
    (X^T X)^-1: no regression is made again.
    """
    p, N, _ = A.shape
    out = np.zeros((N, N))
    for j in range(N):
        columns = 1 + j + N * np.arange(p)
        b = A[:, :, j]  # [p, i]
        out[:, j] = np.log1p((b * np.linalg.solve(inverse[np.ix_(columns, columns)], b)).sum(axis=0) / rss)
    np.fill_diagonal(out, 0.0)
    return out
