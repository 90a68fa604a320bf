"""Brunel's network on one core: vbinfer, and Brian2 in C++.

g = 5, eta = 2, LIF neurons, steps of 0.1 ms, spikes under way for 1.5 ms, Poisson trains from outside. 12,500 neurons
with 1,250 senders each for a second; and draws of 1,250 neurons with 125 senders each: vbinfer 64 together, each with a
graph of its own, Brian2 one after the other (standalone, compiled once: only the run is timed).

    .venv/bin/python benchmarks/peers_brunel.py        (makes .venv-brian on first use; needs a C++ compiler)

CPU time of processes pinned to the same core, without compilation and without making the graph; the rates are compared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table, worker

HERE, BRIAN = str(Path(__file__).resolve()), Path(__file__).resolve().parent.parent / ".venv-brian"
G, ETA, DELAY, DT, DRAWS = 5.0, 2.0, 1.5, 0.1, 64
SIZES = {"large": (12_500, 0.1, 1_000.0), "draws": (1_250, 0.5, 300.0)}
"""Neurons, mV of a synapse, ms."""


def environment() -> Path:
    """The Python that has Brian2, made on first use."""
    python = Path(os.environ.get("BRIAN_PYTHON", BRIAN / "bin" / "python"))
    if not python.exists():
        print(f"making {BRIAN}", flush=True)
        venv.create(BRIAN, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-qq", "brian2==2.9.0", "numpy<2", "scipy<1.14", "setuptools<80"]
        )
    return python


def vbinfer(name: str) -> dict[str, float]:
    """CPU seconds per draw and simulated second, and the rate."""
    import jax
    import numpy as np

    import vbinfer as vb

    n, J, ms = SIZES[name]
    exc, keys = 4 * n // 5, jax.random.split(jax.random.key(0))
    own = {"p": 0.1, "key": None}
    listed = [{"in_degree": exc // 10, "key": keys[0]}, {"in_degree": n // 50, "key": keys[1]}]
    wiring = listed if name == "large" else [own, own]
    sim = vb.Simulator(
        vb.spiking.LIF(tau=20.0, v_th=20.0, v_reset=10.0, t_ref=2.0, interpolate=False),
        {
            "exc": vb.Connectome.random(n, sources=range(exc), delay=DELAY, **wiring[0]),
            "inh": vb.Connectome.random(n, sources=range(exc, n), delay=DELAY, **wiring[1]),
        },
        coupling={"exc": vb.coupling.Linear(G=J), "inh": vb.coupling.Linear(G=-G * J)},
        delays=vb.Delays(),
        integrator=vb.Native(DT),
        noise=vb.noise.Poisson(rate=ETA * 20.0 / (J * 20.0), weight=J),
        monitors={"rate": vb.monitors.TimeAverage(period=ms, var="z")},
    )
    if name == "large":
        run = lambda: np.asarray(vb.simulate(sim, t1=ms, key=jax.random.key(1)).ys["rate"])  # noqa: E731
    else:
        forward = vb.ForwardModel(sim, t1=ms, summary=lambda y: y.mean(axis=1))
        theta, keys = {"coupling.exc.G": np.full(DRAWS, J)}, jax.random.split(jax.random.key(1), DRAWS)
        run = lambda: np.asarray(forward.batch(theta, keys))  # noqa: E731
    run()
    found: list[float] = []
    took = cpu_seconds(lambda: found.append(float(run().mean()) / DT * 1e3))
    return {"seconds": took / (1 if name == "large" else DRAWS) / ms * 1e3, "rate": found[0]}


def brian(name: str) -> dict[str, float]:
    """The same of one run."""
    import resource

    import brian2 as b  # type: ignore[import-not-found]

    n, J, ms = SIZES[name]
    exc = 4 * n // 5
    b.set_device("cpp_standalone", directory=tempfile.mkdtemp(), build_on_run=False)
    b.prefs.devices.cpp_standalone.openmp_threads = 0
    b.defaultclock.dt = DT * b.ms
    cells = b.NeuronGroup(
        n, "dv/dt = -v / (20*ms) : volt (unless refractory)", threshold="v >= 20*mV", reset="v = 10*mV",
        refractory=2 * b.ms, method="exact",
    )  # fmt: skip
    cells.v = "rand() * 20 * mV"
    drive = b.PoissonInput(cells, "v", 1_000, ETA * 20.0 / (J * 20.0) * b.Hz, J * b.mV)
    parts = []
    for source, strength in ((cells[:exc], J), (cells[exc:], -G * J)):
        synapses = b.Synapses(source, cells, on_pre=f"v += {strength} * mV", delay=DELAY * b.ms)
        synapses.connect(p=0.1)
        parts.append(synapses)
    count = b.SpikeMonitor(cells, record=False)
    network = b.Network(cells, drive, *parts, count)
    network.run(0 * b.ms)
    network.run(ms * b.ms)
    b.device.build(run=False)
    used = lambda: (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.perf_counter())  # noqa: E731
    before, wall = used()
    b.device.run(b.device.project_dir, with_output=False)
    after, end = used()
    # Brian2 gives the wall time of the run without connections; the share of it that was ours is that of the whole
    spent = b.device._last_run_time * (after - before) / (end - wall)
    return {"seconds": spent / ms * 1e3, "rate": float(count.num_spikes) / n / ms * 1e3}


def main() -> None:
    args = options(__doc__, repeats=2)
    if args.worker:
        pin(args.core)
        package, name = args.worker.split(":")
        print(json.dumps({"vbinfer": vbinfer, "brian2": brian}[package](name)))
        return
    where, results = host(), {}
    header(f"Brunel's network, one core, {args.repeats} interleaved repeats", where)
    for name, (n, _, ms) in SIZES.items():
        cases = {
            package: partial(worker, python, HERE, f"{package}:{name}", args.core)
            for package, python in (("vbinfer", sys.executable), ("brian2", environment()))
        }
        took = interleaved(cases, args.repeats)
        seconds = {k: [one["seconds"] for one in v] for k, v in took.items()}
        rows = [(k, f"{median(s):.2f}", spread(s), f"{took[k][0]['rate']:.1f}") for k, s in seconds.items()]
        table((f"{n:,} neurons, {ms:g} ms", "CPU s per simulated s", "range", "spikes/s"), rows)
        print(f"{median(seconds['brian2']) / median(seconds['vbinfer']):.2f} times as fast as Brian2\n", flush=True)
        results[name] = took
    finish(args.json, where, results)


if __name__ == "__main__":
    main()
