"""Fixed points of a network, by Newton's method."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check, _ode
from vbinfer._names import PRNGKey
from vbinfer.explore import drift as _drift
from vbinfer.explore.drift import Drift, Jacobian
from vbinfer.explore.roots import rightmost
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.simulator import Simulator

MOST = 80
"""Newton steps of a start."""
SHORTEST = 2.0**-12
"""Fraction of a Newton step below which a start is given up."""
SAME = 1e-6
"""Distance, relative to 1 + |x|, below which two points are one."""
FEW_STATES = 12
"""States up to which starts cost little, and are added where a point must be missing."""
WALKS, STEPS = 32, 400
"""Trajectories, and their steps, that show where states are."""


def newton(f: Callable[[Array], Array], jacobian: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """Damped Newton iteration for f(x) = 0.

    A step is halved until the Newton correction at its end, with the old Jacobian, is shorter (the natural monotonicity
    test of Deuflhard 2004, section 3.3, doi:10.1007/978-3-642-23899-4): no scale of f matters.

    Returns:
        x, and whether it converged.
    """
    tol = 1e-10 if x.dtype == jnp.float64 else 3e-5
    size = lambda dx, x: jnp.abs(dx / (1.0 + jnp.abs(x))).max()  # noqa: E731

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, fx, k, _ = state
        lu = jax.scipy.linalg.lu_factor(jacobian(x))
        dx = -jax.scipy.linalg.lu_solve(lu, fx)
        whole = size(dx, x)

        def fails(trial: tuple[Array, Array]) -> Array:
            fraction, f_new = trial
            left = size(jax.scipy.linalg.lu_solve(lu, f_new), x)
            return ~(left <= jnp.maximum(1.0 - 0.25 * fraction, 0.5) * whole + 1e-3 * tol) & (fraction >= SHORTEST)

        halve = lambda trial: (0.5 * trial[0], f(x + 0.5 * trial[0] * dx))  # noqa: E731
        fraction, f_new = jax.lax.while_loop(fails, halve, (jnp.ones_like(whole), f(x + dx)))
        stuck = ~jnp.isfinite(whole) | (fraction < SHORTEST)
        return x + fraction * dx, f_new, jnp.where(stuck, MOST, k + 1), whole

    def goes_on(state: tuple[Array, Array, Array, Array]) -> Array:
        _, _, k, whole = state
        return (k < MOST) & ~(whole <= tol)

    begin = (x, f(x), jnp.zeros((), int), jnp.asarray(jnp.inf, x.dtype))
    x, fx, _, whole = jax.lax.while_loop(goes_on, step, begin)
    return x, (whole <= tol) & jnp.isfinite(fx).all()


def settled(drift: Drift, x: Array) -> Array:
    """Near the fixed point to which a state settles.

    Implicit Euler steps that lengthen as the drift fades follow the flow first and become Newton's (pseudo-transient
    continuation, Kelley & Keyes 1998, doi:10.1137/S0036142996304796).
    """
    jacobian, tol = jax.jacfwd(drift), jnp.finfo(x.dtype).eps ** 0.5
    norm = lambda fx: jnp.abs(fx).max()  # noqa: E731
    start = norm(drift(x))
    rate = jnp.abs(jacobian(x)).sum(axis=1).max()

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, fx, k = state
        shift = rate * norm(fx) / jnp.where(start > 0.0, start, 1.0)
        x = x + jnp.linalg.solve(shift * jnp.eye(len(x)) - jacobian(x), fx)
        return x, drift(x), k + 1

    goes_on = lambda state: (norm(state[1]) > tol * start) & (state[2] < MOST)  # noqa: E731
    return jax.lax.while_loop(goes_on, step, (x, drift(x), jnp.zeros((), int)))[0]


def polished(drift: Drift, x: Array) -> Array:
    """A fixed point that moves with the parameters.

    Newton steps from a constant: their derivatives are those of the implicit function theorem, dx = -J^-1 dF, the
    first of one step, the second of two.
    """
    x = jax.lax.stop_gradient(x)
    for _ in range(2):
        x = x - jnp.linalg.solve(jax.jacfwd(drift)(x), drift(x))
    return x


@dataclasses.dataclass(frozen=True, eq=False)
class FixedPoints:
    """Fixed points of a network, in ascending order of x.

    `points[k]` is the State of one, for `vb.linearise(sim, x=points[k])`.

    Attributes:
        x: one State with leaves `[K, N]`.
        residual: largest rate of change that is left, `[K]`.
        eigenvalues: 1/ms, the rightmost first, `[K, n]`; with delays the rightmost roots that were found, then NaN.
        stable: whether all lie left of 0, `[K]`.
        found: how many starts reached each, `[K]`.
        failed: how many starts reached none.
        unstable: how many eigenvalues lie right of 0, `[K]`.
    """

    x: Any
    residual: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    found: np.ndarray
    failed: int
    unstable: np.ndarray

    def __len__(self) -> int:
        return len(self.residual)

    def __getitem__(self, k: int) -> Any:
        if not -len(self) <= k < len(self):
            raise IndexError(f"fixed point {k} was asked for; there are {len(self)}")
        return type(self.x)(*(a[k] for a in self.x))


def fixed_points(sim: Simulator, theta: Any = None, starts: int = 64, *, key: PRNGKey) -> FixedPoints:
    """Fixed points of a network, from many starts.

    0 = F(x) with x(t - lag) = x, the drift with coupling, field and stimulus at time 0, without noise. One half of the
    starts takes nodes from trajectories, or states from boxes of their size and larger, with all nodes alike or each by
    itself; the other half combines the nodes of the points that were found. Points where `model.project` moves the
    state are left out. In float64 whatever the session's precision. More starts find more points; no number of them
    proves that there are no others. With up to 12 states four times as many follow where one must be missing: the
    indices (-1)^(number of unstable directions) of all fixed points of a flow that comes in from far away add up to 1
    (Poincare and Hopf).

    Args:
        sim: the simulator; of its integrator only dt is used, for the trajectories.
        theta: parameters by path, as for `vb.bind`.
        starts: number of starts.
        key: a JAX key.

    Raises:
        ValueError: a model without a smooth drift (steppers, phases); unknown paths.

    Example:
        >>> import jax, vbinfer as vb
        >>> sim = vb.Simulator(vb.models.MontbrioPazoRoxin(), integrator=vb.Heun(dt=0.01))
        >>> points = vb.fixed_points(sim, key=jax.random.key(0))
        >>> points.x.r[:, 0].round(4).tolist(), points.stable.tolist()
        ([0.0811, 0.473, 1.0306], [True, False, True])
    """
    sim, key = _drift.checked(sim, "fixed_points"), _check.key(key)
    starts = _check.count(starts, "starts", 64)
    with _drift.x64():
        sim = _drift.bound(_drift.precise(sim), theta)
        x = start_states(sim, key, starts)
        first, second = jnp.split(x, [starts - starts // 2])
        ends = ends_of(sim, first)
        if len(second):
            later = ends_of(sim, _crossed(sim, second, distinct(*ends)[0], key))
            ends = tuple(np.concatenate(pair) for pair in zip(ends, later, strict=True))
        found, counts, residual, tried, x, values, unstable = completed(sim, ends, key, starts)
    if not len(found):
        warnings.warn(
            f"none of {tried} starts reached an admissible fixed point; try more starts, or other parameters",
            stacklevel=2,
        )
    return FixedPoints(x, residual, values, unstable == 0, counts, tried - int(counts.sum()), unstable)


def _starts(sim: Simulator, key: Array, n: int) -> Array:
    """Start states `[n, states]`."""
    drift, like = _drift.drift_of(sim), sim.model.init(sim.n_nodes)
    init = _drift.flat_of(like, like)
    k_walk, k_size, k_at, k_alike, k_each, k_wide = jax.random.split(key, 6)
    sizes = 10.0 ** jax.random.uniform(k_size, (WALKS, 1), minval=-1.5, maxval=0.7)
    walk = init + sizes * (1.0 + jnp.abs(init)) * jax.random.normal(k_walk, (WALKS, len(init)))
    move = lambda x: _ode.heun(lambda _, x: drift(x), x, sim.dt, None, lambda x: _admissible(drift, x))  # noqa: E731

    def step(x: Array, _: None) -> tuple[Array, Array]:
        return jax.vmap(move)(x), x

    walk = jax.lax.scan(step, walk.at[0].set(init), None, length=STEPS)[1].reshape(-1, len(init))
    finite = jnp.isfinite(walk).all(axis=1) & (jnp.abs(walk).max(axis=1) < 1e6)
    walk = jnp.where(finite[:, None], walk, init)
    of_walks = jax.vmap(drift.state)(walk)
    # every node from a trajectory and a time of its own: states of a network are often products of those of its nodes
    moments = jax.random.randint(k_at, (n, sim.n_nodes), 0, len(walk))
    picked = lambda at: _drift.flat_of([a[at[: a.shape[1]], jnp.arange(a.shape[1])] for a in of_walks], like)  # noqa: E731

    # the box of a variable is that of all its nodes; quantiles leave out what decays fast from far away
    def spread(draw: Any) -> Array:
        """Leaves `[states]` from numbers for each variable."""
        return _drift.flat_of(type(like)(*draw), like)

    leaves = [a.ravel() for a in of_walks]
    low, high = (spread([jnp.quantile(a, q) for a in leaves]) for q in (0.02, 0.98))
    uniform = lambda key, shape: jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)  # noqa: E731
    alike = jax.vmap(spread)(uniform(k_alike, (n, len(like))))
    offset = jnp.where(jnp.arange(n)[:, None] % 3 == 0, alike, uniform(k_each, (n, len(init))))
    # up to thirty times as wide: points that repel are often far from where trajectories are
    wider = jax.vmap(spread)(30.0 ** (uniform(k_wide, (n, len(like))) + 0.5))
    in_box = 0.5 * (low + high) + offset * wider * (high - low)
    starts = jnp.where(jnp.arange(n)[:, None] % 3 == 1, jax.vmap(picked)(moments), in_box)
    return jax.vmap(lambda x: _admissible(drift, x))(starts)


def _admissible(drift: Drift, flat: Array) -> Array:
    x = drift.state(flat)
    return _drift.flat_of(drift.sim.model.project(x), x)


def _newton(sim: Simulator, x: Array) -> tuple[Array, Array, Array]:
    """Newton from every start: ends, whether they count, residuals."""
    drift = _drift.drift_of(sim)

    jacobian = jax.jacfwd(drift)

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, tries = state
        # where Newton's method is caught at a fold, the flow passes
        start = jax.lax.cond(tries > 0, functools.partial(settled, drift), lambda x: x, x)
        end, converged = newton(drift, jacobian, start)
        return jnp.where(converged, end, x), converged, tries + 1

    def one(x: Array) -> tuple[Array, Array, Array]:
        begin = (x, jnp.zeros((), bool), jnp.zeros((), int))
        x, converged, _ = jax.lax.while_loop(lambda state: ~state[1] & (state[2] < 2), again, begin)
        fx = drift(x)
        # what is left of F must be the rounding of its terms
        small = jnp.abs(fx) <= 1e-9 * (jnp.abs(jacobian(x)) @ (1.0 + jnp.abs(x)) + 1e-3)
        good = converged & small.all() & (drift.distance(x) <= 1e-9 * (1.0 + jnp.abs(x).max()))
        return x, good, jnp.abs(fx).max()

    # one after the other: each takes the steps that it needs, and not those of the slowest
    return jax.lax.map(one, x)


def _jacobian(sim: Simulator, x: Array) -> tuple[Any, Jacobian]:
    """State and linear part at a flat state `[n]`."""
    drift = _drift.drift_of(sim)
    return drift.state(x), drift.jacobian(x)


start_states, _run_newton, _run_jacobian = Compiled(_starts), Compiled(_newton), Compiled(_jacobian)


def ends_of(sim: Simulator, starts: Array) -> tuple[np.ndarray, ...]:
    """Where starts end, whether they count, what drift is left."""
    return tuple(np.asarray(a) for a in _run_newton(sim, starts))


def completed(
    sim: Simulator, ends: tuple[np.ndarray, ...], key: PRNGKey, starts: int, alike: Any = None
) -> tuple[Any, ...]:
    """Distinct points, after more starts where one must lack.

    Returns:
        Points, counts and residuals as `distinct` has them, number of starts, and what `described` returns.
    """
    found = distinct(*ends)
    known = described(sim, found[0], alike)
    if len(found[0]) > 0 and found[0].shape[1] <= FEW_STATES and np.sum((-1.0) ** known[2]) != 1.0:
        more = ends_of(sim, start_states(sim, jax.random.fold_in(key, 1), 4 * starts))
        ends = tuple(np.concatenate(pair) for pair in zip(ends, more, strict=True))
        found = distinct(*ends)
        known = described(sim, found[0], alike)
    return *found, len(ends[0]), *known


def _crossed(sim: Simulator, starts: Array, found: np.ndarray, key: PRNGKey) -> Array:
    """Starts that combine the nodes of points found before.

    Where nodes have several states of their own, a network has a point for most combinations. As given for one node, or
    one point.
    """
    if sim.n_nodes == 1 or len(found) < 2:
        return starts
    shapes = [like.shape for like in sim.state_shapes().values()]
    node = np.concatenate([np.repeat(np.arange(shape[0]), math.prod(shape[1:])) for shape in shapes])
    of = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel()).integers(
        len(found), size=(len(starts), max(shape[0] for shape in shapes))
    )
    return jnp.asarray(found[of[:, node], np.arange(len(node))])


def distinct(x: np.ndarray, good: np.ndarray, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct fixed points `[K, n]` in order, counts, residuals."""
    x, residual = x[good], residual[good]
    # ascending in the first state, then the next: equal up to rounding counts as equal
    order = np.lexsort(np.round(x / SAME).T[::-1]) if len(x) else np.arange(0)
    x, residual = x[order], residual[order]
    of: list[int] = []
    kept: list[int] = []
    for k in range(len(x)):
        near = [i for i, j in enumerate(kept) if np.all(np.abs(x[k] - x[j]) <= SAME * (1.0 + np.abs(x[j])))]
        of.append(near[0] if near else len(kept))
        if not near:
            kept.append(k)
    return x[kept], np.bincount(np.asarray(of, int), minlength=len(kept)), residual[kept]


def described(
    sim: Simulator, x: np.ndarray, alike: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Any, np.ndarray, np.ndarray]:
    """States, eigenvalues `[K, n]` and numbers of unstable ones.

    `alike` are points of like parameters with their eigenvalues: where to look for the rightmost roots first.
    """
    n = x.shape[1]
    states, values, unstable = [], np.full((len(x), n), np.nan, complex), np.zeros(len(x), int)
    for k, flat in enumerate(x):
        state, parts = jax.tree.map(np.asarray, _run_jacobian(sim, jnp.asarray(flat)))
        near = 0.0
        if alike is not None and len(alike[0]):
            near = float(alike[1][np.abs(alike[0] - flat).max(axis=1).argmin(), 0].real)
        roots, unstable[k] = rightmost(parts, near)
        values[k, : len(roots)] = roots[:n]
        states.append(state)
    State, shapes = sim.model.State, [like.shape for like in sim.state_shapes().values()]
    leaves = [np.stack([s[i] for s in states]) if states else np.zeros((0, *a)) for i, a in enumerate(shapes)]
    return State(*leaves), values, unstable
