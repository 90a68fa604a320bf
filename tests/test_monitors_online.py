"""Online covariance and functional connectivity equal those of the recorded series, whatever its level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.monitors import Raw, RunningCovariance, RunningFC, TimeAverage
from vbinfer.monitors.online import Moments, see


def fed(monitor, series, dt=1.0):
    """Every step of `series`, `[T, N]` or `[T, N, B]`, seen by the monitor; what it gives at the end."""
    series = jnp.asarray(series, jnp.result_type(float))
    stride = monitor.stride(dt)

    def one(carry, x):
        carry, k = carry
        carry = monitor.observe(carry, {"x": x})
        carry = jax.lax.cond((k + 1) % stride == 0, lambda c: monitor.update(c, dt), lambda c: c, carry)
        return (carry, k + 1), None

    (carry, _), _ = jax.lax.scan(one, (monitor.init({"x": series[0]}), 0), series)
    return monitor.sample(carry, {"x": series[-1]})[1]


def signals(n_steps=6_000, seed=0):
    """Four correlated signals at levels 100, -40, 0 and 3, of unequal spread."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0, 0, 0], [0.8, 0.5, 0, 0], [-0.3, 0.2, 2.0, 0], [0, 0, 0.1, 0.3]])
    return rng.normal(size=(n_steps, 4)) @ mixing.T + np.array([100.0, -40.0, 0.0, 3.0])


def test_independent_signals_far_from_zero_do_not_correlate():
    """Without the mean taken out as it moves, signals at 100 correlate at 1 - 1e-4; here only by chance, 1/sqrt(T)."""
    y = 100.0 + np.random.default_rng(1).normal(size=(4_000, 5))
    fc = np.asarray(fed(RunningFC("x", 4_000.0), y))
    assert np.abs(fc - np.eye(5)).max() < 4.0 / np.sqrt(4_000)
    np.testing.assert_allclose(fc, np.corrcoef(np.float32(y).astype(float).T), atol=2e-5)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(("every", "start"), [(None, 0.0), (7.0, 0.0), (5.0, 1_250.0), (4.0, 1_001.0)])
def test_moments_are_those_of_the_block_means_after_the_start(every, start, x64):
    """Against numpy.cov and numpy.corrcoef in float64; an unfinished block at the end does not count."""
    with jax.enable_x64(x64):
        y = signals()
        k = round(every or 1.0)
        first = int(np.ceil(start / k))
        seen = np.asarray(jnp.asarray(y), float)
        means = seen[: len(y) // k * k].reshape(-1, k, 4).mean(1)[first:]
        covariance = fed(RunningCovariance("x", 1e4, every=every, start=start), y)
        fc = fed(RunningFC("x", 1e4, every=every, start=start), y)
    tolerance = 1e-10 if x64 else 1e-4
    np.testing.assert_allclose(covariance, np.cov(means.T), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(fc, np.corrcoef(means.T), atol=tolerance)
    np.testing.assert_array_equal(covariance, np.asarray(covariance).T)


def test_a_constant_node_correlates_with_nothing_and_has_a_finite_gradient():
    y = signals(400)
    y[:, 2] = 12.3

    def mean_fc(scale):
        return fed(RunningFC("x", 1e4), jnp.asarray(y) * scale).sum()

    fc = np.asarray(fed(RunningFC("x", 1e4), y))
    np.testing.assert_array_equal(fc[2], 0.0)
    np.testing.assert_array_equal(fc[:, 2], 0.0)
    assert fc[0, 1] == pytest.approx(np.corrcoef(y[:, :2].T)[0, 1], abs=1e-4)
    assert np.isfinite(jax.grad(mean_fc)(1.0))
    np.testing.assert_array_equal(fed(RunningCovariance("x", 1e4), y[:1]), 0.0)


def test_the_gradient_of_a_covariance_is_that_of_its_formula():
    """cov(a x) = a^2 cov(x) for every pair: d/da = 2 a cov(x)."""
    with jax.enable_x64(True):
        y = signals(200)
        slope = jax.jacfwd(lambda a: fed(RunningCovariance("x", 1e4, every=2.0), a * jnp.asarray(y)))(1.5)
        expected = 3.0 * np.cov(y.reshape(-1, 2, 4).mean(1).T)
        np.testing.assert_allclose(slope, expected, rtol=1e-9)


def network():
    return vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=jnp.array([-5.0, -4.5, -4.0])),
        vb.Connectome([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 2.0, 0.0]], np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=0.3),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(sigma=0.2),
        monitors={
            "raw": Raw(var="V"),
            "mean": TimeAverage(1.5, var="V"),
            "fc": RunningFC("V", 60.0, every=1.5, start=9.0),
            "cov": RunningCovariance("V", 30.0),
        },
    )


def test_in_a_simulation_they_are_those_of_the_recorded_series():
    ys = vb.simulate(network(), t1=120.0, key=jax.random.key(0)).ys
    raw, mean = np.asarray(ys["raw"], float), np.asarray(ys["mean"], float)
    assert np.abs(np.triu(np.corrcoef(raw.T), 1)).max() > 0.05  # 250 times the tolerance below
    for k in range(4):
        np.testing.assert_allclose(ys["cov"][k], np.cov(raw[: 300 * (k + 1)].T), rtol=2e-4, atol=2e-5)
    for k in range(2):
        np.testing.assert_allclose(ys["fc"][k], np.corrcoef(mean[6 : 40 * (k + 1)].T), atol=2e-4)


def test_a_run_in_two_pieces_is_the_run_in_one():
    sim, key = network(), jax.random.key(1)
    whole = vb.simulate(sim, t1=120.0, key=key)
    first = vb.simulate(sim, t1=70.7, key=key)
    second = vb.simulate(sim, t1=49.3, key=key, init=first.final)
    for name in ("fc", "cov"):
        np.testing.assert_array_equal(jnp.concatenate([first.ys[name], second.ys[name]]), whole.ys[name])


def test_a_batch_equals_its_draws():
    fwd = vb.ForwardModel(network(), t1=60.0, monitor="fc", summary=lambda y: y.ravel())
    theta = {"coupling.G": jnp.array([0.0, 0.4, 0.8])}
    keys = jax.random.split(jax.random.key(2), 3)
    x = fwd.batch(theta, keys)
    for b in range(3):
        np.testing.assert_allclose(x[b], fwd({"coupling.G": theta["coupling.G"][b]}, keys[b]), atol=2e-4)


def single(monitor):
    return vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1), monitors={"m": monitor})


def test_observations_are_counted_beyond_2_to_the_24():
    """One more after n = 2^24 + 1 with mean m: C grows by n / (n + 1) (x - m)^2, the variance divides by n."""
    n = 2**24 + 1
    moments = Moments(jnp.asarray(n, jnp.int32), jnp.asarray([1.0]), jnp.asarray([[float(n)]]))
    moments = see(see(moments, jnp.asarray([1.0]), jnp.asarray(True)), jnp.asarray([9.0]), jnp.asarray(False))
    assert int(moments.count) == n + 1
    moments = see(moments, jnp.asarray([5.0]), jnp.asarray(True))
    assert int(moments.count) == n + 2
    np.testing.assert_allclose(moments.comoment, [[n + 16.0]], rtol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunningFC("V", 10.0, start=-1.0), "start=-1"),
        (lambda: RunningCovariance("V", 10.0, every=20.0), "every is 20 ms but the period is 10 ms"),
        (lambda: RunningCovariance("V", 10.0, every=0.25).stride(0.1), "0.2 or 0.3 ms"),
        (lambda: single(RunningFC("x", 10.0, every=0.25)), "0.2 or 0.3 ms"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
