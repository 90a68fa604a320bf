"""Damped waves and noise along a surface: golden responses, closed forms, a step of Heun written out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.linalg

import vbinfer as vb

GOLDEN = np.load(Path(__file__).parent / "golden" / "fields.npz")
F = vb.fields
G = {k.removeprefix("wave__"): GOLDEN[k] for k in GOLDEN.files if k.startswith("wave__")}
GAMMA, R, RADIUS, DT = float(G["gamma"]), float(G["r"]), float(G["radius"]), float(G["t"][1])


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def wave(domain, model=None, **more):
    return vb.Simulator(
        F.DampedWave(model, domain, gamma=GAMMA, r=R),
        integrator=vb.Native(DT),
        monitors={"phi": vb.monitors.Raw("phi")},
        **more,
    )


@pytest.fixture(scope="module")
def mixed():
    """A sum of one mode of each golden degree, with unlike weights, and these modes."""
    with jax.enable_x64(True):
        sphere = F.Sphere(int(G["degrees"].max()) + 2, radius=RADIUS)
        phi, _ = sphere.modes(sphere.n_modes)
        modes = phi[:, np.array([n * n + n - (n > 0) for n in G["degrees"]])]
        return sphere, modes, jnp.array([2.0, -1.0, 0.5, 3.0])


def coefficients(sphere, modes, fields):
    return np.asarray(modes.T @ (sphere.areas[:, None] * jnp.asarray(fields).T))


def test_every_mode_answers_an_impulse_as_the_golden_one(mixed):
    sphere, modes, weights = mixed
    start = {"dphi": GAMMA**2 * modes @ weights}
    out = vb.simulate(wave(sphere), t1=160 * DT, key=None, init=start).ys["phi"]
    found = coefficients(sphere, modes, out) / np.asarray(weights)[:, None]
    np.testing.assert_allclose(found, G["impulse"][:, 1:], atol=1e-10 * np.abs(G["impulse"]).max())


def test_every_mode_answers_a_step_as_the_golden_one(mixed):
    sphere, modes, weights = mixed
    drive = vb.stimuli.Pulse(onset=0.0, duration=1e6, amplitude=1.0, gain=modes @ weights)
    out = vb.simulate(wave(sphere, stimulus=drive), t1=160 * DT, key=None).ys["phi"]
    found = coefficients(sphere, modes, out) / np.asarray(weights)[:, None]
    np.testing.assert_allclose(found, G["step"][:, 1:], atol=1e-10 * np.abs(G["step"]).max())


def test_white_noise_gives_every_mode_its_variance(mixed):
    """sigma^2 dt sum of the squared answers to a kick of dphi, which the noise of one step is: increments are white."""
    sphere, modes, _ = mixed
    sim = wave(sphere, noise=vb.noise.Additive({"dphi": 0.3}, areas=sphere.areas))
    for k in (0, 3):
        z = np.zeros((160, sphere.n_nodes))
        z[0] = modes[:, k] * jnp.sqrt(sphere.areas / DT) / 0.3  # the kick is the mode itself
        answer = coefficients(sphere, modes, vb.simulate(sim, t1=160 * DT, key=None, noise_path={"dphi": z}).ys["phi"])
        np.testing.assert_allclose(np.delete(answer, k, axis=0), 0.0, atol=1e-12)
        np.testing.assert_allclose(answer[k, 1:] * GAMMA**2, G["impulse"][k, 1:-1], atol=1e-10)
        variance = DT * np.sum(answer[k] ** 2)  # a Riemann sum of a smooth function
        np.testing.assert_allclose(variance, G["variance_per_sigma2"][k], rtol=0.01)


@pytest.mark.parametrize(
    ("make", "count"), [(lambda: F.Sphere(3, radius=RADIUS), 16), (lambda: F.Mesh.icosphere(1), 42)]
)
def test_cross_spectra_are_those_of_the_modes_as_linear_systems(make, count):
    """sigma^2 of |(i w - A)^-1| of phi'' = -gamma^2 (1 + r^2 l) phi - 2 gamma phi' + noise, mode by mode."""
    domain = make()
    model, f = F.DampedWave(None, domain, gamma=GAMMA, r=R), np.array([0.0, 7.0, 30.0])
    gain = np.random.default_rng(0).normal(1.0, 1.0, (3, domain.n_nodes))
    phi, eigenvalue = (np.asarray(part) for part in domain.modes(count))
    S = np.zeros((3, 3, 3))
    for at, hz in enumerate(f):
        for k, value in enumerate(eigenvalue):
            A = np.array([[0.0, 1.0], [-(GAMMA**2) * (1.0 + R**2 * value), -2.0 * GAMMA]])
            answer = np.linalg.solve(2j * np.pi * hz / 1e3 * np.eye(2) - A, [0.0, 1.0])[0]
            S[at] += 2e-3 * 0.3**2 * abs(answer) ** 2 * np.outer(gain @ phi[:, k], gain @ phi[:, k])
    np.testing.assert_allclose(model.cross_spectrum(f, gain, sigma=0.3), S, rtol=1e-9)


def test_a_spectrum_integrates_to_the_variance_of_its_mode(mixed):
    sphere, modes, _ = mixed
    f = np.linspace(0.0, 2e3, 10_001)  # Hz; above it is 1e-6 of the variance
    gain = np.asarray(sphere.areas * modes.T)  # sensors of one mode each
    S = F.DampedWave(None, sphere, gamma=GAMMA, r=R).cross_spectrum(f, gain)
    power = np.trapezoid(np.asarray(jnp.diagonal(S, axis1=1, axis2=2)), f, axis=0)
    np.testing.assert_allclose(power, G["variance_per_sigma2"], rtol=1e-5)


@pytest.mark.slow
def test_speed_and_damping_are_recovered_from_sensors():
    """8 noisy sensors, 20 s: NUTS, the complex Wishart likelihood and the closed cross-spectrum."""
    sphere, period, floor = F.Sphere(5, radius=RADIUS), 2.0, 0.003
    place = np.random.default_rng(3).normal(size=(8, 3))
    away = np.asarray(sphere.positions) - 120.0 * (place / np.linalg.norm(place, axis=1)[:, None])[:, None]
    gain = np.asarray(sphere.areas) / (away**2).sum(-1) / 1e2
    sim = vb.Simulator(
        F.DampedWave(None, sphere, gamma=0.06, r=50.0),
        integrator=vb.Native(0.5),
        noise=vb.noise.Additive({"dphi": 0.4}, areas=sphere.areas),
        monitors={"y": vb.monitors.SpatialAverage("phi", gain, period=period)},
    )
    y = np.asarray(vb.simulate(sim, t1=20_000.0, key=jax.random.key(0)).ys["y"])
    y = y + floor * np.random.default_rng(1).normal(size=y.shape)

    def spectrum(theta, f):
        model = F.DampedWave(None, sphere, gamma=theta["gamma"], r=theta["r"])
        return model.cross_spectrum(f, gain, theta["sigma"]) + 2e-3 * period * floor**2 * jnp.eye(8)

    likelihood = vb.likelihoods.CrossSpectral(
        spectrum, period=period, num_samples=len(y), segments=20, low=2.0, high=60.0
    )
    prior = vb.Prior({k: dist.LogNormal(np.log(m), 0.5) for k, m in (("gamma", 0.1), ("r", 30.0), ("sigma", 0.6))})
    found = vb.sample_mcmc(prior, likelihood, y, num_warmup=150, num_samples=150, num_chains=1, key=jax.random.key(2))
    draws = {k: np.asarray(v).ravel() for k, v in found.theta.items()}
    draws["speed"] = draws["gamma"] * draws["r"]
    for name, value in {"gamma": 0.06, "r": 50.0, "sigma": 0.4, "speed": 3.0}.items():
        mean, sd = draws[name].mean(), draws[name].std()
        assert abs(mean - value) < 4.0 * sd
        assert sd < 0.05 * value  # of a prior whose sd is half of it


def test_waves_on_a_mesh_are_sums_of_its_modes():
    ball = F.Mesh.icosphere(2, RADIUS)
    phi, eigenvalue = ball.modes(40)
    weights = np.linspace(-1.0, 2.0, 40)
    sim = wave(ball)
    out = vb.simulate(sim, t1=20 * DT, key=None, init={"phi": phi @ weights, "dphi": 0.1 * phi @ weights}).ys["phi"]
    t = DT * np.arange(1, 21)[:, None]
    s = GAMMA * R * np.sqrt(np.maximum(np.asarray(eigenvalue), 1e-30))
    closed = np.exp(-GAMMA * t) * (np.cos(s * t) + (GAMMA + 0.1) * np.sin(s * t) / s) * weights
    np.testing.assert_allclose(np.asarray(out) @ (ball.areas[:, None] * phi), closed, atol=1e-8)


def test_the_model_and_its_wave_take_the_steps_written_out():
    """Heun's with phi of the start and of the end; the wave from the activity of the start, mode by mode."""
    sphere, rng, a = F.Sphere(4, radius=RADIUS), np.random.default_rng(0), -0.3
    sim = wave(sphere, vb.models.Linear(gamma=a), noise=vb.noise.Additive({"x": 0.2}))
    assert sim.model.variables() == ("x", "phi", "dphi")
    assert {"model.gamma", "model.r", "model.local.gamma"} <= set(vb.paths(sim))
    phi, eigenvalue = (np.asarray(part) for part in sphere.modes(25))
    project = phi @ phi.T * np.asarray(sphere.areas)
    x, z = rng.normal(1.0, 1.0, 50), rng.standard_normal((2, 50))
    field, rate = project @ rng.normal(0.0, 1.0, 50), project @ rng.normal(0.0, 0.1, 50)
    out = vb.simulate(sim, t1=2 * DT, key=None, init={"x": x, "phi": field, "dphi": rate}, noise_path={"x": z})
    for k in range(2):
        c, dc, q = (phi.T @ (np.asarray(sphere.areas) * y) for y in (field, rate, x))
        after, dafter = np.empty(25), np.empty(25)
        for m in range(25):  # y'' + 2 gamma y' + gamma^2 (1 + r^2 l) y = gamma^2 q by its matrix exponential
            matrix = np.zeros((3, 3))
            matrix[0, 1] = 1.0
            matrix[1] = [-(GAMMA**2) * (1.0 + R**2 * eigenvalue[m]), -2.0 * GAMMA, GAMMA**2 * q[m]]
            step = scipy.linalg.expm(matrix * DT)
            after[m], dafter[m] = (step @ [c[m], dc[m], 1.0])[:2]
        new, kick = phi @ after, 0.2 * DT**0.5 * z[k]
        stage = x + DT * (a * x + field) + kick
        x = x + 0.5 * DT * (a * x + field + a * stage + new) + kick
        field, rate = new, phi @ dafter
    np.testing.assert_allclose(out.final.state.x, x, rtol=1e-9)
    np.testing.assert_allclose(out.final.state.phi, field, atol=1e-9)
    np.testing.assert_allclose(out.final.state.dphi, rate, atol=1e-9)


def test_a_batch_of_waves_is_its_single_runs_and_speed_has_a_slope():
    sphere = F.Sphere(3, radius=RADIUS)
    sim = wave(sphere, vb.models.Linear(gamma=-0.3), noise=vb.noise.Additive({"x": 0.2, "dphi": 0.01}))
    theta = {"model.r": np.array([15.0, 30.0, 22.0]), "model.gamma": np.array([0.1, 0.2, 0.3])}
    theta["model.local.gamma"] = np.linspace(-0.5, -0.2, 96).reshape(3, 32)
    keys, fwd = jax.random.split(jax.random.key(1), 3), vb.ForwardModel(sim, t1=10 * DT, summary=lambda y: y[-1])
    many = fwd.batch(theta, keys)
    for b in range(3):
        one = fwd({k: v[b] for k, v in theta.items()}, keys[b])
        np.testing.assert_allclose(many[b], one, rtol=1e-9, atol=1e-12)
    value = jax.jit(jax.value_and_grad(lambda r: (fwd({"model.r": r}, keys[0]) ** 2).sum()))
    np.testing.assert_allclose(value(20.0)[1], (value(20.001)[0] - value(19.999)[0]) / 0.002, rtol=1e-5)


def test_noise_is_white_in_space():
    """Var of the mean over a patch: sigma^2 dt / its area, at every resolution; the increments from given normals."""
    for domain in (F.Sphere(4, radius=10.0), F.Sphere(9, 14, 20, radius=10.0), F.Mesh.icosphere(1, 10.0)):
        noise = vb.noise.Additive({"x": 0.7}, areas=domain.areas)
        sim = vb.Simulator(
            vb.models.Linear(gamma=0.0), integrator=vb.integrators.Euler(0.25), noise=noise, field=F.Field(domain)
        )
        z = np.ones((1, domain.n_nodes))
        increments = np.asarray(vb.simulate(sim, t1=0.25, key=None, noise_path={"x": z}).final.state.x)
        areas, half = np.asarray(domain.areas), np.asarray(domain.positions)[:, 2] > 0.0
        variance = np.sum((areas * increments)[half] ** 2) / areas[half].sum() ** 2
        np.testing.assert_allclose(variance, 0.7**2 * 0.25 / areas[half].sum(), rtol=1e-12)
        normals, log_det = noise.inverse(0.25)({"x": jnp.asarray(increments)}, {"x": jnp.zeros(domain.n_nodes)})
        np.testing.assert_allclose(normals["x"], z[0], rtol=1e-12)
        np.testing.assert_allclose(log_det, -np.log(increments).sum(), rtol=1e-12)
    assert vb.noise.Additive(0.1).areas is None
    points = vb.Simulator(
        vb.models.Linear(gamma=0.0),
        integrator=vb.integrators.Euler(0.25),
        noise=vb.noise.Additive(0.7, areas=[0.0, 4.0]),
        nodes=2,
    )  # a point without area has sigma as it is
    out = vb.simulate(points, t1=0.25, key=None, noise_path={"x": np.ones((1, 2))}).final.state.x
    np.testing.assert_allclose(out, [0.35, 0.175], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "remedy"),
    [
        (lambda: F.DampedWave(None, 32, gamma=0.1, r=10.0), TypeError, "vb.fields.Sphere"),
        (lambda: F.DampedWave(3.0, F.Sphere(3), gamma=0.1, r=10.0), TypeError, "or None"),
        (lambda: F.DampedWave(vb.models.Robinson(), F.Sphere(3), gamma=0.1, r=10.0), ValueError, "phi"),
        (lambda: F.DampedWave(None, F.Sphere(3), gamma=0.1, r=10.0, modes=4), ValueError, "lmax"),
        (lambda: F.DampedWave(None, F.Sphere(3), gamma=0.0, r=10.0), ValueError, "gamma"),
        (lambda: F.DampedWave(None, F.Sphere(3), 0.1, 9.0).cross_spectrum(1.0, np.ones((2, 5))), ValueError, "32"),
        (
            lambda: F.DampedWave(vb.models.Linear(), F.Sphere(3), 0.1, 9.0).cross_spectrum(1.0, np.ones((2, 32))),
            ValueError,
            "without a model",
        ),
        (lambda: F.DampedWave(None, F.Mesh.icosphere(0), gamma=0.1, r=10.0, modes=13), ValueError, "at most 12"),
        (
            lambda: vb.Simulator(F.DampedWave(None, F.Sphere(3), gamma=0.1, r=1.0), integrator=vb.Heun(0.1)),
            ValueError,
            "Native",
        ),
        (lambda: vb.noise.Additive(0.1, areas=[-1.0]), ValueError, "areas is -1"),
        (
            lambda: vb.Simulator(
                vb.models.Linear(), nodes=3, integrator=vb.Heun(0.1), noise=vb.noise.Additive(0.1, areas=[1.0, 2.0])
            ),
            ValueError,
            "noise.areas",
        ),
    ],
)
def test_bad_input_gets_a_sentence(make, error, remedy):
    with pytest.raises(error, match=remedy):
        make()
