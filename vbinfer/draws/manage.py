"""Fill, inspect and merge stores; read recordings."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import SimulatorLike
from vbinfer.draws.proposals import Proposal
from vbinfer.draws.request import DrawRequest
from vbinfer.draws.store import MANIFEST, SERIES, Store, held
from vbinfer.execute.executor import Executor
from vbinfer.io.folder import differences
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class StoreStatus:
    """What a store holds, from the headers of its shards.

    Attributes:
        draws: finished draws.
        failed: those of them with NaN or infinite summaries.
        shards: files.
        bytes: on disk, recordings included.
        batch_size: draws per shard.
        features: per draw; None before the first shard where the simulator names none.
        rate: draws per second between the first and the last shard that were written, pauses included; NaN below two.
        age: seconds since the last shard; NaN if there is none.
    """

    folder: Path
    draws: int
    failed: int
    shards: int
    bytes: int
    batch_size: int
    features: int | None
    rate: float
    age: float

    @classmethod
    def of(cls, folder: str | Path) -> "StoreStatus":
        """Read the status, also while others write.

        Raises:
            ValueError: no store, or a damaged one.
        """
        folder = Path(folder)
        study, shards = Store.of(folder).study, held(folder)
        times = sorted(part.path.stat().st_mtime for part in shards)
        draws = sum(part.rows for part in shards)
        # the first shard ends the clock's first interval: its draws are not counted in the rate
        span = times[-1] - times[0] if len(times) > 1 else 0.0
        return cls(
            folder=folder,
            draws=draws,
            failed=sum(part.failed for part in shards),
            shards=len(shards),
            bytes=sum(path.stat().st_size for path in folder.glob("*.npz")),
            batch_size=study["batch_size"],
            features=None if study["features"] is None else len(study["features"]),
            rate=(draws - shards[0].rows) / span if span > 0 else float("nan"),
            age=max(0.0, time.time() - times[-1]) if times else float("nan"),
        )

    def line(self, wanted: int | None = None) -> str:
        """Draws, of those wanted, their size, age and rate."""
        many = f"{self.draws:,}" if wanted is None else f"{min(self.draws, wanted):,} of {wanted:,}"
        words = f"{many} draws in {self.shards:,} shards, {self.bytes / 1e6:,.1f} MB"
        if self.draws:
            words += f", {100 * self.failed / self.draws:.3g} % failed"
        if np.isfinite(self.age):
            words += f"; last shard {as_time(self.age)} ago"
        if self.rate > 0:
            words += f", {as_rate(self.rate)} draws/s"
            if wanted is not None and wanted > self.draws:
                words += f", about {as_time((wanted - self.draws) / self.rate)} left at that rate"
        return words

    def __str__(self) -> str:
        return f"{self.folder}: {self.line()}"


def as_rate(rate: float) -> str:
    """Draws per second as people write it.

    >>> as_rate(0.01234), as_rate(30_412.3)
    ('0.0123', '30,412')
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def as_time(seconds: float) -> str:
    """Seconds as people say it.

    >>> as_time(59.6), as_time(600.0), as_time(9_000.0), as_time(260_000.0)
    ('60 s', '10 min', '2 h', '3 days')
    """
    for size, unit, most in ((1, "s", 120), (60, "min", 7_200), (3_600, "h", 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def simulate_store(
    prior: Prior,
    simulator: SimulatorLike,
    n: int,
    *,
    key: Array,
    store: str | Path,
    part: tuple[int, int] = (1, 1),
    proposal: Proposal | None = None,
    batch_size: int | None = None,
    series: bool = False,
    executor: Executor | None = None,
    progress: bool = True,
) -> StoreStatus:
    """Simulate prior-predictive draws into a store.

    The draws of `vb.sample_prior_predictive`, with no more than a few shards in memory.

    Args:
        prior: `vb.Prior`.
        simulator: as for `vb.sample_prior_predictive`, like all that is not said here.
        n: draws of the whole store, whichever part of it this call runs.
        key: a JAX key.
        store: the folder; what is in it is not run again.
        part: `(i, of)`, run shards i, i + of, i + 2 of, ... (i from 1): the share of one job of an array. Jobs may
            also all run the whole: each claims the shards that it works on, and leaves the others to the others.
        proposal: where theta comes from instead of the prior.
        batch_size: draws per shard.
        series: keep what was recorded as well.
        executor: where batches run.
        progress: show a bar.

    Returns:
        What the store holds now. `vb.load(store)` gives the draws.

    Raises:
        ValueError: as `vb.sample_prior_predictive`; a part that is none.

    Example:
        >>> import tempfile, jax, numpyro.distributions as dist, vbinfer as vb
        >>> prior = vb.Prior({"g": dist.Uniform(0.0, 1.0)})
        >>> simulator = lambda theta, key: theta["g"] + jax.random.normal(key, (2,))
        >>> folder = tempfile.mkdtemp()
        >>> for i in (1, 2):
        ...     status = simulate_store(prior, simulator, 200, key=jax.random.key(0), store=folder, part=(i, 2),
        ...                             progress=False)
        >>> status.draws, len(vb.load(folder))
        (256, 256)
    """
    i, of = _part(part)
    request = DrawRequest.of(
        prior, simulator, n, key=key, proposal=proposal, batch_size=batch_size, store=store, series=series
    )
    request.run(executor, progress, (i, of), keep=False)
    return StoreStatus.of(store)


def _part(part: Any) -> tuple[int, int]:
    pair = tuple(part) if isinstance(part, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(_check.is_count, pair)) or not 1 <= pair[0] <= pair[1]:
        raise ValueError(f"part={part!r} was given; expected (i, of) with 1 <= i <= of, such as part=(1, 8)")
    return pair[0], pair[1]


def merge_stores(store: str | Path, *others: str | Path) -> StoreStatus:
    """Merge stores of one study.

    Of a shard that several have, the longest is taken.
    Every shard is checked before it is taken over. The others are left as they are.

    Args:
        store: the folder to fill, new or of the same study.
        others: the stores to take from.

    Raises:
        ValueError: no other store; stores of different studies (the message lists what differs), which
            `vb.Draws.concatenate` joins in memory; a damaged shard.
    """
    if not others:
        raise ValueError("merge_stores was given nothing to merge; write merge_stores('all', 'part-1', 'part-2')")
    sources = [Store.of(_store_in(Path(other))) for other in others]
    first = sources[0]
    for source in sources[1:]:
        lines = differences(first.study, source.study)
        if lines:
            raise ValueError(
                f"'{first.folder.path}' and '{source.folder.path}' hold draws of different studies "
                "(this call: the second):\n"
                + "\n".join(lines)
                + "\nvb.Draws.concatenate([vb.load(a), vb.load(b)]) joins draws of several studies in memory."
            )
    target = Store.open(store, first.study)
    try:
        for source in sources:
            for part in held(source.folder.path):
                rows = source.rows(part.shard)
                if source.study.get("series"):
                    rows |= source.recordings(part.shard, len(rows["x"]))
                while not target.claims.acquire(part.shard):  # somebody is at work on it
                    time.sleep(1.0)
                target.read(part.shard, mend=True)  # a damaged one makes way
                target.write(part.shard, rows)
                target.claims.release(part.shard)
    finally:
        target.claims.close()
    return StoreStatus.of(store)


def _store_in(folder: Path) -> Path:
    """The folder of a store, or of its run."""
    inside = folder / "store"
    return inside if (inside / MANIFEST).is_file() and not (folder / MANIFEST).is_file() else folder


def load_series(store: str | Path) -> Iterator[dict[str, np.ndarray]]:
    """Read stored recordings shard by shard.

    Each is `{monitor: y [draw, T, ...]}`, in the order of the draws.

    Raises:
        ValueError: the store keeps none, or a damaged one.
    """
    source = Store.of(store)
    if not source.study.get("series"):
        raise ValueError(f"the store {str(store)!r} keeps no recordings; simulate it with series=True, in a new folder")
    found = (source.recordings(part.shard, part.rows) for part in held(store))
    return ({name.removeprefix(SERIES): y for name, y in ys.items()} for ys in found)
