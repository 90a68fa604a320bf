"""Neural likelihood estimation in JAX: a density of the summary given the parameters, and the posterior by NUTS."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.draws.draws import Draws
from vbinfer.neural import estimator, surrogate
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity, mixture, pairwise
from vbinfer.neural.densities.flows import MAF
from vbinfer.neural.densities.registry import density_from_spec
from vbinfer.neural.fit_info import FitInfo
from vbinfer.neural.scaler import SummarySpace
from vbinfer.neural.standardise import Standardise
from vbinfer.neural.surrogate import AbstractSurrogate, ThetaContext
from vbinfer.neural.training import Training
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class NLE:
    """Neural likelihood estimation: fits q(x | theta) to draws, and samples p(theta) q(x_o | theta) by NUTS.

    Better than `vb.NPE` where x is short and simple given theta (a few Gaussian-like features) or where several
    observations share theta: sum `log_likelihood` over them. Needs a sampling run per observation; wants few features
    (tens, not hundreds); takes draws from any proposal, so draws of later rounds need no correction.

    Args:
        density: `vb.MAF()` (the default), `vb.NSF()` or `vb.MDN()`, with their options.
        ensemble: networks trained side by side, whose equal mixture is q.
        training: `vb.Training(...)`.

    Papamakarios, Sterratt & Murray 2019, AISTATS, doi:10.48550/arXiv.1805.07226.

    Example:
        amortized, info = vb.NLE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    density: AbstractDensity = dataclasses.field(default_factory=MAF)
    ensemble: int = 1
    training: Training = dataclasses.field(default_factory=Training)

    def __post_init__(self) -> None:
        estimator.check_options(
            self,
            density=(AbstractDensity, "vb.MAF(...), vb.NSF(...) or vb.MDN(...)"),
            training=(Training, "vb.Training(max_epochs=..., batch_size=...)"),
        )

    def fit(
        self,
        draws: Draws,
        prior: Prior,
        *,
        key: PRNGKey,
        progress: bool = False,
        checkpoint: str | Path | None = None,
    ) -> tuple["AmortizedLikelihood", FitInfo]:
        """Train on the valid draws. Arguments and errors as `vb.NPE.fit`.

        Raises:
            ValueError: also when no feature varies over the draws.
        """
        made = estimator.ready(draws, prior, self.training, key)
        varies = _varying(made.space)
        if len(varies) == 0:
            raise ValueError("no feature of x varies over the draws; give summaries that depend on theta or on noise")
        context = ThetaContext.fit(prior, made.z[made.fitting])
        c, build = context(made.z), lambda k: self.density.build(k, len(varies), context.width)
        job = estimator.Job(build, estimator.likelihood_loss, made.h[:, varies], c, self._study())
        members, trained = estimator.fit_members(made, job, self, progress, checkpoint)
        network = mixture(members, self.ensemble)
        held = made.held
        gain = surrogate.information_gain(lambda y, c: network.log_prob(y, c), job.y[held], c[held])
        info = estimator.record(made, trained, "NLE", gain)
        return AmortizedLikelihood(prior, self, network, (made.space, context), estimator.notes(info)), info

    def _study(self) -> dict[str, Any]:
        return {"density": self.density.to_spec(), "ensemble": self.ensemble}


@final
class AmortizedLikelihood(AbstractSurrogate):
    """q(x | theta) of the simulator that it was trained on. Made by `NLE.fit`.

    Attributes:
        prior: the prior of the draws.
        space: names and scale of the F features of x.
        info: JSON-able notes of the fit.
    """

    method = "NLE"

    @property
    def _score(self) -> Callable[[Theta, Any], Array]:
        return self.log_likelihood

    def log_likelihood(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log q(x | theta), a normalised density over the features that varied in training; what `sample_mcmc` takes.

        Args:
            theta: leaves `[..., *shape]`, inside the prior.
            x: one summary `[F]`, or one per theta `[..., F]`.
        """
        values = {name: jnp.asarray(theta[name]) for name in theta}
        parts = (self._context, self.space.standardise, tuple(_varying(self.space).tolist()))
        return _log_likelihood(self._network, self.prior, parts, values, self.space.rows(x))

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON; `vb.load(path)` rebuilds the same density, bit for bit."""
        self._write(path)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "AmortizedLikelihood":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        prior, space = Prior.from_spec(header["prior"]), SummarySpace.from_saved(header["names"], arrays)
        own = NLE(density_from_spec(header["density"]), header["ensemble"])
        context, varies = ThetaContext.from_arrays(prior, arrays), _varying(space)
        build = lambda k: own.density.build(k, len(varies), context.width)  # noqa: E731
        empty = mixture(estimator.build_members(build, own.ensemble), own.ensemble)
        network = estimator.network_from_arrays(empty, arrays, header["versions"])
        return cls(prior, own, network, (space, context), header["info"])


def _varying(space: SummarySpace) -> np.ndarray:
    """Columns of the features that varied in training; the others have no density."""
    return np.flatnonzero(np.asarray(space.standardise.varies))


@eqx.filter_jit
def _log_likelihood(
    network: AbstractConditional,
    prior: Prior,
    parts: tuple[ThetaContext, Standardise, tuple[int, ...]],
    theta: Theta,
    x: Array,
) -> Array:
    context, standardise, varies = parts
    c = context(prior.ravel_z(prior.unconstrain(theta)))
    y = standardise(x)[..., jnp.array(varies)]
    return pairwise(network.log_prob, y, c) + standardise.log_det(x)
