"""Rows of a calibration table: a statistic, its p-value, its share of the false-alarm rate, what it could detect."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize as so
import scipy.stats as st

WARN, FAIL = 0.05, 0.001
"""Adjusted p below which a study warns, and below which it fails."""
POWER = 0.9


class Raw(NamedTuple):
    """One test before it is adjusted for the others."""

    quantity: str
    parameter: str
    statistic: float
    p: float
    kind: str
    """`mean`, `spread`, `shape`, `regression`: which formula gives the power."""
    n: int
    dof: int = 1
    """Regressors of a regression."""


class TestRow(NamedTuple):
    """One test of a calibration study."""

    __test__ = False  # the name is no invitation to pytest

    quantity: str
    """`location`, `width`, `shape`, `location given x`, `width given x`, `dependence`, `HPD ...`, `TARP ...`."""
    parameter: str
    """Flattened name, a pair of them, or `joint`."""
    statistic: float
    p: float
    p_adjusted: float
    """Holm's, over all tests of the study."""
    light: str
    """`pass`, `warn` (adjusted p < 0.05) or `fail` (< 0.001)."""
    detects: str
    """What this test finds with 90 % probability at this n and this many tests. Shifts are in sds of the score, which
    for `location` is the posterior's sd."""


def adjust(raw: Sequence[Raw]) -> tuple[TestRow, ...]:
    """Holm's step-down adjustment: the chance that a right posterior gets any row below 0.05 is at most 5 %.

    >>> [round(row.p_adjusted, 3) for row in adjust([Raw("shape", "g", 0.1, p, "shape", 99) for p in (0.01, 0.04)])]
    [0.02, 0.04]
    """
    p = np.array([row.p for row in raw])
    if np.isnan(p).any():
        row = raw[int(np.flatnonzero(np.isnan(p))[0])]
        raise ValueError(f"the test of {row.quantity} of {row.parameter} has no p-value; its numbers are not finite")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    level = WARN / len(p)
    known = {shape: detects(*shape, level) for shape in {(row.kind, row.n, row.dof) for row in raw}}
    return tuple(
        TestRow(row.quantity, row.parameter, row.statistic, row.p, float(q), _light(q), known[row.kind, row.n, row.dof])
        for row, q in zip(raw, adjusted, strict=True)
    )


def verdict(rows: Sequence[TestRow]) -> str:
    """The worst light."""
    lights = {row.light for row in rows}
    return "fail" if "fail" in lights else "warn" if "warn" in lights else "pass"


def detects(kind: str, n: int, dof: int, level: float) -> str:
    """What a test of n scores at a two-sided `level` finds with 90 % probability, in words."""
    if kind == "mean":
        shift = (st.norm.isf(level / 2) + st.norm.isf(1 - POWER)) / np.sqrt(n)
        return f"a shift of {shift:.2f} sd"
    if kind == "spread":
        # scores of a posterior whose sd is c times the right one have sd 1 / c
        narrow = np.sqrt(st.chi2.ppf(1 - POWER, n) / st.chi2.isf(level / 2, n))
        wide = np.sqrt(st.chi2.ppf(POWER, n) / st.chi2.ppf(level / 2, n))
        return f"an sd {100 * (1 - narrow):.0f} % too small or {100 * (wide - 1):.0f} % too large"
    if kind == "shape":
        # Massart's bound with the constant 2 of Dvoretzky, Kiefer & Wolfowitz
        gap = np.sqrt(np.log(2 / level) / (2 * n)) + st.norm.isf(1 - POWER) * 0.5 / np.sqrt(n)
        return f"an ECDF {gap:.2f} off"
    return f"{100 * _share(n, dof, level):.0f} % of the score's variance told by x"


def _share(n: int, dof: int, level: float) -> float:
    """R^2 in the population at which an F-test with `dof` regressors has the wanted power."""
    rest = n - 1 - dof
    critical = st.f.isf(level, dof, rest)
    power = lambda nc: st.ncf.sf(critical, dof, rest, nc) - POWER  # noqa: E731
    high = 10.0
    while power(high) < 0:
        high *= 2.0
    nc = float(np.asarray(so.brentq(power, 1e-6, high)))
    return nc / (nc + n)


def _light(p: float) -> str:
    return "fail" if p < FAIL else "warn" if p < WARN else "pass"
