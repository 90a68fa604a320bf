"""Distance laws of parameters."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import AbstractLaw, Param, param, spread


class Along(AbstractLaw):
    """Parameter as a function of the distance to the soma.

    d is the path length from the root's centre, um.

        linear: base + slope d;   exponential: base exp(slope d)

    In place of a channel's parameter; its coefficients are paths, `model.apic.hh.g_na.slope`.

    >>> import vbinfer as vb
    >>> comp = vb.cable.cylinder(length=300.0, radius=1.0, n=3)
    >>> cell = vb.cable.Cell(comp, {"all": vb.cable.Leak(g=vb.cable.Along(1e-4, slope=1e-6))})
    >>> [path for path in vb.paths(cell) if "leak.g" in path]
    ['all.leak.g.base', 'all.leak.g.slope']
    """

    base: Param = param(doc="value at the root's centre")
    slope: Param = param(unit="1/um", doc="change per um; relative to the value if exponential")
    form: Literal["linear", "exponential"] = eqx.field(
        static=True, default="linear", converter=lambda form: _check.one_of(form, "form", ("linear", "exponential"))
    )

    def value(self, at: np.ndarray, like: Array) -> Array:
        """The parameter at these distances, shaped as `like`."""
        d = spread(jnp.asarray(at, like.dtype), like)
        base, slope = spread(self.base, like), spread(self.slope, like)
        return base + slope * d if self.form == "linear" else base * jnp.exp(slope * d)
