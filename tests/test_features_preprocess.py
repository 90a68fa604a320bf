"""Detrending, z-scores, global-signal regression, parcels: against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.features import bandpass, detrend, parcellate, regress_global, zscore

PERIOD = 720.0
rng = np.random.default_rng(3)
Y = rng.normal(size=(60, 5)).cumsum(axis=0) + np.array([100.0, -20.0, 3.0, 0.0, 7.0])
LABELS = ["b", "a", "b", "a", "c"]


def np_detrend(y, order):
    t = np.arange(len(y)) / len(y)
    design = np.stack([t**k for k in range(order + 1)], axis=1)
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def np_regressed(y):
    out, d = np.empty_like(y), y - y.mean(axis=0)
    g = d.mean(axis=1)
    for i in range(y.shape[1]):
        out[:, i] = d[:, i] - np.polyfit(g, d[:, i], 1)[0] * g
    return out


ORACLES = {
    "detrend 0": (detrend(order=0), lambda y: y - y.mean(axis=0)),
    "detrend 1": (detrend(), lambda y: np_detrend(y, 1)),
    "detrend 3": (detrend(order=3), lambda y: np_detrend(y, 3)),
    "zscore": (zscore(), lambda y: (y - y.mean(axis=0)) / y.std(axis=0)),
    "regress": (regress_global(), np_regressed),
    "parcels": (
        parcellate(labels=LABELS),
        lambda y: np.stack([y[:, [0, 2]].mean(1), y[:, [1, 3]].mean(1), y[:, 4]], 1),
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_preprocessing_equals_numpy(name):
    step, oracle = ORACLES[name]
    found, slope = jax.jit(lambda y: (step(y, PERIOD), jax.grad(lambda y: (step(y, PERIOD) ** 2).sum())(y)))(
        jnp.asarray(Y, jnp.float32)
    )
    np.testing.assert_allclose(found, oracle(Y), atol=1e-5 * np.abs(Y).max())
    assert np.isfinite(slope).all()


def test_a_polynomial_is_gone_and_steps_repeat_without_effect():
    t = np.linspace(0.0, 1.0, 60)[:, None]
    y = jnp.asarray(1e3 + 5.0 * t - 40.0 * t**2 * np.ones(3), jnp.float32)
    assert np.abs(detrend(order=2)(y, PERIOD)).max() < 1e-3
    assert np.abs(detrend(order=1)(y, PERIOD)).max() > 1.0
    for step in (detrend(order=2), zscore(), regress_global()):
        once = step(jnp.asarray(Y, jnp.float32), PERIOD)
        np.testing.assert_allclose(step(once, PERIOD), once, atol=3e-5)


def test_global_regression_leaves_no_sum_and_nothing_to_divide_by():
    left = np.asarray(regress_global()(jnp.asarray(Y, jnp.float32), PERIOD))
    assert np.abs(left.sum(axis=1)).max() < 1e-3
    opposed = jnp.asarray(np.stack([np.sin(np.arange(60.0)), -np.sin(np.arange(60.0))], axis=1), jnp.float32)
    kept, slope = (
        regress_global()(opposed, PERIOD),
        jax.grad(lambda y: (regress_global()(y, PERIOD) ** 2).sum())(opposed),
    )
    np.testing.assert_allclose(kept, opposed - opposed.mean(axis=0, keepdims=True), atol=1e-6)
    assert np.isfinite(slope).all()


def test_connectivity_after_global_regression_equals_numpy():
    y, upper = jnp.asarray(Y, jnp.float32), np.triu_indices(5, 1)
    expected = np.corrcoef(np_regressed(Y), rowvar=False)[upper]
    np.testing.assert_allclose(vb.features.fc(kind="regressed")(y, PERIOD), expected, atol=2e-5)
    reference = rng.normal(size=(5, 5))
    found = vb.features.fc_match(reference, kind="regressed")(y, PERIOD)
    np.testing.assert_allclose(found, np.corrcoef(expected, reference[upper])[0, 1], atol=5e-5)


def test_steps_come_in_their_order_and_change_the_nodes_of_features():
    y = jnp.asarray(Y, jnp.float32)
    steps = [bandpass(0.01, 0.2), parcellate(labels=LABELS), lambda y: 2.0 * y]
    summary = vb.Summary(period=PERIOD, preprocess=steps, m=vb.features.moments, fc=vb.features.fc)
    by_hand = 2.0 * parcellate(labels=LABELS)(bandpass(0.01, 0.2)(y, PERIOD), PERIOD)
    expected = vb.Summary(period=PERIOD, m=vb.features.moments, fc=vb.features.fc)(by_hand)
    np.testing.assert_allclose(summary(y), expected, rtol=1e-5, atol=1e-6)
    assert len(summary.names_for(5)) == 6 + 3 == len(summary(y))
    other = vb.Summary(period=PERIOD, preprocess=[zscore(), detrend()], m=vb.features.moments)
    turned = vb.Summary(period=PERIOD, preprocess=[detrend(), zscore()], m=vb.features.moments)
    assert np.abs(np.asarray(other(y) - turned(y))).max() > 0.1


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: vb.features.fc_match(np.eye(3), kind="gsr"), ValueError, "regressed"),
        (lambda: detrend(order=-1), ValueError, "order=-1"),
        (lambda: detrend(order=1.5), ValueError, "order=1.5"),
        (lambda: detrend(order=4)(jnp.ones((5, 2)), PERIOD), ValueError, "5 samples"),
        (lambda: parcellate(labels=[]), ValueError, "one for each node"),
        (lambda: parcellate(labels="visual"), ValueError, "one for each node"),
        (lambda: parcellate(labels=["a", "b"])(jnp.ones((5, 3)), PERIOD), ValueError, "3 nodes but labels has 2"),
        (lambda: vb.Summary(preprocess=[bandpass], f=vb.features.fc), TypeError, "a name of its own"),
        (lambda: vb.Summary(preprocess=[detrend(), 3], f=vb.features.fc), TypeError, "preprocess is 3"),
    ],
)
def test_mistakes_are_answered(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
