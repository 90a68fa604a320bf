"""Draws as an xarray Dataset or table."""

import importlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vbinfer._names import flat_names
from vbinfer.io import npz

if TYPE_CHECKING:
    from vbinfer.draws.draws import Draws

OWN = ("draw", "feature", "x", "valid", "round", "log_q")
"""What draws consist of beside theta."""


def dataset(draws: "Draws", numbers: np.ndarray | None = None) -> Any:
    """Draws as an `xarray.Dataset`; what `draws.to_xarray()` returns.

    Args:
        draws: n draws.
        numbers: `[n]`, the number of each; 0, 1, ... by default.
    """
    xr = importlib.import_module("xarray")
    names = variables(tuple(draws.theta))
    held: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for path, value in draws.theta.items():
        axes = tuple(f"{names[path]}_dim_{i}" for i in range(value.ndim - 1))
        held[names[path]] = (("draw", *axes), value)
    held |= {"x": (("draw", "feature"), draws.x), "valid": (("draw",), draws.valid), "round": (("draw",), draws.round)}
    if draws.log_q is not None:
        held["log_q"] = (("draw",), draws.log_q)
    numbers = np.arange(len(draws)) if numbers is None else numbers
    coordinates = {"draw": numbers, "feature": np.array(draws.names, dtype=object)}
    return xr.Dataset(held, coordinates, attributes(draws))


def attributes(draws: "Draws") -> dict[str, str]:
    """Provenance as strings of JSON."""
    names = variables(tuple(draws.theta))
    versions = draws.info.get("versions", npz.versions())
    return {
        "kind": "draws",
        "vbinfer": str(versions.get("vbinfer", "unknown")),
        "theta": npz.to_json(names),
        "info": npz.to_json(draws.info),
    }


def variables(paths: tuple[str, ...]) -> dict[str, str]:
    """Names of the variables of theta.

    A path, unless a part of the draws has that name: then `theta.<path>`.
    """
    names = {path: path.replace("/", ".") for path in paths}  # a slash is a group in a netCDF file
    return {path: f"theta.{name}" if name in OWN else name for path, name in names.items()}


def columns(draws: "Draws", numbers: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Draws as columns `[n]` of a table.

    They are draw, flattened theta (`model.eta[0]`), features, valid, round, log_q.
    Where a parameter and a feature have one name, they become `theta.<name>` and `x.<name>`.

    Raises:
        ValueError: two features of one name.
    """
    n = len(draws)
    theta, x = flat_names(draws.shapes), draws.names
    twice = [name for name, count in Counter(x).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} names of features occur twice, {twice[0]!r} first; write .nc or .zarr instead")
    taken = Counter((*theta, *x, *OWN))  # a name that occurs twice gets a prefix on both sides
    flat = [column for value in draws.theta.values() for column in value.reshape(n, -1).T]
    found = {"draw": np.arange(n) if numbers is None else numbers}
    found |= {f"theta.{k}" if taken[k] > 1 else k: column for k, column in zip(theta, flat, strict=True)}
    found |= {f"x.{k}" if taken[k] > 1 else k: column for k, column in zip(x, draws.x.T, strict=True)}
    found |= {"valid": draws.valid, "round": draws.round}
    return found if draws.log_q is None else {**found, "log_q": draws.log_q}
