"""Figures as pictures; the one home of matplotlib."""

import base64
import io
import itertools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vbinfer.diagnostics.figure import (
    Band,
    Bars,
    Figure,
    Graph,
    Intervals,
    Line,
    Mark,
    Note,
    Panel,
    Picture,
    Points,
    Rule,
)

from .sections import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = {
    "posterior": "#0b5cad",
    "prior": "#8b95a3",
    "observed": "#c2410c",
    "reference": "#d5dae1",
    "null": "#8b95a3",
    "other": "#5b7fa6",
    "good": "#e7f4ec",
}
CYCLE = ("#0b5cad", "#c2410c", "#17663d", "#7a3e9d", "#8a5a00", "#0f766e")
"""Of several points in one panel that stand for the same thing, each of another parameter."""
COLOUR_MAPS = {"diverging": "RdBu_r", "sequential": "viridis", "grey": "Greys"}
MARKERS = {"circle": "o", "square": "s", "dot": "."}
DASHED = (0, (4, 2))
INK = "#1f2933"
LONGEST, LONGEST_TICK = 72, 32  # characters of a text in a figure
STYLE: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#7b8794",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "vbinfer",
    "figure.facecolor": "white",
}


def images(figure: Figure) -> list[Image]:
    """One picture for each panel of a figure."""
    return [draw(panel, figure.size) for panel in figure.panels]


def draw(panel: Panel, size: str) -> Image:
    """A panel as a picture, under the report's style."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # keys are matplotlib's literals
        canvas = Canvas(figsize=_inches(panel, size), layout="constrained")
        axes = canvas.subplots()
        # several labelled sets of points stand for several parameters: one colour each
        several = sum(
            isinstance(mark, Points) and bool(mark.label) and mark.role == "posterior" for mark in panel.marks
        )
        cycle = itertools.cycle(CYCLE)
        for mark in panel.marks:
            own = several > 1 and isinstance(mark, Points)
            _put(mark, axes, next(cycle) if own else COLOURS.get(getattr(mark, "role", ""), INK))
        _arrange(panel, axes)
        if any(getattr(mark, "label", "") for mark in panel.marks if not isinstance(mark, Picture | Graph)):
            canvas.legend(loc="outside upper left", ncols=4 if size in ("large", "full") else 2)
        # a cloud of points or a matrix as SVG would be megabytes
        dense = any(isinstance(m, Picture) or (isinstance(m, Points) and m.marker == "dot") for m in panel.marks)
        return image(canvas, panel.alt, "png" if dense else "svg")


def _inches(panel: Panel, size: str) -> tuple[float, float]:
    """Width and height; each row of names needs room."""
    width = 7.4 if size in ("large", "full") else 3.9
    # a row for each name
    if panel.y.ticks is not None:
        return width, 0.9 + 0.26 * len(panel.y.ticks)
    # matrices and scatter plots of like with like are square
    if panel.square or any(isinstance(mark, Picture) for mark in panel.marks):
        return 3.7, 3.5
    return width, 2.7 if width < 5 else 3.4


def _put(mark: Mark, axes: "Axes", colour: str) -> None:
    """Draw one mark."""
    named: dict[str, Any] = {"color": colour, "label": plain(getattr(mark, "label", ""))}
    match mark:
        case Line():
            axes.plot(mark.x, mark.y, lw=0.9 if mark.thin else 1.7, ls=DASHED if mark.dashed else "-", **named)
        case Band():
            alpha = 0.3 if mark.role in ("posterior", "other") else 1.0
            axes.fill_between(mark.x, mark.low, mark.high, zorder=0, alpha=alpha, lw=0, **named)
        case Points():
            _points(mark, axes, named)
        case Bars():
            _bars(mark, axes, named)
        case Intervals():
            places, width = np.arange(len(mark.low)), 7.0 if mark.thick else 2.5
            axes.hlines(places, mark.low, mark.high, lw=width, zorder=2, **named)
        case Rule():
            line = axes.axvline if mark.axis == "x" else axes.axhline
            line(mark.at, lw=1.3, ls=DASHED if mark.dashed else "-", **named)
        case Picture():
            _picture(mark, axes)
        case Graph():
            _graph(mark, axes)
        case Note():
            aligned = {"ha": "left" if mark.x < 0.5 else "right", "va": "bottom" if mark.y < 0.5 else "top"}
            kind = {"color": "#52606d", "style": "italic", "transform": axes.transAxes}
            axes.text(mark.x, mark.y, plain(mark.text), **aligned, **kind)


def _points(mark: Points, axes: "Axes", named: dict[str, Any]) -> None:
    style = {"ms": 5.0, "alpha": 0.9, "mew": 0.6, "mec": "white"}
    if mark.marker == "dot":
        many = len(mark.x) > 200
        style = {"ms": 3.5 if many else 7.0, "alpha": 0.4 if many else 0.8, "mew": 0.0}
    axes.errorbar(mark.x, mark.y, mark.error, fmt=MARKERS[mark.marker], elinewidth=1.2, zorder=3, **style, **named)


def _bars(mark: Bars, axes: "Axes", named: dict[str, Any]) -> None:
    upright, places = mark.along == "x", np.arange(len(mark.heights))
    if mark.edges is not None:
        way, top = "vertical" if upright else "horizontal", mark.base + mark.heights
        axes.stairs(top, mark.edges, baseline=mark.base, orientation=way, fill=True, alpha=0.35, **named)
    elif upright:
        axes.bar(places, mark.heights, bottom=mark.base, alpha=0.8, **named)
    else:
        axes.barh(places, mark.heights, left=mark.base, alpha=0.8, **named)


def _picture(mark: Picture, axes: "Axes") -> None:
    (low, high), aspect = mark.limits, "equal" if mark.label else "auto"
    kind = {"vmin": low, "vmax": high, "cmap": COLOUR_MAPS[mark.colours], "aspect": aspect, "extent": mark.extent}
    shown = axes.imshow(mark.values, interpolation="nearest", **kind)
    if mark.label:
        bar = axes.figure.colorbar(shown, ax=axes, shrink=0.85, aspect=24, pad=0.02, label=mark.label)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]  # a spine, typed as callable


def _graph(mark: Graph, axes: "Axes") -> None:
    from matplotlib.collections import LineCollection

    def scaled(values: np.ndarray) -> float:
        return float(np.abs(values).max(initial=0.0)) or 1.0

    strong = np.abs(mark.weights) / scaled(mark.weights)
    # faint where weak: the strongest pairs are read first
    colours = [
        (*((0.7, 0.09, 0.17) if w > 0 else (0.13, 0.4, 0.67)), 0.15 + 0.75 * s)
        for w, s in zip(mark.weights, strong, strict=True)
    ]
    axes.add_collection(LineCollection(list(mark.places[mark.edges]), colors=colours, linewidths=0.4 + 1.4 * strong))
    top = scaled(mark.values)
    limits = (-top, top) if mark.colours == "diverging" else (None, None)
    kind = {"cmap": COLOUR_MAPS[mark.colours], "vmin": limits[0], "vmax": limits[1]}
    dots = axes.scatter(*mark.places.T, c=mark.values, s=26.0, zorder=3, edgecolors=INK, linewidths=0.4, **kind)
    axes.set_frame_on(False)
    bar = axes.figure.colorbar(dots, ax=axes, shrink=0.7, aspect=24, pad=0.02, label=mark.label)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]  # a spine, typed as callable


def _arrange(panel: Panel, axes: "Axes") -> None:
    """Labels, limits, ticks and scales of a panel."""
    axes.set_title(plain(panel.title))
    if panel.square:
        axes.set_aspect("equal")
    for name, axis in (("x", panel.x), ("y", panel.y)):
        # a name with its unit
        options: dict[str, Any] = {"label": plain(f"{axis.label} ({axis.unit})" if axis.unit else axis.label)}
        if axis.log:
            options["scale"] = "log"
        if axis.limits is not None:
            options["lim"] = axis.limits
        if axis.ticks is not None:
            options["ticks"] = range(len(axis.ticks))
            options["ticklabels"] = [plain(tick, LONGEST_TICK) for tick in axis.ticks]
            axes.tick_params(axis=name, length=0)  # pyright: ignore[reportArgumentType]  # "x" or "y"
        if not axis.numbers:
            options["ticks"] = []
        axes.set(**{f"{name}{what}": value for what, value in options.items()})


def plain(text: str, longest: int = LONGEST) -> str:
    """Text that matplotlib takes literally, cut where long."""
    text = "".join(sign if sign.isprintable() else "?" for sign in text)  # SVG cannot hold the others
    short = text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
    return short.replace("$", r"\$")


def image(canvas: "Canvas", alt: str, form: Literal["svg", "png"] = "svg") -> Image:
    """A matplotlib figure as a data address."""
    buffer = io.BytesIO()
    canvas.draw_without_rendering()  # arranges the parts
    canvas.set_layout_engine("none")  # or saving would arrange them twice more, which is most of the time
    metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    canvas.savefig(buffer, format=form, dpi=160, metadata=metadata)
    mime = "image/svg+xml" if form == "svg" else "image/png"
    return Image(f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}", alt)


def of_user(canvas: "Canvas", alt: str) -> tuple[Image, str]:
    """A user's figure, and how wide to show it."""
    import matplotlib

    form: Literal["svg", "png"] = "png" if any(axes.images for axes in canvas.axes) else "svg"
    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        return image(canvas, alt, form), "large" if canvas.get_figwidth() > 5.5 else "half"
