"""BOLD by convolution with a haemodynamic response."""

from typing import Any

import equinox as eqx
from jaxtyping import Array

from vbinfer.monitors.base import SECONDS_PER_MS, AbstractBlocks, Block, block_steps, repetition_ms, step_ms
from vbinfer.monitors.kernels import AbstractKernel, DoubleGammaKernel


class HRF(AbstractBlocks):
    """BOLD by convolution with a haemodynamic response: `[T, N]`.

    y(t) = int_0^t G(s) u(t - s) ds     of a state variable u with a response G, time in s

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
    period: float | None = eqx.field(static=True, converter=repetition_ms)
    kernel: AbstractKernel = eqx.field(default_factory=DoubleGammaKernel)
    step: float = eqx.field(static=True, default=10.0, converter=step_ms, kw_only=True)

    def validate(self) -> None:
        if not isinstance(self.kernel, AbstractKernel):
            given = f"the class {self.kernel.__name__}" if isinstance(self.kernel, type) else repr(self.kernel)
            raise TypeError(f"kernel was given as {given}; expected an object, kernel=vb.monitors.GammaKernel(shape=3)")

    def stride(self, dt: float) -> int:
        steps = block_steps(self.period, self.step, dt, "HRF")
        self.kernel.check_block(steps * dt * SECONDS_PER_MS)
        return steps

    def rest(self, like: Array) -> Any:
        return self.kernel.init(like)

    def advance(self, inner: Any, mean: Array, ms: float) -> Any:
        return self.kernel.advance(inner, mean, ms * SECONDS_PER_MS)

    def sample(self, carry: Block, x: dict[str, Array]) -> tuple[Block, Array]:
        return carry, self.kernel.output(carry.inner)
