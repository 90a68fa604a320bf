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
from vbinfer._param import replace

GOLDEN = Path(__file__).parent / "golden"
WEIGHTS = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])


class Member(NamedTuple):
    """A model and what the shared properties need to know of it."""

    model: Callable[..., Any]
    field: Callable[..., Any]
    """Its drift, written a second time in `oracles.py`."""
    state: Any
    """A state inside the bounds, [V][3], or [V][3][mode], unequal over nodes."""
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
    """Parameters without effect as the model is built here, and those that the oracle has as constants."""
    seen: Callable[..., Any] = oracles.as_is
    """What a node shows of variables with axes of their own."""


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
    "GastSpikeFrequency": Member(
        partial(vb.models.GastSchmidtKnosche, alpha=1.4),
        oracles.gast(depression=False),
        [[0.4, 0.9, 0.2], [-0.5, 0.3, -1.1], [0.2, 0.05, 0.4], [0.03, -0.02, 0.1]],
        [2.0579098084, -0.1546763055, 2.8810737318, 0.0],
        bound=oracles.rate_above_zero,
        dt=0.01,
    ),
    "GastSynapticDepression": Member(
        partial(vb.models.GastSchmidtKnosche, adaptation="synaptic-depression", alpha=0.5, eta=-6.0),
        oracles.gast(depression=True),
        [[0.4, 0.9, 0.2], [-0.5, 0.3, -1.1], [0.2, 0.05, 0.4], [0.03, -0.02, 0.1]],
        [0.19663537098, -1.6187824429, 0.098317685488, 0.0],
        bound=oracles.rate_above_zero,
        dt=0.01,
    ),
    "JansenRitPopulations": Member(
        vb.models.JansenRitPopulations,
        oracles.jansen_rit_populations,
        [
            [[0.05, 0.02], [0.12, 0.15], [0.08, 0.03]],
            [[8.0, 12.0], [21.0, 17.0], [14.0, 19.0]],
            [[5.0, 9.0], [12.0, 8.0], [16.0, 11.0]],
            [[0.01, -0.03], [-0.02, 0.04], [0.0, 0.02]],
            [[0.3, 0.5], [-0.1, 0.2], [0.2, -0.4]],
            [[-0.2, 0.3], [0.1, -0.1], [0.4, 0.2]],
        ],
        [0.1033758432, 0.1033758432, 24.545536905, 24.545536905, 18.02780168, 18.02780168, *[0.0] * 6],
        coupled=(1,),
        seen=oracles.weighted,
    ),
    "PlasticWilsonCowan": Member(
        lambda: vb.models.InhibitoryPlasticity(vb.models.WilsonCowan(P=1.5), target=0.3, eta=0.02),
        oracles.plastic(oracles.wilson_cowan, "c_ei", lambda x, q: (x[1], x[0])),
        [[0.2, 0.5, 0.3], [0.4, 0.1, 0.25], [4.0, 2.5, 6.0]],
        [0.3, 0.1336296213, 18.1579489219],
        bound=oracles.rates_above_zero(2),
        skip=("local.c_ei",),
    ),
    "PlasticJansenRit": Member(
        lambda: vb.models.InhibitoryPlasticity(vb.models.JansenRit(), target=0.0025, eta=3.7),
        oracles.plastic(oracles.jansen_rit, "a_4", oracles.column_rates),
        [
            [0.05, 0.12, 0.08],
            [8.0, 21.0, 14.0],
            [5.0, 12.0, 16.0],
            [0.01, -0.02, 0.0],
            [0.3, -0.1, 0.2],
            [-0.2, 0.1, 0.4],
            [0.25, 0.3, 0.15],
        ],
        [0.08125, 23.9074177469, 18.3874177469, 0.0, 0.0, 0.0, 0.3552306704],
        bound=oracles.rates_above_zero(6),
        coupled=(1,),
        dt=0.1,
        skip=("local.a_4",),
    ),
    "ReducedSetFitzHughNagumo": Member(
        partial(vb.models.ReducedSetFitzHughNagumo, form="paper"),
        oracles.reduced_set(oracles.fitzhugh_nagumo, 2),
        [
            [[0.5, -0.4, 0.2], [-0.9, 0.3, 0.8], [0.1, 0.6, -0.7]],
            [[0.2, 0.1, -0.3], [0.4, -0.2, 0.5], [-0.1, 0.3, 0.0]],
            [[-0.6, 0.2, 0.4], [0.7, -0.5, 0.1], [0.3, -0.8, 0.9]],
            [[0.1, -0.4, 0.2], [0.0, 0.3, -0.2], [0.5, 0.1, -0.1]],
        ],
        [
            *(-1.3775866093, -0.56158739788, 0.19219842618),
            *(-1.037583145, -0.34953405191, 0.70662244989),
            *(-1.3960994657, -0.56843649232, 0.43543772336),
            *(-1.0581529855, -0.35714415684, 0.97688833565),
        ],
        seen=oracles.summed,
        dt=0.02,
    ),
    "ReducedSetHindmarshRose": Member(
        partial(vb.models.ReducedSetHindmarshRose, form="paper"),
        oracles.reduced_set(oracles.hindmarsh_rose, 3),
        [
            [[0.5, -0.4, 0.2], [-0.9, 0.3, 0.8], [0.1, 0.6, -0.7]],
            [[0.2, 0.1, -0.3], [0.4, -0.2, 0.5], [-0.1, 0.3, 0.0]],
            [[2.6, 3.2, 2.4], [1.7, 2.5, 3.1], [2.3, 1.8, 2.9]],
            [[-0.6, 0.2, 0.4], [0.7, -0.5, 0.1], [0.3, -0.8, 0.9]],
            [[0.1, -0.4, 0.2], [0.0, 0.3, -0.2], [0.5, 0.1, -0.1]],
            [[2.1, 2.7, 1.4], [3.3, 2.2, 1.9], [2.8, 3.0, 1.6]],
        ],
        [
            *(-0.77801071075, -0.34365159296, -0.45625400525),
            *(-2.4019657206, -0.65375403749, -0.22705246738),
            *(2.7310657687, 1.8777856638, 4.0180925907),
            *(-0.79180449599, -0.34369906285, -0.44248401777),
            *(-2.5205529742, -0.65407506605, -0.15927697515),
            *(2.6758906277, 1.8775957842, 4.0731725406),
        ],
        seen=oracles.summed,
        dt=0.01,
    ),
    "Robinson": Member(
        vb.models.Robinson,
        oracles.robinson,
        [
            [0.01, 0.02, 0.005],
            [1e-4, -2e-4, 5e-5],
            [0.5, 3.0, -2.0],
            [0.02, -0.05, 0.01],
            [-3.0, 2.0, 6.0],
            [0.03, 0.01, -0.02],
            [1.0, 4.0, -1.5],
            [-0.01, 0.04, 0.02],
        ],
        [0.0036033087035, 0.0, 1.0235138052, 0.0, 0.35319560816, 0.0, -1.3601356401, 0.0],
        coupled=(0, 6),
        dt=0.2,
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


def network(name, weights=WEIGHTS, **heun):
    """Three unequal nodes with linear coupling."""
    member = MODELS[name]
    return vb.Simulator(
        member.model(),
        vb.Connectome(weights, np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=member.G),
        integrator=vb.Heun(**{"dt": member.dt, **heun}),
    )


def run(sim, x0, t1):
    y = vb.simulate(sim, t1=t1, key=None, init=sim.model.State(*np.array(x0))).ys["raw"]
    return np.asarray(by_variable(sim, y))


def by_variable(sim, y):
    """A recording by name as [T, V, N]."""
    return jnp.stack([y[v] for v in sim.model.variables()], axis=1)


def tunable(name):
    """The parameters that have an effect, as one value per node or with axes of their own."""
    with jax.enable_x64(True):
        leaves = vb.paths(MODELS[name].model()).items()
    kept = {path: leaf for path, leaf in leaves if path not in MODELS[name].skip}
    return {path: np.asarray(leaf.value if leaf.axes else np.full(3, leaf.value)) for path, leaf in kept.items()}


def unequal(name):
    """Parameters that differ across nodes, all of them."""
    rng = np.random.default_rng(3)
    return {k: v * rng.uniform(0.8, 1.2, v.shape) + rng.uniform(0, 0.05, v.shape) for k, v in tunable(name).items()}


def oracle(name, weights, params):
    """dx/dt of the network, as a function of x `[V, N]` and of what is sent."""
    m = MODELS[name]
    return lambda x, sent=None: oracles.drift(m.field, m.coupled, x, weights, m.G, params, m.seen, sent)


class Program:
    """What the properties below need of a model, each compiled once: two programs of 40 steps, and its drift."""

    def __init__(self, name):
        self.name, member = name, MODELS[name]
        self.model, self.state = member.model(), jnp.asarray(member.state)
        self.params = {path: jnp.asarray(value) for path, value in unequal(name).items()}
        rng = np.random.default_rng(5)
        self.along = {path: jnp.asarray(rng.uniform(0.5, 1.0) * (abs(v) + 0.01)) for path, v in self.params.items()}

        def loss(h, params, frozen=False):
            sim = network(name, frozen_coupling=frozen)
            theta = {f"model.{path}": value + h * self.along[path] for path, value in params.items()}
            theta["coupling.G"] = member.G + h * 0.3
            init = sim.model.State(*self.state)
            solution = vb.simulate(vb.bind(sim, theta), t1=40 * sim.dt, key=None, init=init)
            y = by_variable(sim, solution.ys["raw"])
            return (y**2).mean(axis=(0, 2)).sum(), (y, jnp.stack(solution.final.state))

        self.graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
        self.frozen = jax.jit(partial(loss, frozen=True))
        self.drift = jax.jit(self._drift)

    def _drift(self, params, state, c, u):
        model = replace(self.model, params)
        x = model.project(model.State(*state))
        return jnp.stack(model.dfun(jnp.zeros(()), x, c, u))

    def loss(self, h):
        return self.graded(jnp.asarray(h), self.params)[0][0]


@pytest.fixture(scope="module")
def programs():
    made = {}

    def of(name):
        if name not in made:
            made[name] = Program(name)
        return made[name]

    with jax.enable_x64(True):
        yield of


@pytest.fixture
def program(name, programs):
    """The programs of a model; the test that takes them runs in float64."""
    with jax.enable_x64(True):
        yield programs(name)


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
def test_equals_an_oracle_with_every_parameter_unequal_across_nodes(name, program):
    member, params = MODELS[name], unequal(name)
    seen = lambda y: y if y.ndim == 3 else member.seen(y, params)  # noqa: E731
    (_, (y, final)), _ = program.graded(jnp.zeros(()), program.params)
    _, (y_frozen, _) = program.frozen(jnp.zeros(()), program.params)
    f = oracle(name, WEIGHTS, params)
    expected = oracles.heun(f, member.bound, member.state, member.dt, 40)
    np.testing.assert_allclose(y, seen(expected), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(final, expected[-1], rtol=1e-10, atol=1e-12)
    frozen = oracles.heun(f, member.bound, member.state, member.dt, 40, frozen=True)
    np.testing.assert_allclose(y_frozen, seen(frozen), rtol=1e-10, atol=1e-12)
    assert np.abs(frozen - expected).max() > 1e-8
    turned = oracles.heun(oracle(name, WEIGHTS.T, params), member.bound, member.state, member.dt, 40)
    assert np.abs(turned - expected).max() > 1e-5  # the orientation of the weights would show


@pytest.mark.parametrize("name", MODELS)
def test_order_towards_the_continuous_solution_with_coupling(name):
    """Of the scheme that the test above equals to rounding: second, first where the coupling is frozen in a step."""
    member, params = MODELS[name], tunable(name)
    t1, x0 = 20 * member.dt, np.array(member.state)
    f = oracle(name, WEIGHTS, params)
    flat = lambda t, x: f(x.reshape(x0.shape)).ravel()  # noqa: E731
    truth = solve_ivp(flat, (0.0, t1), x0.ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(x0.shape)
    for frozen, order, refinements in ((False, 2.0, (1, 4)), (True, 1.0, (4, 16))):
        errors = []
        for refinement in refinements:
            y = oracles.heun(f, member.bound, x0, member.dt / refinement, 20 * refinement, frozen)
            errors.append(np.abs(y[-1] - truth).max())
        slope = np.polyfit(np.log(refinements), np.log(errors), 1)[0]
        assert slope == pytest.approx(-order, abs=0.15), (frozen, errors)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_equals_finite_differences(name, program):
    """Along one direction that moves every parameter at once; reverse mode is the transpose of forward mode."""
    numeric = (float(program.loss(1e-5)) - float(program.loss(-1e-5))) / 2e-5
    assert float(program.graded(jnp.zeros(()), program.params)[1]) == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_stays_at_its_fixed_point_or_returns_on_its_cycle(name, program):
    member = MODELS[name]
    if member.period is None:
        size, zero = program.state.shape[2:], jnp.zeros((len(program.model.cvar), 3))
        point = np.broadcast_to(np.reshape(member.point, (-1, 1, *size)), program.state.shape)
        params = {k: np.full(3, member.params[k]) if k in member.params else v for k, v in tunable(name).items()}
        drift = lambda by: np.max(np.abs(program.drift(params, point + by, zero, zero[0])))  # noqa: E731
        assert drift(0.0) < 1e-6 * drift(0.01)  # points are given to ten digits
    else:
        sim = vb.Simulator(member.model(**member.params), integrator=vb.Heun(dt=member.period / 1000))
        y = run(sim, np.array(member.point)[:, None], member.period)[:, :, 0] - np.array(member.point)
        np.testing.assert_allclose(y[-1], member.gain, atol=1e-4)  # (2 pi / 1000)^2
        assert np.abs(y[499]).max() > 0.5


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_its_columns(name, program):
    """State [N, B] with a scalar, one value per draw [1, B], per node [N, 1] or both, against each draw alone."""
    rng, leaves = np.random.default_rng(7), tunable(name)
    shapes = ((), (1, 2), (3, 1), (3, 2))
    params = {}
    for i, (k, v) in enumerate(leaves.items()):  # with axes of their own [K], or [K, B]
        owned = vb.paths(program.model)[k].axes is not None
        shape = ((*v.shape, 2) if i % 2 else v.shape) if owned else shapes[i % 4]
        params[k] = (v[..., None] if owned and i % 2 else v if owned else v[0]) * rng.uniform(0.9, 1.1, shape)
    state = np.asarray(program.state)[..., None] * rng.uniform(0.9, 1.1, (*program.state.shape, 2))
    c, u = rng.uniform(0, 0.1, (len(program.model.cvar), 3, 2)), rng.uniform(0, 0.1, (3, 2))
    with jax.numpy_rank_promotion("raise"):
        batch = program.drift(params, state, c, u)
    for b in range(2):
        draw = {}
        for k, v in params.items():
            owned = vb.paths(program.model)[k].axes is not None
            draw[k] = (v[..., b] if v.ndim > 1 else v) if owned else np.broadcast_to(v, (3, 2))[:, b]
        alone = program.drift(draw, state[..., b], c[..., b], u[:, b])
        np.testing.assert_allclose(batch[..., b], alone, rtol=1e-12, atol=1e-300)


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
        model,
        vb.Connectome(WEIGHTS, np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=2.0),
        integrator=vb.integrators.Euler(dt=0.1),
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


def test_subpopulations_alike_are_one_column():
    """Three with the kinetics of Jansen and Rit and shares that sum to one."""
    column, shares = vb.models.JansenRit(mu=0.3), (0.2, 0.5, 0.3)
    kinetics = {name: [float(getattr(column, name))] * 3 for name in "ABab"}
    parts = vb.models.JansenRitPopulations(**kinetics, w=shares, mu=0.3)
    x = column.State(*jnp.asarray(MODELS["JansenRit"].state))
    spread_out = parts.State(*(jnp.broadcast_to(v[:, None], (3, 3)) for v in x))
    c, u = jnp.array([[0.1, 0.2, 0.3]]), jnp.array([0.01, 0.0, -0.02])
    one, many = column.dfun(u[0], x, c, u), parts.dfun(u[0], spread_out, c, u)
    for v in range(6):
        np.testing.assert_allclose(many[v], np.broadcast_to(np.asarray(one[v])[:, None], (3, 3)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(parts.at_nodes(spread_out)[f"y{v}"], x[v], rtol=1e-6)
    with pytest.raises(ValueError, match="one value per subpopulation"):
        vb.models.JansenRitPopulations(w=(0.2, 0.3, 0.5))


def test_plasticity_brings_every_node_to_its_target():
    """Wilson-Cowan nodes that get unequal input end at the same activity, with more inhibition where there is more."""
    local = vb.models.WilsonCowan(P=[1.2, 1.5, 1.8])
    model = vb.models.InhibitoryPlasticity(local, target=0.25, eta=1.0)
    sim = vb.Simulator(
        model, integrator=vb.integrators.RungeKutta4(dt=1.0), monitors={"y": vb.monitors.Subsample(4000.0)}
    )
    y = vb.simulate(sim, t1=12000.0, key=None).ys["y"]
    np.testing.assert_allclose(y["E"][-1], 0.25, atol=1e-3)
    assert np.all(np.diff(y["c_ei"][-1]) > 1.0)
    with pytest.raises(TypeError, match="knows the inhibition of"):
        vb.models.InhibitoryPlasticity(vb.models.Linear(), target=0.1, eta=0.1)


def test_the_loop_through_the_thalamus_takes_its_time():
    """Robinson's equations with phi and V_s of 4 ms ago and a projection between cortices, against a plain loop."""
    dt, lag, steps, rng = 0.5, 8, 30, np.random.default_rng(1)
    x = np.array(MODELS["Robinson"].state)
    with jax.enable_x64(True):
        model = vb.models.Robinson(P=[1.0, 2.0, 3.0])
        sim = vb.Simulator(
            model,
            {"loop": vb.Connectome(np.eye(3), lag * dt * np.eye(3), speed=1.0), "cortex": vb.Connectome(WEIGHTS)},
            coupling={"loop": vb.coupling.Linear(G=1.0), "cortex": vb.coupling.Linear(G=0.3)},
            delays={"loop": vb.Delays()},
            integrator=vb.Heun(dt=dt),
            noise=vb.noise.Additive({"dV_s": 0.1}),
        )
        z = rng.standard_normal((steps, 3))
        solution = vb.simulate(sim, t1=steps * dt, key=None, init=model.State(*x), noise_path={"dV_s": z})
        p = {path: np.broadcast_to(np.asarray(leaf.value), 3) for path, leaf in vb.paths(model).items()}
    past = [x] * (lag + 1)

    def drift(x, then):
        far = 0.3 * WEIGHTS @ x[0]
        return np.array([oracles.robinson(x[:, i], [then[0, i], then[6, i], far[i]], p, i) for i in range(3)]).T

    for step in range(steps):
        kick = np.zeros_like(x)
        kick[7] = 0.1 * dt**0.5 * z[step]
        k1 = drift(x, past[-1 - lag])
        k2 = drift(x + dt * k1 + kick, past[-lag])
        x = x + 0.5 * dt * (k1 + k2) + kick
        past.append(x)
    np.testing.assert_allclose(np.stack(solution.final.state), x, rtol=1e-9, atol=1e-13)


def test_parameters_as_sums_of_maps():
    """Of Kong et al. 2021: w, input and noise are functions of two maps, in single runs, batches and gradients."""
    myelin, gradient = np.array([0.2, 0.5, 0.9]), np.array([-1.0, 0.3, 0.8])
    sim = vb.Simulator(
        vb.models.ReducedWongWang(),
        vb.Connectome(WEIGHTS, np.zeros((3, 3))),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Heun(dt=1.0),
        noise=vb.noise.Additive(0.01),
    )
    maps = vb.models.RegionalMaps(
        {"myelin": myelin, "gradient": gradient}, paths=("model.w", "model.I_o", "noise.sigma")
    )
    fwd = vb.ForwardModel(sim, t1=20.0, summary=lambda y: y["S"][-1], to_paths=maps)
    by_hand = vb.ForwardModel(sim, t1=20.0, summary=lambda y: y["S"][-1])
    theta = {
        "model.w": jnp.array([[0.5, 0.3, -0.1], [0.6, 0.2, 0.05]]),
        "model.I_o": jnp.array([[0.3, 0.02, 0.01], [0.28, -0.02, 0.03]]),
        "noise.sigma": jnp.array([[0.02, 0.01, 0.005], [0.01, 0.002, -0.003]]),
        "coupling.G": jnp.array([0.4, 0.8]),
    }
    regional = {
        path: value if value.ndim == 1 else value @ np.stack([np.ones(3), myelin, gradient]).astype(np.float32)
        for path, value in theta.items()
    }
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(fwd.batch(theta, keys), by_hand.batch(regional, keys), rtol=1e-5)
    first = {path: value[0] for path, value in theta.items()}
    np.testing.assert_allclose(fwd(first, keys[0]), fwd.batch(theta, keys)[0], rtol=1e-5)
    slope = jax.grad(lambda w: fwd(first | {"model.w": w}, keys[0]).sum())(first["model.w"])
    inner = jax.grad(lambda w: by_hand({k: v[0] for k, v in regional.items()} | {"model.w": w}, keys[0]).sum())
    per_region = inner(regional["model.w"][0])
    expected = [per_region.sum(), per_region @ myelin, per_region @ gradient]
    np.testing.assert_allclose(slope, np.array(expected), rtol=1e-4)
    with pytest.raises(ValueError, match=r"myelin \[3\], gradient \[2\]"):
        vb.models.RegionalMaps({"myelin": myelin, "gradient": [0.1, 0.2]}, paths=("model.w",))


@pytest.mark.parametrize("name", ["ReducedSetFitzHughNagumo", "ReducedSetHindmarshRose"])
def test_inhibition_of_the_modes_as_tvb_has_it(name):
    """The matrix B_ik, the integral of mode i times the mean of mode k, meets alpha from the left in TVB."""
    paper = MODELS[name].model()
    tvb = getattr(vb.models, name)()
    x, zero = paper.State(*jnp.asarray(MODELS[name].state)), jnp.zeros((1, 3))
    difference = tvb.dfun(zero[0, 0], x, zero, zero[0]).xi - paper.dfun(zero[0, 0], x, zero, zero[0]).xi
    z, modes, density = oracles.quantiles(float(paper.mu), float(paper.sigma))
    total = lambda y: np.trapezoid(y, z, axis=1)  # noqa: E731
    B = np.outer(total(modes), total(modes * density))
    alpha = np.asarray(x.alpha)
    expected = -float(paper.K12) * (alpha @ B - alpha @ B.T)
    np.testing.assert_allclose(difference, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01
    with pytest.raises(ValueError, match="expected one of 'paper', 'tvb'"):
        getattr(vb.models, name)(form="TVB")


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("GastSchmidtKnosche_SF", vb.models.GastSchmidtKnosche),
        ("GastSchmidtKnosche_SD", partial(vb.models.GastSchmidtKnosche, adaptation="synaptic-depression")),
        ("ReducedSetFitzHughNagumo", vb.models.ReducedSetFitzHughNagumo),
        ("ReducedSetHindmarshRose", vb.models.ReducedSetHindmarshRose),
    ],
)
def test_drift_equals_that_of_tvb(name, build):
    """Of TVB 2.10 itself, at a random state with coupling; modes share one input there."""
    stored = np.load(GOLDEN / "tvb_drifts.npz")
    params = {k: v for k, v in json.loads(str(stored["info"]))["params"][name].items() if k != "cv"}
    with jax.enable_x64(True):
        model = build(**params)
        as_here = lambda a: a if a.shape[-1] > 1 else a[..., 0]  # noqa: E731  ([variable, node, mode])
        x = model.State(*(jnp.asarray(v) for v in as_here(stored[f"{name}__x"])))
        c = jnp.asarray(stored[f"{name}__c"])[None]
        dx = model.dfun(jnp.zeros(()), x, c, jnp.zeros_like(c[0]))
    np.testing.assert_allclose(np.stack(dx), as_here(stored[f"{name}__dx"]), rtol=1e-11, atol=1e-13)
