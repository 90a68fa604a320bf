"""Pictures of fields: what is drawn is the field, at its place, in its colour."""

import numpy as np
import pytest

import vbinfer as vb

F = vb.fields
SPHERE = F.Sphere(7, radius=50.0)
BALL = F.Mesh.icosphere(1, 50.0)


def test_a_sphere_is_a_map_with_every_point_in_its_cell():
    values = np.random.default_rng(0).normal(size=SPHERE.n_nodes)
    axes = vb.reporting.plot_field(SPHERE, values, label="mV").axes
    mesh = axes[0].collections[0]
    corners = np.asarray(mesh.get_coordinates())  # [lat + 1, lon + 1, 2]: longitude, latitude
    shown = np.asarray(mesh.get_array())
    x, y, z = np.asarray(SPHERE.positions, float).T / 50.0
    found = []
    for a, b in zip(np.arctan2(y, x), np.arcsin(z), strict=True):
        row = np.flatnonzero((corners[:-1, 0, 1] > b) & (b > corners[1:, 0, 1]))
        column = np.flatnonzero((corners[0, :-1, 0] < a + 1e-9) & (a + 1e-9 < corners[0, 1:, 0]))
        a_turn = column if len(column) else np.array([0])  # longitude pi lies on the edge
        found.append(shown[row[0], a_turn[0]])
    np.testing.assert_allclose(found, values, rtol=1e-6)
    low, high = mesh.get_clim()
    assert low == -high == -np.abs(values).max()  # colours diverge from 0
    assert axes[-1].get_ylabel() == "mV"


def test_a_mesh_is_drawn_in_the_mean_colour_of_corners_from_both_sides():
    values = np.asarray(BALL.positions)[:, 0] + 60.0
    figure = vb.reporting.plot_field(BALL, values, limits=(0.0, 120.0))
    left, right = figure.axes[:2]
    assert (left.azim, right.azim) == (180.0, 0.0)
    from matplotlib import colormaps

    for axes, azimuth in ((left, np.pi), (right, 0.0)):
        expected = []
        for triangle in np.asarray(BALL.triangles):
            a, b, c = np.asarray(BALL.vertices, float)[triangle]
            normal = np.cross(b - a, c - a)
            light = 0.6 + 0.4 * abs(normal @ [np.cos(azimuth), np.sin(azimuth), 0.0]) / np.linalg.norm(normal)
            expected.append(light * np.array(colormaps["viridis"](values[triangle].mean() / 120.0)[:3]))
        # matplotlib gives them by depth
        in_order = lambda rows: rows[np.lexsort(np.round(rows, 6).T)]  # noqa: E731
        faces = axes.collections[0].get_facecolor()[:, :3]
        np.testing.assert_allclose(in_order(faces), in_order(np.array(expected)), atol=2e-6)


def test_an_animation_shows_every_row_at_its_time(tmp_path):
    rows = np.random.default_rng(1).normal(size=(3, BALL.n_nodes))
    film = vb.reporting.animate_field(BALL, rows, period=2.5, limits=(-2.0, 2.0))
    film.save(tmp_path / "field.gif", writer="pillow", dpi=30)
    from PIL import Image

    with Image.open(tmp_path / "field.gif") as picture:
        assert picture.n_frames == 3
    film._func(2)
    still = vb.reporting.plot_field(BALL, rows[2], limits=(-2.0, 2.0))
    seen, alone = (f.axes[0].collections[0].get_facecolor() for f in (film._fig, still))
    np.testing.assert_allclose(seen, alone, atol=1e-12)
    assert film._fig._suptitle.get_text() == "5 ms"


def test_a_cortex_is_its_surfaces_one_below_the_other():
    cortex = F.Cortex([BALL, SPHERE], points=2)
    values = np.arange(float(cortex.n_nodes))
    figure = vb.reporting.plot_field(cortex, values)
    drawn = [axes for axes in figure.axes if axes.collections]
    shown = np.asarray(drawn[2].collections[0].get_array())
    np.testing.assert_array_equal(np.sort(shown.ravel()), np.sort(values[42 : 42 + SPHERE.n_nodes]))


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda: vb.reporting.plot_field(BALL, np.zeros(5)), r"expected \[42\]"),
        (lambda: vb.reporting.plot_field(BALL, np.zeros((42, 3))), r"expected \[42\]"),
        (lambda: vb.reporting.plot_field(BALL, np.full(42, np.nan)), "nothing to draw"),
        (lambda: vb.reporting.plot_field(BALL, np.zeros(42), limits=(1.0, 1.0)), "limits"),
        (lambda: vb.reporting.animate_field(BALL, np.zeros(42), 1.0), r"\[T, 42\]"),
        (lambda: vb.reporting.animate_field(BALL, np.zeros((3, 42)), 0.0), "period"),
    ],
)
def test_what_cannot_be_drawn_gets_a_sentence(call, remedy):
    with pytest.raises(ValueError, match=remedy):
        call()
