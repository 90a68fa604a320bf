"""Sections about whether to believe a posterior, each there when its result is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vbinfer.diagnostics.agreement import Agreement
from vbinfer.diagnostics.calibration.tests import TestResult
from vbinfer.diagnostics.chains import Convergence
from vbinfer.diagnostics.influence import Sensitivity, combination
from vbinfer.diagnostics.local import LC2ST
from vbinfer.diagnostics.local_sbc import PosteriorSbc
from vbinfer.diagnostics.thresholds import NOTHING_LEARNED

from . import plots_trust
from .asked import Diagnostic, paragraph
from .evidence import Evidence
from .section import Images, Part, Table, Text
from .trust import kind
from .words import number, percent, two

MOST_PARAMETERS, MOST_TESTS, MOST_FACTS, MOST_BARS = 12, 24, 24, 16
EARLY = ("LC2ST", "PosteriorSbc", "Agreement")  # sections that come before posterior prediction
Blocks = list[Text | Table | Images]


def eye_blocks(e: Evidence) -> Blocks:
    """Shrinkage against |z|, from known truth, a recovery study or a calibration; nothing without any."""
    source = _eye_of(e)
    if source is None:
        return []
    names, shrinkage, z, what = source
    there = np.isfinite(shrinkage).all(axis=0) & np.isfinite(z).all(axis=0)
    if not there.any():
        return []
    kept = np.flatnonzero(there)[:MOST_PARAMETERS]
    shown, shrinkage, z = [str(names[i]) for i in kept], shrinkage[:, kept], z[:, kept]
    regions = plots_trust.region_of(shrinkage, z)
    rows = [[name, *(percent(float(np.mean(regions[:, i] == k))) for k in range(4))] for i, name in enumerate(shown)]
    caption = (
        f"Shrinkage and |z|, {what}. Right of {plots_trust.EDGE_SHRINKAGE:g} and below {plots_trust.EDGE_Z:g}: good. "
        "Above, narrow: overfitted, sure and wrong. Left: poorly identified, the data say little. Above, wide: the "
        "prior and the data disagree, a bad prior model. Of a right posterior 5 % of the points lie above 2."
    )
    blocks: Blocks = [Images([plots_trust.eye(shown, shrinkage, z, what)], caption, "large")]
    if len(z) > 1:
        blocks.append(Table(["parameter", *plots_trust.REGIONS], rows, "Share of the data sets in each region."))
    return blocks


def _eye_of(e: Evidence) -> tuple[Sequence[str], np.ndarray, np.ndarray, str] | None:
    """Names, shrinkage and z `[n, D]`, and what they are of."""
    variance = None if e.prior_moments is None else e.prior_moments[1]
    if e.extras.recovery is not None and variance is not None:
        truth, draws = e.flat(e.extras.recovery.theta_true), e.flat(e.extras.recovery.theta)
        v = draws.var(axis=1, ddof=1)
        there = (v > 0.0) & np.isfinite(variance) & (variance > 0.0)
        z = np.where(there, (draws.mean(axis=1) - truth) / np.sqrt(np.where(v > 0.0, v, 1.0)), np.nan)
        shrinkage = np.where(there, 1.0 - v / np.where(variance > 0.0, variance, 1.0), np.nan)
        return e.names, shrinkage, z, f"one point per parameter of {len(truth)} simulated data sets"
    if e.calibration is not None:
        rows = e.calibration.learned.rows
        size = np.array([[np.hypot(row.z_mean, row.z_sd) for row in rows]])
        what = f"one point per parameter: root mean square z and median shrinkage over {len(e.calibration)} data sets"
        return [row.name for row in rows], np.array([[row.shrinkage for row in rows]]), size, what
    if e.zscore is not None and e.shrinkage is not None:
        return e.names, e.shrinkage[None], e.zscore[None], "one point per parameter, from its true value"
    return None


def chains(e: Evidence) -> Part | None:
    """Health of the chains."""
    found = e.asked.convergence
    if not isinstance(found, Convergence):
        return None
    blocks: Blocks = [Text(paragraph(found.findings, len(found.findings)))]
    flat = {name: _flat(e, getattr(found, name)) for name in ("rhat", "ess_bulk", "ess_tail", "mcse")}
    rows = [
        [name, *("" if values is None else number(float(values[i]), 4) for values in flat.values())]
        for i, name in enumerate(e.names)
    ]
    blocks.append(Table(["parameter", "R-hat", "ESS bulk", "ESS tail", "Monte-Carlo error"], rows,
                        "R-hat near 1 and effective sample sizes of 400 and more are wanted."))  # fmt: skip
    per_chain = {
        "step size": found.step_size,
        "divergences": found.divergences,
        "E-BFMI": found.ebfmi,
        "trajectories cut": found.saturated,
        "acceptance": found.acceptance,
    }
    known = {name: np.asarray(value) for name, value in per_chain.items() if value is not None}
    if known:
        body = [
            [f"chain {c}", *(number(value[c].item()) for value in known.values())]
            for c in range(e.posterior.num_chains)
        ]
        blocks.append(Table(["chain", *known], body, "What the sampler says of each chain."))
    if e.posterior.num_chains > 1 and e.posterior.num_samples >= 20:
        values = e.flat(e.posterior.theta)
        shown = range(min(len(e.names), MOST_PARAMETERS))
        pictures = [plots_trust.rank_chains(values[:, :, i], e.names[i]) for i in shown]
        blocks.append(Images(pictures, "Ranks of each chain's draws among all: flat where chains have mixed.", "third"))
    return Part("chains", "Health of the chains", blocks)


def _flat(e: Evidence, leaves: Mapping[str, Any]) -> np.ndarray | None:
    """Values by leaf as `[D]`; None where a leaf is missing."""
    if set(leaves) != set(e.shapes):
        return None
    return e.flat(leaves)


def calibration(e: Evidence) -> Part | None:
    """Calibration over the prior."""
    study = e.calibration
    if study is None:
        return None
    blocks: Blocks = [Text(paragraph([item], 1)) for item in study.findings]
    shown = range(min(len(study.names), MOST_PARAMETERS))
    cut = "" if len(shown) == len(study.names) else f" The first {len(shown)} of {len(study.names)} parameters."
    blocks.append(
        Images(
            [plots_trust.ecdf_difference(study.u[:, i], study.names[i]) for i in shown],
            f"Ranks of the truth among {study.num_posterior_samples} posterior draws, n = {len(study)} held-out data "
            "sets: their ECDF minus the diagonal. Grey: where 95 % of right posteriors stay everywhere. A slope up in "
            f"the middle is too wide, down too narrow; an arch is a bias.{cut}",
            "third",
        )
    )
    blocks.append(
        Images(
            [plots_trust.coverage(study), plots_trust.tarp(study.tarp)],
            "Left: share of truths inside regions of each credibility, with the simultaneous 95 % band (grey); below "
            "the diagonal is overconfident. Right: the same for balls around random points (TARP), with its bootstrap "
            f"band; area above the diagonal beyond 1/2: {two(study.tarp.atc)}.",
            "half",
        )
    )
    if study.local:
        blocks.append(
            Images(
                [plots_trust.local_bias(study.local, study.names[i]) for i in shown],
                "Bias over parameter space: how far truths lie above their posteriors, in fifths of the posterior mean "
                "(blue, two standard errors; flat at zero if all is right). By the truth itself (grey) a right "
                "posterior is pulled towards the prior: that is no fault.",
                "third",
            )
        )
    return Part("calibration", "Calibration of the estimator", [*blocks, *_study_tables(e)])


def _study_tables(e: Evidence) -> Blocks:
    study = e.calibration
    if study is None:
        return []
    covered = [
        [
            f"{row.region}, {row.parameter}",
            percent(row.level),
            percent(row.covered),
            f"{percent(row.low)} to {percent(row.high)}",
        ]
        for row in study.coverage.rows
        if row.region == "HPD" or len(study.names) <= MOST_PARAMETERS
    ]
    recovered = [
        [row.name, two(row.r), two(row.r2), two(row.nrmse), number(row.bias), two(row.z_mean), two(row.z_sd),
         two(row.shrinkage), two(row.moved)]
        for row in study.learned.rows
    ]  # fmt: skip
    return [
        Table(["parameter", "r", "R²", "NRMSE", "bias", "mean z", "sd of z", "shrinkage", "moved by data"], recovered,
              "Recovery: posterior means against truths; z = (mean \N{MINUS SIGN} truth) / sd; the share of variance "
              "that the data move."),
        Table(["region", "credibility", "truths inside", "95 % interval"], covered, "Coverage at four credibilities."),
        _test_table(study.tests),
    ]  # fmt: skip


def _test_table(rows: Sequence[TestResult]) -> Table:
    """The tests with the smallest p."""
    tests = sorted(rows, key=lambda row: row.p)[:MOST_TESTS]
    marks = frozenset(i for i, row in enumerate(tests) if row.status != "pass")
    body = [
        [
            row.quantity,
            row.parameter,
            row.status,
            number(row.statistic),
            f"{row.p:.2g}",
            f"{row.p_adjusted:.2g}",
            row.detects,
        ]
        for row in tests
    ]
    cut = "" if len(tests) == len(rows) else f" The {len(tests)} smallest p of {len(rows)}; all are in the JSON."
    head = ["test", "parameter", "light", "statistic", "p", "adjusted p", "finds with 90 % probability"]
    return Table(head, body, f"Tests; adjusted p-values share one false-alarm rate of 5 %.{cut}", marks, words=3)


def given(e: Evidence, early: bool) -> list[Part]:
    """A section for each given result that has no other place, those that come `early` or the others."""
    made = []
    for i, (name, item) in enumerate(e.asked.others.items(), 1):
        if (type(item).__name__ in EARLY) is early:
            what = kind(name, item, i)
            blocks: Blocks = [Text(paragraph([finding], 1)) for finding in item.findings]
            made.append(Part(what.anchor, what.title, [*blocks, *_figures(item), *_facts(item)]))
    return made


def _figures(item: Diagnostic) -> Blocks:
    if isinstance(item, LC2ST):
        picture = plots_trust.null_histogram(item.null, item.statistic, item.p_classifier)
        return [Images([picture], "The classifier's statistic, and what it is for a right posterior.", "half")]
    if isinstance(item, PosteriorSbc):
        shown = range(min(len(item.names), MOST_PARAMETERS))
        caption = (
            f"Ranks in the posteriors given recording and replicate, n = {len(item.ranks)}: their ECDF minus "
            "the diagonal. Grey: where 95 % of right posteriors stay everywhere. A slope up in the middle is too wide, "
            "down too narrow; an arch is a bias."
        )
        pictures = [plots_trust.ecdf_difference(item.u[:, i], item.names[i]) for i in shown]
        return [Images(pictures, caption, "third"), _test_table(item.tests)]
    if isinstance(item, Agreement):
        return [_pairs(item)]
    if isinstance(item, Sensitivity):
        d = min(len(item.names), MOST_BARS)
        names = [combination(item.directions[:, k], item.names, 2) for k in range(d)]
        values = [float(value) for value in item.eigenvalues[:d]]
        alt = f"Posterior variance of {d} combinations of parameters, in units of the prior's: {values[0]:.2g} at least"
        pictures = [plots_trust.bars(names, values, "posterior / prior variance", 1.0 - NOTHING_LEARNED, alt)]
        order = np.argsort(-item.information.loss)[:MOST_BARS]
        lost = [float(item.information.loss[j]) for j in order]
        alt = f"Nats lost without each of {len(order)} features, largest {lost[0]:.2g}"
        pictures.append(plots_trust.bars([item.feature_names[j] for j in order], lost, "nats lost without", None, alt))
        return [
            Images(pictures, "Left: what the data determine, best first. Right: the features that tell it.", "half")
        ]
    return []


def _pairs(item: Agreement) -> Table:
    """Each two methods: how far apart they are."""
    rows = []
    for pair in item.pairs:
        i, j = int(np.argmax(np.abs(pair.mean_difference))), int(np.argmax(np.abs(np.log(pair.sd_ratio))))
        rows.append([f"{pair.first}, {pair.second}", pair.status, two(pair.c2st), f"{pair.p:.2g}",
                     f"{two(float(pair.mean_difference[i]))} ({item.names[i]})",
                     f"{two(float(pair.sd_ratio[j]))} ({item.names[j]})"])  # fmt: skip
    head = ["methods", "light", "C2ST", "p", "largest mean difference (sd)", "largest ratio of sds"]
    caption = (
        f"Methods two by two, {item.num_draws:,} draws of each: how often a classifier tells them apart (0.5: it "
        "cannot), and where means and sds differ most, the first against the second."
    )
    return Table(head, rows, caption, frozenset(k for k, one in enumerate(item.pairs) if one.status != "pass"), words=2)


def _facts(item: Diagnostic) -> Blocks:
    """The scalar numbers of a result as a table."""
    numbers = getattr(item, "numbers", None)
    if not isinstance(numbers, dict):
        return []
    rows = [[str(name).replace("_", " "), number(value, 4)] for name, value in numbers.items()
            if isinstance(value, int | float | str) and name != "verdict"]  # fmt: skip
    return (
        [Table(["quantity", "value"], rows[:MOST_FACTS], "Numbers of this result; all are in the JSON.")]
        if rows
        else []
    )
