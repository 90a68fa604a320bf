"""Cortices of two surfaces and points, and monitors of their regions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

F = vb.fields


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def cortex():
    """Two unlike hemispheres and three points."""
    with jax.enable_x64(True):
        return F.Cortex([F.Mesh.icosphere(1, 40.0), F.Mesh.icosphere(2, 30.0)], points=3)


def test_operators_act_within_each_surface(cortex):
    x = np.random.default_rng(0).normal(1.0, 1.0, (207, 2))
    assert cortex.n_nodes == 207
    left, right = cortex.domains
    at = cortex.parts()
    apply, flow = lambda op, y: op(y), lambda op, y: op.flow(y, 0.8)
    for make, act, points in (
        (lambda d: F.LaplaceBeltrami(d, D=3.0), apply, 0.0),
        (lambda d: F.LaplaceBeltrami(d, D=3.0), flow, x[at[2]]),
        (lambda d: F.Kernel(d, F.Gaussian(9.0), cutoff=40.0), flow, x[at[2]]),
        (lambda d: F.Kernel(d, F.Exponential(5.0), "rows", cutoff=40.0), apply, 0.0),
    ):
        found = act(make(cortex), x)
        np.testing.assert_allclose(found[at[0]], act(make(left), x[at[0]]), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found[at[1]], act(make(right), x[at[1]]), rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(found[at[2]], np.broadcast_to(points, (3, 2)))
    both = np.sort(np.concatenate([F.Kernel(d, F.Gaussian(9.0)).eigenvalues(20) for d in (left, right)]))[::-1]
    np.testing.assert_allclose(F.Kernel(cortex, F.Gaussian(9.0)).eigenvalues(20), both[:20], rtol=1e-10)


def test_modes_of_a_cortex_are_orthonormal_and_the_first_is_constant(cortex):
    phi, eigenvalue = cortex.modes(30)
    np.testing.assert_allclose(phi.T @ (cortex.areas[:, None] * phi), np.eye(30), atol=1e-10)
    np.testing.assert_allclose(phi[:204, 0], cortex.areas.sum() ** -0.5, rtol=1e-12)
    np.testing.assert_array_equal(phi[204:], 0.0)
    np.testing.assert_allclose(F.LaplaceBeltrami(cortex, D=1.0)(phi), -eigenvalue * phi, atol=1e-12)
    both = np.sort(np.concatenate([d.modes(42)[1] for d in cortex.domains]))[:30]
    np.testing.assert_allclose(eigenvalue, both, atol=1e-14)
    part = vb.RandomField(phi, eigenvalue, length=30.0, sd=0.5, mean=2.0)
    np.testing.assert_allclose(part.area, cortex.areas.sum(), rtol=1e-12)
    np.testing.assert_array_equal(part.field(np.arange(30.0))[204:], 2.0)


def test_patches_stay_on_their_surface(cortex):
    patch = np.asarray(cortex.patch(50, 25.0))
    assert patch[50] == 1.0
    assert patch[:42].sum() == 0.0
    assert patch[204:].sum() == 0.0
    np.testing.assert_array_equal(patch[42:204], cortex.domains[1].patch(8, 25.0))
    np.testing.assert_array_equal(np.flatnonzero(cortex.patch(205, 1e3)), [205])


def test_regions_of_cortex_and_points_drive_each_other(cortex):
    """Points without a surface are regions of their own: TVB's subcortical nodes. A step of Euler written out."""
    regions = np.concatenate([np.arange(204) % 4, [4, 5, 6]])
    rmap, rng = F.RegionMap(regions, cortex.areas), np.random.default_rng(1)
    net = vb.Connectome(rng.uniform(0.0, 1.0, (7, 7)))
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.4),
        net,
        coupling=vb.coupling.Linear(G=0.2),
        integrator=vb.integrators.Euler(0.1),
        field=F.Field(cortex, F.LaplaceBeltrami(cortex, D=5.0), 0.6, regions=rmap),
    )
    x, areas = rng.normal(1.0, 1.0, 207), np.asarray(cortex.areas)
    mean = np.array([np.average(x[regions == r], weights=areas[regions == r] + (r > 3)) for r in range(7)])
    local = np.concatenate(
        [F.LaplaceBeltrami(d, D=5.0)(x[at]) for d, at in zip(cortex.domains, cortex.parts()[:2], strict=True)]
        + [np.zeros(3)]
    )
    expected = x + 0.1 * (-0.4 * x + 0.2 * (np.asarray(net.weights) @ mean)[regions] + 0.6 * local)
    np.testing.assert_allclose(vb.simulate(sim, t1=0.1, key=None, init={"x": x}).final.state.x, expected, rtol=1e-11)


def test_bold_of_regions_is_the_mean_of_that_of_points(cortex):
    """A linear response commutes with the mean; that of a balloon does where all points of a region are equal."""
    regions = F.RegionMap(np.concatenate([np.arange(204) % 4, [-1, 4, 4]]), cortex.areas)
    hrf, balloon = vb.monitors.HRF("x", period=100.0), vb.monitors.BalloonWindkessel("x", period=100.0)
    monitors = {"points": hrf, "regions": vb.monitors.OfRegions(hrf, regions)}
    monitors |= {"balloons": balloon, "balloon": vb.monitors.OfRegions(balloon, regions)}
    monitors["mean"] = vb.monitors.OfRegions(vb.monitors.Subsample(100.0), regions)
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1e-3),
        integrator=vb.Heun(5.0),
        field=F.Field(cortex),
        monitors=monitors,
    )
    x = np.random.default_rng(2).uniform(0.5, 2.0, 207)
    ys = vb.simulate(sim, t1=600.0, key=None, init={"x": x}).ys
    np.testing.assert_allclose(ys["regions"], jax.vmap(regions.to_regions)(ys["points"]), rtol=1e-5)
    assert ys["mean"]["x"].shape == (6, 5)
    of_points = jax.vmap(regions.to_regions)(ys["balloons"])
    assert np.abs(np.asarray(ys["balloon"] - of_points)).max() > 1e-4 * np.abs(np.asarray(of_points)).max()
    equal = vb.simulate(sim, t1=600.0, key=None, init={"x": np.asarray(regions.to_nodes([0.5, 1.0, 1.5, 2.0, 0.7]))}).ys
    np.testing.assert_allclose(equal["balloon"], jax.vmap(regions.to_regions)(equal["balloons"]), rtol=1e-5)
    fwd = vb.ForwardModel(sim, t1=600.0, monitor="balloon", summary=jnp.ravel)
    theta = {"monitors.balloon.monitor.kappa": np.array([0.5, 0.65, 0.8])}
    many = fwd.batch(theta, jax.random.split(jax.random.key(0), 3))
    one = fwd({"monitors.balloon.monitor.kappa": 0.8}, jax.random.key(0))
    np.testing.assert_allclose(many[2], one, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "error", "remedy"),
    [
        (lambda: F.Cortex([]), TypeError, r"vb.fields.Cortex\(\[left, right\]"),
        (lambda: F.Cortex([F.Sphere(2)], points=np.ones((2, 2))), ValueError, r"\[P, 3\]"),
        (lambda: F.Cortex([F.Sphere(2)], points=-1), ValueError, "points"),
        (lambda: F.Cortex([F.Sphere(2)]).modes(10), ValueError, "at most 9"),
        (lambda: vb.monitors.OfRegions("r", F.RegionMap([0])), TypeError, "monitor"),
        (
            lambda: vb.Simulator(
                vb.models.Linear(),
                integrator=vb.Heun(0.1),
                nodes=3,
                monitors={"y": vb.monitors.OfRegions(vb.monitors.Subsample(1.0, "x"), F.RegionMap([0, 0]))},
            ),
            ValueError,
            "map of 2 points",
        ),
    ],
)
def test_bad_input_gets_a_sentence(make, error, remedy):
    with pytest.raises(error, match=remedy):
        make()
