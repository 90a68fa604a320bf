"""`report`: the verdict and its evidence as one self-contained HTML page, and the same verdict as JSON."""

import dataclasses
import importlib.resources
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vbinfer.diagnostics.calibration.result import Calibration
from vbinfer.diagnostics.result import worst
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive
from vbinfer.io import npz
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior, hdi
from vbinfer.priors.prior import Prior

from .asked import Diagnostic, named
from .checks import checks as all_checks
from .checks import recovery_rows
from .evidence import HDI_PROB, Evidence, Extras, RecordingLike
from .parts import parts
from .section import Part
from .verdict import Verdict
from .words import percent, plus_minus, spread, two

_HEADLINE = {
    "pass": "No check raised a doubt",
    "warn": "Read with care",
    "fail": "Do not rely on this posterior",
}
_WORD = {"pass": "pass", "warn": "warning", "fail": "fail"}


def report(
    posterior: Posterior,
    *,
    prior: Prior | None = None,
    draws: Draws | None = None,
    fit: FitInfo | None = None,
    calibration: Calibration | None = None,
    checks: Mapping[str, Any] | Iterable[Any] | Diagnostic | None = None,
    predictive: Predictive | None = None,
    observed: RecordingLike | None = None,
    theta_true: Mapping[str, ArrayLike] | None = None,
    extras: Extras | None = None,
    out: str | Path = "report.html",
) -> Verdict:
    """Write one page that says what was learned, whether to believe it, and what failed.

    The verdict comes first, one light per question, with its threshold and a link to its evidence. Each section is
    there when its input is; questions that could not be asked are named. Beside the page, `report.json` carries the
    verdict (key `verdict`) and its numbers; the same text sits in the page.

    Three diagnostics are computed here where their inputs are, unless `checks` has them: `vb.misspecification` (draws
    and `x_o`), `vb.convergence` (chains) and `vb.predictive_check` (predictive and `x_o`).

    What it cannot see: whatever the features do not measure. Recovery and calibration speak for the average over the
    prior, not for the neighbourhood of this recording; `vb.lc2st`, given in `checks`, does.

    Args:
        posterior: the draws to report on; its `x_o` are the recording's features.
        prior: for shrinkage and every prior-against-posterior figure; `posterior.prior` by default.
        draws: the prior predictive simulations, failed ones included.
        fit: the record of training.
        calibration: what `vb.calibrate` found for the method that made this posterior.
        checks: further results, by name or in order: `vb.lc2st`, `vb.posterior_sbc`, `vb.agreement`, `vb.sensitivity`,
            `vb.loo`, `vb.compare`, or any object with `.verdict` and `.findings`.
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
    evidence = Evidence(
        posterior=posterior,
        prior=prior if prior is not None else posterior.prior,
        draws=draws,
        fit=fit,
        predictive=predictive,
        observed=observed,
        theta_true=theta_true,
        extras=extras if extras is not None else Extras(),
        calibration=calibration,
        given=named(checks),
    )
    done, absent = all_checks(evidence)
    verdict = Verdict(
        verdict=worst(check.light for check in done) if done else "warn",
        findings=tuple(check.sentence for check in done) or ("Nothing could be checked: only draws were given.",),
        checks=tuple(dataclasses.asdict(check) for check in done),
        numbers=_numbers(evidence),
        path=path,
    )
    page = _render(verdict, absent, parts(evidence, absent), evidence)
    npz.write_text(path.with_suffix(".json"), verdict.to_json() + "\n")
    npz.write_text(path, page)
    return verdict


def _numbers(e: Evidence) -> dict[str, object]:
    features = [
        {
            "name": row.name,
            "observed": row.observed,
            "prior_percentile": row.prior_percentile,
            "posterior_percentile": row.posterior_percentile,
        }
        for row in e.features
    ]
    numbers: dict[str, object] = {"parameters": e.parameters, "features": features, "fc_correlation": e.fc_match}
    if e.extras.recovery is not None:
        numbers["recovery"] = [dataclasses.asdict(row) for row in recovery_rows(e)]
    if e.fit is not None:
        numbers["info_gain"], numbers["converged"] = float(e.fit.info_gain), bool(e.fit.converged)
    if e.calibration is not None:
        numbers["calibration"] = e.calibration.numbers
    found = {
        "misspecification": e.asked.misspecification,
        "convergence": e.asked.convergence,
        "predictive_check": e.asked.predictive,
        **e.asked.others,
    }
    numbers |= {name: _of(item) for name, item in found.items() if item is not None and not isinstance(item, str)}
    if e.modes is not None:
        numbers["modes"] = e.modes._asdict()
    if e.asked.series:
        numbers["p_series"] = e.asked.series
    if e.draws is not None:
        numbers["draws"] = {"n": len(e.draws), "failed": int(np.sum(~np.asarray(e.draws.valid)))}
    return numbers


def _of(item: Diagnostic) -> dict[str, object]:
    """A result for the file: its light, sentences and numbers."""
    own = getattr(item, "numbers", {})
    return {**(own if isinstance(own, Mapping) else {}), "verdict": item.verdict, "findings": list(item.findings)}


def _render(verdict: Verdict, absent: list[str], sections: list[Part], e: Evidence) -> str:
    import jinja2

    text = importlib.resources.files("vbinfer.reporting").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        finalize=_unbroken, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    data = verdict.to_json()
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):  # still JSON, and closes no tag
        data = data.replace(sign, code)
    anchors = {f"#{part.anchor}" for part in sections}
    return environment.from_string(text).render(
        title=e.extras.title,
        verdict=verdict,
        headline=_HEADLINE[verdict.verdict],
        word=_WORD,
        absent=absent,
        sections=sections,
        anchors=anchors,
        tiles=_tiles(e),
        data=data,
    )


def _unbroken(value: object) -> object:
    """Keep a number and its percent sign on one line; leave what is already HTML or JSON alone."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value


def _tiles(e: Evidence) -> list[dict[str, str]]:
    """The answer in a line per parameter, for the top of the page; the first six."""
    tiles = []
    low, high = hdi(e.samples, HDI_PROB)
    for i, name in enumerate(e.names[:6]):
        mean, sd = float(e.samples[:, i].mean()), float(e.samples[:, i].std(ddof=1))
        interval = [float(low[i]), float(high[i])]
        tile = {
            "name": name,
            "value": plus_minus(mean, sd),
            "unit": e.unit(name),
            "interval": f"{percent(HDI_PROB)} interval {' to '.join(spread(interval, sd))}",
            "extra": ""
            if e.shrinkage is None or not np.isfinite(e.shrinkage[i])
            else f"shrinkage {two(float(e.shrinkage[i]))}",
        }
        tiles.append(tile)
    return tiles
