"""vbinfer on the sbibm benchmark: C2ST against published reference posteriors, beside the published results.

    .venv/bin/python benchmarks/table_sbibm.py --download
    .venv/bin/python benchmarks/table_sbibm.py --tasks two_moons slcp --observations 3 --draws 2000
    .venv/bin/python benchmarks/table_sbibm.py --simulations 1000 10000 100000 --out build/sbibm.jsonl

Prints one Markdown row per number of simulations, task and method: NPE and NLE from prior simulations, trained once,
asked about the ten observations, 10,000 posterior draws each, C2ST in the benchmark's manner: 0.5 is perfect. Seconds
are CPU seconds, with what is compiled on the way. Published is the best mean of any method in Lueckmann et al. 2021
(doi:10.48550/arXiv.2101.04653, results at https://github.com/sbi-benchmark/results). With --out, rows that the file
holds are printed and not measured again. The distractors of slcp_distractors are
drawn here: sbibm's lie in a pickle.
"""

import argparse
import dataclasses
import itertools
import json
import time
import warnings
from pathlib import Path
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
BEST = {  # best mean C2ST of any method at 1,000, 10,000 and 100,000 simulations
    "two_moons": (0.643, 0.554, 0.530),
    "gaussian_mixture": (0.697, 0.583, 0.533),
    "gaussian_linear": (0.628, 0.536, 0.506),
    "gaussian_linear_uniform": (0.631, 0.527, 0.506),
    "bernoulli_glm": (0.634, 0.553, 0.522),
    "bernoulli_glm_raw": (0.870, 0.658, 0.552),
    "slcp": (0.921, 0.713, 0.578),
    "slcp_distractors": (0.978, 0.931, 0.766),
    "sir": (0.637, 0.561, 0.547),
    "lotka_volterra": (0.909, 0.738, 0.695),
}
BUDGETS = (1_000, 10_000, 100_000)
SD = {"two_moons": 0.039, "slcp": 0.07}  # over observations, of the better method, where it is known
METHODS = ("NPE", "NLE")
LOG = {"sir": np.log1p, "lotka_volterra": lambda x: np.log(np.maximum(x, 1e-10))}
"""Features over orders of magnitude are given to the networks as logarithms."""


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
    if task.startswith(("gaussian_linear", "bernoulli_glm")):
        return vb.NPE(vb.densities.MAF(), ensemble=5)
    return vb.NPE(vb.densities.NSF(layers=5), training=fast)


class Row(NamedTuple):
    """Result of one task and method."""

    c2st: np.ndarray
    """One per observation."""
    training: float
    """CPU seconds."""
    sampling: float
    """CPU seconds for all observations."""


def measure(task_name: str, method: str, *, observations: int = 10, draws: int = 10_000, simulations: int = 10_000,
            seed: int = 0, fitted_by: Any = None, wheel: str | None = None) -> Row:  # fmt: skip
    """Simulate, train once, sample each observation's posterior, and compare it with the reference."""
    task = getattr(tasks, task_name)()
    k_draws, k_fit, k_sample = jax.random.split(jax.random.key(seed), 3)
    pairs = vb.sample_prior_predictive(task.prior, task.simulator, n=simulations, key=k_draws, progress=False)
    seen = LOG.get(task_name, lambda x: x)
    pairs = dataclasses.replace(pairs, x=seen(pairs.x).astype(np.float32))
    started = time.process_time()
    fitted, _ = (fitted_by or estimator(task_name, method)).fit(pairs, task.prior, key=k_fit)
    trained, spent, scores = time.process_time(), 0.0, []
    for i in range(1, observations + 1):
        known = tasks.reference(task_name, i, wheel=wheel)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an x_o in the tails, divergences: the score tells
            posterior = fitted.sample(seen(known.x_o).astype(np.float32), n=draws, key=jax.random.fold_in(k_sample, i))
        spent += time.process_time() - began
        rows = np.random.default_rng(i).permutation(posterior.ravel())[:draws]  # chains may round n up
        scores.append(vb.diagnostics.c2st(known.posterior.ravel()[:draws], rows))
    return Row(np.array(scores), trained - started, spent)


def measured(out: Path | None, identity: dict[str, Any], **options: Any) -> Row:
    """A row, read from the file if it is there, else appended to it."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out is not None and out.exists() else []
    found = [line for line in lines if line["identity"] == identity]
    if found:
        return Row(np.array(found[-1]["c2st"]), found[-1]["training"], found[-1]["sampling"])
    row = measure(identity["task"], identity["method"], **options)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps({"identity": identity, **row._asdict(), "c2st": row.c2st.tolist()}) + "\n")
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(BEST), choices=list(BEST))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--simulations", nargs="+", type=int, default=[10_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file of finished rows, to go on from")
    parser.add_argument("--download", action="store_true", help="fetch sbibm's wheel (18 MB) where it is missing")
    options = parser.parse_args()
    tasks.reference("two_moons", 1, download=options.download)
    print(f"{options.observations} observations, {options.draws} draws each\n")
    print("| simulations | task | method | C2ST, mean (sd) | best of 2021 | training s | sampling s |")
    print("|---|---|---|---|---|---|---|")
    for n, task, method in itertools.product(options.simulations, options.tasks, options.methods):
        size = {"observations": options.observations, "draws": options.draws, "simulations": n, "seed": options.seed}
        row = measured(options.out, {"task": task, "method": method, **size}, **size)
        sd = row.c2st.std(ddof=1) if len(row.c2st) > 1 else float("nan")
        best = f"{BEST[task][BUDGETS.index(n)]:.3f}" if n in BUDGETS else ""
        spent = f"{row.training:.0f} | {row.sampling:.0f}"
        print(f"| {n:,} | {task} | {method} | {row.c2st.mean():.3f} ({sd:.3f}) | {best} | {spent} |", flush=True)


if __name__ == "__main__":
    main()
