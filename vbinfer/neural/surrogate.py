"""What learned likelihoods and ratios share: how they see theta, and the posterior that a sampler draws from them."""

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.io import npz
from vbinfer.neural.estimator import network_arrays
from vbinfer.neural.scaler import SummarySpace
from vbinfer.neural.standardise import Standardise
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.sample import sample_form
from vbinfer.sampling.sampler import ChainSampler

_CANDIDATES = 10_000
_OTHERS = 64


class ThetaContext(eqx.Module):
    """theta as a network sees it: z, in which the prior is standard normal, and theta itself, standardised.

    A simulator is often smooth in theta where z has long tails (a uniform prior), and in z where theta has (a
    log-normal one), so the network is given both.
    """

    prior: Prior = eqx.field(static=True)
    scale: Standardise

    @classmethod
    def fit(cls, prior: Prior, z: Array) -> "ThetaContext":
        """From training rows z `[n, Dz]`."""
        return cls(prior, Standardise.fit(np.asarray(prior.ravel(prior.constrain(prior.unravel_z(z))[0]))))

    @classmethod
    def from_arrays(cls, prior: Prior, arrays: Mapping[str, np.ndarray]) -> "ThetaContext":
        """The inverse of `to_arrays`."""
        mine = {name.removeprefix("theta/"): value for name, value in arrays.items() if name.startswith("theta/")}
        return cls(prior, Standardise.from_arrays(mine))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Its numbers by name, as a saved estimator holds them."""
        return {f"theta/{name}": value for name, value in self.scale.to_arrays().items()}

    @property
    def width(self) -> int:
        """Length of the context."""
        return self.prior.z_dim + self.prior.dim

    def __call__(self, z: Array) -> Array:
        """`[..., width]` of z `[..., Dz]`."""
        theta = self.prior.ravel(self.prior.constrain(self.prior.unravel_z(z))[0])
        return jnp.concatenate([z, self.scale(theta)], axis=-1)


def information_gain(log_q: Callable[[Array, Array], Array], y: Array, c: Array) -> float:
    """Mean of log q(y_i | c_i) - log mean_j q(y_i | c_j) over held-out pairs, nats.

    The second term stands for log q(y), from the parameters of 64 other pairs and of the pair itself; it can show log
    65 = 4.2 nats at most, so it is a lower bound of what is known.
    """
    count = min(_OTHERS, len(y) - 1)
    shifts = jnp.arange(0, count + 1)

    @jax.jit
    def gain(y: Array, c: Array) -> Array:
        rolled = jax.vmap(lambda k: jnp.roll(c, k, axis=0))(shifts)
        table = jax.lax.map(lambda other: jax.vmap(log_q)(y, other), rolled)
        return jnp.mean(table[0] - jax.nn.logsumexp(table, axis=0) + jnp.log(count + 1))

    return float(gain(y, c))


class AbstractSurrogate(abc.ABC):
    """A learned function of (theta, x) that stands for the likelihood, for any x of its simulator.

    Attributes:
        prior: the prior of the draws.
        space: names and scale of the F features of x.
        info: JSON-able notes of the fit.
    """

    method: ClassVar[str]

    def __init__(
        self,
        prior: Prior,
        estimator: Any,
        network: Any,
        inputs: tuple[SummarySpace, ThetaContext],
        info: Mapping[str, Any],
    ) -> None:
        self.prior, self.estimator, self.info = prior, estimator, dict(info)
        self.space, self._context = inputs
        self._network = network

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features of x."""
        return self.space.names

    @property
    @abc.abstractmethod
    def _score(self) -> Callable[[Theta, Any], Array]:
        """What stands for the log-likelihood, a function `(theta, x)`."""

    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draws from the posterior of one observation, by NUTS from starts resampled from the prior by likelihood.

        Args:
            x_o: observed summary `[F]`.
            n: number of draws over all chains, rounded up to a multiple of their number.
            key: randomness.
            options: `kernel`, `num_chains` (20), `num_warmup` (300) of `vb.sample_mcmc`.

        Returns:
            A posterior with several chains; `log_prob` is log p(theta) plus what was learned, unnormalised.
        """
        return sample_posterior(self, self._score, x_o, n, key, **options)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey, **options: Any) -> Theta:
        """Near-independent draws for many observations, their chains side by side: leaves `[B, n, ...]` of x `[B, F]`.

        Args:
            x: observed summaries `[B, F]`.
            n: draws of each.
            key: randomness.
            options: `num_chains` (8), `num_warmup` (300), `batch_size` (32), `max_thinning` (4) and `kernel` as in
                `vb.ChainSampler`; warns of chains that disagree.
        """
        rows, n, key = jnp.asarray(self.space.check(x, ndim=2)), _check.count(n, "n"), _check.key(key)
        given = {"num_chains": 8, "max_thinning": 4, **options}
        sampler = ChainSampler(self.prior, self._score, **given)
        return sampler.sample_batch(rows, n=n, key=key)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Names of the features in which an observation lies beyond the range of the training draws."""
        return self.space.outside(x_o)

    def _write(self, path: str | Path) -> None:
        header = {
            **self.estimator._study(),
            "prior": self.prior.to_spec(),
            "names": list(self.names),
            "info": self.info,
            "versions": npz.versions("flowjax", "equinox"),
        }
        arrays = network_arrays(self._network) | self.space.standardise.to_arrays() | self._context.to_arrays()
        npz.write(path, self.method.lower(), header, arrays)


def sample_posterior(
    fitted: AbstractSurrogate,
    log_likelihood: Callable[[Theta, Any], Array],
    x_o: Any,
    n: int,
    key: PRNGKey,
    *,
    kernel: Any = None,
    num_chains: int = 20,
    num_warmup: int = 300,
) -> Posterior:
    """The posterior of a learned likelihood: chains from prior draws resampled by their likelihood.

    So the chains begin in every mode in proportion to its mass; a chain need not find its way between them.
    """
    (x, outside), n, key = fitted.space.observe(x_o, stacklevel=4), _check.count(n, "n"), _check.key(key)
    num_chains = _check.count(num_chains, "num_chains")
    k_start, k_run = jax.random.split(key)
    starts = _resampled(fitted.prior, log_likelihood, jnp.asarray(x), num_chains, k_start)
    sizes = (num_warmup, -(-n // num_chains), num_chains)
    posterior = sample_form(fitted.prior, log_likelihood, x, kernel, sizes, k_run, starts)
    posterior.info.update({"method": fitted.method, "outside_training": list(outside), **fitted.info})
    return posterior


def _resampled(prior: Prior, log_likelihood: Callable[[Theta, Any], Array], x: Array, num: int, key: PRNGKey) -> Theta:
    """Different prior draws, leaves `[num, ...]`, taken in proportion to their likelihood."""
    k_prior, k_pick = jax.random.split(key)
    theta = prior.sample(key=k_prior, n=max(_CANDIDATES, num))
    log_weight = log_likelihood(theta, x)
    score = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight) + jax.random.gumbel(k_pick, log_weight.shape)
    chosen = jnp.argsort(-score)[:num]
    return {name: value[chosen] for name, value in theta.items()}
