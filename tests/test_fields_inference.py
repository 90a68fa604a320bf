"""Posteriors over fields against exact ones: linear fields are Gaussian, and their density is known to rounding."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

GOLDEN = np.load(Path(__file__).parent / "golden" / "fields.npz")
F = vb.fields


def golden(part):
    found = {k.removeprefix(f"{part}__"): GOLDEN[k] for k in GOLDEN.files if k.startswith(f"{part}__")}
    return {k: a.item() if a.ndim == 0 and a.dtype.kind in "if" else a for k, a in found.items()}


@pytest.fixture(autouse=True)
def _double(request):
    with jax.enable_x64("single" not in request.node.name):
        yield


def nodes_of(domain, g):
    """For each golden place the point of the domain that lies there."""
    place = np.stack(
        [np.sin(g["theta"]) * np.cos(g["phi"]), np.sin(g["theta"]) * np.sin(g["phi"]), np.cos(g["theta"])], 1
    )
    away = ((np.asarray(domain.positions)[None] / g["radius"] - place[:, None]) ** 2).sum(-1)
    assert away.min(1).max() < 1e-8
    return away.argmin(1)


# ---- the prior


def test_the_prior_is_the_golden_matern_field():
    g = golden("matern")
    sphere = F.Sphere(g["lmax"], radius=g["radius"])
    part = vb.RandomField(*sphere.modes(sphere.n_modes), length=g["length"], nu=g["nu"], sd=g["sd"])
    degree = sphere.degrees()
    np.testing.assert_allclose(part.variances(), g["variance_of_mode_of_degree"][degree], rtol=1e-10)
    root = np.stack([np.asarray(part.field(e)) for e in np.eye(sphere.n_modes)], axis=1)
    covariance = root @ root.T
    np.testing.assert_allclose(np.diag(covariance), g["sd"] ** 2, rtol=1e-9)  # homogeneous: at every point
    away = np.array([sphere.distances_from(i) for i in range(0, sphere.n_nodes, 37)]).ravel()
    closed = np.polynomial.legendre.legval(
        np.cos(away / g["radius"]),
        g["variance_of_mode_of_degree"] * (2 * np.arange(13) + 1) / (4 * np.pi * g["radius"] ** 2),
    )
    np.testing.assert_allclose(covariance[::37].ravel(), closed, atol=1e-9)
    at = np.cos(g["distance"] / g["radius"])
    legendre = g["variance_of_mode_of_degree"] * (2 * np.arange(13) + 1)
    np.testing.assert_allclose(
        np.polynomial.legendre.legval(at, legendre) / legendre.sum(), g["correlation"], rtol=1e-9
    )


def test_the_prior_is_the_same_at_every_resolution():
    """Covariances between an icosahedron's vertices, on meshes and on the sphere: second order in their edges."""

    def covariance(domain, points):
        part = vb.RandomField(*domain.modes(64), length=40.0, sd=0.7, mean=2.0)
        root = np.stack([np.asarray(part.field(e))[points] - 2.0 for e in np.eye(64)], axis=1)
        return root @ root.T

    sphere, balls = F.Sphere(30, radius=50.0), [F.Mesh.icosphere(order, 50.0) for order in (2, 3)]
    # where the sphere has a point, the closed form holds for any: of the distances of the twelve vertices
    unit = np.asarray(balls[0].positions)[:12] / 50.0
    degree, v = np.arange(8), vb.RandomField(*sphere.modes(64), length=40.0, sd=0.7).variances()
    weight = np.asarray(v)[degree**2] * (2 * degree + 1) / (4 * np.pi * 2500.0)
    closed = np.polynomial.legendre.legval(np.clip(unit @ unit.T, -1.0, 1.0), weight)
    np.testing.assert_allclose(np.diag(closed), 0.49, rtol=1e-9)
    errors = [np.abs(covariance(ball, slice(0, 12)) - closed).max() for ball in balls]
    assert errors[1] < 0.015 * 0.49
    assert 3.0 < errors[0] / errors[1] < 5.0


def test_hyperparameters_come_from_theta_and_other_names_pass_through():
    modes = F.Sphere(3, radius=20.0).modes(16)
    part, z = vb.RandomField(*modes, length=10.0, sd=0.5), np.arange(16.0)
    at = part.to_paths("eta.z", "model.eta")
    other = vb.RandomField(*modes, length=25.0, sd=2.0, mean=-1.0).to_paths("eta.z", "model.eta")
    given = at({"eta.z": z, "eta.length": 25.0, "eta.sd": 2.0, "eta.mean": -1.0, "coupling.G": 3.0})
    assert given.pop("coupling.G") == 3.0
    np.testing.assert_allclose(given.pop("model.eta"), other({"eta.z": z})["model.eta"], rtol=1e-12)
    assert not given
    assert not np.allclose(at({"eta.z": z})["model.eta"], other({"eta.z": z})["model.eta"], rtol=0.1)
    with pytest.raises(ValueError, match=r"lacks 'eta.z'"):
        at({"eta.y": z})
    assert vb.Prior({"eta.z": part.standard()}).shapes == {"eta.z": (16,)}


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"length": 0.0}, "length"),
        ({"nu": -1.0}, "nu"),
        ({"sd": -0.1}, "sd"),
        ({"mean": np.nan}, "mean"),
        ({"eigenvalues": np.ones(3)}, r"domain.modes\(81\)"),
        ({"phi": np.random.default_rng(0).normal(size=(32, 16))}, "order of"),
    ],
)
def test_bad_input_of_a_random_field_gets_a_sentence(change, remedy):
    phi, eigenvalues = F.Sphere(3).modes(16)
    with pytest.raises(ValueError, match=remedy):
        vb.RandomField(**{"phi": phi, "eigenvalues": eigenvalues, "length": 10.0, **change})


# ---- every pixel seen at every step (the seed's problem, with the operator of the right sign and scale)


def pixels():
    g = golden("inference")
    sphere = F.Sphere(g["lmax"], g["n_lat"], g["n_lon"], g["radius"])
    at = nodes_of(sphere, g)
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        integrator=vb.Heun(g["dt"]),
        field=F.Field(sphere, F.LaplaceBeltrami(sphere, D=g["D"]), strength=g["k"]),
        monitors={"x": vb.monitors.Raw("x")},
    )
    t1 = g["steps"] * g["dt"]
    predict = lambda theta: vb.simulate(sim, t1=t1, key=None, init={"x": theta["init.x"]}, checkpoint=True).ys["x"]  # noqa: E731
    likelihood = vb.likelihoods.Gaussian(predict, sigma=g["noise_sd"])
    prior = vb.Prior({"init.x": dist.Normal(0.0, 1.0).expand([sphere.n_nodes])})
    field = lambda name: jnp.zeros(sphere.n_nodes).at[at].set(g[name])  # noqa: E731
    return prior, likelihood, predict({"init.x": field("x0")}), field("mean"), field("sd")


def solved(precision, b):
    """Conjugate gradients: precision^-1 b of a well-conditioned matrix."""
    x, r = jnp.zeros_like(b), b
    p = r
    for _ in range(60):
        q = precision(p)
        a = (r @ r) / (p @ q)
        x, new = x + a * p, r - a * q
        if jnp.abs(new).max() < 1e-13:
            break
        p, r = new + (new @ new) / (r @ r) * p, new
    return x


def test_the_posterior_of_every_pixel_is_the_exact_one():
    """A Gaussian's gradient is affine: 0 at the mean, and its slope there is the precision."""
    prior, likelihood, y, mean, sd = pixels()
    score = jax.jit(jax.grad(lambda x: prior.log_prob({"init.x": x}) + likelihood({"init.x": x}, y)))
    at_mean = score(mean)
    np.testing.assert_allclose(at_mean, 0.0, atol=1e-8 * np.abs(score(jnp.zeros_like(mean))).max())
    for pixel in (5, 700, 2047):
        one = jnp.zeros_like(mean).at[pixel].set(1.0)
        column = solved(lambda v: at_mean - score(mean + v), one)
        np.testing.assert_allclose(jnp.sqrt(column[pixel]), sd[pixel], rtol=1e-8)


@pytest.mark.slow
def test_nuts_in_single_precision_draws_from_the_exact_posterior_of_every_pixel():
    prior, likelihood, y, mean, sd = pixels()
    run = vb.sample_mcmc(prior, likelihood, y, num_warmup=300, num_samples=500, num_chains=2, key=jax.random.key(0))
    draws = np.asarray(run.theta["init.x"], float)  # [chain, draw, pixel]
    ess = np.asarray(vb.diagnostics.ess(run)["init.x"])
    off = (draws.mean(axis=(0, 1)) - np.asarray(mean)) / (np.asarray(sd) / np.sqrt(ess))
    assert np.abs(off).max() < 5.5  # of 2,048 standard normals less than one in ten thousand times
    assert np.abs(draws.std(axis=(0, 1)) / np.asarray(sd) - 1.0).max() < 5.5 / np.sqrt(2 * ess.min())


# ---- few noisy sensors, a smooth prior


def sensors():
    g = golden("sensors")
    sphere = F.Sphere(g["lmax"], g["n_lat"], g["n_lon"], g["radius"])
    at = nodes_of(sphere, g)
    gain = np.zeros((24, sphere.n_nodes))
    gain[:, at] = g["gain"]
    sim = vb.Simulator(
        vb.models.Linear(gamma=g["decay"]),
        integrator=vb.Heun(g["dt"]),
        field=F.Field(sphere, F.LaplaceBeltrami(sphere, D=g["D"]), strength=g["k"]),
        monitors={"y": vb.monitors.SpatialAverage("x", gain, period=g["every"] * g["dt"])},
    )
    part = vb.RandomField(*sphere.modes((g["prior_lmax"] + 1) ** 2), length=g["length"], nu=g["nu"], sd=g["sd"])
    fwd = vb.ForwardModel(
        sim,
        t1=g["samples"] * g["every"] * g["dt"],
        summary=lambda y: y.ravel(),
        to_paths=part.to_paths("start.z", "init.x"),
    )
    likelihood = vb.likelihoods.Gaussian(lambda theta: fwd(theta, None).reshape(-1, 24), sigma=g["noise_sd"])
    return g, at, part, vb.Prior({"start.z": part.standard()}), likelihood


def test_the_posterior_behind_sensors_is_the_exact_one():
    g, at, part, prior, likelihood = sensors()
    y = jnp.asarray(g["y"])
    score = jax.grad(lambda z: prior.log_prob({"start.z": z}) + likelihood({"start.z": z}, y))
    at_zero, precision = jax.jit(lambda z: (score(z), -jax.jacfwd(score)(z)))(jnp.zeros(64))
    covariance = np.linalg.inv(precision)
    mean, root = covariance @ at_zero, np.stack([np.asarray(part.field(e)) for e in np.eye(64)], axis=1)
    np.testing.assert_allclose((root @ mean)[at], g["post_mean"], atol=1e-8)
    sd = np.sqrt(np.einsum("ik,kl,il->i", root, covariance, root))
    np.testing.assert_allclose(sd[at], g["post_sd"], rtol=1e-8)
    np.testing.assert_allclose(np.sqrt((root**2).sum(1))[at], g["prior_sd"], rtol=1e-9)
    assert (g["post_sd"] < 0.9 * g["prior_sd"]).any()  # something is learned


@pytest.mark.slow
def test_nuts_behind_sensors_draws_from_the_exact_posterior():
    g, at, part, prior, likelihood = sensors()
    run = vb.sample_mcmc(prior, likelihood, jnp.asarray(g["y"]), num_warmup=400, num_samples=500, key=jax.random.key(2))
    z = np.asarray(run.theta["start.z"]).reshape(-1, 64)
    fields = np.asarray(jax.vmap(part.field)(z))[:, at]
    off = (fields.mean(0) - g["post_mean"]) / (g["post_sd"] / np.sqrt(500.0))
    assert np.abs(off).max() < 4.5
    np.testing.assert_allclose(fields.std(0), g["post_sd"], rtol=4.5 / np.sqrt(2 * 500.0))
