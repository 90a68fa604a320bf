"""Expected coverage: do credible regions hold the truth as often as they say."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.stats as st

from vbinfer._names import PRNGKey
from vbinfer.diagnostics.calibration.heldout import HeldOut, held_out
from vbinfer.diagnostics.calibration.joint import HPD, hpd_tests, hpd_uniforms
from vbinfer.diagnostics.calibration.marginal import WIDTH, marginal_uniforms, width
from vbinfer.diagnostics.calibration.rows import TestRow, adjust, verdict
from vbinfer.diagnostics.calibration.words import (
    aligned,
    circumstances,
    closing,
    numbers,
    overall,
    percent,
    sentences,
    text,
)
from vbinfer.diagnostics.result import AbstractResult
from vbinfer.draws.draws import Draws

LEVELS = (0.5, 0.8, 0.9, 0.95)
_CONFIDENCE = 0.95


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
class Coverage(AbstractResult):
    """Result of `vb.coverage`.

    Attributes:
        rows: at credibilities of 50, 80, 90 and 95 %: joint HPD regions, and the central interval of each parameter.
        credibility: `[n]`, credibility of the smallest HPD region that holds the truth; uniform if all is right.
        tests: rows of `TestRow`.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    rows: tuple[CoverageRow, ...]
    credibility: np.ndarray
    tests: tuple[TestRow, ...]
    verdict: str
    findings: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """JSON-able."""
        rows = [row._asdict() for row in self.rows]
        return numbers(self.verdict, self.findings, self.tests, n=len(self.credibility), coverage=rows)

    def __str__(self) -> str:
        return text(f"Coverage: {self.verdict}", self.findings, self.tests) + "\n\n" + coverage_table(self.rows)


def coverage(source: Any, draws: Draws, *, num_posterior_samples: int = 500, key: PRNGKey) -> Coverage:
    """Expected coverage: over data sets, a region of credibility c should hold the truth in a share c of them.

    Joint highest-density regions {theta: log q(theta | x) > t}: the truth lies in the one of credibility
    1 - u, u the rank of log q(theta* | x) among the draws; without a density, Mahalanobis distance in the draws' own
    mean and covariance takes its place. Central intervals of one parameter: it lies in those above |2 u - 1|.
    Tested: location and shape of the HPD ranks, and each parameter's width.

    Below the diagonal is overconfident, above it cautious. Blind to a posterior that ignores the data: the prior has
    perfect coverage (`vb.sbc` looks at x); to a shift without a change of width, for central intervals nearly.

    Args:
        source: as for `vb.sbc`.
        draws: held out, never used in training.
        num_posterior_samples: per data set.
        key: randomness.

    Returns:
        `.passed`, `.verdict`, `.findings`, `.rows`, `.tests`.

    Raises:
        TypeError, ValueError: as `vb.sbc`.

    Hermans et al. 2022, TMLR, doi:10.48550/arXiv.2110.06581; Deistler, Gonçalves & Macke 2022,
    doi:10.48550/arXiv.2210.04815; Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.

    Example:
        found = vb.coverage(amortized, held_out, key=jax.random.key(3))
        found.passed, found.rows[0]
    """
    held = held_out(source, draws, num_posterior_samples=num_posterior_samples, key=key)
    u, joint = marginal_uniforms(held), hpd_uniforms(held)
    widths = [width(column, name) for name, column in zip(held.names, u.T, strict=True)]
    tests = adjust(hpd_tests(held, joint) + widths)
    return build(held, u, joint, tests)


def build(held: HeldOut, u: np.ndarray, joint: np.ndarray, tests: tuple[TestRow, ...]) -> Coverage:
    """From marginal ranks u `[n, D]` and joint ones `[n]`; `tests` may be those of a whole study."""
    own = tuple(row for row in tests if row.quantity.startswith(HPD) or row.quantity == WIDTH)
    rows = [_row("HPD", "joint", level, 1.0 - joint <= level) for level in LEVELS]
    for name, column in zip(held.names, u.T, strict=True):
        rows += [_row("central", name, level, np.abs(2.0 * column - 1.0) <= level) for level in LEVELS]
    found = (*sentences(own, {}), *circumstances(held), closing(own, len(held)))
    return Coverage(tuple(rows), 1.0 - joint, own, overall(held, verdict(own)), found)


def coverage_table(rows: tuple[CoverageRow, ...]) -> str:
    """One line per region and parameter, one column per credibility."""
    body = [("region", "parameter", *(percent(level) for level in LEVELS))]
    for start in range(0, len(rows), len(LEVELS)):
        group = rows[start : start + len(LEVELS)]
        cells = (f"{100 * row.covered:.0f} ({100 * row.low:.0f}-{100 * row.high:.0f})" for row in group)
        body.append((group[0].region, group[0].parameter, *cells))
    return aligned(body)


def _row(region: str, parameter: str, level: float, inside: np.ndarray) -> CoverageRow:
    n, k, tail = len(inside), int(inside.sum()), (1.0 - _CONFIDENCE) / 2.0
    low = 0.0 if k == 0 else float(st.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(st.beta.isf(tail, k + 1, n - k))
    return CoverageRow(region, parameter, level, k / n, low, high)
