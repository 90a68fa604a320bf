"""Spikes with surrogate derivatives, in both modes of differentiation.

Forward: 1 where x > 0, else 0, x the distance from threshold. The derivative, zero or infinite otherwise, is replaced
by a smooth one (Neftci, Mostafa & Zenke 2019, doi:10.1109/MSP.2019.2931595). Names differ between packages: each class
says its formula.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import positive


class AbstractSurrogate(eqx.Module):
    """Base of surrogates: a subclass writes the derivative."""

    @abc.abstractmethod
    def derivative(self, x: Array) -> Array:
        """What stands for the derivative of the step, elementwise."""

    def __call__(self, x: Array) -> Array:
        """1 where x > 0, else 0."""
        return _step(self, jnp.greater, x)

    def reached(self, x: Array) -> Array:
        """Threshold that is reached, 1 where x >= 0."""
        return _step(self, jnp.greater_equal, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _step(surrogate: AbstractSurrogate, compare: Callable[..., Array], x: Array) -> Array:
    return compare(x, 0.0).astype(x.dtype)


@_step.defjvp
def _step_jvp(surrogate: AbstractSurrogate, compare: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    # linear in dx, so that JAX transposes it for the reverse mode
    return _step(surrogate, compare, x), surrogate.derivative(x) * dx


def _steepness(example: float) -> Any:
    return eqx.field(static=True, default=example, converter=lambda k: positive(k, "k", example))


class SuperSpike(AbstractSurrogate):
    """1 / (1 + k|x|)^2 (Zenke & Ganguli 2018).

    doi:10.1162/neco_a_01086
    """

    k: float = _steepness(10.0)

    def derivative(self, x: Array) -> Array:
        return 1.0 / (1.0 + self.k * jnp.abs(x)) ** 2


class FastSigmoid(AbstractSurrogate):
    """Derivative of a fast sigmoid, 1 / (1 + k|x|)^2.

    That of `SuperSpike` with another default, as in snnTorch.
    """

    k: float = _steepness(25.0)

    def derivative(self, x: Array) -> Array:
        return SuperSpike(self.k).derivative(x)


class ArcTan(AbstractSurrogate):
    """Derivative of an arc tangent (Fang et al. 2021).

    (k/2) / (1 + (pi k x / 2)^2)

    doi:10.1109/ICCV48922.2021.00266
    """

    k: float = _steepness(2.0)

    def derivative(self, x: Array) -> Array:
        return 0.5 * self.k / (1.0 + (0.5 * jnp.pi * self.k * x) ** 2)


class Sigmoid(AbstractSurrogate):
    """Derivative of a sigmoid.

    k s (1 - s) with s = 1 / (1 + exp(-k x))
    """

    k: float = _steepness(4.0)

    def derivative(self, x: Array) -> Array:
        s = jax.nn.sigmoid(-self.k * jnp.abs(x))  # even in x; the small side keeps its digits
        return self.k * s * (1.0 - s)


class Triangular(AbstractSurrogate):
    """max(0, 1 - k|x|) (Bellec et al. 2018).

    arXiv:1803.09574
    """

    k: float = _steepness(1.0)

    def derivative(self, x: Array) -> Array:
        return jnp.maximum(0.0, 1.0 - self.k * jnp.abs(x))


class Gaussian(AbstractSurrogate):
    """exp(-(k x)^2 / 2)."""

    k: float = _steepness(2.0)

    def derivative(self, x: Array) -> Array:
        return jnp.exp(-0.5 * (self.k * x) ** 2)


class Custom(AbstractSurrogate):
    """A derivative of the user's: `Custom(lambda x: jnp.exp(-x**2))`.

    Args:
        fn: x to the derivative, elementwise.

    Raises:
        ValueError: it is not elementwise, or NaN or infinite somewhere in [-2, 2].
    """

    fn: Callable[[Array], Array] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"Custom was given {self.fn!r}; expected a function, Custom(lambda x: jnp.exp(-x**2))")
        with jax.ensure_compile_time_eval():
            x = np.linspace(-2.0, 2.0, 17)
            found = np.asarray(self.fn(jnp.asarray(x)))
        if found.shape != x.shape:
            raise ValueError(f"the surrogate made {list(found.shape)} of {list(x.shape)}; it must act on each element")
        if not np.isfinite(found).all():
            raise ValueError(
                f"the surrogate is {found[~np.isfinite(found)][0]} at x = {x[~np.isfinite(found)][0]:g}; its values "
                "must be finite, for example jnp.exp(-x**2)"
            )

    def derivative(self, x: Array) -> Array:
        return self.fn(x)
