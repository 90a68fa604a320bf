"""Two-sample tests: do two sets of draws have one distribution?"""

import dataclasses
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.execute.batches import key_ints
from vbinfer.posterior import Posterior

_MOST_EPOCHS = 10_000
_FEWEST = 10
_MOST = 2_000
_AT_ONCE = 100


def c2st(a: Any, b: Any, *, seed: int = 1, folds: int = 5) -> float:
    """Classifier two-sample test: how well a network tells draws apart.

    Both sets are centred and scaled by the mean and sd of `a`; a network with two hidden layers of 10 D relu units is
    trained by Adam on all folds but one and judged on that one; the result is the mean accuracy over the folds. This
    is the test of the sbibm benchmark, of the same library and settings, so that numbers compare with those published.

    0.5: not told apart; 1: disjoint. For two unit normals at distance d the best possible accuracy is Phi(d / 2).
    By chance alone the accuracy of equal distributions varies by about sqrt(1 / (4 (n_a + n_b))), and it can fall
    below 0.5. Blind to whatever the network does not find: few draws (accuracy grows with n: compare at equal n only),
    thin heavy tails, details far smaller than the sd, and the direction of a mistake, which `vb.diagnostics.coverage`
    shows. The
    draws should be independent and equally many: with unequal numbers the larger share is the floor, not 0.5.

    Args:
        a: reference: a `vb.Posterior` (its chains together), or an array `[n, D]`.
        b: draws to be judged, likewise, over the same parameters.
        seed: of the folds and of the initial weights.
        folds: of the cross-validation.

    Returns:
        Mean accuracy, 0 to 1.

    Raises:
        TypeError: neither a posterior nor numbers.
        ValueError: other parameters, NaN or infinite draws, fewer than 10 draws, a constant column of `a`.

    Lopez-Paz & Oquab 2017, ICLR, doi:10.48550/arXiv.1610.06545; Lueckmann et al. 2021, AISTATS,
    doi:10.48550/arXiv.2101.04653.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> rng = np.random.default_rng(0)
        >>> vb.diagnostics.c2st(rng.normal(0.0, 1.0, (100, 2)), rng.normal(9.0, 1.0, (100, 2)))
        1.0
    """
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    first, second = _pair(a, b, ("the first set", "the second set"), _FEWEST)
    seed, folds = _check.count(seed, "seed", 1, least=0), _check.count(folds, "folds", 5)
    if not 2 <= folds <= min(len(first), len(second)):
        raise ValueError(f"folds={folds} was given for {len(first)} and {len(second)} draws; expected 2 or more: 5")
    centre, scale = first.mean(axis=0), first.std(axis=0, ddof=1)
    constant = np.flatnonzero(scale <= 0.0).tolist()
    if constant:
        raise ValueError(f"columns {constant} of the first set are constant; leave them out of both sets")
    rows = np.concatenate([(first - centre) / scale, (second - centre) / scale]).astype(np.float32)
    labels = np.repeat([0, 1], [len(first), len(second)])
    width = 10 * rows.shape[1]
    network = MLPClassifier((width, width), max_iter=_MOST_EPOCHS, random_state=seed)
    splits = KFold(folds, shuffle=True, random_state=seed)
    return float(np.mean(cross_val_score(network, rows, labels, cv=splits, scoring="accuracy")))


@dataclasses.dataclass(frozen=True)
class MMD:
    """Result of `vb.diagnostics.mmd`.

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
    """Maximum mean discrepancy of two sets of rows, permutation-tested.

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
        >>> a, b = rng.normal(0.0, 1.0, (50, 2)), rng.normal(2.0, 1.0, (40, 2))
        >>> found = vb.diagnostics.mmd(a, b, key=jax.random.key(0))
        >>> round(found.p_value, 3)
        0.002
    """
    key, count = _check.key(key), _check.count(num_permutations, "num_permutations", "500")
    if bandwidth is not None:
        bandwidth = _check.positive(bandwidth, "bandwidth", "None, the median distance,")
    rng = np.random.default_rng(key_ints(key))
    first, second = (_thinned(rows, rng) for rows in _pair(a, b, ("a", "b"), 2))
    n, m = len(first), len(second)
    squared = squareform(pdist(np.concatenate([first, second]), "sqeuclidean"))
    scale = _median_distance(squared) if bandwidth is None else bandwidth
    kernel = np.exp(-0.5 * squared / scale**2)
    # the unbiased estimate leaves out i = j
    np.fill_diagonal(kernel, 0.0)
    members = np.zeros((n + m, count + 1))
    members[:n, 0] = 1.0
    # each column is one relabelling: 1 for the rows of the first set
    for i in range(1, count + 1):
        members[rng.permutation(n + m)[:n], i] = 1.0
    parts = (members[:, i : i + _AT_ONCE] for i in range(0, count + 1, _AT_ONCE))
    values = np.concatenate([_statistics(kernel, part, n, m) for part in parts])
    null = values[1:]
    # sums in another order differ in their last bits: a relabelling that gives the same sets counts as equal
    at_least = np.sum(null >= values[0] - 1e-12)
    return MMD(float(values[0]), float((1 + at_least) / (1 + count)), scale, null)


def _statistics(kernel: np.ndarray, members: np.ndarray, n: int, m: int) -> np.ndarray:
    """Statistic of each column of memberships `[n + m, L]`."""
    # with 1' K 1 known, the one product K L gives all three sums
    product = kernel @ members
    within, all_of = np.sum(members * product, axis=0), product.sum(axis=0)
    # m' K m, m' K 1 - m' K m and the rest of 1' K 1 are the three sums
    across = all_of - within
    others = kernel.sum() - within - 2.0 * across
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2.0 * across / (n * m)


def _median_distance(squared: np.ndarray) -> float:
    median = np.median(np.sqrt(squared[np.triu_indices(len(squared), 1)]))
    # 0 where most rows are equal: the root mean square, which is 0 where all are
    return float(median or np.sqrt(squared.mean()) or 1.0)


def _thinned(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= _MOST else rows[np.sort(rng.choice(len(rows), _MOST, replace=False))]


def _pair(a: Any, b: Any, called: tuple[str, str], fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as rows of finite numbers."""
    if isinstance(a, Posterior) and isinstance(b, Posterior):
        if a.shapes != b.shapes:
            raise ValueError(f"the first posterior has {a.shapes}, the second {b.shapes}; give the same parameters")
        b = Posterior({name: b.theta[name] for name in a.theta})  # columns in one order
    first, second = _rows(a, called[0], fewest), _rows(b, called[1], fewest)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{called[0]} is [n, {first.shape[1]}], {called[1]} [n, {second.shape[1]}]; give the same columns in both"
        )
    return first, second


def _rows(draws: Any, which: str, fewest: int) -> np.ndarray:
    try:
        rows = np.asarray(draws.ravel() if isinstance(draws, Posterior) else draws, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{which} is a {type(draws).__name__}; expected a vb.Posterior or an array [n, D]") from error
    if rows.ndim != 2:
        raise ValueError(f"{which} has shape {list(rows.shape)}; expected [n, D]: write x[:, None] for one parameter")
    if len(rows) < fewest:
        raise ValueError(f"{which} has {len(rows)} draws; at least {fewest} are needed, and 1,000 to see much")
    if not np.isfinite(rows).all():
        raise ValueError(f"{which} holds NaN or infinite numbers; leave these draws out and say how many they were")
    return rows
