"""Spikes delivered one by one against all connections; layers that learn against a loop of eager torch.

Networks: Brunel's of 1,250 neurons (100 and 25 senders for each), LIF neurons, steps of 0.1 ms, Poisson drive, at about
40 spikes per s. "all connections" is the same network with one lag a step longer, so that all are read at every step.
Layers: linear synapse and LIF neurons, loss and its gradient by the weights, over lengths, batches and widths; torch
runs the same recursion step by step, with the same surrogate, weights and inputs; norse and snnTorch, where they are
installed, their own LIF. Spikes and gradients are compared before anything is timed. Everything in one process, in
turn, pinned to one core; CPU time.
"""

import os
import sys
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table

TAU, K = 20.0, 10.0
WANTED = {(500, 16, 64): 10.0, (500, 16, 512): 3.0, (500, 16, 2048): 0.9, (100, 1, 64): None, (1000, 64, 64): None}
"""Steps, batch, width: how much faster than the fastest of the others."""
NEURONS, MS = 1_250, 100.0


def networks() -> dict[str, Any]:
    """Runs of the network by name, and spikes per s."""
    import dataclasses

    import jax
    import numpy as np

    import vbinfer as vb

    keys = jax.random.split(jax.random.key(0))
    edges = {
        "exc": vb.Connectome.random(NEURONS, in_degree=100, sources=range(1_000), delay=1.5, key=keys[0]),
        "inh": vb.Connectome.random(NEURONS, in_degree=25, sources=range(1_000, NEURONS), delay=1.5, key=keys[1]),
    }

    def later(connectome: Any) -> Any:
        lengths = np.asarray(connectome.tract_lengths).copy()
        lengths[0] += 0.1
        return dataclasses.replace(connectome, tract_lengths=lengths)

    def run(edges: Any) -> Any:
        sim = vb.Simulator(
            vb.spiking.LIF(tau=20.0, v_th=20.0, v_reset=10.0, t_ref=2.0, interpolate=False),
            edges,
            coupling={"exc": vb.coupling.Linear(G=0.5), "inh": vb.coupling.Linear(G=-3.0)},
            delays=vb.Delays(max=1.6),
            integrator=vb.Native(0.1),
            noise=vb.noise.Poisson(rate=4.0, weight=0.5),
            monitors={"z": vb.monitors.TimeAverage(period=MS, var="z")},
        )
        return lambda: jax.block_until_ready(vb.simulate(sim, t1=MS, key=jax.random.key(1)).ys["z"])

    runs = {"spike by spike": run(edges), "all connections": run({k: later(c) for k, c in edges.items()})}
    rates = [float(call().mean()) / 0.1 * 1e3 for call in runs.values()]
    assert abs(rates[0] / rates[1] - 1.0) < 0.2, rates
    print(f"{rates[0]:.1f} spikes per s and neuron")
    return runs


def layers(steps: int, batch: int, width: int) -> dict[str, Any]:
    """Loss and gradient in JAX and in torch, by name.

    In plain torch, and in norse and snnTorch where they are installed, whose losses are of recursions of their own.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    import vbinfer as vb
    from vbinfer.spiking import LIF, Layer, Linear, Network

    rng = np.random.default_rng(0)
    x = rng.random((steps, batch, width)).astype(np.float32)
    w = (rng.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
    synapse = eqx.tree_at(lambda s: s.weight, Linear(width, width, key=jax.random.key(0)), jnp.asarray(w))
    net = Network([Layer(synapse, LIF(tau=TAU, surrogate=vb.spiking.surrogates.SuperSpike(K)))])

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def ours(net: Any, x: Any) -> Any:
        return net(x)[0].mean()

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, up: Any) -> Any:
            return up / (1.0 + K * ctx.saved_tensors[0].abs()) ** 2

    torch.set_num_threads(1)
    a, weight, xs = float(np.exp(-1.0 / TAU)), torch.tensor(w, requires_grad=True), torch.tensor(x)

    def eager(start: Any, step: Any) -> Any:
        def run() -> Any:
            weight.grad = None
            c, state, total = xs @ weight.T, start, torch.zeros(())
            for t in range(steps):
                z, state = step(c[t], state)
                total = total + z.sum()
            loss = total / (steps * batch * width)
            loss.backward()
            return loss.detach().numpy(), weight.grad.numpy()

        return run

    def plain(c: Any, v: Any) -> Any:
        v = a * v + c
        z = Spike.apply(v - 1.0)
        return z, v - z * v

    theirs = eager(torch.zeros(batch, width), plain)
    x = jnp.asarray(x)
    value, slope = ours(net, x)
    loss, gradient = theirs()
    assert abs(float(value) / float(loss) - 1.0) < 1e-4, (value, loss)
    gap = np.abs(np.asarray(slope.layers[0].synapse.weight) - gradient).max() / np.abs(gradient).max()
    assert gap < 1e-2, gap  # float32: spikes at the threshold may fall either way
    runs = {"vbinfer": lambda: jax.block_until_ready(ours(net, x)), "torch, eager": theirs}
    return runs | {name: eager(*made) for name, made in packages(a, batch, width).items()}


def packages(a: float, batch: int, width: int) -> dict[str, Any]:
    """Start and step of the LIF of norse and of snnTorch, of those that are installed."""
    import torch

    made: dict[str, Any] = {}
    try:
        import snntorch  # type: ignore[import-not-found]

        leaky = snntorch.Leaky(beta=a, spike_grad=snntorch.surrogate.fast_sigmoid(slope=K))
        made["snnTorch"] = (torch.zeros(batch, width), leaky)
    except ImportError:
        pass
    try:
        import norse.torch.functional.lif as lif  # type: ignore[import-not-found]

        p = lif.LIFParameters(method="super", alpha=torch.tensor(K))
        zero = torch.zeros(batch, width)
        made["norse"] = (lif.LIFFeedForwardState(zero, zero), lambda c, s: lif.lif_feed_forward_step(c, s, p, 1e-3))
    except ImportError:
        pass
    return made


def main() -> int:
    args = options(__doc__, repeats=3)
    print(pin(args.core))
    where = host()
    header(f"spikes and layers, one core, {args.repeats} interleaved repeats", where)
    results, missed = {}, 0
    cases = {"Brunel, 1,250 neurons, 100 ms": (networks, None)}
    for (steps, batch, width), wanted in WANTED.items():
        cases[f"linear + LIF, T = {steps}, batch {batch}, width {width}"] = (
            partial(layers, steps, batch, width),
            wanted,
        )
    for name, (make, wanted) in cases.items():
        took = interleaved({k: partial(cpu_seconds, call) for k, call in make().items()}, args.repeats)
        first, *others = took
        table((name, "ms", "range"), [(k, f"{1e3 * median(v):.1f}", spread(v, 1e-3)) for k, v in took.items()])
        ratio = min(median(took[other]) for other in others) / median(took[first])
        print(f"{ratio:.1f} times as fast" + (f"; wanted {wanted:g}\n" if wanted else "\n"))
        results[name] = {"seconds": took, "ratio": ratio}
        missed += wanted is not None and ratio < wanted
    finish(args.json, where, results)
    return missed


if __name__ == "__main__":
    sys.exit(main())
