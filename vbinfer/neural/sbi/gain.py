"""What a trained network knows beyond the prior, in nats, on draws that it was not trained on."""

import math

import jax
import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.engine import ENGINES
from vbinfer.neural.sbi.evaluate import log_density
from vbinfer.neural.sbi.quiet import quiet_torch

_CONTRASTS = 511
_ROWS = 256
"""Held-out draws at most on which contrasts or ODEs are evaluated."""


def info_gain(core: Core, z: np.ndarray, x: np.ndarray, key: PRNGKey) -> float:
    """Held-out gain over the prior.

    density, field:     mean of log q(theta | x) - log p(theta).
    likelihood, ratio:  mean of s(theta, x) - log[(e^s(theta, x) + sum_m e^s(theta_m, x)) / (M + 1)], theta_m from the
                        prior, M = 511: with any score s a lower bound, in expectation, on the mutual information of
                        theta and x (van den Oord, Li & Vinyals 2018, doi:10.48550/arXiv.1807.03748), tight for the
                        true likelihood and large M, and never above log(M + 1) = 6.2.

    Args:
        core: the network.
        z, x: held-out pairs `[n, D]`, `[n, F]`.
        key: draws the contrasts.
    """
    if core.method.family == "field":
        z, x = z[:_ROWS], x[:_ROWS]
    if core.method.family in ("density", "field"):
        theta = core.to_theta(z)
        return float(np.mean(log_density(core, theta, x) - core.prior.log_prob(theta)))
    z, h = z[:_ROWS], core.inputs(x[:_ROWS])
    other = core.prior.unconstrain(core.prior.sample(key=key, n=_CONTRASTS))
    others = np.asarray(core.prior.ravel_z(other), np.float32)
    engine = ENGINES[core.method.family](core.net)
    with quiet_torch(None):
        own = engine.log_prob(z, h)
        pairs = engine.log_prob(np.tile(others, (len(z), 1)), np.repeat(h, _CONTRASTS, axis=0))
    scores = np.concatenate([own[:, None], pairs.reshape(len(z), -1)], axis=1)
    return float(np.mean(own - np.asarray(jax.nn.logsumexp(scores, axis=1)))) + math.log(_CONTRASTS + 1)
