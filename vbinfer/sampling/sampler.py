"""A gradient sampler as a source of posteriors."""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling.chains import AbstractChainKernel, Chains, layout_of
from vbinfer.sampling.many import FEWEST, ChainBatch, judged, thinned
from vbinfer.sampling.nuts import NUTS
from vbinfer.sampling.problem import Problem, check_kernel, constrained, holds_data, joined, problem_of
from vbinfer.sampling.sample import sample_mcmc
from vbinfer.sampling.starts import likely_starts

_DEPTH = 6
"""Largest tree depth by default: a row in trouble then keeps the others waiting for 63 gradients, not 1,023."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChainSampler:
    """`vb.sample_mcmc` with everything given but the observation.

    A source for `vb.diagnostics.sbc` and `vb.calibrate`. In `sample_batch` the chains of many data sets run in one
    program, each
    adapted to its own posterior from its own start (of 64 prior draws one in proportion to its likelihood), so that
    calibration of a gradient sampler costs about one sampling run per `batch_size` data sets, and compiles once. Chains
    run until the effective sample size of the worst coordinate (the smaller of bulk and tail) reaches n, or for
    `max_thinning` times the draws that are kept (100 per chain at least), and n evenly spaced draws are returned: near
    independent, as ranks need them (Talts et al. 2018, doi:10.48550/arXiv.1804.06788, section 5.1). The chains of a
    program move in lock-step: each draw takes as long as the longest trajectory among them. Memory is
    `batch_size * num_chains` times that of one gradient. On several devices (`vb.use_cores(2)` before any JAX
    operation) the chains are spread over them.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x) -> log p(x | theta)`, one number, differentiable by JAX in theta and traceable in x:
            write `jnp`, not NumPy, on x.
        kernel: `vb.sampling.NUTS()`, `vb.sampling.HMC()` or `vb.sampling.MCLMC()`; by default
            `vb.sampling.NUTS(max_tree_depth=6)`.
        num_warmup: steps per chain that adapt the kernel.
        num_chains: chains per data set.
        batch_size: data sets side by side in one program.
        max_thinning: bound on how much longer chains are than what is kept of them.

    Raises:
        TypeError: a likelihood that uses NumPy on x, or is no function; a kernel without chains.
        ValueError: a likelihood whose value is not one number; sizes that make no sense.

    Example:
        >>> import jax, jax.numpy as jnp, vbinfer as vb
        >>> import numpyro.distributions as dist
        >>> prior = vb.Prior({"mu": dist.Normal(1.0, 2.0)})
        >>> def log_likelihood(theta, x):
        ...     return dist.Normal(theta["mu"], 0.5).log_prob(x).sum()
        >>> sampler = vb.sampling.ChainSampler(prior, log_likelihood, num_warmup=200)
        >>> theta = sampler.sample_batch(jnp.array([[-1.0], [3.0]]), n=200, key=jax.random.key(0))
        >>> theta["mu"].shape, bool(abs(theta["mu"][1].mean() - 2.88) < 0.2)   # (4 * 3 + 0.25 * 1) / 4.25
        ((2, 200), True)
    """

    prior: Prior
    log_likelihood: Any  # a LogLikelihood and a kernel of chains; anything else is refused below, in words
    _: dataclasses.KW_ONLY
    kernel: Any = dataclasses.field(default_factory=lambda: NUTS(max_tree_depth=_DEPTH))
    num_warmup: int = 300
    num_chains: int = 4
    batch_size: int = 32
    max_thinning: int = 8

    def __post_init__(self) -> None:
        if not callable(self.log_likelihood):
            raise TypeError(
                f"log_likelihood is a {type(self.log_likelihood).__name__}; expected a function (theta, x) -> number"
            )
        check_kernel(self.kernel, AbstractChainKernel, "a kernel of chains")
        for name in ("num_chains", "batch_size", "max_thinning"):
            _check.count(getattr(self, name), name, 4)
        _check.count(self.num_warmup, "num_warmup", 300, least=0)

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Chains of one observation, every draw of them.

        Args:
            x_o: the observation, an array or a tree of arrays.
            n: draws over all chains, rounded up to a multiple of their number.
            key: randomness.

        Returns:
            A posterior with `num_chains` chains and `sample_stats`. Another x_o of this shape compiles nothing.
        """
        n = _check.count(n, "n")
        self._problem(x_o)
        return sample_mcmc(
            self.prior,
            self.log_likelihood,
            x_o,
            kernel=self.kernel,
            num_warmup=self.num_warmup,
            num_samples=-(-n // self.num_chains),
            num_chains=self.num_chains,
            key=key,
        )

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """n near-independent draws for every data set.

        Leaves `[B, n, ...]` for x `[B, ...]`; warns of bad chains.
        """
        done = self.run_batch(x, n=n, key=key)
        if not done.trusted.all():
            warnings.warn("; ".join(done.findings) + ". See run_batch for which", stacklevel=2)
        return done.theta

    def run_batch(self, x: Any, *, n: int, key: PRNGKey) -> ChainBatch:
        """`sample_batch`, with the trust of every data set.

        What a data set gets depends on its own x and key only, not on its neighbours: the last program is filled up
        with copies, and chains that are good enough before their neighbours' are read up to there.

        Args:
            x: data sets, an array `[B, ...]` or a tree of them.
            n: draws of each data set.
            key: randomness; data set i uses `fold_in(key, i)`.

        Returns:
            Draws, R-hat, effective sample size and divergences of every data set.
        """
        n, key, x = _check.count(n, "n"), _check.key(key), jax.tree.map(jnp.asarray, x)
        sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(x)}
        if len(sizes) != 1 or 0 in sizes:
            shapes = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(x))
            raise ValueError(f"x has shape {shapes}; expected [data set, ...]: write x[None] for one data set")
        count = sizes.pop()
        problem = self._problem(jax.tree.map(lambda leaf: leaf[0], x))
        # by its number: a data set has the same chains whatever the number of the others
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))
        width = -(-count // -(-count // self.batch_size))  # equal blocks, as few as can be
        parts = []
        for first in range(0, count, width):
            # the last block is filled up with copies of the last data set, so that one program serves all blocks
            rows = np.minimum(np.arange(first, first + width), count - 1)
            block = jax.tree.map(lambda leaf, rows=rows: jnp.repeat(leaf[rows], self.num_chains, axis=0), x)
            found = self._block(dataclasses.replace(problem, x=block), keys[rows], n)
            parts.append([part[: count - first] for part in found])
        z, *facts = (np.concatenate(part) for part in zip(*parts, strict=True))
        return ChainBatch(jax.tree.map(jnp.asarray, constrained(self.prior, z)[0]), *facts, n=n)

    def _block(self, problem: Problem, keys: Array, n: int) -> tuple[np.ndarray, ...]:
        """Chains of some data sets in lock-step.

        They stop when the last is good enough.

        Args:
            problem: its x has one observation per chain, `[width * chain, ...]`.
            keys: one per data set `[width]`.
            n: draws of each.

        Returns:
            z `[width, n, Dz]` and, per data set, R-hat, ESS, divergences, draws per chain and gradients per draw.
        """
        width, chains = len(keys), self.num_chains
        k_start, k_run = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        each = lambda keys: jax.vmap(lambda key: jax.random.split(key, chains))(keys).reshape(-1)  # noqa: E731
        run = Chains(self.kernel, problem, self.num_warmup, layout_of(width * chains, shared=False))
        run.start(likely_starts(problem, each(k_start)), each(k_run))
        for _ in run.warm_up():
            pass
        kept = max(-(-n // chains), FEWEST)
        goal, most = kept, kept * self.max_thinning
        settled, facts = np.zeros(width, bool), np.zeros((width, 3))
        pieces, done = [], 0
        # All chains go on until those of the last data set suffice; each data set is judged, and read, only up to
        # where its own sufficed, so it does not matter whom it ran with.
        while True:
            pieces += run.draw(done, goal)
            done = goal
            whole = joined(pieces)
            z = np.asarray(whole.z).reshape(width, chains, done, -1)
            rhat, ess = judged(z)
            facts[~settled] = np.stack([rhat, ess, np.full(width, done)], 1)[~settled]
            settled |= ess >= n
            if settled.all() or done >= most:
                break
            # twice as long: looking costs little beside it, and at most half of the draws turn out unneeded
            goal = min(2 * done, most)
        diverging, num_steps = (whole.stats[name].reshape(width, chains, done) for name in ("diverging", "num_steps"))
        rhat, ess, draws = facts.T
        # draw          1 ... draws[i] ... done
        # data set i    |--- used ----|  not  |      went on for the sake of others
        used = np.arange(done) < draws[:, None, None]
        mean_steps = (num_steps * used).sum((1, 2)) / (chains * draws)
        spaced = np.stack([thinned(z[i, :, : int(draws[i])], n) for i in range(width)])
        return spaced, rhat, ess, (diverging & used).sum((1, 2)), draws.astype(int), mean_steps

    def _problem(self, x: Any) -> Problem:
        """The problem of x, which JAX must trace."""
        problem = problem_of(self.prior, self.log_likelihood, x)
        if holds_data(problem):
            raise TypeError(
                "log_likelihood uses NumPy, float() or an if on x, which JAX traces so that one program serves all "
                "data sets; write jnp for np, and jnp.where for if"
            )
        return problem
