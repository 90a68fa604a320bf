"""Features against golden values and against their definitions written once more in float64 NumPy.

Tolerances: 2e-4 relative in float32 (sums of 600 to 5000 rounded terms, fourth powers), 1e-8 in float64.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from feature_oracles import (
    MASK,
    PERIOD,
    REFERENCE,
    np_all_moments,
    np_fc_stat,
    np_fcd_stat,
    recording,
)

from vbinfer import features
from vbinfer.features import Summary
from vbinfer.io.fingerprint import fingerprint

GOLDEN = np.load(Path(__file__).parent / "golden" / "features.npz")
X64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
RTOL, ATOL = (1e-8, 1e-10) if X64 else (2e-4, 2e-5)


def close(given, expected, scale=1.0):
    np.testing.assert_allclose(np.asarray(given), expected, rtol=scale * RTOL, atol=scale * ATOL)


# ---- golden values


def test_nan_stays_in_the_rows_and_columns_of_its_node():
    fc = np.asarray(features.fc_matrix(GOLDEN["slow_nan"].T))
    expected = np.zeros(fc.shape, dtype=bool)
    expected[10, :] = expected[:, 10] = True
    np.testing.assert_array_equal(np.isnan(fc), expected)
    close(fc[:10, :10], GOLDEN["own__fc"])


def test_constant_node_is_exactly_zero_and_leaves_the_others_alone():
    y = GOLDEN["slow_const"].T
    assert np.ptp(y[:, 10]) == 0.0
    fc = np.asarray(features.fc_matrix(y))
    assert (fc[10] == 0.0).all()
    close(fc[:10, :10], GOLDEN["own__fc"])


@pytest.mark.parametrize("level", [0.1, -3.3e4, 1e-20])
def test_rounding_of_a_level_is_not_a_signal(level):
    y = recording()
    y[:, 0] = level * (1.0 + 2 * np.finfo(y.dtype if X64 else np.float32).eps * (np.arange(150) % 2))
    assert (np.asarray(features.fc_matrix(y))[0] == 0.0).all()


def test_fcd_stat_of_the_hcp_sampling_rounds_to_83_and_7_samples():
    y = recording(length=220)
    close(Summary(period=720.0, f=features.fcd_stat(window=60e3, step=5e3))(y), np_fcd_stat(y, 83, 7))


def test_homotopic_is_golden_and_follows_the_order_of_the_hemispheres():
    fc = np.asarray(GOLDEN["own__fc"])
    close(features.homotopic(jnp.asarray(fc), "blocks"), GOLDEN["own__fc_homotopic"])
    order = [
        node for left in range(5) for node in (left, left + 5)
    ]  # left block, right block -> left, right, left, ...
    close(features.homotopic(jnp.asarray(fc[np.ix_(order, order)]), "interleaved"), GOLDEN["own__fc_homotopic"])


def test_fisher_of_equal_and_opposite_signals_is_that_of_the_largest_number_below_one():
    y = np.random.default_rng(0).normal(size=(50, 1)) * [1.0, 2.0, -1.0]
    x = Summary(f=features.fc(fisher=True))(y)
    largest = np.arctanh(1.0 - float(jnp.finfo(x.dtype).eps))
    np.testing.assert_allclose(x, [largest, -largest, -largest], rtol=0.05)


def test_norms_and_strength_are_those_of_the_golden_eigenvalues():
    x = dict(zip(features.fc_stat().names(), Summary(f=features.fc_stat)(GOLDEN["slow"].T), strict=True))
    eigenvalues = GOLDEN["own__fc_eigvals"]
    close(x["norm3"], (eigenvalues**3).sum() ** (1 / 3) / 10)
    close(x["norm4"], (eigenvalues**4).sum() ** (1 / 4) / 10)
    close(x["strength_std"], GOLDEN["own__fc_gbc"].std())


def test_moments_and_autocorrelation_are_golden():
    y = jnp.asarray(GOLDEN["slow"].T, dtype=float)
    mean, std = GOLDEN["own__slow_mean"], GOLDEN["own__slow_std"]
    expected = [mean.mean(), mean.std(), std.mean(), std.std()]
    close(features.moments()(y, PERIOD)[:4], expected)
    close(features.moments()(y, PERIOD)[4], GOLDEN["own__slow_skew"].mean())
    lag_one = GOLDEN["own__slow_acf"][:, 1]
    close(features.autocorrelation()(y, PERIOD), [lag_one.mean(), lag_one.std()])


# ---- band-pass


@pytest.mark.parametrize("frequency", [0.004, 0.01, 0.031, 0.1, 0.18])
def test_bandpass_scales_a_sinusoid_by_its_gain_and_does_not_delay_it(frequency):
    t = np.arange(1500) * 0.72
    wave = np.sin(2 * np.pi * frequency * t + 0.4)
    filtered = np.asarray(features.bandpass(0.01, 0.1)(jnp.asarray(wave)[:, None] + 50.0, 720.0))[:, 0]
    gain = 1 / (1 + (0.01 / frequency) ** 4) / (1 + (frequency / 0.1) ** 4)
    inside = slice(400, 1100)  # the ends see the reflected signal
    np.testing.assert_allclose(filtered[inside], gain * wave[inside], atol=4e-3)


def test_bandpass_is_linear_removes_the_mean_and_treats_nodes_alone():
    band = features.bandpass(0.02, 0.15)
    a, b = jnp.asarray(recording(0)), jnp.asarray(recording(1))
    close(band(2.0 * a - 3.0 * b + 7.0, PERIOD), 2.0 * band(a, PERIOD) - 3.0 * band(b, PERIOD), scale=20)
    close(band(a, PERIOD)[:, 3:4], band(a[:, 3:4], PERIOD), scale=20)


def test_bandpass_with_one_edge_is_the_quotient_of_the_gains():
    f = jnp.asarray([0.0, 0.01, 0.05, 0.2])
    both, low, high = (features.bandpass(*edges).gain(f) for edges in [(0.02, 0.1), (0.02, None), (None, 0.1)])
    close(both, low * high)
    close(high, [0.0, *(1 / (1 + (np.array([0.01, 0.05, 0.2]) / 0.1) ** 4))])
    close(low[1], 1 / 17)


def test_bandpass_keeps_a_constant_node_constant():
    y = recording()
    y[:, 2] = 0.3
    fc = np.asarray(features.fc_matrix(features.bandpass(0.01, 0.1)(jnp.asarray(y, dtype=float), PERIOD)))
    assert (fc[2] == 0.0).all()
    assert np.isfinite(fc).all()


# ---- Summary


def test_summary_concatenates_in_the_order_given_also_through_jit():
    def last(y):
        return y[-1, :2]

    summary = Summary(period=PERIOD, z=features.moments, fc=features.fc_stat, a=last, b=jnp.max)
    y = recording()
    expected = np.concatenate([np_all_moments(y), np_fc_stat(y), y[-1, :2], [y.max()]])
    close(summary(y), expected)
    close(eqx.filter_jit(lambda s, y: s(y))(summary, y), expected)
    moved = jax.tree.map(lambda leaf: leaf, summary)
    assert moved.names_for(6) == summary.names_for(6)
    assert summary.names_for(6)[:1] + summary.names_for(6)[-4:] == ("z.mean", "fc.strength_std", "a[0]", "a[1]", "b")


def test_names_need_the_number_of_nodes_only_where_the_width_follows_it():
    assert Summary(fc=features.fc_stat, fcd=features.fcd_stat).width == 20
    assert Summary(n_nodes=3, fc=features.fc).names == ("fc[0,1]", "fc[0,2]", "fc[1,2]")
    with pytest.raises(ValueError, match=r"feature 'all' follows the number of nodes; write .*n_nodes=80"):
        _ = Summary(all=features.fc).names


def test_preprocess_comes_once_before_every_feature():
    y = recording()
    doubled = Summary(period=PERIOD, preprocess=lambda y: 2.0 * y, a=features.moments, b=features.moments)
    close(doubled(y), np.tile(np_all_moments(2.0 * y), 2))
    band = features.bandpass(0.01, 0.1)
    filtered = np.asarray(band(jnp.asarray(y, dtype=float), PERIOD), dtype=float)
    close(Summary(period=PERIOD, preprocess=band, fc=features.fc_stat)(y), np_fc_stat(filtered), scale=5)


def test_flags_count_constant_and_nan_nodes():
    y = recording()
    y[:, 1] = 0.1
    y[:, 4] = -7.0
    y[3, 0] = np.nan
    flags = jax.jit(Summary(fc=features.fc_stat).flags)(y)
    assert {name: int(count) for name, count in flags.items()} == {"constant": 2, "nan": 1}


Y = recording()
MISTAKES = [
    (lambda: Summary(period=0.0, fc=features.fc_stat), ValueError, "period=0.0 .* of ms, such as period=720.0"),
    (lambda: Summary(), ValueError, "no feature; name at least one"),
    (lambda: Summary(fc="fc_stat"), TypeError, "'fc' is 'fc_stat'; give a feature such as vb.features.fc_stat"),
    (lambda: Summary(f=features.bandpass(0.01, 0.1)), TypeError, "pass it as preprocess="),
    (
        lambda: Summary(preprocess=features.bandpass, f=features.fc),
        TypeError,
        "preprocess is .*bandpass.*; .*a name of its own",
    ),
    (lambda: Summary(fc=features.fc_stat)(Y[:, 0]), ValueError, r"takes one recording \[T, N\]; it was given \[150\]"),
    (lambda: Summary(n_nodes=80, fc=features.fc_stat)(Y), ValueError, "has 6 nodes, .* n_nodes=80"),
    (lambda: Summary(f=lambda y: y)(Y), ValueError, r"shape \[150, 6\]; return .*ravel"),
    (lambda: Summary(fc=features.fc_stat)(Y[:, :1]), ValueError, "at least 2 nodes; the recording has 1"),
    (
        lambda: Summary(fcd=features.fcd_stat)(Y[:60]),
        ValueError,
        "60 samples of 720 ms.* needs 167; record at least 120240",
    ),
    (
        lambda: features.fcd_matrix(Y, window=300e3, step=2e3, period=PERIOD),
        ValueError,
        "take 151; record at least 302000",
    ),
    (
        lambda: Summary(period=60e3, f=features.fcd_stat)(Y),
        ValueError,
        "step is 5000 ms, less than one sample of 60000",
    ),
    (lambda: features.fcd_stat(window=-1.0), ValueError, "window=-1.0 .* of ms, such as window="),
    (lambda: features.autocorrelation(lag=0.0), ValueError, "lag=0.0 .* of ms, such as lag=720.0"),
    (lambda: features.bandpass(0.1, 0.01), ValueError, "low must be below high"),
    (lambda: features.bandpass(None, None), ValueError, "give at least one"),
    (lambda: features.bandpass(0.01, 0.4)(jnp.asarray(Y), PERIOD), ValueError, "high is 0.4 Hz.* below 0.25"),
    (lambda: features.fc_stat(pairs="lr"), ValueError, "pairs='lr' .* one of 'interleaved', 'blocks'"),
    (
        lambda: Summary(f=features.fc_stat(pairs="blocks"))(Y[:, :5]),
        ValueError,
        "even number of nodes; the recording has 5",
    ),
    (lambda: features.fc(mask=np.ones((3, 4))), ValueError, r"mask is \[3, 4\]; it must be \[node, node\]"),
    (lambda: Summary(f=features.fc(mask=MASK))(Y[:, :5]), ValueError, r"5 nodes but mask is \[6, 6\]"),
    (lambda: Summary(f=features.fc_match(REFERENCE))(Y[:, :5]), ValueError, r"5 nodes but the reference .* \[6, 6\]"),
    (lambda: features.fc_match(np.full((3, 3), np.nan)), ValueError, "reference holds NaN"),
]


@pytest.mark.parametrize(("mistake", "exception", "message"), MISTAKES)
def test_mistakes_are_answered_with_a_remedy(mistake, exception, message):
    with pytest.raises(exception, match=message):
        mistake()


OF_ARRAYS = {
    "fc_match": (features.fc_match, REFERENCE, REFERENCE.T + np.eye(6)[::-1]),
    "fc": (lambda mask: features.fc(mask=mask, fisher=True), MASK, np.roll(MASK, 1, axis=(0, 1))),
    "fcd_stat": (lambda mask: features.fcd_stat(mask=mask), MASK, np.roll(MASK, 1, axis=(0, 1))),
}


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_features_with_arrays_share_a_program_and_never_their_numbers(name):
    """Arrays are leaves: no program is compiled for another array of the same shape, nor any hash of it taken."""
    make, array, another = OF_ARRAYS[name]
    traced, y = [], jnp.asarray(recording())

    @eqx.filter_jit
    def compiled(summary, y):
        traced.append(1)
        return summary(y)

    one, same, other = (Summary(period=PERIOD, f=make(a)) for a in (array, np.array(array), another))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    expected = [np.asarray(summary(y)) for summary in (one, same, other)]
    for jitted in (lambda summary: compiled(summary, y), lambda summary: jax.jit(summary)(y)):
        close([jitted(summary) for summary in (one, same, other)], expected)
    np.testing.assert_array_equal(expected[0], expected[1])
    assert not np.allclose(expected[0], expected[2], rtol=1e-3)
    assert len(traced) == 1
