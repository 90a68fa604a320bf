"""A neuron with a soft threshold: closed forms, its own samples, and posteriors from features and from spikes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats

import vbinfer as vb

S = vb.spiking
EscapeNoise = vb.likelihoods.EscapeNoise


def test_a_membrane_at_rest_is_a_poisson_process():
    """n log rate - rate T as dt goes to 0, with derivative n - rate T by the log of the rate."""
    times, T = np.array([3.2, 17.9, 18.4, 60.05]), 80.0
    with jax.enable_x64(True):
        errors = []
        for dt in (0.1, 0.05):
            n = round(T / dt)
            y = np.histogram(times, n, (0.0, T))[0]
            cell = lambda theta: S.LIF(v_rest=theta["v"], v_reset=theta["v"], v_th=2.0)  # noqa: E731
            process = EscapeNoise(cell, lambda theta, n=n: jnp.zeros(n) + 0.0 * theta["v"], dt=dt, width=0.5, rate=2.0)
            start = lambda v, p=process, y=y: p({"v": v}, y)  # noqa: E731
            value, slope = jax.value_and_grad(start)(0.3)
            rate = 2.0 * np.exp((0.3 - 2.0) / 0.5)
            # in bins: log(1 - exp(-h)) = log h - h/2 + h^2/24, the half of a bin that a spike ends
            errors.append(float(value) - (4 * np.log(rate) - rate * (T - 4 * dt / 2)))
            np.testing.assert_allclose(slope, (4 - rate * (T - 4 * dt / 2)) / 0.5, rtol=1e-4)
    assert abs(errors[1]) < 3e-6
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.05)


def test_a_driven_membrane_has_the_integral_of_its_rate():
    """LIF under constant current, reset by two spikes: the integral by quadrature, to second order in dt."""
    tau, u, width, dt, T = 12.0, 1.8, 0.25, 0.05, 60.0
    times = np.array([20.0, 33.0])
    v = lambda t: u * (1.0 - np.exp(-t / tau))  # noqa: E731
    rate = lambda t: np.exp((v(t) - 1.0) / width)  # noqa: E731
    integral = sum(scipy.integrate.quad(rate, 0.0, span)[0] for span in (20.0, 13.0, 27.0))
    expected = np.log(rate(20.0)) + np.log(rate(13.0)) - integral
    with jax.enable_x64(True):
        found = []
        for dt in (0.1, 0.05):
            n = round(T / dt)
            y = np.histogram(times - 1e-6, n, (0.0, T))[0]
            process = EscapeNoise(lambda theta: S.LIF(tau=tau), u * np.ones(n), dt=dt, width=width)
            found.append(float(process({}, y)))
    off = np.abs(np.array(found) - expected)
    assert off[1] < 0.55 * off[0]  # the step that a spike ends is of first order
    assert off[1] < 0.05 * abs(expected)


CELL = dict(V_r=-65.0, tau_w=100.0, a=2.0)
CURRENT = np.where(np.arange(4_000) < 400, 0.0, 700.0)  # 400 ms in steps of 0.1 ms


def adex(every=1):
    """Adaptation b in pA, share of the current that reaches the cell; steps of 0.1 ms, or of `every` as many."""
    return EscapeNoise(
        lambda theta: S.AdEx(b=theta["b"], **CELL), lambda theta: theta["drive"] * CURRENT[::every], dt=0.1 * every,
        threshold="V_T", width=2.0,
    )  # fmt: skip


def test_time_between_spikes_is_exponential_when_it_is_rescaled():
    """Of its own samples; and the derivative of the log-likelihood is 0 on average, with the variance of Fisher."""
    theta = {"b": 60.0, "drive": 1.0}
    process = adex()
    trains = jax.jit(jax.vmap(lambda k: process.sample(theta, k)))(jax.random.split(jax.random.key(3), 120))
    terms, slopes = jax.jit(
        lambda ys: jax.lax.map(
            lambda y: (process.pointwise(theta, y), jax.grad(lambda b: process(theta | {"b": b}, y))(60.0)), ys
        )
    )(trains)
    trains, terms, slopes = np.asarray(trains), np.asarray(terms, float), np.asarray(slopes)
    counts = trains.sum(1)
    assert 5 < counts.mean() < 60
    assert np.abs(slopes.mean()) < 4.0 * slopes.std() / np.sqrt(120)
    assert slopes.std() > 1e-3
    rescaled = []
    for y, term in zip(trains, terms, strict=True):
        # H of a step with a spike, from log[(1 - exp(-H)) / dt]
        h = np.where(y > 0, -np.log1p(-0.1 * np.exp(np.where(y > 0, term, -10.0))), -term)
        ends = np.cumsum(h)[y > 0]
        rescaled.append(np.diff(ends))
    # bins are 0.1 ms and rates below 1/ms: discreteness is small against the interval
    assert scipy.stats.kstest(np.concatenate(rescaled)[::3], "expon").pvalue > 1e-3


def train_features(y):
    """Features of a train in steps of 0.2 ms, by way of its times."""
    times = jnp.sort(jnp.where(y > 0.0, (jnp.arange(len(y)) + 0.5) * 0.2, jnp.nan))[:100]
    return S.TrainSummary(silent=400.0)(vb.monitors.SpikeTimes(times[None], y.sum().astype(int)[None]))


def test_features_of_a_train_are_numpys():
    rng = np.random.default_rng(2)
    for n in (0, 1, 2, 3, 14):
        times = np.sort(rng.uniform(5.0, 390.0, n))
        filled = np.full((1, 20), np.nan)
        filled[0, :n] = times
        isi = np.diff(times)
        expected = [
            n, times[0] if n else 400.0, isi[0] if n > 1 else 0.0, isi[-1] if n > 1 else 0.0,
            isi.mean() if n > 1 else 0.0, isi.std() / isi.mean() if n > 2 else 0.0,
        ]  # fmt: skip
        found = S.TrainSummary(silent=400.0)(vb.monitors.SpikeTimes(jnp.asarray(filled), jnp.array([n])))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-4)


@pytest.mark.slow
def test_posteriors_of_a_cell_from_features_and_from_all_spikes_agree():
    """AdEx, adaptation and drive: NPE on features of the train, NUTS on the point process. All spikes say no less."""
    prior = vb.Prior({"b": dist.Uniform(20.0, 120.0), "drive": dist.Uniform(0.8, 1.4)})
    truth = {"b": jnp.asarray(60.0), "drive": jnp.asarray(1.05)}
    process = adex(every=2)
    y = process.sample(truth, jax.random.key(8))
    by_spikes = vb.sample_mcmc(
        prior, process, y, kernel=vb.NUTS(), num_warmup=200, num_samples=300, num_chains=2, key=jax.random.key(1)
    )
    simulator = lambda theta, key: train_features(process.sample(theta, key))  # noqa: E731
    draws = vb.sample_prior_predictive(prior, simulator, n=1_500, key=jax.random.key(2), progress=False)
    amortized, _ = vb.NPE(ensemble=1).fit(draws, prior, key=jax.random.key(3))
    by_features = amortized.sample(train_features(y), n=600, key=jax.random.key(4))
    for name, true in truth.items():
        one, other = (np.asarray(p.theta[name]).ravel() for p in (by_spikes, by_features))
        assert abs(one.mean() - true) < 4.0 * one.std()
        assert abs(one.mean() - other.mean()) < 2.0 * other.std()
        assert one.std() < 1.3 * other.std()
    assert vb.diagnostics.shrinkage(prior, by_spikes)["drive"] > 0.5


def test_bad_input_is_answered_with_what_to_write():
    flat = EscapeNoise(lambda theta: S.LIF(), np.zeros(10), dt=0.1)
    with pytest.raises(ValueError, match="y holds other numbers than 0 and 1; give the spikes of each step"):
        flat({}, 2.0 * np.ones(10))
    with pytest.raises(ValueError, match=r"y is \[9\] but current gives \[10\]"):
        flat({}, np.zeros(9))
    with pytest.raises(ValueError, match="threshold='v_th' is no parameter of AdEx; give one's name, or mV"):
        EscapeNoise(lambda theta: S.AdEx(), np.zeros(10), dt=0.1)({}, np.zeros(10))
    with pytest.raises(TypeError, match="neuron was given as LIF; expected a function"):
        EscapeNoise(S.LIF(), np.zeros(10), dt=0.1)
    with pytest.raises(ValueError, match=r"current has shape \[2, 5\]; expected one value per step"):
        EscapeNoise(lambda theta: S.LIF(), np.zeros((2, 5)), dt=0.1)({}, np.zeros(10))
