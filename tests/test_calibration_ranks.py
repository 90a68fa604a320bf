"""Every test of a calibration study against an oracle, and its p-values under the null: exact for any posterior."""

import dataclasses
import re

import jax
import numpy as np
import pytest
import scipy.stats as st
from calibration_sources import MEAN, NAMES, SD, Altered, Exact, make_draws

import vbinfer as vb
from vbinfer.diagnostics.calibration import rank_tests
from vbinfer.diagnostics.calibration import tests as tables
from vbinfer.diagnostics.calibration.held_out import HeldOut, ranks, uniforms

KEY = jax.random.key(4)


def ugly(seed, n=70, per=19):
    """A right posterior of three ugly parameters: bounded with ties, heavy-tailed, and bound to the second by sign."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.standard_cauchy(n), rng.normal(3.0, 0.1, n), np.ones(n), rng.exponential(size=n)], axis=1)
    shape = (n, per + 1)
    tied = np.clip(np.round(rng.normal(np.arctan(x[:, :1]), 1.0, shape), 1), -1.0, 2.0)
    heavy = x[:, 3:] * rng.standard_t(2, shape)
    bound = heavy + np.exp(x[:, 1:2] - 3) * rng.normal(-1.0, 1.0, shape)
    pooled = np.stack([tied, heavy, bound], axis=2)  # truth first: all per + 1 are exchangeable given x
    log_q = -np.abs(pooled).sum(axis=2)  # any function of theta and x will do
    return HeldOut(
        ("a", "b", "c"), pooled[:, 0], pooled[:, 1:], x, ("f", "g", "h", "i"), log_q, None, None, 0, 19.0,
        jax.random.key(seed),
    )  # fmt: skip


def raw_tests(held):
    return [
        *rank_tests.marginal_tests(held),
        *rank_tests.dependence_tests(held),
        *rank_tests.hpd_tests(held),
        *rank_tests.tarp_tests(held),
        *rank_tests.pair_tests(held),
    ]


@pytest.fixture(scope="module")
def null():
    """p `[study, test]` of 400 studies of right posteriors, 70 data sets with 19 draws each."""
    every = [raw_tests(ugly(seed)) for seed in range(400)]
    return [row[:2] for row in every[0]], np.array([[row.p for row in study] for study in every])


def test_p_values_of_a_right_posterior_are_uniform_even_with_ties_few_draws_and_heavy_tails(null):
    names, p = null
    assert len(names) == 3 * 5 + 4 + 3
    for (quantity, parameter), column in zip(names, p.T, strict=True):
        if "shape" not in quantity:  # the ECDF's p is discrete; it is tested by itself
            assert st.kstest(column, "uniform").pvalue > 0.05 / len(names) / 5, (quantity, parameter)
        assert np.mean(column <= 0.05) < 0.05 + 4.0 * np.sqrt(0.05 * 0.95 / len(p)), (quantity, parameter)


def test_the_whole_study_alarms_in_five_percent(null):
    p = null[1]
    share = np.mean(p.min(axis=1) * p.shape[1] < 0.05)
    assert 0.01 < share < 0.05 + 4.0 * np.sqrt(0.05 * 0.95 / len(p))


def test_ranks_by_a_loop_and_uniforms_within_their_rank():
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(size=(40, 31)), 1)  # ties
    rank, u = ranks(values), uniforms(values, rng)
    for i, row in enumerate(values.tolist()):
        below = sum(draw < row[0] for draw in row[1:])
        tied = sum(draw == row[0] for draw in row[1:])
        assert below <= rank[i] <= below + tied
        assert below / 31 < u[i] < (below + tied + 1) / 31


def test_without_a_density_the_truth_is_ranked_by_its_mahalanobis_distance():
    """Against a loop over data sets; the nearer the truth, the larger u."""
    held = dataclasses.replace(ugly(3), log_q=None)
    for u, rows in zip(held.joint, held.pooled, strict=True):
        unit = (rows - rows.mean(axis=0)) / rows.std(axis=0)
        precision = np.linalg.inv(np.corrcoef(rows.T) + 1e-6 * np.eye(3))
        distance = [one @ precision @ one for one in unit]
        farther = sum(value > distance[0] + 1e-6 for value in distance[1:])
        equal = sum(abs(value - distance[0]) <= 1e-6 for value in distance[1:])
        assert farther / 20 <= u <= (farther + equal + 1) / 20


def test_hand_made_ranks_of_sbc():
    draws = make_draws(60, 2)
    truth = draws.theta[NAMES[0]]

    def source(x_o, n, key):  # 0, 1, ..., 9 for every data set, next to the truth of this one
        i = int(np.flatnonzero((draws.x == x_o).all(axis=1))[0])
        offset = np.arange(n) - i % 11 + 0.5
        return vb.Posterior({name: (draws.theta[name][i] + offset)[None] for name in NAMES})

    found = vb.diagnostics.sbc(source, draws, num_posterior_samples=10, key=KEY)
    assert found.ranks[:, 0].tolist() == [i % 11 for i in range(60)]
    assert truth.shape == (60,)


def test_location_and_width_are_the_textbook_tests():
    rng = np.random.default_rng(6)
    s = rng.normal(0.1, 1.2, 200)
    u = st.norm.cdf(s)
    assert rank_tests.location(u, "g").p == pytest.approx(2 * st.norm.cdf(-abs(s.sum()) / np.sqrt(200)), rel=1e-6)
    found = rank_tests.width(u, "g")
    assert found.p == pytest.approx(2 * (1 - st.chi2(200).cdf(np.sum(s * s))), rel=1e-6)
    assert found.statistic == pytest.approx(1.2, abs=4 * 1.2 / np.sqrt(400))  # sqrt(mean s^2), with its error


def test_regression_is_the_f_test_of_least_squares():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(90, 3)) @ np.array([[1.0, 0.9, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 5.0]])
    s = rng.normal(size=90) + 0.3 * x[:, 1]
    basis = rank_tests.components(x)
    design = np.column_stack([np.ones(90), st.norm.ppf((st.rankdata(x, axis=0) - 0.5) / 90)])
    residual = s - design @ np.linalg.lstsq(design, s, rcond=None)[0]
    r2 = 1.0 - residual @ residual / ((s - s.mean()) @ (s - s.mean()))
    found = rank_tests.regression(s, basis, "g", "location given x")
    assert found.statistic == pytest.approx(r2, abs=1e-10)
    assert found.p == pytest.approx(1.0 - st.f(3, 86).cdf((r2 / 3) / ((1 - r2) / 86)), abs=1e-10)


def test_many_features_become_their_leading_components():
    rng = np.random.default_rng(8)
    hidden = rng.normal(size=(200, 3))
    x = hidden @ rng.normal(size=(3, 900)) + 0.1 * rng.normal(size=(200, 900))
    basis = rank_tests.components(x)
    assert basis.shape == (200, 18)
    assert np.abs(basis.T @ basis - np.eye(18)).max() < 1e-10
    assert np.abs(basis.sum(axis=0)).max() < 1e-8
    kept = ((basis.T @ (hidden - hidden.mean(axis=0))) ** 2).sum(axis=0) / ((hidden - hidden.mean(axis=0)) ** 2).sum(0)
    assert kept.min() > 0.98  # what drives the features is among them


def test_tarp_by_scalar_loops():
    held = ugly(3)
    f = held.nearer
    order = held.rng("tarp").permutation(len(held))  # the cycle is part of the definition: data set k asks k - 1
    scale = held.truth.std(axis=0, ddof=1)
    for place, i in enumerate(order):
        reference = held.truth[order[place - 1]]
        distance = lambda theta, at=reference: sum(((theta[d] - at[d]) / scale[d]) ** 2 for d in range(3))  # noqa: E731
        nearer = sum(distance(draw) < distance(held.truth[i]) for draw in held.draws[i])
        assert order[place - 1] != i
        assert nearer / 20 <= f[i] <= (nearer + 1) / 20 + 1e-12


@pytest.mark.parity
def test_ranks_and_coverage_curves_of_sbi():
    """sbi's ranks are ours. Its TARP curve is ours on its own grid but for binning over the observed range of f."""
    import torch
    from sbi.diagnostics.sbc import _run_sbc
    from sbi.diagnostics.tarp import _run_tarp

    draws = make_draws(200, 9)
    unit = lambda rows: torch.as_tensor((rows - MEAN) / SD, dtype=torch.float32)  # noqa: E731
    source = Exact(scale=0.7)
    found = vb.diagnostics.sbc(source, draws, num_posterior_samples=100, key=KEY)
    truth = np.stack([draws.theta[name] for name in NAMES], axis=1)
    k_ask = jax.random.split(KEY)[0]
    parts = [
        source._rows(draws.x[i : i + 50], 100, jax.random.fold_in(k_ask, i))  # in equal chunks, of 64 at most
        for i in range(0, 200, 50)
    ]
    rows_ = np.concatenate(parts)[:200]
    theirs = _run_sbc(unit(truth), torch.as_tensor(draws.x), unit(rows_).swapaxes(0, 1), show_progress_bar=False)
    assert np.abs(theirs.numpy() - found.ranks).max() <= 1  # float32 there
    assert np.mean(theirs.numpy() == found.ranks) > 0.999
    reference = np.roll(truth, 1, axis=0)
    ecp, alpha = _run_tarp(unit(rows_).swapaxes(0, 1), unit(truth), unit(reference))
    distance = lambda theta, at: (((theta - at) / SD) ** 2).sum(axis=-1)  # noqa: E731
    f = (distance(rows_, reference[:, None]) < distance(truth, reference)[:, None]).mean(axis=1)
    ours = np.array([np.mean(f <= a) for a in alpha.numpy()])
    assert np.abs(ours - ecp.numpy()).max() < 0.06
    assert np.abs(ours - alpha.numpy()).max() > 0.1  # overconfident: both curves are off the diagonal


def test_central_and_hpd_coverage_are_those_of_the_intervals():
    draws, c = make_draws(400, 10), 1.4
    found = vb.diagnostics.coverage(Exact(scale=c), draws, num_posterior_samples=2000, key=KEY)
    assert len(found.rows) == 4 * 6
    for row in found.rows:
        if row.region == "central":  # P(|z| < c z_level) in closed form
            expected = 2 * st.norm.cdf(c * st.norm.ppf((1 + row.level) / 2)) - 1
        else:  # chi2 with 5 degrees of freedom
            expected = st.chi2(5).cdf(c**2 * st.chi2(5).ppf(row.level))
        assert abs(row.covered - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 400) + 1 / 400
        exact = st.binomtest(round(row.covered * 400), 400).proportion_ci(0.95, method="exact")
        assert (row.low, row.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert found.verdict == "fail"
    assert "too cautious" in found.findings[0]


def test_a_source_without_density_is_ranked_by_ellipses():
    draws = make_draws(300, 11)
    with_density = vb.diagnostics.coverage(Exact(scale=0.8), draws, key=KEY)
    narrowed = Altered(lambda r, x, rng: r.mean(1, keepdims=True) + 0.8 * (r - r.mean(1, keepdims=True)))
    without = vb.diagnostics.coverage(narrowed, draws, key=KEY)
    assert np.corrcoef(with_density.credibility, without.credibility)[0, 1] > 0.97  # a Gaussian's regions are ellipses
    assert without.verdict == with_density.verdict == "fail"


def test_atc_has_the_sign_of_caution():
    draws = make_draws(300, 12)
    narrow, wide = (vb.diagnostics.tarp(Exact(scale=c), draws, key=KEY) for c in (0.6, 1.6))
    assert narrow.atc < -0.02 < 0.02 < wide.atc
    assert narrow.verdict == wide.verdict == "fail"
    right = vb.diagnostics.tarp(Exact(), draws, key=KEY)
    assert right.passed
    assert ((right.band[0] <= right.ecp) & (right.ecp <= right.band[1])).all()
    assert abs(right.atc) < 0.02


@pytest.mark.parametrize("n", [100, 300])
def test_what_a_row_says_it_detects_it_detects_in_ninety_percent(n):
    level, rng = 0.05 / 40, np.random.default_rng(n)
    number = lambda kind: [float(v) for v in re.findall(r"[\d.]+", tables.detects(kind, n, 10, level))]  # noqa: E731
    shift = number("mean")[0]
    found = [rank_tests.location(st.norm.cdf(rng.normal(shift, 1, n)), "g").p < level for _ in range(600)]
    narrow, wide = number("spread")
    for c in (1 - narrow / 100, 1 + wide / 100):
        seen = [rank_tests.width(st.norm.cdf(rng.normal(0, 1 / c, n)), "g").p < level for _ in range(600)]
        assert 0.8 < np.mean(seen) < 0.97  # 600 studies, and a whole percent in the sentence
    assert 0.84 < np.mean(found) < 0.96
    basis = rank_tests.components(rng.normal(size=(n, 8 if n == 100 else 10)))
    share = float(re.findall(r"[\d.]+", tables.detects("regression", n, basis.shape[1], level))[0]) / 100
    signal = basis[:, 0] * np.sqrt(n * share / (1 - share))
    told = [rank_tests.regression(signal + rng.normal(size=n), basis, "g", "x").p < level for _ in range(600)]
    assert 0.82 < np.mean(told) < 0.97


def test_holm_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    found = tables.adjust([tables.RawTest("shape", str(i), 0.1, v, "shape", 99) for i, v in enumerate(p)])
    assert [row.p_adjusted for row in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [row.status for row in found] == ["warn", "pass", "pass", "warn"]
