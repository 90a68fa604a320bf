"""Both Epileptors: the virtual epileptic patient's numbers, its recruitment of other regions, and its two forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import vbinfer as vb


def run(model, weights, x0, t1, dt, G=1.0):
    """Trajectories of a network with difference coupling, by state variable, `[T, N]`."""
    sim = vb.Simulator(
        model,
        vb.Connectome(weights, np.zeros_like(weights)),
        coupling=vb.coupling.Difference(G=G),
        integrator=vb.Heun(dt=dt),
    )
    return vb.simulate(sim, t1=t1, key=None, init=model.State(*np.array(x0))).ys["raw"]


def test_vep_equals_vbi():
    """Four nodes, w_ij = (i + 1) / (10 (1 + |i - j|)), computed by vbi 0.4.4, which stores the state before a step."""
    i, j = np.indices((4, 4))
    weights = np.where(i == j, 0.0, (i + 1) / (10 * (1 + abs(i - j))))
    model = vb.models.Epileptor2D(form="vep", x0=[-1.6, -2.4, -3.65, -3.65])
    with jax.enable_x64(True):
        x1 = run(model, weights, [[-2.5] * 4, [3.5] * 4], 14.0, 0.1)["x1"]
    stored = {
        0.1: (-2.2513452, -2.2529452, -2.255445, -2.255445),
        5.0: (0.49165797, -1.6595641, -2.1112585, -2.1115668),
        13.9: (-1.5426711, -1.6376439, -2.2252495, -2.2260065),
    }
    for t, expected in stored.items():
        np.testing.assert_allclose(x1[round(t / 0.1) - 1], expected, rtol=0, atol=3e-7, err_msg=str(t))  # in float32


@pytest.mark.parametrize(("x0", "point"), [(-3.5, (-2.213494, 5.146025)), (-2.2, (-1.462426, 2.950296))])
def test_vep_rests_below_the_threshold_of_epileptogenicity(x0, point):
    model = vb.models.Epileptor2D(form="vep", x0=x0)
    with jax.enable_x64(True):
        y = run(model, np.zeros((1, 1)), [[-2.0], [3.0]], 300.0, 0.1)
    assert (y["x1"][-1, 0], y["z"][-1, 0]) == pytest.approx(point, abs=1e-6)


N, EZ, RECRUITED = 84, 11, [40, 5, 71, 17, 63, 29]
STRENGTH = [2.0, 1.6, 1.3, 1.0, 0.8, 0.65]


def patient():
    """Weights and excitabilities: one zone that seizes by itself, six it can recruit, all others healthy.

    The strong connections lead out of the epileptogenic zone only; a transposed matrix would hold it back.
    """
    weights = np.random.default_rng(1).uniform(0.0, 0.004, (N, N)) * (1 - np.eye(N))
    weights[RECRUITED, EZ] = STRENGTH
    x0 = np.full(N, -3.65)
    x0[RECRUITED], x0[EZ] = -2.2, -1.6
    return weights, x0


def onsets(t, x1):
    """When each region first crosses x1 = 0, linearly interpolated; infinite where it never does."""
    first = np.argmax(x1 > 0.0, axis=0)
    before, after = x1[first - 1, np.arange(N)], x1[first, np.arange(N)]
    crossing = t[first] - (t[1] - t[0]) * after / (after - before)
    return np.where((x1 > 0.0).any(axis=0), crossing, np.inf)


@pytest.fixture(scope="module")
def recruitment():
    """Onsets in 84 regions from SciPy's eighth-order integrator, the coupling summed edge by edge."""
    weights, x0 = patient()
    targets, sources = np.nonzero(weights)

    def field(t, state):
        x, z = state[:N], state[N:]
        pull = np.zeros(N)
        np.add.at(pull, targets, weights[targets, sources] * (x[sources] - x[targets]))
        return np.concatenate([4.1 - x**3 - 2.0 * x**2 - z, (4.0 * (x - x0) - z - pull) / 10.0])

    t = np.arange(0.0, 20.0, 0.02)
    start = np.repeat([-2.0, 4.5], N)
    y = solve_ivp(field, (0.0, 20.0), start, method="DOP853", rtol=1e-9, atol=1e-10, t_eval=t).y
    return onsets(t, y[:N].T)


def test_a_seizure_recruits_regions_in_the_order_of_their_coupling(recruitment):
    weights, x0 = patient()
    model = vb.models.Epileptor2D(form="vep", x0=x0)
    start = [[-2.0] * N, [4.5] * N]
    t = np.arange(1, 1001) * 0.02
    found = onsets(t, np.array(run(model, weights, start, 20.0, 0.02)["x1"]))
    seizing = [EZ, *RECRUITED]
    np.testing.assert_allclose(found[seizing], recruitment[seizing], atol=2e-3)
    assert np.isfinite(found).sum() == len(seizing)
    assert (np.diff(found[seizing]) > 0.3).all()

    alone = onsets(t, np.array(run(model, weights, start, 20.0, 0.02, G=0.0)["x1"]))
    assert np.flatnonzero(np.isfinite(alone)).tolist() == [EZ]


@pytest.mark.parametrize("form", ["tvb", "vep"])
def test_rest_ends_in_a_fold_at_minus_four_thirds(form):
    """There z = 4.1 - x1^3 - 2 x1^2 has its minimum, 2.914815, hence x0 = x1 - z / 4 = -2.062037."""
    model = vb.models.Epileptor2D(form=form, x0=-2.062037)

    def drift(x1, z):
        return model.dfun(jnp.zeros(()), model.State(x1[None], z[None]), jnp.zeros((1, 1)), jnp.zeros(1))

    x1, z = jnp.asarray(-4 / 3), jnp.asarray(2.914815)
    assert np.abs(np.ravel(drift(x1, z))).max() < 2e-6
    slope, curvature = (f(lambda x1: drift(x1, z).x1[0])(x1) for f in (jax.grad, lambda g: jax.grad(jax.grad(g))))
    assert (float(slope), float(curvature)) == pytest.approx((0.0, 4.0), abs=1e-5)


def test_the_forms_agree_below_zero_only():
    """With r = 1 / tau and Ks = -1, in x1 < 0 and z >= 0."""
    tvb = vb.models.Epileptor2D(r=0.1, Ks=-1.0, x0=-1.9)
    vep = vb.models.Epileptor2D(form="vep", tau=10.0, x0=-1.9)
    c, u = jnp.asarray([[0.3, -0.2, 0.5]]), jnp.asarray([0.1, 0.2, 0.3])
    for x1, agree in (([-2.0, -1.1, -0.2], True), ([0.2, 0.9, 1.7], False)):
        x = tvb.State(jnp.asarray(x1), jnp.asarray([3.0, 0.1, 4.5]))
        a, b = (np.array(model.dfun(jnp.zeros(()), x, c, u)) for model in (tvb, vep))
        np.testing.assert_allclose(a[1], b[1], rtol=1e-5)
        assert (np.abs(a[0] - b[0]) < 1e-5).all() == agree


def test_modification_draws_z_to_a_sigmoid():
    x1 = jnp.asarray([-1.7, -0.5, 0.8])
    expected = -1.6 + np.array([3 / (1 + np.exp(12.0)), 1.5, 3 / (1 + np.exp(-13.0))])
    zero, z = jnp.zeros(3), jnp.asarray([3.0, 2.0, -0.5])
    flat = vb.models.Epileptor2D(r=1.0, modification=True)
    drawn = flat.dfun(jnp.zeros(()), flat.State(x1, z), zero[None], zero).z + z
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    full = vb.models.Epileptor(r=1.0, modification=True)
    state = full.State(x1, zero, z, zero, zero, zero)
    np.testing.assert_allclose(full.dfun(jnp.zeros(()), state, jnp.zeros((2, 3)), zero).z + z, expected, rtol=1e-6)


def test_seizures_of_the_epileptor_start_and_stop():
    """x0 = -1.6 seizes twice in 4000 ms, z rising in seizures and falling between them; x0 = -2.4 comes to rest."""
    sim = vb.Simulator(
        vb.models.Epileptor(x0=[-1.6, -2.4]), integrator=vb.Heun(dt=0.05), monitors={"raw": vb.monitors.Subsample(50.0)}
    )
    y = vb.simulate(sim, t1=4000.0, key=None).ys["raw"]
    rising = np.diff(np.array(y["z"]), axis=0) > 0.0
    turns = np.diff(rising.astype(int), axis=0)
    assert ((turns == 1).sum(axis=0).tolist(), (turns == -1).sum(axis=0).tolist()) == ([2, 0], [2, 0])
    x1 = np.array(y["x1"])
    assert x1[1:][rising[:, 0], 0].mean() > -0.5 > -1.5 > x1[1:][~rising[:, 0], 0].mean()
    assert x1[-1, 1] == pytest.approx(np.array(y["z"])[-1, 1] / 4 - 2.4, abs=0.01)


def test_a_parameter_of_the_other_form_is_refused():
    with pytest.raises(ValueError, match='tau belongs to form="vep"'):
        vb.models.Epileptor2D(tau=10.0)
    with pytest.raises(ValueError, match='r belongs to form="tvb"'):
        vb.models.Epileptor2D(form="vep", r=0.1)
    with pytest.raises(ValueError, match="the strength is the G of"):
        vb.bind(vb.models.Epileptor2D(form="vep"), {"Ks": -1.0})
    with pytest.raises(ValueError, match='form="tvb" and form="vep"'):
        vb.models.Epileptor2D(form="VEP")
    with pytest.raises(ValueError, match='modification=True belongs to form="tvb"'):
        vb.models.Epileptor2D(form="vep", modification=True)
    with pytest.raises(ValueError, match='couples cvar=\\("x1", "x2"\\)'):
        vb.models.Epileptor(cvar=("x1",))
    assert float(vb.bind(vb.models.Epileptor2D(form="vep"), {"tau": 90.0}).tau) == 90.0
    assert "tau" not in vb.paths(vb.models.Epileptor2D())
    assert "r" not in vb.paths(vb.models.Epileptor2D(form="vep"))
