"""Compilation at the edge of the package.

Vectors are as wide as the processor has them.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from vbinfer._param import is_traced
from vbinfer.execute.options import deterministic_xla
from vbinfer.io.live import renew, settle

WIDE = {"xla_cpu_prefer_vector_width": "512"}
"""XLA keeps to 256 bits unless asked; noise and elementwise equations gain 1.3 to 1.4 where there are 512. Without
effect elsewhere."""


def is_inside(*args: Any) -> bool:
    """Whether JAX is tracing, these arguments or in general."""
    return is_traced(jnp.zeros(()), args)


def _options() -> dict[str, Any]:
    return {**WIDE, **deterministic_xla()}


class Compiled:
    """`equinox.filter_jit` with these options and those of `deterministic_xla`.

    JAX takes them for the outermost program only: elsewhere they are left out. Programs are made anew where functions
    of the user among the arguments have changed (`vbinfer.io.live`).
    """

    def __init__(self, fn: Callable[..., Any]):
        self._fn, self._inner, self._traces = fn, eqx.filter_jit(fn), 0
        self._programs: dict[Any, Callable[..., Any]] = {}

    @property
    def _outermost(self) -> Any:
        """Make the program on its first call.

        `deterministic_xla` asks JAX, which an import must not. Of several threads that call first, one makes it.
        """
        made = self.__dict__.get("_made")
        if made is None:
            # for jax.jit; not in the overloads of filter_jit
            options: Any = {"compiler_options": _options()}
            made = self.__dict__.setdefault("_made", eqx.filter_jit(self._counted(), **options))
        return made

    def given(self, *first: Any) -> Callable[..., Any]:
        """The program of the remaining arguments, for many quick calls.

        Outside of any trace. The first ones are taken apart once; of the others all leaves are arrays. Code of the
        user's is not looked at again.
        """
        arrays, rest = eqx.partition(first, eqx.is_array)
        leaves, tree = jax.tree.flatten(rest)
        if (known := (tuple(leaves), tree)) not in self._programs:
            fn = self._counted()
            run = lambda arrays, *args: fn(*eqx.combine(arrays, rest), *args)  # noqa: E731
            self._programs[known] = jax.jit(run, compiler_options=_options())
        return functools.partial(self._programs[known], arrays)

    def _counted(self) -> Callable[..., Any]:
        # JAX calls the function once for each program, and never again
        @functools.wraps(self._fn)
        def traced(*args: Any) -> Any:
            self._traces += 1
            out = self._fn(*args)
            settle(args)
            return out

        return traced

    def __call__(self, *args: Any) -> Any:
        renew(args)
        return self._inner(*args) if is_inside(*args) else self._outermost(*args)

    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return self._traces
