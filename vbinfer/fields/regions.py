"""Regions of a field: what a long-range connectome couples."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array

from vbinfer.fields.rows import Rows, padded


class RegionMap(eqx.Module):
    """Which region each point belongs to.

    Means of regions are weighted with the areas of their points; without `areas` they are plain, as in TVB. A region
    whose points have no area (subcortical points) has the plain mean.

    Args:
        regions: number of the region of every point, `[N]`; -1 belongs to none.
        areas: mm^2, `[N]`, as a domain has them.
        labels: names of the regions, in order; they say how many there are.

    Raises:
        ValueError: a region without points, a number beyond the labels, areas of another length.

    >>> import vbinfer as vb
    >>> rmap = vb.fields.RegionMap([0, 1, -1, 1], areas=[2.0, 1.0, 1.0, 3.0])
    >>> rmap.to_regions([5.0, 2.0, 9.0, 6.0]).tolist(), rmap.to_nodes([5.0, 7.0]).tolist()
    ([5.0, 5.0], [5.0, 7.0, 0.0, 7.0])
    """

    regions: Array
    """`[N]`."""
    labels: tuple[str, ...] | None = eqx.field(static=True)
    rows: Rows
    share: Array
    """Share of every point in the mean of its region, `[R, K]`."""

    def __init__(self, regions: Any, areas: Any = None, labels: Any = None):
        given = np.asarray(regions)
        if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given):
            raise ValueError(f"regions is {given.dtype} {list(given.shape)}; expected whole numbers [N], -1 for none")
        self.labels = None if labels is None else tuple(map(str, labels))
        n, last = len(given), int(given.max())
        count = last + 1 if self.labels is None else len(self.labels)
        if last >= count or given.min() < -1:
            off = last if last >= count else given.min()
            raise ValueError(f"regions names region {off}; there are {count}, 0 to {count - 1}, and -1 for none")
        empty = np.setdiff1d(np.arange(count), given)
        if len(empty) or count == 0:
            names = ", ".join(str(self.labels[k] if self.labels else k) for k in empty[:5])
            raise ValueError(
                f"regions leaves {len(empty)} of {count} regions without a point, {names}; number those that have"
            )
        weight = np.ones(n) if areas is None else np.asarray(areas, float)
        if weight.shape != (n,) or not (weight >= 0.0).all():
            raise ValueError(f"areas is {list(weight.shape)}; expected {n} numbers of at least 0, one for each point")
        inside = given >= 0
        total = np.bincount(given[inside], weight[inside], count)
        plain = total[given] == 0.0  # points without area
        weight = np.where(plain, 1.0, weight)
        total = np.bincount(given[inside], weight[inside], count)
        entries = weight[inside] / total[given[inside]], (given[inside], np.flatnonzero(inside))
        self.rows, share, _ = padded(scipy.sparse.coo_matrix(entries, (count, n)))
        self.regions, self.share = jnp.asarray(given, jnp.int32), jnp.asarray(share, jnp.result_type(float))

    @property
    def n_nodes(self) -> int:
        """Number of points N."""
        return len(self.regions)

    @property
    def n_regions(self) -> int:
        """Number of regions R."""
        return len(self.share)

    def to_regions(self, x: Any) -> Array:
        """Means of regions `[R, ...batch]` of a field `[N, ...batch]`."""
        x = jnp.asarray(x)
        if x.shape[:1] != (self.n_nodes,):
            raise ValueError(f"a field of shape {list(x.shape)} was given; expected [{self.n_nodes}, ...], the points")
        return self.rows.product(self.share, x)

    def to_nodes(self, y: Any) -> Array:
        """Values of each point's region `[N, ...batch]`, 0 for none."""
        y = jnp.asarray(y)
        if y.shape[:1] != (self.n_regions,):
            raise ValueError(
                f"values of shape {list(y.shape)} were given; expected [{self.n_regions}, ...], the regions"
            )
        inside = (self.regions >= 0).reshape(-1, *(1,) * (y.ndim - 1))
        return jnp.where(inside, y[self.regions], jnp.zeros((), y.dtype))

    def check(self, n_regions: int, labels: tuple[str, ...] | None) -> None:
        """Raise ValueError unless a connectome has these regions."""
        if n_regions != self.n_regions:
            raise ValueError(f"regions has {self.n_regions} regions and the connectome {n_regions} nodes; give as many")
        if None not in (labels, self.labels) and labels != self.labels:
            k = next(k for k, (a, b) in enumerate(zip(labels or (), self.labels or (), strict=True)) if a != b)
            raise ValueError(
                f"region {k} is {(self.labels or ())[k]!r} in the map and {(labels or ())[k]!r} in the connectome; "
                "number the regions as the connectome does"
            )
