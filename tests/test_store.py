"""The store: resumed is fresh bit for bit, damage is noticed, and another study is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer import _io
from vbinfer.execute.executor import Local
from vbinfer.infer.prior_predictive import sample_prior_predictive
from vbinfer.priors.prior import Prior

KEY = jax.random.key(3)
SCALE = jnp.array([1.0, 2.0])


def make_prior(high=3.0):
    return Prior({"g": dist.Uniform(1.0, high), "m": dist.Normal(0.0, 1.0)})


def simulator(theta, key):
    return jnp.where(theta["g"] > 2.8, jnp.nan, theta["g"] * SCALE + theta["m"] + jax.random.normal(key, (2,)))


class Counting:
    """Runs `simulator`, counts its lanes, and fails at one of them."""

    names = ("one", "two")
    run = staticmethod(jax.jit(jax.vmap(simulator)))

    def __init__(self, fail_at=None, error=KeyboardInterrupt):
        self.lanes, self.fail_at, self.error = 0, fail_at, error

    def __call__(self, theta, key):
        return simulator(theta, key)

    def batch(self, theta, keys):
        if self.lanes == self.fail_at:
            raise self.error
        self.lanes += 1
        return self.run(theta, keys)


def sample(store, n=600, sim=simulator, prior=None, key=KEY, batch_size=128, **options):
    prior = prior or make_prior()
    return sample_prior_predictive(
        prior, sim, n, key=key, batch_size=batch_size, store=store, progress=False, **options
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(one, other):
    return np.array_equal(one.x, other.x, equal_nan=True) and all(
        np.array_equal(one.theta[name], other.theta[name]) for name in one.theta
    )


def test_a_store_changes_no_number(tmp_path):
    assert same(sample(tmp_path / "s"), sample(None))


@pytest.mark.parametrize("fail_at", [0, 1, 2, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_interrupted_and_resumed_is_the_same_store_and_runs_only_what_is_missing(tmp_path, fail_at, error):
    fresh = sample(tmp_path / "fresh", sim=Counting())
    broken, rest = Counting(fail_at, error), Counting()
    with pytest.raises(error):
        sample(tmp_path / "broken", sim=broken)
    resumed = sample(tmp_path / "broken", sim=rest)
    assert broken.lanes + rest.lanes == 10
    assert rest.lanes == 10 - fail_at
    assert resumed.info["simulated"] == 64 * rest.lanes
    assert resumed.info["read"] == 64 * fail_at
    assert same(resumed, fresh)
    assert contents(tmp_path / "broken") == contents(tmp_path / "fresh")


def test_more_draws_append_and_fewer_read(tmp_path):
    fresh = sample(tmp_path / "fresh", n=600)
    first, more, fewer = Counting(), Counting(), Counting()
    sample(tmp_path / "grown", n=150, sim=first)
    assert same(sample(tmp_path / "grown", n=600, sim=more), fresh)
    assert (first.lanes, more.lanes) == (3, 7)
    few = sample(tmp_path / "grown", n=70, sim=fewer)
    assert fewer.lanes == 0
    assert len(few) == 70
    assert np.array_equal(few.x, fresh.x[:70], equal_nan=True)
    assert few.info["draws_per_second"] is None
    assert few.info["read"] == 128


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _exchange(path):
    path.write_bytes(path.with_name("shard-000003.npz").read_bytes())


@pytest.mark.parametrize("damage", [_cut, _flip, _exchange, lambda path: path.write_bytes(b"")])
def test_a_damaged_shard_is_set_aside_and_run_again(tmp_path, damage):
    sample(tmp_path / "s", sim=Counting())
    good = contents(tmp_path / "s")
    damage(tmp_path / "s" / "shard-000001.npz")
    again = Counting()
    with pytest.warns(UserWarning, match=r"set aside as shard-000001\.npz\.corrupt"):
        sample(tmp_path / "s", sim=again)
    assert again.lanes == 2
    aside = contents(tmp_path / "s")
    assert aside.pop("shard-000001.npz.corrupt") != good["shard-000001.npz"]
    assert aside == good


def other_simulator(theta, key):
    return jnp.where(theta["g"] > 2.8, jnp.nan, theta["g"] * SCALE + theta["m"] + 1.5 * jax.random.normal(key, (2,)))


def simulator_with_another_constant(theta, key):
    scale = jnp.array([1.0, 2.5])
    return jnp.where(theta["g"] > 2.8, jnp.nan, theta["g"] * scale + theta["m"] + jax.random.normal(key, (2,)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prior": make_prior(3.5)}, r"prior 'g'.*: the store has 3\.0, this call has 3\.5"),
        ({"key": jax.random.key(4)}, r"key 'words': the store has \[0, 3\], this call has \[0, 4\]"),
        ({"batch_size": 64}, "batch_size: the store has 128, this call has 64"),
        ({"sim": other_simulator}, "simulator: the store has"),
        ({"sim": simulator_with_another_constant}, "simulator: the store has"),
        ({"sim": Counting()}, "features"),
    ],
)
def test_a_store_of_another_study_is_refused_and_left_as_it_was(tmp_path, change, said):
    sample(tmp_path / "s", n=100)
    before = contents(tmp_path / "s")
    with pytest.raises(ValueError, match=said) as caught:
        sample(tmp_path / "s", n=100, **change)
    assert "another study" in str(caught.value)
    assert "Give another folder" in str(caught.value)
    assert contents(tmp_path / "s") == before


def test_the_fingerprint_knows_the_program_not_the_name(tmp_path):
    def renamed(theta, key):
        return simulator(theta, key)

    sample(tmp_path / "s", n=100)
    assert sample(tmp_path / "s", n=100, sim=renamed).info["simulated"] == 0


def test_another_precision_is_another_study(tmp_path):
    sample(tmp_path / "s", n=64)
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    now = manifest["study"]["dtype"]
    manifest["study"]["dtype"] = "float16"
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f'dtype: the store has "float16", this call has "{now}"'):
        sample(tmp_path / "s", n=64)


def test_other_versions_warn_and_another_format_refuses(tmp_path):
    sample(tmp_path / "s", n=64)
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "versions": {**manifest["versions"], "jaxlib": "0.0.1"}}))
    with pytest.warns(UserWarning, match=r"jaxlib 0\.0\.1 -> .*to rounding only"):
        sample(tmp_path / "s", n=64)
    path.write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(ValueError, match=r"has format 2.*reads format 1"):
        sample(tmp_path / "s", n=64)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"no readable manifest\.json; give another folder"):
        sample(tmp_path / "s", n=64)


def test_a_simulator_that_broke_before_its_first_shard_can_be_mended_in_place(tmp_path):
    with pytest.raises(FloatingPointError):
        sample(tmp_path / "s", n=64, sim=Counting(fail_at=0, error=FloatingPointError))
    assert len(sample(tmp_path / "s", n=64)) == 64


def test_the_store_is_kept_and_readable_when_every_draw_fails(tmp_path):
    with pytest.raises(RuntimeError, match=r"all 64 draws failed.*vb\.load"):
        sample(tmp_path / "s", n=64, sim=lambda theta, key: jnp.full(2, jnp.nan) * theta["g"])
    draws = _io.load(tmp_path / "s")
    assert len(draws) == 64
    assert not draws.valid.any()
    np.testing.assert_array_equal(draws.theta["g"], sample(None, n=64).theta["g"])


def test_load_reads_a_store_without_its_simulator(tmp_path):
    draws = sample(tmp_path / "s", n=256, sim=Counting())
    found = _io.load(tmp_path / "s")
    assert same(found, draws)
    assert found.names == ("one", "two")
    assert np.array_equal(found.valid, draws.valid)


def test_a_function_that_jax_cannot_trace_needs_a_fingerprint(tmp_path):
    def host(theta, key):
        return np.array([float(theta["g"])])

    with pytest.raises(TypeError, match=r"give it a method fingerprint\(\)"):
        sample(tmp_path / "s", sim=host)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give the name of a folder"):
        sample(tmp_path / "file")


def test_threads_give_the_same_store(tmp_path):
    device = jax.local_devices()[0]
    sample(tmp_path / "one")
    sample(tmp_path / "two", executor=Local((device, device)))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_arrays_inside_an_inner_jit_are_part_of_the_fingerprint(tmp_path):
    """They sit in a program within the program; a store of another simulator was once accepted for its own."""

    def make(array):
        return jax.jit(lambda theta, key: theta["g"] * array)

    prior, key = Prior({"g": dist.Normal(0.0, 1.0)}), jax.random.key(0)
    run = lambda f: sample_prior_predictive(prior, f, n=64, key=key, store=tmp_path / "s", progress=False)  # noqa: E731
    run(make(jnp.arange(3.0)))
    with pytest.raises(ValueError, match="simulator"):
        run(make(100.0 * jnp.arange(3.0)))
