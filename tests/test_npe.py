"""Neural posterior estimation against closed forms: a linear-Gaussian posterior, a bounded one, a useless one."""

import contextlib
import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural.densities.flows import MAF, NSF
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.npe import NPE, AmortizedPosterior
from vbinfer.neural.scaler import Standardise
from vbinfer.neural.training import Training
from vbinfer.priors import Prior

KEY = jax.random.key(1)
X_O = lg.OFFSET + np.array([0.3, 3.4, -1.6, 1.2, 0.7, 0.0])
MUTUAL_INFORMATION = 0.5 * (np.linalg.slogdet(lg.PRIOR_COV)[1] - np.linalg.slogdet(lg.COV)[1])  # 2.2 nats
DENSITIES = {"nsf": NSF(width=32), "maf": MAF(layers=3, width=32), "mdn": MDN(components=2, width=32)}
NAMES = [pytest.param("nsf", marks=pytest.mark.slow), "maf", "mdn"]
QUICK = Training(max_epochs=30, batch_size=50, learning_rate=2e-3, patience=30)
SMALL = MDN(components=2, width=8, depth=1)


@functools.cache
def fitted(name):
    prior = lg.make_prior()
    return NPE(density=DENSITIES[name], training=QUICK).fit(lg.make_draws(prior, 3000), prior, key=KEY)


def few(epochs, **options):
    """An estimator that costs little; fits of 300 draws in 8 epochs share a program."""
    return NPE(SMALL, training=Training(max_epochs=epochs, batch_size=50, **options))


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_linear_gaussian_posterior_is_recovered(name):
    amortized, info = fitted(name)
    posterior = amortized.sample(X_O, n=20_000, key=jax.random.key(2))
    flat, sd = posterior.ravel(), np.sqrt(np.diag(lg.COV))
    assert posterior.theta["model.eta"].shape == (1, 20_000, 2)
    # network error with 3,000 draws: a fifth of a posterior sd in the mean, 12 % of the sd (Monte Carlo adds 1 %)
    np.testing.assert_allclose((flat.mean(0) - lg.posterior_mean(X_O)) / sd, 0.0, atol=0.2)
    np.testing.assert_allclose(flat.std(0) / sd, 1.0, atol=0.12)
    np.testing.assert_allclose(np.corrcoef(flat.T), lg.COV / np.outer(sd, sd), atol=0.12)
    assert info.num_train + info.num_val == 3000
    assert info.converged


@pytest.mark.parametrize("name", NAMES)
def test_held_out_log_posterior_is_near_the_analytic_one(name):
    amortized, info = fitted(name)
    theta, x = lg.simulate(amortized.prior, jax.random.key(5), 4000)
    log_q = np.asarray(amortized.log_prob(theta, x))
    assert lg.EXPECTED_LOG_POSTERIOR - 0.1 < log_q.mean() < lg.EXPECTED_LOG_POSTERIOR + 3 * np.sqrt(1.5 / 4000)
    gain = (log_q - np.asarray(amortized.prior.log_prob(theta))).mean()
    assert info.info_gain == pytest.approx(gain, abs=4.0 * 1.8 / np.sqrt(info.num_val))  # sd of one log ratio: 1.8
    assert info.info_gain == pytest.approx(MUTUAL_INFORMATION, abs=0.1 + 4.0 * 1.8 / np.sqrt(info.num_val))
    assert gain == pytest.approx(MUTUAL_INFORMATION, abs=0.1 + 4.0 * 1.8 / np.sqrt(4000))
    assert f"gained {info.info_gain:.2f} nats" in info.sentence


def test_log_prob_is_normalised_and_that_of_the_draws():
    amortized, _ = fitted("maf")
    posterior = amortized.sample(X_O, n=5000, key=jax.random.key(2))
    again = amortized.log_prob({name: value[0] for name, value in posterior.theta.items()}, X_O)
    np.testing.assert_allclose(again, posterior.log_prob[0], rtol=1e-5, atol=1e-5)
    # importance weights of a normalised density against a wider known one average to one
    wide = st.multivariate_normal(lg.posterior_mean(X_O), 1.7 * lg.COV, seed=0)
    theta = wide.rvs(20_000)
    weights = np.exp(np.asarray(amortized.log_prob(amortized.prior.unravel(theta), X_O)) - wide.logpdf(theta))
    assert weights.mean() == pytest.approx(1.0, abs=4.5 * weights.std() / np.sqrt(20_000))


def test_batches_are_paired_row_by_row():
    amortized, _ = fitted("maf")
    theta, x = lg.simulate(amortized.prior, jax.random.key(8), 70)
    paired = amortized.log_prob(theta, x)
    for i in (0, 41):
        alone = amortized.log_prob({name: value[i] for name, value in theta.items()}, x[i])
        assert float(alone) == pytest.approx(float(paired[i]), rel=1e-4, abs=1e-4)
    batch = amortized.sample_batch(x, n=400, key=jax.random.key(9))
    assert batch["model.eta"].shape == (70, 400, 2)
    means = np.asarray(amortized.prior.ravel(batch)).mean(1)
    exact = np.stack([lg.posterior_mean(row) for row in x])
    assert np.sqrt(np.mean((means - exact) ** 2 / np.diag(lg.COV))) < 0.3
    assert np.mean((means[::-1] - exact) ** 2 / np.diag(lg.COV)) > 2.0  # and a shuffled pairing would show


@pytest.mark.slow
def test_a_density_over_bounded_and_positive_parameters_integrates_to_one():
    """By the midpoint rule in theta itself, so the derivatives of the maps from z are part of it."""
    prior = Prior({"a": dist.Uniform(2.0, 5.0), "b": dist.LogNormal(0.3, 0.5)})
    theta = {name: np.asarray(value) for name, value in prior.sample(key=jax.random.key(0), n=600).items()}
    noise = np.asarray(jax.random.normal(jax.random.key(1), (600, 2)))
    x = np.stack([theta["a"] * theta["b"], theta["a"] - theta["b"]], axis=1) + 0.4 * noise
    a = 2.0 + 3.0 * (np.arange(300) + 0.5) / 300
    edges = np.exp(np.linspace(-2.5, 3.1, 401))
    b = 0.5 * (edges[1:] + edges[:-1])
    cell = np.diff(edges) / 100.0
    for density in (SMALL, NSF(layers=2, width=8, depth=1)):
        estimator = dataclasses.replace(few(15, learning_rate=5e-3), density=density)
        amortized, _ = estimator.fit(Draws.from_arrays(theta, x), prior, key=KEY)
        grid = {"a": np.repeat(a, 400), "b": np.tile(b, 300)}
        p = np.exp(np.asarray(amortized.log_prob(grid, [5.5, 1.4]), float)) * np.tile(cell, 300)
        assert p.sum() == pytest.approx(1.0, abs=0.01)
        posterior = amortized.sample([5.5, 1.4], n=8000, key=jax.random.key(3))
        for name in ("a", "b"):
            values = posterior.theta[name].ravel()
            assert values.mean() == pytest.approx(np.sum(p * grid[name]), abs=4.5 * values.std() / np.sqrt(8000) + 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[:2])
def test_no_draw_leaves_a_bounded_prior_and_the_edge_is_found(name):
    prior = Prior({"a": dist.Uniform(2.0, 3.0)})  # one parameter, truth often at the edge
    theta = prior.sample(key=jax.random.key(0), n=1500)
    x = np.asarray(theta["a"])[:, None] + 0.2 * np.asarray(jax.random.normal(jax.random.key(1), (1500, 1)))
    draws = Draws.from_arrays({"a": np.asarray(theta["a"])}, x)
    amortized, _ = NPE(density=DENSITIES[name], training=QUICK).fit(draws, prior, key=KEY)
    for x_o in (2.05, 2.5):
        posterior = amortized.sample([x_o], n=8000, key=jax.random.key(2))
        values = posterior.theta["a"].ravel()
        assert values.min() >= 2.0
        assert values.max() <= 3.0
        exact = st.truncnorm((2.0 - x_o) / 0.2, (3.0 - x_o) / 0.2, x_o, 0.2)
        assert abs(values.mean() - exact.mean()) < 0.2 * exact.std()
        assert values.std() == pytest.approx(exact.std(), rel=0.12)
        assert st.kstest(values, exact.cdf).statistic < 0.08
    outside = amortized.log_prob({"a": jnp.array([1.9, 2.2, 3.1])}, [2.5])
    assert np.isneginf(outside[jnp.array([0, 2])]).all()
    assert np.isfinite(outside[1])


@pytest.mark.slow
def test_summaries_that_say_nothing_are_reported_so():
    prior = Prior({"a": dist.Gamma(2.0, 1.0), "b": dist.Uniform(0.0, 1.0)})
    theta = {name: np.asarray(value) for name, value in prior.sample(key=jax.random.key(0), n=300).items()}
    noise = np.asarray(jax.random.normal(jax.random.key(1), (300, 20)))
    amortized, info = NPE(training=Training(max_epochs=20)).fit(Draws.from_arrays(theta, noise), prior, key=KEY)
    assert -0.2 < info.info_gain < 0.15
    b = amortized.sample(noise[0], n=4000, key=KEY).theta["b"].ravel()
    assert abs(b.mean() - 0.5) < 0.1
    assert b.std() > 0.24
    empty = type(info)(**{**info.__dict__, "info_gain": -0.01, "converged": False})
    assert empty.sentence.startswith("Nothing learned")
    assert "raise max_epochs" in empty.sentence


def test_the_same_key_gives_the_same_fit_and_draws():
    prior = lg.make_prior()
    draws = lg.make_draws(prior, 300)
    fits = [few(8).fit(draws, prior, key=KEY) for _ in range(2)]
    np.testing.assert_array_equal(fits[0][1].val, fits[1][1].val)
    samples = [fit[0].sample(X_O, n=50, key=jax.random.key(3)).ravel() for fit in fits]
    np.testing.assert_array_equal(samples[0], samples[1])


def test_draws_in_double_precision_are_those_in_single():
    prior = lg.make_prior()
    draws = lg.make_draws(prior, 300)
    theta = {name: value.astype(np.float64) for name, value in draws.theta.items()}
    double = Draws.from_arrays(theta, draws.x.astype(np.float64), names=lg.NAMES)
    (one, first), (two, second) = few(8).fit(draws, prior, key=KEY), few(8).fit(double, prior, key=KEY)
    np.testing.assert_allclose(first.val, second.val, rtol=1e-4)
    np.testing.assert_allclose(one.log_prob(theta, draws.x), two.log_prob(theta, double.x), atol=2e-3)


@pytest.mark.slow
def test_an_ensemble_is_better_than_its_members():
    """log mean q >= mean log q, strictly where members differ, and they do with 300 draws."""
    prior = lg.make_prior()
    estimator = NPE(DENSITIES["mdn"], ensemble=3, training=dataclasses.replace(QUICK, max_epochs=20))
    amortized, info = estimator.fit(lg.make_draws(prior, 300), prior, key=KEY)
    theta, x = lg.simulate(prior, jax.random.key(5), 1500)
    joint = np.asarray(amortized.log_prob(theta, x))
    arrays, static = eqx.partition(amortized._network.members, eqx.is_array)
    each = []
    for i in range(3):
        member = eqx.combine(jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], arrays), static)
        alone = AmortizedPosterior(prior, NPE(DENSITIES["mdn"]), member, amortized.scaler, {})
        each.append(np.asarray(alone.log_prob(theta, x)))
    np.testing.assert_allclose(joint, np.log(np.mean(np.exp(each), axis=0)), atol=2e-4)
    assert joint.mean() > np.mean(each) + 0.01
    assert len(set(info.members)) == 3


@contextlib.contextmanager
def stopped_at(epoch):
    def report(number, *losses):
        if number == epoch:
            raise KeyboardInterrupt

    yield report


def test_an_interrupted_fit_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    prior, path = lg.make_prior(), tmp_path / "runs" / "fit.npz"
    draws = lg.make_draws(prior, 300)
    estimator = dataclasses.replace(few(8), ensemble=2)
    whole, info = estimator.fit(draws, prior, key=KEY)
    with monkeypatch.context() as patch:
        patch.setattr("vbinfer.neural.estimator.progress_bar", lambda *_: stopped_at(3))
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(draws, prior, key=KEY, checkpoint=path)
    assert path.is_file()
    resumed, again = estimator.fit(draws, prior, key=KEY, checkpoint=path)
    np.testing.assert_array_equal(info.val, again.val)
    np.testing.assert_array_equal(whole.sample(X_O, n=50, key=KEY).ravel(), resumed.sample(X_O, n=50, key=KEY).ravel())
    others = (
        (estimator, draws, jax.random.key(2)),
        (dataclasses.replace(estimator, density=MDN(components=3, width=8, depth=1)), draws, KEY),
        (estimator, lg.make_draws(prior, 300, seed=1), KEY),
    )
    for other, rows, key in others:
        with pytest.raises(ValueError, match=r"fit\.npz' holds a fit of another study:\n(.*\n)*Give another folder"):
            other.fit(rows, prior, key=key, checkpoint=path)


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_said():
    prior = lg.make_prior()
    amortized, info = few(6, learning_rate=1e30, patience=2).fit(lg.make_draws(prior, 200), prior, key=KEY)
    assert info.best_epoch == 0
    assert not info.converged
    assert "The loss became NaN or infinite in training; lower learning_rate." in info.sentence
    assert np.isfinite(amortized.sample(X_O, n=10, key=KEY).log_prob).all()  # the untrained network


def test_failed_draws_change_nothing_but_the_count():
    prior = lg.make_prior()
    draws = lg.make_draws(prior, 300)
    gap = np.insert(draws.x, [10, 200], np.nan, axis=0)
    theta = {name: np.insert(value, [10, 200], 50.0, axis=0) for name, value in draws.theta.items()}
    clean = few(8).fit(draws, prior, key=KEY)[1]
    holed = few(8).fit(Draws.from_arrays(theta, gap, names=lg.NAMES), prior, key=KEY)[1]
    np.testing.assert_array_equal(clean.val, holed.val)
    assert holed.num_failed == 2
    assert "2 of 302 draws failed" in holed.sentence


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_densities_are_equal_bit_for_bit(name, tmp_path):
    amortized, _ = fitted(name)
    amortized.save(tmp_path / "npe.npz")
    loaded = npz.load(tmp_path / "npe.npz")
    assert isinstance(loaded, AmortizedPosterior)
    assert loaded.names == lg.NAMES
    assert loaded.info == amortized.info
    theta, x = lg.simulate(amortized.prior, jax.random.key(6), 200)
    np.testing.assert_array_equal(loaded.log_prob(theta, x), amortized.log_prob(theta, x))
    one, two = (a.sample(X_O, n=100, key=KEY).ravel() for a in (loaded, amortized))
    np.testing.assert_array_equal(one, two)


def test_one_runaway_simulation_does_not_set_the_scale():
    x = np.asarray(jax.random.normal(jax.random.key(0), (500, 2)))
    runaway = x.copy()
    runaway[7, 0] = 1e12
    plain, robust = (np.asarray(Standardise.fit(rows)(jnp.asarray(x))) for rows in (x, runaway))
    np.testing.assert_allclose(plain.std(0), 1.0, rtol=0.01)
    assert 0.5 < robust[:, 0].std() < 1.01
    order = np.argsort(x[:, 0])
    assert np.all(np.diff(robust[order, 0]) >= 0)


def test_an_observation_unlike_the_draws_is_said():
    amortized, _ = fitted("maf")
    odd = X_O + np.array([0.0, 60.0, 0.0, 0.0, 0.0, 3.0])
    assert amortized.outside(X_O) == ()
    assert amortized.outside(odd) == ("fc.sd", "constant")
    with pytest.warns(UserWarning, match=r"outside the training draws in fc\.sd, constant: this posterior is an extra"):
        posterior = amortized.sample(odd, n=10, key=KEY)
    assert posterior.info["outside_training"] == ["fc.sd", "constant"]
    moved = X_O + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 3.0])  # a feature that never varied cannot move the answer
    theta = {name: value[0] for name, value in posterior.theta.items()}
    np.testing.assert_array_equal(amortized.log_prob(theta, moved), amortized.log_prob(theta, X_O))


def test_a_cap_on_epochs_that_was_too_low_is_noticed():
    prior = lg.make_prior()
    info = few(6, learning_rate=1e-3).fit(lg.make_draws(prior, 500), prior, key=KEY)[1]
    assert not info.converged
    assert "still improving when training stopped at 6 epochs; raise max_epochs to 12" in info.sentence


def test_mistakes_are_named():
    amortized, _ = fitted("maf")
    prior, draws = amortized.prior, lg.make_draws(amortized.prior, 50)
    with pytest.raises(ValueError, match=r"observation has 2 features; this posterior was trained on 6: 'fc\.mean'"):
        amortized.sample([0.1, 0.2], n=5, key=KEY)
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'fcd\.var', 'noise'"):
        amortized.sample(np.where(np.isin(np.arange(6), [2, 4]), np.nan, X_O), n=5, key=KEY)
    with pytest.raises(ValueError, match=r"observation has shape \[1, 6\]; expected \[F\]"):
        amortized.sample(X_O[None], n=5, key=KEY)
    with pytest.raises(TypeError, match=r"density"):
        NPE(density="maf")
    with pytest.raises(ValueError, match=r"NSF\(layers=0\) was given"):
        NSF(layers=0)
    with pytest.raises((TypeError, ValueError), match=r"ensemble"):
        NPE(ensemble=0)
    failed = Draws.from_arrays(draws.theta, np.full((50, 6), np.nan), names=lg.NAMES)
    with pytest.raises(
        ValueError, match=r"0 of 50 draws are valid; at least 20 are needed to fit 3 parameters, and 1,0"
    ):
        NPE().fit(failed, prior, key=KEY)
    many = Prior({"a": dist.Normal(0.0, 1.0).expand([40])})
    with pytest.raises(ValueError, match=r"30 of 30 draws are valid; at least 41 are needed to fit 40 parameters"):
        NPE().fit(Draws.from_arrays({"a": np.zeros((30, 40))}, np.ones((30, 2))), many, key=KEY)
    with pytest.raises(ValueError, match=r"4 of 4 draws are valid; at least 20"):
        NPE().fit(lg.make_draws(prior, 4), prior, key=KEY)
    with pytest.raises(ValueError, match=r"the draws have \['coupling\.G', 'model\.eta'\], the prior has \['a'\]"):
        NPE().fit(draws, Prior({"a": dist.Normal(0.0, 1.0)}), key=KEY)
    narrow = Prior({"coupling.G": dist.Uniform(-50.0, 0.0), "model.eta": prior.dists["model.eta"]})
    with pytest.raises(ValueError, match=r"of 50 draws lie outside the prior's support"):
        NPE().fit(draws, narrow, key=KEY)
