"""Studies of several subjects: shared simulations, one table, one population; and what is refused."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from small_study import METHOD

import vbinfer as vb
from vbinfer.cli.main import main

TWO = """
[[subjects]]
name = "sub-01"

[[subjects]]
name = "sub-02"
recording = "other.csv"
"""
QUICK = '{ name = "NPE", density = { name = "MDN" }, training = { name = "Training", max_epochs = 4 } }'


def written(place, extra, *changes, name="many.toml"):
    """The small study made quick, with subjects and pieces of its text replaced."""
    text = (place / "study.toml").read_text()
    quick = (METHOD, QUICK), ("draws  = 256", "draws  = 128"), ("predictive = 16", "predictive = 6")
    for old, new in (*quick, ("recovery = 8", "recovery = 2"), ("compare_dt = 0.05\n", ""), *changes):
        assert old in text, old
        text = text.replace(old, new, 1)
    (place / name).write_text(text + extra)
    return place / name


@pytest.fixture(scope="module")
def folder(study_files, tmp_path_factory):
    """The study of five nodes, a second recording, and two more connectomes."""
    place = tmp_path_factory.mktemp("subjects") / "study"
    shutil.copytree(study_files, place)
    lines = (place / "signal.csv").read_text().splitlines()
    half = len(lines) // 2
    (place / "other.csv").write_text("\n".join([lines[0], *lines[half:], *lines[1:half]]) + "\n")
    rng = np.random.default_rng(1)
    for name, n in (("second", 5), ("six", 6)):
        weights = rng.uniform(size=(n, n)) * (1 - np.eye(n)) / n
        vb.Connectome(weights, 10 * weights, labels=tuple("abcdef"[:n])).save_tvb(place / f"{name}.zip")
    return place


@pytest.fixture(scope="module")
def ran(folder):
    """A run of two subjects."""
    path = written(folder, TWO, ('dir = "results"', 'dir = "both"'))
    assert main(["run", str(path), "--quiet", "--cores", "1"]) == 0
    return path, folder / "both"


def test_subjects_share_store_and_estimator_and_nothing_else(ran):
    path, out = ran
    study = vb.Study.from_toml(path)
    assert list(study.subjects) == ["sub-01", "sub-02"]
    assert (out / "store" / "manifest.json").is_file()
    assert sorted(p.name for p in out.rglob("estimator.npz")) == ["estimator.npz"]
    amortized = vb.load(out / "estimator.npz")
    theta = {}
    for name, one in study.subjects.items():
        posterior = vb.load(out / f"posterior-{name}.npz")
        np.testing.assert_array_equal(posterior.x_o, study.features(one.recording).astype(np.float32))
        theta[name] = posterior.theta["coupling.G"]
        mean, sd = theta[name].mean(), theta[name].std()
        again = amortized.sample(posterior.x_o, n=2_000, key=jax.random.key(5)).theta["coupling.G"]
        assert abs(again.mean() - mean) < 6 * sd / np.sqrt(500)
    assert not (out / "posterior.npz").exists()
    assert np.abs(np.corrcoef(theta["sub-01"][0], theta["sub-02"][0])[0, 1]) < 0.2  # keys of their own


def test_one_table_names_all_subjects(ran):
    _, out = ran
    rows = json.loads((out / "subjects.json").read_text())["subjects"]
    with (out / "subjects.csv").open() as file:
        text = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == [row["subject"] for row in text] == ["sub-01", "sub-02"]
    for row, line in zip(rows, text, strict=True):
        theta = vb.load(out / f"posterior-{row['subject']}.npz").theta["coupling.G"]
        pooled = vb.load(out / f"pooled-{row['subject']}.npz").theta["coupling.G"]
        assert row["coupling.G mean"] == pytest.approx(theta.mean(), rel=1e-5)
        assert float(line["pooled coupling.G sd"]) == pytest.approx(pooled.std(), rel=1e-4)


def test_one_report_has_a_page_for_each_subject_and_the_population(ran):
    _, out = ran
    page = (out / "report.html").read_text()
    for name in ("sub-01", "sub-02"):
        assert f'<a href="report-{name}.html">{name}</a>' in page
        assert f"Posterior report: {name}" in (out / f"report-{name}.html").read_text()
    population = vb.load(out / "population.npz")
    assert set(population.theta) == {"coupling.G.mean", "coupling.G.sd"}
    assert population.info["over"] == {"coupling.G": "z"}
    assert "coupling.G.mean" in page


@pytest.mark.slow
def test_infer_and_report_again_give_the_same_numbers(ran):
    path, out = ran
    before = {name: (out / name).read_bytes() for name in ("population.npz", "posterior-sub-02.npz", "subjects.csv")}
    assert main(["infer", str(path), "--quiet", "--cores", "1"]) == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    verdict = (out / "report.json").read_text()
    assert main(["report", str(out), "--quiet"]) in (0, 3)
    assert (out / "report.json").read_text() == verdict


def test_subjects_of_other_connectomes_have_a_store_each(folder):
    third = '\n[[subjects]]\nname = "sub-03"\nconnectome = "second.zip"\n'
    path = written(folder, TWO + third, ('dir = "results"', 'dir = "three"'), ("draws  = 128", "draws  = 64"))
    assert main(["simulate", str(path), "--quiet", "--cores", "1"]) == 0
    stores = sorted(str(p.parent.relative_to(folder / "three")) for p in (folder / "three").rglob("manifest.json"))
    assert stores == ["net/store", "second/store"]
    study = vb.Study.from_toml(path)
    assert [one.out.name for one in study.subjects.values()] == ["net", "net", "second"]
    assert study.subjects["sub-03"].file("posterior.npz") == folder / "three" / "posterior-sub-03.npz"
    x = [vb.load(folder / "three" / name).x for name in stores]
    assert not np.allclose(x[0], x[1])


@pytest.mark.slow
def test_fit_and_infer_of_two_connectomes_give_every_subject_its_estimator(folder):
    third = '\n[[subjects]]\nname = "sub-03"\nconnectome = "second.zip"\n'
    path = written(folder, TWO + third, ('dir = "results"', 'dir = "apart"'))
    assert main(["fit", str(path), "--quiet", "--cores", "1"]) == 0
    assert main(["infer", str(path), "--quiet", "--cores", "1"]) == 0
    out = folder / "apart"
    assert {p.parent.name for p in out.rglob("estimator.npz")} == {"net", "second"}
    assert {p.name for p in out.glob("posterior-*.npz")} == {f"posterior-sub-0{i}.npz" for i in (1, 2, 3)}
    rows = json.loads((out / "subjects.json").read_text())["subjects"]
    assert [row["simulator"] for row in rows] == ["net", "net", "second"]
    assert vb.verify_study(out).passed


def test_a_study_without_subjects_is_as_before(folder):
    study = vb.Study.from_toml(folder / "study.toml")
    assert not study.subjects
    assert study.simulators == (study,)
    assert study.file("posterior.npz") == study.out / "posterior.npz"


SUB = '\n[[subjects]]\nname = "{}"\n'


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (SUB.format("a") + SUB.format("A"), "two subjects have the name 'A'"),
        (SUB.format("../a"), "has the name '../a'; write letters"),
        ("\n[[subjects]]\nrecording = 'other.csv'\n", r"\[\[subjects\]\] 1 lacks the key 'name'"),
        (SUB.format("a") + 'conectome = "net.zip"\n', "no key 'conectome'.*connectome"),
        (SUB.format("a") + 'connectome = "six.zip"\n', "subject 'a'.*(6|5)"),
        (SUB.format("a") + "period = 2.0\n", "subject 'a': .*2 ms"),
        (SUB.format("a") + "participant = 2\n", "subject 'a': .*participant goes with bundled data"),
        ("\nsubjects = 3\n", "subjects"),
    ],
)
def test_bad_subjects_are_a_sentence(folder, extra, message):
    with pytest.raises(ValueError, match=message):
        vb.Study.from_toml(written(folder, extra, name="bad.toml"))


def test_subjects_of_other_regions_are_refused(folder):
    lines = (folder / "signal.csv").read_text().splitlines()
    six = [lines[0] + ",f", *(line + "," + line.split(",")[0] for line in lines[1:])]
    (folder / "six.csv").write_text("\n".join(six) + "\n")
    other = SUB.format("a") + SUB.format("b") + 'connectome = "six.zip"\nrecording = "six.csv"\n'
    path = written(folder, other, ("gamma = {{ array".replace("{{", "{"), "gamma = -1.0 #"), name="regions.toml")
    path.write_text(path.read_text().replace('gamma = -1.0 # = "gamma.npy" } }', "gamma = -1.0 }"))
    with pytest.raises(ValueError, match="subject 'b' has 6 regions, 'a' has 5"):
        vb.Study.from_toml(path)


def test_calibration_is_of_one_subject(folder):
    with pytest.raises(ValueError, match=r"\[\[subjects\]\]; calibrate the study of one"):
        vb.calibrate_study(vb.Study.from_toml(written(folder, TWO, name="cal.toml")))


def test_the_example_of_all_participants_is_a_study(tmp_path, capsys):
    assert main(["example", "--subjects"]) == 0
    (tmp_path / "participants.toml").write_text(capsys.readouterr().out)
    study = vb.Study.from_toml(tmp_path / "participants.toml")
    assert list(study.subjects) == [f"participant-{i}" for i in range(1, 8)]
    assert len(study.simulators) == 1
    third = study.subjects["participant-3"].recording
    np.testing.assert_array_equal(
        third.values, vb.load_recording("hcp-aal2", participant=3).values[: len(third.values)]
    )
