"""Fields as pictures and films: spheres and meshes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vbinfer import _check
from vbinfer.fields import AbstractDomain, Cortex, Mesh, Sphere

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure as Canvas

_SIDES = {"left": 180.0, "right": 0.0}
"""Azimuth, degrees, from which a mesh is seen; x points to the right."""
_AMBIENT = 0.6
"""Share of the light that comes from everywhere."""


def plot_field(
    domain: AbstractDomain, values: Any, *, label: str = "", limits: tuple[float, float] | None = None
) -> "Canvas":
    """Draw a field.

    A sphere as a map in the projection of Mollweide, longitude 0 in the middle; a mesh from both sides, with light;
    the surfaces of a `Cortex` one below the other, without its points. Colours diverge from 0 where the field has
    either sign.

    Args:
        domain: `vb.fields.Sphere`, `Mesh` or `Cortex`.
        values: `[N]`.
        label: of the colour bar.
        limits: lowest and highest value of the colours.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: values of another length, or NaN throughout; limits that do not ascend.
    """
    values = np.asarray(values, float)
    if values.shape != (domain.n_nodes,):
        raise ValueError(f"values is {list(values.shape)}; expected [{domain.n_nodes}], one number per point")
    return _drawn(domain, values[None], label, limits)[0]


def animate_field(
    domain: AbstractDomain,
    values: Any,
    period: float,
    *,
    label: str = "",
    limits: tuple[float, float] | None = None,
    fps: int = 10,
) -> "FuncAnimation":
    """A field in time, as an animation.

    Args:
        domain: as of `plot_field`.
        values: `[T, N]`, one picture per row, such as `solution.ys["raw"]["x"]`.
        period: ms between rows.
        label, limits: as of `plot_field`; the same colours at all times.
        fps: pictures per second.

    Returns:
        A matplotlib animation: `.save("field.gif")`, or `.to_jshtml()` in a notebook.

    Raises:
        ValueError: as `plot_field`.
    """
    from matplotlib.animation import FuncAnimation

    period, fps = _check.positive(period, "period", 1.0, "ms"), _check.count(fps, "fps", 10)
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[1] != domain.n_nodes or not len(values):
        raise ValueError(f"values is {list(values.shape)}; expected [T, {domain.n_nodes}], one row per picture")
    canvas, update = _drawn(domain, values, label, limits)
    title = canvas.suptitle(f"{0.0:g} ms")

    def show(k: int) -> list[Any]:
        title.set_text(f"{k * period:g} ms")
        return [title, *update(values[k])]

    return FuncAnimation(canvas, show, frames=len(values), interval=1e3 / fps, blit=False)


def _drawn(
    domain: AbstractDomain, values: np.ndarray, label: str, limits: tuple[float, float] | None
) -> tuple["Canvas", Callable[[np.ndarray], list[Any]]]:
    """The first of several fields, and what shows another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    low, high = _limits(values, limits)
    colours = ScalarMappable(Normalize(low, high), "RdBu_r" if low < 0.0 < high else "viridis")
    surfaces = (
        list(zip(domain.domains, domain.parts(), strict=False))
        if isinstance(domain, Cortex)
        else [(domain, slice(None))]
    )
    canvas = Figure(figsize=(6.0, 3.0 * len(surfaces)), layout="constrained")
    FigureCanvasAgg(canvas)
    grid, parts = canvas.add_gridspec(len(surfaces), 2), []
    for k, (surface, which) in enumerate(surfaces):
        if isinstance(surface, Sphere):
            axes = canvas.add_subplot(grid[k, :], projection="mollweide")
            parts.append((_sphere(axes, surface, values[0][which], colours), which))
        elif isinstance(surface, Mesh):
            both = [canvas.add_subplot(grid[k, column], projection="3d") for column in (0, 1)]
            parts.append((_mesh(both, surface, values[0][which], colours), which))
        else:
            raise ValueError(f"a {type(surface).__name__} has no picture; expected a Sphere, Mesh or Cortex")
    canvas.colorbar(colours, ax=canvas.axes, label=label, shrink=0.7)
    return canvas, lambda row: [artist for update, which in parts for artist in update(row[which])]


def _limits(values: np.ndarray, limits: tuple[float, float] | None) -> tuple[float, float]:
    if limits is not None:
        low, high = (float(end) for end in limits)
        if not low < high:
            raise ValueError(f"limits={limits!r} was given; expected the lowest and the highest value, (0.0, 1.0)")
        return low, high
    if not np.isfinite(values).any():
        raise ValueError("values holds no finite number: there is nothing to draw")
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0.0 < high:
        low, high = -max(-low, high), max(-low, high)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _sphere(axes: Any, sphere: Sphere, values: np.ndarray, colours: Any) -> Callable[[np.ndarray], list[Any]]:
    """A map; rings end half-way between nodes."""
    latitude = np.arcsin(np.asarray(sphere.positions, float)[:: sphere.n_lon, 2] / sphere.radius)
    edges = np.concatenate([[np.pi / 2], (latitude[1:] + latitude[:-1]) / 2.0, [-np.pi / 2]])
    # longitudes from 0 to 2 pi: those above pi go to the left
    turn = sphere.n_lon // 2
    around = (np.arange(sphere.n_lon + 1) - turn - 0.5) * 2.0 * np.pi / sphere.n_lon
    grid = lambda x: np.roll(np.asarray(sphere.as_grid(x)), turn, axis=1)  # noqa: E731
    shown = axes.pcolormesh(around, edges, grid(values), cmap=colours.cmap, norm=colours.norm, rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])

    def update(row: np.ndarray) -> list[Any]:
        shown.set_array(grid(row))
        return [shown]

    return update


def _mesh(both: Any, mesh: Mesh, values: np.ndarray, colours: Any) -> Callable[[np.ndarray], list[Any]]:
    """Triangles in their mean colour, from two sides."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    corners = np.asarray(mesh.vertices, float)[np.asarray(mesh.triangles)]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    centre, reach = (corners.min((0, 1)) + corners.max((0, 1))) / 2.0, np.ptp(corners, axis=(0, 1)).max() / 2.0

    def faces(row: np.ndarray, azimuth: float) -> np.ndarray:
        rgba = colours.to_rgba(row[np.asarray(mesh.triangles)].mean(axis=1))
        towards = np.array([np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth)), 0.0])
        rgba[:, :3] *= (_AMBIENT + (1.0 - _AMBIENT) * np.abs(normal @ towards))[:, None]
        return rgba

    drawn = []
    for axes, azimuth in zip(both, _SIDES.values(), strict=True):
        polygons = Poly3DCollection(corners, facecolors=faces(values, azimuth), linewidths=0.0, antialiased=False)
        axes.add_collection3d(polygons)
        axes.set(**{f"{axis}lim": (c - reach, c + reach) for axis, c in zip("xyz", centre, strict=True)})
        axes.view_init(0.0, azimuth)
        axes.set_box_aspect((1, 1, 1), zoom=1.5)
        axes.set_axis_off()
        drawn.append((polygons, azimuth))

    def update(row: np.ndarray) -> list[Any]:
        for polygons, azimuth in drawn:
            polygons.set_facecolor(faces(row, azimuth))
        return [polygons for polygons, _ in drawn]

    return update
