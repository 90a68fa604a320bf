"""The brain of a report: regional maps, connections, traces.

Regions stand where the connectome's centres are, seen from above and from the right; without centres, on a ring.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial import ConvexHull

from vbinfer.diagnostics.figure import Axis, Figure, Graph, Line, Mark, Panel, Role

from .evidence import RecordingLike
from .format import of_time

MOST_EDGES, MOST_TRACES = 120, 6


def side_of(name: str) -> str | None:
    """`"l"` or `"r"`, from the name of a region."""
    found = re.search(r"(?:^|[_.\- ])(l|r|lh|rh|left|right)(?:$|[_.\- ])", str(name).lower())
    return found.group(1)[0] if found else None


def views(n: int, labels: Sequence[str] | None, centres: np.ndarray | None) -> dict[str, np.ndarray]:
    """Places `[N, 2]` of regions, by view."""
    if centres is not None:
        x, y, z = np.asarray(centres, np.float64).T
        return {"from above": np.stack([x, y], axis=1), "from the right": np.stack([y, z], axis=1)}
    sides = [side_of(name) for name in labels or ()]
    order = np.arange(n)
    if len(sides) == n and set(sides) == {"l", "r"}:
        # left regions down the left half, right ones up the right half: mirrored regions face each other
        left, right = (np.array([i for i in range(n) if sides[i] == side]) for side in "lr")
        order = np.concatenate([left, right[::-1]])
    angle = np.empty(n)
    angle[order] = np.pi / 2 + 2.0 * np.pi * (np.arange(n) + 0.5) / n
    return {"on a ring": np.stack([np.cos(angle), np.sin(angle)], axis=1)}


def connections(matrices: Mapping[str, np.ndarray], labels: Sequence[str] | None, centres: np.ndarray | None) -> Figure:
    """The strongest pairs of each matrix, and each region's mean."""
    n, panels = len(next(iter(matrices.values()))), []
    for title, matrix in matrices.items():
        both = (np.asarray(matrix, np.float64) + np.transpose(matrix)) / 2.0
        rows, cols = np.triu_indices(n, k=1)
        weights = both[rows, cols]
        chosen = np.argsort(-np.abs(weights), kind="stable")[:MOST_EDGES]
        chosen = chosen[np.argsort(np.abs(weights[chosen]), kind="stable")]  # the strongest on top
        strength = (both.sum(axis=1) - np.diagonal(both)) / (n - 1)
        edges = np.stack([rows[chosen], cols[chosen]], axis=1)
        for view, places in views(n, labels, centres).items():
            graph = Graph(places, strength, edges, weights[chosen], "mean over the others")
            panels.append(
                _panel((*_outline(places, centres), graph), view, title, f"the {len(chosen)} strongest pairs")
            )
    where = "on a ring, left hemisphere on the left" if centres is None else "at their centres"
    caption = (
        f"{n} regions {where}; lines are the {min(MOST_EDGES, n * (n - 1) // 2)} strongest pairs, red positive, blue "
        "negative; a region's colour is its mean over all others."
    )
    return Figure(panels, caption)


def regional(
    maps: Mapping[str, np.ndarray], labels: Sequence[str] | None, centres: np.ndarray | None, caption: str
) -> Figure:
    """Maps of one number per region."""
    nothing, panels = np.zeros((0, 2), int), []
    for title, values in maps.items():
        for view, places in views(len(values), labels, centres).items():
            graph = Graph(places, np.asarray(values, np.float64), nothing, np.zeros(0), title, "sequential")
            panels.append(_panel((*_outline(places, centres), graph), view, title, "one number per region"))
    return Figure(panels, caption)


def traces(observed: RecordingLike, simulated: np.ndarray, labels: Sequence[str] | None) -> Figure:
    """Signals of some regions, recorded and simulated, in sd."""
    n = min(MOST_TRACES, observed.values.shape[1])
    chosen = np.linspace(0, observed.values.shape[1] - 1, n).round().astype(int)
    names = [str(labels[i]) if labels else f"region {i}" for i in chosen]
    shown: tuple[tuple[str, Role, np.ndarray], ...]
    shown = ("Recording", "observed", observed.values), ("Simulation", "posterior", simulated)
    panels = [signals(values[:, chosen], observed.period, names, title, role) for title, role, values in shown]
    return Figure(
        panels, "Signals of some regions and of the same in one simulation from the posterior, in sd.", "half"
    )


def signals(values: np.ndarray, period: float, names: Sequence[str], title: str, role: Role) -> Panel:
    """Signals `[T, N]` one above the other, in sd."""
    values = np.asarray(values, np.float64)
    sd, n = values.std(axis=0), values.shape[1]
    z = (values - values.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    scale, unit = of_time(len(z) * period)
    # the first on top: names of an axis stand at 0, 1, 2, ... downwards, and so the signals are turned
    marks = [Line(np.arange(len(z)) * period / scale, k - z[:, k] / 5.0, role, thin=True) for k in range(n)]
    words = f"{title}: {n} signals over {len(z) * period / scale:.1f} {unit}"
    return Panel(marks, Axis("time", unit), Axis(limits=(n - 0.3, -0.7), ticks=names), words, title=title)


def _panel(marks: Sequence[Mark], view: str, title: str, shown: str) -> Panel:
    axes = Axis(numbers=False), Axis(numbers=False)
    return Panel(marks, *axes, f"{title}, regions {view}: {shown}", title=title, square=True)


def _outline(places: np.ndarray, centres: np.ndarray | None) -> list[Mark]:
    """Glass, the hull of the regions a little wider."""
    if centres is None or len(places) < 4 or np.linalg.matrix_rank(places - places.mean(axis=0)) < 2:
        return []
    middle = places.mean(axis=0)
    corners = places[ConvexHull(places).vertices]
    x, y = (middle + 1.12 * (np.concatenate([corners, corners[:1]]) - middle)).T
    return [Line(x, y, "reference")]
