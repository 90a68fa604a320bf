"""kill -9 at random moments of every long stage: what is resumed ends as what was never disturbed.

A tenth of a second more or less decides which statement a kill meets, so every run of this file tests other moments;
the seed of a failure is in its message.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_study

from vbinfer.draws.store import held
from vbinfer.io import npz
from vbinfer.io.fingerprint import checksum

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("VBINFER_KILLS", "40"))
TIMINGS = re.compile(r"second|version|started|command|seconds_per|draws_per_second")
RUN = [sys.executable, "-c", "import sys; from vbinfer.cli.main import main; sys.exit(main())"]

CHAINS = """
import sys
import jax, jax.numpy as jnp, numpyro.distributions as dist, vbinfer as vb
prior = vb.Prior({"a": dist.Normal(0.0, 1.0), "b": dist.Gamma(2.0, 1.0)})
x_o = jnp.array([1.2, 0.4, 0.9])
log_likelihood = lambda theta, x: dist.Normal(theta["a"] * jnp.arange(3.0), theta["b"]).log_prob(x).sum()
posterior = vb.sample_mcmc(prior, log_likelihood, x_o, key=jax.random.key(2), num_warmup=400, num_samples=30_000,
                           num_chains=2, store=sys.argv[1], progress=False)
posterior.save(sys.argv[1] + ".npz")
"""


def start(arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip


def undisturbed(arguments, cwd):
    """Seconds of a run that nobody kills."""
    began = time.monotonic()
    process = start(arguments, cwd)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return time.monotonic() - began


def killed(arguments, cwd, after):
    """Kill a run `after` seconds, itself and what it started; False if it had ended before."""
    process = start(arguments, cwd)
    try:
        process.communicate(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def untimed(value):
    """A header without what depends on the clock."""
    if isinstance(value, dict):
        return {name: untimed(part) for name, part in value.items() if not TIMINGS.search(name)}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def content(folder):
    """Everything in a folder, timings and files of a moment aside."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            _, header, arrays = npz.read(path)
            kept = {key: value for key, value in arrays.items() if not TIMINGS.search(key)}
            found[name] = (json.dumps(untimed(header), sort_keys=True), checksum(kept))
        elif path.suffix == ".json":
            found[name] = json.dumps(untimed(json.loads(path.read_text())), sort_keys=True)
    return found


def assert_same(one, other):
    there, here = content(one), content(other)
    assert there.keys() == here.keys()
    different = [name for name in there if there[name] != here[name]]
    assert not different, f"{different}: {[(there[n], here[n]) for n in different[:1]]}"


def finished(folder):
    """Draws in the stores of a run; each shard once."""
    stores = [folder / "store", folder / "calibration" / "held-out"]
    return sum(part.rows for store in stores if store.is_dir() for part in held(store))


def kill_and_compare(command, folder, count, done):
    """Kill runs at random moments until `count` kills are over; every run ends as the one that was not disturbed.

    A run that is over before its kill is a new one's turn.
    """
    seed = int(time.time())
    rng = np.random.default_rng(seed)
    seconds = undisturbed(command("whole"), folder)
    kills = runs = 0
    while kills < count:
        runs += 1
        out = folder / f"killed-{runs}"
        while kills < count:
            before = done(out) if out.is_dir() else 0
            if not killed(command(out.name), folder, rng.uniform(0.2, 1.0) * seconds):
                break
            kills += 1
            if out.is_dir():
                assert done(out) >= before, seed
        undisturbed(command(out.name), folder)
        assert_same(folder / "whole", out)


def test_a_study_killed_forty_times_ends_as_the_one_that_was_not(tmp_path):
    """`vbinfer calibrate`: simulation, training, posterior, checks, held-out simulations, calibration, report."""
    small_study.make(tmp_path)
    command = lambda out: [*RUN, "calibrate", "study.toml", "--draws", "60", "--out", out, "--cores", "2"]  # noqa: E731
    kill_and_compare(command, tmp_path, KILLS, finished)


def test_chains_killed_ten_times_end_as_those_that_were_not(tmp_path):
    script = tmp_path / "chains.py"
    script.write_text(CHAINS)
    chunks = lambda folder: len(list(folder.glob("draws-*.npz")))  # noqa: E731
    kill_and_compare(lambda out: [sys.executable, str(script), out], tmp_path, 10, chunks)
    _, _, whole = npz.read(tmp_path / "whole.npz")
    for path in tmp_path.glob("killed-*.npz"):
        assert checksum(npz.read(path)[2]) == checksum(whole)
