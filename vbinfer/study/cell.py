"""A neuron with a shape in a study file.

`model = { name = "Cell", ... }`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vbinfer import cable, datasets

from .table import StudyError, construct, keys, members, value_of

_RULES = ("max_length", "d_lambda", "per_section")
_SHAPES = ("swc", "sections", "single")
_NUMBERS = ("capacitance", "axial_resistivity", "radius_scale", "v_init", "settle", "threshold")


def read_cell(table: Mapping[str, Any], where: str, folder: Path) -> cable.Cell:
    """The cell that a table describes.

    Its shape is `swc = "cell.swc"` with one of `max_length`, `d_lambda`, `per_section`; or `sections = [{ ... }, ...]`;
    or `single = { length = 20.0, radius = 10.0 }`. `channels` and `receptors` hold objects by name, a channel without
    options is its name alone: `channels = { soma = ["HH", { name = "Leak", g = 1e-4 }] }`. A site is a compartment, or
    `{ region = "soma", x = 0.5 }`.
    """
    lists = ("sites", "receptors", "cvar")
    optional = (*_SHAPES, *_RULES, *_NUMBERS, *lists)
    given = keys(table, where, required=("name", "channels"), optional=optional)
    channels, receptors = members(cable, cable.AbstractMechanism), members(cable, cable.AbstractReceptor)
    if not isinstance(given["channels"], Mapping):
        raise StudyError(f'{where} channels is {given["channels"]!r}; write channels = {{ soma = ["HH"] }}')
    try:
        comp = _compartments(given, where, folder)
        options = {name: value_of(given[name], f"{where} {name}", folder, {}) for name in _NUMBERS if name in given}
        options |= {"cvar": tuple(given["cvar"])} if "cvar" in given else {}
        if "sites" in given:
            options["sites"] = given["sites"] if given["sites"] == "all" else _sites(comp, given["sites"], where)
        if "receptors" in given:
            build = lambda name, one: construct(one, f"{where} receptors.{name}", receptors, folder)  # noqa: E731
            options["receptors"] = {name: build(name, one) for name, one in given["receptors"].items()}
        built = {}
        for region, several in given["channels"].items():
            rows = several if isinstance(several, list) else [several]
            tables = [{"name": one} if isinstance(one, str) else one for one in rows]
            built[region] = tuple(construct(t, f"{where} channels.{region}", channels, folder) for t in tables)
        return cable.Cell(comp, built, **options)
    except StudyError:
        raise
    except (TypeError, ValueError, OSError) as error:
        raise StudyError(f"{where}: {error}") from error


def _compartments(given: Mapping[str, Any], where: str, folder: Path) -> cable.Compartments:
    shapes = [name for name in _SHAPES if name in given]
    if len(shapes) != 1:
        raise StudyError(f'{where} has {shapes or "no shape"}; give one of swc, sections, single, swc = "cell.swc"')
    rules: dict[str, Any] = {name: given[name] for name in _RULES if name in given}
    if "swc" in given:
        name = str(given["swc"])
        path = name if name in datasets.MORPHOLOGIES else folder / name
        if path != name and not Path(path).is_file():
            raise StudyError(f"{where}: there is no file {str(path)!r}; paths start at the folder of the study file")
        if "d_lambda" in rules:
            rules |= {name: given[name] for name in ("capacitance", "axial_resistivity") if name in given}
        return cable.compartments(datasets.load_morphology(path), **rules)
    if rules:
        raise StudyError(f"{where}: {next(iter(rules))} cuts a morphology; leave it out beside {shapes[0]}")
    if "single" in given:
        return cable.single(**given["single"])
    return cable.sections([{"parent": None, **one} for one in given["sections"]])


def _sites(comp: cable.Compartments, given: Any, where: str) -> dict[str, int]:
    found = {}
    for name, one in given.items():
        if isinstance(one, Mapping):
            one = comp.site(**keys(one, f"{where} sites.{name}", required=("region",), optional=("x", "section")))
        found[name] = one
    return found
