"""Shrinkage, z-scores and chain diagnostics against closed forms."""

import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.diagnostics.chain_measures import ess, mcse, rhat
from vbinfer.diagnostics.recovery import shrinkage, zscore
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior


def exactly(mean, variance, n=1001, chains=1):
    """Draws whose sample mean and variance (ddof=1) are exactly these."""
    x = np.random.default_rng(0).normal(size=(chains * n, *np.shape(mean)))
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    return (mean + np.sqrt(variance) * x).reshape(chains, n, *np.shape(mean))


PRIOR = Prior({"a": dist.Normal(3.0, 2.0), "b": dist.Uniform(0.0, 6.0).expand([2])})  # variances 4 and 3
POSTERIOR = Posterior(
    {"a": exactly(2.0, 0.2, chains=2), "b": exactly(np.array([1.0, 4.0]), np.array([0.3, 6.0]), chains=2)}
)


@pytest.mark.parametrize(("kind", "a", "b"), [("variance", 0.95, [0.9, -1.0]), ("sd", 0.776393, [0.683772, -0.414214])])
def test_shrinkage_by_either_definition(kind, a, b):
    found = shrinkage(PRIOR, POSTERIOR, kind=kind)
    assert found["a"] == pytest.approx(a, abs=1e-6)
    assert np.ndim(found["a"]) == 0
    np.testing.assert_allclose(found["b"], b, atol=1e-6)


def test_variances_have_ddof_1():
    posterior = Posterior({"a": np.array([[1.0, 2.0, 6.0]]), "b": np.zeros((1, 3, 2))})
    assert shrinkage(PRIOR, posterior)["a"] == pytest.approx(1 - 7.0 / 4.0)


def test_zscore_and_its_sign():
    true = {"a": 3.0, "b": [0.0, 4.0]}
    signed, plain = zscore(POSTERIOR, true, signed=True), zscore(POSTERIOR, true)
    assert signed["a"] == pytest.approx(-1 / np.sqrt(0.2))
    assert plain["a"] == pytest.approx(1 / np.sqrt(0.2))
    np.testing.assert_allclose(signed["b"], [1 / np.sqrt(0.3), 0.0], atol=1e-9)


def test_mcse_and_ess_of_an_autoregression():
    """AR(1) with coefficient r has ESS n (1 - r) / (1 + r)."""
    r, n, rng = 0.6, 20_000, np.random.default_rng(2)
    x = np.zeros((4, n))
    noise = rng.normal(size=(4, n)) * np.sqrt(1 - r**2)
    for t in range(1, n):
        x[:, t] = r * x[:, t - 1] + noise[:, t]
    posterior = Posterior({"a": 5.0 + 2.0 * x})
    expected = 4 * n * (1 - r) / (1 + r)
    assert ess(posterior)["a"] == pytest.approx(expected, rel=0.06)
    assert mcse(posterior)["a"] == pytest.approx(2.0 / np.sqrt(expected), rel=0.05)
    assert ess(posterior, kind="tail")["a"] != ess(posterior)["a"]
    assert rhat(posterior)["a"] < 1.002
    shifted = Posterior({"a": 2.0 * x + np.array([0.0, 0.0, 0.0, 9.0])[:, None]})
    assert rhat(shifted)["a"] > 1.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shrinkage(PRIOR, POSTERIOR, kind="std"), "expected one of 'variance', 'sd'"),
        (lambda: shrinkage(Prior({"a": dist.Normal()}), POSTERIOR), "the posterior has a, b but the prior has a"),
        (lambda: zscore(POSTERIOR, {"a": 1.0}), "the posterior has a, b but theta_true has a"),
        (lambda: zscore(POSTERIOR, {"a": 1.0, "b": 1.0}), r"theta_true\['b'\] has shape \[\]"),
        (lambda: zscore(Posterior({"a": np.ones((1, 1))}), {"a": 1.0}), "needs at least two"),
        (lambda: ess(POSTERIOR, kind="middle"), "expected one of 'bulk', 'tail'"),
        (lambda: mcse(POSTERIOR, kind="median"), "expected one of 'mean', 'sd'"),
        (lambda: rhat(Posterior({"a": np.ones((1, 9))})), "sample with num_chains=4"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
