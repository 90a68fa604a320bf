"""Results that explain themselves: a question, a rule made of the numbers that decide, JSON-able numbers, a figure."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.diagnostics import figure, thresholds
from vbinfer.diagnostics.recovery import eye, recover, region_of, share_limits
from vbinfer.diagnostics.result import AbstractResult

KEY = jax.random.key(5)
RNG = np.random.default_rng(5)
PRIOR = vb.Prior({"a": dist.Normal(0.0, 1.0), "b": dist.Normal(0.0, 1.0)})
G = RNG.normal(size=(400, 2))
X = G @ np.array([[1.0, 0.5, 0.2], [0.0, 1.0, -0.4]]) + 0.5 * RNG.normal(size=(400, 3))
DRAWS = vb.Draws.from_arrays({"a": G[:, 0], "b": G[:, 1]}, X, names=("f", "g", "h"))


def posterior(seed=0, chains=4, draws=200, scale=0.5):
    rng = np.random.default_rng(seed)
    theta = {name: scale * rng.normal(size=(chains, draws)) for name in ("a", "b")}
    return vb.Posterior(theta, prior=PRIOR, x_o=np.zeros(3))


def source(x_o, n, key):
    """Some posterior: what is wrong with it is no matter here."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return vb.Posterior({"a": rng.normal(x_o[0], 0.5, (1, n)), "b": rng.normal(x_o[1] - x_o[0] / 2, 0.5, (1, n))})


def held_out():
    return vb.Draws.from_arrays({"a": G[:60, 0], "b": G[:60, 1]}, X[:60], names=("f", "g", "h"))


def some_loo():
    y = np.linspace(-1.0, 2.0, 12)
    theta = {"mu": (0.5 + 0.3 * RNG.normal(size=(4, 200)))}
    return vb.diagnostics.loo(vb.Posterior(theta, x_o=y), lambda t, y: dist.Normal(t["mu"], 1.0).log_prob(y))


def simulate(theta, key):
    mean = jnp.stack([theta["a"], theta["a"] / 2 + theta["b"], theta["a"] / 5])
    return mean + 0.5 * jax.random.normal(key, (3,))


RESULTS = {
    "convergence": lambda: vb.diagnostics.convergence(posterior()),
    "misspecification": lambda: vb.diagnostics.misspecification(np.array([0.1, 0.2, 4.0]), DRAWS, key=KEY),
    "several observations": lambda: vb.diagnostics.misspecification(X[:3], DRAWS, key=KEY),
    "predictive_check": lambda: vb.diagnostics.predictive_check(
        vb.Predictive(X, ("f", "g", "h"), None, np.ones(len(X), bool), {}), np.zeros(3)
    ),
    "lc2st": lambda: vb.diagnostics.lc2st(source, DRAWS, np.zeros(3), key=KEY, num_posterior_samples=50, num_null=20),
    "sensitivity": lambda: vb.diagnostics.sensitivity(posterior(), simulate, key=KEY, num_repeats=64),
    "compare_posteriors": lambda: vb.diagnostics.compare_posteriors(
        {"NPE": posterior(1), "NUTS": posterior(2)}, key=KEY
    ),
    "compare_models": lambda: vb.diagnostics.compare_models({"one": some_loo(), "two": some_loo()}),
    "evidence": lambda: vb.diagnostics.compare_models(
        {name: vb.Posterior({"a": np.zeros((1, 2))}, log_evidence=value) for name, value in (("x", -4.0), ("y", -1.0))},
        by="evidence",
    ),
    "loo": some_loo,
    "sbc": lambda: vb.diagnostics.sbc(source, held_out(), key=KEY, num_posterior_samples=40),
    "coverage": lambda: vb.diagnostics.coverage(source, held_out(), key=KEY, num_posterior_samples=40),
    "tarp": lambda: vb.diagnostics.tarp(source, held_out(), key=KEY, num_posterior_samples=40),
    "calibrate": lambda: vb.calibrate(source, held_out(), key=KEY, num_posterior_samples=40),
    "recover": lambda: recover(("a", "b"), G[:60], np.stack([source(x, 40, KEY).ravel() for x in X[:60]])),
}


@pytest.fixture(scope="module", params=RESULTS)
def result(request):
    return RESULTS[request.param]()


def test_a_result_explains_itself(result):
    assert isinstance(result, AbstractResult)
    assert result.question.endswith("?")
    assert "Warn" in result.rule
    assert result.verdict in ("pass", "warn", "fail")
    assert result.passed is (result.verdict == "pass")
    assert result.findings
    assert all(isinstance(sentence, str) and sentence for sentence in result.findings)
    assert json.loads(json.dumps(result.numbers, allow_nan=False))


def test_a_figure_is_plain_data_that_can_be_drawn(result):
    drawn = result.figure()
    assert "n = " in drawn.caption or any(digit in drawn.caption for digit in "0123456789")
    assert 0 < len(drawn.panels) <= 3 * figure.MOST_PANELS
    for panel in drawn.panels:
        assert panel.alt
        assert panel.marks
        for mark in panel.marks:
            check_mark(mark)
        for axis in (panel.x, panel.y):
            assert axis.limits is None or axis.limits[0] != axis.limits[1]


def check_mark(mark):
    """Arrays of one length, finite; the mark refers to nothing but its numbers."""
    arrays = {f.name: getattr(mark, f.name) for f in dataclasses.fields(mark)}
    arrays = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    assert all(np.isfinite(value).all() for value in arrays.values())
    if isinstance(mark, figure.Bars):
        assert mark.edges is None or len(mark.edges) == len(mark.heights) + 1
    else:
        assert len({value.shape for value in arrays.values()}) <= 1


def test_rules_are_made_of_the_numbers_that_decide():
    rule = vb.diagnostics.Convergence.rule
    for value in (thresholds.RHAT_WARN, thresholds.RHAT_FAIL, thresholds.ESS_WARN, thresholds.EBFMI_FAIL):
        assert f"{value}" in rule
    assert f"{thresholds.C2ST_FAIL:g}" in vb.diagnostics.Agreement.rule
    assert f"{thresholds.FAMILY_FAIL:g}" in vb.diagnostics.Calibration.rule


def test_recovery_counts_are_those_of_loops():
    truth, draws = G[:60], np.stack([source(x, 40, KEY).ravel() for x in X[:60]]).astype(float)
    for d, row in enumerate(recover(("a", "b"), truth, draws, np.ones(2)).rows):
        within = covered = 0
        for t, one in zip(truth[:, d], draws[:, :, d], strict=True):
            within += abs(one.mean() - t) < 2.0 * one.std(ddof=1)
            covered += np.quantile(one, 0.05) <= t <= np.quantile(one, 0.95)
        assert (row.within, row.covered, row.n) == (within, covered, 60)
        assert (row.covered_low, row.covered_high) == share_limits(covered, 60)
        shares = [1.0 - one.var(ddof=1) for one in draws[:, :, d]]
        assert row.shrinkage == pytest.approx(np.median(shares))
        assert row.mean_shrinkage == pytest.approx(np.mean(shares))
    narrow = recover(("a", "b"), truth, truth[:, None] + 1.0 + 0.1 * RNG.normal(size=(60, 40, 2)), np.ones(2))
    assert narrow.verdict == "fail"


def test_the_eye_names_four_regions():
    assert region_of(np.array([0.9, 0.9, 0.1, 0.1]), np.array([0.5, -3.0, 0.5, 3.0])).tolist() == [0, 1, 2, 3]
    panel = eye(("a",), np.array([[0.9]]), np.array([[9.0]]), "one point").panels[0]
    points = next(mark for mark in panel.marks if isinstance(mark, figure.Points))
    assert points.y[0] < panel.y.limits[1]  # far ones are drawn at the edge, and seen
