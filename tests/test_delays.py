"""Delays: TVB's numbers, closed forms of delay equations, and that neither pieces nor batches change anything."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

import vbinfer as vb
from vbinfer.study.model import read_simulator
from vbinfer.study.table import StudyError

GOLDEN = Path(__file__).parent / "golden"
TVB = {name: p for p in GOLDEN.glob("tvb_*.npz") if hasattr(vb.models, name := p.stem.removeprefix("tvb_"))}
TVB_NAMES = {"Linear": {"a": "G", "b": "offset"}, "Difference": {"a": "G"}, "Kuramoto": {"a": "G"}}


def info(stored):
    return json.loads(str(stored["info"]))


DELAYED = [(n, c) for n in sorted(TVB) for c in info(np.load(TVB[n]))["cases"] if c.endswith("delayed")]


def tvb_run(name, case):
    """Trajectory `[T, V, N]` of a golden case with TVB's conventions, and the stored one."""
    stored = np.load(TVB[name])
    kind = getattr(vb.models, name)
    known = vb.paths(kind())
    given = info(stored)["cases"][case]
    renamed = TVB_NAMES.get(given["coupling"], {})
    sim = vb.Simulator(
        kind(**{k: v for k, v in json.loads(str(stored["params"])).items() if k in known}),
        vb.Connectome(stored["weights"], stored["tract_lengths"], float(stored["speed"])),
        coupling=getattr(vb.coupling, given["coupling"])(
            **{renamed.get(k, k): v for k, v in given["coupling_params"].items()}
        ),
        integrator=vb.Heun(dt=float(stored["dt"]), frozen_coupling=True),
        delays=vb.Delays(),
        monitors={"raw": vb.monitors.Subsample(float(stored["t"][0]))},
    )
    y = vb.simulate(sim, t1=float(stored["t"][-1]), key=None, init=sim.model.State(*stored["x0"])).ys["raw"]
    return np.stack([y[v] for v in sim.model.variables()], axis=1), stored[f"{case}__y"], given


def deviation(y, reference):
    """Largest error of a trajectory `[T, V, N]`, relative to the largest value of each state variable."""
    scale = np.abs(reference).max(axis=(0, 2))
    return (np.abs(y - reference).max(axis=(0, 2)) / np.where(scale == 0.0, 1.0, scale)).max()


@pytest.mark.parametrize(("name", "case"), DELAYED)
def test_equals_tvb(name, case):
    with jax.enable_x64(True):
        y, reference, _ = tvb_run(name, case)
    assert deviation(y, reference) < 1e-9
    still = np.abs(reference).max(axis=(0, 2)) == 0.0
    assert np.all(y[:, still] == 0.0)


@pytest.mark.parametrize(
    ("name", "case"),
    [("SupHopf", "difference_delayed"), ("Kuramoto", "kuramoto_delayed"), ("JansenRit", "sigmoidaljansenrit_delayed")],
)
def test_equals_tvb_in_single_precision(name, case):
    y, reference, given = tvb_run(name, case)
    assert deviation(y, reference) < 10 * given["float32_numpy_max_rel_dev"]


def arrivals(delays, lengths, dt, speed=3.0):
    """Lags in steps: what node 0 sends rises by 1 per ms, the others sum up what arrives (Euler, no decay)."""
    n = len(lengths) + 1
    weights, tracts = np.zeros((2, n, n))
    weights[1:, 0], tracts[1:, 0] = 1.0, lengths
    sim = vb.Simulator(
        vb.models.Linear(gamma=0.0),
        vb.Connectome(weights, tracts, speed),
        coupling=vb.coupling.Linear(G=1.0),
        integrator=vb.integrators.Euler(dt=dt),
        delays=delays,
        stimulus=vb.stimuli.Ramp(onset=0.0, duration=1.0, low=1.0, high=1.0, gain=np.eye(n)[0]),
    )
    x = np.asarray(vb.simulate(sim, t1=80 * dt, key=None).ys["raw"]["x"], float)
    return 79 - (x[79] - x[78])[1:] / dt**2


def test_lags_are_rounded_as_tvb_does():
    stored = np.load(GOLDEN / "tvb_conventions.npz")
    lengths, exact, steps = (stored[f"round__{k}"] for k in ("length_mm", "steps_exact", "idelays"))
    with jax.enable_x64(True):
        np.testing.assert_allclose(arrivals(vb.Delays(), lengths, 0.1), steps, atol=1e-9)
        np.testing.assert_allclose(arrivals(vb.Delays(interpolate=True), lengths, 0.1), exact, atol=1e-9)
    tie = np.abs(exact % 1.0 - 0.5) < 1e-6  # halves that float32 cannot tell from their neighbours
    single = arrivals(vb.Delays(), lengths, 0.1)
    np.testing.assert_allclose(single[~tie], steps[~tie], atol=1e-3)
    np.testing.assert_allclose(np.abs(single - exact)[tie], 0.5, atol=1e-3)


def test_halves_that_are_exact_go_to_the_even_number():
    exact = np.arange(12) + 0.5
    np.testing.assert_array_equal(arrivals(vb.Delays(), exact * 0.5, 0.25, speed=2.0), np.rint(exact))


def test_history_equals_that_of_tvb():
    stored = np.load(GOLDEN / "tvb_conventions.npz")
    given = info(stored)["history"]
    with jax.enable_x64(True):
        sim = vb.Simulator(
            vb.models.Linear(gamma=stored["hist__gamma"]),
            vb.Connectome(stored["hist__weights"], stored["hist__tract_lengths"], float(stored["hist__speed"])),
            coupling=vb.coupling.Linear(G=given["a"], offset=given["b"]),
            integrator=vb.Heun(dt=0.05, frozen_coupling=True),
            delays=vb.Delays(max=4.0),  # longer than the history
        )
        history = vb.History(sim.model.State(stored["hist__history"][:, 0]))
        y = vb.simulate(sim, t1=10.0, key=None, init=history).ys["raw"]["x"]
    np.testing.assert_allclose(y, stored["hist__y"][:, 0], rtol=1e-12)


W = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [-0.5, 0.2, 0.4]])
L = np.array(
    [[0.0, 2.36, 0.14], [1.0, 0.0, 0.0], [0.0, 3.06, 1.74]]
)  # lags of 11.8, 0.7, 5, 15.3 and 8.7 steps of 0.1 ms
PAST = 1.0 + np.random.default_rng(0).normal(size=(7, 3)) * 0.5


def small(**parts):
    """Three unlike nodes, asymmetrically wired over unequal distances, speed 2 mm/ms, lags up to 1.53 ms."""
    given = dict(
        model=vb.models.Linear(gamma=[-0.5, -0.8, -1.1]),
        connectome=vb.Connectome(W, L, 2.0),
        coupling=vb.coupling.Difference(G=0.7),
        integrator=vb.Heun(dt=0.1),
        delays=vb.Delays(),
    )
    return vb.Simulator(**(given | parts))


def spline(samples, at, derivative=0):
    """Piecewise cubic through samples at 0, 1, ... with central slopes, those of a parabola at the ends."""
    slopes = np.gradient(np.asarray(samples), edge_order=2)
    return CubicHermiteSpline(np.arange(len(samples)), samples, slopes)(at, derivative)


def scalar_heun(lengths, interpolate, steps, dt=0.1):
    """The same network with loops over nodes and a growing list of the past; 7 rows of it before time zero."""
    past, gamma = [list(row) for row in PAST], [-0.5, -0.8, -1.1]

    def drift(k, stage, state):
        def known(m, j):
            return state[j] if m == k + stage else past[max(m + 6, 0)][j]

        def sent(i, j):
            lag = lengths[i, j] / 2.0 / dt
            when = k + stage - (lag if interpolate else round(lag))
            below = int(np.floor(when))
            share = when - below
            if interpolate == "cubic":
                first = min(below - 1, k + stage - 2)
                return spline([known(m, j) for m in range(first, min(below + 2, k + stage) + 1)], when - first)
            return (1 - share) * known(below, j) + (share * known(below + 1, j) if share else 0.0)

        return [
            gamma[i] * state[i] + 0.7 * sum(W[i, j] * (sent(i, j) - state[i]) for j in range(3) if W[i, j])
            for i in range(3)
        ]

    for k in range(steps):
        x = past[-1]
        first = drift(k, 0, x)
        second = drift(k, 1, [a + dt * b for a, b in zip(x, first, strict=True)])
        past.append([a + dt * (b + c) / 2 for a, b, c in zip(x, first, second, strict=True)])
    return np.array(past[7:])


@pytest.mark.parametrize("interpolate", [False, True, "cubic"])
def test_equals_scalar_loops_with_unequal_lengths(interpolate):
    with jax.enable_x64(True):
        sim = small(delays=vb.Delays(interpolate=interpolate))
        y = vb.simulate(sim, t1=5.0, key=None, init=vb.History(sim.model.State(PAST))).ys["raw"]["x"]
        y = np.asarray(y)
    np.testing.assert_allclose(y, scalar_heun(L, interpolate, 50), rtol=1e-11)
    for other in (L.T, L + 0.2):  # the other way round, a step late
        assert np.abs(y - scalar_heun(other, interpolate, 50)).max() > 1e-3


@pytest.mark.parametrize(
    ("integrator", "interpolate"),
    [
        (vb.Heun(dt=0.1), False),
        (vb.integrators.RungeKutta4(dt=0.1), "cubic"),
        (vb.Heun(dt=0.1, frozen_coupling=True), True),
    ],
)
def test_without_length_there_is_no_delay(integrator, interpolate):
    nothing = dict(connectome=vb.Connectome(W, 0.0 * L), integrator=integrator)
    init = {"x": jnp.array([1.0, -2.0, 0.5])}
    delayed, instant = (
        vb.simulate(small(delays=d, **nothing), t1=3.0, key=None, init=init).ys["raw"]["x"]
        for d in (vb.Delays(interpolate=interpolate), None)
    )
    np.testing.assert_allclose(delayed, instant, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("interpolate", [False, True])
def test_a_lag_of_k_steps_is_the_input_k_steps_later(interpolate):
    """Node 1 hears node 0, whom nobody drives but a stimulus; with Euler nothing else changes."""
    weights, lengths = np.array([[0.0, 0.0], [0.7, 0.0]]), np.array([[0.0, 9.0], [1.3, 0.0]])
    wave = vb.stimuli.Sinusoid(frequency=300.0, amplitude=1.0, gain=[1.0, 0.0], phase=0.5)
    parts = dict(model=vb.models.Linear(gamma=[-0.5, -0.8]), coupling=vb.coupling.Linear(G=1.0), stimulus=wave)
    with jax.enable_x64(True):
        late, now = (
            vb.simulate(
                small(
                    connectome=vb.Connectome(weights, lengths, 1.0),
                    delays=d,
                    integrator=vb.integrators.Euler(dt=0.1),
                    **parts,
                ),
                t1=8.0,
                key=None,
            ).ys["raw"]["x"]
            for d in (vb.Delays(interpolate=interpolate), None)
        )
    np.testing.assert_allclose(late[:, 0], now[:, 0], rtol=1e-12)
    np.testing.assert_allclose(late[:13, 1], 0.0, atol=1e-12)
    np.testing.assert_allclose(late[13:, 1], now[:-13, 1], rtol=1e-9, atol=1e-12)
    assert np.abs(now[:, 1]).max() > 0.1


def test_cubic_delays_are_a_spline_of_what_was_sent_whose_slope_has_no_jumps():
    """One Euler step of nodes that hear node 0, a lag each: at, beside and between whole steps, also below one."""
    sent = np.random.default_rng(4).normal(size=14)
    beside = np.arange(11.0)[:, None] + np.array([-1e-9, 0.0, 1e-9])
    lags = np.sort(np.concatenate([beside[beside >= 0.0], np.random.default_rng(5).uniform(0.0, 10.0, 30)]))
    n = len(lags) + 1
    from_first = np.where((np.arange(n)[:, None] > 0) & (np.arange(n) == 0), 1.0, 0.0)

    def arriving(lags, interpolate):
        sim = vb.Simulator(
            vb.models.Linear(gamma=0.0),
            vb.Connectome(from_first, jnp.zeros((n, n)).at[1:, 0].set(lags * 0.3), 3.0),
            coupling=vb.coupling.Linear(G=1.0),
            integrator=vb.integrators.Euler(dt=0.1),
            delays=vb.Delays(max=1.0 + 2e-10, interpolate=interpolate),
        )
        past = vb.History(sim.model.State(np.where(np.arange(n) == 0, sent[:, None], 0.0)))
        return vb.simulate(sim, t1=0.1, key=None, init=past).ys["raw"]["x"][0, 1:] / 0.1

    with jax.enable_x64(True):
        value = np.asarray(arriving(lags, "cubic"))
        slope = np.asarray(jax.vjp(lambda lags: arriving(lags, "cubic"), jnp.asarray(lags))[1](jnp.ones(n - 1))[0])
        chord = np.asarray(jax.vjp(lambda lags: arriving(lags, True), jnp.asarray(lags))[1](jnp.ones(n - 1))[0])
    np.testing.assert_allclose(value, spline(sent, 13.0 - lags), atol=1e-12)
    np.testing.assert_allclose(slope, -spline(sent, 13.0 - lags, 1), atol=1e-7)
    close = np.diff(lags) < 1e-8
    assert np.abs(np.diff(slope)[close]).max() < 1e-7 < 0.5 < np.abs(np.diff(chord)[close]).max()


DELAY = np.load(GOLDEN / "delay.npz")


def delay_equations(a, b, tau, **parts):
    """x' = -a x + b x(t - tau), one node with a connection to itself for each set of parameters; history 1."""
    sim = vb.Simulator(
        vb.models.Linear(gamma=-np.asarray(a)),
        vb.Connectome(np.diag(b), np.diag(tau), 1.0),
        coupling=vb.coupling.Linear(G=1.0),
        **({"delays": vb.Delays(max=2.5, interpolate=True)} | parts),
    )
    return sim, {"x": jnp.ones(len(b))}


def test_the_first_delay_equation_is_a_piecewise_polynomial():
    """x' = -x(t - 1): exact while x is at most quadratic, then an error that falls with dt^2."""
    errors = []
    with jax.enable_x64(True):
        for dt in (0.1, 0.05, 0.025):
            monitors = {"x": vb.monitors.Subsample(0.1, var="x")}
            parts = dict(integrator=vb.Heun(dt=dt), monitors=monitors, delays=vb.Delays())
            sim, init = delay_equations([0.0], [-1.0], [1.0], **parts)
            x = np.asarray(vb.simulate(sim, t1=10.0, key=None, init=init).ys["x"])[:, 0]
            errors.append(np.abs(x - DELAY["dde1__x"][1:]))
            np.testing.assert_allclose(errors[-1][:20], 0.0, atol=1e-12)
    ratio = np.max(errors, axis=1)[:-1] / np.max(errors, axis=1)[1:]
    np.testing.assert_allclose(ratio, 4.0, rtol=0.05)
    assert np.max(errors[-1]) < 1e-4


@pytest.mark.parametrize("integrator", [vb.Heun, vb.integrators.RungeKutta4])
def test_interpolated_lags_are_second_order(integrator):
    """Lags between 8 and 87 steps, no multiples of dt. Rounded lags are worse by far."""
    a, b, tau = DELAY["dde2__cases_a_b_tau"].T
    steps, errors = (130, 520), []
    with jax.enable_x64(True):
        for n in steps:
            parts = dict(integrator=integrator(dt=12.0 / n), monitors={"x": vb.monitors.Subsample(1.2, var="x")})
            sim, init = delay_equations(a, b, tau, **parts)
            x = vb.simulate(sim, t1=12.0, key=None, init=init).ys["x"]
            errors.append(np.abs(x - DELAY["dde2__x"].T[6::6]).max(axis=0))
        sim, init = delay_equations(a, b, tau, **parts | {"delays": vb.Delays()})
        rounded = np.abs(vb.simulate(sim, t1=12.0, key=None, init=init).ys["x"] - DELAY["dde2__x"].T[6::6]).max(axis=0)
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert np.all(np.abs(slope + 2.0) < 0.7)  # the share of a step beyond whole ones changes with dt
    assert np.mean(slope) == pytest.approx(-2.0, abs=0.15)
    assert np.max(rounded) > 30 * np.max(errors[-1])


@pytest.mark.parametrize(("interpolate", "order"), [(True, 1), ("cubic", 2)])
def test_gradients_of_delay_equations(interpolate, order):
    """d x(T) / d(a, b, tau): second order in dt for a and b; first for tau where its slope is that of a chord."""

    def ends(a, b, tau, dt):
        parts = dict(integrator=vb.Heun(dt=dt), monitors={"x": vb.monitors.Subsample(0.1, var="x")})
        parts["delays"] = vb.Delays(max=2.5, interpolate=interpolate)
        sim, init = delay_equations(np.ones(4), np.ones(4), np.ones(4), **parts)
        theta = {"model.gamma": -a, "connectome.weights": jnp.diag(b), "connectome.tract_lengths": jnp.diag(tau)}
        x = vb.simulate(vb.bind(sim, theta), t1=9.1, key=None, init=init).ys["x"]
        return x[jnp.array([22, 56, 90])].sum(axis=1)  # no node hears another

    with jax.enable_x64(True):
        coarse, fine = (
            np.stack(jax.jacrev(ends, (0, 1, 2))(*(jnp.asarray(v) for v in DELAY["dde2__cases_a_b_tau"].T), dt))
            for dt in (0.02, 0.01)
        )
    expected = DELAY["dde2__grad_da_db_dtau"].transpose(2, 1, 0)
    coarse, fine = np.abs(coarse - expected).max(axis=1), np.abs(fine - expected).max(axis=1)
    for k, slope in enumerate((2, 2, order)):
        np.testing.assert_allclose(coarse[k] / fine[k], 2.0**slope, rtol=0.1)
    assert np.all(fine / np.abs(expected).max(axis=1) < [[1e-3], [1e-3], [1e-2]])


def locked(steps, interpolate=True):
    """Frequencies of six pairs of oscillators with `steps` steps in 20 ms, their slopes with respect to the lag and
    the natural frequency, and those of their sum with respect to speed and G; in one network of twelve nodes.
    """
    pair = np.array([[0.0, 1.0], [1.0, 0.0]])
    sim = vb.Simulator(
        vb.models.Kuramoto(omega=np.full(12, float(DELAY["kur__omega"]))),
        vb.Connectome(np.kron(np.eye(6), pair), np.kron(np.diag(DELAY["kur__grad_tau"]), 2.0 * pair), 2.0),
        coupling=vb.coupling.Kuramoto(G=float(DELAY["kur__G"])),
        integrator=vb.Heun(dt=20.0 / steps),
        delays=vb.Delays(interpolate=interpolate),
        monitors={"theta": vb.monitors.Subsample(20.0, var="theta")},
    )

    def frequencies(theta):
        phase = vb.simulate(vb.bind(sim, theta), t1=80.0, key=None).ys["theta"]
        return (phase[-1] - phase[-2]) / 20.0

    names = ("connectome.tract_lengths", "connectome.speed", "coupling.G", "model.omega")
    value, pull = jax.vjp(frequencies, {name: vb.paths(sim)[name].value for name in names})
    slopes = {name: np.asarray(v) for name, v in pull(jnp.tile(jnp.array([1.0, 0.0]), 6))[0].items()}
    by_lag = 2.0 * slopes["connectome.tract_lengths"].reshape(6, 2, 6, 2).sum(axis=(1, 3)).diagonal()
    by_omega = slopes["model.omega"].reshape(6, 2).sum(axis=1)
    return np.asarray(value)[::2], by_lag, by_omega, slopes["connectome.speed"], slopes["coupling.G"]


def test_frequency_of_locked_oscillators_and_its_gradients():
    """Omega = omega - G sin(Omega tau): second order in dt, and so are its slopes, but for that with the lag.

    The slope of a chord is that of the curve in its middle: lags of k + 1/2 steps are second order, others first.
    """
    tau, exact = DELAY["kur__grad_tau"], [DELAY[f"kur__{k}"] for k in ("grad_Omega", "dOmega_dtau", "dOmega_domega")]
    exact += [-(DELAY["kur__dOmega_dtau"] * tau).sum() / 2.0, DELAY["kur__dOmega_dG"].sum()]
    with jax.enable_x64(True):
        coarse, fine = ([np.abs(a - b) for a, b in zip(locked(n), exact, strict=True)] for n in (130, 530))
    moving, middle = np.array([0, 1, 2, 4, 5]), np.array([1, 5])  # the fourth lag is a whole number of steps
    assert max(coarse[0][3], coarse[2][3]) < 1e-12
    for k, where in ((0, moving), (1, middle), (2, moving)):
        np.testing.assert_allclose(coarse[k][where] / fine[k][where], (530 / 130) ** 2, rtol=0.05)
    np.testing.assert_allclose(np.delete(coarse[1] / fine[1], middle), 530 / 130, rtol=0.05)
    assert np.all(np.array([np.max(error) for error in fine]) < [1e-4, 3e-3, 1e-3, 5e-3, 2e-5])


def test_cubic_delays_give_every_slope_of_locked_oscillators_to_second_order():
    """Also those with the lag and the speed, which are first order and ten times as far off with chords."""
    tau, by_lag = DELAY["kur__grad_tau"], DELAY["kur__dOmega_dtau"]
    by_speed = -(by_lag * tau).sum() / 2.0
    with jax.enable_x64(True):
        runs = [locked(n, "cubic") for n in (130, 530)]
    coarse, fine = (np.array([*np.abs(run[1] - by_lag), abs(run[3] - by_speed)]) for run in runs)
    assert np.all(fine[:-1] < 5e-5)
    assert fine[-1] < 1e-4
    assert np.all(coarse / fine > 15.0)  # some have next to no error of second order
    assert coarse[-1] / fine[-1] == pytest.approx((530 / 130) ** 2, rel=0.05)


MPR = vb.models.MontbrioPazoRoxin
MONITORS = {
    "raw": vb.monitors.Raw(),
    "mean": vb.monitors.TimeAverage(0.4),
    "sub": vb.monitors.Subsample(0.6, var="r"),
    "bold": vb.monitors.BalloonWindkessel("r", period=1.2, step=0.3),
    "hrf": vb.monitors.HRF("r", period=1.2, step=0.3),
    "eeg": vb.monitors.EEG([[1.0, -0.5, 0.2]], var="V", period=0.8),
    "fc": vb.monitors.RunningFC("V", period=2.4),
}


@pytest.mark.parametrize(
    ("noise", "monitors", "pieces"),
    [
        (vb.noise.Additive({"r": 0.02, "V": 0.1}), ("sub", "bold", "hrf", "eeg", "fc"), (1.3, 6.7)),
        (vb.noise.Coloured({"V": 0.3}, tau=2.0), ("raw", "mean"), (0.1, 2.5, 5.4)),
    ],
)
def test_in_pieces_equals_in_one_go_bit_for_bit(noise, monitors, pieces):
    sim = small(
        model=MPR(eta=[-5.0, -4.6, -4.0]),
        delays=vb.Delays(interpolate=True),
        stimulus=vb.stimuli.PulseTrain(onset=0.35, duration=0.5, interval=1.7, amplitude=2.0, gain=[1.0, 0.0, -0.3]),
        noise=noise,
        monitors={name: MONITORS[name] for name in monitors},
    )
    key, rows = jax.random.key(3), np.random.default_rng(1).uniform(0.1, 0.5, (5, 3))
    init = vb.History(MPR.State(rows, -4.0 * rows))
    whole, parts, final = vb.simulate(sim, t1=8.0, key=key, init=init), [], init
    for t1 in pieces:
        parts.append(vb.simulate(sim, t1=t1, key=key, init=final))
        final = parts[-1].final
    joined = jax.tree.map(lambda *a: np.concatenate(a), *({"y": p.ys, "t": p.ts} for p in parts))
    jax.tree.map(np.testing.assert_array_equal, joined, {"y": whole.ys, "t": whole.ts})
    for one, last in zip(jax.tree.leaves(whole.final), jax.tree.leaves(final), strict=True):
        np.testing.assert_array_equal(one, last)


def test_what_is_under_way_does_not_grow_with_time():
    sim = small(delays=vb.Delays(max=4.0))
    for t1 in (0.5, 50.0):
        final = vb.simulate(sim, t1=t1, key=None).final
        assert [a.shape for a in final.carry.buffers[0].ring] == [
            (42, 3)
        ]  # 4 ms of 0.1 ms, both ends, and one to write
        assert sum(a.size for a in jax.tree.leaves(final)) < 150


def forward(summary=jnp.ravel, t1=2.0, init=None, **parts):
    """The three nodes with noise; by default x is the whole trajectory."""
    monitors = {"x": vb.monitors.Subsample(0.2, var="x")}
    given = dict(noise=vb.noise.Additive(sigma=0.3), monitors=monitors, delays=vb.Delays(max=4.0))
    return vb.ForwardModel(small(**given | parts), t1=t1, summary=summary, init=init)


def drawn(names, n, seed=5):
    """`n` draws of the named parameters; every draw has its own zero weight, and lags from 0 to 40 steps."""
    rng = np.random.default_rng(seed)
    weights = np.where(rng.uniform(size=(n, 3, 3)) < 0.2, 0.0, rng.normal(0.4, 0.5, (n, 3, 3)))
    lengths = np.where(L > 0, L, 0.0) * rng.uniform(0.0, 2.0, (n, 3, 3)) + rng.uniform(0.0, 0.1, (n, 3, 3)) * (L == 0)
    values = {
        "connectome.weights": weights,
        "connectome.tract_lengths": lengths,
        "connectome.speed": rng.uniform(1.4, 40.0, n),
        "coupling.G": rng.uniform(0.3, 0.9, n),
        "model.gamma": rng.uniform(-1.0, -0.2, (n, 3)),
    }
    return {name: jnp.asarray(values[name]) for name in names}


WEIGHTS, LENGTHS, SPEED = "connectome.weights", "connectome.tract_lengths", "connectome.speed"


@pytest.mark.parametrize(
    ("names", "n", "interpolate"),
    [
        (("coupling.G", "model.gamma"), 3, True),
        ((SPEED, "coupling.G"), 3, True),
        ((SPEED,), 4, False),
        ((LENGTHS,), 3, False),
        ((WEIGHTS,), 3, False),
        ((WEIGHTS, LENGTHS, SPEED, "model.gamma"), 3, True),
        ((WEIGHTS, LENGTHS, SPEED, "model.gamma"), 4, False),
        ((WEIGHTS, SPEED), 4, "cubic"),
    ],
)
def test_a_batch_is_its_draws(names, n, interpolate):
    """With as many draws as nodes, and with another number of them."""
    with jax.enable_x64(True):
        init = vb.History(vb.models.Linear.State(PAST))
        fwd = forward(delays=vb.Delays(max=4.0, interpolate=interpolate), init=init)
        theta, keys = drawn(names, n), jax.random.split(jax.random.key(1), n)
        x = np.asarray(fwd.batch(theta, keys))
        single = np.stack([fwd({k: v[b] for k, v in theta.items()}, keys[b]) for b in range(n)])
    np.testing.assert_allclose(x, single, rtol=1e-9, atol=1e-12)
    assert np.abs(np.diff(x, axis=0)).max(axis=1).min() > 0.01


FAR = 12
"""Nodes of a network whose lags are 9.5 to 30 steps of 0.1 ms, but three; nodes 4 and 7 hear themselves."""


def far(sparse=False, **parts):
    rng = np.random.default_rng(8)
    weights, lengths = rng.normal(0.1, 0.3, (FAR, FAR)), rng.uniform(1.9, 6.0, (FAR, FAR))
    weights[np.diag_indices(FAR)] = lengths[np.diag_indices(FAR)] = 0.0
    lengths[[0, 5, 9], [3, 1, 2]] = 0.13, 0.45, 0.9  # 0.65, 2.25 and 4.5 steps
    weights[[4, 7], [4, 7]] = 0.5, -0.4
    if sparse:  # node 2 hears nobody, node 6 all the others, the rest unequal numbers
        heard = rng.random((FAR, FAR)) < 0.9
        heard[[0, 5, 9], [3, 1, 2]] = heard[[4, 7], [4, 7]] = heard[6] = True
        weights = weights * heard * (np.arange(FAR) != 2)[:, None]
    connectome = vb.Connectome(weights, lengths, 2.0)
    given = dict(
        model=vb.models.Linear(gamma=rng.uniform(-1.2, -0.6, FAR)),
        connectome=connectome.sparse() if sparse else connectome,
        monitors={"x": vb.monitors.Subsample(0.7, var="x"), "mean": vb.monitors.TimeAverage(0.5)},
    )
    return small(**given | parts)


@pytest.mark.parametrize(
    ("interpolate", "block", "monitors", "sparse"),
    [
        (False, (9, 3), None, False),
        (False, (9, 3), None, True),
        (True, (9, 4), {"x": vb.monitors.Raw("x")}, False),
        ("cubic", (8, 4), {"x": vb.monitors.Subsample(2.3, var="x")}, False),
        ("cubic", (7, 3), {"x": vb.monitors.Subsample(2.3, var="x")}, True),
    ],
)
def test_signals_read_in_blocks_are_those_read_step_by_step(interpolate, block, monitors, sparse):
    """A batch reads 9 steps at once, or what fits between samples, and the shortest lags one by one."""
    rng, n = np.random.default_rng(9), 5
    with jax.enable_x64(True):
        sim = far(
            sparse,
            delays=vb.Delays(max=4.0, interpolate=interpolate),
            noise=vb.noise.Additive(sigma=0.3),
            **({} if monitors is None else {"monitors": monitors}),
        )
        assert (sim.delays.ahead, sim.delays.near) == block
        init = vb.History(sim.model.State(rng.normal(1.0, 0.5, (9, FAR))))
        theta = {"coupling.G": jnp.asarray(rng.uniform(0.3, 0.9, n))}
        if interpolate is True:
            weights = np.asarray(sim.connectome.weights)
            theta[WEIGHTS] = jnp.asarray(weights * rng.uniform(0.5, 1.5, (n, *(1,) * weights.ndim)))
        keys, summary = jax.random.split(jax.random.key(1), n), {"x": jnp.ravel}
        # bound anew: another number of short lags than at construction
        bound = [sim] if monitors else [sim, vb.bind(sim, {LENGTHS: 0.6 * sim.connectome.tract_lengths})]
        for one in bound:
            fwd = vb.ForwardModel(one, t1=9.7, summary=summary, init=init)
            x = np.asarray(fwd.batch(theta, keys))
            single = np.stack([fwd({k: v[b] for k, v in theta.items()}, keys[b]) for b in range(n)])
            np.testing.assert_allclose(x, single, rtol=1e-9, atol=1e-12)
        at_once = far(sparse, delays=None, monitors=sim.monitors, noise=sim.noise)
        rounded = vb.ForwardModel(at_once, t1=9.7, summary=summary)
        assert np.abs(np.asarray(rounded.batch(theta, keys)) - x).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_of_a_batch_read_in_blocks(sparse):
    """With respect to what the draws share: weights, G and, through the slopes of a cubic, speed."""
    with jax.enable_x64(True):
        sim = far(
            sparse, delays=vb.Delays(max=4.0, interpolate="cubic"), monitors={"x": vb.monitors.Subsample(1.9, var="x")}
        )
        keys = jax.random.split(jax.random.key(1), 3)
        starts = {"init.x": jnp.asarray(np.random.default_rng(2).normal(1.0, 0.5, (3, FAR)))}
        names = (WEIGHTS, SPEED, "coupling.G")

        def total(shared, together):
            fwd = vb.ForwardModel(vb.bind(sim, shared), t1=5.7, summary=jnp.ravel)
            if together:
                return (fwd.batch(starts, keys) ** 2).sum()
            return (jax.vmap(fwd)(starts, keys) ** 2).sum()

        shared = {name: vb.paths(sim)[name].value for name in names}
        blocks, steps = (jax.grad(total)(shared, together) for together in (True, False))
    for name in names:
        np.testing.assert_allclose(blocks[name], steps[name], rtol=1e-8, atol=1e-10)


def test_the_longest_lag_of_a_connection_is_the_bound():
    assert small().delays.max == pytest.approx(1.53)
    far = np.where(W == 0.0, 100.0, L)  # distances between nodes without a connection do not count
    assert small(connectome=vb.Connectome(W, far, 2.0)).delays.max == pytest.approx(1.53)


def in_study(interpolate):
    """The simulator of a study file."""
    table = {
        "model": {"name": "Linear"},
        "coupling": {"name": "Linear", "G": 0.5},
        "integrator": {"name": "Heun", "dt": 0.1},
        "delays": {"max": 4.0, "interpolate": interpolate},
        "t1": 1.0,
    }
    return read_simulator(table, vb.Connectome(W, L, 2.0), Path())[0]


def test_study_files_say_how_lags_are_interpolated():
    assert [in_study(how).delays.interpolate for how in (False, True, "cubic")] == [False, True, "cubic"]


MISTAKES = [
    (
        lambda: small(delays=vb.Delays(max=1.4)),
        ValueError,
        r"longest delay is 1\.53 ms but .*max=1\.4\); .* least 1\.6",
    ),
    (lambda: vb.bind(small(), {SPEED: 1.0}), ValueError, "set max to at least 3.1"),
    (lambda: vb.bind(small(), {LENGTHS: 2 * L}), ValueError, "set max to at least 3.1"),
    (lambda: vb.bind(small(), {SPEED: 0.0}), ValueError, "above 0"),
    (lambda: vb.bind(small(), {SPEED: -3.0}), ValueError, "must lie in"),
    (lambda: vb.bind(small(), {LENGTHS: -L}), ValueError, "must lie in"),
    (lambda: vb.Delays(max=True), ValueError, "max=True was given; expected a number of ms"),
    (lambda: in_study("spline"), StudyError, "'spline'.* was given; expected False"),
    (lambda: vb.Delays(interpolate="spline"), TypeError, "'spline'.* was given; expected False .*\"cubic\""),
    (lambda: vb.Delays(max=-1.0), ValueError, "0 or more"),
    (lambda: vb.Delays(max=np.nan), ValueError, "0 or more"),
    (lambda: small(connectome=None, coupling=None), ValueError, "without a connectome"),
    (lambda: vb.simulate(small(), t1=1.0, key=None, init=vb.History(None)), TypeError, "History holds"),
    (
        lambda: vb.simulate(small(), t1=1.0, key=None, init=vb.History(vb.models.Linear.State(np.ones(3)))),
        ValueError,
        r"expected \[H, 3\]",
    ),
    (
        lambda: vb.simulate(
            small(delays=vb.Delays(4.0)), t1=1.0, key=None, init=vb.simulate(small(), t1=1.0, key=None).final
        ),
        ValueError,
        r"init=final\.state",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "values", "good", "interpolate"),
    [
        (
            SPEED,
            [0.7, 2.0, 0.0, 0.77, -2.0, np.nan, np.inf],
            [0, 1, 0, 1, 0, 0, 1],
            False,
        ),  # 3.06 mm in 4 ms: 0.765 mm/ms
        (LENGTHS, [L, 2 * L, 3 * L, np.where(W == 0.0, 1e6, L), L * np.nan, -L], [1, 1, 0, 1, 0, 0], False),
        (LENGTHS, [L, 2 * L, 3 * L, np.where(W == 0.0, 1e6, L), L * np.nan, -L], [1, 1, 0, 1, 0, 0], True),
        (WEIGHTS, [W, 2 * W, np.where(W == 0.9, np.nan, W)], [1, 1, 0], True),
    ],
)
def test_a_draw_that_does_not_fit_fails_alone(name, values, good, interpolate):
    fwd = forward(delays=vb.Delays(max=4.0, interpolate=interpolate))
    x = fwd.batch({name: jnp.asarray(np.stack(values))}, jax.random.split(jax.random.key(0), len(values)))
    np.testing.assert_array_equal(np.isfinite(x).all(axis=1), np.array(good, bool))
    for value, fits in zip(values, good, strict=True):
        alone = fwd({name: jnp.asarray(value)}, jax.random.key(0))
        assert bool(np.isfinite(alone).all()) == bool(fits), value


def test_a_connection_that_only_some_draws_have_may_be_too_long_for_those_alone():
    """The base network lacks the long connection; draws with it fail, the others do not."""
    far = np.where(W == 0.0, 50.0, L)
    fwd = forward(connectome=vb.Connectome(W, far, 2.0))
    weights = np.stack([W, W + 0.1, 2 * W])
    x = fwd.batch({WEIGHTS: jnp.asarray(weights)}, jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(np.isfinite(x).all(axis=1), [True, False, True])


def test_stationary_covariance_of_a_delayed_network_is_the_spectral_integral():
    """Within 5 standard errors in every entry; without delays it would be 0.13 off."""
    stored = np.load(GOLDEN / "linear_ou.npz")
    sim = vb.Simulator(
        vb.models.Linear(gamma=-stored["n6__gamma"]),
        vb.Connectome(stored["n6__W"], stored["n6__delays"], 1.0),
        coupling=vb.coupling.Linear(G=float(stored["n6__G"])),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(stored["n6__sigma"]),
        delays=vb.Delays(interpolate=True),
        monitors={"x": vb.monitors.Subsample(8.0, var="x")},
    )
    draws = 2_000
    fwd = vb.ForwardModel(sim, t1=56.0, transient=16.0, summary=jnp.ravel)
    x = fwd.batch({"coupling.G": jnp.full(draws, sim.coupling.G)}, jax.random.split(jax.random.key(0), draws))
    x = np.asarray(x, float).reshape(-1, 6)
    expected = stored["n6__cov_delayed"]
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / (len(x) / 1.2))
    assert np.all(np.abs(x.T @ x / len(x) - expected) < 5 * error)
    assert np.abs(expected - stored["n6__cov"]).max() > 10 * error.max()
