"""Flow matching of vbinfer, its default flow, and FMPE of the sbi package, on one benchmark task after the other.

    .venv/bin/python benchmarks/peers_flow_matching.py --tasks two_moons slcp --simulations 10000

The same draws for all three, in turn; C2ST against reference posteriors (0.5 is perfect), CPU seconds of training and
of sampling with everything that is compiled on the way. sbi's wheel: see `benchmarks/table_sbibm.py --download`.
"""

import argparse
import time
import warnings

import jax
import numpy as np

import vbinfer as vb
from vbinfer import tasks

TRAINING = vb.densities.Training(max_epochs=150, learning_rate=1e-2)
ESTIMATORS = {
    "FlowMatching": lambda: vb.NPE(vb.densities.FlowMatching(), ensemble=1, training=TRAINING),
    "NSF": lambda: vb.NPE(vb.densities.NSF(layers=5)),
    "sbi FMPE": lambda: vb.neural.SbiEstimator("FMPE"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["two_moons", "slcp"], choices=tasks.published.PUBLISHED)
    parser.add_argument("--estimators", nargs="+", default=list(ESTIMATORS), choices=list(ESTIMATORS))
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2_000)
    options = parser.parse_args()
    print(f"{options.simulations} simulations, {options.observations} observations, {options.draws} draws each\n")
    print("| task | estimator | C2ST, mean (sd) | training, CPU s | sampling, CPU s |")
    print("|---|---|---|---|---|")
    for name in options.tasks:
        task = getattr(tasks, name)()
        key = jax.random.key(0)
        pairs = vb.sample_prior_predictive(task.prior, task.simulator, n=options.simulations, key=key, progress=False)
        for label in options.estimators:
            began = time.process_time()
            fitted, _ = ESTIMATORS[label]().fit(pairs, task.prior, key=jax.random.key(1))
            trained, spent, scores = time.process_time(), 0.0, []
            for i in range(1, options.observations + 1):
                known, start = tasks.reference(name, i), time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # an x_o in the tails: the score tells
                    posterior = fitted.sample(known.x_o.astype(np.float32), n=options.draws, key=jax.random.key(i))
                spent += time.process_time() - start
                rows = (known.posterior.ravel()[: options.draws], posterior.ravel()[: options.draws])
                scores.append(vb.diagnostics.c2st(*rows))
            sd = np.std(scores, ddof=1) if len(scores) > 1 else float("nan")
            cost = f"{trained - began:.0f} | {spent:.1f}"
            print(f"| {name} | {label} | {np.mean(scores):.3f} ({sd:.3f}) | {cost} |", flush=True)


if __name__ == "__main__":
    main()
