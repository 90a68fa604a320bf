"""The command line: a study from file to report, and every mistake in the file named with its remedy."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from small_study import STUDY

import vbinfer as vb
from vbinfer.cli.demos import demo_of, run_demo, study_of
from vbinfer.cli.main import DEMO, DEMOS, main
from vbinfer.io import npz
from vbinfer.study.folder import calibration_of, load_inputs, rebuild, save_inputs
from vbinfer.study.run import fit_study, infer_study, simulate_study
from vbinfer.study.study import Study


@pytest.fixture(scope="module")
def folder(study_files, tmp_path_factory):
    """A study of five nodes whose recording was simulated at G = 0.6, long enough for two segments."""
    place = tmp_path_factory.mktemp("cli") / "study"
    shutil.copytree(study_files, place)
    gamma = np.load(place / "gamma.npy")
    for name in ("gamma.dat", "text.npy"):
        (place / name).write_text("-0.9 -1.0\n")
    (place / "words.csv").write_text("a,b\n1,2\n")
    np.savez(place / "two.npz", a=gamma, b=gamma)
    np.save(place / "names.npy", np.array(["a", "b"]))
    return place


def calibrate(place):
    return main(["calibrate", str(place / "study.toml"), "--draws", "60", "--cores", "1"])


@pytest.fixture(scope="module")
def calibrated(shell_run, tmp_path_factory):
    """The results of the run after one shard was lost and `vbinfer calibrate` went on; the shard, and the status."""
    place = tmp_path_factory.mktemp("calibrated") / "study"
    shutil.copytree(shell_run[0], place)
    with open(place / "study.toml", "a") as file:
        file.write("\n[calibration]\nposterior_samples = 99\n")
    removed = sorted((place / "results" / "store").glob("shard*.npz"))[1]
    removed.unlink()
    return place / "results", removed.name, calibrate(place)


@pytest.mark.smoke
def test_a_study_runs_from_file_to_report(shell_run):
    place, first = shell_run
    assert first.returncode == 0, first.stderr
    assert "{" not in first.stdout + first.stderr  # a stage once printed the name of a variable
    out = place / "results"
    verdict = json.loads((out / "report.json").read_text())
    posterior = vb.load(out / "posterior.npz")
    G = posterior.theta["coupling.G"]
    assert G.shape == (1, 500)
    assert G.min() >= 0.0
    assert G.max() <= 0.9
    assert abs(G.mean() - 0.6) < 3 * G.std()
    assert G.std() < 0.9 / np.sqrt(12)
    page = (out / "report.html").read_text()
    for words in ("Step size", "coupling.G", "signal.csv"):
        assert words in page
    assert verdict["verdict"] in ("pass", "warn", "fail")


@pytest.fixture(scope="module")
def in_python(study_files, tmp_path_factory):
    """The study simulated, fitted and inferred one after the other: the study, its verdict, and what was said."""
    study, said = vb.Study.from_toml(study_files / "study.toml", out=tmp_path_factory.mktemp("python")), []
    simulate_study(study)
    fit_study(study)
    assert not (study.out / "posterior.npz").exists()
    return study, infer_study(study, say=said.append), said


def test_python_and_shell_give_the_same_posterior_file(in_python, shell_run):
    """Bit for bit, also where it is simulated, fitted and inferred one after the other."""
    shell, (study, verdict, said) = shell_run[0] / "results", in_python
    assert said[0].startswith("[1/5] simulating")
    for name in ("posterior.npz", "estimator.npz"):
        assert (shell / name).read_bytes() == (study.out / name).read_bytes()
    saved = json.loads((shell / "report.json").read_text())
    assert saved["verdict"] == verdict.verdict
    assert [check["question"] for check in saved["checks"]] == [check["question"] for check in verdict.checks]


def test_what_is_trained_is_not_trained_again_unless_its_options_change(in_python, monkeypatch):
    study = in_python[0]
    monkeypatch.setattr(vb.NPE, "fit", None)
    fit_study(study)
    with pytest.raises(TypeError, match="not callable"):
        fit_study(dataclasses.replace(study, method=vb.NPE(ensemble=1)))


def test_a_run_goes_on_as_a_calibration_and_gives_the_same_posterior(shell_run, calibrated):
    before, (out, removed, status) = shell_run[0] / "results", calibrated
    found = vb.load(out / "calibration.npz")
    assert status == (3 if found.verdict == "fail" else 0)
    shards, after = ({p.name: p.stat().st_mtime_ns for p in (d / "store").glob("shard*.npz")} for d in (before, out))
    assert {name for name in shards if after[name] != shards[name]} == {removed}
    np.testing.assert_array_equal(
        *(vb.load(place / "posterior.npz").theta["coupling.G"] for place in (before, out)), strict=True
    )

    assert found.names == ("coupling.G",)
    assert len(found) + found.failed == 60
    assert found.verdict != "pass"  # 60 data sets are few, whatever they say
    assert json.loads((out / "report.json").read_text())["numbers"]["calibration"]["n"] == len(found)


@pytest.mark.slow
def test_calibrate_goes_on_from_what_is_there(calibrated):
    """A second call simulates and asks nothing again, and gives the same ranks."""
    out = calibrated[0]
    ranks = vb.load(out / "calibration.npz").ranks
    kept = {p: p.stat().st_mtime_ns for p in (out / "calibration").rglob("*.npz")}
    assert len(kept) > 2
    assert calibrate(out.parent) == calibrated[2]
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    np.testing.assert_array_equal(vb.load(out / "calibration.npz").ranks, ranks)


def test_held_out_simulations_are_none_of_those_trained_on(calibrated):
    trained = vb.load(calibrated[0] / "store").theta["coupling.G"]
    held_out = vb.load(calibrated[0] / "calibration" / "held-out").theta["coupling.G"]
    assert len(trained) == 256
    assert len(held_out) >= 60
    assert not set(trained.tolist()) & set(held_out.tolist())


def test_report_is_made_again_from_the_folder_alone(calibrated, capsys):
    out = calibrated[0]
    before = json.loads((out / "report.json").read_text())
    page = (out / "report.html").read_text()
    for name in ("report.json", "report.html"):
        (out / name).unlink()
    assert main(["report", str(out)]) == (3 if before["verdict"] == "fail" else 0)
    assert f"verdict: {before['verdict']}" in capsys.readouterr().out
    saved = json.loads((out / "report.json").read_text())
    for part in ("verdict", "findings", "checks"):
        assert saved[part] == before[part]
    for part in ("parameters", "features", "calibration", "recovery", "fc_correlation", "draws"):
        assert saved["numbers"][part] == before["numbers"][part]
    after = (out / "report.html").read_text()
    for words in ("Step size", "signal.csv", "Calibration of the estimator", "Replicates"):
        assert words in page
        assert words in after
    assert after.count("<img ") == page.count("<img ")


def test_a_calibration_of_another_estimator_is_left_out(calibrated, tmp_path):
    out = calibrated[0]
    assert calibration_of(out) is not None
    for name in ("calibration.npz", "posterior.npz"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    assert calibration_of(tmp_path) is None
    kind, header, arrays = npz.read(out / "estimator.npz")
    npz.write(tmp_path / "estimator.npz", kind, header, {name: value + 1 for name, value in arrays.items()})
    assert calibration_of(tmp_path) is None
    npz.write(tmp_path / "estimator.npz", kind, header | {"seconds": 1e9}, arrays)
    assert calibration_of(tmp_path) is not None


def test_a_folder_with_a_posterior_alone_gives_a_report_and_an_empty_one_a_sentence(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no posterior.npz; run `vbinfer run study.toml`" in capsys.readouterr().err
    vb.Posterior({"a": np.linspace(0.0, 1.0, 50)[None]}).save(tmp_path / "posterior.npz")
    assert main(["report", str(tmp_path), "--quiet"]) == 0
    assert "Not asked" in (tmp_path / "report.html").read_text()
    prior = vb.Prior({"a": dist.Normal(0.0, 1.0)})  # a posterior that is the prior: nothing learned, a failure
    vb.Posterior({"a": np.random.default_rng(0).normal(size=(1, 900))}, prior=prior).save(tmp_path / "posterior.npz")
    assert main(["report", str(tmp_path)]) == 3
    assert "Nothing learned" in capsys.readouterr().out


def test_another_study_in_the_same_folder_is_refused_and_the_draws_stay(calibrated, capsys):
    folder, place = calibrated[0].parent, calibrated[0] / "store"
    before = sorted(p.read_bytes() for p in place.glob("shard*"))
    other = STUDY.format(out="results").replace("high = 0.9", "high = 0.8")
    (folder / "other.toml").write_text(other)
    assert main(["run", str(folder / "other.toml"), "--cores", "1"]) == 1
    said = capsys.readouterr().err
    assert "prior" in said
    assert "Traceback" not in said
    assert before == sorted(p.read_bytes() for p in place.glob("shard*"))


def test_a_dry_run_estimates_and_writes_nothing(folder, capsys):
    (folder / "dry.toml").write_text(STUDY.format(out="never"))
    assert main(["run", str(folder / "dry.toml"), "--dry-run", "--cores", "1"]) == 0
    assert "256 draws of coupling.G" in capsys.readouterr().out
    assert not (folder / "never").exists()


def test_a_dry_run_of_a_calibration_counts_the_held_out_simulations(folder, capsys):
    (folder / "dry.toml").write_text(STUDY.format(out="never"))
    command = ["calibrate", str(folder / "dry.toml"), "--cores", "1"]
    assert main([*command, "--dry-run"]) == 0
    assert "256 draws and 300 held-out ones of coupling.G" in capsys.readouterr().out
    assert main([*command, "--draws", "9"]) == 1
    assert "--draws 9 was given; at least 50" in capsys.readouterr().err
    assert not (folder / "never").exists()


def test_the_replicates_are_the_other_segments_of_the_recording(folder):
    study = Study.from_toml(folder / "study.toml")
    table = np.loadtxt(folder / "signal.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(study.recording.values, table[:200], rtol=1e-6)
    assert len(study.replicates) == 1
    np.testing.assert_allclose(study.replicates[0].values, table[200:400], rtol=1e-6)


SAMPLED = '"Subsample", var = "x", period = 1.0'
MISTAKES = [
    ("integrator = {{ name", "integratr = {{ name", "Did you mean 'integrator'"),
    ("[summary]", "[sumary]", "Did you mean 'summary'"),
    ('name = "Heun"', 'name = "Huen"', "Did you mean 'Heun'"),
    ("dt = 0.1 ", "dtt = 0.1 ", "no option 'dtt'"),
    ('name = "fc_stat"', 'name = "fc_sat"', "Did you mean 'fc_stat'"),
    ('"coupling.G" = {{ name = "Uniform"', '"coupling.g" = {{ name = "Uniform"', "Did you mean 'coupling.G'"),
    ('"coupling.G" = {{ name = "Uniform"', 'coupling.G = {{ name = "Uniform"', "in quotes"),
    ('name = "Uniform"', 'name = "Unifrom"', "Did you mean 'Uniform'"),
    ("low = 0.0, high = 0.9", "low = 0.9, high = 0.0", "Uniform|low"),
    ("period = 1.0 }}", "period = 1.03 }}", "not a multiple of dt"),
    ("period     = 1.0\n", "period     = 2.0\n", "every 2 ms, the monitor every 1 ms"),
    ("period     = 1.0\n", "", "add period="),
    ('"signal.csv"', '"signl.csv"', "signl.csv"),
    ('"net.zip"', '"net2.zip"', "net2.zip"),
    ('"gamma.npy"', '"gama.npy"', "there is no file"),
    ("t1         = 220.0", "t1         = 900.0", "set t1 to at most 450"),
    ("transient  = 20.0", "transient  = 300.0", r"\[0, t1\)"),
    ("draws  = 256", "draws  = -4", "whole number above 0"),
    ("draws  = 256", "draws  = 256\ndrawss = 1", "Did you mean 'draws'"),
    ('model      = {{ name = "Linear"', 'model      = {{ name = "ReducedWongWang"', "gamma is -1.2; it must lie in"),
    ("coupling   = {{", "noisy      = {{", "Did you mean 'noise'"),
    ("[prior]", "[prior", "is not TOML"),
    ("sigma = 0.3", "sigma = -0.3", "must lie in"),
    ("recovery = 8", "recovery = -1", "whole number above -1"),
    ("predictive = 16", "predictive = 501", "more than the 500"),
    ("compare_dt = 0.05", "compare_dt = 0.3", "not a multiple of dt"),
    ('theta_true = {{ "coupling.G" = 0.6 }}', 'theta_true = {{ "coupling.g" = 0.6 }}', "Did you mean 'coupling.G'"),
    ('theta_true = {{ "coupling.G" = 0.6 }}', "theta_true = 3", "expected a table"),
    ('theta_true = {{ "coupling.G" = 0.6 }}', "participant = 3", "goes with bundled data"),
    ("seed   = 3", 'seed   = "a"', "seed"),
    ("t1         = 220.0", 't1         = "long"', "t1"),
    ("low = 0.0, high = 0.9 }}", 'low = 0.0, high = 0.9 }}\n"noise.sigma" = {{ name = "Normal" }}', "TruncatedNormal"),
    ("[output]", "[calibration]\ndraws = 20\n[output]", r"\[calibration\] draws is 20; expected .* above 49"),
    ("[output]", "[calibration]\ndraw = 200\n[output]", "Did you mean 'draws'"),
    ("[output]", '[execution]\nexecutor = "slurm"\n[output]', "local"),
    ('"Subsample", var = "x"', '"Subsample"', 'add var = "x"'),
    ('"Subsample", var = "x"', '"RunningFC", var = "x"', r"a matrix \[5, 5\] at a time .* summarise it by fc ="),
    ('"Subsample", var = "x"', '"RunningFC", var = "x", every = 0.25', "0.2 or 0.3 ms"),
    ('"Subsample", var = "x"', '"HRF", var = "x", kernel = {{ name = "GamaKernel" }}', "Did you mean 'GammaKernel'"),
    ('"Subsample", var = "x"', '"HRF", var = "x", kernel = {{ name = "GammaKernel", tua = 1 }}', "no option 'tua'"),
    ('"Subsample", var = "x"', '"HRF", var = "x", kernel = "GammaKernel"', 'write kernel = {{ name = "GammaKernel" }}'),
    (SAMPLED, '"HRF", var = "x", kernel = {{ name = "TvbVolterraKernel" }}, period = 500.0', "not of 10 ms"),
    (SAMPLED, '"BalloonWindkessel", var = "x", step = -1.0, period = 500.0', "must be positive"),
    (
        '"Subsample", var = "x"',
        '"SpatialAverage", var = "x", groups = [0, 0, 1, 1, 1]',
        r"reference of fc_match is \[5",
    ),
    ('"gamma.npy"', '"gamma.dat"', "give .npy, .npz, .csv or .txt"),
    ('"gamma.npy"', '"words.csv"', "words.csv' does not hold numbers alone .*'a'"),
    ('"gamma.npy"', '"two.npz"', "two.npz' holds a, b; expected one array"),
    ('"gamma.npy"', '"text.npy"', "text.npy' does not hold numbers alone; write it with np.save"),
    ('"gamma.npy"', '"names.npy"', "expected numbers"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[f"{i}" for i in range(len(MISTAKES))])
def test_mistakes_in_the_file(folder, old, new, message):
    template = STUDY.format(out="x")
    old, new, message = (text.replace("{{", "{").replace("}}", "}") for text in (old, new, message))
    assert old in template
    (folder / "wrong.toml").write_text(template.replace(old, new, 1))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Study.from_toml(folder / "wrong.toml")


def test_a_recording_of_other_channels_is_refused(folder):
    table = np.loadtxt(folder / "signal.csv", delimiter=",", skiprows=1)
    for name, values, message in (
        ("four.csv", table[:, :4], "4 channels"),
        ("still.csv", table * np.array([1, 1, 0, 1, 1]), "constant"),
        ("hole.csv", np.where(np.arange(5) == 2, np.nan, table), "NaN"),
    ):
        np.savetxt(folder / name, values, delimiter=",")
        (folder / "wrong.toml").write_text(STUDY.format(out="x").replace("signal.csv", name))
        with pytest.raises(ValueError, match=message):
            Study.from_toml(folder / "wrong.toml")


@pytest.mark.parametrize(
    ("monitor", "good", "bad", "message"),
    [
        ('"SpatialAverage", groups = ["l", "l", "r", "r", "r"]', "l,r", "a,b,c,d,e", "5 channels, .* 2 channels of Sp"),
        ('"SpatialAverage", groups = ["l", "l", "r", "r", "r"]', "L,R", "r,l", "column 0 of the recording is 'r'"),
        ('"SpatialAverage", groups = ["v", "w", "x", "y", "z"]', "v,w,x,y,z", "v,w", "2 channels, .* 5 channels of"),
        ('"EEG", gain = {{ array = "gain.csv" }}', "Fz,Cz,Pz", "a,b,c,d,e", "5 channels, .* 3 channels of EEG"),
    ],
)
def test_channels_of_a_recording_are_those_of_the_monitor_not_the_nodes(folder, monitor, good, bad, message):
    """Five nodes a to e; sensors and groups have columns of their own, even when there are as many as nodes."""
    np.savetxt(folder / "gain.csv", np.random.default_rng(1).normal(size=(3, 5)), delimiter=",")
    text = STUDY.replace('"Subsample"', monitor).replace('sc = {{ name = "fc_match", reference = "connectome" }}', "")
    (folder / "sensors.toml").write_text(text.format(out="x").replace("signal.csv", "sensors.csv"))
    for names in (good, bad):
        values = np.random.default_rng(2).normal(size=(210, names.count(",") + 1))
        np.savetxt(folder / "sensors.csv", values, delimiter=",", header=names, comments="")
        if names == good:
            study = Study.from_toml(folder / "sensors.toml")
            np.testing.assert_allclose(study.recording.values, values[:200], rtol=1e-6)
        else:
            with pytest.raises(ValueError, match=message):
                Study.from_toml(folder / "sensors.toml")


def test_a_kernel_is_named_as_a_part_is(folder):
    monitor = '"HRF", step = 2.0, period = 20.0, kernel = { name = "GammaKernel", shape = 2, tau = 0.7 }'
    (folder / "kernel.toml").write_text(
        STUDY.format(out="x").replace('"Subsample"', monitor).replace(", period = 1.0", "")
    )
    kernel = Study.from_toml(folder / "kernel.toml", data={"period": 20.0}).forward.sim.monitors["monitor"].kernel
    t = jnp.linspace(0.0, 5.0, 7)
    np.testing.assert_allclose(kernel(t), t / 0.7**2 * np.exp(-t / 0.7), rtol=1e-5)


@pytest.mark.parametrize("name", ["g.npy", "g.npz", "g.csv", "g.txt"])
def test_arrays_are_read_from_every_usual_kind_of_file(folder, name):
    gamma = -np.linspace(0.3, 0.8, 5)
    if name == "g.npy":
        np.save(folder / name, gamma)
    elif name == "g.npz":
        np.savez(folder / name, gamma=gamma)
    else:
        np.savetxt(folder / name, gamma[None], delimiter="," if name == "g.csv" else " ")
    (folder / "array.toml").write_text(STUDY.format(out="x").replace("gamma.npy", name))
    model = Study.from_toml(folder / "array.toml").forward.sim.model
    np.testing.assert_allclose(model.gamma, gamma, rtol=1e-6)


def test_a_missing_study_file_is_one_line_on_stderr(capsys):
    assert main(["run", "nowhere.toml", "--cores", "1"]) == 1
    assert capsys.readouterr().err.strip() == "vbinfer: there is no study file 'nowhere.toml'"


def test_the_demo_study_is_sound_and_names_real_data():
    study = Study.from_toml(DEMO)
    assert study.draws >= 1_000
    assert study.forward.t1 - study.forward.transient >= 240e3
    assert study.recording.values.shape == (360, 80)
    assert len(study.replicates) == 2
    assert "coupling.G" in study.prior.names
    assert len(study.prior.names) > 1


def test_the_demos_are_listed(capsys):
    assert main(["demo", "--list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(DEMOS) == ["fmri", "vep", "damped-oscillator"]
    assert "85 parameters" in listed


def test_a_demo_without_data_has_no_participant(capsys):
    assert main(["demo", "--task", "vep", "--participant", "3", "--cores", "1"]) == 1
    assert "--participant goes with --task fmri; vep is simulated" in capsys.readouterr().err


def test_the_recording_of_a_demo_is_a_simulation_of_its_truth(tmp_path):
    demo = demo_of("damped-oscillator")
    study = study_of("damped-oscillator", demo, tmp_path)
    assert study.theta_true is not None
    assert study.recording.values.shape == (20, 2)
    assert study.recording.period == 1.0
    at_truth = demo.task.log_likelihood(study.theta_true, study.x_o)
    # 40 squares of standard normals around the truth, within 4.5 standard deviations of their mean
    squares = -2.0 * float(at_truth) - 40 * np.log(2 * np.pi * 0.2**2)
    assert abs(squares - 40) < 4.5 * np.sqrt(80)
    elsewhere = {name: 0.52 - value for name, value in study.theta_true.items()}
    assert demo.task.log_likelihood(elsewhere, study.x_o) < at_truth - 10


def test_posteriors_of_other_methods_are_compared_in_the_report(in_python, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(in_python[0].out, out)
    posterior, inputs = vb.load(out / "posterior.npz"), load_inputs(out / "evidence.npz")
    theta = np.asarray(posterior.theta["coupling.G"])
    others = {
        "NUTS": vb.Posterior({"coupling.G": theta[:, ::-1]}),
        "HMC": vb.Posterior({"coupling.G": theta + 2.0 * theta.std()}),
    }
    save_inputs(out / "evidence.npz", dataclasses.replace(inputs, others=others))
    verdict = rebuild(out)
    (check,) = (one for one in verdict.checks if one["question"] == "Do methods agree on this posterior?")
    assert "NPE and NUTS agree" in check["sentence"]
    assert "NPE and HMC disagree" in check["sentence"]
    assert check["light"] == verdict.verdict == "fail"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vep", "damped-oscillator"])
def test_a_demo_without_data_is_worth_believing(tmp_path, task):
    """Truths are held, known truths recovered; NUTS agrees where there is a likelihood."""
    verdict = run_demo(task, tmp_path / "run")
    lights = {check["question"]: check["light"] for check in verdict.checks}
    assert verdict.verdict == ("warn" if task == "vep" else "pass")
    for question in ("Does the posterior hold the true values?", "Does the estimator recover known truths?"):
        assert lights[question] == "pass"
    assert ("Do methods agree on this posterior?" in lights) == (task == "damped-oscillator")


def test_example_prints_a_study_file(capsys):
    assert main(["example"]) == 0
    assert capsys.readouterr().out == DEMO.read_text()


def test_help_loads_no_jax():
    code = (
        "import sys\nfrom vbinfer.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nprint('jax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.stdout.strip().endswith("False")
