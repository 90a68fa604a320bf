"""sbi's own posteriors over a trained network, with our keys and names."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.evaluate import log_posterior
from vbinfer.neural.sbi.quiet import quiet_torch, to_torch
from vbinfer.neural.sbi.zprior import z_prior
from vbinfer.posterior import Posterior

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
    """One of sbi's posteriors. Made by `fitted.posterior(kind, **options)`.

    Example:
        posterior = fitted.posterior("mcmc", num_chains=4, warmup_steps=500).sample(x_o, n=2_000, key=key)
    """

    def __init__(self, core: Core, kind: str | None, options: Mapping[str, Any]) -> None:
        kinds = core.method.kinds
        self.kind = kinds[0] if kind is None else kind
        if self.kind not in kinds:
            raise ValueError(
                f"posterior({kind!r}) was asked of {core.name}, which has {', '.join(kinds)}. "
                f"{did_you_mean(str(kind), kinds)}"
            )
        self._core, self._options = core, dict(options)
        with quiet_torch(None):
            self._split()

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Draws from the posterior of one observation.

        Args:
            x_o: `[F]`; of likelihoods and ratios also `[T, F]`, T independent trials of the same theta.
            n: number of draws, over all chains.
            key: randomness.

        Returns:
            Leaves `[chain, n / chain, ...]`: several chains for `"mcmc"`, else one. `log_prob` is the log posterior:
            normalised for posterior networks, log prior plus log-likelihood (or log-ratio) for the others.
        """
        return sample_view(self, x_o, n=n, key=key, stacklevel=5)

    def sbi(self, x_o: Any = None) -> Any:
        """sbi's object itself, over z and h = `fitted.to_h(x)`; with `x_o`, its default observation is set."""
        made, _ = self._split()
        with quiet_torch(None):
            found = self._make(made)
            if x_o is not None:
                found.set_default_x(to_torch(np.atleast_2d(self._h(x_o, 4)[1])))
        return found

    def _h(self, x_o: Any, stacklevel: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        trials = self._core.method.family in ("likelihood", "ratio")
        x, outside = self._core.inputs.observe(x_o, trials)
        return x, self._core.inputs(x), outside

    def _split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options of sbi's class, and those of its `sample` (of its `train` for variational inference)."""
        made_by = _class(self.kind)
        run = made_by.train if self.kind == "vi" else made_by.sample
        first, second = (set(inspect.signature(f).parameters) - _SET_HERE for f in (made_by.__init__, run))
        for option in self._options:
            if option not in first | second:
                raise ValueError(
                    f"posterior({self.kind!r}) was given {option!r}; its options in sbi are "
                    f"{', '.join(sorted(first | second))}. {did_you_mean(option, first | second)}"
                )
        made = {name: value for name, value in self._options.items() if name in first}
        return made, {name: value for name, value in self._options.items() if name not in first}

    def _make(self, options: Mapping[str, Any]) -> Any:
        """sbi's posterior over z."""
        from sbi.inference import potentials

        core, prior, made_by = self._core, z_prior(self._core.prior), _class(self.kind)
        if self.kind == "direct":
            return made_by(core.net, prior, **options)
        if self.kind in ("ode", "sde"):
            return made_by(core.net, prior, sample_with=self.kind, **options)
        potential, transform = getattr(potentials, _POTENTIALS[core.method.family])(core.net, prior, x_o=None)
        second = {"prior" if self.kind == "vi" else "proposal": prior, "theta_transform": transform}
        if self.kind == "vi" and core.prior.z_dim == 1:
            second["q"] = "gf"  # autoregressive flows are unstable over one coordinate
        return made_by(potential, **{**second, **options})


def sample_view(view: SbiView, x_o: Any, *, n: int, key: PRNGKey, stacklevel: int) -> Posterior:
    """What `SbiView.sample` does, for a caller `stacklevel` frames above the warning."""
    core = view._core
    n, key = _check.count(n, "n"), _check.key(key)
    x, h, outside = view._h(x_o, stacklevel)
    made, run = view._split()
    chains = 1
    if view.kind == "mcmc":
        chains = int({**made, **run}.get("num_chains") or default_chains(n))
        if n % chains:
            raise ValueError(
                f"n={n} is no multiple of num_chains={chains}; give one that is, such as {chains * -(-n // chains)}"
            )
        made = {"num_chains": chains, "warmup_steps": 200, "thin": 1, **made}
    rows = to_torch(np.atleast_2d(h))
    with quiet_torch(key):
        sampler = view._make(made)
        if view.kind == "vi":
            sampler.set_default_x(rows)
            sampler.train(**{"show_progress_bar": False, "quality_control": False, **run})
            run = {}
        if view.kind in ("ode", "sde"):
            run = {"reject_outside_prior": False, **run}
        z = sampler.sample((n,), x=rows, show_progress_bars=False, **run)
    theta = core.to_theta(z.detach().numpy().reshape(chains, n // chains, -1))
    return core.result(theta, log_posterior(core, theta, x), x, outside, view.kind)


def default_chains(n: int) -> int:
    """The most chains, up to 20, that share n draws evenly with 25 or more each; 1 if there are none."""
    return max(c for c in range(1, _MOST_CHAINS + 1) if c == 1 or (n % c == 0 and n // c >= _FEWEST_DRAWS))


def _class(kind: str) -> Any:
    import importlib

    module, name = _HOMES[kind]
    return getattr(importlib.import_module(f"sbi.inference.posteriors.{module}"), name)
