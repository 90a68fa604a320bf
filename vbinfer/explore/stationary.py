"""Stationary covariance of a linear process, with its own derivative."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

MOST = 60
"""Doublings: 2^60 steps."""


def covariance(A: Array, Q: Array) -> Array:
    """Stationary covariance of a linear system.

    P of A P + P A^T + Q = 0; infinite or NaN where A is not stable.

    The derivative solves the same equation, with Q' + A' P + P A'^T in place of Q; backwards with A^T. Only matrix
    products and one inverse, of the Cayley transform, so that it may be batched and differentiated again.
    """

    def residual(P: Array) -> Array:
        return -(A @ P + P @ A.T)

    solve = lambda _, Q: _doubled(A, Q)  # noqa: E731
    backwards = lambda _, Q: _doubled(A.T, Q)  # noqa: E731
    return jax.lax.custom_linear_solve(residual, Q, solve, backwards)


def _doubled(A: Array, Q: Array) -> Array:
    """Squared Smith iteration (Smith 1968, doi:10.1137/0116017).

    With U = (p - A)^-1 and F = U (p + A) the equation is P = F P F^T + 2 p U Q U^T, the limit of a sum whose number of
    terms doubles: P' = P + F P F^T, F' = F F.
    """
    n, eye = len(A), jnp.eye(len(A), dtype=A.dtype)
    inverse = jnp.linalg.inv(A)
    # between the fastest and the slowest rate the transform contracts both alike
    p = jnp.sqrt(jnp.linalg.norm(A) / jnp.linalg.norm(inverse))
    U = jnp.linalg.inv(p * eye - A)
    eps = jnp.finfo(A.dtype).eps

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        P, F, _, k = state
        more = F @ P @ F.T
        return P + more, F @ F, jnp.abs(more).max() / jnp.abs(P).max(), k + 1

    def goes_on(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[2] > 0.01 * eps) & (state[3] < MOST)  # ends on NaN too

    begin = (2.0 * p * U @ Q @ U.T, U @ (p * eye + A), jnp.asarray(jnp.inf, A.dtype), jnp.zeros((), int))
    P, _, share, _ = jax.lax.while_loop(goes_on, step, begin)
    return jnp.where(share <= n * eps, P, jnp.where(jnp.abs(Q).max() == 0.0, 0.0, jnp.nan))
