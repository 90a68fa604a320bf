"""The local two-sample test: an exact posterior passes, one that errs for some observations fails there."""

import time

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import binom

import vbinfer as vb

GAIN = np.array([[1.0, 0.3], [-0.4, 0.8]])
PRIOR_MEAN, PRIOR_SD, NOISE = np.array([2.0, -1.0]), np.array([3.0, 0.5]), np.array([1.0, 0.4])
COV = np.linalg.inv(np.diag(PRIOR_SD**-2.0) + GAIN.T @ np.diag(NOISE**-2.0) @ GAIN)
CENTRE = GAIN @ PRIOR_MEAN
SD_X = np.sqrt(np.diag(GAIN @ np.diag(PRIOR_SD**2) @ GAIN.T) + NOISE**2)
PRIOR = vb.Prior({"a": dist.Normal(2.0, 3.0), "b": dist.Normal(-1.0, 0.5)})


class Exact:
    """The posterior of theta ~ N(m, P), x = A theta + e; shifted, widened or for some x only, if asked to be."""

    prior = PRIOR

    def __init__(self, shift=0.0, scale=1.0, where=lambda x: np.ones(len(x), bool)):
        self.shift, self.scale, self.where = shift, scale, where

    def sample_batch(self, x, *, n, key):
        x = np.asarray(x, float)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        mean = (PRIOR_MEAN / PRIOR_SD**2 + (x / NOISE**2) @ GAIN) @ COV
        noise = rng.normal(size=(len(x), n, 2)) @ np.linalg.cholesky(COV).T
        wrong = self.where(x)[:, None, None]
        noise = np.where(wrong, self.scale * noise + [self.shift * np.sqrt(COV[0, 0]), 0.0], noise)
        rows = mean[:, None] + noise
        return {"a": rows[..., 0], "b": rows[..., 1]}


def make_draws(seed, n=600):
    rng = np.random.default_rng(seed)
    theta = PRIOR_MEAN + PRIOR_SD * rng.normal(size=(n, 2))
    x = theta @ GAIN.T + NOISE * rng.normal(size=(n, 2))
    return vb.Draws.from_arrays({"a": theta[:, 0], "b": theta[:, 1]}, x, names=("fc.mean", "fc.sd"))


def p_of(source, seed, units=(0.0, 0.0)):
    x_o = CENTRE + np.array(units) * SD_X
    return vb.diagnostics.lc2st(
        source, make_draws(seed), x_o, key=jax.random.key(seed), num_posterior_samples=300, num_null=40
    )


@pytest.mark.slow
def test_an_exact_posterior_is_rejected_no_more_often_than_one_time_in_twenty():
    found = [p_of(Exact(), seed, (1.0, 0.0)) for seed in range(40)]
    for name in ("p_value", "p_classifier", "p_local"):
        p = np.array([getattr(one, name) for one in found])
        assert np.sum(p < 0.05) <= binom.ppf(0.999, 40, 0.05)
        if name != "p_value":  # the larger of the two is no uniform number, each of them is close to one
            assert np.sum(p < 0.5) >= binom.ppf(0.001, 40, 0.3)


@pytest.mark.parametrize("seed", range(3))
def test_a_posterior_wrong_for_some_observations_is_rejected_there_and_not_elsewhere(seed):
    threshold = CENTRE[0] + SD_X[0]
    source = Exact(shift=1.5, where=lambda x: x[:, 0] > threshold)
    there = p_of(source, seed, (2.0, 0.0))
    assert there.p_value < 0.05
    assert there.tilt[0] < -0.5  # truths lie below the draws
    assert "a too high" in there.findings[1]
    elsewhere = [p_of(source, seed, (-1.5, units)).passed for units in (-1.0, 0.0, 1.0)]
    assert sum(elsewhere) >= 2


@pytest.mark.parametrize(("scale", "seed"), [(0.6, 1), (1.7, 2)])
def test_a_posterior_too_narrow_or_too_wide_is_rejected(scale, seed):
    found = p_of(Exact(scale=scale), seed)
    assert found.p_value < 0.05
    assert found.statistic > np.max(found.null)
    # the optimal classifier at x_o is known: d = p / (p + q), and 1/4 is the largest statistic
    assert 0.0 < found.gain < 1.0
    assert found.statistic < 0.25


def test_the_probability_follows_the_optimal_classifier():
    found = vb.diagnostics.lc2st(Exact(shift=1.0), make_draws(3, 3000), CENTRE, key=jax.random.key(3), num_null=10)
    # (theta*, x) against (theta_q, x): with u in posterior sd from the draws' mean, log p/q = 1/2 - (u + 1) for a
    # shift along the first parameter given the second; its mean of (d - 1/2)^2 by quadrature below
    direction = np.linalg.solve(COV, [np.sqrt(COV[0, 0]), 0.0])
    length = np.sqrt(np.sqrt(COV[0, 0]) * direction[0])
    u, w = np.polynomial.hermite_e.hermegauss(60)
    d = 1.0 / (1.0 + np.exp(length * u + 0.5 * length**2))
    optimal = np.sum(w * (d - 0.5) ** 2) / np.sum(w)
    assert found.statistic == pytest.approx(optimal, rel=0.35)  # least squares, 3,000 pairs


def test_functions_serve_as_sources_and_failed_draws_are_counted():
    clean = make_draws(5, 150)
    x = np.array(clean.x)
    x[:20, 1] = np.nan
    draws = vb.Draws.from_arrays(clean.theta, x, names=clean.names)

    def source(x_o, n, key):
        theta = Exact(shift=3.0).sample_batch(np.asarray(x_o)[None], n=n, key=key)
        return vb.Posterior({name: value for name, value in theta.items()})

    found = vb.diagnostics.lc2st(source, draws, CENTRE, key=jax.random.key(0), num_null=40, num_posterior_samples=100)
    assert found.p_value < 0.05
    assert "20 of 150 simulations failed" in found.findings[-1]
    assert found.numbers["num_null"] == 40


def test_an_observation_outside_the_draws_is_said():
    found = p_of(Exact(), 0, (30.0, 0.0))
    assert found.verdict != "pass"
    assert "outside the simulations in fc.mean" in " ".join(found.findings)


@pytest.mark.slow
def test_a_thousand_pairs_of_fifteen_numbers_take_seconds():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(1000, 5))
    x = theta @ rng.normal(size=(5, 10)) + rng.normal(size=(1000, 10))
    draws = vb.Draws.from_arrays({"theta": theta}, x)

    class Flat:
        def sample_batch(self, x, *, n, key):
            return {"theta": np.asarray(jax.random.normal(key, (len(x), n, 5)))}

    start = time.process_time()
    vb.diagnostics.lc2st(Flat(), draws, x[0], key=jax.random.key(0))
    assert time.process_time() - start < 20.0


def test_mistakes_are_named():
    draws, source, key = make_draws(0), Exact(), jax.random.key(0)
    with pytest.raises(ValueError, match=r"99 of 99 draws are valid; lc2st needs 100 or more"):
        vb.diagnostics.lc2st(source, make_draws(0, 99), CENTRE, key=key)
    with pytest.raises(ValueError, match=r"x_o has shape \[3\]; expected \[2\]"):
        vb.diagnostics.lc2st(source, draws, np.zeros(3), key=key)
    with pytest.raises(ValueError, match=r"x_o has NaN or infinite values in fc\.sd"):
        vb.diagnostics.lc2st(source, draws, np.array([0.0, np.nan]), key=key)
    with pytest.raises(ValueError, match=r"num_null=0 was given"):
        vb.diagnostics.lc2st(source, draws, CENTRE, key=key, num_null=0)
