"""The density that kernels sample; options and output."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, Theta
from vbinfer.io.live import renew, settle
from vbinfer.priors.prior import Prior

LogLikelihood = Callable[[Theta, Any], Array]
"""`(theta, x_o) -> log p(x_o | theta)`, one number."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The density over flat z `[Dz]`: p(z) p(x_o | theta(z)).

    Compiled programs take `x` as an argument and are kept by prior and likelihood, so the next observation of the same
    shapes compiles nothing.

    Attributes:
        prior: the prior; `prior.ravel_z` says the order of z.
        likelihood: `(theta, x) -> log p(x | theta)`, one number; hashable.
        x: the observation as programs take it, a tree of arrays (traced inside them).
        x_o: the observation as it was given.
    """

    prior: Prior
    likelihood: LogLikelihood
    x: Any
    x_o: Any = None

    def theta(self, flat: Array) -> tuple[Theta, Array]:
        """theta and log|d theta / d z|."""
        return self.prior.constrain(self.prior.unravel_z(flat))

    def log_prior(self, flat: Array) -> Array:
        """Log density of z under the prior.

        log p(theta) + log|d theta / d z|: N(0, I) but for whitened leaves.
        """
        theta, logdet = self.theta(flat)
        return self.prior.log_prob(theta) + logdet

    def log_likelihood(self, flat: Array) -> Array:
        """log p(x_o | theta(z))."""
        return self.likelihood(self.theta(flat)[0], self.x)

    def log_density(self, flat: Array) -> Array:
        """Log density of z and the observation.

        log p(theta) + log|d theta / d z| + log p(x_o | theta)
        """
        theta, logdet = self.theta(flat)
        # one walk from z to theta for all three terms; log_prior + log_likelihood would take two
        return self.prior.log_prob(theta) + logdet + self.likelihood(theta, self.x)

    def potential(self, flat: Array) -> Array:
        """Potential energy U(z), minus the log density."""
        return -self.log_density(flat)

    def run(self, function: Callable[..., Any], *arguments: Any, static: tuple[Any, ...] = ()) -> Any:
        """`function(problem, *static, *arguments)`, compiled and kept.

        Another observation or other arguments of the same shapes compile nothing.
        """
        return _compiled(function, self.prior, self.likelihood, static)(self.x, *arguments)


@functools.lru_cache(maxsize=32)
def _compiled(function: Callable[..., Any], prior: Prior, likelihood: LogLikelihood, static: tuple[Any, ...]) -> Any:
    return jax.jit(lambda x, *arguments: function(Problem(prior, likelihood, x), *static, *arguments))


def problem_of(prior: Prior, log_likelihood: LogLikelihood, x_o: Any) -> Problem:
    """The checked problem of an observation.

    The likelihood is traced once. x_o becomes an argument of its programs where JAX can trace it. A likelihood that
    needs the values (NumPy, `float()` or an `if` on x_o) holds them instead, and its programs serve that observation
    only. Where globals, captured values or helpers of the likelihood have changed since, programs are made anew
    (`vbinfer.io.live`).

    Raises:
        TypeError: a likelihood that is no function.
        ValueError: a likelihood whose value is not one real number.
    """
    _check.of_kind(prior, "prior", Prior, "vb.Prior({path: distribution})")
    if not callable(log_likelihood):
        raise TypeError(
            f"log_likelihood is a {type(log_likelihood).__name__}; expected a function (theta, x_o) -> one number"
        )
    renew(log_likelihood)
    # programs are kept by likelihood, so it has to hash
    likelihood = _hashable(log_likelihood)
    try:
        # strongly typed: the same numbers as a list, of NumPy or of JAX are one program
        x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), x_o)
        problem = Problem(prior, likelihood, x, x_o)
        out = _value_of(problem)
    except Exception:  # whatever it was: a mistake in the likelihood shows again at the values themselves
        problem = Problem(prior, _holding(likelihood, x_o), (), x_o)
        out = _value_of(problem)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"an array of shape {list(out.shape)} and type {out.dtype}" if hasattr(out, "shape") else repr(out)
        raise ValueError(
            f"log_likelihood returned {got}; expected one real number, the sum over the data: "
            f"write dist.Normal(mean, sd).log_prob(x_o).sum()"
        )
    return problem


def holds_data(problem: Problem) -> bool:
    """Whether the likelihood needs the values of its observation."""
    return isinstance(problem.likelihood, _Keyed) and problem.likelihood.holds


def _value_of(problem: Problem) -> Any:
    # shapes alone: nothing is simulated to find out whether the likelihood is one number
    flat = jax.ShapeDtypeStruct((problem.prior.z_dim,), jnp.result_type(float))
    return jax.eval_shape(lambda z, x: problem.likelihood(problem.theta(z)[0], x), flat, problem.x)


@dataclasses.dataclass(frozen=True)
class _Keyed:
    """A likelihood that a key tells from others."""

    function: LogLikelihood = dataclasses.field(compare=False)
    key: Any
    holds: bool

    def __call__(self, theta: Theta, x: Any) -> Any:
        value = self.function(theta, x)
        if not self.holds:
            settle(self.function)
        return value


def _hashable(function: LogLikelihood) -> LogLikelihood:
    """The likelihood with a hash.

    One that has none is known by which object it is.
    """
    try:
        hash(function)
    except TypeError:
        return _Keyed(function, id(function), False)
    return _Keyed(function, function, False)


def _holding(function: LogLikelihood, x_o: Any) -> LogLikelihood:
    """A likelihood that holds its data.

    Equal to one with equal data.
    """
    # a copy: were the caller's array changed in place, the programs made from it would no longer be of its content
    held = jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, x_o)
    leaves, treedef = jax.tree.flatten(held)
    content = tuple((value.dtype.str, value.shape, value.tobytes()) for value in map(np.asarray, leaves))
    return _Keyed(lambda theta, _: function(theta, held), (function, treedef, content), True)


class RunOptions(NamedTuple):
    """What is asked of a kernel.

    Attributes:
        num_warmup: steps per chain that adapt the kernel, discarded.
        num_samples: draws per chain (particles, for a kernel of particles).
        num_chains: independent chains, or repeats.
        key: all randomness of the run.
        init: starts as the user gave them, or None: draws of the prior (`starts.starting_points` reads it).
        progress: show a bar.
        chain_method: `"auto"`, `"vectorized"` or `"parallel"`.
        store: folder to which finished chunks go, or None.
        state: what a former run left to continue from (`KernelOutput.state`), or None.
    """

    num_warmup: int
    num_samples: int
    num_chains: int
    key: PRNGKey
    init: Any = None
    progress: bool = False
    chain_method: str = "auto"
    store: Path | None = None
    state: Mapping[str, np.ndarray] | None = None


class Sample(NamedTuple):
    """One draw of one chain: z `[Dz]`, U(z), statistics."""

    z: Array | np.ndarray
    potential_energy: Array | np.ndarray
    stats: dict[str, Any]


def joined(pieces: list[Sample]) -> Sample:
    """Pieces of chains `[chain, count, ...]` as one."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *pieces)


class KernelOutput(NamedTuple):
    """What a kernel made.

    Attributes:
        z: draws `[chain, draw, Dz]`.
        potential_energy: U(z) at each draw `[chain, draw]`.
        stats: what the kernel says of each draw, `{name: [chain, draw]}`.
        log_evidence: log p(x_o) where the kernel estimates it.
        state: arrays from which the chains go on, where they can.
        info: JSON-able facts about the run that are not per draw.
    """

    z: Array | np.ndarray
    potential_energy: Array | np.ndarray
    stats: Mapping[str, np.ndarray]
    log_evidence: float | None = None
    state: Mapping[str, np.ndarray] | None = None
    info: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class AbstractKernel(abc.ABC):
    """A way to sample: frozen options, checked at construction."""

    @abc.abstractmethod
    def run(self, problem: Problem, options: RunOptions) -> KernelOutput:
        """Sample the problem."""


def check_kernel(kernel: Any, kind: type = AbstractKernel, words: str = "a kernel object") -> Any:
    """The kernel, when it is an object of its kind."""
    if isinstance(kernel, kind):
        return kernel
    given = kernel.__name__ if isinstance(kernel, type) else repr(kernel)
    raise TypeError(f"kernel={given} was given; expected {words}: write kernel=vb.sampling.NUTS()")


def constrained(prior: Prior, z: Any) -> tuple[dict[str, Any], np.ndarray]:
    """theta and its log-determinant as NumPy arrays.

    log|d theta / d z|. Leaves `[..., *shape]` and `[...]` of z `[..., Dz]`.
    """
    return jax.tree.map(np.asarray, _constrained(prior, jnp.asarray(z, jnp.result_type(float))))


@functools.partial(jax.jit, static_argnums=0)
def _constrained(prior: Prior, z: Array) -> tuple[Theta, Array]:
    return prior.constrain(prior.unravel_z(z))


def sampled_theta(prior: Prior, z: Any, energy: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """theta and its log density.

    Leaves `[chain, draw, ...]`; the density is -U(z) - log|d theta / d z|.
    """
    theta, logdet = constrained(prior, z)
    return theta, -np.asarray(energy) - logdet
