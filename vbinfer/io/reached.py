"""What code looks up outside of itself, and what of that is installed rather than the user's own."""

import builtins
import dis
import functools
import importlib
import importlib.metadata
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

_PLACES = {"__file__", "__name__", "__package__", "__spec__", "__path__", "__builtins__"}
"""Globals that say where a module is."""


_MADE = 1 << 9
"""Flag of types that a class statement made (Py_TPFLAGS_HEAPTYPE)."""


def reached(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """`(dotted name, value)` of everything that code looks up outside itself, functions defined inside it included.

    Attributes of a module of the user's are followed to what is no such module any more. A name that is not there is
    left out: the code says it already.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG", "PRECALL")]
    for i, step in enumerate(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            if step.argval in namespace and step.argval not in _PLACES:
                yield from _attribute(step.argval, namespace[step.argval], steps[i + 1 :])
        elif step.opname == "IMPORT_NAME":
            yield from _import(steps, i, namespace)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from reached(constant, namespace)


def _import(steps: list[Any], i: int, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What an import inside a function brings; one that fails is left out, as it would fail there."""
    level, wanted, name = steps[i - 2].argval, steps[i - 1].argval, steps[i].argval
    try:
        package = namespace.get("__package__") or ""
        module = importlib.import_module("." * level + name, package) if level else importlib.import_module(name)
    except ImportError:
        return
    if not wanted:  # `import helpers`, then helpers.step(...) wherever it is: all that the module defines
        yield name, module
    for one in wanted or ():
        if hasattr(module, one):
            yield f"{name}.{one}", getattr(module, one)


def _attribute(name: str, value: Any, after: list[Any]) -> Iterator[tuple[str, Any]]:
    """Follow `module.part.function` while it is a module that is not installed."""
    for step in after:
        if not is_module(value) or installed(value.__name__):
            break
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not hasattr(value, step.argval):
            break
        name, value = f"{name}.{step.argval}", getattr(value, step.argval)
    yield name, value


def is_module(value: Any) -> bool:
    """Whether it is a module, or what stands in for one and loads its parts on demand."""
    if isinstance(value, types.ModuleType):
        return True
    name = vars(value).get("__name__") if hasattr(value, "__dict__") else None
    return isinstance(name, str) and sys.modules.get(name) is value


def installed_name(value: Any) -> tuple[str, ...] | None:
    """Module, name and version of a function, class or ufunc that is found under its name in an installed module."""
    where = getattr(value, "__module__", None)
    if isinstance(value, (types.BuiltinFunctionType, types.BuiltinMethodType)) and isinstance(
        value.__self__, types.ModuleType
    ):
        where = where or value.__self__.__name__
    if isinstance(value, np.ufunc):
        where = where if isinstance(where, str) else "numpy"
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(where, str) or not isinstance(name, str) or not installed(where):
        return None
    target: Any = builtins if where == "builtins" else sys.modules.get(where)
    for part in name.split("."):
        target = getattr(target, part, None)
    hidden = isinstance(value, (np.ufunc, types.BuiltinFunctionType, types.MethodDescriptorType))
    hidden |= isinstance(value, type) and not (where == "builtins" and value.__flags__ & _MADE)
    return (where, name, *version(where)) if target is value or hidden else None


@functools.cache
def installed(name: str) -> bool:
    """Whether a module is of the standard library, of an installed distribution or of this package."""
    top = name.partition(".")[0]
    if top in ("vbinfer", "builtins", "__main__"):
        return top != "__main__"  # the program, also where a notebook's kernel is the file of it
    places = (getattr(sys.modules.get(one), "__file__", None) for one in (name, top))
    file = next((place for place in places if place is not None), None)
    if file is None:  # built into the interpreter
        return top in sys.stdlib_module_names
    folders = [sysconfig.get_path(which) for which in ("purelib", "platlib", "stdlib", "platstdlib")]
    path = PurePath(file)  # not by name: a file of the user's may be called like one of the standard library
    return any(path.is_relative_to(folder) for folder in folders if folder) or "site-packages" in path.parts


@functools.cache
def version(name: str) -> tuple[str, str]:
    """A module's name, and the version of what it belongs to; that of Python is in every code."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return name, ""
    found = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(found, str):
        try:
            found = importlib.metadata.version(top)
        except importlib.metadata.PackageNotFoundError:
            found = "unknown"
    return name, found
