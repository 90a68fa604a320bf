"""blackjax's NUTS and HMC: window adaptation, then steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.sampling.chains import MOST_STEPS, Chain, Sample, Trajectories
from vbinfer.sampling.problem import Problem


class TunedState(NamedTuple):
    """A kernel's state, its tuned options and the key."""

    state: Any
    step_size: Array
    inverse_mass_matrix: Array
    key: PRNGKey


class _Algorithm(NamedTuple):
    """What blackjax's adaptation asks of an algorithm."""

    init: Callable[..., Any]
    build_kernel: Callable[..., Any]


def _builder(options: Trajectories) -> Callable[..., Any]:
    """The algorithm's `build_kernel`, its length or depth bound."""
    import blackjax

    def build_kernel(*arguments: Any) -> Callable[..., Any]:
        nuts = options.max_tree_depth is not None
        kernel: Any = (blackjax.nuts if nuts else blackjax.hmc).build_kernel(*arguments)

        # window adaptation hands over step size and mass matrix alone: what bounds a trajectory is closed over here
        def step(key: PRNGKey, state: Any, log_density: Any, step_size: Array, inverse_mass_matrix: Array) -> Any:
            if nuts:
                bound: dict[str, Any] = {"max_num_doublings": options.max_tree_depth}
            elif options.length is None:
                bound = {"num_integration_steps": options.num_steps}
            else:  # as numpyro does: the length stays what was asked for, the step shrinks to fit
                count = jnp.clip(jnp.ceil(options.length / step_size), 1.0, MOST_STEPS).astype(int)
                step_size = jnp.minimum(step_size, options.length / count)
                bound = {"num_integration_steps": count}
            return kernel(key, state, log_density, step_size, inverse_mass_matrix, **bound)

        return step

    return build_kernel


def chain(problem: Problem, num_warmup: int, options: Trajectories) -> Chain:
    """A chain of blackjax's kernel."""
    import blackjax
    from blackjax.mcmc.integrators import velocity_verlet

    init = blackjax.hmc.init if options.max_tree_depth is None else blackjax.nuts.init
    algorithm = _Algorithm(init, _builder(options))
    kernel = algorithm.build_kernel(velocity_verlet)

    def log_density(z: Array) -> Array:
        return -problem.potential(z)

    def start(z: Array, key: PRNGKey) -> TunedState:
        inverse_mass_matrix = jnp.eye(z.size) if options.dense_mass else jnp.ones(z.size)
        # step size and mass matrix stand in until `adapt` has found them
        return TunedState(init(z, log_density), jnp.asarray(1.0), inverse_mass_matrix, key)

    def adapt(carry: TunedState) -> TunedState:
        warmup: Any = blackjax.window_adaptation(
            algorithm,
            log_density,
            is_mass_matrix_diagonal=not options.dense_mass,
            target_acceptance_rate=options.target_accept,
            adaptation_info_fn=lambda *_: None,  # its default keeps every tree of the warm-up
        )
        key, k_adapt = jax.random.split(carry.key)
        (state, tuned), _ = warmup.run(k_adapt, carry.state.position, num_warmup)
        return TunedState(state, tuned["step_size"], tuned["inverse_mass_matrix"], key)

    def step(carry: TunedState) -> tuple[TunedState, Sample]:
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
