"""Synapses, given events, gap junctions and cells joined, against closed forms and scipy's integrator."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import vbinfer as vb

ARRAYS = dict(np.load(Path(__file__).parent / "golden" / "cable.npz"))
INFO = json.loads(str(ARRAYS["info"]))
C = vb.cable


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def leaky(**options) -> vb.cable.Cell:
    """The postsynaptic compartment of the golden case."""
    return C.Cell(C.single(20.0, 10.0), {"soma": C.Leak(g=1e-4, e=-70.0)}, v_init=-70.0, **options)


def errors_of_trains(dts, receptor, times, exact):
    found = []
    for dt in dts:
        cell = leaky(receptors={"syn": receptor}, events={"in": C.SpikeTrain(times, 0.002, receptor="syn")})
        sim = vb.Simulator(cell, integrator=vb.Native(dt=dt), monitors={"v": vb.monitors.Subsample(0.1, var="V")})
        y = vb.simulate(sim, t1=20.0, key=None)
        found.append(np.abs(y.ys["v"][:, 0] - exact(np.asarray(y.ts["v"]))).max())
    return found


def test_given_events_are_of_second_order():
    """The golden case, with its errors to a digit."""
    every, times = INFO["synapse"]["weight_uS"], INFO["synapse"]["arrival_ms"]
    assert every == 0.002
    exact = lambda t: np.interp(t, ARRAYS["synapse__t"], ARRAYS["synapse__v"])  # noqa: E731
    step = ARRAYS["synapse__t"][1]
    assert abs(0.1 / step - round(0.1 / step)) < 1e-9  # no interpolation is needed
    errors = errors_of_trains((0.1, 0.05, 0.025), C.ExpSyn(tau=2.0, e=0.0), times, exact)
    assert max(errors[0] / 4.8e-4, errors[1] / 1.2e-4, errors[2] / 3.0e-5) < 1.1
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 1.95).all()


def conductance(kind, t):
    """uS after events of 2 nS at 4.513 and 9.487 ms, by the formulas of the docstrings."""
    g = 0.0
    for a in (4.513, 9.487):
        s = np.maximum(t - a, 0.0)
        shapes = {
            "ExpSyn": np.exp(-s / 3.0),
            "Alpha": s / 3.0 * np.exp(1.0 - s / 3.0),
            "DualExp": (np.exp(-s / 3.0) - np.exp(-s / 0.7)) / (0.7 / 3.0) ** (0.7 / 2.3) / (1.0 - 0.7 / 3.0),
        }
        g = g + 0.002 * shapes[kind] * (t >= a)
    return g


@pytest.mark.parametrize("receptor", [C.ExpSyn(tau=3.0), C.Alpha(tau=3.0), C.DualExp(tau_rise=0.7, tau_decay=3.0)])
def test_events_between_steps_keep_the_order(receptor):
    kind, area = type(receptor).__name__, 400 * np.pi

    def slope(t, V):
        return (-(1e-6 * area) * (V + 70.0) - conductance(kind, t) * V) / (1e-5 * area)

    ends, V, t, v = (0.0, 4.513, 9.487, 20.0), np.array([-70.0]), [], []
    for a, b in itertools.pairwise(ends):
        piece = solve_ivp(slope, (a, b), V, "DOP853", rtol=1e-11, atol=1e-11, dense_output=True)
        grid = np.round(np.arange(0.1, 20.01, 0.1), 10)
        grid = grid[(grid > a) & (grid <= b)]
        t, v, V = [*t, *grid], [*v, *piece.sol(grid)[0]], piece.y[:, -1]
    coarse, fine = errors_of_trains((0.05, 0.0125), receptor, [4.513, 9.487], lambda t_: np.interp(t_, t, v))
    # where an event falls in its step changes from step to step: the order is that of the bound
    assert fine < 0.1 * coarse
    assert fine < 1e-3


def test_dual_exponential_peaks_at_its_weight():
    t = np.linspace(0.0, 10.0, 10_001)
    receptor = C.DualExp(tau_rise=0.7, tau_decay=3.0)
    s = receptor.later(receptor.arrived((jnp.zeros(1), jnp.zeros(1)), jnp.asarray([0.5])), jnp.asarray(t))
    np.testing.assert_allclose(receptor.conductance(s).max(), 0.5, rtol=1e-6)
    with pytest.raises(ValueError, match="the rise is the faster one"):
        C.DualExp(tau_rise=3.0, tau_decay=2.0)


def test_given_conductances_are_those_of_a_leak():
    """0.3 nS on at all times is a leak of 0.3 nS / area."""
    g = 0.3e-3 / (1e-2 * 400 * np.pi)
    clamped = leaky(receptors={"clamp": C.Conductance(vb.stimuli.Ramp(0.0, 1.0, 0.3e-3, 0.3e-3), e=-20.0)})
    both = C.Cell(C.single(20.0, 10.0), {"soma": C.Leak(g=1e-4, e=-70.0), "all": C.Leak(g=g, e=-20.0)}, v_init=-70.0)
    a, b = (
        vb.simulate(vb.Simulator(cell, integrator=vb.Native(dt=0.1)), t1=3.0, key=None).ys["raw"]["V"]
        for cell in (clamped, both)
    )
    assert a[-1, 0] > -69.0
    np.testing.assert_allclose(a, b, rtol=1e-12)


# ---- networks


def network(weights, lengths=None):
    return vb.Connectome(np.array(weights), np.zeros_like(weights) if lengths is None else np.array(lengths), speed=1.0)


@pytest.mark.parametrize("lag", [2.0, 2.03])
def test_a_spike_acts_a_delay_after_the_end_of_its_step(lag):
    """Presynaptic voltages are clamped ramps that cross -20 in the steps ending at 2.5 and 7.5 ms; one weight is 0.

    The postsynaptic trace is that of the same events given by their times, also where the delay is between steps.
    """
    jumps = [0.0, 2.475, 2.475, 3.0, 3.0, 7.475, 7.475, 8.0, 8.0, 30.0]
    command = vb.stimuli.Table(jumps, np.array([-70, -70, 10, 10, -70, -70, 10, 10, -70, -70.0])[:, None])
    pre = leaky(clamps=(C.Clamp("V", command),), receptors={"ampa": C.ExpSyn(tau=2.0)})
    post = leaky(receptors={"ampa": C.ExpSyn(tau=2.0)})
    cells = C.join([post, pre, post])
    sim = vb.Simulator(
        cells,
        network(
            [[0.0, 0.002, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, lag, 9.0], [5.0, 0.0, 1.0], [1.0, 4.0, 0.0]]
        ),
        coupling=vb.coupling.Linear(G=1.0),
        delays=vb.Delays(10.0, interpolate=True),
        integrator=vb.Native(dt=0.05),
    )
    y = vb.simulate(sim, t1=15.0, key=None)
    spikes = np.asarray(y.ts["raw"])[np.asarray(y.ys["raw"]["spike"][:, 1]) > 0]
    np.testing.assert_allclose(spikes, [2.5, 7.5])
    given = leaky(
        receptors={"ampa": C.ExpSyn(tau=2.0)},
        events={"in": C.SpikeTrain([2.5 + lag, 7.5 + lag], 0.002, receptor="ampa")},
    )
    alone = vb.simulate(vb.Simulator(given, integrator=vb.Native(dt=0.05)), t1=15.0, key=None).ys["raw"]
    np.testing.assert_allclose(y.ys["raw"]["V"][:, 0], alone["V"][:, 0], atol=1e-9)
    np.testing.assert_array_equal(y.ys["raw"]["V"][:, 2], -70.0)
    assert alone["V"].max() > -65.0


def axon_slope(t, y, g, n):
    """Two squid axons, each with a graded synapse from the other: V, m, h, n, s, in NumPy."""
    V, m, h, k, s = y.reshape(5, 2)
    phi = lambda x: np.where(x == 0, 1.0, x / np.expm1(np.where(x == 0, 1.0, x)))  # noqa: E731
    rate = lambda x, a, b: a * (1 - x) - b * x  # noqa: E731
    steady = 1 / (1 + np.exp((-35.0 - V[::-1]) / 10.0))
    current = 0.12 * m**3 * h * (50 - V) + 0.036 * k**4 * (-77 - V) + 3e-4 * (-54.3 - V)
    u = np.array([0.1, 0.02])
    dV = 1e3 * current + 1e5 * (g * s * (-10.0 - V) + u) / (400 * np.pi)
    dm = rate(m, phi(-(V + 40) / 10), 4 * np.exp(-(V + 65) / 18))
    dh = rate(h, 0.07 * np.exp(-(V + 65) / 20), 1 / (np.exp(-(V + 35) / 10) + 1))
    dk = rate(k, 0.1 * phi(-(V + 55) / 10), 0.125 * np.exp(-(V + 65) / 80))
    return np.concatenate([dV, dm, dh, dk, (steady - s) * 0.4 / (1 - steady)])


def test_cells_joined_by_graded_synapses_are_of_second_order():
    g = np.array([0.004, 0.002])
    synapse = lambda k: {"syn": C.Graded(g=g[k], e=-10.0, k_minus=0.4)}  # noqa: E731
    pair = C.join(
        [
            C.Cell(C.single(20.0, 10.0), {"soma": C.HH()}, receptors=synapse(k), cvar=("V",), sites={"soma": 0})
            for k in range(2)
        ]
    )
    assert pair.labels == ("0.soma", "1.soma")
    start = pair.init(2)
    y0 = np.concatenate([start.V, start.soma_hh_m, start.soma_hh_h, start.soma_hh_n, [0.0, 0.0]])
    truth = solve_ivp(
        axon_slope, (0.0, 12.0), y0, "DOP853", t_eval=np.arange(1, 25) * 0.5, args=(g, 2), rtol=1e-11, atol=1e-11
    )
    errors = []
    for dt in (0.02, 0.01):
        sim = vb.Simulator(
            pair,
            network([[0.0, 1.0], [1.0, 0.0]]),
            coupling=vb.coupling.Linear(G=1.0),
            integrator=vb.Native(dt=dt),
            stimulus=vb.stimuli.Pulse(-1.0, 100.0, 1.0, gain=[0.1, 0.02]),
            monitors={"v": vb.monitors.Subsample(0.5, var="V")},
        )
        y = np.asarray(vb.simulate(sim, t1=12.0, key=None).ys["v"])
        errors.append(np.abs(y.T - truth.y[:2]).max())
    assert truth.y[:2].max(axis=1).min() > 0.0  # both spike, the second one driven by the first
    assert np.log2(errors[0] / errors[1]) > 1.95
    assert errors[1] < 0.3


def test_gap_junctions_are_of_second_order():
    """Two unequal passive compartments: V' = A (V - e), whose exponential is known."""
    small = C.Cell(
        C.single(10.0, 5.0), {"soma": C.Leak(g=2e-4, e=-60.0)}, receptors={"gap": C.GapJunction()}, cvar=("V",)
    )
    large = C.Cell(
        C.single(20.0, 10.0), {"soma": C.Leak(g=1e-4, e=-80.0)}, receptors={"gap": C.GapJunction()}, cvar=("V",)
    )
    area = np.array([100.0, 400.0]) * np.pi
    L = 0.002 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    A = -(L + np.diag([2e-6, 1e-6] * area)) / (1e-5 * area)[:, None]
    rest = np.linalg.solve(-A, np.array([2e-6 * -60.0, 1e-6 * -80.0]) / 1e-5)
    exact = rest + expm(5.0 * A) @ (-65.0 - rest)
    errors = []
    for dt in (0.05, 0.025):
        sim = vb.Simulator(
            C.join([small, large]),
            network([[0.0, 0.002], [0.002, 0.0]]),
            coupling=vb.coupling.Difference(G=1.0),
            integrator=vb.Native(dt=dt),
        )
        errors.append(np.abs(vb.simulate(sim, t1=5.0, key=None).final.state.V - exact).max())
    assert np.log2(errors[0] / errors[1]) > 1.9
    assert errors[1] < 1e-4


def test_cells_joined_without_synapses_are_the_cells_alone():
    soma = {"length": 20.0, "radius": 10.0, "parent": None, "region": "soma"}
    comp = C.sections([soma, {"length": 200.0, "radius": 1.0, "n": 3, "parent": 0, "region": "dend"}])
    law = C.Along(1e-4, slope=1e-6)
    one = C.Cell(comp, {"soma": C.HH(), "dend": C.Leak(g=law)}, sites={"soma": 0, "tip": 3}, capacitance=1.2)
    two = C.Cell(C.single(30.0, 8.0), {"soma": C.HH(g_na=0.1)}, sites={"soma": 0}, v_init=-60.0)
    both = C.join([one, two])
    assert both.labels == ("0.soma", "0.tip", "1.soma")
    np.testing.assert_allclose(vb.paths(both)["soma.hh.g_na"].value, [0.12, 0.1])
    assert vb.paths(both)["soma.hh.g_k"].value.shape == ()
    run = lambda cell: vb.simulate(vb.Simulator(cell, integrator=vb.Native(dt=0.05)), t1=2.0, key=None).ys["raw"]["V"]  # noqa: E731
    np.testing.assert_allclose(run(both), np.concatenate([run(one), run(two)], axis=1), rtol=1e-11)
    many = one.repeat(3)
    assert many.comp.n == 12
    assert vb.paths(many)["soma.hh.g_na"].value.shape == ()
    assert many.labels == tuple(f"{k}.{name}" for k in range(3) for name in ("soma", "tip"))
    np.testing.assert_array_equal(many.comp.parent, [-1, 0, 1, 2, -1, 4, 5, 6, -1, 8, 9, 10])
    np.testing.assert_allclose(many.comp.area, np.tile(comp.area, 3))


def test_a_batch_of_everything_that_can_be_drawn_is_one_by_one():
    """Receptors, trains, given conductances, clamps, distance laws, starts: as many draws as sites and compartments."""
    comp = C.cylinder(300.0, 1.0, 3)
    hold = C.Clamp("V", vb.stimuli.Pulse(0.0, 100.0, -60.0), at=2)
    cell = C.Cell(
        comp,
        {"all": (C.Leak(g=C.Along(1e-4, slope=1e-7)), C.CaT(), C.CaPump(), C.Nernst())},
        receptors={
            "ampa": C.ExpSyn(tau=2.0),
            "gaba": C.DualExp(e=[-80.0, -75.0, -70.0]),
            "given": C.Conductance(vb.stimuli.Pulse(0.2, 0.5, 1e-3, gain=[1.0, 0.0, 0.0])),
        },
        events={"in": C.SpikeTrain([0.3, 0.61], [0.002, 0.001], receptor="ampa", at=0)},
        clamps=(hold,),
    )
    sim = vb.Simulator(
        cell,
        {k: network(0.001 * np.arange(9.0).reshape(3, 3)) for k in ("exc", "inh")},
        coupling={k: vb.coupling.Linear(G=1.0) for k in ("exc", "inh")},
        integrator=vb.Native(dt=0.05),
        monitors={"x": vb.monitors.Raw(var=("V", "ampa_g", "i_clamp"))},
    )
    fwd = vb.ForwardModel(sim, t1=1.0, summary=lambda x: jnp.concatenate([a.ravel() for a in x.values()]))
    u = jnp.asarray([0.8, 1.0, 1.3])
    theta = {
        "model.receptors.ampa.tau": 2.0 * u,
        "model.receptors.gaba.e": jnp.asarray([[-80.0, -70.0, -60.0]]) * u[:, None],
        "model.receptors.given.signal.amplitude": 1e-3 * u,
        "model.events.in.times": jnp.asarray([[0.3, 0.61]]) * u[:, None],
        "model.clamps.2_V.signal.amplitude": -60.0 * u,
        "model.all.leak.g.slope": 1e-7 * u,
        "model.all.cat.g": 4e-5 * u,
        "model.v_init": jnp.asarray([[-65.0, -60.0, -70.0]]) * u[:, None],
        "model.threshold": jnp.asarray([-55.0, -60.0, -70.0]),
        "coupling.exc.G": u,
    }
    keys = jax.random.split(jax.random.key(0), 3)
    batch = fwd.batch(theta, keys)
    assert np.isfinite(batch).all()
    for k in (0, 2):
        alone = fwd(jax.tree.map(lambda a, k=k: a[k], theta), keys[k])
        np.testing.assert_allclose(batch[k], alone, rtol=1e-9, atol=1e-12)


MISTAKES = {
    "unequal receptors": (lambda: C.join([leaky(), leaky(receptors={"a": C.ExpSyn()})]), "cell 1 has receptors"),
    "lacking channel": (
        lambda: C.join([leaky(), C.Cell(C.single(), {"soma": C.HH()})]),
        "no 'leak' in its region 'soma'",
    ),
    "none": (lambda: C.join([]), "no cell"),
    "no receptor": (lambda: leaky(events={"in": C.SpikeTrain([1.0], receptor="nmda")}), "receptor 'nmda'"),
    "no site": (
        lambda: leaky(receptors={"a": C.ExpSyn()}, events={"in": C.SpikeTrain([1.0], receptor="a", at="x")}),
        "at='x' is no site",
    ),
    "weights": (lambda: C.SpikeTrain([1.0, 2.0], [1.0], receptor="a"), "1 weights for 2 times"),
    "no receptor object": (lambda: leaky(receptors={"a": 2.0}), "expected one such as"),
    "too many projections": (
        lambda: vb.Simulator(
            leaky(receptors={"a": C.ExpSyn()}).repeat(2),
            {"x": network(np.eye(2)), "y": network(np.eye(2))},
            coupling={"x": vb.coupling.Linear(G=1.0), "y": vb.coupling.Linear(G=1.0)},
            integrator=vb.Native(dt=0.1),
        ),
        "send 2 row",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_with_what_to_write(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=words):
        make()
