"""Dask: the same store as without it, whoever runs the batches, and whoever dies."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import dask
import distributed
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute import dask as dask_executor
from vbinfer.execute import dask_worker
from vbinfer.execute.dask import Dask
from vbinfer.execute.executor import Executor, Local
from vbinfer.execute.options import deterministic_xla
from vbinfer.priors.prior import Prior

PRIOR = Prior({"g": dist.Uniform(1.0, 3.0), "m": dist.Normal(-2.0, 0.5).expand([2])})
KEY = jax.random.key(11)
posix = pytest.mark.skipif(os.name != "posix", reason="signals")


def simulator(theta, key):
    """Long sums and a product, whose last bits depend on the number of threads unless something is done about it."""
    v = theta["g"] + theta["m"][1] * jax.random.normal(key, (94, 47))
    return jnp.stack([v.mean(), v.std(), jnp.exp(v).sum(), (v.T @ v).sum(), jnp.where(theta["g"] > 2.9, jnp.nan, 1.0)])


def sample(store, n=320, executor=None, sim=simulator, **options):
    return sample_prior_predictive(
        PRIOR, sim, n, key=KEY, store=store, executor=executor, progress=False, **{"batch_size": 128, **options}
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".npz", ".json")}


@pytest.fixture(scope="module")
def two():
    """Two processes of this computer."""
    with Dask(workers=2) as executor:
        yield executor


@contextlib.contextmanager
def in_this_process(n_workers, threads):
    """A cluster that is not ours: its workers share this process, and nothing was set for them."""
    with (
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=threads, processes=False, dashboard_address=":0", memory_limit=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


@pytest.fixture(scope="module")
def threads():
    """The client of a cluster of one worker with two threads."""
    with in_this_process(1, 2) as (_, client):
        yield client


def scheduler_of(executor):
    return executor._open[0][0].cluster.scheduler


def test_a_store_begun_here_and_finished_on_two_clusters_is_the_one_made_here_bit_for_bit(tmp_path, two, threads):
    fresh = sample(tmp_path / "fresh", n=520)
    sample(tmp_path / "grown", n=130)
    middle = sample(tmp_path / "grown", n=300, executor=two)
    grown = sample(tmp_path / "grown", n=520, executor=Dask(threads))
    assert (middle.info["read"], middle.info["simulated"]) == (192, 128)
    assert (grown.info["read"], grown.info["simulated"]) == (320, 256)
    assert len(contents(tmp_path / "fresh")) == 6
    assert contents(tmp_path / "grown") == contents(tmp_path / "fresh")
    assert 0 < fresh.valid.sum() < 520
    assert np.array_equal(grown.x, fresh.x, equal_nan=True)


def test_one_worker_for_one_call_makes_that_store_too(tmp_path):
    sample(tmp_path / "here")
    sample(tmp_path / "there", executor=Dask(workers=1))
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_draws_of_a_proposal_are_the_same_too(two):

    def plain(theta, key):
        return theta["m"] + theta["g"] * jax.random.normal(key, (2,))

    here, there = (sample(None, n=130, executor=e, sim=plain, proposal=Narrow()) for e in (Local(), two))
    assert np.array_equal(here.log_q, there.log_q)
    assert np.array_equal(here.theta["m"], there.theta["m"])
    assert np.array_equal(here.x, there.x)
    assert np.ptp(here.theta["g"]) < 0.6


class Narrow:
    """theta from a corner of the prior; an object of a test, which workers do not have."""

    round = 1

    def sample(self, *, key, n):
        k_g, k_m = jax.random.split(key)
        return {"g": jax.random.uniform(k_g, (n,), minval=1.5, maxval=2.0), "m": jax.random.normal(k_m, (n, 2)) - 2.0}

    def log_prob(self, theta):
        inside = (theta["g"] > 1.5) & (theta["g"] < 2.0)
        normal = dist.Normal(-2.0, 1.0).log_prob(theta["m"]).sum(-1)
        return jnp.where(inside, jnp.log(2.0) + normal, -jnp.inf)


def where(item, device):
    """All that a worker should have from its parent, and what should be its own."""
    mine = (os.getpid(), jax.local_device_count(), device.platform, os.environ["OMP_NUM_THREADS"])
    cores = tuple(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
    settings = (jax.config.jax_enable_x64, jax.config.jax_default_prng_impl, str((jnp.ones(()) / 3).dtype))
    time.sleep(0.1)
    return item**2, mine, cores, settings


def test_our_workers_have_a_core_each_and_the_settings_of_the_thread_that_asked(two):
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        squares, mine, cores, settings = zip(*two.map(where, range(20)), strict=True)
    assert squares == tuple(i**2 for i in range(20))
    assert set(settings) == {(True, "rbg", "float64")}
    assert {entry[1:] for entry in mine} == {(1, "cpu", "1")}
    assert len({entry[0] for entry in mine} - {os.getpid()}) == 2
    if hasattr(os, "sched_getaffinity"):
        assert {len(one) for one in cores} == {1}
        assert len(set(cores)) == min(2, len(os.sched_getaffinity(0)))
    assert [entry[3][2] for entry in two.map(where, range(3))] == [str((jnp.ones(()) / 3).dtype)] * 3  # and only then


def test_runs_with_other_settings_share_a_worker_without_taking_each_others(threads):
    """Settings of a process would be those of whoever came last; one worker serves two threads here."""
    seen = {True: [], False: []}

    def ask(x64):
        with jax.enable_x64(x64):
            seen[x64].extend(entry[3][2] for entry in Dask(threads).map(where, range(9)))

    both = [threading.Thread(target=ask, args=(x64,)) for x64 in seen]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert seen == {True: ["float64"] * 9, False: ["float32"] * 9}


def test_other_users_of_this_computer_cannot_reach_our_scheduler(two):
    """Asked through sockets: a refused `distributed.Client` is closed by the garbage collector, in any thread."""
    address = scheduler_of(two).address
    assert address.startswith("tls://127.0.0.1:")
    place = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(place, timeout=20.0) as plain,
        pytest.raises(ssl.SSLError, match="certificate"),
        nobody.wrap_socket(plain) as secret,
    ):
        secret.recv(1)  # TLS 1.3 refuses with the first answer
    with socket.create_connection(place, timeout=20.0) as plain:
        plain.sendall(bytes(64))
        with contextlib.suppress(ConnectionResetError):
            assert len(plain.recv(1024)) < 16  # an alert of TLS, or nothing; a scheduler would say hello


def test_a_refused_client_is_closed_before_the_error_is_raised(monkeypatch):
    """It was closed by the garbage collector, in a thread that may be the one it waits for: all stood still."""
    made = []

    class Watched(distributed.Client):
        def __init__(self, *args, **options):
            made.append(self)
            super().__init__(*args, **options)

    monkeypatch.setattr(distributed, "Client", Watched)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "500ms"}),
        pytest.raises(ConnectionError, match="no Dask scheduler answers"),
    ):
        list(Dask("tcp://127.0.0.1:9").map(where, [1]))
    assert [client.status for client in made] == ["closed"]


@posix
def test_a_process_of_loky_can_be_killed(two):
    """Dask kills a worker that does not end in time; a loky process had no `kill`, and the cluster stood still."""
    from loky.backend.popen_loky_posix import Popen

    child = subprocess.Popen(["sleep", "60"])
    popen = Popen.__new__(Popen)
    popen.pid, popen.returncode = child.pid, None
    popen.kill()
    assert child.wait(20) == -signal.SIGKILL
    popen.kill()  # it is gone


def test_items_and_results_may_be_keys(two):
    keys = [jax.random.key(i, impl="rbg") for i in (3, 5, 8)]
    found = list(two.map(lambda key, device: jax.random.fold_in(key, 2), keys))
    assert [jax.random.key_data(key).tolist() for key in found] == [
        jax.random.key_data(jax.random.fold_in(key, 2)).tolist() for key in keys
    ]


class TooBig(ValueError):
    """An error of a simulator, with a constructor that pickle alone cannot call."""

    def __init__(self, item, limit):
        super().__init__(f"item {item} is above {limit}")


def test_an_error_of_the_simulator_arrives_with_its_message_after_what_was_begun(two):
    for raised, caught in ((lambda i: KeyError(f"no item {i}"), KeyError), (lambda i: TooBig(i, 3), RuntimeError)):

        def fn(item, device, raised=raised):
            if item == 4:
                raise raised(item)
            return item

        done = {}
        with pytest.raises(caught, match=r"no item 4|TooBig: item 4 is above 3") as info:
            done.update((i, r) for i, r in noting(two.as_completed(fn, range(1000)), done))
        assert set(range(4)) <= set(done)
        assert 4 not in done
        assert len(done) < 20
        note = "".join(info.value.__notes__)
        assert "raised in worker tls://127.0.0.1" in note
        assert "in fn" in note
        wait_for(lambda: not scheduler_of(two).tasks)  # while the error, which holds frames, is still here


def noting(results, done):
    for position, result in results:
        done[position] = result
        yield position, result


def test_a_million_items_are_taken_as_they_are_needed_and_nothing_of_them_stays(two):
    taken, worst = [], 0

    def items():
        for i in range(1_000_000):
            taken.append(i)
            yield i

    results = two.as_completed(lambda item, device: np.full(1_000, item), items())
    for consumed, (position, result) in enumerate(results, start=1):
        assert (result == position).all()
        time.sleep(0.01)  # a consumer that is slower than the workers
        worst = max(worst, len(taken) - consumed)
        if consumed == 60:
            break
    results.close()
    assert worst <= 2 * 2
    scheduler = scheduler_of(two)
    wait_for(lambda: not scheduler.tasks, 120.0)
    assert [name for name in scheduler.worker_plugins if "vbinfer" in name] == []
    assert list(two.map(lambda item, device: -item, range(3))) == [0, -1, -2]  # and it goes on


def test_a_worker_that_comes_later_gets_the_function_and_no_worker_is_said(monkeypatch):
    monkeypatch.setattr(dask_executor, "PATIENCE", 0.2)
    monkeypatch.setattr(dask_executor, "LOOK", 0.1)
    offset = np.array([7.0, 11.0])
    with in_this_process(0, 1) as (cluster, client):
        timer = threading.Timer(1.5, cluster.scale, (1,))
        timer.start()
        with pytest.warns(UserWarning, match=r"waiting for workers: \S+ has had none for \d+ s.*goes on") as said:
            found = list(Dask(client).map(lambda item, device: item + offset, range(5)))
        timer.join()
    assert len([w for w in said if "waiting for workers" in str(w.message)]) == 1
    assert np.array_equal(found, np.arange(5)[:, None] + offset)


def test_workers_come_and_go_and_every_item_is_done_once():
    def fn(item, device):
        time.sleep(0.03)
        return 3 * item

    done = []
    with in_this_process(2, 1) as (cluster, client):
        for position, result in Dask(client).as_completed(fn, range(60)):
            assert result == 3 * position
            done.append(position)
            if len(done) in (5, 15, 25):
                cluster.scale({5: 1, 15: 3, 25: 1}[len(done)])
    assert sorted(done) == list(range(60))


def test_what_the_cluster_gives_up_is_an_error_and_not_a_wait(monkeypatch):
    monkeypatch.setattr(dask_executor, "PATIENCE", 0.5)
    with in_this_process(1, 1) as (_, client):
        results = Dask(client).as_completed(lambda item, device: time.sleep(0.05), range(100))
        next(results)
        client.restart(wait_for_workers=False)
        with pytest.raises(RuntimeError, match=r"gave up what this run is waiting for .*restarted.*same store="):
            list(results)


def test_other_versions_and_a_worker_without_vbinfer_are_errors_that_say_what_to_do(two, monkeypatch):
    monkeypatch.setattr(dask_worker, "versions", lambda: {"Python": "3.2", "jax": jax.__version__})
    with pytest.raises(RuntimeError, match=r"worker tls://\S+ \(process \d+\) has Python 3\.\d+ instead of 3\.2; the"):
        list(two.map(where, range(2)))
    monkeypatch.undo()
    client = two._open[0][0]
    client.run(lambda: sys.modules.update({"vbinfer.execute.dask_worker": None}))
    try:
        with pytest.raises(RuntimeError, match=r"cannot import .*vbinfer.*start both in an environment that has"):
            list(two.map(where, range(2)))
    finally:
        client.run(lambda: sys.modules.pop("vbinfer.execute.dask_worker"))


def test_what_cannot_be_sent_or_loaded_is_refused(two, monkeypatch):
    lock = threading.Lock()

    def locked(theta, key):
        with lock:
            return theta["m"]

    with pytest.raises(TypeError, match=r"cannot be sent to a worker process \(.*lock.*write executor=vb\.Local\(\)"):
        sample(None, executor=Dask(workers=1), sim=locked)
    module = types.ModuleType("made_here")
    exec("def square(item, device):\n    return item**2", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_here", module)
    with pytest.raises(TypeError, match=r"could not be loaded there \(.*made_here.*Define it in"):
        list(two.map(module.square, [1, 2]))


def test_mistakes(threads):
    for error, message, make in (
        (ValueError, r"Dask\('node7:8786'\) was written; .* Dask\('tcp://host:8786'\)", lambda: Dask("node7:8786")),
        (ValueError, "workers=0 was given; expected a positive whole number", lambda: Dask(workers=0)),
        (ValueError, "ahead=0 was given; expected a positive whole number", lambda: Dask(ahead=0)),
        (
            ValueError,
            r"workers=2 was given together with a client.*cluster\.scale\(2\)",
            lambda: Dask(threads, workers=2),
        ),
        (
            TypeError,
            r"Dask was given a LocalCluster; .* vb\.Dask\(cluster\.get_client\(\)\)",
            lambda: Dask(threads.cluster),
        ),
        (TypeError, r"Dask was given a int; .* write vb\.Dask\(Client\('tcp", lambda: Dask(3)),
    ):
        with pytest.raises(error, match=message):
            make()
    other = distributed.Client(threads.cluster, set_as_default=False)
    other.close()
    with pytest.raises(ValueError, match=r"client that is closed; make another one"):
        Dask(other)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ConnectionError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'.*`dask scheduler`"),
    ):
        list(Dask("tcp://127.0.0.1:9").map(where, [1]))


def test_an_address_will_do_and_the_client_is_closed_afterwards(threads):
    address = threads.scheduler.address
    before = len(threads.cluster.scheduler.clients)
    assert list(Dask(address).map(lambda item, device: item + 0.5, [1, 2])) == [1.5, 2.5]
    wait_for(lambda: len(threads.cluster.scheduler.clients) == before, 120.0)


def test_without_distributed_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install vbinfer\[cluster\], or write executor=vb\.Local"):
        Dask()


def test_nothing_to_do_starts_nothing_and_it_is_an_executor(monkeypatch):
    monkeypatch.setattr("distributed.LocalCluster", lambda *args, **options: pytest.fail("a process was started"))
    assert list(Dask(workers=2).map(where, [])) == []
    assert isinstance(Dask(), Executor)


def test_workers_that_cannot_start_are_an_error_and_not_a_wait(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # no Python can start from here
    with pytest.raises(RuntimeError, match="failed to start"):
        list(Dask(workers=1).map(where, [1]))


SCRIPT = """
import os, time
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
        open(os.path.join({pids!r}, str(os.getpid())), "w").close()
        time.sleep({pause})
        return self.run(theta, keys)

prior = vb.Prior({{"g": dist.Normal(1.0, 2.0)}})
there = vb.sample_prior_predictive(
    prior, Slow() if {pause} else simulator, n={n}, key=jax.random.key(0),
    executor=vb.Dask(workers={workers}), store={store!r}, batch_size=64, progress=False,
)
here = vb.sample_prior_predictive(prior, simulator, n=130, key=jax.random.key(0), progress=False)
assert (here.x == there.x[:130]).all()
print("ended", flush=True)
"""


def script(folder, pause, n, workers=2):
    (folder / "pids").mkdir(exist_ok=True)
    path = folder / "script.py"
    named = {"pids": str(folder / "pids"), "store": str(folder / "s")}
    path.write_text(SCRIPT.format(**named, pause=pause, n=n, workers=workers))
    return subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_plain_script_without_a_guard_runs_once_and_says_nothing(tmp_path):
    process = script(tmp_path, 0, 130, workers=1)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.split() == ["begun", "ended"]
    assert err == ""


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def deadly(folder, times, sim=simulator):
    """The simulator, but the first `times` batches end the process they run in."""

    class Deadly:
        names = ("a", "b", "c", "d", "e")
        run = staticmethod(jax.jit(jax.vmap(sim), compiler_options=deterministic_xla()))

        def __call__(self, theta, key):
            return sim(theta, key)

        def fingerprint(self):
            return "deadly"

        def batch(self, theta, keys):
            for mark in range(times):
                with contextlib.suppress(FileExistsError):
                    (folder / str(mark)).touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)
            return self.run(theta, keys)

    return Deadly()


@posix
@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_whose_workers_are_killed_ends_with_the_same_store(tmp_path, workers):
    marks = tmp_path / "marks"
    marks.mkdir()
    sample(tmp_path / "here", n=640, sim=deadly(marks, 0))
    sample(tmp_path / "there", n=640, sim=deadly(marks, 2), executor=Dask(workers=workers))
    assert len(list(marks.iterdir())) == 2
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@posix
@pytest.mark.faults
def test_killed_workers_of_a_cluster_that_is_not_ours_cost_nothing_either(tmp_path):
    """`LocalCluster` with processes of its own: two threads each, a nanny that starts them again, nothing set."""
    marks = tmp_path / "marks"
    marks.mkdir()
    sample(tmp_path / "here", n=640, sim=deadly(marks, 0))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", silence_logs=50) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        before = set(client.run(os.getpid).values())
        sample(tmp_path / "there", n=640, sim=deadly(marks, 2), executor=Dask(client))
        assert len(before & set(client.run(os.getpid).values())) < 2
    assert len(list(marks.iterdir())) == 2
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@posix
@pytest.mark.faults
def test_an_item_that_kills_whoever_runs_it_is_named_and_all_else_that_was_begun_is_finished():
    """The items that waited behind it saw as many workers die; they are not blamed."""

    def fn(item, device):
        if item == "batch 3":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return item

    done = {}
    with pytest.raises(RuntimeError, match=r"item 'batch 3' ended every worker .* tls://.*memory.*same store="):
        done.update(noting(Dask(workers=2).as_completed(fn, [f"batch {i}" for i in range(1000)]), done))
    assert {*done, "batch 3"} == {f"batch {i}" for i in range(len(done) + 1)}
    assert 3 <= len(done) < 60


@posix
@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent_and_the_run_goes_on_from_the_store(tmp_path, how):
    process = script(tmp_path, 1.0, 64 * 8)
    wait_for(lambda: process.poll() is not None or len(list((tmp_path / "s").glob("shard-*.npz"))) > 1, 120.0)
    assert process.poll() is None, process.communicate()[1]
    workers = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(workers) == 2
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert err.rstrip().endswith("KeyboardInterrupt")
    wait_for(lambda: not any(alive(pid) for pid in workers), 60.0)
    before = contents(tmp_path / "s")
    assert 2 < len(before) < 9  # the manifest and some of eight shards
    again = script(tmp_path, 0.01, 64 * 8)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    after = contents(tmp_path / "s")
    assert len(after) == 9
    assert before.items() <= after.items()
