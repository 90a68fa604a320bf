"""What does not fit is refused with the arithmetic; compiled programs that are kept change no number."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import vbinfer
from vbinfer.execute import compile_cache, resources

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
ROOT = Path(vbinfer.__file__).parent.parent


def run(code, *args, timeout=240, **env):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done


def need(size):
    return resources.Need(size, f"{resources.format_bytes(size)} are needed")


def room_left():
    """Bytes that this process may still use."""
    return max(0, min(resources._rooms())[0])


# ---- sizes


def test_the_size_of_draws_is_that_of_their_arrays_and_is_written_out():
    found = resources.draws_size(70_001, 4_371, 3, itemsize=8)
    x, theta = np.empty((70_001, 4_371)), np.empty((70_001, 3))
    assert found.bytes == x.nbytes + theta.nbytes
    assert found.arithmetic == "70,001 draws x (4,371 features + 3 parameters) x 8 bytes = 2.4 GB"


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1_250, "1.2 kB"), (34_567_890, "35 MB"), (2e12, "2.0 TB")]
)
def test_sizes_are_written_as_people_write_them(size, words):
    assert resources.format_bytes(size) == words


# ---- disk


def test_a_disk_that_is_too_small_is_refused_with_the_arithmetic(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        resources.shutil, "disk_usage", lambda place: asked.append(place) or SimpleNamespace(free=900_000_000)
    )
    folder = tmp_path / "runs" / "new"
    resources.check_disk(folder, need(900_000_000))
    with pytest.raises(RuntimeError) as error:
        resources.check_disk(folder, resources.draws_size(100_000, 4_371))
    said = f"100,000 draws x 4,371 features x 4 bytes = 1.7 GB; 900 MB free in {str(folder)!r}. Free some space"
    assert str(error.value).startswith(said)
    assert set(asked) == {tmp_path}  # the nearest folder that exists
    with pytest.raises(RuntimeError, match=r"^900 MB are needed; 900 MB free"):
        resources.check_disk(folder, need(900_000_001))


def test_the_real_disk_has_room_for_little_and_none_for_all_the_worlds_data(tmp_path):
    resources.check_disk(tmp_path, need(1))
    with pytest.raises(RuntimeError, match=r"2,000,000 TB are needed"):
        resources.check_disk(tmp_path, need(2 * 10**18))


# ---- memory


def machine(folder, monkeypatch, available, lines, groups):
    """A made-up machine and its control groups."""
    proc, cgroup = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(lines)
    for path, content in groups.items():
        (cgroup / path).parent.mkdir(parents=True, exist_ok=True)
        (cgroup / path).write_text(content)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1024 * available))
    monkeypatch.setattr(resources, "_PROC", proc)
    monkeypatch.setattr(resources, "_CGROUP", cgroup)
    monkeypatch.setattr(resources, "_address_room", lambda: None)


V2 = {
    "slurm/job/memory.max": "6000\n",
    "slurm/job/memory.current": "2500\n",
    "slurm/job/memory.stat": "anon 5\ninactive_file 300\nactive_file 77\n",
    "slurm/memory.max": "max\n",
    "slurm/memory.current": "9999\n",
    "slurm/memory.stat": "inactive_file 0\n",
}
V1 = {
    "memory/slurm/job/memory.limit_in_bytes": f"{2**63 - 4096}\n",
    "memory/slurm/job/memory.usage_in_bytes": "500\n",
    "memory/slurm/job/memory.stat": "total_inactive_file 1\n",
    "memory/slurm/memory.limit_in_bytes": "8000\n",
    "memory/slurm/memory.usage_in_bytes": "3000\n",
    "memory/slurm/memory.stat": "inactive_file 4\ntotal_inactive_file 1500\n",
}


@pytest.mark.parametrize(
    ("available", "lines", "groups", "expected", "limit"),
    [
        (4, "", {}, 4_096, "free in this machine"),
        (99, "0::/slurm/job\n", V2, 6_000 - 2_500 + 300, "control group /slurm/job"),
        (2, "0::/slurm/job\n", V2, 2_048, "free in this machine"),
        (99, "9:cpu:/x\n4:memory:/slurm/job\n0::/\n", V1, 8_000 - 3_000 + 1_500, "control group /slurm"),
        # the path of the host, seen from inside a container, where the root is the container's own group
        (99, "0::/docker/ab\n", {k.removeprefix("slurm/job/"): v for k, v in V2.items()}, 3_800, "control group /"),
        (99, "0::/../x\n", {}, 99 * 1024, "free in this machine"),
    ],
)
def test_the_least_of_machine_and_control_groups_is_what_is_available(
    tmp_path, monkeypatch, available, lines, groups, expected, limit
):
    machine(tmp_path, monkeypatch, available, lines, groups)
    assert room_left() == expected
    resources.check_memory(need(expected))
    with pytest.raises(RuntimeError, match=limit) as error:
        resources.check_memory(resources.Need(expected + 1, "n x m bytes"))
    assert str(error.value).startswith(f"n x m bytes; {resources.format_bytes(expected)} of memory available (")
    assert "store=" in str(error.value)
    assert "`vbinfer simulate" in str(error.value)


def test_a_group_beyond_its_limit_leaves_nothing(tmp_path, monkeypatch):
    full = {**V2, "slurm/job/memory.current": "7000\n"}
    machine(tmp_path, monkeypatch, 99, "0::/slurm/job\n", full)
    assert room_left() == 0
    with pytest.raises(RuntimeError, match="1 bytes are needed; 0 bytes of memory available"):
        resources.check_memory(need(1))


def test_without_control_groups_the_machine_alone_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=700))
    monkeypatch.setattr(resources, "_PROC", tmp_path)
    monkeypatch.setattr(resources, "_address_room", lambda: None)
    assert room_left() == 700
    resources.check_memory(need(700))


@linux
def test_what_is_available_can_be_had():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < room_left() < total
    errors = []
    for _ in range(4):  # others use the machine too
        before = room_left()
        block = np.ones(100_000_000)
        errors.append(abs(before - room_left() - block.nbytes))
        del block
    assert min(errors) < 0.5 * 800e6
    with pytest.raises(RuntimeError, match="of memory available"):
        resources.check_memory(need(2 * total))


LIMITED = """
import resource, sys, numpy as np
from vbinfer.execute.resources import Need, _rooms, check_memory
resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))
room = min(_rooms())[0]
check_memory(Need(room // 2, "half of it"))
held = np.ones(room // 2 // 8)
try:
    np.ones(room // 8)
except MemoryError:
    print("full")
try:
    check_memory(Need(room, "all of it"))
except RuntimeError as error:
    print(error)
"""


@linux
def test_a_limit_of_address_space_is_the_one_at_which_arrays_fail():
    full, said = run(LIMITED).stdout.splitlines()
    assert full == "full"
    assert "ulimit -v" in said


# ---- compiled programs

PROGRAM = """
import os, sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp, numpy as np
if sys.argv[2] == "late":
    jax.jit(lambda x: x + 1)(1.0)
from vbinfer.execute.compile_cache import use_cache, machine
import vbinfer.execute.compile_cache as compile_cache
compile_cache._SLOW = 0.0
print(use_cache(sys.argv[1]) if sys.argv[1] else None)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
@jax.jit
def f(key):
    x = jax.random.normal(key, (300, 200))
    return jnp.linalg.svd(jnp.exp(x).T @ jnp.tanh(x))[1], jnp.sin(x).sum()
values = f(jax.random.key(3))
print(sum("cache_hits" in name for name in hits))
print(*(np.asarray(v, np.float32).tobytes().hex() for v in values))
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_second_process_reads_what_the_first_compiled_and_has_the_same_bits(tmp_path, when):
    """Also where JAX has decided already that there is no cache."""
    none = run(PROGRAM, "", when).stdout.splitlines()
    first = run(PROGRAM, tmp_path, when).stdout.splitlines()
    second = run(PROGRAM, tmp_path, when)
    assert Path(first[0]).parent == tmp_path
    assert Path(first[0]).stat().st_mode & 0o777 == 0o700
    assert none[2] == first[2] == second.stdout.splitlines()[2]
    assert int(first[1]) == 0
    assert int(second.stdout.splitlines()[1]) > 0
    assert second.stderr == ""


def test_the_cache_is_at_the_root_and_has_a_folder_of_its_own():
    assert vbinfer.use_cache is compile_cache.use_cache
    assert inspect.signature(vbinfer.use_cache).parameters["folder"].default == "~/.cache/vbinfer"


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "file").write_text("")
    assert compile_cache.use_cache(tmp_path / "file") is None
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path):
    place = tmp_path / compile_cache.machine()
    place.mkdir()
    place.chmod(0o777)
    before = jax.config.jax_compilation_cache_dir
    with pytest.warns(UserWarning, match=r"others may write to .*chmod 700"):
        assert compile_cache.use_cache(tmp_path) is None
    assert jax.config.jax_compilation_cache_dir == before


def test_what_was_used_least_recently_is_deleted_first(tmp_path):
    for name, age in (("old", 300), ("older", 900), ("new", 5)):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    compile_cache._prune(tmp_path, 200)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new"}
    compile_cache._prune(tmp_path, 199)
    assert {path.name for path in tmp_path.iterdir()} == {"new"}


def test_a_program_that_was_written_half_is_compiled_again_without_a_word(tmp_path):
    """Left there, it would be refused with a warning by every process to come, and never replaced."""
    first = run(PROGRAM, tmp_path, "early").stdout.splitlines()
    entries = sorted(Path(first[0]).glob("jit_f-*-cache"))
    assert len(entries) == 1
    whole = entries[0].read_bytes()
    if whole[:1] != b"x":
        pytest.skip("compressed by another method")
    entries[0].write_bytes(whole[: len(whole) // 2])
    again = run(PROGRAM, tmp_path, "early")
    assert again.stderr == ""
    assert again.stdout.splitlines()[2] == first[2]
    assert len(entries[0].read_bytes()) > len(whole) // 2


@linux
def test_another_number_of_cores_is_another_machine():
    """Programs are compiled for the threads they will have, and where a sum is split decides its last bits."""
    code = (
        "import os; os.sched_setaffinity(0, {c}); from vbinfer.execute.compile_cache import machine; print(machine())"
    )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    one, again, two = (run(code.replace("{c}", str(set(which)))).stdout for which in (cores[:1], cores[1:2], cores[:2]))
    assert one == again
    assert one != two
