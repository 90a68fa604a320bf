"""Posterior draws of many data sets, and their trust."""

import dataclasses

import numpy as np

from vbinfer import _arviz
from vbinfer._names import Theta

FEWEST = 100
"""Draws per chain below which R-hat and effective sample size say nothing."""
_APART = 1.1
"""R-hat beyond which chains as short as these disagree; with 4 x 100 draws it reaches 1.05 by chance (measured)."""
_WORTH = 0.5
"""Share of the n draws that the effective sample size must reach."""


@dataclasses.dataclass(frozen=True)
class ChainBatch:
    """Posterior draws of many data sets.

    With R-hat, effective sample size and divergences of each. R-hat and effective sample size are the worst over the
    unconstrained coordinates, from all `draws` of each chain, of which n were kept, evenly spaced. Both are rank-based,
    so that they are those of the parameters too.

    Attributes:
        theta: leaves `[B, n, ...]`.
        rhat: largest rank-normalised split R-hat `[B]`.
        ess: smallest effective sample size, of bulk and tail `[B]`; at least n where the n draws are near independent.
        diverging: divergent transitions among `draws`, over the chains `[B]`.
        draws: draws per chain behind these numbers `[B]`.
        num_steps: gradients per draw, the mean over the chains `[B]`.
        n: draws kept of each data set.
    """

    theta: Theta
    rhat: np.ndarray
    ess: np.ndarray
    diverging: np.ndarray
    draws: np.ndarray
    num_steps: np.ndarray
    n: int

    @property
    def trusted(self) -> np.ndarray:
        """Data sets `[B]` whose draws can be trusted.

        R-hat at most 1.1 and effective sample size at least n / 2.
        """
        return (self.rhat <= _APART) & (self.ess >= _WORTH * self.n)

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, one sentence per kind."""
        count = len(self.rhat)
        # negated comparisons: NaN, which nobody can judge, counts as bad
        apart, dependent, diverged = ~(self.rhat <= _APART), ~(self.ess >= _WORTH * self.n), self.diverging > 0
        found = []
        if apart.any():
            found.append(
                f"the chains of {int(apart.sum())} of {count} data sets disagree (R-hat above {_APART}, up to "
                f"{np.max(self.rhat):.2f}: data sets {_some(apart)}); give more num_warmup"
            )
        if dependent.any():
            found.append(
                f"the {self.n} draws of {int(dependent.sum())} of {count} data sets are worth fewer than half of that "
                f"(down to {np.min(self.ess):.0f}: data sets {_some(dependent)}); give more max_thinning or a smaller n"
            )
        if diverged.any():
            found.append(
                f"{int(self.diverging.sum())} transitions diverged, in {int(diverged.sum())} of {count} "
                f"data sets ({_some(diverged)}); raise target_accept of the kernel, or mend the likelihood "
                "where it is NaN or infinite"
            )
        return tuple(found)


def judged(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest R-hat and smallest ESS per data set.

    Of z `[B, chain, draw, Dz]`.
    """
    # data sets become elements of one parameter `[chain, draw, B, Dz]`: one call of ArviZ for all
    leaves = {"z": np.moveaxis(z, 0, 2)}
    ess = np.minimum(*(_arviz.ess(leaves, kind)["z"].min(-1) for kind in ("bulk", "tail")))
    if z.shape[1] == 1:
        return np.full(len(z), np.nan), ess
    return _arviz.rhat(leaves)["z"].max(-1), ess


def thinned(z: np.ndarray, n: int) -> np.ndarray:
    """n evenly spaced draws, the last included.

    Of z `[chain, draw, Dz]`: `[n, Dz]`, chains in turn.
    """
    kept = -(-n // len(z))
    # equally far apart and counted from the end: what is left over goes to the beginning, nearest to the warm-up
    rows = np.arange(1, kept + 1) * (z.shape[1] // kept) - 1 + z.shape[1] % kept
    return np.swapaxes(z[:, rows], 0, 1).reshape(-1, z.shape[-1])[:n]


def _some(which: np.ndarray, most: int = 5) -> str:
    found = np.flatnonzero(which).tolist()
    shown = ", ".join(map(str, found[:most]))
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"
