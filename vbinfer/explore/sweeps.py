"""Parameter sweeps: a forward model over a grid."""

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer._param import range_text
from vbinfer.draws.draws import finite_rows
from vbinfer.draws.request import batch_width_of, check_callable, shard_size, simulator_study
from vbinfer.draws.schedule import Schedule, run
from vbinfer.draws.store import Rows, Store
from vbinfer.execute.batches import batched, checked, feature_names, key_ints
from vbinfer.execute.executor import Executor, executor_or_local
from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum
from vbinfer.io.folder import Folder, Kind

PARTS = Kind(
    head="sweep.json",
    holds="simulations of a sweep",
    parts="*/rows.npz",
    label="rows",
    drift="new points agree with those of a fresh run to rounding only",
)
_ROWS = "rows.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The axes of a sweep, in order.

    Attributes:
        axes: of each dimension, its paths and their values, `[K]` each.
    """

    axes: tuple[dict[str, np.ndarray], ...]

    @classmethod
    def of(cls, given: Any) -> "Grid":
        """Check a grid before anything runs."""
        example = 'vb.sweep(fwd, {"coupling.G": np.linspace(0.0, 1.0, 20)}, key=key)'
        if not isinstance(given, Mapping):
            raise TypeError(f"the grid is a {type(given).__name__}; expected path to values, as {example}")
        if not given:
            raise ValueError(f"the grid is empty; name at least one path, as {example}")
        grid = cls(tuple(_axis(name, values) for name, values in given.items()))
        paths = [path for axis in grid.axes for path in axis]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"{twice[0]!r} stands on two axes of the grid; leave it on one")
        return grid

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter, as a prior has it."""
        return {path: () for axis in self.axes for path in axis}

    @property
    def dims(self) -> dict[str, int]:
        """Names and sizes of the dimensions."""
        return {",".join(axis): len(next(iter(axis.values()))) for axis in self.axes}

    def points(self) -> dict[str, np.ndarray]:
        """Points of the grid, `[P]`, last axis fastest."""
        at = np.indices(tuple(self.dims.values())).reshape(len(self.axes), -1)
        return {path: v[i] for axis, i in zip(self.axes, at, strict=True) for path, v in axis.items()}

    def coordinates(self, units: Mapping[str, str]) -> dict[str, Any]:
        """Coordinates of an `xarray.Dataset`, with their units."""
        return {
            path: (dim, values, {"units": units[path]} if units.get(path) else {})
            for dim, axis in zip(self.dims, self.axes, strict=True)
            for path, values in axis.items()
        }

    def check(self, fwd: Any) -> None:
        """Refuse unknown paths and values outside their ranges."""
        if hasattr(fwd, "check"):
            fwd.check(self)
        self.check_ranges(getattr(fwd, "ranges", dict)())

    def check_ranges(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Refuse values outside declared ranges."""
        for path, values in itertools.chain.from_iterable(axis.items() for axis in self.axes):
            low, high = ranges.get(path, (-np.inf, np.inf))
            if (off := values[(values < low) | (values > high)]).size:
                raise ValueError(
                    f"{off.size} of the {values.size} values of {path!r} lie outside {range_text(low, high)}, where "
                    f"the parameter is declared, {off[0]:g} for one; leave them out of the grid"
                )


def _axis(name: Any, values: Any) -> dict[str, np.ndarray]:
    """Paths and values of one dimension."""
    if isinstance(name, str):
        return {name: _values(name, values)}
    if not isinstance(name, tuple) or not name or not all(isinstance(path, str) for path in name):
        raise TypeError(f"an axis is named {name!r}; expected a path, or a tuple of paths that move together")
    rows = list(values) if isinstance(values, Sequence) or np.ndim(values) else [values]
    lengths, together = [np.size(row) for row in rows], f"{' and '.join(name)} move together"
    arrays = isinstance(values, tuple) and all(hasattr(row, "shape") for row in rows)
    if len(rows) == len(name) and (arrays or set(lengths) != {len(name)}):  # the values of each path
        if len(set(lengths)) > 1:
            raise ValueError(f"{together}, but {lengths} values were given; give as many of each")
        columns = rows
    elif rows and set(lengths) != {len(name)}:
        found = sorted(set(lengths))
        raise ValueError(f"{together}: expected rows of {len(name)} values, np.stack([a, b], axis=1); got {found}")
    else:
        columns = np.asarray(rows, float).reshape(-1, len(name)).T
    if len(set(name)) < len(name):
        raise ValueError(f"{together}, but one is named twice; name each once")
    return {path: _values(path, column) for path, column in zip(name, columns, strict=True)}


def _values(path: str, given: Any) -> np.ndarray:
    """The values of a path, `[K]`."""
    try:
        values = np.asarray(given, float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the values of {path!r} are {given!r}; expected numbers, as np.linspace(0.0, 1.0, 20)"
        ) from error
    if values.ndim != 1:
        raise ValueError(
            f"the values of {path!r} have shape {list(values.shape)}; expected [K], a number for each point. For maps, "
            "sweep an index and let ForwardModel(to_paths=) choose the map"
        )
    if not values.size:
        raise ValueError(f"the grid has no value of {path!r}; give at least one, as [0.5]")
    if not np.isfinite(values).all():
        raise ValueError(f"the values of {path!r} hold NaN or infinite numbers; leave them out of the grid")
    return values


def sweep(
    fwd: SimulatorLike,
    grid: Mapping[str | tuple[str, ...], Any],
    *,
    key: Array,
    repeats: int = 1,
    noise: str = "own",
    store: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Any:
    """Simulate every point of a grid.

    Point i, in the order of `numpy.ndindex` (the last axis fastest), and repeat j use the key
    `fold_in(fold_in(key, i), j)`. Points run in batches of 64, as draws of the prior do, and a point is the same number
    in every run, whatever else is in the grid.

    Args:
        fwd: `vb.ForwardModel`, or what else `vb.sample_prior_predictive` takes.
        grid: path to values `[K]`, one dimension each. A tuple of paths is one dimension along which they move
            together: its values are rows, `[K, number of paths]`.
        key: a JAX key.
        repeats: simulations of each point.
        noise: "own", a key for each point; "shared", the keys of point 0 for all: differences between points are then
            those of parameters, and maps are smooth.
        store: a folder. What is finished is read from it instead of simulated: after an interrupt, and for a call with
            more repeats, or with other points as far as point and key are the same (with "own" noise new values are
            appended to the first axis, with "shared" noise they may stand anywhere).
        executor: where batches run; `vb.Local()` by default.
        progress: show a bar.

    Returns:
        `xarray.Dataset`: a variable for each feature, and `valid`, over the axes in the order given, then `repeat`. An
        axis of several paths is one dimension `a,b` with a coordinate for each. Coordinates carry `units`, which plots
        show. A point with NaN or infinite features is NaN in all of them, with `valid` False.

    Raises:
        ValueError: a path that is unknown or given twice, values outside its declared range, none or NaN; paths that
            move together with different numbers of values; a store of another simulator or key.

    Example:
        >>> import jax, jax.numpy as jnp, vbinfer as vb
        >>> ou = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.5), noise=vb.noise.Additive(1.0))
        >>> fwd = vb.ForwardModel(ou, t1=50.0, summary=lambda y: y["x"].std(axis=0))
        >>> grid = {"model.gamma": [-1.0, -0.5], "noise.sigma": [0.1, 0.2, 0.4]}
        >>> ds = vb.sweep(fwd, grid, key=jax.random.key(0), repeats=2, progress=False)
        >>> dict(ds["x[0]"].sizes)
        {'model.gamma': 2, 'noise.sigma': 3, 'repeat': 2}
    """
    check_callable(fwd)
    key, repeats = _check.key(key), _check.count(repeats, "repeats", 8)
    _check.one_of(noise, "noise", ("own", "shared"))
    axes = Grid.of(grid)
    axes.check(fwd)
    rows = _rows(axes, repeats, noise == "own")
    where = executor_or_local(executor)
    if store is None:
        x = _simulated(fwd, key, rows, None, where, progress)["x"]
    else:
        x = _kept(fwd, key, rows, Path(store), where, progress)
    return _dataset(fwd, key, axes, x.reshape(repeats, -1, x.shape[1]), noise)


def _rows(grid: Grid, repeats: int, own: bool) -> Rows:
    """What is simulated, repeat by repeat, `[repeats * P]`.

    In the precision of the run.
    """
    points = grid.points()
    n = len(next(iter(points.values())))
    kind = np.dtype(jax.dtypes.canonicalize_dtype(float))
    rows = {f"theta/{path}": np.tile(value.astype(kind), repeats) for path, value in points.items()}
    rows["point"] = np.tile(np.arange(n, dtype=np.uint32) * np.uint32(own), repeats)
    rows["repeat"] = np.repeat(np.arange(repeats, dtype=np.uint32), n)
    return rows


@dataclasses.dataclass(eq=False)
class GridBatches:
    """Simulate one batch of a grid: `(batch, device) -> rows`.

    A short tail repeats its last row.
    """

    simulator: SimulatorLike
    key: PRNGKey
    rows: Rows

    def __post_init__(self) -> None:
        self.width = batch_width_of(self.simulator)
        self._run = batched(self.simulator)

    def __reduce__(self) -> tuple[Any, ...]:
        return GridBatches, (self.simulator, self.key, self.rows)

    def __call__(self, batch: int, device: Any) -> Rows:
        last = len(self.rows["point"]) - 1
        at = np.minimum(np.arange(batch * self.width, (batch + 1) * self.width), last)
        part = {name: value[at] for name, value in self.rows.items()}
        put = functools.partial(jax.device_put, device=device)
        keys = _keys()(put(self.key), put(part["point"]), put(part["repeat"]))
        theta = {name.removeprefix("theta/"): put(v) for name, v in part.items() if name.startswith("theta/")}
        try:
            x = checked(self._run(theta, keys), self.width)
        except Exception as error:
            error.add_note(f"while points {part['point'][0]} to {part['point'][-1]} were simulated")
            raise
        feature_names(self.simulator, x.shape[1])
        return {**part, "x": x}


@functools.cache
def _keys() -> Callable[..., Any]:
    """Compiled `(key, points, repeats) -> keys`."""
    fold = jax.random.fold_in
    return jax.jit(jax.vmap(lambda key, i, j: fold(fold(key, i), j), in_axes=(None, 0, 0)))


def _simulated(
    fwd: SimulatorLike, key: PRNGKey, rows: Rows, store: Store | None, executor: Executor, progress: bool
) -> Rows:
    """Rows with their x, in order, read or run."""
    made = GridBatches(fwd, key, rows)
    n = len(rows["point"])
    schedule = Schedule(n, made.width, shard_size(n, made.width), store)
    run(schedule, made, executor, progress)
    return schedule.rows()


def _kept(fwd: SimulatorLike, key: PRNGKey, rows: Rows, path: Path, executor: Executor, progress: bool) -> np.ndarray:
    """The x of rows, through a folder.

    sweep.json             the simulator and the key: all on which a row depends beside itself
    3f2a.../rows.npz       rows that one call asked for and none before it
    3f2a.../manifest.json  a store of draws with the x of these rows
    """
    one = {name.removeprefix("theta/"): v[0] for name, v in rows.items() if name.startswith("theta/")}
    common = simulator_study(fwd, key, dict.fromkeys(one, ()), lambda: one)
    folder = Folder.open(path, {"sweep": True, **common}, PARTS)
    planned = {place.parent.name: folder.read(f"{place.parent.name}/{_ROWS}", rows) for place in _parts(path)}
    known = {mark for part in planned.values() for mark in _marks(part)}
    wanted = _marks(rows)
    if new := [i for i, mark in enumerate(wanted) if mark not in known]:
        part = {name: value[new] for name, value in rows.items()}
        name = checksum(part)[:16]
        (path / name).mkdir(exist_ok=True)
        folder.put(f"{name}/{_ROWS}", part)
        planned[name] = part
    found: dict[bytes, np.ndarray] = {}
    for name, part in planned.items():
        marks = _marks(part)
        if found.keys() >= set(wanted) or not set(marks) & set(wanted):
            continue
        size = shard_size(len(marks), batch_width_of(fwd))
        held = Store.open(path / name, {**common, "batch_size": size, "rows": name})
        found |= zip(marks, _simulated(fwd, key, part, held, executor, progress)["x"], strict=True)
    return np.stack([found[mark] for mark in wanted])


def _parts(path: Path) -> Iterator[Path]:
    return iter(sorted(path.glob(PARTS.parts)))


def _marks(rows: Rows) -> list[bytes]:
    """What each row is: theta, point and repeat."""
    columns = [rows[name].astype(np.float64) for name in sorted(rows) if name != "x"]
    return [row.tobytes() for row in np.ascontiguousarray(np.stack(columns, axis=1))]


def _dataset(fwd: SimulatorLike, key: PRNGKey, grid: Grid, x: np.ndarray, noise: str) -> Any:
    """A dataset of x `[repeat, point, feature]`."""
    xarray = importlib.import_module("xarray")
    names, units = feature_names(fwd, x.shape[-1]), getattr(fwd, "units", dict)()
    sizes, taken = grid.dims, [*grid.dims, *grid.shapes, "repeat", "valid"]
    if clash := sorted(set(names) & set(taken)):
        raise ValueError(f"a feature is called {clash[0]!r}, as an axis or `valid` of the result; rename it")
    coordinates = {"repeat": np.arange(len(x)), **grid.coordinates(units)}
    shape, dims = (*sizes.values(), len(x)), (*sizes, "repeat")
    valid = np.stack([finite_rows(part) for part in x])
    # a failed point is NaN in every feature: what is left of it is not comparable
    full = np.where(valid[..., None], x, np.nan)
    held = {name: (dims, full[..., k].T.reshape(shape)) for k, name in enumerate(names)}
    provenance = {"noise": noise, "key": key_ints(key), **npz.versions()}
    return xarray.Dataset({**held, "valid": (dims, valid.T.reshape(shape))}, coordinates, provenance)
