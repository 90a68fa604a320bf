"""Likelihoods against scipy, closed forms and joint densities written out; sampling agrees with the density."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.linalg
import scipy.stats

import vbinfer as vb
from vbinfer import likelihoods
from vbinfer.likelihoods import base

RNG = np.random.default_rng(11)
MEAN = RNG.normal(2.0, 1.0, (30, 3))
Y = MEAN + RNG.normal(0.0, 0.7, (30, 3))
GAPS = Y.copy()
GAPS[[0, 4, 5, 17, 29], [0, 1, 1, 2, 0]] = np.nan
SIGMA = np.array([0.5, 0.8, 1.1])
WEIGHT = {"gain": 1.3}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def predict(theta):
    return theta["gain"] * jnp.asarray(MEAN)


# ------------------------------------------------------------------------------------------- around a prediction


def test_gaussian_is_the_normal_density_of_what_was_seen():
    theta = WEIGHT | {"sd": SIGMA}
    expected = np.nansum(scipy.stats.norm(1.3 * MEAN, SIGMA).logpdf(GAPS))
    likelihood = likelihoods.Gaussian(predict, sigma="sd")
    assert float(likelihood(theta, GAPS)) == pytest.approx(expected, rel=1e-12)
    assert float(likelihoods.Gaussian(predict, SIGMA)(WEIGHT, GAPS)) == pytest.approx(expected, rel=1e-12)
    by_entry = np.asarray(likelihood.pointwise(theta, GAPS))
    np.testing.assert_allclose(by_entry[~np.isnan(GAPS)].sum(), expected, rtol=1e-12)
    assert (by_entry[np.isnan(GAPS)] == 0).all()


def test_student_t_is_the_density_of_scipy():
    expected = np.nansum(scipy.stats.t(3.5, 1.3 * MEAN, SIGMA).logpdf(GAPS))
    found = likelihoods.StudentT(predict, sigma=SIGMA, nu="nu")(WEIGHT | {"nu": 3.5}, GAPS)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_autoregressive_is_the_joint_normal_of_what_was_seen():
    """Covariance sigma^2 rho^|s - t| / (1 - rho^2), rows and columns of missing samples left out."""
    rho, expected = np.array([0.6, -0.4, 0.9]), 0.0
    for n in range(3):
        seen = np.flatnonzero(~np.isnan(GAPS[:, n]))
        cov = SIGMA[n] ** 2 / (1 - rho[n] ** 2) * rho[n] ** np.abs(seen[:, None] - seen[None, :])
        expected += scipy.stats.multivariate_normal(1.3 * MEAN[seen, n], cov).logpdf(GAPS[seen, n])
    found = likelihoods.Autoregressive(predict, sigma=SIGMA, rho="rho")(WEIGHT | {"rho": rho}, GAPS)
    assert float(found) == pytest.approx(expected, rel=1e-11)
    white = likelihoods.Autoregressive(predict, sigma=SIGMA, rho=0.0)(WEIGHT, GAPS)
    assert float(white) == pytest.approx(float(likelihoods.Gaussian(predict, SIGMA)(WEIGHT, GAPS)), rel=1e-12)


def test_gaps_leave_the_gradient_finite_and_right():
    likelihood = likelihoods.Autoregressive(predict, sigma="sd", rho="rho")
    theta = {"gain": 1.3, "sd": 0.8, "rho": -0.5}
    slope = jax.grad(lambda t: likelihood(t, GAPS))({k: jnp.asarray(v) for k, v in theta.items()})
    for name, value in theta.items():
        up, down = (float(likelihood(theta | {name: value + h}, GAPS)) for h in (1e-6, -1e-6))
        assert float(slope[name]) == pytest.approx((up - down) / 2e-6, rel=1e-6)


# --------------------------------------------------------------------------------------------------- spectra


def test_periodogram_holds_the_variance():
    """Odd length, so that no ordinate is missing: the sum of I times their distance is the variance; of pieces, too."""
    y = RNG.normal(3.0, 2.0, (405, 2))
    f, power = likelihoods.periodogram(y, period=4.0)
    df = 1000.0 / (405 * 4.0)
    np.testing.assert_allclose(f, df * np.arange(1, 203), rtol=1e-12)
    np.testing.assert_allclose(power.sum(0) * df, y.var(0), rtol=1e-12)
    f, power = likelihoods.periodogram(y, period=4.0, segments=5)
    pieces = y.reshape(5, 81, 2)
    np.testing.assert_allclose(power.sum(0) * f[0], pieces.var(1).mean(0), rtol=1e-12)


def test_whittle_is_exact_for_a_circular_process():
    """Two spectra differ in Whittle's likelihood as in the exact normal density with circulant covariance."""
    n, period = 101, 5.0
    S = lambda theta, f: theta["a"] / (1.0 + (f / theta["corner"]) ** 2)  # noqa: E731
    whittle = likelihoods.Whittle(S, period=period, num_samples=n)
    y = np.random.default_rng(5).normal(size=n).cumsum()
    y -= y.mean()
    one, two = {"a": 0.5, "corner": 10.0}, {"a": 2.0, "corner": 4.0}

    def exact(theta):
        f = np.abs(np.fft.fftfreq(n, period / 1000.0))
        eigenvalues = theta["a"] / (1 + (f / theta["corner"]) ** 2) / 2 / (period / 1000.0)  # two-sided, per sample
        eigenvalues[0] = 1.0
        cov = scipy.linalg.circulant(np.fft.ifft(eigenvalues).real)
        return scipy.stats.multivariate_normal(np.zeros(n), cov).logpdf(y)

    found = float(whittle(one, y) - whittle(two, y))
    assert found == pytest.approx(exact(one) - exact(two), rel=1e-8)


def test_averaged_ordinates_are_gamma_variables():
    y = RNG.normal(size=(300, 2))
    S = lambda theta, f: jnp.stack([0.01 + 0.0 * f, 0.02 + 1e-4 * f], axis=1)  # noqa: E731
    whittle = likelihoods.Whittle(S, period=4.0, num_samples=300, low=10.0, high=60.0, segments=6)
    f, power = (np.asarray(a) for a in likelihoods.periodogram(y, 4.0, segments=6))
    band = (f >= 10.0) & (f <= 60.0)
    assert band.sum() == 11
    expected = scipy.stats.gamma(6, scale=np.asarray(S({}, f[band])) / 6).logpdf(power[band])
    np.testing.assert_allclose(whittle.pointwise({}, y), expected, rtol=1e-10)
    np.testing.assert_allclose(whittle.frequencies, f[band], rtol=1e-12)


def test_whittle_recovers_the_relaxation_of_a_simulated_process():
    """S(f) = 2 sigma^2 dt / |1 - a exp(-i w dt)|^2, exact for Euler's scheme; within 4 standard errors of the truth."""
    dt, n, truth = 1.0, 16_384, -0.05
    sim = vb.Simulator(
        vb.models.Linear(gamma=truth), integrator=vb.integrators.Euler(dt=dt), noise=vb.noise.Additive(0.3)
    )
    y = vb.simulate(sim, t1=n * dt, key=jax.random.key(9)).ys["raw"]["x"]

    def spectrum(theta, f):
        w, a = 2 * jnp.pi * f * dt / 1000.0, 1.0 + theta["gamma"] * dt
        return (2 * 0.3**2 * dt * (dt / 1000.0) / (1 + a**2 - 2 * a * jnp.cos(w)))[:, None]

    whittle = likelihoods.Whittle(spectrum, period=dt, num_samples=n)
    value = jax.jit(lambda g: whittle({"gamma": g}, y))
    step = 2e-4
    grid = truth + step * np.arange(-60, 61)
    best = grid[np.argmax([float(value(g)) for g in grid])]
    assert abs(best - truth) < 4 * math.sqrt(2 * 0.05 / (n * dt)) + step


def test_a_simulated_spectrum_is_that_of_the_series():
    y = RNG.normal(size=(4000, 2))
    simulated = likelihoods.SimulatedSpectrum(lambda theta: theta["s"] * y, period=2.0, segments=8)
    f, power = likelihoods.periodogram(y, 2.0, segments=8)
    np.testing.assert_allclose(simulated({"s": 3.0}, f[4:9]), 9.0 * power[4:9], rtol=1e-10)
    middle = simulated({"s": 1.0}, (f[4:5] + f[5:6]) / 2)
    np.testing.assert_allclose(middle[0], np.sqrt(power[4] * power[5]), rtol=1e-10)


# ---------------------------------------------------------------------------------------------------- events


def test_poisson_counts():
    rate = np.abs(MEAN) * 0.01
    counts = RNG.poisson(rate * 50.0).astype(float)
    counts[3, 1] = np.nan
    found = likelihoods.Poisson(lambda theta: theta["gain"] * rate, bin=50.0)(WEIGHT, counts)
    assert float(found) == pytest.approx(np.nansum(scipy.stats.poisson(1.3 * rate * 50.0).logpmf(counts)), rel=1e-12)
    silent = likelihoods.Poisson(lambda theta: theta["rate"] * jnp.ones(2), bin=1.0)
    assert float(silent({"rate": 0.0}, [0.0, 0.0])) == 0.0
    assert float(jax.grad(lambda r: silent({"rate": r}, [0.0, 0.0]))(0.0)) == -2.0


def test_point_process_is_the_limit_of_counts_in_small_bins():
    """log p(events) = log p(counts) - sum_events log(bin), up to the bin's width; uneven grid, two nodes."""
    times = np.array([0.0, 10.0, 25.0, 60.0, 100.0])
    lam = np.array([[0.05, 0.2], [0.1, 0.1], [0.3, 0.02], [0.02, 0.02], [0.2, 0.4]])
    events = np.array([[3.3, 26.0, 99.1], [12.5, 61.7, np.nan]])
    process = likelihoods.PointProcess(lambda theta: theta["gain"] * lam, times)
    bins = np.linspace(0.0, 100.0, 400_001)
    expected = 0.0
    for n in range(2):
        rate = 1.3 * np.interp(0.5 * (bins[1:] + bins[:-1]), times, lam[:, n])
        seen = events[n][~np.isnan(events[n])]
        counts = np.histogram(seen, bins)[0]
        expected += scipy.stats.poisson(rate * 0.00025).logpmf(counts).sum() - len(seen) * math.log(0.00025)
    assert float(process(WEIGHT, events)) == pytest.approx(expected, rel=1e-5)
    terms = np.asarray(process.pointwise(WEIGHT, events))
    assert terms.shape == (4, 2)
    assert terms[1, 0] == pytest.approx(-1.3 * 15.0 * 0.2)  # an interval without events


def test_events_are_drawn_from_the_intensity():
    times = np.array([0.0, 2000.0, 5000.0])
    process = likelihoods.PointProcess(lambda theta: jnp.array([0.2, 1.0, 0.1]), times)
    drawn = np.concatenate([process.sample({}, jax.random.key(i)) for i in range(4)])
    integral = lambda t: np.interp(t, np.linspace(0, 5000, 5001), np.r_[0.0, np.cumsum(_trapezoid(times))])  # noqa: E731
    total = 2000 * 0.6 + 3000 * 0.55
    assert abs(len(drawn) - 4 * total) < 4 * math.sqrt(4 * total)
    assert scipy.stats.kstest(integral(drawn) / total, "uniform").pvalue > 1e-3


def _trapezoid(times):
    lam = np.interp(np.arange(5001.0), times, [0.2, 1.0, 0.1])
    return 0.5 * (lam[1:] + lam[:-1])


# ------------------------------------------------------------------------------------------------- summaries

COV = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 0.5]])


def test_multivariate_normal():
    normal = likelihoods.MultivariateNormal(lambda theta: (theta["m"] * jnp.arange(3.0), theta["s"] * COV))
    x = RNG.normal(size=(5, 3))
    exact = scipy.stats.multivariate_normal(1.5 * np.arange(3.0), 2.0 * COV)
    np.testing.assert_allclose(normal.pointwise({"m": 1.5, "s": 2.0}, x), exact.logpdf(x), rtol=1e-11)
    assert float(normal({"m": 1.5, "s": 2.0}, x[0])) == pytest.approx(exact.logpdf(x[0]), rel=1e-11)


def simulator(theta, key):
    return theta["mu"] + jnp.linalg.cholesky(jnp.asarray(COV)) @ jax.random.normal(key, (3,))


def test_synthetic_likelihood_has_the_moments_of_its_simulations():
    """`plug-in`: mean and covariance with n - 1; its gradient is that of the simulator under common random numbers."""
    synthetic = likelihoods.SyntheticLikelihood(simulator, n=60, key=jax.random.key(3))
    keys = [jax.random.fold_in(jax.random.key(3), i) for i in range(60)]
    x = np.stack([np.asarray(simulator({"mu": 0.7}, key)) for key in keys])
    y = np.array([0.1, 1.0, 0.9])
    exact = scipy.stats.multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(y)
    assert float(synthetic({"mu": 0.7}, y)) == pytest.approx(exact, rel=1e-9)
    slope = jax.grad(lambda mu: synthetic({"mu": mu}, y))(0.7)
    assert float(slope) == pytest.approx(np.ones(3) @ np.linalg.solve(np.cov(x.T), y - x.mean(0)), rel=1e-8)


def test_the_unbiased_estimator_is_right_on_average_where_the_plug_in_is_not():
    """Mean of the density over 4,000 keys at n = 9: the normal density, within 4 standard errors."""
    y, exact = np.array([0.3, -0.2, 0.1]), scipy.stats.multivariate_normal(np.zeros(3), COV)

    def density(unbiased):
        def one(key):
            made = likelihoods.SyntheticLikelihood(simulator, n=9, key=key, unbiased=unbiased)
            return jnp.exp(made({"mu": 0.0}, y))

        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4_000)))

    p, plug_in = density(True), density(False)
    error = p.std() / math.sqrt(len(p))
    assert error < 0.03 * exact.pdf(y)
    assert abs(p.mean() - exact.pdf(y)) < 4 * error
    assert abs(plug_in.mean() - exact.pdf(y)) > 8 * error


def test_a_forward_model_makes_the_simulations_as_one_batch():
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(0.5),
        monitors={"x": vb.monitors.Subsample(period=0.1, var="x")},
        nodes=2,
    )
    fwd = vb.ForwardModel(sim, t1=2.0, summary=vb.Summary(period=0.1, m=vb.features.moments))
    synthetic = likelihoods.SyntheticLikelihood(fwd, n=8, key=jax.random.key(2))
    one = fwd({"model.gamma": jnp.asarray(-0.4)}, jax.random.fold_in(jax.random.key(2), 5))
    np.testing.assert_allclose(synthetic.simulations({"model.gamma": -0.4})[5], one, rtol=1e-9)


# ------------------------------------------------------------------------------------------------- sampling

SAMPLED = {
    "gaussian": likelihoods.Gaussian(predict, 0.7),
    "student": likelihoods.StudentT(lambda theta: theta["gain"] * jnp.asarray(MEAN[:9]), 0.7, nu=8.0),
    "autoregressive": likelihoods.Autoregressive(predict, 0.7, rho=0.8),
    "poisson": likelihoods.Poisson(lambda theta: theta["gain"] * jnp.abs(jnp.asarray(MEAN[:9])), bin=2.0),
    "whittle": likelihoods.Whittle(
        lambda theta, f: theta["gain"] * jnp.stack([1 / f, 2 / f], axis=1), period=4.0, num_samples=120, segments=1
    ),
    "multivariate": likelihoods.MultivariateNormal(lambda theta: (theta["gain"] * jnp.ones(3), jnp.asarray(COV))),
}


SLOW = ("student", "poisson")  # their generators take long to compile


@pytest.mark.parametrize("name", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in SAMPLED])
def test_draws_have_the_density(name):
    """The score, d log p / d theta, has mean zero over draws at that theta, and not over draws at another one."""
    likelihood = SAMPLED[name]
    score = jax.grad(lambda gain, y: likelihood({"gain": gain}, y))
    keys = jax.random.split(jax.random.key(7), 400)

    def z_score(gain):
        s = np.asarray(jax.jit(jax.vmap(lambda key: score(1.3, likelihood.sample({"gain": gain}, key))))(keys))
        return s.mean() / (s.std() / math.sqrt(len(s)))

    assert abs(z_score(1.3)) < 4
    assert abs(z_score(1.6)) > 6


# ------------------------------------------------------------------------------------------------- mistakes


def _sim(**options):
    return vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        integrator=vb.integrators.Euler(dt=0.5),
        **({"noise": vb.noise.Additive(0.3)} | options),
    )


def _two_monitors():
    return _sim(monitors={"a": vb.monitors.Raw(), "b": vb.monitors.Raw()})


FLAT = lambda theta, f: 0.0 * f + 1.0  # noqa: E731
PRIOR = {"model.gamma": dist.Uniform(-2.0, -0.1)}
Z = {"noise_path.x": np.zeros((4, 1))}
MISTAKES = {
    "sigma's name": (
        lambda: likelihoods.Gaussian(predict, "sigm")({"gain": 1.0, "sigma": 1.0}, Y),
        ValueError,
        "sigma='sigm' names no parameter of theta. Did you mean 'sigma'",
    ),
    "sigma's sign": (
        lambda: likelihoods.Gaussian(predict, -1.0),
        ValueError,
        r"sigma is -1; expected numbers in \(0, inf",
    ),
    "rho's range": (lambda: likelihoods.Autoregressive(predict, 1.0, 1.0), ValueError, r"rho is 1; .*\(-1, 1\)"),
    "sigma's shape": (
        lambda: likelihoods.Gaussian(predict, np.ones(4))(WEIGHT, Y),
        ValueError,
        r"sigma has shape \[4\]; expected a number, \[3\] or \[30, 3\]",
    ),
    "y's shape": (
        lambda: likelihoods.Gaussian(predict, 1.0)(WEIGHT, Y[1:]),
        ValueError,
        r"y is \[29, 3\] but predict gives \[30, 3\]",
    ),
    "a dictionary": (
        lambda: likelihoods.Gaussian(lambda theta: {"x": Y}, 1.0)(WEIGHT, Y),
        ValueError,
        r"predict returned a dictionary of x; return one array of it, such as \[...\]\['x'\]",
    ),
    "no function": (
        lambda: base.callable_or_raise(Y, "predict", "lambda theta: ..."),
        TypeError,
        "predict was given as ndarray; expected a function",
    ),
    "negative counts": (
        lambda: likelihoods.Poisson(lambda theta: jnp.ones(2), 1.0)({}, [1.0, -2.0]),
        ValueError,
        "y holds -2; counts are whole numbers",
    ),
    "bin": (lambda: likelihoods.Poisson(predict, 0.0), ValueError, "bin=0.0 was given; .* of ms, such as bin="),
    "event outside": (
        lambda: likelihoods.PointProcess(lambda theta: jnp.ones(2), [0.0, 10.0])({}, [3.0, 12.0]),
        ValueError,
        "an event at 12 ms; the intensity is given from 0 to 10 ms",
    ),
    "grid": (lambda: likelihoods.PointProcess(predict, [0.0, 0.0]), ValueError, "expected an increasing grid"),
    "intensity's length": (
        lambda: likelihoods.PointProcess(lambda theta: jnp.ones(3), [0.0, 10.0])({}, [3.0]),
        ValueError,
        r"intensity gives \[3\]; expected \[2\] or \[2, N\]",
    ),
    "events' nodes": (
        lambda: likelihoods.PointProcess(lambda theta: jnp.ones((2, 2)), [0.0, 10.0])({}, [[3.0]]),
        ValueError,
        r"y is \[1, 1\]; expected moments of events \[2, event\]",
    ),
    "spectrum's length": (
        lambda: likelihoods.Whittle(lambda theta, f: f[1:], 4.0, 50)({}, Y[:, 0]),
        ValueError,
        r"spectrum returned the shape \[23\] for 24 frequencies",
    ),
    "recording's length": (
        lambda: likelihoods.Whittle(FLAT, 4.0, 50)({}, Y[:, 0]),
        ValueError,
        r"y is \[30\]; expected \[50\]: num_samples",
    ),
    "gaps": (lambda: likelihoods.Whittle(FLAT, 4.0, 30)({}, GAPS[:, 0]), ValueError, "y has gaps"),
    "empty band": (
        lambda: likelihoods.Whittle(FLAT, 4.0, 50, low=2.0, high=4.0),
        ValueError,
        r"no frequency of 50 samples .* lies in \[2.0, 4.0\] Hz; they are 5 Hz apart",
    ),
    "segments": (
        lambda: likelihoods.Whittle(FLAT, 4.0, 50, segments=40),
        ValueError,
        "segments=40 was given; .* at most 16",
    ),
    "simulated band": (
        lambda: likelihoods.SimulatedSpectrum(lambda theta: Y, 4.0, 2)({}, jnp.array([1.0, 20.0])),
        ValueError,
        "1 to 20 Hz were asked for; the simulated pieces have 16.67 to",
    ),
    "moments": (
        lambda: likelihoods.MultivariateNormal(lambda theta: (jnp.ones(3), jnp.ones(3)))({}, np.ones(3)),
        ValueError,
        r"a mean \[3\] and a covariance \[3\]; expected \[F\] and \[F, F\]",
    ),
    "summaries": (
        lambda: likelihoods.MultivariateNormal(lambda theta: (jnp.ones(3), jnp.eye(3)))({}, np.ones(4)),
        ValueError,
        r"y is \[4\]; expected \[3\] or \[n, 3\]",
    ),
    "too few simulations": (
        lambda: likelihoods.SyntheticLikelihood(simulator, 6, jax.random.key(0))({"mu": 0.0}, np.ones(3)),
        ValueError,
        "n=6 simulations of 3 summaries were asked for; a covariance needs at least 7, and 30",
    ),
    "noise path without noise": (
        lambda: likelihoods.NoisePath(_sim(noise=None), 2.0),
        ValueError,
        "has no noise, so there is no path to infer",
    ),
    "which monitor": (
        lambda: likelihoods.NoisePath(_two_monitors(), 2.0),
        ValueError,
        "the simulator has the monitors a, b; name one",
    ),
    "monitor's name": (
        lambda: likelihoods.NoisePath(_sim(), 2.0, monitor="eeg"),
        ValueError,
        "monitor='eeg' was given",
    ),
    "duration": (lambda: likelihoods.NoisePath(_sim(), 2.2), ValueError, "t1=2.2 ms was given; expected a multiple"),
    "path lacking": (
        lambda: likelihoods.NoisePath(_sim(), 2.0)({"model.gamma": -1.0}),
        ValueError,
        "theta lacks 'noise_path.x'; sample with the prior",
    ),
    "path's length": (
        lambda: likelihoods.NoisePath(_sim(), 3.0)(Z),
        ValueError,
        r"theta\['noise_path.x'\] has shape \[4, 1\]; expected \[6, 1\]",
    ),
    "unknown parameter": (
        lambda: likelihoods.NoisePath(_sim(), 2.0)(Z | {"model.gama": -1.0}),
        ValueError,
        "theta names 'model.gama'.*Did you mean 'model.gamma'",
    ),
    "extended twice": (
        lambda: likelihoods.NoisePath(_sim(), 2.0).extend(likelihoods.NoisePath(_sim(), 2.0).extend(vb.Prior(PRIOR))),
        ValueError,
        "the prior has 'noise_path.x' already",
    ),
    "reference": (
        lambda: likelihoods.StatePath(_sim(), 2.0, reference=1.0),
        TypeError,
        "reference was given as 1.0; expected a numpyro distribution",
    ),
    "reference's names": (
        lambda: likelihoods.StatePath(_sim(), 2.0, reference={"y": dist.Normal()}),
        ValueError,
        "reference names 'y'",
    ),
    "reference of all": (lambda: likelihoods.StatePath(_sim(), 2.0, reference={}), ValueError, "reference lacks 'x'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_answered(case):
    call, kind, message = MISTAKES[case]
    with pytest.raises(kind, match=message):
        call()
