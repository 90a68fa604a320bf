"""Index sets of compartments, fixed at construction."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Place:
    """Some of n compartments, in an order.

    Equal ones compare equal, so that programs are shared.
    """

    def __init__(self, index: np.ndarray, n: int):
        self.index, self.n = np.asarray(index, np.int64), n
        self._key = (n, self.index.tobytes())
        size = len(self.index)
        self.first = int(self.index[0]) if size and np.array_equal(self.index, self.index[0] + np.arange(size)) else -1

    def __len__(self) -> int:
        return len(self.index)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self._key == other._key

    def take(self, a: Array) -> Array:
        """Their rows of an array over all."""
        if self.first >= 0:
            return a[self.first : self.first + len(self)]
        return a[self.index]

    def put(self, a: Array) -> Array:
        """An array over all, zero elsewhere.

        What falls on one row is added up.
        """
        if self.first >= 0:
            rest = self.n - self.first - len(self)
            return jnp.pad(a, [(self.first, rest), *[(0, 0)] * (a.ndim - 1)])
        return jnp.zeros((self.n, *a.shape[1:]), a.dtype).at[self.index].add(a)
