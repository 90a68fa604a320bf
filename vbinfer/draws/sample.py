"""Prior-predictive draws.

Theta comes from the prior or a proposal, x from the simulator, in batches, resumable.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array

from vbinfer._names import SimulatorLike
from vbinfer.draws.draws import Draws
from vbinfer.draws.proposals import Proposal
from vbinfer.draws.request import DrawRequest, fingerprint
from vbinfer.draws.store import Rows, Store
from vbinfer.execute.batches import feature_names, key_ints
from vbinfer.execute.executor import Executor
from vbinfer.io import npz
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
    series: bool = False,
    executor: Executor | None = None,
    progress: bool = True,
) -> Draws:
    """Draw parameters from the prior and simulate each.

    theta_i ~ p(theta), x_i ~ p(x | theta_i).
    Draw i uses `k_theta, k_sim = split(fold_in(key, i))` and runs among 64 neighbours (a simulator with an
    attribute `batch_width` says another number), whatever n, batch size, executor, device count or interruption: a
    longer run begins with the draws of a shorter one. The last batch is run whole. Draws with NaN or
    infinite summaries are kept, with `valid=False`.

    Args:
        prior: `vb.Prior`.
        simulator: `(theta, key) -> x [F]`, jitted and vmapped here; or an object with `.batch(theta, keys)`, such as
            `vb.ForwardModel`, whose `.check(prior)` and declared ranges are consulted before anything runs.
        n: number of draws.
        key: a JAX key.
        proposal: where theta comes from instead of the prior: `vb.neural.TruncatedPrior`, what `vb.neural.restrict`
            returns, or any object with `.sample(key=, n=)` and `.log_prob(theta)` over the prior's parameters and
            inside its support. Then theta comes in blocks of 1,024, block b from `fold_in(fold_in(key, 2^32 - 1), b)`,
            and the draws carry `log_q` and the proposal's `round`. Each proposal documents which estimators may train
            on its draws.
        batch_size: draws per shard of the store, a multiple of 64; by default that of the store in the folder, and 64
            for a new one, doubled until 256 shards are enough.
        store: a folder. Finished shards are read from it instead of simulated, new ones written to it; an interrupted
            run loses nothing that a shard holds, and a larger n appends. Several processes that run the same call at
            the same time share the work. `vb.stores.simulate_store` fills one without holding the draws in memory.
        series: also keep, in the store, what was recorded; `vb.stores.load_series(store)` reads it. The simulator needs
            `.batch_series(theta, keys) -> (x, ys)`, which `vb.ForwardModel` has.
        executor: where batches run; `vb.Local()`, all devices of this process, by default; `vb.Local(workers=n)` runs
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
        DrawRequest.of(
            prior, simulator, n, key=key, proposal=proposal, batch_size=batch_size, store=store, series=series
        ),
        executor,
        progress,
    )
    if not draws.valid.any():
        kept = f"; they are kept in {str(store)!r}, vb.load({str(store)!r}) reads them" if store is not None else ""
        raise RuntimeError(
            f"all {n} draws failed: every summary holds NaN or infinite numbers{kept}. "
            f"Look at one draw, simulator(prior.sample(key=key), key), then narrow the prior or mend the simulator"
        )
    return draws


def simulate_draws(request: DrawRequest, executor: Executor | None = None, progress: bool = True) -> Draws:
    """The draws of a request, failed or not."""
    began = time.perf_counter()
    found = request.run(executor, progress)
    seconds = time.perf_counter() - began
    made, store = request.simulate, request.store
    info = {
        "seconds": seconds,
        "draws_per_second": found.simulated / seconds if found.simulated else None,
        "simulated": found.simulated,
        "read": found.read,
        "key": key_ints(made.key),
        "versions": npz.versions(),
        "simulator": fingerprint(made.simulator) if store is None else store.study["simulator"],
        "batch_size": request.batch_size,
        "store": None if store is None else str(store.folder.path),
    }
    number = 0 if made.drawn is None else made.drawn.round
    rows = found.rows()
    return _draws(rows, feature_names(made.simulator, rows["x"].shape[1]), info, number)


def load_store(folder: str | Path) -> Draws:
    """Load the finished draws of a store.

    This is what `vb.load(folder)` returns; the simulator is not needed.
    """
    store = Store.of(folder)
    shards = [rows for _, rows in store]
    if not shards:
        raise ValueError(f"the store {str(folder)!r} holds no finished draws yet")
    rows = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    return stored_draws(store.study, rows, folder, simulated=0, read=len(rows["x"]))


def stored_draws(study: Mapping[str, Any], rows: Rows, folder: str | Path, **more: Any) -> Draws:
    """Rows of a store as `Draws`.

    Their provenance is what the study says, and `more`.
    """
    info = {"key": study["key"]["words"], "simulator": study["simulator"], "batch_size": study["batch_size"]}
    info = {**info, "store": str(folder), **more}
    return _draws(rows, study["features"], info, study.get("proposal", {}).get("round", 0))


def _draws(rows: Rows, names: Sequence[str] | None, info: dict[str, Any], number: int = 0) -> Draws:
    theta = {name.removeprefix("theta/"): value for name, value in rows.items() if name.startswith("theta/")}
    plain = Draws.from_arrays(theta, rows["x"], None if names is None else tuple(names))
    return dataclasses.replace(plain, round=plain.round + number, log_q=rows.get("log_q"), info=info)
