"""Peak memory of 256 draws with delays, run together: it must not grow with the length of the simulation.

Reduced Wong-Wang on 84 regions with dense random weights, lengths of up to 150 mm and a speed of 3 mm/ms (50 ms), Heun
with dt = 1 ms, noise and a G of each draw's own, BOLD every 2 s, functional connectivity as summary. Every duration is
a process of its own; the peak is what the system counted for it (resident set), the packages included, whose share is
the peak before the first simulation.
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
N, BATCH, DT, LONGEST, VOLUME = 84, 256, 1.0, 150.0, 2_000.0
MINUTES = (1, 5)
LIMIT = 1_000.0


def run(minutes: int) -> dict[str, Any]:
    """Seconds and peaks of one batch of draws."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    lengths = LONGEST * np.random.default_rng(1).random((N, N))
    sim = vb.Simulator(
        vb.models.ReducedWongWang(w=0.6, I_o=0.33),
        vb.Connectome(weights(N), lengths, speed=3.0),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=DT),
        noise=vb.noise.Additive(sigma=0.01),
        delays=vb.Delays(),
        monitors={"bold": vb.monitors.BalloonWindkessel("S", period=VOLUME)},
    )
    forward = vb.ForwardModel(sim, t1=minutes * 60e3, summary=vb.Summary(period=VOLUME, fc=vb.features.fc_stat))
    theta = {"coupling.G": jnp.linspace(0.1, 0.6, BATCH)}
    keys = jax.random.split(jax.random.key(0), BATCH)
    before, out = peak(), []
    took = seconds(lambda: out.append(np.asarray(forward.batch(theta, keys))))
    assert np.isfinite(out[0]).all(), "a draw failed"
    return {"seconds": took, "before": before, "peak": peak()}


def main() -> int:
    args = options(__doc__, repeats=1)
    if args.worker:
        pin(args.core)
        print(json.dumps(run(int(args.worker))))
        return 0
    where = host()
    header(f"{BATCH} draws together, {N} regions, delays of up to 50 ms, dt = {DT:g} ms, one core", where)
    start = partial(worker, sys.executable, HERE, core=args.core)
    runs = interleaved({f"{m} min": partial(start, name=str(m)) for m in MINUTES}, args.repeats)
    rows = []
    for name, values in runs.items():
        peaks, before, took = ([value[key] for value in values] for key in ("peak", "before", "seconds"))
        rows.append((name, f"{median(peaks):,.0f}", spread(peaks), f"{median(before):,.0f}", f"{median(took):.0f}"))
    table(("", "peak MB", "range", "of it packages", "s with compilation"), rows)
    short, long = (median([value["peak"] for value in runs[f"{m} min"]]) for m in MINUTES)
    print(
        f"wanted: below {LIMIT:,.0f} MB; five times the duration takes {100.0 * (long / short - 1.0):+.0f} % of memory"
    )
    finish(args.json, where, {"limit": LIMIT, "runs": runs})
    return int(long > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
