"""Flow matching: a density that an ordinary differential equation transports."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer._ode import rk4
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity
from vbinfer.priors.transforms import normal_log_prob

_FREQUENCIES = 3


@dataclasses.dataclass(frozen=True)
class FlowMatching(AbstractDensity):
    """Flow matching along straight, optimal-transport paths.

    Noise e ~ N(0, I) moves to y along y_t = (1 - t) e + t y. A network learns the mean velocity of all paths through a
    point, by least squares,

    v = ((2 t - 1) y_t / s + net(t, y_t / s, c)) / s,   s^2 = t^2 + (1 - t)^2,

    in which net = 0 leaves the standard normal as it is, and what it learns has unit scale at every t. Draws are
    solutions of dy/dt = v from noise; log q(y | c) = log N(e; 0, I) - int div v dt along the way back, with the exact
    trace of the Jacobian, D derivatives of the network. The solver is Runge-Kutta's of fourth order with fixed steps.

    Training needs no Jacobian and no triangular network, which makes it fit shapes that layers of splines miss (many
    modes, thin curved ridges); it wants more passes over the draws than a flow (`max_epochs` of 100 or more) and a
    draw costs `4 steps` evaluations of the network. Losses in `FitInfo` are those of the velocity; `info_gain` is of
    log q, as always.

    Args:
        width: hidden units.
        depth: hidden layers, each added to the one before (SiLU).
        steps: steps of the solver.
        repeats: times and noises for each draw of a minibatch.

    Lipman, Chen, Ben-Hamu, Nickel & Le 2023, ICLR, doi:10.48550/arXiv.2210.02747; Wildberger et al. 2023, NeurIPS,
    doi:10.48550/arXiv.2305.17161 (as a posterior).

    Example:
        training = vb.densities.Training(max_epochs=100, learning_rate=1e-2)
        amortized, info = vb.NPE(vb.densities.FlowMatching(), training=training).fit(draws, prior, key=key)
    """

    width: int = 64
    depth: int = 3
    steps: int = 16
    repeats: int = 8

    @eqx.filter_jit
    def build(self, key: PRNGKey, dim: int, cond_dim: int) -> "Transport":
        """Build a transport that is the identity until trained."""
        k_first, *k_hidden, k_last = jax.random.split(key, self.depth + 2)
        first = eqx.nn.Linear(2 * _FREQUENCIES + 1 + dim + cond_dim, self.width, key=k_first)
        hidden = tuple(eqx.nn.Linear(self.width, self.width, key=k) for k in k_hidden)
        last = jax.tree.map(jnp.zeros_like, eqx.nn.Linear(self.width, dim, key=k_last))
        return Transport(first, hidden, last, dim, self.steps, self.repeats)


class Transport(AbstractConditional):
    """The density of a trained velocity."""

    first: eqx.nn.Linear
    hidden: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    dim: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    repeats: int = eqx.field(static=True)

    def velocity(self, t: Any, y: Array, c: Array) -> Array:
        """dy/dt `[D]` at time t in [0, 1]."""
        t = jnp.asarray(t, y.dtype)
        scale = jnp.sqrt(t**2 + (1.0 - t) ** 2)
        waves = jnp.pi * t * 2.0 ** jnp.arange(_FREQUENCIES, dtype=y.dtype)
        seen = jnp.concatenate([t[None], jnp.sin(waves), jnp.cos(waves), y / scale, c])
        h = jax.nn.silu(self.first(seen))
        for layer in self.hidden:
            h = h + jax.nn.silu(layer(h))
        return ((2.0 * t - 1.0) * y / scale + self.last(h)) / scale

    def loss(self, y: Array, c: Array, key: PRNGKey) -> Array:
        """Mean squared error of the velocity, in units of 1/s."""

        def one(key: PRNGKey, t: Array) -> Array:
            e = jax.random.normal(key, y.shape, y.dtype)
            error = self.velocity(t, (1.0 - t) * e + t * y, c) - (y - e)
            return jnp.mean(error**2) * (t**2 + (1.0 - t) ** 2)

        # stratified times: one in each of `repeats` equal parts of [0, 1]
        k_time, k_noise = jax.random.split(key)
        times = (jnp.arange(self.repeats) + jax.random.uniform(k_time, (self.repeats,), y.dtype)) / self.repeats
        return jnp.mean(jax.vmap(one)(jax.random.split(k_noise, self.repeats), times))

    def log_prob(self, y: Array, c: Array) -> Array:
        """log q of one pair, by integrating back to noise."""
        e, slope = self._carry(y, c, -1.0)
        return jnp.sum(normal_log_prob(e)) + slope

    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws `[n, D]` given one context."""
        field = lambda t: lambda y: jax.vmap(lambda one: self.velocity(t, one, c))(y)  # noqa: E731
        return self._integrate(field, jax.random.normal(key, (n, self.dim)), 1.0)

    def sample_and_log_prob(self, c: Array, key: PRNGKey, n: int) -> tuple[Array, Array]:
        """n draws `[n, D]` given one context, with log q."""
        e = jax.random.normal(key, (n, self.dim))
        y, slope = jax.vmap(lambda one: self._carry(one, c, 1.0))(e)
        return y, jnp.sum(normal_log_prob(e), axis=-1) - slope

    def _carry(self, y: Array, c: Array, direction: float) -> tuple[Array, Array]:
        """Where y goes, and the integral of the divergence."""

        def field(t: Array) -> Any:
            def both(state: tuple[Array, Array]) -> tuple[Array, Array]:
                value, push = jax.linearize(lambda y: self.velocity(t, y, c), state[0])
                return value, jnp.trace(jax.vmap(push)(jnp.eye(self.dim, dtype=y.dtype)))

            return both

        return self._integrate(field, (y, jnp.zeros((), y.dtype)), direction)

    def _integrate(self, field: Any, state: Any, direction: float) -> Any:
        """Solve from noise to y (1.0) or back (-1.0)."""
        dt, start = direction / self.steps, 0.0 if direction > 0.0 else 1.0

        def step(state: Any, i: Array) -> tuple[Any, None]:
            # the velocity turns fastest near t = 1 where y is sharp: times u -> 1 - (1 - u)^2 step ever finer there
            def at(fraction: float, state: Any) -> Any:
                u = start + dt * (i + fraction)
                return jax.tree.map(lambda v: 2.0 * (1.0 - u) * v, field(1.0 - (1.0 - u) ** 2)(state))

            return rk4(at, state, dt), None

        return jax.lax.scan(step, state, jnp.arange(self.steps))[0]
