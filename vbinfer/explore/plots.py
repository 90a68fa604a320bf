"""Phase planes and bifurcation diagrams."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer.explore import drift as _drift
from vbinfer.explore.branches import Branch
from vbinfer.explore.equilibria import FixedPoints
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import initial_state
from vbinfer.simulation.simulator import Simulator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NULLCLINES = ("#0b5cad", "#c2410c")
GREY, INK = "#aab4c0", "#17202c"
FINE = 121
"""Points of the grid of a plane, per axis."""


def plot_phase_plane(
    sim: Simulator,
    x: str,
    y: str,
    *,
    points: FixedPoints | None = None,
    runs: Iterable[Mapping[str, Any]] = (),
    at: Any = None,
    node: int = 0,
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the phase plane of two state variables.

    Nullclines, the direction of the flow, fixed points (full where stable, open where not) and runs. All other
    variables and nodes are held at one state, so that of a larger system the nullclines meet at that one alone. States
    that the model does not allow are left blank.

    Args:
        sim: a simulator with a smooth drift; noise is left out, delayed input is that of the state held.
        x, y: state variables.
        points: of `vb.fixed_points(sim, key=key)`.
        runs: samples of a raw monitor, `solution.ys["raw"]`.
        at: the State that is held; None is the first stable point, or the model's own start.
        node: whose plane it is.
        limits: lowest and highest x, and y; None is what points and runs take up, and half as much around.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: no such variable or node, a model without a smooth drift, nothing that says how large the plane is.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    sim = _drift.checked(sim, "explore.plot_phase_plane")
    columns, runs = _columns(sim, (x, y), node), list(runs)
    fixed = np.zeros((0, 2)) if points is None else np.stack([getattr(points.x, v)[:, node] for v in (x, y)], axis=1)
    paths = [np.stack([np.asarray(run[v])[:, node] for v in (x, y)], axis=1) for run in runs]
    limits = _limits(np.concatenate([fixed, *paths])) if limits is None else limits
    if at is None and points is not None and points.stable.any():
        at = points[int(np.argmax(points.stable))]
    held = initial_state(sim, at)
    side = [np.linspace(*_check_limit(pair), FINE) for pair in limits]
    with _drift.x64():
        flow = np.asarray(
            _run_plane(_drift.precise(sim), columns, _drift.precise(held), *(jnp.asarray(s, float) for s in side))
        )
    ax = plt.subplots(figsize=(5.0, 4.0))[1] if ax is None else ax
    ax.streamplot(side[0], side[1], flow[0], flow[1], color=GREY, density=0.9, linewidth=0.6, arrowsize=0.7)
    handles = []
    for of, v, colour in zip(flow, (x, y), NULLCLINES, strict=True):
        if np.nanmin(of) < 0.0 < np.nanmax(of):
            ax.contour(*side, of, levels=[0.0], colors=[colour], linewidths=1.6)
            handles.append(Line2D([], [], color=colour, label=f"d{v}/dt = 0"))
    for path in paths:
        ax.plot(*path.T, color=INK, linewidth=1.0)
    if points is not None:
        for stable, label in ((True, "stable"), (False, "unstable")):
            face = INK if stable else "white"
            one = fixed[points.stable == stable]
            marks = ax.plot(*one.T, "o", color=INK, markerfacecolor=face, markersize=7, label=label, zorder=5)
            handles += marks if len(one) else []
    allowed = np.isfinite(flow[0])
    xlim, ylim = (s[allowed.any(axis=k)][[0, -1]] for k, s in enumerate(side))
    ax.set(xlim=xlim, ylim=ylim, xlabel=x, ylabel=y)
    ax.legend(handles=handles, frameon=False, ncols=len(handles), loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return ax


def plot_bifurcations(found: Any, variable: str, *, node: int = 0, ax: "Axes | None" = None) -> "Axes":
    """Draw a branch, or an adiabatic sweep.

    A branch of `continuation` is full where it is stable and dashed where it is not, with its folds and Hopf points
    named. Of `adiabatic` the smallest and largest values are drawn, up and down. Both go onto the same axes by `ax=`.

    Args:
        found: a `Branch`, or the Dataset of `vb.explore.adiabatic`.
        variable: a state variable.
        node: which one.
        ax: where to draw; None makes a figure.

    Raises:
        ValueError: no such variable or node.
        TypeError: neither of the two.
    """
    import matplotlib.pyplot as plt

    if not isinstance(found, Branch) and "ramp" not in getattr(found, "dims", ()):
        raise TypeError(
            f"found is a {type(found).__name__}; expected the result of vb.explore.continuation or vb.explore.adiabatic"
        )
    known = found.x._fields if isinstance(found, Branch) else [v for v in found.data_vars if v != "hysteresis"]
    _check.one_of(variable, "variable", known)
    ax = plt.subplots(figsize=(5.5, 4.0))[1] if ax is None else ax
    (_draw_branch if isinstance(found, Branch) else _draw_ramps)(ax, found, variable, node)
    ax.set_ylabel(variable)
    ax.legend(frameon=False, fontsize="small")
    return ax


def _draw_branch(ax: "Axes", branch: Branch, variable: str, node: int) -> None:
    values, states, stable = branch.values, _node(getattr(branch.x, variable), node), branch.unstable == 0
    for shown, style, label in ((stable, "-", "stable"), (~stable, "--", "unstable")):
        # a piece of the line counts by the point that it leads to; what lies between is left out
        shown = shown | np.append(shown[1:], False)
        gone = np.where(shown, states, np.nan)
        ax.plot(np.where(shown, values, np.nan), gone, style, color=INK, linewidth=1.6, label=label)
    for kind, mark in (("fold", "s"), ("hopf", "D")):
        events = [event for event in branch.events if event.kind == kind]
        if events:
            heights = [_node(getattr(event.x, variable)[None], node)[0] for event in events]
            ax.plot([event.value for event in events], heights, mark, color=NULLCLINES[1], label=kind, zorder=5)
        for event, height in zip(events, heights if events else [], strict=True):
            text = f"{event.value:.4g}" + (f", {event.frequency:.3g} Hz" if event.frequency else "")
            ax.annotate(text, (event.value, height), (7, -9), textcoords="offset points", fontsize="x-small")
    ax.margins(x=0.1)  # room for what is written beside events
    ax.set_xlabel(branch.path)


def _draw_ramps(ax: "Axes", ds: Any, variable: str, node: int) -> None:
    path = ds[variable].dims[1]
    for ramp, mark, colour in (("up", "^", NULLCLINES[0]), ("down", "v", NULLCLINES[1])):
        for of in ("min", "max"):
            row = _node(ds[variable].sel(ramp=ramp, of=of).values, node)
            label = f"{ramp}, min and max" if of == "min" else None
            ax.plot(ds[path].values, row, mark, color=colour, markersize=3, markerfacecolor="none", label=label)
    unit = ds[path].attrs.get("units", "")
    ax.set_xlabel(f"{path} ({unit})" if unit else path)


def _node(values: np.ndarray, node: int) -> np.ndarray:
    """Values `[P]` of a node, of `[P, N]`."""
    return values[:, _check.count(node, "node", 0, least=0, most=values.shape[1] - 1)]


def _columns(sim: Simulator, names: tuple[str, str], node: int) -> tuple[int, int]:
    """Places of two state variables of a node in a flat state."""
    shapes, start, places = sim.state_shapes(), 0, dict[str, int]()
    _check.count(node, "node", 0, least=0, most=sim.n_nodes - 1)
    for name, like in shapes.items():
        if len(like.shape) == 1:
            places[name] = start + min(node, like.shape[0] - 1)
        start += int(np.prod(like.shape))
    for name, what in zip(names, "xy", strict=True):
        _check.one_of(name, what, list(places))
    if names[0] == names[1]:
        raise ValueError(f"x and y are both {names[0]!r}; a plane has two of {', '.join(places)}")
    return places[names[0]], places[names[1]]


def _limits(shown: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """What points `[K, 2]` take up, and half as much around."""
    if not len(shown):
        raise ValueError(
            "nothing says how large the plane is: points holds no fixed point and there are no runs; give "
            "limits=((0.0, 1.0), (-2.0, 2.0))"
        )
    low, high = shown.min(axis=0), shown.max(axis=0)
    room = np.where(high > low, 0.5 * (high - low), 0.5 * (1.0 + np.abs(low)))
    (a, c), (b, d) = low - room, high + room
    return (float(a), float(b)), (float(c), float(d))


def _check_limit(pair: tuple[float, float]) -> tuple[float, float]:
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(f"limits holds {pair}; expected the lowest and the highest value, as (0.0, 1.0)")
    return pair


@Compiled
def _run_plane(sim: Simulator, columns: tuple[int, int], held: Any, x: Array, y: Array) -> Array:
    """dx/dt and dy/dt over a plane, `[2, y, x]`; NaN where the model allows no state."""
    drift, base, at = _drift.drift_of(sim), _drift.flat_of(held, held), jnp.asarray(columns)

    def flow(x: Array, y: Array) -> Array:
        flat = base.at[at].set(jnp.stack([x, y]))
        return jnp.where(drift.distance(flat) > 0.0, jnp.nan, drift(flat)[at])

    return jnp.moveaxis(jax.vmap(lambda y: jax.vmap(lambda x: flow(x, y))(x))(y), -1, 0)
