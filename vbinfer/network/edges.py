"""Sparse networks: weights `[edge]` of a list of connections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer.network.ring import sent_at, times


@dataclass(frozen=True)
class EdgeList:
    """Layout of a sparse network: a row for each connection.

    In a batch, drawn arrays have the draws as last axis.
    """

    edges: Array
    """`[2, edge]`, receiver and sender."""
    n_nodes: int
    rank: ClassVar[int] = 1
    """Number of axes that a connection has."""

    def check(self, weights: Array) -> None:
        """Raise ValueError unless edges and weights fit."""
        if weights.ndim != 1 or self.edges.shape != (2, len(weights)):
            raise ValueError(
                f"weights is {list(weights.shape)} with edges {list(self.edges.shape)}; expected one weight, "
                "source and target for each connection"
            )
        if isinstance(self.edges, Tracer) or self.edges.size == 0:
            return
        edges = np.asarray(self.edges)  # before any arithmetic: inside a trace its results would be traced
        low, high = edges.min(), edges.max()
        if low < 0 or high >= self.n_nodes:
            off = low if low < 0 else high
            raise ValueError(f"a connection names node {off}; there are {self.n_nodes}, 0 to {self.n_nodes - 1}")

    def strength(self, weights: Array) -> Array:
        """Sums of the weights into each node, `[N, ...batch]`."""
        return self.gathered(weights)

    def received(self, weights: Array, sent: Array) -> Array:
        """Weighted sums of what is sent to each node."""
        return self.gathered(times(weights, sent[self.edges[1]]))

    def gathered(self, by_edge: Array) -> Array:
        """Sums over the connections into each node."""
        return jax.ops.segment_sum(by_edge, self.edges[0], num_segments=self.n_nodes)

    def reader(self, weight: Array, age: Array, mirror: int = 0) -> Callable[[Array, Array], Array]:
        """(ring, step) to sums of weight * sent(step - age)."""
        source = self.edges[1] if age.ndim == 1 else self.edges[1][:, None]
        return lambda ring, step: self.gathered(times(weight, sent_at(ring, step, age, source, mirror)))


def listed(weights: Any, lengths: Any) -> tuple[np.ndarray, int, Any, np.ndarray]:
    """Edges, size, weights and lengths of a sparse matrix.

    BCOO of JAX or any of SciPy's; lengths may be dense.
    """
    shape, size = tuple(weights.shape), weights.shape[0]
    lengths = np.asarray(lengths.todense() if hasattr(lengths, "todense") else lengths)
    if shape != (size, size) or lengths.shape != shape:
        raise ValueError(
            f"weights is {list(shape)} and tract_lengths is {list(lengths.shape)}; both must be [node, node]"
        )
    if getattr(getattr(weights, "indices", None), "ndim", 1) == 2:
        indices = np.asarray(weights.indices).T
        inside = (indices < size).all(axis=0)  # BCOO fills up with entries outside
        edges, values = indices[:, inside], weights.data[inside]
    else:
        matrix = weights.tocoo()
        edges, values = np.stack([matrix.row, matrix.col]), matrix.data
    return edges, size, values, lengths[edges[0], edges[1]]
