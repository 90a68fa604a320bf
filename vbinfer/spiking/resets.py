"""Resets of the membranes of layers, each with its recursion.

With f(v, c) a step of the membrane without threshold, z its spikes, and jump(v, z) the reset of the class:

after the threshold (`late=False`):   v_t = f(v_t-1, c_t);   z_t = v_t > v_th;   v_t <- jump(v_t, z_t)
before the next one (`late=True`):    v_t = jump(f(v_t-1, c_t), z_t-1);   z_t = v_t > v_th

Late, a step's v is that which reached the threshold, and the leak acts before the reset. `held=True` takes z in the
jump for a constant, so that the derivative does not pass through the reset.
"""

import abc

import equinox as eqx
import jax
from jaxtyping import Array


class AbstractReset(eqx.Module):
    """Base of resets: a subclass writes the jump."""

    late: bool = eqx.field(static=True, default=False, kw_only=True)
    held: bool = eqx.field(static=True, default=False, kw_only=True)

    @abc.abstractmethod
    def jump(self, v: Array, z: Array, v_reset: Array, v_th: Array) -> Array:
        """v after the reset, z = 1 for a spike."""

    def __call__(self, v: Array, z: Array, v_reset: Array, v_th: Array) -> Array:
        return self.jump(v, jax.lax.stop_gradient(z) if self.held else z, v_reset, v_th)


class ToValue(AbstractReset):
    """v + z (v_reset - v): to the reset potential."""

    def jump(self, v: Array, z: Array, v_reset: Array, v_th: Array) -> Array:
        return v + z * (v_reset - v)


class Subtract(AbstractReset):
    """Subtract: what exceeds the threshold stays.

    v - z (v_th - v_reset).
    """

    def jump(self, v: Array, z: Array, v_reset: Array, v_th: Array) -> Array:
        return v - z * (v_th - v_reset)


class Mask(AbstractReset):
    """v (1 - z): to 0, whatever the reset potential."""

    def jump(self, v: Array, z: Array, v_reset: Array, v_th: Array) -> Array:
        return v * (1.0 - z)
