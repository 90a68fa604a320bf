"""Lyapunov exponents of a simulator."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer.monitors.base import steps_in
from vbinfer.network.delays import History
from vbinfer.simulation import Simulator
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import initial_history
from vbinfer.simulation.stepper import StepperCarry, stepper

_EVERY = 10
"""Steps between two orthogonalisations."""
_BATCHES = 20
"""Pieces of a run whose means give the standard error."""


@dataclasses.dataclass(frozen=True, eq=False)
class Exponents:
    """Lyapunov exponents, largest first.

    Attributes:
        values: `[k]`, 1/ms.
        se: `[k]`, standard errors from the means of 20 pieces of the run.
    """

    values: np.ndarray
    se: np.ndarray


def lyapunov(
    sim: Simulator,
    *,
    t1: float,
    key: Array | None = None,
    k: int = 1,
    transient: float | None = None,
    init: Any = None,
) -> Exponents:
    """Growth rates of small differences along a run.

    k differences follow the derivative of each step of the simulator (Benettin et al. 1980, doi:10.1007/BF02128236); a
    QR decomposition keeps them apart, and the logarithms of the diagonal of R add up to the exponents. With delays a
    difference is one of the state and of all that is under way. With noise both runs have the same: a negative first
    exponent then means that they forget where they began. They are exponents of the steps, not of the equation: those
    of a coarse dt differ by the error of the integrator.

    Args:
        sim: a simulator of a model without jumps.
        t1: duration, transient included, ms.
        key: a JAX key, for noise.
        k: number of exponents.
        transient: what is left out at the beginning, ms; None is a tenth of t1.
        init: initial state, as for `vb.simulate`.

    Raises:
        ValueError: a model that jumps, more exponents than directions, no key where there is noise.

    Example:
        >>> import vbinfer as vb
        >>> chain = vb.Connectome([[0.0, 0.0], [1.0, 0.0]])
        >>> sim = vb.Simulator(vb.models.Linear(gamma=[-0.5, -0.2]), chain, coupling=vb.coupling.Linear(G=1.0),
        ...                    integrator=vb.Heun(dt=0.1))
        >>> vb.lyapunov(sim, t1=500.0, k=2).values.round(3).tolist()
        [-0.2, -0.5]
    """
    _check.of_kind(sim, "sim", Simulator, "vb.Simulator(...)")
    if sim.sends_spikes:
        raise ValueError(
            f"{type(sim.model).__name__} jumps when it spikes, where a step has no derivative; exponents need a smooth "
            "model, such as the mean field vb.models.MontbrioPazoRoxin"
        )
    k, n_steps = _check.count(k, "k", 3), steps_in(t1, sim.dt, "t1")
    given = 0.1 * t1 if transient is None else _check.number(transient, "transient", 0.1 * t1, least=0.0)
    every = max(1, min(_EVERY, n_steps // (5 * _BATCHES)))
    n, left_out = n_steps // every, -(-round(given / sim.dt) // every)
    if n - left_out < _BATCHES:
        raise ValueError(
            f"{t1:g} ms with a transient of {given:g} ms leave {max(0, n - left_out)} pieces of {every} steps; "
            f"expected {_BATCHES} or more: simulate longer"
        )
    history = initial_history(sim, init)
    directions = sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda h: _parts(_begin(sim, h, key)), history))
    )
    if k > directions:
        raise ValueError(f"k={k} exponents were asked for; this simulator has {directions} directions")
    logs = np.asarray(_logs(sim, history, key, k, n, every), np.float64)[left_out:] / (every * sim.dt)
    means = np.stack([part.mean(axis=0) for part in np.array_split(logs, _BATCHES)])
    order = np.argsort(-logs.mean(axis=0))
    return Exponents(logs.mean(axis=0)[order], (means.std(axis=0, ddof=1) / np.sqrt(_BATCHES))[order])


def _begin(sim: Simulator, history: Any, key: Array | None) -> StepperCarry:
    return stepper(sim)[0](key, History(history))


def _parts(carry: StepperCarry) -> Any:
    """What differs: the state and what is under way.

    Not the noise, which is the same.
    """
    return carry.carry.x, carry.carry.buffers


def _with(carry: StepperCarry, parts: Any) -> StepperCarry:
    return eqx.tree_at(lambda c: c.carry, carry, carry.carry._replace(x=parts[0], buffers=parts[1]))


@Compiled
def _logs(sim: Simulator, history: Any, key: Array | None, k: int, n: int, every: int) -> Array:
    """Logarithms of the stretching between QR decompositions, `[n, k]`."""
    begin, (_, step) = _begin(sim, history, key), stepper(sim)
    leaves, tree = jax.tree.flatten(_parts(begin))
    ends = np.cumsum([leaf.size for leaf in leaves])

    def unflat(v: Array) -> Any:
        pieces = jnp.split(v, ends[:-1])
        return jax.tree.unflatten(tree, [p.reshape(a.shape) for p, a in zip(pieces, leaves, strict=True)])

    def piece(loop: tuple[StepperCarry, Array], _: None) -> tuple[tuple[StepperCarry, Array], Array]:
        carry, q = loop

        def flow(parts: Any) -> tuple[Any, StepperCarry]:
            last = jax.lax.scan(lambda c, _: (step(c), None), _with(carry, parts), length=every)[0]
            return _parts(last), last

        def moved(direction: Array) -> tuple[StepperCarry, Array]:
            _, v, last = jax.jvp(flow, (_parts(carry),), (unflat(direction),), has_aux=True)
            return last, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(v)])

        # the run itself is the same for all directions, and computed once
        carry, v = jax.vmap(moved, out_axes=(None, 0))(q)
        q, r = jnp.linalg.qr(v.T)
        return (carry, q.T), jnp.log(jnp.abs(jnp.diagonal(r)))

    # any k directions will do, but none that is special
    start = np.linalg.qr(np.random.default_rng(0).normal(size=(int(ends[-1]), k)))[0].T
    return jax.lax.scan(piece, (begin, jnp.asarray(start, leaves[0].dtype)), length=n)[1]
