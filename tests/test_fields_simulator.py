"""Fields in the simulator: golden trajectories, a float64 loop oracle, closed forms, and what they must not change."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer._param import replace
from vbinfer.simulation.transition import innovations

GOLDEN = np.load(Path(__file__).parent / "golden" / "fields.npz")
F = vb.fields
TVB = json.loads(str(GOLDEN["tvb__info"]))


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def network(n, seed=0, speed=3.0):
    rng = np.random.default_rng(seed)
    return vb.Connectome(rng.uniform(0.1, 1.0, (n, n)), rng.uniform(0.0, 2.0, (n, n)), speed)


def growth(rho=0.4):
    """u' = rho u (1 - u) + c."""
    drift = lambda t, x, c, u, p: (p.rho * x.u * (1.0 - x.u) + c[0] + u,)  # noqa: E731
    return vb.models.custom(drift, state={"u": 0.0}, params={"rho": rho}, cvar=("u",))


# ---- regions


def test_region_map_is_the_golden_one():
    g = {k: GOLDEN[f"regions__{k}"] for k in ("regions", "areas", "x", "y")}
    areas, plain = F.RegionMap(g["regions"], g["areas"]), F.RegionMap(g["regions"])
    np.testing.assert_allclose(areas.to_regions(g["x"]), GOLDEN["regions__to_regions"], rtol=1e-13)
    np.testing.assert_allclose(plain.to_regions(g["x"]), GOLDEN["regions__to_regions_without_areas"], rtol=1e-13)
    np.testing.assert_array_equal(areas.to_nodes(g["y"]), GOLDEN["regions__to_nodes"])
    np.testing.assert_allclose(areas.to_regions(areas.to_nodes(g["y"])), g["y"], rtol=1e-13)
    np.testing.assert_allclose(areas.to_regions(g["x"][:, 1]), GOLDEN["regions__to_regions"][:, 1], rtol=1e-13)


def test_points_without_area_have_a_plain_mean():
    rmap = F.RegionMap([1, 0, 0, 1, 2], areas=[0.0, 1.0, 3.0, 0.0, 2.0])
    np.testing.assert_allclose(rmap.to_regions([2.0, 8.0, 4.0, 10.0, 7.0]), [5.0, 6.0, 7.0], rtol=1e-15)


# ---- trajectories


@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_a_surface_simulation_is_tvbs(scheme):
    mesh = F.Mesh(GOLDEN["tvb__vertices"], GOLDEN["tvb__triangles"])
    local = F.Kernel(mesh, F.Gaussian(TVB["width"]), normalise="tvb", cutoff=TVB["cutoff"])
    regions = F.RegionMap(GOLDEN["tvb__regions"])
    sim = vb.Simulator(
        vb.models.Generic2dOscillator(a=GOLDEN["tvb__a"]),
        vb.Connectome(GOLDEN["tvb__weights"], GOLDEN["tvb__tract_lengths"], TVB["speed"]),
        coupling=vb.coupling.Linear(G=TVB["G"]),
        delays=vb.Delays(),
        integrator={"euler": vb.integrators.Euler(0.1), "heun": vb.Heun(0.1, frozen_coupling=True)}[scheme],
        field=F.Field(mesh, local, strength=TVB["strength"], sends="V", regions=regions),
    )
    out = vb.simulate(sim, t1=20.0, key=None, init=sim.model.State(*GOLDEN["tvb__x0"]))
    steps, golden = GOLDEN["tvb__step"], GOLDEN[f"tvb__{scheme}"]
    for k, name in enumerate(("V", "W")):
        np.testing.assert_allclose(out.ys["raw"][name][steps - 1], golden[:, k], atol=1e-9)
    assert out.final.carry.buffers[0].ring[0].shape[1] == 6  # delay buffers are per region
    quiet = vb.simulate(vb.bind(sim, {"field.strength": 0.0}), t1=20.0, key=None, init=sim.model.State(*golden[0]))
    assert np.abs(quiet.final.state.V - golden[-1, 0]).max() > 0.01  # the local term is seen


def euler_oracle(x, steps, dt, gamma, w, lag, region, areas, K, strength, rate, average, at, coupling):
    """Euler's method node by node; coupling "tanh" (a sum of 1 + tanh) or "difference" (times 0.3)."""
    n, R = len(x), len(w)
    pre = (lambda y: 1.0 + np.tanh(y)) if coupling == "tanh" else (lambda y: y)
    mean = lambda y: [  # noqa: E731
        sum(areas[i] * y[i] for i in range(n) if region[i] == s) / sum(areas[i] for i in range(n) if region[i] == s)
        for s in range(R)
    ]
    past = []
    for _ in range(steps):
        m = mean(x)
        past.append([pre(v) for v in m] if average == "states" else mean([pre(v) for v in x]))
        out = []
        for i in range(n):
            r, c = region[i], 0.0
            if r >= 0:
                for s in range(R):
                    sent = past[max(len(past) - 1 - lag[r][s], 0)][s]
                    own = m[r] if at == "regions" else x[i]
                    c += w[r][s] * (sent - own) if coupling == "difference" else w[r][s] * sent
                c *= 0.3 if coupling == "difference" else 1.0
            near = strength[i] * sum(K[i][j] * rate(x[j]) for j in range(n))
            out.append(x[i] + dt * (gamma * x[i] + c + near))
        x = out
    return np.array(x)


@pytest.mark.parametrize(
    ("average", "at", "coupling"),
    [
        ("states", "regions", "tanh"),
        ("sent", "regions", "tanh"),
        ("states", "nodes", "difference"),
        ("states", "regions", "difference"),
    ],
)
def test_field_and_regions_are_those_of_a_loop(average, at, coupling):
    rng = np.random.default_rng(5)
    region = np.array([0, 2, 1, -1, 2, 2, 0, 1, 1, 1, -1, 0])
    ball = F.Mesh.icosphere(0, 10.0)
    areas, K, strength = rng.uniform(0.5, 3.0, 12), rng.normal(0.1, 0.3, (12, 12)), rng.uniform(0.2, 0.9, 12)
    net, x0, dt = network(3, seed=1), rng.normal(0.5, 1.0, 12), 0.1
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.7),
        net,
        coupling=vb.coupling.HyperbolicTangent(midpoint=0.0) if coupling == "tanh" else vb.coupling.Difference(G=0.3),
        delays=vb.Delays(),
        integrator=vb.integrators.Euler(dt),
        field=F.Field(ball, F.Local(K), strength, jnp.sin, regions=F.RegionMap(region, areas), average=average, at=at),
    )
    lag = np.rint(np.asarray(net.tract_lengths) / 3.0 / dt).astype(int).tolist()
    w = np.asarray(net.weights).tolist()
    expected = euler_oracle(
        x0.tolist(), 12, dt, -0.7, w, lag, region, areas, K, strength, np.sin, average, at, coupling
    )
    found = vb.simulate(sim, t1=1.2, key=None, init={"x": x0}).final.state.x
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_one_point_per_region_is_the_simulation_of_regions_bit_for_bit():
    ball, net = F.Mesh.icosphere(0, 10.0), network(12, seed=2)
    parts = dict(
        coupling=vb.coupling.Linear(G=0.05),
        delays=vb.Delays(interpolate=True),
        integrator=vb.Heun(0.1),
        noise=vb.noise.Additive({"V": 0.2}),
        monitors={"raw": vb.monitors.Raw()},
    )
    key = jax.random.key(3)
    alone = vb.simulate(vb.Simulator(vb.models.MontbrioPazoRoxin(), net, **parts), t1=5.0, key=key).ys["raw"]
    for field in (F.Field(ball), F.Field(ball, regions=F.RegionMap(np.arange(12)))):
        sim = vb.Simulator(vb.models.MontbrioPazoRoxin(), net, field=field, **parts)
        found = vb.simulate(sim, t1=5.0, key=key).ys["raw"]
        for name in ("r", "V"):
            np.testing.assert_array_equal(found[name], alone[name])


def hybrid(integrator, **more):
    """A field with everything: unequal areas, no region, delays, noise, diffusion."""
    sphere = F.Sphere(3, radius=10.0)
    regions = np.arange(32) % 4 - (np.arange(32) == 9)
    return vb.Simulator(
        vb.models.Linear(gamma=-0.6),
        network(4, seed=4),
        coupling=vb.coupling.Linear(G=0.1),
        delays=vb.Delays(interpolate=True),
        integrator=integrator,
        noise=vb.noise.Additive(0.3),
        field=F.Field(
            sphere, F.LaplaceBeltrami(sphere, D=2.0), 0.8, regions=F.RegionMap(regions, sphere.areas), **more
        ),
        monitors={"x": vb.monitors.Raw("x")},
    )


def drawn(B):
    """Draws of everything that may differ between them, and a key for each."""
    rng = np.random.default_rng(6)
    theta = {
        "field.strength": rng.uniform(0.5, 1.0, B),
        "field.local.D": rng.uniform(1.0, 3.0, B),
        "model.gamma": rng.uniform(-1.0, -0.3, (B, 32)),
        "connectome.speed": np.full(B, 3.0),
    }
    return theta, jax.random.split(jax.random.key(7), B)


@pytest.mark.parametrize("integrator", [vb.Heun(0.1), vb.Split(0.1)], ids=["Heun", "Split"])
def test_a_batch_of_a_field_is_its_single_runs(integrator):
    sim, (theta, keys) = hybrid(integrator), drawn(4)  # as many draws as regions
    fwd = vb.ForwardModel(sim, t1=2.0, summary=lambda y: y[-1])
    many = fwd.batch(theta, keys)
    for b in (0, 3):
        one = vb.bind(sim, {k: v[b] for k, v in theta.items()})
        out = vb.simulate(one, t1=2.0, key=keys[b])
        np.testing.assert_allclose(many[b], out.ys["x"][-1], rtol=1e-9, atol=1e-12)


def test_widths_of_kernels_are_drawn_one_for_each_run():
    """Along edges, with noise, and lags of some steps, which are read in blocks."""
    ball, B = F.Mesh.icosphere(1, 10.0), 5
    keys = jax.random.split(jax.random.key(9), B)
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1.5),
        vb.Connectome(network(4).weights, np.random.default_rng(3).uniform(2.0, 5.0, (4, 4)), 3.0),
        coupling=vb.coupling.Linear(G=0.1),
        delays=vb.Delays(),
        integrator=vb.Heun(0.1),
        noise=vb.noise.Additive(0.3),
        field=F.Field(ball, F.Kernel(ball, F.Gaussian(4.0), cutoff=15.0), 0.2, regions=F.RegionMap(np.arange(42) % 4)),
        monitors={"x": vb.monitors.Raw("x")},
    )
    fwd = vb.ForwardModel(sim, t1=1.5, summary=lambda y: y[-1])
    many = fwd.batch({"field.local.shape.width": np.linspace(3.0, 5.0, B)}, keys)
    one = fwd({"field.local.shape.width": 4.5}, keys[3])
    np.testing.assert_allclose(many[3], one, rtol=1e-9, atol=1e-12)


def test_operators_take_a_width_for_each_column():
    sphere, ball, B = F.Sphere(3, radius=10.0), F.Mesh.icosphere(1, 10.0), 3
    widths = jnp.array([[3.0, 4.0, 5.0]])  # as a batch has them, [1, B]
    for domain, profile, how, flows in (
        (sphere, F.Gaussian(4.0), "rows", True),
        (sphere, F.Exponential(4.0), "integral", False),
        (ball, F.Gaussian(4.0), "integral", False),
        (ball, F.Exponential(4.0), "tvb", False),
        (ball, F.Gaussian(4.0), "rows", False),
    ):
        x = np.random.default_rng(4).normal(1.0, 1.0, (domain.n_nodes, B))
        kernel = F.Kernel(domain, profile, how, cutoff=15.0)
        act = (lambda op, x: op.flow(x, 0.3, steps=2)) if flows else (lambda op, x: op(x))
        with jax.numpy_rank_promotion("raise"):
            found = act(replace(kernel, {"shape.width": widths}), x)
        for b in (0, 2):
            alone = vb.bind(kernel, {"shape.width": widths[0, b]})
            np.testing.assert_allclose(found[:, b], act(alone, x[:, b]), rtol=1e-10)


def test_steppers_and_resumed_runs_of_a_field_are_its_run():
    theta, keys = drawn(4)
    one = vb.bind(hybrid(vb.Split(0.1)), {k: v[3] for k, v in theta.items()})
    out = vb.simulate(one, t1=2.0, key=keys[3])
    half = vb.simulate(one, t1=1.0, key=keys[3])
    rest = vb.simulate(one, t1=1.0, key=keys[3], init=half.final)
    np.testing.assert_array_equal(rest.ys["x"], out.ys["x"][10:])
    init, step = vb.stepper(one)
    carry = init(keys[3])
    for _ in range(2):
        carry = step(carry)
    np.testing.assert_allclose(carry.x.x, out.ys["x"][1], rtol=1e-12)


@pytest.mark.parametrize("integrator", [vb.Heun(0.1), vb.Split(0.1)], ids=["Heun", "Split"])
def test_slopes_of_strength_and_diffusion_are_differences(integrator):
    sim = hybrid(integrator)

    def end(p):
        bound = vb.bind(sim, {"field.strength": p[0], "field.local.D": p[1]})
        return (vb.simulate(bound, t1=1.0, key=jax.random.key(0), checkpoint=True).ys["x"] ** 2).sum()

    at, both = jnp.array([0.8, 2.0]), jax.jit(jax.value_and_grad(end))
    slope = [(both(at + d)[0] - both(at - d)[0]) / 2e-5 for d in 1e-5 * jnp.eye(2)]
    np.testing.assert_allclose(both(at)[1], slope, rtol=1e-5)


@pytest.mark.parametrize(
    "integrator", [vb.integrators.Euler(0.1), pytest.param(vb.Heun(0.1), marks=pytest.mark.slow)], ids=["Euler", "Heun"]
)
def test_noise_behind_a_path_of_a_field_is_found(integrator):
    sim = hybrid(integrator)
    z = np.random.default_rng(8).standard_normal((6, 32))
    out = vb.simulate(sim, t1=0.6, key=None, noise_path={"x": z}, init={"x": np.linspace(-1.0, 2.0, 32)})
    State, start = sim.model.State, np.linspace(-1.0, 2.0, 32)
    path = State(jnp.concatenate([start[None], out.ys["x"]]))
    found = jax.jit(lambda path: innovations(sim, State(jnp.asarray(start)[None]), path, jnp.asarray(0)))(path)
    np.testing.assert_allclose(found.z["x"], z, atol=1e-9)


# ---- splitting, and what a local term does


def fisher(integrator, strength=1.0):
    g = {k: GOLDEN[f"fisher__{k}"] for k in ("u0", "t", "u", "D", "radius")}
    sphere = F.Sphere(7, 8, 16, float(g["radius"]))
    local = F.LaplaceBeltrami(sphere, D=float(g["D"]) / strength)
    sim = vb.Simulator(
        growth(), field=F.Field(sphere, local, strength), integrator=integrator, monitors={"u": vb.monitors.Raw("u")}
    )
    rows = np.rint(g["t"] / integrator.dt).astype(int) - 1
    return np.asarray(vb.simulate(sim, t1=8.0, key=None, init={"u": g["u0"]}).ys["u"])[rows], g["u"]


def test_a_front_of_fisher_and_kolmogorov_is_that_of_scipy():
    found, golden = fisher(vb.integrators.RungeKutta4(0.1))
    np.testing.assert_allclose(found, golden, atol=1e-7)


def test_splitting_is_of_second_order():
    error = [np.abs(np.subtract(*fisher(vb.Split(dt), strength=0.5))).max() for dt in (0.5, 0.25, 0.125)]
    assert error[-1] < 3e-4
    order = np.log2(np.divide(error[:-1], error[1:]))
    assert np.abs(order - 2.0).max() < 0.1


def test_splitting_on_a_mesh_is_exact_for_linear_diffusion():
    # x' = -a x + D Laplacian x with any step: e^(-a t) is Heun's, the modes decay exactly
    bumpy = F.Mesh(GOLDEN["bumpy__vertices"], GOLDEN["bumpy__triangles"])
    phi, eigenvalue = bumpy.modes(12)
    x0, dt, a = phi @ jnp.arange(12.0), 0.5, 0.2
    sim = vb.Simulator(
        vb.models.Linear(gamma=-a),
        field=F.Field(bumpy, F.LaplaceBeltrami(bumpy, D=40.0)),
        integrator=vb.Split(dt),
        monitors={"x": vb.monitors.Raw("x")},
    )
    heun = (1.0 - a * dt + 0.5 * (a * dt) ** 2) ** 10
    expected = heun * (phi * np.exp(-40.0 * eigenvalue * 5.0)) @ np.arange(12.0)
    np.testing.assert_allclose(vb.simulate(sim, t1=5.0, key=None, init={"x": x0}).ys["x"][-1], expected, atol=1e-9)
    stiffer = vb.simulate(vb.bind(sim, {"field.local.D": 400.0}), t1=5.0, key=None, init={"x": x0})
    assert np.isnan(stiffer.ys["x"][-1]).all()  # a draw far stiffer than the field as built fails visibly


def test_every_degree_grows_at_turings_rate():
    """tau u' = -u + strength K S(u), of a Mexican hat: (-1 + strength S'(0) g_l) / tau from a small perturbation."""
    sphere, tau, strength = F.Sphere(6, radius=60.0), 10.0, 3.0
    drift = lambda t, x, c, u, p: ((-x.u + c[0]) / tau,)  # noqa: E731
    kernel = F.Kernel(sphere, F.MexicanHat(12.0, 25.0, 1.0))
    sim = vb.Simulator(
        vb.models.custom(drift, state={"u": 0.0}, cvar=("u",)),
        field=F.Field(sphere, kernel, strength, rate=lambda u: jnp.tanh(0.9 * u)),
        integrator=vb.integrators.RungeKutta4(0.1),
        monitors={"u": vb.monitors.Raw("u")},
    )
    phi, _ = sphere.modes(49)
    weight = np.random.default_rng(9).normal(0.0, 1e-6, 49)
    end = vb.simulate(sim, t1=20.0, key=None, init={"u": phi @ weight}).ys["u"][-1]
    grown = np.log(np.asarray(phi.T @ (sphere.areas * end)) / weight) / 20.0
    # closed form of g_l: independent quadrature over the angle
    a, R = np.linspace(0.0, np.pi, 40001), 60.0
    bell = lambda w: np.exp(-0.5 * (R * a / w) ** 2) / (2 * np.pi * w**2)  # noqa: E731
    degree = np.repeat(np.arange(7), 2 * np.arange(7) + 1)
    legendre = np.polynomial.legendre.legvander(np.cos(a), 6)
    g = np.trapezoid(2 * np.pi * R**2 * ((bell(12.0) - bell(25.0)) * np.sin(a))[:, None] * legendre, a, axis=0)
    rate = (-1.0 + strength * 0.9 * g) / tau
    assert rate.max() > 0 > rate.min()  # some degrees grow and others decay
    np.testing.assert_allclose(grown, rate[degree], atol=1e-6)


def test_frozen_coupling_holds_the_long_range_alone():
    """Against a Heun step written out: c of the start in both stages, the local term of each."""
    ball = F.Mesh.icosphere(0, 10.0)
    rng = np.random.default_rng(10)
    K, net, x, dt = rng.normal(0.0, 0.5, (12, 12)), network(12, seed=11), rng.normal(0.3, 1.0, 12), 0.2
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.5),
        net,
        coupling=vb.coupling.Linear(G=0.4),
        integrator=vb.Heun(dt, frozen_coupling=True),
        field=F.Field(ball, F.Local(K), 0.7),
    )
    c = 0.4 * np.asarray(net.weights) @ x
    f = lambda y: -0.5 * y + c + 0.7 * K @ y  # noqa: E731
    stage = x + dt * f(x)
    expected = x + 0.5 * dt * (f(x) + f(stage))
    np.testing.assert_allclose(vb.simulate(sim, t1=dt, key=None, init={"x": x}).final.state.x, expected, rtol=1e-12)


# ---- what does not fit


SPHERE = F.Sphere(3, radius=10.0)
DIFFUSION = F.LaplaceBeltrami(SPHERE, D=1.0)


def build(model=None, net=None, integrator=None, **field):
    return vb.Simulator(
        model or vb.models.Linear(),
        net,
        coupling=net and vb.coupling.Linear(),
        integrator=integrator or vb.Heun(0.01),
        field=F.Field(**{"domain": SPHERE, **field}),
    )


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: F.RegionMap([0, 2, 2, 0]), "regions leaves 1 of 3 regions without a point, 1"),
        (lambda: F.RegionMap([0, 1, 2], labels=("a", "b")), "names region 2; there are 2"),
        (lambda: F.RegionMap([0, 1], labels=("a", "b", "c")), "without a point, c"),
        (lambda: F.RegionMap([0.0, 1.0]), "whole numbers"),
        (lambda: F.RegionMap([0, -2]), "region -2"),
        (lambda: F.RegionMap([0, 1], areas=[1.0, 2.0, 3.0]), "expected 2 numbers"),
        (lambda: F.RegionMap([0, 1]).to_regions([1.0, 2.0, 3.0]), "the points"),
        (lambda: F.RegionMap([0, 1]).to_nodes([1.0, 2.0, 3.0]), "the regions"),
        (lambda: F.Field(SPHERE, average="mean"), "'states', 'sent'"),
        (lambda: F.Field(SPHERE, at="points"), "'regions', 'nodes'"),
        (lambda: F.Field(SPHERE, F.Local(np.eye(5))), "local of Field has 5 points and the domain 32"),
        (lambda: F.Field(SPHERE, regions=F.RegionMap([0, 1])), "regions of Field has 2 points"),
        (lambda: build(net=network(5)), "vb.fields.RegionMap"),
        (lambda: build(net=network(5), regions=F.RegionMap(np.arange(32) % 4)), "4 regions and the connectome 5"),
        (lambda: build(local=DIFFUSION, sends="V"), "sends names 'V'"),
        (lambda: build(integrator=vb.Split(0.1)), "vb.Heun"),
        (lambda: build(local=DIFFUSION, integrator=vb.Split(0.1), rate=jnp.tanh), "leave rate out"),
        (lambda: build(local=DIFFUSION, integrator=vb.Split(0.1), strength=np.ones(32)), "one strength"),
        (lambda: build(vb.models.MontbrioPazoRoxin(), local=DIFFUSION, integrator=vb.Split(0.1)), "factor of 0"),
        (lambda: build(vb.models.Generic2dOscillator(), local=DIFFUSION, integrator=vb.Split(0.1)), "factor of 0.02"),
        (lambda: build(local=F.LaplaceBeltrami(SPHERE, D=100.0), integrator=vb.Heun(0.2)), r"0\.1667 ms.*vb.Split"),
        (lambda: vb.Simulator(vb.models.Linear(), integrator=vb.Split(0.1)), "vb.Heun"),
        (
            lambda: vb.Simulator(vb.models.Linear(), integrator=vb.Heun(0.1), field=F.Field(SPHERE), nodes=7),
            "nodes out",
        ),
    ],
)
def test_what_does_not_fit_gets_a_sentence(make, remedy):
    with pytest.raises(ValueError, match=remedy):
        make()


def test_parts_of_the_wrong_kind_are_type_errors():
    for make, remedy in (
        (lambda: F.Field(32), "vb.fields.Sphere"),
        (lambda: F.Field(SPHERE, np.eye(32)), "vb.fields.LaplaceBeltrami"),
        (lambda: F.Field(SPHERE, rate=2.0), "function of activity"),
        (lambda: vb.Simulator(vb.models.Linear(), integrator=vb.Heun(0.1), field=SPHERE), "field"),
    ):
        with pytest.raises(TypeError, match=remedy):
            make()


def test_regions_of_another_order_are_seen():
    net = vb.Connectome(np.ones((2, 2)), labels=("left", "right"))
    regions = F.RegionMap(np.arange(32) % 2, labels=("right", "left"))
    with pytest.raises(ValueError, match="as the connectome does"):
        build(net=net, regions=regions)


def test_a_step_at_the_bound_of_stability_is_taken():
    fastest = 100.0 * 12 / 100.0  # D lmax (lmax + 1) / R^2
    build(local=F.LaplaceBeltrami(SPHERE, D=100.0), integrator=vb.Heun(2.0 / fastest))
    # a model that takes less of the local term bears longer steps
    build(vb.models.Generic2dOscillator(), local=F.LaplaceBeltrami(SPHERE, D=100.0), integrator=vb.Heun(2.0))


def test_a_recording_that_memory_does_not_hold_is_refused():
    sim = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(0.01), field=F.Field(F.Sphere(31)))
    with pytest.raises(ValueError, match=r"monitor 'raw' holds 2,000,000,000 samples x 2,048 values = 33 TB.*at="):
        vb.simulate(sim, t1=2e7, key=None)
