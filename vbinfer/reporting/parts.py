"""The sections of a report, each there when its inputs are."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping

import numpy as np

from vbinfer.diagnostics.predictive import PredictiveCheck
from vbinfer.diagnostics.prior_check import Misspecification

from . import plots, plots_fc, plots_trust
from .asked import paragraph
from .checks import SERIES, failure_rows, is_outside, modes_note, recovery_rows
from .connectivity import fc_blocks, fcd_blocks
from .evidence import HDI_PROB, Evidence, FeatureRow, series
from .limits import limits
from .section import Image, Images, Part, Section, Table, Text
from .trust_parts import calibration, chains, eye_blocks, given
from .words import number, percent, plus_minus, spread, two

MOST_FEATURES, MOST_PARAMETERS, MOST_PAIRS = 40, 12, 6


def parts(e: Evidence, absent: list[str]) -> list[Part]:
    """Every section that the inputs allow, in reading order; `absent` names questions that could not be asked."""
    first = [_data(e), _posterior(e), chains(e), _training(e), *given(e, early=True), _predictive(e), calibration(e)]
    then = [_recovery(e), *given(e, early=False), _failures(e), _replicates(e)]
    own = [_own(section, i) for i, section in enumerate(e.extras.sections)]
    return [part for part in first + then if part is not None] + own + [limits(e, absent), _provenance(e)]


def _data(e: Evidence) -> Part | None:
    blocks: list[Text | Table | Images] = []
    if e.observed is not None and e.fc_observed is not None:
        steps, n = np.shape(e.observed.values)
        minutes = steps * e.observed.period / 60e3
        blocks.append(
            Images(
                [
                    plots_fc.carpet(e.observed),
                    *plots_fc.fc_matrices({"Functional connectivity": e.fc_observed}, e.observed.labels),
                ],
                f"The recording: {n} channels, {steps} samples, one every {e.observed.period:g} ms ({minutes:.1f} "
                "minutes), each on its own scale, and the correlations between them.",
                "third",
            )
        )
    found = e.asked.misspecification
    if isinstance(found, Misspecification):
        blocks.append(Text(paragraph(found.findings, len(found.findings))))
    elif isinstance(found, str):
        blocks.append(Text(f"No test of all features together: {found}."))
    rows = e.features
    with_prior = [row for row in rows if row.prior_percentile is not None]
    if with_prior and e.prior_x is not None:
        shown = _most_extreme(with_prior)
        cut = "" if len(shown) == len(rows) else f" The {len(shown)} most extreme of {len(rows)} are shown."
        caption = (
            f"Features of the recording (orange) on the scale of the prior predictive distribution "
            f"(grey, n = {len(e.prior_x):,} simulations"
        )
        if e.posterior_x is not None:
            caption += f"; blue: posterior predictive, n = {len(e.posterior_x):,}"
        blocks.append(Images([plots.strips(shown)], caption + f").{cut}", "large"))
        blocks.append(_feature_table(shown, cut))
    return Part("data", "The data and what the model can produce", blocks) if blocks else None


def _most_extreme(rows: list[FeatureRow]) -> list[FeatureRow]:
    distance = [-abs((row.prior_percentile if row.prior_percentile is not None else 50.0) - 50.0) for row in rows]
    keep = sorted(np.argsort(np.nan_to_num(distance, nan=-100.0), kind="stable")[:MOST_FEATURES].tolist())
    return [rows[i] for i in keep]


def _feature_table(rows: list[FeatureRow], cut: str) -> Table:
    cells, marks = [], set()
    for i, row in enumerate(rows):
        low, middle, high = np.quantile(row.prior if row.prior is not None else np.zeros(1), [0.05, 0.5, 0.95])
        odd = is_outside(row.prior_percentile)
        marks |= {i} if odd else set()
        after = "" if row.posterior_percentile is None else f"{row.posterior_percentile:.1f}"
        before = f"{row.prior_percentile:.1f}" + (" outside" if odd else "")
        range_ = f"{number(float(low))} to {number(float(high))}"
        cells.append([row.name, number(row.observed), number(float(middle)), range_, before, after])
    head = [
        "feature",
        "recording",
        "prior median",
        "prior 90 % range",
        "percentile in prior",
        "percentile in posterior",
    ]
    if not any(row[-1] for row in cells):
        head, cells = head[:-1], [row[:-1] for row in cells]
    return Table(head, cells, f"The recording's features and their percentiles among simulations.{cut}",
                 frozenset(marks))  # fmt: skip


def _posterior(e: Evidence) -> Part:
    blocks: list[Text | Table | Images] = []
    n = len(e.samples)
    shown = list(range(len(e.names)))
    if e.shrinkage is not None:
        shown = sorted(np.argsort(-e.shrinkage, kind="stable")[:MOST_PARAMETERS].tolist())
    shown = shown[:MOST_PARAMETERS]
    cut = "" if len(shown) == len(e.names) else f" The {len(shown)} of {len(e.names)} parameters that shrank most."
    caption = f"Posterior (blue, {n:,} draws){' and prior (grey, dashed)' if e.prior_samples is not None else ''}.{cut}"
    size = "third" if len(shown) > 2 else "half"
    blocks.append(Images([plots.marginal(e, i) for i in shown], caption, size))
    note = modes_note(e).strip()
    blocks += [*([Text(note)] if note else []), _parameter_table(e), *eye_blocks(e)]
    shown = [i for i in shown if not e.constant[i]]
    if len(shown) > 1:
        caption = "Pairs of parameters: posterior draws in blue" + (
            " over prior draws in grey" if e.prior_samples is not None else ""
        )
        caption += "; r is the correlation in the posterior."
        blocks.append(Images([plots.pairs(e, shown[:MOST_PAIRS])], caption, "large"))
    return Part("posterior", "What was learned about the parameters", blocks)


def _parameter_table(e: Evidence) -> Table:
    columns = {
        "parameter": "name",
        "unit": "unit",
        "mean": "mean",
        "sd": "sd",
        f"{percent(HDI_PROB)} interval": "hdi",
        "prior mean": "prior_mean",
        "prior sd": "prior_sd",
        "shrinkage": "shrinkage",
        "true value": "true",
        "z": "z",
    }
    there = {head: key for head, key in columns.items() if any(row.get(key) not in (None, "") for row in e.parameters)}
    cells = []
    for row in e.parameters:
        line = []
        for key in there.values():
            value, digits = row.get(key), _sd(row)
            if isinstance(value, float) and not np.isfinite(value):
                line.append("none")
            elif key in ("shrinkage", "z") and isinstance(value, float):
                line.append(two(value))
            elif isinstance(value, list):
                line.append(" to ".join(spread(value, digits)))
            else:
                line.append(spread([value], digits)[0] if isinstance(value, float) else number(value))
        cells.append(line)
    caption = f"Posterior by parameter. The interval is the shortest that holds {percent(HDI_PROB)} of the draws"
    caption += "; shrinkage is 1 \N{MINUS SIGN} posterior variance / prior variance" if e.shrinkage is not None else ""
    caption += "; z is (mean \N{MINUS SIGN} true value) / sd" if e.truth is not None else ""
    return Table(list(there), cells, caption + ".", words=2 if "unit" in there else 1)


def _sd(row: dict[str, object]) -> float:
    return float(str(row["sd"]))


def _training(e: Evidence) -> Part | None:
    if e.fit is None:
        return None
    fit = e.fit
    train, val = np.asarray(fit.train, float), np.asarray(fit.val, float)
    blocks: list[Text | Table | Images] = [Text(str(fit.sentence))]
    if len(val):
        caption = (
            f"Mean negative log density per draw, {fit.num_train:,} draws trained on and {fit.num_val:,} held out; "
            f"{fit.method} ({fit.backend}), {fit.seconds:.0f} s."
        )
        blocks.append(Images([plots.training(train, val, int(fit.best_epoch))], caption, "large"))
    return Part("training", "Training of the estimator", blocks)


def _recovery(e: Evidence) -> Part | None:
    if e.extras.recovery is None:
        return None
    truth, draws = e.flat(e.extras.recovery.theta_true), e.flat(e.extras.recovery.theta)
    shown = range(min(len(e.names), MOST_PARAMETERS))
    caption = f"Known truth against posterior mean and standard deviation, n = {len(truth)} simulated observations."
    pictures = [plots.recovery(e, truth, draws, i) for i in shown]
    rows = [
        [
            row.name,
            f"{row.within_2sd} of {row.n}",
            f"{row.covered} of {row.n}",
            f"{percent(row.coverage_low)} to {percent(row.coverage_high)}",
            two(row.median_shrinkage),
            two(row.r),
        ]
        for row in recovery_rows(e)
    ]
    head = [
        "parameter",
        "|z| < 2",
        "inside 90 % interval",
        "coverage, 95 % interval",
        "median shrinkage",
        "r",
    ]
    words = "The same estimator was asked about simulated observations whose parameters are known."
    table = Table(head, rows, "Recovery by parameter; r correlates truth and posterior mean.")
    return Part("recovery", "Recovery of known truths", [Text(words), Images(pictures, caption, "third"), table])


def _predictive(e: Evidence) -> Part | None:
    blocks: list[Text | Table | Images] = []
    shown = [row for row in e.features if row.posterior_percentile is not None]
    if shown and e.posterior_x is not None:
        inside = sum(2.5 <= (row.posterior_percentile or 0.0) <= 97.5 for row in shown)
        words = f"{inside} of {len(shown)} features of the recording lie inside the central 95 % of "
        blocks.append(Text(f"{words}{len(e.posterior_x):,} posterior predictive simulations."))
        blocks += _predictive_p(e)
        if e.prior_x is None:
            caption = "Features of the recording (orange) on the scale of their posterior predictive ranges."
            blocks.append(Images([plots.strips(_most_extreme(shown))], caption, "large"))
    if e.observed is not None and e.fc_observed is not None and e.fc_match:
        ys = series(e.predictive)
        if ys is not None and min(len(e.observed.values), ys.shape[1]) >= 8:
            picture = plots_trust.spectra(np.asarray(e.observed.values), ys, float(e.observed.period))
            caption = "Power spectra, mean over channels, each channel scaled to a variance of one."
            blocks.append(Images([picture], caption, "large"))
        blocks += fc_blocks(e, e.observed, e.fc_observed)
        blocks += fcd_blocks(e, e.observed)
    if not blocks:
        return None
    title = "What the posterior predicts" if e.predictive is not None else "Functional connectivity"
    return Part("predictive", title, blocks)


def _predictive_p(e: Evidence) -> list[Text | Table | Images]:
    """p-values of the predictive check and of the series."""
    found, blocks = e.asked.predictive, []
    if isinstance(found, PredictiveCheck):
        blocks.append(Text(paragraph(found.findings, len(found.findings))))
        order = np.argsort(found.p_adjusted, kind="stable")[:MOST_FEATURES].tolist()
        rows = [[found.names[j], f"{found.p_features[j]:.2g}", f"{found.p_adjusted[j]:.2g}"] for j in order]
        marks = frozenset(i for i, j in enumerate(order) if found.p_adjusted[j] < SERIES)
        cut = "" if len(order) == len(found.names) else f" The {len(order)} smallest of {len(found.names)}."
        words = "Two-sided predictive p-values by feature; adjusted for how many there are."
        blocks.append(Table(["feature", "p", "adjusted p"], rows, words + cut, marks))
    elif isinstance(found, str):
        blocks.append(Text(f"No test of all features together: {found}."))
    if e.asked.series:
        rows = [[name, f"{p:.2g}"] for name, p in e.asked.series.items()]
        words = "Statistics of the series that the features may not hold; p adjusted for their number."
        blocks.append(Table(["statistic of the series", "adjusted p"], rows, words))
    return blocks


def _failures(e: Evidence) -> Part | None:
    if e.draws is None:
        return None
    n, failed = len(e.draws), int(np.sum(~np.asarray(e.draws.valid)))
    rows = failure_rows(e) if failed else []
    if not rows:
        words = f"None of {n:,} simulations failed." if not failed else f"{failed:,} of {n:,} simulations failed."
        return Part("failures", "Failed simulations", [Text(words)])
    text = f"{failed:,} of {n:,} simulations failed ({percent(failed / n, 1)}); they are kept and marked."
    names = list(dict.fromkeys(row.parameter for row in rows))[:MOST_PARAMETERS]
    top = 105.0 * max(row.share for row in rows)
    pictures = [plots.failures(e, [row for row in rows if row.parameter == name], name, top) for name in names]
    caption = f"Share of failed simulations by region of the prior (about equal prior mass each), n = {n:,}."
    return Part("failures", "Failed simulations", [Text(text), Images(pictures, caption, "third")])


def _replicates(e: Evidence) -> Part | None:
    if not e.extras.replicates:
        return None
    others = {
        name: e.flat(posterior.theta).reshape(-1, len(e.names)) for name, posterior in e.extras.replicates.items()
    }
    shown = range(min(len(e.names), MOST_PARAMETERS))
    pictures = [plots.replicates(e, i, others) for i in shown]
    caption = "Posterior mean, central 50 % (thick) and 94 % (thin) from each recording or segment."
    rows = [
        [name, *(plus_minus(float(values[:, i].mean()), float(values[:, i].std(ddof=1))) for i in shown)]
        for name, values in {"this posterior": e.samples, **others}.items()
    ]
    table = Table(["data", *(e.names[i] for i in shown)], rows, "Posterior mean ± sd.")
    return Part("replicates", "Replicates", [Images(pictures, caption, "third"), table])


def _own(section: Section, i: int) -> Part:
    blocks: list[Text | Table | Images] = [Text(text) for text in section.text.split("\n\n") if text.strip()]
    if section.figure is not None:
        form = "png" if any(axes.images for axes in section.figure.axes) else "svg"
        picture: Image = plots.image(section.figure, section.alt, form)
        size = "large" if section.figure.get_figwidth() > 5.5 else "half"
        blocks.append(Images([picture], section.alt, size))
    if section.table:
        head, *rows = [[str(cell) for cell in row] for row in section.table]
        blocks.append(Table(head, rows, section.title))
    return Part(f"section-{i + 1}", section.title, blocks)


def _provenance(e: Evidence) -> Part:
    rows: list[list[str]] = []
    for source, info in (
        ("posterior", e.posterior.info),
        ("draws", e.draws.info if e.draws is not None else {}),
        ("notes", e.extras.notes),
    ):
        rows += [[source, *pair] for pair in _facts(info)]
    if e.fit is not None:
        facts = {"method": e.fit.method, "backend": e.fit.backend, "seconds": round(e.fit.seconds, 1)}
        rows += [["training", *pair] for pair in _facts({**facts, "versions": e.fit.versions})]
    here = {"python": platform.python_version()} | {name: _version(name) for name in ("vbinfer", "jax", "numpy")}
    rows.append(["report", "versions", ", ".join(f"{name} {value}" for name, value in here.items())])
    return Part(
        "provenance", "Provenance", [Table(["source", "fact", "value"], rows, "Seeds, versions, timings.", words=3)]
    )


def _facts(info: Mapping[str, object] | None) -> list[tuple[str, str]]:
    facts = []
    for name, value in (info or {}).items():
        if isinstance(value, Mapping):
            text = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, float):
            text = f"{value:.4g}"
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
        facts.append((str(name).replace("_", " "), text))
    return facts


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
