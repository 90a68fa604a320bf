"""Compiler options for reproducible numbers."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

_OPTIONS: dict[str, str | bool] = {
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    "xla_cpu_multi_thread_eigen": False,
}


@functools.cache
def deterministic_xla() -> dict[str, str | bool]:
    """Compiler options under which threads change no number.

    For `jax.jit(..., compiler_options=)` of a program that fills one core and leaves the others alone.

    Left to itself, XLA splits loops, sums and matrix products over as many threads as the process may use cores, and
    where it splits a sum decides its last bits: measured, a mean over 4,371 correlations differs between one thread and
    two. Network steps are too short to gain from it (measured, reduced Wong-Wang on 94 nodes, 64 draws of 7,200 steps:
    0.42 s of CPU time with two threads, 0.27 s with one). Of the library kernels those for matrix products stay, the
    sums go. Products over thousands of rows are split all the same (`features.matrices.products` sees to those). What
    the installed version does not know is left out (the second option: jaxlib 0.8.0 and before). Without effect on
    accelerators.
    """
    return {name: value for name, value in _OPTIONS.items() if _known(name, value)}


def _known(name: str, value: str | bool) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


_QUICK: dict[str, str | bool] = {"xla_cpu_use_fusion_emitters": False}
"""The older generator of elementwise kernels: as fast when they are small, and half the work for the compiler."""


def quickly(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`equinox.filter_jit` of a program that compiles longer than it runs.

    For networks, whose first fit waits for the compiler (measured, an epoch of an NSF: 3.0 s of CPU time instead of
    4.2, and as fast). Options are for the outermost program; inside another one there are none.
    """
    inner = eqx.filter_jit(fn)

    @functools.cache
    def outermost() -> Any:
        # on the first call: an import must not ask JAX what it knows
        options: Any = {"compiler_options": {name: value for name, value in _QUICK.items() if _known(name, value)}}
        return eqx.filter_jit(fn, **options)

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        traced = isinstance(jnp.zeros(()), Tracer) or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
        return (inner if traced else outermost())(*args)

    return call
