"""`[simulator]`, `[prior]`, `[summary]` and `[likelihood]` of a study file."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from vbinfer import features, integrators, measurement, models, monitors, noise, stimuli
from vbinfer._names import Theta
from vbinfer._param import bind, did_you_mean
from vbinfer.draws.request import check_simulator
from vbinfer.features.base import Feature, Preprocess
from vbinfer.features.summary import Summary
from vbinfer.network import coupling
from vbinfer.network.connectome import Connectome
from vbinfer.network.delays import Delays
from vbinfer.priors.families import families
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator

from .table import Lazily, StudyError, construct, keys, members, named, number, value_of

OPTIONAL = ("coupling", "noise", "stimulus", "delays", "monitor", "monitors", "observe", "transient", "nodes", "field")
"""Keys of `[simulator]` that may be absent."""
OF_CELLS = ("BackwardEuler", "ForwardEuler", "ExponentialEuler")
"""Integrators of `vbinfer.cable`."""


def read_simulator(
    table: Any, connectome: Connectome | Mapping[str, Connectome] | None, folder: Path
) -> tuple[Simulator, dict[str, Any]]:
    """The simulator, and t1, transient and measurement."""
    parts = keys(table, "[simulator]", required=("model", "integrator", "t1"), optional=OPTIONAL)
    known = _known()
    # objects that an option of another holds: the kernel of a monitor, the models of groups
    inside = {"monitor": {**members(monitors, monitors.AbstractKernel), **known["monitor"]}, "model": known["model"]}
    field, words = None, {}
    if "field" in parts:
        from .field import read_field

        field = read_field(parts["field"], "[simulator] field", folder, connectome)
        words = {"areas": field.domain.areas, "regions": field.regions}

    def build(part: str, table: Any, where: str) -> Any:
        if part == "model" and isinstance(table, dict) and table.get("name") == "Cell":
            from .cell import read_cell

            return read_cell(table, where, folder)
        if part == "delays":  # there is one kind, which needs no name
            table = {"name": "Delays", **keys(table, where, optional=("max", "interpolate"))}
        return construct(table, where, known[part], folder, words, inside.get(part))

    def each(part: str, given: dict[str, Any], where: str) -> dict[str, Any]:
        return {name: build(part, t, f"{where}.{name}") for name, t in given.items()}

    built: dict[str, Any] = {
        part: each(part, given, where) if by_projection(part, given) else build(part, given, where)
        for part, given, where in ((part, parts[part], f"[simulator] {part}") for part in known if part in parts)
    }
    several = parts.get("monitors", {})
    if not isinstance(several, dict):
        raise StudyError(f"[simulator] monitors is {several!r}; write monitors.bold = {{ name = ... }}")
    named_monitors = each("monitor", several, "[simulator] monitors")
    if "monitor" in built:
        named_monitors = {"monitor": built.pop("monitor")} | named_monitors
    try:
        built |= {"monitors": named_monitors or None, "nodes": parts.get("nodes"), "field": field}
        sim = Simulator(built.pop("model"), connectome, **built)
    except (TypeError, ValueError) as error:
        raise StudyError(f"[simulator]: {error}") from error
    return sim, {
        "t1": number(parts["t1"], "[simulator] t1"),
        "transient": number(parts.get("transient", 0.0), "[simulator] transient"),
        "observe": read_chain(parts["observe"], folder) if "observe" in parts else None,
    }


def _known() -> dict[str, Mapping[str, Callable[..., Any]]]:
    """Constructors of the parts of a simulator, by name."""
    return {
        "model": Lazily({name: "models" for name in dir(models) if name[0].isupper() and name[:8] != "Abstract"}),
        "coupling": members(coupling, coupling.AbstractCoupling),
        "integrator": Lazily(dict.fromkeys(_schemes(), "integrators") | dict.fromkeys(OF_CELLS, "cable")),
        "noise": members(noise, noise.AbstractNoise),
        "stimulus": members(stimuli, stimuli.AbstractStimulus),
        "delays": {"Delays": Delays},
        "monitor": members(monitors, monitors.AbstractMonitor),
    }


def _schemes() -> tuple[str, ...]:
    """Names of the integrators of all models."""
    return tuple(members(integrators, integrators.AbstractIntegrator))


def by_projection(part: str, given: Any) -> bool:
    """Whether a part has a table for each projection."""
    tables = isinstance(given, dict) and bool(given) and all(isinstance(value, dict) for value in given.values())
    return tables and part in ("coupling", "delays")


def first_connectome(sim: Simulator) -> Connectome | None:
    """The connectome of the first projection."""
    return next((p.connectome for p in sim.projections()), None)


def read_conditions(table: Any, sim: Simulator, folder: Path) -> dict[str, dict[str, Any]] | None:
    """Paths and their values by condition, `[conditions.rest]`."""
    if table is None:
        return None
    if not isinstance(table, dict) or not table or not all(isinstance(values, dict) for values in table.values()):
        raise StudyError(
            f"[conditions] is {table!r}; write a table of paths for each condition, [conditions.stimulated] with "
            '"stimulus.amplitude" = 2.0, and one without paths, [conditions.rest], for the simulator as it is'
        )
    built = {}
    for name, given in table.items():
        where = f"[conditions.{name}]"
        _check_quoted(given, where, lambda value: isinstance(value, dict) and set(value) != {"array"})
        built[name] = {path: value_of(value, f"{where} {path}", folder, {}) for path, value in given.items()}
        try:
            bind(sim, built[name])
        except (TypeError, ValueError) as error:
            raise StudyError(f"{where}: {error}") from error
    return built


def _check_quoted(table: Mapping[str, Any], where: str, is_wrong: Callable[[Any], bool]) -> None:
    """Raise StudyError for a path that TOML took apart."""
    for name, value in table.items():
        if is_wrong(value):
            raise StudyError(
                f'{where} {name} is a table; put the path in quotes: "{name}.{next(iter(value), "G")}" = ...'
            )


def read_chain(table: Any, folder: Path) -> measurement.Chain:
    """The measurement, `observe` of the simulator's table."""
    if not isinstance(table, dict) or not table:
        raise StudyError(f'[simulator] observe is {table!r}; write observe.thermal = {{ name = "Thermal" }}')
    known = members(measurement, measurement.AbstractPart)
    parts = {name: construct(one, f"[simulator] observe.{name}", known, folder) for name, one in table.items()}
    try:
        return measurement.Chain(parts)
    except ValueError as error:
        raise StudyError(f"[simulator] observe: {error}") from error


def read_forward(sim: Simulator, table: Any, folder: Path, **how: Any) -> ForwardModel:
    """The forward model; without `[summary]`, of the series itself."""
    if table is not None and (not isinstance(table, dict) or not set(table) - {"preprocess", "monitor"}):
        raise StudyError('[summary] names no feature; write for example fc = { name = "fc_stat" }')
    table = dict(table or {})
    monitor = table.pop("monitor", next(iter(sim.monitors)))
    if monitor not in sim.monitors:
        raise StudyError(f"[summary] monitor is {monitor!r}; the simulator has {', '.join(sim.monitors)}")
    width = channels(sim, monitor)
    network = first_connectome(sim)
    values = {} if network is None else {"connectome": np.asarray(network.dense().weights)}
    pre = table.pop("preprocess", None)
    if pre is not None:
        build = lambda one: construct(one, "[summary] preprocess", members(features, Preprocess), folder)  # noqa: E731
        pre = [build(one) for one in pre] if isinstance(pre, list) else build(pre)
    known = {name: item for name, item in members(features, Feature).items() if name.islower()}
    chosen = {name: construct(t, f"[summary] {name}", known, folder, values) for name, t in table.items()}
    try:
        summary = Summary(period=sim.monitors[monitor].period or sim.dt, preprocess=pre, **chosen) if chosen else flat
        forward = ForwardModel(sim, monitor=monitor, summary=summary, **how)
    except ValueError as error:
        raise StudyError(f"[simulator]: {error}") from error
    try:
        jax.eval_shape(summary, jax.ShapeDtypeStruct((len(forward.times()), width), jnp.result_type(float)))
    except (TypeError, ValueError) as error:
        raise StudyError(f"[summary]: {error}") from error
    return forward


def flat(y: ArrayLike) -> Array:
    """The series as its own summary."""
    return jnp.ravel(y)


def channels(sim: Simulator, name: str) -> int:
    """How many channels a monitor records."""
    shape = sim.monitors[name].sample_shape(sim.n_nodes)
    if shape is None:
        raise StudyError(
            f"monitor {name!r} records several state variables and features take one; add "
            f'var = "{next(iter(sim.node_shapes()))}" to it'
        )
    if len(shape) != 1:
        kind = type(sim.monitors[name]).__name__
        raise StudyError(
            f"monitor {name!r}, {kind}, gives a matrix [{', '.join(map(str, shape))}] at a time and features take one "
            'number per channel; record the signal, for example by { name = "TimeAverage", var = ..., period = ... }, '
            'and summarise it by fc = { name = "fc" }'
        )
    return shape[0]


def read_prior(table: Any, folder: Path) -> Prior:
    """The prior of a study."""
    if not isinstance(table, dict) or not table:
        raise StudyError(
            '[prior] is empty; write for example "coupling.G" = { name = "Uniform", low = 0.0, high = 0.5 }'
        )
    known = families()
    built = {}
    _check_quoted(table, "[prior]", lambda spec: isinstance(spec, dict) and "name" not in spec)
    for name, spec in table.items():
        shape = spec.pop("shape", None) if isinstance(spec, dict) else None
        one = construct(spec, f"[prior] {name}", known, folder)
        built[name] = one if shape is None else one.expand(np.atleast_1d(shape).tolist())
    try:
        return Prior(built)
    except (TypeError, ValueError) as error:
        raise StudyError(f"[prior]: {error}") from error


def check_prior(forward: ForwardModel, prior: Prior) -> None:
    """Refuse a prior that the simulator does not allow."""
    try:
        check_simulator(prior, forward)
    except ValueError as error:
        raise StudyError(f"[prior]: {error}") from error


def read_sigma(table: Any, prior: Prior) -> float | str:
    """sigma of the likelihood: a number, or a prior's leaf."""
    _, options = named(table, "[likelihood]", ("Gaussian",))
    sigma = keys(options, "[likelihood]", required=("sigma",))["sigma"]
    if isinstance(sigma, str):
        if sigma not in prior.shapes:
            raise StudyError(f"[likelihood] sigma is {sigma!r}. {did_you_mean(sigma, prior.shapes)}")
        if prior.shapes[sigma] != ():
            raise StudyError(f"[likelihood] sigma is {sigma!r}, {list(prior.shapes[sigma])}; give one number for all")
        return sigma
    if number(sigma, "[likelihood] sigma", "a number above 0, or a leaf of the prior") <= 0.0:
        raise StudyError(f"[likelihood] sigma is {sigma!r}; expected a number above 0, or a leaf of the prior")
    return float(sigma)


@dataclasses.dataclass(frozen=True)
class Without:
    """Theta without the leaf that the likelihood takes; for `ForwardModel(to_paths=)`."""

    leaf: str

    def __call__(self, theta: Theta) -> Theta:
        return {name: value for name, value in theta.items() if name != self.leaf}


def without_sigma(forward: ForwardModel, prior: Prior, sigma: float | str) -> ForwardModel:
    """The forward model under a prior that also holds sigma."""
    # sigma is the likelihood's: the simulator has no such parameter
    others = {name: dist for name, dist in prior.dists.items() if name != sigma}
    if not others:
        raise StudyError(f"[prior] holds {sigma!r} alone; add a parameter of the simulator")
    check_prior(forward, Prior(others))
    if not isinstance(sigma, str):
        return forward
    (monitor,), (summary,) = forward.outputs, forward.parts
    how = {"t1": forward.t1, "transient": forward.transient, "monitor": monitor, "summary": summary}
    conditions = {
        name: {path: values[k] for path, values in forward.set_by_condition.items()}
        for k, name in enumerate(forward.conditions)
    }
    how["observe"] = forward.observe
    return ForwardModel(forward.sim, **how, to_paths=Without(sigma), conditions=conditions or None)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A forward model with the likelihood's measurement noise.

    x = f(theta, key) + sigma e,  e ~ N(0, 1): what the likelihood says would be recorded, where the forward model alone
    gives its mean. Where the features are the series itself, the series carry the same noise.
    """

    forward: ForwardModel
    sigma: float | str

    @property
    def names(self) -> tuple[str, ...]:
        return self.forward.names

    def check(self, prior: Prior) -> None:
        """Refuse a prior that does not fit."""
        self.forward.check(prior)

    def fingerprint(self) -> str:
        """What identifies its draws."""
        return f"{self.forward.fingerprint()} sigma {self.sigma}"

    def __call__(self, theta: Mapping[str, Any], key: Array) -> Array:
        """One draw, x `[F]`."""
        return self.batch({name: jnp.asarray(value)[None] for name, value in theta.items()}, key[None])[0]

    def batch(self, theta: Mapping[str, Any], keys: Array) -> Array:
        """x `[B, F]` of leaves `[B, ...]`."""
        return self.batch_series(theta, keys)[0]

    def batch_series(self, theta: Mapping[str, Any], keys: Array) -> tuple[Array, Any]:
        """As `batch`, with the series."""
        mean, ys = self.forward.batch_series(theta, keys)
        # the simulation has used `key` itself, measurement noise of an `observe=` fold 1 of it
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 2), mean.shape[1:]))(keys)
        # each draw has its own sigma
        sigma = jnp.asarray(theta[self.sigma])[:, None] if isinstance(self.sigma, str) else self.sigma
        x = mean + sigma * noise
        if self.forward.parts[0] is not flat:
            return x, ys
        if not self.forward.conditions:
            return x, x.reshape(ys.shape)
        parts = jnp.split(x, len(self.forward.conditions), axis=1)
        return x, {
            name: part.reshape(ys[name].shape) for name, part in zip(self.forward.conditions, parts, strict=True)
        }
