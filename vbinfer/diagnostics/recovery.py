"""What the data taught: shrinkage, z-scores, recovered truths."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats as st

from vbinfer import _check
from vbinfer.posterior import Posterior, variance_shrinkage
from vbinfer.priors.prior import Prior

from .figure import MOST_PANELS, Axis, Band, Figure, Line, Note, Panel, Points, Rule
from .result import AbstractResult, ByLeaf, Shapes, Status, json_able, percent, status_of
from .thresholds import FAMILY_FAIL, FAMILY_WARN, FAR, INTERVAL, NOTHING_LEARNED, WELL_DETERMINED

_WITHIN = float(st.chi2.cdf(FAR**2, 1))  # mass of a normal distribution within FAR sd
_HIGHEST = 6.0  # largest |z| drawn
REGIONS = ("good", "overfitted", "poorly identified", "bad prior model")


def shrinkage(prior: Prior, posterior: Posterior, kind: str = "variance") -> ByLeaf:
    """Posterior shrinkage: how much narrower than the prior.

        kind="variance":  s = 1 - var_post / var_prior        kind="sd":  s = 1 - sd_post / sd_prior

    Also called contraction. 0 is the prior, 1 a point, and below 0 the posterior is wider than the prior. It says
    nothing of whether the posterior is right: look at `zscore` and at calibration as well. Posterior variances have
    ddof=1 over all chains; prior variances are the analytic ones where there is a formula. NaN for a prior without
    finite variance.

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
        >>> round(float(vb.diagnostics.shrinkage(prior, posterior)["coupling.G"]), 6)
        0.99
    """
    kind = _check.one_of(kind, "kind", ("variance", "sd"))
    _check.of_kind(prior, "prior", Prior, "vb.diagnostics.shrinkage(prior, posterior)")
    _check.of_kind(posterior, "posterior", Posterior, "vb.diagnostics.shrinkage(prior, posterior)")
    before, result = prior.variance(), {}
    for name, (_, after) in _moments(posterior, prior.shapes, "the prior").items():
        by_variance = variance_shrinkage(before[name], after)
        result[name] = (by_variance if kind == "variance" else 1.0 - np.sqrt(1.0 - by_variance))[()]
    return result


def zscore(posterior: Posterior, theta_true: Mapping[str, Any], signed: bool = False) -> ByLeaf:
    """Distance of the posterior mean from the truth, in sds.

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
        >>> float(vb.diagnostics.zscore(posterior, {"coupling.G": 4.0}, signed=True)["coupling.G"])
        -2.0
    """
    _check.of_kind(posterior, "posterior", Posterior, "vb.diagnostics.zscore(posterior, theta_true)")
    _check.of_kind(theta_true, "theta_true", Mapping, "a dictionary of path to value")
    result = {}
    for name, (mean, variance) in _moments(posterior, theta_true, "theta_true").items():
        true = np.asarray(theta_true[name], float)
        if true.shape != mean.shape:
            raise ValueError(
                f"theta_true[{name!r}] has shape {list(true.shape)}; this posterior has {list(mean.shape)}"
            )
        z = (mean - true) / np.sqrt(variance)
        result[name] = (z if signed else np.abs(z))[()]
    return result


def nothing_learned(shares: Any) -> np.ndarray:
    """Where data took away too little of the prior's variance.

    The one rule of the package, for the shrinkage of a posterior, for the variance that posterior means move by, and
    for squared correlations of means and truths. False where a share is NaN.

    >>> nothing_learned([0.02, 0.6]).tolist()
    [True, False]
    """
    return np.asarray(shares, float) < NOTHING_LEARNED


def as_rows(leaves: Mapping[str, Any], shapes: Shapes) -> np.ndarray:
    """Leaves `[..., *shape]` as `[..., D]`, ordered as `shapes`.

    In NumPy, which keeps float64.
    """
    flat = []
    for name, shape in shapes.items():
        leaf = np.asarray(leaves[name])
        flat.append(leaf.reshape(*leaf.shape[: leaf.ndim - len(shape)], -1))
    return np.concatenate(flat, axis=-1)


def in_z(prior: Prior, rows: np.ndarray) -> np.ndarray:
    """Rows of theta `[n, D]` in z `[n, Dz]`.

    The space where the prior is standard normal.
    """
    return np.asarray(prior.ravel_z(prior.unconstrain(prior.unravel(rows))), np.float64)


def like_prior(z: np.ndarray) -> bool:
    """Whether draws in z `[n, D]` are the prior's.

    Within their noise:

    Every mean within 0.1 of 0 and nothing learned of any variance, with three standard errors of n independent draws to
    spare, and no correlation that explains more of a variance.

    >>> rng = np.random.default_rng(0)
    >>> like_prior(rng.normal(size=(500, 2))), like_prior(0.8 * rng.normal(size=(500, 2)))
    (True, False)
    """
    n = len(z)
    # the prior is N(0, I) in z: its draws have means 0, variances 1 and no correlations
    near = np.abs(z.mean(axis=0)) < 0.1 + 3.0 / np.sqrt(n)
    wide = z.var(axis=0) > (1.0 - NOTHING_LEARNED) * (1.0 - 3.0 * np.sqrt(2.0 / n))
    apart = np.abs(np.triu(np.atleast_2d(np.corrcoef(z.T)), 1)) < np.sqrt(NOTHING_LEARNED) + 3.0 / np.sqrt(n)
    return bool(near.all() and wide.all() and apart.all())


class RecoveryRow(NamedTuple):
    """One parameter over n data sets with known truths.

    m_i and v_i are the posterior mean and variance given data set i, t_i the truth.
    """

    name: str
    r: float
    """Correlation of m and t."""
    r2: float
    """1 - sum (t - m)^2 / sum (t - mean t)^2; below 0 the prior mean would have been a better guess."""
    nrmse: float
    """sqrt(mean (m - t)^2) / sd of the prior."""
    bias: float
    """mean (m - t), in units of the parameter."""
    z_mean: float
    """Mean of (m - t) / sqrt(v)."""
    z_sd: float
    """Its sd; 1 for normal posteriors of the right width."""
    shrinkage: float
    """Median over data sets of 1 - v / prior variance."""
    mean_shrinkage: float
    """1 - mean v / prior variance: the share of the prior variance that data take away on average."""
    moved: float
    """var m / (var m + mean v), free of Monte-Carlo error: the share of the posteriors' pooled variance that is
    movement of their means with the data. The mean shrinkage if all is right, and 0 for the prior itself."""
    n: int
    within: int
    """Truths within 2 posterior sd of the mean."""
    covered: int
    """Truths inside the central 90 % interval."""
    covered_low: float
    """Clopper-Pearson limits of that share, 95 %."""
    covered_high: float
    p_within: float
    """Of so few `within`, if posteriors were right and normal."""
    p_covered: float
    """Of so many or so few `covered`, two-sided; exact for right posteriors."""

    @property
    def nothing(self) -> bool:
        """Whether posterior means ignore the data or the truth."""
        return bool(nothing_learned([self.moved, self.r * abs(self.r)]).any())


@dataclasses.dataclass(frozen=True)
class Recovered(AbstractResult):
    """Known truths against their posteriors.

    Attributes:
        verdict: of the counts of `rows`.
        findings: one sentence.
        rows: one `RecoveryRow` for each of the D parameters.
        truth: `[n, D]`.
        mean: posterior means `[n, D]`.
        sd: posterior standard deviations `[n, D]`.
        shrinkage: of each posterior against the prior `[n, D]`; NaN where the prior has no variance.
    """

    question = "Does the estimator recover known truths?"
    rule = (
        f"Exact binomial tests of the truths within {FAR:g} sd against {percent(_WITHIN)} and of those in the "
        f"{percent(INTERVAL)} interval, shared over parameters. Warn: p < {FAMILY_WARN:g}. Fail: p < {FAMILY_FAIL:g}."
    )
    verdict: Status
    findings: tuple[str, ...]
    rows: tuple[RecoveryRow, ...]
    truth: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    shrinkage: np.ndarray

    @property
    def numbers(self) -> dict[str, Any]:
        """The rows, JSON-able."""
        return json_able({"n": len(self.truth), "recovery": self.rows})

    def figure(self) -> Figure:
        """True against estimated values, with one sd."""
        panels = []
        for row, true, mean, sd in zip(self.rows[:MOST_PANELS], self.truth.T, self.mean.T, self.sd.T, strict=False):
            shown = np.concatenate([true, mean - sd, mean + sd])
            margin = 0.05 * (np.ptp(shown) or 1.0)
            ends = float(shown.min() - margin), float(shown.max() + margin)
            diagonal = Line(np.array(ends), np.array(ends), "reference", dashed=True)
            panels.append(
                Panel(
                    (diagonal, Points(true, mean, error=sd)),
                    Axis(f"true {row.name}", limits=ends),
                    Axis("posterior mean ± sd", limits=ends),
                    f"True against estimated {row.name} for {row.n} simulated observations",
                    square=True,
                )
            )
        return Figure(panels, f"Known truths against posterior mean and sd, n = {len(self.truth)} data sets.")


def recover(
    names: Sequence[str], truth: np.ndarray, draws: np.ndarray, prior_variance: np.ndarray | None = None
) -> Recovered:
    """Compare known truths with the draws of their posteriors.

    Blind to whether posteriors are right at a given x: many wrong ones have the right counts (`vb.calibrate`).

    Args:
        names: flattened parameters, D of them.
        truth: `[n, D]`.
        draws: of the posterior of each data set `[n, L, D]`.
        prior_variance: `[D]`; by default that of the truths.

    >>> rng = np.random.default_rng(0)
    >>> t = rng.normal(size=(60, 1))
    >>> draws = 0.5 * (t + rng.normal(size=(60, 1)))[:, None] + np.sqrt(0.5) * rng.normal(size=(60, 200, 1))
    >>> recover(["g"], t, draws).verdict
    'pass'
    """
    truth, draws = np.asarray(truth, np.float64), np.asarray(draws, np.float64)
    variance = truth.var(axis=0, ddof=1) if prior_variance is None else np.asarray(prior_variance, float)
    mean, var = draws.mean(axis=1), draws.var(axis=1, ddof=1)
    low, high = np.quantile(draws, [0.5 - INTERVAL / 2, 0.5 + INTERVAL / 2], axis=1)
    covered = ((low <= truth) & (truth <= high)).sum(axis=0).tolist()
    columns = zip(names, truth.T, mean.T, var.T, variance.tolist(), covered, strict=True)
    rows = tuple(_row(*column, draws=draws.shape[1]) for column in columns)
    # two tests for each parameter (Bonferroni)
    smallest = min(min(row.p_within, row.p_covered) for row in rows) * 2 * len(rows)
    words = [
        f"{row.name} {row.within} and {row.covered} (median shrinkage {row.shrinkage:.2f})"
        for row in rows[:MOST_PANELS]
    ]
    said = (
        f"Of {len(truth)} known truths, within {FAR:g} posterior sd and inside the {percent(INTERVAL)} interval: "
        + "; ".join(words)
    )
    status = status_of(smallest, FAMILY_WARN, FAMILY_FAIL)
    return Recovered(status, (said,), rows, truth, mean, np.sqrt(var), variance_shrinkage(variance, var))


def _row(name: str, t: np.ndarray, m: np.ndarray, v: np.ndarray, prior: float, covered: int, draws: int) -> RecoveryRow:
    n, v = len(t), np.maximum(v, 1e-300)
    error, spread = m - t, m.std() * t.std()
    z = error / np.sqrt(v)
    # the variance of means of L draws holds v / L of Monte-Carlo error: take it off
    moved = max(0.0, m.var(ddof=1) - v.mean() / draws)
    within = int((np.abs(z) < FAR).sum())
    low, high = share_limits(covered, n)
    numbers = {
        "r": np.mean((m - m.mean()) * (t - t.mean())) / spread if spread > 0 else 0.0,
        "r2": 1.0 - (error**2).sum() / ((t - t.mean()) ** 2).sum(),
        "nrmse": np.sqrt((error**2).mean() / prior),
        "bias": error.mean(),
        "z_mean": z.mean(),
        "z_sd": z.std(ddof=1),
        "shrinkage": np.median(variance_shrinkage(prior, v)),
        "mean_shrinkage": variance_shrinkage(prior, v.mean()),
        "moved": moved / (moved + v.mean()),
        "covered_low": low,
        "covered_high": high,
        "p_within": st.binom.cdf(within, n, _WITHIN),
        "p_covered": st.binomtest(covered, n, INTERVAL).pvalue,
    }
    return RecoveryRow(
        name, n=n, within=within, covered=covered, **{key: float(value) for key, value in numbers.items()}
    )


def share_limits(k: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson limits of a share k / n, 95 %.

    >>> [round(limit, 3) for limit in share_limits(0, 10)]
    [0.0, 0.308]
    """
    # quantiles of Beta distributions; the two ends are known
    low = 0.0 if k == 0 else float(st.beta.ppf(0.025, k, n - k + 1))
    return low, 1.0 if k == n else float(st.beta.isf(0.025, k + 1, n - k))


def region_of(shrinkage: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Number in `REGIONS` of each pair of shrinkage and z."""
    narrow, far = np.asarray(shrinkage) >= WELL_DETERMINED, np.abs(np.asarray(z)) > FAR
    return np.where(narrow, np.where(far, 1, 0), np.where(far, 3, 2))


def eye(names: Sequence[str], shrinkage: np.ndarray, z: np.ndarray, what: str) -> Figure:
    """|z| against shrinkage `[n, D]`, in four regions.

    Right and low: good. Right and high, overfitted: sure and wrong. Left and low, poorly identified: the data say
    little. Left and high: prior and data disagree (Betancourt 2018, arXiv:1803.08393).
    """
    # what is beyond is drawn at the edge: one wild point must not flatten the others
    height, shrinkage = np.minimum(np.abs(z), _HIGHEST), np.maximum(shrinkage, -1.0)
    top = max(3.5, 1.1 * float(np.nanmax(height)))
    left = min(-0.05, float(np.nanmin(shrinkage)) - 0.05)
    middle = (WELL_DETERMINED + 0.01 - left) / (1.04 - left)
    places = ((middle, 0.03), (0.99, 0.97), (0.01, 0.03), (0.01, 0.97))
    good = Band(np.array([WELL_DETERMINED, 1.04]), np.zeros(2), np.full(2, FAR), "good")
    columns = zip(names[:MOST_PANELS], shrinkage.T, height.T, strict=False)
    points = [Points(x, y, label=name) for name, x, y in columns]
    notes = [Note(x, y, region) for region, (x, y) in zip(REGIONS, places, strict=True)]
    panel = Panel(
        (good, Rule(FAR, "y"), Rule(WELL_DETERMINED, "x"), *points, *notes),
        Axis("shrinkage", limits=(left, 1.04)),
        Axis("|z| of the posterior mean", limits=(0.0, top)),
        f"Absolute z-score against shrinkage of {len(names)} parameters, {what}, in four regions: {', '.join(REGIONS)}",
    )
    caption = (
        f"Shrinkage and |z|, {what}. Right of {WELL_DETERMINED:g} and below {FAR:g}: good. Above, narrow: overfitted, "
        "sure and wrong. Left: poorly identified, the data say little. Above, wide: the prior and the data disagree, a "
        f"bad prior model. Of a right posterior {percent(1.0 - _WITHIN)} of the points lie above {FAR:g}."
    )
    return Figure([panel], caption, "large")


def _moments(posterior: Posterior, other: Mapping[str, Any], what: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance (ddof=1) of each leaf over all chains.

    Of a posterior over the parameters of another mapping.
    """
    if set(posterior.theta) != set(other):
        raise ValueError(
            f"the posterior has {', '.join(sorted(posterior.theta))} but {what} has {', '.join(sorted(other))}; "
            f"give the same parameters"
        )
    if posterior.num_chains * posterior.num_samples < 2:
        raise ValueError("this posterior has one draw; a variance needs at least two")
    leaves = {name: np.asarray(value, float) for name, value in posterior.theta.items()}
    return {name: (v.mean(axis=(0, 1)), v.var(axis=(0, 1), ddof=1)) for name, v in leaves.items()}
