"""One registry of models drives every property that all of them share."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import vbinfer as vb

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "Linear": vb.models.Linear,
    "MontbrioPazoRoxin": vb.models.MontbrioPazoRoxin,
    "ReducedWongWang": vb.models.ReducedWongWang,
}
# a state inside the bounds, one unequal value per node
STATES = {"Linear": [[0.3, -0.2, 1.1]], "MontbrioPazoRoxin": [[0.1, 0.4, 0.2], [-2.0, -0.7, -1.1]]}
STATES["ReducedWongWang"] = [[0.1, 0.45, 0.8]]
WEIGHTS = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])
NAMES = sorted(MODELS)


def golden(name):
    stored = np.load(GOLDEN / f"tvb_{name}.npz")
    params = {k: v for k, v in json.loads(str(stored["params"])).items() if k in vb.paths(MODELS[name]())}
    return stored, params, json.loads(str(stored["info"]))


def network(name, stored, params, coupling, **heun):
    return vb.Simulator(
        MODELS[name](**params),
        vb.Connectome(stored["weights"], stored["tract_lengths"]),
        coupling=coupling,
        integrator=vb.Heun(dt=float(stored["dt"]), **heun),
    )


def trajectory(sim, stored):
    state = sim.model.State(*stored["x0"])
    y = vb.simulate(sim, t1=float(stored["t"][-1]), key=None, init=state).ys["raw"]
    every = round(float(stored["t"][0] / stored["dt"]))
    return np.stack([y[v] for v in sim.model.variables()], axis=1)[every - 1 :: every]


def worst(y, reference):
    """Largest error of a trajectory [T, V, N], relative to the largest value of each state variable."""
    return (np.abs(y - reference).max(axis=(0, 2)) / np.abs(reference).max(axis=(0, 2))).max()


def cases(name):
    couplings = {"none": vb.coupling.Linear(G=0.0), "instant": None, "difference_instant": None}
    for case in couplings:
        stored, params, info = golden(name)
        if case in info["cases"]:
            a = info["cases"][case]["coupling_params"]["a"]
            kind = vb.coupling.Difference if case.startswith("difference") else vb.coupling.Linear
            yield case, stored, params, kind(G=a), info["cases"][case]["float32_numpy_max_rel_dev"]


@pytest.mark.parametrize("name", NAMES)
def test_frozen_coupling_equals_tvb(name, x64):
    for case, stored, params, coupling, float32_error in cases(name):
        sim = network(name, stored, params, coupling, frozen_coupling=True)
        tolerance = 1e-9 if x64 else 10 * max(float32_error, 1e-7)
        assert worst(trajectory(sim, stored), stored[f"{case}__y"]) < tolerance, case


@pytest.mark.parametrize("name", NAMES)
def test_live_coupling_equals_an_independent_heun_and_not_the_frozen_one(name, x64):
    for case, stored, params, coupling, float32_error in cases(name):
        if f"{case}__y_live_own" not in stored:
            continue
        y = trajectory(network(name, stored, params, coupling), stored)
        tolerance = 1e-9 if x64 else 10 * max(float32_error, 1e-7)
        assert worst(y, stored[f"{case}__y_live_own"]) < tolerance, case
        assert worst(y, stored[f"{case}__y"]) > 3 * tolerance, case


@pytest.mark.parametrize("name", NAMES)
def test_second_order_towards_the_continuous_solution_with_coupling(name):
    _, stored, params, coupling, _ = next(case for case in cases(name) if case[0] == "instant")
    n_samples = 10
    with jax.enable_x64(True):
        errors = []
        for refinement in (1, 2, 4):
            dt = float(stored["dt"]) / refinement
            sim = vb.Simulator(
                MODELS[name](**params),
                vb.Connectome(stored["weights"], stored["tract_lengths"]),
                coupling=vb.coupling.Linear(G=float(coupling.G)),
                integrator=vb.Heun(dt=dt),
                monitors={"at": vb.monitors.Subsample(float(stored["t"][0]))},
            )
            init = sim.model.State(*stored["x0"])
            y = vb.simulate(sim, t1=float(stored["t"][n_samples - 1]), key=None, init=init).ys["at"]
            y = np.stack([y[v] for v in sim.model.variables()], axis=1)
            errors.append(np.abs(y - stored["instant__truth"][:n_samples]).max())
    slope = np.polyfit(np.log([1, 2, 4]), np.log(errors), 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.15), errors


@pytest.mark.parametrize("name", NAMES)
def test_frozen_coupling_is_first_order(name):
    _, stored, params, coupling, _ = next(case for case in cases(name) if case[0] == "instant")
    with jax.enable_x64(True):
        errors = []
        for refinement in (4, 8, 16):
            sim = vb.Simulator(
                MODELS[name](**params),
                vb.Connectome(stored["weights"], stored["tract_lengths"]),
                coupling=vb.coupling.Linear(G=float(coupling.G)),
                integrator=vb.Heun(dt=float(stored["dt"]) / refinement, frozen_coupling=True),
                monitors={"at": vb.monitors.Subsample(float(stored["t"][0]))},
            )
            y = vb.simulate(sim, t1=float(stored["t"][2]), key=None, init=sim.model.State(*stored["x0"])).ys["at"]
            y = np.stack([y[v] for v in sim.model.variables()], axis=1)
            errors.append(np.abs(y - stored["instant__truth"][:3]).max())
    assert np.polyfit(np.log([4, 8, 16]), np.log(errors), 1)[0] == pytest.approx(-1.0, abs=0.15), errors


@pytest.mark.parametrize("name", NAMES)
def test_equals_an_oracle_with_every_parameter_unequal_across_nodes(name):
    rng = np.random.default_rng(3)
    model = MODELS[name]()
    values = {
        path: np.asarray(leaf.value) * rng.uniform(0.8, 1.2, 3) + rng.uniform(0, 0.05, 3)
        for path, leaf in vb.paths(model).items()
        if path != "cv"
    }
    noise = 0.02 * rng.standard_normal((40, len(STATES[name]), 3))
    with jax.enable_x64(True):
        sim = vb.Simulator(
            MODELS[name](**values),
            vb.Connectome(WEIGHTS, np.zeros((3, 3))),
            coupling=vb.coupling.Linear(G=0.37),
            integrator=vb.Heun(dt=0.05),
        )
        y = vb.simulate(sim, t1=2.0, key=None, init=sim.model.State(*np.array(STATES[name]))).ys["raw"]
        y = np.stack([y[v] for v in sim.model.variables()], axis=1)
    expected = oracles.heun(name, STATES[name], WEIGHTS, 0.37, values, 0.05, 40)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    moved = oracles.heun(name, STATES[name], WEIGHTS.T, 0.37, values, 0.05, 40, noise)
    assert np.abs(moved - expected).max() > 1e-3  # orientation and noise would show


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name):
    with jax.enable_x64(True):
        sim = vb.Simulator(
            MODELS[name](),
            vb.Connectome(WEIGHTS, np.zeros((3, 3))),
            coupling=vb.coupling.Linear(G=0.3),
            integrator=vb.Heun(dt=0.1),
        )
        first = next(path for path in vb.paths(sim) if path.startswith("model."))
        state = sim.model.State(*np.array(STATES[name]))

        def loss(theta):
            y = vb.simulate(vb.bind(sim, theta), t1=3.0, key=None, init=state).ys["raw"]
            return sum((v**2).sum() for v in y.values())

        theta = {"coupling.G": jnp.array(0.3), first: jnp.asarray(vb.paths(sim)[first].value) * 1.1}
        reverse = jax.grad(loss)(theta)
        for path in theta:
            _, forward = jax.jvp(lambda v, path=path: loss({**theta, path: v}), (theta[path],), (jnp.ones(()),))
            h = 1e-6
            numeric = (loss({**theta, path: theta[path] + h}) - loss({**theta, path: theta[path] - h})) / (2 * h)
            assert float(reverse[path]) == pytest.approx(float(numeric), rel=1e-6)
            assert float(forward) == pytest.approx(float(numeric), rel=1e-6)


# (r, V) or S where the drift vanishes; found with scipy.optimize.brentq on the oracle
FIXED_POINTS = {
    "Linear": ({}, [0.0]),
    "MontbrioPazoRoxin": ({}, [0.081134, -1.961620]),
    "ReducedWongWang": ({"w": 0.9, "I_o": 0.3}, [0.034355]),
}


@pytest.mark.parametrize("name", NAMES)
def test_rests_at_its_fixed_point(name):
    params, point = FIXED_POINTS[name]
    model = MODELS[name](**params)
    state = model.State(*(jnp.full((1,), v) for v in point))
    rate = model.dfun(jnp.zeros(()), state, jnp.zeros((1, 1)), jnp.zeros(1))
    assert max(float(jnp.abs(v).max()) for v in rate) < 2e-5
    moved = model.dfun(jnp.zeros(()), jax.tree.map(lambda v: v + 0.01, state), jnp.zeros((1, 1)), jnp.zeros(1))
    assert max(float(jnp.abs(v).max()) for v in moved) > 5e-5


def test_the_rate_of_wong_wang_at_its_removable_singularity():
    from vbinfer.models.wong_wang import rate

    d = jnp.asarray(154.0)
    value, slope = jax.value_and_grad(rate)(jnp.asarray(0.0), d)
    assert float(value) == pytest.approx(1 / 154.0, rel=1e-6)
    assert float(slope) == pytest.approx(0.5, rel=1e-5)  # u / (1 - exp(-d u)) = 1/d + u/2 + d u^2 / 12 ...
    with jax.enable_x64(True):
        u = np.concatenate([-np.logspace(-1, -9, 60), np.logspace(-9, 0, 60)])
        exact = u / -np.expm1(-154.0 * u)
        np.testing.assert_allclose(rate(jnp.asarray(u), jnp.asarray(154.0)), exact, rtol=1e-11)
        slopes = jax.vmap(jax.grad(rate), (0, None))(jnp.asarray([0.0499 / 154, 0.0501 / 154]), jnp.asarray(154.0))
        assert float(slopes[1] - slopes[0]) == pytest.approx(154.0 / 6 * 0.0002 / 154, rel=1e-2)


def test_gradient_of_wong_wang_is_finite_where_the_input_meets_the_threshold():
    model = vb.models.ReducedWongWang(w=0.0, I_o=0.4)  # a I_o = b in exact arithmetic and in float32

    def drift(I_o):
        bound = vb.bind(model, {"I_o": I_o})
        return bound.dfun(jnp.zeros(()), bound.State(jnp.full((1,), 0.2)), jnp.zeros((1, 1)), jnp.zeros(1)).S[0]

    value, slope = jax.value_and_grad(drift)(jnp.asarray(0.4))
    assert float(value) == pytest.approx(-0.2 / 100 + 0.8 * 0.641 / 154, rel=1e-3)
    assert float(slope) == pytest.approx(0.8 * 0.641 * 0.27 * 0.5, rel=1e-3)


def test_montbrio_clamps_the_rate_in_both_stages(x64):
    stored = np.load(GOLDEN / "tvb_conventions.npz")
    params = json.loads(str(stored["info"]))["clamp"]["params"]
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(**params), integrator=vb.Heun(dt=float(stored["clamp__dt"])), nodes=4
    )
    steps = len(stored["clamp__t"])
    init = sim.model.State(*stored["clamp__x0"])
    y = vb.simulate(sim, t1=steps * sim.dt, key=None, init=init).ys["raw"]
    y = np.stack([y["r"], y["V"]], axis=1)
    assert worst(y, stored["clamp__y"]) < (1e-9 if x64 else 2e-4)  # clamping once is off by 0.28, never by 1.6


def test_cv_without_V_among_the_coupled_variables_is_an_error():
    with pytest.raises(ValueError, match="cvar="):
        vb.models.MontbrioPazoRoxin(cv=0.5)
    with pytest.raises(ValueError, match="cvar="):
        vb.bind(vb.models.MontbrioPazoRoxin(), {"cv": 0.5})


def test_cv_couples_V():
    model = vb.models.MontbrioPazoRoxin(cv=0.5, cr=0.25, cvar=("r", "V"))
    sim = vb.Simulator(
        model, vb.Connectome(WEIGHTS, np.zeros((3, 3))), coupling=vb.coupling.Linear(G=2.0), integrator=vb.Euler(dt=0.1)
    )
    r, V = np.array(STATES["MontbrioPazoRoxin"])
    y = vb.simulate(sim, t1=0.1, key=None, init=model.State(r, V)).ys["raw"]["V"][0]
    dV = V**2 - (np.pi * r) ** 2 + 15 * r - 5 + 0.25 * 2.0 * WEIGHTS @ r + 0.5 * 2.0 * WEIGHTS @ V
    np.testing.assert_allclose(y, V + 0.1 * dV, rtol=1e-5)


@pytest.mark.parametrize("cvar", [("V", "r"), ("V",), ("r", "V", "r")])
def test_coupled_variables_in_another_order_are_refused(cvar):
    with pytest.raises(ValueError, match="couples cvar="):
        vb.models.MontbrioPazoRoxin(cvar=cvar)
