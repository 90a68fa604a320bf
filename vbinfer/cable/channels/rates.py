"""Rate functions without holes.

Finite, with finite derivatives, at every voltage.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

_NEAR = 0.02
"""Below this |x| the derivative is a series: the formula would lose digits."""


@jax.custom_jvp
def ratio(x: Array) -> Array:
    """x / (exp(x) - 1), which is 1 at 0.

    >>> import jax, jax.numpy as jnp
    >>> ratio(jnp.asarray([0.0, 1.0, -200.0])).round(4).tolist(), float(jax.grad(ratio)(0.0))
    ([1.0, 0.582, 200.0], -0.5)
    """
    zero = x == 0.0
    return jnp.where(zero, 1.0, x / jnp.expm1(jnp.where(zero, 1.0, x)))


@ratio.defjvp
def _ratio_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y, near = ratio(x), jnp.abs(x) < _NEAR
    far = y * (1.0 - y - x) / jnp.where(near, 1.0, x)
    close = -0.5 + x / 6.0 - x**3 / 180.0 + x**5 / 5040.0
    return y, jnp.where(near, close, far) * dx


def opening(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Steady state and time constant of x' = alpha (1 - x) - beta x."""
    tau = 1.0 / (alpha + beta)
    return alpha * tau, tau
