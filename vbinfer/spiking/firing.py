"""Features of a population from what `vb.monitors.Rates` records."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array


class FiringSummary(eqx.Module):
    """Rate, CV, local variation, Fano factor, synchrony, correlation.

    As `summary=` of a ForwardModel whose monitor is `vb.monitors.Rates`, of its last window: means over neurons, CV and
    local variation over those with at least three spikes (0 if there are none), then synchrony and correlation. Silence
    is a value, not a failure.

    >>> FiringSummary().names
    ('rate', 'cv', 'lv', 'fano', 'synchrony', 'correlation')
    """

    names: ClassVar[tuple[str, ...]] = ("rate", "cv", "lv", "fano", "synchrony", "correlation")

    def __call__(self, y: Any) -> Array:
        enough = y.count[-1] >= 3.0
        share = enough / jnp.maximum(enough.sum(), 1)
        means = [y.rate[-1].mean(), (share * y.cv[-1]).sum(), (share * y.lv[-1]).sum(), y.fano[-1].mean()]
        return jnp.stack([*means, y.synchrony[-1], y.correlation[-1]])
