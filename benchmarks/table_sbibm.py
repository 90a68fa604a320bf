"""vbinfer on the sbibm benchmark: C2ST against published reference posteriors, beside the published results.

    .venv/bin/python benchmarks/table_sbibm.py --download
    .venv/bin/python benchmarks/table_sbibm.py --tasks two_moons slcp --observations 3 --draws 2000

Prints one Markdown row per task and method: NPE and NLE from 10,000 prior simulations, trained once, asked about the
ten observations, 10,000 posterior draws each, C2ST in the benchmark's manner: 0.5 is perfect. Published means are those
of Lueckmann et al. 2021 (doi:10.48550/arXiv.2101.04653, results at https://github.com/sbi-benchmark/results).
"""

import argparse
import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

import vbinfer as vb
from vbinfer import tasks

PUBLISHED = {  # mean C2ST at 10,000 simulations: NPE, NLE
    "two_moons": (0.606, 0.713),
    "gaussian_linear": (0.552, 0.555),
    "gaussian_linear_uniform": (0.553, 0.548),
    "gaussian_mixture": (0.661, 0.731),
    "slcp": (0.901, 0.771),
    "bernoulli_glm": (0.678, 0.605),
}
SD = {"two_moons": 0.039, "slcp": 0.07}  # over observations, of the better method, where it is known
METHODS = ("NPE", "NLE")


def bar(task: str) -> float:
    """What to stay below: the better published mean, and its standard error over ten observations where known."""
    return min(PUBLISHED[task]) + SD.get(task, 0.0) / np.sqrt(10)


def estimator(task: str, method: str) -> Any:
    """The settings used. One network of splines for sharp posteriors of few parameters, an ensemble for many of them.

    SLCP's likelihood is a Gaussian whose moments depend on theta: a mixture density network with one component.
    """
    fast = vb.densities.Training(learning_rate=5e-3)
    if method == "NLE":
        return (
            vb.NLE(vb.densities.MDN(components=1), training=fast)
            if task == "slcp"
            else vb.NLE(vb.densities.MAF(), ensemble=5)
        )
    if task in ("gaussian_linear", "gaussian_linear_uniform", "bernoulli_glm"):
        return vb.NPE(vb.densities.MAF(), ensemble=5)
    return vb.NPE(vb.densities.NSF(layers=5), training=fast)


class Row(NamedTuple):
    """Result of one task and method."""

    c2st: np.ndarray
    """One per observation."""
    training: float
    """Seconds, wall time."""
    sampling: float
    """Seconds for all observations."""


def measure(task_name: str, method: str, *, observations: int = 10, draws: int = 10_000, simulations: int = 10_000,
            seed: int = 0, fitted_by: Any = None, wheel: str | None = None) -> Row:  # fmt: skip
    """Simulate, train once, sample each observation's posterior, and compare it with the reference."""
    task = getattr(tasks, task_name)()
    k_draws, k_fit, k_sample = jax.random.split(jax.random.key(seed), 3)
    pairs = vb.sample_prior_predictive(task.prior, task.simulator, n=simulations, key=k_draws, progress=False)
    started = time.perf_counter()
    fitted, _ = (fitted_by or estimator(task_name, method)).fit(pairs, task.prior, key=k_fit)
    trained, spent, scores = time.perf_counter(), 0.0, []
    for i in range(1, observations + 1):
        known = tasks.reference(task_name, i, wheel=wheel)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an x_o in the tails, divergences: the score tells
            posterior = fitted.sample(known.x_o.astype(np.float32), n=draws, key=jax.random.fold_in(k_sample, i))
        spent += time.perf_counter() - began
        rows = np.random.default_rng(i).permutation(posterior.ravel())[:draws]  # chains may round n up
        scores.append(vb.diagnostics.c2st(known.posterior.ravel()[:draws], rows))
    return Row(np.array(scores), trained - started, spent)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--download", action="store_true", help="fetch sbibm's wheel (18 MB) where it is missing")
    options = parser.parse_args()
    tasks.reference("two_moons", 1, download=options.download)
    print(f"{options.simulations} simulations, {options.observations} observations, {options.draws} draws each\n")
    print("| task | method | C2ST, mean (sd) | published NPE / NLE | bar | training s | sampling s |")
    print("|---|---|---|---|---|---|---|")
    for task in options.tasks:
        for method in options.methods:
            row = measure(task, method, observations=options.observations, draws=options.draws,
                          simulations=options.simulations, seed=options.seed)  # fmt: skip
            sd = row.c2st.std(ddof=1) if len(row.c2st) > 1 else float("nan")
            npe, nle = PUBLISHED[task]
            print(
                f"| {task} | {method} | {row.c2st.mean():.3f} ({sd:.3f}) | {npe:.3f} / {nle:.3f} | {bar(task):.3f} "
                f"| {row.training:.0f} | {row.sampling:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
