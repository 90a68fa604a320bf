"""Networks from a summary to the context of a density.

A summary x is flat, `[F]`. Those that read it as a table are told its `shape`, and take it row by row:
`x = series.reshape(-1)` of a series `[time, channel]`.
"""

import abc
import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey

_POSITION = 0.1


@dataclasses.dataclass(frozen=True)
class AbstractEmbedding(abc.ABC):
    """Options of an embedding network.

    `build` makes an `eqx.Module` from h `[F]` to a context `[out]`.
    """

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            shape = name == "shape"
            sizes = tuple(np.ravel(value)) if shape else (value,)
            if not all(map(_is_size, sizes)) or len(sizes) != 1 + shape:
                wanted = "two whole numbers (rows, columns)" if shape else "a whole number of at least 1"
                raise ValueError(f"{type(self).__name__}({name}={value!r}) was given; expected {wanted}")
            object.__setattr__(self, name, tuple(map(int, sizes)) if shape else int(value))

    @abc.abstractmethod
    def build(self, key: PRNGKey, width: int) -> Callable[[Array], Array]:
        """The network for h `[width]`."""

    @abc.abstractmethod
    def columns(self, width: int) -> np.ndarray:
        """Group `[width]` of each feature.

        Features of one group are standardised together, over time or trials.
        """

    def to_spec(self) -> dict[str, Any]:
        """The options, JSON-able."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class AbstractTable(AbstractEmbedding):
    """Embedding of a table held by x row by row."""

    shape: tuple[int, int]

    @abc.abstractmethod
    def parts(self, key: PRNGKey) -> tuple[Any, ...]:
        """Layers of the network."""

    @abc.abstractmethod
    def apply(self, parts: Any, h: Array) -> Array:
        """The context `[out]` of h, a table of this shape."""

    def build(self, key: PRNGKey, width: int) -> Callable[[Array], Array]:
        self._check(width)
        return _Network(self.parts(key), self)

    def columns(self, width: int) -> np.ndarray:
        self._check(width)
        return np.tile(np.arange(self.shape[1]), self.shape[0])

    def _check(self, width: int) -> None:
        rows, columns = self.shape
        if rows * columns != width:
            kind = type(self).__name__
            raise ValueError(
                f"{kind}(shape=({rows}, {columns})) reads {rows * columns} numbers; the summary has {width}. Give the "
                "shape of the table that x holds row by row, x = table.reshape(-1)"
            )


class _Network(eqx.Module):
    """Layers, and the options that say how they are applied."""

    parts: tuple[Any, ...]
    options: AbstractTable = eqx.field(static=True)

    def __call__(self, h: Array) -> Array:
        return self.options.apply(self.parts, h.reshape(self.options.shape))


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

    def columns(self, width: int) -> np.ndarray:
        return np.arange(width)


@dataclasses.dataclass(frozen=True)
class Conv(AbstractTable):
    """1-D convolutions over time, averaged over time.

    One hidden layer reads the average: what happens, no matter when. Each layer halves the series (`stride`) and sees
    further: with the defaults one unit of the last layer spans 43 samples. Blind to slower rhythms and to lags beyond
    that; raise `layers` or `stride` for them.

    Args:
        shape: (time, channel) of the series that x holds row by row.
        out: length of the context.
        channels: filters of each layer (relu).
        kernel: samples that a filter spans.
        stride: samples from one position of a filter to the next.
        layers: convolutions.
        width: hidden units after the average.
    """

    out: int = 20
    channels: int = 32
    kernel: int = 7
    stride: int = 2
    layers: int = 3
    width: int = 64

    def parts(self, key: PRNGKey) -> tuple[Any, ...]:
        # backwards from one sample after the last layer to the samples that the first must have
        least = 1
        for _ in range(self.layers):
            least = (least - 1) * self.stride + self.kernel
        if self.shape[0] < least:
            raise ValueError(
                f"Conv(layers={self.layers}, kernel={self.kernel}, stride={self.stride}) needs {least} samples; the "
                f"series has {self.shape[0]}. Give fewer layers, or a smaller kernel or stride"
            )
        *keys, k_head = jax.random.split(key, self.layers + 1)
        sizes = [self.shape[1], *[self.channels] * self.layers]
        filters = [
            eqx.nn.Conv1d(*pair, self.kernel, self.stride, key=k)
            for pair, k in zip(itertools.pairwise(sizes), keys, strict=True)
        ]
        head = eqx.nn.MLP(self.channels, self.out, self.width, 1, activation=jnp.tanh, key=k_head)
        return tuple(filters), head

    def apply(self, parts: Any, h: Array) -> Array:
        filters, head = parts
        y = h.T  # Conv1d wants [channel, time]
        for layer in filters:
            y = jax.nn.relu(layer(y))
        return head(jnp.mean(y, axis=1))


@dataclasses.dataclass(frozen=True)
class Recurrent(AbstractTable):
    """A gated recurrent unit that reads the series in order.

    The context is made of its last and its mean state.

    h_t = (1 - u_t) n_t + u_t h_{t-1}, with update gate u_t, reset gate r_t and candidate
    n_t = tanh(W a_t + r_t (U h_{t-1} + b)); a_t are `patch` consecutive samples. Time is one loop, so a long series
    wants a larger patch.

    Args:
        shape: (time, channel) of the series that x holds row by row.
        out: length of the context.
        patch: samples read at once; the last patch is filled up with 0, the mean.
        width: units of the state.

    Cho et al. 2014, EMNLP, doi:10.3115/v1/D14-1179.
    """

    out: int = 20
    patch: int = 5
    width: int = 64

    def parts(self, key: PRNGKey) -> tuple[Any, ...]:
        k_cell, k_head = jax.random.split(key)
        cell = eqx.nn.GRUCell(self.patch * self.shape[1], self.width, key=k_cell)
        head = eqx.nn.MLP(2 * self.width, self.out, self.width, 1, activation=jnp.tanh, key=k_head)
        return cell, head

    def apply(self, parts: Any, h: Array) -> Array:
        cell, head = parts

        def step(carry: tuple[Array, Array], token: Array) -> tuple[tuple[Array, Array], None]:
            state = cell(token, carry[0])
            return (state, carry[1] + state), None

        tokens, zero = _patches(h, self.patch), jnp.zeros(self.width, h.dtype)
        # one pass: the state, and the sum of states for their mean
        (last, total), _ = jax.lax.scan(step, (zero, zero), tokens)
        return head(jnp.concatenate([last, total / len(tokens)]))


@dataclasses.dataclass(frozen=True)
class Transformer(AbstractTable):
    """Self-attention over patches of the series, averaged over patches.

    Positions are learned.

    t = P a + position; then per layer t <- t + attention(norm(t)), t <- t + mlp(norm(t)). Every patch sees every other,
    at a cost of (time / patch)^2; hungry for draws.

    Args:
        shape: (time, channel) of the series that x holds row by row.
        out: length of the context.
        patch: samples in a patch; the last one is filled up with 0, the mean.
        width: numbers per patch, a multiple of `heads`.
        heads: attention heads.
        layers: attention layers.

    Vaswani et al. 2017, NeurIPS, doi:10.48550/arXiv.1706.03762; Xiong et al. 2020, ICML,
    doi:10.48550/arXiv.2002.04745 (norm before attention).
    """

    out: int = 20
    patch: int = 10
    width: int = 32
    heads: int = 4
    layers: int = 2

    def parts(self, key: PRNGKey) -> tuple[Any, ...]:
        if self.width % self.heads:
            raise ValueError(f"Transformer(width={self.width}, heads={self.heads}): width must be a multiple of heads")
        k_read, k_position, k_head, *keys = jax.random.split(key, 3 + self.layers)
        count = -(-self.shape[0] // self.patch)
        return (
            eqx.nn.Linear(self.patch * self.shape[1], self.width, key=k_read),
            _POSITION * jax.random.normal(k_position, (count, self.width)),
            tuple(_block(self, k) for k in keys),
            eqx.nn.MLP(self.width, self.out, 2 * self.width, 1, activation=jnp.tanh, key=k_head),
        )

    def apply(self, parts: Any, h: Array) -> Array:
        read, position, blocks, head = parts
        t = jax.vmap(read)(_patches(h, self.patch)) + position
        for block in blocks:
            t = block(t)
        return head(jnp.mean(t, axis=0))


@dataclasses.dataclass(frozen=True)
class Invariant(AbstractTable):
    """A set of exchangeable trials.

    e(x) = rho(mean_i [h_i, phi(h_i)]): the order of the trials changes nothing.

    Blind to a table that lies the other way round: x is a row of numbers, and `shape=(3, 5)` for five trials of three
    features trains on mixtures of them. Name features by trial (`names=("trial0.mean", ...)`), and look at the order.

    Args:
        shape: (trial, feature) of the table that x holds row by row.
        out: length of the context.
        width: hidden units of phi and rho, and length of phi's output.
        depth: hidden layers of phi and rho (tanh).

    Zaheer et al. 2017, NeurIPS, doi:10.48550/arXiv.1703.06114.
    """

    out: int = 20
    width: int = 64
    depth: int = 1

    def parts(self, key: PRNGKey) -> tuple[Any, ...]:
        k_each, k_head = jax.random.split(key)
        options = {"width_size": self.width, "depth": self.depth, "activation": jnp.tanh}
        each = eqx.nn.MLP(self.shape[1], self.width, key=k_each, **options)
        head = eqx.nn.MLP(self.shape[1] + self.width, self.out, key=k_head, **options)
        return each, head

    def apply(self, parts: Any, h: Array) -> Array:
        each, head = parts
        # the trial itself beside phi of it: means are exact, whatever phi has learned
        return head(jnp.mean(jnp.concatenate([h, jax.vmap(each)(h)], axis=1), axis=0))


EMBEDDINGS: dict[str, type[AbstractEmbedding]] = {
    kind.__name__: kind for kind in (MLP, Conv, Recurrent, Transformer, Invariant)
}


class _Block(eqx.Module):
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __call__(self, t: Array) -> Array:
        # norm before attention and before the layers, sums after: trains without a warm-up
        seen = jax.vmap(self.norms[0])(t)
        t = t + self.attention(seen, seen, seen)
        return t + jax.vmap(lambda row: self.mlp(self.norms[1](row)))(t)


def _block(options: Transformer, key: PRNGKey) -> _Block:
    k_attention, k_mlp = jax.random.split(key)
    width = options.width
    norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
    attention = eqx.nn.MultiheadAttention(options.heads, width, key=k_attention)
    return _Block(norms, attention, eqx.nn.MLP(width, width, 2 * width, 1, activation=jax.nn.relu, key=k_mlp))


def _patches(h: Array, patch: int) -> Array:
    """Patches `[ceil(time / patch), patch * channel]`.

    Consecutive samples side by side, the last row filled up with 0.
    """
    # 0 is the mean of a standardised feature
    return jnp.pad(h, ((0, -len(h) % patch), (0, 0))).reshape(-1, patch * h.shape[1])


def _is_size(value: Any) -> bool:
    """Whether it is a whole number above 0.

    NumPy's floats too, which a list in a study file becomes.
    """
    number = isinstance(value, (int, np.integer, np.floating)) and not isinstance(value, bool)
    return bool(number and value > 0 and value % 1 == 0)


def embedding_from_spec(spec: dict[str, Any] | None) -> AbstractEmbedding | None:
    """Invert `describe`; None for none."""
    if spec is None:
        return None
    options = {name: tuple(value) if name == "shape" else value for name, value in spec.items() if name != "name"}
    return EMBEDDINGS[spec["name"]](**options)


def describe(option: Any) -> Any:
    """An option of an estimator, JSON-able.

    Of a module of the user's its `repr`, the same in every process.
    """
    if hasattr(option, "to_spec"):
        return option.to_spec()
    plain = option is None or _check.is_count(option) or isinstance(option, float | dict)
    return option if plain else re.sub(r" at 0x[0-9a-f]+", "", repr(option))


def check_embedding(embedding: Any) -> None:
    """Refuse what cannot embed when an estimator is made."""
    if isinstance(embedding, type) or not (embedding is None or isinstance(embedding, AbstractEmbedding)
                                           or callable(embedding)):  # fmt: skip
        given = f"the class {embedding.__name__}" if isinstance(embedding, type) else repr(embedding)
        raise TypeError(
            f"embedding={given} was given; expected options such as vb.densities.embeddings.Conv(shape=(time, "
            f"channel)), an "
            "eqx.Module of your own from [F] to [out], or None"
        )


def check_saved(embedding: Any) -> None:
    """Refuse to save a module of the user's."""
    if embedding is not None and not isinstance(embedding, AbstractEmbedding):
        raise TypeError(
            f"the embedding {type(embedding).__name__} is your own, and a file holds no code; save the draws and "
            "the key and fit again, or use one of vb.densities.embeddings"
        )


def embed(embedding: Any, key: PRNGKey, width: int) -> tuple[Callable[[Array], Array] | None, int]:
    """The network of an embedding, and its output length.

    A module of the user's is taken as it is; where it has a method `embed` (as `vb.spiking.Network`), that is called.
    """
    if embedding is None:
        return None, width
    own = isinstance(embedding, AbstractEmbedding)
    network = eqx.filter_jit(embedding.build)(key, width) if own else getattr(embedding, "embed", embedding)
    out = eqx.filter_eval_shape(network, jax.ShapeDtypeStruct((width,), jnp.result_type(float)))
    if getattr(out, "ndim", None) != 1:
        shape = list(out.shape) if hasattr(out, "shape") else type(out).__name__
        raise ValueError(f"the embedding made {shape} of a summary [{width}]; expected one vector [out]")
    return network, out.shape[0]
