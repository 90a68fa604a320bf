"""Stability maps: leading eigenvalues over a grid."""

import importlib
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import resolve
from vbinfer.execute.batches import key_ints
from vbinfer.explore import drift as _drift
from vbinfer.explore.equilibria import FEW_STATES, completed, distinct, ends_of, start_states
from vbinfer.explore.roots import Complex
from vbinfer.explore.sweeps import Grid
from vbinfer.io import npz
from vbinfer.simulation.simulator import Simulator

PER_MS = 1e3
"""1/ms in Hz."""
MORE, LESS = 64, 12
"""Starts at each point of a grid, of few states and of many."""
CLOSE = 0.05
"""Distance, relative to 1 + |x|, within which points of neighbours on the grid are taken to be of one branch."""


def stability(
    sim: Simulator, grid: Mapping[str | tuple[str, ...], Any], *, key: PRNGKey, starts: int | None = None
) -> Any:
    """Fixed points and leading eigenvalues over a grid of parameters.

    At every point Newton's method begins from the same starts, and from the fixed points of neighbours on the grid,
    which are followed along every axis in both directions. In 64 bits; with delays the leading eigenvalue is the
    rightmost characteristic root, for lags as they are.

    Args:
        sim: the simulator.
        grid: path to values `[K]`, or several paths that move together, as for `vb.sweep`.
        key: a JAX key.
        starts: starts at each point, beside those from neighbours; by default 64 with up to 12 states, else 12.

    Returns:
        `xarray.Dataset`: `n_fixed` over the grid; over the grid and `fixed`, by ascending leading eigenvalue and NaN
        beyond n_fixed, its real part `leading` (1/ms), its `frequency` (Hz, 0 where it is real) and `n_unstable`, the
        number of eigenvalues with positive real part. A point without fixed point has n_fixed 0.

    Raises:
        ValueError: unknown paths, values outside their range; a model without a smooth drift.

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> sim = vb.Simulator(vb.models.MontbrioPazoRoxin(), integrator=vb.Heun(dt=0.01))
        >>> ds = vb.stability(sim, {"model.eta": [-6.0, -5.0, -3.0]}, key=jax.random.key(0))
        >>> ds.n_fixed.values.tolist()
        [1, 3, 1]
    """
    sim, key = _drift.checked(sim, "stability"), _check.key(key)
    axes = Grid.of(grid)
    known = resolve(sim, axes.shapes)
    axes.check_ranges({path: (p.low, p.high) for path, p in known.items()})
    shape, values = tuple(axes.dims.values()), axes.points()
    with _drift.x64():
        precise = _drift.precise(sim)
        at = [_drift.bound(precise, {path: v[i] for path, v in values.items()}) for i in range(int(np.prod(shape)))]
        n = sum(math.prod(like.shape) for like in precise.state_shapes().values())
        many = _check.count((MORE if n <= FEW_STATES else LESS) if starts is None else starts, "starts", LESS)
        begin = start_states(at[len(at) // 2], key, many)
        found = _followed(at, begin, shape)
        rows, alike = [], None
        for one, x in zip(at, found, strict=True):
            ends = (x, np.ones(len(x), bool), np.zeros(len(x)))
            x, *_, values, unstable = completed(one, ends, key, MORE, alike)
            rows.append((values, unstable))
            alike = x, values
    return _dataset(axes, known, key, rows)


def _followed(at: list[Simulator], begin: Array, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Fixed points `[K, n]` at every point of a grid."""
    number = np.arange(len(at)).reshape(shape)
    found: list[np.ndarray] = [np.zeros((0, begin.shape[1])) for _ in at]

    def join(i: int, *more: tuple[np.ndarray, ...]) -> None:
        parts = [(found[i], np.ones(len(found[i]), bool), np.zeros(len(found[i]))), *more]
        found[i] = distinct(*(np.concatenate(column) for column in zip(*parts, strict=True)))[0]

    def neighbours(where: tuple[int, ...], step: int) -> list[int]:
        near = [tuple(np.add(where, step * np.eye(len(shape), dtype=int)[axis])) for axis in range(len(shape))]
        return [int(number[n]) for n in near if all(0 <= a < size for a, size in zip(n, shape, strict=True))]

    for where in np.ndindex(shape):
        i = int(number[where])
        join(i, ends_of(at[i], begin))
        _continue(at[i], i, found, neighbours(where, -1), join)
    # back again: what appears along an axis is followed to where it ends
    for where in reversed(list(np.ndindex(shape))):
        i = int(number[where])
        _continue(at[i], i, found, neighbours(where, 1), join)
    return found


def _continue(sim: Simulator, i: int, found: list[np.ndarray], near: list[int], join: Any) -> None:
    """Newton's method from neighbours' points that lack here."""
    for x in (x for j in near for x in found[j]):
        if not (np.abs(found[i] - x) <= CLOSE * (1.0 + np.abs(x))).all(axis=1).any():
            join(i, ends_of(sim, jnp.asarray(x[None])))


def _dataset(axes: Grid, known: Mapping[str, Any], key: PRNGKey, rows: list[tuple[Complex, np.ndarray]]) -> Any:
    xarray = importlib.import_module("xarray")
    shape, dims = tuple(axes.dims.values()), tuple(axes.dims)
    most = max((len(unstable) for _, unstable in rows), default=0)
    held = {name: np.full((len(rows), most), np.nan) for name in ("leading", "frequency", "n_unstable")}
    for i, (values, unstable) in enumerate(rows):
        lead = values[:, 0]
        order = np.argsort(lead.real, kind="stable")
        for name, of in (
            ("leading", lead.real),
            ("frequency", np.abs(lead.imag) * PER_MS / (2.0 * np.pi)),
            ("n_unstable", unstable),
        ):
            held[name][i, : len(of)] = of[order]
    units = {"leading": "1/ms", "frequency": "Hz", "n_unstable": ""}
    full = {
        name: ((*dims, "fixed"), a.reshape(*shape, most), {"units": units[name]} if units[name] else {})
        for name, a in held.items()
    }
    counts = np.array([len(unstable) for _, unstable in rows]).reshape(shape)
    return xarray.Dataset(
        {"n_fixed": (dims, counts), **full},
        axes.coordinates({path: p.unit for path, p in known.items()}),
        {"key": key_ints(key), **npz.versions()},
    )
