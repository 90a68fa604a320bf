"""Named parameters and their flat vectors; names of shapes.

T time, N node, V state variable, C coupling variable, B batch, F feature, D total size of theta.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

Theta = dict[str, Array]
"""Constrained named parameters: the key is the path of a leaf (`"coupling.G"`), the value its array."""

Named = Mapping[str, Any]
"""Named parameters as they are given: numbers or arrays of any kind."""

PRNGKey = Key[Array, ""]
"""One typed JAX key, as `jax.random.key` makes it."""


@runtime_checkable
class SimulatorLike(Protocol):
    """What inference asks of a simulator.

    It maps `(theta, key) -> x`, with `x` of shape `[F]`. It may also carry `.batch(theta, keys) -> x[B, F]`,
    `.names`, `.check(prior)`, `.fingerprint()` and `.estimate(n)`; those that exist are used.
    """

    def __call__(self, theta: Theta, key: PRNGKey, /) -> Array: ...


def flat_names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Flattened names of named arrays.

    `"a"` for a scalar, `"a[0]"`, `"a[1]"` for a vector, `"a[0,1]"` for a matrix.

    >>> flat_names({"coupling.G": (), "model.eta": (2,)})
    ('coupling.G', 'model.eta[0]', 'model.eta[1]')
    """
    names: list[str] = []
    for name, shape in shapes.items():
        if shape == ():
            names.append(name)
        else:
            names += [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
    return tuple(names)


def ravel(theta: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> Array:
    """Leaves as one array.

    Leaves `[..., *shape]` become `[..., D]`, in the order of `shapes`.
    """
    parts = []
    for name, shape in shapes.items():
        value = jnp.asarray(theta[name])
        # whatever stands before the shape of one draw is batch: chains, draws, or nothing
        lead = value.shape[: value.ndim - len(shape)]
        parts.append(value.reshape((*lead, -1)))
    return jnp.concatenate(parts, axis=-1)


def unravel(flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Inverse of `ravel`.

    An array `[..., D]` becomes named leaves `[..., *shape]`.
    """
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(
            f"a flat theta of size {flat.shape[-1]} was given; {tuple(shapes)} have {sum(sizes)} numbers in all"
        )
    lead, start, theta = flat.shape[:-1], 0, {}
    for (name, shape), size in zip(shapes.items(), sizes, strict=True):
        theta[name] = flat[..., start : start + size].reshape((*lead, *shape))
        start += size
    return theta
