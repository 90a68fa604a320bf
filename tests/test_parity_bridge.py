"""Simulators of The Virtual Brain, carried over, against what they compute themselves: `make test-parity`."""

import copy
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import vbinfer as vb

pytestmark = pytest.mark.parity
pytest.importorskip("tvb", reason="tvb-library is not installed: make test-parity")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tvb.datatypes import (
        connectivity,
        cortex,
        equations,
        local_connectivity,
        patterns,
        projections,
        region_mapping,
        sensors,
        surfaces,
    )
    from tvb.simulator import coupling as tvb_coupling
    from tvb.simulator import integrators, monitors, simulator
    from tvb.simulator import models as tvb_models
    from tvb.simulator import noise as tvb_noise
    from tvb_problems import (
        DT,
        MODELS,
        STEPS,
        couplings,
        deviation,
        double_precision,  # noqa: F401  (a fixture)
        normals,
        problem,
        sampled,
        theirs,
        trajectory,
    )


PAGE = Path(vb.__file__).parent.parent / "docs/how-to/from-tvb-inversion.md"


def start(sim, reference) -> vb.History:
    """TVB's initial conditions, `[time, variable, node, mode]`."""
    return vb.History(sim.model.State(*reference.initial_conditions[..., 0].swapaxes(0, 1)))


def carried(reference, steps=STEPS, sim=None, **options) -> np.ndarray:
    """`[T, V, N]` of what TVB's simulator becomes here."""
    sim = vb.bridges.from_tvb(reference) if sim is None else sim
    y = vb.simulate(sim, t1=steps * sim.dt, key=None, init=start(sim, reference), **options).ys["raw"]
    return np.stack([y[v] for v in sim.model.variables()], axis=1) if isinstance(y, dict) else np.asarray(y)[:, None]


def past(given, rows, seed=9):
    """A random history `[H, V, N]`."""
    return given.x0 * (1.0 + 0.1 * np.random.default_rng(seed).normal(size=(rows, *given.x0.shape)))


@pytest.mark.parametrize("name", MODELS)
def test_models_and_couplings(name):
    """Parameters that differ between nodes, in a directed network with a past of its own."""
    for kind, delayed in (("natural", True), ("Difference", False), ("Linear", True)):
        given = problem(name, 7, delayed)
        if name == "MontbrioPazoRoxin":
            given.params["cv"] = np.linspace(-0.3, 0.5, 7) * delayed
        rows = int(np.rint(given.lengths / 2.5 / DT).max()) + 1
        reference, _ = couplings(name, kind)
        # states near their bounds, as drawn: a past of the constant state where a large power would diverge
        history = past(given, rows) if name not in ("Epileptor", "LarterBreakspear") else None
        options = {} if history is None else {"past": history}
        configured = theirs(name, given, reference, integrators.HeunDeterministic(dt=DT), **options)
        y = carried(configured)
        expected = trajectory(configured)
        assert np.isfinite(expected).all()
        assert np.ptp(expected, axis=0).max() > 0.0
        assert deviation(y, expected) < 1e-9, kind


OTHERS = {
    "GastSchmidtKnosche_SF": ("Linear", [(0.0, 0.5), (-2.0, 0.0), (0.0, 0.5), (-0.2, 0.2)]),
    "GastSchmidtKnosche_SD": ("Difference", [(0.0, 0.5), (-2.0, 0.0), (0.0, 0.5), (-0.2, 0.2)]),
    "ReducedSetFitzHughNagumo": ("Difference", [(-1.0, 1.0)] * 4),
    "ReducedSetHindmarshRose": ("Scaling", [(-0.5, 0.5)] * 6),
}


@pytest.mark.parametrize("name", OTHERS)
def test_models_with_other_names_or_modes(name):
    """Modes have a state and noise of their own; monitors here see their sum."""
    kind, ranges = OTHERS[name]
    rng = np.random.default_rng(5)
    model = getattr(tvb_models, name)(J=np.array([15.0])) if "Gast" in name else getattr(tvb_models, name)()
    given, modes = problem("Linear", 5, True), model.number_of_modes
    rows = int(np.rint(given.lengths / 2.5 / DT).max()) + 1  # as many as TVB keeps
    past = np.stack([rng.uniform(*r, (rows, 5, modes)) for r in ranges], axis=1)
    source = tvb_noise.Additive(nsig=np.array([1e-4]), random_stream=np.random.RandomState(7))
    reference = simulator.Simulator(
        model=model,
        connectivity=connectivity.Connectivity(
            weights=given.weights,
            tract_lengths=given.lengths,
            speed=np.array([2.5]),
            region_labels=np.array(list("abcde")),
            centres=np.zeros((5, 3)),
        ),
        coupling=getattr(tvb_coupling, kind)(a=np.array([0.05])),
        integrator=integrators.HeunStochastic(dt=DT, noise=source),
        monitors=[monitors.Raw()],
        initial_conditions=past.copy(),
    )
    reference.configure()
    sim = vb.bridges.from_tvb(reference)
    history = past.swapaxes(0, 1) if modes > 1 else past[..., 0].swapaxes(0, 1)
    z = np.random.RandomState(7).normal(size=(STEPS, len(ranges), 5, modes))
    path = dict(zip(sim.model.variables(), (z if modes > 1 else z[..., 0]).swapaxes(0, 1), strict=True))
    init = vb.History(sim.model.State(*history))
    ys = vb.simulate(sim, t1=STEPS * DT, key=None, init=init, noise_path=path).ys["raw"]
    expected = np.array([output[0][1].sum(axis=-1) for output in reference(n_steps=STEPS)])
    for k, var in enumerate(model.variables_of_interest):
        y = ys[var] if isinstance(ys, dict) else ys
        assert np.isfinite(expected[:, k]).all()
        assert np.abs(y - expected[:, k]).max() < 1e-9 * np.abs(expected[:, k]).max(), var


NOT_HERE = {
    "CoombesByrne",
    "DumontGutkin",
    "EpileptorCodim3",
    "EpileptorCodim3SlowMod",
    "EpileptorRestingState",
    "Hopfield",
    "KIonEx",
    "ZerlautAdaptationSecondOrder",
    "ZetterbergJansen",
}


def test_every_model_of_tvb_is_compared_or_refused_by_name():
    base = tvb_models.base.Model
    known = {
        name
        for name in dir(tvb_models)  # loaded as they are named
        if isinstance(kind := getattr(tvb_models, name), type) and issubclass(kind, base) and kind is not base
    }
    assert known - NOT_HERE == {*MODELS, *OTHERS}
    for name in NOT_HERE:
        given = everything()
        given.model = getattr(tvb_models, name)()
        with pytest.raises(ValueError, match=f"no model {name}, which"):
            vb.bridges.from_tvb(given)


@pytest.mark.parametrize("scheme", ["EulerDeterministic", "HeunDeterministic", "RungeKutta4thOrderDeterministic"])
@pytest.mark.parametrize("delayed", [False, True])
def test_integrators_hold_the_coupling_over_a_step(scheme, delayed):
    given = problem("SupHopf", 6, delayed)
    reference, _ = couplings("SupHopf", "Difference")
    configured = theirs("SupHopf", given, reference, getattr(integrators, scheme)(dt=2 * DT))
    sim = vb.bridges.from_tvb(configured)
    y, expected = carried(configured, sim=sim), trajectory(configured)
    assert deviation(y, expected) < 1e-9
    assert scheme == "EulerDeterministic" or sim.integrator.frozen_coupling


FORMS = {"all": (1,), "variable": (2,), "node": (5,), "both": (2, 5), "multiplicative": (2, 5)}


# TVB's Heun does not take nsig [node], though its Euler does
@pytest.mark.parametrize(
    ("scheme", "form"),
    [("EulerStochastic", form) for form in FORMS] + [("HeunStochastic", f) for f in FORMS if f != "node"],
)
def test_noise_with_the_normals_of_tvb(scheme, form):
    given = problem("WilsonCowan", 5, True)
    rng = np.random.default_rng(4)
    nsig = rng.uniform(0.001, 0.004, FORMS[form])
    if form == "variable":
        nsig[1] = 0.0
    options = {"nsig": nsig.copy(), "random_stream": np.random.RandomState(7)}
    if form == "multiplicative":
        source = tvb_noise.Multiplicative(b=equations.Linear(parameters={"a": 0.7, "b": 0.1}), **options)
    else:
        source = tvb_noise.Additive(**options)
    reference, _ = couplings("WilsonCowan", "Linear")
    configured = theirs("WilsonCowan", given, reference, getattr(integrators, scheme)(dt=DT, noise=source))
    sim = vb.bridges.from_tvb(configured)
    driven = ("E",) if form == "variable" else ("E", "I")
    path = dict(zip("EI", normals(7, STEPS, given.x0).swapaxes(0, 1), strict=True))
    y = carried(configured, sim=sim, noise_path={v: path[v] for v in driven})
    assert deviation(y, trajectory(configured)) < 1e-9
    assert sim.noise.noisy(sim.state_shapes()) == driven


def test_multiplicative_noise_in_a_batch_of_draws_is_that_of_each_draw():
    given = problem("WilsonCowan", 3, False)
    source = tvb_noise.Multiplicative(nsig=np.linspace(0.001, 0.004, 6).reshape(2, 3))
    reference, _ = couplings("WilsonCowan", "Linear")
    configured = theirs("WilsonCowan", given, reference, integrators.HeunStochastic(dt=DT, noise=source))
    forward = vb.ForwardModel(
        vb.bridges.from_tvb(configured), t1=20 * DT, summary=lambda y: jnp.concatenate([y["E"][-1], y["I"][-1]])
    )
    keys, theta = jax.random.split(jax.random.key(0), 3), {"coupling.G": jnp.array([0.1, 0.2, 0.4])}
    one_by_one = [forward({"coupling.G": G}, key) for G, key in zip(theta["coupling.G"], keys, strict=True)]
    np.testing.assert_allclose(forward.batch(theta, keys), jnp.stack(one_by_one), rtol=1e-9)


def watched(kind, sensor, projection, **options):
    """A monitor of sensors over 30 vertices, without noise."""
    rng = np.random.default_rng(3)
    labels = np.array(["A1", "B2", "C3", "D4"])
    places = {"labels": labels, "locations": rng.normal(size=(4, 3))}
    if sensor is sensors.SensorsMEG:
        places["orientations"] = rng.normal(size=(4, 3))
    mapping = np.concatenate([np.arange(9), rng.integers(0, 9, 21)])
    return kind(
        sensors=sensor(**places),
        projection=projection(projection_data=rng.normal(size=(4, 30))),
        region_mapping=region_mapping.RegionMapping(array_data=mapping),
        obsnoise=None,
        **options,
    )


def test_monitors_keep_order_and_variables_of_interest():
    """A model observes y4, y1, y0: monitors count among these."""
    name, given = "JansenRit", problem("JansenRit", 9, False)
    some = np.array([0, 2])
    watch = [
        monitors.TemporalAverage(period=7 * DT, variables_of_interest=some),
        monitors.Raw(),
        monitors.SubSample(period=5.2 * DT, variables_of_interest=some),  # rounded to 5 steps
        monitors.SpatialAverage(
            period=3 * DT, spatial_mask=np.array([0, 2, 1, 1, 0, 2, 2, 0, 1]), variables_of_interest=some
        ),
        monitors.GlobalAverage(period=4 * DT, variables_of_interest=np.array([2])),
        monitors.TemporalAverage(period=5 * DT, variables_of_interest=np.array([0])),
        watched(
            monitors.EEG,
            sensors.SensorsEEG,
            projections.ProjectionSurfaceEEG,
            period=6 * DT,
            reference="B2",
            variables_of_interest=np.array([1, 0]),
        ),
        watched(
            monitors.MEG,
            sensors.SensorsMEG,
            projections.ProjectionSurfaceMEG,
            period=6 * DT,
            variables_of_interest=np.array([1]),
        ),
        watched(
            monitors.iEEG,
            sensors.SensorsInternal,
            projections.ProjectionSurfaceSEEG,
            period=9 * DT,
            variables_of_interest=np.array([2]),
        ),
    ]
    reference, _ = couplings(name, "natural")
    scheme, observed = integrators.HeunDeterministic(dt=DT), ("y4", "y1", "y0")
    configured = theirs(name, given, reference, scheme, monitors=watch, observed=observed)
    sim = vb.bridges.from_tvb(configured)
    run = vb.simulate(sim, t1=90 * DT, key=None, init=start(sim, configured))
    outputs = [y for _, y in sampled(configured, 90)]
    mean, raw, sub, groups, everywhere, second, eeg, meg, seeg = outputs
    expected = {
        "temporal_average": {"y4": mean[:, 0], "y0": mean[:, 1]},
        "raw": {"y4": raw[:, 0], "y1": raw[:, 1], "y0": raw[:, 2]},
        "sub_sample": {"y4": sub[:, 0], "y0": sub[:, 1]},
        "spatial_average_y4": groups[:, 0],
        "spatial_average_y0": groups[:, 1],
        "global_average": everywhere[:, 0],
        "temporal_average_2": second[:, 0],
        "eeg_y1": eeg[:, 0],
        "eeg_y4": eeg[:, 1],
        "meg": meg[:, 0],
        "ieeg": seeg[:, 0],
    }
    assert list(run.ys) == list(expected)
    for monitor, values in expected.items():
        parts = values if isinstance(values, dict) else {monitor: values}
        for var, value in parts.items():
            y = run.ys[monitor][var] if isinstance(values, dict) else run.ys[monitor]
            assert np.ptp(value) > 0.0
            np.testing.assert_allclose(y, value, rtol=1e-9, atol=1e-9 * np.abs(value).max(), err_msg=monitor)
    assert sim.monitors["eeg_y4"].labels == ("A1", "B2", "C3", "D4")


def test_bold():
    """TVB gives the newest block of 4 ms the weight of 20 s ago, some 1e-7 of the signal; here it has none."""
    given = problem("Generic2dOscillator", 5, False)
    kernel = equations.FirstOrderVolterra(parameters={"tau_s": 0.7, "tau_f": 0.5, "k_1": 5.0, "V_0": 0.03})
    watch = [monitors.Bold(period=500.0, hrf_kernel=kernel, variables_of_interest=np.array([0, 1]))]
    reference, _ = couplings("Generic2dOscillator", "Difference")
    scheme = integrators.HeunDeterministic(dt=1.0)
    configured = theirs("Generic2dOscillator", given, reference, scheme, monitors=watch)
    sim = vb.bridges.from_tvb(configured)
    ys = vb.simulate(sim, t1=12_000.0, key=None, init=start(sim, configured)).ys
    ((_, bold),) = sampled(configured, 12_000)
    assert list(ys) == ["bold_V", "bold_W"]
    for k, var in enumerate("VW"):
        assert np.abs(ys[f"bold_{var}"] - bold[:, k]).max() < 1e-6 * np.abs(bold[:, k]).max()


def everything():
    """Parts with arrays of every kind."""
    given = problem("MontbrioPazoRoxin", 5, True)
    source = tvb_noise.Additive(nsig=np.array([0.01, 0.02]), random_stream=np.random.RandomState(7))
    eeg = watched(monitors.EEG, sensors.SensorsEEG, projections.ProjectionSurfaceEEG, period=6 * DT)
    eeg.region_mapping.array_data = eeg.region_mapping.array_data % 5
    reference, _ = couplings("MontbrioPazoRoxin", "Linear")
    return theirs(
        "MontbrioPazoRoxin",
        given,
        reference,
        integrators.HeunStochastic(dt=DT, noise=source),
        monitors=[monitors.Raw(), eeg],
    )


def test_the_simulator_of_tvb_stays_as_it_was():
    """It goes on as its twin does, and numpy's global stream is not touched."""
    twin, given = everything(), everything()
    state = np.random.get_state()[1].copy()
    first, second = vb.bridges.from_tvb(given), vb.bridges.from_tvb(given)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert vb.paths(first).keys() == vb.paths(second).keys()
    for (_, a), (_, b) in zip(sampled(twin, 30), sampled(given, 30), strict=True):
        np.testing.assert_array_equal(a, b)
    # and one that has run gives the same
    for path, leaf in vb.paths(vb.bridges.from_tvb(given)).items():
        np.testing.assert_array_equal(leaf.value, vb.paths(first)[path].value, err_msg=path)


def test_a_simulator_that_was_never_configured():
    configured = everything()
    bare = type(configured)(
        model=tvb_models.MontbrioPazoRoxin(
            variables_of_interest=("r", "V"),
            **{k: np.ravel(getattr(configured.model, k)) for k in ("tau", "I", "Delta", "J", "eta", "cr")},
        ),
        connectivity=copy.deepcopy(configured.connectivity),
        coupling=tvb_coupling.Linear(a=configured.coupling.a, b=configured.coupling.b),
        integrator=integrators.HeunStochastic(dt=DT, noise=tvb_noise.Additive(nsig=np.array([0.01, 0.02]))),
        monitors=[monitors.Raw()],
    )
    ours, reference = vb.paths(vb.bridges.from_tvb(bare)), vb.paths(vb.bridges.from_tvb(configured))
    assert set(reference) - set(ours) == {"monitors.eeg_r.gain", "monitors.eeg_V.gain"}
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf.value, reference[path].value, err_msg=path)
    assert bare.history is None


def test_the_epileptor_as_tvb_has_it_by_default():
    """It observes x2 - x1 and z; what TVB averages of the sum is what EEG with a gain of ones records."""
    given = problem("Epileptor", 9, False)
    reference, _ = couplings("Epileptor", "Difference")
    eeg = watched(
        monitors.EEG,
        sensors.SensorsEEG,
        projections.ProjectionSurfaceEEG,
        period=4 * DT,
        reference="Average",
        variables_of_interest=np.array([0]),
    )
    watch = [monitors.TemporalAverage(period=4 * DT), monitors.Raw(), eeg]
    scheme, observed = integrators.HeunDeterministic(dt=DT), tvb_models.Epileptor().variables_of_interest
    configured = theirs("Epileptor", given, reference, scheme, monitors=watch, observed=observed)
    sim = vb.bridges.from_tvb(configured)
    ys = vb.simulate(sim, t1=40 * DT, key=None, init=start(sim, configured)).ys
    (_, mean), (_, raw), (_, scalp) = sampled(configured, 40)
    expected = {
        "temporal_average_x2_x1": mean[:, 0],
        "temporal_average_z": mean[:, 1],
        "raw_x2_x1": raw[:, 0],
        "raw_z": raw[:, 1],
        "eeg": scalp[:, 0],
    }
    assert list(ys) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(ys[name], value, rtol=1e-9, atol=1e-9 * np.abs(value).max(), err_msg=name)
    configured.monitors = [monitors.SubSample(period=4 * DT)]
    with pytest.raises(ValueError, match="reads 'x2 - x1'"):  # no mean, hence no EEG
        vb.bridges.from_tvb(configured)


def test_a_simulator_without_a_connectivity():
    with pytest.raises(ValueError, match="Simulator was given, without connectivity"):
        vb.bridges.from_tvb(simulator.Simulator())


def test_numbers_and_maps_are_paths_for_priors():
    given = everything()
    given.model.eta = np.array([-4.6])
    sim = vb.bridges.from_tvb(given)
    shapes = {path: leaf.value.shape for path, leaf in vb.paths(sim).items()}
    assert shapes["coupling.G"] == shapes["model.eta"] == shapes["noise.sigma.r"] == ()
    assert shapes["model.J"] == (5,)
    np.testing.assert_allclose(sim.noise.sigma["V"], np.sqrt(0.04))


class Own(tvb_models.Linear):
    """A user's class."""


def with_(**parts):
    """A simulator of which some parts are others."""

    def change(sim):
        for path, value in parts.items():
            owner, _, name = path.rpartition("__")
            setattr(getattr(sim, owner) if owner else sim, name, value)

    return change


MISTAKES = {
    "model": (with_(model=tvb_models.Hopfield()), "no model Hopfield"),
    "own model": (with_(model=Own()), "no class of TVB"),
    "parameter": (with_(model__Gamma=np.array([0.3]), model__tau=np.array([1.0])), None),
    "coupling": (with_(coupling=tvb_coupling.PreSigmoidal()), "no coupling PreSigmoidal"),
    "integrator": (with_(integrator=integrators.Dopri5(dt=DT)), "no integrator Dopri5"),
    "noise": (
        with_(integrator=integrators.HeunStochastic(dt=DT, noise=tvb_noise.Additive(ntau=2.0))),
        "ntau=2",
    ),
    "amplitude": (
        with_(
            integrator=integrators.HeunStochastic(
                dt=DT, noise=tvb_noise.Multiplicative(b=equations.Gaussian(parameters={}))
            )
        ),
        "no b of Multiplicative noise Gaussian",
    ),
    "clamp": (
        with_(
            integrator__clamped_state_variable_indices=np.array([0]),
            integrator__clamped_state_variable_values=np.array([0.1]),
        ),
        "clamped_state_variable_values",
    ),
    "monitor": (with_(monitors=[monitors.AfferentCoupling()]), "no monitor AfferentCoupling"),
    "kernel": (with_(monitors=[monitors.Bold(hrf_kernel=equations.Gamma())]), "no hrf_kernel of Bold Gamma"),
    "window": (with_(monitors=[monitors.Bold(hrf_length=10_000.0)]), "hrf_length is 10000 ms"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_vbinfer_does_not_have_is_named(mistake):
    change, words = MISTAKES[mistake]
    given = everything()
    change(given)
    if words is None:
        vb.bridges.from_tvb(given)  # Gamma has no effect in TVB
        return
    with pytest.raises(ValueError, match=words):
        vb.bridges.from_tvb(given)


def test_stimuli_noise_of_sensors_and_other_bounds_are_refused():
    given = everything()
    given.monitors[1].obsnoise = tvb_noise.Additive()
    with pytest.raises(ValueError, match=r"EEG\.obsnoise is Additive"):
        vb.bridges.from_tvb(given)
    given = everything()
    given.stimulus = patterns.StimuliRegion(
        temporal=equations.Sinusoid(), connectivity=given.connectivity, weight=np.ones(5)
    )
    with pytest.raises(ValueError, match="StimuliRegion"):
        vb.bridges.from_tvb(given)
    reference, _ = couplings("Linear", "Linear")
    given = theirs("Linear", problem("Linear", 3, False), reference, integrators.HeunDeterministic(dt=DT))
    vb.bridges.from_tvb(given)
    given.model.state_variable_boundaries = {"x": np.array([0.0, 2.0])}
    with pytest.raises(ValueError, match="Linear has no bounds"):
        vb.bridges.from_tvb(given)
    zerlaut = problem("ZerlautAdaptationFirstOrder", 3, False)
    reference, _ = couplings("ZerlautAdaptationFirstOrder", "Linear")
    given = theirs("ZerlautAdaptationFirstOrder", zerlaut, reference, integrators.HeunDeterministic(dt=DT))
    given.model.S_i = np.array([0.5])
    with pytest.raises(ValueError, match=r"S_i is \[0.5\]"):
        vb.bridges.from_tvb(given)


def test_the_template_of_the_page_is_what_the_page_says_it_is(tmp_path, monkeypatch):
    """Up to the digits of the zip."""
    monkeypatch.chdir(tmp_path)
    template, same, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    sims = []
    for code in (template, same):
        names: dict = {}
        exec(compile(code, PAGE.name, "exec"), names)
        sims.append(names["sim"])
    carried_over, written = sims
    assert str(carried_over.integrator) == str(written.integrator)
    assert carried_over.delays is written.delays is None
    assert carried_over.monitors == written.monitors
    assert vb.paths(carried_over).keys() == vb.paths(written).keys()
    for path, leaf in vb.paths(written).items():
        if path not in ("connectome.speed", "connectome.tract_lengths"):  # nothing is delayed
            np.testing.assert_allclose(vb.paths(carried_over)[path].value, leaf.value, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "name", ["Generic2dOscillator", "Linear", "ReducedWongWang", "ReducedWongWangExcInh", "SupHopf"]
)
def test_surfaces(name):
    """42 vertices in four regions and two regions that are not on the surface, delays, a strength per vertex."""
    given, rng = problem(name, 6, True), np.random.default_rng(12)
    ball = vb.fields.Mesh.icosphere(1, 40.0)
    regions, matrix = np.arange(42) % 4, rng.normal(0.0, 0.05, (42, 42))
    sheet = surfaces.CorticalSurface(
        vertices=np.asarray(ball.vertices), triangles=np.asarray(ball.triangles).astype(int)
    )
    sheet.number_of_vertices = 42
    nodes = np.concatenate([regions, [4, 5]])
    given = given._replace(params={k: v[nodes] for k, v in given.params.items()})
    rows = int(np.rint(given.lengths / 2.5 / DT).max()) + 1
    history = given.x0[:, nodes] * (1.0 + 0.1 * rng.normal(size=(rows, len(given.x0), 44)))
    reference, _ = couplings(name, "Linear")
    mapping = region_mapping.RegionMapping(array_data=regions, surface=sheet)
    local = local_connectivity.LocalConnectivity(matrix=scipy.sparse.csc_matrix(matrix), surface=sheet, cutoff=40.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = connectivity.Connectivity(
            weights=given.weights,
            tract_lengths=given.lengths,
            region_labels=np.array([f"n{i}" for i in range(6)]),
            centres=np.arange(18.0).reshape(6, 3),
            speed=np.array([2.5]),
            cortical=np.ones(6, bool),
            orientations=np.eye(3)[np.arange(6) % 3],
        )
        network.configure()
        mapping.connectivity = network
        configured = theirs(
            name,
            given,
            reference,
            integrators.HeunDeterministic(dt=DT),
            past=history,
            surface=cortex.Cortex(
                region_mapping_data=mapping, local_connectivity=local, coupling_strength=rng.uniform(0.2, 1.0, 42)
            ),
            connectivity=network,
        )
    y = carried(configured)
    expected = trajectory(configured)
    assert np.isfinite(expected).all()
    assert expected.shape[2] == 44
    assert deviation(y, expected) < 1e-9
