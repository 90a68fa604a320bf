"""Worker processes: the same store as without, nothing lost when one dies, and nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute.executor import Local
from vbinfer.priors.prior import Prior

PRIOR = Prior({"g": dist.Uniform(1.0, 3.0), "m": dist.Normal(-2.0, 0.5).expand([2])})
KEY = jax.random.key(11)
posix = pytest.mark.skipif(os.name != "posix", reason="signals")


def simulator(theta, key):
    """Long sums and a product, whose last bits depend on the number of threads unless something is done about it."""
    v = theta["g"] + 0.3 * jax.random.normal(key, (94, 47))
    return jnp.stack([v.mean(), v.std(), jnp.exp(v).sum(), (v.T @ v).sum(), jnp.where(theta["g"] > 2.9, jnp.nan, 1.0)])


def sample(store, n=320, executor=None, sim=simulator, **options):
    return sample_prior_predictive(
        PRIOR, sim, n, key=KEY, store=store, executor=executor, progress=False, **{"batch_size": 128, **options}
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".npz", ".json")}


def test_a_store_begun_here_and_finished_by_workers_is_the_one_made_here_bit_for_bit(tmp_path):
    fresh = sample(tmp_path / "fresh", n=520)
    sample(tmp_path / "grown", n=200)
    grown = sample(tmp_path / "grown", n=520, executor=Local(workers=2))
    assert contents(tmp_path / "grown") == contents(tmp_path / "fresh")
    assert (grown.info["read"], grown.info["simulated"]) == (256, 320)
    assert 0 < fresh.valid.sum() < 520
    assert np.array_equal(grown.x, fresh.x, equal_nan=True)


def where(item, device):
    """All that a worker should have from its parent, and what should be its own."""
    mine = (os.getpid(), jax.local_device_count(), device.platform, os.environ["OMP_NUM_THREADS"])
    cores = tuple(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
    settings = (jax.config.jax_enable_x64, jax.config.jax_default_prng_impl, str((jnp.ones(()) / 3).dtype))
    time.sleep(0.2)  # so that one worker does not do all before the other has started
    return item**2, mine, cores, settings


def test_workers_have_a_core_each_and_the_settings_of_the_thread_that_asked():
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        found = list(Local(workers=2).map(where, range(60)))
    squares, mine, cores, settings = zip(*found, strict=True)
    assert squares == tuple(i**2 for i in range(60))
    assert set(settings) == {(True, "rbg", "float64")}
    assert {entry[1:] for entry in mine} == {(1, "cpu", "1")}
    assert len({entry[0] for entry in mine} - {os.getpid()}) == 2
    if hasattr(os, "sched_getaffinity"):
        assert {len(one) for one in cores} == {1}
        assert len(set(cores)) == min(2, len(os.sched_getaffinity(0)))


def test_threads_have_the_precision_of_the_one_that_asked():
    device = jax.local_devices()[0]
    with jax.enable_x64(True):
        found = list(Local((device, device)).map(lambda i, device: str((jnp.ones(()) / (i + 1)).dtype), range(5)))
    assert found == ["float64"] * 5


class TooBig(ValueError):
    """An error of a simulator, with a constructor that pickle alone cannot call."""

    def __init__(self, item, limit):
        super().__init__(f"item {item} is above {limit}")


class Odd(ValueError):
    def __init__(self, item):
        super().__init__(f"item {item} is odd")

    def __reduce__(self):
        return Odd, (self.args[0].split()[1],)


def refuse(error):
    def fn(item, device):
        if item == 4:
            raise error(item) if error is Odd else error(item, 3)
        if item > 4:
            time.sleep(0.1)  # the error has five seconds to arrive before too many are begun
        return item

    return fn


@pytest.mark.parametrize(("error", "caught"), [(Odd, Odd), (TooBig, RuntimeError)])
def test_an_error_of_the_simulator_arrives_with_its_message_after_what_was_begun(error, caught):
    done = []
    with pytest.raises(caught, match=r"item 4 is (odd|above 3)") as info:
        done.extend(i for i, _ in Local(workers=2).as_completed(refuse(error), range(100)))
    assert set(range(4)) <= set(done)
    assert 4 not in done
    assert len(done) < 52
    note = "".join(info.value.__notes__)
    assert "raised in worker" in note
    assert "in fn" in note


def deadly(folder, times):
    """A function whose item 3 kills its process the first `times` times."""

    def fn(item, device):
        if item == 3 and len(list(folder.iterdir())) < times:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return 10 * item

    return fn


@posix
def test_the_items_of_a_killed_worker_are_done_by_the_other_and_the_error_names_it(tmp_path):
    done = {}
    with pytest.raises(RuntimeError, match=r"worker \d \(process \d+.*died: .*SIGKILL.*memory.*store="):
        done.update(_into(done, Local(workers=2).as_completed(deadly(tmp_path, 1), range(1000))))
    assert len(list(tmp_path.iterdir())) == 1
    assert set(range(4)) <= set(done)
    assert sorted(done) == list(range(len(done)))  # no gap where it died
    assert len(done) < 20
    assert done == {i: 10 * i for i in done}


def _into(done, results):
    for position, result in results:
        done[position] = result
    return done


@posix
@pytest.mark.faults
def test_an_item_that_kills_whoever_runs_it_kills_two_and_not_all(tmp_path):
    done = {}
    with pytest.raises(RuntimeError, match=r"item 3 ended two workers; .*SIGKILL.*store="):
        _into(done, Local(workers=3).as_completed(deadly(tmp_path, 99), range(1000)))
    assert len(list(tmp_path.iterdir())) == 2
    assert 3 not in done
    assert {0, 1, 2} <= set(done)


def test_what_cannot_be_sent_is_refused_before_anything_starts():
    lock = threading.Lock()

    def locked(theta, key):
        with lock:
            return theta["m"]

    with pytest.raises(TypeError, match=r"cannot be sent to a worker process \(.*lock.*write executor=vb\.Local\(\)"):
        sample(None, executor=Local(workers=2), sim=locked)


def test_a_module_that_no_other_process_has_is_an_error_that_says_so(monkeypatch):
    module = types.ModuleType("made_here")
    exec("def square(item, device):\n    return item**2", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_here", module)
    with pytest.raises(TypeError, match=r"could not be loaded there \(.*made_here.*Define it in"):
        list(Local(workers=1).map(module.square, [1, 2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, r"workers=0 was given; expected a positive whole number, such as workers=4"),
        ({"workers": True}, "workers=True was given"),
        ({"workers": 2, "devices": jax.local_devices()}, "devices and workers were given"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        Local(**options)


def test_nothing_to_do_starts_nothing(monkeypatch):
    monkeypatch.setattr("loky.ProcessPoolExecutor", lambda *args, **options: pytest.fail("a process was started"))
    assert list(Local(workers=2).map(where, [])) == []


SCRIPT = """
import os, sys, time
import jax, jax.numpy as jnp, numpyro.distributions as dist
import vbinfer as vb

print("begun", flush=True)
SHIFT = jnp.arange(3.0)
OTHER = jax.random.key(5)

def simulator(theta, key):
    return theta["g"] + SHIFT + jax.random.normal(key, (3,)) + jax.random.normal(OTHER, (3,))

class Slow:
    names = ("a", "b", "c")
    run = staticmethod(jax.jit(jax.vmap(simulator)))
    def __call__(self, theta, key):
        return simulator(theta, key)
    def batch(self, theta, keys):
        open(os.path.join(sys.argv[2], str(os.getpid())), "w").close()
        time.sleep(float(sys.argv[1]))
        return self.run(theta, keys)

sys.argv = ["script", %r, %r]
prior = vb.Prior({"g": dist.Normal(1.0, 2.0)})
there = vb.sample_prior_predictive(
    prior, Slow() if float(sys.argv[1]) else simulator, n=%d, key=jax.random.key(0),
    executor=vb.Local(workers=2), store=%r, batch_size=64, progress=False,
)
here = vb.sample_prior_predictive(prior, simulator, n=130, key=jax.random.key(0), progress=False)
assert (here.x == there.x[:130]).all()
print("ended", flush=True)
"""


def script(folder, pause, n):
    (folder / "pids").mkdir()
    path = folder / "script.py"
    text = SCRIPT % (str(pause), str(folder / "pids"), n, str(folder / "s"))
    path.write_text(text.replace("sys.argv[1]", repr(str(pause))).replace("sys.argv[2]", repr(str(folder / "pids"))))
    return subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_plain_script_without_a_guard_runs_once(tmp_path):
    process = script(tmp_path, 0, 130)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.split() == ["begun", "ended"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@posix
@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent_and_the_run_goes_on_from_the_store(tmp_path, how):
    process = script(tmp_path, 1.0, 64 * 8)
    wait_for(lambda: (tmp_path / "s" / "shard-000001.npz").exists(), 120.0)
    workers = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(workers) == 2
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode != 0
    wait_for(lambda: not any(alive(pid) for pid in workers), 5.0)
    before = contents(tmp_path / "s")
    assert 2 < len(before) < 9  # the manifest and some of eight shards
    (tmp_path / "pids").rename(tmp_path / "old")
    again = script(tmp_path, 0.01, 64 * 8)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    after = contents(tmp_path / "s")
    assert len(after) == 9
    assert before.items() <= after.items()


@posix
@pytest.mark.faults
def test_a_worker_killed_from_outside_costs_no_finished_draw(tmp_path):
    process = script(tmp_path, 1.0, 64 * 30)
    wait_for(lambda: (tmp_path / "s" / "shard-000001.npz").exists(), 120.0)
    first, other = (int(path.name) for path in (tmp_path / "pids").iterdir())
    os.kill(first, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"(process {first}" in err
    assert "call again with the same store= to go on" in err
    assert not alive(other)
    shards = sorted(path.name for path in (tmp_path / "s").glob("shard-*.npz"))
    assert 3 <= len(shards) < 30
    assert shards == [f"shard-{i:06d}.npz" for i in range(len(shards))]


def test_a_whole_brain_study_is_the_same_in_workers_bit_for_bit():
    """The mean of 4,371 correlations is a sum that XLA splits over the threads it has, if it is left to."""
    import vbinfer as vb

    sim = vb.Simulator(
        vb.models.ReducedWongWang(w=0.6, I_o=0.33),
        vb.load_connectome("hcp-aal2"),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=2.0),
        noise=vb.noise.Additive(sigma=0.01),
        monitors={"bold": vb.monitors.BalloonWindkessel("S", period=40.0)},
    )
    forward = vb.ForwardModel(
        sim,
        t1=400.0,
        summary=vb.Summary(period=40.0, fc=vb.features.fc_stat),
        observe=lambda theta, y, key: y + 1e-4 * jax.random.normal(key, y.shape),
    )
    prior = vb.Prior({"coupling.G": dist.Uniform(0.0, 0.5)})
    here, there = (
        sample_prior_predictive(prior, forward, n=128, key=KEY, executor=executor, progress=False)
        for executor in (Local(), Local(workers=1))
    )
    assert here.names == there.names
    unequal = [name for i, name in enumerate(here.names) if not np.array_equal(here.x[:, i], there.x[:, i])]
    assert unequal == []
