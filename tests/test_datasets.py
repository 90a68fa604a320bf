"""Bundled data and the reader for one's own recordings."""

import dataclasses
import re

import numpy as np
import pytest

from vbinfer import datasets
from vbinfer.datasets import Recording, load_connectome, load_recording, match
from vbinfer.network.connectome import Connectome

RNG = np.random.default_rng(11)
VALUES = RNG.normal([100.0, -3.0, 0.5], [2.0, 1.0, 0.1], (20, 3))


def recording(**changes) -> Recording:
    return Recording(**({"values": VALUES, "period": 720.0, "labels": ("a", "b", "c"), "name": "run"} | changes))


def network(n: int, labels=None) -> Connectome:
    return Connectome(np.ones((n, n)), np.ones((n, n)), labels=labels)


# --- bundled --------------------------------------------------------------------------------------------------------


def test_hcp_connectome():
    sc, counts = load_connectome("hcp-aal2"), load_connectome("hcp-aal2", normalise=None)
    weights, lengths = np.asarray(sc.weights, np.float64), np.asarray(sc.tract_lengths, np.float64)
    np.testing.assert_array_equal(weights, weights.T)
    assert weights.max() == 1.0
    assert not np.diagonal(weights).any()
    assert 8.0e6 < float(counts.weights.max()) < 8.1e6
    np.testing.assert_allclose(np.asarray(counts.weights) / float(counts.weights.max()), weights, rtol=1e-6)
    assert (
        abs(np.abs(np.linalg.eigvals(np.asarray(load_connectome("hcp-aal2", normalise="spectral").weights))).max() - 1)
        < 1e-5
    )
    # known anatomy: the longest tracts span the brain, neighbours are close, and counts fall with length
    pairs = np.triu_indices(80, 1)
    assert 200.0 < lengths.max() < 300.0
    assert lengths[pairs].min() > 5.0
    assert np.corrcoef(np.log(weights[pairs]), lengths[pairs])[0, 1] < -0.7
    assert sc.labels is not None
    at = sc.labels.index
    assert weights[at("Calcarine_L"), at("Lingual_L")] > 20 * weights[at("Calcarine_L"), at("Precentral_L")]
    assert [label[-2:] for label in sc.labels] == ["_L", "_R"] * 40


def test_hcp_bold():
    everyone = [load_recording("hcp-aal2", participant) for participant in range(1, 8)]
    for bold in everyone:
        assert bold.values.shape == (1200, 80)
        assert bold.values.dtype == np.float32
        assert (bold.period, bold.duration) == (720.0, 864000.0)
        assert bold.values.min() > 3000.0  # scanner units: the mean is there
        match(load_connectome("hcp-aal2"), bold)
    pairs = np.triu_indices(80, 1)
    fcs = np.array([np.corrcoef(bold.values.T.astype(np.float64))[pairs] for bold in everyone])
    assert np.corrcoef(fcs)[np.triu_indices(7, 1)].min() > 0.2  # brains resemble each other ...
    assert np.corrcoef(fcs)[np.triu_indices(7, 1)].max() < 0.9  # ... and none is there twice
    labels = everyone[0].labels
    assert labels is not None
    i, j, k = (labels.index(name) for name in ("Calcarine_L", "Calcarine_R", "Frontal_Inf_Tri_L"))
    fc = np.mean([np.corrcoef(bold.values.T.astype(np.float64)) for bold in everyone], axis=0)
    assert fc[i, j] > fc[i, k] + 0.3
    sc = np.asarray(load_connectome("hcp-aal2").weights, np.float64)[pairs]
    assert 0.3 < np.corrcoef(fcs.mean(axis=0), sc)[0, 1] < 0.45  # structure predicts function, as measured elsewhere


def test_data_are_searched_in_the_environment_first(tmp_path, monkeypatch):
    folder = tmp_path / "hcp_aal2"
    folder.mkdir()
    np.savez(folder / "connectome.npz", weights=[[3.0, 2.0], [1.0, 0.0]], tract_lengths=np.ones((2, 2)))
    monkeypatch.setenv("VBINFER_DATA", str(tmp_path))
    np.testing.assert_array_equal(load_connectome("hcp-aal2").weights, [[0.0, 1.0], [0.5, 0.0]])
    assert load_recording("hcp-aal2").n_channels == 80  # not there: the repository's


def test_data_that_are_missing_come_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "site-packages" / "vbinfer" / "datasets.py"))
    monkeypatch.setenv("VBINFER_DATA", str(tmp_path / "mine"))
    with pytest.raises(
        FileNotFoundError, match=r"mine nor in .*\n *python data/build_hcp_aal2.py --out DIR\n.*VBINFER_DATA"
    ):
        load_connectome("hcp-aal2")
    monkeypatch.delenv("VBINFER_DATA")
    with pytest.raises(FileNotFoundError, match=r"python data/build_hcp_aal2\.py"):
        load_recording("hcp-aal2")


@pytest.mark.parametrize("load", [load_connectome, load_recording])
def test_unknown_names(load):
    with pytest.raises(ValueError, match=r"no data set 'hcp_aal2'\. Did you mean 'hcp-aal2'\?"):
        load("hcp_aal2")


@pytest.mark.parametrize("participant", [0, 8, -1])
def test_unknown_participants(participant):
    with pytest.raises(
        ValueError, match=f"participant={participant} was asked of 'hcp-aal2'; it has participants 1 to 7"
    ):
        load_recording("hcp-aal2", participant)


def test_a_period_that_contradicts_the_data_is_refused():
    with pytest.raises(ValueError, match="period=2000 ms was given for 'hcp-aal2', which has 720 ms"):
        load_recording("hcp-aal2", period=2000.0)


def test_ones_own_connectome_is_taken_as_it_is(tmp_path):
    weights = np.array([[0.0, 3.0], [7.0, 2.0]])
    Connectome(weights, np.ones((2, 2))).save_tvb(tmp_path / "mine.zip")
    np.testing.assert_array_equal(load_connectome(tmp_path / "mine.zip").weights, weights)
    np.testing.assert_allclose(
        load_connectome(str(tmp_path / "mine.zip"), normalise="max").weights, [[0.0, 3 / 7], [1.0, 0.0]], rtol=1e-6
    )


# --- recordings -----------------------------------------------------------------------------------------------------


def test_segments_tile_the_recording():
    run = recording()
    parts = run.segments(6 * 720.0)
    assert [part.name for part in parts] == ["run, 0-4.32 s", "run, 4.32-8.64 s", "run, 8.64-12.96 s"]
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), run.values[:18])
    np.testing.assert_array_equal(run.segment(3 * 720.0, 2 * 720.0 + 100.0).values, run.values[3:5])
    np.testing.assert_array_equal(run.segment(0.0, run.duration).values, run.values)
    assert parts[2].labels == ("a", "b", "c")
    # 0.1 ms is no binary fraction: thirty periods are thirty samples all the same
    fine = recording(values=np.tile(VALUES, (3, 1)), period=0.1)
    assert [len(part.values) for part in fine.segments(0.3 * 10)] == [30, 30]


@pytest.mark.parametrize(("start", "length"), [(0.0, 14401.0 + 720), (720.0, 14400.0), (-720.0, 1440.0), (0.0, 700.0)])
def test_segments_outside_are_refused(start, length):
    with pytest.raises(ValueError, match="run, which lasts 14400 ms in samples of 720 ms; choose one within it"):
        recording().segment(start, length)
    if start == 0.0:
        with pytest.raises(ValueError, match="choose one within it"):
            recording().segments(length)


def test_select_reorders_and_names_the_unknown():
    chosen = recording().select(("c", "a"))
    np.testing.assert_array_equal(chosen.values, recording().values[:, [2, 0]])
    assert chosen.labels == ("c", "a")
    with pytest.raises(ValueError, match="run has no channel 'A'"):
        recording().select(("A",))


def test_values_cannot_be_changed_and_the_source_is_not_shared():
    source = VALUES.astype(np.float32)
    run = recording(values=source)
    source[:] = 0.0
    assert run.values.any()
    with pytest.raises(ValueError, match="read-only"):
        run.values[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.period = 1.0


def spoiled(column, value):
    values = VALUES.copy()
    values[4:, column] = value
    values[:4, column] = value if value == 5.0 else values[:4, column]
    return values


MISTAKES = {
    "NaN": (
        {"values": spoiled([1], np.nan)},
        "run holds NaN, infinite or missing values in channel 1 (b); fill them in",
    ),
    "infinity": ({"values": spoiled([0, 2], np.inf)}, "values in channels 0 (a), 2 (c)"),
    "constant": ({"values": spoiled([2], 5.0)}, "run is constant in channel 2 (c), which has no correlation"),
    "constant, unnamed": ({"values": spoiled([0, 1], 5.0), "labels": None}, "run is constant in channels 0, 1"),
    "one axis": ({"values": VALUES[:, 0]}, "run has shape [20]; expected [T, N], time in rows"),
    "nothing": ({"values": VALUES[:0]}, "run has shape [0, 3]"),
    "period 0": ({"period": 0.0}, "run has period 0.0; give the ms between samples"),
    "period NaN": ({"period": float("nan")}, "run has period nan"),
    "labels": ({"labels": ("a", "b")}, "run has 2 labels for 3 channels; give one for each"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused_with_a_remedy(name):
    changes, message = MISTAKES[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        recording(**changes)


def test_a_file_with_more_channels_than_samples_looks_transposed(tmp_path):
    np.save(tmp_path / "run.npy", VALUES.T)
    with pytest.warns(UserWarning, match=r"run.npy has 3 samples of 20 channels; rows must be time, transpose it"):
        load_recording(tmp_path / "run.npy", period=720.0)
    assert recording().segment(0.0, 1440.0).values.shape == (2, 3)  # a short piece is no such file


# --- files ----------------------------------------------------------------------------------------------------------


def lines(delimiter: str, decimal: str = ".") -> str:
    return "".join(delimiter.join(repr(float(x)).replace(".", decimal) for x in row) + "\n" for row in VALUES)


INDEXED = "".join(f"{i},{line}\n" for i, line in enumerate(lines(",").splitlines()))
TEXTS = {
    "comma": (lines(","), None),
    "comma, names": ("a,b,c\n" + lines(","), ("a", "b", "c")),
    "quoted names, byte order mark": ('\ufeff"a","b right","c"\n' + lines(","), ("a", "b right", "c")),
    "tab": ("a\tb\tc\n" + lines("\t"), ("a", "b", "c")),
    "blanks, as savetxt writes": ("# a b c\n" + lines(" "), ("a", "b", "c")),
    "comment that is no header": ("# written by somebody\n" + lines(","), None),
    "semicolon, decimal comma": ("a;b;c\n" + lines(";", ","), ("a", "b", "c")),
    "pandas without index": ("0,1,2\n" + lines(","), None),
    "pandas with index": (",0,1,2\n" + INDEXED, None),
    "pandas with index and names": (",a,b,c\n" + INDEXED, ("a", "b", "c")),
    "crlf and blank lines": (lines(",").replace("\n", "\r\n") + "\r\n\r\n", None),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_files_in_use_are_read(tmp_path, name):
    content, labels = TEXTS[name]
    path = tmp_path / "run.csv"
    path.write_bytes(content.encode())
    read = load_recording(path, period=500.0)
    np.testing.assert_array_equal(read.values, VALUES.astype(np.float32))
    assert (read.labels, read.period, read.name) == (labels, 500.0, "run.csv")


def test_numpy_files_are_read(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    np.savez(tmp_path / "b.npz", anything=VALUES, period=2000.0, labels=np.array(["x", "y", "z"]))
    np.savez(tmp_path / "c.npz", values=VALUES, other=np.ones(3))
    np.testing.assert_array_equal(load_recording(tmp_path / "a.npy", period=1.0).values, VALUES.astype(np.float32))
    stored = load_recording(str(tmp_path / "b.npz"))
    assert (stored.period, stored.labels) == (2000.0, ("x", "y", "z"))
    np.testing.assert_array_equal(Recording.from_file(tmp_path / "c.npz", 1.0).values, VALUES.astype(np.float32))


ONE = lines(",").splitlines()
BAD_FILES = {
    "a word": ("\n".join([*ONE[:6], "1.0,x7,2.0", *ONE[6:]]), "line 7, column 2 of run.csv is 'x7'; expected a number"),
    "a word in the first line": ("\n".join(["1.0,oops,2.0", *ONE]), "line 1, column 2 of run.csv is 'oops'"),
    "ragged": ("\n".join([*ONE[:3], "1.0,2.0", *ONE[3:]]), "line 4 of run.csv has 2 cells and the last line has 3"),
    "missing": ("\n".join(["a,b,c", *ONE, "1.0,,2.0", *ONE]), "missing values in channel 1 (b)"),
    "NA": ("\n".join([*ONE, "NA,1.0,2.0"]), "missing values in channel 0;"),
    "names too few": ("\n".join(["a,b", *ONE]), "run.csv has 2 names in its first line and 3 numbers in the others"),
    "empty": ("\n\n", "has no lines of numbers; expected [T, N]"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_text_files_are_refused_with_a_remedy(tmp_path, name):
    content, message = BAD_FILES[name]
    (tmp_path / "run.csv").write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recording(tmp_path / "run.csv", period=720.0)


def test_bad_numpy_files_are_refused_with_a_remedy(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]))
    np.save(tmp_path / "complex.npy", VALUES * 1j)
    np.savez(tmp_path / "two.npz", rest=VALUES, task=VALUES)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut off")
    table = {
        "objects.npy": "no NumPy file of plain numbers",
        "complex.npy": "does not hold real numbers",
        "two.npz": r"holds \['rest', 'task'\]; call the array of the recording 'values'",
        "cut.npz": "no NumPy file of plain numbers",
    }
    for name, message in table.items():
        with pytest.raises(ValueError, match=message):
            load_recording(tmp_path / name, period=720.0)


def test_a_file_needs_to_exist_and_to_have_a_period(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file 'bold\.csv'"):
        load_recording("bold.csv", period=720.0)
    (tmp_path / "run.csv").write_text(lines(","))
    with pytest.raises(ValueError, match=r"run.csv does not say its sampling period; add period=, in ms"):
        load_recording(tmp_path / "run.csv")


# --- connectome and recording ---------------------------------------------------------------------------------------


def test_match_accepts_what_fits():
    match(network(3), recording())
    match(network(3, ("a", "b", "c")), recording())
    match(network(3, ("V1", "V2", "V3")), recording())  # other names: nothing to compare
    match(network(3, ("a", "b", "c")), recording(labels=None))


@pytest.mark.parametrize(
    ("nodes", "labels", "message"),
    [
        (80, None, "recording has 3 channels but the connectome has 80 nodes; column k of the recording must be row k"),
        (2, ("c", "a"), "has 2 nodes; column k of the recording must be row k of the connectome; recording.select("),
        (3, ("a", "c", "b"), "row 1 of the connectome is 'c' but column 1 of the recording is 'b'; bring them into"),
        (3, ("a", "b", "d"), "row 2 of the connectome is 'd' but column 2 of the recording is 'c'"),
    ],
)
def test_match_refuses(nodes, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        match(network(nodes, labels), recording())


def test_select_is_the_remedy_that_match_names():
    shuffled = network(3, ("c", "a", "b"))
    match(shuffled, recording().select(shuffled.labels))
