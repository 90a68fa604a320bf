"""Sections of a page, and the questions they answer."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vbinfer.diagnostics.figure import Figure
from vbinfer.diagnostics.result import json_able

from .format import number, paragraph
from .verdict import Check

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
class Text:
    """One paragraph."""

    text: str
    kind: ClassVar[str] = "text"


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
    kind: ClassVar[str] = "table"


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
    kind: ClassVar[str] = "images"


Block = Text | Table | Figure | Images


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


def topic_of(name: str, result: Any, anchor: str, title: str, *, tables: Iterable[Table] | None = None) -> Topic:
    """The section of any result: its findings, figure and numbers.

    Args:
        name: of its numbers in the file.
        result: an `AbstractResult`, or anything with `.verdict` and `.findings`.
        anchor: of the section.
        title: of the section.
        tables: instead of those made of its numbers.
    """
    found = getattr(result, "numbers", {})
    found = found if isinstance(found, Mapping) else {}
    # results of users may leave empty sentences
    findings = [text for text in result.findings if text.strip()]
    question = getattr(result, "question", title)
    rule = getattr(result, "rule", "The rule of the result that was given.")
    sentence = paragraph(findings, 3) or "No finding was given."
    figure = result.figure() if hasattr(result, "figure") else None
    blocks: list[Block] = [Text(paragraph([finding], 1)) for finding in findings]
    blocks += [] if figure is None else [figure]
    blocks += tables_of(found) if tables is None else tables
    content = {**json_able(found), "verdict": result.verdict, "findings": list(findings)}
    return Topic(
        anchor, title, blocks, [Check(question, result.verdict, sentence, f"#{anchor}", rule)], {name: content}
    )


def tables_of(numbers: Mapping[str, Any]) -> list[Table]:
    """Tables of a result's numbers, the scalars last.

    >>> [table.caption for table in tables_of({"rows": [{"first": "NPE", "p": 0.2}], "n": 7})]
    ['Rows.', 'Numbers of this result; all are in the JSON.']
    """
    found, facts = [], []
    for name, value in numbers.items():
        words = name.replace("_", " ")
        if isinstance(value, list | tuple) and value and all(_is_row(row) for row in value):
            found.append(_rows_table(words, [_row(row) for row in value]))
        elif isinstance(value, int | float | str) and name != "verdict":
            facts.append([words, number(value, 4)])
    if facts:
        found.append(Table(["quantity", "value"], facts[:MOST_ROWS], "Numbers of this result; all are in the JSON."))
    return found


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "_asdict")


def _row(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else value._asdict()


def _rows_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of rows, those that did not pass marked."""
    # what failed comes first
    shown = sorted(rows, key=lambda row: row["p"]) if "p" in rows[0] else rows
    shown = shown[:MOST_ROWS]
    cut = "" if len(shown) == len(rows) else f" {len(shown)} of {len(rows)}; all are in the JSON."
    head = [key for key in shown[0] if not isinstance(shown[0][key], Mapping)]
    body = [[_cell(row[key]) for key in head] for row in shown]
    marks = frozenset(i for i, row in enumerate(shown) if row.get("status", "pass") != "pass")
    words = max([1, *(i + 1 for i, key in enumerate(head) if isinstance(shown[0][key], str) and i < 3)])
    caption = CAPTIONS.get(name, f"{name.capitalize()}.")
    return Table([key.replace("_", " ") for key in head], body, f"{caption}{cut}", marks, words)


def _cell(value: Any) -> str:
    return ", ".join(number(one) for one in value) if isinstance(value, list | tuple) else number(value)
