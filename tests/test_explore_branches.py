"""Continuation: folds and Hopf points in closed form, round folds, with delays, and of networks."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

import vbinfer as vb

NUMBERS = json.loads(str(np.load(Path(__file__).parent / "golden" / "explore.npz")["numbers"]))
HEUN = vb.Heun(dt=0.1)
follow = vb.explore.continuation


def by_kind(branch, kind):
    return [event for event in branch.events if event.kind == kind]


def test_the_folds_of_montbrio_pazo_and_roxin():
    golden = NUMBERS["mpr_folds"]
    model = vb.models.MontbrioPazoRoxin(J=golden["J"], Delta=golden["Delta"], eta=-7.0)
    branch = follow(vb.Simulator(model, integrator=HEUN), "model.eta", x0={"r": 0.06, "V": -2.5}, to=-2.0)
    assert [event.kind for event in branch.events] == ["fold", "fold"]
    for event, fold in zip(branch.events, golden["folds"], strict=True):
        assert event.value == pytest.approx(fold["eta"], abs=1e-8)
        np.testing.assert_allclose([event.x.r[0], event.x.V[0]], [fold["r"], fold["V"]], atol=1e-5)
        assert event.frequency == 0.0
    ds = branch.table()
    r, eta = ds["r"].values[:, 0], ds["model.eta"].values
    assert (eta[0], eta[-1]) == (-7.0, -2.0)
    # eta(r) on the branch, V = -Delta / (2 pi r)
    exact = np.pi**2 * r**2 - golden["J"] * r - golden["Delta"] ** 2 / (4 * np.pi**2 * r**2)
    np.testing.assert_allclose(eta, exact, atol=1e-8)
    middle = slice(*(int(np.argmin(abs(r - fold["r"]))) for fold in golden["folds"]))
    assert (ds["n_unstable"].values[middle][2:-2] == 1).all()
    assert ds["n_unstable"].values[[0, -1]].tolist() == [0, 0]
    at = NUMBERS["mpr_default"]["fixed"][2]  # the focus at eta = -5
    near = np.flatnonzero((eta > -5.2) & (eta < -4.8) & (r > 0.8))
    assert np.interp(-5.0, eta[near], ds["frequency"].values[near]) == pytest.approx(
        at["eigenvalues"][1][1] * 1e3 / (2 * np.pi), rel=1e-3
    )


def test_jansen_rit_has_the_folds_and_hopf_points_of_grimbert_and_faugeras():
    golden = NUMBERS["jansen_rit_6"]
    params = {name: value for name, value in golden["params"].items()}
    sim = vb.Simulator(vb.models.JansenRit(mu=-0.1, **params), integrator=HEUN)
    branch = follow(sim, "model.mu", to=0.4)
    folds, hopfs = by_kind(branch, "fold"), by_kind(branch, "hopf")  # of parameters in single precision
    np.testing.assert_allclose(sorted(e.value for e in folds), sorted(f["mu"] for f in golden["folds"]), atol=1e-6)
    hopfs.sort(key=lambda e: e.value)
    np.testing.assert_allclose([e.value for e in hopfs], [h["mu"] for h in golden["hopfs"]], atol=1e-6)
    np.testing.assert_allclose([e.frequency for e in hopfs], [h["frequency_hz"] for h in golden["hopfs"]], rtol=1e-6)
    np.testing.assert_allclose([e.x.y0[0] for e in hopfs], [h["y0"] for h in golden["hopfs"]], rtol=1e-5)
    assert follow(sim, "model.mu", to=0.4, events=("fold",)).events[0].kind == "fold"


def test_the_epileptor_has_hopf_points():
    golden = NUMBERS["epileptor_vep"]
    model = vb.models.Epileptor2D(form="vep", x0=-2.5, tau=golden["tau"], Iext=golden["Iext"])
    branch = follow(vb.Simulator(model, integrator=HEUN), "model.x0", to=-0.5)
    assert [event.kind for event in branch.events] == ["hopf", "hopf"]
    for event, hopf in zip(branch.events, golden["hopfs"], strict=True):
        assert event.value == pytest.approx(hopf["x0"], abs=1e-7)
        assert event.frequency == pytest.approx(hopf["frequency_hz"], rel=1e-6)


def tsodyks_markram(t, x, c, u, p):
    import jax.numpy as jnp

    rate = p.J * x.u * x.x * x.E
    dE = (-x.E + p.alpha * jnp.logaddexp(0.0, (rate + p.E0) / p.alpha)) / p.tau
    return dE, (1.0 - x.x) / p.tD - x.u * x.x * x.E, (p.U0 - x.u) / p.tF + p.U0 * (1.0 - x.u) * x.E


def test_tsodyks_and_markram():
    """Four events, two of them 0.014 apart."""
    golden = NUMBERS["tsodyks_markram"]
    model = vb.models.custom(
        tsodyks_markram, state={"E": 0.3, "x": 0.9, "u": 0.4}, params={**golden["params"], "E0": -2.0}
    )
    branch = follow(vb.Simulator(model, integrator=vb.Heun(dt=0.001)), "model.E0", to=-0.9)
    for kind, names in (("fold", golden["folds"]), ("hopf", golden["hopfs"])):
        found = sorted(by_kind(branch, kind), key=lambda event: event.value)
        known = sorted(names, key=lambda event: event["E0"])
        np.testing.assert_allclose([event.value for event in found], [k["E0"] for k in known], atol=1e-7)
        np.testing.assert_allclose([event.x.E[0] for event in found], [k["E"] for k in known], rtol=1e-4)
        if kind == "hopf":
            omega = [event.frequency * 2e-3 * np.pi for event in found]
            np.testing.assert_allclose(omega, [k["omega"] for k in known], rtol=1e-5)


def test_normal_forms():
    cubic = vb.models.custom(lambda t, x, c, u, p: (p.p + x.x - x.x**3 / 3.0,), state={"x": -2.0}, params={"p": -1.5})
    branch = follow(vb.Simulator(cubic, integrator=HEUN), "model.p", to=1.5)
    np.testing.assert_allclose([e.value for e in branch.events], [2.0 / 3.0, -2.0 / 3.0], atol=1e-9)

    def hopf(t, x, c, u, p):
        s = x.x**2 + x.y**2
        return p.p * x.x - x.y - x.x * s, x.x + p.p * x.y - x.y * s

    branch = follow(
        vb.Simulator(vb.models.custom(hopf, state={"x": 0.1, "y": 0.0}, params={"p": -1.0}), integrator=HEUN),
        "model.p",
        to=1.0,
    )
    (event,) = branch.events
    assert event.kind == "hopf"
    assert event.value == pytest.approx(0.0, abs=1e-9)
    assert event.frequency == pytest.approx(1e3 / (2.0 * np.pi), rel=1e-9)


def test_a_delayed_node_begins_to_oscillate():
    """x' = -x + G x(t - tau): a Hopf point where G cos(w tau) = 1 and -G sin(w tau) = w."""
    tau = 7.0
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        vb.Connectome([[1.0]], [[tau]], speed=1.0),
        coupling=vb.coupling.Linear(G=-0.8),
        delays=vb.Delays(),
        integrator=HEUN,
    )
    (event,) = follow(sim, "coupling.G", to=-1.2).events
    omega = brentq(lambda w: np.tan(w * tau) + w, 0.5 * np.pi / tau + 1e-6, np.pi / tau - 1e-6)
    assert event.kind == "hopf"
    assert event.value == pytest.approx(-np.hypot(1.0, omega), rel=1e-8)
    assert event.frequency == pytest.approx(omega * 1e3 / (2.0 * np.pi), rel=1e-6)


def test_a_network_of_unlike_nodes_turns_where_its_nodes_do():
    weights = np.array([[0.0, 1.0, 0.2], [0.3, 0.0, 0.8], [0.5, 0.1, 0.0]])
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=np.array([-5.0, -5.2, -5.5])),
        vb.Connectome(weights),
        coupling=vb.coupling.Linear(G=0.0),
        integrator=HEUN,
    )
    low = {"r": np.full(3, 0.08), "V": np.full(3, -2.0)}
    branch = follow(sim, "coupling.G", x0=low, to=30.0)
    assert branch.events[0].kind == "fold"
    fold, ds = branch.events[0], branch.table()
    assert dict(ds["r"].sizes) == {"point": len(branch.values), "r_dim_0": 3}
    # and back on the other side of the fold, where one node is on its middle branch
    assert (branch.values[0], branch.values[-1]) == (0.0, 0.0)
    assert (branch.unstable[0], branch.unstable[-1]) == (0, 1)
    r, V = fold.x.r, fold.x.V
    np.testing.assert_allclose(V, -1.0 / (2.0 * np.pi * r), rtol=1e-9)  # dr/dt = 0
    J = np.zeros((6, 6))
    J[:3, :3], J[:3, 3:] = np.diag(2.0 * V), np.diag(2.0 * r)
    J[3:, :3] = np.diag(15.0 - 2.0 * np.pi**2 * r) + fold.value * weights
    J[3:, 3:] = np.diag(2.0 * V)
    values = np.linalg.eigvals(J)
    assert abs(values).min() < 1e-6 * abs(values).max()


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("model.etaa", {"to": 1.0}, "Did you mean 'model.eta'"),
        ("model.eta", {"to": -5.0}, "already"),
        ("model.tau", {"to": -1.0}, "outside"),
        ("model.eta", {"to": np.nan}, "to="),
        ("model.eta", {"to": 1.0, "events": ("cusp",)}, "'fold', 'hopf'"),
    ],
)
def test_what_cannot_be_followed_is_refused(path, options, message):
    sim = vb.Simulator(vb.models.MontbrioPazoRoxin(eta=-5.0), integrator=HEUN)
    with pytest.raises(ValueError, match=message):
        follow(sim, path, **options)


def test_models_without_a_branch_are_refused():
    for sim, message in [
        (vb.Simulator(vb.models.Kuramoto(), integrator=HEUN), "phases"),
        (vb.Simulator(vb.spiking.LIF(10.0, -70.0, -50.0, -65.0, 2.0), integrator=vb.Native(dt=0.1)), "own step"),
        (vb.Simulator(vb.models.Linear(gamma=[-1.0, -2.0]), integrator=HEUN), "follows one number"),
    ]:
        path = next(iter(vb.paths(sim)))
        with pytest.raises(ValueError, match=message):
            follow(sim, path, to=-0.5)
    escaping = vb.models.custom(lambda t, x, c, u, p: (p.p + x.x**2,), state={"x": 0.3}, params={"p": 1.0})
    with pytest.raises(ValueError, match="no fixed point"):
        follow(vb.Simulator(escaping, integrator=HEUN), "model.p", to=2.0)
    with pytest.raises(TypeError, match=r"vb\.Simulator"):
        follow(vb.models.Linear(), "gamma", to=1.0)
