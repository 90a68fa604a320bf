"""Adiabatic sweeps: folds and Hopf points lie between values where they should, and delays go on."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

import vbinfer as vb

ramp = vb.explore.adiabatic


def delayed(drift, tau, noise=None, **params):
    """One node that receives G x(t - tau)."""
    return vb.Simulator(
        vb.models.custom(drift, state={"x": -2.0}, params=params),
        vb.Connectome([[1.0]], [[tau]], speed=1.0),
        coupling=vb.coupling.Linear(G=1.0),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.1),
        noise=noise,
    )


@pytest.mark.parametrize("tau", [0.0, 2.0])
def test_both_jumps_bracket_the_folds(tau):
    """x' = p + x(t - tau) - x^3 / 3 has folds at p = 2/3 and -2/3, whatever the delay."""
    sim = delayed(lambda t, x, c, u, p: (p.p + c[0] - x.x**3 / 3.0,), tau, p=0.0)
    values = np.linspace(-0.9, 1.3, 89)
    ds = ramp(sim, "model.p", values, t1=200.0, transient=190.0, init={"x": -2.0})
    assert ds.ramp.values.tolist() == ["up", "down"]
    x, step = ds["x"].sel(of="mean").values[:, :, 0], values[1] - values[0]
    for row, fold in zip(x, (2.0 / 3.0, -2.0 / 3.0), strict=True):
        k = np.argmax(np.abs(np.diff(row)))
        late = np.sign(fold) * (values[k : k + 2].mean() - fold)
        assert 0.0 < late + 0.5 * step < 1.5 * step
    inside = np.abs(values) < 2.0 / 3.0 - step
    outside = np.abs(values) > 2.0 / 3.0 + step
    assert (ds.hysteresis.values[inside] > 0.3).all()
    assert (ds.hysteresis.values[outside] < 1e-5).all()
    # the lower and the upper root of the cubic
    for row, which in zip(x, (0, 2), strict=True):
        exact = [np.sort(np.roots([-1.0 / 3.0, 0.0, 1.0, p]).real)[which] for p in values[inside]]
        np.testing.assert_allclose(row[inside], exact, atol=2e-5)


def test_the_rhythm_of_a_delayed_node_begins_at_its_hopf_point():
    """x' = -x - x^3 + G x(t - tau): the squared amplitude grows linearly from G = -sqrt(1 + w^2), tan(w tau) = -w."""
    tau = 7.0
    omega = brentq(lambda w: np.tan(w * tau) + w, 0.5 * np.pi / tau + 1e-6, np.pi / tau - 1e-6)
    hopf = -np.hypot(1.0, omega)
    sim = delayed(lambda t, x, c, u, p: (-x.x - x.x**3 + c[0],), tau, vb.noise.Additive(1e-5))
    values = hopf - np.array([-0.1, -0.05, 0.03, 0.04, 0.05, 0.06])
    ds = ramp(sim, "coupling.G", values, t1=6_000.0, transient=5_900.0, key=jax.random.key(0), init={"x": 0.3})
    assert ds.ramp.values.tolist() == ["down", "up"]
    swing = 0.5 * (ds["x"].sel(of="max") - ds["x"].sel(of="min")).values[:, :, 0]
    assert (swing[:, :2] < 1e-4).all()
    np.testing.assert_allclose(swing[0, 2:], swing[1, 2:], rtol=1e-3)  # supercritical: the same both ways
    slope, offset = np.polyfit(values[2:], swing[0, 2:] ** 2, 1)
    assert -offset / slope == pytest.approx(hopf, abs=2e-3)


def test_what_is_under_way_and_the_noise_go_on():
    """Value by value as `simulate` continues, on an asymmetric network with unequal delays."""
    weights = np.array([[0.0, 0.6, 0.1], [0.2, 0.0, 0.8], [0.5, 0.3, 0.0]])
    sim = vb.Simulator(
        vb.models.Linear(gamma=[-1.0, -1.5, -0.8]),
        vb.Connectome(weights, np.array([[0.0, 9.0, 4.0], [7.0, 0.0, 2.0], [3.0, 5.0, 0.0]]), speed=1.0),
        coupling=vb.coupling.Linear(G=0.3),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(0.2),
    )
    values, key, last = [0.1, 0.4, 0.9], jax.random.key(3), {"x": [1.0, -0.5, 2.0]}
    ds = ramp(sim, "coupling.G", values, t1=12.0, transient=2.0, key=key, init=last)
    for direction, order in (("up", values), ("down", values[::-1])):
        for value in order:
            run = vb.simulate(vb.bind(sim, {"coupling.G": value}), t1=12.0, key=key, init=last)
            last, x = run.final, np.asarray(run.ys["raw"]["x"], float)[20:]
            kept = ds["x"].sel({"ramp": direction, "coupling.G": value})
            for name, of in (("min", x.min(axis=0)), ("max", x.max(axis=0)), ("mean", x.mean(axis=0))):
                np.testing.assert_allclose(kept.sel(of=name), of, atol=2e-6)


@pytest.mark.parametrize(
    ("path", "values", "options", "message"),
    [
        ("model.gama", [-1.0, -0.5], {}, "Did you mean 'model.gamma'"),
        ("model.gamma", [-1.0, -0.5, -0.7], {}, "do not ascend or descend"),
        ("model.gamma", [-1.0], {}, "do not ascend or descend"),
        ("noise.sigma", [-0.1, 0.1], {}, "outside"),
        ("model.gamma", [-1.0, -0.5], {"transient": 10.0}, "leaves nothing of t1=10 ms"),
        ("model.gamma", [-1.0, -0.5], {"key": None}, "key=jax.random.key"),
    ],
)
def test_ramps_that_cannot_be_run_are_refused(path, values, options, message):
    sim = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1), noise=vb.noise.Additive(0.1))
    with pytest.raises(ValueError, match=message):
        ramp(sim, path, values, **{"t1": 10.0, "transient": 5.0, "key": jax.random.key(0), **options})


def test_a_state_that_grows_without_bound_is_told():
    sim = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1))
    with pytest.warns(UserWarning, match=r"without bound at model.gamma = 5"):
        ds = ramp(sim, "model.gamma", [-0.02, -0.01, 5.0], t1=50.0, transient=40.0, init={"x": 1.0})
    assert np.isnan(ds.hysteresis.values).tolist() == [True, True, True]  # the way back begins there
    assert np.isfinite(ds["x"].sel(ramp="up").values[:2]).all()
