"""A prior as a torch distribution, over theta or z."""

from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from vbinfer.priors.prior import Prior

_DRAWS = 10_000


def torch_z_prior(prior: "Prior") -> Any:
    """Torch density of z.

    N(0, I), or the exact one where whitening leaves another.
    """
    import torch

    if prior.z_is_normal:
        return torch.distributions.MultivariateNormal(torch.zeros(prior.z_dim), torch.eye(prior.z_dim))
    return torch_prior(prior, over_z=True)


def torch_prior(prior: "Prior", *, over_z: bool = False) -> Any:
    """Torch view of a prior, float32.

    `sample(shape) -> [*shape, D]`, `log_prob([..., D]) -> [...]`, differentiable once: what the sbi package needs. Keys
    and compiled functions are made inside the methods: sbi copies and walks what a distribution holds. The key comes
    from torch's generator, so `torch.manual_seed` decides the draws.
    """
    import torch
    from torch.distributions import constraints as constraint

    dim = prior.z_dim if over_z else prior.dim
    density = _log_prob_function(prior, over_z)

    class TorchPrior(torch.distributions.Distribution):
        """Named numpyro distributions behind torch's interface."""

        arg_constraints: ClassVar[dict[str, Any]] = {}

        def __init__(self) -> None:
            super().__init__(torch.Size(()), torch.Size((dim,)), validate_args=False)

        @property
        def support(self) -> Any:
            return constraint.real_vector if over_z else constraint.cat(_bounds(prior, constraint), -1, [1] * dim)

        @property
        def mean(self) -> Any:
            return torch.zeros(dim) if over_z else to_torch(_flat(prior, prior.mean()))

        @property
        def variance(self) -> Any:
            if over_z:
                return torch.ones(dim)
            known = _flat(prior, prior.variance())
            return to_torch(np.where(np.isnan(known), _middle_spread(prior) ** 2, known))

        def sample(self, sample_shape: Any = ()) -> Any:
            shape = tuple(sample_shape)
            seed = int(torch.randint(2**31 - 1, ()).item())
            theta = prior.sample(key=jax.random.key(seed), n=int(np.prod(shape, dtype=int)))
            return to_torch(prior.to_z(theta) if over_z else prior.ravel(theta)).reshape(*shape, dim)

        def log_prob(self, value: Any) -> Any:
            return density.apply(value)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if tuple(batch_shape) != ():
                raise NotImplementedError("a prior is one distribution and has no batch; use sample((n,))")
            return self

    return TorchPrior()


def to_torch(array: Any) -> Any:
    """A float32 tensor of its own memory.

    An array of JAX is read-only.
    """
    import torch

    return torch.tensor(np.array(array, dtype=np.float32))


def _log_prob_function(prior: "Prior", over_z: bool) -> Any:
    """Log density for torch, with the gradient of JAX.

    Variational inference of sbi asks for the gradient.
    """
    import torch

    def log_density(flat: Any) -> Any:
        theta, log_det = prior.from_z(flat) if over_z else (prior.unravel(flat), 0.0)
        return prior.log_prob(theta) + log_det

    class LogProb(torch.autograd.Function):
        """Log density, and its slope kept for the way back."""

        @staticmethod
        def forward(ctx: Any, value: Any) -> Any:
            flat = jnp.asarray(value.detach().cpu().numpy())
            if not ctx.needs_input_grad[0]:
                return to_torch(log_density(flat)).to(value.device)
            log_p, slope = jax.vjp(log_density, flat)
            ctx.save_for_backward(to_torch(slope(jnp.ones_like(log_p))[0]).to(value.device))
            return to_torch(log_p).to(value.device)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            return outer[0][..., None] * ctx.saved_tensors[0]

    return LogProb


def _flat(prior: "Prior", theta: Any) -> np.ndarray:
    return np.asarray(prior.ravel({name: jnp.asarray(value) for name, value in theta.items()}))


def _middle_spread(prior: "Prior") -> np.ndarray:
    """A scale for priors without a variance, from quantiles.

    Half the distance of those that a normal has one sd from its median.
    """
    draws = np.asarray(prior.ravel(prior.sample(key=jax.random.key(0), n=_DRAWS)))
    return 0.5 * np.subtract(*np.percentile(draws, [84.13, 15.87], axis=0))


def _bounds(prior: "Prior", constraint: Any) -> list[Any]:
    """One torch constraint per element of theta."""
    ends = [np.stack(leaf.bounds()).reshape(2, -1) for leaf in prior._leaves.values()]
    return [_interval(low, high, constraint) for low, high in np.concatenate(ends, axis=1).T.tolist()]


def _interval(low: float, high: float, constraint: Any) -> Any:
    if np.isfinite(low) and np.isfinite(high):
        return constraint.interval(low, high)
    if np.isfinite(low):
        return constraint.greater_than_eq(low)
    return constraint.less_than(high) if np.isfinite(high) else constraint.real
