"""Haemodynamic response functions as small linear filters.

Exact for an input that is constant over a step.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import count
from vbinfer._param import Param, Parametrised, is_traced, param

TVB_BLOCK = 4e-3
"""s; the blocks of which TVB's Bold monitor keeps the means."""


class AbstractKernel(Parametrised):
    """A response function G and its filter, time in s.

    y(t) = int_0^inf G(s) u(t - s) ds

    Every kernel here is the impulse response of a linear differential equation, so that a handful of numbers for each
    node stand for the whole past: no window, no truncation, and every constant has a gradient.
    """

    @abc.abstractmethod
    def __call__(self, t: Array) -> Array:
        """G(t), 1/s, t seconds after an impulse."""

    def check_block(self, seconds: float) -> None:
        """Raise ValueError unless it can advance by that much."""

    @abc.abstractmethod
    def init(self, like: Array) -> Any:
        """The filter at rest, for an input of this shape."""

    @abc.abstractmethod
    def advance(self, state: Any, u: Array, seconds: float) -> Any:
        """The filter after a constant input u of that duration."""

    @abc.abstractmethod
    def output(self, state: Any) -> Array:
        """The response y."""


def _gamma(t: Array, n: int, tau: Array) -> Array:
    """Gamma density of shape n and scale tau."""
    x = jnp.maximum(t, 0.0) / tau
    # a product in which no factor overflows
    rise = math.prod((x / j * jnp.exp(-x / (n - 1)) for j in range(1, n)), start=jnp.ones_like(x))
    return jnp.where(t < 0.0, 0.0, (rise if n > 1 else jnp.exp(-x)) / tau)


def _chain(stages: tuple[Array, ...], u: Array, x: Array) -> tuple[Array, ...]:
    """n equal low-pass filters in series, x time constants later.

    The response of the last one is a gamma function, exactly for a constant input u:

    tau dz_k/dt = z_{k-1} - z_k,  z_0 = u:  z_k - u after x is sum_j e^-x x^j / j! (z_{k-j} - u before)
    """
    # e^-x x^j / j!, each from the one before: shares of a Poisson process that moves j stages on
    weights = [jnp.exp(-x)]
    for j in range(1, len(stages)):
        weights.append(weights[-1] * x / j)
    before = [z - u for z in stages]  # distance from the fixed point, which is u for every stage
    return tuple(u + sum(weights[j] * before[k - j] for j in range(k + 1)) for k in range(len(stages)))


class GammaKernel(AbstractKernel):
    """A gamma function (Boynton et al. 1996, doi:10.1523/JNEUROSCI.16-13-04207.1996).

    G(t) = amplitude (t / tau)^(shape - 1) e^(-t / tau) / (tau (shape - 1)!);   peak at (shape - 1) tau, area amplitude

    The paper adds a delay of 2 to 2.5 s, which has no finite filter: shift the recording instead.

    Args:
        shape: whole number of filters in the chain, fixed.
    """

    shape: int = eqx.field(static=True, default=3)
    tau: Param = param(1.08, unit="s", low=1e-6, doc="time constant of each filter")
    amplitude: Param = param(1.0, doc="area under the response")

    def validate(self) -> None:
        count(self.shape, "shape", 3)

    def __call__(self, t: Array) -> Array:
        return self.amplitude * _gamma(t, self.shape, self.tau)

    def init(self, like: Array) -> tuple[Array, ...]:
        return (jnp.zeros_like(like),) * self.shape

    def advance(self, state: tuple[Array, ...], u: Array, seconds: float) -> tuple[Array, ...]:
        return _chain(state, u, seconds / self.tau)

    def output(self, state: tuple[Array, ...]) -> Array:
        return self.amplitude * state[-1]


class DoubleGammaKernel(AbstractKernel):
    """A gamma function and its undershoot; SPM's by default.

    G(t) = amplitude [g(t; shape, tau) - ratio g(t; undershoot_shape, undershoot_tau)]
    g(t; n, tau) = (t / tau)^(n - 1) e^(-t / tau) / (tau (n - 1)!)

    The area is amplitude (1 - ratio); SPM divides by it. `DoubleGammaKernel(6, 13, ratio=0.4)` is TVB's mixture of
    gammas, after Glover 1999 (doi:10.1006/nimg.1998.0419). The default: Friston et al. 1998
    (doi:10.1006/nimg.1997.0306).

    Args:
        shape: whole number of filters of the response, fixed.
        undershoot_shape: the same of the undershoot.
    """

    shape: int = eqx.field(static=True, default=6)
    undershoot_shape: int = eqx.field(static=True, default=16)
    tau: Param = param(1.0, unit="s", low=1e-6, doc="time constant of the response's filters")
    undershoot_tau: Param = param(1.0, unit="s", low=1e-6, doc="time constant of the undershoot's filters")
    ratio: Param = param(1.0 / 6.0, doc="area of the undershoot over that of the response")
    amplitude: Param = param(1.0, doc="area of the response without the undershoot")

    def validate(self) -> None:
        count(self.shape, "shape", 6)
        count(self.undershoot_shape, "undershoot_shape", 16)

    def __call__(self, t: Array) -> Array:
        under = _gamma(t, self.undershoot_shape, self.undershoot_tau)
        return self.amplitude * (_gamma(t, self.shape, self.tau) - self.ratio * under)

    def init(self, like: Array) -> tuple[tuple[Array, ...], ...]:
        zero = jnp.zeros_like(like)
        return (zero,) * self.shape, (zero,) * self.undershoot_shape

    def advance(self, state: tuple[tuple[Array, ...], ...], u: Array, seconds: float) -> tuple[tuple[Array, ...], ...]:
        return _chain(state[0], u, seconds / self.tau), _chain(state[1], u, seconds / self.undershoot_tau)

    def output(self, state: tuple[tuple[Array, ...], ...]) -> Array:
        response, under = state
        return self.amplitude * (response[-1] - self.ratio * under[-1])


def _wave(t: Array, tau: Array, omega: Array) -> Array:
    """e^(-t / tau) sin(omega t) from t = 0 on."""
    late = jnp.maximum(t, 0.0)  # the exponential of a negative time would overflow, and its gradient be NaN
    return jnp.exp(-late / tau) * jnp.sin(omega * late)


def _turn(tau: Array, omega: Array, seconds: float) -> tuple[Array, Array]:
    """e^(lambda h) as two real numbers.

    lambda = -1 / tau + i omega
    """
    decay, angle = jnp.exp(-seconds / tau), omega * seconds
    return decay * jnp.cos(angle), decay * jnp.sin(angle)


def _oscillate(z: tuple[Array, ...], u: Array, tau: Array, omega: Array, seconds: float) -> tuple[Array, Array]:
    """One step of a damped oscillation, exact.

    Complex z of z' = lambda z + u for constant u, lambda = -1 / tau + i omega; Im z responds to an impulse by `_wave`.
    """
    re, im = z
    rate = -1.0 / tau
    turn_re, turn_im = _turn(tau, omega, seconds)
    # e^(lambda h) - 1 without the loss of digits of a small difference
    gone = jnp.expm1(rate * seconds) * jnp.cos(omega * seconds) - 2.0 * jnp.sin(0.5 * omega * seconds) ** 2
    size = rate**2 + omega**2  # |lambda|^2: the gain is (e^(lambda h) - 1) / lambda
    gain_re, gain_im = (gone * rate + turn_im * omega) / size, (turn_im * rate - gone * omega) / size
    return turn_re * re - turn_im * im + gain_re * u, turn_im * re + turn_re * im + gain_im * u


class VolterraKernel(AbstractKernel):
    """First Volterra kernel of the haemodynamics, as TVB writes it.

    y(t) = k1 V0 int_0^inf G(s) u(t - s) ds
    G(t) = e^(-t / (2 tau_s)) sin(omega t) / (3 omega),   omega = sqrt(1 / tau_f - 1 / (4 tau_s^2))

    This is the inflow f of ds/dt = u/3 - s/tau_s - f/tau_f, df/dt = s. Zero input gives zero; the signal of TVB's Bold
    monitor is another multiple with an offset, see `TvbVolterraKernel`. Inside a trace, 4 tau_s^2 <= tau_f gives NaN.

    Friston et al. 2000, doi:10.1006/nimg.2000.0630
    """

    tau_s: Param = param(0.8, unit="s", low=1e-6, doc="decay of the vasodilatory signal")
    tau_f: Param = param(0.4, unit="s^2", low=1e-6, doc="feedback of the inflow on it")
    k1: Param = param(5.6, doc="weight of the signal")
    V0: Param = param(0.02, low=0.0, doc="resting venous blood volume fraction")

    def validate(self) -> None:
        if is_traced(self.tau_s, self.tau_f):
            return
        if np.any(np.asarray(self.tau_f) >= 4.0 * np.asarray(self.tau_s) ** 2):
            raise ValueError(
                f"{type(self).__name__}: tau_f is {self.tau_f} s and tau_s {self.tau_s} s; "
                "the response oscillates only while tau_f < 4 tau_s^2"
            )

    def omega(self) -> Array:
        """Angular frequency, rad/s; NaN where it is overdamped."""
        return jnp.sqrt(1.0 / self.tau_f - 0.25 / self.tau_s**2)

    def __call__(self, t: Array) -> Array:
        omega = self.omega()
        return self.k1 * self.V0 * _wave(t, 2.0 * self.tau_s, omega) / (3.0 * omega)

    def init(self, like: Array) -> tuple[Array, ...]:
        return jnp.zeros_like(like), jnp.zeros_like(like)

    def advance(self, state: tuple[Array, ...], u: Array, seconds: float) -> tuple[Array, ...]:
        return _oscillate(state, u, 2.0 * self.tau_s, self.omega(), seconds)

    def output(self, state: tuple[Array, ...]) -> Array:
        return self.k1 * self.V0 * state[1] / (3.0 * self.omega())


class DampedSinesKernel(AbstractKernel):
    """A difference of two damped sine waves.

    TVB's double exponential (Polonsky et al. 2000, doi:10.1038/80676):

    G(t) = amp_1 e^(-t / tau_1) sin(2 pi f_1 t) - amp_2 e^(-t / tau_2) sin(2 pi f_2 t)

    TVB rescales it to a peak of 0.1; here it is as written.
    """

    amp_1: Param = param(0.1, unit="1/s", doc="amplitude of the slow wave")
    tau_1: Param = param(7.22, unit="s", low=1e-6, doc="decay of the slow wave")
    f_1: Param = param(0.03, unit="Hz", low=0.0, doc="frequency of the slow wave")
    amp_2: Param = param(0.1, unit="1/s", doc="amplitude of the fast wave")
    tau_2: Param = param(7.4, unit="s", low=1e-6, doc="decay of the fast wave")
    f_2: Param = param(0.12, unit="Hz", low=0.0, doc="frequency of the fast wave")

    def __call__(self, t: Array) -> Array:
        slow = _wave(t, self.tau_1, 2.0 * jnp.pi * self.f_1)
        return self.amp_1 * slow - self.amp_2 * _wave(t, self.tau_2, 2.0 * jnp.pi * self.f_2)

    def init(self, like: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        rest = jnp.zeros_like(like), jnp.zeros_like(like)
        return rest, rest

    def advance(
        self, state: tuple[tuple[Array, Array], tuple[Array, Array]], u: Array, seconds: float
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        slow, fast = state
        return (
            _oscillate(slow, u, self.tau_1, 2.0 * jnp.pi * self.f_1, seconds),
            _oscillate(fast, u, self.tau_2, 2.0 * jnp.pi * self.f_2, seconds),
        )

    def output(self, state: tuple[tuple[Array, Array], tuple[Array, Array]]) -> Array:
        (_, slow), (_, fast) = state
        return self.amp_1 * slow - self.amp_2 * fast


class TvbVolterraKernel(VolterraKernel):
    """The Bold monitor of The Virtual Brain, for comparison.

    y_n = k1 V0 (sum_{j=0}^inf G(j h) u_{n-1-j} - 1)

    h is 4 ms, u_n the mean of the newest block, and G is the damped oscillation of `VolterraKernel`. Unlike an integral
    the sum has no factor h (250 times the convolution in seconds), the newest block does not count, and rest is at
    -k1 V0. TVB cuts the sum off at 20 s, where G has fallen to 4e-6 of its beginning. Needs
    `HRF(..., step=4.0)` and a period that is a multiple of 4 ms.
    """

    def __call__(self, t: Array) -> Array:
        return super().__call__(t) / TVB_BLOCK

    def init(self, like: Array) -> tuple[Array, ...]:
        return jnp.zeros_like(like), jnp.zeros_like(like), jnp.zeros_like(like)

    def check_block(self, seconds: float) -> None:
        if abs(seconds - TVB_BLOCK) > 1e-9:
            raise ValueError(
                f"TVB's kernel counts blocks of 4 ms, not of {1e3 * seconds:g} ms; write HRF(..., step=4.0) with a "
                "period that is a multiple of 4 ms, itself a multiple of dt"
            )

    def advance(self, state: tuple[Array, ...], u: Array, seconds: float) -> tuple[Array, ...]:
        self.check_block(seconds)
        re, im, newest = state  # the newest block counts from the next one on
        turn_re, turn_im = _turn(2.0 * self.tau_s, self.omega(), seconds)
        return turn_re * re - turn_im * im + newest, turn_im * re + turn_re * im, u

    def output(self, state: tuple[Array, ...]) -> Array:
        return self.k1 * self.V0 * (state[1] / (3.0 * self.omega()) - 1.0)
