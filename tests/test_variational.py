"""Variational inference and Pathfinder against Gaussian posteriors, and against one that is bent."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal
from regression import regression
from scipy import stats

import vbinfer as vb
from vbinfer.diagnostics.thresholds import PARETO_K
from vbinfer.priors.prior import Prior
from vbinfer.sampling.importance import pareto_smoothed, warn_of_k

KEY = jax.random.key(2)
KNOWN = regression(3)
SD = np.sqrt(np.diag(KNOWN.covariance))
PROBLEM = (KNOWN.prior, KNOWN.log_likelihood, KNOWN.y)


def test_the_full_guide_is_exact_for_a_linear_regression(tmp_path):
    posterior = vb.approximate.fit_vi(*PROBLEM, num_samples=4000, key=KEY)
    draws = posterior.theta["b"][0]
    assert np.abs((draws.mean(axis=0) - KNOWN.mean) / SD).max() < 0.08
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(SD, SD), KNOWN.covariance / np.outer(SD, SD), atol=0.1)
    assert posterior.info["elbo"] == pytest.approx(KNOWN.log_evidence, abs=0.02)  # ELBO = log p(x_o) - KL
    assert posterior.info["elbo"] < KNOWN.log_evidence + 4 * posterior.info["elbo_error"]
    assert posterior.info["log_evidence_importance"] == pytest.approx(KNOWN.log_evidence, abs=0.01)
    expected = stats.multivariate_normal.logpdf(draws, KNOWN.mean, KNOWN.covariance)
    assert np.abs(posterior.log_prob[0] - expected).mean() < 0.1
    posterior.save(tmp_path / "vi.npz")
    assert vb.load(tmp_path / "vi.npz").info == posterior.info


@pytest.mark.filterwarnings("ignore:Pareto k")
def test_the_diagonal_guide_is_too_narrow_by_the_known_amount():
    """The best diagonal q has variances 1 / P_ii, over z and over theta alike, which differ by scales only."""
    posterior = vb.approximate.fit_vi(*PROBLEM, guide="diagonal", num_steps=1000, num_samples=4000, key=KEY)
    narrow = 1.0 / np.sqrt(np.diag(KNOWN.precision))
    assert (narrow / SD).min() < 0.8
    np.testing.assert_allclose(posterior.theta["b"][0].std(axis=0), narrow, rtol=0.06)
    gap = 0.5 * (np.log(np.diag(KNOWN.precision)).sum() - np.linalg.slogdet(KNOWN.precision)[1])  # KL(q || posterior)
    assert posterior.info["elbo"] == pytest.approx(KNOWN.log_evidence - gap, abs=0.05)


BENT = Prior({"x": dist.Normal(0.0, 2.0), "w": dist.Normal(1.0, 10.0)})


def bend(theta, y):
    """w | x near x^2 / 4: a banana, whose evidence is near that of no data, N(0; x^2/4 - 1, 10^2 + 0.5^2) over x."""
    return dist.Normal(theta["x"] ** 2 / 4, 0.5).log_prob(theta["w"] + y)


def bend_evidence():
    x = np.linspace(-16.0, 16.0, 20001)
    density = stats.norm.pdf(x, 0.0, 2.0) * stats.norm.pdf(x**2 / 4, 1.0, np.sqrt(100.25))
    return np.log(density.sum() * (x[1] - x[0]))


@pytest.mark.filterwarnings("ignore:Pareto k")
@pytest.mark.slow
def test_a_flow_follows_a_banana_that_a_normal_cannot():
    exact = bend_evidence()
    full = vb.approximate.fit_vi(BENT, bend, 0.0, num_steps=1000, key=KEY)
    flow = vb.approximate.fit_vi(BENT, bend, 0.0, guide="flow", num_steps=1500, key=KEY)
    assert full.info["elbo"] < exact - 0.4
    assert exact - 0.25 < flow.info["elbo"] < exact + 4 * flow.info["elbo_error"]
    assert flow.info["log_evidence_importance"] == pytest.approx(exact, abs=0.1)
    x, w = flow.theta["x"][0], flow.theta["w"][0]
    assert np.corrcoef(x**2, w)[0, 1] > 0.7  # a centred normal has none; the posterior has 0.94
    # log q is a density over theta: its draws weighted by prior / q have the prior's mass
    ratio = np.exp(np.asarray(BENT.log_prob(flow.theta))[0] - flow.log_prob[0])
    assert np.isfinite(flow.log_prob).all()
    assert ratio.mean() < 1.5


@pytest.mark.slow
def test_a_guide_function_and_a_class_of_numpyro():
    """g ~ LogNormal(0, 1), log g seen as 1 with sd 1: log g | y ~ N(1/2, 1/2), which this guide holds."""
    prior = Prior({"g": dist.LogNormal(0.0, 1.0)})

    def guide():
        loc = numpyro.param("loc", 0.0)
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        numpyro.sample("g", dist.LogNormal(loc, scale))

    def log_likelihood(theta, y):
        return dist.Normal(jnp.log(theta["g"]), 1.0).log_prob(y)

    exact = stats.lognorm(s=np.sqrt(0.5), scale=np.exp(0.5))
    posterior = vb.approximate.fit_vi(prior, log_likelihood, 1.0, guide=guide, num_steps=1000, key=KEY)
    inner = posterior.theta["g"][0]
    np.testing.assert_allclose(posterior.log_prob[0], exact.logpdf(inner), atol=0.2)
    assert posterior.info["elbo"] == pytest.approx(stats.norm.logpdf(1.0, 0.0, np.sqrt(2.0)), abs=0.01)
    low_rank = vb.approximate.fit_vi(*PROBLEM, guide=AutoLowRankMultivariateNormal, num_steps=1000, key=KEY)
    assert low_rank.info["elbo"] == pytest.approx(KNOWN.log_evidence, abs=0.1)
    assert low_rank.info["guide"] == "AutoLowRankMultivariateNormal"


@pytest.mark.slow
def test_pathfinder_on_a_linear_regression_and_as_a_start_of_chains():
    posterior = vb.approximate.pathfinder(*PROBLEM, num_samples=2000, key=KEY)
    draws = posterior.theta["b"][0]
    assert posterior.log_evidence == pytest.approx(KNOWN.log_evidence, abs=0.05)
    assert np.abs((draws.mean(axis=0) - KNOWN.mean) / SD).max() < 0.1
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(SD, SD), KNOWN.covariance / np.outer(SD, SD), atol=0.12)
    assert posterior.info["pareto_k"] < 0.7
    assert sum(posterior.info["path_share"]) == pytest.approx(1.0)
    # log q is normalised: draws of it before resampling have E_q[p / q] = evidence, so log p - log q centres there
    target = np.asarray(jax.vmap(lambda b: KNOWN.prior.log_prob({"b": b}) + KNOWN.log_likelihood({"b": b}, KNOWN.y))(
        jnp.asarray(draws)
    ))  # fmt: skip
    assert np.median(target - posterior.log_prob[0]) == pytest.approx(KNOWN.log_evidence, abs=0.3)
    chains = vb.sample_mcmc(*PROBLEM, init=posterior, num_warmup=100, num_samples=300, num_chains=2, key=KEY)
    assert np.all(np.abs(chains.theta["b"].mean((0, 1)) - KNOWN.mean) < 4 * vb.diagnostics.mcse(chains)["b"])


@pytest.mark.filterwarnings("ignore:Pareto k")
@pytest.mark.slow
def test_pathfinder_on_a_banana_and_on_two_modes():
    bent = vb.approximate.pathfinder(BENT, bend, 0.0, num_paths=6, key=KEY)
    assert abs(bent.theta["x"].mean()) < 0.8
    assert bent.log_evidence == pytest.approx(bend_evidence(), abs=0.7)
    prior = Prior({"a": dist.Normal(0.3, 1.0)})
    posterior = vb.approximate.pathfinder(
        prior, lambda theta, y: dist.Normal(theta["a"] ** 2, 0.2).log_prob(y), 1.5, num_paths=8, key=KEY
    )
    a = np.linspace(-4.0, 4.0, 4001)
    density = stats.norm.pdf(1.5, a**2, 0.2) * stats.norm.pdf(a, 0.3, 1.0)
    assert (posterior.theta["a"] > 0).mean() == pytest.approx(density[a > 0].sum() / density.sum(), abs=0.06)
    assert posterior.log_evidence == pytest.approx(np.log(density.sum() * (a[1] - a[0])), abs=0.1)


def test_pareto_smoothing_finds_the_tail_and_keeps_the_mean():
    """u^-k with u uniform has a Pareto tail of shape k and the mean 1 / (1 - k)."""
    rng = np.random.default_rng(0)
    for k in (0.2, 0.5, 0.9):
        smoothed = pareto_smoothed(-k * np.log(rng.uniform(size=20_000)))
        assert smoothed.pareto_k == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(424))  # of the 424 ratios in the tail
    light = pareto_smoothed(0.3 * rng.normal(size=20_000))
    assert light.log_mean == pytest.approx(0.3**2 / 2, abs=0.01)
    assert np.exp(light.log_weights).sum() == pytest.approx(1.0)
    assert pareto_smoothed(np.full(100, 3.0)).pareto_k == -np.inf


def test_a_density_far_from_the_posterior_is_warned_of():
    with pytest.warns(UserWarning, match=f"Pareto k is 0.90, above {PARETO_K}: the density that fit_vi fitted is far"):
        warn_of_k(0.9, "fit_vi")


UNIT = Prior({"g": dist.Uniform(0.0, 1.0), "h": dist.Uniform(0.0, 1.0)})


def half(theta, y):
    """Rises up to where it ends."""
    return jnp.where(theta["g"] < 0.5, 10.0 * theta["g"], jnp.nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: vb.approximate.fit_vi(UNIT, half, 0.0, guide="flows", key=KEY),
            ValueError,
            "expected one of 'diagonal', 'full'",
        ),
        (
            lambda: vb.approximate.fit_vi(UNIT, half, 0.0, guide=3, key=KEY),
            TypeError,
            "write guide=AutoLowRankMultivariateNormal",
        ),
        (
            lambda: vb.approximate.fit_vi(UNIT, half, 0.0, learning_rate=0.0, key=KEY),
            ValueError,
            "expected a positive number",
        ),
        (
            lambda: vb.approximate.fit_vi(
                UNIT, half, 0.0, guide=lambda: numpyro.sample("g", dist.Beta(2.0, 2.0)), key=KEY
            ),
            ValueError,
            r"the guide samples g; the prior has g, h: write numpyro.sample\('g', ...\)",
        ),
        (
            lambda: vb.approximate.fit_vi(UNIT, half, 0.0, num_steps=20, key=KEY),
            ValueError,
            r"the ELBO is not finite at \d+ of 20 steps, first at step \d+: log_likelihood is NaN or infinite",
        ),
        (lambda: vb.approximate.pathfinder(UNIT, half, 0.0, num_paths=0, key=KEY), ValueError, "num_paths=0 was given"),
        (
            lambda: vb.approximate.pathfinder(UNIT, lambda t, y: jnp.log(-t["g"]), 0.0, key=KEY),
            ValueError,
            "4 of 4 starts were not found among 100 prior draws each: log_likelihood is NaN at 400 of 400",
        ),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
