"""A prior as a torch distribution over flat theta."""

from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from vbinfer.priors.prior import Prior

_DRAWS = 10_000


def torch_prior(prior: "Prior") -> Any:
    """Torch view of a prior, float32.

    `sample(shape) -> [*shape, D]`, `log_prob([..., D]) -> [...]`: what the sbi package needs. Keys and compiled
    functions are made inside the methods: sbi copies and walks what a distribution holds. The key comes from torch's
    generator, so `torch.manual_seed` decides the draws. Not differentiable by torch.
    """
    import torch
    from torch.distributions import constraints as constraint

    class TorchPrior(torch.distributions.Distribution):
        """Named numpyro distributions behind torch's interface."""

        arg_constraints: ClassVar[dict[str, Any]] = {}

        def __init__(self) -> None:
            super().__init__(torch.Size(()), torch.Size((prior.dim,)), validate_args=False)

        @property
        def support(self) -> Any:
            return constraint.cat(_bounds(prior, constraint), dim=-1, lengths=[1] * prior.dim)

        @property
        def mean(self) -> Any:
            return _to_torch(_flat(prior, prior.mean()))

        @property
        def variance(self) -> Any:
            known = _flat(prior, prior.variance())
            return _to_torch(np.where(np.isnan(known), _middle_spread(prior) ** 2, known))

        def sample(self, sample_shape: Any = ()) -> Any:
            shape = tuple(sample_shape)
            seed = int(torch.randint(2**31 - 1, ()).item())
            theta = prior.sample(key=jax.random.key(seed), n=int(np.prod(shape, dtype=int)))
            return _to_torch(prior.ravel(theta)).reshape(*shape, prior.dim)

        def log_prob(self, value: Any) -> Any:
            flat = jnp.asarray(value.detach().cpu().numpy())
            return _to_torch(prior.log_prob(prior.unravel(flat))).to(value.device)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if tuple(batch_shape) != ():
                raise NotImplementedError("a prior is one distribution over theta and has no batch; use sample((n,))")
            return self

    return TorchPrior()


def _to_torch(array: Any) -> Any:
    import torch

    return torch.tensor(np.array(array, dtype=np.float32))


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
