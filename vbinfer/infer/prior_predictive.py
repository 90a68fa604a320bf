"""Prior-predictive draws: theta from the prior or a proposal, x from the simulator, in lanes, resumable."""

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vbinfer import _io
from vbinfer._typing import PRNGKey, SimulatorLike
from vbinfer.execute.executor import Executor, Local
from vbinfer.execute.lanes import LANE, as_count, as_key, batched, checked, feature_names, key_words, trace
from vbinfer.execute.options import steady
from vbinfer.execute.store import Rows, Store, read_store
from vbinfer.infer.draws import Draws, finite_rows
from vbinfer.infer.progress import Progress
from vbinfer.infer.proposed import Proposal, Proposed
from vbinfer.infer.ranges import check_ranges
from vbinfer.priors.prior import Prior


def sample_prior_predictive(
    prior: Prior,
    simulator: SimulatorLike,
    n: int,
    *,
    key: Array,
    proposal: Proposal | None = None,
    batch_size: int | None = None,
    store: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Draws:
    """Draw parameters from the prior and simulate each: theta_i ~ p(theta), x_i ~ p(x | theta_i).

    Draw i uses `k_theta, k_sim = split(fold_in(key, i))` and runs among 64 neighbours, whatever n, batch size, device
    count or interruption: a longer run begins with the draws of a shorter one. The last 64 are run whole. Draws with
    NaN or infinite summaries are kept, with `valid=False`.

    Args:
        prior: `vb.Prior`.
        simulator: `(theta, key) -> x [F]`, jitted and vmapped here; or an object with `.batch(theta, keys)`, such as
            `vb.ForwardModel`, whose `.check(prior)` and declared ranges are consulted before anything runs.
        n: number of draws.
        key: a JAX key.
        proposal: where theta comes from instead of the prior: `vb.Truncated`, what `vb.restrict` returns, or any object
            with `.sample(key=, n=)` and `.log_prob(theta)` over the prior's parameters and inside its support. Then
            theta comes in blocks of 1,024, block b from `fold_in(fold_in(key, 2^32 - 1), b)`, and the draws carry
            `log_q` and the proposal's `round`. What of it is valid to train on is said in the docs of each.
        batch_size: draws per shard of the store, a multiple of 64; 64 by default.
        store: a folder. Finished shards are read from it instead of simulated, new ones written to it; an interrupted
            run loses nothing that a shard holds, and a larger n appends.
        executor: where lanes run; `vb.Local()`, all devices of this process, by default; `vb.Local(workers=n)` runs
            them in n processes.
        progress: show a bar with draws per second, failed share and time left.

    Returns:
        `Draws` of length n. `info` holds seconds, draws_per_second (None if all came from the store), the numbers
        `simulated` and `read`, key, versions.

    Raises:
        ValueError: sizes that make no sense; a prior with more than 1e-6 of its mass outside a declared range; a store
            of another study; a proposal over other parameters or outside the prior.
        RuntimeError: every draw failed.

    Example:
        >>> import jax, jax.numpy as jnp, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"g": dist.Uniform(0.0, 1.0)})
        >>> def simulator(theta, key):
        ...     return theta["g"] + 0.1 * jax.random.normal(key, (3,))
        >>> draws = vb.sample_prior_predictive(prior, simulator, n=100, key=jax.random.key(0), progress=False)
        >>> draws.x.shape, bool(draws.valid.all())
        ((100, 3), True)
    """
    draws = simulate_draws(
        prior,
        simulator,
        n,
        key=key,
        proposal=proposal,
        batch_size=batch_size,
        store=store,
        executor=executor,
        progress=progress,
    )
    if not draws.valid.any():
        kept = f"; they are kept in {str(store)!r}, vb.load({str(store)!r}) reads them" if store is not None else ""
        raise RuntimeError(
            f"all {n} draws failed: every summary holds NaN or infinite numbers{kept}. "
            f"Look at one draw, simulator(prior.sample(key=key), key), then narrow the prior or mend the simulator"
        )
    return draws


def simulate_draws(
    prior: Prior,
    simulator: SimulatorLike,
    n: int,
    *,
    key: Array,
    proposal: Proposal | None = None,
    batch_size: int | None = None,
    store: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Draws:
    """As `sample_prior_predictive`, but draws that all failed are returned like any others."""
    key = as_key(key)
    n, batch_size = as_count(n, "n"), _check_batch(batch_size)
    check_simulator(prior, simulator)
    began = time.perf_counter()
    proposed = None if proposal is None else Proposed.draw(prior, proposal, n, key)
    folder = None if store is None else Store.open(store, _study(prior, simulator, key, batch_size, proposed))
    runner = _Lanes(prior, simulator, key, proposed)
    lanes, read = _collect(n, batch_size, runner, folder, executor or Local(), progress)
    seconds = time.perf_counter() - began
    rows = {name: np.concatenate([lane[name] for lane in lanes])[:n] for name in lanes[0]}
    simulated = len(lanes) * LANE - read
    info = {
        "seconds": seconds,
        "draws_per_second": simulated / seconds if simulated else None,
        "simulated": simulated,
        "read": read,
        "key": key_words(key),
        "versions": _io.versions(),
        "simulator": _fingerprint(simulator),
        "batch_size": batch_size,
        "store": None if store is None else str(store),
    }
    return _draws(rows, feature_names(simulator, rows["x"].shape[1]), info, 0 if proposed is None else proposed.round)


def load_store(folder: str | Path) -> Draws:
    """The finished draws of a store as `Draws`, without the simulator; what `vb.load(folder)` returns."""
    study, rows = read_store(folder)
    names = study["features"] or Draws.from_arrays({"none": rows["x"]}, rows["x"]).names
    info = {"key": study["key"]["words"], "simulator": study["simulator"], "batch_size": study["batch_size"]}
    info = {**info, "store": str(folder), "simulated": 0, "read": len(rows["x"])}
    return _draws(rows, tuple(names), info, study.get("proposal", {}).get("round", 0))


def _check_batch(batch_size: object) -> int:
    if batch_size is None:
        return LANE
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r} was given; expected a multiple of {LANE}, such as {4 * LANE}")
    if batch_size % LANE:
        raise ValueError(
            f"batch_size={batch_size} was given; draws run {LANE} at a time, so write a multiple of {LANE}: "
            f"batch_size={LANE * math.ceil(batch_size / LANE)}"
        )
    return int(batch_size)


def check_simulator(prior: Prior, simulator: Any) -> None:
    """Whatever can be known to be wrong before anything runs."""
    if not callable(simulator):
        raise TypeError(
            f"the simulator is a {type(simulator).__name__}; expected a function (theta, key) -> x [feature]"
        )
    if hasattr(simulator, "check"):
        simulator.check(prior)
    if hasattr(simulator, "ranges"):
        check_ranges(prior, simulator.ranges())


def _fingerprint(simulator: Any) -> str | None:
    return str(simulator.fingerprint()) if hasattr(simulator, "fingerprint") else None


def _study(
    prior: Prior, simulator: Any, key: PRNGKey, batch_size: int, proposed: Proposed | None = None
) -> dict[str, Any]:
    """What makes a store this study's and no other's."""
    mark, names = _fingerprint(simulator), getattr(simulator, "names", None)
    if mark is None:
        mark, width = trace(simulator, prior.sample(key=key), key)
        if names is None and width is not None:
            names = feature_names(simulator, width)
    drawn = {} if proposed is None else {"proposal": {"round": proposed.round, "first_block": proposed.mark}}
    return {
        **drawn,
        "prior": prior.to_spec(),
        "theta": {name: list(shape) for name, shape in prior.shapes.items()},
        "features": None if names is None else list(names),
        "simulator": mark,
        "key": {"words": key_words(key), "impl": str(jax.random.key_impl(key))},
        "batch_size": batch_size,
        "lane": LANE,
        "dtype": str(np.dtype(jax.dtypes.canonicalize_dtype(float))),
    }


class _Lanes:
    """`(lane, device) -> rows` of the 64 draws of that lane; what is sent to other processes are its four parts."""

    def __init__(self, prior: Prior, simulator: SimulatorLike, key: PRNGKey, proposed: Proposed | None = None) -> None:
        self._prior, self._simulator, self._key, self._proposed = prior, simulator, key, proposed
        self._batch = batched(simulator)
        self._start = jax.jit(jax.vmap(self._one, in_axes=(None, 0)), compiler_options=steady())
        self._known: tuple[str, ...] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Lanes, (self._prior, self._simulator, self._key, self._proposed)

    def _one(self, root: PRNGKey, index: jax.Array) -> tuple[Any, Any]:
        k_theta, k_sim = jax.random.split(jax.random.fold_in(root, index))
        return self._prior.sample(key=k_theta), k_sim

    def __call__(self, lane: int, device: Any) -> Rows:
        index = np.arange(lane * LANE, (lane + 1) * LANE, dtype=np.uint32)
        theta, keys = self._start(jax.device_put(self._key, device), jax.device_put(index, device))
        drawn = {} if self._proposed is None else self._proposed.lane(lane)
        if drawn:
            theta = {name: jax.device_put(drawn[f"theta/{name}"], device) for name in self._prior.shapes}
        x = checked(self._batch(theta, keys))
        if self._known is None:  # before the rest runs, not after it
            self._known = feature_names(self._simulator, x.shape[1])
        return {**{f"theta/{name}": np.asarray(theta[name]) for name in self._prior.shapes}, "x": x, **drawn}


def _collect(
    n: int,
    batch_size: int,
    runner: Callable[[int, Any], Rows],
    store: Store | None,
    executor: Executor,
    progress: bool,
) -> tuple[list[Rows], int]:
    """Rows of every lane, in order, and how many draws came from the store."""
    per_shard, wanted = batch_size // LANE, math.ceil(n / LANE)
    lanes: dict[int, Rows] = {}
    for shard in range(math.ceil(wanted / per_shard)):
        rows = None if store is None else store.read(shard)
        for i in range(len(rows["x"]) // LANE if rows is not None else 0):
            part = slice(i * LANE, (i + 1) * LANE)
            lanes[shard * per_shard + i] = {name: value[part] for name, value in (rows or {}).items()}
    missing = [lane for lane in range(wanted) if lane not in lanes]
    read = (wanted - len(missing)) * LANE
    unsaved: set[int] = set()
    with Progress(n, min(read, n), shown=progress) as bar, closing(_finished(executor, runner, missing)) as finished:
        try:
            for position, rows in finished:
                lane = missing[position]
                shard = lane // per_shard
                lanes[lane] = rows
                unsaved.add(shard)
                bar.add(LANE, int((~finite_rows(rows["x"])).sum()))
                if store is not None and all(other in lanes for other in _inside(shard, per_shard)):
                    _save(store, shard, per_shard, lanes)
                    unsaved.remove(shard)
        finally:  # also when interrupted: what the open shards hold so far is kept
            if store is not None:
                for shard in sorted(unsaved):
                    _save(store, shard, per_shard, lanes)
    return [lanes[lane] for lane in range(wanted)], read


def _finished(
    executor: Executor, runner: Callable[[int, Any], Rows], lanes: list[int]
) -> Generator[tuple[int, Rows], None, None]:
    """`(position, rows)` as they are done, or in order from an executor that has nothing else."""
    as_completed = getattr(executor, "as_completed", None)
    yield from enumerate(executor.map(runner, lanes)) if as_completed is None else as_completed(runner, lanes)


def _inside(shard: int, per_shard: int) -> range:
    return range(shard * per_shard, (shard + 1) * per_shard)


def _save(store: Store, shard: int, per_shard: int, lanes: dict[int, Rows]) -> None:
    """Write the lanes of a shard up to the first that is missing."""
    done = [lanes[lane] for lane in takewhile(lanes.__contains__, _inside(shard, per_shard))]
    if done:
        store.write(shard, {name: np.concatenate([rows[name] for rows in done]) for name in done[0]})


def _draws(rows: Rows, names: tuple[str, ...], info: dict[str, Any], number: int = 0) -> Draws:
    theta = {name.removeprefix("theta/"): value for name, value in rows.items() if name.startswith("theta/")}
    plain = Draws.from_arrays(theta, rows["x"], names)
    return Draws(plain.theta, plain.x, plain.names, plain.valid, plain.round + number, rows.get("log_q"), info)
