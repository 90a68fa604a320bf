"""Predictive checks: exact ranks under one distribution, and statistics of series that differ are named."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

import vbinfer as vb
from vbinfer.diagnostics.predictive import pooled_p, test_quantities

NAMES = ("fc.mean", "fc.std", "burst", "count")


def model(rng, n):
    g = rng.normal(3.0, 2.0, n)
    return np.stack([g, 1.0 - 0.5 * g + 0.05 * rng.normal(size=n), rng.standard_cauchy(n), rng.poisson(2.0, n)], axis=1)


def replicates(seed=0, n=99, ys=None):
    return vb.Predictive(model(np.random.default_rng(seed), n), NAMES, ys, np.ones(n, bool), {})


def test_five_per_cent_of_further_replicates_fail():
    rng = np.random.default_rng(1)
    found = [pooled_p(model(rng, 60)) for _ in range(600)]
    overall = np.sum([p < 0.05 for _, _, p in found])
    assert binom.ppf(1e-4, 600, 0.03) <= overall <= binom.ppf(1 - 1e-4, 600, 0.05)  # ties of two ranks cost a little
    some_feature = np.sum([adjusted.min() < 0.05 for _, adjusted, _ in found])
    assert binom.ppf(1e-4, 600, 0.03) <= some_feature <= binom.ppf(1 - 1e-4, 600, 0.05)


def test_p_is_twice_the_smaller_tail_with_the_observation_counted():
    x = np.arange(1.0, 100.0)[:, None]
    for value, expected in ((50.0, 1.0), (98.5, 2 * 2 / 100), (0.0, 2 * 1 / 100), (10.0, 2 * 11 / 100)):
        assert pooled_p(np.concatenate([[[value]], x]))[0][0] == pytest.approx(expected)


def test_a_feature_far_away_is_named_and_an_odd_pair_is_found():
    far = vb.diagnostics.predictive_check(replicates(), np.array([3.0, -0.5, 0.0, 30.0]))
    assert far.p_value < 0.05
    assert (far.verdict, far.off) == ("warn", ("count",))  # as extreme as ranks among so few can be
    pair = vb.diagnostics.predictive_check(replicates(), np.array([5.0, 0.5, 0.0, 2.0]))
    assert pair.p_value < 0.05
    assert pair.off == ()
    assert "combination" in pair.findings[1]
    good = vb.diagnostics.predictive_check(replicates(), np.array([5.0, -1.5, 0.0, 2.0]))
    assert good.passed
    assert "use the recording twice" in good.findings[-1]


def autoregressive(rng, n, phi, shared, length=200, nodes=5):
    noise = rng.normal(size=(n, length + 50, nodes)) + shared * rng.normal(size=(n, length + 50, 1))
    y = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        y[:, t] = phi * y[:, t - 1] + noise[:, t]
    return 10.0 + y[:, 50:]


def test_series_that_differ_are_named_by_what_differs():
    rng = np.random.default_rng(0)
    ys = autoregressive(rng, 99, 0.5, 0.5)
    x_o, check = np.array([3.0, -0.5, 0.0, 2.0]), replicates(ys=ys)
    same = [
        vb.diagnostics.predictive_check(check, x_o, observed=autoregressive(rng, 1, 0.5, 0.5)[0]).verdict
        for _ in range(60)
    ]
    assert same.count("warn") <= binom.ppf(0.9999, 60, 0.05)
    slower = vb.diagnostics.predictive_check(check, x_o, observed=autoregressive(rng, 1, 0.9, 0.5)[0])
    assert slower.p_series["lag-1 autocorrelation"] == pytest.approx(0.01)
    assert slower.p_series["spectrum"] < 0.05
    assert slower.verdict == "warn"
    tighter = vb.diagnostics.predictive_check(check, x_o, observed=autoregressive(rng, 1, 0.5, 2.0)[0][:150])
    assert tighter.p_series["fc.mean"] < 0.05
    assert tighter.p_series["lag-1 autocorrelation"] > 0.05


def test_the_statistics_are_those_of_numpy():
    ys = autoregressive(np.random.default_rng(2), 4, 0.7, 1.0)
    names, values = test_quantities(ys)
    table = dict(zip(names, values.T, strict=True))
    upper = np.triu_indices(5, 1)
    fc = [np.corrcoef(y.T)[upper] for y in ys]
    np.testing.assert_allclose(table["fc.mean"], np.mean(fc, axis=1))
    np.testing.assert_allclose(table["fc.sd"], np.std(fc, axis=1))
    np.testing.assert_allclose(table["fc.match"][1], np.corrcoef(fc[1], (fc[0] + fc[2] + fc[3]) / 3)[0, 1])
    np.testing.assert_allclose(table["log sd"], np.log(ys.std(axis=1)).mean(axis=1))
    lag = [np.mean([np.corrcoef(y[1:, i], y[:-1, i])[0, 1] for i in range(5)]) for y in ys]
    np.testing.assert_allclose(table["lag-1 autocorrelation"], lag, atol=0.02)


def test_failed_replicates_are_left_out_and_counted():
    whole = replicates(n=140)
    x = whole.x.copy()
    x[:40] = np.nan
    found = vb.diagnostics.predictive_check(
        dataclasses.replace(whole, x=x, valid=np.arange(140) >= 40), np.array([3.0, -0.5, 0.0, 2.0])
    )
    assert (found.num_valid, found.num_failed, found.verdict) == (100, 40, "warn")
    assert "40 of 140 simulations failed" in " ".join(found.findings)


def test_a_missing_feature_is_left_out_and_named():
    check, x_o = replicates(), np.array([0.1, 0.2, np.nan, 9.0])
    found = vb.diagnostics.predictive_check(check, x_o)
    fewer = dataclasses.replace(check, x=check.x[:, [0, 1, 3]], names=tuple(np.delete(check.names, 2).tolist()))
    assert found.p_value == vb.diagnostics.predictive_check(fewer, x_o[[0, 1, 3]]).p_value
    assert found.off == fewer.names[2:]
    assert "1 of 4 features are missing in the recording and were left out: burst." in found.findings


def test_mistakes_are_named():
    x_o, check = np.zeros(4), replicates()
    with pytest.raises(ValueError, match=r"x_o has shape \[3\]; expected \[4\] finite numbers"):
        vb.diagnostics.predictive_check(check, np.zeros(3))
    with pytest.raises(ValueError, match=r"x_o has NaN or infinite values in burst"):
        vb.diagnostics.predictive_check(check, np.array([0.0, 0.0, np.inf, 0.0]))
    with pytest.raises(ValueError, match=r"x_o is missing every feature"):
        vb.diagnostics.predictive_check(check, np.full(4, np.nan))
    with pytest.raises(ValueError, match=r"20 of 20 replicates are valid; .* needs 39 or more"):
        vb.diagnostics.predictive_check(replicates(n=20), x_o)
    with pytest.raises(ValueError, match=r"these replicates hold no series of one monitor; write"):
        vb.diagnostics.predictive_check(check, x_o, observed=np.zeros((10, 2)))
    with_series = replicates(ys=np.random.default_rng(0).normal(size=(99, 10, 3)))
    with pytest.raises(ValueError, match=r"observed has shape \[10, 2\]; the replicates are \[time, 3\]"):
        vb.diagnostics.predictive_check(with_series, x_o, observed=np.zeros((10, 2)))
    with pytest.raises(ValueError, match=r"observed holds NaN"):
        vb.diagnostics.predictive_check(with_series, x_o, observed=np.full((10, 3), np.nan))
