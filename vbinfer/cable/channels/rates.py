"""Rate functions without holes.

Finite, with finite derivatives, at every voltage.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

_NEAR = 0.02
"""Below this |x| the derivative is a series: the formula would lose digits."""


_SMALL = 0.1
"""Below this |x| exp(x) - 1 is a polynomial: the difference would lose digits."""


def expm1(x: Array, exp: Array | None = None) -> Array:
    """exp(x) - 1 to ten units in the last place.

    By one exponential: XLA's own takes a hyperbolic tangent beside it, and gates
    need five of these at every step.

    Args:
        x: the exponent.
        exp: exp(x), if it is there already.
    """
    near = jnp.clip(x, -_SMALL, _SMALL)
    sum_ = jnp.zeros_like(near)
    for k in range(5 if x.dtype == jnp.float32 else 9, 0, -1):  # sum_k x^k / k!
        sum_ = (1.0 + sum_) * near / k
    return jnp.where(jnp.abs(x) < _SMALL, sum_, (jnp.exp(x) if exp is None else exp) - 1.0)


@jax.custom_jvp
def ratio(x: Array, exp: Array | None = None) -> Array:
    """x / (exp(x) - 1), which is 1 at 0.

    Args:
        x: a number.
        exp: exp(x), if it is there already; its own derivative does not count.

    >>> import jax, jax.numpy as jnp
    >>> [round(float(ratio(jnp.asarray(x))), 3) for x in (0.0, 1.0, -200.0)], float(jax.grad(ratio)(0.0))
    ([1.0, 0.582, 200.0], -0.5)
    """
    zero = x == 0.0
    return jnp.where(zero, 1.0, x / expm1(jnp.where(zero, 1.0, x), exp))


@ratio.defjvp
def _ratio_jvp(primals: tuple[Array, Any], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    (x, exp), (dx, _) = primals, tangents
    y, near = ratio(x, exp), jnp.abs(x) < _NEAR
    far = y * (1.0 - y - x) / jnp.where(near, 1.0, x)
    close = -0.5 + x / 6.0 - x**3 / 180.0 + x**5 / 5040.0
    return y, jnp.where(near, close, far) * dx


def opening(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Steady state and time constant from opening and closing rates.

    Of x' = alpha (1 - x) - beta x.
    """
    tau = 1.0 / (alpha + beta)
    return alpha * tau, tau
