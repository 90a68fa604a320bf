"""Noise: amplitudes and conventions, Itô calculus, coloured and correlated noise, each against its closed form."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vbinfer as vb
from vbinfer import noise

CONVENTIONS = np.load(Path(__file__).parent / "golden" / "tvb_conventions.npz")
LINEAR = vb.models.Linear(gamma=-0.5)


def run(sim, t1, z=None, key=None, **options):
    """The raw trajectory by state variable, `[T, N]` each, float64 NumPy."""
    y = vb.simulate(sim, t1=t1, key=key, noise_path=z, **options).ys["raw"]
    return {name: np.asarray(value, float) for name, value in y.items()}


def linear(gamma, given, nodes, dt=0.1, scheme=vb.Heun):
    return vb.Simulator(vb.models.Linear(gamma=gamma), integrator=scheme(dt=dt), noise=given, nodes=nodes)


def impulse_responses(given, gamma, dt, n, scheme=vb.Heun):
    """x after `n` steps for a normal of 1 in step i and 0 otherwise, at node i: with them, var x = sum h^2, exactly."""
    sim = linear(gamma, given, n, dt, scheme)
    with jax.enable_x64(True):
        sim = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), sim)
        return run(sim, n * dt, {"x": np.eye(n)}, jax.random.key(0))["x"][-1]


# ----------------------------------------------------------------------------------------------- amplitudes


@pytest.mark.smoke
@pytest.mark.parametrize("case", ["noise_mpr", "noise_linear", "noise_suphopf"])
def test_equals_the_stochastic_heun_of_tvb(case):
    """Its standard normals, its delays, its bounds; D is TVB's nsig, for two models one number for each variable."""
    stored = {k.removeprefix(f"{case}__"): v for k, v in CONVENTIONS.items() if k.startswith(f"{case}__")}
    info = json.loads(str(CONVENTIONS["info"]))[case]
    with jax.enable_x64(True):
        kind = getattr(vb.models, info["model"])
        model = kind(**{k: v for k, v in info["params"].items() if k in vb.paths(kind())})
        names = model.variables()
        sim = vb.Simulator(
            model,
            vb.Connectome(stored["weights"], stored["tract_lengths"], float(stored["speed"])),
            coupling=vb.coupling.Linear(G=info["a"]),
            integrator=vb.Heun(dt=float(stored["dt"]), frozen_coupling=True),
            noise=noise.Additive(D=dict(zip(names, info["nsig"], strict=True))),
            delays=vb.Delays(),
        )
        z = {name: stored["z"][:, k] for k, name in enumerate(names)}
        init = model.State(*stored["x0"])
        y = run(sim, len(stored["z"]) * sim.dt, z, init=init)
    y = np.stack([y[name] for name in names], axis=1)
    scale = np.abs(stored["y"]).max(axis=(0, 2))
    assert (np.abs(y - stored["y"]).max(axis=(0, 2)) / scale).max() < 1e-9


def ornstein_uhlenbeck(sigma, n=4_000):
    monitors = {"x": vb.monitors.Subsample(1.0, var="x")}
    given = noise.Additive(**sigma)
    return vb.Simulator(LINEAR, integrator=vb.Heun(dt=0.1), noise=given, nodes=n, monitors=monitors)


def test_sigma_is_the_diffusion_coefficient_and_D_half_its_square():
    """Stationary variance of dx = -x/2 dt + sigma dW under Heun: sigma^2 dt (1 - dt/4)^2 / (1 - a^2), a the step."""
    dt, gamma, sigma = 0.1, -0.5, 0.6
    a = 1 + dt * gamma + (dt * gamma) ** 2 / 2
    expected = sigma**2 * dt * (1 + dt * gamma / 2) ** 2 / (1 - a**2)
    assert expected == pytest.approx(sigma**2 / (2 * 0.5), rel=2e-3)
    x = vb.simulate(ornstein_uhlenbeck(dict(sigma=sigma)), t1=40.0, key=jax.random.key(2)).ys["x"][20:]
    independent = 4_000 * 20 * (1 - np.exp(-1)) / (1 + np.exp(-1))
    assert float(jnp.var(x)) == pytest.approx(expected, rel=5 * np.sqrt(2 / independent))
    y = vb.simulate(ornstein_uhlenbeck(dict(D=sigma**2 / 2)), t1=40.0, key=jax.random.key(2)).ys["x"][20:]
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "bias"),
    [  # var / (sigma^2 / 2k) at k dt = 1/4: noise that enters after the drift alone is off in first order
        (vb.integrators.Euler, lambda h: 1 / (1 - h / 2)),
        (vb.Heun, lambda h: 2 * h * (1 - h / 2) ** 2 / (1 - (1 - h + h * h / 2) ** 2)),
        (vb.integrators.RungeKutta4, lambda h: 2 * h / (1 - (1 - h + h**2 / 2 - h**3 / 6 + h**4 / 24) ** 2)),
        (vb.integrators.Rosenbrock, lambda h: 2 / h * (1 - _rosenbrock_factor(-h)) / (1 + _rosenbrock_factor(-h))),
    ],
)
def test_stationary_variance_of_every_scheme(scheme, bias):
    """dx = -k x dt + sigma dW; k dt = 1/4: Heun is 2 % below, Euler 14 % and Runge-Kutta 27 % above sigma^2 / 2k."""
    k, sigma, dt = 0.5, 0.6, 0.5
    h = impulse_responses(noise.Additive(sigma), -k, dt, 160, scheme)
    assert np.sum(h**2) == pytest.approx(sigma**2 / (2 * k) * bias(k * dt), rel=1e-6)  # leaves are float32


def _rosenbrock_factor(z):
    g = 1 - 1 / np.sqrt(2)
    return (1 + (1 - 2 * g) * z) / (1 - g * z) ** 2


@pytest.mark.smoke
def test_sigma_by_variable_and_node():
    model = vb.models.MontbrioPazoRoxin()
    given = noise.Additive({"V": [0.0, 0.1, 0.2]})
    sim = vb.Simulator(model, integrator=vb.integrators.Euler(dt=0.01), noise=given, nodes=3)
    quiet = vb.Simulator(model, integrator=vb.integrators.Euler(dt=0.01), nodes=3)
    one, zero = (vb.simulate(s, t1=0.01, key=jax.random.key(0)).ys["raw"] for s in (sim, quiet))
    np.testing.assert_array_equal(one["r"], zero["r"])
    both = vb.Simulator(
        model, integrator=vb.integrators.Euler(dt=0.01), noise=noise.Additive({"r": 1.0, "V": 1.0}), nodes=3
    )
    same = vb.simulate(both, t1=0.01, key=jax.random.key(0)).ys["raw"]
    # the variate of V is the same whether or not r has noise too
    np.testing.assert_allclose(one["V"] - zero["V"], np.array([[0.0, 0.1, 0.2]]) * (same["V"] - zero["V"]), atol=2e-6)


# ------------------------------------------------------------------------------------------------ multiplicative


class Proportional(eqx.Module):
    """g(x) = s x."""

    s: jax.Array = vb.param(0.5, low=0.0, doc="relative amplitude")

    def __call__(self, x):
        return {"x": self.s * x.x}


@pytest.mark.parametrize(
    "scheme", [vb.integrators.Euler, vb.Heun, vb.integrators.RungeKutta4, vb.integrators.Rosenbrock]
)
def test_the_calculus_is_that_of_ito(scheme):
    """dx = s x dW: the mean stays at 1, where Stratonovich calculus has exp(s^2 T / 2) = 1.65."""
    s, T, n = 1.0, 1.0, 40_000
    x = run(
        linear(0.0, noise.Multiplicative(Proportional(s)), n, 0.05, scheme), T, key=jax.random.key(1), init={"x": 1.0}
    )
    x = x["x"][-1]
    assert x.mean() == pytest.approx(1.0, abs=4.5 * np.sqrt((np.exp(s * s * T) - 1) / n))
    assert x.mean() < 0.9 * np.exp(s * s * T / 2)


def refined(scheme, make, state, exact, T=1.0, fine=2**9, coarse=(2**4, 2**5, 2**6, 2**7), n=2_000):
    """Slope of the log of the mean strong error at T against the log of dt, one Brownian path for all dt."""
    rng = np.random.default_rng(0)
    variables = list(state)
    z = {name: rng.standard_normal((fine, n)) for name in variables}
    errors = []
    with jax.enable_x64(True):
        for steps in coarse:
            # the sum of m standard normals over sqrt(m) is the standard normal of the longer step
            m = fine // steps
            summed = {k: v.reshape(steps, m, n).sum(axis=1) / np.sqrt(m) for k, v in z.items()}
            x = run(make(scheme(dt=T / steps), n), T, summed, init=state)
            errors.append(np.mean([np.abs(x[k][-1] - exact(z)[k]) for k in variables]))
    return np.polyfit(np.log(T / np.array(coarse)), np.log(errors), 1)[0]


@pytest.mark.parametrize("scheme", [vb.integrators.Euler, vb.Heun])
def test_strong_order_of_multiplicative_noise_is_one_half(scheme):
    """Geometric Brownian motion, x_T = x_0 exp((gamma - s^2 / 2) T + s W_T)."""
    gamma, s = -0.75, 0.8125  # exact in float32, as leaves are
    slope = refined(
        scheme,
        lambda integrator, n: vb.Simulator(
            vb.models.Linear(gamma=gamma),
            integrator=integrator,
            noise=noise.Multiplicative(Proportional(s)),
            nodes=n,
        ),
        {"x": 1.5},
        lambda z: {"x": 1.5 * np.exp(gamma - s * s / 2 + s * z["x"].sum(axis=0) / np.sqrt(len(z["x"])))},
    )
    assert slope == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "scheme", [vb.integrators.Euler, vb.Heun, vb.integrators.RungeKutta4, vb.integrators.Rosenbrock]
)
def test_strong_order_of_additive_noise_is_one(scheme):
    """dx = x (a - x^2 - y^2) - omega y dt + sigma dW, against Heun with steps 16 times shorter."""
    T, fine = 1.0, 2**11

    def make(integrator, n):
        model = vb.models.SupHopf(a=1.0, omega=2.0)
        return vb.Simulator(model, integrator=integrator, noise=noise.Additive({"x": 0.5, "y": 0.25}), nodes=n)

    state = {"x": 0.9, "y": -0.4}
    found = {}

    def exact(z):
        if not found:
            x = run(make(vb.Heun(dt=T / fine), 500), T, z, init=state)
            found.update({k: x[k][-1] for k in state})
        return found

    assert refined(scheme, make, state, exact, T, fine, n=500) == pytest.approx(1.0, abs=0.1)


def test_amplitudes_of_a_state_dependent_noise_can_be_bound_and_drawn():
    sim = linear(-0.5, noise.Multiplicative(Proportional(0.5)), 4)
    assert "noise.gfun.s" in vb.paths(sim)
    one, two = (
        run(vb.bind(sim, {"noise.gfun.s": s}), 0.1, {"x": np.full((1, 4), 2.0)}, init={"x": 1.0})["x"][0]
        for s in (0.25, [0.5, 0.0, 1.0, 0.75])
    )
    quiet = 1 - 0.05 + 0.05**2 / 2
    kick = np.sqrt(0.1) * 2.0 * (1 - 0.05 / 2)
    np.testing.assert_allclose(one, quiet + 0.25 * kick, rtol=1e-6)
    np.testing.assert_allclose(two, quiet + np.array([0.5, 0.0, 1.0, 0.75]) * kick, rtol=1e-6)
    assert_batch_is_singles(sim, {"noise.gfun.s": jnp.array([0.1, 0.4, 0.9])}, init={"x": 1.0})


def test_a_state_and_a_mapping_mean_the_same():
    """A State names every variable, a mapping those with noise; one that is absent is not disturbed."""
    model = vb.models.SupHopf()
    z = {"x": np.ones((5, 2)), "y": -np.ones((5, 2))}
    by_state = noise.Multiplicative(lambda x: x._replace(x=0.3 * x.y, y=0.1 + 0.0 * x.x))
    by_name = noise.Multiplicative(lambda x: {"y": 0.1, "x": 0.3 * x.y})
    no_y = noise.Multiplicative(lambda x: {"x": 0.3 * x.y})
    zero_y = noise.Multiplicative(lambda x: {"x": 0.3 * x.y, "y": 0.0})
    a, b, c, d = (
        run(vb.Simulator(model, integrator=vb.Heun(dt=0.1), noise=given, nodes=2), 0.5, z)
        for given in (by_state, by_name, no_y, zero_y)
    )
    for name in ("x", "y"):
        np.testing.assert_array_equal(a[name], b[name])
        np.testing.assert_array_equal(c[name], d[name])
    assert np.abs(a["y"] - c["y"]).max() > 0.01


# ----------------------------------------------------------------------------------------------------- coloured


def test_coloured_input_has_its_variance_and_autocovariance_from_the_start():
    """x' = xi: a step adds dt (xi_n + xi_{n+1}) / 2, of autocovariance sigma^2 e^k (2 + e + 1/e) / 4 at lag k."""
    dt, sigma, tau, n = 0.5, 0.6, 2.0, 20_000
    x = run(linear(0.0, noise.Coloured(sigma, tau), n, dt), 10.0, key=jax.random.key(4))["x"]
    xi = np.diff(x, axis=0, prepend=0.0) / dt
    e = np.exp(-dt / tau)
    for first in (0, 12):
        for lag in (0, 1, 4, 7):
            expected = sigma**2 * (e**lag * (2 + e + 1 / e) / 4 if lag else (1 + e) / 2)
            measured = (xi[first] * xi[first + lag]).mean()
            assert measured == pytest.approx(expected, abs=4.5 * sigma**2 * np.sqrt(2 / n)), (first, lag)
    assert scipy.stats.kstest(xi[0] / (sigma * np.sqrt((1 + e) / 2)), "norm").pvalue > 1e-4


def test_variance_and_autocovariance_of_a_linear_system_under_coloured_input():
    """x' = -k x + xi: var = sigma^2 tau / (k (1 + k tau)), autocovariance a sum of two exponentials; error O(dt^2)."""
    k, tau, sigma = 0.5, 2.5, 0.75
    for dt, tolerance in ((0.2, 2e-2), (0.1, 5e-3)):
        n = round(40.0 / dt)
        h = impulse_responses(noise.Coloured(sigma, tau), -k, dt, n)
        for lag in (0.0, 1.0, 6.0):
            m = round(lag / dt)
            both = np.exp(-k * lag) - k * tau * np.exp(-lag / tau)
            expected = sigma**2 * tau / (k * (1 - (k * tau) ** 2)) * both
            assert np.sum(h[: n - m] * h[m:]) == pytest.approx(expected, rel=tolerance), (dt, lag)
    assert expected < 0.3 * sigma**2 * tau / (k * (1 + k * tau))


def test_fast_coloured_noise_is_white_noise_of_sigma_sqrt_two_tau():
    """With dt below tau and tau below 1/k; within the correlation's own share 1 / (1 + k tau)."""
    k, tau, dt, n = 0.125, 0.25, 0.125, 640
    white = np.sum(impulse_responses(noise.Additive(0.5 * np.sqrt(2 * tau)), -k, dt, n) ** 2)
    coloured = np.sum(impulse_responses(noise.Coloured(0.5, tau), -k, dt, n) ** 2)
    # the trapezoid over a step of dt adds (dt / 2 tau) coth(dt / 2 tau) - 1 = 2 % here
    h = dt / (2 * tau)
    assert coloured / white == pytest.approx(h / np.tanh(h) / (1 + k * tau), rel=2e-3)


def test_what_coloured_noise_carries_is_an_exact_recursion():
    """By node: xi' = e xi + sigma sqrt(1 - e^2) z from given normals, x' = x + dt (xi + xi') / 2."""
    sigma, tau, dt = np.array([0.5, 0.25, 2.0]), np.array([1.0, 4.0, 0.5]), 0.25
    rng = np.random.default_rng(2)
    z = rng.standard_normal((9, 3))
    with jax.enable_x64(True):
        sim = linear(0.0, noise.Coloured({"x": sigma}, tau), 3, dt)
        start = run(sim, dt, {"x": np.zeros((1, 3))}, jax.random.key(6))["x"][0]
        got = run(sim, 9 * dt, {"x": z}, jax.random.key(6))["x"]
        other = run(sim, dt, {"x": np.zeros((1, 3))}, jax.random.key(7))["x"][0]
    xi = start / (dt / 2 * (1 + np.exp(-dt / tau)))
    x = np.zeros(3)
    for row, expected in zip(z, got, strict=True):
        new = xi * np.exp(-dt / tau) + sigma * np.sqrt(1 - np.exp(-2 * dt / tau)) * row
        x = x + dt * (xi + new) / 2
        xi = new
        np.testing.assert_allclose(expected, x, rtol=1e-12)
    assert np.abs(start - other).min() > 1e-3  # with a path, the key draws the start


def test_coloured_noise_is_continued_bit_for_bit():
    model = vb.models.SupHopf(a=jnp.array([-0.2, 0.1, 0.3]))
    given = noise.Coloured({"x": [0.1, 0.2, 0.3], "y": 0.2}, tau=[3.0, 1.0, 10.0])
    sim, key = vb.Simulator(model, integrator=vb.Heun(dt=0.1), noise=given), jax.random.key(8)
    whole = run(sim, 6.0, key=key)
    first = vb.simulate(sim, t1=2.3, key=key)
    second = vb.simulate(sim, t1=3.7, key=key, init=first.final)
    for name in ("x", "y"):
        pieces = np.concatenate([first.ys["raw"][name], second.ys["raw"][name]])
        np.testing.assert_array_equal(pieces, whole[name])


def test_a_path_continues_coloured_noise_without_a_key():
    """The key draws the start alone, so a later piece needs none."""
    sim = linear(-0.5, noise.Coloured(0.3, 2.0), 3)
    z = np.random.default_rng(3).standard_normal((8, 3))
    whole = run(sim, 0.8, {"x": z}, jax.random.key(1))["x"]
    first = vb.simulate(sim, t1=0.3, key=jax.random.key(1), noise_path={"x": z[:3]})
    rest = run(sim, 0.5, {"x": z[3:]}, init=first.final)["x"]
    np.testing.assert_array_equal(np.concatenate([first.ys["raw"]["x"], rest]), whole)


def assert_batch_is_singles(sim, theta, **options):
    """Draws of a batch equal those draws alone, and differ from one another."""
    fwd = vb.ForwardModel(sim, t1=1.2, summary=lambda y: next(iter(y.values()))[-4:].reshape(-1), **options)
    n = len(next(iter(theta.values())))
    keys = jax.random.split(jax.random.key(2), n)
    x = fwd.batch(theta, keys)
    single = jnp.stack([fwd({k: v[i] for k, v in theta.items()}, keys[i]) for i in range(n)])
    np.testing.assert_allclose(x, single, rtol=1e-5, atol=1e-6)
    assert float(jnp.ptp(x, axis=0).min()) > 1e-4
    return x


@pytest.mark.parametrize(
    "theta",
    [
        {"noise.sigma.x": [0.1, 0.4, 0.9], "noise.tau": [1.0, 5.0, 0.3]},
        {"noise.sigma.x": [[0.1, 0.4, 0.9], [0.3, 0.1, 0.2], [0.5, 0.6, 0.7]]},
    ],
    ids=["numbers", "maps, as many draws as nodes"],
)
def test_a_batch_of_coloured_noise_is_its_draws(theta):
    model = vb.models.SupHopf(a=jnp.array([-0.2, 0.1, 0.3]))
    given = noise.Coloured({"x": 0.2, "y": [0.1, 0.0, 0.3]}, tau=[3.0, 1.0, 10.0])
    sim = vb.Simulator(model, integrator=vb.Heun(dt=0.1), noise=given)
    assert_batch_is_singles(sim, {k: jnp.asarray(v) for k, v in theta.items()})


# --------------------------------------------------------------------------------------------------- correlated

CORRELATION = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]])


def covariance(sim):
    """Covariance of the increments of one step by state variable: columns are the responses to unit normals."""
    columns = {}
    for j in range(sim.n_nodes):
        unit = np.eye(sim.n_nodes)[j][None]
        for name, value in run(sim, sim.dt, dict.fromkeys(sim.model.variables(), unit)).items():
            columns.setdefault(name, []).append(value[0])
    quiet = run(sim, sim.dt, dict.fromkeys(sim.model.variables(), 0 * unit))
    roots = {name: np.stack(v, axis=1) - quiet[name][0][:, None] for name, v in columns.items()}
    return {name: root @ root.T for name, root in roots.items()}


def test_covariance_of_correlated_noise_by_variable_and_node():
    """sigma_i sigma_j correlation_ij dt, with unequal sigma; every variable has its own variates."""
    sigma = {"x": np.array([0.5, 1.0, 2.0]), "y": np.array([0.25])}
    with jax.enable_x64(True):
        given = noise.Additive({"x": sigma["x"], "y": 0.25}, correlation=CORRELATION)
        sim = vb.Simulator(vb.models.SupHopf(), integrator=vb.integrators.Euler(dt=0.5), noise=given, nodes=3)
        found = covariance(sim)
    for name, s in sigma.items():
        np.testing.assert_allclose(found[name], np.outer(s, s) * CORRELATION * 0.5 * np.ones((3, 3)), atol=1e-12)


def test_the_covariance_of_a_long_run_is_the_one_asked_for():
    """From a key, with x' = 0: increments of all steps, within 4.5 standard errors of every entry."""
    sigma, n = np.array([0.5, 1.0, 2.0]), 40_000
    model = vb.models.SupHopf(a=0.0, omega=0.0)
    given = noise.Additive({"x": sigma, "y": 1.0}, correlation=CORRELATION)
    y = run(
        vb.Simulator(model, integrator=vb.integrators.Euler(dt=1e-4), noise=given, nodes=3),
        n * 1e-4,
        key=jax.random.key(0),
    )
    dx, dy = (np.diff(y[name], axis=0) / 1e-2 for name in ("x", "y"))
    expected = np.outer(sigma, sigma) * CORRELATION
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n)
    assert (np.abs(dx.T @ dx / n - expected) < 4.5 * error).all()
    assert (np.abs(dy.T @ dy / n - CORRELATION) < 4.5 * np.sqrt((1 + CORRELATION**2) / n)).all()
    assert (np.abs(dx.T @ dy / n) < 4.5 * sigma[:, None] / np.sqrt(n)).all()


def test_a_drawn_correlation():
    """One matrix for each draw, with B = N; one that is no correlation is NaN, hence invalid, and spoils no other."""
    sim = linear(-0.5, noise.Additive([0.5, 1.0, 2.0], correlation=np.eye(3)), 3)
    matrices = np.stack([CORRELATION, np.eye(3), 0.9 + 0.1 * np.eye(3)])
    x = assert_batch_is_singles(sim, {"noise.correlation": jnp.asarray(matrices, jnp.float32)})
    bad = matrices.copy()
    bad[1] = 2 * np.eye(3) - 1.0  # eigenvalues 2, 2, -1
    fwd = vb.ForwardModel(sim, t1=1.2, summary=lambda y: y["x"][-4:].reshape(-1))
    y = fwd.batch({"noise.correlation": jnp.asarray(bad, jnp.float32)}, jax.random.split(jax.random.key(2), 3))
    assert np.isnan(y[1]).any()
    np.testing.assert_array_equal(y[np.array([0, 2])], x[np.array([0, 2])])
    with jax.enable_x64(True):
        given = noise.Additive([0.5, 1.0, 2.0], correlation=np.eye(3))
        bound = vb.bind(linear(0.0, given, 3), {"noise.correlation": CORRELATION})
        s = np.array([0.5, 1.0, 2.0])
        np.testing.assert_allclose(covariance(bound)["x"], np.outer(s, s) * CORRELATION * 0.1, atol=1e-12)


# ------------------------------------------------------------------------------------------------------- mistakes

MISTAKES = {
    "neither sigma nor D": (lambda: noise.Additive(), ValueError, "sigma or D"),
    "both": (lambda: noise.Additive(0.1, D=0.1), ValueError, "sigma or D"),
    "negative sigma": (lambda: noise.Additive({"x": -0.1}), ValueError, r"sigma\.x is -0\.1"),
    "negative D": (lambda: noise.Additive(D={"x": [0.1, -0.2]}), ValueError, r"D=-0\.2"),
    "no variable": (lambda: linear(-1.0, noise.Additive({}), 2), ValueError, "noise=None"),
    "unknown variable": (lambda: linear(-1.0, noise.Additive({"V": 0.1}), 2), ValueError, "sigma names .*'V'"),
    "unknown variable, coloured": (lambda: linear(-1.0, noise.Coloured({"V": 0.1}, 1.0), 2), ValueError, "'V'"),
    "nodes": (lambda: linear(-1.0, noise.Additive([0.1] * 3), 2), ValueError, "each of 2 nodes"),
    "unknown variable of gfun": (
        lambda: linear(-1.0, noise.Multiplicative(lambda x: {"y": 1.0}), 2),
        ValueError,
        "gfun names state variable 'y'",
    ),
    "gfun of another shape": (
        lambda: linear(-1.0, noise.Multiplicative(lambda x: {"x": jnp.ones(3)}), 2),
        ValueError,
        r"gfun gives 'x' the shape \[3\]; expected a number or \[2\]",
    ),
    "gfun without names": (
        lambda: linear(-1.0, noise.Multiplicative(lambda x: 0.5 * x.x), 2),
        TypeError,
        r'mapping such as \{"x": amplitude\}',
    ),
    "tau": (lambda: noise.Coloured(0.1, 0.0), ValueError, r"Coloured\.tau is 0 ms"),
    "not square": (
        lambda: noise.Additive(1.0, correlation=np.ones((2, 3))),
        ValueError,
        r"\[2, 3\]; it must be square",
    ),
    "not symmetric": (lambda: noise.Additive(1.0, correlation=[[1, 0.2], [0.3, 1]]), ValueError, "symmetric"),
    "a covariance": (lambda: noise.Additive(1.0, correlation=[[2, 0.2], [0.2, 1]]), ValueError, "ones on its diagonal"),
    "not positive": (lambda: noise.Additive(1.0, correlation=CORRELATION - 0.8 * (1 - np.eye(3))), ValueError, "0.99"),
    "of another size": (
        lambda: linear(-1.0, noise.Additive(1.0, correlation=np.eye(2)), 3),
        ValueError,
        r"\[2, 2\]; expected \[3, 3\]",
    ),
    "bound to a wrong one": (
        lambda: vb.bind(
            linear(-1.0, noise.Additive(1.0, correlation=np.eye(2)), 2), {"noise.correlation": np.ones((2, 2))}
        ),
        ValueError,
        "positive definite",
    ),
    "no key": (lambda: run(linear(-1.0, noise.Additive(0.1), 2), 0.1), ValueError, r"jax\.random\.key\(0\)"),
    "an old key": (
        lambda: run(linear(-1.0, noise.Additive(0.1), 2), 0.1, key=jax.random.PRNGKey(0)),
        TypeError,
        r"jax\.random\.key\(0\)",
    ),
    "path without noise": (
        lambda: run(linear(-1.0, None, 2), 0.1, {"x": np.ones((1, 2))}),
        ValueError,
        "without noise",
    ),
    "path of another length": (
        lambda: run(linear(-1.0, noise.Additive(0.1), 2), 0.2, {"x": np.ones((3, 2))}),
        ValueError,
        r"\[3, 2\]; expected \[2, 2\]",
    ),
    "path of an unknown variable": (
        lambda: run(linear(-1.0, noise.Additive(0.1), 2), 0.1, {"y": np.ones((1, 2))}),
        ValueError,
        "noise_path names 'y'",
    ),
    "path without a start": (
        lambda: run(linear(-1.0, noise.Coloured(0.1, 1.0), 2), 0.1, {"x": np.ones((1, 2))}),
        ValueError,
        "draws the start alone",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    call, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        call()


def test_a_correlation_that_rounding_moved_is_taken_in_float64_too():
    """What dividing a covariance by the standard deviations leaves on the diagonal."""
    off = np.array([[1.0 + 4e-16, 0.5], [0.5, 1.0 - 4e-16]])
    with jax.enable_x64(True):
        assert noise.Additive(1.0, correlation=off).correlation.shape == (2, 2)
