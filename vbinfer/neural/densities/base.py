"""Conditional densities q(y | c): interface, embedded contexts, mixtures."""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey


class AbstractConditional(eqx.Module):
    """A density over y `[D]` given a context c `[C]`.

    A pytree whose floating arrays are trained.
    """

    @abc.abstractmethod
    def log_prob(self, y: Array, c: Array) -> Array:
        """log q(y | c) of one pair."""

    @abc.abstractmethod
    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws `[n, D]` given one context."""


@dataclasses.dataclass(frozen=True)
class AbstractDensity(abc.ABC):
    """Options of a conditional density; `build` makes the trainable thing."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, whole = getattr(self, field.name), field.type is int
            if field.type is bool or (_check.is_count(value) and value > 0):
                continue
            if whole or not (isinstance(value, float) and 0.0 < value < math.inf):
                kind = "number above 0" + (", a whole one" if whole else "")
                raise ValueError(f"{type(self).__name__}({field.name}={value!r}) was given; expected a {kind}")

    @abc.abstractmethod
    def build(self, key: PRNGKey, dim: int, cond_dim: int) -> AbstractConditional:
        """Build a density over `[dim]` given `[cond_dim]`.

        Until trained it is close to the standard normal.
        """

    def to_spec(self) -> dict[str, Any]:
        """The options, JSON-able."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


class Embedded(AbstractConditional):
    """A density of an embedded context, q(y | e(c))."""

    embedding: Callable[[Array], Array]
    density: AbstractConditional

    def log_prob(self, y: Array, c: Array) -> Array:
        """log q(y | e(c)) of one pair."""
        return self.density.log_prob(y, self.embedding(c))

    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws given one context."""
        return self.density.sample(self.embedding(c), key, n)


class Mixture(AbstractConditional):
    """Equal mixture: q(y | c) = mean_k q_k(y | c)."""

    members: AbstractConditional
    """One module whose arrays carry a leading axis `[K]`."""
    size: int = eqx.field(static=True)

    def log_prob(self, y: Array, c: Array) -> Array:
        """log mean_k q_k(y | c)."""
        each = eqx.filter_vmap(lambda member: member.log_prob(y, c))(self.members)
        return jax.nn.logsumexp(each) - jnp.log(self.size)

    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws, equally many from each member, shuffled."""
        k_order, k_draw = jax.random.split(key)
        # a stratified mixture: the number from each member is not random, the order is
        share = -(-n // self.size)
        keys = jax.random.split(k_draw, self.size)
        draws = eqx.filter_vmap(lambda member, k: member.sample(c, k, share))(self.members, keys)
        rows = draws.reshape(self.size * share, -1)
        return jax.random.permutation(k_order, rows)[:n]


def draw(density: AbstractConditional, c: Array, key: PRNGKey, n: int) -> tuple[Array, Array]:
    """n draws `[n, D]` given one context, with log q.

    Together, where the density has a quicker way.
    """
    if isinstance(density, Embedded):
        return draw(density.density, density.embedding(c), key, n)
    together = getattr(density, "sample_and_log_prob", None)
    if together is not None:
        return together(c, key, n)
    y = density.sample(c, key, n)
    return y, jax.vmap(lambda one: density.log_prob(one, c))(y)


def training_loss(density: AbstractConditional, y: Array, c: Array, key: PRNGKey) -> Array:
    """Loss of one pair: its own, or -log q."""
    if isinstance(density, Embedded):
        return training_loss(density.density, y, density.embedding(c), key)
    own = getattr(density, "loss", None)
    return -density.log_prob(y, c) if own is None else own(y, c, key)


def pairwise(score: Callable[[Array, Array], Array], y: Array, c: Array) -> Array:
    """`score(y, c)` `[...]` of broadcast rows.

    y is `[..., D]`, c `[..., C]`; leading axes are broadcast.
    """
    lead = jnp.broadcast_shapes(y.shape[:-1], c.shape[:-1])
    # vectorize, not vmap: any number of leading axes, none included
    y, c = (jnp.broadcast_to(value, (*lead, value.shape[-1])) for value in (y, c))
    return jnp.vectorize(score, signature="(d),(c)->()")(y, c)


def stack(members: Sequence[Any]) -> Any:
    """Stack modules of one structure along a leading axis."""
    # what is no array is alike in all of them: the first one's stands for the stack
    # by NumPy, here and in `mixture`: a program for every shape would be compiled
    together = lambda *leaves: jax.device_put(np.stack(leaves)) if eqx.is_array(leaves[0]) else leaves[0]  # noqa: E731
    return jax.tree_util.tree_map(together, *members)


def mixture(stacked: Any, size: int) -> Any:
    """A stack as one density: its only member or mixture."""
    if size > 1:
        return Mixture(stacked, size)
    first = lambda leaf: jax.device_put(np.asarray(leaf)[0]) if eqx.is_array(leaf) else leaf  # noqa: E731
    return jax.tree_util.tree_map(first, stacked)


def members_of(network: Any) -> Any:
    """Invert `mixture`: the stack of a density's members."""
    return network.members if isinstance(network, Mixture) else stack([network])
