"""Sensitivity where all of it is known in closed form: a linear model with normal noise."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.diagnostics.influence import cjs_distance, combination, power_sensitivity
from vbinfer.diagnostics.information import local_information

MEAN, SD = np.array([1.0, -3.0, 0.5]), np.array([2.0, 0.5, 1.5])
GAIN = np.array([[1.0, 4.0, 0.0], [0.5, 2.2, 0.0], [1.5, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
NOISE = np.diag([0.36, 0.64, 4.0, 0.81, 0.0])
NOISE[0, 1] = NOISE[1, 0] = 0.2
PRIOR = vb.Prior({"G": dist.Normal(1.0, 2.0), "eta": dist.Normal(-3.0, 0.5), "w": dist.Normal(0.5, 1.5)})
ROOT = np.zeros((5, 5))
ROOT[:4, :4] = np.linalg.cholesky(NOISE[:4, :4])
TOLD = slice(0, 4)
GAIN_Z = GAIN * SD  # theta = mean + sd z
FISHER = GAIN_Z[TOLD].T @ np.linalg.inv(NOISE[TOLD, TOLD]) @ GAIN_Z[TOLD]
COV_Z = np.linalg.inv(np.eye(3) + FISHER)
KEY = jax.random.key(0)


def forward(theta, key):
    flat = jnp.stack([theta["G"], theta["eta"], theta["w"]])
    return jnp.asarray(GAIN) @ flat + 7.0 + jnp.asarray(ROOT) @ jax.random.normal(key, (5,))


def make_posterior(z_mean, cov, n=4000, log_prob=True):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 3))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T  # moments exact, so eigenvalues are too
    z = np.asarray(z_mean) + z @ np.linalg.cholesky(cov).T
    theta = MEAN + SD * z
    d = z - z_mean
    density = -0.5 * np.einsum("ni,ij,nj->n", d, np.linalg.inv(cov), d)
    leaves = {name: theta[None, :, i] for i, name in enumerate(("G", "eta", "w"))}
    return vb.Posterior(leaves, log_prob=density[None] if log_prob else None, prior=PRIOR)


def test_fisher_information_of_a_linear_model_is_A_S_A():
    steps = 0.3 * np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    found = local_information(PRIOR, forward, np.array([0.4, -0.2, 0.1]), steps, key=KEY, num_repeats=4000)
    # the same noise on both sides cancels: the Jacobian is exact to float32 differences of numbers near 10
    np.testing.assert_allclose(found.jacobian, GAIN_Z, atol=3e-5)
    np.testing.assert_allclose(found.noise, NOISE, atol=5.0 * 4.0 * np.sqrt(2.0 / 4000))
    np.testing.assert_allclose(found.fisher, FISHER, rtol=5.0 * np.sqrt(2.0 / 4000), atol=1e-3)
    assert found.num_failed == 0


def test_the_nats_of_a_feature_are_those_of_the_determinants_without_it():
    found = local_information(PRIOR, forward, np.zeros(3), 0.3 * np.eye(3), key=KEY, num_repeats=4000)

    def nats(keep):
        part = GAIN_Z[keep]
        precision = np.eye(3) + part.T @ np.linalg.inv(NOISE[np.ix_(keep, keep)]) @ part
        return 0.5 * np.log(np.linalg.det(precision))

    exact = [nats([0, 1, 2, 3]) - nats([k for k in range(4) if k != j]) for j in range(4)]
    np.testing.assert_allclose(found.loss[:4], exact, atol=0.05)
    assert exact[0] > exact[1] + 0.1
    assert found.loss[4] == 0.0
    np.testing.assert_allclose(found.alone[:4], [nats([j]) for j in range(4)], atol=0.05)
    assert found.total == pytest.approx(nats([0, 1, 2, 3]), abs=0.05)


def test_eigen_directions_are_those_of_the_exact_posterior_and_are_put_in_words():
    found = vb.diagnostics.sensitivity(make_posterior([0.4, -0.2, 0.1], COV_Z), forward, key=KEY)
    values, vectors = np.linalg.eigh(COV_Z)
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(found.directions * vectors, axis=0)), 1.0, atol=1e-4)
    assert found.num_determined == 2
    assert found.verdict == "warn"
    assert found.findings[0].startswith(combination(vectors[:, 0], ("G", "eta", "w")))
    assert f"{values[0] ** -0.5:.2g} times" in found.findings[0]
    assert any("w is not determined" in sentence for sentence in found.findings)
    assert any("lost most without: x[0]" in sentence for sentence in found.findings)
    assert any("say nothing there" in s and "x[3]" in s and "x[4]" in s for s in found.findings)


@pytest.mark.parametrize("seed", range(5))
def test_the_prior_itself_is_reported_as_nothing_learned(seed):
    theta = PRIOR.sample(key=jax.random.key(seed), n=200)
    posterior = vb.Posterior({name: np.asarray(value)[None] for name, value in theta.items()}, prior=PRIOR)
    found = vb.diagnostics.sensitivity(posterior, forward, key=KEY)
    assert found.verdict == "fail"
    assert "nothing learned" in found.findings[0]


def exact_cjs(shift, scale):
    """The distance of N(shift, scale^2) from N(0, 1) by quadrature over a fine grid."""
    from scipy.stats import norm

    x = np.linspace(-9.0, 9.0, 200_001)
    values = []
    for sign in (1.0, -1.0):
        p, q = norm.cdf(x, sign * shift, scale), norm.cdf(x)
        m = (p + q) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.nan_to_num(p * np.log2(p / m)) + np.nan_to_num(q * np.log2(q / m))
        inside_range = np.abs(x) < 3.6  # the draws end there
        values.append(np.sqrt(inside[inside_range].sum() / (p + q)[inside_range].sum()))
    return max(values)


def test_power_scaling_of_a_normal_prior_is_that_of_the_shifted_normal():
    rng = np.random.default_rng(0)
    u = rng.normal(size=20_000)
    # posterior N(3, 1), prior N(0, 4): prior^(alpha - 1) gives precision 1 + (alpha - 1) / 4, mean 3 / precision
    log_prior = -0.5 * (3.0 + u) ** 2 / 4.0
    found = power_sensitivity(u[:, None], log_prior)[0]
    expected = 0.0
    for alpha in (0.99, 1.01):
        precision = 1.0 + (alpha - 1.0) / 4.0
        expected += exact_cjs(3.0 / precision - 3.0, precision**-0.5)
    assert found == pytest.approx(expected / np.log2(1.01 / 0.99), rel=0.1)
    assert found > 0.05


def test_power_scaling_agrees_with_arviz():
    rng = np.random.default_rng(3)
    rows = rng.gamma(3.0, size=(2000, 2))
    log_prior = -0.5 * ((rows[:, 0] - 6.0) / 2.0) ** 2 - 0.3 * rows[:, 1]
    draws = az.convert_to_dataset({"a": rows[None, :, 0], "b": rows[None, :, 1]})
    data = az.InferenceData(posterior=draws, log_prior=az.convert_to_dataset({"all": log_prior[None]}))
    theirs = az.psens(data, component="prior")
    found = power_sensitivity(rows, log_prior)
    one_sided = np.array([float(theirs["a"]), float(theirs["b"])])
    assert np.all(found >= 0.99 * one_sided)  # the larger of both tails against one of them
    assert np.all(found <= 2.0 * one_sided)


def test_conflict_and_weak_data_are_told_apart():
    far = vb.diagnostics.sensitivity(make_posterior([4.0, -0.2, 0.1], 0.3 * np.eye(3)), forward, key=KEY)
    assert far.prior_sensitivity["G"] > 0.3
    assert any("pull against each other in G" in sentence for sentence in far.findings)
    near = vb.diagnostics.sensitivity(make_posterior([0.0, 0.0, 0.0], 1e-4 * np.eye(3)), forward, key=KEY)
    assert max(near.prior_sensitivity.values()) < 0.05
    assert near.verdict == "pass"
    shared = vb.diagnostics.sensitivity(make_posterior([1.2, 0.0, 0.0], 0.3 * np.eye(3)), forward, key=KEY)
    assert shared.prior_sensitivity["G"] > 0.05
    assert "Prior and data both count in G" in " ".join(shared.findings)
    assert shared.verdict == "pass"
    without = vb.diagnostics.sensitivity(make_posterior([4.0, 0, 0], 0.3 * np.eye(3), log_prob=False), forward, key=KEY)
    assert without.likelihood_sensitivity == {}


def test_a_flat_prior_has_no_influence_and_equal_weights_no_distance():
    rows = np.random.default_rng(0).normal(size=(100, 2))
    assert power_sensitivity(rows, np.full(100, -1.5)).tolist() == [0.0, 0.0]
    assert cjs_distance(rows[:, 0], np.full(100, 0.3)) == pytest.approx(0.0, abs=1e-7)


def test_mistakes_are_named():
    posterior = make_posterior([0, 0, 0], COV_Z)
    with pytest.raises(ValueError, match=r"this posterior has no prior; write vb\.Posterior\(theta, prior=prior\)"):
        vb.diagnostics.sensitivity(vb.Posterior(posterior.theta), forward, key=KEY)
    few = vb.Posterior({name: value[:, :50] for name, value in posterior.theta.items()}, prior=PRIOR)
    with pytest.raises(ValueError, match=r"this posterior has 50 draws; sensitivity needs 100 or more"):
        vb.diagnostics.sensitivity(few, forward, key=KEY)
    with pytest.raises(ValueError, match=r"14 of 14 simulations at the posterior mean .* raise num_repeats to 50"):
        vb.diagnostics.sensitivity(posterior, forward, key=KEY, num_repeats=14)
    with pytest.raises(ValueError, match=r"0 of 256 simulations at the posterior mean"):
        vb.diagnostics.sensitivity(posterior, lambda theta, key: jnp.full(5, jnp.nan), key=KEY)
    with pytest.raises(ValueError, match=r"num_repeats=0 was given"):
        vb.diagnostics.sensitivity(posterior, forward, key=KEY, num_repeats=0)
