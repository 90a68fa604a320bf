"""Run a study: simulate, train, infer, check, report.

Every stage leaves its result in the folder of the study, so that the same call goes on where another one stopped.
"""

import dataclasses
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive, posterior_predictive
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute.executor import Executor, Local
from vbinfer.features.matrices import fc_matrix, upper_triangle
from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum
from vbinfer.io.folder import OtherStudyError
from vbinfer.neural.fit_info import FitInfo
from vbinfer.posterior import Posterior
from vbinfer.reporting.evidence import Recovery, ReportExtras
from vbinfer.reporting.sections import Section, Verdict
from vbinfer.simulation.forward import ForwardModel

from . import folder
from .folder import ReportInputs
from .model import flat
from .study import Study, name_of
from .subjects import pool

if TYPE_CHECKING:
    from vbinfer.diagnostics.calibration.result import Calibration
    from vbinfer.draws.manage import StoreStatus

DT_DRAWS = 16
PER_OBSERVATION = 1_000
"""Posterior draws for each further observation: known truths, other segments."""
STAGES = ("draws", "fit", "posterior", "predictive", "checks", "dt")
SHARED = ("draws", "fit")
HELD_OUT = 300_000_001  # folded into the seed: held-out simulations share no randomness with a run's
Say = Callable[[str], object]


@dataclasses.dataclass
class Clock:
    """Stages of a run, with their seconds."""

    say: Say | None
    total: int
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, words: str) -> Iterator[None]:
        """Say what begins, and keep what it took."""
        self.tell(f"[{len(self.seconds) + 1}/{self.total}] {words}")
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin

    def tell(self, words: str) -> None:
        """One line for whoever listens."""
        if self.say is not None:
            self.say(words)


def run_study(study: Study, *, say: Say | None = None) -> Verdict:
    """Run a study, as `vbinfer run` does.

    Its folder then holds the simulations in `store/`, `estimator.npz` (of a sampler `chains/`), `posterior.npz`,
    `evidence.npz` and the report. An interrupted run goes on where it stopped, and a finished one is not repeated. A
    calibration of the same estimator that lies in the folder is part of the report.

    Args:
        study: `vb.Study.from_toml("study.toml")`.
        say: takes a line for every stage, such as `print`; None for silence.

    Raises:
        ValueError: results of another study in the same folder, and whatever the stages refuse.
    """
    folder.write_origin(study)
    if not study.subjects:
        return _run(study, say, with_calibration=False)[0]
    for name, one in study.subjects.items():
        if say is not None:
            say(f"subject {name}")
        _run(one, say, with_calibration=False)
    if say is not None:
        say("pooling the subjects")
    return pool(study)


def calibrate_study(study: Study, *, say: Say | None = None) -> "tuple[Verdict, Calibration]":
    """Run a study and calibrate it, as `vbinfer calibrate` does.

    Adds `calibration/` (held-out draws, with a key of their own, and their posteriors, from which an interrupted study
    goes on) and `calibration.npz`; the report then says whether the method is calibrated over the prior.

    Args:
        study, say: as for `vb.run_study`.

    Raises:
        ValueError: as `vb.run_study`; a kernel without chains, whose posteriors would be asked for one by one.
    """
    if study.subjects:
        raise ValueError(
            f"{study.path} has [[subjects]]; calibrate the study of one of them: leave [[subjects]] out and give its "
            "recording in [data], and another folder"
        )
    folder.write_origin(study)
    verdict, found = _run(study, say, with_calibration=True)
    assert found is not None
    return verdict, found


def fit_study(study: Study, *, say: Say | None = None) -> None:
    """Simulate what is missing and train, as `vbinfer fit` does."""
    if study.is_sampler:
        raise ValueError(f"{_name(study)} trains nothing; write `vbinfer infer {study.path}`")
    for one in study.simulators:
        _fit(one, Clock(say, 2))


def infer_study(study: Study, *, say: Say | None = None) -> Verdict:
    """Posterior and report, as `vbinfer infer` makes them.

    Raises:
        FileNotFoundError: no estimator was fitted yet.
    """
    for one in study.simulators:
        if not one.is_sampler and not (one.out / folder.ESTIMATOR).is_file():
            raise FileNotFoundError(f"{str(one.out)!r} holds no estimator; write `vbinfer fit {study.path}` first")
    return run_study(study, say=say)


def _run(study: Study, say: Say | None, *, with_calibration: bool) -> "tuple[Verdict, Calibration | None]":
    out, keys = study.out, stage_keys(study)
    # posterior, checks and report; an estimator simulates and trains before them
    clock = Clock(say, (3 if study.is_sampler else 5) + with_calibration)
    # of a sampler none of these exists
    draws = fit = trained = None
    if study.is_sampler:
        source = _Sampler(study)
    else:
        draws, source, fit, trained = _fit(study, clock, study.calibration.draws if with_calibration else None)
    with clock.stage("posterior", f"sampling the posterior given {name_of(study.recording)}"):
        k_posterior, k_replicates = jax.random.split(keys["posterior"])
        # replicates have a key of their own, or one more segment would change the posterior
        posterior = _sample(study, source, study.x_o, k_posterior)
        posterior.save(study.file(folder.POSTERIOR))
        replicates = _replicates(study, source, k_replicates)
    with clock.stage("checks", "simulating from the posterior and from the prior, recovering known truths"):
        n = study.report.predictive
        predictive = posterior_predictive(posterior, study.simulator, n=n, key=keys["predictive"], series=True)
        k_prior, k_recovery = jax.random.split(keys["checks"])
        prior_predictive = _prior_predictive(study, k_prior)
        recovery = _recovery(study, source, prior_predictive, k_recovery)
        compared = [] if study.report.compare_dt is None else [step_size_section(study, posterior, keys["dt"])]
    found = _calibrate(study, clock, source) if with_calibration else folder.calibration_of(out)
    inputs = ReportInputs(
        fit=fit,
        predictive=predictive,
        # of several recordings the features are compared, under each condition, and no picture is drawn of one
        recording=None if isinstance(study.recording, dict) else study.recording,
        theta_true=study.theta_true,
        extras=ReportExtras(
            prior_predictive=prior_predictive,
            recovery=recovery,
            replicates=replicates,
            structural=_structural(study),
            centres=_centres(study),
            sections=compared,
            notes=_notes(study, clock),
            units=study.forward.units(),
            title=f"{study.report.title}: {study.subject}" if study.subject else study.report.title,
        ),
        trained=trained,
        of_series=study.forward.parts[0] is flat,
    )
    with clock.stage("report", "writing the report"):
        folder.save_inputs(study.file(folder.EVIDENCE), inputs)
        verdict = folder.write_report(study.file(folder.REPORT), posterior, draws, inputs, found)
    clock.tell(", ".join(f"{name} {value:.0f} s" for name, value in clock.seconds.items()))
    return verdict, found


def stage_keys(study: Study) -> dict[str, PRNGKey]:
    """A key for each stage, from the seed."""
    keys: dict[str, PRNGKey] = dict(zip(STAGES, jax.random.split(jax.random.key(study.seed), len(STAGES)), strict=True))
    if not study.subject:
        return keys
    # subjects share simulations and training, and nothing else: what one draws says nothing of another
    salt = zlib.crc32(study.subject.encode())
    return {name: key if name in SHARED else jax.random.fold_in(key, salt) for name, key in keys.items()}


def executor_of(study: Study) -> Executor:
    """Where the draws of a study run."""
    if study.executor == "dask":
        from vbinfer.execute.dask import Dask

        return Dask(study.scheduler, workers=study.workers)
    return Local(workers=study.workers)


def simulate_study(study: Study, part: tuple[int, int] = (1, 1), *, say: Say | None = None) -> "StoreStatus":
    """Simulate draws, or a part, as `vbinfer simulate` does."""
    from vbinfer.draws.manage import simulate_store

    if study.is_sampler:
        raise ValueError(f"{_name(study)} takes no simulations; write `vbinfer infer {study.path}`")
    *others, study = study.simulators
    for one in others:
        simulate_study(one, part, say=say)
    folder.write_plan(study.out, draws=study.draws)
    return simulate_store(study.prior, study.forward, study.draws, part=part, **_how(study, say))


def _how(study: Study, say: Say | None) -> dict[str, Any]:
    """How the draws of a study are made."""
    return {
        "key": stage_keys(study)["draws"],
        "store": study.out / folder.STORE,
        "executor": executor_of(study),
        "progress": say is not None,
    }


def _fit(study: Study, clock: Clock, held_out: int | None = None) -> tuple[Draws, Any, FitInfo, str]:
    """Draws, fitted estimator, its record and its identity."""
    out = study.out
    folder.write_plan(out, draws=study.draws, held_out=held_out)
    with clock.stage("simulation", f"simulating {study.draws:,} draws into {out / folder.STORE}"):
        draws = sample_prior_predictive(study.prior, study.forward, study.draws, **_how(study, clock.say))
    failed = int(np.sum(~draws.valid))
    with clock.stage("training", f"training {_name(study)} on {len(draws) - failed:,} draws ({failed} failed)"):
        asked = checksum({**draws.theta, "x of the draws": draws.x}) + repr((study.method, study.seed))
        # a finished fit of the same draws, options and seed is taken as it is
        kept = _kept_fit(out, asked)
        if kept is None:
            kept = _train(study, draws)
            (out / folder.EVIDENCE).unlink(missing_ok=True)  # of another fit; below it becomes this one's
            kept[0].save(out / folder.ESTIMATOR)
        # of other weights in the file, the identity would be another one
        trained = f"{asked} {folder.fingerprint(out / folder.ESTIMATOR)}"
        if not (out / folder.EVIDENCE).is_file():
            folder.save_inputs(out / folder.EVIDENCE, ReportInputs(fit=kept[1], trained=trained))
    return draws, *kept, trained


def _kept_fit(out: Path, asked: str) -> tuple[Any, FitInfo] | None:
    """Estimator and record in a folder, if asked for."""
    if not (out / folder.ESTIMATOR).is_file() or not (out / folder.EVIDENCE).is_file():
        return None
    with suppress(ValueError):  # damaged, or of another version: trained and written again
        inputs = folder.load_inputs(out / folder.EVIDENCE)
        if inputs.fit is not None and inputs.trained == f"{asked} {folder.fingerprint(out / folder.ESTIMATOR)}":
            return npz.load(out / folder.ESTIMATOR), inputs.fit
    return None


def _train(study: Study, draws: Draws) -> tuple[Any, FitInfo]:
    """Train from the checkpoint, unless of another fit."""
    path = study.out / folder.TRAINING

    def fit(**kept: Any) -> tuple[Any, FitInfo]:
        return study.method.fit(draws, study.prior, key=stage_keys(study)["fit"], **kept)

    # sbi trains in one piece
    return fit() if _name(study) == "SbiEstimator" else _renewed(partial(fit, checkpoint=path), path)


def _renewed(stage: Callable[[], Any], place: Path) -> Any:
    """A stage, begun anew where another study left something.

    Of another training, say, after the options of the method were changed.
    """
    try:
        return stage()
    except OtherStudyError:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        return stage()


class _Sampler:
    """Kernel and likelihood of a study as a source.

    It answers as fitted estimators do, by `sample` and `sample_batch`.
    """

    def __init__(self, study: Study) -> None:
        from vbinfer.sampling.sampler import ChainSampler

        out = study.out
        # a report from this folder would mix two runs
        if (out / folder.ESTIMATOR).exists() or (out / folder.STORE).exists():
            raise ValueError(
                f"{str(out)!r} holds the run of an estimator; give another folder in [output] dir or --out"
            )
        if study.forward.sim.noise is not None:
            warnings.warn(
                "the simulator is noisy and the likelihood keeps to one noise path, on which the posterior is then "
                "conditional; leave [simulator] noise out, or infer the path by vb.likelihoods.NoisePath in Python",
                stacklevel=2,
            )
        folder.write_plan(out)
        self._study, self._likelihood = study, study.likelihood
        self._batch: Callable[[], ChainSampler] = lambda: ChainSampler(
            study.prior, self._likelihood, kernel=study.method, **study.chains
        )

    def sample(self, x_o: np.ndarray, *, n: int, key: PRNGKey, store: Path | None = None, **chains: Any) -> Posterior:
        """Chains of one observation, n draws over all of them."""
        from vbinfer.sampling.chains import AbstractChainKernel
        from vbinfer.sampling.sample import sample_mcmc

        study = self._study
        chains = {**study.chains, **chains}
        posterior = sample_mcmc(
            study.prior,
            self._likelihood,
            x_o,
            kernel=study.method,
            num_samples=-(-n // chains["num_chains"]),
            key=key,
            store=store if isinstance(study.method, AbstractChainKernel) else None,
            **chains,
        )
        # the same study is the same file, byte for byte: no times, and one order whether chains ran or were read
        posterior.info.pop("seconds", None)
        stats, state = (part and dict(sorted(part.items())) for part in (posterior.sample_stats, posterior.state))
        return dataclasses.replace(posterior, sample_stats=stats, state=state)

    def sample_batch(self, x: Any, *, n: int, key: PRNGKey) -> Any:
        """Near-independent draws for many observations."""
        return self._batch().sample_batch(x, n=n, key=key)


def _sample(study: Study, source: Any, x_o: np.ndarray, key: PRNGKey) -> Posterior:
    """The posterior of the recording."""
    # a study file counts draws per chain
    n = study.posterior_samples * study.chains.get("num_chains", 1)
    if study.is_sampler:
        return source.sample(x_o, n=n, key=key, store=study.file(folder.CHAINS))
    return source.sample(x_o, n=n, key=key, **study.chains)


def _replicates(study: Study, source: Any, key: PRNGKey) -> dict[str, Posterior]:
    """Posteriors of the recording's other segments."""
    posteriors = {}
    for i, other in enumerate(study.replicates):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # features beyond the training draws; the page compares
            posteriors[name_of(other)] = source.sample(
                study.features(other), n=PER_OBSERVATION, key=jax.random.fold_in(key, i), **study.chains
            )
    return posteriors


def _prior_predictive(study: Study, key: PRNGKey) -> Predictive:
    """New simulations from the prior, with their series."""
    n = max(study.report.predictive, study.report.recovery)
    k_theta, k_sim = jax.random.split(key)
    theta = study.prior.sample(key=k_theta, n=n)
    # prior draws in the shape of one chain, so that the same function simulates them
    as_posterior = Posterior({name: np.asarray(value)[None] for name, value in theta.items()})
    return posterior_predictive(as_posterior, study.simulator, n=n, key=k_sim, series=True)


def _recovery(study: Study, source: Any, simulated: Predictive, key: PRNGKey) -> Recovery | None:
    """Posteriors of simulations whose truth is known."""
    # the simulations from the prior serve twice: their truths are known
    chosen = np.flatnonzero(simulated.valid)[: study.report.recovery]
    if not len(chosen):
        return None
    theta = source.sample_batch(simulated.x[chosen], n=PER_OBSERVATION, key=key)
    return Recovery({name: value[chosen] for name, value in simulated.theta.items()}, theta)


def _calibrate(study: Study, clock: Clock, source: Any) -> "Calibration":
    """Held-out simulations, their posteriors and the tests."""
    from vbinfer.diagnostics.calibration.study import calibrate

    options, place = study.calibration, study.out / "calibration"
    # a number that no `fold_in` of a run uses
    k_draws, k_study = jax.random.split(jax.random.fold_in(jax.random.key(study.seed), HELD_OUT))
    with clock.stage("calibration", f"calibrating on {options.draws:,} held-out simulations in {place}"):
        how = {**_how(study, clock.say), "key": k_draws, "store": place / "held-out"}
        held_out = sample_prior_predictive(study.prior, study.simulator, options.draws, **how)
        ask = {"key": k_study, "num_posterior_samples": options.posterior_samples, "store": place}
        # what lies there may be of an estimator trained on other draws, or of other held-out ones
        found = _renewed(partial(calibrate, source, held_out, **ask), place / "posteriors")
        found.info["estimator"] = folder.calibrated(study.out)
        found.save(study.out / folder.CALIBRATION)
    return found


def _name(study: Study) -> str:
    return type(study.method).__name__


def _structural(study: Study) -> np.ndarray | None:
    """The weights, where channels are nodes."""
    monitor = study.forward.sim.monitors[study.forward.outputs[0]]
    if study.connectome is None or not monitor.by_node:
        return None
    return np.asarray(study.connectome.dense().weights)


def _centres(study: Study) -> np.ndarray | None:
    """Where the regions are, where channels are nodes."""
    known = _structural(study) is not None and study.connectome is not None and study.connectome.centres is not None
    return np.asarray(study.connectome.centres) if known and study.connectome is not None else None


def step_size_section(study: Study, posterior: Posterior, key: PRNGKey) -> Section:
    """FC at the posterior mean with a finer step."""
    coarse, fine = study.forward.sim.dt, float(study.report.compare_dt or study.forward.sim.dt)
    mean = {name: np.asarray(value).mean(axis=(0, 1)) for name, value in posterior.theta.items()}
    # every draw has the same theta: what differs is noise and step
    theta = {name: jnp.broadcast_to(jnp.asarray(v), (DT_DRAWS, *np.shape(v))) for name, v in mean.items()}
    fcs = {}
    for label, dt, salt in (("coarse", coarse, 0), ("again", coarse, 1), ("fine", fine, 2)):
        keys = jax.random.split(jax.random.fold_in(key, salt), DT_DRAWS)
        _, ys = with_step(study, dt).batch_series(theta, keys)
        ys = jnp.concatenate(jax.tree.leaves(ys))  # under all conditions
        fcs[label] = np.mean([np.asarray(fc_matrix(y)) for y in ys], axis=0)[upper_triangle(ys.shape[2])]
    rows = [["mean FC compared", "correlation", "mean absolute difference"]]
    for label, words in (
        ("fine", f"dt = {coarse:g} ms and dt = {fine:g} ms"),
        ("again", f"dt = {coarse:g} ms twice, other noise"),
    ):
        r = float(np.corrcoef(fcs["coarse"], fcs[label])[0, 1])
        rows.append([words, f"{r:.3f}", f"{np.abs(fcs['coarse'] - fcs[label]).mean():.4f}"])
    text = (
        f"Functional connectivity at the posterior mean, averaged over {DT_DRAWS} simulations, with the step of this "
        f"study ({coarse:g} ms) and with {fine:g} ms. The second row is what noise alone changes: a step size that "
        "matters would make the first row clearly worse than the second."
    )
    return Section("Step size", text=text, table=rows)


def with_step(study: Study, dt: float) -> ForwardModel:
    """The forward model of a study with another integration step."""
    integrator = dataclasses.replace(study.forward.sim.integrator, dt=dt)
    return eqx.tree_at(
        lambda f: f.sim.integrator, study.forward, integrator, is_leaf=lambda x: x is study.forward.sim.integrator
    )


def _notes(study: Study, clock: Clock) -> dict[str, object]:
    """Facts of the run for the provenance of its report."""
    return {
        "command": "vbinfer " + " ".join(sys.argv[1:]) if Path(sys.argv[0]).name == "vbinfer" else "vb.run_study",
        "study file": study.path.name,
        "seed": study.seed,
        "recording": name_of(study.recording),
        "dt, t1, transient (ms)": f"{study.forward.sim.dt:g}, {study.forward.t1:g}, {study.forward.transient:g}",
        "devices": f"{len(jax.devices())} x {jax.devices()[0].platform}",
        **({} if study.executor == "local" else {"executor": study.executor}),
        **({} if study.workers is None else {"workers": study.workers}),
        **{f"version, {name}": value for name, value in npz.versions().items()},
        **{f"seconds, {name}": f"{value:.1f}" for name, value in clock.seconds.items()},
    }
