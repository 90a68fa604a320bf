"""Export to netCDF, Zarr, Parquet and CSV."""

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from vbinfer.draws.draws import Draws
from vbinfer.draws.sample import stored_draws
from vbinfer.draws.store import MANIFEST, Store, held
from vbinfer.draws.table import columns, dataset, joined
from vbinfer.io import npz

_BLOCK = 32_000_000
"""Bytes of draws that are written at once."""


def export(draws: Draws | str | Path | Any, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write draws in a format of other programs.

    One file, for `.zarr` one folder, all or nothing.

    | suffix | what it holds |
    |---|---|
    | `.nc` | netCDF-4: variables by path with their axes, `x [draw, feature]`, `valid`, `round`, `log_q`, provenance |
    | `.zarr` | the same, as a Zarr folder (format 2, which every version of Zarr reads), in chunks of draws |
    | `.parquet` | a table: one row per draw, one column per number; provenance in the metadata under `vbinfer` |
    | `.csv` | the same table as text, of as many digits as give the same numbers back; no provenance |

    Rows of failed draws are kept, with `valid` False: leave them out before fitting. Types are kept except in CSV. A
    store is written block by block, so that memory does not grow with it (netCDF: all draws at once); its recordings
    are not exported. `draw` is the number of a draw in its study, also where shards before it are missing.

    Args:
        draws: `vb.Draws`; or a path: the folder of a store or of a run, or a file that `draws.save(path)` wrote.
        path: where to; the suffix says the format. The name appears when all is written.
        overwrite: replace what is there.

    Returns:
        The path.

    Raises:
        ValueError: an unknown suffix, a target that exists, a folder without a store.
        FileNotFoundError: no such source.
        ImportError: a package that the format needs is missing.

    Example:
        >>> import numpy as np, tempfile, vbinfer as vb
        >>> draws = vb.Draws.from_arrays({"g": np.array([0.1, 0.2])}, np.array([[1.0], [np.nan]]), names=("fc.mean",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(vb.stores.export(draws, f"{folder}/draws.csv").read_text())
        draw,g,fc.mean,valid,round
        0,0.1,1.0,True,0
        1,0.2,NaN,False,0
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        known = ", ".join(_WRITERS)
        raise ValueError(f"{path.name!r} has the suffix {path.suffix!r}; draws are exported to {known}: write draws.nc")
    writer = _WRITERS[path.suffix]
    blocks = _blocks(draws)
    _check_target(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        writer(blocks, temporary)
        _put(temporary, path)
    finally:
        _remove(temporary)
    return path


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise ValueError(f"{str(path)!r} is there already; give another name, or overwrite=True to replace it")
    if path.is_dir() and (path.suffix != ".zarr" or not any((path / name).exists() for name in _ZARR_MARKS)):
        raise ValueError(
            f"{str(path)!r} is a folder that is no {path.suffix} export; it is not replaced: remove it first"
        )


_ZARR_MARKS = (".zgroup", "zarr.json")


def _put(temporary: Path, path: Path) -> None:
    """Give what is finished its name.

    A folder cannot be replaced, so that an old one is moved away first.
    """
    if temporary.is_file():
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.is_dir():
        os.replace(path, aside)
    os.replace(temporary, path)
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- where draws come from


def _blocks(source: Any) -> Iterator[Any]:
    """Datasets of consecutive draws."""
    if isinstance(source, Draws):
        return _slices(source.to_xarray())
    if not isinstance(source, (str, Path)):
        hint = "; write posterior.to_inference_data()" if hasattr(source, "to_inference_data") else ""
        raise TypeError(f"a {type(source).__name__} was given; expected vb.Draws or the folder of a store{hint}")
    folder = Path(source)
    for place in (folder, folder / "store"):  # a store, or a run that has one
        if (place / MANIFEST).is_file():
            if not held(place):
                raise ValueError(f"the store {str(place)!r} holds no finished draws yet")
            return _shards(place)
    if folder.is_dir():
        raise ValueError(
            f"{str(folder)!r} holds no {MANIFEST}; give the folder of a store, or of a run that has store/"
        )
    found = npz.load(folder)
    if not isinstance(found, Draws):
        raise ValueError(f"{str(folder)!r} holds a {type(found).__name__}; expected draws, as draws.save(path) writes")
    return _slices(found.to_xarray())


def _slices(found: Any) -> Iterator[Any]:
    n = found.sizes["draw"]
    rows = max(1, _BLOCK * n // max(1, found.nbytes))
    return (found.isel(draw=slice(start, start + rows)) for start in range(0, max(1, n), rows))


def _shards(folder: Path) -> Iterator[Any]:
    """Shards, joined until they are worth a write."""
    store, waiting = Store.of(folder), []
    for start, rows in store:
        waiting.append(dataset(stored_draws(store.study, rows, folder), start))
        if sum(found.nbytes for found in waiting) >= _BLOCK:
            yield joined(waiting)
            waiting = []
    if waiting:
        yield joined(waiting)


# ---- formats


def _need(package: str, suffix: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{suffix} needs the package {package}: pip install vbinfer[export]") from error


def _write_netcdf(blocks: Iterator[Any], path: Path) -> None:
    _need("h5netcdf", ".nc")
    found = joined(list(blocks))
    found.to_netcdf(path, engine="h5netcdf", encoding=_exact(found))


def _exact(found: Any) -> dict[str, dict[str, Any]]:
    """Encoding that keeps NaN as it is.

    No value stands for "missing".
    """
    return {name: {"_FillValue": None} for name, value in found.variables.items() if value.dtype.kind == "f"}


def _write_zarr(blocks: Iterator[Any], path: Path) -> None:
    _need("zarr", ".zarr")
    how = {"zarr_format": 2, "consolidated": True}
    for i, found in enumerate(blocks):
        if i:
            found.to_zarr(path, append_dim="draw", **how)
            continue
        # A chunk is a block: appended blocks then never share a chunk, and none is written twice.
        encoding = _exact(found)
        for name, value in found.variables.items():
            if value.dims[0] == "draw":
                encoding.setdefault(name, {})["chunks"] = (max(1, len(value)), *value.shape[1:])
        found.to_zarr(path, mode="w", encoding=encoding, **how)


def _write_parquet(blocks: Iterator[Any], path: Path) -> None:
    pa, parquet = _need("pyarrow", ".parquet"), _need("pyarrow.parquet", ".parquet")
    first = next(blocks)
    # the first block fixes the schema; the others must fit it
    meta = {"vbinfer": npz.to_json({**first.attrs, "features": first["feature"].values})}
    schema = pa.table(columns(first)).schema.with_metadata(meta)
    with parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for found in chain([first], blocks):
            writer.write_table(pa.table(columns(found), schema=schema))


def _write_csv(blocks: Iterator[Any], path: Path) -> None:
    frame = _need("pandas", ".csv").DataFrame
    with open(path, "w", encoding="utf-8", newline="") as file:
        for i, found in enumerate(blocks):
            frame(columns(found)).to_csv(file, index=False, header=i == 0, na_rep="NaN", lineterminator="\n")


_WRITERS: dict[str, Callable[[Iterator[Any], Path], None]] = {
    ".nc": _write_netcdf,
    ".zarr": _write_zarr,
    ".parquet": _write_parquet,
    ".csv": _write_csv,
}
