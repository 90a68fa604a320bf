"""What features say about signals whose answer is known in closed form."""

import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from vbinfer import features
from vbinfer.features import Summary
from vbinfer.features.host import CATCH22, RENAMED

RNG = np.random.default_rng(11)


def named(feature, y, period=1.0):
    """The numbers of a feature by name, computed in float64."""
    with jax.enable_x64(True):
        summary = Summary(period=period, f=feature)
        numbers = np.asarray(jax.jit(summary)(jnp.asarray(y, "float64")))
        return {name[2:]: x for name, x in zip(summary.names_for(np.shape(y)[1]), numbers, strict=True)}


def autoregression(a, noise, length):
    """x(t + 1) = a x(t) + noise e(t), `[T, N]`, from its stationary distribution, and its covariance."""
    covariance = scipy.linalg.solve_discrete_lyapunov(a, noise @ noise.T)
    x = np.empty((length, len(a)))
    x[0] = np.linalg.cholesky(covariance) @ RNG.normal(size=len(a))
    for t in range(length - 1):
        x[t + 1] = a @ x[t] + noise @ RNG.normal(size=len(a))
    return x, covariance


def test_transfer_entropy_of_a_driven_pair_is_that_of_its_stationary_covariance():
    """Node 1 drives node 0: closed forms of both directions; standard error of an estimate is sqrt(TE / T) or less."""
    a, noise = np.array([[0.6, 0.5], [0.0, 0.8]]), np.array([[1.0, 0.0], [0.4, 0.7]])
    x, s = autoregression(a, noise, 40_000)
    lagged = a @ s  # cov(x(t + 1), x(t))
    q = noise @ noise.T

    def own_residual(i):  # var(x_i(t + 1) | x_i(t))
        return s[i, i] - lagged[i, i] ** 2 / s[i, i]

    expected = np.array(
        [[0.0, 0.5 * np.log(own_residual(0) / q[0, 0])], [0.5 * np.log(own_residual(1) / q[1, 1]), 0.0]]
    )
    assert expected[0, 1] > 0.05
    assert expected[1, 0] == pytest.approx(0.0, abs=1e-12)
    te = features.transfer_entropy_matrix(5.0 + 3.0 * x, lag=1.0, period=1.0)
    np.testing.assert_allclose(te, expected, atol=4 * np.sqrt(expected[0, 1] / 40_000))
    found = named(features.transfer_entropy(), x)
    assert found["max"] == pytest.approx(expected[0, 1], rel=0.05)
    assert found["asymmetry"] == pytest.approx(expected[0, 1], rel=0.05)


def test_lagged_correlation_and_autocorrelation_time_of_an_autoregression():
    """corr(x_i(t), x_j(t + 1)) = (a S)_ji / sqrt(S_ii S_jj); AR(1) has times 1 + 2 sum p^l and -1 / log p."""
    a, noise = np.array([[0.6, 0.5], [0.0, 0.8]]), np.diag([1.0, 0.7])
    x, s = autoregression(a, noise, 40_000)
    scale = np.sqrt(np.diag(s))
    np.testing.assert_allclose(
        features.lagged_matrix(x, lag=3.0, period=3.0), (a @ s).T / np.outer(scale, scale), atol=0.03
    )
    found = named(features.timescales(pool="nodes"), x, period=3.0)
    assert found["integrated[1]"] == pytest.approx(3.0 * 1.8 / 0.2, rel=0.1)
    assert found["e_folding_interpolated[1]"] == pytest.approx(-3.0 / np.log(0.8), rel=0.1)


def test_information_of_normal_signals_is_a_function_of_their_correlation():
    r = 0.8
    x = RNG.normal(size=(40_000, 2)) @ np.array([[1.0, r], [0.0, np.sqrt(1 - r**2)]])
    exact = -0.5 * np.log(1 - r**2)
    found = named(features.mutual_information(bins=24), 7.0 + 2.0 * x)
    assert found["gaussian"] == pytest.approx(exact, abs=4 / np.sqrt(40_000))
    # binning loses a little, 23^2 / (2 T) comes on top
    assert found["binned"] == pytest.approx(exact, abs=0.05)
    entropies = named(features.entropy(bins=16, pool="nodes"), np.stack([2.0 * x[:, 0], RNG.uniform(size=40_000)], 1))
    assert entropies["gaussian[0]"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 4.0), abs=0.02)
    assert entropies["histogram[1]"] == pytest.approx(np.log(16), abs=1e-3)


def test_binned_information_sees_what_correlation_does_not():
    x = RNG.normal(size=20_000)
    found = named(features.mutual_information(), np.stack([x, x**2], axis=1))
    assert found["gaussian"] < 0.01
    assert found["binned"] > 0.3


def test_partial_correlation_of_a_chain_has_no_link_between_its_ends():
    """0 -> 1 -> 2 with equal noise: the precision matrix is tridiagonal, partial correlations follow from it."""
    e = RNG.normal(size=(40_000, 3))
    x = np.stack([e[:, 0], e[:, 0] + e[:, 1], e[:, 0] + e[:, 1] + e[:, 2]], axis=1)
    precision = np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]])
    scale = np.sqrt(np.diag(precision))
    expected = np.where(np.eye(3, dtype=bool), 1.0, -precision / np.outer(scale, scale))
    np.testing.assert_allclose(features.partial_matrix(x * [1.0, 10.0, 0.1] + 3.0), expected, atol=0.02)
    assert np.corrcoef(x.T)[0, 2] > 0.5


def test_a_sum_of_others_gives_partial_correlations_that_are_finite():
    x = RNG.normal(size=(200, 3))
    assert np.isfinite(features.partial_matrix(np.column_stack([x, x.sum(axis=1)]))).all()


def test_a_wavelet_measures_the_amplitude_of_its_sinusoid_and_the_power_is_in_its_band():
    """Whole numbers of cycles, so that the ends fit: exact; 1000 samples 4 ms apart, 10 Hz, amplitude 3."""
    t = 0.004 * np.arange(1000)
    y = 50.0 + np.stack([3.0 * np.cos(2 * np.pi * 10.0 * t + 0.3), 0.5 * np.sin(2 * np.pi * 20.0 * t)], axis=1)
    w = named(features.wavelet((10.0, 20.0), pool="nodes"), y, 4.0)
    assert w["10Hz_mean[0]"] == pytest.approx(3.0, rel=1e-9)
    assert w["10Hz_std[0]"] == pytest.approx(0.0, abs=1e-9)
    assert w["20Hz_energy[1]"] == pytest.approx(1000 * 0.25, rel=1e-9)
    assert w["20Hz_mean[0]"] == pytest.approx(3.0 * np.exp(-0.5 * 3.0**2), rel=1e-9)  # 6 cycles, half the frequency
    power = named(features.band_power(((8, 12), (12, 30)), 1000.0, rule="sum", pool="nodes"), y, 4.0)
    assert power["8-12Hz[0]"] == pytest.approx(4.5, rel=1e-9)
    assert power["12-30Hz[1]"] == pytest.approx(0.125, rel=1e-9)
    shape = named(features.spectrum(1000.0, pool="nodes"), y, 4.0)
    assert shape["peak_frequency[0]"] == pytest.approx(10.0)
    assert shape["fundamental_frequency[1]"] == pytest.approx(20.0)
    assert shape["centroid[1]"] == pytest.approx(20.0, rel=1e-9)
    envelope = named(features.envelope(pool="nodes"), y, 4.0)
    assert envelope["min[0]"] == pytest.approx(3.0, rel=1e-9)
    assert envelope["max[1]"] == pytest.approx(0.5, rel=1e-9)


def test_coherence_is_the_share_of_the_power_that_comes_from_the_common_source():
    """y = x + noise of equal power: 1 / 2 at all frequencies and short lags, with a bias below 1 / 80."""
    x, e = RNG.normal(size=(2, 40_000))
    y = np.stack([x, 9.0 + 4.0 * (np.roll(x, 3) + e)], axis=1)
    found = named(features.coherence(((5.0, 50.0), (50.0, 120.0)), segment=1000.0), y, 4.0)
    assert found["5-50Hz"] == pytest.approx(0.5, abs=0.02)
    assert found["50-120Hz"] == pytest.approx(0.5, abs=0.02)


def test_phases_a_constant_angle_apart_are_locked_and_give_the_order_of_that_angle():
    """Four oscillators spread over a quarter turn, and a constant node that is left out."""
    t = np.arange(600) / 600
    lag = np.array([0.0, 0.4, 1.0, 1.5])
    y = 80.0 + np.cos(2 * np.pi * 12 * t[:, None] - lag) * [1.0, 5.0, 0.2, 3.0]
    y = np.column_stack([y, np.full(600, 4.2)])
    order = named(features.kuramoto_order(), y)
    assert order["mean"] == pytest.approx(abs(np.exp(1j * lag).mean()), rel=1e-9)
    assert order["std"] == pytest.approx(0.0, abs=1e-9)
    expected = np.ones((5, 5))
    expected[4] = expected[:, 4] = 0.0
    with jax.enable_x64(True):
        np.testing.assert_allclose(features.plv_matrix(y), expected, atol=1e-9)
    phase = named(features.coactivation(only=("phase",), pool="nodes"), y)
    whole = np.angle(np.exp(-1j * lag).sum())
    np.testing.assert_allclose([phase[f"phase[{i}]"] for i in range(4)], whole + lag, rtol=1e-9)


def test_recruitment_spreads_at_the_slope_of_its_ramp():
    """y_i(t) = t - 100 (i + 1) crosses 0 at that time exactly, between the samples, with derivative -1 in a shift."""
    t = 30.0 * np.arange(20)[:, None]
    y = t - np.array([100.0, 200.0, 300.0, 10_000.0])
    found = named(features.onset(0.0, pool="nodes"), y, 30.0)
    np.testing.assert_allclose([found[f"time[{i}]"] for i in range(4)], [100.0, 200.0, 300.0, 600.0], rtol=1e-12)
    assert [found[f"recruited[{i}]"] for i in range(4)] == [1.0, 1.0, 1.0, 0.0]
    assert found["above[0]"] == 30.0 * 16
    gradient = jax.grad(lambda shift: features.onset(0.0, only=("time",))(jnp.asarray(y) + shift, 30.0)[0])(0.0)
    assert gradient == pytest.approx(-0.75)


def test_bursts_and_avalanches_are_counted_as_they_were_made():
    y = np.zeros((100, 3))
    y[[10, 11, 12, 40, 41, 99], 0] = 1.0
    y[[11, 12, 13], 1] = 1.0
    y[70, 2] = -1.0
    found = named(features.bursts(2.0, pool="nodes"), y, 10.0)
    assert found["rate[0]"] == pytest.approx(3.0)
    assert found["duration[0]"] == pytest.approx(20.0)
    assert found["gap[0]"] == pytest.approx(940.0 / 3)
    assert found["rate[2]"] == 0.0  # a dip is no burst
    found = named(features.avalanches(2.0), y, 10.0)  # samples 10-13, 40-41, 70, 99
    assert list(found.values()) == pytest.approx([4.0, 10.0 / 4, 10.0 * 8 / 4, 0.08])


def test_hemispheres_and_networks_make_the_masks_that_their_names_say():
    n, order = 6, "interleaved"
    sides = features.hemispheres(n, order)
    assert sides == ("left", "right") * 3
    within, between = features.within_mask(sides), features.between_mask(sides)
    np.testing.assert_array_equal(within | between | np.eye(n, dtype=bool), True)
    assert within.sum() == 2 * 6
    assert features.homotopic_mask(n, order)[between].sum() == 6
    y = RNG.normal(size=(60, n)) + RNG.normal(size=(60, 1))
    means = named(features.fc_networks(sides), y)
    assert means["left-right"] == pytest.approx(named(features.fc_stat(mask=between), y)["mean"], rel=1e-12)
    both = [means["left-left"], means["right-right"]]
    assert np.mean(both) == pytest.approx(named(features.fc_stat(mask=within), y)["mean"], rel=1e-12)


def test_the_listing_of_the_document_gives_the_names_that_it_says():
    text = (Path(__file__).parent.parent / "docs" / "features.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    found: dict = {}
    exec(compile(code, "docs/features.md", "exec"), found)
    assert found["summary"].names == tuple(code.partition("# ")[2].strip().split(", "))
    assert np.isfinite(jax.jit(found["summary"])(RNG.normal(size=(1000, 5)))).all()


def fake_catch22(signal):
    """The names of version 1.0.2 in another order than ours, the values recognisable."""
    names = sorted(CATCH22)
    return {"names": [RENAMED.get(name, name) for name in names], "values": [len(n) + np.std(signal) for n in names]}


def test_windows_compare_the_pairs_that_a_mask_keeps():
    """The mask of all pairs of the first four nodes is the recording of those nodes."""
    y = RNG.normal(size=(80, 7)) + RNG.normal(size=(80, 1))
    mask = np.zeros((7, 7), dtype=bool)
    mask[:4, :4] = True
    where = {"window": 20.0, "step": 3.0, "windows": "skiplast"}
    alone = features.fcd_matrix(y[:, :4], period=1.0, **where)
    assert alone.shape == (20, 20)  # 21 with the one that ends with the recording
    np.testing.assert_allclose(features.fcd_matrix(y, period=1.0, mask=mask, **where), alone, atol=1e-5)
    every = ("var", "var_overlapping", "abs_sum", "eig_max", "pca1")
    few, many = features.fcd_stat(only=every, **where), features.fcd_stat(only=every, mask=mask, **where)
    assert list(named(many, y).values()) == pytest.approx(list(named(few, y[:, :4]).values()), rel=1e-9)


def test_catch22_asks_for_its_package_when_it_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycatch22", None)
    with pytest.raises(ImportError, match="pip install pycatch22"):
        features.catch22()


def test_catch22_of_another_package_version_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "pycatch22", types.SimpleNamespace(catch22_all=lambda y: dict(names=[], values=[]))
    )
    with pytest.raises(ImportError, match="does not give DN_HistogramMode_5, "):
        features.catch22()


def test_catch22_goes_through_jit_vmap_and_grad_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycatch22", types.SimpleNamespace(catch22_all=fake_catch22))
    summary = Summary(f=features.catch22(only=("CO_f1ecac", "DN_HistogramMode_10"), pool="nodes"))
    y = RNG.normal(size=(2, 50, 3)).astype(np.float32)
    y[:, :, 1] = 2.5
    x = np.asarray(jax.jit(jax.vmap(summary))(y))
    expected = [[9 + np.std(s), 19 + np.std(s)] for s in (y[0, :, 0], y[1, :, 2])]
    np.testing.assert_allclose([x[0, [0, 3]], x[1, [2, 5]]], expected, rtol=1e-5)
    assert (x[:, [1, 4]] == 0.0).all()
    assert (np.asarray(jax.jacrev(summary)(jnp.asarray(y[0]))) == 0.0).all()
    assert summary.names_for(3)[:2] == ("f.CO_f1ecac[0]", "f.CO_f1ecac[1]")


Y = RNG.normal(size=(100, 4))
MISTAKES = [
    (lambda: features.statistics(pool="node"), ValueError, "pool='node' .* one of .*'nodes'"),
    (lambda: features.statistics(only=("sd",)), ValueError, "statistics has no number 'sd'"),
    (lambda: Summary(f=features.statistics(pool="nodes")).names, ValueError, "n_nodes=80"),
    (lambda: features.fc(kind="pearsons"), ValueError, "one of 'pearson', 'spearman'"),
    (lambda: features.global_connectivity()(jnp.asarray(Y[:, :1]), 1.0), ValueError, "at least 2 nodes; .* has 1"),
    (lambda: features.fc(kind="covariance", fisher=True), ValueError, "covariances are not bounded"),
    (lambda: features.fc_networks(["a", "b"])(jnp.asarray(Y), 1.0), ValueError, "has 4 nodes but labels has 2"),
    (lambda: features.partial_matrix(Y[:5]), ValueError, "5 samples of 4 nodes; .* at least 6"),
    (lambda: features.band_power()(jnp.asarray(Y), 720.0), ValueError, "the band 4-8 Hz holds 0 of the frequencies"),
    (lambda: features.band_power(bands=((8, 4),)), ValueError, "pairs of Hz with 0 <= low < high"),
    (lambda: features.psd((0.9,))(jnp.asarray(Y), 720.0), ValueError, "hold 0.9 Hz, .* nothing above 0.694444"),
    (lambda: features.coherence_matrix(Y, period=1.0, segment=90.0), ValueError, "coherence of one segment"),
    (lambda: features.welch(Y, period=1.0, segment=200.0), ValueError, "segment is 200 samples .* has 100"),
    (lambda: features.area(((0.0, 500.0),))(jnp.asarray(Y), 1.0), ValueError, "ends at 500 ms .* at 99 ms"),
    (lambda: features.acf(lags=100)(jnp.asarray(Y), 1.0), ValueError, "a lag of 100 samples needs more"),
    (lambda: features.acf(lags=()), ValueError, r"lags is \(\); give how many samples"),
    (lambda: features.wavelet((0.0,)), ValueError, "0 Hz, at which nothing oscillates"),
    (lambda: features.fcd_stat(windows="last"), ValueError, "windows='last' .* one of 'all', 'skiplast'"),
    (lambda: features.fc_eigenvalues(count=5)(jnp.asarray(Y), 1.0), ValueError, "4 nodes and so no 5 eigenvalues"),
    (lambda: features.hemispheres(5, "blocks"), ValueError, "even number of nodes"),
    (lambda: features.onset(threshold=np.nan), ValueError, "threshold=nan .* such as threshold="),
    (lambda: features.entropy(bins=1), ValueError, "bins=1 .* at least 2, such as bins="),
]


@pytest.mark.parametrize(("mistake", "exception", "message"), MISTAKES)
def test_mistakes_are_answered_with_a_remedy(mistake, exception, message):
    with pytest.raises(exception, match=message):
        mistake()
