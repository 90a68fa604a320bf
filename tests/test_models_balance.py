"""Feedback inhibition of the excitatory-inhibitory Wong-Wang network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import vbinfer as vb

N = 7
RNG = np.random.default_rng(2)
WEIGHTS = RNG.lognormal(0.0, 1.0, (N, N)) * (1 - np.eye(N)) * np.linspace(0.3, 1.7, N)[:, None]
WEIGHTS /= np.abs(np.linalg.eigvals(WEIGHTS)).max()
S_E = 100 * 0.641e-3 * 3.06 / (1 + 100 * 0.641e-3 * 3.06)


def model(**params):
    return vb.models.ReducedWongWangExcInh(G=1.0, **params)


def input_of(rate, d):
    """The input above threshold at which y / (1 - exp(-d y)) is this rate."""
    return brentq(lambda y: y / (1 - np.exp(-d * y)) - rate, -40.0, -1e-3, xtol=1e-13)


def resting(G, lamda):
    """S_i and J_i of every node by bracketing, from the equations of Deco et al. 2014 at their default values."""
    far = 0.15 * G * WEIGHTS @ np.full(N, S_E)
    S_i, J_i = [], []
    for own in far:
        x_0 = 0.15 * S_E + 0.7 * 0.382 + lamda * own

        def unbalance(s, x_0=x_0):
            y = 615 * (x_0 - s) - 177
            return s - 10 * 1e-3 * y / (1 - np.exp(-0.087 * y))

        S_i.append(brentq(unbalance, 0.0, 1.0, xtol=1e-14))
        x_e = (input_of(3.06, 0.16) + 125) / 310
        J_i.append((1.4 * 0.15 * S_E + 0.382 + own - x_e) / S_i[-1])
    return np.array(S_i), np.array(J_i)


@pytest.mark.parametrize(("G", "lamda"), [(0.9, 0.0), (2.5, 1.0)])
def test_balanced_inhibition_solves_the_fixed_point(G, lamda):
    expected = resting(G, lamda)[1]
    with jax.enable_x64(True):
        J_i = vb.models.balanced_inhibition(model(lamda=lamda), WEIGHTS, G)
        np.testing.assert_allclose(J_i, expected, rtol=1e-10)
        assert np.ptp(J_i) > 0.1
    single = vb.models.balanced_inhibition(model(lamda=lamda), WEIGHTS, G)
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    # the criterion of the paper, x_e - b_e / a_e = -0.026 nA
    assert input_of(3.06, 0.16) / 310 == pytest.approx(-0.026, abs=1e-4)


@pytest.mark.parametrize(("G", "lamda"), [(0.9, 0.0), (2.5, 1.0)])
def test_every_excitatory_population_then_fires_at_3_hz(G, lamda):
    with jax.enable_x64(True):
        J_i = vb.models.balanced_inhibition(model(lamda=lamda), WEIGHTS, G)
        rates = {}
        for name, inhibition in (("balanced", J_i), ("uniform", jnp.full(N, J_i.mean()))):
            sim = vb.Simulator(
                model(lamda=lamda, J_i=inhibition),
                vb.Connectome(WEIGHTS, np.zeros((N, N))),
                coupling=vb.coupling.Linear(G=G),
                integrator=vb.Heun(dt=1.0),
                monitors={"last": vb.monitors.Subsample(20_000.0)},
            )
            y = vb.simulate(sim, t1=20_000.0, key=None).ys["last"]
            x = sim.model.State(y["S_e"][0], y["S_i"][0])
            currents = sim.model.inputs(x, G * jnp.asarray(WEIGHTS) @ x.S_e, jnp.zeros(N))
            rates[name] = np.array(sim.model.rates(*currents)[0])
    np.testing.assert_allclose(rates["balanced"], 3.06, rtol=1e-6)
    assert np.abs(rates["uniform"] - 3.06).max() > 0.3


def slowest(G, lamda):
    """Largest real part of the eigenvalues at the balanced state, 1/ms."""
    with jax.enable_x64(True):
        balanced = model(lamda=lamda, J_i=resting(G, lamda)[1])

        def drift(y):
            x = balanced.State(y[:N], y[N:])
            c = G * jnp.asarray(WEIGHTS) @ x.S_e
            return jnp.concatenate(balanced.dfun(jnp.zeros(()), x, c[None], jnp.zeros(N)))

        y = jnp.concatenate([jnp.full(N, S_E), jnp.asarray(resting(G, lamda)[0])])
        assert float(jnp.abs(drift(y)).max()) < 1e-12
        return np.linalg.eigvals(np.array(jax.jacobian(drift)(y))).real.max()


def test_the_balanced_state_is_stable_up_to_the_documented_strength():
    assert slowest(1.15, 0.0) < 0.0 < slowest(1.4, 0.0)
    assert slowest(5.0, 1.0) < -0.005


def test_balanced_inhibition_is_differentiable():
    with jax.enable_x64(True):
        along = jnp.asarray(RNG.uniform(0.0, 0.1, (N, N)))

        def total(h):
            deco = model(lamda=0.3, I_o=0.382 + 0.01 * h, w_p=1.4 + 0.1 * h)
            J_i = vb.models.balanced_inhibition(deco, WEIGHTS + h * along, 0.9 + h, rate_e=3.06 + 0.2 * h)
            return J_i @ jnp.arange(1.0, N + 1)

        numeric = (float(total(1e-5)) - float(total(-1e-5))) / 2e-5
        assert float(jax.grad(total)(0.0)) == pytest.approx(numeric, rel=1e-7)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"weights was given shape \[3, 2\]; expected \[node, node\]"):
        vb.models.balanced_inhibition(model(), np.ones((3, 2)), 1.0)
