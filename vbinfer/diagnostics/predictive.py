"""Does the fitted model make data like the recording: predictive p-values of features and of series."""

import dataclasses
from typing import Any

import numpy as np

from vbinfer.diagnostics.result import AbstractResult, Status, listed, status_of, worst
from vbinfer.diagnostics.series import series_statistics
from vbinfer.diagnostics.thresholds import P_WARN
from vbinfer.diagnostics.typical import min_p
from vbinfer.draws.predictive import Predictive

FEWEST_REPLICATES = 39
"""Where a two-sided rank can reach 0.05."""
_FARTHEST = 8.0
_WARNING = (
    "These p-values use the recording twice, to fit and to check: they lie closer to 1/2 than uniform ones, so a small "
    "one counts and a large one proves little."
)


@dataclasses.dataclass(frozen=True)
class PredictiveCheck(AbstractResult):
    """Result of `vb.predictive_check`.

    Attributes:
        verdict: `fail` when the recording is unlike the replicates (p < 0.01); `warn` when p < 0.05, when
            single statistics of the series are, or more than a fifth of the simulations failed.
        findings: sentences, with the warning about using data twice.
        p_value: of "x_o is one more replicate", over all features and their combination.
        names: names of the F features.
        p_features: two-sided p of each, 2 min(p, 1 - p) with (r + 1) / (n + 1) `[F]`.
        p_adjusted: the same corrected for looking at F features `[F]`.
        off: names of features with `p_adjusted` below 0.05.
        p_series: p of each statistic of the series, corrected for their number likewise; empty without `observed`.
        num_valid, num_failed: replicates used, and left out because they failed.
    """

    verdict: Status
    findings: tuple[str, ...]
    p_value: float
    names: tuple[str, ...]
    p_features: np.ndarray
    p_adjusted: np.ndarray
    off: tuple[str, ...]
    p_series: dict[str, float]
    num_valid: int
    num_failed: int

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        by_name = dict(zip(self.names, self.p_features.tolist(), strict=True))
        counts = {"num_valid": self.num_valid, "num_failed": self.num_failed}
        return {"p_value": self.p_value, "p_features": by_name, "p_series": self.p_series, "off": [*self.off], **counts}


def predictive_check(predictive: Predictive, x_o: Any, *, observed: Any = None) -> PredictiveCheck:
    """Predictive check: are the observed features, and the recording, like what the fitted model makes?

        p_j = 2 min(P(x_rep <= x_o), P(x_rep >= x_o)),   P = (1 + #) / (n + 1)

    for each feature. Overall, x_o and the replicates are pooled, each row is scored by its most extreme feature (in
    interquartile ranges from the median) and by the Mahalanobis distance of all, and x_o's scores are ranked among the
    others': exact if x_o were one more replicate, however many features there are and however they depend on another.

    For replicates of the prior this is the prior predictive check (`vb.misspecification` looks closer). For those of
    the posterior the recording was used twice: p-values are conservative, and passing is weak evidence.

    With the series of the replicates (`vb.posterior_predictive(..., series=True)`) and the recording, statistics that
    the Summary may not hold are compared too: mean, sd, lag-1 autocorrelation, mean and spread of FC, match of FC with
    the replicates', distance of the log spectrum from theirs, variance of FCD.

    Args:
        predictive: replicates, 39 or more valid ones.
        x_o: observed summary `[F]`.
        observed: the recording `[T, N]` or an object with `.values`; needs `predictive.ys`.

    Raises:
        ValueError: too few valid replicates (39 is where a rank can reach 0.05 in both tails), another number of
            features or nodes, NaN, or a recording without replicate series.

    Box 1980, doi:10.2307/2982063; Rubin 1984, doi:10.1214/aos/1176346785; Gelman, Meng & Stern 1996, Stat. Sin. 6.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> x = np.random.default_rng(0).normal(size=(99, 2))
        >>> replicates = vb.Predictive(x, ("fc.mean", "fc.std"), None, np.ones(99, bool), {})
        >>> vb.predictive_check(replicates, np.array([0.1, 9.0])).off
        ('fc.std',)
    """
    valid = np.asarray(predictive.valid, bool)
    x, names = np.asarray(predictive.x, float)[valid], tuple(predictive.names)
    row = np.asarray(x_o, float)
    if row.shape != (len(names),):
        raise ValueError(f"x_o has shape {list(row.shape)}; the replicates have {len(names)} features: expected [F]")
    bad = [names[i] for i in np.flatnonzero(~np.isfinite(row))]
    if bad:
        raise ValueError(f"x_o has NaN or infinite values in {listed(bad)}; clean the recording")
    if len(x) < FEWEST_REPLICATES:
        raise ValueError(
            f"{len(x)} of {len(valid)} replicates are valid; a two-sided p below 0.05 needs {FEWEST_REPLICATES} or "
            "more: write vb.posterior_predictive(..., n=200)"
        )
    p_features, p_adjusted, p_value = pooled_p(np.concatenate([row[None], x]))
    p_series: dict[str, float] = {}
    if observed is not None:
        recordings = _recordings(predictive, observed)
        labels, statistics = series_statistics(recordings)
        p_series = dict(zip(labels, pooled_p(statistics)[1].tolist(), strict=True))
    off = tuple(names[j] for j in np.flatnonzero(p_adjusted < P_WARN) if p_value < P_WARN)
    odd = [name for name, p in p_series.items() if p < P_WARN]
    failed = int((~valid).sum())
    doubtful: Status = "warn" if odd or failed > 0.2 * len(valid) else "pass"
    light = worst([status_of(p_value), doubtful])
    found = PredictiveCheck(light, (), p_value, names, p_features, p_adjusted, off, p_series, len(x), failed)
    return dataclasses.replace(found, findings=_findings(found, odd))


def pooled_p(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """p of the first row among all: by feature `[F]`, corrected for their number `[F]`, and overall."""
    first, rest = rows[0], rows[1:]
    n = len(rest)
    p = 2.0 * np.minimum(1 + np.sum(rest <= first, axis=0), 1 + np.sum(rest >= first, axis=0)) / (n + 1)
    low, centre, high = np.percentile(rows, [25.0, 50.0, 75.0], axis=0)
    spread = np.where(high > low, high - low, rows.std(axis=0))
    constant = spread <= 1e-6 * np.maximum(np.abs(centre), 1e-30)
    # a feature that all rows but one share is as far as can be where it differs
    far = np.abs(rows - centre) / np.where(constant, 1e-6 * np.maximum(np.abs(centre), 1e-6), spread)
    largest = far.max(axis=1)
    adjusted = (1 + np.sum(largest[1:, None] >= far[0], axis=0)) / (n + 1)
    h = np.clip((rows - centre) / np.where(constant, 1.0, spread) * 1.349, -_FARTHEST, _FARTHEST)
    cov = h.T @ h / len(h)
    share = min(1.0, len(cov) / len(h))  # towards the diagonal, more so with more features than rows
    cov = (1.0 - 0.5 * share) * cov + (0.5 * share + 1e-4) * np.diag(np.diagonal(cov) + 1e-12)
    distance = np.einsum("nf,fn->n", h, np.linalg.solve(cov, h.T))
    overall = min_p(np.stack([largest, distance], axis=1))[0][0]
    return np.minimum(p, 1.0), adjusted, float(overall)


def _recordings(predictive: Predictive, observed: Any) -> np.ndarray:
    """The recording and the series of the valid replicates `[1 + n, T, N]`, cut to the shorter length."""
    series = predictive.ys
    if series is None or isinstance(series, dict):
        raise ValueError(
            "observed was given, but these replicates hold no series of one monitor; write "
            "vb.posterior_predictive(posterior, fwd, n=..., key=key, series=True)"
        )
    recording = np.asarray(getattr(observed, "values", observed), float)
    series = np.asarray(series, float)[np.asarray(predictive.valid, bool)]
    if recording.ndim != 2 or recording.shape[1] != series.shape[2]:
        raise ValueError(
            f"observed has shape {list(recording.shape)}; the replicates are [time, {series.shape[2]}]: give the "
            "recording of the same nodes"
        )
    if not np.isfinite(recording).all():
        raise ValueError("observed holds NaN or infinite numbers; clean the recording")
    length = min(len(recording), series.shape[1])
    return np.concatenate([recording[None, :length], series[:, :length]])


def _findings(found: PredictiveCheck, odd: list[str]) -> tuple[str, ...]:
    n, said = found.num_valid, []
    if found.p_value < P_WARN:
        said.append(f"The recording is unlike what the fitted model makes (p = {found.p_value:.2g}, {n} replicates).")
        if found.off:
            said.append(f"Features that it does not make: {listed(found.off)}.")
        else:
            said.append("No feature is off by itself: their combination is.")
    else:
        said.append(
            f"The observed features are like those the fitted model makes (p = {found.p_value:.2g}, {n} replicates)."
        )
    if odd:
        numbers = [f"{name} (p = {found.p_series[name]:.2g})" for name in odd]
        said.append(f"Of the series, these statistics differ: {listed(numbers)}.")
    elif found.p_series:
        said.append(f"Nor does the series differ in {listed(list(found.p_series), most=9)}.")
    if found.num_failed:
        said.append(f"{found.num_failed} of {n + found.num_failed} simulations failed and were left out.")
    return (*said, _WARNING)
