"""Fixed-step integrators: one step from drift, coupling and noise."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _ode
from vbinfer._check import milliseconds

Update = Callable[[Any, Any], Any]


class System(NamedTuple):
    """Equations of one step, as an integrator sees them.

    `stage` is the fraction of the step, 0 at its start and 1 at its end.
    """

    couple: Callable[[float, Any], Array]
    """(stage, state) to the coupling input c, `[C, N, ...]`."""
    drift: Callable[[float, Any, Array], Any]
    """(stage, state, c) to dx/dt."""
    project: Callable[[Any], Any]
    """The nearest admissible state."""
    update: Update | None = None
    """(state, dW) to the next state, of a model that brings its own step."""
    flow: Callable[[Any], Any] | None = None
    """State to the state after half a step of the local term of a field, alone."""


class AbstractIntegrator(eqx.Module):
    """Base of fixed-step integrators.

    `dt` is in ms and static: a new dt is a new compilation.
    """

    dt: float = eqx.field(static=True, converter=lambda dt: milliseconds(dt, "dt", "Heun(dt=0.1)"))
    order: eqx.AbstractClassVar[int | None]
    """p of an error that falls as dt^p without noise, coupling and stimulus included; None is the model's own."""
    calculus: ClassVar[Literal["ito", "stratonovich"]] = "ito"
    """The limit for small dt where an amplitude depends on the state.

    Every scheme here is given one increment per step, with amplitudes from the start of the step, and therefore
    converges to the Itô solution: strong order 1 with additive noise, 1/2 with multiplicative noise. A Stratonovich
    model is written with its drift g g'/2 added.
    """

    @abc.abstractmethod
    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        """The state one step on.

        `dW` is the noise increment of this step, None where nothing is random.
        """


def _field(system: System, x: Any, frozen: bool = False) -> _ode.Field:
    """The drift at a stage.

    The coupling is that of the stage or, frozen, that of x.
    """
    if not frozen:
        return lambda stage, x: system.drift(stage, x, system.couple(stage, x))
    c = system.couple(0.0, x)
    return lambda stage, x: system.drift(stage, x, c)


class Euler(AbstractIntegrator):
    """Euler-Maruyama.

    x' = project(x + dt f(t, x) + dW)

    Order 1; with additive noise strong order 1. The stationary variance of dx = -x/T dt + dW is off by a factor
    1/(1 - dt/2T).
    """

    order: ClassVar[int] = 1

    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        return _ode.euler(_field(system, x), x, self.dt, dW, system.project)


class Heun(AbstractIntegrator):
    """Heun's method, the same noise in predictor and corrector.

    p = project(x + dt f(t, x) + dW);   x' = project(x + dt/2 (f(t, x) + f(t + dt, p)) + dW)

    Order 2 without noise; strong order 1 with additive noise, second order in the drift's contribution. The corrector
    reads what was sent at t + dt - lag.

    Args:
        dt: step, ms.
        frozen_coupling: evaluate the coupling once per step and use it in both stages, as TVB does. That gives exact
            parity with TVB and half the matrix products, but the scheme is then first order in dt as soon as nodes
            are coupled.
    """

    order: ClassVar[int] = 2
    """1 with `frozen_coupling` as soon as nodes are coupled."""
    frozen_coupling: bool = eqx.field(static=True, default=False)

    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        return _ode.heun(_field(system, x, self.frozen_coupling), x, self.dt, dW, system.project)


class RungeKutta4(AbstractIntegrator):
    """The classical Runge-Kutta scheme: order 4 without noise and delays.

    With delays, what arrives half-way through a step is the mean of what arrives at its ends, and the order is at most
    2. Noise is added once per step, after the drift (Itô), so that the stationary variance of dx = -x/T dt + dW is too
    large by a factor of about 1 + dt/T (Euler: 1 + dt/2T; Heun: 1 - dt^2/4T^2). With noise take Heun.

    Args:
        dt: step, ms.
        frozen_coupling: evaluate the coupling once per step and use it in all four stages, as TVB does: parity with it
            and a quarter of the matrix products, but order 1 as soon as nodes are coupled.
    """

    order: ClassVar[int] = 4
    """1 with `frozen_coupling` as soon as nodes are coupled."""
    frozen_coupling: bool = eqx.field(static=True, default=False)

    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        return _ode.rk4(_field(system, x, self.frozen_coupling), x, self.dt, dW, system.project)


class Rosenbrock(AbstractIntegrator):
    """A linearly implicit scheme for stiff models (ROS2).

    Second order, L-stable, without iterations (Verwer et al. 1999).

    (I - g dt A) k1 = f(t, x) + dW/dt;   (I - g dt A) k2 = f(t + dt, x + dt k1) + dW/dt - 2 k1;   g = 1 - 1/sqrt(2)
    x' = project(x + 3/2 dt k1 + 1/2 dt k2)

    A is the Jacobian of a node's own equations at (t, x), one V by V matrix for each node, with the coupling and the
    stimulus held; the coupling between nodes stays explicit (the order is 2 for any A), so it limits the step and fast
    local dynamics do not. A step costs V derivatives and a linear solve per node: worth it where the fastest rate of a
    node forces an explicit dt below the scale of interest.

    Fast means fast decay. Growth has to be resolved: (I - g dt A) is singular where a local rate is +3.41/dt, as in the
    jump of a relaxation oscillator. The same noise enters both stages (Itô; strong order 1 with additive noise): the
    stationary variance of dx = -x/T dt + dW is off by a factor of about 1 - dt^2/24T^2, by 2T/dt for dt far above T.

    doi:10.1137/S1064827597326651
    """

    order: ClassVar[int] = 2

    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        dt, gamma = self.dt, 1.0 - math.sqrt(0.5)
        # A is that of the node alone: coupling held, so that the system falls apart into V by V ones
        c = system.couple(0.0, x)
        solve = _local_solver(lambda y: system.drift(0.0, y, c), x, gamma * dt)
        # noise as a constant force: kicked after the drift, a fast variable would keep what it should have forgotten
        forced = lambda f: f if dW is None else jax.tree.map(lambda a, w: a + w / dt, f, dW)  # noqa: E731
        k1 = solve(forced(system.drift(0.0, x, c)))
        stage = system.project(jax.tree.map(lambda a, k: a + dt * k, x, k1))
        slope = forced(system.drift(1.0, stage, system.couple(1.0, stage)))
        k2 = solve(jax.tree.map(lambda f, k: f - 2.0 * k, slope, k1))
        return system.project(jax.tree.map(lambda a, p, q: a + dt * (1.5 * p + 0.5 * q), x, k1, k2))


def _local_solver(field: Callable[[Any], Any], x: Any, scale: float) -> Callable[[Any], Any]:
    """Solver of (I - scale J) k = b.

    Leaves are `[N, ...]`.

    J is the Jacobian of every node's own field, one V by V matrix for each node.
    """
    leaves, tree = jax.tree.flatten(x)
    unit = lambda k: jax.tree.unflatten(  # noqa: E731
        tree, [jnp.ones_like(a) if i == k else jnp.zeros_like(a) for i, a in enumerate(leaves)]
    )
    stacked = lambda state: jnp.stack(  # noqa: E731
        [jnp.broadcast_to(a, b.shape) for a, b in zip(jax.tree.leaves(state), leaves, strict=True)], axis=-1
    )
    # elementwise equations: one derivative along each state variable gives that column at every node
    columns = [stacked(jax.jvp(field, (x,), (unit(k),))[1]) for k in range(len(leaves))]
    jacobian = jnp.stack(columns, axis=-1)
    # I - scale J of every node, and of every draw of a batch: `[N, ..., V, V]`
    matrix = jnp.broadcast_to(jnp.eye(len(leaves), dtype=jacobian.dtype), jacobian.shape) - scale * jacobian

    def solve(b: Any) -> Any:
        k = jnp.linalg.solve(matrix, stacked(b)[..., None])[..., 0]
        return jax.tree.unflatten(tree, [k[..., i] for i in range(len(leaves))])

    return solve


class Split(AbstractIntegrator):
    """Strang splitting, for a field whose local term is stiff.

    x' = e^(strength K dt/2) Heun(dt) e^(strength K dt/2) x

    Diffusion along the surface is advanced exactly, so that no step is too long for it (Strang 1968,
    doi:10.1137/0705041); the rest of the drift, long-range coupling and noise by Heun's method. Order 2. The local term
    has to add to the rate of the variable that it reads, as it does in `Linear`; `Simulator` checks that.
    """

    order: ClassVar[int] = 2

    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        assert system.flow is not None
        return system.flow(_ode.heun(_field(system, x := system.flow(x)), x, self.dt, dW, system.project))


class AbstractOwnStep(AbstractIntegrator):
    """Base of integrators whose model takes its own step."""

    @abc.abstractmethod
    def prepared(self, model: Any) -> Any:
        """The model ready for steps of dt."""

    @abc.abstractmethod
    def check(self, model: Any) -> None:
        """Raise or warn where steps do not suit the model."""

    def step(self, system: System, x: Any, dW: Any | None) -> Any:
        assert system.update is not None
        return system.project(system.update(x, dW))


class Native(AbstractOwnStep):
    """The model's own step, of an `AbstractStepper`.

    For spikes, implicit cables, spectral fields.
    """

    order: ClassVar[None] = None

    def prepared(self, model: Any) -> Any:
        return model.prepared(self.dt)

    def check(self, model: Any) -> None:
        model.check_step(self.dt)
