"""Layers against norse, snnTorch and plain torch, live: the same weights give the same spikes and gradients.

`make test-parity` installs them beside the other packages.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
S = vb.spiking
T, BATCH, WIDTH = 120, 3, 7
RNG = np.random.default_rng(31)
X = RNG.uniform(0.0, 1.0, (T, BATCH, 4))
W, R = RNG.uniform(-0.2, 0.7, (WIDTH, 4)), RNG.normal(0.0, 0.3, (WIDTH, WIDTH))
UP = RNG.standard_normal((T, BATCH, WIDTH))


def synapse(weights):
    weights = jnp.asarray(weights)
    return eqx.tree_at(lambda s: s.weight, S.Linear(weights.shape[1], weights.shape[0], key=jax.random.key(0)), weights)


def ours(cell, recurrent=None, gain=1.0):
    """`cell()` makes the neuron. Spikes, and the gradient of a weighted sum of them by the input weights."""
    with jax.enable_x64(True):
        cell = cell()
        net = S.Network([S.Layer(synapse(gain * W), cell, None if recurrent is None else synapse(recurrent))])
        (_, z), slope = eqx.filter_value_and_grad(lambda net: (((z := net(X)[0]) * UP).sum(), z), has_aux=True)(net)
    return np.asarray(z), np.asarray(slope.layers[0].synapse.weight) * gain


def same(cell, spikes, weight, recurrent=None, gain=1.0, rtol=1e-9):
    """Of torch: `spikes [T, ...]`, made from `weight`."""
    z, slope = ours(cell, recurrent, gain)
    (spikes * torch.tensor(UP)).sum().backward()
    assert 0.03 < z.mean() < 0.6
    np.testing.assert_array_equal(z, spikes.detach().numpy())
    np.testing.assert_allclose(slope, weight.grad.numpy(), rtol=rtol, atol=rtol * np.abs(slope).max())


@pytest.fixture
def weight():
    return torch.tensor(W, requires_grad=True)


@pytest.mark.parametrize("recurrent", [False, True])
def test_norse(weight, recurrent):
    """Forward Euler at 1 ms: decays 0.9 and 0.8. To the precision of its parameters; its surrogate has k = 1."""
    lif = pytest.importorskip("norse.torch.functional.lif")
    one = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731
    p = lif.LIFParameters(one(200.0), one(100.0), one(0.0), one(1.0), one(0.0), "super", one(1.0))
    x, spikes = torch.tensor(1.5 * X), []
    z = v = i = torch.zeros(BATCH, WIDTH, dtype=torch.float64)
    for t in range(T):
        c = x[t] @ weight.T
        if recurrent:
            c = c + z @ torch.tensor(R).T
        z, (v, i) = lif.lif_feed_forward_step(c, lif.LIFFeedForwardState(v, i), p, 0.001)
        spikes.append(z)
    cell = lambda: S.CubaLIF(  # noqa: E731
        tau=-1.0 / np.log(0.9), tau_s=-1.0 / np.log(0.8), surrogate=S.surrogates.SuperSpike(1.0)
    )
    same(cell, torch.stack(spikes), weight, R if recurrent else None, gain=1.5, rtol=1e-6)


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
def test_snntorch(weight, mechanism):
    """Its resets are held constant; that by subtraction comes after the leak of the next step."""
    snn = pytest.importorskip("snntorch")
    leaky = snn.Leaky(beta=0.85, reset_mechanism=mechanism, spike_grad=snn.surrogate.fast_sigmoid(slope=5.0)).double()
    mem, spikes = leaky.init_leaky(), []
    for t in range(T):
        z, mem = leaky(torch.tensor(X[t]) @ weight.T, mem)
        spikes.append(z)
    reset = {"subtract": S.resets.Subtract(late=True, held=True), "zero": S.resets.ToValue(held=True)}[mechanism]
    cell = lambda: S.LIF(  # noqa: E731
        tau=-1.0 / np.log(float(leaky.beta)), surrogate=S.surrogates.FastSigmoid(5.0), resets=reset
    )
    same(cell, torch.stack(spikes), weight, rtol=1e-6)  # its slope and beta are float32


def test_adaptive_neurons_in_plain_torch(weight):
    """Recurrent, adaptive, in float64: the twin of the digits."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx, up):
            return up / (1.0 + 4.0 * ctx.saved_tensors[0].abs()) ** 2

    v = a = z = torch.zeros(BATCH, WIDTH, dtype=torch.float64)
    spikes = []
    for t in range(T):
        v = np.exp(-1.0 / 10.0) * v + torch.tensor(X[t]) @ weight.T + z @ torch.tensor(R).T
        z = Spike.apply(v - (1.0 + 0.4 * a))
        v, a = v - z * v, np.exp(-1.0 / 30.0) * a + z
        spikes.append(z)
    cell = lambda: S.ALIF(tau=10.0, tau_a=30.0, beta=0.4, surrogate=S.surrogates.SuperSpike(4.0))  # noqa: E731
    same(cell, torch.stack(spikes), weight, R)
