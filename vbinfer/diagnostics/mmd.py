"""Maximum mean discrepancy: a kernel two-sample statistic with its permutation test."""

import dataclasses
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.execute.batches import key_ints

_MOST = 2_000
_AT_ONCE = 100


@dataclasses.dataclass(frozen=True)
class MMD:
    """Result of `vb.mmd`.

    Attributes:
        statistic: unbiased estimate of MMD^2; near 0, also below it, for equal distributions.
        p_value: share of relabellings with a statistic at least as large, the observed one counted.
        bandwidth: length scale s of the kernel.
        null: statistics of the relabellings `[num_permutations]`.
    """

    statistic: float
    p_value: float
    bandwidth: float
    null: np.ndarray


def mmd(a: Any, b: Any, *, key: PRNGKey, bandwidth: float | None = None, num_permutations: int = 500) -> MMD:
    """Maximum mean discrepancy between two sets of rows, with a permutation test of "one distribution".

        MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j)
        k(u, v) = exp(-|u - v|^2 / (2 s^2)),   s the median distance of all pairs

    (the unbiased estimate). The p-value is exact whatever the distributions: (1 + #{null >= observed}) / (1 + B).

    Rows are taken as they are: give columns one scale first, or the largest decides. Blind to differences on scales
    far from s, and weak where one set is a row or two and the features are many. Sets of more than 2,000 rows are
    thinned to 2,000 at random.

    Args:
        a: rows `[n, F]`, at least 2.
        b: rows `[m, F]`, at least 2.
        key: decides the relabellings.
        bandwidth: s; None takes the median.
        num_permutations: relabellings B.

    Raises:
        ValueError: sets that are not `[n, F]` and `[m, F]` with two rows or more of finite numbers.

    Gretton, Borgwardt, Rasch, Schölkopf & Smola 2012, J. Mach. Learn. Res. 13, 723-773.

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> rng = np.random.default_rng(0)
        >>> found = vb.mmd(rng.normal(0.0, 1.0, (50, 2)), rng.normal(2.0, 1.0, (40, 2)), key=jax.random.key(0))
        >>> round(found.p_value, 3)
        0.002
    """
    key, count = _check.key(key), _check.count(num_permutations, "num_permutations", "500")
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0.0):
        raise ValueError(f"bandwidth={bandwidth!r} was given; expected a length above 0, or None for the median")
    rng = np.random.default_rng(key_ints(key))
    first, second = (_thinned(_rows(rows, name), rng) for rows, name in ((a, "a"), (b, "b")))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"a has {first.shape[1]} columns and b has {second.shape[1]}; give the same features in both")
    n, m = len(first), len(second)
    squared = _squared_distances(np.concatenate([first, second]))
    scale = float(bandwidth) if bandwidth is not None else _median_distance(squared)
    kernel = np.exp(-0.5 * squared / scale**2)
    np.fill_diagonal(kernel, 0.0)
    members = np.zeros((n + m, count + 1))
    members[:n, 0] = 1.0
    for i in range(1, count + 1):
        members[rng.permutation(n + m)[:n], i] = 1.0
    values = np.concatenate([_statistics(kernel, part, n, m) for part in _parts(members)])
    null = values[1:]
    # sums in another order differ in their last bits: a relabelling that gives the same sets counts as equal
    at_least = np.sum(null >= values[0] - 1e-12)
    return MMD(float(values[0]), float((1 + at_least) / (1 + count)), scale, null)


def _parts(members: np.ndarray) -> list[np.ndarray]:
    return [members[:, i : i + _AT_ONCE] for i in range(0, members.shape[1], _AT_ONCE)]


def _statistics(kernel: np.ndarray, members: np.ndarray, n: int, m: int) -> np.ndarray:
    """The statistic of each column of memberships: with 1' K 1 known, one product K L gives all three sums."""
    product = kernel @ members
    within, all_of = np.sum(members * product, axis=0), product.sum(axis=0)
    across = all_of - within
    others = kernel.sum() - within - 2.0 * across
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2.0 * across / (n * m)


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=0)
    norms = np.sum(rows**2, axis=1)
    return np.maximum(norms[:, None] + norms[None] - 2.0 * rows @ rows.T, 0.0)


def _median_distance(squared: np.ndarray) -> float:
    median = float(np.median(np.sqrt(squared[np.triu_indices(len(squared), 1)])))
    if median > 0.0:
        return median
    mean = float(np.sqrt(squared.mean()))
    return mean if mean > 0.0 else 1.0


def _rows(rows: Any, name: str) -> np.ndarray:
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"{name} has shape {list(values.shape)}; expected [n, F] with 2 rows or more")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite numbers; leave these rows out and say how many they were")
    return values


def _thinned(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= _MOST else rows[np.sort(rng.choice(len(rows), _MOST, replace=False))]
