"""Conditional densities q(z | h): normalising flows that start as the standard normal, which in z is the prior."""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import flowjax.bijections as fb
import jax
import jax.numpy as jnp
import paramax
from flowjax.bijections import AbstractBijection
from jaxtyping import Array

from vbinfer._typing import PRNGKey
from vbinfer.priors.transforms import normal_log_prob

_MIN_SCALE = 1e-3


@dataclasses.dataclass(frozen=True)
class AbstractDensity(abc.ABC):
    """Options of a conditional density; `build` makes the trainable thing."""

    layers: int
    width: int
    depth: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise ValueError(f"{type(self).__name__}({name}={value}) was given; expected a number above 0")

    @abc.abstractmethod
    def layer(self, key: PRNGKey, dim: int, cond_dim: int) -> AbstractBijection:
        """One layer, the identity until trained."""

    def build(self, key: PRNGKey, dim: int, cond_dim: int) -> AbstractBijection:
        """The map from z `[dim]` to standard normal noise, given h `[cond_dim]`; until trained a permutation.

        The order of the coordinates is reversed after the first layer, so that two layers reach every one of them,
        then alternately shuffled and reversed.
        """
        k_order, k_layers = jax.random.split(key)
        flip = jnp.arange(dim)[::-1]
        orders = [flip if i % 2 == 0 else k for i, k in enumerate(_permutations(k_order, self.layers, dim))]

        layers = [
            fb.Chain([self.layer(k, dim, cond_dim), fb.Permute(order)]).merge_chains()
            for k, order in zip(jax.random.split(k_layers, self.layers), orders, strict=True)
        ]
        # stacked after they are made: building them under vmap compiles for seconds
        arrays = [jax.tree_util.tree_leaves(eqx.filter(layer, eqx.is_array)) for layer in layers]
        first, static = eqx.partition(layers[0], eqx.is_array)
        stacked = [jnp.stack(leaves) for leaves in zip(*arrays, strict=True)]
        structure = jax.tree_util.tree_structure(first)
        return fb.Scan(eqx.combine(jax.tree_util.tree_unflatten(structure, stacked), static))

    def to_spec(self) -> dict[str, Any]:
        """The options, JSON-able."""
        return {"name": type(self).__name__, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class MAF(AbstractDensity):
    """Masked autoregressive flow: each coordinate shifted and scaled by a network of those before it and of x.

    u_i = exp-like scale_i(z_<i, x) z_i + shift_i(z_<i, x), the order permuted between layers. Light tails: a layer is
    affine, so strongly curved or bimodal posteriors need `NSF`.

    Args:
        layers: autoregressive layers.
        width: hidden units of each network.
        depth: hidden layers of each network (tanh).

    Papamakarios, Pavlakou & Murray 2017, NeurIPS, doi:10.48550/arXiv.1705.07057.
    """

    layers: int = 5
    width: int = 50
    depth: int = 2

    def layer(self, key: PRNGKey, dim: int, cond_dim: int) -> AbstractBijection:
        layer = fb.MaskedAutoregressive(
            key,
            transformer=_affine(),
            dim=dim,
            cond_dim=cond_dim,
            nn_width=self.width,
            nn_depth=self.depth,
            nn_activation=jnp.tanh,
        )
        last = lambda f: f.masked_autoregressive_mlp.layers[-1]  # noqa: E731
        masked = last(layer).weight
        zeroed = eqx.tree_at(lambda w: w.args, masked, tuple(_zero(item) for item in masked.args))
        return eqx.tree_at(lambda f: (last(f).weight, last(f).bias), layer, (zeroed, jnp.zeros_like(last(layer).bias)))


@dataclasses.dataclass(frozen=True)
class NSF(AbstractDensity):
    """Neural spline flow with coupling layers: half of the coordinates bent by monotone rational-quadratic splines.

    Knots and slopes come from a network of the other half and of x, followed by a shift and a scale; outside
    `[-interval, interval]` the spline is the identity. With one parameter the spline depends on x alone.

    Args:
        layers: coupling layers.
        width: hidden units of each network.
        depth: hidden layers of each network (tanh).
        knots: inner knots of each spline.
        interval: half-width of the splines' range, in prior standard deviations.

    Durkan, Bekasov, Murray & Papamakarios 2019, NeurIPS, doi:10.48550/arXiv.1906.04032.
    """

    layers: int = 3
    width: int = 50
    depth: int = 2
    knots: int = 5
    interval: float = 5.0

    def layer(self, key: PRNGKey, dim: int, cond_dim: int) -> AbstractBijection:
        layer = fb.Coupling(
            key,
            transformer=fb.Chain([_affine(), fb.RationalQuadraticSpline(knots=self.knots, interval=self.interval)]),
            untransformed_dim=dim // 2,
            dim=dim,
            cond_dim=cond_dim,
            nn_width=self.width,
            nn_depth=self.depth,
            nn_activation=jnp.tanh,
        )
        last = lambda f: f.conditioner.layers[-1]  # noqa: E731
        zeros = jnp.zeros_like(last(layer).weight), jnp.zeros_like(last(layer).bias)
        return eqx.tree_at(lambda f: (last(f).weight, last(f).bias), layer, zeros)


DENSITIES: dict[str, type[AbstractDensity]] = {"MAF": MAF, "NSF": NSF}


def density_from_spec(spec: dict[str, Any]) -> AbstractDensity:
    """The density that `to_spec` described."""
    options = {name: value for name, value in spec.items() if name != "name"}
    return DENSITIES[spec["name"]](**options)


def log_density(flow: AbstractBijection, z: Array, h: Array) -> Array:
    """log q(z | h) of one pair, z `[D]` and h `[F]`."""
    noise, log_det = paramax.unwrap(flow).transform_and_log_det(z, h)
    return jnp.sum(normal_log_prob(noise)) + log_det


def draw(flow: AbstractBijection, h: Array, key: PRNGKey, n: int, dim: int) -> Array:
    """n draws `[n, D]` from q(z | h)."""
    ready = paramax.unwrap(flow)
    return jax.vmap(lambda noise: ready.inverse(noise, h))(jax.random.normal(key, (n, dim)))


def _permutations(key: PRNGKey, layers: int, dim: int) -> list[Array]:
    return [jax.random.permutation(k, dim) for k in jax.random.split(key, layers)]


def _affine() -> AbstractBijection:
    """Shift and a scale that stays above `_MIN_SCALE`; 0 and 1 at zero parameters."""
    raw = jnp.log(jnp.expm1(jnp.asarray(1.0 - _MIN_SCALE)))
    scale = paramax.Parameterize(lambda value: jax.nn.softplus(value) + _MIN_SCALE, raw)
    return eqx.tree_at(lambda affine: affine.scale, fb.Affine(), scale)


def _zero(item: Any) -> Any:
    return jnp.zeros_like(item) if eqx.is_inexact_array(item) else item
