"""Embedding networks against NumPy, symmetries that hold exactly, and posteriors known from the whole series."""

import dataclasses
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer import embeddings
from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural.densities.mixture import MDN
from vbinfer.neural.embeddings import EMBEDDINGS, check_embedding, describe, embed, embedding_from_spec
from vbinfer.neural.npe import NPE
from vbinfer.neural.nre import NRE
from vbinfer.neural.scaler import Standardise
from vbinfer.neural.training import Training
from vbinfer.priors import Prior

KEY = jax.random.key(1)
TIME = 97  # no multiple of any patch
SERIES = {
    "conv": embeddings.Conv(shape=(TIME, 2), channels=16),
    "recurrent": embeddings.Recurrent(shape=(TIME, 2), width=32),
    "transformer": embeddings.Transformer(shape=(TIME, 2)),
}
SMALL = {
    "MLP": embeddings.MLP(out=3, width=5, depth=1),
    "Conv": embeddings.Conv(shape=(3, 2), out=3, channels=2, kernel=2, layers=1, width=4),
    "Recurrent": embeddings.Recurrent(shape=(3, 2), out=3, patch=2, width=4),
    "Transformer": embeddings.Transformer(shape=(3, 2), out=3, patch=2, width=4, heads=2, layers=1),
    "Invariant": embeddings.Invariant(shape=(3, 2), out=3, width=4),
}


def dense(layer, row):
    return np.asarray(layer.weight) @ row + (0.0 if layer.bias is None else np.asarray(layer.bias))


def mlp(network, row, bend=np.tanh):
    for layer in network.layers[:-1]:
        row = bend(dense(layer, row))
    return dense(network.layers[-1], row)


def oracle(network, series, options):
    """The context by loops over samples, in NumPy; `series` is [time, channel]."""
    kind, time = type(options).__name__, len(series)
    *parts, head = network.parts
    if kind == "Conv":
        for layer in parts[0]:
            weight, bias = np.asarray(layer.weight), np.asarray(layer.bias)[:, 0]
            starts = range(0, len(series) - options.kernel + 1, options.stride)
            windows = [series[s : s + options.kernel] for s in starts]
            series = np.array([[max(0.0, np.sum(w * window.T) + b) for w, b in zip(weight, bias, strict=True)]
                               for window in windows])  # fmt: skip
        return mlp(head, series.mean(0))
    if kind == "Invariant":
        rows = [np.r_[row, mlp(parts[0], row)] for row in series]
        return mlp(head, sum(rows) / time)
    blank = np.zeros((-(-time // options.patch) * options.patch - time, series.shape[1]))
    tokens = np.split(np.r_[series, blank].ravel(), -(-time // options.patch))
    if kind == "Recurrent":
        cell, h, states = parts[0], np.zeros(options.width), []
        sigmoid = lambda a: 1.0 / (1.0 + np.exp(-a))  # noqa: E731
        for token in tokens:
            r, u, n = np.split(np.asarray(cell.weight_ih) @ token + np.asarray(cell.bias), 3)
            r_h, u_h, n_h = np.split(np.asarray(cell.weight_hh) @ h, 3)
            gate = sigmoid(u + u_h)
            h = (1.0 - gate) * np.tanh(n + sigmoid(r + r_h) * (n_h + np.asarray(cell.bias_n))) + gate * h
            states.append(h)
        return mlp(head, np.r_[h, np.mean(states, 0)])
    t = np.array([dense(parts[0], token) for token in tokens]) + np.asarray(parts[1])
    for block in parts[2]:
        seen = np.array([norm(block.norms[0], row) for row in t])
        t = t + attend(block.attention, seen, options.heads)
        t = t + np.array([mlp(block.mlp, norm(block.norms[1], row), lambda a: np.maximum(a, 0.0)) for row in t])
    return mlp(head, t.mean(0))


def norm(layer, row):
    return np.asarray(layer.weight) * (row - row.mean()) / np.sqrt(row.var() + layer.eps) + np.asarray(layer.bias)


def attend(layer, t, heads):
    q, k, v = (np.array([dense(p, row) for row in t]) for p in (layer.query_proj, layer.key_proj, layer.value_proj))
    size, out = q.shape[1] // heads, []
    for i in range(len(t)):
        parts = []
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            weight = np.exp([q[i, mine] @ row[mine] / np.sqrt(size) for row in k])
            parts.append(sum(w * row[mine] for w, row in zip(weight / weight.sum(), v, strict=True)))
        out.append(dense(layer.output_proj, np.concatenate(parts)))
    return np.array(out)


@pytest.mark.parametrize(
    "options",
    [
        embeddings.Conv(shape=(19, 2), out=4, channels=3, kernel=3, stride=2, layers=2, width=5),
        embeddings.Recurrent(shape=(19, 2), out=4, patch=5, width=3),
        embeddings.Transformer(shape=(19, 2), out=4, patch=5, width=6, heads=3, layers=2),
        embeddings.Invariant(shape=(19, 2), out=4, width=3, depth=2),
    ],
    ids=lambda options: type(options).__name__,
)
def test_networks_compute_what_their_docstrings_say(options):
    series = np.random.default_rng(0).normal(0.3, 1.4, (19, 2))
    with jax.enable_x64(True):
        network, out = embed(options, jax.random.key(3), 38)
        assert out == 4
        np.testing.assert_allclose(
            network(jnp.asarray(series.reshape(-1))), oracle(network, series, options), rtol=1e-9
        )


def test_a_convolution_asks_what_happened_and_not_when():
    options = embeddings.Conv(shape=(80, 1), kernel=3, stride=2, layers=2)
    early, late, between = (np.zeros(80) for _ in range(3))
    event = np.array([1.0, -2.0, 0.5, 3.0])
    early[12:16], late[48:52], between[49:53] = event, event, event  # 36 is a multiple of 2 x 2 strides, 37 is none
    with jax.enable_x64(True):
        network, _ = embed(options, KEY, 80)
        one, two, three = (np.asarray(network(jnp.asarray(x))) for x in (early, late, between))
    np.testing.assert_allclose(one, two, rtol=1e-12)
    assert np.abs(one - three).max() > 1e-4


def test_the_order_of_trials_changes_nothing():
    rng = np.random.default_rng(0)
    table = rng.normal([3.0, -100.0, 0.2], [1.0, 40.0, 0.01], (200, 7, 3))
    x = table.reshape(200, 21)
    options = embeddings.Invariant(shape=(7, 3))
    order = np.array([4, 0, 6, 2, 5, 1, 3])
    with jax.enable_x64(True):
        standardise = Standardise.fit(x, options.columns(21))
        h = np.asarray(standardise(jnp.asarray(x)))
        shuffled = np.asarray(standardise(jnp.asarray(table[:, order].reshape(200, 21))))
        np.testing.assert_array_equal(h.reshape(200, 7, 3)[:, order].reshape(200, 21), shuffled)
        network, _ = embed(options, KEY, 21)
        one, two = np.asarray(jax.vmap(network)(h)), np.asarray(jax.vmap(network)(shuffled))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-14)  # sums in another order
    assert one.std(0).min() > 1e-3


@pytest.mark.slow
def test_exchangeable_trials_give_the_conjugate_posterior():
    """mu ~ N(1, 2^2); 12 trials of (mu + N(0, 1.5^2), 5 - mu / 2 + N(0, 2^2))."""
    rng = np.random.default_rng(0)
    trials, prior = 12, Prior({"mu": dist.Normal(1.0, 2.0)})
    training = Training(max_epochs=20, batch_size=50, learning_rate=3e-3)

    def simulate(n):
        mu = rng.normal(1.0, 2.0, n)
        mean = np.stack([mu, 5.0 - 0.5 * mu], axis=-1)[:, None]
        return mu, mean + rng.normal(size=(n, trials, 2)) * [1.5, 2.0]

    mu, x = simulate(2500)
    draws = Draws.from_arrays({"mu": mu}, x.reshape(2500, -1))
    estimator = NPE(MDN(components=1), embeddings.Invariant(shape=(trials, 2)), training=training)
    amortized, info = estimator.fit(draws, prior, key=KEY)
    told = trials / 1.5**2, trials * 0.25 / 4.0
    precision = 0.25 + sum(told)
    mu, x = simulate(300)
    exact = (0.25 * 1.0 + told[0] * x[..., 0].mean(1) + told[1] * 2.0 * (5.0 - x[..., 1].mean(1))) / precision
    drawn = np.asarray(amortized.sample_batch(x.reshape(300, -1), n=2000, key=KEY)["mu"])
    error = (drawn.mean(1) - exact) * np.sqrt(precision)
    half = (0.25 * 1.0 + told[0] * x[..., 0].mean(1)) / (0.25 + told[0]) - exact  # from the first column alone
    assert np.median(np.abs(error)) < 0.15 < 0.7 * np.median(np.abs(half)) * np.sqrt(precision)  # in posterior sd
    assert np.mean(drawn.std(1)) * np.sqrt(precision) == pytest.approx(1.0, abs=0.1)
    assert info.info_gain == pytest.approx(0.5 * np.log(4.0 * precision), abs=0.2)
    swapped = x[:, ::-1].reshape(300, -1)
    one, two = (np.asarray(amortized.log_prob({"mu": mu}, rows)) for rows in (x.reshape(300, -1), swapped))
    np.testing.assert_allclose(one, two, atol=2e-4)  # float32


def autoregression(n, seed):
    """phi ~ U(-0.95, 0.95); x_t = phi x_{t-1} + N(0, 1), stationary, and a second channel that says nothing."""
    rng = np.random.default_rng(seed)
    phi, noise = rng.uniform(-0.95, 0.95, n), rng.normal(size=(n, TIME))
    x = np.empty((n, TIME))
    x[:, 0] = noise[:, 0] / np.sqrt(1.0 - phi**2)
    for t in range(1, TIME):
        x[:, t] = phi * x[:, t - 1] + noise[:, t]
    return phi, np.stack([x, rng.normal(3.0, 2.0, (n, TIME))], axis=-1)


def attainable_gain():
    """E log p(phi | x) / p(phi), nats: the exact likelihood against its integral over the prior on a grid."""
    phi, series = autoregression(4000, 7)
    x, grid = series[..., 0], np.linspace(-0.95, 0.95, 1203)[1:-1]

    def log_likelihood(p):
        sse = (x[:, 1:] ** 2).sum(1) - 2 * p * (x[:, 1:] * x[:, :-1]).sum(1) + p**2 * (x[:, :-1] ** 2).sum(1)
        return 0.5 * np.log(1 - p**2) - 0.5 * (1 - p**2) * x[:, 0] ** 2 - 0.5 * sse

    table = np.stack([log_likelihood(p) for p in grid])
    return np.mean(log_likelihood(phi) - table.max(0) - np.log(np.exp(table - table.max(0)).mean(0)))


def series_gain(embedding, epochs):
    phi, x = autoregression(2000, 0)
    prior = Prior({"phi": dist.Uniform(-0.95, 0.95)})
    training = Training(max_epochs=epochs, batch_size=100, learning_rate=2e-3)
    estimator = NPE(MDN(components=3), embedding, training=training)
    amortized, _ = estimator.fit(Draws.from_arrays({"phi": phi}, x.reshape(2000, -1)), prior, key=KEY)
    phi, x = autoregression(1000, 1)
    return float(np.mean(amortized.log_prob({"phi": phi}, x.reshape(1000, -1)))) + np.log(1.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERIES)
def test_a_series_gives_most_of_what_its_likelihood_knows(name):
    attainable = attainable_gain()
    assert attainable == pytest.approx(1.78, abs=0.06)
    assert 0.72 * attainable < series_gain(SERIES[name], 12) < attainable + 0.1


@pytest.mark.slow
def test_fully_connected_layers_learn_next_to_nothing_of_the_same_series():
    assert series_gain(embeddings.MLP(), 12) < 0.4  # the sum of products is no function of few directions


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.slow
def test_saved_networks_are_equal_bit_for_bit(name, tmp_path):
    prior = lg.make_prior()
    draws, x = lg.make_draws(prior, 60), lg.simulate(prior, KEY, 5)
    again = embedding_from_spec(npz.json.loads(npz.to_json(SMALL[name].to_spec())))
    assert again == SMALL[name]
    density = MDN(components=2, width=5, depth=1)
    amortized, _ = NPE(density, SMALL[name], training=Training(max_epochs=1)).fit(draws, prior, key=KEY)
    amortized.save(tmp_path / "npe.npz")
    loaded = npz.load(tmp_path / "npe.npz")
    assert loaded.estimator.embedding == SMALL[name]
    np.testing.assert_array_equal(loaded.log_prob(*x), amortized.log_prob(*x))


class Difference(eqx.Module):
    """A user's own: a trained gain on the difference of the first features."""

    gain: jax.Array
    inner: eqx.nn.MLP

    def __call__(self, h):
        return self.inner(self.gain * (h[:1] - h[1:2]))


def own(out=2):
    return Difference(jnp.array([0.5]), eqx.nn.MLP(1, out, 4, 1, activation=jnp.tanh, key=KEY))


@pytest.mark.slow
def test_a_module_of_your_own_is_trained_and_never_written(tmp_path):
    """x = (a + c, c) of a nuisance c: only the difference tells a."""
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=1500), rng.normal(0.0, 20.0, 1500)
    x = np.stack([a + c + 0.3 * rng.normal(size=1500), c], axis=1)
    draws, prior = Draws.from_arrays({"a": a}, x), Prior({"a": dist.Normal(0.0, 1.0)})
    training = Training(max_epochs=15, batch_size=50, learning_rate=5e-3)
    module = own()
    estimator = NPE(MDN(components=1), module, training=training)
    amortized, info = estimator.fit(draws, prior, key=KEY)
    assert info.info_gain == pytest.approx(0.5 * np.log(1 + 1 / 0.09), abs=0.3)
    assert float(module.gain[0]) == 0.5  # what was given is as it was
    with pytest.raises(TypeError, match=r"the embedding Difference is your own, and a file holds no code; save the dr"):
        amortized.save(tmp_path / "npe.npz")
    ratio, _ = NRE(embedding=module, training=Training(max_epochs=1)).fit(draws, prior, key=KEY)
    with pytest.raises(TypeError, match=r"the embedding Difference is your own"):
        ratio.save(tmp_path / "nre.npz")
    assert not list(tmp_path.iterdir())


def test_a_module_is_described_alike_in_every_process():
    assert " at 0x" in repr(own())
    assert " at 0x" not in describe(own())
    assert describe(own(2)) != describe(own(3))
    assert describe(None) is None
    assert describe(SMALL["Conv"]) == {"name": "Conv", **dataclasses.asdict(SMALL["Conv"])}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: embeddings.MLP(width=0), r"MLP\(width=0\) was given; expected a whole number of at least 1"),
        (lambda: embeddings.Invariant(shape=(4, 0)), r"Invariant\(shape=\(4, 0\)\) was given; expected two whole"),
        (
            lambda: embeddings.Conv(shape=(20, 2)).build(KEY, 40),
            r"Conv\(layers=3, kernel=7, stride=2\) needs 43 samples; the series has 20\. Give fewer layers",
        ),
        (
            lambda: embeddings.Transformer(shape=(20, 2), width=10, heads=4).build(KEY, 40),
            r"Transformer\(width=10, heads=4\): width must be a multiple of heads",
        ),
        (
            lambda: embeddings.Recurrent(shape=(20, 2)).build(KEY, 41),
            r"Recurrent\(shape=\(20, 2\)\) reads 40 numbers; the summary has 41\. Give the shape of the table",
        ),
        (
            lambda: embeddings.Invariant(shape=(5, 3)).columns(14),
            r"Invariant\(shape=\(5, 3\)\) reads 15 numbers; the summary has 14",
        ),
        (
            lambda: embed(lambda h: h.reshape(2, 3), KEY, 6),
            r"the embedding made \[2, 3\] of a summary \[6\]; expected one vector \[out\]",
        ),
        (lambda: embed(lambda h: (h, h), KEY, 6), r"the embedding made tuple of a summary \[6\]"),
    ],
)
def test_options_that_do_not_fit_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_cannot_embed_is_refused_when_the_estimator_is_made():
    for kind in (NPE, NRE):
        with pytest.raises(
            TypeError, match=r"embedding=the class Conv was given; .* vb\.densities\.embeddings\.Conv\("
        ):
            kind(embedding=embeddings.Conv)
    with pytest.raises(TypeError, match=r"embedding='conv' was given"):
        check_embedding("conv")


@pytest.mark.slow
def test_the_listings_of_the_page_run():
    page = (Path(__file__).parent.parent / "docs/how-to/own-network.md").read_text()
    names: dict = {}
    for listing in re.findall(r"<!-- \w+: the tests run this -->\n```python\n(.*?)```", page, flags=re.DOTALL):
        quick = listing.replace("n=2_000", "n=300").replace(
            "vb.NPE(", "vb.NPE(training=vb.densities.Training(max_epochs=3), "
        )
        assert quick != listing
        exec(compile(quick, "own-network.md", "exec"), names)
    assert names["draws"].x.shape == (300, 80)
    assert names["posterior"].theta["model.gamma"].shape == (1, 1000)
    assert isinstance(names["amortized"].estimator.embedding, names["Spectrum"])
