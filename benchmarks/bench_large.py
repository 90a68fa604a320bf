"""Large runs: time, peak memory and what the store costs.

100,000 draws of a three-parameter toy and 10,000 of Montbrió-Pazó-Roxin on 84 regions (Heun, dt = 0.1 ms, noise, 200 ms
after a transient of 100 ms, temporal average every 5 ms, functional connectivity), each by one call into a store: wall
seconds of the whole process, packages and compilation included, and its peak resident set. The cost of the store is
that of the CPU seconds of the same process with and without one, where a shard takes a second or more.
"""

import json
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from _timing import finish, header, host, interleaved, median, options, peak, spread, table, weights, worker

HERE = str(Path(__file__).resolve())
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TOY, NETWORK, SHARDS, SHARD = 100_000, 10_000, 2_048, 256
SECONDS, MEGABYTES, OVERHEAD = 15.0, 2_000.0, 0.05


def toy() -> tuple[Any, Any]:
    """Noisy samples of a line whose noise is unknown: three parameters, five features."""
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist

    import vbinfer as vb

    prior = vb.Prior({"slope": dist.Normal(0.0, 1.0), "level": dist.Normal(0.0, 2.0), "sd": dist.Gamma(2.0, 1.0)})

    def simulator(theta: Any, key: Any) -> Any:
        return theta["slope"] * jnp.arange(5.0) + theta["level"] + theta["sd"] * jax.random.normal(key, (5,))

    return prior, simulator


def network() -> tuple[Any, Any]:
    """Montbrió-Pazó-Roxin on 84 regions."""
    import numpyro.distributions as dist

    import vbinfer as vb

    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(),
        vb.Connectome(weights(), 0.0 * weights()),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(sigma=0.01),
        monitors={"r": vb.monitors.TimeAverage(5.0, var="r")},
    )
    forward = vb.ForwardModel(sim, t1=300.0, transient=100.0, summary=vb.Summary(period=5.0, fc=vb.features.fc_stat))
    return vb.Prior({"coupling.G": dist.Uniform(0.1, 1.0), "model.eta": dist.Uniform(-6.0, -4.0)}), forward


def run(name: str) -> dict[str, Any]:
    """One call in this process; seconds from its very start."""
    import time

    begin = time.time()
    import vbinfer as vb

    vb.use_cores(CORES)
    import jax

    case, kept = name.split("-")
    n = {"toy": TOY, "network": NETWORK, "shards": SHARDS}[case]
    prior, simulator = toy() if case == "toy" else network()
    folder = tempfile.mkdtemp(prefix="vbinfer-large-") if kept == "store" else None
    before = time.process_time()
    size = SHARD if case == "shards" else None
    draws = vb.sample_prior_predictive(
        prior, simulator, n, key=jax.random.key(0), batch_size=size, store=folder, progress=False
    )
    cpu = time.process_time() - before
    out = {"seconds": time.time() - begin, "cpu": cpu, "peak": peak(), "failed": int((~draws.valid).sum())}
    if folder is not None:
        out["bytes"] = sum(path.stat().st_size for path in Path(folder).iterdir())
        shutil.rmtree(folder)
    return out


def main() -> int:
    args = options(__doc__, repeats=3)
    if args.worker:
        print(json.dumps(run(args.worker)))
        return 0
    where = host()
    header(f"{CORES} cores, {args.repeats} repeats (the network once)", where)
    start = partial(worker, sys.executable, HERE, core=args.core)
    results = interleaved({"toy-store": partial(start, name="toy-store")}, args.repeats)
    results |= interleaved({f"shards-{k}": partial(start, name=f"shards-{k}") for k in ("store", "none")}, args.repeats)
    results |= interleaved({"network-store": partial(start, name="network-store")}, 1)
    rows, wanted = [], {"toy-store": (f"{TOY:,} draws of the toy", SECONDS)}
    wanted["network-store"] = (f"{NETWORK:,} draws of MPR-84", float("inf"))
    for name, (words, limit) in wanted.items():
        took, peaks = ([one[key] for one in results[name]] for key in ("seconds", "peak"))
        limits = (f"{limit:g}", f"{MEGABYTES:,.0f}")
        rows.append((words, f"{median(took):.1f}", spread(took), limits[0], f"{median(peaks):,.0f}", limits[1]))
    table(("", "s", "range", "wanted", "peak MB", "wanted"), rows)
    costs = [a["cpu"] / b["cpu"] - 1.0 for a, b in zip(results["shards-store"], results["shards-none"], strict=True)]
    print(
        f"the store costs {100 * median(costs):+.1f} % (range {spread(costs, 0.01)}), wanted below {100 * OVERHEAD:g} %"
    )
    finish(args.json, where, {"runs": results, "costs": costs})
    bad = median([one["seconds"] for one in results["toy-store"]]) > SECONDS or median(costs) > OVERHEAD
    return int(bad or any(one["peak"] > MEGABYTES for runs in results.values() for one in runs))


if __name__ == "__main__":
    sys.exit(main())
