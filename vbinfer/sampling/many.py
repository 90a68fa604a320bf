"""Chains of many data sets in one program: every row is a chain of one data set, with its own x, step size and mass."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _arviz
from vbinfer._names import Theta
from vbinfer.priors.prior import Prior
from vbinfer.sampling.chains import CHUNK, AbstractChainKernel, Runner, State, programs_of, setting_of
from vbinfer.sampling.problem import Form

_FEWEST = 100
"""Draws per chain below which R-hat and effective sample size say nothing."""
_APART = 1.1
"""R-hat beyond which chains as short as these disagree; with 4 x 100 draws it reaches 1.05 by chance (measured)."""

Starts = Callable[[Array, Any], Array]
"""`(keys [B], x [B, ...]) -> z [B, chain, Dz]`."""


class BatchSizes(NamedTuple):
    """How much is run.

    Attributes:
        n: draws that each data set is to get.
        num_warmup: steps per chain that adapt the kernel.
        num_chains: chains per data set.
        width: data sets side by side in one program.
        max_thinning: chains go on for at most this many times the draws that are kept.
    """

    n: int
    num_warmup: int
    num_chains: int
    width: int
    max_thinning: int

    @property
    def kept(self) -> int:
        """Draws kept of each chain."""
        return -(-self.n // self.num_chains)


@dataclasses.dataclass(frozen=True)
class ChainBatch:
    """Draws from the posteriors of B data sets, and how far to trust each.

    R-hat and effective sample size are the worst over the unconstrained coordinates, from all `draws` of each chain,
    of which n were kept, evenly spaced. Both are rank-based, so that they are those of the parameters too.

    Attributes:
        theta: leaves `[B, n, ...]`.
        rhat: largest rank-normalised split R-hat `[B]`.
        ess: smallest effective sample size, of bulk and tail `[B]`; at least n where the n draws are near independent.
        diverging: divergent transitions among `draws`, over the chains `[B]`.
        draws: draws per chain behind these numbers `[B]`.
        num_steps: gradients per draw, the mean over the chains `[B]`.
        n: draws kept of each data set.
    """

    theta: Theta
    rhat: np.ndarray
    ess: np.ndarray
    diverging: np.ndarray
    draws: np.ndarray
    num_steps: np.ndarray
    n: int

    @property
    def trusted(self) -> np.ndarray:
        """Data sets `[B]` whose chains agree (R-hat at most 1.1) and whose draws are worth at least n / 2."""
        return (self.rhat <= _APART) & (self.ess >= 0.5 * self.n)

    @property
    def findings(self) -> tuple[str, ...]:
        """What is wrong, one sentence per kind; none where nothing is."""
        count = len(self.rhat)
        apart, dependent = ~(self.rhat <= _APART), ~(self.ess >= 0.5 * self.n)
        found = []
        if apart.any():
            found.append(
                f"the chains of {int(apart.sum())} of {count} data sets disagree (R-hat above {_APART}, up to "
                f"{np.max(self.rhat):.2f}: data sets {_some(apart)}); give more num_warmup"
            )
        if dependent.any():
            found.append(
                f"the {self.n} draws of {int(dependent.sum())} of {count} data sets are worth fewer than half of that "
                f"(down to {np.min(self.ess):.0f}: data sets {_some(dependent)}); give more max_thinning or a smaller n"
            )
        if self.diverging.any():
            found.append(
                f"{int(self.diverging.sum())} transitions diverged, in {int((self.diverging > 0).sum())} of {count} "
                f"data sets ({_some(self.diverging > 0)}); raise target_accept of the kernel"
            )
        return tuple(found)


def run_batch(
    form: Form, kernel: AbstractChainKernel, x: Any, keys: Array, starts: Starts, sizes: BatchSizes
) -> ChainBatch:
    """Sample the posterior of each data set, `sizes.width` of them side by side.

    What a data set gets depends on its own x and key only, not on its neighbours: the last program is filled up with
    copies, and chains that are good enough before their neighbours' are read up to there.

    Args:
        form: the problem without its observation.
        kernel: `vb.NUTS`, `vb.HMC` or `vb.MCLMC`.
        x: data sets, arrays `[B, ...]`.
        keys: one per data set `[B]`.
        starts: where chains begin.
        sizes: how much is run.
    """
    count = len(keys)
    width = -(-count // -(-count // sizes.width))  # equal blocks, as few as can be
    parts = []
    for first in range(0, count, width):
        rows = np.minimum(np.arange(first, first + width), count - 1)
        block = jax.tree.map(lambda leaf, rows=rows: leaf[rows], x)
        parts.append([part[: count - first] for part in _block(form, kernel, block, keys[rows], starts, sizes)])
    z, *facts = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ChainBatch(_constrain(form.prior, jnp.asarray(z)), *facts, n=sizes.n)


def _block(
    form: Form, kernel: AbstractChainKernel, x: Any, keys: Array, starts: Starts, sizes: BatchSizes
) -> tuple[np.ndarray, ...]:
    """z `[width, n, Dz]` and, per data set, R-hat, ESS, divergences, draws per chain and gradients per draw."""
    width, chains = len(keys), sizes.num_chains
    k_start, k_run = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    k_rows = jax.vmap(lambda key: jax.random.split(key, chains))(k_run).reshape(-1)
    each = jax.tree.map(lambda leaf: jnp.repeat(leaf, chains, axis=0), x)
    shape = (sizes.num_warmup, width * chains, "auto")
    runner = programs_of(kernel, form, shape, setting_of(k_rows)).on(each)
    state = runner.start(starts(k_start, x).reshape(width * chains, -1), k_rows)
    state = _warmed(runner, state, sizes.num_warmup)

    kept = sizes.kept
    goal, most = max(kept, _FEWEST), max(kept, _FEWEST) * sizes.max_thinning
    settled, facts = np.zeros(width, bool), np.zeros((width, 3))
    pieces, done = [], 0
    while True:
        while done < goal:
            state, piece = runner.advance(state, min(CHUNK, goal - done))
            pieces.append((piece.z, piece.stats["diverging"], piece.stats["num_steps"]))
            done += piece.z.shape[1]
        z = np.concatenate([piece[0] for piece in pieces], 1).reshape(width, chains, done, -1)
        rhat, ess = _judged(z)
        facts[~settled] = np.stack([rhat, ess, np.full(width, done)], 1)[~settled]
        settled |= ess >= sizes.n
        if settled.all() or done >= most:
            break
        goal = min(2 * done, most)
    diverging, num_steps = (
        np.concatenate([piece[i] for piece in pieces], 1).reshape(width, chains, done) for i in (1, 2)
    )
    rhat, ess, draws = facts.T
    used = np.arange(done) < draws[:, None, None]
    thinned = [_spaced(z[i, :, : int(draws[i])], kept)[: sizes.n] for i in range(width)]
    mean_steps = (num_steps * used).sum((1, 2)) / (chains * draws)
    return np.stack(thinned), rhat, ess, (diverging & used).sum((1, 2)), draws.astype(int), mean_steps


def _warmed(runner: Runner, state: State, num_warmup: int) -> State:
    if runner.chain.adapt is not None and num_warmup:
        state = runner.adapt(state)
    else:
        for done in range(0, num_warmup, CHUNK):
            state, _ = runner.advance(state, min(CHUNK, num_warmup - done))
    if runner.chain.check is not None:
        runner.chain.check({name: np.asarray(value) for name, value in state.items()})
    return state


def _judged(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per data set the largest R-hat and the smallest effective sample size, of z `[B, chain, draw, Dz]`."""
    leaves = {"z": np.moveaxis(z, 0, 2)}
    ess = np.minimum(*(_arviz.ess(leaves, kind)["z"].min(-1) for kind in ("bulk", "tail")))
    if z.shape[1] == 1:
        return np.full(len(z), np.nan), ess
    return _arviz.rhat(leaves)["z"].max(-1), ess


def _spaced(z: np.ndarray, kept: int) -> np.ndarray:
    """`kept` evenly spaced draws of each chain, the last among them, `[kept * chain, Dz]`, chains in turn."""
    rows = np.arange(1, kept + 1) * (z.shape[1] // kept) - 1 + z.shape[1] % kept
    return np.swapaxes(z[:, rows], 0, 1).reshape(-1, z.shape[-1])


@functools.partial(jax.jit, static_argnums=0)
def _constrain(prior: Prior, z: Array) -> Theta:
    return prior.constrain(prior.unravel_z(z))[0]


def _some(which: np.ndarray, most: int = 5) -> str:
    found = np.flatnonzero(which).tolist()
    shown = ", ".join(map(str, found[:most]))
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"
