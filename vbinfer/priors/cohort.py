"""Matrices of a cohort: checked, transformed, as rows of edges."""

from collections.abc import Callable
from typing import Any

import numpy as np

FORWARD: dict[str | None, Callable[[Any], Any]] = {"log1p": np.log1p, "sqrt": np.sqrt, None: lambda w: w}
"""Transforms of weights."""
_ASYMMETRY = 1e-3
"""Of the largest edge of a subject; less is rounding."""
_ROUNDING = 1e-6


def upper_edges(values: Any, name: str, transform: str | None, may_miss: bool) -> tuple[np.ndarray, np.ndarray]:
    """Transformed upper triangles `[S, pairs]`, and the common diagonal.

    Raises:
        ValueError: see `ConnectomePrior.fit`.
    """
    w = np.asarray(values, dtype=np.float64)
    if w.ndim != 3 or w.shape[1] != w.shape[2] or not len(w) or w.shape[1] < 2:
        raise ValueError(f"{name} has shape {list(w.shape)}; expected [subject, node, node], one matrix per subject")
    rows, columns = np.triu_indices(w.shape[1], 1)
    upper, lower = w[:, rows, columns], w[:, columns, rows]
    if np.isinf(upper).any():
        raise ValueError(f"{name} holds infinite values in {_listed(np.isinf(upper).any(axis=1))}")
    missing = np.isnan(upper)
    if missing.any() and not may_miss:
        raise ValueError(
            f"{name} holds NaN in {_listed(missing.any(axis=1))}; leave them out, or give a mapping of views, "
            f'{{"sc": weights, "fc": ...}}, in which NaN throughout says that a subject lacks a view'
        )
    if (partly := missing.any(axis=1) & ~missing.all(axis=1)).any():
        raise ValueError(
            f"{name} holds NaN in some edges of {_listed(partly)}; a view is there or all NaN: fill them in, or leave "
            "these nodes out"
        )
    gap = np.nan_to_num(np.abs(upper - lower), nan=np.inf)
    gap[missing.all(axis=1)] = 0.0
    if (turned := gap.max(axis=1) > _ASYMMETRY * np.nanmax(np.abs(upper), initial=0.0)).any():
        raise ValueError(
            f"{name} is not symmetric in {_listed(turned)}; a prior is over the upper triangle: give (w + w.T) / 2"
        )
    if transform is not None and np.nanmin(upper, initial=0.0) < 0.0:
        raise ValueError(
            f"{name} is negative in {_listed((upper < 0.0).any(axis=1))}, down to {np.nanmin(upper):.3g}; "
            f"transform={transform!r} needs weights of at least 0: write transform=None"
        )
    diagonals = np.diagonal(w, axis1=1, axis2=2)[~missing.all(axis=1)]
    same = len(diagonals) > 0 and np.ptp(np.nan_to_num(diagonals), axis=0).max() <= _ROUNDING
    diagonal = np.nan_to_num(diagonals[0]) if same else np.zeros(w.shape[1])
    return FORWARD[transform](upper), diagonal


def check_subjects(x: np.ndarray) -> None:
    """Refuse cohorts from which nothing can be learned."""
    if len(x) < 2:
        raise ValueError(f"a prior over connectomes needs two subjects or more; {len(x)} was given")
    missing = np.isnan(x)
    if (none := missing.all(axis=1)).any():
        raise ValueError(f"{_listed(none)} has no view at all; leave such subjects out")
    if (unseen := (~missing).sum(axis=0) < 2).any():
        raise ValueError(f"{int(unseen.sum())} edges are seen in fewer than two subjects; leave that view out")
    if not (np.nanmax(x, axis=0) > np.nanmin(x, axis=0)).any():
        raise ValueError("the subjects are all alike: there is nothing to learn from them")


def _listed(which: Any, most: int = 8) -> str:
    index = np.flatnonzero(which)
    more = f" and {len(index) - most} more" if len(index) > most else ""
    return f"subject{'s' * (len(index) > 1)} {', '.join(map(str, index[:most]))}{more}"
