"""Neural ratio estimation in JAX: a classifier of joint against independent pairs, and the posterior by NUTS."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.draws.draws import Draws
from vbinfer.neural import estimator, surrogate
from vbinfer.neural.densities.base import pairwise
from vbinfer.neural.embeddings import check_embedding, check_saved, describe, embed, embedding_from_spec
from vbinfer.neural.fit_info import FitInfo
from vbinfer.neural.scaler import SummarySpace
from vbinfer.neural.standardise import Standardise
from vbinfer.neural.surrogate import AbstractSurrogate, ThetaContext
from vbinfer.neural.training import Data, Training
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Options of the network that tells joint from independent pairs.

    Args:
        width: hidden units.
        depth: hidden layers (tanh).
    """

    width: int = 64
    depth: int = 3

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"Classifier({name}={value}) was given; expected a number above 0")


@dataclasses.dataclass(frozen=True)
class NRE:
    """Neural ratio estimation: fits log r(theta, x) = log p(x | theta) / p(x), and samples p(theta) r(theta, x_o).

    The contrastive loss NRE-C: which of K parameters, if any, made this x? Its optimum is the ratio itself, not up to a
    factor of x. Takes no density, so x may be long and of any shape; needs a sampling run per observation.

    Args:
        classifier: `vb.Classifier(width=..., depth=...)`.
        embedding: a network between x and the classifier, as in `vb.NPE`.
        ensemble: networks trained side by side, whose mean ratio is used.
        num_candidates: parameters K that each x is held against.
        training: `vb.Training(...)`.

    Miller, Weniger & Forre 2022, NeurIPS, doi:10.48550/arXiv.2210.06170.

    Example:
        amortized, info = vb.NRE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    classifier: Classifier = dataclasses.field(default_factory=Classifier)
    embedding: Any = None
    ensemble: int = 1
    num_candidates: int = 10
    training: Training = dataclasses.field(default_factory=Training)

    def __post_init__(self) -> None:
        estimator.check_options(
            self,
            classifier=(Classifier, "vb.Classifier(width=..., depth=...)"),
            training=(Training, "vb.Training(max_epochs=..., batch_size=...)"),
        )
        check_embedding(self.embedding)
        if isinstance(self.num_candidates, bool) or not isinstance(self.num_candidates, int) or self.num_candidates < 1:
            raise ValueError(f"num_candidates={self.num_candidates!r} was given; expected a whole number, such as 10")

    def fit(
        self,
        draws: Draws,
        prior: Prior,
        *,
        key: PRNGKey,
        progress: bool = False,
        checkpoint: str | Path | None = None,
    ) -> tuple["AmortizedRatio", FitInfo]:
        """Train on the valid draws, which have to come from the prior. Arguments and errors as `vb.NPE.fit`.

        Raises:
            ValueError: also for draws of later rounds, whose ratio is that of the proposal.
        """
        if np.any(draws.round > 0):
            raise ValueError("some draws come from later rounds; the ratio needs draws of the prior: use NLE or NPE")
        made = estimator.ready(draws, prior, self.training, key, self.embedding)
        context = ThetaContext.fit(prior, made.z[made.fitting])
        c, width = context(made.z), made.h.shape[-1]
        loss = _Loss(self.num_candidates)
        job = estimator.Job(lambda k: self._build(k, context.width, width), loss, made.h, c, self._study())
        members, trained = estimator.fit_members(made, job, self, progress, checkpoint)
        network = Ratio(members, self.ensemble)
        gain = surrogate.information_gain(network, made.h[made.held], c[made.held])
        info = estimator.record(made, trained, "NRE", gain)
        return AmortizedRatio(prior, self, network, (made.space, context), estimator.notes(info)), info

    def _build(self, key: PRNGKey, dim: int, width: int) -> "Pair":
        k_embedding, k_classifier = jax.random.split(key)
        network, out = embed(self.embedding, k_embedding, width)
        options = self.classifier
        mlp = eqx.nn.MLP(dim + out, "scalar", options.width, options.depth, activation=jnp.tanh, key=k_classifier)
        return Pair(network, mlp)

    def _study(self) -> dict[str, Any]:
        options = dataclasses.asdict(self.classifier)
        return {
            "classifier": options,
            "embedding": describe(self.embedding),
            "ensemble": self.ensemble,
            "num_candidates": self.num_candidates,
        }


class Pair(eqx.Module):
    """log r of one pair, h `[F]` and the context of theta `[C]`."""

    embedding: Any
    mlp: eqx.nn.MLP

    def __call__(self, h: Array, c: Array) -> Array:
        """The log ratio."""
        seen = h if self.embedding is None else self.embedding(h)
        return self.mlp(jnp.concatenate([c, seen]))


class Ratio(eqx.Module):
    """The mean ratio of an ensemble: log mean_k r_k."""

    members: Pair
    size: int = eqx.field(static=True)

    def __call__(self, h: Array, c: Array) -> Array:
        """The log ratio of one pair."""
        each = eqx.filter_vmap(lambda member: member(h, c))(self.members)
        return jax.nn.logsumexp(each) - jnp.log(self.size)


@final
class AmortizedRatio(AbstractSurrogate):
    """r(theta, x) = p(x | theta) / p(x) of the simulator that it was trained on. Made by `NRE.fit`.

    Attributes:
        prior: the prior of the draws.
        space: names and scale of the F features of x.
        info: JSON-able notes of the fit.
    """

    method = "NRE"

    @property
    def _score(self) -> Callable[[Theta, Any], Array]:
        return self.log_ratio

    def log_ratio(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log p(x | theta) - log p(x), approximately; what `sample_mcmc` takes as a likelihood.

        Args:
            theta: leaves `[..., *shape]`, inside the prior.
            x: one summary `[F]`, or one per theta `[..., F]`.
        """
        values = {name: jnp.asarray(theta[name]) for name in theta}
        return _log_ratio(self._network, self.prior, self._context, self.space.standardise, values, self.space.rows(x))

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON; `vb.load(path)` rebuilds the same ratio, bit for bit.

        Raises:
            TypeError: an embedding of your own, whose code a file cannot hold.
        """
        check_saved(self.estimator.embedding)
        self._write(path)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "AmortizedRatio":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        prior, space = Prior.from_spec(header["prior"]), SummarySpace.from_saved(header["names"], arrays)
        embedding = embedding_from_spec(header["embedding"])
        own = NRE(Classifier(**header["classifier"]), embedding, header["ensemble"], header["num_candidates"])
        context = ThetaContext.from_arrays(prior, arrays)
        build = lambda k: own._build(k, context.width, len(space.names))  # noqa: E731
        empty = Ratio(estimator.build_members(build, own.ensemble), own.ensemble)
        network = estimator.network_from_arrays(empty, arrays, header["versions"])
        return cls(prior, own, network, (space, context), header["info"])


@dataclasses.dataclass(frozen=True)
class _Loss:
    """NRE-C with odds 1: each x against K independent parameters, and against its own among K."""

    num_candidates: int

    def __call__(self, network: Callable[[Array, Array], Array], batch: Data, key: PRNGKey) -> Array:
        n = len(batch.y)
        count = min(self.num_candidates, n - 1)
        shifts = 1 + jax.random.permutation(key, n - 1)[:count]
        others = jax.vmap(lambda k: jnp.roll(batch.c, k, axis=0))(shifts)  # [K, n, C], never a row's own
        own = jax.vmap(network)(batch.y, batch.c)
        log_r = jax.vmap(lambda c: jax.vmap(network)(batch.y, c))(others)  # [K, n]
        log_count = jnp.log(count)
        nobody = -jnp.logaddexp(0.0, jax.nn.logsumexp(log_r, axis=0) - log_count)
        among = jnp.concatenate([own[None], log_r[: count - 1]])
        own_wins = own - log_count - jnp.logaddexp(0.0, jax.nn.logsumexp(among, axis=0) - log_count)
        return -jnp.mean(0.5 * nobody + 0.5 * own_wins)


@eqx.filter_jit
def _log_ratio(
    network: Ratio, prior: Prior, context: ThetaContext, standardise: Standardise, theta: Theta, x: Array
) -> Array:
    c, h = context(prior.ravel_z(prior.unconstrain(theta))), standardise(x)
    return pairwise(network, h, c)
