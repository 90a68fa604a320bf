"""Chains of many data sets in one program: closed-form posteriors, and what the next observation costs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import vbinfer as vb
from vbinfer.diagnostics.chain_measures import rhat
from vbinfer.sampling.problem import problem_of
from vbinfer.sampling.starts import likely_starts

KEY = jax.random.key(11)
DESIGN = np.array([[1.0, 0.5], [0.6, 2.0], [0.4, 1.0]])
NOISE = np.array([0.5, 1.0, 0.8])
MEAN, SD = np.array([1.0, -2.0]), np.array([2.0, 0.5])
PRIOR = vb.Prior({"a": dist.Normal(MEAN[0], SD[0]), "b": dist.Normal(MEAN[1], SD[1])})
COVARIANCE = np.linalg.inv(np.diag(SD**-2) + DESIGN.T @ np.diag(NOISE**-2) @ DESIGN)
COUNT, N = 60, 100


def linear(theta, x, scale=1.0):
    mean = jnp.asarray(DESIGN, jnp.float32) @ jnp.stack([theta["a"], theta["b"]])
    return dist.Normal(mean, scale * jnp.asarray(NOISE, jnp.float32)).log_prob(x).sum()


def means(x):
    return (MEAN / SD**2 + (x / NOISE**2) @ DESIGN) @ COVARIANCE


def study(seed, count):
    """theta `[count, 2]` of the prior and their data `[count, 3]`."""
    rng = np.random.default_rng(seed)
    theta = MEAN + SD * rng.normal(size=(count, 2))
    return theta, (theta @ DESIGN.T + NOISE * rng.normal(size=(count, 3))).astype(np.float32)


THETA, X = study(0, COUNT)
SAMPLER = vb.sampling.ChainSampler(PRIOR, linear, num_warmup=200, batch_size=32)


@pytest.fixture(scope="module")
def batch():
    return SAMPLER.run_batch(X, n=N, key=KEY)


def test_the_noise_that_picks_a_start_does_not_know_the_candidates():
    """Under a flat likelihood starts are draws of the prior: every coordinate of z is N(0, 1).

    Gumbel noise from the key of the second leaf took the candidate whose second coordinate was the largest of 64, with
    a mean of 2.4. 400 starts: a mean beyond 4 / sqrt(400) has probability 6e-5.
    """
    flat = problem_of(PRIOR, lambda theta, x: 0.0 * (theta["a"] + theta["b"]) + x.sum(), np.zeros(1))
    z = likely_starts(dataclasses.replace(flat, x=jnp.zeros((400, 1))), jax.random.split(KEY, 400))
    assert z.shape == (400, 2)
    assert np.abs(np.asarray(z).mean(0)).max() < 0.2
    assert min(stats.kstest(column, "norm").pvalue for column in np.asarray(z).T) > 1e-4


def flat(theta):
    return np.stack([np.asarray(theta["a"], float), np.asarray(theta["b"], float)], -1)


def test_every_data_set_has_its_closed_form_posterior(batch):
    """n independent draws: (mean - exact) sqrt(n) / sd is N(0, 1) and (n - 1) var / exact is chi-squared, per data set.

    60 x 2 of each: the largest of 120 normals is below 4 with probability 0.992; the sum of their squares is
    chi-squared with 120 degrees of freedom, and falls if draws repel each other, rises if they are correlated.
    """
    draws = flat(batch.theta)
    assert draws.shape == (COUNT, N, 2)
    z = (draws.mean(1) - means(X)) / np.sqrt(np.diag(COVARIANCE) / N)
    assert np.abs(z).max() < 4.0
    assert stats.chi2.ppf(0.001, 120) * 0.5 < (z**2).sum() < stats.chi2.ppf(0.999, 120) * 1.2
    ratio = draws.var(1, ddof=1) / np.diag(COVARIANCE)
    assert np.abs(ratio - 1.0).max() < 5.0 * np.sqrt(2.0 / N)
    assert abs(ratio.mean() - 1.0) < 4.0 * np.sqrt(2.0 / N / 120)
    centred = (draws - means(X)[:, None]) / np.sqrt(np.diag(COVARIANCE))
    correlation = (centred[..., 0] * centred[..., 1]).mean()
    exact = COVARIANCE[0, 1] / np.sqrt(COVARIANCE[0, 0] * COVARIANCE[1, 1])
    assert abs(exact) > 0.3
    assert abs(correlation - exact) < 4.0 / np.sqrt(COUNT * N)


def test_what_is_said_of_each_data_set(batch):
    assert (batch.ess >= N).all()
    assert (batch.rhat < 1.1).all()
    assert batch.trusted.all()
    assert batch.findings == ()
    assert not batch.diverging.any()
    assert set(batch.draws) <= {100, 200, 400, 800}
    assert ((batch.num_steps >= 1) & (batch.num_steps < 15)).all()


def ranks(theta, draws):
    return (draws < theta[:, None]).sum(1)


@pytest.mark.slow
def test_ranks_are_uniform_and_of_half_the_noise_are_not(batch):
    """Chi-squared of 5 bins of ranks, both parameters: a level of 0.001 for the right likelihood, far beyond for half.

    Half the noise sd makes the posterior about half as wide: about 40 % of ranks, not 10 %, end in the outer tenths.
    """

    def p(draws):
        share = (ranks(THETA, draws) + 0.5) / (N + 1)
        counts = np.stack([np.histogram(share[:, i], 5, (0, 1))[0] for i in range(2)])
        return stats.chisquare(counts, axis=1).pvalue

    assert p(flat(batch.theta)).min() > 0.001
    narrow = vb.sampling.ChainSampler(PRIOR, lambda theta, x: linear(theta, x, 0.4), num_warmup=200)
    assert p(flat(narrow.sample_batch(X, n=N, key=KEY))).min() < 1e-3


def test_a_data_set_does_not_depend_on_its_neighbours(batch):
    """The first 30 of 60, in blocks of the same width, are bit for bit those of all 60."""
    some = SAMPLER.run_batch(X[:30], n=N, key=KEY)
    for name in PRIOR.shapes:
        assert np.array_equal(np.asarray(some.theta[name]), np.asarray(batch.theta[name])[:30])
    assert np.array_equal(some.ess, batch.ess[:30])


def test_one_observation_by_the_same_source():
    posterior = SAMPLER.sample(X[3], n=1_000, key=KEY)
    assert posterior.num_chains == 4
    assert posterior.num_samples == 250
    error = np.sqrt(np.diag(COVARIANCE) / 400)
    assert (np.abs(posterior.ravel().mean(0) - means(X[3])) < 4 * error).all()
    np.testing.assert_array_equal(posterior.x_o, X[3])
    assert max(rhat(posterior).values()) < 1.05


def compiled():
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: events.append(name) if "backend_compile" in name else None
    )
    return events


def test_the_next_observation_compiles_nothing():
    """It did, for each x_o: a program held its observation as a constant."""
    SAMPLER.sample(X[4], n=400, key=KEY)
    events = compiled()
    other = SAMPLER.sample(X[5], n=400, key=KEY)
    assert events == []
    assert (np.abs(other.ravel().mean(0) - means(X[5])) < 5 * np.sqrt(np.diag(COVARIANCE) / 150)).all()


@pytest.mark.slow
def test_trees_of_arrays_and_lognormal_priors():
    """log g ~ N(0.5, 1) seen twice as y = log g + N(0, sd): log g | y is Gaussian, sd given with the data."""
    prior = vb.Prior({"g": dist.LogNormal(0.5, 1.0)})

    def log_likelihood(theta, x):
        return dist.Normal(jnp.log(theta["g"]), x["sd"]).log_prob(x["y"]).sum()

    x = {"y": np.array([[1.0, 2.0], [-1.0, 0.2]], np.float32), "sd": np.array([0.5, 1.0], np.float32)}
    sampler = vb.sampling.ChainSampler(prior, log_likelihood, kernel=vb.sampling.HMC(), num_warmup=200)
    draws = np.log(np.asarray(sampler.sample_batch(x, n=500, key=KEY)["g"], float))
    for i in range(2):
        precision = 1.0 + 2.0 / x["sd"][i] ** 2
        mean = (0.5 + x["y"][i].sum() / x["sd"][i] ** 2) / precision
        assert abs(draws[i].mean() - mean) < 4.5 / np.sqrt(500 * precision)
        assert abs(draws[i].var() * precision - 1.0) < 5 * np.sqrt(2 / 500)


def test_chains_in_two_modes_are_warned_of():
    """x = theta^2 + N(0, 0.1): modes at +-2, between which no chain goes; a theta of +-0.2 is one mode."""
    prior = vb.Prior({"a": dist.Normal(0.0, 2.0)})

    def square(theta, x):
        return dist.Normal(theta["a"] ** 2, 0.1).log_prob(x).sum()

    sampler = vb.sampling.ChainSampler(prior, square, num_warmup=100, num_chains=8, max_thinning=1)
    done = sampler.run_batch(np.array([[4.0], [-1.0]]), n=80, key=KEY)
    assert done.rhat[0] > 1.2  # 1.66 for halves, 1.3 for one chain of eight in the other mode, of ranks
    assert not done.trusted[0]
    assert "the chains of 1 of 2 data sets disagree" in done.findings[0]
    assert "data sets 0)" in done.findings[0]
    with pytest.warns(UserWarning, match=r"data sets disagree \(R-hat above 1\.1"):
        sampler.sample_batch(np.array([[4.0], [-1.0]]), n=80, key=KEY)


def test_starts_are_finite_where_half_of_the_prior_is_not():
    prior = vb.Prior({"g": dist.Normal(0.0, 1.0)})

    def half(theta, x):
        return jnp.where(theta["g"] > 0.0, -0.5 * ((theta["g"] - x) ** 2).sum(), jnp.nan)

    draws = vb.sampling.ChainSampler(prior, half, num_warmup=100).sample_batch(np.ones((3, 1)), n=200, key=KEY)["g"]
    exact = stats.truncnorm(-0.5 / np.sqrt(0.5), np.inf, loc=0.5, scale=np.sqrt(0.5))
    assert (np.asarray(draws) > 0).all()
    assert np.abs(np.asarray(draws).mean(1) - exact.mean()).max() < 4.5 * exact.std() / np.sqrt(150)

    def never(theta, x):
        return jnp.nan * theta["g"] * x.sum()

    with pytest.raises(ValueError, match=r"12 of 12 starts were not found.*Narrow the prior"):
        vb.sampling.ChainSampler(prior, never).sample_batch(np.ones((3, 1)), n=20, key=KEY)


def by_numpy(theta, x):
    return dist.Normal(theta["a"], 1.0).log_prob(np.asarray(x)).sum()


def by_if(theta, x):
    return theta["a"] if x[0] > 0 else -theta["a"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: vb.sampling.ChainSampler(PRIOR, 3.0), TypeError, r"log_likelihood is a float; expected a function"),
        (
            lambda: vb.sampling.ChainSampler(PRIOR, linear, kernel=vb.sampling.NUTS),
            TypeError,
            r"write kernel=vb\.sampling\.NUTS\(\)",
        ),
        (
            lambda: vb.sampling.ChainSampler(PRIOR, linear, kernel=vb.sampling.TemperedSMC()),
            TypeError,
            r"expected a kernel of chains",
        ),
        (lambda: vb.sampling.ChainSampler(PRIOR, linear, num_chains=0), ValueError, r"num_chains=0 was given"),
        (lambda: vb.sampling.ChainSampler(PRIOR, linear, num_warmup=-1), ValueError, r"num_warmup=-1 was given"),
        (lambda: vb.sampling.ChainSampler(PRIOR, linear, batch_size=0), ValueError, r"batch_size=0 was given"),
        (lambda: SAMPLER.sample_batch(X, n=0, key=KEY), ValueError, r"n=0 was given"),
        (lambda: SAMPLER.sample_batch(3.0, n=10, key=KEY), ValueError, r"x has shape \[\].*write x\[None\]"),
        (
            lambda: vb.sampling.ChainSampler(PRIOR, by_numpy).sample_batch(X, n=10, key=KEY),
            TypeError,
            r"log_likelihood uses NumPy, float\(\) or an if on x.*write jnp for np",
        ),
        (
            lambda: vb.sampling.ChainSampler(PRIOR, by_if).sample(X[0], n=10, key=KEY),
            TypeError,
            r"log_likelihood uses NumPy, float\(\) or an if on x",
        ),
        (
            lambda: vb.sampling.ChainSampler(PRIOR, lambda theta, x: x).sample_batch(X, n=10, key=KEY),
            ValueError,
            r"log_likelihood returned an array of shape \[3\].*expected one real number",
        ),
    ],
)
def test_mistakes(make, error, message):
    with pytest.raises(error, match=message):
        make()
