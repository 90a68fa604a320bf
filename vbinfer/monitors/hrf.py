"""BOLD as the convolution of a state variable with a haemodynamic response."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.monitors.base import AbstractMonitor, block_steps, longest_ms, positive_ms
from vbinfer.monitors.kernels import AbstractKernel, DoubleGammaKernel
from vbinfer.monitors.raw import chosen

SECONDS_PER_MS = 1e-3


class _Carry(NamedTuple):
    total: Array
    count: Array
    filter: Any


class HRF(AbstractMonitor):
    """BOLD from a state variable u by convolution with a haemodynamic response G, time in s: `[T, N]`.

    y(t) = int_0^t G(s) u(t - s) ds

    The state variable is averaged over `step`, and G acts on the means exactly: it is the impulse response of a linear
    differential equation, so the whole past is a few numbers for each node and no window is cut off. It starts at
    rest, and zero input gives zero. Linear, unlike `BalloonWindkessel`: no saturation, and the sum of two inputs gives
    the sum of their responses.

    Args:
        var: the state variable that drives the signal.
        period: repetition time, ms.
        kernel: the response; `DoubleGammaKernel()` (the canonical one of SPM) if none is given. Its constants are
            parameters, `"monitors.bold.kernel.tau"`, numbers or one for each node. docs/bold.md has their responses.
        step: longest block that is averaged, ms; the largest divisor of the period that is a multiple of dt.

    >>> from vbinfer.monitors import GammaKernel
    >>> HRF("S", period=720.0, kernel=GammaKernel(shape=3, tau=1.25)).period
    720.0
    """

    var: str = eqx.field(static=True)
    period: float | None = eqx.field(static=True, converter=positive_ms)
    kernel: AbstractKernel = eqx.field(default_factory=DoubleGammaKernel)
    step: float = eqx.field(static=True, default=10.0, converter=longest_ms, kw_only=True)

    def validate(self) -> None:
        if not isinstance(self.kernel, AbstractKernel):
            given = f"the class {self.kernel.__name__}" if isinstance(self.kernel, type) else repr(self.kernel)
            raise TypeError(f"kernel was given as {given}; expected an object, kernel=vb.monitors.GammaKernel(shape=3)")

    def reads(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        return chosen(self.var, variables)

    def stride(self, dt: float) -> int:
        steps = block_steps(self.period, self.step, dt, "HRF")
        self.kernel.check_block(steps * dt * SECONDS_PER_MS)
        return steps

    def init(self, x: dict[str, Array]) -> _Carry:
        zero = jnp.zeros_like(x[self.var])
        return _Carry(zero, jnp.zeros(()), self.kernel.init(zero))

    def observe(self, carry: _Carry, x: dict[str, Array]) -> _Carry:
        return carry._replace(total=carry.total + x[self.var], count=carry.count + 1.0)

    def update(self, carry: _Carry, dt: float) -> _Carry:
        seconds = self.stride(dt) * dt * SECONDS_PER_MS
        filtered = self.kernel.advance(carry.filter, carry.total / carry.count, seconds)
        return _Carry(jnp.zeros_like(carry.total), jnp.zeros_like(carry.count), filtered)

    def sample(self, carry: _Carry, x: dict[str, Array]) -> tuple[_Carry, Array]:
        return carry, self.kernel.output(carry.filter)
