"""The potential that gradient samplers see: minus the log posterior density over z, the unconstrained space."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import Theta
from vbinfer.priors.prior import Prior

LogLikelihood = Callable[[Theta, Any], Array]
"""`(theta, x_o) -> log p(x_o | theta)`, one number."""


def potential_fn(prior: Prior, log_likelihood: LogLikelihood, x_o: Any) -> Callable[[Array], Array]:
    """The potential energy over flat z.

    U(z) = -[log p(theta) + log|d theta / d z| + log p(x_o | theta)], theta = constrain(z)

    The first two terms are the log density of z under the prior, -|z|^2 / 2 up to a constant where the prior is
    standard normal in z.

    Args:
        prior: the prior; `prior.ravel_z` says the order of z.
        log_likelihood: `(theta, x_o) -> number`.
        x_o: the observation, passed on as it is.

    Returns:
        `z [Dz] -> U(z)`, differentiable.
    """

    def potential(flat: Array) -> Array:
        z = prior.unravel_z(flat)
        theta, logdet = prior.constrain(z)
        return -(prior.log_prob(theta) + logdet + log_likelihood(theta, x_o))

    return potential


def check_likelihood(prior: Prior, log_likelihood: LogLikelihood, x_o: Any) -> None:
    """Refuse a likelihood that is no function or whose value is not one number, before anything is sampled."""
    if not callable(log_likelihood):
        raise TypeError(
            f"log_likelihood is a {type(log_likelihood).__name__}; expected a function (theta, x_o) -> one number"
        )
    flat = jax.ShapeDtypeStruct((prior.z_dim,), jnp.result_type(float))

    def at(z: Array) -> Any:
        return log_likelihood(prior.constrain(prior.unravel_z(z))[0], x_o)

    out = jax.eval_shape(at, flat)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"an array of shape {list(out.shape)} and type {out.dtype}" if hasattr(out, "shape") else repr(out)
        raise ValueError(
            f"log_likelihood returned {got}; expected one real number, the sum over the data: "
            f"write dist.Normal(mean, sd).log_prob(x_o).sum()"
        )
