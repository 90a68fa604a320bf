"""Adiabatic sweeps: a parameter up and down, the state carried."""

import importlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import resolve
from vbinfer.explore import drift as _drift
from vbinfer.explore.sweeps import Grid
from vbinfer.monitors.base import steps_in
from vbinfer.network.delays import History
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import initial_history
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.stepper import StepperCarry, stepper

KEPT = ("min", "max", "mean")
"""Of every state variable, over the measured part of each value."""


def adiabatic(
    sim: Simulator, path: str, values: Any, *, t1: float, transient: float, key: PRNGKey | None = None, init: Any = None
) -> Any:
    """Ramp a parameter up and down, the state carried.

    At each value the run goes on where the one before ended, with what is under way over delays, for `transient` and
    then for the measured rest of t1. A state is left only where it loses stability: both ramps differ between the two
    folds of a bistable range, and a rhythm shows as max above min. Close to a bifurcation the flow is slow, so that a
    jump comes late: by less, the longer t1 and the smaller the steps. Without noise a state at rest does not leave a
    fixed point that becomes unstable below it for long: a little noise lets it. Any model, with delays.

    Args:
        sim: the simulator.
        path: of a parameter, such as "coupling.G".
        values: `[P]`, ascending or descending; the second ramp goes back.
        t1: duration at each value, ms, transient included.
        transient: what is not measured of it, ms.
        key: a JAX key, for noise.
        init: state at the first value, as for `vb.simulate`.

    Returns:
        `xarray.Dataset` over `ramp` (up, down) and the path: of every state variable `of` min, max and mean over time;
        `hysteresis`, the largest difference between the means of both ramps, relative to the variable's range.

    Raises:
        ValueError: an unknown path, values outside its range or not in order; no time left to measure.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> sim = vb.Simulator(vb.models.MontbrioPazoRoxin(), integrator=vb.Heun(dt=0.05))
        >>> ds = vb.explore.adiabatic(sim, "model.eta", np.linspace(-7.0, -2.0, 6), t1=100.0, transient=90.0)
        >>> ds.hysteresis.values > 0.1                                # bistable between -5.74 and -3.14
        array([False, False,  True,  True, False, False])
    """
    sim = _check.of_kind(sim, "sim", Simulator, "vb.Simulator(...)")
    axes = Grid.of({path: values})
    known = resolve(sim, axes.shapes)
    axes.check_ranges({name: (p.low, p.high) for name, p in known.items()})
    given = axes.points()[path]
    change = np.diff(given)
    if len(given) < 2 or not ((change > 0.0).all() or (change < 0.0).all()):
        raise ValueError(f"the values of {path!r} do not ascend or descend; write np.linspace(0.0, 1.0, 20)")
    n, left_out = steps_in(t1, sim.dt, "t1"), round(_check.number(transient, "transient", 0.8 * t1, least=0.0) / sim.dt)
    if left_out >= n:
        raise ValueError(f"a transient of {transient:g} ms leaves nothing of t1={t1:g} ms to measure; lengthen t1")
    there_and_back = jnp.asarray(np.concatenate([given, given[::-1]]), jnp.result_type(float))
    found = _ramps(sim, path, there_and_back, initial_history(sim, init), key, left_out, n - left_out)
    found = jax.tree.map(lambda a: np.asarray(a, float), found)
    return _dataset(axes, {name: p.unit for name, p in known.items()}, found)


def _dataset(axes: Grid, units: dict[str, str], found: Any) -> Any:
    """Both ramps on one axis of ascending or descending values."""
    xarray = importlib.import_module("xarray")
    (path,) = axes.dims
    values = axes.points()[path]
    ramps = ("up", "down") if values[-1] > values[0] else ("down", "up")
    states, apart = {}, np.zeros(len(values))
    for name, leaf in found._asdict().items():
        both = np.stack([leaf[: len(values)], leaf[len(values) :][::-1]])  # ramp, value, of, ...
        dims = ("ramp", path, "of", *(f"{name}_dim_{i}" for i in range(both.ndim - 3)))
        states[name] = (dims, both)
        finite, mean = np.where(np.isfinite(both), both, np.nan), KEPT.index("mean")
        size = np.nanmax(finite) - np.nanmin(finite) or 1.0
        apart = np.maximum(apart, np.abs(finite[0] - finite[1])[:, mean].reshape(len(values), -1).max(axis=1) / size)
    if not np.isfinite(apart).all():
        lost = ~np.all([np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in found], axis=0)
        first = np.concatenate([values, values[::-1]])[lost][0]
        warnings.warn(f"the state grew without bound at {path} = {first:g}; take a shorter dt", stacklevel=3)
    at = axes.coordinates(units) | {"ramp": list(ramps), "of": list(KEPT)}
    return xarray.Dataset({**states, "hysteresis": (path, apart)}, at)


@Compiled
def _ramps(sim: Simulator, path: str, values: Array, history: Any, key: Any, left_out: int, n: int) -> Any:
    """State with leaves `[P, of, ...]`."""
    begin = stepper(sim)[0](key, History(history))

    def at(carry: StepperCarry, value: Array) -> tuple[StepperCarry, Any]:
        step = stepper(_drift.bound(sim, {path: value}))[1]
        carry = jax.lax.fori_loop(0, left_out, lambda _, c: step(c), carry)

        def measured(k: Array, loop: tuple[StepperCarry, Any]) -> tuple[StepperCarry, Any]:
            carry, (low, high, mean) = loop
            x = (carry := step(carry)).x
            # a running mean: a sum of 1e5 numbers in single precision would lose digits
            mean = jax.tree.map(lambda m, a: m + (a - m) / (k + 1), mean, x)
            return carry, (jax.tree.map(jnp.minimum, low, x), jax.tree.map(jnp.maximum, high, x), mean)

        full = lambda value: jax.tree.map(lambda a: jnp.full_like(a, value), carry.x)  # noqa: E731
        carry, kept = jax.lax.fori_loop(0, n, measured, (carry, (full(jnp.inf), full(-jnp.inf), full(0.0))))
        return carry, jax.tree.map(lambda *of: jnp.stack(of), *kept)

    return jax.lax.scan(at, begin, values)[1]
