"""A simulator for inference.

It maps `(theta, key) -> x`, alone or batched.
"""

import math
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import Theta
from vbinfer._param import Parameter, bind, did_you_mean, paths, replace, resolve
from vbinfer._random import key_words
from vbinfer.io.fingerprint import fingerprint
from vbinfer.measurement import AbstractPart, Chain
from vbinfer.monitors.base import steps_in
from vbinfer.network.delays import History
from vbinfer.simulation.batch import run_batch
from vbinfer.simulation.compiled import Compiled
from vbinfer.simulation.initial import by_variable, initial_history, initial_state
from vbinfer.simulation.simulate import in_order, sample_times, simulate
from vbinfer.simulation.simulator import Simulator
from vbinfer.simulation.solution import Final

Features = Callable[[Any], Array]
"""Array of a monitor `[T, N]` to features `[F]`; a `vb.Summary` is one."""
INIT, OBSERVE = "init.", "observe."


_CHECKED: dict[int, tuple[Any, set[Any]]] = {}
"""By identity: a forward model, and the shapes of theta that it was found to take."""


def _checked(fwd: "ForwardModel") -> set[Any]:
    """Shapes of theta that need no check anew."""
    place = id(fwd)
    reference, shapes = _CHECKED.get(place, (None, set()))
    if reference is None or reference() is not fwd:
        shapes = set()
        _CHECKED[place] = weakref.ref(fwd, lambda _: _CHECKED.pop(place, None)), shapes
    return shapes


class ForwardModel(eqx.Module):
    """theta to summary: bind, simulate, drop the transient, observe, summarise.

    `fwd(theta, key)` is one draw, `fwd.batch(theta, keys)` many in one program with the batch as last axis.

    Args:
        sim: the simulator whose parameters theta replaces.
        t1: duration including the transient, ms.
        summary: array of a monitor `[T, N]` to features `[F]`, for example a `vb.Summary`; or a mapping from monitor
            name to one, the features then follow each other.
        transient: samples at or before this time are dropped, ms.
        monitor: name of the monitor to summarise; needed when there are several.
        init: initial state or `History`, as for `simulate`; None starts every draw where its own model does. Of a
            `Solution.final` the state is taken, not what its monitors hold.
        to_paths: theta to a mapping of paths, for parameters that are not leaves (a region group, map weights).
        observe: the measurement, between what the monitor gave and the summary: a `vb.measurement.Chain` of the one
            monitor that is summarised, or any `(theta, y, key) -> y`.
        conditions: name to paths and their values, `{"rest": {}, "stimulated": {"stimulus.amplitude": 2.0}}`: every
            theta is simulated under each of them, a stimulated region, a task, a map of receptors. Features are named
            `<condition>.<feature>` and follow each other; condition k uses `fold_in(key, k)`; all are one program,
            which runs them one after the other. Paths that a condition sets, theta cannot name.

    Theta may name any parameter of the simulator by its path, initial values as `init.<variable>` and the parameters
    of a chain as `observe.<part>.<parameter>`.
    """

    sim: Simulator
    outputs: tuple[str, ...] = eqx.field(static=True)
    """The monitors that are summarised, in the order of their features (a dictionary would come out of jit sorted)."""
    parts: tuple[Features, ...]
    init: Any
    t1: float = eqx.field(static=True)
    transient: float = eqx.field(static=True)
    to_paths: Callable[[Theta], Mapping[str, Array]] | None = eqx.field(static=True)
    observe: Chain | Callable[[Theta, Any, Array], Any] | None
    conditions: tuple[str, ...] = eqx.field(static=True)
    set_by_condition: Theta
    """Values of every path that a condition sets, `[condition, ...]`."""

    def __init__(
        self,
        sim: Simulator,
        *,
        t1: float,
        summary: Features | Mapping[str, Features],
        transient: float = 0.0,
        monitor: str | None = None,
        init: Any = None,
        to_paths: Callable[[Theta], Mapping[str, Array]] | None = None,
        observe: Chain | Callable[[Theta, Any, Array], Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
    ):
        if isinstance(init, Final):
            if sim.delays is not None:
                raise ValueError(
                    "init is the end of a run with signals under way, which a ForwardModel does not take over; write "
                    "init=final.state for a constant history, or init=vb.History(...)"
                )
            init = init.state
        self.sim, self.to_paths, self.observe = sim, to_paths, observe
        self.conditions, self.set_by_condition = _conditions(sim, conditions)
        self.init = None if init is None else initial_history(sim, init)
        self.t1 = _check.number(t1, "t1", 300e3, "a finite number of ms")
        self.transient = _check.number(transient, "transient", 30e3, "a finite number of ms")
        given = _summaries(sim, summary, monitor)
        self.outputs, self.parts = tuple(given), tuple(given.values())
        steps_in(self.t1, sim.dt, "t1")
        if self.transient:
            steps_in(self.transient, sim.dt, "transient")
        if not 0 <= self.transient < self.t1:
            raise ValueError(f"transient is {transient:g} ms with t1 = {t1:g} ms; it must lie in [0, t1)")
        for name, part in given.items():
            first, last = self._kept(name)
            if first >= last:
                raise ValueError(f"no sample of monitor {name!r} lies between transient {transient:g} and t1 {t1:g} ms")
            _check_series(sim, name, part)
        _check_observe(sim, self.outputs, observe)

    @property
    def summary(self) -> dict[str, Features]:
        """Monitor name to its summary, in feature order."""
        return dict(zip(self.outputs, self.parts, strict=True))

    @property
    def n_steps(self) -> int:
        """Steps of a simulation."""
        return round(self.t1 / self.sim.dt)

    def _period(self, name: str) -> float:
        """Between two samples of a monitor, ms."""
        return self.sim.monitors[name].period or self.sim.dt

    def _kept(self, name: str) -> tuple[int, int]:
        """First kept sample and number of samples of a monitor."""
        if self.sim.monitors[name].at_end:
            return 0, 1
        period = self.sim.period_steps()[name]
        return round(self.transient / self.sim.dt) // period, self.n_steps // period

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of x."""
        out: list[str] = []
        for name, summary in self.summary.items():
            sample = self.sim.monitors[name].sample_shape(self.sim.n_nodes)
            width = sample[0] if sample else self.sim.n_nodes
            own = _feature_names(summary, lambda name=name: self._series_shape(name), width)
            out += own if len(self.summary) == 1 else [f"{name}.{feature}" for feature in own]
        if self.conditions:
            return tuple(f"{condition}.{feature}" for condition in self.conditions for feature in out)
        return tuple(out)

    def _series_shape(self, name: str) -> Any:
        """Shape of the kept samples of a monitor."""

        def series() -> Any:
            key = None if self.sim.noise is None else jax.random.key(0)
            init = None if self.init is None else History(self.init)
            return self._drop(name, simulate(self.sim, t1=self.t1, key=key, init=init).ys[name], axis=0)

        return jax.eval_shape(series)

    def times(self, name: str | None = None) -> np.ndarray:
        """Times of the kept samples of a monitor, ms."""
        name = name or self.outputs[0]
        if self.sim.monitors[name].at_end:
            return np.asarray([self.t1])
        begin, period = jnp.zeros((), jnp.int32), self.sim.period_steps()[name]
        return np.asarray(sample_times(begin, 0, self.n_steps, period, self.sim.dt))[self._kept(name)[0] :]

    def __call__(self, theta: Mapping[str, Any], key: Array | None) -> Array:
        """One draw, x `[F]`; leaves are arrays, numbers or lists."""
        return _call(self, _arrays(theta), key)

    def batch(self, theta: Mapping[str, Any], keys: Array) -> Array:
        """B draws at once, x `[B, F]`.

        Theta has leaves `[B, ...]`; equal to `vmap` of the single draw.
        """
        return self.batch_series(theta, keys)[0]

    def batch_series(self, theta: Mapping[str, Any], keys: Array) -> tuple[Array, Any]:
        """B draws with the series that were summarised.

        x `[B, F]` and y `[B, T, N]`, a dictionary by monitor if several are summarised, and by condition if there are
        any.
        """
        theta = _arrays(theta)
        for name, value in theta.items():
            if value.ndim == 0 or len(value) != len(keys):
                raise ValueError(
                    f"theta {name!r} has shape {list(value.shape)} with {len(keys)} keys; expected [{len(keys)}, ...], "
                    "one row per draw"
                )
        shapes = tuple((name, v.shape[1:], v.dtype) for name, v in theta.items())
        known = _checked(self)
        if self.to_paths is not None or shapes not in known:  # a user's function may have changed
            self._check_shapes({name: jax.ShapeDtypeStruct(*of) for name, *of in shapes})
            known.add(shapes)
        return _batch(self, theta, keys)

    def _named(self, theta: Theta) -> tuple[dict[str, Array], dict[str, Array]]:
        """Values by path: of the simulator, and of a chain."""
        named, own = dict(theta if self.to_paths is None else self.to_paths(theta)), {}
        if isinstance(self.observe, Chain):
            own = {name: named.pop(name) for name in tuple(named) if name.startswith(OBSERVE)}
        return named, own

    def _chain(self, theta: Theta) -> Chain:
        """The chain with its parameters from theta, of one draw."""
        return bind({OBSERVE[:-1]: cast(Chain, self.observe)}, self._named(theta)[1])[OBSERVE[:-1]]

    def _declared(self) -> dict[str, Parameter]:
        """Every parameter that theta may name, by path."""
        own = {OBSERVE[:-1]: self.observe} if isinstance(self.observe, Chain) else {}
        return {**paths(self.sim), **paths(own)}

    def _split(self, theta: Theta) -> tuple[dict[str, Array], dict[str, Array]]:
        """Paths of the simulator, and initial values by variable."""
        named, _ = self._named(theta)
        init = {name.removeprefix(INIT): value for name, value in named.items() if name.startswith(INIT)}
        by_variable(self.sim, init, "init")
        for name in named:
            if name in self.set_by_condition:
                raise ValueError(f"theta names {name!r}, which the conditions set; leave it out of one of the two")
        return {name: value for name, value in named.items() if not name.startswith(INIT)}, init

    def _check_shapes(self, theta: Mapping[str, Any]) -> None:
        """Raise ValueError for wrong names and shapes.

        A single abstract draw is bound, before anything runs.
        """

        def one(theta: Theta) -> Any:
            leaves, init = self._split(theta)
            if isinstance(self.observe, Chain):
                self._chain(theta).check_channels(_channels(self.sim, self.outputs[0]))
            return self._history(bind(self.sim, leaves), init).state

        jax.eval_shape(one, dict(theta))

    def _history(self, sim: Simulator, drawn: Mapping[str, Array]) -> History:
        """The past, constant in variables whose start is drawn."""
        now = initial_state(sim, sim.model.init(sim.n_nodes)._replace(**drawn))
        given = initial_history(sim, now) if self.init is None else self.init
        rows = lambda a, like: jnp.broadcast_to(jnp.asarray(a, like.dtype), (len(given[0]), *like.shape))  # noqa: E731
        rest = jax.tree.map(rows, given, now)
        return History(rest._replace(**{name: rows(getattr(now, name), getattr(now, name)) for name in drawn}))

    def _series(self, theta: Theta, key: Array | None) -> dict[str, Any]:
        leaves, init = self._split(theta)
        bound = bind(self.sim, leaves)
        ys = simulate(bound, t1=self.t1, key=key, init=self._history(bound, init)).ys
        return {name: self._drop(name, ys[name], axis=0) for name in self.summary}

    def _drop(self, name: str, y: Any, axis: int) -> Any:
        """Samples of a monitor without those of the transient."""
        if self.sim.monitors[name].at_end:
            return self.sim.monitors[name].after(y, self.transient)
        first, last = self._kept(name)
        return jax.tree.map(lambda a: jax.lax.slice_in_dim(a, first, last, axis=axis), y)

    def _series_batch(self, theta: Theta, keys: Array) -> dict[str, Any]:
        leaves, init = (
            self._split(theta) if self.to_paths is None else jax.vmap(self._split, axis_size=len(keys))(theta)
        )
        # batch last inside, [B, T, N] outside; to_paths is a user's function of one draw, hence vmap
        ys = self._run(leaves, init, keys, self.n_steps)
        return {name: self._drop(name, ys[name], axis=1) for name in self.summary}

    def _valid(self, theta: Theta, x: Array) -> Array:
        """x, or NaN where theta is out of range.

        NaN marks a failed draw.
        """
        known, leaves = self._declared(), self._split(theta)[0] | self._named(theta)[1]
        # in traced code a failure is a value: NaN is counted as invalid, with its region of the prior
        inside = [jnp.all((v >= known[path].low) & (v <= known[path].high)) for path, v in leaves.items()]
        return jnp.where(jnp.all(jnp.asarray(inside)), x, jnp.nan) if inside else x

    def _run(self, leaves: Theta, init: Theta, keys: Array, n_steps: int) -> dict[str, Any]:
        """Samples of every monitor.

        They are `[B, T, N]`, a draw per key.
        """
        start_of = lambda leaves, init: self._history(replace(self.sim, leaves), init).state  # noqa: E731
        # before the leaves are arranged: the model's own start may depend on its parameters, a draw each
        history = jax.vmap(start_of, axis_size=len(keys))(leaves, init)
        words = None if self.sim.noise is None else key_words(keys)
        return run_batch(self.sim, leaves, history, n_steps, words)

    def _under_conditions(self, run: Callable[["ForwardModel", Any], Any], keys: Array | None) -> tuple[Array, Any]:
        """x and series of `run(forward model, keys)` under every condition."""
        if not self.conditions:
            return run(self, keys)

        def one(condition: tuple[Array, Theta]) -> tuple[Array, Any]:
            k, values = condition
            under = eqx.tree_at(lambda fwd: fwd.sim, self, replace(self.sim, values))
            if keys is None:
                return run(under, None)
            fold = jax.vmap(jax.random.fold_in, (0, None)) if keys.ndim else jax.random.fold_in
            return run(under, fold(keys, k))

        # one after the other: a program as large as that of one, and values that all draws share stay shared
        x, ys = jax.lax.map(one, (jnp.arange(len(self.conditions)), self.set_by_condition))
        x = jnp.moveaxis(x, 0, -2)
        by_name = {name: jax.tree.map(lambda a, k=k: a[k], ys) for k, name in enumerate(self.conditions)}
        return x.reshape(*x.shape[:-2], -1), by_name

    def summarise(self, ys: dict[str, Any]) -> Array:
        """Features `[F]` of series by monitor name, simulated or recorded."""
        return jnp.concatenate([jnp.ravel(summary(ys[name])) for name, summary in self.summary.items()])

    def _observed(self, theta: Theta, ys: dict[str, Any], key: Any) -> tuple[Array, Any]:
        """Features and series with measurement noise.

        The dynamics use the words of `key`, `observe` a key folded from it.
        """
        ys = in_order(self.sim, ys)
        lost = [lost for name, y in ys.items() if (lost := self.sim.monitors[name].failed(y)) is not None]
        if self.observe is not None:
            measured: Any = _alone(ys)
            k_observe = jax.random.fold_in(_check.key(key), 1)
            if isinstance(self.observe, Chain):
                measured = self._chain(theta)(measured, self._period(self.outputs[0]), k_observe)
            else:
                measured = self.observe(theta, measured, k_observe)
            ys = dict.fromkeys(ys, measured) if len(ys) == 1 else measured
        x = self.summarise(ys)
        for some in lost:
            x = jnp.where(some, jnp.nan, x)
        return self._valid(theta, x), _alone(ys)

    def check(self, prior: Any) -> None:
        """Raise ValueError unless the leaves of a prior fit."""
        if self.to_paths is None:
            try:
                own = [n for n in prior.shapes if n.startswith(OBSERVE) and isinstance(self.observe, Chain)]
                resolve(self.sim, [n for n in prior.shapes if n not in own and not n.startswith(INIT)])
                resolve({OBSERVE[:-1]: self.observe}, own)
            except ValueError as error:
                raise ValueError(f"{error} (given by the {type(prior).__name__.lower()})") from None
        self._check_shapes(
            {name: jax.ShapeDtypeStruct(shape, jnp.result_type(float)) for name, shape in prior.shapes.items()}
        )

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Declared range of every parameter, by path.

        Empty where `to_paths` stands in between.
        """
        return {} if self.to_paths else {path: (leaf.low, leaf.high) for path, leaf in self._declared().items()}

    def units(self) -> dict[str, str]:
        """Declared unit of every parameter, by path."""
        return {path: leaf.unit for path, leaf in self._declared().items()}

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides x; see `vbinfer.io.fingerprint`.

        Given theta and key.
        """
        return fingerprint(self)

    def estimate(self, n: int, *, width: int = 64) -> dict[str, float]:
        """Cost of `n` draws, from a timed probe.

        Seconds on one device, network steps and bytes of x.
        """
        steps = self.n_steps
        probe_steps = min(steps, 2_000)
        keys = jax.random.split(jax.random.key(0), width)
        run = Compiled(lambda k: self._run({}, {}, keys, k))
        jax.block_until_ready(run(probe_steps))  # compiles
        begin = time.perf_counter()
        jax.block_until_ready(run(probe_steps))
        runs = max(1, len(self.conditions))
        seconds = (time.perf_counter() - begin) * steps / probe_steps * math.ceil(n / width) * runs
        return {"seconds": seconds, "network_steps": float(n * steps * runs), "bytes": float(4 * n * len(self.names))}


def _arrays(theta: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays of the default float type.

    A Python float would be a new compilation for every value.
    """
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in theta.items()}


@Compiled
def _call(fwd: ForwardModel, theta: Theta, key: Array | None) -> Array:
    def run(fwd: ForwardModel, key: Array | None) -> tuple[Array, Any]:
        return fwd._observed(theta, fwd._series(theta, key), key)

    return fwd._under_conditions(run, key)[0]


@Compiled
def _batch(fwd: ForwardModel, theta: Theta, keys: Array) -> tuple[Array, Any]:
    def run(fwd: ForwardModel, keys: Array) -> tuple[Array, Any]:
        return jax.vmap(fwd._observed)(theta, fwd._series_batch(theta, keys), keys)

    return fwd._under_conditions(run, keys)


def _conditions(sim: Simulator, given: Any) -> tuple[tuple[str, ...], Theta]:
    """Names of the conditions, and the values that they set.

    Where a condition leaves a path out that another sets, the simulator's own value stands.
    """
    if given is None:
        return (), {}
    if not isinstance(given, Mapping) or not given or not all(isinstance(v, Mapping) for v in given.values()):
        raise TypeError(
            f"conditions was given as {given!r}; write a mapping from name to paths, "
            'conditions={"rest": {}, "stimulated": {"stimulus.amplitude": 2.0}}'
        )
    for name, values in given.items():
        try:
            bind(sim, values)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (given by condition {name!r})") from None
    stacked = {}
    for path, leaf in resolve(sim, dict.fromkeys(path for values in given.values() for path in values)).items():
        rows = [jnp.asarray(values.get(path, leaf.value), leaf.value.dtype) for values in given.values()]
        stacked[path] = jnp.stack(jnp.broadcast_arrays(*rows))
    return tuple(str(name) for name in given), stacked


def _alone(ys: dict[str, Any]) -> Any:
    """The only series, or all by monitor name."""
    return next(iter(ys.values())) if len(ys) == 1 else ys


def _summaries(sim: Simulator, summary: Any, monitor: str | None) -> dict[str, Features]:
    """Monitor name to its summary."""
    given: dict[str, Any] = dict(summary) if isinstance(summary, Mapping) else {}
    if not isinstance(summary, Mapping):
        if monitor is None and len(sim.monitors) > 1:
            raise ValueError(
                f"the simulator has monitors {', '.join(sim.monitors)}; name one with monitor=, or give "
                'summary={"bold": ..., "eeg": ...}'
            )
        given = {monitor or next(iter(sim.monitors)): summary}
    for name, part in given.items():
        if name not in sim.monitors:
            raise ValueError(f"there is no monitor {name!r}. {did_you_mean(name, sim.monitors)}")
        if not callable(part):
            raise TypeError(f"the summary of {name!r} is {part!r}; expected a function of an array [T, N]")
    return given


def _check_series(sim: Simulator, name: str, summary: Any) -> None:
    """Raise ValueError unless a `Summary` is given what it expects."""
    expected = getattr(summary, "period", None)
    if expected is None:
        return
    monitor = sim.monitors[name]
    period, sample = monitor.period or sim.dt, monitor.sample_shape(sim.n_nodes)
    if sample is None:
        remedy = f"{type(monitor).__name__}(..., var={next(iter(sim.node_shapes()))!r})"
        raise ValueError(f"monitor {name!r} records several state variables and a Summary takes one; write {remedy}")
    if len(sample) != 1:
        raise ValueError(
            f"monitor {name!r} gives [T, {', '.join(map(str, sample))}] and a Summary takes [T, N]; give a function "
            "instead, such as summary=lambda y: y[-1][jnp.triu_indices(n, 1)]"
        )
    if abs(float(expected) - period) > 1e-6 * period:
        raise ValueError(
            f"Summary(period={float(expected):g}) is given samples of monitor {name!r} every {period:g} ms; "
            f"write Summary(period={period:g})"
        )


def _check_observe(sim: Simulator, outputs: tuple[str, ...], observe: Any) -> None:
    """Raise unless a measurement fits what is summarised."""
    if observe is None or (callable(observe) and not isinstance(observe, Chain | AbstractPart)):
        return
    if not isinstance(observe, Chain):
        raise TypeError(
            f"observe is {observe!r}; write vb.measurement.Chain({{'thermal': vb.measurement.Thermal()}}), or a "
            "function (theta, y, key) -> y"
        )
    if len(outputs) > 1:
        raise ValueError(f"observe is a Chain, which measures one monitor, and {', '.join(outputs)} are summarised")
    observe.check_channels(_channels(sim, next(iter(outputs))))


def _channels(sim: Simulator, name: str) -> int:
    """Number of channels that a chain measures."""
    sample = sim.monitors[name].sample_shape(sim.n_nodes)
    if sample is None or len(sample) != 1:
        raise ValueError(
            f"observe is a Chain, which measures [T, N], and monitor {name!r} records something else; write "
            f"{type(sim.monitors[name]).__name__}(..., var={next(iter(sim.node_shapes()))!r})"
        )
    (width,) = sample
    return width


def _feature_names(summary: Any, series: Callable[[], Any], n_nodes: int) -> list[str]:
    if hasattr(summary, "names_for"):
        return list(summary.names_for(n_nodes))
    if hasattr(summary, "names"):
        return list(summary.names)
    width = math.prod(jax.eval_shape(summary, series()).shape)
    return [f"x[{i}]" for i in range(width)]
