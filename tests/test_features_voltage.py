"""Spikes and voltages: ten traces against eFEL 5.7.34, an exponential against itself, errors."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

ARRAYS = dict(np.load(Path(__file__).parent / "golden" / "cable.npz"))
EFEL = json.loads(str(ARRAYS["info"]))["efel"]
CASES = tuple(EFEL["values"])
STIMULUS = {"onset": 50.0, "duration": 200.0}
F = vb.features


@pytest.fixture(scope="module")
def table():
    """Every number of every trace, by name: the traces are nodes of one recording."""
    with jax.enable_x64(True):
        y = jnp.asarray(np.stack([ARRAYS[f"efel_v_{case}"][1:] for case in CASES], axis=1))
        current = 0.1
        parts = [F.spikes(**STIMULUS), F.action_potential(**STIMULUS), F.subthreshold(**STIMULUS, current=current)]
        found = {}
        for part in parts:
            values = jax.jit(lambda y, part=part: part.per_node(y, 0.05))(y)
            found |= dict(zip(part.labels(), np.asarray(values), strict=True))
    return found


SAME = ("mean_frequency", "time_to_first_spike", "time_to_last_spike", "ISI_CV", "doublet_ISI", "adaptation_index2")
MEANS = (
    "AP_height",
    "AP_amplitude",
    "AP_width",
    "spike_half_width",
    "AP_rise_rate",
    "AP_fall_rate",
    "AP_peak_upstroke",
)
LEVELS = ("voltage_base", "steady_state_voltage_stimend", "minimum_voltage", "maximum_voltage")


@pytest.mark.parametrize("name", ["spike_count", *SAME, *MEANS, "AHP_depth_abs", *LEVELS])
def test_numbers_are_those_of_efel_where_it_has_them(table, name):
    key = {"spike_count": "Spikecount"}.get(name, name)
    defined = 0
    for k, case in enumerate(CASES):
        theirs = EFEL["values"][case][key]
        if theirs is None:
            continue
        if case == "hh_negative" and name in ("AP_amplitude", "AP_rise_rate"):
            continue  # its spike comes after the stimulus, where eFEL looks for a beginning elsewhere
        defined += 1
        assert table[name][k] == pytest.approx(np.mean(theirs), rel=1e-6, abs=1e-9), case
    assert defined >= 3


def test_intervals_and_slow_minima(table):
    """eFEL lists them; its sums of 0.05 ms round the 5 ms after a peak to one sample more in the first half."""
    for k, case in enumerate(CASES):
        values = EFEL["values"][case]
        if values["ISI_values"]:
            own = [table[name][k] for name in ("ISI_mean", "ISI_min", "ISI_max")]
            theirs = [f(values["ISI_values"]) for f in (np.mean, np.min, np.max)]
            np.testing.assert_allclose(own, theirs, rtol=1e-6)
            np.testing.assert_allclose(table["AHP_depth_abs_slow"][k], np.mean(values["AHP_depth_abs_slow"]), rtol=3e-3)
            np.testing.assert_allclose(table["AHP_slow_time"][k], np.mean(values["AHP_slow_time"]), rtol=0.011)
        heights = values["AP_height"]
        assert table["AP_height_drift"][k] == pytest.approx(heights[-1] - heights[0] if heights else 0.0, abs=1e-6)
        if values["sag_ratio1"]:
            np.testing.assert_allclose(table["sag_ratio"][k], values["sag_ratio1"][0], rtol=1e-6, atol=1e-7)
        current = EFEL["settings"]["stimulus_current"][case]
        resistance = values["ohmic_input_resistance_vb_ssse"][0]
        assert table["input_resistance"][k] * 0.1 / current == pytest.approx(resistance, rel=1e-6)


def test_silent_traces_are_zeros_with_their_flags_down(table):
    silent = [k for k, case in enumerate(CASES) if EFEL["values"][case]["Spikecount"] == [0.0]]
    assert len(silent) == 2
    for part in (F.spikes(), F.action_potential()):
        for name in part.labels():
            assert (table[name][silent] == 0.0).all(), name
    counts = np.array([EFEL["values"][case]["Spikecount"][0] for case in CASES])
    for k in (1, 2, 3, 4):
        np.testing.assert_array_equal(table[f"has_{k}"], counts >= k)


def test_time_constant_and_resistance_of_an_exponential_are_its_own():
    t = np.arange(1, 1201) * 0.25
    v = np.where(t <= 50, -70.0, -70.0 - 12.0 * (1 - np.exp(-(t - 50) / 9.0)))[:, None]
    feature = F.subthreshold(onset=50.0, duration=250.0, current=-0.1, only=("time_constant", "input_resistance"))
    with jax.enable_x64(True):
        np.testing.assert_allclose(feature(jnp.asarray(v), 0.25), [9.0, 120.0], rtol=1e-6)


def test_mistakes():
    for make, words in (
        (lambda: F.spikes(only=("count",)), "no number 'count'"),
        (lambda: F.spikes(duration=-3.0), "duration=-3.0"),
        (lambda: F.subthreshold(onset=50.0)(jnp.zeros((10, 1)), 1.0), "begins after the first"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
