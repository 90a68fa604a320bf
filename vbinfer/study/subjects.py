"""Results of several subjects: one table, one population, one report.

| file | holds |
|---|---|
| `posterior-NAME.npz`, `report-NAME.html` | a subject's posterior and its page |
| `pooled-NAME.npz` | the posterior of the subject, given the whole cohort |
| `population.npz` | mean and sd of each parameter over the subjects |
| `subjects.csv`, `subjects.json` | a row for each subject |
| `report.html` | the population, and all subjects with links to their pages |
"""

import csv
import dataclasses
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vbinfer.approximate.cohort import cohort, weak_hyperprior
from vbinfer.diagnostics.result import AbstractResult, Status, worst
from vbinfer.io import npz
from vbinfer.posterior import Posterior
from vbinfer.reporting.evidence import ReportExtras
from vbinfer.reporting.page import report
from vbinfer.reporting.sections import Section, Verdict

if TYPE_CHECKING:
    from .study import Study

TABLE, POPULATION = "subjects.json", "population.npz"
_POOLING = 400_000_001  # folded into the seed: pooling shares no randomness with a run


@dataclasses.dataclass(frozen=True)
class SubjectVerdicts(AbstractResult):
    """Verdicts of the subjects' own reports."""

    question = "Can each subject's posterior be trusted?"
    rule = "The worst verdict of the subjects' own pages, which say why."

    verdict: Status
    findings: tuple[str, ...]


def pool(study: "Study") -> Verdict:
    """Population, table and report of subjects that have run."""
    posteriors = {name: npz.load(one.file("posterior.npz")) for name, one in study.subjects.items()}
    found = cohort(
        posteriors, weak_hyperprior(study.prior), key=jax.random.fold_in(jax.random.key(study.seed), _POOLING)
    )
    # the same study is the same file, byte for byte
    found.population.info.pop("seconds")
    found.population.save(study.out / POPULATION)
    rows = []
    for name, one in study.subjects.items():
        found.subjects[name].save(study.out / f"pooled-{name}.npz")
        page = one.file("report.html")
        row: dict[str, Any] = {
            "subject": name,
            "verdict": json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["verdict"],
            "simulator": str(one.out.relative_to(study.out)),
            "page": page.name,
        }
        rows.append(row | _numbers(posteriors[name], "") | _numbers(found.subjects[name], "pooled "))
    table = {"title": study.report.title, "subjects": rows}
    npz.write_text(study.out / TABLE, npz.to_json(table) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    npz.write_text(study.out / "subjects.csv", text.getvalue())
    return overview(study.out)


def _numbers(posterior: Posterior, prefix: str) -> dict[str, float]:
    """Mean and sd of each parameter."""
    flat = np.asarray(posterior.ravel(), float)
    values = {"mean": flat.mean(0), "sd": flat.std(0)}
    names = enumerate(posterior.names)
    return {f"{prefix}{name} {kind}": float(value[i]) for i, name in names for kind, value in values.items()}


def read_table(out: Path) -> dict[str, Any]:
    """What `subjects.json` holds."""
    return json.loads((out / TABLE).read_text(encoding="utf-8"))


def overview(out: Path) -> Verdict:
    """Report of the population, from a run's files."""
    table, population = read_table(out), npz.load(out / POPULATION)
    rows = table["subjects"]
    verdicts = [row["verdict"] for row in rows]
    count = {status: verdicts.count(status) for status in ("pass", "warn", "fail")}
    bad = [row["subject"] for row in rows if row["verdict"] == "fail"]
    words = f"{len(rows)} subjects: " + ", ".join(f"{n} {status}" for status, n in count.items() if n)
    words += f"; {', '.join(bad)} failed" if bad else ""
    checks = {"Subjects": SubjectVerdicts(worst(verdicts), (words,))}
    extras = ReportExtras(title=table["title"], sections=[_section(rows, population)])
    return report(population, checks=checks, extras=extras, out=out / "report.html")


def _section(rows: list[Mapping[str, Any]], population: Posterior) -> Section:
    """All subjects, with links to their pages."""
    from jinja2.filters import do_mark_safe  # here, since pages alone need jinja2

    names = [key.removesuffix(" mean") for key in rows[0] if key.endswith(" mean") and not key.startswith("pooled ")]
    body = [["subject", "verdict", *names, *(f"{name}, pooled" for name in names)]]
    for row in rows:
        page, name = (html.escape(str(row[key])) for key in ("page", "subject"))  # a file may be anybody's
        link = do_mark_safe(f'<a href="{page}">{name}</a>')
        cells = [f"{row[f'{p}{n} mean']:.3g} ± {row[f'{p}{n} sd']:.2g}" for p in ("", "pooled ") for n in names]
        body.append([link, row["verdict"], *cells])
    over = ", ".join(f"{leaf} over {what}" for leaf, what in population.info["over"].items())
    ess = population.info["ess"]
    least = min(ess, key=ess.get)
    text = (
        "Mean and sd of each subject's posterior, and of the one that the whole cohort makes of it (pooled). The "
        f"population's mean and sd are of {over}; z is where the prior is standard normal.\n\nReweighting left "
        f"{ess[least]:.0f} effective draws of {least}, the fewest, with a Pareto khat of "
        f"{population.info['khat'][least]:.2f}."
    )
    return Section("Subjects", text=text, table=body)
