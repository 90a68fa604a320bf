"""The file format: exact round trips, all-or-nothing writes, and what is refused."""

import os
import pickle
import platform
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from vbinfer.draws.store import DRAWS
from vbinfer.io import npz
from vbinfer.io.folder import write_head


def test_read_returns_what_write_was_given_bit_for_bit(tmp_path):
    arrays = {
        "theta/coupling.G": np.array([0.1, -np.inf, np.nan], np.float32),
        "file": np.arange(6, dtype=np.int64).reshape(2, 3),
        "flag": np.array(True),
        "empty": np.zeros((0, 4)),
        "text": np.array(["fc.mean", "é"]),
    }
    npz.write(tmp_path / "deep" / "a.npz", "draws", {"seconds": np.float32(0.5), "key": np.arange(2)}, arrays)
    kind, header, found = npz.read(tmp_path / "deep" / "a.npz")
    assert kind == "draws"
    assert header["seconds"] == 0.5
    assert header["key"] == [0, 1]
    assert header["format"] == npz.FORMAT
    assert {"vbinfer", "jax", "jaxlib", "numpy"} <= set(header["versions"])
    assert set(found) == set(arrays)
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        npz.write(tmp_path / name, "draws", {"n": 3}, {"x": np.arange(3.0)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    npz.write(path, "draws", {}, {"x": np.arange(3.0)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        npz.write(path, "draws", {}, {"y": np.zeros(1000), "x": np.array([{}], dtype=object)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_what_version_0_1_0_saved_is_refused_with_what_to_do(tmp_path, monkeypatch):
    with monkeypatch.context() as old:
        old.setattr(npz, "FORMAT", 1)
        old.setattr(npz, "versions", lambda *_: {"vbinfer": "0.1.0"})
        npz.write(tmp_path / "posterior.npz", "posterior", {"theta": []}, {"x": np.arange(3.0)})
        npz.write(tmp_path / "chains" / "chains.npz", "chains", {"run": {"prior": {}}}, {})
        npz.write(tmp_path / "draws-store" / "shard-000000.npz", "shard", {"start": 0}, {"x": np.zeros((64, 1))})
        write_head(tmp_path / "draws-store" / "manifest.json", DRAWS, {"batch_size": 64})
    for name in ("posterior.npz", "chains", "draws-store"):
        with pytest.raises(ValueError, match=r"has format 1, written by vbinfer 0\.1\.0; this vbinfer reads format 2"):
            npz.load(tmp_path / name)


def _pickled(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("header.npy", "w") as member:
        np.lib.format.write_array(member, np.array([_Bomb()], dtype=object), allow_pickle=True)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("loading executed code",))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "there is no file"),
        (lambda path: path.mkdir(), ValueError, "is a folder"),
        (lambda path: path.write_text("hello"), ValueError, "no file of vbinfer"),
        (lambda path: path.write_bytes(pickle.dumps([1])), ValueError, "no file of vbinfer"),
        (lambda path: np.savez(path, x=np.zeros(3)), ValueError, "no file of vbinfer"),
        (_pickled, ValueError, "no file of vbinfer"),
        (lambda path: npz.write(path, "hologram", {}, {}), ValueError, "holds a 'hologram'; this vbinfer loads"),
    ],
)
def test_what_load_refuses(tmp_path, make, error, message):
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(error, match=message):
        npz.load(path)


def test_another_format_version_names_the_version_that_wrote_it(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "FORMAT", 7)
    npz.write(tmp_path / "a.npz", "draws", {"versions": {"vbinfer": "9.9"}}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"format 7, written by vbinfer 9\.9; this vbinfer reads format 2"):
        npz.load(tmp_path / "a.npz")


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path):
    """A flipped byte gives ValueError or the very arrays that were written, nothing else."""
    path = tmp_path / "a.npz"
    x = np.random.default_rng(0).normal(size=20)
    npz.write(path, "draws", {}, {"x": x})
    good = path.read_bytes()
    noticed = 0
    for i in range(0, len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ 0x5A]) + good[i + 1 :])
        try:
            _, _, arrays = npz.read(path)
        except ValueError:
            noticed += 1
        else:
            assert list(arrays) != ["x"] or np.array_equal(arrays["x"], x)
    for cut in range(0, len(good), 7):
        path.write_bytes(good[:cut])
        with pytest.raises(ValueError, match="damaged"):
            npz.read(path)
    assert noticed > len(x.tobytes())


def test_what_a_killed_process_left_unfinished_is_swept_by_the_next_write_of_that_file(tmp_path):
    """Every kill once left a hidden file of up to the size of a shard."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    node = platform.node()
    gone = tmp_path / f".a.npz.{node}.{dead.pid}.tmp"
    kept = [
        tmp_path / f".a.npz.{node}.{dead.pid}.just-now.tmp",
        tmp_path / f".a.npz.{node}.{os.getppid()}.tmp",
        tmp_path / f".a.npz.another-computer.{dead.pid}.tmp",
        tmp_path / f".b.npz.{node}.{dead.pid}.tmp",
        tmp_path / f".a.npz.{node}.words.tmp",
    ]
    for path in (gone, *kept):
        path.write_bytes(b"half of a file")
        if "just-now" not in path.name:
            os.utime(path, (0, 0))
    npz.write(tmp_path / "a.npz", "draws", {}, {"x": np.arange(3.0)})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.npz", *(path.name for path in kept)])
