"""Fitted networks of sbi, and their posteriors."""

import abc
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer._param import did_you_mean
from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.quiet import quiet_torch
from vbinfer.posterior import Posterior
from vbinfer.priors._torch import to_torch, torch_z_prior

_MOST_CHAINS = 20
_FEWEST_DRAWS = 25
"""Per chain, so that R-hat means something."""
_HOMES = {
    "direct": ("direct_posterior", "DirectPosterior"),
    "mcmc": ("mcmc_posterior", "MCMCPosterior"),
    "rejection": ("rejection_posterior", "RejectionPosterior"),
    "importance": ("importance_posterior", "ImportanceSamplingPosterior"),
    "vi": ("vi_posterior", "VIPosterior"),
    "ode": ("vector_field_posterior", "VectorFieldPosterior"),
    "sde": ("vector_field_posterior", "VectorFieldPosterior"),
}
_POTENTIALS = {
    "density": "posterior_estimator_based_potential",
    "likelihood": "likelihood_estimator_based_potential",
    "ratio": "ratio_estimator_based_potential",
}
_SET_HERE = {"self", "x", "prior", "proposal", "potential_fn", "theta_transform", "device", "x_shape", "sample_with",
             "posterior_estimator", "vector_field_estimator", "sample_shape", "show_progress_bars",
             "show_progress_bar", "kwargs"}  # fmt: skip


class SbiView:
    """One of sbi's posteriors.

    Made by `fitted.posterior(kind, **options)`.

    Example:
        posterior = fitted.posterior("mcmc", num_chains=4, warmup_steps=500).sample(x_o, n=2_000, key=key)
    """

    def __init__(self, core: Core, kind: str | None, options: Mapping[str, Any]) -> None:
        kinds = core.method.kinds
        self.kind = kind or (*kinds, "direct")[0]
        if self.kind not in kinds:
            raise ValueError(
                f"posterior({self.kind!r}) was asked of {core.name}, which has {', '.join(kinds) or 'none of sbi'}. "
                f"{did_you_mean(self.kind, kinds)}"
            )
        self._core, self._options = core, dict(options)
        with quiet_torch(None):
            self._split()

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Draw from the posterior of one observation.

        Args:
            x_o: `[F]`; of likelihoods and ratios also `[T, F]`, T independent trials of the same theta.
            n: number of draws, over all chains.
            key: randomness.

        Returns:
            Leaves `[chain, n / chain, ...]`: several chains for `"mcmc"`, else one. `log_prob` is the log posterior:
            normalised for posterior networks, log prior plus log-likelihood (or log-ratio) for the others.
        """
        n, key = _check.count(n, "n"), _check.key(key)
        x, h, outside = self._observe(x_o)
        made, run = self._split()
        chains = 1
        if self.kind == "mcmc":
            chains = int({**made, **run}.get("num_chains") or default_chains(n))
            if n % chains:
                raise ValueError(
                    f"n={n} is no multiple of num_chains={chains}; give one that is, such as {chains * -(-n // chains)}"
                )
            made = {"num_chains": chains, "warmup_steps": 200, "thin": 1, **made}
        rows = to_torch(np.atleast_2d(h))
        with quiet_torch(key):
            sampler = self._make(made)
            if self.kind == "vi":
                sampler.set_default_x(rows)
                sampler.train(**{"show_progress_bar": False, "quality_control": False, **run})
                run = {}
            # z has no bounds, so sbi need not look for draws outside the prior
            if self.kind in ("ode", "sde"):
                run = {"reject_outside_prior": False, **run}
            z = sampler.sample((n,), x=rows, show_progress_bars=False, **run)
        theta = self._core.to_theta(z.detach().numpy().reshape(chains, n // chains, -1))
        return self._core.result(theta, self._core.log_posterior(theta, x), x, outside, self.kind)

    def sbi(self, x_o: Any = None) -> Any:
        """sbi's object itself, over z and h = `fitted.to_h(x)`.

        With `x_o`, its default observation is set.
        """
        made, _ = self._split()
        with quiet_torch(None):
            found = self._make(made)
            if x_o is not None:
                found.set_default_x(to_torch(np.atleast_2d(self._observe(x_o)[1])))
        return found

    def _observe(self, x_o: Any) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        x, outside = self._core.inputs.observe(x_o, trials=not self._core.is_posterior)
        return x, self._core.inputs(x), outside

    def _split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options of sbi's class, and of its `sample`.

        Of variational inference those of its `train`.
        """
        made_by = self._class()
        run = made_by.train if self.kind == "vi" else made_by.sample
        first, second = (set(inspect.signature(f).parameters) - _SET_HERE for f in (made_by.__init__, run))
        for option in self._options:
            if option not in first | second:
                raise ValueError(
                    f"posterior({self.kind!r}) was given {option!r}; its options in sbi are "
                    f"{', '.join(sorted(first | second))}. {did_you_mean(option, first | second)}"
                )
        # an option of both goes to the class
        made = {name: value for name, value in self._options.items() if name in first}
        return made, {name: value for name, value in self._options.items() if name not in first}

    def _class(self) -> Any:
        from importlib import import_module

        module, name = _HOMES[self.kind]
        return getattr(import_module(f"sbi.inference.posteriors.{module}"), name)

    def _make(self, options: Mapping[str, Any]) -> Any:
        """sbi's posterior over z."""
        from sbi.inference import potentials

        core, prior, made_by = self._core, torch_z_prior(self._core.prior), self._class()
        if self.kind == "direct":
            return made_by(core.net, prior, **options)
        if self.kind in ("ode", "sde"):
            return made_by(core.net, prior, sample_with=self.kind, **options)
        potential, transform = getattr(potentials, _POTENTIALS[core.method.family])(core.net, prior, x_o=None)
        second = {"prior" if self.kind == "vi" else "proposal": prior, "theta_transform": transform}
        if self.kind == "vi" and core.prior.z_dim == 1:
            second["q"] = "gf"  # autoregressive flows are unstable over one coordinate
        return made_by(potential, **{**second, **options})


def default_chains(n: int) -> int:
    """Number of chains that share n draws evenly.

    The most, up to 20, with 25 or more draws each; 1 if there are none.
    """
    return max(c for c in range(1, _MOST_CHAINS + 1) if c == 1 or (n % c == 0 and n // c >= _FEWEST_DRAWS))


class AbstractFitted(abc.ABC):
    """A trained network of the sbi package.

    Attributes:
        prior: the prior of the draws.
        names: names of the F features of x.
        info: JSON-able notes of the fit.
        net: the network of sbi, over z and h: h = `to_h(x)`, theta = `to_theta(z)`.
    """

    def __init__(self, core: Core) -> None:
        self._core, self.prior, self.names = core, core.prior, core.inputs.names
        self.info, self.net = core.info, core.net

    @abc.abstractmethod
    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draw from the posterior of one observation."""

    def posterior(self, kind: str | None = None, **options: Any) -> SbiView:
        """One of sbi's own posteriors, sampled in the same way.

        `.sbi(x_o)` of the result is sbi's object.

        Args:
            kind: `"direct"` (NPE, NPE_A, NPE_B, NPE_PFN), `"mcmc"`, `"rejection"`, `"importance"` or `"vi"` (NPE,
                NPE_A, NPE_B, likelihoods and ratios); `"ode"` or `"sde"` (FMPE, NPSE). The method's own by default;
                MNPE has none.
            options: of sbi's class and of its `sample` (`train` for `"vi"`): `num_chains`, `warmup_steps`, `thin`,
                `oversampling_factor`, `vi_method`, `steps`, ....

        Raises:
            ValueError: a kind that this method does not have, or an option that sbi does not have.
        """
        return SbiView(self._core, kind, options)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Name the features of x_o outside the training draws."""
        return self._core.inputs.scaler.outside(x_o)

    def to_h(self, x: Any) -> np.ndarray:
        """What the network sees of x `[..., F]`."""
        return self._core.inputs(self._core.inputs.scaler.check(x, ndim=max(1, np.ndim(x))))

    def to_theta(self, z: Any) -> Theta:
        """theta, leaves `[..., *shape]`, of z `[..., D]`."""
        return self._core.to_theta(z)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON.

        `vb.load(path)` makes the network again with sbi's builder.

        Raises:
            TypeError: a network, or a part of one, that is the user's own code.
        """
        self._core.save(path)


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
        x, outside = self._core.inputs.observe(x_o)
        theta = {name: value[0] for name, value in self.sample_batch(x[None], n=n, key=key).items()}
        log_q = self.log_prob(theta, x)
        leaves = {name: value[None] for name, value in theta.items()}
        return self._core.result(leaves, log_q[None], x, outside, (*self._core.method.kinds, "direct")[0])

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draw for many observations `[B, F]`: leaves `[B, n, ...]`."""
        rows, n, key = self._core.inputs.scaler.check(x, ndim=2), _check.count(n, "n"), _check.key(key)
        return self._core.to_theta(self._core.draw(self._core.inputs(rows), n, key))

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x); -inf outside the prior's support.

        Exact: of the network (NPE, NPE_A, ...), or of the ODE that makes the draws (FMPE, NPSE), there to the solver's
        tolerance and at the price of its many steps.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        return self._core.log_density(theta, x)


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
        traced = any(isinstance(value, Tracer) for value in theta.values())
        return self._core.traced_score(theta, x) if traced else self._core.log_density(theta, x)


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


def wrap(core: Core) -> SbiPosterior | SbiLikelihood | SbiRatio:
    """The class that belongs to a network."""
    return _CLASSES[core.method.family](core)


def from_saved(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> AbstractFitted:
    """Rebuild from what `save` wrote; called by `vb.load`."""
    return wrap(Core.from_saved(header, arrays))
