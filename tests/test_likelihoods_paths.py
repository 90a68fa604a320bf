"""State-space inference, with the noise and with the states as parameters, against the exact posterior."""

import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import vbinfer as vb
from vbinfer import likelihoods

DT, STEPS, EVERY, NOISE = 0.5, 60, 3, 0.2
SEEN = np.arange(EVERY - 1, STEPS, EVERY)  # rows of the states after each step that are recorded


def simulator(integrator=None):
    return vb.Simulator(
        vb.models.Linear(gamma=-0.4),
        integrator=integrator or vb.integrators.Euler(dt=DT),
        noise=vb.noise.Additive(0.5),
        monitors={"x": vb.monitors.Subsample(period=EVERY * DT, var="x")},
    )


PRIOR = vb.Prior({"model.gamma": dist.Uniform(-1.5, -0.02), "noise.sigma": dist.LogNormal(-0.7, 0.5)})


def recording():
    """Every third state of a path that departs from 1.0, with normal noise; one sample is missing."""
    rng = np.random.default_rng(21)
    x, y = 1.0, []
    for k in range(STEPS):
        x += DT * -0.4 * x + 0.5 * math.sqrt(DT) * rng.normal()
        if k in SEEN:
            y.append(x + NOISE * rng.normal())
    y = np.array(y)[:, None]
    y[7] = np.nan
    return y


def kalman(gamma, sigma, y, mean, var):
    """log p(y | gamma, sigma), states integrated out; x_0 ~ N(mean, var)."""
    a, q, total = 1.0 + DT * gamma, sigma**2 * DT, 0.0
    for k in range(STEPS):
        mean, var = a * mean, a * a * var + q
        if k in SEEN and not np.isnan(y[k // EVERY, 0]):
            gap, total_var = y[k // EVERY, 0] - mean, var + NOISE**2
            total -= 0.5 * (gap**2 / total_var + np.log(2 * np.pi * total_var))
            mean, var = mean + var / total_var * gap, var * NOISE**2 / total_var
    return total


def exact_posterior(y, mean, var):
    """Mean and standard deviation of gamma and of log sigma, on a grid."""
    g, s = np.meshgrid(np.linspace(-1.5, -0.02, 201), np.linspace(-2.5, 1.2, 201), indexing="ij")
    log_p = kalman(g, np.exp(s), y, mean, var) + scipy.stats.norm(-0.7, 0.5).logpdf(s)
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    moments = {}
    for name, value in (("model.gamma", g), ("noise.sigma", s)):
        centre = (w * value).sum()
        moments[name] = centre, math.sqrt((w * (value - centre) ** 2).sum())
    return moments


def agree(posterior, exact):
    """Means and standard deviations within 4 of their Monte-Carlo errors."""
    chains = {name: np.asarray(posterior.theta[name], float) for name in exact}
    chains["noise.sigma"] = np.log(chains["noise.sigma"])
    size = vb.diagnostics.ess(vb.Posterior({name: value.astype(np.float32) for name, value in chains.items()}))
    for name, (mean, sd) in exact.items():
        x, n = chains[name], float(size[name])
        assert n > 200
        assert abs(x.mean() - mean) < 4 * sd / math.sqrt(n)
        spread = math.sqrt(((x - x.mean()) ** 2).var() / n) / (2 * sd)  # of the standard deviation
        assert abs(x.std() - sd) < 4 * spread
        assert 4 * spread < 0.35 * sd
    assert posterior.sample_stats["diverging"].mean() < 0.01


def test_the_noise_as_parameters_gives_the_posterior_of_the_kalman_filter():
    y = recording()
    hidden = likelihoods.NoisePath(simulator(), t1=STEPS * DT, init={"x": 1.0})
    posterior = vb.sample_mcmc(
        hidden.extend(PRIOR),
        likelihoods.Gaussian(hidden, NOISE),
        y,
        kernel=vb.sampling.NUTS(target_accept=0.9),
        num_warmup=400,
        num_samples=500,
        key=jax.random.key(0),
    )
    agree(posterior, exact_posterior(y, 1.0, 0.0))


@pytest.mark.slow
def test_the_states_as_parameters_give_the_posterior_of_the_kalman_filter():
    """x_0 is unknown here, and its prior is the reference."""
    y = recording()
    states = likelihoods.StatePath(simulator(), t1=STEPS * DT, reference=dist.Normal(0.3, 0.8))
    observed = likelihoods.Gaussian(lambda theta: states(theta)["x"][1:][SEEN], NOISE)
    posterior = vb.sample_mcmc(
        states.extend(PRIOR),
        lambda theta, y: states.log_prob(theta) + observed(theta, y),
        y,
        kernel=vb.sampling.NUTS(target_accept=0.9),
        num_warmup=400,
        num_samples=500,
        key=jax.random.key(1),
    )
    agree(posterior, exact_posterior(y, 0.3, 0.64))


def test_both_forms_are_one_joint_density():
    """log p(theta, path, y), per unit of path: centred = non-centred - log |d path / d noise|; Heun, two variables."""
    with jax.enable_x64(True):
        model = vb.models.MontbrioPazoRoxin(eta=-4.0)
        noise = vb.noise.Additive({"r": 0.05, "V": 0.3})
        sim = vb.Simulator(model, integrator=vb.Heun(dt=0.05), noise=noise, monitors={"y": vb.monitors.Raw()})
        start = {"r": 0.8, "V": -1.0}
        hidden = likelihoods.NoisePath(sim, t1=0.4, init=start)
        references = {"r": dist.LogNormal(0.0, 0.3), "V": dist.Normal(-1.0, 2.0)}
        states = likelihoods.StatePath(sim, t1=0.4, init=start, reference=references)
        rng = np.random.default_rng(2)
        theta = {"model.eta": jnp.asarray(-3.5), "sd": jnp.asarray(0.1)}
        z = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in hidden.shapes.items()}
        path = hidden.simulate(theta | z).ys["y"]
        centred = theta | {f"state_path.{name}": x for name, x in path.items()}

        def flat(z):
            y = hidden.simulate(theta | z).ys["y"]
            return jnp.concatenate([y["r"], y["V"]]).ravel()

        jacobian = np.concatenate([np.asarray(a).reshape(16, 8) for a in jax.jacfwd(flat)(z).values()], axis=1)
        log_z = sum(scipy.stats.norm.logpdf(np.asarray(a)).sum() for a in z.values())
        log_q = scipy.stats.lognorm(0.3).logpdf(path["r"]).sum() + scipy.stats.norm(-1.0, 2.0).logpdf(path["V"]).sum()
        found = float(states.log_prob(centred))
        assert found == pytest.approx(log_z - np.linalg.slogdet(jacobian)[1] - log_q, rel=1e-9)


def test_the_prior_of_the_noise_is_standard_normal():
    hidden = likelihoods.NoisePath(simulator(vb.Heun(dt=DT)), t1=3.0)
    prior = hidden.extend(PRIOR)
    theta = prior.sample(key=jax.random.key(0))
    inner = {name: theta[name] for name in PRIOR.shapes}
    expected = float(PRIOR.log_prob(inner)) + scipy.stats.norm.logpdf(np.asarray(theta["noise_path.x"])).sum()
    assert float(prior.log_prob(theta)) == pytest.approx(expected, rel=1e-5)


def test_coloured_noise_has_a_path_too():
    """Its start comes from the key: the same simulation as with noise_path by hand."""
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.5),
        integrator=vb.Heun(dt=0.5),
        noise=vb.noise.Coloured(sigma=0.3, tau=4.0),
        monitors={"x": vb.monitors.Raw()},
    )
    hidden = likelihoods.NoisePath(sim, t1=5.0, key=jax.random.key(5))
    z = np.random.default_rng(0).normal(size=(10, 1))
    by_hand = vb.simulate(vb.bind(sim, {"noise.tau": 3.0}), t1=5.0, key=jax.random.key(5), noise_path={"x": z}).ys["x"][
        "x"
    ]
    np.testing.assert_array_equal(hidden({"noise.tau": 3.0, "noise_path.x": z}), by_hand)


@pytest.mark.slow
def test_the_page_on_likelihoods_runs():
    page = (Path(__file__).parent.parent / "docs/how-to/own-likelihood.md").read_text()
    names: dict = {}
    for code in re.findall(r"<!-- \w+: the tests run this -->\n```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(code, "own-likelihood.md", "exec"), names)
    assert float(names["posterior"].theta["noise.sigma"].mean()) == pytest.approx(
        float(names["same"].theta["noise.sigma"].mean()), abs=0.2
    )
    theta = {"model.a": 0.15, "sigma": 0.1}
    y = {"eeg": names["predict"](theta) + 0.1, "counts": jnp.ones((40, 1))}
    rate = 0.05 * np.exp(np.asarray(names["predict"](theta), float))
    expected = 40 * scipy.stats.norm(0.0, 0.1).logpdf(0.1) + scipy.stats.poisson(rate).logpmf(1).sum()
    assert float(names["log_likelihood"](theta, y)) == pytest.approx(expected, rel=1e-4)
