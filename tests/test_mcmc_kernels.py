"""Every kernel and engine against posteriors that are known in closed form or by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer.diagnostics.chain_measures import mcse, rhat
from vbinfer.priors.prior import Prior
from vbinfer.sampling import HMC, MCLMC, NUTS, sample_mcmc

KEY = jax.random.key(11)
KERNELS = {
    "nuts-numpyro": NUTS(),
    "nuts-blackjax": NUTS(engine="blackjax"),
    "hmc-numpyro": HMC(),
    "hmc-blackjax": HMC(engine="blackjax", dense_mass=True),
    "mclmc": MCLMC(),
}
EXACT = {name: kernel for name, kernel in KERNELS.items() if name != "mclmc"}


def within(posterior, name, mean, sd, bias=0.0):
    """Mean and sd within 4 Monte-Carlo standard errors, and a share of the sd where the kernel has a bias."""
    x = posterior.theta[name].astype(float)
    error, error_sd = mcse(posterior)[name], mcse(posterior, kind="sd")[name]
    assert np.all(np.abs(x.mean((0, 1)) - mean) < 4 * error + bias * sd), (x.mean((0, 1)), mean, error)
    assert np.all(np.abs(x.std((0, 1)) - sd) < 4 * error_sd + bias * sd), (x.std((0, 1)), sd, error_sd)


DESIGN = np.array([[1.0, 0.9, -0.2], [0.3, 1.1, 0.4], [-0.5, 0.2, 1.5], [1.0, 1.0, 0.0]])
SCALE = np.array([0.4, 0.7, 0.5, 0.3])
GIVEN = np.array([1.5, -2.0, 0.5, 0.1])
MEAN0, COV0 = np.array([1.0, -2.0, 0.5]), np.array([[1.0, 0.6, 0.0], [0.6, 2.0, -0.3], [0.0, -0.3, 0.5]])
GAUSSIAN = Prior({"beta": dist.MultivariateNormal(jnp.asarray(MEAN0), jnp.asarray(COV0))})


def regression(theta, y):
    return dist.Normal(jnp.asarray(DESIGN) @ theta["beta"], jnp.asarray(SCALE)).log_prob(y).sum()


@pytest.fixture(scope="module", params=list(KERNELS))
def gaussian(request):
    run = sample_mcmc(
        GAUSSIAN,
        regression,
        GIVEN,
        kernel=KERNELS[request.param],
        num_warmup=400,
        num_samples=1000,
        key=KEY,
    )
    return request.param, run


def test_every_kernel_samples_the_conjugate_posterior(gaussian):
    """beta | y ~ N(S (S0^-1 m0 + X' W y), S), S^-1 = S0^-1 + X' W X, with correlated, asymmetric numbers."""
    name, posterior = gaussian
    weighted = DESIGN.T / SCALE**2
    covariance = np.linalg.inv(np.linalg.inv(COV0) + weighted @ DESIGN)
    mean = covariance @ (np.linalg.solve(COV0, MEAN0) + weighted @ GIVEN)
    within(posterior, "beta", mean, np.sqrt(np.diag(covariance)), bias=0.02 if name == "mclmc" else 0.0)
    found = np.corrcoef(posterior.ravel().astype(float).T)
    wanted = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(found, wanted, atol=4 * np.sqrt(2 / 1000))
    assert rhat(posterior)["beta"].max() < 1.02


def test_every_kernel_says_the_same_things_of_its_draws(gaussian):
    name, posterior = gaussian
    stats = posterior.sample_stats
    assert {"diverging", "accept_prob", "num_steps", "step_size"} <= set(stats)
    assert ("energy" in stats) == (name != "mclmc")
    assert all(value.shape == (4, 1000) for value in stats.values())
    assert (stats["step_size"] == stats["step_size"][:, :1]).all(), "the step is fixed after warm-up"
    assert posterior.info["method"] == type(KERNELS[name]).__name__
    for chain, draw in ((0, 0), (3, 999)):
        theta = {"beta": jnp.asarray(posterior.theta["beta"][chain, draw])}
        wanted = GAUSSIAN.log_prob(theta) + regression(theta, jnp.asarray(GIVEN))
        assert posterior.log_prob[chain, draw] == pytest.approx(float(wanted), abs=1e-3)


@pytest.mark.slow
def test_hmc_takes_the_steps_that_were_asked_for():
    options = {"num_warmup": 100, "num_samples": 50, "num_chains": 2, "key": KEY}
    fixed = sample_mcmc(GAUSSIAN, regression, GIVEN, kernel=HMC(num_steps=3), **options)
    assert (fixed.sample_stats["num_steps"] == 3).all()
    for engine in ("numpyro", "blackjax"):
        long = sample_mcmc(GAUSSIAN, regression, GIVEN, kernel=HMC(engine=engine, trajectory_length=2.5), **options)
        steps, size = long.sample_stats["num_steps"], long.sample_stats["step_size"]
        np.testing.assert_array_equal(steps, np.ceil(np.float32(2.5) / size))


TREATMENTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = Prior({"mu": dist.Normal(0.0, 5.0), "tau": dist.HalfCauchy(5.0), "raw": dist.Normal(0.0, 1.0).expand([8])})


def schools(theta, y):
    return dist.Normal(theta["mu"] + theta["tau"] * theta["raw"], jnp.asarray(ERRORS)).log_prob(y).sum()


def schools_by_quadrature():
    """Posterior mean and sd of mu and of log tau.

    Given tau, y_j ~ N(mu, e_j^2 + tau^2) once the effects are integrated out, and mu | tau, y is normal; tau is summed
    over a fine grid of log tau.
    """
    log_tau = np.linspace(np.log(1e-4), np.log(1e3), 40_000)
    tau = np.exp(log_tau)[:, None]
    variance = ERRORS**2 + tau**2
    precision = 1 / 25.0 + (1 / variance).sum(1)
    centre = (TREATMENTS / variance).sum(1) / precision
    log_like = -0.5 * (np.log(variance) + TREATMENTS**2 / variance).sum(1)
    log_like += 0.5 * centre**2 * precision - 0.5 * np.log(precision)
    weight = np.exp(log_like - log_like.max()) / (1 + (tau[:, 0] / 5.0) ** 2) * tau[:, 0]
    weight /= weight.sum()
    mean = (weight * centre).sum()
    sd = np.sqrt((weight * (1 / precision + centre**2)).sum() - mean**2)
    mean_tau = (weight * log_tau).sum()
    return mean, sd, mean_tau, np.sqrt((weight * (log_tau - mean_tau) ** 2).sum())


@pytest.mark.parametrize("engine", ["numpyro", "blackjax"])
@pytest.mark.slow
def test_eight_schools(engine):
    """The non-centred hierarchical model of Rubin (1981, doi:10.3102/10769986006004377)."""
    posterior = sample_mcmc(
        SCHOOLS,
        schools,
        TREATMENTS,
        kernel=NUTS(engine=engine, target_accept=0.95),
        num_warmup=500,
        num_samples=1000,
        key=KEY,
    )
    mean, sd, mean_tau, sd_tau = schools_by_quadrature()
    within(posterior, "mu", mean, sd)
    posterior.theta["tau"] = np.log(posterior.theta["tau"])
    within(posterior, "tau", mean_tau, sd_tau)


@pytest.mark.parametrize("name", list(KERNELS))
@pytest.mark.slow
def test_banana(name):
    """x ~ N(0.5, 1), y | x ~ N(0.5 x^2, 1), nothing seen of x: E y = 0.5 E x^2, Var y = 1 + 0.25 Var x^2.

    Written as a likelihood on a wide prior of y: the marginals are closed, the joint is bent.
    """
    centre, bend, wide = 0.5, 0.5, 30.0
    prior = Prior({"x": dist.Normal(centre, 1.0), "y": dist.Normal(0.0, wide)})

    def log_likelihood(theta, _):
        bent = dist.Normal(bend * theta["x"] ** 2, 1.0).log_prob(theta["y"])
        return bent - dist.Normal(0.0, wide).log_prob(theta["y"])

    posterior = sample_mcmc(prior, log_likelihood, 0.0, kernel=KERNELS[name], num_warmup=600, num_samples=2000, key=KEY)
    bias = 0.05 if name == "mclmc" else 0.0
    within(posterior, "x", centre, 1.0, bias)
    square_mean, square_var = centre**2 + 1.0, 2.0 + 4.0 * centre**2
    within(posterior, "y", bend * square_mean, np.sqrt(1.0 + bend**2 * square_var), bias)


def walled(theta, y):
    """A Gaussian in two parameters with no likelihood above `y`."""
    inside = -0.5 * ((theta["a"] - 1.0) ** 2 + theta["b"] ** 2) / 0.25
    return jnp.where(theta["a"] < y, inside, jnp.nan)


WALLED = Prior({"a": dist.Normal(0.0, 1.0), "b": dist.Normal(0.0, 1.0)})


@pytest.mark.parametrize("name", list(EXACT))
def test_a_likelihood_that_turns_nan_gives_divergences_and_no_nan(name):
    posterior = sample_mcmc(WALLED, walled, 1.2, kernel=KERNELS[name], num_warmup=200, num_samples=300, key=KEY)
    assert posterior.info["divergences"] == posterior.sample_stats["diverging"].sum() > 0
    assert posterior.theta["a"].max() < 1.2
    assert np.isfinite(posterior.log_prob).all()


def hair(theta, _):
    """Finite within a hair of 0 only, so that every step of use leaves it."""
    return jnp.where(jnp.abs(theta["a"]) + jnp.abs(theta["b"]) < 1e-5, 0.0, jnp.nan)


@pytest.mark.parametrize("name", ["hmc-numpyro", "hmc-blackjax"])
def test_a_collapsed_step_size_made_trajectories_of_hmc_without_end(name):
    """A length of pi / 2 in steps that warm-up made vanish was 1e30 of them, and the run did not return."""
    init = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    options = {"init": init, "num_warmup": 50, "num_samples": 3, "num_chains": 2, "key": KEY}
    posterior = sample_mcmc(WALLED, hair, None, kernel=KERNELS[name], **options)
    assert posterior.sample_stats["num_steps"].max() in (1023, 1024)  # the limit of steps, within rounding
    assert np.abs(posterior.theta["a"]).max() < 1e-5


@pytest.mark.slow
def test_mclmc_refuses_a_step_that_collapsed():
    init = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"step size of 2 of 2 chains collapsed in warm-up.*vb\.NUTS\(\)"):
        sample_mcmc(WALLED, hair, None, kernel=MCLMC(), init=init, num_warmup=50, num_samples=1, num_chains=2, key=KEY)


ONE = Prior({"g": dist.Normal(0.0, 1.0)})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NUTS(engine="stan"), "expected one of 'numpyro', 'blackjax'"),
        (lambda: HMC(engine="stan"), "engine='stan' was given"),
        (lambda: HMC(num_steps=3, trajectory_length=1.0), "give one of them"),
        (lambda: HMC(num_steps=0), "num_steps=0 was given; expected a positive whole number"),
        (lambda: HMC(trajectory_length=-1.0), "trajectory_length=-1.0 was given; expected a positive number"),
        (lambda: HMC(target_accept=0.0), "expected a number between 0 and 1"),
        (lambda: MCLMC(energy_variance=0.0), "energy_variance=0.0 was given; expected a positive number"),
        (lambda: MCLMC(steps_per_draw=0), "steps_per_draw=0 was given; expected a positive whole number"),
        (
            lambda: sample_mcmc(ONE, lambda theta, _: -(theta["g"] ** 2), None, kernel=MCLMC(), key=KEY),
            "'g' is the only one; write kernel=vb.sampling.NUTS",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
