"""Tempered SMC against evidences and mode weights that are known in closed form or by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from regression import regression
from scipy import stats

from vbinfer.diagnostics.chain_measures import rhat
from vbinfer.priors.prior import Prior
from vbinfer.sampling import NUTS, TemperedSMC, sample_mcmc
from vbinfer.sampling.tempering import next_increment, systematic

KEY = jax.random.key(11)


def smc(prior, log_likelihood, y, **options):
    options = {"kernel": TemperedSMC(), "num_samples": 1000, "num_chains": 4, "key": KEY, **options}
    return sample_mcmc(prior, log_likelihood, y, **options)


def evidence_agrees(posterior, exact):
    error = posterior.info["log_evidence_error"]
    assert error < 0.15
    assert abs(posterior.log_evidence - exact) < 4 * error, (posterior.log_evidence, exact, error)


@pytest.mark.parametrize("width", [1, 4, 10])
def test_evidence_and_moments_of_a_linear_regression(width):
    known = regression(width)
    # the moves are tuned on the particles themselves, which biases log Z by O(1/N): -0.09 at ten parameters and a
    # thousand particles (three keys), below the error of four repeats at four thousand
    posterior = smc(known.prior, known.log_likelihood, known.y, num_samples=4000 if width == 10 else 1000)
    evidence_agrees(posterior, known.log_evidence)
    draws, sd = posterior.ravel(), np.sqrt(np.diag(known.covariance))
    assert np.abs((draws.mean(axis=0) - known.mean) / sd).max() < 0.12  # 4 / sqrt(4000 / 4)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.1)
    if width == 4:
        correlation = known.covariance / np.outer(sd, sd)
        np.testing.assert_allclose(np.corrcoef(draws.T), correlation, atol=0.1)
    assert max(np.max(value) for value in rhat(posterior).values()) < 1.02


SD, STEPS, DT = 0.05, 200, 0.05
MODES = Prior({"a": dist.Normal(0.4, 0.8), "k": dist.LogNormal(0.0, 0.5)})


def saturating(a, k):
    """dx/dt = -k x + a^2 (1 - x) from 0, by Heun's method; every tenth of 200 steps."""

    def drift(x):
        return -k * x + a * a * (1.0 - x)

    def step(x, _):
        first = drift(x)
        x = x + 0.5 * DT * (first + drift(x + DT * first))
        return x, x

    return jax.lax.scan(step, jnp.zeros_like(a), None, length=STEPS)[1][9::10]


def sees_the_square(theta, y):
    return dist.Normal(saturating(theta["a"], theta["k"]), SD).log_prob(y).sum()


@pytest.fixture(scope="module")
def seen():
    truth = saturating(jnp.asarray(0.9), jnp.asarray(1.2))
    return truth + SD * jax.random.normal(jax.random.key(3), truth.shape)


def quadrature(y):
    """Share of a > 0, log evidence and E[k], on a grid over a and log k, in float64 NumPy."""
    a, log_k = np.linspace(-3.0, 3.0, 801), np.linspace(np.log(0.1), np.log(8.0), 401)
    A, K = np.meshgrid(a, np.exp(log_k), indexing="ij")
    x, total = np.zeros_like(A), np.zeros_like(A)
    for i in range(STEPS):
        slope = A**2 - (K + A**2) * x
        ahead = x + DT * slope
        x = x + DT * (slope + A**2 - (K + A**2) * ahead) / 2
        if i % 10 == 9:
            total += stats.norm.logpdf(float(y[i // 10]), x, SD)
    total += stats.norm.logpdf(A, 0.4, 0.8) + stats.norm.logpdf(log_k, 0.0, 0.5)
    weight = np.exp(total - total.max())
    evidence = total.max() + np.log(weight.sum() * (a[1] - a[0]) * (log_k[1] - log_k[0]))
    return weight[a > 0].sum() / weight.sum(), evidence, (weight * K).sum() / weight.sum()


@pytest.mark.slow
def test_both_modes_of_an_ode_with_their_weights(seen):
    share, evidence, mean_k = quadrature(np.asarray(seen, float))
    assert 0.7 < share < 0.8  # the prior prefers one sign, the data neither
    posterior = smc(MODES, sees_the_square, seen)
    assert abs((posterior.theta["a"] > 0).mean() - share) < 0.05
    evidence_agrees(posterior, evidence)
    assert posterior.theta["k"].mean() == pytest.approx(mean_k, rel=0.02)


def test_chains_from_dispersed_starts_do_not_hide_that_they_disagree(seen):
    chains = sample_mcmc(MODES, sees_the_square, seen, kernel=NUTS(max_tree_depth=6), num_warmup=150, num_samples=150,
                         num_chains=4, key=jax.random.key(1))  # fmt: skip
    assert rhat(chains)["a"] > 1.01


@pytest.mark.slow
def test_uniform_and_lognormal_priors():
    """g ~ U(0, 1) seen as 0.95 with sd 0.3, log h ~ N(0.5, 1) seen as 2 with sd 0.5: truncated and conjugate."""
    prior = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.LogNormal(0.5, 1.0)})

    def log_likelihood(theta, y):
        return dist.Normal(theta["g"], 0.3).log_prob(y[0]) + dist.Normal(jnp.log(theta["h"]), 0.5).log_prob(y[1])

    posterior = smc(prior, log_likelihood, jnp.array([0.95, 2.0]))
    inside = stats.norm.cdf((1.0 - 0.95) / 0.3) - stats.norm.cdf((0.0 - 0.95) / 0.3)
    evidence_agrees(posterior, np.log(inside) + stats.norm.logpdf(2.0, 0.5, np.sqrt(1.25)))
    g = stats.truncnorm(-0.95 / 0.3, 0.05 / 0.3, loc=0.95, scale=0.3)
    h = stats.lognorm(s=np.sqrt(0.2), scale=np.exp(0.2 * 0.5 + 0.8 * 2.0))
    for name, exact in (("g", g), ("h", h)):
        assert stats.kstest(posterior.theta[name].ravel(), exact.cdf).statistic < 4 * 0.87 / np.sqrt(4000 / 4)
    theta = {name: value[1, 7] for name, value in posterior.theta.items()}
    expected = prior.log_prob(theta) + log_likelihood(theta, jnp.array([0.95, 2.0]))
    assert posterior.log_prob[1, 7] == pytest.approx(float(expected), abs=1e-4)


def test_parameters_without_a_likelihood_have_weight_zero():
    """N(0, 1) x exp(-(g - 1)^2 / 2) on g > 0 only: N(1/2, 1/2) cut at zero, Z = exp(-1/4) Phi(sqrt(1/2)) / sqrt(2)."""
    prior = Prior({"g": dist.Normal(0.0, 1.0)})
    posterior = smc(prior, lambda theta, y: jnp.where(theta["g"] > 0, -0.5 * (theta["g"] - y) ** 2, jnp.nan), 1.0)
    evidence_agrees(posterior, -0.25 + stats.norm.logcdf(np.sqrt(0.5)) - 0.5 * np.log(2.0))
    exact = stats.truncnorm(-np.sqrt(0.5), np.inf, loc=0.5, scale=np.sqrt(0.5))
    assert posterior.theta["g"].min() > 0.0
    assert stats.kstest(posterior.theta["g"].ravel(), exact.cdf).statistic < 4 * 0.87 / np.sqrt(4000 / 4)
    assert posterior.info["invalid_prior_share"] == pytest.approx(0.5, abs=0.04)


def test_runs_repeat_and_say_what_they_did():
    known = regression(2)
    one, two = (smc(known.prior, known.log_likelihood, known.y, num_samples=60, num_chains=2) for _ in range(2))
    assert np.array_equal(one.theta["b"], two.theta["b"])
    assert not np.array_equal(one.theta["b"][0], one.theta["b"][1])
    assert set(one.sample_stats) == {"accept_prob", "num_steps", "step_size"}
    assert all(value.shape == (2, 60) for value in one.sample_stats.values())
    repeats = np.array(one.info["log_evidence_repeats"])
    assert one.log_evidence == pytest.approx(np.log(np.exp(repeats).mean()))
    assert all(ladder[0] == 0.0 and ladder[-1] == 1.0 and np.all(np.diff(ladder) > 0)
               for ladder in one.info["temperatures"])  # fmt: skip


def test_the_next_temperature_keeps_the_effective_sample_size():
    loglik = np.random.default_rng(0).normal(-3.0, 40.0, 400)
    loglik[:100] = -np.inf
    step = float(next_increment(jnp.asarray(loglik), jnp.asarray(1.0), 0.6))
    weight = np.exp(step * (loglik - loglik.max()))
    assert weight.sum() ** 2 / (weight**2).sum() == pytest.approx(0.6 * 300, rel=1e-2)
    assert float(next_increment(jnp.asarray(loglik * 1e-4), jnp.asarray(0.3), 0.6)) == pytest.approx(
        0.3
    )  # the last one


def test_systematic_resampling_gives_every_particle_its_share():
    weights = np.random.default_rng(1).dirichlet(np.full(50, 0.3))
    counts = np.bincount(np.asarray(systematic(KEY, jnp.asarray(weights))), minlength=50)
    assert np.all(np.abs(counts - 50 * weights) < 1.0 + 1e-4)


UNIT = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Uniform(0.0, 1.0)})


def run(log_likelihood, prior=UNIT, **options):
    return smc(prior, log_likelihood, 0.0, **{"num_samples": 40, "num_chains": 1, **options})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TemperedSMC(target_ess=1.0), "target_ess=1.0 was given; expected a number between 0 and 1"),
        (lambda: TemperedSMC(max_steps=0), "max_steps=0 was given; expected a positive whole number"),
        (lambda: run(lambda t, y: jnp.log(-1.0 - t["g"])), "no particle can move: log_likelihood is NaN at 40 of 40"),
        (
            lambda: run(lambda t, y: jnp.sqrt(t["h"] - t["h"])),
            "no particle can move: its gradient in 'h' is not finite at 40 of 40",
        ),
        (lambda: run(lambda t, y: jnp.where(t["g"] > 0.5, jnp.inf, 0.0)), r"log_likelihood is \+inf at \d+ of 40"),
        (lambda: run(lambda t, y: t["g"], init={"g": jnp.zeros(1), "h": jnp.zeros(1)}), "leave init out"),
        (lambda: run(lambda t, y: t["g"], store="somewhere"), "leave store out"),
        (lambda: run(lambda t, y: t["g"], num_samples=5), "num_samples=5 particles were given for 2 parameters"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
