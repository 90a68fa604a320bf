"""Given spike trains."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, param


class SpikeTrain(Parametrised):
    """Events at given times at one receptor of one site.

    An event between two steps is shared by them, weight and mean time kept, so that the order stays 2 and derivatives
    with respect to `times` exist.

    Args:
        times: ms, `[event]`, in any order.
        weights: uS, a number or `[event]`.
        receptor: name of the receptor.
        at: name or number of the site.
    """

    receptor: str = eqx.field(static=True)
    at: str | int = eqx.field(static=True)
    times: Param = param(unit="ms", axes=("event",), doc="when events arrive")
    weights: Param = param(axes=("event",), unit="uS", doc="weight of each event")

    def __init__(self, times: Any, weights: Any = 1e-3, *, receptor: str, at: str | int = 0):
        dtype = jnp.result_type(float)
        self.times = jnp.asarray(times, dtype)
        if self.times.ndim != 1:
            raise ValueError(f"SpikeTrain was given times {list(self.times.shape)}; expected [event], in ms")
        given = jnp.asarray(weights, dtype)
        if given.shape not in ((), self.times.shape):
            raise ValueError(f"SpikeTrain was given {len(given)} weights for {len(self.times)} times; expected as many")
        self.weights = jnp.broadcast_to(given, self.times.shape)
        self.receptor, self.at = receptor, at

    def arriving(self, t: Array, dt: float) -> Array:
        """Weight that arrives at the start of a step.

        The step starts at t; a number, or `[draw]`.
        """
        share = jnp.maximum(0.0, 1.0 - jnp.abs(self.times - t) / dt)
        weights = self.weights if self.weights.ndim >= share.ndim else self.weights[:, None]
        return jnp.sum(weights * (share if share.ndim >= weights.ndim else share[:, None]), axis=0)
