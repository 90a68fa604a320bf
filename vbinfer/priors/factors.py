"""Factor models of several views: fit, latent posterior, density.

    x_v = mean_v + loadings_v z + e_v,   z ~ N(0, I_k),   e_v ~ N(0, diag(noise_v))          views v, rows x of subjects

Views are columns side by side; a subject without a view has NaN in all of its columns. One variance per view is
probabilistic PCA, one per column factor analysis. All in float64, by NumPy.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy import linalg

_ROUNDS = 300
_EM_ROUNDS = 2_000
_FLOOR = 1e-12
"""Noise that is left where the factors explain everything (k = S - 1), of the mean variance."""
_EDGE_FLOOR = 1e-6
"""The same of a single column in factor analysis, of its variance (Heywood cases)."""
_SETTLED = 1e-8
_GAIN = 1e-9
"""Relative change of the noise, and nats per value, at which iterations stop."""
_FOLDS, _PATIENCE, _MOST = 5, 3, 32


class Factors(NamedTuple):
    """A factor model."""

    mean: np.ndarray
    loadings: np.ndarray
    """`[column, k]`, by falling variance."""
    noise: np.ndarray
    view: np.ndarray
    """Number of the view of each column."""


def fit(x: np.ndarray, view: np.ndarray, k: int, per_edge: bool) -> Factors:
    """Maximum likelihood for rows x `[S, columns]`.

    Closed form for one view with one variance; else the loadings are exact given the noise, and the noise given the
    loadings, in turn. With missing views expectation maximisation goes on from there, started as if a missing view were
    the mean.

    doi:10.1111/1467-9868.00196 (probabilistic PCA)
    """
    size = np.bincount(view)
    mean = np.nanmean(x, axis=0)
    centred = x - mean
    # one variance per view: all happens in the span of its S rows, so that S columns do for d
    wide = not per_edge and size.max() > 2 * len(x)
    bases = [_basis(centred[:, view == v]) for v in range(len(size))] if wide else []
    if bases:
        view = np.repeat(np.arange(len(size)), [basis.shape[1] for basis in bases])
        centred = np.concatenate([_times(centred[:, c], q) for q, c in zip(bases, _columns(size), strict=True)], axis=1)
    loadings, noise = _alternate(np.nan_to_num(centred), view, size, k, per_edge)
    model = Factors(np.zeros(len(view)), loadings, noise, view)
    if np.isnan(centred).any():
        model = _expectation_maximisation(model, centred, size, per_edge)
    model = _ordered(model)
    if not bases:
        return model._replace(mean=mean + model.mean)
    parts = [(q @ model.mean[view == v], q @ model.loadings[view == v]) for v, q in enumerate(bases)]
    offset, loadings = (np.concatenate(part) for part in zip(*parts, strict=True))
    noise = np.array([model.noise[view == v][0] for v in range(len(size))])
    return Factors(mean + offset, loadings, np.repeat(noise, size), np.repeat(np.arange(len(size)), size))


def latent(model: Factors, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posterior of z for each row, and log p(row).

        cov = (I + L' N^-1 L)^-1,   mean = cov L' N^-1 (x - mean)         over the columns that the row has

    Returns:
        mean `[S, k]`, cov `[S, k, k]`, log-density `[S]`.
    """
    k, first = model.loadings.shape[1], np.unique(model.view, return_index=True)[1]
    mean, cov, log_prob = np.zeros((len(x), k)), np.zeros((len(x), k, k)), np.zeros(len(x))
    patterns, which = np.unique(~np.isnan(x[:, first]), axis=0, return_inverse=True)  # subjects with the same views
    for i, views in enumerate(patterns):
        rows, columns = which.ravel() == i, views[model.view]
        loadings, noise = model.loadings[columns], model.noise[columns]
        precision = np.eye(k) + (loadings.T / noise) @ loadings
        cov[rows] = inverse = np.linalg.inv(precision)
        away = x[np.ix_(rows, columns)] - model.mean[columns]
        mean[rows] = z = (away / noise) @ loadings @ inverse
        # by what z leaves over: the two large terms of the textbook form cancel when the noise is small
        distance = ((away - z @ loadings.T) ** 2 / noise).sum(axis=1) + (z**2).sum(axis=1)
        constant = np.log(2.0 * np.pi * noise).sum() + np.linalg.slogdet(precision)[1]
        log_prob[rows] = -0.5 * (distance + constant)
    return mean, cov, log_prob


def held_out(x: np.ndarray, view: np.ndarray, per_edge: bool) -> dict[int, float]:
    """Nats per value on subjects left out, by k.

    Five folds; stops when three more factors in a row were no better.
    """
    fold = np.random.default_rng(0).permutation(len(x)) % min(_FOLDS, len(x))
    fewest = len(x) - np.bincount(fold).max()
    scores: dict[int, float] = {}
    for k in range(1, min(fewest - 1, x.shape[1] - 1, _MOST) + 1):
        each = [latent(fit(x[fold != f], view, k, per_edge), x[fold == f])[2].sum() for f in range(fold.max() + 1)]
        scores[k] = float(sum(each) / (~np.isnan(x)).sum())
        if k - max(scores, key=scores.__getitem__) >= _PATIENCE:
            break
    return scores


def _columns(size: np.ndarray) -> list[slice]:
    ends = np.cumsum(size)
    return [slice(end - width, end) for end, width in zip(ends, size, strict=True)]


def _basis(rows: np.ndarray) -> np.ndarray:
    """Orthonormal basis `[d, r]` of rows, r <= S."""
    rows = rows[~np.isnan(rows).any(axis=1)]
    if rows.shape[1] <= 2 * len(rows):
        return np.eye(rows.shape[1])
    variance, left = linalg.eigh(rows @ rows.T)
    kept = variance > 1e-13 * variance[-1]
    basis = rows.T @ (left[:, kept] / np.sqrt(variance[kept]))
    # orthonormal but for rounding: once more by Cholesky, a tenth of a QR of d rows
    return basis @ np.linalg.inv(np.linalg.cholesky(basis.T @ basis)).T


def _times(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Rows in a basis; rows of NaN stay NaN."""
    out = np.full((len(rows), basis.shape[1]), np.nan)
    there = ~np.isnan(rows).any(axis=1)
    out[there] = rows[there] @ basis
    return out


def _principal(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of x'x/S with eigenvectors `[d, k]`.

    From whichever of x'x and xx' is smaller.
    """
    n, d = x.shape
    if not k:
        return np.zeros(0), np.zeros((d, 0))
    small = min(n, d)
    top = linalg.eigh(x.T @ x if d <= n else x @ x.T, subset_by_index=[max(0, small - k), small - 1])
    variance, vectors = np.maximum(top[0][::-1], 0.0), top[1][:, ::-1]
    if d > n:
        vectors = x.T @ vectors / np.sqrt(np.maximum(variance, 1e-300))
    return variance / n, vectors


def _alternate(
    x: np.ndarray, view: np.ndarray, size: np.ndarray, k: int, per_edge: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Loadings and noise of complete, centred rows.

    Given the noise, whitening by it turns maximum likelihood into PCA with noise 1; given the loadings, the noise is
    what they leave of the variance. The start is that of each view by itself: of one view with one variance the
    solution, so that the first round ends.
    """
    variance = np.mean(x**2, axis=0)
    total = np.bincount(view, variance)
    floor = _FLOOR * (total / size)[view]
    if per_edge:
        floor = _EDGE_FLOOR * np.maximum(variance, 1e-3 * total[view] / size[view])

    def shared(by_column: np.ndarray) -> np.ndarray:
        return by_column if per_edge else (np.bincount(view, by_column) / size)[view]

    explained = [_principal(x[:, view == v], min(k, s - 1))[0].sum() for v, s in enumerate(size)]
    rest = np.maximum(total - explained, 0.0) / np.maximum(size - k, 1)
    # per edge: the share of its view
    noise = np.maximum(variance * (rest * size / total)[view] if per_edge else rest[view], floor)
    for _ in range(_ROUNDS):
        root = np.sqrt(noise)
        gains, vectors = _principal(x / root, k)
        loadings = root[:, None] * vectors * np.sqrt(np.maximum(gains - 1.0, 0.0))
        before, noise = noise, np.maximum(shared(variance - (loadings**2).sum(axis=1)), floor)
        if np.abs(np.log(noise / before)).max() < _SETTLED:
            break
    else:
        # an edge whose noise vanishes does so slowly, which changes little: that is no reason to warn
        if np.abs(noise - before).max() > 1e-4 * variance.mean():
            _warn(_ROUNDS)
    return loadings, noise


def _expectation_maximisation(model: Factors, x: np.ndarray, size: np.ndarray, per_edge: bool) -> Factors:
    """Go on to the maximum where views are missing.

    Parameter-expanded: z may have any mean and covariance within a round, which its end takes into mean and loadings;
    many times fewer rounds than without. doi:10.1093/biomet/85.4.755
    """
    columns = [model.view == v for v in range(len(size))]
    rows = [~np.isnan(x[:, c][:, 0]) for c in columns]
    data = [x[np.ix_(r, c)] for r, c in zip(rows, columns, strict=True)]
    squares = [(seen**2).sum(axis=0) for seen in data]
    # what compression left out of each view has density all the same
    more = np.array([r.sum() * (s - c.sum()) for r, s, c in zip(rows, size, columns, strict=True)])
    values = sum(r.sum() * s for r, s in zip(rows, size, strict=True))
    k, last = model.loadings.shape[1], -np.inf
    for _ in range(_EM_ROUNDS):
        z, cov, log_prob = latent(model, x)
        noises = np.array([model.noise[c][0] for c in columns])
        total = log_prob.sum() - 0.5 * (more * np.log(2.0 * np.pi * noises)).sum()
        if total - last < _GAIN * values:
            return model
        last = total
        one = np.concatenate([z, np.ones((len(z), 1))], axis=1)
        moments = one[:, :, None] * one[:, None, :]
        moments[:, :k, :k] += cov
        mean, loadings, noise = np.empty_like(model.mean), np.empty_like(model.loadings), np.empty_like(model.noise)
        for c, r, seen, square, s in zip(columns, rows, data, squares, size, strict=True):
            cross = seen.T @ one[r]
            slopes = np.linalg.solve(moments[r].sum(axis=0), cross.T).T
            left = (square - (slopes * cross).sum(axis=1)) / r.sum()
            loadings[c], mean[c] = slopes[:, :k], slopes[:, k]
            floor = (_EDGE_FLOOR if per_edge else _FLOOR) * square.mean() / r.sum()
            noise[c] = np.maximum(left if per_edge else left.sum() / s, floor)
        centre = z.mean(axis=0)
        spread = moments[:, :k, :k].mean(axis=0) - np.outer(centre, centre)
        model = Factors(mean + loadings @ centre, loadings @ np.linalg.cholesky(spread), noise, model.view)
    _warn(_EM_ROUNDS)
    return model


def _ordered(model: Factors) -> Factors:
    """The same density with factors in order.

    By falling variance, with a fixed sign.
    """
    root = np.sqrt(model.noise)[:, None]
    turn = np.linalg.svd(model.loadings / root, full_matrices=False)[2].T
    loadings = model.loadings @ turn
    sign = np.sign(np.take_along_axis(loadings, np.abs(loadings).argmax(axis=0)[None], axis=0))
    return model._replace(loadings=loadings * np.where(sign == 0.0, 1.0, sign))


def _warn(rounds: int) -> None:
    warnings.warn(
        f"the fit had not settled after {rounds:,} rounds: with so few subjects take fewer factors (a smaller k) or "
        "method='ppca'",
        stacklevel=5,
    )
