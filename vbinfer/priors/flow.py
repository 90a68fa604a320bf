"""Priors through a trained map from standard normal noise."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform


class NoiseTransform(Transform):
    """theta `[..., k]` of standard normal noise z `[..., k]`.

    Args:
        network: a pytree with `from_noise(z)` and `to_noise(theta)`, each of `[k]` to `[k]` and a log-determinant.
    """

    domain: Any = constraints.real_vector
    codomain: Any = constraints.real_vector

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, x: Any) -> Array:
        return each(self.network, "from_noise", x)[0]

    def _inverse(self, y: Any) -> Array:
        return each(self.network, "to_noise", y)[0]

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Array:
        """Log-determinant of dtheta/dz, by theta."""
        return -each(self.network, "to_noise", y)[1]

    def tree_flatten(self) -> Any:
        return (self.network,), (("network",), {})


def flow_distribution(network: Any, k: int) -> dist.TransformedDistribution:
    """Distribution of theta when noise is standard normal."""
    return dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([k]).to_event(1), NoiseTransform(network))


@eqx.filter_jit
def each(network: Any, way: str, rows: Any) -> tuple[Array, Array]:
    """Every row one way, with log-determinants.

    Rows `[..., k]` to `[..., k]` and `[...]`.
    """
    rows = jnp.asarray(rows, jnp.result_type(float))
    return jnp.vectorize(getattr(network, way), signature="(k)->(k),()")(rows)
