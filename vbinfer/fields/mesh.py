"""Triangle meshes: cotangent finite elements."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from jaxtyping import Array

from vbinfer._check import count
from vbinfer._names import PRNGKey
from vbinfer.fields import surfaces
from vbinfer.fields.base import AbstractDomain, as_array, exponential
from vbinfer.fields.bases import Modes
from vbinfer.fields.pairs import OnMesh
from vbinfer.fields.profiles import AbstractProfile, VonMises
from vbinfer.fields.rows import Rows, padded

MOST_PAIRS = 50_000_000
"""Connections of a kernel, about 1 GB of them."""
DENSE_MODES = 1000
"""Points up to which all modes are computed at once."""
MODES = 400
"""Modes of a larger mesh that are used unless asked for more."""
CHUNK = 256
"""Points whose distances are measured at once."""


class Mesh(AbstractDomain):
    """A triangulated surface.

    A vertex stands for a third of the area of each of its triangles. The Laplacian is that of linear finite elements
    with lumped areas (Pinkall & Polthier 1993, doi:10.1080/10586458.1993.10504266),

    (Laplacian x)_i = 1/area_i sum_j (cot a_ij + cot b_ij)/2 (x_j - x_i),   a, b the angles opposite of the edge ij

    self-adjoint under the areas and second order in the length of edges. Across a border there is no flux. Distances
    run along edges.

    Args:
        vertices: `[N, 3]`, mm.
        triangles: `[F, 3]`, numbers of vertices, counter-clockwise seen from outside.

    Raises:
        ValueError: the first fault found, by name: numbers that are not finite, triangles without area or turned round,
            vertices in no triangle or at the same place, edges with more than two triangles.

    >>> import vbinfer as vb
    >>> ball = vb.fields.Mesh.icosphere(3, radius=50.0)
    >>> ball.n_nodes, (ball.modes(4)[1] * 50.0**2).round(1).tolist()  # l(l+1)
    (642, [0.0, 2.0, 2.0, 2.0])
    """

    vertices: np.ndarray
    triangles: np.ndarray
    areas: Array
    rows: Rows
    conductance: Array
    """`[N, K]`, (cot a + cot b) / 2 area of each neighbour, 1/mm^2."""

    def __init__(self, vertices: Any, triangles: Any):
        self.vertices, self.triangles = _checked(vertices, triangles)
        stiffness, areas = self._elements()
        off = scipy.sparse.csr_matrix(scipy.sparse.triu(stiffness, 1) + scipy.sparse.tril(stiffness, -1))
        self.rows, values, _ = padded(scipy.sparse.diags(-1.0 / areas) @ off)
        self.areas, self.conductance = as_array(areas), as_array(values)

    @classmethod
    def icosphere(cls, order: int, radius: float = 100.0) -> "Mesh":
        """A sphere of 10 4^order + 2 vertices.

        Every order quarters the triangles of the icosahedron.
        """
        return cls(*surfaces.icosphere(order, radius))

    @classmethod
    def folded(cls, order: int, folds: int = 8, *, key: PRNGKey, depth: float = 0.1, radius: float = 100.0) -> "Mesh":
        """A sphere with random folds, for tests and examples.

        r = radius exp(depth f), f a random spherical harmonic of degree `folds`, 2^order at most, whose mean square
        over the sphere is 1.
        """
        return cls(*surfaces.folded(order, folds, depth, radius, key))

    @classmethod
    def from_file(cls, path: str | Path) -> "Mesh":
        """Read a surface of GIFTI, FreeSurfer or TVB.

        `*.surf.gii`, `lh.pial`, or a zip of vertices.txt and triangles.txt.
        """
        return cls(*surfaces.read(Path(path)))

    @property
    def positions(self) -> Any:
        return self.vertices

    @property
    def n_modes(self) -> int:
        return min(100, self.n_nodes)

    @property
    def most_modes(self) -> int:
        return self.n_nodes

    def _elements(self) -> tuple[Any, np.ndarray]:
        """Stiffness matrix (sparse `[N, N]`) and areas `[N]`."""
        n, corners = len(self.vertices), self.vertices[self.triangles]
        # of a triangle: the edge opposite of corner k lies between the other two
        a, b, c = (corners[:, (k + 1) % 3] - corners[:, k] for k in range(3))
        double = np.linalg.norm(np.cross(a, -c), axis=1)
        cot = [-(c * a).sum(1) / double, -(a * b).sum(1) / double, -(b * c).sum(1) / double]
        areas = np.bincount(self.triangles.ravel(), np.repeat(double / 6.0, 3), minlength=n)
        i, j, w = [], [], []
        for k in range(3):
            first, last = self.triangles[:, (k + 1) % 3], self.triangles[:, (k + 2) % 3]
            i += [first, last, first, last]
            j += [last, first, first, last]
            w += [-0.5 * cot[k], -0.5 * cot[k], 0.5 * cot[k], 0.5 * cot[k]]
        entries = np.concatenate(w), (np.concatenate(i), np.concatenate(j))
        return scipy.sparse.coo_matrix(entries, (n, n)).tocsr(), areas

    def modes(self, k: int) -> tuple[Array, Array]:
        """Eigenfunctions `[N, k]` and eigenvalues `[k]` of -Laplacian."""
        k = count(k, "k", 100, most=self.n_nodes)
        stiffness, areas = self._elements()
        n, root = len(areas), np.sqrt(areas)
        symmetric = scipy.sparse.diags(1.0 / root) @ stiffness @ scipy.sparse.diags(1.0 / root)
        if n <= DENSE_MODES or k > n // 3:
            values, vectors = np.linalg.eigh(symmetric.toarray())
            values, vectors = values[:k], vectors[:, :k]
        else:
            start = np.random.default_rng(0).standard_normal(n)
            # inverted below 0 by as much as the first eigenvalue of a sphere of this area: much closer, eigenvalue 0
            # would outweigh the others, and multiple ones be missed
            below = -8.0 * np.pi / areas.sum()
            values, vectors = scipy.sparse.linalg.eigsh(symmetric.tocsc(), k, sigma=below, v0=start)
            order = np.argsort(values)
            values, vectors = values[order], vectors[:, order]
        pieces = scipy.sparse.csgraph.connected_components(stiffness, directed=False)
        vectors[:, : min(k, pieces[0])] = _constants(root, *pieces)[:, :k]
        values = np.maximum(values, 0.0)
        values[: min(k, pieces[0])] = 0.0
        return as_array(vectors / root[:, None]), as_array(values)

    def edges(self) -> Any:
        """Lengths of edges, mm, sparse `[N, N]`."""
        ends = np.concatenate([self.triangles[:, [0, 1]], self.triangles[:, [1, 2]], self.triangles[:, [2, 0]]])
        ends = np.unique(np.sort(ends, axis=1), axis=0)
        length = np.linalg.norm(self.vertices[ends[:, 0]] - self.vertices[ends[:, 1]], axis=1)
        graph = scipy.sparse.coo_matrix((length, ends.T), (len(self.vertices),) * 2).tocsr()
        return graph + graph.T

    def distances_from(self, node: int) -> np.ndarray:
        return scipy.sparse.csgraph.dijkstra(self.edges(), indices=node)

    def laplace_weights(self) -> None:
        return None

    def laplacian(self, weights: None, x: Array) -> Array:
        return self.rows.differences(self.conductance, x)

    def heat_weights(self, s: Array) -> Array:
        return as_array(s)

    def heat(self, weights: Array, x: Array, stiffest: float, steps: int | None) -> Array:
        return exponential(lambda y: self.laplacian(None, y), x, weights, stiffest, steps)

    def stiffest(self) -> float:
        stiffness, areas = self._elements()
        root = scipy.sparse.diags(1.0 / np.sqrt(areas))
        symmetric = root @ stiffness @ root
        if len(areas) <= 64:
            return float(np.linalg.eigvalsh(symmetric.toarray())[-1])
        start = np.random.default_rng(0).standard_normal(len(areas))
        eigsh: Any = scipy.sparse.linalg.eigsh  # whose stubs want a whole number for tol
        return float(eigsh(symmetric, 1, v0=start, return_eigenvectors=False, tol=1e-6)[0])

    def basis(self, modes: int | None) -> Modes:
        n = self.n_nodes
        k = (n if n <= DENSE_MODES else MODES) if modes is None else count(modes, "modes", MODES, most=n)
        phi, eigenvalue = self.modes(k)
        return Modes(eigenvalue[:, None], phi, self.areas)

    def pairs(self, profile: AbstractProfile, cutoff: float | None) -> OnMesh:
        if isinstance(profile, VonMises):
            raise ValueError("VonMises is a profile on a Sphere; on a mesh write Gaussian(width=R / sqrt(kappa))")
        cutoff = float(profile.reach()) if cutoff is None else cutoff
        graph, found, total = self.edges(), [], 0
        for begin in range(0, self.n_nodes, CHUNK):
            nodes = np.arange(begin, min(begin + CHUNK, self.n_nodes))
            d = scipy.sparse.csgraph.dijkstra(graph, indices=nodes, limit=cutoff)
            row, column = np.nonzero(np.isfinite(d))
            total += len(row)
            if total > MOST_PAIRS:
                raise ValueError(
                    f"a kernel of reach {cutoff:.4g} mm connects over {MOST_PAIRS:,} pairs of vertices; "
                    "give a smaller cutoff=, in mm"
                )
            found.append((d[row, column], nodes[row], column))
        d, row, column = (np.concatenate(parts) for parts in zip(*found, strict=True))
        n = self.n_nodes
        return OnMesh(np.asarray(self.areas, float), scipy.sparse.coo_matrix((d + 1.0, (row, column)), (n, n)))


def _constants(root: np.ndarray, pieces: int, label: np.ndarray) -> np.ndarray:
    """Modes of eigenvalue 0, times the root of areas.

    The first is constant over all pieces.
    """
    flat = np.stack([np.ones(len(label)), *(1.0 * (label == p) for p in range(pieces - 1))], axis=1)
    q, r = np.linalg.qr(flat * root[:, None])
    return q * np.sign(np.diag(r))


def _checked(vertices: Any, triangles: Any) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles, or a ValueError that names the fault."""
    v, t = np.asarray(vertices, float), np.asarray(triangles)
    if v.ndim != 2 or v.shape[1] != 3 or t.ndim != 2 or t.shape[1] != 3 or not len(t):
        raise ValueError(f"vertices is {list(v.shape)} and triangles {list(t.shape)}; expected [N, 3] and [F, 3]")
    if t.dtype.kind not in "iu":
        raise ValueError(f"triangles has numbers of type {t.dtype}; expected whole numbers of vertices, from 0")
    if t.min() < 0 or t.max() >= len(v):
        off = t.min() if t.min() < 0 else t.max()
        raise ValueError(f"a triangle names vertex {off}; there are {len(v)}, 0 to {len(v) - 1}")
    if not np.isfinite(v).all():
        raise ValueError(f"vertex {np.argmin(np.isfinite(v).all(1))} is NaN or infinite; give finite places in mm")
    lonely = np.flatnonzero(np.bincount(t.ravel(), minlength=len(v)) == 0)
    if len(lonely):
        raise ValueError(f"{len(lonely)} vertices are in no triangle, the first is {lonely[0]}; leave them out")
    places, first = np.unique(v, axis=0, return_index=True)
    if len(places) < len(v):
        twice = np.setdiff1d(np.arange(len(v)), first)
        raise ValueError(f"vertex {twice[0]} lies where another one does; merge the {len(twice)} duplicates")
    a, b, c = v[t[:, 0]], v[t[:, 1]], v[t[:, 2]]
    double, longest = np.linalg.norm(np.cross(b - a, c - a), axis=1), ((b - a) ** 2 + (c - a) ** 2).sum(1)
    if (double <= 1e-12 * longest).any():
        raise ValueError(f"triangle {np.argmax(double <= 1e-12 * longest)} has no area; leave it out")
    _check_edges(len(v), t)
    if _borders(len(v), t) == 0 and (a * np.cross(b, c)).sum() < 0.0:
        raise ValueError("all triangles are turned round, normals point inwards; write triangles[:, ::-1]")
    return v, t.astype(np.int32)


def _check_edges(n: int, t: np.ndarray) -> None:
    """Raise ValueError unless edges run once each way."""
    tail, head = t.ravel().astype(np.int64), np.roll(t, -1, axis=1).ravel().astype(np.int64)
    either, many = np.unique(np.minimum(tail, head) * n + np.maximum(tail, head), return_counts=True)
    if many.max() > 2:
        at = either[np.argmax(many)]
        raise ValueError(
            f"the edge of vertices {at // n} and {at % n} is in {many.max()} triangles; expected one or two"
        )
    way, _, times = np.unique(tail * n + head, return_index=True, return_counts=True)
    if times.max() > 1:
        at = way[np.argmax(times)]
        one, other = np.flatnonzero(tail * n + head == at)[:2] // 3
        raise ValueError(
            f"triangles {one} and {other} run through the edge of vertices {at // n} and {at % n} the same way: one of "
            "them is turned round; reverse it, triangles[k] = triangles[k][::-1]"
        )
    if borders := _borders(n, t):
        warnings.warn(f"the surface has holes with {borders} border edges; no flux passes there", stacklevel=5)


def _borders(n: int, t: np.ndarray) -> int:
    """Number of edges with one triangle."""
    tail, head = t.astype(np.int64), np.roll(t, -1, axis=1).astype(np.int64)
    return int((np.unique(np.minimum(tail, head) * n + np.maximum(tail, head), return_counts=True)[1] == 1).sum())
