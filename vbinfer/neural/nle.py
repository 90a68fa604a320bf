"""Neural likelihood estimation."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.neural.densities import MAF
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity
from vbinfer.neural.estimator import AbstractEstimator
from vbinfer.neural.scaler import FeatureScaler
from vbinfer.neural.surrogate import AbstractSurrogate
from vbinfer.neural.training import Training


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

    def log_likelihood(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log q(x | theta); what `sample_mcmc` takes.

        A normalised density over the features that varied in training.

        Args:
            theta: leaves `[..., *shape]`, inside the prior.
            x: one summary `[F]`, or one per theta `[..., F]`.
        """
        return self._score(theta, x)

    @property
    def _columns(self) -> tuple[int, ...]:
        return tuple(_varying(self.scaler).tolist())


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

    def _pairs(self, scaler: FeatureScaler, context: Any, z: np.ndarray, h: np.ndarray) -> tuple[Any, Any]:
        varies = _varying(scaler)
        if len(varies) == 0:
            raise ValueError("no feature of x varies over the draws; give summaries that depend on theta or on noise")
        return h[:, varies], np.asarray(context(z))

    def _build(self, key: PRNGKey, dim: int, width: int) -> AbstractConditional:
        return self.density.build(key, dim, width)


AmortizedLikelihood.options = NLE


def _varying(scaler: FeatureScaler) -> np.ndarray:
    """Columns that varied in training; the others have no density."""
    return np.flatnonzero(scaler.standardise.varies)
