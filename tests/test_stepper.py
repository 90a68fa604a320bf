"""`vb.stepper`: the loop's own step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.simulation import stepper

N, DT = 5, 0.1
rng = np.random.default_rng(2)
W, LENGTHS = rng.uniform(0.0, 1.0, (N, N)), rng.uniform(0.0, 4.0, (N, N))
KEY = jax.random.key(9)


def network(**options):
    return vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=[-4.0, -4.5, -5.0, -4.6, -4.2]),
        vb.Connectome(W, LENGTHS),
        coupling=vb.coupling.Linear(G=0.5),
        **{"integrator": vb.Heun(DT), "delays": vb.Delays()} | options,
    )


SIMULATORS = {
    "delays, noise, stimulus": lambda: network(
        noise=vb.noise.Additive({"V": 0.3, "r": 0.01}),
        stimulus=vb.stimuli.Sinusoid(frequency=20.0, amplitude=2.0, phase=0.1),
    ),
    "interpolated, coloured": lambda: network(
        delays=vb.Delays(interpolate=True),
        noise=vb.noise.Coloured({"V": 0.5}, tau=3.0),
        integrator=vb.integrators.Euler(DT),
    ),
    "sparse, cubic, own dt": lambda: vb.Simulator(
        vb.models.WilsonCowan(P=[0.3, 0.5, 0.4, 0.6, 0.2]),
        vb.Connectome(W * (W > 0.3), LENGTHS, 2.0).sparse(),
        coupling=vb.coupling.HyperbolicTangent(a=0.4),
        delays=vb.Delays(interpolate="cubic"),
        integrator=vb.Heun(0.07),
        noise=vb.noise.Multiplicative(lambda x: {"E": 0.1 * x.E}),
    ),
    "instantaneous, quiet": lambda: vb.Simulator(
        vb.models.JansenRit(),
        vb.Connectome(W),
        coupling=vb.coupling.Linear(G=2.0),
        integrator=vb.integrators.RungeKutta4(DT),
    ),
}


@pytest.mark.parametrize("name", SIMULATORS)
def test_steps_equal_simulate_bit_for_bit(name):
    sim = SIMULATORS[name]()
    key = None if sim.noise is None else KEY
    steps = 120
    ys = vb.simulate(sim, t1=steps * sim.dt, key=key).ys["raw"]
    init, step = vb.stepper(sim)
    carry, states = init(key), []
    for _ in range(steps):
        carry = step(carry)
        states.append(carry.x)
    for variable, y in ys.items():
        np.testing.assert_array_equal(np.stack([getattr(x, variable) for x in states]), y)
    assert float(carry.t) == pytest.approx(steps * sim.dt)


def test_steps_of_other_parameters_are_the_same_program():
    """Weights, lags and speeds are arguments of it: bound anew, nothing is compiled."""
    sim, values = SIMULATORS["delays, noise, stimulus"](), []
    for speed in (3.0, 3.5, 4.0):
        init, step = vb.stepper(vb.bind(sim, {"connectome.speed": speed}))
        carry = init(KEY)
        before = stepper._step.compilations()
        for _ in range(25):
            carry = step(carry)
        values.append(carry.x.V)
        assert stepper._step.compilations() - before <= (speed == 3.0)
    whole = vb.simulate(vb.bind(sim, {"connectome.speed": 4.0}), t1=25 * DT, key=KEY).ys["raw"]["V"]
    np.testing.assert_array_equal(values[2], whole[-1])
    assert np.abs(values[1] - values[0]).max() > 1e-4


def test_from_the_end_of_a_run_and_inside_a_scan():
    sim = SIMULATORS["delays, noise, stimulus"]()
    whole = vb.simulate(sim, t1=4.0, key=KEY)
    first = vb.simulate(sim, t1=1.7, key=KEY)
    init, step = vb.stepper(sim)
    _, states = jax.lax.scan(lambda c, _: (step(c), step(c).x), init(KEY, first.final), length=23)
    np.testing.assert_allclose(states.V, whole.ys["raw"]["V"][17:], rtol=1e-5, atol=1e-5)
    past = vb.History(jax.tree.map(lambda a: a[None], sim.model.init(N)))
    np.testing.assert_array_equal(step(init(KEY, past)).x.V, whole.ys["raw"]["V"][0])


@pytest.mark.parametrize("amplitude", [None, 0.5])
def test_an_input_that_follows_the_state_is_held_over_the_step(amplitude):
    """dx/dt = -x/2 + s(t) + u_k, u_k = -3 tanh(x_k - target): Heun by hand, the input the same in both stages."""
    stimulus = amplitude and vb.stimuli.Sinusoid(frequency=25.0, amplitude=amplitude, phase=0.3)
    target, dt, steps = np.array([0.5, -1.0, 2.0]), 0.2, 60
    sim = vb.Simulator(vb.models.Linear(gamma=-0.5), integrator=vb.Heun(dt), stimulus=stimulus, nodes=3)
    init, step = vb.stepper(sim)
    carry, x = init(init={"x": np.array([3.0, 0.0, -1.0])}), np.array([3.0, 0.0, -1.0])

    def s(t):
        return 0.0 if stimulus is None else 0.5 * np.sin(2 * np.pi * 25.0 * t / 1000 + 0.3)

    for k in range(steps):
        carry = step(carry, u=-3.0 * jnp.tanh(carry.x.x - target))
        u = -3.0 * np.tanh(x - target)
        f = -0.5 * x + s(k * dt) + u
        x = x + dt / 2 * (f + -0.5 * (x + dt * f) + s((k + 1) * dt) + u)
    np.testing.assert_allclose(carry.x.x, x, rtol=1e-5, atol=1e-6)


def test_a_gain_of_the_loop_has_a_gradient():
    """x_k+1 = x_k + dt (-x_k - g x_k) by Euler: d x_n / d g = -n dt (1 - dt (1 + g))^(n-1) x_0."""
    init, step = vb.stepper(vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.integrators.Euler(0.1)))

    def last(g):
        carry = jax.lax.fori_loop(0, 9, lambda _, c: step(c, u=-g * c.x.x), init(init={"x": 2.0}))
        return carry.x.x[0]

    assert float(jax.jacfwd(last)(0.5)) == pytest.approx(-9 * 0.1 * (1 - 0.15) ** 8 * 2.0, rel=1e-5)


def test_mistakes():
    sim = SIMULATORS["delays, noise, stimulus"]()
    init, step = vb.stepper(sim)
    with pytest.raises(ValueError, match="pass key="):
        init()
    with pytest.raises(ValueError, match=r"u has shape \[3\]; expected a number or \[5\]"):
        step(init(KEY), u=np.ones(3))
    with pytest.raises(ValueError, match="continue with the same"):
        init(KEY, vb.simulate(SIMULATORS["interpolated, coloured"](), t1=1.0, key=KEY).final)
