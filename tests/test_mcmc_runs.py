"""Runs that stop and go on: continuing, stores, starts, devices."""

import json
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior
from vbinfer.sampling import HMC, MCLMC, NUTS, TemperedSMC, sample_mcmc
from vbinfer.sampling.problem import check_kernel
from vbinfer.sampling.store import ChainStore

KEY = jax.random.key(2)
PRIOR = Prior({"a": dist.Normal(1.0, 2.0), "b": dist.LogNormal(-1.0, 0.5).expand([2])})
Y = np.array([2.0, -0.5, 1.0], np.float32)


def log_likelihood(theta, y):
    mean = jnp.stack([theta["a"], theta["a"] - theta["b"][0], theta["b"].sum()])
    return dist.Normal(mean, 0.4).log_prob(y).sum()


def run(**options):
    return sample_mcmc(PRIOR, log_likelihood, Y, **{"num_chains": 2, "num_warmup": 70, "key": KEY, **options})


def same(one, two):
    pairs = [(one.theta, two.theta), (one.sample_stats, two.sample_stats), (one.state, two.state)]
    pairs.append(({"log_prob": one.log_prob}, {"log_prob": two.log_prob}))
    return (
        all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a) and pairs[0][0].keys() == two.theta.keys()
    )


@pytest.mark.parametrize(
    "kernel",
    [NUTS(), NUTS(engine="blackjax", dense_mass=True), HMC(), MCLMC(steps_per_draw=3)],
    ids=lambda k: str(k)[:22],
)
def test_going_on_is_one_long_run_bit_for_bit(kernel, tmp_path):
    """n draws and then m, cut within a chunk, saved and loaded on the way, are the n + m draws of one run."""
    whole = run(kernel=kernel, num_samples=120)
    first = run(kernel=kernel, num_samples=67)
    first.save(tmp_path / "first.npz")
    second = run(init=vb.load(tmp_path / "first.npz"), num_warmup=0, num_samples=53, key=jax.random.key(99))
    for name in PRIOR.shapes:
        assert np.array_equal(whole.theta[name], np.concatenate([first.theta[name], second.theta[name]], axis=1))
    for name, value in whole.sample_stats.items():
        assert np.array_equal(value, np.concatenate([first.sample_stats[name], second.sample_stats[name]], axis=1))
    assert all(np.array_equal(whole.state[name], second.state[name]) for name in whole.state)
    assert second.info["kernel"] == whole.info["kernel"]


def test_warmup_after_a_posterior_starts_anew_from_its_draws():
    first = run(num_samples=10)
    stay = {"kernel": NUTS(max_tree_depth=1, target_accept=0.999), "num_samples": 1, "num_warmup": 1}
    again = run(init=first, **stay)
    steps = np.abs(first.theta["a"] - again.theta["a"])  # one short trajectory away from a draw of the same chain
    assert again.theta["a"].shape == (2, 1)
    assert (steps.min(axis=1) < 1.5).all()


class Interrupted(Exception):
    pass


def stop_after(monkeypatch, name, calls):
    """Let `calls` writes through, then fail before the next."""
    original, left = getattr(ChainStore, name), [calls]

    def write(self, *arguments):
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        original(self, *arguments)

    monkeypatch.setattr(ChainStore, name, write)


@pytest.mark.parametrize(
    ("engine", "where", "calls"),
    [
        ("numpyro", "put_warmup", 1),
        ("numpyro", "put_draws", 0),
        ("numpyro", "put_draws", 2),
        ("blackjax", "put_draws", 1),
    ],
)
def test_an_interrupted_store_resumes_bit_for_bit(engine, where, calls, tmp_path, monkeypatch):
    options = {"kernel": NUTS(engine=engine), "num_samples": 130}
    whole = run(**options)
    with monkeypatch.context() as patch:
        stop_after(patch, where, calls)
        with pytest.raises(Interrupted):
            run(**options, store=tmp_path / "run")
    resumed = run(**options, store=tmp_path / "run")
    assert same(resumed, whole)
    assert same(vb.load(tmp_path / "run"), whole)


def test_a_store_grows_and_loads_what_is_there(tmp_path):
    first = run(num_samples=60, store=tmp_path)
    sofar = vb.load(tmp_path)
    assert same(sofar, first)
    np.testing.assert_array_equal(sofar.x_o, Y)
    longer = run(num_samples=110, store=tmp_path)
    assert same(longer, run(num_samples=110))
    assert sorted(path.name for path in tmp_path.iterdir())[:2] == ["chains.npz", "draws-000000.npz"]
    with pytest.raises(ValueError, match=r"holds 110 draws per chain and num_samples=60"):
        run(num_samples=60, store=tmp_path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    run(num_samples=5, store=folder)
    return folder


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"key": jax.random.key(3)}, "key"),
        ({"num_warmup": 71}, "num_warmup"),
        ({"num_chains": 3}, "num_chains"),
        ({"kernel": NUTS(target_accept=0.9)}, "kernel"),
        ({"kernel": HMC()}, "method"),
        ({"init": {"a": np.zeros(2), "b": np.ones((2, 2))}}, "init"),
    ],
)
def test_a_store_of_another_run_says_what_differs(stored, other, named):
    with pytest.raises(ValueError, match=rf"holds chains of another study:\n(.*\n)*  {named}.*: the store has"):
        run(num_samples=5, store=stored, **other)


def test_a_killed_beginning_and_a_lost_first_file_do_not_end_a_store(tmp_path):
    """A process killed in its first write left a hidden file, and its store was then one that "holds other files"."""
    tmp_path.joinpath(".chains.npz.node.1.abcd.tmp").write_bytes(b"half")
    whole = run(num_samples=5, store=tmp_path)
    (tmp_path / "chains.npz").unlink()
    assert same(run(num_samples=5, store=tmp_path), whole)
    assert same(vb.load(tmp_path), whole)


def test_a_chunk_of_other_chains_is_not_taken_for_ones_own(stored, tmp_path):
    run(num_samples=5, store=tmp_path, key=jax.random.key(77))
    (tmp_path / "draws-000000.npz").write_bytes((stored / "draws-000000.npz").read_bytes())
    with pytest.raises(ValueError, match=r"draws-000000\.npz .*delete it, and repeat the call"):
        vb.load(tmp_path)


def test_a_store_of_another_study_says_what_differs(stored):
    options = {"num_chains": 2, "num_warmup": 70, "key": KEY, "num_samples": 5, "store": stored}
    with pytest.raises(ValueError, match=r"  x_o.*: the store has"):
        sample_mcmc(PRIOR, log_likelihood, Y + 1.0, **options)
    with pytest.raises(ValueError, match=r"  log_likelihood.*: the store has"):
        sample_mcmc(PRIOR, lambda theta, y: 2.0 * log_likelihood(theta, y), Y, **options)
    other = Prior({**PRIOR.dists, "a": dist.Normal(0.0, 2.0)})
    with pytest.raises(ValueError, match=r"  prior.*: the store has"):
        sample_mcmc(other, log_likelihood, Y, **options)
    with pytest.raises(ValueError, match="holds other files"):
        run(num_samples=5, store=stored.parent)
    with pytest.raises(ValueError, match="is a file; give the name of a folder"):
        run(num_samples=5, store=stored / "chains.npz")


OTHER = Prior({"a": dist.Normal(0.0, 1.0), "c": dist.Normal(0.0, 1.0)})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda done: run(init=done, num_warmup=0, num_chains=4), ValueError, "write num_chains=2, not 4"),
        (
            lambda done: run(init=done, num_warmup=0, kernel=NUTS(engine="blackjax")),
            ValueError,
            "init was sampled by NUTS .* leave kernel out to go on",
        ),
        (
            lambda done: sample_mcmc(OTHER, lambda theta, y: -(theta["a"] ** 2), 0.0, init=done, key=KEY),
            ValueError,
            "init is a posterior of another study",
        ),
        (
            lambda done: run(init=Posterior({"a": np.zeros((1, 3)), "c": np.zeros((1, 3))})),
            ValueError,
            r"init has the parameters a \[\], c \[\]; this prior has a \[\], b \[2\]",
        ),
        (lambda done: run(init=3.0), TypeError, "init is a float; expected theta as a dictionary"),
        (lambda done: run(chain_method="threads"), ValueError, "expected one of 'auto', 'vectorized', 'parallel'"),
        (lambda done: check_kernel(NUTS), TypeError, r"write kernel=vb\.sampling\.NUTS\(\)"),
    ],
)
def test_mistakes(stored, call, error, message):
    with pytest.raises(error, match=message):
        call(vb.load(stored))


def where_chains_began(init, num_chains=4):
    """Two steps of next to nothing: the first draw is where the chain began."""
    still = HMC(trajectory_length=1e-4)
    return run(kernel=still, init=init, num_warmup=0, num_samples=1, num_chains=num_chains)


def test_warm_starts_are_draws_of_a_posterior_and_optima_of_a_map_fit():
    draws = {"a": np.arange(1.0, 7.0)[None], "b": np.exp(-np.arange(12.0) / 6.0).reshape(1, 6, 2)}
    began = where_chains_began(Posterior(draws))
    for a, b in zip(began.theta["a"][:, 0], began.theta["b"][:, 0], strict=True):
        row = int(np.argmin(np.abs(draws["a"][0] - a)))
        assert abs(draws["a"][0, row] - a) < 1e-2
        np.testing.assert_allclose(b, draws["b"][0, row], atol=1e-2)
    assert len(np.unique(np.round(began.theta["a"]))) > 1

    basins = [types.SimpleNamespace(theta={"a": a, "b": np.array([b, 0.3])}) for a, b in ((2.0, 0.2), (-1.0, 0.6))]
    began = where_chains_began(types.SimpleNamespace(basins=basins))
    np.testing.assert_allclose(began.theta["a"][:, 0], [2.0, -1.0, 2.0, -1.0], atol=1e-2)
    np.testing.assert_allclose(began.theta["b"][:, 0, 0], [0.2, 0.6, 0.2, 0.6], atol=1e-2)


def test_the_parameter_to_blame_for_failed_starts_is_named():
    """The likelihood is finite only where a is far up in the prior's tail: the message says so."""
    prior = Prior({"a": dist.Normal(0.0, 1.0), "b": dist.Normal(0.0, 1.0)})

    def high(theta, y):
        return jnp.where(theta["a"] > 2.7, -(theta["b"] ** 2), jnp.nan)

    with pytest.raises(ValueError, match=r"mostly at small 'a' \(median .* there, .* where it is finite\)"):
        sample_mcmc(prior, high, 0.0, num_chains=4, key=KEY)

    with pytest.raises(ValueError, match=r"NaN at 400 of 400 draws, which came through 'b'"):
        sample_mcmc(prior, lambda theta, y: theta["a"] + jnp.sqrt(-1.0 - theta["b"] ** 2), 0.0, key=KEY)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (lambda theta, y: jnp.asarray(3), "type int32"),
        (lambda theta, y: theta["a"] * 1j, "type complex64"),
        (lambda theta, y: None, "None"),
    ],
)
def test_a_likelihood_that_is_no_real_number(value, got):
    with pytest.raises(ValueError, match=rf"log_likelihood returned .*{got}.*expected one real number"):
        sample_mcmc(PRIOR, value, Y, key=KEY)


def compilations():
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: events.append(name) if "backend_compile" in name else None
    )
    return events


def by_numpy(theta, y):
    """Needs the values of y, which no trace has."""
    return log_likelihood(theta, np.asarray(y["values"]) if y["kind"] == "bold" else y["values"])


@pytest.mark.parametrize("kernel", [NUTS(), NUTS(engine="blackjax"), TemperedSMC()], ids=lambda k: str(k)[:22])
def test_another_observation_compiles_nothing(kernel):
    """x_o is an argument of every program: repeating, or changing y in place, compiles nothing and is seen."""
    y = Y.copy()

    def posterior():
        return sample_mcmc(
            PRIOR, log_likelihood, y, kernel=kernel, num_warmup=70, num_samples=400, num_chains=2, key=KEY
        )

    one, events = posterior(), compilations()
    jax.jit(lambda y: y + 1.0)(Y)  # is counted
    count = len(events)
    two = posterior()
    assert np.array_equal(one.theta["a"], two.theta["a"])
    y += np.array([3.0, 3.0, 0.0], np.float32)
    other = posterior()
    assert len(events) == count > 0
    assert other.theta["a"].mean() > one.theta["a"].mean() + 2.0


def test_a_likelihood_that_needs_the_values_of_its_observation():
    """It holds them: the draws are those of the traced one, equal data compile nothing, changed data are seen."""
    values, sizes = Y.copy(), {"num_warmup": 70, "num_samples": 100, "num_chains": 2, "key": KEY}

    def posterior():
        return sample_mcmc(PRIOR, by_numpy, {"values": values, "kind": "bold"}, **sizes)

    one, traced = posterior(), sample_mcmc(PRIOR, log_likelihood, Y, **sizes)
    assert abs(one.theta["a"].mean() - traced.theta["a"].mean()) < 0.2
    assert one.x_o is None
    events = compilations()
    assert same(posterior(), one)
    assert events == []
    values += np.array([3.0, 3.0, 0.0], np.float32)
    assert posterior().theta["a"].mean() > one.theta["a"].mean() + 2.0


PARALLEL = """
import json, sys
import vbinfer as vb
vb.use_cores(2)
import jax, numpyro.distributions as dist, jax.numpy as jnp, numpy as np
prior = vb.Prior({"a": dist.Normal(1.0, 2.0), "b": dist.Normal(0.0, 0.5)})
def log_likelihood(theta, y):
    return dist.Normal(theta["a"] + theta["b"], 0.5).log_prob(y)
def run(method, kernel, chains=4):
    return vb.sample_mcmc(prior, log_likelihood, 2.0, kernel=kernel, num_warmup=0, num_samples=8, num_chains=chains,
                          chain_method=method, key=jax.random.key(1))
apart = []
for kernel in (vb.sampling.NUTS(max_tree_depth=3), vb.sampling.NUTS(engine="blackjax", max_tree_depth=3)):
    one, two = run("vectorized", kernel), run("parallel", kernel)
    apart.append(max(float(np.abs(one.theta[name] - two.theta[name]).max()) for name in "ab"))
    on = run("auto", kernel)
    apart.append(float(np.abs(on.theta["a"] - two.theta["a"]).max()))
try:
    run("parallel", vb.sampling.NUTS(), chains=3)
    message = ""
except ValueError as error:
    message = str(error)
print(json.dumps([len(jax.devices()), apart, message]))
"""


@pytest.mark.slow
def test_chains_over_devices_are_the_chains_of_one_program():
    done = subprocess.run([sys.executable, "-c", PARALLEL], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    devices, apart, message = json.loads(done.stdout.splitlines()[-1])
    assert devices == 2
    assert max(apart) < 1e-3, apart
    assert "give a multiple of 2 chains" in message


def test_the_bar_counts_warmup_and_draws(capsys):
    run(num_samples=60, progress=True)
    shown = capsys.readouterr().err
    assert "130/130" in shown
    assert "divergences" in shown
