"""What all cores give: draws per second of one process on all of them, against a process per core.

1,024 prior-predictive draws of reduced Wong-Wang on the bundled HCP connectome (Heun, dt = 1 ms, noise, BOLD; 7.2 s)
with `sample_prior_predictive`: in one process with `vb.use_cores(n)`, in one process whose `Local(workers=n)` starts
others, and in n separate one-core processes, each pinned to a core of its own, that share the draws and start together.
The last is what the machine can give: nothing is shared but memory. Every repeat is a new process of each, in turn. The
clock runs from the end of two batches per core, which compile, to the end of the last. CPU time per draw says what a
busy machine hides: what sharing costs beyond waiting for a core.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from _timing import finish, header, host, interleaved, median, options, pin, spread, table, worker

HERE = str(Path(__file__).resolve())
WIDTH, DRAWS, STEPS, WARM = 64, 1_024, 7_200, 2
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
APART, DEVICES, WORKERS = f"{CORES} pinned processes", f"use_cores({CORES})", f"Local(workers={CORES})"
WANTED = {DEVICES: 0.75, WORKERS: 0.9}


class Clocked:
    """An executor that times another one: seconds and CPU seconds from its `warm`-th result to its last."""

    def __init__(self, inner: Any, warm: int, begin: Callable[[], None] = lambda: None) -> None:
        self._inner, self._warm, self._begin = inner, warm, begin
        self.seconds = self.cpu = 0.0

    def as_completed(
        self, fn: Callable[[Any, Any], Any], items: Iterable[Any]
    ) -> Generator[tuple[Any, Any], None, None]:
        """Items and their results."""
        used: dict[int, list[float]] = {}
        started = 0.0
        for done, (item, found) in enumerate(self._inner.as_completed(clocked(fn), items), start=1):
            result, process, cpu = found
            if done == self._warm:
                self._begin()
                started = time.perf_counter()
            if done >= self._warm:
                used.setdefault(process, []).append(cpu)
            self.seconds = time.perf_counter() - started
            yield item, result
        self.cpu = sum(times[-1] - times[0] for times in used.values()) / sum(len(t) - 1 for t in used.values())


def clocked(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], tuple[Any, int, float]]:
    """`fn`, which also says in which process it ran and the CPU seconds of that so far."""

    def run(item: Any, device: Any) -> tuple[Any, int, float]:
        return fn(item, device), os.getpid(), time.process_time()

    return run


def measure(executor: Clocked, n: int, steps: int = STEPS) -> dict[str, float]:
    """Seconds of `n` draws of so many steps, and CPU seconds per draw."""
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
    forward = vb.ForwardModel(sim, t1=float(steps), summary=vb.Summary(period=720.0, fc=vb.features.fc_stat))
    prior = vb.Prior({"coupling.G": dist.Uniform(0.0, 0.5)})
    draws = vb.sample_prior_predictive(
        prior, forward, n=n + executor._warm * WIDTH, key=jax.random.key(0), executor=executor, progress=False
    )
    assert draws.valid.all(), "a draw failed"
    return {"seconds": executor.seconds, "cpu": executor.cpu / WIDTH}


def together(kind: str) -> dict[str, float]:
    """One process on all cores."""
    import vbinfer as vb

    if kind == "devices":
        vb.use_cores(CORES)
    inner = vb.Local(workers=CORES) if kind == "workers" else vb.Local()
    return measure(Clocked(inner, WARM * CORES), DRAWS)


def share() -> dict[str, float]:
    """One of the separate processes: says when it has compiled and waits for a line before it goes on."""
    import vbinfer as vb

    def begin() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    return measure(Clocked(vb.Local(), WARM, begin), DRAWS // CORES)


def apart() -> dict[str, float]:
    """One pinned process per core, from their common start to the end of the last."""
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
    each = [json.loads(process.communicate()[0]) for process in processes]
    return {"seconds": max(e["seconds"] for e in each), "cpu": sum(e["cpu"] for e in each) / len(each)}


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(CORES))


def main() -> None:
    args = options(__doc__, repeats=3)
    if args.worker:
        if args.worker == "share":
            pin(args.core)
        print(json.dumps(share() if args.worker == "share" else together(args.worker)))
        return
    where = host()
    header(f"{DRAWS} draws, {CORES} cores, {args.repeats} interleaved repeats", where)
    start = partial(worker, sys.executable, HERE, core=0)
    cases = {APART: apart, DEVICES: partial(start, name="devices"), WORKERS: partial(start, name="workers")}
    measured = interleaved(cases, args.repeats)
    speed = {name: [DRAWS / one["seconds"] for one in runs] for name, runs in measured.items()}
    ratios = {name: [a / b for a, b in zip(speed[name], speed[APART], strict=True)] for name in speed}
    rows = []
    for name, values in speed.items():
        rates = (f"{median(values):.1f}", spread(values), f"{median(ratios[name]):.2f}", spread(ratios[name]))
        cpu = 1e3 * median([one["cpu"] for one in measured[name]])
        rows.append((name, *rates, f"{WANTED[name]:g}" if name in WANTED else "-", f"{cpu:.2f}"))
    table(("", "draws/s", "range", f"over {APART}", "range", "wanted", "CPU ms per draw"), rows)
    finish(args.json, where, {"draws_per_second": speed, "ratios": ratios, "wanted": WANTED, "runs": measured})


if __name__ == "__main__":
    main()
