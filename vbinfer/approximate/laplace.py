"""Laplace's method: the Gaussian at the mode."""

import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import flat_names
from vbinfer.approximate.optimise import WITHIN_REACH, optima
from vbinfer.posterior import Posterior, provenance
from vbinfer.priors.prior import Prior
from vbinfer.sampling.importance import posterior_over_theta, weighed
from vbinfer.sampling.problem import LogLikelihood, Problem, problem_of

_NEWTON = 8


def fit_laplace(
    prior: Prior,
    log_likelihood: LogLikelihood,
    x_o: Any,
    *,
    num_samples: int = 1_000,
    num_starts: int = 16,
    max_steps: int = 500,
    key: Array,
) -> Posterior:
    """Laplace's Gaussian at the mode over z.

    Its draws are mapped to theta.

    U(z) = -[log p(theta) + log|d theta / d z| + log p(x_o | theta)],  m = argmin U,  H = d^2 U / dz^2 at m

    q(z) = N(m, H^-1),  log q(theta) = log q(z) - log|d theta / d z|
    log Z = -U(m) + (Dz / 2) log 2 pi - (1/2) log det H

    Exact for a Gaussian likelihood with a linear mean under normal priors; close when the data pin the parameters. It
    costs an optimisation and one Hessian (Dz gradients). It is blind to skew, tails, and every mode but the best one;
    `posterior.info["pareto_k"]`, from the ratios of posterior and q at the draws, shows it: above 0.7 there is a
    warning. The mode is found as by `fit_map(space="z")` and then refined by Newton steps.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, twice differentiable by JAX.
        x_o: the observation; passed on as it is.
        num_samples: draws.
        num_starts: draws of the prior from which the mode is sought.
        max_steps: L-BFGS steps from each start at most.
        key: a JAX key.

    Returns:
        `Posterior`, one chain: `log_prob` the normalised log q(theta), `log_evidence` Laplace's; `info` has `pareto_k`,
        `log_evidence_importance` (the mean importance ratio), `mode_z`, `eigenvalues` of H.

    Raises:
        ValueError: the Hessian at the mode is not positive definite; no draw of the prior can be a start.

    References:
        Tierney & Kadane 1986, J. Am. Stat. Assoc. 81, doi:10.1080/01621459.1986.10478240.

    Example:
        >>> import jax, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(0.0, 1.0)})
        >>> log_likelihood = lambda theta, y: dist.Normal(theta["mu"], 1.0).log_prob(y)
        >>> posterior = vb.approximate.fit_laplace(prior, log_likelihood, 2.0, num_starts=2, key=jax.random.key(0))
        >>> round(posterior.log_evidence, 3)                # log N(2; 0, 1 + 1)
        -2.266
    """
    key, began = _check.key(key), time.perf_counter()
    num_samples, num_starts = _check.count(num_samples, "num_samples"), _check.count(num_starts, "num_starts", 16)
    steps = _check.count(max_steps, "max_steps")
    problem = problem_of(prior, log_likelihood, x_o)
    k_mode, k_draw = jax.random.split(key)
    basins = optima(problem, num_starts=num_starts, space="z", max_steps=steps, key=k_mode).basins
    near = sum(one.energy - basins[0].energy < WITHIN_REACH for one in basins)
    if near > 1:
        warnings.warn(
            f"{near} modes are within {WITHIN_REACH} of the best in log density, and Laplace's Gaussian covers one; "
            "use kernel=vb.sampling.TemperedSMC() in vb.sample_mcmc",
            stacklevel=2,
        )
    mode, height, hessian = problem.run(_refine, basins[0].z)
    hessian = np.asarray(hessian, float)
    eigenvalues, root = _checked_curvature(prior, hessian), np.linalg.cholesky(np.linalg.inv(hessian))
    log_det, log_2pi = float(np.log(eigenvalues).sum()), prior.z_dim * float(np.log(2.0 * np.pi))
    noise = jax.random.normal(k_draw, (num_samples, prior.z_dim), mode.dtype)
    # z = m + R e with R R^T = H^-1:  log q(z) = log|H| / 2 - D log(2 pi) / 2 - |e|^2 / 2
    z = mode + noise @ jnp.asarray(root.T, mode.dtype)
    log_q = 0.5 * (log_det - log_2pi - (noise**2).sum(axis=1))
    _, smoothed = weighed(problem, z, log_q, "fit_laplace")
    info = provenance("Laplace", key, began, "optax") | {
        "mode_z": np.asarray(mode, float).tolist(),
        "eigenvalues": eigenvalues.tolist(),
        "modes_within_reach": int(near),
        "pareto_k": smoothed.pareto_k,
        "log_evidence_importance": smoothed.log_mean,
    }
    return posterior_over_theta(problem, z, log_q, 0.5 * (log_2pi - log_det) - float(height), info)


def _refine(problem: Problem, z: Array) -> tuple[Array, Array, Array]:
    """Mode refined by Newton steps, its U and Hessian."""
    hessian = jax.jacfwd(jax.grad(problem.potential))

    # L-BFGS stops at a gradient of 3e-4 in float32; Newton steps that do not climb take off the rest
    def step(_: Array, z: Array) -> Array:
        proposal = z - jnp.linalg.solve(hessian(z), jax.grad(problem.potential)(z))
        return jnp.where(problem.potential(proposal) <= problem.potential(z), proposal, z)

    z = jax.lax.fori_loop(0, _NEWTON, step, z)
    matrix = hessian(z)
    return z, problem.potential(z), 0.5 * (matrix + matrix.T)


def _checked_curvature(prior: Prior, hessian: np.ndarray) -> np.ndarray:
    """Eigenvalues of a positive definite Hessian.

    Raises:
        ValueError: it is not; names the flat or rising direction.
    """
    if not np.isfinite(hessian).all():
        raise ValueError(
            "the Hessian of the log posterior is not finite at its mode; mend the likelihood, whose second derivatives "
            "are needed, or use vb.approximate.pathfinder, which needs first ones only"
        )
    eigenvalues, vectors = np.linalg.eigh(hessian)
    if eigenvalues[0] <= 1e-6 * max(eigenvalues[-1], 1.0) * hessian.shape[0]:
        names = flat_names(prior.z_shapes)
        along = [names[i] for i in np.argsort(-np.abs(vectors[:, 0]), kind="stable")[:3] if abs(vectors[i, 0]) > 0.3]
        raise ValueError(
            f"the Hessian at the mode is not positive definite: its eigenvalues reach from {eigenvalues[0]:.3g}, along "
            f"{', '.join(along)}, to {eigenvalues[-1]:.3g}. There is no Gaussian there: the mode is a saddle, a "
            "kink, or the search had not settled (raise max_steps); use vb.approximate.pathfinder or vb.sample_mcmc"
        )
    return eigenvalues
