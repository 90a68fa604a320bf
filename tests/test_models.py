"""One registry of models drives every property that all of them share."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy.integrate import solve_ivp

import vbinfer as vb

GOLDEN = Path(__file__).parent / "golden"
WEIGHTS = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])


class Member(NamedTuple):
    """A model and what the shared properties need to know of it."""

    model: Callable[..., Any]
    field: Callable[..., Any]
    """Its drift, written a second time in `oracles.py`."""
    state: list[list[float]]
    """A state inside the bounds, [V][3], unequal over nodes."""
    point: list[float]
    """Where the drift vanishes, found by scipy.optimize.root on the oracle or in closed form; with `period`, a state on
    the cycle."""
    params: Mapping[str, float] = MappingProxyType({})
    """Parameters for `point`."""
    period: float | None = None
    """Duration of the cycle through `point`, ms."""
    gain: float = 0.0
    """What every variable gains in a period."""
    bound: Callable[..., Any] = oracles.free
    coupled: tuple[int, ...] = (0,)
    """Positions of the variables whose coupling the model reads."""
    G: float = 0.37
    dt: float = 0.05
    skip: tuple[str, ...] = ()
    """Parameters without effect as the model is built here, and those that are no `[N]` leaf."""


MODELS = {
    "Linear": Member(vb.models.Linear, oracles.linear, [[0.3, -0.2, 1.1]], [0.0], G=3.0, dt=0.005),
    "MontbrioPazoRoxin": Member(
        vb.models.MontbrioPazoRoxin,
        oracles.montbrio,
        [[0.1, 0.4, 0.2], [-2.0, -0.7, -1.1]],
        [0.081134442, -1.9616199886],
        bound=oracles.rate_above_zero,
        dt=0.02,
        skip=("cv",),
    ),
    "ReducedWongWang": Member(
        vb.models.ReducedWongWang,
        oracles.wong_wang,
        [[0.1, 0.45, 0.8]],
        [0.0343550569],
        {"w": 0.9, "I_o": 0.3},
        bound=oracles.fractions,
    ),
    "Kuramoto": Member(
        vb.models.Kuramoto,
        oracles.kuramoto,
        [[0.3, 2.0, -1.2]],
        [0.7],
        {"omega": 0.5},
        period=4 * np.pi,
        gain=2 * np.pi,
    ),
    "JansenRit": Member(
        vb.models.JansenRit,
        oracles.jansen_rit,
        [
            [0.05, 0.12, 0.08],
            [8.0, 21.0, 14.0],
            [5.0, 12.0, 16.0],
            [0.01, -0.02, 0.0],
            [0.3, -0.1, 0.2],
            [-0.2, 0.1, 0.4],
        ],
        [0.1033758432, 24.5455369045, 18.02780168, 0.0, 0.0, 0.0],
        coupled=(1,),
        dt=0.1,
    ),
    "WilsonCowan": Member(
        vb.models.WilsonCowan, oracles.wilson_cowan, [[0.2, 0.5, 0.3], [0.4, 0.1, 0.25]], [0.4624648732, 0.2433641128]
    ),
    "SupHopf": Member(
        vb.models.SupHopf,
        oracles.hopf,
        [[0.5, -0.3, 0.2], [0.1, 0.4, -0.6]],
        [0.3, -0.4],
        {"a": 0.25, "omega": 0.4},
        period=5 * np.pi,
        coupled=(0, 1),
    ),
    "StuartLandau": Member(
        vb.models.StuartLandau,
        oracles.hopf,
        [[0.5, -0.3, 0.2], [0.1, 0.4, -0.6]],
        [0.3, -0.4],
        {"a": 0.25, "omega": 0.016 * np.pi},
        period=125.0,
        coupled=(0, 1),
    ),
    "Generic2dOscillator": Member(
        vb.models.Generic2dOscillator,
        oracles.generic_2d,
        [[-0.9, 0.4, 1.7], [2.6, -0.6, 1.1]],
        [-0.188651753, -0.1134824702],
        dt=0.1,
    ),
    "DampedOscillator": Member(
        vb.models.DampedOscillator,
        oracles.damped,
        [[0.5, 0.9, 1.2], [1.0, 0.6, 0.8]],
        [1.3 / 1.06, 0.8 / 1.06],
        {"a": 0.2, "b": 0.3},
    ),
    "CoombesByrne2D": Member(
        vb.models.CoombesByrne2D,
        oracles.coombes_byrne,
        [[0.35, 0.5, 0.7], [-0.1, -0.8, 0.8]],
        [0.184725544, -0.5714089699],
        bound=oracles.rate_above_zero,
        dt=0.01,
    ),
    "BilinearDCM": Member(vb.models.BilinearDCM, oracles.dcm, [[0.3, -0.2, 1.1]], [0.0], dt=0.1, skip=("C",)),
    "Epileptor": Member(
        partial(vb.models.Epileptor, x0=-2.2, Kvf=2.0, Kf=2.0, Ks=-0.5),
        oracles.epileptor,
        [[-1.8, 0.4, -0.9], [-12.0, 0.0, -5.0], [3.2, 2.5, -0.3], [-0.9, 0.3, 0.6], [0.1, 0.4, 0.9], [-0.1, 0.0, 0.1]],
        [-1.4624260073, -9.6934491346, 2.9502959707, -0.75807526376, 0.0, -0.14624260073],
        coupled=(0, 3),
        dt=0.01,
    ),
    "Epileptor2D": Member(
        partial(vb.models.Epileptor2D, x0=-2.2, Kvf=0.3, Ks=-0.5),
        oracles.epileptor_2d,
        [[-1.8, 0.6, -0.9], [3.2, -0.3, 4.1]],
        [-1.4624260073, 2.9502959707],
        dt=0.02,
    ),
    "Epileptor2D vep": Member(
        partial(vb.models.Epileptor2D, form="vep", x0=-3.5),
        oracles.vep,
        [[-1.8, 0.6, -0.9], [3.2, -0.3, 4.1]],
        [-2.213493823, 5.1460247078],
        dt=0.02,
        skip=("Kvf", "Ks", "slope"),
    ),
    "ReducedWongWangExcInh": Member(
        partial(vb.models.ReducedWongWangExcInh, lamda=0.2),
        oracles.wong_wang_exc_inh,
        [[0.1, 0.45, 0.8], [0.05, 0.1, 0.02]],
        [0.1647572075, 0.0392184486],
        bound=oracles.fractions,
        G=5.0,
    ),
    "LarterBreakspear": Member(
        partial(vb.models.LarterBreakspear, C=0.5),
        oracles.larter_breakspear,
        [[-0.3, 0.2, 0.1], [0.3, 0.1, 0.6], [0.1, -0.2, 0.4]],
        [-0.1573758102, 0.2593841182, 0.0634099589],
        G=2.0,
        dt=0.02,
    ),
    "ZerlautAdaptationFirstOrder": Member(
        partial(
            vb.models.ZerlautAdaptationFirstOrder, external_input_ex_ex=0.002, external_input_in_ex=0.002, K_ext_i=10.0
        ),
        oracles.zerlaut(json.loads(str(np.load(GOLDEN / "tvb_ZerlautAdaptationFirstOrder.npz")["params"]))),
        [[0.01, 0.03, 0.005], [0.02, 0.01, 0.03], [50.0, 20.0, 90.0], [2.0, 0.0, 5.0], [1e-3, -2e-3, 5e-4]],
        [1.1239331285e-3, 7.1820351130e-3, 63.358686828, 0.0, 0.0],
        bound=oracles.rates_above_zero(0, 1),
        skip=("P_e", "P_i"),
    ),
    "DopaAdaptiveQIF": Member(
        partial(vb.models.DopaAdaptiveQIF, we=10.0, wi=8.0),
        oracles.dopa,
        [
            [0.1, 0.9, 0.4],
            [-67.0, -40.0, -50.0],
            [1.0, 0.0, 3.0],
            [0.01, 0.05, 0.0],
            [0.0, 0.02, 0.03],
            [0.5, 1.0, 0.1],
        ],
        [3.1941473940e-2, -67.482705037, 2.4913554681, 0.0, 0.0, 0.0],
        bound=oracles.rates_above_zero(0, 5),
        dt=0.002,
    ),
}
STORED = [name for name in MODELS if (GOLDEN / f"tvb_{name}.npz").exists()]
TVB_NAMES = {"Linear": {"a": "G", "b": "offset"}, "Difference": {"a": "G"}, "Kuramoto": {"a": "G"}}


def cases(name):
    """(case, coupling, error of a float32 NumPy run) of a golden file, but for those with delays."""
    for case, info in json.loads(str(np.load(GOLDEN / f"tvb_{name}.npz")["info"]))["cases"].items():
        if not case.endswith("delayed"):
            renamed = TVB_NAMES.get(info["coupling"], {})
            options = {renamed.get(k, k): v for k, v in info["coupling_params"].items()}
            build = partial(getattr(vb.coupling, info["coupling"]), **options)
            yield case, build, info["float32_numpy_max_rel_dev"]


def golden_run(name, coupling, **heun):
    """The trajectory [T, V, N] of a golden case with TVB's parameters; those that only TVB has are left out."""
    stored = np.load(GOLDEN / f"tvb_{name}.npz")
    known = vb.paths(MODELS[name].model())
    sim = vb.Simulator(
        MODELS[name].model(**{k: v for k, v in json.loads(str(stored["params"])).items() if k in known}),
        vb.Connectome(stored["weights"], stored["tract_lengths"]),
        coupling=coupling,
        integrator=vb.Heun(dt=float(stored["dt"]), **heun),
        monitors={"raw": vb.monitors.Subsample(float(stored["t"][0]))},
    )
    return run(sim, stored["x0"], float(stored["t"][-1])), stored


def network(name, weights=WEIGHTS, params=None, **heun):
    """Three unequal nodes with linear coupling."""
    member = MODELS[name]
    return vb.Simulator(
        member.model(**(params or {})),
        vb.Connectome(weights, np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=member.G),
        integrator=vb.Heun(**{"dt": member.dt, **heun}),
    )


def run(sim, x0, t1):
    y = vb.simulate(sim, t1=t1, key=None, init=sim.model.State(*np.array(x0))).ys["raw"]
    return np.stack([y[v] for v in sim.model.variables()], axis=1)


def tunable(name):
    """The elementwise parameters that have an effect, with their defaults."""
    with jax.enable_x64(True):
        leaves = vb.paths(MODELS[name].model()).items()
    return {path: np.asarray(leaf.value) for path, leaf in leaves if path not in MODELS[name].skip}


def oracle(name, weights, params):
    """dx/dt of the network, as a function of x `[V, N]`."""
    member = MODELS[name]
    return lambda x: oracles.drift(member.field, member.coupled, x, weights, member.G, params)


def worst(y, reference):
    """Largest error of a trajectory [T, V, N], relative to the largest value of each state variable."""
    scale = np.abs(reference).max(axis=(0, 2))
    return (np.abs(y - reference).max(axis=(0, 2)) / np.where(scale == 0.0, 1.0, scale)).max()


@pytest.mark.parametrize("name", STORED)
def test_frozen_coupling_equals_tvb(name):
    for case, coupling, _ in cases(name):
        with jax.enable_x64(True):
            y, stored = golden_run(name, coupling(), frozen_coupling=True)
        assert worst(y, stored[f"{case}__y"]) < 1e-9, case


@pytest.mark.parametrize("name", STORED)
def test_single_precision_is_as_exact_as_it_can_be(name):
    """Against a float32 NumPy run of the same scheme, whose erfc and exp are ten times as exact as those of XLA.

    Over 20 samples, before small errors grow in some models.
    """
    for case, coupling, float32_error in cases(name):
        y, stored = golden_run(name, coupling(), frozen_coupling=True)
        assert worst(y[:20], stored[f"{case}__y"][:20]) < min(30 * max(float32_error, 1e-7), 1e-4), case


@pytest.mark.parametrize("name", STORED)
def test_live_coupling_equals_an_independent_heun_and_not_the_frozen_one(name):
    for case, coupling, _ in cases(name):
        if case == "none":
            continue
        with jax.enable_x64(True):
            y, stored = golden_run(name, coupling())
        assert worst(y, stored[f"{case}__y_live_own"]) < 1e-9, case
        assert worst(y, stored[f"{case}__y"]) > 1e-7, case


@pytest.mark.parametrize("name", MODELS)
def test_order_towards_the_continuous_solution_with_coupling(name):
    """Second, and first where the coupling is frozen over a step."""
    member = MODELS[name]
    t1 = 20 * member.dt
    params = {path: np.broadcast_to(value, 3) for path, value in tunable(name).items()}
    f = oracle(name, WEIGHTS, params)
    flat = lambda t, x: f(x.reshape(-1, 3)).ravel()  # noqa: E731
    x0 = np.array(member.state)
    truth = solve_ivp(flat, (0.0, t1), x0.ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(-1, 3)
    for frozen, order, refinements in ((False, 2.0, (1, 4)), (True, 1.0, (4, 16))):
        errors = []
        with jax.enable_x64(True):
            for refinement in refinements:
                sim = network(name, dt=member.dt / refinement, frozen_coupling=frozen)
                errors.append(np.abs(run(sim, member.state, t1)[-1] - truth).max())
        slope = np.polyfit(np.log(refinements), np.log(errors), 1)[0]
        assert slope == pytest.approx(-order, abs=0.15), (frozen, errors)


@pytest.mark.parametrize("name", MODELS)
def test_equals_an_oracle_with_every_parameter_unequal_across_nodes(name):
    member, rng = MODELS[name], np.random.default_rng(3)
    with jax.enable_x64(True):
        params = {k: v * rng.uniform(0.8, 1.2, 3) + rng.uniform(0, 0.05, 3) for k, v in tunable(name).items()}
        y = run(network(name, params=params), member.state, 40 * member.dt)
    expected = oracles.heun(oracle(name, WEIGHTS, params), member.bound, member.state, member.dt, 40)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
    turned = oracles.heun(oracle(name, WEIGHTS.T, params), member.bound, member.state, member.dt, 40)
    assert np.abs(turned - expected).max() > 1e-5  # the orientation of the weights would show


@pytest.mark.parametrize("name", MODELS)
def test_gradient_equals_finite_differences(name):
    """Along one direction that moves every parameter at once; reverse mode is the transpose of forward mode."""
    with jax.enable_x64(True):
        sim = network(name)
        state = sim.model.State(*np.array(MODELS[name].state))
        theta = {f"model.{path}": jnp.asarray(value) for path, value in tunable(name).items()}
        theta["coupling.G"] = jnp.asarray(MODELS[name].G)
        rng = np.random.default_rng(5)
        along = {path: jnp.asarray(rng.uniform(0.5, 1.0) * (abs(v) + 0.01)) for path, v in theta.items()}

        def loss(h):
            moved = {path: theta[path] + h * along[path] for path in theta}
            y = vb.simulate(vb.bind(sim, moved), t1=40 * sim.dt, key=None, init=state).ys["raw"]
            return sum((v**2).mean() for v in y.values())

        zero = jnp.zeros(())
        numeric = (float(loss(zero + 1e-5)) - float(loss(zero - 1e-5))) / 2e-5
        assert float(jax.grad(loss)(zero)) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_stays_at_its_fixed_point_or_returns_on_its_cycle(name):
    member = MODELS[name]
    with jax.enable_x64(True):
        model = member.model(**member.params)
        if member.period is None:
            drift = lambda by: np.max(np.abs(at(model, np.array(member.point) + by)))  # noqa: E731
            assert drift(0.0) < 1e-6 * drift(0.01)  # points are given to ten digits
        else:
            sim = vb.Simulator(model, integrator=vb.Heun(dt=member.period / 1000))
            y = run(sim, np.array(member.point)[:, None], member.period)[:, :, 0] - member.point
            np.testing.assert_allclose(y[-1], member.gain, atol=1e-4)  # (2 pi / 1000)^2
            assert np.abs(y[499]).max() > 0.5


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_columns(name):
    """State [N, B] with a scalar, one value per draw [1, B], per node [N, 1] or both, against each draw alone."""
    rng, leaves = np.random.default_rng(7), tunable(name)
    shapes = ((), (1, 2), (3, 1), (3, 2))
    params = {k: v * rng.uniform(0.9, 1.1, shapes[i % 4]) for i, (k, v) in enumerate(leaves.items())}
    state = np.array(MODELS[name].state)[:, :, None] * rng.uniform(0.9, 1.1, (len(MODELS[name].state), 3, 2))
    c, u = rng.uniform(0, 0.1, (len(MODELS[name].model().cvar), 3, 2)), rng.uniform(0, 0.1, (3, 2))

    def drift(params, state, c, u):
        model = MODELS[name].model(**params)
        x = model.project(model.State(*(jnp.asarray(v) for v in state)))
        return np.stack(model.dfun(jnp.zeros(()), x, jnp.asarray(c), jnp.asarray(u)))

    with jax.enable_x64(True):
        batch = drift(params, state, c, u)
        for b in range(2):
            draw = {k: v if np.ndim(v) == 0 else np.broadcast_to(v, (3, 2))[:, b] for k, v in params.items()}
            np.testing.assert_allclose(batch[:, :, b], drift(draw, state[:, :, b], c[:, :, b], u[:, b]), rtol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_drift_and_gradient_are_finite_far_outside_the_usual_range(name):
    """Sigmoids saturate and exponentials overflow without becoming NaN, forwards and backwards."""
    model = MODELS[name].model()
    zero = jnp.zeros((len(model.cvar), 3))

    def total(model, x):
        return sum(v.sum() for v in model.dfun(jnp.zeros(()), model.project(x), zero, zero[0]))

    value_and_slopes = eqx.filter_jit(eqx.filter_value_and_grad(lambda both: total(*both)))
    for scale in (-1e3, 1e3):
        x = model.State(*(jnp.asarray(scale * np.array(row)) for row in MODELS[name].state))
        value, slopes = value_and_slopes((model, x))
        assert np.isfinite(float(value)), scale
        assert all(np.isfinite(v).all() for v in jax.tree.leaves(slopes)), scale


def at(model, point):
    """The drift of one node without input."""
    state = model.State(*(jnp.full((1,), v) for v in point))
    zero = jnp.zeros((len(model.cvar), 1))
    return np.array(model.dfun(jnp.zeros(()), state, zero, zero[0])).ravel()


def test_the_rate_of_wong_wang_at_its_removable_singularity():
    from vbinfer.models.wong_wang import rate

    d = jnp.asarray(154.0)
    value, slope = jax.value_and_grad(rate)(jnp.asarray(0.0), d)
    assert float(value) == pytest.approx(1 / 154.0, rel=1e-6)
    assert float(slope) == pytest.approx(0.5, rel=1e-5)  # u / (1 - exp(-d u)) = 1/d + u/2 + d u^2 / 12 ...
    with jax.enable_x64(True):
        u = np.concatenate([-np.logspace(-1, -9, 60), np.logspace(-9, 0, 60)])
        exact = u / -np.expm1(-154.0 * u)
        np.testing.assert_allclose(rate(jnp.asarray(u), jnp.asarray(154.0)), exact, rtol=1e-11)
        slopes = jax.vmap(jax.grad(rate), (0, None))(jnp.asarray([0.0499 / 154, 0.0501 / 154]), jnp.asarray(154.0))
        assert float(slopes[1] - slopes[0]) == pytest.approx(154.0 / 6 * 0.0002 / 154, rel=1e-2)


def test_gradient_of_wong_wang_is_finite_where_the_input_meets_the_threshold():
    model = vb.models.ReducedWongWang(w=0.0, I_o=0.4)  # a I_o = b in exact arithmetic and in float32

    def drift(I_o):
        bound = vb.bind(model, {"I_o": I_o})
        return bound.dfun(jnp.zeros(()), bound.State(jnp.full((1,), 0.2)), jnp.zeros((1, 1)), jnp.zeros(1)).S[0]

    value, slope = jax.value_and_grad(drift)(jnp.asarray(0.4))
    assert float(value) == pytest.approx(-0.2 / 100 + 0.8 * 0.641 / 154, rel=1e-3)
    assert float(slope) == pytest.approx(0.8 * 0.641 * 0.27 * 0.5, rel=1e-3)


def test_montbrio_clamps_the_rate_in_both_stages(x64):
    stored = np.load(GOLDEN / "tvb_conventions.npz")
    params = json.loads(str(stored["info"]))["clamp"]["params"]
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(**params), integrator=vb.Heun(dt=float(stored["clamp__dt"])), nodes=4
    )
    steps = len(stored["clamp__t"])
    init = sim.model.State(*stored["clamp__x0"])
    y = vb.simulate(sim, t1=steps * sim.dt, key=None, init=init).ys["raw"]
    y = np.stack([y["r"], y["V"]], axis=1)
    assert worst(y, stored["clamp__y"]) < (1e-9 if x64 else 2e-4)  # clamping once is off by 0.28, never by 1.6


def test_cv_without_V_among_the_coupled_variables_is_an_error():
    with pytest.raises(ValueError, match="cvar="):
        vb.models.MontbrioPazoRoxin(cv=0.5)
    with pytest.raises(ValueError, match="cvar="):
        vb.bind(vb.models.MontbrioPazoRoxin(), {"cv": 0.5})


def test_cv_couples_V():
    model = vb.models.MontbrioPazoRoxin(cv=0.5, cr=0.25, cvar=("r", "V"))
    sim = vb.Simulator(
        model, vb.Connectome(WEIGHTS, np.zeros((3, 3))), coupling=vb.coupling.Linear(G=2.0), integrator=vb.Euler(dt=0.1)
    )
    r, V = np.array(MODELS["MontbrioPazoRoxin"].state)
    y = vb.simulate(sim, t1=0.1, key=None, init=model.State(r, V)).ys["raw"]["V"][0]
    dV = V**2 - (np.pi * r) ** 2 + 15 * r - 5 + 0.25 * 2.0 * WEIGHTS @ r + 0.5 * 2.0 * WEIGHTS @ V
    np.testing.assert_allclose(y, V + 0.1 * dV, rtol=1e-5)


@pytest.mark.parametrize("cvar", [("V", "r"), ("V",), ("r", "V", "r")])
def test_coupled_variables_in_another_order_are_refused(cvar):
    with pytest.raises(ValueError, match="couples cvar="):
        vb.models.MontbrioPazoRoxin(cvar=cvar)


@pytest.mark.parametrize("model", [vb.models.SupHopf, vb.models.StuartLandau])
def test_hopf_couples_both_variables_or_x_alone(model):
    x = model.State(jnp.asarray(WEIGHTS[0]), jnp.asarray(WEIGHTS[1]))
    free, zero = jnp.zeros((2, 3)), jnp.zeros(3)
    c = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    alone = np.stack(model().dfun(zero[0], x, free, zero))
    np.testing.assert_allclose(np.stack(model().dfun(zero[0], x, c, zero)) - alone, c, rtol=1e-5)
    only_x = np.stack(model(cvar=("x",)).dfun(zero[0], x, c[:1], zero)) - alone
    np.testing.assert_allclose(only_x, [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], rtol=1e-5)
    with pytest.raises(ValueError, match=r'couples cvar=\("x", "y"\)'):
        model(cvar=("y", "x"))
