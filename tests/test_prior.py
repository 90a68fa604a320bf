"""Priors: z is standard normal under the prior, densities equal scipy's and torch's, mistakes are named."""

import copy
import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from vbinfer.priors import Prior
from vbinfer.priors.spec import from_spec, to_spec

COVARIANCE = np.array([[1.0, 0.6, 0.0], [0.6, 2.0, -0.3], [0.0, -0.3, 0.5]])
OUTSIDE = -1e3

# constructor, scipy's view of one element (None for joint ones), a value outside the support or None
SCALARS = {
    "normal": (lambda: dist.Normal(-4.6, 0.3), st.norm(-4.6, 0.3), None),
    "uniform": (lambda: dist.Uniform(1.0, 3.0), st.uniform(1.0, 2.0), 3.5),
    "lognormal": (lambda: dist.LogNormal(-1.0, 0.5), st.lognorm(0.5, scale=np.exp(-1.0)), -1.0),
    "loguniform": (lambda: dist.LogUniform(0.1, 10.0), st.loguniform(0.1, 10.0), 11.0),
    "truncated_low": (lambda: dist.TruncatedNormal(0.6, 0.5, low=0.0), st.truncnorm(-1.2, np.inf, 0.6, 0.5), -0.1),
    "truncated_far": (lambda: dist.TruncatedNormal(0.0, 1.0, low=2.0, high=4.0), st.truncnorm(2.0, 4.0), 1.9),
    "truncated_high": (lambda: dist.TruncatedNormal(1.0, 2.0, high=0.5), st.truncnorm(-np.inf, -0.25, 1.0, 2.0), 0.6),
    "halfnormal": (lambda: dist.HalfNormal(2.0), st.halfnorm(scale=2.0), OUTSIDE),
    "exponential": (lambda: dist.Exponential(3.0), st.expon(scale=1.0 / 3.0), OUTSIDE),
    "gamma": (lambda: dist.Gamma(2.5, 3.0), st.gamma(2.5, scale=1.0 / 3.0), OUTSIDE),
    "inverse_gamma": (lambda: dist.InverseGamma(3.0, 2.0), st.invgamma(3.0, scale=2.0), OUTSIDE),
    "beta": (lambda: dist.Beta(2.0, 5.0), st.beta(2.0, 5.0), 1.5),
    "student": (lambda: dist.StudentT(4.0, 1.0, 2.0), st.t(4.0, 1.0, 2.0), None),
    "cauchy": (lambda: dist.Cauchy(1.0, 2.0), st.cauchy(1.0, 2.0), None),
    "laplace": (lambda: dist.Laplace(1.0, 2.0), st.laplace(1.0, 2.0), None),
    "logistic": (lambda: dist.Logistic(1.0, 2.0), st.logistic(1.0, 2.0), None),
    "gumbel": (lambda: dist.Gumbel(1.0, 2.0), st.gumbel_r(1.0, 2.0), None),
    "weibull": (lambda: dist.Weibull(2.0, 1.5), st.weibull_min(1.5, scale=2.0), OUTSIDE),
    "half_cauchy": (lambda: dist.HalfCauchy(2.0), st.halfcauchy(scale=2.0), OUTSIDE),
}
ARRAYS = {
    "expanded": lambda: dist.Normal(jnp.array([1.0, -2.0]), 0.3).expand([3, 2]),
    "independent": lambda: dist.Gamma(jnp.array([2.0, 5.0]), 1.5).to_event(1).expand([3]),
    "multivariate": lambda: dist.MultivariateNormal(jnp.array([1.0, 2.0, 3.0]), jnp.array(COVARIANCE)),
    "dirichlet": lambda: dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])),
}
WHITENED = ("dirichlet",)
Z = np.array([-3.0, -1.7, -0.4, 0.0, 0.6, 1.9, 3.0])


@functools.cache
def made(name):
    make = SCALARS[name][0] if name in SCALARS else ARRAYS[name]
    return Prior({"a.b": make()})


def z_rows(prior, seed=0, n=7):
    if prior.z_shapes["a.b"] == ():
        return jnp.asarray(Z)
    return jax.random.normal(jax.random.key(seed), (n, *prior.z_shapes["a.b"]))


STEP = 1e-2
"""Of central differences in float32: error STEP^2 and eps / STEP."""


@functools.cache
def facts(name):
    """Everything that the tests of one prior ask, from one compiled program."""
    prior = made(name)
    keep = prior.z_dim if name in WHITENED else prior.dim  # simplex: its first D - 1 coordinates

    def flat(v):
        return prior.ravel(prior.constrain(prior.unravel_z(v))[0])[:keep]

    def potential(v):
        theta, log_det = prior.constrain(prior.unravel_z(v))
        return prior.log_prob(theta) + log_det + jnp.sum(jnp.tanh(prior.ravel(theta)))

    def density(value):
        return prior.log_prob({"a.b": value})

    @jax.jit
    def run(z, points):
        theta, log_det = prior.constrain({"a.b": z})
        theta = jax.lax.optimization_barrier(theta)  # rounded to its type, as it is between two calls
        rows = z.reshape(len(z), -1)[1:4]
        far = jnp.concatenate([jnp.full((1, prior.z_dim), s) for s in (-8.0, -5.0, 0.0, 5.0, 8.0)])
        moved = [jax.vmap(jax.vmap(flat))(rows[:, None] + s * STEP * jnp.eye(prior.z_dim)) for s in (1.0, -1.0)]
        found = {
            "z": z,
            "theta": theta["a.b"],
            "log_det": log_det,
            "log_prob": prior.log_prob(theta),
            "back": prior.unconstrain(theta)["a.b"],
            "jacobian": jax.vmap(jax.jacfwd(flat))(rows),
            "moved": jnp.stack(moved),
            "far": jax.vmap(jax.grad(potential))(far),
        }
        if name in SCALARS:
            found |= {"at_points": density(points), "slopes": jax.vmap(jax.grad(density))(points)}
        return found

    return {key: np.asarray(value) for key, value in run(z_rows(prior), points_of(name)).items()}


def points_of(name):
    """Values of scalar priors at which the density is asked for: four quantiles, NaN, one outside."""
    if name not in SCALARS:
        return jnp.zeros(0)
    _, frozen, outside = SCALARS[name]
    return jnp.asarray([*frozen.ppf([0.02, 0.3, 0.5, 0.97]), np.nan, np.nan if outside is None else outside], float)


@pytest.mark.parametrize("name", SCALARS)
def test_constrain_is_the_quantile_of_the_normal_probability(name):
    frozen = SCALARS[name][1]
    expected = np.where(Z < 0, frozen.ppf(st.norm.cdf(Z)), frozen.isf(st.norm.sf(Z)))
    scale = frozen.ppf(0.84) - frozen.ppf(0.16)
    # float32 rounding of ndtr and ndtri
    np.testing.assert_allclose(facts(name)["theta"], expected, rtol=2e-5, atol=2e-5 * scale)


@pytest.mark.parametrize("name", [*SCALARS, *ARRAYS])
def test_unconstrain_inverts_constrain(name):
    # theta is rounded to float32: near the end of a bounded support that moves z by up to eps / phi(3)
    np.testing.assert_allclose(facts(name)["back"], facts(name)["z"], atol=2e-4)


@pytest.mark.parametrize("name", [*SCALARS, *ARRAYS])
def test_log_det_is_that_of_the_jacobian(name):
    found = facts(name)
    exact, ends = found["jacobian"].astype(float), found["moved"].astype(float)
    numeric = (ends[0] - ends[1]) / (2 * STEP)  # transposed, which a determinant does not see
    log_det = found["log_det"][1:4]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(exact)[1], atol=2e-4)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(numeric)[1], atol=5e-3 * made(name).z_dim)


@pytest.mark.parametrize("name", [n for n in [*SCALARS, *ARRAYS] if n not in WHITENED])
def test_prior_density_in_z_is_the_standard_normal(name):
    found = facts(name)
    expected = st.norm.logpdf(found["z"].astype(float)).reshape(len(found["z"]), -1).sum(1)
    np.testing.assert_allclose(found["log_prob"] + found["log_det"], expected, atol=2e-4)


@pytest.mark.parametrize("name", SCALARS)
def test_log_prob_is_scipys_and_minus_infinity_outside(name):
    (_, frozen, outside), found = SCALARS[name], facts(name)
    expected = frozen.logpdf(np.asarray(points_of(name)[:4], float))
    np.testing.assert_allclose(found["at_points"][:4], expected, rtol=1e-4, atol=1e-4)
    assert np.isneginf(found["at_points"][4])
    if outside is not None:
        assert np.isneginf(found["at_points"][5])
        assert np.isfinite(found["slopes"][5])


def test_log_prob_of_joint_leaves_is_scipys():
    theta = np.array([[0.5, 2.5, 2.0], [1.0, -1.0, 3.5]])
    expected = st.multivariate_normal([1.0, 2.0, 3.0], COVARIANCE).logpdf(theta)
    np.testing.assert_allclose(made("multivariate").log_prob({"a.b": theta}), expected, rtol=1e-4)
    simplex = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    expected = [st.dirichlet([2.0, 3.0, 4.0]).logpdf(row) for row in simplex]
    np.testing.assert_allclose(made("dirichlet").log_prob({"a.b": simplex}), expected, rtol=1e-4)
    assert np.isneginf(made("dirichlet").log_prob({"a.b": np.array([0.5, 0.7, -0.2])}))
    assert np.isneginf(made("dirichlet").log_prob({"a.b": np.array([0.5, 0.7, 0.2])}))


@pytest.mark.parametrize("name", [*SCALARS, *ARRAYS])
def test_gradients_are_finite_far_out(name):
    assert np.isfinite(facts(name)["far"]).all()


@pytest.mark.parametrize("name", ["uniform", "gamma", "inverse_gamma", "independent", "multivariate", "dirichlet"])
def test_batch_axes_vmap_and_jit_agree_with_one_at_a_time(name):
    prior = made(name)
    z = jax.random.normal(jax.random.key(3), (2, 3, *prior.z_shapes["a.b"]))
    theta, log_det = prior.constrain({"a.b": z})
    log_p = prior.log_prob(theta)
    assert log_det.shape == log_p.shape == (2, 3)
    mapped, mapped_det = jax.jit(jax.vmap(jax.vmap(prior.constrain)))({"a.b": z})
    one, one_det = prior.constrain({"a.b": z[1, 2]})
    np.testing.assert_allclose(mapped["a.b"], theta["a.b"], rtol=1e-5)
    np.testing.assert_allclose(mapped_det, log_det, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["a.b"], theta["a.b"][1, 2], rtol=1e-5)
    np.testing.assert_allclose(one_det, log_det[1, 2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prior.log_prob(one), log_p[1, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["uniform", "truncated_far", "gamma", "beta", "weibull", "multivariate", "dirichlet"])
def test_draws_and_moments_agree(name):
    prior, n = made(name), 20_000
    theta = prior.sample(key=jax.random.key(1), n=n)
    flat, z = np.asarray(prior.ravel(theta), float), np.asarray(prior.ravel_z(prior.unconstrain(theta)), float)
    sd = np.sqrt(prior.ravel(prior.variance()))
    assert np.all(np.abs(flat.mean(0) - prior.ravel(prior.mean())) < 4.5 * sd / np.sqrt(n))
    np.testing.assert_allclose(flat.std(0), sd, rtol=0.04)  # 4.5 sqrt((kurtosis - 1) / 4n), kurtosis up to 5
    assert np.all(np.abs(z.mean(0)) < 4.5 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(z.T), np.eye(z.shape[1]) if z.shape[1] > 1 else 1.0, atol=4.5 * np.sqrt(2 / n))


def test_moments_without_a_formula_come_from_draws():
    prior = Prior({"m": dist.LeftTruncatedDistribution(dist.Laplace(1.0, 0.5), low=0.0)})
    mean = (1.0 + 0.25 * np.exp(-2.0)) / (1.0 - 0.5 * np.exp(-2.0))
    assert float(prior.mean()["m"]) == pytest.approx(mean, abs=4.5 * 0.7 / np.sqrt(1e5))
    for name in SCALARS:
        assert not np.isnan(made(name).mean()["a.b"])
        exact = SCALARS[name][1].var()
        assert np.isnan(made(name).variance()["a.b"]) == (not np.isfinite(exact))


HEAVY = {
    "cauchy": (lambda: dist.Cauchy(1.0, 2.0), [np.nan]),
    "half cauchy, one per node": (lambda: dist.HalfCauchy(2.0).expand([2]), [np.nan, np.nan]),
    "student": (lambda: dist.StudentT(jnp.array([1.0, 2.0, 3.0]), 0.0, 2.0), [np.nan, np.nan, 12.0]),
    "pareto": (lambda: dist.Pareto(1.0, jnp.array([1.5, 4.0])), [np.nan, 4.0 / (9.0 * 2.0)]),
    "inverse gamma": (lambda: dist.InverseGamma(jnp.array([2.0, 3.0]), 2.0), [np.nan, 1.0]),
    "cauchy cut on one side": (lambda: dist.TruncatedCauchy(0.0, 1.0, low=0.0), [np.nan]),
    "student cut on one side": (lambda: dist.TruncatedDistribution(dist.StudentT(1.5, 0.0, 1.0), low=0.0), [np.nan]),
    "cauchy scaled": (
        lambda: dist.TransformedDistribution(dist.Cauchy(0.0, 1.0), dist.transforms.AffineTransform(1.0, 2.0)),
        [np.nan],
    ),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_variance_that_is_not_finite_is_said_and_not_sampled(name):
    make, expected = HEAVY[name]
    np.testing.assert_allclose(np.ravel(Prior({"a": make()}).variance()["a"]), expected, rtol=1e-5)


def test_an_interval_has_a_variance_whatever_the_formula_says():
    cut = Prior({"a": dist.TruncatedCauchy(0.0, 1.0, low=-1.0, high=1.0)}).variance()["a"]
    assert float(cut) == pytest.approx(4.0 / np.pi - 1.0, abs=0.005)  # E x^2 = (int x^2 / (1 + x^2)) / (pi / 2)


def mixed():
    return Prior(
        {
            "coupling.G": dist.Uniform(0.0, 0.5),
            "model.eta": dist.Normal(jnp.array([-4.6, -5.0]), 0.3),
            "w": dist.TruncatedNormal(0.6, 0.1, low=0.0),
            "sigma": dist.MultivariateNormal(jnp.array([1.0, 2.0, 3.0]), jnp.array(COVARIANCE)),
        }
    )


def test_names_follow_ravel_and_unravel():
    prior = mixed()
    assert prior.names[:4] == ("coupling.G", "model.eta[0]", "model.eta[1]", "w")
    assert prior.dim == 7
    theta = {"w": 0.7, "sigma": np.arange(3.0), "model.eta": np.array([1.0, 2.0]), "coupling.G": 0.25}
    flat = prior.ravel(theta)
    np.testing.assert_allclose(flat, [0.25, 1.0, 2.0, 0.7, 0.0, 1.0, 2.0], rtol=1e-6)
    back = prior.unravel(flat)
    np.testing.assert_array_equal(back["model.eta"], [1.0, 2.0])
    assert prior.sample(key=jax.random.key(0))["model.eta"].shape == (2,)


def test_numpyro_sites_have_the_density_of_the_prior():
    prior = mixed()
    theta = prior.sample(key=jax.random.key(4))
    log_joint = numpyro.infer.util.log_density(prior.numpyro, (), {}, theta)[0]
    assert float(log_joint) == pytest.approx(float(prior.log_prob(theta)), rel=1e-5)
    returned = numpyro.handlers.seed(prior.numpyro, jax.random.key(5))()
    assert set(returned) == set(prior.shapes)


def test_a_prior_comes_back_from_its_description():
    prior = mixed()
    again = Prior.from_spec(prior.to_spec())
    theta = prior.sample(key=jax.random.key(6), n=5)
    np.testing.assert_array_equal(again.log_prob(theta), prior.log_prob(theta))
    for name in [*SCALARS, *ARRAYS]:
        spec = made(name).to_spec()["a.b"]
        assert to_spec(from_spec(spec)) == spec
    unsaved = Prior({"x": dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.ExpTransform())})
    with pytest.raises(TypeError, match=r"prior of 'x': TransformedDistribution is not one of numpyro's named"):
        unsaved.to_spec()


def test_flat_z_and_the_slope_of_the_torch_view_are_those_of_their_formulas():
    """a = 1 + 2 z_0, b = exp(0.3 + 0.5 z_1)."""
    torch = pytest.importorskip("torch")
    prior = Prior({"a": dist.Normal(1.0, 2.0), "b": dist.LogNormal(0.3, 0.5)})
    z = np.array([[-0.7, 0.4], [1.2, -1.5], [0.1, 2.0]])
    theta, log_det = prior.from_z(z)
    a, b = 1.0 + 2.0 * z[:, 0], np.exp(0.3 + 0.5 * z[:, 1])
    np.testing.assert_allclose(theta["a"], a, rtol=1e-5)
    np.testing.assert_allclose(theta["b"], b, rtol=1e-5)
    np.testing.assert_allclose(log_det, np.log(2.0) + np.log(0.5) + np.log(b), atol=1e-5)
    np.testing.assert_allclose(prior.to_z(theta), z, atol=1e-5)
    at = torch.tensor(np.stack([a, b], axis=1), dtype=torch.float32, requires_grad=True)
    prior.to_torch().log_prob(at).sum().backward()
    slope = np.stack([-(a - 1.0) / 4.0, -(1.0 + (np.log(b) - 0.3) / 0.25) / b], axis=1)
    np.testing.assert_allclose(at.grad, slope, rtol=1e-4)


def test_elementwise_transforms_keep_z_increasing():
    flipped = dist.TransformedDistribution(dist.Exponential(2.0), dist.transforms.AffineTransform(3.0, -1.5))
    prior = Prior({"x": flipped})
    theta = np.asarray(prior.constrain({"x": jnp.asarray(Z)})[0]["x"])
    np.testing.assert_allclose(theta, 3.0 - 1.5 * st.expon(scale=0.5).ppf(st.norm.cdf(-Z)), rtol=1e-4, atol=1e-5)
    assert np.isneginf(prior.log_prob({"x": 3.1}))
    # of a normal the slope of z to theta is the same everywhere: only theta itself tells the direction
    prior = Prior(
        {"x": dist.TransformedDistribution(dist.Normal(0.5, 2.0), dist.transforms.AffineTransform(3.0, -1.5))}
    )
    theta = np.asarray(prior.constrain({"x": jnp.asarray(Z)})[0]["x"])
    np.testing.assert_allclose(theta, 3.0 - 1.5 * (0.5 - 2.0 * Z), rtol=1e-5, atol=1e-5)


def test_mass_outside_is_the_cdf():
    prior = Prior({"g": dist.Normal(0.6, 0.25), "e": dist.Uniform(0.0, 2.0).expand([3]), "h": dist.HalfNormal(1.0)})
    mass = prior.mass_outside({"g": 0.0, "e": 0.0, "h": 0.0}, {"e": 1.8})
    assert mass["g"] == pytest.approx(st.norm.cdf(-2.4), rel=1e-4)
    assert mass["e"] == pytest.approx(1.0 - 0.9**3, rel=1e-4)  # any of three
    assert mass["h"] < 1e-12
    joint = made("multivariate").mass_outside({"a.b": 0.0}, {})["a.b"]
    corners = st.multivariate_normal([1.0, 2.0, 3.0], COVARIANCE).cdf([np.inf] * 3, lower_limit=[0.0] * 3)
    assert joint == pytest.approx(1.0 - corners, abs=4.5 * 0.5 / np.sqrt(1e5))
    with pytest.raises(ValueError, match=r"range was given for 'f'; the prior has no such parameter"):
        prior.mass_outside({"f": 0.0}, {})


def test_torch_view_is_the_same_prior():
    torch = pytest.importorskip("torch")
    prior = Prior(
        {"u": dist.Uniform(1.0, 3.0), "g": dist.Gamma(2.0, 3.0), "n": dist.Normal(jnp.array([5.0, -1.0]), 2.0)}
    )
    view = prior.to_torch()
    torch.manual_seed(3)
    draws = view.sample((4000,))
    torch.manual_seed(3)
    assert torch.equal(copy.deepcopy(view).sample((4000,)), draws)
    own = torch.distributions
    expected = own.Uniform(1.0, 3.0).log_prob(draws[:, 0]) + own.Gamma(2.0, 3.0).log_prob(draws[:, 1])
    expected = expected + own.Normal(torch.tensor([5.0, -1.0]), 2.0).log_prob(draws[:, 2:]).sum(1)
    np.testing.assert_allclose(view.log_prob(draws), expected, rtol=1e-4, atol=1e-4)
    assert torch.isneginf(view.log_prob(torch.tensor([[0.5, 1.0, 5.0, 0.0], [2.0, -1.0, 5.0, 0.0]]))).all()
    np.testing.assert_allclose(view.mean, [2.0, 2.0 / 3.0, 5.0, -1.0], rtol=1e-6)
    np.testing.assert_allclose(view.variance, [1.0 / 3.0, 2.0 / 9.0, 4.0, 4.0], rtol=1e-6)
    assert view.support.check(draws).all()
    assert not view.support.check(torch.tensor([0.5, 1.0, 5.0, 0.0])).all()


class Own(dist.Normal):
    """A distribution that numpyro does not name."""


# equal priors, however their parameters were written; and priors that differ in one thing
EQUAL = {
    "scalars": lambda x=0.3: {"a": dist.Uniform(0.0, 1), "b": dist.Normal(jnp.float32(0.0), x).expand([4])},
    "joint": lambda x=0.3: {"a": dist.MultivariateNormal(jnp.array([x, 2.0, 3.0]), jnp.array(COVARIANCE))},
    "truncated": lambda x=0.3: {"a": dist.TruncatedNormal(jnp.array([x, 0.6]), 0.5, low=0.0).to_event(1)},
    "whitened": lambda x=0.3: {"a": dist.Dirichlet(jnp.array([2.0, x, 4.0]))},
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_priors_share_a_compiled_program_and_others_do_not(name):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def density(prior, theta):
        traced.append(prior)
        return prior.log_prob(theta)

    one, same, other = Prior(EQUAL[name]()), Prior(EQUAL[name]()), Prior(EQUAL[name](0.31))
    again = Prior.from_spec(one.to_spec())
    assert one == same == again
    assert hash(one) == hash(same) == hash(again)
    assert one not in (other, one.dists)
    theta = one.sample(key=jax.random.key(1))
    found = [float(density(prior, theta)) for prior in (one, same, again, other)]
    assert len(traced) == 2
    assert found[0] == found[1] == found[2] != found[3]


def test_the_order_of_the_leaves_and_their_shape_tell_priors_apart():
    a, b = dist.Normal(0.0, 1.0), dist.Normal(0.0, 2.0)
    priors = [
        {"a": a, "b": b},
        {"b": b, "a": a},
        {"a": b, "b": a},
        {"a": a},
        {"a": a.expand([1])},
        {"a": Own(0.0, 1.0)},
    ]
    assert len({Prior(dists) for dists in priors}) == len(priors)


def test_a_distribution_without_a_description_equals_itself_only():
    one = Own(0.0, 1.0)
    assert Prior({"a": one}) == Prior({"a": one})
    assert Prior({"a": one}) != Prior({"a": Own(0.0, 1.0)})


def test_a_prior_cannot_be_changed_and_its_copies_are_equal():
    prior = mixed()
    with pytest.raises(dataclasses.FrozenInstanceError):
        prior.dists = {}
    with pytest.raises(TypeError, match="does not support item assignment"):
        prior.dists["new"] = dist.Normal(0.0, 1.0)
    given = {"a": dist.Normal(0.0, 1.0)}
    kept = Prior(given)
    given["a"] = dist.Normal(0.0, 2.0)
    assert kept == Prior({"a": dist.Normal(0.0, 1.0)})
    for same in (copy.copy(prior), copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert same == prior
        assert hash(same) == hash(prior)
        assert same.names == prior.names


@pytest.mark.parametrize("name", [*SCALARS, *ARRAYS])
def test_z_is_known_to_be_normal_where_its_density_is(name):
    """z once was told by the density at some draws, within a tolerance."""
    prior, found = made(name), facts(name)
    normal = st.norm.logpdf(found["z"].astype(float)).reshape(len(found["z"]), -1).sum(1)
    gap = np.max(np.abs(found["log_prob"] + found["log_det"] - normal))
    assert prior.z_is_normal == (name not in WHITENED)
    assert gap < 1e-3 if prior.z_is_normal else gap > 0.05


MISTAKES = [
    ({}, ValueError, r"Prior was given no parameter; write vb\.Prior"),
    ({"g": 0.5}, TypeError, r"prior of 'g' is 0\.5 \(float\); expected a numpyro distribution"),
    (
        {"g": dist.Poisson(3.0)},
        TypeError,
        r"'g' is Poisson, which is discrete; a prior takes continuous parameters only",
    ),
    (
        {"g": dist.Normal(0.0, -1.0, validate_args=False)},
        ValueError,
        r"'g', Normal, has no finite density at its centre",
    ),
    ({"g": dist.Uniform(2.0, 1.0, validate_args=False)}, ValueError, r"'g', Uniform, has no finite density"),
]


@pytest.mark.parametrize(("dists", "error", "message"), MISTAKES)
def test_mistakes_at_construction_are_named(dists, error, message):
    with pytest.raises(error, match=message):
        Prior(dists)


def test_mistakes_in_theta_are_named():
    with pytest.raises(ValueError, match=r"theta has \['a'\]; the prior has"):
        mixed().log_prob({"a": 1.0})
    with pytest.raises(ValueError, match=r"'a\.b' was given shape \[2\]; expected \[\.\.\., 3\]"):
        made("multivariate").log_prob({"a.b": np.zeros(2)})


def test_a_truncated_student_t_goes_through_bisection():
    """numpyro takes its inverse from a package that is not there; the import error once came through."""
    from scipy import stats

    d = dist.TruncatedDistribution(dist.StudentT(3.0, 0.0, 1.0), low=0.0)
    z = jnp.asarray([-1.5, 0.0, 1.0])
    theta, _ = Prior({"a": d}).constrain({"a": z})
    exact = stats.t(3).ppf(0.5 + 0.5 * stats.norm.cdf(np.asarray(z, float)))
    np.testing.assert_allclose(theta["a"], exact, rtol=2e-4)
