"""Neural posterior estimation in JAX: a conditional density trained on draws, amortised over observations."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural import estimator
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity, Embedded, draw, mixture, pairwise
from vbinfer.neural.densities.flows import NSF
from vbinfer.neural.densities.regional import Regional
from vbinfer.neural.densities.registry import density_from_spec
from vbinfer.neural.embeddings import check_embedding, check_saved, describe, embed, embedding_from_spec
from vbinfer.neural.fit_info import FitInfo
from vbinfer.neural.scaler import SummarySpace
from vbinfer.neural.standardise import Standardise
from vbinfer.neural.training import Training
from vbinfer.neural.training_data import check_proposal
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

_BATCH = 64
_FEW = 4_000


@dataclasses.dataclass(frozen=True)
class NPE:
    """Neural posterior estimation: fits q(theta | x) to draws from the prior and the simulator.

    The density lives in z, where the prior is standard normal, so no posterior mass leaves the prior's support, log q
    needs no correction, and an untrained flow is the prior. Draws of later rounds, from the prior truncated to where
    the posterior is, are used alike. Blind to model misspecification: for an x_o unlike every simulation the answer is
    an extrapolation, and a warning names the features.

    Args:
        density: `vb.NSF()` (the default), `vb.MAF()` or `vb.MDN()`, with their options; `vb.Regional(nodes)` for maps
            of a parameter over the regions of a brain.
        embedding: a network between x and the density: options such as `vb.embeddings.Conv(...)`, or your own
            `eqx.Module` from `[F]` to `[out]`; None gives the density x itself, standardised.
        ensemble: networks trained side by side, whose equal mixture is q: a better density, less sure of itself, at
            so many times the cost. None: two with fewer than 4,000 draws, where a single network learns them by heart,
            else one.
        training: `vb.Training(...)`: epochs, batch size, step size, patience, share held out.

    Papamakarios & Murray 2016, NeurIPS, doi:10.48550/arXiv.1605.06376; Greenberg, Nonnenmacher & Macke 2019, ICML,
    doi:10.48550/arXiv.1905.07488; Hermans et al. 2022, TMLR, doi:10.48550/arXiv.2110.06581 (ensembles).

    Example:
        amortized, info = vb.NPE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    density: AbstractDensity = dataclasses.field(default_factory=NSF)
    embedding: Any = None
    ensemble: int | None = None
    training: Training = dataclasses.field(default_factory=Training)

    def __post_init__(self) -> None:
        estimator.check_options(
            self,
            density=(AbstractDensity, "vb.NSF(...), vb.MAF(...), vb.MDN(...) or vb.Regional(...)"),
            training=(Training, "vb.Training(max_epochs=..., batch_size=...)"),
        )
        check_embedding(self.embedding)

    def fit(
        self,
        draws: Draws,
        prior: Prior,
        *,
        key: PRNGKey,
        progress: bool = False,
        checkpoint: str | Path | None = None,
    ) -> tuple["AmortizedPosterior", FitInfo]:
        """Train on the valid draws.

        Args:
            draws: from `sample_prior_predictive`; rows with `valid=False` are left out and counted.
            prior: the prior that they came from.
            key: decides initial weights, the held-out rows and the minibatches.
            progress: show a progress bar.
            checkpoint: a file that holds the state of training; the same call again goes on from it, and gives what
                an uninterrupted one would have given.

        Raises:
            ValueError: too few valid draws, draws of other parameters than the prior's, or a draw outside it; a
                checkpoint of another fit.
        """
        made = estimator.ready(draws, prior, self.training, key, self.embedding)
        check_proposal(draws, prior)
        if isinstance(self.density, Regional):
            self.density.check(prior)
        width, chosen = made.h.shape[-1], self._chosen(len(made.fitting))
        job = estimator.Job(
            lambda k: self._build(k, prior.z_dim, width), estimator.likelihood_loss, made.z, made.h, chosen._study()
        )
        members, trained = estimator.fit_members(made, job, chosen, progress, checkpoint)
        network = mixture(members, chosen.size)
        gain = float(jnp.mean(_log_ratio(network, made.z[made.held], made.h[made.held], prior)))
        info = estimator.record(made, trained, "NPE", gain)
        return AmortizedPosterior(prior, chosen, network, made.space, estimator.notes(info)), info

    @property
    def size(self) -> int:
        """Number of networks; 1 while it is left open."""
        return self.ensemble or 1

    def _chosen(self, n: int) -> "NPE":
        """These options with a number of networks, for n draws to train on."""
        if self.ensemble is not None:
            return self
        return dataclasses.replace(self, ensemble=2 if n < _FEW else 1)

    def _build(self, key: PRNGKey, dim: int, width: int) -> AbstractConditional:
        k_embedding, k_density = jax.random.split(key)
        network, out = embed(self.embedding, k_embedding, width)
        density = self.density.build(k_density, dim, out)
        return density if network is None else Embedded(network, density)

    def _study(self) -> dict[str, Any]:
        described = describe(self.embedding)
        return {"density": self.density.to_spec(), "embedding": described, "ensemble": self.ensemble}


class AmortizedPosterior:
    """q(theta | x) for any x of the simulator that it was trained on. Made by `NPE.fit`.

    Attributes:
        prior: the prior of the draws.
        space: names and scale of the F features of x.
        info: JSON-able notes of the fit: `sentence`, `info_gain`, `converged`.
    """

    def __init__(
        self,
        prior: Prior,
        estimator: NPE,
        network: AbstractConditional,
        space: SummarySpace,
        info: Mapping[str, Any],
    ) -> None:
        self.prior, self.estimator, self.space, self.info = prior, estimator, space, dict(info)
        self._network = network

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features of x."""
        return self.space.names

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Draws from the posterior of one observation.

        Args:
            x_o: observed summary `[F]`.
            n: number of draws.
            key: randomness.

        Returns:
            A posterior with one chain, leaves `[1, n, ...]`, and `log_prob` the normalised log q(theta | x_o).

        Raises:
            ValueError: another number of features than in training, or NaN (the message names the features).
        """
        (x, outside), n, key = self.space.observe(x_o), _check.count(n, "n"), _check.key(key)
        theta, log_q = _sample(self.prior, self._network, self.space.standardise, jnp.asarray(x), key, n)
        info = {"method": "NPE", "outside_training": list(outside), **self.info}
        leaves = {name: np.asarray(value)[None] for name, value in theta.items()}
        return Posterior(leaves, log_prob=np.asarray(log_q)[None], x_o=x, prior=self.prior, info=info)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """Draws for many observations at once: leaves `[B, n, ...]` for x `[B, F]`."""
        rows, n, key = jnp.asarray(self.space.check(x, ndim=2)), _check.count(n, "n"), _check.key(key)
        keys = jax.random.split(key, len(rows))
        return _sample_batch(self.prior, self._network, self.space.standardise, rows, keys, n)

    def log_prob(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Normalised log q(theta | x), exact; -inf outside the prior's support.

        Args:
            theta: leaves `[..., *shape]`.
            x: one observation `[F]`, or one per theta `[..., F]`.
        """
        values = {name: jnp.asarray(theta[name]) for name in theta}
        return _log_prob(self.prior, self._network, self.space.standardise, values, self.space.rows(x))

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Names of the features in which an observation lies beyond the range of the training draws."""
        return self.space.outside(x_o)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON; `vb.load(path)` rebuilds the same density, bit for bit.

        Raises:
            TypeError: an embedding of your own, whose code a file cannot hold.
        """
        check_saved(self.estimator.embedding)
        header = {
            **self.estimator._study(),
            "prior": self.prior.to_spec(),
            "names": list(self.names),
            "info": self.info,
            "versions": npz.versions("flowjax", "equinox"),
        }
        npz.write(path, "npe", header, estimator.network_arrays(self._network) | self.space.standardise.to_arrays())

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "AmortizedPosterior":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        prior, space = Prior.from_spec(header["prior"]), SummarySpace.from_saved(header["names"], arrays)
        own = NPE(density_from_spec(header["density"]), embedding_from_spec(header["embedding"]), header["ensemble"])
        build = lambda k: own._build(k, prior.z_dim, len(space.names))  # noqa: E731
        empty = mixture(estimator.build_members(build, own.size), own.size)
        network = estimator.network_from_arrays(empty, arrays, header["versions"])
        return cls(prior, own, network, space, header["info"])


@eqx.filter_jit
def _log_ratio(network: AbstractConditional, z: Array, h: Array, prior: Prior) -> Array:
    """log q(theta | x) - log p(theta), per pair."""
    theta, log_det = prior.constrain(prior.unravel_z(z))
    return jax.vmap(network.log_prob)(z, h) - log_det - prior.log_prob(theta)


@eqx.filter_jit
def _log_prob(prior: Prior, network: AbstractConditional, standardise: Standardise, theta: Theta, x: Array) -> Array:
    z = prior.unconstrain(theta)
    value = pairwise(network.log_prob, prior.ravel_z(z), standardise(x)) - prior.constrain(z)[1]
    inside = jnp.isfinite(prior.log_prob(theta)) & ~jnp.isnan(value)
    return jnp.where(inside, value, -jnp.inf)


@eqx.filter_jit
def _sample(
    prior: Prior, network: AbstractConditional, standardise: Standardise, x: Array, key: PRNGKey, n: int
) -> tuple[Theta, Array]:
    z, log_q = draw(network, standardise(x), key, n)
    theta, log_det = prior.constrain(prior.unravel_z(z))
    return theta, log_q - log_det


@eqx.filter_jit
def _sample_batch(
    prior: Prior, network: AbstractConditional, standardise: Standardise, x: Array, keys: Array, n: int
) -> Theta:
    def one(pair: tuple[Array, PRNGKey]) -> Theta:
        z = network.sample(standardise(pair[0]), pair[1], n)
        return prior.constrain(prior.unravel_z(z))[0]

    return jax.lax.map(one, (x, keys), batch_size=_BATCH)
