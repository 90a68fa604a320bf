"""Cohorts against exact two-level Gaussians; bad input in sentences."""

import dataclasses
import re
import warnings

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

import vbinfer as vb

WIDTH = 3.0
PRIOR = vb.Prior({"a": dist.Normal(0.5, WIDTH), "b": dist.Uniform(-1.0, 3.0).expand([2])})
HYPER = vb.Prior(
    {
        "a.mean": dist.Normal(0.0, 5.0),
        "a.sd": dist.HalfNormal(2.0),
        "b.mean": dist.Normal(0.0, 1.0).expand([2]),
        "b.sd": dist.HalfNormal(0.5),
    }
)


def gaussian(x, noise, prior_mean, prior_sd, n, rng):
    """Draws `[1, n]` of u given x ~ N(u, noise^2) and u ~ N(prior_mean, prior_sd^2)."""
    v = 1.0 / (1.0 / noise**2 + 1.0 / prior_sd**2)
    quantiles = stats.norm.ppf((rng.permutation(n) + 0.5) / n)
    return (v * (x / noise**2 + prior_mean / prior_sd**2) + np.sqrt(v) * quantiles)[None]


def exact(x, noise, prior_mean, prior_sd, sd_scale):
    """Moments of mean and sd, and of each u, by quadrature over sd; the mean is integrated in closed form.

    x `[S, K]`, noise `[S]`; one sd is shared over K columns. float64, no code of the package.
    """
    grid = np.linspace(1e-4, 5.0 * sd_scale, 4_000)
    log_p = stats.halfnorm.logpdf(grid, scale=sd_scale)
    total = grid[:, None] ** 2 + noise**2  # [sd, S]: variance of x around the mean
    precision = (1.0 / total).sum(1) + 1.0 / prior_sd**2
    centre = ((1.0 / total) @ x + prior_mean / prior_sd**2) / precision[:, None]
    for k in range(x.shape[1]):
        square = ((x[:, k] ** 2) / total).sum(1) + prior_mean**2 / prior_sd**2 - precision * centre[:, k] ** 2
        log_p = log_p - 0.5 * (square + np.log(total).sum(1) + np.log(precision))
    p = special.softmax(log_p)
    mean = p @ centre
    second = p @ (centre**2 + 1.0 / precision[:, None])
    # u given mean and sd is (noise^2 mean + sd^2 x) / (sd^2 + noise^2)
    share = grid[:, None] ** 2 / total
    u = np.einsum("g,gsk->sk", p, share[..., None] * x + (1.0 - share)[..., None] * centre[:, None])
    sd = p @ grid, np.sqrt(p @ grid**2 - (p @ grid) ** 2)
    return {"mean": (mean, np.sqrt(second - mean**2)), "sd": sd, "u": u}


@pytest.fixture(scope="module", params=[(12, 1_500), pytest.param((40, 1_500), marks=pytest.mark.slow)])
def two_levels(request):
    """Subjects with noise of their own: `a` over theta; two elements of `b` over z, with one sd."""
    rng = np.random.default_rng(4)
    subjects, n = request.param
    noise = rng.uniform(0.3, 0.6, subjects)
    x_a = rng.normal(1.5, 0.8, subjects) + noise * rng.normal(size=subjects)
    x_b = rng.normal([0.6, -0.4], 0.5, (subjects, 2)) + noise[:, None] * rng.normal(size=(subjects, 2))
    posteriors = {}
    for s in range(subjects):
        a = gaussian(x_a[s], noise[s], 0.5, WIDTH, n, rng)
        z = np.stack([gaussian(x_b[s, k], noise[s], 0.0, 1.0, n, rng) for k in range(2)], axis=-1)
        posteriors[f"sub-{s:02d}"] = vb.Posterior({"a": a, "b": -1.0 + 4.0 * stats.norm.cdf(z)}, prior=PRIOR)
    found = vb.cohort(posteriors, HYPER, key=jax.random.key(1))
    return found, noise, x_a, x_b


def near(draws, moments, subject):
    """Within a tenth of an sd of the mean, a tenth of the sd."""
    mean, sd = (np.asarray(v) for v in moments)
    flat = draws.reshape(-1, *draws.shape[2:])
    assert (np.abs(flat.mean(0) - mean) < 0.1 * sd).all(), (subject, flat.mean(0), mean, sd)
    assert (np.abs(flat.std(0) / sd - 1.0) < 0.1).all(), (subject, flat.std(0), sd)


def test_population_is_that_of_quadrature(two_levels):
    found, noise, x_a, x_b = two_levels
    a, b = exact(x_a[:, None], noise, 0.0, 5.0, 2.0), exact(x_b, noise, 0.0, 1.0, 0.5)
    theta = found.population.theta
    near(theta["a.mean"], [v[0] for v in a["mean"]], "a.mean")
    near(theta["a.sd"], a["sd"], "a.sd")
    near(theta["b.mean"], b["mean"], "b.mean")
    near(theta["b.sd"], b["sd"], "b.sd")
    assert found.population.info["over"] == {"a": "theta", "b": "z"}
    assert found.population.prior == HYPER


def test_subjects_are_shrunken_as_exact_posteriors_are(two_levels):
    found, noise, x_a, x_b = two_levels
    means = np.array([one.theta["a"].mean() for one in found.subjects.values()])
    alone = np.array([one.theta["a"].mean() for one in found.posteriors.values()])
    right = exact(x_a[:, None], noise, 0.0, 5.0, 2.0)["u"][:, 0]
    assert np.abs(means - right).max() < 0.12  # sd of a subject 0.4-0.6, a few hundred effective draws
    assert np.abs(alone - right).max() > 0.3
    z = [stats.norm.ppf((one.theta["b"][0] + 1.0) / 4.0).mean(0) for one in found.subjects.values()]
    assert np.abs(np.array(z) - exact(x_b, noise, 0.0, 1.0, 0.5)["u"]).max() < 0.12
    ess = np.array(list(found.population.info["ess"].values()))
    first = found.posteriors["sub-00"]
    assert ((ess > 50) & (ess < first.num_samples)).all()
    assert all(one.prior == PRIOR and one.num_samples == first.num_samples for one in found.subjects.values())


def test_many_leaves_are_pooled_by_mixtures_where_weights_fail():
    """Six elements known ten times better than the prior: of 300 draws few fit in all of them."""
    rng, subjects, k = np.random.default_rng(3), 8, 6
    prior = vb.Prior({"a": dist.Normal(0.5, WIDTH).expand([k])})
    hyperprior = vb.Prior({"a.mean": dist.Normal(0.0, 5.0).expand([k]), "a.sd": dist.HalfNormal(2.0)})
    noise = rng.uniform(0.3, 0.6, subjects)
    x = rng.normal(np.linspace(-2.0, 3.0, k), 0.4, (subjects, k)) + noise[:, None] * rng.normal(size=(subjects, k))
    draws = [
        np.stack([gaussian(x[s, j], noise[s], 0.5, WIDTH, 300, rng) for j in range(k)], -1) for s in range(subjects)
    ]
    posteriors = {f"s{s}": vb.Posterior({"a": a}, prior=prior) for s, a in enumerate(draws)}
    with pytest.warns(UserWarning, match=r"s\d \(khat .*All subjects were pooled by Gaussian mixtures"):
        found = vb.cohort(posteriors, hyperprior, key=jax.random.key(1))
    assert found.population.info["likelihood"] == "mixtures"
    right, theta = exact(x, noise, 0.0, 5.0, 2.0), found.population.theta
    error = (theta["a.mean"].mean((0, 1)) - right["mean"][0]) / right["mean"][1]
    assert np.abs(error).max() < 0.2  # centres of 300 draws are an eighth of an sd of the mean uncertain
    np.testing.assert_allclose(theta["a.mean"].std((0, 1)), right["mean"][1], rtol=0.1)
    assert abs(theta["a.sd"].mean() - right["sd"][0]) < 0.25 * right["sd"][1]
    means = np.array([one.theta["a"].mean((0, 1)) for one in found.subjects.values()])
    assert np.abs(means - right["u"]).max() < 0.12


def test_two_modes_are_kept_by_a_mixture():
    """q and p of a subject with two modes: the integral over the population by quadrature."""
    from vbinfer.approximate import mixtures

    rng, grid = np.random.default_rng(0), np.linspace(-8.0, 8.0, 20_001)
    w = np.where(rng.random(4_000) < 0.3, rng.normal(-1.5, 0.2, 4_000), rng.normal(1.0, 0.3, 4_000))
    fitted = mixtures.fit(w[None, :, None], stats.norm.logpdf(w)[None])
    q = 0.3 * stats.norm.pdf(grid, -1.5, 0.2) + 0.7 * stats.norm.pdf(grid, 1.0, 0.3)
    levels = [(0.3, 0.8), (-1.2, 0.4), (2.5, 0.3), (0.9, 0.01)]  # and where the population is one point
    got = [float(fitted.log_likelihood(np.array([m]), np.array([sd]))) for m, sd in levels]
    right = [np.log(np.trapezoid(q * stats.norm.pdf(grid, m, sd) / stats.norm.pdf(grid), grid)) for m, sd in levels]
    np.testing.assert_allclose(np.diff(got), np.diff(right), atol=0.1)


@pytest.fixture(scope="module")
def one_leaf():
    """20 subjects, `a` alone; the first ten from another population, and the first in several chains."""
    rng = np.random.default_rng(6)
    noise = rng.uniform(0.3, 0.6, 20)
    u = rng.normal(np.repeat([1.4, 0.2], 10), 0.6)
    x = u + noise * rng.normal(size=20)
    prior = vb.Prior({"a": dist.Normal(0.5, WIDTH)})
    given = {f"s{i}": gaussian(x[i], noise[i], 0.5, WIDTH, 320, rng) for i in range(20)}
    posteriors = {name: vb.Posterior({"a": a}, prior=prior) for name, a in given.items()}
    posteriors["s0"] = vb.Posterior({"a": given["s0"].reshape(4, 80)}, prior=prior)
    hyperprior = vb.Prior({"a.mean": dist.Normal(0.0, 5.0), "a.sd": dist.HalfNormal(2.0)})
    return vb.cohort(posteriors, hyperprior, key=jax.random.key(2)), noise, x, u


def test_difference_is_that_of_two_populations(one_leaf):
    found, noise, x, _ = one_leaf
    first, second = (slice(0, 10), slice(10, 20))
    groups = {"patients": [f"s{i}" for i in range(10)], "controls": [f"s{i}" for i in range(10, 20)]}
    got = found.difference(groups, key=jax.random.key(5)).theta["a"]
    a, b = (exact(x[part][:, None], noise[part], 0.0, 5.0, 2.0)["mean"] for part in (first, second))
    near(got, (a[0][0] - b[0][0], np.hypot(a[1][0], b[1][0])), "difference")


def line_by_importance(x, y, noise, level, width, rng):
    """Mean and sd of (slope, intercept, residual) by importance sampling of the exact joint density, in float64.

    Given mean, sd, slope b and residual: x_s ~ N(mean, sd^2 + noise^2), y_s | x_s is normal around the line at E u_s.
    """
    from scipy import optimize

    spread = y.std(ddof=1)

    def log_p(q):
        mean, sd, a, b, tau = q[..., 0], np.exp(q[..., 1]), q[..., 2], q[..., 3], np.exp(q[..., 4])
        mean, sd, a, b, tau = (v[..., None] for v in (mean, sd, a, b, tau))
        total = sd**2 + noise**2
        at, v = (sd**2 * x + noise**2 * mean) / total, sd**2 * noise**2 / total
        seen = stats.norm.logpdf(x, mean, np.sqrt(total))
        seen = seen + stats.norm.logpdf(y, a + b * (at - level), np.sqrt(b**2 * v + tau**2))
        known = stats.norm.logpdf(mean, 0.0, 5.0) + stats.halfnorm.logpdf(sd, scale=2.0) + np.log(sd)
        known = known + stats.norm.logpdf(a, y.mean(), 2.5 * spread) + np.log(tau)
        known = known + stats.norm.logpdf(b, 0.0, 2.5 * spread / width)
        known = known + stats.halfnorm.logpdf(tau, scale=2.5 * spread)
        return seen.sum(-1) + known[..., 0]

    mode = optimize.minimize(lambda q: -log_p(q), [x.mean(), -0.5, y.mean(), 0.5, -0.5])
    proposal = stats.multivariate_t(mode.x, 1.3 * mode.hess_inv, df=5, seed=rng)
    q = proposal.rvs(20_000)
    w = special.softmax(log_p(q) - proposal.logpdf(q))
    assert 1.0 / (w**2).sum() > 2_000
    wanted = np.stack([q[:, 3], q[:, 2], np.exp(q[:, 4])], axis=1)
    mean = w @ wanted
    return mean, np.sqrt(w @ wanted**2 - mean**2)


def test_regression_carries_the_uncertainty_through(one_leaf):
    found, noise, x, u = one_leaf
    rng = np.random.default_rng(8)
    y = 20.0 + 5.0 * (u - u.mean()) + 2.0 * rng.normal(size=20)
    score = {f"s{i}": float(y[i]) for i in reversed(range(20))}
    line = found.regress(score, "a", key=jax.random.key(7))
    level, width = (found.population.theta[f"a.{kind}"].mean() for kind in ("mean", "sd"))
    mean, sd = line_by_importance(x, y, noise, level, width, rng)
    for i, name in enumerate(("slope", "intercept", "residual")):
        near(line.theta[name], (mean[i], sd[i]), name)
    assert line.info["leaf"] == "a"


@pytest.mark.slow
def test_population_passes_simulation_based_calibration():
    """Ranks of true mean and sd among their draws, 100 cohorts of 8 subjects, are uniform."""
    rng = np.random.default_rng(11)
    prior = vb.Prior({"a": dist.Normal(0.0, 2.0)})
    hyperprior = vb.Prior({"a.mean": dist.Normal(0.3, 1.0), "a.sd": dist.Gamma(3.0, 4.0)})
    ranks = []
    for i in range(100):
        mean, sd = rng.normal(0.3, 1.0), rng.gamma(3.0, 0.25)
        x = rng.normal(mean, sd, 8) + 0.4 * rng.normal(size=8)
        draws = {f"s{j}": vb.Posterior({"a": gaussian(x[j], 0.4, 0.0, 2.0, 400, rng)}, prior=prior) for j in range(8)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            theta = vb.cohort(draws, hyperprior, key=jax.random.key(i)).population.theta
        ranks.append([np.mean(theta["a.mean"] < mean), np.mean(theta["a.sd"] < sd)])
    for column in np.array(ranks).T:
        assert stats.kstest(column, "uniform").pvalue > 0.02


# ---- bad input


def one(shape=(), prior=None):
    rng = np.random.default_rng(0)
    prior = vb.Prior({"a": dist.Normal(0.0, 3.0).expand(list(shape))}) if prior is None else prior
    return vb.Posterior({"a": rng.normal(size=(1, 200, *shape))}, prior=prior)


def hyper(**more):
    return vb.Prior({"a.mean": dist.Normal(0.0, 2.0), "a.sd": dist.HalfNormal(1.0)} | more)


LACKS = vb.Prior({"a.mean": dist.Normal(0.0, 1.0)})
OTHER = vb.Prior({"a": dist.Normal(0.0, 5.0)})


@pytest.mark.parametrize(
    ("posteriors", "hyperprior", "message"),
    [
        ({}, hyper(), "no subject"),
        ({1: one(), "1": one()}, hyper(), "two subjects have the name '1'"),
        ({"s": one(), "t": one(shape=(84,))}, hyper(), "'t' has the parameters.*84.*same parcellation"),
        ({"s": one(), "t": one(prior=OTHER)}, hyper(), "the prior of 't'.*one prior"),
        ({"s": one(), "t": dataclasses.replace(one(), prior=None)}, hyper(), "'t' has no prior.*prior=prior"),
        ({"s": one()}, LACKS, "lacks 'a.sd'.*HalfNormal"),
        ({"s": one()}, hyper(**{"b.mean": dist.Normal(0.0, 1.0)}), "names 'b.mean'.*a.mean"),
        ({"s": one()}, hyper(**{"a.sd": dist.Normal(0.0, 1.0)}), "'a.sd' reaches below 0"),
        ({"s": one()}, hyper(**{"a.mean": dist.Normal(0.0, 1.0).expand([3])}), r"shape \[3\]; expected \[\]"),
        (
            {"s": one(prior=vb.Prior({"a": dist.Uniform(0.0, 1.0)}))},
            hyper(),
            "draws of 's' have no density under its own prior",
        ),
    ],
)
def test_bad_input_is_a_sentence(posteriors, hyperprior, message):
    with pytest.raises(ValueError, match=re.compile(message, re.S)):
        vb.cohort(posteriors, hyperprior, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"one": ["s0"]}, "given 1 groups; expected two"),
        ({"one": ["s0"], "two": ["s99"]}, "'two' has 's99', which is no subject"),
        ({"one": ["s0", "s1"], "two": ["s1"]}, "s1 in both groups"),
        ({"one": ["s0", "s0"], "two": ["s1"]}, "expected subjects, each once"),
    ],
)
def test_bad_groups_are_a_sentence(one_leaf, groups, message):
    with pytest.raises(ValueError, match=message):
        one_leaf[0].difference(groups, key=jax.random.key(0))


ALL = {f"s{i}": float(i) for i in range(20)}


@pytest.mark.parametrize(
    ("score", "leaf", "message"),
    [
        (ALL, "b", "leaf='b' was given; expected one of 'a'"),
        ({"s0": 1.0}, "a", "score lacks s1, s2"),
        (ALL | {"s99": 1.0}, "a", "score names 's99'"),
        (ALL | {"s3": np.nan}, "a", r"score\['s3'\]=nan"),
        (dict.fromkeys(ALL, 2.0), "a", "three subjects or more whose scores differ"),
    ],
)
def test_bad_scores_are_a_sentence(one_leaf, score, leaf, message):
    with pytest.raises(ValueError, match=message):
        one_leaf[0].regress(score, leaf, key=jax.random.key(0))


def test_one_subject_is_allowed_with_a_warning():
    prior = vb.Prior({"a": dist.Normal(0.5, WIDTH)})
    draws = gaussian(0.7, 0.8, 0.5, WIDTH, 320, np.random.default_rng(1))
    hyperprior = vb.Prior({"a.mean": dist.Normal(0.0, 5.0), "a.sd": dist.HalfNormal(2.0)})
    with pytest.warns(UserWarning, match="one subject, 's'.*sd is that of the hyperprior"):
        found = vb.cohort({"s": vb.Posterior({"a": draws}, prior=prior)}, hyperprior, key=jax.random.key(0))
    assert set(found.subjects) == {"s"}
    mean, sd = exact(np.array([[0.7]]), np.array([0.8]), 0.0, 5.0, 2.0)["sd"]
    assert abs(found.population.theta["a.sd"].mean() - mean) < 0.15 * sd


def test_subjects_whose_draws_miss_the_population_are_named():
    rng = np.random.default_rng(3)
    prior = vb.Prior({"a": dist.Normal(0.0, 3.0).expand([12])})
    draws = {f"s{i}": vb.Posterior({"a": rng.normal(0, 2.5, (1, 200, 12))}, prior=prior) for i in range(6)}
    tight = vb.Prior({"a.mean": dist.Normal(0.0, 0.1), "a.sd": dist.Uniform(0.2, 0.3)})
    with pytest.warns(UserWarning, match=r"not reliable for .*s\d \(khat"):
        vb.cohort(draws, tight, key=jax.random.key(0))
