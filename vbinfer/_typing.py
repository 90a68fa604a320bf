"""Names for the shapes and values that travel through the package.

T time, N node, V state variable, C coupling variable, B batch, F feature, D total size of theta.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Key

Theta = dict[str, Array]
"""Constrained named parameters: the key is the path of a leaf (`"coupling.G"`), the value its array."""

PRNGKey = Key[Array, ""]
"""One typed JAX key, as `jax.random.key` makes it."""


@runtime_checkable
class SimulatorLike(Protocol):
    """What inference asks of a simulator: `(theta, key) -> x`, with `x` of shape `[F]`.

    It may also carry `.batch(theta, keys) -> x[B, F]`, `.names`, `.check(prior)`, `.fingerprint()` and
    `.estimate(n)`; those that exist are used.
    """

    def __call__(self, theta: Theta, key: PRNGKey, /) -> Array: ...
