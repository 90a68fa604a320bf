"""Branches of fixed points along a parameter."""

import dataclasses
import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import range_text, resolve
from vbinfer.explore import drift as _drift
from vbinfer.explore.equilibria import newton
from vbinfer.explore.roots import rightmost
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import initial_state
from vbinfer.simulation.simulator import Simulator

KINDS = ("fold", "hopf")
LONGEST, SHORTEST = 0.02, 1e-8
"""Steps along a branch, in units of the range of the parameter and the size of the state."""
SHARP = 1e-10
"""Length to which an event is halved."""
MOST = 4_000
"""Points of a branch."""
STRAIGHT = 0.95
"""Cosine of the angle between tangents, below which a step is halved."""
NEWTON = 8
"""Corrections of a step."""
HZ = 1e3 / (2.0 * math.pi)


@dataclasses.dataclass(frozen=True, eq=False)
class Event:
    """A bifurcation on a branch.

    Attributes:
        kind: "fold" or "hopf".
        value: of the parameter.
        x: the State there.
        frequency: of the oscillation that is born, Hz; 0 at a fold.
    """

    kind: str
    value: float
    x: Any
    frequency: float


class _Point(NamedTuple):
    """A point of the branch: flat state, then parameter, `u`."""

    u: np.ndarray
    tangent: np.ndarray
    roots: Any
    unstable: int

    @property
    def mark(self) -> tuple[bool, int]:
        """What changes at an event."""
        return bool(self.tangent[-1] > 0.0), self.unstable


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """Fixed points in the order in which they were followed.

    Attributes:
        path: of the parameter.
        values: of the parameter, `[P]`.
        x: one State with leaves `[P, N]`.
        leading: the rightmost eigenvalue, 1/ms, `[P]`.
        unstable: how many lie right of 0, `[P]`.
        events: folds and Hopf points, in order.
    """

    path: str
    values: np.ndarray
    x: Any
    leading: Any
    unstable: np.ndarray
    events: tuple[Event, ...]

    def table(self) -> Any:
        """The branch as an `xarray.Dataset` along `point`.

        The parameter, `leading` (1/ms) and `frequency` (Hz) of the rightmost eigenvalue, `n_unstable`, state variables.
        """
        xarray = importlib.import_module("xarray")
        columns = {
            self.path: self.values,
            "leading": self.leading.real,
            "frequency": np.abs(self.leading.imag) * HZ,
            "n_unstable": self.unstable,
        }
        states = {v: (("point", *(f"{v}_dim_{i}" for i in range(a.ndim - 1))), a) for v, a in self.x._asdict().items()}
        return xarray.Dataset({name: ("point", value) for name, value in columns.items()} | states)


def continuation(sim: Simulator, path: str, *, x0: Any = None, to: float, events: Sequence[str] = KINDS) -> Branch:
    """Follow a fixed point along a parameter, round its folds.

    Pseudo-arclength continuation (Keller 1977) in 64 bits: along the tangent, and back to the branch by Newton's method
    on 0 = F(x, p) and a plane across the tangent. It begins at the simulator's own value of the parameter and ends at
    `to`, or where the branch has come back to the beginning, or leaves the admissible states. Events are halved in
    between two points: a fold is where the parameter turns, a Hopf point where a pair of eigenvalues crosses the
    imaginary axis, those of conduction delays included. Other crossings (branches that meet) are not reported, and two
    equal ones between neighbouring points are not seen.

    Args:
        sim: a simulator whose drift is smooth; time and stimulus stand at 0, noise is left out.
        path: of a parameter that is a number.
        x0: a State near the fixed point, as one of `vb.fixed_points(sim, key=key)`; None is the model's own start.
        to: value of the parameter at which to end.
        events: kinds that are looked for.

    Raises:
        ValueError: no fixed point near x0, a parameter that is unknown or not a number, `to` outside its range, a model
            without a smooth drift.

    Example:
        >>> import vbinfer as vb
        >>> sim = vb.Simulator(vb.models.MontbrioPazoRoxin(eta=-7.0), integrator=vb.Heun(dt=0.01))
        >>> branch = vb.explore.continuation(sim, "model.eta", x0={"r": 0.06, "V": -2.5}, to=-2.0)
        >>> [(event.kind, round(event.value, 4)) for event in branch.events]
        [('fold', -3.1361), ('fold', -5.7435)]
    """
    sim = _drift.checked(sim, "explore.continuation")
    kinds = tuple(_check.one_of(kind, "events", KINDS) for kind in ([events] if isinstance(events, str) else events))
    to, leaf = _check.number(to, "to", 1.0), resolve(sim, [path])[path]
    if leaf.value.size != 1:
        raise ValueError(
            f"{path!r} has shape {list(leaf.value.shape)}; a branch follows one number: bind one value to all nodes"
        )
    begin = float(leaf.value.reshape(()))
    if to == begin:
        raise ValueError(f"{path!r} is {begin:g} already; give to= another value")
    if not leaf.low <= to <= leaf.high:
        raise ValueError(f"to={to:g} lies outside {range_text(leaf.low, leaf.high)}, where {path!r} is declared")
    with _drift.x64():
        curve = _Curve(_drift.precise(sim), path, begin, to)
        points, found = curve.followed(curve.first(x0))
        State, shapes = sim.model.State, [like.shape for like in sim.state_shapes().values()]
    flat = np.stack([point.u[:-1] for point in points])
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def states(flat: np.ndarray) -> Any:
        parts = zip(np.split(flat, ends, axis=-1), shapes, strict=True)
        return State(*(a.reshape(*flat.shape[:-1], *shape) for a, shape in parts))

    met = tuple(Event(kind, float(u[-1]), states(u[:-1]), f) for kind, u, f in found if kind in kinds)
    leading = np.array([point.roots[0] for point in points])
    unstable = np.array([point.unstable for point in points])
    return Branch(path, np.array([point.u[-1] for point in points]), states(flat), leading, unstable, met)


class _Curve:
    """The branch as a curve of states and parameter."""

    def __init__(self, sim: Simulator, path: str, begin: float, to: float):
        self.sim, self.path, self.begin, self.to = sim, path, begin, to
        self.size = np.zeros(0)

    def parts(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any, bool]:
        """F, its derivative, linear part, and admissibility at u."""
        found = _run_parts(self.sim, self.path, jnp.asarray(u[:-1]), jnp.asarray(u[-1]))
        f, whole, by_p, linear, far = jax.tree.map(np.asarray, found)
        return f, np.column_stack([whole, by_p]), linear, bool(far <= 1e-6 * (1.0 + np.abs(u).max()))

    @property
    def metric(self) -> np.ndarray:
        """Squared weights: lengths along the curve are of order 1.

        The parameter in units of its range, the states of the largest that they were, whatever their number.
        """
        floor = max(1e-3 * self.size.max(), 1e-9)
        scale = np.append(np.maximum(self.size, floor) * np.sqrt(len(self.size)), self.to - self.begin)
        return 1.0 / scale**2

    def first(self, x0: Any) -> _Point:
        """The fixed point near x0, and the branch's direction."""
        state = initial_state(self.sim, x0)
        start = _drift.flat_of(state, state)
        x, converged = _run_newton(self.sim, start)
        if not bool(converged):
            raise ValueError(
                "no fixed point was reached from " + ("the model's start" if x0 is None else "x0") + "; give x0= one "
                "of vb.fixed_points(sim, key=jax.random.key(0)), if there is any"
            )
        u, ahead = np.append(np.asarray(x), self.begin), np.zeros(len(x) + 1)
        ahead[-1] = np.sign(self.to - self.begin)
        if not self.parts(u)[3]:
            raise ValueError("the fixed point near x0 is not admissible: the model's bounds move it; give another x0")
        self.size = np.abs(u[:-1])
        return self.point(u, ahead)

    def point(self, u: np.ndarray, before: np.ndarray) -> _Point:
        """Tangent, in the sense of the one before, and eigenvalues."""
        _, slope, linear, _ = self.parts(u)
        w = self.metric
        tangent = np.linalg.solve(np.vstack([slope, w * before]), np.append(np.zeros(len(slope)), 1.0))
        return _Point(u, tangent / np.sqrt(w @ tangent**2), *rightmost(linear))

    def corrected(self, u: np.ndarray, across: np.ndarray) -> np.ndarray | None:
        """The curve's point in the plane `across` through u."""
        there = u.copy()
        for _ in range(NEWTON):
            f, slope, _, _ = self.parts(there)
            system = np.vstack([slope, across])
            if not np.isfinite(system).all() or not np.isfinite(f).all():
                return None
            try:
                step = np.linalg.solve(system, np.append(-f, across @ (u - there)))
            except np.linalg.LinAlgError:
                return None
            there = there + step
            if np.abs(step / (1.0 + np.abs(there))).max() < 1e-11:
                return there
        return None

    def at(self, point: _Point, s: float) -> _Point | None:
        """The curve at the length s from a point."""
        u = self.corrected(point.u + s * point.tangent, self.metric * point.tangent)
        return None if u is None else self.point(u, point.tangent)

    def followed(self, point: _Point) -> tuple[list[_Point], list[tuple[str, np.ndarray, float]]]:
        """Points up to the end, and events on the way."""
        points, events, s = [point], list[tuple[str, np.ndarray, float]](), 0.25 * LONGEST
        low, high = sorted((self.begin, self.to))
        while len(points) < MOST:
            new, ended = self.at(point, s), False
            w = self.metric
            if new is None or w @ (point.tangent * new.tangent) < STRAIGHT * np.sqrt(
                (w @ point.tangent**2) * (w @ new.tangent**2)
            ):
                s *= 0.5
                if s < SHORTEST:
                    warnings.warn(f"the branch was lost at {self.path} = {point.u[-1]:.6g}", stacklevel=3)
                    return points, events
                continue
            if not low <= new.u[-1] <= high:  # as far as the end, and no further
                limit = low if new.u[-1] < low else high
                share = (limit - point.u[-1]) / (new.u[-1] - point.u[-1])
                guess = point.u + share * (new.u - point.u)
                guess[-1] = limit
                end = self.corrected(guess, np.append(np.zeros(len(guess) - 1), 1.0))
                if end is None:
                    return points, events
                new, ended = self.point(end, point.tangent), True
            if not self.parts(new.u)[3]:
                return points, events
            length = w @ (point.tangent * (new.u - point.u)) / (w @ point.tangent**2)
            events += self.between(point, 0.0, point, float(length), new)
            self.size = np.maximum(self.size, np.abs(new.u[:-1]))
            points.append(new)
            if ended:
                return points, events
            point, s = new, min(1.5 * s, LONGEST)
        warnings.warn(f"the branch was left after {MOST} points, at {self.path} = {point.u[-1]:.6g}", stacklevel=3)
        return points, events

    def between(
        self, origin: _Point, s: float, a: _Point, t: float, b: _Point
    ) -> Iterator[tuple[str, np.ndarray, float]]:
        """Events between two lengths from a point, by halving."""
        if a.mark == b.mark:
            return
        middle = 0.5 * (s + t)
        new = self.at(origin, middle) if t - s > SHARP else None
        if new is not None:
            yield from self.between(origin, s, a, middle, new)
            yield from self.between(origin, middle, new, t, b)
        elif a.mark[0] != b.mark[0]:
            yield "fold", b.u, 0.0
        elif abs(a.unstable - b.unstable) >= 2:
            root = b.roots[np.argmin(np.abs(b.roots.real))]
            if abs(root.imag) > 1e-6 * np.abs(b.roots[0]).max() + 1e-12:
                yield "hopf", b.u, float(abs(root.imag) * HZ)


def _parts(sim: Simulator, path: str, x: Array, p: Array) -> tuple[Array, Array, Array, Any, Array]:
    drift: Callable[[Array], _drift.Drift] = lambda p: _drift.drift_of(_drift.bound(sim, {path: p}))  # noqa: E731
    at = drift(p)
    linear = at.jacobian(x)
    by_p = jax.jvp(lambda p: drift(p)(x), (p,), (jnp.ones_like(p),))[1]
    return at(x), linear.whole(), by_p, linear, at.distance(x)


def _fixed(sim: Simulator, x: Array) -> tuple[Array, Array]:
    drift = _drift.drift_of(sim)
    return newton(drift, lambda x: drift.jacobian(x).whole(), x)


_run_parts, _run_newton = Compiled(_parts), Compiled(_fixed)
