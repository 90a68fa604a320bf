"""A classifier of pairs, refitted under every relabelling at once.

Kernel ridge regression on random Fourier features.
"""

from typing import NamedTuple

import numpy as np

_FEATURES = 400
_LENGTHS = (0.7, 1.5, 3.0)
_PENALTIES = 10.0 ** np.arange(-3.0, 3.5, 0.5)
_FOLDS = 5


class Fitted(NamedTuple):
    """Predictions under each of L labellings, the first the observed."""

    at: np.ndarray
    """2 d - 1 at the rows asked about `[m, L]`, within -1 to 1; d is the probability of the first class."""
    gain: np.ndarray
    """Weighted share of the labels' variance that held-out predictions explain `[L]`; negative for noise."""


def fit_labellings(
    first: np.ndarray, second: np.ndarray, at: np.ndarray, labels: np.ndarray, weights: np.ndarray,
    rng: np.random.Generator,
) -> Fitted:  # fmt: skip
    """Fit the classifier to every labelling.

    f(v) = 2 d(v) - 1 is fitted to +1 at the rows of one class and -1 at those of the other:

        f = argmin sum_i (s_i - f(v_i1))^2 + (-s_i - f(v_i2))^2 + lambda |f|^2

    f is a sum of cosines of random frequency (Rahimi & Recht 2007, NeurIPS), so that one eigendecomposition serves all
    labellings, where a network would be trained once for each. Length scale and lambda are chosen for each labelling by
    its own five-fold cross-validation over pairs: null and observed fits are treated alike, so ranks among them are
    exact.

    Args:
        first: rows of the first class `[n, V]`, scaled.
        second: rows of the second class, paired with them.
        at: rows to ask about `[m, V]`.
        labels: s, +1 where a pair is as given and -1 where its rows are swapped `[n, L]`.
        weights: of the pairs in `gain` `[n]`, summing to one.
        rng: frequencies and folds.
    """
    n, each, found = len(first), np.arange(labels.shape[1]), []
    fold = rng.permutation(n) % _FOLDS
    everything = np.concatenate([first, second])
    # the median distance of rows sets the unit of length scales (2,000 pairs estimate it)
    pairs = rng.integers(0, 2 * n, (2, 2_000))
    median = np.median(np.linalg.norm(everything[pairs[0]] - everything[pairs[1]], axis=1))
    # labels enter the right-hand side only, so everything of size features x features is made once per length,
    # and all L labellings are columns of one product
    for length in _LENGTHS:
        frequency = rng.normal(size=(first.shape[1], _FEATURES)) / (length * median)
        phase = rng.uniform(0.0, 2.0 * np.pi, _FEATURES)
        one, two, asked = (np.sqrt(2.0 / _FEATURES) * np.cos(v @ frequency + phase) for v in (first, second, at))
        losses, gains = _cross_validate(one, two, labels, weights, fold)
        chosen = losses.argmin(axis=0)
        values, vectors, target = _normal_equations(one, two, labels)
        coefficients = target / (values[:, None] + _PENALTIES[chosen] * n / 10.0)
        found.append((losses[chosen, each], gains[chosen, each], asked @ vectors @ coefficients))
    loss, gain, f = (np.stack(part) for part in zip(*found, strict=True))
    # each labelling keeps the length scale that its own cross-validation likes best
    best = loss.argmin(axis=0)
    return Fitted(np.clip(f[best, :, each].T, -1.0, 1.0), gain[best, each])


def _normal_equations(
    one: np.ndarray, two: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigen-decomposed Gram matrix, and right-hand sides in its coordinates."""
    # swapping the rows of a pair leaves the Gram matrix as it is and turns the sign of its target
    values, vectors = np.linalg.eigh(one.T @ one + two.T @ two)
    return np.maximum(values, 0.0), vectors, vectors.T @ ((one - two).T @ labels)


def _cross_validate(
    one: np.ndarray, two: np.ndarray, labels: np.ndarray, weights: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Error and weighted gain of held-out predictions, `[penalty, L]` each."""
    shape = (len(_PENALTIES), labels.shape[1])
    losses, gains = np.zeros(shape), np.zeros(shape)
    for k in range(_FOLDS):
        fitting, held = fold != k, fold == k
        # one decomposition for all penalties and labellings: only the division by (values + penalty) differs
        values, vectors, target = _normal_equations(one[fitting], two[fitting], labels[fitting])
        left, right, s = one[held] @ vectors, two[held] @ vectors, labels[held]
        for i, penalty in enumerate(_PENALTIES * fitting.sum() / 10.0):
            coefficients = target / (values + penalty)[:, None]
            a, b = left @ coefficients, right @ coefficients
            # (s - a)^2 + (-s - b)^2 = 2 - [2 s (a - b) - a^2 - b^2]
            explained = 2.0 * s * (a - b) - a**2 - b**2
            losses[i] -= explained.sum(axis=0)
            gains[i] += 0.5 * weights[held] @ explained
    return losses, gains
