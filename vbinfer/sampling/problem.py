"""What every kernel is given and gives back: the problem over z, the plan of a run, and the run."""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer.priors.prior import Prior
from vbinfer.sampling.potential import LogLikelihood, potential_fn


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The density that a kernel samples: p(z) p(x_o | theta(z)) over flat z `[Dz]`.

    Attributes:
        prior: the prior; `prior.ravel_z` says the order of z.
        log_likelihood: `(theta, x_o) -> log p(x_o | theta)`, one number.
        x_o: the observation, passed on as it is.
        form: what this problem shares with those of other observations, if its programs are to serve them too.
    """

    prior: Prior
    log_likelihood_of_theta: LogLikelihood
    x_o: Any
    form: "Form | None" = None

    def log_prior(self, flat: Array) -> Array:
        """log p(theta) + log|d theta / d z|, the log density of z under the prior: N(0, I) but for whitened leaves."""
        theta, logdet = self.theta(flat)
        return self.prior.log_prob(theta) + logdet

    def log_likelihood(self, flat: Array) -> Array:
        """log p(x_o | theta(z))."""
        return self.log_likelihood_of_theta(self.theta(flat)[0], self.x_o)

    def potential(self, flat: Array) -> Array:
        """U(z) = -[log p(theta) + log|d theta / d z| + log p(x_o | theta)]."""
        return potential_fn(self.prior, self.log_likelihood_of_theta, self.x_o)(flat)

    def theta(self, flat: Array) -> tuple[Theta, Array]:
        """theta and log|d theta / d z|."""
        return self.prior.constrain(self.prior.unravel_z(flat))


@dataclasses.dataclass(frozen=True)
class Form:
    """A problem without its observation, whose programs take x_o as an argument: one serves every x_o of its shape.

    Attributes:
        prior: the prior.
        log_likelihood: `(theta, x) -> number`, traceable by JAX in x too; hashable.
        treedef: how x nests.
        leaves: shape and type of each array in x.
    """

    prior: Prior
    log_likelihood: LogLikelihood
    treedef: Any
    leaves: tuple[tuple[tuple[int, ...], str], ...]

    @property
    def like(self) -> Any:
        """Shape and type of one observation."""
        return jax.tree.unflatten(self.treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves])

    def at(self, x: Any) -> Problem:
        """The problem of one observation, which may be traced."""
        return Problem(self.prior, self.log_likelihood, x, self)


def form_of(prior: Prior, log_likelihood: LogLikelihood, x: Any) -> Form:
    """The form of the problem of x, of arrays or their shapes."""
    leaves, treedef = jax.tree.flatten(x)
    return Form(prior, log_likelihood, treedef, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves))


def problem_of(prior: Prior, log_likelihood: LogLikelihood, x_o: Any) -> Problem:
    """The problem, the same object for the same prior, function and equal observation: its programs are then kept.

    As with `jax.jit`, a function stands for itself: what it closes over is taken as it was at the first call.
    """
    observed = _identity(x_o)
    try:
        hash(log_likelihood)
    except TypeError:
        observed = None
    if observed is None:
        return Problem(prior, log_likelihood, x_o)
    return _kept(_Same(prior, log_likelihood, x_o, (id(prior), log_likelihood, observed)))


class _Same:
    """Arguments that are compared by a key of their own."""

    def __init__(self, prior: Prior, log_likelihood: LogLikelihood, x_o: Any, key: tuple[Any, ...]) -> None:
        self.arguments, self._key = (prior, log_likelihood, x_o), key

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key


@functools.lru_cache(maxsize=8)
def _kept(same: _Same) -> Problem:
    prior, log_likelihood, x_o = same.arguments
    # a copy: were the caller's array changed in place, the programs made from it would no longer be of its content
    return Problem(prior, log_likelihood, jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, x_o))


def _identity(x_o: Any) -> tuple[Any, ...] | None:
    """What tells one observation from another, or None if it holds something other than numbers."""
    leaves, treedef = jax.tree.flatten(x_o)
    if not all(isinstance(leaf, (int, float, np.ndarray, np.generic, jax.Array)) for leaf in leaves):
        return None
    parts: list[Any] = [treedef, str(jnp.result_type(float))]
    for leaf in leaves:
        if hasattr(leaf, "dtype") and leaf.dtype.kind not in "fiubc":
            return None
        value = np.asarray(leaf)
        parts.append((type(leaf), value.shape, str(value.dtype), hashlib.sha256(value.tobytes()).digest()))
    return tuple(parts)


class Plan(NamedTuple):
    """What is asked of a run.

    Attributes:
        num_warmup: steps per chain that adapt the kernel, discarded.
        num_samples: draws per chain (particles, for a kernel of particles).
        num_chains: independent chains, or repeats.
        key: all randomness of the run.
        init: starts as the user gave them, or None: draws of the prior (`starts.starting_points` reads it).
        progress: show a bar.
        chain_method: `"auto"`, `"vectorized"` or `"parallel"`.
        store: folder to which finished chunks go, or None.
        state: what a former run left to continue from (`Run.state`), or None.
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


class Run(NamedTuple):
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


class AbstractKernel(abc.ABC):
    """A way to sample: a frozen dataclass of options, checked when it is made."""

    @abc.abstractmethod
    def run(self, problem: Problem, plan: Plan) -> Run:
        """Sample the problem as the plan says."""


def sampled_theta(prior: Prior, z: Array | np.ndarray, energy: Array | np.ndarray) -> tuple[Theta, Array]:
    """theta `[chain, draw, ...]` and log p(theta) + log p(x_o | theta) `[chain, draw]`: -U(z) - log|d theta / d z|."""

    return _convert(prior, jnp.asarray(z), jnp.asarray(energy))


@functools.partial(jax.jit, static_argnums=0)
def _convert(prior: Prior, z: Array, energy: Array) -> tuple[Theta, Array]:
    theta, logdet = prior.constrain(prior.unravel_z(z))
    return theta, -energy - logdet
