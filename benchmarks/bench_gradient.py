"""Time and memory of the gradient of a functional-connectivity loss through 60,000 steps.

One simulation of 84 regions with dense random weights, Heun, noise: of Montbrio-Pazo-Roxin (dt = 0.01 tau) or reduced
Wong-Wang (dt = 1 ms). The loss is the mean square difference of the functional connectivity of r or S, sampled every
100 steps, from a target, as a function of G and of one parameter of every region, eta or the local excitation w.
`simulate(..., checkpoint=True)` keeps states at a few moments only and takes the steps between them again on the way
back, so at best the gradient costs about two simulations more than one does.

Forward and gradient are processes of their own, in turn, pinned to the same core; time is CPU time of the process.
Peaks of memory are the resident set as the system counted it, the packages included, and what XLA set aside for the
compiled function.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _timing import (
    cpu_seconds,
    finish,
    header,
    host,
    interleaved,
    median,
    options,
    peak,
    pin,
    spread,
    table,
    weights,
    worker,
)

HERE = str(Path(__file__).resolve())
N, STEPS, SAMPLE, CALLS = 84, 60_000, 100, 3
RATIO, LIMIT = 5.0, 1_000.0
MODELS = ("MontbrioPazoRoxin", "ReducedWongWang")


def simulator(name: str) -> tuple[Any, dict[str, Any]]:
    """The simulator of a model and the parameters to differentiate by."""
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    w = weights(N)
    if name == "MontbrioPazoRoxin":
        model, dt, var = vb.models.MontbrioPazoRoxin(J=14.5, eta=jnp.full(N, -4.6), Delta=0.7), 0.01, "r"
        sigma, theta = {"r": 0.27, "V": 0.38}, {"coupling.G": jnp.asarray(0.5), "model.eta": jnp.full(N, -4.6)}
    else:
        model, dt, var = vb.models.ReducedWongWang(w=jnp.full(N, 0.6), I_o=0.33), 1.0, "S"
        sigma, theta = 0.01, {"coupling.G": jnp.asarray(0.3), "model.w": jnp.full(N, 0.6)}
    sim = vb.Simulator(
        model,
        vb.Connectome(w, np.zeros_like(w)),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=dt),
        noise=vb.noise.Additive(sigma=sigma),
        monitors={"y": vb.monitors.Subsample(period=SAMPLE * dt, var=var)},
    )
    return sim, theta


def compiled(name: str, gradient: bool) -> tuple[Any, tuple[Any, ...], float]:
    """The compiled loss or its gradient, its arguments, and the MB that XLA sets aside for it."""
    import jax
    import jax.numpy as jnp

    import vbinfer as vb

    sim, start = simulator(name)
    target = 0.3 + 0.7 * jnp.eye(N)

    def loss(theta: dict[str, Any], key: Any) -> Any:
        bound = vb.bind(sim, theta)
        y = vb.simulate(bound, t1=STEPS * sim.dt, key=key, checkpoint=True if gradient else None).ys["y"]
        y = y - y.mean(axis=0)
        covariance = y.T @ y
        spread = jnp.sqrt(jnp.diagonal(covariance))
        return ((covariance / spread[:, None] / spread[None, :] - target) ** 2).mean()

    arguments = (start, jax.random.key(0))
    ready = jax.jit(jax.value_and_grad(loss) if gradient else loss).lower(*arguments).compile()
    memory = ready.memory_analysis()
    return ready, arguments, float("nan") if memory is None else memory.temp_size_in_bytes / 1e6


def run(name: str, gradient: bool) -> dict[str, float]:
    """Median seconds of a call, seconds to compile, and memory."""
    import jax
    import numpy as np

    made: list[Any] = []
    compiling = cpu_seconds(lambda: made.extend(compiled(name, gradient)))
    call, arguments, temporary = made
    out = call(*arguments)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out)), "the loss or its gradient is not finite"
    if gradient:
        assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(out[1])), "a parameter has no gradient"
    took = median([cpu_seconds(lambda: jax.block_until_ready(call(*arguments))) for _ in range(CALLS)])
    return {"seconds": took, "compile": compiling, "xla": temporary, "peak": peak()}


def _case(worker_name: str) -> tuple[str, bool]:
    model, what = worker_name.split(", ")
    return model, what == "gradient"


def main() -> int:
    args = options(__doc__, repeats=3)
    if args.worker:
        pin(args.core)
        print(json.dumps(run(*_case(args.worker))))
        return 0
    where = host()
    header(f"FC loss through {STEPS:,} steps of {N} regions, one core, {args.repeats} interleaved repeats", where)
    start = partial(worker, sys.executable, HERE, core=args.core)
    names = [f"{model}, {what}" for model in MODELS for what in ("forward", "gradient")]
    runs = interleaved({name: partial(start, name=name) for name in names}, args.repeats)
    fields = ("seconds", "compile", "xla", "peak")
    columns = {name: {key: [value[key] for value in values] for key in fields} for name, values in runs.items()}
    rows = [
        (n, f"{median(c['seconds']):.3f}", spread(c["seconds"]), *(f"{median(c[key]):,.1f}" for key in fields[1:]))
        for n, c in columns.items()
    ]
    table(("", "CPU s", "range", "compile CPU s", "XLA temporary MB", "peak MB"), rows)
    ratios, most = {}, 0.0
    for model in MODELS:
        forward, gradient = (columns[f"{model}, {what}"] for what in ("forward", "gradient"))
        ratios[model] = [b / a for a, b in zip(forward["seconds"], gradient["seconds"], strict=True)]
        most = max(most, median(gradient["peak"]))
        print(
            f"{model}: the gradient takes {median(ratios[model]):.1f} times the simulation; wanted: at most {RATIO:g}"
        )
    print(f"the most memory is {most:,.0f} MB; wanted: below {LIMIT:,.0f}")
    finish(args.json, where, {"ratios": ratios, "wanted": {"ratio": RATIO, "peak": LIMIT}, "runs": columns})
    return int(most > LIMIT)  # a ratio of times depends on who else is busy


if __name__ == "__main__":
    sys.exit(main())
