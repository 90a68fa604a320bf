"""The connectome: who is connected to whom, how strongly and over which distance."""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer._param import Parametrised, did_you_mean, param
from vbinfer.io import archive as _archive
from vbinfer.network import tvb_zip

_NORMALISATIONS = ("max", "strength", "row", "spectral")


def _as_labels(labels: Iterable[object] | None) -> tuple[str, ...] | None:
    if isinstance(labels, str):
        raise TypeError(f"labels is the string {labels!r}; give one name per node, ('{labels}', ...)")
    return None if labels is None else tuple(str(label) for label in labels)


def _as_centres(centres: Any) -> Array | None:
    return None if centres is None else jnp.asarray(centres, dtype=jnp.result_type(float))


def _listed(matrix: Any) -> tuple[np.ndarray, Any]:
    """`[2, edge]`, row and column, and the values of the entries of a sparse matrix of JAX (BCOO) or SciPy."""
    if getattr(getattr(matrix, "indices", None), "ndim", 1) == 2:
        indices = np.asarray(matrix.indices).T
        inside = (indices < np.asarray(matrix.shape)[:, None]).all(axis=0)  # BCOO fills up with entries outside
        return indices[:, inside], matrix.data[inside]
    listed = matrix.tocoo()
    return np.stack([listed.row, listed.col]), listed.data


class Connectome(Parametrised):
    """A weighted, directed network of N nodes with the lengths of its tracts.

    The input of node i is `sum_j weights[i, j] * ...` of node j: rows receive, columns send. The signal from j
    reaches i after `tract_lengths[i, j] / speed` ms where the simulator has delays.

    A sparse network keeps its E connections only: the leaves `weights` and `tract_lengths` are then `[edge]`, in the
    order of `edges`. It is made by `from_edges`, by `sparse()`, or by giving weights as a sparse matrix, BCOO (JAX) or
    any of SciPy's; simulations give the same numbers as with the dense one, in time and memory proportional to E.

    Args:
        weights: `[node, node]`, signed or not, symmetric or not; no unit of its own (`normalise` gives it a scale).
        tract_lengths: `[node, node]` in mm, not negative. `np.zeros_like(weights)` if there are no delays.
        speed: conduction speed in mm/ms (= m/s).
        labels: one name per node.
        centres: `[node, 3]` in mm, for pictures only.

    Raises:
        ValueError: sizes that disagree, NaN or infinite entries, negative lengths, a speed that is not positive.

    Example:
        >>> import vbinfer as vb
        >>> network = vb.Connectome([[0.0, 2.0], [1.0, 0.0]], [[0.0, 30.0], [30.0, 0.0]], labels=("V1", "M1"))
        >>> network.n_nodes, float(network.weights[0, 1])      # from M1 into V1
        (2, 2.0)
    """

    weights: Array = param(axes=("node", "node"), doc="weights[i, j] from node j into node i; [edge] if sparse")
    tract_lengths: Array = param(
        unit="mm", low=0.0, axes=("node", "node"), doc="tract_lengths[i, j] from node j to node i"
    )
    speed: Array = param(3.0, unit="mm/ms", low=0.0, doc="conduction speed of the tracts")
    labels: tuple[str, ...] | None = eqx.field(static=True, default=None, converter=_as_labels)
    centres: Array | None = eqx.field(default=None, converter=_as_centres)
    edges: Array | None = eqx.field(default=None)
    """`[2, edge]`, receiver and sender of every connection; None in a dense network."""
    size: int | None = eqx.field(static=True, default=None)
    """Number of nodes of a sparse network; None in a dense one."""

    def __init__(
        self,
        weights: Any,
        tract_lengths: Any,
        speed: Any = 3.0,
        labels: Iterable[object] | None = None,
        centres: Any = None,
        *,
        edges: Any = None,
        size: int | None = None,
    ):
        if hasattr(weights, "todense"):
            shape, size = tuple(weights.shape), weights.shape[0]
            edges, weights = _listed(weights)
            lengths = np.asarray(tract_lengths.todense() if hasattr(tract_lengths, "todense") else tract_lengths)
            if shape != (size, size) or lengths.shape != shape:
                raise ValueError(
                    f"weights is {list(shape)} and tract_lengths is {list(lengths.shape)}; both must be [node, node]"
                )
            tract_lengths = lengths[edges[0], edges[1]]
        if (edges is None) != (size is None):
            raise ValueError("edges and size go together; write Connectome.from_edges(..., n_nodes=...)")
        self.weights, self.tract_lengths, self.speed = weights, tract_lengths, speed
        self.labels, self.centres, self.size = labels, centres, size  # type: ignore[assignment]  (converted)
        self.edges = None if edges is None else jnp.asarray(edges, jnp.int32)

    @property
    def n_nodes(self) -> int:
        """The number of nodes."""
        return self.weights.shape[0] if self.size is None else self.size

    @property
    def pair_rank(self) -> int:
        """Number of axes that a connection has in `weights`: 2 in a dense network, 1 in a sparse one."""
        return 2 if self.edges is None else 1

    @property
    def strength(self) -> Array:
        """sum_j weights_ij, `[N]`; `[N, B]` where weights have a batch axis."""
        return self.weights.sum(axis=1) if self.edges is None else self.gathered(self.weights)

    def received(self, weights: Array, sent: Array) -> Array:
        """sum_j w_ij sent_j for weights laid out as this network's, with or without a batch axis; sent `[N, ...]`."""
        if self.edges is not None:
            from_j = sent[self.edges[1]]
            return self.gathered((weights[:, None] if weights.ndim < from_j.ndim else weights) * from_j)
        return jnp.einsum("ijb,jb->ib", weights, sent) if weights.ndim == 3 else weights @ sent

    def gathered(self, by_edge: Array) -> Array:
        """Sums over the connections into each node: `[edge, ...]` to `[N, ...]`."""
        assert self.edges is not None
        return jax.ops.segment_sum(by_edge, self.edges[0], num_segments=self.n_nodes)

    def sparse(self) -> "Connectome":
        """The same network with its non-zero connections only, as an edge list."""
        if self.edges is not None:
            return self
        targets, sources = np.nonzero(np.asarray(self.weights))
        weights, lengths = np.asarray(self.weights)[targets, sources], np.asarray(self.tract_lengths)[targets, sources]
        return self._with(weights, lengths, np.stack([targets, sources]), self.n_nodes)

    def dense(self) -> "Connectome":
        """The same network with `[node, node]` weights and lengths.

        Of parallel connections the weights are added up, and the length is that of the last.
        """
        if self.edges is None:
            return self
        targets, sources = np.asarray(self.edges)
        weights, lengths = np.zeros((self.n_nodes, self.n_nodes)), np.zeros((self.n_nodes, self.n_nodes))
        np.add.at(weights, (targets, sources), np.asarray(self.weights))
        lengths[targets, sources] = np.asarray(self.tract_lengths)
        return self._with(weights, lengths, None, None)

    def _with(self, weights: Any, lengths: Any, edges: Any, size: int | None) -> "Connectome":
        return Connectome(weights, lengths, self.speed, self.labels, self.centres, edges=edges, size=size)

    @classmethod
    def from_edges(
        cls,
        sources: Any,
        targets: Any,
        weights: Any,
        tract_lengths: Any = None,
        *,
        n_nodes: int,
        speed: float = 3.0,
        labels: Iterable[object] | None = None,
    ) -> "Connectome":
        """A sparse network from a list of connections, `[edge]` each: from `sources` into `targets`.

        Several connections between the same two nodes, of unequal lengths, are allowed. Without `tract_lengths` they
        are 0 mm.

        Example:
            >>> import vbinfer as vb
            >>> network = vb.Connectome.from_edges([1, 2], [0, 0], [0.5, 0.25], n_nodes=3)
            >>> network.dense().weights[0].tolist()
            [0.0, 0.5, 0.25]
        """
        lengths = np.zeros(len(weights)) if tract_lengths is None else tract_lengths
        edges = np.stack([np.asarray(targets, np.int32), np.asarray(sources, np.int32)])
        return cls(weights, lengths, speed, labels, edges=edges, size=n_nodes)

    def validate(self) -> None:
        """Sizes that agree and a positive speed; ranges are checked before this."""
        if self.weights is None or self.tract_lengths is None:
            name = "weights" if self.weights is None else "tract_lengths"
            raise ValueError(f"{name} is None; give [node, node] numbers, np.zeros_like(weights) for no delays")
        weights, lengths = self.weights.shape, self.tract_lengths.shape
        if self.edges is not None:
            self._check_edges()
        elif len(weights) != 2 or weights[0] != weights[1]:
            raise ValueError(f"weights is {list(weights)}; it must be square, [node, node], with [i, j] from j to i")
        if weights != lengths:
            raise ValueError(
                f"weights is {list(weights)} but tract_lengths is {list(lengths)}; both must be [node, node]."
            )
        if self.labels is not None and len(self.labels) != self.n_nodes:
            raise ValueError(f"{len(self.labels)} labels were given for {self.n_nodes} nodes; give one name per node")
        if self.centres is not None and self.centres.shape != (self.n_nodes, 3):
            raise ValueError(
                f"centres is {list(self.centres.shape)}; expected [{self.n_nodes}, 3], x, y, z in mm for each node"
            )
        if self.speed.ndim:
            raise ValueError(f"speed was given shape {list(self.speed.shape)}; expected one number, in mm/ms")
        if not isinstance(self.speed, Tracer) and float(self.speed) <= 0.0:
            raise ValueError(f"Connectome.speed is {float(self.speed):g} mm/ms; it must be above 0, for example 3.0")

    def _check_edges(self) -> None:
        assert self.edges is not None
        if self.weights.ndim != 1 or self.edges.shape != (2, len(self.weights)):
            raise ValueError(
                f"weights is {list(self.weights.shape)} with edges {list(self.edges.shape)}; expected one weight, "
                "source and target for each connection"
            )
        if isinstance(self.edges, Tracer) or self.edges.size == 0:
            return
        edges = np.asarray(self.edges)
        if edges.min() < 0 or edges.max() >= self.n_nodes:
            off = edges.min() if edges.min() < 0 else edges.max()
            raise ValueError(f"a connection names node {off}; there are {self.n_nodes}, 0 to {self.n_nodes - 1}")

    def normalise(self, how: str = "max", *, log: bool = False, zero_diagonal: bool = True) -> "Connectome":
        """The same network with weights on a common scale.

        In this order: the diagonal is set to 0 (`zero_diagonal`); w becomes sign(w) log(1 + |w|) (`log`); then

        - `"max"`: w / max |w|, the strongest connection becomes 1;
        - `"strength"`: w / mean_i sum_j |w_ij|, a node receives 1 in total on average;
        - `"row"`: w_ij / sum_j |w_ij|, every node receives 1 in total (a node without input stays without; a symmetric
          network becomes asymmetric);
        - `"spectral"`: w / max |eigenvalue of w|, so that a linear network dx/dt = -x + G W x turns unstable at G = 1
          (at once if the leading eigenvalue is real and positive, as it is for weights >= 0).

        Raises:
            ValueError: an unknown `how`; weights that leave nothing to divide by.

        Example:
            >>> import vbinfer as vb
            >>> vb.Connectome([[0.0, 4.0], [2.0, 0.0]], [[0.0, 9.0], [9.0, 0.0]]).normalise().weights.tolist()
            [[0.0, 1.0], [0.5, 0.0]]
        """
        if how not in _NORMALISATIONS:
            raise ValueError(f"there is no normalisation {how!r}. {did_you_mean(how, _NORMALISATIONS)}")
        n, weights = self.n_nodes, np.array(self.weights, dtype=np.float64)
        rows, columns = np.indices((n, n)) if self.edges is None else np.asarray(self.edges)
        if zero_diagonal:
            weights[rows == columns] = 0.0
        if log:
            weights = np.sign(weights) * np.log1p(np.abs(weights))
        received = np.bincount(rows.ravel(), np.abs(weights).ravel(), minlength=n)
        if how == "max":
            scale: Any = np.abs(weights).max(initial=0.0)
        elif how == "strength":
            scale = received.mean()
        elif how == "row":
            scale = np.where(received > 0, received, 1.0)[rows]
        else:
            full = np.zeros((n, n))
            np.add.at(full, (rows, columns), weights)
            scale = np.abs(np.linalg.eigvals(full)).max()
            if scale < 1e-9 * max(received.max(), 1e-300):
                scale = 0.0  # a network without loops: eigenvalues are rounding errors
        if not received.any() or np.all(scale == 0.0):
            raise ValueError(f"normalise({how!r}) has nothing to divide by: the network has no connections or no loops")
        return eqx.tree_at(lambda c: c.weights, self, jnp.asarray(weights / scale, dtype=self.weights.dtype))

    @classmethod
    def from_tvb(cls, path: str | Path, speed: float = 3.0) -> "Connectome":
        """Read a connectivity of The Virtual Brain: a zip, or a folder, with its text files.

        Members are found by a part of their name, in any subfolder, plain or `.bz2`: `weights`, `tract_lengths`,
        `centres` or `centers` (label x y z). Only `weights` must be there; without `tract_lengths` they are 0, with a
        warning. What else may be there (`cortical`, `hemispheres`, `areas`, `average_orientations`) is not read.
        The zip does not say how fast tracts conduct; `speed` does, in mm/ms.

        Raises:
            FileNotFoundError, ValueError: no such file; not a zip; no weights in it (the message lists what is); a
                member that is not the table it should be.
        """
        tables = tvb_zip.read(Path(path))
        if tables["tract_lengths"] is None:
            warnings.warn(f"{str(path)!r} has no tract_lengths; they are 0 mm: no delays", stacklevel=2)
            tables["tract_lengths"] = np.zeros_like(tables["weights"])
        with _of_file(path):
            return cls(**tables, speed=jnp.asarray(speed))

    def save_tvb(self, path: str | Path) -> None:
        """Write a zip that The Virtual Brain and `from_tvb` read: weights, tract lengths, centres with labels.

        Numbers are written with all their digits, so that they come back unchanged. The format cannot leave out
        labels or centres: nodes without names are called `node_0`, ..., unknown centres are written as zeros (which
        `from_tvb` reads as unknown), blanks in names become underscores. The speed is not part of the format.
        """
        full = self.dense()
        tvb_zip.write(
            Path(path),
            weights=np.asarray(full.weights),
            tract_lengths=np.asarray(full.tract_lengths),
            labels=self.labels or tuple(f"node_{i}" for i in range(self.n_nodes)),
            centres=np.zeros((self.n_nodes, 3)) if self.centres is None else np.asarray(self.centres),
        )

    @classmethod
    def from_npz(cls, path: str | Path, speed: float | None = None) -> "Connectome":
        """Read an npz with `weights`, `tract_lengths` and, if it has them, `labels`, `centres` and `speed`.

        Raises:
            FileNotFoundError, ValueError: no such file; not an npz; one of the two matrices missing.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}; give an npz with weights and tract_lengths")
        try:
            arrays = _archive.load(path)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is one array, an npy")
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is no npz of plain arrays ({error}); write it with np.savez") from error
        for name in ("weights", "tract_lengths"):
            if name not in arrays:
                raise ValueError(f"{str(path)!r} holds {sorted(arrays)}, not {name!r}; save weights and tract_lengths")
        with _of_file(path):
            if speed is None:
                speed = float(arrays["speed"]) if "speed" in arrays else 3.0
            labels = arrays["labels"].astype(str).tolist() if "labels" in arrays else None
            return cls(arrays["weights"], arrays["tract_lengths"], jnp.asarray(speed), labels, arrays.get("centres"))

    @classmethod
    def from_file(cls, path: str | Path) -> "Connectome":
        """Read an `.npz` with `from_npz`, anything else (zip, folder) with `from_tvb`."""
        return cls.from_npz(path) if Path(path).suffix == ".npz" else cls.from_tvb(path)

    @classmethod
    def synthetic(
        cls,
        n: int,
        *,
        key: Array,
        asymmetric: bool = False,
        decay_length: float = 30.0,
        spread: float = 1.0,
        homotopic: float = 0.5,
        tortuosity: float = 1.2,
    ) -> "Connectome":
        """An invented brain of two hemispheres, for tests and examples: distance rule times lognormal.

        Centres: n/2 points spread evenly (golden-angle spiral) over the right half of an ellipsoid with half-axes 65,
        85, 60 mm, and their mirror images; node i is on the left, i + n/2 opposite. With d_ij the distance of centres,

            weights_ij       = exp(-d_ij / decay_length) * exp(spread * xi_ij - spread^2 / 2)   xi standard normal
            weights_i,i+n/2  = homotopic * exp(spread * xi - spread^2 / 2)                        whatever the distance
            tract_lengths_ij = tortuosity * d_ij

        and the weights are divided by their maximum. The distance rule is that of Ercsey-Ravasz et al. 2013
        (10.1016/j.neuron.2013.07.036); 30 mm and a spread near 1 are what the HCP average of `load_connectome` has.

        Args:
            n: number of nodes, even.
            key: JAX key; the same key gives the same network.
            asymmetric: draw xi_ij and xi_ji apart; otherwise they are the same.
            decay_length: mm.
            spread: standard deviation of log weights around the rule; 0 leaves the rule.
            homotopic: weight between mirror images, where 1 is the rule at distance 0.
            tortuosity: length of a tract over the distance that it bridges, at least 1.

        Example:
            >>> import jax, vbinfer as vb
            >>> vb.Connectome.synthetic(68, key=jax.random.key(0)).labels[0]
            'L_01'
        """
        if n < 2 or n % 2:
            raise ValueError(
                f"synthetic(n={n}): n must be even, half the nodes in each hemisphere; use n={max(2, n + n % 2)}"
            )
        if not decay_length > 0 or spread < 0 or homotopic < 0 or tortuosity < 1:
            raise ValueError(
                f"synthetic needs decay_length > 0, spread >= 0, homotopic >= 0, tortuosity >= 1; given "
                f"{decay_length}, {spread}, {homotopic}, {tortuosity}"
            )
        half = n // 2
        centres = _ellipsoid(half)
        distance = np.linalg.norm(centres[:, None] - centres[None, :], axis=-1)
        rule = np.exp(-distance / decay_length)
        left = np.arange(half)
        rule[left, left + half] = rule[left + half, left] = homotopic
        xi = np.asarray(jax.random.normal(key, (n, n)), dtype=np.float64)
        if not asymmetric:
            xi = np.triu(xi, 1) + np.triu(xi, 1).T
        weights = rule * np.exp(spread * xi - spread**2 / 2)
        np.fill_diagonal(weights, 0.0)
        digits = len(str(half))
        labels = tuple(f"{side}_{i + 1:0{max(digits, 2)}d}" for side in "LR" for i in range(half))
        return cls(weights / weights.max(), tortuosity * distance, labels=labels, centres=centres)


@contextmanager
def _of_file(path: str | Path) -> Iterator[None]:
    """Inside, what is wrong with the numbers of a file is said with its name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} holds no network: {error}") from error


def _ellipsoid(half: int) -> np.ndarray:
    """`[2 * half, 3]` in mm: points of equal share on an ellipsoid, left, then their mirror images right."""
    height = 0.15 + 0.85 * (np.arange(half) + 0.5) / half  # clear of the midline, where mirror images would touch
    angle = np.arange(half) * math.pi * (3.0 - math.sqrt(5.0))
    ring = np.sqrt(1.0 - height**2)
    right = np.stack([65.0 * height, 85.0 * ring * np.cos(angle), 60.0 * ring * np.sin(angle)], axis=1)
    return np.concatenate([right * [-1.0, 1.0, 1.0], right])
