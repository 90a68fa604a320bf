"""Posteriors of learned likelihoods and ratios, by NUTS."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.neural.densities.base import pairwise
from vbinfer.neural.estimator import AbstractAmortized
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.sample import sample_mcmc
from vbinfer.sampling.sampler import ChainSampler

_CANDIDATES = 10_000


class AbstractSurrogate(AbstractAmortized):
    """A learned function in the place of the likelihood."""

    @property
    @abc.abstractmethod
    def _columns(self) -> tuple[int, ...] | None:
        """Features that have a density; None for a ratio."""

    def _score(self, theta: Mapping[str, Any], x: Any) -> Array:
        """What stands for the log-likelihood."""
        values = {name: jnp.asarray(theta[name]) for name in theta}
        parts = (self._network, self._context, self.scaler.standardise)
        return _log_score(parts, self._columns, values, self.scaler.rows(x))

    def sample(
        self, x_o: Any, *, n: int, key: PRNGKey, kernel: Any = None, num_chains: int = 20, num_warmup: int = 300
    ) -> Posterior:
        """Draw from the posterior of one observation, by NUTS.

        Chains start at prior draws resampled by their likelihood: in every mode in proportion to its mass. A chain
        need not find its way between them.

        Args:
            x_o: observed summary `[F]`.
            n: number of draws over all chains, rounded up to a multiple of their number.
            key: randomness.
            kernel, num_chains, num_warmup: as of `vb.sample_mcmc`.

        Returns:
            A posterior with several chains; `log_prob` is log p(theta) plus what was learned, unnormalised.
        """
        n, key = _check.count(n, "n"), _check.key(key)
        num_chains = _check.count(num_chains, "num_chains", 20)
        num_warmup = _check.count(num_warmup, "num_warmup", 300, least=0)
        x, outside = self.scaler.observe(x_o)
        k_start, k_run = jax.random.split(key)
        # starts in every mode in proportion to its mass: a chain need not cross between them
        starts = _resampled(self.prior, self._score, jnp.asarray(x), num_chains, k_start)
        posterior = sample_mcmc(
            self.prior,
            self._score,
            x,
            kernel=kernel,
            num_warmup=num_warmup,
            num_samples=-(-n // num_chains),
            num_chains=num_chains,
            key=k_run,
            init=starts,
        )
        posterior.info.update({"method": self.method, "outside_training": list(outside), **self.info})
        return posterior

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey, **options: Any) -> Theta:
        """Draw for many observations `[B, F]`: leaves `[B, n, ...]`.

        Near-independent draws; the chains of all observations run side by side.

        Args:
            x: observed summaries `[B, F]`.
            n: draws of each.
            key: randomness.
            options: `num_chains` (8), `num_warmup` (300), `batch_size` (32), `max_thinning` (4) and `kernel` as in
                `vb.sampling.ChainSampler`; warns of chains that disagree.
        """
        n, key = _check.count(n, "n"), _check.key(key)
        rows = jnp.asarray(self.scaler.check(x, ndim=2))
        sampler = ChainSampler(self.prior, self._score, **{"num_chains": 8, "max_thinning": 4, **options})
        return sampler.sample_batch(rows, n=n, key=key)


@eqx.filter_jit
def _log_score(parts: Any, columns: tuple[int, ...] | None, theta: Theta, x: Array) -> Array:
    """log q(x | theta), or log r without columns."""
    network, context, standardise = parts
    h, c = standardise(x), context(context.prior.to_z(theta))
    if columns is None:
        return pairwise(network.log_prob, h, c)
    # constant features have no density; their log slope is 0
    return pairwise(network.log_prob, h[..., jnp.array(columns)], c) + jnp.sum(standardise.log_slope(x), axis=-1)


def _resampled(prior: Prior, log_likelihood: Callable[[Theta, Any], Array], x: Array, num: int, key: PRNGKey) -> Theta:
    """Distinct prior draws `[num, ...]`, in proportion to their likelihood."""
    k_prior, k_pick = jax.random.split(key)
    theta = prior.sample(key=k_prior, n=max(_CANDIDATES, num))
    log_weight = log_likelihood(theta, x)
    # the largest of log w + Gumbel noise are draws without replacement
    score = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight) + jax.random.gumbel(k_pick, log_weight.shape)
    chosen = jnp.argsort(-score)[:num]
    return {name: value[chosen] for name, value in theta.items()}
