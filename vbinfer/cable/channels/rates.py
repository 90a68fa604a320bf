"""Rate functions without holes.

Finite, with finite derivatives, at every voltage.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

_NEAR = 0.02
"""Below this |x| the derivative is a series: the formula would lose digits."""


_SMALL = 0.3
"""Below this |x| exp(x) - 1 is a polynomial: the difference would lose digits."""


def expm1(x: Array) -> Array:
    """exp(x) - 1 to full precision, by one exponential.

    XLA's own takes a hyperbolic tangent beside it; gates need six of these at every step.
    """
    near = jnp.clip(x, -_SMALL, _SMALL)
    sum_ = jnp.zeros_like(near)
    for k in range(7 if x.dtype == jnp.float32 else 13, 0, -1):  # sum_k x^k / k!
        sum_ = (1.0 + sum_) * near / k
    return jnp.where(jnp.abs(x) < _SMALL, sum_, jnp.exp(x) - 1.0)


@jax.custom_jvp
def ratio(x: Array) -> Array:
    """x / (exp(x) - 1), which is 1 at 0.

    >>> import jax, jax.numpy as jnp
    >>> [round(float(ratio(jnp.asarray(x))), 3) for x in (0.0, 1.0, -200.0)], float(jax.grad(ratio)(0.0))
    ([1.0, 0.582, 200.0], -0.5)
    """
    zero = x == 0.0
    return jnp.where(zero, 1.0, x / expm1(jnp.where(zero, 1.0, x)))


@ratio.defjvp
def _ratio_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y, near = ratio(x), jnp.abs(x) < _NEAR
    far = y * (1.0 - y - x) / jnp.where(near, 1.0, x)
    close = -0.5 + x / 6.0 - x**3 / 180.0 + x**5 / 5040.0
    return y, jnp.where(near, close, far) * dx


def opening(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Steady state and time constant from opening and closing rates.

    Of x' = alpha (1 - x) - beta x.
    """
    tau = 1.0 / (alpha + beta)
    return alpha * tau, tau
