"""NUTS and HMC, each on one of two engines."""

import dataclasses
import math
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.sampling.chains import AbstractChainKernel, Chain
from vbinfer.sampling.problem import Problem, Sample

MOST_STEPS = 2**10 - 1
"""Leapfrog steps in a trajectory of HMC, however small its steps; as many as in a tree of depth 10."""


@dataclasses.dataclass(frozen=True)
class NUTS(AbstractChainKernel):
    """The No-U-Turn sampler (Hoffman & Gelman 2014, JMLR 15).

    H(z, p) = U(z) + p' M^-1 p / 2; leapfrog steps of size eps double the trajectory until it turns back, and a point of
    it is drawn in proportion to exp(-H) (multinomial, Betancourt 2017, doi:10.48550/arXiv.1701.02434). Warm-up adapts
    eps by dual averaging and M^-1 to the covariance of z in growing windows. Blind to modes that no chain reaches: look
    at `vb.diagnostics.rhat`.

    Args:
        engine: whose implementation runs, `"numpyro"` or `"blackjax"`; the same algorithm, with other random numbers.
        target_accept: mean acceptance that the step size is adapted to; raise it towards 0.99 against divergences.
        max_tree_depth: a trajectory has at most 2^max_tree_depth - 1 steps.
        dense_mass: adapt a full mass matrix instead of a diagonal one, for correlated posteriors.

    Raises:
        ValueError: an option outside its range.
    """

    engine: str = "numpyro"
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False

    def __post_init__(self) -> None:
        _check.one_of(self.engine, "engine", _ENGINES)
        _check.fraction(self.target_accept, "target_accept", 0.8)
        _check.count(self.max_tree_depth, "max_tree_depth", 10)

    def chain(self, problem: Problem, num_warmup: int) -> Chain:
        return _ENGINES[self.engine](self, problem, num_warmup)


@dataclasses.dataclass(frozen=True)
class HMC(AbstractChainKernel):
    """Hamiltonian Monte Carlo with trajectories of one length.

    (Duane et al. 1987, doi:10.1016/0370-2693(87)91197-X.) L leapfrog steps of size eps, accepted with probability
    min(1, exp(H(z, p) - H(z', p'))). Cheaper per draw than NUTS where one length suits the whole posterior, and no
    chain waits for another's longer tree. The default length is pi / 2, a quarter turn: with the mass matrix
    adapted, a draw of a Gaussian posterior is then independent of the one before, where a full turn, 2 pi, would
    come back to it. A fixed `num_steps` leaves the angle to the adapted step: near pi (four steps at the default
    acceptance) draws flip sides and the spread is explored slowly (measured on a Gaussian in three dimensions,
    1,000 draws: R-hat 1.07).

    Args:
        engine: whose implementation runs, `"numpyro"` or `"blackjax"`.
        num_steps: leapfrog steps of every trajectory; give this or `trajectory_length`.
        trajectory_length: eps times the number of steps, which then follows the adapted eps, up to 1,023 steps.
        target_accept: mean acceptance that the step size is adapted to.
        dense_mass: adapt a full mass matrix instead of a diagonal one.

    Raises:
        ValueError: an option outside its range, or both lengths.
    """

    engine: str = "numpyro"
    num_steps: int | None = None
    trajectory_length: float | None = None
    target_accept: float = 0.8
    dense_mass: bool = False

    def __post_init__(self) -> None:
        _check.one_of(self.engine, "engine", _ENGINES)
        _check.fraction(self.target_accept, "target_accept", 0.8)
        if self.num_steps is not None and self.trajectory_length is not None:
            raise ValueError(
                f"HMC was given num_steps={self.num_steps} and trajectory_length={self.trajectory_length}; "
                f"give one of them: the adapted step size says the other"
            )
        if self.num_steps is not None:
            _check.count(self.num_steps, "num_steps", 10)
        if self.trajectory_length is not None:
            _check.positive(self.trajectory_length, "trajectory_length", 1.57)

    @property
    def length(self) -> float | None:
        """Trajectory length; None where the number of steps is fixed."""
        return None if self.num_steps else self.trajectory_length or math.pi / 2

    def chain(self, problem: Problem, num_warmup: int) -> Chain:
        return _ENGINES[self.engine](self, problem, num_warmup)


def _numpyro_chain(options: NUTS | HMC, problem: Problem, num_warmup: int) -> Chain:
    """numpyro's kernel; the first `num_warmup` steps adapt."""
    from numpyro import infer

    common: dict[str, Any] = {
        "potential_fn": problem.potential,
        "target_accept_prob": options.target_accept,
        "dense_mass": options.dense_mass,
    }
    if isinstance(options, NUTS):
        length, kernel = None, infer.NUTS(max_tree_depth=options.max_tree_depth, **common)
    else:
        length: Any = options.length
        kernel = infer.HMC(num_steps=options.num_steps, trajectory_length=length, **common)

    # What numpyro computes beside the chain is left out, so that it is not compiled: a first momentum, for an energy
    # that nobody reads, and keys for a search of step sizes that is off.
    def start(z: Array, key: PRNGKey) -> Any:
        state = kernel.init(key, num_warmup, z)
        return state._replace(energy=state.potential_energy, adapt_state=state.adapt_state._replace(rng_key=key))

    def step(state: Any) -> tuple[Any, Sample]:
        # numpyro's kernel sets its schedule of adaptation in `init`, on itself; this program may not have called it
        jax.eval_shape(start, state.z, state.rng_key)
        if length is not None:  # a step size that fell to nothing must not make a trajectory without end
            state = state._replace(trajectory_length=jnp.minimum(length, MOST_STEPS * state.adapt_state.step_size))
        # the state counts its steps: up to num_warmup of them adapt, without a word from here
        after = kernel.sample(state, (), {})
        stats = {name: getattr(after, name) for name in ("diverging", "accept_prob", "num_steps", "energy")}
        stats["step_size"] = after.adapt_state.step_size
        adapted = after.adapt_state._replace(rng_key=state.adapt_state.rng_key)
        return after._replace(adapt_state=adapted), Sample(after.z, after.potential_energy, stats)

    return Chain(start, None, step)


class TunedState(NamedTuple):
    """A kernel's state, its tuned options and the key."""

    state: Any
    step_size: Array
    inverse_mass_matrix: Array
    key: PRNGKey


def _blackjax_chain(options: NUTS | HMC, problem: Problem, num_warmup: int) -> Chain:
    """blackjax's kernel: window adaptation, then steps."""
    import blackjax

    method: Any = blackjax.nuts if isinstance(options, NUTS) else blackjax.hmc
    kernel, log_density = method.build_kernel(), problem.log_density

    # window adaptation hands over step size and mass matrix alone: what bounds a trajectory is closed over here
    def move(key: PRNGKey, state: Any, log_density: Any, step_size: Array, inverse_mass_matrix: Array) -> Any:
        if isinstance(options, NUTS):
            bound: dict[str, Any] = {"max_num_doublings": options.max_tree_depth}
        elif options.length is None:
            bound = {"num_integration_steps": options.num_steps}
        else:  # as numpyro does: the length stays what was asked for, the step shrinks to fit
            count = jnp.clip(jnp.ceil(options.length / step_size), 1.0, MOST_STEPS).astype(int)
            step_size = jnp.minimum(step_size, options.length / count)
            bound = {"num_integration_steps": count}
        return kernel(key, state, log_density, step_size, inverse_mass_matrix, **bound)

    def start(z: Array, key: PRNGKey) -> TunedState:
        # step size and mass matrix stand in until `adapt` has found them
        mass = jnp.eye(z.size) if options.dense_mass else jnp.ones(z.size)
        return TunedState(method.init(z, log_density), jnp.asarray(1.0), mass, key)

    def adapt(carry: TunedState) -> TunedState:
        warmup: Any = blackjax.window_adaptation(
            types.SimpleNamespace(init=method.init, build_kernel=lambda *_: move),
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
        state, info = move(k_step, carry.state, log_density, carry.step_size, carry.inverse_mass_matrix)
        stats = {
            "diverging": info.is_divergent,
            "accept_prob": info.acceptance_rate,
            "num_steps": jnp.asarray(info.num_integration_steps),
            "energy": info.energy,
            "step_size": carry.step_size,
        }
        return carry._replace(state=state, key=key), Sample(state.position, -state.logdensity, stats)

    return Chain(start, adapt, step)


_ENGINES = {"numpyro": _numpyro_chain, "blackjax": _blackjax_chain}
