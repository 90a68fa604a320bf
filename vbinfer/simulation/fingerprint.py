"""A digest of what a simulator is: its types, numbers and functions, the same in every process."""

import dataclasses
import functools
import hashlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def digest(*parts: object) -> str:
    """SHA-256, in hex, of objects made of modules, arrays, containers, numbers, strings and functions.

    A function counts as its code, constants, defaults, what it closes over and the globals that it names; `jit` and
    `partial` are looked into; any other object counts as its type and attributes, a type of the user's own as the code
    of its methods too. Two different things should never have the same digest; what this cannot see is the source of
    installed packages.
    """
    state = hashlib.sha256()
    for part in parts:
        state.update(_text(part, ()).encode())
    return state.hexdigest()


def _text(value: Any, seen: tuple[int, ...]) -> str:
    if id(value) in seen:
        return "recursion"
    seen = (*seen, id(value))
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return f"array({array.dtype},{array.shape},{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()})"
    if isinstance(value, bool | int | float | complex | str | bytes | None.__class__):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(k, seen)}:{_text(v, seen)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}[" + ",".join(_text(v, seen) for v in value) + "]"
    if isinstance(value, set | frozenset):
        return "set[" + ",".join(sorted(_text(v, seen) for v in value)) + "]"
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        return f"{getattr(value, '__module__', '')}.{value.__name__}{_methods(value, seen)}"
    if callable(value) and not dataclasses.is_dataclass(value):
        return _callable(value, seen)
    return f"{_name(value)}({_text(_attributes(value), seen)})"


def _callable(value: Any, seen: tuple[int, ...]) -> str:
    if isinstance(value, functools.partial):
        return f"partial({_text((value.func, value.args, value.keywords), seen)})"
    if isinstance(value, types.MethodType):
        return f"method({_text((value.__func__, value.__self__), seen)})"
    if isinstance(value, types.FunctionType):
        if _installed(value.__module__):
            return f"{value.__module__}.{value.__qualname__}"
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        named = {name: value.__globals__[name] for name in sorted(_named(value.__code__)) if name in value.__globals__}
        inner = _text((value.__defaults__, value.__kwdefaults__, cells, named), seen)
        return f"function({_code(value.__code__)},{inner})"
    if hasattr(value, "__wrapped__"):
        return f"{_name(value)}({_text(value.__wrapped__, seen)})"
    return f"{_name(value)}({_text(_attributes(value), seen)})"


def _name(value: Any) -> str:
    own = getattr(value, "__qualname__", "")
    return f"{type(value).__module__}.{type(value).__qualname__}.{own}{_methods(type(value), ())}"


@functools.cache
def _installed(module: str | None) -> bool:
    """Whether a module is Python's, an installed package's or vbinfer's own, whose version is part of the digest."""
    root = (module or "builtins").split(".")[0]
    if root in sys.stdlib_module_names and root != "__main__":
        return True
    file = getattr(sys.modules.get(root), "__file__", None)
    return root == "vbinfer" or (file is not None and ("site-packages" in file or "dist-packages" in file))


def _methods(kind: Any, seen: tuple[int, ...]) -> str:
    """The code of the methods of a class of the user's own; empty for any other."""
    if not isinstance(kind, type) or _installed(kind.__module__) or id(kind) in seen:
        return ""
    bases = "".join(_methods(base, seen) for base in kind.__bases__)
    code = [
        f"{name}:{_text(inner, (*seen, id(kind)))}"
        for name, item in sorted(vars(kind).items())
        if isinstance(inner := _unwrapped(item), types.FunctionType) and inner.__module__ == kind.__module__
    ]
    return f"[{bases}{';'.join(code)}]"


def _unwrapped(item: Any) -> Any:
    """The function inside a method as a class holds it (class methods, properties, Equinox's own wrapper)."""
    for attribute in ("method", "__func__", "fget", "__wrapped__"):
        while not isinstance(item, types.FunctionType) and hasattr(item, attribute):
            item = getattr(item, attribute)
    return item


def _named(code: types.CodeType) -> set[str]:
    """Names that a function, or one inside it, looks up outside itself."""
    inside = (_named(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inside)


def _attributes(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dict(getattr(value, "__dict__", {}))


def _code(code: types.CodeType) -> str:
    constants = [_code(c) if isinstance(c, types.CodeType) else _text(c, ()) for c in code.co_consts]
    return f"{code.co_name},{code.co_code.hex()},{code.co_names},{constants}"
