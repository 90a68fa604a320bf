"""What `SbiEstimator.fit` returns: a posterior, a likelihood or a ratio, for any observation."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.neural.sbi.bridge import is_traced, traced_score
from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.engine import Density, Field
from vbinfer.neural.sbi.evaluate import log_density
from vbinfer.neural.sbi.quiet import quiet_torch
from vbinfer.neural.sbi.view import SbiView, sample_view
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior


class AbstractFitted(abc.ABC):
    """A trained network of the sbi package."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def prior(self) -> Prior:
        """The prior of the draws."""
        return self._core.prior

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features of x."""
        return self._core.inputs.names

    @property
    def info(self) -> dict[str, Any]:
        """JSON-able notes of the fit."""
        return self._core.info

    @property
    def net(self) -> Any:
        """The network of sbi, over z and h: h = `to_h(x)`, theta = `to_theta(z)`."""
        return self._core.net

    @abc.abstractmethod
    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draws from the posterior of one observation."""

    def posterior(self, kind: str | None = None, **options: Any) -> SbiView:
        """One of sbi's own posteriors, sampled in the same way; `.sbi(x_o)` of the result is sbi's object.

        Args:
            kind: `"direct"` (NPE, NPE_A), `"mcmc"`, `"rejection"`, `"importance"` or `"vi"` (all but FMPE and NPSE);
                `"ode"` or `"sde"` (FMPE, NPSE). The method's own by default.
            options: of sbi's class and of its `sample` (`train` for `"vi"`): `num_chains`, `warmup_steps`, `thin`,
                `oversampling_factor`, `vi_method`, `steps`, ....

        Raises:
            ValueError: a kind that this method does not have, or an option that sbi does not have.
        """
        return SbiView(self._core, kind, options)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Names of the features in which an observation lies beyond the range of the training draws."""
        return self._core.inputs.scaler.outside(x_o)

    def to_h(self, x: Any) -> np.ndarray:
        """What the network sees of x `[..., F]`: standardised features, then codes of discrete ones."""
        return self._core.inputs(self._core.inputs.scaler.check(x, ndim=max(1, np.ndim(x))))

    def to_theta(self, z: Any) -> Theta:
        """theta, leaves `[..., *shape]`, of the network's z `[..., D]`."""
        return self._core.to_theta(z)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON; `vb.load(path)` makes the network again with sbi's builder.

        Raises:
            TypeError: a network, or a part of one, that is the user's own code.
        """
        self._core.save(path)


@final
class SbiPosterior(AbstractFitted):
    """q(theta | x) for any x of the simulator. Made by `SbiEstimator(method).fit` with NPE, NPE_A, FMPE or NPSE."""

    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draws from the posterior of one observation `[F]`: leaves `[1, n, ...]`, with the normalised log q.

        With options it is `posterior(None, **options).sample`: sbi's own sampler with these.
        """
        if options:
            return sample_view(self.posterior(None, **options), x_o, n=n, key=key, stacklevel=5)
        x, outside = self._core.inputs.observe(x_o)
        theta = {name: value[0] for name, value in self.sample_batch(x[None], n=n, key=key).items()}
        log_q = self.log_prob(theta, x)
        leaves = {name: value[None] for name, value in theta.items()}
        return self._core.result(leaves, log_q[None], x, outside, self._core.method.kinds[0])

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draws for many observations: leaves `[B, n, ...]` for x `[B, F]`."""
        rows, n, key = self._core.inputs.scaler.check(x, ndim=2), _check.count(n, "n"), _check.key(key)
        engine = Field(self.net) if self._core.method.family == "field" else Density(self.net)
        with quiet_torch(key):
            z = engine.sample(self._core.inputs(rows), n)
        return self._core.to_theta(z)

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x); -inf outside the prior's support.

        Exact: of the network (NPE, NPE_A), or of the ODE that makes the draws (FMPE, NPSE), there to the solver's
        tolerance and at the price of its many steps.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return log_density(self._core, theta, x)


class AbstractScore(AbstractFitted):
    """A fitted network that stands for the likelihood, sampled by a chain."""

    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draws from the posterior by sbi's slice sampler, up to 20 chains side by side.

        Args:
            x_o: `[F]`, or `[T, F]` for T independent trials of the same theta.
            n: number of draws over all chains; chains are as many as share them evenly with 25 or more each.
            key: randomness.
            options: `num_chains`, `warmup_steps` (200), `thin` (1), ... of `posterior("mcmc", ...)`.

        Returns:
            Leaves `[chain, n / chain, ...]`; `log_prob` is log prior plus log-likelihood, or log-ratio. Look at
            `vb.rhat` of it.
        """
        return sample_view(self.posterior("mcmc", **options), x_o, n=n, key=key, stacklevel=5)


@final
class SbiLikelihood(AbstractScore):
    """p(x | theta) as a density over x. Made by `SbiEstimator(method).fit` with NLE or MNLE.

    Features that were constant in training have no density and are left out. Of MNLE the discrete features enter as
    probabilities, the continuous ones as a density.
    """

    def log_likelihood(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log p(x | theta); -inf outside the prior's support, where nothing was learned.

        JAX can trace and differentiate it in theta, so `vb.sample_mcmc(prior, fitted.log_likelihood, x_o)` runs on it;
        every step then calls torch, and `vb.NLE` is much faster.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return _score(self._core, theta, x)


@final
class SbiRatio(AbstractScore):
    """r(theta, x), the likelihood over the evidence. Made by `SbiEstimator(method).fit` with NRE or BNRE."""

    def log_ratio(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log p(x | theta) - log p(x); for NRE up to a constant that may depend on x but not on theta.

        -inf outside the prior's support. JAX can trace and differentiate it in theta, as a likelihood of `NLE`.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return _score(self._core, theta, x)


def _score(core: Core, theta: Mapping[str, Any], x: Any) -> Array:
    return traced_score(core, theta, x) if is_traced(theta) else log_density(core, theta, x)


_CLASSES = {"density": SbiPosterior, "field": SbiPosterior, "likelihood": SbiLikelihood, "ratio": SbiRatio}


def wrap(core: Core) -> SbiPosterior | SbiLikelihood | SbiRatio:
    """The class that belongs to a network."""
    return _CLASSES[core.method.family](core)


def from_saved(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> AbstractFitted:
    """Rebuild from what `save` wrote; called by `vb.load`."""
    return wrap(Core.from_saved(header, arrays))
