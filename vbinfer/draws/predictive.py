"""Posterior-predictive draws: what the fitted model would record next."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import SimulatorLike
from vbinfer.draws.draws import finite_rows
from vbinfer.draws.request import check_callable
from vbinfer.execute.batches import batch_rows, checked, feature_names, joined, recorded
from vbinfer.execute.executor import Executor, executor_or_local, in_order


class Chains(Protocol):
    """Draws in chains, as `vb.Posterior` has them."""

    @property
    def theta(self) -> Mapping[str, np.ndarray]: ...
    @property
    def num_chains(self) -> int: ...
    @property
    def num_samples(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Predictive:
    """Simulations at draws of a posterior.

    Attributes:
        x: summaries `[n, F]`.
        names: names of the F summaries.
        ys: recordings `[n, T, N]`, if they were asked for; a dictionary where several monitors are summarised.
        valid: `[n]`, False where a simulation failed.
        theta: the parameters simulated, leaves `[n, ...]`.
    """

    x: np.ndarray
    names: tuple[str, ...]
    ys: Any
    valid: np.ndarray
    theta: dict[str, np.ndarray]


def posterior_predictive(
    posterior: Chains,
    fwd: SimulatorLike,
    *,
    n: int,
    key: Array,
    series: bool = False,
    executor: Executor | None = None,
) -> Predictive:
    """Simulate draws of a posterior.

    theta_j ~ p(theta | x_o) without replacement, x_j ~ p(x | theta_j).

    Args:
        posterior: draws, all chains pooled.
        fwd: `(theta, key) -> x [F]`, or an object with `.batch`; `series=True` needs `.batch_series`, which
            `vb.ForwardModel` has.
        n: number of simulations, at most the number of posterior draws.
        key: a JAX key; `k_pick, k_sim = split(key)`, simulation j uses `fold_in(k_sim, j)`.
        series: also keep what was recorded, `[n, T, N]`.
        executor: where batches run; `vb.Local()` by default.

    Returns:
        `Predictive` with n rows.

    Raises:
        ValueError: n is not between 1 and the number of posterior draws; the simulator makes no series.
    """
    key = _check.key(key)
    check_callable(fwd)
    if not hasattr(posterior, "num_chains"):
        raise TypeError(f"posterior was given a {type(posterior).__name__}; expected draws, such as a vb.Posterior")
    total = posterior.num_chains * posterior.num_samples
    if not _check.is_count(n) or not 1 <= n <= total:
        raise ValueError(f"n={n!r} was given; this posterior has {total} draws, so write a number from 1 to {total}")
    simulate = recorded(fwd, series)
    k_pick, k_sim = jax.random.split(key)
    picked = np.asarray(jax.random.permutation(k_pick, total))[:n]  # without replacement
    theta = {name: value.reshape(total, *value.shape[2:])[picked] for name, value in posterior.theta.items()}
    rows = batch_rows(n)  # a short tail repeats its last row: every program has one width

    def batch(number: int, device: Any) -> tuple[np.ndarray, Any]:
        index = rows[number]
        keys = jax.vmap(lambda i: jax.random.fold_in(k_sim, i))(jnp.asarray(index, jnp.uint32))
        put = {name: jax.device_put(value[index], device) for name, value in theta.items()}
        x, ys = simulate(put, jax.device_put(keys, device))
        x = checked(x)
        feature_names(fwd, x.shape[1])  # other names than features are told here, not after the last batch
        return x, jax.tree.map(np.asarray, ys)

    x, ys = joined(in_order(executor_or_local(executor), batch, range(len(rows))), n)
    return Predictive(x, feature_names(fwd, x.shape[1]), ys, finite_rows(x), theta)
