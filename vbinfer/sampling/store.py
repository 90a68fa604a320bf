"""A folder of chains: what run it is, the state after warm-up, and one file per finished chunk of draws."""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vbinfer.draws.manifest import identity
from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.io.fingerprint import NUMBERS, UnhashableError, checksum, traced
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import Plan, Problem, sampled_theta

SETTINGS = "chains.npz"
"""The file that makes a folder a store of chains."""
_WARMUP = "warmup.npz"


class Saved(NamedTuple):
    """What a store holds: the state after the last piece, warm-up steps done, and the pieces of draws."""

    state: dict[str, np.ndarray] | None
    warmed: int
    pieces: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class ChainStore:
    """The folder of one run; every file in it is whole, or not there.

    `chains.npz` says which run (prior, kernel, sizes, key, likelihood), `warmup.npz` holds the state of the chains
    while they warm up, `draws-000000.npz` the first chunk of draws and the state after it, and so on.
    """

    folder: Path
    mark: str

    @classmethod
    def of(cls, folder: Path) -> "ChainStore":
        """The store that lies in a folder, whatever run it is of."""
        header, _ = _part(folder / SETTINGS)
        with npz.rebuilding(folder / SETTINGS, header):
            return cls(folder, identity(header["run"]))

    def put_warmup(self, done: int, state: Mapping[str, np.ndarray]) -> None:
        """The state of the chains after `done` steps of warm-up."""
        npz.write(self.folder / _WARMUP, "chains", {"warmed": done, "run": self.mark}, _prefixed("state", state))

    def put_draws(self, index: int, piece: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
        """Chunk number `index`, and the state of the chains after it."""
        arrays = {"z": piece["z"], "potential_energy": piece["potential_energy"]}
        arrays |= _prefixed("stats", piece["stats"]) | _prefixed("state", state)
        npz.write(self._chunk(index), "chains", {"run": self.mark, "chunk": index}, arrays)

    def read(self) -> Saved:
        """Everything that is there, in order."""
        pieces, state, warmed = [], None, 0
        if (self.folder / _WARMUP).is_file():
            header, arrays = _part(self.folder / _WARMUP)
            if header.get("run") != self.mark:
                raise ValueError(f"{self.folder / _WARMUP} is of other chains: delete it, and repeat the call")
            with npz.rebuilding(self.folder / _WARMUP, header):
                state, warmed = _under("state", arrays), int(header["warmed"])
        while self._chunk(len(pieces)).is_file():
            path = self._chunk(len(pieces))
            header, arrays = _part(path)
            if (header.get("run"), header.get("chunk")) != (self.mark, len(pieces)):
                raise ValueError(f"{path} is no chunk {len(pieces)} of these chains: delete it, and repeat the call")
            with npz.rebuilding(path, header):
                state = _under("state", arrays)
                warmed = int(state["num_warmup"])
                pieces.append({"z": arrays["z"], "potential_energy": arrays["potential_energy"]})
                pieces[-1]["stats"] = _under("stats", arrays)
        return Saved(state, warmed, pieces)

    def _chunk(self, index: int) -> Path:
        return self.folder / f"draws-{index:06d}.npz"


def open_store(kernel: Any, problem: Problem, plan: Plan) -> ChainStore:
    """The store of this run in `plan.store`, begun if there is none.

    Raises:
        ValueError: the folder holds another run (the message lists what differs), or more draws than are asked for.
    """
    folder = Path(plan.store or ".")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"store={str(folder)!r} is a file; give the name of a folder, new or of an earlier run")
    settings, x_o = _settings(kernel, problem, plan), numbers(problem.x_o)
    if not (folder / SETTINGS).is_file():
        if folder.is_dir() and any(not _belongs(path, identity(_plain(settings))) for path in folder.iterdir()):
            raise ValueError(f"store={str(folder)!r} holds other files; give a new folder, or one of an earlier run")
        npz.write(folder / SETTINGS, "chains", {"run": settings}, {} if x_o is None else {"x_o": x_o})
    header, _ = _part(folder / SETTINGS)
    with npz.rebuilding(folder / SETTINGS, header):
        run, was_made = dict(header["run"]), dict(header["versions"])
    names = [name for name in settings if run.get(name) != settings[name]]
    if names:
        lines = "\n".join(f"  {name}: there {run.get(name)}, here {settings[name]}" for name in names)
        raise ValueError(
            f"store={str(folder)!r} holds chains of another run:\n{lines}\n"
            f"Give another folder, or repeat the call that began this one; nothing was changed."
        )
    now = npz.versions("numpyro", "blackjax")
    moved = [f"{name} {was} -> {now[name]}" for name, was in was_made.items() if now.get(name, was) != was]
    if moved:
        warnings.warn(
            f"store={str(folder)!r} was begun with other versions ({', '.join(moved)}); "
            f"the chains go on, but not with the numbers of one uninterrupted run",
            stacklevel=5,
        )
    store = ChainStore(folder, identity(run))
    there = sum(piece["potential_energy"].shape[1] for piece in store.read().pieces)
    if there > plan.num_samples:
        raise ValueError(
            f"store={str(folder)!r} holds {there} draws per chain and num_samples={plan.num_samples} was asked for; "
            f"ask for {there} or more, or read them with vb.load({str(folder)!r})"
        )
    return store


def _belongs(path: Path, mark: str) -> bool:
    """Whether a file is of this run, or something unfinished of a process that was killed."""
    return path.name.startswith(".") or npz.mark(path, "run") == mark


def load_chains(folder: str | Path) -> Posterior:
    """The draws that a store holds so far, as a `Posterior`; called by `vb.load`.

    Raises:
        ValueError: no chunk of draws is finished yet.
    """
    folder = Path(folder)
    header, arrays = _part(folder / SETTINGS)
    saved = ChainStore.of(folder).read()
    if not saved.pieces:
        raise ValueError(
            f"the chains in {folder} have no finished draws yet ({saved.warmed} steps of warm-up are done)"
        )
    with npz.rebuilding(folder / SETTINGS, header):
        return _posterior(header, arrays.get("x_o"), saved)


def _posterior(header: Mapping[str, Any], x_o: np.ndarray | None, saved: Saved) -> Posterior:
    run, pieces = header["run"], saved.pieces
    z, energy = (np.concatenate([piece[name] for piece in pieces], 1) for name in ("z", "potential_energy"))
    stats = {name: np.concatenate([piece["stats"][name] for piece in pieces], 1) for name in pieces[0]["stats"]}
    prior = Prior.from_spec(run["prior"])
    theta, log_prob = sampled_theta(prior, z, energy)
    info = {"method": run["method"], "kernel": run["kernel"], "num_warmup": run["num_warmup"], "key": run["key"]}
    info |= {"divergences": int(stats["diverging"].sum()), "versions": header["versions"]}
    leaves = {name: np.asarray(value) for name, value in theta.items()}
    return Posterior(leaves, np.asarray(log_prob), stats, x_o, prior, None, info, saved.state)


def _part(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of one file of a store of chains."""
    kind, header, arrays = npz.read(path)
    if kind != "chains":
        raise ValueError(f"{path} holds a {kind!r}; expected a file of the folder that sample_mcmc(store=...) wrote")
    return header, arrays


def numbers(x_o: Any) -> np.ndarray | None:
    """An observation as an array, or None if it is not one of numbers (a dictionary, say)."""
    try:
        array = np.asarray(x_o)
    except (ValueError, TypeError):  # lists of unequal length; what NumPy cannot hold, such as a typed key
        return None
    return array if array.dtype.kind in "fiubc" else None


def _settings(kernel: Any, problem: Problem, plan: Plan) -> dict[str, Any]:
    """What a run is, but for its length: chains may grow longer."""
    x_o = numbers(problem.x_o)
    start = plan.state
    if start is None and plan.init is not None:
        start = plan.init if isinstance(plan.init, Mapping) else getattr(plan.init, "theta", None)
    theta = {name: jnp.zeros(shape) for name, shape in problem.prior.shapes.items()}
    try:
        program, _ = traced(lambda theta: problem.log_likelihood_of_theta(theta, problem.x_o), theta)
    except UnhashableError as error:
        raise TypeError(f"store= needs to know which log_likelihood made its draws, and {error}") from error
    return {
        "method": type(kernel).__name__,
        "kernel": dataclasses.asdict(kernel),
        "prior": _plain(problem.prior.to_spec()),
        "x_o": None if x_o is None else checksum({"x_o": x_o}),
        "log_likelihood": program,
        "numbers": NUMBERS,
        "init": None if start is None else checksum(start),
        "num_warmup": plan.num_warmup,
        "num_chains": plan.num_chains,
        "key": key_ints(plan.key),
        "precision": str(jnp.result_type(float)),
    }


def _plain(value: Any) -> Any:
    return json.loads(npz.to_json(value))


def _prefixed(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": np.asarray(value) for name, value in arrays.items()}


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}/"): value for name, value in arrays.items() if name.startswith(f"{prefix}/")}
