"""Integrators: advertised orders, amplification of one step, stiff models, and models that bring their own step."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import vbinfer as vb
from vbinfer.network.delays import History

W = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])
SCHEMES = {
    "Euler": vb.integrators.Euler,
    "Heun": vb.Heun,
    "RungeKutta4": vb.integrators.RungeKutta4,
    "Rosenbrock": vb.integrators.Rosenbrock,
}
ORDERS = {name: (scheme, scheme.order) for name, scheme in SCHEMES.items()}
ORDERS["Heun, coupling frozen"] = (lambda dt: vb.Heun(dt, frozen_coupling=True), 1)


def double(sim):
    """The same with float64 leaves; the numbers chosen here are exact in float32."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if eqx.is_inexact_array(a) else a, sim)


def run(sim, t1, **options):
    """The raw trajectory `[T, V, N]`, float64 throughout."""
    with jax.enable_x64(True):
        y = vb.simulate(double(sim), t1=t1, **({"key": None} | options)).ys["raw"]
    return np.stack([np.asarray(y[name]) for name in sim.model.variables()], axis=1)


# ------------------------------------------------------------------------------------------------------- orders


def network(integrator):
    """Three unequal oscillators on an asymmetric network, with an input that changes with time."""
    return vb.Simulator(
        vb.models.SupHopf(a=[0.5, -0.25, 0.125], omega=[1.0, 2.0, 1.5]),
        vb.Connectome(np.float32(W), np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=0.75),
        integrator=integrator,
        stimulus=vb.stimuli.Sinusoid(frequency=500.0, amplitude=1.5, phase=0.5, gain=[1.0, 0.0, -0.5]),
    )


def network_by_hand(t, y):
    weights = np.float32(W).astype(float)
    out = np.empty(6)
    drive = 1.5 * np.sin(2 * np.pi * 0.5 * t + 0.5)
    for i, (a, omega, gain) in enumerate(((0.5, 1.0, 1.0), (-0.25, 2.0, 0.0), (0.125, 1.5, -0.5))):
        x, v = y[i], y[3 + i]
        into = sum(weights[i, j] * y[j] for j in range(3)), sum(weights[i, j] * y[3 + j] for j in range(3))
        slow = a - x * x - v * v
        out[i] = slow * x - omega * v + 0.75 * into[0] + gain * drive
        out[3 + i] = slow * v + omega * x + 0.75 * into[1]
    return out


def test_orders_and_calculus_are_stated():
    assert {name: order for name, (_, order) in ORDERS.items()} == {
        "Euler": 1,
        "Heun": 2,
        "RungeKutta4": 4,
        "Rosenbrock": 2,
        "Heun, coupling frozen": 1,
    }
    assert vb.Native.order is None
    assert all(scheme.calculus == "ito" for scheme in (*SCHEMES.values(), vb.Native))


@pytest.mark.parametrize("name", ORDERS)
def test_order_with_coupling_and_a_stimulus(name):
    """Slope of the log of the error at 2 ms over the log of dt, against an integrator of order eight."""
    integrator, order = ORDERS[name]
    start = {"x": jnp.array([0.5, -0.25, 1.0]), "y": jnp.array([0.0, 0.75, -0.5])}
    y0 = np.concatenate([start["x"], start["y"]]).astype(float)
    truth = solve_ivp(network_by_hand, (0.0, 2.0), y0, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    steps = (64, 128, 256)
    errors = [np.abs(run(network(integrator(2.0 / n)), 2.0, init=start)[-1].reshape(-1) - truth).max() for n in steps]
    slope = np.polyfit(np.log(2.0 / np.array(steps)), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)
    assert errors[-1] < {1: 2e-2, 2: 2e-4, 4: 1e-8}[order]


# ---------------------------------------------------------------------------------------- one step of x' = gamma x

G = 1 - 1 / np.sqrt(2)
FACTORS = {  # growth of x in a step, and what a noise increment of 1 adds, at z = gamma dt
    "Euler": (lambda z: 1 + z, lambda z: 1.0 + 0 * z),
    "Heun": (lambda z: 1 + z + z**2 / 2, lambda z: 1 + z / 2),
    "RungeKutta4": (lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24, lambda z: 1.0 + 0 * z),
    "Rosenbrock": (lambda z: (1 + (1 - 2 * G) * z) / (1 - G * z) ** 2, lambda z: (1 - G**2 * z) / (1 - G * z) ** 2),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_growth_and_noise_of_one_step_of_a_linear_equation(name):
    z = np.array([0.5, -0.0625, -0.5, -1.5, -4.0, -64.0])
    model = vb.models.Linear(gamma=z / 0.25)
    growth, entry = FACTORS[name]
    sim = vb.Simulator(model, integrator=SCHEMES[name](0.25), noise=vb.noise.Additive(2.0))
    one = lambda kick: {"x": np.full((1, 6), kick)}  # noqa: E731
    x = run(sim, 0.25, init={"x": 1.5}, noise_path=one(0.0))[0, 0]
    np.testing.assert_allclose(x, 1.5 * growth(z), rtol=1e-12)
    kicked = run(sim, 0.25, init={"x": 1.5}, noise_path=one(1.0))[0, 0]
    np.testing.assert_allclose(kicked - x, 2.0 * 0.5 * entry(z), rtol=1e-10)


def test_rosenbrock_is_l_stable():
    """Growth tends to 0 as gamma dt goes to -inf, and is at most 1 on the imaginary axis, hence on all of the left."""
    z = -(4.0 ** np.arange(3, 15))
    sim = vb.Simulator(vb.models.Linear(gamma=z), integrator=vb.integrators.Rosenbrock(1.0))
    growth = np.abs(run(sim, 1.0, init={"x": 1.0})[0, 0])
    assert (np.diff(growth) < 0).all()
    np.testing.assert_allclose(growth[6:] * -z[6:], np.abs(1 - 2 * G) / G**2, rtol=1e-3)  # 4.83 / |z|
    omega = 2.0 ** np.arange(-4, 12)
    rotation = vb.Simulator(vb.models.SupHopf(a=0.0, omega=omega), integrator=vb.integrators.Rosenbrock(1.0))
    tiny = 2.0**-40  # the cubic terms are below rounding
    length = np.hypot(*(run(rotation, 1.0, init={"x": tiny, "y": 0.0})[0] / tiny))
    expected = np.abs((1 + (1 - 2 * G) * 1j * omega) / (1 - G * 1j * omega) ** 2)
    np.testing.assert_allclose(length, expected, rtol=1e-9)
    assert length.max() <= 1.0


# --------------------------------------------------------------------------------------------------------- stiff


class RelaxationState(NamedTuple):
    """v: oscillates with w; s: a fast variable that follows v and acts back."""

    v: jax.Array
    w: jax.Array
    s: jax.Array


class Relaxation(vb.models.AbstractVectorField):
    """The oscillator of van der Pol in Lienard's variables, with a fast inhibition.

    eps v' = v - v^3 / 3 - w - s / 4 + c + u;   w' = rate v;   tau s' = v + v^2 / 2 - s
    """

    State: ClassVar = RelaxationState
    eps: jax.Array = vb.param(0.125, unit="ms", low=1e-9)
    tau: jax.Array = vb.param(1e-4, unit="ms", low=1e-9)
    rate: jax.Array = vb.param(1.0, unit="1/ms")
    cvar: tuple[str, ...] = eqx.field(static=True, default=("v",))

    def init(self, n):
        return RelaxationState(jnp.full(n, 1.5), jnp.zeros(n), jnp.full(n, 2.625))

    def dfun(self, t, x, c, u):
        v = (x.v - x.v**3 / 3.0 - x.w - 0.25 * x.s + c[0] + u) / self.eps
        return RelaxationState(v, self.rate * x.v, (x.v + 0.5 * x.v**2 - x.s) / self.tau)


def relaxation(integrator, **options):
    """Two unequal oscillators that drive each other unequally."""
    return vb.Simulator(
        Relaxation(eps=[0.125, 0.25], tau=[2.0**-13, 2.0**-11], rate=[1.0, 0.5]),
        vb.Connectome(np.array([[0.0, 0.25], [0.125, 0.0]]), np.zeros((2, 2))),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=integrator,
        **options,
    )


def relaxation_by_hand(t, y):
    v, w, s = y[:2], y[2:4], y[4:]
    into = 0.5 * np.array([0.25 * v[1], 0.125 * v[0]])
    dv = (v * (1 - v * v / 3) - w - s / 4 + into) * np.array([8.0, 4.0])
    return np.concatenate([dv, [v[0], 0.5 * v[1]], (v * (1 + v / 2) - s) * np.array([8192.0, 2048.0])])


def test_rosenbrock_follows_a_stiff_oscillation_at_steps_where_heun_is_lost():
    """The fast variable relaxes up to 64 times in a step; against an implicit method, order between 1.5 and 2."""
    T, start = 6.0, [1.5, 1.5, 0.0, 0.0, 2.625, 2.625]
    truth = solve_ivp(relaxation_by_hand, (0.0, T), start, method="Radau", rtol=1e-9, atol=1e-11).y
    assert (np.abs(np.diff(np.sign(truth[0]))) > 0).sum() >= 2  # it has gone down and up again
    steps = (2.0**-7, 2.0**-8, 2.0**-9)
    errors = [
        np.abs(run(relaxation(vb.integrators.Rosenbrock(dt)), T)[-1].reshape(-1) - truth[:, -1]).max() for dt in steps
    ]
    assert 1.5 < np.polyfit(np.log(steps), np.log(errors), 1)[0] < 2.2, errors
    assert errors[-1] < 1e-5
    assert not np.isfinite(run(relaxation(vb.Heun(2.0**-9)), T)).all()


def test_a_fast_node_on_a_slow_network():
    """gamma = -1000 / ms, dt = 1/8 ms: the fast node sits on 0.75 times the slow one, which is as if it were alone."""
    weights = np.array([[0.0, 750.0], [0.0, 0.0]])
    make = lambda integrator: vb.Simulator(  # noqa: E731
        vb.models.Linear(gamma=[-1000.0, -0.125]),
        vb.Connectome(weights, np.zeros((2, 2))),
        coupling=vb.coupling.Linear(G=1.0),
        integrator=integrator,
    )
    x = run(make(vb.integrators.Rosenbrock(0.125)), 10.0, init={"x": jnp.array([3.0, 2.0])})[:, 0]
    t = 0.125 * np.arange(1, 81)
    slow = 2.0 * np.exp(-t / 8)
    np.testing.assert_allclose(x[:, 1], slow, rtol=2e-4)
    np.testing.assert_allclose(x[8:, 0], 0.75 * slow[8:] * 1000 / (1000 - 0.125), rtol=2e-2)
    assert not np.isfinite(run(make(vb.Heun(0.125)), 10.0, init={"x": 1.0})).all()


def test_rosenbrock_in_a_batch_and_its_gradients():
    """[N, B] equals the draws alone, with B = N; reverse = forward = central difference."""
    sim = relaxation(vb.integrators.Rosenbrock(2.0**-8), monitors={"raw": vb.monitors.Subsample(0.25)})
    with jax.enable_x64(True):
        fwd = vb.ForwardModel(double(sim), t1=1.0, summary=lambda y: jnp.concatenate([y["v"], y["w"]]).reshape(-1))
        theta = {
            "model.rate": jnp.array([0.5, 1.5]),
            "coupling.G": jnp.array([0.25, 0.75]),
            "model.eps": jnp.array([[0.1, 0.2], [0.3, 0.4]]),
        }
        keys = jax.random.split(jax.random.key(0), 2)
        single = [fwd({k: v[i] for k, v in theta.items()}, keys[i]) for i in range(2)]
        np.testing.assert_allclose(fwd.batch(theta, keys), jnp.stack(single), rtol=1e-9, atol=1e-12)
        assert np.ptp(np.asarray(single), axis=0).min() > 1e-3

        weights = jnp.cos(jnp.arange(16.0))
        loss = lambda G, rate: weights @ fwd({"coupling.G": G, "model.rate": rate}, keys[0])  # noqa: E731
        at = (jnp.asarray(0.5), jnp.asarray(0.9))
        reverse, forward = jax.grad(loss, (0, 1))(*at), jax.jacfwd(loss, (0, 1))(*at)
        h = 1e-5
        shifted = [(loss(at[0] + h, at[1]) - loss(at[0] - h, at[1])) / (2 * h)]
        shifted += [(loss(at[0], at[1] + h) - loss(at[0], at[1] - h)) / (2 * h)]
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    np.testing.assert_allclose(reverse, shifted, rtol=1e-6)


# -------------------------------------------------------------------------------------- models with a step of their own


class SpikingState(NamedTuple):
    """v: potential; spike: 1 in the step in which a node fires; wait: time left of the refractory period, ms."""

    v: jax.Array
    spike: jax.Array
    wait: jax.Array


class LeakyIntegrateAndFire(vb.models.AbstractStepper):
    """v decays exactly towards drive + c + u; above 1 it fires, is reset to 0, and rests."""

    State: ClassVar = SpikingState
    tau: jax.Array = vb.param(10.0, unit="ms", low=1e-3)
    drive: jax.Array = vb.param(1.25)
    rest: jax.Array = vb.param(2.0, unit="ms", low=0.0)
    cvar: tuple[str, ...] = eqx.field(static=True, default=("spike",))

    def init(self, n):
        return SpikingState(jnp.linspace(0.0, 0.9, n), jnp.zeros(n), jnp.zeros(n))

    def step(self, t, x, c, u, dW, dt):
        target = self.drive + c[0] + u
        v = target + (x.v - target) * jnp.exp(-dt / self.tau)
        v = jnp.where(x.wait > 0.0, 0.0, v if dW is None else v + dW.v)
        fires = v >= 1.0
        wait = jnp.where(fires, self.rest, jnp.maximum(x.wait - dt, 0.0))
        return SpikingState(jnp.where(fires, 0.0, v), jnp.where(fires, 1.0, 0.0), wait)


LENGTHS = np.array([[0.0, 3.0, 1.5], [6.0, 0.0, 0.0], [0.75, 4.5, 0.0]])


def spiking(**options):
    parts = dict(
        coupling=vb.coupling.Linear(G=4.0),
        integrator=vb.Native(dt=0.25),
        noise=vb.noise.Additive({"v": [0.125, 0.25, 0.0625]}),
        delays=vb.Delays(),
        stimulus=vb.stimuli.Pulse(onset=5.0, duration=10.0, amplitude=0.5, gain=[1.0, 0.0, -1.0]),
        monitors={"raw": vb.monitors.Raw(), "rate": vb.monitors.TimeAverage(2.0, var="spike")},
    )
    connectome = vb.Connectome(np.float32(W), LENGTHS, speed=1.5)
    model = LeakyIntegrateAndFire(tau=[8.0, 12.0, 10.0], drive=[1.25, 1.125, 1.5])
    return vb.Simulator(model, connectome, **(parts | options))


def spiking_by_hand(n_steps, z):
    """Scalar loops over nodes; sent spikes are looked up in a list."""
    dt, taus, drives, gains = 0.25, (8.0, 12.0, 10.0), (1.25, 1.125, 1.5), (1.0, 0.0, -1.0)
    weights = np.float32(W).astype(float)
    v, wait, sent = [0.0, 0.45, 0.9], [0.0] * 3, [[0.0] * 3]
    rows = []
    for k in range(n_steps):
        spikes = [0.0] * 3
        for i in range(3):
            c = 0.0
            for j in range(3):
                late = k - round(LENGTHS[i, j] / 1.5 / dt)
                c += weights[i, j] * (sent[late][j] if late >= 0 else 0.0)
            u = 0.5 * gains[i] if 5.0 <= k * dt < 15.0 else 0.0
            target = drives[i] + 4.0 * c + u
            if wait[i] > 0.0:
                new = 0.0
            else:
                decay = np.exp(-dt / taus[i])
                new = v[i] * decay + target * (1 - decay) + (0.125, 0.25, 0.0625)[i] * 0.5 * z[k, i]
            wait[i] = max(wait[i] - dt, 0.0)
            if new >= 1.0:
                new, spikes[i], wait[i] = 0.0, 1.0, 2.0
            v[i] = new
        sent.append(spikes)
        rows.append([list(v), spikes, list(wait)])
    return np.array(rows)


def test_a_model_with_a_reset_runs_with_everything_else():
    """Coupling with unequal lags, stimulus, noise, monitors: equal to scalar loops, step by step."""
    z = np.random.default_rng(5).standard_normal((160, 3))
    with jax.enable_x64(True):
        state = SpikingState(jnp.array([0.0, 0.45, 0.9]), jnp.zeros(3), jnp.zeros(3))
        solution = vb.simulate(double(spiking()), t1=40.0, key=None, noise_path={"v": z}, init=state)
    y = np.stack([solution.ys["raw"][name] for name in SpikingState._fields], axis=1)
    expected = spiking_by_hand(160, z)
    np.testing.assert_allclose(y, expected, atol=1e-9)
    assert (expected[:, 1].sum(axis=0) > 2).all()
    np.testing.assert_allclose(solution.ys["rate"], expected[:, 1].reshape(20, 8, 3).mean(axis=1), atol=1e-12)
    quiet = spiking_by_hand(160, 0 * z)
    assert np.abs(quiet - expected).max() > 0.5


def test_a_model_with_a_reset_is_resumed_and_runs_in_batches():
    sim, key = spiking(monitors=None), jax.random.key(3)
    whole = vb.simulate(sim, t1=20.0, key=key).ys["raw"]
    first = vb.simulate(sim, t1=10.0, key=key)
    second = vb.simulate(sim, t1=10.0, key=key, init=first.final).ys["raw"]
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([first.ys["raw"][name], second[name]]), value)
    fwd = vb.ForwardModel(sim, t1=10.0, summary=lambda y: y["v"].mean(axis=0))
    theta = {"model.drive": jnp.array([1.1, 1.3, 1.6]), "noise.sigma.v": jnp.full((3, 3), 0.1)}
    keys = jax.random.split(jax.random.key(4), 3)
    single = [fwd({k: v[i] for k, v in theta.items()}, keys[i]) for i in range(3)]
    np.testing.assert_allclose(fwd.batch(theta, keys), jnp.stack(single), rtol=1e-4)
    assert np.ptp(np.asarray(single), axis=0).min() > 1e-3


def test_a_history_of_spikes_arrives_with_its_lags():
    """Sent before time zero: node 0 hears a spike of node 1 that was fired 2 ms before it."""
    rows = 20
    spike = np.zeros((rows, 3))
    spike[-1 - 3, 1] = 1.0  # at -0.75 ms; the lag from 1 to 0 is 2 ms, so it arrives at 1.25 ms, in the sixth step
    state = SpikingState(jnp.zeros((rows, 3)), jnp.asarray(spike), jnp.zeros((rows, 3)))
    plain = dict(noise=None, stimulus=None, monitors=None)
    y = run(spiking(**plain), 2.5, init=History(state))[:, 0, 0]
    silent = run(spiking(**plain), 2.5, init=History(state._replace(spike=jnp.zeros((rows, 3)))))[:, 0, 0]
    where = np.flatnonzero(np.abs(y - silent) > 1e-6)
    assert where[0] == 5
    assert y[5] - silent[5] == pytest.approx(4.0 * float(np.float32(0.9)) * (1 - np.exp(-0.25 / 8.0)), rel=1e-9)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_model_with_its_own_step_is_refused_by_every_other_integrator(name):
    message = rf"LeakyIntegrateAndFire brings its own step; use integrator=Native\(dt=0\.5\) instead of {name}"
    with pytest.raises(ValueError, match=message):
        spiking(integrator=SCHEMES[name](0.5))


def test_native_refuses_a_model_without_a_step():
    message = r"Linear has no step of its own; use integrator=Heun\(dt=0\.5\) instead of Native"
    with pytest.raises(ValueError, match=message):
        vb.Simulator(vb.models.Linear(), integrator=vb.Native(0.5))


@pytest.mark.parametrize("dt", [0.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [*SCHEMES.values(), vb.Native])
def test_steps_are_positive(kind, dt):
    with pytest.raises(ValueError, match="must be positive"):
        kind(dt)


def test_a_step_is_a_number():
    with pytest.raises(TypeError, match="write a Python number of milliseconds"):
        vb.Heun(True)
