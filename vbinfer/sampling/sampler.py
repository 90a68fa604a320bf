"""A gradient sampler as a source of posteriors, one x_o or many at once, for studies that need hundreds of them."""

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
from vbinfer.sampling.chains import AbstractChainKernel
from vbinfer.sampling.many import BatchSizes, ChainBatch, run_batch
from vbinfer.sampling.nuts import NUTS
from vbinfer.sampling.potential import LogLikelihood, check_likelihood
from vbinfer.sampling.problem import Form, form_of
from vbinfer.sampling.sample import sample_form
from vbinfer.sampling.starts import likely_starts

_DEPTH = 6
"""Largest tree depth by default: a row in trouble then keeps the others waiting for 63 gradients, not 1,023."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChainSampler:
    """`vb.sample_mcmc` with everything given but the observation: what `vb.sbc` and `vb.calibrate` take.

    In `sample_batch` the chains of many data sets run in one program, each adapted to its own posterior from its own
    start (of 64 prior draws one in proportion to its likelihood), so that calibration of a gradient sampler costs about
    one sampling run per `batch_size` data sets, and compiles once. Chains run until the effective sample size of the
    worst coordinate (the smaller of bulk and tail) reaches n, or for `max_thinning` times the draws that are kept (100
    per chain at least), and n evenly spaced draws are returned: near independent, as ranks need them (Talts et al.
    2018, doi:10.48550/arXiv.1804.06788, section 5.1). The chains of a program move in lock-step: each draw takes as
    long as the longest trajectory among them. Memory is `batch_size * num_chains` times that of one gradient. On
    several devices (`vb.use_cores(2)` before any JAX operation) the chains are spread over them.

    Args:
        prior: `vb.Prior`.
        log_likelihood: `(theta, x) -> log p(x | theta)`, one number, differentiable by JAX in theta and traceable in x:
            write `jnp`, not NumPy, on x.
        kernel: `vb.NUTS()`, `vb.HMC()` or `vb.MCLMC()`; by default `vb.NUTS(max_tree_depth=6)`.
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
        >>> sampler = vb.ChainSampler(prior, log_likelihood, num_warmup=200)
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
        if not isinstance(self.kernel, AbstractChainKernel):
            given = self.kernel.__name__ if isinstance(self.kernel, type) else repr(self.kernel)
            raise TypeError(f"kernel={given} was given; expected a kernel of chains: write kernel=vb.NUTS()")
        for name in ("num_chains", "batch_size", "max_thinning"):
            _check.count(getattr(self, name), name, "4")
        if self.num_warmup != 0:
            _check.count(self.num_warmup, "num_warmup", "300")

    def sample(self, x_o: Any, *, n: int, key: PRNGKey) -> Posterior:
        """Chains of one observation, every draw of them.

        Args:
            x_o: the observation, an array or a tree of arrays.
            n: draws over all chains, rounded up to a multiple of their number.
            key: randomness.

        Returns:
            A posterior with `num_chains` chains and `sample_stats`. Another x_o of this shape compiles nothing.
        """
        n, key, x = _check.count(n, "n"), _check.key(key), jax.tree.map(jnp.asarray, x_o)
        self._form(x)
        sizes = (self.num_warmup, -(-n // self.num_chains), self.num_chains)
        return sample_form(self.prior, self._log_likelihood, x, self.kernel, sizes, key)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Theta:
        """n near-independent draws for every data set: leaves `[B, n, ...]` for x `[B, ...]`; warns of bad chains."""
        done = self.run_batch(x, n=n, key=key)
        if not done.trusted.all():
            warnings.warn("; ".join(done.findings) + ". See run_batch for which", stacklevel=2)
        return done.theta

    def run_batch(self, x: Any, *, n: int, key: PRNGKey) -> ChainBatch:
        """`sample_batch`, with R-hat, effective sample size and divergences of every data set.

        Args:
            x: data sets, an array `[B, ...]` or a tree of them.
            n: draws of each data set.
            key: randomness; data set i uses `fold_in(key, i)`.
        """
        n, key, x = _check.count(n, "n"), _check.key(key), jax.tree.map(jnp.asarray, x)
        sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(x)}
        if len(sizes) != 1 or None in sizes or 0 in sizes:
            shapes = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(x))
            raise ValueError(f"x has shape {shapes}; expected [data set, ...]: write x[None] for one data set")
        count = sizes.pop()
        form = self._form(jax.tree.map(lambda leaf: leaf[0], x))
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))

        def starts(keys: Array, x: Any) -> Array:
            rows = jax.vmap(lambda key: jax.random.split(key, self.num_chains))(keys).reshape(-1)
            return likely_starts(form, rows, jax.tree.map(lambda leaf: jnp.repeat(leaf, self.num_chains, axis=0), x))

        plan = BatchSizes(n, self.num_warmup, self.num_chains, self.batch_size, self.max_thinning)
        return run_batch(form, self.kernel, x, keys, starts, plan)

    @property
    def _log_likelihood(self) -> LogLikelihood:
        """The likelihood as something that can be hashed: programs are kept by it."""
        try:
            hash(self.log_likelihood)
        except TypeError:
            return self._call
        return self.log_likelihood

    def _call(self, theta: Theta, x: Any) -> Array:
        return self.log_likelihood(theta, x)

    def _form(self, x: Any) -> Form:
        """The form of the problem of x, after a look whether JAX can trace x through it."""
        form, held = form_of(self.prior, self._log_likelihood, x), jax.tree.map(np.asarray, x)
        flat = jax.ShapeDtypeStruct((self.prior.z_dim,), jnp.result_type(float))
        try:
            jax.eval_shape(lambda z, x: form.at(x).log_likelihood(z), flat, form.like)
        except jax.errors.JAXTypeError as error:
            check_likelihood(self.prior, self.log_likelihood, held)  # raises as it would for one x_o, were it theta's
            raise TypeError(
                "log_likelihood uses NumPy, float() or an if on x, which JAX traces so that one program serves all "
                "data sets; write jnp for np, and jnp.where for if"
            ) from error
        check_likelihood(self.prior, self.log_likelihood, held)
        return form
