"""Morphologies in SWC files, with the geometry of NEURON's import3d."""

import math
import warnings
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vbinfer import _check
from vbinfer.cable.geometry import Compartments, Section, divide

NAMES = {1: "soma", 2: "axon", 3: "dend", 4: "apic"}
SOMA = 1
D_LAMBDA_HZ = 100.0
"""Frequency at which `d_lambda` measures the length constant."""


class Morphology(NamedTuple):
    """A tree of sections, root first.

    Parents come before their children.
    """

    sections: tuple[Section, ...]


class _Points(NamedTuple):
    """Points in the order of the file."""

    kind: list[int]
    place: np.ndarray
    """um, `[point, 3]`."""
    radius: np.ndarray
    children: list[list[int]]
    root: int


def read_swc(path: str | Path) -> Morphology:
    """Read a morphology.

    The geometry is that of NEURON's import3d. The unbranched run of soma points from the root is one section, whatever
    leaves it; a soma of one point, and of three points in the way of NeuroMorpho, is a cylinder of length and diameter
    2 r. What leaves the soma hangs on its beginning, its end, or else its middle. A section begins with the last point
    of its parent, at the ends of a soma with its own first radius, in the middle of one with its own first point. A
    branching or another type ends a section.

    Types 1 to 4 become the regions soma, axon, dend and apic, any other k `type_<k>`, with a warning.

    Args:
        path: an SWC file: lines `number type x y z radius parent`, um.

    Raises:
        ValueError: no root or several, a cycle, a parent that is not there, a radius that is not positive; the message
            names the line.
    """
    points = _linked(*_parsed(Path(path).read_text(), str(path)), str(path))
    return Morphology(tuple(_sections(points)))


def compartments(
    morphology: Morphology,
    *,
    max_length: float | None = None,
    d_lambda: float | None = None,
    per_section: int | None = None,
    axial_resistivity: float = 100.0,
    capacitance: float = 1.0,
) -> Compartments:
    """Compartments of a morphology, by one of three rules.

    Args:
        morphology: from `read_swc`.
        max_length: the longest compartment, um.
        d_lambda: the longest as a share of the length constant at 100 Hz, an odd number in each section as in NEURON.
        per_section: as many in every section.
        axial_resistivity, capacitance: Ohm cm and uF/cm2, for `d_lambda`.

    Raises:
        ValueError: no rule, or several.
    """
    if not isinstance(morphology, Morphology):
        raise TypeError(
            f'compartments was given {morphology!r}; write compartments(vb.cable.read_swc("cell.swc"), ...)'
        )
    rules = {"max_length": max_length, "d_lambda": d_lambda, "per_section": per_section}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{given or 'nothing'} was given; give one of max_length=20.0, d_lambda=0.1, per_section=4")
    sections = morphology.sections
    if per_section is not None:
        counts = [_check.count(per_section, "per_section", 4)] * len(sections)
    elif max_length is not None:
        longest = _check.positive(max_length, "max_length", 20.0, "um")
        counts = [max(1, math.ceil(one.length / longest * (1.0 - 1e-12))) for one in sections]
    else:
        share = _check.positive(d_lambda, "d_lambda", 0.1)
        resistivity = _check.positive(axial_resistivity, "axial_resistivity", 100.0, "Ohm cm")
        farads = _check.positive(capacitance, "capacitance", 1.0, "uF/cm2")
        lengths = [_electrotonic(one, resistivity, farads) for one in sections]
        counts = [int((length / share + 0.9) / 2.0) * 2 + 1 for length in lengths]
    return divide(sections, counts)


def _electrotonic(one: Section, resistivity: float, capacitance: float) -> float:
    """Length of a section in length constants at 100 Hz."""
    arc, diameter = one.arc, 2.0 * one.radii
    scale = math.sqrt(2.0) * 1e-5 * math.sqrt(4.0 * math.pi * D_LAMBDA_HZ * resistivity * capacitance)
    return scale * float(np.sum(np.diff(arc) / np.sqrt(diameter[1:] + diameter[:-1])))


def _parsed(text: str, where: str) -> tuple[np.ndarray, list[int]]:
    """Rows of numbers, and their lines."""
    rows, lines = [], []
    for k, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words[:7]])
        except ValueError:
            raise ValueError(f"{where}, line {k}: {line.strip()!r} has what is no number") from None
        if len(words) < 7:
            raise ValueError(f"{where}, line {k}: {line.strip()!r}; expected: number type x y z radius parent")
        lines.append(k)
    if not rows:
        raise ValueError(f"{where} has no point; expected lines: number type x y z radius parent")
    return np.array(rows), lines


def _linked(rows: np.ndarray, lines: list[int], where: str) -> _Points:
    """Points with their children, from the root on."""
    number, parent = rows[:, 0].astype(int).tolist(), rows[:, 6].astype(int).tolist()
    row_of = {n: k for k, n in enumerate(number)}
    if len(row_of) < len(number):
        twice = next(n for n in number if number.count(n) > 1)
        raise ValueError(f"{where}: point {twice} occurs twice; numbers must differ")
    bad = np.flatnonzero(~(rows[:, 5] > 0.0))
    if len(bad):
        raise ValueError(f"{where}, line {lines[bad[0]]}: radius {rows[bad[0], 5]:g}; a radius is positive, in um")
    roots = [k for k, p in enumerate(parent) if p < 0]
    if len(roots) != 1:
        which = ", ".join(str(number[k]) for k in roots)
        raise ValueError(
            f"{where} has {len(roots)} roots ({which or 'every point has a parent'}); a cell has one, with parent -1: "
            "give the others a parent, or make one file of each"
        )
    children: list[list[int]] = [[] for _ in number]
    for k, p in enumerate(parent):
        if p >= 0:
            if p not in row_of:
                raise ValueError(f"{where}, line {lines[k]}: parent {p} is no point of the file")
            children[row_of[p]].append(k)
    reached, queue = set(roots), deque(roots)
    while queue:
        reached.update(own := children[queue.popleft()])
        queue.extend(own)
    if len(reached) < len(number):
        inside = next(n for k, n in enumerate(number) if k not in reached)
        raise ValueError(f"{where}: point {inside} is its own ancestor; the parents make a cycle")
    kind = rows[:, 1].astype(int).tolist()
    strange = sorted(set(kind) - set(NAMES))
    if strange:
        names = ", ".join(f"type_{k}" for k in strange)
        warnings.warn(
            f"{where}: {sum(k in strange for k in kind)} points are of types {strange}, outside 1 to 4; they become "
            f"the regions {names}",
            stacklevel=3,
        )
    return _Points(kind, rows[:, 2:5], rows[:, 5], children, roots[0])


def _sections(points: _Points) -> list[Section]:
    """Sections, near ones first."""
    run, round_soma = _root_run(points)
    found = [_root_section(points, run, round_soma)]
    middle = round_soma or (len(run) == 1 and points.kind[run[0]] == SOMA)
    queue: deque[tuple[int, int, int, float]] = deque()  # first point, point it leaves, section, where on it

    def leave(section: int, run: list[int], at: float | None) -> None:
        where = {p: 0.5 for p in run} | {run[-1]: 1.0} | {run[0]: 0.0} if at is None else dict.fromkeys(run, at)
        queue.extend(sorted((c, p, section, where[p]) for p in run for c in points.children[p] if c not in run))

    leave(0, run, 0.5 if middle else None)
    while queue:
        first, left, parent, at = queue.popleft()
        own = _run(points, first)
        found.append(_section(points, own, left, parent, at))
        leave(len(found) - 1, own, 1.0)
    return found


def _run(points: _Points, first: int) -> list[int]:
    """Points up to a branching or another type."""
    run = [first]
    while len(own := points.children[run[-1]]) == 1 and points.kind[own[0]] == points.kind[first]:
        run.append(own[0])
    return run


def _root_run(points: _Points) -> tuple[list[int], bool]:
    """Points of the first section; whether it has three."""
    root, kind = points.root, points.kind[points.root]
    alike = lambda p: [c for c in points.children[p] if points.kind[c] == kind]  # noqa: E731
    if kind != SOMA:
        return [root, *(_run(points, own[0]) if (own := alike(root)) else [])], False
    if len(alike(root)) == 2 and not any(alike(c) for c in alike(root)):
        return [root, *alike(root)], True
    run = [root]
    while len(own := alike(run[-1])) == 1:
        run.append(own[0])
    return run, False


def _root_section(points: _Points, run: list[int], round_soma: bool) -> Section:
    region, r = _region(points.kind[run[0]]), float(points.radius[run[0]])
    if round_soma or len(run) == 1:
        ends = points.place[run[0]] + r * np.array([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
        return Section(np.array([0.0, 2.0 * r]), np.array([r, r]), None, 1.0, region, ends)
    return _along(points.place[run], points.radius[run], None, 1.0, region)


def _section(points: _Points, run: list[int], left: int, parent: int, at: float) -> Section:
    """A section that leaves a point of its parent."""
    place, radius = points.place[run], points.radius[run]
    of_soma = points.kind[left] == SOMA
    if at != 0.5 or len(run) == 1:
        start = radius[0] if of_soma else points.radius[left]
        place, radius = np.concatenate([points.place[[left]], place]), np.concatenate([[start], radius])
    return _along(place, radius, parent, at, _region(points.kind[run[0]]))


def _along(place: np.ndarray, radius: np.ndarray, parent: int | None, at: float, region: str) -> Section:
    steps = np.linalg.norm(np.diff(place, axis=0), axis=1)
    moved = np.concatenate([[True], steps > 0.0])  # a point twice adds no length
    if not moved[1:].any():
        raise ValueError(f"a section of region {region!r} has no length: its points are one, at {place[0].tolist()} um")
    arc = np.concatenate([[0.0], np.cumsum(steps)])
    return Section(arc[moved], radius[moved], parent, at, region, place[moved])


def _region(kind: int) -> str:
    return NAMES.get(kind, f"type_{kind}")
