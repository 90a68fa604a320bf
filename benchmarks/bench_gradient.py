"""Time and memory of the gradient of a functional-connectivity loss through 60,000 steps.

One simulation of reduced Wong-Wang on 84 regions with dense random weights, Heun with dt = 1 ms, noise: the mean square
difference of the functional connectivity of S, sampled every 100 ms, from a target, as a function of G and of the local
excitation w of every region. `simulate(..., checkpoint=True)` keeps states at a few moments only and takes the steps
between them again on the way back, so at best the gradient costs about two simulations more than one does.

Forward and gradient are processes of their own, in turn, pinned to the same core. Peaks of memory are the resident set
as the system counted it, the packages included, and what XLA set aside for the compiled function.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _timing import (
    finish,
    header,
    host,
    interleaved,
    median,
    options,
    peak,
    pin,
    seconds,
    spread,
    table,
    weights,
    worker,
)

HERE = str(Path(__file__).resolve())
N, DT, STEPS, SAMPLE, CALLS = 84, 1.0, 60_000, 100, 3
RATIO, LIMIT = 5.0, 1_000.0


def compiled(gradient: bool) -> tuple[Any, tuple[Any, ...], float]:
    """The compiled loss or its gradient, its arguments, and the MB that XLA sets aside for it."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    w = weights(N)
    sim = vb.Simulator(
        vb.models.ReducedWongWang(w=jnp.full(N, 0.6), I_o=0.33),
        vb.Connectome(w, np.zeros_like(w)),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=DT),
        noise=vb.noise.Additive(sigma=0.01),
        monitors={"S": vb.monitors.Subsample(period=SAMPLE * DT, var="S")},
    )
    target = 0.3 + 0.7 * jnp.eye(N)

    def loss(theta: dict[str, Any], key: Any) -> Any:
        bound = vb.bind(sim, theta)
        y = vb.simulate(bound, t1=STEPS * DT, key=key, checkpoint=True if gradient else None).ys["S"]
        y = y - y.mean(axis=0)
        covariance = y.T @ y
        spread = jnp.sqrt(jnp.diagonal(covariance))
        return ((covariance / spread[:, None] / spread[None, :] - target) ** 2).mean()

    theta = {"coupling.G": jnp.asarray(0.3), "model.w": jnp.full(N, 0.6)}
    arguments = (theta, jax.random.key(0))
    ready = jax.jit(jax.value_and_grad(loss) if gradient else loss).lower(*arguments).compile()
    memory = ready.memory_analysis()
    return ready, arguments, float("nan") if memory is None else memory.temp_size_in_bytes / 1e6


def run(gradient: bool) -> dict[str, float]:
    """Median seconds of a call, seconds to compile, and memory."""
    import jax
    import numpy as np

    made: list[Any] = []
    compiling = seconds(lambda: made.extend(compiled(gradient)))
    call, arguments, temporary = made
    out = call(*arguments)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out)), "the loss or its gradient is not finite"
    if gradient:
        assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(out[1])), "a parameter has no gradient"
    took = median([seconds(lambda: jax.block_until_ready(call(*arguments))) for _ in range(CALLS)])
    return {"seconds": took, "compile": compiling, "xla": temporary, "peak": peak()}


def main() -> int:
    args = options(__doc__, repeats=3)
    if args.worker:
        pin(args.core)
        print(json.dumps(run(args.worker == "gradient")))
        return 0
    where = host()
    header(f"FC loss through {STEPS:,} steps of {N} regions, one core, {args.repeats} interleaved repeats", where)
    start = partial(worker, sys.executable, HERE, core=args.core)
    runs = interleaved({name: partial(start, name=name) for name in ("forward", "gradient")}, args.repeats)
    fields = ("seconds", "compile", "xla", "peak")
    columns = {name: {key: [value[key] for value in values] for key in fields} for name, values in runs.items()}
    rows = [
        (n, f"{median(c['seconds']):.2f}", spread(c["seconds"]), *(f"{median(c[key]):,.1f}" for key in fields[1:]))
        for n, c in columns.items()
    ]
    table(("", "s", "range", "compile s", "XLA temporary MB", "peak MB"), rows)
    forward, gradient = (columns[name]["seconds"] for name in ("forward", "gradient"))
    ratios = [b / a for a, b in zip(forward, gradient, strict=True)]
    ratio, most = median(ratios), median(columns["gradient"]["peak"])
    print(f"the gradient takes {ratio:.1f} times the simulation ({spread(ratios)}); wanted: at most {RATIO:g}")
    print(f"and {most:,.0f} MB; wanted: below {LIMIT:,.0f}")
    finish(args.json, where, {"ratio": ratios, "wanted": {"ratio": RATIO, "peak": LIMIT}, "runs": columns})
    return int(most > LIMIT)  # a ratio of times depends on who else is busy


if __name__ == "__main__":
    sys.exit(main())
