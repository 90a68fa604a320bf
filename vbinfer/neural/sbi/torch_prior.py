"""The prior over z as torch sees it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer.neural.sbi.quiet import to_torch
from vbinfer.priors.prior import Prior


def z_prior(prior: Prior) -> Any:
    """The density of z as a torch distribution.

    N(0, I), or the exact density where whitening leaves it non-normal.
    """
    import torch

    zeros, ones = torch.zeros(prior.z_dim), torch.ones(prior.z_dim)
    if prior.z_is_normal:
        return torch.distributions.MultivariateNormal(zeros, torch.diag(ones))
    return _whitened_prior(prior)


def log_density(prior: Prior, flat: Array) -> Array:
    """log p(z) `[...]` of flat z `[..., D]`."""
    theta, log_det = prior.constrain(prior.unravel_z(flat))
    return prior.log_prob(theta) + log_det


def _log_prob_function(prior: Prior) -> Any:
    """log p(z) for torch, with the gradient of JAX.

    Variational inference of sbi asks for the gradient.
    """
    import torch

    class LogProb(torch.autograd.Function):
        """log p(z), and its slope kept for the way back."""

        @staticmethod
        def forward(ctx: Any, value: Any) -> Any:
            flat = jnp.asarray(value.detach().cpu().numpy())
            log_p, slope = jax.vjp(lambda z: log_density(prior, z), flat)
            ctx.save_for_backward(to_torch(slope(jnp.ones_like(log_p))[0]))
            return to_torch(log_p)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            return outer[0][..., None] * ctx.saved_tensors[0]

    return LogProb


def _whitened_prior(prior: Prior) -> Any:
    import torch
    from torch.distributions import constraints

    density = _log_prob_function(prior)

    class ZPrior(torch.distributions.Distribution):
        """Density of z under the prior: mean 0, covariance I."""

        arg_constraints: ClassVar[dict[str, Any]] = {}

        def __init__(self) -> None:
            super().__init__(torch.Size(()), torch.Size((prior.z_dim,)), validate_args=False)

        @property
        def support(self) -> Any:
            return constraints.real_vector

        @property
        def mean(self) -> Any:
            return torch.zeros(prior.z_dim)

        @property
        def variance(self) -> Any:
            return torch.ones(prior.z_dim)

        def sample(self, sample_shape: Any = ()) -> Any:
            shape = tuple(sample_shape)
            # seeded by torch's generator, which quiet_torch has seeded by the key
            seed = int(torch.randint(2**31 - 1, ()).item())
            theta = prior.sample(key=jax.random.key(seed), n=int(np.prod(shape, dtype=int)))
            return to_torch(prior.ravel_z(prior.unconstrain(theta))).reshape(*shape, prior.z_dim)

        def log_prob(self, value: Any) -> Any:
            return density.apply(value)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if tuple(batch_shape) != ():
                raise NotImplementedError("the prior over z has no batch; use sample((n,))")
            return self

    return ZPrior()
