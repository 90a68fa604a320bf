"""What a page is made of: a `Section` of the user's own, and the blocks that every section becomes."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the user's own in a report: words, a table, a figure, any of them. Everything is escaped.

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
    figure: "Figure | None" = None
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
    """Rows of cells; `marks` are the numbers of rows to stand out, `words` how many leading columns hold words."""

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
    """Pictures side by side under one caption; `size` is how many fit a wide row."""

    images: Sequence[Image]
    caption: str
    size: Literal["third", "half", "large", "full"] = "half"
    kind: ClassVar[str] = "images"


@dataclasses.dataclass(frozen=True)
class Part:
    """A heading, the anchor that links point to, and blocks."""

    anchor: str
    title: str
    blocks: Sequence[Text | Table | Images]
