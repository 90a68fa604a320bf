"""Figures of signals, functional connectivity and its dynamics."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .evidence import RecordingLike, match, upper
from .plots import POSTERIOR, image, new, plain, styled
from .section import Image
from .words import two

if TYPE_CHECKING:
    from .plots import Axes, Figure


def fc_matrices(matrices: Mapping[str, np.ndarray], labels: Sequence[str] | None) -> list[Image]:
    """FC matrices on one colour scale; left before right where every label says which side it is on."""
    sides = [_side(name) for name in labels] if labels is not None else []
    n = len(next(iter(matrices.values())))
    known = len(sides) == n and None not in sides and len(set(sides)) == 2
    order = np.argsort([side == "r" for side in sides], kind="stable") if known else np.arange(n)
    left = sum(side == "l" for side in sides) if known else None
    top = float(np.quantile(np.abs(np.concatenate([upper(values) for values in matrices.values()])), 0.995)) or 1.0
    return [_fc_matrix(values[np.ix_(order, order)], title, top, left) for title, values in matrices.items()]


def _side(name: str) -> str | None:
    found = re.search(r"(?:^|[_.\- ])(l|r|lh|rh|left|right)(?:$|[_.\- ])", str(name).lower())
    return found.group(1)[0] if found else None


@styled
def _fc_matrix(values: np.ndarray, title: str, top: float, left: int | None) -> Image:
    figure, axes = _matrix(values, title, (-top, top), "RdBu_r", None)
    n = len(values)
    if left is not None:
        axes.set_xticks([left / 2 - 0.5, (left + n) / 2 - 0.5], ["left", "right"])
        axes.set_yticks([left / 2 - 0.5, (left + n) / 2 - 0.5], ["left", "right"], rotation=90, va="center")
        axes.axhline(left - 0.5, color="white", lw=0.8)
        axes.axvline(left - 0.5, color="white", lw=0.8)
    axes.tick_params(length=0)
    axes.set(xlabel=f"region (n = {n})")
    return image(figure, f"{title}: correlations between {n} regions, mean {upper(values).mean():.2f}", "png")


@styled
def fcd_matrix(values: np.ndarray, title: str, minutes: float) -> Image:
    """One FCD matrix, windows `minutes` apart."""
    end = len(values) * minutes
    figure, axes = _matrix(values, title, (0.0, 1.0), "viridis", (0.0, end, end, 0.0))
    axes.set(xlabel="start of window (min)", ylabel="start of window (min)")
    return image(figure, f"{title}: correlations between {len(values)} windows, mean {upper(values).mean():.2f}", "png")


def _matrix(
    values: np.ndarray,
    title: str,
    limits: tuple[float, float],
    colours: str,
    extent: tuple[float, float, float, float] | None,
) -> "tuple[Figure, Axes]":
    figure = new(3.6, 3.35)
    axes = figure.subplots()
    picture = axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colours, interpolation="nearest", extent=extent)
    axes.set_title(plain(title))
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.85, aspect=24, pad=0.02, label="correlation")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]  # a spine, typed as callable
    return figure, axes


@styled
def carpet(recording: RecordingLike) -> Image:
    """Every channel over time, each on its own scale."""
    values = np.asarray(recording.values, np.float64)
    sd = values.std(axis=0)
    z = (values - values.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    figure = new(3.6, 3.35)
    axes = figure.subplots()
    extent = (0.0, len(z) * recording.period / 60e3, z.shape[1] + 0.5, 0.5)
    axes.imshow(z.T, vmin=-2.5, vmax=2.5, cmap="Greys", aspect="auto", interpolation="nearest", extent=extent)
    axes.set_title("Signals")
    axes.set(xlabel="time (min)", ylabel=f"channel (n = {z.shape[1]})")
    return image(figure, f"Signals of {z.shape[1]} channels over {extent[1]:.1f} minutes", "png")


@styled
def fc_scatter(observed: np.ndarray, predicted: np.ndarray, title: str, ylabel: str) -> Image:
    """Predicted against recorded FC, one point per pair of regions."""
    figure = new(3.6, 3.5)
    axes = figure.subplots()
    r, x, y = match(predicted, observed), upper(observed), upper((predicted + predicted.T) / 2)
    axes.plot(x, y, ".", ms=3.5, color=POSTERIOR, alpha=0.3, mew=0)
    axes.set_title(f"{title}: r = {two(r)}")
    axes.set(xlabel="correlation in the recording", ylabel=ylabel)
    return image(figure, f"{title} against the recording, {len(x)} pairs of regions, r = {r:.2f}", "png")


@styled
def distributions(groups: Mapping[str, np.ndarray], colours: Sequence[str], xlabel: str) -> Image:
    """Densities of several samples in outline."""
    figure = new(7.4, 3.1)
    axes = figure.subplots()
    low, high = np.min([v.min() for v in groups.values()]), np.max([v.max() for v in groups.values()])
    bins = np.linspace(low, high if high > low else low + 1.0, 61).tolist()
    for (name, values), colour in zip(groups.items(), colours, strict=True):
        axes.hist(values, bins, density=True, histtype="step", lw=1.8, color=colour, label=name)
    axes.set(xlabel=xlabel, ylabel="density", yticks=[])
    figure.legend(loc="outside upper left", ncols=3)
    return image(figure, f"Distributions of {xlabel}: " + ", ".join(groups))
