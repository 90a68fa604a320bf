"""Fixed points and their stability: closed forms, references, and what is refused."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import root

import vbinfer as vb
from vbinfer.explore.drift import Jacobian
from vbinfer.explore.roots import rightmost

GOLDEN = np.load(Path(__file__).parent / "golden" / "explore.npz")
NUMBERS = json.loads(str(GOLDEN["numbers"]))
KEY = jax.random.key(3)
ANY = pytest.mark.parametrize


def single(model, **more):
    return vb.Simulator(model, integrator=vb.Heun(dt=0.02), **more)


@pytest.fixture(scope="module")
def mpr():
    """One program for all parameters."""
    sim = single(vb.models.MontbrioPazoRoxin())
    return lambda **p: vb.fixed_points(sim, {f"model.{k}": v for k, v in p.items()}, key=KEY)


@ANY("case", ["mpr_default", "mpr_vbi", "mpr_monostable"])
def test_all_points_of_montbrio_pazo_roxin_are_found(mpr, case):
    points, known = mpr(**NUMBERS[case]["params"]), NUMBERS[case]["fixed"]
    np.testing.assert_allclose(points.x.r[:, 0], [p["r"] for p in known], rtol=1e-6)
    np.testing.assert_allclose(points.x.V[:, 0], [p["V"] for p in known], rtol=1e-6)
    assert points.stable.tolist() == [p["stable"] for p in known]
    for found, p in zip(points.eigenvalues, known, strict=True):
        of = np.array([complex(*z) for z in p["eigenvalues"]])
        np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(of), atol=1e-5)
    assert (points.found > 0).all()
    assert points.found.sum() + points.failed == 64
    assert (points.residual < 1e-9).all()
    assert (points.x.r >= 0.0).all()


def test_folds_of_montbrio_pazo_roxin_are_where_points_meet(mpr):
    for fold in NUMBERS["mpr_folds"]["folds"]:
        few, many = (len(mpr(J=15.0, Delta=1.0, eta=fold["eta"] + d).residual) for d in (2e-4, -2e-4))
        assert {few, many} == {1, 3}


def test_all_points_of_jansen_rit_are_found():
    sim = vb.Simulator(vb.models.JansenRit(v0=6.0), integrator=vb.Heun(dt=0.5))
    for case in NUMBERS["jansen_rit_6"]["fixed"]:
        points = vb.fixed_points(sim, {"model.mu": case["mu"]}, key=KEY)
        np.testing.assert_allclose(np.stack(points.x, axis=1)[:, :, 0], case["states"], atol=1e-6)
        np.testing.assert_allclose(points.eigenvalues[:, 0].real, case["leading"], atol=1e-7)


def test_points_of_a_network_are_those_of_scipy():
    """Three unlike nodes, coupled by differences: the drift by loops in NumPy, its roots by SciPy from many starts."""
    w = np.array([[0.0, 0.5, 0.1], [0.3, 0.0, 0.7], [0.9, 0.2, 0.0]])
    eta, G = np.array([-5.2, -4.9, -4.4]), 0.4
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=eta),
        vb.Connectome(w),
        coupling=vb.coupling.Difference(G=G),
        integrator=vb.Heun(dt=0.02),
    )

    def drift(y):
        r, V, out = y[:3], y[3:], np.empty(6)
        for i in range(3):
            c = G * sum(w[i, j] * (r[j] - r[i]) for j in range(3))
            out[i] = 1.0 / np.pi + 2.0 * r[i] * V[i]
            out[3 + i] = V[i] ** 2 - (np.pi * r[i]) ** 2 + 15.0 * r[i] + eta[i] + c
        return out

    rng, known = np.random.default_rng(1), []
    for _ in range(400):
        end = root(drift, np.concatenate([rng.uniform(0.0, 1.4, 3), rng.uniform(-3.0, 0.5, 3)]), tol=1e-12)
        if end.success and end.x[:3].min() > 0.0 and all(np.abs(end.x - other).max() > 1e-4 for other in known):
            known.append(end.x)
    points = vb.fixed_points(sim, starts=600, key=KEY)
    found = np.concatenate(points.x, axis=1)
    assert len(known) > 8
    assert np.abs(np.array(known)[:, None] - found).max(-1).min(1).max() < 1e-6  # none is missed
    assert max(np.abs(drift(y)).max() for y in found) < 1e-5  # none is wrong; weights are rounded to 32 bits
    for y, values in zip(found, points.eigenvalues, strict=True):
        J = np.stack([(drift(y + 1e-6 * e) - drift(y - 1e-6 * e)) / 2e-6 for e in np.eye(6)], axis=1)
        np.testing.assert_allclose(values.real, np.sort(np.linalg.eigvals(J).real)[::-1], atol=1e-5)


def test_without_a_fixed_point_there_is_none_and_it_is_said():
    model = vb.models.custom(
        lambda t, x, c, u, p: (1.0 + x.x**2 + p.a,), state={"x": 0.0}, params={"a": 0.0}, cvar=("x",)
    )
    with pytest.warns(UserWarning, match="none of 8 starts"):
        points = vb.fixed_points(single(model), starts=8, key=KEY)
    assert (len(points), points.failed, points.x.x.shape) == (0, 8, (0, 1))
    assert [a.shape for a in (points.stable, points.found, points.eigenvalues)] == [(0,), (0,), (0, 1)]


def test_inadmissible_points_are_left_out():
    """Two roots of 1 - x^2, of which project allows the positive one."""

    class Positive(vb.models.Linear):
        def dfun(self, t, x, c, u):
            return type(x)(1.0 - x.x**2)

        def project(self, x):
            return type(x)(jnp.maximum(x.x, 0.0))

    points = vb.fixed_points(single(Positive()), starts=24, key=KEY)
    assert points.x.x.ravel().tolist() == pytest.approx([1.0])
    assert points.eigenvalues.real.ravel().tolist() == pytest.approx([-2.0])


@ANY("case", NUMBERS["delayed_scalar"], ids=str)
def test_roots_of_a_delayed_scalar_are_lamberts(case):
    one = lambda v: np.full((1, 1, 1), float(v))  # noqa: E731
    roots, unstable = rightmost(Jacobian(one(case["a"])[0], one(1), one(1), one(case["b"]), one(case["tau"])))
    a, b = roots[0], complex(*case["roots"][0])
    assert abs(complex(a.real, abs(a.imag)) - complex(b.real, abs(b.imag))) < 1e-7
    assert unstable == case["n_unstable"]


def delayed(G):
    connectome = vb.Connectome(GOLDEN["delaynet__W"], GOLDEN["delaynet__delay"], speed=1.0)
    return vb.Simulator(
        vb.models.Linear(gamma=GOLDEN["delaynet__gamma"]),
        connectome,
        coupling=vb.coupling.Linear(G=G),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.5),
    )


@ANY("case", NUMBERS["delaynet"], ids=str)
def test_leading_root_and_number_of_unstable_ones_of_a_delayed_network(case):
    points = vb.fixed_points(delayed(case["G"]), starts=3, key=KEY)
    lead = points.eigenvalues[0, 0]
    np.testing.assert_allclose(
        [lead.real, abs(lead.imag)], np.abs(case["leading"]) * [np.sign(case["leading"][0]), 1], atol=1e-7
    )
    assert points.unstable.tolist() == [case["n_unstable"]]
    assert points.stable[0] == (case["n_unstable"] == 0)


@ANY(
    "sim",
    [
        (lambda: vb.Simulator(vb.models.Kuramoto(), integrator=vb.Heun(dt=0.1)), "phases of Kuramoto"),
        (lambda: vb.Simulator(vb.spiking.LIF(), integrator=vb.Native(dt=0.1), nodes=2), "LIF brings its own step"),
    ],
    ids=["phases", "stepper"],
)
def test_models_without_a_smooth_drift_are_refused(sim):
    make, message = sim
    with pytest.raises(ValueError, match=message):
        vb.fixed_points(make(), key=KEY)
    with pytest.raises(ValueError, match=message):
        vb.linearise(make())


def test_wrong_arguments_say_what_to_write():
    sim = single(vb.models.MontbrioPazoRoxin())
    with pytest.raises(ValueError, match=r"Did you mean 'model\.eta'"):
        vb.fixed_points(sim, {"model.etta": 1.0}, key=KEY)
    with pytest.raises(TypeError, match=r"theta is a list; expected path to value"):
        vb.fixed_points(sim, [1.0], key=KEY)
    with pytest.raises(ValueError, match="starts=0"):
        vb.fixed_points(sim, starts=0, key=KEY)
    with pytest.raises(TypeError, match=r"fixed_points was given a MontbrioPazoRoxin"):
        vb.fixed_points(vb.models.MontbrioPazoRoxin(), key=KEY)
    with pytest.raises(TypeError, match="key"):
        vb.fixed_points(sim, key=3)


def test_a_map_of_montbrio_pazo_roxin():
    """One, three, one point across both folds; the middle one as the reference has it."""
    ds = vb.stability(single(vb.models.MontbrioPazoRoxin()), {"model.eta": [-6.0, -5.0, -3.0]}, key=KEY)
    assert ds.n_fixed.values.tolist() == [1, 3, 1]
    assert dict(ds.leading.sizes) == {"model.eta": 3, "fixed": 3}
    known = [p["eigenvalues"] for p in NUMBERS["mpr_default"]["fixed"]]
    lead = [max(z, key=lambda z: z[0]) for z in known]
    order = np.argsort([z[0] for z in lead])
    np.testing.assert_allclose(ds.leading[1], [lead[k][0] for k in order], atol=1e-6)
    np.testing.assert_allclose(ds.frequency[1], [abs(lead[k][1]) * 1e3 / (2 * np.pi) for k in order], atol=1e-3)
    assert ds.n_unstable[1].values.tolist() == [0, 0, 1]
    assert np.isnan(ds.leading[0, 1:]).all()
    assert np.isnan(ds.n_unstable[2, 1:]).all()
    assert ds.leading.attrs["units"] == "1/ms"


def test_a_map_of_a_delayed_network():
    cases = NUMBERS["delaynet"]
    ds = vb.stability(delayed(0.1), {"coupling.G": [case["G"] for case in cases]}, key=KEY, starts=2)
    assert ds.n_fixed.values.tolist() == [1] * 4
    # grid values are rounded to no less than 64 bits, the network to 32
    np.testing.assert_allclose(ds.leading[:, 0], [case["leading"][0] for case in cases], atol=1e-7)
    np.testing.assert_allclose(ds.frequency[:, 0], [case["frequency_hz"] for case in cases], atol=1e-4)
    assert ds.n_unstable[:, 0].values.tolist() == [case["n_unstable"] for case in cases]


def test_points_of_a_map_without_a_fixed_point_are_counted():
    """Of 1 + x^2 + a there are none above a = -1, and the slope 2 x at the others; two parameters move together."""
    model = vb.models.custom(
        lambda t, x, c, u, p: (p.b + x.x**2 + p.a,), state={"x": 0.0}, params={"a": 0.0, "b": 1.0}, cvar=("x",)
    )
    grid = {("model.a", "model.b"): [[-2.0, 1.0], [0.0, 1.0], [0.0, -4.0]]}
    ds = vb.stability(single(model), grid, key=KEY)
    assert ds.n_fixed.values.tolist() == [2, 0, 2]
    np.testing.assert_allclose(ds.leading[[0, 2]], [[-2.0, 2.0], [-4.0, 4.0]], atol=1e-9)
    assert np.isnan(ds.leading[1]).all()
    assert ds["model.b"].values.tolist() == [1.0, 1.0, -4.0]


def test_wrong_grids_say_what_to_write():
    sim = single(vb.models.MontbrioPazoRoxin())
    with pytest.raises(ValueError, match=r"names 'model\.etta'.*Did you mean 'model\.eta'"):
        vb.stability(sim, {"model.etta": [1.0]}, key=KEY)
    with pytest.raises(ValueError, match=r"1 of the 2 values of 'model\.tau' lie outside"):
        vb.stability(sim, {"model.tau": [1.0, -1.0]}, key=KEY)
    with pytest.raises(ValueError, match="phases of Kuramoto"):
        vb.stability(single(vb.models.Kuramoto()), {"model.omega": [1.0]}, key=KEY)


def test_a_saddle_that_few_starts_find_is_not_left_out():
    """Two stable points alone cannot be: indices add up to 1. Some of these keys find no saddle in 64 starts."""
    sim = vb.Simulator(vb.models.MontbrioPazoRoxin(J=15.0, Delta=1.0), integrator=vb.Heun(dt=0.1))
    for key in map(jax.random.key, range(12)):
        points = vb.fixed_points(sim, key=key)
        assert points.stable.tolist() == [True, False, True]
        assert int(points.found.sum()) + points.failed in (64, 5 * 64)
        assert vb.stability(sim, {"model.eta": [-5.0]}, key=key).n_fixed.values.tolist() == [3]


@pytest.mark.parametrize("G", [1e-6, 1e-4, 1e-2])
def test_roots_beside_the_poles_of_weakly_coupled_oscillators_are_found(G):
    """p + G eig(W exp(-p lags)) / 2 up to order G^2, p = -a + i w of each node; roots and poles nearly cancel."""
    a, w = 0.03, 0.2
    weights = np.array([[0.0, 1.0, 0.3], [0.4, 0.0, 0.9], [1.2, 0.2, 0.0]])
    lags = np.array([[0.0, 13.0, 21.0], [17.0, 0.0, 25.0], [19.0, 15.0, 0.0]])
    rotating = vb.models.custom(
        lambda t, x, c, u, p: (-a * x.x - w * x.y + c[0], w * x.x - a * x.y), state={"x": 0.0, "y": 0.0}
    )
    sim = vb.Simulator(
        rotating,
        vb.Connectome(weights, lags, speed=1.0),
        coupling=vb.coupling.Linear(G=G),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.1),
    )
    lead = vb.fixed_points(sim, starts=4, key=jax.random.key(0)).eigenvalues[0, 0]
    p = -a + 1j * w
    exact = p + 0.5 * G * np.linalg.eigvals(weights * np.exp(-p * lags))
    exact = exact[exact.real.argmax()]
    assert lead.real == pytest.approx(exact.real, abs=100.0 * G**2 + 1e-10)
    assert abs(lead.imag) == pytest.approx(exact.imag, abs=100.0 * G**2 + 1e-10)
