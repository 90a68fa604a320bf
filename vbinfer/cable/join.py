"""Several cells as one model."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import AbstractLaw
from vbinfer.cable.events import SpikeTrain
from vbinfer.cable.geometry import Compartments

if TYPE_CHECKING:
    from vbinfer.cable.cell import Cell


def join(cells: Sequence["Cell"]) -> "Cell":
    """Many cells, one model.

    Sites are `"0.soma"`, `"1.soma"`, ... Regions and channels keep their names: where cells have the same region, each
    channel there is one mechanism of all of them, and its parameters are arrays with one value per compartment, in the
    order of the cells, unless all agree on a number.

    Raises:
        ValueError: cells whose receptors, `cvar` or `settle` differ, or a channel that one of two cells with a region
            lacks there.

    >>> import vbinfer as vb
    >>> cell = vb.cable.Cell(vb.cable.single(), {"soma": vb.cable.HH()}, sites={"soma": 0})
    >>> pair = vb.cable.join([cell, vb.bind(cell, {"soma.hh.g_k": 0.05})])
    >>> pair.labels, [round(g, 3) for g in vb.paths(pair)["soma.hh.g_k"].value.tolist()]
    (('0.soma', '1.soma'), [0.036, 0.05])
    """
    cells = list(cells)
    if not cells:
        raise ValueError("join was given no cell; write vb.cable.join([cell_a, cell_b])")
    first, comp = cells[0], joined_compartments([cell.comp for cell in cells])
    for what in ("cvar", "settle", "rows_of"):
        for k, cell in enumerate(cells):
            if getattr(cell, what) != getattr(first, what):
                name = "receptors" if what == "rows_of" else what
                raise ValueError(
                    f"cell {k} has {name} {getattr(cell, what)!r}, cell 0 {getattr(first, what)!r}; cells of one model "
                    "share them (a synapse that a cell lacks has no weight there)"
                )
    per_compartment, per_site = [cell.comp.n for cell in cells], [cell.n_nodes for cell in cells]
    merged = {
        name: _merged([getattr(cell, name) for cell in cells], sizes)
        for name, sizes in (
            *((name, per_compartment) for name in ("capacitance", "axial_resistivity", "radius_scale", "v_init")),
            ("threshold", per_site),
        )
    }
    receptors = {name: _alike([cell.receptors[name] for cell in cells], per_site) for name in first.rows_of}
    offsets = np.concatenate([[0], np.cumsum(per_site)])
    clamps = [
        dataclasses.replace(cell.clamps[key], at=int(offsets[k] + site))
        for k, cell in enumerate(cells)
        for key, _, site in cell.held
    ]
    events = {
        f"{k}_{name}": SpikeTrain(e.times, e.weights, receptor=e.receptor, at=int(offsets[k] + cell.site_number(e.at)))
        for k, cell in enumerate(cells)
        for name, e in cell.events.items()
    }
    return type(first)(
        comp,
        _channels(cells),
        sites=_sites(cells),
        receptors=receptors,
        events=events,
        clamps=tuple(clamps),
        cvar=first.cvar,
        settle=first.settle,
        **merged,
    )


def joined_compartments(parts: Sequence[Compartments]) -> Compartments:
    """Compartments of several cells, one after the other."""
    first = np.concatenate([[0], np.cumsum([one.n for one in parts])])
    begin = np.concatenate([[0], np.cumsum([len(one.sections) for one in parts])])
    column = lambda name: np.concatenate([getattr(one, name) for one in parts])  # noqa: E731
    parent = [np.where(one.parent < 0, -1, one.parent + k) for one, k in zip(parts, first[:-1], strict=True)]
    section = [one.section + k for one, k in zip(parts, begin[:-1], strict=True)]
    sections = [
        dataclasses.replace(s, parent=None if s.parent is None else int(s.parent + k))
        for one, k in zip(parts, begin[:-1], strict=True)
        for s in one.sections
    ]
    arrays = {name: column(name) for name in ("at", "length", "radius", "area", "loads")}
    region = tuple(name for one in parts for name in one.region)
    return Compartments(
        parent=np.concatenate(parent),
        section=np.concatenate(section),
        region=region,
        sections=tuple(sections),
        **arrays,
    )


def _sites(cells: Sequence["Cell"]) -> Any:
    """Names and compartments of all sites."""
    if all(cell.labels is None for cell in cells):
        return "all"
    found, first = {}, 0
    for k, cell in enumerate(cells):
        names = cell.labels or tuple(map(str, range(cell.comp.n)))
        found |= {f"{k}.{name}": int(first + i) for name, i in zip(names, cell.sites.index, strict=True)}
        first += cell.comp.n
    return found


def _channels(cells: Sequence["Cell"]) -> dict[str, list[Any]]:
    """Channels of all cells by region."""
    found: dict[str, list[Any]] = {}
    order = dict.fromkeys((one.region, one.label) for cell in cells for one in cell.mechanisms)
    for region, label in order:
        parts, sizes = [], []
        for k, cell in enumerate(cells):
            if region != "all" and region not in cell.comp.regions:
                continue
            channel = cell.channels.get(region, {}).get(label)
            if channel is None:
                raise ValueError(
                    f"cell {k} has no {label!r} in its region {region!r}, another cell has; name the regions "
                    "differently, or give it one of conductance 0"
                )
            place = cell.comp.of(region)
            parts.append(_without_laws(channel, cell.comp.distance[place]))
            sizes.append(len(place))
        found.setdefault(region, []).append(_alike(parts, sizes))
    return found


def _without_laws(channel: Any, distance: np.ndarray) -> Any:
    """The channel with distance laws evaluated."""
    is_law = lambda leaf: isinstance(leaf, AbstractLaw)  # noqa: E731
    like = jnp.zeros(len(distance))
    return jax.tree.map(lambda a: a.value(distance, like) if is_law(a) else a, channel, is_leaf=is_law)


def _alike(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """One module of several of a class."""
    structures = {jax.tree.structure(one) for one in parts}
    if len(structures) > 1:
        names = ", ".join(sorted({type(one).__name__ for one in parts}))
        raise ValueError(f"cells of one model have the same kind in one place, with the same options; got {names}")
    return jax.tree.map(lambda *leaves: _merged(leaves, sizes), *parts)


def _merged(leaves: Sequence[Array], sizes: Sequence[int]) -> Array:
    """A number where all agree, else an array over all."""
    if all(leaf.ndim == 0 for leaf in leaves) and len({float(leaf) for leaf in leaves}) == 1:
        return leaves[0]
    return jnp.concatenate([jnp.broadcast_to(leaf, (n,)) for leaf, n in zip(leaves, sizes, strict=True)])
