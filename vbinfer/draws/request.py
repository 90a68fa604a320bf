"""A run of draws with its arguments checked: what `sample_prior_predictive` and `simulate_store` share."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.draws.proposals import Proposal, Proposed
from vbinfer.draws.runner import Runner, batch_width_of, check_simulator, study_of
from vbinfer.draws.schedule import Gathered, Plan, gather
from vbinfer.draws.store import MANIFEST, Store
from vbinfer.execute.executor import Executor, Local
from vbinfer.priors.prior import Prior

_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Job:
    """The draws 0 to n - 1 of one study, in memory or in a store."""

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
        *,
        key: Any,
        proposal: Proposal | None = None,
        batch_size: int | None = None,
        store: str | Path | None = None,
        series: bool = False,
    ) -> "Job":
        """Everything that can be known to be wrong is said before anything runs."""
        key, n, width = _check.key(key), _check.count(n, "n"), batch_width_of(simulator)
        batch_size = _batch_size(batch_size, n, width, store)
        check_simulator(prior, simulator)
        if series and store is None:
            raise ValueError("series=True keeps recordings beside the draws of a store; give store=, a folder")
        proposed = None if proposal is None else Proposed.draw(prior, proposal, width * -(-n // width), key)
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
        plan = Plan.of(self.n, self.runner.batch_width, self.batch_size, part, keep)
        found = gather(plan, self.runner, self.store, executor or Local(), progress)
        return found, time.perf_counter() - began


def _batch_size(given: object, n: int, width: int, store: str | Path | None) -> int:
    """The draws per shard: those asked for, those of a store that is there, or as many as make 256 shards or fewer."""
    if given is None:
        if store is not None and (Path(store) / MANIFEST).is_file():
            try:
                stored = int(Store.of(store).study["batch_size"])
                if stored % width == 0:  # else it is of another simulator
                    return stored
            except (ValueError, TypeError, KeyError):  # another format, or damage, which `Store.open` names
                pass
        doublings = max(0, (-(-n // (width * _SHARDS)) - 1).bit_length())
        return width * 2**doublings
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < 1:
        raise ValueError(f"batch_size={given!r} was given; expected a multiple of {width}, such as {4 * width}")
    if given % width:
        raise ValueError(
            f"batch_size={given} was given; draws run {width} at a time, so write a multiple of {width}: "
            f"batch_size={width * -(-int(given) // width)}"
        )
    return int(given)
