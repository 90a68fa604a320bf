"""What was learned and how well truths were recovered, and whether calibration varies over parameter space."""

from typing import NamedTuple

import numpy as np

from vbinfer.diagnostics.calibration.heldout import HeldOut
from vbinfer.diagnostics.calibration.scores import normal
from vbinfer.diagnostics.contraction import NOTHING

BINS = 5
_NO_GAIN = 1e-3
"""Nats: the rounding of a density that is the prior's."""


class RecoveryRow(NamedTuple):
    """One parameter over all held-out data sets; m_i, v_i posterior mean and variance, t_i the truth."""

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

    @property
    def nothing(self) -> bool:
        """Posterior means do not move with the data, or not with the truth: less than 5 % of the variance each."""
        return self.moved < NOTHING or self.r * abs(self.r) < NOTHING


class LocalRow(NamedTuple):
    """Scores of the data sets in one fifth of the range of something."""

    name: str
    by: str
    """`posterior mean`: under the null scores are standard normal in every bin. `truth`: they are NOT, even if all is
    right: where the truth is extreme, a right posterior is pulled towards the prior. Look, do not test."""
    low: float
    high: float
    n: int
    score_mean: float
    """Positive: truths lie above their posteriors here. Its standard error is 1 / sqrt(n)."""
    score_sd: float
    """Above 1: posteriors are too narrow here."""


class Learned(NamedTuple):
    """What data taught over the prior."""

    rows: tuple[RecoveryRow, ...]
    info_gain: float | None
    """Mean of log q(theta* | x) - log p(theta*), in nats; None without a density or a prior, or if it is infinite."""
    info_gain_se: float | None
    impossible: int
    """Truths to which the posterior gives no density at all."""

    @property
    def nothing(self) -> tuple[str, ...]:
        """Parameters about which nothing was learned."""
        return tuple(row.name for row in self.rows if row.nothing)

    @property
    def nothing_at_all(self) -> bool:
        """No parameter's mean follows its truth, or truths are no more probable than under the prior.

        Data can tell how far a parameter is from its mean and not on which side. Then the means do not move, and only
        the information gain, if it is there and well above zero, says that something was learned.
        """
        if self.info_gain is not None and self.info_gain_se is not None:
            if self.info_gain <= _NO_GAIN:
                return True
            if self.info_gain > max(NOTHING, 3.0 * self.info_gain_se):
                return False
        return len(self.nothing) == len(self.rows)


def learned(held: HeldOut) -> Learned:
    """Recovery of every parameter and information gain."""
    _, sd = held.scale()
    draws, truth = held.draws.astype(np.float64), held.truth.astype(np.float64)
    mean, var = draws.mean(axis=1), draws.var(axis=1, ddof=1)
    rows = []
    for d, name in enumerate(held.names):
        m, v, t = mean[:, d], np.maximum(var[:, d], 1e-300), truth[:, d]
        z = (m - t) / np.sqrt(v)
        spread = m.std()
        moved = max(0.0, m.var(ddof=1) - v.mean() / draws.shape[1])
        rows.append(
            RecoveryRow(
                name,
                float(np.mean((m - m.mean()) * (t - t.mean())) / (spread * t.std())) if spread > 0 else 0.0,
                float(1.0 - ((t - m) ** 2).sum() / ((t - t.mean()) ** 2).sum()),
                float(np.sqrt(((m - t) ** 2).mean()) / sd[d]),
                float((m - t).mean()),
                float(z.mean()),
                float(z.std(ddof=1)),
                float(np.median(1.0 - v / sd[d] ** 2)),
                float(1.0 - v.mean() / sd[d] ** 2),
                float(moved / (moved + v.mean())),
            )
        )
    if held.log_q is None:
        return Learned(tuple(rows), None, None, 0)
    possible = np.isfinite(held.log_q[:, 0])
    if held.log_prior is None or not possible.all():
        return Learned(tuple(rows), None, None, int((~possible).sum()))
    gain = held.log_q[:, 0] - held.log_prior
    return Learned(tuple(rows), float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain))), 0)


def local_rows(held: HeldOut, u: np.ndarray) -> tuple[LocalRow, ...]:
    """Calibration over posterior mean and over truth, in fifths."""
    s, rows = normal(u), []
    for d, name in enumerate(held.names):
        for by, value in (("posterior mean", held.pooled[:, :, d].mean(axis=1)), ("truth", held.truth[:, d])):
            for part in np.array_split(np.argsort(value, kind="stable"), BINS):
                ends = float(value[part[0]]), float(value[part[-1]])
                score = s[part, d]
                rows.append(LocalRow(name, by, *ends, len(part), float(score.mean()), float(score.std(ddof=1))))
    return tuple(rows)
