"""States of any shape, and models that bring their own step, against float64 loops with their own noise."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer._random import key_words, normals

N, DT, STEPS = 4, 0.1, 60
rng = np.random.default_rng(3)
W = rng.normal(0.4, 0.5, (N, N))
LENGTHS = rng.uniform(0.0, 3.0, (N, N)) * (rng.random((N, N)) > 0.2)  # lags of 0 to 10 steps at 3 mm/ms
LAGS = np.round(np.float32(LENGTHS) / np.float32(3.0) / np.float32(DT)).astype(int)
GAIN = np.array([1.0, 0.0, -0.5, 0.25])


class CellsState(NamedTuple):
    V: Any
    g: Any


class Cells(vb.models.AbstractVectorField):
    """Three compartments and two synapses per node."""

    State: ClassVar = CellsState
    rows: ClassVar[int | None] = 1
    tau: Any = vb.param(2.0, unit="ms")
    axial: Any = vb.param(0.5)
    cvar: tuple[str, ...] = eqx.field(static=True, default=("soma",))

    def shapes(self, n):
        return {"V": (n, 3), "g": (2 * n,)}

    def init(self, n):
        return CellsState(jnp.linspace(-1.0, 1.0, 3 * n).reshape(n, 3), jnp.linspace(0.0, 1.0, 2 * n))

    def at_nodes(self, x):
        return {"tip": x.V[:, 2], "soma": x.V[:, 0]}

    def dfun(self, t, x, c, u):
        soma, middle, tip = x.V[:, 0], x.V[:, 1], x.V[:, 2]
        n = soma.shape[0]
        into_soma = (-soma + c[0] + u + self.axial * (middle - soma) + x.g[:n]) / self.tau
        into_middle = self.axial * (soma - 2.0 * middle + tip)
        into_tip = self.axial * (middle - tip) - tip**3 + x.g[n:]
        opening = -x.g + jnp.concatenate([jnp.tanh(tip), soma])
        return CellsState(jnp.stack([into_soma, into_middle, into_tip], axis=1), opening)


class LeakyState(NamedTuple):
    v: Any


class Leaky(vb.models.AbstractStepper):
    """Two filters per node, with a step of their own."""

    State: ClassVar = LeakyState
    input_stage: ClassVar[float] = 0.5
    coupling_stage: ClassVar[float] = 1.0
    tau: Any = vb.param(1.5, unit="ms")
    decay: Any = None
    cvar: tuple[str, ...] = eqx.field(static=True, default=("sent",))

    def shapes(self, n):
        return {"v": (n, 2)}

    def init(self, n):
        return LeakyState(jnp.linspace(1.0, -1.0, 2 * n).reshape(n, 2))

    def at_nodes(self, x):
        return {"sent": x.v[:, 1]}

    def prepared(self, dt):
        return eqx.tree_at(lambda m: m.decay, self, jnp.exp(-dt / self.tau), is_leaf=lambda leaf: leaf is None)

    def step(self, t, x, c, u, dW, dt):
        first = self.decay * x.v[:, 0] + (1.0 - self.decay) * u + 0.1 * c[0]
        second = self.decay * x.v[:, 1] + (1.0 - self.decay) * jnp.sin(x.v[:, 0]) + 0.2 * c[0]
        return LeakyState(jnp.stack([first, second], axis=1) + dW.v)


def network(model, **options):
    given = {
        "coupling": vb.coupling.Linear(G=0.3),
        "integrator": vb.Heun(DT),
        "stimulus": vb.stimuli.Sinusoid(frequency=40.0, amplitude=0.7, phase=0.4, gain=GAIN),
        "delays": vb.Delays(max=1.2),
        "monitors": {"raw": vb.monitors.Raw(), "mean": vb.monitors.TimeAverage(0.7, "soma")},
    }
    return vb.Simulator(model, vb.Connectome(W, LENGTHS), **given | options)


def cells(**options):
    noise = vb.noise.Additive(sigma={"V": [0.1, 0.2, 0.3, 0.4], "g": 0.05})
    return network(Cells(tau=[2.0, 1.0, 3.0, 1.5]), noise=noise, **options)


def leaky(**options):
    return network(
        Leaky(), integrator=vb.Native(DT), noise=vb.noise.Additive(0.1), monitors={"raw": vb.monitors.Raw()}, **options
    )


def drawn(key, sizes, steps=STEPS):
    """Normals of every variable: the variates of a step are numbered variable by variable."""
    total = sum(sizes)
    half = -(-total // 2)
    first, second = normals(
        *key_words(key), jnp.arange(steps, dtype=jnp.uint32)[:, None], jnp.arange(half, dtype=jnp.uint32)[None]
    )
    flat = np.concatenate([first, second], axis=1).astype(float)[:, :total]
    return np.split(flat, np.cumsum(sizes)[:-1], axis=1)


def sinusoid(t):
    return 0.7 * GAIN * np.sin(2 * np.pi * 40.0 * t / 1000.0 + 0.4)


def received(sent, k, now, G):
    """Sum over sources of what arrives at step k; `now` is the stage's own value for lags of no step."""
    out = np.zeros(N)
    for i in range(N):
        for j in range(N):
            value = now[j] if LAGS[i, j] == 0 else sent[max(k - LAGS[i, j], 0)][j]
            out[i] += G * W[i, j] * value
    return out


def cells_by_hand(key, tau, G, steps=STEPS):
    z_V, z_g = drawn(key, [3 * N, 2 * N], steps)
    V, g = np.linspace(-1.0, 1.0, 3 * N).reshape(N, 3), np.linspace(0.0, 1.0, 2 * N)
    sigma, sent, out = np.array([0.1, 0.2, 0.3, 0.4]), [], []

    def drift(t, V, g, c):
        dV, dg = np.zeros((N, 3)), np.zeros(2 * N)
        u = sinusoid(t)
        for i in range(N):
            a, b, d = V[i]
            dV[i] = (
                (-a + c[i] + u[i] + 0.5 * (b - a) + g[i]) / tau[i],
                0.5 * (a - 2 * b + d),
                0.5 * (b - d) - d**3 + g[N + i],
            )
            dg[i], dg[N + i] = -g[i] + np.tanh(d), -g[N + i] + a
        return dV, dg

    for k in range(steps):
        sent.append(V[:, 0].copy())
        kick = sigma[:, None] * np.sqrt(DT) * z_V[k].reshape(N, 3), 0.05 * np.sqrt(DT) * z_g[k]
        f = drift(k * DT, V, g, received(sent, k, V[:, 0], G))
        p = V + DT * f[0] + kick[0], g + DT * f[1] + kick[1]
        f2 = drift((k + 1) * DT, *p, received(sent, k + 1, p[0][:, 0], G))
        V, g = V + DT / 2 * (f[0] + f2[0]) + kick[0], g + DT / 2 * (f[1] + f2[1]) + kick[1]
        out.append((V, g))
    return np.stack([V for V, _ in out]), np.stack([g for _, g in out])


def leaky_by_hand(key, steps=STEPS):
    (z,) = drawn(key, [2 * N], steps)
    v, sent, out = np.linspace(1.0, -1.0, 2 * N).reshape(N, 2), [], []
    e = np.exp(-DT / 1.5)
    for k in range(steps):
        sent.append(v[:, 1].copy())
        c = received(sent, k + 1, v[:, 1], 0.3)  # what has arrived at the end of the step
        u = sinusoid((k + 0.5) * DT)
        new = np.stack([e * v[:, 0] + (1 - e) * u + 0.1 * c, e * v[:, 1] + (1 - e) * np.sin(v[:, 0]) + 0.2 * c], axis=1)
        v = new + 0.1 * np.sqrt(DT) * z[k].reshape(N, 2)
        out.append(v)
    return np.stack(out)


KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def run():
    return vb.simulate(cells(), t1=STEPS * DT, key=KEY)


def test_states_of_two_shapes_equal_a_loop_with_their_own_noise(run):
    V, g = cells_by_hand(KEY, [2.0, 1.0, 3.0, 1.5], 0.3)
    assert list(run.ys["raw"]) == ["tip", "soma"]
    np.testing.assert_allclose(run.ys["raw"]["tip"], V[:, :, 2], atol=2e-5)
    np.testing.assert_allclose(run.ys["raw"]["soma"], V[:, :, 0], atol=2e-5)
    np.testing.assert_allclose(run.final.state.V, V[-1], atol=2e-5)
    np.testing.assert_allclose(run.final.state.g, g[-1], atol=2e-5)
    np.testing.assert_allclose(run.ys["mean"], V[: STEPS // 7 * 7, :, 0].reshape(-1, 7, N).mean(axis=1), atol=2e-5)


def test_in_pieces_from_a_history_and_with_checkpoints_it_is_the_same(run):
    first = vb.simulate(cells(), t1=2.3, key=KEY)
    second = vb.simulate(cells(), t1=STEPS * DT - 2.3, key=KEY, init=first.final)
    joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), first.ys, second.ys)
    jax.tree.map(np.testing.assert_array_equal, run.ys, joined)
    past = jax.tree.map(lambda a: a[None], cells().model.init(N))  # the constant past, said in full
    jax.tree.map(
        np.testing.assert_array_equal,
        run.ys,
        vb.simulate(cells(), t1=STEPS * DT, key=KEY, init=vb.History(past), checkpoint=True).ys,
    )
    z_V, z_g = drawn(KEY, [3 * N, 2 * N])
    path = {"V": z_V.reshape(-1, N, 3), "g": z_g}
    given = vb.simulate(cells(), t1=STEPS * DT, key=None, noise_path=path)
    np.testing.assert_allclose(given.ys["raw"]["soma"], run.ys["raw"]["soma"], atol=1e-5)


def test_as_many_draws_as_nodes_each_equal_to_its_loop():
    fwd = vb.ForwardModel(cells(), t1=2.8, monitor="mean", summary=jnp.ravel)
    keys, tau = jax.random.split(KEY, N), np.random.default_rng(0).uniform(1.0, 3.0, (N, N))
    G = np.array([0.1, 0.5, -0.3, 0.2])
    x = fwd.batch({"model.tau": tau, "coupling.G": G}, keys)
    for b in range(N):
        V, _ = cells_by_hand(keys[b], tau[b], G[b], 28)
        np.testing.assert_allclose(x[b], V[:, :, 0].reshape(4, 7, N).mean(axis=1).ravel(), atol=2e-5)


def test_a_step_of_its_own_reads_input_in_the_middle_and_signals_at_its_end():
    expected = leaky_by_hand(KEY)
    np.testing.assert_allclose(vb.simulate(leaky(), t1=6.0, key=KEY).ys["raw"]["sent"], expected[:, :, 1], atol=2e-5)
    fwd = vb.ForwardModel(leaky(), t1=6.0, summary={"raw": lambda y: y["sent"][-1]})
    x = fwd.batch({"model.tau": jnp.full(N, 1.5)}, jax.random.split(KEY, N))
    for b, key in enumerate(jax.random.split(KEY, N)):
        np.testing.assert_allclose(x[b], leaky_by_hand(key)[-1, :, 1], atol=2e-5)


def test_coloured_noise_per_node_reaches_every_entry_of_a_node():
    """xi starts at sigma times its normals and decays: the first kick of a frozen state is its trapezoid."""
    tau, sigma = np.array([0.5, 1.0, 2.0, 4.0]), np.array([1.0, 2.0, 0.5, 3.0])
    noise = vb.noise.Coloured(sigma={"V": sigma}, tau=tau)
    sim = network(Cells(axial=0.0, tau=1e9), noise=noise, coupling=vb.coupling.Linear(G=0.0), stimulus=None)
    sim = vb.bind(sim, {"noise.tau": tau})
    start, z = drawn_at_start(KEY), drawn(KEY, [3 * N, 2 * N], 1)[0].reshape(N, 3)
    keep = np.exp(-DT / tau)[:, None]
    xi = sigma[:, None] * start
    new = keep * xi + sigma[:, None] * np.sqrt(1 - keep**2) * z
    moved = vb.simulate(sim, t1=DT, key=KEY).final.state.V - sim.model.init(N).V
    np.testing.assert_allclose(moved[:, :2], (DT / 2 * (xi + new))[:, :2], atol=1e-5)  # the tip has a drift


def drawn_at_start(key):
    half = -(-5 * N // 2)
    pair = normals(
        *key_words(key), jnp.full((1,), 0xFFFFFFFF, jnp.uint32)[:, None], jnp.arange(half, dtype=jnp.uint32)[None]
    )
    return np.concatenate(pair, axis=1)[0, : 3 * N].reshape(N, 3)


def test_equal_models_are_one_program_and_one_study():
    one, other = cells(), cells()
    assert vb.ForwardModel(one, t1=2.8, monitor="mean", summary=jnp.ravel).fingerprint() == (
        vb.ForwardModel(other, t1=2.8, monitor="mean", summary=jnp.ravel).fingerprint()
    )


class Own(Cells):
    """A model whose variables belong to the object."""

    names: tuple[str, ...] = eqx.field(static=True, default=("a", "b"))
    size: int = eqx.field(static=True, default=3)
    cvar: tuple[str, ...] = eqx.field(static=True, default=("a",))

    @property
    def State(self):
        from vbinfer.models.base import state_class

        return state_class(self.names)

    @property
    def n_nodes(self):
        return self.size

    def shapes(self, n):
        return {name: (n,) for name in self.names}

    def init(self, n):
        return self.State(*(jnp.full(n, k + 1.0) for k, _ in enumerate(self.names)))

    def at_nodes(self, x):
        return x._asdict()

    def dfun(self, t, x, c, u):
        return self.State(*(-(k + 1.0) * value for k, value in enumerate(x)))


def test_variables_may_belong_to_the_object():
    sim = vb.Simulator(Own(names=("b", "a", "c")), integrator=vb.integrators.RungeKutta4(0.01))
    assert (sim.n_nodes, sim.model.variables(), sim.model.variable("c")) == (3, ("b", "a", "c"), 2)
    assert type(sim.model.init(3)) is type(Own(names=("b", "a", "c")).init(3))
    ys = vb.simulate(sim, t1=1.0, key=None).ys["raw"]
    assert list(ys) == ["b", "a", "c"]
    for k, name in enumerate("bac"):
        np.testing.assert_allclose(ys[name][-1], np.full(3, (k + 1) * np.exp(-(k + 1.0))), rtol=1e-5)


def test_monitors_record_the_nodes_they_are_told():
    names = ("V1", "M1", "A1", "S1")
    everything = vb.simulate(cells(), t1=1.0, key=KEY).ys["raw"]
    sim = vb.Simulator(
        Cells(tau=[2.0, 1.0, 3.0, 1.5]),
        vb.Connectome(W, LENGTHS, labels=names),
        coupling=vb.coupling.Linear(G=0.3),
        integrator=vb.Heun(DT),
        stimulus=cells().stimulus,
        delays=vb.Delays(max=1.2),
        noise=cells().noise,
        monitors={
            "a": vb.monitors.Raw("tip", at=("A1", "V1")),
            "b": vb.monitors.Raw(at=[3]),
            "mean": vb.monitors.TimeAverage(5 * DT, at=("S1", "M1")),
            "fc": vb.monitors.RunningFC("tip", 1.0, at=("S1", "V1", "A1")),
        },
    )
    ys = vb.simulate(sim, t1=1.0, key=KEY).ys
    np.testing.assert_array_equal(ys["a"], everything["tip"][:, [2, 0]])
    np.testing.assert_array_equal(ys["b"]["soma"], everything["soma"][:, [3]])
    five = np.asarray(everything["soma"], float)[:, [3, 1]].reshape(-1, 5, 2).mean(axis=1)
    np.testing.assert_allclose(ys["mean"]["soma"], five, rtol=1e-5)
    fc = np.corrcoef(np.asarray(everything["tip"], float)[:, [3, 0, 2]].T)
    np.testing.assert_allclose(ys["fc"][0], fc, atol=1e-4)
    assert sim.monitors["fc"].sample_shape(4) == (3, 3)
    fwd = vb.ForwardModel(sim, t1=1.0, monitor="a", summary=vb.Summary(period=DT, sd=lambda y: y.std(0)))
    np.testing.assert_allclose(fwd({}, KEY), ys["a"].std(0), rtol=1e-5)
    assert not sim.monitors["a"].by_node
    assert not sim.monitors["mean"].by_node  # a recording of all regions is not matched with it


class Wrong(Cells):
    shape: Any = eqx.field(static=True, default=None)

    def shapes(self, n):
        return self.shape


def raw(**options):
    return {"monitors": {"raw": vb.monitors.Raw(**options)}}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: network(Cells(cvar=("V",))), "cvar names 'V', which at_nodes does not show"),
        (lambda: network(Own(size=N + 1)), "Own has 5 nodes, connectome says 4"),
        (lambda: network(Wrong(shape={"V": (N, 3)})), r"shapes\(4\) of Wrong is .* at least one axis for each of V, g"),
        (lambda: network(Wrong(shape={"V": (N, 3), "g": ()})), "at least one axis for each of V, g"),
        (
            lambda: network(Cells(), integrator=vb.integrators.Rosenbrock(DT)),
            r"Rosenbrock needs one value per node .* \[4, 3\]",
        ),
        (
            lambda: network(Cells(), noise=vb.noise.Additive(0.1, correlation=np.eye(N))),
            "a correlation across nodes needs one value per node",
        ),
        (
            lambda: network(Cells(), noise=vb.noise.Additive({"g": np.ones(N)})),
            "expected a number or one value for each of 8",
        ),
        (lambda: network(Cells(), **raw(var="V")), "the monitor reads 'V'"),
        (lambda: network(Cells(), **raw(at=("V1",))), "records at 'V1'; there is no such node"),
        (lambda: network(Cells(), **raw(at=(0, 4))), "records at node 4; there are 4, 0 to 3"),
        (lambda: vb.monitors.TimeAverage(1.0, at=0.5), "expected nodes by number or name"),
        (lambda: vb.monitors.Raw(at=0.5), "expected nodes by number or name"),
        (lambda: vb.simulate(cells(), t1=1.0, key=KEY, init={"V": np.ones(N)}), r"expected a number or \[4, 3\]"),
        (
            lambda: vb.simulate(cells(), t1=DT, key=None, noise_path={"V": np.ones((1, N)), "g": np.ones((1, 2 * N))}),
            r"expected \[1, 4, 3\]",
        ),
        (
            lambda: vb.likelihoods.transition_log_prob(cells(), {}),
            "the density of a path needs one value per node",
        ),
    ],
)
def test_mistakes(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
