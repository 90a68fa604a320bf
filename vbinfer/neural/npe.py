"""Neural posterior estimation."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.draws.draws import Draws
from vbinfer.execute.options import quickly
from vbinfer.neural.densities import NSF, Regional
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity, Embedded, draw, pairwise
from vbinfer.neural.embeddings import embed
from vbinfer.neural.estimator import AbstractAmortized, AbstractEstimator
from vbinfer.neural.fit_info import density_gain
from vbinfer.neural.missing import LONGER, Missing, check_missing, masked, warn_of_gaps
from vbinfer.neural.refine import refined
from vbinfer.neural.scaler import FeatureScaler, Standardise
from vbinfer.neural.training import Training
from vbinfer.neural.training_data import check_proposal
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

_BATCH = 64
_NOTHING = 0.05
"""Nats per region: those of 10 % of a variance."""


def warn_of_layout(density: Regional, names: Sequence[str], gain: float) -> None:
    """Name the layout that was assumed, where nothing was learned.

    And where names of features do not tell it.
    """
    if gain < _NOTHING * density.nodes and not density.check_features(names):
        warnings.warn(
            f"next to nothing was learned of {density.nodes} regions ({gain:.2f} nats in all); the features were "
            f"read as one number of all {density.nodes} regions after the other, "
            f"[F, {density.nodes}].reshape(-1): transpose them if they follow region by region, "
            "or use pool='nodes' in a Summary",
            stacklevel=4,
        )


_FEW = 4_000


@final
class AmortizedPosterior(AbstractAmortized):
    """q(theta | x) for any x of its simulator.

    Made by `NPE.fit`.

    Attributes:
        prior: the prior of the draws.
        estimator: the options of the fit.
        scaler: names and scale of the F features of x.
        info: JSON-able notes of the fit: `sentence`, `info_gain`, `converged`.
    """

    method = "NPE"

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Draw from the posterior of one observation.

        Args:
            x_o: observed summary `[F]`; trained with `missing=`, NaN where a feature is missing.
            n: number of draws.
            key: randomness.

        Returns:
            A posterior with one chain, leaves `[1, n, ...]`, and `log_prob` the normalised log q(theta | x_o).

        Raises:
            ValueError: another number of features than in training, infinite ones, or NaN without `missing=` in
                training (the message names the features).
        """
        n, key = _check.count(n, "n"), _check.key(key)
        x, outside = self.scaler.observe(x_o)
        info = {"method": "NPE", "outside_training": list(outside), **self.info}
        if (gone := np.isnan(x)).any():
            warn_of_gaps(self.estimator.missing, self.names, gone)
            info["missing"] = [name for name, flag in zip(self.names, gone.tolist(), strict=True) if flag]
        if gone.all():
            theta = self.prior.sample(key=key, n=n)
            log_q = self.prior.log_prob(theta)
        else:
            theta, log_q = _sample(self.prior, self._network, self.scaler.standardise, jnp.asarray(x), key, n)
        leaves = {name: np.asarray(value)[None] for name, value in theta.items()}
        return Posterior(leaves, log_prob=np.asarray(log_q)[None], x_o=x, prior=self.prior, info=info)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draw for many observations `[B, F]`: leaves `[B, n, ...]`."""
        n, key = _check.count(n, "n"), _check.key(key)
        rows = self.scaler.check(x, ndim=2)
        keys = jax.random.split(key, len(rows))
        theta = _sample_batch(self.prior, self._network, self.scaler.standardise, jnp.asarray(rows), keys, n)
        for i in np.flatnonzero(np.isnan(rows).all(axis=1)).tolist():  # nothing is there: the prior
            own = self.prior.sample(key=keys[i], n=n)
            theta = {name: value.at[i].set(own[name]) for name, value in theta.items()}
        return theta

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x), exact.

        -inf outside the prior's support.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        values = {name: jnp.asarray(theta[name]) for name in theta}
        return _log_prob(self.prior, self._network, self.scaler.standardise, values, self.scaler.rows(x))

    def refine(self, x_o: Any, likelihood: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Correct the posterior of one observation by a likelihood.

        Proposals theta_i of q, i = 1 ... 4 n, get the Pareto-smoothed weights of

        w_i = p(theta_i) p(x_o | theta_i) / q(theta_i | x_o),   log p(x_o) = log mean w

        and n of them are taken in proportion: exact where q covers the posterior, at the price of 4 n likelihoods.
        Pareto khat says whether it does; above 0.7 there is a warning, and chains that start from these draws are the
        remedy: `vb.sample_mcmc(prior, log_likelihood, x_o, init=posterior, key=key)`. Blind to a mode of which q has
        no draw.

        Args:
            x_o: observed summary `[F]`.
            likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number, by JAX (data of another kind than the
                summary: `lambda theta, _: log_likelihood(theta, y)`); or what `vb.NLE().fit` returns.
            n: number of draws.
            key: randomness.

        Returns:
            A posterior of one chain, n draws of equal weight, some of them alike; `log_prob` is log p(theta) +
            log p(x_o | theta), unnormalised. `log_evidence` estimates log p(x_o); `info` has `khat`, `ess`, (sum w)^2 /
            sum w^2 as a number of n draws, `log_weights` `[4 n]` of the proposals, normalised, `log_evidence_error`.

        Raises:
            ValueError: a likelihood that is not one number, that asks for other parameters or features, or that is
                finite at no proposal.
            TypeError: neither a function nor a fitted likelihood.

        Dax et al. 2023, Phys. Rev. Lett. 130, doi:10.1103/PhysRevLett.130.171403; Vehtari et al. 2024, J. Mach. Learn.
        Res. 25(72), arXiv:1507.02646.

        Example:
            posterior = amortized.refine(x_o, log_likelihood, n=4_000, key=jax.random.key(3))
        """
        return refined(self, x_o, likelihood, n=n, key=key)


@dataclasses.dataclass(frozen=True)
class NPE(AbstractEstimator[AmortizedPosterior]):
    """Neural posterior estimation: fits q(theta | x) to draws.

    The density lives in z, where the prior is standard normal, so no posterior mass leaves the prior's support, log q
    needs no correction, and an untrained flow is the prior. Draws of later rounds, from the prior truncated to where
    the posterior is, are used alike. Blind to model misspecification: for an x_o unlike every simulation the answer is
    an extrapolation, and a warning names the features.

    Args:
        density: `vb.densities.NSF()` (the default), `vb.densities.MAF()`, `vb.densities.MDN()` or
            `vb.densities.FlowMatching()`, with their options; `vb.densities.Regional(nodes)` for maps of a parameter
            over the regions of a brain.
        embedding: a network between x and the density: options such as `vb.densities.embeddings.Conv(...)`, or your own
            `eqx.Module` from `[F]` to `[out]`; None gives the density x itself, standardised.
        ensemble: networks trained side by side, whose equal mixture is q: better calibrated, at K times the cost.
            None: two with fewer than 4,000 draws, where a single network overfits, else one.
        training: `vb.densities.Training(...)`: epochs, batch size, step size, patience, share held out.
        missing: features that an observation may lack, NaN in their place: the share of them that is hidden in
            training, in [0, 1), or features that are hidden together, `{"electrode 17": ("psd.17", "fc.17")}` (a
            feature may be in several groups; those in none are always there). The posterior is then that given what is
            there, for any part of the features, or any of the groups. 0 takes complete observations only.

    Papamakarios & Murray 2016, NeurIPS, doi:10.48550/arXiv.1605.06376; Greenberg, Nonnenmacher & Macke 2019, ICML,
    doi:10.48550/arXiv.1905.07488; Hermans et al. 2022, TMLR, doi:10.48550/arXiv.2110.06581 (ensembles); Wang,
    Hasenauer & Schälte 2024, PLoS Comput. Biol., doi:10.1371/journal.pcbi.1012184 (missing data).

    Example:
        amortized, info = vb.NPE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    density: AbstractDensity = dataclasses.field(default_factory=NSF)
    embedding: Any = None
    ensemble: int | None = None
    training: Training = dataclasses.field(default_factory=Training)
    missing: Missing = 0.0

    fitted: ClassVar[Any] = AmortizedPosterior

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", check_missing(self.missing))
        self._check_options(
            density=(
                AbstractDensity,
                "vb.densities.NSF(...), vb.densities.MAF(...), vb.densities.MDN(...), "
                "vb.densities.FlowMatching(...) or vb.densities.Regional(...)",
            )
        )

    def _check_draws(self, draws: Draws, prior: Prior) -> None:
        check_proposal(draws, prior)
        if isinstance(self.density, Regional):
            self.density.check(prior)
            if self.embedding is None:
                _check_regions(self, self.density.nodes, draws.x.shape[1])
                self.density.check_features(draws.names)

    def _sized(self, n: int) -> "NPE":
        # two members regularise each other where one would overfit; from 4,000 draws on one does as well
        own = self if self.ensemble is not None else dataclasses.replace(self, ensemble=2 if n < _FEW else 1)
        if not self.missing or self.training.max_epochs is not None:
            return own
        epochs = round(LONGER * self.training.epochs(n))
        return dataclasses.replace(own, training=dataclasses.replace(self.training, max_epochs=epochs))

    def _pairs(self, scaler: FeatureScaler, context: Any, z: np.ndarray, h: np.ndarray) -> tuple[Any, Any]:
        return z, h

    def _build(self, key: PRNGKey, dim: int, width: int) -> AbstractConditional:
        k_embedding, k_density = jax.random.split(key)
        network, out = embed(self.embedding, k_embedding, width)
        if self.missing:
            nodes = self.density.nodes if isinstance(self.density, Regional) else None
            network, out = masked(network, (width, out), nodes, jax.random.fold_in(k_embedding, 1))
        density = self.density.build(k_density, dim, out)
        return density if network is None else Embedded(network, density)

    def _gain(self, fitted: AmortizedPosterior, z: np.ndarray, x: np.ndarray, y: np.ndarray, key: PRNGKey) -> float:
        theta = fitted.prior.from_z(z)[0]
        gain = density_gain(fitted.log_prob(theta, x), fitted.prior.log_prob(theta))
        if isinstance(self.density, Regional) and self.embedding is None:
            warn_of_layout(self.density, fitted.scaler.names, gain)
        return gain


def _check_regions(estimator: NPE, nodes: int, width: int) -> None:
    whole = width % nodes
    if estimator.missing and 2 * whole >= nodes:
        raise ValueError(
            f"missing= with Regional(nodes={nodes}) takes fewer than {nodes / 2:g} features of the whole brain beside "
            f"those by region; the draws have {whole}. Leave some out"
        )


AmortizedPosterior.options = NPE


@quickly
def _log_prob(prior: Prior, network: AbstractConditional, standardise: Standardise, theta: Theta, x: Array) -> Array:
    z = prior.to_z(theta)
    # log q(theta | x) = log q(z | h) - log |d theta / d z|
    value, log_prior = pairwise(network.log_prob, z, standardise(x)) - prior.from_z(z)[1], prior.log_prob(theta)
    value = jnp.where(jnp.isnan(x).all(axis=-1), log_prior, value)  # nothing is there
    inside = jnp.isfinite(log_prior) & ~jnp.isnan(value)
    return jnp.where(inside, value, -jnp.inf)


@quickly
def _sample(
    prior: Prior, network: AbstractConditional, standardise: Standardise, x: Array, key: PRNGKey, n: int
) -> tuple[Theta, Array]:
    z, log_q = draw(network, standardise(x), key, n)
    theta, log_det = prior.from_z(z)
    return theta, log_q - log_det


@quickly
def _sample_batch(
    prior: Prior, network: AbstractConditional, standardise: Standardise, x: Array, keys: Array, n: int
) -> Theta:
    def one(pair: tuple[Array, PRNGKey]) -> Theta:
        return prior.from_z(network.sample(standardise(pair[0]), pair[1], n))[0]

    return jax.lax.map(one, (x, keys), batch_size=_BATCH)
