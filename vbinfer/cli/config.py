"""A study file (TOML) as the objects it describes."""

import dataclasses
import importlib.util
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbinfer import datasets, features, integrators, models, monitors, noise, stimuli
from vbinfer.cli.build import StudyError, construct, keys, members
from vbinfer.diagnostics.thresholds import FEWEST_DATA_SETS, FEWEST_RANKED
from vbinfer.draws.ranges import check_ranges
from vbinfer.features.base import Feature, Preprocess
from vbinfer.features.summary import Summary
from vbinfer.monitors.base import steps_in
from vbinfer.network import coupling
from vbinfer.network.connectome import Connectome
from vbinfer.network.delays import Delays
from vbinfer.neural.densities import DENSITIES
from vbinfer.neural.embeddings import EMBEDDINGS
from vbinfer.neural.npe import NPE
from vbinfer.neural.sbi import SbiEstimator
from vbinfer.neural.training import Training
from vbinfer.priors.families import families
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator

REQUIRED = ("data", "simulator", "prior", "summary", "inference")
OPTIONAL = ("report", "output", "execution", "calibration")
EXECUTORS = ("local", "dask")


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What the report of a study checks beyond its posterior."""

    title: str = "Posterior report"
    predictive: int = 64
    recovery: int = 20
    compare_dt: float | None = None


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """How `vbinfer calibrate` asks the estimator: held-out data sets, and posterior draws for each."""

    draws: int = 300
    posterior_samples: int = 500


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a run needs; equal files give equal studies.

    Attributes:
        forward: theta to summary.
        prior: over theta.
        recording: the segment that is explained, of the length the simulation keeps.
        replicates: the other segments of that length.
        estimator: `NPE` or `SbiEstimator`.
        theta_true: known truth, for simulated recordings.
        workers: processes that simulate the draws; None for the devices of this one.
        executor: "local", or "dask" with `workers` processes of this computer or those of `scheduler`.
        calibration: what `vbinfer calibrate` does beyond a run.
    """

    path: Path
    forward: ForwardModel
    prior: Prior
    recording: datasets.Recording
    replicates: tuple[datasets.Recording, ...]
    estimator: NPE | SbiEstimator
    draws: int
    posterior_samples: int
    seed: int
    out: Path
    report: ReportOptions
    theta_true: dict[str, Any] | None
    workers: int | None = None
    executor: str = "local"
    scheduler: str | None = None
    calibration: CalibrationOptions = dataclasses.field(default_factory=CalibrationOptions)

    @property
    def connectome(self) -> Connectome | None:
        """The network of the simulator."""
        return self.forward.sim.connectome


def load_study(path: str | Path, *, out: str | Path | None = None, data: Mapping[str, Any] | None = None) -> Study:
    """Read a study file; nothing is simulated.

    Args:
        path: the TOML file; the paths in it start at its folder.
        out: a folder instead of `[output] dir`.
        data: entries instead of those in `[data]`.

    Raises:
        FileNotFoundError: no such file, or a file that it names is missing.
        StudyError: not TOML, an unknown or missing key, parts that do not fit each other.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no study file {str(path)!r}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StudyError(f"{str(path)!r} is not TOML: {error}; write it as `vbinfer example` does") from error
    tables = keys(tables, "the study file", required=REQUIRED, optional=OPTIONAL)
    folder = path.parent
    data = keys(
        {**tables["data"], **(data or {})} if isinstance(tables["data"], dict) else tables["data"],
        "[data]",
        required=("recording",),
        optional=("connectome", "normalise", "period", "participant", "theta_true"),
    )
    connectome = _connectome(data, folder)
    sim, t1, transient = _simulator(tables["simulator"], connectome, folder)
    forward = _forward(sim, tables["summary"], t1, transient, folder)
    prior = _prior(tables["prior"], folder)
    try:
        forward.check(prior)
        check_ranges(prior, forward.ranges())
    except ValueError as error:
        raise StudyError(f"[prior]: {error}") from error
    segments = _segments(data, forward, folder)
    inference = keys(
        tables["inference"], "[inference]", required=("draws",), optional=("method", "posterior_samples", "seed")
    )
    samples = _count(inference.get("posterior_samples", 4_000), "[inference] posterior_samples")
    output = keys(tables.get("output", {}), "[output]", optional=("dir",))
    options = keys(
        tables.get("report", {}), "[report]", optional=tuple(f.name for f in dataclasses.fields(ReportOptions))
    )
    return Study(
        path=path,
        forward=forward,
        prior=prior,
        recording=segments[0],
        replicates=segments[1:],
        estimator=construct(
            inference.get("method", {"name": "NPE"}),
            "[inference] method",
            {"NPE": NPE, "SbiEstimator": SbiEstimator},
            folder,
            parts={**DENSITIES, **EMBEDDINGS, "Training": Training},
        ),
        draws=_count(inference["draws"], "[inference] draws"),
        posterior_samples=samples,
        seed=_count(inference.get("seed", 0), "[inference] seed", least=0),
        out=Path(out) if out is not None else folder / output.get("dir", f"runs/{path.stem}"),
        report=_report(options, sim, samples),
        theta_true=_truth(data.get("theta_true"), prior),
        **_execution(tables.get("execution", {})),
        calibration=_calibration(tables.get("calibration", {})),
    )


def _count(value: Any, where: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise StudyError(f"{where} is {value!r}; expected a whole number above {least - 1}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyError(f"{where} is {value!r}; expected a number of ms")
    return float(value)


def _calibration(table: Any) -> CalibrationOptions:
    options = keys(table, "[calibration]", optional=tuple(f.name for f in dataclasses.fields(CalibrationOptions)))
    chosen = CalibrationOptions(**options)
    _count(chosen.draws, "[calibration] draws", least=FEWEST_DATA_SETS)
    _count(chosen.posterior_samples, "[calibration] posterior_samples", least=FEWEST_RANKED)
    return chosen


def _execution(table: Any) -> dict[str, Any]:
    """Where the draws run, as the fields of a study."""
    chosen = keys(table, "[execution]", optional=("executor", "workers", "scheduler"))
    executor, scheduler = chosen.get("executor", "local"), chosen.get("scheduler")
    if executor not in EXECUTORS:
        raise StudyError(f"[execution] executor is {executor!r}; there are {', '.join(map(repr, EXECUTORS))}")
    if executor == "dask" and importlib.util.find_spec("distributed") is None:
        raise StudyError("[execution] executor 'dask' needs dask.distributed: pip install vbinfer[cluster]")
    if "workers" in chosen:
        _count(chosen["workers"], "[execution] workers")
    if scheduler is not None:
        if executor != "dask":
            raise StudyError('[execution] scheduler goes with executor = "dask"')
        if not isinstance(scheduler, str) or "://" not in scheduler:
            raise StudyError(f'[execution] scheduler is {scheduler!r}; expected an address, such as "tcp://host:8786"')
        if "workers" in chosen:
            raise StudyError("[execution] has workers and a scheduler, which has its own; leave workers out")
    return {"executor": executor, "scheduler": scheduler, "workers": chosen.get("workers")}


def _report(options: dict[str, Any], sim: Simulator, samples: int) -> ReportOptions:
    chosen = ReportOptions(**options)
    _count(chosen.predictive, "[report] predictive")
    _count(chosen.recovery, "[report] recovery")
    if chosen.predictive > samples:
        raise StudyError(
            f"[report] predictive is {chosen.predictive}, more than the {samples} of [inference] posterior_samples; "
            "give no more than these"
        )
    if chosen.compare_dt is not None:
        dt = _number(chosen.compare_dt, "[report] compare_dt")
        if not 0.0 < dt < math.inf:
            raise StudyError(f"[report] compare_dt is {dt:g}; give a step in ms, finer than that of the integrator")
        for name, monitor in sim.monitors.items():
            if monitor.period is not None:
                try:
                    steps_in(monitor.period, dt, f"the period of monitor {name!r}")
                    monitor.stride(dt)
                except ValueError as error:
                    raise StudyError(f"[report] compare_dt: {error}") from error
    return chosen


def _truth(given: Any, prior: Prior) -> dict[str, Any] | None:
    if given is None:
        return None
    truth = keys(given, "[data] theta_true", required=tuple(prior.shapes))
    for name, shape in prior.shapes.items():
        if np.shape(truth[name]) != shape:
            raise StudyError(
                f"[data] theta_true {name!r} has shape {list(np.shape(truth[name]))}; the prior has {list(shape)}"
            )
    return truth


def _source(name: str, folder: Path) -> str:
    """The name of bundled data as it is; anything else is a path that starts at the folder of the study file."""
    return name if name in datasets.BUNDLED else str(folder / name)


def _connectome(data: dict[str, Any], folder: Path) -> Connectome | None:
    if "connectome" not in data:
        return None
    how = {"normalise": data["normalise"]} if "normalise" in data else {}
    return datasets.load_connectome(_source(str(data["connectome"]), folder), **how)


def _simulator(table: Any, connectome: Connectome | None, folder: Path) -> tuple[Simulator, float, float]:
    parts = keys(
        table,
        "[simulator]",
        required=("model", "integrator", "t1"),
        optional=("coupling", "noise", "stimulus", "delays", "monitor", "monitors", "transient", "nodes"),
    )
    known = {
        "model": members(models, models.AbstractModel),
        "coupling": members(coupling, coupling.AbstractCoupling),
        "integrator": members(integrators, integrators.AbstractIntegrator),
        "noise": members(noise, noise.AbstractNoise),
        "stimulus": members(stimuli, stimuli.AbstractStimulus),
        "monitor": members(monitors, monitors.AbstractMonitor),
    }
    kernels = members(monitors, monitors.AbstractKernel)
    built = {
        part: construct(parts[part], f"[simulator] {part}", known[part], folder, parts=kernels)
        for part in known
        if part in parts
    }
    if "delays" in parts:
        built["delays"] = _delays(parts["delays"])
    several = parts.get("monitors", {})
    if not isinstance(several, dict):
        raise StudyError(f"[simulator] monitors is {several!r}; write monitors.bold = {{ name = ... }}")
    named = {
        name: construct(t, f"[simulator] monitors.{name}", known["monitor"], folder, parts=kernels)
        for name, t in several.items()
    }
    if "monitor" in built:
        named = {"monitor": built.pop("monitor")} | named
    try:
        sim = Simulator(built.pop("model"), connectome, monitors=named or None, nodes=parts.get("nodes"), **built)
    except (TypeError, ValueError) as error:
        raise StudyError(f"[simulator]: {error}") from error
    t1 = _number(parts["t1"], "[simulator] t1")
    return sim, t1, _number(parts.get("transient", 0.0), "[simulator] transient")


def _delays(table: Any) -> Delays:
    options = keys(table, "[simulator] delays", optional=("max", "interpolate"))
    try:
        return Delays(**options)
    except (TypeError, ValueError) as error:
        raise StudyError(f"[simulator] delays: {error}") from error


def _forward(sim: Simulator, table: Any, t1: float, transient: float, folder: Path) -> ForwardModel:
    if not isinstance(table, dict) or not set(table) - {"preprocess", "monitor"}:
        raise StudyError('[summary] names no feature; write for example fc = { name = "fc_stat" }')
    table = dict(table)
    monitor = table.pop("monitor", next(iter(sim.monitors)))
    if monitor not in sim.monitors:
        raise StudyError(f"[summary] monitor is {monitor!r}; the simulator has {', '.join(sim.monitors)}")
    width = _width(sim, monitor)
    values = {} if sim.connectome is None else {"connectome": np.asarray(sim.connectome.dense().weights)}
    pre = table.pop("preprocess", None)
    if pre is not None:
        pre = construct(pre, "[summary] preprocess", members(features, Preprocess), folder)
    known = {name: item for name, item in members(features, Feature).items() if name.islower()}
    chosen = {name: construct(t, f"[summary] {name}", known, folder, values) for name, t in table.items()}
    try:
        summary = Summary(period=sim.monitors[monitor].period or sim.dt, preprocess=pre, **chosen)
        forward = ForwardModel(sim, t1=t1, transient=transient, monitor=monitor, summary=summary)
    except ValueError as error:
        raise StudyError(f"[simulator]: {error}") from error
    try:
        jax.eval_shape(summary, jax.ShapeDtypeStruct((len(forward.times()), width), jnp.result_type(float)))
    except (TypeError, ValueError) as error:
        raise StudyError(f"[summary]: {error}") from error
    return forward


def _width(sim: Simulator, name: str) -> int:
    """How many channels a monitor records."""
    shape = sim.monitors[name].sample_shape(sim.n_nodes)
    if shape is None:
        raise StudyError(
            f"monitor {name!r} records several state variables and features take one; add "
            f'var = "{sim.model.variables()[0]}" to it'
        )
    if len(shape) != 1:
        kind = type(sim.monitors[name]).__name__
        raise StudyError(
            f"monitor {name!r}, {kind}, gives a matrix [{', '.join(map(str, shape))}] at a time and features take one "
            'number per channel; record the signal, for example by { name = "TimeAverage", var = ..., period = ... }, '
            'and summarise it by fc = { name = "fc" }'
        )
    return shape[0]


def _prior(table: Any, folder: Path) -> Prior:
    if not isinstance(table, dict) or not table:
        raise StudyError(
            '[prior] is empty; write for example "coupling.G" = { name = "Uniform", low = 0.0, high = 0.5 }'
        )
    known = families()
    built = {}
    for name, spec in table.items():
        if isinstance(spec, dict) and "name" not in spec:
            raise StudyError(
                f'[prior] {name} is a table; put the path in quotes: "{name}.{next(iter(spec), "G")}" = {{ ... }}'
            )
        shape = spec.pop("shape", None) if isinstance(spec, dict) else None
        one = construct(spec, f"[prior] {name}", known, folder)
        built[name] = one if shape is None else one.expand(list(np.atleast_1d(shape)))
    try:
        return Prior(built)
    except (TypeError, ValueError) as error:
        raise StudyError(f"[prior]: {error}") from error


def _segments(data: dict[str, Any], forward: ForwardModel, folder: Path) -> tuple[datasets.Recording, ...]:
    """The recording cut to the length of what the simulation keeps; further pieces of that length follow."""
    name = next(iter(forward.summary))
    period = forward.sim.monitors[name].period or forward.sim.dt
    source = _source(str(data["recording"]), folder)
    given = {key: data[key] for key in ("participant",) if key in data}
    if given and source not in datasets.BUNDLED:
        raise StudyError(f"[data] participant goes with bundled data; {str(data['recording'])!r} is one recording")
    whole = datasets.load_recording(source, period=data.get("period"), **given)
    if abs(whole.period - period) > 1e-6 * period:
        raise StudyError(
            f"the recording has a sample every {whole.period:g} ms, the monitor every {period:g} ms; make them equal"
        )
    _check_channels(forward.sim, name, whole)
    needed = len(forward.times(name))
    if whole.values.shape[0] < needed:
        raise StudyError(
            f"the recording has {whole.values.shape[0]} samples but {needed} are simulated after the transient; "
            f"set t1 to at most {forward.transient + whole.values.shape[0] * period:g}"
        )
    return tuple(whole.segments(needed * period))


def _check_channels(sim: Simulator, name: str, recording: datasets.Recording) -> None:
    """The columns of a recording are those of what the monitor records: nodes, sensors or groups."""
    monitor, channels = sim.monitors[name], recording.n_channels
    if monitor.by_node and sim.connectome is not None:
        datasets.match(sim.connectome, recording)
        return
    width, kind = _width(sim, name), "nodes" if monitor.by_node else f"channels of {type(monitor).__name__}"
    if channels != width:
        raise StudyError(f"the recording has {channels} channels, monitor {name!r} records {width} {kind}")
    labels = getattr(monitor, "labels", None)
    if labels and recording.labels and set(labels) & set(recording.labels) and labels != recording.labels:
        k = next(k for k in range(width) if labels[k] != recording.labels[k])
        raise StudyError(
            f"column {k} of the recording is {recording.labels[k]!r} but channel {k} of monitor {name!r} is "
            f"{labels[k]!r}; bring them into the same order"
        )
