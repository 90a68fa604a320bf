"""Densities of a trained network over named theta and summaries x."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.engine import ENGINES
from vbinfer.neural.sbi.quiet import quiet_torch


def log_density(core: Core, theta: Mapping[str, Any], x: Any) -> Array:
    """What the network says of each pair `[...]`.

    density, field:  log q(theta | x) = log q(z | h) - log |d theta / d z|
    likelihood:      log p(x | theta) = log p(h | z) + log |d h / d x|
    ratio:           log r(theta, x)

    -inf outside the prior's support.
    """
    z, rows, log_det, inside = core.pair(theta, x)
    with quiet_torch(None):
        value = ENGINES[core.method.family](core.net).log_prob(z, core.inputs(rows))
    if core.method.family == "likelihood":
        value = value + core.inputs.log_det(rows)
    value = value.reshape(log_det.shape)
    if core.method.family in ("density", "field"):
        value = value - log_det
    return jnp.where(inside & ~np.isnan(value), value, -jnp.inf)


def log_posterior(core: Core, theta: Mapping[str, Any], x: np.ndarray) -> Array:
    """Log posterior density `[...]` over theta: normalised for densities, prior plus score over trials for the rest.

    Args:
        core: the network.
        theta: leaves `[..., *shape]`.
        x: `[F]`, or `[T, F]` for T independent trials.
    """
    if core.method.family in ("density", "field"):
        return log_density(core, theta, x)
    trials = [log_density(core, theta, row) for row in np.atleast_2d(x)]
    return core.prior.log_prob(theta) + sum(trials)
