"""Tests of all parameters together.

Highest-density regions, pairs, and distances from random points.
"""

import itertools

import numpy as np

from vbinfer.diagnostics.calibration.held_out import HeldOut, uniforms
from vbinfer.diagnostics.calibration.marginal import location, shape
from vbinfer.diagnostics.calibration.tests import RawTest

MOST_PAIRS = 45
HPD, TARP, DEPENDENCE = "HPD", "TARP", "dependence"


def hpd_tests(held: HeldOut) -> list[RawTest]:
    """Location and shape of the HPD ranks."""
    return _two(held.joint, HPD)


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


def tarp_tests(held: HeldOut) -> list[RawTest]:
    """Location and shape of the coverage fractions."""
    return _two(held.nearer, TARP)


def _two(u: np.ndarray, what: str) -> list[RawTest]:
    return [location(u, "joint", f"{what} location"), shape(u, "joint", f"{what} shape")]


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
