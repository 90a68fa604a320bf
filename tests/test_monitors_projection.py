"""Sensors and groups: matrix products of the recorded series; the files and positions that gains come from."""

import bz2

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import savemat

import vbinfer as vb
from vbinfer.monitors import EEG, MEG, SEEG, Raw, SpatialAverage

RNG = np.random.default_rng(0)
GAIN = RNG.normal(size=(2, 3))
GROUPS = ["right", "left", "right"]


def network(monitors, **values):
    """Three unlike nodes, asymmetrically coupled, with noise: means far from zero."""
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=jnp.array([-5.0, -4.5, -4.0])),
        vb.Connectome([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 2.0, 0.0]], np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=0.3),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(sigma=0.1),
        monitors=monitors,
    )
    return vb.bind(sim, values)


MONITORS = {
    "raw": Raw(),
    "eeg": EEG(GAIN, var="V", period=0.7),
    "source": EEG(GAIN, var={"V": 2.0, "r": -10.0}, period=0.7, labels=("Fz", "Cz")),
    "average": EEG(GAIN, "V", 0.7, reference="average"),
    "to_Cz": SEEG(GAIN, "V", 0.7, reference="Cz", labels=("Fz", "Cz")),
    "meg": MEG(GAIN[::-1], "r", 2.1),
    "groups": SpatialAverage("V", GROUPS, 0.7),
}


@pytest.fixture(scope="module")
def recorded():
    ys = vb.simulate(network(MONITORS), t1=21.0, key=jax.random.key(0)).ys
    return {name: np.asarray(ys["raw"][name], float) for name in "rV"}, ys


def means(series, steps):
    return series.reshape(-1, steps, 3).mean(1)


def test_sensors_are_gains_times_the_means_of_the_recorded_sources(recorded):
    raw, ys = recorded
    V, r = means(raw["V"], 7), means(raw["r"], 7)
    np.testing.assert_allclose(ys["eeg"], V @ GAIN.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ys["source"], (2.0 * V - 10.0 * r) @ GAIN.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ys["meg"], means(raw["r"], 21) @ GAIN[::-1].T, rtol=1e-4, atol=1e-6)


def test_references_are_subtracted(recorded):
    raw, ys = recorded
    y = means(raw["V"], 7) @ GAIN.T
    np.testing.assert_allclose(ys["average"], y - y.mean(1, keepdims=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ys["to_Cz"], y - y[:, 1:], rtol=1e-4, atol=1e-5)


def test_groups_are_means_of_their_regions_at_the_end_of_the_period(recorded):
    raw, ys = recorded
    V = raw["V"][6::7]
    np.testing.assert_allclose(ys["groups"], np.stack([(V[:, 0] + V[:, 2]) / 2, V[:, 1]], 1), rtol=1e-5)
    assert MONITORS["groups"].labels == ("right", "left")
    numbered = SpatialAverage("V", [2, 0, 2], 1.0)
    assert numbered.labels == ("0", "2")
    np.testing.assert_array_equal(numbered.weights, [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    assert SpatialAverage("V", np.array([2.0, 0.0, 2.0]), 1.0).labels == ("0", "2")  # as a file or TOML gives them
    np.testing.assert_allclose(SpatialAverage("V", GAIN, 1.0).weights, GAIN, rtol=1e-6)


def test_a_run_in_two_pieces_is_the_run_in_one(recorded):
    """The cut falls inside a period of every monitor."""
    sim, key = network(MONITORS), jax.random.key(0)
    first = vb.simulate(sim, t1=9.2, key=key)
    second = vb.simulate(sim, t1=11.8, key=key, init=first.final)
    for name in MONITORS.keys() - {"raw"}:
        joined = jnp.concatenate([first.ys[name], second.ys[name]])
        np.testing.assert_array_equal(joined, recorded[1][name])


@pytest.mark.parametrize("name", ["eeg", "average", "groups"])
def test_a_batch_equals_its_draws_with_gains_shared_and_drawn(name):
    """As many draws as nodes, so that a wrong axis would show."""
    fwd = vb.ForwardModel(network({name: MONITORS[name]}), t1=7.0, monitor=name, summary=lambda y: y.ravel())
    keys, draws = jax.random.split(jax.random.key(2), 3), np.random.default_rng(3)
    leaf = f"monitors.{name}.{'weights' if name == 'groups' else 'gain'}"
    for theta in ({"coupling.G": draws.normal(size=3)}, {leaf: draws.normal(size=(3, 2, 3))}):
        x = fwd.batch(theta, keys)
        for b in range(3):
            one = fwd({path: value[b] for path, value in theta.items()}, keys[b])
            np.testing.assert_allclose(x[b], one, rtol=2e-4, atol=2e-5)


def test_the_gradient_with_respect_to_a_gain_is_the_mean_activity(recorded):
    V = means(recorded[0]["V"], 7)

    def total(gain):
        sim = network({"eeg": MONITORS["eeg"]}, **{"monitors.eeg.gain": gain})
        return vb.simulate(sim, t1=21.0, key=jax.random.key(0)).ys["eeg"].sum()

    gradient = jax.grad(total)(jnp.asarray(GAIN, jnp.result_type(float)))
    np.testing.assert_allclose(gradient, np.broadcast_to(V.sum(0), (2, 3)), rtol=1e-4)


def test_projections_are_read_from_every_format(tmp_path):
    gain = RNG.normal(size=(4, 6))
    np.save(tmp_path / "a.npy", gain)
    np.savez(tmp_path / "b.npz", other=np.ones(3), anything=gain)
    np.savez(tmp_path / "c.npz", more=np.ones((2, 2)), gain=gain)
    savemat(tmp_path / "d.mat", {"ProjectionMatrix": gain, "more": np.ones((2, 2))})
    np.savetxt(tmp_path / "e.txt", gain, fmt="%.17g")
    (tmp_path / "f.csv.bz2").write_bytes(
        bz2.compress("\n".join(",".join(map(repr, r)) for r in gain.tolist()).encode())
    )
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(vb.monitors.read_projection(path), gain)
    np.testing.assert_array_equal(vb.monitors.read_projection(tmp_path / "c.npz", name="more"), 1.0)


@pytest.mark.parametrize("packed", [False, True])
def test_sensors_are_read_with_and_without_directions(tmp_path, packed):
    text = "# a comment\nA1 1.5 -2 3e1 0 0 1\n\nMLC11\t4 5 6 0.6 0.8 0\n"
    path = tmp_path / ("meg.txt.bz2" if packed else "meg.txt")
    path.write_bytes(bz2.compress(text.encode()) if packed else text.encode())
    labels, positions, orientations = vb.monitors.read_sensors(path)
    assert labels == ("A1", "MLC11")
    np.testing.assert_array_equal(positions, [[1.5, -2.0, 30.0], [4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(orientations, [[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]])
    (tmp_path / "eeg.txt").write_text("Fz 1 2 3\nCz 4 5 6\n")
    assert vb.monitors.read_sensors(tmp_path / "eeg.txt").orientations is None


def test_region_gains_give_the_signal_of_a_surface_with_equal_activity_in_a_region():
    gain, mapping = RNG.normal(size=(3, 50)), RNG.integers(0, 5, 50)
    x = RNG.normal(size=7)
    regions = vb.monitors.region_gain(gain, mapping, n_regions=7)
    np.testing.assert_allclose(regions @ x, gain @ x[mapping], rtol=1e-12)
    np.testing.assert_array_equal(regions[:, 5:], 0.0)


def test_gains_of_contacts_follow_their_power_of_distance():
    contact, centre = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]]), np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 12.0]])
    distances = np.array([[5.0, 12.0], [2.0, np.sqrt(9 + 16 + 196)]])
    make = vb.monitors.seeg_gain
    np.testing.assert_allclose(make(contact, centre, sigma=0.3), 1 / (4 * np.pi * 0.3 * distances**2))
    np.testing.assert_allclose(make(contact, centre, power=1), 1 / (4 * np.pi * distances))


def test_a_dipole_is_two_opposite_monopoles_close_together():
    """The finite difference of the monopole's potential along the orientation."""
    contact, centre = RNG.normal(size=(4, 3)) * 30, RNG.normal(size=(5, 3)) * 30
    along = RNG.normal(size=(5, 3))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    make, h = vb.monitors.seeg_gain, 1e-4
    apart = make(contact, centre + h * along, power=1) - make(contact, centre - h * along, power=1)
    np.testing.assert_allclose(make(contact, centre, along), apart / (2 * h), rtol=1e-6, atol=1e-12)


def test_channels_without_gains_keep_their_rows_of_nan(tmp_path):
    """TVB's files have them for triggers and references; a monitor refuses them."""
    gain = np.vstack([GAIN, np.full(3, np.nan)])
    np.save(tmp_path / "a.npy", gain)
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), gain)
    with pytest.raises(ValueError, match=r"EEG.gain holds NaN"):
        EEG(gain, "V", 1.0)


HOLE = np.array([[False, False, False], [False, True, False]])
read = vb.monitors.read_projection


def _read(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    return vb.monitors.read_sensors(tmp_path / name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: EEG(GAIN, "V", 1.0, labels=("a", "b", "c")), "3 labels for a gain with 2 sensors"),
        (lambda p: EEG(GAIN, "V", 1.0, reference="mean"), "no sensor 'mean' to refer to"),
        (lambda p: EEG(GAIN[0], "V", 1.0), r"expected \[sensor, node\]"),
        (lambda p: EEG(GAIN, {}, 1.0), "no source"),
        (lambda p: network({"eeg": EEG(GAIN, "v", 1.0)}), "no such variable. Known: V, r"),
        (lambda p: simulated(EEG(np.ones((2, 4)), "V", 1.0)), r"\[2, 4\] for a simulation of 3 nodes"),
        (lambda p: simulated(SpatialAverage("V", [0, 1], 1.0)), r"\[2, 2\] for a simulation of 3 nodes"),
        (lambda p: SpatialAverage("V", [0.5, 1.0], 1.0), "a label or a whole number"),
        (lambda p: _read(p, "s.txt", "Fz 1 2 3\nCz 1 2\n"), "line 2 of"),
        (lambda p: _read(p, "s.txt", ""), "no sensors"),
        (lambda p: _read(p, "s.txt", "Fz 1 2 3 4 5 6\nCz 1 2 3\n"), "the same in every line"),
        (lambda p: (np.savez(p / "a.npz", x=GAIN, y=GAIN), read(p / "a.npz")), "x, y; none of"),
        (lambda p: (np.save(p / "a.npy", np.where(HOLE, np.nan, GAIN)), read(p / "a.npy")), "row 1 of"),
        (lambda p: (np.save(p / "a.npy", GAIN[0]), read(p / "a.npy")), r"shape \[3\]"),
        (lambda p: vb.monitors.region_gain(GAIN, np.array([0, 1])), r"\[2, 3\] and mapping \[2\]"),
        (lambda p: vb.monitors.region_gain(GAIN, np.array([0, 1, 4]), 3), "names region 4 but n_regions=3"),
        (lambda p: vb.monitors.seeg_gain(np.zeros((1, 3)), np.zeros((1, 3))), "exactly on the centre"),
    ],
)
def test_mistakes(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


def simulated(monitor):
    return vb.simulate(network({"m": monitor}), t1=2.0, key=jax.random.key(0))
