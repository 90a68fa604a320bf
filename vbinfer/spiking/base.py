"""Point neurons: sub-threshold flow, threshold, reset.

Each is a stepper of the one loop over time and a cell of `vbinfer.spiking.Layer`.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import did_you_mean, is_traced, paths
from vbinfer.models.base import AbstractStepper, names_of
from vbinfer.spiking.resets import AbstractReset, ToValue
from vbinfer.spiking.surrogates import AbstractSurrogate, SuperSpike

NEVER = 1e9
"""ms since the last spike of a neuron that has had none."""


def _names(learn: Any) -> tuple[str, ...]:
    if isinstance(learn, str):
        raise TypeError(f'learn={learn!r} was given; write a tuple, learn=("{learn}",)')
    return tuple(learn)


class AbstractNeuron(AbstractStepper):
    """Base of point neurons that spike and are reset.

    A step of the simulation, in this order:

    1. The neuron is refractory for what is left of `t_ref` since its last spike: v stays at reset.
    2. For the rest of the step it follows its flow, with the stimulus u of the start of the step, and noise.
    3. What arrives at the end of the step, the sum over the rows of c, is added (`receive`); it is lost while
       refractory.
    4. At or above threshold the neuron spikes, z = 1, and is reset.

    With `interpolate=True` a flow that reaches the threshold within the step spikes at the crossing time; the neuron is
    reset there, and goes on with what `t_ref` leaves of the step. Otherwise spikes fall on ends of steps, and the
    neuron is held for round(t_ref/dt) whole steps. A spike of step k arrives over a lag of L steps at the end of step
    k + L.

    State variables: v and what the neuron adds; z, 1 if it spiked in this step; `since`, ms since its last spike.

    Args:
        interpolate: see above.
        surrogate: what stands for the derivative of z.
        resets: how the membrane is reset, in layers (`vb.spiking.resets`); simulations reset to `v_reset`.
        learn: names of the parameters that training changes, in layers.
    """

    coupling_stage: ClassVar[float] = 1.0
    sends_spikes: ClassVar[bool] = True
    bounds: ClassVar[tuple[str, str]] = ("v_reset", "v_th")
    """The parameters that v is reset to and spikes at."""
    cvar: tuple[str, ...] = eqx.field(static=True, default=("z",), converter=names_of, kw_only=True)
    interpolate: bool = eqx.field(static=True, default=True, kw_only=True)
    surrogate: AbstractSurrogate = eqx.field(default=SuperSpike(), kw_only=True)
    resets: AbstractReset = eqx.field(default=ToValue(), kw_only=True)
    learn: tuple[str, ...] = eqx.field(static=True, default=(), converter=_names, kw_only=True)

    @abc.abstractmethod
    def flow(self, x: Any, u: Array, held: Array, span: Array) -> Any:
        """The state after `held` ms refractory and `span` ms free.

        Without threshold.
        """

    @abc.abstractmethod
    def cell(self, x: Any, c: Array, dt: float) -> Any:
        """One step of a layer with input c."""

    def rest(self) -> dict[str, Any]:
        """Where state variables start, unless at 0."""
        return {"v": getattr(self, "v_rest", 0.0)}

    def threshold(self, x: Any) -> Array:
        """The v at which the neuron spikes."""
        return getattr(self, self.bounds[1])

    def reset(self, x: Any) -> Any:
        """The state right after a spike."""
        return x._replace(v=jnp.broadcast_to(getattr(self, self.bounds[0]), x.v.shape))

    def receive(self, x: Any, c: Array, is_open: Array) -> Any:
        """The state after spikes of c mV have arrived.

        `is_open`: not refractory.
        """
        return x._replace(v=x.v + jnp.where(is_open, c, 0.0))

    def crossing(self, x: Any, u: Array, span: Array, end: Any) -> Array:
        """ms from the start of the flow to the threshold."""
        rise = end.v - x.v
        return span * (self.threshold(x) - x.v) / jnp.where(rise > 0.0, rise, 1.0)

    def kick(self, dt: float) -> Any:
        """Share of a step's white noise that reaches its end."""
        return 1.0

    def adapt(self, x: Any, before: Any, dt: float) -> Any:
        """The state with what counts spikes, after a step."""
        return x

    def start_of(self, shape: tuple[int, ...]) -> Any:
        """The state at rest, leaves of this shape."""
        given = self.rest() | {"since": NEVER}
        as_array = lambda value: jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), shape)  # noqa: E731
        return self.State(**{name: as_array(given.get(name, 0.0)) for name in self.variables()})

    def init(self, n: int) -> Any:
        return self.start_of((n,))

    def validate(self) -> None:
        if not isinstance(self.resets, AbstractReset):
            raise TypeError(
                f"resets was given as {self.resets!r}; expected vb.spiking.resets.ToValue(), Subtract() or Mask()"
            )
        own = paths(self)
        for name in self.learn:
            if name not in own:
                raise ValueError(f"learn names {name!r} of {type(self).__name__}. {did_you_mean(name, own)}")
        low, high = (getattr(self, name, None) for name in self.bounds)
        if low is None or high is None or is_traced(low, high):
            return
        if low.ndim <= 1 and high.ndim <= 1 and np.any(np.asarray(low) >= np.asarray(high)):
            raise ValueError(
                f"{type(self).__name__}: {self.bounds[0]} is {np.max(low):g} and {self.bounds[1]} is {np.min(high):g}; "
                "a neuron must be reset below where it spikes"
            )

    def _held(self, since: Array, dt: float) -> Array:
        """Refractory ms at the start of a step."""
        t_ref = getattr(self, "t_ref", None)
        if t_ref is None:
            return jnp.zeros_like(since)
        if self.interpolate:
            return jnp.clip(t_ref - since, 0.0, dt)
        return jnp.where(since < (jnp.round(t_ref / dt) - 0.5) * dt, dt, jnp.zeros_like(since))

    def step(self, t: Array, x: Any, c: Array, u: Array, dW: Any, dt: float) -> Any:
        arriving, held = c.sum(axis=0), self._held(x.since, dt)
        free = dt - held
        moved = self.flow(x, u, held, free)
        if dW is not None:
            kicks = {name: getattr(dW, name) for name in x._fields if name not in ("z", "since")}
            kicks["v"] = kicks["v"] * self.kick(dt) * (free / dt)
            moved = moved._replace(**{name: getattr(moved, name) + kick for name, kick in kicks.items()})
        crossed, late, peak = jnp.zeros(free.shape, bool), jnp.zeros_like(free), moved.v
        is_open = free > 1e-3 * dt  # a refractory period that ends with the step, rounded: what arrives then is lost
        if self.interpolate:
            crossed, late, moved, is_open = self._spiked_within(x, u, held, free, moved, is_open)
        moved = self.receive(moved, arriving, is_open)
        z = self.surrogate.reached(jnp.where(crossed, peak, moved.v) - self.threshold(x))
        jumped = (z > 0.0) & ~crossed
        moved = _where(jumped, self.reset(moved), moved)
        since = jnp.where(crossed, late, jnp.where(jumped, 0.0, x.since + dt))
        return self.adapt(moved._replace(z=z, since=since), x, dt)

    def _spiked_within(
        self, x: Any, u: Array, held: Array, free: Array, moved: Any, is_open: Array
    ) -> tuple[Array, Array, Any, Array]:
        """Spikes within a step.

        Returns which neurons crossed, ms from there to the end of the step, all states at the end of the step, and who
        receives what arrives then.
        """
        crossed = (moved.v >= self.threshold(x)) & is_open
        s = jnp.clip(jnp.where(crossed, self.crossing(x, u, free, moved), 0.0), 0.0, free)
        left = free - s
        rest = jnp.maximum(left - getattr(self, "t_ref", 0.0), 0.0)
        at = self.reset(self.flow(x, u, held, s))
        after = self.flow(at, u, left - rest, rest)
        return crossed, left, _where(crossed, after, moved), jnp.where(crossed, rest > 0.0, is_open)


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def fires(neuron: AbstractNeuron, x: Any, v: Array) -> tuple[Array, Array]:
    """z and the membrane after the reset, in a layer.

    z = v > threshold;   v <- v + z (v_reset - v), the reset differentiated, unless `resets` says otherwise
    """
    threshold, reset = neuron.threshold(x), getattr(neuron, neuron.bounds[0])
    if neuron.resets.late:
        v = neuron.resets(v, x.z, reset, threshold)
        return neuron.surrogate(v - threshold), v
    z = neuron.surrogate(v - threshold)
    return z, neuron.resets(v, z, reset, threshold)
