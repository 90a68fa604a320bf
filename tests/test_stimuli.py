"""Stimuli: closed forms at every moment, edges at the right step, gradients that exist where they should."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer import stimuli
from vbinfer._param import paths, replace

N = 3


@pytest.fixture(autouse=True)
def _strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def course(stimulus, ts, n=N):
    """u at times `ts`, `[T, n]`, float64."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), stimulus)
        like = jnp.zeros(n)
        u = jax.vmap(lambda t: jnp.broadcast_to(double(t, like), like.shape))(jnp.asarray(ts, jnp.float64))
        return np.asarray(u)


GAIN = np.array([0.5, 0.0, -2.0])
TS = np.arange(0, 120, 0.25)


def box(t, a, b):
    return np.array([1.0 if a <= s < b else 0.0 for s in t])


CLOSED_FORMS = {
    "pulse": (
        stimuli.Pulse(onset=10.0, duration=20.5, amplitude=3.0, gain=GAIN),
        lambda t: 3.0 * box(t, 10.0, 30.5),
    ),
    "train": (
        stimuli.PulseTrain(onset=7.0, duration=2.5, interval=12.5, amplitude=-1.5, gain=GAIN),
        lambda t: -1.5 * sum(box(t, 7.0 + 12.5 * k, 9.5 + 12.5 * k) for k in range(20)),
    ),
    "short train": (
        stimuli.PulseTrain(onset=7.0, duration=2.5, interval=12.5, amplitude=2.0, gain=GAIN, count=3),
        lambda t: 2.0 * (box(t, 7.0, 9.5) + box(t, 19.5, 22.0) + box(t, 32.0, 34.5)),
    ),
    "touching pulses": (
        stimuli.PulseTrain(onset=20.0, duration=5.0, interval=5.0, amplitude=1.0, gain=GAIN, count=4),
        lambda t: box(t, 20.0, 40.0),
    ),
    "sinusoid": (
        stimuli.Sinusoid(frequency=12.0, amplitude=0.7, phase=0.4, onset=30.0, gain=GAIN),
        lambda t: 0.7 * np.sin(2 * np.pi * 12.0 * (t - 30.0) / 1000 + 0.4) * (t >= 30.0),
    ),
    "ramp": (
        stimuli.Ramp(onset=40.0, duration=30.0, low=-1.0, high=2.0, gain=GAIN),
        lambda t: np.interp(t, [40.0, 70.0], [-1.0, 2.0]),
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_stimuli_follow_their_equations_and_the_gain_of_each_node(name):
    stimulus, expected = CLOSED_FORMS[name]
    np.testing.assert_allclose(course(stimulus, TS), GAIN * expected(TS)[:, None], atol=1e-6)  # leaves are float32


def test_a_table_is_linear_between_its_times_and_constant_outside():
    times, values = np.array([5.0, 20.0, 20.0, 50.0]), np.array([[1, -2, 0], [4, 0, 1], [9, 9, 1], [0, 1, 6]], float)
    expected = np.empty((len(TS), N))
    for row, t in zip(expected, TS, strict=True):
        late = t >= 20.0  # two rows for one moment: a jump, to the second
        for i in range(N):
            row[i] = np.interp(t, times[2:] if late else times[:2], values[2:, i] if late else values[:2, i])
    np.testing.assert_allclose(course(stimuli.Table(times, values, gain=GAIN), TS), GAIN * expected, atol=1e-5)
    one = stimuli.Table([3.0], [[7.0]])
    np.testing.assert_array_equal(course(one, [0.0, 3.0, 9.0]), 7.0)


@pytest.mark.parametrize("duration", [4.0, 25.0])
def test_a_rise_keeps_the_area_of_a_pulse_and_has_the_stated_edge(duration):
    """Also where the fall begins before the rise is over."""
    pulse = stimuli.Pulse(onset=10.0, duration=duration, amplitude=3.0, rise=8.0)
    ts = np.arange(0.0, 60.0, 0.01)
    assert course(pulse, ts, 1).sum() * 0.01 == pytest.approx(3.0 * duration, rel=1e-5)
    x = np.array([0.1, 0.25, 0.45])
    np.testing.assert_allclose(course(pulse, 10 + 8 * x, 1)[:, 0], 3.0 * (3 * x**2 - 2 * x**3), rtol=1e-5)
    np.testing.assert_array_equal(course(pulse, [10.0, 18.0 + duration], 1), 0.0)


@pytest.mark.parametrize("dt", [0.1, 0.3, 1 / 16])
@pytest.mark.parametrize("start", [700.0, 90_000.0])
def test_edges_fall_on_their_step_in_float32(dt, start):
    """Times as the loop computes them, `step * dt` in float32: the edges are those of exact arithmetic."""
    first = round(start / dt)
    steps = np.arange(first - 40, first + 400)
    onset, length = first * dt, 7
    pulse = stimuli.Pulse(onset=onset, duration=length * dt, amplitude=1.0)
    train = stimuli.PulseTrain(onset=17 * dt, duration=length * dt, interval=29 * dt, amplitude=1.0)
    t = jnp.asarray(steps, jnp.int32) * dt
    assert t.dtype == jnp.result_type(float)
    u = jax.vmap(lambda t: jnp.stack([pulse(t, jnp.zeros(1)), train(t, jnp.zeros(1))]))(t)
    np.testing.assert_array_equal(u[:, 0], (steps >= first) & (steps < first + length))
    np.testing.assert_array_equal(u[:, 1], (steps - 17) % 29 < length)


def test_a_sinusoid_keeps_its_phase_after_minutes():
    """In float32 the error is that of time itself: eps t 2 pi f, here 0.02 rad."""
    t = 300_000.0 + np.arange(0.0, 100.0, 0.5)
    wave = stimuli.Sinusoid(frequency=40.0, amplitude=1.0)
    u = jax.vmap(lambda t: wave(t, jnp.zeros(1)))(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(u, np.sin(2 * np.pi * 40.0 * np.float32(t).astype(float) / 1000), atol=0.02)


def integral(stimulus):
    """A weighted integral of u over TS, a function whose derivatives are known."""
    weight = jnp.asarray(TS)
    return jnp.sum(jax.vmap(lambda t: stimulus(t, jnp.zeros(1)))(jnp.asarray(TS)) * weight) * 0.25


def test_the_gradient_with_respect_to_the_onset_of_a_pulse_exists_with_a_rise_only():
    """d/d(onset) of int t u(t) dt is the area, for a pulse of any shape."""
    with jax.enable_x64(True):

        def moment(onset, rise):
            return integral(stimuli.Pulse(onset=onset, duration=20.0, amplitude=3.0, rise=rise))

        assert jax.grad(moment)(30.0, 8.0) == pytest.approx(60.0, rel=(0.25 / 8.0) ** 2)  # (grid / rise)^2
        assert jax.grad(moment)(30.0, 0.0) == 0.0


SMOOTH = {
    "pulse": (stimuli.Pulse, dict(onset=20.0, duration=30.0, amplitude=2.0, gain=1.5, rise=8.0)),
    "train": (stimuli.PulseTrain, dict(onset=5.0, duration=6.0, interval=21.0, amplitude=2.0, gain=1.5, rise=8.0)),
    "sinusoid": (stimuli.Sinusoid, dict(frequency=21.0, amplitude=2.0, phase=0.3, gain=1.5)),
    "ramp": (stimuli.Ramp, dict(onset=20.1, duration=33.3, low=1.0, high=2.5, gain=1.5)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_equal_finite_differences(name):
    make, values = SMOOTH[name]
    with jax.enable_x64(True):

        def f(values):
            return integral(make(**values))

        gradient = jax.grad(f)({k: jnp.asarray(v) for k, v in values.items()})
        for leaf, value in values.items():
            up, down = (f(values | {leaf: jnp.asarray(value + s)}) for s in (1e-5, -1e-5))
            assert gradient[leaf] == pytest.approx(float(up - down) / 2e-5, rel=1e-4, abs=1e-4), leaf
            assert gradient[leaf] != 0.0, leaf


def draws_of(stimulus, drawn):
    """The stimulus with its leaves arranged batch last, as a simulation of many draws has them."""
    arranged = {}
    for path, leaf in paths(stimulus).items():
        if path in drawn:
            value = jnp.moveaxis(jnp.asarray(drawn[path], jnp.result_type(float)), 0, -1)
            arranged[path] = value[None] if value.ndim == 1 else value
        elif leaf.axes is None and leaf.value.ndim == 1:
            arranged[path] = leaf.value[:, None]
    return replace(stimulus, arranged)


RNG = np.random.default_rng(0)
TABLE = stimuli.Table([0.0, 10.0, 40.0], RNG.normal(size=(3, N)), gain=GAIN)
BATCHES = {
    "map of gains": (CLOSED_FORMS["pulse"][0], {"gain": RNG.normal(size=(N, N)), "onset": np.array([5.0, 9.0, 20.0])}),
    "train": (CLOSED_FORMS["train"][0], {"interval": np.array([5.0, 9.0, 20.0])}),
    "wave": (CLOSED_FORMS["sinusoid"][0], {"frequency": np.array([5.0, 9.0, 20.0])}),
    "shared table": (TABLE, {"gain": RNG.normal(size=N)}),
    "tables": (TABLE, {"values": RNG.normal(size=(N, 3, N))}),
    "times": (TABLE, {"times": np.array([[0.0, 5.0, 9.0], [1.0, 2.0, 50.0], [20.0, 30.0, 50.0]])}),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_its_draws(name):
    """As many draws as nodes: a wrong axis would show."""
    stimulus, drawn = BATCHES[name]
    arranged = draws_of(stimulus, drawn)
    for t in (3.0, 12.0, 33.0):
        u = arranged(jnp.asarray(t), jnp.zeros((N, N)))
        assert u.ndim == 2
        for b in range(N):
            one = vb.bind(stimulus, {path: value[b] for path, value in drawn.items()})
            expected = jnp.broadcast_to(one(jnp.asarray(t), jnp.zeros(N)), (N,))
            np.testing.assert_allclose(np.broadcast_to(u, (N, N))[:, b], expected, rtol=1e-6)


GAMMA = np.array([-0.2, -0.05, -0.1])


def driven(stimulus, dt=0.25, **kwargs):
    """Three linear nodes, each with its own rate, driven by the stimulus alone: dx/dt = gamma x + u."""
    return vb.Simulator(vb.models.Linear(gamma=GAMMA), integrator=vb.Heun(dt=dt), stimulus=stimulus, **kwargs)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_simulation_reads_the_stimulus_at_both_ends_of_a_step(name):
    """Heun's method in float64 NumPy on the closed form; float32 sums of 480 steps."""
    stimulus, expected = CLOSED_FORMS[name]
    u = GAIN * expected(np.arange(481) * 0.25)[:, None]
    x, path = np.zeros(N), []
    for now, later in pairwise(u):
        slope = GAMMA * x + now
        x = x + 0.125 * (slope + GAMMA * (x + 0.25 * slope) + later)
        path.append(x)
    y = vb.simulate(driven(stimulus), t1=120.0, key=None).ys["raw"]["x"]
    np.testing.assert_allclose(y, path, atol=2e-5 * np.abs(path).max())


def test_the_response_to_a_soft_pulse_is_the_convolution_integral():
    """x(t) = int e^(gamma (t - s)) u(s) ds by fine quadrature; Heun's error at dt = 0.1 is 1e-4 of the peak."""
    pulse = stimuli.Pulse(onset=12.3, duration=20.0, amplitude=3.0, gain=GAIN, rise=7.0)
    y = vb.simulate(driven(pulse, dt=0.1), t1=60.0, key=None).ys["raw"]["x"]
    s = np.arange(0.0, 60.0, 0.01) + 0.005
    u = course(pulse, s)
    for t in (15.0, 30.0, 60.0):
        expected = (np.exp(GAMMA * (t - s[:, None])) * u * (s[:, None] < t)).sum(0) * 0.01
        np.testing.assert_allclose(y[round(t / 0.1) - 1], expected, atol=2e-4 * np.abs(y).max())


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_run_in_two_pieces_is_the_run_in_one(name):
    sim = driven(CLOSED_FORMS[name][0])
    whole = vb.simulate(sim, t1=100.0, key=None).ys["raw"]["x"]
    first = vb.simulate(sim, t1=28.25, key=None)
    second = vb.simulate(sim, t1=71.75, key=None, init=first.final)
    np.testing.assert_array_equal(jnp.concatenate([first.ys["raw"]["x"], second.ys["raw"]["x"]]), whole)


@pytest.mark.parametrize("name", BATCHES)
def test_a_simulated_batch_equals_its_draws(name):
    stimulus, drawn = BATCHES[name]
    fwd = vb.ForwardModel(driven(stimulus), t1=40.0, summary=lambda y: y["x"].ravel())
    theta = {f"stimulus.{path}": jnp.asarray(v, jnp.result_type(float)) for path, v in drawn.items()}
    keys = jax.random.split(jax.random.key(0), N)
    x = fwd.batch(theta, keys)
    assert float(jnp.abs(x).max()) > 0.1
    for b in range(N):
        np.testing.assert_allclose(x[b], fwd({k: v[b] for k, v in theta.items()}, keys[b]), rtol=1e-4, atol=1e-5)


def test_the_onset_can_be_inferred_by_gradients_through_a_simulation():
    pulse = stimuli.Pulse(onset=12.0, duration=20.0, amplitude=3.0, gain=GAIN, rise=4.0)
    with jax.enable_x64(True):
        sim = driven(stimuli.Pulse(**{k: np.asarray(leaf.value) for k, leaf in paths(pulse).items()}))

        def energy(onset):
            bound = vb.bind(sim, {"stimulus.onset": onset})
            return jnp.sum(vb.simulate(bound, t1=25.0, key=None).ys["raw"]["x"] ** 2)

        slope = (energy(jnp.asarray(12.0 + 1e-5)) - energy(jnp.asarray(12.0 - 1e-5))) / 2e-5
        assert jax.grad(energy)(jnp.asarray(12.0)) == pytest.approx(float(slope), rel=1e-5)
        assert abs(float(slope)) > 1.0


def test_the_amplitude_of_a_pulse_train_can_be_drawn_alone():
    """Its duration, rise and interval stay numbers while the amplitude is traced."""
    train = stimuli.PulseTrain(onset=0.0, duration=2.0, interval=9.0, amplitude=1.0, rise=1.0)
    fwd = vb.ForwardModel(driven(train), t1=2.0, summary=lambda y: y["x"].ravel())
    keys = jax.random.split(jax.random.key(0), 2)
    weak, strong = fwd.batch({"stimulus.amplitude": jnp.array([1.0, 2.0])}, keys)
    assert np.abs(strong - weak).max() > 1e-3


GARBAGE = {
    "pulses that overlap": (
        stimuli.PulseTrain(onset=0.0, duration=2.0, interval=9.0, amplitude=1.0, rise=1.0),
        {"interval": np.array([9.0, 2.5, 3.0])},
    ),
    "times that decrease": (
        stimuli.Table([0.0, 5.0, 9.0], np.ones((3, 1))),
        {"times": np.array([[0.0, 5.0, 9.0], [0.0, 9.0, 5.0], [0.0, 0.0, 9.0]])},
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_draw_that_construction_would_refuse_fails_and_leaves_the_others(name):
    """The second of three draws alone is NaN, at every time, one by one and in a batch."""
    stimulus, drawn = GARBAGE[name]
    fwd = vb.ForwardModel(driven(stimulus), t1=2.0, summary=lambda y: y["x"].ravel())
    theta = {f"stimulus.{path}": jnp.asarray(v, jnp.result_type(float)) for path, v in drawn.items()}
    keys = jax.random.split(jax.random.key(0), N)
    x = fwd.batch(theta, keys)
    np.testing.assert_array_equal(jnp.isnan(x).all(axis=1), [False, True, False])
    assert np.isfinite(x[::2]).all()
    assert bool(jnp.isnan(fwd({k: v[1] for k, v in theta.items()}, keys[1])).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stimuli.Pulse(onset=0.0, duration=-1.0, amplitude=1.0), "duration is -1 ms"),
        (lambda: stimuli.PulseTrain(onset=0.0, duration=8.0, interval=9.0, amplitude=1.0, rise=2.0), "is 10 ms but"),
        (lambda: stimuli.PulseTrain(onset=0.0, duration=1.0, interval=9.0, amplitude=1.0, count=0), "count=0"),
        (lambda: stimuli.Table([0.0, 2.0, 1.0], np.zeros((3, 2))), "2 ms is followed by 1 ms"),
        (lambda: stimuli.Table([0.0, 2.0], np.zeros(2)), r"values\[:, None\]"),
        (lambda: TABLE.check_nodes(5), "values for 3 nodes but there are 5"),
        (lambda: driven(stimuli.Table([0.0], np.zeros((1, 4)))), "values for 4 nodes but there are 3"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
