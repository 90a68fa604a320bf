"""Rejection ABC: parameters whose simulations come near x_o."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer.draws.draws import Draws
from vbinfer.neural.scaler import check_observation
from vbinfer.neural.training_data import training_pairs
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import constrained

Distance = Callable[[np.ndarray, np.ndarray], Any]
"""`(x [n, F], x_o [F]) -> distances [n]`."""

_MAD_TO_SD = 1.4826
_FEWEST = 10


def rejection_abc(
    draws: Draws,
    prior: Prior,
    x_o: Any,
    *,
    quantile: float = 0.01,
    epsilon: float | None = None,
    distance: Distance | None = None,
    adjust: bool = False,
) -> Posterior:
    """The prior draws nearest to x_o.

    p(theta | d(x, x_o) <= epsilon),

    d(x, x_o)^2 = sum_f ((x_f - x_o,f) / s_f)^2, s_f = 1.4826 median |x_f - median x_f| over the draws

    (the sd where more than half of a feature is one number; constant features are left out). With `adjust`, a linear
    regression in z moves each kept draw to where it would be at x_o: z_i - B' (x_i - x_o) / s, B by least squares with
    Epanechnikov weights 1 - (d_i / epsilon)^2.

    A baseline: wants few features and tens of thousands of draws, and is wider than the posterior by what epsilon lets
    in; the adjustment mends most of that where theta depends on x about linearly within epsilon.

    Args:
        draws: of the prior, from `sample_prior_predictive`; failed ones are left out, and count as not accepted.
        prior: the prior that they came from.
        x_o: observed summary `[F]`.
        quantile: share of the valid draws to keep.
        epsilon: largest distance instead of `quantile`.
        distance: your own, `(x [n, F], x_o [F]) -> [n]`.
        adjust: regression adjustment.

    Returns:
        A posterior of one chain with the distances in `sample_stats`; `info` holds epsilon, acceptance,
        num_simulations.

    Raises:
        ValueError: NaN in x_o or another width, fewer than 10 draws within epsilon, draws of another prior or of a
            proposal.

    Pritchard et al. 1999, doi:10.1093/oxfordjournals.molbev.a026091; Beaumont, Zhang & Balding 2002,
    doi:10.1093/genetics/162.4.2025 (adjustment).

    Example:
        posterior = vb.approximate.rejection_abc(draws, prior, x_o, quantile=0.01, adjust=True)
    """
    started = time.perf_counter()
    if epsilon is not None:
        epsilon = _check.number(epsilon, "epsilon", 0.5, "a distance of at least 0", least=0.0)
    if _check.number(quantile, "quantile", 0.01, "a share of the draws") != 1.0:
        quantile = _check.fraction(quantile, "quantile", 0.01)
    x_o = check_observation(x_o, draws.names, ndim=1)
    _check_prior_draws(draws)
    z, x = training_pairs(draws, prior)
    spread = scale(x)
    d = distances(distance or standardised(spread), x, x_o)
    if epsilon is None:
        epsilon = float(np.quantile(d, quantile))
    kept = np.flatnonzero(d <= epsilon)
    if len(kept) < _FEWEST:
        raise ValueError(
            f"{len(kept)} of {len(d)} valid draws lie within epsilon={epsilon:.3g} of x_o; at least {_FEWEST} are "
            f"needed. Give more draws, or write quantile={min(1.0, 100 / len(d)):.2g}; the nearest is at {d.min():.3g}"
        )
    near = np.asarray(z, np.float64)[kept]
    if adjust:
        near = _adjusted(near, (x[kept] - x_o)[:, spread > 0] / spread[spread > 0], d[kept] / max(epsilon, 1e-300))
    info = provenance("rejection ABC", None, started) | {
        "epsilon": epsilon,
        "acceptance": len(kept) / len(draws),
        "num_simulations": len(draws),
        "adjusted": adjust,
    }
    return posterior(prior, near, d[kept], x_o, info)


def scale(x: np.ndarray) -> np.ndarray:
    """Spread of each feature `[F]`; 0 where it is constant."""
    x = np.asarray(x, np.float64)
    median = np.median(x, axis=0)
    mad, sd = _MAD_TO_SD * np.median(np.abs(x - median), axis=0), x.std(axis=0)
    rounding = 1e-6 * np.maximum(np.abs(median), 1e-30)
    # robust where it can be: the MAD is 0 when half of the draws agree, as counts do
    spread = np.where(mad > rounding, mad, np.where(sd > rounding, sd, 0.0))
    if not bool(np.any(spread > 0.0)):
        raise ValueError("no feature of x varies over the draws; give summaries that depend on theta")
    return spread


def standardised(spread: np.ndarray) -> Distance:
    """The Euclidean distance in units of the spread."""
    used = np.asarray(spread > 0.0)
    return lambda x, x_o: np.sqrt((((x - x_o)[:, used] / spread[used]) ** 2).sum(axis=1))


def distances(measure: Distance, x: np.ndarray, x_o: np.ndarray) -> np.ndarray:
    """`[n]`; infinite where the distance is not finite."""
    d = np.asarray(measure(np.asarray(x, np.float64), np.asarray(x_o, np.float64)), np.float64)
    if d.shape != (len(x),):
        raise ValueError(
            f"distance returned an array of shape {list(d.shape)} for x {list(x.shape)}; expected one number per row "
            f"[{len(x)}]: write np.abs(x - x_o).sum(axis=1)"
        )
    return np.where(np.isfinite(d), d, np.inf)


def _adjusted(z: np.ndarray, residual: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """z moved along its regression on x to x_o."""
    # Epanechnikov weights 1 - (d / epsilon)^2, as roots since least squares squares them
    weight = np.sqrt(np.maximum(1.0 - relative**2, 0.0))[:, None]
    if np.count_nonzero(weight) < residual.shape[1] + 2:
        raise ValueError(
            f"{len(z)} draws were kept, too few to regress on {residual.shape[1]} features; raise quantile, or write "
            "adjust=False"
        )
    design = np.concatenate([np.ones((len(z), 1)), residual], axis=1)
    slopes = np.linalg.lstsq(weight * design, weight * z, rcond=None)[0][1:]
    return z - residual @ slopes


def _check_prior_draws(draws: Draws) -> None:
    if len(np.unique(draws.round)) > 1 or draws.round.any():
        raise ValueError(
            f"the draws are of rounds {np.unique(draws.round).tolist()}; rejection_abc takes draws of the prior, those "
            "with draws.round == 0. vb.approximate.smc_abc proposes by itself"
        )


def posterior(prior: Prior, z: np.ndarray, d: np.ndarray, x_o: np.ndarray, info: dict[str, Any]) -> Posterior:
    """Rows of z as a posterior of one chain."""
    theta, _ = constrained(prior, z[None])
    return Posterior(theta, sample_stats={"distance": d[None]}, x_o=x_o, prior=prior, info=info)
