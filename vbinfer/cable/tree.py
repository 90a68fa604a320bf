"""Currents along a tree of compartments, and its linear system.

Unknowns are the potentials of compartments and of junctions, where sections meet without capacitance:

    (e_i + sum_j 1 / R_ij) x_i - sum_j x_j / R_ij = b_i

A branch is replaced by what it is to the rest of the tree, as in a circuit: a conductance e in series with R is
e / (1 + R e). Nothing is subtracted, so that float32 loses no digits however strong the axial currents are.
"""

import functools
import itertools
from collections import deque
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer.cable.geometry import Compartments

BLOCK = 96
"""Empty slots that are borne rather than another block."""
UNROLLED = 64
"""Slots of levels up to which the program of a solve is straight-line code."""


class Halves(NamedTuple):
    """The pieces of cable that an edge is made of."""

    edge: np.ndarray
    compartment: np.ndarray
    load: np.ndarray


class Block(NamedTuple):
    """Levels of elimination that follow each other, all `[level, slot]`.

    The last slot of every level is empty. A node of more than two branches gathers them by wires, nodes without
    resistance, so that each slot has at most two on the next level.

        level 0         level 1         level 2
        centre --R1---- a ------R2----- c
               \\--R3---- b
    """

    node: np.ndarray
    """Number of the node, that of nodes for none."""
    edge: np.ndarray
    """The edge towards the centre, the number of edges for none."""
    left: np.ndarray
    right: np.ndarray
    """Slots of the branches on the next level."""
    parent: np.ndarray
    """Slot on the level before."""

    @property
    def width(self) -> int:
        """Number of slots."""
        return self.node.shape[1]


class Levels(NamedTuple):
    """Order of elimination, leaves of the tree last.

    A tree is narrow here and wide there, and a table of all levels mostly empty: blocks are each as wide as they need.
    """

    blocks: tuple[Block, ...]
    filled: tuple[int, ...]
    """Number of slots taken on the last level of each block."""
    slot: np.ndarray
    """Where the nodes stand in all blocks, flattened, `[node]`."""


class Tree:
    """Graph of compartments and junctions."""

    def __init__(self, comp: Compartments):
        ends: dict[tuple[int, float], list[int]] = {}
        for child, (parent, at) in enumerate(zip(comp.parent.tolist(), comp.at.tolist(), strict=True)):
            if parent >= 0:
                ends.setdefault((parent, at), []).append(child)
        self.n, self.nodes = comp.n, comp.n
        pairs: list[tuple[int, int]] = []
        halves: list[tuple[int, int, float]] = []
        touches: list[tuple[int, int, int]] = []  # junction, edge, compartment

        def edge(a: int, b: int, *parts: tuple[int, float]) -> None:
            halves.extend((len(pairs), i, load) for i, load in parts)
            pairs.append((a, b))

        for (p, at), children in ends.items():
            own = [] if at == 0.5 else [(p, float(comp.loads[p, int(at)]))]
            if at == 0.5 or len(children) == 1:
                for c in children:
                    edge(c, p, (c, float(comp.loads[c, 0])), *own)
                continue
            junction, self.nodes = self.nodes, self.nodes + 1
            for i, part in [(p, own[0]), *((c, (c, float(comp.loads[c, 0]))) for c in children)]:
                touches.append((junction - comp.n, len(pairs), i))
                edge(i, junction, part)
        self.pairs = np.array(pairs, int).reshape(-1, 2)
        columns = np.array(halves, float).reshape(-1, 3).T
        self.halves = Halves(columns[0].astype(int), columns[1].astype(int), columns[2])
        self.touches = np.array(touches, int).reshape(-1, 3)

    @property
    def junctions(self) -> int:
        """Number of junctions."""
        return self.nodes - self.n

    @functools.cached_property
    def levels(self) -> Levels:
        """Order of elimination, from the centre of every cell."""
        return _levels(self.nodes, self.pairs)

    def potentials(self, V: Array, R: Array) -> Array:
        """Potentials of all nodes, `[node, ...batch]`.

        No current is left at a junction: its potential is a weighted mean of those around it.
        """
        if not self.junctions:
            return V
        junction, edge, compartment = self.touches.T
        _, first = np.unique(junction, return_index=True)
        base = V[compartment[first]]
        g = 1.0 / R[edge]
        zero = jnp.zeros((self.junctions, *V.shape[1:]), V.dtype)
        pull = zero.at[junction].add(g * (V[compartment] - base[junction]))
        return jnp.concatenate([V, base + pull / zero.at[junction].add(jnp.broadcast_to(g, (len(edge), *V.shape[1:])))])

    def axial(self, V: Array, R: Array) -> Array:
        """Current into every compartment from its neighbours, nA."""
        if not len(self.pairs):
            return jnp.zeros_like(V)
        return self._flow(self.potentials(V, R), R)[: self.n]

    def _flow(self, x: Array, R: Array) -> Array:
        a, b = self.pairs.T
        flow = (x[b] - x[a]) / R
        return jnp.zeros_like(x).at[a].add(flow).at[b].add(-flow)

    def leaving(self, V: Array, R: Array) -> Array:
        """Conductance from every compartment to its neighbours, uS."""
        if not len(self.pairs):
            return jnp.zeros_like(V)
        G = jnp.broadcast_to(1.0 / R, (len(self.pairs), *V.shape[1:]))
        total = jnp.zeros((self.nodes, *V.shape[1:]), V.dtype)
        total = total.at[self.pairs[:, 0]].add(G).at[self.pairs[:, 1]].add(G)
        if self.junctions:  # beyond a junction lies what its other edges conduct
            junction, edge, compartment = self.touches.T
            total = total.at[compartment].add(-(G[edge] ** 2) / total[self.n + junction])
        return total[: self.n]

    def solve(self, e: Array, b: Array, R: Array) -> Array:
        """x of the linear system, `[n, ...batch]`.

        Differentiable in all arguments: the system is symmetric, its derivative the same system again.

        Args:
            e: conductance of every compartment to the outside, positive, `[n, ...batch]`.
            b: current into it, `[n, ...batch]`.
            R: resistance of every edge, `[edge]` or `[edge, ...batch]`.
        """
        if not len(self.pairs):
            return b / e
        rest = jnp.zeros((self.junctions, *b.shape[1:]), b.dtype)
        e, b = (jnp.concatenate([jnp.broadcast_to(a, b.shape), rest]) for a in (e, b))
        matvec = lambda x: e * x - self._flow(x, R)  # noqa: E731
        eliminate = lambda _, b: self._eliminate(e, b, R)  # noqa: E731
        return jax.lax.custom_linear_solve(matvec, b, eliminate, symmetric=True)[: self.n]

    def _eliminate(self, e: Array, b: Array, R: Array) -> Array:
        blocks, filled, slot = self.levels
        table = lambda a, index: jnp.concatenate([a, jnp.zeros_like(a[:1])])[index]  # noqa: E731
        unroll = sum(block.node.size for block in blocks) <= UNROLLED

        def inwards(branches: Any, row: Any) -> Any:
            (e, b), (e_own, b_own, R, left, right) = branches, row
            e, b = e_own + (e[left] + e[right]), b_own + (b[left] + b[right])
            share = 1.0 / (1.0 + R * e)
            return (e * share, b * share), (share, R * b * share)

        def outwards(x: Array, row: Any) -> Any:
            share, own, parent = row
            x = own + share * x[parent]
            return x, x

        none = jnp.zeros((1, *b.shape[1:]), b.dtype)
        carried, kept = (none, none), []
        for block, taken in zip(reversed(blocks), (0, *reversed(filled)), strict=False):
            carried = tuple(_widened(a, taken, block.width) for a in carried)
            rows = (table(e, block.node), table(b, block.node), table(R, block.edge), block.left, block.right)
            carried, found = jax.lax.scan(inwards, carried, rows, reverse=True, unroll=unroll)
            kept.append(found)
        (e, b), x, found = carried, none, []
        centre = b / jnp.where(e == 0.0, 1.0, e)  # empty slots hold none
        for k, (block, (share, own)) in enumerate(zip(blocks, reversed(kept), strict=True)):
            x = centre if k == 0 else _widened(x, filled[k - 1], block.width)
            begin = 1 if k == 0 else 0
            x, xs = jax.lax.scan(outwards, x, (share[begin:], own[begin:], block.parent[begin:]), unroll=unroll)
            found += [centre] if k == 0 else []
            found.append(xs.reshape(-1, *b.shape[1:]))
        return jnp.concatenate(found)[slot]


def _widened(a: Array, taken: int, width: int) -> Array:
    """Taken slots, and empty ones up to a width."""
    return jnp.concatenate([a[:taken], jnp.zeros((width - taken, *a.shape[1:]), a.dtype)])


def _walk(start: int, near: list[list[tuple[int, int]]]) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """Nodes from near to far, and how each is reached."""
    reached, order, queue = {start: (-1, -1)}, [], deque([start])
    while queue:
        a = queue.popleft()
        order.append(a)
        for b, k in near[a]:
            if b not in reached:
                reached[b] = (a, k)
                queue.append(b)
    return order, reached


def _centre(start: int, near: list[list[tuple[int, int]]]) -> int:
    """The middle of the longest path around a node."""
    order, reached = _walk(_walk(start, near)[0][-1], near)
    path = [order[-1]]
    while (before := reached[path[-1]][0]) >= 0:
        path.append(before)
    return path[len(path) // 2]


def _levels(nodes: int, pairs: np.ndarray) -> Levels:
    near: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
    for k, (a, b) in enumerate(pairs.tolist()):
        near[a].append((b, k))
        near[b].append((a, k))
    roots, reached, order, seen = [], {}, [], set()
    for node in range(nodes):
        if node not in seen:
            roots.append(_centre(node, near))
            own, by = _walk(roots[-1], near)
            order += own
            seen.update(own)
            reached |= by
    branches = _binary(nodes, order, reached)
    rows, row = [], [(root, 0) for root in roots]  # node, slot of its parent
    while row:
        rows.append(row)
        row = [(child, slot) for slot, (node, _) in enumerate(row) for child in branches.get(node, [])]
    counts, blocks, slot, before = [len(row) for row in rows], [], np.zeros(nodes, int), 0
    cuts = _cuts(counts)
    for begin, end in itertools.pairwise(cuts):
        width = _width(counts, begin, end)
        none = (nodes, len(pairs), width - 1, width - 1, width - 1)
        blocks.append(block := Block(*(np.full((end - begin, width), fill) for fill in none)))
        for d, row in enumerate(rows[begin:end]):
            taken = 0
            for place, (node, parent) in enumerate(row):
                block.parent[d, place] = parent
                for side in (block.left, block.right)[: len(branches.get(node, []))]:
                    side[d, place], taken = taken, taken + 1
                if node < nodes:  # the others are wires
                    block.node[d, place], slot[node] = node, before + d * width + place
                    if reached[node][1] >= 0:
                        block.edge[d, place] = reached[node][1]
        before += block.node.size
    return Levels(tuple(blocks), tuple(counts[end - 1] for end in cuts[1:]), slot)


def _width(counts: list[int], begin: int, end: int) -> int:
    """Slots of a block and of the levels beside it."""
    return max(counts[max(begin - 1, 0) : end + 1]) + 1


def _cuts(counts: list[int]) -> list[int]:
    """Where blocks begin, with few empty slots; the end."""
    best, since = [0], [0]
    for end in range(1, len(counts) + 1):
        cost = [best[k] + BLOCK + (end - k) * _width(counts, k, end) for k in range(end)]
        best.append(min(cost))
        since.append(cost.index(best[-1]))
    cuts = [len(counts)]
    while cuts[-1]:
        cuts.append(since[cuts[-1]])
    return cuts[::-1]


def _binary(nodes: int, order: list[int], reached: dict[int, tuple[int, int]]) -> dict[int, list[int]]:
    """Branches of every node, at most two.

    Further ones are gathered by wires, the shortest first.
    """
    children: dict[int, list[int]] = {}
    height: dict[int, int] = {}
    wire = nodes
    for node in reversed(order):
        own = sorted(children.get(node, []), key=lambda c: height[c])
        while len(own) > 2:
            children[wire], height[wire] = own[:2], 1 + height[own[1]]
            own = sorted([*own[2:], wire], key=lambda c: height[c])
            wire += 1
        children[node], height[node] = own, 1 + max((height[c] for c in own), default=0)
        if reached[node][0] >= 0:
            children.setdefault(reached[node][0], []).append(node)
    return children


@functools.lru_cache(maxsize=64)
def tree_of(comp: Compartments) -> Tree:
    """The graph of these compartments, made once."""
    return Tree(comp)
