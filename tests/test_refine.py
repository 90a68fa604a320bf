"""Neural posteriors corrected by importance weights: closed forms of posterior and evidence, and wrong networks."""

import json
import re

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import vbinfer as vb
from vbinfer.draws.draws import Draws
from vbinfer.neural import NLE, NPE, AmortizedLikelihood, AmortizedRatio, Training
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.scaler import FeatureScaler, Standardise
from vbinfer.posterior import Posterior
from vbinfer.priors import Prior
from vbinfer.reporting import page, report
from vbinfer.reporting.sections import Image

KEY = jax.random.key(1)
X_O = lg.OFFSET + np.array([0.3, 3.4, -1.6, 1.2, 0.7, 0.0])
TOLD = np.flatnonzero(lg.NOISE > 0)
MARGINAL = lg.GAINS[:, TOLD].T @ lg.PRIOR_COV @ lg.GAINS[:, TOLD] + np.diag(lg.NOISE[TOLD] ** 2)
LOG_EVIDENCE = st.multivariate_normal.logpdf(X_O[TOLD], lg.MEAN @ lg.GAINS[:, TOLD] + lg.OFFSET[TOLD], MARGINAL)
SD = np.sqrt(np.diag(lg.COV))
SMALL = NPE(MDN(components=2, width=16, depth=1), ensemble=1, training=Training(max_epochs=15, batch_size=50))


def log_likelihood(theta, x):
    mean = jnp.concatenate([theta["coupling.G"][None], theta["model.eta"]]) @ lg.GAINS[:, TOLD] + lg.OFFSET[TOLD]
    return dist.Normal(mean, lg.NOISE[TOLD]).log_prob(x[TOLD]).sum()


@pytest.fixture(scope="module")
def amortized():
    """A rough network: its means are a tenth of a posterior sd and more from the exact ones."""
    return SMALL.fit(lg.make_draws(lg.make_prior(), 1000), lg.make_prior(), key=KEY)[0]


@pytest.fixture(scope="module")
def corrected(amortized):
    return amortized.refine(X_O, log_likelihood, n=8000, key=jax.random.key(2))


def test_the_posterior_and_the_evidence_are_those_of_the_closed_form(amortized, corrected):
    rough, flat = (one.ravel() for one in (amortized.sample(X_O, n=8000, key=jax.random.key(2)), corrected))
    error = np.abs((rough.mean(0) - lg.posterior_mean(X_O)) / SD).max()
    noise = 4.5 / np.sqrt(corrected.info["ess"])  # the Monte-Carlo error of a mean, in sds
    assert error > 1.5 * noise  # the network needs correction
    np.testing.assert_allclose((flat.mean(0) - lg.posterior_mean(X_O)) / SD, 0.0, atol=noise)
    np.testing.assert_allclose(np.cov(flat.T) / np.outer(SD, SD), lg.COV / np.outer(SD, SD), atol=2 * noise)
    assert abs(corrected.log_evidence - LOG_EVIDENCE) < 4.5 * corrected.info["log_evidence_error"] + 1e-3
    assert corrected.info["log_evidence_error"] < 0.02


def test_the_notes_are_what_they_say(amortized, corrected):
    info, weights = corrected.info, np.exp(corrected.info["log_weights"])
    assert corrected.theta["model.eta"].shape == (1, 8000, 2)
    assert len(weights) == info["num_proposals"] >= 8000
    assert weights.sum() == pytest.approx(1.0)
    assert info["ess"] == pytest.approx(8000 / len(weights) / np.sum(weights**2))
    assert 1.0 < info["ess"] < 8000.0
    assert info["khat"] < 0.7
    # every draw is a proposal: its weight is the ratio of densities, and it comes as often as that asks for
    theta = {name: value[0] for name, value in corrected.theta.items()}
    target = np.asarray(amortized.prior.log_prob(theta)) + np.asarray(jax.vmap(log_likelihood, (0, None))(theta, X_O))
    np.testing.assert_allclose(corrected.log_prob[0], target, atol=2e-3)
    rows, times = np.unique(corrected.ravel(), axis=0, return_counts=True)
    assert len(rows) == info["distinct"]
    log_q = np.asarray(amortized.log_prob(amortized.prior.unravel(rows), X_O), float)
    _, first = np.unique(corrected.ravel(), axis=0, return_index=True)
    expected = 8000 / len(weights) * np.exp(target[first] - log_q - corrected.log_evidence)
    bulk = expected < np.quantile(expected, 0.9)  # heavy weights are smoothed
    assert np.all(np.abs(times - expected)[bulk] < 1.0 + 0.02 * expected[bulk])


def test_the_same_key_gives_the_same_draws_and_files_keep_the_weights(amortized, corrected, tmp_path):
    again = amortized.refine(X_O, log_likelihood, n=8000, key=jax.random.key(2))
    np.testing.assert_array_equal(again.ravel(), corrected.ravel())
    corrected.save(tmp_path / "refined.npz")
    loaded = vb.load(tmp_path / "refined.npz")
    np.testing.assert_array_equal(loaded.info.pop("log_weights"), corrected.info["log_weights"])
    assert loaded.info == {name: value for name, value in corrected.info.items() if name != "log_weights"}
    assert loaded.log_evidence == corrected.log_evidence


@pytest.fixture(scope="module")
def narrow():
    """A network of the simulator at a quarter of its noise."""
    prior = lg.make_prior()
    theta = prior.sample(key=jax.random.key(3), n=1000)
    noise = 0.25 * lg.NOISE * np.asarray(jax.random.normal(jax.random.key(4), (1000, 6)))
    x = np.asarray(prior.ravel(theta)) @ lg.GAINS + lg.OFFSET + noise
    return SMALL.fit(Draws.from_arrays({name: np.asarray(v) for name, v in theta.items()}, x), prior, key=KEY)[0]


def test_a_network_of_a_quieter_simulator_is_flagged(narrow, tmp_path, monkeypatch):
    """Its posterior is too narrow: k is near 1 - 1/16, and weights have no mean to settle at."""
    with pytest.warns(
        UserWarning, match=r"Pareto khat \d+\.\d\d is above 0\.7: these draws are not reliable; "
    ) as said:
        posterior = narrow.refine(X_O, log_likelihood, n=1000, key=jax.random.key(2))
    assert said[0].filename == __file__
    assert posterior.info["khat"] > 0.7
    assert 1.0 <= posterior.info["ess"] < 100.0
    found = vb.diagnostics.importance_weights(posterior)
    assert found.verdict == "fail"
    assert "start chains from these draws" in " ".join(found.findings)
    monkeypatch.setattr(page, "images", lambda figure: [Image("data:,", panel.alt) for panel in figure.panels])
    verdict = report(posterior, out=tmp_path / "r.html")
    (check,) = [check for check in verdict.checks if check["question"] == found.question]
    assert check["light"] == verdict.verdict == "fail"
    assert check["evidence"] == "#refinement"
    saved = json.loads((tmp_path / "r.json").read_text())["numbers"]["importance_weights"]
    assert saved["ess"] == pytest.approx(posterior.info["ess"])
    assert '<section id="refinement"' in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_chains_start_from_draws_that_are_not_reliable(narrow):
    """The way out that the warning names: chains forget where they start."""
    prior = narrow.prior
    with pytest.warns(UserWarning, match="Pareto khat"):
        posterior = narrow.refine(X_O, log_likelihood, n=1000, key=jax.random.key(2))
    chains = vb.sample_mcmc(prior, log_likelihood, X_O, init=posterior, num_warmup=150, num_samples=200, key=KEY)
    mean = np.concatenate([chains.theta["coupling.G"].mean()[None], chains.theta["model.eta"].mean((0, 1))])
    assert np.abs((mean - lg.posterior_mean(X_O)) / SD).max() < 0.25


def test_a_learned_likelihood_is_taken_as_it_is(amortized):
    prior = amortized.prior
    likelihood = NLE(MDN(components=1, width=16, depth=1), training=Training(max_epochs=15, batch_size=50)).fit(
        lg.make_draws(prior, 1000), prior, key=KEY
    )[0]
    one = amortized.refine(X_O, likelihood, n=500, key=KEY)
    two = amortized.refine(X_O, likelihood.log_likelihood, n=500, key=KEY)
    np.testing.assert_array_equal(one.ravel(), two.ravel())
    theta = {name: value[0] for name, value in one.theta.items()}
    expected = prior.log_prob(theta) + likelihood.log_likelihood(theta, X_O)
    np.testing.assert_allclose(one.log_prob[0], expected, rtol=1e-4)
    four = FeatureScaler(lg.NAMES[:4], Standardise.fit(np.random.default_rng(0).normal(size=(9, 4))))
    alone = Prior({"mu": dist.Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match="the likelihood was trained on 4 features, the posterior on 6; fit both to"):
        amortized.refine(X_O, AmortizedLikelihood(prior, NLE(), None, four, {}), n=10, key=KEY)
    with pytest.raises(ValueError, match=r"the likelihood was fitted over \{'mu': \(\)\}, the posterior over"):
        amortized.refine(X_O, AmortizedLikelihood(alone, NLE(), None, amortized.scaler, {}), n=10, key=KEY)
    with pytest.raises(TypeError, match=r"refine was given a AmortizedRatio; expected \(theta, x_o\) -> log p"):
        amortized.refine(X_O, AmortizedRatio(prior, NLE(), None, amortized.scaler, {}), n=10, key=KEY)


MISTAKES = {
    "one number per feature": (lambda theta, x: (x - theta["coupling.G"]) ** 2, "array of shape [6] and type"),
    "another width": (lambda theta, x: jnp.sum(x - jnp.ones(4)), "log_likelihood cannot be evaluated for x_o [6]"),
    "another parameter": (lambda theta, x: theta["G"] - x[0], "asks for theta['G']; the posterior has 'coupling.G'"),
    "NaN": (lambda theta, x: jnp.nan * x[0] + theta["coupling.G"], "is NaN or infinite at all of 40 proposals"),
    "impossible": (lambda theta, x: -jnp.inf * jnp.exp(theta["coupling.G"]), "log_likelihood is -inf at all of 40"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(amortized, name):
    wrong, message = MISTAKES[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        amortized.refine(X_O, wrong, n=10, key=KEY)


def test_further_mistakes_are_named(amortized, corrected):
    with pytest.raises(ValueError, match="n=0 was given; expected a positive whole number"):
        amortized.refine(X_O, log_likelihood, n=0, key=KEY)
    with pytest.raises(TypeError, match="log_likelihood is a float; expected a function"):
        amortized.refine(X_O, 3.0, n=10, key=KEY)
    with pytest.raises(ValueError, match="observation has 2 features; this posterior was trained on 6"):
        amortized.refine(X_O[:2], log_likelihood, n=10, key=KEY)
    with pytest.raises(ValueError, match="has no importance weights; give that of amort"):
        vb.diagnostics.importance_weights(Posterior({"a": np.zeros((1, 3))}))

    def half(theta, x):
        return jnp.where(theta["coupling.G"] > lg.posterior_mean(X_O)[0], log_likelihood(theta, x), jnp.nan)

    with pytest.warns(UserWarning, match=r"is NaN or infinite at \d,\d\d\d of 4,000 proposals, which get no weight"):
        posterior = amortized.refine(X_O, half, n=1000, key=KEY)
    assert posterior.theta["coupling.G"].min() > lg.posterior_mean(X_O)[0]


# ---- what it must reach, on problems of the benchmark and a banana


def banana():
    """theta ~ N(0, I), x ~ N((a, b + a^2), diag(0.6, 0.2)^2): posterior and evidence by quadrature."""

    def mean(theta):
        a, b = theta["theta"]
        return jnp.stack([a, b + a**2])

    sd = np.array([0.6, 0.2])
    return vb.tasks.Task(
        "banana",
        Prior({"theta": dist.Normal(0.0, 1.0).expand([2])}),
        lambda theta, key: mean(theta) + sd * jax.random.normal(key, (2,)),
        lambda theta, x: dist.Normal(mean(theta), sd).log_prob(x).sum(),
        2,
        lambda x, n, key: on_grid(x, n, key)[0],
    )


def on_grid(x, n, key):
    """Independent draws of the banana's posterior, and its log evidence."""
    a = np.linspace(-5.0, 5.0, 20_001)
    log_p = st.norm.logpdf(a) + st.norm.logpdf(float(x[0]), a, 0.6)
    log_p += st.norm.logpdf(float(x[1]), a**2, np.sqrt(1.0 + 0.2**2))  # b integrated out
    p = np.exp(log_p)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    chosen = rng.choice(a, n, p=p / p.sum()) + (a[1] - a[0]) * (rng.uniform(size=n) - 0.5)
    variance = 1.0 / (1.0 + 0.2**-2)
    b = variance * (float(x[1]) - chosen**2) / 0.2**2 + np.sqrt(variance) * rng.normal(size=n)
    return np.stack([chosen, b], axis=1), np.log(p.sum() * (a[1] - a[0]))


TASKS = {"mixture": vb.tasks.gaussian_mixture, "banana": banana, "linear": vb.tasks.gaussian_linear}
SEEN = {"mixture": [1.3, -4.2], "banana": [0.8, 1.1], "linear": np.linspace(-0.6, 0.7, 10)}
EVIDENCE = {
    "mixture": lambda x: -2.0 * np.log(20.0),  # the box holds all of it
    "banana": lambda x: on_grid(x, 2, KEY)[1],
    "linear": lambda x: st.norm.logpdf(x, 0.0, np.sqrt(0.2)).sum(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_draws_are_not_told_from_the_posterior(name):
    task, x_o = TASKS[name](), np.asarray(SEEN[name])
    draws = vb.sample_prior_predictive(task.prior, task.simulator, n=10_000, key=KEY, progress=False)
    posterior = NPE().fit(draws, task.prior, key=KEY)[0].refine(x_o, task.log_likelihood, n=10_000, key=KEY)
    assert posterior.info["khat"] < 0.7
    assert posterior.info["ess"] > 3_000.0
    assert abs(posterior.log_evidence - EVIDENCE[name](x_o)) < 0.1
    n = 10_000 if len(x_o) == 2 else 3_000
    exact = np.asarray(task.exact(jnp.asarray(x_o), n, jax.random.key(7)))
    assert vb.diagnostics.c2st(exact, posterior.ravel()[np.arange(n) * (10_000 // n)]) < 0.52
