"""What the data taught: posterior shrinkage against the prior, and z-scores against a known truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

NOTHING = 0.05
"""Share of variance below which a parameter has not been learned about."""
ByLeaf = dict[str, Any]
"""By path: a number for a scalar parameter, an array of the parameter's shape for any other."""


def shrinkage(prior: Prior, posterior: Posterior, kind: str = "variance") -> ByLeaf:
    """Posterior shrinkage (contraction): how much narrower the posterior is than the prior.

        kind="variance":  s = 1 - var_post / var_prior        kind="sd":  s = 1 - sd_post / sd_prior

    0 is the prior, 1 a point, and below 0 the posterior is wider than the prior. It says nothing of whether the
    posterior is right: look at `zscore` and at calibration as well. Posterior variances have ddof=1 over all chains;
    prior variances are the analytic ones where there is a formula. NaN for a prior without finite variance.

    Args:
        prior: the prior.
        posterior: draws over the same parameters.
        kind: which ratio; software differs (a variance ratio of 0.05 is a shrinkage of 0.95, or of 0.776 by sd).

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.

    Reference: Betancourt (2018), "Calibrating model-based inferences and decisions", arXiv:1803.08393.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"coupling.G": dist.Normal(0.0, 10.0)})
        >>> posterior = vb.Posterior({"coupling.G": np.array([[1.0, 2.0, 3.0]])})
        >>> round(float(vb.shrinkage(prior, posterior)["coupling.G"]), 6)
        0.99
    """
    if kind not in ("variance", "sd"):
        raise ValueError(f"kind={kind!r} was given; expected kind='variance' (1 - var/var) or kind='sd' (1 - sd/sd)")
    _same_names(posterior, prior.shapes, "the prior")
    before, result = prior.variance(), {}
    for name, (_, after) in _moments(posterior).items():
        known = np.asarray(before[name], float)
        ratio = np.divide(after, known, out=np.full_like(after, np.nan), where=np.isfinite(known) & (known > 0))
        result[name] = (1.0 - (ratio if kind == "variance" else np.sqrt(ratio)))[()]
    return result


def zscore(posterior: Posterior, theta_true: Mapping[str, Any], signed: bool = False) -> ByLeaf:
    """Distance of the posterior mean from the truth in posterior standard deviations.

        z = |mean_post - theta_true| / sd_post,   without the bars if `signed`

    Over many simulated observations the signed one has mean 0 and, for posteriors near normal, sd 1.

    Args:
        posterior: draws.
        theta_true: path to true value, for all parameters of the posterior.
        signed: keep the sign (positive: the posterior lies too high).

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> posterior = vb.Posterior({"coupling.G": np.array([[1.0, 2.0, 3.0]])})
        >>> float(vb.zscore(posterior, {"coupling.G": 4.0}, signed=True)["coupling.G"])
        -2.0
    """
    _same_names(posterior, theta_true, "theta_true")
    result = {}
    for name, (mean, variance) in _moments(posterior).items():
        true = np.asarray(theta_true[name], float)
        if true.shape != mean.shape:
            raise ValueError(
                f"theta_true[{name!r}] has shape {list(true.shape)}; this posterior has {list(mean.shape)}"
            )
        z = (mean - true) / np.sqrt(variance)
        result[name] = (z if signed else np.abs(z))[()]
    return result


def in_z(prior: Prior, rows: np.ndarray) -> np.ndarray:
    """Rows of theta `[n, D]` in the space where the prior is standard normal `[n, Dz]`, float64."""
    return np.asarray(prior.ravel_z(prior.unconstrain(prior.unravel(rows))), np.float64)


def like_prior(z: np.ndarray) -> bool:
    """Whether draws in the space where the prior is standard normal `[n, D]` are the prior's, within their noise.

    Every mean within 0.1 of 0 and every variance above 0.95, with three standard errors of n independent draws to
    spare, and no correlation above 0.22 (5 % of a variance).

    >>> rng = np.random.default_rng(0)
    >>> like_prior(rng.normal(size=(500, 2))), like_prior(0.8 * rng.normal(size=(500, 2)))
    (True, False)
    """
    n = len(z)
    near = np.all(np.abs(z.mean(axis=0)) < 0.1 + 3.0 / np.sqrt(n))
    wide = np.all(z.var(axis=0) > (1.0 - NOTHING) * (1.0 - 3.0 * np.sqrt(2.0 / n)))
    apart = np.corrcoef(z.T) if z.shape[1] > 1 else np.eye(1)
    loose = np.all(np.abs(apart[np.triu_indices(len(apart), 1)]) < np.sqrt(NOTHING) + 3.0 / np.sqrt(n))
    return bool(near and wide and loose)


def _moments(posterior: Posterior) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance (ddof=1) of each leaf over all chains."""
    flat = {name: value.astype(float).reshape(-1, *value.shape[2:]) for name, value in posterior.theta.items()}
    if next(iter(flat.values())).shape[0] < 2:
        raise ValueError("this posterior has one draw; a variance needs at least two")
    return {name: (np.asarray(v.mean(axis=0)), np.asarray(v.var(axis=0, ddof=1))) for name, v in flat.items()}


def _same_names(posterior: Posterior, other: Mapping[str, Any], what: str) -> None:
    if set(posterior.theta) != set(other):
        raise ValueError(
            f"the posterior has {', '.join(sorted(posterior.theta))} but {what} has {', '.join(sorted(other))}; "
            f"give the same parameters"
        )
