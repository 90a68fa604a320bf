"""The MAP, its basins, and Laplace's method against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from regression import regression
from scipy import stats

import vbinfer as vb
from vbinfer.priors.prior import Prior

KEY = jax.random.key(7)
TWO = Prior({"a": dist.Normal(0.3, 1.0)})


def square(theta, y):
    return dist.Normal(theta["a"] ** 2, 0.5).log_prob(y)


@pytest.mark.slow
def test_the_mode_of_a_linear_regression():
    known = regression(4)
    fit = vb.approximate.fit_map(known.prior, known.log_likelihood, known.y, num_starts=5, key=KEY)
    sd = np.sqrt(np.diag(known.covariance))
    assert np.abs((fit.theta["b"] - known.mean) / sd).max() < 1e-2
    at_mode = known.log_evidence + stats.multivariate_normal.logpdf(known.mean, known.mean, known.covariance)
    assert fit.log_prob == pytest.approx(at_mode, abs=1e-3)
    assert [one.count for one in fit.basins] == [5]
    assert fit.findings == ()


@pytest.mark.slow
def test_the_mode_depends_on_the_space_and_says_which():
    """log g ~ N(0, 1) seen as 1 with sd 1: the mode over log g is 1/2; over g, d log p / d log g = 1 moves it to 0."""
    prior = Prior({"g": dist.LogNormal(0.0, 1.0)})

    def log_likelihood(theta, y):
        return dist.Normal(jnp.log(theta["g"]), 1.0).log_prob(y)

    over_z = vb.approximate.fit_map(prior, log_likelihood, 1.0, num_starts=2, space="z", key=KEY)
    over_theta = vb.approximate.fit_map(prior, log_likelihood, 1.0, num_starts=2, key=KEY)
    assert np.log(over_z.theta["g"]) == pytest.approx(0.5, abs=1e-3)
    assert np.log(over_theta.theta["g"]) == pytest.approx(0.0, abs=1e-3)
    assert over_z.log_prob == pytest.approx(2 * stats.norm.logpdf(0.5), abs=1e-4)
    assert over_theta.log_prob == pytest.approx(stats.norm.logpdf(0.0) + stats.norm.logpdf(1.0), abs=1e-4)


@pytest.mark.slow
def test_under_uniform_priors_it_is_the_maximum_likelihood_also_at_the_edge():
    prior = Prior({"g": dist.Uniform(0.0, 2.0), "h": dist.Uniform(-1.0, 1.0)})

    def log_likelihood(theta, y):
        return dist.Normal(theta["g"], 0.2).log_prob(0.7) + dist.Normal(theta["h"], 0.2).log_prob(y)

    fit = vb.approximate.fit_map(prior, log_likelihood, 3.0, num_starts=4, key=KEY)
    assert fit.theta["g"] == pytest.approx(0.7, abs=2e-3)
    assert 0.99 < fit.theta["h"] <= 1.0
    assert len(fit.basins) == 1


@pytest.mark.slow
def test_basins_are_counted_sorted_told_of_and_saved(tmp_path):
    """-(a^2 - 1)^2 / (2 0.25) - (a - 0.3)^2 / 2: its two maxima are roots of the derivative, a cubic."""
    fit = vb.approximate.fit_map(TWO, square, 1.0, num_starts=16, key=KEY)
    roots = np.roots([-8.0, 0.0, 7.0, 0.3])  # -8 a (a^2 - 1) - (a - 0.3)
    top, other = roots.max(), roots.min()

    def density(a):
        return stats.norm.logpdf(1.0, a**2, 0.5) + stats.norm.logpdf(a, 0.3, 1.0)

    assert [float(one.theta["a"]) for one in fit.basins] == pytest.approx([top, other], abs=1e-3)
    assert [one.log_prob for one in fit.basins] == pytest.approx([density(top), density(other)], abs=1e-4)
    assert sum(one.count for one in fit.basins) == 16
    assert min(one.count for one in fit.basins) > 1
    assert "2 optima are within 4.6 of the best in log density" in fit.findings[0]
    assert "2 basins, best first" in str(fit)
    fit.save(tmp_path / "map.npz")
    again = vb.load(tmp_path / "map.npz")
    assert again.basins == fit.basins
    assert (again.theta, again.log_prob, again.info) == (fit.theta, fit.log_prob, fit.info)


def test_a_start_without_a_likelihood_is_replaced_and_a_step_into_such_a_place_shortened():
    prior = Prior({"g": dist.Normal(0.0, 1.0)})
    fit = vb.approximate.fit_map(
        prior, lambda theta, y: 20.0 * jnp.log(theta["g"]) - 40.0 * theta["g"], 0.0, num_starts=8, key=KEY
    )
    # 20 / g - 40 - g = 0
    assert fit.theta["g"] == pytest.approx(-20.0 + np.sqrt(420.0), abs=1e-3)
    assert fit.info["failed_starts"] > 0
    assert fit.basins[0].count == 8


def test_laplace_is_exact_for_a_linear_regression():
    known = regression(4)
    posterior = vb.approximate.fit_laplace(
        known.prior, known.log_likelihood, known.y, num_samples=4000, num_starts=2, key=KEY
    )
    assert posterior.log_evidence == pytest.approx(known.log_evidence, abs=1e-3)
    assert posterior.info["log_evidence_importance"] == pytest.approx(known.log_evidence, abs=2e-3)
    draws = posterior.theta["b"][0]
    expected = stats.multivariate_normal.logpdf(draws, known.mean, known.covariance)
    np.testing.assert_allclose(posterior.log_prob[0], expected, atol=5e-3)
    sd = np.sqrt(np.diag(known.covariance))
    assert np.abs((draws.mean(axis=0) - known.mean) / sd).max() < 4 / np.sqrt(4000)
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), known.covariance / np.outer(sd, sd), atol=0.09)


def test_laplace_maps_its_density_through_the_prior():
    """log g ~ N(0, 1), seen as 1 with sd 1: log g | y ~ N(1/2, 1/2), so q over g is that log-normal."""
    prior = Prior({"g": dist.LogNormal(0.0, 1.0)})
    posterior = vb.approximate.fit_laplace(
        prior, lambda theta, y: dist.Normal(jnp.log(theta["g"]), 1.0).log_prob(y), 1.0, num_starts=2, key=KEY
    )
    exact = stats.lognorm(s=np.sqrt(0.5), scale=np.exp(0.5))
    np.testing.assert_allclose(posterior.log_prob[0], exact.logpdf(posterior.theta["g"][0]), atol=1e-3)
    assert posterior.log_evidence == pytest.approx(stats.norm.logpdf(1.0, 0.0, np.sqrt(2.0)), abs=1e-4)


def test_laplace_says_when_it_covers_one_mode_of_two():
    with pytest.warns(UserWarning, match="2 modes are within 4.6 of the best"):
        posterior = vb.approximate.fit_laplace(TWO, square, 1.0, key=KEY)
    assert posterior.info["modes_within_reach"] == 2


UNIT = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Uniform(0.0, 1.0)})


def constant(theta, y):
    return 0.0 * theta["g"]


KINK = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Normal(0.0, 1.0)})


def kinked(theta, y):
    """With the prior -h^2 / 2 in all h^2 / 2 - 3 |h| - h^4 / 20: the maximum is a kink between rising curvatures."""
    h = theta["h"]
    return h**2 - 3.0 * jnp.abs(h) - 0.05 * h**4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vb.approximate.fit_map(UNIT, constant, 0.0, num_starts=0, key=KEY), "num_starts=0 was given"),
        (lambda: vb.approximate.fit_map(UNIT, constant, 0.0, space="x", key=KEY), "expected one of 'theta', 'z'"),
        (
            lambda: vb.approximate.fit_map(UNIT, lambda t, y: jnp.sqrt(t["h"] - t["h"]), 0.0, num_starts=4, key=KEY),
            r"4 of 4 starts were not found among 100 prior draws each: its gradient in .h. is not finite at 400",
        ),
        (
            lambda: vb.approximate.fit_map(UNIT, lambda t, y: jnp.log(-t["g"]), 0.0, num_starts=4, key=KEY),
            "log_likelihood is NaN at 400 of 400 draws",
        ),
        (
            lambda: vb.approximate.fit_laplace(KINK, kinked, 0.0, num_starts=2, key=KEY),
            "the Hessian at the mode is not positive definite: its eigenvalues reach from -1.*, along h, to 1",
        ),
        (
            lambda: vb.approximate.fit_map(UNIT, lambda t, y: jnp.array([1.0, 2.0]) * t["g"], 0.0, key=KEY),
            r"returned an array of shape \[2\]",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
