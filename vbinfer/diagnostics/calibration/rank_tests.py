"""Tests of the ranks of truths among posterior draws.

Under the null a rank is uniform and independent of x. Its normal score s = Phi^-1(u) is standard normal, which makes
every test exact: of where the posterior lies, how wide it is, its shape, and whether x still tells; of one parameter,
of pairs, and of all together by highest-density regions and distances from random points.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import chdtr, chdtrc, fdtrc, ndtr, ndtri
from scipy.stats import rankdata

from vbinfer._names import unravel
from vbinfer.diagnostics.result import Shapes

from .band import shape_test
from .held_out import HeldOut, uniforms
from .tests import RawTest

Quantity = Callable[[dict[str, Any], Any], Any]
"""A test quantity of the user's: `f(theta, x) -> number`, of one theta and one x `[F]`."""

LOCATION, WIDTH, SHAPE = "location", "width", "shape"
LOCATION_X, WIDTH_X = "location given x", "width given x"


def normal(u: np.ndarray) -> np.ndarray:
    """Normal scores s = Phi^-1(u)."""
    return ndtri(u)


def folded(u: np.ndarray) -> np.ndarray:
    """Normal scores of |2 u - 1|, large far out."""
    return ndtri(np.clip(np.abs(2.0 * u - 1.0), 1e-300, 1.0 - 1e-16))


def quantity_tests(held: HeldOut, quantities: Mapping[str, Quantity] | None, shapes: Shapes) -> list[RawTest]:
    """Tests of the user's own quantities.

    Location, width and shape of their ranks.

    Any f(theta, x) will do: truth and draws are exchangeable given x, and so are its values at them.

    Raises:
        TypeError: no mapping of names to functions, or a function that JAX cannot trace.
        ValueError: the name of a parameter, a value that is no number, or not finite.
    """
    found = []
    for name, f in _quantities(quantities, held.names).items():
        run, values = jax.jit(jax.vmap(f, in_axes=(0, None))), []
        for i, (rows, x) in enumerate(zip(held.pooled, held.x, strict=True)):
            try:
                value = np.asarray(run(unravel(jnp.asarray(rows), shapes), jnp.asarray(x)), np.float64)
            except jax.errors.TracerArrayConversionError as error:
                raise TypeError(f"quantities[{name!r}] is not made of jax.numpy; write it with jnp, not np") from error
            if value.shape != rows.shape[:1]:
                raise ValueError(
                    f"quantities[{name!r}] returned {list(value.shape[1:])} for one draw; expected one number: reduce "
                    "it, as in value.mean()"
                )
            if not np.isfinite(value).all():
                raise ValueError(
                    f"quantities[{name!r}] is NaN or infinite for held-out data set {i}; give a function that is "
                    "finite wherever the prior is"
                )
            values.append(value)
        # a purpose of its own: no other test draws other ties because this one is there
        found += _three(uniforms(np.stack(values), held.rng(f"quantity {name}")), name)
    return found


def _quantities(given: Any, names: tuple[str, ...]) -> Mapping[str, Quantity]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(k, str) and callable(f) for k, f in given.items()):
        raise TypeError(
            "quantities is no mapping of names to functions; write quantities={'energy': f} with f(theta, x) -> number"
        )
    taken = [name for name in given if name in (*names, "joint")]
    if taken:
        raise ValueError(f"quantities names {taken}, which are tested already; give other names")
    return given


def location(u: np.ndarray, parameter: str, quantity: str = LOCATION) -> RawTest:
    """Test the mean of s: sqrt(n) mean(s) ~ N(0, 1).

    Positive: truths lie above the posterior.
    """
    n, mean = len(u), float(normal(u).mean())
    return RawTest(quantity, parameter, mean, float(2.0 * ndtr(-np.sqrt(n) * abs(mean))), "mean", n)


def width(u: np.ndarray, parameter: str) -> RawTest:
    """Test the width of s by chi squared.

    sum s^2 ~ chi2 with n degrees of freedom.

    Two-sided. The statistic is sqrt(mean s^2): 1 / 0.7 for an sd x 0.7.
    """
    n, total = len(u), float((normal(u) ** 2).sum())
    p = 2.0 * min(chdtr(n, total), chdtrc(n, total))
    return RawTest(WIDTH, parameter, float(np.sqrt(total / n)), float(min(p, 1.0)), "spread", n)


def shape(u: np.ndarray, parameter: str, quantity: str = SHAPE) -> RawTest:
    """Test the shape by the simultaneous ECDF band.

    The statistic is the largest distance from the diagonal.
    """
    gap, p = shape_test(u)
    return RawTest(quantity, parameter, gap, p, "shape", len(u))


def regression(s: np.ndarray, basis: np.ndarray, parameter: str, quantity: str) -> RawTest:
    """F-test of scores on an orthonormal, centred basis.

    s is `[n]`, the basis `[n, K]`.

    Exact, s being normal and independent of x:

        F = (|B' s|^2 / K) / (|s - mean - B B' s|^2 / (n - 1 - K))

    The statistic is R^2.
    """
    n, k = basis.shape
    centred = s - s.mean()
    # the basis is orthonormal: explained sums of squares are squared coordinates
    told, total = float(((basis.T @ centred) ** 2).sum()), float((centred**2).sum())
    rest = max(total - told, 1e-300)
    p = float(fdtrc(k, n - 1 - k, (told / k) / (rest / (n - 1 - k))))
    return RawTest(quantity, parameter, told / total, p, "regression", n, k)


def marginal_tests(held: HeldOut) -> list[RawTest]:
    """Location, width and shape of every parameter."""
    return [test for u, name in zip(held.u.T, held.names, strict=True) for test in _three(u, name)]


def _three(u: np.ndarray, name: str) -> list[RawTest]:
    return [location(u, name), width(u, name), shape(u, name)]


def dependence_tests(held: HeldOut) -> list[RawTest]:
    """Test whether x still tells where the truth lies.

    Within its posterior: where, or how far out.
    What plain ranks cannot see: a posterior that ignores a feature, or the prior itself, has uniform ranks, but x
    predicts them. Regressors are the features, each made normal by its ranks, and the parameter's own centre and
    spread over truth and draws together. More than n / 10 of them are reduced to their leading principal components.
    """
    told, rows = components(held.x), []
    # moments over all L + 1 are symmetric: unlike the posterior mean, they leave the rank independent of them
    moments = np.stack([held.pooled.mean(axis=1), np.log(held.pooled.std(axis=1) + 1e-300)], axis=2)
    for d, name in enumerate(held.names):
        basis = _joined(told, _standard(moments[:, d]))
        if basis.shape[1]:
            rows.append(regression(normal(held.u[:, d]), basis, name, LOCATION_X))
            rows.append(regression(folded(held.u[:, d]), basis, name, WIDTH_X))
    return rows


def telling_features(held: HeldOut) -> dict[str, str]:
    """By parameter, the feature most correlated with its scores.

    The first to look at if x still tells.
    """
    varied = np.flatnonzero(np.ptp(held.x, axis=0) > 0)
    if not len(varied):
        return {}
    x, s = _standard(held.x), normal(held.u)
    size = np.abs(x.T @ (s - s.mean(axis=0))) / np.linalg.norm(x, axis=0)[:, None]
    return {name: held.features[varied[i]] for name, i in zip(held.names, size.argmax(axis=0), strict=True)}


def components(x: np.ndarray) -> np.ndarray:
    """Leading principal components of the features' normal scores.

    Orthonormal `[n, K]`, K <= n // 10 - 2.
    """
    score = _standard(x)
    if not score.shape[1]:
        return score
    # n / 10 regressors at most leave the F-test power against each
    left, size, _ = np.linalg.svd(score, full_matrices=False)
    return left[:, : min(len(x) // 10 - 2, int((size > 1e-6 * size[0]).sum()))]


def _joined(components: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Orthonormal, centred basis `[n, K]` of both."""
    both = np.concatenate([components, own / np.linalg.norm(own, axis=0)], axis=1)
    left, size, _ = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    return left[:, size > 1e-6]


def _standard(x: np.ndarray) -> np.ndarray:
    """Columns made normal by ranks, and centred, without constant ones."""
    # a feature that never varies has no ranks
    varied = x[:, np.ptp(x, axis=0) > 0]
    if not varied.shape[1]:
        return varied.astype(float)
    # ranks make the regression robust to any scale; the null needs no distribution of x
    score = ndtri((rankdata(varied, axis=0) - 0.5) / len(x))
    return score - score.mean(axis=0)


MOST_PAIRS = 45
HPD, TARP, DEPENDENCE = "HPD", "TARP", "dependence"


def hpd_tests(held: HeldOut) -> list[RawTest]:
    """Location and shape of the HPD ranks."""
    return _two(held.joint, HPD)


def pair_tests(held: HeldOut) -> list[RawTest]:
    """Ranks of products of deviations, for posterior correlations.

    (theta_i - m_i)(theta_j - m_j), with m the mean over truth and draws.
    All pairs up to 45; beyond, the 45 pairs whose posterior correlation is largest on average.
    """
    # deviations from a mean that includes the truth treat truth and draws alike
    pooled, rng = held.pooled, held.rng("pairs")
    centred = pooled - pooled.mean(axis=1, keepdims=True)
    rows = []
    for i, j in _pairs(centred):
        u = uniforms(centred[:, :, i] * centred[:, :, j], rng)
        rows.append(location(u, f"{held.names[i]} x {held.names[j]}", DEPENDENCE))
    return rows


def tarp_tests(held: HeldOut) -> list[RawTest]:
    """Location and shape of the coverage fractions."""
    return _two(held.nearer, TARP)


def _two(u: np.ndarray, what: str) -> list[RawTest]:
    return [location(u, "joint", f"{what} location"), shape(u, "joint", f"{what} shape")]


def _pairs(centred: np.ndarray) -> list[tuple[int, int]]:
    d = centred.shape[2]
    every = list(itertools.combinations(range(d), 2))
    if len(every) <= MOST_PAIRS:
        return every
    # correlations within each data set, averaged: pairs that are never tied are left out
    unit = centred / np.maximum(np.sqrt((centred**2).mean(axis=1, keepdims=True)), 1e-300)
    # over data sets together, truth and draws alike: a symmetric choice does not spoil the ranks
    rows = unit.reshape(-1, d)
    size = np.abs(rows.T @ rows)
    return sorted(every, key=lambda pair: -size[pair])[:MOST_PAIRS]
