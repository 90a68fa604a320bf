"""Clamps: state variables held at a signal."""

import equinox as eqx

from vbinfer.stimuli import AbstractStimulus


class Clamp(eqx.Module):
    """A state variable held at a signal, at one site.

    The currents see the signal, and it is what is recorded from the start; a signal is read at the time t of a step.
    Of a clamped voltage the current of the electrode is recorded as `i_clamp` (nA): what it had to add during the step
    that ends at t, charging the membrane included.

    Args:
        state: `"V"`, or a gate by its variable, `"soma_hh_m"`.
        signal: one of `vb.stimuli`, mV for `"V"`.
        at: name or number of the site.
    """

    state: str = eqx.field(static=True)
    signal: AbstractStimulus
    at: str | int = eqx.field(static=True, default=0)
