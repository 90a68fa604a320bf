"""The loop: resuming changes nothing, time is right, coupling and covariances are those of the theory."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

OU = np.load(Path(__file__).parent / "golden" / "linear_ou.npz")
W = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])


def simulator(**overrides):
    parts = dict(
        coupling=vb.coupling.Linear(G=0.4),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive({"r": 0.02, "V": 0.1}),
        monitors={
            "raw": vb.monitors.Raw(),
            "mean": vb.monitors.TimeAverage(0.4),
            "sub": vb.monitors.Subsample(0.6, var="r"),
            "bold": vb.monitors.BalloonWindkessel("r", period=1.2, step=0.3),
        },
    )
    model = overrides.pop("model", vb.models.MontbrioPazoRoxin(eta=jnp.array([-5.0, -4.6, -4.0])))
    connectome = overrides.pop("connectome", vb.Connectome(W, 10 * W.T))
    return vb.Simulator(model, connectome, **(parts | overrides))


OTHERS = pytest.mark.smoke  # but a piece of one step: the BOLD of its end is 1e-7 off with jax 0.12, equal with 0.10


@pytest.mark.parametrize(
    "pieces", [pytest.param((6.0, 6.0), marks=OTHERS), pytest.param((1.3, 0.7, 4.0, 6.0), marks=OTHERS), (11.9, 0.1)]
)
def test_in_pieces_equals_in_one_go_bit_for_bit(pieces):
    sim, key = simulator(), jax.random.key(3)
    whole = vb.simulate(sim, t1=12.0, key=key)
    parts, final = [], None
    for t1 in pieces:
        parts.append(vb.simulate(sim, t1=t1, key=key, init=final))
        final = parts[-1].final
    for name in sim.monitors:
        pairs = zip(
            jax.tree.leaves(whole.ys[name]),
            zip(*(jax.tree.leaves(p.ys[name]) for p in parts), strict=False),
            strict=True,
        )
        for one, several in pairs:
            np.testing.assert_array_equal(one, np.concatenate(several), err_msg=name)
        np.testing.assert_array_equal(whole.ts[name], np.concatenate([p.ts[name] for p in parts]), err_msg=name)
    for one, last in zip(jax.tree.leaves(whole.final), jax.tree.leaves(final), strict=True):
        np.testing.assert_array_equal(one, last)


def test_another_key_for_the_second_half_changes_only_the_second_half():
    sim = simulator()
    first = vb.simulate(sim, t1=6.0, key=jax.random.key(0))
    same = vb.simulate(sim, t1=6.0, key=jax.random.key(0), init=first.final).ys["raw"]["V"]
    other = vb.simulate(sim, t1=6.0, key=jax.random.key(1), init=first.final).ys["raw"]["V"]
    assert float(jnp.abs(same - other).max()) > 0.1


def ou(integrator, n_nodes=6, copies=400):
    """Many copies of the reference's 6-node linear network in one block-diagonal network, driven independently."""
    blocks = np.kron(np.eye(copies), OU["n6__W"])
    gamma = np.tile(-OU["n6__gamma"], copies)
    return vb.Simulator(
        vb.models.Linear(gamma=gamma),
        vb.Connectome(blocks, np.zeros_like(blocks)),
        coupling=vb.coupling.Linear(G=float(OU["n6__G"])),
        integrator=integrator,
        noise=vb.noise.Additive(np.tile(OU["n6__sigma"], copies)),
        monitors={"x": vb.monitors.Subsample(4.0, var="x")},
    )


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("integrator", "key"),
    [
        (vb.integrators.Euler(dt=0.1), "cov_euler_dt0.1"),
        (vb.Heun(dt=0.1), "cov_heun_dt0.1"),
        (vb.Heun(dt=0.1, frozen_coupling=True), "cov_heun_frozen_coupling_dt0.1"),
    ],
)
def test_stationary_covariance_is_the_lyapunov_solution_of_the_scheme(integrator, key):
    """Within 5 standard errors of every entry, and Euler's 5 % bias is told from Heun's 0.3 %."""
    x = np.asarray(vb.simulate(ou(integrator), t1=80.0, key=jax.random.key(0)).ys["x"], float)[8:]
    x = x.reshape(-1, 6)
    expected = OU[f"n6__{key}"]
    # entries of a covariance of n independent samples have variance (c_ii c_jj + c_ij^2) / n; samples 4 ms apart
    # are correlated, so n is reduced by the lagged covariance of the reference
    rho = np.abs(np.linalg.eigvals(OU["n6__J"]).real).min()
    n = len(x) * (1 - np.exp(-2 * rho * 4.0)) / (1 + np.exp(-2 * rho * 4.0))
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n)
    assert np.all(np.abs(x.T @ x / len(x) - expected) < 5 * error)
    assert np.any(np.abs(expected - OU["n6__cov"].T[::-1]) > 5 * error)  # a wrong orientation would show


def test_coupling_goes_from_column_to_row():
    weights = np.array([[0.0, 2.0], [0.0, 0.0]])  # from node 1 into node 0 only
    for kind, expected in (
        (vb.coupling.Linear(G=0.5, offset=0.25), 0.5 * 2 * 3 + 0.25),
        (vb.coupling.Difference(G=0.5), 0.5 * 2 * (3 - 1)),
    ):
        sim = vb.Simulator(
            vb.models.Linear(gamma=0.0),
            vb.Connectome(weights, np.zeros((2, 2))),
            coupling=kind,
            integrator=vb.integrators.Euler(dt=1.0),
        )
        y = vb.simulate(sim, t1=1.0, key=None, init=vb.models.Linear.State(jnp.array([1.0, 3.0]))).ys["raw"]["x"][0]
        np.testing.assert_allclose(y, [1 + expected, 3 + float(getattr(kind, "offset", 0.0))])


def test_difference_coupling_vanishes_on_equal_activity():
    sim = simulator(
        model=vb.models.Linear(gamma=0.0), coupling=vb.coupling.Difference(G=3.0), noise=None, monitors=None
    )
    y = vb.simulate(sim, t1=5.0, key=None, init=vb.models.Linear.State(jnp.full(3, 1.7))).ys["raw"]["x"]
    np.testing.assert_allclose(y, 1.7, rtol=1e-5)


def test_a_new_value_is_not_a_new_compilation():
    from vbinfer.simulation.simulate import _run

    sim = simulator()
    vb.simulate(sim, t1=1.2, key=jax.random.key(0))
    before = _run.compilations()
    for G in (0.1, 0.2, jnp.float32(0.3), np.float64(0.4)):
        bound = vb.bind(sim, {"coupling.G": G, "model.tau": 1.0 + G, "noise.sigma.r": G / 10})
        vb.simulate(bound, t1=1.2, key=jax.random.key(1))
    assert _run.compilations() == before


@pytest.mark.parametrize(
    "init", [None, {"r": 0.3}, vb.models.MontbrioPazoRoxin.State(0.3, jnp.array([-1.0, 0.0, 1.0]))]
)
def test_starts_where_it_is_told(init):
    sim = simulator(noise=None, monitors={"raw": vb.monitors.Raw()}, integrator=vb.integrators.Euler(dt=1e-4))
    y = vb.simulate(sim, t1=1e-4, key=None, init=init).ys["raw"]
    r = 0.0 if init is None else 0.3
    V = np.array([-1.0, 0.0, 1.0]) if isinstance(init, tuple) else -2.0
    np.testing.assert_allclose(y["r"][0], r, atol=2e-3)
    np.testing.assert_allclose(y["V"][0], np.broadcast_to(V, 3), atol=2e-3)


MISTAKES = [
    (
        lambda: vb.simulate(simulator(), t1=1.2, key=jax.random.split(jax.random.key(0), 3)),
        ValueError,
        "takes one key",
    ),
    (lambda: simulator(monitors={"eeg.1": vb.monitors.Raw()}), ValueError, "without dots"),
    (
        lambda: vb.simulate(
            simulator(integrator=vb.Heun(dt=1.0), monitors=None), t1=1_000_000.5, key=jax.random.key(0)
        ),
        ValueError,
        "not a multiple",
    ),
    (
        lambda: simulator(model=vb.models.MontbrioPazoRoxin(cvar=("r", "V")), coupling=vb.coupling.Kuramoto()),
        ValueError,
        "couples",
    ),
    (lambda: simulator(coupling=None), ValueError, "connectome was given without a coupling"),
    (lambda: simulator(model=vb.models.MontbrioPazoRoxin(eta=jnp.zeros(4))), ValueError, "each of 3 nodes"),
    (lambda: simulator(noise=vb.noise.Additive({"S": 0.1})), ValueError, "names state variable 'S'"),
    (lambda: vb.Heun(dt=0.0), ValueError, "must be positive"),
    (lambda: vb.simulate(simulator(), t1=1.25, key=jax.random.key(0)), ValueError, "t1 is 1.25 ms, not a multiple"),
    (lambda: vb.simulate(simulator(), t1=1.0, key=None), ValueError, r"jax\.random\.key\(0\)"),
    (lambda: vb.simulate(simulator(), t1=1.0, key=jax.random.key(0), init={"q": 1.0}), ValueError, "no such variable"),
    (lambda: vb.bind(simulator(), {"coupling.g": 0.1}), ValueError, "Did you mean 'coupling.G'?"),
    (lambda: vb.bind(simulator(), {"model.eta[0]": 0.1}), ValueError, "'model.eta'"),
    (lambda: vb.bind(simulator(), {"model": 0.1}), ValueError, "model.tau"),
    (lambda: vb.bind(simulator(), {"noise.sigma": 0.1}), ValueError, "noise.sigma.r, noise.sigma.V"),
    (lambda: vb.bind(simulator(), {"integrator.dt": 0.1}), ValueError, "fixed when"),
    (lambda: vb.bind(simulator(), {"model.tau": -1.0}), ValueError, "must lie in"),
    (lambda: vb.bind(simulator(), {"model.eta": jnp.zeros(5)}), ValueError, "each of 3 nodes"),
    (lambda: vb.bind(simulator(), {"connectome.weights": jnp.zeros((2, 3))}), ValueError, r"expected \[3, 3\]"),
    (lambda: vb.bind(simulator(), {"connectome.weights": jnp.full((3, 3), jnp.nan)}), ValueError, "NaN"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_binding_leaves_the_original_as_it_was():
    sim = simulator()
    bound = vb.bind(sim, {"coupling.G": 0.9, "connectome.weights": 2 * W})
    assert float(vb.paths(sim)["coupling.G"].value) == pytest.approx(0.4)
    assert float(vb.paths(bound)["coupling.G"].value) == pytest.approx(0.9)
    np.testing.assert_allclose(bound.connectome.weights, 2 * W, rtol=1e-6)


def test_a_run_is_not_continued_with_other_parts():
    monitors = {"fc": vb.monitors.RunningFC("r", period=1.2, every=0.1)}
    final = vb.simulate(simulator(monitors=monitors), t1=1.2, key=jax.random.key(0)).final
    for other in (
        simulator(monitors={"fc": vb.monitors.RunningFC("r", period=1.2, every=0.3)}),
        simulator(monitors={"fc": vb.monitors.TimeAverage(1.2, "r")}),
        simulator(monitors=monitors, noise=vb.noise.Coloured({"r": 0.1}, tau=1.0)),
    ):
        with pytest.raises(ValueError, match=r"init=final\.state"):
            vb.simulate(other, t1=1.2, key=jax.random.key(0), init=final)


def test_a_run_is_not_continued_on_another_time_grid():
    final = vb.simulate(simulator(), t1=1.2, key=jax.random.key(0)).final
    for other in (simulator(integrator=vb.Heun(dt=0.05)), simulator(monitors={"x": vb.monitors.Raw()})):
        with pytest.raises(ValueError, match=r"init=final\.state"):
            vb.simulate(other, t1=1.2, key=jax.random.key(0), init=final)
    with pytest.raises(TypeError, match=r"init=solution\.final"):
        vb.simulate(
            simulator(), t1=1.2, key=jax.random.key(0), init=vb.simulate(simulator(), t1=1.2, key=jax.random.key(0))
        )


def test_state_variables_come_in_the_order_of_the_model_not_of_the_alphabet():
    ys = vb.simulate(simulator(), t1=1.2, key=jax.random.key(0)).ys
    assert list(ys) == ["raw", "mean", "sub", "bold"]
    assert list(ys["raw"]) == list(ys["mean"]) == ["r", "V"]


def test_show_prints_paths_values_units_and_ranges(capsys):
    sim = vb.Simulator(
        vb.models.ReducedWongWang(w=np.array([0.6, 0.9])),
        vb.Connectome(np.array([[0.0, 0.4], [1.0, 0.0]]), np.zeros((2, 2))),
        coupling=vb.coupling.Linear(G=0.25),
        integrator=vb.Heun(dt=1.0),
    )
    vb.show(sim)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["path", *vb.paths(sim)]
    rows = {line.split()[0]: line for line in lines}
    assert "[2] 0.6 to 0.9" in rows["model.w"]
    assert "100" in rows["model.tau_s"].split()
    assert "ms" in rows["model.tau_s"].split()
    assert "0.25" in rows["coupling.G"].split()
    with pytest.raises(TypeError, match=r"a dict has no declared parameters; give a vb\.Simulator"):
        vb.show({})
