"""The summaries that an estimator was trained on: their names, their scale, and what to say of an x_o unlike them."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer.neural.standardise import Standardise, check_observation


@dataclasses.dataclass(frozen=True)
class SummarySpace:
    """Names of the F features of x and the standardisation fitted to the training draws."""

    names: tuple[str, ...]
    standardise: Standardise

    @classmethod
    def from_saved(cls, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> "SummarySpace":
        """From the names in a header and the arrays of `standardise.to_arrays`."""
        return cls(tuple(names), Standardise.from_arrays(arrays))

    def check(self, x: Any, ndim: int) -> np.ndarray:
        """x as a finite array with F columns and `ndim` axes, or an error that names what is wrong."""
        return check_observation(x, self.names, ndim=ndim)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Names of the features in which an observation lies beyond the range of the training draws."""
        return self._outside(self.check(x_o, ndim=1))

    def _outside(self, x: np.ndarray) -> tuple[str, ...]:
        far = self.standardise.outside(x)
        return tuple(name for name, flag in zip(self.names, far, strict=True) if flag)

    def rows(self, x: Any) -> Array:
        """One observation `[F]` or rows `[..., F]`, checked unless JAX is tracing them."""
        return jnp.asarray(x if isinstance(x, Tracer) else self.check(x, ndim=max(1, np.ndim(x))))

    def observe(self, x_o: Any, what: str = "posterior", stacklevel: int = 3) -> tuple[np.ndarray, tuple[str, ...]]:
        """x_o `[F]` checked, and the features in which it lies outside the training draws, with a warning if any."""
        x = self.check(x_o, ndim=1)
        outside = self._outside(x)
        if outside:
            warnings.warn(
                f"x_o lies outside the training draws in {', '.join(outside)}: this {what} is an extrapolation. "
                "Compare these features with the prior predictive, and widen the prior or change the model",
                stacklevel=stacklevel,
            )
        return x, outside
