"""`[execution]` of a study file, and the page on clusters: what it says is run, on this computer."""

import contextlib
import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import small_study

import vbinfer as vb
from vbinfer.execute.dask import Dask
from vbinfer.execute.executor import Local
from vbinfer.study.run import executor_of
from vbinfer.study.study import Study
from vbinfer.study.table import StudyError


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", Local()),
        ("workers = 3", Local(workers=3)),
        ('executor = "dask"', Dask()),
        ('executor = "dask"\nworkers = 3', Dask(workers=3)),
        ('executor = "dask"\nscheduler = "tcp://node7:8786"', Dask("tcp://node7:8786")),
    ],
)
def test_a_study_file_says_where_its_draws_run(study, lines, expected):
    found = executor_of(study(lines))
    assert type(found) is type(expected)
    assert found.workers == expected.workers
    assert getattr(found, "client", None) == getattr(expected, "client", None)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('executor = "dsak"', r"executor is 'dsak'; there are 'local', 'dask'"),
        ('executor = ["dask"]', r"executor is \['dask'\]; there are"),
        ('executor = "dask"\nworkers = 0', r"\[execution\] workers is 0; expected a whole number above 0"),
        ('scheduler = "tcp://node7:8786"', r'scheduler goes with executor = "dask"'),
        ('executor = "dask"\nscheduler = "node7:8786"', r"scheduler is 'node7:8786'; expected an address, such as"),
        ('executor = "dask"\nscheduler = 8786', r"scheduler is 8786; expected an address"),
        ('executor = "dask"\nscheduler = "tcp://n:1"\nworkers = 2', r"workers and a scheduler, which has its own"),
        ('executor = "dask"\nadress = "tcp://n:1"', "adress"),
    ],
)
def test_mistakes_of_a_study_file(study, lines, message):
    with pytest.raises(StudyError, match=message):
        study(lines)


def test_a_study_file_asks_for_dask_where_it_is_not_installed(study, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"'dask' needs dask\.distributed: pip install vbinfer\[cluster\]"):
        study('executor = "dask"')


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Load a small study with these lines under `[execution]`."""
    folder = tmp_path_factory.mktemp("study")
    small_study.make(folder)
    text = (folder / "study.toml").read_text()

    def load(lines):
        (folder / "this.toml").write_text(f"{text}\n[execution]\n{lines}\n")
        return Study.from_toml(folder / "this.toml")

    return load


HOW_TO = Path(__file__).parent.parent / "docs" / "how-to"
BIN = str(Path(sys.executable).parent)


def block(marker):
    """The Python block that follows `<!-- marker: ... -->` on the page."""
    text = (HOW_TO / "on-a-cluster.md").read_text()
    return re.search(rf"<!-- {marker}:.*?```python\n(.*?)```", text, flags=re.DOTALL)[1]


@pytest.mark.filterwarnings("ignore:Port 8787 is already in use")
def test_the_pages_slurm_and_pbs_clusters_submit_jobs_of_eight_workers_with_a_thread_each(monkeypatch):
    spec = importlib.util.spec_from_file_location("slurm_study", HOW_TO / "slurm_study.py")
    slurm_study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slurm_study)
    before = signal.getsignal(signal.SIGINT)
    import dask_jobqueue  # takes over Ctrl-C

    signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(dask_jobqueue.SLURMCluster, "adapt", lambda *_, **__: None)  # submits
    monkeypatch.setattr(dask_jobqueue.PBSCluster, "adapt", lambda *_, **__: None)
    names = {}
    exec(block("pbs"), names)
    with slurm_study.jobs(3, "cpu") as slurm, names["cluster"] as pbs:
        scripts = [slurm.job_script(), pbs.job_script()]
    for script, own in zip(scripts, ("#SBATCH --cpus-per-task=8", "#PBS -l select=1:ncpus=8:mem=16GB"), strict=True):
        assert own in script
        assert "NPROC=1" in script
        assert "--nthreads 1 " in script
        assert "--nworkers 8 " in script
        assert "--lifetime 230m" in script


@pytest.mark.slow
def test_the_pages_slurm_script_runs_on_this_computer_and_goes_on(tmp_path):
    def run(n):
        command = [sys.executable, HOW_TO / "slurm_study.py", "--local", "--store", "draws", "--draws", str(n)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run(64) == "64 draws in draws, 64 of them new, 0 failed"
    assert run(192) == "192 draws in draws, 128 of them new, 0 failed"
    assert len(vb.load(tmp_path / "draws")) == 192


@pytest.mark.slow
def test_the_pages_listing_makes_the_draws_of_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("local"), names)
    here = vb.sample_prior_predictive(names["prior"], names["simulator"], n=256, key=jax.random.key(0), progress=False)
    assert np.array_equal(names["draws"].x, here.x)
    assert len(vb.load("runs/draws")) == 256


@pytest.mark.slow
def test_the_pages_job_array_and_a_scheduler_fill_the_store_that_one_process_fills(tmp_path):
    """Two jobs of `simulate_array.sbatch`, then the commands of the page, `dask scheduler` and `dask worker`."""
    small_study.make(tmp_path)
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    run = functools.partial(subprocess.run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert run(["vbinfer", "simulate", "study.toml", "--out", "here", "--quiet"]).returncode == 0
    (tmp_path / "array.toml").write_text((tmp_path / "study.toml").read_text().replace('"results"', '"array"'))
    script = (HOW_TO / "simulate_array.sbatch").read_text()
    assert "--array=1-8" in script
    (tmp_path / "array.sbatch").write_text(script.replace("PARTS=8", "PARTS=2"))
    for task in ("2", "1"):
        done = run(["bash", "array.sbatch", "array.toml"], env={**env, "SLURM_ARRAY_TASK_ID": task})
        assert done.returncode == 0, done.stderr
    assert "256 of 256 draws in 4 shards" in run(["vbinfer", "status", "array"]).stdout
    assert contents(tmp_path / "array" / "store") == contents(tmp_path / "here" / "store")

    text = (tmp_path / "study.toml").read_text().replace('"results"', '"dask"')
    with contextlib.ExitStack() as stack:
        start = functools.partial(subprocess.Popen, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
        told = tmp_path / "scheduler.json"
        stack.enter_context(ended(start(["dask", "scheduler", "--port", "0", "--scheduler-file", str(told)])))
        wait_for(lambda: told.exists() and told.read_text().endswith("}"))
        address = json.loads(told.read_text())["address"]
        stack.enter_context(ended(start(["dask", "worker", address, "--nthreads", "1", "--nworkers", "2"])))
        (tmp_path / "dask.toml").write_text(f'{text}\n[execution]\nexecutor = "dask"\nscheduler = "{address}"\n')
        done = run(["vbinfer", "simulate", "dask.toml"])
        assert "add --allow-scheduler" in done.stderr
        done = run(["vbinfer", "simulate", "dask.toml", "--allow-scheduler"])
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "dask" / "store") == contents(tmp_path / "here" / "store")


@contextlib.contextmanager
def ended(process):
    """End a process, and those that it started, as Ctrl-C does."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".npz", ".json")}


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
