"""Tasks: simulators against their moments, likelihoods against own formulas and simulated densities, exact posteriors
against published draws."""

import bz2
import hashlib
import os
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from scipy.integrate import solve_ivp

import vbinfer as vb
from vbinfer import tasks
from vbinfer.tasks import distractors, dynamics, gaussians, process, published, sbibm

GOLDEN = Path(__file__).parent / "golden"
KEY = jax.random.key(3)
ALL = {name: getattr(tasks, name) for name in (*published.PUBLISHED, "linear_gaussian", "ou")}
N = 20_000


def simulate(task, theta, n=N):
    theta = jnp.asarray(theta)
    with jax.enable_x64(True):
        one = lambda key: task.simulator({"theta": jnp.asarray(theta, jnp.float64)}, key)  # noqa: E731
        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, n)))


def same_moments(x, mean, cov):
    """Within 4.5 standard errors; those of the covariance from the draws themselves, whatever their shape."""
    error = x.std(0) / np.sqrt(len(x))
    np.testing.assert_allclose((x.mean(0) - mean) / error, 0.0, atol=4.5)
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    np.testing.assert_allclose((products.mean(0) - cov) / (products.std(0) / np.sqrt(len(x)) + 1e-12), 0.0, atol=4.5)


def test_linear_gaussian_moments_likelihood_and_posterior():
    task, theta = tasks.linear_gaussian(), np.array([0.4, -2.0, 1.5, 11.0, 0.15])
    A, b, S, P, m = (getattr(gaussians, f"_{name}") for name in ("GAIN", "OFFSET", "NOISE_COV", "PRIOR_COV", "MEAN"))
    same_moments(simulate(task, theta), A @ theta + b, S)
    x = np.array([0.3, 7.0, 1.2, -1.0, -2.0, 3.0, -2.5, 9.5, -1.5, 6.0])
    expected = st.multivariate_normal(A @ theta + b, S).logpdf(x)
    assert float(task.log_likelihood({"theta": jnp.asarray(theta)}, x)) == pytest.approx(expected, abs=1e-4)
    # the posterior as the conditional of the joint normal of (theta, x), by its precision
    joint = np.linalg.inv(np.block([[P, P @ A.T], [A @ P, A @ P @ A.T + S]]))
    cov = np.linalg.inv(joint[:5, :5])
    mean = m - cov @ joint[:5, 5:] @ (x - A @ m - b)
    same_moments(task.sample(x, n=N, key=KEY).ravel().astype(float), mean, cov)


def test_gaussian_linear_is_that_of_the_benchmark():
    task, theta = tasks.gaussian_linear(), np.linspace(-0.5, 0.7, 10)
    same_moments(simulate(task, theta), theta, 0.1 * np.eye(10))
    np.testing.assert_allclose(task.prior.variance()["theta"], 0.1, rtol=1e-6)
    with np.load(GOLDEN / "sbibm_gaussian_linear.npz") as known:
        for x, true, draws in zip(
            known["observations"], known["true_parameters"], known["reference_samples"], strict=True
        ):
            expected = st.norm(true, np.sqrt(0.1)).logpdf(x).sum()
            assert float(task.log_likelihood({"theta": jnp.asarray(true)}, x)) == pytest.approx(expected, abs=1e-4)
            ours = task.sample(x, n=1000, key=KEY).ravel()
            for one, other, centre in zip(ours.T, draws.T, x / 2.0, strict=True):  # 200 tests, two-sided
                exact = st.norm(centre, np.sqrt(0.05)).cdf
                assert min(st.kstest(one, exact).pvalue, st.kstest(other, exact).pvalue) > 1e-5


def test_gaussian_linear_uniform_posterior_is_truncated_by_the_box():
    task, x = tasks.gaussian_linear_uniform(), np.array([-1.3, -0.9, 0.0, 0.2, 0.5, 0.8, 1.0, 1.2, 1.6, -0.4])
    same_moments(simulate(task, 0.5 * x), 0.5 * x, 0.1 * np.eye(10))
    draws = task.sample(x, n=4000, key=KEY).ravel()
    sd = np.sqrt(0.1)
    for column, centre in zip(draws.T, x, strict=True):
        exact = st.truncnorm((-1.0 - centre) / sd, (1.0 - centre) / sd, centre, sd)
        assert st.kstest(column, exact.cdf).pvalue > 1e-4
    assert np.abs(np.corrcoef(draws.T) - np.eye(10)).max() < 4.5 / np.sqrt(4000)


def test_gaussian_mixture_by_its_moments_and_by_quadrature():
    task, theta = tasks.gaussian_mixture(), np.array([3.0, -9.6])
    x = simulate(task, theta)
    same_moments(x, theta, 0.505 * np.eye(2))
    fourth = (x - theta)[:, 0] ** 2 * (x - theta)[:, 1] ** 2  # the two components share one scale: 0.5 (1 + 1e-4)
    assert fourth.mean() == pytest.approx(0.50005, abs=4.5 * fourth.std() / np.sqrt(N))
    at = np.array([2.7, -9.5])
    density = 0.5 * sum(np.prod(st.norm.pdf(at, theta, scale)) for scale in (1.0, 0.1))
    assert float(task.log_likelihood({"theta": jnp.asarray(theta)}, at)) == pytest.approx(np.log(density), abs=1e-4)
    draws = task.sample(at, n=N, key=KEY).ravel().astype(float)
    assert np.abs(draws).max() <= 10.0
    grid = np.linspace(-10.0, 10.0, 20_001)  # marginals of the truncated mixture, weighted by what the box keeps
    inside = [np.prod(np.diff(st.norm.cdf([[-10.0], [10.0]], at, s), axis=0)) for s in (1.0, 0.1)]
    for d in (0, 1):
        other = [w / np.diff(st.norm.cdf([-10.0, 10.0], at[d], s))[0] for w, s in zip(inside, (1.0, 0.1), strict=True)]
        pdf = sum(w * st.norm.pdf(grid, at[d], s) for w, s in zip(other, (1.0, 0.1), strict=True))
        cdf = np.cumsum(pdf) / pdf.sum()
        assert st.kstest(draws[:, d], lambda v, cdf=cdf: np.interp(v, grid, cdf)).pvalue > 1e-4


def test_two_moons_likelihood_is_the_density_of_its_simulations():
    task, theta = tasks.two_moons(), np.array([0.3, -0.7])
    x = simulate(task, theta, 200_000)
    across, along = -abs(0.3 - 0.7) / np.sqrt(2), (-0.7 - 0.3) / np.sqrt(2)
    # E r cos a = 0.1 * 2 / pi, E r^2 = 0.1^2 + 0.01^2
    mean = np.array([across + 0.25 + 0.2 / np.pi, along])
    second = 0.5 * (0.1**2 + 0.01**2)
    same_moments(x, mean, np.diag([second - (0.2 / np.pi) ** 2, second]))
    cell = 0.004
    at = np.array([across + 0.25 + 0.1 * np.cos(0.6), along + 0.1 * np.sin(0.6)])
    counted = (np.abs(x - at) < cell / 2).all(1).sum()
    log_p = float(task.log_likelihood({"theta": jnp.asarray(theta)}, at))
    expected = 200_000 * cell**2 * np.exp(log_p)
    assert counted == pytest.approx(expected, abs=4.5 * np.sqrt(expected) + 0.02 * expected)  # the cell's curvature
    assert np.isneginf(float(task.log_likelihood({"theta": jnp.asarray(theta)}, at - [0.2, 0.0])))


def test_two_moons_posterior_agrees_with_the_published_draws_and_with_the_likelihood():
    task = tasks.two_moons()
    with np.load(GOLDEN / "sbibm_two_moons.npz") as known:
        for i in (0, 5, 7):
            x, draws = known["observations"][i], known["reference_samples"][i]
            ours = task.sample(x, n=N, key=KEY).ravel()
            assert np.abs(ours).max() <= 1.0
            rotate = lambda v: ((v[:, 0] + v[:, 1]) / np.sqrt(2), (v[:, 1] - v[:, 0]) / np.sqrt(2))  # noqa: E731
            for one, other in zip(rotate(ours), rotate(draws), strict=True):
                assert st.ks_2samp(one, other).pvalue > 1e-4
            assert abs(np.mean(ours.sum(1) > 0) - np.mean(draws.sum(1) > 0)) < 4.5 * 0.5 * np.sqrt(1 / 1000 + 1 / N)
            # importance: draws of the prior weighted by the likelihood have the same mean, within their error
            box = np.random.default_rng(0).uniform(-1, 1, (400_000, 2)).astype(np.float32)
            log_w = np.asarray(jax.vmap(task.log_likelihood, (0, None))({"theta": jnp.asarray(box)}, x))
            w = np.exp(log_w) / np.exp(log_w).sum()
            mean = w @ box
            error = np.sqrt((w**2) @ (box - mean) ** 2)
            np.testing.assert_allclose((ours.mean(0) - mean) / error, 0.0, atol=4.5)


def test_distractors_hide_slcp_and_follow_their_mixture():
    """Each is a mixture of Student's t with 2 degrees of freedom, of scale sqrt((L L^T)_jj)."""
    task, plain, theta = tasks.slcp_distractors(), tasks.slcp(), {"theta": jnp.array([0.7, -2.9, -1.1, 0.9, 0.6])}
    keys = jax.random.split(KEY, 4_000)
    x = np.asarray(jax.jit(jax.vmap(task.simulator, (None, 0)))(theta, keys))
    order, (centres, scales) = distractors._order(), distractors._mixture()
    firsts = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
    points = np.asarray(jax.vmap(plain.simulator, (None, 0))(theta, firsts))
    np.testing.assert_allclose(x[:, order[:8]], points, atol=1e-5)
    width = np.sqrt((scales.astype(float) ** 2).sum(axis=-1))
    for j in (0, 41, 91):
        cdf = lambda v, j=j: st.t(2, centres[:, j], width[:, j]).cdf(v[:, None]).mean(axis=1)  # noqa: E731
        assert st.kstest(x[:, order[8 + j]], cdf).pvalue > 1e-3
    np.testing.assert_allclose(task.log_likelihood(theta, x[0]), plain.log_likelihood(theta, points[0]), rtol=1e-6)


def test_slcp_moments_and_likelihood_by_the_covariance_of_the_text():
    task, theta = tasks.slcp(), np.array([0.7, -2.9, -1.1, 0.9, 0.6])
    s1, s2, rho = 1.1**2, 0.9**2, np.tanh(0.6)
    S = np.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]]) + 1e-6 * np.eye(2)
    same_moments(simulate(task, theta), np.tile(theta[:2], 4), np.kron(np.eye(4), S))
    x = np.array([1.0, -3.0, -0.5, -3.9, 0.2, -2.2, 1.9, -2.0])
    expected = st.multivariate_normal(theta[:2], S).logpdf(x.reshape(4, 2)).sum()
    for signs in ((1, 1), (-1, 1), (1, -1)):  # the symmetric modes
        mirrored = jnp.asarray(theta) * jnp.array([1.0, 1.0, *signs, 1.0])
        assert float(task.log_likelihood({"theta": mirrored}, x)) == pytest.approx(expected, rel=1e-5)
    edge = np.array([0.7, -2.9, 0.02, 0.01, 3.0])  # nearly singular: the jitter counts
    s1, s2, rho = 0.02**2, 0.01**2, np.tanh(3.0)
    S = np.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]]) + 1e-6 * np.eye(2)
    near = np.tile(edge[:2], 4) + 1e-3 * np.arange(8) / 8
    expected = st.multivariate_normal(edge[:2], S).logpdf(near.reshape(4, 2)).sum()
    with jax.enable_x64(True):
        assert float(task.log_likelihood({"theta": jnp.asarray(edge)}, near)) == pytest.approx(expected, rel=1e-8)


def test_bernoulli_glm_features_are_those_of_the_spikes_and_the_likelihood_is_that_of_the_train():
    task, V = tasks.bernoulli_glm(), sbibm.design_matrix().astype(float)
    stimulus = np.random.RandomState(42).randn(100)
    np.testing.assert_allclose(V[:, 1], stimulus, rtol=1e-6)
    np.testing.assert_allclose(V[20, 1:], stimulus[20:11:-1], rtol=1e-6)  # the newest first
    assert np.all(V[2, 4:] == 0.0)
    theta = np.array([0.3, 1.0, -0.8, 0.5, 0.2, -0.3, 0.1, 0.4, -0.6, 0.2])
    p = 1.0 / (1.0 + np.exp(-V @ theta))
    same_moments(simulate(task, theta), V.T @ p, V.T @ (V * (p * (1 - p))[:, None]))
    rng = np.random.default_rng(0)
    spikes = rng.random((2, 100)) < p
    trains = [st.bernoulli.logpmf(y, p).sum() for y in spikes]
    ours = [float(task.log_likelihood({"theta": jnp.asarray(theta)}, V.T @ y)) for y in spikes]
    np.testing.assert_allclose(ours, trains, rtol=1e-4)
    precision = np.linalg.inv(np.asarray(task.prior.dists["theta"].covariance_matrix, float))  # pyright: ignore
    F = np.zeros((9, 9))  # the second difference written out, zero before the filter begins
    for i in range(9):
        for lag, weight in ((0, 1.0), (1, -2.0), (2, 1.0)):
            if i >= lag:
                F[i, i - lag] += weight
        F[i, i] += np.sqrt(i / 9)
    np.testing.assert_allclose(precision[1:, 1:], F.T @ F, atol=2e-3 * np.abs(F.T @ F).max())
    assert precision[0, 0] == pytest.approx(0.5, rel=1e-3)


def test_the_raw_glm_has_the_likelihood_of_its_sufficient_statistics_up_to_a_constant():
    raw, V = tasks.bernoulli_glm_raw(), sbibm.design_matrix().astype(float)
    theta = np.stack([np.linspace(-0.5, 0.8, 10), np.linspace(0.6, -0.9, 10)])
    spikes = (np.random.default_rng(1).random(100) < 0.4).astype(float)
    p = 1.0 / (1.0 + np.exp(-theta @ V.T))
    train = st.bernoulli.logpmf(spikes, p).sum(1)
    ours = np.array([float(raw.log_likelihood({"theta": jnp.asarray(t)}, spikes)) for t in theta])
    np.testing.assert_allclose(ours, train, rtol=1e-4)
    rate = simulate(raw, theta[0]).mean(0)
    assert np.abs((rate - p[0]) / np.sqrt(p[0] * (1 - p[0]) / N)).max() < 4.5


SIR_RATES = [(0.4, 0.125), (1.6, 0.08), (0.12, 0.2), (0.61479264, 0.19172086)]
LV_RATES = [(0.88, 0.05, 0.88, 0.05), (1.9, 0.02, 0.4, 0.09), (0.3, 0.15, 2.0, 0.03), (2.4, 0.2, 2.4, 0.2)]


@pytest.mark.parametrize(
    ("solve", "field", "start", "gap", "rates"),
    [
        (
            jax.jit(lambda theta: jnp.log(dynamics._infected(theta))),
            lambda t, u, b, g: [-b * np.exp(u[1]), b * np.exp(u[0]) - g],
            np.log([1.0 - 1e-6, 1e-6]),
            17.0,
            SIR_RATES,
        ),
        (
            jax.jit(dynamics._log_populations),
            lambda t, u, a, b, g, d: [a - b * np.exp(u[1]), d * np.exp(u[0]) - g],
            np.log([30.0, 1.0]),
            2.1,
            LV_RATES,
        ),
    ],
    ids=["sir", "lotka_volterra"],
)
def test_the_benchmark_s_equations_are_solved_as_scipy_solves_them(solve, field, start, gap, rates):
    for own in rates:
        times = gap * np.arange(10)
        exact = solve_ivp(
            field, (0.0, times[-1]), start, t_eval=times, args=own, rtol=1e-10, atol=1e-12, method="LSODA"
        ).y
        exact = exact[1] if len(own) == 2 else np.clip(exact, np.log(1e-10), np.log(1e4)).reshape(-1)
        np.testing.assert_allclose(solve(jnp.array(own)), exact, atol=2e-3)  # float32 over 2,000 steps: 1e-3 seen


def test_published_observations_are_possible_under_their_own_parameters():
    """Observation 1 of sbibm's files, and the likelihoods as scipy writes them."""
    x = np.array([0.0, 1.0, 352.0, 40.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    theta = {"theta": jnp.array([0.61479264, 0.19172086])}
    p = np.asarray(dynamics._infected(theta["theta"]), float)
    assert np.abs((x - 1_000 * p) / np.sqrt(1_000 * p * (1 - p) + 0.1)).max() < 3.5
    ours = float(tasks.sir().log_likelihood(theta, x))
    assert ours == pytest.approx(st.binom.logpmf(x, 1_000, p).sum(), abs=0.02)
    prey = [
        31.783262,
        1.1971166,
        0.29703617,
        0.71145046,
        2.9415865,
        11.482614,
        36.09036,
        0.46229604,
        0.38081983,
        0.9173736,
    ]
    hunters = [
        0.8910395,
        27.039942,
        4.356176,
        0.78444487,
        0.17100818,
        0.1325878,
        8.727008,
        16.97251,
        2.7902339,
        0.47567415,
    ]
    x, theta = np.array(prey + hunters), {"theta": jnp.array([0.6859157, 0.10761319, 0.88789904, 0.116794825])}
    mean = np.asarray(dynamics._log_populations(theta["theta"]), float)
    assert np.abs(np.log(x) - mean).max() < 0.35
    ours = float(tasks.lotka_volterra().log_likelihood(theta, x))
    assert ours == pytest.approx(st.lognorm.logpdf(x, 0.1, scale=np.exp(mean)).sum(), abs=0.02)


def test_ou_features_decide_the_posterior_of_the_path():
    task, theta = tasks.ou(), np.array([1.4, 0.9])
    dt, sigma, steps, y0 = process._DT, process._SIGMA, process._STEPS, process._START
    x = simulate(task, theta, 4000)
    mean = [y0]  # of the path, exactly: E y_(k+1) = E y_k + (a - g E y_k) dt
    for _ in range(steps):
        mean.append(mean[-1] + (1.4 - 0.9 * mean[-1]) * dt)
    error = x.std(0) / np.sqrt(4000)
    assert x[:, 0].mean() == pytest.approx(np.mean(mean[:-1]), abs=4.5 * error[0])
    assert x[:, 2].mean() == pytest.approx((mean[-1] - y0) / steps, abs=4.5 * error[2])
    rng, path = np.random.default_rng(0), [y0]
    for _ in range(steps):
        path.append(path[-1] + (1.4 - 0.9 * path[-1]) * dt + sigma * np.sqrt(dt) * rng.normal())
    y, d = np.array(path[:-1]), np.diff(path)
    features = np.array([y.mean(), (y**2).mean(), d.mean(), (y * d).mean()])
    grid = np.stack(np.meshgrid(np.linspace(-1.5, 3.5, 201), np.linspace(-1.0, 4.0, 201), indexing="ij"), -1).reshape(
        -1, 2
    )
    log_path = np.array([st.norm.logpdf(d, (a - g * y) * dt, sigma * np.sqrt(dt)).sum() for a, g in grid])
    ours = np.asarray(jax.vmap(task.log_likelihood, (0, None))({"theta": jnp.asarray(grid)}, features))
    np.testing.assert_allclose(ours - ours[0], log_path - log_path[0], atol=2e-3 * np.ptp(log_path))
    log_w = log_path + st.norm.logpdf(grid, [1.0, 1.5], [0.6, 0.5]).sum(1)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    centre = w @ grid
    same_moments(
        task.sample(features, n=N, key=KEY).ravel().astype(float),
        centre,
        (grid - centre).T @ (w[:, None] * (grid - centre)),
    )


@pytest.mark.parametrize("name", ALL)
def test_every_task_makes_draws_that_its_likelihood_and_its_prior_find_possible(name):
    task = ALL[name]()
    assert task.name == name
    draws = vb.sample_prior_predictive(task.prior, task.simulator, n=64, key=KEY, progress=False)
    assert draws.x.shape == (64, task.num_features)
    assert draws.valid.all()
    theta = {"theta": jnp.asarray(draws.theta["theta"])}
    own = np.asarray(jax.vmap(task.log_likelihood)(theta, jnp.asarray(draws.x)))
    other = np.asarray(jax.vmap(task.log_likelihood)(theta, jnp.asarray(np.roll(draws.x, 1, axis=0))))
    assert np.isfinite(own).all()
    assert own.mean() > other.mean() + 1.0
    slope = jax.grad(lambda t: task.log_likelihood({"theta": t}, draws.x[0]))(theta["theta"][0])
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0.0


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"posterior of slcp has no exact sampler; write\s+vb\.sample_mcmc"):
        tasks.slcp().sample(np.zeros(8), n=5, key=KEY)
    with pytest.raises(ValueError, match=r"x_o has shape \[3\]; two_moons makes \[2\] finite numbers"):
        tasks.two_moons().sample(np.zeros(3), n=5, key=KEY)
    with pytest.raises(ValueError, match="0 of 5 draws were accepted in 1000 rounds; the prior excludes this x_o"):
        tasks.gaussian_mixture().sample(np.array([99.0, 0.0]), n=5, key=KEY)
    with pytest.raises(ValueError, match=r"name='two_moon' .* one of 'two_moons'"):
        tasks.reference("two_moon", 1)
    with pytest.raises(ValueError, match=r"observation=0 .* at most 10"):
        tasks.reference("slcp", 0)
    monkeypatch.delenv("VBINFER_SBIBM", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"(?s)sbibm's wheel is not at .*write download=True.*VBINFER_SBIBM"):
        tasks.reference("slcp", 1)
    (tmp_path / "other.whl").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"other\.whl' is not sbibm-1\.1\.0-.*\(SHA-256 .*, expected 12ecc6b4d327"):
        tasks.reference("slcp", 1, wheel=tmp_path / "other.whl")


def test_a_reference_is_read_from_the_wheel(tmp_path, monkeypatch):
    folder = "sbibm/tasks/two_moons/files/num_observation_3"
    wheel = tmp_path / "small.whl"
    with zipfile.ZipFile(wheel, "w") as archive:  # a wheel of the same layout
        archive.writestr(f"{folder}/observation.csv", "data_1,data_2\n-0.5,0.25\n")
        archive.writestr(f"{folder}/true_parameters.csv", "parameter_1,parameter_2\n0.125,-1.0\n")
        rows = "parameter_1,parameter_2\n0.1,0.2\n0.3,0.4\n0.5,0.6\n"
        archive.writestr(f"{folder}/reference_posterior_samples.csv.bz2", bz2.compress(rows.encode()))
    monkeypatch.setattr(published, "_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setenv("VBINFER_SBIBM", str(wheel))
    found = tasks.reference("two_moons", 3)
    np.testing.assert_array_equal(found.x_o, [-0.5, 0.25])
    np.testing.assert_array_equal(found.theta_true["theta"], [0.125, -1.0])
    np.testing.assert_array_equal(found.posterior.ravel(), [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    assert "Lueckmann et al. 2021" in found.posterior.info["source"]
    assert os.listdir(tmp_path) == ["small.whl"]  # nothing is unpacked


def test_the_patient_is_seen_by_region_and_by_what_each_receives():
    weights = np.array([[0.0, 2.0, 0.5], [0.3, 0.0, 0.0], [0.0, 1.5, 0.0]])
    task = tasks.vep(vb.Connectome(weights, np.zeros((3, 3))))
    forward = task.simulator
    y = np.random.default_rng(0).normal(-1.0, 1.0, (80, 3))
    received = np.array([[sum(weights[i, j] * (row[j] - row[i]) for j in range(3)) for i in range(3)] for row in y])
    # eight windows of ten seconds by the trapezoidal rule, the last one second shorter
    windows = [slice(10 * k, min(10 * k + 10, 79) + 1) for k in range(8)]
    area = lambda z: [1e3 * (z[w][1:] + z[w][:-1]).sum(axis=0) / 2 for w in windows]  # noqa: E731
    expected = np.concatenate([np.ravel(area(y)), np.ravel(area(received))])
    np.testing.assert_allclose(forward.parts[0](jnp.asarray(y)), expected, rtol=1e-4, atol=0.5)
    assert forward.names[1] == "signal.0-10000ms[1]"
    assert forward.names[-1] == "input.70000-79000ms[2]"
    assert task.prior.names == ("coupling.G", *(f"model.x0[{i}]" for i in range(3)))
    with pytest.raises(ValueError, match="fit a neural estimator"):
        task.log_likelihood({}, expected)
    # two measurements of one theta differ by the noise, of sd 0.3 on every sample
    theta = {"coupling.G": np.full(2, 0.5), "model.x0": np.tile([-3.0, -1.5, -2.5], (2, 1))}
    _, ys = forward.batch_series(theta, jax.random.split(KEY, 2))
    difference = np.asarray(ys[0] - ys[1], float).ravel()
    assert abs(difference.std() / (0.3 * np.sqrt(2)) - 1.0) < 4.5 / np.sqrt(2 * difference.size)


def test_the_oscillator_has_the_likelihood_of_its_noise():
    """Against Heun's rule in NumPy: the mean of x, and the density of a recording."""
    task, a, b = tasks.damped_oscillator(), 0.15, 0.3

    def rate(state):
        x, y = state
        return np.array([x - x * y - a * x * x, x * y - y - b * y * y])

    state, mean = np.array([0.5, 1.0]), []
    for step in range(1, 201):
        slope = rate(state)
        state = state + 0.05 * (slope + rate(state + 0.1 * slope))
        if step % 10 == 0:
            mean.extend(state)
    theta = {"model.a": np.float32(a), "model.b": np.float32(b)}
    x = np.asarray(mean) + np.linspace(-0.3, 0.4, 40)
    assert float(task.log_likelihood(theta, x)) == pytest.approx(st.norm(mean, 0.2).logpdf(x).sum(), abs=0.01)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: task.simulator(theta, key)))(jax.random.split(KEY, 400)))
    z = (drawn - np.asarray(mean)) / 0.2
    assert abs(z.mean()) < 4.5 / np.sqrt(z.size)
    assert abs(z.std() - 1.0) < 4.5 / np.sqrt(2 * z.size)
    assert task.simulator.names[:3] == ("x(1 ms)", "y(1 ms)", "x(2 ms)")
