"""What the comparisons with other packages share: their environment, the network, timing, and the table of ratios."""

import subprocess
import venv
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _timing import cpu_seconds, finish, header, host, median, spread, table

PEERS = Path(__file__).resolve().parent.parent / ".venv-peers"
VBI = "vbi==0.4.4"
OTHERS = ("vbjax==0.0.19", "tvboptim==0.4.0", "tvb-library==2.10.0", "jaxley==0.14.0", "neuron==9.0.2", "arbor==0.12.2")
# what the numba models of vbi import, so that it can be installed without its torch
NEEDS = ("numba", "numpy", "scipy", "pandas", "scikit-learn", "tqdm", "rich", "matplotlib")
CALLS = 3

Case = tuple[Callable[[int], Any], float]
"""What to call with a number that differs from call to call (a seed), and the network steps that one call takes."""


def environment() -> Path:
    """The Python of `.venv-peers`, made on first use, with the jax that vbinfer has here."""
    python, ready = PEERS / "bin" / "python", PEERS / ".ready"
    needs = (*OTHERS, *NEEDS, f"jax=={version('jax')}")
    want = "\n".join((VBI, *needs))
    if not ready.exists() or ready.read_text() != want:
        print(f"making {PEERS} with {', '.join((VBI, *OTHERS))} (a minute or two)", flush=True)
        venv.create(PEERS, with_pip=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, *needs], check=True)
        subprocess.run(["env", "SKIP_CPP=1", *pip, "--no-deps", VBI], check=True)
        ready.write_text(want)
    return python


def measure(cases: Mapping[str, Case]) -> dict[str, dict[str, float]]:
    """First call and network steps per second of each case in this process; the calls of the cases take turns.

    Time is CPU time of this process, which is pinned to one core: what others do on that core does not count.
    """
    first = {name: cpu_seconds(lambda run=run: run(0)) for name, (run, _) in cases.items()}
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(1, CALLS + 1):
        for name, (run, work) in cases.items():
            speeds[name].append(work / cpu_seconds(lambda run=run, i=i: run(i)))
    return {name: {"speed": median(speeds[name]), "first": first[name]} for name in cases}


def compare(
    about: str, runs: Mapping[str, Sequence[Any]], targets: Mapping[tuple[str, str], float | None], path: str | None
) -> None:
    """Print the speed of every case, then ratios of two cases with what is wanted of them; write both to `path`.

    Args:
        about: what was measured.
        runs: worker name to what it returned, repeat by repeat: case name to speed and first call.
        targets: (numerator, denominator) to the ratio wanted, or None where it is only told.
        path: JSON file, or None.
    """
    where = host()
    header(about, where)
    results: dict[str, dict[str, list[float]]] = {}
    for values in runs.values():
        for case in values[0]:
            results[case] = {
                "steps_per_second": [value[case]["speed"] for value in values],
                "first_call": [value[case]["first"] for value in values],
            }
    rows = [
        (
            case,
            f"{median(r['steps_per_second']) / 1e3:,.1f}",
            spread(r["steps_per_second"], 1e3),
            f"{median(r['first_call']):.1f}",
        )
        for case, r in results.items()
    ]
    table(("", "k steps/CPU s", "range", "first call CPU s"), rows)
    ratios = {}
    for (over, under), wanted in targets.items():
        pairs = zip(results[over]["steps_per_second"], results[under]["steps_per_second"], strict=True)
        ratios[f"{over} / {under}"] = {"ratios": [a / b for a, b in pairs], "wanted": wanted}
    print()
    table(
        ("", "ratio", "range", "wanted"),
        [
            (n, f"{median(r['ratios']):.2f}", spread(r["ratios"]), "-" if r["wanted"] is None else f"{r['wanted']:g}")
            for n, r in ratios.items()
        ],
    )
    finish(path, where, {"about": about, "results": results, "ratios": ratios})
