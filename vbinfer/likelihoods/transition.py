"""Density of a path of states, all steps at once."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer.likelihoods.base import HALF_LOG_2PI, known
from vbinfer.simulation import Simulator
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import by_variable, initial_history
from vbinfer.simulation.solution import Final
from vbinfer.simulation.transition import Innovations, check_invertible, is_bounded
from vbinfer.simulation.transition import innovations as innovations_of


def transition_log_prob(
    sim: Simulator, path: Any, *, init: Any = None, slack: Any = None, t0: float = 0.0, pointwise: bool = False
) -> Array:
    """Log-density of a path of states, given its start.

    log p(x_1, ..., x_T | x_0), the centred form of state-space inference:

    log p = sum_k [sum_i log N(z_ki; 0, 1) + log |dz_k / dx_{k+1}|]

    z_k are the standard normals that take x_k to x_{k+1} in a step of the simulator. Since the path is given, no step
    waits for another: all are evaluated side by side, with delays too, whose history is the path itself.

    It is the exact density of what `vb.simulate` draws, not an approximation of the diffusion:

    - Euler, and RungeKutta4 for models without bounds: the increment is added last, so that
      x_{k+1} ~ N(step(x_k), Sigma dt), Sigma = diag(sigma) correlation diag(sigma), or g(x_k)^2 (Itô).
    - Heun: the increment also enters the predictor, so that the step is not Gaussian; it is solved for by Newton's
      method, and the density has the Jacobian. Nodes that are coupled within a step make this a linear system of all
      state variables at every step; `Heun(dt, frozen_coupling=True)` keeps it to one small system for each node.

    A path outside of the model's bounds has density 0. A path on a bound, where the simulator stopped a step that
    would have left it, has a probability and no density there: keep to the inside.

    Args:
        sim: a simulator with `Additive` or `Multiplicative` noise.
        path: a State, or a mapping from state variable to states one step (dt) apart, leaves `[T + 1, N]`: the first
            row is x_0, on which the density is conditional. With `init`, leaves `[T, N]`: the states after each step,
            such as `vb.simulate(...).ys["raw"]` of the monitor `Raw`.
        init: where the path departs from, as for `vb.simulate`: a State, a dictionary of some of its variables
            (`{}` is the model's own start), or a `vb.History`, which a network with delays may need; else the past is
            constant.
        slack: state variables that get no noise follow from the others, and their path has no density. With
            `slack={"r": 1e-3}`, or one number for all of them, their residual in a step is taken as normal with this
            standard deviation: the model is a weak constraint (Trémolet 2006, doi:10.1256/qj.05.224).
        t0: time at which the path departs, ms, for stimuli.
        pointwise: return the terms of the sum over steps.

    Returns:
        One number, or `[T]` with `pointwise=True`; differentiable in the path and in every parameter.

    Raises:
        ValueError: no noise, `Coloured` noise, an integrator whose step cannot be inverted, variables without noise
            or slack, a path that lacks a variable or has another shape.

    >>> import jax, vbinfer as vb
    >>> euler = vb.integrators.Euler(dt=0.5)
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=euler, noise=vb.noise.Additive(1.0))
    >>> round(float(vb.likelihoods.transition_log_prob(sim, {"x": [[0.0], [1.0]]})), 4)    # log N(1; 0, 0.5)
    -1.5724
    """
    history, rows, widths, first = _prepared(sim, path, init, slack, t0)
    return _log_prob(sim, history, rows, widths, first, bool(pointwise))


def innovations(sim: Simulator, path: Any, *, init: Any = None, t0: float = 0.0) -> dict[str, Array]:
    """Standard normals that take a simulator along a path.

    The inverse of `vb.simulate(..., noise_path=)`. Under the right model they are independent N(0, 1), so what is left
    in them (a mean, a correlation in time or between nodes, heavy tails) says what the model lacks.

    Args:
        sim, path, init, t0: as for `transition_log_prob`.

    Returns:
        `[T, N]` for each state variable that gets noise.

    >>> import jax, vbinfer as vb
    >>> euler = vb.integrators.Euler(dt=0.5)
    >>> sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=euler, noise=vb.noise.Additive(2.0))
    >>> z = {"x": jax.random.normal(jax.random.key(0), (3, 1))}
    >>> path = vb.simulate(sim, t1=1.5, key=None, noise_path=z).ys["raw"]
    >>> bool(abs(vb.likelihoods.innovations(sim, path, init={})["x"] - z["x"]).max() < 1e-5)
    True
    """
    history, rows, _, first = _prepared(sim, path, init, 1.0, t0)
    return _innovations(sim, history, rows, first).z


@Compiled
def _innovations(sim: Simulator, history: Any, path: Any, first: Array) -> Innovations:
    return innovations_of(sim, history, path, first)


@Compiled
def _log_prob(sim: Simulator, history: Any, path: Any, slack: dict[str, Array], first: Array, pointwise: bool) -> Array:
    """Log-density of every step, `[T]`, or of all of them."""
    found = innovations_of(sim, history, path, first)
    # per step: -|z|^2 / 2 of what is driven, the residuals of what is not (slack), and log |dz / dx'| of the step
    squares = jnp.asarray(sum(z * z for z in found.z.values()))
    constant = HALF_LOG_2PI * len(path) * sim.n_nodes  # of each step
    for name, residual in found.slack.items():
        width = jnp.broadcast_to(slack[name], residual.shape[1:])
        squares = squares + (residual / width[None]) ** 2
        constant = constant + jnp.log(width).sum()
    if is_bounded(sim.model):
        # a state that the model's bounds would move lies outside: density 0
        after = jax.tree.map(lambda a: a[1:], path)
        for given, nearest in zip(after, jax.vmap(sim.model.project)(after), strict=True):
            squares = jnp.where(given == nearest, squares, jnp.inf)
    if pointwise:
        return found.log_det - 0.5 * squares.sum(axis=1) - constant
    return _sum(found.log_det) - 0.5 * _sum(squares) - constant * len(found.log_det)


def _sum(a: Array) -> Array:
    """The sum over all entries, as a product with ones."""
    # XLA on CPU fuses a reduction with what makes its argument, and such a loop is 100 times slower than the two apart
    # (measured: 28 ms against 0.2 ms for 524,288 steps of a node)
    flat, width = a.reshape(-1), 512
    whole = flat.size // width * width
    if not whole:
        return flat.sum()
    rows = flat[:whole].reshape(-1, width)
    total = jnp.matmul(jnp.ones(len(rows), a.dtype), rows, precision=jax.lax.Precision.HIGHEST).sum()
    return total + flat[whole:].sum() if whole < flat.size else total


def _prepared(sim: Simulator, path: Any, init: Any, slack: Any, t0: float) -> tuple[Any, Any, dict[str, Array], Array]:
    """History `[H, N]`, path `[T + 1, N]`, slack, start."""
    check_invertible(sim)
    assert sim.noise is not None
    rows = _rows(sim, path)
    if isinstance(init, Final):
        raise TypeError("init was given the final of a run; write init=final.state, or init=vb.History(...) for delays")
    if init is not None:
        history = initial_history(sim, init)
        rows = jax.tree.map(lambda h, p: jnp.concatenate([h[-1:], p]), history, rows)
    elif len(rows[0]) < 2:
        raise ValueError(
            f"path has {len(rows[0])} row; the first is the state that it departs from, so there must be two or more, "
            "or give init="
        )
    else:
        history = jax.tree.map(lambda a: a[:1], rows)
    driven = sim.noise.noisy(sim.state_shapes())
    widths = _slack(sim, slack, tuple(name for name in sim.model.variables() if name not in driven))
    sim.noise.check_amplitudes()
    return history, rows, widths, jnp.asarray(round(float(t0) / sim.dt), jnp.int32)


def _rows(sim: Simulator, path: Any) -> Any:
    """The path as a State of leaves `[rows, N]`."""
    given, variables, n = by_variable(sim, path, "path"), sim.model.variables(), sim.n_nodes
    for name in variables:
        if name not in given:
            raise ValueError(f"path lacks {name!r}; it needs [T + 1, {n}] states of {', '.join(variables)}")
        shape = given[name].shape
        if len(shape) != 2 or shape[1] != n or shape[0] < 1:
            raise ValueError(f"path[{name!r}] has shape {list(shape)}; expected [T + 1, {n}], a row for each step")
    if len({len(leaf) for leaf in given.values()}) > 1:
        lengths = ", ".join(f"{name!r}: {len(given[name])}" for name in variables)
        raise ValueError(f"the leaves of path have different numbers of rows ({lengths}); give all of them the same")
    return sim.model.State(**given)


def _slack(sim: Simulator, slack: Any, quiet: tuple[str, ...]) -> dict[str, Array]:
    """Residual sd of the variables `quiet`, which get no noise."""
    given = dict(slack) if isinstance(slack, Mapping) else {} if slack is None else dict.fromkeys(quiet, slack)
    for name in given:
        if name not in quiet:
            others = f"those without are {', '.join(quiet)}" if quiet else "every variable has some, leave slack out"
            raise ValueError(f"slack names {name!r}, which is no state variable without noise; {others}")
    for name in quiet:
        if name not in given:
            raise ValueError(
                f"state variable {name!r} of {type(sim.model).__name__} gets no noise: its path follows from the "
                f'others and has no density. Write slack={{"{name}": 1e-3}} for a step that it keeps up to a normal '
                "residual of this standard deviation, give it noise, or sample the noise with vb.likelihoods.NoisePath"
            )
    widths = {name: jnp.asarray(given[name], jnp.result_type(float)) for name in quiet}
    for name, width in widths.items():
        if not (known(width) > 0.0).all():
            raise ValueError(f"slack[{name!r}] is {known(width).min():g}; a standard deviation must be above 0")
    return widths
