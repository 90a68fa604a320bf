"""Cells and networks of Jaxley as simulators for inference.

Their public init and step functions are called; Jaxley is imported when a module is given.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import did_you_mean
from vbinfer.io.fingerprint import traced
from vbinfer.monitors.base import steps_in

SOLVERS = ("bwd_euler", "crank_nicolson", "fwd_euler", "exp_euler")
Theta = Mapping[str, Array]


def from_jaxley(
    module: Any,
    *,
    t1: float,
    dt: float = 0.025,
    summary: Callable[[Array], Array] | None = None,
    solver: str = "bwd_euler",
) -> "JaxleyForward":
    """A Jaxley cell or network as a forward model.

    Its simulations equal `jaxley.integrate`, without the initial value: draws, stores, estimators, NUTS, calibration
    and reports work on an existing cell as it is. The module is copied, not changed.

    Jaxley's Crank-Nicolson takes gates of time zero for those of -dt/2: it is of second order only where gates start in
    their steady state (`module.init_states()`). Of an axon compartment whose gates start at 0.2, its default, the
    largest error at dt = 0.025 and 0.0125 ms is 52.8 and 30.4 mV, that of `vb.cable.Cell` 2.83 and 0.71 (case hh_gates
    of tests/golden/cable.npz).

    Args:
        module: with recordings, and trainable parameters by `make_trainable`.
        t1: duration, ms, a multiple of dt. Stimuli are cut or padded with zeros; a clamp must be as long.
        dt: step, ms.
        summary: the recordings `[T, recording]` to features; without it they are returned.
        solver: one of Jaxley's.

    Returns:
        `(theta, key) -> y`, with `.batch(theta, keys)`, `.names`, `.check(prior)`, `.fingerprint()`. Keys of theta are
        the names of the trainable parameters, shaped as in `module.get_parameters()`; one value may be a number. A name
        that is trained for several groups is `<name>`, `<name>_1`, `<name>_2`, in their order. Nothing is random: `key`
        may be None.

    Raises:
        ValueError: a module without recordings or trainable parameters, an unknown solver, a clamp too short.
    """
    return JaxleyForward(module, t1, dt, summary, solver)


class JaxleyForward:
    """See `from_jaxley`."""

    def __init__(self, module: Any, t1: float, dt: float, summary: Callable[[Array], Array] | None, solver: str):

        if module.recordings.empty:
            raise ValueError("the module records nothing; call module.record() where the voltage is wanted")
        self.dt, self.summary = _check.milliseconds(dt, "dt", "dt=0.025"), summary
        self.n_steps = steps_in(float(t1), self.dt, "t1")
        self.solver = _check.one_of(solver, "solver", SOLVERS)
        module = copy.deepcopy(module)  # to_jax writes into it
        module.to_jax()
        self.groups = _named(module.get_parameters())
        if not self.groups:
            raise ValueError('the module has no trainable parameter; call module.make_trainable("HH_gNa")')
        self._module = module
        self._externals = {k: _fitted(k, np.asarray(v).T, self.n_steps) for k, v in module.externals.items()}
        rows = module.recordings
        self._read = list(zip(rows.state.to_list(), rows.rec_index.to_list(), strict=True))
        self._compiled = jax.jit(jax.vmap(self._run))

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shape of every trainable parameter, by its name in theta."""
        return {name: shape for name, (_, shape) in self.groups.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, without a summary of the recordings."""
        if hasattr(self.summary, "names_for"):
            return tuple(self.summary.names_for(len(self._read)))  # type: ignore[union-attr]
        if self.summary is None:
            return tuple(f"{state}[{index}]" for state, index in self._read)
        like = {name: jnp.zeros(shape) for name, shape in self.parameters.items()}
        return tuple(f"x[{i}]" for i in range(jax.eval_shape(self._run, like).size))

    def __call__(self, theta: Theta, key: Array | None = None) -> Array:
        """Recordings `[T, recording]`, or their features, of one theta."""
        return self.batch({name: jnp.asarray(a)[None] for name, a in theta.items()}, key)[0]

    def batch(self, theta: Theta, keys: Array | None = None) -> Array:
        """Those of many, leaves `[B, ...]`."""
        self._check({name: tuple(jnp.shape(a)[1:]) for name, a in theta.items()})
        return self._compiled(dict(theta))

    def check(self, prior: Any) -> None:
        """Raise ValueError unless a prior's leaves are trainable parameters."""
        self._check({name: tuple(shape) for name, shape in prior.shapes.items()})

    def fingerprint(self) -> str:
        """SHA-256 of the program of one simulation."""
        return traced(self._run, {name: jnp.zeros(shape) for name, shape in self.parameters.items()})[0]

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if name not in self.groups:
                raise ValueError(f"theta names {name!r}, no trainable parameter. {did_you_mean(name, self.groups)}")
            own = self.parameters[name]
            if shape != own and not (own == (1,) and shape == ()):
                raise ValueError(f"{name!r} has shape {list(shape)}; expected {list(own)}, as in get_parameters()")
        lacking = [name for name in self.groups if name not in shapes]
        if lacking:
            raise ValueError(f"theta lacks the trainable parameter(s) {', '.join(lacking)}")

    def _run(self, theta: Theta) -> Array:
        from jaxley.integrate import build_init_and_step_fn  # pyright: ignore[reportMissingImports]  (of the user)

        module = copy.deepcopy(self._module)  # its functions keep what they were traced with in it
        device = "cpu" if jax.default_backend() == "cpu" else "gpu"
        init, step = build_init_and_step_fn(module, voltage_solver=f"jaxley.dhs.{device}", solver=self.solver)
        params = [{key: jnp.reshape(theta[name], shape)} for name, (key, shape) in self.groups.items()]
        states, fixed = init(params, None, None, self.dt)
        inds = module.external_inds.copy()
        if self.solver == "exp_euler":
            build = module.build_exp_euler_transition_matrix
            fixed["exp_euler_transition"] = build(delta_t=self.dt, axial_conductances=fixed["axial_conductances"])

        def one(states: Any, now: Any) -> Any:
            states = step(states, fixed, now, inds, self.dt)
            return states, jnp.stack([states[state][index] for state, index in self._read])

        _, y = jax.lax.scan(one, states, self._externals, length=self.n_steps)
        return y if self.summary is None else self.summary(y)


def _named(groups: list[dict[str, Any]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in theta to Jaxley's key and shape."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    seen: dict[str, int] = {}
    for group in groups:
        for key, value in group.items():
            k = seen[key] = seen.get(key, -1) + 1
            found[f"{key}_{k}" if k else key] = (key, tuple(jnp.shape(value)))
    return found


def _fitted(key: str, signal: np.ndarray, steps: int) -> Array:
    """A stimulus of as many steps."""
    missing = steps - len(signal)
    if missing > 0 and key != "i":
        raise ValueError(f"the clamp of {key!r} has {len(signal)} steps, the simulation {steps}; give a longer one")
    return jnp.asarray(np.pad(signal[:steps], [(0, max(missing, 0)), (0, 0)]))
