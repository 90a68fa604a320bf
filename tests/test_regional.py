"""The density of maps over regions: against a closed form, normalised, saved, and what it refuses."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

NODES = 6
LOADING = np.array([1.2, -0.8, 0.4, 1.6, -1.1, 0.7])  # how the global parameter enters each region
NOISE = np.array([1.0, 1.6])


def design():
    """x = 0.7 + A (g, y) + noise, features of all regions one after the other: 2 y_i + b_i g, and y_i - 2 b_i g."""
    first = np.column_stack([LOADING, 2.0 * np.eye(NODES)])
    second = np.column_stack([-2.0 * LOADING, np.eye(NODES)])
    return np.concatenate([first, second]), np.repeat(NOISE, NODES)


def linear_draws(n, seed):
    rng = np.random.default_rng(seed)
    matrix, sd = design()
    theta = rng.standard_normal((n, 1 + NODES))
    x = 0.7 + theta @ matrix.T + sd * rng.standard_normal((n, 2 * NODES))
    return vb.Draws.from_arrays({"g": theta[:, 0], "y": theta[:, 1:]}, x)


@pytest.mark.slow
def test_linear_gaussian_regions_that_share_a_parameter():
    prior = vb.Prior({"g": dist.Normal(0.0, 1.0), "y": dist.Normal(0.0, 1.0).expand([NODES]).to_event(1)})
    training = vb.densities.Training(max_epochs=60, learning_rate=4e-3, weight_decay=1e-3)
    amortized, _ = vb.NPE(density=vb.densities.Regional(NODES, components=1), training=training).fit(
        linear_draws(6_000, 0), prior, key=jax.random.key(0)
    )
    matrix, sd = design()
    cov = np.linalg.inv(np.eye(1 + NODES) + matrix.T @ (matrix / sd[:, None] ** 2))
    scale = np.sqrt(np.diag(cov))
    x = np.asarray(linear_draws(60, 1).x, float)
    drawn = amortized.sample_batch(x, n=2_000, key=jax.random.key(1))
    flat = np.asarray(prior.ravel(drawn), float)
    exact = ((x - 0.7) / sd**2) @ matrix @ cov
    # network error with 6,000 draws, in posterior sds: more in g, of which a draw is one example and not six. Without
    # x the errors would be 3.9 and 2.1. The sds: 10 %; Monte Carlo adds 2 % and 0.3 %
    error = np.sqrt(np.mean(((flat.mean(axis=1) - exact) / scale) ** 2, axis=0))
    assert error[0] < 0.4
    assert error[1:].max() < 0.2
    inside = np.mean([np.cov(draws.T) for draws in flat], axis=0)
    np.testing.assert_allclose(np.sqrt(np.diag(inside)) / scale, 1.0, atol=0.1)
    correlation = inside / np.sqrt(np.outer(np.diag(inside), np.diag(inside)))
    np.testing.assert_allclose(correlation, cov / np.outer(scale, scale), atol=0.08)


@pytest.mark.slow
def test_density_is_that_of_its_draws_and_normalised():
    network = vb.densities.Regional(3).build(
        jax.random.key(0), 7, 8
    )  # one global parameter, two maps; two extra features
    arrays, static = eqx.partition(network, eqx.is_array)
    leaves, structure = jax.tree_util.tree_flatten(arrays)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.08 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    network = eqx.combine(jax.tree_util.tree_unflatten(structure, moved), static)
    c = jnp.linspace(-1.0, 2.0, 8)
    y = eqx.filter_jit(lambda key: network.sample(c, key, 5_000))(jax.random.key(2))
    log_q = eqx.filter_jit(jax.vmap(lambda one: network.log_prob(one, c)))(y)
    # E_q[p / q] = 1 for any normalised p that is narrower than q; a p off centre sees each coordinate's place
    centre, sd = np.linspace(-0.3, 0.4, 7), 0.8
    log_p = -0.5 * np.sum(((np.asarray(y) - centre) / sd) ** 2, axis=1) - 7 * np.log(sd * np.sqrt(2 * np.pi))
    ratio = np.exp(log_p - np.asarray(log_q))
    assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / np.sqrt(len(ratio)))
    assert ratio.std() < 4.0


def test_regional_says_what_it_needs():
    with pytest.raises(ValueError, match="7 parameters and 2 features; expected at least one of each per region"):
        vb.densities.Regional(3).build(jax.random.key(0), 7, 2)


def test_regional_refuses_maps_before_the_parameters_of_the_whole_brain():
    prior = vb.Prior({"y": dist.Normal(0.0, 1.0).expand([NODES]), "g": dist.Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match=r"'y' \[6\], 'g' \[\]; .* put the maps last"):
        vb.NPE(density=vb.densities.Regional(NODES)).fit(linear_draws(100, 0), prior, key=jax.random.key(0))


def test_regional_is_saved_and_loaded(tmp_path):
    prior = vb.Prior({"g": dist.Normal(0.0, 1.0), "y": dist.Uniform(-9.0, 9.0).expand([NODES])})
    draws = linear_draws(200, 0)
    amortized, _ = vb.NPE(density=vb.densities.Regional(NODES), training=vb.densities.Training(max_epochs=1)).fit(
        draws, prior, key=jax.random.key(0)
    )
    amortized.save(tmp_path / "regional.npz")
    again = vb.load(tmp_path / "regional.npz")
    np.testing.assert_array_equal(again.log_prob(draws.theta, draws.x), amortized.log_prob(draws.theta, draws.x))


def block(feature, n=NODES):
    return [f"{feature}[{i}]" for i in range(n)]


@pytest.mark.parametrize("names", [block("a") + block("b"), ["fc.mean", *block("a")], ["k[0]", "k[1]", *block("a.b")]])
def test_features_of_one_region_after_the_other_are_what_it_reads(names):
    assert vb.densities.Regional(NODES).check_features(names)


@pytest.mark.parametrize("names", [[f"x[{i}]" for i in range(3 * NODES)], ["area", "mean", "fc.std"]])
def test_names_that_tell_no_layout_are_taken(names):
    assert not vb.densities.Regional(NODES).check_features(names)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([name for pair in zip(block("a"), block("b"), strict=True) for name in pair], r"order 'a\[0\]', 'b\[0\]'"),
        ([*block("a"), "fc.mean"], "numbers of the whole brain first"),
        (block("a")[::-1], r"order 'a\[5\]', 'a\[4\]'"),
        (
            block("a", 5) + block("b", 5),
            r"features of 5 regions each, as 'b\[4\]'; expected 6: write Regional\(nodes=5\)",
        ),
    ],
    ids=["by region", "whole brain last", "backwards", "another number"],
)
def test_features_of_another_layout_are_refused_before_training(names, words):
    prior = vb.Prior({"y": dist.Normal(0.0, 1.0).expand([NODES]).to_event(1)})
    rng = np.random.default_rng(0)
    draws = vb.Draws.from_arrays({"y": rng.normal(size=(60, NODES))}, rng.normal(size=(60, len(names))), names)
    with pytest.raises(ValueError, match=words):
        vb.NPE(density=vb.densities.Regional(NODES)).fit(draws, prior, key=jax.random.key(0))


def test_where_nothing_is_learned_the_layout_that_was_assumed_is_said():
    from vbinfer.neural.npe import warn_of_layout

    density, unnamed = vb.densities.Regional(NODES), [f"x[{i}]" for i in range(2 * NODES)]
    with pytest.warns(UserWarning, match=r"one number of all 6 regions after the other, \[F, 6\].reshape\(-1\)"):
        warn_of_layout(density, unnamed, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_layout(density, unnamed, 3.0)
        warn_of_layout(density, block("a"), 0.1)  # its names tell
