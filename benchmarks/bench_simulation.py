"""Speed of the simulator: network steps per second on one core, and what a second core adds.

A network step is one step of all regions of one draw. MPR-84 has dense random weights (Heun, dt = 0.01 tau),
ReducedWongWang-80 the bundled HCP connectome (Heun, dt = 1 ms); 64 draws run together, each with its own G and its own
noise. The cases take turns in one process pinned to one core; the first call, with compilation, is reported apart.
"""

import itertools
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _timing import finish, header, host, interleaved, median, options, pin, seconds, spread, table, worker

HERE = Path(__file__).resolve()
BATCH, DRAWS = 64, 512


def simulator(name: str, bold: bool, noise: bool) -> tuple[Any, float, int]:
    """A simulator of one of the two models, with the highest G of its draws and the steps to take."""
    import numpy as np

    import vbinfer as vb

    if name == "MPR-84":
        w = np.random.default_rng(0).random((84, 84))
        np.fill_diagonal(w, 0.0)
        w /= w.sum(axis=1).mean()
        model, network = vb.models.MontbrioPazoRoxin(J=14.5, eta=-4.6, Delta=0.7), vb.Connectome(w, np.zeros_like(w))
        dt, steps, var, sigma, G, period = 0.01, 4_000, "r", {"r": 0.27, "V": 0.38}, 0.8, 20.0
    else:
        model, network = vb.models.ReducedWongWang(w=0.6, I_o=0.33), vb.load_connectome("hcp-aal2")
        dt, steps, var, sigma, G, period = 1.0, 7_200, "S", 0.01, 0.5, 720.0
    monitor = vb.monitors.BalloonWindkessel(var, period) if bold else vb.monitors.Subsample(period, var)
    parts = {"coupling": vb.coupling.Linear(G=0.1), "integrator": vb.Heun(dt=dt), "monitors": {"y": monitor}}
    return vb.Simulator(model, network, noise=vb.noise.Additive(sigma) if noise else None, **parts), G, steps


def cases() -> dict[str, tuple[str, bool, bool]]:
    """Model, BOLD or not, noise or not, by name."""
    grid = itertools.product(("MPR-84", "ReducedWongWang-80"), (False, True), (True, False))
    return {f"{m}, {'BOLD' if b else 'no BOLD'}, {'noise' if n else 'no noise'}": (m, b, n) for m, b, n in grid}


def one_core(repeats: int) -> dict[str, Any]:
    """First call and network steps per second of every case in this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    keys = jax.random.split(jax.random.key(0), BATCH)
    calls, first, work = {}, {}, {}
    for name, case in cases().items():
        sim, G, steps = simulator(*case)
        forward = vb.ForwardModel(sim, t1=steps * sim.dt, summary=lambda y: y.mean(axis=0))
        theta = {"coupling.G": jnp.linspace(0.0, G, BATCH)}
        run = partial(lambda forward, theta: np.asarray(forward.batch(theta, keys)), forward, theta)
        first[name], work[name] = seconds(run), BATCH * steps
        assert np.isfinite(run()).all(), f"{name}: a draw failed"
        calls[name] = partial(seconds, run)
    took = interleaved(calls, repeats)
    return {n: {"first_call": first[n], "steps_per_second": [work[n] / s for s in took[n]]} for n in took}


def devices(n: int) -> float:
    """Seconds of 512 prior-predictive draws on `n` devices, after as many as compile it on each."""
    import jax
    import numpyro.distributions as dist

    import vbinfer as vb

    vb.use_cores(n)
    sim, G, steps = simulator("ReducedWongWang-80", True, True)
    forward = vb.ForwardModel(sim, t1=steps * sim.dt, summary=lambda y: y.mean(axis=0))
    prior = vb.Prior({"coupling.G": dist.Uniform(0.0, G)})
    draw = partial(vb.sample_prior_predictive, prior, forward, key=jax.random.key(0), executor=vb.Local())
    draw(n=2 * n * BATCH, progress=False)
    return float(draw(n=DRAWS, progress=False).info["seconds"])


def main() -> None:
    args = options(__doc__)
    if args.worker:
        kind, _, number = args.worker.partition(":")
        if kind != "free":
            pin(args.core)
        print(json.dumps(one_core(int(number)) if kind == "cases" else devices(int(number))))
        return
    where = host()
    header(f"{BATCH} draws together, one core, float32, {args.repeats} interleaved repeats", where)
    start = partial(worker, sys.executable, str(HERE), core=args.core)
    pinned = start(name=f"cases:{args.repeats}")
    rows = []
    for name, case in pinned.items():
        speed = case["steps_per_second"]
        rows.append((name, f"{median(speed) / 1e3:,.0f}", spread(speed, 1e3), f"{case['first_call']:.1f}"))
    table(("", "k steps/s", "range", "first call s"), rows)
    workers = {"1 device, 1 core": "pinned:1", "1 device, all cores": "free:1", "2 devices, all cores": "free:2"}
    took = interleaved({n: partial(start, name=w) for n, w in workers.items()}, args.repeats)
    print(f"\nsample_prior_predictive, {DRAWS} draws of ReducedWongWang-80 with BOLD, load {host()['load']}")
    *single_device, two = took.values()
    gains = {n: [a / b for a, b in zip(s, two, strict=True)] for n, s in zip(took, single_device, strict=False)}
    rows = [
        (n, f"{median(s):.2f}", spread(s), f"{median(gains[n]):.2f}" if n in gains else "") for n, s in took.items()
    ]
    table(("", "s", "range", "two devices are so many times faster"), rows)
    finish(args.json, where, {"one_core": pinned, "devices_seconds": took, "two_devices_faster": gains})


if __name__ == "__main__":
    main()
