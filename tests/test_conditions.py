"""The same theta under several conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.simulation import forward

N, KEY = 3, jax.random.key(4)
W = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])
MAP = np.array([0.5, 0.0, -1.0])
CONDITIONS = {
    "rest": {},
    "stimulate-1": {"stimulus.amplitude": 2.0, "stimulus.gain": np.array([0.0, 1.0, 0.0])},
    "drug": {"model.gamma": MAP - 1.0, "coupling.G": 0.1},
}


def network(**options):
    return vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        vb.Connectome(W),
        coupling=vb.coupling.Linear(G=0.4),
        integrator=vb.Heun(dt=0.1),
        stimulus=vb.stimuli.Pulse(onset=1.0, duration=2.0, amplitude=0.0),
        monitors={"mean": vb.monitors.TimeAverage(1.0, "x")},
        **options,
    )


def model(**options):
    given = {"summary": {"mean": lambda y: y[-1]}, "conditions": CONDITIONS, "init": {"x": MAP}}
    return vb.ForwardModel(network(noise=vb.noise.Additive(0.3)), t1=5.0, **given | options)


def test_every_condition_is_the_forward_model_bound_to_it():
    """Condition k with fold_in(key, k); as many draws as nodes, one program."""
    fwd, keys = model(), jax.random.split(KEY, N)
    theta = {"noise.sigma": np.array([0.1, 0.3, 0.7])}
    before = forward._batch.compilations()
    x, ys = fwd.batch_series(theta, keys)
    assert forward._batch.compilations() == before + 1
    expected = []
    for k, values in enumerate(CONDITIONS.values()):
        alone = vb.ForwardModel(vb.bind(fwd.sim, values), t1=5.0, summary=fwd.parts[0], init={"x": MAP})
        own = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys)
        expected.append(alone.batch(theta, own))
        np.testing.assert_allclose(ys[list(CONDITIONS)[k]][:, -1], expected[-1], rtol=1e-5)
    np.testing.assert_allclose(x, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(expected, axis=0)).min(axis=(1, 2)).min() > 1e-4  # no two conditions are alike
    for b in range(N):
        one = fwd({"noise.sigma": theta["noise.sigma"][b]}, keys[b])
        np.testing.assert_allclose(one, x[b], rtol=1e-5, atol=1e-6)
    assert fwd.names == tuple(f"{name}.x[{i}]" for name in CONDITIONS for i in range(N))


def test_without_noise_it_is_the_closed_form_and_has_its_gradient():
    """Uncoupled dx/dt = gamma x from 1 under gamma = -1 and -2, Heun: x = (1 - h + h^2 / 2)^n, h = -gamma dt."""
    sim = vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.1), monitors={"raw": vb.monitors.Raw("x")})
    fwd = vb.ForwardModel(
        sim, t1=1.0, summary=lambda y: y[-1], conditions={"slow": {"model.gamma": -1.0}, "fast": {"model.gamma": -2.0}}
    )
    growth = np.array([1 - h + h**2 / 2 for h in (0.1, 0.2)]) ** 10
    np.testing.assert_allclose(fwd({"init.x": 3.0}, None), 3.0 * growth, rtol=1e-5)
    slope = jax.jacrev(lambda start: fwd({"init.x": start}, None))(jnp.asarray(3.0))
    np.testing.assert_allclose(slope, growth, rtol=1e-5)


def test_conditions_enter_what_identifies_a_study_and_what_it_costs():
    same, other = model(), model(conditions={"rest": {}, "drug": {"coupling.G": 0.2}})
    assert model().fingerprint() == same.fingerprint() != other.fingerprint()
    assert same.estimate(10, width=2)["network_steps"] == 10 * 50 * 3


def test_draws_and_predictions_hold_the_features_of_all():
    import numpyro.distributions as dist

    prior, fwd = vb.Prior({"noise.sigma": dist.Uniform(0.1, 0.5)}), model()
    draws = vb.sample_prior_predictive(prior, fwd, n=4, key=KEY, progress=False)
    assert draws.names == fwd.names
    posterior = vb.Posterior({"noise.sigma": np.asarray(draws.theta["noise.sigma"])[None]})
    found = vb.posterior_predictive(posterior, fwd, n=4, key=KEY, series=True)
    for k, name in enumerate(CONDITIONS):
        np.testing.assert_allclose(found.ys[name][:, -1], found.x[:, 3 * k : 3 * k + 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("conditions", "theta", "message"),
    [
        (
            {"rest": {"coupling.g": 1.0}},
            {},
            r"no such parameter. Did you mean 'coupling.G'\? \(given by condition 'rest'\)",
        ),
        ({"rest": {"model.gamma": np.ones(4)}}, {}, r"expected a number or one value .* 3 nodes \(given by condition"),
        ({"rest": {"noise.sigma": -1.0}}, {}, r"must lie in .* \(given by condition 'rest'\)"),
        ({}, {}, r'conditions={"rest": {}'),
        ({"rest": 1.0}, {}, "write a mapping from name to paths"),
        (CONDITIONS, {"coupling.G": np.ones(1)}, "theta names 'coupling.G', which the conditions set"),
    ],
)
def test_mistakes(conditions, theta, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model(conditions=conditions).batch(theta, jax.random.split(KEY, 1))
