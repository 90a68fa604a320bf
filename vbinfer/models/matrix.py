"""Matrices that a model brings itself, besides the connectome."""

import jax.numpy as jnp
from jaxtyping import Array


def product(name: str, matrix: Array, x: Array) -> Array:
    """Product of a matrix with a state variable.

    sum_j matrix_ij x_j for a matrix `[N, N]` or, one per draw, `[N, N, B]`; x is `[N]` or `[N, B]`.

    Raises:
        ValueError: the matrix is of another number of nodes; `name` says which it is.
    """
    n = x.shape[0]
    if matrix.shape[:2] != (n, n):
        raise ValueError(f"{name} is {list(matrix.shape)} in a network of {n} nodes; it must be [{n}, {n}]")
    return jnp.einsum("ijb,jb->ib", matrix, x) if matrix.ndim == 3 else matrix @ x


def check_square(name: str, matrix: Array | None) -> None:
    """Raise ValueError unless the matrix is `[node, node]`.

    It may have a batch axis, or be absent.
    """
    if matrix is not None and (matrix.ndim not in (2, 3) or matrix.shape[0] != matrix.shape[1]):
        raise ValueError(f"{name} was given shape {list(matrix.shape)}; expected [node, node], from column to row")
