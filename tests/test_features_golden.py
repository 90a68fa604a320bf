"""Every reference number of golden/features.npz comes out of a public feature or helper, in both precisions.

The numbers were made in float64 by NumPy and SciPy from definitions written down beside them, not from this code.
Tolerances, relative to the largest number of a key: 1e-10 in float64 (1e-8 after a Hilbert transform or a matrix
solver), 1e-4 in float32 (sums of up to 2,000 rounded terms, sixth powers).
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbinfer import features

GOLDEN = np.load(Path(__file__).parent / "golden" / "features.npz")
PERIOD = {"slow": 1000.0 * float(GOLDEN["TR"]), "fast": 1000.0 / float(GOLDEN["fs"])}
SEGMENT = {"slow": 128 * PERIOD["slow"], "fast": 500 * PERIOD["fast"]}
STATISTICS = {
    **{name: name for name in ("mean", "std", "var", "skew", "kurtosis", "median", "iqr", "rms", "abs_energy")},
    **{name: name for name in ("mean_abs_dev", "median_abs_dev")},
    "var_ddof1": "var_unbiased",
    "periodogram_total": "var",
    "zero_cross_raw": "zero_crossings",
    "zero_cross_demeaned": "zero_crossings_centred",
}
TIMESCALES = {
    "act_1e": "e_folding",
    "act_1e_interp": "e_folding_interpolated",
    "act_integrated": "integrated",
    "first_zero_acf": "first_zero",
}
SPECTRUM = {
    **{f"spectral_{name}": name for name in ("centroid", "spread", "entropy")},
    **{name: name for name in ("peak_frequency", "median_frequency", "edge95", "fundamental_frequency")},
}
FCD = {
    "var_ut1": "var_overlapping",
    "var_nonoverlap": "var",
    "var_triu_fullmatrix": "var_with_zeros",
    "sum_abs_off": "abs_sum",
}
THROUGH_A_SOLVER = ("envelope", "kuramoto", "plv", "eigvals", "partial")


def of_each_signal(y, signal):
    """Keys without `own__slow_` or `own__fast_`."""
    period, segment = PERIOD[signal], SEGMENT[signal]

    def nodes(feature):
        values = feature(y, period).reshape(-1, y.shape[1])
        return dict(zip(feature.labels(), values, strict=True)), values

    def band_power(rule):
        bands = GOLDEN[f"own__{signal}_bands"].tolist()
        return nodes(features.band_power(bands, segment, rule=rule, pool="nodes"))[1]

    statistics, _ = nodes(features.statistics(pool="nodes"))
    timescales, _ = nodes(features.timescales(pool="nodes"))
    spectrum, _ = nodes(features.spectrum(segment, pool="nodes"))
    acf = nodes(features.acf(lags=200, pool="nodes"))[1].T
    frequencies, density = features.welch(y, period=period, segment=segment)
    return {
        **{key: statistics[name] for key, name in STATISTICS.items()},
        "moments_2_6": jnp.stack([statistics[f"m{k}"] for k in range(2, 7)]),
        "auc_trapz": statistics["area"] / period,
        "acf": jnp.concatenate([jnp.ones_like(acf[:, :1]), acf], axis=1),
        **{key: timescales[name] / period for key, name in TIMESCALES.items()},
        "envelope_stats": nodes(features.envelope(pool="nodes"))[1],
        "kuramoto_R_t": features.order_parameter(y),
        "kuramoto_mean_std": features.kuramoto_order()(y, period),
        "plv": features.plv_matrix(y),
        "welch_f": frequencies,
        "welch_psd": density.T,
        "band_power_trapz": band_power("trapezoid"),
        "band_power_rect": band_power("sum"),
        **{key: spectrum[name] for key, name in SPECTRUM.items()},
        "coherence01": features.coherence_matrix(y, period=period, segment=segment)[1][:, 0, 1],
    }


def of_the_matrix(y):
    """Keys `own__fc` and those that begin with it, and the covariance."""
    period = PERIOD["slow"]
    blocks = features.homotopic_mask(10, "blocks")
    named = features.fc_stat(pairs="blocks", only=("homotopic_positive", "abs_sum"))(y, period)
    return {
        "fc": features.fc_matrix(y),
        "cov_ddof1": features.covariance_matrix(y),
        "fc_spearman": features.spearman_matrix(y),
        "fc_partial": features.partial_matrix(y),
        "fc_lag1_corr": features.lagged_matrix(y, lag=2000.0, period=period),
        "fc_homotopic": features.fc(mask=blocks)(y, period),
        "fc_homotopic_mean_positive": named[0],
        "fc_sum": named[1],
        "fc_gbc": features.global_connectivity(pool="nodes")(y, period),
        "fc_fisher_z_ut": features.fc(fisher=True)(y, period),
        "fc_eigvals": features.fc_eigenvalues(count=10)(y, period),
    }


def of_the_windows(y, w, s, windows):
    """Keys `own__fcd_w{w}_s{s}_{windows}_` without that beginning."""
    period = PERIOD["slow"]
    where = {"window": w * period, "step": s * period, "windows": windows}
    matrix = features.fcd_matrix(y, period=period, **where)
    count = matrix.shape[0]
    return {
        "matrix": matrix,
        "starts_n": jnp.asarray(float(count)),
        "hist20": features.fcd_histogram(**where)(y, period) * (count * (count - 1) // 2),
        **dict(zip(FCD, features.fcd_stat(only=tuple(FCD.values()), **where)(y, period), strict=True)),
    }


@functools.cache
def numbers_of(family, signal, precision, *options):
    """All the numbers of a family of keys, compiled and computed once."""
    with jax.enable_x64(precision == "float64"):
        y = jnp.asarray(GOLDEN[signal].T, precision)
        return jax.tree.map(np.asarray, jax.jit(lambda y: family(y, *options))(y))


def number(key, precision):
    name = key.removeprefix("own__")
    windows = re.fullmatch(r"fcd_w(\d+)_s(\d+)_(all|skiplast)_(.*)", name)
    if windows:
        w, s, which, what = windows.groups()
        return numbers_of(of_the_windows, "slow", precision, int(w), int(s), which)[what]
    signal, _, rest = name.partition("_")
    if signal in PERIOD:
        return numbers_of(of_each_signal, signal, precision, signal)[rest]
    return numbers_of(of_the_matrix, "slow", precision)[name]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("key", [k for k in GOLDEN.files if k.startswith("own__") and not k.endswith("_bands")])
def test_golden_number(key, precision):
    given, expected = number(key, precision), GOLDEN[key]
    rtol = 1e-4 if precision == "float32" else 1e-8 if any(word in key for word in THROUGH_A_SOLVER) else 1e-10
    atol = rtol * np.abs(expected).max()
    if "hist20" in key and precision == "float32":  # rounding moves a few pairs of windows over the edge of a bin
        atol = 3 + 1e-5 * expected.sum()
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, rtol=0.0, atol=atol)


PER_NODE = {  # feature, and the golden numbers of one of its rows
    "statistics": (features.statistics(pool="nodes"), "iqr", GOLDEN["own__slow_iqr"]),
    "timescales": (features.timescales(pool="nodes"), "integrated", 2000.0 * GOLDEN["own__slow_act_integrated"]),
    "spectrum": (features.spectrum(SEGMENT["slow"], pool="nodes"), "centroid", GOLDEN["own__slow_spectral_centroid"]),
    "envelope": (features.envelope(pool="nodes"), "std", GOLDEN["own__slow_envelope_stats"][1]),
}


@pytest.mark.parametrize("name", PER_NODE)
def test_a_constant_or_nan_channel_leaves_the_ten_others_alone(name):
    feature, label, golden = PER_NODE[name]
    run = jax.jit(lambda y: feature(y, PERIOD["slow"]).reshape(-1, y.shape[1]))
    with jax.enable_x64(True):
        constant, hole = (np.asarray(run(GOLDEN[key].T)) for key in ("slow_const", "slow_nan"))
    np.testing.assert_allclose(constant[feature.labels().index(label), :10], golden, rtol=1e-8)
    np.testing.assert_allclose(hole[:, :10], constant[:, :10], rtol=1e-12)
    assert np.isnan(hole[:, 10]).all()
    level = GOLDEN["slow_const"][10, 0]
    t = 2000.0 * np.arange(600)
    written = {
        **dict.fromkeys(("mean", "median", "max", "min", "q05", "q25", "q50", "q75", "q95", "rms"), level),
        "burstiness": -1.0,
        "area": level * t[-1],
        "abs_energy": 600 * level**2,
        "average_power": 600 * level**2 / 1198.0,
        "centroid": t.mean(),
    }
    expected = [written.get(label, 0.0) if name == "statistics" else 0.0 for label in feature.labels()]
    np.testing.assert_allclose(constant[:, 10], expected, rtol=1e-12, atol=1e-12)
