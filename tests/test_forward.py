"""ForwardModel: a batch is its draws one by one, whatever is drawn and however it is shaped."""

import subprocess
import sys

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
        "import sys, vbinfer as vb; sys.path.insert(0, sys.argv[1])\n"
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
