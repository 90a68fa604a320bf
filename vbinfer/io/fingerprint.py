"""Fingerprints: what a program, function or object computes.

`traced` takes the arithmetic that JAX sees, `fingerprint` the code and content of anything else, `checksum` arrays.
None of them sees docstrings, comments, files, modules or a function's name, so that tidying up costs nobody a store.
"""

import builtins
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NUMBERS = 1
"""What vbinfer computes, as a number that is part of every study.

Raise it by one in any commit after which the same study gives other numbers beyond rounding: simulated values, draws of
priors, features, steps of a sampler. Finished stores are then other studies, and old and new draws never mix. A release
that changes no number leaves it alone: the package version is recorded beside a study and is no part of it.
"""

Path = tuple[str, ...]
"""How a value was reached, for messages: `("fn", "global 'step'")`."""

_HAS_DOC = 0x4000000
"""Flag of code whose first constant is its docstring, from Python 3.13 on; before, the first constant is it or None."""
_HEAP = 1 << 9
"""Flag of types that a class statement made (Py_TPFLAGS_HEAPTYPE)."""

_PLACES = {
    *("__file__", "__name__", "__package__", "__spec__", "__path__", "__builtins__", "__loader__", "__cached__"),
    *("__module__", "__qualname__"),
    *("__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__", "__annotate_func__", "__slots__"),
    *("__annotations_cache__", "__conditional_annotations__", "__firstlineno__", "__static_attributes__"),
    *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__abstractmethods__", "_abc_impl"),
    *("__parameters__", "__orig_bases__"),
}
"""Attributes and globals that say where a thing is or how it is described, not what it does."""


class UnhashableError(TypeError):
    """A value whose content cannot be told in another process."""


def checksum(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data if value.size else b"")
    return digest.hexdigest()


# ---- programs of JAX


def traced(fn: Callable[..., Any], *arguments: Any) -> tuple[str, list[tuple[int, ...]]]:
    """SHA-256 of a traced program; shapes of its results.

    Constants and captured arrays count; names of functions do not.

    Raises:
        UnhashableError: it cannot be traced, or calls Python from inside the program.
    """
    try:
        # a function of its own: of `fn` JAX may have kept the program of yesterday's globals
        program = jax.make_jaxpr(lambda *arguments: fn(*arguments))(*arguments)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError) as error:
        raise UnhashableError("this one cannot be traced by JAX") from error
    return _program(program, {}).hex(), [aval.shape for aval in program.out_avals]


def _program(program: Any, known: dict[int, bytes]) -> bytes:
    """Digest of a traced program, equation by equation.

    `known` holds those of the programs inside it.
    Variables are numbered as they appear, so that names do not matter. The text that JAX prints would not do: functions
    that are jitted stand in it by name, and the letters of variables avoid these names.
    """
    if id(program) in known:
        return known[id(program)]
    jaxpr, seen = getattr(program, "jaxpr", program), dict[Any, int]()

    def variables(atoms: Any) -> list[str]:
        # a literal stands for itself, a variable for the place where it first appeared
        values = (_array_bytes(a.val).hex() if hasattr(a, "val") else seen.setdefault(a, len(seen)) for a in atoms)
        return [f"{value}:{atom.aval}" for value, atom in zip(values, atoms, strict=True)]

    parts: list[Any] = [_digest(getattr(c, "dtype", type(c)), _array_bytes(c)) for c in getattr(program, "consts", ())]
    parts.append(variables([*jaxpr.constvars, *jaxpr.invars]))
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("pure_callback", "io_callback"):
            raise UnhashableError(f"this one calls Python by jax.{name}, whose code JAX does not see")
        parts += [name, variables(equation.invars)]
        # of a jitted function its program alone: the rest is where and how it is compiled
        options = {"jaxpr": equation.params["jaxpr"]} if name in ("jit", "pjit") else equation.params
        for option in sorted(options.keys() - {"name"}):
            leaves, structure = jax.tree.flatten(options[option], is_leaf=lambda leaf: hasattr(leaf, "eqns"))
            parts += [option, structure, *(_option(leaf, known) for leaf in leaves)]
        parts.append(variables(equation.outvars))
    parts.append(variables(jaxpr.outvars))
    found = known[id(program)] = _digest(*parts)
    return found


def _option(value: Any, known: dict[int, bytes]) -> Any:
    """Digest of an option of an equation.

    A function (a rule of differentiation) is left out, since its name is all one sees.
    """
    if hasattr(value, "eqns"):
        return _program(value, known)
    plain = _plain(value)
    if plain is not None or (callable(value) and not isinstance(value, type)):
        return plain
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _array_bytes(array: Any) -> bytes:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.ascontiguousarray(array).tobytes()


# ---- code and content


def fingerprint(value: Any) -> str:
    """SHA-256 of what a function or object does.

    Code, constants, defaults, captured values and globals count, recursively.
    Functions, classes and objects of the user are taken by content: a changed helper or captured array changes the
    hash. What is installed (the standard library, site-packages) is taken by name and version, vbinfer by name and
    `NUMBERS`. Bytecode belongs to a version of Python, so another one gives another hash.

    Blind to what code reaches by other ways: files it reads, environment variables, attributes fetched by computed
    names, compiled extensions that were built anew under the same version.

    Raises:
        UnhashableError: open files, locks, random generators and other things whose content is not arrays, numbers,
            strings, functions and objects of such; the message says where it was found.
    """
    return Hasher().of(value, ("fn",)).hex()


class Hasher:
    """One pass over a value.

    Digests are kept by identity, so that nothing is hashed twice; a value that is met inside itself counts as how far
    up it is, so that recursive functions end.

    Args:
        live: for this process alone: what has no content counts as the object it is, instead of an error.

    Attributes:
        functions: functions of the user that were met, with their digests; without those inside a cycle, whose digest
            depends on where it was entered.
    """

    def __init__(self, *, live: bool = False) -> None:
        self.functions: list[tuple[types.FunctionType, bytes]] = []
        self._live, self._cycles = live, 0
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
            self._cycles += 1
            return _digest("cycle", len(self._open) - self._open.index(id(value)))
        # what is open is being hashed now: meeting it again is a cycle
        self._open.append(id(value))
        self._alive.append(value)
        try:
            found = self._known[id(value)] = self._compound(value, path)
        finally:
            self._open.pop()
        return found

    def _compound(self, value: Any, path: Path) -> bytes:
        kind: type = type(value)
        if kind in (tuple, list):
            return _digest(kind.__name__, *(self.of(part, (*path, f"[{i}]")) for i, part in enumerate(value)))
        if kind in (set, frozenset):
            return _digest(kind.__name__, *sorted(self.of(part, path) for part in value))
        if kind in (dict, types.MappingProxyType):
            pairs = (self.of(k, path) + self.of(v, (*path, f"[{k!r}]")) for k, v in value.items())
            return _digest("dict", *pairs)
        if isinstance(value, (np.random.Generator, np.random.BitGenerator, np.random.RandomState)):
            if self._live:
                return _digest("object", id(value))
            raise UnhashableError(
                f"{' > '.join(path)} is a random generator, whose state changes with every draw; use the one that the "
                f"simulator is given, fn(theta, rng)"
            )
        if _is_module(value):
            where = vars(value)["__name__"]
            if installed(where):
                return _digest("module", *_version(where))
            own = {name: part for name, part in vars(value).items() if not _is_module(part)}
            return _digest("module", self._attributes(own, path))
        named = installed_name(value)
        if named is not None:
            return _digest("installed", *named)
        if isinstance(value, types.FunctionType):
            return self._function(value, path)
        if isinstance(value, type):
            bases = (self.of(base, (*path, kind.__name__)) for base in value.__bases__)
            return _digest("class", *bases, self._attributes(vars(value), (*path, value.__name__)))
        inside = wrapped(value)
        if inside:
            return _digest("wrapped", *(self.of(part, path) for part in (kind, *inside)))
        return self._instance(value, path)

    def _attributes(self, found: Mapping[str, Any], path: Path) -> bytes:
        """What a class, module or function holds by name."""
        slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
        own = ((n, v) for n, v in sorted(found.items()) if n not in _PLACES and not isinstance(v, slots))
        return _digest(*(_digest(name, self.of(value, (*path, name))) for name, value in own))

    def _function(self, fn: types.FunctionType, path: Path) -> bytes:
        path = (*path, f"{fn.__name__}()") if len(path) > 1 else path
        cells, cycles = [], self._cycles
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                cells.append(self.of(cell.cell_contents, (*path, f"captured {name!r}")))
            except ValueError:  # not filled yet
                cells.append(_digest("empty"))
        parts = [self._code(fn.__code__, path), _digest("closure", *cells)]
        parts += [self.of(part, (*path, "a default")) for part in (fn.__defaults__, fn.__kwdefaults__)]
        parts.append(self._attributes(vars(fn), (*path, "an attribute")))
        for name, value in sorted(_reached(fn.__code__, fn.__globals__), key=lambda pair: pair[0]):
            parts.append(_digest(name, self.of(value, (*path, f"global {name!r}"))))
        digest = _digest("function", *parts)
        if self._cycles == cycles:
            self.functions.append((fn, digest))
        return digest

    def _code(self, code: types.CodeType, path: Path) -> bytes:
        constants = list(code.co_consts)
        plain = code.co_flags & 0x2 and not code.co_name.startswith("<")  # a def, not a class body or comprehension
        documented = code.co_flags & _HAS_DOC if sys.version_info >= (3, 13) else plain
        if constants and documented and isinstance(constants[0], str):
            constants[0] = None
        sizes = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        inside = (self._code(c, path) if isinstance(c, types.CodeType) else self.of(c, path) for c in constants)
        return _digest("code", sys.version_info[:2], code.co_code, code.co_exceptiontable, sizes, names, *inside)

    def _instance(self, value: Any, path: Path) -> bytes:
        """Digest of any other object.

        What pickle would keep is all of it, also where it is held by C code.
        """
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # each type that cannot be copied says so in its own way
            if self._live:
                return _digest("object", id(value))
            raise UnhashableError(f"{' > '.join(path)} is a {kind.__module__}.{kind.__qualname__}") from error
        if isinstance(reduced, str):
            return _digest("named", self.of(kind, path), reduced)
        make, args, state, items, pairs = (*reduced[:5], *[None] * (5 - len(reduced[:5])))
        if isinstance(state, dict):  # without the name and docstring that functools.update_wrapper leaves
            state = {name: part for name, part in state.items() if name not in _PLACES}
        held = (make, args, state, None if items is None else list(items), None if pairs is None else list(pairs))
        names = ("maker", "argument", "attributes", "items", "items")
        return _digest("instance", *(self.of(part, (*path, f"its {n}")) for n, part in zip(names, held, strict=True)))


def _digest(*parts: Any) -> bytes:
    """SHA-256 of parts, each preceded by its length.

    What is not bytes is taken by repr.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.digest()


def _plain(value: Any) -> Any:
    """Content of a value that contains no other.

    None if it is not of that kind.
    """
    kind = type(value)
    if value is None or value is Ellipsis or value is NotImplemented or kind in (bool, int, str, bytes, range):
        return repr(value)
    if kind is float:
        return value.hex()
    if kind is complex:
        return (value.real.hex(), value.imag.hex())
    if kind is slice or isinstance(value, (np.dtype, PurePath)):
        return str(value)
    if kind in (np.ndarray, np.memmap) or isinstance(value, np.generic):
        return None if value.dtype.hasobject else _digest(value.dtype.descr, value.shape, _array_bytes(value))
    if isinstance(value, jax.Array):
        return _digest(str(value.dtype), value.shape, _array_bytes(value))
    return None


def wrapped(value: Any) -> tuple[Any, ...]:
    """Functions inside methods, partials and decorators.

    Of decorators, those of an installed package (jax.jit, numba).
    """
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, functools.cached_property):
        return (value.func,)
    inner = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)  # numba's name for it; functools'
    if isinstance(inner, types.FunctionType) and installed(type(value).__module__):
        return inner, getattr(value, "targetoptions", None)  # of numba: fastmath, parallel
    return ()


# ---- what code looks up outside of itself


def _reached(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """`(dotted name, value)` of what code looks up.

    Functions defined inside it are included.

    Attributes of a module of the user's are followed to what is no such module any more. A name that is not there is
    left out: the code says it already.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG", "PRECALL")]
    for i, step in enumerate(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            if step.argval in namespace and step.argval not in _PLACES:
                yield _followed(step.argval, namespace[step.argval], steps[i + 1 :])
        elif step.opname == "IMPORT_NAME":  # after the level of the import and the names that are wanted of it
            yield from _imported(step.argval, steps[i - 2].argval, steps[i - 1].argval, namespace)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _reached(constant, namespace)


def _imported(name: str, level: int, wanted: Any, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What an import inside a function brings.

    One that fails is left out, as it would fail there.
    """
    try:
        module = importlib.import_module("." * level + name, namespace.get("__package__") or "")
    except ImportError:
        return
    if not wanted:  # `import helpers`, then helpers.step(...) wherever it is: all that the module defines
        yield name, module
    yield from ((f"{name}.{one}", getattr(module, one)) for one in wanted or () if hasattr(module, one))


def _followed(name: str, value: Any, after: list[Any]) -> tuple[str, Any]:
    """Follow `module.part.function` through the user's modules."""
    for step in after:
        inside = _is_module(value) and not installed(vars(value)["__name__"])
        if not inside or step.opname not in ("LOAD_ATTR", "LOAD_METHOD") or not hasattr(value, step.argval):
            break
        name, value = f"{name}.{step.argval}", getattr(value, step.argval)
    return name, value


# ---- what is installed


def _is_module(value: Any) -> bool:
    """Whether it is a module or a lazy one."""
    if isinstance(value, types.ModuleType):
        return True
    name = vars(value).get("__name__") if hasattr(value, "__dict__") else None
    return isinstance(name, str) and sys.modules.get(name) is value


def installed_name(value: Any) -> tuple[str, ...] | None:
    """Module, name and version of something installed.

    That is a function, class or ufunc that is found under its name in an installed module.
    """
    where = getattr(value, "__module__", None)
    if isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType):
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
    hidden |= isinstance(value, type) and not (where == "builtins" and value.__flags__ & _HEAP)
    return (where, name, *_version(where)) if target is value or hidden else None


@functools.cache
def installed(name: str) -> bool:
    """Whether a module is installed.

    The standard library, a distribution, or this package.
    """
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
def _version(name: str) -> tuple[str, str]:
    """Name and version of an installed module.

    The version of Python is in every code.
    """
    top = name.partition(".")[0]
    if top == "vbinfer" or top in sys.stdlib_module_names:
        return name, f"numbers {NUMBERS}" if top == "vbinfer" else ""
    found = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(found, str):
        try:
            found = importlib.metadata.version(top)
        except importlib.metadata.PackageNotFoundError:
            found = "unknown"
    return name, found
