"""Gradients: what a checkpoint saves is memory and nothing else, and every mode of differentiation gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer._random import key_words
from vbinfer.noise import Generator

W = np.array([[0.0, 0.9, 0.1], [0.3, 0.0, 0.0], [0.5, 0.2, 0.0]])
L = np.array([[0.0, 2.36, 0.14], [1.06, 0.0, 0.0], [0.22, 3.06, 0.0]])
MPR = vb.models.MontbrioPazoRoxin


def brain(**parts):
    """Three unlike nodes with delays and noise, recorded as BOLD."""
    given = dict(
        coupling=vb.coupling.Linear(G=0.4),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive({"r": 0.02, "V": 0.1}),
        delays=vb.Delays(max=3.0, interpolate=True),
        stimulus=vb.stimuli.Pulse(onset=3.0, duration=8.0, amplitude=1.5, rise=2.0, gain=[0.0, 1.0, 0.5]),
        monitors={"bold": vb.monitors.BalloonWindkessel("r", period=1.2, step=0.3)},
    )
    return vb.Simulator(MPR(eta=[-5.0, -4.6, -4.0]), vb.Connectome(W, L, 2.0), **(given | parts))


def fc_loss(theta, sim, checkpoint=None, t1=61.3):
    """Squared distance of the BOLD correlations from a target; 613 steps, and as many samples as fit."""
    y = vb.simulate(vb.bind(sim, theta), t1=t1, key=jax.random.key(2), checkpoint=checkpoint).ys["bold"]
    return ((jnp.corrcoef(y.T) - jnp.asarray([[1.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 1.0]])) ** 2).sum()


def point():
    """Parameters of every part."""
    return {
        "coupling.G": jnp.asarray(0.4),
        "model.eta": jnp.asarray([-5.0, -4.6, -4.0]),
        "connectome.speed": jnp.asarray(2.0),
        "connectome.weights": jnp.asarray(W),
        "connectome.tract_lengths": jnp.asarray(L),
        "noise.sigma.V": jnp.asarray(0.1),
        "stimulus.onset": jnp.asarray(3.0),
        "monitors.bold.tau": jnp.asarray(0.98),
    }


@pytest.fixture(scope="module")
def plain():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        return jax.value_and_grad(fc_loss)(point(), brain())


@pytest.mark.parametrize("checkpoint", [True, (5, 7, 11)])
def test_a_checkpoint_changes_no_gradient(plain, checkpoint):
    """Lengths that divide neither the number of steps nor the periods."""
    with jax.enable_x64(True):
        value, slopes = jax.value_and_grad(fc_loss)(point(), brain(), checkpoint)
    assert float(value) == pytest.approx(float(plain[0]), rel=1e-12)
    for name, slope in slopes.items():
        scale = np.abs(plain[1][name]).max()
        assert scale > 1e-8, name
        np.testing.assert_allclose(slope, plain[1][name], rtol=1e-10, atol=1e-10 * scale, err_msg=name)


@pytest.mark.slow
def test_forward_mode_reverse_mode_and_finite_differences_agree(plain):
    """For each parameter along a direction of its own; connections and lengths that are zero stay zero."""
    rng, h = np.random.default_rng(0), 1e-3
    with jax.enable_x64(True):
        sim, theta = brain(), point()
        along = {k: rng.uniform(0.2, 1.0, v.shape) * np.asarray(v) for k, v in theta.items()}

        def loss(moves):
            return fc_loss({k: theta[k] + moves[k] * jnp.asarray(along[k]) for k in theta}, sim)

        everywhere = {k: jnp.ones(()) for k in theta}
        value_and_slope = jax.jit(lambda moves: jax.jvp(loss, (moves,), (everywhere,)))

        def at(name, by):
            return float(value_and_slope({k: jnp.asarray(by * (k == name)) for k in theta})[0])

        forward = float(value_and_slope({k: jnp.zeros(()) for k in theta})[1])
        numeric = {k: (at(k, h) - at(k, -h)) / (2 * h) for k in theta}
    reverse = {k: float((np.asarray(plain[1][k]) * along[k]).sum()) for k in along}
    assert forward == pytest.approx(sum(reverse.values()), rel=1e-9)
    assert numeric == pytest.approx(reverse, rel=5e-4)  # h^2, and rounding over h


def peak(steps, checkpoint):
    """Bytes of working memory of the gradient of a run."""
    rng = np.random.default_rng(0)
    sim = vb.Simulator(
        MPR(),
        vb.Connectome(rng.uniform(0.0, 0.1, (12, 12)), rng.uniform(1.0, 4.0, (12, 12)), 2.0),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(0.01),
        delays=vb.Delays(max=2.0, interpolate=True),
        monitors={"r": vb.monitors.Subsample(50.0, var="r")},
    )

    def loss(G):
        bound = vb.bind(sim, {"coupling.G": G})
        return (vb.simulate(bound, t1=0.1 * steps, key=jax.random.key(0), checkpoint=checkpoint).ys["r"] ** 2).sum()

    return jax.jit(jax.grad(loss)).lower(jnp.asarray(0.1)).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_of_the_backward_pass():
    """Four times the steps: about four times the memory without checkpoints, twice at most with one level of them."""
    short, long = 4_000, 16_000
    plain = [peak(n, None) for n in (short, long)]
    once = [peak(n, True) for n in (short, long)]
    nested = peak(long, (16, 10, 10, 10))
    assert 3.4 < plain[1] / plain[0] < 4.1
    assert 1.2 < once[1] / once[0] < 2.1
    assert plain[1] > 20 * once[1] > 30 * nested


def drawn_normals(sim, key, steps):
    """What the simulator draws with this key, by state variable `[T, N]`."""
    like = dict.fromkeys(sim.model.variables(), jnp.zeros(sim.n_nodes))
    generator = Generator(key_words(key), sim.noise.noisy(like), like)
    pairs = generator.draw(jnp.asarray(0, jnp.uint32), steps)
    return jax.vmap(generator.unpack)(pairs)


@pytest.mark.slow
def test_a_given_path_of_normals_is_the_run_that_draws_them():
    sim, key = brain(monitors={"raw": vb.monitors.Raw(), "mean": vb.monitors.TimeAverage(0.7)}), jax.random.key(4)
    path = drawn_normals(sim, key, 123)
    assert np.std(path["r"]) == pytest.approx(1.0, abs=0.1)
    own = vb.simulate(sim, t1=12.3, key=key).ys
    given = vb.simulate(sim, t1=12.3, key=None, noise_path=path).ys
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), own, given)
    first = vb.simulate(sim, t1=5.2, key=None, noise_path={k: v[:52] for k, v in path.items()})
    second = vb.simulate(sim, t1=7.1, key=None, noise_path={k: v[52:] for k, v in path.items()}, init=first.final)
    joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), first.ys, second.ys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), own, joined)


@pytest.mark.parametrize("checkpoint", [None, (100, 3)])
def test_gradient_with_respect_to_the_path_of_a_linear_network(checkpoint):
    """Heun on dx = J x dt + sigma dW: d x_i(T) / d z_k = [M^(T-1-k) (1 + dt J / 2)]_ij sigma_j sqrt(dt).

    M = 1 + dt J + dt^2 J^2 / 2.
    """
    gamma, sigma, G, dt, steps = np.array([-0.9, -1.2, -0.7]), np.array([0.3, 0.5, 0.2]), 0.6, 0.1, 17
    J = np.diag(gamma) + G * W
    M = np.eye(3) + dt * J + dt**2 * J @ J / 2
    powers = [np.linalg.matrix_power(M, steps - 1 - k) @ (np.eye(3) + dt * J / 2) for k in range(steps)]
    weights = np.array([1.0, -2.0, 0.5])
    expected = np.array([weights @ power * sigma * np.sqrt(dt) for power in powers])
    with jax.enable_x64(True):
        sim = vb.Simulator(
            vb.models.Linear(gamma=gamma),
            vb.Connectome(W, L),
            coupling=vb.coupling.Linear(G=G),
            integrator=vb.Heun(dt=dt),
            noise=vb.noise.Additive(sigma),
        )

        def end(z):
            y = vb.simulate(sim, t1=steps * dt, key=None, noise_path={"x": z}, checkpoint=checkpoint).ys["raw"]["x"]
            return (jnp.asarray(weights) * y[-1]).sum()

        z = jnp.asarray(np.random.default_rng(1).normal(size=(steps, 3)))
        value, slope = jax.value_and_grad(end)(z)
    np.testing.assert_allclose(slope, expected, rtol=1e-10)
    assert float(value) == pytest.approx((expected * np.asarray(z)).sum(), rel=1e-10)  # x(0) = 0


MISTAKES = [
    ({"checkpoint": (0, 3)}, ValueError, r"checkpoint=\(0, 3\)"),
    ({"checkpoint": ()}, ValueError, "nested lengths"),
    ({"noise_path": {"r": np.zeros((9, 3)), "V": np.zeros((10, 3))}}, ValueError, r"\[9, 3\]; expected \[10, 3\]"),
    ({"noise_path": {"r": np.zeros((10, 3))}}, ValueError, "lacks 'V'"),
    ({"noise_path": {"r": np.zeros((10, 3)), "v": np.zeros((10, 3))}}, ValueError, "names 'v'"),
    ({"noise_path": np.zeros((10, 3))}, TypeError, "a State or a mapping"),
]


@pytest.mark.parametrize(("options", "error", "message"), MISTAKES)
def test_mistakes(options, error, message):
    with pytest.raises(error, match=message):
        vb.simulate(brain(), t1=1.0, **({"key": jax.random.key(0)} | options))


def test_a_path_for_a_simulator_without_noise():
    with pytest.raises(ValueError, match="without noise"):
        vb.simulate(brain(noise=None), t1=1.0, key=None, noise_path={"r": np.zeros((10, 3))})
