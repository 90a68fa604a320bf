"""Does the fitted model make data like the recording?"""

import dataclasses
from typing import Any

import numpy as np

from vbinfer.draws.predictive import Predictive

from .figure import Axis, Figure, Points, Rule, by_name
from .novelty import min_p
from .result import (
    AbstractResult,
    Names,
    Status,
    chosen,
    features_there,
    json_able,
    listed,
    observation,
    percent,
    status_of,
    worst,
)
from .thresholds import FAILED_FAIL, P_FAIL, P_WARN

FEWEST_REPLICATES = 39
"""Where a two-sided rank can reach 0.05."""
_FARTHEST = 8.0
_MOST_FEATURES = 40
_LONG_ENOUGH = 60
_WARNING = (
    "These p-values use the recording twice, to fit and to check: they lie closer to 1/2 than uniform ones, so a small "
    "one counts and a large one proves little."
)


@dataclasses.dataclass(frozen=True)
class PredictiveCheck(AbstractResult):
    """Result of `vb.diagnostics.predictive_check`.

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

    question = "Does the fitted model make features like the recording's?"
    rule = (
        f"The recording's rank among replicates, over all features together. Warn: p < {P_WARN:g}, or a statistic of "
        f"the series with such a p, or more than {percent(FAILED_FAIL)} of the simulations failed. Fail: p < "
        f"{P_FAIL:g}. The data are used twice: passing is weak evidence."
    )
    verdict: Status
    findings: Names
    p_value: float
    names: Names
    p_features: np.ndarray
    p_adjusted: np.ndarray
    off: Names
    p_series: dict[str, float]
    num_valid: int
    num_failed: int

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        kept = {name: getattr(self, name) for name in ("p_value", "p_series", "off", "num_valid", "num_failed")}
        return json_able(kept | {"p_features": dict(zip(self.names, self.p_features, strict=True))})

    def figure(self) -> Figure:
        """p of each feature and statistic, the smallest first."""
        p = dict(zip(self.names, self.p_adjusted.tolist(), strict=True)) | self.p_series
        names = sorted(p, key=lambda name: p[name])[:_MOST_FEATURES]
        values = np.array([p[name] for name in names])
        panel = by_name(
            (Rule(P_WARN, dashed=True), Points(values, np.arange(len(names)), "observed", "recording")),
            names,
            Axis("p, adjusted for their number", limits=(0.5 * min(P_FAIL, values.min()), 1.0), log=True),
            f"Adjusted p of {len(names)} features of the recording among {self.num_valid} replicates",
        )
        caption = (
            f"How extreme each feature of the recording is among {self.num_valid} replicates, adjusted for looking at "
            f"all of them; dashed: {P_WARN:g}."
        )
        return Figure([panel], caption, "large")


def predictive_check(predictive: Predictive, x_o: Any, *, observed: Any = None) -> PredictiveCheck:
    """Compare the recording with replicates of the fitted model.

        p_j = 2 min(P(x_rep <= x_o), P(x_rep >= x_o)),   P = (1 + #) / (n + 1)

    for each feature. Overall, x_o and the replicates are pooled, each row is scored by its most extreme feature (in
    interquartile ranges from the median) and by the Mahalanobis distance of all, and x_o's scores are ranked among the
    others': exact if x_o were one more replicate, however many features there are and however they depend on another.

    For replicates of the prior this is the prior predictive check (`vb.diagnostics.misspecification` looks closer).
    For those of the posterior the recording was used twice: p-values are conservative, and passing is weak evidence.

    With the series of the replicates (`vb.posterior_predictive(..., series=True)`) and the recording, statistics that
    the Summary may not hold are compared too: mean, sd, lag-1 autocorrelation, mean and spread of FC, match of FC with
    the replicates', distance of the log spectrum from theirs, variance of FCD.

    Args:
        predictive: replicates, 39 or more valid ones.
        x_o: observed summary `[F]`; features that are NaN are missing, left out and named.
        observed: the recording `[T, N]` or an object with `.values`; needs `predictive.ys`.

    Raises:
        ValueError: too few valid replicates (39 is where a rank can reach 0.05 in both tails), another number of
            features or nodes, infinite or no values, or a recording without replicate series.

    Box 1980, doi:10.2307/2982063; Rubin 1984, doi:10.1214/aos/1176346785; Gelman, Meng & Stern 1996, Stat. Sin. 6.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> from vbinfer.draws.predictive import Predictive
        >>> x = np.random.default_rng(0).normal(size=(99, 2))
        >>> replicates = Predictive(x, ("fc.mean", "fc.std"), None, np.ones(99, bool), {})
        >>> vb.diagnostics.predictive_check(replicates, np.array([0.1, 9.0])).off
        ('fc.std',)
    """
    valid = predictive.valid
    row = observation(x_o, predictive.names, gaps=True).astype(float)
    there, gaps = features_there(row[None], predictive.names)
    x, row, names = np.asarray(predictive.x, float)[valid][:, there], row[there], tuple(chosen(predictive.names, there))
    n, failed = len(x), int((~valid).sum())
    if n < FEWEST_REPLICATES:
        raise ValueError(
            f"{n} of {len(valid)} replicates are valid; a two-sided p below 0.05 needs {FEWEST_REPLICATES} or "
            "more: write vb.posterior_predictive(..., n=200)"
        )
    p_features, p_adjusted, p_value = pooled_p(np.concatenate([row[None], x]))
    p_series: dict[str, float] = {}
    if observed is not None:
        labels, statistics = test_quantities(_recordings(predictive, observed))
        p_series = dict(zip(labels, pooled_p(statistics)[1].tolist(), strict=True))
    off = tuple(chosen(names, p_adjusted < P_WARN)) if p_value < P_WARN else ()
    odd = [f"{name} (p = {p:.2g})" for name, p in p_series.items() if p < P_WARN]
    said = _about_features(p_value, off, n) + gaps
    if odd:
        said.append(f"Of the series, these statistics differ: {listed(odd)}.")
    elif p_series:
        said.append(f"Nor does the series differ in {listed(list(p_series), most=9)}.")
    if failed:
        said.append(f"{failed} of {len(valid)} simulations failed and were left out.")
    status = worst([status_of(p_value), "warn" if odd or failed > FAILED_FAIL * len(valid) else "pass"])
    said.append(_WARNING)
    return PredictiveCheck(status, tuple(said), p_value, names, p_features, p_adjusted, off, p_series, n, failed)


def _about_features(p_value: float, off: Names, n: int) -> list[str]:
    if p_value >= P_WARN:
        return [f"The observed features are like those the fitted model makes (p = {p_value:.2g}, {n} replicates)."]
    which = f"Features that it does not make: {listed(off)}." if off else ""
    return [
        f"The recording is unlike what the fitted model makes (p = {p_value:.2g}, {n} replicates).",
        which or "No feature is off by itself: their combination is.",
    ]


def pooled_p(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """p of the first row among all rows.

    By feature `[F]`, corrected for their number `[F]`, and overall.
    """
    first, n = rows[0], len(rows) - 1
    # the first is one of the rows at either side of itself, which is the 1 of (1 + #) / (n + 1)
    p = 2.0 * np.minimum((rows <= first).sum(axis=0), (rows >= first).sum(axis=0)) / (n + 1)
    # centre and spread over all rows, the first among them: that keeps rows exchangeable and ranks exact
    low, centre, high = np.percentile(rows, [25.0, 50.0, 75.0], axis=0)
    spread = np.where(high > low, high - low, rows.std(axis=0))
    size = np.abs(centre)
    constant = spread <= 1e-6 * np.maximum(size, 1e-30)
    # a feature that all rows but one share is as far as can be where it differs
    far = np.abs(rows - centre) / np.where(constant, 1e-6 * np.maximum(size, 1e-6), spread)
    largest = far.max(axis=1)
    adjusted = (1 + np.sum(largest[1:, None] >= far[0], axis=0)) / (n + 1)
    # 1.349 interquartile ranges make one sd; clipped, one wild replicate does not set the covariance
    h = np.clip((rows - centre) / np.where(constant, 1.0, spread) * 1.349, -_FARTHEST, _FARTHEST)
    cov = h.T @ h / len(h)
    share = min(1.0, len(cov) / len(h))  # towards the diagonal, more so with more features than rows
    cov = (1.0 - 0.5 * share) * cov + (0.5 * share + 1e-4) * np.diag(np.diagonal(cov) + 1e-12)
    distance = np.einsum("nf,fn->n", h, np.linalg.solve(cov, h.T))
    overall = min_p(np.stack([largest, distance], axis=1))[0][0]
    return np.minimum(p, 1.0), adjusted, float(overall)


def _recordings(predictive: Predictive, observed: Any) -> np.ndarray:
    """Recording and valid replicates, of one length.

    They are `[1 + n, T, N]`.
    """
    series = predictive.ys
    if series is None or isinstance(series, dict):
        raise ValueError(
            "observed was given, but these replicates hold no series of one monitor; write "
            "vb.posterior_predictive(posterior, fwd, n=..., key=key, series=True)"
        )
    recording = np.asarray(getattr(observed, "values", observed), float)
    series = np.asarray(series, float)[predictive.valid]
    if recording.ndim != 2 or recording.shape[1] != series.shape[2]:
        raise ValueError(
            f"observed has shape {list(recording.shape)}; the replicates are [time, {series.shape[2]}]: give the "
            "recording of the same nodes"
        )
    if not np.isfinite(recording).all():
        raise ValueError("observed holds NaN or infinite numbers; clean the recording")
    return together(recording, series)


def together(recording: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Recording, then replicates, of one length.

    They are `[1 + n, T, N]`.
    """
    length = min(len(recording), series.shape[1])
    return np.concatenate([recording[None, :length], series[:, :length]])


def test_quantities(recordings: np.ndarray) -> tuple[Names, np.ndarray]:
    """Names and values `[n, S]` of statistics of recordings.

    Recordings are `[n, T, N]`.

    Means over nodes: `mean`, `log sd`, `lag-1 autocorrelation`; of functional connectivity, the Pearson correlations of
    nodes: `fc.mean`, `fc.sd`, `fc.match` (correlation with the mean FC of the other recordings), and `fcd.sd` (of the
    correlations between FC in windows of a fifth of the recording); `spectrum`, the root mean square difference of
    the log periodogram in 16 bands from the mean of the other recordings. Statistics that need more than one node
    or 60 samples are left out where there are fewer. Every recording is treated alike, the observed one too.
    """
    length, nodes = recordings.shape[1:]
    centred = recordings - recordings.mean(axis=1, keepdims=True)
    sd = np.maximum(centred.std(axis=1), 1e-30)
    lagged = np.mean(centred[:, 1:] * centred[:, :-1], axis=1) / sd**2
    spectra = _log_spectrum(centred / sd[:, None])
    columns = {
        "mean": recordings.mean(axis=(1, 2)),
        "log sd": np.log(sd).mean(axis=1),
        "lag-1 autocorrelation": lagged.mean(axis=1),
        "spectrum": np.sqrt(np.mean((spectra - _others(spectra)) ** 2, axis=1)),
    }
    if nodes > 1:
        fc = _fc(recordings)
        columns["fc.mean"] = fc.mean(axis=1)
        if nodes > 2:
            columns |= {"fc.sd": fc.std(axis=1), "fc.match": _correlation(fc, _others(fc))}
            if length >= _LONG_ENOUGH:
                columns["fcd.sd"] = np.array([_fcd_sd(one) for one in recordings])
    return tuple(columns), np.stack(list(columns.values()), axis=1)


test_quantities.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # no test of pytest's


def _fc(recordings: np.ndarray) -> np.ndarray:
    """FC above the diagonal `[n, pairs]`.

    0 with a constant node.
    """
    u = recordings - recordings.mean(axis=1, keepdims=True)
    u = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-30)
    rows, columns = np.triu_indices(recordings.shape[2], 1)
    return np.einsum("nti,ntj->nij", u, u)[:, rows, columns]


def _fcd_sd(recording: np.ndarray) -> float:
    window = len(recording) // 5
    starts = np.linspace(0, len(recording) - window, 13).astype(int)
    fc = _fc(np.stack([recording[s : s + window] for s in starts]))
    pairs = np.triu_indices(len(starts), 1)
    return float(_correlation(fc[pairs[0]], fc[pairs[1]]).std())


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return np.sum(a * b, axis=1) / np.maximum(np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1)), 1e-30)


def _log_spectrum(scaled: np.ndarray) -> np.ndarray:
    """Log of the node-averaged periodogram in bands `[n, band]`."""
    power = np.mean(np.abs(np.fft.rfft(scaled, axis=1)[:, 1:]) ** 2, axis=2)
    bands = np.array_split(power, min(16, power.shape[1]), axis=1)
    return np.log(np.maximum(np.stack([band.mean(axis=1) for band in bands], axis=1), 1e-30))


def _others(rows: np.ndarray) -> np.ndarray:
    # mean of the other rows, by subtraction: no row is compared with itself
    return (rows.sum(axis=0) - rows) / max(len(rows) - 1, 1)
