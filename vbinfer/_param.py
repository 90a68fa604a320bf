"""Declared parameters of modules.

`param` on a field, `paths` to list them, `bind` to replace them by name.
"""

import abc
import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

Tree = TypeVar("Tree")
if TYPE_CHECKING:
    Param = Any  # what is given may be a number, a list or an array; type checkers do not know of the conversion
else:
    Param = Array
    """The type of a declared parameter. `noise.Additive.sigma` may also be named arrays (`noise.sigma.r`)."""

_META = "vbinfer_param"
NAMED = {"vbinfer_named": True}
"""Metadata of a field that is a mapping and is passed over in paths: its names stand where that of the field would."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a tree, as declared."""

    path: str
    value: Array
    unit: str
    low: float
    high: float
    doc: str
    axes: tuple[str, ...] | None
    """None for an elementwise leaf (a scalar or `[node]`); axis names for a leaf that its owner arranges."""


Leaf = Parameter
"""The name that 0.1.0 had."""


def param(
    default: object = dataclasses.MISSING,
    *,
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    doc: str = "",
    axes: tuple[str, ...] | None = None,
    named: bool = False,
) -> Any:
    """Declare a parameter of an `equinox.Module`.

    A leaf with a unit, a range and a sentence.

    The value is converted to a strongly typed array, so that a new number never means a new compilation. A mapping
    of names to values is kept as a mapping and addressed with dotted paths.

    Args:
        default: value when none is given; without it the parameter is required.
        unit: what it is measured in (`"ms"`, `"mm/ms"`), empty if dimensionless.
        low, high: the range within which the model makes sense; checked at construction and against priors.
        doc: one sentence.
        axes: None for an elementwise leaf, a scalar or one value per node. Otherwise the names of its axes.
        named: the value is a mapping whose names are paths by themselves, without that of the field.
    """
    meta: dict[str, Any] = {_META: {"unit": unit, "low": float(low), "high": float(high), "doc": doc, "axes": axes}}
    meta |= NAMED if named else {}
    if default is dataclasses.MISSING:
        return eqx.field(converter=_as_leaf, metadata=meta)
    return eqx.field(default=default, converter=_as_leaf, metadata=meta)


def _as_leaf(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(name): _as_leaf(item) for name, item in value.items()}
    if isinstance(value, AbstractLaw):
        return value
    if isinstance(value, str):
        raise TypeError(f"a parameter was given as the string {value!r}; write a number or an array of numbers")
    return jnp.asarray(value, dtype=jnp.result_type(float))  # strongly typed: a weak type would compile again


def spread(leaf: Array, like: Array) -> Array:
    """A parameter `[N, ...batch]` broadcast to states like this."""
    if leaf.ndim in (0, like.ndim):
        return leaf
    return leaf.reshape(leaf.shape[0], *(1,) * (like.ndim - leaf.ndim), *leaf.shape[1:])


class Parametrised(eqx.Module):
    """Base of every module with declared parameters.

    Ranges are checked at construction and again by `bind`.
    """

    moved: ClassVar[Mapping[str, str]] = {}
    """Parameters of earlier versions, and what to write instead."""

    def __new__(cls: type[Tree], *args: Any, **kwargs: Any) -> Tree:
        """Answer a misspelt keyword with the closest known one.

        Python would only say that it is unexpected.
        """
        known = inspect.signature(cls).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            for name in kwargs:
                if name in (moved := cast(Any, cls).moved):
                    raise TypeError(f"{cls.__name__} has no parameter {name!r} any more: {moved[name]}")
                if name not in known:
                    raise TypeError(f"{cls.__name__} has no parameter {name!r}. {did_you_mean(name, known)}")
        return cast(Tree, eqx.Module.__new__(cast(Any, cls)))

    def __check_init__(self) -> None:
        check(self)

    def validate(self) -> None:
        """Checks of the subclass beyond ranges.

        Raises ValueError; called at construction and by `bind`.
        """

    def unused(self) -> dict[str, str]:
        """Parameters without effect, and what to write instead.

        As this module was built.

        Binding one, or giving it a value other than zero, is an error.
        """
        return {}


class AbstractLaw(Parametrised):
    """Base of values of a parameter that have coefficients.

    Its owner evaluates it; the coefficients are paths below that of the parameter.
    """

    @abc.abstractmethod
    def value(self, at: Any, like: Array) -> Array:
        """The parameter at some places, shaped as `like`."""


def check(module: "Parametrised") -> None:
    """Check one module's declared ranges, then its `validate`."""
    for leaf in _own(module, ""):
        # inside a trace there is no value to compare; a draw out of range becomes NaN there
        if not _is_concrete(leaf.value):
            continue
        value = np.asarray(leaf.value)
        if value.size == 0:
            continue
        name = f"{type(module).__name__}.{leaf.path}"
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinite numbers; give finite {leaf.unit or 'numbers'}")
        if value.min() < leaf.low or value.max() > leaf.high:
            off = value.min() if value.min() < leaf.low else value.max()
            raise ValueError(
                f"{name} is {off:g} {leaf.unit}".rstrip() + f"; it must lie in {range_text(leaf.low, leaf.high)}"
            )
    for name, remedy in module.unused().items():
        value = getattr(module, name)
        if _is_concrete(value) and np.any(np.asarray(value) != 0):
            raise ValueError(f"{type(module).__name__}: {remedy}")
    module.validate()


def range_text(low: float, high: float) -> str:
    """A declared range in words, `[0, inf)`."""
    left = f"[{low:g}" if math.isfinite(low) else "(-inf"
    right = f"{high:g}]" if math.isfinite(high) else "inf)"
    return f"{left}, {right}"


def is_traced(*args: Any) -> bool:
    """Whether JAX is tracing one of these values."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))


def _is_concrete(value: object) -> bool:
    return not is_traced(value) and hasattr(value, "shape")


def _own(module: eqx.Module, prefix: str) -> Iterator[Parameter]:
    """The parameters that a module declares itself."""
    for name, value, metadata in _fields(module):
        if meta := metadata.get(_META):
            yield from _parameters(value, f"{prefix}{name}", meta)


def _fields(module: eqx.Module) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Name in paths, value and metadata of a module's fields."""
    for field in dataclasses.fields(cast(Any, module)):
        value = getattr(module, field.name)
        for name, item in value.items() if NAMED.keys() <= field.metadata.keys() else ((field.name, value),):
            yield name, item, field.metadata


def _parameters(value: object, path: str, meta: dict[str, Any]) -> Iterator[Parameter]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _parameters(item, f"{path}.{name}", meta)
    elif isinstance(value, AbstractLaw):
        yield from _own(value, f"{path}.")
    elif value is not None:
        yield Parameter(path=path, value=cast(Array, value), **meta)


def _modules(node: object, prefix: str = "") -> Iterator[tuple[str, eqx.Module]]:
    """Every module of a tree with its prefix, outermost first."""
    if isinstance(node, eqx.Module):
        yield prefix, node
        for name, value, metadata in _fields(node):
            if _META not in metadata:
                yield from _modules(value, f"{prefix}{name}.")
    elif isinstance(node, Mapping):
        for name, item in node.items():
            yield from _modules(item, f"{prefix}{name}.")


def paths(tree: object) -> dict[str, Parameter]:
    """Every declared parameter of a tree, by dotted path.

    >>> import vbinfer as vb
    >>> sorted(vb.paths(vb.coupling.Linear(G=0.5)))
    ['G', 'offset']
    """
    return {leaf.path: leaf for prefix, module in _modules(tree) for leaf in _own(module, prefix)}


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The closest known name, or the list of them.

    The end of an error message.
    """
    known = sorted(candidates)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        # the last part of a path, for those who leave out its beginning
        tails = {path.rsplit(".", 1)[-1]: path for path in known}
        tail = difflib.get_close_matches(name.rsplit(".", 1)[-1], list(tails), n=1, cutoff=0.6)
        close = [tails[tail[0]]] if tail else []
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(known)}." if known else "There is none."


def _get(tree: object, path: str) -> object:
    for name in path.split("."):
        if isinstance(tree, eqx.Module):
            tree = {field: value for field, value, _ in _fields(tree)}
        tree = tree[name] if isinstance(tree, Mapping) else getattr(tree, name)
    return tree


def _unknown_path(tree: object, path: str, known: Mapping[str, Parameter]) -> ValueError:
    owner = "what is given" if isinstance(tree, Mapping) else type(tree).__name__
    below = [name for name in known if name.startswith(path + ".")]
    if below:
        return ValueError(f"{path!r} is a part of {owner} with several parameters; name one of {', '.join(below)}")
    if "[" in path:
        return ValueError(
            f"{path!r} is the name of one element, not a path; bind {path.split('[')[0]!r} with an array of all nodes"
        )
    try:
        _get(tree, path)
    except (AttributeError, KeyError):
        return ValueError(f"theta names {path!r}; {owner} has no such parameter. {did_you_mean(path, known)}")
    return ValueError(f"{path!r} is fixed when {owner} is built and cannot be bound; build a new {owner} with it")


def resolve(tree: object, names: Iterable[str]) -> dict[str, Parameter]:
    """The parameters that `names` address, in their order.

    An unknown, static or partial path is an error with a remedy.
    """
    known = paths(tree)
    found = {}
    for name in names:
        if name not in known:
            raise _unknown_path(tree, name, known)
        found[name] = known[name]
    return found


def replace(tree: Tree, values: Mapping[str, Array]) -> Tree:
    """The tree with these parameters exchanged, unchecked.

    `bind` is this with every check.
    """
    if not values:
        return tree
    names = list(values)
    # all leaves in one surgery: tree_at copies the tree once
    where: Callable[[Any], list[Any]] = lambda node: [_get(node, name) for name in names]  # noqa: E731
    return eqx.tree_at(where, tree, [values[name] for name in names])


def bind(tree: Tree, theta: Mapping[str, Any]) -> Tree:
    """A new tree with the parameters of `theta`.

    Args:
        tree: a `Simulator`, or any module with declared parameters; it is not changed.
        theta: path to value. An elementwise parameter takes a scalar or one value per node, any other its own shape.

    Raises:
        ValueError: a path that is unknown (with the closest known one), static, or names a whole part of the tree;
            a value of the wrong shape; on concrete values, whatever construction would refuse.
    """
    leaves = resolve(tree, theta)
    values = {}
    for name, leaf in leaves.items():
        owner, _, field = name.rpartition(".")
        parent = _get(tree, owner) if owner else tree
        if isinstance(parent, Parametrised) and field in parent.unused():
            raise ValueError(f"theta names {name!r}: {parent.unused()[field]}")
        if theta[name] is None or isinstance(theta[name], Mapping):
            raise TypeError(f"{name!r} was given {theta[name]!r}; expected a number or an array")
        value = cast(Array, _as_leaf(theta[name]))
        if leaf.axes is None and value.ndim > 1:
            raise ValueError(f"{name!r} was given shape {list(value.shape)}; expected a number or one value per node")
        if leaf.axes is not None and value.shape != leaf.value.shape:
            raise ValueError(
                f"{name!r} was given shape {list(value.shape)}; expected {list(leaf.value.shape)}, "
                f"[{', '.join(leaf.axes)}]"
            )
        values[name] = value
    bound = replace(tree, values)
    for _, module in reversed(list(_modules(bound))):  # parts before what they are parts of
        if isinstance(module, Parametrised):
            check(module)
    return bound
