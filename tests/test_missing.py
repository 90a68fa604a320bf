"""Posteriors of observations that lack features, against the closed form given what is there."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.draws.draws import Draws
from vbinfer.neural import NPE, AmortizedPosterior, Training, embeddings
from vbinfer.neural.densities import Regional
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.missing import HidingLoss, MaskedContext, check_missing, member_table
from vbinfer.neural.scaler import FeatureScaler
from vbinfer.priors import Prior
from vbinfer.reporting import page, report
from vbinfer.reporting.sections import Image

KEY = jax.random.key(1)
X_O = lg.OFFSET + np.array([0.3, 3.4, -1.6, 1.2, 0.7, 0.0])
QUICK = Training(max_epochs=25, batch_size=100, learning_rate=4e-3, patience=25)
SMALL = NPE(MDN(components=1, width=32, depth=2), ensemble=1, training=QUICK, missing=0.3)
PAIRS = [*itertools.combinations(range(4), 1), *itertools.combinations(range(4), 2)]
"""Patterns of the four features that tell of theta."""


def without(missing, x=X_O):
    return np.where(np.isin(np.arange(x.shape[-1]), missing), np.nan, x)


def exact(missing, x=X_O):
    """Mean and covariance given the features that are there."""
    told = np.array([j for j in range(6) if lg.NOISE[j] > 0 and j not in missing])
    gains = lg.GAINS[:, told] / lg.NOISE[told] ** 2
    cov = np.linalg.inv(np.linalg.inv(lg.PRIOR_COV) + gains @ lg.GAINS[:, told].T)
    return cov @ (np.linalg.solve(lg.PRIOR_COV, lg.MEAN) + gains @ (np.asarray(x) - lg.OFFSET)[told]), cov


@pytest.fixture(scope="module")
def fitted():
    draws = lg.make_draws(lg.make_prior(), 4000)
    x = draws.x.copy()
    x[7, 2] = np.nan
    return SMALL.fit(Draws.from_arrays(draws.theta, x, names=lg.NAMES), lg.make_prior(), key=KEY)


@pytest.fixture(scope="module")
def amortized(fitted):
    return fitted[0]


def test_every_pattern_has_the_posterior_given_what_is_there(amortized):
    x = lg.simulate(amortized.prior, jax.random.key(5), 50)[1]
    for pattern in [(), *PAIRS]:
        theta = amortized.sample_batch(without(pattern, x), n=500, key=jax.random.key(2))
        flat, cov = np.asarray(amortized.prior.ravel(theta)), exact(pattern)[1]
        means, sd = np.stack([exact(pattern, row)[0] for row in x]), np.sqrt(np.diag(cov))
        # the network's error, root mean square over observations, in sds of the posterior
        error = np.sqrt(np.mean((flat.mean(1) - means) ** 2, axis=0)) / sd
        assert error.max() < 0.4, (pattern, error)
        np.testing.assert_allclose(flat.std(1).mean(0) / sd, 1.0, atol=0.15, err_msg=str(pattern))
        if pattern:  # taking what is missing for the mean, 0, would err by more
            filled = np.stack([lg.posterior_mean(row) for row in np.where(np.isnan(without(pattern, x)), x.mean(0), x)])
            assert np.sqrt(np.mean((filled - means) ** 2, axis=0) / np.diag(cov)).max() > 0.45


def test_log_prob_is_that_of_the_draws_and_of_the_prior_where_nothing_is_there(amortized):
    posterior = amortized.sample(without([1, 3]), n=500, key=KEY)
    assert posterior.info["missing"] == ["fc.sd", "psd.peak"]
    theta = {name: value[0] for name, value in posterior.theta.items()}
    np.testing.assert_allclose(amortized.log_prob(theta, without([1, 3])), posterior.log_prob[0], atol=1e-4)
    nothing = np.full(6, np.nan)
    with pytest.warns(UserWarning, match=r"every feature of the observation is missing: this is the prior\. Look at"):
        prior = amortized.sample(nothing, n=20_000, key=KEY)
    np.testing.assert_allclose(prior.ravel().mean(0), lg.MEAN, atol=4.5 * 2.0 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(prior.ravel().T), lg.PRIOR_COV, atol=0.2)
    np.testing.assert_allclose(amortized.log_prob(theta, nothing), amortized.prior.log_prob(theta), rtol=1e-5)
    batch = amortized.sample_batch(np.stack([X_O, nothing]), n=4000, key=KEY)["coupling.G"]
    assert np.asarray(batch)[1].std() == pytest.approx(2.0, rel=0.1)
    assert np.asarray(batch)[0].std() < 1.0


def test_a_saved_estimator_takes_the_same_gaps(amortized, tmp_path):
    amortized.save(tmp_path / "npe.npz")
    loaded = vb.load(tmp_path / "npe.npz")
    assert loaded.estimator.missing == 0.3
    one, two = (each.sample(without([0]), n=50, key=KEY).ravel() for each in (loaded, amortized))
    np.testing.assert_array_equal(one, two)


def test_infinite_is_an_error_and_so_is_nan_without_the_option(amortized):
    with pytest.raises(ValueError, match=r"has infinite values in 'fcd\.var'; .* or write NaN for what is missing"):
        amortized.sample(np.where(np.arange(6) == 2, np.inf, without([0])), n=5, key=KEY)
    complete = AmortizedPosterior(
        amortized.prior, NPE(), None, FeatureScaler(lg.NAMES, amortized.scaler.standardise), {}
    )
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'fc\.mean'; .* or train vb\.NPE\(missing=0\.3\)"):
        complete.sample(without([0]), n=5, key=KEY)


def test_draws_with_nan_stay_failed_draws(fitted):
    assert fitted[1].num_failed == 1


GROUPS = {"fc": ("fc.mean", "fc.sd"), "spectrum": ("psd.peak", "fc.sd")}


def test_groups_are_hidden_together_and_other_patterns_are_said(amortized):
    seen = []

    def loss(network, batch, key):
        seen.append(np.isnan(np.asarray(batch[1])))
        return jnp.zeros(())

    table = member_table(check_missing(GROUPS), lg.NAMES)
    groups = tuple(map(tuple, table.tolist()))
    HidingLoss(loss, 0.5, groups)(None, (jnp.zeros((4000, 3)), jnp.zeros((4000, 6))), KEY)
    patterns, counts = np.unique(seen[0], axis=0, return_counts=True)
    # none, either or both of two groups, a third each where the chance is uniform: 1/3, 1/6, 1/6, 1/3
    assert {
        tuple(np.flatnonzero(row)): round(count / 4000, 1) for row, count in zip(patterns, counts, strict=True)
    } == {
        (): 0.3,
        (0, 1): 0.2,
        (1, 3): 0.2,
        (0, 1, 3): 0.3,
    }
    HidingLoss(loss, 0.3, None)(None, (jnp.zeros((4000, 3)), jnp.zeros((4000, 6))), KEY)
    np.testing.assert_allclose(seen[1].mean(0), 0.3, atol=4.5 * 0.4 / np.sqrt(4000))
    assert 0.2 < np.mean(~seen[1].any(axis=1)) < 0.5  # complete draws stay in
    assert seen[1].all(axis=1).any()
    grouped = dataclasses.replace(SMALL, missing=GROUPS)
    amortized = AmortizedPosterior(amortized.prior, grouped, amortized._network, amortized.scaler, {})
    for trained in ([0, 1], [1, 3], [0, 1, 3]):
        amortized.sample(without(trained), n=5, key=KEY)
    with pytest.warns(
        UserWarning, match=r"'fc\.mean' are missing without the rest of a group; .* missing 'fc', 'spect"
    ):
        amortized.sample(without([0, 1, 3][:1]), n=5, key=KEY)
    with pytest.warns(UserWarning, match=r"'noise' are missing without"):
        amortized.sample(without([1, 3, 4]), n=5, key=KEY)


def test_what_is_beside_an_embedding_is_the_mask():
    c = jnp.array([1.0, jnp.nan, -2.0])
    context = MaskedContext(lambda h: 10.0 * h[:2], None, 2)
    np.testing.assert_array_equal(context(c), [10.0, 0.0, 1.0, 0.0, 1.0])
    # one number of the whole brain, then a map of two regions: maps stay maps
    np.testing.assert_array_equal(MaskedContext(None, None, 1)(c), [1.0, 1.0, 0.0, -2.0, 0.0, 1.0])


MISTAKES = {
    "a share of all": (1.0, "missing=1.0 was given; expected a share of the features in [0, 1)"),
    "a negative share": (-0.1, "missing=-0.1 was given"),
    "a word": ("some", "missing='some' was given"),
    "no group": ({}, "missing={} was given; expected names of features by group"),
    "an empty group": ({"fc": ()}, "missing has no feature in 'fc'"),
    "no such feature": (
        {"fc": ("fc.maen",)},
        "missing names 'fc.maen' in 'fc'; the draws have no such feature. Did you",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    given, message = MISTAKES[name]
    prior = lg.make_prior()
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(SMALL, missing=given).fit(lg.make_draws(prior, 60), prior, key=KEY)


def test_regions_with_too_many_numbers_of_the_whole_brain_are_refused():
    prior = Prior({"eta": dist.Normal(0.0, 1.0).expand([4])})
    x = np.random.default_rng(0).normal(size=(60, 6))
    draws = Draws.from_arrays({"eta": np.asarray(prior.sample(key=KEY, n=60)["eta"])}, x)
    with pytest.raises(
        ValueError, match="takes fewer than 2 features of the whole brain beside those by region; the d"
    ):
        NPE(Regional(4), missing=0.3).fit(draws, prior, key=KEY)


@pytest.mark.slow
def test_a_dead_region_of_a_map_leaves_the_others_alone():
    """theta_i ~ N(0, 1), x_i = theta_i + noise in four regions: a region that is not seen keeps its prior."""
    prior = Prior({"eta": dist.Normal(0.0, 1.0).expand([4])})
    eta = np.asarray(prior.sample(key=KEY, n=2000)["eta"])
    x = np.column_stack([eta.mean(1), eta + 0.5 * np.asarray(jax.random.normal(jax.random.key(3), eta.shape))])
    draws = Draws.from_arrays({"eta": eta}, x, names=("mean", *(f"s.{i}" for i in range(4))))
    groups = {f"region {i}": (f"s.{i}",) for i in range(4)} | {"mean": ("mean",)}
    amortized = NPE(Regional(4), missing=groups).fit(draws, prior, key=KEY)[0]
    x_o = np.array([np.nan, 1.0, np.nan, -1.5, 0.4])
    flat = amortized.sample(x_o, n=8000, key=KEY).theta["eta"][0]
    known = np.array([0.8 * 1.0, 0.0, 0.8 * -1.5, 0.8 * 0.4]), np.array([0.447, 1.0, 0.447, 0.447])
    np.testing.assert_allclose(flat.mean(0), known[0], atol=0.15)
    np.testing.assert_allclose(flat.std(0), known[1], rtol=0.15)


@pytest.mark.slow
def test_an_embedding_reads_a_series_with_a_cut():
    """Trials of one mean; those that were cut are told from those that were 0."""
    prior = Prior({"mu": dist.Normal(0.0, 2.0)})
    mu = np.asarray(prior.sample(key=KEY, n=3000)["mu"])
    x = mu[:, None] + np.asarray(jax.random.normal(jax.random.key(3), (3000, 6)))
    estimator = NPE(MDN(components=1), embedding=embeddings.MLP(out=6), missing=0.3)
    amortized = estimator.fit(Draws.from_arrays({"mu": mu}, x), prior, key=KEY)[0]
    for cut in (0, 2, 4):
        x_o = np.where(np.arange(6) >= 6 - cut, np.nan, 1.5)
        mu_o = amortized.sample(x_o, n=8000, key=KEY).theta["mu"]
        precision = 0.25 + 6 - cut
        assert mu_o.mean() == pytest.approx((6 - cut) * 1.5 / precision, abs=0.35 / np.sqrt(precision))
        assert mu_o.std() == pytest.approx(1.0 / np.sqrt(precision), rel=0.15)


@pytest.mark.slow
def test_every_single_and_double_pattern_is_not_told_from_the_closed_form():
    prior = lg.make_prior()
    draws = lg.make_draws(prior, 10_000)
    amortized, info = NPE(missing=0.3).fit(draws, prior, key=KEY)
    assert len(info.val) <= 2 * NPE().training.epochs(info.num_train)
    rng = np.random.default_rng(0)
    found = {}
    for pattern in [*itertools.combinations(range(5), 1), *itertools.combinations(range(5), 2)]:
        mean, cov = exact(pattern)
        ours = amortized.sample(without(pattern), n=2000, key=KEY).ravel()
        found[pattern] = vb.diagnostics.c2st(rng.multivariate_normal(mean, cov, 2000), ours)
    assert max(found.values()) < 0.55, sorted(found.values())


def test_groups_of_a_summary_are_what_changes_with_each_channel():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60, 3)) + np.array([0.0, 2.0, -1.0])
    summary = vb.Summary(
        period=1.0,
        preprocess=vb.features.bandpass(1.0, 200.0),
        fc=vb.features.fc(),
        area=vb.features.area(intervals=[(0.0, 20.0), (20.0, 59.0)], pool="nodes"),
    )
    groups = summary.groups(y, ["a", "b", "c"])
    x, names = np.asarray(summary(y)), summary.names_for(3)
    for i, label in enumerate("abc"):
        other = np.where(np.arange(3) == i, rng.normal(size=y.shape), y)
        assert groups[label] == tuple(np.array(names)[np.asarray(summary(other)) != x])
        dead = np.asarray(summary(np.where(np.arange(3) == i, np.nan, y)))
        np.testing.assert_array_equal(np.isnan(dead), np.isin(names, groups[label]))
        np.testing.assert_allclose(dead[~np.isnan(dead)], x[~np.isnan(dead)], rtol=1e-6)
    assert len(groups["a"]) == 4  # two pairs, two windows
    with pytest.raises(ValueError, match="2 labels were given for the 3 nodes of the recording; give one for each"):
        summary.groups(y, ["a", "b"])


def test_a_report_leaves_out_what_is_missing_and_says_so(amortized, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "images", lambda figure: [Image("data:,", panel.alt) for panel in figure.panels])
    posterior = amortized.sample(without([1, 3]), n=500, key=KEY)
    draws = lg.make_draws(amortized.prior, 400, seed=3)
    verdict = report(posterior, draws=draws, out=tmp_path / "r.html")
    (check,) = [check for check in verdict.checks if check["question"].startswith("Is the recording inside")]
    assert check["light"] == "pass"
    assert "2 of 6 features are missing in the recording and were left out: fc.sd, psd.peak." in check["sentence"]
    assert [row["name"] for row in verdict.numbers["features"]] == ["fc.mean", "fcd.var", "noise", "constant"]
    assert "2 features are missing in the recording, and the posterior is that given the others" in (
        tmp_path / "r.html"
    ).read_text(encoding="utf-8")
