"""Measurement models: covariances in closed form, keys, batches, gradients, study files."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.measurement import Chain, Drift, Gain, GlobalSignal, LineNoise, MotionSpikes, Reference, Thermal

T, N, PERIOD, MANY = 16, 3, 720.0, 4_000
TIME = np.arange(T)
SIGNAL = np.stack([5.0 + np.sin(TIME), -3.0 + 0.5 * np.cos(1.7 * TIME), 0.2 * TIME], axis=1)
SD = SIGNAL.std(axis=0).mean()  # ddof 0, the mean over channels
EYE = np.eye(N)


def realisations(part, n=MANY, signal=SIGNAL, seed=0):
    """What a part adds to the signal, `[n, T, N]`, in float64."""
    keys = jax.random.split(jax.random.key(seed), n)
    run = jax.jit(jax.vmap(lambda key: Chain({"part": part})(jnp.asarray(signal, jnp.float32), PERIOD, key)))
    return np.asarray(run(keys), np.float64) - signal


def global_covariance(part):
    lag = np.abs(TIME[:, None] - TIME[None])
    over_time = np.exp(-lag * PERIOD / float(part.tau))
    gain = np.broadcast_to(np.asarray(part.gain), N)
    return np.einsum("ts,ij->tisj", over_time, np.outer(gain, gain) + float(part.spread) ** 2 * EYE)


def drift_covariance(k_max):
    waves = [np.cos(np.pi * k * (TIME + 0.5) / T) for k in range(1, k_max + 1)]
    return np.einsum("ts,ij->tisj", sum(np.outer(c, c) for c in waves) * 2.0 / k_max, EYE)


def line_covariance(part):
    turn = 2.0 * np.pi * float(part.frequency) * PERIOD / 1000.0 * (TIME[:, None] - TIME[None])
    return np.einsum("ts,ij->tisj", np.cos(turn), 1.0 + float(part.spread) ** 2 * EYE)


WHITE = np.einsum("ts,ij->tisj", np.eye(T), EYE)
HIT = 1.0 - np.exp(-20.0 * PERIOD / 60_000.0)
GLOBAL = GlobalSignal(amplitude=0.8, spread=0.7, tau=2_500.0, gain=[1.0, 0.5, -0.3])
HUM = LineNoise(amplitude=0.6, frequency=0.31, spread=0.4)
COVARIANCES = {
    "global": (GLOBAL, 0.8**2 * global_covariance(GLOBAL)),
    "thermal": (Thermal(amplitude=[0.2, 0.5, 1.1]), WHITE * np.array([0.04, 0.25, 1.21])),
    "drift": (Drift(amplitude=0.7, cutoff=2 * T * PERIOD / 3.4), 0.49 * drift_covariance(3)),
    "spikes": (MotionSpikes(amplitude=2.0, rate=20.0), 4.0 * HIT * WHITE),
    "line": (HUM, 0.36 * line_covariance(HUM)),
}


@pytest.mark.parametrize("name", COVARIANCES)
def test_what_a_part_adds_has_its_covariance_and_mean_zero(name):
    """Each entry within 5.5 of its own Monte-Carlo standard errors, of up to 1,176 entries."""
    part, expected = COVARIANCES[name]
    added = realisations(part).reshape(MANY, -1) / SD
    mean_error = added.std(axis=0) / np.sqrt(MANY) + 1e-6
    assert np.abs(added.mean(axis=0) / mean_error).max() < 5.0
    for row, exact in zip(added.T, expected.reshape(T * N, T * N), strict=True):
        products = row[:, None] * added
        error = products.std(axis=0) / np.sqrt(MANY) + 1e-5
        assert np.abs((products.mean(axis=0) - exact) / error).max() < 5.5


def test_the_global_signal_is_one_course_with_stationary_steps():
    added = realisations(GLOBAL, n=200)
    singular = np.linalg.svd(added, compute_uv=False)
    assert (singular[:, 1] < 1e-5 * singular[:, 0]).all()
    slow = realisations(GlobalSignal(amplitude=1.0, spread=0.0, tau=1e9), n=400)[:, :, 0] / SD
    # rho = 1 - 7e-7, which float32 cannot hold: a random walk of sd sqrt(1 - rho^2) = 1.2e-3 from a standard normal
    steps = np.diff(slow, axis=1)
    assert 0.9 < steps.std() / np.sqrt(2 * PERIOD / 1e9) < 1.1
    assert 0.85 < slow[:, 0].std() < 1.15


def test_drift_has_no_mean_and_its_variance_over_time():
    added = realisations(Drift(amplitude=0.5, cutoff=PERIOD * T), n=3_000)
    assert np.abs(added.mean(axis=1)).max() < 1e-5
    variance = (added**2).mean(axis=1).ravel()  # mean over K = 2 cosines of chi-squared of one degree
    assert variance.mean() / SD**2 == pytest.approx(0.25, abs=5 * variance.std() / SD**2 / np.sqrt(len(variance)))
    left = vb.features.detrend(order=0)(jnp.asarray(added[0], jnp.float32), PERIOD)
    assert np.abs(np.asarray(left) - added[0]).max() < 1e-5


def test_spikes_hit_all_channels_at_once_as_often_as_the_rate_says():
    binary = np.round(8.0 * SIGNAL) / 8.0  # exact in float32: what is not hit stays to the bit
    hit = realisations(MotionSpikes(amplitude=2.0, rate=20.0), signal=binary) != 0.0
    assert (hit.all(axis=2) == hit.any(axis=2)).all()
    assert hit[:, :, 0].mean() == pytest.approx(HIT, abs=5 * np.sqrt(HIT * (1 - HIT) / (MANY * T)))
    assert not realisations(MotionSpikes(rate=0.0), n=4, signal=binary).any()


def test_line_noise_is_one_line_of_the_spectrum():
    period, f = 2.0, 50.0  # a bin of 400 samples
    y = jnp.asarray(np.random.default_rng(0).normal(2.0, 1.0, (400, 2)), jnp.float32)
    added = np.asarray(Chain({"line": LineNoise(amplitude=0.5, frequency=f)})(y, period, jax.random.key(3)) - y)
    power = np.abs(np.fft.rfft(added.astype(float), axis=0)) ** 2 / 400**2 * 2.0
    place = round(f * 400 * period / 1000.0)
    sd = np.asarray(y, float).std(axis=0).mean()
    np.testing.assert_allclose(power[place], (0.5 * sd) ** 2, rtol=1e-3)
    assert np.delete(power, place, axis=0).max() < 1e-6 * power[place].min()


def test_gain_and_offset_of_channels():
    y, key = jnp.asarray(SIGNAL, jnp.float32), jax.random.key(1)
    exact = Chain({"gain": Gain(gain=[1.0, 2.0, -0.5], offset=[0.0, 1.0, 3.0])})(y, PERIOD, key)
    np.testing.assert_allclose(exact, SIGNAL * [1.0, 2.0, -0.5] + [0.0, 1.0, 3.0], rtol=1e-6)
    level = np.full((T, N), 2.0) + np.sin(TIME)[:, None]
    logs = np.log(1.0 + realisations(Gain(spread=0.3), n=3_000, signal=level) / level)[:, 1]
    assert logs.std() == pytest.approx(0.3, rel=5 / np.sqrt(2 * logs.size))
    assert logs.mean() == pytest.approx(0.0, abs=5 * 0.3 / np.sqrt(logs.size))


def test_a_reference_takes_its_noise_into_every_channel():
    y, key = jnp.asarray(SIGNAL, jnp.float32), jax.random.key(1)
    of_all = Chain({"reference": Reference()})(y, PERIOD, key)
    np.testing.assert_allclose(of_all, SIGNAL - SIGNAL.mean(axis=1, keepdims=True), atol=2e-6)
    one = Chain({"reference": Reference(channel=2)})(y, PERIOD, key)
    np.testing.assert_allclose(one, SIGNAL - SIGNAL[:, 2:], atol=2e-6)
    noise = realisations(Reference(amplitude=0.4, channel=2), n=2_000) + SIGNAL[:, 2:]
    assert np.ptp(noise, axis=2).max() < 1e-5
    noise = noise[:, :, 2] / SD
    assert noise.std() == pytest.approx(0.4, rel=5 / np.sqrt(2 * noise.size))
    assert np.mean(noise[:, 1:] * noise[:, :-1]) == pytest.approx(0.0, abs=5 * 0.16 / np.sqrt(noise[:, 1:].size))


def test_randomness_follows_the_name_of_a_part_and_the_draw():
    y = jnp.zeros((T, N)) + jnp.asarray(SIGNAL, jnp.float32)
    measured = jax.jit(lambda chain, key: chain(y, PERIOD, key))
    run = lambda parts, key=0: np.asarray(measured(Chain(parts), jax.random.key(key))) - SIGNAL  # noqa: E731
    white, slow = Thermal(amplitude=1.0), GlobalSignal(amplitude=1.0, spread=0.0)
    alone, other = run({"white": white}), run({"slow": slow})
    both, turned = run({"white": white, "slow": slow}), run({"slow": slow, "white": white})
    np.testing.assert_allclose(both, alone + other, atol=3e-6)
    np.testing.assert_allclose(turned, both, atol=3e-6)
    assert np.array_equal(run({"white": white}), alone)
    for different in (run({"again": white}), run({"white": white}, key=1)):
        assert abs(np.corrcoef(different.ravel(), alone.ravel())[0, 1]) < 5 / np.sqrt(T * N)
    # the order is that of the mapping, also after jit
    gain = Gain(gain=3.0)
    last = measured(Chain({"white": white, "gain": gain}), jax.random.key(0))
    np.testing.assert_allclose(last, 3.0 * (SIGNAL + alone), atol=1e-5)


def test_a_constant_signal_has_nothing_to_be_relative_to_and_a_finite_gradient():
    chain, y = Chain({"global": GlobalSignal(), "thermal": Thermal()}), jnp.full((T, N), 4.0)
    assert np.array_equal(chain(y, PERIOD, jax.random.key(0)), y)
    grad = jax.jit(jax.grad(lambda y: chain(y, PERIOD, jax.random.key(0)).sum()))(y)
    assert np.isfinite(grad).all()


# ---- in a forward model

CHAIN = {"global": GlobalSignal(amplitude=0.8), "thermal": Thermal(), "gain": Gain()}
NODES = 4
NOISE = vb.noise.Additive(sigma=0.3)


def simulator(monitor=None, noise=NOISE):
    weights = np.array([[0.0, 0.3, 0.1, 0.0], [0.2, 0.0, 0.0, 0.4], [0.0, 0.1, 0.0, 0.2], [0.3, 0.0, 0.1, 0.0]])
    return vb.Simulator(
        vb.models.Linear(gamma=-0.5),
        vb.Connectome(weights),
        coupling=vb.coupling.Linear(G=0.2),
        integrator=vb.Heun(dt=0.5),
        noise=noise,
        monitors={"x": vb.monitors.Subsample(period=2.0, var="x")} if monitor is None else monitor,
    )


def spread_end_and_mean(y):
    return jnp.concatenate([y.std(axis=0), y[-1], y.mean(axis=0)])


def forward(parts=CHAIN, **options):
    options = {"t1": 40.0, "transient": 10.0, "summary": spread_end_and_mean, **options}
    sim = options.pop("sim", None) or simulator()
    return vb.ForwardModel(sim, observe=Chain(parts) if isinstance(parts, dict) else parts, **options)


@pytest.fixture(scope="module")
def fwd():
    return forward()


THETA = {
    "coupling.G": jnp.array([0.1, 0.2, 0.3, 0.15]),
    "observe.global.amplitude": jnp.array([0.0, 0.5, 1.0, 2.0]),
    "observe.global.tau": jnp.array([5.0, 10.0, 20.0, 40.0]),
    "observe.gain.gain": 1.0 + jnp.arange(16.0).reshape(4, 4) / 10.0,
}


def test_a_batch_as_wide_as_the_network_is_its_draws_one_by_one(fwd):
    keys = jax.random.split(jax.random.key(5), 4)
    x, ys = fwd.batch_series(THETA, keys)
    for i in (0, 3):
        one = fwd({name: value[i] for name, value in THETA.items()}, keys[i])
        np.testing.assert_allclose(one, x[i], rtol=2e-4, atol=2e-5)
    # without the measurement the same dynamics: what the chain adds is the chain's alone
    clean = forward(None).batch_series({"coupling.G": THETA["coupling.G"]}, keys)[1]
    own = {name.removeprefix("observe."): value for name, value in THETA.items() if name.startswith("observe")}

    def by_hand(own, y, key):
        return vb.bind(fwd.observe, own)(y, 2.0, jax.random.fold_in(key, 1))

    np.testing.assert_allclose(jax.jit(jax.vmap(by_hand))(own, clean, keys), ys, rtol=2e-4, atol=2e-5)


def test_gradients_of_a_measurement_are_those_of_finite_differences(fwd):
    key, chosen = jax.random.key(2), ("observe.global.amplitude", "observe.global.spread", "observe.thermal.amplitude")
    theta = {"coupling.G": jnp.asarray(0.2), **dict.fromkeys(chosen, jnp.asarray(0.6)), "observe.global.tau": 8.0}
    theta = {name: jnp.asarray(value, jnp.float32) for name, value in theta.items()}
    loss = jax.jit(lambda theta: jnp.sum(fwd(theta, key) ** 2))
    exact = jax.jit(jax.grad(loss))(theta)
    for name, value in theta.items():
        h = 0.02 * float(value)
        ends = [float(loss({**theta, name: value + sign * h})) for sign in (1.0, -1.0)]
        assert float(exact[name]) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=0.03, abs=2e-3)
        assert float(exact[name]) != 0.0


def test_a_draw_out_of_a_parts_range_is_a_failed_draw(fwd):
    theta = {"observe.global.amplitude": jnp.array([-0.1, 0.1])}
    x = fwd.batch(theta, jax.random.split(jax.random.key(0), 2))
    assert np.isnan(x[0]).all()
    assert np.isfinite(x[1]).all()
    prior = vb.Prior({"observe.thermal.amplitude": dist.Normal(0.1, 1.0)})
    with pytest.raises(ValueError, match=r"observe\.thermal\.amplitude"):
        vb.sample_prior_predictive(prior, fwd, 4, key=jax.random.key(0))


def test_paths_units_ranges_and_fingerprint(fwd):
    assert fwd.units()["observe.global.tau"] == "ms"
    assert fwd.ranges()["observe.thermal.amplitude"] == (0.0, np.inf)
    fwd.check(
        vb.Prior({"observe.gain.offset": dist.Normal(0.0, 1.0).expand([NODES]), "coupling.G": dist.Uniform(0, 1)})
    )
    same, other = forward(), forward({**CHAIN, "thermal": Thermal(amplitude=0.51)})
    turned = forward(dict(reversed(CHAIN.items())))
    fewer = forward({name: CHAIN[name] for name in ("global", "thermal")})
    found = [one.fingerprint() for one in (fwd, same, other, turned, fewer)]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_theta_of_a_mapping_reaches_the_measurement(fwd):
    def to_paths(theta):
        return {"observe.gain.offset": jnp.stack([theta["a"]] * NODES), "coupling.G": theta["G"]}

    key = jax.random.key(4)
    x = forward(to_paths=to_paths)({"a": 0.7, "G": 0.2}, key)
    expected = fwd({"observe.gain.offset": jnp.full(NODES, 0.7), "coupling.G": 0.2}, key)
    np.testing.assert_allclose(x, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (
            lambda f: f.check(vb.Prior({"observe.global.amplitdue": dist.Uniform(0, 1)})),
            ValueError,
            "'observe.global.amplitude'",
        ),
        (lambda f: f.check(vb.Prior({"observe.global": dist.Uniform(0, 1)})), ValueError, "name one of observe.global"),
        (
            lambda f: f.check(vb.Prior({"observe.gain.gain": dist.Normal(0, 1).expand([3])})),
            ValueError,
            "3 values for 4",
        ),
        (lambda f: forward(sim=simulator(noise=None))({"coupling.G": 0.1}, None), TypeError, "expected one JAX key"),
        (lambda f: forward({"gain": Gain(gain=[1.0, 2.0])}), ValueError, "2 values for 4 channels"),
        (lambda f: forward({"reference": Reference(channel=4)}), ValueError, "give 0 to 3"),
        (lambda f: forward(Thermal()), TypeError, "Chain"),
        (lambda f: forward(3.0), TypeError, "Chain"),
        (lambda f: Chain({}), TypeError, "Thermal"),
        (lambda f: Chain({"a.b": Thermal()}), ValueError, "without a point"),
        (lambda f: Chain({"a": Thermal}), TypeError, r"Thermal\(\)"),
        (lambda f: Thermal(amplitude=-0.1), ValueError, r"\[0, inf\)"),
        (lambda f: Thermal(sigma=0.1), TypeError, "no parameter 'sigma'"),
        (lambda f: GlobalSignal(tau=0.0), ValueError, "tau is 0 ms"),
        (lambda f: MotionSpikes(rate=np.nan), ValueError, "NaN"),
        (lambda f: Reference(channel=-1), ValueError, "channel=-1"),
        (lambda f: Drift(cutoff=0.0), ValueError, "must be positive"),
        (lambda f: realisations(Drift(cutoff=1e6), n=1), ValueError, "cutoff of at most 23040"),
        (
            lambda f: vb.ForwardModel(
                simulator({"a": vb.monitors.Raw(), "b": vb.monitors.Raw(var="x")}),
                t1=4.0,
                summary=lambda y: y["x"][-1],
                monitor="a",
                observe=Chain({"t": Thermal()}),
            ),
            ValueError,
            r"Raw\(..., var='x'\)",
        ),
        (
            lambda f: vb.ForwardModel(
                simulator({"a": vb.monitors.Raw(var="x"), "b": vb.monitors.Raw(var="x")}),
                t1=4.0,
                summary={"a": lambda y: y[-1], "b": lambda y: y[-1]},
                observe=Chain({"t": Thermal()}),
            ),
            ValueError,
            "a, b are summarised",
        ),
    ],
)
def test_mistakes_are_answered_with_what_to_write(fwd, act, kind, message):
    with pytest.raises(kind, match=message):
        act(fwd)


STUDY = """
[data]
recording = "rest.csv"
period = 2.0
[simulator]
model = { name = "Linear", gamma = -0.5 }
integrator = { name = "Heun", dt = 0.5 }
noise = { name = "Additive", sigma = 0.3 }
monitor = { name = "Subsample", var = "x", period = 2.0 }
nodes = 3
t1 = 40.0
observe = { global = { name = "GlobalSignal", tau = 12.0 }, thermal = { name = "Thermal", amplitude = 0.3 } }
[prior]
"observe.global.amplitude" = { name = "Uniform", low = 0.0, high = 2.0 }
[summary]
preprocess = [{ name = "detrend", order = 1 }, { name = "zscore" }]
fc = { name = "fc" }
[inference]
draws = 64
"""


def test_a_study_file_describes_the_measurement(tmp_path: Path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "rest.csv", rng.normal(size=(20, 3)), delimiter=",")
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    study = vb.Study.from_toml(file)
    assert study.forward.observe.order == ("global", "thermal")
    assert float(study.forward.observe.parts["global"].tau) == 12.0
    x = study.forward.batch(
        {"observe.global.amplitude": jnp.array([0.0, 50.0])}, jax.random.split(jax.random.key(0), 2)
    )
    assert np.abs(x[1]).min() > 0.3 > 0.0  # one course with its gains is nearly all there is
    for old, new, message in (
        ('"Thermal", amplitude', '"Thermal", amplitud', "'amplitude'"),
        ('"GlobalSignal"', '"Globalsignal"', "GlobalSignal"),
        ("observe = { global", 'observe = { "a.b"', "without a point"),
        ("observe = {", "observe = 3 # {", "observe.thermal"),
        ("observe.global.amplitude", "observe.globl.amplitude", "observe.global.amplitude"),
    ):
        file.write_text(STUDY.replace(old, new))
        with pytest.raises(ValueError, match=message):
            vb.Study.from_toml(file)
