"""Conditional densities are densities: they integrate to one, their draws are theirs, a flow starts as the prior."""

import functools
import re
from pathlib import Path

import equinox as eqx
import flowjax.bijections as fb
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import paramax
import pytest
import scipy.stats as st
from jax.flatten_util import ravel_pytree

import vbinfer as vb
from vbinfer.execute.options import quickly
from vbinfer.neural.densities import DENSITIES, density_from_spec
from vbinfer.neural.densities.base import draw as conditional_draw
from vbinfer.neural.densities.base import mixture, stack, training_loss
from vbinfer.neural.densities.flow_matching import FlowMatching, Transport
from vbinfer.neural.densities.flows import MAF, NSF
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.densities.spline import Spline

OPTIONS = {
    "mdn": MDN(components=3, width=8, depth=1),
    "mdn diagonal": MDN(components=3, width=8, depth=1, diagonal=True),
    "maf": MAF(layers=2, width=8, depth=1),
    "nsf": NSF(layers=2, width=8, depth=1),
    "nsf_autoregressive": NSF(layers=2, width=8, depth=1, knots=4, interval=3.0, autoregressive=True),
    "flow matching": FlowMatching(width=8, depth=1),
}
CONTEXT = jnp.array([0.7, -1.2, 0.1])


def bent(name, dim, seed=0):
    """A density away from where it starts, as training would leave it."""
    key = jax.random.key(seed)
    density = OPTIONS[name].build(key, dim, len(CONTEXT))
    return moved(density, 0.25, seed)


def moved(tree, by, seed):
    """Its trained numbers and normal noise, drawn by NumPy: nothing is compiled for it."""
    rng = np.random.default_rng(seed)
    noisy = lambda leaf: np.asarray(leaf + by * rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree_util.tree_map(lambda leaf: noisy(np.asarray(leaf)) if eqx.is_inexact_array(leaf) else leaf, tree)


def check_untrained(name, points):
    """Before training a flow is standard normal, by the program that evaluates it after."""
    if not name.startswith("mdn"):
        flow = OPTIONS[name].build(jax.random.key(3), points.shape[1], len(CONTEXT))
        near = np.abs(points).max(1) < 4.0
        log_q = np.log(np.asarray(on_grid(flow, points))[near])
        np.testing.assert_allclose(log_q, st.norm.logpdf(points[near]).sum(1), atol=1e-4)


@eqx.filter_jit
def on_grid(density, points):
    return jnp.exp(jax.vmap(lambda y: density.log_prob(y, CONTEXT))(points))


@eqx.filter_jit
def draw_with(density, key, n):
    """Draws and their log density."""
    return conditional_draw(density, CONTEXT, key, n)


@eqx.filter_jit
def draw(density, key, n):
    return density.sample(CONTEXT, key, n)


def nodes(span, count):
    """Points sinh(v), dense near 0 and wide beyond, and the widths of their cells."""
    v = np.linspace(-span, span, count)
    return np.sinh(v), np.cosh(v) * (v[1] - v[0])


@pytest.mark.parametrize("dim", [2, 5])
def test_two_coupling_layers_reach_every_coordinate(dim):
    """Half of the coordinates pass through a layer unchanged; without a reversal the same half passes through both."""
    flow = moved(OPTIONS["nsf"].build(jax.random.key(1), dim, len(CONTEXT)), 0.25, 1)
    here, there = (np.asarray(flow.sample(c, jax.random.key(2), 6)) for c in (CONTEXT, CONTEXT + 1.0))
    assert (np.abs(here - there).max(axis=0) > 0.01).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_one_coordinate_integrates_to_one_and_is_drawn_by_its_cdf(name):
    (y, cell), density = nodes(12.0, 6001), bent(name, 1)
    check_untrained(name, y[:, None])
    p = np.asarray(on_grid(density, y[:, None]), float) * cell
    cdf = np.cumsum(p)
    assert cdf[-1] == pytest.approx(1.0, abs=1e-3)
    assert np.abs(cdf - st.norm.cdf(y)).max() > 0.02  # no longer the prior
    draws = np.asarray(draw(density, jax.random.key(2), 20_000))[:, 0]
    assert st.kstest(draws, lambda at: np.interp(at, y, cdf)).statistic < 1.95 / np.sqrt(20_000)  # p = 0.001


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "flow matching")) for name in OPTIONS]
)
def test_two_coordinates_integrate_to_one_and_their_draws_have_its_moments_and_log_density(name):
    """Moments that exist whatever the tails: cosines of directions."""
    (y, cell), density = nodes(7.0, 401), bent(name, 2, seed=3)
    points = np.stack(np.meshgrid(y, y, indexing="ij"), axis=-1).reshape(-1, 2)
    draws, log_q = (np.asarray(part) for part in draw_with(density, jax.random.key(2), 20_000))
    points = np.concatenate([points, draws[:200]])
    check_untrained(name, points)
    q = np.asarray(on_grid(density, points), float)
    np.testing.assert_allclose(log_q[:200], np.log(q[-200:]), atol=2e-3)
    p, points = q[:-200] * np.outer(cell, cell).ravel(), points[:-200]
    assert p.sum() == pytest.approx(1.0, abs=4e-3)
    for i, j in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1)):
        wave = lambda at, i=i, j=j: np.cos(i * at[:, 0] + j * at[:, 1] + 0.7)  # noqa: E731
        values, exact = wave(draws), np.sum(wave(points) * p)
        assert values.mean() == pytest.approx(exact, abs=4.5 * values.std() / np.sqrt(20_000) + 5e-3), (i, j)


def test_the_mixture_density_network_is_its_gaussians():
    """log q from weights, means and precisions read off the network's output, with scipy."""
    dim, density = 3, bent("mdn", 3, seed=5)
    out = np.asarray(density.network(CONTEXT), float).reshape(3, -1)
    weights, terms = np.exp(out[:, 0]) / np.exp(out[:, 0]).sum(), []
    for row in out:
        root = np.diag(np.exp(row[4:7]))
        root[0, 1], root[0, 2], root[1, 2] = row[7:]
        terms.append(st.multivariate_normal(row[1:4], np.linalg.inv(root.T @ root)))
    y = np.random.default_rng(0).normal(size=(40, dim))
    exact = np.log(sum(w * term.pdf(y) for w, term in zip(weights, terms, strict=True)))
    got = jax.vmap(lambda row: density.log_prob(row, CONTEXT))(jnp.asarray(y))
    np.testing.assert_allclose(got, exact, atol=1e-4)
    draws = np.asarray(draw(density, jax.random.key(1), 40_000))
    mean = sum(w * term.mean for w, term in zip(weights, terms, strict=True))
    second = sum(w * (term.cov + np.outer(term.mean, term.mean)) for w, term in zip(weights, terms, strict=True))
    cov = second - np.outer(mean, mean)
    np.testing.assert_allclose(draws.mean(0), mean, atol=4.5 * np.sqrt(cov.max() / 40_000))
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.06 * cov.max())


@pytest.mark.parametrize("density", [NSF(layers=4), MAF(layers=3), NSF(layers=2, autoregressive=True)])
def test_an_untrained_flow_is_the_prior(density):
    """Of five coordinates, at contexts of their own; of one and two: `check_untrained`."""
    flow = density.build(jax.random.key(3), 5, 4)
    z = jax.random.normal(jax.random.key(4), (50, 5))
    h = 3.0 * jax.random.normal(jax.random.key(5), (50, 4))
    log_q = eqx.filter_jit(eqx.filter_vmap(flow.log_prob))(z, h)
    np.testing.assert_allclose(log_q, st.norm.logpdf(np.asarray(z)).sum(1), atol=1e-4)


class Known(Transport):
    """The exact mean velocity from noise to N(mean, sd^2), in place of a network."""

    mean: jax.Array
    sd: jax.Array

    def velocity(self, t, y, c):
        variance = t**2 * self.sd**2 + (1.0 - t) ** 2
        return self.mean + (t * self.sd**2 - (1.0 - t)) / variance * (y - t * self.mean)


def test_flow_matching_along_the_exact_velocity_gives_the_gaussian():
    """log q at fixed points, and draws with their log q: also of a coordinate forty times narrower than the noise."""
    mean, sd = jnp.array([0.4, -1.5, 2.0]), jnp.array([0.025, 0.3, 1.7])
    network = OPTIONS["flow matching"].build(jax.random.key(0), 3, len(CONTEXT))
    parts = {name: getattr(network, name) for name in ("first", "hidden", "last", "dim", "steps", "repeats")}
    density = Known(**parts, mean=mean, sd=sd)
    y = np.asarray(mean + sd * jax.random.normal(jax.random.key(1), (50, 3)))
    exact = st.norm.logpdf(y, mean, sd).sum(1)
    np.testing.assert_allclose(np.log(np.asarray(on_grid(density, y))), exact, atol=0.02)
    draws, log_q = (np.asarray(part) for part in draw_with(density, jax.random.key(2), 4_000))
    np.testing.assert_allclose(log_q, st.norm.logpdf(draws, mean, sd).sum(1), atol=0.02)
    assert min(st.kstest((d - m) / s, "norm").pvalue for d, m, s in zip(draws.T, mean, sd, strict=True)) > 1e-4
    np.testing.assert_array_equal(draws, np.asarray(draw(density, jax.random.key(2), 4_000)))


def test_the_loss_of_flow_matching_is_least_at_the_exact_velocity():
    """In expectation: the residual variance of y - e given y_t, which is known, and above it by the squared error."""
    mean, sd = jnp.array([0.4, -1.5]), jnp.array([0.5, 1.3])
    network = FlowMatching(repeats=64).build(jax.random.key(0), 2, len(CONTEXT))
    parts = {name: getattr(network, name) for name in ("first", "hidden", "last", "dim", "steps", "repeats")}
    y = jax.random.normal(jax.random.key(1), (4_000, 2))
    y = mean + sd * (y - y.mean(0)) / y.std(0)  # the loss depends on the two moments alone: they are exact
    keys = jax.random.split(jax.random.key(2), len(y))
    loss = eqx.filter_jit(lambda d: jnp.mean(jax.vmap(lambda one, k: training_loss(d, one, CONTEXT, k))(y, keys)))
    t = (np.arange(4_000) + 0.5) / 4_000
    known = [np.mean(s**2 * (t**2 + (1.0 - t) ** 2) / (t**2 * s**2 + (1.0 - t) ** 2)) for s in np.asarray(sd)]
    assert float(loss(Known(**parts, mean=mean, sd=sd))) == pytest.approx(np.mean(known), rel=0.01)
    assert float(loss(Known(**parts, mean=mean + 0.5, sd=sd))) > 1.1 * np.mean(known)


def linear_draws(n):
    """theta ~ N(0, 1)^2, x = (theta_0 + 2 theta_1, theta_1) + noise of sd 0.5."""
    prior = vb.Prior({"theta": dist.Normal(0.0, 1.0).expand([2])})
    rng = np.random.default_rng(3)
    theta = rng.normal(size=(n, 2)).astype(np.float32)
    x = theta @ GAIN.T + 0.5 * rng.normal(size=(n, 2)).astype(np.float32)
    return prior, vb.Draws.from_arrays({"theta": theta}, x)


GAIN = np.array([[1.0, 2.0], [0.0, 1.0]], np.float32)


def test_flow_matching_is_trained_saved_and_read_back(tmp_path):
    prior, draws = linear_draws(64)
    training = vb.densities.Training(max_epochs=2, batch_size=32)
    npe = vb.NPE(FlowMatching(width=8, depth=1, steps=4), ensemble=1, training=training)
    fitted, info = npe.fit(draws, prior, key=jax.random.key(0))
    fitted.save(tmp_path / "fm.npz")
    theta, x = {"theta": draws.theta["theta"][:4]}, draws.x[:4]
    again = vb.load(tmp_path / "fm.npz")
    np.testing.assert_array_equal(again.log_prob(theta, x), fitted.log_prob(theta, x))
    assert again.estimator.density == npe.density
    assert info.val[0] > info.val[1]  # of the velocity, and falling


@pytest.mark.slow
def test_trained_flow_matching_is_the_gaussian_posterior():
    prior, draws = linear_draws(3_000)
    training = vb.densities.Training(max_epochs=60, learning_rate=1e-2)
    fitted, info = vb.NPE(FlowMatching(), ensemble=1, training=training).fit(draws, prior, key=jax.random.key(0))
    cov = np.linalg.inv(np.eye(2) + GAIN.T @ GAIN / 0.25)
    assert info.info_gain == pytest.approx(-0.5 * np.linalg.slogdet(cov)[1], abs=0.25)  # 300 held-out draws
    x_o = np.array([1.5, -0.5], np.float32)
    posterior = fitted.sample(x_o, n=4_000, key=jax.random.key(1))
    mean = cov @ GAIN.T @ x_o / 0.25
    rows, sd = posterior.ravel(), np.sqrt(np.diag(cov))
    assert (np.abs(rows.mean(0) - mean) < 0.25 * sd).all()
    np.testing.assert_allclose(rows.std(0), sd, rtol=0.15)
    exact = st.multivariate_normal(mean, cov).logpdf(rows[:500])
    assert np.abs(np.asarray(posterior.log_prob)[0, :500] - exact).mean() < 0.2


def test_an_ensemble_is_the_equal_mixture_of_its_members():
    members = [bent("mdn", 2, seed) for seed in (0, 1, 2)]
    joint = mixture(stack(members), 3)
    y = jax.random.normal(jax.random.key(0), (30, 2))
    each = np.stack([on_grid(member, y) for member in members])
    np.testing.assert_allclose(on_grid(joint, y), each.mean(0), rtol=1e-5)
    assert np.abs(each - each.mean(0)).max() > 0.01
    n = 20_000  # no multiple of three
    draws = np.asarray(draw(joint, jax.random.key(1), n))
    assert draws.shape == (n, 2)
    means = np.stack([np.asarray(draw(member, jax.random.key(7), n)).mean(0) for member in members])
    np.testing.assert_allclose(draws.mean(0), means.mean(0), atol=4.5 * draws.std() * np.sqrt(2 / n))
    alone = mixture(stack(members[1:2]), 1)
    np.testing.assert_array_equal(on_grid(alone, y), on_grid(members[1], y))


def test_options_are_checked_and_written():
    for density in (*OPTIONS.values(), NSF(), MAF(), MDN()):
        assert density_from_spec(density.to_spec()) == density
    assert sorted(DENSITIES) == ["FlowMatching", "MAF", "MDN", "NSF", "Regional"]
    for make, message in (
        (lambda: NSF(layers=0), r"NSF\(layers=0\) was given; expected a number above 0"),
        (lambda: MAF(width=-3), r"MAF\(width=-3\) was given"),
        (lambda: MDN(components=0), r"MDN\(components=0\) was given"),
        (
            lambda: FlowMatching(steps=2.5),
            r"FlowMatching\(steps=2\.5\) was given; expected a number above 0, a whole one",
        ),
        (lambda: NSF(interval=0.0), r"NSF\(interval=0\.0\) was given"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.slow  # compiles three densities
def test_the_listing_of_the_page_runs():
    page = (Path(__file__).parent.parent / "docs/how-to/choose-a-density.md").read_text()
    listing = re.findall(r"<!-- compare: .*?```python\n(.*?)```", page, flags=re.DOTALL)[0]
    quick = listing.replace("n=2_000", "n=300").replace(
        "vb.NPE(", "vb.NPE(training=vb.densities.Training(max_epochs=3), "
    )
    assert quick.count("max_epochs") == 1
    names: dict = {}
    exec(compile(quick, "choose-a-density.md", "exec"), names)
    assert sorted(names["gains"]) == ["MAF", "MDN", "NSF"]


@pytest.mark.parametrize(
    ("dim", "width", "depth"), [(1, 8, 1), (2, 7, 2), pytest.param(5, 12, 3, marks=pytest.mark.slow), (5, 3, 1)]
)
def test_a_staged_inverse_is_that_of_flowjax_with_its_log_determinant(dim, width, depth):
    """Each hidden unit evaluated once, also where there are fewer of them than coordinates."""
    flow = MAF(layers=1, width=width, depth=depth).build(jax.random.key(0), dim, len(CONTEXT))
    only = jax.tree_util.tree_map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, flow.bijection.bijection)
    layer = moved(only.bijections[0], 0.3, 1)

    @eqx.filter_jit  # both inverses and the derivative in one program
    def inverses(layer, noise):
        ready = paramax.unwrap(layer)
        staged = lambda e: ready.inverse_and_log_det(e, CONTEXT)  # noqa: E731
        return (
            staged(noise),
            ready.inner.inverse_and_log_det(noise, CONTEXT),
            jax.jacobian(lambda e: staged(e)[0])(noise),
        )

    (y, log_det), (usual, usual_log_det), jacobian = inverses(layer, np.random.default_rng(2).normal(size=dim))
    np.testing.assert_allclose(y, usual, atol=2e-6)
    assert float(log_det) == pytest.approx(float(np.sum(usual_log_det)), abs=5e-6)
    assert float(log_det) == pytest.approx(float(np.linalg.slogdet(np.asarray(jacobian, float))[1]), abs=2e-4)


def test_the_spline_by_masks_is_flowjax_spline_by_indices():
    """Values, slopes and gradients, inside, outside and at the edges of the interval."""
    theirs = fb.RationalQuadraticSpline(knots=5, interval=2.5)
    pairs = [eqx.partition(one, eqx.is_inexact_array) for one in (theirs, Spline(5, 2.5))]
    flat = [ravel_pytree(trained) for trained, _ in pairs]
    np.testing.assert_allclose(flat[0][0], flat[1][0], atol=1e-7)  # parameters in the same order, the same at first
    raw = flat[0][0] + jax.random.normal(jax.random.key(3), flat[0][0].shape)
    x = jnp.asarray([-4.0, -2.5, -2.4999, -1.3, 0.0, 0.7, 2.2, 2.5, 3.0])

    def both(raw, which):
        (_, fixed), (_, back) = pairs[which], flat[which]
        spline = paramax.unwrap(eqx.combine(back(raw), fixed))
        forward, slope = jax.vmap(spline.transform_and_log_det)(x)
        inverse, other = jax.vmap(spline.inverse_and_log_det)(x)
        return jnp.stack([forward, slope, inverse, other])

    weight = jnp.arange(1.0, 1.0 + 4 * len(x)).reshape(4, -1)

    @functools.partial(jax.jit, static_argnums=1)
    def run(raw, which):
        out, back = jax.vjp(lambda raw: both(raw, which), raw)
        return out, back(weight)[0]

    (found, slopes), (masked, masked_slopes) = run(raw, 0), run(raw, 1)
    np.testing.assert_allclose(masked, found, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(masked_slopes, slopes, rtol=1e-4, atol=1e-2)
    assert float(jnp.abs(found[0] - x).max()) > 0.1
    assert float(jnp.abs(slopes).min()) > 0.1


def test_a_quickly_compiled_function_is_itself_alone_and_inside_another():
    called = quickly(lambda x, power: jnp.tanh(x) ** power)
    x = jnp.linspace(-1.0, 1.0, 7)
    expected = np.tanh(np.asarray(x, float)) ** 3
    np.testing.assert_allclose(called(x, 3), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda x: 2.0 * called(x, 3))(x), 2.0 * expected, rtol=1e-5)
    slope = jax.vmap(jax.grad(lambda x: called(x, 3)))(x)
    np.testing.assert_allclose(slope, 3 * np.tanh(x) ** 2 / np.cosh(x) ** 2, rtol=1e-4)
