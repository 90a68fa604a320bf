"""The verdict: one light per question, with the threshold that decided it."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from vbinfer.diagnostics.result import Status


@dataclasses.dataclass(frozen=True)
class Check:
    """One question, its light, the answer in words, where the evidence is, and what decided."""

    question: str
    light: Status
    sentence: str
    evidence: str
    threshold: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a report concluded.

    Args:
        verdict: `pass`, `warn` or `fail`, the worst of the lights; `warn` when nothing could be checked.
        findings: one sentence per question.
        checks: one dict per question: `question`, `light`, `sentence`, `evidence` (an anchor), `threshold`.
        numbers: the numbers behind them: `parameters`, `features`, `fc`, `recovery`, ...
        path: where the page was written.
    """

    verdict: Status
    findings: tuple[str, ...]
    checks: tuple[dict[str, str], ...]
    numbers: dict[str, object]
    path: Path

    def to_json(self) -> str:
        """The verdict as JSON text; numbers that are not finite become null."""
        content = {
            "format": 1,
            "verdict": self.verdict,
            "findings": list(self.findings),
            "checks": list(self.checks),
            "numbers": self.numbers,
        }
        return json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str) else str(value)
