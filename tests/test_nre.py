"""Neural ratios against log p(x | theta) - log p(x) in closed form."""

import dataclasses
import functools
from types import SimpleNamespace

import conjugate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from vbinfer.io import npz
from vbinfer.neural.nre import NRE, AmortizedRatio, ContrastiveLoss, RatioClassifier
from vbinfer.neural.training import Training

KEY = jax.random.key(1)
X_O = np.array([3.1, -31.4, conjugate.CONSTANT])
QUICK = Training(max_epochs=25, batch_size=50, learning_rate=3e-3, patience=25)


@functools.cache
def fitted():
    estimator = NRE(RatioClassifier(width=32, depth=2), num_candidates=8, training=QUICK)
    return estimator.fit(conjugate.make_draws(3000), conjugate.make_prior(), key=KEY)


def exact(mu, x):
    return conjugate.log_likelihood(mu, x) - conjugate.MARGINAL.logpdf(x[..., :2])


def test_the_ratio_is_that_of_likelihood_and_evidence():
    amortized, info = fitted()
    mu, x = conjugate.simulate(1500, 5)
    error = np.asarray(amortized.log_ratio({"mu": mu}, x)) - exact(mu, x)
    assert abs(error.mean()) < 0.12
    assert error.std() < 0.35
    assert exact(mu, x).std() > 0.6
    assert info.info_gain == pytest.approx(conjugate.MUTUAL_INFORMATION, abs=0.22)  # 300 held-out rows, sd 1


def test_the_ratio_has_no_factor_of_its_own():
    """E_prior r(theta, x) = 1 for every x: what sets NRE-C apart from a ratio known up to a factor of x."""
    amortized, _ = fitted()
    mu = conjugate.MEAN + conjugate.SD * st.norm.ppf((np.arange(1000) + 0.5) / 1000)
    _, x = conjugate.simulate(60, 6)
    means = [np.mean(np.exp(amortized.log_ratio({"mu": mu}, row))) for row in x]
    assert np.median(means) == pytest.approx(1.0, abs=0.1)
    assert np.std(means) < 0.25


def test_nuts_draws_from_prior_times_ratio():
    amortized, _ = fitted()
    posterior = amortized.sample(X_O, n=3000, key=jax.random.key(2), num_chains=6, num_warmup=150)
    mean, sd = conjugate.posterior(X_O)
    mu = posterior.theta["mu"]
    assert abs(mu.mean() - mean) < 0.3 * sd
    assert mu.std() == pytest.approx(sd, rel=0.15)
    assert posterior.info["method"] == "NRE"


def test_the_loss_is_least_at_the_exact_ratio():
    """Miller et al. 2022: shifted or scaled ratios lose, a constant shift included; and at r = 1 it is known."""
    mu, x = conjugate.simulate(4000, 9)
    batch = jnp.asarray(x), jnp.asarray(mu)[:, None]

    def network(shift, scale):
        residual = lambda h, c: (h[:2] - conjugate.OFFSET - conjugate.GAIN * c) / conjugate.NOISE  # noqa: E731
        mean, cov = jnp.asarray(conjugate.MARGINAL.mean), jnp.linalg.inv(jnp.asarray(conjugate.MARGINAL.cov))

        def log_r(h, c):
            evidence = -0.5 * (h[:2] - mean) @ cov @ (h[:2] - mean) - 0.5 * np.linalg.slogdet(conjugate.MARGINAL.cov)[1]
            likelihood = -0.5 * jnp.sum(residual(h, c) ** 2) - np.log(conjugate.NOISE).sum()
            return scale * (likelihood - evidence) + shift

        return log_r

    loss = lambda *how: float(ContrastiveLoss(6)(SimpleNamespace(log_prob=network(*how)), batch, KEY))  # noqa: E731
    best = loss(0.0, 1.0)
    for other in ((0.4, 1.0), (-0.4, 1.0), (0.0, 0.7), (0.0, 1.4)):
        assert loss(*other) > best + 0.004
    assert loss(0.0, 0.0) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 * 6), rel=1e-5)


def test_draws_of_later_rounds_are_refused():
    draws = conjugate.make_draws(100)
    later = dataclasses.replace(draws, round=np.r_[np.zeros(99, int), 1])
    with pytest.raises(ValueError, match=r"some draws come from later rounds; the ratio needs draws of the prior"):
        NRE().fit(later, conjugate.make_prior(), key=KEY)


def test_saved_and_loaded_ratios_are_equal_bit_for_bit(tmp_path):
    estimator = NRE(RatioClassifier(width=5, depth=1), ensemble=2, training=Training(max_epochs=2))
    amortized, info = estimator.fit(conjugate.make_draws(100), conjugate.make_prior(), key=KEY)
    assert len(info.members) == 2
    amortized.save(tmp_path / "nre.npz")
    loaded = npz.load(tmp_path / "nre.npz")
    assert isinstance(loaded, AmortizedRatio)
    assert (loaded.names, loaded.info) == (conjugate.NAMES, amortized.info)
    mu, x = conjugate.simulate(100, 8)
    np.testing.assert_array_equal(loaded.log_ratio({"mu": mu}, x), amortized.log_ratio({"mu": mu}, x))


def test_mistakes_are_named():
    amortized, _ = fitted()
    with pytest.raises(ValueError, match=r"observation has 2 features; this posterior was trained on 3"):
        amortized.log_ratio({"mu": 0.3}, X_O[:2])
    with pytest.raises(ValueError, match=r"width=0 was given; expected a positive whole number, such as width=64"):
        RatioClassifier(width=0)
    with pytest.raises(ValueError, match=r"num_candidates=0 was given; .*such as num_candidates=10"):
        NRE(num_candidates=0)
