"""What Dask costs: draws per second of `vb.Dask(workers=n)`, over those of `vb.Local(workers=n)` and of `use_cores(n)`.

1,024 prior-predictive draws of reduced Wong-Wang on the bundled HCP connectome (Heun, dt = 1 ms, noise, BOLD), as in
`bench_cores.py` but four times as long, 28.8 s: an item, a batch of 64 draws, takes a second or more of one core. Every
repeat is a new process of each, in turn. The clock runs from the end of two batches per core, which compile, to that of
the last. CPU time per draw, of the workers alone, says what a busy machine hides.
"""

import json
import sys
from functools import partial
from pathlib import Path

from _timing import finish, header, host, interleaved, median, options, spread, table, worker
from bench_cores import CORES, DRAWS, WARM, Clocked, measure

HERE = str(Path(__file__).resolve())
DASK, WORKERS, DEVICES = f"Dask(workers={CORES})", f"Local(workers={CORES})", f"use_cores({CORES})"
WANTED, STEPS = 0.9, 28_800


def one(kind: str) -> dict[str, float]:
    """Seconds and CPU seconds per draw of one of the three, in a process of its own."""
    import vbinfer as vb

    if kind == "devices":
        vb.use_cores(CORES)
    inner = {
        "dask": lambda: vb.Dask(workers=CORES),
        "workers": lambda: vb.Local(workers=CORES),
        "devices": lambda: vb.Local(),
    }[kind]()
    return measure(Clocked(inner, WARM * CORES), DRAWS, STEPS)


def main() -> None:
    args = options(__doc__, repeats=3)
    if args.worker:
        print(json.dumps(one(args.worker)))
        return
    where = host()
    header(f"{DRAWS} draws, {CORES} cores, {args.repeats} interleaved repeats", where)
    start = partial(worker, sys.executable, HERE, core=0)
    names = {DASK: "dask", WORKERS: "workers", DEVICES: "devices"}
    measured = interleaved({label: partial(start, name=name) for label, name in names.items()}, args.repeats)
    speed = {name: [DRAWS / run["seconds"] for run in runs] for name, runs in measured.items()}
    ratios = {name: [a / b for a, b in zip(speed[DASK], speed[name], strict=True)] for name in speed}
    rows = []
    for name, values in speed.items():
        over = ("-", "-", "-") if name == DASK else (f"{median(ratios[name]):.2f}", spread(ratios[name]), f"{WANTED:g}")
        cpu = 1e3 * median([run["cpu"] for run in measured[name]])
        rows.append((name, f"{median(values):.1f}", spread(values), *over, f"{cpu:.2f}"))
    table(("", "draws/s", "range", "Dask over it", "range", "wanted", "CPU ms per draw"), rows)
    finish(args.json, where, {"draws_per_second": speed, "ratios": ratios, "wanted": WANTED, "runs": measured})


if __name__ == "__main__":
    main()
