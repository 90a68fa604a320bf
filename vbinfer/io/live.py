"""Compiled programs that follow the user's code.

JAX keeps a program by the function object that it was made from. In a notebook that object stays while what it reads
changes: a global is assigned anew, an array is edited, a helper is defined again.

    y = load(1);  sample_mcmc(prior, log_likelihood, x)      compiled with load(1) inside
    y = load(2);  sample_mcmc(prior, log_likelihood, x)      the same object: JAX would run the first program

Whoever hands a user's function to JAX calls `renew` before: it takes the content of everything that the code reaches
(`fingerprint`), and has JAX forget its programs where that is not what it was.
"""

import functools
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from vbinfer.io.fingerprint import Hasher, installed, installed_name, wrapped

_SEEN: dict[int, tuple[Any, bytes]] = {}
"""By identity: a reference to code of the user's, and what it did when it was last looked at."""
_DATA = (jax.Array, np.ndarray, np.generic, str, bytes, int, float, complex, type(None))


def renew(*values: Any) -> None:
    """Have JAX forget its programs where code has changed.

    Looks at the functions, classes and objects of the user in `values`, and at what they reach: captured values,
    globals, defaults, attributes, through other functions of the user. Arrays count by content, things without content
    (locks, open files) by identity. All programs are dropped, since functions that JAX was given inside others (bodies
    of scans, jitted helpers) are kept by it alone; without a change nothing is. Blind to what code reaches by computed
    names, as `fingerprint` is.
    """
    if _differs(values):
        jax.clear_caches()


def settle(*values: Any) -> None:
    """Take code as it is now, as unchanged.

    To be called where JAX has just traced it: what a function changes itself (a counter) is no reason to trace it anew.
    """
    _differs(values)


def settling(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function; `settle` follows each of its traces."""

    @functools.wraps(fn, updated=())
    def traced(*args: Any) -> Any:
        out = fn(*args)
        settle(fn)
        return out

    return traced


def _differs(values: Any) -> bool:
    """Whether the user's code in `values` has changed."""
    found: dict[int, Any] = {}
    for value in values:
        _collect(value, found, set())
    if not found:
        return False
    try:
        hasher = Hasher(live=True)
        now = [(value, hasher.of(value, ("fn",))) for value in found.values()]
    except Exception:  # no content can be told of it, so it may be anything by now
        return True
    return any([_is_news(value, digest) for value, digest in [*now, *hasher.functions]])  # all are recorded


def _is_news(value: Any, digest: bytes) -> bool:
    """Record a digest; whether there was another one."""
    place = id(value)
    reference, before = _SEEN.get(place, (None, digest))
    held = reference() if isinstance(reference, weakref.ref) else reference
    if held is not value:
        before = digest  # nothing yet, or an object that had this place in memory before
        try:
            reference = weakref.ref(value, lambda _: _SEEN.pop(place, None))
        except TypeError:  # objects with slots; held, so that the place stays theirs
            reference = value
    _SEEN[place] = reference, digest
    return digest != before


def _collect(value: Any, found: dict[int, Any], seen: set[int]) -> None:
    """The user's code in a tree of objects."""
    if isinstance(value, _DATA) or id(value) in seen:
        return
    seen.add(id(value))
    kind, parts = type(value), ()
    if isinstance(value, (types.FunctionType, type)):
        if installed_name(value) is None:
            found[id(value)] = value
    elif isinstance(value, (tuple, list)):
        parts = value
    elif isinstance(value, Mapping):
        parts = value.values()
    elif inside := wrapped(value):
        parts = inside
    elif not installed(kind.__module__):
        if isinstance(value, eqx.Module):  # frozen: its fields are data, and part of what JAX looks at
            found[id(kind)] = kind
            parts = vars(value).values()
        else:
            found[id(value)] = value
    elif kind.__module__.partition(".")[0] in ("vbinfer", "equinox"):
        parts = getattr(value, "__dict__", {}).values()
    for part in parts:
        _collect(part, found, seen)
