"""What holds for every feature: its value is that of the definition, under vmap as well, and so is its derivative;
constant nodes and NaN do what the documents say; units and levels cancel where they are said to.

In float64, so that tolerances are about equations: 1e-7 relative, 1e-9 absolute for numbers that are 0. What float32
costs is a test of its own.
"""

import functools
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from feature_oracles import (
    BANDS,
    EXTRAS,
    FCD_EXTRAS,
    MASK,
    PERIOD,
    REFERENCE,
    SEGMENT,
    WHERE,
    np_above,
    np_acf,
    np_action_potential,
    np_all_moments,
    np_amplitude,
    np_area,
    np_autocorrelation,
    np_avalanches,
    np_bands,
    np_bursts,
    np_coactivation,
    np_coherence,
    np_corr,
    np_entropies,
    np_envelope,
    np_extra_stat,
    np_fc,
    np_fcd_extras,
    np_fcd_stat,
    np_histogram,
    np_information,
    np_lagged,
    np_masked,
    np_moments,
    np_networks,
    np_numbers,
    np_onset,
    np_order,
    np_partial,
    np_plv,
    np_quantiles,
    np_spearman,
    np_spectrum,
    np_spikes,
    np_statistics,
    np_strengths,
    np_subthreshold,
    np_timescales,
    np_transfer,
    np_wavelet,
    np_welch,
    per_node,
    recording,
)

from vbinfer import features
from vbinfer.features import Summary
from vbinfer.features.phase import ENVELOPE
from vbinfer.features.spectral import SPECTRUM
from vbinfer.features.statistical import STATISTICS

# name: feature, definition, and what leaves its numbers alone: a common scale, a shift of every node
BOTH, SHIFT, NONE = ("scale", "shift"), ("shift",), ()
FEATURES = {
    "fc_stat": (features.fc_stat(), lambda y: np_numbers(np_fc(y)), BOTH),
    "fc_stat(only)": (
        features.fc_stat(pairs="interleaved", only=(*EXTRAS, "homotopic", "homotopic_positive")),
        np_extra_stat,
        BOTH,
    ),
    "fc_stat(spearman)": (features.fc_stat(kind="spearman"), lambda y: np_numbers(np_spearman(y)), BOTH),
    "fc_stat(partial)": (features.fc_stat(kind="partial"), lambda y: np_numbers(np_partial(y)), BOTH),
    "fc_stat(plv)": (features.fc_stat(kind="plv"), lambda y: np_numbers(np_plv(y)), BOTH),
    "fc": (features.fc(), lambda y: np_above(np_fc(y)), BOTH),
    "fc(mask)": (features.fc(mask=MASK), np_masked, BOTH),
    "fc(covariance)": (features.fc(kind="covariance"), lambda y: np_above(np.cov(y.T)), SHIFT),
    "fc(fisher)": (features.fc(fisher=True), lambda y: np.arctanh(np_above(np_fc(y))), BOTH),
    "fc_match": (features.fc_match(REFERENCE), lambda y: [np_corr(np_above(np_fc(y)), np_above(REFERENCE))], BOTH),
    "fc_networks": (features.fc_networks("abacba"), np_networks, BOTH),
    "fc_lagged": (features.fc_lagged(), np_lagged, BOTH),
    "fc_eigenvalues": (features.fc_eigenvalues(), lambda y: np.linalg.eigvalsh(np_fc(y))[::-1][:3], BOTH),
    "global_connectivity": (
        features.global_connectivity(),
        lambda y: [np.mean(np_strengths(np_fc(y))), np.std(np_strengths(np_fc(y)))],
        BOTH,
    ),
    "fcd_stat": (features.fcd_stat(**WHERE), lambda y: np_fcd_stat(y, 25, 4), BOTH),
    "fcd_stat(only)": (features.fcd_stat(**WHERE, only=FCD_EXTRAS), lambda y: np_fcd_extras(y, 25, 4), BOTH),
    "fcd_histogram": (features.fcd_histogram(**WHERE, bins=7), np_histogram, BOTH),
    "moments": (features.moments(), np_all_moments, NONE),
    "autocorrelation(lag)": (features.autocorrelation(lag=6_300.0), lambda y: np_autocorrelation(y, 3), BOTH),
    "amplitude": (features.amplitude(), np_amplitude, BOTH),
    "skewness": (features.skewness(), lambda y: np_quantiles([np_moments(x)[2] for x in y.T]), BOTH),
    "statistics": (features.statistics(pool="spread"), per_node(np_statistics, "spread"), NONE),
    "area": (features.area(((0.0, 20e3), (7e3, 298e3)), pool="quantiles"), per_node(np_area, "quantiles"), NONE),
    "timescales": (features.timescales(), per_node(np_timescales), BOTH),
    "acf": (features.acf(lags=(2e3, 10e3, 40e3)), per_node(lambda x: np_acf(x, (1, 5, 20))), BOTH),
    "envelope": (features.envelope(pool="nodes"), per_node(np_envelope, "nodes"), SHIFT),
    "kuramoto_order": (features.kuramoto_order(), np_order, BOTH),
    "coactivation": (features.coactivation(pool="nodes"), np_coactivation, BOTH),
    "spectrum": (features.spectrum(SEGMENT), per_node(np_spectrum), SHIFT),
    "band_power": (features.band_power(BANDS, SEGMENT), per_node(np_bands), SHIFT),
    "band_power(relative)": (
        features.band_power(BANDS, SEGMENT, relative=True, rule="sum"),
        per_node(lambda x: np_bands(x, relative=True)),
        BOTH,
    ),
    "psd": (
        features.psd((0.033, 0.1, 0.25), SEGMENT),
        per_node(lambda x: np.interp([0.033, 0.1, 0.25], *np_welch(x))),
        SHIFT,
    ),
    "coherence": (features.coherence(BANDS, SEGMENT), np_coherence, BOTH),
    "wavelet": (features.wavelet((0.03, 0.11), cycles=5.0), per_node(np_wavelet), SHIFT),
    "entropy": (features.entropy(), per_node(np_entropies), SHIFT),
    "mutual_information": (features.mutual_information(), np_information, BOTH),
    "transfer_entropy": (features.transfer_entropy(), np_transfer, BOTH),
    "onset": (features.onset(5.0, pool="nodes"), per_node(np_onset, "nodes"), NONE),
    "bursts": (features.bursts(), per_node(np_bursts), BOTH),
    "spikes": (
        features.spikes(4.0, onset=20_000.0, duration=200_000.0, burst=6_500.0),
        per_node(np_spikes),
        NONE,
    ),
    "action_potential": (
        features.action_potential(4.0, onset=20_000.0, duration=200_000.0),
        per_node(np_action_potential),
        NONE,
    ),
    "subthreshold": (
        features.subthreshold(onset=60_000.0, duration=200_000.0, current=0.5),
        per_node(np_subthreshold),
        NONE,
    ),
    "avalanches": (features.avalanches(2.0), np_avalanches, BOTH),
}


every_feature = pytest.mark.parametrize("name", FEATURES)


@functools.cache
def compiled(name):
    """The value, its slopes along a direction and the gradient of its weighted sum, in float64; the value of a batch in
    float32. Compiled once for all tests."""
    summary = Summary(period=PERIOD, f=FEATURES[name][0])

    def everything(y, direction, weights):
        value, slope = jax.jvp(summary, (y,), (direction,))
        return value, slope, jax.vjp(summary, y)[1](weights)[0]

    return jax.jit(everything), jax.jit(jax.vmap(summary))


PARTLY = {  # some of their numbers do not read the node, or the time, of the NaN
    *("fc", "fc(mask)", "fc(covariance)", "fc(fisher)", "fc_networks", "area"),
    *("envelope", "onset"),
}


def derivatives(name, y, direction):
    """Value, slopes along `direction`, gradient of the sum with the weights, and the weights."""
    with jax.enable_x64(True):
        width = len(Summary(period=PERIOD, f=FEATURES[name][0]).names_for(6))
        weights = np.random.default_rng(8).normal(size=width)
        found = compiled(name)[0](*(jnp.asarray(a, "float64") for a in (y, direction, weights)))
        return *(np.asarray(a) for a in found), weights


def value(name, y):
    return derivatives(name, y, np.zeros_like(y))[0]


def close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=1e-7, atol=1e-9)


def test_no_public_feature_is_left_out_here_or_in_the_documents():
    public = {
        name
        for name, item in vars(features).items()
        if isinstance(item, type) and issubclass(item, features.Feature) and not inspect.isabstract(item)
    }
    assert public - {type(feature).__name__ for feature, _, _ in FEATURES.values()} == {"catch22"}  # needs its package
    text = (Path(__file__).parent.parent / "docs" / "features.md").read_text()
    words = set(re.findall(r"\w+", text))
    numbers = {*STATISTICS, *SPECTRUM, *ENVELOPE} - {"m3", "m4", "m5", "q50"}
    assert (public | numbers) - words == set()


@every_feature
def test_value_is_that_of_the_definition(name):
    y = recording()
    close(value(name, y), FEATURES[name][1](y))


@every_feature
def test_constant_nodes_count_as_documented(name):
    y = recording(1)
    y[:, 2] = 0.1  # no binary fraction: its mean over 150 samples is not exactly itself
    y[:, 5] = -1234.56
    close(value(name, y), FEATURES[name][1](y))


@every_feature
def test_names_are_as_many_as_numbers_and_differ(name):
    feature, oracle, _ = FEATURES[name]
    names = Summary(period=PERIOD, f=feature).names_for(6)
    assert len(names) == len(set(names)) == len(oracle(recording()))
    assert all(name.startswith(("f.", "f[")) for name in names)


@every_feature
def test_derivative_is_that_of_the_definition_forwards_and_backwards(name):
    oracle = FEATURES[name][1]
    y, direction = recording(2), np.random.default_rng(3).normal(size=(150, 6))
    _, slope, gradient, weights = derivatives(name, y, direction)
    h = 1e-5  # central difference of the definition: error about h^2 times the third derivative, and 1e-16 value / h
    expected = (np.array(oracle(y + h * direction)) - np.array(oracle(y - h * direction))) / (2 * h)
    rounding = 1e-10 * (1.0 + np.abs(oracle(y)))
    assert (np.abs(slope - expected) <= 1e-6 * np.abs(expected) + 1e-8 + rounding).all()
    np.testing.assert_allclose((gradient * direction).sum(), weights @ slope, rtol=1e-8, atol=1e-8)


@every_feature
@pytest.mark.parametrize("constant", [[3], [0, 1, 2, 3, 4, 5]], ids=["one node", "all nodes"])
def test_value_and_gradient_are_finite_at_constant_nodes(name, constant):
    y = recording(4)
    y[:, constant] = 2.7
    x, slope, gradient, _ = derivatives(name, y, recording(5))
    assert np.isfinite(x).all()
    assert np.isfinite(slope).all()
    assert np.isfinite(gradient).all()


@every_feature
def test_nan_in_the_data_gives_nan_and_not_an_error(name):
    y = recording()
    y[70, 1] = np.nan
    found = np.isnan(value(name, y))
    assert found.any()
    assert found.all() or name in PARTLY


@every_feature
def test_units_and_levels_cancel_where_they_are_said_to(name):
    y = recording(5)
    free_of = FEATURES[name][2]
    if "scale" in free_of:
        close(value(name, 7.3 * y), value(name, y))
    if "shift" in free_of:
        close(value(name, y + np.arange(-3.0, 3.0)), value(name, y))
    if not free_of:
        assert not np.allclose(value(name, 7.3 * y + 1.0), value(name, y), rtol=1e-2)


@every_feature
def test_float32_under_vmap_is_the_loop_to_a_hundredth_of_what_differs_between_recordings(name):
    several = np.stack([recording(seed) for seed in range(3)])
    exact = np.stack([value(name, y) for y in several])
    with jax.enable_x64(False):
        error = np.abs(np.asarray(compiled(name)[1](jnp.asarray(several, "float32"))) - exact)
    assert (error <= 0.01 * exact.std(axis=0) + 1e-4 * np.abs(exact) + 1e-6).all()


@pytest.mark.slow  # operation by operation: a minute of small compilations
@every_feature
def test_without_jit_the_numbers_are_the_same(name):
    y = recording(6)
    with jax.enable_x64(True):
        close(Summary(period=PERIOD, f=FEATURES[name][0])(y), value(name, y))


@pytest.mark.parametrize("name", ["envelope", "onset", "fc", "fc(covariance)", "fc_stat(spearman)"])
def test_a_nan_leaves_the_numbers_of_other_nodes_alone(name):
    y = recording()
    clean = value(name, y)
    y[70, 1] = np.nan
    x = value(name, y)
    names = Summary(period=PERIOD, f=FEATURES[name][0]).names_for(6)
    touched = np.array(["[" not in part or "1" in part[part.rindex("[") + 1 : -1].split(",") for part in names])
    np.testing.assert_array_equal(np.isnan(x), touched)
    close(x[~touched], clean[~touched])
