"""The questions of a report that a diagnostic answers: its light, its sentences, its rule."""

import dataclasses
from typing import NamedTuple

import numpy as np

from vbinfer.diagnostics.agreement import Agreement
from vbinfer.diagnostics.comparison import Comparison
from vbinfer.diagnostics.influence import Sensitivity
from vbinfer.diagnostics.leave_one_out import Loo
from vbinfer.diagnostics.local import LC2ST
from vbinfer.diagnostics.local_sbc import PosteriorSbc

from .asked import Diagnostic, paragraph
from .evidence import Evidence
from .verdict import Check, Status
from .words import two

TRUTH_WARN, TRUTH_FAIL = 0.05, 0.001


class Kind(NamedTuple):
    """How a report speaks of one kind of result: its question, its section and heading, and its rule."""

    question: str
    anchor: str
    title: str
    rule: str


KINDS: tuple[tuple[type, Kind], ...] = (
    (
        LC2ST,
        Kind(
            "Is the posterior right at this recording?",
            "local",
            "Local calibration",
            "A classifier tries to tell posterior draws from truths around this recording (vb.lc2st). "
            "Fail: p < 0.01. Warn: p < 0.05, or the recording lies outside the simulations.",
        ),
    ),
    (
        PosteriorSbc,
        Kind(
            "Is the method right for data like this recording?",
            "posterior-sbc",
            "Calibration around this recording",
            "vb.posterior_sbc: replicates simulated from the posterior's own draws, which are ranked in the posteriors "
            "given recording and replicate; tests share a false-alarm rate of 5 % (Holm). Warn: adjusted p below 0.05, "
            "few replicates, a fifth of them with uneven weights, or nothing learned. Fail: below 0.001.",
        ),
    ),
    (
        Agreement,
        Kind(
            "Do methods agree on this posterior?",
            "agreement",
            "Agreement of methods",
            "vb.agreement. Fail: p below 0.01 and C2ST above 0.7, means 0.5 sd apart or an sd 1.5 times the other. "
            "Warn: p below 0.05 and 0.6, 0.25 sd or 1.25 times; few independent draws, or nothing learned.",
        ),
    ),
    (
        Sensitivity,
        Kind(
            "What decides the posterior: the data or the prior?",
            "sensitivity",
            "Sensitivity",
            "vb.sensitivity. Warn: a combination of parameters is not determined, or prior and data pull against each "
            "other. Fail: nothing was learned.",
        ),
    ),
    (
        Loo,
        Kind(
            "Can leave-one-out prediction be believed?",
            "loo",
            "Leave-one-out prediction",
            "vb.loo. Warn: a Pareto k is above its threshold. Fail: more than a tenth are, or one above 1.",
        ),
    ),
    (
        Comparison,
        Kind(
            "Can the comparison of models be believed?",
            "comparison",
            "Comparison of models",
            "vb.compare. Warn: densities behind it are not reliable, or the recording is unlike every model.",
        ),
    ),
)


def kind(name: str, item: Diagnostic, i: int) -> Kind:
    """The kind of a given result; of unknown ones the name asks and the result rules."""
    for cls, found in KINDS:
        if isinstance(item, cls):
            same = name in (cls.__name__, found.anchor)
            return found if same else found._replace(anchor=f"{found.anchor}-{i}", title=f"{found.title}: {name}")
    return Kind(name, f"check-{i}", name, "The rule of the result that was given.")


def given_checks(e: Evidence) -> list[Check]:
    """One question for each given result that has no place of its own."""
    found = []
    for i, (name, item) in enumerate(e.asked.others.items(), 1):
        what = kind(name, item, i)
        words = paragraph(item.findings) or "No finding was given."
        question = what.question if f"-{i}" not in what.anchor else f"{what.question.removesuffix('?')} ({name})?"
        found.append(Check(question, _as_light(item.verdict), words, f"#{what.anchor}", what.rule))
    return found


def mixed(e: Evidence) -> Check | None:
    """Whether chains agree."""
    found, question = e.asked.convergence, "Did the chains mix?"
    if found is None:
        return None
    if isinstance(found, str):
        return Check(question, "fail", f"It cannot be said: {found}.", "#posterior", _CHAINS)
    most = 2 if found.passed else 3
    return Check(question, found.verdict, paragraph(found.findings, most), "#chains", _CHAINS)


_CHAINS = (
    "vb.convergence. Warn: R-hat above 1.01, effective sample size below 100 per chain or 400 in all, any divergence, "
    "E-BFMI below 0.3. Fail: R-hat above 1.05, effective size below 100, 1 % divergent, E-BFMI below 0.2."
)


def calibrated(e: Evidence) -> Check | None:
    """Whether the estimator is right on average over the prior."""
    study = e.calibration
    if study is None:
        return None
    tests = len(study.tests)
    if study.verdict == "pass":
        head = f"None of {tests} tests on {len(study)} held-out data sets found a fault. "
    else:
        bad = sum(row.status != "pass" for row in study.tests)
        head = f"{bad} of {tests} tests on {len(study)} held-out data sets did not pass. " if bad else ""
    return Check(
        "Is the estimator calibrated?",
        _as_light(study.verdict),
        head + paragraph(study.findings[:-1] or study.findings, 3),
        "#calibration",
        "vb.calibrate: p-values of location, width, shape, dependence on x, correlations and joint regions share a "
        "false-alarm rate of 5 % (Holm). Warn: adjusted p below 0.05, fewer than 100 data sets, or nothing learned. "
        "Fail: below 0.001. It speaks for the average over the prior.",
    )


@dataclasses.dataclass(frozen=True)
class TruthRow:
    """Where a true value lies among the posterior draws."""

    name: str
    truth: float
    z: float
    p: float


def truth_rows(e: Evidence) -> list[TruthRow]:
    """Rank of each true value: p = 2 min(r + 1, n - r + 1) / (n + 1), two-sided."""
    if e.truth is None or e.zscore is None:
        return []
    n, rows = len(e.samples), []
    below, above = (e.samples <= e.truth).sum(axis=0), (e.samples >= e.truth).sum(axis=0)
    p = np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1) / (n + 1))
    for name, truth, z, one in zip(e.names, e.truth, e.zscore, p, strict=True):
        rows.append(TruthRow(name, float(truth), float(z), float(one)))
    return rows


def truth_held(e: Evidence) -> Check | None:
    """Whether the posterior holds the true values."""
    rows = truth_rows(e)
    if not rows:
        return None
    smallest = min(row.p for row in rows) * len(rows)
    words = [f"{row.name} is {two(abs(row.z))} sd from the posterior mean" for row in rows[:6] if np.isfinite(row.z)]
    said = "True values: " + "; ".join(words) + "." if words else ""
    outside = e.outside_prior
    if outside:
        said = (
            f"The true value of {', '.join(outside)} lies outside the prior, where no posterior can find it; "
            f"widen the prior. {said}"
        )
    light: Status = "fail" if outside or smallest < TRUTH_FAIL else "warn" if smallest < TRUTH_WARN else "pass"
    return Check(
        "Does the posterior hold the true values?",
        light,
        said or "No true value can be compared: every parameter is constant.",
        "#posterior",
        "Two-sided rank of each true value among the draws, shared over parameters. Warn: p < 0.05. "
        "Fail: p < 0.001, or a true value outside the prior.",
    )


def _as_light(word: str) -> Status:
    return "fail" if word == "fail" else "warn" if word == "warn" else "pass"
