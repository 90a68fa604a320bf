"""Record of a fit: convergence, information gain and its sentence."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.priors.prior import Prior

CONTRASTS = 511
"""Prior draws that each held-out pair is held against; the bound is capped at log 512 = 6.2 nats."""
HELD = 256
"""Held-out pairs at most for which contrasts are evaluated."""
_STILL_IMPROVING = 0.02
_SHARE = 0.05
_OVERFITS = 0.05


@dataclasses.dataclass(frozen=True)
class FitInfo:
    """Record of one training run.

    Attributes:
        method: what was fitted, `"NPE"`, `"NLE"`, ...
        backend: `"flowjax"` or `"sbi"`.
        train, val: mean loss per draw after each epoch, of an ensemble the mean over its members; `val` on the
            held-out draws. NPE: -log q(z | x), where z is the space in which the prior is standard normal; NLE:
            -log q(h | z) of the standardised summary; NRE: the contrastive loss.
        best_epoch: the epoch whose parameters were kept, counted from 1; 0 is the untrained network.
        info_gain: what the network knows beyond the prior on held-out draws, nats. Posteriors: the mean of
            log q(theta | x) - log p(theta). Likelihoods and ratios: a lower bound, see `contrastive_gain`.
        converged: False when training was cut short, see `has_converged`.
        num_train, num_val: draws trained on and held out.
        seconds: wall time.
        versions: packages that took part.
    """

    method: str
    backend: str
    train: np.ndarray
    val: np.ndarray
    best_epoch: int
    info_gain: float
    converged: bool
    num_train: int
    num_val: int
    seconds: float
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    num_failed: int = 0
    """Draws left out because their simulation failed."""
    members: tuple[float, ...] = ()
    """Held-out loss of each member of an ensemble at its best epoch."""

    @property
    def sentence(self) -> str:
        """What was learned, and what to do if nothing."""
        if self.info_gain <= 0.0:
            learned = (
                f"Nothing learned: on {self.num_val} held-out draws the network knows no more than the prior "
                f"({self.info_gain:.2f} nats); give it more draws, or summaries that depend on the parameters."
            )
        else:
            learned = f"The network gained {self.info_gain:.2f} nats over the prior on {self.num_val} held-out draws."
        parts = [learned]
        if not np.isfinite(self.val).all():
            parts.append("The loss became NaN or infinite in training; lower learning_rate.")
        elif not self.converged:
            option = "max_num_epochs" if self.backend == "sbi" else "max_epochs"
            parts.append(
                f"It was still improving when training stopped at {len(self.val)} epochs; raise {option} "
                f"to {2 * len(self.val)}."
            )
        if self.num_failed:
            total = self.num_train + self.num_val + self.num_failed
            parts.append(f"{self.num_failed} of {total} draws failed and were left out.")
        return " ".join(parts)

    @property
    def notes(self) -> dict[str, Any]:
        """JSON-able notes that a fitted estimator keeps."""
        return {"sentence": self.sentence, "info_gain": self.info_gain, "converged": self.converged}


def has_converged(train: np.ndarray, val: np.ndarray, cap: int) -> bool:
    """Tell whether more epochs would not have bettered a fit.

    False when the cap on epochs ended a fit whose held-out loss still fell over its last third, by 0.02 nats or by a
    twentieth of all that it fell where that is less, and was not yet above the training loss by 0.05 nats: from there
    on draws are what is missing, and a network trained for longer overfits. A loss that was never a number has not
    converged either.

    Args:
        train, val: loss `[epoch]` on training and held-out draws; NaN after the last epoch.
        cap: number of epochs at which training is cut short.
    """
    val = val[: np.flatnonzero(~np.isnan(val))[-1] + 1] if np.isfinite(val).any() else val[:0]
    if len(val) == 0:
        return False
    # ended by patience, or held back by the number of draws: more epochs would not help
    best = int(np.nanargmin(val))
    if len(val) < cap or val[best] - train[best] > _OVERFITS:
        return True
    # how much the last third bettered what came before
    before, last = np.split(val, [len(val) - -(-len(val) // 3)])
    if len(before) == 0:
        return False
    still = np.nanmin(before) - np.nanmin(last)
    return bool(still <= min(_STILL_IMPROVING, _SHARE * (val[0] - val[best])))


def density_gain(log_q: Any, log_prior: Any) -> float:
    """Mean log q(theta | x) - log p(theta), nats."""
    return float(np.mean(np.asarray(log_q) - np.asarray(log_prior)))


def contrastive_gain(
    score: Callable[[np.ndarray, np.ndarray], Any], prior: Prior, z: Any, h: Any, key: PRNGKey
) -> float:
    """Lower bound in nats on what a score knows.

    Mean over held-out pairs of s(z, h) - log[(e^s(z, h) + sum_m e^s(z_m, h)) / (M + 1)], z_m from the prior, M = 511:
    with any score s a lower bound, in expectation, on the mutual information of theta and x, tight for the true
    likelihood and large M, and never above log(M + 1) = 6.2. A term of s that depends on h alone drops out.

    Args:
        score: log-likelihood or log-ratio `[N]` of rows z `[N, D]` and h `[N, H]`; called with N = M + 1.
        prior: source of the contrasts.
        z, h: held-out pairs, of which the first 256 are used.
        key: draws the contrasts.

    van den Oord, Li & Vinyals 2018, doi:10.48550/arXiv.1807.03748.
    """
    others = np.asarray(prior.to_z(prior.sample(key=key, n=CONTRASTS)), np.float32)
    gains = []
    for own, row in zip(np.asarray(z, np.float32)[:HELD], np.asarray(h, np.float32)[:HELD], strict=True):
        # one row of scores per pair, its own first: every call has the same shape, so one program is compiled
        value = np.asarray(score(np.vstack([own, others]), np.tile(row, (CONTRASTS + 1, 1))), float)
        gains.append(value[0] - np.logaddexp.reduce(value))
    return float(np.mean(gains)) + math.log(CONTRASTS + 1)
