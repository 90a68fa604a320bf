"""Parameters from a proposal instead of the prior.

They come in blocks that do not depend on how they are run.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.draws.store import Rows
from vbinfer.execute.batches import WIDTH
from vbinfer.io.fingerprint import checksum
from vbinfer.priors.prior import Prior

BLOCK = 16 * WIDTH
"""Parameters that a proposal draws at once."""

_APART = np.uint32(2**32 - 1)
"""Folded into the key of a run for its proposal; no draw has this number."""


@runtime_checkable
class Proposal(Protocol):
    """A distribution to draw parameters from.

    `vb.Prior`, `vb.neural.TruncatedPrior`, or what `vb.neural.restrict` returns.
    One of your own needs the two methods; `.round`, a number, is kept with its draws (1 where there is none).
    """

    def sample(self, *, key: PRNGKey, n: int) -> Theta:
        """Draws inside the prior: leaves `[n, ...]`."""
        ...

    def log_prob(self, theta: Theta) -> Array:
        """Log density `[n]`, perhaps up to a constant."""
        ...


@dataclasses.dataclass(frozen=True)
class ProposalDraws:
    """Parameters drawn for a run, and whose round they are."""

    rows: Rows
    """`theta/<path>` and `log_q`, `[blocks * BLOCK, ...]`."""
    round: int
    mark: str
    """SHA-256 of the first block: what tells one proposal from another."""

    @classmethod
    def draw(cls, prior: Prior, proposal: Any, n: int, key: PRNGKey) -> "ProposalDraws":
        """Draw at least n parameters in blocks.

        Block b is `proposal.sample(key=fold_in(fold_in(key, 2^32 - 1), b), n=1024)`.

        Raises:
            TypeError: an object without `.sample`.
            ValueError: draws over other parameters than the prior's, or outside it.
        """
        if not callable(getattr(proposal, "sample", None)):
            raise TypeError(
                f"the proposal is a {type(proposal).__name__}; expected an object with .sample(key=, n=) -> theta and "
                ".log_prob(theta), such as vb.neural.TruncatedPrior(prior, amortized, x_o, key=key)"
            )
        # Whole blocks, whatever n is: block b is the same in every run, and a longer run begins with a shorter one.
        root = jax.random.fold_in(key, _APART)
        blocks = [_block(prior, proposal, jax.random.fold_in(root, b)) for b in range(-(-n // BLOCK))]
        rows = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        return cls(rows, int(getattr(proposal, "round", 1)), checksum(blocks[0]))

    def part(self, start: int, stop: int) -> Rows:
        """The rows of draws `start` to `stop`."""
        part = slice(start, stop)
        return {name: value[part] for name, value in self.rows.items()}


def _block(prior: Prior, proposal: Any, key: PRNGKey) -> Rows:
    drawn = proposal.sample(key=key, n=BLOCK)
    shapes = {name: np.shape(value) for name, value in drawn.items()}
    wanted = {name: (BLOCK, *shape) for name, shape in prior.shapes.items()}
    if shapes != wanted:
        raise ValueError(
            f"the proposal drew {shapes} for n={BLOCK}, the prior asks for {wanted}; give a proposal over the "
            "parameters of this prior"
        )
    # in the precision of the run before the densities are taken: they belong to the numbers that are simulated
    theta = {name: jnp.asarray(drawn[name], jnp.result_type(float)) for name in prior.shapes}
    outside = int(np.sum(~np.isfinite(np.asarray(prior.log_prob(theta)))))
    if outside:
        raise ValueError(
            f"{outside} of {BLOCK} draws of the proposal lie outside the prior's support; give a proposal that was "
            "made for this prior"
        )
    log_q = proposal.log_prob(theta) if hasattr(proposal, "log_prob") else np.full(BLOCK, np.nan)
    return {**{f"theta/{name}": np.asarray(value) for name, value in theta.items()}, "log_q": np.asarray(log_q)}
