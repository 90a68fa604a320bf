"""Compiler options under which a program gives the same numbers however many threads JAX has."""

import functools

import jax

_OPTIONS: dict[str, str | bool] = {
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_multi_thread_eigen": False,
}


@functools.cache
def steady() -> dict[str, str | bool]:
    """Options for `jax.jit(..., compiler_options=)` of a program that fills one core and leaves the others alone.

    Left to itself, XLA splits loops, sums and matrix products over as many threads as the process may use cores, and
    where it splits a sum decides its last bits: measured, a mean over 4,371 correlations differs between one thread and
    two. Network steps are too short to gain from it (measured, reduced Wong-Wang on 94 nodes, 64 draws: 0.43 s of CPU
    time with two threads, 0.29 s with one). What the installed version does not know is left out: before 0.8.2 nothing
    but loops and products was split. Without effect on accelerators.
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
