"""Interface of population models.

A vector field over named state variables.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array

from vbinfer._param import Parametrised, did_you_mean


def names_of(cvar: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Names of state variables as a tuple.

    A bare string is an error: its letters would be taken for names.
    """
    if isinstance(cvar, str):
        raise TypeError(f'cvar={cvar!r} was given; write a tuple, cvar=("{cvar}",)')
    if not isinstance(cvar, tuple | list) or not all(isinstance(name, str) for name in cvar):
        raise TypeError(f'cvar={cvar!r} was given; write a tuple of state variables, cvar=("x", "y")')
    return tuple(cvar)


class AbstractModel(Parametrised):
    """State variables, their coupling and their start.

    A subclass names its `State` (a NamedTuple of arrays `[N, ...batch]`) and declares parameters with `param`.
    """

    State: ClassVar[type]
    cvar: eqx.AbstractVar[tuple[str, ...]]
    """The state variables that the coupling reads."""
    rows: ClassVar[int | None] = None
    """How many rows of coupling input `dfun` reads; the rest of what a coupling sends is dropped. None reads all."""

    @abc.abstractmethod
    def init(self, n: int) -> Any:
        """The default initial state of `n` nodes, leaves `[n]`."""

    def project(self, x: Any) -> Any:
        """The nearest admissible state, applied after every stage.

        The state itself unless the model has bounds.
        """
        return x

    def validate(self) -> None:
        for name in names_of(self.cvar):
            self.variable(name)

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """Names of the state variables, in order."""
        return tuple(cls.State._fields)  # type: ignore[attr-defined]  (State is a NamedTuple class)

    @classmethod
    def variable(cls, name: str) -> int:
        """Position of a state variable.

        An unknown name is an error naming the closest one.
        """
        names = cls.variables()
        if name not in names:
            raise ValueError(f"{cls.__name__} has no state variable {name!r}. {did_you_mean(name, names)}")
        return names.index(name)


class AbstractVectorField(AbstractModel):
    """A model given by its drift.

    dx/dt = dfun(t, x, c, u), per ms.
    """

    @abc.abstractmethod
    def dfun(self, t: Array, x: Any, c: Array, u: Array) -> Any:
        """The drift, elementwise over nodes.

        Trailing batch axes therefore just work.

        Args:
            t: time, ms.
            x: `State` with leaves `[N, ...batch]`.
            c: coupling input `[C, N, ...batch]`, a row per coupling variable; zeros without a connectome.
            u: stimulus, broadcastable to `[N, ...batch]`; zero without one.
        """


class AbstractStepper(AbstractModel):
    """A model that brings its own step.

    Spikes and resets, implicit cables, spectral fields.

    Driven by `integrator=vb.Native(dt=...)`, in the same loop with the same coupling, noise and monitors.
    """

    @abc.abstractmethod
    def step(self, t: Array, x: Any, c: Array, u: Array, dW: Any, dt: float) -> Any:
        """The state at t + dt.

        Args:
            t, x, c, u: as for `AbstractVectorField.dfun`, at the start of the step.
            dW: the noise increment of this step, a State; None without noise.
            dt: ms.
        """
