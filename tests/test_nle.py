"""Neural likelihoods against closed forms: normalised over x whatever its tails, conjugate over trials."""

import dataclasses
import functools

import conjugate
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural.densities.flows import MAF
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.nle import NLE, AmortizedLikelihood
from vbinfer.neural.scaler import Standardise
from vbinfer.neural.training import Training
from vbinfer.priors import Prior

KEY = jax.random.key(1)
X_O = np.array([3.1, -31.4, conjugate.CONSTANT])
QUICK = Training(max_epochs=25, batch_size=50, learning_rate=3e-3, patience=25)


@functools.cache
def fitted():
    density = MAF(layers=2, width=20, depth=1)
    return NLE(density, training=QUICK).fit(conjugate.make_draws(2000), conjugate.make_prior(), key=KEY)


def on_grid(log_likelihood, trials):
    """Mean and sd of the posterior by quadrature over mu, from a sum over trials `[trial, 3]`."""
    mu = np.linspace(-6.0, 8.0, 2001)
    log_p = st.norm.logpdf(mu, conjugate.MEAN, conjugate.SD)
    for x in trials:
        log_p = log_p + np.asarray(log_likelihood({"mu": mu}, x), float)
    weight = np.exp(log_p - log_p.max())
    weight /= weight.sum()
    mean = np.sum(weight * mu)
    return mean, np.sqrt(np.sum(weight * (mu - mean) ** 2))


def test_the_likelihood_is_the_simulators():
    amortized, info = fitted()
    mu, x = conjugate.simulate(2000, 5)
    error = np.asarray(amortized.log_likelihood({"mu": mu}, x)) - conjugate.log_likelihood(mu, x)
    assert -0.05 < error.mean() < 0.03  # minus the Kullback-Leibler divergence of the fit
    assert info.info_gain == pytest.approx(conjugate.MUTUAL_INFORMATION, abs=0.2)  # 200 held-out rows, sd 1
    assert f"gained {info.info_gain:.2f} nats" in info.sentence


def test_trials_are_added_up():
    amortized, _ = fitted()
    rng = np.random.default_rng(3)
    trials = np.column_stack([conjugate.OFFSET + conjugate.GAIN * 2.2 + conjugate.NOISE * rng.normal(size=(6, 2)),
                              np.full(6, conjugate.CONSTANT)])  # fmt: skip
    exact = np.array([conjugate.posterior(x) for x in trials])
    alone = np.array([on_grid(amortized.log_likelihood, x[None]) for x in trials])
    assert np.sqrt(np.mean((alone - exact)[:, 0] ** 2)) < 0.3 * exact[0, 1]
    assert np.mean(alone[:, 1] / exact[:, 1]) == pytest.approx(1.0, abs=0.15)
    (mean, sd), (got_mean, got_sd) = conjugate.posterior(trials), on_grid(amortized.log_likelihood, trials)
    assert sd < 0.45 * exact[0, 1]
    assert abs(got_mean - mean) < 0.7 * sd  # errors of the network add up over trials
    assert got_sd == pytest.approx(sd, rel=0.3)


def test_nuts_draws_from_prior_times_likelihood():
    amortized, _ = fitted()
    posterior = amortized.sample(X_O, n=3000, key=jax.random.key(2), num_chains=6, num_warmup=150)
    mean, sd = on_grid(amortized.log_likelihood, X_O[None])  # of the same network: only the sampler is compared
    mu = posterior.theta["mu"]
    assert mu.shape == (6, 500)
    assert mu.mean() == pytest.approx(mean, abs=4.5 * sd / np.sqrt(3000 / 4))
    assert mu.std() == pytest.approx(sd, rel=0.12)
    expected = st.norm.logpdf(mu[2], conjugate.MEAN, conjugate.SD) + np.asarray(
        amortized.log_likelihood({"mu": mu[2]}, X_O)
    )
    np.testing.assert_allclose(posterior.log_prob[2], expected, atol=2e-3)
    assert posterior.info["method"] == "NLE"
    assert posterior.info["info_gain"] == fitted()[1].info_gain


@pytest.mark.slow
def test_the_likelihood_integrates_to_one_where_tails_are_heavy():
    """x = mu + Student(2 df): beyond four spreads x enters by its logarithm, and |dh/dx| must follow."""
    rng = np.random.default_rng(0)
    mu = rng.uniform(-1.0, 2.0, 1000)
    x = mu[:, None] + 0.5 * rng.standard_t(2, (1000, 1))
    prior = Prior({"mu": dist.Uniform(-1.0, 2.0)})
    assert np.abs(x - np.median(x)).max() > 6 * np.subtract(*np.percentile(x, [75, 25])) / 1.349
    amortized, _ = NLE(MDN(components=3, width=20, depth=1), training=dataclasses.replace(QUICK, max_epochs=10)).fit(
        Draws.from_arrays({"mu": mu}, x), prior, key=KEY
    )
    v = np.linspace(-16.0, 16.0, 6001)  # x to +-4 million
    nodes, jacobian = np.sinh(v), np.cosh(v) * (v[1] - v[0])
    for at in (-0.9, 1.7):
        log_q = amortized.log_likelihood({"mu": np.full(len(v), at)}, nodes[:, None])
        assert np.sum(np.exp(np.asarray(log_q, float)) * jacobian) == pytest.approx(1.0, abs=5e-3)


def test_the_log_determinant_is_that_of_the_standardisation():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.standard_t(2, 400), rng.gamma(1.0, 30.0, 400), np.full(400, 2.0)])
    with jax.enable_x64(True):
        standardise = Standardise.fit(x)
        jacobian = jax.vmap(jax.jacobian(standardise))(jnp.asarray(x))[:, :2, :2]
        np.testing.assert_allclose(
            standardise.log_slope(jnp.asarray(x)).sum(-1), np.linalg.slogdet(jacobian)[1], rtol=1e-9
        )


@pytest.mark.slow
def test_a_feature_that_never_varied_is_left_out():
    amortized, _ = fitted()
    mu, x = np.array([0.3, 1.9]), np.stack([X_O, X_O])
    moved = x + np.array([0.0, 0.0, 40.0])
    np.testing.assert_array_equal(amortized.log_likelihood({"mu": mu}, x), amortized.log_likelihood({"mu": mu}, moved))
    with pytest.warns(UserWarning, match=r"x_o lies outside the training draws in rate, constant: this posterior is"):
        amortized.sample(X_O + np.array([50.0, 0.0, 1.0]), n=2, key=KEY, num_chains=2, num_warmup=2)
    flat = Draws.from_arrays({"mu": mu.repeat(20)}, np.full((40, 2), 3.0))
    with pytest.raises(ValueError, match=r"no feature of x varies over the draws"):
        NLE().fit(flat, conjugate.make_prior(), key=KEY)


def test_saved_and_loaded_likelihoods_are_equal_bit_for_bit(tmp_path):
    amortized, _ = fitted()
    amortized.save(tmp_path / "nle.npz")
    loaded = npz.load(tmp_path / "nle.npz")
    assert isinstance(loaded, AmortizedLikelihood)
    assert (loaded.names, loaded.info) == (conjugate.NAMES, amortized.info)
    mu, x = conjugate.simulate(100, 8)
    np.testing.assert_array_equal(loaded.log_likelihood({"mu": mu}, x), amortized.log_likelihood({"mu": mu}, x))


def test_mistakes_are_named():
    amortized, _ = fitted()
    with pytest.raises(ValueError, match=r"observation has 2 features; this posterior was trained on 3: 'rate', 'pow"):
        amortized.sample(X_O[:2], n=5, key=KEY)
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'power'"):
        amortized.log_likelihood({"mu": 0.3}, np.array([1.0, np.nan, 7.0]))
