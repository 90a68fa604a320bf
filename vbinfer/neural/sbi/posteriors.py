"""Fitted networks of sbi."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer._param import is_traced
from vbinfer.neural.refine import refined
from vbinfer.neural.sbi.core import ROWS, AbstractFitted
from vbinfer.neural.sbi.inputs import DiscreteZ, Inputs
from vbinfer.neural.sbi.networks import METHODS, rebuild
from vbinfer.neural.sbi.quiet import quiet_torch
from vbinfer.posterior import Posterior
from vbinfer.priors._torch import to_torch
from vbinfer.priors.prior import Prior


@final
class SbiPosterior(AbstractFitted):
    """q(theta | x) for any x of the simulator.

    Made by `SbiEstimator(method).fit` with NPE, NPE_A, NPE_B, NPE_PFN, MNPE, FMPE or NPSE.
    """

    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draw from the posterior of one observation `[F]`.

        Leaves `[1, n, ...]`, with the normalised log q. With options it is `posterior(None, **options).sample`: sbi's
        own sampler with these.
        """
        if options:
            return self.posterior(None, **options).sample(x_o, n=n, key=key)
        x, outside = self.inputs.observe(x_o)
        theta = {name: value[0] for name, value in self.sample_batch(x[None], n=n, key=key).items()}
        log_q = self.log_prob(theta, x)
        leaves = {name: value[None] for name, value in theta.items()}
        return self.result(leaves, log_q[None], x, outside, (*self.method.kinds, "direct")[0])

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draw for many observations `[B, F]`: leaves `[B, n, ...]`."""
        rows, n, key = self.inputs.scaler.check(x, ndim=2), _check.count(n, "n"), _check.key(key)
        return self.to_theta(self._draw(self.inputs(rows), n, key))

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x); -inf outside the prior's support.

        Exact: of the network (NPE, NPE_A, ...), or of the ODE that makes the draws (FMPE, NPSE), there to the solver's
        tolerance and at the price of its many steps.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return self.log_density(theta, x)

    def refine(self, x_o: Any, likelihood: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Correct the posterior of one observation by a likelihood.

        As `vb.neural.AmortizedPosterior.refine`; with FMPE and NPSE each log q is an integration.
        """
        return refined(self, x_o, likelihood, n=n, key=key)

    def _draw(self, h: np.ndarray, n: int, key: PRNGKey) -> np.ndarray:
        """Draws of z given h.

        They are `[B, n, D]`: n for every row of h.
        """
        import torch

        with quiet_torch(key), torch.no_grad():
            if self.method.family == "field":
                rows = to_torch(np.repeat(h, n, axis=0))
                parts = [self._flow(part).sample().reshape(len(part), -1) for part in rows.split(ROWS)]
                return torch.cat(parts).reshape(len(h), n, -1).numpy()
            rows = to_torch(h).split(max(1, ROWS // n))
            parts = [self.net.sample(torch.Size((n,)), condition=part) for part in rows]
        return self.discrete.decode(torch.cat(parts, dim=1).swapaxes(0, 1).numpy(), key)


class AbstractScore(AbstractFitted):
    """A network in the place of the likelihood."""

    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draw from the posterior by sbi's slice sampler.

        Args:
            x_o: `[F]`, or `[T, F]` for T independent trials of the same theta.
            n: number of draws over all chains; chains are as many as share them evenly with 25 or more each, up to 20.
            key: randomness.
            options: `num_chains`, `warmup_steps` (200), `thin` (1), ... of `posterior("mcmc", ...)`.

        Returns:
            Leaves `[chain, n / chain, ...]`; `log_prob` is log prior plus log-likelihood, or log-ratio. Look at
            `vb.diagnostics.rhat` of it.
        """
        return self.posterior("mcmc", **options).sample(x_o, n=n, key=key)

    def _score(self, theta: Mapping[str, Any], x: Any) -> Array:
        traced = is_traced(theta)
        return self.traced_score(theta, x) if traced else self.log_density(theta, x)


@final
class SbiLikelihood(AbstractScore):
    """p(x | theta) as a density over x.

    Made by `SbiEstimator(method).fit` with NLE or MNLE. Features that were constant in training have no density and
    are left out. Of MNLE the discrete features enter as probabilities, the continuous ones as a density.
    """

    def log_likelihood(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log p(x | theta), differentiable in theta.

        -inf outside the prior's support, where nothing was learned.
        JAX can trace and differentiate it in theta, so `vb.sample_mcmc(prior, fitted.log_likelihood, x_o)` runs on it;
        every step then calls torch, and `vb.NLE` is much faster.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return self._score(theta, x)


@final
class SbiRatio(AbstractScore):
    """r(theta, x), the likelihood over the evidence.

    Made by `SbiEstimator(method).fit` with NRE, NRE_C or BNRE.
    """

    def log_ratio(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log p(x | theta) - log p(x), approximately.

        -inf outside the prior's support. Of NRE up to a term that may depend on x but not on theta. JAX can trace and
        differentiate it in theta, as a likelihood of `NLE`.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return self._score(theta, x)


_CLASSES = {"density": SbiPosterior, "field": SbiPosterior, "likelihood": SbiLikelihood, "ratio": SbiRatio}


def wrap(name: str, *parts: Any) -> SbiPosterior | SbiLikelihood | SbiRatio:
    """A fitted network of the class of its method."""
    return _CLASSES[METHODS[name].family](name, *parts)


def from_saved(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> AbstractFitted:
    """Rebuild from what `save` wrote; called by `vb.load`."""
    prior, inputs = Prior.from_spec(header["prior"]), Inputs.from_saved(header["inputs"], arrays)
    discrete = DiscreteZ(tuple((column, tuple(edges)) for column, edges in header["discrete"]))
    net = rebuild(header["method"], header, arrays, (inputs, discrete), prior.z_dim)
    return wrap(header["method"], dict(header["network"]), net, prior, inputs, discrete, dict(header["info"]))
