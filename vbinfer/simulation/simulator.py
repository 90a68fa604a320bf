"""Model, network, integrator, noise and monitors in one simulator."""

import math
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from vbinfer._check import is_count
from vbinfer._param import Parameter, Parametrised, did_you_mean, paths
from vbinfer.fields.base import Field
from vbinfer.integrators import AbstractIntegrator, AbstractOwnStep, Rosenbrock
from vbinfer.models.base import AbstractModel, AbstractStepper
from vbinfer.monitors import AbstractMonitor, Raw
from vbinfer.monitors.base import steps_in
from vbinfer.network.connectome import Connectome
from vbinfer.network.coupling import AbstractCoupling
from vbinfer.network.delays import Delays, shortest_lag
from vbinfer.noise import AbstractNoise
from vbinfer.simulation import of_field
from vbinfer.stimuli import AbstractStimulus


class Projection(NamedTuple):
    """Connections of one kind: network, coupling, delays."""

    name: str
    """Empty where there is one connectome alone."""
    connectome: Connectome
    coupling: AbstractCoupling
    delays: Delays | None


class Simulator(Parametrised):
    """A configured simulation.

    Every declared parameter is addressed by its path: `"model.w"`, `"coupling.G"`.

    Args:
        model: the equations of a node.
        connectome: who drives whom; needs a `coupling`. Without one the nodes are independent. A mapping from name to
            connectome gives several projections, each with its own coupling: the rows of the coupling input c follow
            each other in the order of this mapping. Paths are `connectome.<name>.speed`, `coupling.<name>.G`.
        coupling: how they drive each other; a mapping by the same names where there are several projections.
        integrator: `Euler(dt)`, `Heun(dt)`, `RungeKutta4(dt)` or `Rosenbrock(dt)`; `Native(dt)` for a model that brings
            its own step, or another scheme of `vbinfer.cable` for cells.
        noise: one of `vbinfer.noise`, or None for a deterministic simulation.
        stimulus: one of `vbinfer.stimuli`: the input u of every node.
        delays: `Delays(max)`; None transmits at once, whatever the tract lengths. One for all projections, or a
            mapping by their names: those it leaves out transmit at once.
        field: a `vb.fields.Field`: the nodes are points of a surface, coupled along it, and a connectome couples its
            regions.
        monitors: name to monitor; None is `{"raw": Raw()}`.
        nodes: number of nodes without a connectome; by default the length of the model's `[N]` parameters, else 1.

    Raises:
        ValueError: parts that do not fit: parameters of another number of nodes, a monitor of a variable that the
            model does not have, a period that is no multiple of dt, a connectome without coupling.
    """

    model: AbstractModel
    connectome: Connectome | Mapping[str, Any] | None
    coupling: AbstractCoupling | Mapping[str, Any] | None
    integrator: AbstractIntegrator
    noise: AbstractNoise | None
    stimulus: AbstractStimulus | None
    delays: Delays | Mapping[str, Any] | None
    field: Field | None
    monitors: dict[str, AbstractMonitor]
    nodes: int | None = eqx.field(static=True)

    def __init__(
        self,
        model: AbstractModel,
        connectome: Connectome | Mapping[str, Any] | None = None,
        *,
        coupling: AbstractCoupling | Mapping[str, Any] | None = None,
        integrator: AbstractIntegrator,
        noise: AbstractNoise | None = None,
        stimulus: AbstractStimulus | None = None,
        delays: Delays | Mapping[str, Any] | None = None,
        field: Field | None = None,
        monitors: Mapping[str, AbstractMonitor] | None = None,
        nodes: int | None = None,
    ):
        parts = {"model": model, "connectome": connectome, "coupling": coupling, "integrator": integrator}
        _check_parts(parts | {"noise": noise, "stimulus": stimulus, "delays": delays, "field": field})
        _check_monitors(monitors)
        if nodes is not None and not (is_count(nodes) and nodes > 0):
            raise ValueError(f"nodes={nodes!r} was given; expected a whole number above 0")
        self.model, self.integrator, self.noise, self.stimulus, self.nodes = model, integrator, noise, stimulus, nodes
        self.connectome, self.coupling, self.delays = _aligned(connectome, coupling, delays, self.dt)
        self.field = field if field is None else of_field.measured(field, integrator)
        given = {"raw": Raw()} if monitors is None else monitors
        first = next(iter(self.projections()), None)
        by_region = field is not None and field.regions is not None
        labels = model.labels or (first.connectome.labels if first and not by_region else None)
        self.monitors = {name: monitor.placed(labels) for name, monitor in given.items()}

    def projections(self) -> tuple[Projection, ...]:
        """All projections, in the order of their rows."""
        if self.connectome is None or self.coupling is None:
            return ()
        if not isinstance(self.connectome, Mapping):
            return (Projection("", self.connectome, cast(Any, self.coupling), cast(Any, self.delays)),)
        coupling, delays = cast(Any, self.coupling), cast(Any, self.delays) or {}
        return tuple(Projection(name, c, coupling[name], delays.get(name)) for name, c in self.connectome.items())

    @property
    def n_nodes(self) -> int:
        """Number of nodes N."""
        if self.model.n_nodes is not None:
            return self.model.n_nodes
        if self.field is not None:
            return self.field.n_nodes
        if self.connectome is not None:
            first = next(iter(self.connectome.values())) if isinstance(self.connectome, Mapping) else self.connectome
            return first.n_nodes
        # without a connectome the parameters say how many nodes there are
        lengths = {n for leaf in self._elementwise().values() if (n := _length(leaf)) > 1}
        return self.nodes or (max(lengths) if lengths else 1)

    @property
    def n_sources(self) -> int:
        """Number of nodes or regions that a connectome couples."""
        regions = None if self.field is None else self.field.regions
        return self.n_nodes if regions is None else regions.n_regions

    @property
    def sends(self) -> str:
        """What of `at_nodes` the local term of a field reads."""
        return (self.field and self.field.sends) or self.model.cvar[0]

    @property
    def dt(self) -> float:
        """Step of the integrator, ms."""
        return self.integrator.dt

    @property
    def sends_spikes(self) -> bool:
        """Whether the model sends spikes."""
        return getattr(self.model, "sends_spikes", False)

    def _elementwise(self) -> dict[str, Parameter]:
        return {path: leaf for path, leaf in paths(self).items() if leaf.axes is None}

    def period_steps(self) -> dict[str, int]:
        """Steps per sample of every monitor in the loop."""
        return {
            name: 1 if m.period is None else steps_in(m.period, self.dt, f"the period of monitor {name!r}")
            for name, m in self.monitors.items()
            if not m.at_end
        }

    def strides(self) -> dict[str, int]:
        """Steps between two updates, of monitors that update."""
        return {name: k for name, m in self.monitors.items() if (k := m.stride(self.dt)) is not None}

    def state_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape of every state variable, in the model's order."""
        shapes = self.model.shapes(self.n_nodes)
        return {v: jax.ShapeDtypeStruct(shapes[v], jnp.result_type(float)) for v in self.model.variables()}

    def node_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of `at_nodes`, in its order."""
        seen: dict[str, jax.ShapeDtypeStruct] = {}

        def show(x: Any) -> None:  # results of eval_shape would come sorted by name
            seen.update({k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in self.model.at_nodes(x).items()})

        jax.eval_shape(show, self.model.State(**self.state_shapes()))
        return seen

    def check_by_node(self, what: str) -> None:
        """Raise ValueError unless every state variable is `[N]`."""
        n = self.n_nodes
        for name, like in self.state_shapes().items():
            if like.shape != (n,):
                raise ValueError(
                    f"{what} needs one value per node in every state variable; {name!r} of {type(self.model).__name__} "
                    f"is {list(like.shape)} with {n} nodes"
                )

    def validate(self) -> None:
        if (self.connectome is None) != (self.coupling is None):
            have, lack = ("connectome", "coupling") if self.coupling is None else ("coupling", "connectome")
            raise ValueError(f"a {have} was given without a {lack}; the two go together, or leave both out")
        for name, connectome, _, _ in self.projections():
            if self.field is None and self.nodes not in (None, connectome.n_nodes):
                raise ValueError(
                    f"nodes={self.nodes} was given with a connectome of {connectome.n_nodes}; leave nodes out"
                )
            if self.model.n_nodes is None and self.field is None and connectome.n_nodes != self.n_nodes:
                raise ValueError(
                    f"connectome {name!r} has {connectome.n_nodes} nodes and the first has {self.n_nodes}; all "
                    "projections are between the same nodes"
                )
        n = self.n_nodes
        self._check_shapes(n)
        self._check_leaves(n)
        shown = self.node_shapes()
        for monitor in self.monitors.values():
            monitor.reads(tuple(shown))
            monitor.check_nodes(n)
        if self.connectome is not None:
            self._check_cvar(shown, n)
        self.strides()
        of_field.check(self, shown)
        if self.noise is not None:
            self._check_noise(self.noise, n)
        if self.stimulus is not None:
            self.stimulus.check_nodes(n)
            self.model.check_stimulus(self.stimulus)
            for doubt in self.stimulus.doubts(self.dt):
                warnings.warn(doubt, stacklevel=4)
        if self.delays is not None and self.connectome is None:
            raise ValueError("delays were given without a connectome; leave delays out, or give a connectome")
        for projection in self.projections():
            if projection.delays is not None:
                projection.delays.check(projection.connectome)
            if self.sends_spikes:
                self._check_spikes_take_time(projection)
            if projection.connectome.graph is not None and (self.noise is None or not self.sends_spikes):
                raise ValueError(
                    "a graph that every simulation draws needs a neuron of vb.spiking, and noise, of whose key it is "
                    "drawn; or give Connectome.random a key"
                )
        self._check_integrator()
        self._check_rows(n if self.field is None or self.field.at == "nodes" else self.n_sources)
        self.period_steps()

    def _check_noise(self, noise: AbstractNoise, n: int) -> None:
        """Raise ValueError for noise that the model cannot take."""
        noise.noisy(self.state_shapes())
        noise.check_nodes(n)
        if noise.pulses and not self.sends_spikes:
            raise ValueError(
                f"{type(noise).__name__} noise gives pulses, which {type(self.model).__name__} does not take; "
                "use vb.noise.Additive(sigma), or a neuron of vb.spiking"
            )
        if getattr(noise, "correlation", None) is not None:
            self.check_by_node("a correlation across nodes")

    def _check_spikes_take_time(self, projection: Projection) -> None:
        """Raise ValueError unless every lag is at least one step."""
        name, dt = type(self.model).__name__, self.dt
        if projection.delays is None:
            where = f"projection {projection.name!r}" if projection.name else "the connectome"
            raise ValueError(
                f"{name} sends spikes, which take at least one step of {dt:g} ms, and {where} has no delays; give "
                "delays=vb.Delays(), with tract_lengths / speed (delay= of Connectome.random) of at least one step"
            )
        shortest = shortest_lag(projection.connectome)
        if shortest is not None and shortest < dt * (1.0 - 1e-5):
            raise ValueError(
                f"the shortest delay is {shortest:.4g} ms and the step {dt:g} ms: a spike of {name} takes at least one "
                f"step; use delays of at least {dt:g} ms, or a smaller dt"
            )

    def _check_shapes(self, n: int) -> None:
        """Raise ValueError unless model and network are one size."""
        name, shapes, variables = type(self.model).__name__, self.model.shapes(n), self.model.variables()
        if set(shapes) != set(variables) or not all(shapes.values()):
            raise ValueError(
                f"shapes({n}) of {name} is {shapes}; expected at least one axis for each of {', '.join(variables)}"
            )
        if self.model.n_nodes is None:
            return
        others: list[tuple[str, int | None]] = []
        if self.field is None:
            others += [(f"connectome {p.name}".strip(), p.connectome.n_nodes) for p in self.projections()]
        for what, other in [*others, ("nodes", self.nodes)]:
            if other not in (None, n):
                raise ValueError(f"{name} has {n} nodes, {what} says {other}; give both the same number")

    def _check_leaves(self, n: int) -> None:
        """Raise ValueError unless `[N]` parameters fit."""
        states = self.state_shapes()
        driven = [] if self.noise is None else self.noise.noisy(states)
        for path, leaf in self._elementwise().items():
            owner, _, rest = path.partition(".")
            size = n
            if owner == "model":
                size = self.model.leaf_size(rest, n)
            elif owner == "coupling" and self.field is not None and self.field.at == "regions":
                size = self.n_sources
            elif owner == "noise":  # noise.sigma.<variable>, or one for all variables that it drives
                named = path.rpartition(".")[2]
                size = states[named if named in states else driven[0]].shape[0]
            if leaf.value.ndim > 1 or _length(leaf) not in (1, size):
                raise ValueError(
                    f"{path!r} has shape {list(leaf.value.shape)}; expected a number or one value for each of {size} "
                    "nodes"
                )

    def _check_cvar(self, shown: dict[str, jax.ShapeDtypeStruct], n: int) -> None:
        """Raise ValueError where the coupling cannot read a variable."""
        for name in self.model.cvar:
            if name not in shown:
                raise ValueError(f"cvar names {name!r}, which at_nodes does not show. {did_you_mean(name, shown)}")
            if shown[name].shape != (n,):
                raise ValueError(
                    f"the coupling reads {name!r} of {type(self.model).__name__}, which at_nodes shows as "
                    f"{list(shown[name].shape)}; expected [{n}], one value per node"
                )

    def _check_integrator(self) -> None:
        if isinstance(self.integrator, Rosenbrock):
            self.check_by_node("Rosenbrock")
        brings, native = isinstance(self.model, AbstractStepper), isinstance(self.integrator, AbstractOwnStep)
        name, dt, kind = type(self.model).__name__, self.dt, type(self.integrator).__name__
        if brings and not native:
            raise ValueError(f"{name} brings its own step; use integrator=Native(dt={dt:g}) instead of {kind}")
        if native and not brings:
            raise ValueError(f"{name} has no step of its own; use integrator=Heun(dt={dt:g}) instead of {kind}")
        if isinstance(self.integrator, AbstractOwnStep):
            self.integrator.check(self.model)

    def _check_rows(self, n: int) -> None:
        """Raise ValueError where other rows are sent than are read."""
        model, sent = self.model, {}
        # asked of shapes alone: nothing is computed
        row = jax.ShapeDtypeStruct((n,), jnp.result_type(float))
        x_i = (row,) * len(model.cvar)
        for name, _, coupling, _ in self.projections():
            gx = jax.eval_shape(lambda x, coupling=coupling: sent_rows(model, coupling, x), x_i)
            sent[name] = len(jax.eval_shape(coupling.post, gx, x_i, row))
        if model.rows is None or not sent:
            return
        total, reads = sum(sent.values()), f"{type(model).__name__} with cvar={model.cvar} reads"
        if len(sent) > 1 and total != model.rows:
            each = ", ".join(f"{name!r} {rows}" for name, rows in sent.items())
            raise ValueError(
                f"the projections send {total} row(s) of coupling input ({each}), {reads} {model.rows}; leave "
                "some out, or join their connectomes into one"
            )
        # one connectome alone may serve several rows, as in DopaAdaptiveQIF, or be read in part, as in JansenRit
        needed = min(model.rows, len(model.cvar))
        if total < needed:
            kind = type(self.coupling).__name__
            raise ValueError(
                f"{kind} sends {total} row(s) of coupling input, {reads} {needed}; use another coupling, or couple "
                "fewer variables"
            )


_KINDS = {
    "model": (AbstractModel, "one of vbinfer.models, vb.models.Linear()", False),
    "connectome": (Connectome, "vb.Connectome(weights, tract_lengths)", True),
    "coupling": (AbstractCoupling, "coupling=vb.coupling.Linear(G=0.5)", True),
    "integrator": (AbstractIntegrator, "integrator=vb.Heun(dt=0.1)", False),
    "noise": (AbstractNoise, "noise=vb.noise.Additive(sigma=0.01)", True),
    "stimulus": (AbstractStimulus, "stimulus=vb.stimuli.Pulse(onset=100.0, duration=10.0, amplitude=1.0)", True),
    "delays": (Delays, "delays=vb.Delays(max=80.0)", True),
    "field": (Field, "field=vb.fields.Field(domain, local=vb.fields.LaplaceBeltrami(domain, D=1.0))", True),
}


def _check_parts(parts: Mapping[str, Any]) -> None:
    """Raise TypeError unless every part is of its kind."""
    for name, value in parts.items():
        kind, example, optional = _KINDS[name]
        several = isinstance(value, Mapping) and name in ("connectome", "coupling", "delays")
        for one in value.values() if several else [value]:
            if isinstance(one, kind) or (optional and one is None):
                continue
            given = repr(one) if isinstance(one, str | int | float | type) else type(one).__name__
            raise TypeError(f"{name} was given as {given}; expected {example}")


def _aligned(connectome: Any, coupling: Any, delays: Any, dt: float) -> tuple[Any, Any, Any]:
    """Connectomes, couplings and delays by projection, in one order.

    A single connectome, its coupling and its delays stay as they are. The ring of a projection is as long as its
    longest lag, unless the user says more.
    """
    if not isinstance(connectome, Mapping):
        for what, given in {"coupling": coupling, "delays": delays}.items():
            if isinstance(given, Mapping):
                raise ValueError(
                    f"{what} is a mapping and connectome is not; name the projections, "
                    'Simulator(model, {"exc": connectome, "inh": ...}, coupling={"exc": ..., "inh": ...})'
                )
        return connectome, coupling, delays if None in (delays, connectome) else delays.measured(connectome, dt)
    names = list(connectome)
    if not names or any(not isinstance(name, str) or not name or "." in name for name in names):
        raise ValueError(f"connectome names {names}; give each projection a name without dots")
    if not isinstance(coupling, Mapping) or set(coupling) != set(names):
        given = list(coupling) if isinstance(coupling, Mapping) else type(coupling).__name__
        raise ValueError(f"connectome names the projections {names}, coupling is {given}; give one coupling for each")
    if isinstance(delays, Delays):
        delays = dict.fromkeys(names, delays)
    for name in delays or {}:
        if name not in names:
            raise ValueError(f"delays names the projection {name!r}. {did_you_mean(name, names)}")
    # JAX sorts the keys of dict, and keeps those of OrderedDict as they are
    networks = OrderedDict((name, connectome[name]) for name in names)
    couplings = OrderedDict((name, coupling[name]) for name in names)
    measured = OrderedDict((name, d.measured(networks[name], dt)) for name in names if (d := (delays or {}).get(name)))
    return networks, couplings, measured or None


def _check_monitors(monitors: Any) -> None:
    if isinstance(monitors, AbstractMonitor):
        raise TypeError('monitors was given one monitor; name it: monitors={"bold": monitor}')
    if monitors is not None and (not isinstance(monitors, Mapping) or not monitors):
        raise TypeError(f'monitors was given as {monitors!r}; write monitors={{"bold": monitor}}, or leave it out')
    for name, monitor in (monitors or {}).items():
        if not isinstance(name, str) or "." in name or not name:
            raise ValueError(
                f"a monitor was named {name!r}; give a name without dots, they separate the parts of a path"
            )
        if not isinstance(monitor, AbstractMonitor):
            raise TypeError(f"monitor {name!r} was given as {monitor!r}; expected an object such as vb.monitors.Raw()")


def _length(leaf: Parameter) -> int:
    return leaf.value.shape[0] if leaf.value.ndim else 1  # in a batch [1, B], [N, 1] or [N, B]


def sent_rows(model: AbstractModel, coupling: AbstractCoupling, x_j: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a coupling sends, without rows that nobody reads."""
    rows = tuple(coupling.pre(x_j))
    # a row for each variable: those that the model does not read are not sent. Others (sin and cos) belong together
    return rows[: model.rows] if len(rows) == len(x_j) else rows


def sampling_steps(sim: Simulator) -> tuple[int, int, int]:
    """Block, tick and cycle in steps.

    Samples fall on multiples of the block, every event on multiples of the tick, and all repeats after a cycle.
    """
    periods, strides = tuple(sim.period_steps().values()) or (1,), sim.strides().values()
    block = math.gcd(*periods)
    return block, math.gcd(block, *strides), math.lcm(*periods, *strides)
