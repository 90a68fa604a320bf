"""The density of a path against scalar float64 NumPy, closed forms, and the simulator run forwards."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import vbinfer as vb
from vbinfer.likelihoods import innovations, transition_log_prob

RNG = np.random.default_rng(3)
W = np.array([[0.0, 0.7, -0.2], [0.3, 0.0, 0.9], [0.1, -0.4, 0.0]])
LENGTHS = np.array([[0.0, 4.0, 9.0], [7.0, 0.0, 2.0], [0.4, 6.0, 0.0]])
C = np.array([[1.0, 0.4, -0.3], [0.4, 1.0, 0.2], [-0.3, 0.2, 1.0]])


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def ou(gamma, sigma, integrator=None, nodes=None):
    return vb.Simulator(
        vb.models.Linear(gamma=gamma),
        integrator=integrator or vb.integrators.Euler(dt=0.1),
        noise=vb.noise.Additive(sigma),
        nodes=nodes,
    )


def network(model, noise, integrator=None, delays=None, sparse=False):
    wires = vb.Connectome(W, LENGTHS, speed=2.0)
    return vb.Simulator(
        model,
        wires.sparse() if sparse else wires,
        coupling=vb.coupling.Linear(G=0.6, offset=0.1),
        integrator=integrator or vb.integrators.Euler(dt=0.1),
        noise=noise,
        delays=delays,
    )


def mpr(noise, **options):
    return network(vb.models.MontbrioPazoRoxin(eta=[-4.0, -5.0, -6.0], J=14.0), noise, **options)


SIGMAS = {"r": 0.03, "V": [0.2, 0.5, 0.9]}
MPR_START = vb.models.MontbrioPazoRoxin.State(np.array([0.6, 0.9, 1.2]), np.array([-1.6, -1.1, -1.9]))


def walk(sim, n, seed, init):
    """A path of n steps and the normals that made it."""
    names = sim.noise.noisy(sim.state_shapes())
    z = {name: np.random.default_rng([seed, k]).normal(size=(n, sim.n_nodes)) for k, name in enumerate(names)}
    return vb.simulate(sim, t1=n * sim.dt, key=None, noise_path=z, init=init).ys["raw"], z


def with_start(path, start):
    return {name: np.concatenate([np.asarray(x0)[None], path[name]]) for name, x0 in zip(path, start, strict=True)}


def normal_log_pdf(x, mean, cov):
    """Multivariate, by the inverse and the determinant."""
    r = x - mean
    return -0.5 * (r @ np.linalg.inv(cov) @ r + np.log(np.linalg.det(cov)) + len(r) * math.log(2 * math.pi))


# ------------------------------------------------------------------------------------- against sequential NumPy


def test_delayed_network_equals_scalar_loops():
    """Montbrio-Pazo-Roxin, asymmetric weights and lags, noise unequal between variables and nodes, a live history."""
    dt, steps, rows = 0.1, 60, 50
    sim = mpr(vb.noise.Additive(SIGMAS), delays=vb.Delays())
    past = {"r": 0.5 + RNG.random((rows, 3)), "V": -2.0 + RNG.random((rows, 3))}
    init = vb.History(vb.models.MontbrioPazoRoxin.State(past["r"], past["V"]))
    path, _ = walk(sim, steps, 1, init)
    r, V = (np.concatenate([past[k], np.asarray(path[k])]) for k in "rV")
    assert r.min() > 0.02
    eta, sigma_V, total = [-4.0, -5.0, -6.0], [0.2, 0.5, 0.9], 0.0
    for k in range(rows - 1, rows + steps - 1):
        for i in range(3):
            c = 0.1
            for j in range(3):
                c += 0.6 * W[i, j] * r[max(k - round(LENGTHS[i, j] / 2.0 / dt), 0), j]
            drift_r = 1.0 / math.pi + 2 * r[k, i] * V[k, i]
            drift_V = V[k, i] ** 2 - (math.pi * r[k, i]) ** 2 + 14.0 * r[k, i] + eta[i] + c
            for new, old, f, s in ((r, r, drift_r, 0.03), (V, V, drift_V, sigma_V[i])):
                var = s * s * dt
                total -= 0.5 * ((new[k + 1, i] - old[k, i] - dt * f) ** 2 / var + math.log(2 * math.pi * var))
    assert float(transition_log_prob(sim, path, init=init)) == pytest.approx(total, rel=1e-10)
    terms = transition_log_prob(sim, path, init=init, pointwise=True)
    assert float(terms.sum()) == pytest.approx(total, rel=1e-10)
    assert terms.shape == (steps,)


def test_correlated_noise_is_the_multivariate_normal():
    sim = network(vb.models.Linear(gamma=[-1.0, -2.0, -0.5]), vb.noise.Additive([0.3, 1.0, 2.0], correlation=C))
    path = RNG.normal(size=(30, 3))
    A = np.diag([-1.0, -2.0, -0.5]) + 0.6 * W
    cov = 0.1 * np.diag([0.3, 1.0, 2.0]) @ C @ np.diag([0.3, 1.0, 2.0])
    expected = sum(normal_log_pdf(new, old + 0.1 * (A @ old + 0.1), cov) for old, new in itertools.pairwise(path))
    assert float(transition_log_prob(sim, {"x": path})) == pytest.approx(expected, rel=1e-11)


def test_multiplicative_noise_has_the_amplitude_at_the_start_of_the_step():
    noise = vb.noise.Multiplicative(lambda x: {"x": 0.2 + 0.5 * x.x**2})
    sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.integrators.Euler(dt=0.1), noise=noise, nodes=2)
    path = RNG.normal(size=(40, 2))
    expected = 0.0
    for old, new in zip(path[:-1].ravel(), path[1:].ravel(), strict=True):
        var = 0.1 * (0.2 + 0.5 * old**2) ** 2
        expected -= 0.5 * ((new - 0.9 * old) ** 2 / var + math.log(2 * math.pi * var))
    assert float(transition_log_prob(sim, {"x": path})) == pytest.approx(expected, rel=1e-11)


def test_exact_discrete_ornstein_uhlenbeck():
    """The path is jointly normal: mean x_0 a^t, covariance sigma^2 dt sum_k a^(s - k) a^(t - k), a = 1 + gamma dt."""
    gamma, sigma, dt, n, x0 = -0.8, 0.7, 0.1, 12, 1.3
    a = 1.0 + dt * gamma
    t = np.arange(1, n + 1)
    mean = x0 * a**t
    cov = np.array([[sigma**2 * dt * sum(a ** (s - k + u - k) for k in range(1, min(s, u) + 1)) for u in t] for s in t])
    x = RNG.normal(size=n)
    found = transition_log_prob(ou(gamma, sigma), {"x": x[:, None]}, init={"x": x0})
    assert float(found) == pytest.approx(normal_log_pdf(x, mean, cov), rel=1e-10)


def test_stimulus_is_read_at_the_time_of_the_step():
    pulse = vb.stimuli.Ramp(onset=0.0, duration=100.0, low=1.0, high=11.0)
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        integrator=vb.integrators.Euler(dt=0.1),
        noise=vb.noise.Additive(0.5),
        stimulus=pulse,
    )
    path = RNG.normal(size=8)
    mean = [0.9 * x + 0.1 * (1.0 + 0.1 * (5.0 + 0.1 * k)) for k, x in enumerate(path[:-1])]
    expected = -0.5 * np.sum((path[1:] - mean) ** 2 / 0.025 + np.log(2 * np.pi * 0.025))
    assert float(transition_log_prob(sim, {"x": path[:, None]}, t0=5.0)) == pytest.approx(expected, rel=1e-9)


# ----------------------------------------------------------------------------------- the simulator run backwards

FORWARD = {
    "euler, delays": lambda: mpr(vb.noise.Additive(SIGMAS), delays=vb.Delays()),
    "euler, interpolated delays": lambda: mpr(vb.noise.Additive(SIGMAS), delays=vb.Delays(interpolate=True)),
    "euler, sparse": lambda: mpr(vb.noise.Additive(SIGMAS), delays=vb.Delays(), sparse=True),
    "heun": lambda: mpr(vb.noise.Additive(SIGMAS), integrator=vb.Heun(dt=0.05)),
    "heun, frozen": lambda: mpr(vb.noise.Additive(SIGMAS), integrator=vb.Heun(dt=0.05, frozen_coupling=True)),
    "heun, delays": lambda: mpr(vb.noise.Additive(SIGMAS), integrator=vb.Heun(dt=0.05), delays=vb.Delays()),
    "runge-kutta, multiplicative": lambda: network(
        vb.models.Linear(gamma=-1.0),
        vb.noise.Multiplicative(lambda x: {"x": 0.2 + 0.1 * jnp.abs(x.x)}),
        integrator=vb.integrators.RungeKutta4(dt=0.05),
        delays=vb.Delays(),
    ),
}


@pytest.mark.parametrize("case", FORWARD)
def test_the_density_of_a_simulated_path_is_that_of_its_noise_times_the_jacobian(case):
    """log p(path) = log N(noise; 0, 1) - log |d path / d noise|, the Jacobian of the whole simulation by autodiff."""
    sim = FORWARD[case]()
    start = MPR_START if case != "runge-kutta, multiplicative" else sim.model.State(np.array([1.0, -2.0, 0.5]))
    n = 7
    path, z = walk(sim, n, 5, start)
    names, shape = tuple(z), (len(z), n, 3)

    def flat(normals):
        given = dict(zip(names, normals.reshape(shape), strict=True))
        y = vb.simulate(sim, t1=n * sim.dt, key=None, noise_path=given, init=start).ys["raw"]
        return jnp.stack([y[name] for name in names]).reshape(-1)

    at = np.stack([z[name] for name in names]).reshape(-1)
    log_det = np.linalg.slogdet(np.asarray(jax.jacfwd(flat)(jnp.asarray(at))))[1]
    expected = -0.5 * (at @ at + len(at) * math.log(2 * math.pi)) - log_det
    assert float(transition_log_prob(sim, path, init=start)) == pytest.approx(expected, rel=1e-9)
    found = innovations(sim, path, init=start)
    for name in names:
        np.testing.assert_allclose(found[name], z[name], rtol=0, atol=1e-7)


def test_the_first_row_of_the_path_is_where_it_departs():
    sim = FORWARD["euler, delays"]()
    path, _ = walk(sim, 20, 2, MPR_START)
    whole = transition_log_prob(sim, with_start(path, MPR_START))
    assert float(whole) == pytest.approx(float(transition_log_prob(sim, path, init=MPR_START)), rel=1e-13)


def test_a_long_path_is_cut_where_no_number_changes(monkeypatch):
    """Pieces of 16 steps, with 5 left over, against one piece."""
    from vbinfer.simulation import transition

    sim = FORWARD["euler, delays"]()
    path, _ = walk(sim, 101, 2, MPR_START)
    history = jax.tree.map(lambda a: jnp.asarray(a)[None], MPR_START)

    def loss(path):
        states = jax.tree.map(lambda h, p: jnp.concatenate([h, p]), history, sim.model.State(**path))
        found = transition.innovations(sim, history, states, jnp.asarray(0))
        return (found.z["r"] ** 3).sum() + found.log_det.sum() + (jnp.arange(101.0)[:, None] * found.z["V"]).sum()

    whole = jax.jit(jax.value_and_grad(loss))(path)
    monkeypatch.setattr(transition, "PAIR_VALUES", 16 * 9)
    again = lambda path: loss(path)  # noqa: E731  (JAX has the trace of `loss`)
    cut = jax.jit(jax.value_and_grad(again))(path)
    assert "scan" in str(jax.make_jaxpr(again)(path))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("case", ["euler, interpolated delays", "heun"])
def test_gradients_are_finite_differences(case):
    sim = FORWARD[case]()
    path, _ = walk(sim, 9, 8, MPR_START)
    theta = {
        "model.eta": jnp.array([-4.0, -5.0, -6.0]),
        "coupling.G": jnp.asarray(0.6),
        "noise.sigma.r": jnp.asarray(0.03),
        "connectome.speed": jnp.asarray(2.03),
    }

    def loss(theta, path):
        return transition_log_prob(vb.bind(sim, theta), path, init=MPR_START)

    slopes = jax.grad(loss, argnums=(0, 1))(theta, path)
    leaves, tree = jax.tree.flatten((theta, path))
    found, tried = jax.tree.leaves(slopes), 0
    for k, leaf in enumerate(leaves):
        index = tuple(size // 2 for size in leaf.shape)
        h = 1e-6

        def at(delta, k=k, index=index):
            moved = [a.at[index].add(delta) if i == k else a for i, a in enumerate(map(jnp.asarray, leaves))]
            return float(loss(*jax.tree.unflatten(tree, moved)))

        slope = (at(h) - at(-h)) / (2 * h)
        assert float(found[k][index]) == pytest.approx(slope, rel=2e-5, abs=2e-4), k
        tried += slope != 0.0
    assert tried >= 5


def test_the_maximum_recovers_a_linear_drift():
    """The estimate of gamma is the regression of increments on states, within 4 standard errors of the truth."""
    truth, sigma, dt, n = -0.6, 0.5, 0.1, 20_000
    sim = ou(truth, sigma)
    path = vb.simulate(sim, t1=n * dt, key=jax.random.key(4)).ys["raw"]["x"]
    slope = jax.jit(jax.grad(lambda g: transition_log_prob(vb.bind(sim, {"model.gamma": g}), {"x": path})))
    best = scipy.optimize.brentq(lambda g: float(slope(g)), -3.0, 1.0)
    x = np.asarray(path)[:, 0]
    assert best == pytest.approx((x[:-1] @ np.diff(x)) / (dt * (x[:-1] @ x[:-1])), rel=1e-8)
    assert abs(best - truth) < 4 * math.sqrt(-2 * truth / (n * dt))


# -------------------------------------------------------------------------------------------- bounds and slack


def test_a_variable_without_noise_keeps_its_step_up_to_the_slack():
    sim = mpr(vb.noise.Additive({"V": 0.3}))
    n = 12
    path, z = walk(sim, n, 1, MPR_START)
    found = transition_log_prob(sim, path, init=MPR_START, slack={"r": 0.01})
    of_V = -0.5 * np.sum(z["V"] ** 2) - 3 * n * math.log(0.3 * math.sqrt(0.1 * 2 * math.pi))
    exact = of_V - 3 * n * math.log(0.01 * math.sqrt(2 * math.pi))  # r follows the model, residual 0
    assert float(found) == pytest.approx(exact, rel=1e-9)
    last = path | {"r": jnp.asarray(path["r"]).at[-1, 1].add(0.02)}  # two standard deviations off
    off = transition_log_prob(sim, last, init=MPR_START, slack=0.01)
    assert float(off) == pytest.approx(exact - 2.0, rel=1e-9)


def test_no_path_leaves_the_bounds():
    sim = mpr(vb.noise.Additive(SIGMAS))
    path, _ = walk(sim, 5, 1, MPR_START)
    outside = path | {"r": jnp.asarray(path["r"]).at[2, 0].set(-0.1)}
    terms = np.asarray(transition_log_prob(sim, outside, init=MPR_START, pointwise=True))
    assert np.isneginf(terms).tolist() == [False, False, True, False, False]


def _wilson(**noise):
    return vb.Simulator(
        vb.models.JansenRit(), integrator=vb.integrators.Euler(dt=0.1), noise=vb.noise.Additive(**noise)
    )


def _linear(integrator=None, noise=None):
    return vb.Simulator(vb.models.Linear(), integrator=integrator or vb.integrators.Euler(dt=0.1), noise=noise, nodes=2)


ROWS = {"x": np.zeros((5, 2))}
LOUD = vb.noise.Additive(1.0)
MISTAKES = {
    "no noise": (lambda: transition_log_prob(_linear(), ROWS), ValueError, "has no noise, so a path has no density"),
    "coloured": (
        lambda: transition_log_prob(_linear(noise=vb.noise.Coloured(1.0, tau=5.0)), ROWS),
        ValueError,
        "Coloured noise has a state of its own.*NoisePath",
    ),
    "rosenbrock": (
        lambda: transition_log_prob(_linear(vb.integrators.Rosenbrock(dt=0.1), LOUD), ROWS),
        ValueError,
        r"a step of Rosenbrock is not known in closed form; use integrator=vb.integrators.Euler\(dt=0.1\)",
    ),
    "runge-kutta with bounds": (
        lambda: transition_log_prob(
            vb.Simulator(vb.models.ReducedWongWang(), integrator=vb.integrators.RungeKutta4(dt=0.1), noise=LOUD),
            {"S": [[0.1]] * 3},
        ),
        ValueError,
        "RungeKutta4 bounds ReducedWongWang within its step",
    ),
    "wrapped phases": (
        lambda: transition_log_prob(
            vb.Simulator(vb.models.Kuramoto(wrap=True), integrator=vb.integrators.Euler(dt=0.1), noise=LOUD),
            {"theta": [[0.1]] * 3},
        ),
        ValueError,
        "takes turns off its phases.*wrap=False",
    ),
    "quiet variable": (
        lambda: transition_log_prob(_wilson(sigma={"y4": 1.0}), {f"y{k}": np.zeros((4, 1)) for k in range(6)}),
        ValueError,
        r"'y0' of JansenRit gets no noise.*slack=\{\"y0\": 1e-3\}",
    ),
    "slack of a noisy variable": (
        lambda: transition_log_prob(_linear(noise=LOUD), ROWS, slack={"x": 1.0}),
        ValueError,
        "slack names 'x', which is no state variable without noise; every variable has some",
    ),
    "slack of zero": (
        lambda: transition_log_prob(
            _wilson(sigma={"y4": 1.0}), {f"y{k}": np.zeros((4, 1)) for k in range(6)}, slack=0.0
        ),
        ValueError,
        r"slack\['y0'\] is 0; a standard deviation must be above 0",
    ),
    "unknown variable": (
        lambda: transition_log_prob(_linear(noise=LOUD), {"X": ROWS["x"]}),
        ValueError,
        "path names 'X'.* Known: x",
    ),
    "missing variable": (lambda: transition_log_prob(_linear(noise=LOUD), {}), ValueError, "path lacks 'x'"),
    "no mapping": (lambda: transition_log_prob(_linear(noise=LOUD), ROWS["x"]), TypeError, "a State or a mapping"),
    "other nodes": (
        lambda: transition_log_prob(_linear(noise=LOUD), {"x": np.zeros((5, 3))}),
        ValueError,
        r"path\['x'\] has shape \[5, 3\]; expected \[T \+ 1, 2\]",
    ),
    "unequal lengths": (
        lambda: transition_log_prob(mpr(vb.noise.Additive(SIGMAS)), {"r": np.ones((5, 3)), "V": np.ones((4, 3))}),
        ValueError,
        r"different numbers of rows \('r': 5, 'V': 4\)",
    ),
    "one row": (
        lambda: transition_log_prob(_linear(noise=LOUD), {"x": np.zeros((1, 2))}),
        ValueError,
        "path has 1 row; the first is the state that it departs from",
    ),
    "final": (
        lambda: transition_log_prob(
            _linear(noise=LOUD), ROWS, init=vb.simulate(_linear(noise=LOUD), t1=0.1, key=jax.random.key(0)).final
        ),
        TypeError,
        "write init=final.state",
    ),
    "silent node": (
        lambda: transition_log_prob(_linear(noise=vb.noise.Additive([1.0, 0.0])), ROWS),
        ValueError,
        "noise.sigma is 0 somewhere",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_answered(case):
    call, kind, message = MISTAKES[case]
    with pytest.raises(kind, match=message):
        call()
