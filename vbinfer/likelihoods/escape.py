"""Likelihood of a spike train under escape noise."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import Named
from vbinfer.likelihoods.base import AbstractLikelihood, callable_or_raise, compared, known

_FAR = 12.0
"""Largest (v - threshold) / width: no spike there has probability 0 at any dt, and derivatives stay finite."""


@dataclasses.dataclass(frozen=True, eq=False)
class EscapeNoise(AbstractLikelihood):
    """Likelihood of a spike train with a soft threshold.

    lambda(t) = rate exp((v(t) - threshold) / width);   v follows the neuron, and is reset by the recorded spikes
    log p(y | theta) = sum_spikes log[(1 - exp(-H_k)) / dt] - sum_others H_k
    H_k = dt (lambda(t_k) + lambda(t_k+1)) / 2 of the free part of step k

    the density of a point process, sum log lambda(t_s) - int lambda dt, as dt goes to 0. Differentiable, for `vb.NUTS`.
    Its own flow has no noise: all variability is that of the threshold.

    Args:
        neuron: theta to a neuron of `vb.spiking`, `lambda theta: vb.spiking.AdEx(b=theta["b"])`.
        current: stimulus u of each step, `[T]` (pA for `AdEx`), or theta to it.
        dt: ms of a step.
        threshold, width: mV, or names of parameters of the neuron.
        rate: at threshold, 1/ms.

    An observation y is 1 in steps with a spike and 0 in others, `[T]`; of times
    `np.histogram(times, T, (0, T * dt))[0]`.

    Gerstner & van Hemmen 1992, doi:10.1088/0954-898X_3_2_004; Jolivet et al. 2006, doi:10.1007/s10827-006-7074-5

    >>> import vbinfer as vb
    >>> cell = vb.spiking.LIF(v_rest=0.0, v_reset=0.0, v_th=2.0)  # at rest: a Poisson process
    >>> flat = vb.likelihoods.EscapeNoise(lambda theta: cell, jnp.zeros(1_000), dt=0.1, width=0.5)
    >>> y = jnp.zeros(1_000).at[jnp.array([100, 700])].set(1.0)
    >>> round(float(flat({}, y)), 2)                # 2 log exp(-4) - 100 exp(-4)
    -9.83
    """

    neuron: Callable[[Named], Any]
    current: Any
    dt: float
    threshold: str | float = "v_th"
    width: str | float = 1.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        callable_or_raise(self.neuron, "neuron", 'lambda theta: vb.spiking.AdEx(b=theta["b"])')
        _check.positive(self.dt, "dt", 0.1, "ms")
        _check.positive(self.rate, "rate", 1.0, "1/ms")
        if not isinstance(self.width, str):
            _check.positive(self.width, "width", 1.0, "mV")

    def _parts(self, theta: Named) -> tuple[Any, Array, Callable[[Array], Array]]:
        """The neuron, its current, and v to lambda."""
        cell = self.neuron(theta)
        current = jnp.asarray(self.current(theta) if callable(self.current) else self.current, jnp.result_type(float))
        if current.ndim != 1:
            raise ValueError(f"current has shape {list(current.shape)}; expected one value per step, [T]")
        for name in ("threshold", "width"):
            if isinstance(value := getattr(self, name), str) and not hasattr(cell, value):
                raise ValueError(f"{name}={value!r} is no parameter of {type(cell).__name__}; give one's name, or mV")
        of = lambda value: getattr(cell, value) if isinstance(value, str) else value  # noqa: E731
        threshold, width = of(self.threshold), of(self.width)
        return cell, current, lambda v: self.rate * jnp.exp(jnp.minimum((v - threshold) / width, _FAR))

    def _step(self, cell: Any, hazard: Callable[[Array], Array], x: Any, u: Array) -> tuple[Any, Array]:
        """The state after a step without spike, and H."""
        held = jnp.clip(getattr(cell, "t_ref", 0.0) - x.since, 0.0, self.dt)
        moved = cell.flow(x, u, held, self.dt - held)
        return moved, 0.5 * (self.dt - held) * (hazard(x.v) + hazard(moved.v))

    def _spiked(self, cell: Any, x: Any, moved: Any, z: Array) -> Any:
        """The state after z, which is 1 for a spike."""
        jumped = jax.tree.map(lambda a, b: jnp.where(z > 0.0, a, b), cell.reset(moved), moved)
        since = jnp.where(z > 0.0, 0.0, x.since + self.dt)
        return cell.adapt(jumped._replace(z=z, since=since), x, self.dt)

    def pointwise(self, theta: Named, y: Any) -> Array:
        cell, current, hazard = self._parts(theta)
        y, there = compared(y, current.shape, "current")
        numbers = known(y)
        if ((numbers != 0.0) & (numbers != 1.0)).any():
            raise ValueError(
                "y holds other numbers than 0 and 1; give the spikes of each step, and a dt with at most one in each: "
                "np.histogram(times, T, (0, T * dt))[0]"
            )

        def step(x: Any, given: tuple[Array, Array]) -> tuple[Any, Array]:
            u, z = given
            moved, h = self._step(cell, hazard, x, u)
            spike = jnp.log(-jnp.expm1(-jnp.where(z > 0.0, h, 1.0)) / self.dt)
            return self._spiked(cell, x, moved, z), jnp.where(z > 0.0, spike, -h)

        terms = jax.lax.scan(step, cell.start_of(()), (current, y))[1]
        return jnp.where(there, terms, 0.0)

    def sample(self, theta: Named, key: Array) -> Array:
        """Spikes of each step, `[T]`."""
        cell, current, hazard = self._parts(theta)

        def step(x: Any, given: tuple[Array, Array]) -> tuple[Any, Array]:
            u, e = given
            moved, h = self._step(cell, hazard, x, u)
            z = (e < h).astype(current.dtype)
            return self._spiked(cell, x, moved, z), z

        escape = jax.random.exponential(key, current.shape, current.dtype)
        return jax.lax.scan(step, cell.start_of(()), (current, escape))[1]
