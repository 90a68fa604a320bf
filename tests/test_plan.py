"""Fewer simulations: transfer between simulators, learning curves, what a budget pays and what a store keeps."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.neural import fidelities
from vbinfer.neural.fidelities import NextGain, extrapolate

GAINS = np.array([[1.0, 0.5, 0.0, 0.8], [0.9, -1.0, 0.7, 0.0], [0.6, 0.2, 0.9, 0.4]])
NOISE = np.array([0.6, 0.8, 0.7, 0.9])
PRIOR = vb.Prior({"a": dist.Normal(1.0, 2.0), "b": dist.Normal(-0.5, 1.0).expand([2])})
COV = np.linalg.inv(np.diag([0.25, 1.0, 1.0]) + (GAINS / NOISE**2) @ GAINS.T)
BEST = -0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * COV)[1]
"""Expected log q(theta | x) of the exact posterior."""
NPE = vb.NPE(
    vb.densities.MDN(components=1, width=20), ensemble=1, training=vb.densities.Training(max_epochs=60, batch_size=100)
)
KEY = jax.random.key(5)


class Linear:
    """x = scale (G' theta + bias) + noise: the full simulator, or one that is biased and cheaper."""

    def __init__(self, cost=None, bias=0.0, scale=1.0, names=None):
        self.bias, self.scale = bias, scale
        if cost is not None:
            self.cost = cost
        if names is not None:
            self.names = names

    def __call__(self, theta, key):
        mean = jnp.append(theta["a"], theta["b"]) @ GAINS + self.bias
        return self.scale * mean + NOISE * jax.random.normal(key, (4,))


def draw(simulator, n, seed):
    return vb.sample_prior_predictive(PRIOR, simulator, n=n, key=jax.random.key(seed), progress=False)


@pytest.fixture(scope="module")
def cheap():
    """A network of 2,048 draws of the cheap simulator."""
    return NPE.fit(draw(Linear(bias=3.0, scale=0.8), 2_048, 1), PRIOR, key=KEY)[0]


def score(amortized, draws):
    return float(np.mean(amortized.log_prob(draws.theta, draws.x)))


def test_a_network_that_starts_from_a_cheap_one_needs_fewer_draws(cheap):
    held, few = draw(Linear(), 2_000, 9), draw(Linear(), 64, 2)
    fine = dataclasses.replace(NPE, training=vb.densities.Training(learning_rate=1.5e-3))
    led = score(fine.fit(few, PRIOR, key=KEY, start=cheap)[0], held)
    bare = score(NPE.fit(few, PRIOR, key=KEY)[0], held)
    assert BEST - 0.25 < led < BEST + 0.1  # the mean over 2,000 draws has a standard error of 0.03
    assert led > bare + 0.2


def test_training_begins_with_the_weights_of_the_start(cheap):
    """With steps of no size what comes back is the start, its features scaled by the new draws."""
    still = dataclasses.replace(NPE, training=vb.densities.Training(learning_rate=1e-12, weight_decay=0.0))
    draws = draw(Linear(bias=-7.0), 128, 2)
    same = still.fit(draws, PRIOR, key=KEY, start=cheap)[0]
    x = draws.x[:5]
    h = np.asarray(same.scaler.standardise(x))
    assert np.abs(h - np.asarray(cheap.scaler.standardise(x))).min() > 1.0
    theta = {name: value[:5] for name, value in draws.theta.items()}
    z = PRIOR.to_z(theta)
    direct = jax.vmap(cheap._network.log_prob)(z, h) - PRIOR.from_z(z)[1]
    np.testing.assert_allclose(np.asarray(same.log_prob(theta, x)), np.asarray(direct), rtol=1e-4)


@pytest.mark.parametrize(
    ("estimator", "names", "message"),
    [
        (vb.NPE(vb.densities.MDN(components=2, width=20), ensemble=1), None, "start has the density .*use start.estim"),
        (NPE, ("a", "b", "c", "d"), "start has the features .*draws of the same parameters and Summary"),
    ],
)
def test_a_start_of_another_network_is_refused(cheap, estimator, names, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(draw(Linear(names=names), 64, 2), PRIOR, key=KEY, start=cheap)


def test_a_start_that_is_no_network_is_refused():
    with pytest.raises(TypeError, match="start=amortized"):
        NPE.fit(draw(Linear(), 64, 2), PRIOR, key=KEY, start=NPE)


def test_a_checkpoint_of_another_start_is_refused(cheap, tmp_path):
    draws, one = draw(Linear(), 64, 2), dataclasses.replace(NPE, training=vb.densities.Training(max_epochs=1))
    one.fit(draws, PRIOR, key=KEY, checkpoint=tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="data"):
        one.fit(draws, PRIOR, key=KEY, checkpoint=tmp_path / "fit.npz", start=cheap)


# ---- learning curves


@pytest.mark.parametrize(("a", "b"), [(4.0, 0.5), (30.0, 1.0), (2.0, 0.35)])
def test_the_next_gain_of_a_power_law_is_foretold(a, b):
    n = np.array([100.0, 200.0, 500.0, 900.0])
    curve = -a * n**-b
    gains = np.stack([np.diff(curve), np.full(3, 1e-4)], axis=1)
    mean, se = extrapolate(n, gains, 1_700.0)
    truth = a * (900.0**-b - 1_700.0**-b)
    assert abs(mean - truth) < 0.02 * truth  # powers lie 0.05 apart
    assert 1e-4 <= se < 0.02 * truth


def test_gains_lie_within_their_stated_errors():
    """Noisy curves of random power: the standardised errors of 400 predictions have unit scale."""
    rng = np.random.default_rng(0)
    n, errors = np.array([96.0, 192.0, 448.0, 960.0, 1_984.0]), []
    for _ in range(400):
        b, first, s = rng.uniform(0.3, 1.5), rng.uniform(0.5, 1.0), rng.uniform(0.01, 0.06)
        a = first / (n[0] ** -b - n[1] ** -b)
        gains = np.diff(-a * n**-b) + s * rng.standard_normal(4)
        mean, se = extrapolate(n[:4], np.stack([gains[:3], np.full(3, s)], axis=1), n[4])
        errors.append((gains[3] - mean) / se)
    assert 0.75 < np.std(errors) < 1.15
    assert np.mean(np.abs(errors) < 2.0) > 0.93


def test_a_flat_curve_foretells_nothing_and_a_gain_is_never_negative():
    n = np.array([100.0, 200.0, 400.0])
    gains = np.array([[-0.03, 0.02], [-0.02, 0.02]])
    mean, se = extrapolate(n, gains, 800.0)
    assert 0.0 < mean < 0.01
    assert se == pytest.approx(0.02, abs=0.01)


def test_a_next_gain_reads_as_a_sentence():
    gain = NextGain.of(0.104, 0.021, 2_000)
    assert str(gain) == "Another 2,000 draws would buy 0.10 nats (standard error 0.02)."
    assert gain == 0.104


# ---- the plan


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A cheap simulator at half the cost, and a budget that pays for 192 draws of it and 256 full ones."""
    store = tmp_path_factory.mktemp("plan") / "store"
    simulators = [Linear(0.5, bias=3.0, scale=0.8), Linear(1.0)]
    return vb.plan(PRIOR, simulators, budget=360.0, key=KEY, estimator=NPE, store=store), simulators, store


def test_cheap_draws_come_first_and_the_full_network_is_near_the_exact_posterior(planned):
    fit = planned[0]
    order = [row.fidelity for row in fit.history]
    assert order == sorted(order)
    assert set(order) == {0, 1}
    assert {row.start for row in fit.history if row.fidelity == 1} == {0}
    assert BEST - 0.5 < score(fit.amortized, draw(Linear(), 2_000, 9)) < BEST + 0.1  # the prior is 2.6 below BEST


def test_the_budget_is_kept_and_the_draws_are_counted(planned):
    fit = planned[0]
    assert fit.costs == (0.5, 1.0)
    assert sum(row.seconds for row in fit.history) <= 360.0
    assert all(row.seconds == row.draws * fit.costs[row.fidelity] for row in fit.history)
    assert sum(row.draws for row in fit.history if row.fidelity == 1) == len(fit.draws)
    assert sum(row.seconds for row in fit.history if row.fidelity == 0) <= 0.3 * 360.0
    # the draws are of the full simulator: no bias
    theta = np.column_stack([fit.draws.theta["a"], fit.draws.theta["b"]])
    np.testing.assert_allclose((fit.draws.x - theta @ GAINS).std(axis=0), NOISE, rtol=0.15)
    assert np.abs((fit.draws.x - theta @ GAINS).mean(axis=0)).max() < 0.2


def test_gains_and_predictions_are_of_the_rounds_before(planned):
    for k in (0, 1):
        rows = [row for row in planned[0].history if row.fidelity == k]
        for before, row in itertools.pairwise(rows):
            assert row.gain == pytest.approx(row.log_q - before.log_q, abs=1e-9)
        assert np.isnan([rows[0].gain, rows[0].predicted, rows[1].predicted]).all()
        for row in rows[2:]:
            assert row.predicted >= fidelities.WORTH  # else the round had not been run
            assert abs(row.predicted - row.gain) < 4.0 * row.predicted_se


def test_the_same_call_reads_its_store_and_gives_the_same_numbers(planned):
    fit, simulators, store = planned
    simulators = [Linear(s.cost, s.bias, s.scale) for s in simulators]
    again = vb.plan(PRIOR, simulators, budget=360.0, key=KEY, estimator=NPE, store=store)
    np.testing.assert_array_equal(again.draws.x, fit.draws.x)
    assert again.draws.info["simulated"] == 0
    assert repr(again.history) == repr(fit.history)
    assert again.next_gain == fit.next_gain
    with pytest.raises(ValueError, match="key"):
        vb.plan(PRIOR, simulators, budget=360.0, key=jax.random.key(6), estimator=NPE, store=store)


def test_a_misleading_cheap_simulator_is_left_out():
    """Its features are noise: on the held-out draws a network that begins with its weights is no better."""
    useless = Linear(0.5, scale=0.0)
    fit = vb.plan(PRIOR, [useless, Linear(1.0)], budget=360.0, key=KEY, estimator=NPE)
    full = [row for row in fit.history if row.fidelity == 1]
    assert sum(row.seconds for row in fit.history if row.fidelity == 0) <= 108.0
    assert score(fit.amortized, draw(Linear(), 2_000, 9)) > BEST - 0.6
    assert full[-1].log_q > fit.history[1].log_q + 1.0  # the noise told nothing


def test_costs_are_measured_after_compilation_and_a_larger_budget_goes_on(monkeypatch, tmp_path):
    """By a clock of the test's own: the first batch takes 9 s, later ones 0.5 s, half a second for 64 draws."""
    ticks = iter([0.0, 9.0, 20.0, 20.5])
    with monkeypatch.context() as patched:
        patched.setattr(fidelities.time, "process_time", lambda: next(ticks))
        fit = vb.plan(PRIOR, [Linear()], budget=1.0, key=KEY, estimator=NPE, store=tmp_path / "store")
    assert fit.costs == (0.5 / 64,)
    assert len(fit.draws) == 128
    assert sum(row.seconds for row in fit.history) == 1.0
    more = vb.plan(PRIOR, [Linear()], budget=1.5, key=KEY, estimator=NPE, store=tmp_path / "store")
    assert more.costs == fit.costs
    np.testing.assert_array_equal(more.draws.x[:128], fit.draws.x)


@pytest.mark.parametrize(
    ("simulators", "budget", "message"),
    [
        ([], 10.0, r"empty list; expected a list from the cheapest to the full one: \[coarse, fine\]"),
        (Linear(1.0), 10.0, "a Linear; expected a list"),
        ([Linear(1.0)], 0.0, "budget=0.0 was given; expected a positive number of CPU seconds"),
        ([Linear(1.0)], -3, "budget=-3 was given; expected a positive number"),
        ([Linear(0.1), Linear(8.0)], 5.0, "budget=5 pays 0 draws of the full simulator, at 8 CPU .*write budget=1037 "),
        ([Linear(-1.0)], 10.0, r"simulators\[0\].cost=-1.0 was given; expected a positive number"),
        (
            [Linear(0.1, names=("u", "v", "w", "x")), Linear(1.0)],
            1e3,
            r"simulator 1 makes the 4 features 'x\[0\]'.*the 4 features 'u', 'v', 'w', 'x'; give all",
        ),
        (
            [lambda theta, key: theta["b"], Linear(1.0)],
            1e3,
            "simulator 1 makes the 4 features .*simulator 0 the 2 features",
        ),
    ],
)
def test_what_cannot_be_planned_is_said(simulators, budget, message):
    with pytest.raises(ValueError, match=message):
        vb.plan(PRIOR, simulators, budget=budget, key=KEY, estimator=NPE)


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match=r"estimator was given a NLE; expected a NPE"):
        vb.plan(PRIOR, [Linear(1.0)], budget=1e3, key=KEY, estimator=vb.NLE())
