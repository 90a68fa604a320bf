"""Objects from the tables of a study file.

`{ name = "Heun", dt = 1.0 }` becomes `Heun(dt=1.0)`; every mistake is named.
"""

import importlib
import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vbinfer._param import did_you_mean
from vbinfer.io import archive


class StudyError(ValueError):
    """A mistake in a study file, with its remedy."""


class Lazily(Mapping[str, Any]):
    """Classes by name; a module loads when named."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Any:
        return getattr(importlib.import_module(f"vbinfer.{self._places[name]}"), name)

    def __contains__(self, name: object) -> bool:  # the default would load the module
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def keys(
    table: object, where: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A table of the file, with nothing missing or unknown."""
    if not isinstance(table, Mapping):
        raise StudyError(f"{where} is {table!r}; expected a table")
    for name in table:
        if name not in (*required, *optional):
            raise StudyError(f"{where} has no key {name!r}. {did_you_mean(name, (*required, *optional))}")
    for name in required:
        if name not in table:
            raise StudyError(f"{where} lacks the key {name!r}")
    return dict(table)


def construct(
    table: object,
    where: str,
    known: Mapping[str, Callable[..., Any]],
    folder: Path,
    values: Mapping[str, Any] | None = None,
    parts: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
    """Build the object that a table describes.

    Args:
        table: from the file.
        where: what to call it in a message, `[simulator] model`.
        known: name to constructor.
        folder: where relative paths of `{ array = "eta.npy" }` start.
        values: words that stand for an object when given as an option, such as "connectome".
        parts: constructors of objects that an option may describe in the same way, `kernel = { name = ... }`, or
            several by name, `groups = { cortex = { name = ... }, ... }`.
    """
    name, given = named(table, where, known)
    options = {}
    for key, value in given.items():
        inner = f"{where} {key}"
        if parts and _is_part(value, parts):
            options[key] = construct(value, inner, parts, folder, values, parts)
        elif parts and isinstance(value, Mapping) and any(_is_part(v, parts) for v in value.values()):
            options[key] = {k: construct(v, f"{inner}.{k}", parts, folder, values, parts) for k, v in value.items()}
        else:
            options[key] = value_of(value, inner, folder, values or {})
    _check_options(name, known[name], options, where)
    try:
        return known[name](**options)
    except (TypeError, ValueError, ImportError, ArithmeticError) as error:
        raise StudyError(f"{where}: {error}{_hint(error, options, values or {})}") from error


def named(table: object, where: str, known: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The known name in a table, and its options."""
    if isinstance(table, str):
        raise StudyError(f'{where} is {table!r}; write {where.split()[-1]} = {{ name = "{table}" }}')
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        example = "Uniform" if "Uniform" in known else next(iter(known))
        raise StudyError(f'{where} is {table!r}; expected a table with a name, such as {{ name = "{example}" }}')
    if table["name"] not in known:
        raise StudyError(f"{where} names {table['name']!r}, which is not there. {did_you_mean(table['name'], known)}")
    return table["name"], {key: value for key, value in table.items() if key != "name"}


def _hint(error: Exception, options: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Which option holds a word where NumPy expected a number."""
    # NumPy says that a word is no number, but not where it stands
    if "could not convert string" not in str(error):
        return ""
    known = "".join(f' or "{name}"' for name in values)
    return "".join(
        f'; {option} is the word {value!r}: give numbers, {{ array = "file.npy" }}{known}'
        for option, value in options.items()
        if isinstance(value, str)
    )


def _is_part(value: object, parts: Collection[str]) -> bool:
    """Whether an option describes an object.

    `training = { name = "Training", ... }` and `kernel = "GammaKernel"` do; other words are words.
    """
    return value in parts if isinstance(value, str) else isinstance(value, Mapping) and "name" in value


def _check_options(name: str, make: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    parameters = inspect.signature(make).parameters
    # what takes any option checks them itself
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise StudyError(f"{where}: {name} has no option {option!r}. {did_you_mean(option, parameters)}")
    for option, p in parameters.items():
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and option not in options:
            raise StudyError(f"{where}: {name} needs the option {option!r}; write {option} = ... beside its name")


def value_of(value: Any, where: str, folder: Path, values: Mapping[str, Any]) -> Any:
    """A value of the file as Python has it.

    Numbers and words stay as they are; lists and `{ array = "file" }` (npy, npz, text) become arrays.
    """
    if isinstance(value, Mapping) and set(value) == {"array"}:
        path = folder / str(value["array"])
        if not path.is_file():
            raise StudyError(f"{where}: there is no file {str(path)!r}; paths start at the folder of the study file")
        return _array(path, where)
    if isinstance(value, Mapping):
        return {key: value_of(v, f"{where}.{key}", folder, values) for key, v in value.items()}
    if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
        return np.asarray(value, dtype=float)
    return values.get(value, value) if isinstance(value, str) else value


def _array(path: Path, where: str) -> np.ndarray:
    """The one array of numbers in a file."""
    if path.suffix not in (".npy", ".npz", ".csv", ".txt"):
        raise StudyError(f"{where}: {str(path)!r} is of no known kind; give .npy, .npz, .csv or .txt")
    is_text = path.suffix in (".csv", ".txt")
    try:
        found = _text_array(path) if is_text else archive.load(path)
    except ValueError as error:
        better = "" if is_text else "; write it with np.save or np.savez"
        raise StudyError(f"{where}: {str(path)!r} does not hold numbers alone{better} ({error})") from error
    if isinstance(found, dict) and len(found) != 1:
        raise StudyError(f"{where}: {str(path)!r} holds {', '.join(found)}; expected one array")
    array = next(iter(found.values())) if isinstance(found, dict) else found
    if array.dtype.kind not in "fiub" or not array.size:
        raise StudyError(f"{where}: {str(path)!r} holds {array.size} values of type {array.dtype}; expected numbers")
    return array


def _text_array(path: Path) -> np.ndarray:
    """Numbers with commas, semicolons or blanks in between."""
    lines = path.read_text(encoding="utf-8-sig").replace(",", " ").replace(";", " ").splitlines()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty file, which the caller refuses
        return np.loadtxt(lines)


def members(module: ModuleType, base: type | tuple[type, ...]) -> dict[str, Callable[..., Any]]:
    """Public classes of a module under `base`, by name."""
    return {
        name: item
        for name in dir(module)
        if isinstance(item := getattr(module, name), type)
        and issubclass(item, base)
        and not name.startswith(("_", "Abstract"))
    }


def count(value: Any, where: str, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"{where} is {value!r}; expected a whole number above {least - 1}")
    return value


def number(value: Any, where: str, what: str = "a number of ms") -> float:
    """A real number, as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"{where} is {value!r}; expected {what}")
    return float(value)
