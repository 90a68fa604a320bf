"""A digest of what a simulator is: its types, numbers and functions, the same in every process."""

import dataclasses
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def digest(*parts: object) -> str:
    """SHA-256, in hex, of objects made of modules, arrays, containers, numbers, strings and plain functions."""
    state = hashlib.sha256()
    for part in parts:
        state.update(_text(part).encode())
    return state.hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return f"array({array.dtype},{array.shape},{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return f"{type(value).__module__}.{type(value).__qualname__}({_text(fields)})"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(k)}:{_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return f"function({_code(value.__code__)},{_text(value.__defaults__)},{_text(cells)})"
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        return f"{getattr(value, '__module__', '')}.{value.__name__}"
    if isinstance(value, bool | int | float | complex | str | bytes | None.__class__):
        return repr(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _code(code: types.CodeType) -> str:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_name},{code.co_code.hex()},{code.co_names},{constants}"
