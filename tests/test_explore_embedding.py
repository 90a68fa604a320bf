"""Embeddings: linear systems and polynomial vector fields come back from their trajectories."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import vbinfer as vb

embed = vb.explore.embed
M = np.array([[0.9, 0.35, 0.0], [-0.4, 0.8, 0.1], [0.2, 0.0, 0.7]])


def trajectory(n=60):
    x = [np.array([1.0, -0.5, 2.0])]
    for _ in range(n - 1):
        x.append(M @ x[-1])
    return np.array(x)


def test_one_channel_of_a_linear_system_has_its_characteristic_polynomial():
    """y_t = sum_k a_k y_{t-k} with the coefficients of det(s - M) (Cayley and Hamilton), every second sample of M^2."""
    y = trajectory()[:, 0]
    for every, matrix in ((1, M), (2, M @ M)):
        vectors, names = embed(y, lags=4, every=every)
        assert names == tuple(f"x0(t-{k * every})" if k else "x0" for k in range(4))
        found = np.linalg.lstsq(vectors[:, 1:], vectors[:, 0], rcond=None)[0]
        np.testing.assert_allclose(found, -np.poly(matrix)[1:], atol=1e-6)


def test_all_channels_of_a_linear_system_have_its_matrix():
    vectors, names = embed(trajectory(), lags=2)
    assert names == ("x0", "x1", "x2", "x0(t-1)", "x1(t-1)", "x2(t-1)")
    np.testing.assert_allclose(np.linalg.lstsq(vectors[:, 3:], vectors[:, :3], rcond=None)[0].T, M, atol=1e-10)


def test_a_cubic_vector_field_comes_back():
    """FitzHugh and Nagumo: v' = v - v^3/3 - w + 0.5, w' = 0.08 (v + 0.7 - 0.8 w); derivatives of fourth order."""
    drift = lambda t, x: [x[0] - x[0] ** 3 / 3.0 - x[1] + 0.5, 0.08 * (x[0] + 0.7 - 0.8 * x[1])]  # noqa: E731
    h, rows, slopes = 0.02, [], []
    for start in ([-1.0, 1.5], [2.0, -0.5], [0.3, 0.2]):
        x = solve_ivp(drift, (0.0, 40.0), start, t_eval=h * np.arange(2_000), rtol=1e-11, atol=1e-12).y.T
        slopes.append((x[:-4] - 8.0 * x[1:-3] + 8.0 * x[3:-1] - x[4:]) / (12.0 * h))
        rows.append(embed(x[2:-2], degree=3))
    found = np.linalg.lstsq(np.concatenate([r.values for r in rows]), np.concatenate(slopes), rcond=None)[0]
    of_v = {"1": 0.5, "x0": 1.0, "x0^3": -1.0 / 3.0, "x1": -1.0}
    of_w = {"1": 0.056, "x0": 0.08, "x1": -0.064}
    for column, known in zip(found.T, (of_v, of_w), strict=True):
        np.testing.assert_allclose(column, [known.get(name, 0.0) for name in rows[0].names], atol=1e-5)


@pytest.mark.parametrize(("channels", "lags", "degree"), [(3, 1, 2), (2, 2, 3), (1, 1, 5)])
def test_columns_are_the_monomials_that_their_names_say(channels, lags, degree):
    y = np.random.default_rng(0).normal(1.0, 0.5, (9, channels))
    values, names = embed(y, lags=lags, degree=degree)
    assert len(names) == math.comb(channels * lags + degree, degree) == len(set(names))
    vectors, plain = embed(y, lags=lags)
    place = {name: k for k, name in enumerate(plain)}
    for column, name in zip(values.T, names, strict=True):
        expected = np.ones(len(values))
        for factor in name.split() if name != "1" else []:
            base, _, power = factor.partition("^")
            expected = expected * vectors[:, place[base]] ** int(power or 1)
        np.testing.assert_allclose(column, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.zeros((2, 3, 4)), {}, r"\[2, 3, 4\]"),
        ([1.0, np.nan, 2.0], {}, "NaN"),
        (np.zeros(5), {"lags": 3, "every": 3}, "has 5 samples; lags=3 with every=3 needs at least 7"),
        (np.zeros(5), {"lags": 0}, "lags=0"),
        (np.zeros(5), {"degree": 0}, "degree=0"),
    ],
)
def test_what_cannot_be_embedded_is_refused(y, options, message):
    with pytest.raises(ValueError, match=message):
        embed(y, **options)
