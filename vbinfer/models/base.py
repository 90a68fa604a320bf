"""Interface of population models.

A vector field over named state variables.
"""

import abc
import functools
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
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


def couples(*default: str) -> Any:
    """Declare `cvar`, a static field with this default."""
    return eqx.field(static=True, converter=names_of, default=default)


class _OfEither:
    """A method of the object, or else of the class."""

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn

    def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
        return functools.partial(self.fn, owner if instance is None else instance)


@functools.cache
def state_class(variables: tuple[str, ...], name: str = "State") -> type:
    """The State of models whose variables are the object's.

    One class for the same names, so that equal models share their compiled programs.
    """
    return namedtuple(name, variables)


class AbstractModel(Parametrised):
    """State variables, their coupling and their start.

    A subclass names its `State` (a NamedTuple of arrays) and declares parameters with `param`. Where the variables
    depend on the object, `State` is a property that returns `state_class(names)`.
    """

    State: ClassVar[type]
    cvar: eqx.AbstractVar[tuple[str, ...]]
    """The entries of `at_nodes` that the coupling reads."""
    start: ClassVar[Mapping[str, float]] = {}
    """Initial values of state variables that do not start at zero."""
    rows: ClassVar[int | None] = None
    """How many rows of coupling input the model reads. Of a single connectome the rest of what is sent is dropped,
    several projections may send no more; None reads all."""
    n_nodes: ClassVar[int | None] = None
    """Number of nodes N, of a model that knows it."""
    labels: ClassVar[tuple[str, ...] | None] = None
    """Names of the nodes, of a model that has them."""

    def init(self, n: int) -> Any:
        """The default initial state of `n` nodes, leaves as `shapes(n)`.

        All nodes at `start`, unless overridden.
        """
        return self.State(
            **{name: jnp.full(shape, self.start.get(name, 0.0)) for name, shape in self.shapes(n).items()}
        )

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        """Shape of every state variable, `[n]` unless overridden.

        Noise, histories and results follow it; in a batch the draws are one more axis, the last.
        """
        return dict.fromkeys(self.variables(), (n,))

    def leaf_size(self, path: str, n: int) -> int:
        """Length of a parameter that is no number.

        One per node unless overridden.
        """
        return n

    def at_nodes(self, x: Any) -> dict[str, Array]:
        """What coupling, monitors and sensors see, `[N, ...batch]` each.

        The state itself unless overridden.
        """
        return dict(zip(self.variables(), x, strict=True))

    def project(self, x: Any) -> Any:
        """The nearest admissible state, applied after every stage.

        The state itself unless the model has bounds.
        """
        return x

    def check_stimulus(self, stimulus: Any) -> None:
        """Warn of a stimulus in other units than the model's."""

    def validate(self) -> None:
        for name in names_of(self.cvar):
            if type(self).at_nodes is AbstractModel.at_nodes:  # others are asked by the simulator, which knows N
                self.variable(name)

    @_OfEither
    def variables(owner) -> tuple[str, ...]:
        """Names of the state variables, in order."""
        return tuple(owner.State._fields)

    @_OfEither
    def variable(owner, name: str) -> int:
        """Position of a state variable.

        An unknown name is an error naming the closest one.
        """
        names = owner.variables()
        if name not in names:
            model = owner if isinstance(owner, type) else type(owner)
            raise ValueError(f"{model.__name__} has no state variable {name!r}. {did_you_mean(name, names)}")
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
            x: `State` with leaves `[N, ...batch]`, or what `shapes` says in place of `[N]`.
            c: coupling input `[C, N, ...batch]`, a row per coupling variable; zeros without a connectome.
            u: stimulus, broadcastable to `[N, ...batch]`; zero without one.
        """


class AbstractStepper(AbstractModel):
    """A model that brings its own step.

    Spikes and resets, implicit cables, spectral fields.

    Driven by `integrator=vb.Native(dt=...)`, in the same loop with the same coupling, noise and monitors.
    """

    input_stage: ClassVar[float] = 0.0
    """When in the step the stimulus is read, as a fraction of it."""
    coupling_stage: ClassVar[float] = 0.0
    """When in the step delayed signals are read: 0 is what has arrived at its start, 1 at its end."""
    sends_spikes: ClassVar[bool] = False
    """Whether it sends 0 at most steps, and nothing may arrive within the step that sends it."""

    def prepared(self, dt: float) -> "AbstractStepper":
        """The model with what depends on parameters and dt alone.

        Called once per run, before the loop; `step` is then called on what it returns.
        """
        return self

    def check_step(self, dt: float) -> None:
        """Warn where steps of `dt` ms are too long."""

    @abc.abstractmethod
    def step(self, t: Array, x: Any, c: Array, u: Array, dW: Any, dt: float) -> Any:
        """The state at t + dt.

        Args:
            t, x: as for `AbstractVectorField.dfun`, at the start of the step.
            c, u: coupling input and stimulus, at `coupling_stage` and `input_stage` of the step.
            dW: the noise increment of this step, a State; None without noise.
            dt: ms.
        """
