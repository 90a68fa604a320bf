"""A model from a plain function."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import Param, param
from vbinfer.models.base import AbstractVectorField, names_of, state_class

_SIGNATURE = "dfun(t, x, c, u, p)"


class Custom(AbstractVectorField):
    """A model whose drift is a function.

    Made by `vb.models.custom`.
    """

    fn: Callable[..., Any] = eqx.field(static=True)
    initial: tuple[tuple[str, float], ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    params: Param = param(named=True, doc="a parameter of the function")
    cvar: tuple[str, ...] = eqx.field(static=True, converter=names_of)

    @property
    def State(self) -> Any:
        return state_class(tuple(name for name, _ in self.initial))

    @property
    def start(self) -> dict[str, float]:
        return dict(self.initial)

    def dfun(self, t: Array, x: Any, c: Array, u: Array) -> Any:
        p = state_class(self.names, "Params")(**self.params)
        dx, names = self.fn(t, x, c, u, p), self.variables()
        if not isinstance(dx, tuple | list) or len(dx) != len(names):
            several, kind = isinstance(dx, tuple | list), "one array" if hasattr(dx, "shape") else type(dx).__name__
            given = f"{len(dx)} values" if several else kind
            raise ValueError(f"{_SIGNATURE} returned {given}; return one derivative for each of {', '.join(names)}")
        for name, value, like in zip(names, dx, x, strict=True):
            if not isinstance(value, Array) or value.shape != like.shape:
                given = f"an array {list(value.shape)}" if isinstance(value, Array) else f"{value!r}"
                raise ValueError(
                    f"{_SIGNATURE} returned {given} as the derivative of {name!r}; expected an array "
                    f"{list(like.shape)}, shaped as x.{name}: a constant is jnp.full_like(x.{name}, 0.0)"
                )
        return self.State(*dx)


def custom(
    dfun: Callable[..., Any],
    *,
    state: Mapping[str, float],
    params: Mapping[str, Any] | None = None,
    cvar: tuple[str, ...] | None = None,
) -> Custom:
    """A model from a function, for a notebook.

    dx/dt = dfun(t, x, c, u, p)

    For a model that stays, write a class (CONTRIBUTING.md): its parameters have units, ranges and sentences.

    Args:
        dfun: the drift, per ms, written with jax.numpy and elementwise over nodes: a function of time (ms), the state
            and the parameters as named tuples (`x.r`, `p.eta`), the coupling input `c` `[C, N]` and the stimulus
            `u` `[N]`. It returns one array per state variable, in order, as a tuple or `type(x)(...)`. In a batch of
            draws all have one more axis, the last; parameters are single numbers or one per node.
        state: initial value of each state variable.
        params: default of each parameter, a number or one per node; their paths are `model.<name>`.
        cvar: the state variables that the coupling reads; the first one by default.

    Raises:
        TypeError, ValueError: what was given is no such function, mapping or variable. What `dfun` returns is checked
            when it is first called.

    >>> import jax.numpy as jnp, vbinfer as vb
    >>> def qif(t, x, c, u, p):
    ...     return 1.0 / jnp.pi + 2.0 * x.r * x.V, x.V**2 - (jnp.pi * x.r) ** 2 + p.J * x.r + p.eta + c[0] + u
    >>> model = vb.models.custom(qif, state={"r": 0.1, "V": -2.0}, params={"eta": -5.0, "J": 15.0})
    >>> sorted(vb.paths(model)), model.cvar
    (['J', 'eta'], ('r',))
    """
    try:
        inspect.signature(dfun).bind(*range(5))
    except (TypeError, ValueError):
        raise TypeError(f"custom was given {dfun!r}; expected a function {_SIGNATURE}") from None
    for what, given in (("state", state), ("params", params or {})):
        if not isinstance(given, Mapping) or (what == "state" and not given):
            raise TypeError(f'{what}={given!r} was given; expected names and values, {what}={{"r": 0.1}}')
        for name in given:
            if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"{what} names {name!r}; expected a name of letters and digits, such as 'eta'")
    initial = tuple((name, _check.number(value, f"state[{name!r}]", 0.1)) for name, value in state.items())
    names = tuple(params or {})
    reads = (initial[0][0],) if cvar is None else cvar
    return Custom(fn=dfun, initial=initial, names=names, params=dict(params or {}), cvar=reads)
