"""Expected coverage: do regions hold truths often enough?

Credible regions, and by TARP balls around random points, from draws alone.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from vbinfer._names import PRNGKey
from vbinfer._show import aligned
from vbinfer.diagnostics.figure import DIAGONAL, Band, Figure, Line, Panel, share_axis
from vbinfer.diagnostics.recovery import share_limits
from vbinfer.diagnostics.result import Status, percent
from vbinfer.diagnostics.thresholds import BAND
from vbinfer.draws.draws import Draws

from .band import ecdf, ecdf_band
from .held_out import HeldOut, held_out
from .rank_tests import HPD, TARP, WIDTH, hpd_tests, tarp_tests, width
from .tests import RULE, AbstractTested, TestResult, adjust, as_text, judge

LEVELS = (0.5, 0.8, 0.9, 0.95)
_GRID = np.linspace(0.0, 1.0, 101)


class CoverageRow(NamedTuple):
    """How often regions of one credibility held the truth."""

    region: str
    """`HPD` for all parameters together, `central` for the interval between equal tails of one."""
    parameter: str
    level: float
    covered: float
    """Share of the n data sets."""
    low: float
    """Clopper-Pearson limits of that share, 95 %: exact for a binomial count."""
    high: float


@dataclasses.dataclass(frozen=True)
class Coverage(AbstractTested):
    """Result of `vb.diagnostics.coverage`.

    Attributes:
        rows: at credibilities of 50, 80, 90 and 95 %: joint HPD regions, and the central interval of each parameter.
        credibility: `[n]`, credibility of the smallest HPD region that holds the truth; uniform if all is right.
        central: `[n, D]`, credibility of the smallest central interval of each parameter that does.
        tests: rows of `TestResult`.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    question = "Do credible regions hold truths as often as they say?"
    rule = RULE
    rows: tuple[CoverageRow, ...]
    credibility: np.ndarray
    central: np.ndarray
    tests: tuple[TestResult, ...]
    verdict: Status
    findings: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """How many data sets, and the rows."""
        return {"n": len(self.credibility), "coverage": self.rows}

    def __str__(self) -> str:
        return f"{as_text(self)}\n\n{coverage_table(self.rows)}"

    def figure(self) -> Figure:
        """Share of truths inside regions of each credibility."""
        n = len(self.credibility)
        band = ecdf_band(n)
        lines = [
            Line(_GRID, ecdf(one, _GRID), "other", "central, one parameter"[: 99 * (i == 0)], thin=True)
            for i, one in enumerate(self.central.T)
        ]
        panel = Panel(
            (
                Band(band.points, band.lower, band.upper),
                DIAGONAL,
                *lines,
                Line(_GRID, ecdf(self.credibility, _GRID), label="joint HPD"),
            ),
            share_axis("credibility"),
            share_axis("share of truths inside"),
            "Expected coverage: " + ", ".join(
                f"{percent(row.covered)} of truths in {percent(row.level)} regions"
                for row in self.rows if row.region == HPD
            ),
            square=True,
        )  # fmt: skip
        caption = (
            f"Share of truths inside regions of each credibility, n = {n} data sets, with the simultaneous "
            f"{percent(BAND)} band (grey); below the diagonal is overconfident."
        )
        return Figure([panel], caption, "half")


def coverage(source: Any, draws: Draws, *, num_posterior_samples: int = 500, key: PRNGKey) -> Coverage:
    """Expected coverage of credible regions.

    Over data sets, a region of credibility c should hold the truth in a share c of them.

    Joint highest-density regions {theta: log q(theta | x) > t}: the truth lies in the one of credibility
    1 - u, u the rank of log q(theta* | x) among the draws; without a density, Mahalanobis distance in the draws' own
    mean and covariance takes its place. Central intervals of one parameter: it lies in those above |2 u - 1|.
    Tested: location and shape of the HPD ranks, and each parameter's width.

    Below the diagonal is overconfident, above it cautious. Blind to a posterior that ignores the data: the prior has
    perfect coverage (`vb.diagnostics.sbc` looks at x); to a shift without a change of width, for central intervals
    nearly.

    Args:
        source: as for `vb.diagnostics.sbc`.
        draws: held out, never used in training.
        num_posterior_samples: per data set.
        key: randomness.

    Returns:
        `.passed`, `.verdict`, `.findings`, `.rows`, `.tests`.

    Raises:
        TypeError, ValueError: as `vb.diagnostics.sbc`.

    Hermans et al. 2022, TMLR, doi:10.48550/arXiv.2110.06581; Deistler, Gonçalves & Macke 2022,
    doi:10.48550/arXiv.2210.04815; Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.

    Example:
        found = vb.diagnostics.coverage(amortized, held_out, key=jax.random.key(3))
        found.passed, found.rows[0]
    """
    held = held_out(source, draws, num_posterior_samples=num_posterior_samples, key=key)
    widths = [width(column, name) for name, column in zip(held.names, held.u.T, strict=True)]
    return coverage_of(held, adjust(hpd_tests(held) + widths))


def coverage_of(held: HeldOut, tests: tuple[TestResult, ...]) -> Coverage:
    """From ranks; `tests` may be a whole study's."""
    own = tuple(row for row in tests if row.quantity.startswith(HPD) or row.quantity == WIDTH)
    # the truth lies in the HPD region of credibility 1 - u, u the share of draws less dense than it;
    # in the central interval between the quantiles (1 - c) / 2 and (1 + c) / 2 if c >= |2 u - 1|
    credibility, central = 1.0 - held.joint, np.abs(2.0 * held.u - 1.0)
    columns = [(HPD, "joint", credibility)]
    columns += [("central", name, column) for name, column in zip(held.names, central.T, strict=True)]
    n, rows = len(held), []
    for region, name, column in columns:
        for level in LEVELS:
            inside = int((column <= level).sum())
            rows.append(CoverageRow(region, name, level, inside / n, *share_limits(inside, n)))
    return Coverage(tuple(rows), credibility, central, own, *judge(held, own))


def coverage_table(rows: tuple[CoverageRow, ...]) -> str:
    """One line per region and parameter, one column per credibility."""
    body = [("region", "parameter", *(percent(level) for level in LEVELS))]
    for start in range(0, len(rows), len(LEVELS)):
        group = rows[start : start + len(LEVELS)]
        cells = (f"{100 * row.covered:.0f} ({100 * row.low:.0f}-{100 * row.high:.0f})" for row in group)
        body.append((group[0].region, group[0].parameter, *cells))
    return aligned(body)


_POINTS = 101
_RESAMPLED = 400
_LIMITS = (2.5, 97.5)


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
        return Figure([panel], caption, "half")


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
    return tarp_of(held, adjust(tarp_tests(held)))


def tarp_of(held: HeldOut, tests: tuple[TestResult, ...]) -> Tarp:
    """From ranks; `tests` may be a whole study's."""
    f = held.nearer
    own = tuple(row for row in tests if row.quantity.startswith(TARP))
    alpha = np.linspace(0.0, 1.0, _POINTS)
    ecp = ecdf(f, alpha)
    rng = held.rng("bootstrap")
    resampled = np.stack([ecdf(rng.choice(f, len(f)), alpha) for _ in range(_RESAMPLED)])
    # an overconfident curve is above the diagonal at the left and below it at the right: one half tells the sign
    upper = alpha >= 0.5
    atc = float(np.trapezoid((ecp - alpha)[upper], alpha[upper]))
    return Tarp(f, alpha, ecp, np.percentile(resampled, _LIMITS, axis=0), atc, own, *judge(held, own))
