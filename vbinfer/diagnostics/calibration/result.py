"""The result of a calibration study."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer.diagnostics.calibration.coverage import Coverage, CoverageRow, coverage_table
from vbinfer.diagnostics.calibration.recovery import Learned, LocalRow, RecoveryRow
from vbinfer.diagnostics.calibration.rows import TestRow
from vbinfer.diagnostics.calibration.tarp import Tarp
from vbinfer.diagnostics.calibration.words import aligned, numbers, text
from vbinfer.diagnostics.result import AbstractResult
from vbinfer.io import npz


@dataclasses.dataclass(frozen=True)
class Calibration(AbstractResult):
    """Result of `vb.calibrate`; `str()` is the verdict, the findings and the tables.

    Attributes:
        names: flattened parameters, D of them.
        features: names of the summaries.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences, the worst first, what was learned, and what the tests could have seen.
        tests: all rows of `TestRow`; their adjusted p share one false-alarm rate of 5 %.
        ranks: `[n, D]`, draws below the truth, 0..num_posterior_samples.
        u: `[n, D]`, the same as uniform numbers.
        coverage: HPD and central intervals, as `vb.coverage` gives them.
        tarp: the curve of `vb.tarp`.
        learned: recovery by parameter, and information gain.
        local: calibration in fifths of the posterior mean and of the truth.
        num_posterior_samples: draws per data set.
        failed: held-out simulations that failed.
        info: `seconds` by stage, `key`, `versions`, `source`, smallest effective sample size.
    """

    names: tuple[str, ...]
    features: tuple[str, ...]
    verdict: str
    findings: tuple[str, ...]
    tests: tuple[TestRow, ...]
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
    def numbers(self) -> dict[str, Any]:
        """JSON-able: everything but the arrays by data set."""
        return numbers(
            self.verdict,
            self.findings,
            self.tests,
            n=len(self),
            failed=self.failed,
            num_posterior_samples=self.num_posterior_samples,
            coverage=[row._asdict() for row in self.coverage.rows],
            atc=self.tarp.atc,
            recovery=[row._asdict() for row in self.learned.rows],
            info_gain=self.learned.info_gain,
            info_gain_se=self.learned.info_gain_se,
            impossible=self.learned.impossible,
            local=[row._asdict() for row in self.local],
            info=self.info,
        )

    def __str__(self) -> str:
        head = f"Calibration: {self.verdict} ({len(self)} held-out data sets, {self.num_posterior_samples} draws each)"
        recovery = [RecoveryRow._fields]
        recovery += [(row.name, *(f"{value:.3g}" for value in row[1:])) for row in self.learned.rows]
        tables = (text(head, self.findings, self.tests), coverage_table(self.coverage.rows), aligned(recovery))
        return "\n\n".join(tables)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` (arrays and a JSON header); `vb.load(path)` reads it back exactly."""
        arrays = {"ranks": self.ranks, "u": self.u, "credibility": self.coverage.credibility}
        arrays |= {name: getattr(self.tarp, name) for name in ("f", "alpha", "ecp", "band")}
        header = {
            "names": self.names,
            "features": self.features,
            "study": [self.verdict, self.findings, self.tests],
            "coverage": [self.coverage.rows, self.coverage.tests, self.coverage.verdict, self.coverage.findings],
            "tarp": [self.tarp.atc, self.tarp.tests, self.tarp.verdict, self.tarp.findings],
            "learned": self.learned,
            "local": self.local,
            "num_posterior_samples": self.num_posterior_samples,
            "failed": self.failed,
            "info": self.info,
        }
        npz.write(path, "calibration", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Calibration":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        light, findings, tests = header["study"]
        rows, covered, cover_light, cover_said = header["coverage"]
        atc, balls, tarp_light, tarp_said = header["tarp"]
        recovered, gain, se, impossible = header["learned"]
        curve = {name: arrays[name] for name in ("f", "alpha", "ecp", "band")}
        return cls(
            names=tuple(header["names"]),
            features=tuple(header["features"]),
            verdict=light,
            findings=tuple(findings),
            tests=_tests(tests),
            ranks=arrays["ranks"],
            u=arrays["u"],
            coverage=Coverage(
                tuple(CoverageRow(*row) for row in rows),
                arrays["credibility"],
                _tests(covered),
                cover_light,
                tuple(cover_said),
            ),
            tarp=Tarp(**curve, atc=atc, tests=_tests(balls), verdict=tarp_light, findings=tuple(tarp_said)),
            learned=Learned(tuple(RecoveryRow(*row) for row in recovered), gain, se, impossible),
            local=tuple(LocalRow(*row) for row in header["local"]),
            num_posterior_samples=header["num_posterior_samples"],
            failed=header["failed"],
            info=dict(header["info"]),
        )


def _tests(rows: list[list[Any]]) -> tuple[TestRow, ...]:
    return tuple(TestRow(*row) for row in rows)
