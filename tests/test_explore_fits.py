"""Linear models of recordings: equal to dense linear algebra, to statsmodels, and to what made the data."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg as la
from scipy.stats import multivariate_normal

import vbinfer as vb
from vbinfer.explore import mou

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "explore.npz"))
NUMBERS = json.loads(str(GOLDEN["numbers"]))
fit_mvar, fit_mou = vb.explore.fit_mvar, vb.explore.fit_mou


def ou(J, q, T, period, seed):
    """Exact samples of a process with a mean that is not 0."""
    rng, n = np.random.default_rng(seed), len(J)
    P = la.solve_continuous_lyapunov(J, -np.diag(q))
    Phi = la.expm(J * period)
    root, x = la.cholesky(P - Phi @ P @ Phi.T, lower=True), [la.cholesky(P, lower=True) @ rng.normal(size=n)]
    for _ in range(T - 1):
        x.append(Phi @ x[-1] + root @ rng.normal(size=n))
    return np.array(x) + np.arange(n) - 0.7


# ---- autoregressive models


@pytest.mark.parametrize("order", [1, 2])
def test_mvar_equals_statsmodels(order):
    fit = fit_mvar(GOLDEN["mvar__y"], order=order)
    np.testing.assert_allclose(fit.A, GOLDEN[f"mvar__order{order}_A"], atol=1e-10)
    np.testing.assert_allclose(fit.intercept, GOLDEN[f"mvar__order{order}_intercept"], atol=1e-10)
    np.testing.assert_allclose(fit.Sigma, GOLDEN[f"mvar__order{order}_Sigma_unbiased"], atol=1e-10)
    np.testing.assert_allclose(fit.bic[order], NUMBERS["mvar"]["bic_by_order"][str(order)], atol=1e-10)


def test_bic_finds_the_order_and_the_truth_lies_within_standard_errors():
    y = GOLDEN["mvar__y"]
    fit = fit_mvar(y, order="bic", period=2.0)
    assert fit.order == NUMBERS["mvar"]["bic_order"] == 2
    assert sorted(fit.bic) == list(range(1, 11))
    X = np.array([[1.0, *y[t - 1], *y[t - 2]] for t in range(2, len(y))])
    inverse = np.linalg.inv(X.T @ X)
    for i in range(3):  # each equation by itself
        b = inverse @ X.T @ y[2:, i]
        np.testing.assert_allclose(fit.A[:, i].ravel(), b[1:], atol=1e-10)
        z = (b[1:] - GOLDEN["mvar__A_true"][:, i].ravel()) / np.sqrt(fit.Sigma[i, i] * np.diag(inverse)[1:])
        assert abs(z).max() < 4.0


def test_granger_ratios_are_those_of_regressions_without_a_past():
    y = GOLDEN["mvar__y"]
    fit = fit_mvar(y, order=2)
    design = np.array([[1.0, *y[t - 1], *y[t - 2]] for t in range(2, len(y))])
    for i in range(3):
        for j in range(3):
            rest = np.delete(design, [1 + j, 4 + j], axis=1)
            full, less = (np.sum((y[2:, i] - X @ np.linalg.lstsq(X, y[2:, i])[0]) ** 2) for X in (design, rest))
            assert fit.granger[i, j] == pytest.approx(0.0 if i == j else np.log(less / full), abs=1e-10)


def test_the_spectrum_of_an_autoregression_integrates_to_its_covariance():
    fit = fit_mvar(GOLDEN["mvar__y"], order=2, period=4.0)
    companion = np.block([[fit.A[0], fit.A[1]], [np.eye(3), np.zeros((3, 3))]])
    noise = la.block_diag(fit.Sigma, np.zeros((3, 3)))
    P = la.solve_discrete_lyapunov(companion, noise)[:3, :3]
    n = 4_000
    f = (np.arange(n) + 0.5) * 125.0 / n  # up to Nyquist
    S = fit.cross_spectrum(f)
    np.testing.assert_allclose(S.sum(axis=0).real * 125.0 / n, P, rtol=1e-8)
    # S_01 = y_0 conj(y_1): its inverse transform at lag one is E y_0(t + 1) y_1(t)
    lagged = (companion @ la.solve_discrete_lyapunov(companion, noise))[:3, :3]
    turned = (S * np.exp(2j * np.pi * f * 4e-3)[:, None, None]).sum(axis=0).real * 125.0 / n
    np.testing.assert_allclose(turned, lagged, rtol=1e-8, atol=1e-10)


# ---- Ornstein-Uhlenbeck processes


def test_the_likelihood_is_that_of_one_large_gaussian():
    J = np.array([[-0.5, 0.2, 0.0], [0.0, -0.3, 0.1], [0.3, -0.1, -0.6]])
    y = ou(J, np.array([0.4, 1.0, 0.1]), 12, 1.5, seed=0)
    fit = fit_mou(y, period=1.5, mask=J != 0)
    P = np.linalg.solve(np.kron(np.eye(3), fit.J) + np.kron(fit.J, np.eye(3)), -fit.Sigma.ravel()).reshape(3, 3)
    np.testing.assert_allclose(fit.covariance, P, rtol=1e-8)
    lags = np.arange(12)[:, None] - np.arange(12)
    blocks = [
        [la.expm(fit.J * 1.5 * d) @ P if d >= 0 else P @ la.expm(-fit.J.T * 1.5 * d) for d in row] for row in lags
    ]
    dense = multivariate_normal.logpdf((y - y.mean(axis=0)).ravel(), cov=np.block(blocks))
    assert fit.loglik == pytest.approx(dense, abs=1e-7)


@pytest.mark.parametrize(("mask", "name"), [(GOLDEN["mou__mask"], "fit"), (None, "fit_full")])
def test_mou_is_the_maximum_of_the_exact_likelihood(mask, name):
    fit = fit_mou(GOLDEN["mou__y"], period=2.0, mask=mask)
    np.testing.assert_allclose(fit.J, GOLDEN[f"mou__{name}_J"], atol=1e-4)
    np.testing.assert_allclose(np.diag(fit.Sigma), GOLDEN[f"mou__{name}_q"], atol=1e-4)
    expected = NUMBERS["mou"]["loglik_masked" if name == "fit" else "loglik_full"]
    assert fit.loglik == pytest.approx(expected, abs=1e-3)
    assert fit.loglik > NUMBERS["mou"]["loglik_true"]
    assert fit.converged
    if mask is not None:
        np.testing.assert_array_equal(fit.J[~mask], 0.0)
    assert np.count_nonzero(fit.Sigma) == 4


def test_units_of_the_recording_and_of_time_scale_the_fit():
    y, units = GOLDEN["mou__y"][:600], np.array([1e-3, 1.0, 50.0, 1e4])
    fit, scaled = fit_mou(y, period=2.0), fit_mou(y * units + 5.0, period=700.0)
    np.testing.assert_allclose(scaled.J * 350.0, fit.J * np.outer(units, 1.0 / units), rtol=1e-4)
    np.testing.assert_allclose(np.diag(scaled.Sigma) * 350.0, np.diag(fit.Sigma) * units**2, rtol=1e-4)
    assert scaled.loglik == pytest.approx(fit.loglik - 600 * np.log(units).sum(), abs=1e-4)


@pytest.mark.parametrize("period", [0.3, 3.0, 20.0])
def test_a_chain_without_loops_is_found_from_slow_and_from_sparse_samples(period):
    """Equal time constants down a chain: J has one eigenvector, which is no matter."""
    J = -0.1 * np.eye(6) + np.diag(np.full(5, 0.08), -1)
    fit = fit_mou(ou(J, np.full(6, 0.2), 20_000, period, seed=3), period=period, mask=J != 0)
    assert fit.converged
    # samples see the chain best when they are as far apart as it is slow
    assert abs(fit.J - J).max() < {0.3: 0.015, 3.0: 0.006, 20.0: 0.02}[period]
    np.testing.assert_array_equal(fit.J[J == 0], 0.0)


def test_a_nearly_unstable_process_is_fitted_by_a_stable_one():
    J = np.array([[-0.02, 0.3], [-0.3, -0.02]])  # a rhythm that lasts
    fit = fit_mou(ou(J, np.array([0.1, 0.1]), 150, 4.0, seed=1), period=4.0)
    assert fit.converged
    assert la.eigvals(fit.J).real.max() < 0.0
    assert np.isfinite(fit.loglik)


def test_a_recording_of_shared_noise_stays_within_what_its_samples_tell():
    """Its likelihood has no maximum otherwise: rhythms beyond Nyquist mimic noise that channels share."""
    y = np.asarray(vb.load_recording("hcp-aal2", participant=3).values)[:, 10:22]
    fit = fit_mou(y, period=720.0)
    values = 720.0 * la.eigvals(fit.J)
    assert fit.converged
    assert abs(values.imag).max() < np.pi
    assert -2.0 * np.pi < values.real.min() <= values.real.max() < 0.0
    alone = sum(fit_mou(y[:, [i]], period=720.0).loglik for i in range(12))
    assert fit.loglik > alone + 1_000.0


def test_the_gradient_near_the_border_is_that_of_differences():
    J = np.array([[-5.0, 2.0, 0.0], [-1.0, -1.0, 2.9], [0.3, -2.9, -1.0]])
    x, noise = np.random.default_rng(0).normal(size=(50, 3)), np.array([1.0, 2.0, 0.5])
    likelihood = mou._Likelihood(x, np.ones((3, 3), bool))
    _, g_J, g_s = likelihood(J, noise)
    border = mou._border(J, la.eigvals(J))
    assert border[0] > 0.1

    def slope(dJ, ds, e=1e-6):
        return (likelihood(J + e * dJ, noise + e * ds)[0] - likelihood(J - e * dJ, noise - e * ds)[0]) / (2.0 * e)

    for dJ, ds in ((np.arange(9.0).reshape(3, 3) - 4.0, np.zeros(3)), (J**2, np.array([0.3, -1.0, 0.1]))):
        assert slope(dJ, ds) == pytest.approx((g_J * dJ).sum() + g_s @ ds, rel=1e-6)


# ---- bad input

GAPS = GOLDEN["mou__y"][:200].copy()
GAPS[5, 2] = np.nan
FLAT = GOLDEN["mou__y"][:200].copy()
FLAT[:, 1] = 3.0
REFERENCED = GOLDEN["mou__y"][:200] - GOLDEN["mou__y"][:200].mean(axis=1, keepdims=True)


@pytest.mark.parametrize("fit", [fit_mvar, fit_mou])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (GAPS, r"channels \[2\]; cut them"),
        (FLAT, r"channels \[1\] are constant"),
        (REFERENCED, "rank 3, as after an average reference"),
        (np.ones(30), r"y\[:, None\]"),
        (np.zeros((30, 0)), r"shape \[30, 0\]"),
        (GOLDEN["mou__y"][:5], "record longer"),
    ],
)
def test_recordings_that_no_linear_model_fits_are_refused(fit, y, message):
    with pytest.raises(ValueError, match=message):
        fit(y, period=2.0)


def test_options_that_make_no_sense_are_refused():
    y = GOLDEN["mou__y"][:200]
    for wrong, message in [
        (lambda: fit_mvar(y, order=0), "order=0"),
        (lambda: fit_mvar(y, order="aic"), "'bic'"),
        (lambda: fit_mvar(y, order=60), "record longer"),
        (lambda: fit_mvar(y, period=-1.0), "period"),
        (lambda: fit_mvar(y).cross_spectrum([1.0]), "period=2.0"),
        (lambda: fit_mou(y, period=0.0), "period"),
        (lambda: fit_mou(y, period=2.0, mask=np.ones((3, 3))), r"\[3, 3\]; expected \[4, 4\]"),
        (lambda: fit_mou(y, period=2.0, mask=np.full((4, 4), 0.5)), "weights > 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
