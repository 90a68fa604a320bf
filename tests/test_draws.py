"""Prior-predictive draws: which numbers they are, which fail, and what is refused before anything runs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.draws.draws import Draws
from vbinfer.draws.predictive import posterior_predictive
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute.batches import WIDTH
from vbinfer.execute.executor import Local, use_cores
from vbinfer.io import npz
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

PRIOR = Prior({"g": dist.Uniform(0.5, 2.5), "m": dist.Normal(-1.0, 0.5).expand([2])})
KEY = jax.random.key(7)


def gaussian(theta, key):
    return jnp.concatenate([theta["g"] * jnp.ones(1), theta["m"]]) + 0.1 * jax.random.normal(key, (3,))


def failing_above_two(theta, key):
    return jnp.where(theta["g"] > 2.0, jnp.nan, gaussian(theta, key))


def sample(simulator=gaussian, n=100, prior=PRIOR, key=KEY, **options):
    return sample_prior_predictive(prior, simulator, n, key=key, progress=False, **options)


def test_draw_i_is_the_documented_function_of_the_key():
    draws = sample(n=70)
    for i in (0, 5, 63, 64, 69):
        k_theta, k_sim = jax.random.split(jax.random.fold_in(KEY, i))
        theta = PRIOR.sample(key=k_theta)
        np.testing.assert_allclose(draws.theta["g"][i], theta["g"], rtol=1e-6)
        np.testing.assert_allclose(draws.theta["m"][i], theta["m"], rtol=1e-6)
        np.testing.assert_allclose(draws.x[i], gaussian(theta, k_sim), rtol=1e-5)


def test_a_longer_run_begins_with_the_shorter_one_bit_for_bit():
    short, long = sample(n=70), sample(n=200)
    assert len(short) == 70
    assert len(long) == 200
    assert np.array_equal(short.x, long.x[:70])
    assert np.array_equal(short.theta["m"], long.theta["m"][:70])


def test_moments_of_the_prior_predictive():
    draws = sample(n=4000)
    mean, sd = np.array([1.5, -1.0, -1.0]), np.sqrt(np.array([4.0 / 12, 0.25, 0.25]) + 0.01)
    assert np.all(np.abs(draws.x.mean(0) - mean) < 4 * sd / np.sqrt(4000))
    np.testing.assert_allclose(draws.x.std(0), sd, rtol=4 / np.sqrt(2 * 4000))


def test_batch_is_used_with_full_batches_only():
    class Batched:
        names = ("a", "b", "c")

        def __init__(self):
            self.widths = []

        def __call__(self, theta, key):
            raise AssertionError("one draw at a time")

        def batch(self, theta, keys):
            self.widths.append((len(keys), theta["m"].shape))
            return jax.vmap(gaussian)(theta, keys)

    simulator = Batched()
    draws = sample(simulator, n=130)
    assert simulator.widths == [(WIDTH, (WIDTH, 2))] * 3
    assert draws.names == ("a", "b", "c")
    np.testing.assert_allclose(draws.x, sample(n=130).x, rtol=1e-6)


def test_legacy_keys_are_the_same_keys():
    assert np.array_equal(sample(key=jax.random.PRNGKey(7)).x, sample().x)


def test_failed_draws_are_kept_and_counted_by_region():
    draws = sample(failing_above_two, n=1000)
    assert len(draws) == 1000
    assert np.array_equal(draws.valid, draws.theta["g"] <= 2.0)
    theta, x = draws.usable()
    assert len(x) == len(theta["g"]) == draws.valid.sum()
    assert np.isfinite(x).all()
    rows = [row for row in draws.failures(PRIOR, bins=8) if row.parameter == "g"]
    np.testing.assert_allclose([row.low for row in rows], 0.5 + 0.25 * np.arange(8), atol=1e-6)
    np.testing.assert_allclose([row.high for row in rows], 0.75 + 0.25 * np.arange(8), atol=1e-6)
    assert [row.share for row in rows] == [0.0] * 6 + [1.0] * 2
    assert all(sum(r.n for r in draws.failures(PRIOR) if r.parameter == name) == 1000 for name in PRIOR.names)
    innocent = [row.share for row in draws.failures(PRIOR) if row.parameter == "m[1]"]
    assert len(innocent) == 10
    assert max(innocent) < 0.25 + 4 * np.sqrt(0.25 * 0.75 / 100)


def test_regions_of_an_unbounded_prior_hold_equal_mass():
    prior = Prior({"a": dist.LogNormal(0.5, 1.0)})
    draws = sample(lambda theta, key: theta["a"][None], n=2000, prior=prior)
    rows = draws.failures(prior, bins=4)
    expected = np.exp(0.5 + np.array([-0.6744898, 0.0, 0.6744898]))
    np.testing.assert_allclose([row.high for row in rows][:-1], expected, rtol=1e-5)
    assert rows[0].low == 0.0
    assert rows[-1].high == np.inf
    assert all(abs(row.n - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75) for row in rows)


def test_from_arrays_marks_rows_that_are_not_finite():
    theta = {"a": np.array([1.0, 2.0, np.inf, 4.0])}
    x = np.array([[1.0, 2.0], [np.nan, 0.0], [0.0, 1.0], [3.0, 4.0]])
    draws = Draws.from_arrays(theta, x, valid=[True, True, True, False])
    assert draws.valid.tolist() == [True, False, False, False]
    assert draws.names == ("x[0]", "x[1]")
    assert draws.log_q is None
    assert draws.round.tolist() == [0] * 4


def test_draws_survive_a_file_exactly(tmp_path):
    draws = sample(failing_above_two, n=130)
    draws.save(tmp_path / "d.npz")
    found = npz.load(tmp_path / "d.npz")
    assert np.array_equal(found.x, draws.x, equal_nan=True)
    assert np.array_equal(found.valid, draws.valid)
    assert list(found.theta) == list(draws.theta)
    assert np.array_equal(found.theta["m"], draws.theta["m"])
    assert found.names == draws.names
    assert found.info == draws.info


class Declared:
    """A simulator that declares ranges and must not be reached."""

    def __init__(self, **ranges):
        self.declared = ranges

    def __call__(self, theta, key):
        raise AssertionError("something ran")

    def ranges(self):
        return self.declared


INF = float("inf")


@pytest.mark.parametrize(
    ("prior", "low", "high", "message"),
    [
        (dist.Normal(0.6, 0.3), 0.0, INF, r'"w": dist\.TruncatedNormal\(0\.6, 0\.3, low=0\.0\)$'),
        (dist.Normal(0.6, 0.3), 0.0, 1.0, r'"w": dist\.TruncatedNormal\(0\.6, 0\.3, low=0\.0, high=1\.0\)$'),
        (
            dist.Normal(-4.0, 2.0).expand([3]),
            -INF,
            -1.0,
            r"TruncatedNormal\(-4\.0, 2\.0, high=-1\.0\)\.expand\(\[3\]\)",
        ),
        (dist.TruncatedNormal(0.6, 0.3, low=-1.0), 0.0, INF, r"dist\.TruncatedNormal\(0\.6, 0\.3, low=0\.0\)$"),
        (dist.Uniform(-1.0, 0.5), 0.0, 1.0, r'"w": dist\.Uniform\(0\.0, 0\.5\)$'),
        (dist.LogNormal(0.0, 1.0), 0.0, 5.0, r"Uniform\(0\.0, 5\.0\), or another prior within the range"),
    ],
)
def test_mass_outside_a_declared_range_is_refused_with_the_prior_to_write(prior, low, high, message):
    with pytest.raises(ValueError, match=message) as caught:
        sample(Declared(w=(low, high)), prior=Prior({"w": prior}))
    assert "outside" in str(caught.value)


def test_a_tail_of_less_than_a_millionth_is_left_to_fail_by_itself():
    prior = Prior({"w": dist.Normal(6.0, 1.0)})  # P(w < 0) = 1e-9
    simulator = Declared(w=(0.0, INF))
    with pytest.raises(AssertionError, match="something ran"):
        sample(simulator, prior=prior)


def test_check_runs_before_anything_else():
    class Checking(Declared):
        def check(self, prior):
            raise ValueError(f"no such path {list(prior.shapes)}")

    with pytest.raises(ValueError, match="no such path"):
        sample(Checking())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "expected a positive whole number"),
        ({"batch_size": 100}, ValueError, "write a multiple of 64: batch_size=128"),
        ({"batch_size": -1}, ValueError, "such as batch_size=256, a multiple of 64"),
        ({"key": jax.random.split(KEY, 3)}, TypeError, r"write key=jax\.random\.key\(0\)"),
        ({"simulator": lambda theta, key: theta["g"]}, ValueError, r"shape \[\] for one draw.*atleast_1d"),
        ({"simulator": lambda theta, key: jnp.ones((2, 3))}, ValueError, r"shape \[2, 3\] for one draw.*ravel"),
        ({"simulator": lambda theta, key: jnp.full(3, jnp.nan)}, RuntimeError, "all 100 draws failed"),
    ],
)
def test_mistakes_of_a_run(options, error, message):
    with pytest.raises(error, match=message):
        sample(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"a": np.zeros(3)}, np.zeros(3)), r"x has shape \[3\]; expected \[draw, feature\]"),
        (({"a": np.zeros(2)}, np.zeros((3, 1))), r"theta\['a'\] has shape \[2\] but x is \[3, 1\]"),
        (({}, np.zeros((3, 1))), "theta is empty"),
        (({"a": np.zeros(3)}, np.zeros((3, 2)), ("one",)), "1 names were given for the 2 features"),
        (({"a": np.zeros(3)}, np.zeros((3, 2)), None, [True]), "valid has shape"),
    ],
)
def test_mistakes_of_from_arrays(arguments, message):
    with pytest.raises(ValueError, match=message):
        Draws.from_arrays(*arguments)


def test_executors_yield_in_order_and_stop_at_the_first_error():
    devices = jax.local_devices()
    assert list(Local(devices).map(lambda i, device: (i, device in devices), range(5))) == [(i, True) for i in range(5)]
    with pytest.raises(ValueError, match="expected JAX devices"):
        Local(())
    with pytest.raises(ValueError, match="n=0 was given; expected a positive whole number"):
        use_cores(0)
    with pytest.raises(RuntimeError, match="called after JAX had started"):
        use_cores(len(devices) + 1)


TWO_DEVICES = """
import sys, numpy as np
from vbinfer.execute.executor import Local, use_cores
use_cores(2)
import jax
from test_draws import sample, gaussian
assert len(jax.devices()) == 2
used = set()
class Spy:
    def __call__(self, theta, key): return gaussian(theta, key)
    def batch(self, theta, keys):
        used.update(theta["g"].devices())
        return run(theta, keys)
run = jax.jit(jax.vmap(gaussian))
two, one = sample(Spy(), n=500), sample(Spy(), n=500, executor=Local(jax.devices()[1:]))
assert len(used) == 2, used
assert np.array_equal(two.x, one.x)
np.save(sys.argv[1], two.x)
"""


def test_two_devices_give_the_same_draws_as_one(tmp_path):
    path = tmp_path / "x.npy"
    folders = [str(p) for p in (Path(__file__).parent, *sys.path) if str(p)]
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(path)],
        env={**os.environ, "PYTHONPATH": ":".join(folders)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(path), sample(n=500).x)


def test_posterior_predictive_simulates_distinct_posterior_draws():
    prior_draws = PRIOR.sample(key=jax.random.key(1), n=300)
    posterior = Posterior({name: np.asarray(v).reshape(3, 100, *v.shape[1:]) for name, v in prior_draws.items()})

    class Series:
        names = ("g", "m0", "m1")

        def __call__(self, theta, key):
            return gaussian(theta, key)

        def batch_series(self, theta, keys):
            x = jax.vmap(gaussian)(theta, keys)
            return x, jnp.stack([x, 2 * x], axis=1)

    found = posterior_predictive(posterior, Series(), n=90, key=KEY, series=True)
    assert found.x.shape == (90, 3)
    assert found.ys.shape == (90, 2, 3)
    assert found.names == ("g", "m0", "m1")
    assert len(np.unique(found.theta["g"])) == 90
    assert set(found.theta["g"]) <= set(posterior.theta["g"].ravel())
    residual = (found.x - np.column_stack([found.theta["g"], found.theta["m"]])) / 0.1
    assert abs(residual.mean()) < 4 / np.sqrt(270)
    assert abs(residual.std() - 1) < 4 / np.sqrt(540)
    assert np.array_equal(found.ys[:, 1], 2 * found.x)
    plain = posterior_predictive(posterior, gaussian, n=90, key=KEY)
    assert plain.ys is None
    np.testing.assert_allclose(plain.x, found.x, rtol=1e-5)
    assert len(np.unique(posterior_predictive(posterior, gaussian, n=300, key=KEY).theta["g"])) == 300
    with pytest.raises(ValueError, match="write a number from 1 to 300"):
        posterior_predictive(posterior, gaussian, n=301, key=KEY)
    with pytest.raises(ValueError, match=r"give a vb\.ForwardModel"):
        posterior_predictive(posterior, gaussian, n=10, key=KEY, series=True)


def test_progress_writes_to_stderr_only(capsys):
    sample_prior_predictive(PRIOR, failing_above_two, n=128, key=KEY, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "128/128" in err
    assert "failed" in err
    assert "draw/s" in err


def test_a_simulator_with_too_few_names_stops_at_its_first_batch():
    calls = []

    class Simulator:
        names = ("a", "b")

        def __call__(self, theta, key):
            return jnp.stack([theta["g"]] * 3)

        def batch(self, theta, keys):
            calls.append(len(keys))
            return jnp.stack([theta["g"]] * 3, axis=1)

    with pytest.raises(ValueError, match="names 2 features but returned 3"):
        sample_prior_predictive(
            Prior({"g": dist.Normal(0.0, 1.0)}), Simulator(), n=640, key=jax.random.key(0), progress=False
        )
    assert len(calls) <= 2  # one batch per device at most
