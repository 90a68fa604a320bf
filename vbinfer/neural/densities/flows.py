"""Conditional normalising flows that start as the standard normal."""

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import flowjax.bijections as fb
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.bijections import AbstractBijection
from flowjax.utils import get_ravelled_pytree_constructor
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.execute.options import quickly
from vbinfer.neural.densities.autoregressive import Autoregressive
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity, stack
from vbinfer.neural.densities.spline import Spline
from vbinfer.priors.transforms import normal_log_prob

_MIN_SCALE = 1e-3


class Flow(AbstractConditional):
    """A conditional normalising flow.

    noise = f(y; c), so that q(y | c) = N(f(y; c); 0, I) |det df/dy|.
    """

    bijection: fb.Scan
    dim: int = eqx.field(static=True)

    def log_prob(self, y: Array, c: Array) -> Array:
        """log q(y | c) of one pair."""
        layers, fixed = eqx.partition(paramax.unwrap(self.bijection).bijection, eqx.is_array)

        # Layer by layer; of each its input alone is kept for the gradient, and its insides are computed anew: fewer
        # arrays to write, and a third fewer kernels to compile.
        @jax.checkpoint
        def through(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            value, slope = eqx.combine(layer, fixed).transform_and_log_det(carry[0], c)
            return (value, carry[1] + slope), None

        (noise, log_det), _ = jax.lax.scan(through, (y, jnp.zeros((), y.dtype)), layers)
        return jnp.sum(normal_log_prob(noise)) + log_det

    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws `[n, D]` given one context."""
        return self.sample_and_log_prob(c, key, n)[0]

    def sample_and_log_prob(self, c: Array, key: PRNGKey, n: int) -> tuple[Array, Array]:
        """n draws `[n, D]` given one context, with log q.

        The inverse gives log q along the way.
        """
        # unwrapped once, outside vmap: the parameters of all layers are computed once for n draws
        ready, noise = paramax.unwrap(self.bijection), jax.random.normal(key, (n, self.dim))
        y, log_det = jax.vmap(lambda one: ready.inverse_and_log_det(one, c))(noise)
        return y, jnp.sum(normal_log_prob(noise), axis=-1) - log_det


@dataclasses.dataclass(frozen=True)
class AbstractFlow(AbstractDensity):
    """Options of a flow made of alike layers."""

    layers: int
    width: int
    depth: int

    @abc.abstractmethod
    def bend(self) -> AbstractBijection:
        """Bijection of one coordinate, the identity at zero parameters."""

    def build(self, key: PRNGKey, dim: int, cond_dim: int) -> Flow:
        """Build the map from y to standard normal noise.

        y is `[dim]`, given c `[cond_dim]`; until trained it is a permutation. The order of the coordinates is reversed
        after the first layer, so that two layers reach every one of them, then alternately shuffled and reversed.
        """
        # layer 0 | reversed | layer 1 | shuffled | layer 2 | reversed ...
        keys = zip(*(jax.random.split(k, self.layers) for k in jax.random.split(key)), strict=True)
        layers = [
            _layer(self, k_order, k, np.asarray(i % 2 == 0), dim, cond_dim) for i, (k_order, k) in enumerate(keys)
        ]
        return Flow(fb.Scan(stack(layers)), dim)


@quickly
def _layer(
    options: Any, k_order: PRNGKey, key: PRNGKey, reverse: np.ndarray, dim: int, cond_dim: int
) -> AbstractBijection:
    """One layer, and the order of coordinates after it.

    Of a MAF or NSF; one program: its operations one by one are fifty.
    """
    order = jnp.where(reverse, jnp.arange(dim)[::-1], jax.random.permutation(k_order, dim))
    network: dict[str, Any] = {"nn_width": options.width, "nn_depth": options.depth, "nn_activation": jnp.tanh}
    network |= {"transformer": options.bend(), "dim": dim, "cond_dim": cond_dim}
    layer: Any
    if options.autoregressive:
        layer, last = fb.MaskedAutoregressive(key, **network), lambda f: f.masked_autoregressive_mlp.layers[-1]
    else:
        layer, last = fb.Coupling(key, untransformed_dim=dim // 2, **network), lambda f: f.conditioner.layers[-1]
    # with its last weights 0 a layer is the identity, so that an untrained flow is the prior
    parts = (_Bent(options), jax.tree_util.tree_map(_zero, last(layer)))
    layer = eqx.tree_at(lambda f: (f.transformer_constructor, last(f)), layer, parts)
    return fb.Chain([Autoregressive(layer) if options.autoregressive else layer, Reordered(order)])


@dataclasses.dataclass(frozen=True)
class _Bent:
    """Bend of a coordinate from its parameters.

    Equal for equal options: flowjax's own closure, new each time, would compile the training anew.
    """

    options: AbstractFlow

    def __call__(self, parameters: Array) -> AbstractBijection:
        return get_ravelled_pytree_constructor(self.options.bend(), eqx.is_inexact_array)[0](parameters)


def _zero(leaf: Any) -> Any:
    return jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf


class Reordered(AbstractBijection):
    """Coordinates in another order, `y = x[order]`."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # type: ignore[misc]  # flowjax declares fields that a class may fix
    order: Array
    inverse: Array

    def __init__(self, order: Array) -> None:
        self.shape, self.order, self.inverse = order.shape, order, jnp.argsort(order)

    def transform_and_log_det(self, x: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """`x[order]`, and 0."""
        return x[self.order], jnp.zeros(())

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """x, and 0."""
        return y[self.inverse], jnp.zeros(())


class SinhArcsinh(AbstractBijection):
    """Bend y = sinh(t asinh(x) + e).

    The identity at zero parameters.
    """

    shape: ClassVar[tuple[int, ...]] = ()  # type: ignore[misc]
    cond_shape: ClassVar[None] = None  # type: ignore[misc]
    skew: Array
    tail: Any  # an array behind paramax

    def __init__(self) -> None:
        self.skew, self.tail = jnp.zeros(()), paramax.Parameterize(_tail, jnp.zeros(()))

    def transform_and_log_det(self, x: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """y and log dy/dx."""
        outer = self.tail * jnp.arcsinh(x) + self.skew
        return jnp.sinh(outer), _log_cosh(outer) - 0.5 * jnp.log1p(x**2) + jnp.log(self.tail)

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """x and log dx/dy."""
        inner = (jnp.arcsinh(y) - self.skew) / self.tail
        return jnp.sinh(inner), _log_cosh(inner) - 0.5 * jnp.log1p(y**2) - jnp.log(self.tail)


def _log_cosh(value: Array) -> Array:
    """log cosh without overflow."""
    return jnp.abs(value) + jnp.log1p(jnp.exp(-2.0 * jnp.abs(value))) - jnp.log(2.0)


@dataclasses.dataclass(frozen=True)
class MAF(AbstractFlow):
    """Masked autoregressive flow.

    Each coordinate is scaled, shifted and bent by a network of those before it and of x:
    u_i = sinh(t_i asinh(s_i z_i + m_i) + e_i), with s, m, t, e functions of (z_<i, x); the order is permuted between
    layers. Plain affine layers (t = 1, e = 0) cannot make the skewed or one-sided conditionals that a posterior at the
    edge of its prior has in z; the sinh-arcsinh adds skew e and tail weight t at little cost (t stays in [1/e, e]).
    Sharply bimodal posteriors need `NSF`.

    Args:
        layers: autoregressive layers.
        width: hidden units of each network.
        depth: hidden layers of each network (tanh).

    Papamakarios, Pavlakou & Murray 2017, NeurIPS, doi:10.48550/arXiv.1705.07057; Jones & Pewsey 2009, Biometrika 96,
    doi:10.1093/biomet/asp053 (sinh-arcsinh).
    """

    layers: int = 5
    width: int = 50
    depth: int = 2

    autoregressive: ClassVar[bool] = True

    def bend(self) -> AbstractBijection:
        return fb.Chain([_affine(), SinhArcsinh()])


@dataclasses.dataclass(frozen=True)
class NSF(AbstractFlow):
    """Neural spline flow.

    Coordinates are bent by monotone rational-quadratic splines, then shifted and scaled. Outside `[-interval,
    interval]` a spline is the identity. With coupling layers, the default, half of the coordinates are bent given the
    other half and x, which samples in one pass; with `autoregressive=True` each is bent given those before it and x:
    more expressive per layer, but a draw goes through the coordinates one by one.

    Args:
        layers: layers.
        width: hidden units of each network.
        depth: hidden layers of each network (tanh).
        knots: inner knots of each spline.
        interval: half-width of the splines' range, in prior standard deviations.
        autoregressive: masked autoregressive layers instead of coupling layers.

    Durkan, Bekasov, Murray & Papamakarios 2019, NeurIPS, doi:10.48550/arXiv.1906.04032.
    """

    layers: int = 3
    width: int = 50
    depth: int = 2
    knots: int = 5
    interval: float = 5.0
    autoregressive: bool = False

    def bend(self) -> AbstractBijection:
        return fb.Chain([_affine(), Spline(self.knots, self.interval)])


def _affine() -> AbstractBijection:
    """Shift and positive scale; 0 and 1 at zero parameters."""
    # softplus(raw) + _MIN_SCALE = 1
    raw = jnp.log(jnp.expm1(jnp.asarray(1.0 - _MIN_SCALE)))
    scale = paramax.Parameterize(_positive, raw)
    return eqx.tree_at(lambda affine: affine.scale, fb.Affine(), scale)


# A named function: a lambda made anew would compile the training anew at every fit.
def _positive(value: Array) -> Array:
    return jax.nn.softplus(value) + _MIN_SCALE


def _tail(value: Array) -> Array:
    return jnp.exp(jnp.tanh(value))
