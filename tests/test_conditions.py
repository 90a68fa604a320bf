"""The same theta under several conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.simulation import forward
from vbinfer.study.table import StudyError

N, KEY = 3, jax.random.key(4)
W = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])
MAP = np.array([0.5, 0.0, -1.0])
CONDITIONS = {
    "rest": {},
    "stimulate-1": {"stimulus.amplitude": 2.0, "stimulus.gain": np.array([0.0, 1.0, 0.0])},
    "drug": {"model.gamma": MAP - 1.0, "coupling.G": 0.1},
}


def network(**options):
    return vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        vb.Connectome(W),
        coupling=vb.coupling.Linear(G=0.4),
        integrator=vb.Heun(dt=0.1),
        stimulus=vb.stimuli.Pulse(onset=1.0, duration=2.0, amplitude=0.0),
        monitors={"mean": vb.monitors.TimeAverage(1.0, "x")},
        **options,
    )


def model(**options):
    given = {"summary": {"mean": lambda y: y[-1]}, "conditions": CONDITIONS, "init": {"x": MAP}}
    return vb.ForwardModel(network(noise=vb.noise.Additive(0.3)), t1=5.0, **given | options)


def test_every_condition_is_the_forward_model_bound_to_it():
    """Condition k with fold_in(key, k); as many draws as nodes, one program."""
    fwd, keys = model(), jax.random.split(KEY, N)
    theta = {"noise.sigma": np.array([0.1, 0.3, 0.7])}
    before = forward._batch.compilations()
    x, ys = fwd.batch_series(theta, keys)
    assert forward._batch.compilations() == before + 1
    expected = []
    for k, values in enumerate(CONDITIONS.values()):
        alone = vb.ForwardModel(vb.bind(fwd.sim, values), t1=5.0, summary=fwd.parts[0], init={"x": MAP})
        own = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys)
        expected.append(alone.batch(theta, own))
        np.testing.assert_allclose(ys[list(CONDITIONS)[k]][:, -1], expected[-1], rtol=1e-5)
    np.testing.assert_allclose(x, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(expected, axis=0)).min(axis=(1, 2)).min() > 1e-4  # no two conditions are alike
    for b in range(N):
        one = fwd({"noise.sigma": theta["noise.sigma"][b]}, keys[b])
        np.testing.assert_allclose(one, x[b], rtol=1e-5, atol=1e-6)
    assert fwd.names == tuple(f"{name}.x[{i}]" for name in CONDITIONS for i in range(N))


def test_without_noise_it_is_the_closed_form_and_has_its_gradient():
    """Uncoupled dx/dt = gamma x from 1 under gamma = -1 and -2, Heun: x = (1 - h + h^2 / 2)^n, h = -gamma dt."""
    sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.1), monitors={"raw": vb.monitors.Raw("x")})
    fwd = vb.ForwardModel(
        sim, t1=1.0, summary=lambda y: y[-1], conditions={"slow": {"model.gamma": -1.0}, "fast": {"model.gamma": -2.0}}
    )
    growth = np.array([1 - h + h**2 / 2 for h in (0.1, 0.2)]) ** 10
    np.testing.assert_allclose(fwd({"init.x": 3.0}, None), 3.0 * growth, rtol=1e-5)
    slope = jax.jacrev(lambda start: fwd({"init.x": start}, None))(jnp.asarray(3.0))
    np.testing.assert_allclose(slope, growth, rtol=1e-5)


def test_conditions_enter_what_identifies_a_study_and_what_it_costs():
    same, other = model(), model(conditions={"rest": {}, "drug": {"coupling.G": 0.2}})
    assert model().fingerprint() == same.fingerprint() != other.fingerprint()
    assert same.estimate(10, width=2)["network_steps"] == 10 * 50 * 3


def test_draws_and_predictions_hold_the_features_of_all():
    import numpyro.distributions as dist

    prior, fwd = vb.Prior({"noise.sigma": dist.Uniform(0.1, 0.5)}), model()
    draws = vb.sample_prior_predictive(prior, fwd, n=4, key=KEY, progress=False)
    assert draws.names == fwd.names
    posterior = vb.Posterior({"noise.sigma": np.asarray(draws.theta["noise.sigma"])[None]})
    found = vb.posterior_predictive(posterior, fwd, n=4, key=KEY, series=True)
    for k, name in enumerate(CONDITIONS):
        np.testing.assert_allclose(found.ys[name][:, -1], found.x[:, 3 * k : 3 * k + 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("conditions", "theta", "message"),
    [
        (
            {"rest": {"coupling.g": 1.0}},
            {},
            r"no such parameter. Did you mean 'coupling.G'\? \(given by condition 'rest'\)",
        ),
        ({"rest": {"model.gamma": np.ones(4)}}, {}, r"expected a number or one value .* 3 nodes \(given by condition"),
        ({"rest": {"noise.sigma": -1.0}}, {}, r"must lie in .* \(given by condition 'rest'\)"),
        ({}, {}, r'conditions={"rest": {}'),
        ({"rest": 1.0}, {}, "write a mapping from name to paths"),
        (CONDITIONS, {"coupling.G": np.ones(1)}, "theta names 'coupling.G', which the conditions set"),
    ],
)
def test_mistakes(conditions, theta, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model(conditions=conditions).batch(theta, jax.random.split(KEY, 1))


STUDY = """
[data]
connectome = "network.npz"
recording  = { rest = "rest.csv", "stimulate-1" = "driven.csv" }
period     = 1.0

[simulator]
coupling   = { name = "Linear", G = 0.4 }
delays     = { max = 2.0 }
integrator = { name = "Heun", dt = 0.1 }
stimulus   = { name = "Pulse", onset = 1.0, duration = 2.0, amplitude = 0.0 }
monitor    = { name = "TimeAverage", var = "sent", period = 1.0 }
t1         = 6.0
transient  = 2.0

[simulator.model]
name   = "Mixed"
groups = { cortex = { name = "MontbrioPazoRoxin", eta = [-4.6, -5.2] }, thalamus = { name = "WilsonCowan", P = 0.5 } }
where  = ["cortex", "thalamus", "cortex"]
sends  = { cortex = "r", thalamus = "E" }

[conditions.rest]

[conditions."stimulate-1"]
"stimulus.amplitude" = 2.0
"stimulus.gain"      = [0.0, 1.0, 0.5]
"model.thalamus.P"   = { array = "drug.csv" }

[prior]
"model.cortex.eta" = { name = "Uniform", low = -5.5, high = -4.5, shape = 2 }
"coupling.G"       = { name = "Uniform", low = 0.1, high = 0.9 }

[summary]
level = { name = "moments" }

[inference]
method = { name = "NPE" }
draws  = 64
"""


@pytest.fixture
def place(tmp_path):
    np.savez(tmp_path / "network.npz", weights=W, tract_lengths=3.0 * W.T + 1.0, speed=3.0)
    rng = np.random.default_rng(0)
    for name, rows in {"rest": 9, "driven": 4}.items():
        np.savetxt(tmp_path / f"{name}.csv", rng.normal(size=(rows, N)), delimiter=",")
    (tmp_path / "drug.csv").write_text("0.8\n")
    return tmp_path


def study_of(place, *changes):
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (place / "study.toml").write_text(text)
    return vb.Study.from_toml(place / "study.toml")


def test_a_study_file_holds_several_models_and_conditions(place):
    """It is what the same parts are in Python; its recordings are one for each condition, in their order."""
    study = study_of(
        place, ('rest = "rest.csv", "stimulate-1" = "driven.csv"', '"stimulate-1" = "driven.csv", rest = "rest.csv"')
    )
    groups = {"cortex": vb.models.MontbrioPazoRoxin(eta=[-4.6, -5.2]), "thalamus": vb.models.WilsonCowan(P=0.5)}
    sim = vb.Simulator(
        vb.models.Mixed(groups, where=["cortex", "thalamus", "cortex"], sends={"cortex": "r", "thalamus": "E"}),
        vb.Connectome(W, 3.0 * W.T + 1.0, 3.0),
        coupling=vb.coupling.Linear(G=0.4),
        delays=vb.Delays(max=2.0),
        integrator=vb.Heun(dt=0.1),
        stimulus=vb.stimuli.Pulse(onset=1.0, duration=2.0, amplitude=0.0),
        monitors={"monitor": vb.monitors.TimeAverage(1.0, "sent")},
    )
    driven = {"stimulus.amplitude": 2.0, "stimulus.gain": np.array([0.0, 1.0, 0.5]), "model.thalamus.P": 0.8}
    conditions = {"rest": {}, "stimulate-1": driven}
    own = vb.ForwardModel(sim, t1=6.0, transient=2.0, summary=study.forward.parts[0], conditions=conditions)
    assert own.fingerprint() == study.forward.fingerprint()
    assert own.names == study.forward.names
    theta = {"model.cortex.eta": np.array([-5.0, -4.7]), "coupling.G": 0.3}
    x = study.forward(theta, None)
    np.testing.assert_array_equal(x, own(theta, None))
    half = len(x) // 2
    assert np.abs(x[half:] - x[:half]).max() > 0.01
    parts = [own.parts[0](np.loadtxt(place / f"{name}.csv", delimiter=",")[:4]) for name in ("rest", "driven")]
    np.testing.assert_allclose(study.x_o, np.concatenate(parts), rtol=1e-6)
    assert study.replicates == ()  # of one recording only
    for same, parsed in zip(jax.tree.leaves(study.forward), jax.tree.leaves(study_of(place).forward), strict=True):
        np.testing.assert_array_equal(same, parsed)


def test_further_pieces_of_all_recordings_are_replicates(place):
    np.savetxt(place / "driven.csv", np.random.default_rng(1).normal(size=(8, N)), delimiter=",")
    study = study_of(place)
    (more,) = study.replicates
    second = [np.loadtxt(place / f"{name}.csv", delimiter=",")[4:8] for name in ("rest", "driven")]
    expected = np.concatenate([study.forward.parts[0](y) for y in second])
    np.testing.assert_allclose(study.features(more), expected, rtol=1e-6)


WHAT = '[conditions.rest]\n\n[conditions."stimulate-1"]'
GROUPS = '{ cortex = { name = "MontbrioPazoRoxin", eta = [-4.6, -5.2] }, thalamus = { name = "WilsonCowan", P = 0.5 } }'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"stimulus.amplitude"', '"stimulus.amplitud"'), r"\[conditions.stimulate-1\]: .*Did you mean 'stimulus.ampl"),
        (('"stimulus.amplitude" = 2.0', "stimulus.amplitude = 2.0"), 'path in quotes: "stimulus.amplitude" = '),
        (('"stimulus.amplitude" = 2.0', '"stimulus.amplitude" = "big"'), r"\[conditions.stimulate-1\]: .*'big'"),
        (("drug.csv", "drag.csv"), "there is no file .*drag.csv"),
        ((WHAT, "[conditions]\nrest = 1.0\n[conditions.stimulated]"), r"write a table of paths for each condition"),
        (("[conditions.rest]", "[conditions.task]"), r"\[data\] recording has no key 'rest'"),
        (('rest = "rest.csv", ', ""), r"\[data\] recording lacks the key 'rest'"),
        (
            ('{ rest = "rest.csv", "stimulate-1" = "driven.csv" }', '"rest.csv"'),
            r'one for all conditions; write recording = \{ "rest" = "rest.csv", "stimulate-1" = "stimulate-1.csv" \}',
        ),
        (('"coupling.G"', '"stimulus.gain"'), "theta names 'stimulus.gain', which the conditions set"),
        (
            (GROUPS, '{ cortex = { name = "MontbrioPazo" } }'),
            "names 'MontbrioPazo', .*Did you mean 'MontbrioPazoRoxin'",
        ),
        (
            ('thalamus = "E"', 'thalamus = "e"'),
            r"\[simulator\] model: group 'thalamus' sends 'e', no variable of its model",
        ),
        (('where  = ["cortex", "thalamus", "cortex"]\n', ""), "Mixed needs the option 'where'; write where = "),
        (('"cortex", "thalamus", "cortex"', '"cortex", "cortex", "cortex"'), "group 'thalamus' has no node"),
        (
            ('name = "WilsonCowan", P = 0.5', "P = 0.5"),
            r"groups.thalamus is .*; expected a table with a name, such as \{ name = ",
        ),
    ],
)
def test_mistakes_in_a_study_file(place, change, message):
    with pytest.raises(StudyError, match=message):
        study_of(place, change)


def test_recordings_by_condition_need_conditions(place):
    text = STUDY[: STUDY.index("[conditions.rest]")] + STUDY[STUDY.index("[prior]") :]
    (place / "study.toml").write_text(text)
    with pytest.raises(StudyError, match=r"add a table for each, \[conditions.rest\], or give one file"):
        vb.Study.from_toml(place / "study.toml")


def test_a_likelihood_of_the_series_of_all_conditions(place):
    """x = f + sigma e of each condition; what a sampler takes, with sigma from the prior."""
    edits = [
        (
            STUDY[STUDY.index("[summary]") : STUDY.index("[inference]")],
            '[likelihood]\nname = "Gaussian"\nsigma = "s"\n',
        ),
        ('{ name = "NPE" }\ndraws  = 64', '{ name = "NUTS" }'),
        ("[prior]", '[prior]\ns = { name = "HalfNormal", scale = 0.2 }'),
    ]
    study = study_of(place, *edits)
    theta = {"model.cortex.eta": np.full((50, 2), -5.0), "coupling.G": np.full(50, 0.3), "s": np.full(50, 0.2)}
    keys = jax.random.split(KEY, 50)
    x, ys = study.simulator.batch_series(theta, keys)
    e = np.asarray(x - study.forward.batch(theta, keys)) / 0.2
    assert abs(e.std() - 1.0) < 5 / np.sqrt(2 * e.size)
    assert list(ys) == ["rest", "stimulate-1"]
    np.testing.assert_array_equal(np.concatenate([y.reshape(50, -1) for y in ys.values()], axis=1), x)
    assert study.x_o.shape == x.shape[1:] == (2 * 4 * N,)


@pytest.mark.slow
def test_a_study_of_two_conditions_runs(place):
    """NUTS finds G from both recordings, and the page is written."""
    edits = [
        (
            STUDY[STUDY.index("[summary]") : STUDY.index("[inference]")],
            '[likelihood]\nname = "Gaussian"\nsigma = 0.0002\n',
        ),
        (
            '{ name = "NPE" }\ndraws  = 64',
            '{ name = "NUTS" }\nposterior_samples = 100\nnum_chains = 2\nnum_warmup = 100',
        ),
        (STUDY[STUDY.index('"model.cortex.eta" = ') : STUDY.index('"coupling.G" ')], ""),
    ]
    study = study_of(place, *edits)
    _, ys = study.forward.batch_series({"coupling.G": np.array([0.5])}, jax.random.split(KEY, 1))
    for name, file in (("rest", "rest.csv"), ("stimulate-1", "driven.csv")):
        np.savetxt(place / file, ys[name][0], delimiter=",")
    vb.run_study(study_of(place, *edits))
    G = vb.load(place / "runs" / "study" / "posterior.npz").theta["coupling.G"]
    assert abs(G.mean() - 0.5) < 4 * G.std()
    assert G.std() < 0.1
    assert (place / "runs" / "study" / "report.html").is_file()
