"""Fisher information of features near one point, from simulations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer.draws.draws import finite_rows
from vbinfer.execute.batches import batched, map_batches
from vbinfer.priors.prior import Prior

_PRESENT = 1e-9


class Information(NamedTuple):
    """Local information of F features about z."""

    jacobian: np.ndarray
    """d mean(x) / d z `[F, D]`."""
    noise: np.ndarray
    """Covariance of the features over repeats at one theta `[F, F]`."""
    fisher: np.ndarray
    """J' S^-1 J `[D, D]`."""
    loss: np.ndarray
    """Nats of information that go with each feature if the others stay `[F]`."""
    alone: np.ndarray
    """Nats that each feature gives by itself `[F]`."""
    total: float
    """Nats of all features together."""
    num_failed: int
    num_simulated: int


def local_information(
    prior: Prior, fwd: SimulatorLike, z: np.ndarray, steps: np.ndarray, *, key: PRNGKey, num_repeats: int
) -> Information:
    """Fisher information about z at one point.

    For features taken as normal with constant covariance:

        J u_k = [mean x(z + u_k) - mean x(z - u_k)] / 2      over repeats with the same noise on both sides
        fisher = J' S^-1 J,    S the covariance over repeats at z
        nats = 1/2 log det(I + fisher)                        the prior of z being standard normal

    S^-1 is scaled by (R - F - 2) / (R - 1), which makes the inverse of a covariance from R repeats unbiased (Hartlap,
    Simon & Schneider 2007, doi:10.1051/0004-6361:20066170). What the width of x says of theta is not counted.

    Args:
        prior: of the parameters.
        fwd: `(theta, key) -> x`; `.batch` is used.
        z: the point `[D]`.
        steps: D independent directions u_k as rows `[D, D]`.
        key: noise of the simulations.
        num_repeats: R at the centre; a quarter as many, at least 16, for each end of each step.
    """
    ends = max(16, num_repeats // 4)
    k_centre, k_steps = jax.random.split(key)
    centre = _simulate(prior, fwd, np.tile(z, (num_repeats, 1)), jax.random.split(k_centre, num_repeats))
    # the same noise on both sides of a step cancels in the difference, and a quarter of the repeats is enough
    same = jax.random.split(k_steps, ends)
    points = np.repeat([z + sign * u for u in steps for sign in (1.0, -1.0)], ends, axis=0)
    moved = _simulate(prior, fwd, points, jnp.tile(same, 2 * len(steps))).reshape(len(steps), 2, ends, -1)
    fine, there = finite_rows(centre), np.all(np.isfinite(moved), axis=-1)
    failed, r, num_features = int(np.sum(~fine) + np.sum(~there)), int(fine.sum()), centre.shape[1]
    # a pair counts where both of its ends are valid; steps u_k may differ in how many
    both = there.all(axis=1)
    if r < num_features + 10 or both.sum(axis=1).min() < 4:
        raise ValueError(
            f"{r} of {num_repeats} simulations at the posterior mean and {int(both.sum())} of "
            f"{both.size} pairs around it are valid, for {num_features} features; sensitivity needs at least "
            f"{num_features + 10} at the mean and 4 pairs each: raise num_repeats to {2 * num_features + 40} or more, "
            "and look at why simulations fail there"
        )
    change = 0.5 * (moved[:, 0] - moved[:, 1])
    difference = np.stack([one[valid].mean(axis=0) for one, valid in zip(change, both, strict=True)])
    # differences along u_k are J u_k: solve for J
    jacobian = np.linalg.solve(steps, difference).T
    noise = np.atleast_2d(np.cov(centre[fine].T))
    return _summed(jacobian, noise, (r - num_features - 2) / (r - 1), failed, len(centre) + len(points))


def _summed(jacobian: np.ndarray, noise: np.ndarray, scale: float, failed: int, simulated: int) -> Information:
    """Information from a Jacobian and a noise covariance.

    Features are taken in units of their noise; one that never varies, and does not move either, says nothing.
    """
    sd = np.sqrt(np.diagonal(noise))
    moves = np.abs(jacobian).max(axis=1)
    sd = np.maximum(sd, 1e-4 * moves)  # a feature without noise is not taken to know everything
    told = sd > _PRESENT * max(float(sd.max()), 1e-300)
    unit = np.where(told, sd, 1.0)
    slopes, correlation = (jacobian / unit[:, None])[told], (noise / np.outer(unit, unit))[np.ix_(told, told)]
    # with a floor under the noise the diagonal is below 1: set it, and keep the matrix invertible
    np.fill_diagonal(correlation, 1.0)
    correlation += 1e-9 * np.eye(len(correlation))

    def fisher(rows: np.ndarray) -> np.ndarray:
        part = slopes[rows]
        return scale * part.T @ np.linalg.solve(correlation[np.ix_(rows, rows)], part)

    def nats(rows: np.ndarray) -> float:
        return float(0.5 * np.linalg.slogdet(np.eye(jacobian.shape[1]) + fisher(rows))[1])

    every = np.arange(len(slopes))
    total = nats(every)
    loss, alone = np.zeros(len(sd)), np.zeros(len(sd))
    # leave one feature out, and take one feature alone: what others carry too is not lost
    loss[told] = [total - nats(np.delete(every, i)) for i in every]
    alone[told] = [nats(every[i : i + 1]) for i in every]
    return Information(jacobian, noise, fisher(every), loss, alone, total, failed, simulated)


def _simulate(prior: Prior, fwd: SimulatorLike, z: np.ndarray, keys: Any) -> np.ndarray:
    """Summaries of rows of z, in batches of one width."""
    run = batched(fwd)

    def batch(rows: np.ndarray) -> np.ndarray:
        theta = prior.constrain(prior.unravel_z(jnp.asarray(z[rows])))[0]
        return np.asarray(run(theta, keys[rows]), np.float64)

    x = map_batches(batch, len(z))
    if x.ndim != 2:
        raise ValueError(f"the simulator returned {list(x.shape[1:])} for one draw; expected [feature]")
    return x
