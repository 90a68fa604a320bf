"""Posterior SBC: false alarms of an exact posterior, power against one that is wrong only around the observation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom

import vbinfer as vb
from vbinfer.diagnostics import thresholds
from vbinfer.diagnostics.local_sbc import _a_prior
from vbinfer.diagnostics.replicates import _weighted
from vbinfer.sampling import importance

GAIN = np.array([[1.0, 0.3], [-0.4, 0.8], [0.2, 0.1]])
OFFSET = np.array([10.0, -3.0, 0.5])
PRIOR_MEAN, PRIOR_SD, NOISE = np.array([2.0, -1.0]), np.array([3.0, 1.5]), np.array([0.3, 0.2, 0.5])
PRECISION = np.diag(PRIOR_SD**-2.0) + GAIN.T @ np.diag(NOISE**-2.0) @ GAIN
COV = np.linalg.inv(PRECISION)
PRIOR = vb.Prior({"coupling.G": dist.Normal(2.0, 3.0), "model.eta": dist.Normal(-1.0, 1.5)})
THETA_O = PRIOR_MEAN + np.array([1.8, -1.0]) * PRIOR_SD
X_O = OFFSET + GAIN @ THETA_O + np.array([0.2, -0.1, 0.3])
PREDICTIVE_SD = np.sqrt(np.diag(GAIN @ COV @ GAIN.T) + NOISE**2)


def near(x):
    """Within five posterior-predictive sds of the observation: 2 % of the prior predictive."""
    return (np.abs(x - X_O) < 5.0 * PREDICTIVE_SD)[..., :2].all(axis=-1)


def seeded(key):
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())


class Simulator:
    """theta -> A theta + b + e in float64 NumPy, many at once."""

    names = ("fc.mean", "fc.sd", "fcd.var")

    def __init__(self, fails=lambda theta: np.zeros(len(theta), bool)):
        self.fails = fails

    def __call__(self, theta, key):
        raise AssertionError("simulated one at a time")

    def batch(self, theta, keys):
        rows = np.stack([np.asarray(theta[name], float) for name in PRIOR.shapes], axis=1)
        noise = np.random.default_rng(np.asarray(jax.random.key_data(keys)).ravel().tolist()).normal(
            size=(len(rows), 3)
        )
        x = OFFSET + rows @ GAIN.T + NOISE * noise
        x[self.fails(rows)] = np.nan
        return x


class Exact:
    """The posterior of the linear problem; for x in `where` its sd is `scale` times as large and its mean is moved."""

    prior = PRIOR

    def __init__(self, scale=1.0, shift=0.0, where=near):
        self.scale, self.shift, self.where = scale, shift, where
        self.factor = np.linalg.cholesky(COV)

    def _mean_and_scale(self, x):
        wrong = self.where(x)
        mean = (PRIOR_MEAN / PRIOR_SD**2 + ((x - OFFSET) / NOISE**2) @ GAIN) @ COV
        return mean + (wrong * self.shift)[..., None] * np.sqrt(np.diag(COV)), np.where(wrong, self.scale, 1.0)

    def sample_batch(self, x, *, n, key):
        mean, scale = self._mean_and_scale(np.asarray(x, float))
        noise = seeded(key).normal(size=(len(mean), n, 2)) @ self.factor.T
        rows = mean[:, None] + scale[:, None, None] * noise
        return {name: rows[..., i] for i, name in enumerate(PRIOR.shapes)}

    def log_prob(self, theta, x):
        rows = np.stack([np.asarray(theta[name], float) for name in PRIOR.shapes], axis=-1)
        mean, scale = self._mean_and_scale(np.asarray(x, float))
        u = np.linalg.solve(self.factor, (rows - mean).T) / scale
        return -0.5 * (u**2).sum(axis=0) - np.log(np.diag(self.factor)).sum() - 2 * np.log(scale) - np.log(2 * np.pi)


class PriorItself:
    prior = PRIOR

    def sample_batch(self, x, *, n, key):
        rows = PRIOR_MEAN + PRIOR_SD * seeded(key).normal(size=(len(x), n, 2))
        return {name: rows[..., i] for i, name in enumerate(PRIOR.shapes)}

    def log_prob(self, theta, x):
        return np.asarray(PRIOR.log_prob(theta))


def asked(source, seed, n=300, simulator=None, x_o=X_O, **options):
    return vb.diagnostics.posterior_sbc(
        source, PRIOR, simulator or Simulator(), x_o, n=n, key=jax.random.key(seed), **options
    )


def globally(source, seed, n=300):
    rng = np.random.default_rng([5, seed])
    theta = PRIOR_MEAN + PRIOR_SD * rng.normal(size=(n, 2))
    x = OFFSET + theta @ GAIN.T + NOISE * rng.normal(size=(n, 3))
    draws = vb.Draws.from_arrays({name: theta[:, i] for i, name in enumerate(PRIOR.shapes)}, x, names=Simulator.names)
    return vb.diagnostics.sbc(source, draws, num_posterior_samples=100, key=jax.random.key(seed))


@pytest.mark.slow
def test_an_exact_posterior_passes_as_often_as_promised():
    found = [asked(Exact(), seed, n=130, num_posterior_samples=50) for seed in range(100)]
    assert sum(not one.passed for one in found) <= binom.ppf(0.999, 100, 0.05)
    p = np.array([[row.p for row in one.tests] for one in found])
    assert p.shape == (100, 13)
    for level in (0.05, 0.2):  # per row over studies: binomial, in the worst of 13
        share = (p < level).mean(axis=0)
        assert np.all(np.abs(share - level) < 4.0 * np.sqrt(level * (1 - level) / 100))
    passed = next(one for one in found if one.passed)
    assert passed.method == "importance"
    assert passed.findings[0].startswith("Around this observation the posterior is as sure as it should be")


WRONG = {  # change -> (words of a finding, parameter or None)
    "too narrow": ({"scale": 0.7}, "too narrow"),
    "too wide": ({"scale": 1.4}, "x still tells where the truth lies"),
    "shifted": ({"shift": 0.7}, "lies too high"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_only_around_the_observation_is_found_here_and_missed_over_the_prior(name):
    change, words = WRONG[name]
    source = Exact(**change)
    assert all(asked(source, seed).verdict == "fail" for seed in range(4))
    assert words in " ".join(asked(source, 0).findings)
    assert sum(globally(source, seed).passed for seed in range(5)) >= 3


def test_what_is_wrong_elsewhere_is_not_held_against_this_observation():
    source = Exact(scale=0.5, where=lambda x: ~near(x))
    found = [asked(source, seed) for seed in range(5)]
    assert sum(one.passed for one in found) >= 3
    assert globally(source, 0).verdict == "fail"


def test_the_prior_as_a_posterior_fails_where_data_tell_and_is_called_nothing_learned():
    found = asked(PriorItself(), 0)
    assert found.verdict == "fail"
    assert "nothing learned" in " ".join(found.findings)
    assert "x still tells where the truth lies" in " ".join(found.findings)

    class Noise:
        def __call__(self, theta, key):
            return jax.random.normal(key, (3,))

    right = asked(PriorItself(), 0, simulator=Noise())
    assert right.verdict == "warn"  # right, and useless
    assert all(row.status == "pass" for row in right.tests)
    assert "nothing learned" in right.findings[1]


def test_failed_replicates_are_left_out_and_counted():
    simulator = Simulator(fails=lambda theta: theta[:, 0] > THETA_O[0])
    found = asked(Exact(), 3, n=200, simulator=simulator)
    assert found.failed > 50
    assert len(found.ranks) + found.left_out + found.failed == 200
    assert f"{found.failed} of 200 replicates failed" in " ".join(found.findings)


def test_few_replicates_are_no_clean_pass():
    found = asked(Exact(), 1, n=70)
    assert found.verdict == "warn"
    assert all(row.status == "pass" for row in found.tests)
    assert f"{len(found.ranks)} replicates are few" in " ".join(found.findings)


def test_weighted_rows_are_taken_in_proportion_to_their_weights():
    weights = np.array([[0.2, 0.0, 0.5, 0.3], [1e-8, 1.0, 0.0, 1.0]])
    with np.errstate(divide="ignore"):
        chosen = _weighted(np.log(weights) + 1e3, 20_000, np.random.default_rng(0))
    for row, weight in zip(chosen, weights, strict=True):
        share = np.bincount(row, minlength=4) / 20_000
        np.testing.assert_allclose(share, weight / weight.sum(), atol=4 * np.sqrt(0.25 / 20_000))


class Likelihood:
    """log p(x | theta), its noise taken `scale` times as large near the observation; as a learned likelihood is."""

    prior = PRIOR

    def __init__(self, scale):
        self.scale = scale

    def log_likelihood(self, theta, x):
        mean = jnp.asarray(OFFSET) + jnp.asarray(GAIN) @ jnp.stack([theta["coupling.G"], theta["model.eta"]])
        wrong = (jnp.abs(x - X_O) < 6.0 * PREDICTIVE_SD)[..., :2].all()
        sd = jnp.asarray(NOISE) * jnp.where(wrong, self.scale, 1.0)
        return jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd))


def by_chains(scale):
    sampler = vb.sampling.ChainSampler(
        PRIOR, Likelihood(scale).log_likelihood, num_warmup=100, num_chains=2, batch_size=100
    )
    return asked(sampler, 1, n=100, num_posterior_samples=40)


@pytest.mark.slow
def test_a_likelihood_wrong_around_the_observation_is_found_by_chains():
    narrow = by_chains(0.5)
    assert (narrow.method, narrow.verdict, len(narrow.pareto_k)) == ("chains", "fail", 0)
    assert "too narrow" in " ".join(narrow.findings)


@pytest.mark.slow
def test_a_right_likelihood_is_conditioned_on_both_data_sets_by_chains():
    assert by_chains(1.0).passed


MISTAKES = {
    "draws only": (
        lambda: asked(lambda x_o, n, key: None, 0),
        TypeError,
        r"neither \.log_likelihood nor \.log_prob.*vb\.sampling\.ChainSampler",
    ),
    "no prior": (
        lambda: _a_prior({"a": 1}),
        TypeError,
        r"prior is a dict; expected the vb\.Prior",
    ),
    "few replicates": (lambda: asked(Exact(), 0, n=49), ValueError, r"n=49 replicates .* at least 50"),
    "few draws": (
        lambda: asked(Exact(), 0, num_posterior_samples=9),
        ValueError,
        r"=9 was given; .* write num_posterior_samples=500",
    ),
    "nan": (
        lambda: asked(Exact(), 0, x_o=np.array([1.0, np.nan, 0.0])),
        ValueError,
        r"NaN or infinite values in x\[1\]; clean the recording",
    ),
    "matrix": (lambda: asked(Exact(), 0, x_o=np.zeros((2, 3))), ValueError, r"x_o has shape \[2, 3\]"),
    "all fail": (
        lambda: asked(Exact(), 0, n=60, simulator=Simulator(fails=lambda theta: np.arange(len(theta)) > 20)),
        ValueError,
        r"of 60 replicates failed; at least 50 that work",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_their_remedy(name):
    call, error, words = MISTAKES[name]
    with pytest.raises(error, match=words):
        call()


def test_another_summary_is_named():
    class Shorter:
        def __call__(self, theta, key):
            return jnp.stack([theta["coupling.G"], theta["model.eta"]])

    with pytest.raises(ValueError, match=r"the simulator returned 2 features and x_o has 3"):
        asked(Exact(), 0, simulator=Shorter())


def test_replicates_too_far_for_weights_are_refused():
    """Twelve parameters that data pin down: draws of one posterior cannot be weighed into another."""
    prior = vb.Prior({"w": dist.Normal(0.0, 30.0).expand([24])})

    class Pinned:
        def __call__(self, theta, key):
            return theta["w"] + jax.random.normal(key, (24,))

    class Right:
        def sample_batch(self, x, *, n, key):
            return {"w": np.asarray(x)[:, None] + seeded(key).normal(size=(len(x), n, 24))}

        def log_prob(self, theta, x):
            return -0.5 * ((np.asarray(theta["w"]) - x) ** 2).sum(axis=-1)

    with pytest.raises(ValueError, match=r"have a Pareto k above 0\.7: .* use vb\.NLE"):
        vb.diagnostics.posterior_sbc(
            Right(), prior, Pinned(), np.zeros(24), n=60, num_posterior_samples=20, key=jax.random.key(0)
        )


def test_weights_are_judged_alike():
    """One limit of Pareto k for samplers, which may not import diagnostics, and for diagnostics."""
    assert thresholds.PARETO_K is importance.PARETO_K
