"""Spikes inside the loop, as times and as statistics."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._check import count
from vbinfer.monitors.base import AbstractMonitor, period_ms, steps_in


class AbstractSpikeMonitor(AbstractMonitor):
    """Base of monitors of models that show `z` and `since`."""

    by_node: ClassVar[bool] = False
    var: str = eqx.field(static=True, default="z", init=False)

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        if not {"z", "since"} <= set(variables):
            raise ValueError(
                f"{type(self).__name__} records spikes, and the model shows {', '.join(variables)}; use it with a "
                "neuron of vb.spiking, or a model that shows z, 1 in the step of a spike, and since, ms since the last"
            )
        return ("z", "since")

    def sample_shape(self, n: int) -> None:
        return None

    def stride(self, dt: float) -> int:
        return 1

    def observe(self, carry: Any, x: dict[str, Array]) -> Any:
        return carry._replace(z=x["z"] > 0.0, since=x["since"])


class SpikeTimes(NamedTuple):
    """What `Spikes` records."""

    times: Array
    """ms, `[N, max]`, in order; NaN beyond the last spike of a neuron."""
    count: Array
    """Spikes of each neuron, `[N]`, those that found no room included."""

    @property
    def overflow(self) -> Array:
        """Whether a neuron had more spikes than room."""
        return (self.count > self.times.shape[-1]).any(axis=-1)


class _Train(NamedTuple):
    step: Array
    z: Array
    since: Array
    times: Array
    count: Array


class Spikes(AbstractSpikeMonitor):
    """Spike times of every neuron.

    `ys[name]` is a `SpikeTimes`: `times` `[N, max]` and `count` `[N]`. A spike that falls within a step has its
    crossing time. A neuron with more than `max` spikes overflows: later times are lost, `count` and `overflow` say so,
    and the draw of a ForwardModel is invalid.

    Args:
        max: room for spikes of each neuron.
    """

    at_end: ClassVar[bool] = True
    max: int = eqx.field(static=True, converter=lambda value: count(value, "max", 1_000))
    period: float | None = eqx.field(static=True, default=None, init=False)

    def init(self, x: dict[str, Array]) -> _Train:
        z = jnp.zeros_like(x["z"])
        times = jnp.full((self.max, *z.shape), jnp.nan, z.dtype)
        return _Train(jnp.zeros((), jnp.int32), z > 0.0, z, times, jnp.zeros(z.shape, jnp.int32))

    def update(self, carry: _Train, dt: float) -> _Train:
        step, flat = carry.step + 1, carry.z.reshape(-1)

        def note(times: Array) -> Array:
            row = jnp.where(carry.z, carry.count, self.max).reshape(-1)  # no room for those that did not spike
            now = (step * dt - carry.since).astype(times.dtype).reshape(-1)
            return times.reshape(self.max, -1).at[row, jnp.arange(flat.size)].set(now, mode="drop").reshape(times.shape)

        times = jax.lax.cond(flat.any(), note, lambda times: times, carry.times)
        return carry._replace(step=step, times=times, count=carry.count + carry.z)

    def sample(self, carry: _Train, x: dict[str, Array]) -> tuple[_Train, SpikeTimes]:
        return carry, SpikeTimes(jnp.moveaxis(carry.times, 0, 1), carry.count)

    def after(self, y: SpikeTimes, transient: float) -> SpikeTimes:
        """Without spikes up to `transient` ms, sorted to the front."""
        kept = jnp.where(y.times > transient, y.times, jnp.nan)
        return SpikeTimes(jnp.sort(kept, axis=-1), y.count - (y.times <= transient).sum(axis=-1))

    def failed(self, y: SpikeTimes) -> Array:
        return y.overflow


class Firing(NamedTuple):
    """What `Rates` records of each window."""

    count: Array
    """Spikes, `[N]`."""
    rate: Array
    """Spikes per s, `[N]`."""
    cv: Array
    """Standard deviation of the intervals over their mean, `[N]`; 0 with fewer than two intervals."""
    lv: Array
    """Local variation of the intervals, `[N]`; 0 with fewer than two."""
    fano: Array
    """Variance of the counts in bins over their mean, `[N]`; 0 where silent."""
    synchrony: Array
    """sqrt(variance of the population's mean count / mean variance of a neuron's count)."""
    correlation: Array
    """Mean covariance of the counts of two neurons over their mean variance."""


class _Window(NamedTuple):
    total: Array
    """Steps since time zero."""
    step: Array
    """Steps of this window."""
    z: Array
    since: Array
    count: Array
    last: Array
    """Time of the last spike in the window, ms from its beginning."""
    interval: Array
    mean: Array
    square: Array
    local: Array
    bins: Array
    """Number of bins so far."""
    open: Array
    """Counts of the open bin."""
    bin_mean: Array
    bin_square: Array
    all_mean: Array
    all_square: Array
    ms: Array
    """Length of the window that counts."""


class Rates(AbstractSpikeMonitor):
    """Statistics of firing in windows of `period`, in O(N) memory.

    `ys[name]` is a `Firing` with leaves `[T, N]`, and `[T]` for the population: count, rate, cv, lv, fano, synchrony,
    correlation. Intervals are those between two spikes of the window, to the crossing times; variances have n - 1. For
    the series of the population's rate use `TimeAverage(1.0, "z")`.

    cv = sd(I) / mean(I);   lv = 3 / (n - 1) sum_k ((I_k - I_k+1) / (I_k + I_k+1))^2   of n intervals
    fano = var(c) / mean(c);   synchrony^2 = var(mean_i c_i) / mean_i var(c_i)   of counts c in bins

    doi:10.1162/089976603322518759 (Shinomoto, Shima & Tanji 2003), doi:10.1007/978-3-642-37583-5 (synchrony)

    Args:
        period: ms of a window.
        every: ms of a bin of counts.
        start: ms at the beginning that are left out.
    """

    period: float | None = eqx.field(static=True, converter=period_ms)
    every: float | None = eqx.field(static=True, default=5.0, converter=period_ms, kw_only=True)
    start: float = eqx.field(static=True, default=0.0, converter=float, kw_only=True)

    def validate(self) -> None:
        if self.period is None or self.every is None or self.every > self.period:
            raise ValueError(
                f"Rates(period={self.period}, every={self.every}) was given; expected ms, and bins no longer than a "
                "window: Rates(period=1000.0, every=5.0)"
            )
        if not 0.0 <= self.start < float("inf"):
            raise ValueError(f"Rates(start={self.start}) was given; expected ms, not negative")

    def stride(self, dt: float) -> int:
        steps_in(self.every or 0.0, dt, "every of Rates")
        return 1

    def init(self, x: dict[str, Array]) -> _Window:
        none, zero = jnp.zeros((), jnp.int32), jnp.zeros_like(x["z"])
        one = zero[0]
        start = dict.fromkeys(_Window._fields, zero) | dict.fromkeys(("total", "step", "bins"), none)
        start |= {"z": zero > 0.0, "all_mean": one, "all_square": one, "ms": jnp.zeros((), zero.dtype)}
        return _Window(**start)

    def update(self, carry: _Window, dt: float) -> _Window:
        total, step = carry.total + 1, carry.step + 1
        first = round(self.start / dt)
        z = carry.z & (total > first)
        new = self._interval(carry, z, (step * dt - carry.since).astype(carry.last.dtype))
        counted = carry.open + z
        per_bin = steps_in(self.every or dt, dt, "every of Rates")
        # bins start where counting does: with the window, or with `start` inside of it
        into = jnp.minimum(step, total - first)
        full = (into > 0) & (into % per_bin == 0)
        new = new._replace(
            total=total,
            step=step,
            count=carry.count + z,
            open=jnp.where(full, 0.0, counted),
            ms=jnp.maximum(into, 0) * jnp.asarray(dt, carry.ms.dtype),
        )
        return jax.lax.cond(full, lambda w: _binned(w, counted), lambda w: w, new)

    def _interval(self, carry: _Window, z: Array, now: Array) -> _Window:
        """Welford's update with the intervals that end in this step."""
        interval = now - carry.last
        k = carry.count - 1.0  # intervals before this one
        ends, again = z & (k >= 0.0), z & (k >= 1.0)
        d = interval - carry.mean
        mean = carry.mean + d / jnp.maximum(k + 1.0, 1.0)
        total = jnp.where(again, interval + carry.interval, 1.0)
        return carry._replace(
            last=jnp.where(z, now, carry.last),
            interval=jnp.where(ends, interval, carry.interval),
            mean=jnp.where(ends, mean, carry.mean),
            square=carry.square + jnp.where(ends, d * (interval - mean), 0.0),
            local=carry.local + jnp.where(again, ((interval - carry.interval) / total) ** 2, 0.0),
        )

    def sample(self, carry: _Window, x: dict[str, Array]) -> tuple[_Window, Firing]:
        n, intervals = len(carry.count), carry.count - 1.0
        enough = intervals >= 2.0
        fewer = jnp.where(enough, intervals - 1.0, 1.0)
        spread = jnp.where(carry.square > 0.0, carry.square, 1.0)  # before the root, so that gradients stay finite
        of_bins = jnp.maximum(carry.bins - 1, 1).astype(carry.mean.dtype)
        var, var_all = carry.bin_square / of_bins, carry.all_square / of_bins
        each = var.mean(axis=0)
        some = jnp.where(each > 0.0, each, 1.0)
        seconds = jnp.where(carry.ms > 0.0, carry.ms, 1.0) * 1e-3
        y = Firing(
            carry.count,
            carry.count / seconds,
            jnp.where(
                enough & (carry.square > 0.0), jnp.sqrt(spread / fewer) / jnp.where(enough, carry.mean, 1.0), 0.0
            ),
            jnp.where(enough, 3.0 * carry.local / fewer, 0.0),
            jnp.where(carry.bin_mean > 0.0, var / jnp.where(carry.bin_mean > 0.0, carry.bin_mean, 1.0), 0.0),
            jnp.sqrt(var_all / some),
            jnp.where(each > 0.0, (n * var_all / some - 1.0) / max(n - 1, 1), 0.0),
        )
        return self.init({"z": carry.count, "since": carry.since})._replace(total=carry.total), y


def _binned(w: _Window, counts: Array) -> _Window:
    """The window with a full bin of counts."""
    bins = w.bins + 1
    share = 1.0 / bins.astype(w.bin_mean.dtype)
    d, d_all = counts - w.bin_mean, counts.mean(axis=0) - w.all_mean
    mean, all_mean = w.bin_mean + share * d, w.all_mean + share * d_all
    return w._replace(
        bins=bins,
        bin_mean=mean,
        bin_square=w.bin_square + d * (counts - mean),
        all_mean=all_mean,
        all_square=w.all_square + d_all * (counts.mean(axis=0) - all_mean),
    )
