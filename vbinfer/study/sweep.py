"""Sweeps of study files."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vbinfer.execute.executor import Local
from vbinfer.explore.sweeps import Grid, sweep

from .model import read_conditions, read_forward, read_simulator
from .study import OPTIONAL, REQUIRED, read_connectome
from .table import StudyError, count, keys, number

EXAMPLE = '"coupling.G" = { low = 0.0, high = 1.0, n = 20 }'


def sweep_study(
    path: str | Path,
    *,
    out: str | Path | None = None,
    dry_run: bool = False,
    say: Callable[[str], object] | None = None,
) -> Path:
    """Run the sweep of a study file.

    Of the file it takes the simulator, its connectome, conditions and summary, and `[sweep]`: `grid`, path to a list of
    values or to `{ low, high, n }`, several paths that move together as `"a,b"` with rows of values; `repeats`, `noise`
    and `seed`. Simulations are kept in `sweep/` of the folder, so that an interrupted sweep goes on, and a longer one
    runs what is missing.

    Args:
        path: the TOML file.
        out: a folder instead of `[output] dir`.
        dry_run: check the file and simulate nothing.
        say: takes a line for every stage.

    Returns:
        The netCDF file, `sweep.nc` in the folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, no `[sweep]`, and whatever `vb.sweep` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no study file {str(path)!r}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StudyError(f"{str(path)!r} is not TOML: {error}; write it as `vbinfer example` does") from error
    others = tuple(name for name in (*REQUIRED, *OPTIONAL) if name not in ("simulator", "summary", "sweep"))
    tables = keys(tables, "the study file", required=("simulator", "summary", "sweep"), optional=others)
    given = keys(tables["sweep"], "[sweep]", required=("grid",), optional=("repeats", "noise", "seed"))
    folder, output = path.parent, keys(tables.get("output", {}), "[output]", optional=("dir",))
    place = Path(out) if out is not None else folder / output.get("dir", f"runs/{path.stem}")
    sim, how = read_simulator(tables["simulator"], read_connectome(tables.get("data", {}), folder), folder)
    conditions = read_conditions(tables.get("conditions"), sim, folder)
    fwd = read_forward(sim, tables["summary"], folder, conditions=conditions, **how)
    workers, grid, target = tables.get("execution", {}).get("workers"), _grid(given["grid"]), place / "sweep.nc"
    if dry_run:
        Grid.of(grid).check(fwd)
        return target
    found = sweep(
        fwd,
        grid,
        key=jax.random.key(count(given.get("seed", 0), "[sweep] seed", least=0)),
        repeats=given.get("repeats", 1),
        noise=given.get("noise", "own"),
        store=place / "sweep",
        executor=Local(workers=workers),
        progress=say is not None,
    )
    found.to_netcdf(target, engine="h5netcdf")
    if say is not None:
        failed = int((~found["valid"]).sum())
        say(f"{found['valid'].size:,} simulations, {failed:,} failed: {target}")
    return target


def _grid(table: Any) -> dict[Any, Any]:
    """Axes of a grid from their table."""
    if not isinstance(table, dict) or not table:
        raise StudyError(f"[sweep] grid is {table!r}; write {EXAMPLE}")
    grid: dict[Any, Any] = {}
    for name, values in table.items():
        where = f"[sweep.grid] {name!r}"
        if isinstance(values, dict) and not {"low", "high", "n"} & set(values):
            raise StudyError(f"{where} is {values!r}; quote the whole path, as {EXAMPLE}")
        if isinstance(values, dict):
            ends = keys(values, where, required=("low", "high", "n"))
            low, high = (number(ends[end], f"{where} {end}") for end in ("low", "high"))
            values = np.linspace(low, high, count(ends["n"], f"{where} n"))
        paths = tuple(path.strip() for path in name.split(","))
        grid[paths if len(paths) > 1 else name] = values
    return grid
