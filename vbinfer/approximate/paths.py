"""Pathfinder: Gaussians along an optimiser's paths, importance resampled."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer.approximate.optimise import finite_draws
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.importance import posterior_over_theta, weighed
from vbinfer.sampling.problem import LogLikelihood, Problem, problem_of

_ELBO_DRAWS = 25
_CORRECTIONS = 6
_PROPOSALS = 4
"""Draws of the mixture per draw that is asked for."""


def pathfinder(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    *,
    num_paths: int = 4,
    num_samples: int = 1_000,
    max_steps: int = 60,
    key: Array,
) -> Posterior:
    """Multi-path Pathfinder: a mixture of Gaussians, importance resampled.

    The Gaussians are found on the way to the modes. Each path runs L-BFGS over z from its own draw of the prior. At
    step l, with the inverse Hessian S_l that L-BFGS has built and the gradient g_l of log p, q_l = N(z_l + S_l g_l,
    S_l); of these q_k of path k is the one with the highest ELBO, estimated from 25 draws. Draws come from the
    mixture

    q(z) = (1 / K) sum_k q_k(z),   log q(theta) = log q(z) - log|d theta / d z|

    and are resampled with Pareto-smoothed weights p(z, x_o) / q(z): better than q where Pareto k is below 0.7; above
    it there is a warning. The mean weight estimates the evidence, `log_evidence`.

    Use it as a quick look, and as the start of chains: `vb.sample_mcmc(..., init=posterior)`. Several paths find
    several modes, but the mass between them follows the weights only if the Gaussians fit the modes; it is blind to
    modes that no path reaches. Gradients only: no Hessian is computed.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, differentiable by JAX.
        x_o: the observation; passed on as it is.
        num_paths: independent paths.
        num_samples: draws that are returned.
        max_steps: L-BFGS steps of each path at most.
        key: a JAX key.

    Returns:
        `Posterior`, one chain: `log_prob` the normalised log q(theta) of the mixture, `log_evidence` the mean
        importance ratio; `info` has `pareto_k`, `path_share` (of the draws, by path), `elbo` by path.

    Raises:
        ValueError: no path left a Gaussian; no draw of the prior can be a start.

    References:
        Zhang, Carpenter, Gelman & Vehtari 2022, J. Mach. Learn. Res. 23(306), arXiv:2108.03782.

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(0.0, 1.0)})
        >>> log_likelihood = lambda theta, y: dist.Normal(theta["mu"], 1.0).log_prob(y)
        >>> posterior = vb.approximate.pathfinder(prior, log_likelihood, 2.0, num_paths=2, key=jax.random.key(0))
        >>> bool(abs(posterior.theta["mu"].mean() - 1.0) < 0.1)
        True
    """
    key, began = _check.key(key), time.perf_counter()
    num_paths, num_samples = _check.count(num_paths, "num_paths", 4), _check.count(num_samples, "num_samples")
    max_steps = _check.count(max_steps, "max_steps", 60)
    problem = problem_of(prior, log_likelihood, x_o)
    k_start, k_path, k_draw, k_choose = jax.random.split(key, 4)
    starts, failed = finite_draws(problem, num_paths, k_start)
    found = problem.run(_paths, jax.random.split(k_path, num_paths), starts, static=(max_steps,))
    centre, root, elbo = _usable(*map(np.asarray, found))
    n = _PROPOSALS * num_samples
    z, path, log_q = _mixture_draws(centre, root, n, k_draw)
    _, smoothed = weighed(problem, z, log_q, "pathfinder")
    # without replacement, by Gumbel's trick: a heavy draw comes once, not as copies
    gumbel = np.asarray(jax.random.gumbel(k_choose, (n,)), float)
    chosen = np.argsort(-(smoothed.log_weights + gumbel), kind="stable")[:num_samples]
    info = provenance("Pathfinder", key, began, "blackjax", "optax") | {
        "num_paths": num_paths,
        "failed_starts": failed,
        "failed_paths": num_paths - len(centre),
        "elbo": elbo.tolist(),
        "path_share": (np.bincount(np.asarray(path)[chosen], minlength=len(centre)) / num_samples).tolist(),
        "pareto_k": smoothed.pareto_k,
    }
    return posterior_over_theta(problem, z[chosen], log_q[chosen], smoothed.log_mean, info)


def _paths(problem: Problem, max_steps: int, keys: Array, starts: Array) -> tuple[Array, Array, Array]:
    """The best Gaussian along each path, from starts `[path, Dz]`.

    Returns:
        Centres `[path, Dz]`, covariances `[path, Dz, Dz]`, ELBOs `[path]`.
    """
    from blackjax.vi import pathfinder as engine

    def log_density(z: Array) -> Array:
        value = problem.log_density(z)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def path(key: Array, start: Array) -> tuple[Array, Array, Array]:
        best, _ = engine.approximate(
            key, log_density, start, _ELBO_DRAWS, maxiter=max_steps, maxcor=_CORRECTIONS, maxls=30
        )
        place, gradient = jnp.asarray(best.position), jnp.asarray(best.grad_position)
        covariance = jnp.diag(best.alpha) + best.beta @ best.gamma @ best.beta.T
        # the Gaussian with this gradient and this inverse Hessian is centred one Newton step away
        return place + covariance @ gradient, covariance, best.elbo

    return jax.vmap(path)(keys, starts)


def _usable(centre: np.ndarray, covariance: np.ndarray, elbo: np.ndarray) -> tuple[Array, Array, np.ndarray]:
    """Centres, Cholesky factors and ELBO of the proper Gaussians."""
    roots, kept = [], []
    for k, matrix in enumerate(covariance):
        if not (np.isfinite(matrix).all() and np.isfinite(centre[k]).all() and np.isfinite(elbo[k])):
            continue
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T).astype(float))
        values = np.maximum(values, 1e-12 * max(values[-1], 1e-30))  # rounding of the low-rank factors
        # with A = V sqrt(L):  A A^T = (Q R)^T (Q R) = R^T R, so R^T is the Cholesky factor, up to signs
        upper = np.asarray(np.linalg.qr((vectors * np.sqrt(values)).T, mode="r"))
        roots.append(upper.T * np.sign(np.diagonal(upper)))
        kept.append(k)
    if not kept:
        raise ValueError(
            f"none of {len(centre)} paths left a Gaussian: log_likelihood is not finite around every optimum that they "
            "ran to; mend the likelihood, narrow the prior, or use vb.sampling.TemperedSMC()"
        )
    dtype = centre.dtype
    return jnp.asarray(centre[kept]), jnp.asarray(np.stack(roots).astype(dtype)), elbo[kept]


def _mixture_draws(centre: Array, root: Array, n: int, key: Array) -> tuple[Array, Array, Array]:
    """`n` draws of the equal mixture.

    Returns:
        z `[n, Dz]`, the path of each, and log q of the mixture at each.
    """
    paths, width = centre.shape
    noise = jax.random.normal(key, (n, width), centre.dtype)
    path = jnp.arange(n) % paths  # stratified: the same number from each
    z = centre[path] + jnp.einsum("nij,nj->ni", root[path], noise)

    def log_normal(centre: Array, root: Array) -> Array:
        white = jax.scipy.linalg.solve_triangular(root, (z - centre).T, lower=True)
        return -0.5 * (white**2).sum(axis=0) - jnp.log(jnp.diagonal(root)).sum() - 0.5 * width * jnp.log(2.0 * jnp.pi)

    return z, path, jax.nn.logsumexp(jax.vmap(log_normal)(centre, root), axis=0) - jnp.log(paths)
