"""A task: an inference problem whose answer is known."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

_MOST_ROUNDS = 1_000


@dataclasses.dataclass(frozen=True)
class Task:
    """Prior, simulator, likelihood and, where known, exact posterior.

    Attributes:
        name: name in the literature.
        prior: over one leaf, `"theta"` `[D]`; of brain models by the paths of their parameters.
        simulator: `(theta, key) -> x [F]`, for `vb.sample_prior_predictive`.
        log_likelihood: `(theta, x) -> log p(x | theta)`, for `vb.sample_mcmc`; differentiable.
        num_features: F.
        exact: `(x_o [F], n, key) -> theta [n, D]`, independent draws from the posterior, or None.

    Example:
        >>> import jax, vbinfer as vb
        >>> from vbinfer import tasks
        >>> task = tasks.gaussian_linear()
        >>> draws = vb.sample_prior_predictive(task.prior, task.simulator, n=64, key=jax.random.key(0), progress=False)
        >>> posterior = task.sample(draws.x[0], n=1_000, key=jax.random.key(1))
        >>> posterior.theta["theta"].shape
        (1, 1000, 10)
    """

    name: str
    prior: Prior
    simulator: Callable[[Theta, PRNGKey], Array]
    log_likelihood: Callable[[Theta, Any], Array]
    num_features: int
    exact: Callable[[Array, int, PRNGKey], Any] | None = None

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Independent draws from the exact posterior of x_o `[F]`.

        One chain, leaves `[1, n, D]`.

        Raises:
            ValueError: a task without an exact sampler, an observation of another width, or one of no probability.
        """
        n = _check.count(n, "n")
        if self.exact is None:
            raise ValueError(
                f"the posterior of {self.name} has no exact sampler; write "
                "vb.sample_mcmc(task.prior, task.log_likelihood, x_o, ...), or read vb.tasks.reference"
            )
        x = np.asarray(x_o, dtype=np.result_type(np.asarray(x_o).dtype, np.float32))
        if x.shape != (self.num_features,) or not np.isfinite(x).all():
            raise ValueError(f"x_o has shape {list(x.shape)}; {self.name} makes [{self.num_features}] finite numbers")
        theta = np.asarray(self.exact(jnp.asarray(x), n, key))
        return Posterior({"theta": theta[None]}, x_o=x, prior=self.prior, info={"method": "exact", "task": self.name})


def rejection(propose: Callable[[PRNGKey], tuple[Array, Array]], n: int, key: PRNGKey) -> np.ndarray:
    """n accepted rows, of as many proposals as it takes.

    `propose(key)` gives rows `[m, D]` and who is kept `[m]`.
    """
    kept, count = [], 0
    for i in range(_MOST_ROUNDS):
        rows, inside = map(np.asarray, propose(jax.random.fold_in(key, i)))
        kept.append(rows[inside])
        count += len(kept[-1])
        if count >= n:
            return np.concatenate(kept)[:n]
    raise ValueError(f"{count} of {n} draws were accepted in {_MOST_ROUNDS} rounds; the prior excludes this x_o")


def no_likelihood(name: str) -> Callable[[Theta, Any], Array]:
    """Stands for the likelihood that a task lacks."""

    def log_likelihood(theta: Theta, x: Any) -> Array:
        raise ValueError(f"{name} has no likelihood; fit a neural estimator to draws of task.simulator")

    return log_likelihood
