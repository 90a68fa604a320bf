"""Compartments of a neuron.

Sizes, regions and who hangs on whom.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer._param import did_you_mean
from vbinfer.io.fingerprint import checksum


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """An unbranched stretch: radius along its length."""

    arc: np.ndarray
    """Positions of its points from the beginning, um, increasing; the first is 0."""
    radii: np.ndarray
    """Radius at these points, um; linear in between."""
    parent: int | None
    """The section that it hangs on; None for the root."""
    at: float
    """Where on the parent: 0 its beginning, 1 its end, 0.5 the centre of its middle compartment."""
    region: str
    points: np.ndarray | None = None
    """Where these points lie, um, `[point, 3]`, if that is known; for drawings."""

    @property
    def length(self) -> float:
        """um."""
        return float(self.arc[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Compartments:
    """Compartments of one neuron or several.

    They come in the order of their sections.

    A compartment is a cable of constant potential: current flows from centre to centre through the two halves that lie
    between, and through the junction where several sections meet, which has no capacitance.

    It is fixed when a `Cell` is built: `radius_scale`, `capacitance` and `axial_resistivity` are the parameters.

    >>> import vbinfer as vb
    >>> comp = vb.cable.cylinder(length=100.0, radius=1.0, n=4)
    >>> comp.n, comp.parent.tolist(), comp.site("dend", 0.5)
    (4, [-1, 0, 1, 2], 2)
    """

    parent: np.ndarray
    """The compartment that each hangs on, `[n]`; -1 for a root."""
    at: np.ndarray
    """Where on it, `[n]`: 1 its end, 0 its beginning, 0.5 its centre."""
    length: np.ndarray
    """um, `[n]`."""
    radius: np.ndarray
    """um, `[n]`: that of the cylinder with this area and length."""
    area: np.ndarray
    """Lateral area, um2, `[n]`."""
    loads: np.ndarray
    """integral of dx / (pi r^2) from the beginning to the centre, and from there to the end, 1/um, `[n, 2]`."""
    section: np.ndarray
    """Number of the section, `[n]`."""
    region: tuple[str, ...]
    """Name of the region of each compartment."""
    sections: tuple[Section, ...]
    """What they were cut from."""

    @property
    def n(self) -> int:
        """Number of compartments."""
        return len(self.parent)

    @functools.cached_property
    def regions(self) -> dict[str, np.ndarray]:
        """Region to its compartments; they share none."""
        names = np.array(self.region)
        return {name: np.flatnonzero(names == name) for name in dict.fromkeys(self.region)}

    def of(self, region: str) -> np.ndarray:
        """The compartments of a region, or of "all".

        Raises:
            ValueError: a region without compartments.
        """
        if region == "all":
            return np.arange(self.n)
        if region not in self.regions:
            raise ValueError(f"region {region!r} has no compartment. {did_you_mean(region, [*self.regions, 'all'])}")
        return self.regions[region]

    def site(self, region: str, x: float = 0.5, section: int = 0) -> int:
        """The compartment at a relative position of a section.

        Args:
            region: name of a region.
            x: from 0, the beginning of the section, to 1, its end.
            section: which of the region's sections.

        Raises:
            ValueError: an unknown region, a position outside [0, 1], a section that the region does not have.
        """
        inside = self.of(region)
        if not 0.0 <= _check.number(x, "x", 0.5) <= 1.0:
            raise ValueError(f"x={x!r} was given; expected a position on the section, from 0 to 1, such as x=0.5")
        sections = list(dict.fromkeys(self.section[inside].tolist()))
        if not 0 <= section < len(sections):
            raise ValueError(f"section={section!r} was given; region {region!r} has {len(sections)}, from 0")
        own = inside[self.section[inside] == sections[section]]
        return int(own[min(int(x * len(own)), len(own) - 1)])

    @functools.cached_property
    def distance(self) -> np.ndarray:
        """Path length from the root to each compartment, `[n]` um."""
        found = np.zeros(self.n)
        for i, p in enumerate(self.parent):
            if p >= 0:  # a parent always comes first
                found[i] = found[p] + 0.5 * self.length[i] + (0.0 if self.at[i] == 0.5 else 0.5 * self.length[p])
        return found

    def coarser(self) -> "Compartments":
        """One compartment per section, the same regions.

        A cheap version of the cell, with the same parameters.
        """
        return divide(self.sections, [1] * len(self.sections))

    @functools.cached_property
    def _digest(self) -> str:
        arrays = ("parent", "at", "length", "radius", "area", "loads", "section", "region")
        return checksum({name: np.asarray(getattr(self, name)) for name in arrays})

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compartments) and self._digest == other._digest

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}: {len(index)}" for name, index in self.regions.items())
        return f"Compartments({self.n}; {parts})"


def _check_radii(radius: Any, what: str) -> tuple[float, ...]:
    given = tuple(radius) if isinstance(radius, Sequence | np.ndarray) else (radius,)
    if not given or len(given) > 2:
        raise ValueError(f"{what}={radius!r} was given; expected a radius in um, or one at either end, (2.0, 0.5)")
    radii = tuple(_check.positive(r, what, 1.0, "um") for r in given)
    return radii if len(radii) == 2 else radii * 2


def single(length: float = 10.0, radius: float = 1.0, region: str = "soma") -> Compartments:
    """One cylindrical compartment.

    Args:
        length, radius: um.
        region: its name.

    >>> single(length=20.0, radius=10.0).area.round(3).tolist()
    [1256.637]
    """
    return cylinder(length, radius, 1, region)


def cylinder(length: float, radius: Any, n: int, region: str = "dend") -> Compartments:
    """An unbranched cable of `n` compartments of equal length.

    Args:
        length: um.
        radius: um; two values are those at the ends, linear in between.
        n: number of compartments.
        region: its name.
    """
    return sections([{"length": length, "radius": radius, "n": n, "parent": None, "region": region}])


def sections(given: Sequence[Mapping[str, Any]]) -> Compartments:
    """Compartments of a tree of sections.

    Args:
        given: of each section `length` (um), `radius` (um, or that of both ends), `n` compartments, `parent` (the
            number of an earlier section, None for the root: a section starts where its parent ends), `region`.

    Raises:
        ValueError: no root or several, a parent that does not come first, sizes that are not positive.

    >>> import vbinfer as vb
    >>> soma = {"length": 20.0, "radius": 10.0, "n": 1, "parent": None, "region": "soma"}
    >>> dend = {"length": 300.0, "radius": (2.0, 0.5), "n": 5, "parent": 0, "region": "dend"}
    >>> vb.cable.sections([soma, dend])
    Compartments(6; soma: 1, dend: 5)
    """
    known = {"length", "radius", "n", "parent", "region"}
    found, counts = [], []
    for k, one in enumerate(given):
        for name in one:
            if name not in known:
                raise ValueError(f"section {k} names {name!r}. {did_you_mean(str(name), known)}")
        lacking = sorted({"length", "radius"} - set(one))
        if lacking:
            raise ValueError(f"section {k} lacks {lacking[0]!r}; write {{'length': 100.0, 'radius': 1.0, 'n': 5, ...}}")
        length = _check.positive(one["length"], "length", 100.0, "um")
        parent = one.get("parent")
        if parent is not None:
            _check.count(parent, "parent", 0, least=0)
        radii, region = _check_radii(one["radius"], "radius"), str(one.get("region", "dend"))
        found.append(Section(np.array([0.0, length]), np.array(radii), parent, 1.0, region))
        counts.append(_check.count(one.get("n", 1), "n", 5))
    roots = [k for k, one in enumerate(found) if one.parent is None]
    if len(roots) != 1:
        raise ValueError(
            f"{len(roots)} sections have no parent (numbers {roots}); a cell has one root: give the others a parent, "
            "or make cells of their own and join them with vb.cable.join"
        )
    return divide(found, counts)


def divide(given: Sequence[Section], counts: Sequence[int]) -> Compartments:
    """Sections cut into compartments of equal length.

    Raises:
        ValueError: a parent that does not come first.
    """
    first = np.concatenate([[0], np.cumsum(counts)])
    parent, at, rows, section, region = [], [], [], [], []
    for k, (one, n) in enumerate(zip(given, counts, strict=True)):
        if one.parent is not None and not 0 <= one.parent < k:
            raise ValueError(f"section {k} has parent {one.parent}; a parent comes before its children")
        parent += [_hangs_on(one, first, counts), *range(first[k], first[k + 1] - 1)]
        at += [one.at, *[1.0] * (n - 1)]
        rows += [_measure(one, i / n, (i + 1) / n) for i in range(n)]
        section += [k] * n
        region += [one.region] * n
    length, area, before, after = np.array(rows).T
    radius = area / (2.0 * np.pi * length)
    loads = np.stack([before, after], axis=1)
    place = (np.array(parent), np.array(at), length, radius, area, loads, np.array(section), tuple(region))
    return Compartments(*place, tuple(given))


def _hangs_on(one: Section, first: np.ndarray, counts: Sequence[int]) -> int:
    """The compartment that the first of a section hangs on."""
    if one.parent is None:
        return -1
    n = counts[one.parent]
    return int(first[one.parent]) + {0.0: 0, 0.5: n // 2, 1.0: n - 1}[one.at]


def _measure(one: Section, begin: float, end: float) -> tuple[float, float, float, float]:
    """Length, area and both loads of part of a section."""
    a, b = begin * one.length, end * one.length
    centre = 0.5 * (a + b)
    area_1, load_1 = _frusta(one, a, centre)
    area_2, load_2 = _frusta(one, centre, b)
    return b - a, area_1 + area_2, load_1, load_2


def _frusta(one: Section, a: float, b: float) -> tuple[float, float]:
    """Lateral area and axial load between two positions.

    The load is the integral of dx / (pi r^2).
    """
    arc, radii = one.arc, one.radii
    inner = arc[(arc > a) & (arc < b)]
    x = np.concatenate([[a], inner, [b]])
    r = np.interp(x, arc, radii)
    dx = np.diff(x)
    area = np.pi * (r[1:] + r[:-1]) * np.hypot(dx, np.diff(r))
    return math.fsum(area), math.fsum(dx / (np.pi * r[1:] * r[:-1]))
