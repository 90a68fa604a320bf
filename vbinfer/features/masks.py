"""Which pairs of nodes a number is about: hemispheres, networks, mirror images, or any mask."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike

from .matrices import upper_triangle


class Mask(eqx.Module):
    """The pairs of nodes that a `[node, node]` mask selects, each once, as numbers: features stay hashable."""

    rows: tuple[int, ...] = eqx.field(static=True)
    cols: tuple[int, ...] = eqx.field(static=True)
    n: int = eqx.field(static=True)

    def __init__(self, mask: ArrayLike):
        keep = np.asarray(mask).astype(bool)
        if keep.ndim != 2 or keep.shape[0] != keep.shape[1]:
            raise ValueError(f"mask is {list(keep.shape)}; it must be [node, node], true for the pairs to keep")
        rows, cols = np.nonzero(np.triu(keep | keep.T, k=1))
        if rows.size < 2:
            raise ValueError(f"mask keeps {rows.size} pairs of nodes; at least 2 are needed")
        self.rows, self.cols, self.n = tuple(rows.tolist()), tuple(cols.tolist()), keep.shape[0]


def take_pairs(matrix: Array, mask: Mask | None) -> Array:
    if mask is None:
        return matrix[upper_triangle(matrix.shape[0])]
    if mask.n != matrix.shape[0]:
        raise ValueError(f"the recording has {matrix.shape[0]} nodes but mask is {[mask.n, mask.n]}; both must agree")
    return matrix[np.array(mask.rows), np.array(mask.cols)]


def homotopic(matrix: Array, pairs: str) -> Array:
    """The entries between a node and its mirror image in the other hemisphere, `[N // 2]`.

    Args:
        matrix: `[N, N]`.
        pairs: `"interleaved"` for left, right, left, right, ... (AAL, AAL2); `"blocks"` for all left, then all right.
    """
    left, right = mirrored(matrix.shape[0], pairs)
    return matrix[left, right]


def mirrored(n: int, pairs: str) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right node of each mirrored pair of `n` nodes, both `[N // 2]`."""
    ordering_of(pairs)
    if n % 2:
        raise ValueError(f"homotopic pairs need an even number of nodes; the recording has {n}; leave out pairs=")
    left = np.arange(0, n, 2) if pairs == "interleaved" else np.arange(n // 2)
    return left, left + (1 if pairs == "interleaved" else n // 2)


def ordering_of(pairs: str) -> str:
    """`pairs`, if it is an ordering of the hemispheres."""
    if pairs not in ("interleaved", "blocks"):
        raise ValueError(f"pairs is {pairs!r}; write 'interleaved' (left, right, left, ...), 'blocks' or leave it out")
    return pairs


def hemispheres(n: int, pairs: str) -> tuple[str, ...]:
    """The hemisphere of each of `n` nodes, `"left"` or `"right"`: labels for `within_mask` and `between_mask`.

    Args:
        n: number of nodes, even.
        pairs: `"interleaved"` for left, right, left, right, ... (AAL, AAL2); `"blocks"` for all left, then all right.

    >>> hemispheres(4, "blocks")
    ('left', 'left', 'right', 'right')
    """
    left, _ = mirrored(n, pairs)
    return tuple("left" if node in left else "right" for node in range(n))


def homotopic_mask(n: int, pairs: str) -> np.ndarray:
    """The pairs of mirrored nodes, `[N, N]`, for `mask=`."""
    mask = np.zeros((n, n), dtype=bool)
    mask[mirrored(n, pairs)] = True
    return mask | mask.T


def within_mask(labels: Sequence[object] | np.ndarray) -> np.ndarray:
    """The pairs of nodes with one label (hemisphere, network), `[N, N]` without the diagonal, for `mask=`.

    >>> int(within_mask(hemispheres(4, "blocks")).sum())
    4
    """
    same = np.array([[a == b for b in labels] for a in labels])
    return same & ~np.eye(len(labels), dtype=bool)


def between_mask(labels: Sequence[object] | np.ndarray) -> np.ndarray:
    """The pairs of nodes with different labels (hemispheres, networks), `[N, N]`, for `mask=`."""
    return np.array([[a != b for b in labels] for a in labels])
