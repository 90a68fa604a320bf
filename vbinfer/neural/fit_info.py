"""What a fit of a neural density says about itself."""

import dataclasses

import numpy as np


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
        info_gain: held-out mean of log q(theta | x) - log p(theta), nats: what the network knows beyond the prior. Of
            likelihoods and ratios a lower bound: the mean of log q(x | theta) - log mean q(x | theta') over other
            held-out theta', which cannot exceed the logarithm of their number.
        converged: False when the cap on epochs was reached while the held-out loss was still falling.
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
        """The fit in plain words: what was learned, and what to do where something is wrong."""
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
