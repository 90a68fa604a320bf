"""A digest of what a simulator is: its types, numbers and functions, the same in every process."""

import dataclasses
import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def digest(*parts: object) -> str:
    """SHA-256, in hex, of objects made of modules, arrays, containers, numbers, strings and functions.

    A function counts as its code, constants, defaults and what it closes over; `jit` and `partial` are looked into; any
    other object counts as its type and attributes. Two different things should never have the same digest; what this
    cannot see is the source of other packages.
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
        return f"{getattr(value, '__module__', '')}.{value.__name__}"
    if callable(value) and not dataclasses.is_dataclass(value):
        return _callable(value, seen)
    return f"{_name(value)}({_text(_attributes(value), seen)})"


def _callable(value: Any, seen: tuple[int, ...]) -> str:
    if isinstance(value, functools.partial):
        return f"partial({_text((value.func, value.args, value.keywords), seen)})"
    if isinstance(value, types.MethodType):
        return f"method({_text((value.__func__, value.__self__), seen)})"
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return f"function({_code(value.__code__)},{_text((value.__defaults__, value.__kwdefaults__, cells), seen)})"
    if hasattr(value, "__wrapped__"):
        return f"{_name(value)}({_text(value.__wrapped__, seen)})"
    return f"{_name(value)}({_text(_attributes(value), seen)})"


def _name(value: Any) -> str:
    own = getattr(value, "__qualname__", "")
    return f"{type(value).__module__}.{type(value).__qualname__}.{own}"


def _attributes(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dict(getattr(value, "__dict__", {}))


def _code(code: types.CodeType) -> str:
    constants = [_code(c) if isinstance(c, types.CodeType) else _text(c, ()) for c in code.co_consts]
    return f"{code.co_name},{code.co_code.hex()},{code.co_names},{constants}"
