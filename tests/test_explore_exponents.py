"""Exponents: eigenvalues of linear systems, Lambert's W with delays, Lorenz and Mackey and Glass."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import lambertw

import vbinfer as vb

NUMBERS = json.loads(str(np.load(Path(__file__).parent / "golden" / "explore.npz")["numbers"]))


def test_exponents_of_a_network_are_real_parts_of_eigenvalues():
    weights = np.array([[0.0, 1.2, 0.3], [-0.8, 0.0, 0.0], [0.5, 0.4, 0.0]])
    gamma = np.array([-0.4, -0.7, -1.5])
    sim = vb.Simulator(
        vb.models.Linear(gamma=gamma),
        vb.Connectome(weights),
        coupling=vb.coupling.Linear(G=0.6, offset=0.2),
        integrator=vb.Heun(dt=0.05),
        noise=vb.noise.Additive(0.3),  # moves the run, not the differences
    )
    found = vb.lyapunov(sim, t1=1_000.0, key=jax.random.key(0), k=3)
    A = np.diag(gamma) + 0.6 * weights
    step = np.eye(3) + 0.05 * A + 0.05**2 / 2.0 * A @ A  # Heun's
    exact = np.sort(np.log(abs(np.linalg.eigvals(step))) / 0.05)[::-1]
    assert abs(exact[0] - exact[1]) < 1e-9  # a rotating pair, and one that decays
    np.testing.assert_allclose(found.values, exact, atol=2e-3)  # of turns that are not whole
    np.testing.assert_allclose(found.values.sum(), exact.sum(), atol=2e-5)
    np.testing.assert_allclose(exact, np.sort(np.linalg.eigvals(A).real)[::-1], atol=2e-3)


@pytest.mark.parametrize("case", NUMBERS["delayed_linear_exponents"], ids=lambda case: f"b={case['b']}")
def test_the_signal_under_way_is_part_of_a_difference(case):
    """x' = a x + b x(t - tau): the real parts of W_k(b tau exp(-a tau)) / tau + a."""
    a, b, tau = case["a"], case["b"], case["tau"]
    exact = sorted((lambertw(b * tau * np.exp(-a * tau), n).real / tau + a for n in range(-4, 5)), reverse=True)[:3]
    np.testing.assert_allclose(case["exponents"], exact, atol=1e-9)
    sim = vb.Simulator(
        vb.models.Linear(gamma=0.0) if a == 0 else vb.models.Linear(gamma=a),
        vb.Connectome([[1.0]], [[tau]], speed=1.0),
        coupling=vb.coupling.Linear(G=b),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.01),
    )
    found = vb.lyapunov(sim, t1=300.0, k=3, transient=50.0)
    # a stray root of a rotating pair averages out over the run, the discretisation of the third does not
    np.testing.assert_allclose(found.values[:2], exact[:2], atol=2e-3 if a else 2e-3 * np.abs(exact[1]))
    assert abs(found.values[0] - exact[0]) < 1e-3


def lorenz(t, x, c, u, p):
    return p.sigma * (x.y - x.x), x.x * (p.rho - x.z) - x.y, x.x * x.y - p.beta * x.z


def test_lorenz():
    golden = NUMBERS["lorenz"]
    params = {name: golden[name] for name in ("sigma", "rho", "beta")}
    model = vb.models.custom(lorenz, state={"x": 1.0, "y": 1.0, "z": 20.0}, params=params)
    sim = vb.Simulator(model, integrator=vb.integrators.RungeKutta4(dt=0.01))
    found = vb.lyapunov(sim, t1=1_000.0, k=3, transient=20.0)
    error = np.hypot(found.se, golden["se"])
    assert (abs(found.values - golden["exponents"]) < 4.0 * error + 0.01).all()
    assert (found.se < 0.05).all()
    assert abs(found.values[0] - golden["literature"]) < 4.0 * found.se[0] + 0.005
    assert found.values.sum() == pytest.approx(golden["sum"], abs=1e-3)  # the divergence


def mackey_glass(t, x, c, u, p):
    return (p.beta * c[0] / (1.0 + c[0] ** 10) - p.gamma * x.u,)


@pytest.mark.slow
def test_mackey_glass():
    golden = NUMBERS["mackey_glass"]
    params = {"beta": golden["beta"], "gamma": golden["gamma"]}
    model = vb.models.custom(mackey_glass, state={"u": 1.2}, params=params, cvar=("u",))
    sim = vb.Simulator(
        model,
        vb.Connectome([[1.0]], [[golden["tau"]]], speed=1.0),
        coupling=vb.coupling.Linear(G=1.0),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.1),
    )
    found = vb.lyapunov(sim, t1=40_000.0, k=2, transient=2_000.0)
    assert abs(found.values[0] - golden["exponent"]) < 4.0 * np.hypot(found.se[0], golden["se"])
    assert found.se[0] < 0.0008
    assert abs(found.values[1]) < 5.0 * found.se[1] + 2e-4  # along the flow


@pytest.mark.parametrize(
    ("sim", "options", "message"),
    [
        (
            vb.Simulator(vb.spiking.LIF(10.0, -70.0, -50.0, -65.0, 2.0), integrator=vb.Native(dt=0.1), nodes=2),
            {},
            "no derivative",
        ),
        (vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1), nodes=2), {"k": 3}, "2 directions"),
        (vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1)), {"k": 0}, "k=0"),
        (vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1)), {"transient": 99.9}, "simulate longer"),
        (vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1)), {"transient": -1.0}, "transient"),
        (
            vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1), noise=vb.noise.Additive(1.0)),
            {},
            "pass key=",
        ),
    ],
)
def test_what_has_no_exponents_is_refused(sim, options, message):
    with pytest.raises(ValueError, match=message):
        vb.lyapunov(sim, t1=100.0, **options)


def test_another_object_in_place_of_a_simulator():
    with pytest.raises(TypeError, match=r"vb\.Simulator"):
        vb.lyapunov(vb.models.Linear(), t1=100.0)
