"""Phase planes and bifurcation diagrams: what is drawn lies where closed forms have it."""

import json
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import vbinfer as vb

NUMBERS = json.loads(str(np.load(Path(__file__).parent / "golden" / "explore.npz")["numbers"]))
HEUN = vb.Heun(dt=0.05)
MPR = vb.Simulator(vb.models.MontbrioPazoRoxin(), integrator=HEUN)


@pytest.fixture(autouse=True)
def closed():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def nullclines(axes):
    """Vertices `[K, 2]` of the contours, in the order in which they were drawn."""
    from matplotlib.contour import ContourSet

    return [np.concatenate([p.vertices for p in c.get_paths()]) for c in axes.collections if isinstance(c, ContourSet)]


def marked(axes, label):
    return next(line for line in axes.lines if line.get_label() == label).get_xydata()


def test_the_plane_of_montbrio_pazo_and_roxin():
    """Nullclines V = -Delta / (2 pi r) and V^2 = pi^2 r^2 - J r - eta, and golden points."""
    points = vb.fixed_points(MPR, key=jax.random.key(0))
    run = vb.simulate(MPR, t1=20.0, key=None, init={"r": 0.6, "V": -0.2}).ys["raw"]
    axes = vb.explore.plot_phase_plane(MPR, "r", "V", points=points, runs=[run], limits=((0.01, 2.0), (-3.0, 2.0)))
    of_r, of_V = nullclines(axes)
    cell = np.array([2.0, 5.0]) / 120
    r, V = of_r[of_r[:, 0] > 0.1].T
    np.testing.assert_allclose(V, -1.0 / (2.0 * np.pi * r), atol=cell[1])
    r, V = of_V.T
    np.testing.assert_allclose(V**2, np.pi**2 * r**2 - 15.0 * r + 5.0, atol=4.0 * cell.max())
    exact = np.array([[p["r"], p["V"]] for p in NUMBERS["mpr_default"]["fixed"]])
    np.testing.assert_allclose(marked(axes, "stable"), exact[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(marked(axes, "unstable"), exact[[1]], atol=1e-5)
    drawn = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 400]
    np.testing.assert_allclose(drawn[0][-1], exact[2], atol=0.02)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("r", "V")


def test_the_plane_of_a_node_holds_the_others():
    """x_1' = -x_1 + y_1 / 2 + c: the nullcline moves by what the other node sends; negative rates are left blank."""
    drift = lambda t, x, c, u, p: (-x.x + 0.5 * x.y + c[0], x.x - 2.0 * x.y)  # noqa: E731
    sim = vb.Simulator(
        vb.models.custom(drift, state={"x": 0.0, "y": 0.0}, cvar=("x",)),
        vb.Connectome([[0.0, 0.3], [1.0, 0.0]]),
        coupling=vb.coupling.Linear(G=1.0),
        integrator=HEUN,
    )
    limits = ((-3.0, 3.0), (-2.0, 4.0))
    axes = vb.explore.plot_phase_plane(sim, "x", "y", at={"x": [7.0, 2.0]}, node=0, limits=limits)
    x, y = nullclines(axes)[0].T
    np.testing.assert_allclose(x, 0.5 * y + 0.3 * 2.0, atol=1e-6)
    axes = vb.explore.plot_phase_plane(sim, "x", "y", at={"x": [7.0, 2.0]}, node=1, limits=((5.0, 9.0), (-2.0, 4.0)))
    x, y = nullclines(axes)[0].T
    np.testing.assert_allclose(x, 0.5 * y + 7.0, atol=1e-6)
    positive = vb.explore.plot_phase_plane(MPR, "r", "V", limits=((-1.0, 2.0), (-3.0, 1.0)))
    assert 0.0 <= positive.get_xlim()[0] <= 3.0 / 120


def test_a_diagram_has_the_branch_its_events_and_the_extrema():
    golden = NUMBERS["mpr_folds"]
    model = vb.models.MontbrioPazoRoxin(J=golden["J"], Delta=golden["Delta"], eta=-7.0)
    sim = vb.Simulator(model, integrator=HEUN)
    branch = vb.explore.continuation(sim, "model.eta", x0={"r": 0.06, "V": -2.5}, to=-2.0)
    axes = vb.explore.plot_bifurcations(branch, "r")
    folds = np.array([[fold["eta"], fold["r"]] for fold in golden["folds"]])
    np.testing.assert_allclose(marked(axes, "fold"), folds, atol=1e-5)
    assert [text.get_text() for text in axes.texts] == [f"{eta:.4g}" for eta in folds[:, 0]]
    unstable = marked(axes, "unstable")
    unstable = unstable[np.isfinite(unstable).all(axis=1)]
    low, high = sorted(folds[:, 1])
    assert unstable[:, 1].min() > low - 0.02
    assert unstable[:, 1].max() < high + 0.02
    values = np.linspace(-7.0, -2.0, 11)
    ds = vb.explore.adiabatic(sim, "model.eta", values, t1=60.0, transient=50.0, init={"r": 0.06, "V": -2.5})
    assert vb.explore.plot_bifurcations(ds, "r", ax=axes) is axes
    np.testing.assert_allclose(marked(axes, "up, min and max")[:, 1], ds["r"].sel(ramp="up", of="min")[:, 0])
    np.testing.assert_allclose(marked(axes, "down, min and max")[:, 0], values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "R"}, "'r', 'V'"),
        ({"y": "r"}, "both 'r'"),
        ({"node": 1}, "node=1"),
        ({"limits": None}, "give limits="),
        ({"limits": ((1.0, 0.0), (0.0, 1.0))}, "lowest and the highest"),
        ({"sim": vb.Simulator(vb.models.Kuramoto(), integrator=HEUN)}, "phases"),
        ({"sim": vb.Simulator(vb.spiking.LIF(10.0, -70.0, -50.0, -65.0, 2.0), integrator=vb.Native(0.1))}, "own step"),
    ],
)
def test_planes_that_cannot_be_drawn_are_refused(options, message):
    given = {"sim": MPR, "x": "r", "y": "V", "limits": ((0.0, 1.0), (-2.0, 2.0)), **options}
    with pytest.raises(ValueError, match=message):
        vb.explore.plot_phase_plane(**given)


def test_points_without_a_fixed_point_say_what_to_give():
    escaping = vb.models.custom(lambda t, x, c, u, p: (1.0 + x.x**2, -x.y), state={"x": 0.3, "y": 0.1})
    sim = vb.Simulator(escaping, integrator=HEUN)
    with pytest.warns(UserWarning, match="none of"):
        points = vb.fixed_points(sim, starts=2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="points holds no fixed point"):
        vb.explore.plot_phase_plane(sim, "x", "y", points=points)
    axes = vb.explore.plot_phase_plane(sim, "x", "y", points=points, limits=((-1.0, 1.0), (-1.0, 1.0)))
    assert not [line for line in axes.lines if len(line.get_xdata())]


def test_diagrams_of_other_things_are_refused():
    with pytest.raises(TypeError, match=r"vb\.explore\.continuation"):
        vb.explore.plot_bifurcations({"r": 1.0}, "r")
    ds = vb.explore.adiabatic(MPR, "model.eta", [-7.0, -6.0], t1=2.0, transient=1.0)
    with pytest.raises(ValueError, match="'r', 'V'"):
        vb.explore.plot_bifurcations(ds, "R")
