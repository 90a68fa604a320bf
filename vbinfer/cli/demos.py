"""Demos without data: recordings simulated from a known truth."""

import dataclasses
from pathlib import Path
from typing import cast

import jax
import numpy as np

from vbinfer import tasks
from vbinfer.datasets import Recording
from vbinfer.neural.densities.regional import Regional
from vbinfer.neural.npe import NPE
from vbinfer.neural.training import Training
from vbinfer.reporting.sections import Verdict
from vbinfer.sampling.nuts import NUTS
from vbinfer.sampling.sample import sample_mcmc
from vbinfer.simulation.forward import ForwardModel
from vbinfer.study import folder
from vbinfer.study.run import Say, run_study, stage_keys
from vbinfer.study.study import ReportOptions, Study
from vbinfer.tasks.base import Task

SEED = 0


@dataclasses.dataclass(frozen=True)
class Demo:
    """A task, its method, and the title of its page."""

    task: Task
    method: NPE
    title: str
    draws: int
    both_routes: bool = False


def demo_of(name: str) -> Demo:
    """The demo of a name."""
    if name == "vep":
        training = Training(max_epochs=60, batch_size=100, learning_rate=4e-3)
        return Demo(
            tasks.vep(), NPE(density=Regional(84), training=training), "Excitability of 84 regions", draws=2_304
        )
    return Demo(tasks.damped_oscillator(), NPE(), "A damped oscillator, by two routes", draws=4_096, both_routes=True)


def run_demo(name: str, out: Path, draws: int | None = None, *, say: Say | None = None) -> Verdict:
    """Run a demo, by both routes where they exist."""
    demo = demo_of(name)
    study = study_of(name, demo, out, draws)
    verdict = run_study(study, say=say)
    if not demo.both_routes:
        return verdict
    if say is not None:
        say("sampling the likelihood by NUTS, and comparing")
    other = sample_mcmc(
        demo.task.prior,
        demo.task.log_likelihood,
        study.x_o,
        kernel=NUTS(),
        num_warmup=300,
        num_samples=500,
        num_chains=4,
        key=jax.random.fold_in(stage_keys(study)["posterior"], 1),
    )
    inputs = folder.load_inputs(out / folder.EVIDENCE)
    folder.save_inputs(out / folder.EVIDENCE, dataclasses.replace(inputs, others={"NUTS": other}))
    return folder.rebuild(out)


def study_of(name: str, demo: Demo, out: Path, draws: int | None = None) -> Study:
    """The study of a demo; truth is a prior draw."""
    task, forward = demo.task, cast(ForwardModel, demo.task.simulator)
    k_truth, k_recording = jax.random.split(jax.random.key(SEED))
    truth = {path: np.asarray(value) for path, value in task.prior.sample(key=k_truth).items()}
    _, ys = forward.batch_series({path: value[None] for path, value in truth.items()}, k_recording[None])
    period = float(np.diff(forward.times())[0])
    return Study(
        path=Path(f"--task {name}"),
        forward=forward,
        prior=task.prior,
        recording=Recording(np.asarray(ys[0]), period, name="one simulation of known truth"),
        replicates=(),
        method=demo.method,
        draws=demo.draws if draws is None else draws,
        posterior_samples=1_000,
        chains={},
        sigma=None,
        seed=SEED,
        out=out,
        report=ReportOptions(title=demo.title),
        theta_true=truth,
    )
