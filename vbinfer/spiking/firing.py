"""Features of what `vb.monitors.Rates` and `Spikes` record."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _check


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


class TrainSummary(eqx.Module):
    """Count, latency, and intervals of one neuron's spikes.

    As `summary=` of a ForwardModel whose monitor is `vb.monitors.Spikes`, of neuron 0: number of spikes; time of the
    first (ms; `silent` if there is none); first and last interval and their mean (0 with fewer than two spikes); CV
    of the intervals (0 with fewer than three).

    Args:
        silent: the latency of a train without spikes, ms.

    >>> import jax.numpy as jnp, vbinfer as vb
    >>> y = vb.monitors.SpikeTimes(jnp.array([[10.0, 20.0, 50.0, jnp.nan]]), jnp.array([3]))
    >>> dict(zip(TrainSummary.names, TrainSummary()(y).tolist()))
    {'count': 3.0, 'latency': 10.0, 'first_interval': 10.0, 'last_interval': 30.0, 'mean_interval': 20.0, 'cv': 0.5}
    """

    names: ClassVar[tuple[str, ...]] = ("count", "latency", "first_interval", "last_interval", "mean_interval", "cv")
    silent: float = eqx.field(static=True, default=1e3)

    def __check_init__(self) -> None:
        _check.number(self.silent, "silent", 1e3)

    def __call__(self, y: Any) -> Array:
        times, n = y.times[0], jnp.minimum(y.count[0], y.times.shape[-1])
        interval = jnp.nan_to_num(jnp.diff(times))  # those beyond the last spike are NaN
        m = jnp.maximum(n - 1, 0)
        mean = interval.sum() / jnp.maximum(m, 1)
        off = jnp.where(jnp.arange(len(interval)) < m, interval - mean, 0.0)
        # of few intervals, with their number and not one less
        cv = jnp.where(m > 1, jnp.sqrt((off**2).sum() / jnp.maximum(m, 1)) / jnp.where(mean > 0.0, mean, 1.0), 0.0)
        latency = jnp.where(n > 0, jnp.nan_to_num(times[0]), self.silent)
        last = interval[jnp.maximum(m - 1, 0)]
        return jnp.stack([n.astype(mean.dtype), latency, interval[0], last, mean, cv])
