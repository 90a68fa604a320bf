"""Sections of a page, their questions, and the verdict."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vbinfer.diagnostics.figure import Figure
from vbinfer.diagnostics.result import Status, json_able

from .format import number, paragraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST_ROWS = 24
CAPTIONS = {
    "tests": "Tests; adjusted p-values share one false-alarm rate; each finds what it detects with 90 % probability.",
    "coverage": "Truths inside regions of each credibility, with a 95 % interval of their share.",
    "recovery": "Recovery: posterior means against truths; z = (mean \N{MINUS SIGN} truth) / sd; the share of variance "
    "that the data move.",
    "local": "Calibration in fifths of the posterior mean (a test) and of the truth (no test).",
    "pairs": "Methods two by two: how often a classifier tells them apart (0.5: it cannot), and how far means and sds "
    "differ in each parameter, the first against the second.",
}
"""Of tables that are known by name; others are captioned by their name."""


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


@dataclasses.dataclass(frozen=True)
class Section:
    """A user's own section: text, table, figure.

    Any of them may be left out; everything is escaped.

    Args:
        title: the heading.
        text: paragraphs, separated by empty lines; plain text, no HTML.
        table: rows of cells, the first row the header.
        figure: a `matplotlib.figure.Figure`.
        alt: what the figure shows, in words, for readers who cannot see it; needed with a figure.

    Raises:
        ValueError: a figure without `alt`, or table rows of unequal length.

    >>> Section("Step size", text="dt = 0.5 ms gives the same FC.", table=[["dt", "r"], ["0.5", "0.99"]]).title
    'Step size'
    """

    title: str
    text: str = ""
    table: Sequence[Sequence[str]] | None = None
    figure: "Canvas | None" = None
    alt: str = ""

    def __post_init__(self) -> None:
        if self.figure is not None and not self.alt:
            raise ValueError(
                f"Section {self.title!r} has a figure without words for it; give alt='what the figure shows'"
            )
        if self.table is not None and len({len(row) for row in self.table}) > 1:
            lengths = [len(row) for row in self.table]
            raise ValueError(f"the table of Section {self.title!r} has rows of {lengths} cells; give equal lengths")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells.

    Rows in `marks` stand out; the first `words` columns hold words.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    marks: frozenset[int] = frozenset()
    words: int = 1


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture as a data address, and its words."""

    src: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Images:
    """Pictures side by side under one caption."""

    images: Sequence[Image]
    caption: str
    size: Literal["third", "half", "large", "full"] | str = "half"


Block = str | Table | Figure | Images
"""A string is a paragraph."""


@dataclasses.dataclass(frozen=True)
class Topic:
    """A section of the report with its questions.

    Attributes:
        anchor: what links point to.
        title: the heading.
        blocks: in reading order.
        checks: questions, statuses and their sentences.
        numbers: for the file, by name.
        limits: what the checks of this section are blind to.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]
    checks: Sequence[Check] = ()
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limits: str = ""


def topic_of(
    name: str, result: Any, anchor: str, title: str, *, tables: Iterable[Table] | None = None, limits: str = ""
) -> Topic:
    """The section of any result: its findings, figure and numbers.

    Args:
        name: of its numbers in the file.
        result: an `AbstractResult`, or anything with `.verdict` and `.findings`.
        anchor: of the section.
        title: of the section.
        tables: instead of those made of its numbers.
        limits: what its check is blind to.
    """
    found = getattr(result, "numbers", {})
    found = found if isinstance(found, Mapping) else {}
    # results of users may leave empty sentences
    findings = [text for text in result.findings if text.strip()]
    figure = result.figure() if hasattr(result, "figure") else None
    blocks: list[Block] = [paragraph([finding], 1) for finding in findings]
    blocks += [] if figure is None else [figure]
    blocks += tables_of(found) if tables is None else tables
    check = Check(
        getattr(result, "question", title),
        result.verdict,
        paragraph(findings, 3) or "No finding was given.",
        f"#{anchor}",
        getattr(result, "rule", "The rule of the result that was given."),
    )
    content = {**json_able(found), "verdict": result.verdict, "findings": findings}
    return Topic(anchor, title, blocks, [check], {name: content}, limits)


def tables_of(numbers: Mapping[str, Any]) -> list[Table]:
    """Tables of a result's numbers, the scalars last.

    >>> [table.caption for table in tables_of({"rows": [{"first": "NPE", "p": 0.2}], "n": 7})]
    ['Rows.', 'Numbers of this result; all are in the JSON.']
    """
    found, facts = [], []
    for name, value in numbers.items():
        words = name.replace("_", " ")
        if isinstance(value, int | float | str) and name != "verdict":
            facts.append([words, number(value, 4)])
        elif isinstance(value, list | tuple) and value and all(isinstance(row, Mapping) for row in json_able(value)):
            found.append(_rows_table(words, json_able(value)))
    if facts:
        found.append(Table(["quantity", "value"], facts[:MOST_ROWS], "Numbers of this result; all are in the JSON."))
    return found


def _rows_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of rows, those that did not pass marked."""
    # what failed comes first
    shown = sorted(rows, key=lambda row: row["p"]) if "p" in rows[0] else rows
    shown = shown[:MOST_ROWS]
    cut = "" if len(shown) == len(rows) else f" {len(shown)} of {len(rows)}; all are in the JSON."
    head = [key for key, value in shown[0].items() if not isinstance(value, Mapping)]
    body = [[_cell(row[key]) for key in head] for row in shown]
    marks = frozenset(i for i, row in enumerate(shown) if row.get("status", "pass") != "pass")
    words = max([1, *(i + 1 for i, key in enumerate(head[:3]) if isinstance(shown[0][key], str))])
    caption = CAPTIONS.get(name, f"{name.capitalize()}.")
    return Table([key.replace("_", " ") for key in head], body, f"{caption}{cut}", marks, words)


def _cell(value: Any) -> str:
    return ", ".join(number(one) for one in value) if isinstance(value, list | tuple) else number(value)
