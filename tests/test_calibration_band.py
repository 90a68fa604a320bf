"""The simultaneous band of an ECDF: coverage by enumeration, by simulation, and against ArviZ."""

import itertools

import numpy as np
import pytest
import scipy.stats as st

import vbinfer as vb
from vbinfer._arviz import arviz
from vbinfer.diagnostics.calibration.band import _inside, rank_panel, shape_test
from vbinfer.diagnostics.figure import Line


def curve(u, points):
    return (np.asarray(u)[:, None] <= points).mean(axis=0)


def test_coverage_by_enumeration_of_every_outcome():
    """n = 5 numbers, 3 points: all ways to put them into 4 intervals, with their multinomial probability."""
    n, band = 5, vb.diagnostics.ecdf_band(5, 0.8, points=3)
    inside = 0.0
    for counts in itertools.product(range(n + 1), repeat=3):
        if sum(counts) > n:
            continue
        f = np.cumsum(counts) / n
        if (band.lower - 1e-9 <= f).all() and (f <= band.upper + 1e-9).all():
            inside += st.multinomial.pmf([*counts, n - sum(counts)], n, [0.25] * 4)
    assert band.points.tolist() == [0.25, 0.5, 0.75]
    assert 0.8 <= inside < 0.95  # one step narrower would be below


@pytest.mark.parametrize(("lower", "upper"), [((0, 0, 0), (3, 3, 3)), ((0, 1, 1), (2, 3, 3)), ((1, 1, 2), (3, 3, 3))])
def test_the_probability_of_limits_is_that_of_their_outcomes(lower, upper):
    """Three numbers in four cells, all of them in one cell included."""
    exact = 0.0
    for cells in itertools.product(range(4), repeat=3):
        counts = [sum(cell <= k for cell in cells) for k in range(3)]
        exact += all(low <= c <= high for low, c, high in zip(lower, counts, upper, strict=True)) / 64
    assert _inside(3, np.array(lower), np.array(upper)) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(("n", "prob"), [(50, 0.95), (300, 0.95), (300, 0.5)])
def test_the_whole_curve_stays_inside_as_often_as_it_says(n, prob):
    band = vb.diagnostics.ecdf_band(n, prob)
    u = np.random.default_rng(n).random((4000, n))
    inside = [
        ((band.lower - 1e-9 <= f) & (f <= band.upper + 1e-9)).all() for f in (curve(row, band.points) for row in u)
    ]
    error = 4.0 * np.sqrt(prob * (1 - prob) / 4000)
    assert prob - error < np.mean(inside) < prob + error + 0.01  # counts are whole numbers


@pytest.mark.filterwarnings("ignore")
def test_the_band_of_arviz():
    arviz()
    from arviz.stats.ecdf_utils import ecdf_confidence_band

    band = vb.diagnostics.ecdf_band(200)
    lower, upper = ecdf_confidence_band(200, band.points, band.points, prob=0.95, method="optimized")
    assert np.abs(lower - band.lower).max() <= 1.0 / 200 + 1e-9  # one count: both bands stop at whole ones
    assert np.abs(upper - band.upper).max() <= 1.0 / 200 + 1e-9


def test_p_values_of_uniform_numbers_are_uniform_and_agree_with_simulation():
    rng = np.random.default_rng(3)
    p = np.array([shape_test(rng.random(80))[1] for _ in range(1500)])
    for level in (0.01, 0.05, 0.3, 0.7):
        error = 4.0 * np.sqrt(level * (1 - level) / len(p))
        assert level - error - 0.01 < np.mean(p <= level) < level + error  # never anti-conservative
    assert shape_test(rng.random(80) ** 1.2)[1] > shape_test(rng.random(80) ** 2)[1]


def test_a_far_tail_has_a_small_p_not_zero_nor_rounding():
    u = np.linspace(0.001, 0.999, 300)
    assert shape_test(u)[1] > 0.999
    gap, p = shape_test(u**3)
    assert 0.0 < p < 1e-30
    assert gap == pytest.approx(max(z ** (1 / 3) - z for z in np.linspace(0, 1, 2001)), abs=0.01)  # closed form
    z = np.arange(1, 201) / 201  # never below the p of a single point, nor above their sum
    single = 2.0 * st.binom.sf((u[:, None] ** 3 <= z).sum(axis=0) - 1, 300, z).min()
    assert single <= p <= 200 * single * (1 + 1e-9)


def test_the_figure_shows_the_curve_minus_the_diagonal():
    u = np.array([0.1, 0.15, 0.2, 0.3, 0.9])
    panel = rank_panel(u, "G")
    line = next(mark for mark in panel.marks if isinstance(mark, Line))
    points = np.arange(1, 6) / 6
    np.testing.assert_allclose(line.x, points)
    np.testing.assert_allclose(line.y, [0.4, 0.8, 0.8, 0.8, 0.8] - points)
    assert "largest difference 0.47" in panel.alt


def test_the_test_sees_what_the_mean_and_the_variance_do_not():
    rng = np.random.default_rng(5)
    u = np.concatenate([rng.uniform(0.18, 0.32, 150), rng.uniform(0.68, 0.82, 150)])  # mean 1/2, variance about 1/12
    assert abs(u.mean() - 0.5) < 0.02
    assert shape_test(u)[1] < 1e-6


def test_mistakes():
    with pytest.raises(ValueError, match=r"n=0 was given; expected a positive whole number, such as n=300"):
        vb.diagnostics.ecdf_band(0)
    with pytest.raises(ValueError, match=r"prob=95 was given; expected a number between 0 and 1, such as"):
        vb.diagnostics.ecdf_band(300, 95)
    with pytest.raises(ValueError, match=r"points=0 was given; expected a positive whole number, such as"):
        vb.diagnostics.ecdf_band(300, points=0)
