"""Sparse networks give the numbers of the dense ones: at once and delayed, alone and in batches, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental.sparse import BCOO

import vbinfer as vb

RNG = np.random.default_rng(2)
W = RNG.normal(0.5, 0.6, (5, 5)) * (RNG.uniform(size=(5, 5)) < 0.5)
W[3] = 0.0  # node 3 hears nobody
L = RNG.uniform(0.0, 5.0, (5, 5)) * (RNG.uniform(size=(5, 5)) < 0.8)
TARGETS, SOURCES = np.nonzero(W)
START = np.array([0.3, -0.2, 1.1, 0.7, 0.4])
EVERY = {"x": vb.monitors.Subsample(0.5)}
DELAYS = {"none": None, "rounded": vb.Delays(max=9.0), "interpolated": vb.Delays(max=9.0, interpolate=True)}
WEIGHTS, LENGTHS, SPEED = "connectome.weights", "connectome.tract_lengths", "connectome.speed"


def dense():
    """In the precision of the moment, so not a constant."""
    return vb.Connectome(W, L, 2.0)


def from_edges(order=slice(None)):
    """The connections one by one, in any order."""
    t, s = TARGETS[order], SOURCES[order]
    return vb.Connectome.from_edges(s, t, W[t, s], L[t, s], n_nodes=5, speed=2.0)


WAYS = {
    "sparse()": lambda: dense().sparse(),
    "from_edges": lambda: from_edges(np.arange(len(TARGETS))[::-1]),
    "BCOO": lambda: vb.Connectome(BCOO.fromdense(jnp.asarray(W)), L, 2.0),
    "BCOO with sparse lengths": lambda: vb.Connectome(
        BCOO.fromdense(jnp.asarray(W)), BCOO.fromdense(jnp.asarray(L)), 2.0
    ),
    "csr": lambda: vb.Connectome(scipy.sparse.csr_matrix(W), L, 2.0),
    "csc": lambda: vb.Connectome(scipy.sparse.csc_array(W), scipy.sparse.csr_array(L), 2.0),
    "coo": lambda: vb.Connectome(scipy.sparse.coo_array(W), L, 2.0),
}


def network(connectome, delays=None, **parts):
    given = dict(
        model=vb.models.Linear(gamma=[-0.9, -1.2, -0.7, -1.0, -1.5]),
        coupling=vb.coupling.Difference(G=0.3),
        integrator=vb.Heun(dt=0.1),
        monitors=EVERY,
    )
    return vb.Simulator(connectome=connectome, delays=delays, **(given | parts))


def run(sim, t1=6.0):
    init = {name: jnp.asarray(START * (k + 1.0)) for k, name in enumerate(sim.model.variables())}
    y = vb.simulate(sim, t1=t1, key=None, init=init).ys["x"]
    return np.stack([y[name] for name in y])


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_give_it_is_the_same_network(way):
    sparse = WAYS[way]()
    assert sparse.weights.shape == sparse.tract_lengths.shape == (len(TARGETS),)
    full = sparse.dense()
    np.testing.assert_array_equal(full.weights, jnp.asarray(W))
    np.testing.assert_array_equal(full.tract_lengths, jnp.where(W == 0.0, 0.0, jnp.asarray(L)))
    assert sparse.n_nodes == 5
    assert float(sparse.speed) == 2.0


COUPLINGS = {
    "Difference": {},
    "Kuramoto": dict(coupling=vb.coupling.Kuramoto(G=0.3), model=vb.models.Kuramoto(omega=START)),
    "SigmoidalJansenRit": dict(coupling=vb.coupling.SigmoidalJansenRit(a=40.0), model=vb.models.JansenRit(mu=START)),
}


@pytest.mark.parametrize(
    ("kind", "coupling"),
    [
        ("none", "SigmoidalJansenRit"),
        ("none", "Difference"),
        ("rounded", "SigmoidalJansenRit"),
        ("rounded", "Difference"),
        ("interpolated", "Difference"),
        ("interpolated", "Kuramoto"),
    ],
)
def test_trajectories_are_those_of_the_dense_network(kind, coupling):
    with jax.enable_x64(True):
        parts = dict(delays=DELAYS[kind], **COUPLINGS[coupling])
        full = run(network(dense(), **parts))
        sparse = run(network(from_edges(np.arange(len(TARGETS))[::-1]), **parts))
    np.testing.assert_allclose(sparse, full, rtol=1e-9, atol=1e-12)
    turned = run(network(vb.Connectome(W.T, L.T, 2.0), **parts))
    assert np.abs(turned - full).max() > 1e-4


def drawn(names, n):
    """Theta of the dense network and of the sparse one."""
    rng = np.random.default_rng(3)
    full = {
        WEIGHTS: W * rng.uniform(0.5, 1.5, (n, 5, 5)),
        LENGTHS: L * rng.uniform(0.5, 1.5, (n, 5, 5)),
        SPEED: rng.uniform(1.0, 90.0, n),
        "coupling.G": rng.uniform(0.1, 0.5, n),
    }
    by_edge = {k: v[:, TARGETS, SOURCES] if v.ndim == 3 else v for k, v in full.items()}
    return tuple({name: jnp.asarray(theta[name]) for name in names} for theta in (full, by_edge))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("none", (WEIGHTS, "coupling.G")),
        ("rounded", ("coupling.G",)),
        ("rounded", (SPEED,)),
        ("rounded", (WEIGHTS,)),
        ("interpolated", (LENGTHS,)),
        ("interpolated", (WEIGHTS, LENGTHS, SPEED)),
    ],
)
def test_batches_are_those_of_the_dense_network(kind, names):
    """As many draws as nodes; drawn weights and lengths are `[edge]`."""
    with jax.enable_x64(True):
        full, by_edge = drawn(names, 5)
        keys, x = jax.random.split(jax.random.key(0), 5), []
        for connectome, theta in ((dense(), full), (dense().sparse(), by_edge)):
            monitors = {"x": vb.monitors.Subsample(0.5, var="x")}
            sim = network(connectome, DELAYS[kind], noise=vb.noise.Additive(0.1), monitors=monitors)
            fwd = vb.ForwardModel(sim, t1=3.0, summary=jnp.ravel, init={"x": START})
            x.append(np.asarray(fwd.batch(theta, keys)))
        alone = fwd({name: v[3] for name, v in by_edge.items()}, keys[3])
    np.testing.assert_allclose(x[1], x[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(x[1][3], alone, rtol=1e-9, atol=1e-12)
    assert np.abs(np.diff(x[1], axis=0)).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("kind", ["none", "interpolated"])
def test_gradients_are_those_of_the_dense_network_where_there_is_a_connection(kind):
    names = (WEIGHTS, LENGTHS, SPEED)

    def slopes(connectome):
        sim = network(connectome, DELAYS[kind], coupling=vb.coupling.Linear(G=0.3))

        def loss(theta):
            y = vb.simulate(vb.bind(sim, theta), t1=3.0, key=None, init={"x": jnp.asarray(START)}).ys["x"]["x"]
            return (y * jnp.asarray([[1.0, -2.0, 0.5, 3.0, 1.0]])).sum()

        return jax.grad(loss)({name: vb.paths(sim)[name].value for name in names})

    with jax.enable_x64(True):
        full, sparse = jax.tree.map(np.asarray, (slopes(dense()), slopes(dense().sparse())))
    np.testing.assert_allclose(sparse[WEIGHTS], full[WEIGHTS][TARGETS, SOURCES], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sparse[LENGTHS], full[LENGTHS][TARGETS, SOURCES], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sparse[SPEED], full[SPEED], rtol=1e-9, atol=1e-12)
    assert np.abs(sparse[WEIGHTS]).min() > 1e-4
    assert (np.abs(sparse[SPEED]) > 1e-3) == (kind == "interpolated")


def test_parallel_connections_of_unequal_lengths_each_bring_their_own():
    """Node 0 hears node 1 after 3 and after 8 steps: the sum of two delayed inputs (Euler, nothing else acts)."""
    network_ = vb.Connectome.from_edges([1, 1], [0, 0], [0.5, -0.2], [0.3, 0.8], n_nodes=2, speed=1.0)
    rows = np.random.default_rng(0).normal(1.0, 1.0, (9, 2))
    sim = network(
        network_,
        vb.Delays(),
        model=vb.models.Linear(gamma=[0.0, -0.4]),
        coupling=vb.coupling.Linear(G=1.0),
        integrator=vb.integrators.Euler(dt=0.1),
        monitors=None,
    )
    with jax.enable_x64(True):
        x = np.asarray(vb.simulate(sim, t1=4.0, key=None, init=vb.History(sim.model.State(rows))).ys["raw"]["x"])
    sent = np.concatenate([rows[:, 1], x[:, 1]])
    k = np.arange(8, 48)  # the row of time zero is 8
    expected = rows[-1, 0] + 0.1 * np.cumsum(0.5 * sent[k - 3] - 0.2 * sent[k - 8])
    np.testing.assert_allclose(x[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(network_.strength, [0.3, 0.0], rtol=1e-6)


def test_a_batch_reads_parallel_connections_and_unequal_numbers_of_them_in_blocks():
    """x_i(k+1) = x_i(k) + dt sum_e w_e G x_source(k - lag_e), written out edge by edge in float64."""
    rng, n, steps = np.random.default_rng(5), 7, 45
    sources = np.array([1, 1, 1, 1, 1, 0, 2, 3, 4, 5, 6, 6, 2, 2])
    targets = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 6, 1])  # nodes 2, 4 and 5 hear nobody
    weights, lags = rng.normal(0.0, 1.0, len(sources)), rng.integers(7, 20, len(sources))
    rows, G = rng.normal(1.0, 1.0, (20, n)), np.array([0.3, -0.5, 1.0])
    with jax.enable_x64(True):
        sim = network(
            vb.Connectome.from_edges(sources, targets, weights, lags * 0.1, n_nodes=n, speed=1.0),
            vb.Delays(),
            model=vb.models.Linear(gamma=0.0),
            coupling=vb.coupling.Linear(G=1.0),
            integrator=vb.Euler(dt=0.1),
            monitors={"x": vb.monitors.Raw("x")},
        )
        assert sim.delays.ahead >= 5
        fwd = vb.ForwardModel(sim, t1=steps * 0.1, summary=jnp.ravel, init=vb.History(sim.model.State(rows)))
        x = np.asarray(fwd.batch({"coupling.G": G}, jax.random.split(jax.random.key(0), 3))).reshape(3, steps, n)
    for draw, strength in enumerate(G):
        past = list(rows)
        for k in range(len(rows) - 1, len(rows) - 1 + steps):
            new = past[k].copy()
            for j, i, w, lag in zip(sources, targets, weights, lags, strict=True):
                new[i] += 0.1 * strength * w * past[k - lag][j]
            past.append(new)
        np.testing.assert_allclose(x[draw], past[len(rows) :], rtol=1e-12, atol=1e-12)


MISTAKES = [
    (lambda: vb.Connectome.from_edges([0, 5], [1, 2], [1.0, 1.0], n_nodes=5), "names node 5; there are 5, 0 to 4"),
    (lambda: vb.Connectome.from_edges([0, -1], [1, 2], [1.0, 1.0], n_nodes=5), "names node -1"),
    (lambda: vb.Connectome.from_edges([0, 1], [1, 2], [1.0], n_nodes=5), "one weight, source and target"),
    (lambda: vb.Connectome.from_edges([0, 1], [1, 2], [1.0, 1.0], [2.0], n_nodes=5), r"tract_lengths is \[1\]"),
    (lambda: vb.Connectome.from_edges([0, 1], [1, 2], [1.0, np.nan], n_nodes=5), "NaN"),
    (lambda: vb.Connectome.from_edges([0, 1], [1, 2], [1.0, 1.0], [1.0, -2.0], n_nodes=5), "must lie in"),
    (lambda: vb.Connectome(np.ones(2), np.ones(2), edges=np.zeros((2, 2))), "edges and size go together"),
    (lambda: vb.bind(network(dense().sparse()), {WEIGHTS: W}), rf"expected \[{len(TARGETS)}\]"),
    (lambda: network(dense().sparse(), vb.Delays(max=1.0)), "set max to at least"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("how", ["max", "strength", "row", "spectral"])
def test_normalising_keeps_every_parallel_connection_with_its_length(how):
    weights, lengths = [0.5, 0.25, 2.0, 1.0], [10.0, 40.0, 20.0, 5.0]
    network = vb.Connectome.from_edges([1, 1, 0, 2], [0, 0, 2, 2], weights, lengths, n_nodes=3)
    scaled = network.normalise(how, zero_diagonal=False)
    np.testing.assert_array_equal(scaled.tract_lengths, lengths)
    np.testing.assert_array_equal(scaled.edges, network.edges)
    full = np.zeros((3, 3))
    np.add.at(full, (np.array([0, 0, 2, 2]), np.array([1, 1, 0, 2])), weights)
    received = full.sum(axis=1)
    scale = {"max": 2.0, "strength": received.mean(), "row": received[[0, 0, 2, 2]], "spectral": 1.0}[how]
    np.testing.assert_allclose(scaled.weights, np.array(weights) / scale, rtol=1e-6)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "dia", "lil", "dok", "bsr"])
def test_every_scipy_layout_and_a_padded_bcoo_are_read(layout):

    w = np.array([[0.0, 2.0, 0.0], [0.5, 0.0, 0.0], [0.0, 1.5, 0.0]])
    for sparse in (getattr(scipy.sparse, f"{layout}_array")(w), BCOO.fromdense(jnp.asarray(w), nse=6)):
        np.testing.assert_allclose(vb.Connectome(sparse, 10.0 * w.T).dense().weights, w)


@pytest.mark.parametrize(("weights", "lengths"), [((6, 6), (3, 3)), ((3, 2), (3, 2))])
def test_sparse_weights_and_lengths_of_unequal_sizes_are_refused(weights, lengths):
    with pytest.raises(ValueError, match=r"must be \[node, node\]"):
        vb.Connectome(scipy.sparse.csr_matrix(np.ones(weights)), np.ones(lengths))
