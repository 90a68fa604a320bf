"""Priors by flows: consistent in every direction, better than normal where the samples are not."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

SMALL = vb.densities.MAF(layers=2, width=12, depth=1)
SHORT = vb.densities.Training(max_epochs=60, batch_size=100)


def banana(n, seed):
    """x0 normal, x1 = x0^2 + noise, in other units: a density in closed form."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    x[:, 1] = x[:, 0] ** 2 + 0.3 * x[:, 1]
    log_p = dist.Normal(0.0, 1.0).log_prob(x[:, 0]) + dist.Normal(x[:, 0] ** 2, 0.3).log_prob(x[:, 1])
    scale = np.array([20.0, 0.1])
    return 5.0 + scale * x, np.asarray(log_p) - np.log(scale).sum()


@pytest.fixture(scope="module")
def fitted():
    samples, _ = banana(800, 0)
    return vb.fit_prior(samples, SMALL, key=jax.random.key(0), training=SHORT), samples


def test_a_flow_is_closer_to_the_truth_than_a_normal_distribution(fitted):
    part, samples = fitted
    test, log_p = banana(400, 1)
    normal = dist.MultivariateNormal(samples.mean(0), np.cov(samples.T)).log_prob(test)
    missing = float(np.mean(log_p - normal))  # nats, the divergence of the normal distribution
    assert missing > 0.5
    assert 0.0 < float(np.mean(log_p - part.log_prob(test))) < 0.5 * missing
    drawn = np.asarray(part.sample(jax.random.key(2), (2_000,)))
    away = (drawn - 5.0) / [20.0, 0.1]
    assert np.corrcoef(away[:, 0] ** 2, away[:, 1])[0, 1] > 0.8  # 0 for a normal distribution


def test_in_a_prior_its_z_is_standard_normal(fitted):
    """Density, map and inverse agree with each other and with the Jacobian matrix."""
    part, _ = fitted
    prior = vb.Prior({"z": part, "a": dist.Normal(0.0, 1.0)})
    assert prior.z_is_normal
    at, h = np.array([0.6, -0.3]), 0.01
    z = {"z": at + h * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]), "a": np.zeros(5)}
    theta, log_det = prior.constrain(z)
    np.testing.assert_allclose(prior.unconstrain(theta)["z"], z["z"], atol=1e-3)
    normal = dist.Normal(0.0, 1.0)
    total = np.asarray(normal.log_prob(z["z"])).sum(-1) + normal.log_prob(0.0)
    np.testing.assert_allclose(prior.log_prob(theta) + log_det, total, atol=2e-3)
    rows = np.asarray(theta["z"], float)
    jacobian = np.stack([rows[1] - rows[2], rows[3] - rows[4]], axis=1) / (2 * h)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det[0], atol=0.01)
    assert np.ptp(log_det) > 1e-3  # it varies: the map is no affine one
    assert vb.Prior({"z": part}) == vb.Prior({"z": part})


def test_normal_samples_give_their_normal_distribution():
    """40 samples show nothing else: a warning, and the density of mean and covariance to rounding."""
    samples = np.random.default_rng(5).normal(size=(40, 2)) @ np.array([[1.0, 3.0], [0.0, 0.2]]) + 7.0
    still = vb.densities.Training(max_epochs=3, learning_rate=5.0, batch_size=10)  # steps too large to improve
    with pytest.warns(UserWarning, match="no better than a normal"):
        part = vb.fit_prior(samples, SMALL, key=jax.random.key(0), training=still)
    normal = dist.MultivariateNormal(samples.mean(0), np.cov(samples.T))
    np.testing.assert_allclose(part.log_prob(samples), normal.log_prob(samples), atol=2e-4)


@pytest.mark.parametrize(
    ("samples", "density", "remedy"),
    [
        (np.zeros(30), None, r"\[n, k\]"),
        (np.zeros((19, 2)), None, "at least 20"),
        (np.full((30, 2), np.nan), None, "30 of 30 samples hold NaN"),
        (np.outer(np.arange(30.0), [1.0, 2.0]), None, "hyperplane"),
        (banana(40, 0)[0], "MAF", "vb.densities.MAF"),
        (banana(40, 0)[0], vb.densities.MDN(), "vb.densities.NSF"),
    ],
)
def test_what_no_prior_can_be_fitted_to_gets_a_sentence(samples, density, remedy):
    with pytest.raises((ValueError, TypeError), match=remedy):
        vb.fit_prior(samples, density, key=jax.random.key(0))
