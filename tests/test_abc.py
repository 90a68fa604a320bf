"""Approximate Bayesian computation against a closed form: moments, adjustment, and what particles save."""

import functools

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.approximate.population import smc_abc
from vbinfer.approximate.rejection import rejection_abc
from vbinfer.draws.draws import Draws
from vbinfer.priors.prior import Prior

KEY = jax.random.key(5)
X_O = lg.OFFSET + np.array([0.3, 3.4, -1.6, 1.2, 0.7, 0.0])
SD = np.sqrt(np.diag(lg.COV))


@functools.cache
def draws():
    return lg.make_draws(lg.make_prior(), 60_000)


def errors(posterior):
    flat = posterior.ravel().astype(float)
    return np.abs(flat.mean(0) - lg.posterior_mean(X_O)) / SD, flat.std(0) / SD


def test_rejection_is_wider_than_the_posterior_and_the_adjustment_mends_it():
    prior = lg.make_prior()
    plain = rejection_abc(draws(), prior, X_O, quantile=0.01)
    adjusted = rejection_abc(draws(), prior, X_O, quantile=0.01, adjust=True)
    (far, wide), (near, right) = errors(plain), errors(adjusted)
    assert far.max() < 0.5
    assert (wide > 1.03).all()
    assert near.max() < 0.15  # 600 draws: 0.04 of a posterior sd
    np.testing.assert_allclose(right, 1.0, atol=0.08)
    assert near.max() < 0.5 * far.max()
    assert plain.info["acceptance"] == pytest.approx(0.01, rel=0.01)
    assert plain.sample_stats["distance"].max() <= plain.info["epsilon"]


def test_distances_are_standardised_by_the_median_absolute_deviation():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(5.0, 1.0, 400), rng.normal(0.0, 100.0, 400), np.full(400, 7.0)])
    theta = {"g": np.linspace(0.01, 0.99, 400)}
    posterior = rejection_abc(Draws.from_arrays(theta, x), Prior({"g": dist.Uniform(0.0, 1.0)}), x[17], epsilon=1.0)
    scale = [1.4826 * np.median(np.abs(column - np.median(column))) for column in x.T[:2]]
    kept = ((x[:, 0] - x[17, 0]) / scale[0]) ** 2 + ((x[:, 1] - x[17, 1]) / scale[1]) ** 2 <= 1.0
    np.testing.assert_allclose(posterior.theta["g"][0], theta["g"][kept], rtol=1e-4)
    own = rejection_abc(
        Draws.from_arrays(theta, x),
        Prior({"g": dist.Uniform(0.0, 1.0)}),
        x[17],
        epsilon=30.0,
        distance=lambda x, x_o: np.abs(x - x_o)[:, 1],
    )
    np.testing.assert_allclose(own.theta["g"][0], theta["g"][np.abs(x[:, 1] - x[17, 1]) <= 30.0], rtol=1e-4)


WIDE = Prior({"a": dist.Uniform(-10.0, 10.0), "b": dist.Normal(3.0, 5.0)})
MIX = np.array([[1.0, 0.6], [-0.4, 1.0]])
SEEN = np.array([2.5, 4.0])


def simulator(theta, key):
    x = jnp.asarray(MIX, jnp.float32) @ jnp.stack([theta["a"], theta["b"]]) + 0.5 * jax.random.normal(key, (2,))
    return jnp.where(theta["a"] > 9.0, jnp.nan, x)


@pytest.mark.slow
def test_particles_reach_the_posterior_with_fewer_simulations_than_rejection():
    def distance(x, x_o):
        return np.sqrt(((x - x_o) ** 2).sum(axis=1))

    found = smc_abc(WIDE, simulator, SEEN, key=KEY, num_particles=512, epsilon=0.35, distance=distance)
    assert found.info["epsilon"] == pytest.approx(0.35)
    assert "epsilon=0.35 was reached" in found.info["stopped"]
    assert np.all(np.diff(found.info["epsilons"]) < 0.0)
    assert found.sample_stats["distance"].max() <= 0.35
    # within the ball x given theta widens by epsilon^2 / 4 per axis; the prior of b is Normal(3, 5)
    noise = 0.25 + 0.35**2 / 4.0
    precision = MIX.T @ MIX / noise + np.diag([0.0, 1.0 / 25.0])
    cov = np.linalg.inv(precision)
    mean = cov @ (MIX.T @ SEEN / noise + np.array([0.0, 3.0 / 25.0]))
    flat, sd = found.ravel().astype(float), np.sqrt(np.diag(cov))
    size = found.info["effective_size"]
    assert size > 150
    np.testing.assert_allclose((flat.mean(0) - mean) / sd, 0.0, atol=5.0 / np.sqrt(size))
    np.testing.assert_allclose(flat.std(0) / sd, 1.0, atol=5.0 / np.sqrt(2.0 * size))
    # rejection keeps P(d <= epsilon) = density of x at x_o times the area of the ball: x is spread over the prior
    theta = WIDE.sample(key=jax.random.key(1), n=200_000)
    keys = jax.random.split(jax.random.key(2), 200_000)
    x = np.asarray(jax.jit(jax.vmap(simulator))(theta, keys))
    share = np.mean(np.nan_to_num(distance(x, SEEN), nan=np.inf) <= 0.35)
    assert found.info["num_simulations"] < 0.5 * 512 / share


def test_particles_stop_when_too_few_are_kept():
    found = smc_abc(WIDE, simulator, SEEN, key=KEY, num_particles=128, min_acceptance=0.3)
    assert "fewer than 30%" in found.info["stopped"]
    assert len(found.info["epsilons"]) == len(found.info["acceptances"])
    assert found.theta["a"].max() <= 10.0
    capped = smc_abc(WIDE, simulator, SEEN, key=KEY, num_particles=64, max_rounds=2)
    assert capped.info["stopped"] == "max_rounds=2 was reached"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_o": X_O[:4]}, "has 4 features; this posterior was trained on 6"),
        ({"x_o": np.where(np.arange(6) == 2, np.nan, X_O)}, "NaN or infinite values in 'fcd.var'"),
        ({"quantile": 0.0}, r"quantile=0\.0 was given"),
        ({"epsilon": 1e-9}, "0 of 60000 valid draws lie within epsilon=1e-09"),
        ({"distance": lambda x, x_o: np.abs(x - x_o)}, r"distance returned an array of shape \[60000, 6\]"),
        ({"prior": WIDE}, r"the draws have \['coupling.G', 'model.eta'\], the prior has \['a', 'b'\]"),
    ],
)
def test_mistakes_of_rejection(options, message):
    x_o, prior = options.pop("x_o", X_O), options.pop("prior", lg.make_prior())
    with pytest.raises(ValueError, match=message):
        rejection_abc(draws(), prior, x_o, **options)


def test_draws_of_a_proposal_and_draws_that_say_nothing_are_refused():
    theta, x = {"g": np.linspace(0.1, 0.9, 50)}, np.linspace(0.0, 1.0, 50)[:, None]
    prior, plain = Prior({"g": dist.Uniform(0.0, 1.0)}), Draws.from_arrays(theta, x)
    later = Draws(theta, x, plain.names, plain.valid, plain.round + 1)
    with pytest.raises(ValueError, match=r"draws are of rounds \[0, 1\]"):
        rejection_abc(plain + later, prior, [0.5])
    with pytest.raises(ValueError, match="no feature of x varies"):
        rejection_abc(Draws.from_arrays(theta, 0.0 * x), prior, [0.0])
    with pytest.raises(ValueError, match="0 of 50 draws are valid"):
        rejection_abc(Draws.from_arrays(theta, np.nan * x), prior, [0.0])
    wide = np.random.default_rng(0).normal(size=(50, 30))
    with pytest.raises(ValueError, match="too few to regress on 30 features"):
        rejection_abc(Draws.from_arrays(theta, wide), prior, wide[0], quantile=0.4, adjust=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x_o": np.ones(3)}, ValueError, "has 3 features; this posterior was trained on 2"),
        ({"x_o": [np.nan, 1.0]}, ValueError, r"NaN or infinite values in 'x\[0\]'"),
        ({"quantile": 1.0}, ValueError, r"quantile=1\.0 was given; expected a number between 0 and 1"),
        ({"min_acceptance": 0.0}, ValueError, r"min_acceptance=0\.0 was given"),
        ({"simulator": lambda theta, key: jnp.full(2, jnp.nan)}, RuntimeError, "0 of 640 simulations .* 64 particles"),
    ],
)
def test_mistakes_of_particles(options, error, message):
    x_o, run = options.pop("x_o", SEEN), options.pop("simulator", simulator)
    with pytest.raises(error, match=message):
        smc_abc(WIDE, run, x_o, key=KEY, num_particles=64, **options)
