"""Are two sets of draws from one distribution: the classifier two-sample test."""

from typing import Any

import numpy as np

from vbinfer.posterior import Posterior

_MOST_EPOCHS = 10_000
_FEWEST = 10


def c2st(a: Any, b: Any, *, seed: int = 1, folds: int = 5) -> float:
    """Classifier two-sample test (C2ST): how well a network tells draws of one distribution from those of another.

    Both sets are centred and scaled by the mean and sd of `a`; a network with two hidden layers of 10 D relu units is
    trained by Adam on all folds but one and judged on that one; the result is the mean accuracy over the folds. This
    is the test of the sbibm benchmark, of the same library and settings, so that numbers compare with those published.

    0.5: not told apart; 1: disjoint. For two unit normals at distance d the best possible accuracy is Phi(d / 2).
    By chance alone the accuracy of equal distributions varies by about sqrt(1 / (4 (n_a + n_b))), and it can fall
    below 0.5. Blind to whatever the network does not find: few draws (accuracy grows with n: compare at equal n only),
    thin heavy tails, details far smaller than the sd, and the direction of a mistake, which `vb.coverage` shows. The
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
        >>> vb.c2st(rng.normal(0.0, 1.0, (100, 2)), rng.normal(9.0, 1.0, (100, 2)))
        1.0
    """
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    first, second = _pair(a, b)
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


def _pair(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(a, Posterior) and isinstance(b, Posterior):
        if a.shapes != b.shapes:
            raise ValueError(f"the first posterior has {a.shapes}, the second {b.shapes}; give the same parameters")
        b = Posterior({name: b.theta[name] for name in a.theta})  # columns in one order
    first, second = _rows(a, "the first set"), _rows(b, "the second set")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"the first set is [n, {first.shape[1]}], the second [n, {second.shape[1]}]; give the same parameters"
        )
    return first, second


def _rows(draws: Any, which: str) -> np.ndarray:
    try:
        rows = np.asarray(draws.ravel() if isinstance(draws, Posterior) else draws, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{which} is a {type(draws).__name__}; expected a vb.Posterior or an array [n, D]") from error
    if rows.ndim != 2:
        raise ValueError(f"{which} has shape {list(rows.shape)}; expected [n, D]: write x[:, None] for one parameter")
    if len(rows) < _FEWEST:
        raise ValueError(f"{which} has {len(rows)} draws; at least {_FEWEST} are needed, and 1,000 to see much")
    if not np.isfinite(rows).all():
        raise ValueError(f"{which} holds NaN or infinite numbers; leave these draws out and say how many they were")
    return rows
