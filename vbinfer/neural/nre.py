"""Neural ratio estimation."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.draws.draws import Draws
from vbinfer.neural.densities.base import Mixture
from vbinfer.neural.embeddings import embed
from vbinfer.neural.estimator import AbstractEstimator
from vbinfer.neural.scaler import FeatureScaler
from vbinfer.neural.surrogate import AbstractSurrogate
from vbinfer.neural.training import LossFn, Pairs, Training
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class RatioClassifier:
    """Options of the network that tells joint from independent pairs.

    Args:
        width: hidden units.
        depth: hidden layers (tanh).
    """

    width: int = 64
    depth: int = 3

    def __post_init__(self) -> None:
        _check.count(self.width, "width", 64)
        _check.count(self.depth, "depth", 3)

    def to_spec(self) -> dict[str, Any]:
        """The options, JSON-able."""
        return dataclasses.asdict(self)


@final
class AmortizedRatio(AbstractSurrogate):
    """The ratio p(x | theta) / p(x) of its simulator.

    Made by `NRE.fit`.

    Attributes:
        prior: the prior of the draws.
        estimator: the options of the fit.
        scaler: names and scale of the F features of x.
        info: JSON-able notes of the fit.
    """

    method = "NRE"
    _columns: Any = None

    def log_ratio(self, theta: Mapping[str, Any], x: Any) -> Array:
        """log p(x | theta) - log p(x), approximately.

        `sample_mcmc` takes it as a likelihood.

        Args:
            theta: leaves `[..., *shape]`, inside the prior.
            x: one summary `[F]`, or one per theta `[..., F]`.
        """
        return self._score(theta, x)


@dataclasses.dataclass(frozen=True)
class NRE(AbstractEstimator[AmortizedRatio]):
    """Neural ratio estimation: fits log p(x | theta) / p(x).

    NUTS samples p(theta) r(theta, x_o). The contrastive loss NRE-C: which of K parameters, if any, made this x? Its
    optimum is the ratio itself, not up to a factor of x. Takes no density, so x may be long and of any shape; needs a
    sampling run per observation.

    Args:
        classifier: `vb.neural.RatioClassifier(width=..., depth=...)`.
        embedding: a network between x and the classifier, as in `vb.NPE`.
        ensemble: networks trained side by side, whose mean ratio is used.
        num_candidates: parameters K that each x is held against.
        training: `vb.densities.Training(...)`.

    Miller, Weniger & Forre 2022, NeurIPS, doi:10.48550/arXiv.2210.06170.

    Example:
        amortized, info = vb.NRE().fit(draws, prior, key=jax.random.key(1))
        posterior = amortized.sample(x_o, n=4_000, key=jax.random.key(2))
    """

    classifier: RatioClassifier = dataclasses.field(default_factory=RatioClassifier)
    embedding: Any = None
    ensemble: int = 1
    num_candidates: int = 10
    training: Training = dataclasses.field(default_factory=Training)

    fitted: ClassVar[Any] = AmortizedRatio
    sees_theta: ClassVar[bool] = True
    readers: ClassVar[Mapping[str, Any]] = AbstractEstimator.readers | {"classifier": lambda s: RatioClassifier(**s)}

    def __post_init__(self) -> None:
        self._check_options(classifier=(RatioClassifier, "vb.neural.RatioClassifier(width=..., depth=...)"))
        _check.count(self.num_candidates, "num_candidates", 10)

    @property
    def loss(self) -> LossFn:
        return ContrastiveLoss(self.num_candidates)

    def _check_draws(self, draws: Draws, prior: Prior) -> None:
        if np.any(draws.round > 0):
            raise ValueError("some draws come from later rounds; the ratio needs draws of the prior: use NLE or NPE")

    def _pairs(self, scaler: FeatureScaler, context: Any, z: np.ndarray, h: np.ndarray) -> tuple[Any, Any]:
        return h, np.asarray(context(z))

    def _build(self, key: PRNGKey, dim: int, width: int) -> "PairNetwork":
        k_embedding, k_classifier = jax.random.split(key)
        network, out = embed(self.embedding, k_embedding, dim)
        sizes = (width + out, "scalar", self.classifier.width, self.classifier.depth)
        return PairNetwork(network, eqx.filter_jit(eqx.nn.MLP)(*sizes, activation=jnp.tanh, key=k_classifier))

    def _join(self, members: Any) -> Mixture:
        return Mixture(members, self.size)


AmortizedRatio.options = NRE


Classifier = RatioClassifier  # the name of version 0.1


class PairNetwork(eqx.Module):
    """log r of a summary and a context of theta."""

    embedding: Any
    mlp: eqx.nn.MLP

    def log_prob(self, h: Array, c: Array) -> Array:
        """The log ratio, in the place of a log density."""
        seen = h if self.embedding is None else self.embedding(h)
        return self.mlp(jnp.concatenate([c, seen]))


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss:
    """NRE-C with odds 1.

    Half of it holds each x against K independent parameters, half against its own among K.
    """

    num_candidates: int

    def __call__(self, network: PairNetwork, batch: Pairs, key: PRNGKey) -> Array:
        """Mean loss of a batch of pairs."""
        (h, c), n = batch, len(batch[0])
        count = min(self.num_candidates, n - 1)
        # rows of c rolled by K different shifts: K independent parameters for each x, without a second draw
        shifts = 1 + jax.random.permutation(key, n - 1)[:count]
        others = jax.vmap(lambda k: jnp.roll(c, k, axis=0))(shifts)  # [K, n, C], never a row's own
        own = jax.vmap(network.log_prob)(h, c)
        log_r = jax.vmap(lambda other: jax.vmap(network.log_prob)(h, other))(others)  # [K, n]
        log_count = jnp.log(count)
        nobody = -jnp.logaddexp(0.0, jax.nn.logsumexp(log_r, axis=0) - log_count)
        among = jnp.concatenate([own[None], log_r[: count - 1]])
        own_wins = own - log_count - jnp.logaddexp(0.0, jax.nn.logsumexp(among, axis=0) - log_count)
        return -jnp.mean(0.5 * nobody + 0.5 * own_wins)
