"""Ranks of truths among posterior draws, and the normal scores that make every test of them exact."""

import numpy as np
from scipy.special import ndtri


def ranks(values: np.ndarray) -> np.ndarray:
    """Number of draws below the truth `[n]`, of values `[n, L + 1]` with the truth's first; ties count half, down."""
    below, equal = _counts(values)
    return below + equal // 2


def uniforms(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomised probability integral transform `[n]` of values `[n, L + 1]`, the truth's first.

        u = (#{draws < truth} + v (#{draws = truth} + 1)) / (L + 1),   v ~ U(0, 1)

    Exactly uniform on (0, 1) when truth and draws are exchangeable, for any L and with any ties; (r + 1/2) / (L + 1)
    would be uniform on a grid only.

    >>> values = np.array([[2.5, 1.0, 2.0, 3.0]])
    >>> bool(0.5 < uniforms(values, np.random.default_rng(0))[0] < 0.75)
    True
    """
    below, equal = _counts(values)
    v = np.clip(rng.random(len(values)), 1e-12, 1.0 - 1e-12)
    return (below + v * (equal + 1)) / values.shape[1]


def normal(u: np.ndarray) -> np.ndarray:
    """Normal scores s = Phi^-1(u): standard normal, and independent of x, under the null."""
    return ndtri(u)


def folded(u: np.ndarray) -> np.ndarray:
    """Normal scores of |2 u - 1|: large where the truth is far out, on either side; standard normal under the null."""
    return ndtri(np.clip(np.abs(2.0 * u - 1.0), 1e-300, 1.0 - 1e-16))


def _counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws below the truth and draws equal to it `[n]`, of values `[n, L + 1]` with the truth's first."""
    truth, draws = values[:, :1], values[:, 1:]
    return (draws < truth).sum(axis=1), (draws == truth).sum(axis=1)
