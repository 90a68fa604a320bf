"""Stored chains: settings, warm-up state and chunks of draws."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.io.fingerprint import UnhashableError, checksum, traced
from vbinfer.io.folder import Folder, Head, Kind, read_head
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import Problem, RunOptions, Sample, joined, sampled_theta

SETTINGS = "chains.npz"
"""The file that makes a folder a store of chains."""
_WARMUP = "warmup.npz"
CHAINS = Kind(
    head=SETTINGS,
    holds="chains",
    parts="*",
    label="chains",
    packages=("numpyro", "blackjax"),
    drift="the chains go on, but not with the numbers of one uninterrupted run",
)


class Saved(NamedTuple):
    """What a store holds.

    The state after the last piece, warm-up steps done, and the pieces of draws.
    """

    state: Mapping[str, np.ndarray] | None
    warmed: int
    pieces: list[Sample]

    @property
    def draws(self) -> int:
        """Draws per chain."""
        return sum(piece.potential_energy.shape[1] for piece in self.pieces)


@dataclasses.dataclass(frozen=True)
class ChainStore:
    """The folder of one run.

    `chains.npz` describes the run (prior, kernel, sizes, key, likelihood), `warmup.npz` holds the state of the chains
    while they warm up, `draws-000000.npz` the first chunk of draws and the state after it, and so on.
    """

    folder: Folder

    @classmethod
    def of(cls, folder: str | Path) -> "ChainStore":
        """The store in a folder, of any run."""
        return cls(Folder.of(folder, CHAINS))

    def put_warmup(self, done: int, state: Mapping[str, np.ndarray]) -> None:
        """The state of the chains after `done` steps of warm-up."""
        self.folder.put(_WARMUP, _prefixed("state", state) | {"warmed": np.asarray(done)})

    def put_draws(self, index: int, piece: Sample, state: Mapping[str, np.ndarray]) -> None:
        """Write a chunk and the state after it."""
        arrays: dict[str, Any] = {"z": piece.z, "potential_energy": piece.potential_energy}
        arrays |= _prefixed("stats", piece.stats) | _prefixed("state", state)
        self.folder.put(_chunk(index), arrays, chunk=index)

    def read(self) -> Saved:
        """Everything that is there, in order."""
        pieces, state, warmed = [], None, 0
        if not self.folder.missing(_WARMUP):
            arrays = self.folder.read(_WARMUP, ("warmed",))
            state, warmed = _under("state", arrays), int(arrays["warmed"])
        # chunks are written in order: the first that is missing is where the run stopped
        while not self.folder.missing(_chunk(len(pieces))):
            wanted = ("z", "potential_energy", "state/num_warmup")
            arrays = self.folder.read(_chunk(len(pieces)), wanted, chunk=len(pieces))
            state = _under("state", arrays)
            warmed = int(state["num_warmup"])
            pieces.append(Sample(arrays["z"], arrays["potential_energy"], _under("stats", arrays)))
        return Saved(state, warmed, pieces)


def _chunk(index: int) -> str:
    return f"draws-{index:06d}.npz"


def open_store(kernel: Any, problem: Problem, options: RunOptions) -> ChainStore:
    """Open or begin the store of a run.

    It is the folder `options.store`.

    Raises:
        ValueError: the folder holds another run (the message lists what differs), or more draws than are asked for.
    """
    path, x_o = Path(options.store or "."), numbers(problem.x_o)
    settings = _settings(kernel, problem, options)
    store = ChainStore(Folder.open(path, settings, CHAINS, None if x_o is None else {"x_o": x_o}))
    if (there := store.read().draws) > options.num_samples:
        raise ValueError(
            f"store={str(path)!r} holds {there} draws per chain and num_samples={options.num_samples} was asked for; "
            f"ask for {there} or more, or read them with vb.load({str(path)!r})"
        )
    return store


def load_chains(folder: str | Path) -> Posterior:
    """Load the draws of a store so far.

    Called by `vb.load`.

    Raises:
        ValueError: no chunk of draws is finished yet.
    """
    path = Path(folder) / SETTINGS
    head, saved = read_head(path, CHAINS), ChainStore.of(folder).read()
    if not saved.pieces:
        raise ValueError(
            f"the chains in {folder} have no finished draws yet ({saved.warmed} steps of warm-up are done)"
        )
    with npz.rebuilding(path, {"versions": head.versions}):
        return _posterior(head, saved)


def _posterior(head: Head, saved: Saved) -> Posterior:
    run, (z, energy, stats) = head.study, joined(saved.pieces)
    prior = Prior.from_spec(run["prior"])
    theta, log_prob = sampled_theta(prior, z, energy)
    info = {"method": run["method"], "kernel": run["kernel"], "num_warmup": run["num_warmup"], "key": run["key"]}
    info |= {"divergences": int(stats["diverging"].sum()), "versions": head.versions}
    return Posterior(theta, log_prob, stats, head.arrays.get("x_o"), prior, None, info, saved.state)


def numbers(x_o: Any) -> np.ndarray | None:
    """An observation as an array of numbers, or None."""
    try:
        array = np.asarray(x_o)
    except (ValueError, TypeError):  # lists of unequal length; what NumPy cannot hold, such as a typed key
        return None
    return array if array.dtype.kind in "fiubc" else None


def _settings(kernel: Any, problem: Problem, options: RunOptions) -> dict[str, Any]:
    """What identifies a run, but for its length.

    Chains may grow longer.
    """
    x_o = numbers(problem.x_o)
    start = options.state
    if start is None and options.init is not None:
        start = options.init if isinstance(options.init, Mapping) else getattr(options.init, "theta", None)
    theta = {name: jnp.zeros(shape) for name, shape in problem.prior.shapes.items()}
    try:
        # the likelihood is known by its arithmetic, the data as constants in it, not by its name or docstring
        program, _ = traced(lambda theta: problem.likelihood(theta, problem.x_o), theta)
    except UnhashableError as error:
        raise TypeError(f"store= needs to know which log_likelihood made its draws, and {error}") from error
    return {
        "method": type(kernel).__name__,
        "kernel": dataclasses.asdict(kernel),
        "prior": problem.prior.to_spec(),
        "x_o": None if x_o is None else checksum({"x_o": x_o}),
        "log_likelihood": program,
        "init": None if start is None else checksum(start),
        "num_warmup": options.num_warmup,
        "num_chains": options.num_chains,
        "key": key_ints(options.key),
        "precision": str(jnp.result_type(float)),
    }


def _prefixed(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": np.asarray(value) for name, value in arrays.items()}


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}/"): value for name, value in arrays.items() if name.startswith(f"{prefix}/")}
