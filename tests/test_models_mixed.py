"""Models from functions, and several models in one network."""

import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

WEIGHTS = np.array(
    [
        [0.0, 0.8, 0.0, 0.3, 0.2],
        [0.5, 0.0, 0.4, 0.0, 0.1],
        [0.0, 0.6, 0.0, 0.7, 0.0],
        [0.9, 0.0, 0.2, 0.0, 0.4],
        [0.1, 0.3, 0.0, 0.5, 0.0],
    ]
)
LAGS = np.array([[0, 3, 0, 7, 2], [1, 0, 4, 0, 5], [0, 2, 0, 6, 0], [4, 0, 3, 0, 1], [7, 2, 0, 5, 0]])
DT, STEPS, G = 0.05, 30, 0.6
WHERE = ["cortex", "thalamus", "cortex", "cortex", "thalamus"]  # interleaved: the order of nodes is not that of groups
CORTEX, THALAMUS = [0, 2, 3], [1, 4]
ETA = np.array([-4.6, -5.2, -4.9])
START = {
    "cortex_r": np.array([0.1, 0.4, 0.2]),
    "cortex_V": np.array([-2.0, -0.7, -1.1]),
    "thalamus_E": np.array([0.3, 0.6]),
    "thalamus_I": np.array([0.2, 0.1]),
}
SIGMA = {"cortex_V": np.array([0.2, 0.1, 0.3]), "thalamus_E": 0.05}
PULSE = {"onset": 0.41, "duration": 0.5, "amplitude": 0.7}
GAIN = np.array([1.0, 0.5, -0.3, 0.2, 0.8])


@pytest.fixture
def unchecked():
    """As users call it: the suite's checks of annotations would answer in place of the package."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def simulator(**parts):
    groups = {"cortex": vb.models.MontbrioPazoRoxin(eta=ETA), "thalamus": vb.models.WilsonCowan(P=0.5)}
    return vb.Simulator(
        vb.models.Mixed(groups, where=WHERE, sends={"cortex": "r", "thalamus": "E"}),
        vb.Connectome(WEIGHTS, LAGS * DT * 3.0, speed=3.0),
        coupling=vb.coupling.Linear(G=G),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=DT),
        **{
            "noise": vb.noise.Additive(SIGMA),
            "stimulus": vb.stimuli.Pulse(**PULSE, gain=GAIN),
            "monitors": {"sent": vb.monitors.Raw(), "mean": vb.monitors.TimeAverage(5 * DT)},
            **parts,
        },
    )


def reference(normals, eta=ETA, P=0.5):
    """The network once more, node by node in float64: what is sent at every step [T, 5], and the last state."""
    r, v, e, i = (np.array(START[name]) for name in ("cortex_r", "cortex_V", "thalamus_E", "thalamus_I"))

    def together(r, e):
        out = np.empty(5)
        out[CORTEX], out[THALAMUS] = r, e
        return out

    past = [together(r, e)] * (LAGS.max() + 2)

    def arriving(at_end, now):
        c = np.zeros(5)
        for k in range(5):
            for j in range(5):
                lag = LAGS[k, j]
                sent = now[j] if lag == 0 else past[-lag if at_end else -lag - 1][j]
                c[k] += G * WEIGHTS[k, j] * sent
        return c

    def drift(t, r, v, e, i, at_end):
        c = arriving(at_end, together(r, e))
        if PULSE["onset"] <= t < PULSE["onset"] + PULSE["duration"]:
            c = c + PULSE["amplitude"] * GAIN
        dr, dv, de, di = [], [], [], []
        for k, node in enumerate(CORTEX):
            dr.append(1.0 / math.pi + 2.0 * r[k] * v[k])
            dv.append(v[k] ** 2 - (math.pi * r[k]) ** 2 + 15.0 * r[k] + eta[k] + c[node])
        for k, node in enumerate(THALAMUS):
            excited = lambda y, a, b: 1.0 / (1.0 + math.exp(-a * (y - b))) - 1.0 / (1.0 + math.exp(a * b))  # noqa: E731
            de.append((-e[k] + (1.0 - e[k]) * excited(12.0 * e[k] - 4.0 * i[k] + P + c[node], 1.2, 2.8)) / 10.0)
            di.append((-i[k] + (1.0 - i[k]) * excited(13.0 * e[k] - 11.0 * i[k], 1.0, 4.0)) / 10.0)
        return np.array(dr), np.array(dv), np.array(de), np.array(di)

    sent = []
    for step in range(STEPS):
        t = step * DT
        kick_v = SIGMA["cortex_V"] * math.sqrt(DT) * normals["cortex_V"][step]
        kick_e = SIGMA["thalamus_E"] * math.sqrt(DT) * normals["thalamus_E"][step]
        a = drift(t, r, v, e, i, False)
        stage = (r + DT * a[0], v + DT * a[1] + kick_v, e + DT * a[2] + kick_e, i + DT * a[3])
        b = drift((step + 1) * DT, np.maximum(stage[0], 0.0), *stage[1:], True)
        r = np.maximum(r + 0.5 * DT * (a[0] + b[0]), 0.0)
        v = v + 0.5 * DT * (a[1] + b[1]) + kick_v
        e = e + 0.5 * DT * (a[2] + b[2]) + kick_e
        i = i + 0.5 * DT * (a[3] + b[3])
        past.append(together(r, e))
        sent.append(past[-1])
    return np.array(sent), {"cortex_r": r, "cortex_V": v, "thalamus_E": e, "thalamus_I": i}


def normals():
    rng = np.random.default_rng(2)
    path = {name: rng.standard_normal((STEPS, len(START[name]))) for name in SIGMA}
    return path


def test_mixed_network_equals_a_loop_over_nodes_with_delays_noise_and_stimulus():
    z = normals()
    with jax.enable_x64(True):
        solution = vb.simulate(simulator(), t1=STEPS * DT, key=None, init=START, noise_path=z)
    sent, last = reference(z)
    np.testing.assert_allclose(solution.ys["sent"]["sent"], sent, rtol=1e-10)
    np.testing.assert_allclose(solution.ys["mean"]["sent"], sent.reshape(-1, 5, 5).mean(axis=1), rtol=1e-10)
    assert solution.final.state._fields == tuple(START)
    for name, value in last.items():
        np.testing.assert_allclose(getattr(solution.final.state, name), value, rtol=1e-10)
    assert np.abs(reference(z, P=0.6)[0] - sent).max() > 1e-3


def test_parameters_of_groups_are_bound_drawn_and_differentiated():
    """A scalar and one value per node of the group; a batch is its draws; d/dP against finite differences."""
    prior = vb.Prior(
        {
            "model.cortex.eta": dist.Normal(-5.0, 0.1).expand([3]).to_event(1),
            "model.thalamus.P": dist.Normal(0.5, 0.1),
            "init.thalamus_E": dist.Uniform(0.1, 0.5),
        }
    )
    with jax.enable_x64(True):
        sim = simulator(monitors={"sent": vb.monitors.Raw("sent")})
        fwd = vb.ForwardModel(sim, t1=STEPS * DT, summary=lambda y: y[-1], init=START)
        fwd.check(prior)
        theta, keys = prior.sample(key=jax.random.key(0), n=3), jax.random.split(jax.random.key(1), 3)
        batch = fwd.batch(theta, keys)
        for b in range(3):
            alone = fwd({name: value[b] for name, value in theta.items()}, keys[b])
            np.testing.assert_allclose(batch[b], alone, rtol=1e-10)

        z = {name: jnp.asarray(value) for name, value in normals().items()}

        def last(P):
            bound = vb.bind(sim, {"model.thalamus.P": P, "model.cortex.eta": ETA + 0.1})
            return vb.simulate(bound, t1=STEPS * DT, key=None, init=START, noise_path=z).ys["sent"][-1].sum()

        value, slope = jax.jit(jax.value_and_grad(last))(jnp.asarray(0.5))
    assert float(value) == pytest.approx(reference(normals(), eta=ETA + 0.1)[0][-1].sum(), rel=1e-10)
    sums = [reference(normals(), eta=ETA + 0.1, P=0.5 + h)[0][-1].sum() for h in (-1e-5, 1e-5)]
    assert float(slope) == pytest.approx((sums[1] - sums[0]) / 2e-5, rel=1e-6)
    with pytest.raises(ValueError, match="one value for each of 3"):
        vb.bind(sim, {"model.cortex.eta": np.zeros(5)})
    with pytest.raises(ValueError, match=r"Did you mean 'model\.cortex\.eta'"):
        vb.bind(sim, {"model.cortex.etta": 1.0})


MIXED_MISTAKES = [
    ({"where": ["cortex", "cortex"]}, ValueError, "'thalamus' has no node"),
    ({"sends": {"cortex": "r"}}, ValueError, r"sends=\{'thalamus': 'E'\}"),
    ({"sends": {"cortex": "r", "thalamus": "e"}}, ValueError, "Known: E, I|Did you mean 'E'"),
    ({"where": ["cortex", "thalamos"]}, ValueError, "Did you mean 'thalamus'"),
    ({"sends": {"cortex": "r", "thalamus": "E", "x": "y"}}, ValueError, "sends names 'x'"),
    ({"groups": {}}, TypeError, "expected models by group"),
    ({"groups": {"cortex": vb.models.Linear, "thalamus": vb.models.Linear()}}, TypeError, "models with a drift"),
    ({"groups": {"cor tex": vb.models.Linear(), "thalamus": vb.models.Linear()}}, ValueError, "letters and digits"),
]


@pytest.mark.parametrize(("change", "error", "message"), MIXED_MISTAKES)
def test_mixed_says_what_is_wrong(change, error, message, unchecked):
    given = {
        "groups": {"cortex": vb.models.MontbrioPazoRoxin(), "thalamus": vb.models.WilsonCowan()},
        "where": ["cortex", "thalamus"],
        "sends": {"cortex": "r", "thalamus": "E"},
    } | change
    if "cor tex" in given["groups"]:
        given["where"], given["sends"] = ["cor tex", "thalamus"], {"cor tex": "x", "thalamus": "x"}
    with pytest.raises(error, match=message):
        vb.models.Mixed(given.pop("groups"), **given)


def test_more_projections_than_the_groups_read_are_refused():
    with pytest.raises(ValueError, match=r"Mixed with .* reads 1"):
        vb.Simulator(
            simulator().model,
            {"near": vb.Connectome(WEIGHTS), "far": vb.Connectome(WEIGHTS)},
            coupling={"near": vb.coupling.Linear(G=G), "far": vb.coupling.Linear(G=G)},
            integrator=vb.Heun(dt=DT),
        )


def test_a_stepper_cannot_be_mixed(unchecked):
    class Walk(vb.models.AbstractStepper):
        State = vb.models.Linear.State
        cvar: tuple[str, ...] = ("x",)

        def step(self, t, x, c, u, dW, dt):
            return x

    with pytest.raises(TypeError, match="brings its own step"):
        vb.models.Mixed({"walk": Walk()}, where=["walk"], sends={"walk": "x"})


def test_rows_that_nobody_sends_are_zero():
    """An Epileptor reads a second row, the coupling of x2, with gain Kf: without it Kf has no effect."""
    groups = {"zone": vb.models.Epileptor(Kvf=0.5, Kf=3.0), "rest": vb.models.Epileptor2D(Kvf=1.0)}
    model = vb.models.Mixed(groups, where=["zone", "rest"], sends={"zone": "x1", "rest": "x1"})
    x, c = model.init(2), jnp.array([[0.3, 0.7]])
    drift = model.dfun(jnp.zeros(()), x, c, jnp.zeros(2))
    alone = vb.models.Epileptor(Kvf=0.5).dfun(
        jnp.zeros(()), vb.models.Epileptor.State(*x[:6]), jnp.array([[0.3], [0.0]]), jnp.zeros(1)
    )
    np.testing.assert_array_equal(np.stack(drift[:6]), np.stack(alone))


# ---- custom


def qif(t, x, c, u, p):
    dr = 1.0 / jnp.pi + 2.0 * x.r * x.V
    return dr, x.V**2 - (jnp.pi * x.r) ** 2 + p.J * x.r + p.eta + c[0] + u


def made(fn=qif, **parts):
    return vb.models.custom(
        fn, **{"state": {"r": 0.0, "V": -2.0}, "params": {"eta": -5.0, "J": 15.0}, "cvar": ("r",), **parts}
    )


def network(model, **parts):
    return vb.Simulator(
        model,
        vb.Connectome(WEIGHTS, LAGS * DT * 3.0, speed=3.0),
        coupling=vb.coupling.Linear(G=G),
        delays=vb.Delays(),
        integrator=vb.Heun(dt=DT),
        noise=vb.noise.Additive({"V": 0.1}),
        monitors={"raw": vb.monitors.Raw("r")},
        **parts,
    )


def test_a_model_from_a_function_is_the_same_as_its_class(tmp_path):
    """Alone, in a batch with a value per node, in a gradient, and as the simulator of a store.

    The rate stays above zero here, so that `MontbrioPazoRoxin` does not use its bound.
    """
    prior = vb.Prior({"model.eta": dist.Normal(-5.0, 0.2).expand([5]).to_event(1), "model.J": dist.Normal(15.0, 0.5)})
    forward = lambda model: vb.ForwardModel(network(model), t1=1.0, summary=lambda y: y[-1])  # noqa: E731
    fwd, of_class = forward(made()), forward(vb.models.MontbrioPazoRoxin())
    fwd.check(prior)
    theta, keys = prior.sample(key=jax.random.key(0), n=3), jax.random.split(jax.random.key(1), 3)
    batch = fwd.batch(theta, keys)
    np.testing.assert_allclose(batch, of_class.batch(theta, keys), rtol=2e-5)
    first = {name: value[0] for name, value in theta.items()}
    np.testing.assert_allclose(fwd(first, keys[0]), batch[0], rtol=2e-5)
    total = lambda f, J: f({**first, "model.J": J}, keys[0]).sum()  # noqa: E731
    slopes = [float(jax.grad(lambda J, f=f: total(f, J))(jnp.asarray(15.0))) for f in (fwd, of_class)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)

    draws = vb.sample_prior_predictive(prior, fwd, n=4, key=jax.random.key(2), store=tmp_path / "draws")
    again = vb.sample_prior_predictive(prior, forward(made()), n=4, key=jax.random.key(2), store=tmp_path / "draws")
    np.testing.assert_array_equal(draws.x, again.x)
    other = forward(made(lambda t, x, c, u, p: qif(t, x, c, 2.0 * u, p)))
    stronger = forward(made(lambda t, x, c, u, p: qif(t, x, 2.0 * c, u, p)))
    assert len({f.fingerprint() for f in (fwd, other, stronger)}) == 3
    assert fwd.fingerprint() == forward(made()).fingerprint()


def test_names_keep_their_order_and_a_group_may_be_a_function():
    """JAX sorts mappings by key; state variables and parameters stay as they were written."""
    seen = []

    def fn(t, x, c, u, p):
        seen.append((type(x)._fields, type(p)._fields))
        return -p.z * x.b + c[0], -p.a * x.a

    model = vb.models.custom(fn, state={"b": 1.0, "a": 2.0}, params={"z": 0.5, "a": 0.25})
    mixed = vb.models.Mixed({"z": model, "a": model}, where=["z", "a", "z"], sends={"z": "b", "a": "a"})
    sim = vb.Simulator(mixed, integrator=vb.integrators.Euler(dt=0.1))
    final = vb.simulate(vb.bind(sim, {"model.a.z": 2.0}), t1=0.1, key=None).final.state
    assert final._fields == ("z_b", "z_a", "a_b", "a_a")
    np.testing.assert_allclose(final.z_b, [0.95, 0.95], rtol=1e-6)
    np.testing.assert_allclose(final.a_b, [0.8], rtol=1e-6)
    np.testing.assert_allclose(final.a_a, [1.95], rtol=1e-6)
    assert set(seen) == {(("b", "a"), ("z", "a"))}


CUSTOM_MISTAKES = [
    (lambda t, x, c, u, p: (x.r, 0.0), "0.0 as the derivative of 'V'.*jnp.full_like"),
    (lambda t, x, c, u, p: (x.r, x.V.sum()), r"an array \[\] as the derivative of 'V'; expected an array \[5\]"),
    (lambda t, x, c, u, p: x.r, "returned one array; return one derivative for each of r, V"),
    (lambda t, x, c, u, p: (x.r,), "returned 1 values"),
]


@pytest.mark.parametrize(("fn", "message"), CUSTOM_MISTAKES)
def test_what_a_function_returns_is_checked_in_the_first_run(fn, message):
    with pytest.raises(ValueError, match=message):
        vb.simulate(network(made(fn)), t1=DT, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"cvar": ("rr",)}, ValueError, "Did you mean 'r'"),
        ({"cvar": "r"}, TypeError, r'cvar=\("r",\)'),
        ({"fn": lambda t, x: x}, TypeError, r"dfun\(t, x, c, u, p\)"),
        ({"fn": 3}, TypeError, r"dfun\(t, x, c, u, p\)"),
        ({"state": {}}, TypeError, 'state={"r": 0.1}'),
        ({"state": {"r": "0"}}, ValueError, r"state\['r'\]"),
        ({"params": {"1x": 2.0}}, ValueError, "letters and digits"),
        ({"params": [1.0]}, TypeError, "names and values"),
    ],
)
def test_custom_says_what_is_wrong(parts, error, message, unchecked):
    with pytest.raises(error, match=message):
        made(**parts)
