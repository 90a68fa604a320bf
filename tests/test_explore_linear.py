"""Linear response: Ornstein-Uhlenbeck closed forms, with delays, colours and monitors; gradients; what is refused."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import vbinfer as vb
from vbinfer.explore.stationary import covariance

GOLDEN = np.load(Path(__file__).parent / "golden" / "explore.npz")
A, SIGMA, F = GOLDEN["ou__A"], GOLDEN["ou__sigma"], GOLDEN["ou__f"]
KEY = jax.random.key(2)
ANY = pytest.mark.parametrize


def ou(delays=False, noise=None, **more):
    W = A - np.diag(np.diag(A))
    return vb.Simulator(
        vb.models.Linear(gamma=np.diag(A)),
        vb.Connectome(W, GOLDEN["ou__delay"], speed=1.0),
        coupling=vb.coupling.Linear(G=1.0),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(SIGMA) if noise is None else noise,
        delays=vb.Delays() if delays else None,
        **more,
    )


def test_ornstein_uhlenbeck_pair():
    lin = vb.linearise(ou())
    np.testing.assert_allclose(lin.covariance(), GOLDEN["ou__P"], atol=1e-7)
    np.testing.assert_allclose(lin.correlation(), GOLDEN["ou__fc"], atol=1e-6)
    np.testing.assert_allclose(lin.cross_spectrum(F), GOLDEN["ou__S"], atol=1e-9)
    np.testing.assert_allclose(lin.psd(F), np.diagonal(GOLDEN["ou__S"], axis1=1, axis2=2).real, atol=1e-9)
    for lag, P in zip(GOLDEN["ou__lags"], GOLDEN["ou__lagged"], strict=True):
        np.testing.assert_allclose(lin.lagged(lag), P, atol=1e-7)
        np.testing.assert_allclose(lin.lagged(-lag), P.T, atol=1e-7)
    np.testing.assert_allclose(lin.eigenvalues(), np.sort(np.linalg.eigvals(A))[::-1], atol=1e-6)
    S = GOLDEN["ou__S"]
    np.testing.assert_allclose(
        lin.coherence(F)[:, 0, 1], np.abs(S[:, 0, 1]) ** 2 / (S[:, 0, 0] * S[:, 1, 1]).real, atol=1e-6
    )
    assert isinstance(lin.covariance(), np.ndarray)
    assert lin.covariance().dtype == np.float64


def test_ornstein_uhlenbeck_pair_with_delays():
    lin = vb.linearise(ou(delays=True))
    np.testing.assert_allclose(lin.cross_spectrum(F), GOLDEN["ou__S_delayed"], atol=1e-8)
    np.testing.assert_allclose(lin.covariance(), GOLDEN["ou__P_delayed"], atol=1e-6)
    lag = GOLDEN["ou__lags"][1]
    np.testing.assert_allclose(lin.lagged(lag), GOLDEN["ou__lagged_delayed"][1], atol=1e-5)
    s = lin.eigenvalues()[0]  # a root of (s - a)(s - d) = b c exp(-s (lag_01 + lag_10))
    both = GOLDEN["ou__delay"][0, 1] + GOLDEN["ou__delay"][1, 0]
    assert abs((s - A[0, 0]) * (s - A[1, 1]) - A[0, 1] * A[1, 0] * np.exp(-s * both)) < 1e-6


def test_coloured_noise_is_a_filter_of_white_noise():
    tau, sigma = np.array([2.0, 7.0]), np.array([0.2, 0.05])
    lin = vb.linearise(ou(noise=vb.noise.Coloured(sigma, tau=tau)))
    for f, S in zip(F, lin.cross_spectrum(F), strict=True):
        omega = 2e-3 * np.pi * f
        H = np.linalg.inv(1j * omega * np.eye(2) - A)
        Q = np.diag(2.0 * tau * sigma**2 / (1.0 + (omega * tau) ** 2))
        np.testing.assert_allclose(S, 2e-3 * H @ Q @ H.conj().T, atol=1e-9)
    f = np.linspace(0.0, 40_000.0, 400_001)
    np.testing.assert_allclose(
        lin.covariance()[0, 1], np.trapezoid(lin.cross_spectrum(f[::20])[:, 0, 1].real, f[::20]), rtol=2e-3
    )


def test_noise_correlated_across_nodes_and_multiplicative_noise():
    mixed = np.array([[1.0, 0.4], [0.4, 1.0]])
    Q = np.outer(SIGMA, SIGMA) * mixed
    P = vb.linearise(ou(noise=vb.noise.Additive(SIGMA, correlation=mixed))).covariance()
    np.testing.assert_allclose(A @ P + P @ A.T, -Q, atol=1e-8)
    # a fixed point at -offset / gamma = 2, where the amplitude is .3 of it
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.5),
        vb.Connectome([[0.0]]),
        coupling=vb.coupling.Linear(G=1.0, offset=1.0),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Multiplicative(lambda x: {"x": 0.3 * x.x}),
    )
    lin = vb.linearise(sim)
    assert lin.x.x == pytest.approx(2.0)
    assert lin.covariance() == pytest.approx(0.6**2 / (2 * 0.5))


@ANY("delays", [False, True])
def test_gradients_are_central_differences(delays):
    """Of a covariance, a spectrum and the leading eigenvalue, in G."""
    sim, f = ou(delays=delays), np.array([20.0, 80.0])

    def numbers(G):
        lin = vb.linearise(sim, {"coupling.G": G})
        return lin.covariance()[0, 1], lin.psd(f).sum(), lin.eigenvalues()[0].real

    value, slope = jax.jit(lambda G: (numbers(G), jax.jacfwd(numbers)(G)))(1.0)
    np.testing.assert_allclose(value, numbers(1.0), rtol=2e-3 if delays else 2e-4)
    h = 1e-3
    differences = [(b - a) / (2 * h) for a, b in zip(numbers(1.0 - h), numbers(1.0 + h), strict=True)]
    np.testing.assert_allclose(slope, differences, rtol=2e-3)
    back = jax.grad(lambda G: numbers(G)[0] + numbers(G)[2])(1.0)
    assert float(back) == pytest.approx(float(slope[0] + slope[2]), rel=1e-3)


def test_the_fixed_point_moves_with_theta():
    """x of 0 = p + x - x^3 with the slope 1 / (3 x^2 - 1), and its leading eigenvalue 1 - 3 x^2, at a given branch."""
    model = vb.models.custom(
        lambda t, x, c, u, q: (q.p + x.x - x.x**3,), state={"x": 0.0}, params={"p": 0.125}, cvar=("x",)
    )
    sim = vb.Simulator(model, integrator=vb.Heun(dt=0.1))
    points = vb.fixed_points(sim, starts=24, key=KEY)
    assert points.stable.tolist() == [True, False, True]
    at = lambda p: vb.linearise(sim, {"model.p": p}, x=points[1])  # noqa: E731
    x = points.x.x[1, 0]
    assert at(0.125).x.x == pytest.approx(x, abs=1e-9)
    assert float(jax.grad(lambda p: at(p).x.x[0])(0.125)) == pytest.approx(1.0 / (3.0 * x**2 - 1.0), rel=1e-4)
    assert float(jax.grad(lambda p: at(p).eigenvalues()[0].real)(0.125)) == pytest.approx(
        -6.0 * x / (3.0 * x**2 - 1.0), rel=1e-3
    )
    assert float(jax.hessian(lambda p: at(p).x.x[0])(0.125)) == pytest.approx(
        -6.0 * x / (3.0 * x**2 - 1.0) ** 3, rel=1e-3
    )


def test_derivative_of_the_lyapunov_equation():
    A, Q, P, dA, dP = (GOLDEN[f"lyap__{name}"] for name in ("A", "Q", "P", "dA", "dP"))
    with jax.enable_x64(True):
        A, Q = jnp.asarray(A), jnp.asarray(Q)
        found, along = jax.jvp(lambda A: covariance(A, Q), (A,), (jnp.asarray(dA),))
        np.testing.assert_allclose(found, P, rtol=1e-9, atol=1e-9 * np.abs(P).max())
        np.testing.assert_allclose(along, dP, rtol=1e-7, atol=1e-7 * np.abs(dP).max())
        back = jax.grad(lambda A: covariance(A, Q)[0, 1])(A)
        assert (back * dA).sum() == pytest.approx(dP[0, 1], rel=1e-7)
        assert np.isnan(covariance(A + 50.0 * jnp.eye(8), Q)).all()


def test_unstable_points_and_missing_noise_have_no_spectrum():
    unstable = vb.linearise(ou(), {"coupling.G": 9.0})
    with pytest.raises(ValueError, match="not stable, its rightmost eigenvalue is"):
        unstable.psd(F)
    assert np.isnan(jax.jit(lambda G: vb.linearise(ou(), {"coupling.G": G}).psd(F))(9.0)).all()
    quiet = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1))
    with pytest.raises(ValueError, match="no noise"):
        vb.linearise(quiet).covariance()


def test_wrong_arguments_say_what_to_write():
    with pytest.raises(ValueError, match=r"Did you mean 'coupling\.G'"):
        vb.linearise(ou(), {"coupling.g": 1.0})
    with pytest.raises(TypeError, match="linearise was given"):
        vb.linearise(vb.models.Linear())
    model = vb.models.custom(
        lambda t, x, c, u, p: (1.0 + x.x**2 + p.a,), state={"x": 0.0}, params={"a": 0.0}, cvar=("x",)
    )
    with pytest.raises(ValueError, match="no fixed point was reached from the model's start"):
        vb.linearise(vb.Simulator(model, integrator=vb.Heun(dt=0.1)))


GAIN = np.array([[1.0, 0.3], [-0.4, 2.0], [0.5, 0.5]])
MONITORS = {
    "raw": vb.monitors.Raw(at=(1,)),
    "often": vb.monitors.Subsample(5.0, "x"),
    "mean": vb.monitors.TimeAverage(5.0, "x"),
    "groups": vb.monitors.SpatialAverage("x", [[0.25, 0.75]], period=1.0),
    "eeg": vb.monitors.EEG(GAIN, {"x": 2.0}, period=4.0, reference="average"),
    "hrf": vb.monitors.HRF("x", period=720.0, kernel=vb.monitors.GammaKernel(shape=3, tau=1.25, amplitude=2.0)),
    "bold": vb.monitors.BalloonWindkessel("x", period=720.0),
    "fc": vb.monitors.RunningFC("x", period=1.0),
}


def spectrum(f):
    """Of the pair, by hand."""
    H = np.linalg.inv(2j * np.pi * 1e-3 * f * np.eye(2) - A)
    return 2e-3 * H @ np.diag(SIGMA**2) @ H.conj().T


def folded(f, period, gain):
    """A gain, spectrum and its aliases, three on either side."""
    shifts = f + np.arange(-3, 4) * 1e3 / period
    return sum(gain(g) @ spectrum(g) @ gain(g).conj().T for g in shifts)


def window(f, ms):
    return np.sinc(1e-3 * f * ms)


def average(f):
    return 2.0 * window(f, 4.0) * (GAIN - GAIN.mean(axis=0))


@pytest.fixture(scope="module")
def recorded():
    sim = ou(monitors=MONITORS)
    return {name: vb.linearise(sim, monitor=name) for name in MONITORS if name != "fc"}


def test_monitors_are_filters(recorded):
    expected = {
        "raw": lambda f: spectrum(f)[1:, 1:],
        "often": lambda f: folded(f, 5.0, lambda g: np.eye(2)),
        "mean": lambda f: folded(f, 5.0, lambda g: window(g, 5.0) * np.eye(2)),
        "groups": lambda f: folded(f, 1.0, lambda g: np.array([[0.25, 0.75]])),
        "eeg": lambda f: folded(f, 4.0, average),
    }
    for name, of in expected.items():
        found = recorded[name].cross_spectrum(np.array([3.0, 70.0]))
        for f, S in zip((3.0, 70.0), found, strict=True):
            np.testing.assert_allclose(S, of(f), atol=1e-6 * np.abs(found).max(), err_msg=name)


def test_haemodynamics_are_those_of_their_equations(recorded):
    """Gamma filters in series; the balloon linear around rest, time in s."""
    p = {
        name: float(getattr(MONITORS["bold"], name))
        for name in ["kappa", "gamma", "tau", "alpha", "E0", "V0", "k1", "k2", "k3"]
    }
    for f in (0.02, 0.1, 0.25):
        s = 2j * np.pi * f
        gamma = 2.0 / (1.0 + 1.25 * s) ** 3
        flow = 1.0 / (s**2 + p["kappa"] * s + p["gamma"])
        volume = flow / (p["tau"] * s + 1.0 / p["alpha"])
        extracted = 1.0 + (1.0 - p["E0"]) * np.log(1.0 - p["E0"]) / p["E0"]
        content = (extracted * flow - (1.0 / p["alpha"] - 1.0) * volume) / (p["tau"] * s + 1.0)
        balloon = p["V0"] * (-(p["k1"] + p["k2"]) * content + (p["k2"] - p["k3"]) * volume)
        for name, gain in (("hrf", gamma), ("bold", balloon)):
            S = recorded[name].cross_spectrum(f)[0]
            np.testing.assert_allclose(S, abs(gain) ** 2 * spectrum(f), rtol=3e-3, err_msg=name)


def test_covariances_of_recordings(recorded):
    """Snapshots have that of the states; a mean over T, 2 P (e^A T - 1 - A T) A^-2 / T^2; filters their integral."""
    P = GOLDEN["ou__P"]
    np.testing.assert_allclose(recorded["often"].covariance(), P, atol=1e-7)
    np.testing.assert_allclose(
        recorded["groups"].covariance(), [0.25, 0.75] @ P @ [0.25, 0.75] * np.ones((1, 1)), atol=1e-7
    )
    np.testing.assert_allclose(
        recorded["often"].lagged(1.0), GOLDEN["ou__lagged"][list(GOLDEN["ou__lags"]).index(1.0)], atol=1e-7
    )
    inverse = np.linalg.inv(A)
    half = inverse @ inverse @ (expm(5.0 * A) - np.eye(2) - 5.0 * A) @ P / 25.0
    np.testing.assert_allclose(recorded["mean"].covariance(), half + half.T, rtol=1e-5)
    # int |2 / (1 + i w tau)^3|^2 df = 2^2 * (3 / 8) / (2 tau) where the spectrum of x is flat
    flat = spectrum(0.0).real
    np.testing.assert_allclose(recorded["hrf"].covariance(), flat * 0.5 * 4.0 * (3.0 / 16.0) / 1.25, rtol=1e-2)


def test_monitors_that_are_no_filters_are_refused():
    sim = ou(monitors=MONITORS)
    with pytest.raises(ValueError, match="RunningFC records no linear filter"):
        vb.linearise(sim, monitor="fc")
    with pytest.raises(ValueError, match="Did you mean 'bold'"):
        vb.linearise(sim, monitor="bld")


def test_lags_of_many_time_constants_overflow_nothing():
    """exp(-s lag) at a pole that is forgotten long before a lag is over; the roots solve det(s - A(s)) = 0."""
    rng = np.random.default_rng(5)
    w, lengths = rng.uniform(0.2, 1.0, (4, 4)) * (1.0 - np.eye(4)), rng.uniform(900.0, 2_000.0, (4, 4))
    sim = vb.Simulator(
        vb.models.Linear(gamma=np.array([-2.0, -2.3, -1.7, -2.6])),
        vb.Connectome(w, lengths, speed=4.0),
        coupling=vb.coupling.Linear(G=0.8),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(0.1),
    )
    roots = vb.linearise(sim).eigenvalues()
    A = lambda s: np.diag([-2.0, -2.3, -1.7, -2.6]) + 0.8 * w * np.exp(-s * lengths / 4.0)  # noqa: E731
    least = [np.linalg.svd(s * np.eye(4) - A(s), compute_uv=False)[-1] for s in roots[:5]]
    assert max(least) < 1e-5
    assert -0.01 < roots[0].real < 0.0


@pytest.mark.slow
def test_spectra_and_covariances_of_a_long_run():
    """A delayed network of unlike nodes, simulated for 400 s: Welch's spectra within their errors."""
    from scipy.signal import csd

    rng = np.random.default_rng(4)
    w, period = rng.uniform(0.0, 0.4, (3, 3)) * (1.0 - np.eye(3)), 2.0
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=np.array([-4.6, -4.9, -5.2]), J=14.5, Delta=0.7),
        vb.Connectome(w, 20.0 * rng.uniform(0.3, 1.0, (3, 3)), speed=4.0),
        coupling=vb.coupling.Linear(G=0.3),
        delays=vb.Delays(interpolate=True),
        integrator=vb.Heun(dt=0.02),
        noise=vb.noise.Additive({"V": 0.01}),
        monitors={"mean": vb.monitors.TimeAverage(period, "r")},
    )
    lin = vb.linearise(sim, monitor="mean")
    y = np.asarray(vb.simulate(sim, t1=400_000.0, key=KEY).ys["mean"], float)[500:]
    f, S = csd(y[:, :, None], y[:, None, :], fs=1e3 / period, nperseg=500, axis=0)
    keep = slice(2, 120)
    expected = lin.cross_spectrum(f[keep])
    pieces = 2 * len(y) / 500
    level = np.sqrt(np.abs(np.einsum("fii,fjj->fij", expected, expected)))
    # scipy's csd is of conj(x) y
    error = np.abs(S[keep].conj() - expected) / level * np.sqrt(pieces)
    assert np.sqrt((error**2).mean()) < 1.5
    assert np.abs(np.mean((S[keep].conj() - expected) / level)) < 0.01
    cov, expected = np.cov(y.T), np.asarray(lin.covariance())
    np.testing.assert_allclose(np.diag(cov), np.diag(expected), rtol=0.05)
    sd = np.sqrt(np.diag(expected))
    # the delays outlast the memory of a node: what is left between nodes at lag 0 is below the error of the run
    assert np.abs((cov - expected) / np.outer(sd, sd))[~np.eye(3, dtype=bool)].max() < 0.01
