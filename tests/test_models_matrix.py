"""Bilinear DCM, dopamine, Zerlaut, Larter-Breakspear: their own matrices and polynomials, closed forms, edges."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import vbinfer as vb

WEIGHTS = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])
B = np.array([[-0.4, 0.0, 0.7], [0.2, 0.1, 0.0], [0.0, -0.6, 0.3]])


def test_bilinear_dcm_is_a_matrix_exponential_while_the_input_is_constant():
    """x(t) = expm(M t) x0 + M^-1 (expm(M t) - 1) C u with M = diag(a) + G W + diag(u) B."""
    a, C, u, G = np.array([-0.9, -0.7, -1.1]), np.array([0.5, 0.0, -0.2]), np.array([0.8, 0.3, 0.5]), 0.4
    M = np.diag(a) + G * WEIGHTS + np.diag(u) @ B
    x0 = np.array([0.3, -0.2, 1.1])
    steady = np.linalg.solve(M, C * u)
    with jax.enable_x64(True):
        model = vb.models.BilinearDCM(a=a, B=B, C=C)

        def field(t, x):
            c = G * jnp.asarray(WEIGHTS) @ x
            return model.dfun(jnp.asarray(t), model.State(jnp.asarray(x)), c[None], jnp.asarray(u)).x

        x = solve_ivp(field, (0.0, 2.0), x0, rtol=1e-10, atol=1e-12).y[:, -1]
        silent = model.dfun(jnp.zeros(()), model.State(jnp.asarray(x0)), jnp.zeros((1, 3)), jnp.zeros(3)).x
    np.testing.assert_allclose(x, expm(2.0 * M) @ (x0 + steady) - steady, rtol=1e-8)
    np.testing.assert_allclose(silent, a * x0, rtol=1e-12)  # without input neither B nor C does anything


def test_dopa_at_the_initial_state_of_vbjax():
    """The derivative at vbjax's initial state, in its units."""
    model = vb.models.DopaAdaptiveQIF()
    drift = model.dfun(jnp.zeros(()), model.init(1), jnp.zeros((1, 1)), jnp.zeros(1))
    np.testing.assert_allclose(
        np.ravel(drift), [0.0019324, 2.3379339, 0.0116, 0.0, 0.0, -0.0086379], rtol=2e-5, atol=1e-7
    )


def test_dopa_takes_every_projection_from_its_own_row():
    """Excitation, inhibition and dopamine through rows 0, 1 and 2 of the input: the oracle, one row each."""
    rng = np.random.default_rng(4)
    Ci, Cd = rng.uniform(0.0, 1.0, (2, 3, 3))
    model = vb.models.DopaAdaptiveQIF(we=0.3, wi=0.2, wd=[1e-4, 0.0, 3e-4])
    state = np.array(
        [[0.1, 0.9, 0.4], [-67.0, -40.0, -50.0], [1.0, 0.0, 3.0], [0.01, 0.05, 0.0], [0.0, 0.02, 0.03], [0.5, 1.0, 0.1]]
    )
    params = {k: np.broadcast_to(leaf.value, 3) for k, leaf in vb.paths(model).items() if leaf.axes is None}
    drives = {"e": 0.7 * WEIGHTS @ state[0], "i": Ci @ state[0], "d": Cd @ state[0]}
    rows = jnp.asarray(np.stack(list(drives.values())))
    drift = model.dfun(jnp.zeros(()), model.State(*jnp.asarray(state)), rows, jnp.zeros(3))
    for i in range(3):
        alone = {k: oracles.dopa(state[:, i], [drives[k][i]], params, i) for k in drives}
        expected = [*alone["e"][:4], alone["i"][4], alone["d"][5]]
        np.testing.assert_allclose(np.array(drift)[:, i], expected, rtol=2e-5, atol=1e-6)


MATRICES = {
    "dopa": (
        partial(vb.models.DopaAdaptiveQIF, we=0.5, wi=0.4),
        ("connectome.inh.weights", "connectome.dop.weights"),
        [[0.1, 0.9, 0.4], [-67.0, -40.0, -50.0], [1.0, 0.0, 3.0], [0.1, 0.5, 0.0], [0.0, 0.2, 0.3], [0.5, 1.0, 0.1]],
    ),
    "zerlaut": (
        vb.models.ZerlautAdaptationFirstOrder,
        ("model.P_e", "model.P_i"),
        [[0.01, 0.03, 0.005], [0.02, 0.01, 0.03], [50.0, 20.0, 90.0], [2.0, 0.0, 5.0], [1e-3, -2e-3, 5e-4]],
    ),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("which", [(0,), (0, 1)])
def test_leaves_with_axes_can_be_drawn(name, which):
    """A batch of three draws in a network of three nodes, some of these leaves drawn and some shared."""
    build, leaves, state = MATRICES[name]
    matrices = {"exc": WEIGHTS, "inh": WEIGHTS, "dop": WEIGHTS.T} if name == "dopa" else {"exc": WEIGHTS}
    sim = vb.Simulator(
        build(),
        {kind: vb.Connectome(w, np.zeros((3, 3))) for kind, w in matrices.items()},
        coupling=dict.fromkeys(matrices, vb.coupling.Linear(G=0.3)),
        integrator=vb.Heun(dt=0.01),
        monitors={"raw": vb.monitors.Subsample(0.5)},
    )
    init = sim.model.State(*jnp.asarray(state))
    drawn = {leaves[k]: jnp.asarray(vb.paths(sim)[leaves[k]].value) for k in which}
    scale = np.array([0.9, 1.0, 1.05])
    theta = {path: jnp.stack([value * s for s in scale]) for path, value in drawn.items()}
    fwd = vb.ForwardModel(sim, t1=0.5, summary=lambda y: jnp.concatenate([v.ravel() for v in y.values()]), init=init)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = fwd.batch(theta, keys)
    for i in range(3):
        bound = vb.bind(sim, {path: value[i] for path, value in theta.items()})
        y = vb.simulate(bound, t1=0.5, key=None, init=init).ys["raw"]
        np.testing.assert_allclose(batch[i], np.concatenate([v.ravel() for v in y.values()]), rtol=1e-4, atol=1e-6)
    assert (np.abs(batch[0] - batch[2]) > 1e-4).any()


def test_matrices_of_the_wrong_size_are_refused():
    with pytest.raises(ValueError, match=r"BilinearDCM.B was given shape \[3\]; expected \[node, node\]"):
        vb.models.BilinearDCM(B=np.ones(3))
    with pytest.raises(ValueError, match=r"BilinearDCM.B was given shape \[2, 3\]"):
        vb.models.BilinearDCM(B=np.ones((2, 3)))
    model = vb.models.BilinearDCM(B=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"BilinearDCM.B is \[2, 2\] in a network of 3 nodes"):
        model.dfun(jnp.zeros(()), model.init(3), jnp.zeros((1, 3)), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"P_e was given shape \[9\]; it has 10 numbers"):
        vb.models.ZerlautAdaptationFirstOrder(P_e=np.ones(9))


def test_a_larter_breakspear_column_rests_below_its_hopf_bifurcation_and_oscillates_above():
    sim = vb.Simulator(
        vb.models.LarterBreakspear(d_V=[0.505, 0.525]),
        integrator=vb.Heun(dt=0.1),
        monitors={"raw": vb.monitors.Subsample(1.0, var="V")},
    )
    V = np.array(vb.simulate(sim, t1=3000.0, key=None).ys["raw"])[-300:]
    rest, cycle = V.std(axis=0)
    assert rest < 1e-4
    assert cycle > 0.01
    crossings = (np.diff(np.sign(V[:, 1] - V[:, 1].mean())) > 0).sum()
    assert crossings / 300 == pytest.approx(0.677 / (2 * np.pi), abs=0.005)  # imaginary part of the eigenvalue


def zerlaut(x, u=0.0, **params):
    model = vb.models.ZerlautAdaptationFirstOrder(**params)
    state = model.State(*(jnp.full((1,), v) for v in x))
    return model.dfun(jnp.zeros(()), state, jnp.zeros((1, 1)), jnp.full((1,), u))


def test_zerlaut_clips_the_drive_at_zero_and_keeps_its_slope_there():
    """A negative drive is none; at zero, where an unconnected node sits, the gradient is that from above."""
    x = [0.01, 0.02, 50.0, 0.0, 0.0]
    np.testing.assert_array_equal(zerlaut(x, u=-0.01).E, zerlaut(x).E)
    with jax.enable_x64(True):
        slope = float(jax.grad(lambda u: zerlaut(x, u=u).E[0])(0.0))
        assert slope == pytest.approx(float(zerlaut(x, u=1e-7).E[0] - zerlaut(x).E[0]) / 1e-7, rel=1e-3)
        assert slope > 0.01


def test_the_stimulus_of_zerlaut_is_a_rate_that_both_populations_receive():
    """As if the external drive of both were raised by it."""
    x = [0.01, 0.02, 50.0, 3.0, 1e-4]
    a = zerlaut(x, u=0.003)
    b = zerlaut(x, external_input_ex_ex=0.003, external_input_in_ex=0.003)
    for name in ("E", "I", "W_e"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-5)
    assert abs(float(a.E[0] - zerlaut(x).E[0])) > 1e-4


@pytest.mark.parametrize("rate", [0.0, 1e-12, 0.2])
def test_zerlaut_is_finite_without_activity_and_with_much(rate):
    def drift(theta):
        return sum(v.sum() for v in zerlaut([rate, rate, 0.0, 0.0, 0.0], u=theta["u"], Q_e=theta["Q_e"], T=theta["T"]))

    theta = {"u": jnp.asarray(0.0), "Q_e": jnp.asarray(1.5), "T": jnp.asarray(20.0)}
    value, slopes = jax.value_and_grad(drift)(theta)
    assert np.isfinite([float(value), *map(float, slopes.values())]).all()


def test_zerlaut_has_the_polynomials_of_tvb():
    stored = np.load(Path(__file__).parent / "golden" / "tvb_ZerlautAdaptationFirstOrder.npz")
    params = json.loads(str(stored["params"]))
    for name in ("P_e", "P_i"):
        np.testing.assert_allclose(getattr(vb.models.ZerlautAdaptationFirstOrder(), name), params[name], rtol=1e-6)
