"""Prior-predictive draws: theta from the prior or a proposal, x from the simulator, in lanes, resumable."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array

from vbinfer import _io
from vbinfer._typing import PRNGKey, SimulatorLike
from vbinfer.execute.executor import Executor, Local
from vbinfer.execute.lanes import as_count, as_key, feature_names, key_words
from vbinfer.execute.manifest import MANIFEST, read_manifest
from vbinfer.execute.store import Rows, Store, read_store
from vbinfer.infer.draws import Draws
from vbinfer.infer.gather import Gathered, Plan, gather
from vbinfer.infer.proposed import Proposal, Proposed
from vbinfer.infer.runner import Runner, check_simulator, fingerprint, lane_of, study_of
from vbinfer.priors.prior import Prior

_SHARDS = 256


def sample_prior_predictive(
    prior: Prior,
    simulator: SimulatorLike,
    n: int,
    *,
    key: Array,
    proposal: Proposal | None = None,
    batch_size: int | None = None,
    store: str | Path | None = None,
    series: bool = False,
    executor: Executor | None = None,
    progress: bool = True,
) -> Draws:
    """Draw parameters from the prior and simulate each: theta_i ~ p(theta), x_i ~ p(x | theta_i).

    Draw i uses `k_theta, k_sim = split(fold_in(key, i))` and runs among 64 neighbours (a simulator with an
    attribute `lane` says another number), whatever n, batch size, executor, device count or interruption: a longer run
    begins with the draws of a shorter one. The last lane is run whole. Draws with
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
        batch_size: draws per shard of the store, a multiple of 64; by default that of the store in the folder, and 64
            for a new one, doubled until 256 shards are enough.
        store: a folder. Finished shards are read from it instead of simulated, new ones written to it; an interrupted
            run loses nothing that a shard holds, and a larger n appends. Several processes that run the same call at
            the same time share the work. `vb.simulate_store` fills one without holding the draws in memory.
        series: also keep, in the store, what was recorded; `vb.load_series(store)` reads it. The simulator needs
            `.batch_series(theta, keys) -> (x, ys)`, which `vb.ForwardModel` has.
        executor: where lanes run; `vb.Local()`, all devices of this process, by default; `vb.Local(workers=n)` runs
            them in n processes, `vb.Dask(client)` on a cluster.
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
        series=series,
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
    series: bool = False,
    executor: Executor | None = None,
    progress: bool = True,
) -> Draws:
    """As `sample_prior_predictive`, but draws that all failed are returned like any others."""
    job = Job.of(prior, simulator, n, key, proposal, batch_size, store, series)
    found, seconds = job.run(executor, progress)
    info = {
        "seconds": seconds,
        "draws_per_second": found.simulated / seconds if found.simulated else None,
        "simulated": found.simulated,
        "read": found.read,
        "key": key_words(job.key),
        "versions": _io.versions(),
        "simulator": fingerprint(simulator),
        "batch_size": job.batch_size,
        "store": None if store is None else str(store),
    }
    number = 0 if job.proposed is None else job.proposed.round
    return _draws(found.rows(), feature_names(simulator, found.width), info, number)


@dataclasses.dataclass(frozen=True)
class Job:
    """Checked arguments of a run, which `sample_prior_predictive` and `simulate_store` share."""

    n: int
    key: PRNGKey
    batch_size: int
    proposed: Proposed | None
    store: Store | None
    runner: Runner

    @classmethod
    def of(
        cls,
        prior: Prior,
        simulator: Any,
        n: int,
        key: Any,
        proposal: Proposal | None,
        batch_size: int | None,
        store: str | Path | None,
        series: bool,
    ) -> "Job":
        """Everything that can be known to be wrong is said before anything runs."""
        key, n, lane = as_key(key), as_count(n, "n"), lane_of(simulator)
        batch_size = _batch_size(batch_size, n, lane, store)
        check_simulator(prior, simulator)
        if series and store is None:
            raise ValueError("series=True keeps recordings beside the draws of a store; give store=, a folder")
        proposed = None if proposal is None else Proposed.draw(prior, proposal, n, key)
        runner = Runner(prior, simulator, key, proposed, series)
        folder = None
        if store is not None:
            folder = Store.open(store, study_of(prior, simulator, key, batch_size, proposed, series))
        return cls(n, key, batch_size, proposed, folder, runner)

    def run(
        self, executor: Executor | None, progress: bool, part: tuple[int, int] = (1, 1), keep: bool = True
    ) -> tuple[Gathered, float]:
        """What is gathered, and the seconds it took."""
        began = time.perf_counter()
        plan = Plan.of(self.n, self.runner.lane, self.batch_size, part, keep)
        found = gather(plan, self.runner, self.store, executor or Local(), progress)
        return found, time.perf_counter() - began


def load_store(folder: str | Path) -> Draws:
    """The finished draws of a store as `Draws`, without the simulator; what `vb.load(folder)` returns."""
    study, rows = read_store(folder)
    names = study["features"] or Draws.from_arrays({"none": rows["x"]}, rows["x"]).names
    info = {"key": study["key"]["words"], "simulator": study["simulator"], "batch_size": study["batch_size"]}
    info = {**info, "store": str(folder), "simulated": 0, "read": len(rows["x"])}
    return _draws(rows, tuple(names), info, study.get("proposal", {}).get("round", 0))


def _batch_size(given: object, n: int, lane: int, store: str | Path | None) -> int:
    """The draws per shard: those asked for, those of a store that is there, or as many as make 256 shards or fewer."""
    if given is None:
        if store is not None and (Path(store) / MANIFEST).is_file():
            try:
                return int(read_manifest(Path(store))["study"]["batch_size"])
            except (ValueError, TypeError):  # another format, or damage, which `Store.open` names
                pass
        doublings = max(0, (-(-n // (lane * _SHARDS)) - 1).bit_length())
        return lane * 2**doublings
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 1:
        raise ValueError(f"batch_size={given!r} was given; expected a multiple of {lane}, such as {4 * lane}")
    if given % lane:
        raise ValueError(
            f"batch_size={given} was given; draws run {lane} at a time, so write a multiple of {lane}: "
            f"batch_size={lane * -(-int(given) // lane)}"
        )
    return int(given)


def _draws(rows: Rows, names: tuple[str, ...], info: dict[str, Any], number: int = 0) -> Draws:
    theta = {name.removeprefix("theta/"): value for name, value in rows.items() if name.startswith("theta/")}
    plain = Draws.from_arrays(theta, rows["x"], names)
    return Draws(plain.theta, plain.x, plain.names, plain.valid, plain.round + number, rows.get("log_q"), info)
