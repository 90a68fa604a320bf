"""A study from file to report: simulate, train, ask, check, write the page. Every stage leaves its result on disk."""

import dataclasses
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vbinfer.cli.config import Study
from vbinfer.cli.folder import (
    CALIBRATION,
    ESTIMATOR,
    EVIDENCE,
    POSTERIOR,
    TRAINING,
    Bundle,
    calibration_of,
    fingerprint,
    save_bundle,
    write_plan,
    write_report,
)
from vbinfer.cli.trouble import printable
from vbinfer.diagnostics.calibration.result import Calibration
from vbinfer.diagnostics.calibration.study import calibrate
from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import Predictive, posterior_predictive
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute.executor import Executor, Local
from vbinfer.features.matrices import fc_matrix, upper_triangle
from vbinfer.io import npz
from vbinfer.io.folder import OtherStudyError
from vbinfer.neural.npe import NPE
from vbinfer.posterior import Posterior
from vbinfer.reporting.evidence import Extras, Recovery
from vbinfer.reporting.section import Section
from vbinfer.reporting.verdict import Verdict

DT_DRAWS = 16
STAGES = ("draws", "fit", "posterior", "predictive", "checks", "dt")
HELD_OUT = 300_000_001  # folded into the seed: held-out simulations share no randomness with a run's


@dataclasses.dataclass
class Clock:
    """Seconds that each stage took, said as they pass."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    quiet: bool = False

    @contextmanager
    def stage(self, name: str, words: str) -> Iterator[None]:
        """Say what begins, and what it took when it is over."""
        self.say(words)
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin

    def say(self, words: str) -> None:
        """One line on standard output."""
        if not self.quiet:
            print(printable(words), flush=True)


def run_study(study: Study, *, quiet: bool = False) -> Verdict:
    """Run a study; its folder then holds `store/`, `estimator.npz`, `posterior.npz`, `evidence.npz` and the report.

    The draws are kept in `store/`: an interrupted run goes on where it stopped, and a finished one is not repeated. A
    calibration of the same estimator that lies in the folder is part of the report.

    Raises:
        ValueError: a store of another study in the same folder, and whatever the stages refuse.
    """
    return _run(study, Clock(quiet=quiet), with_calibration=False)[0]


def calibrate_study(study: Study, *, quiet: bool = False) -> tuple[Verdict, Calibration]:
    """Run a study and ask its estimator about held-out simulations, with a key of their own.

    Adds `calibration/` (held-out draws and their posteriors, from which an interrupted study goes on) and
    `calibration.npz`; the report then says whether the estimator is calibrated over the prior.

    Raises:
        ValueError: as `run_study`.
    """
    verdict, found = _run(study, Clock(quiet=quiet), with_calibration=True)
    assert found is not None
    return verdict, found


def _run(study: Study, clock: Clock, *, with_calibration: bool) -> tuple[Verdict, Calibration | None]:
    n_stages = 6 if with_calibration else 5
    out = study.out
    write_plan(out, draws=study.draws, held_out=study.calibration.draws if with_calibration else None)
    keys = stage_keys(study)
    name = next(iter(study.forward.summary))
    x_o = np.asarray(study.forward.summary[name](study.recording.values))

    with clock.stage("simulation", f"[1/{n_stages}] simulating {study.draws:,} draws into {out / 'store'}"):
        draws = sample_prior_predictive(
            study.prior,
            study.forward,
            study.draws,
            key=keys["draws"],
            store=out / "store",
            executor=executor_of(study),
            progress=not clock.quiet,
        )
    failed = int(np.sum(~draws.valid))
    with clock.stage(
        "training", f"[2/{n_stages}] training {_method(study)} on {len(draws) - failed:,} draws ({failed} failed)"
    ):
        amortized, info = _fitted(study, draws, keys["fit"])
        amortized.save(out / ESTIMATOR)
    with clock.stage("posterior", f"[3/{n_stages}] sampling the posterior given {study.recording.name}"):
        k_posterior, k_replicates = jax.random.split(keys["posterior"])
        posterior = amortized.sample(x_o, n=study.posterior_samples, key=k_posterior)
        posterior.save(out / POSTERIOR)
        replicates = _replicates(study, amortized, k_replicates)
    with clock.stage(
        "checks", f"[4/{n_stages}] simulating from the posterior and from the prior, recovering known truths"
    ):
        n = study.report.predictive
        predictive = posterior_predictive(posterior, study.forward, n=n, key=keys["predictive"], series=True)
        k_prior, k_recovery = jax.random.split(keys["checks"])
        prior_predictive = _prior_predictive(study, k_prior)
        recovery = _recovery(study, amortized, prior_predictive, k_recovery)
        sections = _sections(study, posterior, keys["dt"])
    found = _calibration(study, clock, amortized) if with_calibration else calibration_of(out)
    bundle = Bundle(
        fit=info,
        predictive=predictive,
        recording=study.recording,
        theta_true=study.theta_true,
        extras=Extras(
            prior_predictive=prior_predictive,
            recovery=recovery,
            replicates=replicates,
            structural=_structural(study),
            sections=sections,
            notes=_notes(study, draws, clock),
            units=study.forward.units(),
            title=study.report.title,
        ),
    )
    with clock.stage("report", f"[{n_stages}/{n_stages}] writing the report"):
        save_bundle(out / EVIDENCE, bundle)
        verdict = write_report(out, posterior, draws, bundle, found)
    say_verdict(clock, verdict, out)
    return verdict, found


def stage_keys(study: Study) -> dict[str, Any]:
    """A key for each stage, from the seed of the study."""
    return dict(zip(STAGES, jax.random.split(jax.random.key(study.seed), len(STAGES)), strict=True))


def executor_of(study: Study) -> Executor:
    """Where the draws of a study run."""
    if study.executor == "dask":
        from vbinfer.execute.dask import Dask

        return Dask(study.scheduler, workers=study.workers)
    return Local(workers=study.workers)


def _fitted(study: Study, draws: Draws, key: Any) -> Any:
    """The fitted estimator and its record. Training goes on from its checkpoint, unless that is of other draws."""
    if not isinstance(study.estimator, NPE):  # sbi keeps none
        return study.estimator.fit(draws, study.prior, key=key)
    path = study.out / TRAINING
    try:
        return study.estimator.fit(draws, study.prior, key=key, checkpoint=path)
    except OtherStudyError:
        path.unlink()
        return study.estimator.fit(draws, study.prior, key=key, checkpoint=path)


def _calibration(study: Study, clock: Clock, amortized: Any) -> Calibration:
    """Held-out simulations, their posteriors and the tests; every part is on disk before the next begins."""
    options, place = study.calibration, study.out / "calibration"
    k_draws, k_study = jax.random.split(jax.random.fold_in(jax.random.key(study.seed), HELD_OUT))
    with clock.stage("calibration", f"[5/6] calibrating on {options.draws:,} held-out simulations in {place}"):
        held_out = sample_prior_predictive(
            study.prior,
            study.forward,
            options.draws,
            key=k_draws,
            store=place / "held-out",
            executor=executor_of(study),
            progress=not clock.quiet,
        )
        ask = {"key": k_study, "num_posterior_samples": options.posterior_samples, "store": place}
        try:
            found = calibrate(amortized, held_out, **ask)
        except OtherStudyError:  # of an estimator trained on other draws, or of other held-out ones
            shutil.rmtree(place / "posteriors")
            found = calibrate(amortized, held_out, **ask)
        found.info["estimator"] = fingerprint(study.out / ESTIMATOR)
        found.save(study.out / CALIBRATION)
    return found


def _method(study: Study) -> str:
    return type(study.estimator).__name__


def _structural(study: Study) -> np.ndarray | None:
    """The weights, where the channels of the recording are the nodes."""
    monitor = study.forward.sim.monitors[next(iter(study.forward.summary))]
    if study.connectome is None or not monitor.by_node:
        return None
    return np.asarray(study.connectome.dense().weights)


def _replicates(study: Study, amortized: Any, key: Any) -> dict[str, Posterior]:
    """The same question asked of the other segments of the recording."""
    summary = next(iter(study.forward.summary.values()))
    posteriors = {}
    for i, other in enumerate(study.replicates):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # features beyond the training draws; the page compares
            posteriors[other.name] = amortized.sample(
                np.asarray(summary(other.values)), n=1_000, key=jax.random.fold_in(key, i)
            )
    return posteriors


def _prior_predictive(study: Study, key: Any) -> Predictive:
    """Simulations from the prior with their series; new draws, none of those that trained the network."""
    n = max(study.report.predictive, study.report.recovery)
    k_theta, k_sim = jax.random.split(key)
    theta = study.prior.sample(key=k_theta, n=n)
    as_posterior = Posterior({name: np.asarray(value)[None] for name, value in theta.items()})
    return posterior_predictive(as_posterior, study.forward, n=n, key=k_sim, series=True)


def _recovery(study: Study, amortized: Any, simulated: Predictive, key: Any) -> Recovery | None:
    """The estimator asked about simulated observations whose truth is known."""
    chosen = np.flatnonzero(simulated.valid)[: study.report.recovery]
    if not len(chosen):
        return None
    theta = amortized.sample_batch(simulated.x[chosen], n=1_000, key=key)
    return Recovery({name: value[chosen] for name, value in simulated.theta.items()}, theta)


def _sections(study: Study, posterior: Posterior, key: Any) -> list[Section]:
    if study.report.compare_dt is None:
        return []
    return [step_size_section(study, posterior, key, study.report.compare_dt)]


def step_size_section(study: Study, posterior: Posterior, key: Any, fine: float) -> Section:
    """What a finer integration step changes in the functional connectivity, at the posterior mean."""
    coarse = study.forward.sim.dt
    mean = {name: np.asarray(value).mean(axis=(0, 1)) for name, value in posterior.theta.items()}
    fcs = {}
    for label, dt, salt in (("coarse", coarse, 0), ("again", coarse, 1), ("fine", fine, 2)):
        forward = with_step(study, dt)
        theta = {name: np.broadcast_to(value, (DT_DRAWS, *np.shape(value))) for name, value in mean.items()}
        keys = jax.random.split(jax.random.fold_in(key, salt), DT_DRAWS)
        _, ys = forward.batch_series({k: jax.numpy.asarray(v) for k, v in theta.items()}, keys)
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


def with_step(study: Study, dt: float) -> Any:
    """The forward model of a study with another integration step."""
    import equinox as eqx

    integrator = dataclasses.replace(study.forward.sim.integrator, dt=dt)
    return eqx.tree_at(
        lambda f: f.sim.integrator, study.forward, integrator, is_leaf=lambda x: x is study.forward.sim.integrator
    )


def _notes(study: Study, draws: Draws, clock: Clock) -> dict[str, object]:
    seconds = {f"seconds, {name}": f"{value:.1f}" for name, value in clock.seconds.items()}
    return {
        "command": "vbinfer " + " ".join(sys.argv[1:]) if Path(sys.argv[0]).name == "vbinfer" else "vbinfer run",
        "study file": study.path.name,
        "seed": study.seed,
        "recording": study.recording.name,
        "dt, t1, transient (ms)": f"{study.forward.sim.dt:g}, {study.forward.t1:g}, {study.forward.transient:g}",
        "devices": f"{len(jax.devices())} x {jax.devices()[0].platform}",
        **({} if study.executor == "local" else {"executor": study.executor}),
        **({} if study.workers is None else {"workers": study.workers}),
        **{f"version, {name}": value for name, value in npz.versions().items()},
        **seconds,
    }


def say_verdict(clock: Clock, verdict: Verdict, out: Path) -> None:
    """The verdict, its sentences and where the page is."""
    clock.say(f"\nverdict: {verdict.verdict}")
    for finding in verdict.findings:
        clock.say(f"  - {finding}")
    if clock.seconds:
        clock.say("\n" + ", ".join(f"{name} {value:.0f} s" for name, value in clock.seconds.items()))
    clock.say(f"report: {out / 'report.html'}")
