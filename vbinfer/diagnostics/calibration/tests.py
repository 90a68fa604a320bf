"""Tests of a calibration study, with one false-alarm rate."""

import abc
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize as so
import scipy.stats as st

from vbinfer._show import aligned
from vbinfer.diagnostics.result import AbstractResult, Names, Status, json_able, percent, status_of, worst
from vbinfer.diagnostics.thresholds import (
    EFFECTIVE_SHARE,
    FAMILY_FAIL,
    FAMILY_WARN,
    FEW_DATA_SETS,
    FEWEST_RANKED,
    POWER,
    WANTED_DATA_SETS,
)

from .held_out import HeldOut

_MOST = 12
RULE = (
    f"All tests of a study share a false-alarm rate of {percent(FAMILY_WARN)} (Holm). Warn: adjusted p below "
    f"{FAMILY_WARN:g}, fewer than {FEW_DATA_SETS} data sets, or draws worth less than {percent(EFFECTIVE_SHARE)} of "
    f"their number. Fail: adjusted p below {FAMILY_FAIL:g}."
)


class RawTest(NamedTuple):
    """One test before it is adjusted for the others."""

    quantity: str
    parameter: str
    statistic: float
    p: float
    kind: str
    """`mean`, `spread`, `shape`, `regression`: which formula gives the power."""
    n: int
    dof: int = 1
    """Regressors of a regression."""


class TestResult(NamedTuple):
    """One test of a calibration study."""

    __test__ = False  # the name is no invitation to pytest

    quantity: str
    """`location`, `width`, `shape`, `location given x`, `width given x`, `dependence`, `HPD ...`, `TARP ...`."""
    parameter: str
    """Flattened name, a pair of them, the name of a test quantity, or `joint`."""
    statistic: float
    p: float
    p_adjusted: float
    """Holm's, over all tests of the study."""
    status: Status
    """`pass`, `warn` (adjusted p < 0.05) or `fail` (< 0.001)."""
    detects: str
    """What this test finds with 90 % probability at this n and this many tests. Shifts are in sds of the score, which
    for `location` is the posterior's sd."""


class AbstractTested(AbstractResult, abc.ABC):
    """Base class of results that are a table of tests."""

    tests: tuple[TestResult, ...]
    verdict: Status
    findings: Names

    @property
    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """Numbers beside those of the tests."""

    @property
    def numbers(self) -> dict[str, Any]:
        """Verdict, findings, facts and tests, JSON-able."""
        said = {"verdict": self.verdict, "findings": list(self.findings)}
        return json_able(said | self.facts | {"tests": self.tests})

    def __str__(self) -> str:
        return as_text(self)


def as_text(result: AbstractTested) -> str:
    """Verdict, findings and table."""
    said = (f"- {sentence}" for sentence in result.findings)
    return "\n".join([f"{type(result).__name__}: {result.verdict}", *said, "", test_table(result.tests)])


def adjust(raw: Sequence[RawTest]) -> tuple[TestResult, ...]:
    """Holm's step-down adjustment of p-values.

    The chance that a right posterior gets any row below 0.05 is at most 5 %.

    >>> [round(row.p_adjusted, 3) for row in adjust([RawTest("shape", "g", 0.1, p, "shape", 9) for p in (0.01, 0.04)])]
    [0.02, 0.04]
    """
    p = np.array([row.p for row in raw])
    if np.isnan(p).any():
        row = raw[int(np.isnan(p).argmax())]
        raise ValueError(f"the test of {row.quantity} of {row.parameter} has no p-value; its numbers are not finite")
    # the k-th smallest p is multiplied by the number of tests not smaller, and never falls below one before it
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    # power is told for the strictest step, at which a lone fault must be seen
    told = functools.cache(functools.partial(detects, level=FAMILY_WARN / len(p)))
    return tuple(
        TestResult(*row[:4], q, status_of(q, FAMILY_WARN, FAMILY_FAIL), told(row.kind, row.n, row.dof))
        for row, q in zip(raw, adjusted.tolist(), strict=True)
    )


def judge(
    held: HeldOut, tests: Sequence[TestResult], hints: Mapping[str, str] = MappingProxyType({})
) -> tuple[Status, Names]:
    """Verdict and findings of adjusted tests."""
    return verdict_of(held, tests), (*faults(tests, hints), *caveats(held), summary(tests, len(held)))


def verdict_of(held: HeldOut, tests: Sequence[TestResult]) -> Status:
    """The worst of the tests and the data.

    Too few data sets, or draws too dependent, for a clean pass.
    """
    poor = len(held) < FEW_DATA_SETS or _dependent(held)
    return worst([*(row.status for row in tests), "warn" if poor else "pass"])


def _dependent(held: HeldOut) -> bool:
    return held.ess < EFFECTIVE_SHARE * held.draws.shape[1]


def detects(kind: str, n: int, dof: int, level: float) -> str:
    """What a test finds with 90 % probability, in words.

    Args:
        kind: as in `RawTest`.
        n: scores.
        dof: regressors.
        level: two-sided level of the test.
    """
    if kind == "mean":
        shift = (st.norm.isf(level / 2) + st.norm.isf(1 - POWER)) / np.sqrt(n)
        return f"a shift of {shift:.2f} sd"
    if kind == "spread":
        # scores of a posterior whose sd is c times the right one have sd 1 / c
        narrow = np.sqrt(st.chi2.ppf(1 - POWER, n) / st.chi2.isf(level / 2, n))
        wide = np.sqrt(st.chi2.ppf(POWER, n) / st.chi2.ppf(level / 2, n))
        return f"an sd {100 * (1 - narrow):.0f} % too small or {100 * (wide - 1):.0f} % too large"
    if kind == "shape":
        # Massart's bound with the constant 2 of Dvoretzky, Kiefer & Wolfowitz
        gap = np.sqrt(np.log(2 / level) / (2 * n)) + st.norm.isf(1 - POWER) * 0.5 / np.sqrt(n)
        return f"an ECDF {gap:.2f} off"
    return f"{100 * _share(n, dof, level):.0f} % of the score's variance told by x"


def _share(n: int, dof: int, level: float) -> float:
    """Population R^2 at which an F-test has the wanted power."""
    rest = n - 1 - dof
    critical = st.f.isf(level, dof, rest)
    power = lambda nc: st.ncf.sf(critical, dof, rest, nc) - POWER  # noqa: E731
    high = 10.0
    while power(high) < 0:
        high *= 2.0
    nc = float(np.asarray(so.brentq(power, 1e-6, high)))
    return nc / (nc + n)


def faults(tests: Sequence[TestResult], hints: Mapping[str, str]) -> list[str]:
    """What each test that did not pass says, worst first.

    `hints` names, by parameter, the feature to look at.
    """
    bad = sorted((row for row in tests if row.status != "pass"), key=lambda row: row.p)
    said = [
        f"{_fault(row, hints)} ({row.status}: p = {row.p:.1g}, adjusted {row.p_adjusted:.1g})" for row in bad[:_MOST]
    ]
    if len(bad) > _MOST:
        said.append(f"{len(bad) - _MOST} further tests did not pass; the table lists them")
    return said


def summary(tests: Sequence[TestResult], n: int, what: str = "held-out data sets") -> str:
    """What a pass means, and what would have been seen."""
    smallest = min(row.p_adjusted for row in tests)
    powers = list(dict.fromkeys(row.detects for row in tests))
    return (
        f"{len(tests)} tests on {n} {what}, smallest adjusted p = {smallest:.2g} (below {FAMILY_WARN:g} warns, below "
        f"{FAMILY_FAIL:g} fails). With {percent(POWER)} probability these tests find {'; '.join(powers)}. "
        "Ranks alone would also pass for the prior itself: look at shrinkage for what was learned"
    )


def caveats(
    held: HeldOut, runs: str = "held-out simulations", sets: str = "held-out data sets", left_out: int = 0
) -> list[str]:
    """What the data allow to say, whatever tests find."""
    said, n, per = [], len(held), held.draws.shape[1]
    if held.failed:
        said.append(
            f"{held.failed} of {n + held.failed + left_out} {runs} failed and were left out: nothing is said of "
            "parameters for which the simulation fails"
        )
    if n < FEW_DATA_SETS:
        said.append(f"{n} {sets} are few: only gross faults can be seen; take {WANTED_DATA_SETS} or more")
    if _dependent(held):
        fewer = max(FEWEST_RANKED, int(held.ess))
        said.append(
            f"the {per} draws of at least one posterior are worth {held.ess:.0f} independent ones: autocorrelated "
            "draws make ranks U-shaped; run longer chains (vb.sampling.ChainSampler: more num_warmup or max_thinning), "
            f"or write num_posterior_samples={fewer}"
        )
    return said


def test_table(tests: Sequence[TestResult]) -> str:
    """Rows aligned in columns."""
    body = [("test", "parameter", "statistic", "p", "adjusted", "status", f"detects ({percent(POWER)})")]
    body += [
        (row.quantity, row.parameter, f"{row.statistic:.3g}", f"{row.p:.2g}", f"{row.p_adjusted:.2g}", row.status,
         row.detects)
        for row in tests
    ]  # fmt: skip
    return aligned(body)


test_table.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # no test of pytest's


def _fault(row: TestResult, hints: Mapping[str, str]) -> str:
    name, value = row.parameter, row.statistic
    look = f"; look at {hints[name]} first" if name in hints else ""
    share = f"{100 * value:.0f} %"
    said = {
        "location": f"{name}: the posterior lies too {'low' if value > 0 else 'high'}, by about {abs(value):.2f} of "
        "its sd",
        "width": f"{name}: the posterior is too {'narrow' if value > 1 else 'wide'}, its sd about {1 / value:.2f} "
        "times what it should be",
        "shape": f"{name}: the ranks are not uniform, {value:.2f} off at worst; the posterior's shape is wrong",
        "location given x": f"{name}: x still tells where the truth lies within its posterior ({share} of the "
        f"variance): the posterior leaves out or misreads what a feature says{look}",
        "width given x": f"{name}: the posterior's width is wrong depending on x ({share} of the variance)",
        "dependence": f"{name}: the posterior correlation is too {'low' if value > 0 else 'high'}",
        "HPD location": "joint credible regions hold the truth "
        + ("more often than they say: too cautious" if value > 0 else "less often than they say: overconfident"),
        "HPD shape": f"joint credible regions do not hold the truth as often as they say, {value:.2f} off at worst",
        "TARP location": f"joint: truths lie systematically {'farther from' if value > 0 else 'nearer to'} random "
        "points than posterior draws do (TARP)",
        "TARP shape": f"joint: coverage around random points is {value:.2f} off at worst (TARP)",
    }
    return said.get(row.quantity, f"{name}: {row.quantity} is off")
