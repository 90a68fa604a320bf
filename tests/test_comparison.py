"""Model comparison where the answer is known: leave-one-out, evidence and model probabilities of normal models."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

import vbinfer as vb
from vbinfer._arviz import dataset, inference_data

KEY = jax.random.key(0)
Y = np.random.default_rng(0).normal(1.3, 1.5, 20)


def pointwise(theta, y):
    return -0.5 * ((y - theta["mu"]) / 1.5) ** 2 - jnp.log(1.5) - 0.5 * jnp.log(2.0 * jnp.pi)


def posterior_of(prior_mean, prior_sd, y=Y, n=20_000, chains=4):
    precision = prior_sd**-2 + len(y) / 1.5**2
    mean = (prior_mean / prior_sd**2 + y.sum() / 1.5**2) / precision
    mu = np.random.default_rng(1).normal(mean, precision**-0.5, (chains, n // chains))
    cov = 1.5**2 * np.eye(len(y)) + prior_sd**2
    evidence = st.multivariate_normal(np.full(len(y), prior_mean), cov).logpdf(y)
    return vb.Posterior({"mu": mu}, x_o=y, log_evidence=float(evidence))


def exact_loo(prior_mean, prior_sd, y=Y):
    """log p(y_i | y_-i), by conditioning the joint normal of y."""
    cov = 1.5**2 * np.eye(len(y)) + prior_sd**2
    values = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        gain = cov[i, rest] @ np.linalg.inv(cov[np.ix_(rest, rest)])
        mean = prior_mean + gain @ (y[rest] - prior_mean)
        values.append(st.norm(mean, np.sqrt(cov[i, i] - gain @ cov[rest, i])).logpdf(y[i]))
    return np.array(values)


@pytest.mark.smoke
def test_leave_one_out_is_the_closed_form_and_that_of_arviz():
    posterior = posterior_of(0.0, 0.8)
    found = vb.diagnostics.loo(posterior, pointwise)
    exact = exact_loo(0.0, 0.8)
    np.testing.assert_allclose(found.pointwise, exact, atol=0.02)
    assert found.elpd == pytest.approx(exact.sum(), abs=0.05)
    assert found.se == pytest.approx(np.sqrt(20 * exact.var(ddof=1)), rel=0.05)
    assert found.verdict == "pass"
    log_lik = st.norm(posterior.theta["mu"][..., None], 1.5).logpdf(Y)
    groups = {"posterior": {"mu": posterior.theta["mu"]}, "log_likelihood": {"y": log_lik}}
    theirs = az.loo(inference_data({name: dataset(arrays) for name, arrays in groups.items()}), reff=1.0)
    elpd, p = ("elpd", "p") if hasattr(theirs, "elpd") else ("elpd_loo", "p_loo")  # ArviZ 1 and 0.2x
    assert found.elpd == pytest.approx(float(getattr(theirs, elpd)), abs=1e-4)
    assert found.p_loo == pytest.approx(float(getattr(theirs, p)), abs=1e-4)
    assert found.threshold == pytest.approx(0.7)
    assert vb.diagnostics.loo(posterior_of(0.0, 0.8, n=400), pointwise).threshold == pytest.approx(
        1.0 - 1.0 / np.log10(400)
    )


@pytest.mark.smoke
def test_loo_pit_is_the_predictive_distribution_function():
    y = Y.copy()
    found = vb.diagnostics.loo(posterior_of(0.0, 0.8), pointwise, key=KEY,
                   replicate=lambda theta, key: theta["mu"] + 1.5 * jax.random.normal(key, (20,)))  # fmt: skip
    cov = 1.5**2 * np.eye(20) + 0.8**2
    for i in (0, 7, int(np.argmax(y))):
        rest = np.arange(20) != i
        gain = cov[i, rest] @ np.linalg.inv(cov[np.ix_(rest, rest)])
        exact = st.norm(gain @ y[rest], np.sqrt(cov[i, i] - gain @ cov[rest, i])).cdf(y[i])
        assert found.pit[i] == pytest.approx(exact, abs=5.0 * 0.5 / np.sqrt(20_000) + 0.01)


def test_an_observation_that_decides_the_posterior_is_said():
    y = np.append(Y[:4], 60.0)
    found = vb.diagnostics.loo(posterior_of(0.0, 30.0, y=y), pointwise)
    assert found.verdict == "fail"
    assert int(np.argmax(found.pareto_k)) == 4
    assert "at observation 4" in found.findings[1]


@pytest.mark.smoke
def test_loo_differences_and_their_error_are_of_paired_observations():
    models = {"wide": (0.0, 0.8), "narrow": (-3.0, 0.2)}
    found = vb.diagnostics.compare_models(
        {name: vb.diagnostics.loo(posterior_of(*m), pointwise) for name, m in models.items()}
    )
    apart = exact_loo(*models["narrow"]) - exact_loo(*models["wide"])
    assert found.names == ("wide", "narrow")
    assert found.difference[1] == pytest.approx(apart.sum(), rel=0.02)
    assert found.se[1] == pytest.approx(np.sqrt(20 * apart.var(ddof=1)), rel=0.05)
    assert "clearly worse" in found.findings[0]
    close = {name: vb.diagnostics.loo(posterior_of(0.0, sd), pointwise) for name, sd in (("a", 0.8), ("b", 0.9))}
    assert "predict alike" in vb.diagnostics.compare_models(close).findings[0]


def test_evidence_gives_bayes_factors_and_probabilities():
    models = {"near": posterior_of(1.0, 0.5), "far": posterior_of(0.0, 0.5), "wide": posterior_of(0.0, 50.0)}
    prior = {"near": 0.2, "far": 0.5, "wide": 0.3}
    found = vb.diagnostics.compare_models(models, by="evidence", prior=prior)
    z = {name: st.multivariate_normal(np.full(20, m), 1.5**2 * np.eye(20) + s**2).pdf(Y) * prior[name]
         for name, m, s in (("near", 1.0, 0.5), ("far", 0.0, 0.5), ("wide", 0.0, 50.0))}  # fmt: skip
    for name, p in zip(found.names, found.probability, strict=True):
        assert p == pytest.approx(z[name] / sum(z.values()), rel=1e-6)
    assert found.numbers["se"] == [None, None, None]


@pytest.mark.parametrize("x", [(0.5, 0.2), (1.5, -1.0), (-0.5, 2.0)])
def test_classifier_probabilities_are_those_of_bayes(x):
    rng = np.random.default_rng(4)
    one = st.multivariate_normal([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]])
    two = st.multivariate_normal([1.0, 0.0], [[2.0, -0.4], [-0.4, 0.8]])
    draws = {
        name: vb.Draws.from_arrays({"g": np.zeros(n)}, m.rvs(n, random_state=rng))
        for name, m, n in (("one", one, 6000), ("two", two, 3000))
    }
    prior = {"one": 0.4, "two": 0.6}
    found = vb.diagnostics.compare_models(draws, by="classifier", x_o=np.array(x), key=KEY, prior=prior)
    p, q = 0.4 * one.pdf(x), 0.6 * two.pdf(x)
    assert dict(zip(found.names, found.probability, strict=True))["one"] == pytest.approx(p / (p + q), abs=0.08)
    assert found.verdict == "pass"


def test_an_observation_outside_all_models_is_said():
    rng = np.random.default_rng(5)
    draws = {name: vb.Draws.from_arrays({"g": np.zeros(300)}, rng.normal(m, 1.0, (300, 2))) for name, m in
             (("a", 0.0), ("b", 1.0))}  # fmt: skip
    found = vb.diagnostics.compare_models(draws, by="classifier", x_o=np.array([40.0, 0.0]), key=KEY)
    assert found.verdict == "warn"
    assert "outside the simulations of every model" in found.findings[-1]


def test_mistakes_are_named():
    posterior, few = posterior_of(0.0, 0.8, n=200), posterior_of(0.0, 0.8, n=40)
    good = vb.diagnostics.loo(posterior, pointwise)
    with pytest.raises(ValueError, match=r"this posterior has no x_o; write vb\.Posterior\(theta, x_o=y\)"):
        vb.diagnostics.loo(vb.Posterior(posterior.theta), pointwise)
    with pytest.raises(ValueError, match=r"this posterior has 40 draws; loo needs 100 or more"):
        vb.diagnostics.loo(few, pointwise)
    with pytest.raises(ValueError, match=r"the function returned \[\] for one draw; expected \[n_obs\]"):
        vb.diagnostics.loo(posterior, lambda theta, y: pointwise(theta, y).sum())
    with pytest.raises(ValueError, match=r"is not finite at 200 of 200 draws"):
        vb.diagnostics.loo(posterior, lambda theta, y: pointwise(theta, y) * jnp.nan)
    with pytest.raises(ValueError, match=r"replicate was given without a key"):
        vb.diagnostics.loo(posterior, pointwise, replicate=lambda theta, key: theta["mu"])
    with pytest.raises(ValueError, match=r"replicate returned \[3\]; the likelihood has \[20\] observations"):
        vb.diagnostics.loo(posterior, pointwise, replicate=lambda theta, key: jnp.zeros(3), key=KEY)
    with pytest.raises(ValueError, match=r"by='waic' was given; expected one of 'loo', 'evidence', 'classifier'"):
        vb.diagnostics.compare_models({"a": good, "b": good}, by="waic")
    with pytest.raises(ValueError, match=r"1 model was given; give two or more"):
        vb.diagnostics.compare_models({"a": good})
    with pytest.raises(TypeError, match=r"model 'b' is a Posterior; by='loo' takes vb\.diagnostics\.loo"):
        vb.diagnostics.compare_models({"a": good, "b": posterior})
    other = vb.diagnostics.loo(posterior_of(0.0, 0.8, y=Y[:5], n=200), pointwise)
    with pytest.raises(ValueError, match=r"numbers of observations differ: \{'a': 20, 'b': 5\}"):
        vb.diagnostics.compare_models({"a": good, "b": other})
    with pytest.raises(ValueError, match=r"b has no finite log_evidence; sample with .*TemperedSMC"):
        vb.diagnostics.compare_models({"a": posterior, "b": vb.Posterior(posterior.theta)}, by="evidence")
    with pytest.raises(ValueError, match=r"the posteriors have different x_o"):
        vb.diagnostics.compare_models({"a": posterior, "b": posterior_of(0.0, 1.0, y=Y + 1.0)}, by="evidence")
    with pytest.raises(ValueError, match=r"prior=\{'a': 1\.0\} was given; expected a probability for each of"):
        vb.diagnostics.compare_models({"a": posterior, "b": posterior}, by="evidence", prior={"a": 1.0})
    x = np.random.default_rng(0).normal(size=(120, 2))
    draws = vb.Draws.from_arrays({"g": np.zeros(120)}, x)
    renamed = vb.Draws.from_arrays({"g": np.zeros(120)}, x, names=("a", "b"))
    with pytest.raises(ValueError, match=r"by='classifier' needs x_o="):
        vb.diagnostics.compare_models({"a": draws, "b": draws}, by="classifier")
    with pytest.raises(ValueError, match=r"model 'b' has other features than the first"):
        vb.diagnostics.compare_models({"a": draws, "b": renamed}, by="classifier", x_o=x[0], key=KEY)
    with pytest.raises(ValueError, match=r"x_o has shape \[1\]; expected \[2\] finite numbers"):
        vb.diagnostics.compare_models({"a": draws, "b": draws}, by="classifier", x_o=x[0, :1], key=KEY)
    small = vb.Draws.from_arrays({"g": np.zeros(50)}, x[:50])
    with pytest.raises(ValueError, match=r"valid simulations: \[120, 50\]; each model needs 100 or more"):
        vb.diagnostics.compare_models({"a": draws, "b": small}, by="classifier", x_o=x[0], key=KEY)
