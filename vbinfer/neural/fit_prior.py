"""Priors learned from samples: flows as distributions."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.neural.densities import MAF
from vbinfer.neural.densities.base import mixture, stack
from vbinfer.neural.densities.flows import AbstractFlow, Flow
from vbinfer.neural.estimator import density_loss
from vbinfer.neural.scaler import user_stacklevel
from vbinfer.neural.training import Training, TrainingTask, split_rows, train
from vbinfer.priors.flow import flow_distribution

_FEWEST = 20


class Whitened(eqx.Module):
    """A flow of (theta - mean) / factor."""

    flow: Flow
    mean: Any
    factor: Any

    def to_noise(self, theta: Array) -> tuple[Array, Array]:
        """Noise of theta, and the log-determinant.

        `[k]`, log |d noise / d theta|.
        """
        y = solve_triangular(
            jnp.asarray(self.factor, theta.dtype), theta - jnp.asarray(self.mean, theta.dtype), lower=True
        )
        noise, slope = paramax.unwrap(self.flow.bijection).transform_and_log_det(y, jnp.zeros(1))
        return noise, slope - self._log_det

    def from_noise(self, noise: Array) -> tuple[Array, Array]:
        """Theta of noise, and the log-determinant.

        `[k]`, log |d theta / d noise|.
        """
        y, slope = paramax.unwrap(self.flow.bijection).inverse_and_log_det(noise, jnp.zeros(1))
        return jnp.asarray(self.mean, y.dtype) + jnp.asarray(self.factor, y.dtype) @ y, slope + self._log_det

    @property
    def _log_det(self) -> Array:
        return jnp.log(jnp.diag(self.factor)).sum()


def fit_prior(
    samples: Any, density: AbstractFlow | None = None, *, key: PRNGKey, training: Training | None = None
) -> Any:
    """Fit a prior to samples, by a flow.

    The samples are whitened by their mean and covariance, and the flow learns what is not normal about the rest: on
    held-out samples it is at least as good as the normal distribution, with which it starts. In the prior its z is
    exactly standard normal.

    Such a prior is code: posteriors and stores that are written to files need one of numpyro's families.

    Args:
        samples: `[n, k]`, 20 or more: the scores of a cohort (`lat.encode(weights)[0]`), draws of a posterior.
        density: `vb.densities.MAF(...)` (the default, small) or `vb.densities.NSF(...)`.
        key: held-out rows, initial weights, minibatches.
        training: of the flow.

    Returns:
        A numpyro distribution over `[k]`, for `vb.Prior({"connectome.z": part})`. Warns where the flow is no better
        than the normal distribution.

    Raises:
        TypeError: a density that is no flow.
        ValueError: samples of another shape, too few, not finite, or within a hyperplane.

    >>> import jax, numpy as np, vbinfer as vb
    >>> bent = np.random.default_rng(0).normal(size=(400, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
    >>> bent[:, 1] += bent[:, 0] ** 2
    >>> part = vb.fit_prior(bent, key=jax.random.key(0))
    >>> vb.Prior({"z": part}).sample(key=jax.random.key(1), n=3)["z"].shape
    (3, 2)
    """
    density = MAF(layers=3, width=20, depth=1) if density is None else density
    _check.of_kind(density, "density", AbstractFlow, "vb.densities.MAF(...) or vb.densities.NSF(...)")
    options = _check.of_kind(
        Training() if training is None else training, "training", Training, "vb.densities.Training()"
    )
    rows = _checked(samples)
    mean, factor = rows.mean(axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(rows.T)))
    k_split, k_init, k_train = jax.random.split(_check.key(key), 3)
    y = jnp.asarray(np.linalg.solve(factor, (rows - mean).T).T, jnp.result_type(float))
    fitting, held = split_rows(len(rows), options.validation_fraction, k_split)
    data, stop = ((y[part], jnp.zeros((len(part), 1))) for part in (fitting, held))
    members = stack([density.build(k_init, rows.shape[1], 1)])
    trained = train(TrainingTask(members, density_loss, data, stop, options), k_train)
    if trained.best_epoch.max() == 0:
        warnings.warn(
            "on held-out samples the flow is no better than a normal distribution, with which it starts, and which was "
            "returned: dist.MultivariateNormal says the same and can be saved; more samples may show more",
            stacklevel=user_stacklevel(),
        )
    return flow_distribution(Whitened(mixture(trained.members, 1), mean, factor), rows.shape[1])


def _checked(samples: Any) -> np.ndarray:
    rows = np.asarray(samples, np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"samples has shape {list(rows.shape)}; expected [n, k], one row per sample")
    if len(rows) < max(_FEWEST, rows.shape[1] + 2):
        raise ValueError(
            f"{len(rows)} samples of {rows.shape[1]} values were given; at least {max(_FEWEST, rows.shape[1] + 2)} are "
            "needed to fit a prior: with fewer, write a normal distribution"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{int((~np.isfinite(rows)).any(axis=1).sum())} of {len(rows)} samples hold NaN or infinities")
    if np.linalg.matrix_rank(rows - rows.mean(axis=0)) < rows.shape[1]:
        raise ValueError("the samples lie within a hyperplane: leave out values that follow from others")
    return rows
