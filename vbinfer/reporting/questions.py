"""Topics of a report and their questions."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vbinfer import diagnostics
from vbinfer.diagnostics.figure import Axis, Bars, Figure, Line, Panel, Rule
from vbinfer.diagnostics.recovery import Recovered
from vbinfer.diagnostics.result import STATUSES, Status
from vbinfer.diagnostics.thresholds import FAILED_FAIL, FAILED_WARN, OVERFIT
from vbinfer.draws.draws import Draws, FailureRow
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

from .evidence import Evidence
from .features import data, features_of, predicted
from .format import fixed2, number, percent
from .parameters import MOST_PARAMETERS, Parameters, estimates, flat, recovered, replicates
from .sections import Block, Check, Table, Topic, topic_of

if TYPE_CHECKING:
    from vbinfer.diagnostics.calibration.result import Calibration
    from vbinfer.diagnostics.chains import Convergence

TITLES = {
    "ImportanceWeights": ("refinement", "Correction by the likelihood"),
    "LC2ST": ("local", "Local calibration"),
    "PosteriorSbc": ("posterior-sbc", "Calibration around this recording"),
    "Agreement": ("agreement", "Agreement of methods"),
    "Sensitivity": ("sensitivity", "Sensitivity"),
    "Loo": ("loo", "Leave-one-out prediction"),
    "Comparison": ("comparison", "Comparison of models"),
}
"""Anchor and heading of the results that have a section of their own; others are headed by their name."""
ELSEWHERE = ("Misspecification", "Convergence", "PredictiveCheck", "ImportanceWeights")
"""Results that are part of another section, where they take the place of the one computed."""
NEEDS = {
    "What was learned": "what was learned (give prior=)",
    "Is the recording": "whether the recording is inside what the model can produce (give draws= and a posterior with "
    "x_o)",
    "Does the estimator recover": "recovery of known truths (give extras=ReportExtras(recovery=...))",
    "Did training": "training (give fit=)",
    "Does the posterior predict": "posterior prediction (give predictive=)",
    "Is the estimator calibrated": "calibration of the estimator over the prior (give calibration=vb.calibrate(...))",
    "Did simulations": "failed simulations (give draws=)",
}
"""Questions by their beginning, and what would allow them to be asked."""
READING = (
    *("data", "posterior", "chains", "refinement", "training", "local", "posterior-sbc", "agreement", "predictive"),
    *("calibration", "recovery", "given", "failures", "replicates"),
)
"""Sections in the order in which they are read; questions are asked in the order of `topics`."""


def topics(e: Evidence) -> list[Topic]:
    """Topics that the inputs allow, in order."""
    # computed once; every section below reads them
    p, rows = Parameters.of(e), features_of(e)
    found = [
        estimates(e, p),
        data(e, rows),
        _recovery(recovered(e, p)),
        None if e.fit is None else _training(e.fit),
        _chains(e),
        _refinement(e),
        predicted(e, rows),
        None if e.calibration is None else _calibration(e.calibration),
        None if e.draws is None else _failures(e.draws, e.prior, p),
        *_given(e.given),
        replicates(e.extras.replicates, p),
    ]
    return [topic for topic in found if topic is not None]


def in_reading_order(found: Iterable[Topic]) -> list[Topic]:
    """Sections as a page shows them."""
    # results without a place of their own go between recovery and failures
    place = {anchor: i for i, anchor in enumerate(READING)}
    return sorted((topic for topic in found if topic.blocks), key=lambda topic: place.get(topic.anchor, place["given"]))


def absent(found: Iterable[Topic]) -> list[str]:
    """Questions that could not be asked, and what they need."""
    asked = [check.question for topic in found for check in topic.checks]
    return [needs for start, needs in NEEDS.items() if not any(question.startswith(start) for question in asked)]


def by_name(given: Mapping[str, Any] | Iterable[Any] | None) -> dict[str, Any]:
    """Results by name, else by type.

    Raises:
        TypeError: something that has no verdict and findings.
        ValueError: a verdict that is not one of three.
    """
    if _is_result(given):
        raise TypeError(f"checks is one {type(given).__name__}; write checks=[result] or checks={{'name': result}}")
    named = isinstance(given, Mapping)
    result: dict[str, Any] = {}
    for name, item in given.items() if named else [("", item) for item in given or ()]:
        kind = type(item).__name__
        if not _is_result(item):
            raise TypeError(
                f"checks holds a {kind}; expected results of vb.diagnostics.lc2st, "
                f"vb.diagnostics.misspecification, "
                "vb.diagnostics.sensitivity, vb.diagnostics.loo, ...: objects with .verdict and .findings"
            )
        if item.verdict not in STATUSES:
            raise ValueError(f"a {kind} has the verdict {item.verdict!r}; expected one of {STATUSES}")
        # two results of a type: the second is called `LC2ST 2`
        same = sum(type(other).__name__ == kind for other in result.values())
        result[str(name) if named else f"{kind} {same + 1}" if same else kind] = item
    return result


def _is_result(item: Any) -> bool:
    return hasattr(item, "verdict") and hasattr(item, "findings")


def _given(given: Mapping[str, Any]) -> list[Topic]:
    """Sections of further results."""
    made = []
    for i, (name, item) in enumerate(given.items(), 1):
        kind = type(item).__name__
        if kind in ELSEWHERE:
            continue
        anchor, title = TITLES.get(kind, (f"check-{i}", name))
        if kind in TITLES and name not in (kind, anchor):
            anchor, title = f"{anchor}-{i}", f"{title}: {name}"
        made.append(topic_of(name, item, anchor, title))
    return made


def _recovery(found: Recovered | None) -> Topic | None:
    """Known truths and what the estimator said of them."""
    if found is None:
        return None
    rows = [
        [
            row.name,
            f"{row.within} of {row.n}",
            f"{row.covered} of {row.n}",
            f"{percent(row.covered_low)} to {percent(row.covered_high)}",
            fixed2(row.shrinkage),
            fixed2(row.r),
        ]
        for row in found.rows
    ]
    head = ["parameter", "|z| < 2", "inside 90 % interval", "coverage, 95 % interval", "median shrinkage", "r"]
    table = Table(head, rows, "Recovery by parameter; r correlates truth and posterior mean.")
    topic = topic_of("recovered", found, "recovery", "Recovery of known truths", tables=[table])
    words = "The same estimator was asked about simulated observations whose parameters are known."
    numbers = {"recovery": found.numbers["recovery"]}
    return dataclasses.replace(topic, blocks=[words, *topic.blocks[1:]], numbers=numbers)


def _training(fit: FitInfo) -> Topic:
    """Loss by epoch, and whether training converged."""
    train, val = np.asarray(fit.train, float), np.asarray(fit.val, float)
    blocks: list[Block] = [str(fit.sentence), *([_loss(train, val, fit)] if len(val) else [])]
    rule = (
        f"Warn: stopped by the limit of epochs, or held-out loss {OVERFIT:g} nat above training loss, or no held-out "
        "gain. Fail: not converged and no gain, or no finite loss."
    )
    check = Check("Did training converge?", *_converged(fit, train, val), "#training", rule)
    return Topic("training", "Training of the estimator", blocks, [check])


def _converged(fit: FitInfo, train: np.ndarray, val: np.ndarray) -> tuple[Status, str]:
    if not np.isfinite(val).any():
        return "fail", f"{fit.method} did not train: no finite held-out loss was recorded."
    # an ensemble's curves may end before the best epoch of a member
    best = min(int(fit.best_epoch), len(val))  # counted from 1; 0 is the untrained network
    gap = float(val[best - 1] - train[best - 1]) if 0 < best <= len(train) else math.nan
    overfit, gained = gap > OVERFIT, bool(fit.info_gain > 0.0)
    state = "converged" if fit.converged else "has not converged: held-out loss was still falling when training ended"
    said = (
        f"{fit.method} {state} (best of {len(val)} epochs at {best}; {fit.num_train:,} draws to train on, "
        f"{fit.num_val:,} held out)."
    )
    said += f" It fits its training draws {gap:.2f} nats better than held-out ones: overfitted." if overfit else ""
    said += "" if gained else f" On held-out draws it is no better than the prior ({fixed2(fit.info_gain)} nats)."
    if not fit.converged and not gained:
        return "fail", said
    return "pass" if fit.converged and gained and not overfit else "warn", said


def _loss(train: np.ndarray, val: np.ndarray, fit: FitInfo) -> Figure:
    """Loss per epoch, trained on and held out."""
    both = np.concatenate([train, val])
    limits = None
    if len(finite := both[np.isfinite(both)]):
        low, top = float(finite.min()), float(np.quantile(finite, 0.98))
        # the first epochs may be far up: leave them out of the frame
        limits = low - 0.05 * (top - low) - 1e-3, top + 0.1 * (top - low) + 1e-3
    marks: list[Any] = [
        Line(np.arange(1, len(train) + 1), train, "prior", "trained on"),
        Line(np.arange(1, len(val) + 1), val, "posterior", "held out"),
    ]
    best = int(fit.best_epoch)
    if 0 < best <= len(val):
        marks.append(Rule(best, role="observed", label="best epoch", dashed=True))
    alt = f"Training and held-out loss over {len(val)} epochs, best at epoch {best}"
    caption = (
        f"Mean negative log density per draw, {fit.num_train:,} draws trained on and {fit.num_val:,} held out; "
        f"{fit.method} ({fit.backend}), {fit.seconds:.0f} s."
    )
    panel = Panel(marks, Axis("epoch"), Axis("loss", "nats per draw", limits), alt)
    return Figure([panel], caption, "large")


def _chains(e: Evidence) -> Topic | None:
    """Health of the chains."""
    posterior = e.posterior
    # draws that are independent by construction have no chains to look at
    has_chains = posterior.num_chains > 1 or bool(posterior.sample_stats)
    # loaded where there are chains
    found = e.answer("Convergence", lambda one: diagnostics.convergence(one), posterior if has_chains else None)
    if found is None:
        return None
    if isinstance(found, str):
        kind = diagnostics.Convergence
        check = Check(kind.question, "fail", f"It cannot be said: {found}.", "#posterior", kind.rule)
        return Topic("chains", "Health of the chains", [], [check])
    tables = [_by_parameter(posterior, found), *_by_chain(posterior, found)]
    limits = "Chains that agree can agree on a wrong posterior: no chain may have found a further mode."
    return topic_of("convergence", found, "chains", "Health of the chains", tables=tables, limits=limits)


def _refinement(e: Evidence) -> Topic | None:
    """Weights of a posterior corrected by a likelihood."""
    posterior = e.posterior if "khat" in e.posterior.info else None
    found = e.answer("ImportanceWeights", lambda one: diagnostics.importance_weights(one), posterior)
    if not isinstance(found, diagnostics.ImportanceWeights):
        return None
    limits = "Importance weights are blind to a mode of which the network has no draw."
    return topic_of("importance_weights", found, *TITLES["ImportanceWeights"], limits=limits)


def _by_parameter(posterior: Posterior, found: "Convergence") -> Table:
    shapes = posterior.shapes
    columns = {"R-hat": found.rhat, "ESS bulk": found.ess_bulk, "ESS tail": found.ess_tail}
    columns |= {"Monte-Carlo error": found.mcse}
    known = {head: flat(leaves, shapes).tolist() for head, leaves in columns.items() if set(leaves) == set(shapes)}
    rows = [
        [name, *(number(value, 4) for value in row)]
        for name, *row in zip(posterior.names, *known.values(), strict=True)
    ]
    return Table(["parameter", *known], rows, "R-hat near 1 and effective sample sizes of 400 and more are wanted.")


def _by_chain(posterior: Posterior, found: "Convergence") -> list[Table]:
    columns = {
        "step size": found.step_size,
        "divergences": found.divergences,
        "E-BFMI": found.ebfmi,
        "trajectories cut": found.saturated,
        "acceptance": found.acceptance,
    }
    known = {name: value.tolist() for name, value in columns.items() if value is not None}
    rows = [[f"chain {c}", *(number(values[c]) for values in known.values())] for c in range(posterior.num_chains)]
    return [Table(["chain", *known], rows, "What the sampler says of each chain.")] if known else []


def _calibration(study: "Calibration") -> Topic:
    """Calibration over the prior."""
    bad = sum(row.status != "pass" for row in study.tests)
    many = f"{len(study.tests)} tests on {len(study)} held-out data sets"
    limits = (
        "Calibration and recovery are averages over the prior. The prior itself would pass them as a posterior, errors "
        "at this recording can hide behind the others, and simulated data are never unlike the model."
    )
    topic = topic_of("calibration", study, "calibration", "Calibration of the estimator", limits=limits)
    (check,) = topic.checks
    # how many tests there were says how much a pass is worth
    head = f"{bad} of {many} did not pass. " if bad else f"None of {many} found a fault. "
    if bad or study.verdict == "pass":
        check = dataclasses.replace(check, sentence=head + check.sentence)
    return dataclasses.replace(topic, checks=[check], numbers={"calibration": study.numbers})


def _failures(draws: Draws, prior: Prior | None, p: Parameters) -> Topic:
    """Failed simulations, by region of the prior."""
    n, failed = len(draws), int(np.sum(~draws.valid))
    share = failed / n if n else 1.0
    rows = [] if prior is None or not failed else draws.failures(prior)
    said, limits = f"None of {n:,} simulations failed.", ""
    if failed:
        said, limits = (
            f"{failed:,} of {n:,} simulations failed",
            (
                f"The posterior is also conditional on a simulation that works: {percent(share, 1)} of the simulations "
                "failed, and parameters at which they do are excluded without a word from the data."
            ),
        )
    blocks: list[Block] = [f"{said} ({percent(share, 1)})." if failed else said]
    if rows:
        most = max((row for row in rows if row.n), key=lambda row: (row.share, row.n))
        said += f", most often for {most.parameter} {_region(most)} ({percent(most.share)} there)"
        blocks.append(_failure_figure(rows, p, n))
    if failed:
        said += ". The posterior holds for parameters at which the simulation works."
    rule = f"Warn: {percent(FAILED_WARN)} or more. Fail: {percent(FAILED_FAIL)} or more."
    status: Status = "fail" if share >= FAILED_FAIL else "warn" if share >= FAILED_WARN else "pass"
    check = Check("Did simulations fail?", status, said, "#failures", rule)
    numbers = {"draws": {"n": n, "failed": failed}}
    return Topic("failures", "Failed simulations", blocks, [check], numbers, limits)


def _failure_figure(rows: list[FailureRow], p: Parameters, n: int) -> Figure:
    """Share of failures by region of each parameter's prior."""
    names = list(dict.fromkeys(row.parameter for row in rows))[:MOST_PARAMETERS]
    top, panels = 105.0 * max(row.share for row in rows if row.n), []
    for name in names:
        own, i = [row for row in rows if row.parameter == name], p.names.index(name)
        shares = np.array([row.share if row.n else 0.0 for row in own])
        # the outer regions of an unbounded prior reach to infinity: cut them at the frame
        edges = np.clip([own[0].low, *(row.high for row in own)], *p.view(i))
        alt = f"Failed simulations by region of {name}, highest {shares.max():.0%}"
        bars = Bars(100.0 * shares, edges, role="observed")
        panels.append(Panel((bars,), p.axis(i), Axis("failed", "%", (0.0, top)), alt))
    caption = f"Share of failed simulations by region of the prior (about equal prior mass each), n = {n:,}."
    return Figure(panels, caption)


def _region(row: FailureRow) -> str:
    """A region of the prior in words."""
    if not math.isfinite(row.low):
        return f"below {row.high:.3g}"
    return f"above {row.low:.3g}" if not math.isfinite(row.high) else f"between {row.low:.3g} and {row.high:.3g}"
