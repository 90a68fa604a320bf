"""Measurement models: what lies between activity and recording.

Parts with declared parameters, each with a path and so with a prior, joined by a `Chain`:

    observe = vb.measurement.Chain({"global": GlobalSignal(amplitude=0.8), "thermal": Thermal(amplitude=0.5)})
    fwd = vb.ForwardModel(sim, t1=..., summary=..., observe=observe)  # paths observe.global.amplitude, ...

Amplitudes are relative to sd, the mean over channels of the standard deviation over time of what enters the chain: a
recording in arbitrary units leaves nothing else to compare with. What is done to simulation and recording alike
(filters, regression, parcels) is `Summary(preprocess=)`.
"""

import abc
import math
import zlib
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import NAMED, Param, Parametrised, param, paths
from vbinfer.features.numeric import time_centre

SECONDS_PER_MS = 1e-3
MINUTES_PER_MS = 1.0 / 60_000.0


class AbstractPart(Parametrised):
    """Base of the parts of a measurement.

    A part is unbatched mathematics; batches are its `vmap`.
    """

    @abc.abstractmethod
    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        """The recording after this part, `[T, N]`.

        Args:
            y: the recording before it, `[T, N]`.
            sd: the scale of what entered the chain, a scalar.
            period: between two samples, ms.
            key: this part's own.
        """

    def check_channels(self, n: int) -> None:
        """Raise ValueError unless the parameters fit `n` channels."""
        for name, leaf in paths(self).items():
            if leaf.value.ndim == 1 and len(leaf.value) not in (1, n):
                raise ValueError(
                    f"{type(self).__name__}.{name} has {len(leaf.value)} values for {n} channels; give one number, or "
                    "one per channel"
                )


class GlobalSignal(AbstractPart):
    """Global physiological signal: one slow course in all regions.

    y_i(t) <- y_i(t) + amplitude sd g(t) (gain_i + spread z_i),   z_i ~ N(0, 1)
    g(0) ~ N(0, 1),   g(t) = rho g(t - period) + sqrt(1 - rho^2) e(t),   rho = exp(-period / tau)

    Respiration, heart rate and arousal move the whole brain, some regions more and some against the others: z is drawn
    once per recording, and gains of either sign give correlations of either sign. Over realisations what is added has
    covariance (amplitude sd)^2 rho^|k| (gain_i gain_j + spread^2 delta_ij) at k samples apart.
    Liu, Nalci & Falahpour 2017, doi:10.1016/j.neuroimage.2017.02.036.
    """

    amplitude: Param = param(1.0, low=0.0, doc="of the signal, in sd of the regions")
    spread: Param = param(0.5, low=0.0, doc="sd of the gains over regions")
    tau: Param = param(5_000.0, unit="ms", low=1e-3, doc="time constant of the signal")
    gain: Param = param(1.0, doc="mean gain, of each region where they are known")

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        k_course, k_gain = random.split(key)
        e, rho = random.normal(k_course, y.shape[:1], y.dtype), jnp.exp(-period / self.tau)
        fresh = jnp.sqrt(-jnp.expm1(-2.0 * period / self.tau))  # sqrt(1 - rho^2), also where rho is nearly 1

        def step(g: Array, noise: Array) -> tuple[Array, Array]:
            g = rho * g + fresh * noise
            return g, g

        g = jnp.concatenate([e[:1], jax.lax.scan(step, e[0], e[1:])[1]])
        gain = self.gain + self.spread * random.normal(k_gain, y.shape[1:], y.dtype)
        return y + self.amplitude * sd * g[:, None] * gain


class Thermal(AbstractPart):
    """White noise of each channel's own.

    y_i(t) <- y_i(t) + amplitude sd e_i(t),   e ~ N(0, 1) independent over time and channels
    """

    amplitude: Param = param(0.5, low=0.0, doc="in sd of the channels; one number, or one per channel")

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        return y + self.amplitude * sd * random.normal(key, y.shape, y.dtype)


class Drift(AbstractPart):
    """Slow drift of each channel's own: cosines above a period.

    y_i(t) <- y_i(t) + amplitude sd sqrt(2 / K) sum_{k=1}^{K} z_ik cos(pi k (t + 1/2) / T),   z ~ N(0, 1)

    t counts samples 0 ... T - 1; K = floor(2 T period / cutoff) are all cosines of at least `cutoff` ms, the basis that
    SPM's high-pass filter removes. Each has mean 0, and the variance over time is (amplitude sd)^2 on average.
    """

    amplitude: Param = param(0.5, low=0.0, doc="in sd of the channels; one number, or one per channel")
    cutoff: float = eqx.field(
        static=True, default=128_000.0, converter=lambda v: _check.milliseconds(v, "cutoff", "cutoff=128_000.0")
    )

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        length = y.shape[0]
        count = min(math.floor(2.0 * length * period / self.cutoff + 1e-6), length - 1)
        if count < 1:
            raise ValueError(
                f"Drift(cutoff={self.cutoff:g}) finds no cosine in {length * period:g} ms; give a cutoff "
                f"of at most {2.0 * length * period:g}"
            )
        waves = jnp.cos(jnp.pi / length * (jnp.arange(length) + 0.5)[:, None] * jnp.arange(1, count + 1))
        z = random.normal(key, (count, y.shape[1]), y.dtype)
        return y + self.amplitude * sd * math.sqrt(2.0 / count) * (waves.astype(y.dtype) @ z)


class MotionSpikes(AbstractPart):
    """Displaced samples at random times, all channels at once.

    y_i(t) <- y_i(t) + amplitude sd b(t) e_i(t),   e ~ N(0, 1),   b ~ Bernoulli(1 - exp(-rate period))

    The rate decides which samples are hit, so the derivative with respect to it is 0.
    """

    amplitude: Param = param(3.0, low=0.0, doc="of a spike, in sd of the channels")
    rate: Param = param(1.0, unit="1/min", low=0.0, doc="spikes in a minute")

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        k_when, k_size = random.split(key)
        hit = random.uniform(k_when, (y.shape[0], 1), y.dtype) < -jnp.expm1(-self.rate * period * MINUTES_PER_MS)
        return y + jnp.where(hit, self.amplitude * sd * random.normal(k_size, y.shape, y.dtype), 0.0)


class Gain(AbstractPart):
    """Gain and offset of each channel.

    y_i(t) <- gain_i exp(spread z_i) y_i(t) + offset_i,   z ~ N(0, 1), drawn once per recording
    """

    gain: Param = param(1.0, doc="one number, or one per channel")
    offset: Param = param(0.0, doc="in units of the recording; one number, or one per channel")
    spread: Param = param(0.0, low=0.0, doc="sd over channels of the log of a gain that is not known")

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        return self.gain * jnp.exp(self.spread * random.normal(key, y.shape[1:], y.dtype)) * y + self.offset


class Reference(AbstractPart):
    """Reference of an EEG, a channel or the average.

    y_i(t) <- y_i(t) - (r(t) + amplitude sd e(t)),   r = y_channel, or the mean over channels;   e ~ N(0, 1) white

    Noise of the reference is in every channel.
    """

    amplitude: Param = param(0.0, low=0.0, doc="noise of the reference, in sd of the channels")
    channel: int | None = eqx.field(static=True, default=None)
    """Number of the reference channel, from 0; None for the average."""

    def validate(self) -> None:
        if self.channel is not None:
            _check.count(self.channel, "channel", 0, least=0)

    def check_channels(self, n: int) -> None:
        super().check_channels(n)
        if self.channel is not None and self.channel >= n:
            raise ValueError(f"Reference(channel={self.channel}) was given with {n} channels; give 0 to {n - 1}")

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        reference = y.mean(axis=1) if self.channel is None else y[:, self.channel]
        noise = self.amplitude * sd * random.normal(key, y.shape[:1], y.dtype)
        return y - (reference + noise)[:, None]


class LineNoise(AbstractPart):
    """Mains hum in all channels.

    y_i(t) <- y_i(t) + amplitude sd sqrt(2) sin(2 pi frequency t + phi) (1 + spread z_i)

    phi ~ U(0, 2 pi) and z_i ~ N(0, 1) are drawn once per recording. A frequency above half the sampling rate shows
    where it is folded to, as in a recording without an anti-aliasing filter.
    """

    amplitude: Param = param(0.5, low=0.0, doc="root mean square of the hum, in sd of the channels")
    frequency: Param = param(50.0, unit="Hz", low=0.0, doc="of the mains; 60 in the Americas")
    spread: Param = param(0.0, low=0.0, doc="sd of the gains over channels")

    def __call__(self, y: Array, sd: Array, period: float, key: PRNGKey) -> Array:
        k_phase, k_gain = random.split(key)
        cycles = self.frequency * period * SECONDS_PER_MS * jnp.arange(y.shape[0]) + random.uniform(k_phase)
        hum = math.sqrt(2.0) * jnp.sin(2.0 * jnp.pi * cycles).astype(y.dtype)
        gain = 1.0 + self.spread * random.normal(k_gain, y.shape[1:], y.dtype)
        return y + self.amplitude * sd * hum[:, None] * gain


class Chain(eqx.Module):
    """Parts of a measurement, one after the other.

    Each part takes what the one before it gave. Its randomness comes from the key and its own name, so that another
    part, or another order, changes nothing in it.

    Args:
        parts: name to part; names become paths, `observe.<name>.<parameter>`.

    >>> import jax, vbinfer as vb
    >>> chain = Chain({"global": GlobalSignal(amplitude=0.8), "thermal": Thermal()})
    >>> sorted(vb.paths(chain))[:2]
    ['global.amplitude', 'global.gain']
    >>> chain(jax.numpy.ones((4, 3)), 720.0, jax.random.key(0)).tolist() == [[1.0] * 3] * 4  # relative to an sd of 0
    True
    """

    parts: dict[str, AbstractPart] = eqx.field(metadata=NAMED)
    order: tuple[str, ...] = eqx.field(static=True)  # a dictionary comes out of jit sorted

    def __init__(self, parts: Mapping[str, Any]):
        if not isinstance(parts, Mapping) or not parts:
            raise TypeError(f'Chain was given {parts!r}; write Chain({{"thermal": vb.measurement.Thermal()}})')
        for name, part in parts.items():
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"a part is named {name!r}; give a word without a point, it becomes part of a path")
            if not isinstance(part, AbstractPart):
                raise TypeError(f"part {name!r} is {part!r}; give an object such as vb.measurement.Thermal()")
        self.parts, self.order = dict(parts), tuple(parts)

    def __call__(self, y: Array, period: float, key: PRNGKey) -> Array:
        """The recording `[T, N]` of a signal `[T, N]`.

        Args:
            y: the signal; its scale is that of every amplitude.
            period: between two samples, ms.
            key: of this recording.
        """
        self.check_channels(y.shape[1])
        _, sd, constant = time_centre(y)
        scale = jnp.where(constant, 0.0, sd).mean()
        for name in self.order:
            y = self.parts[name](y, scale, period, random.fold_in(key, zlib.crc32(name.encode())))
        return y

    def check_channels(self, n: int) -> None:
        """Raise ValueError unless every part fits `n` channels."""
        for part in self.parts.values():
            part.check_channels(n)
