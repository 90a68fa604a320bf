"""Verification of runs: what was changed is named, in its file, and by how much."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from small_study import METHOD

import vbinfer as vb
from vbinfer.cli.main import main
from vbinfer.io import npz

QUICK = '{ name = "NPE", density = { name = "MDN" }, training = { name = "Training", max_epochs = 3 } }'


@pytest.fixture(scope="module")
def ran(study_files, tmp_path_factory):
    """A quick run of the small study, beside its study file."""
    place = tmp_path_factory.mktemp("verify") / "study"
    shutil.copytree(study_files, place)
    text = (place / "study.toml").read_text().replace(METHOD, QUICK).replace("compare_dt = 0.05\n", "")
    text = text.replace("draws  = 256", "draws  = 128").replace("recovery = 8", "recovery = 2")
    (place / "study.toml").write_text(text.replace("predictive = 16", "predictive = 4"))
    vb.run_study(vb.Study.from_toml(place / "study.toml"))
    return place


@pytest.fixture
def copied(ran, tmp_path):
    """The run on its own, to be damaged."""
    shutil.copytree(ran, tmp_path / "study")
    return tmp_path / "study"


def test_a_run_is_verified_and_stays_as_it_is(ran, capsys):
    out = ran / "results"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["verify", str(out), "--cores", "1"]) == 0
    said = capsys.readouterr().out
    assert "of this machine" in said
    assert "all of them agree" in said
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_changed_posterior_and_a_changed_study_file_are_named(copied):
    out = copied / "results"
    posterior = vb.load(out / "posterior.npz")
    theta = posterior.theta["coupling.G"].copy()
    theta[0, 17] += 0.25 * theta.std()
    dataclasses.replace(posterior, theta={"coupling.G": theta}).save(out / "posterior.npz")
    path = copied / "study.toml"
    path.write_text(path.read_text().replace("seed   = 3", "seed   = 4"))
    report = json.loads((out / "report.json").read_text())
    report["numbers"]["parameters"][0]["mean"] *= 1.01
    (out / "report.json").write_text(json.dumps(report))
    found = vb.verify_study(out)
    assert not found.passed
    assert len(found.differences) == 3, found
    study, drawn, said = found.differences
    assert study.startswith("study.toml: changed since the run: was 'seed   = 3'; now 'seed   = 4'")
    assert drawn.startswith("posterior.npz: theta/coupling.G[0, 17] is")
    assert "off by 0.25 (1 of 500 numbers differ)" in drawn
    assert said.startswith("report.json: numbers.parameters[0].mean is")
    assert "off by 0.0099" in said


@pytest.mark.slow
def test_a_changed_value_of_the_store_is_named(copied):
    out = copied / "results"
    shard = out / "store" / "shard-000001.npz"
    kind, header, arrays = npz.read(shard)
    arrays["x"] = arrays["x"].copy()
    arrays["x"][5, 2] += 1.0
    place = {name: header[name] for name in header if name not in ("kind", "format", "sealed", "versions")}
    npz.write(shard, kind, place, arrays)
    found = vb.verify_study(out)
    name = vb.load(out / "store").names[2]
    assert any(one.startswith(f"store/: x[{name!r}] of draw 69 is") for one in found.differences), found


@pytest.mark.slow
def test_damaged_files_are_named_and_another_machine_has_its_tolerance(copied):
    out = copied / "results"
    for name in ("posterior.npz", "store/shard-000000.npz"):
        damaged = bytearray((out / name).read_bytes())
        damaged[len(damaged) // 2] ^= 255
        (out / name).write_bytes(damaged)
    origin = json.loads((out / "study.json").read_text())
    origin["machine"]["cpu"] = "another"
    (out / "study.json").write_text(json.dumps(origin))
    moved = copied.parent / "elsewhere"
    shutil.move(out, moved)
    with pytest.raises(FileNotFoundError, match=r"--study study\.toml"):
        vb.verify_study(moved)
    found = vb.verify_study(moved, study=copied / "study.toml")
    assert (found.same_machine, found.tolerance) == (False, 0.05)
    assert len(found.differences) == 2, found  # what is simulated again is what it was
    assert found.differences[0].startswith("store/shard-000000.npz: ")
    assert found.differences[1].startswith("posterior.npz: ")
    assert all("damaged" in one for one in found.differences)


def test_a_difference_is_the_largest_in_sd():
    from vbinfer.study.verify import _difference

    a = np.array([1.0, 3.0, np.nan, np.inf])
    assert _difference(a, a.copy(), 0.0) == []
    assert _difference(a, np.array([1.0, 3.5, np.nan, np.inf]), 0.4) == [
        "[1] is 3, made again 3.5: off by 0.5 (1 of 4 numbers differ)"
    ]
    assert _difference(a, np.array([1.0, 3.5, np.nan, np.inf]), 0.6) == []
    assert "off by inf" in _difference(a, np.array([1.0, 3.0, 0.0, np.inf]), 0.6)[0]
    assert _difference(np.ones(3), np.ones(2), 1.0) == [" is [3], made again [2]"]


def test_folders_without_a_record_are_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        vb.verify_study(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"has no study\.json"):
        vb.verify_study(tmp_path)
