"""Posterior of inhibition and drive of Brunel's network of 1,250 neurons: calibration, and what is learned of g.

    .venv/bin/python benchmarks/table_brunel.py --store runs/brunel      (--draws 768 --held-out 200 --delay)

Simulations are kept in the store, and a second call goes on from there. "Asynchronous" are held-out networks simulated
at (g, eta) = (5, 2).
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import vbinfer as vb


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/brunel"))
    parser.add_argument("--draws", type=int, default=768)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--delay", action="store_true", help="infer the delay, too")
    args = parser.parse_args()
    task, began = vb.tasks.brunel(delay=args.delay), time.process_time()
    train, held = (
        vb.sample_prior_predictive(
            task.prior, task.simulator, n=n, key=jax.random.key(seed), store=args.store / name, progress=False
        )
        for name, n, seed in (("train", args.draws, 1), ("held-out", args.held_out, 2))
    )
    simulated = time.process_time()
    amortized, info = vb.NPE().fit(train, task.prior, key=jax.random.key(3))
    calibration = vb.calibrate(amortized, held, key=jax.random.key(4))
    print(
        f"simulations {simulated - began:.0f} CPU s, training and calibration {time.process_time() - simulated:.0f} s"
    )
    print(f"{(~np.asarray(train.valid)).sum()} draws failed; {info.info_gain:.2f} nats over the prior")
    print(calibration.verdict, *calibration.findings, sep="\n  ")
    truth = jnp.tile(jnp.asarray([5.0, 2.0, 1.5][: 2 + args.delay]), (64, 1))
    x = task.simulator.batch({"theta": truth}, jax.random.split(jax.random.key(5), 64))
    found = [amortized.sample(x[i], n=1_000, key=jax.random.key(6)) for i in range(16)]
    learned = np.stack([np.asarray(vb.diagnostics.shrinkage(task.prior, p)["theta"]) for p in found])
    print("asynchronous: shrinkage, median and range of 16 networks")
    for name, column in zip(("g", "eta", "delay"), learned.T, strict=False):
        print(f"  {name}: {np.median(column):.2f} ({column.min():.2f} to {column.max():.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
