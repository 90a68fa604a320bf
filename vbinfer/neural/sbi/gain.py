"""Information gain of networks of the sbi package."""

import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.neural.fit_info import HELD, contrastive_gain, density_gain
from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.engine import ENGINES
from vbinfer.neural.sbi.evaluate import log_density
from vbinfer.neural.sbi.quiet import quiet_torch


def info_gain(core: Core, z: np.ndarray, x: np.ndarray, key: PRNGKey) -> float:
    """Nats over the prior on held-out pairs `[n, D]`, `[n, F]`."""
    if core.method.family in ("density", "field"):
        most = HELD if core.method.family == "field" else len(z)  # an ODE for each
        theta = core.to_theta(z[:most])
        return density_gain(log_density(core, theta, x[:most]), core.prior.log_prob(theta))
    engine = ENGINES[core.method.family](core.net)
    with quiet_torch(None):
        return contrastive_gain(engine.log_prob, core.prior, z, core.inputs(x[:HELD]), key)
