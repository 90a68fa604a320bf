"""NUTS and HMC on numpyro's kernels, stepped by our loop: the first `num_warmup` steps adapt by themselves."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.sampling.chains import Chain, Sample
from vbinfer.sampling.nuts import MOST_STEPS

Potential = Callable[[Array], Array]


def nuts(
    potential: Potential, num_warmup: int, *, target_accept: float, dense_mass: bool, max_tree_depth: int
) -> Chain:
    """A chain of numpyro's NUTS."""
    from numpyro import infer

    return _chain(
        infer.NUTS(
            potential_fn=potential,
            target_accept_prob=target_accept,
            max_tree_depth=max_tree_depth,
            dense_mass=dense_mass,
        ),
        num_warmup,
    )


def hmc(
    potential: Potential,
    num_warmup: int,
    *,
    target_accept: float,
    dense_mass: bool,
    num_steps: int | None,
    length: float | None,
) -> Chain:
    """A chain of numpyro's HMC, of `num_steps` or of one trajectory length."""
    from numpyro import infer

    return _chain(
        infer.HMC(
            potential_fn=potential,
            num_steps=num_steps,
            trajectory_length=length,  # pyright: ignore[reportArgumentType] None is what it takes with num_steps
            target_accept_prob=target_accept,
            dense_mass=dense_mass,
        ),
        num_warmup,
        length,
    )


def _chain(kernel: Any, num_warmup: int, length: float | None = None) -> Chain:
    def start(z: Array, key: PRNGKey) -> Any:
        return kernel.init(key, num_warmup, z)  # sets the kernel's schedule too, also when it is only traced

    def step(state: Any) -> tuple[Any, Sample]:
        if length is not None:  # a step size that fell to nothing must not make a trajectory without end
            state = state._replace(trajectory_length=jnp.minimum(length, MOST_STEPS * state.adapt_state.step_size))
        state = kernel.sample(state, (), {})
        stats = {
            "diverging": state.diverging,
            "accept_prob": state.accept_prob,
            "num_steps": state.num_steps,
            "energy": state.energy,
            "step_size": state.adapt_state.step_size,
        }
        return state, Sample(state.z, state.potential_energy, stats)

    return Chain(start, None, step)
