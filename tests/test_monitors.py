"""Monitors: means are means, BOLD is the reference's BOLD, and nothing depends on what else is recorded."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.monitors.bold import PRESETS, Haemodynamics

BOLD = np.load(Path(__file__).parent / "golden" / "bold.npz")


def noisy(monitors, **kwargs):
    return vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=jnp.array([-5.0, -4.5, -4.0])),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(sigma=0.05),
        monitors=monitors,
        **kwargs,
    )


def test_average_and_subsample_equal_those_of_the_raw_signal():
    monitors = {
        "raw": vb.monitors.Raw(),
        "sub": vb.monitors.Subsample(0.7),
        "mean": vb.monitors.TimeAverage(0.3),
        "mean_V": vb.monitors.TimeAverage(1.1, var="V"),
        "pair": vb.monitors.Subsample(0.7, var=("V", "r")),
    }
    solution = vb.simulate(noisy(monitors), t1=7.7, key=jax.random.key(0))
    raw, ts = solution.ys["raw"], solution.ts
    for v in "rV":
        np.testing.assert_array_equal(solution.ys["sub"][v], raw[v][6::7])
        means = np.asarray(raw[v][:75], float).reshape(25, 3, 3).mean(1)
        np.testing.assert_allclose(solution.ys["mean"][v], means, rtol=1e-5, atol=1e-6)
    means = np.asarray(raw["V"], float).reshape(7, 11, 3).mean(1)
    np.testing.assert_allclose(solution.ys["mean_V"], means, rtol=1e-5, atol=1e-6)
    assert list(solution.ys["pair"]) == ["r", "V"]  # the order of the model
    np.testing.assert_allclose(ts["raw"], np.arange(1, 78) * 0.1, rtol=1e-6)
    np.testing.assert_allclose(ts["mean_V"], np.arange(1, 8) * 1.1, rtol=1e-6)


def test_a_monitor_records_the_same_whatever_else_is_recorded():
    bold = vb.monitors.BalloonWindkessel("r", period=30.0)
    alone = vb.simulate(noisy({"bold": bold}), t1=90.0, key=jax.random.key(1)).ys["bold"]
    others = {"a": vb.monitors.Subsample(0.7, var="r"), "bold": bold, "b": vb.monitors.TimeAverage(4.0)}
    among = vb.simulate(noisy(others), t1=90.0, key=jax.random.key(1)).ys["bold"]
    assert float(jnp.abs(alone).min()) > 0
    np.testing.assert_allclose(alone, among, rtol=2e-5)


def driven(preset, inputs, ts, step=10.0):
    """BOLD/V0 of a preset at `ts` (s) for a piecewise constant input, by the monitor's own update every 10 ms."""
    monitor = vb.monitors.BalloonWindkessel("x", period=10.0, preset=preset, step=step)
    dt_ms = 10.0
    u = np.zeros(round(ts[-1] * 100))
    for start, stop, value in inputs:
        u[round(start * 100) : round(stop * 100)] = value

    def one(carry, u):
        x = {"x": u[None]}
        carry = monitor.update(monitor.observe(carry, x), dt_ms)
        return monitor.sample(carry, x)

    _, y = jax.lax.scan(one, monitor.init({"x": jnp.zeros(1)}), jnp.asarray(u, jnp.result_type(float)))
    return np.asarray(y[:, 0]) / float(monitor.V0)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("shape", ["boxcar", "random"])
def test_bold_equals_an_adaptive_integrator_of_order_eight(preset, shape):
    ts, expected = BOLD[f"{shape}__t"], BOLD[f"{preset}__{shape}__y_over_V0"]
    inputs = json.loads(str(BOLD["info"]))["inputs"][shape]
    y = np.concatenate([[0.0], driven(preset, inputs, ts)])[np.round(ts * 100).astype(int)]
    assert np.abs(y - expected).max() < 2e-4 * np.abs(expected).max()


def test_presets_hold_the_constants_of_the_reference():
    reference = json.loads(str(BOLD["info"]))["presets"]
    assert PRESETS.keys() == reference.keys()
    for name, constants in reference.items():
        assert PRESETS[name] == pytest.approx(constants, rel=1e-12)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_bold_settles_at_the_algebraic_steady_state(preset):
    p, u = PRESETS[preset], 0.5
    f = 1 + u / p["gamma"]
    v = f ** p["alpha"]
    q = v * (1 - (1 - p["E0"]) ** (1 / f)) / p["E0"]
    expected = p["k1"] * (1 - q) + p["k2"] * (1 - q / v) + p["k3"] * (1 - v)
    y = driven(preset, [[0.0, 80.0, u]], np.array([80.0]))
    assert y[-1] == pytest.approx(expected, rel=1e-4)


def test_no_input_gives_exactly_no_signal():
    for preset in PRESETS:
        assert np.all(driven(preset, [], np.array([20.0])) == 0.0)


def test_haemodynamics_stay_finite_under_strong_input():
    for u in (-0.2, 1.5):  # far beyond these the inflow itself would reach zero: a failed draw
        assert np.isfinite(driven("friston2003_stephan2007", [[0.0, 5.0, u]], np.array([30.0]))).all()


def test_the_haemodynamic_step_is_second_order():
    monitor = vb.monitors.BalloonWindkessel("x", period=10.0)
    from vbinfer import _ode

    with jax.enable_x64(True):
        constants = {k: jnp.asarray(v, float) for k, v in PRESETS["friston2003_stephan2007"].items()}
        monitor = vb.monitors.BalloonWindkessel("x", period=10.0, **constants)
        ends = []
        for n in (25, 50, 100, 1600):
            blood = Haemodynamics(*(jnp.zeros(()) for _ in range(4)))

            def step(b, _, n=n):
                return (
                    _ode.heun(lambda stage, b: monitor.dfun(b, jnp.asarray(0.7)), b, 5.0 / n),
                    None,
                )

            ends.append(np.array(jax.lax.scan(step, blood, None, length=n)[0]))
    errors = [np.abs(end - ends[-1]).max() for end in ends[:3]]
    assert np.polyfit(np.log([25, 50, 100]), np.log(errors), 1)[0] == pytest.approx(-2.0, abs=0.15)


def test_bold_of_a_simulation_is_driven_by_the_chosen_variable():
    """The monitor inside the loop equals the reference integration of the recorded variable's 10 ms means."""
    sim = noisy({"raw": vb.monitors.Raw(var="r"), "bold": vb.monitors.BalloonWindkessel("r", period=500.0)})
    solution = vb.simulate(sim, t1=3_000.0, key=jax.random.key(2))
    means = np.asarray(solution.ys["raw"], float).reshape(300, 100, 3).mean(1)
    inputs = [[k / 100, (k + 1) / 100, u] for k, u in enumerate(means[:, 1])]
    expected = 0.08 * driven("friston2003_stephan2007", inputs, np.array([3.0]))[49::50]
    np.testing.assert_allclose(solution.ys["bold"][:, 1], expected, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: vb.monitors.BalloonWindkessel("S", 720.0, preset="friston2003"), ValueError, "Did you mean"),
        (lambda: vb.monitors.BalloonWindkessel("S", 720.0, kapa=0.6), TypeError, "Did you mean 'kappa'"),
        (lambda: vb.monitors.BalloonWindkessel("S", 720.0, E0=1.2), ValueError, "E0 is 1.2"),
        (lambda: vb.monitors.TimeAverage(0.0), ValueError, "must be positive"),
        (lambda: noisy({"b": vb.monitors.BalloonWindkessel("S", 720.0)}), ValueError, "no such variable"),
        (lambda: noisy({"b": vb.monitors.TimeAverage(0.25)}), ValueError, "0.2 or 0.3 ms"),
        (lambda: noisy({"b": vb.monitors.BalloonWindkessel("r", 0.04)}), ValueError, "not a multiple of dt"),
        (lambda: vb.monitors.BalloonWindkessel("r", 720.0, step=-1.0), ValueError, "step of -1.0 ms"),
    ],
)
def test_mistakes(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_mean_of_a_long_period_keeps_its_digits():
    """A constant of 0.3 over 20,000 steps: a sum in float32 is off by 2e-4 and more."""
    parts = dict(integrator=vb.integrators.Euler(dt=0.01), nodes=2)
    monitors = {
        "mean": vb.monitors.TimeAverage(200.0, "x"),
        "eeg": vb.monitors.EEG(jnp.eye(2), "x", period=200.0),
    }
    sim = vb.Simulator(vb.models.Linear(gamma=0.0), monitors=monitors, **parts)
    ys = vb.simulate(sim, t1=200.0, key=None, init={"x": 0.3}).ys
    for y in ys.values():
        np.testing.assert_allclose(y, 0.3, rtol=2e-7)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64, int])
def test_numbers_of_numpy_are_numbers_of_ms(number):
    """Periods, steps and the bound of the delays are kept as Python floats, which a compiled program can hold."""
    monitor = vb.monitors.HRF("r", number(4), step=number(2))
    kept = (vb.Heun(dt=number(2)).dt, vb.Delays(max=number(3)).max, monitor.period, monitor.step)
    assert kept == (2.0, 3.0, 4.0, 2.0)
    assert all(type(value) is float for value in kept)


def test_variables_may_be_given_as_a_list():
    assert vb.monitors.Subsample(1.0, var=["V", "r"]) == vb.monitors.Subsample(1.0, var=("V", "r"))
    assert vb.models.MontbrioPazoRoxin(cvar=["r", "V"], cv=0.5).cvar == ("r", "V")
