"""Haemodynamic responses as filters: equal to their convolution integrals, to TVB's monitor, and exact at any step."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import vbinfer as vb
from vbinfer.monitors import HRF, DampedSinesKernel, DoubleGammaKernel, GammaKernel, TvbVolterraKernel, VolterraKernel

BOLD = np.load(Path(__file__).parent / "golden" / "bold.npz")
INPUTS = json.loads(str(BOLD["info"]))["inputs"]


def double(tree):
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), tree)


def response(kernel, u, seconds):
    """The response after each block of the piecewise constant input `u`, in float64 where that is on."""

    def one(state, u):
        state = kernel.advance(state, u, seconds)
        return state, kernel.output(state)

    u = jnp.asarray(u, jnp.result_type(float))
    return np.asarray(jax.lax.scan(one, kernel.init(u[0]), u)[1])


def blocks(inputs, seconds, h):
    u = np.zeros(round(seconds / h))
    for start, stop, value in inputs:
        u[round(start / h) : round(stop / h)] = value
    return u


@pytest.mark.parametrize("shape", ["boxcar", "random", "step"])
@pytest.mark.parametrize("x64", [False, True])
def test_the_volterra_filter_equals_the_convolution_of_the_reference(shape, x64):
    ts, expected = BOLD[f"{shape}__t"], BOLD[f"volterra__{shape}__conv_seconds"]
    with jax.enable_x64(x64):
        kernel = VolterraKernel()
        kernel = VolterraKernel(tau_s=0.8, tau_f=0.4, k1=5.6, V0=0.02) if x64 else kernel
        y = response(kernel, blocks(INPUTS[shape], ts[-1], 0.01), 0.01)
    y = np.concatenate([[0.0], y])[np.round(ts * 100).astype(int)] / (5.6 * 0.02)
    assert np.abs(y - expected).max() < (1e-9 if x64 else 2e-5) * np.abs(expected).max()


def test_the_volterra_kernel_is_that_of_the_reference():
    t = BOLD["volterra__kernel_t"]
    np.testing.assert_allclose(VolterraKernel()(jnp.asarray(t)) / (5.6 * 0.02), BOLD["volterra__kernel"], atol=1e-6)


@pytest.mark.parametrize("x64", [False, True])
def test_tvb_monitor_is_reproduced(x64):
    """TVB ends its sum at 20 s: 4e-6 of the kernel's beginning is left out there, about 1e-6 of the signal."""
    at, expected = BOLD["volterra__random__tvb_monitor_t_ms"], BOLD["volterra__random__tvb_monitor_y"]
    with jax.enable_x64(x64):
        y = response(TvbVolterraKernel(), blocks(INPUTS["random"], at[-1] / 1e3, 0.004), 0.004)
    assert np.abs(y[np.round(at / 4).astype(int) - 1] - expected).max() < 1e-5 * np.ptp(expected)


def spm(t):
    return stats.gamma.pdf(t, 6) - stats.gamma.pdf(t, 16) / 6


def glover(t):
    return 2.0 * (stats.gamma.pdf(t, 6, scale=0.9) - 0.4 * stats.gamma.pdf(t, 13, scale=1.1))


def volterra(t):
    w = np.sqrt(1 / 0.3 - 1 / (4 * 0.7**2))
    return 3.0 * 0.5 * np.exp(-t / 1.4) * np.sin(w * t) / (3 * w)


def sines(t):
    return 0.2 * np.exp(-t / 6.0) * np.sin(0.2 * np.pi * t) - 0.1 * np.exp(-t / 7.4) * np.sin(0.24 * np.pi * t)


KERNELS = {
    "spm": (lambda: DoubleGammaKernel(), spm),
    "glover": (lambda: DoubleGammaKernel(6, 13, tau=0.9, undershoot_tau=1.1, ratio=0.4, amplitude=2.0), glover),
    "boynton": (lambda: GammaKernel(), lambda t: stats.gamma.pdf(t, 3, scale=1.08)),
    "exponential": (lambda: GammaKernel(shape=1, tau=2.0, amplitude=-0.7), lambda t: -0.7 * np.exp(-t / 2) / 2),
    "sines": (lambda: DampedSinesKernel(amp_1=0.2, tau_1=6.0, f_1=0.1), sines),
    "volterra": (lambda: VolterraKernel(tau_s=0.7, tau_f=0.3, k1=3.0, V0=0.5), volterra),
}


@pytest.mark.parametrize("name", KERNELS)
def test_filters_equal_their_convolution_by_quadrature(name):
    """Input 1.7 from 0 to 3 s and -0.4 from 3 to 5 s, in blocks of 0.25 s: constant within a block, so exact."""
    make, G = KERNELS[name]
    with jax.enable_x64(True):
        kernel = make()
        u = np.zeros(120)
        u[:12], u[12:20] = 1.7, -0.4
        y = response(kernel, u, 0.25)
        t = np.linspace(0.01, 40.0, 50)
        np.testing.assert_allclose(kernel(jnp.asarray(t)), G(t), atol=1e-12)
        assert float(kernel(jnp.asarray(-1.0))) == 0.0
    for k in (0, 7, 14, 30, 119):
        end = 0.25 * (k + 1)
        first = integrate.quad(G, max(end - 3.0, 0.0), end, epsabs=1e-12)[0]
        second = integrate.quad(G, max(end - 5.0, 0.0), max(end - 3.0, 0.0), epsabs=1e-12)[0]
        assert y[k] == pytest.approx(1.7 * first - 0.4 * second, abs=1e-10)


@pytest.mark.parametrize("name", KERNELS)
def test_a_filter_is_exact_at_any_step_and_at_rest_without_input(name):
    make, _ = KERNELS[name]
    u = np.repeat(np.random.default_rng(1).normal(size=12), 50) + 3.0
    fine, coarse = response(make(), u, 0.02), response(make(), u[::50], 1.0)
    np.testing.assert_allclose(fine[49::50], coarse, atol=2e-5 * np.abs(coarse).max())
    assert np.all(response(make(), np.zeros(100), 0.1) == 0.0)


DEFAULTS = {
    "DoubleGammaKernel()": spm,
    "DoubleGammaKernel(6, 13, ratio=0.4)": lambda t: stats.gamma.pdf(t, 6) - 0.4 * stats.gamma.pdf(t, 13),
    "GammaKernel()": lambda t: stats.gamma.pdf(t, 3, scale=1.08),
    "DampedSinesKernel()": lambda t: (
        0.1 * np.exp(-t / 7.22) * np.sin(0.06 * np.pi * t) - 0.1 * np.exp(-t / 7.4) * np.sin(0.24 * np.pi * t)
    ),
    "VolterraKernel()": lambda t: 5.6 * 0.02 * np.interp(t, BOLD["volterra__kernel_t"], BOLD["volterra__kernel"]),
}


def test_the_document_has_the_response_of_every_kernel():
    """Peak, its time, width and undershoot after an input of 1 for one second, from the closed forms."""
    text = (Path(__file__).parent.parent / "docs" / "bold.md").read_text().split("## Linear responses")[1]
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", text, flags=re.MULTILINE))
    assert rows.keys() == DEFAULTS.keys()
    for name, G in DEFAULTS.items():
        area = np.concatenate([[0.0], np.cumsum(G(np.arange(40_000) * 1e-3 + 5e-4)) * 1e-3])
        y = area - np.concatenate([np.zeros(1_000), area[:-1_000]])
        peak, at, width, under = (float(cell) for cell in rows[name].split("|"))
        assert y.max() == pytest.approx(peak, rel=1e-3)
        assert y.argmax() * 1e-3 == pytest.approx(at, abs=0.011)
        assert (y > y.max() / 2).sum() * 1e-3 == pytest.approx(width, abs=0.051)
        assert y.min() / y.max() == pytest.approx(under, abs=1e-3)


SHORT = {"spm": lambda: DoubleGammaKernel(2, 3), "glover": lambda: DoubleGammaKernel(3, 2, tau=0.9, amplitude=2.0)}


@pytest.mark.parametrize("name", KERNELS)
def test_every_constant_of_a_kernel_has_its_gradient(name):
    with jax.enable_x64(True):
        kernel = SHORT.get(name, KERNELS[name][0])()
        u = jnp.asarray(np.random.default_rng(2).normal(size=40))

        @jax.jit
        def loss(values):
            bound = vb.bind(kernel, values)
            out = jax.lax.scan(lambda s, u: ((s := bound.advance(s, u, 0.5)), bound.output(s)), bound.init(u[0]), u)[1]
            return jnp.sum(out**2)

        values = {path: leaf.value for path, leaf in vb.paths(kernel).items()}
        gradient = jax.grad(loss)(values)
        for path, value in values.items():
            up, down = (float(loss(values | {path: value + s})) for s in (1e-6, -1e-6))
            assert gradient[path] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-8), path
            assert gradient[path] != 0.0


def network(kernel, **kwargs):
    """Three driven nodes with noise and unequal means."""
    return vb.Simulator(
        vb.models.MontbrioPazoRoxin(eta=jnp.array([-5.0, -4.5, -4.0])),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(sigma=0.05),
        monitors={"raw": vb.monitors.Raw(var="r"), "bold": HRF("r", period=200.0, kernel=kernel, step=2.0)},
        **kwargs,
    )


def test_the_monitor_convolves_the_recorded_variable():
    """Float64 sum of the closed-form kernel over every recorded step; averaging over 2 ms costs less than 1e-4."""
    solution = vb.simulate(network(GammaKernel(tau=0.3)), t1=2_000.0, key=jax.random.key(3))
    raw = np.asarray(solution.ys["raw"], float)
    for k, y in enumerate(solution.ys["bold"], start=1):
        n = 2_000 * k
        weights = np.diff(stats.gamma.cdf(np.arange(n + 1) * 1e-4, 3, scale=0.3))
        np.testing.assert_allclose(y, weights[::-1] @ raw[:n], rtol=2e-4)


def test_a_run_in_two_pieces_is_the_run_in_one():
    """Cut inside a block of the filter and inside a repetition time, bit for bit."""
    sim, key = network(DoubleGammaKernel(3, 4, tau=0.2)), jax.random.key(4)
    whole = vb.simulate(sim, t1=1_000.0, key=key)
    first = vb.simulate(sim, t1=512.3, key=key)
    second = vb.simulate(sim, t1=487.7, key=key, init=first.final)
    assert float(jnp.abs(whole.ys["bold"]).min()) > 0
    np.testing.assert_array_equal(jnp.concatenate([first.ys["bold"], second.ys["bold"]]), whole.ys["bold"])


def test_a_batch_equals_its_draws_with_a_response_of_each_draw_and_node():
    """Three draws of three nodes: one constant drawn, one a map of nodes, one shared."""
    fwd = vb.ForwardModel(
        network(DoubleGammaKernel(2, 3, tau=[0.2, 0.3, 0.4])), t1=600.0, monitor="bold", summary=lambda y: y.ravel()
    )
    theta = {"monitors.bold.kernel.ratio": jnp.array([0.1, 0.3, 0.5]), "model.J": jnp.array([14.0, 15.0, 16.0])}
    theta["monitors.bold.kernel.undershoot_tau"] = 0.2 + 0.1 * jnp.arange(9.0).reshape(3, 3)
    keys = jax.random.split(jax.random.key(5), 3)
    x = fwd.batch(theta, keys)
    for b in range(3):
        one = fwd({name: value[b] for name, value in theta.items()}, keys[b])
        np.testing.assert_allclose(x[b], one, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GammaKernel(shape=-1), "shape=-1"),
        (lambda: DoubleGammaKernel(undershoot_shape=0), "undershoot_shape=0"),
        (lambda: VolterraKernel(tau_s=0.2, tau_f=0.4), "tau_f < 4 tau_s"),
        (lambda: response(TvbVolterraKernel(), np.zeros(3), 0.01), "blocks of 4 ms, not of 10 ms"),
        (lambda: GammaKernel(tau=0.0), "tau is 0 s"),
        (lambda: network(TvbVolterraKernel()), "blocks of 4 ms, not of 2 ms"),
        (lambda: HRF("r", 200.0, step=-3.0), "step of -3.0 ms"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
