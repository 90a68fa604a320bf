"""Eight parameters of a spiking cell from seven features: is the neural posterior calibrated, and what is learned?

    taskset -c 0 .venv/bin/python benchmarks/table_hodgkin_huxley.py --store runs/hh      (--draws 10000 --held-out 300)

One core. Simulations are kept in the store, and a second call goes on from there.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np

import vbinfer as vb


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/hh"))
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--ensemble", type=int, default=1)
    args = parser.parse_args()
    task, clock = vb.tasks.hodgkin_huxley(), [time.process_time()]
    train, held = (
        vb.sample_prior_predictive(
            task.prior, task.simulator, n=n, key=jax.random.key(seed), store=args.store / name, progress=False
        )
        for name, n, seed in (("train", args.draws, 1), ("held-out", args.held_out, 2))
    )
    clock.append(time.process_time())
    amortized, info = vb.NPE(ensemble=args.ensemble).fit(train, task.prior, key=jax.random.key(3))
    clock.append(time.process_time())
    calibration = vb.calibrate(amortized, held, key=jax.random.key(4))
    clock.append(time.process_time())
    spent = dict(zip(("simulations", "training", "calibration"), np.diff(clock), strict=True))
    print(", ".join(f"{name} {seconds:.0f} CPU s" for name, seconds in spent.items()))
    print(f"{(~np.asarray(train.valid)).sum()} draws failed; {info.info_gain:.2f} nats over the prior")
    print(calibration.verdict, *calibration.findings, sep="\n  ")
    some = [amortized.sample(held.x[i], n=1_000, key=jax.random.key(5)) for i in range(32)]
    learned = np.stack([np.asarray(vb.diagnostics.shrinkage(task.prior, p)["theta"]) for p in some])
    print("shrinkage, median and range of 32 cells")
    for name, column in zip(vb.tasks.HH_NAMES, learned.T, strict=True):
        print(f"  {name}: {np.median(column):.2f} ({column.min():.2f} to {column.max():.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
