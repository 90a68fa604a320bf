"""Result of a calibration study."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vbinfer._show import aligned
from vbinfer.diagnostics.figure import MOST_PANELS, Axis, Figure, Panel, Points, Rule
from vbinfer.diagnostics.recovery import RecoveryRow, recover
from vbinfer.diagnostics.result import Status
from vbinfer.diagnostics.thresholds import GAIN_SURE, NO_GAIN
from vbinfer.io import npz

from .band import rank_figure
from .coverage import Coverage, CoverageRow, Tarp, coverage_table
from .held_out import HeldOut
from .rank_tests import normal
from .tests import RULE, AbstractTested, TestResult, as_text

BINS = 5


class LocalRow(NamedTuple):
    """Scores of data sets in one fifth of a range."""

    name: str
    by: str
    """`posterior mean`: under the null scores are standard normal in every bin. `truth`: they are NOT, even if all is
    right: where the truth is extreme, a right posterior is pulled towards the prior. Look, do not test."""
    low: float
    high: float
    n: int
    score_mean: float
    """Positive: truths lie above their posteriors here. Its standard error is 1 / sqrt(n)."""
    score_sd: float
    """Above 1: posteriors are too narrow here."""


class Learned(NamedTuple):
    """What the data taught, over the prior."""

    rows: tuple[RecoveryRow, ...]
    info_gain: float | None
    """Mean of log q(theta* | x) - log p(theta*), in nats; None without a density or a prior, or if it is infinite."""
    info_gain_se: float | None
    impossible: int
    """Truths to which the posterior gives no density at all."""

    @property
    def nothing(self) -> tuple[str, ...]:
        """Parameters about which nothing was learned."""
        return tuple(row.name for row in self.rows if row.nothing)

    @property
    def nothing_at_all(self) -> bool:
        """Whether nothing was learned of any parameter.

        No mean follows its truth, or truths are no more probable than under the prior.
        Data can tell how far a parameter is from its mean and not on which side. Then the means do not move, and only
        the information gain, if it is there and well above zero, says that something was learned.
        """
        if self.info_gain is not None and self.info_gain_se is not None:
            if self.info_gain <= NO_GAIN:
                return True
            if self.info_gain > max(GAIN_SURE, 3.0 * self.info_gain_se):
                return False
        return len(self.nothing) == len(self.rows)


@dataclasses.dataclass(frozen=True)
class Calibration(AbstractTested):
    """Result of `vb.calibrate`.

    `str()` is the verdict, the findings and the tables.

    Attributes:
        names: flattened parameters, D of them.
        features: names of the summaries.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences, the worst first, what was learned, and what the tests could have seen.
        tests: all rows of `TestResult`; their adjusted p share one false-alarm rate of 5 %.
        ranks: `[n, D]`, draws below the truth, 0..num_posterior_samples.
        u: `[n, D]`, the same as uniform numbers.
        coverage: HPD and central intervals, as `vb.diagnostics.coverage` gives them.
        tarp: the curve of `vb.diagnostics.tarp`.
        learned: recovery by parameter, and information gain.
        local: calibration in fifths of the posterior mean and of the truth.
        num_posterior_samples: draws per data set.
        failed: held-out simulations that failed.
        info: `seconds` by stage, `key`, `versions`, `source`, smallest effective sample size.
    """

    question = "Is the estimator calibrated?"
    rule = f"{RULE} Warn, too: nothing learned. It speaks for the average over the prior."
    names: tuple[str, ...]
    features: tuple[str, ...]
    verdict: Status
    findings: tuple[str, ...]
    tests: tuple[TestResult, ...]
    ranks: np.ndarray
    u: np.ndarray
    coverage: Coverage
    tarp: Tarp
    learned: Learned
    local: tuple[LocalRow, ...]
    num_posterior_samples: int
    failed: int
    info: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ranks)

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the arrays by data set."""
        return {
            "n": len(self),
            "failed": self.failed,
            "num_posterior_samples": self.num_posterior_samples,
            "coverage": self.coverage.rows,
            "atc": self.tarp.atc,
            "recovery": self.learned.rows,
            "info_gain": self.learned.info_gain,
            "info_gain_se": self.learned.info_gain_se,
            "impossible": self.learned.impossible,
            "local": self.local,
            "info": self.info,
        }

    def __str__(self) -> str:
        table = [RecoveryRow._fields]
        table += [(row.name, *(f"{value:.3g}" for value in row[1:])) for row in self.learned.rows]
        head = f"{len(self)} held-out data sets, {self.num_posterior_samples} draws each"
        return "\n\n".join([head, as_text(self), coverage_table(self.coverage.rows), aligned(table)])

    def figure(self) -> Figure:
        """Ranks, coverage, TARP, and bias over parameter space."""
        ranks = rank_figure(
            self.u, self.names, f"Ranks of the truth among {self.num_posterior_samples} posterior draws"
        )
        parts = [ranks, self.coverage.figure(), self.tarp.figure()]
        panels = [panel for part in parts for panel in part.panels]
        panels += [_bias_panel(self.local, name) for name in self.names[:MOST_PANELS]]
        caption = " ".join(part.caption for part in parts) + (
            " Last: how far truths lie above their posteriors, in fifths of the posterior mean (two standard errors; "
            "flat at zero if all is right). By the truth itself a right posterior is pulled towards the prior: that is "
            "no fault."
        )
        return Figure(panels, caption)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz`; `vb.load(path)` reads it.

        Arrays and a JSON header, read back exactly.
        """
        header: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {}
        for part, result in {"study": self, "coverage": self.coverage, "tarp": self.tarp}.items():
            fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
            held = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
            arrays |= {f"{part}.{name}": value for name, value in held.items()}
            header[part] = {name: value for name, value in fields.items() if name not in (*held, "coverage", "tarp")}
        npz.write(path, "calibration", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Calibration":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        row_types = {"tests": TestResult, "rows": CoverageRow, "local": LocalRow}

        def fields(part: str) -> dict[str, Any]:
            found = {name: tuple(value) if isinstance(value, list) else value for name, value in header[part].items()}
            found |= {name: tuple(row_types[name](*row) for row in found[name]) for name in row_types if name in found}
            return found | {
                name.removeprefix(f"{part}."): value for name, value in arrays.items() if name.startswith(f"{part}.")
            }

        rows, *gain = header["study"]["learned"]
        study = fields("study")
        study["learned"] = Learned(tuple(RecoveryRow(*row) for row in rows), *gain)
        return cls(**study, coverage=Coverage(**fields("coverage")), tarp=Tarp(**fields("tarp")))


def _bias_panel(rows: tuple[LocalRow, ...], name: str) -> Panel:
    """Mean score of truths over parameter space.

    In fifths of the posterior mean, and of the truth.
    """
    own = {by: [row for row in rows if (row.name, row.by) == (name, by)] for by in ("truth", "posterior mean")}
    places = {
        by: np.array([(0.5 * (row.low + row.high), row.score_mean) for row in some]).T for by, some in own.items()
    }
    error = np.array([2 / row.n**0.5 for row in own["posterior mean"]])
    said = ", ".join(f"{row.score_mean:.2f}" for row in own["posterior mean"])
    return Panel(
        (
            Rule(0.0, "y"),
            Points(*places["truth"], role="prior", label="by truth (not a test)", marker="square"),
            Points(*places["posterior mean"], label="by posterior mean", error=error),
        ),
        Axis(name),
        Axis("truth minus posterior, in sd"),
        f"Mean score of the true {name} in fifths of its posterior mean: {said}",
    )


def learned(held: HeldOut) -> Learned:
    """Recovery of every parameter, and information gain."""
    rows = recover(held.names, held.truth, held.draws, held.scale()[1] ** 2).rows
    gain, error, impossible = None, None, 0
    if held.log_q is not None:
        impossible = int((~np.isfinite(held.log_q[:, 0])).sum())
        if held.log_prior is not None and not impossible:
            # the expectation of log q(theta* | x) - log p(theta*) is at most the mutual information of theta and x
            nats = held.log_q[:, 0] - held.log_prior
            gain, error = float(nats.mean()), float(nats.std(ddof=1) / np.sqrt(len(nats)))
    return Learned(rows, gain, error, impossible)


def local_rows(held: HeldOut) -> tuple[LocalRow, ...]:
    """Calibration by posterior mean and by truth, in fifths."""
    s, centre, rows = normal(held.u), held.pooled.mean(axis=1), []
    for d, name in enumerate(held.names):
        for by, value in (("posterior mean", centre[:, d]), ("truth", held.truth[:, d])):
            # fifths hold equally many data sets, so that each mean has the same standard error
            for part in np.array_split(np.argsort(value, kind="stable"), BINS):
                ends = float(value[part[0]]), float(value[part[-1]])
                score = s[part, d]
                rows.append(LocalRow(name, by, *ends, len(part), float(score.mean()), float(score.std(ddof=1))))
    return tuple(rows)
