"""Delay and polynomial embeddings of recordings."""

from typing import Any, NamedTuple

import numpy as np

from vbinfer import _check


class Embedded(NamedTuple):
    """Columns of an embedding.

    Attributes:
        values: `[T - (lags - 1) every, K]`; row k belongs to sample k + (lags - 1) every.
        names: what each column is, such as "x0", "x1(t-2)", "x0^2 x1".
    """

    values: np.ndarray
    names: tuple[str, ...]


def embed(y: Any, lags: int = 1, *, every: int = 1, degree: int | None = None) -> Embedded:
    """Delay vectors of a recording, and monomials of them.

    (y_t, y_{t - every}, ..., y_{t - (lags - 1) every}), the channels of each lag together (Takens 1981,
    doi:10.1007/BFb0091924). With a degree all monomials of these columns up to it, the constant first, binom(d + k, k)
    for d columns and degree k: the design of np.linalg.lstsq(embedded.values, derivative).

    Args:
        y: recording `[T, N]`, or `[T]`.
        lags: samples in a vector, the present one included.
        every: samples between two of them.
        degree: highest degree of the monomials; None gives the delay vectors alone.

    Raises:
        ValueError: gaps, too few samples for the lags.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> embedded = vb.explore.embed(np.arange(6.0), lags=2, every=2, degree=2)
        >>> embedded.names
        ('1', 'x0', 'x0(t-2)', 'x0^2', 'x0 x0(t-2)', 'x0(t-2)^2')
        >>> embedded.values[0].tolist()
        [1.0, 2.0, 0.0, 4.0, 0.0, 0.0]
    """
    from sklearn.preprocessing import PolynomialFeatures

    y = np.asarray(y, float)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or not y.shape[1]:
        raise ValueError(f"y has shape {list(y.shape)}; expected [T, N], or [T] for one channel")
    if not np.isfinite(y).all():
        raise ValueError("y holds NaN or infinite numbers; cut the gaps, and embed what lies between them")
    lags, every = _check.count(lags, "lags", 3), _check.count(every, "every", 1)
    back = every * np.arange(lags)
    if (needed := int(back[-1]) + 1) > len(y):
        raise ValueError(f"y has {len(y)} samples; lags={lags} with every={every} needs at least {needed}")
    vectors = np.concatenate([y[back[-1] - k : len(y) - k] for k in back], axis=1)
    names = [f"x{i}" + (f"(t-{k})" if k else "") for k in back for i in range(y.shape[1])]
    if degree is None:
        return Embedded(vectors, tuple(names))
    monomials = PolynomialFeatures(_check.count(degree, "degree", 2)).fit(vectors)
    return Embedded(np.asarray(monomials.transform(vectors)), tuple(monomials.get_feature_names_out(names).tolist()))
