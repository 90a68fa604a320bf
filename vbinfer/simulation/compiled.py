"""Compilation at the edge of the package.

Vectors are as wide as the processor has them.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from vbinfer.execute.options import deterministic_xla
from vbinfer.io.live import renew, settle

WIDE = {"xla_cpu_prefer_vector_width": "512"}
"""XLA keeps to 256 bits unless asked; noise and elementwise equations gain 1.3 to 1.4 where there are 512. Without
effect elsewhere."""


def is_traced(*args: Any) -> bool:
    """Whether JAX is tracing, these arguments or in general."""
    return isinstance(jnp.zeros(()), Tracer) or any(isinstance(a, Tracer) for a in jax.tree.leaves(args))


class Compiled:
    """`equinox.filter_jit` with these options and those of `deterministic_xla`.

    JAX takes them for the outermost program only: elsewhere they are left out. Programs are made anew where functions
    of the user among the arguments have changed (`vbinfer.io.live`).
    """

    def __init__(self, fn: Callable[..., Any]):
        self._fn, self._inner, self._traces = fn, eqx.filter_jit(fn), 0

    @property
    def _outermost(self) -> Any:
        """Make the program on its first call.

        `deterministic_xla` asks JAX, which an import must not. Of several threads that call first, one makes it.
        """
        made = self.__dict__.get("_made")
        if made is None:
            # for jax.jit; not in the overloads of filter_jit
            options: Any = {"compiler_options": {**WIDE, **deterministic_xla()}}
            made = self.__dict__.setdefault("_made", eqx.filter_jit(self._counted(), **options))
        return made

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
        return self._inner(*args) if is_traced(*args) else self._outermost(*args)

    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return self._traces
