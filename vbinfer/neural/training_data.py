"""Checked training pairs of parameters and summaries."""

import numpy as np

from vbinfer import _check
from vbinfer.draws.draws import Draws
from vbinfer.priors.prior import Prior

_FEWEST = 20
_TRUNCATED = 0.1
"""Nats by which log_q - log prior may vary within a round of a truncated prior: rounding."""


def training_pairs(draws: Draws, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """`(z [n, D], x [n, F])` of the valid draws.

    Raises:
        ValueError: fewer valid draws than 20 or than parameters, draws of other parameters than the prior's, or a draw
            outside its support.
    """
    _check.of_kind(draws, "draws", Draws, ".fit(draws, prior, key=...), the draws of vb.sample_prior_predictive")
    _check.of_kind(prior, "prior", Prior, "vb.Prior({path: distribution})")
    theta, x = draws.usable()
    if not x.shape[1]:
        raise ValueError("the draws have no features: x is [n, 0], and nothing can be learned from it")
    if set(theta) != set(prior.shapes):
        raise ValueError(
            f"the draws have {sorted(theta)}, the prior has {sorted(prior.shapes)}; fit with the prior they came from"
        )
    needed = max(_FEWEST, prior.z_dim + 1)
    if len(x) < needed:
        raise ValueError(
            f"{len(x)} of {len(draws)} draws are valid; at least {needed} are needed to fit "
            f"{prior.z_dim} parameters, and 1,000 to learn much. draws.failures(prior) says where they fail"
        )
    for name, shape in prior.shapes.items():
        if theta[name].shape[1:] != shape:
            wanted = ", ".join(map(str, ("n", *shape)))
            raise ValueError(
                f"the draws of {name!r} are {list(theta[name].shape)}, the prior's [{wanted}]; "
                "give theta one row per draw in the shape of the prior"
            )
    outside = int(np.sum(~np.isfinite(prior.log_prob(theta))))
    if outside:
        raise ValueError(
            f"{outside} of {len(x)} draws lie outside the prior's support; fit with the prior they came from"
        )
    return np.asarray(prior.to_z(theta)), x


def check_proposal(draws: Draws, prior: Prior) -> None:
    """Refuse draws of a proposal that is no truncated prior.

    A posterior network trained on them would learn the proposal's posterior.
    """
    if draws.log_q is None:
        return
    # a truncated prior is proportional to the prior: log q - log p is one number per round
    excess = np.asarray(draws.log_q) - np.asarray(prior.log_prob(draws.theta))
    for number in np.unique(draws.round):
        known = excess[(draws.round == number) & draws.valid & np.isfinite(excess)]
        if len(known) and np.ptp(known) > _TRUNCATED:
            raise ValueError(
                f"the draws of round {number} come from a proposal that is no truncated prior: log_q - log prior "
                f"varies by {np.ptp(known):.2g} nats. A posterior network would learn that of the proposal; use an NLE "
                "method, which any proposal may feed"
            )
