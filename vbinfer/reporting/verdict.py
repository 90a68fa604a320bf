"""Verdict of a report: one status per question."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from vbinfer.diagnostics.result import Status, json_able


@dataclasses.dataclass(frozen=True)
class Check:
    """One question with its status, answer and rule."""

    question: str
    light: Status
    sentence: str
    evidence: str
    threshold: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a report concluded.

    Args:
        verdict: `pass`, `warn` or `fail`, the worst of the questions; `warn` when nothing could be checked.
        findings: one sentence per question.
        checks: one dict per question: `question`, `light` (its status), `sentence`, `evidence` (an anchor),
            `threshold` (its rule).
        numbers: the numbers behind them: `parameters`, `features`, `fc_correlation`, `recovery`, ...
        path: where the page was written.
    """

    verdict: Status
    findings: tuple[str, ...]
    checks: tuple[dict[str, str], ...]
    numbers: dict[str, Any]
    path: Path

    def to_json(self) -> str:
        """JSON text; numbers that are not finite become null."""
        content = {
            "format": 1,
            "verdict": self.verdict,
            "findings": self.findings,
            "checks": self.checks,
            "numbers": self.numbers,
        }
        return json.dumps(json_able(content), indent=1, allow_nan=False, ensure_ascii=False, default=str)
