"""Tests of all parameters together.

Highest-density regions, pairs, and distances from random points.
"""

import itertools

import numpy as np

from vbinfer.diagnostics.calibration.held_out import HeldOut
from vbinfer.diagnostics.calibration.marginal import location, shape, uniforms
from vbinfer.diagnostics.calibration.tests import RawTest

MOST_PAIRS = 45
HPD, TARP, DEPENDENCE = "HPD", "TARP", "dependence"


def hpd_uniforms(held: HeldOut) -> np.ndarray:
    """Ranks u `[n]` of the truth's density.

    1 - u is the credibility of the smallest highest-density region that holds the truth.
    A source without a density is ranked by minus the Mahalanobis distance in the mean and covariance over truth and
    draws together, for which highest-density regions are ellipses.
    """
    values = held.log_q if held.log_q is not None else -_mahalanobis(held)
    return uniforms(values, held.rng("hpd"))


def hpd_tests(held: HeldOut, u: np.ndarray) -> list[RawTest]:
    """Location and shape of the HPD ranks."""
    return [location(u, "joint", f"{HPD} location"), shape(u, "joint", f"{HPD} shape")]


def pair_tests(held: HeldOut) -> list[RawTest]:
    """Ranks of products of deviations, for posterior correlations.

    (theta_i - m_i)(theta_j - m_j), with m the mean over truth and draws.
    All pairs up to 45; beyond, the 45 pairs whose posterior correlation is largest on average.
    """
    # deviations from a mean that includes the truth treat truth and draws alike
    pooled, rng = held.pooled, held.rng("pairs")
    centred = pooled - pooled.mean(axis=1, keepdims=True)
    rows = []
    for i, j in _pairs(centred):
        u = uniforms(centred[:, :, i] * centred[:, :, j], rng)
        rows.append(location(u, f"{held.names[i]} x {held.names[j]}", DEPENDENCE))
    return rows


def tarp_uniforms(held: HeldOut) -> np.ndarray:
    """Share `[n]` of draws nearer to random points.

    Nearer than the truth is.

    Distances are in units of the prior's sd.
    The reference of one data set is the truth of another, in a random cycle through all of them: it is spread as the
    prior is and knows nothing of this data set.
    """
    rng, (mean, sd) = held.rng("tarp"), held.scale()
    # a cycle: no data set is its own reference, and each is one once
    order = rng.permutation(len(held))
    reference = np.empty_like(order)
    reference[order] = np.roll(order, 1)
    at = (held.truth[reference] - mean) / sd
    # squared distances rank as distances do
    distance = (((held.pooled - mean) / sd - at[:, None]) ** 2).sum(axis=2)
    return uniforms(distance, rng)


def tarp_tests(held: HeldOut, f: np.ndarray) -> list[RawTest]:
    """Location and shape of the coverage fractions."""
    return [location(f, "joint", f"{TARP} location"), shape(f, "joint", f"{TARP} shape")]


def _pairs(centred: np.ndarray) -> list[tuple[int, int]]:
    d = centred.shape[2]
    every = list(itertools.combinations(range(d), 2))
    if len(every) <= MOST_PAIRS:
        return every
    # correlations within each data set, averaged: pairs that are never tied are left out
    unit = centred / np.maximum(np.sqrt((centred**2).mean(axis=1, keepdims=True)), 1e-300)
    # over data sets together, truth and draws alike: a symmetric choice does not spoil the ranks
    rows = unit.reshape(-1, d)
    size = np.abs(rows.T @ rows)
    return sorted(every, key=lambda pair: -size[pair])[:MOST_PAIRS]


def _mahalanobis(held: HeldOut) -> np.ndarray:
    """Squared Mahalanobis distances of truth and draws.

    They are `[n, L + 1]`.
    Their covariance has a small ridge.
    """
    result = []
    for rows in held.pooled:
        centred = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-300)
        cov = centred.T @ centred / len(centred) + 1e-6 * np.eye(rows.shape[1])
        result.append((centred * np.linalg.solve(cov, centred.T).T).sum(axis=1))
    return np.stack(result)
