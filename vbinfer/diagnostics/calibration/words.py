"""Sentences and tables of a calibration study, for people who fit brain models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vbinfer._show import aligned
from vbinfer.diagnostics.calibration.heldout import HeldOut
from vbinfer.diagnostics.calibration.rows import FAIL, WARN, TestRow

FEW = 100
_MOST = 12


def sentences(tests: Sequence[TestRow], told: Mapping[str, str]) -> list[str]:
    """What each failed or doubtful test says, worst first; `told` names the feature to look at by parameter."""
    bad = sorted((row for row in tests if row.light != "pass"), key=lambda row: row.p)
    said = [f"{_fault(row, told)} ({row.light}: p = {row.p:.1g}, adjusted {row.p_adjusted:.1g})" for row in bad[:_MOST]]
    if len(bad) > _MOST:
        said.append(f"{len(bad) - _MOST} further tests did not pass; the table lists them")
    return said


def closing(tests: Sequence[TestRow], n: int, what: str = "held-out data sets") -> str:
    """What a pass means, and what would have been seen."""
    smallest = min(row.p_adjusted for row in tests)
    powers = list(dict.fromkeys(row.detects for row in tests))
    return (
        f"{len(tests)} tests on {n} {what}, smallest adjusted p = {smallest:.2g} "
        f"(below {WARN:g} warns, below {FAIL:g} fails). With 90 % probability these tests find {'; '.join(powers)}. "
        "Ranks alone would also pass for the prior itself: look at shrinkage for what was learned"
    )


def circumstances(held: HeldOut) -> list[str]:
    """What is to be said of the data sets whatever the tests say."""
    said, n = [], len(held)
    if held.failed:
        said.append(
            f"{held.failed} of {n + held.failed} held-out simulations failed and were left out: nothing is said of "
            "parameters for which the simulation fails"
        )
    if n < FEW:
        said.append(f"{n} held-out data sets are few: only gross faults can be seen; take 300 or more")
    per = held.draws.shape[1]
    if held.ess < 0.5 * per:
        said.append(
            f"the {per} draws of at least one posterior are worth {held.ess:.0f} independent ones: autocorrelated "
            f"draws make ranks U-shaped; run longer chains or write num_posterior_samples={max(10, int(held.ess))}"
        )
    return said


def doubtful(held: HeldOut) -> bool:
    """Too few data sets, or draws too dependent, for a clean pass."""
    return len(held) < FEW or held.ess < 0.5 * held.draws.shape[1]


def test_table(tests: Sequence[TestRow]) -> str:
    """Rows aligned in columns."""
    body = [("test", "parameter", "statistic", "p", "adjusted", "light", "detects (90 %)")]
    body += [
        (row.quantity, row.parameter, f"{row.statistic:.3g}", f"{row.p:.2g}", f"{row.p_adjusted:.2g}", row.light,
         row.detects)
        for row in tests
    ]  # fmt: skip
    return aligned(body)


test_table.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # no test of pytest's


def overall(held: HeldOut, light: str) -> str:
    """The verdict of the tests, no better than `warn` where the data sets are too few."""
    return "warn" if light == "pass" and doubtful(held) else light


def numbers(light: str, findings: tuple[str, ...], tests: tuple[TestRow, ...], **more: Any) -> dict[str, Any]:
    """The JSON-able part that all results of this folder share."""
    return {"verdict": light, "findings": list(findings), **more, "tests": [row._asdict() for row in tests]}


def text(head: str, findings: tuple[str, ...], tests: tuple[TestRow, ...]) -> str:
    """Verdict, findings and table."""
    return "\n".join([head, *(f"- {sentence}" for sentence in findings), "", test_table(tests)])


def _fault(row: TestRow, told: Mapping[str, str]) -> str:
    name, value = row.parameter, row.statistic
    look = f"; look at {told[name]} first" if name in told else ""
    share = f"{100 * value:.0f} %"
    faults = {
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
    return faults.get(row.quantity, f"{name}: {row.quantity} is off")


def percent(value: float) -> str:
    """`0.5` as `50 %`.

    >>> percent(0.5)
    '50 %'
    """
    return f"{100 * value:g} %" if np.isfinite(value) else "-"
