"""Drawings of a neuron."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from vbinfer.cable.geometry import Compartments, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#17202c", "#0b5cad", "#c2410c", "#17663d", "#7a3e9d", "#8a5a00")
"""Of regions, in their order."""


def plot(comp: Compartments, values: Any = None, *, label: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw compartments, coloured by region or by a value each.

    A morphology of an SWC file is seen along z; sections without coordinates are drawn as a tree, path length from the
    root to the right. Widths are those of the compartments, at least a hairline.

    Args:
        comp: the compartments.
        values: `[n]`, a voltage or a density for instance; None colours regions.
        label: of the values, with their unit.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: not one value per compartment.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    values = None if values is None else np.asarray(values, float)
    if values is not None and values.shape != (comp.n,):
        raise ValueError(f"values has shape {list(values.shape)}; expected [{comp.n}], one per compartment")
    axes = plt.subplots(figsize=(5.0, 6.0))[1] if ax is None else ax
    drawn = LineCollection(_lines(comp), linewidths=np.clip(1.5 * comp.radius, 0.5, 12.0), capstyle="round")
    axes.add_collection(drawn)
    if values is None:
        colours = dict(zip(comp.regions, itertools.cycle(COLOURS)))
        drawn.set_color([colours[region] for region in comp.region])
        axes.legend(
            handles=[Line2D([], [], color=colours[name], label=name) for name in colours],
            frameon=False,
            ncols=4,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
        )
    else:
        drawn.set_array(values)
        axes.figure.colorbar(drawn, ax=axes, label=label, shrink=0.6)
    axes.autoscale()
    known = _known(comp)
    axes.set_aspect("equal" if known else "auto")
    axes.set(xlabel="x (um)", ylabel="y (um)") if known else axes.set(xlabel="path from the root (um)", yticks=[])
    return axes


def _known(comp: Compartments) -> bool:
    return all(one.points is not None for one in comp.sections)


def _lines(comp: Compartments) -> list[np.ndarray]:
    """The points of each compartment in the plane."""
    known, counts, found = _known(comp), np.bincount(comp.section, minlength=len(comp.sections)), []
    for one, ends, n in zip(comp.sections, _tree(comp.sections), counts, strict=True):
        arc = one.arc / one.length if known else np.array([0.0, 1.0])
        place = ends if one.points is None or not known else one.points[:, :2]
        for k in range(n):
            inner = arc[(arc > k / n) & (arc < (k + 1) / n)]
            at = np.concatenate([[k / n], inner, [(k + 1) / n]])
            found.append(np.stack([np.interp(at, arc, x) for x in place.T], axis=1))
    return found


def _tree(sections: tuple[Section, ...]) -> np.ndarray:
    """Ends of sections in a drawn tree, `[section, 2, 2]`.

    Tips lie one above the other, a parent in the middle of its children; a section goes from its parent's height to its
    own.
    """
    children: dict[int | None, list[int]] = {}
    for k, one in enumerate(sections):
        children.setdefault(one.parent, []).append(k)
    height, stack, tips = np.zeros(len(sections)), children[None][::-1], 0
    while stack:  # depth first, so that lines do not cross
        k = stack.pop()
        stack += children.get(k, [])[::-1]
        if k not in children:
            height[k], tips = tips, tips + 1
    for k in reversed(range(len(sections))):  # parents come before their children
        if k in children:
            height[k] = np.mean(height[children[k]])
    found = np.zeros((len(sections), 2, 2))
    for k, one in enumerate(sections):
        p = one.parent
        x = 0.0 if p is None else found[p, 0, 0] + one.at * sections[p].length
        found[k] = [[x, height[k if p is None else p]], [x + one.length, height[k]]]
    return found
