"""NUTS against posteriors that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from vbinfer.diagnostics.chain_measures import mcse, rhat
from vbinfer.priors.prior import Prior
from vbinfer.sampling import NUTS, sample_mcmc
from vbinfer.sampling.problem import problem_of

KEY = jax.random.key(5)
DESIGN = jnp.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]])
NOISE = jnp.array([0.5, 1.0, 0.8])
LINEAR = Prior({"a": dist.Normal(1.0, 2.0), "b": dist.Normal(-2.0, 0.5)})
Y = jnp.array([2.0, -3.0, -1.5])


def linear(theta, y):
    return dist.Normal(DESIGN @ jnp.stack([theta["a"], theta["b"]]), NOISE).log_prob(y).sum()


def agrees(posterior, name, mean, sd):
    """Mean and sd within 4 Monte-Carlo standard errors."""
    x = posterior.theta[name]
    assert abs(x.mean() - mean) < 4 * mcse(posterior)[name], (x.mean(), mean)
    assert abs(x.std() - sd) < 4 * mcse(posterior, kind="sd")[name], (x.std(), sd)


@pytest.fixture(scope="module")
def conjugate():
    return sample_mcmc(LINEAR, linear, Y, num_warmup=400, num_samples=800, key=KEY)


@pytest.mark.smoke
def test_conjugate_linear_gaussian(conjugate):
    design, noise = np.asarray(DESIGN, float), np.asarray(NOISE, float)
    precision = np.diag([1 / 4.0, 1 / 0.25]) + design.T @ np.diag(noise**-2) @ design
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.array([1.0 / 4.0, -2.0 / 0.25]) + design.T @ (np.asarray(Y, float) / noise**2))
    agrees(conjugate, "a", mean[0], np.sqrt(covariance[0, 0]))
    agrees(conjugate, "b", mean[1], np.sqrt(covariance[1, 1]))
    correlation = np.corrcoef(conjugate.ravel().T)[0, 1]
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert abs(correlation - expected) < 4 / np.sqrt(1000)
    assert max(rhat(conjugate).values()) < 1.02


def test_log_prob_is_prior_plus_likelihood_over_theta(conjugate):
    for chain, draw in ((0, 0), (1, 400), (3, 799)):
        theta = {name: jnp.asarray(value[chain, draw]) for name, value in conjugate.theta.items()}
        expected = LINEAR.log_prob(theta) + linear(theta, Y)
        assert conjugate.log_prob[chain, draw] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.smoke
def test_sample_stats_by_name_and_shape(conjugate):
    assert set(conjugate.sample_stats) == {"diverging", "accept_prob", "num_steps", "energy", "step_size"}
    assert all(value.shape == (4, 800) for value in conjugate.sample_stats.values())
    assert not conjugate.sample_stats["diverging"].any()
    assert conjugate.info["divergences"] == 0
    assert 0.7 < conjugate.sample_stats["accept_prob"].mean() < 0.98
    assert conjugate.sample_stats["num_steps"].min() >= 1
    assert np.all(conjugate.sample_stats["step_size"].std(axis=1) < 1e-6)
    assert np.array_equal(conjugate.x_o, Y)
    assert conjugate.prior is LINEAR


def test_uniform_prior_gives_the_truncated_normal():
    prior = Prior({"g": dist.Uniform(0.0, 1.0)})
    posterior = sample_mcmc(
        prior,
        lambda theta, y: dist.Normal(theta["g"], 0.3).log_prob(y),
        jnp.array(0.95),
        num_warmup=400,
        num_samples=1000,
        key=KEY,
    )
    exact = stats.truncnorm((0.0 - 0.95) / 0.3, (1.0 - 0.95) / 0.3, loc=0.95, scale=0.3)
    agrees(posterior, "g", exact.mean(), exact.std())
    assert posterior.theta["g"].min() > 0.0
    assert posterior.theta["g"].max() < 1.0
    above = (posterior.theta["g"] > 0.95).mean()
    assert abs(above - exact.sf(0.95)) < 4 * np.sqrt(0.25 / 1000)


def test_lognormal_prior_with_its_conjugate_likelihood():
    """log g ~ N(0.5, 1) seen as y = log g + N(0, 0.5): log g | y ~ N(0.2 * 0.5 + 0.8 y, 0.2)."""
    prior = Prior({"g": dist.LogNormal(0.5, 1.0)})
    posterior = sample_mcmc(
        prior,
        lambda theta, y: dist.Normal(jnp.log(theta["g"]), 0.5).log_prob(y),
        jnp.array(2.0),
        num_warmup=400,
        num_samples=1000,
        key=KEY,
    )
    exact = stats.lognorm(s=np.sqrt(0.2), scale=np.exp(0.2 * 0.5 + 0.8 * 2.0))
    agrees(posterior, "g", exact.mean(), exact.std())


@pytest.mark.slow
def test_a_vector_leaf_and_a_simplex_leaf():
    """Dirichlet(1, 2, 3) seen through counts (4, 0, 1) is Dirichlet(5, 2, 4): z has one dimension less than theta."""
    prior = Prior({"p": dist.Dirichlet(jnp.array([1.0, 2.0, 3.0]))})
    posterior = sample_mcmc(
        prior,
        lambda theta, counts: (counts * jnp.log(theta["p"])).sum(),
        jnp.array([4.0, 0.0, 1.0]),
        num_warmup=400,
        num_samples=800,
        key=KEY,
    )
    exact = stats.dirichlet([5.0, 2.0, 4.0])
    error = mcse(posterior)["p"]
    assert np.all(np.abs(posterior.theta["p"].mean((0, 1)) - exact.mean()) < 4 * error)
    np.testing.assert_allclose(posterior.theta["p"].std((0, 1)), np.sqrt(exact.var()), rtol=0.1)


def test_the_potential_is_minus_the_log_density_of_z():
    """For a standard normal z, U(z) = |z|^2/2 + log(2 pi) - log-likelihood."""
    potential = problem_of(LINEAR, linear, Y).potential
    z = jnp.array([0.3, -1.2])
    theta = {"a": 1.0 + 2.0 * z[0], "b": -2.0 + 0.5 * z[1]}
    expected = 0.5 * (z**2).sum() + jnp.log(2 * jnp.pi) - linear(theta, Y)
    assert float(potential(z)) == pytest.approx(float(expected), rel=1e-5)


def flat_above_zero(theta, y):
    return jnp.where(theta["g"] > 0.0, -0.5 * (theta["g"] - y) ** 2, jnp.nan)


def test_starts_are_finite_prior_draws_and_differ():
    """Half of the prior has no likelihood; the posterior is N(1, 1) x N(0, 1) cut at zero: N(0.5, 1/2), g > 0."""
    prior = Prior({"g": dist.Normal(0.0, 1.0)})
    posterior = sample_mcmc(prior, flat_above_zero, 1.0, num_warmup=0, num_samples=1, num_chains=8, key=KEY)
    assert (posterior.theta["g"] > 0).all()
    assert len(np.unique(posterior.theta["g"])) > 4


def test_init_is_where_chains_start_and_runs_repeat():
    options = {"kernel": NUTS(max_tree_depth=1), "num_warmup": 0, "num_samples": 5, "num_chains": 2, "key": KEY}
    init = {"a": jnp.array([0.0, 5.0]), "b": jnp.array([-1.0, -1.0])}
    one, two = (sample_mcmc(LINEAR, linear, Y, init=init, **options) for _ in range(2))
    assert np.array_equal(one.theta["a"], two.theta["a"])
    assert one.theta["a"].shape == (2, 5)
    single = sample_mcmc(LINEAR, linear, Y, **{**options, "num_chains": 1})
    assert single.theta["a"].shape == (1, 5)
    assert single.sample_stats["energy"].shape == (1, 5)


def run(log_likelihood=linear, y=Y, prior=LINEAR, **options):
    return sample_mcmc(prior, log_likelihood, y, **{"num_warmup": 1, "num_samples": 1, "key": KEY, **options})


UNIT = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Uniform(0.0, 1.0)})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NUTS(engine="stan"), ValueError, "expected one of 'numpyro', 'blackjax'"),
        (lambda: NUTS(target_accept=1.5), ValueError, "expected a number between 0 and 1"),
        (lambda: NUTS(max_tree_depth=0), ValueError, "expected a positive whole number"),
        (lambda: run(num_chains=0), ValueError, "num_chains=0 was given; expected a positive whole number"),
        (
            lambda: run(lambda t, y: t["a"] - y),
            ValueError,
            r"returned an array of shape \[3\].*log_prob\(x_o\)\.sum\(\)",
        ),
        (
            lambda: run(lambda t, y: jnp.log(-1.0 - t["g"]), prior=UNIT),
            ValueError,
            "log_likelihood is NaN at 400 of 400",
        ),
        (
            lambda: run(lambda t, y: jnp.sqrt(t["h"] - t["h"]), prior=UNIT),
            ValueError,
            r"4 of 4 starts were not found.*its gradient in 'h' is not finite",
        ),
        (lambda: run(init={"a": jnp.zeros(4)}), ValueError, r"init\['b'\] is missing; expected \[4\]"),
        (
            lambda: run(init={"a": jnp.zeros(3), "b": jnp.zeros(4)}),
            ValueError,
            r"init\['a'\] has shape \[3\]; expected \[4\]",
        ),
        (
            lambda: run(init={"A": jnp.zeros(4)}),
            ValueError,
            "init names 'A'; the prior has no such parameter. Known: a, b",
        ),
        (
            lambda: run(
                lambda t, y: t["g"], prior=UNIT, init={"g": jnp.array([0.5, 0.5, 2.0, 0.5]), "h": jnp.full(4, 0.5)}
            ),
            ValueError,
            "init of chain 2 lies outside the prior",
        ),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("x_o", "kept"), [([1.0, 2.0], True), (np.float32(2.0), True), ({"y": 1.0}, False), (jax.random.key(0), False)]
)
def test_an_observation_that_numpy_cannot_hold_does_not_cost_the_finished_run(x_o, kept):
    from vbinfer.sampling.store import numbers

    observed = numbers(x_o)
    assert (observed is not None) == kept
    if kept:
        np.testing.assert_array_equal(observed, x_o)
