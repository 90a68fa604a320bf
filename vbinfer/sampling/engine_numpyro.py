"""numpyro's NUTS and HMC; the first `num_warmup` steps adapt."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.sampling.chains import MOST_STEPS, Chain, Sample, Trajectories
from vbinfer.sampling.problem import Problem


def chain(problem: Problem, num_warmup: int, options: Trajectories) -> Chain:
    """A chain of numpyro's kernel."""
    from numpyro import infer

    common: dict[str, Any] = {
        "potential_fn": problem.potential,
        "target_accept_prob": options.target_accept,
        "dense_mass": options.dense_mass,
    }
    length = options.length
    if options.max_tree_depth is not None:
        kernel: Any = infer.NUTS(max_tree_depth=options.max_tree_depth, **common)
    else:
        lengths: dict[str, Any] = {"num_steps": options.num_steps, "trajectory_length": length}  # one of them is None
        kernel = infer.HMC(**lengths, **common)

    def start(z: Array, key: PRNGKey) -> Any:
        return kernel.init(key, num_warmup, z)

    def step(state: Any) -> tuple[Any, Sample]:
        # numpyro's kernel sets its schedule of adaptation in `init`, on itself; this program may not have called it
        jax.eval_shape(start, state.z, state.rng_key)
        if length is not None:  # a step size that fell to nothing must not make a trajectory without end
            state = state._replace(trajectory_length=jnp.minimum(length, MOST_STEPS * state.adapt_state.step_size))
        # the state counts its steps: up to num_warmup of them adapt, without a word from here
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
