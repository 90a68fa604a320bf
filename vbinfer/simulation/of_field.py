"""Checks of a field in a simulator."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from vbinfer._param import did_you_mean, is_traced
from vbinfer.fields.base import Field
from vbinfer.integrators import AbstractIntegrator, Euler, Heun, RungeKutta4, Split
from vbinfer.models.base import AbstractStepper

STABLE = {Euler: 2.0, Heun: 2.0, RungeKutta4: 2.785}
"""Fastest decay times dt that an explicit integrator bears."""
SPARE = 2.0
"""How much stiffer than constructed a drawn operator may be, where a mesh's flow is of fixed length."""


def measured(field: Field, integrator: AbstractIntegrator) -> Field:
    """The field with its flow's length counted, for `Split`."""
    if field.local is None or not isinstance(integrator, Split) or is_traced(field):
        return field
    reach = SPARE * 0.5 * integrator.dt * float(jnp.abs(field.strength).max()) * float(field.local.norm())
    return dataclasses.replace(field, steps=max(1, math.ceil(reach)))


def check(sim: Any, shown: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raise ValueError unless a field fits model, connectome, step."""
    field, n, splits = sim.field, sim.n_nodes, isinstance(sim.integrator, Split)
    if splits and (field is None or field.local is None):
        raise ValueError(f"Split needs the local operator of a field; without one write vb.Heun(dt={sim.dt:g})")
    if field is None:
        return
    name = type(sim.model).__name__
    for what, size in ((name, n), ("nodes=", sim.nodes)):
        if size not in (None, field.n_nodes):
            raise ValueError(f"the field has {field.n_nodes} points, {what} says {size} nodes; leave nodes out")
    for _, connectome, _, _ in sim.projections():
        if field.regions is not None:
            field.regions.check(connectome.n_nodes, connectome.labels)
        elif connectome.n_nodes != n:
            raise ValueError(
                f"the connectome has {connectome.n_nodes} nodes and the field {n} points; say which region each point "
                "belongs to, vb.fields.Field(..., regions=vb.fields.RegionMap(...))"
            )
    if field.local is None:
        return
    if not sim.model.cvar:
        raise ValueError(f"{name} has no coupling variable, so that a field has nowhere to act; give it a cvar")
    if sim.sends not in shown:
        raise ValueError(f"sends names {sim.sends!r}, which at_nodes does not show. {did_you_mean(sim.sends, shown)}")
    if shown[sim.sends].shape != (n,):
        raise ValueError(f"sends names {sim.sends!r}, of shape {list(shown[sim.sends].shape)}; expected [{n}]")
    if isinstance(sim.model, AbstractStepper) or is_traced((sim.model, field)):
        return
    _check_split(sim) if splits else _check_step(sim)


def _gains(sim: Any) -> dict[str, tuple[float, float]]:
    """Gains of c_0, by variable: smallest and largest derivative.

    Of the rates by row 0 of the coupling input, at the start.
    """
    model, n = sim.model, sim.n_nodes
    c = jnp.zeros((max(len(model.cvar), model.rows or 0), n))
    rate = lambda c: model.dfun(jnp.zeros(()), model.init(n), c, jnp.zeros(n))  # noqa: E731
    slope = jax.jvp(rate, (c,), (c.at[0].set(1.0),))[1]
    return {name: (float(a.min()), float(a.max())) for name, a in zip(model.variables(), slope, strict=True)}


def _check_split(sim: Any) -> None:
    field, name = sim.field, type(sim.model).__name__
    other = f"write vb.Heun(dt={sim.dt:g}), or with a smaller dt"
    if field.rate is not None:
        raise ValueError(f"Split flows along K itself, and the field has a rate function; leave rate out, or {other}")
    if field.strength.ndim:
        raise ValueError(f"Split needs one strength for all points, not {list(field.strength.shape)}; {other}")
    if sim.sends not in sim.model.variables():
        raise ValueError(f"Split advances {sim.sends!r}, which is no state variable of {name}; {other}")
    for variable, gain in _gains(sim).items():
        wanted = 1.0 if variable == sim.sends else 0.0
        if max(abs(gain[0] - wanted), abs(gain[1] - wanted)) > 1e-5:
            raise ValueError(
                f"Split is for models where the local term adds to d{sim.sends}/dt as it is, and to nothing else; in "
                f"{name} it enters d{variable}/dt with a factor of {gain[1]:.3g}; {other}"
            )


def _check_step(sim: Any) -> None:
    field, bears = sim.field, STABLE.get(type(sim.integrator))
    if bears is None or field.rate is not None or not field.local.decays or sim.sends not in sim.model.variables():
        return
    fastest = max(map(abs, _gains(sim)[sim.sends])) * float(jnp.abs(field.strength).max()) * float(field.local.norm())
    if fastest * sim.dt > bears * (1.0 + 1e-6):
        kind = type(sim.integrator).__name__
        raise ValueError(
            f"dt = {sim.dt:g} ms is above the stability bound of {kind} with this field, {bears / fastest:.4g} ms "
            f"({bears:g} over its fastest decay, {fastest:.4g} per ms); take a smaller dt, or vb.Split(dt={sim.dt:g})"
        )
