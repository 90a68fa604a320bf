"""A hash of what a Python function does: its code and everything of the user's that the code reaches."""

import functools
import hashlib
import sys
import types
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer.io.reached import installed, installed_name, is_module, reached, version

Path = tuple[str, ...]
"""How a value was reached, for messages: `("fn", "global 'step'")`."""

_HAS_DOC = 0x4000000
"""Flag of code whose first constant is its docstring, from Python 3.13 on; before, the first constant is it or None."""

_GENERATED = {
    *("__module__", "__qualname__", "__name__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
    *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__firstlineno__", "__static_attributes__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__", "_abc_impl", "__slots__"),
    *("__parameters__", "__orig_bases__", "__wrapped__", "__conditional_annotations__"),
}
"""Attributes of classes and functions that say where they are, not what they do."""


class UnhashableError(TypeError):
    """A value whose content cannot be known to be the same in another process."""


def code_hash(fn: Any) -> str:
    """SHA-256 of a callable: bytecode, constants, names, defaults, closure, and what it uses of globals, recursively.

    Functions, classes and objects of the user are taken by content: a changed helper or captured array changes the
    hash; comments, line numbers, docstrings, annotations, file names and the function's own name do not. What is
    installed (the standard library, site-packages, vbinfer) is taken by name and version. Bytecode belongs to a version
    of Python, so another one gives another hash.

    Blind to what code reaches by other ways: files it reads, environment variables, attributes fetched by computed
    names, compiled extensions that were built anew under the same version.

    Raises:
        UnhashableError: open files, locks, random generators and other things whose content is not arrays, numbers,
            strings, functions and objects of such; the message says where it was found.
    """
    return _Hasher().of(fn, ("fn",)).hex()


class _Hasher:
    """One pass: digests by identity, so that nothing is hashed twice, and what is being hashed, so that cycles end."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._open: list[int] = []
        self._alive: list[Any] = []  # ids of what is kept alive are not given to others

    def of(self, value: Any, path: Path) -> bytes:
        """Digest of a value."""
        plain = _plain(value)
        if plain is not None:
            return _digest(type(value).__name__, plain)
        if id(value) in self._known:
            return self._known[id(value)]
        if id(value) in self._open:
            return _digest("cycle", len(self._open) - self._open.index(id(value)))
        self._open.append(id(value))
        self._alive.append(value)
        try:
            found = self._known[id(value)] = self._compound(value, path)
        finally:
            self._open.pop()
        return found

    def _compound(self, value: Any, path: Path) -> bytes:
        kind = type(value)
        if kind in (tuple, list):
            return _digest(kind.__name__, *(self.of(part, (*path, f"[{i}]")) for i, part in enumerate(value)))
        if kind in (set, frozenset):
            return _digest(kind.__name__, *sorted(self.of(part, path) for part in value))
        if kind in (dict, types.MappingProxyType):
            pairs = (self.of(k, path) + self.of(v, (*path, f"[{k!r}]")) for k, v in value.items())
            return _digest("dict", *pairs)
        if is_module(value):
            return self._module(value, path)
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            return _digest("array", value.shape, *(self.of(part, path) for part in value.ravel().tolist()))
        if isinstance(value, (np.random.Generator, np.random.BitGenerator, np.random.RandomState)):
            raise UnhashableError(
                f"{' > '.join(path)} is a random generator, whose state changes with every draw; use the one that the "
                f"simulator is given, fn(theta, rng)"
            )
        return self._callable(value, path) or self._instance(value, path)

    def _callable(self, value: Any, path: Path) -> bytes | None:
        """Functions, methods, partials, classes, and what others wrap round a function."""
        named = installed_name(value)
        if named is not None:
            return _digest("installed", *named)
        if isinstance(value, types.FunctionType):
            return self._function(value, path)
        if isinstance(value, types.MethodType):
            return _digest("method", self.of(value.__func__, path), self.of(value.__self__, (*path, "its object")))
        if isinstance(value, functools.partial):
            parts = (self.of(part, path) for part in (value.func, value.args, value.keywords))
            return _digest("partial", *parts)
        if isinstance(value, types.BuiltinMethodType) and not isinstance(value.__self__, types.ModuleType):
            return _digest("bound", value.__name__, self.of(value.__self__, (*path, "its object")))
        if isinstance(value, type):
            return self._class(value, path)
        if isinstance(value, (staticmethod, classmethod)):
            return _digest(type(value).__name__, self.of(value.__func__, path))
        if isinstance(value, property):
            return _digest("property", *(self.of(part, path) for part in (value.fget, value.fset, value.fdel)))
        if isinstance(value, functools.cached_property):
            return _digest("cached_property", self.of(value.func, path))
        inner = getattr(value, "py_func", None) or getattr(
            value, "__wrapped__", None
        )  # numba's name for it; functools'
        if isinstance(inner, types.FunctionType) and not isinstance(value, types.FunctionType):
            options = getattr(value, "targetoptions", None)  # of numba: fastmath, parallel
            parts = (self.of(inner, path), self.of(options, path), self.of(type(value), path))
            return _digest("wrapped", *parts)
        return None

    def _function(self, fn: types.FunctionType, path: Path) -> bytes:
        path = (*path, f"{fn.__name__}()") if path[-1] != "fn" else path
        cells = []
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                cells.append(self.of(cell.cell_contents, (*path, f"captured {name!r}")))
            except ValueError:  # not filled yet
                cells.append(_digest("empty"))
        parts = [self._code(fn.__code__, path), _digest("closure", *cells)]
        parts += [self.of(part, (*path, "a default")) for part in (fn.__defaults__, fn.__kwdefaults__)]
        extra = {name: value for name, value in vars(fn).items() if name not in _GENERATED}
        parts.append(self.of(extra, (*path, "an attribute")))
        for name, value in sorted(reached(fn.__code__, fn.__globals__), key=lambda pair: pair[0]):
            parts.append(_digest(name, self.of(value, (*path, f"global {name!r}"))))
        return _digest("function", *parts)

    def _code(self, code: types.CodeType, path: Path) -> bytes:
        constants = list(code.co_consts)
        plain = code.co_flags & 0x2 and not code.co_name.startswith("<")  # a def, not a class body or comprehension
        documented = code.co_flags & _HAS_DOC if sys.version_info >= (3, 13) else plain
        if constants and documented and isinstance(constants[0], str):
            constants[0] = ""
        sizes = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        inside = (self._code(c, path) if isinstance(c, types.CodeType) else self.of(c, path) for c in constants)
        return _digest("code", sys.version_info[:2], code.co_code, code.co_exceptiontable, sizes, names, *inside)

    def _class(self, kind: type, path: Path) -> bytes:
        path = (*path, kind.__name__)
        parts = [self.of(base, path) for base in kind.__bases__]
        for name, value in sorted(vars(kind).items()):
            slot = isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
            if name not in _GENERATED and not slot:
                parts.append(_digest(name, self.of(value, (*path, name))))
        return _digest("class", *parts)

    def _module(self, module: Any, path: Path) -> bytes:
        if installed(module.__name__):
            return _digest("module", *version(module.__name__))
        own = {n: v for n, v in vars(module).items() if not n.startswith("__") and not is_module(v)}
        return _digest("module", *(_digest(n, self.of(v, (*path, n))) for n, v in sorted(own.items())))

    def _instance(self, value: Any, path: Path) -> bytes:
        """Any other object: what pickle would keep of it, which is all of it, also where it is held by C code."""
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # each type that cannot be copied says so in its own way
            raise UnhashableError(f"{' > '.join(path)} is a {kind.__module__}.{kind.__qualname__}") from error
        if isinstance(reduced, str):
            return _digest("named", self.of(kind, path), reduced)
        make, args, state, items, pairs = (*reduced[:5], *[None] * (5 - len(reduced[:5])))
        held = (make, args, state, None if items is None else list(items), None if pairs is None else list(pairs))
        names = ("maker", "argument", "attributes", "items", "items")
        return _digest("instance", *(self.of(part, (*path, f"its {n}")) for n, part in zip(names, held, strict=True)))


def _digest(*parts: Any) -> bytes:
    """SHA-256 of parts, each preceded by its length; what is not bytes is taken by repr."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.digest()


def _plain(value: Any) -> Any:
    """Bytes or a repr that is the content of a value that contains no other; None if it is not of that kind."""
    kind = type(value)
    if value is None or value is Ellipsis or value is NotImplemented or kind in (bool, int, str, bytes, range):
        return repr(value)
    if kind is float:
        return value.hex()
    if kind is complex:
        return (value.real.hex(), value.imag.hex())
    if kind is slice or isinstance(value, (np.dtype, PurePath)):
        return str(value)
    if kind in (np.ndarray, np.memmap) and not value.dtype.hasobject:
        return _digest(value.dtype.descr, value.shape, np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return _digest(value.dtype.descr, value.tobytes())
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return _digest(str(jax.random.key_impl(value)), np.asarray(jax.random.key_data(value)).tobytes())
        return _digest(str(value.dtype), value.shape, np.asarray(value).tobytes())
    return None
