"""Cross-spectral likelihood: complex Wishart, Whittle for one channel, calibrated on a directed network."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg as la
from scipy.stats import kstest

from vbinfer.execute.processes import enable_x64
from vbinfer.likelihoods import CrossSpectral, Whittle

GOLDEN = np.load(Path(__file__).parent / "golden" / "explore.npz")
NUMBERS = json.loads(str(GOLDEN["numbers"]))["wishart"]
BAND = {name: NUMBERS[name] for name in ("period", "num_samples", "low", "high")}


@pytest.mark.parametrize(("scale", "name"), [(1.0, "logpdf"), (1.2, "logpdf_at_1p2_S")])
def test_the_density_is_the_complex_wishart_of_the_golden_file(scale, name):
    with enable_x64(True):
        S = jnp.asarray(GOLDEN["wishart__S"])
        likelihood = CrossSpectral(lambda theta, f: theta["scale"] * S, segments=NUMBERS["segments"], **BAND)
        np.testing.assert_allclose(likelihood.frequencies, GOLDEN["wishart__f"], rtol=1e-12)
        y = GOLDEN["wishart__y"]
        pointwise = likelihood.pointwise({"scale": scale}, y)
        assert float(pointwise.sum()) == pytest.approx(NUMBERS[name], abs=1e-8)
        assert float(likelihood({"scale": scale}, y)) == pytest.approx(NUMBERS[name], abs=1e-8)
        assert pointwise.shape == (23,)


@pytest.mark.parametrize("segments", [1, 5])
def test_one_channel_is_whittle(segments):
    with enable_x64(True):
        power = lambda theta, f: theta["a"] / (f**2 + 9.0)  # noqa: E731
        y, how = GOLDEN["wishart__y"][:, 0], {**BAND, "segments": segments}
        whittle = Whittle(power, **how)
        cross = CrossSpectral(lambda theta, f: power(theta, f)[:, None, None], **how)
        for a in (0.1, 2.0):
            np.testing.assert_allclose(
                cross.pointwise({"a": a}, y[:, None]), whittle.pointwise({"a": a}, y), atol=1e-10
            )


@pytest.mark.parametrize("segments", [1, 3])
def test_value_and_slope_are_those_of_a_plain_sum_also_with_fewer_pieces_than_channels(segments):
    """Then of the density only what depends on theta is left."""
    with enable_x64(True):
        turn, y = np.array([[0.0, 1e-4j], [-1e-4j, 0.0]]), GOLDEN["wishart__y"]

        def spectrum(theta, f):
            own = jnp.stack([2.0 + f, jnp.ones_like(f)], axis=-1) * 1e-3
            return own[:, :, None] * jnp.eye(2) + theta * jnp.asarray(turn)

        likelihood = CrossSpectral(spectrum, segments=segments, **BAND)
        value, slope = jax.jit(jax.value_and_grad(lambda theta: likelihood(theta, y)))(1.0)
        f, I = _matrices(y, BAND["period"], segments)
        inside = (f >= BAND["low"]) & (f <= BAND["high"])

        def plain(theta):
            S = np.array([np.diag([2.0 + one, 1.0]) * 1e-3 for one in f[inside]]) + theta * turn
            tr = np.einsum("fij,fji->f", np.linalg.inv(S), I[inside]).real
            terms = -segments * (np.linalg.slogdet(S)[1] + tr)
            if segments == 3:  # log Gamma(3) + log Gamma(2) = log 2
                terms += 6.0 * np.log(3.0) - np.log(np.pi) - np.log(2.0) + np.linalg.slogdet(I[inside])[1]
            return terms.sum()

        np.testing.assert_allclose(float(value), plain(1.0), rtol=1e-10)
        assert float(slope) == pytest.approx((plain(1.0 + 1e-5) - plain(1.0 - 1e-5)) / 2e-5, rel=1e-6)


def _matrices(y, period, k):
    """Bartlett matrices by a plain sum over samples."""
    m = len(y) // k
    f = np.arange(1, (m + 1) // 2) * 1e3 / (m * period)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(1, (m + 1) // 2), np.arange(m)) / m)
    pieces = [waves @ (y - y.mean(axis=0))[i * m : (i + 1) * m] for i in range(k)]
    return f, np.mean([p[:, :, None] * p[:, None].conj() for p in pieces], axis=0) * 2e-3 * period / m


def test_samples_have_the_cross_spectra_that_were_asked_for():
    A = jnp.array([[1.0, 0.0], [0.6, 0.8]])

    def spectrum(theta, f):
        lag = jnp.exp(-2j * jnp.pi * f * 0.004)  # the second channel is 4 ms late
        H = jnp.stack([jnp.ones_like(lag), lag], axis=-1)[:, :, None] * A
        return H @ H.conj().swapaxes(1, 2) / (1.0 + (f / 20.0) ** 2)[:, None, None]

    likelihood = CrossSpectral(spectrum, period=2.0, num_samples=20_000, segments=100, low=5.0, high=100.0)
    y = np.asarray(likelihood.sample({}, jax.random.key(0)), float)
    f, I = _matrices(y, 2.0, 100)
    inside = (f > 12.0) & (f < 90.0)  # not where pieces leak over the ends of the band
    S = np.asarray(spectrum({}, jnp.asarray(f[inside])))
    ratio = (I[inside] / np.sqrt(np.einsum("fii,fjj->fij", S, S).real)).mean(axis=0)
    wanted = (S / np.sqrt(np.einsum("fii,fjj->fij", S, S).real)).mean(axis=0)
    assert abs(wanted[0, 1].imag) > 0.1
    np.testing.assert_allclose(ratio, wanted, atol=0.05)  # 5 standard errors of 15 frequencies of 100 pieces
    assert I[f > 105.0].real.max() < 0.05 * I[inside].real.max()


def ou_spectrum(J, q, period):
    """One-sided spectrum of the samples of dx = J x dt + sqrt(q) dW, aliases included."""
    n, eye = len(J), jnp.eye(len(J))
    Phi = jax.scipy.linalg.expm(J * period)
    P = jnp.linalg.solve(jnp.kron(eye, J) + jnp.kron(J, eye), -jnp.diag(q).ravel()).reshape(n, n)
    V = P - Phi @ P @ Phi.T

    def at(f):
        H = jnp.linalg.inv(eye - Phi * jnp.exp(-2j * jnp.pi * f * period * 1e-3))
        return 2e-3 * period * H @ V @ H.conj().T

    return jax.vmap(at)


@pytest.mark.slow
def test_posteriors_of_a_directed_network_are_calibrated():
    """Simulation-based calibration of two directed connections of three nodes, exact posteriors on a grid."""
    rng, period, T, repeats = np.random.default_rng(2), 2.0, 2_000, 100
    q, fixed = np.array([0.5, 1.0, 0.3]), np.array([[-0.25, 0.0, 0.1], [0.0, -0.3, 0.0], [0.0, 0.12, -0.2]])

    def J_of(a, b):
        return jnp.asarray(fixed).at[0, 1].set(a).at[2, 0].set(b)

    def spectrum(theta, f):
        return ou_spectrum(J_of(theta["a"], theta["b"]), jnp.asarray(q), period)(f)

    likelihood = CrossSpectral(spectrum, period=period, num_samples=T, segments=2, high=125.0)
    axis, width = np.linspace(-0.15, 0.15, 32)[:-1] + 0.15 / 31, 0.3 / 31  # centres of cells
    grid = {"a": jnp.asarray(np.repeat(axis, 31)), "b": jnp.asarray(np.tile(axis, 31))}
    all_of = jax.jit(lambda y: jax.lax.map(lambda theta: likelihood(theta, y), grid, batch_size=128))
    levels = []
    for _ in range(repeats):
        a, b = rng.uniform(-0.15, 0.15, 2)
        J = np.asarray(J_of(a, b), float)
        P = la.solve_continuous_lyapunov(J, -np.diag(q))
        Phi = la.expm(J * period)
        root, x = la.cholesky(P - Phi @ P @ Phi.T, lower=True), [la.cholesky(P, lower=True) @ rng.normal(size=3)]
        for _ in range(T - 1):
            x.append(Phi @ x[-1] + root @ rng.normal(size=3))
        density = np.asarray(all_of(jnp.asarray(np.array(x) + 1.3)), float).reshape(31, 31)
        density = np.exp(density - density.max())
        density /= density.sum()
        below = [np.clip((truth - axis) / width + 0.5, 0.0, 1.0) for truth in (a, b)]
        levels.append([density.sum(axis=1) @ below[0], density.sum(axis=0) @ below[1]])
    levels = np.array(levels)
    for of_one in levels.T:
        assert kstest(of_one, "uniform").pvalue > 0.01
    assert levels.std(axis=0).min() > 0.25  # 0.289 if uniform


@pytest.mark.parametrize(
    ("spectrum", "options", "y", "message"),
    [
        (lambda theta, f: jnp.ones((len(f), 2)), {}, None, r"expected \[299, M, M\]"),
        (lambda theta, f: jnp.ones((len(f), 2, 3)), {}, None, r"\[299, 2, 3\]"),
        (lambda theta, f: jnp.tile(jnp.array([[2.0, 1.0j], [1.0j, 2.0]]), (len(f), 1, 1)), {}, None, "Hermitian"),
        (lambda theta, f: jnp.tile(jnp.eye(3), (len(f), 1, 1)), {}, None, r"y is \[600, 2\]; expected \[600, 3\]"),
        (lambda theta, f: jnp.tile(jnp.eye(2), (len(f), 1, 1)), {}, np.full((600, 2), np.nan), "gaps"),
        (None, {"low": 30.0, "high": 20.0}, None, "lower end of the band first"),
        (None, {"low": 30.1, "high": 30.2}, None, "no frequency"),
        (None, {"segments": 0}, None, "segments=0"),
        (None, {"num_samples": 2}, None, "num_samples"),
    ],
)
def test_what_is_no_cross_spectrum_or_recording_is_refused(spectrum, options, y, message):
    spectrum = spectrum or (lambda theta, f: jnp.tile(jnp.eye(2), (len(f), 1, 1)))
    y = GOLDEN["wishart__y"][:600] if y is None else y
    with pytest.raises(ValueError, match=message):
        CrossSpectral(spectrum, **{"period": 2.0, "num_samples": 600, **options})({}, y)


def test_the_spectrum_must_be_a_function():
    with pytest.raises(TypeError, match="function"):
        CrossSpectral(np.eye(2), period=2.0, num_samples=600)
