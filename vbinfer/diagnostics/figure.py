"""Figures as plain data, without a plotting library.

A `Figure` has panels, a `Panel` has marks. A renderer draws the marks in their order. What a mark stands for (the
posterior, the recording, a reference) is said by its `role`, for which the renderer has a colour; marks of one kind and
role with different labels are told apart by shade or shape.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

Role = Literal["posterior", "prior", "observed", "reference", "null", "other", "good"]
"""What a mark stands for.

`reference` is what a right result would give (a diagonal, a band), `null` a distribution under a null hypothesis,
`observed` the recording, a truth or what crossed a threshold, `other` a further method or parameter, `good` a region to
be in."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Args:
        label: what is measured, a parameter's path for instance; a renderer may cut it.
        unit: of the numbers; empty for none.
        limits: first and last number shown; the larger first turns the axis round. None fits the marks.
        log: logarithmic.
        ticks: names of the positions 0, 1, 2, ... in place of numbers.
        numbers: False hides the numbers of densities and the like.
    """

    label: str = ""
    unit: str = ""
    limits: tuple[float, float] | None = None
    log: bool = False
    ticks: Sequence[str] | None = None
    numbers: bool = True


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve through `x [n]`, `y [n]`."""

    x: np.ndarray
    y: np.ndarray
    role: Role = "posterior"
    label: str = ""
    dashed: bool = False
    thin: bool = False


@dataclasses.dataclass(frozen=True)
class Band:
    """Area between `low [n]` and `high [n]` over `x [n]`."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    role: Role = "reference"
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Points:
    """Points at `x [n]`, `y [n]`, perhaps with error bars.

    `error [n]` is half the length of the vertical bar through each.
    """

    x: np.ndarray
    y: np.ndarray
    role: Role = "posterior"
    label: str = ""
    error: np.ndarray | None = None
    marker: Literal["circle", "square", "dot"] = "circle"


@dataclasses.dataclass(frozen=True)
class Bars:
    """Bars that rise by `heights [n]` from `base`.

    They stand between `edges [n + 1]`, or are centred on 0, 1, 2, ... without edges.

    `along="x"` lets them grow upwards from the x axis, `along="y"` to the right from the y axis.
    """

    heights: np.ndarray
    edges: np.ndarray | None = None
    base: float = 0.0
    role: Role = "posterior"
    label: str = ""
    along: Literal["x", "y"] = "x"


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Horizontal intervals, at heights 0, 1, 2, ...

    `low` and `high` are `[n]`.
    """

    low: np.ndarray
    high: np.ndarray
    role: Role = "posterior"
    label: str = ""
    thick: bool = False


@dataclasses.dataclass(frozen=True)
class Rule:
    """Straight line across the panel at one number.

    A threshold, a truth, zero: `axis="x"` stands upright at that x.
    """

    at: float
    axis: Literal["x", "y"] = "x"
    role: Role = "reference"
    label: str = ""
    dashed: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """Matrix `values [m, n]` as an image.

    The first row is on top.

    Args:
        values: the matrix.
        limits: numbers of the first and the last colour.
        colours: `diverging` around 0, `sequential`, or `grey`.
        extent: left, right, bottom, top in units of the axes; None counts rows and columns.
        label: of the colour bar; empty for none.
    """

    values: np.ndarray
    limits: tuple[float, float]
    colours: Literal["diverging", "sequential", "grey"] = "diverging"
    extent: tuple[float, float, float, float] | None = None
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """Coloured nodes at `places [n, 2]`, and weighted lines.

    Args:
        places: x and y of each node.
        values: `[n]`, of each node; its colour.
        edges: `[m, 2]`, numbers of nodes, in the order in which they are drawn.
        weights: `[m]`, of each edge; red is positive, blue negative, and the largest are the most opaque.
        label: of the colour bar of the nodes.
        colours: of the nodes, `diverging` around 0 or `sequential`.
    """

    places: np.ndarray
    values: np.ndarray
    edges: np.ndarray
    weights: np.ndarray
    label: str = ""
    colours: Literal["diverging", "sequential"] = "diverging"


@dataclasses.dataclass(frozen=True)
class Note:
    """Words at `x`, `y`, shares of the panel.

    Counted from its lower left corner; they are aligned to the nearer side.
    """

    x: float
    y: float
    text: str


Mark = Line | Band | Points | Bars | Intervals | Rule | Picture | Graph | Note


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes with its marks.

    Args:
        marks: drawn in this order; their labels make the legend.
        x: the horizontal axis.
        y: the vertical axis.
        alt: what the panel shows, in words, for readers who cannot see it.
        title: over the panel; mostly empty.
        square: one unit is as long on both axes.
    """

    marks: Sequence[Mark]
    x: Axis
    y: Axis
    alt: str
    title: str = ""
    square: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """Panels side by side under one caption.

    Args:
        panels: in reading order; of many parameters the first `MOST_PANELS`.
        caption: what is seen, how a right result looks, and the n behind it.
        size: how wide one panel is: `full` and `large` fill a row, `half` and `third` share it.
    """

    panels: Sequence[Panel]
    caption: str
    size: Literal["third", "half", "large", "full"] = "third"


def by_name(marks: Sequence[Mark], names: Sequence[str], x: Axis, alt: str) -> Panel:
    """Panel with names down its left side.

    The first is on top.
    """
    return Panel(marks, x, Axis(limits=(len(names) - 0.5, -0.5), ticks=names), alt)


def share_axis(label: str) -> Axis:
    """Axis of a probability, from 0 to 1."""
    return Axis(label, limits=(0.0, 1.0))


DIAGONAL = Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "reference", thin=True)
"""Where a calibrated result lies."""
MOST_PANELS = 12
"""Parameters that get a panel of their own."""
