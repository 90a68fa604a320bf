"""Proposals and rounds: truncated priors in closed form, draws however they ran, rounds nearer than one round."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from vbinfer.draws.draws import Draws
from vbinfer.draws.proposals import ProposalDraws
from vbinfer.draws.sample import load_store, sample_prior_predictive
from vbinfer.neural import truncated
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.nle import NLE
from vbinfer.neural.npe import NPE
from vbinfer.neural.nre import NRE
from vbinfer.neural.rounds import fit_rounds
from vbinfer.neural.sbi import SbiEstimator
from vbinfer.neural.training import Training
from vbinfer.neural.truncated import TruncatedPrior
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

KEY = jax.random.key(11)
BOX = Prior({"a": dist.Uniform(-4.0, 6.0).expand([2]), "b": dist.Uniform(0.0, 12.0)})
CENTRE = np.array([1.0, -2.0, 7.0])
COV = np.array([[0.09, 0.05, 0.0], [0.05, 0.16, -0.06], [0.0, -0.06, 0.25]])


class Gaussian:
    """A posterior in closed form, inside its prior but for a billionth."""

    def __init__(self, prior, mean, cov):
        self.prior, self.mean = prior, mean
        self.density = st.multivariate_normal(mean, cov)
        self.root = np.linalg.cholesky(np.atleast_2d(cov))

    def sample(self, x_o, *, n, key):
        flat = self.mean + np.asarray(jax.random.normal(key, (n, len(self.mean)))) @ self.root.T
        theta = {name: np.asarray(value)[None] for name, value in self.prior.unravel(flat).items()}
        return Posterior(theta, log_prob=self.density.logpdf(flat).reshape(1, n), x_o=x_o)

    def log_prob(self, theta, x):
        return self.density.logpdf(np.asarray(self.prior.ravel(theta))).reshape(np.shape(theta[next(iter(theta))])[:1])


def radius(theta):
    centred = np.asarray(BOX.ravel(theta), float) - CENTRE
    return np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(COV), centred))


def ellipsoid(epsilon=0.05):
    return TruncatedPrior(BOX, Gaussian(BOX, CENTRE, COV), np.zeros(1), key=KEY, epsilon=epsilon)


def test_under_a_uniform_prior_the_region_is_the_ellipsoid_of_highest_density():
    region = ellipsoid()
    edge = np.sqrt(st.chi2(3).isf(0.05))
    volume = 4.0 / 3.0 * np.pi * edge**3 * np.sqrt(np.linalg.det(COV))
    assert region.method == "rejection"
    # threshold and mass from 10,000 draws: 3% of the volume
    assert region.mass == pytest.approx(volume / (10.0 * 10.0 * 12.0), rel=0.1)
    drawn = region.sample(key=jax.random.key(1), n=4000)
    r = radius(drawn)
    assert r.max() < 1.03 * edge
    assert region.contains(drawn).all()
    # uniform in a ball: (r / edge)^3 is uniform, and all directions are alike
    assert st.kstest((r / r.max()) ** 3, "uniform").pvalue > 1e-3
    white = (np.asarray(BOX.ravel(drawn)) - CENTRE) @ np.linalg.inv(np.linalg.cholesky(COV)).T
    np.testing.assert_allclose(np.cov(white.T) / (edge**2 / 5.0), np.eye(3), atol=0.1)


def test_draws_are_proportional_to_a_prior_that_is_not_uniform():
    prior = Prior({"g": dist.Normal(0.5, 2.0)})
    region = TruncatedPrior(prior, Gaussian(prior, np.array([3.0]), 0.36), np.zeros(1), key=KEY, epsilon=0.02)
    # log q - log p = c is a quadratic; its roots bound the region
    grid = np.linspace(-2.0, 8.0, 200_001)
    inside = grid[st.norm(3.0, 0.6).logpdf(grid) - st.norm(0.5, 2.0).logpdf(grid) >= region.threshold]
    low, high = inside[0], inside[-1]
    exact = st.truncnorm((low - 0.5) / 2.0, (high - 0.5) / 2.0, 0.5, 2.0)
    assert st.norm(3.0, 0.6).cdf(high) - st.norm(3.0, 0.6).cdf(low) == pytest.approx(0.98, abs=0.005)
    g = np.asarray(region.sample(key=jax.random.key(2), n=4000)["g"])
    assert st.kstest(g, exact.cdf).pvalue > 1e-3
    np.testing.assert_allclose(region.log_prob({"g": jnp.array([2.5, 9.0])})[0], exact.logpdf(2.5), atol=0.05)
    assert np.isneginf(region.log_prob({"g": jnp.array([2.5, 9.0])})[1])


def test_resampling_takes_over_and_stays_inside(monkeypatch):
    monkeypatch.setattr(truncated, "_LEAST_ACCEPTANCE", 1.1)
    region, edge = ellipsoid(), np.sqrt(st.chi2(3).isf(0.05))
    assert region.method == "resampling"
    drawn = region.sample(key=jax.random.key(1), n=2000)
    assert region.contains(drawn).all()
    assert region.mass == pytest.approx(4.19 * edge**3 * np.sqrt(np.linalg.det(COV)) / 1200.0, rel=0.1)
    # one of 32: nearly uniform, where q itself would be at 0.35
    assert st.kstest(np.minimum(radius(drawn) / edge, 1.0) ** 3, "uniform").statistic < 0.06


@pytest.mark.slow
def test_a_prior_of_dependent_elements_is_resampled():
    prior = Prior({"p": dist.Dirichlet(jnp.array([4.0, 3.0, 5.0]))})
    posterior = prior.sample(key=jax.random.key(1), n=10_000)

    class Narrow:
        def __init__(self):
            self.prior, self.q = prior, dist.Dirichlet(jnp.array([40.0, 30.0, 50.0]))

        def sample(self, x_o, *, n, key):
            p = self.q.sample(key, (n,))
            return Posterior({"p": np.asarray(p)[None]}, log_prob=np.asarray(self.q.log_prob(p))[None], x_o=x_o)

        def log_prob(self, theta, x):
            return self.q.log_prob(theta["p"])

    region = TruncatedPrior(prior, Narrow(), np.zeros(1), key=KEY, epsilon=0.02)
    inside = region.contains(posterior)
    assert region.method == "resampling"
    assert region.mass == pytest.approx(inside.mean(), rel=0.15)
    p = np.asarray(region.sample(key=jax.random.key(3), n=2000)["p"])
    exact = np.asarray(posterior["p"])[inside]
    np.testing.assert_allclose(p.mean(0), exact.mean(0), atol=5 * exact.std(0).max() / np.sqrt(2000))


PRIOR = Prior({"g": dist.Uniform(0.5, 2.5), "m": dist.Normal(-1.0, 0.5).expand([2])})
NARROW = Prior({"g": dist.Uniform(1.0, 1.5), "m": dist.Normal(-1.0, 0.2).expand([2])})


def plain(theta, key):
    return jnp.concatenate([theta["g"][None], theta["m"]]) + 0.1 * jax.random.normal(key, (3,))


def propose(n, **options):
    return sample_prior_predictive(PRIOR, plain, n, key=KEY, proposal=NARROW, progress=False, **options)


def test_proposed_draws_do_not_depend_on_how_they_ran(tmp_path):
    long, short = propose(1200), propose(70)
    block = NARROW.sample(key=jax.random.fold_in(jax.random.fold_in(KEY, np.uint32(2**32 - 1)), 1), n=1024)
    np.testing.assert_array_equal(long.theta["m"][1024:], np.asarray(block["m"])[: 1200 - 1024])
    assert np.array_equal(short.x, long.x[:70])
    np.testing.assert_allclose(
        long.log_q, NARROW.log_prob({k: jnp.asarray(v) for k, v in long.theta.items()}), rtol=1e-6
    )
    assert (long.round == 1).all()
    assert abs(np.std(long.x[:, 0]) - np.sqrt(0.25 / 12 + 0.01)) < 0.02
    propose(130, store=tmp_path / "s", batch_size=128)
    grown = propose(1200, store=tmp_path / "s", batch_size=128)
    assert grown.info["read"] == 192
    assert np.array_equal(grown.x, long.x)
    assert np.array_equal(grown.log_q, long.log_q)
    assert (load_store(tmp_path / "s").round == 1).all()
    with pytest.raises(ValueError, match="draws of another study"):
        sample_prior_predictive(PRIOR, plain, 70, key=KEY, store=tmp_path / "s", batch_size=128, progress=False)


@pytest.mark.parametrize(
    ("proposal", "error", "message"),
    [
        (Prior({"g": dist.Uniform(1.0, 2.0)}), ValueError, "give a proposal over the parameters of this prior"),
        (
            Prior({"g": dist.Uniform(0.0, 2.0), "m": dist.Normal(-1.0, 0.5).expand([2])}),
            ValueError,
            "of 1024 draws of the proposal lie outside the prior's support",
        ),
    ],
)
def test_proposals_of_another_prior_are_refused(proposal, error, message):
    with pytest.raises(error, match=message):
        sample_prior_predictive(PRIOR, plain, 64, key=KEY, proposal=proposal, progress=False)
    with pytest.raises(TypeError, match=r"expected an object with \.sample\(key=, n=\)"):
        ProposalDraws.draw(PRIOR, lambda key: None, 64, KEY)


def test_draws_are_joined_with_their_rounds_and_densities():
    first = sample_prior_predictive(PRIOR, plain, 64, key=KEY, progress=False)
    both = first + propose(70)
    assert len(both) == 134
    assert both.round.tolist() == [0] * 64 + [1] * 70
    assert np.isnan(both.log_q[:64]).all()
    np.testing.assert_array_equal(both.x[64:], propose(70).x)
    assert both.info["simulated"] == 64 + 128
    assert (first + first).log_q is None
    other = Draws.from_arrays({"g": np.ones(3)}, np.ones((3, 3)))
    with pytest.raises(ValueError, match="join draws of one prior"):
        first + other
    with pytest.raises(ValueError, match="join draws of one Summary"):
        first + Draws.from_arrays(first.theta, first.x, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="was given no draws"):
        Draws.concatenate([])


def test_failures_by_a_prior_of_another_shape_are_refused():
    flat = Prior({"g": dist.Uniform(0.0, 1.0)})
    with pytest.raises(ValueError, match=r"draws of 'g' are \[4, 1\], the prior's \[n\]"):
        Draws.from_arrays({"g": np.ones((4, 1))}, np.ones((4, 1))).failures(flat)
    with pytest.raises(ValueError, match=r"draws of 'g' are \[4\], the prior's \[n, 2\]"):
        Draws.from_arrays({"g": np.ones(4)}, np.ones((4, 1))).failures(Prior({"g": dist.Normal(0.0, 1.0).expand([2])}))


GAINS = np.array([[1.0, 0.5, 0.0, 0.2], [0.0, 1.0, 0.4, 0.0], [0.3, 0.0, 1.0, 0.0], [0.0, 0.2, 0.1, 1.0]])
WIDE = Prior({"a": dist.Uniform(-10.0, 10.0).expand([3]), "b": dist.Uniform(0.0, 20.0)})
TRUTH = np.array([2.0, -3.0, 1.0, 12.0])
SD = 0.15
QUICK = NPE(MDN(components=1), training=Training(max_epochs=80, batch_size=64, learning_rate=5e-3))


def linear(theta, key):
    flat = jnp.concatenate([theta["a"], theta["b"][None]])
    x = jnp.asarray(GAINS, flat.dtype) @ flat + SD * jax.random.normal(key, (4,))
    return jnp.where(theta["a"][0] < -8.0, jnp.nan, x)  # a tenth of the prior fails


def rounds(number, n, estimator=QUICK, **options):
    return fit_rounds(
        WIDE, linear, GAINS @ TRUTH, key=KEY, estimator=estimator, rounds=number, n=n, progress=False, **options
    )


@functools.cache
def three():
    return rounds(3, 384)


def divergence(fit):
    """KL divergence of a Gaussian with the draws' moments from the exact posterior."""
    flat = fit.sample(n=6000, key=jax.random.key(3)).ravel().astype(float)
    precision = GAINS.T @ GAINS / SD**2
    moved, cov = flat.mean(0) - TRUTH, np.cov(flat.T)
    return 0.5 * (np.trace(precision @ cov) - 4 + moved @ precision @ moved - np.linalg.slogdet(precision @ cov)[1])


@pytest.mark.slow
def test_rounds_are_nearer_the_exact_posterior_than_one_round_of_as_many_draws():
    several, single = divergence(three()), divergence(rounds(1, 3 * 384))
    assert several < 0.3 * single
    assert several < 0.5


@pytest.mark.slow
def test_truncated_rounds_draw_from_the_prior_inside_their_region_only():
    fit = three()
    assert [region.round for region in fit.proposals] == [1, 2]
    assert fit.proposals[1].mass < fit.proposals[0].mass < 0.1
    for region in fit.proposals:
        own = fit.draws.round == region.round
        theta = {name: jnp.asarray(value[own]) for name, value in fit.draws.theta.items()}
        assert region.contains(theta).mean() > 0.999  # but for rounding at the edge
        assert np.ptp(fit.draws.log_q[own] - np.asarray(WIDE.log_prob(theta))) < 1e-3
    assert (~fit.draws.valid).sum() > 10
    assert fit.infos[-1].num_train + fit.infos[-1].num_val == fit.draws.valid.sum()
    flat = fit.sample(n=2000, key=jax.random.key(3))
    assert flat.theta["b"].min() >= 0.0
    assert np.abs(flat.theta["a"]).max() <= 10.0
    assert flat.info["rounds"] == 3


@pytest.mark.slow
def test_another_observation_is_told_that_it_is_far():
    with pytest.warns(UserWarning, match="outside the region that the last round was simulated in"):
        three().sample(GAINS @ np.array([-5.0, 4.0, 1.0, 3.0]), n=500, key=KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        three().sample(GAINS @ TRUTH, n=500, key=KEY)


@pytest.mark.slow
def test_stored_rounds_go_on_bit_for_bit(tmp_path):
    brief = NPE(MDN(components=1), training=Training(max_epochs=6, batch_size=64))
    fresh = rounds(2, 128, brief)
    rounds(1, 128, brief, store=tmp_path)
    resumed = rounds(2, 128, brief, store=tmp_path)
    again = rounds(2, 128, brief, store=tmp_path)
    assert resumed.draws.info["read"] == 128
    assert again.draws.info["simulated"] == 0
    for fit in (resumed, again):
        np.testing.assert_array_equal(fit.draws.x, fresh.draws.x)
        draws = [one.sample(n=50, key=KEY).ravel() for one in (fit, fresh)]
        np.testing.assert_array_equal(*draws)


@pytest.mark.slow
def test_likelihoods_propose_from_their_posterior():
    prior = Prior({"g": dist.Uniform(-10.0, 10.0)})
    brief = NLE(MDN(components=1), training=Training(max_epochs=40, batch_size=64, learning_rate=3e-3))
    fit = fit_rounds(
        prior,
        lambda theta, key: 2.0 * theta["g"][None] + 0.6 * jax.random.normal(key, (1,)),
        [5.0],
        key=KEY,
        estimator=brief,
        rounds=2,
        n=256,
        progress=False,
    )
    g = fit.draws.theta["g"][fit.draws.round == 1]
    assert abs(g.mean() - 2.5) < 0.5
    assert g.std() < 1.5  # of 5.8 under the prior
    g = fit.sample(n=1000, key=KEY).ravel()
    assert abs(g.mean() - 2.5) < 0.2
    assert g.std() == pytest.approx(0.3, rel=0.3)


@pytest.mark.slow
def test_rounds_take_the_networks_of_sbi():
    pytest.importorskip("sbi")
    brief = SbiEstimator("NPE", network={"model": "mdn"}, training={"max_num_epochs": 60, "learning_rate": 5e-3})
    fit = rounds(2, 192, brief)
    assert fit.proposals[0].mass < 0.9
    assert fit.amortized.info["rounds"] == 2


class FailsLater:
    """All simulations fail after the first `batches` batches."""

    def __init__(self, batches):
        self.batches = batches

    def __call__(self, theta, key):
        return linear(theta, key)

    def batch(self, theta, keys):
        self.batches -= 1
        x = jax.vmap(linear)(theta, keys)
        return x if self.batches >= 0 else x * jnp.nan


def test_a_round_that_fails_whole_ends_the_rounds_and_loses_nothing():
    brief = NPE(MDN(components=1), training=Training(max_epochs=3, batch_size=64))
    with pytest.warns(UserWarning, match="every draw of round 1 failed; the result is that of round 0"):
        fit = fit_rounds(WIDE, FailsLater(2), GAINS @ TRUTH, key=KEY, estimator=brief, rounds=4, n=128, progress=False)
    assert len(fit.infos) == 1
    assert len(fit.draws) == 256
    assert not fit.draws.valid[128:].any()
    assert "round 1 failed" in fit.findings[-1]
    with pytest.raises(RuntimeError, match="all 64 draws of the prior failed"):
        fit_rounds(WIDE, FailsLater(0), GAINS @ TRUTH, key=KEY, estimator=brief, n=64, progress=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rounds": 0}, ValueError, "rounds=0 was given"),
        ({"x_o": np.ones((2, 4))}, ValueError, r"x_o has shape \[2, 4\]; expected one summary"),
        ({"x_o": np.array([1.0, np.nan, 0.0, 0.0])}, ValueError, r"NaN or infinite values in 'x\[1\]'"),
        ({"x_o": np.ones(3), "n": 64}, ValueError, "has 3 features; this posterior was trained on 4"),
        ({"estimator": NRE()}, ValueError, r"given NRE, .*use vb\.NLE"),
        ({"estimator": SbiEstimator("BNRE")}, ValueError, "evidence of whatever proposal"),
        ({"estimator": NPE}, TypeError, r"the class NPE; expected vb\.NPE\(\)"),
    ],
)
def test_mistakes_of_rounds(options, error, message):
    x_o = options.pop("x_o", GAINS @ TRUTH)
    with pytest.raises(error, match=message):
        fit_rounds(WIDE, linear, x_o, key=KEY, progress=False, **options)


def test_mistakes_of_a_truncation():
    exact = Gaussian(BOX, CENTRE, COV)
    with pytest.raises(ValueError, match=r"epsilon=0\.0 was given"):
        TruncatedPrior(BOX, exact, np.zeros(1), key=KEY, epsilon=0.0)
    with pytest.raises(ValueError, match="give the prior of the study"):
        TruncatedPrior(WIDE, exact, np.zeros(1), key=KEY)
    with pytest.raises(TypeError, match=r"expected a posterior with \.sample and \.log_prob"):
        TruncatedPrior(BOX, object(), np.zeros(1), key=KEY)
