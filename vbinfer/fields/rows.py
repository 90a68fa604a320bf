"""Sparse rows: of every point the points that it reads."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Array

DENSE = 0.5
"""Share of all pairs above which a matrix product is faster than looking up neighbours."""


class Rows(eqx.Module):
    """Which points each point reads, padded to the longest row.

        index[0]   3  7  9  0     a point with three neighbours: the last place is padded with point 0, and masked
        index[1]   0  2  4  8

    None where every point reads all, and products are those of a matrix `[N, N]`.
    """

    index: Array | None
    """`[N, K]`."""

    def product(self, values: Array, x: Array) -> Array:
        """sum_k values_ik x_index_ik, of x `[N, ...batch]`.

        Values are `[N, K]`, or `[N, K, B]` of each draw; of a matrix that is not square there are as many as rows.
        """
        flat = x.reshape(x.shape[0], -1)
        if self.index is None:
            y = jnp.einsum("ijb,jb->ib", values, flat) if values.ndim == 3 else values @ flat
        else:
            weight = values if values.ndim == 3 else values[..., None]
            y = (weight * flat[self.index]).sum(axis=1)
        return y.reshape(len(y), *x.shape[1:])

    def differences(self, values: Array, x: Array) -> Array:
        """sum_k values_ik (x_index_ik - x_i), exactly 0 of a constant."""
        flat = x.reshape(x.shape[0], -1)
        others = flat[None] if self.index is None else flat[self.index]
        return (values[..., None] * (others - flat[:, None])).sum(axis=1).reshape(x.shape)


def padded(matrix: Any) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Padded rows of a sparse matrix, values, mask.

    Values and mask are `[N, K]`; stored zeros count, others are not read.
    """
    matrix = matrix.tocsr()
    matrix.sort_indices()
    (n, width), lengths = matrix.shape, np.diff(matrix.indptr)
    longest = int(lengths.max(initial=1))
    if longest > DENSE * width:
        row = np.repeat(np.arange(n), lengths)
        values, there = np.zeros((n, width)), np.zeros((n, width), bool)
        values[row, matrix.indices], there[row, matrix.indices] = matrix.data, True
        return Rows(None), values, there
    there = np.arange(longest)[None] < lengths[:, None]
    index, values = np.zeros((n, longest), np.int32), np.zeros((n, longest))
    index[there], values[there] = matrix.indices, matrix.data
    return Rows(jnp.asarray(index)), values, there


def leading(rows: Rows, values: Array, k: int) -> np.ndarray:
    """Real parts of the k largest eigenvalues, descending."""
    entries = np.asarray(values, float)
    n = len(entries)
    if rows.index is None:
        matrix = scipy.sparse.csr_matrix(entries)
    else:
        index = np.asarray(rows.index)
        matrix = scipy.sparse.csr_matrix((entries.ravel(), index.ravel(), np.arange(n + 1) * index.shape[1]), (n, n))
    if k >= n - 1 or n <= 1000:
        found: Any = np.linalg.eigvals(matrix.toarray())
    else:
        start = np.random.default_rng(0).standard_normal(n)
        found = scipy.sparse.linalg.eigs(matrix, k, v0=start, return_eigenvectors=False)
    found = found.real
    return found[np.argsort(-np.abs(found), kind="stable")][:k]
