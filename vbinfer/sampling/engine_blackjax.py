"""NUTS and HMC on blackjax's kernels: its window adaptation, then its steps in our loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.sampling.chains import Chain, Sample
from vbinfer.sampling.nuts import MOST_STEPS

Potential = Callable[[Array], Array]


class Carry(NamedTuple):
    """What a chain carries: the kernel's state, its tuned options and its key."""

    state: Any
    step_size: Array
    inverse_mass_matrix: Array
    key: PRNGKey


class _Algorithm(NamedTuple):
    """What blackjax's adaptation asks of an algorithm."""

    init: Callable[..., Any]
    build_kernel: Callable[..., Any]


def nuts(
    potential: Potential, num_warmup: int, *, target_accept: float, dense_mass: bool, max_tree_depth: int
) -> Chain:
    """A chain of blackjax's NUTS."""
    import blackjax

    def build_kernel(*arguments: Any) -> Callable[..., Any]:
        kernel = blackjax.nuts.build_kernel(*arguments)

        def step(key: PRNGKey, state: Any, log_density: Any, step_size: Array, inverse_mass_matrix: Array) -> Any:
            return kernel(key, state, log_density, step_size, inverse_mass_matrix, max_num_doublings=max_tree_depth)

        return step

    return _chain(potential, num_warmup, _Algorithm(blackjax.nuts.init, build_kernel), target_accept, dense_mass)


def hmc(
    potential: Potential,
    num_warmup: int,
    *,
    target_accept: float,
    dense_mass: bool,
    num_steps: int | None,
    length: float | None,
) -> Chain:
    """A chain of blackjax's HMC, of `num_steps` or of one trajectory length."""
    import blackjax

    def build_kernel(*arguments: Any) -> Callable[..., Any]:
        kernel = blackjax.hmc.build_kernel(*arguments)

        def step(key: PRNGKey, state: Any, log_density: Any, step_size: Array, inverse_mass_matrix: Array) -> Any:
            count: Any = num_steps
            if length is not None:  # as numpyro does: the length stays what was asked for, the step shrinks to fit
                count = jnp.clip(jnp.ceil(length / step_size), 1.0, MOST_STEPS).astype(int)
                step_size = jnp.minimum(step_size, length / count)
            return kernel(key, state, log_density, step_size, inverse_mass_matrix, num_integration_steps=count)

        return step

    return _chain(potential, num_warmup, _Algorithm(blackjax.hmc.init, build_kernel), target_accept, dense_mass)


def _chain(
    potential: Potential, num_warmup: int, algorithm: _Algorithm, target_accept: float, dense_mass: bool
) -> Chain:
    import blackjax
    from blackjax.mcmc.integrators import velocity_verlet

    def log_density(z: Array) -> Array:
        return -potential(z)

    kernel = algorithm.build_kernel(velocity_verlet)

    def start(z: Array, key: PRNGKey) -> Carry:
        inverse_mass_matrix = jnp.eye(z.size) if dense_mass else jnp.ones(z.size)
        return Carry(algorithm.init(z, log_density), jnp.asarray(1.0), inverse_mass_matrix, key)

    def adapt(carry: Carry) -> Carry:
        warmup = blackjax.window_adaptation(
            algorithm,
            log_density,
            is_mass_matrix_diagonal=not dense_mass,
            target_acceptance_rate=target_accept,
            adaptation_info_fn=lambda *_: None,  # its default keeps every tree of the warm-up
        )
        run: Any = warmup.run  # its declared type lacks the number of steps
        key, k_adapt = jax.random.split(carry.key)
        (state, tuned), _ = run(k_adapt, carry.state.position, num_warmup)
        return Carry(state, tuned["step_size"], tuned["inverse_mass_matrix"], key)

    def step(carry: Carry) -> tuple[Carry, Sample]:
        key, k_step = jax.random.split(carry.key)
        state, info = kernel(k_step, carry.state, log_density, carry.step_size, carry.inverse_mass_matrix)
        stats = {
            "diverging": info.is_divergent,
            "accept_prob": info.acceptance_rate,
            "num_steps": jnp.asarray(info.num_integration_steps),
            "energy": info.energy,
            "step_size": carry.step_size,
        }
        return carry._replace(state=state, key=key), Sample(state.position, -state.logdensity, stats)

    return Chain(start, adapt, step)
