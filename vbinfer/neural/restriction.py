"""Priors restricted to where simulations do not fail."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.draws.draws import Draws, finite_rows
from vbinfer.neural.densities.base import stack
from vbinfer.neural.estimator import ThetaContext
from vbinfer.neural.training import Pairs, Training, TrainingTask, train
from vbinfer.neural.truncated import CANDIDATES, AbstractTruncation
from vbinfer.priors.prior import Prior

_CALIBRATION = 0.3
_FEWEST = 20
_WIDTH, _DEPTH, _MEMBERS = 32, 2, 3
_TRAINING = Training(max_epochs=150, batch_size=100, learning_rate=3e-3, patience=20, weight_decay=0.01)
_LEAST_ACCEPTANCE = 1e-4


class RestrictedPrior(AbstractTruncation):
    """The prior where simulations are likely to be valid.

    p(theta) 1[s(theta) >= c] / acceptance; made by `restrict`. A proposal for `vb.sample_prior_predictive`. Draws of it
    are proportional to the prior wherever a simulation can be valid (but for the share that is lost), so a posterior
    network may be trained on them by its plain loss, alone or together with draws of the prior.

    A posterior from draws of which the failed ones are left out is that under the prior given that the simulation is
    valid, p(theta) P(valid | theta), restricted or not: restriction saves simulations, and changes nothing else.

    Attributes:
        prior: the prior of the study.
        threshold: c, on the log odds of validity.
        acceptance: share of the prior inside, from 8,192 draws.
        recall: share of held-out valid draws inside.
        precision: share of the held-out draws inside that are valid.
        valid_share: share of all draws that were valid without restriction.
        num_held: held-out draws on which threshold and figures rest.
        round: number that draws from this proposal carry: 0, as they are the prior's.
    """

    def __init__(self, prior: Prior, network: Any, context: ThetaContext, figures: Mapping[str, Any], key: PRNGKey):
        self.prior, self._network, self._context, self.round = prior, network, context, 0
        self.threshold = float(figures["threshold"])
        self.recall, self.precision = float(figures["recall"]), float(figures["precision"])
        self.valid_share, self.num_held = float(figures["valid_share"]), int(figures["num_held"])
        self.acceptance = self.mass = float(self._block(key)[1].mean())
        if self.acceptance < _LEAST_ACCEPTANCE:
            raise RuntimeError(
                f"{self.acceptance:.2g} of the prior is called valid, too little to draw from; narrow the prior"
            )

    @property
    def sentence(self) -> str:
        """What the restriction does, in plain words."""
        return (
            f"{100 * self.valid_share:.0f}% of the draws of the prior were valid. The restricted prior keeps "
            f"{100 * self.acceptance:.0f}% of it: of {self.num_held} held-out draws, {100 * self.precision:.0f}% of "
            f"those inside are valid, and {100 * (1.0 - self.recall):.1f}% of the valid ones lie outside and are lost."
        )

    def contains(self, theta: Mapping[str, Any]) -> np.ndarray:
        values = {name: jnp.asarray(value) for name, value in theta.items()}
        return np.asarray(_score(self._network, self.prior, self._context, values)) >= self.threshold

    def _block(self, key: PRNGKey) -> tuple[Theta, np.ndarray]:
        theta = self.prior.sample(key=key, n=CANDIDATES)
        return theta, self.contains(theta)


def restrict(draws: Draws, prior: Prior, *, key: PRNGKey, lost: float = 0.01) -> RestrictedPrior:
    """Learn from failed draws where not to simulate.

    A small network learns the log odds s(theta) that a simulation is valid, from 70% of the draws. The threshold is the
    k-th smallest score of the valid ones among the rest, k = floor(lost (m + 1)) for m of them: a new valid draw then
    falls below it with probability k / (m + 1) <= lost, whatever the network is like (split conformal prediction).

    Args:
        draws: draws of the prior, failed ones included.
        prior: the prior that they came from.
        key: decides held-out rows, initial weights and minibatches.
        lost: share of the valid draws of the prior that may be given up.

    Returns:
        `RestrictedPrior`; `.sentence` says what it saves and loses.

    Raises:
        ValueError: too few valid or failed draws to learn from, too few for so small a `lost`, other parameters than
            the prior's.

    Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World, doi:10.1007/b106715; restriction to valid
    simulations as in Lueckmann et al. 2017, NeurIPS, doi:10.48550/arXiv.1711.01861 (a classifier of bad simulations).

    Example:
        restricted = vb.neural.restrict(draws, prior, key=jax.random.key(1))
        more = vb.sample_prior_predictive(prior, simulator, n=2_000, key=jax.random.key(2), proposal=restricted)
        amortized, info = vb.NPE().fit(draws + more, prior, key=jax.random.key(3))
    """
    key, lost = _check.key(key), _check.fraction(lost, "lost", 0.01)
    z, valid = _labelled(draws, prior)
    k_split, k_stop, k_init, k_train, k_measure = jax.random.split(key, 5)
    # draws:  [ held 30 %: threshold | rest: 1/8 to stop training by, 7/8 to train on ]
    order = np.asarray(jax.random.permutation(k_split, len(z)))
    size = round(_CALIBRATION * len(z))
    held, rest = order[:size], order[size:]
    num_valid = int(valid[held].sum())
    index = int(np.floor(lost * (num_valid + 1)))
    if index < 1:
        needed = int(np.ceil((1.0 / lost - 1.0) / max(valid.mean(), 1e-9) / _CALIBRATION))
        raise ValueError(
            f"lost={lost:g} cannot be promised from {num_valid} valid draws held out; give about {needed} draws in "
            f"all, or write lost={1.05 / (num_valid + 1):.2g}"
        )
    context = ThetaContext.fit(prior, z[rest])
    c, y = np.asarray(context(z)), np.asarray(valid[:, None], jnp.result_type(float))
    stop = max(2, len(rest) // 8)
    pick = np.asarray(jax.random.permutation(k_stop, rest))
    fitting, stopping = (jax.device_put((y[part], c[part])) for part in (pick[stop:], pick[:stop]))
    members = stack([eqx.filter_jit(_network)(k, c.shape[-1]) for k in jax.random.split(k_init, _MEMBERS)])
    network = train(TrainingTask(members, _loss, fitting, stopping, _TRAINING), k_train).members
    score = np.asarray(_ensemble(network, c[held]))
    # split conformal: the k-th smallest score of valid draws that the network has not seen
    threshold = np.sort(score[valid[held]])[index - 1]
    inside = score >= threshold
    figures = {
        "threshold": threshold,
        "recall": (inside & valid[held]).sum() / num_valid,
        "precision": (inside & valid[held]).sum() / inside.sum(),
        "valid_share": valid.mean(),
        "num_held": size,
    }
    return RestrictedPrior(prior, network, context, figures, k_measure)


def _labelled(draws: Draws, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """z and validity of draws whose theta is finite."""
    if draws.shapes != prior.shapes:
        raise ValueError(
            f"the draws are over {draws.shapes}, the prior over {prior.shapes}; give the prior they came from"
        )
    values = np.concatenate([draws.theta[name].reshape(len(draws), -1) for name in prior.shapes], axis=1)
    known = finite_rows(values)
    rows = lambda kept: {name: value[kept] for name, value in draws.theta.items()}  # noqa: E731
    # the log density of finite rows only: a NaN would be an error of the prior
    known[known] = np.isfinite(prior.log_prob(rows(known)))
    valid = draws.valid[known]
    good, bad = int(valid.sum()), int((~valid).sum())
    if good < _FEWEST:
        raise ValueError(
            f"{good} of {len(draws)} draws are valid; at least {_FEWEST} are needed to learn where simulations do not "
            "fail. draws.failures(prior) says where they do; narrow the prior, or mend the simulator"
        )
    if bad < _FEWEST:
        raise ValueError(
            f"{bad} of {len(draws)} draws failed; there is nothing to restrict below {_FEWEST}. Sample the prior itself"
        )
    return np.asarray(prior.to_z(rows(known))), valid


def _network(key: PRNGKey, width: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(width, "scalar", _WIDTH, _DEPTH, activation=jnp.tanh, key=key)


def _loss(network: eqx.nn.MLP, batch: Pairs, _: PRNGKey) -> Array:
    """Cross-entropy of validity."""
    (y, c) = batch
    logit, valid = jax.vmap(network)(c), y[:, 0]
    return jnp.mean(jax.nn.softplus(logit) - valid * logit)


@eqx.filter_jit
def _ensemble(network: Any, c: Array | np.ndarray) -> Array:
    """Mean log odds of the members."""
    return jnp.mean(eqx.filter_vmap(lambda member: jax.vmap(member)(c))(network), axis=0)


@eqx.filter_jit
def _score(network: Any, prior: Prior, context: ThetaContext, theta: Theta) -> Array:
    c = context(prior.to_z(theta))
    return _ensemble(network, c.reshape(-1, c.shape[-1])).reshape(c.shape[:-1])
