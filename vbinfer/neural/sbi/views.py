"""sbi's own posteriors of a fitted network."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.neural.sbi.quiet import quiet_torch
from vbinfer.posterior import Posterior
from vbinfer.priors._torch import to_torch, torch_z_prior

if TYPE_CHECKING:
    from vbinfer.neural.sbi.core import AbstractFitted

_MOST_CHAINS = 20
_FEWEST_DRAWS = 25
"""Per chain, so that R-hat means something."""
_CLASSES = {
    "direct": "DirectPosterior",
    "mcmc": "MCMCPosterior",
    "rejection": "RejectionPosterior",
    "importance": "ImportanceSamplingPosterior",
    "vi": "VIPosterior",
    "ode": "VectorFieldPosterior",
    "sde": "VectorFieldPosterior",
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

    def __init__(self, fitted: "AbstractFitted", kind: str | None, options: Mapping[str, Any]) -> None:
        kinds = fitted.method.kinds
        self.kind = kind or (*kinds, "direct")[0]
        if self.kind not in kinds:
            raise ValueError(
                f"posterior({self.kind!r}) was asked of {fitted.name}, which has {', '.join(kinds) or 'none of sbi'}. "
                f"{did_you_mean(self.kind, kinds)}"
            )
        self._fitted, self._options = fitted, dict(options)
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
        theta = self._fitted.to_theta(z.detach().numpy().reshape(chains, n // chains, -1))
        return self._fitted.result(theta, self._fitted.log_posterior(theta, x), x, outside, self.kind)

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
        x, outside = self._fitted.inputs.observe(x_o, trials=not self._fitted.is_posterior)
        return x, self._fitted.inputs(x), outside

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
        from sbi import inference

        return getattr(inference, _CLASSES[self.kind])

    def _make(self, options: Mapping[str, Any]) -> Any:
        """sbi's posterior over z."""
        from sbi.inference import potentials

        fitted, prior, made_by = self._fitted, torch_z_prior(self._fitted.prior), self._class()
        if self.kind == "direct":
            return made_by(fitted.net, prior, **options)
        if self.kind in ("ode", "sde"):
            return made_by(fitted.net, prior, sample_with=self.kind, **options)
        potential, transform = getattr(potentials, _POTENTIALS[fitted.method.family])(fitted.net, prior, x_o=None)
        second = {"prior" if self.kind == "vi" else "proposal": prior, "theta_transform": transform}
        if self.kind == "vi" and fitted.prior.z_dim == 1:
            second["q"] = "gf"  # autoregressive flows are unstable over one coordinate
        return made_by(potential, **{**second, **options})


def default_chains(n: int) -> int:
    """Number of chains that share n draws evenly.

    The most, up to 20, with 25 or more draws each; 1 if there are none.
    """
    return max(c for c in range(1, _MOST_CHAINS + 1) if c == 1 or (n % c == 0 and n // c >= _FEWEST_DRAWS))
