"""What the benchmarks share: one core, interleaved repeats, medians, a table, JSON, a network."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPEATS = 5


def options(doc: str | None, repeats: int = REPEATS) -> argparse.Namespace:
    """The options of every benchmark; `--worker` is how one starts itself again in a process of its own."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", metavar="FILE", help="write the results there as well")
    parser.add_argument("--repeats", type=int, default=repeats, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="the core to pin to (default: %(default)s)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def pin(core: int) -> str:
    """Keep this process on one core, before any library counts its threads; says what came of it."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned: this system cannot"
    os.sched_setaffinity(0, {core})
    return f"pinned to core {core}"


def peak() -> float:
    """Largest resident set of this process so far, MB."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def weights(n: int = 84) -> Any:
    """Dense random weights `[n, n]` without self-connections; a region receives 1 in total on average."""
    import numpy as np

    w = np.random.default_rng(0).random((n, n))
    np.fill_diagonal(w, 0.0)
    return w / w.sum(axis=1).mean()


def seconds(fn: Callable[[], Any]) -> float:
    """Wall seconds of one call; `fn` returns only when its work is done."""
    begin = time.perf_counter()
    fn()
    return time.perf_counter() - begin


def cpu_seconds(fn: Callable[[], Any]) -> float:
    """CPU seconds of one call, all threads of this process: on one core, wall seconds without those lent to others."""
    begin = time.process_time()
    fn()
    return time.process_time() - begin


def interleaved(cases: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """What each case returns, `repeats` times: a, b, c, a, b, c, ..., so that a busy spell of the machine hits all."""
    out: dict[str, list[Any]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            out[name].append(case())
    return out


def median(values: Sequence[float]) -> float:
    """The median as a plain float."""
    return float(statistics.median(values))


def spread(values: Sequence[float], unit: float = 1.0) -> str:
    """Lowest and highest, in the unit of the table."""
    low, high = min(values) / unit, max(values) / unit
    return "..".join(f"{value:,.0f}" if high >= 100.0 else f"{value:.2f}" for value in (low, high))


def worker(python: str | Path, script: str, name: str, core: int, env: Mapping[str, str] | None = None) -> Any:
    """Run a benchmark file as `--worker name` in a process of its own; its last line is its result in JSON."""
    command = [str(python), script, "--worker", name, "--core", str(core)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def host() -> dict[str, Any]:
    """Where and under which load this runs."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "load": load()}


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def header(about: str, where: Mapping[str, Any]) -> None:
    """Print what was measured and on what."""
    print(
        f"{about}\n{where['cpu']}, {where['cores']} cores, Python {where['python']}, load {where['load']}", flush=True
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their column names: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))
    sys.stdout.flush()


def finish(path: str | None, where: dict[str, Any], results: Mapping[str, Any]) -> None:
    """Print the load at the end and, if asked, write everything to `path`."""
    where["load_at_end"] = load()
    print(f"load at the end {where['load_at_end']}")
    if path:
        Path(path).write_text(json.dumps({"host": where, **results}, indent=1) + "\n", encoding="utf-8")
