"""Troubles of the machine: a sentence with a remedy, a store that is whole, and a next run that goes on."""

import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import small_study
from damaging import contents, unclear

import vbinfer as vb
from vbinfer.cli import errors
from vbinfer.cli import main as command
from vbinfer.draws.schedule import Progress
from vbinfer.io import npz

ROOT = Path(__file__).parents[2]
PRIOR = vb.Prior({"g": dist.Uniform(1.0, 3.0)})


def simulator(theta, key):
    return theta["g"] * jnp.array([1.0, 2.0]) + jax.random.normal(key, (2,))


def sample(store, n=320):
    return vb.sample_prior_predictive(
        PRIOR, simulator, n, key=jax.random.key(0), batch_size=64, store=store, progress=False
    )


def shards(folder):
    return {name: content for name, content in contents(folder).items() if name.endswith(".npz")}


def failing(real, number, after):
    """A function of the system that fails from its call number `after` on."""
    calls = []

    def fail(*args, **options):
        calls.append(args)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    return fail


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The store of a run without trouble, and its draws."""
    folder = tmp_path_factory.mktemp("fresh")
    return folder, sample(folder)


@pytest.mark.parametrize(
    ("where", "number", "words"),
    [
        ("fsync", errno.ENOSPC, "no space left on device; free some space, or give another place, and repeat the call"),
        ("replace", errno.EROFS, "read-only file system; give a place that can be written to"),
        ("open", errno.EDQUOT, "disk quota exceeded; free some space"),
        ("fsync", errno.EFBIG, "file too large; raise the limit of this session"),
        ("replace", errno.EIO, "input/output error; mend that, or give another place"),
    ],
)
def test_a_disk_that_fails_half_way_costs_nothing_that_was_finished(fresh, where, number, words, tmp_path, monkeypatch):
    target = {"fsync": "os.fsync", "replace": "os.replace", "open": "builtins.open"}[where]
    real = {"fsync": os.fsync, "replace": os.replace, "open": open}[where]
    with monkeypatch.context() as patch:
        patch.setattr(target, failing(real, number, {"fsync": 7, "replace": 3, "open": 4}[where]))
        with pytest.raises(OSError, match=re.escape(os.strerror(number).lower())) as caught:
            sample(tmp_path / "s")
    assert caught.value.errno == number
    assert words in str(caught.value)
    assert unclear(caught.value, "shard-", "manifest.json") is None
    whole = shards(fresh[0])
    kept = shards(tmp_path / "s")
    assert kept.items() <= whole.items()
    assert not [name for name in contents(tmp_path / "s") if name.endswith(".tmp")]
    assert np.array_equal(sample(tmp_path / "s").x, fresh[1].x)
    assert shards(tmp_path / "s") == whole


def test_a_shard_that_cannot_be_read_now_is_not_a_damaged_one(tmp_path, monkeypatch):
    """Out of file handles, or without permission: nothing is set aside, nothing is simulated again."""
    sample(tmp_path / "s")
    before = contents(tmp_path / "s")
    real = open

    def refuse(path, *args, **options):
        if str(path).endswith("shard-000002.npz"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            sample(tmp_path / "s")
    assert contents(tmp_path / "s") == before


def test_a_new_name_is_on_the_disk_before_a_write_returns(tmp_path, monkeypatch):
    """The bytes are synced before the rename, and the folder after it."""
    done = []
    sync, move = os.fsync, os.replace
    kind = {True: "folder", False: "file"}
    monkeypatch.setattr("os.fsync", lambda fd: (done.append(kind[os.path.isdir(f"/proc/self/fd/{fd}")]), sync(fd))[1])
    monkeypatch.setattr("os.replace", lambda a, b: (done.append("rename"), move(a, b))[1])
    npz.write(tmp_path / "a.npz", "draws", {}, {"x": np.arange(3.0)})
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_during_a_run_changes_no_rate(jump, tmp_path, monkeypatch, capsys):
    began, real = time.monotonic(), time.time
    with Progress(1_000) as bar:
        bar.show(100, 1)
        time.sleep(0.3)
        monkeypatch.setattr("time.time", lambda: real() + jump)
        bar._bar.mininterval = 0.0
        bar.show(200, 1)
        time.sleep(0.3)
        bar.show(300, 1)
        bar._bar.refresh()
    elapsed = time.monotonic() - began
    said = capsys.readouterr().err
    assert "-" not in said.replace("\r", "")
    rates = [float(rate) for rate in re.findall(r"([0-9.]+)draw/s", said)]
    assert 0.5 * 300 / elapsed < rates[-1] < 400 / 0.6
    draws = sample(tmp_path / "s", n=64)
    assert draws.info["seconds"] > 0
    assert draws.info["draws_per_second"] > 0
    assert "-" not in str(vb.stores.StoreStatus.of(tmp_path / "s")).split("draws", 1)[1]


def raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; what was simulated is kept, and the same command goes on"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "nobody reads the output any more; what was finished is kept"),
        (MemoryError(), 1, "the memory is full; use fewer --cores, or close other programs, and repeat"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/runs"), 1, "/x/runs: permission denied; give a place"),
        (OSError(errno.EMFILE, "Too many open files", "a.npz"), 1, "a.npz: too many open files; close some files"),
        (OSError(errno.ENOSPC, "s.npz was not written: full"), 1, "vbinfer: s.npz was not written: full"),
        (ValueError("a mistake"), 1, "vbinfer: a mistake"),
        (ImportError("no torch"), 1, "vbinfer: no torch"),
    ],
)
def test_the_command_line_says_a_sentence_and_ends_with_the_status(error, status, words, monkeypatch, capsys):
    monkeypatch.setattr(command, "_compute", raising(error))
    monkeypatch.setattr("vbinfer.cli.errors.let_go_of_stdout", lambda error: None)  # pytest needs it
    assert command.main(["run", "study.toml"]) == status
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_a_mistake_of_vbinfer_shows_where_it_is(monkeypatch):
    monkeypatch.setattr(command, "_compute", raising(KeyError("x")))
    with pytest.raises(KeyError):
        command.main(["run", "study.toml"])


# The machine itself: a small disk, a read-only one, few handles, signals, a closed pipe

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
VBINFER = [sys.executable, "-c", "import sys; from vbinfer.cli.main import main; sys.exit(main())"]


def run(arguments, cwd, **options):
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False, **options
    )


def slow_study(place, draws=4096, t1="2020.0"):
    """The small study with more draws, each of which takes longer."""
    small_study.make(place)
    text = (place / "study.toml").read_text()
    text = text.replace("draws  = 256", f"draws  = {draws}").replace("t1         = 220.0", f"t1         = {t1}")
    (place / "study.toml").write_text(text.replace("transient  = 20.0", f"transient  = {float(t1) - 200.0}"))


def can_mount():
    if shutil.which("unshare") is None:
        return False
    trial = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


DISK = """
import contextlib, io, os, resource, subprocess, sys, threading, time
from pathlib import Path
import numpy as np
import small_study
from vbinfer.cli.main import main
import vbinfer as vb

place = Path(sys.argv[1])
small_study.make(place)
text = (place / "study.toml").read_text()
(place / "study.toml").write_text(text.replace("draws  = 256", "draws  = 8192"))
disk = place / "disk"
disk.mkdir()

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)

def simulate():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(["simulate", str(place / "study.toml"), "--out", str(disk / "run"), "--cores", "1", "--quiet"])
    print(status, "|", said.getvalue().strip().replace(chr(10), " / "))
    return status

def shards():
    return {p.name: p.read_bytes() for p in (disk / "run" / "store").glob("shard*")}

def fill():
    while not any((disk / "run").glob("store/shard*")):
        time.sleep(0.001)
    with contextlib.suppress(OSError), open(disk / "others", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))

mount("size=800k")  # enough, as the estimate before a run sees, until somebody else writes too
other = threading.Thread(target=fill)
other.start()
assert simulate() == 1
other.join()
some = shards()
print(len(some), "shards on the small disk")
assert not list((disk / "run").rglob("*.tmp"))
assert not some or len(vb.load(disk / "run" / "store"))
mount("remount,ro,size=20m")
assert simulate() == 1
assert shards() == some
mount("remount,rw,size=20m")
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
assert simulate() == 1
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
assert shards() == some
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
assert simulate() == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
assert simulate() == 0
whole = shards()
assert some.items() <= whole.items() or len(some) < 2
assert len(vb.load(disk / "run" / "store")) == 8192
"""


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux" or not can_mount(), reason="no small disk can be mounted here")
def test_full_read_only_out_of_handles_and_limited(tmp_path):
    done = run(["unshare", "-rm", sys.executable, "-c", DISK, str(tmp_path)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    full, count, read_only, handles, limited, fine = done.stdout.strip().splitlines()
    assert full.startswith("1 | vbinfer: ")
    assert "no space left on device; free some space" in full
    assert count != "0 shards on the small disk"
    assert "read-only file system; give a place that can be written to" in read_only
    assert "too many open files" in handles.lower()
    assert "file too large; raise the limit of this session (ulimit -f)" in limited
    assert fine.startswith("0 |")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_goes_on(how, tmp_path):
    slow_study(tmp_path)
    arguments = [*VBINFER, "simulate", "study.toml", "--cores", "1"]
    process = subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    store, until = tmp_path / "results" / "store", time.monotonic() + 200
    while not list(store.glob("shard-*.npz")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130, said
        assert "interrupted; what was simulated is kept, and the same command goes on from there" in said
    else:
        assert process.returncode != 0
    assert "Traceback" not in said
    held = {name: content for name, content in contents(store).items() if name.startswith("shard")}
    assert 0 < len(vb.load(store)) < 4096
    again = run(arguments, tmp_path)
    assert again.returncode == 0, again.stderr
    after = contents(store)
    unchanged = [name for name in held if after[name] == held[name]]
    assert len(unchanged) >= len(held) - 1  # the shard in flight was completed
    assert len(vb.load(store)) == 4096


@pytest.mark.faults
def test_a_reader_that_leaves_ends_a_run_with_a_sentence(tmp_path):
    small_study.make(tmp_path)
    arguments = " ".join(["exec", sys.executable, "-c", f"'{VBINFER[2]}'", "run", "study.toml", "--cores", "1"])
    shell = run(["bash", "-c", f"({arguments}) | head -1; exit ${{PIPESTATUS[0]}}"], tmp_path)
    assert shell.returncode == 1, shell.stderr
    assert shell.stdout.startswith("[1/5] simulating")
    assert shell.stdout.count("\n") == 1
    assert "nobody reads the output any more; what was finished is kept, and the same command" in shell.stderr
    assert "Traceback" not in shell.stderr
    assert "Exception ignored" not in shell.stderr
    store = tmp_path / "results" / "store"
    before = contents(store)
    assert len(vb.load(store)) == 256
    again = run([*VBINFER, "run", "study.toml", "--cores", "1", "--quiet"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == ""
    assert contents(store) == before


def test_words_to_a_closed_stderr_are_dropped(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    errors.say("nobody hears this")
