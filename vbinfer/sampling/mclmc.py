"""Microcanonical Langevin Monte Carlo, on blackjax's kernel and tuner."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.sampling.chains import AbstractChainKernel, Chain
from vbinfer.sampling.problem import Problem, Sample

_SHARE = 0.3
"""Of the warm-up: for the step size, for the mass matrix, for L each; a third of it again for the step size anew."""


class MicrocanonicalState(NamedTuple):
    """Place, direction and gradient, tuned options, and key."""

    state: Any
    L: Array
    step_size: Array
    inverse_mass_matrix: Array
    key: PRNGKey


@dataclasses.dataclass(frozen=True)
class MCLMC(AbstractChainKernel):
    """Microcanonical Langevin Monte Carlo (Robnik et al. 2023, JMLR 24:311).

    dz = M^-1/2 u dt;  du = P(u) (-M^-1/2 grad U(z) / (D - 1)) dt + eta P(u) dW,  |u| = 1,  P(u) = I - u u'

    The speed is constant and the direction u forgets itself over the length L. Each step is one update of the
    McLachlan integrator, with two gradients, without a Metropolis step. Nothing is rejected, so a trajectory costs
    far fewer gradients than one of NUTS in many dimensions; the price is a bias that grows with the step size.
    `energy_variance` is its knob: warm-up finds the step at which the variance of the energy error per step and
    dimension has this value (and L and a diagonal mass matrix). Halve it and look whether the answer moves, or
    compare with `vb.sampling.NUTS`.

    `sample_stats`: `diverging` (a step of the draw met a likelihood that is not finite, and was undone), `accept_prob`
    (1, nothing is rejected), `num_steps`, `step_size`, `energy_error` (its mean square per step and dimension).

    Args:
        energy_variance: variance of the energy error per step and dimension that the step size is tuned to.
        steps_per_draw: steps between two draws, in warm-up too.

    Raises:
        ValueError: an option outside its range; in `chain`, a single parameter (there is no direction to turn to), or a
            step size that collapsed in warm-up.
    """

    energy_variance: float = 5e-4
    steps_per_draw: int = 10

    def __post_init__(self) -> None:
        _check.positive(self.energy_variance, "energy_variance", 5e-4)
        _check.count(self.steps_per_draw, "steps_per_draw", 10)

    def chain(self, problem: Problem, num_warmup: int) -> Chain:
        if problem.prior.z_dim < 2:
            raise ValueError(
                f"MCLMC turns a direction in the space of parameters, and {problem.prior.names[0]!r} is the only one; "
                f"write kernel=vb.sampling.NUTS()"
            )
        return _chain(self, problem, num_warmup)


def _chain(options: MCLMC, problem: Problem, num_warmup: int) -> Chain:
    import blackjax

    kernel, log_density = blackjax.mclmc.build_kernel(), problem.log_density

    def start(z: Array, key: PRNGKey) -> MicrocanonicalState:
        key, k_direction = jax.random.split(key)
        # a typical radius of N(0, I) in D dimensions, and a quarter of it: where blackjax's tuner begins too
        length = jnp.sqrt(jnp.asarray(z.size, z.dtype))
        return MicrocanonicalState(
            blackjax.mclmc.init(z, log_density, k_direction), length, 0.25 * length, jnp.ones(z.size, z.dtype), key
        )

    def adapt(carry: MicrocanonicalState) -> MicrocanonicalState:
        key, k_adapt = jax.random.split(carry.key)
        tuned: Any
        state, tuned, _ = blackjax.mclmc_find_L_and_step_size(
            kernel,
            num_warmup * options.steps_per_draw,
            carry.state,
            k_adapt,
            logdensity_fn=log_density,
            frac_tune1=_SHARE,
            frac_tune2=_SHARE,
            frac_tune3=_SHARE,
            desired_energy_var=options.energy_variance,
        )
        return MicrocanonicalState(state, tuned.L, tuned.step_size, tuned.inverse_mass_matrix, key)

    def step(carry: MicrocanonicalState) -> tuple[MicrocanonicalState, Sample]:
        key, k_steps = jax.random.split(carry.key)

        def one(state: Any, key: PRNGKey) -> tuple[Any, tuple[Array, Array]]:
            state, info = kernel(key, state, log_density, carry.inverse_mass_matrix, carry.L, carry.step_size)
            return state, (info.energy_change, jnp.asarray(info.nonans))

        # a draw is the last of steps_per_draw steps: those between are neighbours and tell little
        state, (errors, finite) = jax.lax.scan(one, carry.state, jax.random.split(k_steps, options.steps_per_draw))
        stats = {
            "diverging": ~finite.all(),
            "accept_prob": jnp.ones(()),
            "num_steps": jnp.asarray(options.steps_per_draw),
            "step_size": carry.step_size,
            "energy_error": (errors**2).mean() / state.position.size,
        }
        return carry._replace(state=state, key=key), Sample(state.position, -state.logdensity, stats)

    return Chain(start, adapt, step, functools.partial(_check_tuned, num_warmup * options.steps_per_draw))


def _check_tuned(num_steps: int, state: Mapping[str, np.ndarray]) -> None:
    """Refuse chains whose steps collapsed in warm-up.

    All of it covered less than one length L.
    """
    step_size, length = state["step_size"], state["L"]
    with np.errstate(divide="ignore", invalid="ignore"):
        covered = step_size * num_steps / length
    bad = ~((covered > 1.0) & np.isfinite(covered) & np.isfinite(state["inverse_mass_matrix"]).all(axis=1))
    if bad.any():
        one = int(np.argmax(bad))
        raise ValueError(
            f"the step size of {int(bad.sum())} of {len(bad)} chains collapsed in warm-up (chain {one}: step "
            f"{step_size[one]:.2g}, L {length[one]:.2g}), as happens where the likelihood turns NaN next to where the "
            f"posterior is; narrow the prior to where it is finite, lengthen num_warmup, or write "
            f"kernel=vb.sampling.NUTS(), which counts such places as divergences"
        )
