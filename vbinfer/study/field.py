"""Fields in study files.

`field = { domain = { ... }, ... }`.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer import fields
from vbinfer.fields.profiles import AbstractProfile
from vbinfer.network.connectome import Connectome

from .table import StudyError, construct, keys, members, value_of

_OPTIONS = ("local", "strength", "sends", "average", "at", "regions")


def read_field(table: Any, where: str, folder: Path, connectome: Any) -> fields.Field:
    """The field that a table describes.

    `domain = { name = "Sphere", lmax = 15, radius = 100.0 }`, `{ name = "Icosphere", order = 3, radius = 100.0 }` or
    `{ name = "Mesh", file = "lh.pial.gii" }`. `local` is a `LaplaceBeltrami`, a `Kernel` with `shape = { name =
    "Gaussian", width = 20.0 }`, or a `Local` matrix. `regions = { numbers = { array = "regions.npy" } }` says which
    region each point belongs to; means of regions are weighted with areas, unless `weighted = false`.
    """
    given = keys(table, where, required=("domain",), optional=_OPTIONS)
    domains = {"Sphere": fields.Sphere, "Icosphere": fields.Mesh.icosphere, "Mesh": functools.partial(_mesh, folder)}
    domain = construct(given.pop("domain"), f"{where} domain", domains, folder)
    options: dict[str, Any] = {}
    if "local" in given:
        operators = {
            "LaplaceBeltrami": functools.partial(fields.LaplaceBeltrami, domain),
            "Kernel": functools.partial(fields.Kernel, domain),
            "Local": fields.Local,
        }
        shapes = members(fields, AbstractProfile)
        words = {"areas": domain.areas}
        options["local"] = construct(given.pop("local"), f"{where} local", operators, folder, words, shapes)
    if "regions" in given:
        options["regions"] = _regions(given.pop("regions"), f"{where} regions", folder, domain, connectome)
    options |= {name: value_of(value, f"{where} {name}", folder, {}) for name, value in given.items()}
    try:
        return fields.Field(domain, **options)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{where}: {error}") from error


def _mesh(folder: Path, file: str) -> fields.Mesh:
    if not (folder / file).is_file():
        raise ValueError(f"there is no file {str(folder / file)!r}; paths start at the folder of the study file")
    return fields.Mesh.from_file(folder / file)


def _regions(table: Any, where: str, folder: Path, domain: Any, connectome: Any) -> fields.RegionMap:
    """The region map; its labels are those of the connectome."""
    given = keys(table, where, required=("numbers",), optional=("weighted",))
    numbers = np.asarray(value_of(given["numbers"], f"{where} numbers", folder, {}))
    if numbers.dtype.kind == "f" and (numbers == np.rint(numbers)).all():
        numbers = numbers.astype(int)  # lists and text files hold floats
    labels = connectome.labels if isinstance(connectome, Connectome) else None
    try:
        return fields.RegionMap(numbers, domain.areas if given.get("weighted", True) else None, labels)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{where}: {error}") from error
