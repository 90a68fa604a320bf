"""TARP: joint coverage by balls around random points.

From draws alone.
"""

import dataclasses
from typing import Any

import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.diagnostics.calibration.band import ecdf
from vbinfer.diagnostics.calibration.held_out import HeldOut, held_out
from vbinfer.diagnostics.calibration.joint import TARP, tarp_tests
from vbinfer.diagnostics.calibration.tests import RULE, AbstractTested, TestResult, adjust, judge
from vbinfer.diagnostics.figure import DIAGONAL, Band, Figure, Line, Panel, share_axis
from vbinfer.diagnostics.result import Status
from vbinfer.draws.draws import Draws

_POINTS = 101
_RESAMPLED = 400
_BAND = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Tarp(AbstractTested):
    """Result of `vb.diagnostics.tarp`.

    Attributes:
        f: `[n]`, share of draws nearer to the reference point than the truth; uniform if all is right.
        alpha: `[k]`, credibilities 0..1.
        ecp: `[k]`, expected coverage P(f <= alpha); the diagonal if all is right.
        band: `[2, k]`, pointwise 95 % bootstrap limits of ecp over data sets.
        atc: area between curve and diagonal above 1/2: negative overconfident, positive cautious, 0 right or biased.
        tests: rows of `TestResult`.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    question = "Do balls around random points hold truths as often as they say?"
    rule = RULE
    f: np.ndarray
    alpha: np.ndarray
    ecp: np.ndarray
    band: np.ndarray
    atc: float
    tests: tuple[TestResult, ...]
    verdict: Status
    findings: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """How many data sets, and the area."""
        return {"n": len(self.f), "atc": self.atc}

    def figure(self) -> Figure:
        """Expected coverage against credibility, with its bootstrap band."""
        panel = Panel(
            (
                Band(self.alpha, self.band[0], self.band[1], "posterior", "95 % bootstrap"),
                DIAGONAL,
                Line(self.alpha, self.ecp, label="TARP"),
            ),
            share_axis("credibility"),
            share_axis("expected coverage"),
            f"TARP: expected coverage against credibility; area above the diagonal {self.atc:.3f}",
            square=True,
        )
        caption = (
            f"Coverage of balls around random points (TARP), n = {len(self.f)} data sets, with its bootstrap band; "
            f"area above the diagonal beyond 1/2: {self.atc:.2f}."
        )
        return Figure((panel,), caption, "half")


def tarp(source: Any, draws: Draws, *, num_posterior_samples: int = 500, key: PRNGKey) -> Tarp:
    """Test joint coverage with random points, from draws only.

        f = #{l: d(theta_l, theta_r) < d(theta*, theta_r)} / L,   ECP(alpha) = P(f <= alpha)

    d is the distance in units of the prior's sd, theta_r the truth of another data set. Under the null f is a uniform
    rank: the p-values are one-sample tests of it (its mean, and the simultaneous ECDF band), exact at any n. A
    two-sample comparison of the two curves at a few points, as some software makes, has no such null.

    Blind to a posterior that ignores the data, whose curve is the diagonal too as long as theta_r knows nothing of x;
    and weak in many dimensions, where all distances are alike.

    Args:
        source: as for `vb.diagnostics.sbc`.
        draws: held out, never used in training.
        num_posterior_samples: per data set.
        key: randomness.

    Returns:
        `.passed`, `.verdict`, `.findings`, `.ecp`, `.alpha`, `.band`, `.atc`, `.tests`.

    Raises:
        TypeError, ValueError: as `vb.diagnostics.sbc`.

    Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023, ICML, doi:10.48550/arXiv.2302.03026.

    Example:
        found = vb.diagnostics.tarp(amortized, held_out, key=jax.random.key(3))
        found.passed, found.atc
    """
    held = held_out(source, draws, num_posterior_samples=num_posterior_samples, key=key, density=False)
    return build(held, adjust(tarp_tests(held)))


def build(held: HeldOut, tests: tuple[TestResult, ...]) -> Tarp:
    """From coverage fractions; `tests` may be those of a whole study."""
    f = held.nearer
    own = tuple(row for row in tests if row.quantity.startswith(TARP))
    alpha = np.linspace(0.0, 1.0, _POINTS)
    ecp = ecdf(f, alpha)
    rng = held.rng("bootstrap")
    resampled = np.stack([ecdf(rng.choice(f, len(f)), alpha) for _ in range(_RESAMPLED)])
    # an overconfident curve is above the diagonal at the left and below it at the right: one half tells the sign
    upper = alpha >= 0.5
    atc = float(np.trapezoid((ecp - alpha)[upper], alpha[upper]))
    return Tarp(f, alpha, ecp, np.percentile(resampled, _BAND, axis=0), atc, own, *judge(held, own))
