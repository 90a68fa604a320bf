"""What simulation and recording pass before features."""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check

from .base import Preprocess, option
from .numeric import standardised, time_centre


class detrend(Preprocess):
    """Remove polynomials in time from each node.

    y <- y - Q Q' y,   Q the orthonormal polynomials of degree 0 ... order on the samples: the residual of least
    squares. Order 0 removes the mean.

    Args:
        order: highest degree that is removed.
    """

    order: int = option(default=1, converter=functools.partial(_check.count, what="order", example=1, least=0))

    def __call__(self, y: Array, period: float) -> Array:
        length = y.shape[0]
        if length <= self.order + 1:
            raise ValueError(
                f"the recording has {length} samples; detrend(order={self.order}) needs more than that + 1"
            )
        powers = np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, length), self.order)
        q = jnp.asarray(np.linalg.qr(powers)[0], y.dtype)
        level = y[:1]  # of a recording far from 0 the small differences would be lost in float32
        return (y - level) - jnp.matmul(q, jnp.matmul(q.T, y - level, precision="highest"), precision="highest")


class zscore(Preprocess):
    """Mean 0 and standard deviation 1 of each node.

    ddof is 0; a constant node becomes 0.
    """

    def __call__(self, y: Array, period: float) -> Array:
        return standardised(y)


def remove_global(y: Array) -> Array:
    """`regress_global` of a recording `[T, N]`."""
    d = time_centre(y)[0]
    g = d.mean(axis=1)
    power = jnp.sum(g * g)
    # opposite signals leave rounding as their mean
    absent = power <= 1e-10 * jnp.mean(jnp.sum(d * d, axis=0))
    slope = jnp.where(absent, 0.0, jnp.sum(g[:, None] * d, axis=0) / jnp.where(absent, 1.0, power))
    return d - g[:, None] * slope[None]


class regress_global(Preprocess):
    """Global-signal regression.

    d_i <- d_i - g (g'd_i) / (g'g),   d_i = y_i - mean_t y_i,   g = mean_i d_i

    What is left sums to 0 over nodes at every time, which makes about half of all correlations negative: right when
    both sides are treated alike, no evidence of opposed networks. A recording without a global signal stays.

    Murphy, Birn, Handwerker, Jones & Bandettini 2009, doi:10.1016/j.neuroimage.2008.09.036.
    """

    def __call__(self, y: Array, period: float) -> Array:
        return remove_global(y)


class Steps(Preprocess):
    """Preprocessing steps, one after the other; `Summary(preprocess=[...])` makes them."""

    steps: tuple[Callable[..., Array], ...]

    def __call__(self, y: Array, period: float) -> Array:
        for step in self.steps:
            y = step(y, period) if isinstance(step, Preprocess) else jnp.asarray(step(y), y.dtype)
        return y

    def nodes(self, n: int) -> int:
        for step in self.steps:
            n = step.nodes(n) if isinstance(step, Preprocess) else n
        return n


def _names(labels: Sequence[object] | np.ndarray) -> tuple[str, ...]:
    found = tuple(map(str, labels))
    if isinstance(labels, str) or not found:
        raise ValueError(f'labels is {labels!r}; give one for each node, such as labels=["visual", "visual", "motor"]')
    return found


class parcellate(Preprocess):
    """Means over the nodes of each parcel.

    y_p(t) = mean of y_i(t) over nodes i with label p; parcels in the order in which they first appear. Features then
    have one node per parcel.

    Args:
        labels: the parcel of each node, `[N]`.

    >>> parcellate(labels=["a", "b", "a"]).nodes(3)
    2
    """

    labels: tuple[str, ...] = eqx.field(static=True, converter=_names)

    def __call__(self, y: Array, period: float) -> Array:
        self.nodes(y.shape[1])
        parcels = list(dict.fromkeys(self.labels))
        member = np.array([[label == parcel for parcel in parcels] for label in self.labels], dtype=float)
        return jnp.matmul(y, jnp.asarray(member / member.sum(axis=0), y.dtype), precision="highest")

    def nodes(self, n: int) -> int:
        if n != len(self.labels):
            raise ValueError(f"the recording has {n} nodes but labels has {len(self.labels)}; give one label per node")
        return len(set(self.labels))
