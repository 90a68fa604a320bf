"""The store: resumed is fresh bit for bit, damage is noticed, and another study is refused."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.draws import schedule
from vbinfer.draws.manage import StoreStatus, load_series, merge_stores, simulate_store
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.draws.store import DRAWS, Store
from vbinfer.execute.executor import Local
from vbinfer.io import npz
from vbinfer.io.fingerprint import traced
from vbinfer.io.folder import write_head
from vbinfer.io.locks import Claims
from vbinfer.priors.prior import Prior

KEY = jax.random.key(3)
SCALE = jnp.array([1.0, 2.0])


def make_prior(high=3.0):
    return Prior({"g": dist.Uniform(1.0, high), "m": dist.Normal(0.0, 1.0)})


def simulator(theta, key):
    return jnp.where(theta["g"] > 2.8, jnp.nan, theta["g"] * SCALE + theta["m"] + jax.random.normal(key, (2,)))


class Counting:
    """Runs `simulator`, counts its batches, and fails at one of them."""

    names = ("one", "two")
    run = staticmethod(jax.jit(jax.vmap(simulator)))

    def __init__(self, fail_at=None, error=KeyboardInterrupt):
        self.batches, self.fail_at, self.error = 0, fail_at, error

    def __call__(self, theta, key):
        return simulator(theta, key)

    def batch(self, theta, keys):
        if self.batches == self.fail_at:
            raise self.error
        self.batches += 1
        return self.run(theta, keys)


def sample(store, n=600, sim=simulator, prior=None, key=KEY, batch_size=128, **options):
    prior = prior or make_prior()
    return sample_prior_predictive(
        prior, sim, n, key=key, batch_size=batch_size, store=store, progress=False, **options
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".claims"}


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
    assert broken.batches + rest.batches == 10
    assert rest.batches == 10 - fail_at
    assert resumed.info["simulated"] == 64 * rest.batches
    assert resumed.info["read"] == 64 * fail_at
    assert same(resumed, fresh)
    assert contents(tmp_path / "broken") == contents(tmp_path / "fresh")


class Backwards:
    """An executor whose first items finish last, and that stops after `done` of them."""

    def __init__(self, done):
        self.done = done

    def as_completed(self, fn, items):
        for item in list(items)[::-1][: self.done]:
            yield item, fn(item, jax.local_devices()[0])
        raise KeyboardInterrupt


@pytest.mark.parametrize("series", [False, True])
def test_batches_that_finished_behind_a_missing_one_survive_an_interrupt(tmp_path, series):
    """Those after the first unfinished batch of a shard were simulated again."""
    make = WithSeries if series else Counting
    fresh = sample(tmp_path / "fresh", n=512, batch_size=512, sim=make(), series=series)
    for done in (3, 2, 2):  # in pieces, none of which finishes the first batch
        with pytest.raises(KeyboardInterrupt):
            sample(tmp_path / "s", n=512, batch_size=512, sim=make(), series=series, executor=Backwards(done))
    assert len(list((tmp_path / "s").glob("batch-*.npz"))) == 7
    with pytest.raises(ValueError, match="holds no finished draws yet"):
        npz.load(tmp_path / "s")
    rest = make()
    draws = sample(tmp_path / "s", n=512, batch_size=512, sim=rest, series=series)
    assert draws.info["simulated"] == 64
    assert draws.info["read"] == 448
    assert same(draws, fresh)
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


def test_a_damaged_early_batch_is_simulated_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "s", n=512, batch_size=512, sim=Counting(), executor=Backwards(3))
    _flip(tmp_path / "s" / "batch-000006.npz")
    with pytest.warns(UserWarning, match=r"set aside as batch-000006\.npz\.corrupt"):
        draws = sample(tmp_path / "s", n=512, batch_size=512, sim=Counting())
    assert draws.info["simulated"] == 6 * 64
    assert same(draws, sample(None, n=512, sim=Counting()))


class Failing(Counting):
    """Fails in one batch of draws, whichever is run when."""

    def batch(self, theta, keys):
        x = self.run(theta, keys)
        if not getattr(self, "mended", False) and np.any(
            np.asarray(keys == jax.random.split(jax.random.fold_in(KEY, 130))[1])
        ):
            raise FloatingPointError
        return x


@pytest.mark.parametrize("executor", [Local(), Local(tuple(jax.local_devices()[:1] * 3)), Local(workers=2)])
def test_a_run_in_pieces_of_any_executor_loses_no_finished_batch(tmp_path, executor, monkeypatch):
    """What an executor had finished when a batch failed, or when the disk was full, is not run again."""
    ran = []
    add = schedule.Schedule.hold
    monkeypatch.setattr(
        schedule.Schedule, "hold", lambda self, batch, rows: ran.append(batch) or add(self, batch, rows)
    )
    with pytest.raises(FloatingPointError):
        sample(tmp_path / "s", n=640, sim=Failing(), batch_size=640, executor=executor)
    finished = len(ran)
    assert 2 not in ran
    mended = Failing()
    mended.mended = True
    draws = sample(tmp_path / "s", n=640, sim=mended, batch_size=640)
    assert draws.info["read"] == 64 * finished
    assert len(ran) == 10
    assert same(draws, sample(None, n=640, sim=Counting()))


def test_what_runs_while_a_shard_cannot_be_written_is_kept_once_it_can(tmp_path, monkeypatch):
    devices = tuple(jax.local_devices()[:1] * 2)
    counted, real = Counting(), Store.write

    def full(self, shard, rows):
        monkeypatch.setattr(Store, "write", real)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(OSError, match="No space left"):
        sample(tmp_path / "s", n=640, sim=counted, executor=Local(devices))
    rest = Counting()
    assert same(sample(tmp_path / "s", n=640, sim=rest), sample(None, n=640, sim=Counting()))
    assert counted.batches + rest.batches == 10


def test_more_draws_append_and_fewer_read(tmp_path):
    fresh = sample(tmp_path / "fresh", n=600)
    first, more, fewer = Counting(), Counting(), Counting()
    sample(tmp_path / "grown", n=150, sim=first)
    assert same(sample(tmp_path / "grown", n=600, sim=more), fresh)
    assert (first.batches, more.batches) == (3, 7)
    few = sample(tmp_path / "grown", n=70, sim=fewer)
    assert fewer.batches == 0
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
    assert again.batches == 2
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


def test_a_terminal_and_a_log_file_have_one_fingerprint(monkeypatch):
    """JAX colours the text of a program in terminals and notebooks: batch jobs were refused the stores begun there."""

    theta = {"g": jnp.array(1.0)}

    def fingerprint():
        return traced(lambda theta, key: jnp.sin(theta["g"]) + jax.random.normal(key, (2,)), theta, KEY)[0]

    plain = fingerprint()
    monkeypatch.setattr("jax._src.pretty_printer.CAN_USE_COLOR", True)  # decided when it is imported
    assert "\x1b[" in str(jax.make_jaxpr(jnp.sin)(1.0))
    assert fingerprint() == plain


def test_the_names_of_jitted_functions_inside_a_program_do_not_count():
    """JAX prints them, and breaks lines by their length: a renamed helper was another study."""

    def program(name, factor):
        helper = lambda x: jnp.where(x > 0, factor * x, x)  # noqa: E731
        helper.__name__ = name
        jitted = jax.jit(helper)
        simulator = lambda theta, key: jitted(theta["g"]) + jitted(2 * theta["g"])  # noqa: E731
        simulator.__name__ = name
        return traced(jax.jit(simulator), {"g": jnp.ones(3)}, KEY)[0]

    assert program("f", 2.0) == program("a_name_that_is_longer_than_a_line_of_the_text_that_jax_prints" * 2, 2.0)
    assert program("f", 2.0) != program("f", 3.0)


def test_another_precision_is_another_study(tmp_path):
    sample(tmp_path / "s", n=64)
    study = Store.of(tmp_path / "s").study
    now = study["dtype"]
    write_head(tmp_path / "s" / "manifest.json", DRAWS, {**study, "dtype": "float16"})
    with pytest.raises(ValueError, match=f'dtype: the store has "float16", this call has "{now}"'):
        sample(tmp_path / "s", n=64)


def test_other_versions_warn_and_another_format_refuses(tmp_path, monkeypatch):
    sample(tmp_path / "s", n=64)
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    with monkeypatch.context() as patch:
        patch.setattr(npz, "versions", lambda *_: {**manifest["versions"], "jaxlib": "0.0.1"})
        write_head(tmp_path / "s" / "manifest.json", DRAWS, manifest["study"])
    with pytest.warns(UserWarning, match=r"jaxlib 0\.0\.1 -> .*to rounding only"):
        sample(tmp_path / "s", n=64)
    path.write_text(json.dumps({**manifest, "format": 7}))
    with pytest.raises(ValueError, match=r"has format 7.*reads format 2"):
        sample(tmp_path / "s", n=64)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"no readable manifest\.json; give another folder"):
        npz.load(tmp_path / "s")


def test_a_simulator_that_broke_before_its_first_shard_can_be_mended_in_place(tmp_path):
    with pytest.raises(FloatingPointError):
        sample(tmp_path / "s", n=64, sim=Counting(fail_at=0, error=FloatingPointError))
    assert len(sample(tmp_path / "s", n=64)) == 64


def test_the_store_is_kept_and_readable_when_every_draw_fails(tmp_path):
    with pytest.raises(RuntimeError, match=r"all 64 draws failed.*vb\.load"):
        sample(tmp_path / "s", n=64, sim=lambda theta, key: jnp.full(2, jnp.nan) * theta["g"])
    draws = npz.load(tmp_path / "s")
    assert len(draws) == 64
    assert not draws.valid.any()
    np.testing.assert_array_equal(draws.theta["g"], sample(None, n=64).theta["g"])


def test_load_reads_a_store_without_its_simulator(tmp_path):
    draws = sample(tmp_path / "s", n=256, sim=Counting())
    found = npz.load(tmp_path / "s")
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


def test_a_manifest_that_was_changed_is_noticed_and_written_again_by_its_own_study(tmp_path):
    """A digit changed by hand, or by a bad disk, was once believed: `vb.load` gave the draws under other names."""
    sample(tmp_path / "s", sim=Counting())
    path = tmp_path / "s" / "manifest.json"
    good = path.read_text()
    for damaged in (good.replace('"one"', '"uno"'), good.replace("jaxlib", "jaxLib"), good[:-40], ""):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"make the call that began this store once more"):
            npz.load(tmp_path / "s")
        with pytest.raises(ValueError, match=r"make the call that began this store once more"):
            sample(tmp_path / "s", sim=Counting(), key=jax.random.key(4))
        with pytest.warns(UserWarning, match="are of this study: it was written again"):
            assert sample(tmp_path / "s", sim=Counting()).info["simulated"] == 0
        assert path.read_text() == good


def test_a_shard_of_another_study_is_not_taken_for_ones_own(tmp_path):
    """Two studies that differ in nothing but the prior have shards of the same name and size."""
    sample(tmp_path / "mine")
    sample(tmp_path / "other", prior=make_prior(3.5))
    (tmp_path / "mine" / "shard-000001.npz").write_bytes((tmp_path / "other" / "shard-000001.npz").read_bytes())
    with pytest.raises(ValueError, match=r"is of another study than .* says: delete it"):
        npz.load(tmp_path / "mine")
    with pytest.warns(UserWarning, match=r"is of another study than .* says: delete it"):
        assert same(sample(tmp_path / "mine"), sample(None))


def test_the_shards_of_a_new_store_grow_with_n_and_an_old_one_keeps_its_own(tmp_path):
    run = lambda n, store: simulate_store(  # noqa: E731
        make_prior(), simulator, n, key=KEY, store=store, progress=False, part=(1, 200)
    )
    assert run(16_384, tmp_path / "small").batch_size == 64
    assert run(16_385, tmp_path / "medium").batch_size == 128
    assert run(100_000, tmp_path / "large").batch_size == 512
    assert run(100_000, tmp_path / "small").batch_size == 64


@pytest.mark.parametrize("of", [2, 3])
def test_the_parts_of_an_array_job_make_the_store_of_one_run_in_any_order(tmp_path, of):
    sample(tmp_path / "whole", n=1_000)
    options = {"key": KEY, "store": tmp_path / "parts", "batch_size": 128, "progress": False}
    for i in range(of, 0, -1):
        status = simulate_store(make_prior(), simulator, 1_000, part=(i, of), **options)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    draws = sample(None, n=1_000)
    assert status.draws == 16 * 64
    assert status.shards == 8
    assert status.failed == int(np.sum(~npz.load(tmp_path / "whole").valid))
    assert 0 < status.failed < 200
    assert np.array_equal(npz.load(tmp_path / "parts").x[:1_000], draws.x, equal_nan=True)


@pytest.mark.parametrize("part", [(0, 2), (3, 2), (-1, 2), (True, 2)])
def test_a_part_that_is_none(tmp_path, part):
    with pytest.raises(ValueError, match=r"expected \(i, of\) with 1 <= i <= of, such as part=\(1, 8\)"):
        simulate_store(make_prior(), simulator, 100, key=KEY, store=tmp_path / "s", part=part)


def test_a_shard_that_another_process_works_on_is_left_to_it_and_then_read(tmp_path, monkeypatch):
    """The other one is played by claims that are refused until its shard appears."""
    sample(tmp_path / "whole", n=512, sim=Counting())
    sample(tmp_path / "s", n=64, sim=Counting(), batch_size=128)
    (tmp_path / "s" / "shard-000000.npz").unlink()
    refused = []

    def acquire(self, shard):
        if shard == 2 and len(refused) < 3:
            refused.append(shard)
            if len(refused) == 3:
                (tmp_path / "s" / "shard-000002.npz").write_bytes(
                    (tmp_path / "whole" / "shard-000002.npz").read_bytes()
                )
            return False
        return True

    monkeypatch.setattr(Claims, "acquire", acquire)
    counted = Counting()
    draws = sample(tmp_path / "s", n=512, sim=counted)
    assert len(refused) == 3
    assert counted.batches == 6
    assert same(draws, sample(None, n=512, sim=Counting()))
    assert draws.info["read"] == 128


def test_a_longer_shard_is_never_replaced_by_a_shorter_one(tmp_path):
    """Two runs of different length on a file system without locks."""
    sample(tmp_path / "s", n=128)
    long = contents(tmp_path / "s")
    study = Store.of(tmp_path / "s").study
    store = Store.open(tmp_path / "s", study)
    rows = store.read(0)
    store.write(0, {name: value[:64] for name, value in rows.items()})
    assert contents(tmp_path / "s") == long


def test_merged_stores_are_the_store_of_one_run(tmp_path):
    sample(tmp_path / "whole", n=1_000)
    options = {"key": KEY, "batch_size": 128, "progress": False}
    for i in (1, 2, 3):
        simulate_store(make_prior(), simulator, 1_000, part=(i, 3), store=tmp_path / str(i), **options)
    sample(tmp_path / "short", n=64)
    status = merge_stores(tmp_path / "all", tmp_path / "short", *(tmp_path / str(i) for i in (3, 1, 2)))
    assert status.draws == 1_024
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")
    sample(tmp_path / "other", n=64, key=jax.random.key(4))
    with pytest.raises(ValueError, match=r"key 'words'(.|\n)*Draws\.concatenate"):
        merge_stores(tmp_path / "all", tmp_path / "1", tmp_path / "other")
    with pytest.raises(ValueError, match="another study"):
        merge_stores(tmp_path / "all", tmp_path / "other")
    with pytest.raises(ValueError, match="nothing to merge"):
        merge_stores(tmp_path / "all")
    assert contents(tmp_path / "all") == contents(tmp_path / "whole")


class WithSeries(Counting):
    """Keeps what the summary was made of: x is the mean over time of y `[T, 2]`."""

    both = staticmethod(jax.jit(jax.vmap(lambda theta, key: theta["g"] + jax.random.normal(key, (5, 2)))))

    def batch(self, theta, keys):
        return self.batch_series(theta, keys)[0]

    def batch_series(self, theta, keys):
        if self.batches == self.fail_at:
            raise self.error
        self.batches += 1
        y = self.both(theta, keys)
        return y.mean(axis=1), y


def test_recordings_lie_beside_their_draws_whether_interrupted_or_not(tmp_path):
    sample(tmp_path / "fresh", n=400, sim=WithSeries(), series=True)
    for fail_at in (0, 1, 3, 2):
        with pytest.raises(KeyboardInterrupt):
            sample(tmp_path / "s", n=400, sim=WithSeries(fail_at), series=True)
    draws = sample(tmp_path / "s", n=400, sim=WithSeries(), series=True)
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")
    y = np.concatenate([part["y"] for part in load_series(tmp_path / "s")])
    assert y.shape == (448, 5, 2)
    np.testing.assert_allclose(y[:400].mean(axis=1), draws.x, rtol=1e-5)
    with pytest.raises(ValueError, match=r"series: the store has true, this call has nothing"):
        sample(tmp_path / "s", n=400, sim=WithSeries())


def test_a_damaged_recording_is_noticed_when_it_is_read_and_a_missing_one_is_made_again(tmp_path):
    sample(tmp_path / "s", n=256, sim=WithSeries(), series=True)
    good = contents(tmp_path / "s")
    (tmp_path / "s" / "series-000001.npz").unlink()
    with pytest.warns(UserWarning, match="made again"):
        assert sample(tmp_path / "s", n=256, sim=WithSeries(), series=True).info["simulated"] == 128
    again = contents(tmp_path / "s")
    again.pop("shard-000001.npz.corrupt")
    assert again == good
    _flip(tmp_path / "s" / "series-000000.npz")
    with pytest.raises(ValueError, match=r"series-000000\.npz"):
        list(load_series(tmp_path / "s"))


def test_recordings_that_cannot_be_kept(tmp_path):
    with pytest.raises(ValueError, match="give store=, a folder"):
        sample(None, sim=WithSeries(), series=True)
    with pytest.raises(ValueError, match="only makes summaries"):
        sample(tmp_path / "s", sim=Counting(), series=True)
    sample(tmp_path / "t", n=64)
    with pytest.raises(ValueError, match=r"keeps no recordings; simulate it with series=True"):
        load_series(tmp_path / "t")


def test_the_status_of_a_store_counts_what_is_there(tmp_path):
    draws = sample(tmp_path / "s", n=600)
    status = StoreStatus.of(tmp_path / "s")
    held = npz.load(tmp_path / "s")
    assert (status.draws, status.shards, status.batch_size, status.features) == (640, 5, 128, 2)
    assert status.failed == int(np.sum(~held.valid)) >= int(np.sum(~draws.valid)) > 0
    assert status.bytes == sum(path.stat().st_size for path in (tmp_path / "s").glob("*.npz"))
    assert "640 draws" in str(status)
    with pytest.raises(ValueError, match=r"no readable manifest\.json"):
        StoreStatus.of(tmp_path)


def test_a_batch_of_the_simulators_own(tmp_path):
    """A slow simulator asks for short batches: what is in flight when it is interrupted is what is lost."""

    class Short(Counting):
        batch_width = 5
        run = staticmethod(jax.jit(jax.vmap(simulator)))

    broken = Short(3)
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "s", n=23, sim=broken, batch_size=10)
    assert len(npz.load(tmp_path / "s")) == 15
    draws = sample(tmp_path / "s", n=23, sim=Short(), batch_size=10)
    assert draws.info["read"] == 15
    assert same(draws, sample(None, n=23, batch_size=10, sim=Short()))
    np.testing.assert_allclose(draws.x, sample(None, n=23, sim=Counting()).x, rtol=1e-6)
    with pytest.raises(ValueError, match="write a multiple of 5: batch_size=15"):
        sample(tmp_path / "s", n=23, sim=Short(), batch_size=12)


def test_what_cannot_fit_is_refused_after_the_first_batch_which_is_kept(tmp_path, monkeypatch):
    from vbinfer.execute import resources

    monkeypatch.setattr(resources.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 9_000})())
    counted = Counting()
    with pytest.raises(RuntimeError, match=r"640 draws x \(2 features \+ 2 parameters\) x 4 bytes = 10 kB; 9\.0 kB"):
        sample(tmp_path / "s", sim=counted)
    assert counted.batches == 1
    assert len(npz.load(tmp_path / "s")) == 64
    with pytest.raises(RuntimeError, match=r"and 640 recordings x 40 bytes = 26 kB"):
        sample(tmp_path / "t", sim=WithSeries(), series=True)
    monkeypatch.setattr(resources, "_rooms", lambda: iter([(9_000, "a limit")]))
    counted = Counting()
    with pytest.raises(RuntimeError, match=r"9\.0 kB of memory available \(a limit\)\. Keep the draws on disk"):
        sample(None, sim=counted)
    assert counted.batches == 1


def test_a_store_that_somebody_works_on_is_not_begun_anew_by_another_study(tmp_path):
    """Its manifest was replaced while the first shard of its owner ran, and the owner's draws were lost."""
    mine = {"study": 1, "batch_size": 64}
    code = (
        "import sys; from vbinfer.draws.store import Store; "
        "store = Store.open(sys.argv[1], {'study': 1, 'batch_size': 64}); print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "open\n"
    with pytest.raises(ValueError, match=r"study: the store has 1, this call has 2"):
        Store.open(tmp_path / "s", {**mine, "study": 2})
    Store.open(tmp_path / "s", mine).claims.close()
    other.communicate()
    Store.open(tmp_path / "s", {**mine, "study": 2}).claims.close()  # nobody is there any more, and no draws are
    assert Store.of(tmp_path / "s").study["study"] == 2


def test_on_a_file_system_without_locks_a_study_notices_that_its_store_was_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(Claims, "_lock", lambda self, byte, how: True)
    store = Store.open(tmp_path / "s", {"study": 1, "batch_size": 64})
    Store.open(tmp_path / "s", {"study": 2, "batch_size": 64})
    with pytest.raises(ValueError, match=r"another study was begun in .* while this one ran"):
        store.write(0, {"x": np.zeros((64, 2))})


def test_two_that_find_the_same_damaged_shard_do_not_trip_over_each_other(tmp_path):
    """Whoever came second once crashed, or set the good new shard aside."""
    sample(tmp_path / "s", sim=Counting())
    _flip(tmp_path / "s" / "shard-000001.npz")
    store = Store.open(tmp_path / "s", Store.of(tmp_path / "s").study)
    assert store.read(1) is None  # without the claim nothing is moved
    assert (tmp_path / "s" / "shard-000001.npz").exists()
    with pytest.warns(UserWarning, match="set aside"):
        assert store.read(1, mend=True) is None
    assert store.read(1, mend=True) is None


def test_a_batch_that_changed_before_the_first_shard_gives_all_draws(tmp_path):
    """The shard width of the store that was never filled was kept: 84 draws came of 100 that were asked for."""

    class Wide(Counting):
        batch_width = 16

    class Narrow(Counting):
        batch_width = 12

    with pytest.raises(FloatingPointError):
        sample(tmp_path / "s", n=100, sim=Wide(0, FloatingPointError), batch_size=None)
    draws = sample(tmp_path / "s", n=100, sim=Narrow(), batch_size=None)
    assert len(draws) == 100
    assert same(draws, sample(None, n=100, sim=Narrow(), batch_size=None))


def test_a_proposal_has_draws_for_the_whole_of_the_last_batch():
    """1,024 draws in batches of 48 need 1,056 of them."""

    class Odd(Counting):
        batch_width = 48

    prior = make_prior()
    draws = sample(None, n=1_024, sim=Odd(), batch_size=None, proposal=prior)
    assert len(draws) == 1_024
    assert same(draws, sample(None, n=1_024, sim=Counting(), batch_size=None, proposal=prior))


def test_python_called_from_a_program_needs_a_fingerprint(tmp_path):
    """What a callback does is not in the program: a store went on with another factor in it."""

    def simulator(theta, key):
        x = theta["g"] * SCALE
        return jax.pure_callback(lambda x: 3.0 * x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.raises(TypeError, match=r"calls Python by jax\.pure_callback.*give it a method fingerprint\(\)"):
        sample(tmp_path / "s", sim=simulator)


def test_a_setting_that_changes_numbers_is_part_of_the_study_and_reaches_threads(tmp_path):
    """Half of a store was once made with one random generator and half with another."""
    sample(tmp_path / "s", n=128)
    now = jax.config.jax_threefry_partitionable
    devices = tuple(jax.local_devices()[:1] * 2)
    with jax.threefry_partitionable(not now):
        with pytest.raises(ValueError, match=r"settings 'jax_threefry_partitionable': the store has"):
            sample(tmp_path / "s", n=256)
        one, two = sample(None, n=256), sample(None, n=256, executor=Local(devices))
    assert same(one, two)
    assert not same(one, sample(None, n=256))


def test_recordings_that_are_fewer_than_their_draws_are_noticed(tmp_path):
    sample(tmp_path / "s", n=64, sim=WithSeries(), series=True)
    short = (tmp_path / "s" / "series-000000.npz").read_bytes()
    sample(tmp_path / "s", n=128, sim=WithSeries(), series=True)
    (tmp_path / "s" / "series-000000.npz").write_bytes(short)
    with pytest.raises(ValueError, match=r"series-000000\.npz does not hold"):
        list(load_series(tmp_path / "s"))
    (tmp_path / "s" / "series-000000.npz").unlink()
    with pytest.raises(ValueError, match=r"is missing; make the call that filled this store once more"):
        list(load_series(tmp_path / "s"))


def test_a_merge_leaves_its_sources_as_they_are_and_mends_the_target(tmp_path):
    sample(tmp_path / "a", n=256)
    sample(tmp_path / "b", n=256)
    _flip(tmp_path / "a" / "shard-000001.npz")
    source = contents(tmp_path / "a")
    with pytest.raises(ValueError, match=r"shard-000001\.npz is damaged"):
        merge_stores(tmp_path / "c", tmp_path / "a")
    assert contents(tmp_path / "a") == source
    with pytest.warns(UserWarning, match="set aside"):
        assert merge_stores(tmp_path / "a", tmp_path / "b").draws == 256
    assert same(npz.load(tmp_path / "a"), npz.load(tmp_path / "b"))
