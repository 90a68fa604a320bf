"""Tests of one parameter's ranks: where the posterior lies, how wide it is, its shape, and whether x still tells."""

import numpy as np
import scipy.stats as st

from vbinfer.diagnostics.calibration.band import shape_test
from vbinfer.diagnostics.calibration.heldout import HeldOut
from vbinfer.diagnostics.calibration.rows import Raw
from vbinfer.diagnostics.calibration.scores import folded, normal, uniforms

LOCATION, WIDTH, SHAPE = "location", "width", "shape"
LOCATION_X, WIDTH_X = "location given x", "width given x"


def marginal_uniforms(held: HeldOut) -> np.ndarray:
    """u `[n, D]` of every parameter."""
    pooled, rng = held.pooled, held.rng("marginal")
    return np.stack([uniforms(pooled[:, :, d], rng) for d in range(pooled.shape[2])], axis=1)


def location(u: np.ndarray, parameter: str, quantity: str = LOCATION) -> Raw:
    """sqrt(n) mean(s) ~ N(0, 1). Positive: truths lie above the posterior."""
    n, mean = len(u), float(normal(u).mean())
    return Raw(quantity, parameter, mean, float(2.0 * st.norm.sf(np.sqrt(n) * abs(mean))), "mean", n)


def width(u: np.ndarray, parameter: str) -> Raw:
    """sum s^2 ~ chi2 with n degrees of freedom, two-sided. The statistic is sqrt(mean s^2): 1 / 0.7 for an sd x 0.7."""
    n, total = len(u), float((normal(u) ** 2).sum())
    p = 2.0 * min(st.chi2.cdf(total, n), st.chi2.sf(total, n))
    return Raw(WIDTH, parameter, float(np.sqrt(total / n)), float(min(p, 1.0)), "spread", n)


def shape(u: np.ndarray, parameter: str, quantity: str = SHAPE) -> Raw:
    """Simultaneous ECDF band; the statistic is the largest distance from the diagonal."""
    gap, p = shape_test(u)
    return Raw(quantity, parameter, gap, p, "shape", len(u))


def regression(s: np.ndarray, basis: np.ndarray, parameter: str, quantity: str) -> Raw:
    """F-test of scores s `[n]` on an orthonormal, centred basis `[n, K]`; exact, s being normal and independent of x.

        F = (|B' s|^2 / K) / (|s - mean - B B' s|^2 / (n - 1 - K))

    The statistic is R^2.
    """
    n, k = basis.shape
    centred = s - s.mean()
    told, total = float(((basis.T @ centred) ** 2).sum()), float((centred**2).sum())
    rest = max(total - told, 1e-300)
    p = float(st.f.sf((told / k) / (rest / (n - 1 - k)), k, n - 1 - k))
    return Raw(quantity, parameter, told / total, p, "regression", n, k)


def marginal_tests(held: HeldOut, u: np.ndarray) -> list[Raw]:
    """Location, width and shape of every parameter, u `[n, D]`."""
    return [
        test(column, name) for name, column in zip(held.names, u.T, strict=True) for test in (location, width, shape)
    ]


def dependence_tests(held: HeldOut, u: np.ndarray) -> list[Raw]:
    """Do features of x still say where, or how far out, the truth lies within its posterior?

    What plain ranks cannot see: a posterior that ignores a feature, or the prior itself, has uniform ranks, but x
    predicts them. Regressors are the features, each made normal by its ranks, and the parameter's own centre and
    spread over truth and draws together. More than n / 10 of them are reduced to their leading principal components.
    """
    told, rows = components(held.x), []
    for d, name in enumerate(held.names):
        own = held.pooled[:, :, d]
        # moments over all L + 1 are symmetric: unlike the posterior mean, they leave the rank independent of them
        basis = _joined(told, _standard(np.stack([own.mean(axis=1), np.log(own.std(axis=1) + 1e-300)], axis=1)))
        if basis.shape[1]:
            rows.append(regression(normal(u[:, d]), basis, name, LOCATION_X))
            rows.append(regression(folded(u[:, d]), basis, name, WIDTH_X))
    return rows


def telling_features(held: HeldOut, u: np.ndarray) -> dict[str, str]:
    """By parameter, the feature whose ranks correlate most with its scores: the first to look at if x still tells."""
    varied = np.flatnonzero(held.x.min(axis=0) < held.x.max(axis=0))
    if not len(varied):
        return {}
    x, s = _standard(held.x), normal(u)
    size = np.abs(x.T @ (s - s.mean(axis=0))) / np.linalg.norm(x, axis=0)[:, None]
    return {name: held.features[varied[i]] for name, i in zip(held.names, size.argmax(axis=0), strict=True)}


def components(x: np.ndarray) -> np.ndarray:
    """Orthonormal leading principal components `[n, K]` of the features' normal scores, K <= n // 10 - 2."""
    score = _standard(x)
    if not score.shape[1]:
        return score
    left, size, _ = np.linalg.svd(score, full_matrices=False)
    return left[:, : min(len(x) // 10 - 2, int((size > 1e-6 * size[0]).sum()))]


def _joined(components: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Orthonormal, centred basis `[n, K]` of both."""
    both = np.concatenate([components, own / np.linalg.norm(own, axis=0)], axis=1)
    left, size, _ = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    return left[:, size > 1e-6]


def _standard(x: np.ndarray) -> np.ndarray:
    """Columns made normal by their ranks and centred; constant ones are left out."""
    varied = x[:, (x.min(axis=0) < x.max(axis=0))]
    if not varied.shape[1]:
        return varied.astype(float)
    score = st.norm.ppf((st.rankdata(varied, axis=0) - 0.5) / len(x))
    return score - score.mean(axis=0)
