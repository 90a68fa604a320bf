"""The prior restricted to where simulations do not fail: how few fail then, how little is lost, one posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.approximate.rejection import rejection_abc
from vbinfer.draws.draws import Draws
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.neural.restriction import restrict
from vbinfer.priors.prior import Prior

PRIOR = Prior({"a": dist.Uniform(-1.0, 3.0), "b": dist.Normal(0.0, 1.0)})


def simulator(theta, key):
    x = jnp.stack([theta["a"], theta["b"]]) + 0.3 * jax.random.normal(key, (2,))
    return jnp.where(theta["a"] + 0.5 * theta["b"] > 1.0, jnp.nan, x)  # half of the prior


def sample(n, seed, **options):
    return sample_prior_predictive(PRIOR, simulator, n, key=jax.random.key(seed), progress=False, **options)


@functools.cache
def restricted():
    return restrict(sample(2000, 0), PRIOR, key=jax.random.key(1))


@pytest.mark.slow
def test_failures_fall_from_half_to_a_few_percent_and_hardly_any_valid_region_is_lost():
    region = restricted()
    assert 0.45 < region.valid_share < 0.55
    more = sample(3000, 2, proposal=region)
    assert 1.0 - more.valid.mean() < 0.05
    theta = PRIOR.sample(key=jax.random.key(5), n=50_000)
    valid = np.asarray(theta["a"] + 0.5 * theta["b"] <= 1.0)
    kept = region.contains(theta)
    # at most 1% on average over the 300 valid draws held out; the count of three has a Poisson error of as much
    assert 1.0 - kept[valid].mean() < 0.025
    assert kept.mean() == pytest.approx(region.acceptance, abs=0.02)
    assert 1.0 - region.recall <= 0.01
    assert region.precision > 0.95
    assert "of the valid ones lie outside and are lost" in region.sentence


def test_what_is_drawn_is_the_prior_inside():
    region = restricted()
    b = np.asarray(region.sample(key=jax.random.key(3), n=8000)["b"])
    theta = PRIOR.sample(key=jax.random.key(6), n=50_000)
    inside = np.asarray(theta["b"])[region.contains(theta)]
    assert abs(b.mean() - inside.mean()) < 4.5 * inside.std() * np.sqrt(1 / 8000 + 1 / len(inside))
    assert b.std() == pytest.approx(inside.std(), rel=0.05)
    assert b.mean() < -0.1  # valid draws have smaller b than the prior
    log_p = region.log_prob({"a": jnp.array([0.0, 2.9]), "b": jnp.array([0.0, 2.0])})
    assert float(log_p[0]) == pytest.approx(
        np.log(0.25) - 0.5 * np.log(2 * np.pi) - np.log(region.acceptance), abs=1e-4
    )
    assert np.isneginf(log_p[1])


def test_the_posterior_from_restricted_draws_is_that_from_plain_ones():
    x_o = np.array([0.6, 0.4])  # at the edge of what is valid, where restriction could do harm
    plain, more = sample(24_000, 7), sample(12_000, 8, proposal=restricted())
    one, other = (rejection_abc(draws, PRIOR, x_o, epsilon=0.3).ravel().astype(float) for draws in (plain, more))
    error = one.std(0) * np.sqrt(1 / len(one) + 1 / len(other))
    assert len(other) > 0.8 * len(one)  # as much from half of the simulations
    assert (np.abs(one.mean(0) - other.mean(0)) < 4.0 * error).all()
    np.testing.assert_allclose(other.std(0) / one.std(0), 1.0, atol=0.15)


def table(n, failed):
    theta = PRIOR.sample(key=jax.random.key(0), n=n)
    x = np.ones((n, 1))
    x[:failed] = np.nan
    return Draws.from_arrays({name: np.asarray(value) for name, value in theta.items()}, x)


@pytest.mark.parametrize(
    ("draws", "options", "message"),
    [
        (table(100, 100), {}, "0 of 100 draws are valid; at least 20"),
        (table(100, 3), {}, "3 of 100 draws failed; there is nothing to restrict"),
        (
            table(100, 50),
            {"lost": 1e-3},
            r"lost=0\.001 cannot be promised from \d+ valid draws held out; give about \d+",
        ),
        (table(100, 50), {"lost": 1.5}, r"lost=1\.5 was given; expected a number between 0 and 1, such as lost=0\.01"),
        (table(100, 50), {"prior": Prior({"a": dist.Normal(0.0, 1.0)})}, "give the prior they came from"),
    ],
)
def test_mistakes(draws, options, message):
    with pytest.raises(ValueError, match=message):
        restrict(draws, options.pop("prior", PRIOR), key=jax.random.key(0), **options)
