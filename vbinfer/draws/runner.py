"""What runs one batch of draws, and what makes a run's store its own."""

import functools
from typing import Any

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer.draws.proposals import Proposed
from vbinfer.draws.ranges import check_ranges
from vbinfer.draws.store import SERIES, Rows
from vbinfer.execute.batches import WIDTH, batched, batched_series, checked, feature_names, key_ints
from vbinfer.execute.options import deterministic_xla
from vbinfer.io.fingerprint import UnhashableError, traced
from vbinfer.priors.prior import Prior

_SETTINGS = ("jax_threefry_partitionable", "jax_default_matmul_precision", "jax_random_seed_offset")
"""Of those settings of JAX that change numbers, the ones that key and precision do not tell."""


class Runner:
    """`(batch, device) -> rows` of the draws of that batch; what is sent to other processes are its parts.

    Draw i is made of `k_theta, k_sim = split(fold_in(key, i))`. A batch is always run whole.
    """

    def __init__(
        self,
        prior: Prior,
        simulator: SimulatorLike,
        key: PRNGKey,
        proposed: Proposed | None = None,
        series: bool = False,
    ) -> None:
        self._prior, self._simulator, self._key, self._proposed, self._series = prior, simulator, key, proposed, series
        self.batch_width = batch_width_of(simulator)
        self._batch = series_of(simulator) if series else batched(simulator)
        self._start = _start(prior)
        self._known: tuple[str, ...] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self._prior, self._simulator, self._key, self._proposed, self._series)

    def __call__(self, batch: int, device: Any) -> Rows:
        first = batch * self.batch_width
        index = np.arange(first, first + self.batch_width, dtype=np.uint32)
        theta, keys = self._start(jax.device_put(self._key, device), jax.device_put(index, device))
        drawn = {} if self._proposed is None else self._proposed.part(first, first + self.batch_width)
        if drawn:
            theta = {name: jax.device_put(drawn[f"theta/{name}"], device) for name in self._prior.shapes}
        try:
            x, ys = self._batch(theta, keys) if self._series else (self._batch(theta, keys), {})
        except Exception as error:
            error.add_note(f"while draws {first} to {first + self.batch_width - 1} were simulated")
            raise
        x = checked(x, self.batch_width)
        if self._known is None:  # before the rest runs, not after it
            self._known = feature_names(self._simulator, x.shape[1])
        leaves = {f"theta/{name}": np.asarray(theta[name]) for name in self._prior.shapes}
        return {**leaves, "x": x, **drawn, **{SERIES + name: np.asarray(y) for name, y in ys.items()}}


@functools.lru_cache(maxsize=8)
def _start(prior: Prior) -> Any:
    """`(key, numbers of draws) -> theta, keys of the simulator`; compiled once for a prior, which does not change."""

    def one(root: PRNGKey, index: jax.Array) -> tuple[Any, Any]:
        k_theta, k_sim = jax.random.split(jax.random.fold_in(root, index))
        return prior.sample(key=k_theta), k_sim

    return jax.jit(jax.vmap(one, in_axes=(None, 0)), compiler_options=deterministic_xla())


def batch_width_of(simulator: Any) -> int:
    """The simulator's own `.batch_width`, draws that run together; else 64."""
    return _check.count(getattr(simulator, "batch_width", WIDTH), "batch_width", "16")


def series_of(simulator: Any) -> Any:
    """`(theta, keys) -> (x, {monitor: y})` of a simulator that makes series; an error if it makes none."""
    batch = batched_series(simulator)
    name = next(iter(getattr(simulator, "outputs", ())), "y")

    def run(theta: Any, keys: Any) -> tuple[Any, dict[str, Any]]:
        x, ys = batch(theta, keys)
        return x, dict(ys) if isinstance(ys, dict) else {name: ys}

    return run


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


def fingerprint(simulator: Any) -> str | None:
    """What a simulator says of itself; None if it says nothing."""
    return str(simulator.fingerprint()) if hasattr(simulator, "fingerprint") else None


def study_of(
    prior: Prior,
    simulator: Any,
    key: PRNGKey,
    batch_size: int,
    proposed: Proposed | None = None,
    series: bool = False,
) -> dict[str, Any]:
    """What makes a store this study's and no other's."""
    mark, names = fingerprint(simulator), getattr(simulator, "names", None)
    if mark is None:
        try:
            mark, shapes = traced(simulator, prior.sample(key=key), key)
        except UnhashableError as error:
            raise TypeError(
                f"store= needs to know which simulator made its draws, and {error}; "
                "give it a method fingerprint() that returns a string"
            ) from error
        if names is None and len(shapes) == 1 and len(shapes[0]) == 1:
            names = feature_names(simulator, shapes[0][0])
    drawn = {} if proposed is None else {"proposal": {"round": proposed.round, "first_block": proposed.mark}}
    return {
        **drawn,
        **({"series": True} if series else {}),
        "prior": prior.to_spec(),
        "theta": {name: list(shape) for name, shape in prior.shapes.items()},
        "features": None if names is None else list(names),
        "simulator": mark,
        "key": {"words": key_ints(key), "impl": str(jax.random.key_impl(key))},
        "batch_size": batch_size,
        "batch_width": batch_width_of(simulator),
        "settings": {name: str(getattr(jax.config, name, None)) for name in _SETTINGS},
        "dtype": str(np.dtype(jax.dtypes.canonicalize_dtype(float))),
    }
