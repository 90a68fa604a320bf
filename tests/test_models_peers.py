"""Trajectories against numbers of other software (vbi 0.4.4, confirmed by a float64 Heun) and a closed form."""

import jax
import numpy as np
import pytest

import vbinfer as vb

WEIGHTS = np.array([[0.0 if i == j else (i + 1) / (10 * (1 + abs(i - j))) for j in range(4)] for i in range(4)])
REST = [0.0] * 4
JANSEN_RIT = [REST, [5.0, 6.0, 7.0, 8.0], [5.0] * 4, REST, REST, REST]
WILSON_COWAN = {"c_ee": 16.0, "c_ei": 12.0, "c_ie": 15.0, "c_ii": 3.0, "tau_e": 8.0, "tau_i": 8.0, "P": 1.25}
WILSON_COWAN |= {"a_e": 1.3, "a_i": 2.0, "b_e": 4.0, "b_i": 3.7, "k_e": 0.994, "k_i": 0.999}


def end(model, coupling, x0, dt, steps):
    """The state [V][4] after some steps on the four nodes."""
    sim = vb.Simulator(
        model,
        vb.Connectome(WEIGHTS, np.zeros((4, 4))),
        coupling=coupling,
        integrator=vb.Heun(dt=dt),
        monitors={"end": vb.monitors.Subsample(steps * dt)},
    )
    y = vb.simulate(sim, t1=steps * dt, key=None, init=sim.model.State(*np.array(x0))).ys["end"]
    return [np.asarray(y[v])[0] for v in sim.model.variables()]


def test_montbrio():
    with jax.enable_x64(True):
        model = vb.models.MontbrioPazoRoxin(J=14.5, eta=-4.6, Delta=0.7)
        x0 = [[0.1, 0.2, 0.3, 0.4], [-2.0, -1.5, -1.0, -0.5]]
        r, V = end(model, vb.coupling.Linear(G=0.7), x0, 0.01, 100)
    np.testing.assert_allclose(r, [0.05874547, 0.06833130, 0.09453029, 0.20899016], atol=6e-9)
    np.testing.assert_allclose(V, [-1.9342232, -1.8443376, -1.6436462, -1.0370353], atol=6e-8)


@pytest.mark.parametrize(
    ("form", "potential"),
    [
        ("sum_of_sigmoids", [6.59485, 7.24424, 8.26308, 9.82328]),
        ("sigmoid_of_sum", [6.60134, 7.23947, 8.25019, 9.81346]),
    ],
)
def test_jansen_rit_with_either_form_of_its_coupling(form, potential):
    with jax.enable_x64(True):
        coupling = vb.coupling.SigmoidalJansenRit(a=1.5, form=form)
        y = end(vb.models.JansenRit(mu=0.24, v0=6.0), coupling, JANSEN_RIT, 0.05, 1000)
    np.testing.assert_allclose(y[1] - y[2], potential, atol=6e-6)


def test_wilson_cowan_with_the_unshifted_sigmoid():
    with jax.enable_x64(True):
        model = vb.models.WilsonCowan(**WILSON_COWAN, shift_sigmoid=False)
        x0 = [[0.1, 0.2, 0.3, 0.4], [0.05, 0.1, 0.15, 0.2]]
        E, I = end(model, vb.coupling.Linear(G=0.5), x0, 0.05, 1000)
    np.testing.assert_allclose(E, [0.14743236, 0.18441560, 0.20204182, 0.13982064], atol=6e-9)
    np.testing.assert_allclose(I, [0.02987409, 0.08873080, 0.17828502, 0.01328510], atol=6e-9)


def test_reduced_wong_wang():
    with jax.enable_x64(True):
        model = vb.models.ReducedWongWang(w=0.9, I_o=0.32)
        (S,) = end(model, vb.coupling.Linear(G=1.2), [[0.1, 0.2, 0.3, 0.4]], 1.0, 500)
    np.testing.assert_allclose(S, [0.41374237, 0.70154681, 0.75475329, 0.76482585], atol=6e-9)


def test_damped_oscillator():
    """Means and spreads after t = 20 of a Runge-Kutta run; Heun at the same step is off by 1e-4 of a spread."""
    with jax.enable_x64(True):
        sim = vb.Simulator(vb.models.DampedOscillator(a=[0.11, 0.1], b=[0.06, 0.1]), integrator=vb.Heun(dt=0.01))
        y = vb.simulate(sim, t1=100.0, key=None, init={"x": 0.5, "y": 1.0}).ys["raw"]
    x, y = (np.asarray(v)[2000:] for v in y.values())
    np.testing.assert_allclose(
        [x.std(axis=0), y.std(axis=0)], [[0.02651486, 0.01941396], [0.02314122, 0.01783728]], rtol=2e-4
    )
    np.testing.assert_allclose(
        [x.mean(axis=0), y.mean(axis=0)], [[1.0525634, 1.0892177], [0.8826119, 0.8898102]], rtol=2e-6
    )


def test_stuart_landau_follows_its_closed_form():
    """In polar form r' = r (a - r^2), phi' = omega: r^2 = a / (1 + (a / r_0^2 - 1) exp(-2 a t))."""
    a, omega, r0, t = (
        np.array([0.1, -0.05, 0.02]),
        2e-3 * np.pi * np.array([40.0, 10.0, 25.0]),
        np.array([0.2, 0.7, 0.05]),
        30.0,
    )
    with jax.enable_x64(True):
        sim = vb.Simulator(vb.models.StuartLandau(a=a, omega=omega), integrator=vb.Heun(dt=0.01))
        y = vb.simulate(sim, t1=t, key=None, init={"x": r0 * np.cos(0.3), "y": r0 * np.sin(0.3)}).ys["raw"]
    z = np.asarray(y["x"])[-1] + 1j * np.asarray(y["y"])[-1]
    radius = np.sqrt(a / (1 + (a / r0**2 - 1) * np.exp(-2 * a * t)))
    phase = 0.3 + omega * t
    np.testing.assert_allclose(z, radius * np.exp(1j * phase), atol=2e-5)


def test_wrapped_phases_keep_their_frequency_in_float32():
    """Unwrapped, 0.025 rad per step are rounded to 6 % too few or too many once the phase passes 10,000."""
    slopes = {}
    for wrap in (True, False):
        sim = vb.Simulator(
            vb.models.Kuramoto(omega=0.25, wrap=wrap),
            integrator=vb.Heun(dt=0.1),
            monitors={"theta": vb.monitors.Subsample(1.0, "theta")},
        )
        start = 75_000.0 % (2 * np.pi) if wrap else 75_000.0
        theta = np.unwrap(
            np.asarray(vb.simulate(sim, t1=200.0, key=None, init={"theta": start}).ys["theta"][:, 0], float)
        )
        slopes[wrap] = (theta[-1] - theta[0]) / 199.0
    assert slopes[True] == pytest.approx(0.25, rel=1e-5)
    if not jax.config.jax_enable_x64:
        assert abs(slopes[False] / 0.25 - 1) > 0.02
