"""The summaries that an estimator was trained on: their names, their scale, and what to say of an x_o unlike them."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vbinfer.infer.standardise import Standardise, check_observation


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
        far = self.standardise.outside(self.check(x_o, ndim=1))
        return tuple(name for name, flag in zip(self.names, far, strict=True) if flag)

    def observe(self, x_o: Any, what: str = "posterior", stacklevel: int = 3) -> tuple[np.ndarray, tuple[str, ...]]:
        """x_o `[F]` checked, and the features in which it lies outside the training draws, with a warning if any."""
        x, outside = self.check(x_o, ndim=1), self.outside(x_o)
        if outside:
            warnings.warn(
                f"x_o lies outside the training draws in {', '.join(outside)}: this {what} is an extrapolation. "
                "Compare these features with the prior predictive, and widen the prior or change the model",
                stacklevel=stacklevel,
            )
        return x, outside
