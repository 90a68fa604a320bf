"""Sweeps: every point is a run of its own, whatever else is in the grid, in the store, or interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(5)
G, GAMMA = np.array([0.05, 0.2, 0.3]), np.array([-1.0, -0.7, -0.5, -1.5])


@pytest.fixture(scope="module")
def fwd():
    weights = np.random.default_rng(1).uniform(0.0, 1.0, (5, 5))
    sim = vb.Simulator(
        vb.models.Linear(),
        vb.Connectome(weights, 20.0 * weights.T),
        coupling=vb.coupling.Linear(G=0.1, offset=0.3),
        delays=vb.Delays(max=20.0),
        integrator=vb.Heun(dt=0.5),
        noise=vb.noise.Additive(0.2),
        monitors={"x": vb.monitors.Subsample(1.0, "x")},
    )
    summary = vb.Summary(period=1.0, level=lambda y: y.mean(axis=0)[:2], fc=vb.features.fc_stat)
    return vb.ForwardModel(sim, t1=40.0, transient=4.0, summary=summary)


def plain(theta, key):
    """Fails where a + b is above 1."""
    x = jnp.array([theta["a"], 10.0 * theta["b"]]) + jax.random.normal(key, (2,))
    return jnp.where(theta["a"] + theta["b"] > 1.0, jnp.array([jnp.nan, 1.0]), x)


class Counting:
    """Runs `plain`, counts its batches, and fails at one of them."""

    names = ("one", "two")
    run = staticmethod(jax.jit(jax.vmap(plain)))

    def __init__(self, fail_at=None):
        self.batches, self.fail_at = 0, fail_at

    def __call__(self, theta, key):
        return plain(theta, key)

    def fingerprint(self):
        return "plain"

    def batch(self, theta, keys):
        if self.batches == self.fail_at:
            raise KeyboardInterrupt
        self.batches += 1
        return self.run(theta, keys)


def sweep(fwd, grid, **options):
    return vb.sweep(fwd, grid, **{"key": KEY, "progress": False, **options})


def keys_of(points, repeats):
    return jnp.stack([jax.random.fold_in(jax.random.fold_in(KEY, i), j) for i in points for j in repeats])


def test_points_in_ij_order_are_runs_of_the_forward_model(fwd):
    ds = sweep(fwd, {"coupling.G": G, "model.gamma": GAMMA}, repeats=2)
    assert set(ds.data_vars) == {*fwd.names, "valid"}
    assert list(ds[fwd.names[0]].dims) == ["coupling.G", "model.gamma", "repeat"]
    assert bool(ds["valid"].all())
    np.testing.assert_array_equal(ds["model.gamma"], GAMMA)
    assert ds["model.gamma"].attrs == {"units": "1/ms"}
    assert ds["coupling.G"].attrs == {}
    found = np.stack([ds[name].values for name in fwd.names], axis=-1).reshape(24, -1)  # point, then repeat
    theta = {"coupling.G": np.repeat(G, 8), "model.gamma": np.tile(np.repeat(GAMMA, 2), 3)}
    # the same rows among other neighbours, in a batch of 64
    many = {name: np.resize(value, 64) for name, value in theta.items()}
    expected = np.asarray(fwd.batch(many, jnp.resize(keys_of(range(12), range(2)), 64)))
    np.testing.assert_array_equal(found, expected[:24])
    alone = fwd({name: value[13] for name, value in theta.items()}, keys_of([6], [1])[0])
    np.testing.assert_allclose(found[13], alone, rtol=2e-5)


def test_paths_that_move_together_are_one_dimension_with_a_coordinate_each(fwd):
    pairs = np.array([[0.1, -1.0], [0.2, -0.8], [0.3, -0.6]])
    ds = sweep(fwd, {("coupling.G", "model.gamma"): pairs}, noise="shared")
    assert dict(ds[fwd.names[0]].sizes) == {"coupling.G,model.gamma": 3, "repeat": 1}
    np.testing.assert_array_equal(ds["coupling.G"], pairs[:, 0])
    np.testing.assert_array_equal(ds["model.gamma"], pairs[:, 1])
    theta = {"coupling.G": np.full(64, 0.2), "model.gamma": np.full(64, -0.8)}
    x = fwd.batch(theta, jnp.resize(keys_of([0], [0]), 64))[0]
    np.testing.assert_array_equal([float(ds[n][1, 0]) for n in fwd.names], x)
    columns = sweep(plain, {("a", "b"): ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])})
    np.testing.assert_array_equal(columns["b"], [0.4, 0.5, 0.6])
    arrays = sweep(plain, {("a", "b"): (np.array([0.1, 0.2]), np.array([0.4, 0.5]))})
    np.testing.assert_array_equal(arrays["a"], [0.1, 0.2])


def test_shared_noise_is_that_of_point_zero_and_own_noise_is_not_correlated():
    grid = {"a": np.zeros(40), "b": np.zeros(25)}
    own, shared = (sweep(plain, grid, repeats=2, noise=noise) for noise in ("own", "shared"))
    flat = lambda ds: ds["x[0]"].values.reshape(1000, 2)  # noqa: E731
    assert np.ptp(flat(shared), axis=0).max() == 0.0
    np.testing.assert_array_equal(flat(shared)[0], flat(own)[0])
    assert flat(shared)[0, 0] != flat(shared)[0, 1]
    z = flat(own)
    assert abs(z.mean()) < 0.1  # 4.5 standard errors of 2,000
    assert abs(z.var() - 1.0) < 0.15
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.15
    assert abs(np.corrcoef(z[1:, 0], z[:-1, 0])[0, 1]) < 0.15


def test_failed_points_are_nan_in_every_feature():
    ds = sweep(plain, {"a": [0.2, 0.9], "b": [0.0, 0.5]})
    assert ds["valid"].values[..., 0].tolist() == [[True, True], [True, False]]
    for name in ("x[0]", "x[1]"):
        np.testing.assert_array_equal(np.isnan(ds[name].values), ~ds["valid"].values)


def test_interrupted_and_resumed_equals_uninterrupted_and_runs_only_what_is_missing(tmp_path):
    grid = {"a": np.linspace(0.0, 0.6, 20), "b": np.linspace(0.1, 0.5, 15)}  # 300 points: 5 batches
    fresh = sweep(plain, grid)
    broken, rest, again = Counting(fail_at=3), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        sweep(broken, grid, store=tmp_path / "s")
    resumed = sweep(rest, grid, store=tmp_path / "s")
    assert (broken.batches, rest.batches) == (3, 2)
    for ours, theirs in zip(("one", "two", "valid"), ("x[0]", "x[1]", "valid"), strict=True):
        np.testing.assert_array_equal(resumed[ours], fresh[theirs])
    assert resumed.equals(sweep(again, grid, store=tmp_path / "s"))
    assert again.batches == 0


def test_more_repeats_and_more_points_reuse_what_is_there(tmp_path):
    a, b = np.linspace(0.0, 0.4, 8), np.linspace(0.1, 0.5, 8)

    def run(a, repeats, noise="own"):
        counted = Counting()
        return sweep(counted, {"a": a, "b": b}, repeats=repeats, noise=noise, store=tmp_path / noise), counted.batches

    (_, first), (_, repeats) = run(a, 1), run(a, 3)
    assert (first, repeats) == (1, 2)
    longer, appended = run(np.append(a, [0.45, 0.5]), 3)  # 48 new rows
    assert appended == 1
    fresh = sweep(Counting(), {"a": np.append(a, [0.45, 0.5]), "b": b}, repeats=3)
    assert longer.equals(fresh)
    assert run(np.append(a, [0.45, 0.5]), 2)[1] == 0
    # with shared noise values may be put anywhere
    assert run(a, 1, "shared")[1] == 1
    finer, between = run(np.sort(np.append(a, [0.01, 0.3])), 1, "shared")
    assert between == 1  # 16 new rows
    assert finer.equals(sweep(Counting(), {"a": finer["a"].values, "b": b}, noise="shared"))


class Backwards:
    def as_completed(self, fn, items):
        for item in list(items)[::-1]:
            yield item, fn(item, jax.local_devices()[0])


def test_the_order_in_which_batches_finish_changes_no_number(fwd):
    grid = {"coupling.G": np.linspace(0.0, 0.3, 10), "model.gamma": [-1.0]}
    assert sweep(fwd, grid, repeats=7).equals(sweep(fwd, grid, repeats=7, executor=Backwards()))


@pytest.mark.slow
def test_workers_and_dask_give_the_same_numbers(fwd, tmp_path):
    grid = {"coupling.G": np.linspace(0.0, 0.3, 10), "model.gamma": [-1.0]}
    here = sweep(fwd, grid, repeats=7)
    assert here.equals(sweep(fwd, grid, repeats=7, executor=vb.Local(workers=2)))
    with vb.Dask(workers=2) as dask:
        assert here.equals(sweep(fwd, grid, repeats=7, executor=dask, store=tmp_path / "s"))
    assert here.equals(sweep(fwd, grid, repeats=7, store=tmp_path / "s"))


KILLED = """
import os, signal, sys, jax, jax.numpy as jnp, vbinfer as vb
class Deadly:
    names, batches = ("one",), 0
    def __call__(self, theta, key):
        return theta["a"] + jax.random.normal(key, (1,))
    def fingerprint(self):
        return "deadly"
    def batch(self, theta, keys):
        Deadly.batches += 1
        if Deadly.batches == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return jax.vmap(self)(theta, keys)
ds = vb.sweep(Deadly(), {"a": jnp.linspace(0.0, 1.0, 500)}, key=jax.random.key(0), store=sys.argv[1], progress=False)
print(Deadly.batches, float(ds["one"].sum()))
"""


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on(tmp_path):
    def run(store, at):
        command = [sys.executable, "-c", KILLED, str(tmp_path / store), str(at)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert run("broken", 5).returncode == -signal.SIGKILL
    batches, total = run("broken", 99).stdout.split()
    assert batches == "4"  # of eight, four were written
    assert run("fresh", 99).stdout.split() == ["8", total]


def test_another_simulator_or_key_is_refused_in_the_same_store(tmp_path):
    sweep(plain, {"a": [0.1], "b": [0.2]}, store=tmp_path / "s")
    with pytest.raises(ValueError, match="key 'words'"):
        sweep(plain, {"a": [0.1], "b": [0.2]}, store=tmp_path / "s", key=jax.random.key(6))
    with pytest.raises(ValueError, match="features"):
        sweep(Counting(), {"a": [0.1], "b": [0.2]}, store=tmp_path / "s")


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({"coupling.g": [0.1]}, {}, r"Did you mean 'coupling.G'\? \(given by the grid\)"),
        ({"noise.sigma": [0.1, -0.2]}, {}, "1 of the 2 values of 'noise.sigma' lie outside"),
        ({}, {}, "the grid is empty"),
        ({"coupling.G": []}, {}, "give at least one"),
        ({"coupling.G": [0.1, np.nan]}, {}, "NaN"),
        ({"coupling.G": [[0.1, 0.2]]}, {}, "to_paths"),
        ({"coupling.G": 0.1}, {}, r"shape \[\]"),
        ({("coupling.G", "noise.sigma"): ([0.1, 0.2, 0.3], [0.1, 0.2])}, {}, "as many of each"),
        ({("coupling.G", "noise.sigma"): np.ones((4, 3))}, {}, "rows of 2 values"),
        ({("coupling.G", "coupling.G"): np.ones((4, 2))}, {}, "twice"),
        ({"coupling.G": [0.1], ("coupling.G", "noise.sigma"): np.ones((4, 2))}, {}, "leave it on one"),
        ({"coupling.G": [0.1]}, {"repeats": 0}, "repeats"),
        ({"coupling.G": [0.1]}, {"noise": "common"}, "'own', 'shared'"),
    ],
)
def test_what_is_no_grid_is_refused_with_a_remedy(fwd, grid, options, message):
    with pytest.raises(ValueError, match=message):
        sweep(fwd, grid, **options)


@pytest.mark.parametrize(
    ("grid", "message"), [([0.1], "path to values"), ({3: [0.1]}, "tuple of paths"), ({"coupling.G": ["x"]}, "numbers")]
)
def test_what_is_of_no_use_as_a_grid_is_a_type_error(fwd, grid, message):
    with pytest.raises(TypeError, match=message):
        sweep(fwd, grid)


FILE = """
[simulator]
model      = { name = "Linear", gamma = -1.0 }
integrator = { name = "Heun", dt = 0.5 }
noise      = { name = "Additive", sigma = 0.2 }
monitor    = { name = "Subsample", var = "x", period = 1.0 }
t1         = 40.0
[summary]
spread = { name = "moments" }
[sweep]
repeats = 2
seed = 3
[sweep.grid]
"model.gamma" = { low = -1.0, high = -0.5, n = 3 }
"noise.sigma" = [0.1, 0.2]
"""


def test_the_sweep_of_a_study_file_is_that_of_python(tmp_path):
    import xarray

    from vbinfer.cli.main import main

    (tmp_path / "study.toml").write_text(FILE)
    assert main(["sweep", str(tmp_path / "study.toml"), "--quiet", "--cores", "1", "--dry-run"]) == 0
    assert not (tmp_path / "runs").exists()
    assert main(["sweep", str(tmp_path / "study.toml"), "--quiet", "--cores", "1"]) == 0
    with xarray.open_dataset(tmp_path / "runs/study/sweep.nc", engine="h5netcdf") as ds:
        assert dict(ds["valid"].sizes) == {"model.gamma": 3, "noise.sigma": 2, "repeat": 2}
        assert bool(ds["valid"].all())
        name = next(n for n in ds.data_vars if "sd" in n or "std" in n or "var" in n)
        low, high = ds[name].mean(("model.gamma", "repeat")).values
        assert 1.4 < high / low < 5.0  # twice the noise


def test_mistakes_in_the_sweep_of_a_study_file_are_named(tmp_path):
    from vbinfer.study.sweep import sweep_study

    for text, message in [
        (FILE.replace("[sweep.grid]", "[sweep.grd]"), "grid"),
        (FILE.replace('"model.gamma" =', "model.gamma ="), "quote the whole path"),
        (FILE.replace("n = 3", "n = 0"), "n"),
        (FILE.replace("[sweep]\nrepeats = 2\nseed = 3\n[sweep.grid]", "[sweeps]"), "sweep"),
    ]:
        (tmp_path / "study.toml").write_text(text)
        with pytest.raises(ValueError, match=message):
            sweep_study(tmp_path / "study.toml")
