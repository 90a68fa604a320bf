"""Agreement of methods: what is the same passes, what differs enough to matter does not; modes are found and said."""

import itertools
import json
import re

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom, norm

import vbinfer as vb
from vbinfer.diagnostics.agreement import _checked
from vbinfer.diagnostics.modes import find_modes
from vbinfer.posterior import Posterior

PRIOR = vb.Prior({"coupling.G": dist.LogNormal(0.5, 1.0), "model.eta": dist.Normal(-4.6, 0.6)})
MEAN = np.array([0.4, -0.8])
FACTOR = np.linalg.cholesky(np.array([[0.16, 0.05], [0.05, 0.09]]))


def made(seed, n=500, scale=1.0, shift=(0.0, 0.0), twist=1.0, chains=1, **more):
    """A posterior that is normal in z: sd times `scale`, moved by `shift` sds, correlation times `twist`."""
    rng = np.random.default_rng([17, seed])
    factor = np.linalg.cholesky((FACTOR @ FACTOR.T) * np.array([[1.0, twist], [twist, 1.0]]))
    z = MEAN + np.sqrt([0.16, 0.09]) * shift + scale * rng.normal(size=(n * chains, 2)) @ factor.T
    theta = PRIOR.constrain(PRIOR.unravel_z(z))[0]
    return Posterior({name: np.asarray(v).reshape(chains, n) for name, v in theta.items()}, prior=PRIOR, **more)


def compared(first, second, seed=0):
    return vb.diagnostics.compare_posteriors({"NPE": first, "NUTS": second}, key=jax.random.key(seed))


@pytest.mark.slow
def test_the_same_posterior_passes():
    found = [compared(made(2 * s, 1_000), made(2 * s + 1, 1_000), s) for s in range(8)]
    assert all(one.passed for one in found)  # a light needs a difference that matters as well as p < 0.05
    p = np.array([one.pairs[0].p for one in found])
    assert np.sum(p < 0.1) <= binom.ppf(0.999, 8, 0.1)
    assert np.sum(p < 0.5) >= 1  # binom.ppf(0.004, 8, 0.5)
    assert np.mean([one.pairs[0].c2st for one in found]) == pytest.approx(0.5, abs=0.02)  # 4 sqrt(1 / 8,000) / sqrt(8)
    assert re.match(
        r"NPE and NUTS agree: C2ST 0\.\d\d \(p = .*\); largest mean difference 0\.\d\d sd", found[0].findings[0]
    )


DIFFERENT = {  # what is changed, the light, words
    "half an sd": ({"shift": (0.0, 0.8)}, "fail", r"NUTS has the mean of model\.eta higher by 0\.[789]\d sd"),
    "narrow": ({"scale": 0.55}, "fail", r"NPE the sd of (coupling\.G|model\.eta) 1\.[6-9]\d? times as large"),
    "a little": ({"shift": (0.35, 0.0)}, "warn", r"NPE and NUTS differ"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_that_matters_is_told_with_its_size(name):
    change, light, words = DIFFERENT[name]
    found = [compared(made(100 + s, 1_000), made(200 + s, 1_000, **change), s) for s in range(3)]
    assert sorted(one.verdict for one in found)[1] == light  # the median of three
    assert any(re.search(words, one.findings[0]) for one in found if one.verdict == light)


def test_numbers_are_those_of_the_normals_in_z():
    found = compared(made(0, 4_000), made(1, 4_000, scale=1.5, shift=(0.6, -0.3)))
    sd = np.sqrt(0.5 * (1.0 + 1.5**2))  # in sds of the first
    pair = found.pairs[0]
    error = np.sqrt((1.0 + 1.5**2) / 4_000) / sd
    np.testing.assert_allclose(pair.mean_difference, np.array([-0.6, 0.3]) / sd, atol=4 * error)
    np.testing.assert_allclose(pair.sd_ratio, [1 / 1.5, 1 / 1.5], atol=4 / 1.5 * np.sqrt(1.0 / 4_000))
    assert found.num_draws == 1_000
    apart = compared(made(0, 1_000), made(1, 1_000, shift=(1.0, 0.0))).pairs[0]
    direction = np.linalg.solve(FACTOR, [0.4, 0.0])  # the best classifier of two normals of one covariance
    assert apart.c2st == pytest.approx(norm.cdf(0.5 * np.linalg.norm(direction)), abs=0.035)


def test_a_difference_in_dependence_alone_is_seen_by_the_classifier():
    """Equal means and sds; correlations of 0.42 and -0.9."""
    pair = compared(made(3, 1_000), made(4, 1_000, twist=-0.9 * 0.12 / 0.05)).pairs[0]
    assert np.abs(pair.mean_difference).max() < 0.2
    assert np.abs(np.log(pair.sd_ratio)).max() < 0.15
    assert pair.p < 0.01
    assert pair.status == "fail"


def test_chains_count_as_what_they_are_worth():
    """Thirty-fold repeated draws of one posterior agree with it: their p would be 0 if each counted."""
    few = made(5, 150, chains=4)
    repeated = Posterior({name: np.repeat(v, 30, axis=1) for name, v in few.theta.items()}, prior=PRIOR)
    found = compared(made(6, 1_000), repeated)
    assert found.num_draws < 1_000
    assert found.verdict != "fail"


def test_all_pairs_are_compared_and_the_worst_comes_first():
    given = {"NPE": made(0), "NUTS": made(1), "SMC": made(2, shift=(0.0, 2.0))}
    found = vb.diagnostics.compare_posteriors(given, key=jax.random.key(0))
    assert {frozenset((row.first, row.second)) for row in found.pairs} == {
        frozenset(two) for two in itertools.combinations(given, 2)
    }
    assert found.verdict == "fail"
    assert "SMC" in found.findings[0]
    assert "SMC" in found.findings[1]
    assert found.findings[2].startswith("NPE and NUTS agree")
    assert json.loads(json.dumps(found.numbers))["pairs"][2]["status"] == "pass"


def test_the_prior_agrees_with_itself_and_nothing_was_learned():
    draws = [
        Posterior({k: np.asarray(v)[None] for k, v in PRIOR.sample(key=jax.random.key(i), n=800).items()}, prior=PRIOR)
        for i in range(2)
    ]
    found = compared(*draws)
    assert found.verdict == "warn"
    assert "nothing learned: the posterior of NPE, NUTS is the prior" in found.findings


def test_few_draws_and_other_data_are_said():
    found = compared(made(0, 120, x_o=np.zeros(3)), made(1, 120, x_o=np.zeros((40, 2))))
    assert found.verdict == "warn"
    assert "120 independent draws of each are few" in " ".join(found.findings)
    assert "do not condition on the same numbers" in " ".join(found.findings)


BAD = {
    "one": (lambda: {"NPE": made(0)}, ValueError, r"1 posterior was given; give two or more"),
    "array": (lambda: {"NPE": made(0), "x": np.zeros(3)}, TypeError, r"'x' is a ndarray; expected a vb\.Posterior"),
    "other": (
        lambda: {"NPE": made(0), "b": Posterior({"a": np.zeros((1, 99))})},
        ValueError,
        r"NPE is over .* and b over .*; compare the same",
    ),
    "few": (lambda: {"NPE": made(0), "b": made(1, 40)}, ValueError, r"draws of b are worth 40 independent ones"),
    "x_o": (
        lambda: {"NPE": made(0, x_o=np.zeros(3)), "b": made(1, x_o=np.ones(3))},
        ValueError,
        r"NPE and b have different x_o",
    ),
    "constant": (
        lambda: {"a": Posterior({"g": np.ones((1, 99))}), "b": Posterior({"g": np.linspace(0, 1, 99)[None]})},
        ValueError,
        r"g is constant in a; leave it out",
    ),
    "nan": (
        lambda: {"a": Posterior({"g": np.full((1, 99), np.nan)}), "b": Posterior({"g": np.ones((1, 99))})},
        ValueError,
        r"draws of a hold NaN",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_name_their_remedy(name):
    make, error, words = BAD[name]
    with pytest.raises(error, match=words):
        vb.diagnostics.compare_posteriors(make(), key=jax.random.key(0))


def test_another_prior_is_named():
    other = vb.Prior({"g": dist.Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match=r"prior is over \{'g': \(\)\}"):
        vb.diagnostics.compare_posteriors({"a": made(0), "b": made(1)}, prior=other, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r'write vb\.diagnostics\.compare_posteriors\(\{"NPE": posterior'):
        _checked([made(0), made(1)])


# ---- modes

UNIMODAL = {
    "correlated normals": lambda rng: rng.normal(size=(600, 3)) @ np.array([[1, 0.9, 0], [0, 0.4, 0.3], [0, 0, 1.0]]),
    "heavy tails": lambda rng: rng.standard_t(3, size=(600, 3)),
    "skewed": lambda rng: rng.gamma(1.0, size=(600, 3)),
    "uniform": lambda rng: rng.random((600, 3)),
    "bent": lambda rng: (x := rng.normal(size=(600, 2))) * [[1.0, 0.3]] + np.column_stack([0 * x[:, 0], x[:, 0] ** 2]),
}


@pytest.mark.parametrize("name", UNIMODAL)
def test_one_mode_is_one_mode(name):
    rng = np.random.default_rng(3)
    assert sum(find_modes(Posterior({"a": UNIMODAL[name](rng)[None]})) is not None for _ in range(20)) <= 1


def test_two_modes_of_one_parameter_are_found_with_their_shares():
    rng = np.random.default_rng(4)
    for share in (0.15, 0.3, 0.5):
        left = rng.random(800) < share
        a = np.where(left, -4.0, 1.0) + rng.normal(size=800)
        found = find_modes(Posterior({"b": 3.0 + rng.normal(size=(1, 800)), "a": 10.0 + 0.1 * a[None]}))
        assert found is not None
        assert found.where == "a"
        assert min(found.shares) == pytest.approx(min(left.mean(), 1 - left.mean()), abs=0.03)
        assert sorted(found.centres[:, 1]) == pytest.approx([9.6, 10.1], abs=0.03)
        assert found.centres[:, 0] == pytest.approx([3.0, 3.0], abs=0.3)


def test_modes_that_no_single_parameter_shows_are_found():
    """Two parallel ridges half an sd apart in each parameter, five widths apart across."""
    rng = np.random.default_rng(5)
    along, side = rng.normal(size=800), np.where(rng.random(800) < 0.4, -1.0, 1.0)
    across = 0.5 * side + 0.1 * rng.normal(size=800)
    found = find_modes(Posterior({"a": (along + across)[None], "b": (along - across)[None]}))
    assert found is not None
    assert found.where == "a combination of the parameters"
    assert found.shares[1] == pytest.approx(np.mean(side < 0), abs=0.03)


def test_the_edges_of_a_prior_are_no_modes_in_z():
    """A U-shaped posterior of a uniform parameter whose z is normal."""
    prior = vb.Prior({"g": dist.Beta(0.2, 0.2)})
    draws = np.asarray(prior.sample(key=jax.random.key(0), n=900)["g"])[None]
    assert find_modes(Posterior({"g": draws})) is not None
    assert find_modes(Posterior({"g": draws}), prior) is None


def test_too_few_or_constant_draws_have_no_modes():
    rng = np.random.default_rng(0)
    assert find_modes(Posterior({"a": rng.choice([-5.0, 5.0], (1, 60))})) is None
    assert find_modes(Posterior({"a": np.ones((1, 500)), "b": rng.normal(size=(1, 500))})) is None
