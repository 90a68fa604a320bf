"""Requests for draws; simulation of one batch."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer._param import range_text
from vbinfer.draws.proposals import Proposal, ProposalDraws
from vbinfer.draws.schedule import Schedule, run
from vbinfer.draws.store import SERIES, Rows, Store
from vbinfer.execute.batches import WIDTH, checked, feature_names, key_ints, recorded
from vbinfer.execute.executor import Executor, executor_or_local
from vbinfer.execute.options import deterministic_xla
from vbinfer.io.fingerprint import UnhashableError, traced
from vbinfer.priors.prior import Prior

TOLERATED = 1e-6
"""Prior mass outside a range that is left to fail as single draws."""
_SHARDS = 256
"""Shards of a new store, at most."""
_SETTINGS = ("jax_threefry_partitionable", "jax_default_matmul_precision", "jax_random_seed_offset")
"""Of those settings of JAX that change numbers, the ones that key and precision do not tell."""


@dataclasses.dataclass(frozen=True)
class DrawRequest:
    """The first n draws of a study.

    They go into memory or into a store.
    """

    n: int
    batch_size: int
    store: Store | None
    simulate: "BatchSimulator"

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
    ) -> "DrawRequest":
        """Check a request before anything runs."""
        key, n, width = _check.key(key), _check.count(n, "n"), batch_width_of(simulator)
        batch_size = _batch_size(batch_size, n, width, store)
        _check.of_kind(prior, "prior", Prior, "vb.Prior({path: distribution})")
        check_simulator(prior, simulator)
        if series and store is None:
            raise ValueError("series=True keeps recordings beside the draws of a store; give store=, a folder")
        # before the store is opened: its first block is part of the study
        drawn = None if proposal is None else ProposalDraws.draw(prior, proposal, width * -(-n // width), key)
        simulate = BatchSimulator(prior, simulator, key, drawn, series)
        folder = None if store is None else Store.open(store, _study(simulate, batch_size))
        return cls(n, batch_size, folder, simulate)

    def run(
        self, executor: Executor | None, progress: bool, part: tuple[int, int] = (1, 1), keep: bool = True
    ) -> Schedule:
        """What was simulated and read."""
        schedule = Schedule(self.n, self.simulate.batch_width, self.batch_size, self.store, part, keep)
        run(schedule, self.simulate, executor_or_local(executor), progress)
        return schedule


@dataclasses.dataclass(eq=False)
class BatchSimulator:
    """Simulate one batch: `(batch, device) -> rows`.

    What is sent to other processes are its fields.
    Draw i is made of `k_theta, k_sim = split(fold_in(key, i))`. A batch is always run whole.
    """

    prior: Prior
    simulator: SimulatorLike
    key: PRNGKey
    drawn: ProposalDraws | None = None
    series: bool = False

    def __post_init__(self) -> None:
        self.batch_width = batch_width_of(self.simulator)
        self._run = recorded(self.simulator, self.series)

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchSimulator, (self.prior, self.simulator, self.key, self.drawn, self.series)

    def __call__(self, batch: int, device: Any) -> Rows:
        first, stop = batch * self.batch_width, (batch + 1) * self.batch_width
        index = np.arange(first, stop, dtype=np.uint32)
        # one compiled program draws theta and the keys of the whole batch, on its device
        theta, keys = _start(self.prior)(jax.device_put(self.key, device), jax.device_put(index, device))
        drawn = {} if self.drawn is None else self.drawn.part(first, stop)
        if drawn:  # the key of the simulator stays that of the draw
            theta = {name: jax.device_put(drawn[f"theta/{name}"], device) for name in self.prior.shapes}
        try:
            x, ys = self._run(theta, keys)
        except Exception as error:
            error.add_note(f"while draws {first} to {stop - 1} were simulated")
            raise
        x = checked(x, self.batch_width)
        feature_names(self.simulator, x.shape[1])  # other names than features are told here, not after the last batch
        if ys is not None and not isinstance(ys, dict):
            ys = {next(iter(getattr(self.simulator, "outputs", ())), "y"): ys}
        leaves = {f"theta/{name}": np.asarray(theta[name]) for name in self.prior.shapes}
        return {**leaves, "x": x, **drawn, **{SERIES + name: np.asarray(y) for name, y in (ys or {}).items()}}


@functools.lru_cache(maxsize=8)
def _start(prior: Prior) -> Any:
    """Compiled `(key, numbers) -> theta, keys of the simulator`."""

    def one(root: PRNGKey, index: jax.Array) -> tuple[Any, Any]:
        k_theta, k_sim = jax.random.split(jax.random.fold_in(root, index))
        return prior.sample(key=k_theta), k_sim

    return jax.jit(jax.vmap(one, in_axes=(None, 0)), compiler_options=deterministic_xla())


# ---- checks, and what identifies a study


def batch_width_of(simulator: Any) -> int:
    """Draws that run together: the simulator's own `.batch_width`, else 64."""
    return _check.count(getattr(simulator, "batch_width", WIDTH), "batch_width", "16")


def check_callable(simulator: Any) -> None:
    """Refuse what makes no summaries."""
    if not callable(simulator):
        raise TypeError(
            f"the simulator is a {type(simulator).__name__}; expected a function (theta, key) -> x [feature], such as "
            "vb.ForwardModel(sim, t1=..., summary=...)"
        )


def check_simulator(prior: Prior, simulator: Any) -> None:
    """Check a simulator before anything runs."""
    check_callable(simulator)
    if hasattr(simulator, "check"):
        simulator.check(prior)
    if hasattr(simulator, "ranges"):
        check_ranges(prior, simulator.ranges())


def _batch_size(given: object, n: int, width: int, store: str | Path | None) -> int:
    """Draws per shard.

    As asked, as in the store that is there, or so many that 256 shards are enough.
    """
    if given is None:
        stored = None if store is None else _stored_size(store)
        return stored if stored and stored % width == 0 else shard_size(n, width)  # else it is of another simulator
    size = _check.count(given, "batch_size", f"{4 * width}, a multiple of {width}")
    if size % width:
        raise ValueError(
            f"batch_size={given} was given; draws run {width} at a time, so write a multiple of {width}: "
            f"batch_size={width * -(-size // width)}"
        )
    return size


def shard_size(n: int, width: int) -> int:
    """Draws per shard of a new store of n."""
    return width * 2 ** max(0, (-(-n // (width * _SHARDS)) - 1).bit_length())


def _stored_size(store: str | Path) -> int | None:
    try:
        return int(Store.of(store).study["batch_size"])
    except (ValueError, TypeError, KeyError):  # none, another format, or damage, which `Store.open` names
        return None


def fingerprint(simulator: Any) -> str | None:
    """The simulator's own fingerprint, if it has one."""
    try:
        return str(simulator.fingerprint()) if hasattr(simulator, "fingerprint") else None
    except UnhashableError:
        return None


def _study(made: BatchSimulator, batch_size: int) -> dict[str, Any]:
    """What makes a store this study's and no other's."""
    prior, key = made.prior, made.key
    return {
        **({} if made.drawn is None else {"proposal": {"round": made.drawn.round, "first_block": made.drawn.mark}}),
        **({"series": True} if made.series else {}),
        "prior": prior.to_spec(),
        "batch_size": batch_size,
        **simulator_study(made.simulator, key, prior.shapes, lambda: prior.sample(key=key)),
    }


def simulator_study(
    simulator: Any, key: PRNGKey, shapes: Mapping[str, tuple[int, ...]], one: Callable[[], Any]
) -> dict[str, Any]:
    """Simulator, key and settings, on which simulations depend.

    `one()` is a theta, from which JAX is told what a plain function computes, and how many features it has.
    """
    mark, names = fingerprint(simulator), getattr(simulator, "names", None)
    if mark is None:
        try:
            mark, made = traced(simulator, one(), key)
        except UnhashableError as error:
            raise TypeError(
                f"store= needs to know which simulator made its draws, and {error}; "
                "give it a method fingerprint() that returns a string"
            ) from error
        if names is None and len(made) == 1 and len(made[0]) == 1:
            names = feature_names(simulator, made[0][0])
    return {
        "theta": {name: list(shape) for name, shape in shapes.items()},
        "features": None if names is None else list(names),
        "simulator": mark,
        "key": {"words": key_ints(key), "impl": str(jax.random.key_impl(key))},
        "batch_width": batch_width_of(simulator),
        "settings": {name: str(getattr(jax.config, name, None)) for name in _SETTINGS},
        "dtype": str(np.dtype(jax.dtypes.canonicalize_dtype(float))),
    }


# ---- the prior against declared ranges


def check_ranges(prior: Prior, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a prior with mass outside declared ranges.

    Up to 1e-6 of it is tolerated.

    Args:
        prior: the prior.
        ranges: path to `(low, high)`; paths that the prior does not have are ignored.

    Raises:
        ValueError: naming the parameter, the mass outside and the truncated prior to write instead.
    """
    names = [name for name in prior.shapes if name in ranges]
    bounds = {name: (float(ranges[name][0]), float(ranges[name][1])) for name in names}
    bounds = {name: both for name, both in bounds.items() if math.isfinite(both[0]) or math.isfinite(both[1])}
    if not bounds:
        return
    # from the CDF, not from draws: 1e-6 would take millions of them
    outside = prior.mass_outside(
        {name: low for name, (low, _) in bounds.items()}, {name: high for name, (_, high) in bounds.items()}
    )
    bad = {name: float(np.max(outside[name])) for name in bounds if np.max(outside[name]) > TOLERATED}
    if not bad:
        return
    lines = [
        f"the prior of {name!r} has {mass:.2g} of its mass outside {range_text(*bounds[name])}, where the parameter is "
        f"declared; write {_remedy(name, prior.dists[name], *bounds[name])}"
        for name, mass in bad.items()
    ]
    raise ValueError("\n".join(lines))


def _remedy(name: str, prior: Any, low: float, high: float) -> str:
    """The truncated prior to write instead."""
    base, shape = prior, tuple(prior.batch_shape) + tuple(prior.event_shape)
    # by name: numpyro wraps an expanded or vector-valued prior, and the person wrote what is inside
    while type(base).__name__ in ("Independent", "ExpandedDistribution"):
        base = base.base_dist
    kind, tail = type(base).__name__, f".expand({list(shape)})" if shape else ""
    # the overlap with what the prior is cut to; without one there is nothing to suggest but the range itself
    cut = (
        max(low, float(np.max(getattr(base, "low", -np.inf)))),
        min(high, float(np.min(getattr(base, "high", np.inf)))),
    )
    low, high = cut if cut[0] < cut[1] else (low, high)
    ends = [f"{side}={_number(value)}" for side, value in (("low", low), ("high", high)) if math.isfinite(value)]
    centre = getattr(base, "base_dist", base)  # of a truncated normal the normal
    if type(centre).__name__ == "Normal" and (centre is base or kind.endswith("TruncatedDistribution")):
        arguments = ", ".join([_number(centre.loc), _number(centre.scale), *ends])
        return f'"{name}": dist.TruncatedNormal({arguments}){tail}'
    if len(ends) < 2:
        return f'"{name}": dist.TruncatedNormal(loc, scale, {", ".join(ends)}){tail}, or another prior within the range'
    other = "" if kind == "Uniform" and cut == (low, high) else ", or another prior within the range"
    return f'"{name}": dist.Uniform({_number(low)}, {_number(high)}){tail}{other}'


def _number(value: Any) -> str:
    """A number as one writes it.

    The shortest text that gives it back in single precision, with a decimal point.
    """
    values = np.unique(np.asarray(value, np.float32))
    return str(float(str(values[0]))) if len(values) == 1 else "..."
