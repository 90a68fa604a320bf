"""Neural posterior estimation: `vb.NPE` against the sbi package with its default networks and training, same draws.

Two problems with uniform priors, x = f(theta) + 0.3 noise: `tanh` (3 parameters, 20 features that saturate) and `mixed`
(8 parameters, 40 features, saturating and even ones, so that signs are hard to tell). Held-out log q is the mean over
2,000 fresh pairs; sbi's also divided by the share of its density inside the prior ("corrected", estimated for 1,000 of
the pairs from 200 draws each), as its networks know no bounds; ours has no mass outside. Training is timed on the
second fit of a process, so that compilation is apart ("first" has it); sbi does not compile.

    python benchmarks/peers_sbi.py --sizes 2000 5000 --seeds 5      (--sizes 20000 takes half an hour)
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from _timing import cpu_seconds, finish, header, host, pin, table, worker

HERE = str(Path(__file__).resolve())
FRESH, CORRECTED = 2_000, 1_000
BOX = {"tanh": (3, 2.0), "mixed": (8, 1.0)}
WANTED = {2_000: 3.0, 5_000: 8.0, 20_000: 8.0}


def simulate(problem: str, theta: Any, rng: Any) -> Any:
    """x `[n, F]` of theta `[n, D]`."""
    import numpy as np

    if problem == "tanh":
        fixed = np.random.default_rng(123)
        w, b = fixed.normal(size=(3, 20)), 0.5 * fixed.normal(size=20)
        mean = np.tanh(theta @ w + b)
    else:
        fixed = np.random.default_rng(321)
        w, v = 0.6 * fixed.normal(size=(8, 40)), 0.6 * fixed.normal(size=(8, 40))
        mean = np.tanh(theta @ w) + 0.5 * (theta @ v) ** 2 / (1.0 + (theta @ v) ** 2)
    return mean + 0.3 * rng.normal(size=mean.shape)


def draws(problem: str, n: int, seed: int) -> tuple[Any, ...]:
    """theta and x to train on, theta and x to judge by."""
    import numpy as np

    dim, edge = BOX[problem]
    out: list[Any] = []
    for rows, rng in ((n, np.random.default_rng(1_000 + seed)), (FRESH, np.random.default_rng(99))):
        theta = rng.uniform(-edge, edge, size=(rows, dim))
        out += [theta.astype(np.float32), simulate(problem, theta, rng).astype(np.float32)]
    return tuple(out)


def ours(problem: str, n: int, seed: int, density: str) -> dict[str, Any]:
    """Fit, log q, and the time of both and of 10,000 draws."""
    import jax
    import numpy as np
    import numpyro.distributions as dist

    import vbinfer as vb

    theta, x, fresh, x_fresh = draws(problem, n, seed)
    dim, edge = BOX[problem]
    prior = vb.Prior({"theta": dist.Uniform(-edge, edge).expand([dim])})
    data = vb.Draws.from_arrays({"theta": theta}, x)
    estimator = vb.NPE({"maf": vb.densities.MAF, "nsf": vb.densities.NSF}[density]())
    out: list[Any] = []
    first = cpu_seconds(lambda: estimator.fit(data, prior, key=jax.random.key(seed + 100)))
    took = cpu_seconds(lambda: out.append(estimator.fit(data, prior, key=jax.random.key(seed))))
    amortized, info = out[0]
    log_q = float(np.mean(amortized.log_prob({"theta": fresh}, x_fresh)))
    amortized.sample(x_fresh[0], n=10_000, key=jax.random.key(0))
    sample = cpu_seconds(lambda: amortized.sample(x_fresh[1], n=10_000, key=jax.random.key(1)))
    return {"log_q": log_q, "corrected": log_q, "fit": took, "first": first, "sample": sample, "epochs": len(info.val)}


def theirs(problem: str, n: int, seed: int, density: str) -> dict[str, Any]:
    """The same with sbi."""
    import contextlib
    import io

    import numpy as np
    import torch
    from sbi.inference import NPE_C
    from sbi.utils import BoxUniform

    from vbinfer.neural.sbi.quiet import NullTracker

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    theta, x, fresh, x_fresh = (torch.tensor(value) for value in draws(problem, n, seed))
    dim, edge = BOX[problem]
    prior = BoxUniform(torch.full((dim,), -edge), torch.full((dim,), edge))
    trainer = NPE_C(prior=prior, density_estimator=density, tracker=NullTracker(), show_progress_bars=False)
    out: list[Any] = []
    with contextlib.redirect_stdout(io.StringIO()):
        took = cpu_seconds(lambda: out.append(trainer.append_simulations(theta, x).train()))
    net = out[0].eval()
    posterior = trainer.build_posterior()
    with torch.no_grad():
        log_q = net.log_prob(fresh[None], condition=x_fresh)[0].numpy()
        parts = [net.sample(torch.Size((200,)), condition=part) for part in x_fresh[:CORRECTED].split(50)]
        inside = np.concatenate([(part.abs() <= edge).all(-1).float().mean(0).numpy() for part in parts])
        draw = lambda: posterior.sample((10_000,), x=x_fresh[1], show_progress_bars=False)  # noqa: E731
        draw()
        sample = cpu_seconds(draw)
    corrected = log_q.mean() - np.log(np.maximum(inside, 1e-3)).mean()
    epochs = len(trainer.summary["validation_loss"])
    return {
        "log_q": float(log_q.mean()),
        "corrected": float(corrected),
        "fit": took,
        "sample": sample,
        "epochs": epochs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 5_000])
    parser.add_argument("--problems", nargs="+", default=list(BOX), choices=list(BOX))
    parser.add_argument("--densities", nargs="+", default=["maf", "nsf"], choices=["maf", "nsf"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        pin(args.core)
        who, problem, n, seed, density = args.worker.split(",")
        print(json.dumps({"ours": ours, "theirs": theirs}[who](problem, int(n), int(seed), density)))
        return 0
    import numpy as np

    where, results, rows = host(), {}, []
    header("held-out log q (nats), CPU seconds of a fit and of 10,000 draws, one core", where)
    for problem in args.problems:
        for density in args.densities:
            for n in args.sizes:
                found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
                for seed in range(args.seeds):
                    for who in found:
                        name = f"{who},{problem},{n},{seed},{density}"
                        found[who].append(worker(sys.executable, HERE, name, args.core))
                results[f"{problem} {density} {n}"] = found
                of = {who: {k: np.array([run[k] for run in runs]) for k in runs[0]} for who, runs in found.items()}
                gain = of["ours"]["log_q"] - of["theirs"]["log_q"]
                more = of["ours"]["log_q"] - of["theirs"]["corrected"]
                error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
                ratio = {k: np.median(of["theirs"][k]) / np.median(of["ours"][k]) for k in ("fit", "sample")}
                rows.append(
                    (
                        f"{problem} {density} {n:,}",
                        f"{of['ours']['log_q'].mean():.3f}",
                        f"{of['theirs']['log_q'].mean():.3f}",
                        f"{gain.mean():+.3f} +- {error:.3f}",
                        f"{more.mean():+.3f}",
                        f"{np.median(of['ours']['fit']):.2f} ({np.median(of['ours']['first']):.1f})",
                        f"{np.median(of['theirs']['fit']):.1f}",
                        f"{ratio['fit']:.1f} of {WANTED.get(n, 8.0):g}",
                        f"{ratio['sample']:.0f}",
                    )
                )
                print("  ".join(rows[-1]), flush=True)
    columns = ("", "ours", "sbi", "ours - sbi", "- corrected", "fit s (first)", "sbi fit s", "fit ratio", "draw ratio")
    table(columns, rows)
    finish(args.json, where, {"runs": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
