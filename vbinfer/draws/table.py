"""Draws as an xarray Dataset or table."""

import importlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vbinfer._names import flat_names
from vbinfer.io import npz

if TYPE_CHECKING:
    from vbinfer.draws.draws import Draws

OWN = ("draw", "feature", "x", "valid", "round", "log_q")
"""What draws consist of beside theta."""


def dataset(draws: "Draws", start: int = 0) -> Any:
    """Draws as an `xarray.Dataset`; what `draws.to_xarray()` returns.

    Args:
        draws: n draws.
        start: the number of the first.
    """
    xr = importlib.import_module("xarray")
    # a slash is a group in a netCDF file; what is called like a part of the draws gets a prefix
    names = {path: path.replace("/", ".") for path in draws.theta}
    names = {path: f"theta.{name}" if name in OWN else name for path, name in names.items()}
    held: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for path, value in draws.theta.items():
        axes = tuple(f"{names[path]}_dim_{i}" for i in range(value.ndim - 1))
        held[names[path]] = (("draw", *axes), value)
    held |= {"x": (("draw", "feature"), draws.x), "valid": (("draw",), draws.valid), "round": (("draw",), draws.round)}
    if draws.log_q is not None:
        held["log_q"] = (("draw",), draws.log_q)
    coordinates = {"draw": np.arange(start, start + len(draws)), "feature": np.array(draws.names, dtype=object)}
    versions = draws.info.get("versions", npz.versions())
    provenance = {
        "kind": "draws",
        "vbinfer": str(versions.get("vbinfer", "unknown")),
        "theta": npz.to_json(names),
        "info": npz.to_json(draws.info),
    }
    return xr.Dataset(held, coordinates, provenance)


def joined(blocks: list[Any]) -> Any:
    """Datasets of the same study along `draw`."""
    xr = importlib.import_module("xarray")
    how = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
    return xr.concat(blocks, "draw", combine_attrs="override", **how)


def columns(found: Any) -> dict[str, np.ndarray]:
    """A dataset of draws as columns `[n]` of a table.

    They are draw, flattened theta (`model.eta[0]`), features, valid, round, log_q.
    Where a parameter and a feature have one name, they become `theta.<name>` and `x.<name>`.

    Raises:
        ValueError: two features of one name.
    """
    values = {name: found[name].values for name in found.variables}
    paths, x = json.loads(found.attrs["theta"]), values["feature"].tolist()
    theta = flat_names({path: values[name].shape[1:] for path, name in paths.items()})
    twice = [name for name, count in Counter(x).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} names of features occur twice, {twice[0]!r} first; write .nc or .zarr instead")
    taken = Counter((*theta, *x, *OWN))  # a name that occurs twice gets a prefix on both sides
    flat = [column for name in paths.values() for column in values[name].reshape(len(values["draw"]), -1).T]
    table = {"draw": values["draw"]}
    table |= {f"theta.{k}" if taken[k] > 1 else k: column for k, column in zip(theta, flat, strict=True)}
    table |= {f"x.{k}" if taken[k] > 1 else k: column for k, column in zip(x, values["x"].T, strict=True)}
    return table | {name: values[name] for name in ("valid", "round", "log_q") if name in values}
