"""Population Monte Carlo ABC: particles that move towards x_o."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer.approximate.rejection import Distance, distances, posterior, scale, standardised
from vbinfer.draws.draws import finite_rows
from vbinfer.draws.request import check_simulator
from vbinfer.execute.batches import WIDTH, batched, checked, feature_names
from vbinfer.neural.scaler import check_observation
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.problem import constrained
from vbinfer.sampling.tempering import systematic

_JITTER = 1e-10


def smc_abc(
    prior: Prior,
    simulator: SimulatorLike,
    x_o: Any,
    *,
    key: Array,
    num_particles: int = 1_000,
    epsilon: float | None = None,
    quantile: float = 0.5,
    min_acceptance: float = 0.02,
    max_rounds: int = 30,
    distance: Distance | None = None,
) -> Posterior:
    """Population Monte Carlo: ABC while epsilon falls.

    Particles move towards x_o. Round 0 takes particles z_i from the prior; the scale of the standardised distance is
    that of their summaries. Then

    epsilon_t = quantile of the distances of round t - 1
    z* = z_j + N(0, 2 C), j by weight, C the weighted covariance; kept if d(x*, x_o) <= epsilon_t
    w_i = p(z_i) / sum_j w_j N(z_i; z_j, 2 C)

    until `num_particles` are kept. It ends when epsilon is reached, when less than `min_acceptance` of a round's
    proposals were kept, or after `max_rounds`. Over z, nothing leaves the prior. The last particles are resampled by
    weight, so that some are there twice: `info["effective_size"]` says how many they are worth.

    Needs fewer simulations than `rejection_abc` for the same epsilon, but they are of use for this x_o only.

    Args:
        prior: `vb.Prior`.
        simulator: `(theta, key) -> x [F]`, or an object with `.batch`.
        x_o: observed summary `[F]`.
        key: a JAX key.
        num_particles: particles of every round.
        epsilon: the distance to reach; as small as the acceptance allows by default.
        quantile: of the distances, that becomes the next epsilon.
        min_acceptance: share of proposals kept below which it ends. A round is given up at half of it.
        max_rounds: rounds at most.
        distance: your own, `(x [n, F], x_o [F]) -> [n]`; by default that of `rejection_abc`.

    Returns:
        A posterior of one chain with the distances in `sample_stats`; `info` holds the lists `epsilons` and
        `acceptances`, one per finished round, `num_simulations`, `effective_size`, `stopped`.

    Raises:
        ValueError: NaN in x_o or another width; options that are no shares.
        RuntimeError: fewer than half of the draws of the prior are valid after 10 n of them.

    Beaumont et al. 2009, Biometrika, doi:10.1093/biomet/asp052; Toni et al. 2009, J. R. Soc. Interface,
    doi:10.1098/rsif.2008.0172.

    Example:
        posterior = vb.approximate.smc_abc(prior, simulator, x_o, num_particles=1_000, key=jax.random.key(0))
    """
    started, key = time.perf_counter(), _check.key(key)
    n, rounds = _check.count(num_particles, "num_particles"), _check.count(max_rounds, "max_rounds", 30)
    _check.fraction(quantile, "quantile")
    _check.fraction(min_acceptance, "min_acceptance", 0.02)
    if epsilon is not None:
        epsilon = _check.number(epsilon, "epsilon", 0.5, "a distance of at least 0", least=0.0)
    check_simulator(prior, simulator)
    run = _Simulations(prior, simulator)
    k_prior, k_moves, k_pick = jax.random.split(key, 3)
    z, x = run.from_prior(n, k_prior)
    x_o = check_observation(x_o, feature_names(simulator, x.shape[1]), ndim=1)
    measure = distance or standardised(scale(x))
    now = _Particles(z, distances(measure, x, x_o), np.full(n, 1.0 / n))
    epsilons, acceptances = [float(now.distance.max())], [n / run.count]
    few, stopped = f"fewer than {100 * min_acceptance:g}% of the proposals were kept", ""
    while not stopped:
        if len(epsilons) >= rounds:
            stopped = f"max_rounds={max_rounds} was reached"
        elif epsilon is not None and epsilons[-1] <= epsilon:
            stopped = f"epsilon={epsilon:g} was reached"
        else:
            before, level = run.count, max(float(np.quantile(now.distance, quantile)), epsilon or 0.0)
            near = functools.partial(_near, measure, x_o, level)
            after = _move(run, now, near, jax.random.fold_in(k_moves, len(epsilons)), min_acceptance)
            if after is None:
                stopped = f"{few} at epsilon={level:.3g}"
            else:
                now, epsilons, acceptances = after, [*epsilons, level], [*acceptances, n / (run.count - before)]
                stopped = few if acceptances[-1] < min_acceptance else ""
    rows = _equally_weighted(now.weight, k_pick)
    levels = {"epsilon": epsilons[-1], "epsilons": epsilons, "acceptances": acceptances}
    worth = {"num_simulations": run.count, "effective_size": float(1.0 / np.sum(now.weight**2)), "stopped": stopped}
    info = provenance("SMC ABC", key, started) | levels | worth
    return posterior(prior, now.z[rows], now.distance[rows], x_o, info)


def _equally_weighted(weight: np.ndarray, key: PRNGKey) -> np.ndarray:
    """Rows by weight, in random order.

    Resampling leaves copies side by side.
    """
    k_resample, k_order = jax.random.split(key)
    return np.asarray(jax.random.permutation(k_order, systematic(k_resample, jnp.asarray(weight))))


class _Particles(NamedTuple):
    """Places, distances to x_o, and weights that sum to one."""

    z: np.ndarray
    distance: np.ndarray
    weight: np.ndarray


class _Simulations:
    """Simulates z `[n, D]` in batches, and counts."""

    def __init__(self, prior: Prior, simulator: SimulatorLike) -> None:
        self._prior, self._batch, self.count = prior, batched(simulator), 0

    def log_prior(self, z: np.ndarray) -> np.ndarray:
        """Log density of z under the prior `[n]`."""
        theta, log_det = constrained(self._prior, z)
        return np.asarray(self._prior.log_prob(theta) + log_det, np.float64)

    def __call__(self, z: np.ndarray, key: PRNGKey) -> np.ndarray:
        """x of z `[WIDTH, D]`."""
        self.count += len(z)
        return checked(self._batch(constrained(self._prior, z)[0], jax.random.split(key, WIDTH)))

    def from_prior(self, n: int, key: PRNGKey) -> tuple[np.ndarray, np.ndarray]:
        """The first n valid draws of the prior."""
        places, summaries, found = [], [], 0
        for i in range(10 * -(-n // WIDTH)):
            k_draw, k_run = jax.random.split(jax.random.fold_in(key, i))
            theta = self._prior.sample(key=k_draw, n=WIDTH)
            z = np.asarray(self._prior.ravel_z(self._prior.unconstrain(theta)), np.float64)
            x = self(z, k_run)
            good = finite_rows(x)
            places.append(z[good])
            summaries.append(x[good])
            found += int(good.sum())
            if found >= n:
                return np.concatenate(places)[:n], np.concatenate(summaries)[:n]
        raise RuntimeError(
            f"{found} of {self.count} simulations at draws of the prior were valid, {n} particles are needed; narrow "
            "the prior, mend the simulator, or lower num_particles"
        )


def _move(
    run: _Simulations, now: _Particles, near: Callable[[np.ndarray], Any], key: PRNGKey, min_acceptance: float
) -> _Particles | None:
    """The next population, or None.

    None where too few proposals are kept.
    """
    n, dim = now.z.shape
    # twice the weighted covariance of the particles (Beaumont et al. 2009): wide enough to cover what is lost
    root = np.linalg.cholesky(2.0 * np.cov(now.z.T, aweights=now.weight).reshape(dim, dim) + _JITTER * np.eye(dim))
    places, far, found = [], [], 0
    for i in range(int(np.ceil(2.0 * n / (min_acceptance * WIDTH)))):
        k_pick, k_step, k_run = jax.random.split(jax.random.fold_in(key, i), 3)
        u = np.asarray(jax.random.uniform(k_pick, (WIDTH,)), np.float64)
        chosen = np.minimum(np.searchsorted(np.cumsum(now.weight), u), n - 1)
        z = now.z[chosen] + np.asarray(jax.random.normal(k_step, (WIDTH, dim)), np.float64) @ root.T
        kept, d = near(run(z, k_run))
        places.append(z[kept])
        far.append(d[kept])
        found += int(kept.sum())
        if found >= n:
            z = np.concatenate(places)[:n]
            # prior over proposal: a particle drawn often, because many were near, counts less each time
            log_weight = run.log_prior(z) - _log_mixture(z, now, root)
            weight = np.exp(log_weight - log_weight.max())
            return _Particles(z, np.concatenate(far)[:n], weight / weight.sum())
    return None


def _log_mixture(z: np.ndarray, now: _Particles, root: np.ndarray) -> np.ndarray:
    """Log density of a Gaussian mixture, up to a constant.

    log sum_j w_j N(z_i; z_j, root root').
    """
    white, centres = np.linalg.solve(root, z.T).T, np.linalg.solve(root, now.z.T).T
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b:  n x n numbers at a time, not n x n x D
    square = (white**2).sum(1)[:, None] + (centres**2).sum(1)[None] - 2.0 * white @ centres.T
    exponent = -0.5 * np.maximum(square, 0.0) + np.log(np.maximum(now.weight, 1e-300))[None]
    top = exponent.max(axis=1, keepdims=True)
    return np.log(np.exp(exponent - top).sum(axis=1)) + top[:, 0]


def _near(measure: Distance, x_o: np.ndarray, level: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which simulations are valid and near, and all distances."""
    valid = finite_rows(x)
    d = distances(measure, np.where(valid[:, None], x, 0.0), x_o)
    return valid & (d <= level), d
