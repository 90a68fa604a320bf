"""Drift of a network, and its Jacobian with delays."""

import math
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import bind
from vbinfer.execute.processes import enable_x64
from vbinfer.integrators import Heun
from vbinfer.models.base import AbstractStepper
from vbinfer.models.kuramoto import Kuramoto
from vbinfer.network.arrival import ConnectivityOps
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.step import Line, equations, outgoing, prepared

Tree = TypeVar("Tree")


class Jacobian(NamedTuple):
    """Linear part of a drift with delays.

    dx/dt = local x + sum_p receive_p (weights_p applied to send_p x(t - lags_p))

    A(s) = local + sum_p receive_p (weights_p * exp(-s lags_p)) send_p acts on solutions exp(s t): any number of
    different lags costs no more than one. p counts rows that are sent, n states, S nodes or regions that are coupled.
    """

    local: Any
    """`[n, n]`: of the drift by the state, input held."""
    receive: Any
    """`[p, n, S]`: of the drift by the input of each node."""
    send: Any
    """`[p, S, n]`: of what is sent by the state."""
    weights: Any
    """`[p, S, S]`."""
    lags: Any
    """`[p, S, S]`, ms; None where nothing is delayed."""

    def at(self, s: Any) -> Any:
        """A(s), `[n, n]`; s in 1/ms, complex."""
        weights = self.weights if self.lags is None else self.weights * jnp.exp(-s * self.lags)
        return self.local + (self.receive @ weights @ self.send).sum(axis=0)

    def whole(self) -> Any:
        """A(0), `[n, n]`: the Jacobian of the drift without delays."""
        return self.local + (self.receive @ self.weights @ self.send).sum(axis=0)


class Drift(eqx.Module):
    """Drift of a simulator over flat states `[n]`.

    State variables follow each other in order. Time and stimulus stand at 0 and noise is left out.
    """

    sim: Simulator

    def state(self, flat: Array) -> Any:
        """The State of a flat state `[n]`."""
        shapes = [like.shape for like in self.sim.state_shapes().values()]
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        return self.sim.model.State(*(a.reshape(s) for a, s in zip(jnp.split(flat, ends), shapes, strict=True)))

    def sent(self, flat: Array) -> Array:
        """What nodes send, `[p, S]`."""
        sim, x = self.sim, self.state(flat)
        rows = [row for projection in sim.projections() for row in outgoing(sim, projection, x)]
        shape = (len(rows), sim.n_sources)
        return jnp.stack([jnp.broadcast_to(row, shape[1:]) for row in rows]) if rows else jnp.zeros(shape)

    def of_input(self, flat: Array, arriving: Array) -> Array:
        """dx/dt `[n]` given the sums that arrive, `[p, S]`."""
        sim, x = self.sim, self.state(flat)
        lines, ends, row = [], [], 0
        for p, rows in zip(sim.projections(), self._rows(), strict=True):
            # nothing comes at once: what arrives is given, at the start of the step and at its end
            ops = ConnectivityOps(jnp.zeros_like, None, p.connectome.layout.strength(p.connectome.weights))
            lines.append(Line(p, ops, 0, 0, 0))
            ends.append((tuple(arriving[row : row + rows]),) * 2)
            row += rows
        step = jnp.zeros((), jnp.int32)
        system = equations(sim, step, x, tuple(lines), tuple(ends))
        return flat_of(system.drift(0.0, x, system.couple(0.0, x)), x)

    def __call__(self, flat: Array) -> Array:
        """dx/dt `[n]` where the past is the same state."""
        return self.of_input(flat, jnp.einsum("pij,pj->pi", self._weights(), self.sent(flat)))

    def jacobian(self, flat: Array) -> Jacobian:
        """The linear part at a state."""
        sent, send = self.sent(flat), jax.jacfwd(self.sent)(flat)
        weights = self._weights()
        local, receive = jax.jacfwd(self.of_input, (0, 1))(flat, jnp.einsum("pij,pj->pi", weights, sent))
        return Jacobian(local, jnp.moveaxis(receive, 1, 0), send, weights, self._lags())

    def distance(self, flat: Array) -> Array:
        """How far a state is from an admissible one."""
        x = self.state(flat)
        return jnp.abs(flat_of(self.sim.model.project(x), x) - flat).max()

    def _rows(self) -> list[int]:
        """How many rows each projection sends."""
        sim = self.sim
        x = sim.model.State(**sim.state_shapes())
        return [len(jax.eval_shape(lambda x, p=p: outgoing(sim, p, x), x)) for p in sim.projections()]

    def _weights(self) -> Array:
        each = zip(self.sim.projections(), self._rows(), strict=True)
        return self._stacked([_dense(p.connectome.layout, p.connectome.weights) for p, n in each for _ in range(n)])

    def _lags(self) -> Array | None:
        if self.sim.delays is None:
            return None
        lags = []
        for p, rows in zip(self.sim.projections(), self._rows(), strict=True):
            layout, lengths = p.connectome.layout, p.connectome.tract_lengths
            # the length of a connection that does not exist may be anything
            present = jnp.where(p.connectome.weights != 0.0, lengths / p.connectome.speed, 0.0)
            lags += [_dense(layout, present if p.delays else jnp.zeros_like(present))] * rows
        return self._stacked(lags)

    def _stacked(self, matrices: list[Array]) -> Array:
        return jnp.stack(matrices) if matrices else jnp.zeros((0, self.sim.n_sources, self.sim.n_sources))


def _dense(layout: Any, values: Array) -> Array:
    """`[S, S]` of a value for each connection."""
    if values.ndim == 2:
        return values
    return jnp.zeros((layout.n_nodes, layout.n_nodes), values.dtype).at[tuple(layout.edges)].add(values)


def flat_of(x: Any, like: Any) -> Array:
    """A State as `[n]`; leaves broadcast to those of `like`."""
    return jnp.concatenate([jnp.broadcast_to(a, b.shape).ravel() for a, b in zip(x, like, strict=True)])


def drift_of(sim: Simulator) -> Drift:
    """The drift of a simulator, in a program."""
    # the half flows of Split stand for the local term; here the drift has it
    return Drift(prepared(eqx.tree_at(lambda s: s.integrator, sim, Heun(dt=sim.dt))))


def checked(sim: Any, what: str) -> Simulator:
    """The simulator, where it has a smooth drift.

    Raises:
        TypeError: no simulator.
        ValueError: a model with a step of its own, or of phases.
    """
    sim = _check.of_kind(sim, what, Simulator, f"vb.{what}(vb.Simulator(...))")
    name = type(sim.model).__name__
    if isinstance(sim.model, AbstractStepper):
        raise ValueError(
            f"{name} brings its own step and has no smooth drift, which {what} needs; simulate it, or take a model "
            "with a drift, such as vb.models.MontbrioPazoRoxin()"
        )
    phases = lambda part: isinstance(part, Kuramoto)  # noqa: E731
    if any(phases(part) for part in jax.tree.leaves(sim.model, is_leaf=phases)):
        raise ValueError(
            f"the phases of {name} advance for ever, and wrapping them is not smooth, so that {what} has no fixed "
            "point to work at; take vb.models.SupHopf(), whose oscillations begin at one"
        )
    return sim


def precise(tree: Tree) -> Tree:
    """The tree with floating-point arrays of 64 bits."""
    return jax.tree.map(lambda a: jnp.asarray(a, float) if eqx.is_inexact_array(a) else a, tree)


def bound(sim: Simulator, theta: Any) -> Simulator:
    """The simulator with parameters of theta.

    In the precision of the context.
    """
    if theta is None:
        return sim
    if not hasattr(theta, "items"):
        raise TypeError(f'theta is a {type(theta).__name__}; expected path to value, as {{"coupling.G": 0.5}}')
    return bind(sim, theta)


def x64() -> Any:
    """The context of results that are NumPy's."""
    return enable_x64(True)
