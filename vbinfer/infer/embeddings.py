"""Networks that turn a summary, a time series or a set of trials into the context of a density."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._typing import PRNGKey


@dataclasses.dataclass(frozen=True)
class AbstractEmbedding(abc.ABC):
    """Options of an embedding network; `build` makes an `eqx.Module` from h `[F]` to a context `[out]`."""

    @abc.abstractmethod
    def build(self, key: PRNGKey, width: int) -> Callable[[Array], Array]:
        """The network for h `[width]`."""

    def columns(self, width: int) -> np.ndarray:
        """`[width]`: features that share a number are standardised together, over time or trials."""
        return np.arange(width)

    def to_spec(self) -> dict[str, Any]:
        """The options, JSON-able."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class MLP(AbstractEmbedding):
    """Fully connected layers.

    Args:
        out: length of the context.
        width: hidden units.
        depth: hidden layers (tanh).
    """

    out: int = 20
    width: int = 64
    depth: int = 2

    def build(self, key: PRNGKey, width: int) -> Callable[[Array], Array]:
        return eqx.nn.MLP(width, self.out, self.width, self.depth, activation=jnp.tanh, key=key)


EMBEDDINGS: dict[str, type[AbstractEmbedding]] = {"MLP": MLP}


def embedding_from_spec(spec: dict[str, Any]) -> AbstractEmbedding:
    """The embedding that `to_spec` described."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.items()}
    return EMBEDDINGS[options.pop("name")](**options)


def embed(embedding: Any, key: PRNGKey, width: int) -> tuple[Callable[[Array], Array] | None, int]:
    """The network of options, or the user's own module as it is; and the length of its output."""
    if embedding is None:
        return None, width
    network = embedding.build(key, width) if isinstance(embedding, AbstractEmbedding) else embedding
    out = eqx.filter_eval_shape(network, jax.ShapeDtypeStruct((width,), jnp.result_type(float)))
    if getattr(out, "ndim", None) != 1:
        shape = list(out.shape) if hasattr(out, "shape") else type(out).__name__
        raise ValueError(f"the embedding made {shape} of a summary [{width}]; expected one vector [out]")
    return network, out.shape[0]
