"""Studies from Python: the same as from the shell, for every estimator and every sampler."""

import shutil
import warnings

import jax
import numpy as np
import pytest
from small_study import METHOD

import vbinfer as vb
from vbinfer.cli.main import main
from vbinfer.neural.densities import DENSITIES
from vbinfer.neural.embeddings import EMBEDDINGS
from vbinfer.study.folder import ReportInputs, load_inputs, save_inputs
from vbinfer.study.model import Measured
from vbinfer.study.study import ESTIMATORS, PARTS, SAMPLERS

ODE = """
[data]
recording = "wave.csv"
period    = 0.5

[simulator]
model      = { name = "DampedOscillator" }
integrator = { name = "Heun", dt = 0.05 }
monitor    = { name = "Subsample", var = "x", period = 0.5 }
nodes      = 1
t1         = 20.0
transient  = 2.0

[prior]
"model.a" = { name = "Uniform", low = 0.02, high = 0.4 }

[likelihood]
name  = "Gaussian"
sigma = 0.05

[inference]
method = { name = "NUTS", max_tree_depth = 5 }
posterior_samples = 100
num_chains = 2
num_warmup = 150
seed = 1

[report]
predictive = 24

[output]
dir = "results"
"""
"""A deterministic oscillator seen through noise of sd 0.05: what a sampler takes."""
TRUE = 0.1
SIGMA = ("sigma = 0.05", 'sigma = "s"'), ("[prior]", '[prior]\ns = { name = "HalfNormal", scale = 0.2 }')
SUMMARY = ("[prior]", '[summary]\nlevel = { name = "moments" }\n\n[prior]')


def written(place, *changes, name="ode.toml"):
    """The file of the oscillator with pieces of its text replaced."""
    text = ODE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (place / name).write_text(text)
    return place / name


@pytest.fixture(scope="module")
def folder(study_files, tmp_path_factory):
    """The study of five nodes, and a recording of the oscillator at a = 0.1."""
    place = tmp_path_factory.mktemp("studies") / "study"
    shutil.copytree(study_files, place)
    sim = vb.Simulator(
        vb.models.DampedOscillator(a=TRUE),
        integrator=vb.Heun(dt=0.05),
        monitors={"x": vb.monitors.Subsample(0.5, var="x")},
        nodes=1,
    )
    x = np.asarray(vb.simulate(sim, t1=20.0, key=None).ys["x"])[4:]
    np.savetxt(place / "wave.csv", x + 0.05 * np.random.default_rng(0).normal(size=x.shape), delimiter=",")
    return place


def test_a_sampler_finds_the_parameter_and_the_noise(folder, capsys):
    """[summary] is left out: the likelihood is of the series."""
    study = vb.Study.from_toml(written(folder, *SIGMA))
    learned = vb.run_study(study).checks[0]
    assert (learned["question"], learned["light"]) == ("What was learned?", "pass")
    posterior = vb.load(folder / "results" / "posterior.npz")
    assert posterior.theta["model.a"].shape == (2, 100)
    for name, truth in (("model.a", TRUE), ("s", 0.05)):
        assert abs(posterior.theta[name].mean() - truth) < 4 * posterior.theta[name].std()
        assert posterior.theta[name].std() < 0.05
    page = (folder / "results" / "report.html").read_text()
    for section in ("chains", "predictive", "posterior"):
        assert f'<section id="{section}"' in page
    assert 'id="recovery"' not in page
    assert 'id="training"' not in page
    before = (folder / "results" / "posterior.npz").read_bytes()
    assert main(["infer", str(folder / "ode.toml"), "--quiet", "--cores", "1"]) == 0  # from chains/, bit for bit
    assert capsys.readouterr().out == ""
    assert (folder / "results" / "posterior.npz").read_bytes() == before


@pytest.mark.parametrize("method", SAMPLERS)
def test_every_sampler_may_stand_in_a_study_file(folder, method):
    path = written(folder, ('NUTS", max_tree_depth = 5', f'{method}"'), SUMMARY, name=f"{method}.toml")
    study = vb.Study.from_toml(path, out=folder / method)
    assert type(study.method).__name__ == method
    assert study.x_o.shape == (len(study.forward.names),)
    assert study.chains == {"num_chains": 2, "num_warmup": 150}
    assert study.report.recovery == 0


@pytest.mark.parametrize("method", ESTIMATORS)
def test_every_estimator_may_stand_in_a_study_file(folder, method):
    option = 'name = "SbiEstimator", method = "NPE"' if method == "SbiEstimator" else f'name = "{method}"'
    text = (folder / "study.toml").read_text().replace(METHOD, f"{{ {option} }}")
    chains = method in ("NLE", "NRE")
    if chains:
        text = text.replace("seed", 'num_chains = 3\nkernel = { name = "HMC" }\nseed')
    (folder / "estimator.toml").write_text(text)
    study = vb.Study.from_toml(folder / "estimator.toml")
    assert type(study.method).__name__ == method
    assert study.chains == ({"num_chains": 3, "kernel": vb.sampling.HMC()} if chains else {})
    assert not study.is_sampler


@pytest.mark.slow
def test_a_learned_likelihood_is_sampled_by_the_chains_of_the_file(folder):
    text = (
        (folder / "study.toml").read_text().replace(METHOD, '{ name = "NLE" }').replace("recovery = 8", "recovery = 0")
    )
    text = text.replace("posterior_samples = 500", "posterior_samples = 50\nnum_chains = 4\nnum_warmup = 100")
    (folder / "nle.toml").write_text(text)
    vb.run_study(vb.Study.from_toml(folder / "nle.toml", out=folder / "nle"))
    posterior = vb.load(folder / "nle" / "posterior.npz")
    assert posterior.theta["coupling.G"].shape == (4, 50)
    assert abs(posterior.theta["coupling.G"].mean() - 0.6) < 4 * posterior.theta["coupling.G"].std()


@pytest.mark.slow
def test_a_sampler_is_calibrated_over_its_prior(folder):
    # a prior of sigma down to 0 has data sets whose posterior is 1e-5 wide: 150 steps of warm-up do not get there
    longer = ("num_warmup = 150", "num_warmup = 600")
    path = written(
        folder, *SIGMA, longer, ("[report]", "[calibration]\ndraws = 60\nposterior_samples = 49\n\n[report]")
    )
    study = vb.Study.from_toml(path, out=folder / "calibrated")
    verdict, found = vb.calibrate_study(study)
    assert set(found.names) == {"model.a", "s"}
    assert found.verdict != "fail", found.findings
    assert (folder / "calibrated" / "calibration.npz").is_file()
    assert verdict.numbers["calibration"]["n"] == len(found)


def test_measured_data_have_the_spread_of_the_likelihood(folder):
    """x = f(theta) + sigma e, with the leaf of each draw; the series carry the same noise."""
    study = vb.Study.from_toml(written(folder, *SIGMA))
    assert isinstance(study.simulator, Measured)
    theta = {"model.a": np.full(400, TRUE), "s": np.repeat([0.02, 0.3], 200)}
    keys = jax.random.split(jax.random.key(0), 400)
    x, ys = study.simulator.batch_series(theta, keys)
    mean = study.forward.batch(theta, keys)
    z = (np.asarray(x) - np.asarray(mean)) / theta["s"][:, None]
    for rows in (z[:200], z[200:]):
        assert abs(rows.std() - 1.0) < 5 / np.sqrt(2 * rows.size)
        assert abs(rows.mean()) < 5 / np.sqrt(rows.size)
    np.testing.assert_array_equal(np.asarray(ys).reshape(400, -1), x)


def test_a_noisy_simulator_under_a_sampler_is_warned_of(folder):
    """Its likelihood keeps to one noise path: the same number again, and another one than without noise."""
    noise = ("[simulator]", '[simulator]\nnoise = { name = "Additive", sigma = 0.01 }')
    study = vb.Study.from_toml(written(folder, noise), out=folder / "noisy")
    without = vb.Study.from_toml(written(folder))
    theta, x_o = {"model.a": TRUE}, study.x_o
    once, again, other = (float(one.likelihood(theta, x_o)) for one in (study, study, without))
    assert np.isfinite(once)
    assert once == again != other
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # ends the run where it is said
        with pytest.raises(UserWarning, match="leave \\[simulator\\] noise out"):
            vb.run_study(study)


MISTAKES = [
    (("posterior_samples", "draws = 100\nposterior_samples"), "leave draws out"),
    (('[likelihood]\nname  = "Gaussian"\nsigma = 0.05', ""), r"add \[likelihood\]"),
    (("sigma = 0.05", 'sigma = "a"'), "Did you mean|sigma is 'a'"),
    (("sigma = 0.05", "sigma = -1"), "expected a number above 0"),
    (("sigma = 0.05", ""), "lacks the key 'sigma'"),
    (('"Gaussian"', '"Gausian"'), "Did you mean 'Gaussian'"),
    (('"NUTS"', '"NUTZ"'), "Did you mean 'NUTS'"),
    (("max_tree_depth = 5", "max_depth = 5"), "no option 'max_depth'"),
    (("num_chains = 2", "num_chains = 0"), "num_chains is 0; expected a whole number above 0"),
    (("seed", 'kernel = { name = "HMC" }\nseed'), "leave one of them out"),
    (('name = "NUTS", max_tree_depth = 5', 'name = "NPE"'), r"\[likelihood\] goes with a sampler"),
    (('"model.a"', '"modl.a"'), "Did you mean 'model.a'"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_mistakes_of_a_sampler(folder, change, message):
    with pytest.raises(ValueError, match=message):
        vb.Study.from_toml(written(folder, change, name="wrong.toml"))


def test_chains_belong_to_methods_that_have_some(folder):
    text = (folder / "study.toml").read_text().replace("seed", "num_chains = 4\nseed")
    (folder / "wrong.toml").write_text(text)
    with pytest.raises(ValueError, match=r"num_chains goes with NLE, NRE, NUTS, .*; NPE has no chains"):
        vb.Study.from_toml(folder / "wrong.toml")


@pytest.mark.parametrize("verb", ["simulate", "fit"])
def test_a_sampler_has_nothing_to_simulate_or_fit(folder, verb, capsys):
    path = written(folder, name="verbs.toml")
    assert main([verb, str(path), "--cores", "1", "--quiet"]) == 1
    assert f"write `vbinfer infer {path}`" in capsys.readouterr().err


def test_infer_asks_for_the_fit(folder, capsys):
    assert main(["infer", str(folder / "study.toml"), "--out", str(folder / "empty"), "--cores", "1"]) == 1
    assert "write `vbinfer fit" in capsys.readouterr().err


def test_densities_and_embeddings_of_a_method_are_found_by_name():
    for name, kind in (DENSITIES | EMBEDDINGS).items():
        assert PARTS[name] is kind
    assert PARTS["RatioClassifier"] is PARTS["Classifier"] is vb.neural.RatioClassifier


def test_inputs_of_a_report_come_back_as_they_were(tmp_path):
    """No name in a mapping of the user's is taken for one of the file's."""
    theta = {"array": np.arange(3.0), "mapping": np.ones((3, 2))}
    predictive = vb.Predictive(np.ones((3, 1)), ("x",), {"list": np.zeros((3, 2, 1))}, np.ones(3, bool), theta)
    extras = vb.reporting.ReportExtras(
        prior_predictive=predictive, notes={"Section": [1, "two", None]}, units={"tuple": "ms"}
    )
    save_inputs(tmp_path / "e.npz", ReportInputs(predictive=predictive, extras=extras, theta_true={"array": 2.0}))
    back = load_inputs(tmp_path / "e.npz")
    assert back.predictive is not None
    np.testing.assert_equal(back.predictive.theta, theta)
    np.testing.assert_equal(back.predictive.ys, predictive.ys)
    assert (back.theta_true, back.extras.notes, back.extras.units) == ({"array": 2.0}, extras.notes, extras.units)
    assert back.extras.fcd == extras.fcd
