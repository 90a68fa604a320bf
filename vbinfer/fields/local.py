"""A local connectivity of the user's own."""

from typing import Any

import equinox as eqx
import numpy as np
import scipy.sparse
from jaxtyping import Array

from vbinfer.fields.base import AbstractOperator, as_array, exponential
from vbinfer.fields.rows import Rows, leading, padded


class _Points(eqx.Module):
    """Points of which nothing is known but their number."""

    n_nodes: int = eqx.field(static=True)

    def checked(self, x: Any) -> Array:
        x = as_array(x)
        if x.ndim == 0 or x.shape[0] != self.n_nodes:
            raise ValueError(f"a field of shape {list(x.shape)} was given; expected [{self.n_nodes}, ...]")
        return x


class Local(AbstractOperator):
    """Local connectivity from a matrix.

    y_i = sum_j matrix_ij x_j,  or sum_j matrix_ij area_j x_j with `areas`.

    Args:
        matrix: `[N, N]`, dense or any sparse matrix of SciPy; `[i, j]` is from j to i.
        areas: mm^2, `[N]`, of a matrix of densities, such as a kernel's values: the same at every resolution.

    Raises:
        ValueError: no square matrix, numbers that are not finite, areas of another length.

    >>> import vbinfer as vb
    >>> vb.fields.Local([[0.0, 2.0], [1.0, 0.0]])([1.0, 3.0]).tolist()
    [6.0, 1.0]
    """

    domain: Any
    rows: Rows
    values: Array
    """`[N, K]`."""
    size: float = eqx.field(static=True)

    def __init__(self, matrix: Any, areas: Any = None):
        full = matrix if scipy.sparse.issparse(matrix) else scipy.sparse.csr_matrix(np.atleast_2d(np.asarray(matrix)))
        shape: tuple[int, int] = full.shape  # type: ignore  (of an abstract class it may be None)
        if shape[0] != shape[1]:
            raise ValueError(f"Local was given a matrix {list(shape)}; expected [N, N], with [i, j] from j to i")
        if not np.isfinite(full.data).all():
            raise ValueError("Local was given a matrix with NaN or infinite entries; give finite numbers, 0 for none")
        if areas is not None:
            areas = np.asarray(areas, float)
            if areas.shape != (shape[0],):
                raise ValueError(
                    f"areas has shape {list(areas.shape)} with a matrix {list(shape)}; expected [{shape[0]}]"
                )
            full = full @ scipy.sparse.diags(areas)
        self.rows, values, _ = padded(scipy.sparse.csr_matrix(full))
        self.domain, self.values = _Points(shape[0]), as_array(values)
        self.size = float(np.abs(values).sum(axis=1).max(initial=0.0))

    def weights(self) -> Array:
        return self.values

    def applied(self, weights: Array, x: Array) -> Array:
        return self.rows.product(weights, x)

    def flow_weights(self, t: Any) -> Any:
        return t

    def flowed(self, weights: Any, x: Array, steps: int | None) -> Array:
        return exponential(self, x, weights, self.size, steps)

    def eigenvalues(self, k: int | None = None) -> Array:
        """The k largest, by size; real parts."""
        return as_array(leading(self.rows, self.values, k or min(100, self.domain.n_nodes)))

    def norm(self) -> float:
        return self.size
