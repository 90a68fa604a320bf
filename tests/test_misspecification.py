"""Is an observation inside the prior predictive: exact false alarms, and the features that are off are named."""

import jax
import numpy as np
import pytest
from scipy.stats import binom

import vbinfer as vb
from vbinfer.diagnostics.novelty import ReferenceSet, min_p

NAMES = ("fc.mean", "fc.std", "burst", "power", "square", "count", "nodes")
KEY = jax.random.key(0)


def model(rng, n):
    """Seven features: two that go together, a Cauchy, a log-normal, a parabola, a count and a constant."""
    g = rng.normal(2.0, 3.0, size=n)
    return np.stack(
        [g, 5.0 - 0.1 * g + 0.01 * rng.normal(size=n), rng.standard_cauchy(n), np.exp(2.0 * rng.normal(size=n)),
         (g - 2.0) ** 2 + rng.normal(size=n), rng.integers(0, 4, n), np.full(n, 84.0)],
        axis=1,
    )  # fmt: skip


def make_draws(seed=0, n=1000):
    x = model(np.random.default_rng(seed), n)
    return vb.Draws.from_arrays({"g": np.zeros(n)}, x, names=NAMES)


def typical_row():
    return np.array([3.0, 4.7, 0.5, 1.0, 1.0, 2.0, 84.0])


def test_five_per_cent_of_the_models_own_data_fail_whatever_their_distribution():
    rng, alarms, tried = np.random.default_rng(1), np.zeros(4), 0
    for _ in range(25):  # fresh draws each time: within one set of draws the false alarms are not independent
        x, fresh = model(rng, 600), model(rng, 40)
        typical = ReferenceSet.fit(x[:300])
        held = typical.novelty(x[300:])
        for score in typical.novelty(fresh):
            p, each = min_p(np.concatenate([held, score[None]]))
            alarms += np.array([p[-1], *each[-1]]) < 0.05
            tried += 1
    # P(p < 0.05) is at most 0.05, and near it without ties; 25 sets of 40: a quarter of the variance is shared
    low, high = binom.ppf([1e-4, 1 - 1e-4], tried // 4, 0.05) / (tried // 4)
    assert np.all(alarms / tried <= high)
    assert np.all(alarms / tried >= low)


def test_the_public_function_alarms_as_often_as_it_says():
    draws, rng = make_draws(2, 800), np.random.default_rng(3)
    verdicts = [vb.diagnostics.misspecification(x, draws, key=KEY).passed for x in model(rng, 200)]
    assert 3 <= verdicts.count(False) <= 24  # 10 expected; binomial, and the rank of 400 held-out draws


@pytest.mark.parametrize("seed", range(5))
def test_a_feature_five_sd_away_is_named_and_only_that(seed):
    x_o = typical_row()
    x_o[:2], x_o[4] = (17.0, 3.3), 15.0**2  # what the model makes of g = 17, five of its sd above its mean
    found = vb.diagnostics.misspecification(x_o, make_draws(seed), key=KEY)
    assert found.verdict == "fail"
    assert set(found.off) <= {"fc.mean", "fc.std", "square"}
    assert "fc.mean" in found.off
    assert found.percentile[0] == 100.0
    assert any("fc.mean = 17 is off by itself: above 100 %" in sentence for sentence in found.findings)
    assert found.p_features[0] == pytest.approx(2.0 / 1001.0)


def test_an_odd_combination_of_normal_features_is_found_and_its_features_named():
    x_o = typical_row()
    x_o[1] = 5.0  # the model has fc.std = 5 - 0.1 fc.mean: each value is common, not this pair
    found = vb.diagnostics.misspecification(x_o, make_draws(), key=KEY)
    assert not found.passed
    assert found.off == ()
    assert found.p_features.min() > 0.2
    assert found.p_tests["one feature"] > 0.05
    assert set(np.argsort(-np.abs(found.leverage))[:2].tolist()) == {0, 1}
    assert any("Given the other features, most unexpected: fc." in sentence for sentence in found.findings)
    assert vb.diagnostics.misspecification(typical_row(), make_draws(), key=KEY).passed


def test_a_gap_that_no_correlation_shows_is_found():
    rng = np.random.default_rng(5)
    angle = rng.uniform(0.0, 2.0 * np.pi, 1000)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.02 * rng.normal(size=(1000, 2))
    draws = vb.Draws.from_arrays({"g": angle}, ring)
    found = vb.diagnostics.misspecification(np.zeros(2), draws, key=KEY)
    assert found.verdict == "fail"
    assert found.p_tests["neighbourhood"] == pytest.approx(1.0 / 501.0)
    assert found.p_tests["combination"] > 0.5
    assert "gap" in " ".join(found.findings)


def test_heavy_tails_neither_alarm_nor_hide_the_others():
    x_o = typical_row()
    x_o[2] = 25.0  # beyond 97 % of a Cauchy, 25 times its quartile
    assert vb.diagnostics.misspecification(x_o, make_draws(), key=KEY).passed
    x_o[5] = 9.0  # counts are 0 to 3
    found = vb.diagnostics.misspecification(x_o, make_draws(), key=KEY)
    assert found.off == ("count",)


def test_a_constant_that_is_another_is_off_and_one_that_is_the_same_is_not():
    x_o = typical_row()
    x_o[6] = 68.0
    assert vb.diagnostics.misspecification(x_o, make_draws(), key=KEY).off == ("nodes",)
    assert vb.diagnostics.misspecification(x_o, make_draws(), key=KEY, names=NAMES[:6]).passed


def test_failed_draws_and_later_rounds_are_left_out_and_counted():
    clean = make_draws(0, 400)
    x, rounds = np.array(clean.x), np.zeros(400, int)
    x[300:380, 3], rounds[380:] = np.nan, 1
    x[380:] = [1e3, 0, 0, 0, 0, 0, 0]
    draws = vb.Draws(clean.theta, x, NAMES, np.isfinite(x).all(axis=1), rounds)
    found = vb.diagnostics.misspecification(typical_row(), draws, key=KEY)
    assert (found.num_valid, found.num_failed) == (300, 80)
    assert found.verdict == "warn"  # 21 % failed
    assert "80 of 380 simulations (21 %) failed" in found.findings[-1]
    odd = typical_row()
    odd[0] = 1e3  # only the second round is there
    assert vb.diagnostics.misspecification(odd, draws, key=KEY).verdict == "fail"


def test_a_batch_is_judged_one_by_one_and_as_a_set():
    rng, draws = np.random.default_rng(8), make_draws()
    own = [vb.diagnostics.misspecification(model(rng, 8), draws, key=KEY).p_value for _ in range(20)]
    assert np.sum(np.array(own) < 0.05) <= 4  # 1 expected at most
    shifted = model(rng, 30)
    shifted[:, 3] *= 20.0  # one and a half sd of the logarithm: no single one is impossible
    found = vb.diagnostics.misspecification(shifted, draws, key=KEY)
    assert found.p_tests["set"] < 0.01
    assert not found.passed
    assert found.percentile.shape == (30, 7)
    narrow = np.tile(typical_row(), (10, 1)) * (1.0 + 1e-4 * rng.normal(size=(10, 1)))
    narrow[:, 6] = 84.0
    found = vb.diagnostics.misspecification(narrow, draws, key=KEY)
    assert found.verdict == "warn"
    assert "one person measured again" in found.findings[1]


def kernel_mean(mean, cov, s):
    """E exp(-|d|^2 / (2 s^2)) for d ~ N(mean, cov)."""
    total = cov + s**2 * np.eye(len(mean))
    return s ** len(mean) / np.sqrt(np.linalg.det(total)) * np.exp(-0.5 * mean @ np.linalg.solve(total, mean))


def test_mmd_is_unbiased_for_the_closed_form_of_two_gaussians():
    rng, s = np.random.default_rng(0), 1.3
    mean, cov_a, cov_b = np.array([0.7, -0.4]), np.array([[1.0, 0.3], [0.3, 0.5]]), np.diag([2.0, 0.3])
    exact = (
        kernel_mean(np.zeros(2), 2 * cov_a, s) + kernel_mean(np.zeros(2), 2 * cov_b, s)
        - 2 * kernel_mean(mean, cov_a + cov_b, s)
    )  # fmt: skip
    values = [
        vb.diagnostics.mmd(
            rng.multivariate_normal([0, 0], cov_a, 30),
            rng.multivariate_normal(mean, cov_b, 20),
            key=KEY,
            bandwidth=s,
            num_permutations=1,
        ).statistic
        for _ in range(400)
    ]  # fmt: skip
    assert np.mean(values) == pytest.approx(exact, abs=4.0 * np.std(values) / 20.0)
    assert np.std(values) / 20.0 < 0.05 * exact


def test_mmd_is_the_double_sum_and_its_p_the_share_of_relabellings():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 3)), rng.normal(1.0, 2.0, size=(4, 3))
    found = vb.diagnostics.mmd(a, b, key=KEY)
    rows = [*a, *b]
    apart = [np.linalg.norm(rows[i] - rows[j]) for i in range(9) for j in range(i)]
    assert found.bandwidth == pytest.approx(np.median(apart))
    k = lambda u, v: np.exp(-(np.linalg.norm(u - v) ** 2) / (2 * found.bandwidth**2))  # noqa: E731
    within = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    others = sum(k(b[i], b[j]) for i in range(4) for j in range(4) if i != j) / 12
    across = sum(k(u, v) for u in a for v in b) / 20
    assert found.statistic == pytest.approx(within + others - 2 * across, rel=1e-9)
    assert found.p_value == pytest.approx((1 + np.sum(found.null >= found.statistic - 1e-12)) / 501)


def test_mmd_rejects_five_per_cent_of_equal_sets():
    rng = np.random.default_rng(2)
    p = np.array([
        vb.diagnostics.mmd(rng.standard_cauchy((15, 2)), rng.standard_cauchy((10, 2)), key=jax.random.key(i),
               num_permutations=99).p_value
        for i in range(400)
    ])  # fmt: skip
    assert binom.ppf(1e-4, 400, 0.05) <= np.sum(p <= 0.05) <= binom.ppf(1 - 1e-4, 400, 0.05)


def test_a_missing_feature_is_left_out_and_named():
    """The answer is that of the other features."""
    draws, x_o = make_draws(), typical_row()
    kept = [name for name in draws.names if name != "fc.std"]
    found = vb.diagnostics.misspecification(np.where(np.arange(7) == 1, np.nan, x_o), draws, key=KEY)
    other = vb.diagnostics.misspecification(x_o, draws, key=KEY, names=kept)
    assert found.names == other.names == tuple(kept)
    assert found.p_value == other.p_value
    assert "1 of 7 features are missing in the recording and were left out: fc.std." in found.findings


def test_mistakes_are_named():
    draws, x_o = make_draws(), typical_row()
    with pytest.raises(ValueError, match=r"x_o has shape \[6\]; the draws have 7 features: expected \[7\]"):
        vb.diagnostics.misspecification(x_o[:6], draws, key=KEY)
    with pytest.raises(ValueError, match=r"x_o has infinite values in fc\.std; clean the recording"):
        vb.diagnostics.misspecification(np.where(np.arange(7) == 1, np.inf, x_o), draws, key=KEY)
    with pytest.raises(ValueError, match=r"x_o is missing every feature: NaN stands for what is missing"):
        vb.diagnostics.misspecification(np.full(7, np.nan), draws, key=KEY)
    some = np.where(np.eye(7)[:2] == 1, np.nan, x_o)
    with pytest.raises(ValueError, match=r"x_o is missing other features in each row"):
        vb.diagnostics.misspecification(some, draws, key=KEY)
    with pytest.raises(ValueError, match=r"100 of 100 prior draws are valid; the rank of x_o needs 150 or more"):
        vb.diagnostics.misspecification(x_o, make_draws(0, 100), key=KEY)
    with pytest.raises(ValueError, match=r"names has 'fc\.men'; the draws have no such feature\. Did you mean"):
        vb.diagnostics.misspecification(x_o, draws, key=KEY, names=["fc.men"])
    with pytest.raises(TypeError, match=r"draws is a ndarray; expected vb\.Draws"):
        vb.diagnostics.misspecification(x_o, draws.x, key=KEY)
    with pytest.raises(ValueError, match="give the same columns in both"):
        vb.diagnostics.mmd(np.zeros((4, 2)), np.zeros((4, 3)), key=KEY)
    with pytest.raises(ValueError, match="b has 1 draws; at least 2 are needed"):
        vb.diagnostics.mmd(np.zeros((4, 2)), np.zeros((1, 2)), key=KEY)
    with pytest.raises(ValueError, match=r"a holds NaN or infinite numbers"):
        vb.diagnostics.mmd(np.full((4, 2), np.nan), np.zeros((4, 2)), key=KEY)
    with pytest.raises(ValueError, match=r"bandwidth=0\.0 was given; expected a positive number"):
        vb.diagnostics.mmd(np.zeros((4, 2)), np.zeros((4, 2)), key=KEY, bandwidth=0.0)
