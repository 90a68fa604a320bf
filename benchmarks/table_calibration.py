"""How often a calibration study says so: right posteriors, and posteriors that are wrong in one known way each.

    .venv/bin/python benchmarks/table_calibration.py
    .venv/bin/python benchmarks/table_calibration.py --repetitions 20 --held-out 100

Prints one Markdown row per posterior: shares of pass, warn and fail of `vb.calibrate` over seeded repetitions, each
with new truths, data and posterior draws, and CPU seconds per study. The problem is the linear-Gaussian one of
tests/calibration_sources.py: 5 correlated parameters, 10 correlated features.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

import jax

import vbinfer as vb

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import calibration_sources as problem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--only", nargs="*", default=list(problem.SOURCES))
    options = parser.parse_args()
    print("| posterior | pass | warn | fail | nothing learned | CPU s per study |\n|---|---|---|---|---|---|")
    for name in options.only:
        seen, nothing, began = collections.Counter(), 0, time.process_time()
        for seed in range(options.first, options.first + options.repetitions):
            draws = problem.make_draws(options.held_out, seed)
            key = jax.random.key(100_000 + seed)
            found = vb.calibrate(problem.SOURCES[name], draws, key=key, num_posterior_samples=options.draws)
            seen[found.verdict] += 1
            nothing += any("nothing learned:" in sentence for sentence in found.findings)
        seconds = (time.process_time() - began) / options.repetitions
        print(f"| {name} | {seen['pass']} | {seen['warn']} | {seen['fail']} | {nothing} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
