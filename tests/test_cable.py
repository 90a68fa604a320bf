"""Cells against NEURON-checked numbers, exact solutions and a dense float64 oracle."""

import json
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.cable.tree import tree_of

GOLDEN = Path(__file__).parent / "golden" / "cable.npz"


@pytest.fixture(scope="module")
def golden():
    arrays = dict(np.load(GOLDEN))
    return arrays | {"info": json.loads(str(arrays["info"]))}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def table(knots) -> vb.stimuli.Table:
    times, values = knots
    return vb.stimuli.Table(times, np.array(values, float)[:, None])


# ---- one compartment of the squid axon


GATES = ("soma_hh_m", "soma_hh_h", "soma_hh_n")


def squid(golden, case: str, integrator, dt: float):
    """V and gates `[B, 4, T]` under the stimulus of a case, from two starts, as one batch."""
    cell = vb.cable.Cell(vb.cable.single(20.0, 10.0), {"soma": vb.cable.HH()})
    sim = vb.Simulator(
        cell,
        integrator=integrator(dt=dt),
        stimulus=table(golden["info"][case]["stimulus_table_ms_nA"]),
        monitors={"x": vb.monitors.Subsample(0.025, var=("V", *GATES))},
    )
    fwd = vb.ForwardModel(sim, t1=50.0, summary=lambda x: jnp.stack([x[v][:, 0] for v in ("V", *GATES)]).ravel())
    starts = [golden[f"{c}__truth"][:, 0] for c in ("hh_ramp", "hh_ramp_gates")]
    theta = {f"init.{v}": jnp.asarray([s[k] for s in starts])[:, None] for k, v in enumerate(("V", *GATES))}
    return np.asarray(fwd.batch(theta, jax.random.split(jax.random.key(0), 2))).reshape(2, 4, -1)


def test_staggered_scheme_is_second_order_whatever_the_gates_start_from(golden):
    errors = []
    for dt in (0.025, 0.0125, 0.00625):
        y = squid(golden, "hh_ramp", vb.Native, dt)
        truth = [golden[f"{case}__truth"][0, 1:] for case in ("hh_ramp", "hh_ramp_gates")]
        errors.append(np.abs(y[:, 0] - truth).max(axis=1))
        if dt == 0.025:
            for one, case in zip(y, ("hh_ramp", "hh_ramp_gates"), strict=True):
                np.testing.assert_allclose(one, golden[f"{case}__staggered_dt0.025"][:, 1:], atol=1e-6)
    told = [golden["info"][case]["max_error_mV_staggered"][:3] for case in ("hh_ramp", "hh_ramp_gates")]
    np.testing.assert_allclose(np.transpose(errors), told, rtol=1e-5)
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 1.95).all()


def test_backward_euler_is_that_of_neuron(golden):
    y = squid(golden, "hh_ramp", vb.cable.BackwardEuler, 0.025)
    for one, case in zip(y, ("hh_ramp", "hh_ramp_gates"), strict=True):
        np.testing.assert_allclose(one, golden[f"{case}__be_dt0.025"][:, 1:], atol=1e-6)


# ---- a branched cell


@pytest.fixture(scope="module")
def branched(golden):
    """The cell with two clamped currents."""
    with jax.enable_x64(True):
        leak, HH = vb.cable.Leak(g=1e-4, e=-65.0), vb.cable.HH
        channels = {"soma": HH(), "trunk": HH(g_na=0.036, g_k=0.0108), "left": leak, "right": leak}
        cell = vb.cable.Cell(vb.cable.sections(golden["info"]["branched"]["sections"]), channels)
        times = np.array([0.0, 2.0, 2.0, 10.0, 10.0, 13.0, 13.0, 22.0, 22.0, 40.0])
        values = np.zeros((10, 32))
        values[2:8, 0], values[4:6, 31] = 0.4, 0.3
        stimulus = vb.stimuli.Table(times, values)
    return lambda integrator, **more: vb.Simulator(cell, integrator=integrator, stimulus=stimulus, **more)


@pytest.mark.parametrize(
    ("scheme", "integrator"),
    [("staggered", vb.Native), pytest.param("be", vb.cable.BackwardEuler, marks=pytest.mark.slow)],
)
def test_branched_cell_is_that_of_neuron(golden, branched, scheme, integrator):
    sim = branched(integrator(dt=0.025), monitors={"v": vb.monitors.Subsample(0.25, var="V")})
    y = np.asarray(vb.simulate(sim, t1=40.0, key=None).ys["v"])
    np.testing.assert_allclose(y.T, golden[f"branched__{scheme}_dt0.025"][:, 1:], atol=1e-6)


@pytest.mark.slow  # the fast ones: of the steady state of a tree, and of rest
def test_gradients_through_channels_and_geometry_are_central_differences(branched):
    """Forward and backward, through 40 steps and with a checkpoint."""
    sim = branched(vb.Native(dt=0.05), monitors={"v": vb.monitors.Subsample(0.5, var="V", at=(0, 14, 31))})
    at = {"soma.hh.g_na": 0.11, "trunk.hh.g_k": 0.011, "left.leak.g": 1.1e-4, "axial_resistivity": 104.0}
    at |= {"radius_scale": 1.03, "capacitance": 0.97, "right.leak.e": -66.0}
    names = sorted(at)

    def loss(v, checkpoint=None):
        theta = dict(zip((f"model.{n}" for n in names), v * jnp.asarray([at[n] for n in names]), strict=True))
        y = vb.simulate(vb.bind(sim, theta), t1=4.0, key=None, checkpoint=checkpoint).ys["v"]
        return jnp.sum(y * jnp.asarray([1.0, -0.5, 0.3]))

    one, value = jnp.ones(len(names)), jax.jit(loss)
    backward = jax.jit(jax.grad(lambda v: loss(v, (10, 10))))(one)
    step = 1e-5 * jnp.eye(len(names))
    differences = [(value(one + d) - value(one - d)) / 2e-5 for d in step]
    np.testing.assert_allclose(backward, differences, rtol=1e-6, atol=1e-6)
    assert (np.abs(backward) > 1e-3).all()


def test_pieces_of_a_run_are_the_run():
    """Bit for bit, cut at an odd number of steps: the second piece has no first half step."""
    cell = vb.cable.Cell(vb.cable.single(20.0, 10.0), {"soma": vb.cable.HH()}, v_init=-50.0)
    sim = vb.Simulator(cell, integrator=vb.Native(dt=0.05))
    whole = vb.simulate(sim, t1=0.6, key=None)
    first = vb.simulate(sim, t1=0.25, key=None)
    second = vb.simulate(sim, t1=0.35, key=None, init=first.final)
    for name, y in whole.ys["raw"].items():
        assert np.array_equal(y, np.concatenate([first.ys["raw"][name], second.ys["raw"][name]]))


@pytest.mark.slow  # the fast one is in test_cable_synapses.py, of three compartments
def test_a_batch_is_one_by_one(branched):
    sim = branched(vb.Native(dt=0.05), monitors={"v": vb.monitors.Raw(var="V", at=(0, 20))})
    fwd = vb.ForwardModel(sim, t1=0.6, summary=jnp.ravel)
    n = sim.n_nodes  # as many draws as compartments: a wrong axis would not be noticed otherwise
    theta = {
        "model.trunk.hh.g_na": jnp.linspace(0.01, 0.3, n * 11).reshape(n, 11),
        "model.radius_scale": jnp.linspace(0.8, 1.2, n),
        "model.capacitance": jnp.linspace(0.5, 1.5, n * n).reshape(n, n),
    }
    keys = jax.random.split(jax.random.key(0), n)
    batch = fwd.batch(theta, keys)
    for k in (0, 31):
        alone = fwd(jax.tree.map(lambda a, k=k: a[k], theta), keys[k])
        np.testing.assert_allclose(batch[k], alone, rtol=1e-11)


# ---- passive trees


def dense(parent, at, loads, resistivity=100.0):
    """Conductance matrix of compartments, junctions eliminated by a Schur complement: float64, by hand."""
    n, nodes, edges = len(parent), len(parent), []
    groups = {}
    for child, (p, a) in enumerate(zip(parent, at, strict=True)):
        if p >= 0:
            groups.setdefault((p, a), []).append(child)
    for (p, a), children in groups.items():
        hub = p
        if a != 0.5:
            hub, nodes = nodes, nodes + 1
            edges.append((p, hub, loads[p][int(a)]))
        edges += [(c, hub, loads[c][0]) for c in children]
    L = np.zeros((nodes, nodes))
    for i, j, load in edges:
        g = 100.0 / (resistivity * load)
        L[[i, j], [i, j]] += g
        L[i, j] -= g
        L[j, i] -= g
    return L[:n, :n] - L[:n, n:] @ np.linalg.solve(L[n:, n:], L[n:, :n]) if nodes > n else L


def random_tree(kind: str, n: int, rng):
    """Sections of random size: `parent` decides the shape."""
    parents = {
        "chain": lambda k: k - 1,
        "star": lambda k: 0,
        "comb": lambda k: k - 1 if k % 2 else max(k - 2, 0),
        "random": lambda k: int(rng.integers(k)),
    }[kind]
    return vb.cable.sections(
        [
            {
                "length": rng.uniform(5, 80),
                "radius": tuple(rng.uniform(0.2, 3.0, 2)),
                "n": int(rng.integers(1, 4)),
                "parent": parents(k) if k else None,
            }
            for k in range(n)
        ]
    )


@pytest.mark.parametrize(
    ("kind", "n"),
    [
        pytest.param("chain", 40, marks=pytest.mark.slow),
        ("star", 25),
        pytest.param("comb", 30, marks=pytest.mark.slow),
        ("random", 60),
        ("random", 3),
    ],
)
def test_tree_solve_is_the_dense_solve(kind, n):
    """Three draws at once; then derivatives, d(A^-1 b) = -A^-1 dA A^-1 b, backward and forward."""
    rng = np.random.default_rng(n)
    comp = random_tree(kind, n, rng)
    L = dense(comp.parent, comp.at, comp.loads)
    R, tree = vb.cable.Cell(comp, {"all": vb.cable.Leak()}).parts_now().resistance, tree_of(comp)
    e, b, V = rng.uniform(1e-4, 1e-1, (comp.n, 3)), rng.normal(size=(comp.n, 3)), rng.normal(size=(comp.n, 3))
    w = rng.normal(size=comp.n)

    @jax.jit
    def program(e, b, V):
        column = R[:, None]
        weighted = lambda e, R: w @ tree.solve(e, b, column * R)[:, 0]  # noqa: E731
        back = jax.grad(weighted)(e, 1.0)[:, 0]
        _, along = jax.jvp(lambda R: weighted(e, R), (1.0,), (1.0,))
        return tree.solve(e, b, column), tree.axial(V, column), tree.leaving(V, column), back, along

    x, axial, leaving, back, along = program(e, b, V)
    exact = np.stack([np.linalg.solve(np.diag(e[:, k]) + L, b[:, k]) for k in range(3)], axis=1)
    np.testing.assert_allclose(x, exact, rtol=1e-10)
    np.testing.assert_allclose(axial, -L @ V, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(leaving[:, 1], np.diag(L), rtol=1e-9)
    adjoint = np.linalg.solve(np.diag(e[:, 0]) + L, w)
    np.testing.assert_allclose(back, -adjoint * exact[:, 0], rtol=1e-7)
    np.testing.assert_allclose(along, adjoint @ L @ exact[:, 0], rtol=1e-7)


def test_tree_solve_keeps_the_digits_of_float32():
    """Where axial currents are 1e5 times those of the membrane, eliminating by differences would keep none."""
    comp = random_tree("random", 60, np.random.default_rng(0))
    L = dense(comp.parent, comp.at, comp.loads)
    R = vb.cable.Cell(comp, {"all": vb.cable.Leak()}).parts_now().resistance
    e, b = np.full(comp.n, 1e-6), np.random.default_rng(1).uniform(0.1, 1.0, comp.n)
    own = jax.jit(tree_of(comp).solve)(*(jnp.asarray(a, jnp.float32) for a in (e, b, R)))
    assert own.dtype == jnp.float32
    np.testing.assert_allclose(own, np.linalg.solve(np.diag(e) + L, b), rtol=2e-5)


def test_tapered_tree_is_that_of_neuron(golden):
    """Areas, transfer impedances, rest, and derivatives of the steady state by complex steps."""
    info = golden["info"]["tree"]
    comp = vb.cable.sections(info["sections"])
    np.testing.assert_allclose(comp.area, golden["tree__area"], rtol=1e-12)
    assert comp.parent.tolist() == golden["tree__parent"].tolist()
    assert {name: len(at) for name, at in comp.regions.items()} == {"soma": 1, "dend": 22, "axon": 7}
    channels = {r: vb.cable.Leak(g=info["g_S_cm2"][r], e=info["e_mV"][r]) for r in ("soma", "dend", "axon")}
    cell = vb.cable.Cell(comp, channels, axial_resistivity=info["axial_resistivity"], settle="rest")
    np.testing.assert_allclose(cell.rest().V, golden["tree__rest"], atol=1e-9)
    u = np.zeros(30)
    for i, current in info["input_compartment_nA"]:
        u[i] = current
    zero = jnp.zeros(30)
    paths = ("axial_resistivity", "radius_scale", "soma.leak.g", "dend.leak.g", "axon.leak.g")
    names = ("axial_resistivity", "radius_scale", "g_soma", "g_dend", "g_axon")
    at = [vb.paths(cell)[path].value for path in paths]

    def response(v, current):
        bound = vb.bind(cell, dict(zip(paths, v, strict=True)))
        parts = bound.parts_now()
        g, i = bound.membrane(zero, bound.steady(zero), parts.area)
        return tree_of(comp).solve(g, i + current, parts.resistance)

    @jax.jit
    def program(v):
        Z = jax.vmap(lambda b: response(v, b))(jnp.eye(30))
        return Z, response(v, u), jax.jacfwd(response)(v, u)

    Z, steady, derivatives = program(at)
    np.testing.assert_allclose(Z - golden["tree__rest"], golden["tree__Z"], rtol=1e-9)
    np.testing.assert_allclose(steady, golden["tree__steady"], atol=1e-9)
    for own, name in zip(derivatives, names, strict=True):
        expected = golden[f"tree__dsteady_d_{name}"]
        np.testing.assert_allclose(own, expected, atol=1e-8 * np.abs(expected).max())


@pytest.fixture(scope="module")
def cable(golden):
    """Errors of every scheme at the end of 4 ms of a passive cable against its exact solution, by dt."""
    from scipy.linalg import expm

    g, C, e = 2e-4, 1.0, -65.0
    with jax.enable_x64(True):
        comp = vb.cable.cylinder(90.0, (2.0, 1.0), 3)
        L = dense(comp.parent, comp.at, comp.loads, 150.0)
        A = -(L + np.diag(g * 1e-2 * comp.area)) / (C * 1e-5 * comp.area)[:, None]
        u = np.array([0.02, 0.0, -0.01])
        rest = np.linalg.solve(-A, u / (C * 1e-5 * comp.area))
        exact = e + rest - expm(4.0 * A) @ rest
        cell = vb.cable.Cell(comp, {"dend": vb.cable.Leak(g=g, e=e)}, axial_resistivity=150.0)
        errors = {}
        for scheme in (vb.Native, vb.cable.BackwardEuler, vb.cable.ForwardEuler, vb.cable.ExponentialEuler):
            for dt in (0.002, 0.001):
                sim = vb.Simulator(
                    cell,
                    integrator=scheme(dt=dt),
                    stimulus=vb.stimuli.Pulse(-1.0, 10.0, 1.0, gain=u),
                    monitors={"v": vb.monitors.Subsample(4.0, var="V")},
                )
                y = vb.simulate(sim, t1=4.0, key=None).ys["v"][-1]
                errors.setdefault(scheme.__name__, []).append(float(np.abs(y - exact).max()))
    return errors


@pytest.mark.parametrize(
    ("scheme", "order"), [("Native", 2), ("BackwardEuler", 1), ("ForwardEuler", 1), ("ExponentialEuler", 1)]
)
def test_schemes_have_their_order_on_a_passive_cable(cable, scheme, order):
    coarse, fine = cable[scheme]
    assert abs(np.log2(coarse / fine) - order) < 0.05
    assert coarse < (1e-4 if order == 2 else 0.5)


def test_exponential_euler_is_exact_for_a_passive_compartment():
    cell = vb.cable.Cell(vb.cable.single(20.0, 10.0), {"all": vb.cable.Leak(g=3e-4, e=-60.0)}, v_init=-80.0)
    sim = vb.Simulator(cell, integrator=vb.cable.ExponentialEuler(dt=0.5))
    y = vb.simulate(sim, t1=5.0, key=None)
    tau = 1.0 / 0.3
    np.testing.assert_allclose(y.ys["raw"]["V"][:, 0], -60.0 - 20.0 * np.exp(-y.ts["raw"] / tau), rtol=1e-12)


def test_input_resistance_of_a_sealed_cable_is_that_of_theory(golden):
    """The discrete cable of 51 compartments to 1e-9; R_inf coth(L / lambda) to second order in the compartments."""
    info = golden["info"]["cable"]
    steady = {}
    for n in (17, 51):
        cell = vb.cable.Cell(vb.cable.cylinder(1000.0, 1.0, n), {"all": vb.cable.Leak(g=1e-4, e=-65.0)})

        @jax.jit
        def response(zero, cell=cell):
            parts = cell.parts_now()
            g, _ = cell.membrane(zero, cell.steady(zero), parts.area)
            return tree_of(cell.comp).solve(g, zero.at[0].set(info["amp_nA"]), parts.resistance) - 65.0

        steady[n] = response(jnp.zeros(n))
    np.testing.assert_allclose(steady[51], golden["cable_v_steady_discrete"], atol=1e-9)
    middle = lambda v: float(v[len(v) // 2] - golden["cable_v_steady_analytic"][25])  # noqa: E731
    assert abs(np.log(middle(steady[17]) / middle(steady[51])) / np.log(3) - 2) < 0.05


# ---- noise, laws, rest


def test_noise_on_the_voltage_is_a_current_spread_over_the_step():
    """Two compartments and given normals against (2C/dt + A) dV = 2 (-A V + C s sqrt(dt) z / dt)."""
    dt, s = 0.5, 0.7
    comp = vb.cable.cylinder(400.0, 1.0, 2)
    cell = vb.cable.Cell(comp, {"all": vb.cable.Leak(g=1e-3, e=0.0)}, v_init=1.0)
    sim = vb.Simulator(cell, integrator=vb.Native(dt=dt), noise=vb.noise.Additive(sigma={"V": s}))
    z = np.random.default_rng(1).normal(size=(6, 2))
    y = vb.simulate(sim, t1=3.0, key=None, noise_path={"V": z}).ys["raw"]["V"]
    C = 1e-5 * comp.area
    A = dense(comp.parent, comp.at, comp.loads) + np.diag(1e-5 * comp.area)
    V = np.ones(2)
    for row, own in zip(z, y, strict=True):
        V = V + np.linalg.solve(2 * np.diag(C) / dt + A, 2 * (-A @ V + C * s * np.sqrt(dt) * row / dt))
        np.testing.assert_allclose(own, V, rtol=1e-10)
    axon = vb.cable.Cell(vb.cable.single(), {"soma": vb.cable.HH()})
    sim = vb.Simulator(axon, integrator=vb.Native(dt=dt), noise=vb.noise.Additive(sigma={"soma_hh_m": s}))
    with pytest.raises(ValueError, match="soma_hh_m"):
        vb.simulate(sim, t1=1.0, key=jax.random.key(0))


def test_distance_laws_are_evaluated_at_the_centres():
    """g = 1e-4 + 2e-7 d, at d = 0, 100, 200 um: the steady state of an isolated law against arrays of its values."""
    comp = vb.cable.cylinder(300.0, 1.0, 3)
    law = vb.cable.Cell(comp, {"all": vb.cable.Leak(g=vb.cable.Along(1e-4, slope=2e-7), e=[-60.0, -70.0, -80.0])})
    plain = vb.cable.Cell(comp, {"all": vb.cable.Leak(g=[1e-4, 1.2e-4, 1.4e-4], e=[-60.0, -70.0, -80.0])})
    np.testing.assert_allclose(law.rest().V, plain.rest().V, rtol=1e-12)
    grown = vb.bind(law, {"all.leak.g.slope": 1e-6})
    other = vb.bind(plain, {"all.leak.g": [1e-4, 2e-4, 3e-4]})
    np.testing.assert_allclose(grown.rest().V, other.rest().V, rtol=1e-12)
    exponential = vb.cable.Along(2.0, slope=-0.01, form="exponential")
    np.testing.assert_allclose(exponential.value(comp.distance, jnp.zeros(3)), 2.0 * np.exp([0.0, -1.0, -2.0]))


def test_rest_is_where_no_current_flows_and_follows_the_parameters():
    soma = {"length": 20.0, "radius": 10.0, "parent": None, "region": "soma"}
    comp = vb.cable.sections([soma, {"length": 200.0, "radius": 1.0, "n": 3, "parent": 0}])
    cell = vb.cable.Cell(comp, {"soma": vb.cable.HH(), "dend": vb.cable.Leak(g=2e-4, e=-75.0)}, settle="rest")
    sim = vb.Simulator(cell, integrator=vb.Native(dt=0.05), monitors={"v": vb.monitors.Subsample(20.0, var="V")})
    rest = cell.rest()
    np.testing.assert_allclose(vb.simulate(sim, t1=20.0, key=None).ys["v"][-1], rest.V, atol=1e-9)
    V = lambda g: vb.bind(cell, {"soma.hh.g_k": g}).rest().V  # noqa: E731
    both, slope = jax.jit(jax.vmap(V))(jnp.asarray([0.036 + 1e-6, 0.036 - 1e-6])), jax.jit(jax.jacrev(V))(0.036)
    np.testing.assert_allclose(slope, (both[0] - both[1]) / 2e-6, rtol=1e-6)


# ---- clamps


def test_a_clamped_axon_has_the_gates_of_the_command(golden):
    """Levels that change at half steps: the staggered scheme is then exact."""
    case = golden["info"]["vclamp2"]
    times = np.repeat(case["starts_ms"], 2)[1:]
    levels = np.repeat(case["levels_mV"], 2)[:-1]
    command = vb.stimuli.Table(np.append(times, 1e3), np.append(levels, levels[-1])[:, None])
    cell = vb.cable.Cell(
        vb.cable.single(20.0, 10.0), {"soma": vb.cable.HH()}, clamps=(vb.cable.Clamp("V", command, at=0),)
    )
    y = vb.simulate(vb.Simulator(cell, integrator=vb.Native(dt=0.025)), t1=20.0, key=None).ys["raw"]
    np.testing.assert_allclose(y["V"][:, 0], golden["vclamp2__v"][1:], atol=1e-12)
    gates = np.stack([y[name][:, 0] for name in GATES])
    np.testing.assert_allclose(gates, golden["vclamp2__gates_half_step_before"][:, 1:], atol=1e-9)
    m, h, n = gates
    V = golden["vclamp2__v"][1:]
    i = 0.12 * m**3 * h * (V - 50.0) + 0.036 * n**4 * (V + 77.0) + 3e-4 * (V + 54.3)
    held = np.diff(golden["vclamp2__v"]) == 0.0  # elsewhere it charges the membrane
    area = 1e-2 * vb.cable.single(20.0, 10.0).area[0]
    np.testing.assert_allclose(y["i_clamp"][held, 0], area * i[held] * 1e0, rtol=1e-9)


@pytest.mark.parametrize("integrator", [vb.Native, vb.cable.BackwardEuler])
def test_the_electrode_of_a_clamped_cable_gives_what_leaks(golden, integrator):
    case = golden["info"]["clamped_cable"]
    comp = vb.cable.cylinder(case["length"], case["radius"], case["n"])
    hold = vb.cable.Clamp("V", vb.stimuli.Ramp(0.0, 1.0, case["clamp_mV"], case["clamp_mV"]), at="left")
    cell = vb.cable.Cell(
        comp,
        {"all": vb.cable.Leak(g=case["g"], e=case["e"])},
        sites={"right": 20, "left": 0},
        clamps=(hold,),
    )
    sim = vb.Simulator(cell, integrator=integrator(dt=0.5))
    run = vb.simulate(sim, t1=400.0, key=None)
    np.testing.assert_allclose(run.final.state.V, golden["clamped_cable__v"], atol=1e-9)
    np.testing.assert_allclose(run.ys["raw"]["i_clamp"][-1], [0.0, case["electrode_current_nA"]], atol=1e-9)


def test_gates_are_clamped_together_with_the_voltage_elsewhere():
    """m held at 0.3 in the soma, V at -40 in the dendrite; both are recorded from the first step on."""
    soma = {"length": 20.0, "radius": 10.0, "parent": None, "region": "soma"}
    comp = vb.cable.sections([soma, {"length": 100.0, "radius": 1.0, "parent": 0}])
    level = lambda v: vb.stimuli.Ramp(0.0, 1.0, v, v)  # noqa: E731
    clamps = (vb.cable.Clamp("soma_hh_m", level(0.3), at="a"), vb.cable.Clamp("V", level(-40.0), at="b"))
    cell = vb.cable.Cell(comp, {"soma": vb.cable.HH(), "dend": vb.cable.Leak()}, sites={"a": 0, "b": 1}, clamps=clamps)
    sim = vb.Simulator(cell, integrator=vb.Native(dt=0.1))
    y = vb.simulate(sim, t1=0.3, key=None).ys["raw"]
    np.testing.assert_array_equal(y["soma_hh_m"][:, 0], 0.3)
    assert np.isnan(y["soma_hh_m"][:, 1]).all()
    np.testing.assert_array_equal(y["V"][:, 1], -40.0)
    # a step by hand, dense: dV of the soma with the dendrite held
    parts = cell.parts_now()
    inf = {k: v[0] for k, (v, _) in vb.cable.HH().rates(jnp.asarray([-65.0]), 0.0).items()}
    G = 1.0 / parts.resistance[0]
    na, k = 0.12 * 0.3**3 * inf["h"], 0.036 * inf["n"] ** 4
    area, C = parts.area[0], parts.capacitance[0]
    current = area * (na * 115.0 - k * 12.0 + 3e-4 * 10.7) + G * 25.0
    first = -65.0 + current / (C / 0.1 + (area * (na + k + 3e-4) + G) / 2)
    np.testing.assert_allclose(y["V"][0, 0], first, rtol=1e-12)


# ---- what is refused


SOMA = {"length": 20.0, "radius": 10.0, "parent": None, "region": "soma"}
MISTAKES = {
    "two roots": (lambda: vb.cable.sections([SOMA, SOMA]), "2 sections have no parent"),
    "zero radius": (lambda: vb.cable.single(10.0, 0.0), "radius=0.0"),
    "parent later": (lambda: vb.cable.sections([SOMA, SOMA | {"parent": 5}]), "parent 5"),
    "unknown key": (lambda: vb.cable.sections([SOMA | {"lenght": 3.0}]), "Did you mean 'length'"),
    "no such region": (lambda: cell_of(channels={"axon": vb.cable.HH()}), "region 'axon' has no compartment"),
    "channel twice": (lambda: cell_of(channels={"soma": (vb.cable.HH(), vb.cable.HH())}), "HH twice"),
    "no channel": (lambda: cell_of(channels={"soma": 3.0}), "expected a channel"),
    "site outside": (lambda: cell_of(sites={"tip": 7}), "site 'tip' is compartment 7"),
    "position outside": (lambda: vb.cable.single().site("soma", 1.5), "x=1.5"),
    "clamp nowhere": (lambda: cell_of(clamps=(vb.cable.Clamp("V", vb.stimuli.Pulse(0, 1, 1), at="x"),)), "no site"),
    "clamp of nothing": (lambda: cell_of(clamps=(vb.cable.Clamp("W", vb.stimuli.Pulse(0, 1, 1)),)), "holds 'W'"),
    "negative g": (lambda: vb.cable.Leak(g=-1.0), "Leak.g is -1"),
    "settle": (lambda: cell_of(settle="now"), "settle='now'"),
    "other integrator": (lambda: vb.Simulator(cell_of(), integrator=vb.Heun(dt=0.1)), "Native"),
    "scheme of cells": (
        lambda: vb.Simulator(vb.models.Linear(), integrator=vb.cable.BackwardEuler(dt=0.1)),
        "no step of its own",
    ),
    "wrong length": (
        lambda: vb.Simulator(cell_of(channels={"soma": vb.cable.Leak(g=[1e-4] * 3)}), integrator=vb.Native(dt=0.1)),
        "model.soma.leak.g",
    ),
}


def cell_of(channels=None, **options):
    return vb.cable.Cell(vb.cable.single(20.0, 10.0), channels or {"soma": vb.cable.HH()}, **options)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_with_what_to_write(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_a_step_too_long_for_its_scheme_is_a_warning_with_the_number():
    cell = vb.cable.Cell(vb.cable.cylinder(100.0, 2.0, 50), {"all": vb.cable.Leak()})
    for integrator, name in ((vb.Native(dt=0.5), "Native"), (vb.cable.ForwardEuler(dt=0.025), "ForwardEuler")):
        with pytest.warns(UserWarning, match=f"G dt/C is .* with {name}"):
            vb.Simulator(cell, integrator=integrator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vb.Simulator(cell, integrator=vb.cable.BackwardEuler(dt=5.0))
        vb.Simulator(cell, integrator=vb.Native(dt=0.0005))


def test_a_stimulus_in_picoamperes_is_a_warning_with_the_number():
    with pytest.warns(UserWarning, match="reaches 2000 nA, above 1000"):
        vb.Simulator(cell_of(), integrator=vb.Native(dt=0.1), stimulus=vb.stimuli.Pulse(1.0, 5.0, 500.0, gain=[4.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vb.Simulator(cell_of(), integrator=vb.Native(dt=0.1), stimulus=vb.stimuli.Pulse(1.0, 5.0, 0.5))
