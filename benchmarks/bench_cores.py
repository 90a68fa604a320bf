"""What all cores give: draws per second of one process on all of them, against a process per core.

1,024 prior-predictive draws of reduced Wong-Wang on the bundled HCP connectome (Heun, dt = 1 ms, noise, BOLD; 7.2 s)
with `sample_prior_predictive`: in one process with `vb.use_cores(n)`, in one process whose `Local(workers=n)` starts
others, and in n separate one-core processes, each pinned to a core of its own, that share the draws and start together.
The last is what the machine can give: nothing is shared but memory. Every repeat is a new process of each, in turn, and
what is timed comes after a first run of the same that compiles.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _timing import finish, header, host, interleaved, median, options, pin, seconds, spread, table, worker

HERE = str(Path(__file__).resolve())
BATCH, DRAWS, STEPS = 64, 1_024, 7_200
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
APART, DEVICES, WORKERS = f"{CORES} pinned processes", f"use_cores({CORES})", f"Local(workers={CORES})"
WANTED = {DEVICES: 0.75, WORKERS: 0.9}


def sampler(executor: Any) -> Any:
    """A function of a number of draws that makes them and returns nothing."""
    import jax
    import numpyro.distributions as dist

    import vbinfer as vb

    sim = vb.Simulator(
        vb.models.ReducedWongWang(w=0.6, I_o=0.33),
        vb.load_connectome("hcp-aal2"),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=1.0),
        noise=vb.noise.Additive(sigma=0.01),
        monitors={"bold": vb.monitors.BalloonWindkessel("S", period=720.0)},
    )
    forward = vb.ForwardModel(sim, t1=float(STEPS), summary=vb.Summary(period=720.0, fc=vb.features.fc_stat))
    prior = vb.Prior({"coupling.G": dist.Uniform(0.0, 0.5)})

    def draw(n: int) -> None:
        draws = vb.sample_prior_predictive(
            prior, forward, n=n, key=jax.random.key(0), executor=executor, batch_size=BATCH, progress=False
        )
        assert draws.valid.all(), "a draw failed"

    return draw


def together(kind: str) -> float:
    """Draws per second of one process."""
    import vbinfer as vb

    if kind == "devices":
        vb.use_cores(CORES)
    draw = sampler(vb.Local(workers=CORES) if kind == "workers" else vb.Local())
    draw(2 * CORES * BATCH)
    return DRAWS / seconds(partial(draw, DRAWS))


def share() -> None:
    """One of the separate processes: says when it is ready, waits for a line, then says how long its draws took."""
    import vbinfer as vb

    draw = sampler(vb.Local())
    draw(2 * BATCH)
    print("ready", flush=True)
    sys.stdin.readline()
    print(seconds(partial(draw, DRAWS // CORES)))


def apart() -> float:
    """Draws per second of one pinned process per core, from their common start to the end of the last."""
    commands = [[sys.executable, HERE, "--worker", "share", "--core", str(core)] for core in _cores()]
    processes = [subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("a process did not start")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    took = [float(process.communicate()[0]) for process in processes]
    return DRAWS // CORES * CORES / max(took)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(CORES))


def main() -> None:
    args = options(__doc__, repeats=3)
    if args.worker == "share":
        pin(args.core)
        share()
        return
    if args.worker:
        print(json.dumps(together(args.worker)))
        return
    import dataclasses

    import vbinfer as vb

    where = host()
    header(f"{DRAWS} draws, {CORES} cores, {args.repeats} interleaved repeats", where)
    start = partial(worker, sys.executable, HERE, core=0)
    cases = {APART: apart, DEVICES: partial(start, name="devices")}
    if "workers" in {field.name for field in dataclasses.fields(vb.Local)}:
        cases[WORKERS] = partial(start, name="workers")
    speed = interleaved(cases, args.repeats)
    ratios = {name: [a / b for a, b in zip(speed[name], speed[APART], strict=True)] for name in speed}
    rows = []
    for name, values in speed.items():
        wanted = f"{WANTED[name]:g}" if name in WANTED else "-"
        rows.append(
            (name, f"{median(values):.1f}", spread(values), f"{median(ratios[name]):.2f}", spread(ratios[name]), wanted)
        )
    table(("", "draws/s", "range", f"over {APART}", "range", "wanted"), rows)
    finish(args.json, where, {"draws_per_second": speed, "ratios": ratios, "wanted": WANTED})


if __name__ == "__main__":
    main()
