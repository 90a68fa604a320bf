"""Neural likelihood estimation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.neural.densities import MAF, density_from_spec
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity, pairwise
from vbinfer.neural.estimator import AbstractEstimator, likelihood_loss
from vbinfer.neural.scaler import FeatureScaler, Standardise
from vbinfer.neural.surrogate import AbstractSurrogate
from vbinfer.neural.training import LossFn, Pairs, Training
from vbinfer.priors.prior import Prior


@final
class AmortizedLikelihood(AbstractSurrogate):
    """q(x | theta) of the simulator it was trained on.

    Made by `NLE.fit`.

    Attributes:
        prior: the prior of the draws.
        estimator: the options of the fit.
        scaler: names and scale of the F features of x.
        info: JSON-able notes of the fit.
    """

    method = "NLE"

    @property
    def _score(self) -> Callable[[Theta, Any], Array]:
        return self.log_likelihood

    def log_likelihood(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log q(x | theta); what `sample_mcmc` takes.

        A normalised density over the features that varied in training.

        Args:
            theta: leaves `[..., *shape]`, inside the prior.
            x: one summary `[F]`, or one per theta `[..., F]`.
        """
        values = {name: jnp.asarray(theta[name]) for name in theta}
        parts = (self._context, self.scaler.standardise, tuple(_varying(self.scaler).tolist()))
        return _log_likelihood(self._network, self.prior, parts, values, self.scaler.rows(x))


@dataclasses.dataclass(frozen=True)
class NLE(AbstractEstimator[AmortizedLikelihood]):
    """Neural likelihood estimation: fits q(x | theta) to draws.

    NUTS samples p(theta) q(x_o | theta). Better than `vb.NPE` where x is short and simple given theta (a few
    Gaussian-like features) or where several observations share theta: sum `log_likelihood` over them. Needs a sampling
    run per observation; wants few features (tens, not hundreds); takes draws from any proposal, so draws of later
    rounds need no correction.

    Args:
        density: `vb.densities.MAF()` (the default), `vb.densities.NSF()` or `vb.densities.MDN()`, with their options.
        ensemble: networks trained side by side, whose equal mixture is q.
        training: `vb.densities.Training(...)`.

    Papamakarios, Sterratt & Murray 2019, AISTATS, doi:10.48550/arXiv.1805.07226.

    Example:
        amortized, info = vb.NLE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    density: AbstractDensity = dataclasses.field(default_factory=MAF)
    ensemble: int = 1
    training: Training = dataclasses.field(default_factory=Training)

    fitted: ClassVar[Any] = AmortizedLikelihood
    sees_theta: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check_options(
            density=(AbstractDensity, "vb.densities.MAF(...), vb.densities.NSF(...) or vb.densities.MDN(...)")
        )

    def to_spec(self) -> dict[str, Any]:
        return {"density": self.density.to_spec(), "ensemble": self.ensemble}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "NLE":
        return cls(density_from_spec(spec["density"]), spec["ensemble"])

    @property
    def loss(self) -> LossFn:
        return likelihood_loss

    def _pairs(self, scaler: FeatureScaler, context: Any, z: Array, h: Array) -> Pairs:
        varies = _varying(scaler)
        if len(varies) == 0:
            raise ValueError("no feature of x varies over the draws; give summaries that depend on theta or on noise")
        return h[:, varies], context(z)

    def _build(self, key: PRNGKey, dim: int, width: int) -> AbstractConditional:
        return self.density.build(key, dim, width)


AmortizedLikelihood.options = NLE


def _varying(scaler: FeatureScaler) -> np.ndarray:
    """Columns that varied in training; the others have no density."""
    return np.flatnonzero(np.asarray(scaler.standardise.varies))


@eqx.filter_jit
def _log_likelihood(
    network: AbstractConditional,
    prior: Prior,
    parts: tuple[Any, Standardise, tuple[int, ...]],
    theta: Theta,
    x: Array,
) -> Array:
    context, standardise, varies = parts
    c = context(prior.ravel_z(prior.unconstrain(theta)))
    # constant features have no density; their log slope is 0
    y = standardise(x)[..., jnp.array(varies)]
    return pairwise(network.log_prob, y, c) + jnp.sum(standardise.log_slope(x), axis=-1)
