"""ForwardModel: a batch is its draws one by one, whatever is drawn and however it is shaped."""

import subprocess
import sys
import types
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

N = 4
W = np.random.default_rng(0).uniform(size=(N, N)) * (1 - np.eye(N))
CASES = {
    "scalar": {"coupling.G": ()},
    "map": {"model.eta": (N,)},
    "map and scalar": {"coupling.G": (), "model.eta": (N,), "noise.sigma.r": ()},
    "drawn initial state": {"init.V": (), "init.r": (N,)},
    "weights": {"connectome.weights": (N, N), "coupling.offset": (N,)},
    "a map of noise": {"noise.sigma.V": (N,), "model.tau": ()},
    "nothing of the model": {"coupling.offset": ()},
}
CENTRE = {
    "coupling.G": 0.4,
    "model.eta": -4.5,
    "noise.sigma.r": 0.02,
    "noise.sigma.V": 0.1,
    "init.V": -1.5,
    "init.r": 0.2,
}
CENTRE |= {"connectome.weights": 0.3, "coupling.offset": 0.1, "model.tau": 1.3}


def forward(difference=False, **options):
    coupling = vb.coupling.Difference(G=0.4) if difference else vb.coupling.Linear(G=0.4)
    sim = vb.Simulator(
        # one unbatched [N] leaf, Delta, beside whatever is drawn
        vb.models.MontbrioPazoRoxin(Delta=jnp.linspace(0.7, 1.0, N), eta=jnp.linspace(-5.0, -4.0, N)),
        vb.Connectome(W, 10 * W.T),
        coupling=coupling,
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive({"r": 0.02, "V": 0.1}),
        monitors={"mean": vb.monitors.TimeAverage(0.5), "bold": vb.monitors.BalloonWindkessel("r", period=2.0)},
    )
    settings = dict(
        t1=10.0, transient=2.0, monitor="mean", summary=lambda y: jnp.concatenate([y["r"].mean(0), y["V"].std(0)])
    )
    return vb.ForwardModel(sim, **(settings | options))


def draw(shapes, n, seed=1):
    rng = np.random.default_rng(seed)
    return {
        path: jnp.asarray(CENTRE[path] * rng.uniform(0.7, 1.3, (n, *shape)), jnp.result_type(float))
        for path, shape in shapes.items()
    }


@pytest.mark.parametrize("width", [3, N], ids=["B < N", "B == N"])
@pytest.mark.parametrize("case", sorted(CASES))
def test_a_batch_equals_its_draws_one_by_one_and_vmap(case, width):
    fwd = forward(difference=case == "weights" and width == N) if case != "weights" else forward()
    theta, keys = draw(CASES[case], width), jax.random.split(jax.random.key(7), width)
    x = fwd.batch(theta, keys)
    single = jnp.stack([fwd({k: v[i] for k, v in theta.items()}, keys[i]) for i in range(width)])
    np.testing.assert_allclose(x, single, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(x, jax.vmap(fwd)(theta, keys), rtol=2e-4, atol=1e-5)
    assert float(jnp.ptp(x, axis=0).min()) > 1e-4  # draws differ in every feature


def test_drawn_weights_with_difference_coupling():
    fwd = forward(difference=True)
    theta, keys = draw({"connectome.weights": (N, N), "coupling.G": ()}, 3), jax.random.split(jax.random.key(7), 3)
    single = jnp.stack([fwd({k: v[i] for k, v in theta.items()}, keys[i]) for i in range(3)])
    np.testing.assert_allclose(fwd.batch(theta, keys), single, rtol=2e-4, atol=1e-5)


def test_a_draw_does_not_depend_on_the_width_of_its_batch():
    fwd = forward()
    theta, keys = draw(CASES["map and scalar"], 8), jax.random.split(jax.random.key(7), 8)
    wide = fwd.batch(theta, keys)
    narrow = jnp.concatenate(
        [fwd.batch({k: v[i : i + 2] for k, v in theta.items()}, keys[i : i + 2]) for i in (0, 2, 4, 6)]
    )
    np.testing.assert_allclose(wide, narrow, rtol=2e-5, atol=1e-6)


def test_gradient_through_a_batch_equals_finite_differences():
    with jax.enable_x64(True):
        fwd, keys = forward(), jax.random.split(jax.random.key(7), 3)
        theta = draw({"coupling.G": ()}, 3)
        loss = lambda G: (fwd.batch({"coupling.G": G}, keys) ** 2).sum(axis=1)  # noqa: E731
        G, h = theta["coupling.G"], 1e-6
        numeric = (loss(G + h) - loss(G - h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(lambda G: loss(G).sum())(G), numeric, rtol=1e-6)


def test_samples_until_the_transient_are_dropped():
    fwd = forward(summary=lambda y: y["r"][:, 0])
    theta, keys = draw(CASES["scalar"], 2), jax.random.split(jax.random.key(0), 2)
    x, ys = fwd.batch_series(theta, keys)
    whole = vb.simulate(vb.bind(fwd.sim, {"coupling.G": theta["coupling.G"][1]}), t1=10.0, key=keys[1])
    kept = np.asarray(whole.ts["mean"]) > 2.0 + 1e-6
    assert kept.sum() == 16 == x.shape[1]
    np.testing.assert_allclose(x[1], whole.ys["mean"]["r"][kept, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ys["r"][1], whole.ys["mean"]["r"][kept], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fwd.times("mean"), np.asarray(whole.ts["mean"])[kept], rtol=1e-6)


def test_several_monitors_are_summarised_in_order_with_their_names():
    fwd = forward(monitor=None, summary={"bold": lambda y: y.mean(0), "mean": lambda y: y["V"].mean(0)})
    x = fwd({}, jax.random.key(0))
    assert fwd.names[:1] == ("bold.x[0]",)
    assert fwd.names[N:] == tuple(f"mean.x[{i}]" for i in range(N))
    np.testing.assert_allclose(x[N:], forward(summary=lambda y: y["V"].mean(0))({}, jax.random.key(0)), rtol=1e-5)


def test_theta_reaches_the_simulator_through_to_paths():
    groups = jnp.array([0, 0, 1, 1])
    fwd = forward(to_paths=lambda theta: {"model.eta": theta["group.eta"][groups], "coupling.G": theta["G"]})
    theta = {"group.eta": jnp.array([[-5.0, -4.0], [-4.4, -4.2]]), "G": jnp.array([0.1, 0.3])}
    keys = jax.random.split(jax.random.key(0), 2)
    direct = forward().batch({"model.eta": theta["group.eta"][:, groups], "coupling.G": theta["G"]}, keys)
    np.testing.assert_allclose(fwd.batch(theta, keys), direct, rtol=1e-5)


def test_measurement_noise_is_added_with_a_key_of_its_own():
    noisy = forward(
        observe=lambda theta, y, key: {
            "r": y["r"] + theta["coupling.G"] * jax.random.normal(key, y["r"].shape),
            "V": y["V"],
        }
    )
    key, theta = jax.random.key(0), {"coupling.G": jnp.array(0.4)}
    shift = noisy(theta, key) - forward()(theta, key)
    assert float(jnp.abs(shift[N:]).max()) == 0.0
    assert 0.02 < float(jnp.abs(shift[:N]).max()) < 0.4 * 4 / np.sqrt(16)


def test_check_accepts_what_fits_and_names_what_does_not():
    fwd = forward()
    fwd.check(
        vb.Prior(
            {
                "coupling.G": dist.Uniform(0.0, 1.0),
                "model.eta": dist.Normal(-4.5, 0.3).expand([N]),
                "init.V": dist.Normal(0.0, 1.0),
            }
        )
    )
    for prior, message in (
        ({"coupling.g": dist.Uniform(0.0, 1.0)}, "Did you mean 'coupling.G'"),
        ({"model.eta": dist.Normal(-4.5, 0.3).expand([N + 1])}, "each of 4 nodes"),
        ({"init.S": dist.Uniform(0.0, 1.0)}, "no such variable"),
        ({"integrator.dt": dist.Uniform(0.0, 1.0)}, "fixed when"),
    ):
        with pytest.raises(ValueError, match=message):
            fwd.check(vb.Prior(prior))


def test_the_fingerprint_tells_simulators_apart_and_is_the_same_in_another_process():
    code = (
        f"import sys, jax; jax.config.update('jax_enable_x64', {bool(jax.config.jax_enable_x64)})\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_forward import forward; print(forward().fingerprint())"
    )
    from pathlib import Path

    here = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", code, str(here)], capture_output=True, text=True, cwd=here.parent)
    assert run.stdout.strip() == forward().fingerprint(), run.stderr
    others = [
        forward(t1=12.0),
        forward(transient=0.0),
        forward(difference=True),
        forward(summary=lambda y: y["r"].mean(0)),
        forward(summary=lambda y: 1.5 * y["r"].mean(0)),
        forward(init={"r": 0.1}),
    ]
    assert len({f.fingerprint() for f in [forward(), *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(monitor="bald"), "Did you mean 'bold'"),
        (dict(monitor=None), "name one with monitor="),
        (dict(t1=10.03), "not a multiple of dt"),
        (dict(transient=10.0), r"\[0, t1\)"),
        (dict(t1=9.0, transient=8.5, monitor="bold", summary=lambda y: y.mean(0)), "no sample of monitor"),
        (dict(init={"q": 1.0}), "no such variable"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ValueError, match=message):
        forward(**options)


def test_features_of_several_monitors_keep_their_order_and_names_through_jit():
    """Dictionaries come out of jit sorted: with unsorted monitor names, x and names once disagreed."""
    parts = {"mean": lambda y: jnp.stack([100.0 + y["V"].mean()]), "bold": lambda y: y.mean(0)}
    fwd = forward(monitor=None, summary=parts)
    keys = jax.random.split(jax.random.key(0), 2)
    x, ys = fwd.batch_series(draw(CASES["scalar"], 2), keys)
    assert fwd.names == ("mean.x[0]", *(f"bold.x[{i}]" for i in range(N)))
    assert float(x[:, 0].min()) > 90.0 > float(x[:, 1:].max())
    np.testing.assert_allclose(fwd.summarise({name: jax.tree.map(lambda a: a[0], y) for name, y in ys.items()}), x[0])


def test_a_prior_that_goes_through_to_paths_can_be_sampled():
    fwd = forward(to_paths=lambda theta: {"coupling.G": theta["b"]}, t1=4.0)
    draws = vb.sample_prior_predictive(
        vb.Prior({"b": dist.Uniform(0.1, 0.5)}), fwd, n=3, key=jax.random.key(0), progress=False
    )
    direct = forward(t1=4.0).batch({"coupling.G": jnp.asarray(draws.theta["b"])}, draw_keys(jax.random.key(0), 3))
    np.testing.assert_allclose(draws.x, direct, rtol=2e-4, atol=1e-5)


def draw_keys(key, n):
    """The simulation keys of draws 0 ... n - 1."""
    return jnp.stack([jax.random.split(jax.random.fold_in(key, i))[1] for i in range(n)])


def test_a_new_python_float_is_not_a_new_compilation():
    from vbinfer.simulation.forward import _call

    fwd = forward(t1=4.0)
    fwd({"coupling.G": 0.1}, jax.random.key(0))
    before = _call.compilations()
    values = [float(fwd({"coupling.G": G}, jax.random.key(0))[0]) for G in (0.2, 0.3, np.float64(0.4))]
    assert _call.compilations() == before
    assert len(set(values)) == 3


def test_lists_are_taken_for_arrays_and_a_scalar_in_a_batch_is_an_error():
    fwd, keys = forward(t1=4.0), jax.random.split(jax.random.key(0), 2)
    x = fwd.batch({"coupling.G": [0.1, 0.3]}, keys)
    np.testing.assert_array_equal(x, fwd.batch({"coupling.G": jnp.array([0.1, 0.3])}, keys))
    with pytest.raises(ValueError, match=r"expected \[2, ...\]"):
        fwd.batch({"coupling.G": jnp.array(0.1)}, keys)


def test_a_drawn_map_says_how_many_nodes_there_are_without_a_connectome():
    sim = vb.Simulator(
        vb.models.Linear(),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(0.1),
        monitors={"x": vb.monitors.Subsample(0.5, var="x")},
    )
    fwd = vb.ForwardModel(sim, t1=2.0, summary=lambda y: y[-1])
    theta, keys = {"model.gamma": -jnp.arange(1.0, 7.0).reshape(3, 2)}, jax.random.split(jax.random.key(0), 3)
    single = jnp.stack([fwd({"model.gamma": theta["model.gamma"][i]}, keys[i]) for i in range(3)])
    np.testing.assert_allclose(fwd.batch(theta, keys), single, rtol=1e-5, atol=1e-7)


def test_starts_where_another_run_ended():
    first = vb.simulate(forward().sim, t1=5.0, key=jax.random.key(4))
    fwd = forward(init=first.final, transient=0.0, t1=0.5, summary=lambda y: y["V"][0])
    np.testing.assert_allclose(fwd({}, jax.random.key(0)), first.final.state.V, atol=0.5)
    assert float(jnp.abs(first.final.state.V + 2.0).max()) > 0.05  # not the model's own start


def partial_summary(y, scale):
    return scale * y["r"].mean(0)


class Scaled:
    """A summary that is an object with a method."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, y):
        return self.scale * y["r"].mean(0)


def test_fingerprints_see_into_partials_jit_objects_and_methods():
    from functools import partial

    summaries = [
        partial(partial_summary, scale=1.0),
        partial(partial_summary, scale=2.0),
        jax.jit(lambda y: y["r"].mean(0)),
        jax.jit(lambda y: y["r"].std(0)),
        Scaled(1.0),
        Scaled(2.0),
        Scaled(3.0).__call__,
        lambda y, *, scale=1.0: scale * y["r"].mean(0),
        lambda y, *, scale=2.0: scale * y["r"].mean(0),
    ]
    assert len({forward(summary=s).fingerprint() for s in summaries}) == len(summaries)
    assert forward(summary=Scaled(1.0)).fingerprint() == forward(summary=Scaled(1.0)).fingerprint()


NOISY = """
import numpy as np
def half(v):
    return GAIN * v
GAIN = 0.5
def maker(offset):
    def observe(theta, y, key):
        '''Adds an offset.'''
        return y._replace(r=half(y.r) + offset.sum())
    return observe
observe = maker(np.array([1.0, 2.0]))
"""


def test_docstring_name_and_module_of_a_function_are_no_other_study_what_it_computes_is(monkeypatch):
    """Editing the docstring of an `observe=` function made a finished store another study."""

    def fingerprint(text, module="noisy"):
        made = types.ModuleType(module)
        monkeypatch.setitem(sys.modules, module, made)
        exec(compile(text, f"{module}.py", "exec"), made.__dict__)
        return forward(observe=made.observe).fingerprint()

    first = fingerprint(NOISY)
    assert fingerprint(NOISY.replace("Adds an offset.", "Adds two numbers.")) == first
    assert fingerprint(NOISY.replace("        '''Adds an offset.'''\n", "        # nothing said\n")) == first
    assert fingerprint(NOISY.replace("def observe(", "def noise(").replace("return observe", "return noise")) == first
    assert fingerprint(NOISY, "elsewhere") == first
    for old, new in (
        ("0.5", "0.25"),
        ("[1.0, 2.0]", "[1.0, 2.5]"),
        ("GAIN * v", "GAIN + v"),
        ("offset.sum", "offset.max"),
    ):
        assert fingerprint(NOISY.replace(old, new)) != first


def test_running_a_forward_model_does_not_change_its_fingerprint():
    fwd = forward()
    before = fwd.fingerprint()
    fwd.batch({"coupling.G": jnp.ones(3)}, jax.random.split(jax.random.key(0), 3))
    assert fwd.fingerprint() == before


def test_other_numbers_of_vbinfer_are_another_fingerprint_another_version_is_not(monkeypatch):
    from vbinfer.io import fingerprint as fingerprints

    before = forward().fingerprint()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    fingerprints._version.cache_clear()
    assert forward().fingerprint() == before
    monkeypatch.setattr(fingerprints, "NUMBERS", fingerprints.NUMBERS + 1)
    fingerprints._version.cache_clear()
    assert forward().fingerprint() != before
    monkeypatch.undo()
    fingerprints._version.cache_clear()


class DrivenState(NamedTuple):
    x: jax.Array


class Driven(vb.models.AbstractVectorField):
    """A user's model that starts where its parameter says."""

    State: ClassVar = DrivenState
    tau: jax.Array = vb.param(1.0)
    cvar: tuple[str, ...] = eqx.field(static=True, default=("x",))

    def init(self, n):
        return DrivenState(jnp.full(n, 0.5) * self.tau)

    def dfun(self, t, x, c, u):
        return DrivenState(-x.x / self.tau + c[0])


class Undeclared(vb.models.AbstractVectorField):
    """A user's model with one value per node that is not declared with `param`."""

    State: ClassVar = DrivenState
    drive: jax.Array
    cvar: tuple[str, ...] = eqx.field(static=True, default=("x",))

    def init(self, n):
        return DrivenState(jnp.zeros(n))

    def dfun(self, t, x, c, u):
        return DrivenState(self.drive - x.x)


def last(y):
    return y[-1]


def at_the_end(model, n=4, **parts):
    monitors = parts.pop("monitors", {"x": vb.monitors.Subsample(0.5, var="x")})
    sim = vb.Simulator(model, integrator=vb.Heun(dt=0.5), nodes=n, monitors=monitors, **parts)
    return vb.ForwardModel(sim, t1=2.0, summary=parts.get("summary", last))


def test_an_undeclared_array_of_nodes_is_not_spread_over_as_many_draws():
    model = Undeclared(drive=jnp.arange(4.0))
    keys = jax.random.split(jax.random.key(0), 4)
    sim = vb.Simulator(
        model, integrator=vb.integrators.Euler(dt=0.5), nodes=4, monitors={"x": vb.monitors.Subsample(0.5, "x")}
    )
    fwd = vb.ForwardModel(sim, t1=1.0, summary=last)
    with pytest.raises(ValueError, match=r"vb\.param"):
        fwd.batch({"init.x": jnp.zeros(4)}, keys)


def test_multiplicative_noise_given_as_a_function_runs_in_a_batch():
    fwd = at_the_end(vb.models.Linear(gamma=-0.5), noise=vb.noise.Multiplicative(lambda x: {"x": 0.1 + 0.2 * x.x}))
    keys = jax.random.split(jax.random.key(0), 3)
    theta = {"model.gamma": jnp.array([-0.5, -0.2, -0.1])}
    singly = [fwd({"model.gamma": g}, k) for g, k in zip(theta["model.gamma"], keys, strict=True)]
    np.testing.assert_allclose(fwd.batch(theta, keys), singly, rtol=1e-5, atol=1e-7)


def test_a_draw_starts_where_its_own_model_does():
    fwd = at_the_end(Driven())
    keys = jax.random.split(jax.random.key(0), 3)
    taus = jnp.array([1.0, 3.0, 0.7])
    expected = [vb.simulate(vb.bind(fwd.sim, {"model.tau": tau}), t1=2.0, key=None).ys["x"][-1] for tau in taus]
    np.testing.assert_allclose(fwd.batch({"model.tau": taus}, keys), expected, rtol=1e-5)
    np.testing.assert_allclose(fwd({"model.tau": taus[1]}, keys[1]), expected[1], rtol=1e-5)


def test_a_batch_without_parameters_is_as_wide_as_its_keys():
    fwd = at_the_end(vb.models.Linear(gamma=-0.5))
    keys = jax.random.split(jax.random.key(0), 5)
    assert fwd.batch({}, keys).shape == (5, 4)


def test_features_of_sensors_are_named_by_sensors_not_by_nodes():
    gain = np.random.default_rng(0).uniform(size=(7, 4))
    monitors = {"eeg": vb.monitors.EEG(gain, "x", period=0.5)}
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.5),
        integrator=vb.Heun(dt=0.5),
        nodes=4,
        noise=vb.noise.Additive(0.1),
        monitors=monitors,
    )
    fwd = vb.ForwardModel(sim, t1=20.0, summary=vb.Summary(period=0.5, fc=vb.features.fc))
    assert len(fwd.names) == 21 == fwd({}, jax.random.key(0)).size


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        (vb.monitors.TimeAverage(0.5), r"TimeAverage\(\.\.\., var='r'\)"),
        (vb.monitors.RunningFC("r", 0.5), r"\[T, 4, 4\]"),
    ],
)
def test_a_summary_of_what_is_no_series_is_refused_when_the_forward_model_is_built(monitor, message):
    sim = vb.Simulator(vb.models.MontbrioPazoRoxin(), integrator=vb.Heun(dt=0.5), nodes=4, monitors={"y": monitor})
    with pytest.raises(ValueError, match=message):
        vb.ForwardModel(sim, t1=20.0, summary=vb.Summary(period=0.5, fc=vb.features.fc_stat))


def test_a_draw_outside_the_range_of_a_parameter_fails():
    noise = vb.noise.Coloured({"x": 0.1}, tau=3.0)
    fwd = at_the_end(vb.models.Linear(gamma=-0.5), noise=noise)
    x = fwd.batch({"noise.tau": jnp.array([3.0, 0.0, -1.0])}, jax.random.split(jax.random.key(0), 3))
    assert np.isfinite(x).all(axis=1).tolist() == [True, False, False]


def test_a_forward_model_does_not_drop_signals_under_way_in_silence():
    network = vb.Connectome([[0.0, 1.0], [1.0, 0.0]], [[0.0, 9.0], [6.0, 0.0]])
    sim = vb.Simulator(
        vb.models.Linear(),
        network,
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=0.1),
        delays=vb.Delays(),
        monitors={"x": vb.monitors.Subsample(1.0, "x")},
    )
    final = vb.simulate(sim, t1=2.0, key=None).final
    with pytest.raises(ValueError, match="signals under way"):
        vb.ForwardModel(sim, t1=2.0, summary=last, init=final)


def source(scale, rate):
    return f"""
from typing import ClassVar, NamedTuple
import equinox as eqx
import jax.numpy as jnp
import vbinfer as vb

SCALE = {scale}

class State(NamedTuple):
    x: object

def scaled(y):
    return SCALE * y

class Own(vb.models.AbstractVectorField):
    State: ClassVar = State
    a: object = vb.param(1.0)
    cvar: tuple[str, ...] = eqx.field(static=True, default=("x",))

    def init(self, n):
        return State(jnp.zeros(n))

    def dfun(self, t, x, c, u):
        return State({rate} * self.a * x.x + c[0])

sim = vb.Simulator(Own(), integrator=vb.Heun(dt=0.1), monitors={{"y": vb.monitors.Subsample(1.0, "x")}})
forward = vb.ForwardModel(sim, t1=4.0, summary=lambda y: y[-1], observe=lambda theta, y, key: scaled(y))
"""


def test_the_fingerprint_sees_the_equations_of_a_users_model_and_the_globals_of_a_function(monkeypatch):
    def fingerprint(*values):
        module = types.ModuleType("own_model")
        monkeypatch.setitem(sys.modules, "own_model", module)
        exec(compile(source(*values), "own_model.py", "exec"), module.__dict__)
        return module.forward.fingerprint()

    assert fingerprint("1.0", "-1.0") == fingerprint("1.0", "-1.0")
    assert len({fingerprint("1.0", "-1.0"), fingerprint("2.0", "-1.0"), fingerprint("1.0", "-2.0")}) == 3


def test_shapes_that_were_taken_once_do_not_let_others_pass():
    """The check is left out for shapes that it has seen; a name, a size and what `to_paths` makes are looked at."""
    sim = vb.Simulator(vb.models.Linear(), nodes=2, integrator=vb.Euler(dt=1.0))
    keys = jax.random.split(jax.random.key(0), 3)
    fwd = vb.ForwardModel(sim, t1=4.0, summary=lambda y: y["x"].mean(0))
    first = fwd.batch({"model.gamma": np.full(3, -1.0)}, keys)
    np.testing.assert_array_equal(fwd.batch({"model.gamma": np.full(3, -1.0)}, keys), first)
    with pytest.raises(ValueError, match=r"model\.gamma.*\[3\]"):
        fwd.batch({"model.gamma": np.full((3, 3), -1.0)}, keys)
    with pytest.raises(ValueError, match=r"model\.gama"):
        fwd.batch({"model.gama": np.full(3, -1.0)}, keys)
    path = "model.gamma"
    fwd = vb.ForwardModel(sim, t1=4.0, summary=lambda y: y["x"].mean(0), to_paths=lambda theta: {path: theta["a"]})
    np.testing.assert_array_equal(fwd.batch({"a": np.full(3, -1.0)}, keys), first)
    path = "model.gama"
    with pytest.raises(ValueError, match=r"model\.gama"):
        fwd.batch({"a": np.full(3, -1.0)}, keys)
