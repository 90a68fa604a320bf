"""Recordings, checked for fits of linear models."""

from typing import Any

import numpy as np


def checked_recording(y: Any, least: int) -> np.ndarray:
    """A recording `[T, N]` in float64, long enough.

    Raises:
        ValueError: another shape, gaps, too few samples, channels that are constant or follow from others.
    """
    y = np.asarray(y, np.float64)
    if y.ndim != 2 or not y.shape[1]:
        raise ValueError(f"y has shape {list(y.shape)}; expected [T, N], y[:, None] for one channel")
    if not np.isfinite(y).all():
        bad = np.flatnonzero(~np.isfinite(y).all(axis=0))
        raise ValueError(f"y holds NaN or infinite numbers in channels {bad[:9].tolist()}; cut them, or fill the gaps")
    T, N = y.shape
    if least > T:
        raise ValueError(f"y has {T} samples of {N} channels; this fit needs at least {least}: record longer")
    sd = y.std(axis=0)
    if (flat := np.flatnonzero(sd <= 1e-12 * np.abs(y).max(axis=0))).size:
        raise ValueError(f"the covariance of y is singular: channels {flat[:9].tolist()} are constant; leave them out")
    if (rank := np.linalg.matrix_rank((y - y.mean(axis=0)) / sd, tol=1e-9 * np.sqrt(T))) < N:
        raise ValueError(
            f"the covariance of y is singular: {N} channels have rank {rank}, as after an average reference or a "
            f"global regression; leave out channels, or fit {rank} principal components"
        )
    return y
