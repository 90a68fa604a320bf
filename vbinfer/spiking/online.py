"""Gradients forward in time, in memory flat in it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from vbinfer.spiking.layers import Network, trainable

Gradient = Callable[[Any, Any], tuple[Array, Any]]
"""(inputs, targets) to the loss and its gradient, structured as the network."""
TOGETHER = 64
"""Parameters whose sensitivities are advanced at once."""


def rtrl(net: Network, loss: Callable[[Array, Any], Array]) -> Gradient:
    """Real-time recurrent learning (Williams & Zipser 1989).

    J_t = df/ds J_t-1 + df/dtheta;   dL/dtheta = sum_t dL/dy_t dy_t/dtheta

    The gradient is that of backpropagation through time. Beyond inputs and outputs memory is that of J, states times
    parameters, whatever the number of steps; time is that of a simulation for each parameter.

    Args:
        net: a `Network`.
        loss: `loss(outputs [T, ...], targets)`.

    doi:10.1162/neco.1989.1.2.270
    """
    return _forward_in_time(net, loss, cut=False)


def eprop(net: Network, loss: Callable[[Array, Any], Array]) -> Gradient:
    """The gradient without what recurrence carries (Bellec et al. 2020).

    As `rtrl`, with the spikes that arrive through recurrent weights held constant: what a neuron knows of itself and of
    its input. The reset is differentiated. Without recurrent synapses it is the gradient.

    doi:10.1038/s41467-020-17236-y
    """
    return _forward_in_time(net, loss, cut=True)


def _forward_in_time(net: Network, loss: Callable[[Array, Any], Array], cut: bool) -> Gradient:
    learned, fixed = eqx.partition(net, trainable(net))
    theta, unravel = ravel_pytree(learned)

    def step(theta: Array, state: Any, x: Array) -> tuple[Any, Array]:
        ys, state = eqx.combine(unravel(theta), fixed)(x[None], state, cut=cut)
        return state, ys[0]

    def rest(theta: Array, x: Array) -> Any:
        return eqx.combine(unravel(theta), fixed).start(x[None])

    @jax.jit
    def run(theta: Array, xs: Array, targets: Any) -> tuple[Array, Array]:
        outputs = jax.lax.scan(lambda state, x: step(theta, state, x), rest(theta, xs[0]), xs)[1]
        value, errors = jax.value_and_grad(loss)(outputs, targets)
        number = jnp.arange(len(theta))
        unit = lambda k: jnp.zeros_like(theta).at[k].set(1.0)  # noqa: E731
        each = lambda fn, *args: jax.lax.map(lambda a: fn(*a), args, batch_size=TOGETHER)  # noqa: E731

        def advance(carry: tuple[Any, Any, Array], given: tuple[Array, Array]) -> tuple[Any, None]:
            (state, J, gradient), (x, error) = carry, given

            def one(k: Array, dstate: Any) -> tuple[Any, Array]:
                fn = lambda theta, state: step(theta, state, x)  # noqa: E731
                dstate, dy = jax.jvp(fn, (theta, state), (unit(k), dstate))[1]
                return dstate, (error * dy).sum()

            J, share = each(one, number, J)
            return (step(theta, state, x)[0], J, gradient + share), None

        begin = rest(theta, xs[0])
        J = each(lambda k: jax.jvp(lambda theta: rest(theta, xs[0]), (theta,), (unit(k),))[1], number)
        return value, jax.lax.scan(advance, (begin, J, jnp.zeros_like(theta)), (xs, errors))[0][2]

    def gradient(xs: Any, targets: Any) -> tuple[Array, Any]:
        value, flat = run(theta, jnp.asarray(xs, theta.dtype), jax.tree.map(jnp.asarray, targets))
        constant = jax.tree.map(jnp.zeros_like, eqx.filter(fixed, eqx.is_inexact_array))
        return value, eqx.combine(unravel(flat), constant)

    return gradient
