"""Point neurons in the one loop: closed forms, golden spike times, and a network written in NumPy."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import vbinfer as vb
from vbinfer.network.dense import Dense
from vbinfer.network.edges import EdgeList
from vbinfer.network.events import delivery
from vbinfer.network.procedural import RandomGraph

HERE = Path(__file__).parent
GOLDEN, GOLDEN2 = (np.load(HERE / "golden" / f"{name}.npz") for name in ("spiking", "spiking2"))
S = vb.spiking


def spike_times(y, dt):
    """Times of the spikes of each neuron, from z and the time since each."""
    ends = np.arange(1, len(y["z"]) + 1) * dt
    z, since = np.asarray(y["z"]) > 0, np.asarray(y["since"])
    return [(ends - since[:, i])[z[:, i]] for i in range(z.shape[1])]


def constant(n, amplitude=1.0, gain=1.0):
    return vb.stimuli.Pulse(onset=-1.0, duration=1e6, amplitude=amplitude, gain=np.broadcast_to(gain, (n,)))


@pytest.mark.parametrize("dt", [0.1, 0.4])
def test_lif_fires_at_the_times_of_the_closed_form(dt):
    u, isi, first = (GOLDEN2[f"lif_fi__{name}"] for name in ("u", "isi", "first"))
    with jax.enable_x64(True):
        neuron = S.LIF(tau=20.0, v_rest=-70.0, v_th=-50.0, v_reset=-60.0, t_ref=2.0)
        sim = vb.Simulator(neuron, integrator=vb.Native(dt), nodes=8, stimulus=constant(8, gain=u))
        times = spike_times(vb.simulate(sim, t1=320.0, key=None).ys["raw"], dt)
    for i in range(8):
        assert (len(times[i]) == 0) == np.isinf(isi[i])
        if len(times[i]):
            # the chord of an exponential: dt^2 / 8 tau at most
            np.testing.assert_allclose(times[i][0], first[i], atol=1.1e-3 * (dt / 0.4) ** 2)
            np.testing.assert_allclose(np.diff(times[i]), isi[i], atol=1e-3 * (dt / 0.4) ** 1.5)


def test_qif_is_exact_at_any_step():
    with jax.enable_x64(True):
        neuron = S.QIF(tau=10.0, eta=GOLDEN2["qif_fi__eta"], v_peak=50.0, v_reset=-40.0)
        run = vb.simulate(vb.Simulator(neuron, integrator=vb.Native(0.5)), t1=120.0, key=None)
        times = spike_times(run.ys["raw"], 0.5)
    for found, isi in zip(times, GOLDEN2["qif_fi__isi"], strict=True):
        np.testing.assert_allclose(np.diff(found), isi, rtol=1e-9)


def test_a_current_that_decays_drives_the_membrane_exactly():
    """tau = tau_s is the confluent case; a spike of c mV at i gives c s/tau exp(-s/tau)."""
    for tau_s in (3.0, 8.0, 8.0 * (1 + 1e-9)):
        with jax.enable_x64(True):
            cell = S.CubaLIF(tau=8.0, tau_s=tau_s, v_th=1e3)
            sim = vb.Simulator(cell, integrator=vb.Native(0.5), nodes=1)
            y = vb.simulate(sim, t1=20.0, key=None, init={"v": 2.0, "i": 5.0}).ys["raw"]
        s = np.arange(1, 41) * 0.5
        if tau_s > 7.9:
            psp = 5.0 * s / 8.0 * np.exp(-s / 8.0)
        else:
            psp = 5.0 * tau_s / (tau_s - 8.0) * (np.exp(-s / tau_s) - np.exp(-s / 8.0))
        np.testing.assert_allclose(y["v"][:, 0], 2.0 * np.exp(-s / 8.0) + psp, rtol=1e-7)
        np.testing.assert_allclose(y["i"][:, 0], 5.0 * np.exp(-s / tau_s), rtol=1e-9)


CURRENTS = {"izh": ((0.0, 0.0), (20.0, 10.0), (160.0, 4.0)), "adex": ((0.0, 0.0), (20.0, 900.0), (170.0, 300.0))}
CELLS = {
    "izh_RS": S.Izhikevich(0.02, 0.2, -65.0, 8.0),
    "izh_FS": S.Izhikevich(0.1, 0.2, -65.0, 2.0),
    "adex_default": S.AdEx(tau_w=144.0, b=80.5, V_r=-70.6),
    "adex_burst": S.AdEx(tau_w=20.0, b=500.0, V_r=-47.4),
}


def golden_error(name, dt):
    """Largest error of a golden spike time, by the stepper of the loop."""
    n = round(220.0 / dt)
    t = (np.arange(n) + 0.5) * dt
    steps = CURRENTS[name.partition("_")[0]][::-1]
    current = np.select([t > start for start, _ in steps], [amplitude for _, amplitude in steps])
    with jax.enable_x64(True):
        cell = jax.tree.map(lambda a: a.astype(float), CELLS[name])
        init, step = vb.stepper(vb.Simulator(cell, integrator=vb.Native(dt), nodes=1))

        @jax.jit
        def run(current):
            def one(carry, i):
                carry = step(carry, u=i)
                return carry, {"z": carry.x.z, "since": carry.x.since}

            begin = init(init={"v": -70.0, "u": -14.0} if "izh" in name else None)
            return jax.lax.scan(one, begin, current)[1]

        found = spike_times(run(jnp.asarray(current)), dt)[0]
    golden = GOLDEN[f"{name}_spikes"]
    assert len(found) == len(golden)
    return np.abs(found - golden).max()


@pytest.mark.parametrize("name", ["izh_RS", "izh_FS"])
def test_izhikevich_is_of_second_order(name):
    coarse, fine = golden_error(name, 0.05), golden_error(name, 0.0125)
    assert fine < 0.005
    assert np.log(coarse / fine) / np.log(4.0) > 1.9


@pytest.mark.parametrize("name", ["adex_default", "adex_burst"])
def test_adex_spikes_where_event_location_finds_them(name):
    assert golden_error(name, 0.0125) < 0.01


def test_adex_between_spikes_is_the_golden_trajectory():
    """v and w of every 0.25 ms up to the first spike and across all resets, away from upswings."""
    n = 880 * 20
    t = (np.arange(n) + 0.5) * 0.0125
    current = np.where(t < 20.0, 0.0, np.where(t < 170.0, 900.0, 300.0))
    with jax.enable_x64(True):
        init, step = vb.stepper(vb.Simulator(S.AdEx(), integrator=vb.Native(0.0125), nodes=1))

        @jax.jit
        def run(current):
            def one(carry, i):
                carry = step(carry, u=i)
                return carry, (carry.x.v[0], carry.x.w[0])

            return jax.lax.scan(one, init(), current)[1]

        v, w = (np.asarray(a)[19::20] for a in run(jnp.asarray(current)))
    golden = GOLDEN["adex_default_y"][:, 1:]
    smooth = golden[0] < -52.0
    assert smooth.sum() > 500
    np.testing.assert_allclose(v[smooth], golden[0][smooth], atol=0.03)
    np.testing.assert_allclose(w, golden[1], atol=1.0)  # of 80.5 pA per spike


# --- networks --------------------------------------------------------------------------------------------------------

N, DT, STEPS = 12, 0.1, 400
RNG = np.random.default_rng(7)


def drawn(lags):
    """A network with self-connections and repeats: receivers, senders, weights, lags in steps."""
    targets, senders = RNG.integers(0, N, (2, 70))
    return targets, senders, RNG.uniform(0.5, 2.5, 70), np.asarray(lags if np.ndim(lags) else [lags] * 70)


NETWORKS = {"exc": drawn(RNG.integers(1, 9, 70)), "inh": drawn(15)}
NORMALS = RNG.standard_normal((STEPS, N))
G = {"exc": 1.3, "inh": -0.7}
TAU = np.linspace(8.0, 14.0, N)
RATE = np.linspace(1.0, 6.0, N)


def network_oracle(g_exc):
    """LIF neurons with integer refractoriness and delays in scalar loops; Poisson counts by scipy's quantiles."""
    counts = scipy.stats.poisson.ppf(scipy.stats.norm.cdf(NORMALS), RATE * DT)
    v, wait = np.full(N, 1.5), np.zeros(N, int)
    z, voltage = np.zeros((STEPS, N)), np.zeros((STEPS, N))
    for k in range(STEPS):
        arriving = 0.8 * counts[k]
        for name, (targets, senders, weights, lags) in NETWORKS.items():
            for target, sender, weight, lag in zip(targets, senders, weights, lags, strict=True):
                if k - lag >= 0:
                    arriving[target] += (g_exc if name == "exc" else G[name]) * weight * z[k - lag, sender]
        for i in range(N):
            if wait[i]:
                wait[i] -= 1  # what arrives is lost
                continue
            v[i] = 1.5 + (v[i] - 1.5) * np.exp(-DT / TAU[i]) + arriving[i]
            if v[i] >= 6.0:
                z[k, i], v[i], wait[i] = 1.0, 0.5, 7
        voltage[k] = v
    return z, voltage


def network(layout, interpolate=False):
    def connectome(targets, senders, weights, lags):
        if layout == "dense":  # of repeats the last lag stays, which the oracle would not know: only for equal lags
            dense = np.zeros((N, N))
            np.add.at(dense, (targets, senders), weights)
            return vb.Connectome(dense, np.full((N, N), lags[0] * DT), speed=1.0)
        return vb.Connectome.from_edges(senders, targets, weights, lags * DT, n_nodes=N, speed=1.0)

    return vb.Simulator(
        S.LIF(tau=TAU, v_rest=1.5, v_th=6.0, v_reset=0.5, t_ref=0.7, interpolate=interpolate),
        {name: connectome(*edges) if name == "inh" or layout == "sparse"
         else vb.Connectome.from_edges(edges[1], edges[0], edges[2], edges[3] * DT, n_nodes=N, speed=1.0)
         for name, edges in NETWORKS.items()},
        coupling={name: vb.coupling.Linear(G=g) for name, g in G.items()},
        delays=vb.Delays(),
        integrator=vb.Native(DT),
        noise=vb.noise.Poisson(rate=RATE, weight=0.8),
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_a_network_is_that_of_scalar_loops(layout):
    """Unequal lags read edge by edge, equal ones delivered spike by spike, and a row of Poisson pulses."""
    z, v = network_oracle(G["exc"])
    assert z.sum(0).min() > 0
    assert z.sum() > 150
    with jax.enable_x64(True):
        y = vb.simulate(network(layout), t1=STEPS * DT, key=None, noise_path={"v": NORMALS}).ys["raw"]
    np.testing.assert_array_equal(y["z"], z)
    np.testing.assert_allclose(y["v"], v, rtol=1e-9)


def test_a_batch_is_its_draws_one_by_one():
    keys, g = jax.random.split(jax.random.key(3), 5), np.array([0.4, 0.9, 1.3, 1.7, 2.4])
    fwd = vb.ForwardModel(
        network("sparse", True), t1=30.0, summary=lambda y: jnp.concatenate([y["z"].sum(0), y["v"][-1]])
    )
    theta = {
        "coupling.exc.G": g,
        "noise.rate": np.outer(g, RATE),
        "connectome.inh.speed": 1.0 / np.arange(1.0, 2.0, 0.2),
    }
    together = fwd.batch(theta, keys)
    alone = np.stack([fwd({k: v[i] for k, v in theta.items()}, keys[i]) for i in range(5)])
    assert alone[:, :N].sum() > 30
    np.testing.assert_array_equal(together[:, :N], alone[:, :N])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_a_run_resumes_with_spikes_under_way():
    sim = vb.Simulator(
        S.LIF(tau=TAU, v_th=2.0, t_ref=0.7),
        vb.Connectome.random(N, in_degree=3, weight=0.5, delay=1.5, key=jax.random.key(0)),
        coupling=vb.coupling.Linear(),
        delays=vb.Delays(),
        integrator=vb.Native(DT),
        noise=vb.noise.Poisson(rate=RATE, weight=0.8),
    )
    key = jax.random.key(4)
    whole = vb.simulate(sim, t1=20.0, key=key).ys["raw"]
    half = vb.simulate(sim, t1=10.0, key=key)
    rest = vb.simulate(sim, t1=10.0, key=key, init=half.final).ys["raw"]
    assert half.ys["raw"]["z"][-15:].sum() > 3
    for name in ("v", "z", "since"):
        np.testing.assert_array_equal(whole[name][100:], rest[name])


@pytest.mark.parametrize("layout", ["dense", "list"])
def test_delivery_of_spikes_is_the_sum_over_all(layout):
    """Bursts of all nodes, hubs with many connections, drawn weights; derivatives in both modes."""
    n, rng = 90, np.random.default_rng(1)
    if layout == "dense":
        layout, shape = Dense(n), (n, n)
    else:
        edges = np.stack([rng.integers(0, n, 700), np.r_[rng.integers(0, n, 500), np.full(200, 4)]])
        layout, shape = EdgeList(jnp.asarray(edges, jnp.int32), n), (700,)
    run = jax.jit(lambda w, sent: delivery(layout, w)(sent))
    shared, drawn = (jnp.asarray(rng.integers(-3, 4, s), float) for s in (shape, (*shape, 3)))
    for share in (0.0, 0.03, 1.0):
        sent = jnp.asarray(rng.random((n, 3)) < share, float) * 2.0
        np.testing.assert_array_equal(run(drawn, sent), layout.received(drawn, sent))
        np.testing.assert_array_equal(run(shared, sent[:, 0]), layout.received(shared, sent[:, 0]))
    dw, ds, up = (jnp.asarray(rng.standard_normal(a.shape), a.dtype) for a in (drawn, sent, sent))
    forward = (up * jax.jvp(run, (drawn, sent), (dw, ds))[1]).sum()
    back = jax.vjp(run, drawn, sent)[1](up)
    np.testing.assert_allclose(forward, (back[0] * dw).sum() + (back[1] * ds).sum(), rtol=1e-4)


def test_spikes_carry_surrogate_gradients_through_delays():
    """Of a network in float64, forward mode equals reverse mode, and the drive matters."""
    with jax.enable_x64(True):
        sim = vb.Simulator(
            S.LIF(tau=10.0, v_th=1.0, surrogate=S.surrogates.SuperSpike(5.0)),
            vb.Connectome.random(6, in_degree=3, weight=0.5, delay=1.0, key=jax.random.key(0)),
            coupling=vb.coupling.Linear(),
            delays=vb.Delays(),
            integrator=vb.Native(0.5),
            stimulus=constant(6, 1.5, np.linspace(0.7, 1.4, 6)),
        )

        def cost(g):
            y = vb.simulate(vb.bind(sim, {"coupling.G": g}), t1=40.0, key=None).ys["raw"]
            return (y["v"] ** 2).sum() + y["z"].sum()

        forward, reverse = jax.jvp(cost, (1.0,), (1.0,))[1], jax.grad(cost)(1.0)
    assert abs(float(reverse)) > 1.0
    np.testing.assert_allclose(np.asarray(forward), np.asarray(reverse), rtol=1e-10)


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.01, 0.4, 5.0, 40.0])
def test_counts_are_poisson(lam):
    """Quantiles of the normals by scipy where exact; chi-squared on a million counts elsewhere too."""
    z = np.concatenate([np.random.default_rng(0).standard_normal(200_000), [-6.66, 6.66, 5.5]]).astype(np.float32)
    process = vb.noise.Poisson(rate=lam / 0.1, weight=2.0).process(0.1)
    n = np.asarray(process(None, {"v": jnp.asarray(z)}, {})[1]["v"]) / 2.0
    edges = np.unique(scipy.stats.poisson.ppf([1e-9, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98], lam))
    seen = np.histogram(n, [-1.0, *(edges + 0.5), np.inf])[0]
    expected = np.diff(scipy.stats.poisson.cdf([-1.0, *(edges + 0.5), np.inf], lam)) * len(n)
    keep = expected > 5
    assert scipy.stats.chisquare(seen[keep], expected[keep] * seen[keep].sum() / expected[keep].sum()).pvalue > 1e-3
    exact = scipy.stats.poisson.ppf(scipy.stats.norm.cdf(z.astype(float)), lam)
    assert (n != exact).mean() < (1e-4 if lam < 16 else 1e-3)  # float32 at the edges of counts


def test_white_noise_gives_a_free_membrane_its_variance():
    """s sqrt(tau/2), at a step that is not small against tau; and dt-independent."""
    with jax.enable_x64(True):
        for dt in (0.5, 4.0):
            sim = vb.Simulator(
                S.LIF(tau=10.0, v_th=1e3), integrator=vb.Native(dt), nodes=2_000, noise=vb.noise.Additive({"v": 2.0}),
                monitors={"v": vb.monitors.Subsample(40.0, "v")},
            )  # fmt: skip
            v = np.asarray(vb.simulate(sim, t1=400.0, key=jax.random.key(1)).ys["v"])[2:]
        se = np.sqrt(20.0) / np.sqrt(2 * v.size)
        assert abs(v.std() - np.sqrt(20.0)) < 4 * se


# --- surrogates and errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SuperSpike", "FastSigmoid", "ArcTan", "Sigmoid", "Triangular", "Gaussian"])
@pytest.mark.parametrize("k", [1, 5, 25])
def test_surrogates_have_their_formulae_in_both_modes(name, k):
    with jax.enable_x64(True):
        x = jnp.asarray(GOLDEN2["surrogate__x"])
        surrogate = getattr(S.surrogates, name)(float(k))
        value, forward = jax.jvp(surrogate, (x,), (jnp.ones_like(x),))
        reverse = jax.vjp(surrogate, x)[1](jnp.ones_like(x))[0]
    np.testing.assert_array_equal(value, GOLDEN2["surrogate__x"] > 0)
    np.testing.assert_allclose(forward, GOLDEN2[f"surrogate__{name}__k{k}"], rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(forward, reverse)


def test_a_surrogate_of_the_users():
    mine = S.surrogates.Custom(lambda x: jnp.exp(-(x**2)))
    np.testing.assert_allclose(jax.grad(mine)(0.5), np.exp(-0.25), rtol=1e-6)
    with pytest.raises(ValueError, match=r"nan at x = -2; its values must be finite"):
        S.surrogates.Custom(lambda x: jnp.sqrt(x))
    with pytest.raises(ValueError, match="it must act on each element"):
        S.surrogates.Custom(lambda x: x.sum())


def test_random_graphs_have_their_degrees():
    n = 60
    fixed = vb.Connectome.random(n, in_degree=7, weight=np.arange(n) + 1.0, delay=1.5, key=jax.random.key(2))
    targets, senders = np.asarray(fixed.edges)
    np.testing.assert_array_equal(np.bincount(targets, minlength=n), 7)
    assert len({*zip(targets, senders, strict=True)}) == 7 * n
    assert not (targets == senders).any()
    np.testing.assert_array_equal(fixed.weights, senders + 1.0)
    np.testing.assert_allclose(fixed.tract_lengths / fixed.speed, 1.5)
    # every other node is as likely as any: chi-squared over senders
    many = np.concatenate(
        [np.asarray(vb.Connectome.random(20, in_degree=3, key=jax.random.key(i)).edges) for i in range(60)], 1
    )
    assert scipy.stats.chisquare(np.bincount(many[1], minlength=20)).pvalue > 1e-3
    from_some = vb.Connectome.random(n, p=0.3, sources=range(40), key=jax.random.key(2))
    targets, senders = np.asarray(from_some.edges)
    assert senders.max() < 40
    assert not (targets == senders).any()
    possible = 40 * 39 + 20 * 40
    assert abs(len(senders) - 0.3 * possible) < 4 * np.sqrt(possible * 0.21)


def test_drawn_graphs_are_random_graphs():
    """Degrees, pairs, no self-connections, no repeats; another graph for another key and projection."""
    n, p, senders = 60, 0.2, (10, 50)
    graph = RandomGraph(n, p, senders)

    matrix = jax.jit(jax.vmap(lambda k, j: graph.receivers((k, jnp.uint32(3)), 0, j), (None, 0)))
    tables = np.stack([matrix(jnp.uint32(k), jnp.arange(n)) for k in range(150)])
    hit = np.zeros((len(tables), n, n + 1), int)
    np.add.at(hit, (np.arange(len(tables))[:, None, None], np.arange(n)[None, :, None], tables), 1)
    hit = hit[..., :n]  # [graph, sender, receiver]
    assert hit.max() == 1
    assert hit[:, np.arange(n), np.arange(n)].sum() == 0
    pairs = hit.sum(0)[~np.eye(n, dtype=bool)]  # of each pair, over graphs
    assert scipy.stats.chisquare(pairs, np.full(len(pairs), pairs.mean())).pvalue > 1e-3
    assert abs(pairs.mean() / len(tables) - p) < 4 * np.sqrt(p * (1 - p) / len(tables) / len(pairs))
    degrees = hit.sum(2).ravel()
    assert abs(degrees.var() / ((n - 1) * p * (1 - p)) - 1.0) < 4 * np.sqrt(2 / len(degrees))
    assert (tables[0] != tables[1]).any()
    assert (graph.receivers((jnp.uint32(0), jnp.uint32(3)), 1, jnp.int32(4)) != tables[0][4]).any()
    everyone = RandomGraph(5, 1.0, (0, 5)).receivers((jnp.uint32(0), jnp.uint32(3)), 0, jnp.int32(2))
    assert sorted(set(everyone.tolist()) - {5}) == [0, 1, 3, 4]


def graph_network(connectome):
    return vb.Simulator(
        S.LIF(tau=10.0, v_th=3.0, t_ref=1.0, interpolate=False), connectome, coupling=vb.coupling.Linear(G=0.5),
        delays=vb.Delays(max=1.5), integrator=vb.Native(0.25), noise=vb.noise.Poisson(rate=1.2, weight=0.4),
    )  # fmt: skip


def drawn_and_listed(key):
    """A network whose graph is drawn, and the same graph as a list."""
    n = 40
    drawn = graph_network(vb.Connectome.random(n, p=0.15, weight=0.8, delay=1.5, key=None, sources=range(30)))
    words = tuple(jax.random.key_data(key))
    lists = jax.vmap(lambda j: RandomGraph(n, 0.15, (0, 30)).receivers(words, 0, j))(jnp.arange(30))
    senders, targets = np.nonzero(np.asarray(lists) < n)[0], np.asarray(lists)[np.asarray(lists) < n]
    listed = graph_network(
        vb.Connectome.from_edges(
            senders, targets, np.full(len(targets), 0.8), np.full(len(targets), 1.5), n_nodes=n, speed=1.0
        )
    )
    return drawn, listed


def test_a_drawn_graph_is_the_listed_one():
    key = jax.random.key(5)
    one, same = (vb.simulate(sim, t1=100.0, key=key).ys["raw"]["z"] for sim in drawn_and_listed(key))
    assert one.sum() > 100
    np.testing.assert_array_equal(one, same)


@pytest.mark.slow
def test_draws_have_graphs_of_their_own():
    keys = jax.random.split(jax.random.key(5), 48)
    drawn, listed = drawn_and_listed(keys[0])
    one = vb.simulate(drawn, t1=100.0, key=keys[0]).ys["raw"]
    spikes = lambda y: y["z"].sum(axis=0)  # noqa: E731
    own, shared = (vb.ForwardModel(sim, t1=100.0, summary=spikes) for sim in (drawn, listed))
    theta = {"coupling.G": np.full(48, 0.5)}
    x, of_one = np.asarray(own.batch(theta, keys)), np.asarray(shared.batch(theta, keys))
    np.testing.assert_array_equal(x[0], one["z"].sum(0))
    # who receives much differs: counts of a neuron vary more between draws than those of one graph do
    assert x.var(axis=0).mean() > 1.3 * of_one.var(axis=0).mean()
    slope = jax.grad(
        lambda w: vb.simulate(vb.bind(drawn, {"connectome.weights": w}), t1=20.0, key=keys[0]).ys["raw"]["v"].sum()
    )
    assert float(slope(jnp.array([0.8]))[0]) > 1.0


def covered(amortized, held):
    """Share of held-out truths inside the central 80 % of their posteriors."""
    truths = np.asarray(held.theta["coupling.G"])
    draws = np.stack([amortized.sample(x, n=400, key=jax.random.key(9)).theta["coupling.G"][0] for x in held.x])
    low, high = np.quantile(draws, [0.1, 0.9], axis=1)
    return ((low < truths) & (truths < high)).mean()


@pytest.mark.slow
def test_a_graph_that_draws_share_makes_posteriors_overconfident():
    """On recordings of networks with graphs of their own, 80 % intervals of such a posterior cover much less.

    Coverage of 200 networks, whose standard error is 0.03.
    """
    prior, found = vb.Prior({"coupling.G": dist.Uniform(0.2, 1.0)}), {}
    held = None
    for name, sim in zip(("own", "shared"), drawn_and_listed(jax.random.key(5)), strict=True):
        sim = dataclasses.replace(sim, monitors={"r": vb.monitors.Rates(2_000.0)})
        fwd = vb.ForwardModel(sim, t1=2_000.0, summary=S.FiringSummary())
        train, test = (
            vb.sample_prior_predictive(prior, fwd, n=n, key=jax.random.key(k), progress=False)
            for n, k in ((640, 20), (200, 21))
        )
        held = test if held is None else held  # graphs of their own in both
        amortized, _ = vb.NPE(ensemble=1).fit(train, prior, key=jax.random.key(22))
        found[name] = covered(amortized, held)
    assert 0.7 < found["own"] < 0.9, found
    assert found["shared"] < 0.6, found


def lif_with(connectome=None, dt=0.1, **parts):
    return vb.Simulator(S.LIF(), connectome, integrator=vb.Native(dt), **parts)


def test_bad_input_is_answered_with_what_to_write():
    ring = vb.Connectome.random(5, in_degree=2, delay=0.05, key=jax.random.key(0))
    linear = {"coupling": vb.coupling.Linear()}
    with pytest.raises(ValueError, match=r"LIF sends spikes, which take at least one step of 0\.1 ms.*vb\.Delays"):
        lif_with(ring, **linear)
    with pytest.raises(ValueError, match=r"the shortest delay is 0\.05 ms and the step 0\.1 ms"):
        lif_with(ring, **linear, delays=vb.Delays())
    with pytest.raises(ValueError, match=r"use integrator=Native\(dt=0.1\) instead of Heun"):
        vb.Simulator(S.LIF(), integrator=vb.Heun(0.1))
    with pytest.raises(ValueError, match="reset below where it spikes"):
        S.LIF(v_reset=1.0, v_th=0.5)
    with pytest.raises(ValueError, match=r"learn names 'tua' of LIF\. Did you mean 'tau'"):
        S.LIF(learn=("tua",))
    with pytest.raises(TypeError, match=r'write a tuple, learn=\("tau",\)'):
        S.LIF(learn="tau")
    with pytest.raises(ValueError, match=r"Poisson noise gives pulses, which Linear does not take"):
        vb.Simulator(vb.models.Linear(), integrator=vb.Heun(0.1), noise=vb.noise.Poisson(1.0))
    for given, message in (
        ({}, "in_degree or p, one of the two"),
        ({"in_degree": 5}, "at most 4"),
        ({"p": 1.5}, "between 0 and 1"),
        ({"in_degree": 2, "sources": [7]}, "node numbers from 0 to 4"),
        ({"in_degree": 2, "weight": [1.0]}, "one per sending node"),
        ({"in_degree": 2, "delay": -1.0}, "delay=-1.0 was given"),
        ({"in_degree": 2, "key": None}, "every simulation draws its own graph, by p"),
        ({"p": 0.5, "sources": [0, 2], "key": None}, "must follow each other"),
    ):
        with pytest.raises(ValueError, match=message):
            vb.Connectome.random(5, **{"key": jax.random.key(0)} | given)
    drawn = vb.Connectome.random(5, p=0.5, delay=0.5, key=None)
    with pytest.raises(ValueError, match="has no connections to list"):
        drawn.dense()
    with pytest.raises(ValueError, match="a graph that every simulation draws needs a neuron"):
        lif_with(drawn, **linear, delays=vb.Delays())
    noisy = lif_with(drawn, **linear, delays=vb.Delays(), noise=vb.noise.Poisson(1.0))
    with pytest.raises(ValueError, match="the graph of a simulation is drawn from its key"):
        vb.stepper(noisy)


def test_a_drawn_lag_below_one_step_is_a_failed_draw():
    network = vb.Connectome.random(5, in_degree=2, delay=0.2, key=jax.random.key(0))
    fwd = vb.ForwardModel(
        lif_with(network, coupling=vb.coupling.Linear(), delays=vb.Delays(max=1.0)),
        t1=1.0,
        summary=lambda y: y["v"][-1],
    )
    x = fwd.batch({"connectome.speed": jnp.array([1.0, 2.0, 2.5])}, jax.random.split(jax.random.key(0), 3))
    assert np.isfinite(x[:2]).all()
    assert np.isnan(x[2]).all()


def test_silence_is_a_value_and_states_that_are_not_finite_are_failed_draws():
    """Of one batch: no drive, some, and one that is not a number; features of the first are 0."""
    network = vb.Connectome.random(8, in_degree=2, delay=0.2, key=jax.random.key(0))
    sim = lif_with(
        network, coupling=vb.coupling.Linear(), delays=vb.Delays(), noise=vb.noise.Poisson(1.0, 0.5),
        monitors={"r": vb.monitors.Rates(40.0)},
    )  # fmt: skip
    fwd = vb.ForwardModel(sim, t1=40.0, summary=S.FiringSummary())
    x = fwd.batch({"noise.rate": jnp.array([0.0, 2.0, jnp.nan])}, jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(x[0], 0.0)
    assert float(x[1, 0]) > 20.0
    assert np.isnan(x[2]).any()


def listing(marker):
    """What a block of the page defines."""
    page = (HERE.parent / "docs/spiking.md").read_text()
    code, names = page.split(f"<!-- {marker}:")[1].split("```python\n")[1].split("```")[0], {}
    exec(compile(code, f"docs/spiking.md {marker}", "exec"), names)
    return names


def test_the_listing_of_the_page_runs():
    """250 neurons, inhibition dominated: asynchronous, at some tens of spikes per s."""
    rate = listing("spiking")["rate"]
    assert rate.shape == (100,)
    assert 10.0 < rate[20:].mean() < 100.0


@pytest.mark.slow
def test_the_listing_of_layers_learns():
    names = listing("layers")
    assert names["info"].loss[-1] < 0.6 * names["info"].loss[0]
    assert names["outputs"].shape == (40, 2)


# --- monitors --------------------------------------------------------------------------------------------------------


def firing_oracle(trains, start, stop, width):
    """Statistics of lists of spike times in (start, stop], by NumPy."""
    trains = [t[(t > start) & (t <= stop)] for t in trains]
    out = {"count": [len(t) for t in trains], "rate": [len(t) / (stop - start) * 1e3 for t in trains]}
    intervals = [np.diff(t) for t in trains]
    out["cv"] = [i.std(ddof=1) / i.mean() if len(i) > 1 else 0.0 for i in intervals]
    out["lv"] = [3 * np.mean((np.diff(i) / (i[1:] + i[:-1])) ** 2) if len(i) > 1 else 0.0 for i in intervals]
    return out, trains


def test_rates_are_those_of_the_whole_raster():
    """Windows, a late start, a silent neuron; bins by the steps in which spikes fell; alone and in a batch."""
    n = 9
    u = np.r_[np.zeros(1), np.linspace(0.8, 2.4, n - 1)]
    monitors = {
        "r": vb.monitors.Rates(60.0, every=2.5, start=20.0),
        "raw": vb.monitors.Raw(),
        "s": vb.monitors.Spikes(max=30),
    }
    with jax.enable_x64(True):
        sim = vb.Simulator(
            S.LIF(tau=8.0, v_th=1.0, t_ref=1.0), integrator=vb.Native(0.25), nodes=n, monitors=monitors,
            stimulus=constant(n, gain=u), noise=vb.noise.Additive({"v": np.where(u > 0, 0.15, 0.0)}),
        )  # fmt: skip
        run = vb.simulate(sim, t1=120.0, key=jax.random.key(0))
        fwd = vb.ForwardModel(
            sim, t1=120.0, summary={"r": lambda y: jnp.concatenate([y.cv[-1], y.fano[-1], y.correlation])}
        )
        x = fwd.batch({"stimulus.amplitude": np.array([1.0, 1.3])}, jax.random.split(jax.random.key(0), 2))
        one = fwd({"stimulus.amplitude": 1.3}, jax.random.split(jax.random.key(0), 2)[1])
    z, firing, recorded = np.asarray(run.ys["raw"]["z"]), run.ys["r"], run.ys["s"]
    trains = spike_times(run.ys["raw"], 0.25)
    assert [len(t) for t in trains] == recorded.count.tolist()
    assert recorded.count[0] == 0
    for i, train in enumerate(trains):
        np.testing.assert_allclose(np.asarray(recorded.times)[i][: len(train)], train, rtol=1e-12)
        assert np.isnan(np.asarray(recorded.times)[i][len(train) :]).all()
    ends = np.arange(1, len(z) + 1) * 0.25
    for w, (start, stop) in enumerate(((20.0, 60.0), (60.0, 120.0))):
        expected, _ = firing_oracle(trains, start, stop, 2.5)
        for name, value in expected.items():
            np.testing.assert_allclose(np.asarray(getattr(firing, name))[w], value, rtol=1e-6, err_msg=name)
        counts = z[(ends > start) & (ends <= stop)].reshape(-1, 10, n).sum(1)
        var = counts.var(0, ddof=1)
        np.testing.assert_allclose(
            np.asarray(firing.fano)[w][1:], (var / np.maximum(counts.mean(0), 1e-9))[1:], rtol=1e-6
        )
        together = counts.mean(1).var(ddof=1)
        np.testing.assert_allclose(firing.synchrony[w], np.sqrt(together / var.mean()), rtol=1e-6)
        np.testing.assert_allclose(firing.correlation[w], (n * together / var.mean() - 1) / (n - 1), rtol=1e-6)
    np.testing.assert_allclose(x[1], one, rtol=1e-6)


def test_spikes_without_room_are_a_failed_draw_and_a_transient_is_left_out():
    """Constant drive: intervals of 10 ms in one neuron, 5 ms in the other."""
    isi = np.array([10.0, 5.0])
    u = 1.0 / (1.0 - np.exp(-isi / 20.0))
    sim = vb.Simulator(
        S.LIF(tau=20.0, v_th=1.0), integrator=vb.Native(0.1), nodes=2, monitors={"s": vb.monitors.Spikes(max=12)},
        stimulus=constant(2, gain=u),
    )  # fmt: skip
    short = vb.simulate(sim, t1=52.0, key=None)
    assert short.ys["s"].count.tolist() == [5, 10]
    assert not short.ys["s"].overflow
    np.testing.assert_allclose(short.ts["s"], [52.0])
    more = vb.simulate(sim, t1=20.0, key=None, init=short.final).ys["s"]
    assert more.count.tolist() == [7, 14]
    assert more.overflow
    first = lambda y: jnp.concatenate([y.times[:, 0], y.count.astype(float)])  # noqa: E731
    fwd = vb.ForwardModel(sim, t1=52.0, summary=first, transient=12.0)
    x = fwd.batch({"stimulus.amplitude": np.array([1.0, 3.0])}, jax.random.split(jax.random.key(0), 2))
    np.testing.assert_allclose(x[0], [20.0, 15.0, 4.0, 8.0], atol=0.02)
    assert np.isnan(x[1]).all()
    with pytest.raises(ValueError, match="Spikes records spikes, and the model shows x; use it with a neuron"):
        vb.Simulator(vb.models.Linear(), integrator=vb.Heun(0.1), monitors={"s": vb.monitors.Spikes(max=3)})
    with pytest.raises(ValueError, match="expected ms, and bins no longer than a window"):
        vb.monitors.Rates(4.0)


def test_white_noise_gives_the_rate_and_cv_of_siegert():
    """To 1 % and Monte-Carlo error, with the threshold lowered by the shift of a threshold tested once per step."""
    mu, sigma = (a.ravel() for a in np.meshgrid(GOLDEN2["siegert__mu"], GOLDEN2["siegert__sigma"], indexing="ij"))
    rate, cv = GOLDEN2["siegert__rate_hz"].ravel(), GOLDEN2["siegert__cv"].ravel()
    keep, copies, dt = rate > 4.0, 60, 0.1
    mu, sigma, rate, cv = (np.repeat(a[keep], copies) for a in (mu, sigma, rate, cv))
    sim = vb.Simulator(
        S.LIF(tau=20.0, v_th=20.0 - 0.5826 * sigma * np.sqrt(dt / 20.0), v_reset=10.0, t_ref=2.0),
        integrator=vb.Native(dt), nodes=len(mu), stimulus=constant(len(mu), gain=mu),
        noise=vb.noise.Additive({"v": sigma / np.sqrt(20.0)}), monitors={"r": vb.monitors.Rates(1_600.0, start=100.0)},
    )  # fmt: skip
    y = jax.tree.map(lambda a: np.asarray(a[0]), vb.simulate(sim, t1=1_600.0, key=jax.random.key(8)).ys["r"])
    found, found_cv = y.rate.reshape(-1, copies).mean(1), y.cv.reshape(-1, copies).mean(1)
    rate, cv = rate[::copies], cv[::copies]
    spikes = rate * 1.5 * copies  # the count of a renewal process has variance CV^2 n
    assert (np.abs(found / rate - 1.0) < 0.01 + 4.0 * cv / np.sqrt(spikes)).all()
    # that of few intervals is biased: compare where there are many, with the error of a standard deviation
    many = rate > 20.0
    assert many.sum() >= 10
    assert (np.abs(found_cv / cv - 1.0)[many] < 0.03 + 4.0 / np.sqrt(spikes[many])).all()


def test_siegert_has_the_golden_rates_and_cvs():
    mu, sigma = np.meshgrid(GOLDEN2["siegert__mu"], GOLDEN2["siegert__sigma"], indexing="ij")
    cell = dict(tau=20.0, v_th=20.0, v_reset=10.0, t_ref=2.0)
    with jax.enable_x64(True):
        rate, cv = S.siegert(mu, sigma, **cell)
    np.testing.assert_allclose(1e3 * np.asarray(rate), GOLDEN2["siegert__rate_hz"], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(cv), GOLDEN2["siegert__cv"], rtol=1e-4)
    single = S.siegert(mu, sigma, **cell)[1]
    np.testing.assert_allclose(single, GOLDEN2["siegert__cv"], rtol=2e-3)


@pytest.mark.slow
def test_the_lif_task_simulates_what_its_likelihood_says():
    """Features at two thetas, of 40 draws each, within 4 standard errors and the bias of a CV of few intervals."""
    task = vb.tasks.lif()
    for theta in ([15.0, 5.0], [22.0, 7.0]):
        given = {"theta": jnp.tile(jnp.asarray(theta), (40, 1))}
        x = np.asarray(jax.jit(jax.vmap(task.simulator))(given, jax.random.split(jax.random.key(0), 40)))
        # the likelihood is normal in x: its maximum over x is where the gradient vanishes
        slope = jax.grad(lambda x, t=theta: task.log_likelihood({"theta": jnp.asarray(t)}, x))(jnp.zeros(2))
        expected = np.asarray(slope) * 0.08**2
        assert (np.abs(x.mean(0) - expected) < 0.02 + 4 * 0.08 / np.sqrt(40)).all()
        assert (np.abs(x.std(0) / 0.08 - 1.0) < 0.5).all()
    draws = np.asarray(task.sample(x[0], n=4_000, key=jax.random.key(1)).theta["theta"][0])
    assert draws.std(0)[0] < 1.5
    # the grid's mean of the log-likelihood's slope vanishes where the prior's bounds are far
    assert abs(draws.mean(0) - theta).max() < 4 * draws.std(0).max()


@pytest.mark.slow
def test_npe_of_the_lif_task_is_the_posterior_of_siegert():
    task = vb.tasks.lif()
    draws = vb.sample_prior_predictive(task.prior, task.simulator, n=3_000, key=jax.random.key(2), progress=False)
    amortized, _ = vb.NPE().fit(draws, task.prior, key=jax.random.key(3))
    x_o = draws.x[7]
    found = amortized.sample(x_o, n=2_000, key=jax.random.key(4))
    exact = task.sample(x_o, n=2_000, key=jax.random.key(5))
    assert vb.diagnostics.c2st(found.theta["theta"][0], exact.theta["theta"][0]) < 0.58


@pytest.mark.slow
@pytest.mark.parametrize(("point", "g", "eta"), [("g5_eta1", 5.0, 1.0), ("g6_eta2", 6.0, 2.0), ("g3_eta1.2", 3.0, 1.2)])
def test_brunel_networks_fire_as_in_nest(point, g, eta):
    """1,250 neurons, twelve seeds with a graph each against twenty of NEST: rate, CV and synchrony."""
    n, J, found = 1_250, 0.5, []
    for seed in range(12):
        key = jax.random.key(100 + seed)
        k_exc, k_inh = jax.random.split(key)
        sim = vb.Simulator(
            S.LIF(tau=20.0, v_th=20.0, v_reset=10.0, t_ref=2.0, interpolate=False),
            {
                "exc": vb.Connectome.random(n, in_degree=100, sources=range(1_000), delay=1.5, key=k_exc),
                "inh": vb.Connectome.random(n, in_degree=25, sources=range(1_000, n), delay=1.5, key=k_inh),
            },
            coupling={"exc": vb.coupling.Linear(G=J), "inh": vb.coupling.Linear(G=-g * J)},
            delays=vb.Delays(),
            integrator=vb.Native(0.1),
            noise=vb.noise.Poisson(rate=eta * 20.0 / (J * 20.0), weight=J),
            monitors={"r": vb.monitors.Rates(1_200.0, start=200.0)},
        )
        v = jax.random.uniform(jax.random.fold_in(key, 7), (n,), minval=10.0, maxval=20.0)
        found.append(S.FiringSummary()(vb.simulate(sim, t1=1_200.0, key=key, init={"v": v}).ys["r"]))
    found = np.asarray(found)
    for column, name in ((0, "rate"), (1, "cv"), (4, "chi")):
        assert scipy.stats.ks_2samp(found[:, column], GOLDEN2[f"brunel__{point}__{name}"]).pvalue > 1e-3


@pytest.mark.slow
def test_the_brunel_task_knows_inhibition_drive_and_delay():
    """64 networks together: the columns of theta act as their names say, and the features follow."""
    theta = np.tile([[5.0, 2.0, 1.5], [7.0, 2.0, 1.5], [5.0, 1.2, 1.5], [5.0, 2.0, 2.5]], (2, 1))
    keys = jax.random.split(jax.random.key(0), 8)
    task = vb.tasks.brunel(delay=True)
    assert task.simulator.names == ("rate", "cv", "lv", "fano", "synchrony", "correlation")
    x = np.asarray(task.simulator.batch({"theta": jnp.asarray(theta)}, keys))
    assert np.isfinite(x).all()
    for first in (0, 4):
        rate = x[first : first + 4, 0]
        assert rate[1] < 0.8 * rate[0]  # more inhibition
        assert rate[2] < 0.7 * rate[0]  # less drive
    assert np.abs(x[[0, 4], 4:] - x[[3, 7], 4:]).max() > 0.01  # a longer delay: other synchrony
    known = vb.tasks.brunel()
    np.testing.assert_allclose(known.simulator({"theta": jnp.asarray([5.0, 2.0])}, keys[0]), x[0], rtol=1e-3)
    with pytest.raises(ValueError, match="brunel has no likelihood; fit a neural estimator"):
        known.log_likelihood({"theta": theta[0, :2]}, x[0])


def test_qif_neurons_have_their_mean_field():
    """Uncoupled, Lorentzian excitability and start: rate of 20,000 neurons against their mean field."""
    n, tau, width, mean, rng = 20_000, 10.0, 0.8, -0.5, np.random.default_rng(0)
    lorentz = np.tan(np.pi * ((np.arange(n) + 0.5) / n - 0.5))
    r0, v0 = 0.02, -1.0
    cells = S.QIF(tau=tau, eta=mean + width * lorentz, v_reset=-2e3, v_peak=2e3)
    rate = {"rate": vb.monitors.TimeAverage(1.0, "z")}
    pulse = {"onset": 15.0, "duration": 20.0, "amplitude": 4.0}
    start = {"v": np.clip(v0 + np.pi * tau * r0 * rng.permutation(lorentz), -1.9e3, 1.9e3)}
    drive = vb.stimuli.Pulse(**pulse, gain=np.ones(n))
    sim = vb.Simulator(cells, integrator=vb.Native(0.1), nodes=n, stimulus=drive, monitors=rate)
    found = np.asarray(vb.simulate(sim, t1=60.0, key=None, init=start).ys["rate"]).mean(1) / 0.1
    field = vb.Simulator(
        vb.models.MontbrioPazoRoxin(tau=tau, Delta=width, J=0.0, eta=mean, I=0.0),
        integrator=vb.Heun(0.01),
        stimulus=vb.stimuli.Pulse(**pulse, gain=np.ones(1)),
        monitors={"r": vb.monitors.TimeAverage(1.0, "r")},
        nodes=1,
    )
    expected = np.asarray(vb.simulate(field, t1=60.0, key=None, init={"r": r0, "V": v0}).ys["r"])[:, 0]
    assert expected.max() > 3 * expected.min()
    assert np.abs(found - expected).max() < 0.05 * expected.max()
