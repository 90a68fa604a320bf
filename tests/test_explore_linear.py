"""Linear response: Ornstein-Uhlenbeck closed forms, with delays, colours and monitors; gradients; what is refused."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
