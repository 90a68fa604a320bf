"""A study file (TOML) as the objects it describes."""

import dataclasses
import functools
import importlib.util
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vbinfer import datasets
from vbinfer.diagnostics.thresholds import FEWEST_DATA_SETS, FEWEST_RANKED
from vbinfer.monitors.base import steps_in
from vbinfer.network.connectome import Connectome
from vbinfer.priors.prior import Prior
from vbinfer.simulation.forward import ForwardModel
from vbinfer.simulation.simulator import Simulator

from .model import (
    Measured,
    channels,
    check_prior,
    first_connectome,
    read_conditions,
    read_forward,
    read_prior,
    read_sigma,
    read_simulator,
    without_sigma,
)
from .table import Lazily, StudyError, construct, count, keys, named, number

if TYPE_CHECKING:
    from vbinfer.likelihoods.gaussian import Gaussian

REQUIRED = ("data", "simulator", "prior", "inference")
OPTIONAL = ("summary", "conditions", "likelihood", "report", "output", "execution", "calibration", "subjects", "sweep")
DATA = ("connectome", "normalise", "period", "participant", "theta_true")
OF_SUBJECT = ("recording", "participant", "connectome", "period")
EXECUTORS = ("local", "dask")
SAMPLERS = Lazily(
    {
        "NUTS": "sampling.nuts",
        "HMC": "sampling.nuts",
        "MCLMC": "sampling.mclmc",
        "TemperedSMC": "sampling.smc",
    }
)
ESTIMATORS = Lazily({"NPE": "neural.npe", "NLE": "neural.nle", "NRE": "neural.nre", "SbiEstimator": "neural.sbi"})
PARTS = Lazily(
    {
        **dict.fromkeys(("MAF", "NSF"), "neural.densities.flows"),
        "MDN": "neural.densities.mixture",
        "FlowMatching": "neural.densities.flow_matching",
        "Regional": "neural.densities.regional",
        **dict.fromkeys(("MLP", "Conv", "Recurrent", "Transformer", "Invariant"), "neural.embeddings"),
        "Training": "neural.training",
        **dict.fromkeys(("RatioClassifier", "Classifier"), "neural.nre"),
    }
)
CHAINS = {"NLE": 20, "NRE": 20, **dict.fromkeys(SAMPLERS, 4)}
"""Methods whose posteriors are chains, and how many there are by default."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What the report of a study checks beyond its posterior."""

    title: str = "Posterior report"
    predictive: int = 64
    recovery: int = 20
    compare_dt: float | None = None


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """Held-out data sets, and posterior draws for each."""

    draws: int = 300
    posterior_samples: int = 500


Observed = datasets.Recording | dict[str, datasets.Recording]
"""A recording, or one for each condition."""


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a run needs; equal files give equal studies.

    Attributes:
        forward: theta to summary.
        prior: over theta.
        recording: the segment that is explained, of the length the simulation keeps; by condition where there are any.
        replicates: the other segments of that length.
        method: an estimator (`vb.NPE`, `vb.NLE`, `vb.NRE`, `vb.neural.SbiEstimator`) or a kernel
            (`vb.sampling.NUTS`, ...).
        draws: simulations that an estimator is trained on; 0 for a sampler.
        posterior_samples: per chain.
        chains: `num_chains`, `num_warmup` and `kernel`, of methods whose posteriors are chains.
        sigma: of the Gaussian likelihood of a sampler, a number or a leaf of the prior; None for an estimator.
        theta_true: known truth, for simulated recordings.
        workers: processes that simulate the draws; None for the devices of this one.
        executor: "local", or "dask" with `workers` processes of this computer or those of `scheduler`.
        calibration: what `vb.calibrate_study` does beyond a run.
        subjects: of a file with `[[subjects]]`, the study of each by name; the fields above are those of the first.
        subject: name of the subject that this is the study of.
        source: text of the file, and entries that stood before those of its `[data]`.
        home: folder of a subject's results, where simulators differ and `out` is that of its simulator.

    Example:
        >>> study = vb.Study.from_toml("study.toml")  # doctest: +SKIP
        >>> vb.run_study(study, say=print).verdict  # doctest: +SKIP
        'pass'
    """

    path: Path
    forward: ForwardModel
    prior: Prior
    recording: Observed
    replicates: tuple[Observed, ...]
    method: Any
    draws: int
    posterior_samples: int
    chains: Mapping[str, Any]
    sigma: float | str | None
    seed: int
    out: Path
    report: ReportOptions
    theta_true: dict[str, Any] | None
    workers: int | None = None
    executor: str = "local"
    scheduler: str | None = None
    calibration: CalibrationOptions = dataclasses.field(default_factory=CalibrationOptions)
    subjects: Mapping[str, "Study"] = dataclasses.field(default_factory=dict)
    subject: str = ""
    home: Path | None = None
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_toml(
        cls, path: str | Path, *, out: str | Path | None = None, data: Mapping[str, Any] | None = None
    ) -> "Study":
        """Read a study file; nothing is simulated.

        Args:
            path: the TOML file; the paths in it start at its folder.
            out: a folder instead of `[output] dir`.
            data: entries instead of those in `[data]`.

        Raises:
            FileNotFoundError: no such file, or a file that it names is missing.
            ValueError: not TOML, an unknown or missing key, parts that do not fit each other (a `StudyError`).
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no study file {str(path)!r}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise StudyError(f"{str(path)!r} is not TOML: {error}; write it as `vbinfer example` does") from error
        return cls.from_text(text, path, out=out, data=data)

    @classmethod
    def from_text(
        cls, text: str, path: Path, *, out: str | Path | None = None, data: Mapping[str, Any] | None = None
    ) -> "Study":
        """Read the text of the study file at `path`."""
        try:
            tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise StudyError(f"{str(path)!r} is not TOML: {error}; write it as `vbinfer example` does") from error
        source = {"text": text, "data": dict(data or {})}
        tables = keys(tables, "the study file", required=REQUIRED, optional=OPTIONAL)
        if isinstance(tables["data"], dict):
            tables["data"] |= data or {}
        if "subjects" not in tables:
            return cls(path=path, source=source, **_parts(tables, path, out))
        given, studies = _subjects(tables.pop("subjects"), tables["data"]), {}
        for name, its in given.items():
            try:
                studies[name] = cls(path=path, subject=name, **_parts({**tables, "data": its}, path, out))
            except ValueError as error:
                raise StudyError(f"subject {name!r}: {error}") from error
        shared = _shared(studies, {name: str(its.get("connectome", "simulator")) for name, its in given.items()})
        first = next(iter(shared.values()))
        return dataclasses.replace(
            first, subject="", home=None, out=first.home or first.out, subjects=shared, source=source
        )

    @property
    def simulators(self) -> "tuple[Study, ...]":
        """One study for each store, itself without subjects."""
        return tuple({one.out: one for one in self.subjects.values()}.values()) or (self,)

    def file(self, name: str) -> Path:
        """A file of the results; `posterior-sub-01.npz` of a subject."""
        stem, dot, suffix = name.partition(".")
        return (self.home or self.out) / (f"{stem}-{self.subject}{dot}{suffix}" if self.subject else name)

    @property
    def connectome(self) -> Connectome | None:
        """The network of the simulator, of several projections the first."""
        return first_connectome(self.forward.sim)

    @property
    def is_sampler(self) -> bool:
        """Whether a kernel samples a likelihood."""
        return self.sigma is not None

    @property
    def simulator(self) -> ForwardModel | Measured:
        """The forward model, with the likelihood's noise if any."""
        return self.forward if self.sigma is None else Measured(self.forward, self.sigma)

    @functools.cached_property
    def likelihood(self) -> "Gaussian":
        """Gaussian around the simulation of theta, of a sampler."""
        from vbinfer.likelihoods.gaussian import Gaussian

        return Gaussian(lambda theta: self.forward(theta, jax.random.key(0)), self.sigma)

    @property
    def x_o(self) -> np.ndarray:
        """The features of the recording."""
        return self.features(self.recording)

    def features(self, recording: Observed) -> np.ndarray:
        """Features `[F]`, of several recordings in the order of conditions."""
        given = recording.values() if isinstance(recording, dict) else [recording]
        return np.concatenate([np.ravel(self.forward.parts[0](one.values)) for one in given])


def name_of(recording: Observed) -> str:
    """Name of a recording, or names of several."""
    return ", ".join(one.name for one in recording.values()) if isinstance(recording, dict) else recording.name


def _subjects(given: Any, data: Any) -> dict[str, dict[str, Any]]:
    """`[data]` of each subject, by name."""
    common = keys(data, "[data]", optional=("recording", *DATA))
    if not isinstance(given, list) or not given:
        raise StudyError('subjects is no list of tables; write [[subjects]] with name = "sub-01" for each')
    found: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(given, 1):
        its = keys(row, f"[[subjects]] {i}", required=("name",), optional=OF_SUBJECT)
        name = its.pop("name")
        # names are parts of file names, and some file systems do not tell capitals apart
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise StudyError(
                f'[[subjects]] {i} has the name {name!r}; write letters, digits, "-" or "_": "sub-{i:02d}"'
            )
        if name.lower() in map(str.lower, found):
            raise StudyError(f"two subjects have the name {name!r}; give each its own")
        found[name] = common | its
    return found


def _shared(studies: Mapping[str, Study], sources: Mapping[str, str]) -> dict[str, Study]:
    """Studies that share simulations where their simulators are equal."""
    first, like = next(iter(studies.items()))
    firsts: dict[str, Study] = {}
    labels: dict[str, str] = {}
    shared = {}
    for name, one in studies.items():
        here, there = (s.connectome.n_nodes if s.connectome is not None else 0 for s in (one, like))
        if here != there:
            raise StudyError(
                f"subject {name!r} has {here} regions, {first!r} has {there}; subjects share their regions: give "
                "connectomes of one parcellation"
            )
        identity, label = one.forward.fingerprint(), re.sub(r"[^\w.-]", "-", Path(sources[name]).stem)
        if identity not in firsts:
            while label in labels.values():  # two files of one name, in different folders
                label += "-2"
            firsts[identity], labels[identity] = one, label
        # the same objects share compiled programs
        of, place = firsts[identity], one.out / labels[identity]
        shared[name] = dataclasses.replace(
            one, forward=of.forward, prior=of.prior, method=of.method, home=one.out, out=place
        )
    if len(firsts) > 1:
        return shared
    return {name: dataclasses.replace(one, out=like.out, home=None) for name, one in shared.items()}


def _parts(tables: dict[str, Any], path: Path, out: str | Path | None) -> dict[str, Any]:
    """The fields of a study from its tables."""
    folder = path.parent
    data = keys(
        tables["data"],
        "[data]",
        required=("recording",),
        optional=DATA,
    )
    sim, how = read_simulator(tables["simulator"], read_connectome(data, folder), folder)
    inference = _inference(tables, folder)
    is_sampler = not inference["draws"]
    if "summary" not in tables and not is_sampler:
        raise StudyError("the study file lacks the key 'summary'")
    conditions = read_conditions(tables.get("conditions"), sim, folder)
    forward = read_forward(sim, tables.get("summary"), folder, conditions=conditions, **how)
    prior, sigma = read_prior(tables["prior"], folder), None
    if is_sampler:
        sigma = read_sigma(tables.get("likelihood"), prior)
        forward = without_sigma(forward, prior, sigma)
    else:
        check_prior(forward, prior)
    segments = _observed(data, forward, folder)
    # predictive simulations take distinct draws of the posterior
    total = inference["posterior_samples"] * inference["chains"].get("num_chains", 1)
    output = keys(tables.get("output", {}), "[output]", optional=("dir",))
    return {
        **inference,
        "forward": forward,
        "prior": prior,
        "sigma": sigma,
        "recording": segments[0],
        "replicates": segments[1:],
        "out": Path(out) if out is not None else folder / output.get("dir", f"runs/{path.stem}"),
        "report": _report(tables.get("report", {}), sim, total, is_sampler),
        "theta_true": _truth(data.get("theta_true"), prior),
        **_execution(tables.get("execution", {})),
        "calibration": _calibration(tables.get("calibration", {})),
    }


def _inference(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Method, draws, posterior samples, chains and seed."""
    optional = ("method", "draws", "posterior_samples", "seed", "kernel", "num_chains", "num_warmup")
    given = keys(tables["inference"], "[inference]", optional=optional)
    has_likelihood = "likelihood" in tables
    # a likelihood without a method is sampled, by the kernel of the file if there is one
    if "method" not in given:
        given["method"] = given.pop("kernel", {"name": "NUTS"}) if has_likelihood else {"name": "NPE"}
    # names only: a module is loaded when its class is built
    name, _ = named(given["method"], "[inference] method", (*ESTIMATORS, *SAMPLERS))
    is_sampler = name in SAMPLERS
    if is_sampler and "draws" in given:
        raise StudyError(f"[inference] draws train an estimator, and {name} takes none; leave draws out")
    if is_sampler and not has_likelihood:
        raise StudyError(f'{name} samples a likelihood; add [likelihood] with name = "Gaussian" and sigma = ...')
    if has_likelihood and not is_sampler:
        raise StudyError(f"[likelihood] goes with a sampler, {', '.join(SAMPLERS)}; {name} learns from draws")
    if not is_sampler and "draws" not in given:
        raise StudyError("[inference] lacks the key 'draws'")
    chains = {key: given[key] for key in ("kernel", "num_chains", "num_warmup") if key in given}
    if chains and name not in CHAINS:
        raise StudyError(f"[inference] {next(iter(chains))} goes with {', '.join(CHAINS)}; {name} has no chains")
    if is_sampler and "kernel" in chains:
        raise StudyError(f"[inference] has kernel and method {name}, which is a kernel; leave one of them out")
    if "kernel" in chains:
        chains["kernel"] = construct(chains["kernel"], "[inference] kernel", SAMPLERS, folder)
    if name in CHAINS:
        chains["num_chains"] = count(chains.get("num_chains", CHAINS[name]), "[inference] num_chains")
    if "num_warmup" in chains:
        count(chains["num_warmup"], "[inference] num_warmup", least=0)
    methods = SAMPLERS if is_sampler else ESTIMATORS
    # 4,000 draws in all, however many chains share them
    samples = given.get("posterior_samples", 4_000 // chains.get("num_chains", 1) or 1)
    return {
        "method": construct(given["method"], "[inference] method", methods, folder, parts=PARTS),
        "draws": 0 if is_sampler else count(given["draws"], "[inference] draws"),
        "posterior_samples": count(samples, "[inference] posterior_samples"),
        "chains": chains,
        "seed": count(given.get("seed", 0), "[inference] seed", least=0),
    }


def _calibration(table: Any) -> CalibrationOptions:
    chosen = _options(table, "[calibration]", CalibrationOptions)
    count(chosen.draws, "[calibration] draws", least=FEWEST_DATA_SETS)
    count(chosen.posterior_samples, "[calibration] posterior_samples", least=FEWEST_RANKED)
    return chosen


def _options(table: Any, where: str, kind: Any) -> Any:
    """A dataclass of options from a table of its fields."""
    return kind(**keys(table, where, optional=tuple(field.name for field in dataclasses.fields(kind))))


def _execution(table: Any) -> dict[str, Any]:
    """Where the draws run, as the fields of a study."""
    chosen = keys(table, "[execution]", optional=("executor", "workers", "scheduler"))
    executor, scheduler = chosen.get("executor", "local"), chosen.get("scheduler")
    if executor not in EXECUTORS:
        raise StudyError(f"[execution] executor is {executor!r}; there are {', '.join(map(repr, EXECUTORS))}")
    if executor == "dask" and importlib.util.find_spec("distributed") is None:
        raise StudyError("[execution] executor 'dask' needs dask.distributed: pip install vbinfer[cluster]")
    if "workers" in chosen:
        count(chosen["workers"], "[execution] workers")
    if scheduler is not None:
        if executor != "dask":
            raise StudyError('[execution] scheduler goes with executor = "dask"')
        if not isinstance(scheduler, str) or "://" not in scheduler:
            raise StudyError(f'[execution] scheduler is {scheduler!r}; expected an address, such as "tcp://host:8786"')
        if "workers" in chosen:
            raise StudyError("[execution] has workers and a scheduler, which has its own; leave workers out")
    return {"executor": executor, "scheduler": scheduler, "workers": chosen.get("workers")}


def _report(table: Any, sim: Simulator, samples: int, is_sampler: bool) -> ReportOptions:
    """Options of the report; samplers recover truths when asked."""
    chosen = _options(
        {"recovery": 0, **table} if is_sampler and isinstance(table, dict) else table, "[report]", ReportOptions
    )
    count(chosen.predictive, "[report] predictive")
    count(chosen.recovery, "[report] recovery", least=0)
    if chosen.predictive > samples:
        raise StudyError(
            f"[report] predictive is {chosen.predictive}, more than the {samples} of [inference] posterior_samples; "
            "give no more than these"
        )
    if chosen.compare_dt is not None:
        dt = number(chosen.compare_dt, "[report] compare_dt")
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
    """A bundled name, or a path from the file's folder."""
    return name if name in datasets.BUNDLED else str(folder / name)


def read_connectome(data: dict[str, Any], folder: Path) -> Connectome | dict[str, Connectome] | None:
    """The network of `[data]`, or one for each projection."""
    if "connectome" not in data:
        return None
    given, how = data["connectome"], {"normalise": data["normalise"]} if "normalise" in data else {}
    load = lambda name: datasets.load_connectome(_source(str(name), folder), **how)  # noqa: E731
    return {name: load(source) for name, source in given.items()} if isinstance(given, dict) else load(given)


def _observed(data: dict[str, Any], forward: ForwardModel, folder: Path) -> tuple[Observed, ...]:
    """What was recorded, in pieces of the simulated length."""
    given, conditions = data["recording"], forward.conditions
    if not conditions:
        if isinstance(given, dict):
            raise StudyError(
                f"[data] recording names the conditions {', '.join(given)}, which are not there; add a table for each, "
                f"[conditions.{next(iter(given), 'rest')}], or give one file"
            )
        return _segments(given, data, forward, folder)
    if not isinstance(given, dict):
        example = ", ".join(f'"{name}" = "{name}.csv"' for name in conditions)
        raise StudyError(f"[data] recording is {given!r}, one for all conditions; write recording = {{ {example} }}")
    keys(given, "[data] recording", required=conditions)
    pieces = [_segments(given[name], data, forward, folder) for name in conditions]
    # as many as the shortest recording has
    return tuple(dict(zip(conditions, piece, strict=True)) for piece in zip(*pieces, strict=False))


def _segments(
    recording: Any, data: dict[str, Any], forward: ForwardModel, folder: Path
) -> tuple[datasets.Recording, ...]:
    """A recording in pieces of the simulated length."""
    name = forward.outputs[0]
    period = forward.sim.monitors[name].period or forward.sim.dt
    source = _source(str(recording), folder)
    given = {key: data[key] for key in ("participant",) if key in data}
    if given and source not in datasets.BUNDLED:
        raise StudyError(f"[data] participant goes with bundled data; {str(recording)!r} is one recording")
    whole = datasets.load_recording(source, period=data.get("period"), **given)
    if abs(whole.period - period) > 1e-6 * period:
        raise StudyError(
            f"the recording has a sample every {whole.period:g} ms, the monitor every {period:g} ms; make them equal"
        )
    _check_channels(forward.sim, name, whole)
    # the recording is cut to what the simulation keeps; further pieces of that length are replicates
    needed = len(forward.times(name))
    if whole.values.shape[0] < needed:
        raise StudyError(
            f"the recording has {whole.values.shape[0]} samples but {needed} are simulated after the transient; "
            f"set t1 to at most {forward.transient + whole.values.shape[0] * period:g}"
        )
    return tuple(whole.segments(needed * period))


def _check_channels(sim: Simulator, name: str, recording: datasets.Recording) -> None:
    """Check that columns are what the monitor records."""
    monitor, there = sim.monitors[name], recording.n_channels
    network = first_connectome(sim)
    if monitor.by_node and network is not None and sim.field is None:
        datasets.match(network, recording)
        return
    width, kind = channels(sim, name), "nodes" if monitor.by_node else f"channels of {type(monitor).__name__}"
    if there != width:
        raise StudyError(f"the recording has {there} channels, monitor {name!r} records {width} {kind}")
    datasets.check_order(getattr(monitor, "labels", None), recording, "channel", f"of monitor {name!r}")
