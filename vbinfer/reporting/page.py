"""`report`: the verdict and its evidence as one self-contained page."""

import dataclasses
import importlib.resources
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from vbinfer.diagnostics.figure import Figure
from vbinfer.diagnostics.result import worst
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.io import npz
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

from .evidence import Evidence, RecordingLike, ReportExtras
from .figures import images, of_user
from .format import fixed2, percent, plus_minus, round_to_sd
from .parameters import HDI_PROB
from .questions import absent, by_name, in_reading_order, topics
from .sections import Block, Images, Section, Table, Topic, Verdict

if TYPE_CHECKING:
    from vbinfer.diagnostics.calibration.result import Calibration

HEADLINES = {
    "pass": "No check raised a doubt",
    "warn": "Read with care",
    "fail": "Do not rely on this posterior",
}
WORDS = {"pass": "pass", "warn": "warning", "fail": "fail"}
MOST_TILES = 6


def report(
    posterior: Posterior,
    *,
    prior: Prior | None = None,
    draws: Draws | None = None,
    fit: FitInfo | None = None,
    calibration: "Calibration | None" = None,
    checks: Mapping[str, Any] | Iterable[Any] | None = None,
    predictive: Predictive | None = None,
    observed: RecordingLike | None = None,
    theta_true: Mapping[str, ArrayLike] | None = None,
    extras: ReportExtras | None = None,
    out: str | Path = "report.html",
) -> Verdict:
    """Write a page on what was learned and what failed.

    The verdict comes first, one status per question, with its rule and a link to its evidence. Each section is
    there when its input is; questions that could not be asked are named. Beside the page, `report.json` carries the
    verdict (key `verdict`) and its numbers; the same text sits in the page.

    Three diagnostics are computed here where their inputs are, unless `checks` has them:
    `vb.diagnostics.misspecification` (draws and `x_o`), `vb.diagnostics.convergence` (chains) and
    `vb.diagnostics.predictive_check` (predictive and `x_o`).

    What it cannot see: whatever the features do not measure. Recovery and calibration speak for the average over the
    prior, not for the neighbourhood of this recording; `vb.diagnostics.lc2st`, given in `checks`, does.

    Args:
        posterior: the draws to report on; its `x_o` are the recording's features.
        prior: for shrinkage and every prior-against-posterior figure; `posterior.prior` by default.
        draws: the prior predictive simulations, failed ones included.
        fit: the record of training.
        calibration: what `vb.calibrate` found for the method that made this posterior.
        checks: further results of `vb.diagnostics`, by name or in order: `lc2st`, `posterior_sbc`,
            `compare_posteriors`, `sensitivity`, `loo`, `compare_models`, or any object with `.verdict` and `.findings`.
        predictive: posterior predictive simulations; with `ys` their FC and FCD are shown.
        observed: the recording that `x_o` was computed from (the same segment): `.values [time, channel]`,
            `.period` in ms, `.labels`.
        theta_true: the truth, where it is known, leaves `[...]`.
        extras: prior predictive series, recovery study, replicates, structural connectivity, own sections, notes.
        out: where to write, ending in `.html`; the folder is made when missing.

    Returns:
        The `Verdict`: `.verdict` is `pass`, `warn` or `fail`; `.findings` are sentences.

    Raises:
        TypeError: something in `checks` that is no result of a diagnostic.
        ValueError: `out` does not end in `.html`, the inputs disagree in parameters, features or channels, or the
            posterior has one draw, or draws that are not finite.

    Example:
        >>> verdict = vb.report(posterior, prior=prior, draws=draws, fit=info)  # doctest: +SKIP
        >>> verdict.verdict, verdict.findings[0]  # doctest: +SKIP
        ('pass', 'coupling.G: well determined (shrinkage 0.93).')
    """
    path = Path(out)
    if path.suffix != ".html":
        raise ValueError(f"out={str(out)!r} was given; expected a name ending in .html, as out='report.html'")
    extras = extras if extras is not None else ReportExtras()
    evidence = Evidence(
        posterior,
        prior if prior is not None else posterior.prior,
        draws=draws,
        fit=fit,
        predictive=predictive,
        observed=observed,
        theta_true=theta_true,
        extras=extras,
        calibration=calibration,
        given=by_name(checks),
    )
    found = topics(evidence)
    verdict = _conclude(found, path)
    sections = [
        *in_reading_order(found),
        *(_own(section, i) for i, section in enumerate(extras.sections, 1)),
        _limits(evidence, found),
        _provenance(evidence),
    ]
    # drawn before anything is written: an error leaves no half of a report
    page = _render(verdict, absent(found), sections, extras.title)
    npz.write_text(path.with_suffix(".json"), verdict.to_json() + "\n")
    npz.write_text(path, page)
    return verdict


def _conclude(found: Sequence[Topic], path: Path) -> Verdict:
    """The worst status, with sentences and numbers."""
    asked = [check for topic in found for check in topic.checks]
    return Verdict(
        verdict=worst(check.light for check in asked) if asked else "warn",
        findings=tuple(check.sentence for check in asked) or ("Nothing could be checked: only draws were given.",),
        checks=tuple(dataclasses.asdict(check) for check in asked),
        # later topics do not overwrite: every name is one topic's
        numbers={name: value for topic in found for name, value in topic.numbers.items()},
        path=path,
    )


def _render(verdict: Verdict, missing: Sequence[str], sections: Sequence[Topic], title: str) -> str:
    import jinja2

    text = importlib.resources.files("vbinfer.reporting").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        finalize=_unbroken, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(text).render(
        title=title,
        verdict=verdict,
        headline=HEADLINES[verdict.verdict],
        word=WORDS,
        absent=missing,
        sections=[dataclasses.replace(topic, blocks=[_drawn(block) for block in topic.blocks]) for topic in sections],
        anchors={f"#{topic.anchor}" for topic in sections},
        tiles=[_tile(row) for row in verdict.numbers["parameters"][:MOST_TILES]],
        # still JSON, and closes no tag
        data=verdict.to_json().translate(str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})),
    )


def _drawn(block: Block) -> Block:
    """Figures become pictures."""
    return Images(images(block), block.caption, block.size) if isinstance(block, Figure) else block


def _unbroken(value: object) -> object:
    """Keep a number and its percent sign on one line."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _tile(row: Mapping[str, Any]) -> dict[str, str]:
    """One parameter, for the top of the page."""
    learned = row.get("shrinkage", np.nan)
    return {
        "name": row["name"],
        "value": plus_minus(row["mean"], row["sd"]),
        "unit": row["unit"],
        "interval": f"{percent(HDI_PROB)} interval {' to '.join(round_to_sd(row['hdi'], row['sd']))}",
        "extra": f"shrinkage {fixed2(learned)}" if np.isfinite(learned) else "",
    }


def _own(section: Section, i: int) -> Topic:
    """A section of the user's own."""
    blocks: list[Block] = [text for text in section.text.split("\n\n") if text.strip()]
    if section.figure is not None:
        picture, size = of_user(section.figure, section.alt)
        blocks.append(Images([picture], section.alt, size))
    if section.table:
        head, *rows = section.table
        blocks.append(Table(head, rows, section.title))
    return Topic(f"section-{i}", section.title, blocks)


def _limits(e: Evidence, found: Sequence[Topic]) -> Topic:
    """What the posterior is conditional on, and blind spots."""
    said = [
        "The posterior is conditional on the model, its prior, and the features that the recording was reduced to: "
        "what the features do not measure, no check on this page can see.",
        *dict.fromkeys(topic.limits for topic in found if topic.limits),
    ]
    if e.fit is not None and e.posterior.num_chains == 1:
        said.append(
            "A neural posterior is trusted near its training draws only; for a recording outside them it extrapolates."
        )
    if missing := absent(found):
        said.append(f"Not asked, for want of input: {'; '.join(missing)}.")
    return Topic("limits", "Known limits", said)


def _provenance(e: Evidence) -> Topic:
    """Seeds, versions and timings."""
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("posterior", e.posterior.info),
        ("draws", e.draws.info if e.draws is not None else {}),
        ("notes", e.extras.notes),
    ]
    if e.fit is not None:
        facts = {"method": e.fit.method, "backend": e.fit.backend, "seconds": round(e.fit.seconds, 1)}
        sources.append(("training", {**facts, "versions": e.fit.versions}))
    sources.append(("report", {"versions": {"python": platform.python_version(), **npz.versions()}}))
    rows = [
        [source, str(name).replace("_", " "), _fact(value)]
        for source, facts in sources
        for name, value in facts.items()
        if not isinstance(value, np.ndarray)
    ]
    table = Table(["source", "fact", "value"], rows, "Seeds, versions, timings.", words=3)
    return Topic("provenance", "Provenance", [table])


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
